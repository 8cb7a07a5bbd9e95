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

// Check leaves the expression to the compiler, which knows the columns.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults numbers texts and takes the rest as it is.
func (Trainer) Defaults(t types.Type) []json.RawMessage { return prior.Trainer{}.Defaults(t) }

// Features is true: its one feature is the answer.
func (Trainer) Features() bool { return true }

// maxValues bounds how many different answers a rule may give to be calibrated.
const maxValues = 1000

// Train counts, for each answer of the rule, what the labels were. A class that
// an answer never met keeps a share by Laplace's rule. Regression takes the
// answer itself, and the mean label where there is none.
func (Trainer) Train(_ context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	x := job.Train.X
	if x.Cols != 1 {
		return kind.TrainResult{}, errors.New("a rule takes one column")
	}
	average := prior.Average(job.Task, job.Train.Y)
	g := onnx.New("rule")
	in := g.Input("X", onnx.Float, -1, 1)
	if job.Task.Kind == kind.Regression {
		g.Output("Y", g.Op("Where", g.Op("IsNaN", in), g.Scalar(average[0]), in), onnx.Float, -1, 1)
		predict := func(m kind.Matrix) []float32 {
			out := append([]float32(nil), m.Data...)
			for i, v := range out {
				if v != v {
					out[i] = average[0]
				}
			}
			return out
		}
		return kind.TrainResult{Model: g.Marshal(), Predict: predict, Report: map[string]any{"missing": average[0]}}, nil
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
