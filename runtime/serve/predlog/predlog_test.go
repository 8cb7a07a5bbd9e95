package predlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/secret"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

var signature = &bundle.Signature{
	Task: kind.Task{Kind: kind.Multiclass, Classes: []string{"yes", "no"}},
	Inputs: []bundle.Tensor{
		{Name: "p.age", DType: "double", Width: 1, Type: types.Int}, {Name: "p.name", DType: "string", Width: 1, Type: types.String},
		{Name: "p.initial", DType: "double", Width: 1, Type: types.Float}, {Name: "p.twice", DType: "double", Width: 1, Type: types.Float},
	},
	Computed: []lower.Projection{{Name: "p.initial", SQL: `length("p.name")`}, {Name: "p.twice", SQL: `2 * "p.initial"`}},
	Outputs:  []bundle.Tensor{{Name: "probabilities", DType: "float", Width: 2}, {Name: "class", DType: "string", Width: 1}},
}

// row is a record of one row by signature.
func row(s *Schema, id string, age float64) Record {
	return Record{
		Time: time.Date(2026, 1, 31, 12, 0, 0, 1000, time.UTC), ID: id, Model: "m", Version: "3", Variant: "champion", Rows: 1, Schema: s,
		Queue: 5 * time.Microsecond, Compute: 7 * time.Microsecond, Total: 20 * time.Microsecond, Threshold: 0.25,
		Inputs:  []ort.Value{ort.Column([]float64{age}), ort.Column([]string{"Ann"}), ort.Column([]float64{3}), ort.Column([]float64{6})},
		Outputs: []ort.Value{ort.Tensor{Shape: []int64{1, 2}, Data: []float32{0.25, 0.75}}, ort.Column([]string{"no"})},
	}
}

func open(t *testing.T, c service.Log) (*Log, *Metrics) {
	t.Helper()
	m := &Metrics{}
	l, err := Open(Options{Config: c, Service: "svc", Secret: secret.Value, Metrics: m, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l, m
}

func folder(dir string) service.Log {
	return service.Log{Sample: 1, Dir: dir, Rows: 100, Every: service.Duration(time.Hour), Buffer: 1000}
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// counts compares what was counted.
func counts(t *testing.T, m *Metrics, written, dropped, failed, segments uint64) {
	t.Helper()
	got, want := [4]uint64{m.Written.Load(), m.Dropped.Load(), m.Failed.Load(), m.Segments.Load()}, [4]uint64{written, dropped, failed, segments}
	if got != want {
		t.Errorf("written, dropped, failed, segments are %v, want %v", got, want)
	}
}

// files are the segments, and nothing else, of a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".parquet") || !strings.HasPrefix(e.Name(), "svc-") {
			t.Errorf("%s is left in the folder", e.Name())
		}
		out = append(out, filepath.Join(dir, e.Name()))
	}
	return out
}

// query is what DuckDB reads of all segments, a line a row.
func query(t *testing.T, dir, cols string) []string {
	t.Helper()
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var out []string
	from := "read_parquet(" + expr.QuoteString(filepath.Join(dir, "*.parquet")) + ", union_by_name=true)"
	err = db.Rows(t.Context(), "SELECT CAST(row("+cols+") AS VARCHAR) FROM "+from+" ORDER BY _id, _row", func(scan func(...any) error) error {
		var s string
		if err := scan(&s); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// TestSegments: what went in comes out, by our reader and by DuckDB, with masks,
// missing values, errors without an answer, and several rows a request.
func TestSegments(t *testing.T) {
	c := folder(filepath.Join(t.TempDir(), "not", "there", "yet"))
	c.Mask = []string{"p.name"}
	l, m := open(t, c)
	s := l.Schema(signature, nil, nil)
	l.Add(row(s, "a", 41))
	two := row(s, "b", 0)
	two.Rows = 2
	two.Inputs = []ort.Value{ort.Column([]float64{math.NaN(), 2}), ort.Column([]string{types.NullString, "Bob"}), ort.Column([]float64{1, 2}), ort.Column([]float64{2, 4})}
	two.Outputs = []ort.Value{ort.Tensor{Shape: []int64{2, 2}, Data: []float32{1, 0, 0.5, 0.5}}, ort.Column([]string{"yes", "no"})}
	two.Fallback, two.Shadow = true, true
	l.Add(two)
	bad := row(s, "c", 7)
	bad.Err, bad.Outputs, bad.Variant = api.Errorf(api.Invalid, "p.name: %q is too short", "Ann"), nil, ""
	l.Add(bad)
	late := row(s, "d", 8)
	late.Err, late.Outputs = api.Errorf(api.Timeout, "no answer"), []ort.Value{nil, nil}
	l.Add(late)
	shut(t, l)
	counts(t, m, 4, 0, 0, 1)
	equal(t, query(t, c.Dir, `_id, _row, "p.age", "p.name", "p.initial", "p.twice", "probability.yes", "probability.no", class, _fallback, _shadow, _error`), []string{
		"(a, 0, 41, NULL, NULL, NULL, 0.25, 0.75, no, false, false, NULL)",
		"(b, 0, NULL, NULL, NULL, NULL, 1.0, 0.0, yes, true, true, NULL)",
		"(b, 1, 2, NULL, NULL, NULL, 0.5, 0.5, no, true, true, NULL)",
		"(c, 0, 7, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 422)",
		"(d, 0, 8, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 504 no answer)",
	})
	equal(t, query(t, c.Dir, `_service, _model, _version, _variant, _time AT TIME ZONE 'UTC', _queue_us, _compute_us, _total_us, _threshold`)[0],
		"(svc, m, 3, champion, '2026-01-31 12:00:00.000001', 5, 7, 20, 0.25)")
	path := files(t, c.Dir)[0]
	if meta, err := table.Meta(path); err != nil || meta["mlc.format"] != Format {
		t.Errorf("metadata %v, %v", meta, err)
	}
	err := table.Read(t.Context(), path, map[string]table.Form{"_time": table.Ints, "_fallback": table.Floats, "p.age": table.Floats, "p.name": table.Texts}, func(b table.Batch) error {
		if b.Rows != 5 || b.Ints("_time")[0] != 1769860800000001 || b.Floats("_fallback")[1] != 1 || b.Floats("p.age")[0] != 41 || !math.IsNaN(b.Floats("p.age")[1]) || b.Texts("p.name")[0] != types.NullString {
			t.Errorf("%v", b.Columns)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "Ann") || strings.Contains(string(b), "Bob") {
		t.Errorf("a masked value is in the file (%v)", err)
	}
}

// TestDeclaredTypes: features come out as what they are declared as; a value that is
// none of the type is NULL.
func TestDeclaredTypes(t *testing.T) {
	c := folder(t.TempDir())
	l, m := open(t, c)
	var sig bundle.Signature
	sig.Task.Kind = kind.Regression
	for _, x := range []types.Type{types.Int, types.Bool, types.Timestamp, types.Float} {
		sig.Inputs = append(sig.Inputs, bundle.Tensor{Name: "f." + string(x), DType: "double", Width: 1, Type: x})
	}
	s := l.Schema(&sig, nil, nil)
	numbers := []float64{1, 0, -3, 1.5, math.NaN(), 1 << 53, 1e300, math.Inf(-1), 1 << 63}
	col := func() ort.Value { return ort.Column(slices.Clone(numbers)) }
	l.Add(Record{ID: "a", Rows: len(numbers), Schema: s, Inputs: []ort.Value{col(), col(), col(), col()}})
	shut(t, l)
	counts(t, m, 1, 0, 0, 1)
	equal(t, query(t, c.Dir, `"f.int", "f.bool", epoch_us("f.timestamp"), "f.float"`), []string{
		"(1, true, 1, 1.0)", "(0, false, 0, 0.0)", "(-3, NULL, -3, -3.0)", "(NULL, NULL, NULL, 1.5)", "(NULL, NULL, NULL, NULL)",
		"(9007199254740992, NULL, 9007199254740992, 9007199254740992.0)", "(NULL, NULL, NULL, 1e+300)", "(NULL, NULL, NULL, -inf)",
		"(9223372036854775807, NULL, NULL, 9.223372036854776e+18)",
	})
	equal(t, query(t, c.Dir, `typeof("f.int"), typeof("f.bool"), typeof("f.timestamp"), typeof("f.float")`)[0], "(BIGINT, BOOLEAN, TIMESTAMP WITH TIME ZONE, DOUBLE)")
}

// TestColumnsOfTasks: what a model gives of several numbers has a column for each.
func TestColumnsOfTasks(t *testing.T) {
	for _, x := range []struct {
		task kind.Task
		want string
	}{
		{kind.Task{Kind: kind.Multilabel, Classes: []string{"cat", "dog"}}, "probability.cat probability.dog"},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.05, 0.5}}, "quantile.0.05 quantile.0.5"},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.5}}, "quantile.0.5"},
		{kind.Task{Kind: kind.Count}, "prediction"},
		{kind.Task{Kind: kind.Anomaly}, "score"},
	} {
		l, m := open(t, folder(t.TempDir()))
		main := bundle.MainOutput(x.task.Kind)
		s := l.Schema(&bundle.Signature{Task: x.task, Outputs: []bundle.Tensor{{Name: main, DType: "float", Width: x.task.Width()}}}, nil, nil)
		var names []string
		for _, c := range s.columns {
			names = append(names, c.name)
		}
		if got := strings.Join(names, " "); got != x.want {
			t.Errorf("%v: %s", x.task, got)
		}
		w := x.task.Width()
		l.Add(Record{ID: "a", Rows: 2, Schema: s, Outputs: []ort.Value{ort.Tensor{Shape: []int64{2, int64(w)}, Data: make([]float32, 2*w)}}})
		shut(t, l)
		counts(t, m, 1, 0, 0, 1)
	}
}

// TestForeign: every type of another's model, values of many dimensions, texts
// that are no UTF-8, and names that clash.
func TestForeign(t *testing.T) {
	c := folder(t.TempDir())
	l, m := open(t, c)
	in := []ort.Info{{Name: "x", Type: "int8", Shape: []int64{-1}}, {Name: "X", Type: "uint64", Shape: []int64{-1, 1}}, {Name: "h", Type: "float16", Shape: []int64{-1, 1}}, {Name: "bf", Type: "bfloat16", Shape: []int64{-1}},
		{Name: "img", Type: "float", Shape: []int64{-1, 2, 2}}, {Name: "flag", Type: "bool", Shape: []int64{-1}}, {Name: "_time", Type: "string", Shape: []int64{-1}}}
	out := []ort.Info{{Name: "x", Type: "double", Shape: []int64{-1, -1}}, {Name: "maps", Type: "seq"}, {Name: "loss", Type: "float", Shape: []int64{}}, {Name: "all", Type: "int64", Shape: []int64{3}}}
	s := l.Schema(nil, in, out)
	class := func(a, b float32) ort.Map {
		return ort.Map{Keys: ort.Tensor{Shape: []int64{2}, Data: []int64{0, 1}}, Values: ort.Tensor{Shape: []int64{2}, Data: []float32{a, b}}}
	}
	l.Add(Record{ID: "a\xff\x00\"", Rows: 2, Schema: s, Inputs: []ort.Value{
		ort.Tensor{Shape: []int64{2}, Data: []int8{-1, 2}}, ort.Column([]string{}), // not of the type: dropped
	}})
	l.Add(Record{ID: "a\xff\"", Rows: 2, Schema: s, Inputs: []ort.Value{
		ort.Tensor{Shape: []int64{2}, Data: []int8{-1, 2}}, ort.Tensor{Shape: []int64{2, 1}, Data: []uint64{math.MaxUint64, 0}}, ort.Tensor{Shape: []int64{2, 1}, Data: []ort.Float16{0x3e00, 0xfc00}},
		ort.Tensor{Shape: []int64{2}, Data: []ort.BFloat16{0x3fc0, 0xc000}}, ort.Tensor{Shape: []int64{2, 2, 2}, Data: []float32{1, 2, 3, 4, 5, 6, float32(math.Inf(1)), float32(math.NaN())}},
		ort.Tensor{Shape: []int64{2}, Data: []bool{true, false}}, ort.Tensor{Shape: []int64{2}, Data: []string{"\xc3(", types.NullString}},
	}, Outputs: []ort.Value{ort.Tensor{Shape: []int64{2, 3}, Data: []float64{1, 2, 3, 4, 5, 6}}, ort.Sequence{class(1, 0), class(0.5, 0.5)}, ort.Tensor{Shape: []int64{}, Data: []float32{9}}, ort.Tensor{Shape: []int64{3}, Data: []int64{7, 8, 9}}}})
	shut(t, l)
	counts(t, m, 1, 1, 0, 1)
	equal(t, query(t, c.Dir, `_id, x, "input.X", h, bf, img, flag, "input._time", "output.x", maps, loss, "all"`), []string{
		`('a�"', -1, 18446744073709551615, 1.5, 1.5, '[[1,2],[3,4]]', true, '�(', '[1,2,3]', '{"0":1,"1":0}', NULL, '[7,8,9]')`,
		`('a�"', 2, 0, -inf, -2.0, '[[5,6],["Infinity",null]]', false, NULL, '[4,5,6]', '{"0":0.5,"1":0.5}', NULL, NULL)`,
	})
}

// TestSegmentEnds: at its rows, or at its time after its first row, by a timer.
func TestSegmentEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := folder(t.TempDir())
		c.Rows, c.Every = 3, service.Duration(time.Minute)
		l, m := open(t, c)
		s := l.Schema(signature, nil, nil)
		for i := range 4 {
			l.Add(row(s, fmt.Sprint(i), 1))
		}
		synctest.Wait()
		counts(t, m, 3, 0, 0, 1)
		time.Sleep(time.Minute - 1) // the bubble's clock
		synctest.Wait()
		counts(t, m, 3, 0, 0, 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		counts(t, m, 4, 0, 0, 2)
		time.Sleep(time.Hour)
		synctest.Wait()
		counts(t, m, 4, 0, 0, 2) // an empty segment is none
		l.Add(row(s, "x", 1))
		l.Add(Record{ID: "y", Err: api.Errorf(api.NotFound, "no model")}) // no columns of its own
		other := *signature
		other.Inputs = other.Inputs[:1]
		l.Add(Record{ID: "z", Schema: l.Schema(&other, nil, nil)}) // others: its own segment
		time.Sleep(time.Minute)
		synctest.Wait()
		counts(t, m, 7, 0, 0, 4)
		shut(t, l)
	})
}

// words are what a logger wrote.
type words struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// TestFolderUnwritable: what will be lost is told at the start, not at the first record.
func TestFolderUnwritable(t *testing.T) {
	var told words
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Config: folder(filepath.Join(file, "log")), Service: "svc", Logger: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(told.String(), "its folder cannot be written") {
		t.Error(told.String())
	}
	shut(t, l)
}

// TestFolderGone: rows are lost and counted while there is no folder, a request is
// not; when it can be made again, the next segment is written. It is told once a
// minute.
func TestFolderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told words
		dir := filepath.Join(t.TempDir(), "log")
		c := folder(dir)
		c.Rows = 2
		m := &Metrics{}
		l, err := Open(Options{Config: c, Service: "svc", Metrics: m, Logger: slog.New(slog.NewTextHandler(&told, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s := l.Schema(signature, nil, nil)
		add := func(n int) {
			for i := range n {
				if !l.Add(row(s, fmt.Sprint(i), 1)) {
					t.Error("a record was refused")
				}
			}
			synctest.Wait()
		}
		add(2)
		counts(t, m, 2, 0, 0, 1)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		add(6)
		counts(t, m, 2, 6, 3, 1)
		if n := strings.Count(told.String(), "records are lost"); n != 1 {
			t.Errorf("told %d times: %s", n, told.String())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		sum := 0
		for _, line := range strings.SplitAfter(told.String(), "\n") {
			var n int
			if _, after, ok := strings.Cut(line, "dropped="); ok {
				if _, err := fmt.Sscan(after, &n); err != nil || n == 0 {
					t.Errorf("%q (%v)", line, err)
				}
			}
			sum += n
		}
		if sum != 6 {
			t.Errorf("%d records told as lost: %s", sum, told.String())
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		add(2)
		counts(t, m, 4, 6, 3, 2)
		if err := os.RemoveAll(dir); err != nil { // a folder that is only removed is made again
			t.Fatal(err)
		}
		add(2)
		counts(t, m, 6, 6, 3, 3)
		shut(t, l)
		files(t, dir)
	})
}

// TestDiskFull: on a full disk segments are lost and leave nothing; with room again
// the next is written.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("SKIPPED: a small tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(filler, io.LimitReader(zero{}, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	filler.Close()
	c := folder(filepath.Join(dir, "log"))
	c.Dir, c.Rows = dir, 1
	l, m := open(t, c)
	s := l.Schema(signature, nil, nil)
	for i := range 3 {
		if !l.Add(row(s, fmt.Sprint(i), 1)) {
			t.Error("a record was refused")
		}
	}
	shut(t, l)
	counts(t, m, 0, 3, 3, 0)
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v is left on the disk (%v)", list, err)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	l, m = open(t, c)
	l.Add(row(l.Schema(signature, nil, nil), "a", 1))
	shut(t, l)
	counts(t, m, 1, 0, 0, 1)
	files(t, dir)
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

// stuck is a sink that is at work on its first record until it is let go.
type stuck struct {
	l    *Log
	free chan struct{}
}

func (s stuck) add(context.Context, *Record) { <-s.free; s.l.o.Metrics.Written.Add(1) }
func (s stuck) due() <-chan time.Time        { return nil }
func (s stuck) work(context.Context)         {}
func (s stuck) close(context.Context)        {}

// TestOverload: when records come faster than they are written, what does not fit
// the buffer is dropped at once, and every record is counted.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Metrics{}
		c := folder(t.TempDir())
		c.Buffer = 10
		l, err := Open(Options{Config: c, Metrics: m, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hold := stuck{l, make(chan struct{})}
		l.sink = hold
		l.Add(row(nil, "first", 1))
		synctest.Wait() // the sink holds one
		accepted := 0
		for i := range 25 {
			if l.Add(row(nil, fmt.Sprint(i), 1)) {
				accepted++
			}
		}
		if accepted != 10 {
			t.Errorf("%d records accepted by a buffer of 10", accepted)
		}
		close(hold.free)
		shut(t, l)
		counts(t, m, 11, 15, 0, 0)
		if l.Add(row(nil, "late", 1)) {
			t.Error("a closed log took a record")
		}
		if n := l.bytes.Load(); n != 0 {
			t.Errorf("%d bytes wait in an empty buffer", n)
		}
	})
}

// TestCloseWithin: Close returns when its time is over, whatever the sink does.
func TestCloseWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Metrics{}
		l, err := Open(Options{Config: folder(t.TempDir()), Metrics: m, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hold := stuck{l, make(chan struct{})}
		l.sink = hold
		for i := range 5 {
			l.Add(row(nil, fmt.Sprint(i), 1))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close is %v", err)
		}
		close(hold.free)
		synctest.Wait()
		counts(t, m, 1, 4, 0, 0)
	})
}

// TestBytes: large records are bounded by what they take, not only by their number.
func TestBytes(t *testing.T) {
	c := folder(t.TempDir())
	l, m := open(t, c)
	in := []ort.Info{{Name: "text", Type: "string", Shape: []int64{-1}}}
	s := l.Schema(nil, in, nil)
	big := Record{ID: "a", Rows: 1, Schema: s, Inputs: []ort.Value{ort.Tensor{Shape: []int64{1}, Data: []string{strings.Repeat("x", maxBytes)}}}}
	if l.Add(big) {
		t.Error("a record of 64 MiB was taken")
	}
	if l.Add(Record{ID: "b", Rows: math.MaxInt32, Schema: s, Inputs: []ort.Value{nil}}) {
		t.Error("a record of two billion rows was taken")
	}
	shut(t, l)
	counts(t, m, 0, 2, 0, 0)
}

// TestHeldBytes: what the records that wait keep alive is what is counted, also where
// a value is a part of something larger, is masked, or is not written at all.
func TestHeldBytes(t *testing.T) {
	const large, records = 1 << 20, 400
	in := []ort.Info{{Name: "p.name", Type: "string", Shape: []int64{-1, 1}}, {Name: "age", Type: "double", Shape: []int64{-1, 1}}}
	out := []ort.Info{{Name: "score", Type: "float", Shape: []int64{-1, 8}}, {Name: "text", Type: "string", Shape: []int64{-1, 1}}}
	column := func(n int) ort.Tensor { // of one large text, the first n bytes
		return ort.Column([]string{strings.Repeat("x", large)[:n]})
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for name, c := range map[string]struct {
		mask   string
		record func(*Schema) Record
		all    bool // all records fit
	}{
		"large texts": {"", func(s *Schema) Record {
			return Record{Rows: 1, Schema: s, Inputs: []ort.Value{column(large)}}
		}, false},
		"parts of large texts": {"", func(s *Schema) Record {
			return Record{Rows: 1, Schema: s, Inputs: []ort.Value{column(10)}, Outputs: []ort.Value{nil, column(10)}}
		}, true},
		"rows of large batches": {"", func(s *Schema) Record {
			batch := ort.Tensor{Shape: []int64{large / 32, 8}, Data: make([]float32, large/4)}
			texts := ort.Tensor{Shape: []int64{large / 16, 1}, Data: make([]string, large/16)}
			return Record{Rows: 1, Schema: s, Outputs: []ort.Value{ort.Rows(batch, 3, 4), ort.Rows(texts, 3, 4)}}
		}, true},
		"masked": {"p.name", func(s *Schema) Record {
			return Record{Rows: 1, Schema: s, Inputs: []ort.Value{column(large), ort.Column([]float64{1})}}
		}, true},
		"of no schema": {"", func(*Schema) Record {
			return Record{Rows: 1, Inputs: []ort.Value{column(large)}, Outputs: []ort.Value{column(large)}}
		}, true},
		"causes of errors": {"", func(s *Schema) Record {
			return Record{Rows: 1, Schema: s, Err: &api.Error{Kind: api.Internal, Text: "internal error", Err: errors.New(strings.Repeat("x", large))}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			conf := folder(t.TempDir())
			if c.mask != "" {
				conf.Mask = []string{c.mask}
			}
			// A log of which nobody takes what waits.
			l := &Log{o: Options{Config: conf, Metrics: &Metrics{}}, mask: map[string]bool{c.mask: true}, queue: make(chan *Record, conf.Buffer), faults: make(chan struct{}, 1)}
			s := l.Schema(nil, in, out)
			before := heap()
			accepted := 0
			for range records {
				if l.Add(c.record(s)) {
					accepted++
				}
			}
			held := heap() - before
			if held > maxBytes || held > l.bytes.Load()+64<<10 || l.bytes.Load() > maxBytes {
				t.Errorf("%d records hold %d bytes, and %d are counted", accepted, held, l.bytes.Load())
			}
			if accepted == 0 || c.all != (accepted == records) {
				t.Errorf("%d records were taken", accepted)
			}
			runtime.KeepAlive(l)
		})
	}
}

// TestConcurrent: records from many goroutines are all written or counted, also
// while the log is closed.
func TestConcurrent(t *testing.T) {
	c := folder(t.TempDir())
	c.Rows, c.Buffer, c.Sample = 50, 20, 0.5
	l, m := open(t, c)
	s := l.Schema(signature, nil, nil)
	var wg sync.WaitGroup
	var sampled, refused [8]uint64
	half := make(chan struct{})
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				id := fmt.Sprintf("%d-%d", g, i)
				if Sampled(id, c.Sample) {
					sampled[g]++
				}
				if !l.Add(row(s, id, 1)) {
					refused[g]++
				}
				if g == 0 && i == 250 {
					close(half)
				}
			}
		})
	}
	<-half
	shut(t, l)
	wg.Wait()
	var all, no uint64
	for g := range sampled {
		all, no = all+sampled[g], no+refused[g]
	}
	if m.Written.Load()+m.Dropped.Load() != all || m.Dropped.Load() != no {
		t.Errorf("%d written, %d dropped of %d, %d refused", m.Written.Load(), m.Dropped.Load(), all, no)
	}
	if got := query(t, c.Dir, "_id"); uint64(len(got)) != m.Written.Load() || len(slices.Compact(got)) != len(got) {
		t.Errorf("%d rows of %d records", len(got), m.Written.Load())
	}
}

// TestSampled: the share is kept, replicas agree, a greater share holds a smaller one.
func TestSampled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id, a, b := rapid.String().Draw(t, "id"), rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		if Sampled(id, min(a, b)) && !Sampled(id, max(a, b)) || !Sampled(id, 1) || Sampled(id, 0) {
			t.Fatal("a greater share lacks what a smaller one has")
		}
	})
	n := 0
	for i := range 10_000 {
		if Sampled(fmt.Sprintf("request-%d", i), 0.1) {
			n++
		}
	}
	if n != 1018 { // of 1000 ± 30; SHA-256 fixes the number
		t.Errorf("%d of 10000 at a share of 0.1", n)
	}
}

// TestValuesJSON: what is written as JSON reads back as it was, by any parser.
func TestValuesJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.String()).Draw(t, "texts")
		numbers := rapid.SliceOf(rapid.Float64()).Draw(t, "numbers")
		b := appendValue(nil, ort.Sequence{ort.Tensor{Shape: []int64{int64(len(texts))}, Data: texts}, ort.Tensor{Shape: []int64{1, int64(len(numbers))}, Data: numbers}})
		var got [2]json.RawMessage
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		var ts []*string
		var ns [][]any
		if err := errors.Join(json.Unmarshal(got[0], &ts), json.Unmarshal(got[1], &ns)); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		for i, s := range texts {
			if s == types.NullString && ts[i] == nil {
				continue
			}
			if ts[i] == nil || *ts[i] != s {
				t.Fatalf("%q became %s", s, got[0])
			}
		}
		for i, x := range numbers {
			want := any(x)
			if math.IsNaN(x) {
				want = nil
			} else if math.IsInf(x, 0) {
				want = map[bool]string{true: "Infinity", false: "-Infinity"}[x > 0]
			}
			if ns[0][i] != want {
				t.Fatalf("%v became %s", x, got[1])
			}
		}
	})
}

// TestOpenRefuses: a configuration that cannot work is told at once.
func TestOpenRefuses(t *testing.T) {
	for name, change := range map[string]func(*service.Log){
		"sample": func(c *service.Log) { c.Sample = 2 }, "NaN": func(c *service.Log) { c.Sample = math.NaN() }, "buffer": func(c *service.Log) { c.Buffer = 0 }, "rows": func(c *service.Log) { c.Rows = 0 },
		"every": func(c *service.Log) { c.Every = 0 }, "nowhere": func(c *service.Log) { c.Dir = "" }, "both": func(c *service.Log) { c.Kafka = []string{"localhost:1"} },
		"topic": func(c *service.Log) { c.Dir, c.Kafka = "", []string{"localhost:1"} },
	} {
		c := folder("x")
		change(&c)
		if l, err := Open(Options{Config: c}); err == nil {
			t.Errorf("%s: no error", name)
			l.Close(context.Background())
		}
	}
}
