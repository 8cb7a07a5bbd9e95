// Package platt calibrates by a sigmoid (Platt 1999, "Probabilistic outputs for
// support vector machines").
package platt

import (
	_ "embed"
	"encoding/json"
	"errors"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed platt.cue
var source string

// Calibrator is the kind "platt".
type Calibrator struct{}

// Name is "platt".
func (Calibrator) Name() string { return "platt" }

// Version of the implementation.
func (Calibrator) Version() int { return 1 }

// Schema is #Platt.
func (Calibrator) Schema() schema.Kind {
	return schema.Kind{Family: "calibrator", Name: "platt", Def: "#Platt", Source: source}
}

// edge keeps log odds finite: probabilities count as no nearer to 0 or 1.
const edge = 1e-7

// Fit finds a and b so that 1 / (1 + exp(-(a·logit(p) + b))) has the greatest
// likelihood, with Platt's targets in place of 0 and 1, by Newton's method with a line
// search (Lin, Lin & Weng 2007, "A note on Platt's probabilistic outputs").
func (Calibrator) Fit(_ json.RawMessage, y []float64, p []float32) (kind.Calibration, error) {
	var pos, neg float64
	for _, v := range y {
		pos += v
		neg += 1 - v
	}
	if pos == 0 || neg == 0 {
		return kind.Calibration{}, errors.New("the rows hold one class only")
	}
	x, t := make([]float64, len(p)), make([]float64, len(p))
	for i, v := range p {
		x[i] = logit(v)
		if t[i] = 1 / (neg + 2); y[i] != 0 {
			t[i] = (pos + 1) / (pos + 2)
		}
	}
	loss := func(a, b float64) float64 {
		sum := 0.0
		for i := range x {
			f := a*x[i] + b
			sum += math.Max(f, 0) - t[i]*f + math.Log1p(math.Exp(-math.Abs(f)))
		}
		return sum
	}
	a, b := 1.0, 0.0
	now := loss(a, b)
	const steps, ridge, small = 100, 1e-12, 1e-5
	for range steps {
		haa, hab, hbb, ga, gb := ridge, 0.0, ridge, 0.0, 0.0
		for i := range x {
			q := 1 / (1 + math.Exp(-(a*x[i] + b)))
			w, d := q*(1-q), q-t[i]
			haa, hab, hbb = haa+w*x[i]*x[i], hab+w*x[i], hbb+w
			ga, gb = ga+d*x[i], gb+d
		}
		if math.Abs(ga) < small && math.Abs(gb) < small {
			break
		}
		det := haa*hbb - hab*hab
		da, db := -(hbb*ga-hab*gb)/det, -(haa*gb-hab*ga)/det
		step, slope := 1.0, ga*da+gb*db
		for ; step > 1e-10; step /= 2 {
			if next := loss(a+step*da, b+step*db); next < now+1e-4*step*slope {
				a, b, now = a+step*da, b+step*db, next
				break
			}
		}
		if step <= 1e-10 {
			break
		}
	}
	g := onnx.New("platt")
	q := g.Cast(g.Input("P", onnx.Float, -1, 1), onnx.Double)
	q = g.Op("Clip", q, g.Scalar(edge), g.Scalar(1-edge))
	q = g.Op("Log", g.Op("Div", q, g.Op("Sub", g.Scalar(1.0), q)))
	q = g.Op("Add", g.Op("Mul", q, g.Scalar(a)), g.Scalar(b))
	g.Output("Y", g.Cast(g.Op("Sigmoid", q), onnx.Float), onnx.Float, -1, 1)
	return kind.Calibration{
		Model:  g.Marshal(),
		Apply:  func(p float32) float32 { return float32(1 / (1 + math.Exp(-(a*logit(p) + b)))) },
		Report: map[string]any{"kind": "platt", "slope": a, "intercept": b},
	}, nil
}

func logit(p float32) float64 {
	q := math.Min(math.Max(float64(p), edge), 1-edge)
	return math.Log(q / (1 - q))
}
