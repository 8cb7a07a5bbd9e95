// Package impute fills missing values.
package impute

import (
	_ "embed"
	"encoding/json"
	"errors"
	"math"
	"sort"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed impute.cue
var source string

// Encoder is the kind "impute".
type Encoder struct{}

// Name is "impute".
func (Encoder) Name() string { return "impute" }

// Version of the implementation.
func (Encoder) Version() int { return 2 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Impute.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "impute", Def: "#Impute", Source: source}
}

type args struct {
	With  string `json:"with"`
	Value any    `json:"value"`
	// Indicator has no default in the schema, so that specs without it keep their keys.
	Indicator bool `json:"indicator"`
}

type params struct {
	Number *float64 `json:"number,omitempty"`
	Text   *string  `json:"text,omitempty"`
}

// Accepts numbers and texts, and gives the same; means are of numbers only, and
// a constant has to be of the feature's own type. With an indicator it accepts
// numbers only, and gives a block.
func (Encoder) Accepts(in kind.Flow, raw json.RawMessage) (kind.Flow, bool) {
	a := kind.DecodeArgs[args](raw)
	switch {
	case a.Indicator:
		_, text := a.Value.(string)
		return kind.Block, in == kind.Numbers && !text && (a.With != "constant" || a.Value != nil)
	case a.With == "constant":
		_, text := a.Value.(string)
		return in, a.Value != nil && (in == kind.Texts) == text && in != kind.Block
	case in == kind.Texts:
		return in, a.With == "most_frequent"
	}
	return in, in == kind.Numbers
}

// Fit finds the value to fill in. But for a constant, it is a fault that every
// training value is missing.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	missing := kind.Faults{{Code: diag.BadArgs, What: "every training value is missing", Mend: `drop the feature, or use with: "constant" and a value`}}
	var p params
	if v.Texts != nil {
		s, ok := mode(v.Texts)
		if a.With == "constant" {
			s, _ = a.Value.(string)
		} else if !ok {
			return nil, missing
		}
		p.Text = &s
		return json.Marshal(p)
	}
	var x float64
	present := make([]float64, 0, len(v.Numbers))
	for _, y := range v.Numbers {
		if !math.IsNaN(y) && !math.IsInf(y, 0) {
			present = append(present, y)
		}
	}
	switch {
	case a.With == "constant":
		n, ok := a.Value.(float64)
		if !ok {
			return nil, errors.New("the constant is no number")
		}
		x = n
	case len(present) == 0:
		return nil, missing
	case a.With == "mean":
		for i, y := range present { // running mean of halves: a sum or a difference could overflow
			x += (y/2 - x/2) / (float64(i+1) / 2)
		}
	case a.With == "median":
		sort.Float64s(present)
		n := len(present)
		x = present[(n-1)/2]/2 + present[n/2]/2
	default:
		sort.Float64s(present)
		best, run := 0, 0
		for i, y := range present {
			if i > 0 && y == present[i-1] {
				run++
			} else {
				run = 1
			}
			if run > best {
				best, x = run, y
			}
		}
	}
	p.Number = &x
	return json.Marshal(p)
}

// mode is the most frequent text, the least of equals; false where all are missing.
func mode(texts []string) (string, bool) {
	counts := map[string]int{}
	for _, s := range texts {
		if s != types.NullString {
			counts[s]++
		}
	}
	best := ""
	for s, n := range counts {
		if n > counts[best] || n == counts[best] && s < best {
			best = s
		}
	}
	return best, len(counts) > 0
}

// Lower adds Where(missing, value, x), and the indicator beside it: the columns
// value and missing.
func (Encoder) Lower(g *onnx.Graph, in kind.Flow, x onnx.Value, rawArgs, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	if in == kind.Texts {
		return g.Op("Where", g.Op("Equal", x, g.Scalar(types.NullString)), g.Scalar(*p.Text), x), nil, nil
	}
	missing := g.Op("IsNaN", x)
	y := g.Op("Where", missing, g.Scalar(*p.Number), x)
	if kind.DecodeArgs[args](rawArgs).Indicator {
		return g.Concat(g.Cast(y, onnx.Float), g.Cast(missing, onnx.Float)), []string{"value", "missing"}, nil
	}
	return y, nil, nil
}
