package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/predlog"
	"mlc.dev/mlc/runtime/serve/typed"
)

// step is one model of several that feed each other.
type step struct {
	service.Step
	slot *slotFor
}

// form is what callers send where several models answer: the inputs of all
// branches, or of all steps that no earlier step feeds, each once; and the outputs
// of the one that is main. Where a model has no signature there is none.
func (r *route) form() *composed {
	type part struct {
		slot *slotFor
		fed  map[string]string
	}
	var parts []part
	for _, st := range r.steps {
		parts = append(parts, part{st.slot, st.Inputs})
	}
	if len(parts) == 0 {
		for _, b := range r.branches {
			parts = append(parts, part{b.slot, nil})
		}
	}
	handles := make([]*handle, len(parts))
	for i, p := range parts {
		h, err := p.slot.use()
		if err != nil {
			return &composed{}
		}
		defer h.free()
		handles[i] = h
	}
	if c := r.s.composed.Load(); c != nil && c.of(handles) {
		return c
	}
	c := &composed{handles: handles}
	main := handles[0]
	if len(r.steps) > 0 {
		main = handles[len(handles)-1]
	}
	sigs := make([]*bundle.Signature, len(handles))
	seen := map[string]bool{}
	for i, h := range handles {
		sigs[i] = h.sig
		for _, in := range h.Inputs() {
			if _, fed := parts[i].fed[in.Name]; fed || seen[in.Name] {
				continue
			}
			seen[in.Name] = true
			c.inputs = append(c.inputs, in)
		}
	}
	sig, errs := typed.Compose(r.s.svc, sigs)
	if err := errors.Join(errs...); err != nil {
		r.s.log.Error("the service's models do not go together", "error", err)
	}
	c.sig = sig
	if r.s.plog != nil {
		c.schemas = map[*handle]*predlog.Schema{}
		for _, h := range handles {
			answers := h
			if len(r.steps) > 0 {
				answers = main
			}
			var of *bundle.Signature
			if sig != nil {
				own := *sig
				own.Task, own.Outputs = answers.sig.Task, answers.sig.Outputs
				of = &own
			}
			c.schemas[h] = r.s.plog.Schema(of, c.inputs, answers.Outputs())
		}
	}
	r.s.composed.Store(c)
	return c
}

// composed is the form made of some versions: the same as long as they are.
type composed struct {
	handles []*handle
	inputs  []ort.Info
	sig     *bundle.Signature
	// schemas are of the inputs and of each branch's outputs, or the last step's; nil: nothing is logged.
	schemas map[*handle]*predlog.Schema
}

// sent are a call's inputs in the order of c's, nil what it has not.
func (c *composed) sent(call api.Call) []ort.Value {
	same := len(call.Names) == len(c.inputs)
	for i := 0; same && i < len(c.inputs); i++ {
		same = call.Names[i] == c.inputs[i].Name
	}
	if same {
		return call.Inputs
	}
	out := make([]ort.Value, len(c.inputs))
	for i, in := range c.inputs {
		if k := slices.Index(call.Names, in.Name); k >= 0 {
			out[i] = call.Inputs[k]
		}
	}
	return out
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
	called := c.Names
	if len(called) == 0 {
		called = names(r.Inputs())
	}
	for i, n := range called {
		if i < len(c.Inputs) {
			given[n] = c.Inputs[i]
		}
	}
	made := map[string]ort.Value{}
	for i, st := range r.steps {
		if h, err = st.slot.use(); err != nil {
			return api.Answer{Model: st.Model.Model}, nil, nil, err
		}
		var a api.Answer
		if last, err = st.inputs(h, given, made); err == nil {
			call := api.Call{ID: c.ID, Inputs: last, Rows: c.Rows, Protocol: c.Protocol}
			if i == len(r.steps)-1 {
				call.Columns = c.Columns
			}
			a, err = ask(ctx, h, call)
		}
		if err == nil {
			for k, o := range h.Outputs() {
				made[st.Name+"."+o.Name] = a.Outputs[k]
			}
		}
		h.free()
		all.Queue += a.Queue
		all.Compute += a.Compute
		all.Model, all.Version, all.Outputs, all.Columns, all.Threshold = h.Name(), h.Version(), a.Outputs, a.Columns, a.Threshold
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
