package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/serve/generate"
)

func (a *app) generateCmd() *cobra.Command {
	var image string
	var only []string
	var force bool
	var list strings.Builder
	for _, t := range generate.Targets() {
		fmt.Fprintf(&list, "  %-20s %s\n", t.Name, t.Doc)
	}
	c := &cobra.Command{
		Use:   "generate SERVICE FOLDER",
		Short: "Write what a team keeps of a service in its own repository",
		Long:  "Writes descriptions of a service's API, typed clients, and the files that deploy it,\nby the signatures of the versions that its aliases mean now:\n\n" + list.String() + "\nWhat is generated anew is compared first: a file that somebody changed is not written\nover without --force.",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			r, s, err := a.openTrained(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			svc, err := realtime(r, args[0])
			if err != nil {
				return err
			}
			if s.State == nil {
				return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: "nothing has been applied here yet", Why: "clients are typed by the model's signature", Mend: "run `mlc apply`"}
			}
			in := generate.Input{Service: svc, Signatures: map[service.Ref]*bundle.Signature{}, Image: image, Version: Version(), Targets: only}
			for _, ref := range svc.Models() {
				v, err := s.State.Resolve(ref.String())
				if err != nil {
					return err
				}
				b, err := bundle.Open(func(name string) (string, error) { return s.Store.Path(c.Context(), v.Bundle, name) })
				if err != nil {
					return gone(v, err)
				}
				in.Signatures[ref] = &b.Signature
			}
			files, err := generate.Files(in)
			if err != nil {
				return err
			}
			written, err := writeFiles(c.Context(), args[1], files, force)
			if err != nil {
				return err
			}
			if a.json {
				a.view.Emit("generated", map[string]any{"service": svc.Name, "folder": args[1], "files": written})
				return nil
			}
			for _, f := range written {
				a.view.Printf("%s\n", filepath.Join(args[1], f))
			}
			return nil
		},
	}
	c.Flags().StringVar(&image, "image", "", "the service's image, as a `reference` that mlc build --push has pushed")
	c.Flags().StringSliceVar(&only, "only", nil, "the `targets` to write, separated by commas; by default all that fit")
	c.Flags().BoolVar(&force, "force", false, "write over files that are there")
	return c
}

// writeFiles writes files below a folder, each whole or not at all, and returns
// their names in order. Without force a file that is there and differs stops it
// before anything is written.
func writeFiles(ctx context.Context, dir string, files map[string][]byte, force bool) ([]string, error) {
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	var there []string
	for _, n := range names {
		old, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(n)))
		if err == nil && string(old) != string(files[n]) {
			there = append(there, n)
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, diag.Unwritable(dir, err)
		}
	}
	if len(there) > 0 && !force {
		return nil, fmt.Errorf("%s has been changed, or made by another version: %s; give --force to write over it", dir, strings.Join(there, ", "))
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := filepath.Join(dir, filepath.FromSlash(n))
		if err := writeFile(path, files[n]); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// writeFile writes a file whole or not at all, and the folders to it.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return diag.Unwritable(path, err)
	}
	return op.WriteFile(path, b)
}
