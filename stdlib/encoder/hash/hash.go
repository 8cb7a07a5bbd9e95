// Package hash turns texts into indicator columns by a hash.
package hash

import (
	_ "embed"
	"encoding/json"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed hash.cue
var source string

// Encoder is the kind "hash".
type Encoder struct{}

// Name is "hash".
func (Encoder) Name() string { return "hash" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is false.
func (Encoder) Learns() bool { return false }

// Schema is #Hash.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "hash", Def: "#Hash", Source: source}
}

type args struct {
	Bits int `json:"bits"`
}

// Accepts texts, and gives a block.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Block, in == kind.Texts
}

// Fit has nothing to learn.
func (Encoder) Fit(json.RawMessage, kind.Values) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// Lower compares the lowest bits of the text's MurmurHash3_x86_32 of seed 0
// (ONNX Runtime's operator; scikit-learn's murmurhash3_32) with every column's
// number, which is its name.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, raw, _ json.RawMessage) (onnx.Value, []string, error) {
	n := int64(1) << kind.DecodeArgs[args](raw).Bits
	buckets, names := make([]int64, n), make([]string, n)
	for i := range buckets {
		buckets[i], names[i] = int64(i), strconv.Itoa(i)
	}
	h := g.Node("com.microsoft", "MurmurHash3", onnx.Attrs{"positive": 1, "seed": 0}, 1, x)[0]
	bucket := g.Op("Mod", g.Cast(h, onnx.Int64), g.Scalar(n))
	missing := g.Op("Equal", x, g.Scalar(types.NullString))
	bucket = g.Op("Where", missing, g.Scalar(int64(-1)), bucket)
	return g.Cast(g.Op("Equal", bucket, g.Const(buckets, 1, n)), onnx.Float), names, nil
}
