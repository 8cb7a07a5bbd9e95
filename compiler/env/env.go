// Package env reads environment files: HCL that says where a system runs. It is
// the only importer of hcl.
package env

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
)

// Environment says where steps run and what they leave is kept.
type Environment struct {
	Name      string
	Dir       string // of the spec
	Runners   []Runner
	Artifacts string // a folder, or a URL of s3://
	State     string // an SQLite file, or a URL of postgres://
	// Uses are the environment variables that the file asks for.
	Uses []string
	// Files are the environment's own files, by the name that positions carry.
	Files map[string][]byte
}

// The kinds of runners: child processes of this machine, and containers on a
// Dagger engine.
const (
	LocalKind  = "local"
	DaggerKind = "dagger"
)

// Runner is a machine that runs steps.
type Runner struct {
	Name string
	Kind string
	// Engine is the address of a Dagger engine; "" lets the SDK provide one.
	Engine     string
	CPUs       int
	Memory     int64
	GPUs       int
	GPUKind    string
	Labels     map[string]string
	USDPerHour float64
	// Concurrency is the most steps at once; 0: as many as there is room for.
	Concurrency int
	Base        Base
	At          diag.Range
}

// Base is the root file system that a runner's containers start from: an image of
// a registry, an OCI archive, or, where both are empty, one made of this host's
// own libraries.
type Base struct {
	Image   string
	Archive string // absolute path
}

// String is the base as people write it.
func (b Base) String() string {
	switch {
	case b.Image != "":
		return b.Image
	case b.Archive != "":
		return archiveScheme + b.Archive
	}
	return hostBase
}

const (
	hostBase      = "host"
	archiveScheme = "oci-archive:"
)

type file struct {
	Runners   []runner  `hcl:"runner,block"`
	Artifacts *location `hcl:"artifacts,block"`
	State     *location `hcl:"state,block"`
}

type runner struct {
	Name        string            `hcl:"name,label"`
	Kind        string            `hcl:"kind"`
	CPUs        *int              `hcl:"cpus"`
	Memory      *string           `hcl:"memory"`
	USDPerHour  *float64          `hcl:"usd_per_hour"`
	Engine      *string           `hcl:"engine"`
	Base        *string           `hcl:"base"`
	Concurrency *int              `hcl:"concurrency"`
	Labels      map[string]string `hcl:"labels,optional"`
	GPU         *gpu              `hcl:"gpu,block"`
	Range       hcl.Range         `hcl:",def_range"`
}

type gpu struct {
	Kind  string `hcl:"kind"`
	Count *int   `hcl:"count"`
}

type location struct {
	URL   string    `hcl:"url"`
	Range hcl.Range `hcl:",def_range"`
}

type variable struct {
	Name    string         `hcl:"name,label"`
	Type    hcl.Expression `hcl:"type,optional"`
	Default hcl.Expression `hcl:"default,optional"`
	Range   hcl.Range      `hcl:",def_range"`
}

// Local is the environment that needs no file: this machine, and .mlc below dir.
func Local(dir string) *Environment {
	return &Environment{Name: "local", Dir: dir, Runners: []Runner{localRunner()},
		Artifacts: filepath.Join(dir, ".mlc", "artifacts"), State: filepath.Join(dir, ".mlc", "state.db")}
}

// Beside is the path of what this machine keeps for the environment: beside a
// state that is a file, else in .mlc.
func (e *Environment) Beside(what string) string {
	if strings.Contains(e.State, "://") {
		return filepath.Join(e.Dir, ".mlc", e.Name+"."+what)
	}
	return e.State + "." + what
}

func localRunner() Runner {
	return Runner{Name: "local", Kind: LocalKind, CPUs: runtime.NumCPU(), Memory: machineMemory()}
}

// Load reads NAME.mlc.hcl in dir, or Local where name is "local" and there is no
// such file. Where the list has errors the environment serves positions only. vars are the values of --var; MLC_VAR_x comes after them.
func Load(dir, name string, vars map[string]string) (*Environment, diag.List) {
	var list diag.List
	path := filepath.Join(dir, name+".mlc.hcl")
	src, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		if name == "local" {
			return Local(dir), nil
		}
		what := fmt.Sprintf("no environment %q: there is no %s.mlc.hcl", name, name)
		if found, _ := filepath.Glob(filepath.Join(dir, "*.mlc.hcl")); len(found) > 0 {
			names := make([]string, len(found))
			for i, f := range found {
				names[i] = strings.TrimSuffix(filepath.Base(f), ".mlc.hcl")
			}
			what += diag.Suggest(name, names)
		}
		list.Add(diag.Range{}, diag.EnvMissing, "%s", what).Because("", "write the file, or leave out --env to run on this machine")
		return nil, list
	}
	if err != nil {
		list.Add(diag.Range{}, diag.EnvMissing, "%v", err)
		return nil, list
	}
	e := Local(dir)
	base := filepath.Base(path)
	e.Name, e.Files = name, map[string][]byte{base: src}
	f, diags := hclsyntax.ParseConfig(src, base, hcl.InitialPos)
	if diags.HasErrors() {
		return e, convertAll(diags, diag.EnvSyntax)
	}
	var head struct {
		Variables []variable `hcl:"variable,block"`
		Rest      hcl.Body   `hcl:",remain"`
	}
	diags = gohcl.DecodeBody(f.Body, nil, &head)
	values, more := e.variables(head.Variables, vars)
	diags = append(diags, more...)
	var body file
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}}
	diags = append(diags, gohcl.DecodeBody(head.Rest, ctx, &body)...)
	list = convertAll(diags, diag.EnvValue)
	if list.HasErrors() {
		return e, list
	}
	if len(body.Runners) > 0 {
		e.Runners = nil
	}
	seen := map[string]bool{}
	for _, r := range body.Runners {
		out := localRunner()
		out.Name, out.Kind, out.At = r.Name, r.Kind, rangeOf(r.Range)
		if seen[r.Name] {
			list.Add(out.At, diag.EnvValue, "runner %q is declared twice", r.Name)
		}
		seen[r.Name] = true
		switch r.Kind {
		case LocalKind:
			if r.Engine != nil || r.Base != nil {
				list.Add(out.At, diag.EnvValue, "runner %q is local and names an engine or a base", r.Name).Because("its steps are child processes of this machine", `write kind = "dagger", or leave them out`)
			}
		case DaggerKind:
			out.engine(dir, r, &list)
		default:
			list.Add(out.At, diag.EnvValue, "runner kind %q is not supported%s", r.Kind, diag.Suggest(r.Kind, []string{LocalKind, DaggerKind})).Because("", `write kind = "local" or kind = "dagger"`)
		}
		if r.GPU != nil {
			out.GPUKind, out.GPUs = r.GPU.Kind, 1
			if r.GPU.Count != nil {
				out.GPUs = *r.GPU.Count
			}
			if out.GPUs < 1 {
				list.Add(out.At, diag.EnvValue, "runner %q has a gpu block and %d gpus", r.Name, out.GPUs).Because("", "leave out the block, or count at least 1")
			}
		}
		if r.Concurrency != nil {
			if out.Concurrency = *r.Concurrency; out.Concurrency < 1 {
				list.Add(out.At, diag.EnvValue, "runner %q runs %d steps at once", r.Name, out.Concurrency).Because("nothing could start on it", "")
			}
		}
		out.Labels = r.Labels
		if r.CPUs != nil {
			if out.CPUs = *r.CPUs; out.CPUs < 1 {
				list.Add(out.At, diag.EnvValue, "runner %q has %d cpus", r.Name, out.CPUs).Because("a step needs at least one", "")
			}
		}
		if r.Memory != nil {
			n, err := types.ParseSize(*r.Memory)
			if err != nil {
				list.Add(out.At, diag.EnvValue, "runner %q: memory: %v", r.Name, err)
			}
			out.Memory = n
		}
		if r.USDPerHour != nil {
			if out.USDPerHour = *r.USDPerHour; out.USDPerHour < 0 {
				list.Add(out.At, diag.EnvValue, "runner %q costs less than nothing", r.Name)
			}
		}
		e.Runners = append(e.Runners, out)
	}
	e.Artifacts = e.locate(dir, body.Artifacts, "file://", []string{"s3://"}, e.Artifacts, &list)
	e.State = e.locate(dir, body.State, "sqlite://", []string{"postgres://", "postgresql://"}, e.State, &list)
	return e, list
}

// schemes are the addresses of engines that Dagger understands.
var schemes = []string{"unix", "tcp", "docker-container", "docker-image", "container", "image", "podman-container", "kube-pod", "ssh"}

// engine reads what only a dagger runner has.
func (r *Runner) engine(dir string, written runner, list *diag.List) {
	if written.Engine != nil && *written.Engine != "" {
		r.Engine = *written.Engine
		scheme, rest, ok := strings.Cut(r.Engine, "://")
		if !ok || rest == "" || !slices.Contains(schemes, scheme) {
			list.Add(r.At, diag.EnvValue, "engine %q of runner %q is no address%s", r.Engine, written.Name, diag.Suggest(scheme, schemes)).
				Because("", "write it as unix:///run/dagger/engine.sock, tcp://host:port, docker-container://name or kube-pod://name?namespace=…; leave it out and the SDK provides one")
		}
	}
	if written.Base == nil || *written.Base == hostBase {
		return
	}
	if path, ok := strings.CutPrefix(*written.Base, archiveScheme); ok {
		if r.Base.Archive = path; !filepath.IsAbs(path) {
			r.Base.Archive = filepath.Join(dir, path)
		}
		if _, err := os.Stat(r.Base.Archive); err != nil {
			list.Add(r.At, diag.EnvValue, "base of runner %q: %v", written.Name, err).Because("", "write the archive with `docker save`, `skopeo copy` or `mlc build`")
		}
		return
	}
	if r.Base.Image = *written.Base; r.Base.Image == "" {
		list.Add(r.At, diag.EnvValue, "runner %q has an empty base", written.Name).Because("", `write base = "host", an image, or "oci-archive:PATH"`)
	}
}

// Place returns the cheapest runner that has what a step needs, the first
// declared of equals, or what is missing. Only what a user asked for is binding
// as to cpus and memory: for other steps, where none has them, the greatest is
// taken. Runners in except are passed over.
func (e *Environment) Place(n plan.Needs, except map[string]bool) (*Runner, string) {
	var best, greatest *Runner
	var missing []string
	for i := range e.Runners {
		r := &e.Runners[i]
		if except[r.Name] {
			missing = append(missing, r.Name+" is out of reach")
			continue
		}
		if why := r.lacks(n); why != "" {
			missing = append(missing, r.Name+" "+why)
			continue
		}
		if greatest == nil || r.Memory > greatest.Memory {
			greatest = r
		}
		switch {
		case r.CPUs < n.CPU:
			missing = append(missing, fmt.Sprintf("%s has %d cpus, not %d", r.Name, r.CPUs, n.CPU))
		case r.Memory < n.Memory:
			missing = append(missing, fmt.Sprintf("%s has %s of memory, not %s", r.Name, types.FormatSize(r.Memory), types.FormatSize(n.Memory)))
		case best == nil || r.USDPerHour < best.USDPerHour:
			best = r
		}
	}
	if best == nil && !n.Strict {
		best = greatest
	}
	if best == nil {
		return nil, strings.Join(missing, ", ")
	}
	return best, ""
}

// lacks says what of the things that cannot be done without a runner has not.
func (r *Runner) lacks(n plan.Needs) string {
	switch {
	case n.Container && r.Kind == LocalKind:
		return "runs no containers"
	case n.GPUs > r.GPUs:
		return fmt.Sprintf("has %d gpus, not %d", r.GPUs, n.GPUs)
	case n.GPUs > 0 && n.GPUKind != "" && n.GPUKind != r.GPUKind:
		return fmt.Sprintf("has a gpu of kind %q, not %q", r.GPUKind, n.GPUKind)
	}
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		if r.Labels[k] != n.Labels[k] {
			return fmt.Sprintf("has no label %s = %q", k, n.Labels[k])
		}
	}
	return ""
}

// locate turns a URL into a path, relative ones from dir, where it has the scheme
// of files, and leaves it where it has one of the others.
func (e *Environment) locate(dir string, l *location, files string, others []string, fallback string, list *diag.List) string {
	if l == nil {
		return fallback
	}
	for _, o := range others {
		if rest, ok := strings.CutPrefix(l.URL, o); ok && rest != "" {
			// What is wrong is told without the URL, which may hold a password.
			if u, err := url.Parse(l.URL); err != nil {
				list.Add(rangeOf(l.Range), diag.EnvValue, "this cannot be read as a URL").Because("", "write signs in a password by their codes: / as %2F, @ as %40, ? as %3F, # as %23, % as %25, a blank as %20")
			} else if _, err := url.ParseQuery(u.RawQuery); err != nil {
				list.Add(rangeOf(l.Range), diag.EnvValue, "the options of this URL cannot be read").Because("what stands there would be passed over", "write name=value, with & between options")
			}
			return l.URL
		}
	}
	path, ok := strings.CutPrefix(l.URL, files)
	if !ok || path == "" {
		scheme, _, _ := strings.Cut(l.URL, "://") // the rest may hold a password
		list.Add(rangeOf(l.Range), diag.EnvValue, "a url of %q is not supported here", scheme).Because("", fmt.Sprintf("write %s./path or %s…", files, strings.Join(others, "…, ")))
		return fallback
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return path
}

// variables gives each variable its value: --var, MLC_VAR_name, default.
func (e *Environment) variables(decls []variable, vars map[string]string) (map[string]cty.Value, hcl.Diagnostics) {
	out := map[string]cty.Value{}
	var diags hcl.Diagnostics
	ctx := &hcl.EvalContext{Functions: map[string]function.Function{"env": e.envFunc()}}
	names := map[string]bool{}
	for _, d := range decls {
		names[d.Name] = true
		want := cty.String
		out[d.Name] = cty.DynamicVal // of a variable in error, so that its uses are not
		if d.Type != nil && d.Type.Range().Start != d.Type.Range().End {
			t, ds := typeexpr.TypeConstraint(d.Type)
			if diags = append(diags, ds...); ds.HasErrors() {
				continue
			}
			want = t
		}
		text, given := vars[d.Name]
		if !given {
			text, given = os.LookupEnv("MLC_VAR_" + d.Name)
		}
		v := cty.NilVal
		if given {
			v = cty.StringVal(text)
		} else if d.Default != nil {
			dv, ds := d.Default.Value(ctx)
			if diags = append(diags, ds...); ds.HasErrors() {
				continue
			}
			v = dv
		}
		if v == cty.NilVal || v.IsNull() {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("variable %q has no value", d.Name),
				Detail: fmt.Sprintf("give it with --var %s=…, MLC_VAR_%s or a default", d.Name, d.Name), Subject: d.Range.Ptr()})
			continue
		}
		got, err := convert.Convert(v, want)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("variable %q: %v", d.Name, err), Subject: d.Range.Ptr()})
			continue
		}
		out[d.Name] = got
	}
	var unknown []string
	for name := range vars {
		if !names[name] {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	for _, name := range unknown {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("--var %s: the environment declares no such variable", name)})
	}
	return out, diags
}

// envFunc is env(name) or env(name, otherwise), allowed in variable defaults
// only, so that a file's inputs can be seen.
func (e *Environment) envFunc() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "otherwise", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			e.Uses = append(e.Uses, args[0].AsString())
			if v, ok := os.LookupEnv(args[0].AsString()); ok {
				return cty.StringVal(v), nil
			}
			if len(args) > 1 {
				return args[1], nil
			}
			return cty.NilVal, fmt.Errorf("the environment variable %s is not set; give env a second argument to fall back on", args[0].AsString())
		},
	})
}

func rangeOf(r hcl.Range) diag.Range {
	return diag.Range{File: r.Filename, Start: r.Start.Byte, End: r.End.Byte}
}

// convertAll makes ours of HCL's diagnostics, without the complaints about unknown
// values that follow a failed expression.
func convertAll(diags hcl.Diagnostics, code diag.Code) diag.List {
	var list diag.List
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		at := diag.Range{}
		if d.Subject != nil {
			at = rangeOf(*d.Subject)
		}
		if strings.Contains(d.Detail, "must be known") {
			continue // what it depends on has been reported
		}
		what := strings.ToLower(d.Summary[:1]) + d.Summary[1:]
		list.Add(at, code, "%s", strings.TrimSuffix(what, ".")).Because(strings.TrimSuffix(d.Detail, "."), "")
	}
	list.Sort()
	return list
}
