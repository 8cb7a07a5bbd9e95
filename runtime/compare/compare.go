// Package compare tells how two runs, or two versions of a model, differ: in what the
// spec said, in code, in the data, in metrics and what they are made of; and which
// change moved a metric, by running mixtures of the two.
package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
)

// Side is one of two that are compared: a run, or a version of a model with the run
// that made it. What is not known of it is nil.
type Side struct {
	Ref
	// Plan is what ran, nil for a run of before plans were kept. Of a version, it is
	// the part on the way to it.
	Plan *plan.Plan
	// Made tells by ID what came of the steps.
	Made map[string]Made
	// Sources and Models are by their names.
	Sources map[string]*Source
	Models  map[string]*Model
}

// Ref names a side.
type Ref struct {
	Name    string    `json:"name"` // "run 3", "churn@v2"
	Run     int64     `json:"run"`
	Started time.Time `json:"started"`
	Status  string    `json:"status"` // of the run
}

// Made is what came of a step of a run.
type Made struct {
	Key    plan.Digest
	Status string // done, cached, failed
	Detail string // of a failure
	// Outputs are nil where the state has no result any more.
	Outputs map[string]plan.Digest
	// Engines computed it, of Inputs, by name; Known: these were recorded.
	Known   bool
	Engines string
	Inputs  map[string]plan.Digest
}

// Source is the validated rows of a source. Rows is their digest.
type Source struct {
	Rows    plan.Digest
	Profile *Profile
}

// Profile is a source's profile.json.
type Profile struct {
	Rows        int64              `json:"rows"`
	Quarantined int64              `json:"quarantined"`
	Columns     []op.ColumnProfile `json:"columns"`
}

// Model is a model as it was judged.
type Model struct {
	Task   kind.Task
	Scores *op.Scores
	Gate   *op.GateResult
	Report *evaluate.Report
	// Better are the metrics' good directions, as far as they are known.
	Better map[string]kind.Direction
	// Judged are the test rows, Rows the digest of the label's source that they come
	// from.
	Judged *op.Judged
	Rows   string
	// Seed is that of the resampling that gave the standard errors.
	Seed uint64
	// ONNXRuntime is the version of the library that computed it; "": not known.
	ONNXRuntime string
}

// Diff is how side B differs from side A.
type Diff struct {
	A Ref `json:"a"`
	B Ref `json:"b"`
	// Spec are the differences of arguments, Code those of what computes.
	Spec   []Change     `json:"spec"`
	Code   []Change     `json:"code"`
	Data   []SourceDiff `json:"data"`
	Models []ModelDiff  `json:"models"`
	// Unknown tells in words what could not be compared.
	Unknown []string `json:"unknown"`
}

// Change is one difference: Text of the argument of Steps that Path of the spec
// declares.
type Change struct {
	Text  string   `json:"text"`
	Path  string   `json:"path,omitempty"`
	Steps []string `json:"steps,omitempty"`
}

// SourceDiff compares a source. A source that one side lacks has nil there.
type SourceDiff struct {
	Name string   `json:"name"`
	A    *Extent  `json:"a"`
	B    *Extent  `json:"b"`
	Same bool     `json:"same"` // the rows are the same
	Cols []Column `json:"columns,omitempty"`
}

// Extent counts a source's rows, without and with those set aside.
type Extent struct {
	Digest      plan.Digest `json:"digest,omitempty"`
	Rows        int64       `json:"rows"`
	Quarantined int64       `json:"quarantined"`
}

// ModelDiff compares a model.
type ModelDiff struct {
	Name string `json:"name"`
	// In tells which side has it: "both", "a" or "b".
	In      string       `json:"in"`
	RowsA   int          `json:"test_rows_a"`
	RowsB   int          `json:"test_rows_b"`
	Metrics []MetricDiff `json:"metrics"`
	// Paired: both were judged on the same test rows, and differences are paired.
	Paired     bool             `json:"paired"`
	Gates      []GateDiff       `json:"gates,omitempty"`
	Slices     []SliceDiff      `json:"slices,omitempty"`
	Importance []ImportanceDiff `json:"importance,omitempty"`
	// ImportanceOf is the metric that importance is of; "" where the sides have two.
	ImportanceOf string `json:"importance_of,omitempty"`
}

// Estimate is a value with its standard error; nil: not known.
type Estimate struct {
	Value float64  `json:"value"`
	Error *float64 `json:"error,omitempty"`
}

// MetricDiff compares a metric of the test rows. Diff is B − A.
type MetricDiff struct {
	Name    string    `json:"name"`
	Better  string    `json:"better,omitempty"` // up, down
	A       *Estimate `json:"a"`
	B       *Estimate `json:"b"`
	Diff    *Estimate `json:"diff,omitempty"`
	Verdict Verdict   `json:"verdict"`
}

// Verdict says whether B is better than A, as far as its 95 % interval tells.
type Verdict string

// A difference without an interval is Unknown, one whose interval holds 0 is Unsure.
const (
	Better  Verdict = "better"
	Worse   Verdict = "worse"
	Moved   Verdict = "moved" // surely, of a metric without a known direction
	Unsure  Verdict = "no sure difference"
	Same    Verdict = "same"
	Unknown Verdict = "unknown"
)

// GateDiff compares what a gate asks and found: "≥ 0.83 passed".
type GateDiff struct {
	Name string `json:"name"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// SliceDiff compares a metric on a slice that both sides have.
type SliceDiff struct {
	Slice string `json:"slice"`
	RowsA int    `json:"rows_a"`
	RowsB int    `json:"rows_b"`
	MetricDiff
}

// ImportanceDiff is a feature's importance in both; nil: it is no feature there.
type ImportanceDiff struct {
	Feature string    `json:"feature"`
	A       *Estimate `json:"a"` // Error is the standard deviation over the shuffles
	B       *Estimate `json:"b"`
}

// Sides compares two sides. kinds compute the metrics of paired differences.
func Sides(ctx context.Context, a, b *Side, kinds kind.Kinds) (*Diff, error) {
	d := &Diff{A: a.Ref, B: b.Ref, Spec: []Change{}, Code: []Change{}, Data: []SourceDiff{}, Models: []ModelDiff{}, Unknown: []string{}}
	for _, s := range []*Side{a, b} {
		if s.Plan == nil {
			d.unknown("the spec of %s was not kept: an mlc of before that ran it", s.Name)
		}
	}
	if a.Plan != nil && b.Plan != nil {
		d.Spec = spec(a.Plan, b.Plan)
	}
	d.Code = code(a, b)
	for _, name := range union(a.Sources, b.Sources) {
		s := SourceDiff{Name: name, A: extent(a.Sources[name]), B: extent(b.Sources[name])}
		x, y := a.Sources[name], b.Sources[name]
		if x != nil && y != nil {
			if s.Same = x.Rows != "" && x.Rows == y.Rows; x.Profile != nil && y.Profile != nil {
				s.Cols = Columns(x.Profile, y.Profile)
			} else {
				d.unknown("the profile of source %s is not in the store any more", name)
			}
		}
		d.Data = append(d.Data, s)
	}
	for _, name := range union(a.Models, b.Models) {
		m, err := d.model(ctx, name, a.Models[name], b.Models[name], kinds)
		if err != nil {
			return nil, err
		}
		d.Models = append(d.Models, m)
	}
	return d, nil
}

func (d *Diff) unknown(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(d.Unknown, text) {
		d.Unknown = append(d.Unknown, text)
	}
}

// Equal reports whether nothing differs, as far as it is known.
func (d *Diff) Equal() bool {
	if len(d.Spec)+len(d.Code) > 0 {
		return false
	}
	for _, s := range d.Data {
		if !s.Same {
			return false
		}
	}
	for _, m := range d.Models {
		if m.In != "both" || slices.ContainsFunc(m.Metrics, func(m MetricDiff) bool { return m.Verdict != Same }) {
			return false
		}
	}
	return true
}

// union are the names of both, in order.
func union[T any](a, b map[string]T) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]T{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func extent(s *Source) *Extent {
	if s == nil {
		return nil
	}
	e := &Extent{Digest: s.Rows}
	if s.Profile != nil {
		e.Rows, e.Quarantined = s.Profile.Rows, s.Profile.Quarantined
	}
	return e
}

// steps are a plan's steps by ID.
func steps(p *plan.Plan) map[string]plan.Step {
	out := map[string]plan.Step{}
	for _, s := range p.Steps {
		out[s.ID] = s
	}
	return out
}

// spec tells how the arguments of two plans differ, and which steps one lacks, but for
// those that only do once more what another does, as a cross-validation's do. The same
// change of several steps is told once.
func spec(a, b *plan.Plan) []Change {
	out := []Change{}
	add := func(text, path, step string) {
		for i, c := range out {
			if c.Text == text && c.Path == path && path != "" {
				out[i].Steps = append(out[i].Steps, step)
				return
			}
		}
		out = append(out, Change{text, path, []string{step}})
	}
	more := func(s plan.Step, than *plan.Plan) bool {
		return !slices.ContainsFunc(than.Steps, func(t plan.Step) bool {
			return t.Op == s.Op && t.At == s.At && string(own(t).Args) == string(own(s).Args)
		})
	}
	was := steps(a)
	for _, s := range b.Steps {
		old, ok := was[s.ID]
		if delete(was, s.ID); !ok {
			if more(s, a) {
				add("added", s.At, s.ID)
			}
			continue
		}
		for _, r := range changes(own(s), own(old)) {
			add(r.Text, r.Path, s.ID)
		}
	}
	for _, s := range a.Steps {
		if _, gone := was[s.ID]; gone && more(s, b) {
			add("removed", s.At, s.ID)
		}
	}
	return out
}

// repeated are the arguments that say again what other steps have, by operation.
var repeated = map[string][]string{
	lower.OpSnapshot:  {"columns"},
	lower.OpSplit:     {"files", "fold"},
	lower.OpFit:       {"raw"},
	lower.OpEvaluate:  {"errors"},
	lower.OpPool:      {"folds", "metrics", "seed", "task"},
	lower.OpExplain:   {"metrics", "seed", "task"},
	lower.OpGate:      {"seed", "task"},
	lower.OpChallenge: {"seed", "task"},
	lower.OpPackage:   {"spec", "code", "trainer", "split", "raw", "computed", "derived", "label", "nulls", "delimiter", "encoding", "task", "problem"},
}

// own is a step without arguments that only repeat other steps'.
func own(s plan.Step) plan.Step {
	fields := fieldsOf(s)
	if len(repeated[s.Op]) == 0 || fields == nil {
		return s
	}
	for _, f := range repeated[s.Op] {
		delete(fields, f)
	}
	s.Args = canonical(fields)
	return s
}

// changes tells how a step's arguments differ from those that it had. Of another kind,
// no argument compares.
func changes(s, had plan.Step) []runtime.Reason {
	out := runtime.Changes(s, had.Args)
	if string(fieldsOf(s)["kind"]) != string(fieldsOf(had)["kind"]) {
		out = slices.DeleteFunc(out, func(r runtime.Reason) bool { return strings.HasPrefix(r.Text, "args.") })
	}
	return out
}

// fieldsOf are a step's arguments by name, nil where they have none.
func fieldsOf(s plan.Step) map[string]json.RawMessage {
	var out map[string]json.RawMessage
	if json.Unmarshal(s.Args, &out) != nil {
		return nil
	}
	return out
}

// canonical is their JSON, as package lower writes it: with sorted keys.
func canonical(fields map[string]json.RawMessage) json.RawMessage {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err) // it was read from JSON
	}
	return b
}

// code tells what computed the same steps otherwise.
func code(a, b *Side) []Change {
	out := []Change{}
	add := func(text, step string) {
		for i, c := range out {
			if c.Text == text {
				out[i].Steps = append(out[i].Steps, step)
				return
			}
		}
		out = append(out, Change{Text: text, Steps: []string{step}})
	}
	if a.Plan != nil && b.Plan != nil {
		was := steps(a.Plan)
		for _, s := range b.Plan.Steps {
			if old, ok := was[s.ID]; ok && old.Version != s.Version && sameKinds(old.Version, s.Version) {
				add(old.Version+" -> "+s.Version, s.ID)
			}
		}
		for _, s := range b.Plan.Steps {
			x, y := a.Made[s.ID], b.Made[s.ID]
			if x.Known && y.Known && x.Engines != y.Engines {
				add(x.Engines+" -> "+y.Engines, s.ID)
			}
		}
	}
	for name, m := range b.Models {
		if old := a.Models[name]; old != nil && old.ONNXRuntime != m.ONNXRuntime && old.ONNXRuntime != "" && m.ONNXRuntime != "" {
			add("ONNX Runtime "+old.ONNXRuntime+" -> "+m.ONNXRuntime, lower.OpPackage+" "+name)
		}
	}
	return out
}

// sameKinds reports whether two versions of a step are of the same kinds: other kinds
// are a change of the spec.
func sameKinds(a, b string) bool {
	names := func(v string) []string {
		out := strings.Fields(v)
		for i, p := range out {
			out[i] = p[:max(strings.LastIndexByte(p, '.'), 0)]
		}
		return out
	}
	return slices.Equal(names(a), names(b))
}

// model compares a model; nil: the side has none of that name.
func (d *Diff) model(ctx context.Context, name string, a, b *Model, kinds kind.Kinds) (ModelDiff, error) {
	out := ModelDiff{Name: name, In: "both", Metrics: []MetricDiff{}}
	switch {
	case a == nil:
		out.In, a = "b", &Model{}
	case b == nil:
		out.In, b = "a", &Model{}
	}
	for _, s := range []struct {
		in, side string
		m        *Model
	}{{"a", d.A.Name, a}, {"b", d.B.Name, b}} {
		if s.m.Scores == nil && (out.In == "both" || out.In == s.in) {
			d.unknown("the metrics of model %s in %s are not known: it was not judged, or its results are gone (`mlc gc --keep` keeps them longer)", name, s.side)
		}
	}
	test := kind.PartNames[kind.Test]
	x, y := a.estimates(), b.estimates()
	if a.Scores != nil {
		out.RowsA = a.Scores.Rows[test]
	}
	if b.Scores != nil {
		out.RowsB = b.Scores.Rows[test]
	}
	paired, err := pair(ctx, a, b, kinds)
	if err != nil {
		return out, err
	}
	out.Paired = paired != nil
	better := maps.Clone(a.Better)
	if better == nil {
		better = map[string]kind.Direction{}
	}
	maps.Copy(better, b.Better)
	for _, n := range union(x, y) {
		out.Metrics = append(out.Metrics, metricDiff(n, better[n], x[n], y[n], paired))
	}
	out.gates(a, b)
	out.explained(a, b, better)
	return out, nil
}

// estimates are the metrics of the test rows.
func (m *Model) estimates() map[string]*Estimate {
	out := map[string]*Estimate{}
	if m.Scores == nil {
		return out
	}
	for n, v := range m.Scores.Metrics[kind.PartNames[kind.Test]] {
		out[n] = estimate(v, m.Scores.Errors, n)
	}
	return out
}

func estimate(v float64, errs map[string]float64, name string) *Estimate {
	e := &Estimate{Value: v}
	if x, ok := errs[name]; ok {
		e.Error = &x
	}
	return e
}

// metricDiff compares two estimates, nil where there is none. paired are the standard
// errors of differences on the same rows, by metric; without them the two are taken as
// independent: √(e₁² + e₂²).
func metricDiff(name string, better kind.Direction, a, b *Estimate, paired map[string]float64) MetricDiff {
	m := MetricDiff{Name: name, A: a, B: b, Verdict: Unknown}
	switch better {
	case kind.Up:
		m.Better = "up"
	case kind.Down:
		m.Better = "down"
	}
	if a == nil || b == nil {
		return m
	}
	m.Diff = &Estimate{Value: b.Value - a.Value}
	if e, ok := paired[name]; ok && !math.IsNaN(e) {
		m.Diff.Error = &e
	} else if a.Error != nil && b.Error != nil {
		e := math.Hypot(*a.Error, *b.Error)
		m.Diff.Error = &e
	}
	m.Verdict = verdict(m.Diff, better)
	return m
}

// verdict judges a difference.
func verdict(diff *Estimate, better kind.Direction) Verdict {
	switch {
	case diff.Value == 0:
		return Same
	case diff.Error == nil:
		return Unknown
	case math.Abs(diff.Value) <= evaluate.Z(0.975)**diff.Error:
		return Unsure
	case better == 0:
		return Moved
	case diff.Value*float64(better) > 0:
		return Better
	}
	return Worse
}

// pair returns the standard errors, by metric, of the differences of two models that
// were judged on the same rows; nil where they were not.
func pair(ctx context.Context, a, b *Model, kinds kind.Kinds) (map[string]float64, error) {
	if a.Judged == nil || b.Judged == nil || a.Rows != b.Rows || !sameRows(a.Judged, b.Judged) || len(a.Judged.IDs) == 0 {
		return nil, nil
	}
	var metrics []kind.Metric
	x, y := a.estimates(), b.estimates()
	for _, n := range union(x, y) {
		if k, ok := kinds.Metrics.Get(n); ok && x[n] != nil && y[n] != nil {
			metrics = append(metrics, k)
		}
	}
	boot := evaluate.NewBootstrap(len(a.Judged.IDs), a.Judged.Groups, b.Seed)
	errs, err := boot.PairedErrors(ctx, metrics, b.Judged.Rows, a.Judged.Rows)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for i, m := range metrics {
		out[m.Name()] = errs[i]
	}
	return out, nil
}

// sameRows reports whether rows with the same labels were judged.
func sameRows(a, b *op.Judged) bool {
	return slices.Equal(a.IDs, b.IDs) && slices.Equal(a.Rows.Y, b.Rows.Y)
}

// gates compares what the gates asked and found.
func (m *ModelDiff) gates(a, b *Model) {
	x, y := a.demands(), b.demands()
	for _, n := range union(x, y) {
		m.Gates = append(m.Gates, GateDiff{n, x[n], y[n]})
	}
}

// demands are the gates and fairness rules by name, with how they went.
func (m *Model) demands() map[string]string {
	out := map[string]string{}
	if m.Gate == nil {
		return out
	}
	went := map[bool]string{true: ", passed", false: ", missed"}
	for _, g := range m.Gate.Gates {
		var asks []string
		for _, d := range []struct {
			bound *float64
			text  string
		}{{g.Min, "≥ %v"}, {g.Max, "≤ %v"}, {g.OverBaseline, "≥ baseline + %v"}} {
			if d.bound != nil {
				asks = append(asks, fmt.Sprintf(d.text, *d.bound))
			}
		}
		out[g.Metric] = strings.Join(asks, ", ") + went[g.Passed]
	}
	for _, f := range m.Gate.Fairness {
		bound := f.Max
		sign := "≤"
		if kind.FairnessBetter(f.Metric) == kind.Up {
			bound, sign = f.Min, "≥"
		}
		if bound != nil {
			out[f.Metric+" by "+f.By] = fmt.Sprintf("%s %v: %.4f%s", sign, *bound, f.Value, went[f.Passed])
		}
	}
	return out
}

// explained compares slices and importance.
func (m *ModelDiff) explained(a, b *Model, better map[string]kind.Direction) {
	if a.Report == nil || b.Report == nil {
		return
	}
	was := map[string]evaluate.Slice{}
	for _, s := range a.Report.Slices {
		was[s.Name] = s
	}
	for _, s := range b.Report.Slices {
		old, ok := was[s.Name]
		if !ok {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(s.Metrics)) {
			v, ok := old.Metrics[n]
			if !ok {
				continue
			}
			m.Slices = append(m.Slices, SliceDiff{s.Name, old.Rows, s.Rows,
				metricDiff(n, better[n], estimate(v, old.Errors, n), estimate(s.Metrics[n], s.Errors, n), nil)})
		}
	}
	if m.ImportanceOf = b.Report.Metric; a.Report.Metric != b.Report.Metric {
		m.ImportanceOf = ""
	}
	x, y := importance(a.Report), importance(b.Report)
	for _, n := range union(x, y) {
		m.Importance = append(m.Importance, ImportanceDiff{n, x[n], y[n]})
	}
	slices.SortStableFunc(m.Importance, func(p, q ImportanceDiff) int {
		switch x, y := p.most(), q.most(); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
}

func importance(r *evaluate.Report) map[string]*Estimate {
	out := map[string]*Estimate{}
	for _, i := range r.Importance {
		out[i.Feature] = &Estimate{i.Drop, &i.Error}
	}
	return out
}

// most is the greater of the two.
func (i ImportanceDiff) most() float64 {
	v := math.Inf(-1)
	for _, e := range []*Estimate{i.A, i.B} {
		if e != nil {
			v = math.Max(v, e.Value)
		}
	}
	return v
}
