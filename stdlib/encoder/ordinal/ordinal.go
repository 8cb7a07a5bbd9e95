// Package ordinal numbers categories by a vocabulary.
package ordinal

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

//go:embed ordinal.cue
var source string

// Encoder is the kind "ordinal".
type Encoder struct{}

// Name is "ordinal".
func (Encoder) Name() string { return "ordinal" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Ordinal.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "ordinal", Def: "#Ordinal", Source: source}
}

type args struct {
	MinCount int      `json:"min_count"`
	Max      int      `json:"max"`
	Order    []string `json:"order"`
}

type params struct {
	Vocabulary []string `json:"vocabulary"`
}

// Accepts texts, and gives numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Numbers, in == kind.Texts
}

// Fit orders the vocabulary by frequency, equals by name.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	if a.Order != nil {
		return json.Marshal(params{a.Order})
	}
	counts := map[string]int{}
	for _, s := range v.Texts {
		if s != types.NullString {
			counts[s]++
		}
	}
	words := []string{}
	for s, n := range counts {
		if n >= a.MinCount {
			words = append(words, s)
		}
	}
	sort.Slice(words, func(i, j int) bool {
		if x, y := counts[words[i]], counts[words[j]]; x != y {
			return x > y
		}
		return words[i] < words[j]
	})
	return json.Marshal(params{words[:min(a.Max, len(words))]})
}

// Lower is a LabelEncoder from string to float.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	keys, ids := append([]string(nil), p.Vocabulary...), make([]float32, len(p.Vocabulary), len(p.Vocabulary)+1)
	for i := range ids {
		ids[i] = float32(i)
	}
	keys, ids = append(keys, types.NullString), append(ids, float32(math.NaN()))
	y := g.ML("LabelEncoder", onnx.Attrs{"keys_strings": keys, "values_floats": ids, "default_float": float32(len(p.Vocabulary))}, x)
	return g.Cast(y, onnx.Double), nil, nil
}
