package ort

import (
	"fmt"
	"slices"
)

// Zeros is a tensor of zeros, empty texts or false, of n elements; false where the
// type is none of a tensor.
func Zeros(of string, shape []int64, n int) (Tensor, bool) {
	t := Tensor{Shape: shape}
	switch of {
	case "double":
		t.Data = make([]float64, n)
	case "float":
		t.Data = make([]float32, n)
	case "float16":
		t.Data = make([]Float16, n)
	case "bfloat16":
		t.Data = make([]BFloat16, n)
	case "int64":
		t.Data = make([]int64, n)
	case "int32":
		t.Data = make([]int32, n)
	case "int16":
		t.Data = make([]int16, n)
	case "int8":
		t.Data = make([]int8, n)
	case "uint64":
		t.Data = make([]uint64, n)
	case "uint32":
		t.Data = make([]uint32, n)
	case "uint16":
		t.Data = make([]uint16, n)
	case "uint8":
		t.Data = make([]uint8, n)
	case "bool":
		t.Data = make([]bool, n)
	case "string":
		t.Data = make([]string, n)
	default:
		return t, false
	}
	return t, true
}

// Rows are the rows [from, to) of a tensor, by its first dimension. They share
// memory with it.
func Rows(t Tensor, from, to int) Tensor {
	width := 1
	for _, d := range t.Shape[1:] {
		width *= int(d)
	}
	out := Tensor{Shape: slices.Clone(t.Shape)}
	out.Shape[0] = int64(to - from)
	from, to = from*width, to*width
	switch d := t.Data.(type) {
	case []float64:
		out.Data = d[from:to:to]
	case []float32:
		out.Data = d[from:to:to]
	case []Float16:
		out.Data = d[from:to:to]
	case []BFloat16:
		out.Data = d[from:to:to]
	case []int64:
		out.Data = d[from:to:to]
	case []int32:
		out.Data = d[from:to:to]
	case []int16:
		out.Data = d[from:to:to]
	case []int8:
		out.Data = d[from:to:to]
	case []uint64:
		out.Data = d[from:to:to]
	case []uint32:
		out.Data = d[from:to:to]
	case []uint16:
		out.Data = d[from:to:to]
	case []uint8:
		out.Data = d[from:to:to]
	case []bool:
		out.Data = d[from:to:to]
	case []string:
		out.Data = d[from:to:to]
	}
	return out
}

// TextRoom is how many bytes the texts of one run may have, each as long as its longest.
const TextRoom = 1 << 20

// Portions cut n rows into runs of at most most rows, as the ends of each. Tokenizers pad
// all texts of a run to its longest, at some 40 bytes for a word or a character: long
// texts go with few others.
func Portions(inputs []Value, n, most int) (ends []int) {
	var texts [][]string
	for _, v := range inputs {
		if t, ok := v.(Tensor); ok {
			if d, ok := t.Data.([]string); ok && len(d) == n {
				texts = append(texts, d)
			}
		}
	}
	begin, longest := 0, 0
	for i := range n {
		long := 0
		for _, d := range texts {
			long = max(long, len(d[i]))
		}
		if rows := i - begin; rows == most || rows > 0 && (rows+1)*max(longest, long) > TextRoom {
			ends, begin, longest = append(ends, i), i, 0
		}
		longest = max(longest, long)
	}
	if n > 0 {
		ends = append(ends, n)
	}
	return ends
}

// Concat joins tensors of one type along their first dimension. It fails where
// their other dimensions or types differ.
func Concat(parts []Tensor) (Tensor, error) {
	first := parts[0]
	out := Tensor{Shape: slices.Clone(first.Shape)}
	if len(out.Shape) == 0 {
		return out, fmt.Errorf("a scalar has no rows")
	}
	out.Shape[0] = 0
	for _, p := range parts {
		if len(p.Shape) != len(first.Shape) || !slices.Equal(p.Shape[1:], first.Shape[1:]) {
			return out, fmt.Errorf("shapes %v and %v cannot be joined", first.Shape, p.Shape)
		}
		out.Shape[0] += p.Shape[0]
	}
	switch first.Data.(type) {
	case []float64:
		return join[float64](out, parts)
	case []float32:
		return join[float32](out, parts)
	case []Float16:
		return join[Float16](out, parts)
	case []BFloat16:
		return join[BFloat16](out, parts)
	case []int64:
		return join[int64](out, parts)
	case []int32:
		return join[int32](out, parts)
	case []int16:
		return join[int16](out, parts)
	case []int8:
		return join[int8](out, parts)
	case []uint64:
		return join[uint64](out, parts)
	case []uint32:
		return join[uint32](out, parts)
	case []uint16:
		return join[uint16](out, parts)
	case []uint8:
		return join[uint8](out, parts)
	case []bool:
		return join[bool](out, parts)
	case []string:
		return join[string](out, parts)
	}
	return out, fmt.Errorf("tensors of %T cannot be joined", first.Data)
}

func join[T any](out Tensor, parts []Tensor) (Tensor, error) {
	n := 0
	for _, p := range parts {
		n += Len(p.Data)
	}
	all := make([]T, 0, n)
	for _, p := range parts {
		d, ok := p.Data.([]T)
		if !ok {
			return out, fmt.Errorf("tensors of %T and %T cannot be joined", all, p.Data)
		}
		all = append(all, d...)
	}
	out.Data = all
	return out, nil
}
