package metric

import (
	"math"

	"mlc.dev/mlc/compiler/kind"
)

// Pinball is the pinball loss, in the label's unit: for the quantile q, the mean of
// q (y - p) where the label is above the prediction, and of (1 - q) (p - y) where it
// is not (Koenker and Bassett 1978, "Regression quantiles"); then the mean over the
// quantiles, as mean_pinball_loss of scikit-learn gives for each.
type Pinball struct{}

// Name is "pinball".
func (Pinball) Name() string { return "pinball" }

// Version of the implementation.
func (Pinball) Version() int { return 1 }

// Tasks is quantile.
func (Pinball) Tasks() []string { return []string{kind.Quantile} }

// Better is down.
func (Pinball) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (Pinball) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails beyond the doubles only.
func (Pinball) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width()
	return mean(len(p), func(i int) float64 {
		d, q := y[i/w]-float64(p[i]), task.Quantiles[i%w]
		return max(q*d, (q-1)*d)
	})
}

// CoverageError is how far the share of rows whose label is at or below a quantile
// is from that quantile, in the mean over the quantiles, from 0 to 1. A label counts
// as float32, as the prediction is one: a label that is met exactly is covered.
type CoverageError struct{}

// Name is "coverage_error".
func (CoverageError) Name() string { return "coverage_error" }

// Version of the implementation.
func (CoverageError) Version() int { return 1 }

// Tasks is quantile.
func (CoverageError) Tasks() []string { return []string{kind.Quantile} }

// Better is down.
func (CoverageError) Better() kind.Direction { return kind.Down }

// Range is from 0 to 1.
func (CoverageError) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (CoverageError) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w, sum := task.Width(), 0.0
	for k, q := range task.Quantiles {
		covered, err := share(len(y), func(i int) bool { return float32(y[i]) <= p[i*w+k] })
		if err != nil {
			return 0, err
		}
		sum += math.Abs(covered - q)
	}
	return finite(sum / float64(w))
}
