// Package minmax scales numbers to [0, 1].
package minmax

import (
	_ "embed"
	"encoding/json"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed minmax.cue
var source string

// Encoder is the kind "min_max".
type Encoder struct{}

// Name is "min_max".
func (Encoder) Name() string { return "min_max" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #MinMax.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "min_max", Def: "#MinMax", Source: source}
}

type args struct {
	Clip bool `json:"clip"`
}

type params struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit takes the least and the greatest of the values that are finite, both 0
// without any.
func (Encoder) Fit(_ json.RawMessage, v kind.Values) (json.RawMessage, error) {
	var p params
	none := true
	for _, x := range v.Numbers {
		switch {
		case math.IsNaN(x) || math.IsInf(x, 0):
		case none:
			p, none = params{x, x}, false
		default:
			p = params{min(p.Min, x), max(p.Max, x)}
		}
	}
	return json.Marshal(p)
}

// Lower adds (x - min) / (max - min), in halves where the range overflows.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, rawArgs, raw json.RawMessage) (onnx.Value, []string, error) {
	a, p := kind.DecodeArgs[args](rawArgs), kind.DecodeArgs[params](raw)
	if p.Min == p.Max {
		return g.Op("Where", g.Op("IsNaN", x), x, g.Scalar(0.0)), nil, nil
	}
	if a.Clip { // comparisons leave NaN alone
		lo, hi := g.Scalar(p.Min), g.Scalar(p.Max)
		x = g.Op("Where", g.Op("Less", x, lo), lo, x)
		x = g.Op("Where", g.Op("Greater", x, hi), hi, x)
	}
	if math.IsInf(p.Max-p.Min, 0) {
		x, p = g.Op("Mul", x, g.Scalar(0.5)), params{p.Min / 2, p.Max / 2}
	}
	return g.Op("Div", g.Op("Sub", x, g.Scalar(p.Min)), g.Scalar(p.Max-p.Min)), nil, nil
}
