package codec

import (
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"
	"unsafe"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// Type is an element type of the protocol.
type Type uint8

// The element types. None is no type.
const (
	None Type = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	FP32
	FP64
	BF16
	Bytes
)

// types are by Type: the protocol's name, that of ort.Info, and the bytes of an
// element; 0 for Bytes, whose elements are of any length.
var types = [...]struct {
	name, onnx string
	size       int
}{
	None:   {"", "", 0},
	Bool:   {"BOOL", "bool", 1},
	Uint8:  {"UINT8", "uint8", 1},
	Uint16: {"UINT16", "uint16", 2},
	Uint32: {"UINT32", "uint32", 4},
	Uint64: {"UINT64", "uint64", 8},
	Int8:   {"INT8", "int8", 1},
	Int16:  {"INT16", "int16", 2},
	Int32:  {"INT32", "int32", 4},
	Int64:  {"INT64", "int64", 8},
	FP16:   {"FP16", "float16", 2},
	FP32:   {"FP32", "float", 4},
	FP64:   {"FP64", "double", 8},
	BF16:   {"BF16", "bfloat16", 2},
	Bytes:  {"BYTES", "string", 0},
}

// String is the protocol's name.
func (t Type) String() string { return types[t].name }

// InJSON reports whether JSON has a form for the type; 16-bit floats have none and
// travel in binary.
func (t Type) InJSON() bool { return t != None && t != FP16 && t != BF16 }

// ParseType reads the protocol's name; None is another text.
func ParseType(name []byte) Type {
	for t := Bool; t <= Bytes; t++ {
		if types[t].name == string(name) {
			return t
		}
	}
	return None
}

// FromONNX is the Type of an ort.Info that is a tensor; None is a sequence, a map
// or an optional.
func FromONNX(onnx string) Type {
	for t := Bool; t <= Bytes; t++ {
		if types[t].onnx == onnx {
			return t
		}
	}
	return None
}

// Datatype is how metadata names the type of an input or output: an element type,
// or SEQUENCE, MAP or OPTIONAL.
func Datatype(onnx string) string {
	switch t := FromONNX(onnx); {
	case t != None:
		return t.String()
	case onnx == "seq":
		return "SEQUENCE"
	case onnx == "map":
		return "MAP"
	case onnx == "optional":
		return "OPTIONAL"
	}
	return "INVALID"
}

// noDatatype says what a caller takes for a datatype. Metadata have names that are none.
func noDatatype(text []byte) *api.Error {
	how := ""
	switch string(text) {
	case "SEQUENCE":
		how = `; send a sequence s as tensors "s[0]", "s[1]", …, the first with the parameter sequence_length`
	case "MAP":
		how = `; send a map m as the tensors "m.keys" and "m.values"`
	}
	return api.Errorf(api.Invalid, "there is no datatype %q%s", clip(text), how)
}

// TypeOf is the Type of the data of an ort.Tensor; None is what none has.
func TypeOf(data any) Type {
	switch data.(type) {
	case []bool:
		return Bool
	case []uint8:
		return Uint8
	case []uint16:
		return Uint16
	case []uint32:
		return Uint32
	case []uint64:
		return Uint64
	case []int8:
		return Int8
	case []int16:
		return Int16
	case []int32:
		return Int32
	case []int64:
		return Int64
	case []ort.Float16:
		return FP16
	case []float32:
		return FP32
	case []float64:
		return FP64
	case []ort.BFloat16:
		return BF16
	case []string:
		return Bytes
	}
	return None
}

// fixed are the elements whose bytes in memory, on a little-endian machine, are
// those of the protocol.
type fixed interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int8 | ~int16 | ~int32 | ~int64 | ~float32 | ~float64
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// view is the memory of s as bytes.
func view[T fixed](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}

// swap turns the bytes of each element of the given size around, unless memory has
// the protocol's order.
func swap(b []byte, size int) {
	if littleEndian || size == 1 {
		return
	}
	for ; len(b) > 0; b = b[size:] {
		slices.Reverse(b[:size])
	}
}

func fromView[T fixed](n int, b []byte) []T {
	out := make([]T, n)
	v := view(out)
	copy(v, b)
	if n > 0 {
		swap(v, len(v)/n)
	}
	return out
}

func appendView[T fixed](dst []byte, s []T) []byte {
	at := len(dst)
	dst = append(dst, view(s)...)
	if len(s) > 0 {
		swap(dst[at:], (len(dst)-at)/len(s))
	}
	return dst
}

// FromRaw reads n elements that are the whole of b, in the binary form: little
// endian without padding, a bool a byte of 0 or 1, a text its length as a uint32
// and then its bytes. The result shares no memory with b.
func FromRaw(t Type, n int, b []byte) (any, error) {
	if size := types[t].size; size > 0 && (len(b)%size != 0 || len(b)/size != n) {
		return nil, api.Errorf(api.Invalid, "%d bytes are not %d elements of %s", len(b), n, t)
	}
	switch t {
	case Bool:
		out := make([]bool, n)
		for i, x := range b {
			if x > 1 {
				return nil, api.Errorf(api.Invalid, "element %d of BOOL is %d, not 0 or 1", i, x)
			}
			out[i] = x == 1
		}
		return out, nil
	case Uint8:
		return fromView[uint8](n, b), nil
	case Uint16:
		return fromView[uint16](n, b), nil
	case Uint32:
		return fromView[uint32](n, b), nil
	case Uint64:
		return fromView[uint64](n, b), nil
	case Int8:
		return fromView[int8](n, b), nil
	case Int16:
		return fromView[int16](n, b), nil
	case Int32:
		return fromView[int32](n, b), nil
	case Int64:
		return fromView[int64](n, b), nil
	case FP16:
		return fromView[ort.Float16](n, b), nil
	case FP32:
		return fromView[float32](n, b), nil
	case FP64:
		return fromView[float64](n, b), nil
	case BF16:
		return fromView[ort.BFloat16](n, b), nil
	case Bytes:
		return rawTexts(n, b)
	}
	return nil, api.Errorf(api.Invalid, "a tensor has no datatype")
}

func rawTexts(n int, b []byte) ([]string, error) {
	if n > len(b)/4 {
		return nil, api.Errorf(api.Invalid, "%d bytes are too few for %d elements of BYTES", len(b), n)
	}
	out := make([]string, n)
	for i := range out {
		if len(b) < 4 {
			return nil, api.Errorf(api.Invalid, "element %d of BYTES has no length", i)
		}
		size := uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
		if size > uint64(len(b)) {
			return nil, api.Errorf(api.Invalid, "element %d of BYTES is %d bytes long, and %d are left", i, size, len(b))
		}
		out[i] = string(b[:size])
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, api.Errorf(api.Invalid, "%d bytes are left after the last element of BYTES", len(b))
	}
	return out, nil
}

// RawSize is the length of data in the binary form.
func RawSize(data any) int {
	if texts, ok := data.([]string); ok {
		n := 0
		for _, s := range texts {
			n += 4 + len(s)
		}
		return n
	}
	return ort.Len(data) * types[TypeOf(data)].size
}

// AppendRaw writes data in the binary form. Texts are shorter than 4 GiB: memory
// for answers is bounded far below.
func AppendRaw(dst []byte, data any) []byte {
	switch d := data.(type) {
	case []bool:
		for _, x := range d {
			c := byte(0)
			if x {
				c = 1
			}
			dst = append(dst, c)
		}
	case []uint8:
		dst = append(dst, d...)
	case []uint16:
		dst = appendView(dst, d)
	case []uint32:
		dst = appendView(dst, d)
	case []uint64:
		dst = appendView(dst, d)
	case []int8:
		dst = appendView(dst, d)
	case []int16:
		dst = appendView(dst, d)
	case []int32:
		dst = appendView(dst, d)
	case []int64:
		dst = appendView(dst, d)
	case []ort.Float16:
		dst = appendView(dst, d)
	case []float32:
		dst = appendView(dst, d)
	case []float64:
		dst = appendView(dst, d)
	case []ort.BFloat16:
		dst = appendView(dst, d)
	case []string:
		for _, s := range d {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)))
			dst = append(dst, s...)
		}
	}
	return dst
}

// PlainJSON reports whether JSON as its standard has it carries data: 16-bit
// floats, NaN, infinities and texts that are not UTF-8 have no form there.
func PlainJSON(data any) bool {
	switch d := data.(type) {
	case []float32:
		return !slices.ContainsFunc(d, func(x float32) bool { return x-x != 0 })
	case []float64:
		return !slices.ContainsFunc(d, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
	case []string:
		return !slices.ContainsFunc(d, func(s string) bool { return !utf8.ValidString(s) })
	}
	return TypeOf(data).InJSON()
}
