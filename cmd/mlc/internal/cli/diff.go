package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/interrupt"
	"mlc.dev/mlc/cmd/mlc/internal/view"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/compare"
	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib"
)

func (a *app) diffCmd() *cobra.Command {
	var html string
	var markdown bool
	c := &cobra.Command{
		Use:   "diff [A B]",
		Short: "Show how two runs or two versions of a model differ",
		Long: "Shows how two runs (by number, as `mlc status` tells them) or two versions of a model\n" +
			"(churn@v1 churn@production) differ: in the spec, in code, in the data, in metrics with\n" +
			"their intervals, gates, slices and what the models look at. What is the same is only\n" +
			"counted; --json lists it, too. Without names it takes the last run that ended well and\n" +
			"the newest before it that did otherwise.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 || len(args) > 2 {
				return misuse("name two runs or two versions, or none")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			l := &compare.Loader{State: s.State, Store: s.Store, Kinds: stdlib.Kinds()}
			x, y, err := pairOf(c.Context(), l, append(args, "", "")[:2])
			if err != nil {
				return err
			}
			d, err := compare.Sides(c.Context(), x, y, l.Kinds)
			if err != nil {
				return err
			}
			if html != "" {
				page, err := view.DiffHTML(d, x, y)
				if err != nil {
					return err
				}
				if err := op.WriteFile(html, page); err != nil {
					return err
				}
				a.view.Notef("saved to %s\n", html)
			}
			a.view.Diff(d, markdown)
			return nil
		},
	}
	c.Flags().BoolVar(&markdown, "markdown", false, "print for a pull request")
	c.Flags().StringVar(&html, "html", "", "write a page with the plots of both to a `file`, too")
	return c
}

// pairOf loads the sides of two names; of "", those of the default.
func pairOf(ctx context.Context, l *compare.Loader, names []string) (x, y *compare.Side, err error) {
	if names[0] == "" || names[1] == "" {
		from, to, err := l.Default()
		if err != nil {
			return nil, nil, err
		}
		if names[0] == "" {
			names[0] = from
		}
		if names[1] == "" {
			names[1] = to
		}
	}
	return l.Pair(ctx, names[0], names[1])
}

func (a *app) blameCmd() *cobra.Command {
	var model, from, to string
	c := &cobra.Command{
		Use:   "blame METRIC",
		Short: "Find which change moved a metric between two runs",
		Long: "Finds which change of the spec or of the data moved a metric from one run to another,\n" +
			"by running mixtures of the two: what changed is switched one by one, in all orders of\n" +
			"up to four changes, and in one and its reverse of more. Most steps of a mixture are\n" +
			"cached. Nothing is registered, no alias moves, and no run is recorded; what the\n" +
			"mixtures made is kept until `mlc gc` finds it.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.registry(c.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			s.Resolve = oci.Resolve
			if err := computes(s); err != nil {
				return err
			}
			l := &compare.Loader{State: s.State, Store: s.Store, Kinds: stdlib.Kinds()}
			x, y, err := pairOf(c.Context(), l, []string{from, to})
			if err != nil {
				return err
			}
			b := compare.Blamer{Loader: l, Metric: args[0], Model: model, Digest: s.InputDigest,
				Verify: func(ctx context.Context, tree plan.Digest) error { return s.Store.Verify(ctx, tree, s.FileDigest) },
				Run: func(ctx context.Context, p *plan.Plan) ([]map[string]plan.Digest, error) {
					return a.mixtures(ctx, s, p)
				}}
			out, err := b.Blame(c.Context(), x, y)
			if err != nil {
				return err
			}
			a.view.Blame(out)
			return nil
		},
	}
	c.Flags().StringVar(&model, "model", "", "the `model`, where several have the metric")
	c.Flags().StringVar(&from, "from", "", "the `run` or version to begin from")
	c.Flags().StringVar(&to, "to", "", "the `run` or version whose metric is blamed")
	return c
}

// mixtures runs a plan apart from the runs, and returns what each step made, nil
// where it failed. What failed is told as a warning: the other mixtures count.
func (a *app) mixtures(ctx context.Context, s *runtime.System, p *plan.Plan) ([]map[string]plan.Digest, error) {
	nowhere := func(string) diag.Range { return diag.Range{} }
	decide := func() ([]runtime.Decision, error) {
		ds, err := s.Decide(ctx, p)
		var step runtime.StepError
		if errors.As(err, &step) && ctx.Err() == nil {
			return nil, step.List(nowhere).Err()
		}
		return ds, err
	}
	ds, err := decide()
	if err != nil {
		return nil, err
	}
	if sum := view.Summarise(ds); sum.Changes() {
		if _, err := ort.Find(); err != nil {
			return nil, err
		}
		ex, err := executors(s)
		if err != nil {
			return nil, err
		}
		if !a.json {
			a.view.Notef("mixtures: %s\n", sum)
		}
		_, list := s.Apply(ctx, runtime.Options{Plan: p, At: nowhere, Now: time.Now, OnEvent: view.NewProgress(a.view).Event, Executor: ex, Apart: true})
		a.view.Live("")
		if ctx.Err() != nil {
			return nil, exit(interrupt.Status(ctx))
		}
		for i := range list {
			if list[i].Code == diag.Locked {
				return nil, list.Err()
			}
			list[i].Severity = diag.Warning
		}
		a.view.Diagnostics(list)
		if ds, err = decide(); err != nil {
			return nil, err
		}
	}
	out := make([]map[string]plan.Digest, len(ds))
	for i, d := range ds {
		if d.Action != runtime.Cached {
			continue
		}
		r, _, err := s.State.Step(d.Key)
		if err != nil {
			return nil, err
		}
		out[i] = r.Outputs
	}
	return out, nil
}
