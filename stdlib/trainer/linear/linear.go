// Package linear trains generalised linear models with an elastic-net penalty.
package linear

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/trainer/classweight"
)

//go:embed linear.cue
var source string

// Trainer is the kind "linear".
type Trainer struct{}

// Name is "linear".
func (Trainer) Name() string { return "linear" }

// Version of the implementation.
func (Trainer) Version() int { return 2 }

// Schema is #Linear.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "linear", Def: "#Linear", Source: source}
}

type args struct {
	L1          float64            `json:"l1"`
	L2          float64            `json:"l2"`
	ClassWeight classweight.Weight `json:"class_weight"`
	Tolerance   float64            `json:"tolerance"`
	MaxSteps    int                `json:"max_steps"`
}

// Check refuses a task without labels to learn from, and class weights where there
// are no classes that exclude each other.
func (Trainer) Check(raw json.RawMessage, task string) []kind.Fault {
	if task == kind.Anomaly {
		return []kind.Fault{{Code: diag.BadArgs, What: "a linear model does not fit an anomaly problem", Why: "it learns from labels, which only judge there", Mend: `use {kind: "isolation_forest"}, or make the problem binary`}}
	}
	return kind.DecodeArgs[args](raw).ClassWeight.Check(task)
}

// Defaults fills and scales numbers, and one-hot encodes texts.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return []json.RawMessage{[]byte(`{"kind":"one_hot","max":64}`)}
	}
	return []json.RawMessage{[]byte(`{"kind":"impute","with":"median"}`), []byte(`{"kind":"standardize"}`)}
}

// Features is true.
func (Trainer) Features() bool { return true }

// Train minimises the penalised loss: by the normal equations for least squares
// without l1, else by OWL-QN, or Newton's method for quantiles. Those are those of a pinball loss that is rounded
// within a hundredth of the labels' deviation; their intercepts are then exact. It
// fails where a feature is missing or infinite, a class weight names no class, and
// where max_steps do not reach the tolerance.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[args](job.Args)
	x := job.Train.X
	for i, v := range x.Data {
		if v-v == 0 {
			continue
		}
		what, mend := "missing", `begin its encode with {kind: "impute"}, or leave encode out for the default`
		if math.IsInf(float64(v), 0) {
			what, mend = "infinite, or beyond what a float32 holds,", `begin its encode with {kind: "clip"}`
		}
		return kind.TrainResult{}, diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("feature %q is %s in a training row", job.Names[i%x.Cols], what),
			Why: "a linear model multiplies every feature", Mend: mend}
	}
	s, err := solve(ctx, a, job)
	if err != nil {
		return kind.TrainResult{}, err
	}
	report := map[string]any{"features": x.Cols}
	if !s.exact {
		report["steps"], report["gradient"] = s.steps, s.gradient
	}
	if a.L1 > 0 {
		report["zero_weights"] = s.zeros()
	}
	return kind.TrainResult{Model: export(job.Task, x.Cols, s.weights, s.bias), Report: report,
		Predict: func(m kind.Matrix) []float32 { return predict(job.Task, m, s.weights, s.bias) }}, nil
}

// solution is the weights, [cols][k], and the intercepts, with how they were found.
type solution struct {
	weights, bias []float64
	steps         int
	gradient      float64
	exact         bool // by the normal equations, without steps
}

// zeros counts the weights that are exactly 0.
func (s solution) zeros() int {
	n := 0
	for _, v := range s.weights {
		if v == 0 {
			n++
		}
	}
	return n
}

// solve finds the least of the penalised loss. Quantiles have nothing in common, so
// each is a problem of its own.
func solve(ctx context.Context, a args, job kind.TrainJob) (solution, error) {
	k := job.Task.Width()
	if job.Task.Kind != kind.Quantile || k == 1 {
		return one(ctx, a, job)
	}
	all := solution{weights: make([]float64, job.Train.X.Cols*k)}
	for c, q := range job.Task.Quantiles {
		job.Task.Quantiles = []float64{q}
		s, err := one(ctx, a, job)
		if err != nil {
			return solution{}, err
		}
		for j, v := range s.weights {
			all.weights[j*k+c] = v
		}
		all.bias = append(all.bias, s.bias[0])
		all.steps, all.gradient = all.steps+s.steps, math.Max(all.gradient, s.gradient)
	}
	return all, nil
}

func one(ctx context.Context, a args, job kind.TrainJob) (s solution, err error) {
	x := job.Train.X
	byClass, wrong := a.ClassWeight.Classes(job.Task, job.Train.Y)
	if len(wrong) > 0 {
		return s, wrong
	}
	var rowWeights []float64
	if byClass != nil {
		rowWeights = make([]float64, len(job.Train.Y))
		for i, v := range job.Train.Y {
			rowWeights[i] = byClass[int(v)]
		}
	}
	p := newProblem(job.Task, a, x, job.Train.Y, rowWeights, max(job.Threads, 1))
	var w []float64
	if s.exact = job.Task.Kind == kind.Regression && a.L1 == 0 && x.Cols <= most; s.exact {
		w, err = p.ridge()
	} else {
		w, s.steps, s.gradient, err = p.minimise(ctx, a, job.Progress)
	}
	if err != nil {
		return s, err
	}
	s.weights, s.bias = p.unscale(w)
	return s, nil
}

// link turns scores into predictions in place.
func link(task kind.Task, score []float64) {
	switch task.Kind {
	case kind.Binary, kind.Multilabel:
		for c, s := range score {
			score[c] = 1 / (1 + math.Exp(-s))
		}
	case kind.Multiclass:
		softmax(score)
	case kind.Count:
		score[0] = math.Exp(score[0])
	case kind.Quantile:
		for c := 1; c < len(score); c++ {
			score[c] = math.Max(score[c], score[c-1])
		}
	}
}

// predict is the model in Go; weights are [cols][k].
func predict(task kind.Task, m kind.Matrix, weights, bias []float64) []float32 {
	k := len(bias)
	out := make([]float32, 0, m.Rows*k)
	score := make([]float64, k)
	for i := range m.Rows {
		copy(score, bias)
		for j, v := range m.Row(i) {
			switch {
			case v == 0:
			case k == 1:
				score[0] += float64(v) * weights[j]
			default:
				floats.AddScaled(score, float64(v), weights[j*k:(j+1)*k])
			}
		}
		link(task, score)
		for _, s := range score {
			out = append(out, float32(s))
		}
	}
	return out
}

// export computes in doubles: sums of many products lose too much in floats.
func export(task kind.Task, cols int, weights, bias []float64) []byte {
	k := int64(len(bias))
	g := onnx.New("linear")
	x := g.Cast(g.Input("X", onnx.Float, -1, int64(cols)), onnx.Double)
	y := g.Op("Add", g.Op("MatMul", x, g.Const(weights, int64(cols), k)), g.Const(bias, 1, k))
	switch task.Kind {
	case kind.Binary, kind.Multilabel:
		y = g.Op("Sigmoid", y)
	case kind.Multiclass:
		y = g.OpA("Softmax", onnx.Attrs{"axis": 1}, y)
	case kind.Count:
		y = g.Op("Exp", y)
	case kind.Quantile:
		y = rising(g, y, int(k))
	}
	g.Output("Y", g.Cast(y, onnx.Float), onnx.Float, -1, k)
	return g.Marshal()
}

// rising replaces every value of a row by the greatest up to it: column c is the
// maximum of y and a mask that is -Inf after c.
func rising(g *onnx.Graph, y onnx.Value, k int) onnx.Value {
	mask := make([]float64, k*k)
	for c := range k {
		for j := c + 1; j < k; j++ {
			mask[c*k+j] = math.Inf(-1)
		}
	}
	all := g.Op("Add", g.Op("Unsqueeze", y, g.Const([]int64{1}, 1)), g.Const(mask, 1, int64(k), int64(k)))
	return g.OpA("ReduceMax", onnx.Attrs{"keepdims": 0}, all, g.Const([]int64{2}, 1))
}
