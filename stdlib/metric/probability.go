package metric

import (
	"math"

	"mlc.dev/mlc/compiler/kind"
)

// LogLoss is the mean negative log-likelihood, in nats; of a multilabel, the mean
// over labels of each one's. Probabilities are kept 1e-15 away from 0 and 1.
type LogLoss struct{}

// Name is "log_loss".
func (LogLoss) Name() string { return "log_loss" }

// Version of the implementation.
func (LogLoss) Version() int { return 1 }

// Tasks are binary, multiclass and multilabel.
func (LogLoss) Tasks() []string { return []string{kind.Binary, kind.Multiclass, kind.Multilabel} }

// Better is down.
func (LogLoss) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (LogLoss) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute never fails on rows.
func (LogLoss) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width() / task.Targets() // 1 where each label has a probability
	return mean(len(y), func(i int) float64 {
		q := float64(p[i*w])
		if w > 1 {
			q = float64(p[i*w+int(y[i])])
		} else if y[i] == 0 {
			q = 1 - q
		}
		return -math.Log(min(max(q, 1e-15), 1-1e-15))
	})
}

// Brier is the mean squared error of the probability (Brier 1950, "Verification
// of forecasts expressed in terms of probability"). For classes it is Brier's own
// sum of the squared errors over them, from 0 to 2; for binary it is that of true
// alone, from 0 to 1, which is half the sum over true and false; for a multilabel
// the mean over labels of each one's, from 0 to 1.
type Brier struct{}

// Name is "brier".
func (Brier) Name() string { return "brier" }

// Version of the implementation.
func (Brier) Version() int { return 1 }

// Tasks are binary, multiclass and multilabel.
func (Brier) Tasks() []string { return []string{kind.Binary, kind.Multiclass, kind.Multilabel} }

// Better is down.
func (Brier) Better() kind.Direction { return kind.Down }

// Range is from 0 to 2.
func (Brier) Range() (lo, hi float64) { return 0, 2 }

// Compute never fails on rows.
func (Brier) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width() / task.Targets() // 1 where each label has a probability
	return mean(len(y), func(i int) float64 {
		if w == 1 {
			d := float64(p[i]) - y[i]
			return d * d
		}
		sum := 0.0
		for c, q := range p[i*w : (i+1)*w] {
			d := float64(q)
			if c == int(y[i]) {
				d--
			}
			sum += d * d
		}
		return sum
	})
}

// ECE is the expected calibration error over 15 bins of equal width, each with
// its upper end: the mean, weighted by rows, of how far a bin's mean confidence is
// from its share of right rows (Naeini et al. 2015, "Obtaining well calibrated
// probabilities using Bayesian binning"; 15 bins as in Guo et al. 2017, "On
// calibration of modern neural networks"). The confidence is the probability of
// the likeliest class, and a row is right where that is its class; for binary it
// is the probability of true, and a row is right where it is true. It is from 0
// to 1.
type ECE struct{}

// Name is "ece".
func (ECE) Name() string { return "ece" }

// Version of the implementation.
func (ECE) Version() int { return 1 }

// Tasks are binary and multiclass.
func (ECE) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is down.
func (ECE) Better() kind.Direction { return kind.Down }

// Range is from 0 to 1.
func (ECE) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (ECE) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	const bins = 15
	var gap [bins]float64 // confidence minus right rows, summed
	w := task.Width()
	for i, t := range y {
		c, q := 1, float64(p[i*w])
		if w > 1 {
			c = decide(task, p, i)
			q = float64(p[i*w+c])
		}
		// The product is exact, so a probability is never in its neighbour's bin.
		b := int(math.Ceil(min(max(q*bins, 1), bins))) - 1
		gap[b] += q
		if int(t) == c {
			gap[b]--
		}
	}
	sum := 0.0
	for _, g := range gap {
		sum += math.Abs(g)
	}
	return finite(sum / float64(len(y)))
}
