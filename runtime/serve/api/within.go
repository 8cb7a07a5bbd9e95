package api

import (
	"context"
	"sync"
	"time"
)

// Within is context.WithTimeout for calls most of which end before anyone waits for
// the end of their time: its timer and channel are made when someone does. End is to be
// called once the call is over.
func Within(ctx context.Context, d time.Duration) *Limit {
	return &Limit{Context: ctx, by: time.Now().Add(d)}
}

// Limit is a context with a deadline: one of its own until it is real.
type Limit struct {
	context.Context // the parent
	by              time.Time

	mu   sync.Mutex
	real context.Context
	end  context.CancelFunc
	err  error // as it was first told
	over bool  // cancelled before it was real
}

// Deadline is its own or its parent's, whichever is sooner.
func (w *Limit) Deadline() (time.Time, bool) {
	if by, ok := w.Context.Deadline(); ok && by.Before(w.by) {
		return by, true
	}
	return w.by, true
}

// Done makes it real.
func (w *Limit) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.real == nil {
		w.real, w.end = context.WithDeadline(w.Context, w.by)
		if w.over {
			w.end()
		}
	}
	return w.real.Done()
}

// Err is as package context has it. Of several ends that nobody watched for it
// tells one, and always the same.
func (w *Limit) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
	case w.real != nil:
		w.err = w.real.Err()
	case w.over:
		w.err = context.Canceled
	case w.Context.Err() != nil:
		w.err = w.Context.Err()
	case !time.Now().Before(w.by):
		w.err = context.DeadlineExceeded
	}
	return w.err
}

// Value is the parent's; once it is real, that of what package context made, by
// which contexts made of this one find its cause.
func (w *Limit) Value(key any) any {
	w.mu.Lock()
	real := w.real
	w.mu.Unlock()
	if real != nil {
		return real.Value(key)
	}
	return w.Context.Value(key)
}

// End cancels it.
func (w *Limit) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.end != nil {
		w.end()
	}
}
