package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/generate"
	"mlc.dev/mlc/runtime/serve/oip/oiptest"
	"mlc.dev/mlc/runtime/serve/oip/pb"
	"mlc.dev/mlc/runtime/table"
)

// model is a bundle whose probability is p for every row, of f.x and f.c.
func model(p float32) *bundle.Bundle {
	g := onnx.New("constant")
	x := g.Input("f.x", onnx.Double, -1, 1)
	g.Input("f.c", onnx.String, -1, 1)
	zero := g.Op("Mul", g.Cast(g.Op("IsNaN", x), onnx.Float), g.Scalar(float32(0)))
	g.Output("probability", g.Op("Add", zero, g.Scalar(p)), onnx.Float, -1, 1)
	return &bundle.Bundle{Model: g.Marshal(), Signature: signature()}
}

func signature() bundle.Signature {
	return bundle.Signature{Format: bundle.SignatureFormat, Model: "m", Task: kind.Task{Kind: kind.Binary}, NullString: types.NullString,
		Inputs:  []bundle.Tensor{{Name: "f.x", DType: "double", Width: 1, Type: types.Float}, {Name: "f.c", DType: "string", Width: 1, Type: types.String}},
		Outputs: []bundle.Tensor{{Name: "probability", DType: "float", Width: 1}},
		Raw:     []lower.Field{{Name: "f.x", Column: "x", Type: types.Float, Nullable: true}, {Name: "f.c", Column: "c", Type: types.String, Nullable: true}}}
}

// picky is a bundle that fails where f.x is no index of three, and otherwise answers 0.5.
func picky() *bundle.Bundle {
	g := onnx.New("picky")
	x := g.Input("f.x", onnx.Double, -1, 1)
	g.Input("f.c", onnx.String, -1, 1)
	y := g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const([]float32{.5, .5, .5}, 3), g.Cast(x, onnx.Int64))
	g.Output("probability", y, onnx.Float, -1, 1)
	return &bundle.Bundle{Model: g.Marshal(), Signature: signature()}
}

// slow is a bundle that takes a fifth of a second or so, in many steps.
func slow() *bundle.Bundle {
	g := onnx.New("slow")
	x := g.Cast(g.Input("f.x", onnx.Double, -1, 1), onnx.Float)
	g.Input("f.c", onnx.String, -1, 1)
	sum := func(v onnx.Value) onnx.Value { return g.OpA("ReduceSum", onnx.Attrs{"keepdims": 0}, v) }
	w := g.Op("Mul", g.Const(make([]float32, 1<<18), 1<<9, 1<<9), sum(x)) // what depends on no input is computed once, at load
	for range 60 {
		w = g.Op("Tanh", g.Op("MatMul", w, w))
	}
	g.Output("probability", g.Op("Add", g.Op("Mul", x, g.Scalar(float32(0))), sum(w)), onnx.Float, -1, 1)
	return &bundle.Bundle{Model: g.Marshal(), Signature: signature()}
}

// shelf is a registry in memory.
type shelf struct {
	mu      sync.Mutex
	aliases map[string]int
	bundles map[int]*bundle.Bundle
}

func (s *shelf) promote(alias string, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliases[alias] = version
}

func (s *shelf) Resolve(_ context.Context, ref service.Ref) (serve.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.aliases[ref.Alias]
	if !ok {
		return serve.Version{}, fmt.Errorf("no alias %s", ref.Alias)
	}
	return serve.Version{Number: v, Bundle: plan.Digest(fmt.Sprint("sha256:", v))}, nil
}

func (s *shelf) Open(_ context.Context, _ service.Ref, v serve.Version) (*bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.bundles[v.Number]
	if !ok {
		return nil, errors.New("its bundle is damaged")
	}
	return b, nil
}

func ref(alias string) service.Ref { return service.Ref{Model: "m", Alias: alias} }

// one is a service with one model behind the alias a.
func one() *service.Service {
	return &service.Service{Format: service.Format, System: "sys", Name: "api", Split: []service.Branch{{Name: "a", Model: ref("a"), Weight: 100}},
		Threshold: 0.5, Deadline: service.Duration(10 * time.Second), Batching: service.Batching{MaxRows: 64, Queue: 1024},
		Limits: service.Limits{Body: 1 << 20, Rows: 1000, Concurrent: 256, Read: service.Duration(5 * time.Second)}}
}

// running is a server on loopback.
type running struct {
	t      *testing.T
	url    string
	at     serve.Endpoints
	stop   context.CancelFunc
	done   chan error
	client *http.Client
}

func start(t *testing.T, svc *service.Service, src serve.Source) *running {
	t.Helper()
	return startTraced(t, svc, src, nil)
}

func startTraced(t *testing.T, svc *service.Service, src serve.Source, tracer trace.Tracer) *running {
	t.Helper()
	s, err := serve.Open(t.Context(), serve.Options{Tracer: tracer, Service: svc, Source: src, Follow: time.Millisecond, Cores: 2, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Secret: func(ref string) (string, error) { return "secret of " + ref, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: t, stop: stop, done: make(chan error, 1), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	opened := make(chan serve.Endpoints, 1)
	go func() {
		err := s.Serve(ctx, serve.Endpoints{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Metrics: "127.0.0.1:0"}, func(e serve.Endpoints) { opened <- e })
		r.done <- errors.Join(err, s.Close(context.Background()))
	}()
	select {
	case r.at = <-opened:
	case err := <-r.done:
		t.Fatal(err)
	}
	r.url = "http://" + r.at.HTTP
	if svc.TLS != nil {
		r.url = "https://" + r.at.HTTP
	}
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// end stops the service before its test ends, and returns when it has.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	err := <-r.done
	if err != nil {
		r.t.Fatal(err)
	}
	r.done <- nil
}

// answer is what the typed API says.
type answer struct {
	Status      int
	Header      http.Header
	Version     string
	Variant     string
	Fallback    bool
	Error       string
	Predictions []struct {
		Probability float64
		Decision    bool
	}
	body string
}

func (r *running) predict(body string, headers ...string) answer {
	r.t.Helper()
	a, err := r.try(body, headers...)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *running) try(body string, headers ...string) (answer, error) {
	req, err := http.NewRequest("POST", r.url+"/v1/predict", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{Status: res.StatusCode, Header: res.Header, body: string(b)}
	return a, json.Unmarshal(b, &a)
}

func (r *running) get(url string) (int, string) {
	r.t.Helper()
	res, err := r.client.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// metric is the value of a line of /metrics that begins with a text.
func (r *running) metric(line string) string {
	r.t.Helper()
	_, text := r.get("http://" + r.at.Metrics + "/metrics")
	for _, l := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(l, line+" "); ok {
			return rest
		}
	}
	return ""
}

const row = `{"features":{"f.x":1,"f.c":"a"}}`

func TestPredict(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 7}, bundles: map[int]*bundle.Bundle{7: model(.75)}})
	a := r.predict(`{"rows":[{"f.x":1,"f.c":"a"},{"x":null,"c":null}]}`)
	if a.Status != 200 || a.Version != "7" || a.Variant != "a" || len(a.Predictions) != 2 || a.Predictions[1].Probability != .75 || !a.Predictions[1].Decision {
		t.Errorf("%+v", a)
	}
	if a := r.predict(`{"features":{"f.z":1}}`); a.Status != 422 || strings.Contains(a.body, ".go") {
		t.Errorf("%+v", a)
	}
	for path, want := range map[string]int{"/v2": 200, "/v2/health/ready": 200, "/v2/models/m": 200, "/v2/models/api": 200, "/v2/models/m/versions/7": 200, "/v2/models/n": 404, "/healthz/ready": 200, "/": 200, "/openapi.json": 200, "/debug/pprof/": 404, "/metrics": 404} {
		if got, _ := r.get(r.url + path); got != want {
			t.Errorf("%s: %d, not %d", path, got, want)
		}
	}
	if got := r.metric(`mlc_requests_total{code="200",model="m",protocol="typed",service="api",variant="a",version="7"}`); got != "1" {
		t.Errorf("requests %q", got)
	}
	if got := r.metric(`nv_inference_count{model="m",version="7"}`); got != "2" {
		t.Errorf("rows %q", got)
	}
}

// While callers ask, two aliases move back and forth: every answer is one version's,
// and none fails.
func TestReloadFailsNoRequest(t *testing.T) {
	s := &shelf{aliases: map[string]int{"a": 1, "b": 1}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: model(.75)}}
	svc := one()
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	r := start(t, svc, s)
	var stop atomic.Bool
	var seen [3]atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				a, err := r.try(row)
				if err != nil || a.Status != 200 {
					t.Errorf("%v %+v", err, a)
					return
				}
				v := int(a.Version[0] - '0')
				if want := []float64{0, .25, .75}[v]; a.Predictions[0].Probability != want {
					t.Errorf("version %d answered %v", v, a.Predictions[0].Probability)
				}
				seen[v].Add(1)
			}
		})
	}
	for i := range 10 {
		v := 2 - i%2
		s.promote("a", v)
		s.promote("b", v)
		for before := seen[v].Load(); seen[v].Load() == before && !t.Failed(); {
			time.Sleep(time.Millisecond) // until the version has answered
		}
	}
	stop.Store(true)
	wg.Wait()
}

// A version that does not load leaves the one before it in service.
func TestModelThatFailsToLoadOnReload(t *testing.T) {
	other := model(.1)
	other.Signature.Inputs[0].Name = "f.y"
	s := &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: {Model: []byte("no model"), Signature: signature()}, 3: other, 5: model(.75)}}
	r := start(t, one(), s)
	for i, bad := range []int{2, 3, 4} { // no model, another signature, a damaged bundle
		s.promote("a", bad)
		for r.metric(`mlc_reloads_total{model="m",result="failed"}`) != fmt.Sprint(i+1) {
			time.Sleep(time.Millisecond)
		}
		if a := r.predict(row); a.Status != 200 || a.Version != "1" {
			t.Errorf("%+v", a)
		}
	}
	s.promote("a", 5)
	for r.predict(row).Version != "5" {
		time.Sleep(time.Millisecond)
	}
}

// Which opsets a model of others may have only ONNX Runtime decides: nothing is joined
// with it.
func TestForeignModelOfANewerOpset(t *testing.T) {
	for opset, want := range map[int64]bool{7: true, 22: true, 24: true, 26: true, 999: false} {
		path := filepath.Join(t.TempDir(), "model.onnx")
		g := onnx.New("newer")
		g.Output("y", g.Op("Neg", g.Input("x", onnx.Double, -1, 1)), onnx.Double, -1, 1)
		var m onnxpb.ModelProto
		if err := proto.Unmarshal(g.Marshal(), &m); err != nil {
			t.Fatal(err)
		}
		m.OpsetImport[0].Version = opset
		b, err := proto.Marshal(&m)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := serve.Open(t.Context(), serve.Options{Service: service.ForModel("model"), Source: serve.File{Path: path}, Cores: 1})
		if (err == nil) != want {
			t.Errorf("opset %d: %v", opset, err)
		}
		if err != nil {
			continue
		}
		model, err := s.Model("model", "")
		if err != nil {
			t.Fatal(err)
		}
		if a, err := model.Infer(t.Context(), api.Call{Inputs: []ort.Value{ort.Column([]float64{2})}, Rows: 1}); err != nil || a.Outputs[0].(ort.Tensor).Data.([]float64)[0] != -2 {
			t.Errorf("opset %d: %v %v", opset, a, err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// A service whose model does not load does not start.
func TestModelThatDoesNotLoad(t *testing.T) {
	_, err := serve.Open(t.Context(), serve.Options{Service: one(), Source: &shelf{aliases: map[string]int{"a": 1}}})
	if err == nil || !strings.Contains(err.Error(), "m@a: its bundle is damaged") {
		t.Errorf("%v", err)
	}
}

func TestSplitIsSticky(t *testing.T) {
	svc := one()
	svc.Split = []service.Branch{{Name: "old", Model: ref("a"), Weight: 80}, {Name: "new", Model: ref("b"), Weight: 20}}
	svc.Sticky = "f.c"
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: model(.75)}})
	count := map[string]int{}
	for i := range 300 {
		body := fmt.Sprintf(`{"features":{"f.x":1,"f.c":"caller %d"}}`, i)
		a := r.predict(body)
		if want := map[string]string{"old": "1", "new": "2"}[a.Variant]; a.Status != 200 || a.Version != want {
			t.Fatalf("%+v", a)
		}
		count[a.Variant]++
		for range 3 {
			if again := r.predict(body); again.Variant != a.Variant {
				t.Fatalf("caller %d went from %s to %s", i, a.Variant, again.Variant)
			}
		}
	}
	if count["new"] < 30 || count["new"] > 95 { // 60 expected; 5 standard deviations
		t.Errorf("%v", count)
	}
}

// Each version of a split decides by its own threshold, unless the service has one.
func TestVersionsDecideForThemselves(t *testing.T) {
	from := func(threshold float64, b *bundle.Bundle) *bundle.Bundle {
		b.Signature.Task.Threshold = threshold
		return b
	}
	s := &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: from(.2, model(.25)), 2: from(.9, model(.75)), 3: model(.25), 4: from(.2, picky())}}
	svc := one()
	svc.Threshold = 0
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	ask := func(r *running, want map[string]bool) {
		t.Helper()
		seen := map[string]bool{}
		for i := 0; len(seen) < len(want) && i < 1000; i++ {
			a := r.predict(fmt.Sprintf(`{"features":{"f.x":1},"key":"%d"}`, i))
			decision, known := want[a.Version]
			if a.Status != 200 || !known || a.Predictions[0].Decision != decision {
				t.Fatalf("%+v", a)
			}
			seen[a.Version] = true
		}
		if len(seen) < len(want) {
			t.Errorf("only %v answered", seen)
		}
	}
	logged := func(r *running, dir string, want map[string]bool) { // as it was decided
		t.Helper()
		r.end()
		files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		err = table.Read(t.Context(), files[0], map[string]table.Form{"_version": table.Texts, "_threshold": table.Floats, "probability": table.Floats}, func(b table.Batch) error {
			for k, v := range b.Texts("_version") {
				if p, threshold := b.Floats("probability")[k], b.Floats("_threshold")[k]; p >= threshold != want[v] {
					t.Errorf("version %s: %v, from %v", v, p, threshold)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for threshold, want := range map[float64]map[string]bool{0: {"1": true, "2": false}, .5: {"1": false, "2": true}} {
		svc, dir := *svc, t.TempDir()
		svc.Threshold = threshold
		svc.Log = &service.Log{Sample: 1, Dir: dir, Rows: 1 << 20, Every: service.Duration(time.Hour), Buffer: 1000}
		r := start(t, &svc, s)
		ask(r, want)
		logged(r, dir, want)
	}

	// What follows an alias brings its own.
	follows := one()
	follows.Threshold = 0
	s.promote("a", 3)
	ask(start(t, follows, s), map[string]bool{"3": false})

	// A fallback is decided as the version that failed would have been.
	fallen := *follows
	fallen.Fallback = &service.Fallback{Answer: map[string]any{"probability": .27}}
	s.promote("a", 4)
	r := start(t, &fallen, s)
	if a := r.predict(`{"features":{"f.x":99}}`); !a.Fallback || a.Version != "4" || !a.Predictions[0].Decision {
		t.Errorf("%+v", a)
	}

	// The last step decides.
	steps := one()
	steps.Threshold, steps.Split, steps.Steps = 0, nil, []service.Step{{Name: "one", Model: ref("a")}, {Name: "two", Model: ref("b"), Inputs: map[string]string{"f.x": "one.probability"}}}
	s.promote("a", 1)
	ask(start(t, steps, s), map[string]bool{"2": false})
}

// Whatever the task, the service answers with what the model or its fallback gives.
func TestTasks(t *testing.T) {
	for name, c := range map[string]struct {
		task            kind.Task
		fallback        map[string]any
		answer, instead string // of row 1 of the table, and of none
		table           []float32
	}{
		"multilabel": {kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, map[string]any{"probabilities": map[string]any{"b": .75}},
			`{"labels":["a","b"],"probabilities":{"a":0.5,"b":1}}`, `{"labels":["b"],"probabilities":{"a":0,"b":0.75}}`, []float32{0, 0, .5, 1}},
		"quantile": {kind.Task{Kind: kind.Quantile, Quantiles: []float64{.1, .9}}, map[string]any{"quantiles": map[string]any{"0.9": 7., "0.1": 2.}},
			`{"quantiles":{"0.1":3,"0.9":5}}`, `{"quantiles":{"0.1":2,"0.9":7}}`, []float32{0, 0, 3, 5}},
		"count": {kind.Task{Kind: kind.Count}, map[string]any{"prediction": 4.}, `{"prediction":1.5}`, `{"prediction":4}`, []float32{0, 1.5}},
		"anomaly": {kind.Task{Kind: kind.Anomaly, Threshold: .75}, map[string]any{"score": .25},
			`{"score":0.75,"decision":true}`, `{"score":0.25,"decision":false}`, []float32{0, .75}},
	} {
		t.Run(name, func(t *testing.T) {
			w := int64(c.task.Width())
			g := onnx.New("table")
			x := g.Input("f.x", onnx.Double, -1, 1)
			at := g.Op("Reshape", g.Cast(x, onnx.Int64), g.Const([]int64{-1}, 1))
			main := bundle.MainOutput(c.task.Kind)
			g.Output(main, g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const(c.table, 2, w), at), onnx.Float, -1, w)
			sig := signature()
			sig.Task, sig.Inputs, sig.Raw = c.task, sig.Inputs[:1], sig.Raw[:1]
			sig.Outputs = []bundle.Tensor{{Name: main, DType: "float", Width: int(w)}}
			svc := one()
			svc.Threshold, svc.Fallback = 0, &service.Fallback{Answer: c.fallback}
			r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: {Model: g.Marshal(), Signature: sig}}})
			for x, want := range map[int]string{1: `"fallback":false,"predictions":[` + c.answer + `]`, 99: `"fallback":true,"predictions":[` + c.instead + `]`} {
				if a := r.predict(fmt.Sprintf(`{"features":{"f.x":%d}}`, x)); a.Status != 200 || !strings.Contains(a.body, want) {
					t.Errorf("%d: %s", x, a.body)
				}
			}
		})
	}
}

// A fallback that lacks a quantile of the model's is none: its answer would be made up.
func TestFallbackOfOtherQuantiles(t *testing.T) {
	sig := signature()
	sig.Task = kind.Task{Kind: kind.Quantile, Quantiles: []float64{.1, .5}}
	sig.Outputs = []bundle.Tensor{{Name: "quantiles", DType: "float", Width: 2}}
	g := onnx.New("picky")
	x := g.Input("f.x", onnx.Double, -1, 1)
	g.Input("f.c", onnx.String, -1, 1)
	at := g.Op("Reshape", g.Cast(x, onnx.Int64), g.Const([]int64{-1}, 1))
	g.Output("quantiles", g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const([]float32{1, 2}, 1, 2), at), onnx.Float, -1, 2)
	svc := one()
	svc.Fallback = &service.Fallback{Answer: map[string]any{"quantiles": map[string]any{"0.1": 1., "0.9": 3.}}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: {Model: g.Marshal(), Signature: sig}}})
	if a := r.predict(`{"features":{"f.x":99}}`); a.Status != 500 {
		t.Errorf("%+v", a)
	}
}

// linear is a bundle whose probability is a combination of f.x and f.y, which it
// takes in the order given.
func linear(x, y float64, order ...string) *bundle.Bundle {
	g := onnx.New("linear")
	b := &bundle.Bundle{Signature: bundle.Signature{Format: bundle.SignatureFormat, Model: "m", Task: kind.Task{Kind: kind.Binary}, NullString: types.NullString, Outputs: []bundle.Tensor{{Name: "probability", DType: "float", Width: 1}}}}
	sum := onnx.Value("")
	for _, name := range order {
		v := g.Op("Mul", g.Input(name, onnx.Double, -1, 1), g.Scalar(map[string]float64{"f.x": x, "f.y": y}[name]))
		if sum == "" {
			sum = v
		} else {
			sum = g.Op("Add", sum, v)
		}
		b.Signature.Inputs = append(b.Signature.Inputs, bundle.Tensor{Name: name, DType: "double", Width: 1, Type: types.Float})
		b.Signature.Raw = append(b.Signature.Raw, lower.Field{Name: name, Type: types.Float})
	}
	g.Output("probability", g.Cast(sum, onnx.Float), onnx.Float, -1, 1)
	b.Model = g.Marshal()
	return b
}

// Versions that take their inputs in another order, or more of them, get each value
// under its name: in a split, and from a caller who was read for another version.
func TestInputsGoByName(t *testing.T) {
	svc := one()
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	s := &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: linear(.25, .5, "f.x"), 2: linear(.25, .5, "f.y", "f.x"), 3: linear(.25, .5, "f.x", "f.y")}}
	r := start(t, svc, s)
	seen := map[string]int{}
	ask := func(want map[string]float64) {
		t.Helper()
		for range 50 {
			a := r.predict(`{"features":{"f.x":1,"f.y":1}}`)
			if a.Status != 200 || a.Predictions[0].Probability != want[a.Version] {
				t.Fatalf("%+v", a)
			}
			seen[a.Version]++
		}
	}
	ask(map[string]float64{"1": .25, "2": .75})
	if seen["1"] == 0 || seen["2"] == 0 {
		t.Errorf("%v", seen)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				s.promote("a", []int{1, 3}[i%2])
				a, err := r.try(`{"features":{"f.x":1,"f.y":1}}`)
				if err != nil || a.Status != 200 && a.Status != 503 {
					t.Errorf("%v %+v", err, a)
					return
				}
				if a.Status == 200 && a.Predictions[0].Probability != map[string]float64{"1": .25, "2": .75, "3": .75}[a.Version] {
					t.Errorf("%+v", a)
				}
			}
		})
	}
	wg.Wait()
}

// A caller who gives the model no time does not open the breaker for the others.
func TestBreakerIsNotTheCallers(t *testing.T) {
	svc := one()
	svc.Fallback = &service.Fallback{Answer: map[string]any{"probability": .27}, Breaker: &service.Breaker{Errors: .5, Over: service.Duration(time.Hour), Least: 4}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.75)}})
	for range 20 {
		r.predict(row, "X-Request-Timeout", "1ns")
	}
	if a := r.predict(row); a.Fallback || a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

// The limit of rows holds for every protocol, and a fault of the caller's is no
// reason for the fallback.
func TestLimitsOfTheOpenProtocol(t *testing.T) {
	svc := one()
	svc.Limits.Rows = 2
	svc.Fallback = &service.Fallback{Answer: map[string]any{"probability": .27}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.75)}})
	post := func(x, c string, n int, headers ...string) int {
		body := fmt.Sprintf(`{"inputs":[{"name":"f.x","datatype":"FP64","shape":[%d,1],"data":[%s]},{"name":"f.c","datatype":"BYTES","shape":[%d,1],"data":[%s]}]}`, n, x, n, c)
		req, err := http.NewRequest("POST", r.url+"/v2/models/m/infer", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct {
		got, want int
	}{{post("1,2", `"a","b"`, 2), 200}, {post("1,2,3", `"a","b","c"`, 3), 413}, {post("1", `"a\u0000b"`, 1), 400}, {post("1", `"a"`, 1, "X-Request-Timeout", "soon"), 400}} {
		if c.got != c.want {
			t.Errorf("%d, not %d", c.got, c.want)
		}
	}
	res, err := r.client.Get(r.url + "/v2/models/m/config")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); !bytes.Contains(b, []byte(`"max_batch_size":2,`)) || !bytes.Contains(b, []byte(`"preferred_batch_size":[2]`)) {
		t.Errorf("%s", b)
	}
}

// Requests beyond the limit are refused before their bodies are read, but for small ones.
func TestConcurrencyIsBounded(t *testing.T) {
	svc := one()
	svc.Limits.Concurrent = 1
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.75)}})
	c, err := net.Dial("tcp", r.at.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
	for r.metric("mlc_inflight_requests") != "1" {
		time.Sleep(time.Millisecond)
	}
	if a := r.predict(row); a.Status != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", a)
	}
	if got, _ := r.get(r.url + "/healthz/ready"); got != 200 {
		t.Errorf("probe %d", got)
	}
	c.Close()
	for r.metric("mlc_inflight_requests") != "0" {
		time.Sleep(time.Millisecond)
	}
	if a := r.predict(row); a.Status != 200 {
		t.Errorf("%+v", a)
	}
	if got := r.metric(`mlc_shed_total{reason="queue"}`); got != "" {
		t.Errorf("counted as shed by the queue: %s", got)
	}
}

// shadowed is how many answers of the shadow came out so.
func (r *running) shadowed(result, version string) int {
	n, _ := strconv.Atoi(r.metric(fmt.Sprintf(`mlc_shadow_total{result=%q,service="api",version=%q}`, result, version)))
	return n
}

// mirrored waits until the shadow has seen to n calls: where others want the core it leaves
// them out.
func (r *running) mirrored(n int) {
	seen := func() (sum int) {
		_, text := r.get("http://" + r.at.Metrics + "/metrics")
		for _, l := range strings.Split(text, "\n") {
			if rest, ok := strings.CutPrefix(l, "mlc_shadow_total{"); ok {
				k, err := strconv.Atoi(rest[strings.LastIndexByte(rest, ' ')+1:])
				if err != nil {
					r.t.Fatal(err)
				}
				sum += k
			}
		}
		return sum
	}
	for seen() < n {
		time.Sleep(time.Millisecond)
	}
}

// Bodies that come byte by byte keep nobody out: where there is no room for another
// request, the one that has been coming for longest gives way.
func TestSlowBodiesGiveWay(t *testing.T) {
	svc := one()
	svc.Limits.Concurrent, svc.Limits.Read = 4, service.Duration(time.Hour)
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.75)}})
	gone := make(chan string)
	begin := func() {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
		go func() {
			b := make([]byte, 12)
			if _, err := io.ReadFull(c, b); err == nil {
				select {
				case gone <- string(b):
				case <-t.Context().Done():
				}
			}
		}()
	}
	for range 4 {
		begin()
	}
	small := `{"features":{"f.x":1,"f.c":"a"}}`
	large := small + strings.Repeat(" ", 32<<10) // is net/http's
	ask := func(body string) int {
		res, err := r.client.Post(r.url+"/v1/predict", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 && res.StatusCode != 503 {
			t.Fatal(res.StatusCode)
		}
		return res.StatusCode
	}
	for i, ended := 0, false; !ended; i++ { // for as long as they are not slow yet
		ask([]string{small, large}[i%2])
		select {
		case got := <-gone:
			switch got {
			case "HTTP/1.1 503": // it came while others were asking
				begin()
			case "HTTP/1.1 408":
				ended = true
			default:
				t.Fatal(got)
			}
		default:
		}
	}
	for _, body := range []string{small, large} {
		for ask(body) != 200 { // whoever gave way has yet to leave
			runtime.Gosched()
		}
	}
}

// A shadow that fails, or is not even there, is counted, and nobody else sees it.
func TestShadowThatCrashes(t *testing.T) {
	svc := one()
	svc.Shadow = &service.Shadow{Model: ref("s"), Share: 1, Tolerance: 1e-6}
	s := &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5), 2: picky(), 3: model(.75)}}
	r := start(t, svc, s)
	until := func(result, version string, body string) {
		t.Helper()
		for r.metric(fmt.Sprintf(`mlc_shadow_total{result=%q,service="api",version=%q}`, result, version)) == "" {
			if a := r.predict(body); a.Status != 200 || a.Predictions[0].Probability != .5 {
				t.Fatalf("%+v", a)
			}
		}
	}
	until("failed", "", row)
	s.promote("s", 2)
	until("failed", "2", `{"features":{"f.x":99,"f.c":"a"}}`)
	until("equal", "2", row)
	s.promote("s", 3)
	until("differs", "3", row)
}

func TestFallbackAfterADeadline(t *testing.T) {
	svc := one()
	svc.Fallback = &service.Fallback{After: service.Duration(5 * time.Millisecond), Answer: map[string]any{"probability": .27}}
	dir := t.TempDir()
	svc.Log = &service.Log{Sample: 1, Dir: dir, Rows: 1 << 20, Every: service.Duration(time.Hour), Buffer: 1000}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: slow()}})
	a := r.predict(`{"rows":[{"f.x":1},{"f.x":2}]}`)
	if a.Status != 200 || !a.Fallback || len(a.Predictions) != 2 || a.Predictions[1].Probability != .27 || a.Predictions[1].Decision {
		t.Errorf("%+v", a)
	}
	if got := r.metric(`mlc_fallbacks_total{reason="deadline",service="api"}`); got != "1" {
		t.Errorf("fallbacks %q", got)
	}
	if got := r.metric(`nv_inference_request_failure{model="m",reason="CANCELED",version="1"}`); got != "1" {
		t.Errorf("cancelled %q", got)
	}
	r.end()
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	err = table.Read(t.Context(), files[0], map[string]table.Form{"_error": table.Texts}, func(b table.Batch) error {
		for _, why := range b.Texts("_error") {
			if !strings.HasPrefix(why, "504 ") {
				t.Errorf("the log has %q", why)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Without a fallback, a model that runs too long is a timeout.
func TestModelThatRunsTooLong(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: slow()}})
	if a := r.predict(row, "X-Request-Timeout", "5ms"); a.Status != 504 {
		t.Errorf("%+v", a)
	}
}

func TestBreakerOpens(t *testing.T) {
	svc := one()
	svc.Fallback = &service.Fallback{Answer: map[string]any{"probability": .27}, Breaker: &service.Breaker{Errors: .5, Over: service.Duration(time.Hour), Least: 4}}
	svc.Threshold = 0 // the version's own
	dir := t.TempDir()
	svc.Log = &service.Log{Sample: 1, Dir: dir, Rows: 1 << 20, Every: service.Duration(time.Hour), Buffer: 1000}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: picky()}})
	for range 6 {
		if a := r.predict(`{"features":{"f.x":99}}`); a.Status != 200 || !a.Fallback {
			t.Errorf("%+v", a)
		}
	}
	if a := r.predict(row); !a.Fallback { // the model would have answered
		t.Errorf("%+v", a)
	}
	if got := r.metric(`mlc_fallbacks_total{reason="breaker",service="api"}`); got != "3" {
		t.Errorf("by the breaker %q", got)
	}
	if got := r.metric(`mlc_breaker_open{service="api",variant="a"}`); got != "1" {
		t.Errorf("open %q", got)
	}
	// Whoever answered, the log has what it was decided by.
	r.end()
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	err = table.Read(t.Context(), files[0], map[string]table.Form{"_threshold": table.Floats}, func(b table.Batch) error {
		for _, threshold := range b.Floats("_threshold") {
			if threshold != .5 {
				t.Errorf("decided by %v", threshold)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Who is not told to may not take models out of service.
func TestModelControlIsOffByDefault(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, what := range []string{"load", "unload"} {
		res, err := r.client.Post(r.url+"/v2/repository/models/m/"+what, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 501 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	if a := r.predict(row); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

func TestErrorTellsNothing(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: picky()}})
	a := r.predict(`{"features":{"f.x":99}}`)
	if a.Status != 500 || strings.Contains(a.body, "Gather") || strings.Contains(a.body, "/") {
		t.Errorf("%+v", a)
	}
}

func TestAuth(t *testing.T) {
	svc := one()
	svc.Auth = &service.Auth{Bearer: []string{"env:A"}, APIKey: []string{"env:B"}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, c := range []struct {
		want    int
		headers []string
	}{{401, nil}, {401, []string{"Authorization", "Bearer wrong"}}, {401, []string{"Authorization", "Bearer secret of env:B"}}, {401, []string{"X-API-Key", "secret of env:A"}},
		{401, []string{"Authorization", "Basic secret of env:A"}}, {401, []string{"Authorization", "Bearer"}},
		{200, []string{"Authorization", "Bearer secret of env:A"}}, {200, []string{"Authorization", "bearer  secret of env:A"}}, {200, []string{"X-API-Key", "secret of env:B"}}} {
		a := r.predict(row, c.headers...)
		if a.Status != c.want || a.Header.Get("X-Request-Id") == "" || !strings.Contains(a.body, `"id":"`+a.Header.Get("X-Request-Id")+`"`) {
			t.Errorf("%q: %+v", c.headers, a)
		}
	}
	// Probes need none, over gRPC on either port.
	for _, address := range []string{r.at.HTTP, r.at.GRPC} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: %v, %v", address, res, err)
		}
		for name, want := range map[string]codes.Code{"inference.GRPCInferenceService": codes.OK, "mlc.sys.api.v1.Predictor": codes.OK, "m": codes.OK, "n": codes.NotFound} {
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}); status.Code(err) != want {
				t.Errorf("%s: %s: %v", address, name, err)
			}
		}
		if _, err := pb.NewGRPCInferenceServiceClient(conn).ServerLive(t.Context(), &pb.ServerLiveRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", address, err)
		}
	}
	for path, want := range map[string]int{"/healthz/live": 200, "/healthz/ready": 200, "/v2/health/live": 200, "/v2/models/m": 401, "/v1/model": 401} {
		if got, _ := r.get(r.url + path); got != want {
			t.Errorf("%s: %d, not %d", path, got, want)
		}
	}
}

// Who tries keys is soon refused for that; who has one is not, from the same address.
func TestGuessing(t *testing.T) {
	svc := one()
	svc.Auth = &service.Auth{APIKey: []string{"env:B"}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	refused := false
	for i := range 2000 {
		a := r.predict(row, "X-API-Key", fmt.Sprint("guess ", i))
		if a.Status == 429 && a.Header.Get("Retry-After") != "" {
			refused = true
			break
		}
		if a.Status != 401 {
			t.Fatalf("%+v", a)
		}
	}
	if !refused {
		t.Error("2000 keys could be tried")
	}
	if a := r.predict(row, "X-API-Key", "secret of env:B"); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

func TestRateOfAClient(t *testing.T) {
	svc := one()
	svc.Limits.PerClient = .001
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	if a := r.predict(row); a.Status != 200 {
		t.Errorf("%+v", a)
	}
	if a := r.predict(row); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", a)
	}
}

// A proxy that is trusted tells whom it asks for, and callers cannot pass for others.
func TestRateBehindProxies(t *testing.T) {
	s := &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}}
	for proxies, cases := range map[string][]struct {
		forwarded string
		want      int
	}{
		"127.0.0.0/8": {{"192.0.2.1", 200}, {"192.0.2.1", 429}, {"192.0.2.2", 200}, {"192.0.2.9, 192.0.2.2", 429}, {"192.0.2.3, 127.0.0.9", 200}, {"192.0.2.3:4321", 429},
			{"2001:db8::1", 200}, {"2001:db8::2", 429}, {"2001:db8:0:1::2", 200}, {"::ffff:192.0.2.3", 429}, {"", 200}, {"nonsense", 429}, {"192.0.2.7, nonsense", 429}},
		"10.0.0.0/8": {{"192.0.2.1", 200}, {"192.0.2.2", 429}},
	} {
		svc := one()
		svc.Limits.PerClient, svc.Limits.Proxies = .001, []netip.Prefix{netip.MustParsePrefix(proxies)}
		r := start(t, svc, s)
		for _, c := range cases {
			if a := r.predict(row, "X-Forwarded-For", c.forwarded); a.Status != c.want {
				t.Errorf("behind %s, %q: %d, not %d", proxies, c.forwarded, a.Status, c.want)
			}
		}
	}
}

func TestCORSIsOffByDefault(t *testing.T) {
	s := &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}}
	if a := start(t, one(), s).predict(row, "Origin", "https://a.example"); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", a.Header)
	}
	svc := one()
	svc.CORS = []string{"https://a.example"}
	r := start(t, svc, s)
	if a := r.predict(row, "Origin", "https://a.example"); a.Header.Get("Access-Control-Allow-Origin") != "https://a.example" {
		t.Errorf("%v", a.Header)
	}
	if a := r.predict(row, "Origin", "https://b.example"); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", a.Header)
	}
}

// A caller whose body is a few times too large writes it, and reads why it was refused.
func TestBodiesOverTheLimitAreAnswered(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, path := range []string{"/v1/predict", "/v2/models/m/infer"} {
		for range 10 {
			for _, length := range []int64{6 << 20, -1} { // -1: in chunks
				req, err := http.NewRequest("POST", r.url+path, io.NopCloser(io.LimitReader(zeros{}, 6<<20)))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = length
				req.Header.Set("Content-Type", "application/json")
				res, err := r.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != 413 {
					t.Errorf("%s: %d", path, res.StatusCode)
				}
			}
		}
	}
}

func TestLargeBody(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, path := range []string{"/v1/predict", "/v2/models/m/infer"} {
		res, err := r.client.Post(r.url+path, "application/json", io.LimitReader(zeros{}, 100<<20))
		if err != nil {
			continue // the server closed the connection, as it may
		}
		res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	if a := r.predict(row); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("0"), len(p))), nil }

// A client that sends half of its request and then nothing is cut off; one that
// goes away ends what it asked for.
func TestClientsThatHangOrVanish(t *testing.T) {
	svc := one()
	svc.Limits.Read = service.Duration(-4900 * time.Millisecond) // of the headers' five seconds, a tenth is left
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: slow()}})
	c, err := net.Dial("tcp", r.at.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"feat")
	if b, err := io.ReadAll(c); err != nil || strings.Contains(string(b), " 200 ") {
		t.Errorf("%q %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/predict", strings.NewReader(row))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		_, err := r.client.Do(req)
		gone <- err
	}()
	for r.metric("mlc_inflight_requests") != "1" {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-gone
	for r.metric("mlc_inflight_requests") != "0" {
		time.Sleep(time.Millisecond)
	}
}

// Callers of gRPC who ask nothing any more make room for others; those with a call under
// way stay.
func TestManyGRPCConnections(t *testing.T) {
	svc := one()
	svc.Memory = 1 // room for the least number of connections
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	_, ask := stream(t, r.at.GRPC)
	ask()
	for range 200 {
		if _, err := inference(t, r.at.GRPC).ServerLive(t.Context(), &pb.ServerLiveRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
}

// inference is a client of the Open Inference Protocol over gRPC, on a connection of its own.
func inference(t *testing.T, address string) pb.GRPCInferenceServiceClient {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewGRPCInferenceServiceClient(conn)
}

// stream opens a stream of inferences; ask sends one on it that has an answer.
func stream(t *testing.T, address string) (kept pb.GRPCInferenceService_ModelStreamInferClient, ask func()) {
	kept, err := inference(t, address).ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kept, func() {
		t.Helper()
		if err := kept.Send(&pb.ModelInferRequest{ModelName: "none"}); err != nil {
			t.Error(err)
		}
		if m, err := kept.Recv(); err != nil || m.ErrorMessage == "" {
			t.Errorf("%v %v", m, err)
		}
	}
}

// A gRPC caller who sends half of a message and then nothing is cut off on either
// port, and so is one who opens a stream and asks nothing. A stream that has asked may
// pause for longer, as a connection of HTTP may.
func TestGRPCClientsThatHang(t *testing.T) {
	svc := one()
	svc.Limits.Read = service.Duration(-4900 * time.Millisecond)
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, address := range []string{r.at.HTTP, r.at.GRPC} {
		kept, ask := stream(t, address)
		ask()
		var h2 http.Protocols
		h2.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: &h2}}
		for path, sent := range map[string][]byte{"GRPCInferenceService/ModelInfer": {0, 0, 0}, "GRPCInferenceService/ServerLive": {0, 0, 0, 0, 9, 1}, "GRPCInferenceService/ModelStreamInfer": nil} {
			body, w := io.Pipe()
			t.Cleanup(func() { w.Close() })
			go func() { _, _ = w.Write(sent) }() // the server may have hung up
			req, err := http.NewRequest("POST", "http://"+address+"/inference."+path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			res, err := client.Do(req)
			if err != nil {
				continue // the stream was reset
			}
			_, _ = io.ReadAll(res.Body) // which may be cut off
			res.Body.Close()
			code := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status")
			if address == r.at.GRPC && code != fmt.Sprint(int(codes.DeadlineExceeded)) || code == "0" {
				t.Errorf("%s of %s: status %q", path, address, code)
			}
		}
		ask()
		if err := kept.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := kept.Recv(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	for r.metric("mlc_inflight_requests") != "0" {
		time.Sleep(time.Millisecond)
	}
}

// A run for which there is no memory fails alone.
func TestRuntimeOutOfMemory(t *testing.T) {
	g := onnx.New("greedy")
	x := g.Input("f.x", onnx.Double, -1, 1)
	g.Input("f.c", onnx.String, -1, 1)
	n := g.Op("Reshape", g.Op("Gather", g.Cast(x, onnx.Int64), g.Const([]int64{0}, 1)), g.Const([]int64{1}, 1))
	big := g.OpA("ReduceSum", onnx.Attrs{"keepdims": 0}, g.Op("Expand", g.Scalar(float32(0)), n))
	g.Output("probability", g.Op("Add", g.Op("Mul", g.Cast(x, onnx.Float), g.Scalar(float32(0))), big), onnx.Float, -1, 1)
	svc := one()
	svc.Batching.MaxRows = 1
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: {Model: g.Marshal(), Signature: signature()}}})
	if a := r.predict(`{"features":{"f.x":1e15}}`); a.Status != 500 {
		t.Errorf("%+v", a)
	}
	if a := r.predict(row); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

// What was asked before the end is answered, and readiness goes first.
func TestDrain(t *testing.T) {
	svc := one()
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: slow()}})
	got := make(chan answer, 1)
	go func() {
		a, err := r.try(row)
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	for r.metric("mlc_inflight_requests") != "1" {
		time.Sleep(time.Millisecond)
	}
	r.stop()
	if a := <-got; a.Status != 200 {
		t.Errorf("%+v", a)
	}
}

// ending is a registry that is closed under way, as by the end of the program.
type ending struct {
	*shelf
	closed atomic.Bool
	asked  atomic.Int64
}

func (e *ending) Resolve(ctx context.Context, ref service.Ref) (serve.Version, error) {
	e.asked.Add(1)
	if e.closed.Load() {
		return serve.Version{}, fmt.Errorf("reading the aliases: %w", context.Canceled)
	}
	return e.shelf.Resolve(ctx, ref)
}

// That the registry is closed at the end is no failed reload.
func TestEndIsNoFailedReload(t *testing.T) {
	src := &ending{shelf: &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}}}
	r := start(t, one(), src)
	src.closed.Store(true)
	for was := src.asked.Load(); src.asked.Load() < was+3; {
		time.Sleep(time.Millisecond)
	}
	if got := r.metric(`mlc_reloads_total{model="m",result="failed"}`); got != "" {
		t.Errorf("%s reloads failed", got)
	}
}

// A request's span is a child of the caller's, and tells no values.
func TestTraces(t *testing.T) {
	var spans tracetest.InMemoryExporter
	p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(&spans))
	r := startTraced(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}}, p.Tracer("t"))
	r.predict(row, "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	got := spans.GetSpans() // the model's, which ends first, and the request's
	if len(got) != 2 || got[1].SpanContext.TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" || got[1].Parent.SpanID().String() != "00f067aa0ba902b7" {
		t.Fatalf("%+v", got)
	}
	if got[0].Name != "model m" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() {
		t.Errorf("%+v", got[0])
	}
	for _, s := range got {
		if text := fmt.Sprint(s.Attributes); !strings.Contains(text, "mlc.version") || strings.Contains(text, "f.x") {
			t.Error(text)
		}
	}
}

// What is under way over gRPC is answered on either port.
func TestDrainOfGRPC(t *testing.T) {
	r := start(t, one(), &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: slow()}})
	in := []ort.Value{ort.Tensor{Shape: []int64{1, 1}, Data: []float64{1}}, ort.Tensor{Shape: []int64{1, 1}, Data: []string{"a"}}}
	shape := oiptest.Model{Name: "m", Inputs: []ort.Info{{Name: "f.x", Type: "double", Shape: []int64{-1, 1}}, {Name: "f.c", Type: "string", Shape: []int64{-1, 1}}}, Outputs: []ort.Info{{Name: "probability", Type: "float", Shape: []int64{-1, 1}}}}
	var wg sync.WaitGroup
	for _, address := range []string{r.at.HTTP, r.at.GRPC} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		wg.Go(func() {
			if _, err := oiptest.GRPC(conn)(t.Context(), shape, in); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		})
	}
	for r.metric("mlc_inflight_requests") != "2" {
		time.Sleep(time.Millisecond)
	}
	r.stop()
	wg.Wait()
}

// labels is a bundle of a multilabel model that gives each class a half.
func labels(classes ...string) *bundle.Bundle {
	g := onnx.New("labels")
	x := g.Input("f.x", onnx.Double, -1, 1)
	zero := g.Op("Mul", g.Cast(g.Op("IsNaN", x), onnx.Float), g.Scalar(float32(0)))
	half := make([]float32, len(classes))
	for i := range half {
		half[i] = .5
	}
	w := int64(len(classes))
	g.Output("probabilities", g.Op("Add", zero, g.Const(half, 1, w)), onnx.Float, -1, w)
	sig := signature()
	sig.Model, sig.Task = "l", kind.Task{Kind: kind.Multilabel, Classes: classes}
	sig.Inputs, sig.Raw, sig.Outputs = sig.Inputs[:1], sig.Raw[:1], []bundle.Tensor{{Name: "probabilities", DType: "float", Width: int(w)}}
	return &bundle.Bundle{Model: g.Marshal(), Signature: sig}
}

// A version with other classes answers with its own, as a branch, and as a shadow it
// differs; where columns only have another order, callers do not see it.
func TestVersionsOfOtherClasses(t *testing.T) {
	svc := one()
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	svc.Shadow = &service.Shadow{Model: ref("c"), Share: 1}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2, "c": 3}, bundles: map[int]*bundle.Bundle{1: labels("x", "y"), 2: labels("z", "y", "x"), 3: labels("y", "x")}})
	want := map[string]string{
		"a": `"predictions":[{"labels":["x","y"],"probabilities":{"x":0.5,"y":0.5}}]`,
		"b": `"predictions":[{"labels":["z","y","x"],"probabilities":{"z":0.5,"y":0.5,"x":0.5}}]`,
	}
	asked := map[string]int{}
	for i := 1; r.shadowed("equal", "3") == 0 || r.shadowed("differs", "3") == 0; i++ {
		r.mirrored(i - 1)
		a := r.predict(fmt.Sprintf(`{"features":{"f.x":1},"key":"%d"}`, i))
		if asked[a.Variant]++; a.Status != 200 || !strings.Contains(a.body, want[a.Variant]) {
			t.Fatal(a.body)
		}
	}
	if _, doc := r.get(r.url + "/openapi.json"); strings.Contains(doc, `"enum":["x","y"]`) || !strings.Contains(doc, `"probabilities":{"type":"object","additionalProperties":{`) {
		t.Errorf("callers are promised the classes of one branch: %s", doc)
	}
	for branch, result := range map[string]string{"a": "equal", "b": "differs"} {
		if n := r.shadowed(result, "3"); n > asked[branch] {
			t.Errorf("%s: %d of %d", result, n, asked[branch])
		}
	}
}

// What callers sent is in the log whole, whichever branch answered: one that takes less of
// it has the same columns.
func TestBranchesOfOtherInputsLogTheSame(t *testing.T) {
	less := model(.75)
	g := onnx.New("less")
	zero := g.Op("Mul", g.Cast(g.Op("IsNaN", g.Input("f.x", onnx.Double, -1, 1)), onnx.Float), g.Scalar(float32(0)))
	g.Output("probability", g.Op("Add", zero, g.Scalar(float32(.75))), onnx.Float, -1, 1)
	less.Model, less.Signature.Inputs, less.Signature.Raw = g.Marshal(), less.Signature.Inputs[:1], less.Signature.Raw[:1]
	svc := one()
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	dir := t.TempDir()
	svc.Log = &service.Log{Sample: 1, Dir: dir, Rows: 1 << 20, Every: service.Duration(time.Hour), Buffer: 1000}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: less}})
	want := map[string]int{}
	for i := range 40 {
		a := r.predict(fmt.Sprintf(`{"features":{"f.x":%d,"f.c":"c%d"},"key":"%d"}`, i, i, i))
		if a.Status != 200 {
			t.Fatal(a.body)
		}
		want[fmt.Sprintf("%s %d c%d", a.Variant, i, i)]++
	}
	r.end()
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	got := map[string]int{}
	err = table.Read(t.Context(), files[0], map[string]table.Form{"_variant": table.Texts, "f.x": table.Floats, "f.c": table.Texts}, func(b table.Batch) error {
		for k := range b.Rows {
			got[fmt.Sprintf("%s %v %s", b.Texts("_variant")[k], b.Floats("f.x")[k], b.Texts("f.c")[k])]++
		}
		return nil
	})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, not %v: %v", got, want, err)
	}
}

// A step that fails leaves a record with the columns of those that end well.
func TestStepsThatFailLogTheSame(t *testing.T) {
	svc := one()
	svc.Split, svc.Steps = nil, []service.Step{{Name: "first", Model: ref("a")}, {Name: "second", Model: ref("b")}}
	dir := t.TempDir()
	svc.Log = &service.Log{Sample: 1, Dir: dir, Rows: 1 << 20, Every: service.Duration(time.Hour), Buffer: 1000}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: picky(), 2: labels("x", "y")}})
	for x, want := range map[int]int{1: 200, 9: 500} {
		if a := r.predict(fmt.Sprintf(`{"features":{"f.x":%d,"f.c":"a"}}`, x)); a.Status != want {
			t.Fatalf("%d: %s", x, a.body)
		}
	}
	r.end()
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if n, err := table.Rows(files[0]); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// A service is found by its name, one of its models by its name and version, also where
// the names are one.
func TestModelWithTheNameOfItsService(t *testing.T) {
	svc := one()
	svc.Name = "m"
	svc.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	svc.Shadow = &service.Shadow{Model: ref("c"), Share: .5}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2, "c": 3}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: model(.5), 3: model(.75)}})
	const body = `{"inputs":[{"name":"f.x","datatype":"FP64","shape":[1,1],"data":[1]},{"name":"f.c","datatype":"BYTES","shape":[1,1],"data":["a"]}]}`
	infer := func(path string) (int, string) {
		t.Helper()
		res, err := r.client.Post(r.url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	for version, p := range map[int]string{1: "0.25", 2: "0.5", 3: "0.75"} {
		for range 12 {
			if code, got := infer(fmt.Sprintf("/v2/models/m/versions/%d/infer", version)); code != 200 || !strings.Contains(got, `"data":[`+p+`]`) || !strings.Contains(got, fmt.Sprintf(`"model_version":"%d"`, version)) {
				t.Fatalf("version %d: %d %s", version, code, got)
			}
		}
	}
	if code, got := infer("/v2/models/m/versions/4/infer"); code != 404 {
		t.Errorf("%d %s", code, got)
	}
	seen := map[string]bool{}
	for range 200 {
		_, got := infer("/v2/models/m/infer")
		for _, p := range []string{"0.25", "0.5", "0.75"} {
			seen[p] = seen[p] || strings.Contains(got, `"data":[`+p+`]`)
		}
	}
	if !seen["0.25"] || !seen["0.5"] || seen["0.75"] {
		t.Errorf("the service answered %v", seen)
	}
	if _, got := r.get(r.url + "/v2/models/m"); !strings.Contains(got, `"versions":["1","2","3"]`) {
		t.Error(got)
	}
}

// Who is refused before a model is asked is counted, by protocol and status.
func TestRefusalsAreCounted(t *testing.T) {
	svc := one()
	svc.Auth = &service.Auth{APIKey: []string{"env:B"}}
	svc.Limits.PerClient = 100
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	const key, secret = "X-API-Key", "secret of env:B"
	for _, c := range []struct {
		path, body, key, header string
		code                    int
		line                    string
	}{
		{"/v1/predict", "{", secret, "", 400, `code="400",model="",protocol="typed"`},
		{"/v1/predict", `{"features":{"f.z":1}}`, secret, "", 422, `code="422",model="",protocol="typed"`},
		{"/v1/predict", row, secret, "Content-Encoding", 415, `code="415",model="",protocol="typed"`},
		{"/v1/predict", row, secret, "X-Request-Timeout", 400, `code="400",model="",protocol="typed"`},
		{"/v1/predict", strings.Repeat(" ", 2<<20), secret, "", 413, `code="413",model="",protocol="typed"`},
		{"/v1/predict", row, "", "", 401, `code="401",model="",protocol="typed"`},
		{"/v2/models/n/infer", "{}", secret, "", 404, `code="404",model="",protocol="http"`},
		{"/v2/models/m/infer", "{}", secret, "", 400, `code="400",model="",protocol="http"`},
		{"/v2/models/m/infer", "{}", "", "", 401, `code="401",model="",protocol="http"`},
		{"/v1/nothing", "", secret, "", 404, `code="404",model="",protocol="typed"`},
		{"/v1/model", "", secret, "", 405, `code="405",model="",protocol="typed"`},
		{"/v2/nothing", "", secret, "", 404, `code="404",model="",protocol="http"`},
		{"/v2/models/m", "", secret, "", 405, `code="405",model="",protocol="http"`},
	} {
		line := `mlc_requests_total{` + c.line + `,service="api",variant="",version=""}`
		was, _ := strconv.Atoi(r.metric(line))
		req, err := http.NewRequest("POST", r.url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(key, c.key)
		if c.header != "" {
			req.Header.Set(c.header, "x")
		}
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != c.code {
			t.Errorf("%s: %d, not %d, %v", c.path, res.StatusCode, c.code, err)
		}
		if got := r.metric(line); got != strconv.Itoa(was+1) {
			t.Errorf("%s is %s after %d", line, got, was)
		}
	}
	limited := one()
	limited.Limits.PerClient, limited.Limits.PerClientBurst = 2./3600, 2
	r = start(t, limited, &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}})
	for _, want := range []int{200, 200, 429} {
		if a := r.predict(row); a.Status != want || want == 429 && !strings.Contains(a.body, "more than 2 requests an hour") {
			t.Errorf("%+v", a)
		}
	}
	for line, want := range map[string]string{`mlc_requests_total{code="429",model="",protocol="typed",service="api",variant="",version=""}`: "1", `mlc_shed_total{reason="client"}`: "1"} {
		if got := r.metric(line); got != want {
			t.Errorf("%s is %q", line, got)
		}
	}
}

// A following step may be of another task than the one before.
func TestStepsOfOtherTasks(t *testing.T) {
	svc := one()
	svc.Split, svc.Steps = nil, []service.Step{{Name: "first", Model: ref("a")}, {Name: "second", Model: service.Ref{Model: "l", Alias: "b"}, Inputs: map[string]string{"f.x": "first.probability"}}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: labels("x", "y", "z")}})
	if a := r.predict(row); a.Status != 200 || !strings.Contains(a.body, `"probabilities":{"x":0.5,"y":0.5,"z":0.5}`) {
		t.Errorf("%+v", a)
	}
}

// Two models in a row: the probability of the first is a feature of the second.
func TestSteps(t *testing.T) {
	g := onnx.New("second")
	p := g.Input("g.score", onnx.Double, -1, 1)
	x := g.Input("f.x", onnx.Double, -1, 1)
	g.Output("prediction", g.Cast(g.Op("Add", g.Op("Mul", p, g.Scalar(float64(100))), x), onnx.Float), onnx.Float, -1, 1)
	second := &bundle.Bundle{Model: g.Marshal(), Signature: bundle.Signature{Format: bundle.SignatureFormat, Model: "n", Task: kind.Task{Kind: kind.Regression}, NullString: types.NullString,
		Inputs:  []bundle.Tensor{{Name: "g.score", DType: "double", Width: 1, Type: types.Float}, {Name: "f.x", DType: "double", Width: 1, Type: types.Float}},
		Outputs: []bundle.Tensor{{Name: "prediction", DType: "float", Width: 1}},
		Raw:     []lower.Field{{Name: "g.score", Type: types.Float}, {Name: "f.x", Column: "x", Type: types.Float}}}}
	svc := one()
	svc.Shadow = &service.Shadow{Model: ref("b2"), Share: 1} // of the last step
	dir := t.TempDir()
	svc.Log = &service.Log{Sample: 1, Dir: dir, Mask: []string{"f.c"}, Rows: 1, Every: service.Duration(time.Minute), Buffer: 100}
	svc.Split, svc.Steps = nil, []service.Step{{Name: "first", Model: ref("a")}, {Name: "second", Model: ref("b"), Inputs: map[string]string{"g.score": "first.probability"}}}
	r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2, "b2": 2}, bundles: map[int]*bundle.Bundle{1: model(.25), 2: second}})
	asked := 0
	for r.shadowed("equal", "2") == 0 {
		a := r.predict(`{"rows":[{"f.x":3,"f.c":"a"},{"f.x":4,"f.c":"b"}]}`)
		if a.Status != 200 || !strings.Contains(a.body, `{"prediction":28},{"prediction":29}`) {
			t.Fatalf("%+v", a)
		}
		asked++
		r.mirrored(asked)
	}
	if a := r.predict(`{"features":{"f.x":3,"f.c":"a","g.score":1}}`); a.Status != 422 {
		t.Errorf("%+v", a)
	}
	// The log has what the caller sent, by its names, and nothing of what is masked.
	for r.metric(`mlc_prediction_log_records_total{result="written",service="api"}`) != strconv.Itoa(asked+r.shadowed("equal", "2")) {
		time.Sleep(time.Millisecond)
	}
	if got := r.metric(`mlc_prediction_log_records_total{result="dropped",service="api"}`); got != "0" {
		t.Errorf("dropped %s", got)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, f := range files {
		err := table.Read(t.Context(), f, map[string]table.Form{"f.x": table.Floats, "f.c": table.Texts}, func(b table.Batch) error {
			steps++
			if x := b.Floats("f.x"); x[0] != 3 || b.Texts("f.c")[0] != types.NullString {
				t.Errorf("%v %v", x, b.Texts("f.c"))
			}
			return nil
		})
		if err != nil && !strings.Contains(err.Error(), "f.c") { // the shadow's has no such column
			t.Error(err)
		}
	}
	if steps == 0 {
		t.Error("no record of the steps")
	}
}

// What mlc generate writes is what the service says of itself, be it a canary that takes
// one feature more, or steps that feed each other.
func TestGeneratedIsServed(t *testing.T) {
	wider := model(.75)
	g := onnx.New("wider")
	zero := g.Op("Mul", g.Cast(g.Op("IsNaN", g.Input("f.age", onnx.Double, -1, 1)), onnx.Float), g.Scalar(float32(0)))
	g.Output("probability", g.Op("Add", zero, g.Scalar(float32(.75))), onnx.Float, -1, 1)
	wider.Model = g.Marshal()
	wider.Signature.Inputs = []bundle.Tensor{{Name: "f.age", DType: "double", Width: 1, Type: types.Int}}
	wider.Signature.Raw = []lower.Field{{Name: "f.age", Column: "age", Type: types.Int}}
	split, steps := one(), one()
	split.Split = []service.Branch{{Name: "a", Model: ref("a"), Weight: 50}, {Name: "b", Model: ref("b"), Weight: 50}}
	steps.Split, steps.Steps = nil, []service.Step{{Name: "first", Model: ref("a")}, {Name: "second", Model: ref("b"), Inputs: map[string]string{"f.age": "first.probability"}}}
	for _, svc := range []*service.Service{split, steps} {
		bundles := map[int]*bundle.Bundle{1: model(.25), 2: wider}
		r := start(t, svc, &shelf{aliases: map[string]int{"a": 1, "b": 2}, bundles: bundles})
		files, err := generate.Files(generate.Input{Service: svc, Signatures: map[service.Ref]*bundle.Signature{ref("a"): &bundles[1].Signature, ref("b"): &bundles[2].Signature}, Targets: []string{"openapi"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, live := r.get(r.url + "/openapi.json"); live != string(files["openapi.json"]) {
			t.Errorf("the service says\n%s\nand generated is\n%s", live, files["openapi.json"])
		}
	}
}
