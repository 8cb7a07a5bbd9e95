package serve

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/infer"
)

// w3c reads the trace that a caller is in from its headers, as of W3C Trace Context.
var w3c = propagation.TraceContext{}

// traced takes the caller's trace from a request's headers.
func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx := tracedBy(r.Context(), api.HTTP(w, r)); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// tracedBy is ctx in the trace of whoever asks.
func tracedBy(ctx context.Context, x api.Exchange) context.Context {
	if x.Header("Traceparent") == "" {
		return ctx
	}
	return w3c.Extract(ctx, headers{x})
}

// headers are a request's as a propagator reads them.
type headers struct{ x api.Exchange }

// Get is a header.
func (h headers) Get(key string) string { return h.x.Header(key) }

// Set is not for a request.
func (h headers) Set(string, string) {}

// Keys are not told: what a trace is in is asked for by name.
func (h headers) Keys() []string { return nil }

// tracedRPC takes it from a call's metadata.
func tracedRPC(ctx context.Context) context.Context {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok || len(md["traceparent"]) == 0 {
		return ctx
	}
	return w3c.Extract(ctx, carrier(md))
}

// carrier is metadata as a propagator reads it.
type carrier metadata.MD

// Get is the first value of a key.
func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set sets a key's only value.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys are those that have values.
func (c carrier) Keys() []string {
	out := make([]string, 0, len(c))
	for k := range c {
		out = append(out, k)
	}
	return out
}

// describeSpan tells of a request in its span: no values, which may be personal.
func describeSpan(span trace.Span, c api.Call, a api.Answer, err *api.Error) {
	span.SetAttributes(attribute.String("mlc.request_id", c.ID), attribute.String("mlc.protocol", c.Protocol), attribute.Int("mlc.rows", c.Rows),
		attribute.String("mlc.model", a.Model), attribute.String("mlc.version", a.Version), attribute.String("mlc.variant", a.Variant), attribute.Bool("mlc.fallback", a.Fallback),
		attribute.Int64("mlc.queue_us", a.Queue.Microseconds()), attribute.Int64("mlc.compute_us", a.Compute.Microseconds()))
	if a.Fallback {
		span.AddEvent("fallback", trace.WithAttributes(attribute.String("mlc.cause", a.Cause.Text)))
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Text)
	}
}

// trace tells of a call of the model in a span of its own, below the request's: one for
// each step.
func (h *handle) trace(ctx context.Context, t infer.Timing, err error) {
	now := time.Now()
	_, span := h.tracer.Start(ctx, "model "+h.Name(), trace.WithTimestamp(now.Add(-t.Queue-t.Compute)), trace.WithAttributes(
		attribute.String("mlc.model", h.Name()), attribute.String("mlc.version", h.Version()),
		attribute.Int64("mlc.queue_us", t.Queue.Microseconds()), attribute.Int64("mlc.compute_us", t.Compute.Microseconds())))
	if err != nil {
		span.SetStatus(codes.Error, api.From(err).Text)
	}
	span.End(trace.WithTimestamp(now))
}
