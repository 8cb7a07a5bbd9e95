package diag_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
)

// TestPages: every code has a page with a wrong and a right example, every page
// a code, and every code is raised somewhere.
func TestPages(t *testing.T) {
	src, err := os.ReadFile("catalogue.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	err = filepath.WalkDir("../..", func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && filepath.Base(path) != "catalogue.go" {
			b, rerr := os.ReadFile(path)
			code.Write(b)
			return rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	known := map[diag.Code]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+)\s+Code = "(MLC\d{4})"`).FindAllStringSubmatch(string(src), -1) {
		c := diag.Code(m[2])
		if known[c] {
			t.Errorf("%s is two codes", c)
		}
		known[c] = true
		page, ok := diag.Explain(c)
		if !ok || !strings.HasPrefix(page, "# "+string(c)+": ") || !strings.Contains(page, "\n## Wrong") || !strings.Contains(page, "\n## Right") {
			t.Errorf("%s has no page of the right form", c)
		}
		if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(code.String()) {
			t.Errorf("%s (%s) is raised nowhere", m[1], c)
		}
	}
	for _, c := range diag.Codes() {
		if !known[c] {
			t.Errorf("%s has a page and no constant", c)
		}
	}
}

func TestSuggest(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"tenure_month", `; did you mean "tenure_months"?`}, {"roc_acu", `; did you mean "roc_auc"?`}, {"zebra", ""}, {"roc_auc", ""}, {"x", ""},
		{"ROC_AUC", `; did you mean "roc_auc"?`}, {"TenureMonths", `; did you mean "tenure_months"?`},
	} {
		if got := diag.Suggest(c.name, []string{"tenure_months", "roc_auc"}); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestRanges(t *testing.T) {
	src := []byte("ab\ncdef\n")
	r := diag.Range{File: "f", Start: 4, End: 7}
	if l, c := r.Position(src); l != 2 || c != 2 {
		t.Errorf("%d:%d", l, c)
	}
	if got := r.Within(1, 99); got != (diag.Range{File: "f", Start: 5, End: 7}) {
		t.Errorf("%v", got)
	}
	if l, c := (diag.Range{File: "f", Start: 99}).Position(src); l != 3 || c != 1 {
		t.Errorf("beyond the end: %d:%d", l, c)
	}
}
