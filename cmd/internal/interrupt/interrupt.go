// Package interrupt ends a command that is told to end: at the first SIGINT or SIGTERM
// in good order, at the second one at once.
package interrupt

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Context is done when the process is told to end, or after stop. Told again before stop,
// the process ends at once, also where it was started with signals ignored, as shells
// start what is to run behind them.
func Context() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	told := make(chan os.Signal, 2)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan struct{})
	go func() {
		defer signal.Stop(told)
		select {
		case s := <-told:
			cancel(signalled{s})
		case <-stopped:
			return
		}
		select {
		case s := <-told:
			os.Exit(signalled{s}.status())
		case <-stopped:
		}
	}()
	return ctx, sync.OnceFunc(func() {
		cancel(nil)
		close(stopped)
	})
}

// signalled is the cause of a context that a signal ended.
type signalled struct{ os.Signal }

func (s signalled) Error() string { return s.Signal.String() }

// Unwrap is context.Canceled, as it is told of any context that ends so.
func (s signalled) Unwrap() error { return context.Canceled }

// Status is the exit status of a command that Context has ended, as shells have it: 128
// and the number of the signal. 0: it has not.
func Status(ctx context.Context) int {
	var by signalled
	if !errors.As(context.Cause(ctx), &by) {
		return 0
	}
	return by.status()
}

func (s signalled) status() int {
	if n, ok := s.Signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 128 + int(syscall.SIGINT)
}
