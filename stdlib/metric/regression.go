package metric

import (
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// RMSE is the root of the mean squared error, in the label's unit.
type RMSE struct{}

// Name is "rmse".
func (RMSE) Name() string { return "rmse" }

// Version of the implementation.
func (RMSE) Version() int { return 1 }

// Tasks are regression and count.
func (RMSE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (RMSE) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (RMSE) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails beyond the doubles only.
func (RMSE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	return finite(math.Sqrt(squares(y, func(i int) float64 { return float64(p[i]) }) / float64(len(y))))
}

func squares(y []float64, p func(int) float64) float64 {
	sum := 0.0
	for i, t := range y {
		d := t - p(i)
		sum += d * d
	}
	return sum
}

// spread is the sum of squared distances from the mean.
func spread(x []float64) float64 {
	mean := 0.0
	for i, t := range x {
		mean += (t - mean) / float64(i+1)
	}
	return squares(x, func(int) float64 { return mean })
}

// R2 is the coefficient of determination: 1 - residual / total sum of squares.
type R2 struct{}

// Name is "r2".
func (R2) Name() string { return "r2" }

// Version of the implementation.
func (R2) Version() int { return 1 }

// Tasks are regression and count.
func (R2) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is up.
func (R2) Better() kind.Direction { return kind.Up }

// Range is from minus infinity to 1.
func (R2) Range() (lo, hi float64) { return math.Inf(-1), 1 }

// Compute fails where every label is the same.
func (R2) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	total := spread(y)
	if total == 0 {
		return 0, errSameLabels
	}
	return finite(1 - squares(y, func(i int) float64 { return float64(p[i]) })/total)
}

// ExplainedVariance is 1 - the variance of the errors / that of the labels, as
// explained_variance_score of scikit-learn. It is R2 but for a constant error,
// which it forgives.
type ExplainedVariance struct{}

// Name is "explained_variance".
func (ExplainedVariance) Name() string { return "explained_variance" }

// Version of the implementation.
func (ExplainedVariance) Version() int { return 1 }

// Tasks are regression and count.
func (ExplainedVariance) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is up.
func (ExplainedVariance) Better() kind.Direction { return kind.Up }

// Range is from minus infinity to 1.
func (ExplainedVariance) Range() (lo, hi float64) { return math.Inf(-1), 1 }

// Compute fails where every label is the same.
func (ExplainedVariance) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	total := spread(y)
	if total == 0 {
		return 0, errSameLabels
	}
	errs := make([]float64, len(y))
	for i, t := range y {
		errs[i] = t - float64(p[i])
	}
	return finite(1 - spread(errs)/total)
}

// off is how far the prediction of row i is from its label.
func off(y []float64, p []float32, i int) float64 { return math.Abs(y[i] - float64(p[i])) }

// MAE is the mean absolute error, in the label's unit.
type MAE struct{}

// Name is "mae".
func (MAE) Name() string { return "mae" }

// Version of the implementation.
func (MAE) Version() int { return 1 }

// Tasks are regression and count.
func (MAE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (MAE) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (MAE) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails beyond the doubles only.
func (MAE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	return mean(len(y), func(i int) float64 { return off(y, p, i) })
}

// MedAE is the median absolute error, in the label's unit (MdAE in Hyndman and
// Koehler 2006, "Another look at measures of forecast accuracy"); of an even
// number of rows, the mean of the two in the middle.
type MedAE struct{}

// Name is "medae".
func (MedAE) Name() string { return "medae" }

// Version of the implementation.
func (MedAE) Version() int { return 1 }

// Tasks are regression and count.
func (MedAE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (MedAE) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (MedAE) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails beyond the doubles only.
func (MedAE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	n := len(y)
	if n == 0 {
		return 0, errNotFinite
	}
	errs := make([]float64, n)
	for i := range y {
		errs[i] = off(y, p, i)
	}
	slices.Sort(errs)
	return finite((errs[(n-1)/2] + errs[n/2]) / 2)
}

// MaxError is the greatest absolute error, in the label's unit, as max_error of
// scikit-learn.
type MaxError struct{}

// Name is "max_error".
func (MaxError) Name() string { return "max_error" }

// Version of the implementation.
func (MaxError) Version() int { return 1 }

// Tasks are regression and count.
func (MaxError) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (MaxError) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (MaxError) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute never fails on rows.
func (MaxError) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	worst := math.Inf(-1)
	for i := range y {
		worst = max(worst, off(y, p, i))
	}
	return finite(worst)
}
