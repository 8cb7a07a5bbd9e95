// Package quantile takes quantiles of training rows, for the encoders that scale
// or cut by them.
package quantile

import (
	"math"
	"sort"
)

// Finite returns the finite values of xs in ascending order, as a copy.
func Finite(xs []float64) []float64 {
	out := make([]float64, 0, len(xs))
	for _, x := range xs {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			out = append(out, x)
		}
	}
	sort.Float64s(out)
	return out
}

// Of returns the quantile q, between 0 and 1, of sorted finite values: linear
// between the two nearest ranks (R's type 7, numpy's default). It lies between
// the least and the greatest, also where their difference overflows, and does
// not fall as q grows. At least one value has to be there.
func Of(sorted []float64, q float64) float64 {
	last := len(sorted) - 1
	at := q * float64(last)
	i := min(int(at), last)
	a, b := sorted[i], sorted[min(i+1, last)]
	t, half := at-float64(i), b/2-a/2
	if t < 0.5 {
		return min(a+half*(2*t), b)
	}
	return max(b-half*(2*(1-t)), a) // exact at t = 1
}
