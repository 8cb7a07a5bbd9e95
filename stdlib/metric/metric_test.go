package metric_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

var (
	binary     = kind.Task{Kind: kind.Binary}
	three      = kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}
	regression = kind.Task{Kind: kind.Regression}
	five       = kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c", "d", "e"}}
	seven      = kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c", "d", "e", "f", "g"}}
	labels     = kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b", "c"}}
	quantiles  = kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.125, 0.5, 0.9}}
	counts     = kind.Task{Kind: kind.Count}
	anomaly    = kind.Task{Kind: kind.Anomaly}
)

// Rows whose numbers float32 holds exactly.
var (
	yBinary = []float64{1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0}
	pBinary = []float32{
		0.5, 0.5, 0.5, 0.625, 0.625, 0.6875, 1, 0.5625, 0.4375, 0.6875,
		0.125, 0.4375, 0.75, 0, 0, 0.6875, 0.3125, 0.9375, 0.4375, 0.375,
	}
	yFive = []float64{3, 2, 0, 0, 2, 2, 1, 4, 0, 4, 2, 1}
	pFive = []float32{
		0.234375, 0.03125, 0.0625, 0.625, 0.046875,
		0.09375, 0.015625, 0.484375, 0.125, 0.28125,
		0.0625, 0.046875, 0.796875, 0, 0.09375,
		0.078125, 0.109375, 0.203125, 0.59375, 0.015625,
		0.421875, 0.03125, 0.34375, 0.078125, 0.125,
		0.015625, 0.109375, 0.3125, 0.140625, 0.421875,
		0.203125, 0.625, 0.078125, 0.09375, 0,
		0.09375, 0.125, 0.046875, 0.53125, 0.203125,
		0.0625, 0.125, 0.15625, 0.390625, 0.265625,
		0.375, 0.125, 0, 0.34375, 0.15625,
		0.0625, 0.203125, 0.625, 0.09375, 0.015625,
		0.125, 0.265625, 0.15625, 0.390625, 0.0625,
	}
	ySeven = []float64{3, 6, 0, 2, 5, 0, 1, 4, 2, 4}
	pSeven = []float32{
		0.03125, 0.125, 0.046875, 0.078125, 0.5, 0.203125, 0.015625,
		0.015625, 0.03125, 0.078125, 0.5, 0.125, 0.046875, 0.203125,
		0.5, 0.046875, 0.078125, 0.03125, 0.015625, 0.203125, 0.125,
		0.046875, 0.03125, 0.125, 0.078125, 0.015625, 0.5, 0.203125,
		0.078125, 0.203125, 0.125, 0.046875, 0.015625, 0.5, 0.03125,
		0.015625, 0.03125, 0.046875, 0.5, 0.125, 0.078125, 0.203125,
		0.203125, 0.046875, 0.015625, 0.03125, 0.5, 0.078125, 0.125,
		0.03125, 0.015625, 0.078125, 0.046875, 0.125, 0.203125, 0.5,
		0.5, 0.203125, 0.046875, 0.125, 0.03125, 0.078125, 0.015625,
		0.03125, 0.015625, 0.203125, 0.046875, 0.078125, 0.5, 0.125,
	}
	yValue = []float64{3, 0.5, 2, 7, 12.5, 0.25, 40}
	pValue = []float32{2.5, 1, 2, 8, 10, 0.75, 45.5}
	// The labels of yValue, in quantiles.
	pQuantile = []float32{
		1, 2.5, 4,
		0.25, 1, 2,
		2, 2, 2.5,
		4, 8, 10,
		6, 10, 12,
		0.5, 0.75, 3,
		20, 45.5, 60,
	}
	yCount  = []float64{0, 1, 3, 0, 7, 2, 15}
	pCount  = []float32{0.5, 1.25, 2, 0.125, 8, 3, 11}
	yLabels = []float64{
		1, 0, 1,
		0, 0, 1,
		1, 1, 0,
		0, 0, 0,
		1, 0, 1,
		0, 1, 0,
		1, 1, 1,
		0, 0, 1,
	}
	// The same without a row that has b.
	yRare = []float64{
		1, 0, 1,
		0, 0, 1,
		1, 0, 0,
		0, 0, 0,
		1, 0, 1,
		0, 0, 0,
		1, 0, 1,
		0, 0, 1,
	}
	pLabels = []float32{
		0.75, 0.25, 0.5,
		0.125, 0.375, 0.875,
		0.625, 0.4375, 0.25,
		0.25, 0.5, 0.125,
		0.4375, 0.0625, 0.9375,
		0.5, 0.8125, 0.25,
		0.875, 0.5625, 0.375,
		0.25, 0.25, 0.625,
	}
)

// rows are predictions, their labels, and the value that they give.
type rows struct {
	m    kind.Metric
	task kind.Task
	y    []float64
	p    []float32
	want float64
}

func (r rows) check(t *testing.T) {
	t.Helper()
	got, err := r.m.Compute(r.task, r.y, r.p)
	if err != nil || math.Abs(got-r.want) > 1e-12 {
		t.Errorf("%s %s: %v %v, want %v", r.m.Name(), r.task.Kind, got, err, r.want)
	}
}

// value computes a metric that has to be defined.
func value(t *rapid.T, m kind.Metric, task kind.Task, y []float64, p []float32) float64 {
	t.Helper()
	v, err := m.Compute(task, y, p)
	if err != nil {
		t.Fatalf("%s: %v", m.Name(), err)
	}
	return v
}

func near(t *rapid.T, what string, a, b float64) {
	t.Helper()
	if math.Abs(a-b) > 1e-9*max(1, math.Abs(a)) {
		t.Fatalf("%s: %v and %v", what, a, b)
	}
}

// draw makes rows of a task: probabilities and values with many ties.
func draw(t *rapid.T, task kind.Task, least int) ([]float64, []float32) {
	n, w := rapid.IntRange(least, 40).Draw(t, "n"), task.Width()
	y, p := make([]float64, n*task.Targets()), make([]float32, n*w)
	for i := range n {
		switch {
		case task.Kind == kind.Multilabel:
			for c := i * w; c < (i+1)*w; c++ {
				y[c], p[c] = float64(rapid.IntRange(0, 1).Draw(t, "y")), float32(rapid.IntRange(0, 16).Draw(t, "p"))/16
			}
		case task.Kind == kind.Quantile:
			y[i] = float64(rapid.IntRange(-40, 40).Draw(t, "y")) / 4
			for c := i * w; c < (i+1)*w; c++ {
				p[c] = float32(rapid.IntRange(-40, 40).Draw(t, "p")) / 4
			}
			slices.Sort(p[i*w : (i+1)*w])
		case task.Kind == kind.Count:
			y[i], p[i] = float64(rapid.IntRange(0, 9).Draw(t, "y")), float32(rapid.IntRange(0, 40).Draw(t, "p"))/4
		case task.Kind == kind.Regression:
			y[i], p[i] = float64(rapid.IntRange(-40, 40).Draw(t, "y"))/4, float32(rapid.IntRange(-40, 40).Draw(t, "p"))/4
		case w == 1:
			y[i], p[i] = float64(rapid.IntRange(0, 1).Draw(t, "y")), float32(rapid.IntRange(0, 16).Draw(t, "p"))/16
		default:
			y[i] = float64(rapid.IntRange(0, w-1).Draw(t, "y"))
			left := 16
			for c := range w - 1 {
				q := rapid.IntRange(0, left).Draw(t, "p")
				p[i*w+c], left = float32(q)/16, left-q
			}
			p[i*w+w-1] = float32(left) / 16
		}
	}
	return y, p
}

// all are the metrics.
var all = []kind.Metric{
	metric.Accuracy{}, metric.BalancedAccuracy{}, metric.Precision{}, metric.Recall{}, metric.F1{}, metric.MCC{}, metric.LogLoss{}, metric.Brier{}, metric.ECE{}, metric.ROCAUC{},
	metric.PRAUC{}, metric.Lift10{}, metric.Top3Accuracy{}, metric.RMSE{}, metric.R2{}, metric.ExplainedVariance{}, metric.MAE{}, metric.MedAE{}, metric.MaxError{}, metric.MAPE{},
	metric.SMAPE{}, metric.RMSLE{}, metric.Top5Accuracy{}, metric.ExactMatch{}, metric.HammingLoss{}, metric.MicroF1{}, metric.Pinball{}, metric.CoverageError{}, metric.PoissonDeviance{},
}

// TestBoundsAndOrder: a value lies in its range, and the order of the rows does
// not change it. No rows at all give no NaN.
func TestBoundsAndOrder(t *testing.T) {
	const rounding = 1e-12
	for _, m := range all {
		lo, hi := m.Range()
		for _, task := range []kind.Task{binary, three, five, seven, regression, labels, quantiles, counts, anomaly} {
			if !slices.Contains(m.Tasks(), task.Kind) {
				continue
			}
			t.Run(m.Name()+" "+task.Kind, rapid.MakeCheck(func(t *rapid.T) {
				y, p := draw(t, task, 0)
				v, err := m.Compute(task, y, p)
				if err == nil && !(v >= lo-rounding && v <= hi+rounding) {
					t.Fatalf("%v is outside %v to %v", v, lo, hi)
				}
				w, targets := task.Width(), task.Targets()
				y2, p2 := make([]float64, len(y)), make([]float32, len(p))
				for i, from := range rapid.Permutation(indices(len(y)/targets)).Draw(t, "order") {
					copy(y2[i*targets:(i+1)*targets], y[from*targets:])
					copy(p2[i*w:(i+1)*w], p[from*w:])
				}
				v2, err2 := m.Compute(task, y2, p2)
				if (err == nil) != (err2 == nil) {
					t.Fatalf("%v in one order, %v in another", err, err2)
				}
				near(t, "two orders", v, v2)
			}))
		}
	}
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestNotDefined: what the formula does not cover fails and says so.
func TestNotDefined(t *testing.T) {
	oneClass, same := "the rows hold one class only, so it is not defined", "every label is the same, so it is not defined"
	for _, c := range []struct {
		m    kind.Metric
		task kind.Task
		y    []float64
		p    []float32
		want string
	}{
		{metric.BalancedAccuracy{}, binary, []float64{1, 1}, []float32{0.2, 0.7}, oneClass},
		{metric.BalancedAccuracy{}, three, []float64{2}, []float32{0, 0, 1}, oneClass},
		{metric.Recall{}, binary, []float64{0, 0}, []float32{0.2, 0.7}, oneClass},
		{metric.MCC{}, binary, []float64{0, 0}, []float32{0.2, 0.7}, oneClass},
		{metric.MCC{}, three, []float64{2}, []float32{0, 0, 1}, oneClass},
		{metric.Lift10{}, binary, []float64{0, 0}, []float32{0.2, 0.7}, oneClass},
		{metric.Recall{}, anomaly, []float64{0, 0}, []float32{0.2, 0.7}, oneClass},
		{metric.ROCAUC{}, anomaly, []float64{1, 1}, []float32{0.2, 0.7}, oneClass},
		{metric.PRAUC{}, anomaly, []float64{0, 0}, []float32{0.2, 0.7}, oneClass},
		{metric.ROCAUC{}, three, []float64{2, 0}, []float32{0, 0, 1, 1, 0, 0}, `"b" or not: ` + oneClass},
		{metric.ROCAUC{}, labels, yRare, pLabels, `"b" or not: ` + oneClass},
		{metric.PRAUC{}, labels, yRare, pLabels, `"b" or not: ` + oneClass},
		{metric.R2{}, regression, []float64{2, 2}, []float32{2, 3}, same},
		{metric.ExplainedVariance{}, regression, []float64{2, 2}, []float32{2, 3}, same},
		{metric.MAPE{}, regression, []float64{2, 0}, []float32{2, 0}, "a label is 0, so it is not defined; smape is"},
		{metric.RMSLE{}, regression, []float64{2, -0.5}, []float32{2, 0}, "a label is below 0, so it is not defined"},
		{metric.RMSLE{}, regression, []float64{2, 0.5}, []float32{2, -0.5}, "a prediction is below 0, so it is not defined"},
		{metric.PoissonDeviance{}, counts, []float64{2, -1}, []float32{2, 1}, "a label is below 0, so it is not defined"},
		{metric.PoissonDeviance{}, counts, []float64{2, 1}, []float32{2, -1}, "a prediction is below 0, so it is not defined"},
		{metric.PoissonDeviance{}, counts, []float64{2, 1}, []float32{2, 0}, "a prediction is 0 where the label is not, so it is not defined"},
		{metric.Pinball{}, quantiles, []float64{math.MaxFloat64, math.MaxFloat64}, []float32{0, 0, 0, 0, 0, 0}, "its value is no finite number"},
		{metric.CoverageError{}, quantiles, nil, nil, "its value is no finite number"},
		{metric.ExactMatch{}, labels, nil, nil, "its value is no finite number"},
		{metric.RMSE{}, regression, []float64{1e200, 1}, []float32{0, 0}, "its value is no finite number"},
		{metric.R2{}, regression, []float64{1e200, 1}, []float32{0, 0}, "its value is no finite number"},
		{metric.ExplainedVariance{}, regression, []float64{1e200, 1}, []float32{0, 0}, "its value is no finite number"},
		{metric.MAE{}, regression, []float64{1.5e308, 1.5e308}, []float32{0, 0}, "its value is no finite number"},
		{metric.MedAE{}, regression, []float64{1.5e308, 1.5e308}, []float32{0, 0}, "its value is no finite number"},
		{metric.MAPE{}, regression, []float64{5e-324, 1}, []float32{1, 1}, "its value is no finite number"},
	} {
		if got, err := c.m.Compute(c.task, c.y, c.p); err == nil || err.Error() != c.want {
			t.Errorf("%s of %v: %v, error %v, want %q", c.m.Name(), c.y, got, err, c.want)
		}
	}
}

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
