// Package metric holds the metrics, a type each.
package metric

import (
	"errors"
	"math"
	"sort"

	"mlc.dev/mlc/compiler/kind"
)

var errOneClass = errors.New("the rows hold one class only, so it is not defined")

// ROCAUC is the area under the receiver operating characteristic: the chance
// that a positive row scores above a negative one, ties counting half
// (Mann–Whitney U). For classes it is the mean of one against the rest.
type ROCAUC struct{}

// Name is "roc_auc".
func (ROCAUC) Name() string { return "roc_auc" }

// Version of the implementation.
func (ROCAUC) Version() int { return 1 }

// Tasks are binary and multiclass.
func (ROCAUC) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is up.
func (ROCAUC) Better() kind.Direction { return kind.Up }

// Compute fails where a class is missing.
func (ROCAUC) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, rocAUC)
}

// oneVsRest applies a binary metric to each class and takes the mean.
func oneVsRest(task kind.Task, y []float64, p []float32, f func(pos []bool, s []float32) (float64, error)) (float64, error) {
	w := task.Width()
	sum := 0.0
	for c := range w {
		pos, s := make([]bool, len(y)), make([]float32, len(y))
		for i := range y {
			pos[i] = w == 1 && y[i] == 1 || w > 1 && int(y[i]) == c
			s[i] = p[i*w+c]
		}
		v, err := f(pos, s)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum / float64(w), nil
}

// byScore returns row numbers from the greatest score to the least.
func byScore(s []float32) []int {
	order := make([]int, len(s))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return s[order[a]] > s[order[b]] })
	return order
}

func rocAUC(pos []bool, s []float32) (float64, error) {
	var tp, fp, area float64
	order := byScore(s)
	for i := 0; i < len(order); {
		var dtp, dfp float64
		for first := i; i < len(order) && (i == first || s[order[i]] == s[order[first]]); i++ {
			if pos[order[i]] {
				dtp++
			} else {
				dfp++
			}
		}
		area += dfp * (tp + dtp/2)
		tp, fp = tp+dtp, fp+dfp
	}
	if tp == 0 || fp == 0 {
		return 0, errOneClass
	}
	return area / (tp * fp), nil
}

// PRAUC is average precision: the sum over score thresholds of precision times
// the gain in recall (no interpolation). For classes, the mean of one against
// the rest.
type PRAUC struct{}

// Name is "pr_auc".
func (PRAUC) Name() string { return "pr_auc" }

// Version of the implementation.
func (PRAUC) Version() int { return 1 }

// Tasks are binary and multiclass.
func (PRAUC) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is up.
func (PRAUC) Better() kind.Direction { return kind.Up }

// Compute fails where no row is positive.
func (PRAUC) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, func(pos []bool, s []float32) (float64, error) {
		var tp, n, area float64
		order := byScore(s)
		for i := 0; i < len(order); {
			var dtp float64
			for first := i; i < len(order) && (i == first || s[order[i]] == s[order[first]]); i++ {
				n++
				if pos[order[i]] {
					dtp++
				}
			}
			tp += dtp
			area += dtp * tp / n
		}
		if tp == 0 {
			return 0, errOneClass
		}
		return area / tp, nil
	})
}

// LogLoss is the mean negative log-likelihood, in nats. Probabilities are kept
// 1e-15 away from 0 and 1.
type LogLoss struct{}

// Name is "log_loss".
func (LogLoss) Name() string { return "log_loss" }

// Version of the implementation.
func (LogLoss) Version() int { return 1 }

// Tasks are binary and multiclass.
func (LogLoss) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is down.
func (LogLoss) Better() kind.Direction { return kind.Down }

// Compute never fails on rows.
func (LogLoss) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w, sum := task.Width(), 0.0
	for i, t := range y {
		q := float64(p[i*w])
		if w > 1 {
			q = float64(p[i*w+int(t)])
		} else if t == 0 {
			q = 1 - q
		}
		sum -= math.Log(min(max(q, 1e-15), 1-1e-15))
	}
	return sum / float64(len(y)), nil
}

// decide returns the predicted class of row i: the likeliest, or true from 0.5.
func decide(task kind.Task, p []float32, i int) int {
	w := task.Width()
	if w == 1 {
		if p[i] >= 0.5 {
			return 1
		}
		return 0
	}
	best := 0
	for c := 1; c < w; c++ {
		if p[i*w+c] > p[i*w+best] {
			best = c
		}
	}
	return best
}

// Accuracy is the share of rows whose likeliest class is right.
type Accuracy struct{}

// Name is "accuracy".
func (Accuracy) Name() string { return "accuracy" }

// Version of the implementation.
func (Accuracy) Version() int { return 1 }

// Tasks are binary and multiclass.
func (Accuracy) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is up.
func (Accuracy) Better() kind.Direction { return kind.Up }

// Compute never fails on rows.
func (Accuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	right := 0.0
	for i := range y {
		if decide(task, p, i) == int(y[i]) {
			right++
		}
	}
	return right / float64(len(y)), nil
}

// F1 is the harmonic mean of precision and recall at 0.5; for classes, the mean
// over them (macro). It is 0 where nothing is found.
type F1 struct{}

// Name is "f1".
func (F1) Name() string { return "f1" }

// Version of the implementation.
func (F1) Version() int { return 1 }

// Tasks are binary and multiclass.
func (F1) Tasks() []string { return []string{kind.Binary, kind.Multiclass} }

// Better is up.
func (F1) Better() kind.Direction { return kind.Up }

// Compute never fails on rows.
func (F1) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	classes := []int{1}
	if w := task.Width(); w > 1 {
		classes = classes[:0]
		for c := range w {
			classes = append(classes, c)
		}
	}
	sum := 0.0
	for _, c := range classes {
		var tp, wrong float64
		for i := range y {
			said, is := decide(task, p, i) == c, int(y[i]) == c
			if said && is {
				tp++
			} else if said != is {
				wrong++
			}
		}
		if tp > 0 {
			sum += 2 * tp / (2*tp + wrong)
		}
	}
	return sum / float64(len(classes)), nil
}
