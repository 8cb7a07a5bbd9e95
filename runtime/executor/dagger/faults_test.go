package dagger_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
)

func copyJob(t *testing.T, store *artifact.Store) executor.Job {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "a"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := store.Put(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return executor.Job{Dir: t.TempDir(), Inputs: []executor.Bound{{Tree: tree}},
		Step: &plan.Step{ID: "copy x", Op: "copy", Args: json.RawMessage(`{}`), Outputs: []string{"copy"}, Needs: plan.Needs{CPU: 1}, Inputs: []plan.Input{{Name: "tree"}}}}
}

func newStore(t *testing.T) *artifact.Store {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// unavailable runs a step and returns the engine's failure.
func unavailable(t *testing.T, ex executor.Executor, job executor.Job) executor.Unavailable {
	t.Helper()
	_, err := ex.Run(t.Context(), job)
	var u executor.Unavailable
	if !errors.As(err, &u) {
		t.Fatalf("not an engine's failure: %v", err)
	}
	return u
}

func TestNoEngine(t *testing.T) {
	store := newStore(t)
	for _, address := range []string{"unix://" + filepath.Join(t.TempDir(), "no.sock"), "tcp://127.0.0.1:1"} {
		u := unavailable(t, open(t, env.Runner{Name: "d", Engine: address}, store), copyJob(t, store))
		if u.Code != diag.NoEngine || !strings.Contains(u.What, address) || u.Mend == "" {
			t.Errorf("%s: %+v", address, u)
		}
	}
}

// Something answers at the address and is no engine.
func TestWrongAddress(t *testing.T) {
	if os.Getenv("_EXPERIMENTAL_DAGGER_CLI_BIN") == "" {
		t.Skip("SKIPPED: no dagger command: _EXPERIMENTAL_DAGGER_CLI_BIN is not set")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 not what you want\r\n"))
			c.Close()
		}
	}()
	store := newStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = open(t, env.Runner{Name: "d", Engine: "tcp://" + l.Addr().String()}, store).Run(ctx, copyJob(t, store))
	var u executor.Unavailable
	if !errors.As(err, &u) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// The session's command holds the engine's version against the least that it takes,
// which here is one that no engine has.
func TestEngineOfIncompatibleVersion(t *testing.T) {
	store := newStore(t)
	ex := open(t, env.Runner{Name: "d", Engine: engine(t)}, store)
	t.Setenv("_EXPERIMENTAL_DAGGER_MIN_VERSION", "v99.0.0")
	u := unavailable(t, ex, copyJob(t, store))
	if u.Code != diag.EngineVersion || !u.Lasting || !strings.Contains(u.What, "v0.") {
		t.Errorf("%+v", u)
	}
}

func TestProbe(t *testing.T) {
	version, err := open(t, env.Runner{Name: "d", Engine: engine(t)}, newStore(t)).Probe(t.Context())
	if err != nil || !strings.HasPrefix(version, "v0.") {
		t.Errorf("%q %v", version, err)
	}
}

func TestSecretNotSet(t *testing.T) {
	store := newStore(t)
	job := copyJob(t, store)
	job.Step.Container = &plan.Container{Secrets: map[string]string{"TOKEN": "env:NOT_SET"}}
	_, err := open(t, env.Runner{Name: "d", Engine: engine(t)}, store).Run(t.Context(), job)
	var f executor.Faults
	if !errors.As(err, &f) || f[0].Code != diag.NoSecret || f[0].Arg != "secrets.TOKEN" {
		t.Errorf("%v", err)
	}
}

func TestSecretIsHidden(t *testing.T) {
	store := newStore(t)
	ex := open(t, env.Runner{Name: "d", Engine: engine(t)}, store)
	ex.Secret = func(string) (string, error) { return "s3cr3t-value", nil }
	job := copyJob(t, store)
	job.Step.Op = "tell"
	job.Step.Container = &plan.Container{Secrets: map[string]string{"TOKEN": "env:X"}}
	var mu sync.Mutex
	var told []string
	job.OnEvent = func(e executor.Event) { mu.Lock(); told = append(told, e.Log); mu.Unlock() }
	_, err := ex.Run(t.Context(), job)
	if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "***") {
		t.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 1 || told[0] != "the token is ***" {
		t.Errorf("%q", told)
	}
}

func TestImageDoesNotExist(t *testing.T) {
	store := newStore(t)
	job := copyJob(t, store)
	job.Step.Container, job.Image = &plan.Container{Image: "127.0.0.1:1/none:1"}, "127.0.0.1:1/none:1"
	_, err := open(t, env.Runner{Name: "d", Engine: engine(t)}, store).Run(t.Context(), job)
	var f executor.Faults
	if !errors.As(err, &f) || f[0].Code != diag.NoImage || f[0].Arg != "args.image" {
		t.Errorf("%v", err)
	}
}

func TestNoGPUSupport(t *testing.T) {
	store := newStore(t)
	job := copyJob(t, store)
	job.Step.Needs.GPUs = 1
	u := unavailable(t, open(t, env.Runner{Name: "d", Engine: engine(t), GPUs: 1}, store), job)
	if u.Code != diag.NoGPU || !u.Lasting {
		t.Errorf("%+v", u)
	}
}

func TestEngineDiskIsFull(t *testing.T) {
	store := newStore(t)
	job := copyJob(t, store)
	job.Step.Op = "full"
	u := unavailable(t, open(t, env.Runner{Name: "d", Engine: engine(t)}, store), job)
	if !u.Lasting || !strings.Contains(u.What, "full") {
		t.Errorf("%+v", u)
	}
}

// What one step leaves on the engine is there for the next: the client's copy can
// be gone.
func TestTreesStayOnTheEngine(t *testing.T) {
	store := newStore(t)
	ex := open(t, env.Runner{Name: "d", Engine: engine(t)}, store)
	res, err := ex.Run(t.Context(), copyJob(t, store))
	if err != nil {
		t.Fatal(err)
	}
	path, err := store.Path(t.Context(), res.Outputs["copy"], "all")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	job := copyJob(t, store)
	job.Inputs[0].Tree = res.Outputs["copy"]
	again, err := ex.Run(t.Context(), job)
	if err != nil || again.Outputs["copy"] != res.Outputs["copy"] {
		t.Errorf("%v %v", again.Outputs, err)
	}
}
