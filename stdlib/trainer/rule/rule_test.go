package rule

import (
	"context"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
)

// TestAnswer: where the answer is the prediction, a missing one is the mean label of
// a number and false of a condition, a count is never below 0, and the labels of an
// anomaly task change nothing.
func TestAnswer(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		task string
		y    []float64
		want []float32
	}{
		{kind.Regression, []float64{1, 2, 3, 6}, []float32{1, 3, -2, 0}},
		{kind.Count, []float64{1, 2, 3, 6}, []float32{1, 3, 0, 0}},
		{kind.Anomaly, []float64{1, 1, 1, 1}, []float32{1, 0, -2, 0}},
	} {
		x := kind.Matrix{Rows: 4, Cols: 1, Data: []float32{1, nan, -2, 0}}
		res, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: kind.Task{Kind: c.task}, Train: kind.Examples{X: x, Y: c.y}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, res.Predict(x)); diff != "" {
			t.Errorf("%s: %s", c.task, diff)
		}
		s, err := ort.Open(res.Model)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run([]ort.Tensor{{Shape: []int64{4, 1}, Data: x.Data}})
		s.Close()
		if err != nil || !cmp.Equal(out[0].Data, any(c.want)) {
			t.Errorf("%s: ONNX gives %v: %v", c.task, out, err)
		}
	}
}

// TestCheck: a rule refuses what one expression cannot answer.
func TestCheck(t *testing.T) {
	for task, want := range map[string]int{"": 0, kind.Binary: 0, kind.Multiclass: 0, kind.Regression: 0, kind.Count: 0, kind.Anomaly: 0, kind.Quantile: 1, kind.Multilabel: 1} {
		if faults := (Trainer{}).Check(nil, task); len(faults) != want {
			t.Errorf("%s: %v", task, faults)
		}
	}
}
