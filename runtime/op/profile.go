package op

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// ColumnProfile describes the values of a column.
type ColumnProfile struct {
	Name  string     `json:"name"`
	Type  types.Type `json:"type"`
	Rows  int64      `json:"rows"`
	Nulls int64      `json:"nulls"`
	// Distinct is how many different values there are. Of numbers it is an estimate where
	// there are very many, with a standard error of 1.6 % at most.
	Distinct int64 `json:"distinct"`
	// Mean, Std and Quantiles (of Probabilities) are of numbers; timestamps count in
	// microseconds. Of more than twice Sampled values, quantiles are those of Sampled to
	// twice as many, taken as if at random, but for whole numbers of a narrow range.
	Mean      *float64  `json:"mean,omitempty"`
	Std       *float64  `json:"std,omitempty"`
	Min       *float64  `json:"min,omitempty"`
	Max       *float64  `json:"max,omitempty"`
	Quantiles []float64 `json:"quantiles,omitempty"`
	// Top are the commonest values of a string or condition, long ones by their beginning.
	Top []ValueCount `json:"top,omitempty"`
}

// ValueCount is a value with its number of rows.
type ValueCount struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}

// topText is how many characters of a value Top tells at most.
const topText = 1000

// Probabilities are those of ColumnProfile.Quantiles.
var Probabilities = []float64{0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99}

// columnFacts is what the footer of a Parquet file tells of a column: exact, since mlc
// writes the file itself.
type columnFacts struct {
	rows, nulls int64
	// min and max are of numbers and timestamps (in microseconds), nil where there are
	// none or one is infinite.
	min, max *float64
}

// missing reports whether values may be missing; the zero value knows nothing.
func (f columnFacts) missing() bool { return f.rows == 0 || f.nulls > 0 }

// within reports whether all values are known to be from min to max.
func (f columnFacts) within(min, max float64) bool {
	return f.rows > 0 && (f.nulls == f.rows || f.min != nil && f.max != nil && *f.min >= min && *f.max <= max)
}

// columnsFacts reads the footer of a file of _row, _file and then cols.
func columnsFacts(ctx context.Context, db *sql.DB, path string, cols []kind.Column) ([]columnFacts, int64, error) {
	out := make([]columnFacts, len(cols))
	total, err := table.Rows(path)
	if err != nil || total == 0 {
		return out, total, err
	}
	for _, kinds := range []struct {
		value string // the SQL of a bound, NULL where it is infinite or there is none
		is    func(types.Type) bool
	}{
		{"CASE WHEN isfinite(CAST(%[1]s AS DOUBLE)) THEN CAST(%[1]s AS DOUBLE) END", types.Type.Numeric},
		{"CASE WHEN isfinite(CAST(%[1]s AS TIMESTAMP)) THEN CAST(epoch_us(CAST(%[1]s AS TIMESTAMP)) AS DOUBLE) END", func(t types.Type) bool { return t == types.Timestamp }},
		{"", func(t types.Type) bool { return !number(t) }},
	} {
		var ids []string
		for i, c := range cols {
			if kinds.is(c.Type) {
				ids = append(ids, strconv.Itoa(i+2))
			}
		}
		if len(ids) == 0 {
			continue
		}
		// A chunk of nulls has no least value; one with an infinite makes all unknown.
		bound := func(f, stat string) string {
			if kinds.value == "" {
				return "CAST(NULL AS DOUBLE)"
			}
			v := fmt.Sprintf(kinds.value, stat)
			return fmt.Sprintf("CASE WHEN bool_and(stats_null_count = num_values OR (%s) IS NOT NULL) THEN %s(%s) END", v, f, v)
		}
		q := fmt.Sprintf("SELECT column_id - 2, CAST(sum(num_values) AS BIGINT), CAST(sum(stats_null_count) AS BIGINT), %s, %s FROM parquet_metadata(%s) WHERE column_id IN (%s) GROUP BY column_id",
			bound("min", "stats_min_value"), bound("max", "stats_max_value"), expr.QuotePath(path), strings.Join(ids, ", "))
		err := db.Rows(ctx, q, func(scan func(...any) error) error {
			var i int
			var f columnFacts
			if err := scan(&i, &f.rows, &f.nulls, &f.min, &f.max); err != nil {
				return err
			}
			out[i] = f
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return out, total, nil
}

// Sampled is of how many values of a column its quantiles are at least, where there are
// as many.
const Sampled = 1 << 16

// Different numbers are counted among those of a share of all hashes: a value is in it
// with all its rows or with none, so that the count over the share is an estimate. The
// share is of about countedRows rows; where it holds fewer than countedValues, all are
// counted. The relative standard error is 1/√countedValues (Flajolet 1990, on adaptive sampling).
const (
	countedRows   = 1 << 18
	countedValues = 1 << 12
)

// oneOf is the power of two by which n is divided to leave from some to twice as many.
func oneOf(n, some int64) int64 {
	every := int64(1)
	for n/(2*every) >= some {
		every *= 2
	}
	return every
}

// among is the SQL that chooses a share of hashes, one of so many: a power of two.
func among(hash string, every int64) string {
	if every <= 1 {
		return "true"
	}
	return fmt.Sprintf("%s < CAST('%d' AS UBIGINT)", hash, uint64(1)<<63/uint64(every)*2)
}

// profiled is how many columns one statement describes: their samples are in memory.
const profiled = 32

// profile describes the columns of a file of _row, _file and then cols. What it tells
// does not depend on the order in which threads come to the rows.
func profile(ctx context.Context, db *sql.DB, path string, cols []kind.Column) ([]ColumnProfile, error) {
	facts, _, err := columnsFacts(ctx, db, path, cols)
	if err != nil {
		return nil, err
	}
	out := make([]ColumnProfile, len(cols))
	for at := 0; at < len(cols); at += profiled {
		to := min(at+profiled, len(cols))
		if err := profileBatch(ctx, db, path, cols[at:to], facts[at:to], out[at:to]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func profileBatch(ctx context.Context, db *sql.DB, path string, cols []kind.Column, facts []columnFacts, out []ColumnProfile) error {
	var items []string
	var dest []any
	quantiles := make([]*string, len(cols))
	moments := map[int]*moment{}       // by column
	shares := make([]int64, len(cols)) // of the different values counted, one of so many; 0: not by hash
	probs := strings.Join(strings.Fields(fmt.Sprint(Probabilities)), ", ")
	for i, c := range cols {
		q, p, f := expr.QuoteName(c.Name), &out[i], facts[i]
		*p = ColumnProfile{Name: c.Name, Type: c.Type, Rows: f.rows, Nulls: f.nulls}
		n := f.rows - f.nulls
		if !number(c.Type) || n == 0 {
			continue
		}
		if f.min == nil || f.max == nil {
			return fmt.Errorf("profile of %s: an infinite value, or a file without statistics", c.Name)
		}
		p.Min, p.Max = f.min, f.max
		if c.Type == types.Int && oneOf(n, Sampled) > 1 && *f.max-*f.min < countedValues {
			if err := count(ctx, db, path, p); err != nil {
				return err
			}
			continue
		}
		shares[i] = oneOf(n, countedRows)
		items, dest = append(items, "count(DISTINCT "+q+") FILTER (WHERE "+among("hash("+q+")", shares[i])+")"), append(dest, &p.Distinct)
		if c.Type == types.Timestamp {
			q = "epoch_us(" + q + ")"
		}
		m := &moment{}
		moments[i] = m
		v := m.count(q, c.Type == types.Float, *f.min, *f.max)
		// Chosen by a hash of their place, the rows of a sample are as good as random.
		items = append(items, "CAST(sum("+v+") AS DOUBLE)", "CAST(sum("+v+" * "+v+") AS DOUBLE)", "array_to_string(quantile_cont("+q+", "+probs+") FILTER (WHERE "+among("_hash", oneOf(n, Sampled))+"), ' ')")
		dest = append(dest, &m.sum, &m.squares, &quantiles[i])
	}
	if len(items) > 0 {
		rows := fmt.Sprintf("(SELECT %s, hash(_row) AS _hash FROM %s)", strings.Join(columnNames(cols), ", "), expr.ReadParquet(path))
		if err := db.Row(ctx, "SELECT "+strings.Join(items, ", ")+" FROM "+rows, dest...); err != nil {
			return err
		}
		if err := countFew(ctx, db, path, shares, out); err != nil {
			return err
		}
	}
	for i, c := range cols {
		p := &out[i]
		if m := moments[i]; m != nil {
			p.Mean, p.Std = m.values(p.Rows - p.Nulls)
		} else if !number(c.Type) {
			if err := commonest(ctx, db, path, p); err != nil {
				return err
			}
		}
		if quantiles[i] == nil {
			continue
		}
		for _, text := range strings.Fields(*quantiles[i]) {
			x, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("profile of %s: %w", c.Name, err)
			}
			p.Quantiles = append(p.Quantiles, x)
		}
	}
	return nil
}

// countFew makes counts over a share of the hashes those of all: an estimate where they
// are enough, else counted.
func countFew(ctx context.Context, db *sql.DB, path string, shares []int64, out []ColumnProfile) error {
	var items []string
	var dest []any
	for i, every := range shares {
		p := &out[i]
		switch {
		case every <= 1:
		case p.Distinct < countedValues:
			items, dest = append(items, "count(DISTINCT "+expr.QuoteName(p.Name)+")"), append(dest, &p.Distinct)
		default:
			p.Distinct = min(p.Distinct*every, p.Rows-p.Nulls)
		}
	}
	if len(items) == 0 {
		return nil
	}
	return db.Row(ctx, "SELECT "+strings.Join(items, ", ")+" FROM "+expr.ReadParquet(path), dest...)
}

// count describes a column of a few whole numbers by how many rows have each.
func count(ctx context.Context, db *sql.DB, path string, p *ColumnProfile) error {
	q := expr.QuoteName(p.Name)
	var values []float64
	var upTo []int64 // how many rows have a value or a lesser one
	var n int64
	var mean, squares float64
	err := db.Rows(ctx, fmt.Sprintf("SELECT %[1]s, count(*) FROM %[2]s WHERE %[1]s IS NOT NULL GROUP BY %[1]s ORDER BY %[1]s", q, expr.ReadParquet(path)), func(scan func(...any) error) error {
		var v, of int64
		if err := scan(&v, &of); err != nil {
			return err
		}
		n += of
		values, upTo = append(values, float64(v)), append(upTo, n)
		// Welford (1962), for a value with a weight.
		d := float64(v) - mean
		mean += d * float64(of) / float64(n)
		squares += d * (float64(v) - mean) * float64(of)
		return nil
	})
	if err != nil {
		return err
	}
	std := math.Sqrt(squares / float64(n))
	p.Distinct, p.Mean, p.Std = int64(len(values)), &mean, &std
	at := func(row int64) float64 { // from 0
		i, _ := slices.BinarySearch(upTo, row+1)
		return values[i]
	}
	for _, q := range Probabilities {
		row, part := math.Modf(q * float64(n-1))
		lo, hi := at(int64(row)), at(min(int64(row)+1, n-1))
		p.Quantiles = append(p.Quantiles, lo+(hi-lo)*part)
	}
	return nil
}

// commonest counts the values of a column of texts or conditions.
func commonest(ctx context.Context, db *sql.DB, path string, p *ColumnProfile) error {
	q := expr.QuoteName(p.Name)
	v, long := q, "false"
	if p.Type == types.String {
		v, long = fmt.Sprintf("left(%s, %d)", q, topText), fmt.Sprintf("length(_v) = %d", topText)
	}
	var cut bool
	err := db.Rows(ctx, fmt.Sprintf("SELECT CAST(_v AS VARCHAR), _n, count(*) OVER (), bool_or(%s) OVER () FROM (SELECT %s AS _v, count(*) AS _n FROM %s WHERE %s IS NOT NULL GROUP BY _v) ORDER BY _n DESC, _v LIMIT 20", long, v, expr.ReadParquet(path), q),
		func(scan func(...any) error) error {
			var v ValueCount
			if err := scan(&v.Value, &v.Count, &p.Distinct, &cut); err != nil {
				return err
			}
			p.Top = append(p.Top, v)
			return nil
		})
	if err != nil || !cut {
		return err
	}
	// Long values that begin alike are told apart by their hashes.
	return db.Row(ctx, "SELECT count(DISTINCT hash("+q+")) FROM "+expr.ReadParquet(path)+" WHERE "+q+" IS NOT NULL", &p.Distinct)
}

// moment is a mean and a standard deviation by sums of whole numbers: a value is counted
// in steps from an origin, up to 2^31 of them over the column's range. Such sums are
// exact, so that their order does not matter, and what rounding costs is far below what
// a profile tells.
type moment struct {
	min, max     float64 // of the values
	origin, step float64
	sum, squares *float64
}

// count sets origin and step for values from min to max, and returns the SQL of the
// count of steps to x, a DOUBLE or a BIGINT.
func (m *moment) count(x string, double bool, min, max float64) string {
	m.min, m.max = min, max
	e := math.MinInt16 // the step is 2^e, so that scaling is exact
	if half := max/2 - min/2; half > 0 {
		_, e = math.Frexp(half)
		e -= 30
	}
	if double {
		if e < -1021 { // no finite inverse: values as near as that are the same
			e = 0
		}
		m.origin, m.step = min/2+max/2, math.Ldexp(1, e)
		return fmt.Sprintf("CAST((%s - CAST('%v' AS DOUBLE)) * CAST('%v' AS DOUBLE) AS BIGINT)", x, m.origin, math.Ldexp(1, -e))
	}
	if e <= 0 {
		e = 0
	}
	first := int64(math.MaxInt64)
	if min < math.MaxInt64 {
		first = int64(min)
	}
	first >>= e
	m.origin, m.step = math.Ldexp(float64(first), e), math.Ldexp(1, e)
	m.origin += (m.step - 1) / 2 // a shift rounds down
	return fmt.Sprintf("((%s >> %d) - (%d))", x, e, first)
}

// values are the mean and the population's standard deviation of n values, nil of none.
func (m *moment) values(n int64) (mean, std *float64) {
	if m.sum == nil || m.squares == nil {
		return nil, nil
	}
	a := *m.sum / float64(n)
	// Where the range is that of all doubles, a step more is infinite.
	at := math.Max(m.min, math.Min(m.origin+a*m.step, m.max))
	spread := math.Min(math.Sqrt(math.Max(*m.squares/float64(n)-a*a, 0))*m.step, m.max/2-m.min/2)
	return &at, &spread
}

func number(t types.Type) bool { return t.Numeric() || t == types.Timestamp }
