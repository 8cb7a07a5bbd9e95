package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
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
		Long:  "Writes descriptions of a service's API, typed clients, and the files that deploy it,\nby the signatures of the versions that its aliases mean now:\n\n" + list.String() + "\nThe folder's " + generatedFile + " keeps the digests of what was written. A file that is\nas mlc wrote it is written anew, or removed if it belongs to the service no more; one\nthat somebody changed is not touched without --force.",
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
			in := generate.Input{Service: svc, Signatures: map[service.Ref]*bundle.Signature{}, Image: image, Version: about.Version(), Targets: only}
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
			left, err := generate.LeftOut(in)
			if err != nil {
				return err
			}
			removed, err := replace(c.Context(), args[1], svc.Name, files, func(name string) bool { return regenerated(in, left, name) }, force)
			if err != nil {
				return err
			}
			written := slices.Sorted(maps.Keys(files))
			if a.json {
				why := map[string]string{}
				for _, l := range left {
					why[l.Target.Name] = l.Why.Error()
				}
				a.view.Emit("generated", map[string]any{"service": svc.Name, "folder": args[1], "files": written, "removed": removed, "left_out": why})
				return nil
			}
			for _, f := range written {
				a.view.Printf("%s\n", filepath.Join(args[1], f))
			}
			for _, f := range removed {
				a.view.Printf("removed %s: it belongs to the service no more\n", filepath.Join(args[1], f))
			}
			for i := 0; i < len(left); {
				var names []string
				why := left[i].Why.Error()
				for ; i < len(left) && left[i].Why.Error() == why; i++ {
					names = append(names, left[i].Target.Name)
				}
				if errors.Is(left[i-1].Why, generate.ErrNoImage) {
					why += ": --image"
				}
				a.view.Notef("left out %s: %s\n", strings.Join(names, ", "), why)
			}
			return nil
		},
	}
	c.Flags().StringVar(&image, "image", "", "the service's image, as a `reference` that mlc build --push has pushed")
	c.Flags().StringSliceVar(&only, "only", nil, "the `targets` to write, separated by commas; by default all that fit")
	c.Flags().BoolVar(&force, "force", false, "replace files that somebody changed")
	return c
}

// regenerated reports whether a file that was generated before is of a target that is
// generated anew or that the service cannot have any more. What only takes an image that
// is not given now stays as it is.
func regenerated(in generate.Input, left []generate.Left, name string) bool {
	for _, l := range left {
		if l.Target.Owns(name) {
			return !errors.Is(l.Why, generate.ErrNoImage)
		}
	}
	for _, t := range generate.Targets() {
		if t.Owns(name) {
			return len(in.Targets) == 0 || slices.Contains(in.Targets, t.Name)
		}
	}
	return len(in.Targets) == 0 // of a target that there is no more
}

// writeFile writes a file whole or not at all, and the folders to it.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return diag.Unwritable(path, err)
	}
	return op.WriteFile(path, b)
}
