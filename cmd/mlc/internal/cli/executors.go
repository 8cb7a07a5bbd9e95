package cli

import (
	"fmt"
	"os"
	"sync"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/dagger"
	"mlc.dev/mlc/runtime/executor/local"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/secret"
)

// executors is the table of what runs steps, by the kind of the runner.
func executors(s *runtime.System) (func(env.Runner) (executor.Executor, error), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program := sync.OnceValues(func() (*portable.Program, error) {
		lib, err := ort.Find()
		if err != nil {
			return nil, err
		}
		return portable.Find(self, lib.Path)
	})
	return func(r env.Runner) (executor.Executor, error) {
		switch r.Kind {
		case env.LocalKind:
			return &local.Executor{Command: []string{self, "stage"}, Store: s.Store}, nil
		case env.DaggerKind:
			p, err := program()
			return &dagger.Executor{Runner: r, Store: s.Store, Program: p, Secret: secret.In(s.Dir)}, err
		}
		return nil, fmt.Errorf("runner kind %q has no executor", r.Kind)
	}, nil
}
