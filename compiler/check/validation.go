package check

import (
	"fmt"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
)

// validated proves that whatever learns from validation rows is given some: calibrations,
// decisions that choose a threshold, and trainers that ask for them (kind.Validated).
func (r *resolver) validated() {
	for _, m := range r.sys.Models {
		if r.spec.Broken(m.Split.Path) || m.Split.Kind.Validates(m.Split.Args) {
			continue
		}
		before := len(r.list)
		if c := m.Calibrate; c != nil {
			r.faults(c.Path, []kind.Fault{{Code: diag.BadArgs, What: fmt.Sprintf("the split of model %q has no validation rows", m.Name),
				Why: "a calibration learns from them: the training rows' probabilities are too good, and the test rows judge", Mend: "give the split a validation part, or leave calibrate out"}})
		}
		if p := m.Problem; p.Decision != nil && p.Decision.Chosen() {
			r.faults(p.Path+".decision", []kind.Fault{{Code: diag.BadArgs, What: fmt.Sprintf("the split of model %q has no validation rows", m.Name),
				Why: "the threshold is chosen on them, because the test rows judge it", Mend: "give the split a validation part, or decide by a threshold of your own"}})
		}
		if t, ok := m.Trainer.Kind.(kind.Validated); ok && !r.spec.Broken(m.Trainer.Path) {
			r.faults(m.Trainer.Path, t.Unvalidated(m.Trainer.Args))
		}
		for i := before; i < len(r.list); i++ {
			r.list[i].Also = append(r.list[i].Also, diag.Note{At: r.spec.At(m.Split.Path + ".validation"), Text: "the split is here"})
		}
	}
}

// byOutcome proves of a split by a column that the label is not computed from that
// column alone.
func (r *resolver) byOutcome(p *ir.Problem, column, path string) {
	for _, e := range p.Label.Exprs {
		alone := true
		for _, c := range e.Expr.Columns() {
			alone = alone && c.Name == column
		}
		if alone {
			r.add(path, diag.BadArgs, "the split is by %q, from which alone the label is computed", column).
				Because("which part a row is in would tell its label, so that a model learns of some outcomes and is judged by others", "name a column that does not say how it ended, or split by shares")
			return
		}
	}
}
