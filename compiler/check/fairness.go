package check

import (
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/spec"
)

// fairness proves that each rule has groups and a bound, and decisions to look at.
func (r *resolver) fairness(p *ir.Problem, v *spec.Value) {
	if v == nil || p.Task == "" || r.spec.Broken(v.Path) {
		return
	}
	if p.Task != kind.Binary && len(v.List) > 0 {
		r.addLabel(v.Path, diag.BadArgs, "fairness of problem %q, which is %s", p.Name, p.Task).Because("the rules compare how often rows are decided true", "leave them out")
		return
	}
	for _, e := range v.List {
		f := ir.Fairness{Fairness: get[kind.Fairness](e), Path: e.Path}
		if f.Column = r.labelColumn(p, e.Get("by")); f.Column == nil {
			continue
		}
		switch ratio := strings.HasSuffix(f.Metric, "_ratio"); {
		case ratio && f.Min == nil || ratio && f.Max != nil:
			r.addLabel(e.Path, diag.BadArgs, "a rule on %s asks for min, and nothing else", f.Metric).Because("a ratio of 1 is even, and less is not", "")
		case !ratio && f.Max == nil || !ratio && f.Min != nil:
			r.addLabel(e.Path, diag.BadArgs, "a rule on %s asks for max, and nothing else", f.Metric).Because("a difference of 0 is even, and more is not", "")
		case f.Min != nil && (*f.Min < 0 || *f.Min > 1), f.Max != nil && (*f.Max < 0 || *f.Max > 1):
			r.addLabel(e.Path, diag.BadArgs, "a rule on %s asks for what it cannot be", f.Metric).Because("a difference and a ratio of rates are from 0 to 1", "80 % is 0.8")
		default:
			p.Fairness = append(p.Fairness, f)
		}
	}
}

// sensitive proves that protected attributes enter a model only where the spec
// gives the reason.
func (r *resolver) sensitive() {
	for _, m := range r.sys.Models {
		for _, in := range m.Inputs {
			if in.AllowSensitive != "" {
				continue
			}
			for _, f := range in.Feature.Origins() {
				if f.Column == nil || !f.Column.Sensitive {
					continue
				}
				what := "model %q uses %q, which is sensitive"
				if f != in.Feature {
					what = "model %q uses %q, which is computed from a sensitive column"
				}
				d := r.addLabel(in.Path, diag.SensitiveInput, what, m.Name, in.Feature.Name).
					Because("decisions would depend on a protected attribute", `leave it out, or name the feature and give the reason: allow_sensitive: "…"`)
				d.Also = append(d.Also, diag.Note{At: r.spec.Label(f.Column.Path), Text: "declared sensitive here"})
				break
			}
		}
	}
}
