package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/sql"
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
			bad := false
			for _, f := range diagnose(c.Context()) {
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
	out := []finding{{What: "mlc", OK: true, Text: fmt.Sprintf("%s, schema %s, %s/%s", Version(), schema.Assemble(stdlib.Kinds().Schemas()).Version(), goruntime.GOOS, goruntime.GOARCH)}}
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
	r := env.Local(".").Runners[0]
	return append(out, finding{What: "local runner", OK: true, Text: fmt.Sprintf("%d cpus, %s of memory", r.CPUs, types.FormatSize(r.Memory))})
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				a.view.Emit("version", map[string]any{"version": Version(), "schema": schema.Assemble(stdlib.Kinds().Schemas()).Version()})
				return nil
			}
			a.view.Printf("mlc %s\n", Version())
			return nil
		},
	}
}
