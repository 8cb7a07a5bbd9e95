package op

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// fact is a row of a snapshot source; value is its row number, so that a wrong
// row is seen.
type fact struct {
	key            string // "" is NULL
	event, created int64
	row            int64
}

// latest is the definition, by brute force: of the rows of the key that were
// known at t, or earlier, the one with the greatest (event, created, offset); nothing
// when that one is older than the TTL.
func latest(facts []fact, key string, t, delay, ttl int64, earlier bool) float64 {
	best := -1
	for i, f := range facts {
		if known := max(f.event, f.created) + delay; key == "" || f.key != key || known > t || earlier && known == t {
			continue
		}
		if best < 0 || f.event > facts[best].event || f.event == facts[best].event && (f.created > facts[best].created || f.created == facts[best].created && f.row > facts[best].row) {
			best = i
		}
	}
	if best < 0 || ttl > 0 && facts[best].event < t-ttl {
		return math.NaN()
	}
	return float64(facts[best].row)
}

// TestJoinIsPointInTime compares dataset.build with the definition over generated
// rows: ties, late rows, nulls, equal keys apart, more rows than DuckDB's loop
// join takes.
func TestJoinIsPointInTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := []string{"", "1", "12", "a'b"}
		times := rapid.Int64Range(0, 12)
		n := rapid.IntRange(1, 40).Draw(rt, "facts")
		facts := make([]fact, n)
		for i := range facts {
			facts[i] = fact{rapid.SampledFrom(keys).Draw(rt, "key"), times.Draw(rt, "event"), times.Draw(rt, "created"), int64(i + 1)}
		}
		m := rapid.SampledFrom([]int{2, 5, 100}).Draw(rt, "labels")
		type label struct {
			key string
			at  int64
		}
		labels := make([]label, m)
		for i := range labels {
			labels[i] = label{keys[rapid.IntRange(0, 3).Draw(rt, "lkey")], rapid.Int64Range(-1, 20).Draw(rt, "at")}
		}
		delay, ttl := rapid.Int64Range(0, 3).Draw(rt, "delay"), rapid.Int64Range(0, 6).Draw(rt, "ttl")
		earlier := rapid.Bool().Draw(rt, "earlier")

		dir := t.TempDir()
		write(rt, dir, "source:facts", "SELECT * FROM (VALUES "+values(n, func(i int) string {
			f := facts[i]
			return fmt.Sprintf("(%d::BIGINT, 0, %s, make_timestamp(%d), make_timestamp(%d), %d::BIGINT)", f.row, text(f.key), f.event, f.created, f.row)
		})+") AS r(_row, _file, key, event, created, value)")
		write(rt, dir, "source:labels", "SELECT * FROM (VALUES "+values(m, func(i int) string {
			return fmt.Sprintf("(%d::BIGINT, 0, %s, make_timestamp(%d), %d::BIGINT)", i+1, text(labels[i].key), labels[i].at, i%2)
		})+") AS r(_row, _file, key, \"at\", y)")
		args := lower.DatasetArgs{Task: kind.Regression, Labels: []lower.Target{{SQL: "CAST(l.y + l._row AS DOUBLE)"}}, Source: "source:labels", At: "at", Event: "at", Features: []lower.Projection{},
			Snapshots: []lower.Join{{Input: "source:facts", Left: []string{"key"}, Right: []string{"key"}, Event: "event", Created: "created", Delay: delay, TTL: ttl, Earlier: earlier,
				Columns: []lower.Projection{{Name: "f.value", Type: types.Int, SQL: `CAST(r."value" AS DOUBLE)`}}}}}
		stage(rt, dir, lower.OpDataset, args, []string{"source:labels", "source:facts"}, []string{"rows", "meta", "origin"})
		var got []float64
		err := table.Read(context.Background(), filepath.Join(dir, "out/rows/rows.parquet"), map[string]table.Form{"f.value": table.Floats, colRow: table.Ints}, func(b table.Batch) error {
			got = append(got, b.Floats("f.value")...)
			return nil
		})
		if err != nil || len(got) != m {
			rt.Fatalf("%d rows of %d: %v", len(got), m, err)
		}
		for i, l := range labels {
			if want := latest(facts, l.key, l.at, delay, ttl, earlier); got[i] != want && !(math.IsNaN(got[i]) && math.IsNaN(want)) {
				rt.Fatalf("label %d (%q at %d, delay %d, ttl %d): row %v, want %v\n%v", i, l.key, l.at, delay, ttl, got[i], want, facts)
			}
		}
	})
}

func text(s string) string {
	if s == "" {
		return "NULL::VARCHAR"
	}
	return expr.QuoteString(s)
}

func values(n int, f func(int) string) string {
	out := ""
	for i := range n {
		if i > 0 {
			out += ", "
		}
		out += f(i)
	}
	return out
}

type fataler interface{ Fatalf(string, ...any) }

func write(t fataler, dir, input, query string) {
	db, err := sql.Open(context.Background(), filepath.Join(dir, "tmp"), 0, 1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer db.Close()
	st := Stage{Dir: dir}
	path := st.In(input, "rows.parquet")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	if err := db.WriteParquet(context.Background(), query, path); err != nil {
		t.Fatalf("%v", err)
	}
}

// stage runs an operation over inputs that lie in dir already.
func stage(t fataler, dir, op string, args any, inputs, outputs []string) {
	b, err := json.Marshal(args)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := executor.Stage{Format: executor.StageFormat, ID: op, Op: op, Args: b, Outputs: outputs}
	s.Limits.Memory = 1 << 30
	for _, in := range inputs {
		s.Inputs = append(s.Inputs, executor.StageInput{Name: in, Digest: "sha256:test"})
	}
	for _, o := range outputs {
		if err := os.MkdirAll(filepath.Join(dir, "out", o), 0o755); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if b, err = json.Marshal(s); err == nil {
		err = os.WriteFile(filepath.Join(dir, "stage.json"), b, 0o644)
	}
	if err == nil {
		err = Run(context.Background(), dir, kind.Kinds{}, func(executor.Event) {})
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}
