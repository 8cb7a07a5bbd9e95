package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/target"
)

func (a *app) ciCmd() *cobra.Command {
	var force bool
	var install string
	c := &cobra.Command{
		Use:       "ci github|gitlab",
		Short:     "Write a pipeline that plans proposed changes and applies the main branch",
		Long:      "Writes the pipeline's file to the root of the repository that the spec is in: vet and\nplan on proposed changes, with the plan as a comment, and apply of a saved plan on the\nmain branch, for the environment that --env names.",
		Args:      cobra.ExactArgs(1),
		ValidArgs: target.CINames(),
		RunE: func(c *cobra.Command, args []string) error {
			name, ok := target.CI[args[0]]
			if !ok {
				return misuse("no pipeline for %q%s", args[0], diag.Suggest(args[0], target.CINames()))
			}
			r, err := a.compile(c.Context())
			if err != nil {
				return err
			}
			root, p, err := pipeline(r, install)
			if err != nil {
				return err
			}
			b, err := target.WriteCI(args[0], p)
			if err != nil {
				return err
			}
			path := filepath.Join(root, filepath.FromSlash(name))
			if _, err := os.Stat(path); err == nil && !force {
				return diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: path + " is there already", Mend: "give --force to write it anew"}
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := writeFile(path, b); err != nil {
				return err
			}
			if a.json {
				a.view.Emit("written", map[string]string{"path": path})
				return nil
			}
			a.view.Printf("wrote %s\n", path)
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "write over a file that is there")
	c.Flags().StringVar(&install, "mlc-version", release(), "the `version` of mlc that the pipeline installs")
	return c
}

// pipeline is what pipelines know of a spec, and the root of its repository.
func pipeline(r *compiler.Result, version string) (root string, p target.Pipeline, err error) {
	root = repository(r.Spec.Dir)
	dir, err := filepath.Rel(root, r.Spec.Dir)
	return root, target.Pipeline{System: r.System.Name, Dir: filepath.ToSlash(dir), Env: r.Env, Plan: r.Plan, Version: version}, err
}

// release is the version of this mlc that can be installed.
func release() string {
	v, _, _ := strings.Cut(about.Version(), "+")
	if strings.HasSuffix(v, "-dev") || v == "unknown" {
		return "latest"
	}
	return v
}

// repository is the root of the repository that a folder is in, or the folder.
func repository(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, ".git")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}
