// Package infer runs one model for many callers: it puts rows of several calls
// together, bounds what waits, and ends what nobody waits for any more.
//
// There is no polling and no delay of its own: a worker that is free takes what
// waits, up to the most rows of a batch; while all are at work, what arrives
// gathers. Only a declared delay makes a worker wait for more. A caller who finds
// nothing waiting and few at work runs a quick model himself, since waking a worker
// would cost as much as the run, and those who arrive before the processor is his
// again come along: under load rows are put together, alone nobody waits.
package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// Options say how a model runs.
type Options struct {
	// MaxRows is the most rows of a batch; at most 1: calls are not put together,
	// which is right for models whose rows are not independent.
	MaxRows int
	// MaxDelay is how long a worker waits for a batch to fill; 0: not at all.
	MaxDelay time.Duration
	// Queue is the most rows that wait; more are refused.
	Queue int
	// Workers is how many runs there are at once; 0: one a core.
	Workers int
	// Quick is how long a run may take for its caller to run it himself; 0: half a
	// millisecond; negative: none is.
	Quick time.Duration
	// Gate bounds the workers' runs of several models together; nil: no bound.
	Gate Gate
	ort.Options
	// OnRun is told of each run; it has to be quick.
	OnRun func(rows int, calls int, compute time.Duration)
}

// Gate is a number of runs at once.
type Gate chan struct{}

// NewGate makes a Gate for n runs at once.
func NewGate(n int) Gate { return make(Gate, max(n, 1)) }

// chunk is the most rows of a call in one run: a larger call runs in several at once.
const chunk = 1024

// A run is quick where the last ones were, and it has at most quickRows rows: then
// nobody needs to be able to leave it.
const (
	quick     = 500 * time.Microsecond
	quickRows = 64
	// Callers may have so many quick runs for each worker: they are over before it
	// matters that they share its core.
	quickShare = 2
)

// Model is a loaded model. It is safe for concurrent use.
type Model struct {
	session *ort.Session
	o       Options
	batch   bool // calls may be put together
	steady  bool // rows take about as long as each other

	mu       sync.Mutex
	wake     *sync.Cond
	queue    []*call    // in the order of arrival
	rows     int        // in queue
	running  int        // runs at once
	gathered *gathering // by callers that have no turns
	closed   bool
	timer    *time.Timer // wakes a worker when the oldest has waited MaxDelay
	stats    api.Stats
	workers  sync.WaitGroup

	perRun atomic.Int64 // nanoseconds that a run takes, smoothed
}

// gathering is a batch that is about to be run by the caller of its first call. Calls
// that have turns (api.Turn) gather with those of their group, without anyone else
// having to be asked.
type gathering struct {
	group    *api.Group // nil: of callers that have no turns
	calls    []*call
	rows     int
	departed bool // nobody may come along any more
}

// call is one request in the queue.
type call struct {
	ctx     context.Context
	in      []ort.Value
	rows    int
	bucket  string
	longest int // of its texts, in bytes
	arrived time.Time
	// gathered calls are counted with their batch: nobody can leave them.
	gathered bool
	began    atomic.Pointer[time.Time] // its run; nil of what is gathered
	done     chan result               // of one
}

// over reports whether the call had no time left when it came. Whose caller has left is
// not asked for, which takes longer than a quick run is worth.
func (c *call) over() bool {
	if by, ok := c.ctx.Deadline(); ok {
		return !c.arrived.Before(by)
	}
	return c.ctx.Err() != nil
}

// calls are those to come.
var calls = sync.Pool{New: func() any { return &call{done: make(chan result, 1)} }}

type result struct {
	out     []ort.Value
	queue   time.Duration
	compute time.Duration
	err     error
}

// Timing tells where a call's time went.
type Timing struct{ Queue, Compute time.Duration }

// Load loads a model and runs it once, so that the first caller does not pay for
// what is made at the first run.
func Load(model []byte, o Options) (*Model, error) {
	s, err := ort.OpenWith(model, o.Options)
	if err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	if o.Quick == 0 {
		o.Quick = quick
	}
	m := &Model{session: s, o: o}
	m.wake = sync.NewCond(&m.mu)
	m.stats.Batches = map[int]api.Stat{}
	m.batch = o.MaxRows > 1 && columns(s.Inputs()) && columns(s.Outputs())
	if err := m.warm(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	m.steady = m.batch && steady(model)
	for range o.Workers {
		m.workers.Go(m.work)
	}
	return m, nil
}

// columns reports whether all values are tensors with a row in each place of
// their first dimension.
func columns(infos []ort.Info) bool {
	for _, i := range infos {
		if i.Type == "seq" || i.Type == "map" || i.Type == "optional" || len(i.Shape) == 0 || i.Shape[0] != -1 {
			return false
		}
	}
	return len(infos) > 0
}

// warm runs batches of made-up rows: of the least and the greatest size, or as large a one
// as madeUp makes, where calls are put together, which proves that rows come out as they
// go in; else once, and a model that refuses made-up values is served all the same.
func (m *Model) warm() error {
	sizes := []int{1}
	if m.batch {
		sizes = []int{1, m.o.MaxRows}
	}
	for _, n := range sizes {
		in, ok := madeUp(m.session.Inputs(), int64(n))
		for ; !ok && n > 1; in, ok = madeUp(m.session.Inputs(), int64(n)) {
			n /= 2 // rows are wide
		}
		if !ok {
			return nil
		}
		out, err := m.session.RunValues(context.Background(), in)
		if err != nil || !m.batch {
			m.batch = false
			return nil
		}
		for i, v := range out {
			if t, ok := v.(ort.Tensor); !ok || len(t.Shape) == 0 || t.Shape[0] != int64(n) {
				return fmt.Errorf("output %q does not have a row for each row that goes in, so calls cannot be put together: set batching.max_rows to 1", m.session.Outputs()[i].Name)
			}
		}
	}
	return nil
}

// madeUp are values of the declared types; n stands for what is variable in the
// first dimension, 1 elsewhere. It fails for what is no tensor and for large ones.
func madeUp(infos []ort.Info, n int64) ([]ort.Value, bool) {
	out := make([]ort.Value, len(infos))
	for i, info := range infos {
		size := int64(1)
		shape := make([]int64, len(info.Shape))
		for k, d := range info.Shape {
			if d < 0 {
				if d = 1; k == 0 {
					d = n
				}
			}
			shape[k] = d
			if size *= d; size > 1<<24 {
				return nil, false
			}
		}
		t, ok := ort.Zeros(info.Type, shape, int(size))
		if !ok {
			return nil, false
		}
		out[i] = t
	}
	return out, true
}

// Inputs are the model's, in the order that Infer takes them.
func (m *Model) Inputs() []ort.Info { return m.session.Inputs() }

// Outputs are the model's, in the order that Infer gives them.
func (m *Model) Outputs() []ort.Info { return m.session.Outputs() }

// Limits are how calls are put together.
func (m *Model) Limits() api.Limits {
	if !m.batch {
		return api.Limits{}
	}
	return api.Limits{MaxRows: m.o.MaxRows, MaxDelay: m.o.MaxDelay}
}

// Stats are counted since Load.
func (m *Model) Stats() api.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Batches = make(map[int]api.Stat, len(m.stats.Batches))
	for k, v := range m.stats.Batches {
		s.Batches[k] = v
	}
	return s
}

// Waiting is the number of rows in the queue.
func (m *Model) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows
}

// Close lets what was accepted come to its end, then frees the model.
func (m *Model) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.wake.Broadcast()
	m.workers.Wait()
	return m.session.Close()
}

// Infer runs a call. rows is the size of the inputs' first dimension, which all of
// them have, or 0 where they have none in common. After ctx is done Infer returns
// at once; a run ends when nobody waits for it any more. Errors are *api.Error.
func (m *Model) Infer(ctx context.Context, in []ort.Value, rows int) ([]ort.Value, Timing, error) {
	if want := len(m.session.Inputs()); len(in) != want {
		return nil, Timing{}, &api.Error{Kind: api.Internal, Text: "internal error", Err: fmt.Errorf("%d inputs for a model of %d", len(in), want)}
	}
	start := time.Now()
	var out []ort.Value
	var t Timing
	var err error
	counted := false
	var ends []int
	if m.batch && rows > 1 {
		ends = ort.Portions(in, rows, chunk)
	}
	if len(ends) > 1 {
		out, t, err = m.chunks(ctx, in, ends)
	} else {
		out, t, counted, err = m.one(ctx, start, in, rows, true)
	}
	if !counted {
		took := time.Since(start)
		m.mu.Lock()
		if err == nil {
			m.stats.Success.Count++
			m.stats.Success.Total += took
			m.stats.Compute.Count++
			m.stats.Compute.Total += t.Compute
			m.stats.LastInference = start
		} else {
			m.failed(api.From(err).Kind, took)
		}
		m.mu.Unlock()
	}
	if errors.Is(err, ort.ErrNUL) {
		return nil, t, &api.Error{Kind: api.Invalid, Text: ort.ErrNUL.Error(), Err: err}
	}
	if err != nil {
		return nil, t, api.From(err)
	}
	return out, t, nil
}

// failed counts a call; with the lock.
func (m *Model) failed(kind api.Kind, took time.Duration) {
	m.stats.Failure.Count++
	m.stats.Failure.Total += took
	switch kind {
	case api.Unavailable:
		m.stats.Rejected++
	case api.Timeout, api.Cancelled:
		m.stats.Cancelled++
	}
}

// chunks runs a large call in parts, by the ends of their rows, as many at once as there
// are workers.
func (m *Model) chunks(ctx context.Context, in []ort.Value, ends []int) ([]ort.Value, Timing, error) {
	if turn := api.TurnOf(ctx); turn != nil {
		turn.Apart()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := len(ends)
	parts := make([][]ort.Value, n)
	times := make([]Timing, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range min(n, m.o.Workers) {
		wg.Go(func() {
			for i := range next {
				from, to := 0, ends[i]
				if i > 0 {
					from = ends[i-1]
				}
				part := make([]ort.Value, len(in))
				for k, v := range in {
					part[k] = ort.Rows(v.(ort.Tensor), from, to)
				}
				var err error
				if parts[i], times[i], _, err = m.one(ctx, time.Now(), part, to-from, false); err == nil {
					err = apart(parts[i], to-from)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, Timing{}, err
	}
	var t Timing
	for _, x := range times {
		t.Queue += x.Queue
		t.Compute += x.Compute
	}
	out := make([]ort.Value, len(parts[0]))
	for k := range out {
		vs := make([]ort.Tensor, n)
		for i := range parts {
			vs[i] = parts[i][k].(ort.Tensor)
		}
		var err error
		if out[k], err = ort.Concat(vs); err != nil {
			return nil, t, err
		}
	}
	return out, t, nil
}

// one runs a call in one run. Where it may gather, what comes of it may be counted
// already, with the batch.
func (m *Model) one(ctx context.Context, arrived time.Time, in []ort.Value, rows int, gathers bool) (_ []ort.Value, _ Timing, counted bool, _ error) {
	c := calls.Get().(*call)
	c.ctx, c.in, c.rows, c.bucket, c.longest, c.arrived, c.gathered = ctx, in, max(rows, 1), "", 0, arrived, false
	if m.batch && rows > 0 {
		c.bucket, c.longest = bucket(in)
	}
	turn := api.TurnOf(ctx)
	if gathers {
		if full, led, ok := m.gather(c, turn); ok {
			m.await(c, turn, full, led)
			r := <-c.done
			c.ctx, c.in = nil, nil
			calls.Put(c) // nobody has it any more, as somebody may who was queued
			return r.out, Timing{r.queue, r.compute}, r.err == nil, r.err
		}
	}
	if turn != nil {
		turn.Apart()
	}
	if err := m.enqueue(c); err != nil {
		return nil, Timing{}, false, err
	}
	select {
	case r := <-c.done:
		return r.out, Timing{r.queue, r.compute}, false, r.err
	case <-ctx.Done():
		m.leave(c)
		t := Timing{Queue: time.Since(c.arrived)}
		if began := c.began.Load(); began != nil { // it ran, and waited no longer than until then
			t.Compute = time.Since(*began)
			t.Queue -= t.Compute
		}
		return nil, t, false, ctx.Err()
	}
}

// quick reports whether a run of some rows is over before anyone could leave it. What
// the last runs took tells that of a steady model only.
func (m *Model) quick(rows int) bool {
	took := time.Duration(m.perRun.Load())
	return m.steady && rows <= quickRows && took > 0 && took < m.o.Quick
}

// gather takes a call that callers can run themselves, into a batch that is about to
// run or, where there is none, as the first of one, which has a place: led is that
// batch. One that is full with the call is its own to run.
func (m *Model) gather(c *call, turn api.Turn) (full, led *gathering, ok bool) {
	if c.bucket == "" || !m.quick(c.rows) || m.o.MaxDelay > 0 || c.over() {
		return nil, nil, false
	}
	var g *gathering
	var group *api.Group
	if turn != nil {
		group = turn.Group()
	}
	if group != nil {
		g, _ = group.Kept[m].(*gathering)
	} else {
		m.mu.Lock()
		defer m.mu.Unlock()
		g = m.gathered
	}
	most := min(m.o.MaxRows, quickRows)
	if g == nil {
		if !m.place(group == nil) {
			return nil, nil, false
		}
		g = &gathering{group: group, calls: make([]*call, 0, 16)}
		led = g
		if group != nil {
			group.Kept[m] = g
		} else {
			m.gathered = g
		}
	} else if c.bucket != g.calls[0].bucket || g.rows+c.rows > most {
		return nil, nil, false
	}
	c.gathered = true
	g.calls = append(g.calls, c)
	if g.rows += c.rows; g.rows == most {
		m.depart(g)
		return g, nil, true
	}
	return nil, led, true
}

// place takes a place for a run by a caller; locked: mu is.
func (m *Model) place(locked bool) bool {
	if !locked {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	if m.closed || len(m.queue) > 0 || m.running >= quickShare*m.o.Workers {
		return false
	}
	m.running++
	m.workers.Add(1)
	return true
}

// depart ends the gathering of a batch: who arrives now begins another. It is called
// with mu, where its calls have no turns.
func (m *Model) depart(g *gathering) {
	g.departed = true
	if g.group != nil {
		delete(g.group.Kept, m)
	} else {
		m.gathered = nil
	}
}

// await waits for a gathered call's result, and runs the batch where that is its own
// to do: at once when it is full, and when whoever is ready has come along where the
// call leads it.
func (m *Model) await(c *call, turn api.Turn, full, led *gathering) {
	switch {
	case led == nil:
	case led.group != nil:
		if turn.Later(); !led.departed {
			m.depart(led)
			full = led
		}
	default:
		runtime.Gosched()
		m.mu.Lock()
		if !led.departed {
			m.depart(led)
			full = led
		}
		m.mu.Unlock()
	}
	if full != nil {
		m.run(full.calls)
		m.end()
		m.workers.Done()
	}
	if turn != nil && len(c.done) == 0 {
		if turn.Later(); len(c.done) == 0 {
			turn.Apart() // who leads waits for something
		}
	}
}

// end gives a place back.
func (m *Model) end() {
	m.mu.Lock()
	m.running--
	if m.closed {
		m.wake.Broadcast() // workers that have to end wait for a place
	} else if len(m.queue) > 0 {
		m.wake.Signal()
	}
	m.mu.Unlock()
}

// bucket names the form of a call's values, and is the length of its longest text: calls
// of one bucket can be put together; those of none go alone. Models with columns [N,1]
// have one bucket only, but for long texts, to whose length all texts of a run would be
// padded.
func bucket(in []ort.Value) (name string, longest int) {
	plain := true
	for _, v := range in {
		t, ok := v.(ort.Tensor)
		if !ok {
			return "", 0
		}
		if texts, ok := t.Data.([]string); ok {
			for _, text := range texts {
				longest = max(longest, len(text))
			}
		}
		plain = plain && len(t.Shape) == 2 && t.Shape[1] == 1
	}
	if longest > ort.TextRoom/quickRows {
		return "", longest
	}
	if plain {
		return "1", longest
	}
	b := make([]byte, 0, 64)
	for _, v := range in {
		for _, d := range v.(ort.Tensor).Shape[1:] {
			b = fmt.Appendf(b, "%d,", d)
		}
		b = append(b, ';')
	}
	return string(b), longest
}

// enqueue accepts a call or refuses it: when the queue is full, or when it could
// not be answered in time, so that what is accepted is answered.
func (m *Model) enqueue(c *call) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return api.Errorf(api.Unavailable, "the model is being unloaded")
	}
	left := time.Duration(math.MaxInt64)
	if by, ok := c.ctx.Deadline(); ok {
		left = by.Sub(c.arrived)
	}
	if err := m.full(c.rows, left); err != nil {
		return err
	}
	m.queue = append(m.queue, c)
	m.rows += c.rows
	m.wake.Signal()
	return nil
}

// full refuses some rows more, which may wait for as long as left.
func (m *Model) full(rows int, left time.Duration) *api.Error {
	if m.rows == 0 {
		return nil
	}
	runs := len(m.queue)
	if m.batch {
		runs = min(runs, 1+m.rows/m.o.MaxRows)
	}
	wait := time.Duration(int64(runs) * m.perRun.Load() / int64(m.o.Workers))
	switch {
	case m.rows+rows > m.o.Queue:
		return &api.Error{Kind: api.Unavailable, Text: fmt.Sprintf("overloaded: %d rows are waiting", m.rows), RetryAfter: max(wait, time.Second)}
	case wait > left:
		return &api.Error{Kind: api.Unavailable, Text: "overloaded: the deadline would pass while waiting", RetryAfter: max(wait, time.Second)}
	}
	return nil
}

// Busy is the error that a call like those that wait would get now if it had as long
// as left, or nil. With an error a refused call is counted: it is not made then.
func (m *Model) Busy(left time.Duration) *api.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return nil
	}
	err := m.full(m.rows/len(m.queue), left)
	if err != nil {
		m.failed(err.Kind, 0)
	}
	return err
}

// leave takes a call whose caller is gone out of the queue.
func (m *Model) leave(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, q := range m.queue {
		if q == c {
			m.queue = append(m.queue[:i], m.queue[i+1:]...)
			m.rows -= c.rows
			return
		}
	}
}

// work is a worker: it takes batches until the model is closed and nothing waits.
func (m *Model) work() {
	for {
		batch := m.take()
		if batch == nil {
			return
		}
		runtime.Gosched() // who is to be refused must not wait for those who are not
		if m.o.Gate != nil {
			m.o.Gate <- struct{}{}
		}
		m.run(batch)
		if m.o.Gate != nil {
			<-m.o.Gate
		}
		m.end()
	}
}

// take waits for a place and a batch: the oldest call, and those of its bucket that
// fit.
func (m *Model) take() []*call {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for m.running >= m.o.Workers || len(m.queue) == 0 && !m.closed {
			m.wake.Wait()
		}
		if len(m.queue) == 0 {
			return nil
		}
		first := m.queue[0]
		n, rows, longest := 1, first.rows, first.longest
		fits := func(c *call) bool {
			if first.bucket == "" || c.bucket != first.bucket || rows+c.rows > m.o.MaxRows || (rows+c.rows)*max(longest, c.longest) > ort.TextRoom {
				return false
			}
			n, rows, longest = n+1, rows+c.rows, max(longest, c.longest)
			return true
		}
		for _, c := range m.queue[1:] {
			fits(c)
		}
		if wait := m.o.MaxDelay - time.Since(first.arrived); m.o.MaxDelay > 0 && wait > 0 && first.bucket != "" && rows < m.o.MaxRows && !m.closed {
			if m.timer == nil {
				m.timer = time.AfterFunc(wait, m.wakeAll)
			} else {
				m.timer.Reset(wait)
			}
			m.wake.Wait()
			continue
		}
		batch := append(make([]*call, 0, n), first)
		rows, longest = first.rows, first.longest
		kept := m.queue[:0]
		for _, c := range m.queue[1:] {
			if fits(c) {
				batch = append(batch, c)
			} else {
				kept = append(kept, c)
			}
		}
		clear(m.queue[len(kept):])
		m.queue = kept
		m.rows -= rows
		m.running++
		if len(m.queue) > 0 {
			m.wake.Signal() // another worker may take what is left
		}
		return batch
	}
}

// wakeAll wakes every worker. With the lock it does not come before the worker that
// set the timer waits: nobody would hear it.
func (m *Model) wakeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wake.Broadcast()
}

// run runs a batch, counts it and gives each call its rows. A mistake of ours fails
// the calls and not the process.
func (m *Model) run(batch []*call) {
	left := batch // those without an answer: others may be somebody else's calls by now
	defer func() {
		if p := recover(); p != nil {
			for _, c := range left {
				c.done <- result{err: fmt.Errorf("panic: %v", p)}
			}
		}
	}()
	started := time.Now()
	calls, rows := make([][]ort.Value, len(batch)), 0
	for i, c := range batch {
		calls[i] = c.in
		rows += c.rows
		if !c.gathered {
			began := started // which is on the heap then
			c.began.Store(&began)
		}
	}
	ctx, free := context.Background(), func() {}
	if !m.quick(rows) {
		ctx, free = anyone(batch)
	}
	out, err := m.session.RunTogether(ctx, calls)
	if wrong := (*ort.InputError)(nil); errors.As(err, &wrong) {
		err = &api.Error{Kind: api.BadRequest, Text: wrong.Error()}
	}
	if err == nil && len(batch) > 1 {
		err = apart(out, rows)
	}
	gone := ctx.Err() != nil
	free()
	if err != nil && !gone && len(batch) > 1 {
		for _, c := range batch { // one bad call must not fail the others
			left = left[1:]
			m.run([]*call{c})
		}
		return
	}
	compute := time.Since(started)
	m.mu.Lock()
	m.stats.Executions++
	const share = 10 // of the newest run: one in ten
	if was := m.perRun.Load(); was == 0 {
		m.perRun.Store(int64(compute))
	} else {
		// A run during which somebody else had the core tells little of the model.
		const most = 4
		m.perRun.Store(was + (min(int64(compute), most*was)-was)/share)
	}
	if err == nil {
		m.stats.Inferences += uint64(rows)
		b := m.stats.Batches[rows]
		b.Count++
		b.Total += compute
		m.stats.Batches[rows] = b
	}
	for _, c := range batch {
		waited := started.Sub(c.arrived)
		m.stats.Queue.Count++
		m.stats.Queue.Total += waited
		if err == nil && c.gathered {
			m.stats.Success.Count++
			m.stats.Success.Total += waited + compute
			m.stats.Compute.Count++
			m.stats.Compute.Total += compute
			m.stats.LastInference = c.arrived
		}
	}
	m.mu.Unlock()
	var parts []ort.Value // of all calls
	if err == nil && len(batch) > 1 {
		parts = make([]ort.Value, 0, len(batch)*len(out))
	}
	at := 0
	for _, c := range batch {
		r := result{out: out, queue: started.Sub(c.arrived), compute: compute, err: err}
		if err == nil && len(batch) > 1 {
			n := len(parts)
			for _, v := range out {
				parts = append(parts, ort.Rows(v.(ort.Tensor), at, at+c.rows))
			}
			r.out = parts[n:len(parts):len(parts)]
			at += c.rows
		}
		left = left[1:]
		c.done <- r
	}
	if m.o.OnRun != nil {
		m.o.OnRun(rows, len(batch), compute)
	}
}

// apart fails where outputs do not have a row for each row that went in, so that
// nobody could tell whose they are. Which models are of that kind may depend on
// their values.
func apart(out []ort.Value, rows int) error {
	for _, v := range out {
		if t, ok := v.(ort.Tensor); !ok || len(t.Shape) == 0 || t.Shape[0] != int64(rows) {
			return errors.New("an output does not have a row for each row that went in")
		}
	}
	return nil
}

// anyone is a context that is done when the contexts of all calls are.
func anyone(batch []*call) (context.Context, func()) {
	if len(batch) == 1 {
		return batch[0].ctx, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	left := len(batch)
	stops := make([]func() bool, len(batch))
	for i, c := range batch {
		stops[i] = context.AfterFunc(c.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
