package metric

import (
	"iter"
	"sort"

	"mlc.dev/mlc/compiler/kind"
)

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

// ties counts the positive and the negative rows of each score, from the
// greatest to the least.
func ties(pos []bool, s []float32) iter.Seq2[float64, float64] {
	return func(yield func(tp, fp float64) bool) {
		order := byScore(s)
		for i := 0; i < len(order); {
			var tp, fp float64
			for first := i; i < len(order) && (i == first || s[order[i]] == s[order[first]]); i++ {
				if pos[order[i]] {
					tp++
				} else {
					fp++
				}
			}
			if !yield(tp, fp) {
				return
			}
		}
	}
}

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
	return oneVsRest(task, y, p, func(pos []bool, s []float32) (float64, error) {
		var tp, fp, area float64
		for dtp, dfp := range ties(pos, s) {
			area += dfp * (tp + dtp/2)
			tp, fp = tp+dtp, fp+dfp
		}
		if tp == 0 || fp == 0 {
			return 0, errOneClass
		}
		return area / (tp * fp), nil
	})
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
		for dtp, dfp := range ties(pos, s) {
			tp, n = tp+dtp, n+dtp+dfp
			area += dtp * tp / n
		}
		if tp == 0 {
			return 0, errOneClass
		}
		return area / tp, nil
	})
}

// Lift10 is the share of true rows among the tenth of the rows with the highest
// scores over their share among all (Ling and Li 1998, "Data mining for direct
// marketing"), from 0 to 10. The tenth is exact: of the last score that reaches
// into it, rows count in part, each by its chance to be in the tenth. So neither
// the order of the rows nor how many they are changes its meaning.
type Lift10 struct{}

// Name is "lift_10".
func (Lift10) Name() string { return "lift_10" }

// Version of the implementation.
func (Lift10) Version() int { return 1 }

// Tasks is binary.
func (Lift10) Tasks() []string { return []string{kind.Binary} }

// Better is up.
func (Lift10) Better() kind.Direction { return kind.Up }

// Compute fails where no row is true.
func (Lift10) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, func(pos []bool, s []float32) (float64, error) {
		// In tenths of a row, the tenth has as much room as there are rows, and what
		// is found of the true rows is the lift times their number.
		var found, tp float64
		room := float64(len(s))
		for dtp, dfp := range ties(pos, s) {
			take := min(room, 10*(dtp+dfp))
			found += dtp * take / (dtp + dfp)
			room -= take
			tp += dtp
		}
		if tp == 0 {
			return 0, errOneClass
		}
		return found / tp, nil
	})
}

// Top3Accuracy is the share of rows whose class is among the three likeliest
// (as top-5 in Russakovsky et al. 2015, "ImageNet large scale visual recognition
// challenge"). Of equal probabilities the earlier class comes first, as it does
// for Accuracy. With three classes or fewer it is 1.
type Top3Accuracy struct{}

// Name is "top_3_accuracy".
func (Top3Accuracy) Name() string { return "top_3_accuracy" }

// Version of the implementation.
func (Top3Accuracy) Version() int { return 1 }

// Tasks is multiclass.
func (Top3Accuracy) Tasks() []string { return []string{kind.Multiclass} }

// Better is up.
func (Top3Accuracy) Better() kind.Direction { return kind.Up }

// Compute never fails on rows.
func (Top3Accuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width()
	return share(len(y), func(i int) bool {
		row, t, before := p[i*w:(i+1)*w], int(y[i]), 0
		for c, q := range row {
			if q > row[t] || q == row[t] && c < t {
				before++
			}
		}
		return before < 3
	})
}
