package serve

import (
	"context"
	"sync/atomic"
	"time"
)

// reading is the context of a gRPC call, which ends when a message is not there in
// time: gRPC bounds calls, and not the sending of what they are asked.
type reading struct {
	context.Context // that of the call, with its own end
	timer           *time.Timer
	late            atomic.Bool
	next            time.Duration // for each message after the first, with the wait for it
}

// readTime is what a request may take to be read, with its headers.
func (s *Server) readTime() time.Duration { return headerTimeout + s.svc.Limits.Read.Std() }

// writeTime is what a request may take to be answered, from the end of its headers.
func (s *Server) writeTime() time.Duration {
	return s.svc.Deadline.Std() + s.svc.Limits.Read.Std() + writeGrace
}

// reading begins to wait for a call's first message, for as long as HTTP does for a
// body. Later ones of a stream may keep it waiting like requests of one connection.
func (s *Server) reading(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	r := &reading{Context: ctx, next: idleTimeout + s.readTime()}
	r.timer = time.AfterFunc(s.readTime(), func() {
		r.late.Store(true)
		cancel()
	})
	return r
}

// Err tells a caller who was too slow apart from one who is gone.
func (r *reading) Err() error {
	err := r.Context.Err()
	if err != nil && r.late.Load() {
		return context.DeadlineExceeded
	}
	return err
}

type readingKey struct{}

// Value is the call's, and itself.
func (r *reading) Value(key any) any {
	if key == (readingKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// received ends the wait for a message.
func received(ctx context.Context) {
	if r, ok := ctx.Value(readingKey{}).(*reading); ok {
		r.timer.Stop()
	}
}

// awaited begins the wait for another message of a stream.
func awaited(ctx context.Context) {
	if r, ok := ctx.Value(readingKey{}).(*reading); ok {
		r.timer.Reset(r.next)
	}
}
