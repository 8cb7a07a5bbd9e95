// Package oip speaks the Open Inference Protocol, version 2, over HTTP and gRPC, as
// Triton's clients and KServe's do: metadata, health, inference with the binary
// tensor extension, and the extensions for a model's configuration, statistics and
// the repository.
//
// # What is no tensor
//
// The protocol has tensors only. Other values of ONNX travel as several:
//
//   - a sequence s of k elements as the tensors "s[0]" to "s[k-1]", the first with
//     the parameter sequence_length, which is k; an empty one as an empty tensor s
//     of any type with sequence_length 0;
//   - a map m as the tensors "m.keys" (INT64 or BYTES) and "m.values", both of the
//     shape [n];
//   - a sequence of maps as "s[0].keys", "s[0].values" and so on, with
//     sequence_length on "s[0].keys";
//   - an optional as what it holds, or not at all.
//
// Sequences of sequences are not supported. Metadata name these inputs and outputs
// by their own names, with the datatypes SEQUENCE, MAP and OPTIONAL, and outputs
// are asked for by these names. An input or output whose own name is "s[0]" comes
// first.
//
// # JSON
//
// Data are nested as the shape or flat. FP16 and BF16 have no form in JSON. NaN,
// Infinity and null are refused in requests: a missing number, which is NaN in mlc's
// own models, is sent in binary. Answers are flat, and do hold NaN, Infinity and
// -Infinity as Triton's do; who needs strict JSON asks for binary_data.
package oip

import (
	"context"
	"fmt"
	"math/rand/v2"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/internal/codec"
)

// Options are what a server may set; the zero value will do.
type Options struct {
	// Name and Version of the server, as its metadata tell. "": mlc and 0.
	Name, Version string
	// MaxBody is the most bytes of a request, as sent and as decompressed; 0: 64 MiB.
	MaxBody int64
	// MaxElements is the most elements of a tensor that comes in; 0: 16 Mi.
	MaxElements int
	// Key is the header, of gRPC the metadata, whose value keeps a caller with one branch
	// of a split; "": none does.
	Key string
}

const (
	defaultMaxBody     = 64 << 20
	defaultMaxElements = 16 << 20
)

func (o Options) filled() Options {
	if o.Name == "" {
		o.Name = "mlc"
	}
	if o.Version == "" {
		o.Version = "0"
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.MaxElements <= 0 {
		o.MaxElements = defaultMaxElements
	}
	return o
}

// extensions are those that metadata tell, by Triton's names.
var extensions = []string{"binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"}

// platform is the protocol's name for ONNX models.
const platform = "onnx_onnxv1"

type server struct {
	models api.Models
	o      Options
}

// shape is what the codec holds a request for m against.
func (s *server) shape(m api.Model) *codec.Model {
	return &codec.Model{Inputs: m.Inputs(), Outputs: m.Outputs(), Batches: m.Limits().MaxRows > 0, MaxElements: s.o.MaxElements}
}

// infer answers a request that has been read. The name of the request is the
// caller's, else what came with the transport, else a new one.
func (s *server) infer(ctx context.Context, m api.Model, shape *codec.Model, r *codec.Request, protocol, key, id string) (codec.Head, []codec.Out, error) {
	if r.Timeout > 0 {
		limit := api.Within(ctx, r.Timeout)
		defer limit.End()
		ctx = limit
	}
	if r.ID != "" {
		id = r.ID
	} else if id == "" {
		id = fmt.Sprintf("%016x", rand.Uint64())
	}
	names := make([]string, len(shape.Inputs))
	for i, in := range shape.Inputs {
		names[i] = in.Name
	}
	a, err := m.Infer(ctx, api.Call{ID: id, Key: key, Names: names, Inputs: r.Inputs, Rows: r.Rows, Protocol: protocol})
	if err != nil {
		return codec.Head{}, nil, err
	}
	h := codec.Head{Model: a.Model, Version: a.Version, ID: r.ID, Variant: a.Variant, Fallback: a.Fallback}
	if h.Model == "" {
		h.Model, h.Version = m.Name(), m.Version()
	}
	outs := make([]codec.Out, len(r.Outputs))
	for i, o := range r.Outputs {
		if o.Index >= len(a.Outputs) {
			return h, nil, &api.Error{Kind: api.Internal, Text: "internal error", Err: fmt.Errorf("%d outputs came for %d of the model", len(a.Outputs), len(shape.Outputs))}
		}
		outs[i] = codec.Out{Name: shape.Outputs[o.Index].Name, Value: a.Outputs[o.Index], Binary: o.Binary}
	}
	return h, outs, nil
}

// versions are those of a model that are ready.
func (s *server) versions(name string) []string {
	out := []string{}
	for _, e := range s.models.Index() {
		if e.Name == name && e.Ready {
			out = append(out, e.Version)
		}
	}
	return out
}

// index is the state of each version of each model.
func (s *server) index(ready bool) []indexEntry {
	out := []indexEntry{}
	for _, e := range s.models.Index() {
		switch {
		case e.Ready:
			out = append(out, indexEntry{e.Name, e.Version, "READY", ""})
		case !ready:
			out = append(out, indexEntry{e.Name, e.Version, "UNAVAILABLE", e.Reason})
		}
	}
	return out
}

type indexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// found are the models that statistics are asked for: all that are ready, or one.
func (s *server) found(name, version string) ([]api.Model, error) {
	if name != "" {
		m, err := s.models.Model(name, version)
		if err != nil {
			return nil, err
		}
		return []api.Model{m}, nil
	}
	var out []api.Model
	for _, e := range s.models.Index() {
		if !e.Ready {
			continue
		}
		// It may have gone since.
		if m, err := s.models.Model(e.Name, e.Version); err == nil {
			out = append(out, m)
		}
	}
	return out, nil
}
