package metric_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/stdlib/metric"
)

// TestProbability compares with scikit-learn 1.9.1 (brier_score_loss; the error
// of calibration_curve with 15 bins, weighted by the rows of each; log_loss and
// brier_score_loss of each label, in the mean).
func TestProbability(t *testing.T) {
	for _, r := range []rows{
		{metric.Brier{}, binary, yBinary, pBinary, 0.1517578125},
		{metric.ECE{}, binary, yBinary, pBinary, 0.215625},
		{metric.LogLoss{}, labels, yLabels, pLabels, 0.3993174774339671},
		{metric.Brier{}, labels, yLabels, pLabels, 0.1220703125},
		{metric.Brier{}, five, yFive, pFive, 0.7388916015625},
		{metric.ECE{}, five, yFive, pFive, 0.3776041666666667},
		// The first and the last bin hold 0 and 1.
		{metric.ECE{}, binary, []float64{0, 1}, []float32{0, 1}, 0},
		{metric.ECE{}, binary, []float64{1, 0}, []float32{0, 1}, 1},
	} {
		r.check(t)
	}
}

// TestBrierIsProper: of all constant predictions, the base rate is the best.
func TestBrierIsProper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 16
		y, rate, other := make([]float64, n), make([]float32, n), make([]float32, n)
		positive, q := rapid.IntRange(0, n).Draw(t, "positive"), rapid.Float32Range(0, 1).Draw(t, "other")
		for i := range n {
			if i < positive {
				y[i] = 1
			}
			rate[i], other[i] = float32(positive)/float32(n), q
		}
		if a, b := value(t, metric.Brier{}, binary, y, rate), value(t, metric.Brier{}, binary, y, other); a > b+1e-12 {
			t.Fatalf("%v for the base rate, %v for %v", a, b, q)
		}
		near(t, "the base rate is calibrated", value(t, metric.ECE{}, binary, y, rate), 0)
	})
}

// TestECEBounds: bins can only hide errors. It is no less than how far the mean
// confidence is from the share of right rows, and no more than the mean of how
// far each row's is. Rows that come twice change nothing.
func TestECEBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, binary, 1)
		var least, most float64
		for i := range y {
			d := float64(p[i]) - y[i]
			least, most = least+d/float64(len(y)), most+math.Abs(d)/float64(len(y))
		}
		got := value(t, metric.ECE{}, binary, y, p)
		if got < math.Abs(least)-1e-12 || got > most+1e-12 {
			t.Fatalf("%v is outside %v to %v", got, math.Abs(least), most)
		}
		near(t, "rows twice", got, value(t, metric.ECE{}, binary, append(y, y...), append(p, p...)))
	})
}
