package serve

import (
	"context"
	"fmt"

	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// step is one model of several that feed each other.
type step struct {
	service.Step
	slot *slotFor
}

// stepInputs are the inputs that come with a request: those of all steps that no
// earlier step feeds, each once.
func (r *route) stepInputs() []ort.Info {
	var out []ort.Info
	seen := map[string]bool{}
	for _, st := range r.steps {
		d := direct{r.s, st.slot}
		for _, in := range d.Inputs() {
			if _, fed := st.Inputs[in.Name]; !fed && !seen[in.Name] {
				seen[in.Name] = true
				out = append(out, in)
			}
		}
	}
	return out
}

// stepSignature is that of all steps together: the features that come with a
// request, and the last step's outputs. Where a step has no signature there is none.
func (r *route) stepSignature() *bundle.Signature {
	var handles []*handle
	for _, st := range r.steps {
		h, free, err := st.slot.use()
		if err != nil {
			return nil
		}
		defer free()
		if h.sig == nil {
			return nil
		}
		handles = append(handles, h)
	}
	if c := r.s.composed.Load(); c != nil && c.of(handles) {
		return c.sig
	}
	last := *handles[len(handles)-1].sig
	sig := last
	sig.Model, sig.Inputs, sig.Raw = r.s.svc.Name, nil, nil
	seen := map[string]bool{}
	for i, h := range handles {
		raw := map[string]lower.Field{}
		for _, f := range h.sig.Raw {
			raw[f.Name] = f
		}
		for _, in := range h.sig.Inputs {
			if _, fed := r.steps[i].Inputs[in.Name]; fed || seen[in.Name] {
				continue
			}
			seen[in.Name] = true
			sig.Inputs = append(sig.Inputs, in)
			sig.Raw = append(sig.Raw, raw[in.Name])
		}
	}
	c := &composed{handles: handles, sig: &sig}
	r.s.composed.Store(c)
	return c.sig
}

// composed is the signature made of some versions: the same as long as they are.
type composed struct {
	handles []*handle
	sig     *bundle.Signature
}

func (c *composed) of(handles []*handle) bool {
	if len(c.handles) != len(handles) {
		return false
	}
	for i := range handles {
		if c.handles[i] != handles[i] {
			return false
		}
	}
	return true
}

// runSteps runs the steps in order; each takes features of the request and outputs
// of earlier steps. last are the inputs of the last one.
func (r *route) runSteps(ctx context.Context, c api.Call) (all api.Answer, h *handle, last []ort.Value, err error) {
	given := map[string]ort.Value{}
	for i, in := range r.stepInputs() {
		if i < len(c.Inputs) {
			given[in.Name] = c.Inputs[i]
		}
	}
	made := map[string]ort.Value{}
	for _, st := range r.steps {
		var free func()
		if h, free, err = st.slot.use(); err != nil {
			return api.Answer{Model: st.Model.Model}, nil, nil, err
		}
		var a api.Answer
		if last, err = st.inputs(h, given, made); err == nil {
			a, err = ask(ctx, h, api.Call{ID: c.ID, Inputs: last, Rows: c.Rows, Protocol: c.Protocol})
		}
		if err == nil {
			for k, o := range h.Outputs() {
				made[st.Name+"."+o.Name] = a.Outputs[k]
			}
		}
		free()
		all.Queue += a.Queue
		all.Compute += a.Compute
		all.Model, all.Version, all.Outputs = h.Name(), h.Version(), a.Outputs
		if err != nil {
			return all, h, last, err
		}
	}
	return all, h, last, nil
}

// inputs are those of a step's model: from earlier steps where the step says so,
// else from the request.
func (st step) inputs(h *handle, given, made map[string]ort.Value) ([]ort.Value, error) {
	in := make([]ort.Value, len(h.Inputs()))
	for k, info := range h.Inputs() {
		v, ok := given[info.Name]
		if from, fed := st.Inputs[info.Name]; fed {
			if v, ok = made[from]; ok {
				v, ok = inFormOf(v, info)
			}
		}
		if !ok {
			return nil, &api.Error{Kind: api.Internal, Text: "internal error", Err: fmt.Errorf("step %s: nothing gives %s", st.Name, info.Name)}
		}
		in[k] = v
	}
	return in, nil
}

// inFormOf is an output of a step in the form that an input has: a double for a
// float, else as it is.
func inFormOf(v ort.Value, in ort.Info) (ort.Value, bool) {
	t, ok := v.(ort.Tensor)
	if !ok {
		return nil, false
	}
	switch in.Type {
	case "double":
		switch d := t.Data.(type) {
		case []float64:
			return t, true
		case []float32:
			out := make([]float64, len(d))
			for i, x := range d {
				out[i] = float64(x)
			}
			return ort.Tensor{Shape: t.Shape, Data: out}, true
		}
	case "float":
		_, ok := t.Data.([]float32)
		return t, ok
	case "string":
		_, ok := t.Data.([]string)
		return t, ok
	}
	return nil, false
}
