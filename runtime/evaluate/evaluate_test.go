package evaluate

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
)

var binary = kind.Task{Kind: kind.Binary}

func mean(y []float64) func(rows []int32, out []float64) {
	return func(rows []int32, out []float64) {
		out[0] = 0
		for _, r := range rows {
			out[0] += y[r] / float64(len(rows))
		}
	}
}

// TestBootstrapOfMean compares with the textbook: σ/√n of independent rows, and
// σ/√groups of rows that are the same within their group.
func TestBootstrapOfMean(t *testing.T) {
	for _, c := range []struct {
		name      string
		n, groups int
		want      float64
	}{
		{"rows", 2000, 0, 1 / math.Sqrt(2000)},
		{"more rows than a replicate has", 40_000, 0, 1 / math.Sqrt(40_000)},
		{"groups", 2000, 100, 1 / math.Sqrt(100)},
		{"too few groups to tell", 2000, 10, 0},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		y, group := make([]float64, c.n), make([]string, c.n)
		for i := range y {
			y[i] = r.NormFloat64()
			if c.groups > 0 {
				group[i] = string(rune('a' + i%c.groups))
				y[i] = y[i%c.groups]
			}
		}
		if c.groups == 0 {
			group = nil
		}
		b := NewBootstrap(c.n, group, 7)
		got, err := b.Errors(context.Background(), 1, mean(y))
		if err != nil {
			t.Fatal(err)
		}
		again, _ := NewBootstrap(c.n, group, 7).Errors(context.Background(), 1, mean(y))
		if got[0] != again[0] {
			t.Errorf("%s: %v, then %v", c.name, got[0], again[0])
		}
		if b.Grouped() != (c.groups >= leastGroups) {
			t.Errorf("%s: grouped is %v", c.name, b.Grouped())
		}
		if c.want > 0 && math.Abs(got[0]/c.want-1) > 0.25 {
			t.Errorf("%s: standard error %v, not about %v", c.name, got[0], c.want)
		}
	}
}

// TestBootstrapUndefined: a statistic that is mostly undefined has no error, one that
// is so at times has.
func TestBootstrapUndefined(t *testing.T) {
	got, err := NewBootstrap(100, nil, 1).Errors(context.Background(), 2, func(rows []int32, out []float64) {
		out[0], out[1] = float64(rows[0]), float64(rows[0])
		if rows[0] < 50 {
			out[0] = math.NaN()
		}
		if rows[0] < 3 {
			out[1] = math.NaN()
		}
	})
	if err != nil || !math.IsNaN(got[0]) || math.IsNaN(got[1]) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewBootstrap(100, nil, 1).Errors(ctx, 1, mean(make([]float64, 100))); err == nil {
		t.Error("went on after the interrupt")
	}
}

func TestZ(t *testing.T) {
	for c, want := range map[float64]float64{0.5: 0, 0.95: 1.6448536269514722, 0.975: 1.959963984540054} {
		if got := Z(c); math.Abs(got-want) > 1e-12 {
			t.Errorf("Z(%v) = %v", c, got)
		}
	}
}

// TestThresholdIsBest looks for a better one by trying every value.
func TestThresholdIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 25).Draw(t, "n")
		y, p := make([]float64, n), make([]float32, n)
		for i := range y {
			y[i] = float64(rapid.IntRange(0, 1).Draw(t, "y"))
			p[i] = float32(rapid.IntRange(0, 10).Draw(t, "p")) / 10
		}
		d := kind.Decision{Kind: rapid.SampledFrom([]string{kind.DecideCost, kind.DecidePrecision, kind.DecideRecall}).Draw(t, "kind"),
			FalsePositive: 1, FalseNegative: float64(rapid.IntRange(0, 5).Draw(t, "cost")), AtLeast: float64(rapid.IntRange(1, 10).Draw(t, "least")) / 10}
		value := func(at float64) (float64, bool) {
			var tp, fp, pos float64
			for i := range y {
				pos += y[i]
				if float64(p[i]) >= at {
					tp += y[i]
					fp += 1 - y[i]
				}
			}
			precision, recall := tp/max(tp+fp, 1), tp/max(pos, 1)
			switch d.Kind {
			case kind.DecideCost:
				return -(fp + d.FalseNegative*(pos-tp)), true
			case kind.DecidePrecision:
				return recall, precision >= d.AtLeast && tp+fp > 0
			}
			return precision, recall >= d.AtLeast
		}
		best, possible := math.Inf(-1), false
		for i := range 21 {
			if v, ok := value(float64(i)/20 - 0.01); ok {
				best, possible = max(best, v), true
			}
		}
		at, err := Threshold(d, y, p)
		if (err == nil) != possible {
			t.Fatalf("%v, though possible is %v", err, possible)
		}
		if err == nil {
			if v, ok := value(at); !ok || v < best-1e-12 {
				t.Fatalf("threshold %v gives %v (%v), another gives %v", at, v, ok, best)
			}
		}
	})
}

// TestRates has the selection rates and true positive rates of adult's reference
// protocol in small: 2 of 4 against 1 of 4, and 1 of 2 against 1 of 1.
func TestRates(t *testing.T) {
	p := Predictions{Task: binary, Y: []float64{1, 1, 0, 0, 1, 0, 0, 0}, P: []float32{.9, .1, .8, .2, .7, .1, .1, .1}}
	group := []string{"m", "m", "m", "m", "f", "f", "f", "f"}
	all := []int32{0, 1, 2, 3, 4, 5, 6, 7}
	for metric, want := range map[string]float64{"selection_rate_difference": 0.25, "selection_rate_ratio": 0.5, "tpr_difference": 0.5, "tpr_ratio": 0.5, "fpr_difference": 0.5, "fpr_ratio": 0} {
		rates, small := Rates(metric, p, group, all, 1)
		if got := Disparity(metric, rates); got != want || len(small) > 0 {
			t.Errorf("%s is %v, not %v", metric, got, want)
		}
	}
	if rates, small := Rates("tpr_difference", p, group, all, 2); len(rates) != 1 || len(small) != 1 || small[0].Group != "f" || !math.IsNaN(Disparity("tpr_difference", rates)) {
		t.Errorf("small groups: %v, %v", rates, small)
	}
}

// TestWorstFinds plants a slice of two features that is worse, and wants it first;
// where nothing is worse, nothing is told.
func TestWorstFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	n := 4000
	a := Column{Name: "a", Texts: make([]string, n)}
	b := Column{Name: "b", Numbers: make([]float64, n)}
	noise := make([]float64, n)
	loss := make([]float64, n)
	for i := range n {
		a.Texts[i] = []string{"x", "y", "z"}[r.IntN(3)]
		b.Numbers[i] = r.Float64()
		noise[i] = r.Float64()
		if loss[i] = noise[i]; a.Texts[i] == "y" && b.Numbers[i] < 0.5 {
			loss[i] += 0.6
		}
	}
	if got := Worst([]Column{a, b}, noise); len(got) != 0 {
		t.Errorf("of noise: %+v", got)
	}
	got := Worst([]Column{a, b}, loss)
	if len(got) == 0 {
		t.Fatal("nothing found")
	}
	both := false
	for _, s := range got {
		both = both || strings.Contains(s.Name, "a = y") && strings.Contains(s.Name, "b <") && s.Effect > 1
	}
	if !both {
		t.Errorf("%+v", got)
	}
}

// TestCutIsWhole: every row is in one slice of a number, and of a text with few values.
func TestCutIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SliceOfN(rapid.OneOf(rapid.Just(math.NaN()), rapid.Float64(), rapid.Float64Range(0, 3)), 1, 50).Draw(t, "v")
		c := Column{Name: "c", Numbers: v}
		if rapid.Bool().Draw(t, "few") {
			for i := range v {
				v[i] = math.Trunc(math.Mod(v[i], 2))
			}
		}
		seen := map[int32]int{}
		_, rows := c.Cut()
		for _, part := range rows {
			for _, r := range part {
				seen[r]++
			}
		}
		for i := range v {
			if seen[int32(i)] != 1 {
				t.Fatalf("row %d is in %d slices", i, seen[int32(i)])
			}
		}
	})
}

func TestCurves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 400).Draw(t, "n")
		r := rand.New(rand.NewPCG(uint64(n), 1))
		p := Predictions{Task: binary}
		for i := range n {
			p.Y = append(p.Y, float64(i%2))
			p.P = append(p.P, float32(r.IntN(50))/50)
		}
		var rep Report
		p.Curve(&rep)
		c := rep.Curves[0]
		if first, last := c.ROC[0], c.ROC[len(c.ROC)-1]; first != (Point{0, 0}) || last != (Point{1, 1}) {
			t.Fatalf("ROC from %v to %v", first, last)
		}
		rows, cells := 0, 0
		for _, b := range c.Reliability {
			rows += b.Rows
		}
		for _, row := range rep.Confusion {
			cells += row[0] + row[1]
		}
		if rows != n || cells != n || len(c.ROC) > curvePoints+1 {
			t.Fatalf("%d rows: %d in bins, %d in the matrix, %d points", n, rows, cells, len(c.ROC))
		}
	})
}

func TestResidualsAreFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := rapid.SliceOfN(rapid.Float64Range(-1e30, 1e30), 0, 60).Draw(t, "y")
		p := Predictions{Task: kind.Task{Kind: kind.Regression}, Y: y, P: make([]float32, len(y))}
		var rep Report
		p.Curve(&rep)
		rows := 0
		for _, b := range rep.Residuals.Histogram {
			rows += b.Rows
		}
		if rows != len(y) {
			t.Fatalf("%d of %d rows", rows, len(y))
		}
	})
}

// TestImportance: what is predicted by one column depends on it alone.
func TestImportance(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	n := 500
	cols := []Column{{Name: "noise", Numbers: make([]float64, n)}, {Name: "signal", Numbers: make([]float64, n)}, {Name: "text", Texts: make([]string, n)}}
	y := make([]float64, n)
	for i := range n {
		cols[0].Numbers[i], cols[1].Numbers[i], cols[2].Texts[i] = r.Float64(), r.Float64(), "t"
		y[i] = 2 * cols[1].Numbers[i]
	}
	predict := func(c []Column) ([]float32, error) {
		out := make([]float32, c[0].Rows())
		for i := range out {
			out[i] = float32(2 * c[1].Numbers[i])
		}
		return out, nil
	}
	score := func(p []float32) float64 {
		sum := 0.0
		for i := range p {
			sum -= math.Pow(y[i]-float64(p[i]), 2)
		}
		return sum / float64(n)
	}
	imp, err := PermutationImportance(cols, predict, score, 1)
	if err != nil || imp[0].Feature != "signal" || imp[0].Drop < 0.5 || imp[1].Drop != 0 {
		t.Errorf("%+v, %v", imp, err)
	}
	// Among so many columns that not all shuffles go through the model together.
	many := append([]Column{}, cols...)
	for range 1200 {
		many = append(many, cols[0])
	}
	if among, err := PermutationImportance(many, predict, score, 1); err != nil || among[0] != imp[0] || among[1].Drop != 0 {
		t.Errorf("%+v, %v", among[:2], err)
	}
	dep, err := PartialDependence(cols, predict, imp, []string{""})
	if err != nil || dep[0].Feature != "signal" || math.Abs(dep[0].Means[len(dep[0].Means)-1]-2*dep[0].Values[len(dep[0].Values)-1]) > 1e-6 {
		t.Errorf("%+v, %v", dep, err)
	}
}

// TestLoss has values that were worked out by hand.
func TestLoss(t *testing.T) {
	for _, c := range []struct {
		task kind.Task
		y    []float64
		p    []float32
		want float64
	}{
		{binary, []float64{1}, []float32{0.5}, math.Ln2},
		{kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b"}}, []float64{1}, []float32{0.75, 0.25}, 2 * math.Ln2},
		{kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, []float64{1, 0}, []float32{0.5, 0.5}, math.Ln2},
		{kind.Task{Kind: kind.Regression}, []float64{3}, []float32{1}, 4},
		{kind.Task{Kind: kind.Count}, []float64{0}, []float32{2}, 4},
		{kind.Task{Kind: kind.Count}, []float64{2}, []float32{2}, 0},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.9}}, []float64{10}, []float32{8, 12}, (0.1*2 + 0.1*2) / 2},
	} {
		if got := (Predictions{Task: c.task, Y: c.y, P: c.p}).Loss()[0]; math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, not %v", c.task.Kind, got, c.want)
		}
	}
}
