package metric

import (
	"fmt"
	"iter"
	"math"

	"mlc.dev/mlc/compiler/kind"
)

// ranked is a row that sorts by its score, the greatest first: the low half is the
// score, and positive, above it, takes no part in the order.
type ranked uint64

const positive ranked = 1 << 32

// rank makes a row of a score; equal scores give equal rows.
func rank(s float32) ranked {
	b := math.Float32bits(s)
	switch {
	case s == 0:
		b = math.MaxInt32 // -0 too
	case s > 0:
		b = math.MaxInt32 - b // the bits of floats of one sign are in the order of their magnitudes
	}
	return ranked(b)
}

// sortInto sorts rows into out, which is as long, and leaves rows in no order. It is a
// radix sort: it takes the same few passes whatever the scores are.
func sortInto(out, rows []ranked) {
	const bits, passes = 11, 3 // an odd number of passes ends in out
	digit := func(r ranked, pass int) uint32 { return uint32(r) >> (pass * bits) & (1<<bits - 1) }
	var starts [passes][1 << bits]uint32
	for _, r := range rows {
		for pass := range passes {
			starts[pass][digit(r, pass)]++
		}
	}
	for pass := range passes {
		start, next := &starts[pass], uint32(0)
		for d, n := range start {
			start[d], next = next, next+n
		}
		for _, r := range rows {
			d := digit(r, pass)
			out[start[d]] = r
			start[d]++
		}
		out, rows = rows, out
	}
}

// oneVsRest applies a binary metric, which gets the rows by score, to each class or
// label and takes the mean.
func oneVsRest(task kind.Task, y []float64, p []float32, f func(rows []ranked) (float64, error)) (float64, error) {
	w := task.Width()
	n := len(y) / task.Targets()
	rows, sorted := make([]ranked, n), make([]ranked, n)
	sum := 0.0
	for c := range w {
		for i := range rows {
			rows[i] = rank(p[i*w+c])
			if isPositive(task, y, i, c) {
				rows[i] |= positive
			}
		}
		sortInto(sorted, rows)
		v, err := f(sorted)
		if err != nil && w > 1 {
			return 0, fmt.Errorf("%q or not: %w", task.Classes[c], err)
		}
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum / float64(w), nil
}

// isPositive reports whether row i is of class c, has label c, or is true.
func isPositive(task kind.Task, y []float64, i, c int) bool {
	w := task.Width()
	switch {
	case task.Kind == kind.Multilabel:
		return y[i*w+c] == 1
	case w > 1:
		return int(y[i]) == c
	}
	return y[i] == 1
}

// ties counts the positive and the negative rows of each score, from the
// greatest to the least.
func ties(rows []ranked) iter.Seq2[float64, float64] {
	return func(yield func(tp, fp float64) bool) {
		for i := 0; i < len(rows); {
			first, tp := i, ranked(0)
			for ; i < len(rows) && uint32(rows[i]) == uint32(rows[first]); i++ {
				tp += rows[i] / positive
			}
			if !yield(float64(tp), float64(i-first)-float64(tp)) {
				return
			}
		}
	}
}

// ROCAUC is the area under the receiver operating characteristic: the chance
// that a positive row scores above a negative one, ties counting half
// (Mann–Whitney U). For classes it is the mean of one against the rest, for labels
// the mean over them (macro).
type ROCAUC struct{}

// Name is "roc_auc".
func (ROCAUC) Name() string { return "roc_auc" }

// Version of the implementation.
func (ROCAUC) Version() int { return 1 }

// Tasks are binary, multiclass, multilabel and anomaly.
func (ROCAUC) Tasks() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Anomaly}
}

// Better is up.
func (ROCAUC) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (ROCAUC) Range() (lo, hi float64) { return 0, 1 }

// Compute fails where a class is missing, or a label is the same in every row.
// (scikit-learn gives NaN for such a label.)
func (ROCAUC) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, func(rows []ranked) (float64, error) {
		var tp, fp, area float64
		for dtp, dfp := range ties(rows) {
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
// the rest; for labels, the mean over them (macro).
type PRAUC struct{}

// Name is "pr_auc".
func (PRAUC) Name() string { return "pr_auc" }

// Version of the implementation.
func (PRAUC) Version() int { return 1 }

// Tasks are binary, multiclass, multilabel and anomaly.
func (PRAUC) Tasks() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Anomaly}
}

// Better is up.
func (PRAUC) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (PRAUC) Range() (lo, hi float64) { return 0, 1 }

// Compute fails where no row is true, of a class, or has a label. (scikit-learn
// counts 0 for such a label.)
func (PRAUC) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, func(rows []ranked) (float64, error) {
		var tp, n, area float64
		for dtp, dfp := range ties(rows) {
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

// Tasks are binary and anomaly.
func (Lift10) Tasks() []string { return []string{kind.Binary, kind.Anomaly} }

// Better is up.
func (Lift10) Better() kind.Direction { return kind.Up }

// Range is from 0 to 10.
func (Lift10) Range() (lo, hi float64) { return 0, 10 }

// Compute fails where no row is true.
func (Lift10) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return oneVsRest(task, y, p, func(rows []ranked) (float64, error) {
		// In tenths of a row, the tenth has as much room as there are rows, and what
		// is found of the true rows is the lift times their number.
		var found, tp float64
		room := float64(len(rows))
		for dtp, dfp := range ties(rows) {
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

// Range is from 0 to 1.
func (Top3Accuracy) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (Top3Accuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return amongTop(3, task, y, p)
}

// Top5Accuracy is Top3Accuracy among the five likeliest.
type Top5Accuracy struct{}

// Name is "top_5_accuracy".
func (Top5Accuracy) Name() string { return "top_5_accuracy" }

// Version of the implementation.
func (Top5Accuracy) Version() int { return 1 }

// Tasks is multiclass.
func (Top5Accuracy) Tasks() []string { return []string{kind.Multiclass} }

// Better is up.
func (Top5Accuracy) Better() kind.Direction { return kind.Up }

// Range is from 0 to 1.
func (Top5Accuracy) Range() (lo, hi float64) { return 0, 1 }

// Compute never fails on rows.
func (Top5Accuracy) Compute(task kind.Task, y []float64, p []float32) (float64, error) {
	return amongTop(5, task, y, p)
}

// amongTop is the share of rows whose class is among the k likeliest.
func amongTop(k int, task kind.Task, y []float64, p []float32) (float64, error) {
	w := task.Width()
	return share(len(y), func(i int) bool {
		row, t, before := p[i*w:(i+1)*w], int(y[i]), 0
		for c, q := range row {
			if q > row[t] || q == row[t] && c < t {
				before++
			}
		}
		return before < k
	})
}
