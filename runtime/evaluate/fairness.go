package evaluate

import (
	"math"
	"slices"
	"strings"
)

// Rate is the rate of a fairness metric in each group, with the rows that it is of.
type Rate struct {
	Group string  `json:"group"`
	Rows  int     `json:"rows"`
	Value float64 `json:"value"`
}

// Rates are a fairness metric's in each group of at least least rows that count, in
// the order of their names; small are the others.
func Rates(metric string, p Predictions, group []string, rows []int32, least int) (rates, small []Rate) {
	type sum struct{ n, hit float64 }
	name, _, _ := strings.Cut(metric, "_d")
	name, _, _ = strings.Cut(name, "_ratio")
	sums := map[string]sum{}
	cut := float32(p.Task.Cut())
	for _, r := range rows {
		y := p.Y[r]
		if name == "tpr" && y == 0 || name == "fpr" && y != 0 {
			continue
		}
		s := sums[group[r]]
		s.n++
		if p.P[r] >= cut {
			s.hit++
		}
		sums[group[r]] = s
	}
	for g, s := range sums {
		r := Rate{g, int(s.n), s.hit / s.n}
		if r.Rows < least {
			small = append(small, r)
		} else {
			rates = append(rates, r)
		}
	}
	for _, l := range [][]Rate{rates, small} {
		slices.SortFunc(l, func(a, b Rate) int { return strings.Compare(a.Group, b.Group) })
	}
	return rates, small
}

// Disparity is a fairness metric's value over the groups' rates; NaN for fewer than
// two groups, and for a ratio whose greatest rate is 0.
func Disparity(metric string, rates []Rate) float64 {
	if len(rates) < 2 {
		return math.NaN()
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range rates {
		low, high = math.Min(low, r.Value), math.Max(high, r.Value)
	}
	if strings.HasSuffix(metric, "_ratio") {
		return low / high
	}
	return high - low
}
