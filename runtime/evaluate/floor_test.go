package evaluate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/metric"
)

// TestFloorIsClopperPearson: with no row mistaken, Z of the floor is the exact bound of
// so many rows, to within a sixth.
func TestFloorIsClopperPearson(t *testing.T) {
	for _, n := range []int{4, 10, 30, 100, 1000, 100_000} {
		p := Predictions{Task: binary, Y: make([]float64, n), P: make([]float32, n)}
		floor := NewBootstrap(n, nil, 1).Floor(metric.Accuracy{}, p)
		for _, c := range []float64{0.9, 0.95, 0.99, 0.999} {
			if exact := 1 - math.Pow(1-c, 1/float64(n)); math.Abs(Z(c)*floor/exact-1) > 1./6 {
				t.Errorf("%d rows, confidence %v: %v, not about %v", n, c, Z(c)*floor, exact)
			}
		}
	}
}

// TestFloor: what a metric rests on is the rows that it counts, or their groups.
func TestFloor(t *testing.T) {
	rows := func(task kind.Task, n, positives int, p float32) Predictions {
		out := Predictions{Task: task}
		for i := range n {
			y := 0.
			if i < positives {
				y = 1
			}
			out.Y, out.P = append(out.Y, y), append(out.P, p+float32(y)*(1-2*p))
		}
		return out
	}
	groups := func(n, of int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(i/of))
		}
		return out
	}
	three := kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}
	for _, c := range []struct {
		what   string
		m      kind.Metric
		p      Predictions
		groups []string
		want   float64
	}{
		{"recall of 5 true rows", metric.Recall{}, rows(binary, 1000, 5, 0.1), nil, 2. / 8},
		{"accuracy of all", metric.Accuracy{}, rows(binary, 1000, 5, 0.1), nil, 2. / 1003},
		{"AUC of 5 true rows", metric.ROCAUC{}, rows(binary, 1000, 5, 0.1), nil, 2. / 8},
		{"precision of one said to be true", metric.Precision{}, Predictions{Task: binary, Y: []float64{1, 1, 1, 0, 0, 0}, P: []float32{1, 0, 0, 0, 0, 0}}, nil, 2. / 4},
		{"entities of 10 rows", metric.Accuracy{}, rows(binary, 1000, 5, 0.1), groups(1000, 10), 2. / 103},
		{"macro recall, which a class with one row moves by no more than a third", metric.Recall{}, Predictions{Task: three, Y: []float64{0, 0, 0, 0, 1, 1, 1, 1, 2}, P: []float32{
			1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1}}, nil, 1. / 6},
		{"one class, all right", metric.Accuracy{}, Predictions{Task: three, Y: []float64{2, 2, 2, 2}, P: []float32{0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1}}, nil, 2. / 7},
		{"labels", metric.HammingLoss{}, Predictions{Task: kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, Y: []float64{1, 1, 1, 0, 1, 0, 1, 0, 1, 0}, P: []float32{1, 1, 1, 0, 1, 0, 1, 0, 1, 0}}, nil, 2. / 8},
		{"a number", metric.SMAPE{}, Predictions{Task: kind.Task{Kind: kind.Regression}, Y: []float64{1, 2, 3, 4, 5}, P: []float32{1, 2, 3, 4, 5}}, nil, 2 * 2. / 8},
		{"no end", metric.MAE{}, Predictions{Task: kind.Task{Kind: kind.Regression}, Y: []float64{1, 2}, P: []float32{1, 2}}, nil, 0},
		{"no end, of classes", metric.LogLoss{}, rows(binary, 10, 5, 0.1), nil, 0},
		{"a fold of two", metric.Accuracy{}, func() Predictions {
			p := rows(binary, 20, 10, 0)
			for i := range 20 {
				p.Fold = append(p.Fold, int32(i%2))
			}
			return p
		}(), nil, 2. / 23},
	} {
		got := NewBootstrap(c.p.Rows(), c.groups, 1).Floor(c.m, c.p)
		if math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, not %v", c.what, got, c.want)
		}
	}
}

// drawn are rows of which every step-th is true, and said so more or less well.
func drawn(n, step int, skill float64, seed uint64) Predictions {
	p, r := Predictions{Task: binary}, rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		y := 0.
		if i%step == 0 {
			y = 1
		}
		p.Y, p.P = append(p.Y, y), append(p.P, float32(1/(1+math.Exp(skill*(1-2*y)+r.NormFloat64()))))
	}
	return p
}

// TestErrorsOfMistakes: where rows are mistaken, be the true ones rare or not, the errors
// are those that resampling finds, of a model and of its difference to another.
func TestErrorsOfMistakes(t *testing.T) {
	metrics := []kind.Metric{metric.Accuracy{}, metric.ROCAUC{}, metric.PRAUC{}, metric.Recall{}, metric.F1{}, metric.MCC{}, metric.Brier{}, metric.LogLoss{}}
	for _, step := range []int{2, 7, 20} {
		const n = 1000
		p, q := drawn(n, step, 0.8, 1), drawn(n, step, 0.4, 2)
		b := NewBootstrap(n, nil, 1)
		raw, err := b.Errors(t.Context(), 2*len(metrics), func(at []int32, out []float64) {
			x, y := p.At(at), q.At(at)
			for i, m := range metrics {
				out[i] = x.Metric(m)
				out[len(metrics)+i] = out[i] - y.Metric(m)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		one, err := b.MetricErrors(t.Context(), metrics, p)
		if err != nil {
			t.Fatal(err)
		}
		both, err := b.PairedErrors(t.Context(), metrics, p, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := append(one, both...); !slices.Equal(got, raw) {
			t.Errorf("%d rows, 1 of %d true: %v, not %v", n, step, got, raw)
		}
	}
}

// TestErrorsOfRare: 50 true rows of 1000 are enough for what differs by several errors.
func TestErrorsOfRare(t *testing.T) {
	auc := []kind.Metric{metric.ROCAUC{}}
	p, q := drawn(1000, 20, 1.2, 1), drawn(1000, 20, 1.2, 1)
	for i := range q.P {
		if q.Y[i] == 1 {
			q.P[i] *= 0.85
		}
	}
	b := NewBootstrap(1000, nil, 1)
	one, err := b.MetricErrors(t.Context(), auc, p)
	if err != nil {
		t.Fatal(err)
	}
	both, err := b.PairedErrors(t.Context(), auc, p, q)
	if err != nil {
		t.Fatal(err)
	}
	floor, gain := b.Floor(auc[0], p), p.Metric(auc[0])-q.Metric(auc[0])
	if one[0] >= floor || both[0] >= floor || gain < 3*both[0] || gain > Z(0.95)*floor {
		t.Errorf("gain %v, errors %v and %v, floor %v", gain, both, one, floor)
	}
}

// TestErrorsOfNothing: where resampling sees no mistake, the floor of what has two ends
// stands, and what has none is known of many rows and not of few.
func TestErrorsOfNothing(t *testing.T) {
	metrics := []kind.Metric{metric.Accuracy{}, metric.ROCAUC{}, metric.Brier{}, metric.LogLoss{}}
	for _, n := range []int{20, 298, 300} {
		p := Predictions{Task: binary}
		for i := range n {
			p.Y, p.P = append(p.Y, float64(i%2)), append(p.P, float32(i%2))
		}
		q := p
		q.P = slices.Clone(p.P)
		for i, v := range q.P {
			q.P[i] = 0.25 + v/2 // of which every loss is a power of 2
		}
		b := NewBootstrap(n, nil, 1)
		one, err := b.MetricErrors(t.Context(), metrics, p)
		if err != nil {
			t.Fatal(err)
		}
		both, err := b.PairedErrors(t.Context(), metrics, p, q)
		if err != nil {
			t.Fatal(err)
		}
		same, err := b.PairedErrors(t.Context(), metrics, p, p)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range metrics[:3] {
			if floor := b.Floor(m, p); one[i] != floor || both[i] != floor || same[i] != 0 {
				t.Errorf("%s of %d rows: %v, %v and %v, floor %v", m.Name(), n, one[i], both[i], same[i], floor)
			}
		}
		if known := one[3] == 0; known != (n == 300) || !known && !math.IsNaN(one[3]) {
			t.Errorf("log loss of %d rows: %v", n, one[3])
		}
	}
}

// TestErrorsOfTies: a median of errors of a few levels is the same in every replicate,
// and sure where rows are many, as is a difference of two.
func TestErrorsOfTies(t *testing.T) {
	m := []kind.Metric{metric.MedAE{}, metric.MAE{}}
	for _, n := range []int{200, 5000} {
		p := Predictions{Task: kind.Task{Kind: kind.Regression}}
		q := p
		for i := range n {
			p.Y, p.P = append(p.Y, float64(i%5)), append(p.P, float32(i%5)+[]float32{0.25, 0.25, 0.25, 0, 1}[i%5])
			q.Y, q.P = p.Y, append(q.P, float32(i%5)+[]float32{0.5, 0.5, 0.5, 0, 1}[i%5])
		}
		b := NewBootstrap(n, nil, 1)
		one, err := b.MetricErrors(t.Context(), m, p)
		if err != nil {
			t.Fatal(err)
		}
		both, err := b.PairedErrors(t.Context(), m, p, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, errs := range [][]float64{one, both} {
			if many := n >= alike; (errs[0] == 0) != many || math.IsNaN(errs[0]) == many || !(errs[1] > 0) {
				t.Errorf("%d rows: %v", n, errs)
			}
		}
	}
}

// TestDisparityFloor: two groups of which no row is decided to be true differ by nothing,
// as far as the smaller can tell.
func TestDisparityFloor(t *testing.T) {
	b := NewBootstrap(130, nil, 1)
	rates := []Rate{{"f", 30, 0}, {"m", 100, 0}}
	if got := b.DisparityFloor("fpr_difference", rates); math.Abs(got-2./33) > 1e-12 {
		t.Errorf("difference: %v", got)
	}
	rates = []Rate{{"f", 30, 0.5}, {"m", 100, 0.9}}
	if got := b.DisparityFloor("fpr_difference", rates); got != 0 {
		t.Errorf("of groups with some decided otherwise: %v", got)
	}
	rates = []Rate{{"f", 30, 1}, {"m", 100, 1}}
	if got := b.DisparityFloor("tpr_ratio", rates); math.Abs(got-2./33) > 1e-12 {
		t.Errorf("ratio: %v", got)
	}
}
