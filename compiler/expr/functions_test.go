package expr_test

import (
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/types"
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

func scope(name string) (types.Type, bool) {
	t, ok := map[string]types.Type{"a": types.Float, "i": types.Int, "p": types.Bool, "s": types.String, "t": types.Timestamp, "w": types.Timestamp}[name]
	return t, ok
}

// TestWhatRunsInBatchOnlySaysWhy: the node that stands in the way, and its reason.
func TestWhatRunsInBatchOnlySaysWhy(t *testing.T) {
	for _, x := range []struct{ src, bad, why string }{
		{"lower(s) = 'x'", "lower(s)", "locales"},
		{"upper(s)", "upper(s)", "locales"},
		{"trim(s)", "trim(s)", "cuts"},
		{"substr(s, 1, 2)", "substr(s, 1, 2)", "cuts"},
		{"1 + length(s)", "length(s)", "counts"},
		{"replace(s, 'a', 'b')", "replace(s, 'a', 'b')", "replaces"},
		{"p OR contains(s, s)", "contains(s, s)", "written out"},
		{"starts_with(s, NULL)", "starts_with(s, NULL)", "written out"},
		{"ends_with(s, 'a' || 'b')", "ends_with(s, 'a' || 'b')", "written out"},
		{"contains(s, '\xff')", "contains(s, '\xff')", "written out"},
		{"split_part(s, ',', -1)", "split_part(s, ',', -1)", "from 1"},
		{"split_part(s, ',', i)", "split_part(s, ',', i)", "from 1"},
		{"split_part(s, '', 1)", "split_part(s, '', 1)", "not empty"},
		{"s < 'x'", "s < 'x'", "order"},
		{"s BETWEEN 'a' AND 'b'", "s BETWEEN 'a' AND 'b'", "order"},
		{"CAST(s AS int) + 1", "CAST(s AS int)", "as text"},
		{"CAST(a AS string)", "CAST(a AS string)", "as text"},
		{"contains(s, 'x') AND NOT starts_with(s, '') OR split_part(s, ',', 2) = 'x'", "", ""},
		{"CAST(a AS int) + date_diff('day', t, w) + EXTRACT(week FROM date_trunc('year', t))", "", ""},
	} {
		n, err := expr.Parse(x.src)
		if err != nil {
			t.Fatalf("%s: %v", x.src, err)
		}
		if errs := expr.Check(n, scope, nil); len(errs) > 0 {
			t.Fatalf("%s: %s", x.src, errs[0].What)
		}
		ok, bad := expr.Online(n)
		if ok != (x.bad == "") {
			t.Errorf("%s: online is %v", x.src, ok)
		}
		if bad != nil && (x.src[bad.Start:bad.End] != x.bad || !strings.Contains(expr.Why(bad), x.why)) {
			t.Errorf("%s: %s: %s", x.src, x.src[bad.Start:bad.End], expr.Why(bad))
		}
	}
	for name, online := range expr.FunctionNames() {
		if !online && expr.Why(&expr.Node{Op: expr.OpCall, Name: name}) == "" {
			t.Errorf("%s runs in batch only, and nothing says why", name)
		}
	}
}

// TestTypes: what functions and differences give.
func TestTypes(t *testing.T) {
	for src, want := range map[string]types.Type{
		"round(a)": types.Int, "round(a, 2)": types.Float, "round(a, 0)": types.Int, "round(a, -2)": types.Int, "mod(i, 2)": types.Int, "mod(i, a)": types.Float,
		"log10(i)": types.Float, "log2(NULL)": types.Float, "t - w": types.Float, "t - '2024-02-29'": types.Float, "NULL - t": types.Float,
		"date_trunc('MONTH', t)": types.Timestamp, "date_diff('day', '2024-02-29', t)": types.Int, "date_diff('day', t, NULL)": types.Int,
		"extract(EPOCH from t)": types.Float, "EXTRACT('hour' FROM t)": types.Int, "date_part('doy', t)": types.Int,
		"concat(s)": types.String, "concat(s, NULL)": types.String, "starts_with(s, 'x')": types.Bool, "split_part(s, 'x', 1)": types.String,
	} {
		n, err := expr.Parse(src)
		if err != nil {
			t.Fatalf("%s: %v", src, err)
		}
		if errs := expr.Check(n, scope, nil); len(errs) > 0 || n.Type != want {
			t.Errorf("%s is a %s, not a %s: %v", src, n.Type, want, errs)
		}
	}
	n, err := expr.Parse("extract(dow FROM t) + date_part('DOY', t)")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := n.String(), `(dayofweek("t") + dayofyear("t"))`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestLimits: what passes them, passes them as canonical text.
func TestLimits(t *testing.T) {
	nested := "a"
	for range 40 {
		nested = "CASE " + nested + " WHEN 1 THEN 1 WHEN 2 THEN 2 END"
	}
	for _, x := range []struct{ src, what string }{
		{strings.Repeat("-", 399) + "1", ""},
		{strings.Repeat("-", 400) + "1", "more than 400 levels"},
		{strings.Repeat("NOT ", 399) + "p", ""},
		{"p" + strings.Repeat(" IS NULL", 399), ""},
		{"p" + strings.Repeat(" IS NULL", 400), "more than 400 levels"},
		{strings.Repeat("(", 500) + "a" + strings.Repeat(")", 500), ""},
		{strings.Repeat("(", 1000) + "a" + strings.Repeat(")", 1000), "more than 400 levels"},
		{"a" + strings.Repeat(" + a", 2000), ""},
		{"a IN (1" + strings.Repeat(", 2", 10000) + ")", ""},
		{nested, "parts"},
	} {
		n, err := expr.Parse(x.src)
		switch {
		case x.what != "" && (err == nil || !strings.Contains(err.Error(), x.what)):
			t.Errorf("%.40s…: %v", x.src, err)
		case x.what == "" && err != nil:
			t.Errorf("%.40s…: %v", x.src, err)
		case x.what == "":
			if _, err := expr.Parse(n.String()); err != nil {
				t.Errorf("%.40s… passes, its canonical text does not: %v", x.src, err)
			}
		}
	}
}

// TestMistakesHaveAPlace: what is wrong, and where.
func TestMistakesHaveAPlace(t *testing.T) {
	for _, x := range []struct{ src, at, what string }{
		{"round(a, i)", "i", "whole number from -15 to 15, written out"},
		{"round(a, 1.5)", "1.5", "whole number from -15 to 15"},
		{"round(a, 16)", "16", "whole number from -15 to 15"},
		{"round(s, 2)", "s", "round needs numbers, this is a string"},
		{"mod(i, p)", "p", "mod needs numbers, this is a bool"},
		{"log10(t)", "t", "log10 needs numbers, this is a timestamp"},
		{"t - 1", "1", "gives seconds, this is an int"},
		{"a - t", "a", "gives seconds, this is a float"},
		{"t - 'yesterday'", "'yesterday'", "is no timestamp"},
		{"epoch(t - w)", "t - w", "in seconds already"},
		{"hour(s)", "s", "hour needs a timestamp, this is a string"},
		{"date_diff('days', t, w)", "'days'", "no unit \"days\"; there are second, minute"},
		{"date_diff(s, t, w)", "s", "date_diff needs a unit in single quotes here"},
		{"date_diff('day', t, a)", "a", "date_diff needs a timestamp, this is a float"},
		{"date_diff('day', t)", "date_diff('day', t)", "takes 3 arguments, not 2"},
		{"date_trunc('day', s)", "s", "date_trunc needs a timestamp, this is a string"},
		{"concat(s, i)", "i", "concat needs strings, this is an int"},
		{"starts_with(s, 1)", "1", "starts_with needs strings, this is an int"},
		{"split_part(s, ',', 1.5)", "1.5", "split_part needs a whole number here"},
		{"a + date_part('hours', t)", "'hours'", "no part \"hours\" of a date"},
		{"date_part(s, t)", "s", "in single quotes"},
		{"date_part('hour')", "'hour'", "in single quotes"},
		{"1 + date_part()", "date_part()", "in single quotes"},
		{"EXTRACT(fortnight FROM t)", "fortnight", "no part \"fortnight\" of a date"},
		{"EXTRACT(hour, t)", ",", "expected \"FROM\" after the part of EXTRACT"},
		{"EXTRACT(hour FROM t", "", "to close EXTRACT"},
		{"EXTRACT(1 FROM t)", "1", "expected a part of a date after EXTRACT"},
		{"extrakt(a)", "extrakt(a)", "extract"},
	} {
		n, err := expr.Parse(x.src)
		e, _ := err.(*expr.Error)
		if err == nil {
			errs := expr.Check(n, scope, nil)
			if len(errs) != 1 {
				t.Errorf("%s: %d mistakes", x.src, len(errs))
				continue
			}
			e = errs[0]
		}
		if x.src[e.Start:e.End] != x.at || !strings.Contains(e.What, x.what) {
			t.Errorf("%s: at %q: %s", x.src, x.src[e.Start:e.End], e.What)
		}
	}
}
