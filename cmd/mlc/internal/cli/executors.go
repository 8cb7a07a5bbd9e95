package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/dagger"
	"mlc.dev/mlc/runtime/executor/local"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
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
			return &dagger.Executor{Runner: r, Store: s.Store, Program: p, Secret: secret}, err
		}
		return nil, fmt.Errorf("runner kind %q has no executor", r.Kind)
	}, nil
}

// secret is the value that a reference names: "env:NAME" or "file:PATH".
func secret(ref string) (string, error) {
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		v, set := os.LookupEnv(name)
		if !set {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		return v, nil
	}
	if path, ok := strings.CutPrefix(ref, "file:"); ok {
		b, err := os.ReadFile(path)
		return strings.TrimRight(string(b), "\n"), err
	}
	return "", fmt.Errorf("%q is no reference: write env:NAME or file:PATH", ref)
}
