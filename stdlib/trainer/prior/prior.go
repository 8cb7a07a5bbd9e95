// Package prior predicts what the training labels are on average.
package prior

import (
	"context"
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed prior.cue
var source string

// Trainer is the kind "prior".
type Trainer struct{}

// Name is "prior".
func (Trainer) Name() string { return "prior" }

// Version of the implementation.
func (Trainer) Version() int { return 1 }

// Schema is #Prior, which is also a baseline.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "prior", Def: "#Prior", Source: source, Baseline: true}
}

// Check has nothing to check.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults makes any feature a number; none is used.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return []json.RawMessage{[]byte(`{"kind":"ordinal","min_count":1,"max":10000}`)}
	}
	return []json.RawMessage{[]byte(`{"kind":"passthrough"}`)}
}

// Features is false: every row gets the same.
func (Trainer) Features() bool { return false }

// Train averages the labels.
func (Trainer) Train(_ context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	y := Average(job.Task, job.Train.Y)
	g := onnx.New("prior")
	x := g.Input("X", onnx.Float, -1, int64(job.Train.X.Cols))
	g.Output("Y", Constant(g, x, y), onnx.Float, -1, int64(len(y)))
	predict := func(m kind.Matrix) []float32 {
		out := make([]float32, 0, m.Rows*len(y))
		for range m.Rows {
			out = append(out, y...)
		}
		return out
	}
	return kind.TrainResult{Model: g.Marshal(), Predict: predict, Report: map[string]any{"prediction": y}}, nil
}

// Average is the mean label, or each class's share.
func Average(task kind.Task, labels []float64) []float32 {
	sums := make([]float64, task.Width())
	for _, y := range labels {
		if task.Kind == kind.Multiclass {
			sums[int(y)]++
		} else {
			sums[0] += y
		}
	}
	out := make([]float32, len(sums))
	for i, s := range sums {
		out[i] = float32(s / float64(len(labels)))
	}
	return out
}

// Constant repeats y for every row of x.
func Constant(g *onnx.Graph, x onnx.Value, y []float32) onnx.Value {
	n := g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Op("Shape", x), g.Const([]int64{0}, 1))
	shape := g.OpA("Concat", onnx.Attrs{"axis": 0}, n, g.Const([]int64{int64(len(y))}, 1))
	return g.Op("Expand", g.Const(y, 1, int64(len(y))), shape)
}
