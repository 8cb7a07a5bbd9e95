package compare

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
)

// Component is a part of what differs between two sides that can be switched from
// one to the other by itself.
type Component struct {
	Name    string   `json:"name"` // "trainer", "data rows"
	Changes []Change `json:"changes"`
}

// Attribution tells which components moved a metric from A to B, and by how much.
type Attribution struct {
	A      Ref    `json:"a"`
	B      Ref    `json:"b"`
	Model  string `json:"model"`
	Metric string `json:"metric"`
	Better string `json:"better,omitempty"`
	// From and To are the metric as the sides were judged.
	From Estimate `json:"from"`
	To   Estimate `json:"to"`
	// Total is To − From. The effects and Rest sum to it.
	Total Estimate `json:"total"`
	// Effects are of the components, the greatest first.
	Effects []Effect `json:"effects"`
	// Rest is the effect of what cannot be switched: code, and files that are not what
	// they were. It is what running a side's steps again with what is here changes.
	Rest *Effect `json:"rest,omitempty"`
	// Together is what the components do only together: Total less Rest and the
	// effects of each alone. nil where some alone could not be run.
	Together *float64 `json:"together,omitempty"`
	// Exact: all orders were tried. Else the effects are means of Orders.
	Exact  bool `json:"exact"`
	Orders int  `json:"orders"`
	// Failed are the mixtures, by what of them is B's, that could not be run.
	Failed []string `json:"failed,omitempty"`
}

// Effect is what a component does to the metric, in the mean of the orders.
type Effect struct {
	Component
	Estimate
	// Low and High are the least and the greatest over the orders; Alone is the effect
	// on A of nothing but this; nil: it could not be run.
	Low   float64  `json:"low"`
	High  float64  `json:"high"`
	Alone *float64 `json:"alone,omitempty"`
}

// Blamer attributes a change of a metric.
type Blamer struct {
	Loader *Loader
	Metric string
	Model  string // "": the only one
	// Run runs a plan apart from the runs, and returns what each step made, nil where
	// it could not be. Digest is that of files on this machine, as plans name them.
	Run    func(ctx context.Context, p *plan.Plan) ([]map[string]plan.Digest, error)
	Digest func(in plan.Input) (plan.Digest, error)
	// Verify tells whether a tree is whole in the store.
	Verify func(ctx context.Context, tree plan.Digest) error
}

// group is what arguments of steps are switched by together.
type group string

const (
	gLabel       group = "label"
	gFeatures    group = "features"
	gEncoders    group = "encoders"
	gSplit       group = "split"
	gTrainer     group = "trainer"
	gCalibration group = "calibration"
	gDecision    group = "decision"
	gMetric      group = "metric"
	gNone        group = ""
)

// inOrder compares groups by the way from rows to a metric. Each is switched after
// those that it may need.
func inOrder(a, b group) int {
	way := []group{gLabel, gFeatures, gSplit, gEncoders, gTrainer, gCalibration, gDecision, gMetric}
	return cmp.Or(cmp.Compare(slices.Index(way, a), slices.Index(way, b)), cmp.Compare(a, b)) // data first
}

// data is the group of a source's rows.
func data(source string) group { return group("data " + source) }

// groupOf is the group of an argument of a step.
func (w *blame) groupOf(s plan.Step, field string) group {
	switch s.Op {
	case lower.OpDataset:
		if field == "features" || field == "snapshots" || field == "windows" || field == "computed" {
			return gFeatures
		}
		return gLabel
	case lower.OpSplit:
		switch field {
		case "kind", "args", "seed", "fold":
			return gSplit
		case "files":
			return data(w.label)
		}
		return gLabel
	case lower.OpEvaluate:
		switch field {
		case "decision":
			return gDecision
		case "errors": // a fold's come from the pool
			return gSplit
		case "task":
			return gLabel
		}
		return gNone // which metrics are computed does not change any
	case lower.OpPool:
		switch field {
		case "folds":
			return gSplit
		case "task":
			return gLabel
		}
		return gNone
	}
	if field == "task" {
		return gLabel
	}
	if s.Op == lower.OpFit && field != "inputs" {
		return gFeatures
	}
	return owner(s.Op)
}

// owner is the group that a step's inputs, container and needs go with.
func owner(op string) group {
	return map[string]group{lower.OpDataset: gFeatures, lower.OpSplit: gSplit, lower.OpFit: gEncoders, lower.OpTrain: gTrainer,
		lower.OpCalibrate: gCalibration, lower.OpPool: gSplit, lower.OpMeasure: gMetric}[op]
}

// blame is one attribution at work.
type blame struct {
	*Blamer
	a, b  *Side
	model string
	label string // source of the label
	x, y  map[string]plan.Step
	// trainings are, in A and B, what the trainings that are judged add to the model's
	// name: "" where rows are held back once, and under cross-validation the folds.
	trainings [2][]string
	// measured is the step of a custom metric; of others it has no operation.
	measured   link
	components []Component
	// of is the component of a group; groups that do not differ have none.
	of   map[group]int
	rest []Change
	rows map[string][2]plan.Digest // of sources, in A and B
}

// link is a step on the way from rows to a metric: what it does, and what its name adds
// to the model's.
type link struct{ op, of string }

// training are the operations of one training, of which cross-validation makes several.
var training = []string{lower.OpSplit, lower.OpFit, lower.OpTrain, lower.OpCalibrate, lower.OpEvaluate}

// chain is the way of some trainings to the metric, in order.
func (w *blame) chain(trainings []string) []link {
	out := []link{{lower.OpDataset, ""}}
	for _, t := range trainings {
		for _, op := range training {
			out = append(out, link{op, t})
		}
	}
	if trainings[0] != "" {
		out = append(out, link{lower.OpPool, ""})
	}
	if w.measured.op != "" {
		out = append(out, w.measured)
	}
	return out
}

// id is the ID of a step.
func (w *blame) id(l link) string { return l.op + " " + w.model + l.of }

// steps are a step in A and in B. Of a training that only the split of the other makes
// it is that of the first, which differs from it in nothing but the split.
func (w *blame) steps(l link) (x, y plan.Step) {
	at := func(by map[string]plan.Step, trainings []string) plan.Step {
		of := l.of
		if slices.Contains(training, l.op) && !slices.Contains(trainings, of) {
			of = trainings[0]
		}
		return by[w.id(link{l.op, of})]
	}
	return at(w.x, w.trainings[0]), at(w.y, w.trainings[1])
}

// judged is the ID of the step of a mixture that has the rows that its metrics are of.
func (w *blame) judged(at map[string]int) string {
	pool := w.id(link{lower.OpPool, ""})
	if _, ok := at[pool]; ok {
		return pool
	}
	return w.id(link{lower.OpEvaluate, ""})
}

// Blame attributes the change of the metric from A to B. The error is a Diagnostic
// where the sides do not allow it.
func (bl *Blamer) Blame(ctx context.Context, a, b *Side) (*Attribution, error) {
	w := &blame{Blamer: bl, a: a, b: b}
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	out := &Attribution{A: a.Ref, B: b.Ref, Model: w.model, Metric: bl.Metric, Effects: []Effect{}, Exact: len(w.components) <= exact}
	from, to := a.Models[w.model].estimates()[bl.Metric], b.Models[w.model].estimates()[bl.Metric]
	if from == nil || to == nil {
		return nil, absent(fmt.Sprintf("%s of model %s is not known of both %s and %s; known of both are: %s", bl.Metric, w.model, a.Name, b.Name, strings.Join(w.both(), ", ")),
			"name one of these, or compare runs whose results are still there")
	}
	better := b.Models[w.model].Better[bl.Metric]
	m := metricDiff(bl.Metric, better, from, to, nil)
	out.From, out.To, out.Total, out.Better = *from, *to, *m.Diff, m.Better
	return out, w.attribute(ctx, out)
}

// both are the metrics that both sides have.
func (w *blame) both() []string {
	var out []string
	x, y := w.a.Models[w.model].estimates(), w.b.Models[w.model].estimates()
	for _, n := range union(x, y) {
		if x[n] != nil && y[n] != nil {
			out = append(out, n)
		}
	}
	return out
}

// prepare finds the model, its steps, and the components.
func (w *blame) prepare(ctx context.Context) error {
	for _, s := range []*Side{w.a, w.b} {
		if s.Plan == nil {
			return absent(fmt.Sprintf("the plan of %s was not kept", s.Name), "an mlc of before that ran it; apply again, and compare runs since")
		}
	}
	var names []string
	for n := range w.b.Models {
		if w.a.Models[n] != nil && (w.Model == "" || n == w.Model) && (w.Model != "" || w.b.Models[n].estimates()[w.Metric] != nil) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0 && w.Model != "":
		return absent(fmt.Sprintf("%s and %s have no model %q in common", w.a.Name, w.b.Name, w.Model), "`mlc show` lists models")
	case len(names) == 0:
		return absent(fmt.Sprintf("no model of %s was judged by %q%s", w.b.Name, w.Metric, diag.Suggest(w.Metric, w.all())), "name a metric of the problem's")
	case len(names) > 1:
		return absent(fmt.Sprintf("%s is a metric of several models: %s", w.Metric, strings.Join(names, ", ")), "name one with --model")
	}
	w.model = names[0]
	w.label = labelSource(w.b, w.model)
	w.x, w.y = steps(w.a.Plan), steps(w.b.Plan)
	for i, side := range []*Side{w.a, w.b} {
		for _, in := range steps(side.Plan)[w.id(link{lower.OpPool, ""})].Inputs {
			if in.Output == "metrics" {
				w.trainings[i] = append(w.trainings[i], strings.TrimPrefix(side.Plan.Steps[in.Step].ID, w.id(link{lower.OpEvaluate, ""})))
			}
		}
		if w.trainings[i] == nil {
			w.trainings[i] = []string{""}
		}
	}
	if l := (link{lower.OpMeasure, "." + w.Metric}); w.y[w.id(l)].ID != "" {
		w.measured = l
	}
	return w.find(ctx)
}

// all are the metrics of B.
func (w *blame) all() []string {
	var out []string
	for _, m := range w.b.Models {
		out = append(out, slices.Sorted(maps.Keys(m.estimates()))...)
	}
	return out
}

// find makes components of what differs.
func (w *blame) find(ctx context.Context) error {
	differ := map[group][]Change{}
	add := func(g group, c ...Change) { differ[g] = append(differ[g], c...) }
	join := joiner{}
	for _, l := range w.chain(slices.MaxFunc(w.trainings[:], func(a, b []string) int { return cmp.Compare(len(a), len(b)) })) {
		x, y := w.steps(l)
		switch {
		case x.ID == "" && y.ID == "", l.op == lower.OpPool && (x.ID == "" || y.ID == ""):
			continue
		case l.op == lower.OpCalibrate && y.ID == "":
			add(gCalibration, Change{"removed", x.At, []string{x.ID}})
			continue
		case l.op == lower.OpCalibrate && x.ID == "":
			add(gCalibration, Change{"added", y.At, []string{y.ID}})
			continue
		case x.ID == "" || y.ID == "":
			return absent(fmt.Sprintf("%s is not a step of both sides", w.id(l)), "compare runs that judge the model alike")
		}
		f, g := fieldsOf(x), fieldsOf(y)
		told := changes(own(y), own(x))
		for _, name := range union(f, g) {
			gr := w.groupOf(y, name)
			if string(f[name]) == string(g[name]) || gr == gNone {
				continue
			}
			add(gr)
			for _, r := range told {
				if arg := strings.TrimPrefix(r.Text, name); arg != r.Text && strings.ContainsAny(arg[:1], ".[:") {
					add(gr, Change{r.Text, r.Path, []string{y.ID}})
				}
			}
			if name == "task" {
				for _, all := range []group{gFeatures, gEncoders, gSplit, gTrainer, gCalibration, gDecision, gMetric} {
					join.join(gLabel, all)
				}
			}
		}
		if x.Version != y.Version && sameKinds(x.Version, y.Version) {
			w.rest = tell(w.rest, Change{Text: x.Version + " -> " + y.Version, Steps: []string{y.ID}})
		}
		w.again(x, y)
	}
	w.couple(join)
	if err := w.sources(ctx, differ, join); err != nil {
		return err
	}
	w.of = map[group]int{}
	seen := map[group]int{}
	for _, g := range slices.SortedFunc(maps.Keys(differ), inOrder) {
		root := join.root(g)
		i, ok := seen[root]
		if !ok {
			i = len(w.components)
			seen[root] = i
			w.components = append(w.components, Component{Name: string(g)})
		} else {
			w.components[i].Name += " + " + string(g)
		}
		c := &w.components[i]
		for _, d := range differ[g] {
			c.Changes = tell(c.Changes, d)
		}
		w.of[g] = i
	}
	// A group without a difference of its own goes with what it is joined to.
	for g := range join {
		if i, ok := seen[join.root(g)]; ok {
			w.of[g] = i
		}
	}
	if len(w.components) > 32 {
		return absent(fmt.Sprintf("%d components differ between %s and %s", len(w.components), w.a.Name, w.b.Name), "compare sides that are closer")
	}
	return nil
}

// tell adds a change to others: the same of several steps, such as of the folds, once.
func tell(to []Change, c Change) []Change {
	k := slices.IndexFunc(to, func(o Change) bool { return o.Text == c.Text && o.Path == c.Path })
	if k < 0 {
		return append(to, c)
	}
	for _, s := range c.Steps {
		if !slices.Contains(to[k].Steps, s) {
			to[k].Steps = append(to[k].Steps, s)
		}
	}
	return to
}

// again notes what of a step, x in A and y in B, cannot be run as a side ran it: its
// engines, and files that changed since.
func (w *blame) again(x, y plan.Step) {
	a, b := w.a.Made[x.ID], w.b.Made[y.ID]
	if a.Known && b.Known && a.Engines != b.Engines {
		w.rest = tell(w.rest, Change{Text: a.Engines + " -> " + b.Engines, Steps: []string{y.ID}})
	}
	for _, in := range y.Inputs {
		if in.Step >= 0 || in.Registered != nil {
			continue
		}
		now, err := w.Digest(in)
		if err != nil {
			continue // running it tells
		}
		for i, made := range []Made{a, b} {
			if was := made.Inputs[in.Name]; was != "" && was != now {
				side := []*Side{w.a, w.b}[i]
				w.rest = tell(w.rest, Change{Text: fmt.Sprintf("%s changed since %s", strings.Join(in.Files, ", "), side.Name), Steps: []string{y.ID}})
			}
		}
	}
}

// joiner finds which groups are switched together.
type joiner map[group]group

func (j joiner) root(g group) group {
	for j[g] != "" && j[g] != g {
		g = j[g]
	}
	return g
}

func (j joiner) join(a, b group) {
	if a, b = j.root(a), j.root(b); a != b {
		j[a], j[b] = b, b
	}
}

// couple joins what cannot be had of one side without the other: encoders and the
// features that they encode; a label of another source and the features of its rows; a
// split by a column and the column.
func (w *blame) couple(join joiner) {
	var x, y lower.DatasetArgs
	var f, g lower.TransformArgs
	for _, d := range []struct {
		id   string
		a, b any
	}{{lower.OpDataset, &x, &y}, {lower.OpFit, &f, &g}} {
		id := d.id + " " + w.model
		if json.Unmarshal(w.x[id].Args, d.a) != nil || json.Unmarshal(w.y[id].Args, d.b) != nil {
			return // lower wrote them
		}
	}
	names := func(t lower.TransformArgs) (out []string) {
		for _, in := range t.Inputs {
			out = append(out, in.Feature)
		}
		for _, r := range t.Raw {
			out = append(out, r.Name, string(r.Type))
		}
		for _, d := range t.Derived {
			out = append(out, d.Name)
		}
		return out
	}
	if !slices.Equal(names(f), names(g)) {
		join.join(gFeatures, gEncoders)
	}
	if x.Source != y.Source {
		join.join(gFeatures, gLabel)
	}
	column := func(a lower.DatasetArgs) string {
		i := slices.IndexFunc(a.Features, func(p lower.Projection) bool { return p.Name == lower.SplitColumn })
		if i < 0 {
			return ""
		}
		return a.Features[i].SQL
	}
	if column(x) != column(y) {
		join.join(gFeatures, gSplit)
	}
}

// sources finds the rows of the sources on both sides, and adds those that differ.
func (w *blame) sources(ctx context.Context, differ map[group][]Change, join joiner) error {
	w.rows = map[string][2]plan.Digest{}
	id := lower.OpDataset + " " + w.model
	for k, side := range []struct {
		s  *Side
		by map[string]plan.Step
	}{{w.a, w.x}, {w.b, w.y}} {
		for _, in := range side.by[id].Inputs {
			name, ok := strings.CutPrefix(in.Name, lower.SourcePrefix)
			if !ok {
				continue
			}
			var tree plan.Digest
			if src := side.s.Sources[name]; src != nil {
				tree = src.Rows
			}
			why := "its digest is not known"
			if tree != "" {
				err := w.Verify(ctx, tree)
				if err == nil {
					r := w.rows[name]
					r[k] = tree
					w.rows[name] = r
					continue
				}
				why = err.Error()
			}
			return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf("the validated rows of source %s in %s are gone: %s", name, side.s.Name, why),
				Why: "its steps cannot be run again without them", Mend: "keep them longer from now on: `mlc gc --keep` and --keep-runs; here, blame between newer runs"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.rows)) {
		r := w.rows[name]
		if r[0] == "" || r[1] == "" || r[0] == r[1] {
			continue
		}
		validate := lower.OpValidate + " " + name
		x, y := upstream(w.a.Plan, validate), upstream(w.b.Plan, validate)
		changes := spec(x, y)
		had := steps(x)
		for _, s := range y.Steps {
			before, after := w.a.Made[s.ID], w.b.Made[s.ID]
			for _, in := range s.Inputs {
				same := slices.ContainsFunc(had[s.ID].Inputs, func(old plan.Input) bool { return old.Name == in.Name && slices.Equal(old.Files, in.Files) })
				if was, is := before.Inputs[in.Name], after.Inputs[in.Name]; in.Step < 0 && same && was != "" && is != "" && was != is {
					changes = append(changes, Change{Text: strings.Join(in.Files, ", ") + " changed", Steps: []string{s.ID}})
				}
			}
		}
		if p, q := w.a.Sources[name].Profile, w.b.Sources[name].Profile; p != nil && q != nil && p.Rows != q.Rows {
			changes = append(changes, Change{Text: fmt.Sprintf("%d rows, were %d", q.Rows, p.Rows), Steps: []string{validate}})
		}
		differ[data(name)] = append(differ[data(name)], changes...)
		if !slices.Equal(w.columns(w.x[validate]), w.columns(w.y[validate])) {
			join.join(data(name), gFeatures)
			join.join(data(name), gLabel)
		}
	}
	return nil
}

// columns are the names and types of a source's columns.
func (w *blame) columns(s plan.Step) []string {
	var a lower.ValidateArgs
	if json.Unmarshal(s.Args, &a) != nil {
		return nil
	}
	var out []string
	for _, c := range a.Columns {
		out = append(out, c.Name+" "+string(c.Type))
	}
	slices.Sort(out)
	return out
}

// mixed is one plan with the steps of all mixtures, each once.
type mixed struct {
	plan plan.Plan
	// at is a step by its ID and by those components of its mixture that it depends on.
	at map[string]int
}

// isB tells whether a group is B's in a mixture.
func (w *blame) isB(g group, m mask) bool {
	i, ok := w.of[g]
	return !ok || m&(1<<i) != 0
}

// mix adds the steps of a mixture: what of the components in m is B's, the rest A's.
// It returns the indexes of its steps by ID.
func (w *blame) mix(into *mixed, m mask) (map[string]int, error) {
	out := map[string]int{}
	depends := map[string]mask{}
	trainings := w.trainings[0]
	if w.isB(gSplit, m) {
		trainings = w.trainings[1]
	}
	for _, l := range w.chain(trainings) {
		id := w.id(l)
		x, y := w.steps(l)
		base, p := x, w.a.Plan
		if w.isB(owner(l.op), m) {
			base, p = y, w.b.Plan
		}
		if base.ID == "" {
			continue // no calibration in this one
		}
		on := mask(0)
		group := func(g group) {
			if i, ok := w.of[g]; ok {
				on |= 1 << i
			}
		}
		group(owner(l.op))
		// Each argument is that of the side that its group is of.
		args := map[string]json.RawMessage{}
		mine := fieldsOf(base)
		other := [2]map[string]json.RawMessage{fieldsOf(x), fieldsOf(y)}
		if x.ID == "" || y.ID == "" {
			other = [2]map[string]json.RawMessage{mine, mine}
		}
		for _, field := range union(other[0], other[1]) {
			g := w.groupOf(base, field)
			side := other[0]
			if group(g); g == gNone {
				side = mine
			} else if w.isB(g, m) {
				side = other[1]
			}
			if v, ok := side[field]; ok {
				args[field] = v
			}
		}
		s := base
		s.Args, s.Inputs = canonical(args), nil
		var ok bool
		if s.Version, ok = lower.Current(s.Op, base.Version, w.Loader.Kinds); !ok {
			return nil, absent(fmt.Sprintf("this mlc cannot run %s of version %q", id, base.Version), "blame with the mlc that ran it")
		}
		for _, in := range base.Inputs {
			if in.Step < 0 {
				s.Inputs = append(s.Inputs, in)
				continue
			}
			read := p.Steps[in.Step]
			from := read.ID
			if name, ok := strings.CutPrefix(in.Name, lower.SourcePrefix); ok {
				group(data(name))
				r := w.rows[name]
				tree := r[0]
				if w.isB(data(name), m) && r[1] != "" || tree == "" {
					tree = r[1]
				}
				s.Inputs = append(s.Inputs, plan.Input{Name: in.Name, Step: -1, Tree: tree})
				continue
			}
			switch {
			case in.Name == "model" && l.op != lower.OpCalibrate:
				from = w.id(link{lower.OpTrain, l.of})
				calibrate := w.id(link{lower.OpCalibrate, l.of})
				if _, ok := out[calibrate]; ok {
					from = calibrate
				}
				group(gCalibration)
			case in.Name == "metrics", in.Name == "predictions":
				from = w.judged(out)
			case slices.Contains(training, l.op) && slices.Contains(training, read.Op):
				from = w.id(link{read.Op, l.of})
			}
			k, ok := out[from]
			if !ok {
				return nil, absent(fmt.Sprintf("%s reads %s, which is none of the model's own steps", id, from), "compare runs of which it is")
			}
			on |= depends[from]
			in.Step = k
			s.Inputs = append(s.Inputs, in)
		}
		depends[id] = on
		name := id + w.suffix(on&m, on)
		k, ok := into.at[name]
		if !ok {
			k = len(into.plan.Steps)
			into.at[name] = k
			s.ID = name
			into.plan.Steps = append(into.plan.Steps, s)
		}
		out[id] = k
	}
	return out, nil
}

// suffix tells what of a step is B's; nothing where it does not differ.
func (w *blame) suffix(m, of mask) string {
	if of == 0 {
		return ""
	}
	return " (" + w.words(m) + ")"
}

// words name a mixture.
func (w *blame) words(m mask) string {
	var names []string
	for i, c := range w.components {
		if m&(1<<i) != 0 {
			names = append(names, c.Name)
		}
	}
	switch {
	case len(names) == 0:
		return w.a.Name
	case len(names) == len(w.components):
		return w.b.Name
	}
	return w.a.Name + " with " + strings.Join(names, ", ") + " of " + w.b.Name
}

// probe is the metric of one mixture.
type probe struct {
	value  float64
	judged *op.Judged // nil for a custom metric
}

// attribute runs the mixtures and fills in the effects.
func (w *blame) attribute(ctx context.Context, out *Attribution) error {
	n := len(w.components)
	all := masks(n)
	into := &mixed{plan: plan.Plan{System: w.b.Plan.System}, at: map[string]int{}}
	of := map[mask]map[string]int{}
	for _, m := range all {
		var err error
		if of[m], err = w.mix(into, m); err != nil {
			return err
		}
	}
	made, err := w.Run(ctx, &into.plan)
	if err != nil {
		return err
	}
	probes := map[mask]probe{}
	for _, m := range all {
		p, ok, err := w.probe(ctx, of[m], made)
		if err != nil {
			return err
		}
		if !ok {
			out.Failed = append(out.Failed, w.words(m))
			continue
		}
		probes[m] = p
	}
	full := mask(1)<<n - 1
	if len(all) > 0 {
		_, first := probes[0]
		_, last := probes[full]
		if !first || !last {
			return absent(fmt.Sprintf("%s could not be run again", strings.Join(out.Failed, "; ")), "see above; what fails there is no change of the metric")
		}
	}
	values := map[mask]float64{}
	for m, p := range probes {
		values[m] = p.value
	}
	ws, used := weights(n, func(m mask) bool { _, ok := values[m]; return ok })
	if out.Orders = used; used == 0 {
		return absent(fmt.Sprintf("no order of the changes can be run: %s", strings.Join(out.Failed, "; ")), "see above; the changes only go together")
	}
	out.Exact = out.Exact && used == len(orders(n))
	sum := map[mask]float64{}
	for m := range values {
		sum[m] = 0
	}
	sum[0]--
	sum[full]++
	errs, err := w.errors(ctx, append(ws, sum), probes)
	if err != nil {
		return err
	}
	alone, known := 0.0, true
	for i, c := range w.components {
		e := Effect{Component: c, Estimate: Estimate{Error: errs[i]}}
		for m, f := range ws[i] {
			e.Value += f * values[m]
		}
		e.Low, e.High = spread(n, i, values)
		if v, ok := values[1<<i]; ok {
			d := v - values[0]
			e.Alone = &d
			alone += d
		} else {
			known = false
		}
		out.Effects = append(out.Effects, e)
	}
	slices.SortStableFunc(out.Effects, func(x, y Effect) int { return cmp.Compare(math.Abs(y.Value), math.Abs(x.Value)) })
	moved := values[full] - values[0]
	if rest := out.Total.Value - moved; len(w.rest) > 0 || math.Abs(rest) > 1e-12 {
		out.Rest = &Effect{Component: Component{"what cannot be switched", w.rest}, Estimate: Estimate{Value: rest}, Low: rest, High: rest}
		if out.Rest.Changes == nil {
			out.Rest.Changes = []Change{}
		}
	} else {
		out.Total.Error = errs[n]
	}
	if known && n > 1 {
		d := moved - alone
		out.Together = &d
	}
	return nil
}

// probe reads the metric of a mixture; ok is false where it could not be run.
func (w *blame) probe(ctx context.Context, at map[string]int, made []map[string]plan.Digest) (probe, bool, error) {
	output := func(op, name string) plan.Digest {
		i, ok := at[op]
		if !ok {
			return ""
		}
		return made[i][name]
	}
	judged := w.judged(at)
	measured := judged
	if w.measured.op != "" {
		measured = w.id(w.measured)
	}
	var scores *op.Scores
	var meta *op.Meta
	l := w.Loader
	if err := optional(ctx, l, output(measured, "metrics"), "metrics.json", &scores); err != nil || scores == nil {
		return probe{}, false, err
	}
	k, ok := l.Kinds.Metrics.Get(w.Metric)
	if !ok {
		v, ok := scores.Metrics[kind.PartNames[kind.Test]][w.Metric]
		return probe{value: v}, ok, nil
	}
	dataset := lower.OpDataset + " " + w.model
	if err := optional(ctx, l, output(dataset, "meta"), "meta.json", &meta); err != nil || meta == nil {
		return probe{}, false, err
	}
	predictions, err := l.path(ctx, output(judged, "predictions"), op.PredictionsFile)
	if err != nil || predictions == "" {
		return probe{}, false, err
	}
	rows, err := l.path(ctx, output(dataset, "rows"), op.RowsFile)
	if err != nil {
		return probe{}, false, err
	}
	task := meta.Task
	if scores.Threshold != 0 {
		task.Threshold = scores.Threshold
	}
	j, err := op.ReadJudged(ctx, predictions, rows, task)
	if err != nil {
		return probe{}, false, err
	}
	v := j.Rows.Metric(k)
	return probe{v, &j}, !math.IsNaN(v), nil
}

// errors are the standard errors of weighted sums of the mixtures' metric. Mixtures
// that were judged on the same rows are resampled together; different rows are taken
// as independent, though they may overlap, which errs on the safe side of effects.
func (w *blame) errors(ctx context.Context, sums []map[mask]float64, probes map[mask]probe) ([]*float64, error) {
	out := make([]*float64, len(sums))
	k, ok := w.Loader.Kinds.Metrics.Get(w.Metric)
	if !ok {
		return out, nil
	}
	var parts [][]mask
	for _, m := range slices.Sorted(maps.Keys(probes)) {
		i := slices.IndexFunc(parts, func(p []mask) bool { return sameRows(probes[p[0]].judged, probes[m].judged) })
		if i < 0 {
			parts = append(parts, nil)
			i = len(parts) - 1
		}
		parts[i] = append(parts[i], m)
	}
	square := make([]float64, len(sums))
	for _, p := range parts {
		first := probes[p[0]].judged
		boot := evaluate.NewBootstrap(len(first.IDs), first.Groups, w.b.Models[w.model].Seed)
		errs, err := boot.Errors(ctx, len(sums), func(at []int32, to []float64) {
			clear(to)
			for _, m := range p {
				v := probes[m].judged.Rows.At(at).Metric(k)
				for i, s := range sums {
					if f := s[m]; f != 0 {
						to[i] += f * v
					}
				}
			}
		})
		if err != nil {
			return nil, err
		}
		for i, e := range errs {
			square[i] += e * e
		}
	}
	for i, s := range square {
		if e := math.Sqrt(s); !math.IsNaN(e) {
			out[i] = &e
		}
	}
	return out, nil
}
