package gbdt

import (
	"cmp"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// derivatives are those of a row's loss by its score.
type derivatives struct{ g, h float32 }

// weigh is how much a row counts, by its label; 1 without class_weight.
func (b *booster) weigh(y float64) float64 {
	if b.weights == nil {
		return 1
	}
	return b.weights[int(y)]
}

// baseScore is the score before any tree: log odds, log shares, the mean or its
// logarithm, or the quantiles.
func (b *booster) baseScore(y []float64) []float64 {
	k, targets := b.k, b.task.Targets()
	out := make([]float64, k)
	total := 0.0
	sums := make([]float64, k)
	for i := range len(y) / targets {
		label := y[i*targets : (i+1)*targets]
		w := b.weigh(label[0])
		total += w
		switch b.task.Kind {
		case kind.Multiclass:
			sums[int(label[0])] += w
		case kind.Quantile:
		default:
			for c, v := range label { // means that do not lose digits
				sums[c] += (v - sums[c]) * w / total
			}
		}
	}
	n := float64(len(y) / targets)
	for c := range out {
		switch b.task.Kind {
		case kind.Multiclass:
			out[c] = math.Log(math.Max(sums[c], 0.5) / total)
		case kind.Binary, kind.Multilabel:
			p := math.Min(math.Max(sums[c], 0.5/n), 1-0.5/n)
			out[c] = math.Log(p / (1 - p))
		case kind.Count:
			out[c] = math.Log(math.Max(sums[c], 0.5/n))
		case kind.Quantile:
			out[c] = quantile(slices.Clone(y), b.task.Quantiles[c])
		default:
			out[c] = sums[c]
		}
		out[c] = float64(float32(out[c])) // what the exported model holds
	}
	return out
}

// derive fills d, by output and row, and returns the greatest of each output.
func (b *booster) derive(score, y []float64, d [][]derivatives) []derivatives {
	n, targets := len(y)/b.task.Targets(), b.task.Targets()
	tops := make([]derivatives, (n/chunk+1)*b.k)
	b.chunks(n, 32*b.k, func(at, from, to int) {
		p, top := make([]float64, b.k), tops[at*b.k:(at+1)*b.k]
		for i := from; i < to; i++ {
			label, s := y[i*targets:(i+1)*targets], score[i*b.k:(i+1)*b.k]
			w := b.weigh(label[0])
			if b.task.Kind == kind.Multiclass {
				copy(p, s)
				link(b.task, p)
			}
			for c, s := range s {
				var g, h float64
				switch b.task.Kind {
				case kind.Regression:
					g, h = s-label[0], 1
				case kind.Count:
					h = math.Exp(s)
					g = h - label[0]
				case kind.Quantile:
					g, h = 1-b.task.Quantiles[c], 1
					if label[0] >= s {
						g--
					}
				case kind.Multiclass:
					if g = p[c]; int(label[0]) == c {
						g--
					}
					// The diagonal's bound by Friedman: K/(K-1) makes the step right.
					h = max(p[c]*(1-p[c]), 1e-16) * float64(b.k) / float64(b.k-1)
				default:
					q := sigmoid(s)
					g, h = q-label[c], max(q*(1-q), 1e-16)
				}
				v, t := derivatives{float32(w * g), float32(w * h)}, &top[c]
				d[c][i] = v
				if v.g > t.g || -v.g > t.g { // max takes longer than all the rest
					t.g = max(v.g, -v.g)
				}
				if v.h > t.h {
					t.h = v.h
				}
			}
		}
	})
	top := tops[:b.k]
	for i, v := range tops {
		top[i%b.k] = derivatives{max(top[i%b.k].g, v.g), max(top[i%b.k].h, v.h)}
	}
	return top
}

// loss is the mean over rows of the negative log-likelihood (of a multilabel, the mean
// over labels), the squared error, the pinball loss (the mean over quantiles), or the
// Poisson deviance. Class weights do not count here, as in LightGBM: with them the one
// validation row of a rare class decides when to stop. On the white wines, with
// balanced weights, 60 rounds and 5 seeds, the balanced accuracy is then 0.382 and the
// log loss 1.47 in the mean, against 0.398 and 0.95 without.
func (b *booster) loss(score, y []float64) float64 {
	targets := b.task.Targets()
	n := len(y) / targets
	parts := make([]float64, n/chunk+1)
	b.chunks(n, 32*b.k, func(at, from, to int) {
		p := make([]float64, b.k)
		for i := from; i < to; i++ {
			copy(p, score[i*b.k:(i+1)*b.k])
			link(b.task, p)
			parts[at] += rowLoss(b.task, p, y[i*targets:(i+1)*targets])
		}
	})
	sum := 0.0
	for _, p := range parts {
		sum += p
	}
	return sum / float64(n)
}

func rowLoss(task kind.Task, p, label []float64) float64 {
	sum, y := 0.0, label[0]
	switch task.Kind {
	case kind.Regression:
		return (p[0] - y) * (p[0] - y)
	case kind.Count:
		if y > 0 {
			sum = y * math.Log(y/p[0])
		}
		return 2 * (sum - y + p[0])
	case kind.Quantile:
		for c, q := range task.Quantiles {
			sum += math.Max(q*(y-p[c]), (q-1)*(y-p[c]))
		}
	case kind.Multiclass:
		return -math.Log(math.Max(p[int(y)], 1e-15))
	default:
		for c, q := range p {
			if label[c] == 0 {
				q = 1 - q
			}
			sum -= math.Log(math.Max(q, 1e-15))
		}
	}
	return sum / float64(len(p))
}

func sigmoid(s float64) float64 { return 1 / (1 + math.Exp(-s)) }

// link turns scores into predictions in place.
func link(task kind.Task, score []float64) {
	switch task.Kind {
	case kind.Binary, kind.Multilabel:
		for c, s := range score {
			score[c] = sigmoid(s)
		}
	case kind.Count:
		score[0] = math.Exp(score[0])
	case kind.Quantile:
		for c := 1; c < len(score); c++ {
			score[c] = math.Max(score[c], score[c-1])
		}
	case kind.Multiclass:
		top, sum := score[0], 0.0
		for _, s := range score {
			top = math.Max(top, s)
		}
		for c, s := range score {
			score[c] = math.Exp(s - top)
			sum += score[c]
		}
		for c := range score {
			score[c] /= sum
		}
	}
}

// quantile q of values, between two of them in proportion, as numpy.quantile's. It
// orders values as it needs.
func quantile(values []float64, q float64) float64 {
	at := q * float64(len(values)-1)
	i := int(at)
	selectNth(values, i)
	if i+1 == len(values) {
		return values[i]
	}
	return values[i] + (slices.Min(values[i+1:])-values[i])*(at-float64(i))
}

// selectNth moves the value that sorting would put at n there, none greater before
// it and none smaller behind (Hoare 1961).
func selectNth[T cmp.Ordered](values []T, n int) {
	for len(values) > 1 {
		pivot := values[len(values)/2]
		i, j := 0, len(values)-1
		for i <= j {
			for values[i] < pivot {
				i++
			}
			for values[j] > pivot {
				j--
			}
			if i <= j {
				values[i], values[j] = values[j], values[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			values = values[:j+1]
		case n >= i:
			values, n = values[i:], n-i
		default:
			return
		}
	}
}
