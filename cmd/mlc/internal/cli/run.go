package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/cmd/internal/interrupt"
	"mlc.dev/mlc/cmd/mlc/internal/view"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/secret"
	"mlc.dev/mlc/stdlib"
)

func (a *app) planCmd() *cobra.Command {
	var out string
	var detailed, markdown bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would run, and why",
		Long:  "Shows for each step whether it runs, is cached, or may run, with the reason.\nRuns nothing and takes no lock.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, s, err := a.open(c.Context(), true)
			if err != nil {
				return err
			}
			defer s.Close()
			ds, err := decide(c.Context(), r, s)
			if err != nil {
				return err
			}
			if err := a.budget(r, ds); err != nil {
				return err
			}
			if _, err := ort.Find(); err != nil {
				list := diag.From(err, diag.Range{})
				for i := range list {
					list[i].Severity = diag.Warning
				}
				a.view.Diagnostics(list)
			}
			if markdown {
				a.view.PlanMarkdown(r.Plan, ds, place(r))
			} else {
				a.view.Plan(r.Plan, ds, place(r))
			}
			if out != "" {
				if err := a.save(s, r, out); err != nil {
					return err
				}
			}
			if detailed && view.Summarise(ds).Changes() {
				return exit(2)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "save the plan to a `file` that apply takes")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 where something would run")
	c.Flags().BoolVar(&markdown, "markdown", false, "print for a pull request")
	return c
}

// decide decides the plan; what keeps a step from it is told at its line.
func decide(ctx context.Context, r *compiler.Result, s *runtime.System) ([]runtime.Decision, error) {
	ds, err := s.Decide(ctx, r.Plan)
	var step runtime.StepError
	if errors.As(err, &step) && ctx.Err() == nil {
		return nil, step.List(place(r)).Err()
	}
	return ds, err
}

// unset tells of secrets that are not there, before what runs ahead of their commands does.
func unset(r *compiler.Result, s *runtime.System, ds []runtime.Decision) error {
	var list diag.List
	for i := range ds {
		if ds[i].Action != runtime.WillRun {
			continue
		}
		if _, err := executor.Secrets(&r.Plan.Steps[i], secret.In(s.Dir)); err != nil {
			list = append(list, runtime.StepError{Step: r.Plan.Steps[i], Err: err}.List(place(r))...)
		}
	}
	return list.Err()
}

// budget proves that what would run costs no more than the spec allows, by what
// it took before.
func (a *app) budget(r *compiler.Result, ds []runtime.Decision) error {
	sum := view.Summarise(ds)
	if r.System.TrainBudget <= 0 || sum.USD <= r.System.TrainBudget {
		return nil
	}
	var list diag.List
	list.Add(r.At("budget.train"), diag.OverBudget, "this would cost about $%.4f; the budget is $%v", sum.USD, r.System.TrainBudget).
		Because("steps are priced by the time that they took before and their runner's usd_per_hour", "raise the budget, or make less run")
	a.view.Diagnostics(list)
	return exit(1)
}

// inputs are the digests of all files that a plan reads.
func inputs(s *runtime.System, p *plan.Plan) (map[string]plan.Digest, error) {
	out := map[string]plan.Digest{}
	for _, st := range p.Steps {
		for _, in := range st.Inputs {
			for _, f := range in.Files {
				d, err := s.FileDigest(f)
				if err != nil {
					return nil, err
				}
				out[f] = d
			}
		}
	}
	return out, nil
}

// save writes the plan, over another one or over nothing.
func (a *app) save(s *runtime.System, r *compiler.Result, path string) error {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		if _, err := loadPlan(path); err != nil {
			return misuse("%s is there, and is no saved plan: name another file", path)
		}
	}
	sv := plan.Saved{Format: plan.SavedFormat, MLC: about.Version(), Created: time.Now().UTC(), Environment: r.Env.Name, Digest: r.Plan.Digest(), Plan: r.Plan}
	var err error
	if sv.Inputs, err = inputs(s, r.Plan); err != nil {
		return err
	}
	if s.State != nil {
		if sv.Lineage, sv.Serial, err = s.State.Lineage(); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(sv, "", " ")
	if err != nil {
		return err
	}
	if err := op.WriteFile(path, b); err != nil {
		return err
	}
	a.view.Notef("saved to %s\n", path)
	return nil
}

func loadPlan(path string) (*plan.Saved, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.FileMissing, What: fmt.Sprintf("no file %q", path), Mend: "`mlc plan --out FILE` saves a plan"}
	}
	var sv plan.Saved
	if err := json.Unmarshal(b, &sv); err != nil || sv.Format != plan.SavedFormat || sv.Plan == nil {
		return nil, fmt.Errorf("%s is not a plan that this mlc saved (%s)", path, plan.SavedFormat)
	}
	return &sv, nil
}

// stale tells how the world has moved since a plan was saved.
func stale(s *runtime.System, r *compiler.Result, sv *plan.Saved) ([]string, error) {
	var out []string
	if sv.Digest != r.Plan.Digest() {
		out = append(out, "the spec")
	}
	if sv.Environment != r.Env.Name {
		out = append(out, fmt.Sprintf("the environment (saved for %q)", sv.Environment))
	}
	if s.State != nil {
		lineage, serial, err := s.State.Lineage()
		if err != nil {
			return nil, err
		}
		if sv.Lineage == "" && serial > 0 || sv.Lineage != "" && (lineage != sv.Lineage || serial != sv.Serial) {
			out = append(out, "the state (something was applied or promoted)")
		}
	}
	now, err := inputs(s, r.Plan)
	if err != nil {
		return nil, err
	}
	for _, f := range slices.Sorted(maps.Keys(now)) {
		if sv.Inputs[f] != now[f] {
			out = append(out, "the file "+f)
		}
	}
	return out, nil
}

func (a *app) applyCmd() *cobra.Command {
	var renamed bool
	c := &cobra.Command{
		Use:   "apply [PLAN]",
		Short: "Run what has to run",
		Long:  "Runs what has to run; what is finished stays finished, whatever happens, so\napply again goes on. With a saved plan it refuses to run where the spec, the\nenvironment, the data or the state has moved since.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, s, err := a.open(c.Context(), false)
			if err != nil {
				return err
			}
			defer s.Close()
			if len(args) == 1 {
				sv, err := loadPlan(args[0])
				if err != nil {
					return err
				}
				moved, err := stale(s, r, sv)
				if err != nil {
					return err
				}
				if len(moved) > 0 {
					var list diag.List
					for _, m := range moved {
						list.Add(diag.Range{}, diag.StalePlan, "since %s was saved, %s has moved", args[0], m).Because("what would run is not what was looked at", "plan again")
					}
					return list.Err()
				}
			}
			return a.apply(c.Context(), r, s, renamed)
		},
	}
	c.Flags().BoolVar(&renamed, "renamed", false, "the system had another name when it was applied last")
	return c
}

func (a *app) apply(ctx context.Context, r *compiler.Result, s *runtime.System, renamed bool) error {
	ds, err := decide(ctx, r, s)
	if err != nil {
		return err
	}
	if err := a.budget(r, ds); err != nil {
		return err
	}
	if view.Summarise(ds).Changes() {
		if _, err := ort.Find(); err != nil { // told once, and before anything runs
			return err
		}
	}
	if err := unset(r, s, ds); err != nil {
		return err
	}
	ex, err := executors(s)
	if err != nil {
		return err
	}
	start := time.Now()
	out, list := s.Apply(ctx, runtime.Options{Plan: r.Plan, At: place(r), Now: time.Now, OnEvent: view.NewProgress(a.view).Event,
		Executor: ex, Renamed: renamed})
	a.view.Live("")
	list.Sort()
	a.view.Diagnostics(list)
	if out.Run > 0 {
		a.view.Outcome(out, time.Since(start).Seconds())
	}
	switch {
	case ctx.Err() != nil:
		return exit(interrupt.Status(ctx))
	case list.HasErrors():
		return exit(1)
	}
	return nil
}

// stageCmd is what the executors run; it is the contract of runtime/executor.
func (a *app) stageCmd() *cobra.Command {
	var events string
	c := &cobra.Command{
		Use:    "stage FOLDER",
		Short:  "Run one step in a folder that an executor laid out",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			line, err := executor.OpenLine(events)
			if err != nil {
				return err
			}
			go func() {
				<-line.Gone
				cancel()
				time.AfterFunc(2*time.Second, func() { os.Exit(1) })
			}()
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if err := op.Run(ctx, dir, stdlib.Kinds(), line.Send); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return exit(1)
			}
			return nil
		},
	}
	c.Flags().StringVar(&events, "events", "", "tell events to the unix socket at `PATH`, and end when it closes")
	return c
}
