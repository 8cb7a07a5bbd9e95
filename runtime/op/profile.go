package op

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/sql"
)

// ColumnProfile describes the values of a column.
type ColumnProfile struct {
	Name  string     `json:"name"`
	Type  types.Type `json:"type"`
	Rows  int64      `json:"rows"`
	Nulls int64      `json:"nulls"`
	// Distinct is an estimate (HyperLogLog).
	Distinct int64 `json:"distinct"`
	// Mean, Std and Quantiles (of Probabilities) are of numbers; timestamps count
	// in microseconds. Values beyond ±1e100 are left out of Mean and Std.
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

// profile reads the good rows once more. Means and quantiles depend on the order of
// rows, so each column is read on one thread: columns go side by side on engines of
// one thread each.
func profile(ctx context.Context, s *Stage, cols []kind.Column) ([]ColumnProfile, error) {
	type share struct {
		at   []int // of cols
		cols []kind.Column
	}
	shares := make([]share, min(sql.Threads, len(cols)))
	next := map[bool]int{}
	for i, c := range cols {
		// Numbers take most of the time: they are dealt out by themselves.
		to := &shares[next[number(c.Type)]%len(shares)]
		next[number(c.Type)]++
		to.at, to.cols = append(to.at, i), append(to.cols, c)
	}
	out := make([]ColumnProfile, len(cols))
	errs := make([]error, len(shares))
	var wg sync.WaitGroup
	for k, sh := range shares {
		wg.Go(func() {
			if len(sh.cols) == 0 {
				return
			}
			one, err := sql.Open(ctx, filepath.Join(s.Dir, fmt.Sprintf("tmp%d", k)), s.Limits.Memory*3/4/int64(len(shares)), 1)
			if err != nil {
				errs[k] = err
				return
			}
			defer one.Close()
			quoted := make([]string, len(sh.cols))
			for i, c := range sh.cols {
				quoted[i] = expr.QuoteName(c.Name)
			}
			rows, err := buffered(ctx, one, "(SELECT "+strings.Join(quoted, ", ")+" FROM "+expr.ReadParquet(s.Out("rows", "rows.parquet"))+")", len(sh.cols))
			if err != nil {
				errs[k] = err
				return
			}
			var ps []ColumnProfile
			for some := range slices.Chunk(sh.cols, batch) {
				p, err := profileBatch(ctx, one, rows, some)
				if err != nil {
					errs[k] = err
					return
				}
				ps = append(ps, p...)
			}
			for i, at := range sh.at {
				out[at] = ps[i]
			}
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

func profileBatch(ctx context.Context, one *sql.DB, rows string, cols []kind.Column) ([]ColumnProfile, error) {
	probs := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(Probabilities)), ", "), " ")
	items := []string{"count(*)"}
	for _, c := range cols {
		q := expr.QuoteName(c.Name)
		items = append(items, "count("+q+")", "approx_count_distinct("+q+")")
		if number(c.Type) {
			x := "CAST(" + q + " AS DOUBLE)"
			if c.Type == types.Timestamp {
				x = "CAST(epoch_us(" + q + ") AS DOUBLE)"
			}
			tame := "CASE WHEN abs(" + x + ") < 1e100 THEN " + x + " END"
			items = append(items, "CAST(avg("+tame+") AS DOUBLE)", "CAST(stddev_pop("+tame+") AS DOUBLE)", "CAST(min("+x+") AS DOUBLE)", "CAST(max("+x+") AS DOUBLE)",
				"array_to_string(approx_quantile(CAST("+x+" AS DOUBLE), "+probs+"), ' ')")
		}
	}
	out := make([]ColumnProfile, len(cols))
	var total int64
	dest := []any{&total}
	quantiles := make([]*string, len(cols))
	for i, c := range cols {
		p := &out[i]
		p.Name, p.Type = c.Name, c.Type
		dest = append(dest, &p.Rows, &p.Distinct)
		if number(c.Type) {
			dest = append(dest, &p.Mean, &p.Std, &p.Min, &p.Max, &quantiles[i])
		}
	}
	if err := one.Row(ctx, "SELECT "+strings.Join(items, ", ")+" FROM "+rows, dest...); err != nil {
		return nil, err
	}
	for i, c := range cols {
		p := &out[i]
		p.Nulls, p.Rows = total-p.Rows, total
		if quantiles[i] != nil {
			for _, f := range strings.Fields(*quantiles[i]) {
				var x float64
				if _, err := fmt.Sscan(f, &x); err != nil {
					return nil, fmt.Errorf("profile of %s: %w", c.Name, err)
				}
				p.Quantiles = append(p.Quantiles, x)
			}
		}
		if number(c.Type) {
			continue
		}
		q := expr.QuoteName(c.Name)
		err := one.Rows(ctx, fmt.Sprintf("SELECT left(CAST(%s AS VARCHAR), %d) AS _v, count(*) AS _n FROM %s WHERE _v IS NOT NULL GROUP BY _v ORDER BY _n DESC, _v LIMIT 20", q, topText, rows), func(scan func(...any) error) error {
			var v ValueCount
			if err := scan(&v.Value, &v.Count); err != nil {
				return err
			}
			p.Top = append(p.Top, v)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func number(t types.Type) bool { return t.Numeric() || t == types.Timestamp }
