package interrupt_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"mlc.dev/mlc/cmd/internal/interrupt"
)

// TestStatus: a signal ends the context and tells the status; what ends otherwise has none.
func TestStatus(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		ctx, stop := interrupt.Context()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if got := interrupt.Status(ctx); got != 128+int(s) {
			t.Errorf("%v: %d", s, got)
		}
		stop()
	}
	ctx, stop := interrupt.Context()
	stop()
	<-ctx.Done()
	if got := interrupt.Status(ctx); got != 0 || context.Cause(ctx) != context.Canceled {
		t.Errorf("%d, %v", got, context.Cause(ctx))
	}
}
