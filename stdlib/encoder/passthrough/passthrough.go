// Package passthrough takes numbers as they are.
package passthrough

import (
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed passthrough.cue
var source string

// Encoder is the kind "passthrough".
type Encoder struct{}

// Name is "passthrough".
func (Encoder) Name() string { return "passthrough" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is false.
func (Encoder) Learns() bool { return false }

// Schema is #Passthrough.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "passthrough", Def: "#Passthrough", Source: source}
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit has nothing to learn.
func (Encoder) Fit(json.RawMessage, kind.Values) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// Lower adds nothing.
func (Encoder) Lower(_ *onnx.Graph, _ kind.Flow, x onnx.Value, _, _ json.RawMessage) (onnx.Value, []string, error) {
	return x, nil, nil
}
