package draft

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
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
	bad      int64 // values that are none of the type; their rows are set aside
	nulls    int64 // rows without a value
	distinct int64
	words    float64 // of free text, a value on average; 0 of any other
	min, max float64 // of numbers
	// correlation is that of a number with the label, nil where there is none; pairs are
	// the rows that have both.
	correlation *float64
	pairs       int64
	values      []string // of a text with few, in order
	badNote     string   // what is bad
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
func isNumber(q string) string { return "NOT isinf(" + expr.ReadNumber(q) + ")" }
func isWhole(q string) string  { return expr.ReadWhole(q) + " IS NOT NULL" }
func isTime(q string) string {
	return expr.ReadTimestamp(q) + " IS NOT NULL"
}
func isBool(q string) string { return "lower(" + q + ") IN ('true', 'false')" }

// maxBad is the share of rows that may be quarantined, as in #source, and that of a
// column's values that may be none of its type.
const maxBad = 0.01

// mostly reports whether so few of n values are left that they are mistakes.
func mostly(some, n int64) bool { return n > 0 && float64(n-some) <= maxBad*float64(n) }

// as gives a column a type.
func (c *column) as(typ types.Type) {
	c.typ, c.typed = typ, c.sql
	switch typ {
	case types.Float:
		c.typed = "nullif(" + expr.ReadNumber(c.sql) + ", 'nan'::DOUBLE)"
	case types.Int:
		c.typed = expr.ReadWhole(c.sql)
	case types.Timestamp:
		c.typed = expr.ReadTimestamp(c.sql)
	case types.Bool:
		c.typed = "TRY_CAST(" + c.sql + " AS BOOLEAN)"
	}
}

// right is the SQL, true or else false or NULL, of whether the text q is of a column's type.
func (c *column) right(q string) string {
	switch c.typ {
	case types.Timestamp:
		return isTime(q)
	case types.Bool:
		return isBool(q)
	}
	return isNumber(q)
}

// types finds the columns' types: those of their values, or of all but mistakes. Digits
// that begin with a zero are a code, not a number; whole numbers that are written with a
// point are floats, for the next one may not be whole.
func (t *table) types(ctx context.Context, label *column) error {
	type counts struct{ n, numbers, whole, points, codes, times, bools, truths int64 }
	found := map[*column]*counts{}
	err := t.ask(ctx, t.cols, t.texts, func(c *column) ([]string, []any) {
		f := &counts{}
		found[c] = f
		number := isNumber(c.sql)
		items := []string{"count(" + c.sql + ")"}
		for _, cond := range []string{number, isWhole(c.sql), number + " AND regexp_matches(" + c.sql + ", '[.eE]')", number + " AND regexp_matches(" + c.sql + `, '^\s*[-+]?0\d')`, isTime(c.sql), isBool(c.sql), "TRY_CAST(" + c.sql + " AS BOOLEAN) IS NOT NULL"} {
			items = append(items, "count(*) FILTER ("+cond+")")
		}
		return items, []any{&f.n, &f.numbers, &f.whole, &f.points, &f.codes, &f.times, &f.bools, &f.truths}
	})
	if err != nil {
		return err
	}
	var doubtful []*column
	for _, c := range t.cols {
		f := found[c]
		c.whole = f.whole == f.numbers
		typ, right := types.String, f.n
		switch {
		case mostly(f.numbers, f.n) && f.codes == 0:
			if typ, right = types.Float, f.numbers; c.whole && f.points == 0 {
				typ = types.Int
			}
		case mostly(f.times, f.n):
			typ, right = types.Timestamp, f.times
		case mostly(f.bools, f.n) && (f.bools == f.n || f.bools == f.truths): // validation reads 't' too
			typ, right = types.Bool, f.bools
		}
		c.as(typ)
		if c.bad = f.n - right; c.bad > 0 {
			doubtful = append(doubtful, c)
		}
	}
	return t.setAside(ctx, doubtful, label)
}

// setAside sets the rows aside in which a column has a value that is none of its type,
// as validation will. Together they are no more than a source may have; columns with
// the fewest come first, and what is left is text, as are ids, which nobody counts
// with, columns where a bad value is all that differs, and labels of few values: each
// of these may be a class.
func (t *table) setAside(ctx context.Context, doubtful []*column, label *column) error {
	if len(doubtful) == 0 {
		return nil
	}
	wrong := func(c *column, q string) string {
		return q + " IS NOT NULL AND NOT coalesce(" + c.right(q) + ", false)"
	}
	kinds := map[*column]*int64{} // of bad values
	err := t.ask(ctx, doubtful, t.texts, func(c *column) ([]string, []any) {
		kinds[c] = new(int64)
		return []string{"count(DISTINCT " + c.sql + ")", "count(DISTINCT " + c.sql + ") FILTER (" + wrong(c, c.sql) + ")"}, []any{&c.distinct, kinds[c]}
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(doubtful, func(a, b *column) int { return cmp.Compare(a.bad, b.bad) })
	sum := t.rejected
	var good []string
	for _, c := range doubtful {
		if float64(sum+c.bad)/float64(t.rows+t.rejected) > maxBad || c.distinct-*kinds[c] < 2 || t.id(c) != "" || c == label && t.hasFew(c, few) {
			c.as(types.String)
			c.bad = 0
			continue
		}
		sum += c.bad
		q := expr.QuoteName(c.name)
		good = append(good, "NOT ("+wrong(c, q)+")")
		var named []string
		err := t.db.Rows(ctx, fmt.Sprintf("SELECT %[1]s FROM %[2]s WHERE %[3]s GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 3", c.sql, t.texts(c), wrong(c, c.sql)), func(scan func(...any) error) error {
			var v string
			err := scan(&v)
			if r := []rune(v); len(r) > 30 {
				v = string(r[:30]) + "…"
			}
			named = append(named, quote(v))
			return err
		})
		if err != nil {
			return err
		}
		if *kinds[c] > int64(len(named)) {
			named = append(named, "…")
		}
		are, rows := "values are", "their rows"
		if c.bad == 1 {
			are, rows = "value is", "its row"
		}
		what := map[types.Type]string{types.Float: "number", types.Int: "whole number", types.Timestamp: "time", types.Bool: "condition"}[c.typ]
		c.badNote = fmt.Sprintf("%d %s not a %s (%s); %s will be quarantined.", c.bad, are, what, strings.Join(named, ", "), rows)
	}
	if len(good) == 0 {
		return nil
	}
	all, file := t.rows, t.file+".good"
	if err := t.db.WriteParquet(ctx, "SELECT * FROM "+expr.ReadParquet(t.file)+" WHERE "+strings.Join(good, " AND "), file); err != nil {
		return err
	}
	t.file = file
	if err := t.db.Row(ctx, "SELECT count(*) FROM "+expr.ReadParquet(t.file), &t.rows); err != nil {
		return err
	}
	t.aside = all - t.rows
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
	if err := t.sentences(ctx, label); err != nil {
		return err
	}
	if label.typ == types.Float && label.whole && t.hasFew(label, few) {
		label.typ = types.Int
	}
	return nil
}

// sentence is how many words the values of free text have on average, at least: more
// than names and addresses have. A word stands between spaces and has two letters side
// by side, so that ids, codes and lists of numbers have none or one.
const sentence = 5

// sentences finds the columns of free text: of many words, and seldom the same, so
// that the whole tells nothing but its words may.
func (t *table) sentences(ctx context.Context, label *column) error {
	var texts []*column
	for _, c := range t.cols {
		if c.typ == types.String && c != label && c.distinct > 0 && len(c.values) == 0 && float64(c.distinct) >= fewShare*float64(t.rows-c.nulls) {
			texts = append(texts, c)
		}
	}
	err := t.ask(ctx, texts, t.values, func(c *column) ([]string, []any) {
		// Most texts of one word have no space, which is found out sooner.
		return []string{fmt.Sprintf(`avg(CASE WHEN contains(%[1]s, ' ') THEN len(regexp_extract_all(%[1]s, '\S*\pL{2}\S*')) ELSE 1 END) FILTER (%[1]s IS NOT NULL)`, c.sql)}, []any{&c.words}
	})
	for _, c := range texts {
		if c.words < sentence {
			c.words = 0
		}
	}
	return err
}

// idName matches id, customer_id and customerID, not paid.
var idName = regexp.MustCompile(`(?i:(^|[^a-z])(id|uuid|guid))$|[a-z0-9](ID|Id)$`)

// id says why a column is taken for an id, or "". Floats are measured, and measures
// seldom repeat; nor do sentences.
func (t *table) id(c *column) string {
	switch {
	case c.typ != types.String && c.typ != types.Int || c.words > 0:
	case c.distinct == t.rows:
		return "An id? No two rows have the same, so it is no feature."
	case idName.MatchString(c.name) && !t.hasFew(c, few):
		return "An id by its name, so it is no feature."
	}
	return ""
}

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
		id := t.id(c)
		switch {
		case c.distinct == 0:
			c.out, c.note = true, "It has no value in any row, so it is no feature."
		case c.distinct == 1 && c.nulls == 0:
			c.out, c.note = true, "It is the same in every row, so it is no feature."
		case id != "":
			c.out, c.note = true, id
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
