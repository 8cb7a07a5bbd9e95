// Package quantilebins cuts numbers into bins of equal share.
package quantilebins

import (
	_ "embed"
	"encoding/json"
	"math"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed quantilebins.cue
var source string

// Encoder is the kind "quantile_bins".
type Encoder struct{}

// Name is "quantile_bins".
func (Encoder) Name() string { return "quantile_bins" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #QuantileBins.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "quantile_bins", Def: "#QuantileBins", Source: source}
}

type args struct {
	Bins int `json:"bins"`
}

type params struct {
	Edges []float64 `json:"edges"` // ascending; bin i holds edges[i-1] <= x < edges[i]
}

// Accepts numbers, and gives bin indices as numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit takes the distinct inner quantiles (the nearest rank) as edges.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	bins := kind.DecodeArgs[args](raw).Bins
	xs := make([]float64, 0, len(v.Numbers))
	for _, x := range v.Numbers {
		if !math.IsNaN(x) {
			xs = append(xs, x)
		}
	}
	sort.Float64s(xs)
	p := params{Edges: []float64{}}
	for i := 1; i < bins && len(xs) > 0; i++ {
		e := xs[i*len(xs)/bins]
		if n := len(p.Edges); !math.IsInf(e, 0) && e > xs[0] && (n == 0 || e > p.Edges[n-1]) {
			p.Edges = append(p.Edges, e)
		}
	}
	return json.Marshal(p)
}

// Lower counts the edges at or below x.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	missing := g.Op("IsNaN", x)
	if len(p.Edges) == 0 {
		return g.Op("Where", missing, x, g.Scalar(0.0)), nil, nil
	}
	at := g.Cast(g.Op("GreaterOrEqual", x, g.Const(p.Edges, 1, int64(len(p.Edges)))), onnx.Double)
	return g.Op("Where", missing, x, g.Op("ReduceSum", at, g.Const([]int64{1}, 1))), nil, nil
}
