// Package serving is what mlc serve and mlc-serve have in common: flags, logs and
// the life of a server.
package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/secret"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/stdlib/foreign/trees"
)

// Flags are where a server listens, and how it logs.
type Flags struct {
	serve.Endpoints
	Quiet   bool
	Control bool
}

// Register adds the flags to a command. host is where it listens unless told
// otherwise: in a container everywhere, at a desk on loopback.
func (f *Flags) Register(fs *pflag.FlagSet, host string) {
	port := os.Getenv("PORT") // as Knative and others say it
	if port == "" {
		port = "8000"
	}
	fs.StringVar(&f.HTTP, "http", net.JoinHostPort(host, port), "listen for HTTP at an `address`; empty: not at all")
	fs.StringVar(&f.GRPC, "grpc", net.JoinHostPort(host, "8001"), "listen for gRPC at an `address`; empty: not at all")
	fs.StringVar(&f.Metrics, "metrics", net.JoinHostPort(host, "8002"), "answer Prometheus and probes at an `address`; empty: not at all")
	fs.StringVar(&f.Debug, "debug", "", "answer /debug/pprof at an `address`, for insiders")
	fs.DurationVar(&f.DrainDelay, "drain-delay", 0, "answer on for a `time` after being told to stop, not ready any more")
	fs.BoolVar(&f.Control, "model-control", false, "let callers load and unload models, as of the Open Inference Protocol")
	fs.BoolVar(&f.Quiet, "quiet", false, "log errors only")
}

// Logger writes JSON lines.
func (f *Flags) Logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if f.Quiet {
		level = slog.LevelError
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// check tells every flag that cannot be meant.
func (f *Flags) check() error {
	var errs []error
	if f.DrainDelay < 0 {
		errs = append(errs, fmt.Errorf("--drain-delay is %v; give 0 or more", f.DrainDelay))
	}
	if f.HTTP == "" && f.GRPC == "" {
		errs = append(errs, errors.New("neither --http nor --grpc has an address, so nobody could ask; give one"))
	}
	at := map[string]string{}
	for _, e := range []struct{ flag, address string }{{"http", f.HTTP}, {"grpc", f.GRPC}, {"metrics", f.Metrics}, {"debug", f.Debug}} {
		if _, port, err := net.SplitHostPort(e.address); err != nil || port == "0" {
			continue
		}
		if other, taken := at[e.address]; taken {
			errs = append(errs, fmt.Errorf("--%s and --%s are both %s; give each an address of its own", other, e.flag, e.address))
		}
		at[e.address] = e.flag
	}
	return errors.Join(errs...)
}

// Run serves until ctx is done. ready is told where.
func (f *Flags) Run(ctx context.Context, o serve.Options, ready func(serve.Endpoints)) error {
	if err := f.check(); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // a few MiB live, so this is some MiB more for a fifth of the collections
	}
	// What is left of a container's memory is the models' and ONNX Runtime's.
	if _, err := memlimit.Set(memlimit.WithRatio(0.75), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		o.Log.Debug("the memory of the process has no known limit", "cause", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log.Warn("traces are not sent", "error", err) }))
	if o.Secret == nil {
		o.Secret = secret.Value
	}
	o.Control = f.Control
	tracer, flush, err := tracing(ctx, o.Service.Name)
	if err != nil {
		return err
	}
	o.Tracer = tracer
	s, err := serve.Open(ctx, o)
	if err == nil {
		err = s.Serve(ctx, f.Endpoints, ready)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if s != nil {
		err = errors.Join(err, s.Close(end))
	}
	if ferr := flush(end); ferr != nil {
		o.Log.Warn("the last spans were not sent", "error", ferr)
	}
	return err
}

// tracing sends spans where the usual variables of OpenTelemetry say
// (OTEL_EXPORTER_OTLP_ENDPOINT and others), or nowhere.
func tracing(ctx context.Context, service string) (trace.Tracer, func(context.Context) error, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, func(context.Context) error { return nil }, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", err)
	}
	r, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", service)), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(r))
	return p.Tracer("mlc.dev/mlc"), p.Shutdown, nil
}

// ServiceFile is the service in a folder that is served, beside the folder of its
// models.
const (
	ServiceFile = "service.json"
	ModelsDir   = "models"
)

// IsModel reports whether a path means a model's file, and no service: by its name, or
// because there is such a file.
func IsModel(path string) bool {
	info, err := os.Stat(path)
	return strings.HasSuffix(path, ".onnx") || err == nil && info.Mode().IsRegular()
}

// Open reads what is to be served: a folder as mlc build makes it, or a model of ONNX,
// LightGBM or XGBoost.
func Open(path string) (*service.Service, serve.Source, error) {
	if IsModel(path) {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, nil, err
		}
		b, err := os.ReadFile(abs)
		if err != nil {
			return nil, nil, err
		}
		file := serve.File{Path: abs}
		if trees.Is(b) {
			file.Convert = convert
		}
		return service.ForModel(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))), file, nil
	}
	b, err := os.ReadFile(filepath.Join(path, ServiceFile))
	if err != nil {
		return nil, nil, fmt.Errorf("%s is neither a model nor a folder with a service: %w", path, err)
	}
	svc, err := service.Parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ServiceFile, err)
	}
	src, err := serve.OpenFolder(filepath.Join(path, ModelsDir))
	return svc, src, err
}

// convert makes ONNX of a model of LightGBM or XGBoost.
func convert(b []byte) ([]byte, error) {
	m, err := trees.Read(b)
	if err != nil {
		return nil, err
	}
	return m.ONNX()
}
