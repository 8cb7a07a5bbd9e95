package expr_test

import (
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
)

// TestFunctionsAreDocumented: the page that lists the functions lists all, each
// where it runs.
func TestFunctionsAreDocumented(t *testing.T) {
	page, _ := diag.Explain(diag.OfflineOnly)
	online, batch, ok := strings.Cut(page, "Only in batch")
	if !ok {
		t.Fatal("the page does not tell online from batch")
	}
	for name, runs := range expr.FunctionNames() {
		where := batch
		if runs {
			where = online
		}
		if !strings.Contains(where, "`"+name+"`") {
			t.Errorf("%s is not where it belongs on the page of %s", name, diag.OfflineOnly)
		}
	}
}
