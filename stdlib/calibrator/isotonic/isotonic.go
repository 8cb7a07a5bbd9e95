// Package isotonic calibrates by isotonic regression (Zadrozny & Elkan 2002,
// "Transforming classifier scores into accurate multiclass probability estimates").
package isotonic

import (
	_ "embed"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed isotonic.cue
var source string

// Calibrator is the kind "isotonic".
type Calibrator struct{}

// Name is "isotonic".
func (Calibrator) Name() string { return "isotonic" }

// Version of the implementation.
func (Calibrator) Version() int { return 2 }

// Schema is #Isotonic.
func (Calibrator) Schema() schema.Kind {
	return schema.Kind{Family: "calibrator", Name: "isotonic", Def: "#Isotonic", Source: source}
}

// steepest is the greatest slope of the curve. The last bits of a probability depend on
// the order in which a model's floats are summed, which differs between the trainer,
// ONNX Runtime and batches of other sizes; they are within a few 1e-7, and a curve that is
// steeper would make a visible difference of them.
const steepest = 20

// Fit finds the never-falling step function of least squared error by pooling
// adjacent violators (Barlow et al. 1972), and draws straight lines between its steps
// as scikit-learn does, none steeper than steepest. What comes out stays half a row away
// from 0 and 1: n rows cannot tell more.
func (Calibrator) Fit(_ json.RawMessage, y []float64, p []float32) (kind.Calibration, error) {
	pos := 0.0
	for _, v := range y {
		pos += v
	}
	n := float64(len(y))
	if pos == 0 || pos == n {
		return kind.Calibration{}, errors.New("the rows hold one class only")
	}
	c := pool(y, p)
	for i := range c.y {
		c.y[i] = math.Min(math.Max(c.y[i], 0.5/n), 1-0.5/n)
	}
	c = c.bounded(steepest)
	// y[0] + Σ slope[i]·min(max(p - x[i], 0), width[i])
	k := len(c.x) - 1
	starts, widths, slopes := make([]float64, k), make([]float64, k), make([]float64, k)
	for i := range k {
		starts[i], widths[i] = c.x[i], c.x[i+1]-c.x[i]
		slopes[i] = (c.y[i+1] - c.y[i]) / widths[i]
	}
	g := onnx.New("isotonic")
	q := g.Cast(g.Input("P", onnx.Float, -1, 1), onnx.Double)
	if k == 0 {
		q = g.Op("Add", g.Op("Mul", q, g.Scalar(0.0)), g.Scalar(c.y[0]))
	} else {
		q = g.Op("Max", g.Op("Sub", q, g.Const(starts, 1, int64(k))), g.Scalar(0.0))
		q = g.Op("Min", q, g.Const(widths, 1, int64(k)))
		q = g.Op("Add", g.Op("MatMul", q, g.Const(slopes, int64(k), 1)), g.Scalar(c.y[0]))
	}
	g.Output("Y", g.Cast(q, onnx.Float), onnx.Float, -1, 1)
	return kind.Calibration{Model: g.Marshal(), Apply: c.at, Report: map[string]any{"kind": "isotonic", "points": k + 1}}, nil
}

// curve is straight lines between points of rising x and never-falling y, and level
// beyond them.
type curve struct{ x, y []float64 }

func (c curve) at(p float32) float32 { return float32(c.value(float64(p))) }

// value is where the lines are at x.
func (c curve) value(x float64) float64 {
	i := sort.SearchFloat64s(c.x, x)
	switch {
	case i == 0:
		return c.y[0]
	case i == len(c.x):
		return c.y[i-1]
	}
	t := (x - c.x[i-1]) / (c.x[i] - c.x[i-1])
	return c.y[i-1] + t*(c.y[i]-c.y[i-1])
}

// bounded is the curve where it is nowhere steeper than most, and near it where it is:
// half way between the greatest such curve below it and the least above it (its Lipschitz
// envelopes, McShane 1934).
func (c curve) bounded(most float64) curve {
	below := c.below(most)
	above := c.mirrored().below(most).mirrored()
	x := slices.Compact(slices.Sorted(slices.Values(slices.Concat(below.x, above.x))))
	out := curve{x: x, y: make([]float64, len(x))}
	for i, at := range x {
		out.y[i] = (below.value(at) + above.value(at)) / 2
	}
	return out
}

// below is the greatest curve of that slope at most that is nowhere above c.
func (c curve) below(most float64) curve {
	out := curve{x: c.x[:1:1], y: c.y[:1:1]}
	at := c.y[0] // where it is at the last point
	for i := 1; i < len(c.x); i++ {
		run := c.x[i] - c.x[i-1]
		slope, gap := (c.y[i]-c.y[i-1])/run, c.y[i-1]-at
		if gap > 0 && slope < most {
			if meets := c.x[i-1] + gap/(most-slope); c.x[i-1] < meets && meets < c.x[i] {
				out.x, out.y = append(out.x, meets), append(out.y, c.value(meets))
			}
		}
		at = math.Min(c.y[i], at+most*run)
		out.x, out.y = append(out.x, c.x[i]), append(out.y, at)
	}
	return out
}

// mirrored is the curve turned about the origin, by which what is below comes above.
func (c curve) mirrored() curve {
	out := curve{x: slices.Clone(c.x), y: slices.Clone(c.y)}
	slices.Reverse(out.x)
	slices.Reverse(out.y)
	for i := range out.x {
		out.x[i], out.y[i] = -out.x[i], -out.y[i]
	}
	return out
}

// pool returns the points at which the never-falling function of least squared error bends.
func pool(y []float64, p []float32) curve {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return p[order[a]] < p[order[b]] })
	type block struct{ low, high, sum, n float64 }
	var blocks []block
	for i := 0; i < len(order); {
		b := block{low: float64(p[order[i]]), high: float64(p[order[i]])}
		for first := i; i < len(order) && p[order[i]] == p[order[first]]; i++ {
			b.sum += y[order[i]]
			b.n++
		}
		for len(blocks) > 0 {
			last := blocks[len(blocks)-1]
			if last.sum/last.n < b.sum/b.n {
				break
			}
			b.low, b.sum, b.n = last.low, b.sum+last.sum, b.n+last.n
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	var c curve
	for _, b := range blocks {
		c.x, c.y = append(c.x, b.low), append(c.y, b.sum/b.n)
		if b.high > b.low {
			c.x, c.y = append(c.x, b.high), append(c.y, b.sum/b.n)
		}
	}
	return c
}
