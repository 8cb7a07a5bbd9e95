package evaluate

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"mlc.dev/mlc/compiler/kind"
)

const (
	maxConfusion = 30  // classes of a confusion matrix that people can read
	maxCurves    = 10  // classes with curves of their own
	curvePoints  = 200 // of a curve
	bins         = 10  // of a reliability diagram
	histogram    = 40  // bins of residuals
	sample       = 500 // points of a scatter plot
)

// Curve fills in the report's confusion matrix, curves and residuals.
func (p Predictions) Curve(r *Report) {
	r.Format, r.Rows = ReportFormat, p.Rows()
	w := p.Task.Width()
	score := func(c int) []float32 {
		out := make([]float32, p.Rows())
		for i := range out {
			out[i] = p.P[i*w+c]
		}
		return out
	}
	switch p.Task.Kind {
	case kind.Binary, kind.Anomaly:
		r.Classes, r.Threshold = []string{"false", "true"}, p.Task.Cut()
		r.Confusion = matrix(2)
		for i, y := range p.Y {
			decided := 0
			if p.P[i] >= float32(p.Task.Cut()) {
				decided = 1
			}
			r.Confusion[int(y)][decided]++
		}
		r.Curves = append(r.Curves, curves("", p.Y, p.P))
	case kind.Multiclass:
		if r.Classes = p.Task.Classes; w <= maxConfusion {
			r.Confusion = matrix(w)
			for i, y := range p.Y {
				row, best := p.P[i*w:(i+1)*w], 0
				for c, v := range row {
					if v > row[best] {
						best = c
					}
				}
				r.Confusion[int(y)][best]++
			}
		}
		for c := range min(w, maxCurves) {
			y := make([]float64, len(p.Y))
			for i, v := range p.Y {
				if int(v) == c {
					y[i] = 1
				}
			}
			r.Curves = append(r.Curves, curves(p.Task.Classes[c], y, score(c)))
		}
	case kind.Multilabel:
		r.Classes = p.Task.Classes
		for c := range min(w, maxCurves) {
			y := make([]float64, p.Rows())
			for i := range y {
				y[i] = p.Y[i*w+c]
			}
			r.Curves = append(r.Curves, curves(p.Task.Classes[c], y, score(c)))
		}
	default:
		r.Residuals = residuals(p.Y, score(w/2))
		for k, tau := range p.Task.Quantiles {
			below := 0.0
			for i, y := range p.Y {
				if float32(y) <= p.P[i*w+k] {
					below++
				}
			}
			r.Residuals.Coverage = append(r.Residuals.Coverage, Point{tau, below / float64(len(p.Y))})
		}
	}
}

func matrix(n int) [][]int {
	out := make([][]int, n)
	for i := range out {
		out[i] = make([]int, n)
	}
	return out
}

// curves of a score s against y. Without both true and false rows there are none.
func curves(class string, y []float64, s []float32) Curves {
	out := Curves{Class: class, ROC: []Point{}, PR: []Point{}, Gain: []Point{}, Reliability: reliability(y, s)}
	order := make([]int, len(s))
	pos := 0.0
	for i := range order {
		order[i] = i
		pos += y[i]
	}
	neg := float64(len(y)) - pos
	if pos == 0 || neg == 0 {
		return out
	}
	sort.SliceStable(order, func(a, b int) bool { return s[order[a]] > s[order[b]] })
	out.ROC, out.Gain = append(out.ROC, Point{0, 0}), append(out.Gain, Point{0, 0})
	var tp, fp float64
	for i := 0; i < len(order); {
		at := s[order[i]]
		for ; i < len(order) && s[order[i]] == at; i++ {
			tp += y[order[i]]
			fp += 1 - y[order[i]]
		}
		out.ROC = append(out.ROC, Point{fp / neg, tp / pos})
		out.PR = append(out.PR, Point{tp / pos, tp / (tp + fp)})
		out.Gain = append(out.Gain, Point{(tp + fp) / float64(len(y)), tp / pos})
	}
	out.ROC, out.PR, out.Gain = thin(out.ROC), thin(out.PR), thin(out.Gain)
	return out
}

// thin keeps at most curvePoints of a curve, the first and last among them, spread
// evenly along X.
func thin(c []Point) []Point {
	if len(c) <= curvePoints {
		return c
	}
	out := c[:1:1]
	last := c[len(c)-1]
	step := (last.X - c[0].X) / (curvePoints - 2)
	for _, p := range c[1 : len(c)-1] {
		if p.X >= out[len(out)-1].X+step {
			out = append(out, p)
		}
	}
	return append(out, last)
}

// reliability bins scores evenly from 0 to 1; empty bins are left out.
func reliability(y []float64, s []float32) []Bin {
	all := make([]Bin, bins)
	for i, v := range s {
		b := &all[min(max(int(v*bins), 0), bins-1)]
		b.Rows++
		b.Mean += float64(v)
		b.Rate += y[i]
	}
	out := []Bin{}
	for i, b := range all {
		if b.Rows > 0 {
			n := float64(b.Rows)
			out = append(out, Bin{float64(i) / bins, float64(i+1) / bins, b.Rows, b.Mean / n, b.Rate / n})
		}
	}
	return out
}

func residuals(y []float64, p []float32) *Residuals {
	out := &Residuals{Sample: []Point{}, Histogram: []Bin{}}
	d := make([]float64, len(y))
	stride := max((len(y)+sample-1)/sample, 1)
	for i := range y {
		d[i] = y[i] - float64(p[i])
		if i%stride == 0 {
			out.Sample = append(out.Sample, Point{float64(p[i]), y[i]})
		}
	}
	if len(d) == 0 {
		return out
	}
	sorted := slices.Sorted(slices.Values(d))
	// The tails are put into the outermost bins, so that one outlier does not hide the
	// rest.
	low, high := sorted[len(d)/200], sorted[len(d)-1-len(d)/200]
	if pad := math.Max(0.5, 1e-6*math.Abs(low)); low == high {
		low, high = low-pad, high+pad
	}
	width := (high - low) / histogram
	for i := range histogram {
		out.Histogram = append(out.Histogram, Bin{From: low + float64(i)*width, To: low + float64(i+1)*width})
	}
	for _, v := range d {
		k := math.Floor((v - low) / width)
		out.Histogram[int(math.Min(math.Max(k, 0), histogram-1))].Rows++
	}
	return out
}

// OutputNames are what a task's predictions are called, "" for the only one.
func OutputNames(t kind.Task) []string {
	switch t.Kind {
	case kind.Multiclass, kind.Multilabel:
		return t.Classes
	case kind.Quantile:
		out := make([]string, len(t.Quantiles))
		for i, q := range t.Quantiles {
			out[i] = fmt.Sprintf("quantile %v", q)
		}
		return out
	}
	return []string{""}
}
