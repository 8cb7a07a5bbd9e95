package op

import (
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/encoder/targetmean"
)

// TestFoldsOfAConstant: a column of one value is encoded to the same numbers in every
// fold, those of serving, whatever the labels, so that no split of it tells the folds.
func TestFoldsOfAConstant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "rows")
		classes := []string{"x", "y", "z"}[:rapid.IntRange(1, 3).Draw(t, "labels")]
		f := &fitter{task: kind.Task{Kind: kind.Multilabel, Classes: classes}, params: make([][]json.RawMessage, 1), folded: map[place][]json.RawMessage{}}
		f.y = rapid.SliceOfN(rapid.SampledFrom([]float64{0, 1}), n*len(classes), n*len(classes)).Draw(t, "y")
		f.fold = rapid.SliceOfN(rapid.IntRange(0, folds-1), n, n).Draw(t, "fold")
		args := rapid.SampledFrom([]string{`{"smoothing":"auto","min_count":1}`, `{"smoothing":0.3,"min_count":1}`, `{"smoothing":20,"min_count":9}`}).Draw(t, "args")
		if err := f.learn(0, 0, targetmean.Encoder{}, json.RawMessage(args), kind.Values{Texts: slices.Repeat([]string{"a"}, n)}); err != nil {
			t.Fatal(err)
		}
		var whole [][]float32
		for k, raw := range append(f.params[0], f.folded[place{}]...) {
			var p struct{ Means [][]float32 }
			if err := json.Unmarshal(raw, &p); err != nil {
				t.Fatal(err)
			}
			if k == 0 {
				whole = p.Means
			}
			for _, row := range p.Means {
				if !slices.Equal(row, whole[0]) {
					t.Fatalf("without fold %d the means are %v, of all rows %v", k-1, p.Means, whole)
				}
			}
		}
		if len(f.folded[place{}]) != folds {
			t.Fatalf("%d folds", len(f.folded[place{}]))
		}
	})
}
