package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mlc.dev/mlc/bench/internal/run"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
	"mlc.dev/mlc/stdlib"
	"mlc.dev/mlc/stdlib/metric"
	"mlc.dev/mlc/stdlib/trainer/gbdt"
)

// tabularRows measures the way from rows to a trained model: each operation as `mlc
// stage` runs it, against the same work done by the engine below alone. Both sides are
// processes of their own, timed from start to end, in turns; the best of a few runs
// counts. This program stays small: a child's peak is never told as less than its
// parent's. Names choose among validation, matrix, gbdt and join; none is all.
func tabularRows(tmp string, names ...string) [][]string {
	var rows [][]string
	for _, b := range []struct {
		name string
		f    func(dir string) [][]string
	}{{"validation", validation}, {"matrix", matrix}, {"gbdt", boosting}, {"join", join}} {
		if len(names) > 0 && !slices.Contains(names, b.name) {
			continue
		}
		dir := filepath.Join(tmp, b.name)
		run.Must(os.MkdirAll(dir, 0o755))
		rows = append(rows, b.f(dir)...)
		run.Must(os.RemoveAll(dir))
	}
	return rows
}

// tabularChild does one side of a comparison: see its callers.
func tabularChild(args []string) error {
	switch args[0] {
	case "sql":
		return script(args[1])
	case "matrix":
		return bareMatrix(args[1], args[2])
	case "gbdt":
		return boost(args[1])
	}
	return fmt.Errorf("no child %q", args[0])
}

// child is this program in another process, on as many cores as a step has.
func child(args ...string) *exec.Cmd {
	self, err := os.Executable()
	run.Must(err)
	return exec.Command(self, append([]string{"tabular-child"}, args...)...)
}

// cost is what a process took.
type cost struct {
	took time.Duration
	peak int64 // resident, bytes
}

func (c cost) String() string {
	return fmt.Sprintf("%.2f s, %.0f MiB", c.took.Seconds(), float64(c.peak)/(1<<20))
}

// rate is rows a second.
func (c cost) rate(rows int) float64 { return float64(rows) / c.took.Seconds() }

// measure runs a command that has to succeed and returns what it wrote.
func measure(cmd *exec.Cmd) (cost, []byte) {
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", sql.Threads))
	lifeline, err := cmd.StdinPipe()
	run.Must(err)
	defer lifeline.Close()
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	run.Must(err)
	return cost{took, run.Peak(cmd.ProcessState)}, out
}

// best runs several things in turns and returns of each the fastest time and the
// greatest peak.
func best(rounds int, what ...func() cost) []cost {
	out := make([]cost, len(what))
	for range rounds {
		for i, f := range what {
			c := f()
			out[i].peak = max(out[i].peak, c.peak)
			if out[i].took == 0 || c.took < out[i].took {
				out[i].took = c.took
			}
		}
	}
	return out
}

// compared is a row of which the ratio has to be at most goal.
func compared(what string, ours cost, peer string, theirs cost, goal float64) []string {
	ratio := ours.took.Seconds() / theirs.took.Seconds()
	return []string{what, ours.String(), peer + " " + theirs.String(), fmt.Sprintf("%.2f", ratio), fmt.Sprintf("≤ %v", goal), verdict(ratio <= goal)}
}

// pipeline runs the steps of a spec one by one.
type pipeline struct {
	dir  string
	plan *plan.Plan
	runs int
	made map[output]string // their folders
}

// output is one of a step's.
type output struct {
	step int
	name string
}

// compile makes the plan of a spec, of which the named files need not be there.
func compile(dir, spec string, files ...string) *pipeline {
	for _, f := range files {
		run.Must(os.WriteFile(filepath.Join(dir, f), nil, 0o644))
	}
	run.Must(os.WriteFile(filepath.Join(dir, "bench.cue"), []byte(spec), 0o644))
	r, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
	if r.Plan == nil {
		for _, d := range list {
			fmt.Fprintln(os.Stderr, d.What)
		}
		run.Must(fmt.Errorf("the benchmark's spec has mistakes"))
	}
	return &pipeline{dir: dir, plan: r.Plan, made: map[output]string{}}
}

func (p *pipeline) step(id string) int {
	i := slices.IndexFunc(p.plan.Steps, func(s plan.Step) bool { return s.ID == id })
	if i < 0 {
		run.Must(fmt.Errorf("no step %q", id))
	}
	return i
}

// out is the folder of an output of a step that ran or was given.
func (p *pipeline) out(id, name string) string { return p.made[output{p.step(id), name}] }

// give makes the folder of a step's output for what the step would have written.
func (p *pipeline) give(id, name string) string {
	dir := filepath.Join(p.dir, "given", strings.ReplaceAll(id+" "+name, " ", "-"))
	run.Must(os.MkdirAll(dir, 0o755))
	p.made[output{p.step(id), name}] = dir
	return dir
}

// run lays a step out as the local executor does and runs it.
func (p *pipeline) run(id string) cost {
	i := p.step(id)
	step := p.plan.Steps[i]
	p.runs++
	dir := filepath.Join(p.dir, "stages", strconv.Itoa(p.runs))
	job := executor.Job{Step: &step, Dir: dir, Inputs: make([]executor.Bound, len(step.Inputs))}
	for _, in := range step.Inputs {
		at := filepath.Join(dir, executor.Folder(in.Name))
		run.Must(os.MkdirAll(filepath.Dir(at), 0o755))
		if in.Step >= 0 {
			run.Must(os.Symlink(p.out(p.plan.Steps[in.Step].ID, in.Output), at))
			continue
		}
		run.Must(os.MkdirAll(at, 0o755))
		for k, f := range in.Files {
			run.Must(os.Symlink(filepath.Join(p.dir, f), filepath.Join(at, strconv.Itoa(k))))
		}
	}
	for _, name := range step.Outputs {
		out := filepath.Join(dir, "out", name)
		run.Must(os.MkdirAll(out, 0o755))
		key := output{i, name}
		if old := p.made[key]; old != "" {
			run.Must(os.RemoveAll(old))
		}
		p.made[key] = out
	}
	b, err := json.Marshal(executor.NewStage(job))
	run.Must(err)
	run.Must(os.WriteFile(filepath.Join(dir, "stage.json"), b, 0o644))
	c, _ := measure(exec.Command(run.MLC(), "stage", dir))
	return c
}

// scripted runs SQL in a process of its own: the engine of runtime/sql with the memory
// that a step of whole tables has.
func scripted(dir, query string) cost {
	path := filepath.Join(dir, "script.sql")
	run.Must(os.WriteFile(path, []byte(query), 0o644))
	c, _ := measure(child("sql", path))
	return c
}

// script runs the statement of a file and drops its rows.
func script(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	ctx := context.Background()
	db, err := sql.Open(ctx, filepath.Dir(path)+"/spill", 3<<29, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Rows(ctx, string(b), func(func(...any) error) error { return nil })
}

// draw is SQL of a whole number from 0 on, as if by chance, of row i and column k.
func draw(k int) string { return fmt.Sprintf("(hash(i * 32 + %d) >> 1)::BIGINT", k) }

// generate writes a Parquet file of n rows i = 0, 1, … of the SQL of columns.
func generate(dir, path string, n int, columns ...string) {
	scripted(dir, fmt.Sprintf("COPY (SELECT %s FROM range(%d) AS t(i)) TO '%s' (FORMAT parquet, ROW_GROUP_SIZE 122880)", strings.Join(columns, ", "), n, path))
}

// wrap is a spec around sources and features, of one binary model.
func wrap(sources, rest string) string {
	return "package bench\n\nimport \"mlc.dev/schema\"\n\nsystem: schema.#System & {\n\tname: \"bench\"\n\tsources: {\n" + sources + "\n\t}\n" + rest + "\n}\n"
}

// validation compares source.validate with a scan of the file that it reads, and with
// Great Expectations and pandera on a tenth of the rows.
func validation(dir string) [][]string {
	const n = 5_000_000
	p := compile(dir, wrap(`rows: {kind: "file", path: "rows.parquet", columns: {
		id: {type: "int", nulls: "never", min: 0}
		seen: {type: "timestamp", nulls: "never"}
		amount: {type: "float", min: 0, max: 10000}
		score: {type: "float", nulls: "never", min: 0, max: 1}
		age: {type: "int", min: 0, max: 120}
		visits: {type: "int", nulls: "never", min: 0}
		balance: {type: "float", min: -1000, max: 1000}
		country: {type: "string", nulls: "never", in: ["de", "es", "fr", "it", "nl", "pl", "pt", "se"]}
		plan: {type: "string", in: ["basic", "free", "pro"]}
		city: {type: "string", nulls: "never"}
		active: {type: "bool", nulls: "never"}
		joined: type: "timestamp"
	}}`, `	problems: y: {kind: "binary", label: {source: "rows", expr: "active"}, baseline: kind: "prior", metrics: primary: "roc_auc"}
	features: r: {kind: "request", source: "rows", columns: ["amount"]}
	models: y: {problem: "y", inputs: "r.*": {}, trainer: kind: "prior"}`), "rows.parquet")
	columns := []string{"i AS id", "TIMESTAMP '2024-01-01' + to_microseconds(i * 5000000) AS seen",
		"CASE WHEN " + draw(0) + " % 50 <> 0 THEN round(" + draw(1) + " % 1000000 / 100, 2) END AS amount",
		draw(2) + " % 100000 / 100000 AS score",
		"CASE WHEN " + draw(3) + " % 20 <> 0 THEN " + draw(4) + " % 90 + 10 END AS age",
		draw(5) + " % 1000 AS visits", "(" + draw(6) + " % 2000000 - 1000000) / 1000 AS balance",
		"['de', 'es', 'fr', 'it', 'nl', 'pl', 'pt', 'se'][1 + " + draw(7) + " % 8] AS country",
		"CASE WHEN " + draw(8) + " % 30 <> 0 THEN ['basic', 'free', 'pro'][1 + " + draw(9) + " % 3] END AS plan",
		"'city' || " + draw(10) + " % 1000 AS city", draw(11) + " % 3 = 0 AS active",
		"TIMESTAMP '2020-01-01' + to_seconds(" + draw(12) + " % 100000000) AS joined"}
	source := filepath.Join(dir, "rows.parquet")
	generate(dir, source, n, columns...)
	snapshot := p.run("source.snapshot rows")
	// A scan that reads every column and tells its least, greatest and mean value.
	items := []string{"count(*)", "avg(CAST(active AS INTEGER))"}
	for _, c := range []string{"id", "age", "visits", "amount", "score", "balance"} {
		items = append(items, "count("+c+")", "min("+c+")", "max("+c+")", "avg("+c+")")
	}
	for _, c := range []string{"seen", "joined", "country", "plan", "city"} {
		items = append(items, "count("+c+")", "min("+c+")", "max("+c+")")
	}
	from := " FROM read_parquet('" + filepath.Join(p.out("source.snapshot rows", "rows"), "rows.parquet") + "')"
	c := best(3, func() cost { return p.run("source.validate rows") }, func() cost { return scripted(dir, "SELECT "+strings.Join(items, ", ")+from) })
	summary := scripted(dir, "SUMMARIZE SELECT *"+from)
	what := fmt.Sprintf("validation and profile of %d rows × 12 columns, `source.validate` (the snapshot of the user's Parquet before it: %s; DuckDB's own profile of the file, `SUMMARIZE`: %s)", n, snapshot, summary)
	rows := [][]string{compared(what, c[0], "bare DuckDB scan of the same file, count, min, max and mean of each column:", c[1], 2)}

	const few = n / 10
	some := filepath.Join(dir, "some.parquet")
	generate(dir, some, few, columns...)
	pythons, err := pythonsOf("tabular")
	for _, peer := range []struct{ name, python, script string }{{"Great Expectations", "expectations", "expect.py"}, {"pandera and pandas", "pandera", "validate.py"}} {
		what = "validation and profile, rows/s"
		if pythons[peer.python] == "" {
			fmt.Fprintf(os.Stderr, "SKIPPED: %s could not be installed: %v\n", peer.name, err)
			rows = append(rows, []string{what, "SKIPPED: " + peer.name + " could not be installed", "", "", "≥ 10", ""})
			continue
		}
		for _, mode := range []string{"profile", "checks"} {
			var inside float64
			slow := best(2, func() cost {
				c, out := measure(exec.Command(pythons[peer.python], filepath.Join(peersOf("tabular"), peer.script), some, mode))
				run.Must(json.Unmarshal(out, &inside))
				c.took = time.Duration(inside * float64(time.Second)) // without the imports
				return c
			})[0]
			ratio := c[0].rate(n) / slow.rate(few)
			told := map[string]string{"profile": "checks and a profile", "checks": "checks alone"}[mode]
			row := []string{what, fmt.Sprintf("%.0f", c[0].rate(n)), fmt.Sprintf("%s, %s, %d rows of typed Parquet: %.0f (%s)", peer.name, told, few, slow.rate(few), slow), fmt.Sprintf("%.1f", ratio), "≥ 10", verdict(ratio >= 10)}
			if mode == "checks" || peer.python != "expectations" { // the goal is over one of the two
				row[4], row[5] = "", ""
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// peersOf is the folder of a section's peers.
func peersOf(section string) string { return filepath.Join(run.Root(), "bench", "peers", section) }

// pythonsOf are the interpreters of a section's peers that could be installed, by name.
func pythonsOf(section string) (map[string]string, error) {
	out, err := run.Output(peersOf(section), "bash", "install.sh")
	pythons := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		if name, python, ok := strings.Cut(line, " "); ok {
			pythons[name] = python
		}
	}
	return pythons, err
}

// matrix compares what training does before its trainer begins, model.train with the
// trainer that looks at nothing, with a loop over the same graph and the same rows.
func matrix(dir string) [][]string {
	const n = 1_000_000
	numbers, texts := []string{"age", "weight", "education", "gain", "loss", "hours"}, []string{"workclass", "degree", "marital", "occupation", "relation", "race", "sex", "country"}
	var declared, inputs, quoted []string
	columns := []string{"i + 1 AS _row", "0::INTEGER AS _file", draw(20) + " % 4 = 0 AS income"}
	for k, c := range numbers {
		declared, quoted = append(declared, c+`: type: "float"`), append(quoted, strconv.Quote(c))
		inputs = append(inputs, `"person.`+c+`": encode: [{kind: "impute", with: "median"}, {kind: "standardize"}]`)
		columns = append(columns, fmt.Sprintf("CASE WHEN %s %% 50 <> 0 THEN (%s %% 10000)::DOUBLE END AS %s", draw(k), draw(k+21), c))
	}
	for k, c := range texts {
		declared, quoted = append(declared, c+`: type: "string"`), append(quoted, strconv.Quote(c))
		inputs = append(inputs, `"person.`+c+`": encode: [{kind: "one_hot"}]`)
		columns = append(columns, fmt.Sprintf("CASE WHEN %s %% 20 <> 0 THEN '%s-' || %s %% %d END AS %s", draw(k+6), c, draw(k+6), []int{9, 16, 7, 15, 6, 5, 2, 42}[k], c))
	}
	p := compile(dir, wrap(`census: {kind: "file", path: "census.csv", columns: {income: type: "bool", `+strings.Join(declared, ", ")+"}}",
		`	problems: y: {kind: "binary", label: {source: "census", expr: "income"}, baseline: kind: "prior", metrics: primary: "roc_auc"}
	features: person: {kind: "request", source: "census", columns: [`+strings.Join(quoted, ", ")+`]}
	models: y: {problem: "y", inputs: {`+strings.Join(inputs, ", ")+`}, trainer: {kind: "prior", resources: cpu: 2}}`), "census.csv")
	generate(dir, filepath.Join(p.give("source.validate census", "rows"), "rows.parquet"), n, columns...)
	for _, id := range []string{"dataset.build y", "dataset.split y", "transform.fit y"} {
		p.run(id)
	}
	transform, dataset := p.out("transform.fit y", "transform"), filepath.Join(p.out("dataset.build y", "rows"), "rows.parquet")
	c := best(3, func() cost { return p.run("model.train y") }, func() cost {
		c, _ := measure(child("matrix", transform, dataset))
		return c
	})
	what := fmt.Sprintf("training matrix of %d rows × %d columns, %d of them texts: all of `model.train` but the trainer", n, len(numbers)+len(texts), len(texts))
	return [][]string{compared(what, c[0], "bare ONNX Runtime over the same graph and Parquet, tensors used again:", c[1], 1.3)}
}

// bareMatrix reads a dataset once and runs its rows through a transform on all cores
// into one matrix, in tensors that are used again.
func bareMatrix(transform, dataset string) error {
	b, err := os.ReadFile(filepath.Join(transform, "transform.json"))
	if err != nil {
		return err
	}
	var t op.Transform
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	graph, err := os.ReadFile(filepath.Join(transform, "transform.onnx"))
	if err != nil {
		return err
	}
	session, err := ort.Open(graph)
	if err != nil {
		return err
	}
	defer session.Close()
	n, err := table.Rows(dataset)
	if err != nil {
		return err
	}
	x := make([]float32, int(n)*len(t.Columns))
	want := map[string]table.Form{}
	for _, r := range t.Raw {
		want[r.Name] = table.Floats
		if r.Type == types.String {
			want[r.Name] = table.Texts
		}
	}
	const piece = 1024
	batches := make(chan table.Batch, 2)
	errs := make(chan error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			in := make([]ort.Tensor, len(session.Inputs()))
			for b := range batches {
				for at := 0; at < b.Rows; at += piece {
					to := min(at+piece, b.Rows)
					for i, info := range session.Inputs() {
						switch d := b.Columns[info.Name].(type) {
						case []float64:
							in[i] = ort.Column(d[at:to])
						case []string:
							in[i] = ort.Column(d[at:to])
						}
					}
					out, err := session.Run(in)
					if err != nil {
						errs <- err
						return
					}
					copy(x[(int(b.Start)+at)*len(t.Columns):], out[0].Data.([]float32))
				}
			}
		})
	}
	err = table.Read(context.Background(), dataset, want, func(b table.Batch) error {
		select {
		case batches <- b:
			return nil
		case err := <-errs:
			return err
		}
	})
	close(batches)
	wg.Wait()
	return err
}

// The rows of boosting, after Baldi et al. 2014 in form: features that carry little by
// themselves, and some that are made of them.
const (
	higgsTrain, higgsTest, higgsCols = 1_000_000, 200_000, 28
	gbdtRounds                       = 100
)

// boosting compares the trainer with LightGBM at equal settings, both from a matrix in
// memory to a model.
func boosting(dir string) [][]string {
	what := fmt.Sprintf("`gbdt`, %d rows × %d columns, %d rounds, 63 leaves, 255 bins, 2 threads", higgsTrain, higgsCols, gbdtRounds)
	pythons, err := pythonsOf("tabular")
	if pythons["lightgbm"] == "" {
		fmt.Fprintln(os.Stderr, "SKIPPED: LightGBM could not be installed:", err)
		return [][]string{{what, "SKIPPED: LightGBM could not be installed", "", "", "≤ 1.5", ""}}
	}
	path := filepath.Join(dir, "rows.bin")
	run.Must(higgs(path))
	var auc [2]float64
	side := func(i int, cmd func() *exec.Cmd) func() cost {
		return func() cost {
			c, out := measure(cmd())
			var told struct{ Seconds, AUC float64 }
			run.Must(json.Unmarshal(out, &told))
			auc[i], c.took = told.AUC, time.Duration(told.Seconds*float64(time.Second))
			return c
		}
	}
	c := best(3, side(0, func() *exec.Cmd { return child("gbdt", path) }), side(1, func() *exec.Cmd {
		return exec.Command(pythons["lightgbm"], filepath.Join(peersOf("tabular"), "boost.py"), path, strconv.Itoa(higgsTrain), strconv.Itoa(higgsTest), strconv.Itoa(higgsCols), strconv.Itoa(gbdtRounds))
	}))
	row := compared(fmt.Sprintf("%s (held-out AUC %.4f, LightGBM %.4f)", what, auc[0], auc[1]), c[0], "LightGBM", c[1], 1.5)
	row[4] += ", equal AUC"
	row[5] = verdict(c[0].took.Seconds() <= 1.5*c[1].took.Seconds() && math.Abs(auc[0]-auc[1]) <= 0.001)
	return [][]string{row}
}

// higgs writes rows of features and then the label, float32 in little-endian order.
func higgs(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(3, 4))
	row := make([]float64, higgsCols)
	line := make([]byte, 0, 4*(higgsCols+1))
	for range higgsTrain + higgsTest {
		for k := range 21 {
			row[k] = r.NormFloat64()
		}
		for k := range 7 {
			row[21+k] = math.Sqrt(row[3*k]*row[3*k]+row[3*k+1]*row[3*k+1]) + row[3*k+1]*row[3*k+2] + 0.3*r.NormFloat64()
		}
		z := 0.6*row[21] - 0.5*row[22]*row[0] + math.Sin(2*row[23]) + 0.4*row[24]*row[25] - 0.3*math.Abs(row[26]) + 0.5*row[4]*row[9] - 0.2*row[27]
		y := 0.0
		if r.Float64() < 1/(1+math.Exp(-z)) {
			y = 1
		}
		line = line[:0]
		for _, v := range append(row, y) {
			line = binary.LittleEndian.AppendUint32(line, math.Float32bits(float32(v)))
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// boost trains on the rows of higgs and tells the seconds and the AUC of held-out rows.
func boost(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	read := func(n int) (kind.Examples, error) {
		e := kind.Examples{X: kind.Matrix{Rows: n, Cols: higgsCols, Data: make([]float32, n*higgsCols)}, Y: make([]float64, n)}
		row := make([]float32, higgsCols+1)
		for i := range n {
			if err := binary.Read(r, binary.LittleEndian, row); err != nil {
				return e, err
			}
			copy(e.X.Row(i), row)
			e.Y[i] = float64(row[higgsCols])
		}
		return e, nil
	}
	task := kind.Task{Kind: kind.Binary, Classes: []string{"false", "true"}}
	job := kind.TrainJob{Task: task, Threads: sql.Threads, Progress: func(int, int, string) {}, Args: json.RawMessage(fmt.Sprintf(
		`{"rounds": %d, "learning_rate": 0.1, "max_leaves": 63, "min_rows": 20, "l2": 1, "bins": 255, "cat_smooth": 10, "cat_l2": 10, "row_sample": 1, "column_sample": 1}`, gbdtRounds))}
	for i := range higgsCols {
		job.Names = append(job.Names, fmt.Sprintf("x%d", i))
	}
	if job.Train, err = read(higgsTrain); err != nil {
		return err
	}
	test, err := read(higgsTest)
	if err != nil {
		return err
	}
	start := time.Now()
	res, err := gbdt.Trainer{}.Train(context.Background(), job)
	if err != nil {
		return err
	}
	took := time.Since(start)
	auc, err := metric.ROCAUC{}.Compute(task, test.Y, res.Predict(test.X))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"seconds": took.Seconds(), "auc": auc})
}

// join compares dataset.build with the SQL that somebody who knows how would write for
// the same rows: facts that become known late, the newest event wins, a time to live.
func join(dir string) [][]string {
	const labels, facts, users = 1_000_000, 10_000_000, 100_000
	p := compile(dir, wrap(`labels: {kind: "file", path: "labels.csv", time: {event: "asked", delay: "0s"}, columns: {asked: type: "timestamp", who: type: "int", amount: type: "float", bought: type: "bool"}}
		facts: {kind: "file", path: "facts.csv", time: {event: "happened", created: "written"}, columns: {happened: type: "timestamp", written: type: "timestamp", who: type: "int", a: type: "float", b: type: "float", c: type: "float"}}`,
		`	entities: user: key: who: "int"
	problems: y: {kind: "binary", label: {source: "labels", expr: "bought", at: "asked"}, baseline: kind: "prior", metrics: primary: "roc_auc"}
	features: {
		request: {kind: "request", source: "labels", columns: ["amount"]}
		user: {kind: "snapshot", entity: "user", source: "facts", ttl: "10d", columns: ["a", "b", "c"]}
	}
	models: y: {problem: "y", inputs: {"request.*": {}, "user.*": {}}, split: {kind: "time", test: "30d"}, trainer: kind: "prior"}`), "labels.csv", "facts.csv")
	second := func(k int) string { return "to_seconds(" + draw(k) + " % 31536000)" }
	spine, known := filepath.Join(p.give("source.validate labels", "rows"), "rows.parquet"), filepath.Join(p.give("source.validate facts", "rows"), "rows.parquet")
	generate(dir, spine, labels, "i + 1 AS _row", "0::INTEGER AS _file", fmt.Sprintf("%s %% %d AS who", draw(0), users), "TIMESTAMP '2024-01-01' + "+second(1)+" AS asked", draw(2)+" % 1000 / 10 AS amount", draw(3)+" % 3 = 0 AS bought")
	generate(dir, known, facts, "i + 1 AS _row", "0::INTEGER AS _file", fmt.Sprintf("%s %% %d AS who", draw(0), users), "TIMESTAMP '2024-01-01' + "+second(1)+" AS happened",
		"happened + to_seconds("+draw(2)+" % 172800) AS written", draw(3)+" % 10000 / 100 AS a", draw(4)+" % 10000 / 100 AS b", draw(5)+" % 10000 / 100 AS c")
	const day = 86_400_000_000
	hand := fmt.Sprintf(`COPY (WITH known AS MATERIALIZED (
  SELECT who, event, known, a, b, c FROM (SELECT who, epoch_us(happened) AS event, epoch_us(written) AS created, greatest(event, created) AS known, a, b, c, _row FROM '%s')
  WINDOW w AS (PARTITION BY who ORDER BY known, event, created, _row)
  QUALIFY lead(known) OVER w IS DISTINCT FROM known AND event = max(event) OVER (w ROWS UNBOUNDED PRECEDING)),
labels AS (SELECT _row - 1 AS _row_id, epoch_us(asked) AS _at, CAST(who AS VARCHAR) AS _group, _file, CAST(bought AS DOUBLE) AS _label, amount, who FROM '%s')
SELECT _row_id, _at, _group, _file, _label, CASE WHEN event >= _at - %d THEN a END AS a, CASE WHEN event >= _at - %d THEN b END AS b, CASE WHEN event >= _at - %d THEN c END AS c, amount
FROM labels ASOF LEFT JOIN known ON labels.who = known.who AND labels._at >= known.known ORDER BY _row_id) TO '%s' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 122880)`,
		known, spine, 10*day, 10*day, 10*day, filepath.Join(dir, "hand.parquet"))
	c := best(3, func() cost { return p.run("dataset.build y") }, func() cost { return scripted(dir, hand) })
	differ(dir, filepath.Join(p.out("dataset.build y", "rows"), "rows.parquet"))
	return [][]string{compared(fmt.Sprintf("point-in-time join of %d labels with %d facts, `dataset.build`", labels, facts), c[0], "hand-written DuckDB SQL:", c[1], 1.2)}
}

// differ ends the program where the two datasets of join are not the same rows.
func differ(dir, ours string) {
	scripted(dir, fmt.Sprintf(`SELECT CASE WHEN count(*) <> 1000000 OR bool_or(o._at <> h._at OR o._label <> h._label OR o."user.a" IS DISTINCT FROM h.a OR o."user.b" IS DISTINCT FROM h.b OR o."user.c" IS DISTINCT FROM h.c) THEN error('the hand-written join gives other rows') END FROM '%s' AS o JOIN '%s' AS h USING (_row_id)`,
		ours, filepath.Join(dir, "hand.parquet")))
}
