package dagger_test

import (
	"os"
	"testing"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/dagger"
	"mlc.dev/mlc/runtime/executor/executortest"
	"mlc.dev/mlc/runtime/portable"
)

func TestMain(m *testing.M) { os.Exit(executortest.Main(m)) }

// engine is the address of a real engine to test with.
func engine(t *testing.T) string {
	e := os.Getenv("MLC_TEST_DAGGER_ENGINE")
	if e == "" {
		t.Skip("SKIPPED: no Dagger engine: MLC_TEST_DAGGER_ENGINE is not set")
	}
	return e
}

func open(t *testing.T, r env.Runner, store *artifact.Store) *dagger.Executor {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := portable.Find(self, "")
	if err != nil {
		t.Fatal(err)
	}
	ex := &dagger.Executor{Runner: r, Store: store, Program: program, Secret: func(string) (string, error) { return "", os.ErrNotExist }}
	t.Cleanup(func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
	return ex
}

func TestDagger(t *testing.T) {
	r := env.Runner{Name: "d", Kind: env.DaggerKind, Engine: engine(t), CPUs: 2, Memory: 1 << 31}
	executortest.Run(t, func(t *testing.T, store *artifact.Store) executor.Executor { return open(t, r, store) })
}
