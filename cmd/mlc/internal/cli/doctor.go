package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/executor/dagger"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/state"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib"
)

// finding is one line of doctor.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Mend string `json:"mend,omitempty"`
}

func (a *app) doctorCmd() *cobra.Command {
	var fix bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what of this machine mlc found, and what is missing",
		Long:  "Says what of this machine mlc found and what is missing, and whether the engines of\nthe environment's runners answer, and its state and artifacts where they are elsewhere.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if fix {
				lib, err := ort.Find()
				if err != nil {
					if lib, err = ort.Install(c.Context(), func(s string) { a.view.Notef("%s\n", s) }); err != nil {
						return err
					}
				}
				a.view.Notef("ONNX Runtime is at %s\n", lib.Path)
			}
			e, err := a.environment()
			if err != nil {
				return err
			}
			bad := false
			for _, f := range slices.Concat(diagnose(c.Context()), runners(c.Context(), e), a.places(c.Context(), e)) {
				bad = bad || !f.OK
				if a.json {
					a.view.Emit("finding", f)
					continue
				}
				mark := a.view.Green("ok     ")
				if !f.OK {
					mark = a.view.Red("missing")
				}
				a.view.Printf("%s  %s: %s\n", mark, f.What, f.Text)
				if f.Mend != "" {
					a.view.Printf("         mend: %s\n", f.Mend)
				}
			}
			if bad {
				return exit(1)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "get what is missing, with pip or npm, pinned by digest")
	return c
}

func diagnose(ctx context.Context) []finding {
	out := []finding{{What: "mlc", OK: true, Text: fmt.Sprintf("%s, schema %s, %s/%s", about.Version(), schema.Assemble(stdlib.Kinds().Schemas()).Version(), goruntime.GOOS, goruntime.GOARCH)}}
	f := finding{What: "ONNX Runtime"}
	if lib, err := ort.Find(); err != nil {
		f.Text, f.Mend = err.Error(), "mlc doctor --fix"
	} else if v, err := ort.LibraryVersion(); err != nil {
		f.Text, f.Mend = err.Error(), "mlc doctor --fix"
	} else {
		f.OK, f.Text = true, fmt.Sprintf("%s at %s (%s)", v, lib.Path, lib.From)
	}
	out = append(out, f)
	f = finding{What: "DuckDB"}
	tmp, err := os.MkdirTemp("", "mlc-doctor-")
	if err == nil {
		defer os.RemoveAll(tmp)
		db, derr := sql.Open(ctx, filepath.Join(tmp, "spill"), 0, 0)
		if err = derr; err == nil {
			var v string
			if err = db.Row(ctx, "SELECT version()", &v); err == nil {
				f.OK, f.Text = true, v+", embedded"
			}
			db.Close()
		}
	}
	if err != nil {
		f.Text = err.Error()
	}
	out = append(out, f)
	return out
}

// runners says which of an environment's runners can be reached.
func runners(ctx context.Context, e *env.Environment) []finding {
	var out []finding
	for _, r := range e.Runners {
		f := finding{What: r.Kind + " runner", OK: true, Text: fmt.Sprintf("%d cpus, %s of memory", r.CPUs, types.FormatSize(r.Memory))}
		if r.Name != r.Kind {
			f.What += " " + r.Name
		}
		if r.Kind == env.DaggerKind {
			where := r.Engine
			if where == "" {
				where = "the SDK's own engine"
			}
			f.Text += ", " + where
			version, err := (&dagger.Executor{Runner: r, Program: &portable.Program{}}).Probe(ctx)
			var u executor.Unavailable
			if errors.As(err, &u) {
				f.Mend = u.Mend
			}
			if f.OK = err == nil; f.OK {
				f.Text += ": version " + version
			} else {
				f.Text += ": " + err.Error()
			}
			f.Text += ", for SDK " + dagger.SDKVersion()
		}
		out = append(out, f)
	}
	return out
}

// places says whether an environment's state and artifacts answer that are on other
// machines.
func (a *app) places(ctx context.Context, e *env.Environment) []finding {
	var out []finding
	tell := func(what, answer string, err error) {
		f := finding{What: what, OK: err == nil, Text: answer}
		if d, ok := errors.AsType[diag.Diagnostic](err); ok {
			f.Text, f.Mend = d.What, d.Mend
		} else if err != nil {
			f.Text = err.Error()
		}
		out = append(out, f)
	}
	if strings.Contains(e.State, "://") {
		db, there, err := state.OpenExisting(ctx, state.Options{Location: e.State, Files: e.Beside("files.db"), Told: a.told})
		answer := "PostgreSQL answers"
		if !there {
			answer += ", nothing has been applied there yet"
		} else if err == nil {
			err = db.Close()
		}
		tell("state", answer, err)
	}
	if strings.Contains(e.Artifacts, "://") {
		store, err := artifact.OpenRemote(ctx, e.Artifacts, e.Beside("cache"), a.told)
		if err == nil {
			err = errors.Join(store.Reach(ctx), store.Close())
		}
		tell("artifacts", "the bucket answers", err)
	}
	return out
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				a.view.Emit("version", map[string]any{"version": about.Version(), "schema": schema.Assemble(stdlib.Kinds().Schemas()).Version()})
				return nil
			}
			a.view.Printf("mlc %s\n", about.Version())
			return nil
		},
	}
}
