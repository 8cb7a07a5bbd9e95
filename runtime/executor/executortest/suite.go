// Package executortest is what every executor has to pass. Its stages are played
// by the test binary itself: see Main.
package executortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
)

// Main is what the TestMain of an executor's test calls: it plays a stage where
// the executor's command is the test itself, followed by "stage".
func Main(m *testing.M) int {
	if len(os.Args) > 2 && os.Args[1] == "stage" {
		events := ""
		if os.Args[2] == "--events" {
			events = os.Args[3]
		}
		return stage(os.Args[len(os.Args)-1], events)
	}
	return m.Run()
}

// stage plays the stage in dir by its operation, with the line at events, and
// returns its exit status.
func stage(dir, events string) int {
	line, err := executor.OpenLine(events)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := os.ReadFile(filepath.Join(dir, "stage.json"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var s executor.Stage
	if err := json.Unmarshal(b, &s); err != nil || s.Format != executor.StageFormat {
		fmt.Fprintln(os.Stderr, "stage.json:", err)
		return 1
	}
	switch s.Op {
	case "copy": // every input's files to the one output
		var all []byte
		for _, in := range s.Inputs {
			err := filepath.WalkDir(filepath.Join(dir, executor.Folder(in.Name)), func(p string, e os.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				b, err := os.ReadFile(p)
				all = append(all, b...)
				return err
			})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		if events == "" {
			fmt.Println("not an event")
		}
		line.Send(executor.Event{Done: 1, Total: 2, Unit: "rows"})
		if os.WriteFile(filepath.Join(dir, "out", "copy", "all"), all, 0o644) != nil || os.WriteFile(filepath.Join(dir, "report.json"), []byte(`{"rows":2}`), 0o644) != nil {
			return 1
		}
		return 0
	case "fault":
		b, _ := json.Marshal(executor.Faults{{Arg: "columns[1]", Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.NoRows, What: "no rows"}}})
		_ = os.WriteFile(filepath.Join(dir, "faults.json"), b, 0o644)
		return 1
	case "crash":
		fmt.Fprintln(os.Stderr, "first line\nthe last words")
		return 3
	case "tell": // a secret, in every way there is
		line.Send(executor.Event{Log: "the token is " + os.Getenv("TOKEN")})
		fmt.Fprintln(os.Stderr, "failed with", os.Getenv("TOKEN"))
		return 1
	case "full":
		fmt.Fprintln(os.Stderr, "write x:", syscall.ENOSPC)
		return 1
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "hang":
		line.Send(executor.Event{Note: "hanging"})
		<-line.Gone
		return 1
	}
	return 1
}

// Run tests an executor that works over a store.
func Run(t *testing.T, open func(t *testing.T, store *artifact.Store) executor.Executor) {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ex := open(t, store)
	src := t.TempDir()
	for name, text := range map[string]string{"a": "one ", "sub/b": "two "} {
		p := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := store.Put(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user's file")
	if err := os.WriteFile(file, []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	job := func(t *testing.T, op string) executor.Job {
		return executor.Job{Dir: t.TempDir(), Inputs: []executor.Bound{{Tree: tree}, {Files: []string{file}}},
			Step: &plan.Step{ID: op + " x", Op: op, Args: json.RawMessage(`{"k":1}`), Outputs: []string{"copy"}, Needs: plan.Needs{CPU: 1, Memory: 1 << 28},
				Inputs: []plan.Input{{Name: "source:tree"}, {Name: "files", Step: -1, Files: []string{"file"}}}}}
	}
	t.Run("inputs reach the stage, outputs the store", func(t *testing.T) {
		j := job(t, "copy")
		var mu sync.Mutex
		var events []executor.Event
		j.OnEvent = func(e executor.Event) { mu.Lock(); events = append(events, e); mu.Unlock() }
		res, err := ex.Run(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		p, err := store.Path(t.Context(), res.Outputs["copy"], "all")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(p); err != nil || string(b) != "one two three" {
			t.Errorf("%q %v", b, err)
		}
		if string(res.Report) != `{"rows":2}` {
			t.Errorf("report %s", res.Report)
		}
		if len(events) != 1 || events[0].Done != 1 || events[0].Total != 2 {
			t.Errorf("events %v", events)
		}
		again, err := ex.Run(t.Context(), job(t, "copy"))
		if err != nil || again.Outputs["copy"] != res.Outputs["copy"] {
			t.Errorf("the same content has another digest: %v %v", again.Outputs, err)
		}
	})
	t.Run("the user's faults come back as faults", func(t *testing.T) {
		_, err := ex.Run(t.Context(), job(t, "fault"))
		var f executor.Faults
		if !errors.As(err, &f) || len(f) != 1 || f[0].Arg != "columns[1]" || f[0].Code != diag.NoRows {
			t.Errorf("%v", err)
		}
	})
	t.Run("a crash tells its last words", func(t *testing.T) {
		_, err := ex.Run(t.Context(), job(t, "crash"))
		if err == nil || !strings.Contains(err.Error(), "the last words") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a killed stage says so", func(t *testing.T) {
		_, err := ex.Run(t.Context(), job(t, "killed"))
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%v", err)
		}
	})
	t.Run("cancelling stops it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		j := job(t, "hang")
		j.OnEvent = func(executor.Event) { cancel() }
		if _, err := ex.Run(ctx, j); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
