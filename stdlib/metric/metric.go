// Package metric holds the metrics, a type each. A value is always finite:
// where the formula gives no number, Compute fails.
package metric

import (
	"errors"
	"math"
)

var (
	errOneClass   = errors.New("the rows hold one class only, so it is not defined")
	errSameLabels = errors.New("every label is the same, so it is not defined")
	errNotFinite  = errors.New("its value is no finite number")
)

// finite fails where v is NaN or infinite: without rows, or beyond the doubles.
func finite(v float64) (float64, error) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, errNotFinite
	}
	return v, nil
}

// mean is the mean of f over n rows.
func mean(n int, f func(i int) float64) (float64, error) {
	sum := 0.0
	for i := range n {
		sum += f(i)
	}
	return finite(sum / float64(n))
}

// share is the share of n rows for which f holds.
func share(n int, f func(i int) bool) (float64, error) {
	return mean(n, func(i int) float64 {
		if f(i) {
			return 1
		}
		return 0
	})
}
