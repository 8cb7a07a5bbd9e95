package metric

import "mlc.dev/mlc/compiler/kind"

// ExactMatch is the share of rows of which every label is predicted right, from the
// task's threshold on (subset accuracy; accuracy_score of scikit-learn).
type ExactMatch struct{}

// Name is "exact_match".
func (ExactMatch) Name() string { return "exact_match" }

// Version of the implementation.
func (ExactMatch) Version() int { return 1 }

// Tasks is multilabel.
func (ExactMatch) Tasks() []string { return []string{kind.Multilabel} }

// Better is up.
func (ExactMatch) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (ExactMatch) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (ExactMatch) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width()
	return share(len(y)/w, func(i int) bool {
		for c := i * w; c < (i+1)*w; c++ {
			if decideLabel(task, p[c]) != int(y[c]) {
				return false
			}
		}
		return true
	})
}

// HammingLoss is the share of labels, over all rows, that are predicted wrong, from
// the task's threshold on (Schapire and Singer 1999, "Improved boosting algorithms
// using confidence-rated predictions"; hamming_loss of scikit-learn).
type HammingLoss struct{}

// Name is "hamming_loss".
func (HammingLoss) Name() string { return "hamming_loss" }

// Version of the implementation.
func (HammingLoss) Version() int { return 1 }

// Tasks is multilabel.
func (HammingLoss) Tasks() []string { return []string{kind.Multilabel} }

// Better is down.
func (HammingLoss) Better() kind.Direction { return kind.Down }

// Range is from 0 to 1.
func (HammingLoss) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (HammingLoss) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return share(len(y), func(i int) bool { return decideLabel(task, p[i]) != int(y[i]) })
}

// MicroF1 is F1 with the labels of all rows counted together, so that a frequent
// label weighs more than a rare one, at the task's threshold. It is 0 where nothing
// is found.
type MicroF1 struct{}

// Name is "micro_f1".
func (MicroF1) Name() string { return "micro_f1" }

// Version of the implementation.
func (MicroF1) Version() int { return 1 }

// Tasks is multilabel.
func (MicroF1) Tasks() []string { return []string{kind.Multilabel} }

// Better is up.
func (MicroF1) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (MicroF1) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (MicroF1) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	var all count
	for _, c := range confusion(task, y, p) {
		all.hit, all.said, all.is = all.hit+c.hit, all.said+c.said, all.is+c.is
	}
	return ratio(2*all.hit, all.said+all.is), nil
}
