package metric_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestRanking compares with scikit-learn 1.9.1 (top_k_accuracy_score), and the
// lift, which it has not, with numpy: the tenth of a stable sort where no scores
// tie, and its mean over 40000 random orders where they do.
func TestRanking(t *testing.T) {
	distinct, halves := make([]float32, 20), make([]float32, 20)
	for i := range distinct {
		distinct[i] = float32(i*7%20)/32 + 0.125
		halves[i] = float32(math.Floor(float64(pBinary[i])*2)) / 2
	}
	for _, r := range []rows{
		{metric.Top3Accuracy{}, five, yFive, pFive, 0.8333333333333334},
		{metric.Lift10{}, binary, yBinary, pBinary, 1.8181818181818181},
		{metric.Lift10{}, binary, yBinary, distinct, 0.9090909090909091},
		{metric.Lift10{}, binary, yBinary, halves, 1.6528925619834711},
		{metric.Lift10{}, binary, []float64{1, 0, 0, 0, 1}, []float32{0.9, 0.1, 0.1, 0.1, 0.1}, 2.5},
	} {
		r.check(t)
	}
}

// TestLift10IsChances: a row counts by its chance to be in the tenth under a
// random order of equal scores. Rows that come twice change nothing.
func TestLift10IsChances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, binary, 1)
		y[0] = 1
		tenth := float64(len(y)) / 10
		var found, positive float64
		for i := range y {
			var above, tied float64
			for _, q := range p {
				if q > p[i] {
					above++
				} else if q == p[i] {
					tied++
				}
			}
			found += y[i] * min(max((tenth-above)/tied, 0), 1)
			positive += y[i]
		}
		got := value(t, metric.Lift10{}, binary, y, p)
		near(t, "lift", got, found/tenth/(positive/float64(len(y))))
		near(t, "rows twice", got, value(t, metric.Lift10{}, binary, append(y, y...), append(p, p...)))
	})
}

// TestTop3Accuracy: it is no less than the accuracy, and 1 for three classes.
func TestTop3Accuracy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, five, 1)
		if a, b := value(t, metric.Accuracy{}, five, y, p), value(t, metric.Top3Accuracy{}, five, y, p); a > b {
			t.Fatalf("accuracy %v, among three %v", a, b)
		}
		y, p = draw(t, three, 1)
		near(t, "three classes", value(t, metric.Top3Accuracy{}, three, y, p), 1)
	})
	// All tie, so the first three classes are the three.
	all := []float32{0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25}
	rows{metric.Top3Accuracy{}, kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c", "d"}}, []float64{2, 3}, all, 0.5}.check(t)
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
