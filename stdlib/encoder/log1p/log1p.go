// Package log1p takes logarithms of numbers.
package log1p

import (
	_ "embed"
	"encoding/json"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed log1p.cue
var source string

// Encoder is the kind "log1p".
type Encoder struct{}

// Name is "log1p".
func (Encoder) Name() string { return "log1p" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is false.
func (Encoder) Learns() bool { return false }

// Schema is #Log1p.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "log1p", Def: "#Log1p", Source: source}
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit has nothing to learn.
func (Encoder) Fit(json.RawMessage, kind.Values) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// Lower adds ln(1 + x), NaN outside its domain.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, _ json.RawMessage) (onnx.Value, []string, error) {
	y := g.Op("Add", x, g.Scalar(1.0))
	ok := g.Op("Greater", y, g.Scalar(0.0))
	return g.Op("Where", ok, g.Op("Log", g.Op("Where", ok, y, g.Scalar(1.0))), g.Scalar(math.NaN())), nil, nil
}
