package metric

import (
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// decide returns the predicted class of row i: the likeliest, or true from the
// task's threshold on.
func decide(task kind.Task, p []float32, i int) int {
	w := task.Width()
	if w == 1 {
		return decideLabel(task, p[i])
	}
	best := 0
	for c := 1; c < w; c++ {
		if p[i*w+c] > p[i*w+best] {
			best = c
		}
	}
	return best
}

// decideLabel is 1 for a score from the task's threshold on, else 0.
func decideLabel(task kind.Task, score float32) int {
	if score >= float32(task.Cut()) {
		return 1
	}
	return 0
}

// count is what the confusion matrix tells of one class or label: the rows on the
// diagonal, those predicted to be of it, and those that are.
type count struct{ hit, said, is float64 }

// confusion counts the rows of every class or label; false and true are 0 and 1.
// It keeps sums of the matrix alone, because a task may have 10000 classes.
func confusion(task kind.Task, y []float64, p []float32) []count {
	if task.Kind == kind.Multilabel {
		w := task.Width()
		out := make([]count, w)
		for i, t := range y {
			said := float64(decideLabel(task, p[i]))
			c := &out[i%w]
			c.hit, c.said, c.is = c.hit+said*t, c.said+said, c.is+t
		}
		return out
	}
	out := make([]count, max(task.Width(), 2))
	for i := range y {
		said, is := decide(task, p, i), int(y[i])
		out[said].said++
		out[is].is++
		if said == is {
			out[is].hit++
		}
	}
	return out
}

// decided reports whether a row is decided to be true or false.
func decided(task kind.Task) bool { return task.Width() == 1 && task.Kind != kind.Multilabel }

// macro returns f of true or, for classes and labels, the mean of f over those that
// occur: that a row has or is predicted to have, as scikit-learn does it for classes.
// One that does neither tells nothing of the model.
func macro(task kind.Task, y []float64, p []float32, f func(count) float64) float64 {
	classes := confusion(task, y, p)
	if decided(task) {
		return f(classes[1])
	}
	sum, n := 0.0, 0.0
	for _, c := range classes {
		if c.said+c.is > 0 {
			sum += f(c)
			n++
		}
	}
	return ratio(sum, n)
}

// ratio is a / b, and 0 where a is.
func ratio(a, b float64) float64 {
	if a == 0 {
		return 0
	}
	return a / b
}

// Accuracy is the share of rows whose likeliest class, or decision at the task's
// threshold, is right.
type Accuracy struct{}

// Name is "accuracy".
func (Accuracy) Name() string { return "accuracy" }

// Version of the implementation.
func (Accuracy) Version() int { return 1 }

// Tasks are binary, multiclass and anomaly.
func (Accuracy) Tasks() []string { return []string{kind.Binary, kind.Multiclass, kind.Anomaly} }

// Better is up.
func (Accuracy) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (Accuracy) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (Accuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return share(len(y), func(i int) bool { return decide(task, p, i) == int(y[i]) })
}

// BalancedAccuracy is the mean, over the classes that have rows, of the share of
// a class's rows that are predicted to be of it (Brodersen et al. 2010, "The
// balanced accuracy and its posterior distribution"; for classes as in
// scikit-learn). Chance gives one over the number of classes. True is decided from
// the task's threshold on.
type BalancedAccuracy struct{}

// Name is "balanced_accuracy".
func (BalancedAccuracy) Name() string { return "balanced_accuracy" }

// Version of the implementation.
func (BalancedAccuracy) Version() int { return 1 }

// Tasks are binary, multiclass and anomaly.
func (BalancedAccuracy) Tasks() []string { return []string{kind.Binary, kind.Multiclass, kind.Anomaly} }

// Better is up.
func (BalancedAccuracy) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (BalancedAccuracy) Range() (lo, hi float64) { return 0, 1 }

// Compute fails where the rows hold one class only.
func (BalancedAccuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	var sum, n float64
	for _, c := range confusion(task, y, p) {
		if c.is > 0 {
			sum += c.hit / c.is
			n++
		}
	}
	if n < 2 {
		return 0, errOneClass
	}
	return sum / n, nil
}

// Precision is the share of the rows predicted true, from the task's threshold on,
// that are true: tp / (tp + fp) (van Rijsbergen 1979, "Information Retrieval"). For
// classes and labels it is the mean over those that occur (macro). It is 0 where nothing
// is predicted true.
type Precision struct{}

// Name is "precision".
func (Precision) Name() string { return "precision" }

// Version of the implementation.
func (Precision) Version() int { return 2 }

// Tasks are binary, multiclass, multilabel and anomaly.
func (Precision) Tasks() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Anomaly}
}

// Better is up.
func (Precision) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (Precision) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (Precision) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return macro(task, y, p, func(c count) float64 { return ratio(c.hit, c.said) }), nil
}

// Recall is the share of the true rows that are predicted true, from the task's
// threshold on: tp / (tp + fn) (van Rijsbergen 1979, "Information Retrieval"). For
// classes and labels it is the mean over those that occur (macro), in which one that is
// predicted but has no row counts 0 as it does in F1; BalancedAccuracy leaves it out.
type Recall struct{}

// Name is "recall".
func (Recall) Name() string { return "recall" }

// Version of the implementation.
func (Recall) Version() int { return 2 }

// Tasks are binary, multiclass, multilabel and anomaly.
func (Recall) Tasks() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Anomaly}
}

// Better is up.
func (Recall) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (Recall) Range() (lo, hi float64) { return 0, 1 }

// Compute fails where the task is binary or anomaly and no row is true.
func (Recall) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	if decided(task) && !slices.Contains(y, 1) {
		return 0, errOneClass
	}
	return macro(task, y, p, func(c count) float64 { return ratio(c.hit, c.is) }), nil
}

// F1 is the harmonic mean of precision and recall at the task's threshold; for
// classes and labels, the mean over those that occur (macro). It is 0 where nothing is
// found.
type F1 struct{}

// Name is "f1".
func (F1) Name() string { return "f1" }

// Version of the implementation.
func (F1) Version() int { return 2 }

// Tasks are binary, multiclass, multilabel and anomaly.
func (F1) Tasks() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Anomaly}
}

// Better is up.
func (F1) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (F1) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (F1) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return macro(task, y, p, func(c count) float64 { return ratio(2*c.hit, c.said+c.is) }), nil
}

// MCC is the Matthews correlation coefficient of the predicted and the true
// classes, from -1 to 1 (Matthews 1975); for more than two it is R_K (Gorodkin
// 2004, "Comparing two K-category assignments by a K-category correlation
// coefficient"). With n rows, h hits, and the class c predicted s and true t times:
//
//	(h n - Σ s_c t_c) / √((n² - Σ s_c²) (n² - Σ t_c²))
//
// It is 0, as in scikit-learn, where every row is predicted to be of one class. True
// is decided from the task's threshold on.
type MCC struct{}

// Name is "mcc".
func (MCC) Name() string { return "mcc" }

// Version of the implementation.
func (MCC) Version() int { return 1 }

// Tasks are binary, multiclass and anomaly.
func (MCC) Tasks() []string { return []string{kind.Binary, kind.Multiclass, kind.Anomaly} }

// Better is up.
func (MCC) Better() kind.Direction { return kind.Up }

// Range is from -1 to 1.
func (MCC) Range() (lo, hi float64) { return -1, 1 }

// Compute fails where the rows hold one class only.
func (MCC) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	n := float64(len(y))
	both, said, is := 0.0, n*n, n*n
	for _, c := range confusion(task, y, p) {
		both += c.hit*n - c.said*c.is
		said -= c.said * c.said
		is -= c.is * c.is
	}
	if is == 0 {
		return 0, errOneClass
	}
	return ratio(both, math.Sqrt(said*is)), nil
}
