// Package onnx is a trainer that brings a finished model made elsewhere: of ONNX, or
// of LightGBM or XGBoost, which it converts.
package onnx

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/foreign"
	"mlc.dev/mlc/stdlib/foreign/trees"
)

//go:embed onnx.cue
var source string

// Trainer is the kind "onnx".
type Trainer struct{}

var _ kind.Filed = Trainer{}

// Name is "onnx".
func (Trainer) Name() string { return "onnx" }

// Version of what is made of the model.
func (Trainer) Version() int { return 1 }

// Schema is #OnnxTrainer.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "onnx", Def: "#OnnxTrainer", Source: source}
}

type args struct {
	Path    string   `json:"path"`
	Columns []string `json:"columns"`
}

// pathField is the argument that names the model's file.
const pathField = "path"

// Files is the model.
func (Trainer) Files(raw json.RawMessage) map[string]string {
	return map[string]string{pathField: kind.DecodeArgs[args](raw).Path}
}

// Check finds columns that are named twice, and refuses tasks of which nobody could
// tell whether a foreign model's predictions are what they mean.
func (Trainer) Check(raw json.RawMessage, task string) []kind.Fault {
	var out []kind.Fault
	switch task {
	case kind.Multilabel, kind.Quantile, kind.Count, kind.Anomaly:
		out = append(out, kind.Fault{Code: diag.BadArgs, What: "no " + task + " model is taken from elsewhere", Why: "an ONNX file tells a number or the probabilities of classes, and not what else they may be", Mend: "train it here, or make the problem binary, multiclass or regression"})
	}
	columns := kind.DecodeArgs[args](raw).Columns
	for i, c := range columns {
		if slices.Contains(columns[:i], c) {
			out = append(out, kind.Fault{Field: fmt.Sprintf("columns[%d]", i), Code: diag.BadArgs, What: fmt.Sprintf("column %q is named twice", c), Why: "each of the model's columns is another", Mend: "drop one of the two"})
		}
	}
	return out
}

// Defaults takes numbers as they are. Texts have none: which number stands for
// which text is for the model to say.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return nil
	}
	return []json.RawMessage{[]byte(`{"kind":"passthrough"}`)}
}

// Features is true.
func (Trainer) Features() bool { return true }

// brought is the model of the user's.
var brought = foreign.Origin{Kind: "onnx", Name: "the model", Field: pathField, Code: diag.BadModel, Def: "#OnnxTrainer"}

// checked is how many training rows prove a model where there are no others.
const checked = 10_000

// Train reads the model, checks that it fits the columns and the task, and that it
// predicts numbers of the validation rows, or of training rows where there are none.
func (Trainer) Train(_ context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	var none kind.TrainResult
	columns := kind.DecodeArgs[args](job.Args).Columns
	order, err := order(columns, job.Names)
	if err != nil {
		return none, err
	}
	file := job.Files[pathField]
	info, err := os.Stat(file)
	if err != nil {
		return none, err
	}
	if info.Size() > math.MaxInt32 {
		return none, brought.Fault("the model has more than 2 GiB", "an ONNX file cannot", "make it smaller")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return none, err
	}
	report, given := map[string]any{"model_bytes": len(raw)}, raw
	if trees.Is(raw) {
		m, err := trees.Read(raw)
		if err != nil {
			return none, brought.Fault("the model cannot be read: "+err.Error(), "it becomes ONNX", "save it whole with its own library, and as a model, not as a dump of XGBoost's or as Python's pickle")
		}
		if columns == nil {
			if order, err = named(m.Features, job.Names); err != nil {
				return none, err
			}
		}
		if m.Cols != len(job.Names) {
			return none, brought.Fault(fmt.Sprintf("the model of %s has %d features%s, and the inputs make %d columns", m.Library, m.Cols, called(m.Features), len(job.Names)),
				"each of its features is a column: "+list(job.Names), "give the model's inputs as it was trained on them")
		}
		if given, err = m.ONNX(); err != nil {
			return none, brought.Fault("the model cannot be converted: "+err.Error(), "it becomes ONNX", "train it with fewer categories in a feature")
		}
		report["converted"] = m.Library
	}
	model, err := brought.Adapt(given, job.Task, len(job.Names), order)
	if err != nil {
		return none, err
	}
	p, err := foreign.Open(model, job.Task.Width())
	if err != nil {
		return none, err
	}
	rows, part := job.Valid.X, kind.PartNames[kind.Valid]
	if rows.Rows == 0 {
		rows, part = job.Train.X, kind.PartNames[kind.Train]
		rows.Rows = min(rows.Rows, checked)
	}
	if err := brought.Sound(p, job.Task, rows, part); err != nil {
		return none, err
	}
	report["checked_rows"] = rows.Rows
	return kind.TrainResult{Model: model, Predict: p.Predict, Report: report}, nil
}

// named is the place in names of each feature that a model names: by the column's
// whole name, or by what comes after the feature group's. A model that names none
// takes the columns as they come.
func named(features, names []string) ([]int64, error) {
	if features == nil || len(features) != len(names) {
		return nil, nil // the caller tells of the number
	}
	short := map[string][]int{}
	for i, n := range names {
		_, after, _ := strings.Cut(n, ".")
		short[after] = append(short[after], i)
	}
	out, taken := make([]int64, len(features)), make([]bool, len(names))
	for i, f := range features {
		at := slices.Index(names, f)
		if at < 0 && len(short[f]) == 1 {
			at = short[f][0]
		}
		if at < 0 || taken[at] {
			return nil, brought.Fault(fmt.Sprintf("the model's feature %q is none of the columns, or more than one%s", f, diag.Suggest(f, names)),
				"the model names its features, and the inputs make "+list(names), "rename the inputs, or name the columns in the model's order: columns")
		}
		out[i], taken[at] = int64(at), true
	}
	return out, nil
}

// called lists the names of a model's features, where it has some.
func called(features []string) string {
	if features == nil {
		return ""
	}
	return " (" + list(features) + ")"
}

// order is the place in names of each of the model's columns; nil: their own.
func order(columns, names []string) ([]int64, error) {
	if columns == nil {
		return nil, nil
	}
	var faults kind.Faults
	out := make([]int64, len(columns))
	for i, c := range columns {
		at := slices.Index(names, c)
		if at < 0 {
			faults = append(faults, kind.Fault{Field: fmt.Sprintf("columns[%d]", i), Code: diag.NoColumn, What: fmt.Sprintf("the features make no column %q%s", c, diag.Suggest(c, names)),
				Why: "they make " + list(names), Mend: "mend the name"})
		}
		out[i] = int64(at)
	}
	var left []string
	for _, n := range names {
		if !slices.Contains(columns, n) {
			left = append(left, n)
		}
	}
	if len(faults) == 0 && len(left) > 0 {
		faults = append(faults, kind.Fault{Field: "columns", Code: diag.BadModel, What: "columns leaves out " + list(left), Why: "all that the features make reaches the model", Mend: "name them where the model takes them, or drop the inputs"})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return out, nil
}

// list names the first of many columns.
func list(names []string) string {
	const most = 20
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
