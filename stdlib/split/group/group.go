// Package group divides by the hash of a column's value.
package group

import (
	"context"
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/leak"
	"mlc.dev/mlc/stdlib/split/shares"
)

//go:embed group.cue
var source string

// Split is the kind "group".
type Split struct{}

var _ kind.ByColumn = Split{}

// Name is "group".
func (Split) Name() string { return "group" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #GroupSplit.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "group", Def: "#GroupSplit", Source: source}
}

type args struct {
	shares.Args
	Column string `json:"column"`
}

// Column is the one that the arguments name.
func (Split) Column(raw json.RawMessage) string { return kind.DecodeArgs[args](raw).Column }

// Check wants training rows to be left, and no prediction time.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	return shares.Check(raw, info, "group")
}

// Assign cuts the hashes of the values by the shares, and proves that no entity is in
// two parts.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	out := make([]kind.Part, len(job.Column))
	for i, v := range job.Column {
		switch u := shares.Unit(job.Seed, v); {
		case u < a.Test:
			out[i] = kind.Test
		case u < a.Test+a.Validation:
			out[i] = kind.Valid
		}
	}
	return out, leak.Check(job, out, "column")
}
