//go:build linux

package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlc.dev/mlc/bench/internal/run"
	"mlc.dev/mlc/bench/load"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/state"
)

// servingRows measures the inference service with the flights model. All servers
// are on this machine's cores, and so is what asks them. Names choose among one, batched,
// peers, overload, flat and cold; none is all.
func servingRows(tmp string, names ...string) [][]string {
	f := newFixture(filepath.Join(tmp, "serving"))
	var rows [][]string
	for _, b := range []struct {
		name string
		f    func() [][]string
	}{
		{"one", f.oneRow},
		{"batched", func() [][]string { return [][]string{f.batched(1024, 8), f.batched(16, 64)} }},
		{"peers", f.peers},
		{"overload", func() [][]string { return [][]string{f.overload(1), f.overload(1000)} }},
		{"flat", func() [][]string { return [][]string{f.flat()} }},
		{"cold", f.cold},
	} {
		if len(names) == 0 || slices.Contains(names, b.name) {
			rows = append(rows, b.f()...)
		}
	}
	return rows
}

// fixture is the flights model as a program to serve it, a folder to serve and a file.
type fixture struct {
	dir, spec, serve string
	model            string // model.onnx
	inputs           []bundle.Tensor
	// typed are requests of one row for the service and the bare handler.
	typed [][]byte
	first string // the body of one
}

func newFixture(dir string) *fixture {
	f := &fixture{dir: dir, spec: filepath.Join(dir, "flights"), serve: filepath.Join(dir, "mlc-serve"), model: filepath.Join(dir, "bundle", bundle.ModelFile)}
	run.Must(os.CopyFS(f.spec, os.DirFS(filepath.Join(run.Root(), "examples", "flights"))))
	run.Must(os.RemoveAll(filepath.Join(f.spec, ".mlc")))
	_, err := run.Output(f.spec, run.MLC(), "apply")
	run.Must(err)
	_, err = run.Output(run.Root(), "go", "build", "-ldflags=-s -w", "-o", f.serve, "./cmd/mlc-serve")
	run.Must(err)
	ctx := context.Background()
	db, _, err := state.OpenExisting(ctx, state.Options{Location: filepath.Join(f.spec, ".mlc", "state.db")})
	run.Must(err)
	defer db.Close()
	store, err := artifact.Open(filepath.Join(f.spec, ".mlc", "artifacts"))
	run.Must(err)
	v, err := db.Resolve("late@staging")
	run.Must(err)
	run.Must(store.Link(ctx, v.Bundle, filepath.Join(dir, "bundle")))
	b, err := bundle.Open(bundle.Dir(filepath.Join(dir, "bundle")))
	run.Must(err)
	f.inputs = b.Signature.Inputs
	for i := range 64 {
		body := typedBody(i)
		f.typed = append(f.typed, load.JSON("/v1/predict", body))
		f.first = body
	}
	return f
}

// value is one of a feature in the k-th row.
func value(feature string, k int) float64 {
	r := rand.New(rand.NewPCG(uint64(k), uint64(len(feature))))
	switch feature {
	case "flight.departed_at":
		return float64(time.Date(2001, 7, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(86400)) * time.Second).UnixMicro())
	case "flight.distance":
		return float64(100 + r.IntN(2500))
	case "origin_day.departures":
		return float64(1 + r.IntN(1000))
	}
	return math.Round(r.Float64()*100) / 100
}

func typedBody(k int) string {
	at := time.UnixMicro(int64(value("flight.departed_at", k))).UTC().Format(time.RFC3339)
	return fmt.Sprintf(`{"features":{"flight.departed_at":%q,"flight.distance":%v,"origin_day.departures":%v,"origin_day.late_share":%v,"destination_day.late_share":%v}}`,
		at, value("flight.distance", k), value("origin_day.departures", k), value("origin_day.late_share", k), value("destination_day.late_share", k))
}

// binaries are requests of n rows by the Open Inference Protocol, in binary tensors
// both ways. All have rows of their own: a processor learns the way of few rows
// through the trees by heart, and no service meets the same ones for ever.
func (f *fixture) binaries(n int) [][]byte {
	out := make([][]byte, max(distinct/n, 1))
	for i := range out {
		out[i] = f.binary(n, i*n)
	}
	return out
}

// distinct is the number of rows that what is measured in batches goes round in.
const distinct = 1 << 16

func (f *fixture) binary(n, from int) []byte {
	type input struct {
		Name       string         `json:"name"`
		Shape      []int          `json:"shape"`
		Datatype   string         `json:"datatype"`
		Parameters map[string]int `json:"parameters"`
	}
	var inputs []input
	var raw []byte
	for _, t := range f.inputs {
		inputs = append(inputs, input{t.Name, []int{n, 1}, "FP64", map[string]int{"binary_data_size": 8 * n}})
		for k := range n {
			raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(value(t.Name, from+k)))
		}
	}
	head, err := json.Marshal(map[string]any{"inputs": inputs, "parameters": map[string]bool{"binary_data_output": true}})
	run.Must(err)
	return load.Request("POST", "/v2/models/late/infer", append(head, raw...), "Content-Type: application/octet-stream", fmt.Sprintf("Inference-Header-Content-Length: %d", len(head)))
}

// flightsService is that of examples/flights, and what a spec gives by default.
func flightsService() service.Service {
	ref := service.Ref{Model: "late", Alias: "staging"}
	return service.Service{Format: service.Format, System: "flights", Name: "api", Split: []service.Branch{{Name: "staging", Model: ref, Weight: 100}},
		Caller: []string{"origin_day.departures", "origin_day.late_share", "destination_day.late_share"}, Threshold: 0.3,
		P99: service.Duration(20 * time.Millisecond), Deadline: service.Duration(200 * time.Millisecond), Expected: 200, Peak: 1000,
		Batching: service.Batching{MaxRows: 64, Queue: 4096},
		Fallback: &service.Fallback{After: service.Duration(100 * time.Millisecond), Answer: map[string]any{"probability": 0.22}, Breaker: &service.Breaker{Errors: 0.5, Over: service.Duration(10 * time.Second), Least: 20}},
		Limits:   service.Limits{Body: 1 << 20, Rows: 1000, Concurrent: 256, Read: service.Duration(10 * time.Second)}, Replicas: service.Replicas{Min: 2, Max: 10}, CPU: 1, Memory: 512 << 20}
}

// folder lays a service and its model out as mlc build packs them.
func (f *fixture) folder(name string, svc service.Service) string {
	dir := filepath.Join(f.dir, name)
	at := filepath.Join(dir, "models", "late-1")
	run.Must(os.MkdirAll(at, 0o755))
	e := serve.FolderEntry{Version: serve.Version{Number: 1, Bundle: "sha256:bench"}, Dir: "late-1", Files: map[string]plan.Digest{}}
	for _, name := range []string{bundle.ModelFile, bundle.SignatureFile} {
		b, err := os.ReadFile(filepath.Join(f.dir, "bundle", name))
		run.Must(err)
		run.Must(os.WriteFile(filepath.Join(at, name), b, 0o644))
		e.Files[name] = plan.DigestOf(b)
	}
	write := func(path string, v any) {
		b, err := json.Marshal(v)
		run.Must(err)
		run.Must(os.WriteFile(path, b, 0o644))
	}
	write(filepath.Join(dir, "service.json"), svc)
	write(filepath.Join(dir, "models", serve.IndexFile), map[string]serve.FolderEntry{"late@staging": e})
	return dir
}

// start serves a folder with mlc-serve.
func (f *fixture) start(folder string) *run.Child {
	addr := run.FreeAddr()
	c, err := run.Start(exec.Command(f.serve, folder, "--quiet", "--http", addr, "--grpc", "", "--metrics", ""), addr, run.Post(addr, "/v1/predict", f.first))
	run.Must(err)
	return c
}

// startBare serves the model with the bare handler: this program in another process.
func (f *fixture) startBare() *run.Child {
	self, err := os.Executable()
	run.Must(err)
	addr := run.FreeAddr()
	c, err := run.Start(exec.Command(self, "bare", f.model, addr), addr, run.Post(addr, "/v1/predict", f.first))
	run.Must(err)
	return c
}

// ask runs a load that has to be answered without a fault.
func ask(o load.Options) *load.Result {
	r, err := load.Run(context.Background(), o)
	run.Must(err)
	if r.Status[200] != r.Sent || r.Sent == 0 {
		run.Must(fmt.Errorf("of %d requests %d were answered with 200; failed: %v; 4xx and 5xx: %v", r.Sent, r.Status[200], r.Failed, statuses(r)))
	}
	return r
}

func statuses(r *load.Result) map[int]int {
	out := map[int]int{}
	for code, n := range r.Status {
		if n > 0 && code != 200 {
			out[code] = n
		}
	}
	return out
}

func median(xs []float64) float64 {
	sort.Float64s(xs)
	return xs[len(xs)/2]
}

// inTurns measures several things a few times each, so that noise falls on all,
// and returns the medians.
func inTurns(rounds int, what ...func() float64) []float64 {
	all := make([][]float64, len(what))
	for range rounds {
		for i, f := range what {
			all[i] = append(all[i], f())
		}
	}
	out := make([]float64, len(what))
	for i := range all {
		out[i] = median(all[i])
	}
	return out
}

const (
	connections = 32
	moment      = 1500 * time.Millisecond
)

// throughput is how many answers a server gives in a second, as fast as it can.
func throughput(c *run.Child, requests [][]byte, connections int) func() float64 {
	return func() float64 {
		return ask(load.Options{Addr: c.Addr, Requests: requests, Connections: connections, Time: moment}).PerSecond()
	}
}

// oneRow compares the time of one row with the bare handler's at equal load: half
// of what the slower of them can do.
func (f *fixture) oneRow() [][]string {
	ours, bare := f.start(f.folder("one", flightsService())), f.startBare()
	defer ours.Stop()
	defer bare.Stop()
	top := inTurns(3, throughput(ours, f.typed, connections), throughput(bare, f.typed, connections))
	rate := math.Floor(min(top[0], top[1]) / 2)
	var p50, p99 [2][]float64
	for range 15 {
		for i, c := range []*run.Child{ours, bare} {
			r := ask(load.Options{Addr: c.Addr, Requests: f.typed, Connections: 64, Rate: rate, Time: moment})
			p50[i] = append(p50[i], float64(r.OK.Quantile(0.50)))
			p99[i] = append(p99[i], float64(r.OK.Quantile(0.99)))
		}
	}
	var rows [][]string
	for _, q := range []struct {
		name string
		of   [2][]float64
	}{{"p50", p50}, {"p99", p99}} {
		a, b := median(q.of[0]), median(q.of[1])
		what := fmt.Sprintf("one row over REST, %s at %.0f requests/s (at most %.0f, bare %.0f)", q.name, rate, top[0], top[1])
		rows = append(rows, []string{what, micros(a), "bare net/http, same session " + micros(b), fmt.Sprintf("%.2f", a/b), "≤ 1.3", verdict(a/b <= 1.3)})
	}
	return rows
}

func micros(ns float64) string { return fmt.Sprintf("%.0f µs", ns/1000) }

// batched compares rows a second through the service, of callers that send some rows
// each, with ONNX Runtime alone. The goal is for the best batch of both.
func (f *fixture) batched(perRequest, callers int) []string {
	svc := flightsService()
	svc.Fallback, svc.Deadline, svc.Batching.MaxRows, svc.Batching.Queue, svc.Limits.Rows = nil, service.Duration(time.Second), 2048, 1<<20, 1024
	ours := f.start(f.folder("batched", svc))
	defer ours.Stop()
	b, err := os.ReadFile(f.model)
	run.Must(err)
	session, err := ort.Open(b)
	run.Must(err)
	defer session.Close()
	best, most := 0, 0.0
	for _, n := range []int{64, 256, 1024, 4096} {
		if v := f.native(session, n); v > most {
			best, most = n, v
		}
	}
	through := throughput(ours, f.binaries(perRequest), callers)
	m := inTurns(3, func() float64 { return float64(perRequest) * through() }, func() float64 { return f.native(session, best) })
	ratio := m[0] / m[1]
	goal, reached := "≥ 0.85", verdict(ratio >= 0.85)
	if perRequest < 1024 {
		goal, reached = "", ""
	}
	return []string{fmt.Sprintf("batched rows/s, %d callers with %d rows each, binary tensors over HTTP", callers, perRequest), fmt.Sprintf("%.0f", m[0]), fmt.Sprintf("ONNX Runtime alone, all cores, batches of %d: %.0f", best, m[1]), fmt.Sprintf("%.2f", ratio), goal, reached}
}

// native is how many rows a second a session does in batches of n on all cores.
func (f *fixture) native(s *ort.Session, n int) float64 {
	columns := make([][]float64, len(f.inputs))
	for i, t := range f.inputs {
		columns[i] = make([]float64, distinct)
		for k := range columns[i] {
			columns[i][k] = value(t.Name, k)
		}
	}
	var rows atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			in := make([]ort.Tensor, len(f.inputs))
			for at := 0; time.Since(start) < moment/2; at = (at + n) % distinct {
				for i := range in {
					in[i] = ort.Column(columns[i][at : at+n])
				}
				_, err := s.Run(in)
				run.Must(err)
				rows.Add(int64(n))
			}
		})
	}
	wg.Wait()
	return float64(rows.Load()) / time.Since(start).Seconds()
}

// peer is another server of the same model: see bench/peers/serving.
type peer struct {
	name, title, ready, path, body string
	goal                           float64
}

func (f *fixture) peerList() []peer {
	row, tensors := map[string]float64{}, []map[string]any{}
	for _, t := range f.inputs {
		row[t.Name] = value(t.Name, 0)
		tensors = append(tensors, map[string]any{"name": t.Name, "shape": []int{1, 1}, "datatype": "FP64", "data": []float64{row[t.Name]}})
	}
	flat, err := json.Marshal(row)
	run.Must(err)
	v2, err := json.Marshal(map[string]any{"inputs": tensors})
	run.Must(err)
	return []peer{
		{"fastapi", "FastAPI + onnxruntime", "/ready", "/predict", string(flat), 10},
		{"mlserver", "MLServer", "/v2/models/model/ready", "/v2/models/model/infer", string(v2), 5},
		{"bentoml", "BentoML", "/readyz", "/predict", string(flat), 5},
	}
}

func (f *fixture) startPeer(p peer, python string) (*run.Child, error) {
	addr := run.FreeAddr()
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command(python, "serve_"+p.name+".py", "--model", f.model, "--port", port)
	cmd.Dir = peersOf("serving")
	return run.Start(cmd, addr, run.Post(addr, p.path, p.body))
}

// peers compares throughput of one row with other servers, in turns: with callers on the
// same cores, and with callers and servers on cores of their own.
func (f *fixture) peers() [][]string {
	pythons, err := pythonsOf("serving")
	if err != nil {
		fmt.Fprintln(os.Stderr, "SKIPPED: not all peers could be installed:", err)
	}
	var apart, together [][]string
	for _, p := range f.peerList() {
		if pythons[p.name] == "" {
			together = append(together, []string{"one-row requests/s, against " + p.title, "SKIPPED: it could not be installed", "", "", fmt.Sprintf("≥ %v", p.goal), ""})
			continue
		}
		compare := func(where string, begin func(start func()) (free func())) (row []string, ratio float64) {
			var ours, theirs *run.Child
			free := begin(func() {
				ours = f.start(f.folder("one", flightsService()))
				var err error
				theirs, err = f.startPeer(p, pythons[p.name])
				run.Must(err)
			})
			defer free()
			defer ours.Stop()
			defer theirs.Stop()
			request := [][]byte{load.JSON(p.path, p.body)}
			able := []func() float64{throughput(ours, f.typed, connections), throughput(theirs, request, connections)}
			inTurns(1, able...) // both are warm
			m := inTurns(5, able...)
			ratio = m[0] / m[1]
			return []string{fmt.Sprintf("one-row requests/s, %d connections, %s", connections, where), fmt.Sprintf("%.0f", m[0]), fmt.Sprintf("%s %.0f", p.title, m[1]), fmt.Sprintf("%.1f", ratio)}, ratio
		}
		row, ratio := compare("callers on the service's cores", func(start func()) func() { start(); return func() {} })
		together = append(together, append(row, fmt.Sprintf("≥ %v", p.goal), verdict(ratio >= p.goal)))
		row, _ = compare("service and callers on cores of their own", run.Apart)
		apart = append(apart, append(row, "", ""))
	}
	return append(together, apart...)
}

// overload offers three times what the service can do, of n rows a request, and
// measures what it can do in turns with that. Callers have so many connections and
// no more: a request that finds none free never reaches the service. The service has half
// of the cores and its callers the others: three times as many requests would otherwise
// be paid for by the service.
func (f *fixture) overload(n int) []string {
	const budget, most = 100 * time.Millisecond, 512
	svc := flightsService()
	svc.Fallback, svc.P99, svc.Deadline = nil, service.Duration(budget), service.Duration(budget)
	folder := f.folder("overload", svc)
	var ours *run.Child
	free := run.Apart(func() { ours = f.start(folder) })
	defer free()
	defer ours.Stop()
	requests, callers, kind := f.typed, connections, "one row, typed"
	if n > 1 {
		requests, callers, kind = f.binaries(n), 4, fmt.Sprintf("%d rows, binary", n)
	}
	offer := func(o load.Options) *load.Result {
		o.Addr, o.Requests = ours.Addr, requests
		r, err := load.Run(context.Background(), o)
		run.Must(err)
		return r
	}
	able := func() float64 { return offer(load.Options{Connections: callers, Time: moment}).PerSecond() }
	able() // it learns how long a run takes
	rate := 3 * able()
	var capacity, goodput, p99 []float64
	sum := &load.Result{}
	shed, late, rest := 0, 0, 0
	for range 5 {
		capacity = append(capacity, able())
		r := offer(load.Options{Connections: most, Rate: rate, Time: 2 * moment, Patience: 1})
		goodput, p99 = append(goodput, r.PerSecond()), append(p99, float64(r.OK.Quantile(0.99)))
		sum.Sent, sum.Unsent, sum.NoRetry = sum.Sent+r.Sent, sum.Unsent+r.Unsent, sum.NoRetry+r.NoRetry
		sum.Status[200] += r.Status[200]
		shed += r.Status[429] + r.Status[503]
		late += r.Status[504]
		rest += r.Sent - r.Status[200] - r.Status[429] - r.Status[503] - r.Status[504]
	}
	can, slow := median(capacity), time.Duration(median(p99))
	share := median(goodput) / can
	// An answer of 504 was accepted and came to nothing: it counts into the p99.
	ok := share >= 0.9 && slow <= budget && 100*late <= sum.Status[200]+late && rest == 0 && sum.NoRetry == 0
	what := fmt.Sprintf("overload, service and callers on cores of their own: %.1f times the capacity of %.0f requests/s (%s); of %d: %d answered, %d shed (%d without Retry-After), %d without one of the %d connections, %d past their deadline, %d otherwise",
		rate/can, can, kind, sum.Sent+sum.Unsent, sum.Status[200], shed, sum.NoRetry, sum.Unsent, most, late, rest)
	return []string{what, fmt.Sprintf("goodput %.0f%%, p99 %s", 100*share, slow.Round(100*time.Microsecond)), "capacity, 100 ms", fmt.Sprintf("%.2f", share), "≥ 0.9, ≤ 100 ms, all others shed", verdict(ok)}
}

// flat compares resident memory after a tenth of a million requests with that
// after a million.
func (f *fixture) flat() []string {
	const early, all = 100_000, 1_000_000
	ours := f.start(f.folder("one", flightsService()))
	defer ours.Stop()
	sent := func(n int) *load.Result {
		return ask(load.Options{Addr: ours.Addr, Requests: f.typed, Connections: connections, Count: n})
	}
	sent(early)
	before := ours.Resident()
	r := sent(all - early)
	after := ours.Resident()
	growth := float64(after)/float64(before) - 1
	what := fmt.Sprintf("resident memory after %d requests, over that after %d (%.0f requests/s)", all, early, r.PerSecond())
	return []string{what, mib(after), mib(before), fmt.Sprintf("%+.1f%%", 100*growth), "≤ +5%", verdict(growth <= 0.05)}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// cold compares size and the time from start to the first answer with BentoML's,
// whose files are its virtual environment and Python: the least of its image.
func (f *fixture) cold() [][]string {
	size, of := f.image()
	folder := f.folder("one", flightsService())
	// Stopping is not starting: what it takes is measured by itself.
	took := func(begin func() *run.Child) time.Duration {
		var ds []float64
		for range 5 {
			at := time.Now()
			c := begin()
			ds = append(ds, float64(time.Since(at)))
			c.Stop()
		}
		return time.Duration(median(ds))
	}
	start := took(func() *run.Child { return f.start(folder) })
	what := "files of the image, unpacked (" + of + ")"
	begin := "start to the first answer"
	pythons, err := pythonsOf("serving")
	if pythons["bentoml"] == "" {
		fmt.Fprintln(os.Stderr, "SKIPPED: BentoML could not be installed:", err)
		return [][]string{{what, mib(size), "SKIPPED: BentoML could not be installed", "", "≤ 1/5", ""}, {begin, start.Round(time.Millisecond).String(), "SKIPPED: BentoML could not be installed", "", "≤ 1/5", ""}}
	}
	python := pythons["bentoml"]
	theirs := tree(filepath.Dir(filepath.Dir(python))) + interpreter(python)
	var p peer
	for _, x := range f.peerList() {
		if x.name == "bentoml" {
			p = x
		}
	}
	slow := took(func() *run.Child {
		c, err := f.startPeer(p, python)
		run.Must(err)
		return c
	})
	a, b := float64(size)/float64(theirs), float64(start)/float64(slow)
	return [][]string{
		{what, mib(size), "BentoML " + mib(theirs), fmt.Sprintf("%.2f", a), "≤ 0.2", verdict(a <= 0.2)},
		{begin, start.Round(time.Millisecond).String(), "BentoML " + slow.Round(time.Millisecond).String(), fmt.Sprintf("%.2f", b), "≤ 0.2", verdict(b <= 0.2)},
	}
}

// image is the size of the service's image, or, where mlc does not build it, of
// what has to be in it, and which of them.
func (f *fixture) image() (int64, string) {
	archive := filepath.Join(f.dir, "image.tar")
	if _, err := run.Output(f.spec, run.MLC(), "build", "api", "-o", archive); err == nil {
		n, err := layers(archive)
		run.Must(err)
		return n, "built by mlc build"
	}
	lib, err := ort.Find()
	run.Must(err)
	p, err := portable.Find(f.serve, lib.Path)
	run.Must(err)
	sum := tree(f.folder("one", flightsService()))
	for _, file := range p.Files {
		s, err := os.Stat(file.Path)
		run.Must(err)
		sum += s.Size()
	}
	return sum, "program, libraries, ONNX Runtime and model: `mlc build` of a service failed"
}

// layers is the size of an image archive's layers, unpacked.
func layers(archive string) (int64, error) {
	file, err := os.Open(archive)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	sum := int64(0)
	for t := tar.NewReader(file); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
		r := bufio.NewReader(t)
		magic, err := r.Peek(2)
		if err != nil || magic[0] == '{' || magic[0] == '[' {
			continue // a folder, or JSON
		}
		if magic[0] != 0x1f || magic[1] != 0x8b {
			sum += h.Size
			continue
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, z)
		if err != nil {
			return 0, err
		}
		sum += n
	}
}

// tree is the size of the files below a folder.
func tree(dir string) int64 {
	sum := int64(0)
	run.Must(filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		i, err := e.Info()
		if err == nil {
			sum += i.Size()
		}
		return err
	}))
	return sum
}

// interpreter is the size of the Python that a virtual environment leans on: its
// program and standard library, without what others installed there.
func interpreter(python string) int64 {
	out, err := run.Output("", python, "-c", "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))")
	run.Must(err)
	program, lib, _ := strings.Cut(strings.TrimSpace(out), "\n")
	s, err := os.Stat(program)
	run.Must(err)
	sum := s.Size() + tree(lib)
	for _, others := range []string{"site-packages", "dist-packages"} {
		if _, err := os.Stat(filepath.Join(lib, others)); err == nil {
			sum -= tree(filepath.Join(lib, others))
		}
	}
	return sum
}
