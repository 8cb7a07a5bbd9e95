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
var columns = map[string]types.Type{"a": types.Float, "b": types.Float, "i": types.Int, "p": types.Bool, "q": types.Bool, "s": types.String, "u": types.String, "t": types.Timestamp}

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
		switch pick(t, "op", "+", "-", "*", "/", "//", "%", "neg", "f1", "case", "coalesce", "nullif", "greatest", "cal", "castb", "if", "sqrt", "casti") {
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
		case "cal":
			return pick(t, "f", "hour", "minute", "dayofweek", "year", "month", "day", "epoch") + "(t)"
		case "castb":
			return "CAST(" + sub(types.Bool) + " AS int)"
		case "casti":
			return "CAST(" + sub(want) + " AS int)"
		default:
			return "(" + sub(want) + " " + pick(t, "op2", "+", "-", "*", "/", "//", "%") + " " + sub(want) + ")"
		}
	case types.String:
		if leaf {
			return pick(t, "str", "s", "u", "s", "u", "'x'", "''", "'it''s'", "'é'", "NULL")
		}
		switch pick(t, "op", "||", "case", "coalesce", "nullif") {
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
		switch pick(t, "op", "and", "or", "not", "null", "cmp", "scmp", "in", "sin", "between", "like", "case", "coalesce", "nullif", "tcmp", "castn") {
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
	texts   = []string{types.NullString, "", "x", "xy", "it's", "é", "X", ".*", "a\nxb"}
	instant = []float64{math.NaN(), 0, -1, 1, 981173106000000, 951782399999999, 951782400000000, 4102444799999999, -2208988800000001, 86399999999, 1e6 * 3600 * 23}
)

func genRow(t *rapid.T) row {
	num := func(l string, xs []float64) float64 { return rapid.SampledFrom(xs).Draw(t, l) }
	return row{map[string]float64{"a": num("a", floats), "b": num("b", floats), "i": num("i", ints), "p": num("p", bools), "q": num("q", bools), "t": num("t", instant)},
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
	var values []string
	for k, r := range rows {
		vs := []string{fmt.Sprint(k)}
		for _, c := range []string{"a", "b", "i", "p", "q", "s", "u", "t"} {
			vs = append(vs, sqlLiteral(r, c))
		}
		values = append(values, "("+strings.Join(vs, ", ")+")")
	}
	e := n.SQL(func(c *expr.Node) string { return expr.QuoteName(c.Name) })
	cast := "DOUBLE"
	if n.Type == types.String {
		cast = "VARCHAR"
	}
	q := fmt.Sprintf("SELECT CAST(%s AS %s) FROM (VALUES %s) AS r(k, a, b, i, p, q, s, u, t) ORDER BY k", e, cast, strings.Join(values, ", "))
	var out []any
	err := db.Rows(context.Background(), q, func(scan func(...any) error) error {
		if n.Type == types.String {
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

// TestCalendarAgrees takes instants of all times, most of them next to the start of
// an hour, a day, a month or a year.
func TestCalendarAgrees(t *testing.T) {
	db := openDB(t)
	var all []*expr.Node
	for _, f := range []string{"hour", "minute", "dayofweek", "year", "month", "day", "epoch"} {
		n, err := expr.Parse(f + "(t)")
		if err != nil {
			t.Fatal(err)
		}
		if errs := expr.Check(n, scope, nil); len(errs) > 0 {
			t.Fatal(errs[0].What)
		}
		all = append(all, n)
	}
	rapid.Check(t, func(rt *rapid.T) {
		rows := make([]row, 32)
		for i := range rows {
			at := time.Date(rapid.IntRange(-4000, 9999).Draw(rt, "year"), time.Month(rapid.IntRange(1, 12).Draw(rt, "month")), rapid.IntRange(1, 31).Draw(rt, "day"), rapid.IntRange(0, 23).Draw(rt, "hour"), rapid.IntRange(0, 59).Draw(rt, "minute"), 0, 0, time.UTC)
			us := at.UnixMicro() + rapid.SampledFrom([]int64{-1, 0, 1, 59_999_999, 3_599_999_999}).Draw(rt, "off")
			rows[i] = row{nums: map[string]float64{"t": float64(int64(float64(us)))}} // as far as doubles tell them apart
		}
		for _, n := range all {
			a, b := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
			for k := range rows {
				if !same(a[k], b[k]) {
					rt.Fatalf("%s of %v\nSQL  %v\nONNX %v", n, int64(rows[k].nums["t"]), a[k], b[k])
				}
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
	for _, src := range []string{"pow(a, b)", "pow(1, a)", "pow(a, 0)", "sign(a)", "round(a)", "a // b", "greatest(a, b)", "least(a, b)", "nullif(a, b)", "a <> b", "NOT (a <> b)", "coalesce(a, b)", "if(a > b, a, b)", "CAST(a > b AS int)", "CAST(a AS bool)"} {
		n, err := expr.Parse(src)
		if err != nil {
			t.Fatal(err)
		}
		if errs := expr.Check(n, scope, nil); len(errs) > 0 {
			t.Fatal(errs[0].What)
		}
		x, y := evalSQL(t, db, n, rows), evalONNX(t, n, rows)
		for k := range rows {
			if !same(x[k], y[k]) {
				t.Errorf("%s of %v: SQL %v, ONNX %v", n, rows[k].nums, x[k], y[k])
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
