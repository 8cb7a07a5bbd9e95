package ort

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	onnxruntime "github.com/yalue/onnxruntime_go"
)

// Close frees the model. No call may be under way.
func (s *Session) Close() error {
	s.left.Stop()
	s.slots.close()
	err := s.session.Destroy()
	trim()
	return err
}

// Run executes a model that takes and gives tensors. Inputs are in the order of
// Inputs, outputs in that of Outputs and owned by the caller.
func (s *Session) Run(inputs []Tensor) ([]Tensor, error) {
	in := make([]Value, len(inputs))
	for i, t := range inputs {
		in[i] = t
	}
	out, err := s.RunValues(context.Background(), in)
	if err != nil {
		return nil, err
	}
	res := make([]Tensor, len(out))
	for i, v := range out {
		t, ok := v.(Tensor)
		if !ok {
			return nil, fmt.Errorf("output %q is no tensor", s.outputs[i].Name)
		}
		res[i] = t
	}
	return res, nil
}

// RunValues executes the model. Values are in the order of Inputs and Outputs;
// those that come out are owned by the caller. After ctx is done the model is
// stopped at its next node, and the error is the context's.
func (s *Session) RunValues(ctx context.Context, inputs []Value) ([]Value, error) {
	return s.RunTogether(ctx, [][]Value{inputs})
}

// InputError is an input that ONNX Runtime has no form of, whatever the model.
type InputError struct {
	Input string
	Err   error
}

// Error names the input, and says what is wrong with it.
func (e *InputError) Error() string { return fmt.Sprintf("input %q: %v", e.Input, e.Err) }

// Unwrap is what is wrong with it.
func (e *InputError) Unwrap() error { return e.Err }

// RunTogether is RunValues of the inputs of one or more calls. Those of several have to be
// tensors, and are joined along their first dimension.
func (s *Session) RunTogether(ctx context.Context, calls [][]Value) ([]Value, error) {
	defer runtime.KeepAlive(s) // else it might be closed meanwhile
	for _, inputs := range calls {
		if len(inputs) != len(s.inputs) {
			return nil, fmt.Errorf("the model takes %d inputs, not %d", len(s.inputs), len(inputs))
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	kept, err := s.slots.take(calls)
	if err != nil {
		return nil, err
	}
	if kept != nil {
		defer s.slots.put(kept)
		return s.runKept(ctx, kept)
	}
	inputs, err := joined(calls)
	if err != nil {
		return nil, err
	}
	v := &values{made: make([]onnxruntime.Value, 0, len(inputs))}
	defer v.free()
	in := make([]onnxruntime.Value, len(inputs))
	for i, x := range inputs {
		if in[i], err = v.value(x); err != nil {
			return nil, &InputError{s.inputs[i].Name, err}
		}
	}
	if len(in) == 0 {
		none, err := onnxruntime.NewTensor(onnxruntime.NewShape(1), make([]int64, 1)) // see unread
		if err != nil {
			return nil, err
		}
		defer none.Destroy()
		in = []onnxruntime.Value{none}
	}
	out := make([]onnxruntime.Value, len(s.outputs))
	if err := s.run(ctx, in, out); err != nil {
		return nil, err
	}
	res, err := s.results(out, nil)
	s.restore(res)
	return res, err
}

// runKept runs with a slot's inputs, into its outputs where it has them.
func (s *Session) runKept(ctx context.Context, k *slot) ([]Value, error) {
	out := slices.Clone(k.outs)
	err := s.run(ctx, k.values, out)
	if err != nil && ctx.Err() == nil && k.forget() { // maybe for the shapes of its outputs alone
		clear(out)
		if err = s.run(ctx, k.values, out); err == nil {
			s.slots.vary.Store(true)
		}
	}
	if err != nil {
		return nil, err
	}
	res, err := s.results(out, k.outs)
	if err == nil && !s.slots.vary.Load() {
		err = k.keep(res)
	}
	s.restore(res)
	return res, err
}

// results reads outputs and frees them, but for those that are kept.
func (s *Session) results(out, kept []onnxruntime.Value) (res []Value, err error) {
	res = make([]Value, len(out))
	for i, v := range out {
		if v == nil {
			continue
		}
		r, rerr := read(v)
		if rerr != nil {
			err = fmt.Errorf("output %q: %w", s.outputs[i].Name, rerr)
		}
		if kept != nil && kept[i] != nil {
			r = clone(r.(Tensor))
		} else {
			v.Destroy()
		}
		res[i] = r
	}
	return res, err
}

// clone is a tensor of a slot with memory of its own.
func clone(t Tensor) Tensor {
	t.Shape = slices.Clone(t.Shape)
	switch d := t.Data.(type) {
	case []float32:
		t.Data = slices.Clone(d)
	case []float64:
		t.Data = slices.Clone(d)
	case []int64:
		t.Data = slices.Clone(d)
	}
	return t
}

// restore undoes what adapting the model has changed in its outputs.
func (s *Session) restore(out []Value) {
	for i, a := range s.adapted {
		if out[i] != nil {
			out[i] = a.restore(out[i])
		}
	}
}

// joined are the inputs of all calls as those of one.
func joined(calls [][]Value) ([]Value, error) {
	if len(calls) == 1 {
		return calls[0], nil
	}
	in := make([]Value, len(calls[0]))
	parts := make([]Tensor, len(calls))
	for k := range in {
		for i, c := range calls {
			t, ok := c[k].(Tensor)
			if !ok {
				return nil, errors.New("only tensors can be joined")
			}
			parts[i] = t
		}
		t, err := Concat(parts)
		if err != nil {
			return nil, err
		}
		in[k] = t
	}
	return in, nil
}

// runOptions are kept for runs to come: making one is a call into C, and what is
// not destroyed is never freed.
var runOptions = make(chan *onnxruntime.RunOptions, 64)

// run fails with the context's error where that is done.
func (s *Session) run(ctx context.Context, in, out []onnxruntime.Value) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if ctx.Done() == nil {
		return s.session.Run(in, out)
	}
	var o *onnxruntime.RunOptions
	select {
	case o = <-runOptions:
	default:
		if o, err = onnxruntime.NewRunOptions(); err != nil {
			return err
		}
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = o.Terminate() // a run that cannot be stopped comes to its end by itself
		close(ended)
	})
	err = s.session.RunWithOptions(in, out, o)
	if stop() {
		select {
		case runOptions <- o:
			return err
		default:
			return errors.Join(err, o.Destroy())
		}
	}
	<-ended
	return errors.Join(err, o.Destroy())
}

// values are ONNX Runtime's own forms of inputs, with what to free after the run.
type values struct {
	pin  runtime.Pinner
	made []onnxruntime.Value
}

func (v *values) free() {
	for i := len(v.made) - 1; i >= 0; i-- {
		v.made[i].Destroy()
	}
	v.pin.Unpin()
}

// value makes ONNX Runtime's form of x, which has to live as long as it.
func (v *values) value(x Value) (onnxruntime.Value, error) {
	var out onnxruntime.Value
	var err error
	switch x := x.(type) {
	case Tensor:
		out, err = v.tensor(x)
	case Sequence:
		if len(x) == 0 {
			return nil, errors.New("empty sequences cannot be given")
		}
		items := make([]onnxruntime.Value, len(x))
		for i, item := range x {
			if items[i], err = v.value(item); err != nil {
				return nil, fmt.Errorf("item %d: %w", i, err)
			}
		}
		out, err = owned(onnxruntime.NewSequence(items))
	case Map:
		var keys, vals onnxruntime.Value
		if keys, err = v.value(x.Keys); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		if vals, err = v.value(x.Values); err != nil {
			return nil, fmt.Errorf("values: %w", err)
		}
		out, err = owned(onnxruntime.NewMap(keys, vals))
	default:
		return nil, errors.New("it has no value")
	}
	if err == nil {
		v.made = append(v.made, out)
	}
	return out, err
}

// owned keeps a nil pointer from becoming an interface that is not nil.
func owned[T onnxruntime.Value](x T, err error) (onnxruntime.Value, error) {
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (v *values) tensor(t Tensor) (onnxruntime.Value, error) {
	n, err := elements(t)
	if err != nil {
		return nil, err
	}
	shape := onnxruntime.Shape(t.Shape)
	switch d := t.Data.(type) {
	case []float64:
		return pinned(shape, d, &v.pin)
	case []float32:
		return pinned(shape, d, &v.pin)
	case []int64:
		return pinned(shape, d, &v.pin)
	case []int32:
		return pinned(shape, d, &v.pin)
	case []int16:
		return pinned(shape, d, &v.pin)
	case []int8:
		return pinned(shape, d, &v.pin)
	case []uint64:
		return pinned(shape, d, &v.pin)
	case []uint32:
		return pinned(shape, d, &v.pin)
	case []uint16:
		return pinned(shape, d, &v.pin)
	case []uint8:
		return pinned(shape, d, &v.pin)
	case []bool:
		return pinned(shape, d, &v.pin)
	case []Float16:
		return halves(shape, d, onnxruntime.TensorElementDataTypeFloat16, &v.pin)
	case []BFloat16:
		return halves(shape, d, onnxruntime.TensorElementDataTypeBFloat16, &v.pin)
	case []string:
		if len(shape) == 0 {
			shape = onnxruntime.NewShape(1) // see adaptInputs
		}
		s, err := onnxruntime.NewStringTensor(shape)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			if err := setTexts(s, d); err != nil {
				s.Destroy()
				return nil, err
			}
		}
		return s, nil
	}
	return nil, fmt.Errorf("tensors of %T are not supported", t.Data)
}

// ErrNUL says that a text cannot be given to a model: what follows a NUL would be
// cut off on the way.
var ErrNUL = errors.New("a text with a NUL character cannot be given to a model")

func setTexts(t *onnxruntime.StringTensor, texts []string) error {
	for _, s := range texts {
		if strings.IndexByte(s, 0) >= 0 {
			return ErrNUL
		}
	}
	return t.SetContents(texts)
}

// elements is the number of a tensor's elements, which its data has to have.
func elements(t Tensor) (int, error) {
	n := int64(1)
	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > (1<<62)/d {
			return 0, fmt.Errorf("shape %v is none", t.Shape)
		}
		n *= d
	}
	if have := Len(t.Data); int64(have) != n {
		return 0, fmt.Errorf("shape %v has %d elements, the data %d", t.Shape, n, have)
	}
	return int(n), nil
}

// Len is the number of elements of a tensor's data.
func Len(data any) int {
	switch d := data.(type) {
	case []float64:
		return len(d)
	case []float32:
		return len(d)
	case []Float16:
		return len(d)
	case []BFloat16:
		return len(d)
	case []int64:
		return len(d)
	case []int32:
		return len(d)
	case []int16:
		return len(d)
	case []int8:
		return len(d)
	case []uint64:
		return len(d)
	case []uint32:
		return len(d)
	case []uint16:
		return len(d)
	case []uint8:
		return len(d)
	case []bool:
		return len(d)
	case []string:
		return len(d)
	}
	return 0
}

func pinned[T onnxruntime.TensorData](shape onnxruntime.Shape, d []T, pin *runtime.Pinner) (onnxruntime.Value, error) {
	if len(shape) == 0 {
		return owned(onnxruntime.NewScalar(d[0]))
	}
	if len(d) > 0 {
		pin.Pin(&d[0])
	}
	return owned(onnxruntime.NewTensor(shape, d))
}

func halves[T Float16 | BFloat16](shape onnxruntime.Shape, d []T, of onnxruntime.TensorElementDataType, pin *runtime.Pinner) (onnxruntime.Value, error) {
	if len(shape) == 0 {
		shape = onnxruntime.NewShape(1) // see adaptInputs
	}
	if len(d) == 0 {
		d = make([]T, 1) // the binding asks for memory, even of no elements
	}
	pin.Pin(&d[0])
	return owned(onnxruntime.NewCustomDataTensor(shape, unsafe.Slice((*byte)(unsafe.Pointer(&d[0])), 2*len(d)), of))
}

// read makes our form of a value; its memory is Go's.
func read(v onnxruntime.Value) (Value, error) {
	t := Tensor{Shape: []int64(v.GetShape())}
	switch v := v.(type) {
	case *onnxruntime.Tensor[float64]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[float32]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[int64]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[int32]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[int16]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[int8]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[uint64]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[uint32]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[uint16]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[uint8]:
		t.Data = v.GetData()
	case *onnxruntime.Tensor[bool]:
		t.Data = v.GetData()
	case *onnxruntime.StringTensor:
		if n := v.GetShape().FlattenedSize(); n == 0 {
			t.Data = []string{}
			return t, nil
		}
		s, err := v.GetContents()
		if err != nil {
			return t, err
		}
		t.Data = s
	case *onnxruntime.Sequence:
		items, err := v.GetValues()
		if err != nil {
			return nil, err
		}
		out := make(Sequence, len(items))
		for i, item := range items {
			if out[i], err = read(item); err != nil {
				return nil, fmt.Errorf("item %d: %w", i, err)
			}
		}
		return out, nil
	case *onnxruntime.Map:
		keys, vals, err := v.GetKeysAndValues()
		if err != nil {
			return nil, err
		}
		k, err := read(keys)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		x, err := read(vals)
		if err != nil {
			return nil, fmt.Errorf("values: %w", err)
		}
		m := Map{}
		m.Keys, _ = k.(Tensor)
		m.Values, _ = x.(Tensor)
		return m, nil
	default:
		return t, fmt.Errorf("outputs of type %T are not supported", v)
	}
	return t, nil
}
