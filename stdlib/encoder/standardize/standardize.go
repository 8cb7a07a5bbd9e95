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
func (Encoder) Version() int { return 2 }

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
// Welford's recurrence. A constant feature gets deviation 1. It counts in a unit of a
// power of two, near the greatest magnitude, so that no square overflows or vanishes.
func (Encoder) Fit(_ json.RawMessage, v kind.Values) (json.RawMessage, error) {
	var n, mean, m2, greatest float64
	for _, x := range v.Numbers {
		if x-x == 0 {
			greatest = max(greatest, math.Abs(x))
		}
	}
	_, exponent := math.Frexp(greatest)
	exponent = max(exponent, -1000) // 2^1000 is the greatest scale
	scale := math.Ldexp(1, -exponent)
	for _, x := range v.Numbers {
		if x-x != 0 {
			continue
		}
		n++
		x *= scale
		d := x - mean
		mean += d / n
		m2 += d * (x - mean)
	}
	p := params{Mean: math.Ldexp(mean, exponent), Std: 1}
	if n > 0 {
		if s := math.Sqrt(m2 / n); s > 1e-12*math.Abs(mean) {
			p.Std = max(math.SmallestNonzeroFloat64, min(math.Ldexp(s, exponent), math.MaxFloat64))
		}
	}
	return json.Marshal(p)
}

// Lower adds (x - mean) / std. Where the difference could overflow it divides first,
// which costs a rounding.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	if math.Abs(p.Mean) > 1e290 {
		return g.Op("Sub", g.Op("Div", x, g.Scalar(p.Std)), g.Scalar(p.Mean/p.Std)), nil, nil
	}
	return g.Op("Div", g.Op("Sub", x, g.Scalar(p.Mean)), g.Scalar(p.Std)), nil, nil
}
