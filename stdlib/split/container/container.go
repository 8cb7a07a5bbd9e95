// Package container divides rows by a command of the user's.
package container

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/split/leak"
)

//go:embed container.cue
var source string

// Split is the kind "container".
type Split struct{ container.Kind }

var _ kind.Commanded = Split{}

// Version of the contract with the command.
func (Split) Version() int { return 2 }

// Schema is #ContainerSplit.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "container", Def: "#ContainerSplit", Source: source}
}

// Check has nothing to add to what the compiler checks of every command: what the
// split is like shows when it has run.
func (Split) Check(json.RawMessage, kind.SplitInfo) []kind.Fault { return nil }

// Validates is for the command to say.
func (Split) Validates(json.RawMessage) bool { return true }

// rows is schema.json: what the command finds in MLC_IN.
type rows struct {
	Format  string          `json:"format"`
	Task    string          `json:"task"`
	Classes []string        `json:"classes,omitempty"`
	Rows    int             `json:"rows"`
	Timed   bool            `json:"timed"`
	Seed    uint64          `json:"seed"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// Assign runs the command, reads the parts that it left, and proves that they do
// not leak.
func (Split) Assign(ctx context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[container.Args](job.Args)
	s := rows{Format: "mlc.split.v2", Task: job.Task.Kind, Classes: job.Task.Classes, Rows: len(job.Label), Timed: len(job.Time) > 0, Seed: job.Seed, Params: a.Params}
	out, err := container.Call(ctx, job.Work, a.Command, s, map[string]string{"rows.parquet": job.Rows})
	if err != nil {
		return nil, err
	}
	parts, err := read(ctx, job.Engine, out, len(job.Label))
	if err != nil {
		return nil, err
	}
	return parts, leak.Check(job, parts, "command")
}

// outputs are the files of which the command leaves one, and how each is read.
var outputs = []struct {
	name string
	from func(path string) string
}{
	{"parts.parquet", expr.ReadParquet},
	{"parts.csv", func(path string) string {
		return "read_csv(" + expr.QuotePath(path) + ", header=true, all_varchar=true)"
	}},
}

func bad(mend, what string, args ...any) error {
	return kind.Faults{{Field: "command", Code: diag.BadOutput, What: fmt.Sprintf(what, args...), Why: "each row has to have its part, and one", Mend: mend}}
}

// columns are those of the command's table.
const columns = "the columns _row_id and part"

// read reads the parts in the order of the rows: each row once.
func read(ctx context.Context, engine kind.Engine, out string, n int) ([]kind.Part, error) {
	for _, o := range outputs {
		path := filepath.Join(out, o.name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		from := o.from(path)
		have, _, err := engine.Columns(ctx, "SELECT * FROM "+from)
		if err != nil {
			return nil, bad("write a table with "+columns, "%s cannot be read: %v", o.name, err)
		}
		for _, want := range []string{"_row_id", "part"} {
			if !slices.Contains(have, want) {
				return nil, bad("write "+columns, "%s has no column %q; it has %s", o.name, want, strings.Join(have, ", "))
			}
		}
		parts, seen, line := make([]kind.Part, n), make([]bool, n), 0
		err = engine.Rows(ctx, "SELECT TRY_CAST(_row_id AS DOUBLE), CAST(_row_id AS VARCHAR), CAST(part AS VARCHAR) FROM "+from, func(scan func(...any) error) error {
			var id *float64
			var text, part *string
			if err := scan(&id, &text, &part); err != nil {
				return err
			}
			line++
			if id == nil || *id != math.Trunc(*id) || *id < 0 || *id >= float64(n) {
				return bad("write the _row_id of rows.parquet", "row %d of %s: there is no row %s", line, o.name, shown(text))
			}
			p := -1
			if part != nil {
				p = slices.Index(kind.PartNames, *part)
			}
			if p < 0 {
				return bad("a part is "+strings.Join(kind.PartNames, ", "), "row %d of %s: there is no part %s", line, o.name, shown(part))
			}
			if seen[int(*id)] {
				return bad("write each row once", "row %d of %s: row %d comes twice", line, o.name, int(*id))
			}
			seen[int(*id)], parts[int(*id)] = true, kind.Part(p)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if line < n {
			return nil, bad("give the rows that have no part to purged", "%s has %d rows of %d; row %d has no part", o.name, line, n, slices.Index(seen, false))
		}
		return parts, nil
	}
	return nil, bad("write one of them to the folder that MLC_OUT names", "the command left no parts.parquet and no parts.csv")
}

func shown(s *string) string {
	if s == nil {
		return "null"
	}
	return fmt.Sprintf("%q", *s)
}
