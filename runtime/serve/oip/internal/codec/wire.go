package codec

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// The gRPC request is read from its wire form: the generated message of an empty
// tensor takes two bytes on the wire and a hundred and fifty in memory, and raw
// tensors would be copied once more.

// fields walks over the fields of a message.
type fields struct {
	b   []byte
	num protowire.Number
	typ protowire.Type
	val []byte // of a length-delimited field
	x   uint64 // of any other
	err error
}

var errWire = api.Errorf(api.BadRequest, "the message is not right")

func (f *fields) next() bool {
	if len(f.b) == 0 || f.err != nil {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.b)
	if n < 0 {
		f.err = errWire
		return false
	}
	f.num, f.typ, f.val, f.x, f.b = num, typ, nil, 0, f.b[n:]
	switch typ {
	case protowire.BytesType:
		f.val, n = protowire.ConsumeBytes(f.b)
	case protowire.VarintType:
		f.x, n = protowire.ConsumeVarint(f.b)
	case protowire.Fixed64Type:
		f.x, n = protowire.ConsumeFixed64(f.b)
	case protowire.Fixed32Type:
		var x uint32
		x, n = protowire.ConsumeFixed32(f.b)
		f.x = uint64(x)
	default:
		n = protowire.ConsumeFieldValue(num, typ, f.b)
	}
	if n < 0 {
		f.err = errWire
		return false
	}
	f.b = f.b[n:]
	return true
}

// is reports whether the field is num of the type that its declaration has. As
// protobuf has it, a field of another type is passed over like an unknown one.
func (f *fields) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

func (f *fields) text() []byte {
	if !utf8.Valid(f.val) {
		f.err = api.Errorf(api.BadRequest, "a text of the message is not UTF-8")
	}
	return f.val
}

// Target is the model that a gRPC request names.
func Target(wire []byte) (model, version string, err error) {
	f := fields{b: wire}
	var m, v []byte
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType):
			m = f.text()
		case f.is(2, protowire.BytesType):
			v = f.text()
		}
	}
	return string(m), string(v), f.err
}

// ParseWire reads a ModelInferRequest from its wire form. The result shares no
// memory with it.
func ParseWire(wire []byte, m *Model) (*Request, error) {
	r := &Request{}
	tensors, raws := 0, 0
	var wanted []Wanted
	f := fields{b: wire}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType), f.is(2, protowire.BytesType):
			f.text() // the model and its version; see Target
		case f.is(3, protowire.BytesType):
			if len(f.val) > maxID {
				return nil, api.Errorf(api.BadRequest, "an id is longer than %d bytes", maxID)
			}
			r.ID = string(f.text())
		case f.is(4, protowire.BytesType):
			p, err := wireParameter(f.val)
			if err != nil {
				return nil, err
			}
			if string(p.name) == "timeout" {
				if r.Timeout, err = p.microseconds(); err != nil {
					return nil, err
				}
			}
		case f.is(5, protowire.BytesType):
			tensors++
		case f.is(6, protowire.BytesType):
			i, err := wireOutput(f.val, m)
			if err != nil {
				return nil, err
			}
			for _, w := range wanted {
				if w.Index == i {
					return nil, api.Errorf(api.Invalid, "output %q is asked for twice", m.Outputs[i].Name)
				}
			}
			wanted = append(wanted, Wanted{Index: i})
		case f.is(7, protowire.BytesType):
			raws++
		}
	}
	if f.err != nil {
		return nil, f.err
	}
	r.Raw = raws > 0
	if r.Raw && raws != tensors {
		return nil, api.Errorf(api.Invalid, "%d raw contents come for %d inputs", raws, tensors)
	}
	if r.Outputs = wanted; len(wanted) == 0 {
		r.Outputs = all(m, false)
	}
	in := newAssembler(m.Inputs, "input", m.MaxElements)
	raw := fields{b: wire}
	for f = (fields{b: wire}); f.next(); {
		if !f.is(5, protowire.BytesType) {
			continue
		}
		if r.Raw {
			for raw.next() && !raw.is(7, protowire.BytesType) {
			}
		}
		if err := wireTensor(f.val, raw.val, r.Raw, in); err != nil {
			return nil, err
		}
	}
	return r, r.finish(in, m)
}

func wireTensor(msg, raw []byte, isRaw bool, in *assembler) error {
	var (
		name, contents []byte
		t              Type
		has            bool
		sequence       = -1
		dims           [8]int64
		shape          = dims[:0]
	)
	f := fields{b: msg}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType):
			name = f.text()
		case f.is(2, protowire.BytesType):
			if t = ParseType(f.text()); t == None {
				return noDatatype(f.val)
			}
		case f.is(3, protowire.VarintType):
			shape = append(shape, int64(f.x))
		case f.is(3, protowire.BytesType):
			for b := f.val; len(b) > 0 && len(shape) <= maxRank; {
				x, n := protowire.ConsumeVarint(b)
				if n < 0 {
					return errWire
				}
				shape, b = append(shape, int64(x)), b[n:]
			}
		case f.is(4, protowire.BytesType):
			p, err := wireParameter(f.val)
			if err == nil {
				err = p.elsewhere()
			}
			if err == nil && string(p.name) == sequenceLength {
				var x uint64
				x, err = p.natural(math.MaxInt32)
				sequence = int(x)
			}
			if err != nil {
				return err
			}
		case f.is(5, protowire.BytesType):
			if has {
				return api.Errorf(api.BadRequest, "input %q has contents twice", clip(name))
			}
			contents, has = f.val, true
		}
		if len(shape) > maxRank {
			return api.Errorf(api.Invalid, "a tensor has more than %d dimensions", maxRank)
		}
	}
	if f.err != nil {
		return f.err
	}
	if t == None {
		return api.Errorf(api.Invalid, "input %q has no datatype", clip(name))
	}
	p, n, err := in.slot(name, t, shape)
	if err != nil {
		return err
	}
	var data any
	switch {
	case isRaw && len(contents) > 0:
		return api.Errorf(api.Invalid, "input %q has contents, and the request has raw contents", clip(name))
	case isRaw:
		data, err = FromRaw(t, n, raw)
	default:
		data, err = wireContents(t, n, contents)
	}
	if err != nil {
		return api.Errorf(api.From(err).Kind, "input %q: %v", clip(name), err)
	}
	p.sequence = sequence
	in.put(p, ort.Tensor{Shape: append(make([]int64, 0, len(shape)), shape...), Data: data})
	return nil
}

// wireParameter reads an entry of a map from names to InferParameter.
func wireParameter(entry []byte) (parameter, error) {
	var p parameter
	f := fields{b: entry}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType):
			p.name = f.text()
		case f.is(2, protowire.BytesType):
			v := fields{b: f.val}
			for v.next() {
				switch {
				case v.is(1, protowire.VarintType):
					p.kind, p.flag = 'b', v.x != 0
				case v.is(2, protowire.VarintType):
					d := decimal{digits: v.x, integer: true, exact: true}
					if d.negative = int64(v.x) < 0; d.negative {
						d.digits = -v.x
					}
					p.kind, p.number = 'n', d
				case v.is(3, protowire.BytesType):
					v.text()
					p.kind = 's'
				case v.is(4, protowire.Fixed64Type):
					p.kind, p.number = 'n', decimal{digits: v.x}
				case v.is(5, protowire.VarintType):
					p.kind, p.number = 'n', decimal{digits: v.x, integer: true, exact: true}
				}
			}
			if v.err != nil {
				return p, v.err
			}
		}
	}
	return p, f.err
}

func wireOutput(msg []byte, m *Model) (int, error) {
	var name []byte
	f := fields{b: msg}
	for f.next() {
		switch {
		case f.is(1, protowire.BytesType):
			name = f.text()
		case f.is(2, protowire.BytesType):
			p, err := wireParameter(f.val)
			if err == nil {
				err = p.elsewhere()
			}
			if err != nil {
				return 0, err
			}
		}
	}
	if f.err != nil {
		return 0, f.err
	}
	return m.output(name)
}

// contentFields are the fields of InferTensorContents by the types that they carry.
var contentFields = [...]protowire.Number{Bool: 1, Int8: 2, Int16: 2, Int32: 2, Int64: 3, Uint8: 4, Uint16: 4, Uint32: 4, Uint64: 5, FP32: 6, FP64: 7, Bytes: 8}

// wireContents reads n elements from the wire form of InferTensorContents.
func wireContents(t Type, n int, msg []byte) (any, error) {
	switch t {
	case Bool:
		return varints(t, n, msg, func(x uint64) (bool, bool) { return x != 0, true })
	case Int8:
		return varints(t, n, msg, narrow[int8])
	case Int16:
		return varints(t, n, msg, narrow[int16])
	case Int32:
		return varints(t, n, msg, narrow[int32])
	case Int64:
		return varints(t, n, msg, func(x uint64) (int64, bool) { return int64(x), true })
	case Uint8:
		return varints(t, n, msg, unarrow[uint8])
	case Uint16:
		return varints(t, n, msg, unarrow[uint16])
	case Uint32:
		return varints(t, n, msg, unarrow[uint32])
	case Uint64:
		return varints(t, n, msg, func(x uint64) (uint64, bool) { return x, true })
	case FP32:
		return fixeds(t, n, msg, 4, protowire.Fixed32Type, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	case FP64:
		return fixeds(t, n, msg, 8, protowire.Fixed64Type, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
	case Bytes:
		out := make([]string, 0, min(n, len(msg)/2))
		f := fields{b: msg}
		for f.next() {
			if !f.is(8, protowire.BytesType) {
				return nil, f.stray(t)
			}
			if len(out) == n {
				return nil, miscounted(t, n)
			}
			out = append(out, string(f.val))
		}
		return counted(t, n, out, f.err)
	}
	return nil, api.Errorf(api.Invalid, "%s has to come as raw contents", t)
}

func (f *fields) stray(t Type) error {
	return api.Errorf(api.Invalid, "the contents hold a field that is not %s's", t)
}

func miscounted(t Type, n int) error {
	return api.Errorf(api.Invalid, "the contents are not %d elements of %s", n, t)
}

func counted[T any](t Type, n int, out []T, err error) (any, error) {
	if err == nil && len(out) != n {
		err = miscounted(t, n)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// narrow takes what protobuf's int32 holds: the lower half of a varint.
func narrow[T signed](x uint64) (T, bool) {
	v := int32(x)
	return T(v), int32(T(v)) == v
}

func unarrow[T unsigned](x uint64) (T, bool) {
	v := uint32(x)
	return T(v), uint32(T(v)) == v
}

func varints[T any](t Type, n int, msg []byte, convert func(uint64) (T, bool)) (any, error) {
	out := make([]T, 0, min(n, len(msg)))
	add := func(x uint64) error {
		v, ok := convert(x)
		if !ok {
			return api.Errorf(api.Invalid, "element %d is out of the range of %s", len(out), t)
		}
		if len(out) == n {
			return miscounted(t, n)
		}
		out = append(out, v)
		return nil
	}
	f := fields{b: msg}
	for f.next() {
		if f.num != contentFields[t] {
			return nil, f.stray(t)
		}
		switch f.typ {
		case protowire.VarintType:
			if err := add(f.x); err != nil {
				return nil, err
			}
		case protowire.BytesType:
			for b := f.val; len(b) > 0; {
				x, k := protowire.ConsumeVarint(b)
				if k < 0 {
					return nil, errWire
				}
				b = b[k:]
				if err := add(x); err != nil {
					return nil, err
				}
			}
		default:
			return nil, f.stray(t)
		}
	}
	return counted(t, n, out, f.err)
}

func fixeds[T any](t Type, n int, msg []byte, size int, one protowire.Type, read func([]byte) T) (any, error) {
	out := make([]T, 0, min(n, len(msg)/size))
	f := fields{b: msg}
	var single [8]byte
	for f.next() {
		if f.num != contentFields[t] {
			return nil, f.stray(t)
		}
		b := f.val
		switch f.typ {
		case one:
			binary.LittleEndian.PutUint64(single[:], f.x)
			b = single[:size]
		case protowire.BytesType:
		default:
			return nil, f.stray(t)
		}
		if len(b)%size != 0 {
			return nil, errWire
		}
		if len(b)/size > n-len(out) {
			return nil, miscounted(t, n)
		}
		for ; len(b) > 0; b = b[size:] {
			out = append(out, read(b))
		}
	}
	return counted(t, n, out, f.err)
}

// Parameters of an answer.
func (h *Head) parameters() map[string]*pb.InferParameter {
	if h.Variant == "" && !h.Fallback {
		return nil
	}
	out := map[string]*pb.InferParameter{}
	if h.Variant != "" {
		out["variant"] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: h.Variant}}
	}
	if h.Fallback {
		out["fallback"] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}
	}
	return out
}

func sequenceParameter(k int) map[string]*pb.InferParameter {
	if k < 0 {
		return nil
	}
	return map[string]*pb.InferParameter{sequenceLength: {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(k)}}}
}

// NewResponse makes the answer to a gRPC request: raw where raw is asked for, or
// where an output has no other form.
func NewResponse(h Head, outs []Out, raw bool) (*pb.ModelInferResponse, error) {
	var ts []Tensor
	var err error
	for _, o := range outs {
		if ts, err = Flatten(ts, o.Name, o.Value); err != nil {
			return nil, err
		}
	}
	for _, t := range ts {
		kind := TypeOf(t.Data)
		if kind == None {
			return nil, api.Errorf(api.Unsupported, "%q is of a type that the protocol has no form for", t.Name)
		}
		raw = raw || !kind.InJSON() // the types without a form in JSON have none in contents
	}
	r := &pb.ModelInferResponse{ModelName: h.Model, ModelVersion: h.Version, Id: h.ID, Parameters: h.parameters(),
		Outputs: make([]*pb.ModelInferResponse_InferOutputTensor, len(ts))}
	for i, t := range ts {
		o := &pb.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: TypeOf(t.Data).String(), Shape: t.Shape, Parameters: sequenceParameter(t.Sequence)}
		if raw {
			r.RawOutputContents = append(r.RawOutputContents, AppendRaw(make([]byte, 0, RawSize(t.Data)), t.Data))
		} else {
			o.Contents = contents(t.Data)
		}
		r.Outputs[i] = o
	}
	return r, nil
}

// NewRequest makes a gRPC request, raw or in contents.
func NewRequest(model, version, id string, inputs []Out, wanted []string, raw bool) (*pb.ModelInferRequest, error) {
	r := &pb.ModelInferRequest{ModelName: model, ModelVersion: version, Id: id}
	var ts []Tensor
	var err error
	for _, o := range inputs {
		if ts, err = Flatten(ts, o.Name, o.Value); err != nil {
			return nil, err
		}
	}
	for _, t := range ts {
		in := &pb.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: TypeOf(t.Data).String(), Shape: t.Shape, Parameters: sequenceParameter(t.Sequence)}
		if raw {
			r.RawInputContents = append(r.RawInputContents, AppendRaw(nil, t.Data))
		} else {
			in.Contents = contents(t.Data)
		}
		r.Inputs = append(r.Inputs, in)
	}
	for _, name := range wanted {
		r.Outputs = append(r.Outputs, &pb.ModelInferRequest_InferRequestedOutputTensor{Name: name})
	}
	return r, nil
}

func widen[T, W int8 | int16 | int32 | uint8 | uint16 | uint32](d []T) []W {
	out := make([]W, len(d))
	for i, x := range d {
		out[i] = W(x)
	}
	return out
}

func contents(data any) *pb.InferTensorContents {
	switch d := data.(type) {
	case []bool:
		return &pb.InferTensorContents{BoolContents: d}
	case []int8:
		return &pb.InferTensorContents{IntContents: widen[int8, int32](d)}
	case []int16:
		return &pb.InferTensorContents{IntContents: widen[int16, int32](d)}
	case []int32:
		return &pb.InferTensorContents{IntContents: d}
	case []int64:
		return &pb.InferTensorContents{Int64Contents: d}
	case []uint8:
		return &pb.InferTensorContents{UintContents: widen[uint8, uint32](d)}
	case []uint16:
		return &pb.InferTensorContents{UintContents: widen[uint16, uint32](d)}
	case []uint32:
		return &pb.InferTensorContents{UintContents: d}
	case []uint64:
		return &pb.InferTensorContents{Uint64Contents: d}
	case []float32:
		return &pb.InferTensorContents{Fp32Contents: d}
	case []float64:
		return &pb.InferTensorContents{Fp64Contents: d}
	case []string:
		out := make([][]byte, len(d))
		for i, s := range d {
			out[i] = []byte(s)
		}
		return &pb.InferTensorContents{BytesContents: out}
	}
	return nil
}

// ReadResponse reads the answer to a gRPC request, as a client does.
func ReadResponse(r *pb.ModelInferResponse, m *Model) (*Response, error) {
	out := newAssembler(m.Outputs, "output", m.MaxElements)
	raw := len(r.RawOutputContents) > 0
	if raw && len(r.RawOutputContents) != len(r.Outputs) {
		return nil, api.Errorf(api.Invalid, "%d raw contents come for %d outputs", len(r.RawOutputContents), len(r.Outputs))
	}
	for i, o := range r.Outputs {
		t := ParseType([]byte(o.Datatype))
		p, n, err := out.slot([]byte(o.Name), t, o.Shape)
		if err != nil {
			return nil, err
		}
		var data any
		if raw {
			data, err = FromRaw(t, n, r.RawOutputContents[i])
		} else {
			var wire []byte
			if wire, err = proto.Marshal(o.Contents); err == nil {
				data, err = wireContents(t, n, wire)
			}
		}
		if err != nil {
			return nil, err
		}
		if k, ok := o.Parameters[sequenceLength]; ok {
			p.sequence = int(k.GetInt64Param())
		}
		out.put(p, ort.Tensor{Shape: append([]int64{}, o.Shape...), Data: data})
	}
	values, err := out.done(true)
	return &Response{Head: Head{Model: r.ModelName, Version: r.ModelVersion, ID: r.Id, Variant: r.Parameters["variant"].GetStringParam(),
		Fallback: r.Parameters["fallback"].GetBoolParam()}, Outputs: values, Raw: raw}, err
}
