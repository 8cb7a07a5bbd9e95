package draft

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
)

// column is what the rows tell of a column.
type column struct {
	name     string
	sql      string // its name
	typed    string // its value in its type, from its text
	typ      types.Type
	whole    bool  // every number is whole, however it is written
	nulls    int64 // rows without a value
	distinct int64
	min, max float64 // of numbers
	// correlation is that of a number with the label, nil where there is none; pairs are
	// the rows that have both.
	correlation *float64
	pairs       int64
	values      []string // of a text with few, in order
	note        string   // what its author has to look at
	out         bool     // no feature
	leak        bool
}

// few is the most values of a text that a draft lists, and fewShare the share of
// the rows that they have to be below.
const (
	few      = 20
	fewShare = 0.1
)

// hasFew reports whether values repeat so much that they are categories.
func (t *table) hasFew(c *column, most int64) bool {
	return c.distinct <= most && float64(c.distinct) < fewShare*float64(t.rows)
}

// The readings of a text as validation has them (runtime/op): a number is finite
// or NaN, which is missing; a time begins with its year.
func isNumber(q string) string { return "NOT isinf(TRY_CAST(" + q + " AS DOUBLE))" }
func isWhole(q string) string {
	return "TRY_CAST(" + q + " AS DOUBLE) = CAST(TRY_CAST(" + q + " AS BIGINT) AS DOUBLE)"
}
func isTime(q string) string {
	return expr.ReadTimestamp(q) + " IS NOT NULL"
}
func isBool(q string) string { return "lower(" + q + ") IN ('true', 'false')" }

// types finds the columns' types. Digits that begin with a
// zero are a code, not a number; whole numbers that are written with a point are
// floats, for the next one may not be whole.
func (t *table) types(ctx context.Context) error {
	type counts struct{ n, numbers, whole, points, codes, times, bools int64 }
	found := map[*column]*counts{}
	err := t.ask(ctx, t.cols, t.texts, func(c *column) ([]string, []any) {
		f := &counts{}
		found[c] = f
		items := []string{"count(" + c.sql + ")"}
		for _, cond := range []string{isNumber(c.sql), isWhole(c.sql), "regexp_matches(" + c.sql + ", '[.eE]')", `regexp_matches(` + c.sql + `, '^\s*[-+]?0\d')`, isTime(c.sql), isBool(c.sql)} {
			items = append(items, "count(*) FILTER ("+cond+")")
		}
		return items, []any{&f.n, &f.numbers, &f.whole, &f.points, &f.codes, &f.times, &f.bools}
	})
	if err != nil {
		return err
	}
	for _, c := range t.cols {
		f := found[c]
		c.whole = f.whole == f.n
		c.typed = c.sql
		switch {
		case f.n == 0:
		case f.numbers == f.n && f.codes == 0:
			c.typ = types.Float
			c.typed = "nullif(TRY_CAST(" + c.sql + " AS DOUBLE), 'nan'::DOUBLE)"
			if c.whole && f.points == 0 {
				c.typ = types.Int
				c.typed = "TRY_CAST(" + c.sql + " AS BIGINT)"
			}
		case f.times == f.n:
			c.typ = types.Timestamp
			c.typed = expr.ReadTimestamp(c.sql)
		case f.bools == f.n:
			c.typ = types.Bool
			c.typed = "TRY_CAST(" + c.sql + " AS BOOLEAN)"
		}
	}
	return nil
}

// profile counts what the columns hold. A label of few whole numbers is an int.
func (t *table) profile(ctx context.Context, label *column) error {
	err := t.ask(ctx, t.cols, t.values, func(c *column) ([]string, []any) {
		items, dest := []string{"count(*) - count(" + c.sql + ")", "count(DISTINCT " + c.sql + ")"}, []any{&c.nulls, &c.distinct}
		if c.typ.Numeric() {
			items, dest = append(items, "CAST(coalesce(min("+c.sql+"), 0) AS DOUBLE)", "CAST(coalesce(max("+c.sql+"), 0) AS DOUBLE)"), append(dest, &c.min, &c.max)
		}
		return items, dest
	})
	if err != nil {
		return err
	}
	for _, c := range t.cols {
		if c.typ == types.String && t.hasFew(c, few) {
			err := t.db.Rows(ctx, fmt.Sprintf("SELECT DISTINCT %[1]s FROM %[2]s WHERE %[1]s IS NOT NULL ORDER BY 1", c.sql, t.values(c)), func(scan func(...any) error) error {
				var v string
				err := scan(&v)
				c.values = append(c.values, v)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	if label.typ == types.Float && label.whole && t.hasFew(label, few) {
		label.typ = types.Int
	}
	return nil
}

// idName matches id, customer_id and customerID, not paid.
var idName = regexp.MustCompile(`(?i:(^|[^a-z])(id|uuid|guid))$|[a-z0-9](ID|Id)$`)

// roles decides which columns are features, and says why the others are none.
func (t *table) roles(ctx context.Context, p *problem) error {
	if err := t.correlate(ctx, p); err != nil {
		return err
	}
	features, leaks := 0, 0
	for _, c := range t.cols {
		if c == p.label {
			continue
		}
		// Floats are measured, and measures seldom repeat.
		countable := c.typ == types.String || c.typ == types.Int
		switch {
		case c.distinct == 0:
			c.out, c.note = true, "It has no value in any row, so it is no feature."
		case c.distinct == 1 && c.nulls == 0:
			c.out, c.note = true, "It is the same in every row, so it is no feature."
		case countable && c.distinct == t.rows:
			c.out, c.note = true, "An id? No two rows have the same, so it is no feature."
		case countable && idName.MatchString(c.name) && !t.hasFew(c, few):
			c.out, c.note = true, "An id by its name, so it is no feature."
		case c.typ == types.Timestamp:
			c.out, c.note = true, "A time, so it is no feature as it is."
		default:
			told, err := t.tells(ctx, c, p)
			if err != nil {
				return err
			}
			features++
			if c.leak = told != ""; c.leak {
				leaks++
				c.out, c.note = true, fmt.Sprintf("A leak? %s. It is no feature; make it one if it is known when a prediction is made.", told)
			}
		}
	}
	more, err := t.parts(ctx, p)
	if err != nil {
		return err
	}
	leaks += more
	if features == 0 {
		return fault(diag.BadArgs, fmt.Sprintf("%s has no column to predict %q from", t.path, p.label.name), "every other one is an id, a time, empty or the same in every row", "add columns that tell something, or name another label with --label")
	}
	for _, c := range t.cols {
		if c.leak && leaks == features { // there is nothing else
			c.out, c.note = false, strings.Replace(c.note, "It is no feature; make it one if", "Keep it only if", 1)
		}
	}
	return nil
}

// most is the most values of a column that is looked at value by value, and near
// is how much of the label a column may tell: of what the commonest class leaves
// open, or as a correlation.
const (
	most = 100
	near = 0.98
)

// tells says how a column alone tells the label almost perfectly, or "". A column
// of few values is judged by them, any other with missing ones by whether it is
// missing; a number by its correlation too.
func (t *table) tells(ctx context.Context, c *column, p *problem) (string, error) {
	y, by, how := p.label.sql, c.sql, "Its value alone"
	if !t.hasFew(c, most) {
		by, how = c.sql+" IS NULL", "Whether it is missing"
	}
	switch {
	case !t.hasFew(c, most) && c.nulls == 0:
	case p.kind == kind.Regression:
		var r *float64
		q := fmt.Sprintf("SELECT corr(m, y) FROM (SELECT %[1]s AS y, avg(%[1]s) OVER (PARTITION BY %[2]s) AS m FROM %[3]s WHERE %[1]s IS NOT NULL)", p.number, by, t.values(c, p.label))
		if err := t.db.Row(ctx, q, &r); err != nil {
			return "", err
		}
		if r != nil && *r > near {
			return fmt.Sprintf("%s tells %s (correlation %.3f)", how, quote(p.label.name), *r), nil
		}
	default:
		var right float64
		q := fmt.Sprintf("SELECT CAST(sum(m) AS DOUBLE) FROM (SELECT max(n) AS m FROM (SELECT %[2]s AS x, count(*) AS n FROM %[3]s WHERE %[1]s IS NOT NULL GROUP BY x, %[1]s) GROUP BY x)", y, by, t.values(c, p.label))
		if err := t.db.Row(ctx, q, &right); err != nil {
			return "", err
		}
		if right-p.commonest >= near*(p.rows-p.commonest) {
			return fmt.Sprintf("%s tells %s in %.4g%% of rows", how, quote(p.label.name), 100*right/p.rows), nil
		}
	}
	// Few pairs correlate by chance.
	if r := c.correlation; r != nil && c.pairs >= 30 && 2*c.pairs >= t.rows && math.Abs(*r) > near {
		return fmt.Sprintf("It alone tells %s (correlation %.3f)", quote(p.label.name), *r), nil
	}
	return "", nil
}

// correlate finds the correlation of every number with the label.
func (t *table) correlate(ctx context.Context, p *problem) error {
	if p.number == "" {
		return nil
	}
	var numbers []*column
	for _, c := range t.cols {
		if c.typ.Numeric() {
			numbers = append(numbers, c)
		}
	}
	both := func(cols ...*column) string { return t.values(append(cols, p.label)...) }
	return t.ask(ctx, numbers, both, func(c *column) ([]string, []any) {
		return []string{fmt.Sprintf("corr(%s, %s) FILTER (%[3]s IS NOT NULL), count(%[4]s) FILTER (%[3]s IS NOT NULL)", c.unit(), p.number, p.label.sql, c.sql)}, []any{&c.correlation, &c.pairs}
	})
}

// widest is the most numbers of which all pairs are looked at.
const widest = 30

// parts marks pairs of features whose sum or difference is the label in every row, such
// as the casual and the registered of a count, and returns how many features that are.
func (t *table) parts(ctx context.Context, p *problem) (int, error) {
	var numbers []*column
	for _, c := range t.cols {
		if c != p.label && !c.out && c.typ.Numeric() && c.typ != types.Bool {
			numbers = append(numbers, c)
		}
	}
	if !kind.IsNumeric(p.kind) || len(numbers) < 2 || len(numbers) > widest {
		return 0, nil
	}
	type pair struct {
		a, b *column
		how  string
	}
	var pairs []pair
	var tests []string
	for i, a := range numbers {
		for _, b := range numbers[i+1:] {
			for _, c := range []struct {
				pair
				sql string
			}{{pair{a, b, "the sum of"}, a.sql + " + " + b.sql}, {pair{a, b, "the difference of"}, "abs(" + a.sql + " - " + b.sql + ")"}} {
				pairs = append(pairs, c.pair)
				tests = append(tests, fmt.Sprintf("coalesce(CAST(sum(CASE WHEN abs(CAST(%s AS DOUBLE) - %s) > %s THEN 1 ELSE 0 END) AS BIGINT), 1)", c.sql, p.label.sql, strconv.FormatFloat(1e-9*p.label.size(), 'e', -1, 64)))
			}
		}
	}
	wrong, dest := make([]int64, len(tests)), make([]any, len(tests))
	for i := range wrong {
		dest[i] = &wrong[i]
	}
	if err := t.db.Row(ctx, "SELECT "+strings.Join(tests, ", ")+" FROM "+t.values(append(numbers, p.label)...)+" WHERE "+p.label.sql+" IS NOT NULL", dest...); err != nil {
		return 0, err
	}
	found := 0
	for i, n := range wrong {
		x := pairs[i]
		if n > 0 || x.a.out || x.b.out {
			continue
		}
		for _, c := range []*column{x.a, x.b} {
			c.out, c.leak, c.note = true, true, fmt.Sprintf("A leak? %s is %s %s and %s in every row. It is no feature; make it one if it is known when a prediction is made.", quote(p.label.name), x.how, quote(x.a.name), quote(x.b.name))
			found++
		}
	}
	return found, nil
}

// size is the greatest absolute value of a number, or 1.
func (c *column) size() float64 {
	if m := math.Max(math.Abs(c.min), math.Abs(c.max)); m > 0 {
		return m
	}
	return 1
}

// unit is the SQL of a number within -1 and 1, whose squares no engine finds too great.
func (c *column) unit() string {
	return "(" + c.sql + " / " + strconv.FormatFloat(c.size(), 'e', -1, 64) + ")"
}

// bound prints a bound: x to four digits, away from the values, so that it is
// plain to read and still holds for all of them.
func bound(x float64, up bool) string {
	r := rounded(x, 4)
	if up && r < x || !up && r > x {
		step := math.Pow(10, math.Floor(math.Log10(math.Abs(x)))-3)
		if !up {
			step = -step
		}
		r = rounded(r+step, 4)
	}
	return format(r)
}

// rounded is x to a number of significant digits.
func rounded(x float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(x, 'e', digits-1, 64), 64)
	if err != nil {
		return x // beyond the greatest float
	}
	return r
}

// format prints a number as CUE and SQL read it.
func format(x float64) string {
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e15) {
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// expr is the column as expressions write it.
func (c *column) expr() string {
	if n, err := expr.Parse(c.name); err == nil && n.Op == expr.OpColumn && n.Name == c.name {
		return c.name
	}
	return expr.QuoteName(c.name)
}
