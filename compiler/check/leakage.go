package check

import (
	"fmt"
	"path/filepath"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/compiler/types"
)

// leakage proves that every feature of every model is known at the prediction
// time and does not hold the answer. That encoders and statistics see training
// rows only needs no proof here: the plan's transform.fit has no other rows.
func (r *resolver) leakage() {
	told := map[string]bool{}
	for _, m := range r.sys.Models {
		p := m.Problem
		if p.Label.Source == nil {
			continue
		}
		for _, in := range m.Inputs {
			for _, f := range in.Feature.Origins() {
				if key := p.Name + " " + f.Name; !told[key] {
					told[key] = true
					r.leaks(p, f, answerColumns(p), r.spec.Label(in.Path), fmt.Sprintf("model %q", m.Name))
				}
			}
		}
	}
	for _, p := range r.sys.Problems {
		if p.Rule == nil {
			continue
		}
		path := p.Baseline.Path + ".expr"
		answers := answerColumns(p)
		if len(p.RuleUses) > 0 {
			for _, c := range p.Rule.Columns() {
				for _, f := range r.features[c.Name].Origins() {
					r.leaks(p, f, answers, r.spec.Inside(path, c.Start, c.End), "the baseline")
				}
			}
			continue
		}
		for _, c := range p.Rule.Columns() {
			at := r.spec.Inside(path, c.Start, c.End)
			col := p.Label.Source.Column(c.Name)
			switch {
			case answers[c.Name]:
				r.list.Add(at, diag.LabelLeak, "the baseline reads %q, from which the label is computed", c.Name).Because("it would know the answer, and no model could beat it", "use what is known at the prediction time")
			case col != nil && p.Label.At != nil && p.Label.Source.Time.Event != nil && p.Label.Source.Time.Event != p.Label.At && col != p.Label.At:
				r.list.Add(at, diag.LateEvent, "the baseline reads %q, which holds from %q on, but the prediction is made at %q", c.Name, p.Label.Source.Time.Event.Name, p.Label.At.Name).
					Because("the row's event can come after the prediction", "predict at the event's own time")
			case col != nil && col.Delay > 0:
				r.list.Add(at, diag.LateColumn, "the baseline reads %q, which is known only %s after the row's time", c.Name, types.FormatDuration(col.Delay)).Because("it is not known at the prediction time", "use what is")
			case col != nil && p.Label.Horizon > 0 && !col.Ahead && col != p.Label.At:
				r.list.Add(at, diag.LateColumn, "the baseline reads %q of the label's own row, and the forecast is made %s before it", c.Name, types.FormatDuration(p.Label.Horizon)).
					Because("it is not known yet", `read a feature that looks back: kind: "lag" or "window"`)
			}
		}
	}
}

// answerColumns are the columns from which a problem's label is computed.
func answerColumns(p *ir.Problem) map[string]bool {
	out := map[string]bool{}
	for _, e := range p.Label.Exprs {
		for _, c := range e.Expr.Columns() {
			out[c.Name] = true
		}
	}
	return out
}

// leaks proves that a feature of a problem's rows is known when it is used, by who, at a
// place.
func (r *resolver) leaks(p *ir.Problem, f *ir.Feature, answers map[string]bool, at diag.Range, who string) {
	col, g := f.Column, f.Group
	if col == nil || g.Source == nil {
		return
	}
	also := func(d *diag.Diagnostic) {
		d.Also = append(d.Also, diag.Note{At: at, Text: who + " uses it here"})
	}
	if f.Kind == ir.Request && g.Source != p.Label.Source {
		also(r.add(g.Path+".source", diag.NoMatch, "request features of source %q in a model whose label comes from %q", g.Source.Name, p.Label.Source.Name).
			Because("request features are read from the label's own row", fmt.Sprintf("take them from %q, or join them with kind: \"snapshot\"", p.Label.Source.Name)))
		return
	}
	if f.Kind == ir.Snapshot {
		if g.Entity != nil && !r.hasKey(p, g.Entity, g.Path+".entity") {
			return
		}
		if !g.Source.Time.Static && g.Source.Time.Event != nil && !r.timed(p) {
			also(r.add(g.Path+".source", diag.NotTimed, "snapshot of source %q in a model without a prediction time", g.Source.Name).
				Because("which of its rows were known cannot be told", fmt.Sprintf("name the time column in problems.%s.label.at", p.Name)))
			return
		}
	}
	// The outcome of a row is decided window after its time and known delay later;
	// a snapshot may use earlier rows' outcomes once they are known.
	late := p.Label.Window + p.Label.Delay
	// Delays of a source and a column count from the row's event, so they only cover the
	// outcome where the event is the prediction time.
	// Under a horizon or behind a lag, the row itself is not known yet.
	back := g.Source.Time.Delay + col.Delay + f.Lag
	covered := f.Kind == ir.Snapshot && back >= late && back+p.Label.Horizon > 0 && p.Label.At != nil && g.Source.Time.Event != nil && g.Source.Time.Event.Name == p.Label.At.Name
	switch {
	case r.sameRows(g.Source, p.Label.Source) && answers[col.Name] && !covered:
		also(r.add(f.Path, diag.LabelLeak, "feature %q is a column from which the label of problem %q is computed", f.Name, p.Name).
			Because("the model would be told the answer in training, and not have it when it predicts", "leave it out"+r.historyHint(f, late-g.Source.Time.Delay)))
	case f.Kind == ir.Request && p.Label.Horizon > 0 && !col.Ahead && col != p.Label.At:
		also(r.add(f.Path, diag.LateColumn, "feature %q is of the label's own row, and the forecast is made %s before it", f.Name, types.FormatDuration(p.Label.Horizon)).
			Because("it is not known yet", `look back by kind: "lag" or "window", or declare the column ahead: true if it is known long before, as a calendar is`))
	case f.Kind == ir.Request && col.Delay > 0:
		also(r.add(f.Path, diag.LateColumn, "feature %q is known only %s after the prediction time", f.Name, types.FormatDuration(col.Delay)).
			Because("when the model predicts, it is not there yet", "leave it out, or use earlier rows' values with kind: \"snapshot\""))
	case f.Kind == ir.Snapshot && g.Source.Time.Static && col.Delay > 0:
		also(r.add(f.Path, diag.LateColumn, "feature %q has a delay, but source %q has no time to add it to", f.Name, g.Source.Name).
			Because("whether it is known at the prediction time cannot be told", "declare the source's time, or leave the column out"))
	case f.Kind == ir.Request && p.Label.At != nil && g.Source.Time.Event != nil && g.Source.Time.Event != p.Label.At && col != p.Label.At:
		also(r.add(f.Path, diag.LateEvent, "feature %q holds from %q on, but the prediction is made at %q", f.Name, g.Source.Time.Event.Name, p.Label.At.Name).
			Because("the row's event can come after the prediction", "predict at the event's own time, or join the source with kind: \"snapshot\""))
	}
}

// sameRows reports whether two sources read a file in common: then one holds the
// other's answers under the same names.
func (r *resolver) sameRows(a, b *ir.Source) bool {
	if a == b {
		return true
	}
	abs := func(f string) string {
		if filepath.IsAbs(f) {
			return filepath.Clean(f)
		}
		return filepath.Join(r.spec.Dir, f)
	}
	for _, f := range a.Files {
		for _, g := range b.Files {
			if abs(f) == abs(g) {
				return true
			}
		}
	}
	return false
}

// historyHint says how past outcomes can be used where the source has a time.
func (r *resolver) historyHint(f *ir.Feature, late time.Duration) string {
	if f.Kind == ir.Snapshot && late > 0 {
		return fmt.Sprintf("; for earlier rows' outcomes give the column delay: %q or more", types.FormatDuration(late))
	}
	return ""
}

// online proves that what is computed from a request can run where requests are.
func (r *resolver) online(f *ir.Feature, v *spec.Value) {
	if f.Online {
		return
	}
	_, bad := expr.Online(f.Expr)
	if bad == nil {
		return // the feature that it reads is at fault, and is told of there
	}
	for _, o := range f.Origins() {
		if o.Kind == ir.Request {
			r.list.Add(r.spec.Inside(v.Path, bad.Start, bad.End), diag.OfflineOnly, "%s cannot run online, and %q comes with the request", text(v)[bad.Start:bad.End], o.Name).
				Because("what is computed from a request has to run inside the model; "+expr.Why(bad), "use operations that lower to ONNX (`mlc explain MLC2111` lists them), or compute it before")
			return
		}
	}
}
