package shares

import "sort"

// Strata numbers the stratum of each row: the label itself where it has few values, else
// its tenth.
func Strata(label []float64) []int {
	distinct := map[float64]int{}
	for _, y := range label {
		distinct[y] = 0
	}
	out := make([]int, len(label))
	if len(distinct) <= 100 {
		values := make([]float64, 0, len(distinct))
		for y := range distinct {
			values = append(values, y)
		}
		sort.Float64s(values)
		for k, y := range values {
			distinct[y] = k
		}
		for i, y := range label {
			out[i] = distinct[y]
		}
		return out
	}
	order := make([]int, len(label))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return label[order[a]] < label[order[b]] })
	for k, i := range order {
		out[i] = k * 10 / len(order)
	}
	return out
}
