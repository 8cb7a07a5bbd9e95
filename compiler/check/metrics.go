package check

import (
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/compiler/types"
)

// metrics proves that every metric exists and fits the problem.
func (r *resolver) metrics(p *ir.Problem, v *spec.Value) {
	if v == nil {
		return
	}
	if primary := v.Get("primary"); primary != nil {
		p.Primary = r.metric(p, text(primary), r.spec.At(primary.Path))
	}
	gates := v.Get("offline")
	if gates == nil {
		return
	}
	fields := append([]*spec.Field(nil), gates.Fields...)
	slices.SortFunc(fields, func(a, b *spec.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range fields {
		m := r.metric(p, f.Name, r.spec.Label(f.Value.Path))
		g := ir.Gate{Metric: m, Path: f.Value.Path, Min: get[*float64](f.Value.Get("min")), Max: get[*float64](f.Value.Get("max")), OverBaseline: get[*float64](f.Value.Get("over_baseline"))}
		if g.Min == nil && g.Max == nil && g.OverBaseline == nil && !r.spec.Broken(f.Value.Path) {
			r.addLabel(f.Value.Path, diag.BadArgs, "gate %q asks for nothing", f.Name).Because("", "give min, max or over_baseline")
		}
		if g.Min != nil && g.Max != nil && *g.Min > *g.Max {
			r.add(f.Value.Path+".min", diag.BadArgs, "gate %q can never be passed: min %v is above max %v", f.Name, *g.Min, *g.Max)
		}
		if m != nil {
			p.Gates = append(p.Gates, g)
		}
	}
}

func (r *resolver) metric(p *ir.Problem, name string, at diag.Range) kind.Metric {
	if name == "" {
		return nil
	}
	m, ok := r.kinds.Metrics.Get(name)
	if !ok {
		r.list.Add(at, diag.NoName, "no metric %q%s", name, diag.Suggest(name, r.kinds.Metrics.Names()))
		return nil
	}
	if p.Task != "" && !slices.Contains(m.Tasks(), p.Task) {
		var fit []string
		for _, n := range r.kinds.Metrics.Names() {
			if o, _ := r.kinds.Metrics.Get(n); slices.Contains(o.Tasks(), p.Task) {
				fit = append(fit, n)
			}
		}
		r.list.Add(at, diag.MetricUnfit, "metric %q does not fit a %s problem", name, p.Task).Because("it is for "+list(m.Tasks())+" problems", "use "+list(fit))
		return nil
	}
	return m
}

func list(names []string) string {
	out := ""
	for i, n := range names {
		switch {
		case i > 0 && i == len(names)-1:
			out += " or "
		case i > 0:
			out += ", "
		}
		out += n
	}
	return out
}

// baseline proves that there is something to beat.
func (r *resolver) baseline(p *ir.Problem, v *spec.Value) {
	b := v.Get("baseline")
	if b == nil {
		if !r.spec.Broken(v.Path + ".baseline") {
			r.addLabel(v.Path, diag.NoBaseline, "problem %q has no baseline", p.Name).
				Because("a score says nothing until it is better than what needs no model", `add baseline: kind: "prior", or a rule that people use today`)
		}
		return
	}
	p.Baseline = r.trainer(b, p.Task)
	if p.Baseline == nil || p.Baseline.Kind.Name() != "rule" || p.Label.Source == nil {
		return
	}
	scope, names, miss := r.sourceScope(p.Label.Source)
	n := r.expression(b.Get("expr"), scope, names, miss)
	if n == nil || n.Type == types.Invalid {
		return
	}
	if want, ok := ruleType(p.Task, n.Type); !ok {
		r.add(b.Path+".expr", diag.ExprType, "the rule of a %s problem is %s, this is a %s", p.Task, want, n.Type)
		return
	}
	p.Rule = n
}
