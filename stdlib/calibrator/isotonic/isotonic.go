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
// the order in which a model's floats are summed, which differs between the trainer and
// ONNX Runtime; they are within a few 1e-7, and a curve that is steeper would make a
// visible difference of them (packaging refuses 1e-5). Data do not ask for more: steps
// so near to each other are not told apart by the model.
const steepest = 10

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
	c := join(pool(y, p), 0.5/n)
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

func (c curve) at(p float32) float32 {
	v := float64(p)
	i := sort.SearchFloat64s(c.x, v)
	switch {
	case i == 0:
		return float32(c.y[0])
	case i == len(c.x):
		return float32(c.y[i-1])
	}
	t := (v - c.x[i-1]) / (c.x[i] - c.x[i-1])
	return float32(c.y[i-1] + t*(c.y[i]-c.y[i-1]))
}

// block is a span of probabilities that are corrected to one value, the mean of its n
// rows' labels.
type block struct{ low, high, sum, n float64 }

// mean stays an edge away from 0 and 1.
func (b block) mean(edge float64) float64 {
	return math.Min(math.Max(b.sum/b.n, edge), 1-edge)
}

// with is the block of both blocks' rows.
func (b block) with(next block) block {
	return block{b.low, next.high, b.sum + next.sum, b.n + next.n}
}

// pool returns the blocks of the never-falling function of least squared error.
func pool(y []float64, p []float32) []block {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return p[order[a]] < p[order[b]] })
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
			b = last.with(b)
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// join draws a line between each two blocks. Where the gap between them is too narrow
// for their step, the line takes the rest of its width from both, the less the more rows
// one has; a block that has not so much to give is pooled with the neighbour that asks
// for more.
func join(blocks []block, edge float64) curve {
	// over is what the line after block i takes from it and from the next.
	over := func(i int) (left, right float64) {
		a, b := blocks[i], blocks[i+1]
		rest := math.Max((b.mean(edge)-a.mean(edge))/steepest-(b.low-a.high), 0)
		return rest * b.n / (a.n + b.n), rest * a.n / (a.n + b.n)
	}
	// The curve is level beyond the first block and the last, so these can give anything.
	for i := 1; i < len(blocks)-1; {
		_, before := over(i - 1)
		after, _ := over(i)
		if before+after <= blocks[i].high-blocks[i].low {
			i++
			continue
		}
		if before > after {
			i--
		}
		blocks = slices.Replace(blocks, i, i+2, blocks[i].with(blocks[i+1]))
		i = max(i-1, 1) // the step from the block before has grown
	}
	var c curve
	last := len(blocks) - 1
	for i, b := range blocks {
		x := []float64{b.low, b.high}
		if i > 0 {
			_, before := over(i - 1)
			x[0] += before
		}
		if i < last {
			after, _ := over(i)
			x[1] -= after
		}
		switch { // what is level beyond an end needs no point there
		case i == 0:
			x = x[1:]
		case i == last || x[0] >= x[1]:
			x = x[:1]
		}
		for _, at := range x {
			c.x, c.y = append(c.x, at), append(c.y, b.mean(edge))
		}
	}
	return c
}
