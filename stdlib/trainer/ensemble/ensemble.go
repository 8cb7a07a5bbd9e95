// Package ensemble combines other models by weights that add up to 1.
package ensemble

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed ensemble.cue
var source string

// Trainer is the kind "ensemble".
type Trainer struct{}

var (
	_ kind.Ensemble  = Trainer{}
	_ kind.Validated = Trainer{}
)

// Name is "ensemble".
func (Trainer) Name() string { return "ensemble" }

// Version of the implementation.
func (Trainer) Version() int { return 2 }

// Schema is #Ensemble.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "ensemble", Def: "#Ensemble", Source: source}
}

type args struct {
	Of      []string  `json:"of"`
	Combine string    `json:"combine"`
	Weights []float64 `json:"weights"`
}

// Members are the models that are combined.
func (Trainer) Members(raw json.RawMessage) []string { return kind.DecodeArgs[args](raw).Of }

// Check wants a weight for each model, and a task whose loss weights can be learned of.
func (Trainer) Check(raw json.RawMessage, task string) []kind.Fault {
	a := kind.DecodeArgs[args](raw)
	sum := 0.0
	for _, w := range a.Weights {
		sum += w
	}
	switch {
	case a.Weights != nil && a.Combine == "stack":
		return []kind.Fault{{Field: "weights", Code: diag.BadArgs, What: "weights of a stack", Why: "it learns them", Mend: `leave them out, or use combine: "mean"`}}
	case a.Weights != nil && len(a.Weights) != len(a.Of):
		return []kind.Fault{{Field: "weights", Code: diag.BadArgs, What: fmt.Sprintf("%d weights of %d models", len(a.Weights), len(a.Of)), Mend: "give one for each"}}
	case a.Weights != nil && sum == 0:
		return []kind.Fault{{Field: "weights", Code: diag.BadArgs, What: "no model has a weight", Mend: "give one a weight above 0"}}
	case a.Combine == "stack" && (task == kind.Quantile || task == kind.Anomaly):
		return []kind.Fault{{Field: "combine", Code: diag.BadArgs, What: "a stack of a " + task + " problem", Why: "its weights are learned by likelihood or squared error", Mend: `use combine: "mean"`}}
	}
	return nil
}

// Unvalidated is a fault of a stack.
func (Trainer) Unvalidated(raw json.RawMessage) []kind.Fault {
	if kind.DecodeArgs[args](raw).Combine != "stack" {
		return nil
	}
	return []kind.Fault{{Field: "combine", Code: diag.BadArgs, What: "the split has no validation rows", Why: "a stack learns from them: the models' own training rows would praise whoever overfits", Mend: `give the split a validation part, or use combine: "mean"`}}
}

// Defaults has no encoders: its features are the models' predictions.
func (Trainer) Defaults(types.Type) []json.RawMessage { return nil }

// Features is true.
func (Trainer) Features() bool { return true }

// Train weighs the members' predictions, Task.Width() columns of X each. The training
// rows of a stack are those that no member learned from; without any it fails.
func (Trainer) Train(_ context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[args](job.Args)
	w, n := job.Task.Width(), len(a.Of)
	weights := make([]float64, n)
	for m := range weights {
		weights[m] = 1 / float64(n)
	}
	switch {
	case a.Weights != nil:
		sum := 0.0
		for _, v := range a.Weights {
			sum += v
		}
		for m, v := range a.Weights {
			weights[m] = v / sum
		}
	case a.Combine == "stack" && len(job.Train.Y) == 0:
		return kind.TrainResult{}, kind.Faults(Trainer{}.Unvalidated(job.Args))
	case a.Combine == "stack" && job.Task.Numeric():
		leastSquares(job, weights)
	case a.Combine == "stack":
		likelihood(job, weights)
	}
	table := make([]float32, n*w*w)
	for m := range n {
		for c := range w {
			table[(m*w+c)*w+c] = float32(weights[m])
		}
	}
	g := onnx.New("ensemble")
	y := g.Op("MatMul", g.Input("X", onnx.Float, -1, int64(n*w)), g.Const(table, int64(n*w), int64(w)))
	if !job.Task.Numeric() { // rounding must not leave the range
		y = g.Op("Clip", y, g.Scalar(float32(0)), g.Scalar(float32(1)))
	}
	g.Output("Y", y, onnx.Float, -1, int64(w))
	predict := func(x kind.Matrix) []float32 {
		out := make([]float32, x.Rows*w)
		for i := range x.Rows {
			row := x.Row(i)
			for c := range w {
				sum := float32(0)
				for m := range n {
					sum += row[m*w+c] * float32(weights[m])
				}
				if !job.Task.Numeric() {
					sum = min(max(sum, 0), 1)
				}
				out[i*w+c] = sum
			}
		}
		return out
	}
	report := map[string]float64{}
	for m, name := range a.Of {
		report[name] = math.Round(weights[m]*1e6) / 1e6
	}
	return kind.TrainResult{Model: g.Marshal(), Predict: predict, Report: map[string]any{"weights": report}}, nil
}

// steps bounds the iterations of learning weights, for each member; both methods only
// ever get better.
const steps = 500

// likelihood finds the mixture of the members under which the labels are likeliest, by
// pairwise steps of Frank & Wolfe's method (Lacoste-Julien & Jaggi 2015): weight goes
// from the worst member that has some to the best.
func likelihood(job kind.TrainJob, weights []float64) {
	w, n := job.Task.Width(), len(weights)
	targets := job.Task.Targets()
	// p are the probabilities that the members gave to what came true.
	var p [][]float64
	for i := range job.Train.X.Rows {
		row := job.Train.X.Row(i)
		for t := range targets {
			own := make([]float64, n)
			for m := range own {
				y := job.Train.Y[i*targets+t]
				switch {
				case job.Task.Kind == kind.Multiclass:
					own[m] = float64(row[m*w+int(y)])
				case y != 0:
					own[m] = float64(row[m*w+t])
				default:
					own[m] = 1 - float64(row[m*w+t])
				}
				own[m] = math.Max(own[m], 1e-15)
			}
			p = append(p, own)
		}
	}
	sums, grad := make([]float64, len(p)), make([]float64, n)
	for range steps * n {
		clear(grad)
		for i, own := range p {
			sums[i] = 0
			for m, v := range own {
				sums[i] += weights[m] * v
			}
			for m, v := range own {
				grad[m] += v / sums[i] / float64(len(p))
			}
		}
		best, worst := 0, -1
		for m, g := range grad {
			if g > grad[best] {
				best = m
			}
			if weights[m] > 0 && (worst < 0 || g < grad[worst]) {
				worst = m
			}
		}
		// The gradient's mean under the weights is 1 and the logarithm concave, so no
		// mixture is likelier by more than this, a row.
		if grad[best]-1 < 1e-9 || best == worst {
			return
		}
		step := shift(p, sums, best, worst, weights[worst])
		weights[best] += step
		weights[worst] -= step
	}
}

// shift is how much weight, up to most, to move from one member to another so that
// labels are likeliest: the logarithm is concave in it, and Newton's steps that leave
// what is known to hold the best are halved.
func shift(p [][]float64, sums []float64, to, from int, most float64) float64 {
	slope := func(t float64) (first, second float64) {
		for i, own := range p {
			d := own[to] - own[from]
			r := d / (sums[i] + t*d)
			first += r
			second += r * r
		}
		return first, second
	}
	if first, _ := slope(most); first >= 0 {
		return most
	}
	low, high, t := 0.0, most, 0.0
	for range 60 {
		first, second := slope(t)
		if first > 0 {
			low = t
		} else {
			high = t
		}
		next := t + first/second
		if !(next > low && next < high) {
			next = (low + high) / 2
		}
		if math.Abs(next-t) <= 1e-12*most {
			return next
		}
		t = next
	}
	return t
}

// leastSquares finds the convex combination of least squared error (Breiman 1996,
// "Stacked regressions"), by Frank & Wolfe's steps with exact line search, towards the
// best member or away from the worst (Guélat & Marcotte 1986).
func leastSquares(job kind.TrainJob, weights []float64) {
	n := len(weights)
	// gram[m][k] is Σ e_m·e_k of the members' errors: the squared error of a
	// combination is weights·gram·weights.
	gram := make([][]float64, n)
	for m := range gram {
		gram[m] = make([]float64, n)
	}
	for i, y := range job.Train.Y {
		row := job.Train.X.Row(i)
		for m := range n {
			for k := range n {
				gram[m][k] += (float64(row[m]) - y) * (float64(row[k]) - y)
			}
		}
	}
	for range steps * n {
		grad, best, worst := make([]float64, n), 0, -1
		for m := range n {
			for k := range n {
				grad[m] += gram[m][k] * weights[k]
			}
			if grad[m] < grad[best] {
				best = m
			}
			if weights[m] > 0 && (worst < 0 || grad[m] > grad[worst]) {
				worst = m
			}
		}
		// Move weight from the worst to the best: d = e_best - e_worst.
		slope := grad[best] - grad[worst]
		curve := gram[best][best] - 2*gram[best][worst] + gram[worst][worst]
		if slope > -1e-12*math.Abs(grad[worst]) || curve <= 0 {
			return
		}
		step := math.Min(-slope/curve, weights[worst])
		weights[best] += step
		weights[worst] -= step
	}
}
