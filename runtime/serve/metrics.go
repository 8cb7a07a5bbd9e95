package serve

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"mlc.dev/mlc/runtime/serve/api"
)

// metrics are what Prometheus sees of a server. Names ending in _seconds are
// histograms; the nv_inference_ ones are counted as Triton's are, for dashboards
// made for it.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // service, model, version, variant, protocol, code
	duration *prometheus.HistogramVec // service, model, version, variant, protocol
	queue    *prometheus.HistogramVec // model, version
	compute  *prometheus.HistogramVec
	batch    *prometheus.HistogramVec
	fallback *prometheus.CounterVec // service, reason
	shadow   *prometheus.CounterVec // service, version, result
	shed     *prometheus.CounterVec // reason
	reloads  *prometheus.CounterVec // model, result

	mu    sync.Mutex
	known atomic.Pointer[map[observed]*observers] // copied for each that is added, with mu
}

var seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10}

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.known.Store(&map[observed]*observers{})
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	who := []string{"service", "model", "version", "variant", "protocol"}
	m.requests = counter("mlc_requests_total", "Requests by the status that they were answered with, as of HTTP: inferences, and with no model what was refused before one was asked.", append(who, "code")...)
	m.duration = histogram("mlc_request_duration_seconds", "Time from a decoded request to its outputs.", seconds, who...)
	m.queue = histogram("mlc_queue_duration_seconds", "Time that a request waited for its model.", seconds, "model", "version")
	m.compute = histogram("mlc_compute_duration_seconds", "Time of a run of a model.", seconds, "model", "version")
	m.batch = histogram("mlc_batch_rows", "Rows of a run.", prometheus.ExponentialBuckets(1, 2, 11), "model", "version")
	m.fallback = counter("mlc_fallbacks_total", "Answers that were the declared fallback.", "service", "reason")
	m.shadow = counter("mlc_shadow_total", "Requests mirrored to the shadow: equal, differs, failed or dropped.", "service", "version", "result")
	m.shed = counter("mlc_shed_total", "Requests refused to protect the others.", "reason")
	m.reloads = counter("mlc_reloads_total", "Changes of a model's version.", "model", "result")
	inflight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mlc_inflight_requests", Help: "Requests being answered."}, func() float64 { return float64(s.inflight.Load()) })
	m.registry.MustRegister(inflight, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &modelCollector{s})
	return m
}

// observe counts an answered call.
func (m *metrics) observe(service string, a api.Answer, protocol string, err *api.Error, took time.Duration) {
	code := 200
	if err != nil {
		code = int(err.Kind)
	}
	k := observed{service, a.Model, a.Version, a.Variant, protocol, code, err == nil && !a.Fallback}
	o := (*m.known.Load())[k]
	if o == nil {
		o = &observers{requests: m.request(service, a, protocol, code), duration: m.duration.WithLabelValues(service, a.Model, a.Version, a.Variant, protocol)}
		if k.queued {
			o.queue = m.queue.WithLabelValues(a.Model, a.Version)
		}
		m.mu.Lock()
		known := maps.Clone(*m.known.Load())
		known[k] = o
		m.known.Store(&known)
		m.mu.Unlock()
	}
	o.requests.Inc()
	o.duration.Observe(took.Seconds())
	if k.queued {
		o.queue.Observe(a.Queue.Seconds())
	}
}

// observed are the labels of a call, and observers what counts such calls: finding
// them one by one costs as much as decoding a request.
type (
	observed struct {
		service, model, version, variant, protocol string
		code                                       int
		queued                                     bool // it was the model that answered
	}
	observers struct {
		requests        prometheus.Counter
		duration, queue prometheus.Observer
	}
)

// answered counts a request by its status; the model of one that was refused before a
// model was asked is "".
func (m *metrics) answered(service string, a api.Answer, protocol string, code int) {
	m.request(service, a, protocol, code).Inc()
}

func (m *metrics) request(service string, a api.Answer, protocol string, code int) prometheus.Counter {
	return m.requests.WithLabelValues(service, a.Model, a.Version, a.Variant, protocol, strconv.Itoa(code))
}

// modelCollector tells what the loaded models count themselves.
type modelCollector struct{ s *Server }

var (
	labels   = []string{"model", "version"}
	describe = func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append(labels, more...), nil)
	}
	descRows     = describe("mlc_queue_rows", "Rows that wait for a model.")
	descSuccess  = describe("nv_inference_request_success", "Successful requests.")
	descFailure  = describe("nv_inference_request_failure", "Failed requests.", "reason")
	descCount    = describe("nv_inference_count", "Rows inferred.")
	descExec     = describe("nv_inference_exec_count", "Runs of the model.")
	descPending  = describe("nv_inference_pending_request_count", "Rows that wait.")
	descDuration = describe("nv_inference_request_duration_us", "Time of all requests, in microseconds.")
	descQueue    = describe("nv_inference_queue_duration_us", "Time that requests waited, in microseconds.")
	descCompute  = describe("nv_inference_compute_infer_duration_us", "Time of all runs, in microseconds.")
	descBreaker  = prometheus.NewDesc("mlc_breaker_open", "1 where the breaker keeps calls from the model.", []string{"service", "variant"}, nil)
	descUntil    = prometheus.NewDesc("mlc_certificate_not_after_seconds", "When the service's certificate stops being valid, in seconds since 1970.", []string{"service"}, nil)
	descLog      = prometheus.NewDesc("mlc_prediction_log_records_total", "Records of the prediction log.", []string{"service", "result"}, nil)
)

// Describe names nothing beforehand: which models there are changes.
func (c *modelCollector) Describe(chan<- *prometheus.Desc) {}

// Collect tells the counts of now.
func (c *modelCollector) Collect(out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	us := func(d time.Duration) float64 { return float64(d.Microseconds()) }
	for _, h := range c.s.handles() {
		st, waiting := h.stats, h.waiting
		l := []string{h.model, h.version}
		send(descRows, prometheus.GaugeValue, float64(waiting), l...)
		send(descPending, prometheus.GaugeValue, float64(waiting), l...)
		send(descSuccess, prometheus.CounterValue, float64(st.Success.Count), l...)
		for reason, n := range map[string]uint64{"REJECTED": st.Rejected, "CANCELED": st.Cancelled, "OTHER": st.Failure.Count - st.Rejected - st.Cancelled} {
			send(descFailure, prometheus.CounterValue, float64(n), append(l, reason)...)
		}
		send(descCount, prometheus.CounterValue, float64(st.Inferences), l...)
		send(descExec, prometheus.CounterValue, float64(st.Executions), l...)
		send(descDuration, prometheus.CounterValue, us(st.Success.Total), l...)
		send(descQueue, prometheus.CounterValue, us(st.Queue.Total), l...)
		send(descCompute, prometheus.CounterValue, us(st.Compute.Total), l...)
	}
	for name, b := range c.s.breakers() {
		open := 0.0
		if b.state() != "closed" {
			open = 1
		}
		send(descBreaker, prometheus.GaugeValue, open, c.s.svc.Name, name)
	}
	if c.s.secure != nil {
		cert, _ := c.s.secure.current()
		send(descUntil, prometheus.GaugeValue, float64(cert.Leaf.NotAfter.Unix()), c.s.svc.Name)
	}
	if m := c.s.logMetrics(); m != nil {
		send(descLog, prometheus.CounterValue, float64(m.Written.Load()), c.s.svc.Name, "written")
		send(descLog, prometheus.CounterValue, float64(m.Dropped.Load()), c.s.svc.Name, "dropped")
	}
}
