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

// Tasks are regression and count.
func (MAPE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (MAPE) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (MAPE) Range() (lo, hi float64) { return 0, math.Inf(1) }

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

// Tasks are regression and count.
func (SMAPE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (SMAPE) Better() kind.Direction { return kind.Down }

// Range is from 0 to 2.
func (SMAPE) Range() (lo, hi float64) { return 0, 2 }

// Compute never fails on rows.
func (SMAPE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	return mean(len(y), func(i int) float64 {
		return 2 * ratio(off(y, p, i), math.Abs(y[i])+math.Abs(float64(p[i])))
	})
}

// notNegative fails where a label or a prediction is below 0.
func notNegative(y []float64, p []float32) error {
	for i, t := range y {
		if t < 0 {
			return errors.New("a label is below 0, so it is not defined")
		}
		if p[i] < 0 {
			return errors.New("a prediction is below 0, so it is not defined")
		}
	}
	return nil
}

// RMSLE is the root of the mean squared difference of ln(1 + y) and ln(1 + p), as
// root_mean_squared_log_error of scikit-learn.
type RMSLE struct{}

// Name is "rmsle".
func (RMSLE) Name() string { return "rmsle" }

// Version of the implementation.
func (RMSLE) Version() int { return 1 }

// Tasks are regression and count.
func (RMSLE) Tasks() []string { return []string{kind.Regression, kind.Count} }

// Better is down.
func (RMSLE) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (RMSLE) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails where a label or a prediction is below 0. (scikit-learn fails
// from -1.)
func (RMSLE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	if err := notNegative(y, p); err != nil {
		return 0, err
	}
	v, err := mean(len(y), func(i int) float64 {
		d := math.Log1p(y[i]) - math.Log1p(float64(p[i]))
		return d * d
	})
	return math.Sqrt(v), err
}

// PoissonDeviance is the mean of 2 (y ln(y / p) - y + p), where y ln(y / p) is 0 for
// a label of 0 (McCullagh and Nelder 1989, "Generalized linear models"), as
// mean_poisson_deviance of scikit-learn.
type PoissonDeviance struct{}

// Name is "poisson_deviance".
func (PoissonDeviance) Name() string { return "poisson_deviance" }

// Version of the implementation.
func (PoissonDeviance) Version() int { return 1 }

// Tasks is count.
func (PoissonDeviance) Tasks() []string { return []string{kind.Count} }

// Better is down.
func (PoissonDeviance) Better() kind.Direction { return kind.Down }

// Range is from 0 to infinity.
func (PoissonDeviance) Range() (lo, hi float64) { return 0, math.Inf(1) }

// Compute fails where a label or a prediction is below 0, or a prediction is 0 for a
// label that is not: no Poisson distribution with that mean has it. (scikit-learn
// fails for any prediction of 0.)
func (PoissonDeviance) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	if err := notNegative(y, p); err != nil {
		return 0, err
	}
	for i, t := range y {
		if p[i] == 0 && t > 0 {
			return 0, errors.New("a prediction is 0 where the label is not, so it is not defined")
		}
	}
	return mean(len(y), func(i int) float64 {
		t, q := y[i], float64(p[i])
		if t == 0 {
			return 2 * q
		}
		return 2 * (t*math.Log(t/q) - t + q)
	})
}
