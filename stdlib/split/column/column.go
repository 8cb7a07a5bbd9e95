// Package column divides rows by what a column says.
package column

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/leak"
)

//go:embed column.cue
var source string

// Split is the kind "column".
type Split struct{}

var _ kind.ByColumn = Split{}

// Name is "column".
func (Split) Name() string { return "column" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #ColumnSplit.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "column", Def: "#ColumnSplit", Source: source}
}

type args struct {
	Column     string   `json:"column"`
	Train      []string `json:"train"`
	Validation []string `json:"validation"`
	Test       []string `json:"test"`
}

// Column is the one that the arguments name.
func (Split) Column(raw json.RawMessage) string { return kind.DecodeArgs[args](raw).Column }

// parts is the part of each value; twice is one that has two, or "".
func (a args) parts() (parts map[string]kind.Part, twice string) {
	parts = map[string]kind.Part{}
	for p, values := range map[kind.Part][]string{kind.Train: a.Train, kind.Valid: a.Validation, kind.Test: a.Test} {
		for _, v := range values {
			if other, dup := parts[v]; dup && other != p {
				twice = v
			}
			parts[v] = p
		}
	}
	return parts, twice
}

// Check wants each value in one part.
func (Split) Check(raw json.RawMessage, _ kind.SplitInfo) []kind.Fault {
	if _, twice := kind.DecodeArgs[args](raw).parts(); twice != "" {
		return []kind.Fault{{Code: diag.BadArgs, What: fmt.Sprintf("the value %q is in two parts", twice), Why: "a row that the model learned from must not judge it", Mend: "leave it in one"}}
	}
	return nil
}

// Validates asks for a value of theirs.
func (Split) Validates(raw json.RawMessage) bool {
	return len(kind.DecodeArgs[args](raw).Validation) > 0
}

// Assign looks each row's value up, and proves that the parts do not leak. A value
// of the arguments that no row has is a fault: it is likely misspelt.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	known, _ := a.parts()
	rest := kind.Train
	if len(a.Train) > 0 {
		rest = kind.Purged
	}
	out, seen := make([]kind.Part, len(job.Column)), map[string]bool{}
	for i, v := range job.Column {
		p, ok := known[v]
		if !ok {
			p = rest
		}
		out[i], seen[v] = p, true
	}
	delete(seen, types.NullString)
	values := slices.Sorted(maps.Keys(seen))
	var faults kind.Faults
	for _, f := range []struct {
		field  string
		values []string
	}{{"train", a.Train}, {"validation", a.Validation}, {"test", a.Test}} {
		for _, v := range f.values {
			if !seen[v] {
				faults = append(faults, kind.Fault{Field: f.field, Code: diag.EmptySplit, What: fmt.Sprintf("no row has %q in column %q%s", v, a.Column, diag.Suggest(v, values)), Mend: "its values are " + some(values)})
			}
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return out, leak.Check(job, out, "column")
}

// some shows the first of some values.
func some(values []string) string {
	const most = 8
	more := ""
	if len(values) > most {
		more = fmt.Sprintf(" and %d more", len(values)-most)
		values = values[:most]
	}
	return strings.Join(values, ", ") + more
}
