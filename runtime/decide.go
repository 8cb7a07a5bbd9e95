// Package runtime decides which steps have to run, runs them, and keeps what
// they make.
package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/state"
)

// Action is what would happen to a step.
type Action string

// A step runs, is cached, or may do either: that depends on whether what comes
// before it makes something new.
const (
	WillRun Action = "run"
	Cached  Action = "cached"
	Maybe   Action = "maybe"
)

// Decision is what would happen to one step, and why.
type Decision struct {
	ID      string      `json:"id"`
	Action  Action      `json:"action"`
	Key     plan.Digest `json:"key,omitempty"`
	Reasons []Reason    `json:"reasons,omitempty"`
	// Seconds it took the last time; 0: unknown.
	Seconds float64 `json:"seconds,omitempty"`
	USD     float64 `json:"usd,omitempty"`
	Runner  string  `json:"runner,omitempty"` // "" for what mlc does itself
	// Base is the root file system of the step's container, where it has one.
	Base string `json:"base,omitempty"`

	outputs map[string]plan.Digest
	runner  *env.Runner
	engines string // that compute it
	image   string // of the user's container, by digest
}

// Place is the runner and the base, for people.
func (d Decision) Place() string {
	if d.Base == "" {
		return d.Runner
	}
	return d.Runner + " (" + d.Base + ")"
}

// Reason is one link of the chain that explains a Decision: it ends at a path of
// the spec, at a file, or at another step.
type Reason struct {
	Text string `json:"text"`
	Path string `json:"path,omitempty"` // in the spec
	Step string `json:"step,omitempty"`
}

// System is an opened place to run: the environment's state and store.
type System struct {
	Dir   string // the spec's folder; files of sources start there
	Env   *env.Environment
	State *state.DB // nil where nothing has run yet
	Store *artifact.Store
	// Engines names what computes, for step keys.
	Engines string
	// Resolve finds the digest of an image in its registry.
	Resolve func(ctx context.Context, ref string) (string, error)

	// down are the runners that cannot be reached.
	down map[string]bool
}

// Open opens the state and store of an environment. To only look, ask for
// readOnly: then State is nil where nothing has run yet. told hears of retries.
func Open(ctx context.Context, dir string, e *env.Environment, readOnly bool, told func(string)) (*System, error) {
	s := &System{Dir: dir, Env: e}
	o := state.Options{Location: e.State, Files: e.Beside("files.db"), Told: told}
	var err error
	if readOnly {
		s.State, _, err = state.OpenExisting(ctx, o)
	} else {
		s.State, err = state.Open(ctx, o)
	}
	if err != nil || readOnly && s.State == nil {
		return s, err
	}
	if strings.Contains(e.Artifacts, "://") {
		s.Store, err = artifact.OpenRemote(ctx, e.Artifacts, e.Beside("cache"), told)
	} else {
		s.Store, err = artifact.Open(e.Artifacts)
	}
	if err != nil {
		return s, errors.Join(err, s.State.Close())
	}
	return s, nil
}

// Close closes the state and the store.
func (s *System) Close() error {
	var errs []error
	if s.State != nil {
		errs = append(errs, s.State.Close())
	}
	if s.Store != nil {
		errs = append(errs, s.Store.Close())
	}
	return errors.Join(errs...)
}

// memory is what the state knew when decisions began.
type memory struct {
	steps map[plan.Digest]state.StepResult
	lasts map[string]state.Last
}

func (s *System) recall() (memory, error) {
	m := memory{map[plan.Digest]state.StepResult{}, map[string]state.Last{}}
	if s.State == nil {
		return m, nil
	}
	var err error
	if m.steps, err = s.State.Steps(); err != nil {
		return m, err
	}
	m.lasts, err = s.State.Lasts()
	return m, err
}

// Decide tells what an apply of the plan would do. It runs nothing and takes no
// lock.
func (s *System) Decide(ctx context.Context, p *plan.Plan) ([]Decision, error) {
	m, err := s.recall()
	if err != nil {
		return nil, err
	}
	out := make([]Decision, len(p.Steps))
	for i := range p.Steps {
		if out[i], err = s.decide(ctx, p, i, out, m); err != nil {
			return nil, StepError{p.Steps[i], err}
		}
	}
	return out, nil
}

// StepError is what keeps a step from being decided.
type StepError struct {
	Step plan.Step
	Err  error
}

// Error is the text of Err.
func (e StepError) Error() string { return e.Err.Error() }

// Unwrap is Err.
func (e StepError) Unwrap() error { return e.Err }

// List tells the error at its place: the argument that it is about, or else the
// step's declaration. at finds a path of the spec.
func (e StepError) List(at func(path string) diag.Range) diag.List {
	var list diag.List
	var faults executor.Faults
	var own diag.Diagnostic
	switch {
	case errors.As(e.Err, &faults):
	case errors.As(e.Err, &own):
		faults = executor.Faults{{Diagnostic: own}}
	default:
		list.Add(at(e.Step.At), diag.StepFailed, "%s failed: %v", e.Step.ID, e.Err).Because("", "what is finished stays finished; apply again to go on")
	}
	for _, f := range faults {
		d := f.Diagnostic
		if !d.At.Known() {
			d.At = at(specPath(e.Step, f.Arg))
		}
		list = append(list, d)
	}
	return list
}

// decide decides step i, given the decisions before it.
func (s *System) decide(ctx context.Context, p *plan.Plan, i int, before []Decision, m memory) (Decision, error) {
	step := p.Steps[i]
	last, ran := m.lasts[step.ID]
	r, missing := s.Env.Place(step.Needs, s.down)
	if r == nil {
		return Decision{ID: step.ID}, diag.Diagnostic{Severity: diag.Error, Code: diag.NoRunner, What: fmt.Sprintf("%s fits no runner of environment %q: %s", step.ID, s.Env.Name, missing),
			Why: "the step could never start", Mend: "ask for less, or declare such a runner in " + s.Env.Name + ".mlc.hcl"}
	}
	d := Decision{ID: step.ID, Seconds: last.Seconds, Runner: r.Name, USD: last.Seconds / 3600 * r.USDPerHour, runner: r}
	if step.Op == lower.OpRegister {
		d.Runner = ""
	} else if r.Kind == env.DaggerKind {
		d.Base = base(step, r)
	}
	// An image that cannot be had is a mistake that a plan tells, though the step's
	// key may not be known yet.
	engines, err := s.engines(ctx, &d, step)
	if err != nil {
		return d, err
	}
	for _, in := range step.Inputs {
		if in.Step >= 0 && before[in.Step].Action != Cached {
			d.Action = Maybe
			d.Reasons = append(d.Reasons, Reason{Text: fmt.Sprintf("reads %s of %s, which %s", in.Output, p.Steps[in.Step].ID, map[Action]string{WillRun: "runs", Maybe: "may run"}[before[in.Step].Action]), Step: p.Steps[in.Step].ID})
		}
	}
	if d.Action == Maybe {
		// A changed argument makes it run whatever comes before.
		if own := changes(step, last); ran && len(own) > 0 {
			d.Action, d.Reasons = WillRun, append(own, d.Reasons...)
		} else if !ran {
			d.Action, d.Reasons = WillRun, append([]Reason{{Text: "has never run", Path: step.At}}, d.Reasons...)
		}
		return d, nil
	}
	digests, err := s.inputs(p, i, before)
	if err != nil {
		return d, err
	}
	d.engines = engines
	d.Key = step.Key(engines, digests)
	if step.Op == lower.OpRegister {
		return s.decideRegister(ctx, d, step, before, digests[0], last)
	}
	if r, ok := m.steps[d.Key]; ok {
		d.outputs = r.Outputs
		d.Action = Cached
		for _, name := range step.Outputs {
			if err := s.Store.Verify(ctx, r.Outputs[name], s.FileDigest); err != nil {
				if !errors.Is(err, artifact.ErrMissing) {
					return d, err
				}
				d.Action = WillRun
				d.Reasons = append(d.Reasons, Reason{Text: err.Error()})
			}
		}
		return d, nil
	}
	d.Action = WillRun
	if !ran {
		d.Reasons = append(d.Reasons, Reason{Text: "has never run", Path: step.At})
		return d, nil
	}
	d.Reasons = append(d.Reasons, changes(step, last)...)
	for k, in := range step.Inputs {
		if digests[k] != last.Inputs[in.Name] {
			if in.Tree != "" {
				d.Reasons = append(d.Reasons, Reason{Text: in.Name + " is another", Path: step.At})
			} else if in.Registered != nil {
				d.Reasons = append(d.Reasons, Reason{Text: in.Registered.String() + " is another version", Path: step.At})
			} else if in.Step < 0 {
				d.Reasons = append(d.Reasons, Reason{Text: oneOf(in.Files) + " changed", Path: step.At})
			} else {
				d.Reasons = append(d.Reasons, Reason{Text: fmt.Sprintf("%s of %s changed", in.Output, p.Steps[in.Step].ID), Step: p.Steps[in.Step].ID})
			}
		}
	}
	if len(d.Reasons) == 0 {
		d.Reasons = append(d.Reasons, Reason{Text: "its result is not in the state", Path: step.At})
	}
	return d, nil
}

// decideRegister finds a version cached when it is registered and was the last
// that this step met with the same arguments: an unchanged repetition must not
// move aliases back that people moved.
func (s *System) decideRegister(ctx context.Context, d Decision, step plan.Step, before []Decision, bundle plan.Digest, last state.Last) (Decision, error) {
	a, err := registerArgs(step)
	if err != nil {
		return d, err
	}
	version := 0
	if s.State != nil {
		if version, err = s.State.Registered(a.Model, bundle); err != nil {
			return d, err
		}
	}
	if version > 0 && last.Key == d.Key {
		d.Action = Cached
		return d, nil
	}
	d.Action = WillRun
	if d.Reasons = changes(step, last); version > 0 && len(d.Reasons) == 0 {
		d.Reasons = []Reason{{Text: fmt.Sprintf("the bundle is that of version %d again", version), Path: step.At}}
	} else if len(d.Reasons) == 0 {
		d.Reasons = []Reason{{Text: "the bundle is not registered", Path: step.At}}
	}
	var missed executor.Faults
	if err := s.gated(ctx, step, before); errors.As(err, &missed) {
		for _, f := range missed {
			d.Reasons = append(d.Reasons, Reason{Text: "it will be held back: " + f.Diagnostic.What, Path: specPath(step, f.Arg)})
		}
	} else if err != nil {
		return d, err
	}
	return d, nil
}

// gated is the faults for which a model must not be registered, as its gate found them
// in a step before.
func (s *System) gated(ctx context.Context, register plan.Step, before []Decision) error {
	for _, in := range register.Inputs {
		if in.Name != "gate" {
			continue
		}
		path, err := s.Store.Path(ctx, before[in.Step].outputs[in.Output], lower.GateFile)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var verdict struct {
			Passed bool            `json:"passed"`
			Missed executor.Faults `json:"missed"`
		}
		if err := json.Unmarshal(b, &verdict); err != nil {
			return fmt.Errorf("%s of %s: %w", lower.GateFile, before[in.Step].ID, err)
		}
		switch {
		case verdict.Passed:
		case len(verdict.Missed) > 0:
			return verdict.Missed
		default:
			return fmt.Errorf("%s did not pass, and does not tell why", before[in.Step].ID)
		}
	}
	return nil
}

func registerArgs(step plan.Step) (lower.RegisterArgs, error) {
	var a lower.RegisterArgs
	err := json.Unmarshal(step.Args, &a)
	return a, err
}

// inputs returns the digest of each input of a step whose inputs are all known.
func (s *System) inputs(p *plan.Plan, i int, before []Decision) ([]plan.Digest, error) {
	step := p.Steps[i]
	digests := make([]plan.Digest, len(step.Inputs))
	for k, in := range step.Inputs {
		if in.Step >= 0 {
			digests[k] = before[in.Step].outputs[in.Output]
			continue
		}
		if in.Tree != "" {
			digests[k] = in.Tree
			continue
		}
		if in.Registered != nil {
			d, err := s.registered(*in.Registered)
			if err != nil {
				return nil, err
			}
			digests[k] = d
			continue
		}
		d, err := s.InputDigest(in)
		if err != nil {
			return nil, err
		}
		digests[k] = d
	}
	return digests, nil
}

// registered is the bundle that an alias names, or "" where it is nowhere.
func (s *System) registered(r plan.Registered) (plan.Digest, error) {
	if s.State == nil {
		return "", nil
	}
	return s.State.Aliased(r.Model, r.Alias)
}

// InputDigest is the digest of the contents of an input's files, in order, with their
// names where the stage sees them.
func (s *System) InputDigest(in plan.Input) (plan.Digest, error) {
	var b strings.Builder
	names, err := executor.Names(in)
	if err != nil {
		return "", err
	}
	for k, f := range in.Files {
		d, err := s.FileDigest(f)
		if err != nil {
			return "", err
		}
		if b.WriteString(string(d)); in.Root != "" {
			b.WriteString(" " + names[k])
		}
		b.WriteString("\n")
	}
	return plan.DigestOf([]byte(b.String())), nil
}

// Path is the absolute path of a file of the spec.
func (s *System) Path(f string) string {
	if filepath.IsAbs(f) {
		return f
	}
	return filepath.Join(s.Dir, f)
}

// oneOf names files of which at least one changed.
func oneOf(files []string) string {
	const shown = 5
	switch n := len(files); {
	case n == 1:
		return files[0]
	case n > shown:
		return fmt.Sprintf("one of %s and %d more", strings.Join(files[:shown], ", "), n-shown)
	default:
		return "one of " + strings.Join(files, ", ")
	}
}

// changes tells how a step's own arguments and version differ from the last time.
func changes(step plan.Step, last state.Last) []Reason {
	if last.Args == nil {
		return nil
	}
	if string(step.Args) == string(last.Args) {
		if step.Version != last.Version {
			return []Reason{{Text: fmt.Sprintf("mlc computes it otherwise now (version %s, was %s)", step.Version, last.Version)}}
		}
		return nil
	}
	diffs := Changes(step, last.Args)
	if n := len(diffs); n > 4 {
		diffs = append(diffs[:3], Reason{Text: fmt.Sprintf("and %d more changes", n-3)})
	}
	return diffs
}

// Changes tells each place where a step's arguments differ from those that it had.
func Changes(step plan.Step, had json.RawMessage) []Reason {
	var was, is any
	if json.Unmarshal(had, &was) != nil || json.Unmarshal(step.Args, &is) != nil {
		return []Reason{{Text: "its arguments changed", Path: step.At}}
	}
	var out []Reason
	diff("", was, is, func(path, text string) {
		path = strings.TrimPrefix(path, ".")
		out = append(out, Reason{Text: path + ": " + text, Path: specPath(step, path)})
	})
	return out
}

// specPath finds where an argument is declared: the longest known prefix of its
// path, and what remains of it below that.
func specPath(step plan.Step, arg string) string {
	for p := arg; p != ""; {
		if at, ok := step.ArgAt[p]; ok {
			return at + arg[len(p):]
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return step.At
}

// diff calls f for the places where two JSON trees differ.
func diff(path string, was, is any, f func(path, text string)) {
	switch a := was.(type) {
	case map[string]any:
		b, ok := is.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for k := range a {
			keys[k] = true
		}
		for k := range b {
			keys[k] = true
		}
		for _, k := range sorted(keys) {
			x, had := a[k]
			y, has := b[k]
			switch {
			case !had:
				f(path+"."+k, "added "+short(y))
			case !has:
				f(path+"."+k, "removed "+short(x))
			default:
				diff(path+"."+k, x, y, f)
			}
		}
		return
	case []any:
		b, ok := is.([]any)
		if !ok {
			break
		}
		if len(a) != len(b) {
			diffNamed(path, a, b, f)
			return
		}
		for i := range a {
			diff(fmt.Sprintf("%s[%d]", path, i), a[i], b[i], f)
		}
		return
	}
	if x, y := short(was), short(is); x != y {
		f(path, x+" -> "+y)
	}
}

// diffNamed is diff of lists of other lengths, whose items are told apart by their
// names, where they have some.
func diffNamed(path string, was, is []any, f func(path, text string)) {
	x, y := byName(was), byName(is)
	if x == nil || y == nil {
		f(path, fmt.Sprintf("%d items, was %d", len(is), len(was)))
		return
	}
	for _, n := range sorted(x) {
		if _, ok := y[n]; !ok {
			f(path, "removed "+n)
		}
	}
	for _, n := range sorted(y) {
		if i, ok := x[n]; ok {
			diff(fmt.Sprintf("%s[%d]", path, y[n]), was[i], is[y[n]], f)
		} else {
			f(fmt.Sprintf("%s[%d]", path, y[n]), "added "+n)
		}
	}
}

// byName are the places of items by what names each: itself, or one of its fields.
// It is nil where they have no names of their own.
func byName(items []any) map[string]int {
	out := map[string]int{}
	for i, it := range items {
		name, _ := it.(string)
		if m, ok := it.(map[string]any); ok {
			for _, field := range []string{"name", "feature", "metric", "group"} {
				if n, ok := m[field].(string); ok {
					name = n
					break
				}
			}
		}
		if _, dup := out[name]; dup || name == "" {
			return nil
		}
		out[name] = i
	}
	return out
}

func short(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // people read it
	if err := e.Encode(v); err != nil {
		return "?"
	}
	text := strings.TrimSpace(b.String())
	if len(text) <= 60 {
		return text
	}
	if s, ok := v.(string); ok && strings.HasPrefix(s, "sha256:") {
		return plan.Digest(s).Short()
	}
	return strings.ToValidUTF8(text[:57], "") + "..."
}

func sorted[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// engines names what computes a step: mlc and its libraries, which every runner
// gets from here, and, where a command of the user's runs, the image that it runs
// in. The base below mlc's own steps takes no part in what they make.
func (s *System) engines(ctx context.Context, d *Decision, step plan.Step) (string, error) {
	if step.Container == nil {
		return s.Engines, nil
	}
	ref := step.Container.Image
	for _, in := range step.Inputs {
		if in.Name == plan.ArchiveInput {
			return s.Engines, nil // its content is an input
		}
	}
	if ref == "" {
		if a := d.runner.Base.Archive; a != "" {
			digest, err := s.FileDigest(a)
			return s.Engines + " base " + string(digest), err
		}
		if ref = d.runner.Base.Image; ref == "" {
			return s.Engines, nil
		}
	}
	var err error
	d.image, err = s.image(ctx, ref)
	_, digest, _ := strings.Cut(d.image, "@")
	return s.Engines + " image " + digest, err
}

// base is what a step's container starts from, for people.
func base(step plan.Step, r *env.Runner) string {
	if c := step.Container; c != nil && c.Image != "" {
		return c.Image
	}
	for _, in := range step.Inputs {
		if in.Name == plan.ArchiveInput {
			return in.Files[0]
		}
	}
	return r.Base.String()
}

// image is a reference by digest. A tag is looked up once, and recorded: what it
// meant then it means until the record is dropped.
func (s *System) image(ctx context.Context, ref string) (string, error) {
	name, _, pinned := strings.Cut(ref, "@sha256:")
	if pinned {
		return ref, nil
	}
	if s.State != nil {
		if digest, ok, err := s.State.Image(ref); ok || err != nil {
			return name + "@" + digest, err
		}
	}
	digest, err := s.Resolve(ctx, ref)
	var own diag.Diagnostic
	if errors.As(err, &own) {
		return "", executor.Faults{{Arg: "args.image", Diagnostic: own}}
	}
	if err != nil {
		return "", err
	}
	if s.State != nil {
		err = s.State.SaveImage(ctx, ref, digest)
	}
	return name + "@" + digest, err
}

// FileDigest returns the digest of a file of the spec.
func (s *System) FileDigest(f string) (plan.Digest, error) {
	if s.State != nil {
		return s.State.FileDigest(s.Path(f))
	}
	return artifact.DigestFile(s.Path(f))
}
