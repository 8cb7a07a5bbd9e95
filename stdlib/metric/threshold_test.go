package metric_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestThreshold compares with scikit-learn 1.9.1 (balanced_accuracy_score,
// precision_score, recall_score, f1_score, matthews_corrcoef; macro over the classes
// that occur in truth or prediction, with zero_division=0).
func TestThreshold(t *testing.T) {
	for _, r := range []rows{
		{metric.BalancedAccuracy{}, binary, yBinary, pBinary, 0.8434343434343434},
		{metric.Precision{}, binary, yBinary, pBinary, 0.8333333333333334},
		{metric.Recall{}, binary, yBinary, pBinary, 0.9090909090909091},
		{metric.F1{}, binary, yBinary, pBinary, 0.8695652173913043},
		{metric.MCC{}, binary, yBinary, pBinary, 0.6975184488828855},
		{metric.BalancedAccuracy{}, five, yFive, pFive, 0.4},
		{metric.Precision{}, five, yFive, pFive, 0.3733333333333333},
		{metric.Recall{}, five, yFive, pFive, 0.4},
		{metric.F1{}, five, yFive, pFive, 0.3142857142857143},
		{metric.MCC{}, five, yFive, pFive, 0.196338867901776},
		{metric.Precision{}, labels, yLabels, pLabels, 0.8055555555555555},
		{metric.Recall{}, labels, yLabels, pLabels, 0.7388888888888889},
		{metric.F1{}, labels, yLabels, pLabels, 0.7685185185185185},
		{metric.Recall{}, labels, yRare, pLabels, 0.5166666666666667},
		{metric.F1{}, labels, yRare, pLabels, 0.5462962962962963},
		// Class b neither has rows nor is predicted: it is no part of the mean.
		{metric.BalancedAccuracy{}, three, []float64{0, 2}, []float32{1, 0, 0, 0, 0, 1}, 1},
		{metric.Precision{}, three, []float64{0, 2}, []float32{1, 0, 0, 0, 0, 1}, 1},
		{metric.Recall{}, three, []float64{0, 2}, []float32{1, 0, 0, 0, 0, 1}, 1},
		{metric.F1{}, three, []float64{0, 2}, []float32{1, 0, 0, 0, 0, 1}, 1},
		// It has no rows but is predicted once: balanced accuracy alone leaves it out.
		{metric.BalancedAccuracy{}, three, []float64{0, 2, 2}, []float32{1, 0, 0, 0, 0, 1, 0, 1, 0}, 0.75},
		{metric.Precision{}, three, []float64{0, 2, 2}, []float32{1, 0, 0, 0, 0, 1, 0, 1, 0}, 2.0 / 3},
		{metric.Recall{}, three, []float64{0, 2, 2}, []float32{1, 0, 0, 0, 0, 1, 0, 1, 0}, 0.5},
		{metric.F1{}, three, []float64{0, 2, 2}, []float32{1, 0, 0, 0, 0, 1, 0, 1, 0}, 5.0 / 9},
		// So it is with a label that no row has; and nothing at all is nothing found.
		{metric.Recall{}, labels, []float64{1, 0, 0, 1, 0, 1}, []float32{1, 0, 0, 0, 0, 1}, 0.75},
		{metric.F1{}, labels, []float64{0, 0, 0}, []float32{0, 0, 0}, 0},
		// A model that always says the same.
		{metric.Precision{}, binary, []float64{0, 1}, []float32{0.25, 0.25}, 0},
		{metric.MCC{}, binary, []float64{0, 1}, []float32{0.25, 0.25}, 0},
	} {
		r.check(t)
	}
}

// at is a task that decides from a threshold on.
func at(task kind.Task, threshold float64) kind.Task {
	task.Threshold = threshold
	return task
}

// TestCut compares with scikit-learn 1.9.1 for decisions from thresholds on that the
// task has; 0.4375 and 0.625 are scores that occur. Without one it is 0.5.
func TestCut(t *testing.T) {
	for _, task := range []kind.Task{binary, anomaly} {
		for _, r := range []rows{
			{metric.Accuracy{}, at(task, 0.4375), yBinary, pBinary, 0.8},
			{metric.BalancedAccuracy{}, at(task, 0.4375), yBinary, pBinary, 0.7777777777777778},
			{metric.Precision{}, at(task, 0.4375), yBinary, pBinary, 0.7333333333333333},
			{metric.Recall{}, at(task, 0.4375), yBinary, pBinary, 1},
			{metric.F1{}, at(task, 0.4375), yBinary, pBinary, 0.8461538461538461},
			{metric.MCC{}, at(task, 0.4375), yBinary, pBinary, 0.6382847385042254},
			{metric.Accuracy{}, at(task, 0.6), yBinary, pBinary, 0.75},
			{metric.BalancedAccuracy{}, at(task, 0.625), yBinary, pBinary, 0.7626262626262625},
			{metric.Precision{}, at(task, 0.6), yBinary, pBinary, 0.875},
			{metric.Recall{}, at(task, 0.625), yBinary, pBinary, 0.6363636363636364},
			{metric.F1{}, at(task, 0.6), yBinary, pBinary, 0.7368421052631579},
			{metric.MCC{}, at(task, 0.625), yBinary, pBinary, 0.5333964609104418},
			{metric.Recall{}, task, yBinary, pBinary, 0.9090909090909091},
			{metric.Precision{}, task, yBinary, pBinary, 0.8333333333333334},
		} {
			r.check(t)
		}
	}
}

// TestCutMovesOneWay: a greater threshold finds no more of the true rows, and scores
// that are moved along with it change nothing.
func TestCutMovesOneWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := drawDecided(t)
		low, high := rapid.IntRange(1, 16).Draw(t, "low"), rapid.IntRange(1, 16).Draw(t, "high")
		low, high = min(low, high), max(low, high)
		a, b := at(anomaly, float64(low)/16), at(anomaly, float64(high)/16)
		if value(t, metric.Recall{}, a, y, p) < value(t, metric.Recall{}, b, y, p) {
			t.Fatalf("more are found from %d/16 than from %d/16", high, low)
		}
		moved := make([]float32, len(p))
		for i, q := range p {
			moved[i] = q + float32(high-low)/16
		}
		for _, m := range []kind.Metric{metric.Accuracy{}, metric.BalancedAccuracy{}, metric.Precision{}, metric.Recall{}, metric.F1{}, metric.MCC{}} {
			near(t, m.Name(), value(t, m, a, y, p), value(t, m, b, y, moved))
		}
	})
}

// swap exchanges true and false.
func swap(y []float64, p []float32) ([]float64, []float32) {
	y2, p2 := make([]float64, len(y)), make([]float32, len(p))
	for i := range y {
		y2[i], p2[i] = 1-y[i], 1-p[i]
	}
	return y2, p2
}

// drawDecided makes binary rows of both classes and no probability of 0.5.
func drawDecided(t *rapid.T) ([]float64, []float32) {
	y, p := draw(t, binary, 2)
	y[0], y[1] = 0, 1
	for i := range p {
		if p[i] == 0.5 {
			p[i] = 0.75
		}
	}
	return y, p
}

// TestTrueAndFalseAreAlike: balanced accuracy and MCC do not care which class is
// called true; balanced accuracy is the mean of both recalls, F1 the harmonic
// mean of precision and recall.
func TestTrueAndFalseAreAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := drawDecided(t)
		y2, p2 := swap(y, p)
		balanced := value(t, metric.BalancedAccuracy{}, binary, y, p)
		near(t, "balanced accuracy", balanced, value(t, metric.BalancedAccuracy{}, binary, y2, p2))
		near(t, "mcc", value(t, metric.MCC{}, binary, y, p), value(t, metric.MCC{}, binary, y2, p2))
		recall := value(t, metric.Recall{}, binary, y, p)
		near(t, "both recalls", balanced, (recall+value(t, metric.Recall{}, binary, y2, p2))/2)
		if precision := value(t, metric.Precision{}, binary, y, p); precision > 0 {
			near(t, "f1", value(t, metric.F1{}, binary, y, p), 2/(1/precision+1/recall))
		}
	})
}

// TestMCCIsCorrelation: it is Pearson's correlation of labels and decisions, so
// exchanging the two changes nothing, and inverting one its sign.
func TestMCCIsCorrelation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := drawDecided(t)
		said, asRow, inverse := make([]float64, len(y)), make([]float32, len(y)), make([]float32, len(y))
		var n, sy, sd, syd float64
		for i := range y {
			if p[i] >= 0.5 {
				said[i] = 1
			}
			asRow[i], inverse[i] = float32(y[i]), 1-p[i]
			n, sy, sd, syd = n+1, sy+y[i], sd+said[i], syd+y[i]*said[i]
		}
		got := value(t, metric.MCC{}, binary, y, p)
		near(t, "inverse", got, -value(t, metric.MCC{}, binary, y, inverse))
		if sd > 0 && sd < n {
			near(t, "correlation", got, (n*syd-sy*sd)/math.Sqrt(sy*(n-sy)*sd*(n-sd)))
			near(t, "exchanged", got, value(t, metric.MCC{}, binary, said, asRow))
		} else if got != 0 {
			t.Fatalf("%v of a model that always says the same", got)
		}
	})
}

// TestNamesOfClasses: what a class is called, and hence its place, changes no
// metric; two classes have the MCC and the balanced accuracy of binary.
func TestNamesOfClasses(t *testing.T) {
	two := kind.Task{Kind: kind.Multiclass, Classes: []string{"no", "yes"}}
	metrics := []kind.Metric{metric.BalancedAccuracy{}, metric.Precision{}, metric.Recall{}, metric.F1{}, metric.MCC{}, metric.Brier{}, metric.ECE{}}
	rapid.Check(t, func(t *rapid.T) {
		y, _ := draw(t, five, 2)
		y[0], y[1] = 0, 1
		names := rapid.Permutation(indices(5)).Draw(t, "names")
		y2, p, p2 := make([]float64, len(y)), make([]float32, 5*len(y)), make([]float32, 5*len(y))
		for i := range y {
			y2[i] = float64(names[int(y[i])])
			for c, q := range rapid.Permutation([]float32{0.5, 0.25, 0.125, 0.0625, 0.0625}).Draw(t, "p") {
				p[i*5+c], p2[i*5+names[c]] = q, q
			}
		}
		for _, m := range metrics {
			near(t, m.Name(), value(t, m, five, y, p), value(t, m, five, y2, p2))
		}
		y, p = drawDecided(t)
		p2 = make([]float32, 0, 2*len(p))
		for _, q := range p {
			p2 = append(p2, 1-q, q)
		}
		near(t, "mcc", value(t, metric.MCC{}, binary, y, p), value(t, metric.MCC{}, two, y, p2))
		near(t, "balanced accuracy", value(t, metric.BalancedAccuracy{}, binary, y, p), value(t, metric.BalancedAccuracy{}, two, y, p2))
		near(t, "brier", 2*value(t, metric.Brier{}, binary, y, p), value(t, metric.Brier{}, two, y, p2))
	})
}
