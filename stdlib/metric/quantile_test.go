package metric_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestQuantile compares with scikit-learn 1.9.1 (mean_pinball_loss of each quantile,
// in the mean), and the coverage, which it has not, with numpy.
func TestQuantile(t *testing.T) {
	half := kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.5}}
	for _, r := range []rows{
		{metric.Pinball{}, quantiles, yValue, pQuantile, 0.6077380952380952},
		{metric.CoverageError{}, quantiles, yValue, pQuantile, 0.13928571428571432},
		// 0.7 is greater than its float32, and yet it is met.
		{metric.CoverageError{}, half, []float64{0.7}, []float32{0.7}, 0.5},
		{metric.CoverageError{}, half, []float64{0.7, 1}, []float32{0.7, 0.7}, 0},
	} {
		r.check(t)
	}
}

// TestPinball: of the median it is half the mean absolute error; of all constant
// predictions the quantile of the labels is the best; and it moves with the unit.
func TestPinball(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, regression, 1)
		half := kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.5}}
		near(t, "the median", value(t, metric.Pinball{}, half, y, p), value(t, metric.MAE{}, regression, y, p)/2)

		q := float64(rapid.IntRange(1, 15).Draw(t, "q")) / 16
		task := kind.Task{Kind: kind.Quantile, Quantiles: []float64{q}}
		y2, p2 := scaled(y, p, 8, 3)
		near(t, "the unit", 8*value(t, metric.Pinball{}, task, y, p), value(t, metric.Pinball{}, task, y2, p2))
		sorted, best := slices.Sorted(slices.Values(y)), make([]float32, len(y))
		for i := range best {
			best[i] = float32(sorted[int(math.Ceil(q*float64(len(y))))-1])
			p[i] = p[0]
		}
		if a, b := value(t, metric.Pinball{}, task, y, best), value(t, metric.Pinball{}, task, y, p); a > b+1e-12 {
			t.Fatalf("%v for the quantile, %v for %v", a, b, p[0])
		}
	})
}

// TestCoverageError: a quantile of the labels themselves is off by less than a row's
// share where no labels tie.
func TestCoverageError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		y := make([]float64, n)
		for i, v := range rapid.Permutation(indices(n)).Draw(t, "order") {
			y[i] = float64(v)
		}
		p := make([]float32, 0, n*len(quantiles.Quantiles))
		for range n {
			for _, q := range quantiles.Quantiles {
				p = append(p, float32(math.Ceil(q*float64(n))-1))
			}
		}
		if got := value(t, metric.CoverageError{}, quantiles, y, p); got > 1/float64(n)+1e-12 {
			t.Fatalf("%v of %d rows", got, n)
		}
	})
}
