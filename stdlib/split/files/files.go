// Package files divides rows by the file that they come from.
package files

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"path"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/leak"
	"mlc.dev/mlc/stdlib/split/shares"
)

//go:embed files.cue
var source string

// Split is the kind "files".
type Split struct{}

// Name is "files".
func (Split) Name() string { return "files" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #FileSplit.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "files", Def: "#FileSplit", Source: source}
}

type args struct {
	Test       string  `json:"test"`
	Validation float64 `json:"validation"`
}

// Check wants a pattern that is one.
func (Split) Check(raw json.RawMessage, _ kind.SplitInfo) []kind.Fault {
	a := kind.DecodeArgs[args](raw)
	if _, err := path.Match(a.Test, ""); err != nil {
		return []kind.Fault{{Field: "test", Code: diag.BadArgs, What: fmt.Sprintf("%q is no file pattern", a.Test), Mend: `write one like "*_test.csv"`}}
	}
	return nil
}

// Validates asks for a share of them.
func (Split) Validates(raw json.RawMessage) bool { return shares.Validates(raw) }

// Assign tests on the files whose base name matches; the hash of the group
// decides of the others. A pattern that matches no file, or all, fails.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	test, hits := make([]bool, len(job.Files)), 0
	for i, f := range job.Files {
		if ok, _ := path.Match(a.Test, path.Base(f)); ok {
			test[i] = true
			hits++
		}
	}
	if hits == 0 || hits == len(test) {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.EmptySplit, What: fmt.Sprintf("the pattern %q matches %d of the source's %d files", a.Test, hits, len(test)),
			Why: "there must be rows to test on and rows to train on"}
	}
	out := make([]kind.Part, len(job.File))
	for i, f := range job.File {
		switch {
		case test[f]:
			out[i] = kind.Test
		case shares.Unit(job.Seed, job.Group[i]) < a.Validation:
			out[i] = kind.Valid
		}
	}
	return out, leak.Check(job, out, "test")
}
