package local_test

import (
	"os"
	"testing"

	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/executortest"
	"mlc.dev/mlc/runtime/executor/local"
)

func TestMain(m *testing.M) { os.Exit(executortest.Main(m)) }

func TestLocal(t *testing.T) {
	executortest.Run(t, func(t *testing.T, store *artifact.Store) executor.Executor {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return &local.Executor{Command: []string{self, "stage"}, Store: store}
	})
}
