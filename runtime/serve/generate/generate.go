// Package generate makes what a team keeps of a service in its own repository:
// descriptions of its API, typed clients, and the files that deploy it. A target is
// a folder of templates, or a function, and a line in the one table.
package generate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve/typed"
)

// Input is all that the files follow from.
type Input struct {
	Service *service.Service
	// Signatures are those of the bundles that the service takes. A reference that
	// is absent is of a model that mlc did not make: it has no typed API.
	Signatures map[service.Ref]*bundle.Signature
	// Image is the reference of the service's image, as mlc build --push has it. The
	// image's program listens on the ports of this package, works in WorkDir, and
	// writes nothing but /tmp and the folder of the prediction log.
	Image string
	// Version is mlc's own.
	Version string
	// Targets are those wanted; none: all that fit the service.
	Targets []string
}

// The ports that a service listens on unless it is told otherwise, and the folder
// that it works in when it runs from its image.
const (
	PortHTTP    = 8000
	PortGRPC    = 8001
	PortMetrics = 8002
	WorkDir     = "/data"
)

// Target is a family of files.
type Target struct {
	Name string
	Doc  string
	// fits says why a service cannot have it; nil: every service can.
	fits  func(*view) error
	files func(*view) (map[string][]byte, error)
}

// targets is the one table, in the order of Targets.
var targets = []Target{
	{"openapi", "OpenAPI 3.1 of the typed API", hasAPI, openAPI},
	{"proto", "the typed API as a gRPC service", hasAPI, protoFile},
	{"clients/go", "client in Go, on net/http", all(hasAPI, carried), folder("clients/go")},
	{"clients/python", "client in Python, on the standard library", all(hasAPI, carried), folder("clients/python")},
	{"clients/typescript", "client in TypeScript, on fetch", all(hasAPI, carried), folder("clients/typescript")},
	{"docker", "Dockerfile for what a team adds to the image, and a Compose file", imaged, folder("docker")},
	{"kubernetes", "Deployment, Service, HorizontalPodAutoscaler, PodDisruptionBudget, NetworkPolicy", all(rooted, imaged), kubernetes},
	{"kserve", "KServe InferenceService, protocol v2", all(plain, rooted, imaged), folder("kserve")},
	{"triton", "model repository for Triton Inference Server", signed, triton},
	{"knative", "Knative Services, one for HTTP and one for gRPC", all(plain, rooted, imaged), folder("knative")},
	{"lambda", "AWS Lambda by the Lambda Web Adapter", all(plain, imaged), folder("lambda")},
}

// Targets lists what can be generated.
func Targets() []Target { return slices.Clone(targets) }

// Owns reports whether a file that Files made, by its path, is the target's.
func (t Target) Owns(path string) bool {
	return strings.HasPrefix(path, t.Name+"/") || strings.HasPrefix(path, t.Name+".")
}

// Left is a target that Files leaves out, and why.
type Left struct {
	Target Target
	Why    error
}

// ErrNoImage is why a target is left out that a service could have.
var ErrNoImage = errors.New("it takes the reference of the service's image")

// LeftOut lists the targets that Files leaves out because they do not fit the service.
func LeftOut(in Input) ([]Left, error) {
	v, err := newView(in)
	if err != nil || len(in.Targets) > 0 {
		return nil, err
	}
	var out []Left
	for _, t := range targets {
		if t.fits == nil {
			continue
		}
		if err := t.fits(v); err != nil {
			out = append(out, Left{t, err})
		}
	}
	return out, nil
}

// Files makes the files of the targets, by slash-separated path. The same input
// gives the same bytes. A target that is asked for by name and does not fit the
// service is an error.
func Files(in Input) (map[string][]byte, error) {
	v, err := newView(in)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, name := range in.Targets {
		if !slices.ContainsFunc(targets, func(t Target) bool { return t.Name == name }) {
			return nil, fmt.Errorf("no target %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, t := range targets {
		asked := slices.Contains(in.Targets, t.Name)
		if len(in.Targets) > 0 && !asked {
			continue
		}
		if t.fits != nil {
			if err := t.fits(v); err != nil && asked {
				return nil, fmt.Errorf("%s: %w", t.Name, err)
			} else if err != nil {
				continue
			}
		}
		files, err := t.files(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		maps.Copy(out, files)
	}
	return out, nil
}

func names() []string {
	out := make([]string, len(targets))
	for i, t := range targets {
		out[i] = t.Name
	}
	return out
}

func all(checks ...func(*view) error) func(*view) error {
	return func(v *view) error {
		for _, check := range checks {
			if err := check(v); err != nil {
				return err
			}
		}
		return nil
	}
}

// hasAPI asks for a typed API.
func hasAPI(v *view) error {
	if v.front == nil {
		return errors.New("the service has no typed API, because mlc did not make its model")
	}
	return nil
}

// carried asks that clients can name every feature.
func carried(v *view) error { return named(v.front.Raw) }

// signed asks that every model's tensors are known.
func signed(v *view) error {
	for _, r := range v.in.Service.Models() {
		if v.in.Signatures[r] == nil {
			return fmt.Errorf("the tensors of %s are not known, because mlc did not make it", r)
		}
	}
	return nil
}

// imaged asks for an image's reference.
func imaged(v *view) error {
	if v.Image == "" {
		return ErrNoImage
	}
	return nil
}

// plain asks for a service without TLS of its own.
func plain(v *view) error {
	if v.in.Service.TLS != nil {
		return errors.New("what stands in front of the service there ends TLS itself and speaks plain HTTP to it; leave tls out of the service")
	}
	return nil
}

// rooted asks that nothing is mounted over what the image needs, or twice.
func rooted(v *view) error {
	taken := []string{"/tmp"}
	if v.LogDir != "" && v.LogDir != "/tmp" {
		taken = append(taken, v.LogDir)
	}
	for _, d := range v.Dirs {
		if slices.Contains(taken, d.Path) || slices.Contains([]string{"/", "/etc", WorkDir}, d.Path) {
			return fmt.Errorf("%s is mounted with all its folder, which has other uses; give secrets and certificates a folder of their own", d.Files[0].Path)
		}
	}
	if slices.Contains([]string{"/", "/etc", WorkDir}, v.LogDir) {
		return fmt.Errorf("the prediction log would hide %s; give it a folder of its own", v.LogDir)
	}
	return nil
}

func openAPI(v *view) (map[string][]byte, error) {
	b, err := typed.OpenAPI(v.in.Service, v.front)
	return map[string][]byte{"openapi.json": b}, err
}

func protoFile(v *view) (map[string][]byte, error) {
	s, err := typed.Proto(v.in.Service, v.front)
	return map[string][]byte{"proto/" + v.Package + ".proto": []byte(s)}, err
}

// kubernetes leaves out what a fixed number of replicas does not need.
func kubernetes(v *view) (map[string][]byte, error) {
	files, err := folder("kubernetes")(v)
	if v.Fixed() {
		delete(files, "kubernetes/hpa.yaml")
	}
	return files, err
}
