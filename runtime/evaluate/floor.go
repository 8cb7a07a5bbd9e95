package evaluate

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// least is the least standard error of a statistic that lies within a width and that
// each of n units moves by leverage: 2/(m+3) of the width, with m = width/leverage
// the units that it rests on. Z(c) of these are, from a confidence c of 0.9 to 0.999 and
// from 4 units on, to within a sixth Clopper & Pearson's (1934) bound 1-(1-c)^(1/m) of m
// units without a miss, which is the rule of three, 3/m, for 0.95 (Hanley &
// Lippman-Hand 1983). It is at most half of what all n together move, as of one row
// that is the only one of its class.
func least(leverage, n, width float64) float64 {
	return min(2*leverage/(1+3*leverage/width), leverage*n/2)
}

// Floor is the least standard error of a metric that has two ends, whatever resampling
// says: where no row is mistaken, none is in any replicate. Its leverage is by how much
// it changes with one row of the rarest class, or of the commonest, predicted as well or
// as badly as can be: a recall rests on the true rows, be there ever so many others.
// Of labels, it is a row with the rarest, or one without. Without ends nothing can be said
// of what was not seen (Bahadur & Savage 1956), and the floor is 0.
func (b *Bootstrap) Floor(m kind.Metric, p Predictions) float64 {
	lo, hi := m.Range()
	per := float64(b.n) / float64(b.units()) // rows
	switch {
	case math.IsInf(hi-lo, 1) || p.Rows() == 0:
		return 0
	case p.Task.Numeric():
		return least(per*(hi-lo)/float64(b.n), float64(b.units()), hi-lo)
	}
	t, w := p.Task.Targets(), p.Task.Width()
	key := p.rarestLabel()
	count, first := map[int]int{}, map[int]int{}
	for i := range p.Rows() {
		c := int(p.Y[i*t+key])
		if count[c]++; count[c] == 1 {
			first[c] = i
		}
	}
	by := slices.SortedFunc(maps.Keys(count), func(a, b int) int { return cmp.Or(cmp.Compare(count[a], count[b]), cmp.Compare(a, b)) })
	rare, common := by[0], by[len(by)-1]
	was, floor := p.Metric(m), 0.0
	for _, c := range []int{rare, common} {
		wrong := rare + common - c
		if rare == common {
			wrong = (c + 1) % max(w, 2)
		}
		leverage := 0.0
		for _, said := range []int{c, wrong} {
			moved, i := p, first[c]
			moved.P = slices.Clone(p.P)
			for k := range w {
				hit := p.Y[i*t+k%t] == 1
				if p.Task.Kind == kind.Multiclass {
					hit = k == said
				} else if said == wrong {
					hit = !hit
				}
				moved.P[i*w+k] = 0
				if hit {
					moved.P[i*w+k] = 1
				}
			}
			leverage = max(leverage, math.Abs(moved.Metric(m)-was))
		}
		floor = max(floor, least(per*leverage, float64(count[c])/per, hi-lo))
	}
	return floor
}

// rarestLabel is, of the labels that a row has, the one that fewest have; 0 where there
// is one label a row.
func (p Predictions) rarestLabel() int {
	has := make([]float64, p.Task.Targets())
	if len(has) == 1 {
		return 0
	}
	for i, v := range p.Y {
		has[i%len(has)] += v
	}
	rarest := 0
	for l, n := range has {
		if n > 0 && (has[rarest] == 0 || n < has[rarest]) {
			rarest = l
		}
	}
	return rarest
}

// DisparityFloor is the least standard error of a fairness metric's value over some
// groups: of each, one row more or less counts as decided (see Floor).
func (b *Bootstrap) DisparityFloor(metric string, rates []Rate) float64 {
	per := float64(b.n) / float64(b.units())
	was, floor := Disparity(metric, rates), 0.0
	for g, r := range rates {
		n := float64(r.Rows)
		for _, v := range []float64{max(r.Value-1/n, 0), min(r.Value+1/n, 1)} {
			moved := slices.Clone(rates)
			moved[g].Value = v
			if leverage := math.Abs(Disparity(metric, moved) - was); !math.IsNaN(leverage) {
				floor = max(floor, least(per*leverage, n/per, 1))
			}
		}
	}
	return floor
}
