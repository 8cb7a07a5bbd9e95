package retry_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mlc.dev/mlc/runtime/retry"
)

// TestMet: what has answered once is waited for, what never has is given up soon.
func TestMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		var met atomic.Bool
		var told int
		p := retry.Policy{Passing: func(error) bool { return true }, Met: &met, Told: func(error, time.Duration) { told++ }}
		try := func() (time.Duration, error) {
			begun := time.Now()
			err := retry.Do(t.Context(), p, func(context.Context) error { return gone })
			return time.Since(begun), err
		}
		if took, err := try(); !errors.Is(err, gone) || took < 10*time.Second || took > 30*time.Second || told == 0 {
			t.Errorf("%v, %v, told %d times", took, err, told)
		}
		if err := retry.Do(t.Context(), p, func(context.Context) error { return nil }); err != nil || !met.Load() {
			t.Error(err, met.Load())
		}
		if took, err := try(); !errors.Is(err, gone) || took < 2*time.Minute {
			t.Errorf("%v, %v", took, err)
		}
		met.Store(false)
		p.Answer = func(err error) bool { return errors.Is(err, gone) }
		if took, _ := try(); took < 2*time.Minute {
			t.Errorf("%v of one that answers", took)
		}
		p.Passing = func(error) bool { return false }
		if took, err := try(); !errors.Is(err, gone) || took != 0 {
			t.Errorf("%v, %v", took, err)
		}
	})
}
