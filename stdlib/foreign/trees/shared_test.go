package trees

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
)

// infer runs a converted model.
func infer(t interface {
	Helper()
	Fatal(...any)
}, m *Model, x kind.Matrix) []float32 {
	t.Helper()
	raw, err := m.ONNX()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run([]ort.Tensor{{Shape: []int64{int64(x.Rows), int64(x.Cols)}, Data: x.Data}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0].Data.([]float32)
}

// shared is the folder of the models of the project leaves, with what the libraries
// themselves predict; its ORIGIN.txt tells more.
const shared = "../../../../shared/data/gbdt_models"

// rows reads a table, of libsvm where it has colons; what libsvm leaves out is
// missing.
func rows(t *testing.T, name string, cols int) kind.Matrix {
	t.Helper()
	f, err := os.Open(filepath.Join(shared, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := kind.Matrix{Cols: cols}
	number := func(s string) float32 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return float32(v)
	}
	for s := bufio.NewScanner(f); s.Scan(); m.Rows++ {
		row := make([]float32, cols)
		for i := range row {
			row[i] = float32(math.NaN())
		}
		fields := strings.Fields(s.Text())
		if strings.HasSuffix(name, ".libsvm") {
			fields = fields[1:]
		}
		for i, field := range fields {
			if k, v, ok := strings.Cut(field, ":"); ok {
				at, err := strconv.Atoi(k)
				if err != nil {
					t.Fatal(err)
				}
				row[at] = number(v)
			} else {
				row[i] = number(field)
			}
		}
		m.Data = append(m.Data, row...)
	}
	return m
}

// TestShared: every model converts, and predicts what its library does.
func TestShared(t *testing.T) {
	if _, err := os.Stat(shared); err != nil {
		t.Skipf("SKIPPED: no %s", shared)
	}
	cases := []struct {
		model, x, truth string
		// raw: the truth is the score before the link.
		raw      bool
		trees    int // that the truth is of; 0: all
		cols     int
		task     string
		constant float64
		leaves   string
	}{
		{model: "lg_breast_cancer.txt", x: "lg_breast_cancer_data.txt", cols: 30, task: kind.Binary, leaves: "lg_breast_cancer_data_pred_leaves.txt"},
		{model: "lg_dart_breast_cancer.model", x: "breast_cancer_test.tsv", truth: "lg_dart_breast_cancer_true_predictions.txt", cols: 30, task: kind.Binary},
		{model: "lg_dart_breast_cancer.json", x: "breast_cancer_test.tsv", truth: "lg_dart_breast_cancer_true_predictions.txt", cols: 30}, // names no objective: logits
		{model: "lg_rf_iris.model", x: "iris_test.libsvm", truth: "lg_rf_iris_true_predictions.txt", cols: 4, task: kind.Binary},
		{model: "xgagaricus.model", x: "agaricus_test.libsvm", truth: "xgagaricus_true_predictions.txt", cols: 127, task: kind.Binary},
		{model: "xg_dart_agaricus.model", x: "agaricus_test.libsvm", truth: "xg_dart_agaricus_true_predictions.txt", raw: true, trees: 10, cols: 127, task: kind.Binary}, // made with ntree_limit=10
		{model: "xgblin_agaricus.model", x: "agaricus_test.libsvm", truth: "xgblin_agaricus_true_predictions.txt", cols: 127, task: kind.Binary},
		{model: "xgblin_agaricus.model", x: "agaricus_test.libsvm", truth: "xgblin_agaricus_true_raw_predictions.txt", raw: true, cols: 127, task: kind.Binary},
		{model: "xgdermatology.model", x: "dermatology_test.libsvm", truth: "xgdermatology_true_predictions.txt", raw: true, cols: 33, task: kind.Multiclass},
		{model: "lg_1tree_1leaf.json", cols: 41, constant: 0.42},
		{model: "tree_1leaf.txt", cols: 1, constant: 0.123},
		{model: "tree_2leaves.txt", cols: 1},
		{model: "tree_3leaves.txt", cols: 2},
		{model: "model_simple.txt", cols: 2, task: kind.Binary},
	}
	for _, c := range cases {
		t.Run(c.model+" "+c.truth, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(shared, c.model))
			if err != nil {
				t.Fatal(err)
			}
			m, err := Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if m.Cols != c.cols || m.Task.Kind != c.task {
				t.Errorf("%d columns, task %q", m.Cols, m.Task.Kind)
			}
			if c.x == "" {
				small(t, c.model, m, c.constant)
				return
			}
			if c.trees > 0 {
				m.trees = m.trees[:c.trees]
			}
			x := rows(t, c.x, c.cols)
			got, own := infer(t, m, x), m.Predict(x)
			near(t, "ONNX and Go", got, own)
			if c.truth != "" {
				truth := rows(t, c.truth, m.Width())
				want := make([]float32, 0, len(truth.Data))
				for r := range truth.Rows {
					score := make([]float64, m.Width())
					for k, v := range truth.Row(r) {
						score[k] = float64(v)
						if c.task == "" {
							score[k] = math.Log(float64(v) / (1 - float64(v)))
						}
					}
					if c.raw {
						m.apply(score)
					}
					for _, v := range score {
						want = append(want, float32(v))
					}
				}
				near(t, "ONNX and the truth", got, want)
			}
			if c.leaves != "" {
				leaves := rows(t, c.leaves, len(m.trees))
				for r := range x.Rows {
					for i, want := range leaves.Row(r) {
						if leaf := m.leaf(&m.trees[i], x.Row(r)); leaf != int(want) {
							t.Fatalf("row %d comes to leaf %d of tree %d, not %v", r, leaf, i, want)
						}
					}
				}
			}
		})
	}
}

// small checks the models that come without data, by hand.
func small(t *testing.T, name string, m *Model, constant float64) {
	nan := float32(math.NaN())
	// The first column is a number, the second, where there is one, a category: 100.
	for _, c := range []struct {
		a, b float32
		want map[string]float64
	}{
		{0, 0, map[string]float64{"tree_2leaves.txt": 0.43, "tree_3leaves.txt": 0.35, "model_simple.txt": sigmoid(0.3584987837673016 - 0.063872842243335157)}},
		{1000, 0, map[string]float64{"tree_2leaves.txt": 0.59, "tree_3leaves.txt": 0.38, "model_simple.txt": sigmoid(0.41213915936587919 - 0.016484332942214807)}},
		{1000, 100, map[string]float64{"tree_2leaves.txt": 0.59, "tree_3leaves.txt": 0.54, "model_simple.txt": sigmoid(0.56697267424823339 + 0.12883103567558912)}},
		{5, nan, map[string]float64{"tree_2leaves.txt": 0.43, "tree_3leaves.txt": 0.35, "model_simple.txt": sigmoid(0.3584987837673016 - 0.063872842243335157)}},
	} {
		x := kind.Matrix{Rows: 1, Cols: m.Cols, Data: append([]float32{c.a, c.b}, make([]float32, 40)...)[:m.Cols]}
		want, ok := c.want[name]
		if !ok {
			want = constant
		}
		near(t, "ONNX and the tree", infer(t, m, x), []float32{float32(want)})
		near(t, "Go and the tree", m.Predict(x), []float32{float32(want)})
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// near holds one against the other, within 1e-5.
func near(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values and %d", what, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= 1e-5*math.Max(1, math.Abs(float64(want[i])))) {
			t.Fatalf("%s: value %d is %v and %v", what, i, got[i], want[i])
		}
	}
}
