package compare

import "slices"

// exact is the most components of which all orders are tried.
const exact = 4

// orders are those in which n components are switched: all of them, or, of many
// components, one and its reverse.
func orders(n int) [][]int {
	first := make([]int, n)
	for i := range first {
		first[i] = i
	}
	if n > exact {
		last := slices.Clone(first)
		slices.Reverse(last)
		return [][]int{first, last}
	}
	out := [][]int{}
	var permute func(k int)
	permute = func(k int) {
		if k == n {
			out = append(out, slices.Clone(first))
			return
		}
		for i := k; i < n; i++ {
			first[k], first[i] = first[i], first[k]
			permute(k + 1)
			first[k], first[i] = first[i], first[k]
		}
	}
	permute(0)
	return out
}

// mask is a set of components, those that are switched to B.
type mask uint64

// masks are all sets that orders pass, each once, from the empty to the full one.
func masks(n int) []mask {
	full := mask(1)<<n - 1
	out := []mask{0, full}
	add := func(m mask) {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	for _, o := range orders(n) {
		m := mask(0)
		for _, i := range o {
			m |= 1 << i
			add(m)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// weights are, for each component, the factors of the values of sets that sum to its
// effect: what switching it adds to those switched before it, in the mean of the
// orders of which all values are known. Over all orders that is Shapley's value
// (1953), and in any case the effects sum to the value of the full set less that of
// the empty one. used is the number of orders; of 0 there are no effects.
func weights(n int, known func(mask) bool) (w []map[mask]float64, used int) {
	w = make([]map[mask]float64, n)
	for i := range w {
		w[i] = map[mask]float64{}
	}
	var good [][]int
	for _, o := range orders(n) {
		ok := known(0)
		m := mask(0)
		for _, i := range o {
			m |= 1 << i
			ok = ok && known(m)
		}
		if ok {
			good = append(good, o)
		}
	}
	for _, o := range good {
		m := mask(0)
		for _, i := range o {
			w[i][m] -= 1 / float64(len(good))
			m |= 1 << i
			w[i][m] += 1 / float64(len(good))
		}
	}
	return w, len(good)
}

// spread are the least and greatest of what a component adds in the orders of which
// all values are known.
func spread(n, component int, values map[mask]float64) (low, high float64) {
	first := true
	for _, o := range orders(n) {
		m, at := mask(0), mask(0)
		_, ok := values[0]
		for _, i := range o {
			if i == component {
				at = m
			}
			m |= 1 << i
			_, has := values[m]
			ok = ok && has
		}
		if !ok {
			continue
		}
		d := values[at|1<<component] - values[at]
		if first || d < low {
			low = d
		}
		if first || d > high {
			high = d
		}
		first = false
	}
	return low, high
}
