package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/gc"
	"mlc.dev/mlc/runtime/state"
	"mlc.dev/mlc/stdlib/trainer/python"
)

func (a *app) gcCmd() *cobra.Command {
	var apply, shared, detailed bool
	var keep string
	var runs int
	c := &cobra.Command{
		Use:   "gc",
		Short: "Show what nothing needs any more, and delete it",
		Long: "Shows what of the environment's state and artifact store nothing needs any more, why,\n" +
			"and how much it frees. With --apply it deletes that, which takes the lock of an apply.\n\n" +
			"Kept are the bundles of all registered versions, every result that a kept run made or\n" +
			"found cached, and every file younger than --keep. Runs are kept from the oldest of the\n" +
			"newest --keep-runs that ended well on, and for the time of --keep after their end.\n" +
			"Predictions and their log are never touched.\n\n" +
			"Environments of Python in this user's cache are shown where no step, of whatever state,\n" +
			"has used them for 30 days; a step that needs one again makes it again.\n\n" +
			"A store may be used by several states. Those of the other environments of this folder\n" +
			"are read, and what they refer to stays. Where there may be more, because the store is\n" +
			"a bucket or lies outside this folder, or a state's url takes a variable, only copies\n" +
			"in a bucket's cache and what was never finished go, unless --shared says that all\n" +
			"states which use the store are of environments in this folder, with their urls as\n" +
			"they are now.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			age, err := types.ParseDuration(keep)
			if err != nil {
				return misuse("--keep: %w", err)
			}
			if runs < 0 {
				return misuse("--keep-runs %d: write 0 or more", runs)
			}
			e, err := a.environment()
			if err != nil {
				return err
			}
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			g := gc.Collector{State: s.State, Store: s.Store, Work: e.Beside("work"), KeepRuns: runs, Keep: age, Now: time.Now, Environments: python.Cached()}
			others, alone, err := a.sharing(c.Context(), e, s.State)
			for _, db := range others {
				defer db.Close()
			}
			if err != nil {
				return err
			}
			g.Others, g.Alone = others, alone || shared
			if apply {
				g.Told = func(done, total int) { a.view.Live(fmt.Sprintf("deleting: %d/%d files", done, total)) }
				p, err := g.Delete(c.Context())
				a.view.Live("")
				if err != nil {
					return err
				}
				a.view.Garbage(p, true)
				return nil
			}
			p, busy, err := g.Look(c.Context())
			if err != nil {
				return err
			}
			if busy {
				a.view.Notef("an apply is at work: what it makes is not known yet, and --apply refuses until it has ended\n")
			}
			a.view.Garbage(p, false)
			if detailed && len(p.Items) > 0 {
				return exit(2)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&apply, "apply", false, "delete what is shown")
	c.Flags().StringVar(&keep, "keep", "7d", "keep what is younger than this `time`, as in 12h or 30d")
	c.Flags().IntVar(&runs, "keep-runs", 3, "keep the results of the newest `n` runs that ended well, and of all since")
	c.Flags().BoolVar(&shared, "shared", false, "delete from a store that may be shared, too")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 where something would be deleted")
	return c
}

// sharing opens the states of this folder's other environments that use the same
// store. alone says that there can be no more: the store is a folder within the
// spec's, and no environment that uses it, or could, has a state or a store for each
// value of a variable.
func (a *app) sharing(ctx context.Context, e *env.Environment, own *state.DB) (others []*state.DB, alone bool, err error) {
	alone = !strings.Contains(e.Artifacts, "://") && within(e.Artifacts, a.dir) && !takes(e, stateVaries)
	mine, _, err := own.Lineage()
	if err != nil {
		return nil, false, err
	}
	found, err := filepath.Glob(filepath.Join(a.dir, "*.mlc.hcl"))
	if err != nil {
		return nil, false, err
	}
	seen := map[string]bool{e.Name: true}
	for _, f := range append(found, "local.mlc.hcl") {
		name := strings.TrimSuffix(filepath.Base(f), ".mlc.hcl")
		if seen[name] {
			continue
		}
		seen[name] = true
		o, err := a.other(name)
		if err != nil {
			return others, false, err
		}
		if !sameStore(o.Artifacts, e.Artifacts) {
			alone = alone && (strings.Contains(o.Artifacts, "://") || !takes(o, artifactsVary))
			continue
		}
		alone = alone && !takes(o, stateVaries)
		if o.State == e.State {
			continue
		}
		db, ok, err := state.OpenExisting(ctx, state.Options{Location: o.State, Files: o.Beside("files.db"), Told: a.told})
		if err != nil {
			return others, false, err
		}
		if !ok {
			continue
		}
		lineage, _, err := db.Lineage()
		if err != nil || lineage == mine {
			if err = errors.Join(err, db.Close()); err != nil {
				return others, false, err
			}
			continue
		}
		others = append(others, db)
	}
	return others, alone, nil
}

// other is another environment of the folder. Variables that are given may be meant
// for it or not.
func (a *app) other(name string) (*env.Environment, error) {
	vars, err := a.variables()
	if err != nil {
		return nil, err
	}
	e, list := env.Load(a.dir, name, vars)
	if list.HasErrors() && len(vars) > 0 {
		e, list = env.Load(a.dir, name, nil)
	}
	if err := list.Err(); err != nil {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.EnvValue, What: fmt.Sprintf("environment %q cannot be read: %v", name, err),
			Why: "it may use the same artifact store, and what it needs must stay", Mend: "mend it; its variables can be given as MLC_VAR_…"}
	}
	return e, nil
}

// within reports whether a folder lies in another, links followed.
func within(path, dir string) bool {
	rel, err := filepath.Rel(resolved(dir), resolved(path))
	return err == nil && filepath.IsLocal(rel)
}

// resolved is the absolute path without links, as far as it exists.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if p, err := filepath.EvalSymlinks(abs); err == nil {
		return p
	}
	return abs
}

// sameStore reports whether two artifact stores are, or may be, one: buckets go by
// their name and prefix, since the rest of a URL only says how they are reached.
func sameStore(a, b string) bool {
	if strings.Contains(a, "://") != strings.Contains(b, "://") {
		return false
	}
	if !strings.Contains(a, "://") {
		return resolved(a) == resolved(b)
	}
	u, err := url.Parse(a)
	v, verr := url.Parse(b)
	if err != nil || verr != nil {
		return true
	}
	return u.Host == v.Host && u.Query().Get("prefix") == v.Query().Get("prefix")
}

// A block whose url takes a variable, which stands for several places.
var (
	stateVaries   = regexp.MustCompile(`\bstate\s*\{[^}]*\bvar\.`)
	artifactsVary = regexp.MustCompile(`\bartifacts\s*\{[^}]*\bvar\.`)
)

// takes reports whether an environment's file has such a block.
func takes(e *env.Environment, block *regexp.Regexp) bool {
	for _, src := range e.Files {
		if block.Match(src) {
			return true
		}
	}
	return false
}
