package difftest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/sql"
)

// tree asks DuckDB's parser for the structure of a scalar expression, printed
// with every operation in parentheses; ok is false where it refuses it.
func tree(t *rapid.T, db *sql.DB, src string) (string, bool) {
	var out string
	q := "SELECT json_deserialize_sql(json_serialize_sql(" + expr.QuoteString("SELECT "+src) + "))"
	var probe string
	if err := db.Row(context.Background(), "SELECT CAST(json_serialize_sql("+expr.QuoteString("SELECT "+src)+"::VARCHAR) AS VARCHAR)", &probe); err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	var e struct {
		Error bool
	}
	if err := json.Unmarshal([]byte(probe), &e); err != nil || e.Error {
		return "", false
	}
	if err := db.Row(context.Background(), q, &out); err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return out, true
}

// loose drops parentheses that do not matter: it prints an expression as a user
// would, from tokens without any.
func loose(t *rapid.T, depth int) string {
	operand := func() string {
		switch {
		case depth > 0 && rapid.IntRange(0, 3).Draw(t, "deep") == 0:
			return "(" + loose(t, depth-1) + ")"
		case rapid.IntRange(0, 6).Draw(t, "neg") == 0:
			return "- " + pick(t, "atom", "a", "b", "1", "2.5")
		}
		return pick(t, "atom", "a", "b", "i", "p", "s", "1", "2.5", "'x'", "NULL", "TRUE", "abs(a)", "CASE WHEN p THEN a ELSE b END", "CAST(a AS DOUBLE)")
	}
	var b strings.Builder
	if rapid.IntRange(0, 5).Draw(t, "not") == 0 {
		b.WriteString("NOT ")
	}
	b.WriteString(operand())
	for range rapid.IntRange(0, 5).Draw(t, "ops") {
		switch op := pick(t, "op", "+", "-", "*", "/", "%", "//", "||", "=", "<>", "<", ">=", "AND", "OR", "AND NOT", "IS NULL", "IS NOT NULL", "IN", "BETWEEN", "LIKE"); op {
		case "IS NULL", "IS NOT NULL":
			b.WriteString(" " + op)
		case "IN":
			b.WriteString(" " + op + " (" + operand() + ", " + operand() + ")")
		case "BETWEEN":
			b.WriteString(" BETWEEN " + operand() + " AND " + operand())
		default:
			b.WriteString(" " + op + " " + operand())
		}
	}
	return b.String()
}

// TestParserAgreesWithDuckDB: what both parsers take has the same structure:
// DuckDB reads our canonical text, where every operation is in parentheses, as
// it reads the source. What DuckDB refuses as syntax, we refuse.
func TestParserAgreesWithDuckDB(t *testing.T) {
	db := openDB(t)
	rapid.Check(t, func(rt *rapid.T) {
		src := loose(rt, 2)
		n, err := expr.Parse(src)
		theirs, ok := tree(rt, db, src)
		if err != nil {
			return // we may take less than DuckDB does: IN and LIKE do not chain here
		}
		if !ok {
			rt.Fatalf("we take %q, DuckDB does not", src)
		}
		ours, ok := tree(rt, db, strings.ReplaceAll(n.String(), "AS float)", "AS DOUBLE)"))
		if !ok {
			rt.Fatalf("DuckDB does not take our text of %q: %s", src, n)
		}
		if norm(ours) != norm(theirs) {
			rt.Fatalf("%s\nwe read     %s\nDuckDB reads %s", src, ours, theirs)
		}
	})
}

// norm forgives what DuckDB prints in two ways: quotes around names.
func norm(s string) string { return strings.ReplaceAll(s, `"`, "") }

// FuzzParse: no text makes the parser or the checker panic, errors lie inside
// the text, and what parses prints to something that parses to the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a + 1", "a IN (1, 'x')", "CASE a WHEN 1 THEN 'x' END", "((((", "'", "a.\"b c\".d", "NOT NOT p", "a BETWEEN 1 AND 2 AND p", "- - 1", "1e999", "\xff", "if(p, a, b)", "EXTRACT(dow FROM t)", "extract('", "date_part('hour', t)", "date_part(", "round(a, -2)", "t - '2000-01-01'", "date_diff('day', t, w)", "split_part(s, ',', 1)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		n, err := expr.Parse(src)
		if err != nil {
			e := err.(*expr.Error)
			if e.Start < 0 || e.End < e.Start || e.End > len(src) {
				t.Fatalf("error at %d..%d of %d bytes", e.Start, e.End, len(src))
			}
			return
		}
		again, err := expr.Parse(n.String())
		if err != nil || again.String() != n.String() {
			t.Fatalf("%q prints as %q: %v", src, n, err)
		}
		if len(expr.Check(n, scope, nil)) == 0 && n.Type != types.Invalid {
			_ = n.SQL(func(c *expr.Node) string { return expr.QuoteName(c.Name) })
			if ok, bad := expr.Online(n); ok != (bad == nil) || !ok && expr.Why(bad) == "" {
				t.Fatalf("%q: no reason why it is not online", src)
			}
		}
	})
}
