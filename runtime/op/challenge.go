package op

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/table"
)

// ChallengeResult is what the comparison with the version in production found.
type ChallengeResult struct {
	// Champion is whether there is one, and it is not this very model.
	Champion bool               `json:"champion"`
	Gates    []ChallengeOutcome `json:"gates"`
}

// ChallengeOutcome is one demand with the values that it compared.
type ChallengeOutcome struct {
	lower.Challenge
	Value    float64  `json:"value"`
	Champion float64  `json:"champion"`
	Margin   float64  `json:"margin"` // how much better, in the metric's own direction
	Error    *float64 `json:"error,omitempty"`
}

// modelChallenge compares a model with the version in production on the test rows, and
// fails unless it is surely as much better as asked. Without a champion, and for the
// champion's own model again, there is nothing to beat.
func modelChallenge(ctx context.Context, s *Stage) error {
	a, err := decode[lower.ChallengeArgs](s)
	if err != nil {
		return err
	}
	res := ChallengeResult{Gates: []ChallengeOutcome{}}
	done := func() error {
		s.Report["gates"] = res.Gates
		return s.writeJSON(s.Out("result", "challenge.json"), res)
	}
	if _, err := os.Stat(s.In("champion", bundle.ModelFile)); os.IsNotExist(err) {
		return done()
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	scores, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return err
	}
	boot, ours, p, err := s.tested(ctx, meta, scores.Threshold, a.Seed)
	if err != nil {
		return err
	}
	theirs, err := s.champion(ctx, meta.Task, p, ours)
	if err != nil {
		return err
	}
	if slices.Equal(ours.P, theirs.P) {
		return done()
	}
	res.Champion = true
	metrics := make([]kind.Metric, len(a.Gates))
	for i, g := range a.Gates {
		var ok bool
		if metrics[i], ok = s.Kinds.Metrics.Get(g.Metric); !ok {
			return fmt.Errorf("no metric %q", g.Metric)
		}
	}
	errs, err := boot.PairedErrors(ctx, metrics, ours, theirs)
	if err != nil {
		return err
	}
	g := &gates{subject: strings.TrimPrefix(s.ID, lower.OpChallenge+" "), rows: ours.Rows()}
	for i, c := range a.Gates {
		o := ChallengeOutcome{Challenge: c, Value: ours.Metric(metrics[i]), Champion: theirs.Metric(metrics[i])}
		if !math.IsNaN(errs[i]) {
			o.Error = &errs[i]
		}
		m := measured{floor: boot.Floor(metrics[i], ours)}
		m.lo, m.hi = metrics[i].Range()
		m.width = m.hi - m.lo
		o.Margin = (o.Value - o.Champion) * float64(c.Better)
		g.demand(fmt.Sprintf("gates[%d]", i), fmt.Sprintf("gate %s over %s's %.4f", c.Metric, a.Alias, o.Champion), m.minus(o.Margin, errs[i]), c.Over, kind.Up, c.Confidence)
		res.Gates = append(res.Gates, o)
	}
	if len(g.faults) > 0 {
		return g.faults
	}
	return done()
}

// champion is what the version in production predicts of the test rows.
func (s *Stage) champion(ctx context.Context, task kind.Task, p parts, ours evaluate.Predictions) (evaluate.Predictions, error) {
	out := evaluate.Predictions{Task: task, Y: ours.Y, Fold: ours.Fold}
	b, err := bundle.Open(bundle.Dir(s.In("champion", "")))
	if err != nil {
		return out, err
	}
	other := func(what string, args ...any) error {
		return fault("gates", diag.GateFailed, "the two cannot be compared on the same rows; the model is not registered", "leave over_production out for this version, or compare by hand", what, args...)
	}
	if theirs := b.Signature.Task; theirs.Kind != task.Kind || !slices.Equal(theirs.Classes, task.Classes) || !slices.Equal(theirs.Quantiles, task.Quantiles) {
		return out, other("the version in production predicts something else (%s %s%v)", theirs.Kind, strings.Join(theirs.Classes, ", "), theirs.Quantiles)
	}
	out.Task.Threshold = b.Signature.Task.Threshold
	var raw []lower.RawFeature
	for _, in := range b.Signature.Inputs {
		if _, err := table.Natural(s.In("dataset", "rows.parquet"), []string{in.Name}); err != nil {
			return out, other("the version in production takes feature %q, which this model's rows do not have", in.Name)
		}
		t := types.Float
		if in.DType == "string" {
			t = types.String
		}
		raw = append(raw, lower.RawFeature{Name: in.Name, Type: t})
	}
	m, err := openModel(b.Model)
	if err != nil {
		return out, err
	}
	defer m.Close()
	out.P, err = m.predict(ctx, s, raw, p, kind.Test, task.Width())
	return out, err
}
