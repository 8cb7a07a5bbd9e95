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
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/table"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/trainer/linear"
)

//go:embed container.cue
var source string

// Trainer is the kind "container".
type Trainer struct{}

var _ kind.Commanded = Trainer{}

// Name is "container".
func (Trainer) Name() string { return "container" }

// Version of the contract with the command.
func (Trainer) Version() int { return 1 }

// Schema is #ContainerTrainer.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "container", Def: "#ContainerTrainer", Source: source}
}

// Check has nothing to add to what the compiler checks of every command.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Command is what the arguments say of the container.
func (Trainer) Command(args json.RawMessage) kind.Command { return kind.DecodeArgs[kind.Command](args) }

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
	a := kind.DecodeArgs[struct {
		Command []string        `json:"command"`
		Params  json.RawMessage `json:"params"`
	}](job.Args)
	in, out, err := container.Folders(job.Work)
	if err != nil {
		return none, err
	}
	s := tables{Format: "mlc.tables.v1", Task: job.Task.Kind, Classes: job.Task.Classes, Features: job.Names, Label: labelColumn, Seed: job.Seed, Params: a.Params,
		Rows: map[string]int{"train": job.Train.X.Rows, "validation": job.Valid.X.Rows}}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return none, err
	}
	if err := os.WriteFile(filepath.Join(in, "schema.json"), b, 0o644); err != nil {
		return none, err
	}
	for name, e := range map[string]kind.Examples{"train": job.Train, "validation": job.Valid} {
		if err := write(filepath.Join(in, name+".parquet"), job.Names, e); err != nil {
			return none, err
		}
	}
	if err := container.Run(ctx, job.Work, a.Command, in, out); err != nil {
		return none, err
	}
	raw, err := os.ReadFile(filepath.Join(out, "model.onnx"))
	if errors.Is(err, fs.ErrNotExist) {
		return none, bad("the command left no model.onnx", "it is what a trainer makes", "write it to the folder that MLC_OUT names")
	}
	if err != nil {
		return none, err
	}
	model, err := adapt(raw, job.Task, len(job.Names))
	if err != nil {
		return none, err
	}
	session, err := ort.Open(model)
	if err != nil {
		return none, err
	}
	predict := func(m kind.Matrix) []float32 { return run(session, m, job.Task.Width()) }
	report := map[string]any{"command": a.Command, "model_bytes": len(raw)}
	proved, err := prove(ctx, filepath.Join(out, "predictions.parquet"), job, predict)
	if err != nil {
		return none, err
	}
	if proved > 0 {
		report["proved_rows"] = proved
	}
	return kind.TrainResult{Model: model, Predict: predict, Report: report}, nil
}

func bad(what, why, mend string) error {
	return kind.Faults{{Field: "command", Code: diag.BadOutput, What: what, Why: why, Mend: mend}}
}

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

// adapt makes of the command's model one with the input X, float [N, cols], and the
// output Y, float [N, width], and says what is wrong with a model that cannot be.
func adapt(raw []byte, task kind.Task, cols int) ([]byte, error) {
	const mend = "see #ContainerTrainer for what a model has to be"
	given, err := ort.Open(raw)
	if err != nil {
		return nil, bad("model.onnx is no model: "+err.Error(), "ONNX Runtime has to run it", mend)
	}
	defer given.Close()
	ins := given.Inputs()
	if len(ins) != 1 || ins[0].Type != "float" && ins[0].Type != "double" || len(ins[0].Shape) != 2 || ins[0].Shape[1] > 0 && ins[0].Shape[1] != int64(cols) {
		return nil, bad(fmt.Sprintf("model.onnx takes %s, not one float [N, %d]", signature(ins), cols), "it gets the encoded features as one matrix", mend)
	}
	w := int64(task.Width())
	y, ok := output(given.Outputs(), w, task.Kind == kind.Binary)
	if !ok {
		return nil, bad(fmt.Sprintf("model.onnx gives %s, and none of it is float [N, %d]", signature(given.Outputs()), w), "that is what this problem's predictions are", mend)
	}
	g := onnx.New("container")
	x := g.Input("X", onnx.Float, -1, int64(cols))
	if ins[0].Type == "double" {
		x = g.Cast(x, onnx.Double)
	}
	out, err := g.Merge(raw, map[string]onnx.Value{ins[0].Name: x})
	if err != nil {
		return nil, bad("model.onnx cannot be joined with the features' transform: "+err.Error(), "both become one model", "export with target opset 21 and ai.onnx.ml 3")
	}
	v := out[y.Name]
	if y.Type == "double" {
		v = g.Cast(v, onnx.Float)
	}
	if n := len(y.Shape); n == 2 && y.Shape[1] == 2 && w == 1 {
		v = g.Op("Slice", v, g.Const([]int64{1}, 1), g.Const([]int64{2}, 1), g.Const([]int64{1}, 1))
	} else if n == 1 {
		v = g.Op("Reshape", v, g.Const([]int64{-1, 1}, 2))
	}
	g.Output("Y", v, onnx.Float, -1, w)
	return g.Marshal(), nil
}

// output finds the predictions among a model's outputs: one called Y, or else the
// last that can be them; libraries put labels before scores.
func output(outs []ort.Info, width int64, binary bool) (ort.Info, bool) {
	var found ort.Info
	for _, o := range outs {
		fits := o.Type == "float" || o.Type == "double"
		switch len(o.Shape) {
		case 1:
			fits = fits && width == 1
		case 2:
			n := o.Shape[1]
			fits = fits && (n <= 0 || n == width || binary && n == 2)
		default:
			fits = false
		}
		if fits && o.Name == "Y" {
			return o, true
		}
		if fits {
			found = o
		}
	}
	return found, found.Name != ""
}

func signature(infos []ort.Info) string {
	text := ""
	for i, x := range infos {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %s%v", x.Name, x.Type, x.Shape)
	}
	return text
}

// chunk is how many rows run at once.
const chunk = 1024

// run predicts a matrix. What the model refuses comes out as NaN, which evaluation
// does not let pass.
func run(s *ort.Session, m kind.Matrix, width int) []float32 {
	out := make([]float32, m.Rows*width)
	for i := range out {
		out[i] = float32(math.NaN())
	}
	for at := 0; at < m.Rows; at += chunk {
		n := min(chunk, m.Rows-at)
		res, err := s.Run([]ort.Tensor{{Shape: []int64{int64(n), int64(m.Cols)}, Data: m.Data[at*m.Cols : (at+n)*m.Cols]}})
		if err != nil {
			continue
		}
		if y, ok := res[0].Data.([]float32); ok && len(y) == n*width {
			copy(out[at*width:], y)
		}
	}
	return out
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
