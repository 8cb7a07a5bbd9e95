// Package retry tries again what may pass: a database or a store that is gone for
// a minute.
package retry

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Policy says what is tried again, and for how long.
type Policy struct {
	// Passing tells errors that may be gone in a moment; others are returned at once.
	Passing func(error) bool
	// Told hears of each retry before its pause; nil: nobody.
	Told func(err error, wait time.Duration)
	// Met is whether the other side has ever answered, and is set when it does: one that
	// never has is likelier misspelt than away for a moment, and is given up sooner. nil: it has.
	Met *atomic.Bool
	// Answer tells errors that are an answer; nil: none is.
	Answer func(error) bool
}

// The pauses: doubled from the first to the longest, less up to a quarter by
// chance, so that many who lost the same server do not come back as one.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 10 * time.Second
	within       = 2 * time.Minute // from the first failure
	withinUnmet  = 10 * time.Second
)

// Do runs f until it succeeds, fails for good, or has failed for too long. It
// returns f's last error, or the context's.
func Do(ctx context.Context, p Policy, f func(context.Context) error) error {
	var since time.Time
	pause := firstPause
	for {
		err := f(ctx)
		if p.Met != nil && (err == nil || p.Answer != nil && p.Answer(err)) {
			p.Met.Store(true)
		}
		if err == nil || ctx.Err() != nil || !p.Passing(err) {
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		long := within
		if p.Met != nil && !p.Met.Load() {
			long = withinUnmet
		}
		if time.Since(since) > long {
			return err
		}
		wait := pause - time.Duration(rand.Int64N(int64(pause)/4))
		if p.Told != nil {
			p.Told(err, wait.Round(10*time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, longestPause)
	}
}
