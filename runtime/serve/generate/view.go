package generate

import (
	"errors"
	"fmt"
	"go/token"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/typed"
)

// view is what templates see.
type view struct {
	in    Input
	front *bundle.Signature // of the typed API; nil: there is none

	Mlc     string // version
	System  string
	Service string
	Name    string // in Kubernetes: at most 50 bytes, so that suffixes fit
	Package string // of the clients
	Image   string
	HTTP    int
	GRPC    int
	Metrics int

	Task      string
	Classes   []string // or labels
	Quantiles []string
	Features  []feature

	// Secrets are the variables that hold secrets, Mounts the files, and Dirs the
	// folders that they are mounted as.
	Secrets []string
	Mounts  []mount
	Dirs    []mountDir
	// LogDir is the folder of the prediction log, or "".
	LogDir string
}

// feature is a feature of a row.
type feature struct {
	Name       string // on the wire
	Type       types.Type
	Nullable   bool
	Doc        string
	Go, Py, TS string   // identifiers
	Texts      []string // all the texts that it may be; nil: any, or it is no text
}

// mount is a key of a secret that the service reads as a file.
type mount struct {
	Volume string // secrets, tls or kafka
	Key    string
	Path   string
}

// Base is the last part of Path.
func (m mount) Base() string { return path.Base(m.Path) }

// mountDir is a folder of mounts: mounted whole, so that a secret that changes
// changes there too.
type mountDir struct {
	Path  string
	Files []mount
}

// What ending takes beyond the request at work: for load balancers to learn of it,
// and for the program to close its connections and empty its log.
const (
	unlistSeconds = 5
	spareSeconds  = 40
)

// plainPath and plainImage are texts that mean themselves in shells and in YAML.
var (
	plainPath  = regexp.MustCompile(`^[A-Za-z0-9_./@+-]+$`)
	plainImage = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
)

// shell is a text as one word of a shell's, to be pasted.
func shell(s string) string {
	if plainPath.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func newView(in Input) (*view, error) {
	s := in.Service
	if s == nil {
		return nil, errors.New("no service to generate files for")
	}
	parts := []string{s.System, s.Name}
	for _, r := range s.Models() {
		parts = append(parts, r.Model, r.Alias)
	}
	for _, p := range parts {
		if !ident(p) {
			return nil, fmt.Errorf("%q is no name: a name is a letter, then letters, digits or underscores", p)
		}
	}
	v := &view{in: in, Mlc: in.Version, System: s.System, Service: s.Name, Image: in.Image, HTTP: PortHTTP, GRPC: PortGRPC, Metrics: PortMetrics,
		Name: dns(s.System+" "+s.Name, 50), Package: pyStyle.one(s.System + " " + s.Name)}
	if in.Image != "" && !plainImage.MatchString(in.Image) {
		return nil, fmt.Errorf("%q is no reference of an image", in.Image)
	}
	if strings.ContainsAny(in.Image+in.Version, " \t\r\n\"'\\") {
		return nil, fmt.Errorf("%q is no reference of an image, or %q no version", in.Image, in.Version)
	}
	var err error
	if v.front, err = front(s, in.Signatures); err != nil {
		return nil, err
	}
	if v.front != nil {
		v.Task, v.Classes = v.front.Task.Kind, v.front.Task.Classes
		if v.Task == kind.Quantile {
			v.Quantiles = api.Columns(v.front.Task)
		}
		if len(s.Split) > 1 { // a branch may have others
			v.Classes, v.Quantiles = nil, nil
		}
		if v.Features, err = features(v.front.Raw); err != nil {
			return nil, err
		}
	}
	return v, v.mounts()
}

// ident tells that a name is one of the spec language.
func ident(s string) bool {
	for i, r := range s {
		if r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') || i == 0 && (r == '_' || r <= '9') {
			return false
		}
	}
	return s != ""
}

// front is the signature of the service as a whole, as it has it when it serves. It is
// nil where a model has none.
func front(s *service.Service, signatures map[service.Ref]*bundle.Signature) (*bundle.Signature, error) {
	var sigs []*bundle.Signature
	for _, st := range s.Steps {
		sigs = append(sigs, signatures[st.Model])
	}
	if len(s.Steps) == 0 {
		for _, b := range s.Split {
			sigs = append(sigs, signatures[b.Model])
		}
	}
	if len(sigs) == 0 {
		return nil, errors.New("the service has no model")
	}
	sig, errs := typed.Compose(s, sigs)
	return sig, errors.Join(errs...)
}

// maxTexts is the most texts that clients list as a feature's type.
const maxTexts = 64

// named reports the first feature whose name no client can carry. A tag of Go's
// encoding/json has the least choice: letters, digits, and these of ASCII.
func named(raw []lower.Field) error {
	for _, f := range raw {
		odd := func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && (r < ' ' || r > '~' || strings.ContainsRune("\"',\\`", r))
		}
		if f.Name == "" || !utf8.ValidString(f.Name) || strings.ContainsFunc(f.Name, odd) {
			return fmt.Errorf("clients cannot carry a feature of the name %q", f.Name)
		}
	}
	return nil
}

func features(raw []lower.Field) ([]feature, error) {
	names := make([]string, len(raw))
	for i, f := range raw {
		names[i] = f.Name
	}
	goIDs, pyIDs, tsIDs := goStyle.distinct(names), pyStyle.distinct(names), tsStyle.distinct(names)
	out := make([]feature, len(raw))
	for i, f := range raw {
		switch f.Type {
		case types.Bool, types.Int, types.Float, types.String, types.Timestamp:
		default:
			return nil, fmt.Errorf("clients have no type for %s, which is %q", f.Name, f.Type)
		}
		out[i] = feature{Name: f.Name, Type: f.Type, Nullable: f.Nullable, Go: goIDs[i], Py: pyIDs[i], TS: tsIDs[i], Doc: describe(f)}
		if f.Type != types.String || len(f.In) == 0 || len(f.In) > maxTexts {
			continue
		}
		for _, x := range f.In {
			text, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%s may be %v, which is no text", f.Name, x)
			}
			out[i].Texts = append(out[i].Texts, text)
		}
	}
	return out, nil
}

// describe tells what a feature may be.
func describe(f lower.Field) string {
	s := f.Name + ": " + string(f.Type)
	if f.Nullable {
		s += ", may be missing"
	}
	num := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	switch {
	case f.Min != nil && f.Max != nil:
		s += ", " + num(*f.Min) + " to " + num(*f.Max)
	case f.Min != nil:
		s += ", at least " + num(*f.Min)
	case f.Max != nil:
		s += ", at most " + num(*f.Max)
	}
	if len(f.In) > 0 && len(f.In) <= maxTexts {
		var in []string
		for _, x := range f.In {
			if text, ok := x.(string); ok {
				in = append(in, strconv.Quote(text))
			} else {
				in = append(in, fmt.Sprint(x))
			}
		}
		s += ", one of " + strings.Join(in, ", ")
	}
	return s
}

// mounts finds where secrets come from and what has to be writable.
func (v *view) mounts() error {
	s := v.in.Service
	keys := map[string]bool{}
	add := func(volume, key, file string) {
		if file == "" || slices.ContainsFunc(v.Mounts, func(m mount) bool { return m.Path == inWorkDir(file) }) {
			return
		}
		unique := key
		for n := 2; keys[volume+" "+unique]; n++ {
			unique = fmt.Sprintf("%s-%d", key, n)
		}
		keys[volume+" "+unique] = true
		v.Mounts = append(v.Mounts, mount{volume, unique, inWorkDir(file)})
	}
	var refs []string
	if s.Auth != nil {
		refs = slices.Concat(s.Auth.Bearer, s.Auth.APIKey)
	}
	if s.Log != nil && s.Log.SASL != nil {
		refs = append(refs, s.Log.SASL.Password)
	}
	for _, ref := range refs {
		if name, ok := strings.CutPrefix(ref, "env:"); ok {
			if !ident(strings.ReplaceAll(name, "_", "x")) {
				return errors.New("the variable of a secret is letters, digits and underscores, and begins with no digit")
			}
			if !slices.Contains(v.Secrets, name) {
				v.Secrets = append(v.Secrets, name)
			}
		} else if file, ok := strings.CutPrefix(ref, "file:"); ok {
			add("secrets", secretKey(file), file)
		} else {
			return errors.New("a secret is neither env:NAME nor file:PATH")
		}
	}
	slices.Sort(v.Secrets)
	if t := s.TLS; t != nil {
		add("tls", "tls.crt", t.Cert)
		add("tls", "tls.key", t.Key)
		add("tls", "ca.crt", t.ClientCA)
	}
	if s.Log != nil && s.Log.TLS != nil {
		add("kafka", "tls.crt", s.Log.TLS.Cert)
		add("kafka", "tls.key", s.Log.TLS.Key)
		add("kafka", "ca.crt", s.Log.TLS.CA)
	}
	if s.Log != nil && s.Log.Dir != "" {
		v.LogDir = inWorkDir(s.Log.Dir)
	}
	for _, m := range append([]mount{{Path: v.LogDir}}, v.Mounts...) {
		if strings.ContainsFunc(m.Path, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`$:"\\`, r) }) {
			return fmt.Errorf("a container has no use for the path %q", m.Path)
		}
	}
	for _, m := range v.Mounts {
		i := slices.IndexFunc(v.Dirs, func(d mountDir) bool { return d.Path == path.Dir(m.Path) })
		if i < 0 {
			i = len(v.Dirs)
			v.Dirs = append(v.Dirs, mountDir{Path: path.Dir(m.Path)})
		}
		v.Dirs[i].Files = append(v.Dirs[i].Files, m)
	}
	return nil
}

func inWorkDir(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(WorkDir, p)
}

// secretKey is the name of a file as the key of a Kubernetes secret.
func secretKey(file string) string {
	key := strings.Map(func(r rune) rune {
		if r < 0x80 && (strings.ContainsRune("-._", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, path.Base(file))
	return key
}

// WorkDir is the folder that the program works in.
func (v *view) WorkDir() string { return WorkDir }

// GoPackage is the package's name in Go, and its folder's: no keyword, and none that
// the go command would not let others import.
func (v *view) GoPackage() string {
	id := strings.ReplaceAll(v.Package, "_", "")
	if token.IsKeyword(id) || id == "main" || id == "internal" || id == "vendor" || id == "testdata" {
		id += "client"
	}
	return id
}

// MinReplicas and MaxReplicas are at least 1.
func (v *view) MinReplicas() int { return max(1, v.in.Service.Replicas.Min) }

// MaxReplicas is at least MinReplicas.
func (v *view) MaxReplicas() int { return max(v.MinReplicas(), v.in.Service.Replicas.Max) }

// Fixed tells that there is nothing to scale.
func (v *view) Fixed() bool { return v.MinReplicas() == v.MaxReplicas() }

// CPU is the number of cores of a replica.
func (v *view) CPU() int { return max(1, v.in.Service.CPU) }

// Memory is that of a replica in Mi, rounded up.
func (v *view) Memory() int64 {
	if v.in.Service.Memory <= 0 {
		return 512
	}
	return (v.in.Service.Memory + 1<<20 - 1) >> 20
}

// GPU tells that the service runs on one.
func (v *view) GPU() bool { return slices.Contains(v.in.Service.Providers, "cuda") || v.TensorRT() }

// TensorRT tells that the service asks for it.
func (v *view) TensorRT() bool { return slices.Contains(v.in.Service.Providers, "tensorrt") }

// Concurrent is the most requests that a replica works on; 0: any number.
func (v *view) Concurrent() int { return max(0, v.in.Service.Limits.Concurrent) }

// DeadlineSeconds is the most that an answer takes once the request is read, rounded up.
func (v *view) DeadlineSeconds() int {
	return max(1, int(math.Ceil(v.in.Service.Deadline.Std().Seconds())))
}

// RouteSeconds is how long what stands in front waits for an answer, from the request's
// begin: Knative takes no more than 600.
func (v *view) RouteSeconds() int {
	read := int(math.Ceil(v.in.Service.Limits.Read.Std().Seconds()))
	return min(600, read+v.DeadlineSeconds()+1)
}

// TimeoutMillis is the same in milliseconds, with a second for the way there and back.
func (v *view) TimeoutMillis() int64 {
	return int64(math.Ceil(float64(v.in.Service.Deadline.Std())/float64(time.Millisecond))) + 1000
}

// UnlistSeconds is how long a replica answers on after it was told to go.
func (v *view) UnlistSeconds() int { return unlistSeconds }

// GraceSeconds is how long a replica may take to go.
func (v *view) GraceSeconds() int { return unlistSeconds + v.DeadlineSeconds() + spareSeconds }

// TLS tells that the service ends TLS itself.
func (v *view) TLS() bool { return v.in.Service.TLS != nil }

// HasMounts tells that a secret of the name has files to mount.
func (v *view) HasMounts(volume string) bool {
	return slices.ContainsFunc(v.Mounts, func(m mount) bool { return m.Volume == volume })
}

// Bearer tells that callers show who they are by a token.
func (v *view) Bearer() bool { return v.in.Service.Auth != nil && len(v.in.Service.Auth.Bearer) > 0 }

// APIKey tells that they do by a key.
func (v *view) APIKey() bool { return v.in.Service.Auth != nil && len(v.in.Service.Auth.APIKey) > 0 }

// Literals tells that a feature has listed texts.
func (v *view) Literals() bool {
	return slices.ContainsFunc(v.Features, func(f feature) bool { return f.Texts != nil })
}

// Binary tells that the task is true or false.
func (v *view) Binary() bool { return v.Task == kind.Binary }

// Multiclass tells that the task is one of several classes.
func (v *view) Multiclass() bool { return v.Task == kind.Multiclass }

// Multilabel tells that the task is any of several labels.
func (v *view) Multilabel() bool { return v.Task == kind.Multilabel }

// Quantile tells that the task is quantiles.
func (v *view) Quantile() bool { return v.Task == kind.Quantile }

// Anomaly tells that the task is a score; one that is none of these is a number.
func (v *view) Anomaly() bool { return v.Task == kind.Anomaly }

// Threshold is what decides, in words.
func (v *view) Threshold() string {
	if v.in.Service.Threshold == 0 {
		return "the threshold of the model's version"
	}
	return "the service's threshold"
}

// LambdaMemory is in MiB: a core comes with 1769 of them.
func (v *view) LambdaMemory() int64 { return min(10240, max(v.Memory(), int64(v.CPU())*1769)) }

// LambdaTimeout is in seconds.
func (v *view) LambdaTimeout() int { return min(900, v.DeadlineSeconds()+1) }

// GoType is the feature's type in Go: a pointer where it may be missing.
func (f feature) GoType() string {
	t := map[types.Type]string{types.Bool: "bool", types.Int: "int64", types.Float: "float64", types.String: "string", types.Timestamp: "time.Time"}[f.Type]
	if f.Nullable {
		return "*" + t
	}
	return t
}

// PyType is the feature's type in Python.
func (f feature) PyType() (string, error) {
	t := map[types.Type]string{types.Bool: "bool", types.Int: "int", types.Float: "float", types.String: "str", types.Timestamp: "datetime"}[f.Type]
	if f.Texts != nil {
		texts, err := f.list(", ")
		if err != nil {
			return "", err
		}
		t = "Literal[" + texts + "]"
	}
	if f.Nullable {
		return "Optional[" + t + "] = None", nil
	}
	return t, nil
}

// TSType is the feature's type in TypeScript.
func (f feature) TSType() (string, error) {
	t := map[types.Type]string{types.Bool: "boolean", types.Int: "number", types.Float: "number", types.String: "string", types.Timestamp: "Date"}[f.Type]
	if f.Texts != nil {
		texts, err := f.list(" | ")
		if err != nil {
			return "", err
		}
		t = texts
	}
	if f.Nullable {
		t += " | null"
	}
	return t, nil
}

func (f feature) list(sep string) (string, error) {
	quoted := make([]string, len(f.Texts))
	for i, t := range f.Texts {
		q, err := quote(t)
		if err != nil {
			return "", err
		}
		quoted[i] = q
	}
	return strings.Join(quoted, sep), nil
}
