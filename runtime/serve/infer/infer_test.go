package infer_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/infer"
)

// double gives 2x of x [N,1].
func double() []byte {
	g := onnx.New("double")
	x := g.Input("x", onnx.Double, -1, 1)
	g.Output("y", g.Op("Add", x, x), onnx.Double, -1, 1)
	return g.Marshal()
}

// pick gives the x-th of three numbers; other x are an error.
func pick() []byte {
	g := onnx.New("pick")
	x := g.Input("x", onnx.Int64, -1, 1)
	g.Output("y", g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const([]int64{10, 20, 30}, 3), x), onnx.Int64, -1, 1)
	return g.Marshal()
}

// slow takes about a millisecond for a row: nodes between which a run can end.
func slow() []byte {
	g := onnx.New("slow")
	y := g.Op("MatMul", g.Input("x", onnx.Float, -1, 1), g.Const(make([]float32, 256), 1, 256))
	w := g.Const(make([]float32, 256*256), 256, 256)
	for range 400 {
		y = g.Op("MatMul", y, w)
		w = g.Op("Tanh", w)
	}
	g.Output("y", g.OpA("ReduceSum", onnx.Attrs{"keepdims": 1}, y, g.Const([]int64{1}, 1)), onnx.Float, -1, 1)
	return g.Marshal()
}

func load(t *testing.T, model []byte, o infer.Options) *infer.Model {
	t.Helper()
	m, err := infer.Load(model, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// ask infers rows of x and returns y.
func ask[T any](ctx context.Context, m *infer.Model, x ...T) ([]T, error) {
	out, _, err := m.Infer(ctx, []ort.Value{ort.Tensor{Shape: []int64{int64(len(x)), 1}, Data: x}}, len(x))
	if err != nil {
		return nil, err
	}
	return out[0].(ort.Tensor).Data.([]T), nil
}

func kindOf(err error) api.Kind {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

// Callers who are ready at once run a quick model together, and each gets its own row.
func TestCallersWhoAreReadyComeAlong(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	m := load(t, double(), infer.Options{MaxRows: 64, Workers: 1})
	if y, err := ask(context.Background(), m, 1.0); err != nil || y[0] != 2 {
		t.Fatal(y, err)
	}
	const callers, rounds = 32, 20
	for range rounds {
		ready := make(chan struct{})
		var wg sync.WaitGroup
		for k := range callers {
			wg.Go(func() {
				<-ready
				if y, err := ask(context.Background(), m, float64(k)); err != nil || y[0] != 2*float64(k) {
					t.Errorf("%v of %d: %v", y, k, err)
				}
			})
		}
		runtime.Gosched() // all wait
		close(ready)
		wg.Wait()
	}
	if s := m.Stats(); s.Executions*4 > s.Inferences {
		t.Errorf("%d runs of %d rows", s.Executions, s.Inferences)
	}
}

// turns is a goroutine that answers calls by turns.
type turns struct {
	waiting []*turn
	group   api.Group
}

// turn is one of them: a coroutine.
type turn struct {
	of    *turns
	apart bool
	yield func(bool) bool // whether it goes on apart
	next  func() (bool, bool)
}

func (t *turn) Group() *api.Group {
	if t.apart {
		return nil
	}
	return &t.of.group
}

func (t *turn) Later() {
	if !t.apart {
		t.yield(false)
	}
}

func (t *turn) Apart() {
	if !t.apart {
		t.apart = true
		t.yield(true)
	}
}

// call begins a call.
func (s *turns) call(f func(context.Context)) {
	t := &turn{of: s}
	t.next, _ = iter.Pull(func(yield func(bool) bool) {
		t.yield = yield
		f(context.WithValue(context.Background(), api.TurnKey, t))
	})
	s.waiting = append(s.waiting, t)
}

// end gives turns until all calls are over. It tells how many went on apart.
func (s *turns) end() (apart int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for len(s.waiting) > 0 {
		now := s.waiting
		s.waiting = nil
		for _, t := range now {
			switch goes, on := t.next(); {
			case on && goes:
				apart++
				wg.Go(func() { t.next() })
			case on:
				s.waiting = append(s.waiting, t)
			}
		}
	}
	return apart
}

// TestCallsByTurns run together in their goroutine, as many as a batch may have, beside
// those of others; what is not over at once goes on apart.
func TestCallsByTurns(t *testing.T) {
	m := load(t, double(), infer.Options{MaxRows: 4, Workers: 1, Quick: time.Hour})
	var wg sync.WaitGroup
	for k := range 2 {
		wg.Go(func() {
			for n := 1; n <= 9; n++ {
				s := turns{group: api.Group{Kept: map[any]any{}}}
				got := make([]float64, n)
				for i := range n {
					s.call(func(ctx context.Context) {
						y, err := ask(ctx, m, float64(10*k+i))
						if err != nil {
							t.Error(err)
							return
						}
						got[i] = y[0]
					})
				}
				s.end()
				for i, y := range got {
					if y != float64(2*(10*k+i)) {
						t.Error(n, i, y)
					}
				}
			}
		})
	}
	wg.Wait()

	s := turns{group: api.Group{Kept: map[any]any{}}}
	before := m.Stats()
	for range 6 {
		s.call(func(ctx context.Context) { _, _ = ask(ctx, m, 1.) })
	}
	if apart := s.end(); apart != 0 {
		t.Errorf("%d went on apart", apart)
	}
	if after := m.Stats(); after.Batches[4].Count != before.Batches[4].Count+1 || after.Batches[2].Count != before.Batches[2].Count+1 {
		t.Errorf("%v, then %v", before.Batches, after.Batches)
	}

	idle := load(t, double(), infer.Options{MaxRows: 4, Workers: 1, Quick: -1})
	for range 3 {
		s.call(func(ctx context.Context) {
			if y, err := ask(ctx, idle, 3.); err != nil || y[0] != 6 {
				t.Error(y, err)
			}
		})
	}
	if apart := s.end(); apart != 3 {
		t.Errorf("%d went on apart", apart)
	}
	large := make([]float64, 3000)
	s.call(func(ctx context.Context) {
		if y, err := ask(ctx, m, large...); err != nil || len(y) != len(large) {
			t.Error(len(y), err)
		}
	})
	if apart := s.end(); apart != 1 {
		t.Errorf("%d went on apart", apart)
	}
}

// Every caller gets its own rows back, whatever was put together.
func TestCallersGetTheirOwnRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := infer.Options{MaxRows: rapid.IntRange(1, 16).Draw(rt, "max"), Workers: rapid.IntRange(1, 3).Draw(rt, "workers"), Queue: 1 << 20}
		if rapid.Bool().Draw(rt, "delay") {
			o.MaxDelay = time.Millisecond
		}
		sizes := rapid.SliceOfN(rapid.IntRange(1, 2500), 1, 12).Draw(rt, "sizes")
		m, err := infer.Load(double(), o)
		if err != nil {
			rt.Fatal(err)
		}
		var wg sync.WaitGroup
		for k, n := range sizes {
			wg.Go(func() {
				x := make([]float64, n)
				for i := range x {
					x[i] = float64(k*10000 + i)
				}
				y, err := ask(context.Background(), m, x...)
				if err != nil || len(y) != n {
					rt.Errorf("%d rows of %d: %v", len(y), n, err)
					return
				}
				for i := range y {
					if y[i] != 2*x[i] {
						rt.Errorf("%v of %v", y[i], x[i])
						return
					}
				}
			})
		}
		wg.Wait()
		if s := m.Stats(); s.Success.Count != uint64(len(sizes)) || s.Compute.Count != s.Success.Count || s.Compute.Total <= 0 || s.Failure.Count != 0 {
			rt.Errorf("%+v", s)
		}
		if err := m.Close(); err != nil {
			rt.Error(err)
		}
	})
}

// held is a model whose one worker is busy until free is called, after one run.
func held(t *testing.T, model []byte, o infer.Options) (m *infer.Model, free func()) {
	t.Helper()
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.Workers, o.Quick = 1, -1
	o.OnRun = func(int, int, time.Duration) {
		once.Do(func() {
			close(busy)
			<-release
		})
	}
	m = load(t, model, o)
	in, _ := ort.Zeros(m.Inputs()[0].Type, []int64{1, 1}, 1)
	if _, _, err := m.Infer(t.Context(), []ort.Value{in}, 1); err != nil {
		t.Fatal(err)
	}
	<-busy
	return m, func() { close(release) }
}

// start asks in the background, and returns when n rows wait in the queue.
func start[T any](m *infer.Model, n int, x ...T) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := ask(context.Background(), m, x...)
		done <- err
	}()
	for m.Waiting() != n {
		runtime.Gosched()
	}
	return done
}

// While the worker is at work, what arrives gathers and is run at once.
func TestWhatWaitsRunsTogether(t *testing.T) {
	m, free := held(t, double(), infer.Options{MaxRows: 8})
	var waiting []<-chan error
	for i := range 5 {
		waiting = append(waiting, start(m, i+1, float64(i)))
	}
	free()
	for _, done := range waiting {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s := m.Stats()
	if s.Executions != 2 || s.Batches[1].Count != 1 || s.Batches[5].Count != 1 || s.Inferences != 6 {
		t.Errorf("%+v", s)
	}
}

// Calls go together up to the declared rows, however many these are, and texts as far
// as padding all to the longest is no more than a run may take.
func TestRowsOfABatch(t *testing.T) {
	echo := onnx.New("echo")
	echo.Output("y", echo.Op("Identity", echo.Input("x", onnx.String, -1, 1)), onnx.String, -1, 1)
	for name, c := range map[string]struct {
		model []byte
		start func(m *infer.Model, n int) <-chan error
		rows  int // of a call
		runs  map[int]uint64
	}{
		"numbers": {double(), func(m *infer.Model, n int) <-chan error { return start(m, n, make([]float64, 1000)...) }, 1000, map[int]uint64{1: 1, 3000: 1, 1000: 1}},
		"texts": {echo.Marshal(), func(m *infer.Model, n int) <-chan error {
			return start(m, n, slices.Repeat([]string{strings.Repeat("x", ort.TextRoom/100)}, 40)...)
		}, 40, map[int]uint64{1: 1, 80: 2}},
	} {
		m, free := held(t, c.model, infer.Options{MaxRows: 3000, Queue: 1 << 20})
		var waiting []<-chan error
		for i := range 4 {
			waiting = append(waiting, c.start(m, (i+1)*c.rows))
		}
		free()
		for _, done := range waiting {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		got := map[int]uint64{}
		for rows, s := range m.Stats().Batches {
			got[rows] = s.Count
		}
		if !maps.Equal(got, c.runs) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	m, free := held(t, double(), infer.Options{MaxRows: 8, Queue: 2})
	waits := start(m, 2, 1.0, 2.0)
	_, err := ask(t.Context(), m, 3.0)
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.Unavailable || e.RetryAfter <= 0 {
		t.Errorf("%v", err)
	}
	free()
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// A caller whose deadline passes is answered, and what it asked is not run.
func TestDeadlineWhileWaiting(t *testing.T) {
	m, free := held(t, double(), infer.Options{MaxRows: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, m, 2.0); kindOf(err) != api.Timeout {
		t.Errorf("%v", err)
	}
	if m.Waiting() != 0 {
		t.Error("it still waits")
	}
	free()
	if s := m.Stats(); s.Executions != 1 {
		t.Errorf("%+v", s)
	}
}

// A model that runs too long is ended, and the worker is there for the next.
func TestModelThatRunsTooLong(t *testing.T) {
	if testing.Short() {
		t.Skip("a model of some size")
	}
	m := load(t, slow(), infer.Options{Workers: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	x := ort.Tensor{Shape: []int64{512, 1}, Data: make([]float32, 512)}
	if _, took, err := m.Infer(ctx, []ort.Value{x}, 512); kindOf(err) != api.Timeout || took.Compute <= took.Queue { // it waited for nothing
		t.Errorf("%v, %+v", err, took)
	}
	if s := m.Stats(); s.Failure.Count != 1 || s.Cancelled != 1 || s.Rejected != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := ask[float32](t.Context(), m, 1); err != nil {
		t.Error(err)
	}
}

// A caller runs a quick model himself while few do, with the one worker at work.
func TestQuickRunsAreTheCallersOwn(t *testing.T) {
	busy, release := make(chan struct{}, 8), make(chan struct{})
	m := load(t, double(), infer.Options{MaxRows: 8, Workers: 1, Quick: time.Hour, OnRun: func(int, int, time.Duration) {
		busy <- struct{}{}
		<-release
	}})
	answers := make(chan error, 3)
	for i := range 2 { // the first tells how quick it is
		go func() {
			_, err := ask(t.Context(), m, float64(i))
			answers <- err
		}()
		<-busy
	}
	third := start(m, 1, 3.0) // there is no place for more
	close(release)
	for _, done := range []<-chan error{answers, answers, third} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s := m.Stats(); s.Executions != 3 || s.Inferences != 3 {
		t.Errorf("%+v", s)
	}
}

// Who would be refused learns it before anything is read, and not when there is room.
func TestBusy(t *testing.T) {
	m, free := held(t, double(), infer.Options{MaxRows: 8, Queue: 3})
	if err := m.Busy(time.Minute); err != nil {
		t.Errorf("nothing waits: %v", err)
	}
	first := start(m, 2, 1.0, 2.0)
	if err := m.Busy(time.Minute); err == nil || err.Kind != api.Unavailable || err.RetryAfter < time.Second {
		t.Errorf("two of three rows wait, and one like them comes: %v", err)
	}
	if err := m.Busy(-1); err == nil {
		t.Error("no time is left")
	}
	if s := m.Stats(); s.Failure.Count != 2 || s.Rejected+s.Cancelled != 2 {
		t.Errorf("%+v", s)
	}
	second := start(m, 3, 1.0)
	free()
	for _, done := range []<-chan error{first, second} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := m.Busy(time.Minute); err != nil {
		t.Errorf("all is answered: %v", err)
	}
}

// One bad call fails alone.
func TestOneBadCallFailsAlone(t *testing.T) {
	m, free := held(t, pick(), infer.Options{MaxRows: 8})
	good, bad, also := start[int64](m, 1, 1), start[int64](m, 2, 99), start[int64](m, 3, 2)
	free()
	for _, done := range []<-chan error{good, also} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := <-bad; kindOf(err) != api.Internal || strings.Contains(err.Error(), "Gather") {
		t.Errorf("%v", err)
	}
}

// Close answers what was accepted, and refuses what comes after.
func TestCloseDrains(t *testing.T) {
	m, free := held(t, double(), infer.Options{MaxRows: 1})
	first, second := start(m, 1, 1.0), start(m, 2, 2.0)
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	free()
	for _, done := range []<-chan error{first, second, closed} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := ask(t.Context(), m, 3.0); kindOf(err) != api.Unavailable {
		t.Errorf("%v", err)
	}
}

// A model that is closed while callers run it ends when they have.
func TestCloseWhileCallersRun(t *testing.T) {
	for range 30 {
		m, err := infer.Load(double(), infer.Options{MaxRows: 4, Workers: 1, Quick: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		begun := make(chan bool, 8)
		for range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					if y, err := ask(context.Background(), m, 1.); err != nil {
						return // it is closed
					} else if y[0] != 2 {
						t.Error(y)
					}
					if i == 0 {
						begun <- true
					}
				}
			})
		}
		<-begun
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// Rows of a model that does not keep them apart are refused at load.
func TestRowsThatAreNotKept(t *testing.T) {
	g := onnx.New("unique")
	g.Output("y", g.Op("Unique", g.Input("x", onnx.Float, -1, 1)), onnx.Float, -1)
	if _, err := infer.Load(g.Marshal(), infer.Options{MaxRows: 4}); err == nil || !strings.Contains(err.Error(), "max_rows") {
		t.Errorf("%v", err)
	}
	m := load(t, g.Marshal(), infer.Options{})
	if m.Limits().MaxRows != 0 {
		t.Errorf("%+v", m.Limits())
	}
}

// A model whose rows depend on the values gives nobody the rows of another.
func TestRowsThatDependOnValues(t *testing.T) {
	g := onnx.New("compress")
	x := g.Input("x", onnx.Double, -1, 1)
	kept := g.Op("Reshape", g.Op("GreaterOrEqual", x, g.Scalar(float64(0))), g.Const([]int64{-1}, 1))
	g.Output("y", g.OpA("Compress", onnx.Attrs{"axis": 0}, x, kept), onnx.Double, -1, 1)
	m, free := held(t, g.Marshal(), infer.Options{MaxRows: 8})
	type answer struct {
		y   []float64
		err error
	}
	var got [3]chan answer
	for i, in := range [][]float64{{1, -1}, {2}, {-3}} {
		got[i] = make(chan answer, 1)
		go func() {
			y, err := ask(context.Background(), m, in...)
			got[i] <- answer{y, err}
		}()
		for m.Waiting() < []int{2, 3, 4}[i] {
			runtime.Gosched()
		}
	}
	free()
	for i, want := range [][]float64{{1}, {2}, {}} {
		if a := <-got[i]; a.err != nil || !slices.Equal(a.y, want) {
			t.Errorf("%d: %v %v", i, a.y, a.err)
		}
	}
}

// Inputs of another number fail the call and not the process.
func TestOtherInputs(t *testing.T) {
	m := load(t, double(), infer.Options{MaxRows: 8})
	if _, _, err := m.Infer(t.Context(), nil, 1); kindOf(err) != api.Internal {
		t.Errorf("%v", err)
	}
}

func TestNoModel(t *testing.T) {
	if _, err := infer.Load([]byte("no model"), infer.Options{}); err == nil {
		t.Error("it was loaded")
	}
}

// byValue takes as long as the greatest x says, between nodes that a run can end at.
func byValue() []byte {
	g := onnx.New("by_value")
	x := g.Input("x", onnx.Float, -1, 1)
	top := g.OpA("ReduceMax", onnx.Attrs{"keepdims": 0}, x)
	y := g.Op("Range", g.Scalar(float32(0)), top, g.Scalar(float32(1)))
	for range 40 {
		y = g.Op("Sin", y)
	}
	zero := g.Op("Mul", g.OpA("ReduceMax", onnx.Attrs{"keepdims": 0}, y), g.Scalar(float32(0)))
	g.Output("y", g.Op("Add", x, zero), onnx.Float, -1, 1)
	return g.Marshal()
}

// However quick its last runs were, who asks a model whose work goes by values can leave it.
func TestQuickRunsOfUnsteadyModels(t *testing.T) {
	m := load(t, byValue(), infer.Options{MaxRows: 8, Workers: 1, Quick: time.Hour})
	for range 100 {
		if _, err := ask[float32](t.Context(), m, 10); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := ask[float32](ctx, m, 1<<23); !errors.Is(err, context.DeadlineExceeded) { // seconds
		t.Error(err)
	}
}
