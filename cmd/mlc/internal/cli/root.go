// Package cli is the commands, a file each: flags, then compiler or runtime,
// then view.
package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlc.dev/mlc/cmd/internal/interrupt"
	"mlc.dev/mlc/cmd/mlc/internal/view"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib"
)

// app is what commands share.
type app struct {
	view *view.View
	json bool
	dir  string
	env  string
	vars []string
}

// exit is an error that only sets the exit status: all has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs the command line and returns the exit status: 0, or 1 for an error,
// or 2 with --detailed-exitcode for changes. 130 after an interrupt, 143 after SIGTERM.
func Main(args []string) int {
	ctx, stop := interrupt.Context()
	defer stop()
	a := &app{}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && (a.view == nil || strings.HasPrefix(err.Error(), "required flag")) { // cobra's own
		err = &misused{err}
	}
	if a.view == nil { // no command has run
		a.view = view.New(a.json || jsonAsked(args))
	}
	a.view.Live("")
	var status exit
	switch lost := a.view.Lost(); {
	case lost != nil && (err == nil || errors.As(err, &status)): // else the command has failed for what is told below
		a.view.Notef("mlc: the output is not whole: %v\n", lost)
		return 1
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case ctx.Err() != nil:
		a.view.Notef("interrupted\n")
		return interrupt.Status(ctx)
	}
	var list diag.ListError
	var one diag.Diagnostic
	var bad *misused
	switch {
	case errors.As(err, &list), errors.As(err, &one):
		a.view.Diagnostics(diag.From(err, diag.Range{}))
	case !a.view.JSON:
		a.view.Notef("mlc: %v\n", err)
	case errors.As(err, &bad):
		a.view.Diagnostics(diag.List{{Severity: diag.Error, Code: diag.BadArgs, What: err.Error(), Mend: "see `mlc help`"}})
	default:
		a.view.Diagnostics(diag.From(err, diag.Range{}))
	}
	return 1
}

// misused is an error of the command line, which the spec has no part in.
type misused struct{ error }

func (m *misused) Unwrap() error { return m.error }

func misuse(format string, args ...any) error { return &misused{fmt.Errorf(format, args...)} }

// jsonAsked reports whether --json is among arguments that could not be read.
func jsonAsked(args []string) bool {
	for _, s := range args {
		switch s {
		case "--json", "--json=true":
			return true
		case "--":
			return false
		}
	}
	return false
}

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:           "mlc",
		Short:         "The compiler for whole machine-learning systems",
		Long:          "mlc compiles one typed CUE spec to an evaluated, registered ONNX model.\nBegin with `mlc init`, then `mlc vet`, `mlc plan` and `mlc apply`.",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.view = view.New(a.json)
			return nil
		},
	}
	c.SetFlagErrorFunc(plainFlag)
	f := c.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "write a versioned stream of JSON objects, one a line")
	f.StringVarP(&a.dir, "dir", "C", ".", "the spec's `folder`")
	f.StringVarP(&a.env, "env", "e", "local", "the environment's `name`: NAME.mlc.hcl")
	f.StringArrayVar(&a.vars, "var", nil, "set a variable of the environment, as `name=value`")
	c.AddCommand(a.initCmd(), a.fmtCmd(), a.vetCmd(), a.renderCmd(), a.planCmd(), a.applyCmd(), a.statusCmd(), a.showCmd(), a.diffCmd(), a.blameCmd(), a.explainCmd(),
		a.predictCmd(), a.serveCmd(), a.runCmd(), a.scheduleCmd(), a.generateCmd(), a.buildCmd(), a.ciCmd(), a.promoteCmd(), a.rollbackCmd(), a.gcCmd(), a.graphCmd(), a.doctorCmd(), a.versionCmd(), a.stageCmd())
	return c
}

// count says how many there are of something.
func count[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// plainFlag says of a flag's value that is none what belongs there.
func plainFlag(_ *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	var num *strconv.NumError
	if !errors.As(err, &bad) || !errors.As(err, &num) {
		return err
	}
	want := "a whole number"
	switch bad.GetFlag().Value.Type() {
	case "bool":
		want = "true or false"
	case "float32", "float64":
		want = "a number"
	}
	return misuse("--%s %s: write %s", bad.GetFlag().Name, bad.GetValue(), want)
}

// variables parses --var.
func (a *app) variables() (map[string]string, error) {
	out := map[string]string{}
	for _, v := range a.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, misuse("--var %s: write it as name=value", v)
		}
		out[name] = value
	}
	return out, nil
}

// environment reads the environment's file, without the spec.
func (a *app) environment() (*env.Environment, error) {
	vars, err := a.variables()
	if err != nil {
		return nil, err
	}
	e, list := env.Load(a.dir, a.env, vars)
	if e != nil {
		a.view.Source = func(f string) []byte { return e.Files[f] }
	}
	return e, list.Err()
}

// compile compiles the spec and prints what is wrong with it. The error is set
// where anything is.
func (a *app) compile(ctx context.Context) (*compiler.Result, error) { return a.compileFor(ctx, false) }

// compileFor is compile, for commands that train or for those that use what is trained.
func (a *app) compileFor(ctx context.Context, trained bool) (*compiler.Result, error) {
	debug.SetGCPercent(400) // evaluation allocates in one burst, and little is left of it
	vars, err := a.variables()
	if err != nil {
		return nil, err
	}
	r, list := compiler.Compile(ctx, compiler.Options{Dir: a.dir, Env: a.env, Vars: vars, Trained: trained}, stdlib.Kinds())
	a.view.Source = r.Source
	if a.dir != "." {
		a.view.Prefix = filepath.ToSlash(filepath.Clean(a.dir)) + "/"
	}
	a.view.Diagnostics(list)
	if list.HasErrors() {
		return r, exit(1)
	}
	return r, nil
}

// told shows what is tried again.
func (a *app) told(what string) { a.view.Notef("retry: %s\n", what) }

// place finds the best range for a path of the spec: its own value, or the name
// of what declares it.
func place(r *compiler.Result) func(string) diag.Range {
	return func(path string) diag.Range {
		at := r.At(path)
		if at.Known() && at.End-at.Start > 200 { // a whole block: its name says more
			return r.Label(path)
		}
		return at
	}
}

// open compiles and opens the environment's state.
func (a *app) open(ctx context.Context, readOnly bool) (*compiler.Result, *runtime.System, error) {
	r, err := a.compile(ctx)
	if err != nil {
		return r, nil, err
	}
	s, err := a.state(ctx, r, readOnly)
	return r, s, err
}

// openTrained is open for commands that train nothing, and change nothing.
func (a *app) openTrained(ctx context.Context) (*compiler.Result, *runtime.System, error) {
	r, err := a.compileFor(ctx, true)
	if err != nil {
		return r, nil, err
	}
	s, err := a.state(ctx, r, true)
	return r, s, err
}

// state opens the environment's state, for a compiled spec.
func (a *app) state(ctx context.Context, r *compiler.Result, readOnly bool) (*runtime.System, error) {
	s, err := runtime.Open(ctx, r.Spec.Dir, r.Env, readOnly, a.told)
	if err != nil {
		return nil, err
	}
	s.Resolve = oci.Resolve
	return s, computes(s)
}

// computes names what computes steps here: without a library the one that would be got,
// and apply says so.
func computes(s *runtime.System) error {
	lib, err := ort.Find()
	if err != nil {
		s.Engines = "onnxruntime " + plan.Digest(ort.Pinned()).Short()
		return nil
	}
	d, err := s.FileDigest(lib.Path)
	s.Engines = "onnxruntime " + d.Short()
	return err
}
