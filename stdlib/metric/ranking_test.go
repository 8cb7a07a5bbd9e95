package metric_test

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestRanking compares with scikit-learn 1.9.1 (roc_auc_score and
// average_precision_score, with average="macro"; top_k_accuracy_score), and the lift, which it has not, with numpy: the tenth of a stable sort where no scores
// tie, and its mean over 40000 random orders where they do.
func TestRanking(t *testing.T) {
	distinct, halves := make([]float32, 20), make([]float32, 20)
	for i := range distinct {
		distinct[i] = float32(i*7%20)/32 + 0.125
		halves[i] = float32(math.Floor(float64(pBinary[i])*2)) / 2
	}
	for _, r := range []rows{
		{metric.ROCAUC{}, labels, yLabels, pLabels, 0.9569444444444445},
		{metric.PRAUC{}, labels, yLabels, pLabels, 0.9555555555555554},
		{metric.ROCAUC{}, anomaly, yBinary, pBinary, 0.8787878787878789},
		{metric.PRAUC{}, anomaly, yBinary, pBinary, 0.8772727272727272},
		{metric.Lift10{}, anomaly, yBinary, pBinary, 1.8181818181818181},
		{metric.Top3Accuracy{}, five, yFive, pFive, 0.8333333333333334},
		{metric.Top3Accuracy{}, seven, ySeven, pSeven, 0.5},
		{metric.Top5Accuracy{}, seven, ySeven, pSeven, 0.9},
		{metric.Top5Accuracy{}, five, yFive, pFive, 1},
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

// TestRankingIsBySorting: whatever the scores are, the values are to the last bit
// those of rows that a sort by comparison put in order.
func TestRankingIsBySorting(t *testing.T) {
	odd := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32,
		math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), 0.1, math.Nextafter32(0.1, 1),
	}
	rapid.Check(t, func(t *rapid.T) {
		score := rapid.OneOf(rapid.Float32(), rapid.SampledFrom(odd), rapid.Float32Range(0, 1))
		n := rapid.IntRange(2, 200).Draw(t, "n")
		y, p := make([]float64, n), make([]float32, n)
		for i := range n {
			y[i], p[i] = float64(rapid.IntRange(0, 1).Draw(t, "y")), score.Draw(t, "p")
		}
		y[0], y[1] = 0, 1
		roc, pr, lift := bySorting(y, p)
		for _, c := range []struct {
			m    kind.Metric
			want float64
		}{{metric.ROCAUC{}, roc}, {metric.PRAUC{}, pr}, {metric.Lift10{}, lift}} {
			if got := value(t, c.m, binary, y, p); got != c.want {
				t.Fatalf("%s: %v, by sorting %v", c.m.Name(), got, c.want)
			}
		}
	})
}

// bySorting is the area under both curves and the lift.
func bySorting(y []float64, p []float32) (roc, pr, lift float64) {
	order := indices(len(p))
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[b], p[a]) })
	var tp, fp float64
	room := float64(len(p))
	for i := 0; i < len(order); {
		var dtp, dfp float64
		for s := p[order[i]]; i < len(order) && p[order[i]] == s; i++ {
			dtp, dfp = dtp+y[order[i]], dfp+1-y[order[i]]
		}
		take := min(room, 10*(dtp+dfp))
		lift += dtp * take / (dtp + dfp)
		room -= take
		roc += dfp * (tp + dtp/2)
		tp, fp = tp+dtp, fp+dfp
		pr += dtp * tp / (tp + fp)
	}
	return roc / (tp * fp), pr / tp, lift / tp
}

// BenchmarkRanking judges what a replicate of a bootstrap holds: 10000 rows, drawn
// with replacement.
func BenchmarkRanking(b *testing.B) {
	const n = 10_000
	r := rand.New(rand.NewPCG(1, 2))
	y, p := make([]float64, n), make([]float32, n)
	for i := range n {
		if i >= n/3 && r.IntN(3) == 0 {
			from := r.IntN(n / 3)
			y[i], p[i] = y[from], p[from]
			continue
		}
		y[i], p[i] = float64(r.IntN(2)), float32(1/(1+math.Exp(-r.NormFloat64())))
	}
	for _, m := range []kind.Metric{metric.ROCAUC{}, metric.PRAUC{}, metric.Lift10{}} {
		b.Run(m.Name(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Compute(binary, y, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
