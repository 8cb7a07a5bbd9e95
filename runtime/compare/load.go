package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/state"
)

// Loader loads sides from a state and its store.
type Loader struct {
	State *state.DB
	Store *artifact.Store
	Kinds kind.Kinds

	results map[plan.Digest]state.StepResult
}

// Default names the two sides to compare where users name none: the last run that
// ended well with the newest before it that did otherwise, or else the last two
// versions of the only model.
func (l *Loader) Default() (a, b string, err error) {
	runs, err := l.State.Runs()
	if err != nil {
		return "", "", err
	}
	var last state.Run
	for i := len(runs) - 1; i >= 0; i-- {
		if runs[i].Status != "done" {
			continue
		}
		r, _, err := l.State.Run(runs[i].ID)
		if err != nil {
			return "", "", err
		}
		if last.ID == 0 {
			last = r
		} else if !sameKeys(last, r) {
			return fmt.Sprint(r.ID), fmt.Sprint(last.ID), nil
		}
	}
	versions, err := l.State.Versions("")
	if err != nil {
		return "", "", err
	}
	n := len(versions)
	if n < 2 || versions[0].Model != versions[n-1].Model {
		return "", "", absent("there are no two runs that ended well and did not do the same", "apply again after a change, or name two runs or versions")
	}
	v := versions[n-2:]
	return fmt.Sprintf("%s@v%d", v[0].Model, v[0].Version), fmt.Sprintf("%s@v%d", v[1].Model, v[1].Version), nil
}

// sameKeys reports whether two runs came to the same results.
func sameKeys(a, b state.Run) bool {
	keys := map[string]plan.Digest{}
	for _, s := range a.Steps {
		keys[s.ID] = s.Key
	}
	for _, s := range b.Steps {
		if keys[s.ID] != s.Key {
			return false
		}
	}
	return len(a.Steps) == len(b.Steps)
}

func absent(what, mend string) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: what, Mend: mend}
}

// Pair loads the sides of two names: numbers of runs, or versions as Resolve takes
// them. Where one is a version, only its model is looked at.
func (l *Loader) Pair(ctx context.Context, a, b string) (x, y *Side, err error) {
	refs := [2]Ref{}
	bundles := [2]map[string]plan.Digest{}
	model := ""
	for i, name := range []string{a, b} {
		run, err := strconv.ParseInt(strings.TrimPrefix(name, "run "), 10, 64)
		bundles[i] = map[string]plan.Digest{}
		if err == nil {
			refs[i] = Ref{Name: fmt.Sprintf("run %d", run), Run: run}
			continue
		}
		v, err := l.State.Resolve(name)
		if err != nil {
			return nil, nil, err
		}
		if model != "" && v.Model != model {
			return nil, nil, absent(fmt.Sprintf("%s and %s are versions of two models", a, b), "name two versions of one model, or two runs")
		}
		model = v.Model
		refs[i] = Ref{Name: fmt.Sprintf("%s@v%d", v.Model, v.Version), Run: v.Run}
		bundles[i][v.Model] = v.Bundle
	}
	versions, err := l.State.Versions("")
	if err != nil {
		return nil, nil, err
	}
	if l.results, err = l.State.Steps(); err != nil {
		return nil, nil, err
	}
	var sides [2]*Side
	for i := range refs {
		for _, v := range versions {
			if _, ok := bundles[i][v.Model]; !ok && v.Run == refs[i].Run && (model == "" || v.Model == model) {
				bundles[i][v.Model] = v.Bundle
			}
		}
		if sides[i], err = l.side(ctx, refs[i], model, bundles[i]); err != nil {
			return nil, nil, err
		}
	}
	return sides[0], sides[1], nil
}

// side loads one side; of a model, where one is named.
func (l *Loader) side(ctx context.Context, ref Ref, model string, bundles map[string]plan.Digest) (*Side, error) {
	run, ok, err := l.State.Run(ref.Run)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, absent(fmt.Sprintf("there is no run %d", ref.Run), "`mlc status` tells the last one; they are counted from 1")
	}
	s := &Side{Ref: ref, Made: map[string]Made{}, Sources: map[string]*Source{}, Models: map[string]*Model{}}
	s.Started, s.Status = run.Started, run.Status
	if s.Plan, _, err = l.State.Plan(run.Plan); err != nil {
		return nil, err
	}
	if s.Plan != nil && model != "" {
		s.Plan = upstream(s.Plan, lower.OpRegister+" "+model)
	}
	wanted := func(string) bool { return true }
	if s.Plan != nil {
		in := steps(s.Plan)
		wanted = func(id string) bool { _, ok := in[id]; return ok }
	}
	for _, st := range run.Steps {
		if !wanted(st.ID) {
			continue
		}
		m := Made{Key: st.Key, Status: st.Status, Detail: st.Detail, Outputs: l.results[st.Key].Outputs}
		if m.Engines, m.Inputs, m.Known, err = l.State.Origin(st.Key); err != nil {
			return nil, err
		}
		s.Made[st.ID] = m
	}
	for id := range s.Made {
		if name, ok := strings.CutPrefix(id, lower.OpValidate+" "); ok {
			if s.Sources[name], err = l.source(ctx, s, name); err != nil {
				return nil, err
			}
		}
		if name, ok := strings.CutPrefix(id, lower.OpGate+" "); ok && (model == "" || name == model) {
			s.Models[name] = &Model{}
		}
	}
	for name := range bundles {
		s.Models[name] = &Model{}
	}
	for name, m := range s.Models {
		if err := l.model(ctx, s, name, m, bundles[name]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// upstream is the part of a plan on the way to a step.
func upstream(p *plan.Plan, id string) *plan.Plan {
	need := map[int]bool{}
	for i := len(p.Steps) - 1; i >= 0; i-- {
		if p.Steps[i].ID != id && !need[i] {
			continue
		}
		need[i] = true
		for _, in := range p.Steps[i].Inputs {
			if in.Step >= 0 {
				need[in.Step] = true
			}
		}
	}
	out := &plan.Plan{System: p.System}
	at := map[int]int{}
	for i, s := range p.Steps {
		if !need[i] {
			continue
		}
		at[i] = len(out.Steps)
		inputs := append([]plan.Input(nil), s.Inputs...)
		for k := range inputs {
			if inputs[k].Step >= 0 {
				inputs[k].Step = at[inputs[k].Step]
			}
		}
		s.Inputs = inputs
		out.Steps = append(out.Steps, s)
	}
	return out
}

// path is a file of a tree in the store, or "" where it is not there.
func (l *Loader) path(ctx context.Context, tree plan.Digest, file string) (string, error) {
	if tree == "" {
		return "", nil
	}
	p, err := l.Store.Path(ctx, tree, file)
	if errors.Is(err, artifact.ErrMissing) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return p, nil
}

// read reads a JSON file of a tree; ok is false where it is not there.
func (l *Loader) read(ctx context.Context, tree plan.Digest, file string, v any) (ok bool, err error) {
	p, err := l.path(ctx, tree, file)
	if p == "" || err != nil {
		return false, err
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s of tree %s: %w", file, tree.Short(), err)
	}
	return true, nil
}

// source loads the validated rows of a source. Where its result is gone, the digest
// may still be known from a step that read them.
func (l *Loader) source(ctx context.Context, s *Side, name string) (*Source, error) {
	m := s.Made[lower.OpValidate+" "+name]
	if m.Status == "failed" {
		return nil, nil
	}
	out := &Source{Rows: m.Outputs["rows"]}
	for _, reader := range s.Made {
		if out.Rows == "" {
			out.Rows = reader.Inputs[lower.SourcePrefix+name]
		}
	}
	var p Profile
	ok, err := l.read(ctx, m.Outputs["profile"], "profile.json", &p)
	if ok {
		out.Profile = &p
	}
	return out, err
}

// optional reads a JSON file that need not be there.
func optional[T any](ctx context.Context, l *Loader, tree plan.Digest, file string, into **T) error {
	var v T
	ok, err := l.read(ctx, tree, file, &v)
	if ok {
		*into = &v
	}
	return err
}

// model loads a model from the results of its steps and, what is gone of them, from
// its bundle; "" where it was not packaged.
func (l *Loader) model(ctx context.Context, s *Side, name string, m *Model, bundle plan.Digest) error {
	out := func(id, output string) plan.Digest { return s.Made[id].Outputs[output] }
	dataset, evaluated := lower.OpDataset+" "+name, lower.OpEvaluate+" "+name
	if s.Plan != nil {
		if pool := lower.OpPool + " " + name; steps(s.Plan)[pool].ID != "" { // a cross-validation
			evaluated = pool
		}
	}
	measured := evaluated
	if s.Plan != nil {
		var a lower.EvaluateArgs
		if err := json.Unmarshal(steps(s.Plan)[evaluated].Args, &a); err == nil {
			m.Seed = a.Seed
		}
		if gate, ok := steps(s.Plan)[lower.OpGate+" "+name]; ok {
			for _, in := range gate.Inputs {
				if in.Name == "metrics" && in.Step >= 0 {
					measured = s.Plan.Steps[in.Step].ID
				}
			}
		}
	}
	var meta *op.Meta
	var origin *op.Origin
	err := errors.Join(optional(ctx, l, out(measured, "metrics"), "metrics.json", &m.Scores), optional(ctx, l, out(lower.OpGate+" "+name, "result"), lower.GateFile, &m.Gate),
		optional(ctx, l, out(lower.OpExplain+" "+name, "report"), "evaluation.json", &m.Report), optional(ctx, l, out(dataset, "meta"), "meta.json", &meta), optional(ctx, l, out(dataset, "origin"), "origin.json", &origin))
	if err != nil {
		return err
	}
	if meta != nil && origin != nil {
		meta.Origin = *origin
	}
	if meta, err = l.bundle(ctx, s, m, meta, bundle); err != nil {
		return err
	}
	m.Better = l.better(s, m, name)
	if meta == nil || m.Scores == nil {
		return nil
	}
	if m.Task = meta.Task; m.Scores.Threshold != 0 {
		m.Task.Threshold = m.Scores.Threshold
	}
	m.Rows = meta.Sources[labelSource(s, name)]
	predictions, err := l.path(ctx, out(evaluated, "predictions"), op.PredictionsFile)
	if err != nil || predictions == "" {
		return err
	}
	rows, err := l.path(ctx, out(dataset, "rows"), op.RowsFile)
	if err != nil {
		return err
	}
	j, err := op.ReadJudged(ctx, predictions, rows, m.Task)
	m.Judged = &j
	return err
}

// bundle fills in from a model's bundle what its steps' results do not tell.
func (l *Loader) bundle(ctx context.Context, s *Side, m *Model, meta *op.Meta, bundle plan.Digest) (*op.Meta, error) {
	var packed *struct {
		Model *op.Scores
		Gate  *op.GateResult
	}
	var lineage *op.Lineage
	var profiles *map[string]*Profile
	var report *evaluate.Report
	var dataset *op.Meta
	err := errors.Join(optional(ctx, l, bundle, "metrics.json", &packed), optional(ctx, l, bundle, "lineage.json", &lineage), optional(ctx, l, bundle, "profile.json", &profiles),
		optional(ctx, l, bundle, "evaluation.json", &report), optional(ctx, l, bundle, "dataset.json", &dataset))
	if err != nil {
		return meta, err
	}
	if packed != nil && m.Scores == nil {
		m.Scores = packed.Model
	}
	if packed != nil && m.Gate == nil {
		m.Gate = packed.Gate
	}
	if m.Report == nil {
		m.Report = report
	}
	if meta == nil {
		meta = dataset
	}
	if lineage != nil {
		m.ONNXRuntime = lineage.Environment["onnxruntime"]
		for name, digest := range lineage.Data {
			if s.Sources[name] == nil {
				s.Sources[name] = &Source{}
			}
			if s.Sources[name].Rows == "" {
				s.Sources[name].Rows = plan.Digest(digest)
			}
		}
	}
	if profiles != nil {
		for name, p := range *profiles {
			if s.Sources[name] != nil && s.Sources[name].Profile == nil {
				s.Sources[name].Profile = p
			}
		}
	}
	return meta, nil
}

// labelSource is the source of a model's label, or "" where the plan is not known.
func labelSource(s *Side, model string) string {
	if s.Plan == nil {
		return ""
	}
	var a lower.DatasetArgs
	if json.Unmarshal(steps(s.Plan)[lower.OpDataset+" "+model].Args, &a) != nil {
		return ""
	}
	return strings.TrimPrefix(a.Source, lower.SourcePrefix)
}

// better are the good directions of a model's metrics.
func (l *Loader) better(s *Side, m *Model, model string) map[string]kind.Direction {
	out := map[string]kind.Direction{}
	for name := range m.estimates() {
		if k, ok := l.Kinds.Metrics.Get(name); ok {
			out[name] = k.Better()
		}
	}
	if s.Plan == nil {
		return out
	}
	for id, st := range steps(s.Plan) {
		var a lower.MeasureArgs
		if !strings.HasPrefix(id, lower.OpMeasure+" "+model+".") || json.Unmarshal(st.Args, &a) != nil {
			continue
		}
		if k, ok := l.Kinds.CustomMetrics.Get(a.Kind); ok {
			out[a.Metric] = k.Better(a.Args)
		}
	}
	return out
}
