package metric_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

var (
	binary     = kind.Task{Kind: kind.Binary}
	three      = kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}
	regression = kind.Task{Kind: kind.Regression}
)

// TestAgainstScikitLearn compares with what scikit-learn 1.5 gives for the same
// rows (roc_auc_score, average_precision_score, log_loss, accuracy_score,
// f1_score; mean_squared_error, mean_absolute_error, r2_score).
func TestAgainstScikitLearn(t *testing.T) {
	y, p := []float64{0, 0, 1, 1, 0, 1, 0, 1}, []float32{0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.05, 0.9}
	cy, cp := []float64{0, 1, 2, 1}, []float32{0.7, 0.2, 0.1, 0.3, 0.4, 0.3, 0.2, 0.3, 0.5, 0.5, 0.25, 0.25}
	ry, rp := []float64{3, -0.5, 2, 7}, []float32{2.5, 0, 2, 8}
	for _, c := range []struct {
		m    kind.Metric
		task kind.Task
		y    []float64
		p    []float32
		want float64
	}{
		{metric.ROCAUC{}, binary, y, p, 0.8125},
		{metric.PRAUC{}, binary, y, p, 0.5*1 + 0.25*3.0/5 + 0.25*4.0/6},
		{metric.LogLoss{}, binary, []float64{1, 0}, []float32{0.75, 0.25}, -math.Log(0.75)},
		{metric.Accuracy{}, binary, y, p, 0.75},
		{metric.F1{}, binary, y, p, 2.0 / 3},
		{metric.ROCAUC{}, three, cy, cp, (1 + 0.75 + 1) / 3.0},
		{metric.LogLoss{}, three, cy, cp, -(math.Log(0.7) + math.Log(0.4) + math.Log(0.5) + math.Log(0.25)) / 4},
		{metric.Accuracy{}, three, cy, cp, 0.75},
		{metric.F1{}, three, cy, cp, (2.0/3 + 2.0/3 + 1) / 3},
		{metric.RMSE{}, regression, ry, rp, math.Sqrt(0.375)},
		{metric.MAE{}, regression, ry, rp, 0.5},
		{metric.R2{}, regression, ry, rp, 0.9486081370449679},
	} {
		got, err := c.m.Compute(c.task, c.y, c.p)
		if err != nil || math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s %s: %v %v, want %v", c.m.Name(), c.task.Kind, got, err, c.want)
		}
	}
}

// TestROCAUCIsPairs: the area is the share of pairs in the right order, ties
// counting half.
func TestROCAUCIsPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 30).Draw(t, "n")
		y, p := make([]float64, n), make([]float32, n)
		for i := range n {
			y[i], p[i] = float64(rapid.IntRange(0, 1).Draw(t, "y")), float32(rapid.IntRange(0, 5).Draw(t, "p"))
		}
		var pairs, right float64
		for i := range n {
			for j := range n {
				if y[i] == 1 && y[j] == 0 {
					pairs++
					if p[i] > p[j] {
						right++
					} else if p[i] == p[j] {
						right += 0.5
					}
				}
			}
		}
		got, err := metric.ROCAUC{}.Compute(binary, y, p)
		if (err != nil) != (pairs == 0) {
			t.Fatalf("%v pairs, error %v", pairs, err)
		}
		if err == nil && math.Abs(got-right/pairs) > 1e-12 {
			t.Fatalf("%v, want %v", got, right/pairs)
		}
	})
}
