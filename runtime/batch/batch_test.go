package batch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
	"mlc.dev/mlc/stdlib/source/file"
)

// model is a bundle that answers x and 1-x as the probabilities of two classes.
func model() *bundle.Bundle {
	g := onnx.New("model")
	x := g.Cast(g.Input("f.x", onnx.Double, -1, 1), onnx.Float)
	y := g.Op("Sub", g.Const([]float32{1}, 1), x)
	g.Output("probabilities", g.OpA("Concat", onnx.Attrs{"axis": 1}, x, y), onnx.Float, -1, 2)
	return &bundle.Bundle{Model: g.Marshal(), Signature: bundle.Signature{
		Format: bundle.SignatureFormat, Model: "m", Task: kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b"}},
		Inputs:  []bundle.Tensor{{Name: "f.x", DType: "double", Width: 1, Type: types.Float}},
		Outputs: []bundle.Tensor{{Name: "probabilities", DType: "float", Width: 2}},
		Raw:     []lower.Field{{Name: "f.x", Column: "x", Type: types.Float, Nullable: true}},
	}}
}

// csv writes a file of rows whose x is its number over 1024; the line of every
// hundredth is no number.
func csv(t testing.TB, path string, rows int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "id,x")
	for i := 1; i <= rows; i++ {
		if i%100 == 0 {
			fmt.Fprintf(w, "r%d,none\n", i)
		} else {
			fmt.Fprintf(w, "r%d,%v\n", i, float64(i)/1024)
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func options(dir string) Options {
	return Options{
		Batch:  service.Batch{System: "sys", Name: "nightly", Model: service.Ref{Model: "m", Alias: "live"}, Output: filepath.Join(dir, "out.parquet"), Chunk: 100, Keep: []string{"id"}},
		Bundle: model(), Version: "7", Digest: "sha256:b", Files: []string{filepath.Join(dir, "a.csv"), filepath.Join(dir, "b.csv")}, Source: file.Source{}, MaxQuarantine: 0.02, MLC: "test",
	}
}

func run1(t *testing.T, o Options) Report {
	t.Helper()
	rep, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// verify compares the output with what the rows of the two files have to give.
func verify(t *testing.T, o Options, rows ...int) {
	t.Helper()
	type row struct {
		file, id string
		n        int64
	}
	var want []row
	for k, n := range rows {
		for i := 1; i <= n; i++ {
			if i%100 != 0 {
				want = append(want, row{o.Files[k], fmt.Sprintf("r%d", i), int64(i)})
			}
		}
	}
	i := 0
	err := table.Read(t.Context(), o.Output, map[string]table.Form{"file": table.Texts, "row": table.Ints, "id": table.Texts, "probability.a": table.Floats, "probability.b": table.Floats}, func(b table.Batch) error {
		for k := range b.Rows {
			got := row{b.Texts("file")[k], b.Texts("id")[k], b.Ints("row")[k]}
			x := float64(float32(float64(got.n) / 1024))
			if i >= len(want) || got != want[i] || b.Floats("probability.a")[k] != x || math.Abs(b.Floats("probability.b")[k]-(1-x)) > 1e-6 {
				return fmt.Errorf("row %d is %v, %v, %v", i, got, b.Floats("probability.a")[k], b.Floats("probability.b")[k])
			}
			i++
		}
		return nil
	})
	if err != nil || i != len(want) {
		t.Errorf("%d of %d rows, %v", i, len(want), err)
	}
	if _, err := os.Stat(o.Output + ".parts"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the parts are left: %v", err)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// TestRun: all rows of all files with their numbers, the bad ones set aside, the
// lineage in the file and beside it; then nothing is done until something changes.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 450)
	csv(t, filepath.Join(dir, "b.csv"), 50)
	o := options(dir)
	var progress []string
	o.Progress = func(file string, done, total int64) {
		progress = append(progress, fmt.Sprint(filepath.Base(file), " ", done, "/", total))
	}
	rep := run1(t, o)
	if rep.Unchanged || rep.Chunks != 6 || rep.Resumed != 0 || rep.Lineage.Rows != 496 || rep.Lineage.Rejected != 4 || rep.Lineage.Inputs[1].Rows != 50 {
		t.Errorf("%+v", rep)
	}
	equal(t, progress, []string{"a.csv 100/446", "a.csv 200/446", "a.csv 300/446", "a.csv 400/446", "a.csv 446/446", "b.csv 50/50"})
	verify(t, o, 450, 50)
	if l := lines(t, rep.Rejects); len(l) != 4 || !strings.Contains(l[1], `"row":200,"reasons":"x: not a number"`) {
		t.Errorf("%s", l)
	}

	var beside, inside Lineage
	if err := json.Unmarshal([]byte(strings.Join(lines(t, o.Output+".lineage.json"), "")), &beside); err != nil {
		t.Fatal(err)
	}
	equal(t, beside, rep.Lineage)
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var text string
	var n int64
	if err := db.Row(t.Context(), "SELECT decode(value) FROM parquet_kv_metadata("+expr.QuoteString(o.Output)+") WHERE decode(key) = 'mlc.lineage'", &text); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &inside); err != nil {
		t.Fatal(err)
	}
	beside.Output = ""
	equal(t, inside, beside)
	if inside.Version != "7" || inside.Model.String() != "m@live" || inside.Bundle != "sha256:b" || inside.Inputs[0].Digest != plan.DigestOf([]byte(strings.Join(lines(t, o.Files[0]), "\n")+"\n")) {
		t.Errorf("%+v", inside)
	}
	if err := db.Row(t.Context(), `SELECT count(*) FROM `+expr.ReadParquet(o.Output)+` WHERE "probability.a" + "probability.b" > 0.99`, &n); err != nil || n != 496 {
		t.Errorf("%d rows by DuckDB, %v", n, err)
	}

	same := run1(t, o)
	if !same.Unchanged || same.Chunks != 0 || same.Rejects != rep.Rejects || !same.Lineage.Created.Equal(rep.Lineage.Created) {
		t.Errorf("%+v", same)
	}
	for what, change := range map[string]func(){
		"version":        func() { o.Version = "8" },
		"bundle":         func() { o.Digest = "sha256:c" },
		"mlc":            func() { o.MLC = "newer" },
		"chunk":          func() { o.Chunk = 70 },
		"keep":           func() { o.Keep = []string{"id", "x"} },
		"rejects gone":   func() { os.Remove(rep.Rejects) },
		"output gone":    func() { os.Remove(o.Output) },
		"lineage broken": func() { os.WriteFile(o.Output+".lineage.json", []byte("{"), 0o644) },
		"output altered": func() { os.Truncate(o.Output, 100) },
		"input":          func() { csv(t, o.Files[1], 40) },
	} {
		change()
		if again := run1(t, o); again.Unchanged {
			t.Errorf("%s: nothing was done", what)
		}
		if again := run1(t, o); !again.Unchanged {
			t.Errorf("%s: done twice", what)
		}
	}
	verify(t, o, 450, 40)
	csv(t, o.Files[0], 99)
	if rep = run1(t, o); rep.Rejects != "" || rep.Lineage.Rejected != 0 {
		t.Errorf("%+v", rep)
	}
	if _, err := os.Stat(o.Output + ".rejects.jsonl"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("old rejects are left: %v", err)
	}
}

// TestDecisions: what a model decides is a boolean by its own threshold in every chunk,
// null where its number is none.
func TestDecisions(t *testing.T) {
	dir := t.TempDir()
	o := options(dir)
	g := onnx.New("model")
	g.Output("score", g.Cast(g.Input("f.x", onnx.Double, -1, 1), onnx.Float), onnx.Float, -1, 1)
	o.Bundle.Model = g.Marshal()
	o.Bundle.Signature.Task = kind.Task{Kind: kind.Anomaly, Threshold: 0.3}
	o.Bundle.Signature.Outputs = []bundle.Tensor{{Name: "score", DType: "float", Width: 1}}
	o.Files, o.Chunk, o.Keep = o.Files[:1], 3, nil
	if err := os.WriteFile(o.Files[0], []byte("x,n\n0.3,1\n0.29999,2\n,3\n0.9,4\n-1,5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run1(t, o)
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got, of string
	q := "SELECT list(decision ORDER BY row)::VARCHAR, any_value(typeof(decision)) FROM " + expr.ReadParquet(o.Output)
	if err := db.Row(t.Context(), q, &got, &of); err != nil || got != "[true, false, NULL, true, false]" || of != "BOOLEAN" {
		t.Errorf("%s of %s, %v", got, of, err)
	}
	o.Keep = []string{"decision"}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), `column "decision" to keep is in the output already`) {
		t.Errorf("%v", err)
	}
}

// TestTooManyRejects: an output stays where more rows do not fit than may, also where it
// was made when more might.
func TestTooManyRejects(t *testing.T) {
	dir := t.TempDir()
	o := options(dir)
	o.Files = o.Files[:1]
	csv(t, o.Files[0], 450)
	run1(t, o)
	was := lines(t, o.Output+".lineage.json")
	for _, spoil := range []func(){
		func() { o.MaxQuarantine = 0.008 },
		func() { o.MaxQuarantine = 0.02; os.WriteFile(o.Files[0], []byte("id,x\nr1,no\nr2,no\n"), 0o644) },
	} {
		spoil()
		_, err := Run(t.Context(), o)
		var d diag.Diagnostic
		if !errors.As(err, &d) || d.Code != diag.TooManyBadRows {
			t.Fatal(err)
		}
		_, at, _ := strings.Cut(d.Mend, "see ")
		at, _, _ = strings.Cut(at, " for ")
		if l := lines(t, at); !strings.Contains(l[0], "not a number") {
			t.Errorf("%s", l)
		}
		equal(t, lines(t, o.Output+".lineage.json"), was)
	}
	csv(t, o.Files[0], 440)
	run1(t, o)
	verify(t, o, 440)
}

// TestDamagedChunk: of a finished chunk that cannot be read the run tells, and the next
// one makes it anew.
func TestDamagedChunk(t *testing.T) {
	dir := t.TempDir()
	o := options(dir)
	o.Files = o.Files[:1]
	csv(t, o.Files[0], 450)
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(_ string, done, _ int64) {
		if done >= 300 {
			cancel()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	o.Progress = nil
	parts, err := filepath.Glob(filepath.Join(o.Output+".parts", "*.parquet"))
	if err != nil || len(parts) < 3 {
		t.Fatal(parts, err)
	}
	b, err := os.ReadFile(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := 4; i < len(b)/2; i++ {
		b[i] ^= 0xff
	}
	if err := os.WriteFile(parts[1], b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "a finished chunk cannot be read: "+parts[1]) {
		t.Fatal(err)
	}
	if rep := run1(t, o); rep.Chunks != 1 {
		t.Errorf("%+v", rep)
	}
	verify(t, o, 450)
}

// TestResumes: a run that ended in the middle is gone on with, and the result is
// that of a run at once.
func TestResumes(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 450)
	csv(t, filepath.Join(dir, "b.csv"), 250)
	o := options(dir)
	ctx, cancel := context.WithCancel(t.Context())
	chunks := 0
	o.Progress = func(string, int64, int64) {
		if chunks++; chunks == 6 {
			cancel()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("a run that was ended: %v", err)
	}
	if _, err := os.Stat(o.Output); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("half an output is there: %v", err)
	}
	parts := o.Output + ".parts"
	if err := os.WriteFile(filepath.Join(parts, "0123456789ab-0000-00000000.parquet"), nil, 0o644); err != nil { // of another key
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(parts, "*-0000-00000002.parquet"))
	if err != nil || len(left) != 1 || os.Truncate(left[0], 10) != nil {
		t.Fatalf("%v, %v", left, err)
	}
	o.Progress = nil
	rep := run1(t, o)
	if rep.Resumed != 5 || rep.Chunks != 3 { // of the 6, one is broken
		t.Errorf("%+v", rep)
	}
	verify(t, o, 450, 250)
	if l := lines(t, rep.Rejects); len(l) != 6 {
		t.Errorf("%s", l)
	}
}

// TestKilled: the same when the process is killed, which frees its lock too.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("MLC_TEST_BATCH"); dir != "" {
		o := options(dir)
		o.Progress = func(_ string, done, _ int64) {
			if done == 200 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		Run(context.Background(), o)
		t.Fatal("it lives")
	}
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 450)
	csv(t, filepath.Join(dir, "b.csv"), 50)
	c := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	c.Env = append(os.Environ(), "MLC_TEST_BATCH="+dir)
	out, err := c.CombinedOutput()
	if c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	o := options(dir)
	if rep := run1(t, o); rep.Resumed != 2 || rep.Chunks != 4 {
		t.Errorf("%+v", rep)
	}
	verify(t, o, 450, 50)
}

// TestFormats: Parquet and JSON lines as well, a source's own arguments, and files
// without a good row.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	o := options(dir)
	o.MaxQuarantine = 1
	o.Files = []string{filepath.Join(dir, "a.parquet"), filepath.Join(dir, "b.jsonl"), filepath.Join(dir, "c.csv")}
	if err := table.Write(o.Files[0], []table.Column{{Name: "id", Data: []string{"r1", "r2"}}, {Name: "x", Data: []float64{1.0 / 1024, 2.0 / 1024}}}); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(o.Files[1], []byte("{\"id\":\"r1\",\"x\":0.0009765625}\nnone\n"), 0o644)
	os.WriteFile(o.Files[2], []byte("id,x\nr,no\n"), 0o644)
	rep := run1(t, o)
	verify(t, o, 2, 1, 0)
	if l := lines(t, rep.Rejects); len(l) != 2 || !strings.Contains(l[0], "not a JSON object") || !strings.Contains(l[0], `"file":"`+o.Files[1]) || !strings.HasPrefix(l[1], `{"file":"`+o.Files[2]+`","row":1,"reasons":`) {
		t.Errorf("%s", l)
	}
	o.Files = o.Files[2:]
	if rep = run1(t, o); rep.Lineage.Rows != 0 || rep.Lineage.Rejected != 1 || rep.Chunks != 0 {
		t.Errorf("%+v", rep)
	}
	verify(t, o, 0)
	o.Files = []string{filepath.Join(dir, "rows.txt")}
	os.WriteFile(o.Files[0], []byte("id;x\nr1;0.0009765625\nr2;?\n"), 0o644)
	o.Args = json.RawMessage(`{"kind": "file", "path": "*.txt", "format": "csv", "delimiter": ";", "header": true, "null_values": ["?"]}`)
	if rep = run1(t, o); rep.Lineage.Rows != 2 || rep.Lineage.Rejected != 0 {
		t.Errorf("%+v", rep)
	}
}

// TestMixedTypes: a column is kept in the type that all files have it in, as texts where
// they have several, also by a run that takes over the parts of another.
func TestMixedTypes(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	o := options(dir)
	o.Keep, o.Chunk = []string{"same", "n", "d", "z", "s"}, 1
	o.Files = nil
	for i, rows := range []string{
		"1::BIGINT AS same, 1::INTEGER AS n, DATE '2024-01-02' AS d, 0.5::DOUBLE AS z, 7::BIGINT AS s",
		"2::BIGINT, 9007199254740993::BIGINT, TIMESTAMP '2024-01-02 03:04:05', NULL, 'a'",
		"NULL::BIGINT, NULL, NULL, 1.5::DOUBLE, NULL",
	} {
		o.Files = append(o.Files, filepath.Join(dir, fmt.Sprint(i, ".parquet")))
		if err := db.WriteParquet(t.Context(), "SELECT 0.25::DOUBLE AS x, * FROM (SELECT "+rows+") AS t(same, n, d, z, s), range(2)", o.Files[i]); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(file string, done, _ int64) {
		if file == o.Files[1] && done == 1 {
			cancel()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	o.Progress = nil
	if rep := run1(t, o); rep.Resumed != 3 || rep.Chunks != 3 {
		t.Errorf("%+v", rep)
	}
	want := []string{
		"1 1 2024-01-02 0.5 7", "1 1 2024-01-02 0.5 7",
		"2 9007199254740993 2024-01-02 03:04:05+00 - a", "2 9007199254740993 2024-01-02 03:04:05+00 - a",
		"- - - 1.5 -", "- - - 1.5 -",
	}
	from := expr.ReadParquet(o.Output)
	var got []string
	err = db.Rows(t.Context(), `SELECT concat_ws(' ', coalesce(same::VARCHAR, '-'), coalesce(n, '-'), coalesce(d, '-'), coalesce(z, '-'), coalesce(s, '-')) FROM `+from, func(scan func(...any) error) error {
		got = append(got, "")
		return scan(&got[len(got)-1])
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, kinds, err := db.Columns(t.Context(), `SELECT same, n, d, z, s FROM `+from); err != nil || !slices.Equal(kinds, []string{"BIGINT", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR"}) {
		t.Errorf("%q, %v", kinds, err)
	}
}

// TestJoins: many small chunks make few row groups, in order.
func TestJoins(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 90_000)
	csv(t, filepath.Join(dir, "b.csv"), 20)
	o := options(dir)
	o.Chunk = 3000
	run1(t, o)
	verify(t, o, 90_000, 20)
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int64
	if err := db.Row(t.Context(), "SELECT count(DISTINCT row_group_id) FROM parquet_metadata("+expr.QuoteString(o.Output)+")", &n); err != nil || n != 2 {
		t.Errorf("%d row groups, %v", n, err)
	}
}

// TestRefuses: what cannot work is told, and nothing is made.
func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 5)
	csv(t, filepath.Join(dir, "b.csv"), 5)
	for want, change := range map[string]func(*Options){
		"a chunk of 0":         func(o *Options) { o.Chunk = 0 },
		"no files":             func(o *Options) { o.Files = nil },
		"is no .parquet file":  func(o *Options) { o.Output = "x.csv" },
		"in the output":        func(o *Options) { o.Keep = []string{"file"} },
		"no file":              func(o *Options) { o.Files[1] += "x" },
		"is a folder":          func(o *Options) { o.Files[1] = dir },
		"has no column \"id2":  func(o *Options) { o.Keep = []string{"id2"} },
		"another run is at wo": func(*Options) {},
	} {
		o := options(dir)
		change(&o)
		unlock := func() {}
		if strings.HasPrefix(want, "another") {
			var err error
			if unlock, err = lockDir(o.Output + ".parts"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := os.Stat(o.Output); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: an output is there", want)
		}
		unlock()
	}
}

// TestReadsWhatItDigested: a file that is changed meanwhile makes no output.
func TestReadsWhatItDigested(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 5)
	csv(t, filepath.Join(dir, "b.csv"), 5)
	o := options(dir)
	o.Progress = func(file string, _, _ int64) {
		if file == o.Files[0] {
			csv(t, o.Files[1], 6)
		}
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("%v", err)
	}
	o.Progress = nil
	run1(t, o)
	verify(t, o, 5, 6)
}

// TestSameBytes: but for the time, one run gives the bytes of another.
func TestSameBytes(t *testing.T) {
	dir := t.TempDir()
	csv(t, filepath.Join(dir, "a.csv"), 450)
	csv(t, filepath.Join(dir, "b.csv"), 50)
	o := options(dir)
	var parts [2][]byte
	for k := range parts {
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = func(string, int64, int64) { cancel() }
		if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		found, err := filepath.Glob(filepath.Join(o.Output+".parts", "*.parquet"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		if parts[k], err = os.ReadFile(found[0]); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(o.Output + ".parts"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(parts[0], parts[1]) {
		t.Error("the same chunk gave other bytes")
	}
}
