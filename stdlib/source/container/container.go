// Package container is a table that a command of the user's makes.
package container

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/source/file"
)

//go:embed container.cue
var source string

// Source is the kind "container".
type Source struct{ container.Kind }

var (
	_ kind.Commanded = Source{}
	_ kind.Derived   = Source{}
)

// Version of the contract with the command, and of what reads its rows.
func (Source) Version() int { return 1<<8 + file.Source{}.Version() }

// Schema is #ContainerSource.
func (Source) Schema() schema.Kind {
	return schema.Kind{Family: "source", Name: "container", Def: "#ContainerSource", Source: source}
}

// Files are none: what the command reads is its own affair.
func (Source) Files(json.RawMessage, string) ([]string, []kind.Fault) { return nil, nil }

// Names are known only when it has run.
func (Source) Names(context.Context, json.RawMessage, string, kind.Engine) ([]string, error) {
	return nil, errors.New("a container's rows are not in a file")
}

// Ordered is false.
func (Source) Ordered(json.RawMessage) bool { return false }

// Reads names the sources that it is made of.
func (Source) Reads(args json.RawMessage) []string {
	return kind.DecodeArgs[struct {
		Reads []string `json:"reads"`
	}](args).Reads
}

// column is a column in schema.json.
type column struct {
	Name string     `json:"name"`
	Type types.Type `json:"type"`
}

// outputs are the files of which the command leaves one.
var outputs = []string{"rows.parquet", "rows.csv", "rows.jsonl"}

// Snapshot runs the command and reads the rows that it left.
func (Source) Snapshot(ctx context.Context, job kind.SnapshotJob) (kind.SnapshotReport, error) {
	var none kind.SnapshotReport
	a := kind.DecodeArgs[container.Args](job.Args)
	files := map[string]string{}
	s := struct {
		Format  string              `json:"format"`
		Columns []column            `json:"columns"`
		Reads   map[string][]string `json:"reads,omitempty"`
		Params  json.RawMessage     `json:"params,omitempty"`
	}{Format: "mlc.rows.v1", Params: a.Params, Reads: map[string][]string{}}
	for _, c := range job.Columns {
		s.Columns = append(s.Columns, column{c.Name, c.Type})
	}
	for name, path := range job.Reads {
		var err error
		if s.Reads[name], _, err = job.Engine.Columns(ctx, "SELECT * FROM "+expr.ReadParquet(path)); err != nil {
			return none, err
		}
		files[name+".parquet"] = path
	}
	out, err := container.Call(ctx, job.Work, a.Command, s, files)
	if err != nil {
		return none, err
	}
	for _, name := range outputs {
		path := filepath.Join(out, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		job.Files, job.Labels = []string{path}, []string{"MLC_OUT/" + name}
		job.Args = json.RawMessage(`{"format":"auto","header":true,"null_values":[""]}`)
		return file.Source{}.Snapshot(ctx, job)
	}
	return none, kind.Faults{{Field: "command", Code: diag.BadOutput, What: "the command left no rows.parquet, rows.csv or rows.jsonl", Why: "they are what a source makes", Mend: "write one of them to the folder that MLC_OUT names"}}
}
