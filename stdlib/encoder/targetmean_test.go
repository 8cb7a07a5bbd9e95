package encoder

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/encoder/targetmean"
)

// TestTargetMean compares with scikit-learn 1.9: TargetEncoder(smooth).fit(X, y).transform(rows).
func TestTargetMean(t *testing.T) {
	texts := []string{"a", "b", "a", "c", "b", "a", "", null, "c", "a", "d"}
	rows := []string{"a", "b", "c", "", null, "d", "new"}
	binary := kind.Values{Texts: texts, Labels: []float64{1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1}, Task: kind.Task{Kind: kind.Binary, Classes: []string{"false", "true"}}}
	number := kind.Values{Texts: texts, Labels: []float64{1.5, 2, 3, -4, 5, 2.25, 0, 10, 7, 1, 8}, Task: kind.Task{Kind: kind.Regression}}
	classes := kind.Values{Texts: texts, Labels: []float64{0, 1, 2, 0, 1, 1, 2, 0, 0, 2, 1}, Task: kind.Task{Kind: kind.Multiclass, Classes: []string{"x", "y", "z"}}}
	mean := []string{"mean"}
	for _, c := range []struct {
		args  string
		train kind.Values
		want  []float64
		names []string
	}{
		{`{"smoothing":"auto","min_count":1}`, binary, []float64{0.7174770039421814, 0, 0.5152354570637119, 1, 0, 1, 0.5454545454545454}, mean},
		{`{"smoothing":0,"min_count":1}`, binary, []float64{0.75, 0, 0.5, 1, 0, 1, 0.5454545454545454}, mean},
		{`{"smoothing":10,"min_count":1}`, binary, []float64{0.6038961038961038, 0.45454545454545453, 0.5378787878787878, 0.5867768595041322, 0.4958677685950413, 0.5867768595041322, 0.5454545454545454}, mean},
		{`{"smoothing":"auto","min_count":1}`, number, []float64{1.9503968133397342, 3.481960641399417, 2.394489247311828, 0, 10, 8, 3.25}, mean},
		{`{"smoothing":10,"min_count":1}`, number, []float64{2.875, 3.2916666666666665, 2.9583333333333335, 2.9545454545454546, 3.8636363636363638, 3.6818181818181817, 3.25}, mean},
		{`{"smoothing":0,"min_count":2}`, number, []float64{1.9375, 3.5, 1.5, 3.25, 3.25, 3.25, 3.25}, mean},
		{`{"smoothing":0,"min_count":20}`, number, []float64{3.25, 3.25, 3.25, 3.25, 3.25, 3.25, 3.25}, mean},
		{`{"smoothing":"auto","min_count":1}`, classes, []float64{0.2691415313225058, 0.2691415313225058, 0.4455445544554455, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0.36363636363636365, 0.36363636363636365, 0.2727272727272727}, classes.Task.Classes},
		{`{"smoothing":10,"min_count":1}`, classes, []float64{0.33116883116883117, 0.33116883116883117, 0.3376623376623376, 0.30303030303030304, 0.4696969696969697, 0.22727272727272727, 0.4696969696969697, 0.30303030303030304, 0.22727272727272727,
			0.3305785123966942, 0.3305785123966942, 0.33884297520661155, 0.42148760330578516, 0.3305785123966942, 0.24793388429752064, 0.3305785123966942, 0.42148760330578516, 0.24793388429752064, 0.36363636363636365, 0.36363636363636365, 0.2727272727272727}, classes.Task.Classes},
	} {
		got, _, names := run(t, targetmean.Encoder{}, c.args, c.train, kind.Values{Texts: rows})
		if diff := cmp.Diff(c.want, got, cmpopts.EquateApprox(1e-6, 1e-7)); diff != "" || !cmp.Equal(c.names, names) {
			t.Errorf("%s of %s: %q %s", c.args, c.train.Task.Kind, names, diff)
		}
	}
}

// TestTargetMeanIsTheLabels: without smoothing it is the mean of the labels by
// definition, for each label of a multilabel task, and never outside them with it.
func TestTargetMeanIsTheLabels(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "Ä", "", null})
	rapid.Check(t, func(t *rapid.T) {
		train := rapid.SliceOfN(word, 1, 20).Draw(t, "train")
		least := rapid.IntRange(1, 4).Draw(t, "min_count")
		v := kind.Values{Texts: train, Task: kind.Task{Kind: kind.Multilabel, Classes: []string{"p", "q"}}}
		v.Labels = rapid.SliceOfN(rapid.SampledFrom([]float64{0, 1}), 2*len(train), 2*len(train)).Draw(t, "labels")
		rows := kind.Values{Texts: append([]string{"never"}, train...)}
		got, _, names := run(t, targetmean.Encoder{}, fmt.Sprintf(`{"smoothing":0,"min_count":%d}`, least), v, rows)
		if !cmp.Equal(names, v.Task.Classes) {
			t.Fatalf("%q", names)
		}
		drawn, _, _ := run(t, targetmean.Encoder{}, fmt.Sprintf(`{"smoothing":"auto","min_count":%d}`, least), v, rows)
		for i, s := range rows.Texts {
			for c := range names {
				own, all, n := 0.0, 0.0, 0.0
				for r, x := range train {
					all += v.Labels[2*r+c] / float64(len(train))
					if x == s {
						n, own = n+1, own+v.Labels[2*r+c]
					}
				}
				want := all
				if n >= float64(least) {
					want = own / n
				}
				if g := got[2*i+c]; math.Abs(g-want) > 1e-6 {
					t.Fatalf("%q has %v, want %v", s, g, want)
				}
				if d := drawn[2*i+c]; d < min(want, all)-1e-6 || d > max(want, all)+1e-6 {
					t.Fatalf("%q has %v, outside %v and %v", s, d, want, all)
				}
			}
		}
	})
}

// TestTargetMeanOfAFold: out of a fold a text differs from those without a mean of their
// own by as much as its labels do among the rows that are left; those are as in service.
func TestTargetMeanOfAFold(t *testing.T) {
	const args = `{"smoothing":10,"min_count":1}`
	train := kind.Values{Texts: []string{"a", "b", "a", "b", "a"}, Labels: []float64{8, 1, 2, 3, 1}, Task: kind.Task{Kind: kind.Regression}}
	rows := kind.Values{Texts: []string{"a", "b", "never"}}
	whole, err := targetmean.Encoder{}.Fit([]byte(args), train)
	if err != nil {
		t.Fatal(err)
	}
	left := kind.Values{Texts: train.Texts[1:], Labels: train.Labels[1:], Task: train.Task}
	alone, _, _ := run(t, targetmean.Encoder{}, args, left, rows)
	left.Whole = whole
	got, _, _ := run(t, targetmean.Encoder{}, args, left, rows)
	want := []float64{3 + alone[0] - alone[2], 3 + alone[1] - alone[2], 3}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-6)); diff != "" || alone[2] != 1.75 {
		t.Errorf("%v %s", alone, diff)
	}
}
