package op

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// profile reads the good rows once more, on one thread: means and quantiles
// depend on the order of rows.
func profile(ctx context.Context, s *Stage, cols []kind.Column) ([]ColumnProfile, error) {
	rows := expr.ReadParquet(s.Out("rows", "rows.parquet"))
	one, err := s.sql(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer one.Close()
	rows, err = buffered(ctx, one, rows, len(cols))
	if err != nil {
		return nil, err
	}
	var out []ColumnProfile
	for batch := range slices.Chunk(cols, batch) {
		ps, err := profileBatch(ctx, one, rows, batch)
		if err != nil {
			return nil, err
		}
		out = append(out, ps...)
	}
	return out, nil
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
