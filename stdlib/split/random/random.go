// Package random divides rows by a hash of their identity.
package random

import (
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/diag"
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

// Check wants training rows to be left. With a prediction time it is the
// compiler's leakage proof that warns.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	faults := shares.Check(raw)
	if info.HasTime {
		faults = append(faults, kind.Fault{Code: diag.FittedLeak, What: "a random split of a problem with a prediction time",
			Why: "training rows would lie after test rows, so the test would judge hindsight", Mend: `use split: {kind: "time", …}, or leave out label.at if time plays no part`})
	}
	return faults
}

// Assign compares the hash of each row's group, spread over [0,1), with the shares.
func (Split) Assign(job kind.SplitJob) ([]kind.Part, error) {
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
