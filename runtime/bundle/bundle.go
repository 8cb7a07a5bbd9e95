// Package bundle reads a packaged model version: a folder with model.onnx, its
// signature and all that must be known to use it.
package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
)

// The files of a bundle that predicting takes.
const (
	ModelFile     = "model.onnx"
	SignatureFile = "signature.json"
)

// SignatureFormat is the version of signature.json.
const SignatureFormat = "mlc.signature.v1"

// Signature tells what a bundle's model.onnx takes and gives.
type Signature struct {
	Format  string    `json:"format"`
	Model   string    `json:"model"`
	Task    kind.Task `json:"task"`
	Inputs  []Tensor  `json:"inputs"`
	Outputs []Tensor  `json:"outputs"`
	// Raw are the features that a row has to bring; those that are no tensor enter
	// Computed only.
	Raw []lower.Field `json:"raw"`
	// Computed are SQL expressions over Raw, for features that no graph computes.
	Computed []lower.Projection `json:"computed,omitempty"`
	// NullValues are the texts that stand for a missing value in the label's source.
	NullValues []string `json:"null_values,omitempty"`
	// Delimiter is that source's, when it is not the usual one.
	Delimiter string `json:"delimiter,omitempty"`
	// Encoding is that of its text, when the spec names one.
	Encoding string `json:"encoding,omitempty"`
	// NullString stands for a missing string, NaN for a missing number.
	NullString string `json:"null_string"`
}

// Tensor is an input or output of model.onnx, of shape [N, Width].
type Tensor struct {
	Name  string     `json:"name"`
	DType string     `json:"dtype"` // double, string, float
	Width int        `json:"width"`
	Type  types.Type `json:"type,omitempty"` // of an input, as declared
}

// MainOutput is the name of the output of model.onnx that holds a task's predictions.
func MainOutput(task string) string {
	switch task {
	case kind.Binary:
		return "probability"
	case kind.Multiclass, kind.Multilabel:
		return "probabilities"
	case kind.Quantile:
		return "quantiles"
	case kind.Anomaly:
		return "score"
	}
	return "prediction"
}

// Columns are the names of an output's columns in a table: its own, or one for each
// class, label or quantile.
func (s Signature) Columns(o Tensor) []string {
	if o.Name != MainOutput(s.Task.Kind) {
		return []string{o.Name}
	}
	var out []string
	switch s.Task.Kind {
	case kind.Multiclass, kind.Multilabel:
		for _, c := range s.Task.Classes {
			out = append(out, "probability."+c)
		}
	case kind.Quantile:
		for _, q := range s.Task.Quantiles {
			out = append(out, "quantile."+strconv.FormatFloat(q, 'f', -1, 64))
		}
	default:
		out = []string{o.Name}
	}
	return out
}

// Decisions are the names of the columns that tell what is decided by an output's
// columns, one by one, as a service tells it: none for most.
func (s Signature) Decisions(o Tensor) []string {
	if o.Name != MainOutput(s.Task.Kind) {
		return nil
	}
	switch s.Task.Kind {
	case kind.Binary, kind.Anomaly:
		return []string{"decision"}
	case kind.Multilabel:
		out := make([]string, len(s.Task.Classes))
		for i, c := range s.Task.Classes {
			out[i] = "label." + c
		}
		return out
	}
	return nil
}

// Bundle is what predicting takes of a bundle.
type Bundle struct {
	Model     []byte // model.onnx
	Signature Signature
}

// Open reads the bundle whose files path finds.
func Open(path func(name string) (string, error)) (*Bundle, error) {
	read := func(name string) ([]byte, error) {
		p, err := path(name)
		if err != nil {
			return nil, err
		}
		return os.ReadFile(p)
	}
	var b Bundle
	var err error
	if b.Model, err = read(ModelFile); err != nil {
		return nil, err
	}
	sig, err := read(SignatureFile)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(sig, &b.Signature); err != nil {
		return nil, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	if b.Signature.Format != SignatureFormat {
		return nil, fmt.Errorf("%s has format %q, not %q", SignatureFile, b.Signature.Format, SignatureFormat)
	}
	return &b, nil
}

// Dir finds the files of a bundle in a folder.
func Dir(dir string) func(string) (string, error) {
	return func(name string) (string, error) { return filepath.Join(dir, name), nil }
}
