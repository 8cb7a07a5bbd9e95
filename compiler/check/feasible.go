package check

import (
	"fmt"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/types"
)

// feasible proves that some runner has what each trainer asks for.
func (r *resolver) feasible(e *env.Environment) {
	var cpus int
	var memory int64
	for _, run := range e.Runners {
		cpus, memory = max(cpus, run.CPUs), max(memory, run.Memory)
	}
	type asker struct {
		name string
		*ir.Trainer
	}
	var all []asker
	for _, p := range r.sys.Problems {
		if p.Baseline != nil {
			all = append(all, asker{fmt.Sprintf("the baseline of problem %q", p.Name), p.Baseline})
		}
	}
	for _, m := range r.sys.Models {
		all = append(all, asker{fmt.Sprintf("model %q", m.Name), m.Trainer})
	}
	for _, t := range all {
		if t.Memory > memory {
			r.add(t.Path+".resources.memory", diag.TooMuchMemory, "%s asks for %s of memory, the greatest runner of environment %q has %s", t.name, types.FormatSize(t.Memory), e.Name, types.FormatSize(memory)).
				Because("the step could never start", "ask for less, or declare a greater runner")
		}
		fits := false
		for _, run := range e.Runners {
			fits = fits || run.CPUs >= t.CPU && run.Memory >= t.Memory
		}
		if t.Memory <= memory && !fits {
			r.add(t.Path+".resources", diag.NoRunner, "no runner of environment %q has %d cpus and %s of memory", e.Name, t.CPU, types.FormatSize(t.Memory)).
				Because(fmt.Sprintf("the greatest have %d cpus and %s", cpus, types.FormatSize(memory)), "ask for less, or declare a greater runner")
		}
	}
}
