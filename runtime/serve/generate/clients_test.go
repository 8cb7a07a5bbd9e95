package generate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/typed"
)

// models is a server's one model: a real one, run by ONNX Runtime, that remembers
// the calls by their id.
type models struct {
	sig     *bundle.Signature
	session *ort.Session
	mu      sync.Mutex
	calls   map[string]api.Call
}

func (m *models) Index() []api.Entry                      { return nil }
func (m *models) Model(string, string) (api.Model, error) { return m, nil }
func (m *models) Load(context.Context, string) error      { return nil }
func (m *models) Unload(context.Context, string) error    { return nil }
func (m *models) Refused(string, api.Kind)                {}
func (m *models) Ready() bool                             { return true }
func (m *models) Name() string                            { return m.sig.Model }
func (m *models) Version() string                         { return "3" }
func (m *models) Inputs() []ort.Info                      { return m.session.Inputs() }
func (m *models) Outputs() []ort.Info                     { return m.session.Outputs() }
func (m *models) Signature() *bundle.Signature            { return m.sig }
func (m *models) Limits() api.Limits                      { return api.Limits{} }
func (m *models) Stats() api.Stats                        { return api.Stats{} }
func (m *models) Busy(string) error                       { return nil }
func (m *models) Infer(ctx context.Context, c api.Call) (api.Answer, error) {
	m.mu.Lock()
	m.calls[c.ID] = c
	m.mu.Unlock()
	out, err := m.session.RunValues(ctx, c.Inputs)
	if err != nil {
		return api.Answer{}, api.From(err)
	}
	return api.Answer{Outputs: out, Model: m.sig.Model, Version: "3", Variant: "champion", Queue: time.Microsecond, Compute: time.Millisecond}, nil
}

// model is one of the signature that can be checked by hand: with x its first
// number, the probability or score x/10000, the probabilities x, 1-x and 0, the
// quantiles x, 1+x and 2+x, or the value 2x.
func model(t *testing.T, sig *bundle.Signature) *models {
	g := onnx.New("model")
	var x onnx.Value
	for _, in := range sig.Inputs {
		dt := map[string]onnx.DType{"double": onnx.Double, "string": onnx.String}[in.DType]
		if v := g.Input(in.Name, dt, -1, 1); dt == onnx.Double && x == "" {
			x = v
		}
	}
	switch sig.Task.Kind {
	case kind.Binary, kind.Anomaly:
		g.Output(bundle.MainOutput(sig.Task.Kind), g.Cast(g.Op("Div", x, g.Scalar(10000.0)), onnx.Float), onnx.Float, -1, 1)
	case kind.Multiclass:
		y := g.Cast(g.OpA("Concat", onnx.Attrs{"axis": 1}, x, g.Op("Sub", g.Scalar(1.0), x), g.Op("Mul", x, g.Scalar(0.0))), onnx.Float)
		g.Output("probabilities", y, onnx.Float, -1, 3)
		best := g.OpA("ArgMax", onnx.Attrs{"axis": 1, "keepdims": 1}, y)
		g.Output("class", g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const(sig.Task.Classes, 3), best), onnx.String, -1, 1)
	case kind.Multilabel:
		y := g.OpA("Concat", onnx.Attrs{"axis": 1}, x, g.Op("Sub", g.Scalar(1.0), x), g.Op("Mul", x, g.Scalar(0.0)))
		g.Output("probabilities", g.Cast(y, onnx.Float), onnx.Float, -1, 3)
	case kind.Quantile:
		y := g.OpA("Concat", onnx.Attrs{"axis": 1}, x, g.Op("Add", g.Scalar(1.0), x), g.Op("Add", g.Scalar(2.0), x))
		g.Output("quantiles", g.Cast(y, onnx.Float), onnx.Float, -1, 3)
	default:
		g.Output("prediction", g.Cast(g.Op("Mul", x, g.Scalar(2.0)), onnx.Float), onnx.Float, -1, 1)
	}
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &models{sig: sig, session: s, calls: map[string]api.Call{}}
}

// server is the service's own typed API over a real model, behind what a client
// may meet on the way, by the request's id.
type server struct {
	*httptest.Server
	*models
	mu    sync.Mutex
	tries map[string]int
}

func serve(t *testing.T, in Input) *server {
	sig, err := front(in.Service, in.Signatures)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{models: model(t, sig), tries: map[string]int{}}
	h := typed.New(in.Service, s.models, sig.Model, typed.Options{}).Handler()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a client took %v to where it was redirected", r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var req struct{ ID string }
		if err := json.Unmarshal(body, &req); err != nil {
			t.Errorf("a client sent %s: %v", body, err)
		}
		s.mu.Lock()
		s.tries[req.ID]++
		try := s.tries[req.ID]
		s.mu.Unlock()
		if a := in.Service.Auth; a != nil && (r.Header.Get("Authorization") != "Bearer token" || r.Header.Get("X-API-Key") != "key") && req.ID != "hang" {
			t.Errorf("a client sent %v", r.Header)
		}
		refuse := func(status int, after, body string) {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
		switch {
		case req.ID == "shed" && try == 1:
			refuse(http.StatusServiceUnavailable, "0", `{"error":"shed","id":"shed"}`)
		case req.ID == "shed" && try == 2:
			refuse(http.StatusTooManyRequests, "Mon, 01 Jan 2024 00:00:00 GMT", `{"error":"slower"}`)
		case req.ID == "down":
			refuse(http.StatusServiceUnavailable, "0", `{"error":"draining"}`)
		case req.ID == "later":
			refuse(http.StatusServiceUnavailable, "3600", `{"error":"tomorrow","id":"later"}`)
		case req.ID == "html":
			refuse(http.StatusBadGateway, "", "<html>Bad Gateway</html>")
		case req.ID == "redirect":
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case req.ID == "hang":
			<-r.Context().Done()
		default:
			r.Body = io.NopCloser(bytes.NewReader(body))
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// want is what every client's driver prints.
var want = map[string]string{
	"binary": `two: two late 3 champion false
0.25 false
0.75 true
shed: true
down: true
later: true
503 tomorrow later 3600
html: true
redirect: true
bad: 422 2
$.rows[0]["flight.carrier"]
$.rows[1]["flight.distance"]
hang: true
`,
	"multiclass": "Adelie 0.75 0.25 3 true\n",
	"regression": "2000\n",
	"multilabel": "1 news 0.75 3 0 true\n",
	"quantile":   "2.5 4.5 3 true\n",
	"anomaly":    "0.75 true false true\n",
}

// check holds what a driver printed, and what its client sent, against what should be.
func (s *server) check(t *testing.T, name string, out []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(want[name], string(out)); diff != "" {
		t.Error(diff)
	}
	if name != "binary" {
		return
	}
	for id, n := range map[string]int{"two": 1, "shed": 3, "down": 3, "later": 1, "html": 1, "redirect": 1, "bad": 1, "hang": 1} {
		if s.tries[id] != n {
			t.Errorf("%s was asked %d times, not %d", id, s.tries[id], n)
		}
	}
	micros := func(s string) float64 {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return float64(at.UnixMicro())
	}
	nan, call := math.NaN(), s.calls["two"]
	sent := []ort.Value{
		ort.Column([]string{"AA", "O'Hare \"*/"}), ort.Column([]float64{2500, 7500}), ort.Column([]float64{nan, 2}), ort.Column([]float64{nan, 1}),
		ort.Column([]float64{micros("2024-01-31T12:00:00Z"), micros("2024-06-30T23:30:00.25Z")}), ort.Column([]float64{nan, 1.5}), ort.Column([]string{"␀", "ü"}),
	}
	if diff := cmp.Diff(sent, call.Inputs, cmpopts.EquateNaNs()); diff != "" || call.Key != "caller" {
		t.Errorf("the model got, of caller %q:\n%s", call.Key, diff)
	}
}

// driver is the program of a case in a language.
func driver(t *testing.T, name, file string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", "drivers", name, file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// client is the files of a client alone, without their target's folder.
func client(t *testing.T, name, target string) map[string][]byte {
	in := load(t, name)
	in.Targets = []string{target}
	files, err := Files(in)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for p, b := range files {
		out[strings.TrimPrefix(p, target+"/")] = b
	}
	return out
}

// run runs a command and wants it to succeed.
func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
	}
	return out
}

func TestGoClient(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), serve(t, load(t, name))
			files := client(t, name, "clients/go")
			files["go.mod"] = []byte("module roundtrip\n\ngo 1.24\n")
			files["main.go"] = driver(t, name, "main.go")
			write(t, dir, files)
			if out := run(t, dir, "gofmt", "-l", "."); len(out) > 0 {
				t.Errorf("gofmt would change %s", out)
			}
			run(t, dir, "go", "vet", "./...")
			run(t, dir, "go", "build", "-o", "driver", ".")
			out, err := exec.Command(filepath.Join(dir, "driver"), s.URL).CombinedOutput()
			s.check(t, name, out, err)
		})
	}
}

func TestPythonClient(t *testing.T) {
	py := python(t, "mypy")
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), serve(t, load(t, name))
			files := client(t, name, "clients/python")
			files["main.py"] = driver(t, name, "main.py")
			write(t, dir, files)
			run(t, dir, py, "-m", "py_compile", "main.py")
			run(t, dir, py, "-m", "mypy", "--strict", "--python-version", "3.10", "--cache-dir", os.DevNull, ".")
			cmd := exec.Command(py, "main.py", s.URL)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			s.check(t, name, out, err)
		})
	}
}

// TestPythonPackage builds the client as its pyproject.toml says.
func TestPythonPackage(t *testing.T) {
	py := python(t, "setuptools.command.bdist_wheel")
	dir := t.TempDir()
	write(t, dir, client(t, "binary", "clients/python"))
	run(t, dir, py, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-index", "--no-build-isolation", "--target", filepath.Join(dir, "site"), ".")
	for _, f := range []string{"__init__.py", "py.typed"} {
		if _, err := os.Stat(filepath.Join(dir, "site", "flights_api", f)); err != nil {
			t.Error(err)
		}
	}
}

func TestTypeScriptClient(t *testing.T) {
	tsc := os.Getenv("MLC_TEST_TSC")
	if tsc == "" {
		tsc = "tsc"
	}
	if _, err := exec.LookPath(tsc); err != nil {
		t.Skip("SKIPPED: no tsc (npm install typescript has it; MLC_TEST_TSC is its path)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: no node")
	}
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), serve(t, load(t, name))
			files := client(t, name, "clients/typescript")
			files["main.ts"] = driver(t, name, "main.ts")
			files["main.json"] = []byte(`{"extends": "./tsconfig.json", "compilerOptions": {"outDir": "out"}, "files": ["main.ts"]}`)
			write(t, dir, files)
			run(t, dir, tsc, "-p", "tsconfig.json")
			run(t, dir, tsc, "-p", "main.json", "--outDir", ".", "--declaration", "false")
			out, err := exec.Command(node, filepath.Join(dir, "main.js"), s.URL).CombinedOutput()
			s.check(t, name, out, err)
		})
	}
}
