package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/mlc/internal/view"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/state"
	"mlc.dev/mlc/stdlib"
)

// registry opens the state of the environment; the spec need not be sound for
// what is registered already.
func (a *app) registry(ctx context.Context) (*runtime.System, error) {
	e, err := a.environment()
	if err != nil {
		return nil, err
	}
	s, err := runtime.Open(ctx, a.dir, e, true, a.told)
	if err != nil {
		return nil, err
	}
	if s.State == nil {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: "nothing has been applied here yet", Mend: "run `mlc apply`, or give the spec's folder with -C"}
	}
	return s, nil
}

func (a *app) statusCmd() *cobra.Command {
	var markdown bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the last run and the registered models",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			run, ok, err := s.State.LastRun()
			if err != nil {
				return err
			}
			if run.Status == "running" {
				busy, err := s.State.Busy()
				if err != nil {
					return err
				}
				if !busy {
					run.Status = "interrupted" // its process is gone
				}
			}
			versions, err := s.State.Versions("")
			if err != nil {
				return err
			}
			if a.json {
				a.view.Emit("status", map[string]any{"run": run, "models": versions})
				return nil
			}
			if ok {
				took := ""
				if !run.Finished.IsZero() {
					took = ", " + view.Seconds(run.Finished.Sub(run.Started).Seconds())
				}
				if markdown {
					a.view.Printf("### mlc status\n\nRun %d: %s%s\n\n| step | | time |\n|---|---|---|\n", run.ID, run.Status, took)
				} else {
					a.view.Printf("run %d: %s, started %s%s\n", run.ID, run.Status, run.Started.Local().Format("2006-01-02 15:04:05"), took)
				}
				for _, st := range run.Steps {
					if markdown {
						a.view.Printf("| `%s` | %s | %s |\n", st.ID, st.Status, view.Seconds(st.Seconds))
					} else {
						a.view.Printf("  %-7s %s  %s\n", st.Status, st.ID, view.Seconds(st.Seconds))
						if st.Detail != "" {
							a.view.Printf("          %s\n", strings.ReplaceAll(st.Detail, "\n", "\n          "))
						}
					}
				}
			}
			if markdown && len(versions) > 0 {
				a.view.Printf("\n| model | | bundle | aliases |\n|---|---|---|---|\n")
				for _, v := range versions {
					a.view.Printf("| %s@v%d | %s | `%s` | %s |\n", v.Model, v.Version, v.Created.Local().Format("2006-01-02 15:04"), v.Bundle.Short(), strings.Join(v.Aliases, ", "))
				}
				return nil
			}
			a.models(versions)
			return nil
		},
	}
	c.Flags().BoolVar(&markdown, "markdown", false, "print for a pull request")
	return c
}

func (a *app) models(versions []state.Version) {
	for _, v := range versions {
		aliases := ""
		if len(v.Aliases) > 0 {
			aliases = "  " + strings.Join(v.Aliases, ", ")
		}
		a.view.Printf("%s@v%d  %s  %s%s\n", v.Model, v.Version, v.Created.Local().Format("2006-01-02 15:04"), v.Bundle.Short(), aliases)
	}
}

func (a *app) showCmd() *cobra.Command {
	var history, blocked bool
	var file, source string
	c := &cobra.Command{
		Use:   "show [MODEL[@ALIAS|@vN] | PLAN]",
		Short: "Show a model's card, its history, the models there are, or a saved plan",
		Long:  "Shows the card of a model: of the version that was applied last, or that an alias or\nnumber names. Without a name it lists the models there are.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, err := os.Stat(args[0]); err == nil && strings.ContainsAny(args[0], "./") {
					return a.showPlan(c.Context(), args[0])
				}
			}
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			if source != "" {
				return a.quarantine(c.Context(), s, source)
			}
			if blocked && len(args) == 0 {
				return misuse("--blocked needs a model: mlc show MODEL --blocked")
			}
			if len(args) == 0 {
				versions, err := s.State.Versions("")
				if err != nil {
					return err
				}
				if a.json {
					a.view.Emit("models", map[string]any{"models": versions})
					return nil
				}
				a.models(versions)
				return nil
			}
			find := s.State.Resolve
			if blocked {
				find = func(model string) (state.Version, error) { return a.blocked(s, model) }
			}
			v, err := find(args[0])
			if err != nil {
				return err
			}
			if history {
				return a.history(s, v.Model)
			}
			if err := s.Store.Verify(c.Context(), v.Bundle, s.FileDigest); err != nil {
				return gone(v, err)
			}
			path, err := s.Store.Path(c.Context(), v.Bundle, file)
			if err != nil {
				return noFile(c.Context(), s, v, file)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return gone(v, err)
			}
			if a.json {
				a.view.Emit("model", map[string]any{"version": v, "file": file, "content": string(b)})
				return nil
			}
			if !blocked && !strings.Contains(args[0], "@") {
				if err := a.behind(s, v); err != nil {
					return err
				}
			}
			switch {
			case file != "card.md":
			case blocked:
				a.view.Printf("%s, not registered\n\n", nameOf(v))
			default:
				a.view.Printf("%s version %d\n\n", v.Model, v.Version)
			}
			a.view.Printf("%s", b)
			return nil
		},
	}
	c.Flags().StringVar(&source, "quarantine", "", "show the rows of a `source` that were set aside, with their reasons, as JSON lines; long texts whole only with --json")
	c.Flags().BoolVar(&blocked, "blocked", false, "show the model that the last run made and its gates did not let pass")
	c.Flags().BoolVar(&history, "history", false, "show how the model's aliases moved")
	c.Flags().StringVar(&file, "file", "card.md", "a `file` of the bundle: signature.json, metrics.json, lineage.json, profile.json, …")
	return c
}

// nameOf is what users call a version, or a model that was not registered.
func nameOf(v state.Version) string {
	if v.Version == 0 {
		return fmt.Sprintf("%s of run %d", v.Model, v.Run)
	}
	return fmt.Sprintf("%s@v%d", v.Model, v.Version)
}

func gone(v state.Version, err error) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf("the bundle of %s cannot be read: %v", nameOf(v), err), Mend: "apply the spec that made it again to rebuild it, or put its files back"}
}

// blocked is the model that the last run made and did not register, as a version
// without a number.
func (a *app) blocked(s *runtime.System, model string) (state.Version, error) {
	none := func(what, why, mend string) error {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: what, Why: why, Mend: mend}
	}
	run, ok, err := s.State.LastRun()
	if err != nil {
		return state.Version{}, err
	}
	if !ok {
		return state.Version{}, none("nothing has run here", "", "`mlc apply` runs it")
	}
	made := state.RunStep{}
	for _, step := range run.Steps {
		switch {
		case step.ID == lower.OpPackage+" "+model && step.Status != "failed":
			made = step
		case step.ID == lower.OpRegister+" "+model && step.Status != "failed":
			return state.Version{}, none(fmt.Sprintf("run %d, the last one, registered %s", run.ID, model), "", "`mlc show "+model+"` shows it")
		}
	}
	if made.ID == "" {
		what, why, mend := fmt.Sprintf("run %d, the last one, made no model %q", run.ID, model), "", "`mlc status` tells how far it came; name a model of the spec, without a version"
		if f, ok := failed(run, model); ok {
			what, why, mend = what+": "+f.ID+" failed", f.Detail, "mend that, and apply again"
		}
		return state.Version{}, none(what, why, mend)
	}
	r, ok, err := s.State.Step(made.Key)
	if err == nil && !ok {
		err = none(fmt.Sprintf("the results of run %d are gone", run.ID), "", "apply again")
	}
	return state.Version{Model: model, Bundle: r.Outputs["bundle"], Run: run.ID, Created: run.Started}, err
}

// behind tells where the version that was applied last is not of the last run, because it failed.
func (a *app) behind(s *runtime.System, v state.Version) error {
	run, ok, err := s.State.LastRun()
	if err != nil || !ok {
		return err
	}
	for _, step := range run.Steps {
		if step.ID == lower.OpRegister+" "+v.Model && step.Status != "failed" {
			return nil
		}
	}
	if f, ok := failed(run, v.Model); ok {
		a.view.Notef("the last run registered no version of %s: %s failed (`mlc status` tells why); this is version %d from before\n", v.Model, f.ID, v.Version)
	}
	return nil
}

// failed is the last step of a model's that failed in a run, or else the first of another.
func failed(run state.Run, model string) (step state.RunStep, ok bool) {
	for _, s := range run.Steps {
		if s.Status == "failed" && (!ok || strings.HasSuffix(s.ID, " "+model)) {
			step, ok = s, true
		}
	}
	return step, ok
}

// quarantine prints the rows and lines of a source that its last validation set
// aside.
func (a *app) quarantine(ctx context.Context, s *runtime.System, source string) error {
	lasts, err := s.State.Lasts()
	if err != nil {
		return err
	}
	last, ok := lasts[lower.OpValidate+" "+source]
	run, ran, err := s.State.LastRun()
	if err != nil {
		return err
	}
	for _, step := range run.Steps {
		if ran && step.ID == lower.OpValidate+" "+source && step.Status == "failed" {
			what, _, _ := strings.Cut(step.Detail, "\n")
			a.view.Notef("the last run's validation of %s failed, and set nothing aside: %s\n", source, what)
			if ok {
				a.view.Notef("these rows are of the last one that ended well\n")
			}
		}
	}
	if !ok {
		var names []string
		for id := range lasts {
			if n, ok := strings.CutPrefix(id, lower.OpValidate+" "); ok {
				names = append(names, n)
			}
		}
		return diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("no source %q has been validated%s", source, diag.Suggest(source, names)), Mend: "`mlc apply` validates; a run that stops on too many bad rows tells the first of each kind"}
	}
	r, _, err := s.State.Step(last.Key)
	if err != nil {
		return err
	}
	rows, err := s.Store.Path(ctx, r.Outputs["quarantine"], "rows.parquet")
	if err != nil {
		return err
	}
	if err := op.Quarantined(ctx, rows, func(row op.BadRow) { a.view.Row(row.String()) }); err != nil {
		return err
	}
	lines, err := s.Store.Path(ctx, last.Inputs["rejects"], "rejects.jsonl")
	if err != nil {
		return err
	}
	b, err := os.ReadFile(lines)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		a.view.Row(strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// noFile tells which files a bundle has.
func noFile(ctx context.Context, s *runtime.System, v state.Version, name string) error {
	files, err := s.Store.Files(ctx, v.Bundle)
	if err != nil {
		return gone(v, err)
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf("the bundle of %s has no %s%s", nameOf(v), name, diag.Suggest(name, names)), Why: "it has " + strings.Join(names, ", ")}
}

func (a *app) history(s *runtime.System, model string) error {
	moves, err := s.State.Moves(model)
	if err != nil {
		return err
	}
	if a.json {
		a.view.Emit("history", map[string]any{"model": model, "moves": moves})
		return nil
	}
	for _, m := range moves {
		from := "nowhere"
		if m.From > 0 {
			from = fmt.Sprintf("v%d", m.From)
		}
		a.view.Printf("%s  %s  %s -> v%d  %s\n", m.At.Local().Format("2006-01-02 15:04:05"), m.Alias, from, m.To, m.Why)
	}
	return nil
}

func (a *app) showPlan(ctx context.Context, path string) error {
	sv, err := loadPlan(path)
	if err != nil {
		return err
	}
	if a.json {
		a.view.Emit("saved_plan", sv)
		return nil
	}
	a.view.Printf("plan of %s, saved %s by mlc %s for environment %s\n", sv.Plan.System, sv.Created.Local().Format("2006-01-02 15:04:05"), sv.MLC, sv.Environment)
	r, s, err := a.open(ctx, true)
	if err != nil {
		a.view.Notef("the spec is not sound any more; the plan is stale\n")
		a.view.Graph(sv.Plan, false)
		return nil
	}
	defer s.Close()
	moved, err := stale(s, r, sv)
	if err != nil {
		return err
	}
	if len(moved) > 0 {
		a.view.Notef("stale: %s moved since; apply would refuse it\n", strings.Join(moved, ", "))
	}
	a.view.Graph(sv.Plan, false)
	return nil
}

// alias is #Ident of the schema, but for those that look like versions.
var alias = regexp.MustCompile(`^[A-Za-uw-z][A-Za-z0-9_]*$|^v[A-Za-z_][A-Za-z0-9_]*$`)

func (a *app) promoteCmd() *cobra.Command {
	var why string
	c := &cobra.Command{
		Use:   "promote MODEL[@ALIAS|@vN] ALIAS",
		Short: "Move an alias to a version of a model",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if !alias.MatchString(args[1]) {
				if n, err := strconv.Atoi(strings.TrimPrefix(args[1], "v")); err == nil && args[1][0] == 'v' {
					return misuse("%q is no alias: it names version %d; take another name, such as production", args[1], n)
				}
				return misuse("%q is no alias: it is a letter, then letters, digits or underscores", args[1])
			}
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			v, err := s.State.Resolve(args[0])
			if err != nil {
				return err
			}
			// An alias is what services and batches load next.
			if err := s.Store.Verify(c.Context(), v.Bundle, s.FileDigest); err != nil {
				return gone(v, err)
			}
			from, err := s.State.Promote(c.Context(), v.Model, args[1], v.Version, time.Now(), why)
			if err != nil {
				return err
			}
			return a.moved(v.Model, args[1], from, v.Version)
		},
	}
	c.Flags().StringVar(&why, "why", "promoted by hand", "what is noted in the history")
	return c
}

func (a *app) moved(model, alias string, from, to int) error {
	if a.json {
		a.view.Emit("moved", map[string]any{"model": model, "alias": alias, "from": from, "to": to})
		return nil
	}
	if from > 0 {
		a.view.Printf("%s@%s is version %d (was %d)\n", model, alias, to, from)
	} else {
		a.view.Printf("%s@%s is version %d\n", model, alias, to)
	}
	return nil
}

func (a *app) rollbackCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback MODEL ALIAS",
		Short: "Move an alias back to where it was",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			from, to, err := s.State.Rollback(c.Context(), args[0], args[1], time.Now())
			if err != nil {
				return err
			}
			return a.moved(args[0], args[1], from, to)
		},
	}
}

func (a *app) predictCmd() *cobra.Command {
	var in, out, format, delimiter, encoding, folder string
	var keep []string
	c := &cobra.Command{
		Use:   "predict MODEL[@ALIAS|@vN]",
		Short: "Predict the rows of a file",
		Long:  "Predicts the rows of a CSV, TSV, JSON lines or Parquet file, with the version that was\napplied last, or that an alias or number names. Columns go by the\nfeature's name (group.feature) or by that of the column that it was trained on.\nRows are numbered from 1, without a header and blank lines. Those that do\nnot fit are counted and kept in <output>.rejects.jsonl.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if in == "-" {
				in = op.Stdin
			}
			if (len(args) == 1) == (folder != "") {
				return misuse("name a model of the registry, or a bundle's folder with --bundle")
			}
			who := folder
			files := bundle.Dir(folder)
			var v state.Version
			if folder == "" {
				s, err := a.registry(c.Context())
				if err != nil {
					return err
				}
				defer s.Close()
				if v, err = s.State.Resolve(args[0]); err != nil {
					return err
				}
				if err := s.Store.Verify(c.Context(), v.Bundle, s.FileDigest); err != nil {
					return gone(v, err)
				}
				who = fmt.Sprintf("%s version %d", v.Model, v.Version)
				files = func(name string) (string, error) {
					path, err := s.Store.Path(c.Context(), v.Bundle, name)
					if err != nil {
						return "", gone(v, err)
					}
					return path, nil
				}
			}
			b, err := bundle.Open(files)
			if err != nil {
				return err
			}
			o := op.PredictOptions{Bundle: b, Input: in, Output: out, Keep: keep, Stdout: os.Stdout}
			o.Source, _ = stdlib.Kinds().Sources.Get("file")
			o.Progress = func(done, total int64) { a.view.Live(fmt.Sprintf("%d/%d rows", done, total)) }
			if o.Format, o.Delimiter, o.Encoding = format, delimiter, encoding; delimiter == `\t` {
				o.Delimiter = "\t" // as shells hand it over
			}
			if utf8.RuneCountInString(o.Delimiter) > 1 {
				return diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("--delimiter %q is no single character", delimiter)}
			}
			if formats := []string{"", "auto", "csv", "tsv", "jsonl", "parquet"}; !slices.Contains(formats, format) {
				return diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("no format %q%s", format, diag.Suggest(format, formats[1:])), Mend: "--format is csv, tsv, jsonl or parquet"}
			}
			if a.json && (out == "" || out == "-") {
				return misuse("--json tells of a prediction on standard output; name a file for the rows with --output")
			}
			rep, err := op.Predict(c.Context(), o)
			a.view.Live("")
			if err != nil {
				return flagged(err)
			}
			var none error
			if rep.Rows == 0 && rep.Rejected > 0 {
				none = exit(1)
			}
			if a.json {
				a.view.Emit("predicted", map[string]any{"model": v.Model, "version": v.Version, "report": rep})
				return none
			}
			a.view.Notef("%s predicted by %s\n", count(rep.Rows, "row"), who)
			if rep.Rejected > 0 {
				a.view.Notef("%s did not fit the model's signature: see %s for the reasons\n", count(rep.Rejected, "row"), rep.Rejects)
			}
			return none
		},
	}
	c.Flags().StringVar(&folder, "bundle", "", "predict by the bundle in a `folder`, without a registry")
	c.Flags().StringVarP(&in, "input", "i", "", "the `file` of rows; - is the standard input, with --format")
	c.Flags().StringVarP(&out, "output", "o", "", "the `file` of predictions, in the format that its name tells (.csv, .tsv, .jsonl, .parquet); by default CSV on standard output")
	c.Flags().StringVar(&format, "format", "", "how the input is written: csv, tsv, jsonl or parquet; by default as its name tells")
	c.Flags().StringVar(&delimiter, "delimiter", "", "what stands between the columns of a CSV input; by default as in the label's source")
	c.Flags().StringVar(&encoding, "encoding", "", "how the characters of an input of text are written, as a source says it; by default as in the label's source")
	c.Flags().StringSliceVar(&keep, "keep", nil, "columns of the input to copy, separated by commas")
	if err := c.MarkFlagRequired("input"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

// settings are fields of a source as the mends of its mistakes write them.
var settings = regexp.MustCompile(`\b(format|delimiter|encoding): "`)

// flagged writes the fields of a source in an error's mends as predict's flags.
func flagged(err error) error {
	var list diag.ListError
	var one diag.Diagnostic
	if !errors.As(err, &list) && !errors.As(err, &one) {
		return err
	}
	out := diag.From(err, diag.Range{})
	for i := range out {
		out[i].Mend = settings.ReplaceAllString(out[i].Mend, `--$1 "`)
	}
	return out.Err()
}
