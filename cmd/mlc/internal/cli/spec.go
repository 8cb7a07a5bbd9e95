package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/mlc/internal/draft"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib"
)

func (a *app) initCmd() *cobra.Command {
	var vendor bool
	var data, label string
	c := &cobra.Command{
		Use:   "init [FOLDER]",
		Short: "Begin a spec, or make a folder ready for cue and editors",
		Long:  "Makes a folder ready for cue and editors, and begins a spec where there is none: a\nstarter, or with --from a draft that is ready to vet, from what a table holds.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := a.dir
			if len(args) == 1 {
				dir = args[0]
			}
			if label != "" && data == "" {
				return misuse("--label %s: it names a column of the table that --from names", label)
			}
			return a.init(c.Context(), draft.Ask{Dir: dir, Path: data, Label: label}, vendor)
		},
	}
	c.Flags().StringVar(&data, "from", "", "draft the spec from a `table`: CSV, TSV, JSON lines or Parquet")
	c.Flags().StringVar(&label, "label", "", "the `column` to predict; the last one by default")
	c.Flags().BoolVar(&vendor, "vendor", false, "copy the schema into cue.mod/pkg, for machines without mlc")
	return c
}

// init writes what is missing: the CUE module, a spec where there is no .cue file
// (a starter, or a draft where the ask has a path), .gitignore; and puts the schema
// where the user's cue finds it.
func (a *app) init(ctx context.Context, ask draft.Ask, vendor bool) error {
	files := schema.Assemble(stdlib.Kinds().Schemas())
	dir := ask.Dir
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	name := draft.Ident(filepath.Base(abs), "system_")
	found, err := filepath.Glob(filepath.Join(dir, "*.cue"))
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, starter, name, name)
	if ask.Path != "" {
		// First of all: a mistake leaves nothing behind.
		if len(found) > 0 {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("there is a spec already: %s", filepath.Base(found[0])), Why: "a folder holds one, and none is overwritten", Mend: "draft into a folder of its own: mlc init FOLDER --from " + ask.Path}
		}
		ask.Name = name
		if text, err = draft.Draft(ctx, ask); err != nil {
			return err
		}
	}
	changed := false
	wrote := func(path string, b []byte) error {
		if err := writeFile(path, b); err != nil {
			return err
		}
		changed = true
		if a.json {
			a.view.Emit("wrote", map[string]any{"file": path})
		} else {
			a.view.Printf("wrote %s\n", path)
		}
		return nil
	}
	mod := filepath.Join(dir, "cue.mod", "module.cue")
	have, err := os.ReadFile(mod)
	want := spec.ModuleFile("mlc.local/"+name+"@v0", files)
	if vendor {
		want = fmt.Appendf(nil, "module: %q\nlanguage: version: \"v0.17.0\"\n", "mlc.local/"+name+"@v0")
	}
	switch {
	case os.IsNotExist(err):
		if err := wrote(mod, want); err != nil {
			return err
		}
	case err != nil:
		return diag.Unwritable(dir, err)
	default:
		// An own module keeps its name; only the schema's version moves.
		fixed := regexp.MustCompile(`v0\.1\.0-dev\.h[0-9a-f]+`).ReplaceAll(have, []byte(files.Version()))
		if !bytes.Equal(fixed, have) {
			if err := wrote(mod, fixed); err != nil {
				return err
			}
		}
	}
	if vendor {
		for _, n := range files.Names() {
			if strings.HasSuffix(n, "module.cue") {
				continue
			}
			if err := wrote(filepath.Join(dir, "cue.mod", "pkg", "mlc.dev", filepath.FromSlash(n)), files[n]); err != nil {
				return err
			}
		}
	} else if err := spec.SeedCache(ctx, files); err != nil {
		return fmt.Errorf("CUE's cache: %w", err)
	}
	if len(found) == 0 {
		text, list := spec.Format(name+".cue", text)
		if err := list.Err(); err != nil {
			return err
		}
		if err := wrote(filepath.Join(dir, name+".cue"), text); err != nil {
			return err
		}
	}
	ignore := filepath.Join(dir, ".gitignore")
	if b, err := os.ReadFile(ignore); os.IsNotExist(err) || err == nil && !strings.Contains(string(b), ".mlc/") {
		if err := wrote(ignore, append(b, ".mlc/\n"...)); err != nil {
			return err
		}
	}
	if !changed && !a.json {
		a.view.Printf("nothing to write: all is there\n")
	}
	return nil
}

// starter is a spec to begin from: complete but for its data.
const starter = `package %s

import "mlc.dev/schema"

system: schema.#System & {
	name: "%s"
	goal: "Say what the predictions are for."

	// What is predicted, and what it has to beat.
	problems: outcome: {
		kind: "binary"
		label: {source: "rows", expr: "outcome = 'yes'"}
		baseline: kind: "prior"
		metrics: {primary: "roc_auc", offline: roc_auc: over_baseline: 0.05}
	}

	// The data. Rows that do not fit are quarantined.
	sources: rows: {
		kind: "file"
		path: "data/rows.csv"
		columns: {
			outcome: {type: "string", in: ["yes", "no"]}
			amount:  type: "float"
			segment: type: "string"
		}
	}

	// What is known when a prediction is made.
	features: inputs: {kind: "request", source: "rows", columns: ["amount", "segment"]}

	models: outcome: {
		problem: "outcome"
		inputs: "inputs.*": {}
		trainer: kind: "gbdt"
	}
}
`

func (a *app) fmtCmd() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt [FILE...]",
		Short: "Write .cue files in the standard form",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				found, err := filepath.Glob(filepath.Join(a.dir, "*.cue"))
				if err != nil {
					return err
				}
				args = found
			}
			changed := false
			var bad diag.List
			for _, name := range args {
				src, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				out, list := spec.Format(name, src)
				if list.HasErrors() {
					a.view.Source = func(string) []byte { return src }
					a.view.Diagnostics(list)
					bad = append(bad, list...)
					continue
				}
				if bytes.Equal(out, src) {
					continue
				}
				changed = true
				if a.json {
					a.view.Emit("formatted", map[string]any{"file": name, "written": !check})
				} else {
					a.view.Printf("%s\n", name)
				}
				if !check {
					if err := os.WriteFile(name, out, 0o644); err != nil {
						return err
					}
				}
			}
			if bad.HasErrors() || check && changed {
				return exit(1)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; fail where something would change")
	return c
}

func (a *app) vetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "vet",
		Short: "Prove the spec sound before anything runs",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.compile(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				a.view.Emit("vet_summary", map[string]any{"ok": true, "steps": len(r.Plan.Steps)})
				return nil
			}
			a.view.Printf("%s is sound: %s, %s, %s, %s\n", r.System.Name, count(len(r.System.Sources), "source"), count(len(r.System.Features), "feature"), count(len(r.System.Models), "model"), count(len(r.Plan.Steps), "step"))
			return nil
		},
	}
}

func (a *app) renderCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "render",
		Short: "Print the spec with every default filled in",
		Long:  "Prints the spec with every default filled in, patterns of inputs expanded and the chosen encoders named.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.compile(c.Context())
			if err != nil {
				return err
			}
			tree, err := rendered(r.Spec, r.System)
			if err != nil {
				return err
			}
			if a.json {
				a.view.Emit("spec", map[string]any{"system": tree})
				return nil
			}
			b, err := spec.RenderCUE(r.Spec.Package(), tree)
			if err != nil {
				return err
			}
			a.view.Printf("%s", b)
			return nil
		},
	}
}

// rendered is the spec's data with every model's inputs as the compiler chose
// them.
func rendered(s *spec.Spec, sys *ir.System) (*spec.Value, error) {
	for _, m := range sys.Models {
		inputs := map[string]any{}
		for _, in := range m.Inputs {
			enc := make([]json.RawMessage, len(in.Encoders))
			for i, e := range in.Encoders {
				enc[i] = e.Args
			}
			item := map[string]any{"encode": enc}
			if in.AllowSensitive != "" {
				item["allow_sensitive"] = in.AllowSensitive
			}
			inputs[in.Feature.Name] = item
		}
		v, err := spec.ValueOf(inputs)
		if err != nil {
			return nil, err
		}
		s.Root.Get("models").Get(m.Name).Set("inputs", v)
	}
	for _, svc := range sys.Services {
		if err := renderService(s.Root.Get("serving").Get(svc.Name), svc); err != nil {
			return nil, err
		}
	}
	return s.Root, nil
}

// renderService fills in what a service's defaults make of its other fields.
func renderService(v *spec.Value, s *ir.Service) error {
	set := func(in *spec.Value, name string, x any) error {
		filled, err := spec.ValueOf(x)
		if err == nil {
			in.Set(name, filled)
		}
		return err
	}
	var errs []error
	if s.Threshold != 0 {
		errs = append(errs, set(v, "threshold", s.Threshold))
	}
	if len(s.Caller) > 0 {
		errs = append(errs, set(v, "caller", s.Caller))
	}
	if split := v.Get("split"); split != nil {
		for i, b := range split.List {
			errs = append(errs, set(b, "name", s.Split[i].Name))
		}
	}
	if load := v.Get("load"); load != nil && load.Get("peak") == nil {
		load.Set("peak", load.Get("expected"))
	}
	if log := v.Get("log"); log != nil {
		if s.Log.Dir != "" {
			errs = append(errs, set(log, "dir", s.Log.Dir))
		}
		if len(s.Log.Mask) > 0 {
			errs = append(errs, set(log, "mask", s.Log.Mask))
		}
	}
	return errors.Join(append(errs, set(v.Get("replicas"), "max", s.Replicas.Max))...)
}

func (a *app) graphCmd() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "graph",
		Short: "Print the steps and what they read",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if format != "text" && format != "mermaid" {
				return misuse("--format %s: it is text or mermaid", format)
			}
			r, err := a.compile(c.Context())
			if err != nil {
				return err
			}
			a.view.Graph(r.Plan, format == "mermaid")
			return nil
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or mermaid")
	return c
}

func (a *app) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a diagnostic's code, with a wrong and a right example",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, code := range diag.Codes() {
					page, _ := diag.Explain(code)
					title, _, _ := strings.Cut(page, "\n")
					a.view.Printf("%s\n", strings.TrimPrefix(title, "# "))
				}
				return nil
			}
			code := diag.Code(strings.ToUpper(args[0]))
			page, ok := diag.Explain(code)
			if !ok {
				var all []string
				for _, c := range diag.Codes() {
					all = append(all, string(c))
				}
				return misuse("no code %q%s", code, diag.Suggest(string(code), all))
			}
			if a.json {
				a.view.Emit("explanation", map[string]any{"code": code, "markdown": page})
				return nil
			}
			a.view.Printf("%s", page)
			return nil
		},
	}
}
