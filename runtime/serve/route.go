package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/lull"
	"mlc.dev/mlc/runtime/serve/predlog"
)

// route is the service as one model: by its traffic rules a call goes to a branch,
// or through the steps; when that fails or takes too long, the fallback answers.
type route struct {
	s        *Server
	branches []branch
	steps    []step
	shadow   *slotFor
	mirror   chan mirrored
	fallen   rate.Sometimes // how often it is told that the fallback answers
}

type branch struct {
	service.Branch
	slot    *slotFor
	upTo    float64 // of 100, with the branches before it
	breaker *breaker
}

func newRoute(s *Server) *route {
	r := &route{s: s, fallen: rate.Sometimes{First: 1, Interval: time.Minute}}
	sum := 0.0
	for _, b := range s.svc.Split {
		sum += b.Weight
		r.branches = append(r.branches, branch{Branch: b, slot: s.slot(b.Model), upTo: sum, breaker: s.breaker(b.Name)})
	}
	if len(s.svc.Steps) > 0 {
		r.branches = []branch{{Branch: service.Branch{Name: ""}, breaker: s.breaker(""), upTo: 100}}
		for _, st := range s.svc.Steps {
			r.steps = append(r.steps, step{st, s.slot(st.Model)})
		}
	}
	if s.svc.Shadow != nil {
		r.shadow = s.slot(s.svc.Shadow.Model)
		r.mirror = make(chan mirrored, mirrorQueue)
	}
	return r
}

// main is the slot whose form the service has: the first branch's, or the last
// step's, whose outputs come out.
func (r *route) main() *slotFor {
	if n := len(r.steps); n > 0 {
		return r.steps[n-1].slot
	}
	return r.branches[0].slot
}

func (r *route) direct() *direct { return &direct{r.s, r.main()} }

// Name is the service's.
func (r *route) Name() string { return r.s.svc.Name }

// Version is that of the branch that is named first, or of the last step.
func (r *route) Version() string { return r.direct().Version() }

// Inputs are the model's, or those that the branches or steps take between them.
func (r *route) Inputs() []ort.Info {
	if len(r.steps) > 0 || len(r.branches) > 1 {
		return r.form().inputs
	}
	return r.direct().Inputs()
}

// Outputs are the model's, or those of the last step.
func (r *route) Outputs() []ort.Info { return r.direct().Outputs() }

// Signature is the model's, or one for all branches or steps.
func (r *route) Signature() *bundle.Signature {
	if len(r.steps) > 0 || len(r.branches) > 1 {
		return r.form().sig
	}
	return r.direct().Signature()
}

// Limits are the model's.
func (r *route) Limits() api.Limits { return r.direct().Limits() }

// Stats are the model's.
func (r *route) Stats() api.Stats { return r.direct().Stats() }

// pick chooses the branch of a call: by its key, so that a caller stays with one,
// or by lot.
func (r *route) pick(c api.Call) *branch {
	if len(r.branches) == 1 {
		return &r.branches[0]
	}
	at := 100 * rand.Float64()
	key := c.Key
	if key == "" {
		key = r.sticky(c)
	}
	if key != "" {
		h := fnv.New64a()
		h.Write([]byte(r.s.svc.Name))
		h.Write([]byte{0})
		h.Write([]byte(key))
		at = 100 * float64(mix(h.Sum64())>>11) / (1 << 53)
	}
	for i := range r.branches {
		if at < r.branches[i].upTo {
			return &r.branches[i]
		}
	}
	return &r.branches[len(r.branches)-1]
}

// mix spreads a hash's bits (the finalizer of MurmurHash3): FNV leaves short keys
// close together.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// sticky is the value of the feature that the service sticks to, in the first row.
func (r *route) sticky(c api.Call) string {
	feature := r.s.svc.Sticky
	if feature == "" || strings.HasPrefix(feature, "header:") {
		return ""
	}
	called := c.Names
	if len(called) == 0 {
		called = names(r.Inputs())
	}
	for i, n := range called {
		if n == feature && i < len(c.Inputs) {
			return api.KeyOf(c.Inputs[i])
		}
	}
	return ""
}

// Busy asks the one model that there is. With several branches or steps it is not
// known yet which would answer, and a fallback answers whoever is refused.
func (r *route) Busy(protocol string) (err error) {
	if len(r.steps) > 0 || len(r.branches) != 1 || r.s.svc.Fallback != nil {
		return nil
	}
	b := r.branches[0]
	h, err := b.slot.use()
	if err != nil {
		return nil //nolint:nilerr // the call tells it
	}
	defer h.free()
	return r.s.busy(h, protocol, b.Name)
}

// Infer answers a call by the service's rules.
func (r *route) Infer(ctx context.Context, c api.Call) (api.Answer, error) {
	b := r.pick(c)
	return r.s.answered(ctx, c, b.Name, func(ctx context.Context, start time.Time) (api.Answer, kept, error) {
		how, probe := unknown, false
		if b.breaker != nil {
			var ok bool
			if ok, probe = b.breaker.allow(); !ok {
				return r.instead(c, api.Errorf(api.Unavailable, "the model fails and is left alone for a while"), "breaker")
			}
			defer func() { b.breaker.done(how, probe) }()
		}
		inner, budget := ctx, r.s.svc.Deadline.Std()
		if f := r.s.svc.Fallback; f != nil && f.After > 0 {
			budget = f.After.Std()
			limit := api.Within(ctx, budget)
			defer limit.End()
			inner = limit
		}
		a, h, last, err := r.run(inner, b, c)
		k := r.kept(h, c, last)
		how = judge(err, err != nil && r.s.now().Sub(start) >= budget)
		if err != nil {
			reason := "error"
			switch api.From(err).Kind {
			case api.Timeout:
				reason = "deadline"
			case api.Internal, api.Unavailable:
			default: // the caller's own fault, or nobody is there to be answered
				return a, k, err
			}
			f, fk, ferr := r.instead(c, err, reason)
			if ferr != nil {
				return a, k, err
			}
			f.Version, f.Threshold = a.Version, cmp.Or(a.Threshold, f.Threshold)
			return f, fk, nil
		}
		if r.mirror != nil {
			switch {
			case len(r.steps) > 0:
				c.Inputs, c.Names = last, nil
			case len(c.Names) == 0:
				c.Names = names(h.Inputs())
			}
			r.toShadow(c, a)
		}
		return a, k, nil
	})
}

// judge says what a call tells of its model; late that it had all the time that the
// service gives, and not only what its caller did.
func judge(err error, late bool) outcome {
	if err == nil {
		return succeeded
	}
	switch api.From(err).Kind {
	case api.Internal:
		return failed
	case api.Timeout:
		if late {
			return failed
		}
	}
	return unknown
}

// run asks the branch's model, or the steps in order. last are the inputs of the
// model whose outputs come out.
func (r *route) run(ctx context.Context, b *branch, c api.Call) (a api.Answer, h *handle, last []ort.Value, err error) {
	if len(r.steps) > 0 {
		return r.runSteps(ctx, c)
	}
	h, err = b.slot.use()
	if err != nil {
		return api.Answer{Model: b.Model.Model}, nil, nil, err
	}
	defer h.free()
	if last, err = h.inOrder(c); err != nil {
		return api.Answer{Model: h.Name(), Version: h.Version()}, h, nil, err
	}
	c.Inputs, c.Names = last, nil
	a, err = ask(ctx, h, c)
	return a, h, last, err
}

// instead is the declared fallback as an answer, or err where there is none.
func (r *route) instead(c api.Call, err error, reason string) (api.Answer, kept, error) {
	a := api.Answer{Model: r.main().ref.Model}
	f := r.s.svc.Fallback
	if f == nil {
		return a, kept{}, err
	}
	h, uerr := r.main().use()
	if uerr != nil {
		return a, kept{}, err
	}
	defer h.free()
	out, ferr := fallbackOutputs(f.Answer, h.sig, h.Outputs(), max(c.Rows, 1))
	if ferr != nil {
		r.s.log.Error("the fallback does not fit the model", "error", ferr)
		return a, kept{}, err
	}
	r.s.metrics.fallback.WithLabelValues(r.s.svc.Name, reason).Inc()
	a.Outputs, a.Fallback, a.Cause = out, true, api.From(err)
	if h.sig != nil {
		a.Threshold = h.sig.Task.Cut()
	}
	r.fallen.Do(func() {
		r.s.log.Warn("the fallback answers", "id", c.ID, "model", a.Model, "reason", reason, "error", cmp.Or(a.Cause.Err, error(a.Cause)))
	})
	if len(c.Columns) > 0 {
		a.Outputs, a.Columns = h.byColumn(out, c.Columns)
	}
	in, _ := h.inOrder(c) // what does not fit is left out of the log
	return a, r.kept(h, c, in), nil
}

// kept is what the prediction log keeps of a call: what the caller sent, and of a service
// of one model what that took.
func (r *route) kept(h *handle, c api.Call, last []ort.Value) kept {
	if r.s.plog == nil || h == nil || !r.s.plog.Wants(c.ID) {
		return kept{}
	}
	if len(r.steps) > 0 || len(r.branches) > 1 {
		if f := r.form(); f.schemas[h] != nil { // else a version has changed meanwhile, or one has none
			return kept{f.schemas[h], f.sent(c)}
		}
	}
	return kept{h.schema, last}
}

// fallbackOutputs are a declared answer as outputs for n rows. Of probabilities what
// is left out is 0; every quantile has to be there.
func fallbackOutputs(answer map[string]any, sig *bundle.Signature, outputs []ort.Info, n int) ([]ort.Value, error) {
	out := make([]ort.Value, len(outputs))
	for i, o := range outputs {
		width := 1
		if len(o.Shape) == 2 && o.Shape[1] > 0 {
			width = int(o.Shape[1])
		}
		row := make([]float32, width)
		given, has := answer[o.Name]
		switch v := given.(type) {
		case float64:
			for k := range row {
				row[k] = float32(v)
			}
		case map[string]any:
			if sig == nil {
				return nil, fmt.Errorf("%q is by name, and the model has no names", o.Name)
			}
			for k, name := range api.Columns(sig.Task) {
				switch p, ok := v[name].(float64); {
				case ok && k < width:
					row[k] = float32(p)
				case sig.Task.Kind == kind.Quantile:
					return nil, fmt.Errorf("%q has no %s", o.Name, name)
				}
			}
		}
		switch o.Type {
		case "float":
			data := make([]float32, 0, n*width)
			for range n {
				if !has { // as certain of the class that is answered as can be
					if class, ok := answer["class"].(string); ok && sig != nil {
						for k, name := range sig.Task.Classes {
							if name == class && k < width {
								row[k] = 1
							}
						}
					}
				}
				data = append(data, row...)
			}
			out[i] = ort.Tensor{Shape: []int64{int64(n), int64(width)}, Data: data}
		case "string":
			text, ok := given.(string)
			if !ok {
				text = likeliest(answer, sig)
			}
			data := make([]string, n)
			for k := range data {
				data[k] = text
			}
			out[i] = ort.Tensor{Shape: []int64{int64(n), 1}, Data: data}
		default:
			return nil, fmt.Errorf("output %q is %s", o.Name, o.Type)
		}
	}
	return out, nil
}

// likeliest is the class with the greatest of the declared probabilities.
func likeliest(answer map[string]any, sig *bundle.Signature) string {
	best, at := types.NullString, math.Inf(-1)
	p, _ := answer["probabilities"].(map[string]any)
	if sig == nil {
		return best
	}
	for _, class := range sig.Task.Classes {
		if v, ok := p[class].(float64); ok && v > at {
			best, at = class, v
		}
	}
	return best
}

// mirrorQueue is how many calls wait for the shadow; more are dropped and counted.
const mirrorQueue = 64

// mirrored is a call that the shadow answers too.
type mirrored struct {
	c api.Call
	a api.Answer
}

// toShadow gives a share of the calls to the shadow, if it can keep up.
func (r *route) toShadow(c api.Call, a api.Answer) {
	if !predlog.Sampled("shadow "+c.ID, r.s.svc.Shadow.Share) {
		return
	}
	select {
	case r.mirror <- mirrored{c, a}:
	default:
		r.s.metrics.shadow.WithLabelValues(r.s.svc.Name, "", "dropped").Inc()
	}
}

// mirrorPause is how long calls are gathered for the shadow, for which nobody waits:
// those that come together run together, and wake no core each.
const mirrorPause = 2 * time.Millisecond

// mirrorYields is how long somebody else has to want a core for the shadow to leave it:
// a proxy, say, or another service of the machine, of whose callers nothing is known here.
const mirrorYields = time.Millisecond

// mirrorLoop answers mirrored calls until ctx is done.
func (r *route) mirrorLoop(ctx context.Context) {
	others := lull.Lull{Long: mirrorYields}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		var calls []mirrored
		select {
		case <-ctx.Done():
			return
		case m := <-r.mirror:
			calls = append(calls, m)
		}
		pause.Reset(mirrorPause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		for range len(r.mirror) {
			calls = append(calls, <-r.mirror)
		}
		if r.busy() || others.Rests(others.Take(lull.Yield)) {
			r.s.metrics.shadow.WithLabelValues(r.s.svc.Name, "", "dropped").Add(float64(len(calls)))
			continue
		}
		var wg sync.WaitGroup
		for _, m := range calls {
			wg.Go(func() { r.compare(ctx, m) })
		}
		wg.Wait()
	}
}

// busy reports whether callers wait, for a model or for a core: the cores are theirs
// first.
func (r *route) busy() bool {
	if r.s.inflight.Load() > int64(r.s.cores) {
		return true
	}
	for _, sl := range r.s.slots {
		if sl == r.shadow {
			continue
		}
		if h, err := sl.use(); err == nil {
			waits := h.Waiting() > 0
			h.free()
			if waits {
				return true
			}
		}
	}
	return false
}

func (r *route) compare(ctx context.Context, m mirrored) {
	defer func() {
		if p := recover(); p != nil {
			r.s.log.Error("the shadow panicked", "value", fmt.Sprint(p))
		}
	}()
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.s.svc.Deadline.Std())
	defer cancel()
	h, err := r.shadow.use()
	if err != nil {
		r.s.metrics.shadow.WithLabelValues(r.s.svc.Name, "", "failed").Inc()
		return
	}
	defer h.free()
	in, err := h.inOrder(m.c)
	m.c.Inputs, m.c.Names = in, nil
	var a api.Answer
	if err == nil {
		a, err = ask(ctx, h, m.c)
	}
	result := "equal"
	switch {
	case err != nil:
		result = "failed"
		if api.From(err).Kind != api.Cancelled { // which is the end of the service
			h.failing.Do(func() {
				r.s.log.Warn("the shadow fails; further failures are only counted", "model", h.Name(), "version", h.Version(), "error", err, "cause", errors.Unwrap(err))
			})
		}
	case !slices.Equal(a.Columns, m.a.Columns) || !same(a.Outputs, m.a.Outputs, r.s.svc.Shadow.Tolerance):
		result = "differs"
	}
	r.s.metrics.shadow.WithLabelValues(r.s.svc.Name, h.Version(), result).Inc()
	r.s.record(m.c, a, kept{h.schema, m.c.Inputs}, "shadow", true, asError(err), time.Since(start))
}

// same reports whether two answers are equal, numbers within a tolerance.
func same(a, b []ort.Value, tolerance float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, ok := a[i].(ort.Tensor)
		y, also := b[i].(ort.Tensor)
		if !ok || !also || ort.Len(x.Data) != ort.Len(y.Data) {
			return false
		}
		switch d := x.Data.(type) {
		case []float32:
			e, ok := y.Data.([]float32)
			if !ok {
				return false
			}
			for k := range d {
				if !(math.Abs(float64(d[k])-float64(e[k])) <= tolerance) && !(d[k] != d[k] && e[k] != e[k]) {
					return false
				}
			}
		default:
			if fmt.Sprint(x.Data) != fmt.Sprint(y.Data) {
				return false
			}
		}
	}
	return true
}
