package serve

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker keeps calls from a model that fails: it opens when the share of failures
// within a time reaches a bound, lets one call through after that time, and closes
// when that one succeeds.
type breaker struct {
	share float64
	over  time.Duration
	least int
	now   func() time.Time
	told  func(open bool) // of what changes

	mu      sync.Mutex
	buckets [10]struct{ calls, failures int }
	at      int64       // number of the newest bucket's time
	open    atomic.Bool // changed with mu
	since   time.Time
	probing bool
}

// state is closed, open or half-open, for metrics.
func (b *breaker) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open.Load():
		return "closed"
	case b.probing:
		return "half-open"
	}
	return "open"
}

// allow reports whether a call may go to the model, and whether it is the one that
// probes.
func (b *breaker) allow() (ok, probe bool) {
	if !b.open.Load() {
		return true, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open.Load() {
		return true, false // it has just closed
	}
	if b.probing || b.now().Sub(b.since) < b.over {
		return false, false
	}
	b.probing = true
	return true, true
}

// outcome is what a call says of the model.
type outcome int

// A call says nothing of the model when its caller is gone, asked for too little
// time, or was never let in.
const (
	unknown outcome = iota
	succeeded
	failed
)

// done tells what an allowed call says.
func (b *breaker) done(how outcome, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false // after an unknown one, the next call probes
		switch how {
		case succeeded:
			b.open.Store(false)
			b.told(false)
			clear(b.buckets[:])
		case failed:
			b.since = b.now()
		}
		return
	}
	if how == unknown {
		return
	}
	b.roll()
	x := &b.buckets[b.at%int64(len(b.buckets))]
	x.calls++
	if how == failed {
		x.failures++
	}
	calls, failures := 0, 0
	for _, x := range b.buckets {
		calls += x.calls
		failures += x.failures
	}
	if !b.open.Load() && calls >= b.least && float64(failures) >= b.share*float64(calls) {
		b.since = b.now()
		b.open.Store(true)
		b.told(true)
	}
}

// roll empties the buckets whose time is over.
func (b *breaker) roll() {
	n := int64(len(b.buckets))
	at := b.now().UnixNano() / max(int64(b.over)/n, 1)
	for k := max(b.at+1, at-n+1); k <= at; k++ {
		b.buckets[k%n] = struct{ calls, failures int }{}
	}
	b.at = max(at, b.at)
}
