// Package group divides by the hash of a column's value.
package group

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"mlc.dev/mlc/compiler/diag"
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
func (Split) Version() int { return 2 }

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

// Validates asks for a share of them.
func (Split) Validates(raw json.RawMessage) bool { return shares.Validates(raw) }

// Assign cuts the hashes of the values by the shares, and proves that no entity is in
// two parts. A part that is asked for and gets no group is a fault.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	out, groups, filled := make([]kind.Part, len(job.Column)), map[string]bool{}, map[kind.Part]bool{}
	for i, v := range job.Column {
		switch u := shares.Unit(job.Seed, v); {
		case u < a.Test:
			out[i] = kind.Test
		case u < a.Test+a.Validation:
			out[i] = kind.Valid
		}
		groups[v], filled[out[i]] = true, true
	}
	var faults kind.Faults
	for _, p := range []struct {
		part        kind.Part
		share       float64
		field, mend string
	}{
		{kind.Train, 1 - a.Validation - a.Test, "", "lower the shares of the others"},
		{kind.Valid, a.Validation, "validation", "raise it, set it to 0"},
		{kind.Test, a.Test, "test", "raise it"},
	} {
		if p.share > 0 && !filled[p.part] {
			faults = append(faults, kind.Fault{Field: p.field, Code: diag.EmptySplit,
				What: fmt.Sprintf("column %q makes %d groups, and none of them is for %s, whose share is %.3g", a.Column, len(groups), kind.PartNames[p.part], p.share),
				Why:  "a group goes where the hash of its value falls, so few groups can miss a part", Mend: p.mend + `, or say which values go where with split: {kind: "column", …}`})
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return out, leak.Check(job, out, "column")
}
