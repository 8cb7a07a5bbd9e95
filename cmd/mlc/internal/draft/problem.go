package draft

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
)

// problem is what is predicted, and how that is judged.
type problem struct {
	label     *column
	guessed   bool // nobody named the label
	kind      string
	expr      string
	note      string // what its author has to look at
	primary   string
	gates     []gate // in the order of their names
	rows      float64
	commonest float64 // rows of the commonest class
	number    string  // SQL of the label as a number within -1 and 1; "" for classes

	at               *column // the prediction time, or nil
	validation, test time.Duration
	timeless         string // why a time is not the prediction time
}

// gate is how much better than the baseline a metric has to be.
type gate struct {
	metric string
	over   float64
}

// The gates ask for little: an area under the ROC curve rocGain above chance, a
// tenth of what the baseline leaves open or misses.
const (
	rocGain = 0.05
	tenth   = 0.1
	rare    = 0.1 // the share of true labels below which the precision-recall curve tells more
)

// maxClasses is how many classes of text a label may have, and perClass how many
// rows of each, for there to be something to learn.
const (
	maxClasses = 1000
	perClass   = 2
)

// problem finds out what kind of problem the label poses. A label of two values is
// a condition; of other texts and of few whole numbers a class; else a number.
func (t *table) problem(ctx context.Context, c *column) (*problem, error) {
	p := &problem{label: c, expr: c.expr(), rows: float64(t.rows - c.nulls)}
	bad := func(what, why string) (*problem, error) {
		return nil, fault(diag.BadLabel, what, why, "name the column to predict with --label")
	}
	switch {
	case c.distinct == 0:
		return bad(fmt.Sprintf("the label %q has no value in any row", c.name), "there is nothing to learn from")
	case c.distinct == 1:
		return bad(fmt.Sprintf("the label %q is the same in every row", c.name), "there is nothing to tell apart")
	case c.typ == types.Timestamp:
		return bad(fmt.Sprintf("the label %q is a time", c.name), "what is predicted is a condition, a class or a number")
	case c.typ == types.String && (c.distinct > maxClasses || float64(perClass*c.distinct) > p.rows):
		return bad(fmt.Sprintf("the label %q has %d texts in %d rows", c.name, c.distinct, t.rows), "a class needs rows to be learned")
	}
	var values []string // the two commonest
	var counts []float64
	err := t.db.Rows(ctx, fmt.Sprintf("SELECT CAST(%[1]s AS VARCHAR), CAST(count(*) AS DOUBLE) FROM %[2]s WHERE %[1]s IS NOT NULL GROUP BY %[1]s ORDER BY 2 DESC, 1 LIMIT 2", c.sql, t.values(c)), func(scan func(...any) error) error {
		var v string
		var n float64
		err := scan(&v, &n)
		values, counts = append(values, v), append(counts, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.commonest = counts[0]
	switch {
	case c.distinct == 2:
		p.kind = kind.Binary
		yes := p.condition(values)
		share := counts[yes] / p.rows
		p.primary = "roc_auc"
		if share < rare {
			p.primary = "pr_auc"
			p.gates = append(p.gates, gate{"pr_auc", rounded(share, 2)}) // twice the baseline, which is the share
		}
		p.gates = append(p.gates, gate{"roc_auc", rocGain})
	case c.typ == types.String || c.typ == types.Int && t.hasFew(c, few):
		p.kind, p.primary = kind.Multiclass, "accuracy"
		if c.typ == types.Int {
			p.note = `A few whole numbers are taken for classes; if they measure something, kind: "regression".`
		}
		p.gates = append(p.gates, gate{"accuracy", rounded(tenth*(1-p.commonest/p.rows), 2)})
	default:
		p.kind, p.primary, p.number = kind.Regression, "rmse", c.unit()
		var spread float64
		if err := t.db.Row(ctx, "SELECT stddev_pop("+p.number+") FROM "+t.values(c), &spread); err != nil {
			return nil, err
		}
		p.gates = append(p.gates, gate{"rmse", rounded(tenth*spread*c.size(), 2)})
	}
	return p, nil
}

var affirmed = []string{"yes", "y", "true", "t", "positive"}

// condition makes the label of two values, the commoner first, a condition. It
// returns which of them is true: what affirms, the greater number, or the rarer text.
func (p *problem) condition(values []string) int {
	c, yes := p.label, 1
	switch {
	case c.typ.Numeric():
		if v, err := strconv.ParseFloat(values[0], 64); err == nil && v == c.max {
			yes = 0
		}
		p.expr += " = " + format(c.max)
		p.number = fmt.Sprintf("CASE WHEN %s = %s THEN 1 ELSE 0 END", c.sql, format(c.max))
		return yes
	case slices.Contains(affirmed, strings.ToLower(values[0])):
		yes = 0
	case !slices.Contains(affirmed, strings.ToLower(values[1])):
		p.note = fmt.Sprintf("True is %s, the rarer; false is %s.", quote(values[1]), quote(values[0]))
	}
	is := expr.QuoteString(values[yes])
	if c.typ == types.String {
		p.expr += " = " + is
	} else {
		is += "::BOOLEAN"
	}
	p.number = fmt.Sprintf("CASE WHEN %s = %s THEN 1 ELSE 0 END", c.sql, is)
	return yes
}

// The shares of the rows that a split by time leaves to the test and, before it,
// to the validation.
const (
	testShare  = 0.2
	validShare = 0.1
)

// split looks for the prediction time: the only timestamp, where it divides the
// rows into parts that can train and judge.
func (t *table) split(ctx context.Context, p *problem) error {
	var times []*column
	for _, c := range t.cols {
		if c.typ == types.Timestamp && c.distinct > 0 {
			times = append(times, c)
		}
	}
	if len(times) == 0 {
		return nil
	}
	c := times[0]
	p.timeless = fmt.Sprintf("%s does not divide the rows in time", quote(c.name))
	switch {
	case len(times) > 1:
		p.timeless = "more than one column is a time; label.at names the one of the prediction"
		return nil
	case c.nulls > 0:
		p.timeless = fmt.Sprintf("%s is missing in rows", quote(c.name))
		return nil
	}
	at, y := "epoch_us("+c.sql+")", p.label.sql
	var newest, test, valid int64
	q := fmt.Sprintf("SELECT max(%[1]s), quantile_disc(%[1]s, %[2]v), quantile_disc(%[1]s, %[3]v) FROM %[5]s WHERE %[4]s IS NOT NULL", at, 1-testShare, 1-testShare-validShare, y, t.values(c, p.label))
	if err := t.db.Row(ctx, q, &newest, &test, &valid); err != nil {
		return err
	}
	if newest-valid > math.MaxInt64/2000 {
		return nil // longer than durations are
	}
	p.test, p.validation = span(newest-test), span(test-valid)
	testFrom := newest - p.test.Microseconds()
	validFrom := testFrom - p.validation.Microseconds()
	var train, judge float64
	var trainLabels, judgeLabels int64
	q = fmt.Sprintf("SELECT CAST(count(*) FILTER (%[1]s <= %[3]d) AS DOUBLE), count(DISTINCT %[2]s) FILTER (%[1]s <= %[3]d), CAST(count(*) FILTER (%[1]s > %[4]d) AS DOUBLE), count(DISTINCT %[2]s) FILTER (%[1]s > %[4]d) FROM %[5]s WHERE %[2]s IS NOT NULL", at, y, validFrom, testFrom, t.values(c, p.label))
	if err := t.db.Row(ctx, q, &train, &trainLabels, &judge, &judgeLabels); err != nil {
		return err
	}
	if train < p.rows/2 || judge < tenth*p.rows || trainLabels < 2 || judgeLabels < 2 {
		return nil
	}
	p.at, p.timeless = c, ""
	c.note = "The prediction time. It is no feature as it is."
	return nil
}

// span is a number of microseconds as a duration, up to the next whole unit that it
// has at least two of.
func span(micros int64) time.Duration {
	d := time.Duration(micros) * time.Microsecond
	for _, u := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if d >= 2*u {
			return (d + u - 1) / u * u
		}
	}
	return d
}
