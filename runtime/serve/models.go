package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/infer"
	"mlc.dev/mlc/runtime/serve/predlog"
)

// loadedAs tells loaded versions apart. The shadow has its own, for it runs apart
// from what callers use.
type loadedAs struct {
	model   string
	version Version
	shadow  bool
}

// handle is a loaded version, or one that is being loaded. All slots that mean it
// hold the same one, and it lives until the last has let go and no call uses it.
type handle struct {
	*infer.Model
	loadedAs
	ready   chan struct{} // closed when it is loaded, or err says why not
	err     error
	holders int // guarded by Server.mu
	sig     *bundle.Signature
	columns []string        // of the main output
	schema  *predlog.Schema // nil: nothing is logged
	failing sync.Once       // that it fails as a shadow is told
	tracer  trace.Tracer    // nil: nobody traces

	users atomic.Int64  // calls, and 1 for the holders
	idle  chan struct{} // closed when there are none
}

func newHandle(as loadedAs) *handle {
	h := &handle{loadedAs: as, ready: make(chan struct{}), idle: make(chan struct{})}
	h.users.Store(1)
	return h
}

// use keeps the version until free; false: it has ended.
func (h *handle) use() bool {
	for {
		n := h.users.Load()
		if n == 0 {
			return false
		}
		if h.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// free ends a use.
func (h *handle) free() {
	if h.users.Add(-1) == 0 {
		close(h.idle)
	}
}

// end waits for the calls of a version that no slot holds, and frees it.
func (h *handle) end() error {
	h.free()
	<-h.idle
	return h.Close()
}

// Name is the model's.
func (h *handle) Name() string { return h.model }

// Version is the registry's number.
func (h *handle) Version() string { return strconv.Itoa(h.version.Number) }

// slotFor is what serves for a reference: the version that it means, or why there
// is none.
type slotFor struct {
	ref service.Ref

	current atomic.Pointer[handle] // changed with mu
	mu      sync.RWMutex
	err     error // of the last load
	failed  Version
	retry   time.Time // when the failed version may be tried again
	off     bool      // unloaded by a caller
	loading sync.Mutex
}

// use returns the version that serves, which stays until it is told to be free.
func (s *slotFor) use() (*handle, error) {
	for {
		h := s.current.Load()
		if h == nil {
			return nil, api.Errorf(api.Unavailable, "model %q is not ready", s.ref.Model)
		}
		if h.use() {
			return h, nil
		} // else another has taken its place
	}
}

// replace puts a version in the place of another, which is freed once nobody uses
// it any more. Where the model is out of service, it is h that is let go.
func (s *Server) replace(sl *slotFor, h *handle) (replaced bool) {
	sl.mu.Lock()
	old := h
	if replaced = h == nil || !sl.off; replaced {
		old = sl.current.Swap(h)
		sl.err = nil
	}
	sl.mu.Unlock()
	if old != nil && s.release(old) {
		go func() { _ = old.end() }() // what it held is gone either way
	}
	return replaced
}

// hold gives a slot a version, which is loaded unless another slot holds it already.
// It is not the handle not, which the slot wants anew.
func (s *Server) hold(ctx context.Context, sl *slotFor, v Version, not *handle) (*handle, error) {
	shadow := s.route.shadow
	key := loadedAs{sl.ref.Model, v, shadow != nil && shadow.ref == sl.ref}
	for {
		s.mu.Lock()
		h := s.loaded[key]
		mine := h == nil || h == not
		if mine {
			h = newHandle(key)
			s.loaded[key] = h
		}
		h.holders++
		s.mu.Unlock()
		if !mine {
			if <-h.ready; h.err == nil {
				return h, nil
			}
			continue // who loaded it may only have given up
		}
		if h.err = s.load(ctx, sl.ref, h); h.err != nil {
			s.mu.Lock()
			delete(s.loaded, key)
			if not != nil && not.loadedAs == key && not.holders > 0 {
				s.loaded[key] = not
			}
			s.mu.Unlock()
		}
		close(h.ready)
		return h, h.err
	}
}

// release ends a slot's hold of a version. The last one's caller has to end it.
func (s *Server) release(h *handle) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.holders--
	last = h.holders == 0
	if last && s.loaded[h.loadedAs] == h {
		delete(s.loaded, h.loadedAs)
	}
	return last
}

// retryAfter is how long a version that does not load is left alone.
const retryAfter = 30 * time.Second

// follow loads what the reference means where that has changed. A version that
// does not load leaves the one before it in service, and is tried again later, or
// when asked for.
func (s *Server) follow(ctx context.Context, sl *slotFor, again bool) error {
	sl.loading.Lock()
	defer sl.loading.Unlock()
	v, err := s.source.Resolve(ctx, sl.ref)
	sl.mu.RLock()
	now, off, failed := sl.current.Load(), sl.off, sl.err != nil && sl.failed == v && s.now().Before(sl.retry)
	sl.mu.RUnlock()
	if off || err == nil && !again && failed {
		return nil
	}
	if err == nil && !again && now != nil && now.version == v {
		sl.mu.Lock()
		sl.err = nil
		sl.mu.Unlock()
		return nil
	}
	var h *handle
	if err == nil {
		h, err = s.hold(ctx, sl, v, now)
	}
	if err != nil {
		sl.mu.Lock()
		known := sl.err != nil && sl.err.Error() == err.Error()
		sl.err, sl.failed, sl.retry = err, v, s.now().Add(retryAfter)
		sl.mu.Unlock()
		if !known && !errors.Is(err, context.Canceled) { // which is an end, and no fault
			s.metrics.reloads.WithLabelValues(sl.ref.Model, "failed").Inc()
			what := "a model does not load"
			if now != nil {
				what += "; what served before goes on"
			}
			s.log.Error(what, "model", sl.ref.String(), "version", v.Number, "error", err)
		}
		return err
	}
	if !s.replace(sl, h) {
		return nil // it was taken out of service meanwhile
	}
	s.metrics.reloads.WithLabelValues(sl.ref.Model, "loaded").Inc()
	s.log.Info("serving", "model", sl.ref.String(), "version", v.Number, "bundle", v.Bundle.Short())
	return nil
}

// load reads and loads a version.
func (s *Server) load(ctx context.Context, ref service.Ref, h *handle) error {
	b, err := s.source.Open(ctx, ref, h.version)
	if err != nil {
		return err
	}
	h.tracer = s.tracer
	if b.Signature.Format != "" {
		h.sig, h.columns = &b.Signature, api.Columns(b.Signature.Task)
	}
	name, number := h.Name(), h.Version()
	compute, batch := s.metrics.compute.WithLabelValues(name, number), s.metrics.batch.WithLabelValues(name, number)
	workers, gate := s.cores, s.gate
	if h.shadow {
		workers, gate = 1, nil // what it takes is not taken from callers
	}
	o := infer.Options{MaxRows: s.svc.Batching.MaxRows, MaxDelay: s.svc.Batching.MaxDelay.Std(), Queue: s.svc.Batching.Queue, Workers: workers, Gate: gate,
		Options: ort.Options{Providers: s.svc.Providers, OnSkipped: func(provider string, err error) {
			s.log.Warn("a provider is not there; the next one, or the CPU, runs the model", "provider", provider, "error", err)
		}},
		OnRun: func(rows, _ int, took time.Duration) {
			compute.Observe(took.Seconds())
			batch.Observe(float64(rows))
		}}
	if h.Model, err = infer.Load(b.Model, o); err != nil {
		return err
	}
	if h.sig != nil {
		if err := h.fits(); err != nil {
			return errors.Join(fmt.Errorf("the signature does not fit the model: %w", err), h.Close())
		}
	}
	if s.plog != nil {
		h.schema = s.plog.Schema(h.sig, h.Inputs(), h.Outputs())
	}
	return nil
}

// fits holds the model against its signature, by which callers send values.
func (h *handle) fits() error {
	in := h.Inputs()
	if len(in) != len(h.sig.Inputs) || len(h.Outputs()) != len(h.sig.Outputs) {
		return fmt.Errorf("%d inputs and %d outputs, not %d and %d", len(in), len(h.Outputs()), len(h.sig.Inputs), len(h.sig.Outputs))
	}
	for i, x := range h.sig.Inputs {
		if in[i].Name != x.Name || in[i].Type != x.DType {
			return fmt.Errorf("input %d is %s %s, not %s %s", i, in[i].Type, in[i].Name, x.DType, x.Name)
		}
	}
	if len(h.sig.Computed) > 0 {
		return fmt.Errorf("it takes features that only SQL computes, such as %s", h.sig.Computed[0].Name)
	}
	return nil
}

// Index lists the service itself and its models.
func (s *Server) Index() []api.Entry {
	out := []api.Entry{{Name: s.svc.Name, Version: s.route.Version(), Ready: s.Ready()}}
	seen := map[string]bool{out[0].Name + "@" + out[0].Version: true}
	for _, sl := range s.slots {
		sl.mu.RLock()
		e := api.Entry{Name: sl.ref.Model}
		if h := sl.current.Load(); h != nil {
			e.Version, e.Ready = h.Version(), true
		}
		if sl.err != nil {
			e.Reason = "the version that should serve does not load"
		}
		if sl.off {
			e.Reason = "unloaded"
		}
		sl.mu.RUnlock()
		if key := e.Name + "@" + e.Version; !seen[key] {
			seen[key] = true
			out = append(out, e)
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Name != out[j].Name {
			return out[i].Name < out[j].Name
		}
		return out[i].Version < out[j].Version
	})
	return out
}

// Model finds the service by its name, or by that of the model that answers it: its
// traffic rules hold. Any other model, and any version of a model, answers itself.
func (s *Server) Model(name, version string) (api.Model, error) {
	service := name == s.svc.Name
	main := s.route.Version()
	ruled := version == "" && (service || name == s.route.main().ref.Model)
	switch {
	case ruled && main != "" && service:
		return s.route, nil
	case ruled && main != "":
		return named{s.route, name}, nil
	}
	known := service
	for _, sl := range s.slots {
		if sl.ref.Model != name {
			continue
		}
		known = true
		if ruled {
			break // another version is not the service
		}
		if h := sl.current.Load(); h != nil {
			serves := h.Version()
			if version == "" || version == serves {
				return &direct{s, sl}, nil
			}
		}
	}
	switch {
	case service && version != "" && version == main:
		return s.route, nil
	case !known:
		return nil, api.Errorf(api.NotFound, "there is no model %q here", name)
	case version == "":
		return nil, api.Errorf(api.Unavailable, "model %q is not ready", name)
	}
	return nil, api.Errorf(api.NotFound, "model %q has no version %q here", name, version)
}

// errControl answers who asks for what is not allowed here.
var errControl = api.Errorf(api.Unsupported, "callers may not load and unload models here (--model-control lets them)")

// Load reads a model anew, and takes it into service again.
func (s *Server) Load(ctx context.Context, name string) error {
	if !s.o.Control {
		return errControl
	}
	return s.each(name, func(sl *slotFor) error {
		sl.mu.Lock()
		sl.off = false
		sl.mu.Unlock()
		if err := s.follow(ctx, sl, true); err != nil {
			return &api.Error{Kind: api.Unavailable, Text: fmt.Sprintf("model %q does not load", sl.ref.Model), Err: err}
		}
		s.log.Info("a caller had a model loaded", "model", sl.ref.String())
		return nil
	})
}

// Unload takes a model out of service.
func (s *Server) Unload(_ context.Context, name string) error {
	if !s.o.Control {
		return errControl
	}
	return s.each(name, func(sl *slotFor) error {
		sl.mu.Lock()
		sl.off = true
		sl.mu.Unlock()
		s.replace(sl, nil)
		s.log.Warn("a caller has taken a model out of service", "model", sl.ref.String())
		return nil
	})
}

func (s *Server) each(name string, f func(*slotFor) error) error {
	found := false
	for _, sl := range s.slots {
		if sl.ref.Model == name || name == s.svc.Name {
			found = true
			if err := f(sl); err != nil && (sl != s.route.shadow || sl.ref.Model == name) {
				return err
			}
		}
	}
	if !found {
		return api.Errorf(api.NotFound, "there is no model %q here", name)
	}
	return nil
}

// Ready reports whether the service answers: all that its answers need is loaded.
// The shadow is not.
func (s *Server) Ready() bool {
	if s.draining.Load() {
		return false
	}
	for _, sl := range s.slots {
		if sl == s.route.shadow {
			continue
		}
		if sl.current.Load() == nil {
			return false
		}
	}
	return true
}

// counted are the counts of a version, of the shadow's with those of the callers'.
type counted struct {
	model, version string
	stats          api.Stats
	waiting        int
}

// handles are the counts of the versions that are loaded, in the order of the
// service's references.
func (s *Server) handles() []*counted {
	var out []*counted
	by := map[string]*counted{}
	seen := map[*handle]bool{}
	for _, sl := range s.slots {
		h, err := sl.use()
		if err != nil {
			continue
		}
		if seen[h] {
			h.free()
			continue
		}
		seen[h] = true
		st, key := h.Stats(), h.Name()+"@"+h.Version()
		c := by[key]
		if c == nil {
			c = &counted{model: h.Name(), version: h.Version()}
			by[key] = c
			out = append(out, c)
		}
		c.waiting += h.Waiting()
		h.free()
		c.stats.Inferences += st.Inferences
		c.stats.Executions += st.Executions
		c.stats.Rejected += st.Rejected
		c.stats.Cancelled += st.Cancelled
		for to, from := range map[*api.Stat]api.Stat{&c.stats.Success: st.Success, &c.stats.Failure: st.Failure, &c.stats.Queue: st.Queue, &c.stats.Compute: st.Compute} {
			to.Count += from.Count
			to.Total += from.Total
		}
	}
	return out
}

// slot is the one of a reference.
func (s *Server) slot(ref service.Ref) *slotFor {
	for _, sl := range s.slots {
		if sl.ref == ref {
			return sl
		}
	}
	return nil
}

// named is the service under the name of the model that answers it.
type named struct {
	*route
	name string
}

// Name is the model's.
func (n named) Name() string { return n.name }

// direct is one loaded model without the service's traffic rules.
type direct struct {
	s  *Server
	sl *slotFor
}

// with tells of the version that serves, if there is one, without keeping it: what is
// told of a version stays true after it has ended.
func (d *direct) with(f func(*handle)) {
	if h := d.sl.current.Load(); h != nil {
		f(h)
	}
}

// Name is the model's.
func (d *direct) Name() string { return d.sl.ref.Model }

// Version is the one that serves.
func (d *direct) Version() (v string) {
	d.with(func(h *handle) { v = h.Version() })
	return v
}

// Inputs are the model's.
func (d *direct) Inputs() (in []ort.Info) {
	d.with(func(h *handle) { in = h.Inputs() })
	return in
}

// Outputs are the model's.
func (d *direct) Outputs() (out []ort.Info) {
	d.with(func(h *handle) { out = h.Outputs() })
	return out
}

// Signature is the bundle's.
func (d *direct) Signature() (sig *bundle.Signature) {
	d.with(func(h *handle) { sig = h.sig })
	return sig
}

// Limits are the model's.
func (d *direct) Limits() (l api.Limits) {
	if d.with(func(h *handle) { l = h.Limits() }); l.MaxRows > 0 {
		l.PerCall = d.s.svc.Limits.Rows
	}
	return l
}

// Stats are the model's.
func (d *direct) Stats() (st api.Stats) {
	d.with(func(h *handle) { st = h.Stats() })
	return st
}

// Busy asks the version that serves.
func (d *direct) Busy(protocol string) (err error) {
	d.with(func(h *handle) { err = d.s.busy(h, protocol, "") })
	return err
}

// busy is the error that a call of a version would get now, and tells of it.
func (s *Server) busy(h *handle, protocol, variant string) error {
	left := time.Duration(math.MaxInt64)
	if d := s.svc.Deadline.Std(); d > 0 {
		left = d
	}
	err := h.Busy(left)
	if err == nil {
		return nil
	}
	s.metrics.shed.WithLabelValues("queue").Inc()
	s.metrics.observe(s.svc.Name, api.Answer{Model: h.Name(), Version: h.Version(), Variant: variant}, protocol, err, 0)
	return err
}

// Infer runs the model.
func (d *direct) Infer(ctx context.Context, c api.Call) (api.Answer, error) {
	return d.s.answered(ctx, c, "", func(ctx context.Context, _ time.Time) (api.Answer, kept, error) {
		h, err := d.sl.use()
		if err != nil {
			return api.Answer{Model: d.sl.ref.Model}, kept{}, err
		}
		defer h.free()
		in, err := h.inOrder(c)
		if err != nil {
			return api.Answer{Model: h.Name(), Version: h.Version()}, kept{}, err
		}
		c.Inputs, c.Names = in, nil
		a, err := ask(ctx, h, c)
		return a, kept{h.schema, in}, err
	})
}

// ask runs a version.
func ask(ctx context.Context, h *handle, c api.Call) (api.Answer, error) {
	a := api.Answer{Model: h.Name(), Version: h.Version()}
	if h.sig != nil {
		a.Threshold = h.sig.Task.Cut()
	}
	in, err := h.inOrder(c)
	if err != nil {
		return a, err
	}
	out, t, err := h.Infer(ctx, in, c.Rows)
	a.Outputs, a.Queue, a.Compute = out, t.Queue, t.Compute
	if h.tracer != nil {
		h.trace(ctx, t, err)
	}
	if err == nil && len(c.Columns) > 0 {
		a.Outputs, a.Columns = h.byColumn(out, c.Columns)
	}
	return a, err
}

// changed is the answer to a call that was read for another version than the one
// that has come since, which takes something else.
var changed = &api.Error{Kind: api.Unavailable, Text: "the model has just changed; ask again", RetryAfter: time.Second}

// inOrder are a call's inputs in the order of the version that answers. What it
// takes and the call lacks is missing, where it may be.
func (h *handle) inOrder(c api.Call) ([]ort.Value, error) {
	infos := h.Inputs()
	if len(c.Names) == 0 {
		return c.Inputs, nil
	}
	same := len(c.Names) == len(infos)
	for i := 0; same && i < len(infos); i++ {
		same = c.Names[i] == infos[i].Name
	}
	if same {
		return c.Inputs, nil
	}
	given := make(map[string]ort.Value, len(c.Names))
	for i, n := range c.Names {
		given[n] = c.Inputs[i]
	}
	out := make([]ort.Value, len(infos))
	for i, info := range infos {
		if v, ok := given[info.Name]; ok {
			out[i] = v
		} else if out[i] = h.missing(info, c.Rows); out[i] == nil {
			return nil, changed
		}
	}
	return out, nil
}

// missing are n missing values of an input, or nil where it may not be missing.
func (h *handle) missing(info ort.Info, n int) ort.Value {
	if h.sig == nil || n < 1 {
		return nil
	}
	for _, f := range h.sig.Raw {
		if f.Name != info.Name || !f.Nullable {
			continue
		}
		t, _ := ort.Zeros(info.Type, []int64{int64(n), 1}, n)
		switch d := t.Data.(type) {
		case []float64:
			for i := range d {
				d[i] = math.NaN()
			}
			return t
		case []string:
			for i := range d {
				d[i] = h.sig.NullString
			}
			return t
		}
	}
	return nil
}

// byColumn puts the columns of the main output in the order of those by which the
// caller reads it. own are the version's where they are others: a class more, say.
func (h *handle) byColumn(out []ort.Value, columns []string) (_ []ort.Value, own []string) {
	if h.sig == nil || slices.Equal(h.columns, columns) {
		return out, nil
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		if at[i] = slices.Index(h.columns, c); at[i] < 0 || len(columns) != len(h.columns) {
			return out, h.columns
		}
	}
	for k, v := range out {
		t, ok := v.(ort.Tensor)
		d, floats := t.Data.([]float32)
		if !ok || !floats || len(t.Shape) != 2 || t.Shape[1] != int64(len(columns)) {
			continue
		}
		w := len(columns)
		moved := make([]float32, len(d))
		for r := 0; r < len(d); r += w {
			for i := range at {
				moved[r+i] = d[r+at[i]]
			}
		}
		out[k] = ort.Tensor{Shape: t.Shape, Data: moved}
	}
	return out, nil
}

// names are those of inputs.
func names(infos []ort.Info) []string {
	out := make([]string, len(infos))
	for i, x := range infos {
		out[i] = x.Name
	}
	return out
}
