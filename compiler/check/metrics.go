package check

import (
	"fmt"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
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
	r.customMetrics(p, v.Get("custom"))
	if list := v.Get("slices"); list != nil {
		for _, e := range list.List {
			if c := r.labelColumn(p, e); c != nil && !slices.Contains(p.Slices, c) {
				p.Slices = append(p.Slices, c)
			}
		}
	}
	if primary := v.Get("primary"); primary != nil {
		p.Primary, _ = r.metric(p, text(primary), r.spec.At(primary.Path))
	}
	gates := v.Get("offline")
	if gates == nil {
		return
	}
	for _, f := range byName(gates) {
		m, ok := r.metric(p, f.Name, r.spec.Label(f.Value.Path))
		g := ir.Gate{Metric: m, Path: f.Value.Path, Min: get[*float64](f.Value.Get("min")), Max: get[*float64](f.Value.Get("max")), OverBaseline: get[*float64](f.Value.Get("over_baseline")), OverProduction: get[*float64](f.Value.Get("over_production")), Confidence: get[float64](f.Value.Get("confidence"))}
		if m.Custom != nil && g.OverProduction != nil {
			r.add(f.Value.Path+".over_production", diag.BadArgs, "gate %q of the problem's own metric compares with the version in production", f.Name).Because("a metric of the problem's own is measured once, when its model is made", "give min, max or over_baseline")
		}
		if g.Min == nil && g.Max == nil && g.OverBaseline == nil && g.OverProduction == nil && !r.spec.Broken(f.Value.Path) {
			r.addLabel(f.Value.Path, diag.BadArgs, "gate %q asks for nothing", f.Name).Because("", "give min, max, over_baseline or over_production")
		}
		if g.Min != nil && g.Max != nil && *g.Min > *g.Max {
			r.add(f.Value.Path+".min", diag.BadArgs, "gate %q can never be passed: min %v is above max %v", f.Name, *g.Min, *g.Max)
		}
		if ok {
			r.reachable(g)
			r.lopsided(g)
			p.Gates = append(p.Gates, g)
		}
	}
}

// reachable proves that a gate's bounds lie where the metric's values can.
func (r *resolver) reachable(g ir.Gate) {
	if g.Metric.Kind == nil {
		return
	}
	lo, hi := g.Metric.Kind.Range()
	for _, b := range []struct {
		name        string
		v           *float64
		least, most float64
	}{{"min", g.Min, lo, hi}, {"max", g.Max, lo, hi}, {"over_baseline", g.OverBaseline, lo - hi, hi - lo}, {"over_production", g.OverProduction, lo - hi, hi - lo}} {
		if b.v == nil || *b.v >= b.least && *b.v <= b.most {
			continue
		}
		mend := fmt.Sprintf("write a value from %v to %v", b.least, b.most)
		if part := *b.v / 100; b.most == 1 && part >= b.least && part <= 1 {
			mend = fmt.Sprintf("%v %% is %v", *b.v, part)
		}
		r.add(g.Path+"."+b.name, diag.BadArgs, "gate %q means nothing: %s %v is no value that it can have", g.Metric.Name, b.name, *b.v).Because(fmt.Sprintf("%s is from %v to %v", g.Metric.Name, lo, hi), mend)
	}
}

// lopsided warns of a gate that holds back good values and lets all bad ones pass.
func (r *resolver) lopsided(g ir.Gate) {
	if g.Metric.Kind == nil || g.OverBaseline != nil || g.OverProduction != nil {
		return
	}
	bad, good, is := "min", "max", "lower"
	if g.Metric.Kind.Better() == kind.Up {
		bad, good, is = "max", "min", "higher"
	}
	if bounds := map[string]*float64{"min": g.Min, "max": g.Max}; bounds[bad] != nil && bounds[good] == nil && !r.spec.Broken(g.Path) {
		r.add(g.Path+"."+bad, diag.BadArgs, "gate %q lets any value pass that is worse: %s is better", g.Metric.Name, is).
			Because(bad+" alone holds back what is good", "write "+good).Severity = diag.Warning
	}
}

// labelColumn is the column of the label's source that a value names, or nil.
func (r *resolver) labelColumn(p *ir.Problem, v *spec.Value) *ir.Column {
	s, name := p.Label.Source, text(v)
	if s == nil || name == "" {
		return nil
	}
	c := s.Column(name)
	if c == nil && !r.unsure(s, name) {
		r.noColumn(r.spec.At(v.Path), s, name)
	}
	return c
}

// decision proves that a threshold has something to decide.
func (r *resolver) decision(p *ir.Problem, v *spec.Value) {
	if v == nil || p.Task == "" || r.spec.Broken(v.Path) {
		return
	}
	if p.Task != kind.Binary && p.Task != kind.Anomaly {
		r.addLabel(v.Path, diag.BadArgs, "a decision for problem %q, which is %s", p.Name, p.Task).Because("it decides between yes and no", "leave it out")
		return
	}
	d := get[kind.Decision](v)
	p.Decision = &d
	if d.Kind == kind.DecideCost && d.FalsePositive+d.FalseNegative == 0 {
		r.addLabel(v.Path, diag.BadArgs, "every error costs nothing").Because("no threshold is better than another", "say what an error costs")
	}
}

// byName are a value's fields in the order of their names.
func byName(v *spec.Value) []*spec.Field {
	out := append([]*spec.Field(nil), v.Fields...)
	slices.SortFunc(out, func(a, b *spec.Field) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// customMetrics resolves the metrics that a problem brings along.
func (r *resolver) customMetrics(p *ir.Problem, v *spec.Value) {
	if v == nil {
		return
	}
	for _, f := range byName(v) {
		k, ok := r.kinds.CustomMetrics.Get(text(f.Value.Get("kind")))
		if !ok {
			continue
		}
		if _, taken := r.kinds.Metrics.Get(f.Name); taken {
			r.addLabel(f.Value.Path, diag.BadArgs, "there is a metric %q already", f.Name).Because("the name has to mean one thing in every problem", "give yours another name")
			continue
		}
		m := &ir.CustomMetric{Name: f.Name, Path: f.Value.Path, Kind: k}
		m.Args, m.Container = r.contained(f.Value, k, fields(f.Value))
		p.Custom = append(p.Custom, m)
	}
}

func (r *resolver) metric(p *ir.Problem, name string, at diag.Range) (ir.Metric, bool) {
	var none ir.Metric
	if name == "" {
		return none, false
	}
	names := r.kinds.Metrics.Names()
	for _, c := range p.Custom {
		if c.Name == name {
			return ir.Metric{Name: name, Custom: c}, true
		}
		names = append(names, c.Name)
	}
	m, ok := r.kinds.Metrics.Get(name)
	if !ok {
		if !r.spec.Broken(p.Path + ".metrics.custom." + name) {
			r.list.Add(at, diag.NoName, "no metric %q%s", name, diag.Suggest(name, names)).Because("", "use "+list(append(r.fit(p.Task), names[len(names)-len(p.Custom):]...)))
		}
		return none, false
	}
	if p.Task != "" && !slices.Contains(m.Tasks(), p.Task) {
		r.list.Add(at, diag.MetricUnfit, "metric %q does not fit %s problem", name, diag.An(p.Task)).Because("it is for "+list(m.Tasks())+" problems", "use "+list(r.fit(p.Task)))
		return none, false
	}
	return ir.Metric{Name: name, Kind: m}, true
}

// fit are the metrics for a kind of problem, all where it is not known.
func (r *resolver) fit(task string) []string {
	var out []string
	for _, n := range r.kinds.Metrics.Names() {
		if m, _ := r.kinds.Metrics.Get(n); task == "" || slices.Contains(m.Tasks(), task) {
			out = append(out, n)
		}
	}
	return out
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
	uses := r.ruleUses(b.Get("expr"))
	if uses != nil {
		scope = func(name string) (types.Type, bool) { f, ok := r.features[name]; return f.Type, ok }
	}
	n := r.expression(b.Get("expr"), scope, names, miss)
	if n == nil || n.Type == types.Invalid {
		return
	}
	if want, ok := ruleType(p.Task, n.Type); !ok {
		r.add(b.Path+".expr", diag.ExprType, "the rule of %s problem is %s, this is %s", diag.An(p.Task), want, diag.An(n.Type))
		return
	}
	p.Rule, p.RuleUses = n, uses
}

// ruleUses are the features that a rule reads, where all that it reads are features.
func (r *resolver) ruleUses(v *spec.Value) []*ir.Feature {
	n, err := expr.Parse(text(v))
	if err != nil {
		return nil
	}
	var out []*ir.Feature
	for _, c := range n.Columns() {
		f, ok := r.features[c.Name]
		if !ok || f.Type == types.Invalid {
			return nil
		}
		out = append(out, f)
	}
	return out
}
