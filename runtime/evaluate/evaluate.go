// Package evaluate judges predictions beyond one number: how sure a metric is,
// where the model is worse, how its groups fare, which threshold decides best,
// what it looks at, and the curves of its report. It is pure computation over
// labels and predictions.
package evaluate

import (
	"maps"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// Predictions are judged rows: labels Y, of Task.Targets() a row, and predictions
// P, of Task.Width() a row.
type Predictions struct {
	Task kind.Task
	Y    []float64
	P    []float32
	// Fold is, under cross-validation, which training predicted each row.
	Fold []int32
}

// Metric is a metric's value: under cross-validation the mean over the folds. It is NaN
// where the metric is not defined.
func (p Predictions) Metric(m kind.Metric) float64 {
	if p.Fold == nil {
		v, err := m.Compute(p.Task, p.Y, p.P)
		if err != nil {
			return math.NaN()
		}
		return v
	}
	rows := map[int32][]int32{}
	for i, f := range p.Fold {
		rows[f] = append(rows[f], int32(i))
	}
	sum := 0.0
	for _, f := range slices.Sorted(maps.Keys(rows)) {
		one := p.At(rows[f])
		one.Fold = nil
		sum += one.Metric(m) / float64(len(rows))
	}
	return sum
}

// Rows is their number.
func (p Predictions) Rows() int { return len(p.Y) / max(p.Task.Targets(), 1) }

// At returns the rows at some places, which may repeat.
func (p Predictions) At(rows []int32) Predictions {
	t, w := p.Task.Targets(), p.Task.Width()
	out := Predictions{Task: p.Task, Y: make([]float64, 0, len(rows)*t), P: make([]float32, 0, len(rows)*w)}
	for _, r := range rows {
		i := int(r)
		out.Y = append(out.Y, p.Y[i*t:(i+1)*t]...)
		out.P = append(out.P, p.P[i*w:(i+1)*w]...)
		if p.Fold != nil {
			out.Fold = append(out.Fold, p.Fold[i])
		}
	}
	return out
}

// Loss is each row's own: log loss (of classes, and of each label in the mean),
// squared error, pinball loss in the mean of the quantiles, or for counts the Poisson
// deviance. An anomaly's is the log loss of its score.
func (p Predictions) Loss() []float64 {
	t, w := p.Task.Targets(), p.Task.Width()
	out := make([]float64, p.Rows())
	for i := range out {
		y, q := p.Y[i*t:(i+1)*t], p.P[i*w:(i+1)*w]
		switch p.Task.Kind {
		case kind.Multiclass:
			out[i] = nll(float64(q[int(y[0])]))
		case kind.Quantile:
			for k, tau := range p.Task.Quantiles {
				d := y[0] - float64(q[k])
				out[i] += math.Max(tau*d, (tau-1)*d) / float64(w)
			}
		case kind.Count:
			mu := math.Max(float64(q[0]), 1e-9)
			out[i] = 2 * (mu - y[0])
			if y[0] > 0 {
				out[i] += 2 * y[0] * math.Log(y[0]/mu)
			}
		case kind.Regression:
			d := y[0] - float64(q[0])
			out[i] = d * d
		default:
			for k, v := range y {
				c := float64(q[k])
				if v == 0 {
					c = 1 - c
				}
				out[i] += nll(c) / float64(w)
			}
		}
	}
	return out
}

// nll is the negative logarithm of a probability, kept away from 0.
func nll(p float64) float64 { return -math.Log(math.Max(p, 1e-15)) }
