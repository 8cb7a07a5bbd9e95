package ort

// Value is what a model takes or gives: a Tensor, a Sequence or a Map.
type Value interface{ value() }

// Sequence is values in order, all of one type.
type Sequence []Value

// Map is keys and values, each of shape [N]. Keys are []int64 or []string.
type Map struct{ Keys, Values Tensor }

func (Tensor) value()   {}
func (Sequence) value() {}
func (Map) value()      {}

// Float16 and BFloat16 hold the bits of numbers that Go has no type for.
type (
	Float16  uint16
	BFloat16 uint16
)
