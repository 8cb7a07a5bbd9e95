package metric

import (
	"errors"
	"math"

	"mlc.dev/mlc/compiler/kind"
)

// RMSE is the root of the mean squared error, in the label's unit.
type RMSE struct{}

// Name is "rmse".
func (RMSE) Name() string { return "rmse" }

// Version of the implementation.
func (RMSE) Version() int { return 1 }

// Tasks is regression.
func (RMSE) Tasks() []string { return []string{kind.Regression} }

// Better is down.
func (RMSE) Better() kind.Direction { return kind.Down }

// Compute never fails on rows.
func (RMSE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	return math.Sqrt(squares(y, func(i int) float64 { return float64(p[i]) }) / float64(len(y))), nil
}

func squares(y []float64, p func(int) float64) float64 {
	sum := 0.0
	for i, t := range y {
		d := t - p(i)
		sum += d * d
	}
	return sum
}

// MAE is the mean absolute error, in the label's unit.
type MAE struct{}

// Name is "mae".
func (MAE) Name() string { return "mae" }

// Version of the implementation.
func (MAE) Version() int { return 1 }

// Tasks is regression.
func (MAE) Tasks() []string { return []string{kind.Regression} }

// Better is down.
func (MAE) Better() kind.Direction { return kind.Down }

// Compute never fails on rows.
func (MAE) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	sum := 0.0
	for i, t := range y {
		sum += math.Abs(t - float64(p[i]))
	}
	return sum / float64(len(y)), nil
}

// R2 is the coefficient of determination: 1 - residual / total sum of squares.
type R2 struct{}

// Name is "r2".
func (R2) Name() string { return "r2" }

// Version of the implementation.
func (R2) Version() int { return 1 }

// Tasks is regression.
func (R2) Tasks() []string { return []string{kind.Regression} }

// Better is up.
func (R2) Better() kind.Direction { return kind.Up }

// Compute fails where every label is the same.
func (R2) Compute(_ kind.Task, y []float64, p []float32) (float64, error) {
	mean := 0.0
	for i, t := range y {
		mean += (t - mean) / float64(i+1)
	}
	total := squares(y, func(int) float64 { return mean })
	if total == 0 {
		return 0, errors.New("every label is the same, so it is not defined")
	}
	return 1 - squares(y, func(i int) float64 { return float64(p[i]) })/total, nil
}
