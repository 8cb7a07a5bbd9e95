// Package ort runs ONNX models with ONNX Runtime. It is the only importer of
// onnxruntime_go, and hides it: a Session takes and gives plain Go slices.
package ort

import (
	"fmt"
	"runtime"
	"sync"

	onnxruntime "github.com/yalue/onnxruntime_go"

	"mlc.dev/mlc/compiler/diag"
)

// Tensor is a dense tensor in row-major order; a scalar has no dimensions. Data is
// one of []float64, []float32, []Float16, []BFloat16, []int8 to []int64, []uint8 to
// []uint64, []bool and []string.
type Tensor struct {
	Shape []int64
	Data  any
}

// Column returns data as a tensor of shape [N,1].
func Column[T float64 | float32 | int64 | bool | string](data []T) Tensor {
	return Tensor{Shape: []int64{int64(len(data)), 1}, Data: data}
}

// Info names an input or output of a model. A dimension of -1 is variable.
type Info struct {
	Name string `json:"name"`
	// Type is double, float, float16, bfloat16, int8 … uint64, bool or string for a
	// tensor; else seq, map or optional.
	Type  string  `json:"type"`
	Shape []int64 `json:"shape"`
}

// Session is a loaded model. It is safe for concurrent use.
type Session struct {
	inputs, outputs []Info
	session         *onnxruntime.DynamicAdvancedSession
}

var initialize = sync.OnceValue(func() error {
	lib, err := Find()
	if err != nil {
		return err
	}
	onnxruntime.SetSharedLibraryPath(lib.Path)
	if err := onnxruntime.InitializeEnvironment(onnxruntime.WithLogLevelError()); err != nil {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.NoRuntimeLib, What: fmt.Sprintf("ONNX Runtime at %s does not load: %v", lib.Path, err),
			Why: "models are transformed, proved and run by ONNX Runtime", Mend: "run `mlc doctor --fix`, or set " + EnvLibrary + " to a library of version " + Version}
	}
	return nil
})

// LibraryVersion loads ONNX Runtime and returns the version that it tells.
func LibraryVersion() (string, error) {
	if err := initialize(); err != nil {
		return "", err
	}
	return onnxruntime.GetVersion(), nil
}

// Open loads a model from its bytes, to run on one thread a call: callers bring
// their own parallelism, and results do not depend on it.
func Open(model []byte) (*Session, error) {
	if err := initialize(); err != nil {
		return nil, err
	}
	opts, err := onnxruntime.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer opts.Destroy()
	for _, set := range []func() error{
		func() error { return opts.SetIntraOpNumThreads(1) },
		func() error { return opts.SetInterOpNumThreads(1) },
		func() error { return opts.SetCpuMemArena(false) }, // its lock stops sessions from scaling
	} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	in, out, err := onnxruntime.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime does not accept the model: %w", err)
	}
	s := &Session{inputs: infos(in), outputs: infos(out)}
	s.session, err = onnxruntime.NewDynamicAdvancedSessionWithONNXData(model, names(s.inputs), names(s.outputs), opts)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime does not accept the model: %w", err)
	}
	return s, nil
}

func infos(in []onnxruntime.InputOutputInfo) []Info {
	out := make([]Info, len(in))
	for i, x := range in {
		t := map[onnxruntime.TensorElementDataType]string{
			onnxruntime.TensorElementDataTypeDouble: "double", onnxruntime.TensorElementDataTypeFloat: "float",
			onnxruntime.TensorElementDataTypeInt64: "int64", onnxruntime.TensorElementDataTypeBool: "bool", onnxruntime.TensorElementDataTypeString: "string",
		}[x.DataType]
		if t == "" {
			t = x.DataType.String()
		}
		out[i] = Info{Name: x.Name, Type: t, Shape: append([]int64(nil), x.Dimensions...)}
	}
	return out
}

func names(in []Info) []string {
	out := make([]string, len(in))
	for i, x := range in {
		out[i] = x.Name
	}
	return out
}

// Inputs returns the model's inputs in the order that Run takes them.
func (s *Session) Inputs() []Info { return s.inputs }

// Outputs returns the model's outputs in the order that Run gives them.
func (s *Session) Outputs() []Info { return s.outputs }

// Close frees the model.
func (s *Session) Close() error { return s.session.Destroy() }

// Run executes the model. Inputs are in the order of Inputs, outputs in that of
// Outputs and owned by the caller. No dimension may be 0.
func (s *Session) Run(inputs []Tensor) ([]Tensor, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	in := make([]onnxruntime.Value, len(inputs))
	defer func() {
		for _, v := range in {
			if v != nil {
				v.Destroy()
			}
		}
	}()
	for i, t := range inputs {
		v, err := value(t, &pin)
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		in[i] = v
	}
	out := make([]onnxruntime.Value, len(s.outputs))
	if err := s.session.Run(in, out); err != nil {
		return nil, err
	}
	res := make([]Tensor, len(out))
	var err error
	for i, v := range out {
		if res[i], err = read(v); err != nil {
			err = fmt.Errorf("output %q: %w", s.outputs[i].Name, err)
		}
		v.Destroy()
	}
	return res, err
}

func value(t Tensor, pin *runtime.Pinner) (onnxruntime.Value, error) {
	shape := onnxruntime.NewShape(t.Shape...)
	switch d := t.Data.(type) {
	case []float64:
		return pinned(shape, d, pin)
	case []float32:
		return pinned(shape, d, pin)
	case []int64:
		return pinned(shape, d, pin)
	case []bool:
		return pinned(shape, d, pin)
	case []string:
		v, err := onnxruntime.NewStringTensor(shape)
		if err != nil {
			return nil, err
		}
		if err := v.SetContents(d); err != nil {
			v.Destroy()
			return nil, err
		}
		return v, nil
	}
	return nil, fmt.Errorf("tensors of %T are not supported", t.Data)
}

func pinned[T onnxruntime.TensorData](shape onnxruntime.Shape, d []T, pin *runtime.Pinner) (onnxruntime.Value, error) {
	if len(d) > 0 {
		pin.Pin(&d[0])
	}
	v, err := onnxruntime.NewTensor(shape, d)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func read(v onnxruntime.Value) (Tensor, error) {
	t := Tensor{Shape: append([]int64(nil), v.GetShape()...)}
	switch v := v.(type) {
	case *onnxruntime.Tensor[float64]:
		t.Data = append([]float64(nil), v.GetData()...)
	case *onnxruntime.Tensor[float32]:
		t.Data = append([]float32(nil), v.GetData()...)
	case *onnxruntime.Tensor[int64]:
		t.Data = append([]int64(nil), v.GetData()...)
	case *onnxruntime.Tensor[bool]:
		t.Data = append([]bool(nil), v.GetData()...)
	case *onnxruntime.StringTensor:
		s, err := v.GetContents()
		if err != nil {
			return t, err
		}
		t.Data = s
	default:
		return t, fmt.Errorf("outputs of type %T are not supported", v)
	}
	return t, nil
}
