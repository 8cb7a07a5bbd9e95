package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip"
	"mlc.dev/mlc/runtime/serve/plain"
	"mlc.dev/mlc/runtime/serve/typed"
)

// Endpoints are the addresses to listen at, as host:port; "" is none.
type Endpoints struct {
	HTTP string // HTTP/1.1 and HTTP/2, also of gRPC
	GRPC string
	// Metrics is for Prometheus and probes, Debug for pprof: both are for insiders.
	Metrics, Debug string
	// DrainDelay is how long the server answers on after it is told to stop, not
	// ready any more, so that those who send it callers can notice.
	DrainDelay time.Duration
}

// How long clients may take, beyond what the service declares.
const (
	headerTimeout = 5 * time.Second
	writeGrace    = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	closeGrace    = 30 * time.Second
	maxHeader     = 32 << 10
	// connectionAge ends connections of gRPC now and then: a balancer of connections would
	// otherwise never move a client.
	connectionAge = 5 * time.Minute
)

// Serve listens until ctx is done, then drains: what was asked is answered. ready
// is told the addresses that were opened, where a port was 0.
func (s *Server) Serve(ctx context.Context, e Endpoints, ready func(Endpoints)) error {
	g, err := newGuard(s.svc, s.o.Secret)
	if s.svc.TLS != nil {
		var cerr error
		s.secure, cerr = newCertificates(s.svc.TLS, s.log)
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return err
	}
	secure := s.secure
	if s.o.Control && s.svc.Auth == nil {
		s.log.Warn("callers may load and unload models, and need no credentials for that")
	}
	rpc := s.grpcServer(g, secure)
	t := typed.New(s.svc, s, s.svc.Name, typed.Options{Log: s.log})
	t.Register(rpc)
	o := oip.NewHTTP(s, s.oip())
	main := &http.Server{Handler: asking(s.handler(g, t, o, rpc)), ConnContext: inCrowd, ReadHeaderTimeout: headerTimeout, ReadTimeout: s.readTime(), WriteTimeout: s.writeTime(),
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	main.Protocols.SetHTTP1(true)
	main.Protocols.SetHTTP2(true)
	main.Protocols.SetUnencryptedHTTP2(true)
	simple := &plain.Server{Handler: s.simple(g, t, o), Timeouts: plain.Timeouts{Header: headerTimeout, Body: cmp.Or(s.svc.Limits.Read.Std(), s.readTime()), Idle: idleTimeout, Write: s.writeTime()},
		Most: s.most(perPlainConnection), Panicked: func(p any) { s.log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack())) }}
	inside := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader}
	}
	metrics, pprofs := inside(s.metricsHandler()), inside(debugHandler())
	opened, most := e, s.most(perConnection)
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	var listeners []net.Listener
	var deaf diag.List
	start := func(flag string, address *string, wrap func(net.Listener) net.Listener, serve func(net.Listener) error) {
		if *address == "" {
			return
		}
		l, err := net.Listen("tcp", *address)
		if err != nil {
			unheard(&deaf, flag, *address, err)
			return
		}
		*address = l.Addr().String()
		listeners = append(listeners, l)
		if wrap != nil {
			l = wrap(l)
		}
		wg.Go(func() {
			if err := serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				failed <- err
			}
		})
	}
	start("http", &opened.HTTP, func(l net.Listener) net.Listener {
		switch {
		case secure != nil:
			return tls.NewListener(newCrowd(l, most), secure.config("h2", "http/1.1"))
		case len(s.svc.CORS) > 0: // browsers are net/http's
			return newCrowd(l, most)
		}
		return newCrowd(simple.Listen(l), most)
	}, main.Serve)
	start("grpc", &opened.GRPC, func(l net.Listener) net.Listener { return newCrowd(l, most) }, rpc.Serve)
	start("metrics", &opened.Metrics, nil, metrics.Serve)
	start("debug", &opened.Debug, nil, pprofs.Serve)
	if err = deaf.Err(); err == nil {
		if ready != nil {
			ready(opened)
		}
		select {
		case err = <-failed:
		case <-ctx.Done():
		}
	} else {
		for _, l := range listeners {
			_ = l.Close()
		}
	}
	s.Drain()
	if err == nil && e.DrainDelay > 0 {
		s.log.Info("draining", "for", e.DrainDelay)
		timer := time.NewTimer(e.DrainDelay)
		select {
		case <-timer.C:
		case err = <-failed:
		}
		timer.Stop()
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(closeGrace, s.svc.Deadline.Std()+time.Second))
	defer cancel()
	ended := make(chan error)
	go func() { ended <- simple.Shutdown(end) }()
	// gRPC's own end cuts what is under way on the other port, so it comes after.
	if serr := main.Shutdown(end); serr != nil {
		err = errors.Join(err, serr, main.Close())
	}
	err = errors.Join(err, <-ended)
	stopped := make(chan struct{})
	go func() {
		rpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-end.Done():
		rpc.Stop()
	}
	_ = metrics.Close()
	_ = pprofs.Close()
	wg.Wait()
	return err
}

// unheard tells why the address of a flag cannot be listened at.
func unheard(list *diag.List, flag, address string, err error) {
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		list.Add(diag.Range{}, diag.NotListening, "port %s is taken: something listens at %s already", port, address).
			Because("", fmt.Sprintf("end it, or listen elsewhere with --%s HOST:PORT; port 0 takes a free one", flag))
		return
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	list.Add(diag.Range{}, diag.NotListening, "cannot listen at %s: %v", address, err).
		Because("", fmt.Sprintf("give --%s an address of this machine as HOST:PORT, or \"\" for none", flag))
}

// handler is everything that callers can ask over HTTP.
func (s *Server) handler(g *guard, t *typed.API, o *oip.HTTP, rpc *grpc.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", t.Handler())
	mux.Handle("/v2/", o.Handler())
	mux.Handle("/v2", o.Handler())
	s.probes(mux)
	calls := s.guarded(g, "", s.counted("", s.recovered(traced(s.timed(mux)))))
	rpcs := s.guarded(g, "grpc", s.counted("grpc", rpc))
	return cors(s.svc, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			c := http.NewResponseController(w) // a stream may last
			_, _ = c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})
			rpcs.ServeHTTP(w, r.WithContext(s.reading(r.Context())))
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		calls.ServeHTTP(w, r)
	}))
}

// simple answers plain requests for inferences, as handler does all others.
func (s *Server) simple(g *guard, t *typed.API, o *oip.HTTP) func(path string) func(*plain.Exchange) {
	return func(path string) func(*plain.Exchange) {
		infer, protocol := t.Predict, protocolOf(path)
		if model, version, ok := oip.InferPath(path); ok {
			infer = func(ctx context.Context, x api.Exchange) {
				ctx, cancel, err := asked(ctx, x)
				if err != nil {
					s.refuse(x, protocol, err)
					return
				}
				defer cancel()
				o.Infer(ctx, x, model, version)
			}
		} else if path != typed.PredictPath {
			return nil
		}
		return func(x *plain.Exchange) {
			if err := g.asks(x); err != nil {
				s.refuse(x, protocol, err)
				return
			}
			if err := s.enter(); err != nil {
				s.refuse(x, protocol, err)
				return
			}
			defer s.leave()
			defer func() {
				if p := recover(); p != nil {
					s.panicked(x, path, p)
				}
			}()
			infer(tracedBy(x.Context(), x), x)
		}
	}
}

// protocolOf names what a path over HTTP speaks, as a Call does.
func protocolOf(path string) string {
	if path == "/v2" || strings.HasPrefix(path, "/v2/") {
		return "http"
	}
	return "typed"
}

// guarded lets in who may call. protocol "" is that of the path.
func (s *Server) guarded(g *guard, protocol string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !openPath(r.URL.Path) {
			x := api.HTTP(w, r)
			if err := g.asks(x); err != nil {
				s.refuse(x, cmp.Or(protocol, protocolOf(r.URL.Path)), err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// counted lets in as many requests at once as there is room for, before their
// bodies are read. Probes are let in always.
func (s *Server) counted(protocol string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !openPath(r.URL.Path) {
			if err := s.enter(); err != nil {
				s.refuse(api.HTTP(w, r), cmp.Or(protocol, protocolOf(r.URL.Path)), err)
				return
			}
			defer s.leave()
			if protocol == "" { // streams of gRPC take their time
				defer s.bodies.comes(w, r)()
			}
		}
		next.ServeHTTP(w, r)
	})
}

// timed bounds a request of the Open Inference Protocol by what its caller asks.
func (s *Server) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/") {
			x := api.HTTP(w, r)
			ctx, cancel, err := asked(r.Context(), x)
			if err != nil {
				s.refuse(x, "http", err)
				return
			}
			defer cancel()
			if ctx != r.Context() {
				r = r.WithContext(ctx)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// asked bounds ctx by the header X-Request-Timeout, a duration or milliseconds, as the
// typed API does its own.
func asked(ctx context.Context, x api.Exchange) (context.Context, context.CancelFunc, *api.Error) {
	d, err := typed.Patience(x)
	if err != nil {
		return nil, nil, err
	}
	if d == 0 {
		return ctx, func() {}, nil
	}
	limit := api.Within(ctx, d)
	return limit, limit.End, nil
}

func (s *Server) oip() oip.Options {
	o := oip.Options{Name: "mlc", Version: s.o.Version, MaxBody: s.svc.Limits.Body}
	if name, ok := strings.CutPrefix(s.svc.Sticky, "header:"); ok {
		o.Key = name
	}
	return o
}

func (s *Server) probes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("live\n")) })
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !s.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
}

func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	s.probes(mux)
	return mux
}

func debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// refuse answers who is not let in, and counts it.
func (s *Server) refuse(x api.Exchange, protocol string, err *api.Error) {
	s.Refused(protocol, err.Kind)
	if err.Kind == api.Unauthorized {
		x.AddHeader("WWW-Authenticate", "Bearer")
	}
	typed.Refuse(x, err)
}

// recovered keeps a mistake of ours from ending more than its own request.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p) // it cuts the connection, as it is meant to
			} else if p != nil {
				s.panicked(api.HTTP(w, r), r.URL.Path, p)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// panicked answers a request that a mistake of ours ended.
func (s *Server) panicked(x api.Exchange, path string, value any) {
	s.log.Error("panic", "path", path, "value", fmt.Sprint(value), "stack", string(debug.Stack()))
	s.refuse(x, protocolOf(path), api.Errorf(api.Internal, "internal error"))
}

// admitted lets a gRPC caller in by its metadata.
func (g *guard) admitted(ctx context.Context, md metadata.MD) *api.Error {
	first := func(name string) string {
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	remote := ""
	if p, ok := peer.FromContext(ctx); ok {
		remote = g.caller(p.Addr.String(), func() []string { return md.Get("x-forwarded-for") })
	}
	return g.admit(first("authorization"), first("x-api-key"), remote)
}

// paid is a stream of which each message after the first counts as a request, and
// has its time to come.
type paid struct {
	grpc.ServerStream
	s     *Server
	g     *guard
	first bool
}

// RecvMsg takes the next message.
func (p *paid) RecvMsg(m any) error {
	if !p.first {
		awaited(p.ServerStream.Context())
	}
	err := p.ServerStream.RecvMsg(m)
	received(p.ServerStream.Context())
	if err != nil {
		return err
	}
	if p.first {
		p.first = false
		return nil
	}
	md, _ := metadata.FromIncomingContext(p.Context())
	if err := p.g.admitted(p.Context(), md); err != nil {
		p.s.Refused("grpc", err.Kind)
		return err.GRPCStatus().Err()
	}
	return nil
}

// Context is the stream's, in its caller's trace.
func (p *paid) Context() context.Context { return tracedRPC(p.ServerStream.Context()) }

func (s *Server) grpcServer(g *guard, secure *certificates) *grpc.Server {
	recovered := func(method string, err *error) {
		if p := recover(); p != nil {
			s.log.Error("panic", "method", method, "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.Refused("grpc", api.Internal)
			*err = status.Error(codes.Internal, "internal error")
		}
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(s.svc.Limits.Body)), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(1000), grpc.ConnectionTimeout(headerTimeout), grpc.MaxHeaderListSize(maxHeader),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: closeGrace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Who may call, and whether there is room, is asked before a message is read.
		grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
			if strings.HasPrefix(info.FullMethodName, healthRPC) {
				return s.reading(ctx), nil
			}
			err := g.admitted(ctx, info.Header)
			if err == nil {
				err = s.enter()
			}
			if err != nil {
				s.Refused("grpc", err.Kind)
				return ctx, err.GRPCStatus().Err()
			}
			context.AfterFunc(ctx, s.leave)
			askingRPC(ctx)
			return s.reading(ctx), nil
		}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
			defer recovered(info.FullMethod, &err)
			received(ctx)
			return next(tracedRPC(ctx), req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer recovered(info.FullMethod, &err)
			return next(srv, &paid{st, s, g, true})
		}),
	}
	if secure != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(secure.config("h2"))))
	}
	rpc := grpc.NewServer(opts...)
	oip.Register(rpc, s, s.oip())
	reflection.Register(rpc)
	return rpc
}
