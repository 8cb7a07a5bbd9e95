// Package kfold is k-fold cross-validation (Stone 1974, "Cross-validatory choice and
// assessment of statistical predictions").
package kfold

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/shares"
)

//go:embed kfold.cue
var source string

// Split is the kind "kfold".
type Split struct{}

var _ kind.Folded = Split{}

// Name is "kfold".
func (Split) Name() string { return "kfold" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #KFold.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "kfold", Def: "#KFold", Source: source}
}

type args struct {
	Folds      int     `json:"folds"`
	Validation float64 `json:"validation"`
}

// Folds is the number of folds.
func (Split) Folds(raw json.RawMessage) int { return kind.DecodeArgs[args](raw).Folds }

// Check wants no prediction time.
func (Split) Check(_ json.RawMessage, info kind.SplitInfo) []kind.Fault {
	faults := shares.Check(json.RawMessage("{}"), info, "kfold")
	for i := range faults {
		faults[i].Mend = `use split: {kind: "rolling", …}, or leave out label.at if time plays no part`
	}
	return faults
}

// Validates asks for a share of them.
func (Split) Validates(raw json.RawMessage) bool { return shares.Validates(raw) }

// Assign keeps a share of the rows for validation.
func (s Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	return parts(job, make([]int, len(job.Group)), -1), nil
}

// AssignFold tests one fold's rows.
func (s Split) AssignFold(_ context.Context, job kind.SplitJob, fold int) ([]kind.Part, error) {
	return parts(job, deal(job, kind.DecodeArgs[args](job.Args).Folds), fold), nil
}

// parts tests the rows of one fold; of the others, a share by hash validates.
func parts(job kind.SplitJob, folds []int, fold int) []kind.Part {
	valid := kind.DecodeArgs[args](job.Args).Validation
	out := make([]kind.Part, len(job.Group))
	for i, f := range folds {
		if f == fold {
			out[i] = kind.Test
		} else if shares.Unit(job.Seed+1, job.Group[i]) < valid {
			out[i] = kind.Valid
		}
	}
	return out
}

// deal gives every row its fold: the groups in the order of their hashes go round and
// round. Where each row is its own group, those of one stratum go together, so that
// every fold has its share of them.
func deal(job kind.SplitJob, folds int) []int {
	first := map[string]int{} // of a group, its first row
	var groups []int
	for i, g := range job.Group {
		if _, ok := first[g]; !ok {
			first[g] = i
			groups = append(groups, i)
		}
	}
	strata := make([]int, len(job.Group))
	if len(groups) == len(job.Group) && len(job.Label) == len(job.Group) {
		strata = shares.Strata(job.Label)
	}
	unit := make([]float64, len(job.Group))
	for _, i := range groups {
		unit[i] = shares.Unit(job.Seed, job.Group[i])
	}
	sort.SliceStable(groups, func(a, b int) bool {
		x, y := groups[a], groups[b]
		return strata[x] < strata[y] || strata[x] == strata[y] && unit[x] < unit[y]
	})
	of := make([]int, len(job.Group))
	for k, i := range groups {
		of[i] = k % folds
	}
	out := slices.Clone(of)
	for i, g := range job.Group {
		out[i] = of[first[g]]
	}
	return out
}
