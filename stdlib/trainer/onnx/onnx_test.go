package onnx

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
)

// job brings a model that weighs two columns by 10 and 1.
func job(t *testing.T, args string, valid int) kind.TrainJob {
	t.Helper()
	g := onnx.New("elsewhere")
	x := g.Input("x", onnx.Float, -1, 2)
	g.Output("y", g.Op("MatMul", x, g.Const([]float32{10, 1}, 2, 1)), onnx.Float, -1, 1)
	path := filepath.Join(t.TempDir(), "0")
	if err := os.WriteFile(path, g.Marshal(), 0o644); err != nil {
		t.Fatal(err)
	}
	rows := kind.Matrix{Rows: 3, Cols: 2, Data: []float32{1, 2, 3, 4, 5, 6}}
	j := kind.TrainJob{Task: kind.Task{Kind: kind.Regression}, Args: json.RawMessage(args), Names: []string{"f.a", "f.b"}, Files: map[string]string{"path": path}, Train: kind.Examples{X: rows}}
	if valid > 0 {
		j.Valid.X = kind.Matrix{Rows: valid, Cols: 2, Data: rows.Data[:2*valid]}
	}
	return j
}

func TestTrain(t *testing.T) {
	for _, c := range []struct {
		args  string
		valid int
		want  []float32
	}{
		{`{"kind":"onnx"}`, 2, []float32{12, 34, 56}},
		{`{"kind":"onnx"}`, 0, []float32{12, 34, 56}},
		{`{"kind":"onnx","columns":["f.b","f.a"]}`, 2, []float32{21, 43, 65}},
	} {
		j := job(t, c.args, c.valid)
		res, err := Trainer{}.Train(context.Background(), j)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, res.Predict(j.Train.X)); diff != "" {
			t.Errorf("%s: %s", c.args, diff)
		}
		if want := map[int]int{2: 2, 0: 3}[c.valid]; res.Report["checked_rows"] != want {
			t.Errorf("%v rows checked, not %d", res.Report["checked_rows"], want)
		}
	}
}

// TestColumns: columns that are not exactly those of the features are told at their
// own places.
func TestColumns(t *testing.T) {
	for args, want := range map[string]string{
		`{"columns":["f.a","f.c"]}`: `columns[1]: the features make no column "f.c"; did you mean "f.a"?`,
		`{"columns":["f.b"]}`:       "columns: columns leaves out f.a",
	} {
		_, err := Trainer{}.Train(context.Background(), job(t, args, 1))
		var faults kind.Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field+": "+faults[0].What != want {
			t.Errorf("%s: %v, not %q", args, err, want)
		}
	}
	faults := Trainer{}.Check(json.RawMessage(`{"columns":["a","b","a","b"]}`), kind.Binary)
	if len(faults) != 2 || faults[0].Field != "columns[2]" || faults[1].Field != "columns[3]" || !strings.Contains(faults[1].What, `"b" is named twice`) {
		t.Errorf("%v", faults)
	}
}

// TestTasks: only tasks of which a model's predictions can be told are taken.
func TestTasks(t *testing.T) {
	for task, want := range map[string]int{"": 0, kind.Binary: 0, kind.Multiclass: 0, kind.Regression: 0, kind.Multilabel: 1, kind.Quantile: 1, kind.Count: 1, kind.Anomaly: 1} {
		if faults := (Trainer{}).Check(json.RawMessage(`{}`), task); len(faults) != want {
			t.Errorf("%s: %v", task, faults)
		}
	}
}

// TestFiles: the model is a file of the step, wherever it lies.
func TestFiles(t *testing.T) {
	got := Trainer{}.Files(json.RawMessage(`{"kind":"onnx","path":"models/m.onnx"}`))
	if diff := cmp.Diff(map[string]string{"path": "models/m.onnx"}, got); diff != "" {
		t.Error(diff)
	}
	if d := (Trainer{}).Defaults(types.String); d != nil {
		t.Errorf("%s for strings", d)
	}
}

// lightgbm has a tree that is 1 where city is above 1.5, else 2 or 3 by age.
const lightgbm = `tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=regression
feature_names=city age

Tree=0
num_leaves=3
num_cat=0
split_feature=0 1
threshold=1.5 30
decision_type=2 2
left_child=1 -2
right_child=-1 -3
leaf_value=1 2 3

end of trees
`

// TestTrees: a model of a library's own is converted, and finds its columns by name.
func TestTrees(t *testing.T) {
	bring := func(text, args string, names ...string) (kind.TrainResult, error) {
		j := job(t, args, 0)
		j.Names = names
		if err := os.WriteFile(j.Files["path"], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return Trainer{}.Train(context.Background(), j)
	}
	x := kind.Matrix{Rows: 3, Cols: 2, Data: []float32{20, 1, 40, 1, 20, 2}}
	swapped := kind.Matrix{Rows: 3, Cols: 2, Data: []float32{1, 20, 1, 40, 2, 20}}
	unnamed := strings.Replace(lightgbm, "feature_names=city age", "feature_names=Column_0 Column_1", 1)
	for _, c := range []struct {
		text, args string
		names      []string
		x          kind.Matrix
	}{
		{lightgbm, `{}`, []string{"f.age", "f.city"}, x},
		{lightgbm, `{}`, []string{"age", "city"}, x},
		{lightgbm, `{}`, []string{"f.city", "g.age"}, swapped},
		{lightgbm, `{"columns":["f.x","f.a"]}`, []string{"f.a", "f.x"}, x},
		{unnamed, `{}`, []string{"f.a", "f.x"}, swapped},
	} {
		res, err := bring(c.text, c.args, c.names...)
		if err != nil {
			t.Errorf("%v: %v", c.names, err)
			continue
		}
		if diff := cmp.Diff([]float32{2, 3, 1}, res.Predict(c.x)); diff != "" {
			t.Errorf("%v: %s", c.names, diff)
		}
		if res.Report["converted"] != "LightGBM" || res.Report["model_bytes"] != len(c.text) {
			t.Errorf("%v", res.Report)
		}
	}
	for _, c := range []struct {
		text  string
		names []string
		want  string
	}{
		{lightgbm, []string{"f.agee", "f.city"}, `the model's feature "age" is none of the columns, or more than one`},
		{lightgbm, []string{"f.city", "g.city"}, `the model's feature "city" is none of the columns, or more than one`},
		{lightgbm, []string{"f.age", "f.city", "f.x"}, "the model of LightGBM has 2 features (city, age), and the inputs make 3 columns"},
		{strings.Replace(lightgbm, "1.5 30", "1.5", 1), []string{"f.age", "f.city"}, "the model cannot be read: LightGBM model: line 13: threshold has 1 values, not 2"},
	} {
		_, err := bring(c.text, `{}`, c.names...)
		var faults kind.Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != "path" || !strings.HasPrefix(faults[0].What, c.want) {
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}
