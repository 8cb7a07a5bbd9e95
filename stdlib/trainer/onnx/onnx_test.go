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
