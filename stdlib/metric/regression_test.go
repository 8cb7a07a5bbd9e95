package metric_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestRegression compares with scikit-learn 1.9.1
// (mean_absolute_percentage_error, median_absolute_error, max_error,
// root_mean_squared_log_error, explained_variance_score, r2_score,
// root_mean_squared_error, mean_absolute_error, mean_poisson_deviance), and smape,
// which it has not, with numpy.
func TestRegression(t *testing.T) {
	for _, r := range []rows{
		{metric.MAPE{}, regression, yValue, pValue, 0.5210034013605442},
		{metric.SMAPE{}, regression, yValue, pValue, 0.3332421964000911},
		{metric.SMAPE{}, regression, []float64{0, 0}, []float32{0, 1}, 1},
		{metric.MedAE{}, regression, yValue, pValue, 0.5},
		{metric.MedAE{}, regression, []float64{1, 2, 4, 8}, []float32{1, 1, 1, 1}, 2},
		{metric.MaxError{}, regression, yValue, pValue, 5.5},
		{metric.RMSLE{}, regression, yValue, pValue, 0.20194221411363195},
		{metric.ExplainedVariance{}, regression, yValue, pValue, 0.9707874120302749},
		{metric.R2{}, regression, yValue, pValue, 0.9683972911963883},
		{metric.RMSE{}, counts, yCount, pCount, 1.6616740698120418},
		{metric.R2{}, counts, yCount, pCount, 0.8901811079545454},
		{metric.ExplainedVariance{}, counts, yCount, pCount, 0.893846387987013},
		{metric.MAE{}, counts, yCount, pCount, 1.125},
		{metric.MedAE{}, counts, yCount, pCount, 1},
		{metric.MaxError{}, counts, yCount, pCount, 4},
		{metric.MAPE{}, counts, []float64{1, 3, 7, 2, 15}, []float32{1.25, 2, 8, 3, 11}, 0.29857142857142854},
		{metric.SMAPE{}, counts, yCount, pCount, 0.7804639804639805},
		{metric.RMSLE{}, counts, yCount, pCount, 0.254755739817272},
		{metric.PoissonDeviance{}, counts, yCount, pCount, 0.5071216379942539},
		// The limit, where scikit-learn fails.
		{metric.PoissonDeviance{}, counts, []float64{0, 2}, []float32{0, 2}, 0},
	} {
		r.check(t)
	}
}

// TestErrorsAreOrdered: the mean and the median error are no more than the
// greatest, and the mean no more than the root of the mean square. All move with
// the unit and stay when both sides are shifted.
func TestErrorsAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, regression, 1)
		mean, worst := value(t, metric.MAE{}, regression, y, p), value(t, metric.MaxError{}, regression, y, p)
		median, root := value(t, metric.MedAE{}, regression, y, p), value(t, metric.RMSE{}, regression, y, p)
		if median > worst || mean > root+1e-12 || root > worst+1e-12 {
			t.Fatalf("mean %v, median %v, root %v, greatest %v", mean, median, root, worst)
		}
		var below, above int
		for i := range y {
			if d := math.Abs(y[i] - float64(p[i])); d < median {
				below++
			} else if d > median {
				above++
			}
		}
		if 2*max(below, above) > len(y) {
			t.Fatalf("%d errors below the median and %d above it of %d", below, above, len(y))
		}
		y2, p2 := scaled(y, p, 8, 3)
		for _, m := range []kind.Metric{metric.MAE{}, metric.MedAE{}, metric.MaxError{}, metric.RMSE{}} {
			near(t, m.Name(), 8*value(t, m, regression, y, p), value(t, m, regression, y2, p2))
		}
	})
}

// scaled returns by x + plus of both sides.
func scaled(y []float64, p []float32, by, plus float64) ([]float64, []float32) {
	y2, p2 := make([]float64, len(y)), make([]float32, len(y))
	for i := range y {
		y2[i], p2[i] = y[i]*by+plus, p[i]*float32(by)+float32(plus)
	}
	return y2, p2
}

// TestRelativeErrors: the unit changes no relative error; smape and rmsle do not
// care which side is the label.
func TestRelativeErrors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, regression, 1)
		for i := range y {
			if y[i] == 0 {
				y[i] = 1
			}
		}
		y2, p2 := scaled(y, p, -4, 0)
		near(t, "mape", value(t, metric.MAPE{}, regression, y, p), value(t, metric.MAPE{}, regression, y2, p2))
		near(t, "smape", value(t, metric.SMAPE{}, regression, y, p), value(t, metric.SMAPE{}, regression, y2, p2))
		for i := range y {
			y[i], p[i] = math.Abs(y[i]), float32(math.Abs(float64(p[i])))
			y2[i], p2[i] = float64(p[i]), float32(y[i])
		}
		near(t, "smape", value(t, metric.SMAPE{}, regression, y, p), value(t, metric.SMAPE{}, regression, y2, p2))
		near(t, "rmsle", value(t, metric.RMSLE{}, regression, y, p), value(t, metric.RMSLE{}, regression, y2, p2))
	})
}

// TestExplainedVarianceForgivesBias: a constant added to the predictions does not
// change it, and it is above R2 by the squared mean error over the variance.
func TestExplainedVarianceForgivesBias(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, regression, 2)
		y[0], y[1] = 0, 1
		bias := rapid.IntRange(-20, 20).Draw(t, "bias")
		p2 := make([]float32, len(p))
		var sum, sy, syy float64
		n := float64(len(y))
		for i := range y {
			p2[i] = p[i] + float32(bias)
			sum, sy, syy = sum+y[i]-float64(p[i]), sy+y[i], syy+y[i]*y[i]
		}
		got := value(t, metric.ExplainedVariance{}, regression, y, p)
		near(t, "with a bias", got, value(t, metric.ExplainedVariance{}, regression, y, p2))
		near(t, "r2", got, value(t, metric.R2{}, regression, y, p)+sum*sum/n/(syy-sy*sy/n))
	})
}

// TestPoissonDevianceIsProper: of all constant predictions, the mean is the best, and
// it is 0 for a perfect one.
func TestPoissonDevianceIsProper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, counts, 1)
		sum, exact := 0.0, make([]float32, len(y))
		for i, v := range y {
			sum += v
			exact[i] = float32(v)
		}
		near(t, "a perfect model", value(t, metric.PoissonDeviance{}, counts, y, exact), 0)
		other := rapid.Float32Range(0.25, 20).Draw(t, "other")
		mean := make([]float32, len(y))
		for i := range y {
			mean[i], p[i] = float32(sum)/float32(len(y)), other
		}
		if a, b := value(t, metric.PoissonDeviance{}, counts, y, mean), value(t, metric.PoissonDeviance{}, counts, y, p); a > b+1e-5 {
			t.Fatalf("%v for the mean, %v for %v", a, b, other)
		}
	})
}
