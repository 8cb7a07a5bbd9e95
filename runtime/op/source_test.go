package op

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// numbers are two columns of a table of rows: n, a whole number or nil, and x.
type numbers struct {
	n []*int64
	x []*float64
}

func openDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(context.Background(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestProfile holds a profile against sums over the values in order.
func TestProfile(t *testing.T) {
	ctx := context.Background()
	db := openDB(t)
	cols := []kind.Column{{Name: "n", Type: types.Int}, {Name: "x", Type: types.Float}, {Name: "at", Type: types.Timestamp}}
	path := filepath.Join(t.TempDir(), "rows.parquet")
	rapid.Check(t, func(t *rapid.T) {
		var v numbers
		rows := rapid.IntRange(1, 60).Draw(t, "rows")
		whole := rapid.Int64Range(-1<<62, 1<<62)
		if rapid.Bool().Draw(t, "small") {
			whole = rapid.Int64Range(-1000, 1000)
		}
		real := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{-math.MaxFloat64, math.MaxFloat64, 0}))
		if rapid.Bool().Draw(t, "near") {
			real = rapid.Float64Range(1e9, 1e9+1)
		}
		v.n, v.x = rapid.SliceOfN(rapid.Ptr(whole, true), rows, rows).Draw(t, "n"), rapid.SliceOfN(rapid.Ptr(real, true), rows, rows).Draw(t, "x")
		texts := make([]string, rows)
		for i := range texts {
			n, x, at := "NULL", "NULL", "NULL"
			if v.n[i] != nil {
				n, at = fmt.Sprint(*v.n[i]), fmt.Sprintf("make_timestamp(%d)", *v.n[i]/8)
			}
			if v.x[i] != nil {
				x = fmt.Sprintf("'%v'::DOUBLE", *v.x[i])
			}
			texts[i] = fmt.Sprintf("(%d, 0, %s::BIGINT, %s, %s)", i+1, n, x, at)
		}
		if err := db.WriteParquet(ctx, "SELECT _row, _file, n, CAST(x AS DOUBLE) AS x, CAST(\"at\" AS TIMESTAMP) AS \"at\" FROM (VALUES "+strings.Join(texts, ", ")+") AS v(_row, _file, n, x, \"at\")", path); err != nil {
			t.Fatal(err)
		}
		got, err := profile(ctx, db, path, cols)
		if err != nil {
			t.Fatal(err)
		}
		var ns, ats []float64
		for _, n := range v.n {
			if n != nil {
				ns, ats = append(ns, float64(*n)), append(ats, float64(*n/8))
			}
		}
		var xs []float64
		for _, x := range v.x {
			if x != nil {
				xs = append(xs, *x)
			}
		}
		for i, values := range [][]float64{ns, xs, ats} {
			described(t, got[i], int64(rows), values)
		}
	})
}

// TestProfileOfFew: of a column with a few values in many rows, all of them count.
func TestProfileOfFew(t *testing.T) {
	ctx := context.Background()
	db := openDB(t)
	path := filepath.Join(t.TempDir(), "rows.parquet")
	if err := db.WriteParquet(ctx, "SELECT i + 1 AS _row, 0 AS _file, CASE WHEN i % 400 = 0 THEN CAST(i / 400 AS DOUBLE) END AS x FROM range(400000) AS r(i) ORDER BY i", path); err != nil {
		t.Fatal(err)
	}
	p, err := profile(ctx, db, path, []kind.Column{{Name: "x", Type: types.Float}})
	if err != nil {
		t.Fatal(err)
	}
	if got := p[0]; got.Distinct != 1000 || got.Nulls != 399000 || *got.Mean != 499.5 || got.Quantiles[3] != 499.5 || got.Quantiles[0] != 9.99 {
		t.Errorf("%+v", got)
	}
}

// TestProfileOfMany: of a million rows what is counted is exact, and what is estimated
// lies within five standard errors.
func TestProfileOfMany(t *testing.T) {
	const rows = 1_000_000
	ctx := context.Background()
	db := openDB(t)
	path := filepath.Join(t.TempDir(), "rows.parquet")
	query := fmt.Sprintf(`SELECT i + 1 AS _row, 0 AS _file, i AS every, i * 7919 %% 3000 - 1000 AS near, i %% 1000 * 1000000 AS apart, i * 7919 %% 5000 / 8.0::DOUBLE AS few, i * 7919 %% 300000 / 8.0::DOUBLE AS many,
		make_timestamp(i * 1000000) AS "at", CASE WHEN i < 3000 THEN repeat('a', %d) || i %% 2500 END AS long, 't' || i %% 40000 AS text FROM range(%d) AS r(i) ORDER BY i`, topText, rows)
	if err := db.WriteParquet(ctx, query, path); err != nil {
		t.Fatal(err)
	}
	cols := []kind.Column{{Name: "every", Type: types.Int}, {Name: "near", Type: types.Int}, {Name: "apart", Type: types.Int}, {Name: "few", Type: types.Float}, {Name: "many", Type: types.Float},
		{Name: "at", Type: types.Timestamp}, {Name: "long", Type: types.String}, {Name: "text", Type: types.String}}
	got, err := profile(ctx, db, path, cols)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := profile(ctx, db, path, cols); err != nil || !reflect.DeepEqual(got, again) {
		t.Errorf("not the same again: %v", err)
	}
	for i, want := range []struct {
		distinct  float64
		estimated bool
		step      float64 // values are from, from + step, … evenly
		from      float64
	}{{rows, true, 1, 0}, {3000, false, 1, -1000}, {1000, false, 1e6, 0}, {5000, false, 0.125, 0}, {300000, true, 0.125, 0}, {rows, true, 1e6, 0}} {
		p, n := got[i], want.distinct
		if slack := map[bool]float64{true: 5 * n / math.Sqrt(countedValues)}[want.estimated]; math.Abs(float64(p.Distinct)-n) > slack {
			t.Errorf("%s: %d different values, not %v within %v", p.Name, p.Distinct, n, slack)
		}
		width := n * want.step
		mean, std := want.from+(n-1)/2*want.step, want.step*math.Sqrt((n*n-1)/12)
		// The last round over the values is not a whole one.
		if math.Abs(*p.Mean-mean) > width*0.005 || math.Abs(*p.Std-std) > width*0.005 {
			t.Errorf("%s: %v ± %v, not %v ± %v", p.Name, *p.Mean, *p.Std, mean, std)
		}
		for k, q := range Probabilities {
			if at := want.from + q*(n-1)*want.step; math.Abs(p.Quantiles[k]-at) > width*(0.005+5*math.Sqrt(q*(1-q)/Sampled)) {
				t.Errorf("%s: the quantile %v is %v, not %v", p.Name, q, p.Quantiles[k], at)
			}
		}
	}
	near := make([]int, rows)
	for i := range near {
		near[i] = i*7919%3000 - 1000
	}
	slices.Sort(near)
	for k, q := range Probabilities {
		at := q * (rows - 1)
		lo, hi := near[int(at)], near[int(at)+1]
		if want := float64(lo) + float64(hi-lo)*(at-math.Floor(at)); math.Abs(got[1].Quantiles[k]-want) > 1e-9 {
			t.Errorf("the quantile %v of a few whole numbers is %v, not %v", q, got[1].Quantiles[k], want)
		}
	}
	if p := got[6]; p.Distinct != 2500 || len(p.Top) != 1 || p.Top[0].Count != 3000 || len(p.Top[0].Value) != topText {
		t.Errorf("long texts: %d different, %d told", p.Distinct, len(p.Top))
	}
	if p := got[7]; p.Distinct != 40000 || len(p.Top) != 20 || p.Top[0] != (ValueCount{"t0", 25}) {
		t.Errorf("texts: %d different, %+v", p.Distinct, p.Top[0])
	}
}

// described fails where a profile is not that of the values.
func described(t *rapid.T, p ColumnProfile, rows int64, values []float64) {
	if p.Rows != rows || p.Nulls != rows-int64(len(values)) {
		t.Fatalf("%s: %d rows, %d missing, want %d and %d", p.Name, p.Rows, p.Nulls, rows, rows-int64(len(values)))
	}
	if n := int64(len(slices.Compact(slices.Sorted(slices.Values(values))))); p.Distinct != n {
		t.Fatalf("%s: %d different values, want %d", p.Name, p.Distinct, n)
	}
	if len(values) == 0 {
		if p.Mean != nil || p.Std != nil || p.Min != nil || p.Max != nil || p.Quantiles != nil {
			t.Fatalf("%s has no values, but a mean, a bound or quantiles: %+v", p.Name, p)
		}
		return
	}
	least, most := slices.Min(values), slices.Max(values)
	mean := 0.0
	for _, x := range values {
		mean += x / float64(len(values))
	}
	mean = math.Max(least, math.Min(mean, most))
	spread := most/2 - least/2
	variance := 0.0
	for _, x := range values {
		if spread > 0 {
			d := x/spread - mean/spread
			variance += d * d / float64(len(values))
		}
	}
	std := math.Min(math.Sqrt(variance), 1) * spread
	// A step is 2^-30 of half the range; the sums here round too.
	slack := spread*1e-8 + math.Abs(mean)*1e-14
	if *p.Min != least || *p.Max != most || math.Abs(*p.Mean-mean) > slack || math.Abs(*p.Std-std) > slack {
		t.Fatalf("%s: from %v to %v, %v ± %v; want from %v to %v, %v ± %v", p.Name, *p.Min, *p.Max, *p.Mean, *p.Std, least, most, mean, std)
	}
	slices.Sort(values)
	for i, q := range Probabilities {
		at := q * float64(len(values)-1)
		lo := values[int(at)]
		hi := values[min(int(at)+1, len(values)-1)]
		want := lo*(1-(at-math.Floor(at))) + hi*(at-math.Floor(at))
		if math.Abs(p.Quantiles[i]-want) > slack {
			t.Fatalf("%s: quantile %v is %v, want %v", p.Name, q, p.Quantiles[i], want)
		}
	}
}

// groupsRows is more than two row groups of a Parquet file.
const groupsRows = 300_000

// TestValidateKeepsRows reads a table of several row groups as texts, twice and in other
// pieces: the bytes are the same, good rows keep their order and their values, and bad
// ones are set aside.
func TestValidateKeepsRows(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: short")
	}
	ctx := context.Background()
	var among []any
	for i := range 40 {
		among = append(among, fmt.Sprintf("t%d", i))
	}
	low := 0.0
	cols := []kind.Column{{Name: "n", Type: types.Int, Never: true, Min: &low}, {Name: "x", Type: types.Float}, {Name: "s", Type: types.String, In: among}}
	args, err := json.Marshal(lower.ValidateArgs{Source: "rows", Columns: cols, MaxQuarantine: 1})
	if err != nil {
		t.Fatal(err)
	}
	var csv strings.Builder
	csv.WriteString("n,x,s\n")
	for i := range groupsRows {
		n, x, s := fmt.Sprint(i), fmt.Sprintf("%d.5", i), fmt.Sprintf("t%d", i%40)
		switch i % 1000 {
		case 1:
			n = fmt.Sprintf("%d.5", i)
		case 2:
			n = "-1"
		case 3:
			s = "t40"
		case 4:
			n, x = "", "many"
		}
		fmt.Fprintf(&csv, "%s,%s,%s\n", n, x, s)
	}
	input := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(input, []byte(csv.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	validated := func(buffer int) *Stage {
		s := &Stage{Dir: t.TempDir(), Report: map[string]any{}, emit: func(executor.Event) {}}
		s.Args = args
		in := filepath.Dir(s.In("rows", "x"))
		for _, dir := range []string{in, filepath.Dir(s.In("rejects", "x")), filepath.Dir(s.Out("rows", "x")), filepath.Dir(s.Out("quarantine", "x")), filepath.Dir(s.Out("profile", "x"))} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(s.In("rejects", "rejects.jsonl"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		db, err := s.sql(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		query := fmt.Sprintf("SELECT 0::INTEGER AS _file, * FROM read_csv('%s', header=true, all_varchar=true, max_line_size=10000, buffer_size=%d)", input, buffer)
		if err := writeTyped(ctx, db, query, readings(cols), s.In("rows", "rows.parquet"), s.In("rows", unreadFile), filepath.Join(s.Dir, "scratch.parquet")); err != nil {
			t.Fatal(err)
		}
		if err := sourceValidate(ctx, s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, again := validated(1<<20), validated(300_000)
	for _, f := range [][2]string{{s.In("rows", "rows.parquet"), again.In("rows", "rows.parquet")}, {s.In("rows", unreadFile), again.In("rows", unreadFile)}, {s.Out("rows", "rows.parquet"), again.Out("rows", "rows.parquet")},
		{s.Out("quarantine", "rows.parquet"), again.Out("quarantine", "rows.parquet")}, {s.Out("profile", "profile.json"), again.Out("profile", "profile.json")}} {
		a, err := os.ReadFile(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(f[1]); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: other bytes the second time (%v)", strings.TrimPrefix(f[0], s.Dir), err)
		}
	}
	last, n := int64(0), 0
	err = table.Read(ctx, s.Out("rows", "rows.parquet"), map[string]table.Form{"_row": table.Ints, "n": table.Ints, "x": table.Floats, "s": table.Texts}, func(b table.Batch) error {
		for k, row := range b.Ints("_row") {
			i := row - 1
			if row <= last || i%1000 >= 1 && i%1000 <= 4 || b.Ints("n")[k] != i || b.Floats("x")[k] != float64(i)+0.5 || b.Texts("s")[k] != fmt.Sprintf("t%d", i%40) {
				return fmt.Errorf("after row %d came row %d: %d, %v, %s", last, row, b.Ints("n")[k], b.Floats("x")[k], b.Texts("s")[k])
			}
			last = row
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[int64]string{1: "n: not a whole number", 2: "n: below 0", 3: "s: not among the right values", 4: "x: not a number; n: missing"}
	bad := 0
	err = Quarantined(ctx, s.Out("quarantine", "rows.parquet"), func(r BadRow) {
		if want := int64(bad/4*1000 + bad%4 + 1); r.Row-1 != want || r.Reasons != reasons[want%1000] {
			t.Errorf("bad row %d is row %d: %s", bad, r.Row, r)
		}
		bad++
	})
	if err != nil || n != groupsRows-bad || bad != groupsRows/1000*4 {
		t.Errorf("%d good rows and %d bad ones of %d: %v", n, bad, groupsRows, err)
	}
}
