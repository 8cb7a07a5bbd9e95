package evaluate

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

const (
	// nothing is the share of its floor below which resampling has, of a metric with two
	// ends, seen next to no error: of a mean of losses as of a count of mistakes.
	nothing = 1e-3
	// alike are the units of which none is seen to differ that make it sure to 95 % that
	// no more than one in a hundred does: 1-0.05^(1/n) is below 0.01.
	alike = 299
)

// MetricErrors are the standard errors of metrics of some predictions, NaN where it is
// not known. Where resampling saw next to nothing, as of no row mistaken, it is the
// floor's, and else what it saw. That steps at the first mistake: n of n right are sure
// to 2Z/(n+3), n-1 of n to 1/n + Z/n, which for a confidence of 0.95 is less than one
// row's share apart.
func (b *Bootstrap) MetricErrors(ctx context.Context, metrics []kind.Metric, p Predictions) ([]float64, error) {
	errs, err := b.Errors(ctx, len(metrics), func(at []int32, out []float64) {
		sample := p.At(at)
		for i, m := range metrics {
			out[i] = sample.Metric(m)
		}
	})
	return b.raise(errs, metrics, p, nothing), err
}

// PairedErrors are the standard errors of the differences between two models' metrics on
// the same rows, NaN where it is not known. Models that predict the same of every row
// differ by nothing, exactly. Of others that differ by the same in every replicate it is
// the floor's; any spread, be it small, is that of models much alike.
func (b *Bootstrap) PairedErrors(ctx context.Context, metrics []kind.Metric, p, q Predictions) ([]float64, error) {
	if slices.Equal(p.P, q.P) && p.Task.Cut() == q.Task.Cut() {
		return make([]float64, len(metrics)), nil
	}
	errs, err := b.Errors(ctx, len(metrics), func(at []int32, out []float64) {
		x, y := p.At(at), q.At(at)
		for i, m := range metrics {
			out[i] = x.Metric(m) - y.Metric(m)
		}
	})
	return b.raise(errs, metrics, p, 0), err
}

// raise puts the floor in place of errors that are no more than a share of it. Without
// a floor an error of 0 is not known of few units, and stands of many: a median of tied
// errors is stable.
func (b *Bootstrap) raise(errs []float64, metrics []kind.Metric, p Predictions, share float64) []float64 {
	for i, m := range metrics[:len(errs)] {
		lo, hi := m.Range()
		if !math.IsInf(hi-lo, 1) {
			if floor := b.Floor(m, p); errs[i] <= share*floor {
				errs[i] = floor
			}
		} else if errs[i] == 0 && b.units() < alike {
			errs[i] = math.NaN()
		}
	}
	return errs
}

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

// Floor is the least standard error of a metric that has two ends where resampling saw
// nothing: where no row is mistaken, none is in any replicate. Its leverage is by how much
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
// groups: of each of which all rows are decided alike, or else resampling saw its error,
// one row more or less counts as decided (see Floor).
func (b *Bootstrap) DisparityFloor(metric string, rates []Rate) float64 {
	per := float64(b.n) / float64(b.units())
	was, floor := Disparity(metric, rates), 0.0
	for g, r := range rates {
		if r.Value > 0 && r.Value < 1 {
			continue
		}
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
