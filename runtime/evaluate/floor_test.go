package evaluate

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestFloorIsClopperPearson: with no row mistaken, Z of the floor is the exact bound of
// so many rows, to within a sixth.
func TestFloorIsClopperPearson(t *testing.T) {
	for _, n := range []int{4, 10, 30, 100, 1000, 100_000} {
		p := Predictions{Task: binary, Y: make([]float64, n), P: make([]float32, n)}
		floor := NewBootstrap(n, nil, 1).Floor(metric.Accuracy{}, p)
		for _, c := range []float64{0.9, 0.95, 0.99, 0.999} {
			if exact := 1 - math.Pow(1-c, 1/float64(n)); math.Abs(Z(c)*floor/exact-1) > 1./6 {
				t.Errorf("%d rows, confidence %v: %v, not about %v", n, c, Z(c)*floor, exact)
			}
		}
	}
}

// TestFloor: what a metric rests on is the rows that it counts, or their groups.
func TestFloor(t *testing.T) {
	rows := func(task kind.Task, n, positives int, p float32) Predictions {
		out := Predictions{Task: task}
		for i := range n {
			y := 0.
			if i < positives {
				y = 1
			}
			out.Y, out.P = append(out.Y, y), append(out.P, p+float32(y)*(1-2*p))
		}
		return out
	}
	groups := func(n, of int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(i/of))
		}
		return out
	}
	three := kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}
	for _, c := range []struct {
		what   string
		m      kind.Metric
		p      Predictions
		groups []string
		want   float64
	}{
		{"recall of 5 true rows", metric.Recall{}, rows(binary, 1000, 5, 0.1), nil, 2. / 8},
		{"accuracy of all", metric.Accuracy{}, rows(binary, 1000, 5, 0.1), nil, 2. / 1003},
		{"AUC of 5 true rows", metric.ROCAUC{}, rows(binary, 1000, 5, 0.1), nil, 2. / 8},
		{"precision of one said to be true", metric.Precision{}, Predictions{Task: binary, Y: []float64{1, 1, 1, 0, 0, 0}, P: []float32{1, 0, 0, 0, 0, 0}}, nil, 2. / 4},
		{"entities of 10 rows", metric.Accuracy{}, rows(binary, 1000, 5, 0.1), groups(1000, 10), 2. / 103},
		{"macro recall, which a class with one row moves by no more than a third", metric.Recall{}, Predictions{Task: three, Y: []float64{0, 0, 0, 0, 1, 1, 1, 1, 2}, P: []float32{
			1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1}}, nil, 1. / 6},
		{"one class, all right", metric.Accuracy{}, Predictions{Task: three, Y: []float64{2, 2, 2, 2}, P: []float32{0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1}}, nil, 2. / 7},
		{"labels", metric.HammingLoss{}, Predictions{Task: kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, Y: []float64{1, 1, 1, 0, 1, 0, 1, 0, 1, 0}, P: []float32{1, 1, 1, 0, 1, 0, 1, 0, 1, 0}}, nil, 2. / 8},
		{"a number", metric.SMAPE{}, Predictions{Task: kind.Task{Kind: kind.Regression}, Y: []float64{1, 2, 3, 4, 5}, P: []float32{1, 2, 3, 4, 5}}, nil, 2 * 2. / 8},
		{"no end", metric.MAE{}, Predictions{Task: kind.Task{Kind: kind.Regression}, Y: []float64{1, 2}, P: []float32{1, 2}}, nil, 0},
		{"no end, of classes", metric.LogLoss{}, rows(binary, 10, 5, 0.1), nil, 0},
		{"a fold of two", metric.Accuracy{}, func() Predictions {
			p := rows(binary, 20, 10, 0)
			for i := range 20 {
				p.Fold = append(p.Fold, int32(i%2))
			}
			return p
		}(), nil, 2. / 23},
	} {
		got := NewBootstrap(c.p.Rows(), c.groups, 1).Floor(c.m, c.p)
		if math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, not %v", c.what, got, c.want)
		}
	}
}

// TestFloorIsSmall: where rows are mistaken as they are right, the floor is no more than
// the error that resampling finds.
func TestFloorIsSmall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(100, 300).Draw(t, "n")
		p := Predictions{Task: binary}
		for i := range n {
			p.Y, p.P = append(p.Y, float64(i%2)), append(p.P, float32(i*7%10)/10)
		}
		b := NewBootstrap(n, nil, 1)
		for _, m := range []kind.Metric{metric.Accuracy{}, metric.ROCAUC{}, metric.Recall{}, metric.F1{}, metric.MCC{}, metric.Brier{}} {
			errs, err := b.Errors(t.Context(), 1, func(at []int32, out []float64) { out[0] = p.At(at).Metric(m) })
			if floor := b.Floor(m, p); err != nil || floor > errs[0] {
				t.Errorf("%s of %d rows: floor %v, error %v", m.Name(), n, floor, errs[0])
			}
		}
	})
}

// TestDisparityFloor: two groups of which no row is decided to be true differ by nothing,
// as far as the smaller can tell.
func TestDisparityFloor(t *testing.T) {
	b := NewBootstrap(130, nil, 1)
	rates := []Rate{{"f", 30, 0}, {"m", 100, 0}}
	if got := b.DisparityFloor("fpr_difference", rates); math.Abs(got-2./33) > 1e-12 {
		t.Errorf("difference: %v", got)
	}
	rates = []Rate{{"f", 30, 1}, {"m", 100, 1}}
	if got := b.DisparityFloor("tpr_ratio", rates); math.Abs(got-2./33) > 1e-12 {
		t.Errorf("ratio: %v", got)
	}
}
