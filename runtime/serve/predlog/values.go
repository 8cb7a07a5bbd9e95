package predlog

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
)

// sizeOf is about how many bytes a value takes.
func sizeOf(v ort.Value) int64 {
	switch v := v.(type) {
	case ort.Tensor:
		n := 64 + 16*int64(ort.Len(v.Data))
		if s, ok := v.Data.([]string); ok {
			for _, x := range s {
				n += int64(len(x))
			}
		}
		return n
	case ort.Sequence:
		n := int64(64)
		for _, x := range v {
			n += sizeOf(x)
		}
		return n
	case ort.Map:
		return 64 + sizeOf(v.Keys) + sizeOf(v.Values)
	}
	return 0
}

// owned is a value that shares no memory.
func owned(v ort.Value) ort.Value {
	switch v := v.(type) {
	case ort.Tensor:
		return ort.Tensor{Shape: slices.Clone(v.Shape), Data: ownedData(v.Data)}
	case ort.Sequence:
		out := make(ort.Sequence, len(v))
		for i, x := range v {
			out[i] = owned(x)
		}
		return out
	case ort.Map:
		return ort.Map{Keys: owned(v.Keys).(ort.Tensor), Values: owned(v.Values).(ort.Tensor)}
	}
	return v
}

// ownedData is a slice that shares no memory, texts in one piece.
func ownedData(data any) any {
	texts, ok := data.([]string)
	if !ok {
		v := reflect.ValueOf(data)
		if v.Kind() != reflect.Slice {
			return data
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(out, v)
		return out.Interface()
	}
	all, out := strings.Join(texts, ""), make([]string, len(texts))
	if len(texts) == 1 {
		all = strings.Clone(all) // which Join does not
	}
	for i, t := range texts {
		out[i], all = all[:len(t)], all[len(t):]
	}
	return out
}

// narrow gives numbers of one type as another.
func narrow[T, U any](in []T, f func(T) U) []U {
	out := make([]U, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return out
}

func integer[T int8 | int16 | int32 | uint8 | uint16 | uint32](x T) int64 { return int64(x) }

// wide gives a tensor's data in the type that its column has: float64, float32,
// int64, uint64, bool or string.
func wide(data any) any {
	switch d := data.(type) {
	case []ort.Float16:
		return narrow(d, ort.Float16.Float)
	case []ort.BFloat16:
		return narrow(d, ort.BFloat16.Float)
	case []int8:
		return narrow(d, integer)
	case []int16:
		return narrow(d, integer)
	case []int32:
		return narrow(d, integer)
	case []uint8:
		return narrow(d, integer)
	case []uint16:
		return narrow(d, integer)
	case []uint32:
		return narrow(d, integer)
	case []string:
		return narrow(d, valid)
	}
	return data
}

// valid is a text as UTF-8: a tensor may hold any bytes.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// appendValue appends a value as JSON: tensors as arrays by their shape, sequences
// as arrays, maps as objects. Numbers that JSON has no form for are the texts
// "Infinity" and "-Infinity"; NaN and missing texts are null.
func appendValue(b []byte, v ort.Value) []byte {
	switch v := v.(type) {
	case ort.Tensor:
		return appendTensor(b, wide(v.Data), v.Shape)
	case ort.Sequence:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, x)
		}
		return append(b, ']')
	case ort.Map:
		values, n := wide(v.Values.Data), ort.Len(v.Values.Data)
		b = append(b, '{')
		for i := range min(n, ort.Len(v.Keys.Data)) {
			if i > 0 {
				b = append(b, ',')
			}
			switch k := v.Keys.Data.(type) {
			case []string:
				b = appendText(b, k[i])
			case []int64:
				b = append(strconv.AppendInt(append(b, '"'), k[i], 10), '"')
			default:
				b = append(b, `""`...)
			}
			b = appendCell(append(b, ':'), values, i)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

// appendTensor appends data, which wide gave, as arrays by shape.
func appendTensor(b []byte, data any, shape []int64) []byte {
	at := 0
	var rec func(shape []int64)
	rec = func(shape []int64) {
		if len(shape) == 0 {
			b = appendCell(b, data, at)
			at++
			return
		}
		b = append(b, '[')
		for i := range shape[0] {
			if i > 0 {
				b = append(b, ',')
			}
			rec(shape[1:])
		}
		b = append(b, ']')
	}
	rec(shape)
	return b
}

func appendCell(b []byte, data any, i int) []byte {
	switch d := data.(type) {
	case []float64:
		return appendFloat(b, d[i], 64)
	case []float32:
		return appendFloat(b, float64(d[i]), 32)
	case []int64:
		return strconv.AppendInt(b, d[i], 10)
	case []uint64:
		return strconv.AppendUint(b, d[i], 10)
	case []bool:
		return strconv.AppendBool(b, d[i])
	case []string:
		if d[i] != types.NullString {
			return appendText(b, d[i])
		}
	}
	return append(b, "null"...)
}

func appendFloat(b []byte, x float64, bits int) []byte {
	switch {
	case math.IsNaN(x):
		return append(b, "null"...)
	case math.IsInf(x, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, x, 'g', -1, bits)
}

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			w := bytes.NewBuffer(b)
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			if err := e.Encode(s); err != nil {
				return append(b, "null"...) // a string always marshals
			}
			return bytes.TrimSuffix(w.Bytes(), []byte{'\n'})
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// rowJSON is a value as JSON, a text a row: where the rows are its first dimension
// or its elements, each has its own; else the first has it whole.
func rowJSON(v ort.Value, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = types.NullString
	}
	switch v := v.(type) {
	case nil:
		return out
	case ort.Sequence:
		if len(v) == n {
			for i, x := range v {
				out[i] = string(appendValue(nil, x))
			}
			return out
		}
	case ort.Tensor:
		if len(v.Shape) > 0 && v.Shape[0] == int64(n) {
			data, width := wide(v.Data), ort.Len(v.Data)/n
			for i := range out {
				out[i] = string(appendTensor(nil, slice(data, i*width, (i+1)*width), v.Shape[1:]))
			}
			return out
		}
	}
	out[0] = string(appendValue(nil, v))
	return out
}

// slice is a part of data that wide gave.
func slice(data any, from, to int) any {
	switch d := data.(type) {
	case []float64:
		return d[from:to]
	case []float32:
		return d[from:to]
	case []int64:
		return d[from:to]
	case []uint64:
		return d[from:to]
	case []bool:
		return d[from:to]
	case []string:
		return d[from:to]
	}
	return data
}

// appendRows appends a tensor of one value a row as one array.
func appendRows(b []byte, v ort.Value) []byte {
	t, ok := v.(ort.Tensor)
	if !ok {
		return appendValue(b, v)
	}
	return appendTensor(b, wide(t.Data), []int64{int64(ort.Len(t.Data))})
}
