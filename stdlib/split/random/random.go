// Package random divides rows by a hash of their identity.
package random

import (
	"context"
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/shares"
)

//go:embed random.cue
var source string

// Split is the kind "random".
type Split struct{}

// Name is "random".
func (Split) Name() string { return "random" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #Random.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "random", Def: "#Random", Source: source}
}

// Check wants training rows to be left and no prediction time.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	return shares.Check(raw, info, "random")
}

// Validates asks for a share of them.
func (Split) Validates(raw json.RawMessage) bool { return shares.Validates(raw) }

// Assign compares the hash of each row's group, spread over [0,1), with the shares.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	s := kind.DecodeArgs[shares.Args](job.Args)
	out := make([]kind.Part, len(job.Group))
	for i, g := range job.Group {
		switch u := shares.Unit(job.Seed, g); {
		case u < s.Test:
			out[i] = kind.Test
		case u < s.Test+s.Validation:
			out[i] = kind.Valid
		}
	}
	return out, nil
}
