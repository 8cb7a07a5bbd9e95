package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// split runs a shell command as the split of four rows of two entities.
func split(t *testing.T, command string, change func(*kind.SplitJob)) ([]kind.Part, error) {
	t.Helper()
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	dir := t.TempDir()
	rows := filepath.Join(dir, "dataset.parquet")
	if err := table.Write(rows, []table.Column{{Name: "_row_id", Data: []int64{0, 1, 2, 3}}}); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	args, err := json.Marshal(map[string]any{"kind": "container", "command": []string{"sh", "-c", command}, "params": map[string]int{"folds": 3}})
	if err != nil {
		t.Fatal(err)
	}
	job := kind.SplitJob{Args: args, Seed: 7, Group: []string{"a", "a", "b", "b"}, Label: []float64{0, 1, 0, 1}, Task: kind.Task{Kind: kind.Binary}, Rows: rows, Engine: db, Work: kind.Work{Dir: work}}
	if change != nil {
		change(&job)
	}
	return Split{}.Assign(t.Context(), job)
}

// csv is a command that writes parts.csv.
func csv(lines ...string) string {
	return `printf '` + strings.Join(lines, `\n`) + `\n' > "$MLC_OUT/parts.csv"`
}

// TestAssign: the parts come back in the order of the rows, whatever the command's
// order is, and the command sees the rows and what they mean.
func TestAssign(t *testing.T) {
	got, err := split(t, `set -e; test -s "$MLC_IN/rows.parquet"; grep -q '"folds": *3' "$MLC_IN/schema.json"; grep -q '"seed": 7' "$MLC_IN/schema.json"; `+csv("part,_row_id", "test,3", "train,0", "test,2", "purged,1"), nil)
	if want := []kind.Part{kind.Train, kind.Purged, kind.Test, kind.Test}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

// TestBadParts: each thing that a command can leave wrong is a fault that says so.
func TestBadParts(t *testing.T) {
	timed := func(window int64) func(*kind.SplitJob) {
		return func(j *kind.SplitJob) {
			j.Time = []int64{0, 10, 20, 30}
			for _, t := range j.Time {
				j.Known = append(j.Known, t+window)
			}
		}
	}
	all := csv("_row_id,part", "0,train", "1,validation", "2,test", "3,test")
	for _, c := range []struct {
		name, command string
		change        func(*kind.SplitJob)
		code          diag.Code
		what          string
	}{
		{"nothing", "true", nil, diag.BadOutput, "left no parts.parquet and no parts.csv"},
		{"no table", `printf x > "$MLC_OUT/parts.parquet"`, nil, diag.BadOutput, "parts.parquet cannot be read"},
		{"column", csv("row,part", "0,train"), nil, diag.BadOutput, `no column "_row_id"; it has row, part`},
		{"unknown row", csv("_row_id,part", "4,train"), nil, diag.BadOutput, `row 1 of parts.csv: there is no row "4"`},
		{"no number", csv("_row_id,part", "0,train", "x,test"), nil, diag.BadOutput, `row 2 of parts.csv: there is no row "x"`},
		{"half", csv("_row_id,part", "0.5,train"), nil, diag.BadOutput, `there is no row "0.5"`},
		{"unknown part", csv("_row_id,part", "0,holdout"), nil, diag.BadOutput, `there is no part "holdout"`},
		{"null part", csv("_row_id,part", "0,"), nil, diag.BadOutput, `there is no part null`},
		{"twice", csv("_row_id,part", "0,train", "0,test"), nil, diag.BadOutput, "row 2 of parts.csv: row 0 comes twice"},
		{"missing", csv("_row_id,part", "0,train", "2,test", "3,test"), nil, diag.BadOutput, "parts.csv has 3 rows of 4; row 1 has no part"},
		{"entity", all, nil, diag.FittedLeak, "the one with _row_id 1, counted from 0 among the labelled rows, is validation, another of its entity is train"},
		{"hindsight", csv("_row_id,part", "0,train", "1,test", "2,train", "3,test"), timed(0), diag.FittedLeak, "1 train and validation rows have an outcome that is known only after the first test row's time, 1970-01-01T00:00:00Z; the first has _row_id 2, counted from 0 among the labelled rows"},
		{"window", all, timed(11), diag.FittedLeak, "the first has _row_id 1, counted from 0 among the labelled rows"},
		{"status", "exit 3", nil, diag.CommandFailed, "ended with exit status 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := split(t, c.command, c.change)
			var faults kind.Faults
			if !errors.As(err, &faults) || faults[0].Code != c.code || faults[0].Field != "command" || !strings.Contains(faults[0].What, c.what) {
				t.Errorf("got %v, want %s: %s", err, c.code, c.what)
			}
		})
	}
	if _, err := split(t, all, timed(10)); err != nil {
		t.Errorf("an outcome that is decided at the first test row's time: %v", err)
	}
}
