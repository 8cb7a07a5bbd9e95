package oip_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// everything is a model with an input and an output of each type that compiler/onnx
// knows; each output is its input doubled, incremented, squared, negated or repeated.
func everything() []byte {
	g := onnx.New("everything")
	f := g.Input("f", onnx.Float, -1, 3)
	d := g.Input("d", onnx.Double, -1, 1)
	i := g.Input("i", onnx.Int64, -1, 1)
	b := g.Input("b", onnx.Bool, -1, 1)
	t := g.Input("t", onnx.String, -1, 1)
	g.Output("doubled", g.Op("Add", f, f), onnx.Float, -1, 3)
	g.Output("more", g.Op("Add", d, g.Scalar(1.0)), onnx.Double, -1, 1)
	g.Output("squared", g.Op("Mul", i, i), onnx.Int64, -1, 1)
	g.Output("not", g.Op("Not", b), onnx.Bool, -1, 1)
	g.Output("twice", g.Op("StringConcat", t, t), onnx.String, -1, 1)
	return g.Marshal()
}

// root is a model of one input, whose output is NaN where that is negative.
func root() []byte {
	g := onnx.New("root")
	g.Output("y", g.Op("Sqrt", g.Input("x", onnx.Double, -1, 2)), onnx.Double, -1, 2)
	return g.Marshal()
}

// shout is a model of one input of texts.
func shout() []byte {
	g := onnx.New("shout")
	x := g.Input("x", onnx.String, -1)
	g.Output("y", g.OpA("StringConcat", nil, x, g.Scalar("!")), onnx.String, -1)
	return g.Marshal()
}

// fakeModel runs whatever it is given; it puts no calls together.
type fakeModel struct {
	name, version   string
	inputs, outputs []ort.Info
	limits          api.Limits
	run             func(context.Context, api.Call) (api.Answer, error)

	mu    sync.Mutex
	stats api.Stats
	last  api.Call
}

func (m *fakeModel) Name() string                 { return m.name }
func (m *fakeModel) Version() string              { return m.version }
func (m *fakeModel) Inputs() []ort.Info           { return m.inputs }
func (m *fakeModel) Outputs() []ort.Info          { return m.outputs }
func (m *fakeModel) Signature() *bundle.Signature { return nil }
func (m *fakeModel) Limits() api.Limits           { return m.limits }
func (m *fakeModel) Busy(string) error            { return nil }

func (m *fakeModel) Stats() api.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

func (m *fakeModel) Infer(ctx context.Context, c api.Call) (api.Answer, error) {
	start := time.Now()
	a, err := m.run(ctx, c)
	took := time.Since(start)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = c
	if err != nil {
		m.stats.Failure.Count++
		return a, err
	}
	s := &m.stats
	s.Success.Count++
	s.Success.Total += took
	s.Compute.Count++
	s.Compute.Total += took
	s.Executions++
	s.Inferences += uint64(max(1, c.Rows))
	s.LastInference = start
	s.Batches = map[int]api.Stat{max(1, c.Rows): {Count: 1, Total: took}}
	return a, nil
}

// fakeModels is a repository in memory.
type fakeModels struct {
	mu     sync.Mutex
	models []*fakeModel
	out    map[string]bool // unloaded
	down   bool
}

func (f *fakeModels) Index() []api.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	var es []api.Entry
	for _, m := range f.models {
		e := api.Entry{Name: m.name, Version: m.version, Ready: !f.out[m.name]}
		if !e.Ready {
			e.Reason = "unloaded"
		}
		es = append(es, e)
	}
	return es
}

func (f *fakeModels) Model(name, version string) (api.Model, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.models {
		if m.name == name && (version == "" || version == m.version) {
			if f.out[name] {
				return nil, api.Errorf(api.Unavailable, "model %q is not loaded", name)
			}
			return m, nil
		}
	}
	return nil, api.Errorf(api.NotFound, "there is no model %q of version %q", name, version)
}

func (f *fakeModels) set(name string, out bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.models {
		if m.name == name {
			f.out[name] = out
			return nil
		}
	}
	return api.Errorf(api.NotFound, "there is no model %q", name)
}

func (f *fakeModels) Load(_ context.Context, name string) error   { return f.set(name, false) }
func (f *fakeModels) Unload(_ context.Context, name string) error { return f.set(name, true) }

func (f *fakeModels) Refused(string, api.Kind) {}

func (f *fakeModels) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.down
}

func (f *fakeModels) get(name string) *fakeModel {
	for _, m := range f.models {
		if m.name == name {
			return m
		}
	}
	return nil
}

// real is a model that ONNX Runtime runs.
func real(t testing.TB, name, version string, model []byte, rows int) *fakeModel {
	t.Helper()
	s, err := ort.Open(model)
	if err != nil {
		t.Skipf("SKIPPED: ONNX Runtime is not here: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &fakeModel{name: name, version: version, inputs: s.Inputs(), outputs: s.Outputs(), limits: api.Limits{MaxRows: rows, MaxDelay: time.Millisecond},
		run: func(ctx context.Context, c api.Call) (api.Answer, error) {
			out, err := s.RunValues(ctx, c.Inputs)
			return api.Answer{Model: name, Version: version, Outputs: out}, err
		}}
}

// echo gives back what it takes, of all that is no plain tensor in one model.
func echo() *fakeModel {
	infos := []ort.Info{{Name: "h", Type: "float16", Shape: []int64{-1}}, {Name: "g", Type: "bfloat16", Shape: []int64{-1}}, {Name: "s", Type: "seq"}, {Name: "m", Type: "map"},
		{Name: "o", Type: "optional"}, {Name: "u", Type: "uint8", Shape: []int64{}}}
	return &fakeModel{name: "echo", version: "1", inputs: infos, outputs: infos, run: func(_ context.Context, c api.Call) (api.Answer, error) {
		return api.Answer{Model: "other", Version: "9", Variant: "blue", Fallback: true, Outputs: c.Inputs}, nil
	}}
}

// failing fails as it is told to.
func failing(name string, err error) *fakeModel {
	infos := []ort.Info{{Name: "x", Type: "float", Shape: []int64{-1}}}
	return &fakeModel{name: name, version: "1", inputs: infos, outputs: infos, run: func(context.Context, api.Call) (api.Answer, error) { return api.Answer{}, err }}
}

// hanging answers only when it is told to stop.
func hanging() *fakeModel {
	m := failing("hanging", nil)
	m.run = func(ctx context.Context, _ api.Call) (api.Answer, error) {
		<-ctx.Done()
		return api.Answer{}, ctx.Err()
	}
	return m
}

// repository has all of them.
func repository(t testing.TB) *fakeModels {
	return &fakeModels{out: map[string]bool{}, models: []*fakeModel{
		real(t, "everything", "1", everything(), 8), real(t, "root", "1", root(), 0), real(t, "root", "2", root(), 0), real(t, "shout", "1", shout(), 0), echo(), hanging(),
		failing("shed", &api.Error{Kind: api.Unavailable, Text: "too much at once", RetryAfter: 1500 * time.Millisecond}),
		failing("limited", &api.Error{Kind: api.Overloaded, Text: "too often", RetryAfter: time.Second}),
		failing("broken", context.Canceled), failing("secret", errSecret{}),
	}}
}

// errSecret is what no caller may see.
type errSecret struct{}

func (errSecret) Error() string { return "/etc/secret:12" }
