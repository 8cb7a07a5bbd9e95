// Package clip moves outliers to bounds.
package clip

import (
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/encoder/quantile"
)

//go:embed clip.cue
var source string

// Encoder is the kind "clip".
type Encoder struct{}

// Name is "clip".
func (Encoder) Name() string { return "clip" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Clip.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "clip", Def: "#Clip", Source: source}
}

type args struct {
	Lower float64  `json:"lower"`
	Upper float64  `json:"upper"`
	Min   *float64 `json:"min"`
	Max   *float64 `json:"max"`
}

type params struct {
	Min *float64 `json:"min,omitempty"` // no bound without it
	Max *float64 `json:"max,omitempty"`
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit takes the bounds that are not fixed from the values that are finite, with
// quantiles as in package quantile; without any there are none. A learned bound
// gives way where it would lie on the wrong side of a fixed one.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	p := params{a.Min, a.Max}
	if xs := quantile.Finite(v.Numbers); len(xs) > 0 {
		lo, hi := quantile.Of(xs, a.Lower), quantile.Of(xs, a.Upper)
		switch {
		case a.Min == nil && a.Max == nil:
			p = params{&lo, &hi}
		case a.Min == nil:
			lo = min(lo, *a.Max)
			p.Min = &lo
		case a.Max == nil:
			hi = max(hi, *a.Min)
			p.Max = &hi
		}
	}
	return json.Marshal(p)
}

// Lower compares with the bounds, which leaves NaN alone.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	if p.Min != nil {
		lo := g.Scalar(*p.Min)
		x = g.Op("Where", g.Op("Less", x, lo), lo, x)
	}
	if p.Max != nil {
		hi := g.Scalar(*p.Max)
		x = g.Op("Where", g.Op("Greater", x, hi), hi, x)
	}
	return x, nil, nil
}
