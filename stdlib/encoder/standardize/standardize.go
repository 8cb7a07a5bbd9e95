// Package standardize scales numbers to mean 0 and deviation 1.
package standardize

import (
	_ "embed"
	"encoding/json"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed standardize.cue
var source string

// Encoder is the kind "standardize".
type Encoder struct{}

// Name is "standardize".
func (Encoder) Name() string { return "standardize" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Standardize.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "standardize", Def: "#Standardize", Source: source}
}

type params struct {
	Mean float64 `json:"mean"`
	Std  float64 `json:"std"`
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit takes mean and population deviation of the values that are finite, by
// Welford's recurrence. A constant feature gets deviation 1.
func (Encoder) Fit(_ json.RawMessage, v kind.Values) (json.RawMessage, error) {
	var n, mean, m2 float64
	for _, x := range v.Numbers {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		n++
		d := x - mean
		mean += d / n
		m2 += d * (x - mean)
	}
	p := params{Mean: mean, Std: 1}
	if n > 0 {
		if s := math.Sqrt(m2 / n); s > 1e-12*math.Abs(mean) && !math.IsInf(s, 0) {
			p.Std = s
		}
	}
	return json.Marshal(p)
}

// Lower adds (x - mean) / std.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	return g.Op("Div", g.Op("Sub", x, g.Scalar(p.Mean)), g.Scalar(p.Std)), nil, nil
}
