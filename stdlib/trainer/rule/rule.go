// Package rule predicts by one expression, calibrated on the training rows. Its
// matrix has a single column: the expression's value.
package rule

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"math"
	"sort"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/trainer/prior"
)

//go:embed rule.cue
var source string

// Trainer is the kind "rule".
type Trainer struct{}

// Name is "rule".
func (Trainer) Name() string { return "rule" }

// Version of the implementation.
func (Trainer) Version() int { return 1 }

// Schema is #Rule, which is also a baseline.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "rule", Def: "#Rule", Source: source, Baseline: true}
}

// Check refuses tasks that one expression cannot answer. It leaves the expression to
// the compiler, which knows the columns.
func (Trainer) Check(_ json.RawMessage, task string) []kind.Fault {
	switch task {
	case kind.Quantile, kind.Multilabel:
		return []kind.Fault{{Code: diag.BadArgs, What: "a rule predicts nothing of a " + task + " problem", Why: "it is one expression, and such a problem asks for several values", Mend: `use {kind: "prior"}`}}
	}
	return nil
}

// Defaults numbers texts and takes the rest as it is.
func (Trainer) Defaults(t types.Type) []json.RawMessage { return prior.Trainer{}.Defaults(t) }

// Features is true: its one feature is the answer.
func (Trainer) Features() bool { return true }

// maxValues bounds how many different answers a rule may give to be calibrated.
const maxValues = 1000

// Train counts, for each answer of the rule, what the labels were. A class that
// an answer never met keeps a share by Laplace's rule. Regression and count take the
// answer itself (count: at least 0), and the mean label where there is none. An
// anomaly task takes a condition's truth, 0 where there is none.
func (Trainer) Train(_ context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	x := job.Train.X
	if x.Cols != 1 {
		return kind.TrainResult{}, errors.New("a rule takes one column")
	}
	average := prior.Average(job.Task, job.Train.Y)
	g := onnx.New("rule")
	in := g.Input("X", onnx.Float, -1, 1)
	switch job.Task.Kind {
	case kind.Regression, kind.Count, kind.Anomaly:
		return answer(g, in, job.Task, average[0]), nil
	}
	w := job.Task.Width()
	counts := map[float32][]float64{}
	for i, v := range x.Data {
		if v != v {
			continue
		}
		if counts[v] == nil {
			counts[v] = make([]float64, max(w, 2))
		}
		counts[v][int(job.Train.Y[i])]++
	}
	if len(counts) > maxValues {
		return kind.TrainResult{}, errors.New("the rule gives more than 1000 different answers; compare its value with a bound")
	}
	values := make([]float32, 0, len(counts))
	for v := range counts {
		values = append(values, v)
	}
	sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
	table := make([]float32, 0, len(values)*w)
	at := map[float32]int{}
	for k, v := range values {
		at[v] = k
		total := 0.0
		for _, n := range counts[v] {
			total += n + 1
		}
		for c := range w {
			n := counts[v][c]
			if w == 1 {
				n = counts[v][1]
			}
			table = append(table, float32((n+1)/total))
		}
	}
	y := prior.Constant(g, in, average)
	if n := int64(len(values)); n > 0 {
		hot := g.Cast(g.Op("Equal", in, g.Const(values, 1, n)), onnx.Float)
		seen := g.Op("ReduceSum", hot, g.Const([]int64{1}, 1))
		y = g.Op("Where", g.Op("Greater", seen, g.Scalar(float32(0))), g.Op("MatMul", hot, g.Const(table, n, int64(w))), y)
	}
	g.Output("Y", y, onnx.Float, -1, int64(w))
	predict := func(m kind.Matrix) []float32 {
		out := make([]float32, 0, m.Rows*w)
		for _, v := range m.Data {
			row := average
			if k, ok := at[v]; ok && !math.IsNaN(float64(v)) {
				row = table[k*w : (k+1)*w]
			}
			out = append(out, row...)
		}
		return out
	}
	return kind.TrainResult{Model: g.Marshal(), Predict: predict, Report: map[string]any{"answers": len(values)}}, nil
}

// answer is the model whose prediction is the rule's answer itself.
func answer(g *onnx.Graph, in onnx.Value, task kind.Task, missing float32) kind.TrainResult {
	if task.Kind == kind.Anomaly {
		missing = 0
	}
	y := g.Op("Where", g.Op("IsNaN", in), g.Scalar(missing), in)
	if task.Kind == kind.Count {
		y = g.Op("Max", y, g.Scalar(float32(0)))
	}
	g.Output("Y", y, onnx.Float, -1, 1)
	predict := func(m kind.Matrix) []float32 {
		out := append([]float32(nil), m.Data...)
		for i, v := range out {
			if v != v {
				out[i] = missing
			} else if task.Kind == kind.Count {
				out[i] = max(v, 0)
			}
		}
		return out
	}
	return kind.TrainResult{Model: g.Marshal(), Predict: predict, Report: map[string]any{"missing": missing}}
}
