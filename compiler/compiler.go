// Package compiler turns a spec and an environment into a plan. It runs nothing
// and imports nothing that does.
package compiler

import (
	"context"

	"mlc.dev/mlc/compiler/check"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/schema"
)

// Options say what to compile.
type Options struct {
	Dir  string            // the spec's folder
	Env  string            // the environment's name; "" is "local"
	Vars map[string]string // --var
	// Trained: only what is trained already is used, so no runner has to fit its steps, and
	// none of the files that they read has to be there.
	Trained bool
}

// Result is a compiled system. What a phase could not make is nil.
type Result struct {
	Spec   *spec.Spec
	Env    *env.Environment
	System *ir.System
	Plan   *plan.Plan
	// Services and Batches are what answers with the models, once the list has no errors.
	Services []*ir.Service
	Batches  []*ir.Batch
}

// Source returns the content of a user's file that a position names, or nil.
func (r *Result) Source(file string) []byte {
	if r.Spec != nil {
		if b, ok := r.Spec.Files[file]; ok {
			return b
		}
	}
	if r.Env != nil {
		return r.Env.Files[file]
	}
	return nil
}

// At returns where a path of the spec stands.
func (r *Result) At(path string) diag.Range {
	if r.Spec == nil {
		return diag.Range{}
	}
	return r.Spec.At(path)
}

// Label returns where a path's own name stands.
func (r *Result) Label(path string) diag.Range {
	if r.Spec == nil {
		return diag.Range{}
	}
	return r.Spec.Label(path)
}

// Compile runs every phase. The plan is nil where the list has errors.
func Compile(ctx context.Context, o Options, kinds kind.Kinds) (*Result, diag.List) {
	if o.Env == "" {
		o.Env = "local"
	}
	files := schema.Assemble(kinds.Schemas())
	r := &Result{}
	var list, more diag.List
	r.Spec, list = spec.Load(ctx, o.Dir, files)
	r.Env, more = env.Load(o.Dir, o.Env, o.Vars)
	list = append(list, more...)
	if r.Spec == nil || r.Spec.Root == nil {
		list.Sort()
		return r, list
	}
	e := r.Env
	if more.HasErrors() || o.Trained {
		e = nil // nothing can be, or has to be, proved against it
	}
	r.System, more = check.System(r.Spec, kinds, e, o.Trained)
	list = append(list, more...)
	list.Sort()
	if !list.HasErrors() {
		r.Plan = lower.System(r.System, kinds)
		r.Services, r.Batches = r.System.Services, r.System.Batches
	}
	return r, list
}
