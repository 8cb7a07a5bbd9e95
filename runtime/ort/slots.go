package ort

import (
	"fmt"
	"runtime"
	"sync"

	onnxruntime "github.com/yalue/onnxruntime_go"
)

// slots keeps tensors of a few rows for calls to come: making a tensor for each
// input of each call costs more than a small model. Values are copied into memory
// that stays pinned.
type slots struct {
	inputs []Info

	mu   sync.Mutex
	free [slotRows + 1][]*slot // by their rows
	kept int                   // how many they are
	// fits says whether the model is of the kind that slots are for; it is looked at once.
	once sync.Once
	fits bool
}

// slotRows is the most rows of a slot: with more, the model takes longer than what is
// made for it.
const slotRows = 64

// slotsKept is the most slots that are kept, of all sizes together.
const slotsKept = 256

// slot is the inputs of one call: each [rows,1], of doubles, floats, integers or texts.
type slot struct {
	rows    int
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
	if n := columns(inputs); n > 0 && n <= slotRows && p.suits() {
		s, err := p.slot(n)
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

// columns is the number of rows where all inputs are of shape [rows,1]; else 0.
func columns(inputs []Value) (rows int) {
	for i, x := range inputs {
		t, ok := x.(Tensor)
		if !ok || len(t.Shape) != 2 || t.Shape[1] != 1 || i > 0 && t.Shape[0] != int64(rows) {
			return 0
		}
		rows = int(t.Shape[0])
	}
	return rows
}

// slot returns a free slot, or a new one: there are as many as calls at once.
func (p *slots) slot(rows int) (*slot, error) {
	p.mu.Lock()
	if n := len(p.free[rows]); n > 0 {
		s := p.free[rows][n-1]
		p.free[rows] = p.free[rows][:n-1]
		p.kept--
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	n := len(p.inputs)
	s := &slot{rows: rows, values: make([]onnxruntime.Value, n), doubles: make([][]float64, n), floats: make([][]float32, n), ints: make([][]int64, n)}
	shape := onnxruntime.NewShape(int64(rows), 1)
	for i, in := range p.inputs {
		var err error
		switch in.Type {
		case "double":
			s.doubles[i] = make([]float64, rows)
			s.values[i], err = pinned(shape, s.doubles[i], &s.pin)
		case "float":
			s.floats[i] = make([]float32, rows)
			s.values[i], err = pinned(shape, s.floats[i], &s.pin)
		case "int64":
			s.ints[i] = make([]int64, rows)
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
			if len(d) != s.rows || s.doubles[i] == nil {
				return false
			}
			copy(s.doubles[i], d)
		case []float32:
			if len(d) != s.rows || s.floats[i] == nil {
				return false
			}
			copy(s.floats[i], d)
		case []int64:
			if len(d) != s.rows || s.ints[i] == nil {
				return false
			}
			copy(s.ints[i], d)
		case []string:
			t, ok := s.values[i].(*onnxruntime.StringTensor)
			if len(d) != s.rows || !ok || setTexts(t, d) != nil {
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
	if free := &p.free[s.rows]; len(*free) < 2*runtime.GOMAXPROCS(0) && p.kept < slotsKept {
		*free = append(*free, s)
		p.kept++
		return
	}
	s.destroy()
}

func (p *slots) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.free {
		for _, s := range p.free[i] {
			s.destroy()
		}
		p.free[i] = nil
	}
}

func (s *slot) destroy() {
	for _, v := range s.values {
		if v != nil {
			v.Destroy()
		}
	}
	s.pin.Unpin()
}
