// Command bench measures mlc against its floors, side by side in one run, and
// prints one table. Medians; the machine is noisy, so ratios count.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mlc.dev/mlc/bench/internal/run"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/local"
)

func main() {
	if n := len(os.Args); n > 2 && os.Args[1] == "stage" {
		run.Must(stage(os.Args[n-1]))
		return
	} else if n == 4 && os.Args[1] == "bare" {
		run.Must(bare(os.Args[2], os.Args[3]))
		return
	} else if n > 2 && os.Args[1] == "tabular-child" {
		run.Must(tabularChild(os.Args[2:]))
		return
	}
	dir, remove := run.TempDir("mlc-bench-")
	defer remove()
	rows := [][]string{{"what", "ours", "peer or limit", "ratio", "goal", ""}}
	if len(os.Args) > 1 && os.Args[1] == "serving" { // these alone, or some of them
		run.Table(append(rows, servingRows(dir, os.Args[2:]...)...))
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "tabular" { // these, or some of them
		run.Table(append(rows, tabularRows(dir, os.Args[2:]...)...))
		return
	}
	rows = append(rows, features(dir, 1000), noop(dir), overhead(dir))
	rows = append(rows, engineRows(dir)...)
	rows = append(rows, memory(dir, 5_000_000))
	rows = append(rows, tabularRows(dir)...)
	rows = append(rows, servingRows(dir)...)
	fmt.Printf("bench at %s\n\n", run.Commit())
	run.Table(rows)
}

func verdict(ok bool) string {
	if ok {
		return "reached"
	}
	return "MISSED"
}

// features compares vet and plan with `cue vet` of the same files.
func features(tmp string, n int) []string {
	dir := filepath.Join(tmp, "features")
	run.Must(os.MkdirAll(dir, 0o755))
	var b strings.Builder
	b.WriteString("package many\n\nimport \"mlc.dev/schema\"\n\nsystem: schema.#System & {\n\tname: \"many\"\n\tproblems: y: {kind: \"binary\", label: {source: \"rows\", expr: \"y > 0\"}, baseline: kind: \"prior\", metrics: primary: \"roc_auc\"}\n\tsources: rows: {kind: \"file\", path: \"rows.csv\", columns: {\n\t\ty: type: \"float\"\n")
	for i := range n {
		fmt.Fprintf(&b, "\t\tx%d: {type: \"float\", min: 0}\n", i)
	}
	b.WriteString("\t}}\n\tfeatures: {\n\t\tr: {kind: \"request\", source: \"rows\", columns: [")
	for i := range n {
		fmt.Fprintf(&b, "\"x%d\", ", i)
	}
	b.WriteString("]}\n\t\td: {kind: \"derived\", exprs: {\n")
	for i := range n {
		fmt.Fprintf(&b, "\t\t\tf%d: \"r.x%d / nullif(r.x%d, 0) + 1\"\n", i, i, (i+1)%n)
	}
	b.WriteString("\t\t}}\n\t}\n\tmodels: y: {problem: \"y\", inputs: {\n")
	for i := range n {
		fmt.Fprintf(&b, "\t\t\"d.f%d\": encode: [{kind: \"quantile_bins\", bins: %d}]\n", i, 2+i%100)
	}
	b.WriteString("\t}, trainer: kind: \"gbdt\"}\n}\n")
	run.Must(os.WriteFile(filepath.Join(dir, "many.cue"), []byte(b.String()), 0o644))
	run.Must(os.WriteFile(filepath.Join(dir, "rows.csv"), []byte("y\n"), 0o644))
	cue := filepath.Join(tmp, "cue")
	_, err := run.Output(tmp, "env", "GOBIN="+tmp, "go", "install", "cuelang.org/go/cmd/cue@v0.17.1")
	run.Must(err)
	_, err = run.Output(dir, run.MLC(), "init") // makes cue work here
	run.Must(err)
	call := func(name string, args ...string) func() {
		return func() {
			_, err := run.Output(dir, name, args...)
			run.Must(err)
		}
	}
	both := func() { call(run.MLC(), "vet")(); call(run.MLC(), "plan")() }
	ours, theirs := run.Interleaved(7, both, call(cue, "vet", "-c", "."))
	plan := run.Median(7, call(run.MLC(), "plan"))
	ratio := float64(plan) / float64(theirs)
	return []string{fmt.Sprintf("`plan` (which vets) of %d features; `vet` and `plan` one after the other take %s", n, ours.Round(time.Millisecond)), plan.Round(time.Millisecond).String(), "`cue vet` " + theirs.Round(time.Millisecond).String(), fmt.Sprintf("%.2f", ratio), "≤ 2.0", verdict(ratio <= 2)}
}

// noop times an apply that has nothing to do.
func noop(tmp string) []string {
	dir := filepath.Join(tmp, "flights")
	run.Must(os.CopyFS(dir, os.DirFS(filepath.Join(run.Root(), "examples", "flights"))))
	run.Must(os.RemoveAll(filepath.Join(dir, ".mlc")))
	apply := func() {
		_, err := run.Output(dir, run.MLC(), "apply")
		run.Must(err)
	}
	apply()
	t := run.Median(9, apply)
	return []string{"no-op `apply` of examples/flights", t.Round(time.Millisecond).String(), "1 s", fmt.Sprintf("%.3f", t.Seconds()), "< 1 s", verdict(t < time.Second)}
}

const gateMetrics = `{"rows":{"test":1},"metrics":{"test":{"roc_auc":0.9}}}`

// gateStep is a step with next to nothing to do, and inputs as a gate has them.
func gateStep(tmp string, store *artifact.Store) (plan.Step, []executor.Bound) {
	in := filepath.Join(tmp, "scores")
	run.Must(os.MkdirAll(in, 0o755))
	run.Must(os.WriteFile(filepath.Join(in, "metrics.json"), []byte(gateMetrics), 0o644))
	tree, err := store.Put(context.Background(), in)
	run.Must(err)
	step := plan.Step{ID: "model.challenge x", Op: "model.challenge", Args: json.RawMessage(`{"gates":[]}`), // nobody to beat
		Inputs: []plan.Input{{Name: "metrics"}, {Name: "baseline"}}, Outputs: []string{"result"}, Needs: plan.Needs{CPU: 1, Memory: 1 << 28}}
	return step, []executor.Bound{{Tree: tree}, {Tree: tree}}
}

// overhead compares a step through the executor with its bare process.
func overhead(tmp string) []string {
	store, err := artifact.Open(filepath.Join(tmp, "store"))
	run.Must(err)
	step, bound := gateStep(tmp, store)
	ex := &local.Executor{Command: []string{run.MLC(), "stage"}, Store: store}
	k := 0
	whole := func() {
		k++
		dir := filepath.Join(tmp, "stages", strconv.Itoa(k))
		run.Must(os.MkdirAll(dir, 0o755))
		_, err := ex.Run(context.Background(), executor.Job{Step: &step, Dir: dir, Inputs: bound})
		run.Must(err)
	}
	bare := func() {
		cmd := exec.Command(run.MLC(), "stage", filepath.Join(tmp, "stages", strconv.Itoa(k)))
		lifeline, err := cmd.StdinPipe()
		run.Must(err)
		run.Must(cmd.Run())
		lifeline.Close()
	}
	a, b := run.Interleaved(31, whole, bare)
	d := a - b
	return []string{"what a step adds, local executor", a.Round(100 * time.Microsecond).String(), "bare process " + b.Round(100*time.Microsecond).String(), fmt.Sprintf("+%s", d.Round(100*time.Microsecond)), "≤ 25 ms", verdict(d <= 25*time.Millisecond)}
}

// memory watches all processes of an apply over a wide CSV.
func memory(tmp string, rows int) []string {
	dir := filepath.Join(tmp, "wide")
	run.Must(os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, "rows.csv"))
	run.Must(err)
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	var cols, names []string
	for c := range 16 {
		cols, names = append(cols, fmt.Sprintf("x%d: type: \"float\"", c)), append(names, fmt.Sprintf("x%d", c))
	}
	for c := range 3 {
		cols, names = append(cols, fmt.Sprintf("c%d: type: \"string\"", c)), append(names, fmt.Sprintf("c%d", c))
	}
	fmt.Fprintln(w, strings.Join(names, ",")+",y")
	line := []byte{}
	for range rows {
		line = line[:0]
		s := 0.0
		for range 16 {
			v := r.NormFloat64()
			s += v
			line = append(strconv.AppendFloat(line, v, 'f', 4, 64), ',')
		}
		for range 3 {
			line = append(append(line, 'k'), strconv.Itoa(r.IntN(50))...)
			line = append(line, ',')
		}
		line = append(strconv.AppendBool(line, s+r.NormFloat64() > 0), '\n')
		_, err := w.Write(line)
		run.Must(err)
	}
	run.Must(w.Flush())
	run.Must(f.Close())
	spec := "package wide\n\nimport \"mlc.dev/schema\"\n\nsystem: schema.#System & {\n\tname: \"wide\"\n\tproblems: y: {kind: \"binary\", label: {source: \"rows\", expr: \"y\"}, baseline: kind: \"prior\", metrics: primary: \"roc_auc\"}\n\tsources: rows: {kind: \"file\", path: \"rows.csv\", columns: {y: type: \"bool\", " + strings.Join(cols, ", ") + "}}\n\tfeatures: r: {kind: \"request\", source: \"rows\", columns: [\"" + strings.Join(names, "\", \"") + "\"]}\n\tmodels: y: {problem: \"y\", inputs: \"r.*\": {}, trainer: {kind: \"gbdt\", rounds: 20, resources: {cpu: 2, memory: \"2Gi\"}}}\n}\n"
	run.Must(os.WriteFile(filepath.Join(dir, "wide.cue"), []byte(spec), 0o644))
	cmd := exec.Command(run.MLC(), "apply")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	start := time.Now()
	run.Must(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	peak := int64(0)
	for {
		select {
		case err := <-done:
			run.Must(err)
			gib := float64(peak) / (1 << 30)
			return []string{fmt.Sprintf("peak memory of `apply`, %d rows × 20 columns of CSV (%s)", rows, time.Since(start).Round(time.Second)), fmt.Sprintf("%.2f GiB", gib), "3 GiB", fmt.Sprintf("%.2f", gib/3), "< 3 GiB", verdict(gib < 3)}
		case <-time.After(20 * time.Millisecond):
			peak = max(peak, run.Resident(cmd.Process.Pid))
		}
	}
}
