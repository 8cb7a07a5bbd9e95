package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/cmd/mlc/internal/view"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/target"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/batch"
	"mlc.dev/mlc/runtime/bundle"
)

func (a *app) runCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "run BATCH",
		Short: "Predict the rows of a batch of the spec, now",
		Long:  "Predicts the rows of a batch's source and writes them with their lineage. Where the\nrows, the model and mlc are those of the last time, nothing is done; a run that was\nstopped is gone on with.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, s, err := a.applied(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			b, err := batchOf(r, args[0])
			if err != nil {
				return err
			}
			rep, err := a.runBatch(c.Context(), s, b)
			a.view.Live("")
			if err != nil {
				return err
			}
			a.ran(b, rep)
			return nil
		},
	}
}

func (a *app) ran(b *ir.Batch, rep batch.Report) {
	if a.json {
		a.view.Emit("batch", map[string]any{"batch": b.Name, "output": b.Output, "report": rep})
		return
	}
	l := rep.Lineage
	what := fmt.Sprintf("%s predicted by %s version %s", count(l.Rows, "row"), b.Model.Model, l.Version)
	if rep.Unchanged {
		what = fmt.Sprintf("nothing to do: %d rows of %s version %s are there", l.Rows, b.Model.Model, l.Version)
	}
	a.view.Printf("%s: %s: %s\n", b.Name, b.Output, what)
	if l.Rejected > 0 {
		a.view.Notef("%s did not fit the model's signature: see %s for the reasons\n", count(l.Rejected, "row"), rep.Rejects)
	}
}

// applied opens what has been applied before.
func (a *app) applied(ctx context.Context) (*compiler.Result, *runtime.System, error) {
	r, s, err := a.openTrained(ctx)
	if err == nil && s.State == nil {
		return r, s, errors.Join(diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: "nothing has been applied here yet", Mend: "run `mlc apply`"}, s.Close())
	}
	return r, s, err
}

func batchOf(r *compiler.Result, name string) (*ir.Batch, error) {
	var names []string
	for _, b := range r.Batches {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	for _, s := range r.Services {
		if s.Name == name {
			return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("%q is a service: it answers requests", name), Mend: fmt.Sprintf("`mlc serve %s` runs it", name)}
		}
	}
	return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("no batch %q in the spec%s", name, diag.Suggest(name, names)), Mend: `declare it under serving, with kind: "batch"`}
}

// runBatch runs a batch with the version that its alias means now.
func (a *app) runBatch(ctx context.Context, s *runtime.System, b *ir.Batch) (batch.Report, error) {
	v, err := s.State.Resolve(b.Model.String())
	if err != nil {
		return batch.Report{}, err
	}
	if err := s.Store.Verify(ctx, v.Bundle, s.FileDigest); err != nil {
		return batch.Report{}, gone(v, err)
	}
	o := batch.Options{Batch: b.Batch, Version: strconv.Itoa(v.Version), Digest: v.Bundle, Source: b.Rows.Kind, Args: b.Rows.Args, MaxQuarantine: b.Rows.MaxQuarantine, MLC: about.Version()}
	if b.Rows.Kind.Ordered(b.Rows.Args) {
		o.Columns = b.Rows.ColumnNames()
	}
	o.Output = s.Path(b.Output)
	// The files are looked for anew: a scheduler runs for long, and they come and go.
	files, faults := b.Rows.Kind.Files(b.Rows.Args, s.Dir)
	if len(faults) > 0 {
		return batch.Report{}, diag.Diagnostic{Severity: diag.Error, Code: faults[0].Code, What: fmt.Sprintf("source %q: %s", b.Rows.Name, faults[0].What), Why: faults[0].Why, Mend: faults[0].Mend}
	}
	for _, f := range files {
		o.Files = append(o.Files, s.Path(f))
	}
	if o.Bundle, err = bundle.Open(func(name string) (string, error) { return s.Store.Path(ctx, v.Bundle, name) }); err != nil {
		return batch.Report{}, gone(v, err)
	}
	o.Progress = func(file string, done, total int64) {
		a.view.Live(fmt.Sprintf("%s: %d/%d rows of %s", b.Name, done, total, file))
	}
	return batch.Run(ctx, o)
}

func (a *app) scheduleCmd() *cobra.Command {
	var next bool
	var cron, image, folder, version string
	c := &cobra.Command{
		Use:   "schedule",
		Short: "Run the batches of the spec when they are due",
		Long:  "Runs the batches of the spec by their schedules, in UTC, until it is stopped. A run\nthat was missed is made up once. With --next it tells what is due when, and with\n--cron it prints the same for a system that has a clock of its own.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.compileFor(c.Context(), true)
			if err != nil {
				return err
			}
			var batches []service.Batch
			for _, b := range r.Batches {
				batches = append(batches, b.Batch)
			}
			state := r.Env.Beside("schedule.json")
			switch {
			case next && cron != "":
				return misuse("--next and --cron tell different things: give one of them")
			case next:
				due, err := batch.Next(batches, state)
				if err != nil {
					return err
				}
				a.due(due)
				return nil
			case cron != "":
				_, p, err := pipeline(r, version)
				if err != nil {
					return err
				}
				text, err := target.Cron(cron, target.Batches{Pipeline: p, Root: r.Spec.Dir, Image: image, Folder: folder, Batches: batches})
				if err != nil {
					return err
				}
				a.view.Printf("%s", text)
				return nil
			}
			if !slices.ContainsFunc(batches, func(b service.Batch) bool { return b.Schedule != "" }) {
				return diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: "no batch of the spec has a schedule", Mend: "give one a schedule, or run it by hand: `mlc run BATCH`"}
			}
			r, s, err := a.applied(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			return batch.Schedule(c.Context(), batch.ScheduleOptions{Batches: batches, State: state,
				Run: func(ctx context.Context, b service.Batch) error {
					found, err := batchOf(r, b.Name)
					if err != nil {
						return err
					}
					rep, err := a.runBatch(ctx, s, found)
					if err == nil {
						a.ran(found, rep)
					}
					return err
				},
				Told: func(e batch.Event) {
					if e.State != nil {
						a.view.Notef("%s: %v\n", e.Batch, e.State)
					}
					switch {
					case e.Err != nil && a.json:
						a.view.Emit("batch_failed", map[string]any{"batch": e.Batch, "due": e.Due, "begun": e.Begun, "ended": e.Ended, "diagnostics": diag.From(e.Err, diag.Range{})})
					case e.Err != nil:
						a.view.Notef("%s: due %s: %v\n", e.Batch, e.Due.Format(time.RFC3339), e.Err)
					case e.Ended.IsZero() && a.json:
						a.view.Emit("batch_begun", map[string]any{"batch": e.Batch, "due": e.Due, "begun": e.Begun})
					}
				}})
		},
	}
	c.Flags().BoolVar(&next, "next", false, "tell what is due when, and run nothing")
	c.Flags().StringVar(&cron, "cron", "", "print the schedules in a `form`: "+strings.Join(target.CronNames(), ", "))
	c.Flags().StringVar(&image, "image", "", "for kubernetes: a `reference` of an image with mlc and the spec")
	c.Flags().StringVar(&folder, "image-dir", "/spec", "for kubernetes: the `folder` of the spec in the image")
	c.Flags().StringVar(&version, "mlc-version", release(), "for github: the `version` of mlc to install")
	return c
}

func (a *app) due(due []batch.Due) {
	if a.json {
		a.view.Emit("due", map[string]any{"batches": due})
		return
	}
	for _, d := range due {
		when := "by hand"
		if !d.Next.IsZero() {
			when = d.Next.UTC().Format(time.RFC3339)
		}
		last := ""
		if !d.Next.IsZero() {
			last = "never ran by schedule"
		}
		switch {
		case d.Last == nil || d.Last.Begun.IsZero():
		case d.Last.Ended.IsZero():
			last = "began " + d.Last.Begun.UTC().Format(time.RFC3339) + " and has not ended: it is at work, or was interrupted and is run again"
		default:
			last = "last ran " + d.Last.Ended.UTC().Format(time.RFC3339) + ", took " + view.Seconds(d.Last.Ended.Sub(d.Last.Begun).Seconds())
		}
		if d.Last != nil && d.Last.Error != "" {
			last += ": " + d.Last.Error
		}
		a.view.Printf("%s\n", strings.TrimRight(d.Batch+"  "+when+"  "+last, " "))
	}
}
