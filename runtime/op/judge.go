package op

import (
	"context"
	"fmt"
	"math"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/executor"
)

// Scores are the metrics of one model, by part of the rows.
type Scores struct {
	Rows    map[string]int                `json:"rows"`
	Metrics map[string]map[string]float64 `json:"metrics"` // part, metric
	// Errors are the standard errors of the test metrics, by bootstrap; one that is not
	// there is not known.
	Errors map[string]float64 `json:"errors,omitempty"`
	// Grouped: entities were resampled and not rows.
	Grouped bool `json:"grouped,omitempty"`
	// Threshold is the one chosen on the validation rows; 0: none was.
	Threshold float64 `json:"threshold,omitempty"`
	// Folds are the test metrics of each training of a cross-validation, of which the
	// others are the mean.
	Folds []map[string]float64 `json:"folds,omitempty"`
}

// modelEvaluate predicts the validation and test rows from raw features, chooses the
// threshold on the former, and computes the metrics of both and how sure they are.
func modelEvaluate(ctx context.Context, s *Stage) error {
	a, err := decode[lower.EvaluateArgs](s)
	if err != nil {
		return err
	}
	meta, p, t, m, err := s.loaded(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	metrics, err := s.metrics(a.Metrics)
	if err != nil {
		return err
	}
	scores := Scores{Rows: map[string]int{}, Metrics: map[string]map[string]float64{}, Errors: map[string]float64{}}
	task := meta.Task
	for _, of := range []kind.Part{kind.Valid, kind.Test} {
		known, err := labels(ctx, s, task, p, of)
		if err != nil {
			return err
		}
		name := kind.PartNames[of]
		if scores.Rows[name] = len(known.ids); len(known.ids) == 0 {
			if of == kind.Valid && a.Decision != nil && a.Decision.Chosen() {
				return fault("decision", diag.BadArgs, "the threshold is chosen on them, because the test rows judge it", "give the split a validation part, or decide by a threshold of your own", "the split has no validation rows")
			}
			if of == kind.Test {
				continue
			}
		}
		pred, err := m.predict(ctx, s, t.Raw, p, of, task.Width())
		if err != nil {
			return err
		}
		if err := finite(pred, len(known.ids), name); err != nil {
			return err
		}
		if of == kind.Valid && a.Decision != nil {
			if scores.Threshold, err = evaluate.Threshold(*a.Decision, known.y, pred); err != nil && !a.Baseline {
				return fault("decision", diag.BadArgs, fmt.Sprintf("looked for among the %d validation rows", len(known.ids)), "ask for less, or improve the model", "%v", err)
			}
			task.Threshold = scores.Threshold
		}
		if len(known.ids) == 0 {
			continue
		}
		scores.Metrics[name] = map[string]float64{}
		for i, metric := range metrics {
			v, err := metric.Compute(task, known.y, pred)
			if err != nil {
				if of == kind.Valid {
					continue // only the test rows decide
				}
				return undefined(i, metric, len(known.ids), name+" rows", err)
			}
			scores.Metrics[name][metric.Name()] = v
		}
		if of == kind.Valid {
			continue
		}
		if a.Errors {
			boot := evaluate.NewBootstrap(len(known.ids), known.groups, a.Seed)
			scores.Grouped = boot.Grouped()
			errs, err := boot.MetricErrors(ctx, metrics, evaluate.Predictions{Task: task, Y: known.y, P: pred})
			if err != nil {
				return err
			}
			for i, metric := range metrics {
				if !math.IsNaN(errs[i]) {
					scores.Errors[metric.Name()] = errs[i]
				}
			}
		}
		if err := writePredictions(s.Out("predictions", "predictions.parquet"), known.ids, known.y, pred, task); err != nil {
			return err
		}
	}
	s.Report["metrics"], s.Report["rows"] = scores.Metrics, scores.Rows
	if a.Errors {
		s.Report["errors"] = scores.Errors
	}
	if a.Decision != nil {
		s.Report["threshold"] = scores.Threshold
	}
	return s.writeJSON(s.Out("metrics", "metrics.json"), scores)
}

// metrics are those of some names.
func (s *Stage) metrics(names []string) ([]kind.Metric, error) {
	out := make([]kind.Metric, len(names))
	for i, name := range names {
		var ok bool
		if out[i], ok = s.Kinds.Metrics.Get(name); !ok {
			return nil, fmt.Errorf("no metric %q", name)
		}
	}
	return out, nil
}

// undefined says that the i-th metric has no value for some rows.
func undefined(i int, m kind.Metric, rows int, which string, err error) error {
	return fault(fmt.Sprintf("metrics[%d]", i), diag.BadLabel, "", "judge by another metric, or test on other rows", "metric %s of the %d %s: %v", m.Name(), rows, which, err)
}

// predict is a fused model's predictions of one part's rows, width a row.
func (m *model) predict(ctx context.Context, s *Stage, raw []lower.RawFeature, p parts, of kind.Part, width int) ([]float32, error) {
	out := make([]float32, p.count(of)*width)
	err := m.stream(ctx, s, raw, p, of, func(at int, o []any) { copy(out[at*width:], o[0].([]float32)) })
	return out, err
}

// finite refuses predictions that are no numbers.
func finite(pred []float32, rows int, part string) error {
	wrong := 0
	for _, v := range pred {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			wrong++
		}
	}
	if wrong == 0 {
		return nil
	}
	return fault("", diag.BadArgs, "a feature reaches the model missing or infinite, and it cannot take that", `begin the features' encode with {kind: "impute"}, or leave encode out for the default`,
		"%d predictions of the %d %s rows are no numbers", wrong, rows, part)
}

// GateResult is what each demand found.
type GateResult struct {
	Passed   bool              `json:"passed"`
	Gates    []GateOutcome     `json:"gates"`
	Fairness []FairnessOutcome `json:"fairness,omitempty"`
	// Missed are the faults for which the model is not registered.
	Missed executor.Faults `json:"missed,omitempty"`
}

// GateOutcome is one gate with the values that it compared.
type GateOutcome struct {
	lower.Gate
	Value float64 `json:"value"`
	// Error is the standard error of Value, OverError that of Over; nil: not known. A
	// metric of the problem's own has none, and its value counts as it is.
	Error    *float64 `json:"error,omitempty"`
	Baseline float64  `json:"baseline"`
	// Over is how much better than the baseline the value is, in the metric's
	// own direction.
	Over      float64  `json:"over"`
	OverError *float64 `json:"over_error,omitempty"`
	Passed    bool     `json:"passed"`
}

// FairnessOutcome is one fairness rule with the groups that it compared.
type FairnessOutcome struct {
	kind.Fairness
	Value  float64         `json:"value"`
	Error  *float64        `json:"error,omitempty"`
	Groups []evaluate.Rate `json:"groups"`
	// Small are the groups with too few rows to tell.
	Small []evaluate.Rate `json:"small,omitempty"`
	// Inconclusive says that there are too few rows to tell, and no value to judge by.
	Inconclusive bool `json:"inconclusive,omitempty"`
	Passed       bool `json:"passed"`
}

// gates collects what demands miss.
type gates struct {
	subject string
	rows    int
	faults  executor.Faults
}

// measured is a value with its standard error, which is 0 where it is exact and NaN where
// it is not known, the error's floor and the width that it is of, and where the value can
// lie.
type measured struct{ value, err, floor, width, lo, hi float64 }

// minus is a difference of two such values.
func (m measured) minus(value, err float64) measured {
	return measured{value, err, m.floor, m.width, m.lo - m.hi, m.hi - m.lo}
}

// orNaN is a standard error, NaN where it is not known.
func orNaN(err *float64) float64 {
	if err == nil {
		return math.NaN()
	}
	return *err
}

// demand reports whether what was measured is at least bound (better up) or at most
// (down) with a confidence, and records a fault where it is not. A bound that no value
// misses is met whatever is known. An inconclusive one tells how many test rows would
// settle it: the error falls with the root of their number, and where it is the floor,
// 2/(rows+3) of the width, with their number.
func (g *gates) demand(arg, what string, m measured, bound float64, better kind.Direction, confidence float64) bool {
	sign := float64(better)
	gap := (m.value - bound) * sign
	worst, side, limit := m.lo, "below", "min"
	if better == kind.Down {
		worst, side, limit = m.hi, "above", "max"
	}
	z, reach := evaluate.Z(confidence), 0.0
	if z > 0 {
		reach = z * m.err
	}
	if gap-reach >= 0 || (worst-bound)*sign >= 0 {
		return true
	}
	d := diag.Diagnostic{Severity: diag.Error, Code: diag.GateFailed, Why: fmt.Sprintf("measured on the %d test rows; the model is not registered", g.rows), Mend: "look into it with `mlc show " + g.subject + " --blocked`, improve it, or lower what is asked"}
	text := fmt.Sprintf("%s of %s: %.4f", what, g.subject, m.value)
	switch {
	case gap < 0:
		d.What = fmt.Sprintf("%s is %s %s %v", text, side, limit, bound)
	case math.IsNaN(reach):
		d.What = fmt.Sprintf("%s is inconclusive: it reaches %s %v, but the %d test rows are too few or too much alike to tell how sure it is", text, limit, bound, g.rows)
		d.Mend = "test on more rows, judge by another metric, or take the value as it is with confidence: 0.5"
	case gap == 0:
		d.What = fmt.Sprintf("%s is %s %v exactly, and may be %s it by chance", text, limit, bound, side)
	default:
		d.What = fmt.Sprintf("%s ± %.4f is inconclusive: it reaches %s %v, but not with %v %% confidence", text, reach, limit, bound, 100*confidence)
		more := (reach / gap) * (reach / gap)
		if m.err == m.floor {
			width := 2 * z * m.width
			more = (width/gap - 3) / (width/reach - 3)
		}
		d.Mend = fmt.Sprintf("test on about %.0f rows, improve the model, or lower what is asked or the confidence", math.Ceil(float64(g.rows)*more))
	}
	g.faults = append(g.faults, executor.Fault{Arg: arg, Diagnostic: d})
	return false
}

// modelGate compares the test metrics, and how decisions differ between groups, with
// the spec's demands. What is missed or not sure fails the registration and not this
// step: a model that is held back has its report like any other.
func modelGate(ctx context.Context, s *Stage) error {
	a, err := decode[lower.GateArgs](s)
	if err != nil {
		return err
	}
	ours, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return err
	}
	base, err := readJSON[Scores](s.In("baseline", "metrics.json"))
	if err != nil {
		return err
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	test := kind.PartNames[kind.Test]
	boot, rows, p, err := s.tested(ctx, meta, ours.Threshold, a.Seed)
	if err != nil {
		return err
	}
	over, err := s.overBaseline(ctx, a, boot, rows, base.Threshold)
	if err != nil {
		return err
	}
	g := &gates{subject: strings.TrimPrefix(s.ID, lower.OpGate+" "), rows: ours.Rows[test]}
	res := GateResult{Gates: []GateOutcome{}}
	for i, gate := range a.Gates {
		o := GateOutcome{Gate: gate, Value: ours.Metrics[test][gate.Metric], Baseline: base.Metrics[test][gate.Metric], Passed: true, OverError: over[gate.Metric]}
		if e, ok := ours.Errors[gate.Metric]; ok {
			o.Error = &e
		}
		o.Over = (o.Value - o.Baseline) * float64(gate.Better)
		m := measured{value: o.Value, lo: math.Inf(-1), hi: math.Inf(1)}
		better := m.minus(o.Over, 0)
		if k, ok := s.Kinds.Metrics.Get(gate.Metric); ok {
			m.err, m.floor = orNaN(o.Error), boot.Floor(k, rows)
			m.lo, m.hi = k.Range()
			m.width = m.hi - m.lo
			better = m.minus(o.Over, orNaN(o.OverError))
		}
		arg, what := fmt.Sprintf("gates[%d]", i), "gate "+gate.Metric
		if gate.Min != nil {
			o.Passed = g.demand(arg+".min", what, m, *gate.Min, kind.Up, gate.Confidence) && o.Passed
		}
		if gate.Max != nil {
			o.Passed = g.demand(arg+".max", what, m, *gate.Max, kind.Down, gate.Confidence) && o.Passed
		}
		if gate.OverBaseline != nil {
			what := fmt.Sprintf("gate %s over the baseline's %.4f", gate.Metric, o.Baseline)
			o.Passed = g.demand(arg+".over_baseline", what, better, *gate.OverBaseline, kind.Up, gate.Confidence) && o.Passed
		}
		res.Gates = append(res.Gates, o)
	}
	if res.Fairness, err = s.fairness(ctx, a, boot, rows, p, g); err != nil {
		return err
	}
	res.Passed, res.Missed = len(g.faults) == 0, g.faults
	s.Report["passed"], s.Report["gates"], s.Report["fairness"] = res.Passed, res.Gates, res.Fairness
	return s.writeJSON(s.Out("result", lower.GateFile), res)
}

// tested reads the test rows' predictions, and makes a bootstrap of them.
func (s *Stage) tested(ctx context.Context, meta Meta, threshold float64, seed uint64) (*evaluate.Bootstrap, evaluate.Predictions, parts, error) {
	task := meta.Task
	task.Threshold = threshold
	ids, rows, err := readPredictions(ctx, s.In("predictions", "predictions.parquet"), task, true)
	if err != nil {
		return nil, rows, nil, err
	}
	p := make(parts, meta.Rows)
	for i := range p {
		p[i] = kind.Purged
	}
	for _, id := range ids {
		p[id] = kind.Test
	}
	known, err := labels(ctx, s, task, p, kind.Test)
	return evaluate.NewBootstrap(rows.Rows(), known.groups, seed), rows, p, err
}

// overBaseline are the standard errors, by metric, of how much better a model is than
// its baseline on the same rows.
func (s *Stage) overBaseline(ctx context.Context, a lower.GateArgs, boot *evaluate.Bootstrap, rows evaluate.Predictions, threshold float64) (map[string]*float64, error) {
	var metrics []kind.Metric
	for _, g := range a.Gates {
		if k, ok := s.Kinds.Metrics.Get(g.Metric); ok && g.OverBaseline != nil {
			metrics = append(metrics, k)
		}
	}
	if len(metrics) == 0 {
		return nil, nil
	}
	task := rows.Task
	task.Threshold = threshold
	_, base, err := readPredictions(ctx, s.In("baseline_predictions", "predictions.parquet"), task, true)
	if err != nil {
		return nil, err
	}
	errs, err := boot.PairedErrors(ctx, metrics, rows, base)
	if err != nil {
		return nil, err
	}
	out := map[string]*float64{}
	for i, m := range metrics {
		if !math.IsNaN(errs[i]) {
			out[m.Name()] = &errs[i]
		}
	}
	return out, nil
}

// fairness compares the groups of each rule.
func (s *Stage) fairness(ctx context.Context, a lower.GateArgs, boot *evaluate.Bootstrap, rows evaluate.Predictions, p parts, g *gates) ([]FairnessOutcome, error) {
	var out []FairnessOutcome
	if len(a.Fairness) == 0 {
		return nil, nil
	}
	all := make([]int32, rows.Rows())
	for i := range all {
		all[i] = int32(i)
	}
	for i, f := range a.Fairness {
		c, err := s.by(ctx, p, f.By)
		if err != nil {
			return nil, err
		}
		group := make([]string, len(all))
		names, parts := c.Cut()
		for k, rows := range parts {
			for _, r := range rows {
				group[r] = names[k]
			}
		}
		o := FairnessOutcome{Fairness: f}
		o.Groups, o.Small = evaluate.Rates(f.Metric, rows, group, all, f.Least)
		arg := fmt.Sprintf("fairness[%d]", i)
		inconclusive := func(what, mend string) {
			g.faults = append(g.faults, executor.Fault{Arg: arg, Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.GateFailed,
				What: fmt.Sprintf("fairness %s by %s of %s is inconclusive: %s", f.Metric, f.By, g.subject, what), Why: fmt.Sprintf("measured on the %d test rows; the model is not registered", g.rows), Mend: mend}})
		}
		compared := map[string]bool{}
		for _, r := range o.Groups {
			compared[r.Group] = true
		}
		value := evaluate.Disparity(f.Metric, o.Groups)
		errs, err := boot.Errors(ctx, 1, func(at []int32, out []float64) {
			rates, _ := evaluate.Rates(f.Metric, rows, group, at, 1)
			kept := rates[:0]
			for _, r := range rates {
				if compared[r.Group] {
					kept = append(kept, r)
				}
			}
			out[0] = evaluate.Disparity(f.Metric, kept)
		})
		if err != nil {
			return nil, err
		}
		o.Passed = true
		switch {
		case len(o.Small) > 0:
			r := o.Small[0]
			need := math.Ceil(float64(g.rows) * float64(f.Least) / math.Max(float64(r.Rows), 1))
			inconclusive(fmt.Sprintf("group %q has %d rows that count, not %d", r.Group, r.Rows, f.Least), fmt.Sprintf("test on about %.0f rows, or lower min_rows", need))
			o.Passed, o.Inconclusive = false, true
		case math.IsNaN(value):
			inconclusive("there are not two groups with a rate to compare", "compare by another column")
			o.Passed, o.Inconclusive = false, true
		default:
			o.Value = value
			m := measured{value: value, floor: boot.DisparityFloor(f.Metric, o.Groups), width: 1, hi: 1}
			if m.err = max(errs[0], m.floor); !math.IsNaN(m.err) {
				o.Error = &m.err
			}
			bound, better, field := f.Max, kind.Down, ".max"
			if kind.FairnessBetter(f.Metric) == kind.Up {
				bound, better, field = f.Min, kind.Up, ".min"
			}
			o.Passed = g.demand(arg+field, fmt.Sprintf("fairness %s by %s", f.Metric, f.By), m, *bound, better, f.Confidence)
		}
		out = append(out, o)
	}
	return out, nil
}

// by reads, of the test rows, a column by which slices and fairness rules group.
func (s *Stage) by(ctx context.Context, p parts, name string) (evaluate.Column, error) {
	cols, err := s.columns(ctx, p, []string{lower.ByPrefix + name})
	if err != nil {
		return evaluate.Column{}, err
	}
	cols[0].Name = name
	return cols[0], nil
}
