package check

import (
	"mlc.dev/mlc/compiler/diag"
)

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
