package ort

import (
	"math"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// adaption is how an output leaves the model where the binding cannot take it as
// it is: of half the bits, or without dimensions.
type adaption struct {
	name   string // of the added output
	half   string // float16, bfloat16 or ""
	scalar bool
}

// adapt changes what the binding cannot take or give: halves that come out are
// widened, which loses nothing; scalars get a dimension, on the way in where they
// are texts or halves; a model without inputs gets one that nothing reads. It returns
// the model as it was where there is nothing to change. Adaptions are of outputs; inputs keep their places.
func adapt(model []byte, inputs, outputs []Info) (changed []byte, in map[int]string, out map[int]adaption, err error) {
	needed := len(inputs) == 0
	for _, o := range outputs {
		needed = needed || o.half() || o.tensor() && len(o.Shape) == 0
	}
	for _, i := range inputs {
		needed = needed || (i.half() || i.Type == "string") && len(i.Shape) == 0
	}
	if !needed {
		return model, nil, nil, nil
	}
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(model, &m); err != nil {
		return nil, nil, nil, err
	}
	in, out = adaptInputs(m.Graph, inputs), adaptOutputs(m.Graph, outputs)
	if len(inputs) == 0 {
		m.Graph.Input = append(m.Graph.Input, tensorInfo(unread, int32(onnxpb.TensorProto_INT64), oneDim))
		in[0] = unread
	}
	if len(in) == 0 && len(out) == 0 {
		return model, nil, nil, nil
	}
	changed, err = proto.Marshal(&m)
	return changed, in, out, err
}

// unread is the input of models that take none: the binding calls for one.
const unread = "__mlc_unread"

// scalar reports whether a type is that of a tensor declared to have no dimensions.
func scalar(t *onnxpb.TypeProto_Tensor) bool {
	return t != nil && t.Shape != nil && len(t.Shape.Dim) == 0
}

var oneDim = &onnxpb.TensorShapeProto{Dim: []*onnxpb.TensorShapeProto_Dimension{{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: 1}}}}

func tensorInfo(name string, elem int32, shape *onnxpb.TensorShapeProto) *onnxpb.ValueInfoProto {
	return &onnxpb.ValueInfoProto{Name: name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: elem, Shape: shape}}}}
}

func adaptInputs(g *onnxpb.GraphProto, inputs []Info) map[int]string {
	out := map[int]string{}
	for i, info := range inputs {
		for k, v := range g.Input { // initializers may stand among them
			t := v.GetType().GetTensorType()
			if v.Name != info.Name || !scalar(t) || !info.half() && info.Type != "string" {
				continue
			}
			given, none := v.Name+"__mlc_given", v.Name+"__mlc_none"
			g.Initializer = append(g.Initializer, &onnxpb.TensorProto{Name: none, DataType: int32(onnxpb.TensorProto_INT64), Dims: []int64{0}})
			g.Node = append([]*onnxpb.NodeProto{{OpType: "Reshape", Input: []string{given, none}, Output: []string{v.Name}}}, g.Node...)
			g.Input[k] = tensorInfo(given, t.ElemType, oneDim)
			out[i] = given
		}
	}
	return out
}

func adaptOutputs(g *onnxpb.GraphProto, outputs []Info) map[int]adaption {
	out := map[int]adaption{}
	kept := g.Output[:0:0]
	for i, v := range g.Output {
		t := v.GetType().GetTensorType()
		if i >= len(outputs) || t == nil {
			kept = append(kept, v)
			continue
		}
		a := adaption{scalar: scalar(t)}
		if o := outputs[i]; o.half() {
			a.half = o.Type
		}
		if !a.scalar && a.half == "" {
			kept = append(kept, v)
			continue
		}
		at := v.Name
		elem := t.ElemType
		if a.half != "" {
			next := at + "__mlc_float"
			g.Node = append(g.Node, &onnxpb.NodeProto{OpType: "Cast", Input: []string{at}, Output: []string{next},
				Attribute: []*onnxpb.AttributeProto{{Name: "to", Type: onnxpb.AttributeProto_INT, I: int64(onnxpb.TensorProto_FLOAT)}}})
			at, elem = next, int32(onnxpb.TensorProto_FLOAT)
		}
		shape := t.Shape
		if a.scalar {
			next, one := at+"__mlc_one", at+"__mlc_shape"
			g.Initializer = append(g.Initializer, &onnxpb.TensorProto{Name: one, DataType: int32(onnxpb.TensorProto_INT64), Dims: []int64{1}, Int64Data: []int64{1}})
			g.Node = append(g.Node, &onnxpb.NodeProto{OpType: "Reshape", Input: []string{at, one}, Output: []string{next}})
			at = next
			shape = oneDim
		}
		a.name = at
		out[i] = a
		kept = append(kept, tensorInfo(at, elem, shape))
	}
	g.Output = kept
	return out
}

// restore undoes an adaption.
func (a adaption) restore(v Value) Value {
	t, ok := v.(Tensor)
	if !ok {
		return v
	}
	if a.scalar {
		t.Shape = []int64{}
	}
	if f, ok := t.Data.([]float32); ok && a.half == "float16" {
		h := make([]Float16, len(f))
		for i, x := range f {
			h[i] = ToFloat16(x)
		}
		t.Data = h
	} else if ok && a.half == "bfloat16" {
		h := make([]BFloat16, len(f))
		for i, x := range f {
			h[i] = BFloat16(math.Float32bits(x) >> 16)
		}
		t.Data = h
	}
	return t
}

// ToFloat16 rounds x to the nearest half, ties to even (IEEE 754 binary16).
func ToFloat16(x float32) Float16 {
	b := math.Float32bits(x)
	sign := uint16(b>>16) & 0x8000
	exp, frac := int(b>>23&0xff), b&0x7fffff
	switch {
	case exp == 0xff && frac != 0:
		return Float16(sign | 0x7c00 | uint16(frac>>13) | 0x200)
	case exp == 0xff:
		return Float16(sign | 0x7c00)
	}
	e := exp - 127 + 15
	shift := uint(13)
	m := frac
	switch {
	case e >= 31:
		return Float16(sign | 0x7c00)
	case e <= 0:
		if e < -10 {
			return Float16(sign)
		}
		m |= 0x800000
		shift = uint(14 - e)
		e = 0
	}
	h := uint32(e)<<10 + m>>shift
	half, rest := uint32(1)<<(shift-1), m&(1<<shift-1)
	if rest > half || rest == half && h&1 == 1 {
		h++ // a carry runs into the exponent, as it should
	}
	return Float16(sign | uint16(h))
}

// Float is the value of a half.
func (h Float16) Float() float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp == 0 && frac == 0:
		return math.Float32frombits(sign)
	case exp == 0:
		f := float32(frac) / (1 << 24)
		if sign != 0 {
			f = -f
		}
		return f
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// Float is the value of a BFloat16.
func (h BFloat16) Float() float32 { return math.Float32frombits(uint32(h) << 16) }
