package metric_test

import (
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestMultilabel compares with scikit-learn 1.9.1 (accuracy_score, hamming_loss,
// f1_score with average="micro"). A model that finds nothing has the F1 0.
func TestMultilabel(t *testing.T) {
	for _, r := range []rows{
		{metric.ExactMatch{}, labels, yLabels, pLabels, 0.375},
		{metric.HammingLoss{}, labels, yLabels, pLabels, 0.20833333333333334},
		{metric.MicroF1{}, labels, yLabels, pLabels, 0.782608695652174},
		{metric.MicroF1{}, labels, []float64{0, 0, 1}, []float32{0, 0, 0}, 0},
	} {
		r.check(t)
	}
}

// TestOneLabelIsBinary: one label is judged as binary is; so the new metrics are the
// accuracy, its complement, and F1.
func TestOneLabelIsBinary(t *testing.T) {
	one := kind.Task{Kind: kind.Multilabel, Classes: []string{"a"}}
	rapid.Check(t, func(t *rapid.T) {
		y, p := drawDecided(t)
		for _, m := range []kind.Metric{metric.ROCAUC{}, metric.PRAUC{}, metric.LogLoss{}, metric.Brier{}, metric.Precision{}, metric.Recall{}, metric.F1{}} {
			near(t, m.Name(), value(t, m, binary, y, p), value(t, m, one, y, p))
		}
		accuracy := value(t, metric.Accuracy{}, binary, y, p)
		near(t, "exact match", accuracy, value(t, metric.ExactMatch{}, one, y, p))
		near(t, "hamming loss", 1-accuracy, value(t, metric.HammingLoss{}, one, y, p))
		near(t, "micro f1", value(t, metric.F1{}, binary, y, p), value(t, metric.MicroF1{}, one, y, p))
	})
}

// TestLabelsAreMeans: a metric of labels is the mean of each one's as binary, and a
// row has a wrong label no more often than it has not every label right.
func TestLabelsAreMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, p := draw(t, labels, 2)
		w := labels.Width()
		copy(y, []float64{0, 0, 0, 1, 1, 1}) // every label in a row, and not in another
		for _, m := range []kind.Metric{metric.ROCAUC{}, metric.PRAUC{}, metric.LogLoss{}, metric.Brier{}, metric.Precision{}, metric.Recall{}, metric.F1{}} {
			sum := 0.0
			for c := range w {
				var y1 []float64
				var p1 []float32
				for i := c; i < len(y); i += w {
					y1, p1 = append(y1, y[i]), append(p1, p[i])
				}
				sum += value(t, m, binary, y1, p1)
			}
			near(t, m.Name(), sum/float64(w), value(t, m, labels, y, p))
		}
		exact, hamming := value(t, metric.ExactMatch{}, labels, y, p), value(t, metric.HammingLoss{}, labels, y, p)
		if wrong := 1 - exact; hamming > wrong+1e-12 || wrong > hamming*float64(w)+1e-12 {
			t.Fatalf("hamming loss %v, rows that are wrong %v", hamming, wrong)
		}
	})
}
