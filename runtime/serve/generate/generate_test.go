package generate

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
)

var cases = []string{"binary", "multiclass", "regression", "multilabel", "quantile", "anomaly"}

// load reads the service of a case.
func load(t testing.TB, name string) Input {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Service    *service.Service
		Signatures map[string]*bundle.Signature
		Image      string
		Targets    []string
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	in := Input{Service: c.Service, Image: c.Image, Version: "v1.2.3", Targets: c.Targets, Signatures: map[service.Ref]*bundle.Signature{}}
	for ref, sig := range c.Signatures {
		model, alias, _ := strings.Cut(ref, "@")
		in.Signatures[service.Ref{Model: model, Alias: alias}] = sig
	}
	for _, b := range in.Service.Split { // a challenger is like the champion
		if in.Signatures[b.Model] == nil {
			in.Signatures[b.Model] = in.Signatures[in.Service.Split[0].Model]
		}
	}
	return in
}

// generated are the files of a case.
func generated(t testing.TB, name string) map[string][]byte {
	t.Helper()
	files, err := Files(load(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// write puts files into a folder.
func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden compares with testdata/NAME.txtar, or writes it with MLC_UPDATE=1. What
// runtime/serve/typed makes is its own to hold.
func TestGolden(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			files := generated(t, name)
			delete(files, "openapi.json")
			maps.DeleteFunc(files, func(path string, _ []byte) bool { return strings.HasPrefix(path, "proto/") })
			a := &txtar.Archive{}
			for _, path := range slices.Sorted(maps.Keys(files)) {
				a.Files = append(a.Files, txtar.File{Name: path, Data: files[path]})
			}
			golden := filepath.Join("testdata", name+".txtar")
			if os.Getenv("MLC_UPDATE") != "" {
				if err := os.WriteFile(golden, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(txtar.Format(a))); diff != "" {
				t.Errorf("%s is not what it was (MLC_UPDATE=1 writes it):\n%s", golden, diff)
			}
		})
	}
}

func TestTargetsAreListedWithTheirFiles(t *testing.T) {
	in := load(t, "binary")
	seen := map[string]bool{}
	for _, target := range Targets() {
		if target.Doc == "" {
			t.Errorf("%s has no doc", target.Name)
		}
		in.Targets = []string{target.Name}
		files, err := Files(in)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", target.Name, len(files), err)
		}
		for path, b := range files {
			if seen[path] {
				t.Errorf("%s comes from two targets", path)
			}
			seen[path] = true
			if len(b) == 0 && filepath.Base(path) != "py.typed" {
				t.Errorf("%s is empty", path)
			}
		}
	}
	in.Targets = nil
	files, err := Files(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(seen) {
		t.Errorf("all targets together make %d files, one by one %d", len(files), len(seen))
	}
	for _, path := range []string{"openapi.json", "proto/flights_api.proto"} {
		if !bytes.Contains(files[path], []byte("flight.carrier")) {
			t.Errorf("%s has not the features of the service", path)
		}
	}
}

func TestWhatDoesNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		target string
		want   string
	}{
		"unknown":        {func(*Input) {}, "docer", "no target"},
		"tls on Knative": {func(in *Input) { in.Service.TLS = &service.TLS{Cert: "c", Key: "k"} }, "knative", "leave tls out"},
		"log over image": {func(in *Input) { in.Service.Log.Dir = "/etc" }, "kubernetes", "folder of its own"},
		"key over image": {func(in *Input) { in.Service.Auth.APIKey = []string{"file:key"} }, "kserve", "folder of their own"},
		"no image":       {func(in *Input) { in.Image = "" }, "docker", "reference of the service's image"},
		"no signature":   {func(in *Input) { in.Signatures = nil }, "clients/go", "no typed API"},
		"one without":    {func(in *Input) { delete(in.Signatures, service.Ref{Model: "early", Alias: "v3"}) }, "triton", "early@v3"},
	} {
		t.Run(name, func(t *testing.T) {
			in := load(t, "binary")
			c.change(&in)
			in.Targets = []string{c.target}
			if _, err := Files(in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v does not tell %q", err, c.want)
			}
			if name == "unknown" {
				return
			}
			in.Targets = nil
			files, err := Files(in)
			if err != nil {
				t.Fatal(err)
			}
			for path := range files {
				if strings.HasPrefix(path, c.target) {
					t.Errorf("%s was made all the same", path)
				}
			}
			left, err := LeftOut(in)
			if err != nil || !slices.ContainsFunc(left, func(l Left) bool { return l.Target.Name == c.target && strings.Contains(l.Why.Error(), c.want) }) {
				t.Errorf("it is not among what is left out: %v %v", left, err)
			}
		})
	}
}

// TestEveryFileHasOneTarget: what is made for one target is owned by it and by no other.
func TestEveryFileHasOneTarget(t *testing.T) {
	in := load(t, "binary")
	for _, target := range Targets() {
		in.Targets = []string{target.Name}
		files, err := Files(in)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", target.Name, len(files), err)
		}
		for path := range files {
			for _, other := range Targets() {
				if other.Owns(path) != (other.Name == target.Name) {
					t.Errorf("%s, made for %s: %s owns it is %v", path, target.Name, other.Name, other.Owns(path))
				}
			}
		}
	}
}

func TestBadInput(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"no service":          func(in *Input) { in.Service = nil },
		"no model":            func(in *Input) { in.Service.Split = nil },
		"image with newline":  func(in *Input) { in.Image = "a\nUSER root" },
		"system no name":      func(in *Input) { in.Service.System = "a\nb" },
		"model up the tree":   func(in *Input) { in.Service.Split[0].Model.Model = "../late" },
		"variable with space": func(in *Input) { in.Service.Auth.Bearer = []string{"env:A B"} },
		"log with dollar":     func(in *Input) { in.Service.Log.Dir = "/$HOME/log" },
		"a secret as it is":   func(in *Input) { in.Service.Auth.Bearer = []string{"hunter2"} },
		"client with quote":   func(in *Input) { rename(in, "a`b"); in.Targets = []string{"clients/go"} },
		"feature of no type":  func(in *Input) { in.Signatures[late].Raw[0].Type = "blob" },
		"text that is none":   func(in *Input) { in.Signatures[late].Raw[0].In = []any{1.0} },
		"tensor of no type":   func(in *Input) { in.Signatures[late].Inputs[0].DType = "complex64" },
		"steps that disagree": disagree,
	} {
		t.Run(name, func(t *testing.T) {
			in := load(t, "binary")
			change(&in)
			_, err := Files(in)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error tells the secret")
			}
		})
	}
}

var late = service.Ref{Model: "late", Alias: "production"}

func disagree(in *Input) {
	in.Service.Split = nil
	in.Service.Steps = []service.Step{{Name: "a", Model: late}, {Name: "b", Model: service.Ref{Model: "early", Alias: "v3"}}}
	sig := *in.Signatures[late]
	sig.Raw = slices.Clone(sig.Raw)
	sig.Raw[0].Type = map[bool]types.Type{false: types.Bool, true: types.String}[sig.Raw[0].Type == types.Bool]
	in.Signatures[in.Service.Steps[1].Model] = &sig
}

// rename gives the first feature another name.
func rename(in *Input, name string) {
	sig := in.Signatures[late]
	old := sig.Raw[0].Name
	sig.Raw[0].Name = name
	for i := range sig.Inputs {
		if x := &sig.Inputs[i]; x.Name == old {
			x.Name = name
		}
	}
}

// TestNamesThatClientsCannotCarry: only the clients are left out, and it is told why.
func TestNamesThatClientsCannotCarry(t *testing.T) {
	in := load(t, "binary")
	for name, carried := range map[string]bool{"row.naïve": true, "row.日本": true, "row.x'y\"z": false} {
		rename(&in, name)
		files, err := Files(in)
		left, lerr := LeftOut(in)
		if err != nil || lerr != nil {
			t.Fatal(err, lerr)
		}
		if _, ok := files["openapi.json"]; !ok {
			t.Errorf("%s: no description", name)
		}
		clients := 0
		for path := range files {
			if strings.HasPrefix(path, "clients/") {
				clients++
			}
		}
		told := 0
		for _, l := range left {
			if strings.Contains(l.Why.Error(), "of the name") {
				told++
			}
		}
		if carried != (clients > 0) || carried != (told == 0) {
			t.Errorf("%s: %d files of clients, %d left out", name, clients, told)
		}
	}
}

// TestStepsTakeWhatNoStepGives: the request of several steps has no feature that an
// earlier step computes, and each other one once.
func TestStepsTakeWhatNoStepGives(t *testing.T) {
	in := load(t, "regression")
	sig, err := front(in.Service, in.Signatures)
	if err != nil {
		t.Fatal(err)
	}
	var raw, inputs []string
	for _, f := range sig.Raw {
		raw = append(raw, f.Name)
	}
	for _, i := range sig.Inputs {
		inputs = append(inputs, i.Name)
	}
	want := []string{"day.pressure", "day.holiday"}
	if !slices.Equal(raw, want) || !slices.Equal(inputs, want) || sig.Model != in.Service.Name {
		t.Errorf("raw %v, inputs %v of %s", raw, inputs, sig.Model)
	}
	if n := len(in.Signatures[service.Ref{Model: "rides", Alias: "production"}].Raw); n != 3 {
		t.Errorf("the model's own signature has %d features now", n)
	}
}

// names of features as a spec, or anyone, may have them.
var wireName = rapid.StringMatching(`[A-Za-z][A-Za-z0-9_]{0,8}\.[A-Za-z][A-Za-z0-9_ \-]{0,8}|[ -!#-&(-+\--\[\]-_a-~]{1,6}|(class|int|None|1)`)

func TestIdentifiersAreDistinctAndValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfNDistinct(wireName, 1, 12, rapid.ID[string]).Draw(t, "names")
		for _, s := range []style{goStyle, pyStyle, tsStyle} {
			out := s.distinct(in)
			seen := map[string]bool{}
			for i, id := range out {
				if seen[id] {
					t.Fatalf("%q twice in %q for %q", id, out, in)
				}
				seen[id] = true
				if id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || id[0] <= '9' || s.reserved[id] {
					t.Fatalf("%q is no identifier for %q", id, in[i])
				}
			}
			if out[0] != s.one(in[0]) {
				t.Fatalf("the first of a name does not keep its own: %q for %q", out[0], in[0])
			}
		}
	})
}

func TestKubernetesNames(t *testing.T) {
	for name, want := range map[string]string{
		"flights api": "flights-api", "My_Sys Svc_2": "my-sys-svc-2", "9 lives": "mlc-9-lives", "␀ ␀": "mlc",
		strings.Repeat("a", 49) + " b": strings.Repeat("a", 49),
	} {
		if got := dns(name, 50); got != want {
			t.Errorf("dns(%q) = %q, not %q", name, got, want)
		}
	}
}

// TestGoPackage: a system and a service whose names make a word of Go together.
func TestGoPackage(t *testing.T) {
	for both, want := range map[[2]string]string{
		{"g", "O"}: "goclient", {"ma", "in"}: "mainclient", {"inter", "nal"}: "internalclient", {"fun", "c"}: "funcclient", {"flights", "api"}: "flightsapi",
	} {
		v := view{Package: pyStyle.one(both[0] + " " + both[1])}
		if got := v.GoPackage(); got != want {
			t.Errorf("%s and %s make the package %s, not %s", both[0], both[1], got, want)
		}
	}
}

// anyInput draws a service whose every part may be there or not.
func anyInput(t *rapid.T) Input {
	in := Input{Image: "registry.example/x:1", Version: "v0", Signatures: map[service.Ref]*bundle.Signature{}}
	ref := service.Ref{Model: "m", Alias: "production"}
	task := rapid.SampledFrom([]kind.Task{{Kind: kind.Binary}, {Kind: kind.Regression}, {Kind: kind.Multiclass, Classes: []string{"a", `b"*/` + "\n", "ç"}},
		{Kind: kind.Multilabel, Classes: []string{"a", `b"*/` + "\n"}}, {Kind: kind.Quantile, Quantiles: []float64{1e-7, 0.5}}, {Kind: kind.Count}, {Kind: kind.Anomaly}}).Draw(t, "task")
	sig := &bundle.Signature{Format: bundle.SignatureFormat, Model: "m", Task: task, Outputs: []bundle.Tensor{{Name: bundle.MainOutput(task.Kind), DType: "float", Width: task.Width()}}}
	if task.Kind == kind.Multiclass {
		sig.Outputs = append(sig.Outputs, bundle.Tensor{Name: "class", DType: "string", Width: 1})
	}
	for _, n := range rapid.SliceOfNDistinct(wireName, 1, 8, rapid.ID[string]).Draw(t, "features") {
		f := lower.Field{Name: n, Nullable: rapid.Bool().Draw(t, "nullable"), Type: rapid.SampledFrom([]types.Type{types.Bool, types.Int, types.Float, types.String, types.Timestamp}).Draw(t, "type")}
		dtype := "double"
		if f.Type == types.String {
			dtype = "string"
			if rapid.Bool().Draw(t, "listed") {
				for _, s := range rapid.SliceOfNDistinct(rapid.String(), 1, 3, rapid.ID[string]).Draw(t, "in") {
					f.In = append(f.In, s)
				}
			}
		}
		sig.Raw = append(sig.Raw, f)
		sig.Inputs = append(sig.Inputs, bundle.Tensor{Name: n, DType: dtype, Width: 1, Type: f.Type})
	}
	in.Signatures[ref] = sig
	ident := rapid.StringMatching(`[A-Za-z][A-Za-z0-9_]{0,40}`)
	in.Service = &service.Service{Format: service.Format, System: ident.Draw(t, "system"), Name: ident.Draw(t, "service"), Split: []service.Branch{{Name: "a", Model: ref, Weight: 100}},
		CPU: rapid.IntRange(0, 64).Draw(t, "cpu"), Memory: rapid.Int64Range(0, 1<<40).Draw(t, "memory"), Deadline: service.Duration(rapid.Int64Range(0, 1e12).Draw(t, "deadline")),
		Batching: service.Batching{MaxRows: rapid.IntRange(0, 512).Draw(t, "rows"), Queue: rapid.IntRange(0, 1024).Draw(t, "queue")},
		Replicas: service.Replicas{Min: rapid.IntRange(0, 3).Draw(t, "min"), Max: rapid.IntRange(0, 9).Draw(t, "max")}}
	if rapid.Bool().Draw(t, "auth") {
		in.Service.Auth = &service.Auth{Bearer: []string{"env:TOKEN", "env:TOKEN"}, APIKey: []string{"file:keys/a", "file:/etc/x/a", "file:/etc/ü b"}}
	}
	if rapid.Bool().Draw(t, "log") {
		in.Service.Log = &service.Log{Dir: rapid.SampledFrom([]string{"log", "/var/log/mlc", "/tmp/log"}).Draw(t, "dir")}
	}
	switch rapid.IntRange(0, 2).Draw(t, "kafka") {
	case 1:
		in.Service.Log = &service.Log{Kafka: []string{"k:9093"}, Topic: "t", TLS: &service.ClientTLS{CA: "/cas/ca"}, SASL: &service.SASL{Mechanism: service.SASLPlain, Username: "u", Password: "env:TOKEN"}}
	case 2:
		in.Service.Log = &service.Log{Kafka: []string{"k:9093"}, Topic: "t", TLS: &service.ClientTLS{Cert: "/tls/c", Key: "/etc/x/key"}, SASL: &service.SASL{Mechanism: service.SASLScram256, Username: "u", Password: "file:/etc/x/b"}}
	}
	switch rapid.IntRange(0, 2).Draw(t, "tls") {
	case 1:
		in.Service.TLS = &service.TLS{Cert: "/tls/c", Key: "/tls/k"}
	case 2:
		in.Service.TLS = &service.TLS{Cert: "/tls/c", Key: "/tls/k", ClientCA: "/cas/ca"}
	}
	return in
}

// TestEveryServiceMakesSoundFiles: whatever the service, every YAML file is what its
// kind has, every config.pbtxt is text of its message, the Go client is Go, and the
// same comes out again.
func TestEveryServiceMakesSoundFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		files, err := Files(in)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Files(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files, again); diff != "" {
			t.Fatal(diff)
		}
		for path, b := range files {
			if err := sound(path, b); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, b)
			}
		}
	})
}
