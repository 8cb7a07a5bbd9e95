package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	sdk "dagger.io/dagger"

	"mlc.dev/mlc/bench/internal/run"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/dagger"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
)

// engineRows measures the executor of a real engine, or says that there is none.
func engineRows(tmp string) [][]string {
	engine := os.Getenv("MLC_TEST_DAGGER_ENGINE")
	if engine == "" {
		return [][]string{{"Dagger executor", "SKIPPED: MLC_TEST_DAGGER_ENGINE is not set", "", "", "", ""}}
	}
	return [][]string{daggerOverhead(tmp, engine), daggerCached(tmp, engine), daggerMoves(tmp, engine)}
}

// daggerOverhead compares a step through the executor with the same container
// through the SDK alone, whose folder comes back as well.
func daggerOverhead(tmp, engine string) []string {
	ctx := context.Background()
	store, err := artifact.Open(filepath.Join(tmp, "store"))
	run.Must(err)
	step, bound := gateStep(tmp, store)
	lib, err := ort.Find()
	run.Must(err)
	program, err := portable.Find(run.MLC(), lib.Path)
	run.Must(err)
	ex := &dagger.Executor{Runner: env.Runner{Name: "bench", Kind: env.DaggerKind, Engine: engine}, Store: store, Program: program}
	defer ex.Close()
	k := 0
	dir := func() string {
		k++
		d := filepath.Join(tmp, "containers", strconv.Itoa(k))
		run.Must(os.MkdirAll(d, 0o755))
		return d
	}
	ours := func() {
		_, err := ex.Run(ctx, executor.Job{Step: &step, Dir: dir(), Inputs: bound})
		run.Must(err)
	}
	client, err := sdk.Connect(ctx, sdk.WithRunnerHost(engine))
	run.Must(err)
	defer client.Close()
	files := client.Directory()
	for _, f := range program.Files {
		files = files.WithFile(f.Name, client.Host().File(f.Path))
	}
	files, err = files.Sync(ctx)
	run.Must(err)
	in := client.Directory().WithNewFile("metrics.json", gateMetrics)
	stage, err := json.Marshal(executor.NewStage(executor.Job{Step: &step, Inputs: bound}))
	run.Must(err)
	events := filepath.Join(tmp, "events.sock")
	l, err := net.Listen("unix", events)
	run.Must(err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	bare := func() {
		c := client.Container().WithRootfs(client.Directory().WithNewDirectory("tmp").WithNewDirectory("run").WithNewDirectory("proc")).
			WithMountedDirectory("/mlc", files, sdk.ContainerWithMountedDirectoryOpts{ReadOnly: true}).
			WithMountedDirectory("/stage", client.Directory().WithNewFile("stage.json", string(stage)).WithNewDirectory("out/result").WithDirectory("in/metrics", in).WithDirectory("in/baseline", in)).
			WithUnixSocket("/run/events.sock", client.Host().UnixSocket(events)).
			WithEnvVariable("HOME", "/tmp").WithEnvVariable("TURN", strconv.Itoa(k))
		for name, value := range program.Env("/mlc") {
			c = c.WithEnvVariable(name, value)
		}
		c = c.WithExec(append(program.Command("/mlc"), "stage", "--events", "/run/events.sock", "/stage"))
		_, err := c.Directory("/stage").Export(ctx, dir())
		run.Must(err)
	}
	a, b := run.Interleaved(15, ours, bare)
	ratio := float64(a) / float64(b)
	return []string{"what a step adds, Dagger executor", a.Round(time.Millisecond).String(), "the same container through the bare SDK " + b.Round(time.Millisecond).String(), fmt.Sprintf("%.2f", ratio), "≤ 1.3", verdict(ratio <= 1.3)}
}

// daggerCached times an apply that has nothing to do, where its engine is gone: no
// container can start.
func daggerCached(tmp, engine string) []string {
	dir := filepath.Join(tmp, "flights-dagger")
	run.Must(os.CopyFS(dir, os.DirFS(filepath.Join(run.Root(), "examples", "flights"))))
	run.Must(os.RemoveAll(filepath.Join(dir, ".mlc")))
	apply := func(address string) {
		_, err := run.Output(dir, run.MLC(), "--env", "dagger", "--var", "engine="+address, "apply")
		run.Must(err)
	}
	apply(engine)
	t := run.Median(9, func() { apply("unix:///gone") })
	return []string{"fully cached `apply` of examples/flights on Dagger, its engine stopped", t.Round(time.Millisecond).String(), "1 s", fmt.Sprintf("%.3f", t.Seconds()), "< 1 s, no container", verdict(t < time.Second)}
}

// tableBytes is the size of the table that moves between steps.
const tableBytes = 1 << 30

// daggerMoves counts what goes between this machine and the engine while a step
// makes a table and the next one reads it. The steps are played by this program:
// see stage.
func daggerMoves(tmp, engine string) []string {
	ctx := context.Background()
	store, err := artifact.Open(filepath.Join(tmp, "store-moves"))
	run.Must(err)
	self, err := os.Executable()
	run.Must(err)
	program, err := portable.Find(self, "")
	run.Must(err)
	address, sent, received := counted(tmp, engine)
	ex := &dagger.Executor{Runner: env.Runner{Name: "bench", Kind: env.DaggerKind, Engine: address}, Store: store, Program: program}
	defer ex.Close()
	at := func(name string) string {
		d := filepath.Join(tmp, "moves", name)
		run.Must(os.MkdirAll(d, 0o755))
		return d
	}
	made, err := ex.Run(ctx, executor.Job{Dir: at("make"), Step: &plan.Step{ID: "make", Op: "make", Args: json.RawMessage("{}"), Outputs: []string{"table"}, Needs: plan.Needs{CPU: 1}}})
	run.Must(err)
	back, before := received.Load(), sent.Load()
	start := time.Now()
	_, err = ex.Run(ctx, executor.Job{Dir: at("read"), Inputs: []executor.Bound{{Tree: made.Outputs["table"]}},
		Step: &plan.Step{ID: "read", Op: "read", Args: json.RawMessage("{}"), Inputs: []plan.Input{{Name: "table"}}, Outputs: []string{"sum"}, Needs: plan.Needs{CPU: 1}}})
	run.Must(err)
	took := time.Since(start)
	times := float64(back+sent.Load()-before) / tableBytes
	return []string{"a table of 1 GiB from step to step on one engine (the second step took " + took.Round(100*time.Millisecond).String() + ")", fmt.Sprintf("%.2f GiB through the client", times), "its size", fmt.Sprintf("%.2f", times), "< 2", verdict(times < 2)}
}

// counted is an address that leads to an engine and counts the bytes to and from it.
func counted(tmp, engine string) (address string, sent, received *atomic.Int64) {
	sent, received = new(atomic.Int64), new(atomic.Int64)
	scheme, rest, _ := strings.Cut(engine, "://")
	path := filepath.Join(tmp, "engine.sock")
	l, err := net.Listen("unix", path)
	run.Must(err)
	copyAll := func(to, from net.Conn, n *atomic.Int64) {
		defer to.Close()
		buf := make([]byte, 256<<10)
		for {
			k, err := from.Read(buf)
			n.Add(int64(k))
			if _, werr := to.Write(buf[:k]); err != nil || werr != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial(scheme, rest)
			run.Must(err)
			go copyAll(d, c, sent)
			go copyAll(c, d, received)
		}
	}()
	return "unix://" + path, sent, received
}

// stage plays the steps of daggerMoves in a container.
func stage(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "stage.json"))
	if err != nil {
		return err
	}
	var s executor.Stage
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	switch s.Op {
	case "make":
		f, err := os.Create(filepath.Join(dir, "out", "table", "rows"))
		if err != nil {
			return err
		}
		w, r := bufio.NewWriterSize(f, 1<<20), rand.NewChaCha8([32]byte{})
		if _, err := io.CopyN(w, r, tableBytes); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	case "read":
		f, err := os.Open(filepath.Join(dir, executor.Folder("table"), "rows"))
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(io.Discard, f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "out", "sum", "bytes"), []byte(strconv.FormatInt(n, 10)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "report.json"), []byte("{}"), 0o644)
}
