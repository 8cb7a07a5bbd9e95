package report

import (
	"strings"
	"testing"

	"mlc.dev/mlc/runtime/evaluate"
)

// The page stands alone, tells texts as they are, and draws the curves of both sides,
// class by class.
func TestCompare(t *testing.T) {
	of := func(classes ...string) *evaluate.Report {
		r := &evaluate.Report{}
		for _, c := range classes {
			r.Curves = append(r.Curves, evaluate.Curves{Class: c, ROC: []evaluate.Point{{X: 0, Y: 0}, {X: 1, Y: 1}}})
		}
		return r
	}
	numbers := &evaluate.Report{Residuals: &evaluate.Residuals{Sample: []evaluate.Point{{X: 1, Y: 2}}}}
	b, err := Compare("run 1 -> run 2", []Section{{Title: "Spec", Head: []string{"where", "change"}, Rows: [][]string{{"a.b", "<script>"}, {"c"}}, Notes: []string{"a & b"}}},
		[]Plots{{"y", "run 1", "run 2", of("cat", "dog"), of("dog", "cow")}, {"z", "run 1", "run 2", numbers, numbers}, {"gone", "run 1", "run 2", nil, numbers}})
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for text, n := range map[string]int{"<script": 0, "&lt;script&gt;": 1, "a &amp; b": 1, "STYLE": 0, "--paper: #ffffff": 1, "<h3>y: dog</h3>": 1, "<h3>y: cat</h3>": 0, "<h3>z</h3>": 1, "gone": 0,
		"run 1: Predicted and actual": 1, "run 2: Predicted and actual": 1, `<path class="s1"`: 1 + 1, "</html>": 1} {
		if got := strings.Count(page, text); got != n {
			t.Errorf("%q is there %d times, not %d", text, got, n)
		}
	}
	again, err := Compare("run 1 -> run 2", nil, nil)
	if err != nil || strings.Contains(string(again), "Plots") {
		t.Error(err)
	}
}
