package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// twice is the service of two branches, a and b, and a shadow, c, of one model, and
// counts what is read.
type twice struct {
	mu      sync.Mutex
	aliases map[string]int
	opened  atomic.Int64
	damaged atomic.Bool
}

func (s *twice) promote(alias string, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliases[alias] = version
}

func (s *twice) Resolve(_ context.Context, ref service.Ref) (Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.aliases[ref.Alias]
	return Version{Number: n, Bundle: plan.Digest(fmt.Sprint("sha256:", n))}, nil
}

func (s *twice) Open(context.Context, service.Ref, Version) (*bundle.Bundle, error) {
	s.opened.Add(1)
	if s.damaged.Load() {
		return nil, errors.New("damaged")
	}
	g := onnx.New("same")
	g.Output("y", g.Op("Identity", g.Input("x", onnx.Double, -1, 1)), onnx.Double, -1, 1)
	return &bundle.Bundle{Model: g.Marshal()}, nil
}

func (s *twice) open(t *testing.T, shadow bool) *Server {
	t.Helper()
	ref := func(alias string) service.Ref { return service.Ref{Model: "m", Alias: alias} }
	svc := &service.Service{Format: service.Format, System: "sys", Name: "api", Split: []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}, Batching: service.Batching{MaxRows: 8, Queue: 64}, Deadline: service.Duration(time.Minute)}
	if shadow {
		svc.Shadow = &service.Shadow{Model: ref("c"), Share: 1}
	}
	srv, err := Open(t.Context(), Options{Service: svc, Source: s, Cores: 1, Control: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if len(srv.loaded) > 0 {
			t.Errorf("%d versions are left", len(srv.loaded))
		}
	})
	return srv
}

func ran(h *handle) error {
	_, _, err := h.Infer(context.Background(), []ort.Value{ort.Tensor{Shape: []int64{1, 1}, Data: []float64{1}}}, 1)
	return err
}

// gone waits until a version is freed.
func gone(t *testing.T, h *handle) {
	t.Helper()
	for !t.Failed() {
		err := ran(h)
		if err != nil {
			if api.From(err).Kind != api.Unavailable {
				t.Error(err)
			}
			return
		}
		runtime.Gosched()
	}
}

// Two aliases of one version share it: it is loaded once, stays while either holds it
// or a call uses it, and is freed after that.
func TestAliasesShareAVersion(t *testing.T) {
	src := &twice{aliases: map[string]int{"a": 1, "b": 1}}
	s := src.open(t, false)
	a, b := s.slots[0], s.slots[1]
	follow := func(sl *slotFor) {
		t.Helper()
		if err := s.follow(t.Context(), sl, false); err != nil {
			t.Fatal(err)
		}
	}
	first, err := a.use()
	if err != nil {
		t.Fatal(err)
	}
	if b.current.Load() != first || src.opened.Load() != 1 {
		t.Fatalf("%d loads", src.opened.Load())
	}
	src.promote("a", 2)
	follow(a)
	second := a.current.Load()
	if b.current.Load() != first || second == first || src.opened.Load() != 2 {
		t.Fatalf("%d loads", src.opened.Load())
	}
	src.promote("b", 2)
	follow(b)
	if b.current.Load() != second || src.opened.Load() != 2 {
		t.Fatalf("%d loads", src.opened.Load())
	}
	if err := ran(first); err != nil {
		t.Errorf("a call still uses it: %v", err)
	}
	first.free()
	gone(t, first)
	if err := ran(second); err != nil {
		t.Error(err)
	}
	src.promote("a", 1) // back: what was freed is loaded anew
	follow(a)
	if src.opened.Load() != 3 || a.current.Load() == first {
		t.Errorf("%d loads", src.opened.Load())
	}
}

// Aliases that move at once wait for one load.
func TestAliasesMoveTogether(t *testing.T) {
	src := &twice{aliases: map[string]int{"a": 1, "b": 1}}
	s := src.open(t, false)
	for v := 2; v < 20; v++ {
		src.promote("a", v)
		src.promote("b", v)
		var wg sync.WaitGroup
		for _, sl := range s.slots {
			wg.Go(func() {
				if err := s.follow(t.Context(), sl, false); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := src.opened.Load(); got != int64(v) || s.slots[0].current.Load() != s.slots[1].current.Load() {
			t.Fatalf("%d loads of %d versions", got, v)
		}
	}
}

// Load reads a version anew, once for all its aliases; where that fails, what serves
// goes on and is shared as before.
func TestLoadAnewIsShared(t *testing.T) {
	src := &twice{aliases: map[string]int{"a": 1, "b": 1}}
	s := src.open(t, false)
	first := s.slots[0].current.Load()
	if err := s.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if src.opened.Load() != 2 || s.slots[0].current.Load() == first || s.slots[0].current.Load() != s.slots[1].current.Load() {
		t.Fatalf("%d loads", src.opened.Load())
	}
	gone(t, first)
	src.damaged.Store(true)
	now := s.slots[0].current.Load()
	if err := s.Load(t.Context(), "m"); err == nil || s.slots[0].current.Load() != now || s.loaded[now.loadedAs] != now {
		t.Errorf("%v", err)
	}
	src.damaged.Store(false)
	if err := s.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	gone(t, now)
	before := src.opened.Load()
	if err := s.Load(t.Context(), "m"); err != nil || src.opened.Load() != before+1 {
		t.Errorf("%v", err)
	}
}

// The shadow runs apart, also where it means what serves; its counts are added once.
func TestShadowOfTheSameVersion(t *testing.T) {
	src := &twice{aliases: map[string]int{"a": 1, "b": 1, "c": 1}}
	s := src.open(t, true)
	if src.opened.Load() != 2 || s.slots[0].current.Load() != s.slots[1].current.Load() || s.slots[2].current.Load() == s.slots[0].current.Load() {
		t.Fatalf("%d loads", src.opened.Load())
	}
	for _, h := range []*handle{s.slots[0].current.Load(), s.slots[2].current.Load()} {
		if err := ran(h); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.handles(); len(c) != 1 || c[0].stats.Inferences != 2 {
		t.Errorf("%+v", c)
	}
}
