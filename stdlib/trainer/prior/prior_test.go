package prior_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/trainer/prior"
)

// TestAverage: what each task's prior is. The quantiles are numpy's.
func TestAverage(t *testing.T) {
	y := []float64{3, 1, 4, 1, 5, 9, 2, 6}
	for _, c := range []struct {
		task kind.Task
		y    []float64
		want []float32
	}{
		{kind.Task{Kind: kind.Binary}, []float64{0, 1, 0, 0}, []float32{0.25}},
		{kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}, []float64{0, 2, 0, 2}, []float32{0.5, 0, 0.5}},
		{kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, []float64{0, 1, 1, 1, 0, 1, 0, 0}, []float32{0.25, 0.75}},
		{kind.Task{Kind: kind.Regression}, y, []float32{3.875}},
		{kind.Task{Kind: kind.Count}, y, []float32{3.875}},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.5, 0.95}}, y, []float32{1, 3.5, 7.95}},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.9}}, []float64{7}, []float32{7, 7}},
		{kind.Task{Kind: kind.Anomaly}, []float64{1, 1, 0}, []float32{0.5}},
	} {
		x := kind.Matrix{Rows: 2, Cols: 1, Data: []float32{1, float32(math.NaN())}}
		res, err := prior.Trainer{}.Train(context.Background(), kind.TrainJob{Task: c.task, Train: kind.Examples{X: x, Y: c.y}})
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Concat(c.want, c.want)
		if diff := cmp.Diff(want, res.Predict(x), cmpopts.EquateApprox(0, 1e-6)); diff != "" {
			t.Errorf("%s: %s", c.task.Kind, diff)
		}
		s, err := ort.Open(res.Model)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run([]ort.Tensor{{Shape: []int64{2, 1}, Data: x.Data}})
		s.Close()
		if err != nil || !cmp.Equal(out[0].Data, any(res.Predict(x))) {
			t.Errorf("%s: ONNX gives %v: %v", c.task.Kind, out, err)
		}
	}
}

// TestQuantile: a quantile lies among the values, never falls as q rises, and has at
// most a share q of the values below it.
func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 50).Draw(t, "y")
		slices.Sort(y)
		a, b := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		a, b = min(a, b), max(a, b)
		low, high := prior.Quantile(y, a), prior.Quantile(y, b)
		const slack = 1e-9 * 1e6
		if low > high+slack || low < y[0]-slack || high > y[len(y)-1]+slack {
			t.Fatalf("%v and %v of %v", low, high, y)
		}
		below := 0
		for _, v := range y {
			if v < low-slack {
				below++
			}
		}
		if float64(below) > a*float64(len(y)-1)+1 {
			t.Fatalf("%d of %d below quantile %v", below, len(y), a)
		}
	})
}
