package main

import (
	"math"
	"slices"
)

// draw is scikit-learn's train_test_split with test_size=0.2, random_state=0 and
// stratify=classes, or none where all are equal. Each row is in part test, validation
// (the first tenth of what trains, in the order drawn) or train.
func draw(classes []string) []string {
	rows := map[string][]int{}
	for i, c := range classes {
		rows[c] = append(rows[c], i)
	}
	var names []string
	for c := range rows {
		names = append(names, c)
	}
	slices.Sort(names)
	n := len(classes)
	test := int(math.Ceil(0.2 * float64(n)))
	train := make([]int, len(names))
	left := make([]int, len(names))
	for k, c := range names {
		left[k] = len(rows[c])
	}
	for k, v := range shares(left, n-test) {
		train[k] = v
		left[k] -= v
	}
	tests := shares(left, test)
	out := make([]string, n)
	g := newTwister(0)
	for k, c := range names {
		order := g.permutation(len(rows[c]))
		// A draw without classes takes the test rows first, one with classes last.
		head, tail := order[:train[k]], order[train[k]:]
		if len(names) == 1 {
			head, tail = order[tests[k]:], order[:tests[k]]
		}
		for j, i := range head {
			if out[rows[c][i]] = "train"; j < len(head)/10 {
				out[rows[c][i]] = "validation"
			}
		}
		for _, i := range tail {
			out[rows[c][i]] = "test"
		}
	}
	return out
}

// shares divides draws among classes in proportion to their rows; those with the
// greatest remainders get one more. Equal remainders, for which scikit-learn draws,
// do not occur in our data.
func shares(rows []int, draws int) []int {
	sum := 0
	for _, r := range rows {
		sum += r
	}
	out, rest := make([]int, len(rows)), make([]float64, len(rows))
	order, need := make([]int, len(rows)), draws
	for k, r := range rows {
		whole, part := math.Modf(float64(r) / float64(sum) * float64(draws))
		out[k], rest[k], order[k] = int(whole), part, k
		need -= out[k]
	}
	slices.SortFunc(order, func(a, b int) int {
		if rest[a] > rest[b] {
			return -1
		}
		return 1
	})
	for _, k := range order[:need] {
		out[k]++
	}
	return out
}

// twister is MT19937 (Matsumoto & Nishimura 1998), seeded as numpy.random.RandomState.
type twister struct {
	state [624]uint32
	at    int
}

func newTwister(seed uint32) *twister {
	g := &twister{at: 624}
	g.state[0] = seed
	for i := uint32(1); i < 624; i++ {
		g.state[i] = 1812433253*(g.state[i-1]^g.state[i-1]>>30) + i
	}
	return g
}

func (g *twister) next() uint32 {
	if g.at == 624 {
		for i := range g.state {
			y := g.state[i]&0x80000000 | g.state[(i+1)%624]&0x7fffffff
			g.state[i] = g.state[(i+397)%624] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		g.at = 0
	}
	y := g.state[g.at]
	g.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// permutation is RandomState.permutation(n).
func (g *twister) permutation(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	for i := n - 1; i > 0; i-- {
		mask := uint32(i)
		for s := 1; s < 32; s *= 2 {
			mask |= mask >> s
		}
		j := g.next() & mask
		for j > uint32(i) {
			j = g.next() & mask
		}
		out[i], out[j] = out[j], out[i]
	}
	return out
}
