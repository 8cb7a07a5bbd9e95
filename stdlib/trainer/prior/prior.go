// Package prior predicts what the training labels are on average, for every task.
package prior

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"

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

// Train averages the labels; see Average.
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

// Average is what to predict without features, Task.Width() values: the mean label
// (regression, count), the share of true, of each class or of each label, or the
// labels' quantiles. For an anomaly task it is 0.5, whatever the labels, which it
// must not learn from.
func Average(task kind.Task, labels []float64) []float32 {
	out := make([]float32, task.Width())
	switch task.Kind {
	case kind.Anomaly:
		out[0] = 0.5
		return out
	case kind.Quantile:
		sorted := slices.Sorted(slices.Values(labels))
		for k, q := range task.Quantiles {
			out[k] = float32(Quantile(sorted, q))
			if k > 0 {
				out[k] = max(out[k], out[k-1]) // interpolation may err in the last bit
			}
		}
		return out
	}
	sums := make([]float64, len(out))
	for i, y := range labels {
		if task.Kind == kind.Multiclass {
			sums[int(y)]++
		} else {
			sums[i%len(sums)] += y
		}
	}
	n := float64(len(labels) / task.Targets())
	for k, s := range sums {
		out[k] = float32(s / n)
	}
	return out
}

// Quantile is the quantile q of sorted values, at least one, between the two nearest
// by linear interpolation (type 7 of Hyndman & Fan 1996, numpy's default).
func Quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-1)
	return sorted[i] + (at-float64(i))*(sorted[min(i+1, len(sorted)-1)]-sorted[i])
}

// Constant repeats y for every row of x.
func Constant(g *onnx.Graph, x onnx.Value, y []float32) onnx.Value {
	n := g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Op("Shape", x), g.Const([]int64{0}, 1))
	shape := g.OpA("Concat", onnx.Attrs{"axis": 0}, n, g.Const([]int64{int64(len(y))}, 1))
	return g.Op("Expand", g.Const(y, 1, int64(len(y))), shape)
}
