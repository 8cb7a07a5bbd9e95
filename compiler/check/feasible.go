package check

import (
	"fmt"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
)

// feasible proves that some runner has what each trainer and each command asks for.
func (r *resolver) feasible(e *env.Environment) {
	var memory int64
	for _, run := range e.Runners {
		memory = max(memory, run.Memory)
	}
	ask := func(name, path string, needs plan.Needs) {
		if needs.Memory > memory {
			r.add(path+".resources.memory", diag.TooMuchMemory, "%s asks for %s of memory, the greatest runner of environment %q has %s", name, types.FormatSize(needs.Memory), e.Name, types.FormatSize(memory)).
				Because("the step could never start", "ask for less, or declare a greater runner")
			return
		}
		if _, missing := e.Place(needs, nil); missing != "" {
			r.add(path+".resources", diag.NoRunner, "%s fits no runner of environment %q: %s", name, e.Name, missing).
				Because("the step could never start", "ask for less, or declare such a runner in "+e.Name+".mlc.hcl")
		}
	}
	for _, s := range r.sys.Sources {
		if s.Command != nil {
			ask(fmt.Sprintf("source %q", s.Name), s.Path, s.Needs)
		}
	}
	for _, p := range r.sys.Problems {
		for _, m := range p.Custom {
			ask(fmt.Sprintf("metric %q", m.Name), m.Path, m.Needs)
		}
		if p.Baseline != nil {
			ask(fmt.Sprintf("the baseline of problem %q", p.Name), p.Baseline.Path, p.Baseline.Needs)
		}
	}
	for _, m := range r.sys.Models {
		if m.Split.Command != nil {
			ask(fmt.Sprintf("the split of model %q", m.Name), m.Split.Path, m.Split.Needs)
		}
		ask(fmt.Sprintf("model %q", m.Name), m.Trainer.Path, m.Trainer.Needs)
	}
}
