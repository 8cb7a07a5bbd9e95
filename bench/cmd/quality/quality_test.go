package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The numbers are those of numpy 2.4.6 and scikit-learn 1.9.1.

func TestPermutation(t *testing.T) {
	if got, want := newTwister(0).permutation(12), []int{6, 11, 4, 10, 2, 8, 1, 7, 9, 3, 0, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p := newTwister(0).permutation(20640)
	if got, want := append(p[:4:4], p[20636:]...), []int{14740, 10101, 20566, 2670, 19648, 9845, 10799, 2732}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// tests are the rows that a draw tests.
func tests(parts []string) (out []int) {
	for i, p := range parts {
		if p == "test" {
			out = append(out, i)
		}
	}
	return out
}

func TestDraw(t *testing.T) {
	classes := make([]string, 53)
	if got, want := tests(draw(classes)), []int{2, 4, 11, 26, 29, 31, 32, 33, 38, 41, 43}; !slices.Equal(got, want) {
		t.Errorf("random: got %v, want %v", got, want)
	}
	for i := range classes {
		if classes[i] = "no"; i%7 == 3 || i%11 == 0 {
			classes[i] = "yes"
		}
	}
	parts := draw(classes)
	if got, want := tests(parts), []int{0, 1, 5, 8, 13, 17, 26, 28, 30, 44, 50}; !slices.Equal(got, want) {
		t.Errorf("stratified: got %v, want %v", got, want)
	}
	count := map[string]int{}
	for _, p := range parts {
		count[p]++
	}
	if count["validation"] != 4 || count["train"] != 38 {
		t.Errorf("got parts %v", count)
	}
}

func TestDrawOfBankMarketing(t *testing.T) {
	data := filepath.Join("..", "..", "..", "..", "shared", "data", "bank_marketing")
	if _, err := os.Stat(data); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	b := bank(data)
	rows, sum, yes := tests(b.column("part")), 0, 0
	for _, i := range rows {
		if sum += i; b.column("y")[i] == "yes" {
			yes++
		}
	}
	if len(rows) != 8238 || sum != 169449188 || yes != 928 {
		t.Errorf("got %d rows of sum %d, %d yes", len(rows), sum, yes)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		metric               string
		goal, value, e, want float64
		verdict              string
	}{
		{"roc_auc", 0, 0.90, 0.01, 0.91, within},
		{"roc_auc", 0, 0.90, 0.01, 0.87, better},
		{"roc_auc", 0, 0.90, 0.01, 0.93, worse},
		{"rmse", 0, 90, 1, 93, better},
		{"rmse", 0, 90, 1, 91, within},
		{"rmse", 0, 90, 1, 87, worse},
		{"roc_auc", 0.91, 0.90, 0.01, 0.91, missed},
		{"roc_auc", 0.89, 0.90, 0.01, 0.91, within + reached},
	} {
		if got := judge(score{metric: c.metric, goal: c.goal}, c.value, c.e, c.want); got != c.verdict {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
