package ort

import (
	"fmt"
	"runtime"
	"sync"

	onnxruntime "github.com/yalue/onnxruntime_go"
)

// slots keeps tensors of single rows for calls to come: making a tensor for each
// input of each call costs more than a small model. Values are copied into memory
// that stays pinned.
type slots struct {
	inputs []Info

	mu   sync.Mutex
	free []*slot
	// fits says whether the model is of the kind that slots are for; it is looked at once.
	once sync.Once
	fits bool
}

// slot is the inputs of one call: each [1,1], of doubles, floats, integers or texts.
type slot struct {
	values  []onnxruntime.Value
	doubles [][]float64
	floats  [][]float32
	ints    [][]int64
	pin     runtime.Pinner
}

// suits reports whether all inputs are columns that a slot can hold.
func (p *slots) suits() bool {
	p.once.Do(func() {
		p.fits = len(p.inputs) > 0
		for _, in := range p.inputs {
			column := len(in.Shape) == 2 && in.Shape[0] == -1 && in.Shape[1] == 1
			p.fits = p.fits && column && (in.Type == "double" || in.Type == "float" || in.Type == "int64" || in.Type == "string")
		}
	})
	return p.fits
}

// take makes ONNX Runtime's form of a call's inputs; free gives it back.
func (p *slots) take(inputs []Value) (in []onnxruntime.Value, free func(), err error) {
	if p.suits() && single(inputs) {
		s, err := p.slot()
		if err != nil {
			return nil, nil, err
		}
		if s.set(inputs) {
			return s.values, func() { p.put(s) }, nil
		}
		p.put(s)
	}
	v := &values{made: make([]onnxruntime.Value, 0, len(inputs))}
	in = make([]onnxruntime.Value, len(inputs))
	for i, x := range inputs {
		if in[i], err = v.value(x); err != nil {
			v.free()
			return nil, nil, fmt.Errorf("input %q: %w", p.inputs[i].Name, err)
		}
	}
	return in, v.free, nil
}

// single reports whether all inputs are of shape [1,1].
func single(inputs []Value) bool {
	for _, x := range inputs {
		t, ok := x.(Tensor)
		if !ok || len(t.Shape) != 2 || t.Shape[0] != 1 || t.Shape[1] != 1 {
			return false
		}
	}
	return true
}

// slot returns a free slot, or a new one: there are as many as calls at once.
func (p *slots) slot() (*slot, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	n := len(p.inputs)
	s := &slot{values: make([]onnxruntime.Value, n), doubles: make([][]float64, n), floats: make([][]float32, n), ints: make([][]int64, n)}
	shape := onnxruntime.NewShape(1, 1)
	for i, in := range p.inputs {
		var err error
		switch in.Type {
		case "double":
			s.doubles[i] = make([]float64, 1)
			s.values[i], err = pinned(shape, s.doubles[i], &s.pin)
		case "float":
			s.floats[i] = make([]float32, 1)
			s.values[i], err = pinned(shape, s.floats[i], &s.pin)
		case "int64":
			s.ints[i] = make([]int64, 1)
			s.values[i], err = pinned(shape, s.ints[i], &s.pin)
		default:
			s.values[i], err = owned(onnxruntime.NewStringTensor(shape))
		}
		if err != nil {
			s.destroy()
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return s, nil
}

// set copies a call's inputs into the slot; false where one is of another type.
func (s *slot) set(inputs []Value) bool {
	for i, x := range inputs {
		switch d := x.(Tensor).Data.(type) {
		case []float64:
			if len(d) != 1 || s.doubles[i] == nil {
				return false
			}
			s.doubles[i][0] = d[0]
		case []float32:
			if len(d) != 1 || s.floats[i] == nil {
				return false
			}
			s.floats[i][0] = d[0]
		case []int64:
			if len(d) != 1 || s.ints[i] == nil {
				return false
			}
			s.ints[i][0] = d[0]
		case []string:
			t, ok := s.values[i].(*onnxruntime.StringTensor)
			if len(d) != 1 || !ok || setTexts(t, d) != nil {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (p *slots) put(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < 2*runtime.GOMAXPROCS(0) {
		p.free = append(p.free, s)
		return
	}
	s.destroy()
}

func (p *slots) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.free {
		s.destroy()
	}
	p.free = nil
}

func (s *slot) destroy() {
	for _, v := range s.values {
		if v != nil {
			v.Destroy()
		}
	}
	s.pin.Unpin()
}
