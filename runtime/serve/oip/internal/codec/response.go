package codec

import (
	"math"
	"strconv"
	"unicode/utf8"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// Head is an answer but for its outputs.
type Head struct {
	Model, Version, ID string
	// Variant and Fallback are parameters of the answer where they are not "" and
	// not false.
	Variant  string
	Fallback bool
}

// Out is an output under its name, and whether it goes in binary.
type Out struct {
	Name   string
	Value  ort.Value
	Binary bool
}

// AppendResponse writes an answer: its JSON text, text bytes long, then what goes in
// binary. binary reports whether an output does, even an empty one.
//
// Floats are in the shortest form that reads back as the same bits. NaN and the
// infinities are written as NaN, Infinity and -Infinity: JSON has no such numbers,
// but Triton's server writes these and its clients read them, and null would be
// read as another thing. Who needs strict JSON asks for binary_data.
func AppendResponse(dst []byte, h Head, outs []Out) (b []byte, text int, binary bool, err error) {
	start := len(dst)
	b = append(dst, `{"model_name":`...)
	b = appendText(b, h.Model)
	b = append(b, `,"model_version":`...)
	b = appendText(b, h.Version)
	if h.ID != "" {
		b = append(b, `,"id":`...)
		b = appendText(b, h.ID)
	}
	if h.Variant != "" || h.Fallback {
		b = append(b, `,"parameters":{`...)
		if h.Variant != "" {
			b = append(b, `"variant":`...)
			b = appendText(b, h.Variant)
			if h.Fallback {
				b = append(b, ',')
			}
		}
		if h.Fallback {
			b = append(b, `"fallback":true`...)
		}
		b = append(b, '}')
	}
	b, text, binary, err = appendTensors(append(b, `,"outputs":[`...), outs, "]}", start)
	return b, text, binary, err
}

// AppendRequest writes a request for the outputs wanted, as AppendResponse does an
// answer; without any it asks for none, which means all.
func AppendRequest(dst []byte, id string, inputs []Out, wanted []Out) (b []byte, text int, binary bool, err error) {
	start := len(dst)
	b = append(dst, '{')
	if id != "" {
		b = append(b, `"id":`...)
		b = appendText(b, id)
		b = append(b, ',')
	}
	if len(wanted) > 0 {
		b = append(b, `"outputs":[`...)
		for i, o := range wanted {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"name":`...)
			b = appendText(b, o.Name)
			b = append(b, `,"parameters":{"binary_data":`...)
			b = strconv.AppendBool(b, o.Binary)
			b = append(b, "}}"...)
		}
		b = append(b, "],"...)
	}
	return appendTensors(append(b, `"inputs":[`...), inputs, "]}", start)
}

func appendTensors(b []byte, outs []Out, end string, start int) ([]byte, int, bool, error) {
	var room [8]Tensor
	binary, first := false, true
	each := func(do func(Tensor, bool) error) error {
		for _, o := range outs {
			ts, err := Flatten(room[:0], o.Name, o.Value)
			if err != nil {
				return err
			}
			for _, t := range ts {
				if err := do(t, o.Binary); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := each(func(t Tensor, bin bool) (err error) {
		if !first {
			b = append(b, ',')
		}
		first = false
		binary = binary || bin
		b, err = appendTensor(b, t, bin)
		return err
	})
	if err != nil {
		return nil, 0, false, err
	}
	b = append(b, end...)
	text := len(b) - start
	if binary {
		err = each(func(t Tensor, bin bool) error {
			if bin {
				b = AppendRaw(b, t.Data)
			}
			return nil
		})
	}
	return b, text, binary, err
}

func appendTensor(b []byte, t Tensor, binary bool) ([]byte, error) {
	kind := TypeOf(t.Data)
	if kind == None {
		return nil, api.Errorf(api.Unsupported, "%q is of a type that the protocol has no form for", t.Name)
	}
	b = append(b, `{"name":`...)
	b = appendText(b, t.Name)
	b = append(b, `,"datatype":"`...)
	b = append(b, kind.String()...)
	b = append(b, `","shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	b = append(b, ']')
	if binary || t.Sequence >= 0 {
		b = append(b, `,"parameters":{`...)
		if binary {
			b = append(b, `"binary_data_size":`...)
			b = strconv.AppendInt(b, int64(RawSize(t.Data)), 10)
		}
		if t.Sequence >= 0 {
			if binary {
				b = append(b, ',')
			}
			b = append(b, `"`+sequenceLength+`":`...)
			b = strconv.AppendInt(b, int64(t.Sequence), 10)
		}
		b = append(b, '}')
	}
	if !binary {
		b = append(b, `,"data":[`...)
		var err error
		if b, err = appendData(b, t); err != nil {
			return nil, err
		}
		b = append(b, ']')
	}
	return append(b, '}'), nil
}

func appendData(b []byte, t Tensor) ([]byte, error) {
	switch d := t.Data.(type) {
	case []bool:
		return list(b, d, strconv.AppendBool), nil
	case []uint8:
		return list(b, d, appendUint[uint8]), nil
	case []uint16:
		return list(b, d, appendUint[uint16]), nil
	case []uint32:
		return list(b, d, appendUint[uint32]), nil
	case []uint64:
		return list(b, d, appendUint[uint64]), nil
	case []int8:
		return list(b, d, appendInt[int8]), nil
	case []int16:
		return list(b, d, appendInt[int16]), nil
	case []int32:
		return list(b, d, appendInt[int32]), nil
	case []int64:
		return list(b, d, appendInt[int64]), nil
	case []float32:
		return list(b, d, func(b []byte, x float32) []byte { return appendFloat(b, float64(x), 32) }), nil
	case []float64:
		return list(b, d, func(b []byte, x float64) []byte { return appendFloat(b, x, 64) }), nil
	case []string:
		for i, s := range d {
			if !utf8.ValidString(s) {
				return nil, api.Errorf(api.Invalid, "element %d of %q is not UTF-8 and has no form in JSON: ask for binary_data", i, t.Name)
			}
		}
		return list(b, d, appendText), nil
	}
	return nil, api.Errorf(api.Invalid, "%q is %s, which has no form in JSON: ask for binary_data", t.Name, TypeOf(t.Data))
}

func list[T any](b []byte, d []T, add func([]byte, T) []byte) []byte {
	for i, x := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = add(b, x)
	}
	return b
}

func appendInt[T signed](b []byte, x T) []byte { return strconv.AppendInt(b, int64(x), 10) }

func appendUint[T unsigned](b []byte, x T) []byte { return strconv.AppendUint(b, uint64(x), 10) }

func appendFloat(b []byte, x float64, bits int) []byte {
	switch {
	case math.IsNaN(x):
		return append(b, "NaN"...)
	case math.IsInf(x, 1):
		return append(b, "Infinity"...)
	case math.IsInf(x, -1):
		return append(b, "-Infinity"...)
	}
	format := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, x, format, -1, bits)
}

const hexDigits = "0123456789abcdef"

// appendText writes a string; bytes that are not UTF-8 become U+FFFD.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			b = append(b, s[from:i]...)
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				b = append(b, '\\', c)
			}
			from = i + 1
		}
		i++
	}
	return append(append(b, s[from:]...), '"')
}

// Response is an answer as a client reads it.
type Response struct {
	Head
	// Outputs are in the order of the model's outputs; nil is one that did not come.
	Outputs []ort.Value
	// Raw says that the outputs of a gRPC answer came raw.
	Raw bool
}

// ParseResponse reads an answer that AppendResponse wrote, and the literals NaN,
// Infinity and -Infinity with it.
func ParseResponse(text, binary []byte, m *Model) (*Response, error) {
	s := &scanner{b: text, literals: true}
	r := &Response{}
	out := newAssembler(m.Outputs, "output", m.MaxElements)
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case "model_name":
			r.Model, err = s.string()
		case "model_version":
			r.Version, err = s.string()
		case "id":
			r.ID, err = s.string()
		case "parameters":
			err = s.object(func(key []byte) (err error) {
				switch string(key) {
				case "variant":
					r.Variant, err = s.string()
				case "fallback":
					r.Fallback, err = s.bool()
				default:
					err = s.skip(2)
				}
				return err
			})
		case "outputs":
			err = s.array(func() error { return s.tensor(out, &binary) })
		default:
			err = s.skip(1)
		}
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && len(binary) > 0 {
		err = api.Errorf(api.Invalid, "%d bytes are left after the last binary tensor", len(binary))
	}
	if err != nil {
		return nil, err
	}
	r.Outputs, err = out.done(true)
	return r, err
}
