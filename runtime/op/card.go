package op

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/report"
)

// cell is a text that stays within its cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ").Replace(s)
}

// verdict is all that is known of how good a model is.
type verdict struct {
	ours, base Scores
	gate       GateResult
	training   struct {
		Trainer string         `json:"trainer"`
		Rows    int            `json:"rows"`
		Report  map[string]any `json:"report"`
	}
	explained evaluate.Report
}

// verdict reads it from a packaging step's inputs.
func (s *Stage) verdict() (verdict, error) {
	var v verdict
	var errs [5]error
	v.ours, errs[0] = readJSON[Scores](s.In("metrics", "metrics.json"))
	v.base, errs[1] = readJSON[Scores](s.In("baseline", "metrics.json"))
	v.gate, errs[2] = readJSON[GateResult](s.In("gate", lower.GateFile))
	v.explained, errs[3] = readJSON[evaluate.Report](s.In("explain", "evaluation.json"))
	b, err := os.ReadFile(s.In("model", "report.json"))
	if errs[4] = err; err == nil {
		errs[4] = json.Unmarshal(b, &v.training)
	}
	return v, errors.Join(errs[:]...)
}

// asked is what a gate demands, in words.
func (s *Stage) asked(g GateOutcome) string {
	var asks []string
	if g.Min != nil {
		asks = append(asks, fmt.Sprintf("at least %v", *g.Min))
	}
	if g.Max != nil {
		asks = append(asks, fmt.Sprintf("at most %v", *g.Max))
	}
	if g.OverBaseline != nil {
		asks = append(asks, fmt.Sprintf("better than the baseline by %v", *g.OverBaseline))
	}
	text := strings.Join(asks, ", ")
	if _, ok := s.Kinds.Metrics.Get(g.Metric); !ok {
		return text // the value counts as it is
	}
	return text + fmt.Sprintf(", with a confidence of %v\u00a0%%", 100*g.Confidence)
}

// report is the HTML page of a bundle.
func (s *Stage) report(a lower.PackageArgs, meta Meta, sig bundle.Signature, v verdict) ([]byte, error) {
	test, valid := kind.PartNames[kind.Test], kind.PartNames[kind.Valid]
	d := report.Data{Model: a.Name, System: a.System, Goal: a.Goal, Owner: a.Owner, Problem: a.Problem, Task: a.Task, Label: a.Label,
		Trainer: string(a.Trainer), Split: string(a.Split), Primary: a.Primary, Report: v.explained,
		Rows: map[string]int{kind.PartNames[kind.Train]: v.training.Rows, valid: v.ours.Rows[valid], test: v.ours.Rows[test]}}
	at := func(m map[string]float64, name string) *float64 {
		if x, ok := m[name]; ok {
			return &x
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(v.ours.Metrics[test])) {
		m := report.Metric{Name: name, Test: at(v.ours.Metrics[test], name), Error: at(v.ours.Errors, name), Validation: at(v.ours.Metrics[valid], name), Baseline: at(v.base.Metrics[test], name)}
		if k, ok := s.Kinds.Metrics.Get(name); ok {
			m.Better = better(k.Better())
			m.Least, m.Most = k.Range()
		}
		for _, g := range v.gate.Gates {
			if g.Metric == name {
				m.Better, m.Gate, m.Passed = better(g.Better), s.asked(g), &g.Passed
			}
		}
		d.Metrics = append(d.Metrics, m)
	}
	for _, f := range v.gate.Fairness {
		r := report.Fairness{By: f.By, Metric: f.Metric, Value: f.Value, Low: math.NaN(), High: math.NaN(), Passed: f.Passed, Groups: f.Groups}
		if f.Inconclusive {
			r.Value = math.NaN()
		}
		if f.Error != nil {
			reach := evaluate.Z(0.975) * *f.Error
			r.Low, r.High = max(f.Value-reach, 0), min(f.Value+reach, 1) // of rates
		}
		if f.Max != nil {
			r.Asked = fmt.Sprintf("at most %v", *f.Max)
		} else {
			r.Asked = fmt.Sprintf("at least %v", *f.Min)
		}
		r.Asked += fmt.Sprintf(", with a confidence of %v\u00a0%%", 100*f.Confidence)
		d.Fairness = append(d.Fairness, r)
	}
	for _, n := range slices.Sorted(maps.Keys(meta.Sources)) {
		p, err := readJSON[struct{ Rows, Quarantined int64 }](s.In("profile:"+n, "profile.json"))
		if err != nil {
			return nil, err
		}
		d.Data = append(d.Data, report.SourceLine{Name: n, Rows: p.Rows, Quarantined: p.Quarantined, Digest: meta.Sources[n]})
	}
	for _, f := range sig.Raw {
		d.Inputs = append(d.Inputs, report.InputLine{Name: f.Name, Column: f.Column, Type: string(f.Type), Sensitive: f.Sensitive})
	}
	for _, f := range slices.Sorted(maps.Keys(a.Sensitive)) {
		d.Notes = append(d.Notes, fmt.Sprintf("%s is sensitive and used because: %s", f, a.Sensitive[f]))
	}
	return report.HTML(d)
}

func better(d kind.Direction) string {
	if d == kind.Up {
		return "up"
	}
	return "down"
}

// extent is the least and the greatest of some numbers, as text.
func extent[T any](of []T, number func(T) int64) string {
	low, high := number(of[0]), number(of[0])
	for _, x := range of[1:] {
		low, high = min(low, number(x)), max(high, number(x))
	}
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// grouped are some things by their group and input, in the order of the first of each.
func grouped[T any](of []T, key func(T) [2]string) [][]T {
	var out [][]T
	at := map[[2]string]int{}
	for _, x := range of {
		i, ok := at[key(x)]
		if !ok {
			i, at[key(x)] = len(out), len(out)
			out = append(out, nil)
		}
		out[i] = append(out[i], x)
	}
	return out
}

// joined tells of joins, a line a group: each of its lags and delays is a join.
func joined(joins []JoinCounts) []string {
	var out []string
	for _, js := range grouped(joins, func(j JoinCounts) [2]string { return [2]string{j.Group, j.Input} }) {
		line := js[0].Group + " joined " + js[0].Input
		if len(js) > 1 {
			line += fmt.Sprintf(" in %d lags or delays", len(js))
		}
		line += fmt.Sprintf(": %s present, %s not found, %s expired", extent(js, func(j JoinCounts) int64 { return j.Present }),
			extent(js, func(j JoinCounts) int64 { return j.NotFound }), extent(js, func(j JoinCounts) int64 { return j.Expired }))
		if n := extent(js, func(j JoinCounts) int64 { return j.Superseded }); n != "0" {
			line += "; " + n + " of its rows superseded by others"
		}
		out = append(out, line)
	}
	return out
}

// windowed tells of windows, a line a group.
func windowed(windows []WindowCounts) []string {
	var out []string
	for _, ws := range grouped(windows, func(w WindowCounts) [2]string { return [2]string{w.Group, w.Input} }) {
		n, spans := 0, []int64(nil)
		for _, w := range ws {
			n, spans = n+w.Statistics, append(spans, w.Spans...)
		}
		slices.Sort(spans)
		var last []string
		for _, s := range slices.Compact(spans) {
			last = append(last, types.FormatDuration(time.Duration(s)*time.Microsecond))
		}
		out = append(out, fmt.Sprintf("%s over the last %s of %s, statistics: %d; %s rows with a value, %s without", ws[0].Group, strings.Join(last, ", "), ws[0].Input, n,
			extent(ws, func(w WindowCounts) int64 { return w.Present }), extent(ws, func(w WindowCounts) int64 { return w.Empty })))
	}
	return out
}

// card is the model card, in Markdown.
func (s *Stage) card(a lower.PackageArgs, meta Meta, t Transform, sig bundle.Signature, v verdict) (string, error) {
	ours, base, gate, training, explained := v.ours, v.base, v.gate, v.training, v.explained
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("# Model card: %s\n", a.Name)
	w("- System: %s", a.System)
	if a.Goal != "" {
		w("- Goal: %s", a.Goal)
	}
	if a.Owner != "" {
		w("- Owner: %s", a.Owner)
	}
	w("- Problem: %s, %s; the label is `%s`", a.Problem, a.Task, a.Label)
	if len(meta.Task.Classes) > 0 {
		w("- Classes: %s", cell(strings.Join(meta.Task.Classes, ", ")))
	}
	kept := ""
	if rounds, ok := training.Report["rounds"]; ok {
		kept = fmt.Sprintf(", which kept %v rounds", rounds)
	}
	w("- Trainer: `%s`%s", a.Trainer, kept)
	w("- Split: `%s`", a.Split)
	challenged := ""
	if a.Challenged {
		challenged = " What is asked of it over production is judged apart, against the version there is then."
	}
	w("\n## Results\n")
	w("On %d test rows; %d rows trained it. Gates: %s.%s\n", ours.Rows["test"], training.Rows, map[bool]string{true: "passed", false: "missed"}[gate.Passed], challenged)
	w("| metric | test | 95 %% interval | validation | baseline (test) | gate |")
	w("|---|---|---|---|---|---|")
	var names []string
	for n := range ours.Metrics["test"] {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		valid := "–"
		if v, ok := ours.Metrics["validation"][n]; ok {
			valid = fmt.Sprintf("%.4f", v)
		}
		demand := ""
		for _, g := range gate.Gates {
			if g.Metric == n {
				if demand = s.asked(g); !g.Passed {
					demand += ", missed"
				}
			}
		}
		interval := "–"
		if e, ok := ours.Errors[n]; ok {
			r := evaluate.Z(0.975) * e
			low, high := ours.Metrics["test"][n]-r, ours.Metrics["test"][n]+r
			if k, ok := s.Kinds.Metrics.Get(n); ok {
				least, most := k.Range()
				low, high = max(low, least), min(high, most)
			}
			interval = fmt.Sprintf("%.4f to %.4f", low, high)
		}
		if n == a.Primary {
			n += " (primary)"
		}
		w("| %s | %.4f | %s | %s | %.4f | %s |", n, ours.Metrics["test"][strings.TrimSuffix(n, " (primary)")], interval, valid, base.Metrics["test"][strings.TrimSuffix(n, " (primary)")], demand)
	}
	unit := "rows"
	if ours.Grouped {
		unit = "entities"
	}
	w("\nIntervals are by bootstrap over %s; a gate counts what is sure.", unit)
	if ours.Threshold != 0 {
		w("A row is decided to be true from a probability of %.4f on, chosen on the validation rows.", ours.Threshold)
	}
	for _, f := range gate.Fairness {
		value, missed := fmt.Sprintf("%.4f", f.Value), ""
		switch {
		case f.Inconclusive:
			value = "inconclusive"
		case !f.Passed:
			missed = ", missed"
		}
		w("- fairness %s by %s: %s over %d groups%s", f.Metric, f.By, value, len(f.Groups), missed)
	}
	if len(explained.Worst) > 0 {
		w("\n## Where it is worse\n")
		w("| rows where | rows | mean loss there | elsewhere |")
		w("|---|---|---|---|")
		for _, x := range explained.Worst {
			w("| %s | %d | %.4g | %.4g |", cell(x.Name), x.Rows, x.Loss, x.Rest)
		}
	}
	w("\n## Inputs\n")
	w("| feature | column | type | sensitive |")
	w("|---|---|---|---|")
	for _, f := range sig.Raw {
		sensitive := ""
		if f.Sensitive {
			sensitive = "yes"
		}
		w("| %s | %s | %s | %s |", cell(f.Name), cell(f.Column), f.Type, sensitive)
	}
	if len(a.Sensitive) > 0 {
		w("\nSensitive features are used because:\n")
		var fs []string
		for f := range a.Sensitive {
			fs = append(fs, f)
		}
		sort.Strings(fs)
		for _, f := range fs {
			w("- %s: %s", f, a.Sensitive[f])
		}
	}
	if len(a.Derived) > 0 {
		w("\nComputed from these:\n")
		for _, d := range a.Derived {
			w("- %s = `%s`", d.Name, d.Expr)
		}
	}
	w("\nThe matrix has %d columns.", len(t.Columns))
	if len(explained.Importance) > 0 {
		w("\n## What it looks at\n")
		w("How much worse %s gets when a feature's values are shuffled.\n", explained.Metric)
		w("| feature | drop | ± |")
		w("|---|---|---|")
		for _, i := range explained.Importance[:min(15, len(explained.Importance))] {
			w("| %s | %.4g | %.2g |", cell(i.Feature), i.Drop, i.Error)
		}
	}
	w("\n## Data\n")
	w("%d labelled rows.", meta.Rows)
	var reasons []string
	for r := range meta.Dropped {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	for _, r := range reasons {
		w("%d rows were left out: %s.", meta.Dropped[r], r)
	}
	for _, line := range append(joined(meta.Joins), windowed(meta.Windows)...) {
		w("- %s", line)
	}
	var srcs []string
	for n := range meta.Sources {
		srcs = append(srcs, n)
	}
	sort.Strings(srcs)
	for _, n := range srcs {
		p, err := readJSON[struct{ Rows, Quarantined int64 }](s.In("profile:"+n, "profile.json"))
		if err != nil {
			return "", err
		}
		w("- source %s: %d rows, %d set aside, `%s`", n, p.Rows, p.Quarantined, meta.Sources[n])
	}
	w("\nThe fused model was proved to predict what its trainer does, on %v rows (worst difference %.2g).", s.Report["proved_rows"], s.Report["worst_difference"])
	return b.String(), nil
}
