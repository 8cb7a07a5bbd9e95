// Package container is a trainer of the user's own: a command in a container that
// gets tables and leaves an ONNX model.
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

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/table"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/foreign"
	"mlc.dev/mlc/stdlib/trainer/linear"
)

//go:embed container.cue
var source string

// Trainer is the kind "container".
type Trainer struct{ container.Kind }

var _ kind.Commanded = Trainer{}

// Version of the contract with the command.
func (Trainer) Version() int { return 1 }

// Schema is #ContainerTrainer.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "container", Def: "#ContainerTrainer", Source: source}
}

// Check has nothing to add to what the compiler checks of every command.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults are those of linear: most libraries take no missing values and no texts.
func (Trainer) Defaults(t types.Type) []json.RawMessage { return linear.Trainer{}.Defaults(t) }

// Features is true.
func (Trainer) Features() bool { return true }

// labelColumn cannot be a feature's name, which has a dot.
const labelColumn = "_label"

// tables is schema.json: what the command finds in MLC_IN.
type tables struct {
	Format   string          `json:"format"`
	Task     string          `json:"task"`
	Classes  []string        `json:"classes,omitempty"`
	Features []string        `json:"features"`
	Label    string          `json:"label"`
	Rows     map[string]int  `json:"rows"`
	Seed     uint64          `json:"seed"`
	Params   json.RawMessage `json:"params,omitempty"`
}

// Train writes the tables, runs the command, and checks what it left: the model's
// signature, and its predictions where the command made some itself.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	var none kind.TrainResult
	a := kind.DecodeArgs[container.Args](job.Args)
	s := tables{Format: "mlc.tables.v1", Task: job.Task.Kind, Classes: job.Task.Classes, Features: job.Names, Label: labelColumn, Seed: job.Seed, Params: a.Params,
		Rows: map[string]int{"train": job.Train.X.Rows, "validation": job.Valid.X.Rows}}
	files := map[string]string{}
	for name, e := range map[string]kind.Examples{"train.parquet": job.Train, "validation.parquet": job.Valid} {
		files[name] = filepath.Join(job.Work.Dir, name)
		if err := write(files[name], job.Names, e); err != nil {
			return none, err
		}
	}
	out, err := container.Call(ctx, job.Work, a.Command, s, files)
	if err != nil {
		return none, err
	}
	raw, err := os.ReadFile(filepath.Join(out, "model.onnx"))
	if errors.Is(err, fs.ErrNotExist) {
		return none, bad("the command left no model.onnx", "it is what a trainer makes", "write it to the folder that MLC_OUT names")
	}
	if err != nil {
		return none, err
	}
	model, err := made.Adapt(raw, job.Task, len(job.Names), nil)
	if err != nil {
		return none, err
	}
	p, err := foreign.Open(model, job.Task.Width())
	if err != nil {
		return none, err
	}
	report := map[string]any{"command": a.Command, "model_bytes": len(raw)}
	proved, err := prove(ctx, filepath.Join(out, "predictions.parquet"), job, p.Predict)
	if err != nil {
		return none, err
	}
	if proved > 0 {
		report["proved_rows"] = proved
	}
	return kind.TrainResult{Model: model, Predict: p.Predict, Report: report}, nil
}

// made is what the command leaves.
var made = foreign.Origin{Kind: "container", Name: "model.onnx", Field: "command", Code: diag.BadOutput, Def: "#ContainerTrainer"}

func bad(what, why, mend string) error { return made.Fault(what, why, mend) }

// write makes one table of the contract.
func write(path string, names []string, e kind.Examples) error {
	cols := make([]table.Column, 0, len(names)+1)
	for c, n := range names {
		col := make([]float32, e.X.Rows)
		for r := range col {
			col[r] = e.X.Data[r*e.X.Cols+c]
		}
		cols = append(cols, table.Column{Name: n, Data: col})
	}
	return table.Write(path, append(cols, table.Column{Name: labelColumn, Data: e.Y}))
}

// tolerance is how far the command's own predictions may be from its model's:
// libraries compute in doubles, the model in floats.
const tolerance = 1e-3

// prove holds the command's own predictions of the validation rows, where it left
// them, against those of its model, and returns how many rows there were.
func prove(ctx context.Context, path string, job kind.TrainJob, predict func(kind.Matrix) []float32) (int, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	w := job.Task.Width()
	want := map[string]table.Form{}
	for c := range w {
		want[fmt.Sprintf("p%d", c)] = table.Floats
	}
	got := make([]float64, 0, job.Valid.X.Rows*w)
	err := table.Read(ctx, path, want, func(b table.Batch) error {
		for r := range b.Rows {
			for c := range w {
				got = append(got, b.Floats(fmt.Sprintf("p%d", c))[r])
			}
		}
		return nil
	})
	if err != nil {
		return 0, bad("predictions.parquet: "+err.Error(), "the model is proved by it", "write the float columns p0, p1, …, or leave the file out")
	}
	y := predict(job.Valid.X)
	if len(got) != len(y) {
		return 0, bad(fmt.Sprintf("predictions.parquet has %d rows, validation.parquet has %d", len(got)/w, job.Valid.X.Rows), "the model is proved by it", "write one row for each of validation.parquet, in its order")
	}
	for i, v := range got {
		if d := math.Abs(v - float64(y[i])); !(d <= tolerance*max(1, math.Abs(v))) {
			return 0, kind.Faults{{Field: "command", Code: diag.ProofFailed, What: fmt.Sprintf("row %d of validation.parquet: the command predicts %g, its model.onnx %g", i/w, v, y[i]),
				Why: "what is served would not be what was trained", Mend: "mend the export to ONNX"}}
		}
	}
	return job.Valid.X.Rows, nil
}
