package ort

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	onnxruntime "github.com/yalue/onnxruntime_go"
)

// slots keeps tensors of a few rows for runs to come: making a tensor for each
// input and output of each run costs more than a small model. Values are copied into
// memory that stays pinned.
type slots struct {
	inputs  []Info
	outputs int

	mu   sync.Mutex
	free [slotRows + 1][]*slot // by their rows
	kept int                   // how many they are
	// fits says whether the model is of the kind that slots are for; it is looked at once.
	once sync.Once
	fits bool
	// vary says that outputs have had other shapes for as many rows: they are not kept.
	vary atomic.Bool
}

// slotRows is the most rows of a slot: with more, the model takes longer than what is
// made for it.
const slotRows = 64

// slotsKept is the most slots that are kept, of all sizes together.
const slotsKept = 256

// slot is the inputs of one run, each [rows,1], of doubles, floats, integers or texts,
// and its outputs as far as they are numbers and a run has told their shapes.
type slot struct {
	rows    int
	values  []onnxruntime.Value
	doubles [][]float64
	floats  [][]float32
	ints    [][]int64
	texts   [][]string // of one run
	outs    []onnxruntime.Value
	pin     runtime.Pinner
	outPin  runtime.Pinner
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

// take makes ONNX Runtime's form of the inputs of calls that run as one; put gives it
// back. nil: it is not for slots.
func (p *slots) take(calls [][]Value) (*slot, error) {
	n := 0
	for _, c := range calls {
		k := columns(c)
		if k == 0 {
			return nil, nil
		}
		n += k
	}
	if n > slotRows || !p.suits() {
		return nil, nil
	}
	s, err := p.slot(n)
	if err != nil {
		return nil, err
	}
	if !s.set(calls) {
		p.put(s)
		return nil, nil
	}
	return s, nil
}

// columns is the number of rows where all inputs are of shape [rows,1]; else 0.
func columns(inputs []Value) (rows int) {
	for i, x := range inputs {
		t, ok := x.(Tensor)
		if !ok || len(t.Shape) != 2 || t.Shape[1] != 1 || i > 0 && t.Shape[0] != int64(rows) || int64(Len(t.Data)) != t.Shape[0] {
			return 0
		}
		rows = int(t.Shape[0])
	}
	return rows
}

// slot returns a free slot, or a new one: there are as many as runs at once.
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
	s := &slot{rows: rows, values: make([]onnxruntime.Value, n), doubles: make([][]float64, n), floats: make([][]float32, n), ints: make([][]int64, n), texts: make([][]string, n), outs: make([]onnxruntime.Value, p.outputs)}
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
			s.texts[i] = make([]string, rows)
			s.values[i], err = owned(onnxruntime.NewStringTensor(shape))
		}
		if err != nil {
			s.destroy()
			return nil, fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return s, nil
}

// set copies the inputs of calls into the slot, one after the other; false where one is
// of another type.
func (s *slot) set(calls [][]Value) bool {
	at := 0
	for _, c := range calls {
		n := 0
		for i, x := range c {
			switch d := x.(Tensor).Data.(type) {
			case []float64:
				n = into(s.doubles[i], at, d)
			case []float32:
				n = into(s.floats[i], at, d)
			case []int64:
				n = into(s.ints[i], at, d)
			case []string:
				n = into(s.texts[i], at, d)
			default:
				return false
			}
			if n < 0 {
				return false
			}
		}
		at += n
	}
	for i, texts := range s.texts {
		if texts == nil {
			continue
		}
		err := setTexts(s.values[i].(*onnxruntime.StringTensor), texts)
		clear(texts)
		if err != nil {
			return false
		}
	}
	return true
}

// into copies d to all from at on and returns its length; below 0: all is of another type.
func into[T any](all []T, at int, d []T) int {
	if all == nil {
		return -1
	}
	return copy(all[at:], d)
}

// keep has the runs to come write outputs of these shapes where the slot has them.
func (s *slot) keep(out []Value) error {
	for i, v := range out {
		t, ok := v.(Tensor)
		if !ok || s.outs[i] != nil || Len(t.Data) == 0 {
			continue
		}
		var err error
		switch d := t.Data.(type) {
		case []float32:
			s.outs[i], err = pinned(t.Shape, slices.Clone(d), &s.outPin)
		case []float64:
			s.outs[i], err = pinned(t.Shape, slices.Clone(d), &s.outPin)
		case []int64:
			s.outs[i], err = pinned(t.Shape, slices.Clone(d), &s.outPin)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forget is the end of what keep has kept; false: there was nothing.
func (s *slot) forget() (any bool) {
	for i, v := range s.outs {
		if v != nil {
			any = true
			v.Destroy()
			s.outs[i] = nil
		}
	}
	s.outPin.Unpin()
	return any
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
	s.forget()
}
