// Package difftest compares the implementations of one meaning: expressions in
// SQL and in ONNX, and our parser with DuckDB's.
package difftest

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/sql"
)

// columns are the table that generated expressions read.
var columns = map[string]types.Type{"a": types.Float, "b": types.Float, "i": types.Int, "p": types.Bool, "q": types.Bool, "s": types.String, "u": types.String, "t": types.Timestamp, "w": types.Timestamp}

// What functions take besides columns, and those of one timestamp.
var (
	units    = []string{"second", "minute", "hour", "day", "week", "month", "quarter", "year"}
	calendar = []string{"second", "minute", "hour", "day", "dayofweek", "isodow", "dayofyear", "week", "isoyear", "month", "quarter", "year", "epoch"}
	needles  = []string{"'x'", "'xx'", "'.*'", "'é'", "'\n'", "'[a'", `'\'`, "'it''s'"}
)

func scope(name string) (types.Type, bool) { t, ok := columns[name]; return t, ok }

func pick(t *rapid.T, label string, xs ...string) string { return rapid.SampledFrom(xs).Draw(t, label) }

// genExpr makes the text of an expression of the wanted type that runs online.
// Logarithms and exponentials are left out: the engines' differ in the last bit.
func genExpr(t *rapid.T, want types.Type, depth int) string {
	sub := func(w types.Type) string { return genExpr(t, w, depth-1) }
	leaf := depth <= 0 || rapid.IntRange(0, 4).Draw(t, "leaf") == 0
	switch want {
	case types.Float:
		if leaf {
			return pick(t, "num", "a", "b", "i", "a", "b", "i", "0", "1", "2.5", "-3", "1e300", "0.1", "1.00000005", "1e-46", "NULL")
		}
		switch pick(t, "op", "+", "-", "*", "/", "//", "%", "neg", "f1", "case", "coalesce", "nullif", "greatest", "cal", "castb", "if", "sqrt", "casti", "digits", "mod", "since", "diff") {
		case "neg":
			return "-(" + sub(want) + ")"
		case "f1":
			return pick(t, "f", "abs", "floor", "ceil", "sign", "round") + "(" + sub(want) + ")"
		case "sqrt":
			return "sqrt(" + sub(want) + ")"
		case "case":
			return "CASE WHEN " + sub(types.Bool) + " THEN " + sub(want) + " WHEN " + sub(types.Bool) + " THEN " + sub(want) + pick(t, "else", " END", " ELSE "+sub(want)+" END")
		case "if":
			return "if(" + sub(types.Bool) + ", " + sub(want) + ", " + sub(want) + ")"
		case "coalesce":
			return "coalesce(" + sub(want) + ", " + sub(want) + ")"
		case "nullif":
			return "nullif(" + sub(want) + ", " + sub(want) + ")"
		case "greatest":
			return pick(t, "f", "greatest", "least") + "(" + sub(want) + ", " + sub(want) + ", " + sub(want) + ")"
		case "digits":
			return "round(" + sub(want) + ", " + pick(t, "digits", "1", "2", "5", "15", "0", "-1", "-3", "-15") + ")"
		case "mod":
			return "mod(" + sub(want) + ", " + sub(want) + ")"
		case "since":
			return "(" + pick(t, "t", "t", sub(types.Timestamp)) + " - " + pick(t, "w", "w", "'2001-02-03'", "NULL") + ")"
		case "diff":
			return "date_diff('" + pick(t, "unit", units...) + "', " + pick(t, "t", "t", sub(types.Timestamp)) + ", " + pick(t, "w", "w", "'1600-02-29'", "NULL") + ")"
		case "cal":
			return pick(t, "f", calendar...) + "(" + pick(t, "t", "t", sub(types.Timestamp)) + ")"
		case "castb":
			return "CAST(" + sub(types.Bool) + " AS int)"
		case "casti":
			return "CAST(" + sub(want) + " AS int)"
		default:
			return "(" + sub(want) + " " + pick(t, "op2", "+", "-", "*", "/", "//", "%") + " " + sub(want) + ")"
		}
	case types.Timestamp:
		if leaf {
			return pick(t, "time", "t", "w")
		}
		if rapid.Bool().Draw(t, "trunc") {
			return "date_trunc('" + pick(t, "unit", units...) + "', " + sub(want) + ")"
		}
		return "coalesce(" + sub(want) + ", " + sub(want) + ")"
	case types.String:
		if leaf {
			return pick(t, "str", "s", "u", "s", "u", "'x'", "''", "'it''s'", "'é'", "NULL")
		}
		switch pick(t, "op", "||", "case", "coalesce", "nullif", "concat", "split") {
		case "concat":
			return "concat(" + sub(want) + ", " + sub(want) + ", " + sub(want) + ")"
		case "split":
			return "split_part(" + sub(want) + ", " + pick(t, "delimiter", needles...) + ", " + pick(t, "part", "1", "2", "3") + ")"
		case "||":
			return "(" + sub(want) + " || " + sub(want) + ")"
		case "case":
			return "CASE WHEN " + sub(types.Bool) + " THEN " + sub(want) + " ELSE " + sub(want) + " END"
		case "coalesce":
			return "coalesce(" + sub(want) + ", " + sub(want) + ")"
		}
		return "nullif(" + sub(want) + ", " + sub(want) + ")"
	default:
		if leaf {
			return pick(t, "bool", "p", "q", "p", "q", "TRUE", "FALSE", "NULL")
		}
		switch pick(t, "op", "and", "or", "not", "null", "cmp", "scmp", "in", "sin", "between", "like", "case", "coalesce", "nullif", "tcmp", "castn", "match") {
		case "and":
			return "(" + sub(want) + " AND " + sub(want) + ")"
		case "or":
			return "(" + sub(want) + " OR " + sub(want) + ")"
		case "not":
			return "(NOT " + sub(want) + ")"
		case "null":
			w := rapid.SampledFrom([]types.Type{types.Float, types.String, types.Bool}).Draw(t, "w")
			return "(" + sub(w) + pick(t, "is", " IS NULL)", " IS NOT NULL)")
		case "scmp":
			return "(" + sub(types.String) + pick(t, "c", " = ", " <> ") + sub(types.String) + ")"
		case "tcmp":
			return "(t " + pick(t, "c", "=", "<", ">=") + " '2001-02-03 04:05:06')"
		case "in":
			return "(" + sub(types.Float) + pick(t, "in", " IN (", " NOT IN (") + sub(types.Float) + ", " + sub(types.Float) + "))"
		case "sin":
			return "(" + sub(types.String) + pick(t, "in", " IN (", " NOT IN (") + sub(types.String) + ", " + sub(types.String) + "))"
		case "between":
			return "(" + sub(types.Float) + " BETWEEN " + sub(types.Float) + " AND " + sub(types.Float) + ")"
		case "like":
			return "(" + sub(types.String) + pick(t, "like", " LIKE ", " NOT LIKE ") + pick(t, "pat", "'%x%'", "'_'", "'x_%'", "''", "'.*'") + ")"
		case "case":
			return "CASE WHEN " + sub(types.Bool) + " THEN " + sub(want) + " ELSE " + sub(want) + " END"
		case "coalesce":
			return "coalesce(" + sub(want) + ", " + sub(want) + ")"
		case "nullif":
			return "nullif(" + sub(want) + ", " + sub(want) + ")"
		case "match":
			return pick(t, "f", "contains", "starts_with", "ends_with") + "(" + sub(types.String) + ", " + pick(t, "needle", append([]string{"''"}, needles...)...) + ")"
		case "castn":
			return "CAST(" + sub(types.Float) + " AS bool)"
		default:
			return "(" + sub(types.Float) + pick(t, "c", " = ", " <> ", " < ", " <= ", " > ", " >= ") + sub(types.Float) + ")"
		}
	}
}

// row is one row of test data in ONNX form: NaN and types.NullString for NULL.
type row struct {
	nums map[string]float64
	strs map[string]string
}

var (
	floats  = []float64{math.NaN(), 0, math.Copysign(0, -1), 1, -1, 0.5, -0.5, 1.5, 2.5, 0.49999999999999994, 1e308, -1e308, 5e-324, math.Inf(1), math.Inf(-1), 1 << 53, 4503599627370497.5, 3.7, -3.7}
	ints    = []float64{math.NaN(), 0, 1, -1, 2, 7, -7, 1 << 53, -(1 << 53)}
	bools   = []float64{math.NaN(), 0, 1}
	texts   = []string{types.NullString, "", "x", "xy", "it's", "é", "X", ".*", "a\nxb", "xxx", "éxé\n", "[a\\", "\U0001d7d8e\u0301"}
	instant = []float64{math.NaN(), 0, -1, 1, 981173106000000, 951782399999999, 951782400000000, 4102444799999999, -2208988800000001, 86399999999, 1e6 * 3600 * 23, -62135596800000001, -11670998400000000, 345600000000, 2524521600000000}
)

func genRow(t *rapid.T) row {
	num := func(l string, xs []float64) float64 { return rapid.SampledFrom(xs).Draw(t, l) }
	return row{map[string]float64{"a": num("a", floats), "b": num("b", floats), "i": num("i", ints), "p": num("p", bools), "q": num("q", bools), "t": num("t", instant), "w": num("w", instant)},
		map[string]string{"s": rapid.SampledFrom(texts).Draw(t, "s"), "u": rapid.SampledFrom(texts).Draw(t, "u")}}
}

func sqlLiteral(r row, name string) string {
	if columns[name] == types.String {
		if r.strs[name] == types.NullString {
			return "NULL::VARCHAR"
		}
		return expr.QuoteString(r.strs[name])
	}
	x := r.nums[name]
	if math.IsNaN(x) {
		return "NULL::" + columns[name].SQL()
	}
	switch columns[name] {
	case types.Bool:
		return fmt.Sprint(x != 0)
	case types.Int:
		return fmt.Sprintf("%d::BIGINT", int64(x))
	case types.Timestamp:
		return fmt.Sprintf("make_timestamp(%d)", int64(x))
	}
	return fmt.Sprintf("'%g'::DOUBLE", x)
}

// evalSQL returns an expression's value over rows in ONNX form.
func evalSQL(t testing.TB, db *sql.DB, n *expr.Node, rows []row) []any {
	t.Helper()
	return evalText(t, db, n.SQL(func(c *expr.Node) string { return expr.QuoteName(c.Name) }), n.Type, rows)
}

// evalText does the same for DuckDB's own SQL.
func evalText(t testing.TB, db *sql.DB, e string, of types.Type, rows []row) []any {
	t.Helper()
	var values []string
	for k, r := range rows {
		vs := []string{fmt.Sprint(k)}
		for _, c := range []string{"a", "b", "i", "p", "q", "s", "u", "t", "w"} {
			vs = append(vs, sqlLiteral(r, c))
		}
		values = append(values, "("+strings.Join(vs, ", ")+")")
	}
	cast := "DOUBLE"
	if of == types.String {
		cast = "VARCHAR"
	}
	q := fmt.Sprintf("SELECT CAST(%s AS %s) FROM (VALUES %s) AS r(k, a, b, i, p, q, s, u, t, w) ORDER BY k", e, cast, strings.Join(values, ", "))
	var out []any
	err := db.Rows(context.Background(), q, func(scan func(...any) error) error {
		if of == types.String {
			var s *string
			if err := scan(&s); err != nil {
				return err
			}
			if s == nil {
				out = append(out, types.NullString)
			} else {
				out = append(out, *s)
			}
			return nil
		}
		var f *float64
		if err := scan(&f); err != nil {
			return err
		}
		if f == nil {
			out = append(out, math.NaN())
		} else {
			out = append(out, *f)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, q)
	}
	return out
}

// evalONNX does the same through ONNX Runtime.
func evalONNX(t testing.TB, n *expr.Node, rows []row) []any {
	t.Helper()
	g := onnx.New("test")
	var inputs []ort.Tensor
	declared := map[string]onnx.Value{}
	for _, c := range n.Columns() {
		if columns[c.Name] == types.String {
			declared[c.Name] = g.Input(c.Name, onnx.String, -1, 1)
			col := make([]string, len(rows))
			for k, r := range rows {
				col[k] = r.strs[c.Name]
			}
			inputs = append(inputs, ort.Column(col))
			continue
		}
		declared[c.Name] = g.Input(c.Name, onnx.Double, -1, 1)
		col := make([]float64, len(rows))
		for k, r := range rows {
			col[k] = r.nums[c.Name]
		}
		inputs = append(inputs, ort.Column(col))
	}
	v := expr.Lower(g, n, func(name string) expr.Input { return expr.Input{Value: declared[name], Type: columns[name]} })
	dt := onnx.Double
	if n.Type == types.String {
		dt = onnx.String
	}
	g.Output("out", v, dt, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, n, g.Text())
	}
	defer s.Close()
	res, err := s.Run(inputs)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, n, g.Text())
	}
	var out []any
	switch d := res[0].Data.(type) {
	case []float64:
		for _, x := range d {
			out = append(out, x)
		}
	case []string:
		for _, x := range d {
			out = append(out, x)
		}
	}
	return out
}

func same(a, b any) bool {
	x, ok := a.(float64)
	if !ok {
		return a == b
	}
	y := b.(float64)
	return x == y || math.IsNaN(x) && math.IsNaN(y)
}

func openDB(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open(context.Background(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestSQLAndONNXAgree generates expressions and rows, nulls, infinities and
// extremes included, and demands the same bits of both lowerings.
func TestSQLAndONNXAgree(t *testing.T) {
	db := openDB(t)
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SampledFrom([]types.Type{types.Float, types.Bool, types.String}).Draw(rt, "type")
		src := genExpr(rt, want, 4)
		n, err := expr.Parse(src)
		if err != nil {
			rt.Fatalf("%s: %v", src, err)
		}
		if errs := expr.Check(n, scope, nil); len(errs) > 0 {
			rt.Skip(errs[0].What)
		}
		if ok, bad := expr.Online(n); !ok {
			rt.Fatalf("%s cannot run online: %s", src, bad)
		}
		if len(n.Columns()) == 0 || n.Type == types.Null {
			rt.Skip("no columns")
		}
		rows := rapid.SliceOfN(rapid.Custom(genRow), 1, 12).Draw(rt, "rows")
		a, b := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(a[k], b[k]) {
				rt.Fatalf("%s\nSQL  %v\nONNX %v\nrow %v", n, a[k], b[k], rows[k])
			}
		}
	})
}

// checked reads an expression that is right.
func checked(t testing.TB, src string) *expr.Node {
	t.Helper()
	n, err := expr.Parse(src)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	if errs := expr.Check(n, scope, nil); len(errs) > 0 {
		t.Fatalf("%s: %s", src, errs[0].What)
	}
	if ok, bad := expr.Online(n); !ok {
		t.Fatalf("%s: %s", src, expr.Why(bad))
	}
	return n
}

// TestCalendarAgrees takes instants of all times, most of them next to the start of
// an hour, a day, a month or a year.
func TestCalendarAgrees(t *testing.T) {
	db := openDB(t)
	var all []*expr.Node
	srcs := []string{"t - w"}
	for _, f := range calendar {
		srcs = append(srcs, f+"(t)")
	}
	for _, u := range units {
		srcs = append(srcs, "epoch(date_trunc('"+u+"', t))", "date_diff('"+u+"', t, w)")
	}
	for _, src := range srcs {
		all = append(all, checked(t, src))
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.SampledFrom(all).Draw(rt, "expression")
		rows := make([]row, 64)
		at := func() float64 {
			d := time.Date(rapid.IntRange(-4000, 9999).Draw(rt, "year"), time.Month(rapid.IntRange(1, 12).Draw(rt, "month")), rapid.IntRange(1, 31).Draw(rt, "day"), rapid.IntRange(0, 23).Draw(rt, "hour"), rapid.IntRange(0, 59).Draw(rt, "minute"), 0, 0, time.UTC)
			us := d.UnixMicro() + rapid.SampledFrom([]int64{-1, 0, 1, 59_999_999, 3_599_999_999}).Draw(rt, "off")
			return float64(int64(float64(us))) // as far as doubles tell them apart
		}
		for i := range rows {
			rows[i] = row{nums: map[string]float64{"t": at(), "w": at()}}
		}
		a, b := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(a[k], b[k]) {
				rt.Fatalf("%s of %.0f and %.0f\nSQL  %v\nONNX %v", n, rows[k].nums["t"], rows[k].nums["w"], a[k], b[k])
			}
		}
	})
}

// TestNullsOfOperatorsThatMightHideThem: those that IEEE 754 gives a number for NaN.
func TestNullsOfOperatorsThatMightHideThem(t *testing.T) {
	db := openDB(t)
	nan := math.NaN()
	rows := []row{}
	for _, a := range []float64{nan, 0, 1, -1, 2} {
		for _, b := range []float64{nan, 0, 1, 2} {
			rows = append(rows, row{nums: map[string]float64{"a": a, "b": b}})
		}
	}
	for _, src := range []string{"pow(a, b)", "pow(1, a)", "pow(a, 0)", "sign(a)", "round(a)", "a // b", "greatest(a, b)", "least(a, b)", "nullif(a, b)", "a <> b", "NOT (a <> b)", "coalesce(a, b)", "mod(a, b)", "round(a, 2)", "round(a / 3, -1)", "if(a > b, a, b)", "CAST(a > b AS int)", "CAST(a AS bool)"} {
		n := checked(t, src)
		x, y := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(x[k], y[k]) {
				t.Errorf("%s of %v: SQL %v, ONNX %v", n, rows[k].nums, x[k], y[k])
			}
		}
	}
}

// TestSameInEveryRow: what names a column and yet is the same in every row, found by
// rapid, has as many rows as there are.
func TestSameInEveryRow(t *testing.T) {
	db := openDB(t)
	rows := []row{{strs: map[string]string{"s": "xx"}}, {strs: map[string]string{"s": types.NullString}}, {strs: map[string]string{"s": ""}}}
	for _, src := range []string{"split_part(CASE WHEN true THEN 'x' ELSE NULL END || coalesce(s, 'x'), 'xx', 3) IS NULL", "(CASE WHEN true THEN 'x' ELSE NULL END || coalesce(s, 'x')) IS NOT NULL", "if(true, 'a', s)"} {
		n := checked(t, src)
		x, y := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(x[k], y[k]) {
				t.Errorf("%s of %v: SQL %v, ONNX %v", n, rows[k].strs, x[k], y[k])
			}
		}
	}
}

// TestLogarithms: the engines' may differ in the last bits, but not where the
// argument is a power of the base.
func TestLogarithms(t *testing.T) {
	db := openDB(t)
	for src, base := range map[string]float64{"log2(a)": 2, "log10(a)": 10} {
		var rows []row
		add := func(xs ...float64) {
			for _, x := range xs {
				rows = append(rows, row{nums: map[string]float64{"a": x}})
			}
		}
		add(math.NaN(), 0, math.Copysign(0, -1), -1, math.Inf(-1), math.Inf(1), 1, math.Nextafter(1, 2), 5e-324, math.MaxFloat64)
		for k := -22.0; k <= 22; k++ {
			add(math.Pow(base, k), math.Nextafter(math.Pow(base, k), 0), math.Pow(base, k+0.3))
		}
		n := checked(t, src)
		a, b := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			x, sql, onnx := rows[k].nums["a"], a[k].(float64), b[k].(float64)
			if !same(sql, onnx) && (sql == math.Trunc(sql) && math.Pow(base, sql) == x || !(math.Abs(sql-onnx) <= 4e-16*math.Abs(sql))) {
				t.Errorf("%s of %v: SQL %v, ONNX %v", n, x, sql, onnx)
			}
		}
	}
}

// TestTextIsMatchedByteForByte: what a model looks for may hold anything that a
// pattern gives a meaning; what it looks in, even what is no UTF-8, which reaches
// a service but never DuckDB.
func TestTextIsMatchedByteForByte(t *testing.T) {
	db := openDB(t)
	letters := []string{"a", "b", ".", "*", "\\", "(", "[", "^", "$", "|", "?", "{2}", "\n", "\r", "'", "é", "e\u0301", "\U0001f469", "%", "_", "\\C", "(?i)"}
	text := func(rt *rapid.T, label string, of []string, min int) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(of), min, 4).Draw(rt, label), "")
	}
	want := map[string]func(s, sub string) any{
		"contains":    func(s, sub string) any { return truth(strings.Contains(s, sub)) },
		"starts_with": func(s, sub string) any { return truth(strings.HasPrefix(s, sub)) },
		"ends_with":   func(s, sub string) any { return truth(strings.HasSuffix(s, sub)) },
		"split_part": func(s, sub string) any {
			if parts := strings.Split(s, sub); len(parts) > 1 {
				return parts[1]
			}
			return ""
		},
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := pick(rt, "f", "contains", "starts_with", "ends_with", "split_part")
		least, last := 0, ")"
		if f == "split_part" {
			least, last = 1, ", 2)"
		}
		sub := text(rt, "sub", letters, least)
		n := checked(t, f+"(s, "+expr.QuoteString(sub)+last)
		var valid, wild []row
		for range 8 {
			s := text(rt, "s", append([]string{sub}, letters...), 0)
			valid = append(valid, row{strs: map[string]string{"s": s}})
			wild = append(wild, row{strs: map[string]string{"s": s + pick(rt, "bytes", "", "\xff", "\xc3", "\xed\xa0\x80") + text(rt, "rest", append([]string{sub}, letters...), 0)}})
		}
		a, b := evalSQL(t, db, n, valid), evalONNX(t, n, valid)
		for k, r := range valid {
			if a[k] != want[f](r.strs["s"], sub) || a[k] != b[k] {
				rt.Fatalf("%s of %q: SQL %v, ONNX %v, Go %v", n, r.strs["s"], a[k], b[k], want[f](r.strs["s"], sub))
			}
		}
		for k, x := range evalONNX(t, n, wild) {
			if s := wild[k].strs["s"]; x != want[f](s, sub) {
				rt.Fatalf("%s of %q: ONNX %v, Go %v", n, s, x, want[f](s, sub))
			}
		}
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// TestFunctionsAreDuckDBs: what is spelled as in DuckDB has DuckDB's values, where
// DuckDB has one and counts right (dateDiffSQL).
func TestFunctionsAreDuckDBs(t *testing.T) {
	db := openDB(t)
	own := []string{"round(a, 2)", "round(a, 0)", "mod(i, 7)", "concat(s, u, 'x')", "contains(s, 'x')", "starts_with(s, 'x')", "ends_with(s, 'x')", "split_part(s, 'x', 2)"}
	for _, part := range []string{"second", "minute", "hour", "day", "dow", "isodow", "doy", "week", "isoyear", "month", "quarter", "year", "epoch"} {
		own = append(own, "extract("+part+" FROM t)", "date_part('"+part+"', t)")
	}
	for _, u := range units {
		own = append(own, "epoch(date_trunc('"+u+"', t))", "date_diff('"+u+"', w, t)")
	}
	theirs := map[string]string{"t - w": "CAST(epoch_us(t - w) AS DOUBLE) / 1e6", "round(a, -2)": "round(a, -2)"}
	for _, src := range own {
		theirs[src] = src
	}
	rapid.Check(t, func(rt *rapid.T) {
		src := pick(rt, "src", append(own, "t - w", "round(a, -2)")...)
		at := func(l string) float64 { return float64(rapid.Int64Range(4*86400e6, 4102444800e6).Draw(rt, l)) }
		rows := make([]row, 16)
		for i := range rows {
			rows[i] = genRow(rt)
			rows[i].nums["t"], rows[i].nums["w"] = at("t"), at("w")
			if a := rows[i].nums["a"]; strings.HasSuffix(src, "-2)") && math.Abs(a) > 1e300 {
				rows[i].nums["a"] = 12345.5 // of the largest and the infinite DuckDB makes 0
			}
		}
		n := checked(t, src)
		a, b, c := evalText(t, db, theirs[src], n.Type, rows), evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(a[k], b[k]) || !same(a[k], c[k]) {
				rt.Fatalf("%s: DuckDB %v, SQL %v, ONNX %v\nrow %v", src, a[k], b[k], c[k], rows[k])
			}
		}
	})
}

// TestNullsOfText: which functions pass over NULLs, and which do not.
func TestNullsOfText(t *testing.T) {
	db := openDB(t)
	var rows []row
	for _, s := range []string{types.NullString, "", "a", "a,b", ",a"} {
		for _, u := range []string{types.NullString, "", "a"} {
			rows = append(rows, row{strs: map[string]string{"s": s, "u": u}})
		}
	}
	for _, src := range []string{"concat(s)", "concat(s, u)", "concat(NULL, s, NULL)", "s || u", "s || NULL", "concat(s, u) IS NULL", "concat(s || u, 'x')",
		"contains(s, 'a')", "NOT contains(s, '')", "starts_with(s, 'a') OR u = 'a'", "ends_with(concat(s, u), 'a')", "contains(NULL, 'a') OR s = 'a'",
		"split_part(s, ',', 1)", "split_part(s, ',', 3)", "split_part(s, ',', 1) IS NULL", "split_part(NULL, ',', 1) || s", "concat(split_part('p,q', ',', 2), s)"} {
		n := checked(t, src)
		x, y := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(x[k], y[k]) {
				t.Errorf("%s of %q: SQL %v, ONNX %v", n, rows[k].strs, x[k], y[k])
			}
		}
	}
}

// TestPrintRoundTrip: the canonical text parses to the same canonical text.
func TestPrintRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SampledFrom([]types.Type{types.Float, types.Bool, types.String}).Draw(rt, "type")
		n, err := expr.Parse(genExpr(rt, want, 5))
		if err != nil {
			rt.Fatal(err)
		}
		again, err := expr.Parse(n.String())
		if err != nil {
			rt.Fatalf("%s: %v", n, err)
		}
		if n.String() != again.String() {
			rt.Fatalf("%s became %s", n, again)
		}
	})
}
