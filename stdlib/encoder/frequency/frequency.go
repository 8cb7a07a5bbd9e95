// Package frequency replaces texts by how often they occur.
package frequency

import (
	_ "embed"
	"encoding/json"
	"math"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed frequency.cue
var source string

// Encoder is the kind "frequency".
type Encoder struct{}

// Name is "frequency".
func (Encoder) Name() string { return "frequency" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Frequency.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "frequency", Def: "#Frequency", Source: source}
}

type args struct {
	Max int `json:"max"`
}

type params struct {
	Texts  []string  `json:"texts"`
	Shares []float32 `json:"shares"`
}

// Accepts texts, and gives numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Numbers, in == kind.Texts
}

// Fit counts the texts, equals ordered by name. Shares are of all rows, those
// with missing values too, so that imputing them changes no other text's share.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	counts := map[string]int{}
	for _, s := range v.Texts {
		if s != types.NullString {
			counts[s]++
		}
	}
	texts := make([]string, 0, len(counts))
	for s := range counts {
		texts = append(texts, s)
	}
	sort.Slice(texts, func(i, j int) bool {
		if x, y := counts[texts[i]], counts[texts[j]]; x != y {
			return x > y
		}
		return texts[i] < texts[j]
	})
	p := params{Texts: texts[:min(kind.DecodeArgs[args](raw).Max, len(texts))]}
	p.Shares = make([]float32, len(p.Texts))
	for i, s := range p.Texts {
		p.Shares[i] = float32(float64(counts[s]) / float64(len(v.Texts)))
	}
	return json.Marshal(p)
}

// Lower is a LabelEncoder from string to float.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	keys, shares := append(p.Texts, types.NullString), append(p.Shares, float32(math.NaN()))
	y := g.ML("LabelEncoder", onnx.Attrs{"keys_strings": keys, "values_floats": shares, "default_float": float32(0)}, x)
	return g.Cast(y, onnx.Double), nil, nil
}
