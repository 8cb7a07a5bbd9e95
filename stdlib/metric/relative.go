package metric

import (
	"errors"
	"math"

	"mlc.dev/mlc/compiler/kind"
)

// MAPE is the mean absolute percentage error: the mean of |y - p| / |y|, as a
// fraction and not a percentage (Hyndman and Koehler 2006, "Another look at
// measures of forecast accuracy").
type MAPE struct{}

// Name is "mape".
func (MAPE) Name() string { return "mape" }

// Version of the implementation.
func (MAPE) Version() int { return 1 }

// Tasks is regression.
func (MAPE) Tasks() []string { return []string{kind.Regression} }

// Better is down.
func (MAPE) Better() kind.Direction { return kind.Down }

// Compute fails where a label is 0. (scikit-learn divides by 2^-52 there, and one
// such row drowns the others.)
func (MAPE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	for _, t := range y {
		if t == 0 {
			return 0, errors.New("a label is 0, so it is not defined; smape is")
		}
	}
	return mean(len(y), func(i int) float64 { return off(y, p, i) / math.Abs(y[i]) })
}

// SMAPE is the symmetric mean absolute percentage error: the mean of
// 2 |y - p| / (|y| + |p|), as a fraction from 0 to 2 and not a percentage
// (Makridakis et al. 2020, "The M4 competition"). A row where both are 0 counts 0.
type SMAPE struct{}

// Name is "smape".
func (SMAPE) Name() string { return "smape" }

// Version of the implementation.
func (SMAPE) Version() int { return 1 }

// Tasks is regression.
func (SMAPE) Tasks() []string { return []string{kind.Regression} }

// Better is down.
func (SMAPE) Better() kind.Direction { return kind.Down }

// Compute never fails on rows.
func (SMAPE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	return mean(len(y), func(i int) float64 {
		return 2 * ratio(off(y, p, i), math.Abs(y[i])+math.Abs(float64(p[i])))
	})
}

// RMSLE is the root of the mean squared difference of ln(1 + y) and ln(1 + p), as
// root_mean_squared_log_error of scikit-learn.
type RMSLE struct{}

// Name is "rmsle".
func (RMSLE) Name() string { return "rmsle" }

// Version of the implementation.
func (RMSLE) Version() int { return 1 }

// Tasks is regression.
func (RMSLE) Tasks() []string { return []string{kind.Regression} }

// Better is down.
func (RMSLE) Better() kind.Direction { return kind.Down }

// Compute fails where a label or a prediction is below 0. (scikit-learn fails
// from -1.)
func (RMSLE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	for i, t := range y {
		if t < 0 {
			return 0, errors.New("a label is below 0, so it is not defined")
		}
		if p[i] < 0 {
			return 0, errors.New("a prediction is below 0, so it is not defined")
		}
	}
	v, err := mean(len(y), func(i int) float64 {
		d := math.Log1p(y[i]) - math.Log1p(float64(p[i]))
		return d * d
	})
	return math.Sqrt(v), err
}
