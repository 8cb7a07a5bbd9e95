//go:build linux

// Command soak keeps a service under load while what it stands on changes: an
// alias is promoted and rolled back, a shadow fails at every request, and one of
// two replicas is killed. It says whether anybody noticed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/bench/internal/run"
	"mlc.dev/mlc/bench/load"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/state"
)

// Times of a soak.
const (
	moveEvery   = 20 * time.Second // the alias moves
	sampleEvery = time.Second      // of memory
	downFor     = 10 * time.Second // the killed replica
	share       = 0.7              // of the capacity, which is measured each minute: that of the machine changes
	probe       = 3 * time.Second  // how long that takes
	warmUp      = time.Minute      // of a replica, whose memory is not judged
	callers     = 128              // connections; the proxy keeps as many to the replicas
	growth      = 0.05             // of resident memory after that, at most
)

const body = `{"features":{"flight.departed_at":"2001-07-01T18:40:00Z","flight.distance":733,"origin_day.departures":960,"origin_day.late_share":0.41,"destination_day.late_share":0.35}}`

func main() {
	minutes := flag.Int("minutes", 10, "how long")
	flag.Parse()
	if _, err := exec.LookPath("nginx"); err != nil {
		fmt.Println("SKIPPED: no nginx; apt-get install nginx")
		return
	}
	dir, remove := run.TempDir("mlc-soak-")
	spec := prepare(dir)
	replicas := []*replica{newReplica(spec), newReplica(spec)}
	front := startProxy(dir, replicas)
	ok := soak(dir, spec, front, replicas, time.Duration(*minutes)*time.Minute)
	front.Stop()
	for _, r := range replicas {
		r.stop()
	}
	remove()
	if !ok {
		os.Exit(1)
	}
}

// prepare applies examples/flights twice, so that there are two versions, and
// registers a third, which fails at every run, as what the shadow answers with.
func prepare(dir string) string {
	spec := filepath.Join(dir, "flights")
	run.Must(os.CopyFS(spec, os.DirFS(filepath.Join(run.Root(), "examples", "flights"))))
	run.Must(os.RemoveAll(filepath.Join(spec, ".mlc")))
	file := filepath.Join(spec, "flights.cue")
	edit := func(from, to string) {
		b, err := os.ReadFile(file)
		run.Must(err)
		if strings.Count(string(b), from) != 1 {
			run.Must(fmt.Errorf("examples/flights does not have %q once", from))
		}
		run.Must(os.WriteFile(file, []byte(strings.Replace(string(b), from, to, 1)), 0o644))
		_, err = run.Output(spec, run.MLC(), "apply")
		run.Must(err)
	}
	edit("threshold: 0.3", `threshold: 0.3, shadow: model: "late@broken"`)
	edit("learning_rate: 0.05", "learning_rate: 0.06")
	ctx := context.Background()
	db, err := state.Open(ctx, state.Options{Location: filepath.Join(spec, ".mlc", "state.db")})
	run.Must(err)
	defer db.Close()
	store, err := artifact.Open(filepath.Join(spec, ".mlc", "artifacts"))
	run.Must(err)
	v, err := db.Resolve("late@v1")
	run.Must(err)
	files, err := store.Files(ctx, v.Bundle)
	run.Must(err)
	broken := filepath.Join(dir, "broken")
	for _, f := range files {
		path, err := store.Blob(ctx, f.Digest)
		run.Must(err)
		b, err := os.ReadFile(path)
		run.Must(err)
		if f.Path == bundle.ModelFile {
			b = failing(b)
		}
		at := filepath.Join(broken, filepath.FromSlash(f.Path))
		run.Must(os.MkdirAll(filepath.Dir(at), 0o755))
		run.Must(os.WriteFile(at, b, 0o644))
	}
	tree, err := store.Put(ctx, broken)
	run.Must(err)
	_, _, err = db.Register(ctx, "late", tree, []byte("{}"), 0, "broken", time.Now())
	run.Must(err)
	return spec
}

// failing is a model with a node before its first output that loads and fails at
// every run: it takes a column far beyond the last.
func failing(model []byte) []byte {
	var m onnxpb.ModelProto
	run.Must(proto.Unmarshal(model, &m))
	out, inner, index := m.Graph.Output[0].Name, m.Graph.Output[0].Name+"__inner", "__beyond"
	for _, n := range m.Graph.Node {
		for i, name := range n.Output {
			if name == out {
				n.Output[i] = inner
			}
		}
	}
	m.Graph.Initializer = append(m.Graph.Initializer, &onnxpb.TensorProto{Name: index, DataType: int32(onnxpb.TensorProto_INT64), Dims: []int64{1}, Int64Data: []int64{1 << 20}})
	m.Graph.Node = append(m.Graph.Node, &onnxpb.NodeProto{OpType: "Gather", Input: []string{inner, index}, Output: []string{out},
		Attribute: []*onnxpb.AttributeProto{{Name: "axis", Type: onnxpb.AttributeProto_INT, I: 1}}})
	b, err := proto.Marshal(&m)
	run.Must(err)
	s, err := ort.Open(b)
	run.Must(err)
	defer s.Close()
	in := make([]ort.Tensor, len(s.Inputs()))
	for i := range in {
		in[i] = ort.Column([]float64{1})
	}
	if _, err := s.Run(in); err == nil {
		run.Must(fmt.Errorf("the shadow's model should fail, and does not"))
	}
	return b
}

// replica is one of the servers, and what its memory was each second since it
// started.
type replica struct {
	spec, addr, metrics string
	mu                  sync.Mutex
	c                   *run.Child
	resident            []float64
}

func newReplica(spec string) *replica {
	r := &replica{spec: spec, addr: run.FreeAddr(), metrics: run.FreeAddr()}
	r.start()
	return r
}

func (r *replica) start() {
	cmd := exec.Command(run.MLC(), "serve", "api", "--quiet", "--http", r.addr, "--grpc", "", "--metrics", r.metrics)
	cmd.Dir = r.spec
	c, err := run.Start(cmd, r.addr, run.Get(r.addr, "/healthz/ready"))
	run.Must(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.c, r.resident = c, nil
}

// kill ends the replica without a word, and returns when it is gone.
func (r *replica) kill() time.Time {
	r.mu.Lock()
	c := r.c
	r.c = nil
	r.mu.Unlock()
	c.Kill()
	return time.Now()
}

func (r *replica) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		r.c.Stop()
	}
}

func (r *replica) sample() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		r.resident = append(r.resident, float64(r.c.Resident())/(1<<20))
	}
}

// memory is what the replica has now, in MiB.
func (r *replica) memory() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.resident); n > 0 {
		return fmt.Sprintf("%.0f MiB", r.resident[n-1])
	}
	return "down"
}

// flat compares the medians of the first and last quarter of what was sampled once
// the replica was warm. One that did not run for that long again is not judged.
func (r *replica) flat() (ok, judged bool, told string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	warm := r.resident[min(int(warmUp/sampleEvery), len(r.resident)):]
	n := len(warm)
	if n < int(warmUp/sampleEvery) {
		return true, false, fmt.Sprintf("not judged, for it ran for %d s only after its warm-up", n)
	}
	first, last := middle(warm[:n/4]), middle(warm[n-n/4:])
	grown := last/first - 1
	return grown <= growth, true, fmt.Sprintf("%.1f -> %.1f MiB (%+.1f%%) over %d s, at most %+.0f%%: %s", first, last, 100*grown, n, 100*growth, verdict(grown <= growth))
}

func middle(xs []float64) float64 {
	xs = slices.Clone(xs)
	sort.Float64s(xs)
	return xs[len(xs)/2]
}

// counters are sums of the replica's metrics by name and one label's value.
func (r *replica) counters(name, label string) map[string]float64 {
	res, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	run.Must(err)
	out := map[string]float64{}
	for _, line := range strings.Split(string(b), "\n") {
		series, value, _ := strings.Cut(line, "} ")
		rest, ok := strings.CutPrefix(series, name+"{")
		if !ok {
			continue
		}
		_, key, _ := strings.Cut(","+rest, ","+label+`="`)
		key, _, _ = strings.Cut(key, `"`)
		v, err := strconv.ParseFloat(value, 64)
		run.Must(err)
		out[key] += v
	}
	return out
}

// faultLog is where nginx writes what was not answered with 200: the time of the
// answer, the time it took, its status, and the replicas that were asked.
const faultLog = "faults.log"

// startProxy puts nginx before the replicas. A request that may have reached a
// replica is not sent to another: it is a POST.
func startProxy(dir string, replicas []*replica) *run.Child {
	addr := run.FreeAddr()
	conf := fmt.Sprintf(`daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log crit;
events { worker_connections 4096; }
http {
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	map $status $fault { 200 0; default 1; }
	log_format faults '$msec $request_time $status $upstream_addr';
	access_log %[1]s/%[4]s faults if=$fault;
	upstream replicas {
		server %[2]s max_fails=1 fail_timeout=2s;
		server %[3]s max_fails=1 fail_timeout=2s;
		keepalive %[6]d;
	}
	server {
		listen %[5]s;
		keepalive_requests 1000000000;
		location / {
			proxy_pass http://replicas;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_connect_timeout 1s;
			proxy_next_upstream error timeout;
		}
	}
}
`, dir, replicas[0].addr, replicas[1].addr, faultLog, addr, callers)
	path := filepath.Join(dir, "nginx.conf")
	run.Must(os.WriteFile(path, []byte(conf), 0o644))
	run.Must(os.Chmod(dir, 0o755)) // nginx's worker may be another user
	c, err := run.Start(exec.Command("nginx", "-c", path, "-e", filepath.Join(dir, "nginx.log")), addr, run.Post(addr, "/v1/predict", body))
	run.Must(err)
	return c
}

// soak runs for a time, tells each minute, and then the verdict.
func soak(dir, spec string, front *run.Child, replicas []*replica, long time.Duration) bool {
	ask := func(o load.Options) *load.Result {
		o.Addr, o.Requests = front.Addr, [][]byte{load.JSON("/v1/predict", body)}
		r, err := load.Run(context.Background(), o)
		run.Must(err)
		return r
	}
	fmt.Printf("soak at %s: %.0f %% of what comes through nginx, for %s\n", run.Commit(), 100*share, long)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	moves := 0
	wg.Go(func() {
		every(ctx, moveEvery, func() {
			if moves%2 == 0 {
				must(run.Output(spec, run.MLC(), "promote", "late@v1", "staging"))
			} else {
				must(run.Output(spec, run.MLC(), "rollback", "late", "staging"))
			}
			moves++
		})
	})
	wg.Go(func() {
		every(ctx, sampleEvery, func() {
			for _, r := range replicas {
				r.sample()
			}
		})
	})
	victim := replicas[1]
	var before, killed time.Time
	wg.Go(func() {
		// In the middle of a minute: with one replica less more comes through, and its
		// capacity is not that of both.
		if !pause(ctx, (long/2).Truncate(time.Minute)+time.Minute/2) {
			return
		}
		before = time.Now()
		killed = victim.kill()
		if pause(ctx, downFor) {
			victim.start()
		}
	})

	var sent, unanswered int
	kinds := map[string]int{}
	bad := func(rs ...*load.Result) map[string]int {
		out := map[string]int{}
		for _, r := range rs {
			for code, n := range r.Status {
				if n > 0 && code != http.StatusOK {
					out[strconv.Itoa(code)] += n
				}
			}
			for why, n := range r.Failed {
				out[why] += n
			}
		}
		return out
	}
	begun := time.Now()
	for minute := 1; time.Since(begun) < long; minute++ {
		end := min(time.Duration(minute)*time.Minute, long)
		most := ask(load.Options{Connections: callers, Time: probe})
		rate := math.Floor(share * most.PerSecond())
		r := ask(load.Options{Connections: callers, Rate: rate, Time: max(end-time.Since(begun), probe)})
		faults := bad(most, r)
		for why, n := range faults {
			kinds[why] += n
			unanswered += n
		}
		sent += most.Sent + r.Sent
		fmt.Printf("minute %d: %.0f requests/s of at most %.0f, failures %v, p50 %s, p99 %s, memory %s and %s\n", minute, rate, most.PerSecond(), faults, r.OK.Quantile(0.5), r.OK.Quantile(0.99), replicas[0].memory(), replicas[1].memory())
	}
	cancel()
	wg.Wait()

	excused := inFlight(filepath.Join(dir, faultLog), victim.addr, killed)
	ok, whole := unanswered == excused && !killed.IsZero(), true
	fmt.Printf("%d requests, %d of them failed %v; %d were in flight on the replica that was killed (%s to end it): %s\n", sent, unanswered, kinds, excused, killed.Sub(before).Round(time.Millisecond), verdict(unanswered == excused))
	for i, r := range replicas {
		flat, judged, told := r.flat()
		ok, whole = ok && flat, whole && judged
		fmt.Printf("replica %d: memory %s; the shadow %v, reloads %v, fallbacks %v\n", i+1, told,
			r.counters("mlc_shadow_total", "result"), r.counters("mlc_reloads_total", "result"), r.counters("mlc_fallbacks_total", "reason"))
	}
	left := ""
	if !whole {
		left = ", but memory was not judged: a replica ran too short"
	}
	fmt.Printf("the alias moved %d times; verdict: %s%s\n", moves, verdict(ok), left)
	return ok
}

// inFlight counts the faults of requests that only the killed replica was asked,
// and that began before it was gone.
func inFlight(log, addr string, gone time.Time) int {
	b, err := os.ReadFile(log)
	run.Must(err)
	const clock = 0.005 // nginx tells milliseconds, of a time that it looks up now and then
	n := 0
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.SplitN(line, " ", 4)
		if len(f) < 4 || f[3] != addr {
			continue
		}
		end, err1 := strconv.ParseFloat(f[0], 64)
		took, err2 := strconv.ParseFloat(f[1], 64)
		if err1 == nil && err2 == nil && end-took <= float64(gone.UnixMicro())/1e6+clock {
			n++
		}
	}
	return n
}

// every calls f in a rhythm until ctx is done.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// pause waits, and reports whether it was not cut short.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func must(_ string, err error) { run.Must(err) }

func verdict(ok bool) string {
	if ok {
		return "reached"
	}
	return "MISSED"
}
