// Package serve is the inference service: it answers what callers ask of one
// service of a spec, by its models, over HTTP and gRPC.
//
// A Server follows its references: when an alias moves, the new version is loaded
// beside the old one, takes its place between two calls, and the old one is freed
// when its last call is answered. A version that several aliases mean is loaded once.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/infer"
	"mlc.dev/mlc/runtime/serve/predlog"
)

// Options say how a service runs here.
type Options struct {
	Service *service.Service
	Source  Source
	// Follow is how often references are looked up; 0: never.
	Follow time.Duration
	// Secret gives the value of a secret's reference.
	Secret func(ref string) (string, error)
	Log    *slog.Logger
	// Version is the program's, for metadata.
	Version string
	// Replica tells apart who writes a prediction log.
	Replica string
	// Control lets callers load and unload models.
	Control bool
	// Tracer begins a span for each request; nil: nobody traces.
	Tracer trace.Tracer
	// Cores bounds the runs at once; 0: those of this machine.
	Cores int
}

// Server answers for one service. It is an api.Models.
type Server struct {
	o        Options
	svc      *service.Service
	source   Source
	log      *slog.Logger
	metrics  *metrics
	tracer   trace.Tracer // nil: nobody traces
	slots    []*slotFor
	mu       sync.Mutex
	loaded   map[loadedAs]*handle // what slots hold
	route    *route
	gate     infer.Gate
	cores    int
	span     string // the name of a call's
	plog     *predlog.Log
	plogs    predlog.Metrics
	composed atomic.Pointer[composed]
	draining atomic.Bool
	inflight atomic.Int64
	bodies   bodies
	secure   *certificates // nil: no TLS; set before anyone is served
	now      func() time.Time
	stop     context.CancelFunc
	loops    sync.WaitGroup
}

var _ api.Models = (*Server)(nil)

// Open loads the models of a service. It fails where one that answers does not
// load; a shadow may be missing.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{o: o, svc: o.Service, source: o.Source, log: o.Log, tracer: o.Tracer, loaded: map[loadedAs]*handle{}, now: time.Now, cores: o.Cores}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cores <= 0 {
		s.cores = runtime.GOMAXPROCS(0)
	}
	s.span = "infer " + s.svc.Name
	s.gate = infer.NewGate(s.cores)
	s.metrics = newMetrics(s)
	if l := s.svc.Log; l != nil {
		var err error
		if s.plog, err = predlog.Open(predlog.Options{Config: *l, Service: s.svc.Name, Replica: o.Replica, Secret: o.Secret, Metrics: &s.plogs, Logger: s.log}); err != nil {
			return nil, err
		}
	}
	for _, ref := range s.svc.Models() {
		s.slots = append(s.slots, &slotFor{ref: ref})
	}
	s.route = newRoute(s)
	var errs []error
	for _, sl := range s.slots {
		if err := s.follow(ctx, sl, false); err != nil && sl != s.route.shadow {
			errs = append(errs, fmt.Errorf("%s: %w", sl.ref, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	if o.Follow > 0 {
		for _, sl := range s.slots {
			s.loops.Go(func() { s.followLoop(life, sl) })
		}
	}
	if s.route.mirror != nil {
		s.loops.Go(func() { s.route.mirrorLoop(life) })
	}
	return s, nil
}

// followLoop looks a reference up until ctx is done. Each has a loop of its own: one
// that loads slowly holds up no other.
func (s *Server) followLoop(ctx context.Context, sl *slotFor) {
	tick := time.NewTicker(s.o.Follow)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.follow(ctx, sl, false) // told by follow
		}
	}
}

// Drain makes the server not ready, so that no new callers are sent to it; it
// answers those that come all the same.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends what runs in the background, writes out the prediction log and frees
// the models, within ctx: what cannot be ended by then, such as a run in the middle
// of a long operation, is left. No call may come any more.
func (s *Server) Close(ctx context.Context) error {
	s.Drain()
	if s.stop != nil {
		s.stop()
	}
	err := within(ctx, func() error { s.loops.Wait(); return nil })
	if s.plog != nil {
		if lerr := s.plog.Close(ctx); lerr != nil { // it failed nobody's request
			s.log.Warn("prediction log: what was left is lost", "error", lerr)
		}
	}
	return errors.Join(err, within(ctx, func() error {
		var err error
		for _, sl := range s.slots {
			sl.mu.Lock()
			h := sl.current.Swap(nil)
			sl.mu.Unlock()
			if h != nil && s.release(h) {
				err = errors.Join(err, h.end())
			}
		}
		return err
	}))
}

// within waits for f as long as ctx lasts.
func within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Metrics are for Prometheus to gather.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics.registry }

func (s *Server) breaker(variant string) *breaker {
	f := s.svc.Fallback
	if f == nil || f.Breaker == nil {
		return nil
	}
	return &breaker{share: f.Breaker.Errors, over: f.Breaker.Over.Std(), least: f.Breaker.Least, now: s.now, told: func(open bool) {
		if open {
			s.log.Warn("the breaker is open: the fallback answers, and the model is left alone for a while", "variant", variant, "for", f.Breaker.Over.Std())
			return
		}
		s.log.Info("the breaker is closed: the model answers again", "variant", variant)
	}}
}

// breakers are those of the branches, by name.
func (s *Server) breakers() map[string]*breaker {
	out := map[string]*breaker{}
	for i := range s.route.branches {
		if b := &s.route.branches[i]; b.breaker != nil {
			out[b.Name] = b.breaker
		}
	}
	return out
}

func (s *Server) logMetrics() *predlog.Metrics {
	if s.plog == nil {
		return nil
	}
	return &s.plogs
}

// kept is what the prediction log keeps of a call besides its outputs.
type kept struct {
	schema *predlog.Schema
	inputs []ort.Value
}

var asServer = trace.WithSpanKind(trace.SpanKindServer)

// answered runs a call within the service's deadline and limits, and tells of it:
// metrics, trace and prediction log.
func (s *Server) answered(ctx context.Context, c api.Call, variant string, f func(ctx context.Context, start time.Time) (api.Answer, kept, error)) (api.Answer, error) {
	var span trace.Span
	if s.tracer != nil {
		ctx, span = s.tracer.Start(ctx, s.span, asServer)
		defer span.End()
	}
	start := s.now()
	var a api.Answer
	var k kept
	var err error
	if most := s.svc.Limits.Rows; most > 0 && c.Rows > most {
		err = api.Errorf(api.TooLarge, "%d rows; a request may have %d", c.Rows, most)
	} else {
		if d := s.svc.Deadline.Std(); d > 0 && !endsWithin(ctx, start.Add(d)) {
			limit := api.Within(ctx, d)
			defer limit.End()
			ctx = limit
		}
		a, k, err = f(ctx, start)
	}
	a.Variant = variant
	took := s.now().Sub(start)
	e := asError(err)
	if e != nil && e.Kind == api.Unavailable && e.RetryAfter > 0 {
		s.metrics.shed.WithLabelValues("queue").Inc()
	}
	if e != nil && e.Kind == api.Internal {
		if turn := api.TurnOf(ctx); turn != nil {
			turn.Apart() // nobody else waits for who reads the log
		}
		s.log.Error("a request failed", "id", c.ID, "model", a.Model, "version", a.Version, "error", e.Err)
	}
	if span != nil && span.IsRecording() {
		describeSpan(span, c, a, e)
	}
	s.metrics.observe(s.svc.Name, a, c.Protocol, e, took)
	s.record(c, a, k, variant, false, e, took)
	if e != nil {
		return a, e
	}
	return a, nil
}

// endsWithin reports whether ctx has a deadline that is no later than by.
func endsWithin(ctx context.Context, by time.Time) bool {
	own, ok := ctx.Deadline()
	return ok && !own.After(by)
}

// asError is err as an *api.Error; nil for nil.
func asError(err error) *api.Error {
	if err == nil {
		return nil
	}
	return api.From(err)
}

// record keeps a call in the prediction log.
func (s *Server) record(c api.Call, a api.Answer, k kept, variant string, shadow bool, err *api.Error, took time.Duration) {
	if s.plog == nil {
		return
	}
	threshold := s.svc.Threshold
	if threshold == 0 {
		threshold = a.Threshold
	}
	if a.Fallback {
		err = a.Cause
	}
	s.plog.Add(predlog.Record{Time: s.now().Add(-took), ID: c.ID, Model: a.Model, Version: a.Version, Variant: variant, Fallback: a.Fallback, Shadow: shadow, Err: err,
		Queue: a.Queue, Compute: a.Compute, Total: took, Threshold: threshold, Rows: c.Rows, Schema: k.schema, Inputs: k.inputs, Outputs: a.Outputs})
}

// enter takes a place among the requests that are being answered, from before their
// body is read; leave gives it back. Where there is none, one whose body is slow to come
// gives way, or it is an error.
func (s *Server) enter() *api.Error {
	n := s.inflight.Add(1)
	most := s.svc.Limits.Concurrent
	if most <= 0 || n <= int64(most) {
		return nil
	}
	if s.bodies.giveWay(s.now()) { // and leaves soon
		s.metrics.shed.WithLabelValues("slow").Inc()
		return nil
	}
	s.inflight.Add(-1)
	s.metrics.shed.WithLabelValues("concurrent").Inc()
	return &api.Error{Kind: api.Unavailable, Text: fmt.Sprintf("overloaded: %d requests are being answered", most), RetryAfter: time.Second}
}

func (s *Server) leave() { s.inflight.Add(-1) }

// Refused counts a request that failed before a model was asked.
func (s *Server) Refused(protocol string, kind api.Kind) {
	s.metrics.answered(s.svc.Name, api.Answer{}, protocol, int(kind))
	if kind == api.Overloaded {
		s.metrics.shed.WithLabelValues("client").Inc()
	}
}
