package generate

import (
	"fmt"
	"path"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
)

// tritonModel is what the template of a config.pbtxt sees.
type tritonModel struct {
	*view
	Model   string
	Ref     service.Ref
	Inputs  []tritonTensor
	Outputs []tritonTensor
	// MaxBatch is the most rows of a request and of a batch, Preferred what the
	// batcher aims at, 0: it does not batch. Delay and Timeout are in µs.
	MaxBatch, Preferred int
	Delay, Timeout      int64
	Queue               int
}

type tritonTensor struct {
	Name, Type string
	Width      int
}

// triton makes a model repository with a model for every bundle of the service.
// Its versions are the caller's to place: <model>/<version>/model.onnx.
func triton(v *view) (map[string][]byte, error) {
	refs, names := v.in.Service.Models(), map[string]int{}
	for _, r := range refs {
		names[r.Model]++
	}
	var models []tritonModel
	var err error
	out := map[string][]byte{}
	b := v.in.Service.Batching
	for _, r := range refs {
		m := tritonModel{view: v, Model: r.Model, Ref: r, MaxBatch: max(1, b.MaxRows, v.in.Service.Limits.Rows), Delay: b.MaxDelay.Std().Microseconds(),
			Timeout: v.in.Service.Deadline.Std().Microseconds(), Queue: max(0, b.Queue)}
		if names[r.Model] > 1 {
			m.Model += "_" + r.Alias
		}
		if b.MaxRows > 1 {
			m.Preferred = b.MaxRows
		}
		sig := v.in.Signatures[r]
		if m.Inputs, err = tritonTensors(sig.Inputs); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		if m.Outputs, err = tritonTensors(sig.Outputs); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		at := path.Join("triton", m.Model, "config.pbtxt")
		if out[at] != nil {
			return nil, fmt.Errorf("two models would be called %s there", m.Model)
		}
		if out[at], err = render("templates/triton/config.pbtxt.tmpl", m); err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	out["triton/README.md"], err = render("templates/triton/README.md.tmpl", struct {
		*view
		Models []tritonModel
	}{v, models})
	return out, err
}

// tritonTypes are Triton's names of the types of tensors.
var tritonTypes = map[string]string{
	"double": "TYPE_FP64", "float": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "string": "TYPE_STRING", "bool": "TYPE_BOOL",
	"int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
	"uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32", "uint64": "TYPE_UINT64",
}

func tritonTensors(in []bundle.Tensor) ([]tritonTensor, error) {
	out := make([]tritonTensor, len(in))
	for i, t := range in {
		out[i] = tritonTensor{t.Name, tritonTypes[t.DType], max(1, t.Width)}
		if out[i].Type == "" {
			return nil, fmt.Errorf("Triton has no type for %s of %s", t.DType, t.Name)
		}
	}
	return out, nil
}
