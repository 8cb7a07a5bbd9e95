// Package onehot turns categories into indicator columns.
package onehot

import (
	_ "embed"
	"encoding/json"
	"math"
	"sort"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed onehot.cue
var source string

// Encoder is the kind "one_hot".
type Encoder struct{}

// Name is "one_hot".
func (Encoder) Name() string { return "one_hot" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #OneHot.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "one_hot", Def: "#OneHot", Source: source}
}

type args struct {
	Max int `json:"max"`
	// MinCount has no default in the schema, so that specs without it keep their keys.
	MinCount int `json:"min_count"`
}

type params struct {
	Texts   []string  `json:"texts,omitempty"`
	Numbers []float64 `json:"numbers,omitempty"`
}

// Accepts numbers and texts, and gives a block.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Block, in != kind.Block
}

// Fit lists the most frequent categories, in their own order.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	var p params
	if v.Texts != nil {
		p.Texts = frequent(v.Texts, a, func(s string) bool { return s == types.NullString })
	} else {
		p.Numbers = frequent(v.Numbers, a, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
	}
	return json.Marshal(p)
}

func frequent[T string | float64](xs []T, a args, missing func(T) bool) []T {
	counts := map[T]int{}
	for _, x := range xs {
		if !missing(x) {
			counts[x]++
		}
	}
	out := make([]T, 0, len(counts))
	for x, n := range counts {
		if n >= a.MinCount {
			out = append(out, x)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if m, n := counts[out[i]], counts[out[j]]; m != n {
			return m > n
		}
		return out[i] < out[j]
	})
	out = out[:min(a.Max, len(out))]
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// Lower compares with every category at once; the last column is 1 where none
// of them is met.
func (Encoder) Lower(g *onnx.Graph, in kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	var names []string
	var list onnx.Value
	if in == kind.Texts {
		names = append(names, p.Texts...)
		list = g.Const(p.Texts, 1, int64(len(p.Texts)))
	} else {
		for _, c := range p.Numbers {
			names = append(names, strconv.FormatFloat(c, 'g', -1, 64))
		}
		list = g.Const(p.Numbers, 1, int64(len(p.Numbers)))
	}
	if len(names) == 0 { // nothing was ever seen: everything is "other"
		return g.Cast(g.Op("Or", g.Op("Equal", x, x), g.Op("Not", g.Op("Equal", x, x))), onnx.Float), []string{"other"}, nil
	}
	hot := g.Cast(g.Op("Equal", x, list), onnx.Float)
	axis := g.Const([]int64{1}, 1)
	other := g.Op("Sub", g.Scalar(float32(1)), g.Op("ReduceSum", hot, axis))
	return g.Concat(hot, other), append(names, "other"), nil
}
