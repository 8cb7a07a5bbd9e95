// Package robust scales numbers by median and interquartile range.
package robust

import (
	_ "embed"
	"encoding/json"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/encoder/quantile"
)

//go:embed robust.cue
var source string

// Encoder is the kind "robust".
type Encoder struct{}

// Name is "robust".
func (Encoder) Name() string { return "robust" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Robust.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "robust", Def: "#Robust", Source: source}
}

type params struct {
	Median float64 `json:"median"`
	Range  float64 `json:"range"`
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit takes median and interquartile range of the values that are finite, with
// quantiles as in package quantile (scikit-learn's RobustScaler has the same). A
// range that is 0 or overflows counts as 1, and the median of nothing as 0.
func (Encoder) Fit(_ json.RawMessage, v kind.Values) (json.RawMessage, error) {
	p := params{Range: 1}
	if xs := quantile.Finite(v.Numbers); len(xs) > 0 {
		p.Median = quantile.Of(xs, 0.5)
		if r := quantile.Of(xs, 0.75) - quantile.Of(xs, 0.25); r > 0 && !math.IsInf(r, 0) {
			p.Range = r
		}
	}
	return json.Marshal(p)
}

// Lower adds (x - median) / range.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	return g.Op("Div", g.Op("Sub", x, g.Scalar(p.Median)), g.Scalar(p.Range)), nil, nil
}
