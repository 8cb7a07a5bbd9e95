// Package ort runs ONNX models with ONNX Runtime. It is the only importer of
// onnxruntime_go, and hides it: a Session takes and gives plain Go slices.
package ort

import (
	"errors"
	"fmt"
	"os"
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

// tensor reports whether a value is a tensor.
func (i Info) tensor() bool {
	switch i.Type {
	case seqType, mapType, optionalType:
		return false
	}
	return true
}

// half reports whether a tensor's numbers have 16 bits.
func (i Info) half() bool { return i.Type == "float16" || i.Type == "bfloat16" }

// Types of values that are no tensors.
const (
	seqType      = "seq"
	mapType      = "map"
	optionalType = "optional"
)

// Session is a loaded model. It is safe for concurrent use. One that nobody closes is
// closed some time after nobody has it any more.
type Session struct {
	inputs, outputs []Info
	session         *onnxruntime.DynamicAdvancedSession
	adapted         map[int]adaption
	slots           *slots
	left            runtime.Cleanup
}

// Options say how a model runs.
type Options struct {
	// Threads is how many one call uses; 0: one.
	Threads int
	// Providers come before the CPU, where they are there: cuda, tensorrt.
	Providers []string
	// OnSkipped is told of those that are not; nil: nobody is.
	OnSkipped func(provider string, err error)
}

var initialize = sync.OnceValue(func() error {
	lib, err := Find()
	if err != nil {
		return err
	}
	// The library would tell its makers of models and machines, and keep an identifier.
	if err := os.Setenv("ORT_DISABLE_TELEMETRY", "1"); err != nil {
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
func Open(model []byte) (*Session, error) { return OpenWith(model, Options{}) }

// OpenWith loads a model from its bytes.
func OpenWith(model []byte, o Options) (*Session, error) {
	if err := initialize(); err != nil {
		return nil, err
	}
	opts, err := onnxruntime.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer opts.Destroy()
	for _, set := range []func() error{
		func() error { return opts.SetIntraOpNumThreads(max(o.Threads, 1)) },
		func() error { return opts.SetInterOpNumThreads(1) },
		func() error { return opts.SetCpuMemArena(false) },                              // its lock stops sessions from scaling
		func() error { return opts.SetLogSeverityLevel(onnxruntime.LoggingLevelFatal) }, // errors are returned
		func() error { return opts.AddSessionConfigEntry("session.intra_op.allow_spinning", "0") },
		// It takes x * 1.00000005 in doubles for x: it looks at constants as floats.
		func() error {
			return opts.AddSessionConfigEntry("optimization.disable_specified_optimizers", "NoopElimination")
		},
	} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	for _, p := range o.Providers {
		if err := provider(opts, p); errors.Is(err, errProvider) {
			return nil, fmt.Errorf("provider %s: %w", p, err)
		} else if err != nil && o.OnSkipped != nil {
			o.OnSkipped(p, err)
		}
	}
	in, out, err := onnxruntime.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime does not accept the model: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("the model has no outputs")
	}
	s := &Session{inputs: infos(in), outputs: infos(out)}
	s.slots = &slots{inputs: s.inputs, outputs: len(s.outputs)}
	taken, given := names(s.inputs), names(s.outputs)
	var renamed map[int]string
	if model, renamed, s.adapted, err = adapt(model, s.inputs, s.outputs); err != nil {
		return nil, err
	}
	for i, name := range renamed {
		if len(s.inputs) == 0 {
			taken = []string{name}
			continue
		}
		taken[i] = name
	}
	for i, a := range s.adapted {
		given[i] = a.name
	}
	s.session, err = onnxruntime.NewDynamicAdvancedSessionWithONNXData(model, taken, given, opts)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime does not accept the model: %w", err)
	}
	// Its slots are pinned, and must not go before they are let loose.
	inner := s.session
	s.left = runtime.AddCleanup(s, func(kept *slots) {
		kept.close()
		_ = inner.Destroy()
		trim()
	}, s.slots)
	return s, nil
}

func provider(opts *onnxruntime.SessionOptions, name string) error {
	switch name {
	case "cuda":
		o, err := onnxruntime.NewCUDAProviderOptions()
		if err != nil {
			return err
		}
		defer o.Destroy()
		return opts.AppendExecutionProviderCUDA(o)
	case "tensorrt":
		o, err := onnxruntime.NewTensorRTProviderOptions()
		if err != nil {
			return err
		}
		defer o.Destroy()
		return opts.AppendExecutionProviderTensorRT(o)
	}
	return errProvider
}

var errProvider = errors.New("there are cuda and tensorrt")

// tensorTypes are the element types of tensors by ONNX Runtime's number.
var tensorTypes = map[onnxruntime.TensorElementDataType]string{
	onnxruntime.TensorElementDataTypeDouble: "double", onnxruntime.TensorElementDataTypeFloat: "float",
	onnxruntime.TensorElementDataTypeFloat16: "float16", onnxruntime.TensorElementDataTypeBFloat16: "bfloat16",
	onnxruntime.TensorElementDataTypeInt8: "int8", onnxruntime.TensorElementDataTypeInt16: "int16",
	onnxruntime.TensorElementDataTypeInt32: "int32", onnxruntime.TensorElementDataTypeInt64: "int64",
	onnxruntime.TensorElementDataTypeUint8: "uint8", onnxruntime.TensorElementDataTypeUint16: "uint16",
	onnxruntime.TensorElementDataTypeUint32: "uint32", onnxruntime.TensorElementDataTypeUint64: "uint64",
	onnxruntime.TensorElementDataTypeBool: "bool", onnxruntime.TensorElementDataTypeString: "string",
}

func infos(in []onnxruntime.InputOutputInfo) []Info {
	out := make([]Info, len(in))
	for i, x := range in {
		t := tensorTypes[x.DataType]
		switch x.OrtValueType {
		case onnxruntime.ONNXTypeSequence:
			t = seqType
		case onnxruntime.ONNXTypeMap:
			t = mapType
		case onnxruntime.ONNXTypeOptional:
			t = optionalType
		}
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
