package op

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/table"
)

// TestWindowIsPointInTime compares the statistics of dataset.build with their
// definition: over the rows of the key that became known in (at - window, at].
func TestWindowIsPointInTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := []string{"1", "12", "a'b"}
		type row struct {
			key            string
			event, created int64
			x              float64
		}
		facts := make([]row, rapid.IntRange(1, 40).Draw(rt, "facts"))
		for i := range facts {
			facts[i] = row{rapid.SampledFrom(keys).Draw(rt, "key"), rapid.Int64Range(0, 12).Draw(rt, "event"), rapid.Int64Range(0, 12).Draw(rt, "created"), float64(rapid.IntRange(-5, 5).Draw(rt, "x"))}
			if rapid.IntRange(0, 4).Draw(rt, "null") == 0 {
				facts[i].x = math.NaN()
			}
		}
		type label struct {
			key string
			at  int64
		}
		labels := make([]label, rapid.IntRange(2, 30).Draw(rt, "labels"))
		for i := range labels {
			labels[i] = label{rapid.SampledFrom(keys).Draw(rt, "lkey"), rapid.Int64Range(-1, 20).Draw(rt, "at")}
		}
		delay, span, horizon := rapid.Int64Range(0, 3).Draw(rt, "delay"), rapid.Int64Range(1, 8).Draw(rt, "window"), rapid.Int64Range(0, 3).Draw(rt, "horizon")
		earlier := rapid.Bool().Draw(rt, "earlier")

		dir := t.TempDir()
		write(rt, dir, "source:facts", "SELECT * FROM (VALUES "+values(len(facts), func(i int) string {
			f, x := facts[i], "NULL"
			if f.x == f.x {
				x = fmt.Sprint(f.x)
			}
			return fmt.Sprintf("(%d::BIGINT, %s, make_timestamp(%d), make_timestamp(%d), %s::DOUBLE)", i+1, expr.QuoteString(f.key), f.event, f.created, x)
		})+") AS r(_row, key, event, created, x)")
		write(rt, dir, "source:labels", "SELECT * FROM (VALUES "+values(len(labels), func(i int) string {
			return fmt.Sprintf("(%d::BIGINT, 0, %s, make_timestamp(%d), %d)", i+1, expr.QuoteString(labels[i].key), labels[i].at, i)
		})+") AS r(_row, _file, key, \"at\", y)")
		columns := []lower.Aggregate{}
		for _, fn := range []string{"count", "sum", "mean", "min", "max", "std"} {
			columns = append(columns, lower.Aggregate{Name: "w." + fn, Fn: fn, SQL: "r.x", Window: span})
		}
		args := lower.DatasetArgs{Task: kind.Regression, Labels: []lower.Target{{SQL: "CAST(l.y AS DOUBLE)"}}, Source: "source:labels", At: "at", Event: "at", Horizon: horizon, Features: []lower.Projection{},
			Windows: []lower.Windowed{{Group: "w", Input: "source:facts", Left: []string{"key"}, Right: []string{"key"}, Event: "event", Created: "created", Delay: delay, Earlier: earlier, Columns: columns}}}
		stage(rt, dir, lower.OpDataset, args, []string{"source:labels", "source:facts"}, []string{"rows", "meta", "origin"})
		want := map[string]table.Form{}
		for _, c := range columns {
			want[c.Name] = table.Floats
		}
		err := table.Read(context.Background(), filepath.Join(dir, "out/rows/rows.parquet"), want, func(b table.Batch) error {
			for i := range b.Rows {
				l := labels[int(b.Start)+i]
				at := l.at - horizon
				var n, sum, low, high float64 = 0, 0, math.Inf(1), math.Inf(-1)
				var xs []float64
				for _, f := range facts {
					known := max(f.event, f.created) + delay
					if f.key == l.key && (!earlier && known <= at && known > at-span || earlier && known < at && known >= at-span) && f.x == f.x {
						n, sum, low, high, xs = n+1, sum+f.x, min(low, f.x), max(high, f.x), append(xs, f.x)
					}
				}
				expect := map[string]float64{"w.count": n, "w.sum": sum, "w.mean": sum / n, "w.min": low, "w.max": high, "w.std": math.NaN()}
				if n == 0 {
					for _, fn := range []string{"sum", "mean", "min", "max"} {
						expect["w."+fn] = math.NaN()
					}
				}
				if n > 1 {
					s := 0.0
					for _, x := range xs {
						s += (x - sum/n) * (x - sum/n)
					}
					expect["w.std"] = math.Sqrt(s / (n - 1))
				}
				for name, v := range expect {
					got := b.Floats(name)[i]
					if !(math.Abs(got-v) < 1e-9 || got != got && v != v) {
						rt.Fatalf("row %d: %s is %v, not %v", i, name, got, v)
					}
				}
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
