package lower

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
)

// DatasetArgs are the arguments of dataset.build: SQL over the label's rows, for
// which the alias is l, and the snapshots to join.
type DatasetArgs struct {
	Task   string   `json:"task"`
	Label  string   `json:"label"`  // SQL: BOOLEAN (binary), VARCHAR (multiclass) or DOUBLE
	Source string   `json:"source"` // input of the label's rows
	At     string   `json:"at,omitempty"`
	Event  string   `json:"event,omitempty"` // the newest of it is "now"
	Mature int64    `json:"mature"`          // microseconds: window + delay
	Group  []string `json:"group,omitempty"` // key columns of the entity
	// Features are read from the label's own row.
	Features  []Projection `json:"features"`
	Snapshots []Join       `json:"snapshots,omitempty"`
	// Computed are batch-only derived features, in an order in which each may read
	// those before it and all of the above, by name.
	Computed []Projection `json:"computed,omitempty"`
}

// Projection is a named SQL expression.
type Projection struct {
	Name string     `json:"name"`
	Type types.Type `json:"type"`
	SQL  string     `json:"sql"`
}

// Join is a point-in-time join of one source about one entity. Columns of the
// source have the alias r.
type Join struct {
	Group   string       `json:"group"` // what features call it
	Input   string       `json:"input"`
	Left    []string     `json:"left"`  // key columns of the label's rows
	Right   []string     `json:"right"` // of the source
	Static  bool         `json:"static,omitempty"`
	Event   string       `json:"event,omitempty"`
	Created string       `json:"created,omitempty"`
	Delay   int64        `json:"delay"`         // microseconds after greatest(event, created)
	TTL     int64        `json:"ttl,omitempty"` // microseconds
	Columns []Projection `json:"columns"`
}

// SplitArgs are the arguments of dataset.split.
type SplitArgs struct {
	Kind   string          `json:"kind"`
	Args   json.RawMessage `json:"args"`
	Seed   uint64          `json:"seed"`
	Window int64           `json:"window"`
	Files  []string        `json:"files"`
	Timed  bool            `json:"timed"`
	Task   string          `json:"task"`
}

// TransformArgs are the arguments of transform.fit.
type TransformArgs struct {
	// Raw are the columns of the dataset that enter the graph.
	Raw []RawFeature `json:"raw"`
	// Derived are computed in the graph, in an order that works.
	Derived []DerivedFeature `json:"derived,omitempty"`
	Inputs  []EncodedInput   `json:"inputs"`
}

// RawFeature is a feature as it comes from outside.
type RawFeature struct {
	Name string     `json:"name"`
	Type types.Type `json:"type"`
}

// DerivedFeature is an expression over features.
type DerivedFeature struct {
	Name string `json:"name"`
	Expr string `json:"expr"`
}

// EncodedInput is a feature with its encoders.
type EncodedInput struct {
	Feature  string            `json:"feature"`
	Encoders []json.RawMessage `json:"encoders"`
}

// TrainArgs are the arguments of model.train.
type TrainArgs struct {
	Kind string          `json:"kind"`
	Args json.RawMessage `json:"args"`
	Seed uint64          `json:"seed"`
	Task string          `json:"task"`
}

// EvaluateArgs are the arguments of model.evaluate.
type EvaluateArgs struct {
	Task    string   `json:"task"`
	Metrics []string `json:"metrics"`
}

// MeasureArgs are the arguments of model.measure.
type MeasureArgs struct {
	Metric string          `json:"metric"` // what the spec calls it
	Kind   string          `json:"kind"`
	Args   json.RawMessage `json:"args"`
}

// GateArgs are the arguments of model.gate.
type GateArgs struct {
	Task  string `json:"task"`
	Gates []Gate `json:"gates"`
}

// Gate is one demand on a metric of the test rows.
type Gate struct {
	Metric       string         `json:"metric"`
	Better       kind.Direction `json:"better"`
	Min          *float64       `json:"min,omitempty"`
	Max          *float64       `json:"max,omitempty"`
	OverBaseline *float64       `json:"over_baseline,omitempty"`
}

// PackageArgs are the arguments of model.package: what the bundle says of itself.
type PackageArgs struct {
	Name      string            `json:"name"`
	System    string            `json:"system"`
	Goal      string            `json:"goal,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Problem   string            `json:"problem"`
	Task      string            `json:"task"`
	Label     string            `json:"label"`
	Primary   string            `json:"primary"`
	Trainer   json.RawMessage   `json:"trainer"`
	Split     json.RawMessage   `json:"split"`
	Sensitive map[string]string `json:"sensitive,omitempty"` // feature to reason
	// Raw and Computed let predict take rows as the label's source has them.
	Raw      []Field      `json:"raw"`
	Computed []Projection `json:"computed,omitempty"`
	Nulls    []string     `json:"nulls,omitempty"` // texts that stand for a missing value
	// Delimiter is that of the label's source, when the spec names one.
	Delimiter string `json:"delimiter,omitempty"`
	// Derived are the features that the model computes.
	Derived []DerivedFeature `json:"derived,omitempty"`
	// Code is the version of the operation and kinds of each of the model's steps.
	Code map[string]string `json:"code"`
	// Spec digests all that the spec says on the way to this model.
	Spec plan.Digest `json:"spec"`
}

// Field is a raw input: its feature name and, for what comes with a request, the
// column of the label's source that it was read from.
type Field struct {
	Name      string     `json:"name"`
	Column    string     `json:"column,omitempty"`
	Type      types.Type `json:"type"`
	Nullable  bool       `json:"nullable"`
	Min       *float64   `json:"min,omitempty"`
	Max       *float64   `json:"max,omitempty"`
	In        []any      `json:"in,omitempty"`
	Sensitive bool       `json:"sensitive,omitempty"`
}

// RegisterArgs are the arguments of model.register.
type RegisterArgs struct {
	Model   string `json:"model"`
	Promote string `json:"promote,omitempty"`
}

// features is what a model needs of the dataset, each feature once.
type features struct {
	raw     []*ir.Feature // request, snapshot
	batch   []*ir.Feature // derived in SQL, in order
	derived []*ir.Feature // derived in ONNX, in order
	seen    map[*ir.Feature]bool
}

func (fs *features) add(f *ir.Feature) {
	if fs.seen[f] {
		return
	}
	fs.seen[f] = true
	for _, u := range f.Uses {
		fs.add(u)
	}
	switch {
	case f.Kind != ir.Derived:
		fs.raw = append(fs.raw, f)
	case f.Online:
		fs.derived = append(fs.derived, f)
	default:
		fs.batch = append(fs.batch, f)
	}
}

// ruleFeature is the dataset's column with the answer of a baseline rule. No
// feature can have its name.
const ruleFeature = "_baseline.rule"

// SplitColumn is the dataset's column by which a kind.ByColumn divides.
const SplitColumn = "_split"

func (l *lowerer) model(s *ir.System, m *ir.Model) {
	first := len(l.plan.Steps)
	p := m.Problem
	fs := &features{seen: map[*ir.Feature]bool{}}
	for _, in := range m.Inputs {
		fs.add(in.Feature)
	}
	dataset := l.dataset(m, fs)
	needs, inputs := small, []plan.Input{from("dataset", dataset, "rows")}
	if m.Split.Command != nil {
		needs, inputs = m.Split.Needs, append(append(inputs, from("meta", dataset, "meta")), commandInputs(m.Split.Container)...)
	}
	split := l.add(OpSplit, m.Name, m.Split.Path, SplitArgs{m.Split.Kind.Name(), m.Split.Args, m.Seed, (p.Label.Window + p.Label.Delay).Microseconds(), p.Label.Source.Files, p.Label.At != nil, p.Task}, needs, inputs, []string{"parts"}, m.Split.Kind)
	l.contain(split, m.Split.Container, m.Split.Path)
	l.argAt(split, "args", m.Split.Path)
	l.argAt(split, "kind", m.Split.Path+".kind")
	l.argAt(split, "seed", m.Path+".seed")

	t := transformArgs(m, fs)
	model := l.train(m, m.Name, m.Path, t, fs.derived, m.Trainer, encoders(m.Inputs), dataset, split)
	bt, baseEncoders := t, encoders(m.Inputs)
	// A baseline that looks at one thing or at none does not depend on the
	// model's features and encoders.
	only := func(f RawFeature) {
		in := EncodedInput{f.Name, p.Baseline.Kind.Defaults(f.Type)}
		bt, baseEncoders = TransformArgs{Raw: []RawFeature{f}, Inputs: []EncodedInput{in}}, l.encoders(in)
	}
	if p.Rule != nil {
		only(RawFeature{ruleFeature, p.Rule.Type})
	} else if !p.Baseline.Kind.Features() {
		only(t.Raw[0])
	}
	base := l.train(m, m.Name+".baseline", p.Baseline.Path, bt, nil, p.Baseline, baseEncoders, dataset, split)

	var gates []Gate
	for _, g := range p.Gates {
		gates = append(gates, Gate{g.Metric.Name, g.Metric.Better(), g.Min, g.Max, g.OverBaseline})
	}
	gate := l.add(OpGate, m.Name, p.Path+".metrics", GateArgs{p.Task, gates}, small,
		[]plan.Input{from("metrics", model.metrics, "metrics"), from("baseline", base.metrics, "metrics")}, []string{"result"})
	for i, g := range p.Gates {
		l.argAt(gate, fmt.Sprintf("gates[%d]", i), g.Path)
	}
	inputs = []plan.Input{
		from("transform", model.fit, "transform"), from("model", model.train, "model"), from("heldout", model.train, "heldout"),
		from("metrics", model.metrics, "metrics"), from("baseline", base.metrics, "metrics"), from("gate", gate, "result"),
		from("dataset", dataset, "rows"), from("split", split, "parts"), from("meta", dataset, "meta"),
	}
	for _, src := range sourcesOf(m, fs) {
		inputs = append(inputs, l.profiles[src])
	}
	pkg := l.add(OpPackage, m.Name, m.Path, l.packageArgs(s, m, fs, first), small, inputs, []string{"bundle"})
	l.argAt(pkg, "goal", "goal")
	l.argAt(pkg, "owner", "owner")
	reg := l.add(OpRegister, m.Name, m.Path, RegisterArgs{m.Name, m.Promote}, small, []plan.Input{from("bundle", pkg, "bundle")}, []string{"version"})
	l.argAt(reg, "promote", m.Path+".promote")
}

// encoders are the kinds of an input's encoders.
func (l *lowerer) encoders(in EncodedInput) []kind.Versioned {
	var out []kind.Versioned
	for _, args := range in.Encoders {
		var name struct{ Kind string }
		if err := json.Unmarshal(args, &name); err != nil {
			panic(err) // a trainer's own defaults
		}
		if e, ok := l.kinds.Encoders.Get(name.Kind); ok {
			out = append(out, e)
		}
	}
	return out
}

func encoders(ins []*ir.Input) []kind.Versioned {
	seen := map[string]bool{}
	var out []kind.Versioned
	for _, in := range ins {
		for _, e := range in.Encoders {
			if !seen[e.Kind.Name()] {
				seen[e.Kind.Name()] = true
				out = append(out, e.Kind)
			}
		}
	}
	return out
}

// sourcesOf lists the sources of a model's rows, the label's first.
func sourcesOf(m *ir.Model, fs *features) []*ir.Source {
	out := []*ir.Source{m.Problem.Label.Source}
	seen := map[*ir.Source]bool{out[0]: true}
	for _, f := range fs.raw {
		if s := f.Group.Source; !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func (l *lowerer) dataset(m *ir.Model, fs *features) int {
	p := m.Problem
	src := p.Label.Source
	a := DatasetArgs{Task: p.Task, Label: p.Label.Expr.SQL(column("l")), Source: l.rows[src].Name, Mature: (p.Label.Window + p.Label.Delay).Microseconds(), Features: []Projection{}}
	if p.Task == kind.Multiclass {
		if p.Label.Expr.Type == types.Int {
			a.Label = "CAST(" + a.Label + " AS BIGINT)"
		}
		a.Label = "CAST(" + a.Label + " AS VARCHAR)"
	}
	if p.Label.At != nil {
		a.At = p.Label.At.Name
		a.Event = a.At
		if src.Time.Event != nil {
			a.Event = src.Time.Event.Name
		}
	}
	if p.Entity != nil {
		for _, k := range p.Entity.Key {
			a.Group = append(a.Group, k.Name)
		}
	}
	inputs := []plan.Input{l.rows[src]}
	if p.Rule != nil {
		t := p.Rule.Type
		sql := p.Rule.SQL(column("l"))
		if t != types.String {
			sql = "CAST(" + sql + " AS DOUBLE)"
		}
		a.Features = append(a.Features, Projection{ruleFeature, t, sql})
	}
	if c := m.Split.Column; c != nil {
		a.Features = append(a.Features, Projection{SplitColumn, types.String, "CAST(l." + expr.QuoteName(c.Name) + " AS VARCHAR)"})
	}
	joins := map[string]int{}
	var groups []string // paths of the joins' declarations
	for _, f := range fs.raw {
		g := f.Group
		if f.Kind == ir.Request {
			a.Features = append(a.Features, Projection{f.Name, f.Type, rawSQL("l."+expr.QuoteName(f.Column.Name), f.Type)})
			continue
		}
		delay := g.Source.Time.Delay
		// A column of its own delay makes a join of its own: what was known of the
		// row then is not what was known of its other columns.
		delay += f.Column.Delay
		id := g.Name + " " + strconv.FormatInt(int64(delay), 10)
		i, ok := joins[id]
		if !ok {
			i = len(a.Snapshots)
			joins[id] = i
			a.Snapshots = append(a.Snapshots, l.join(g, delay.Microseconds()))
			groups = append(groups, g.Path)
			known := false
			for _, in := range inputs {
				known = known || in.Name == l.rows[g.Source].Name
			}
			if !known {
				inputs = append(inputs, l.rows[g.Source])
			}
		}
		a.Snapshots[i].Columns = append(a.Snapshots[i].Columns, Projection{f.Name, f.Type, rawSQL("r."+expr.QuoteName(f.Column.Name), f.Type)})
	}
	for _, f := range fs.batch {
		a.Computed = append(a.Computed, computed(f))
	}
	step := l.add(OpDataset, m.Name, p.Path+".label", a, wide, inputs, []string{"rows", "meta"})
	l.argAt(step, "label", p.Path+".label.expr")
	l.argAt(step, "at", p.Path+".label.at")
	l.argAt(step, "mature", p.Path+".label.window")
	l.argAt(step, "features", m.Path+".inputs")
	l.argAt(step, "snapshots", m.Path+".inputs")
	for i, path := range groups {
		l.argAt(step, fmt.Sprintf("snapshots[%d]", i), path)
	}
	l.argAt(step, "computed", m.Path+".inputs")
	return step
}

func (l *lowerer) join(g *ir.Group, delay int64) Join {
	j := Join{Group: g.Name, Input: l.rows[g.Source].Name, Static: g.Source.Time.Static, Delay: delay, TTL: g.TTL.Microseconds()}
	for i, k := range g.Entity.Key {
		j.Left, j.Right = append(j.Left, k.Name), append(j.Right, g.Key[i].Name)
	}
	if t := g.Source.Time; !t.Static {
		j.Event = t.Event.Name
		if t.Created != nil {
			j.Created = t.Created.Name
		}
	}
	return j
}

// computed is a batch-only derived feature over the dataset's own columns.
func computed(f *ir.Feature) Projection {
	of := map[string]types.Type{}
	for _, u := range f.Uses {
		of[u.Name] = u.Type
	}
	sql := f.Expr.SQL(func(n *expr.Node) string {
		ref := expr.QuoteName(n.Name)
		switch of[n.Name] {
		case types.Bool:
			return "(" + ref + " <> 0)"
		case types.Timestamp:
			return "make_timestamp(CAST(" + ref + " AS BIGINT))"
		}
		return ref
	})
	return Projection{f.Name, f.Type, rawSQL("("+sql+")", f.Type)}
}

func transformArgs(m *ir.Model, fs *features) TransformArgs {
	t := TransformArgs{Inputs: []EncodedInput{}}
	for _, f := range fs.raw {
		t.Raw = append(t.Raw, RawFeature{f.Name, f.Type})
	}
	for _, f := range fs.batch {
		t.Raw = append(t.Raw, RawFeature{f.Name, f.Type})
	}
	for _, f := range fs.derived {
		t.Derived = append(t.Derived, DerivedFeature{f.Name, f.Expr.String()})
	}
	// What only batch expressions read does not enter the graph.
	used := map[string]bool{}
	for _, f := range fs.derived {
		for _, u := range f.Uses {
			used[u.Name] = true
		}
	}
	for _, in := range m.Inputs {
		used[in.Feature.Name] = true
		e := EncodedInput{Feature: in.Feature.Name}
		for _, enc := range in.Encoders {
			e.Encoders = append(e.Encoders, enc.Args)
		}
		t.Inputs = append(t.Inputs, e)
	}
	kept := t.Raw[:0]
	for _, f := range t.Raw {
		if used[f.Name] {
			kept = append(kept, f)
		}
	}
	t.Raw = kept
	return t
}

// trained are the steps of one model, or of its baseline; metrics is the one with
// all of them.
type trained struct{ fit, train, metrics int }

func (l *lowerer) train(m *ir.Model, subject, at string, t TransformArgs, derived []*ir.Feature, tr *ir.Trainer, encs []kind.Versioned, dataset, split int) trained {
	var out trained
	rows := []plan.Input{from("dataset", dataset, "rows"), from("split", split, "parts")}
	out.fit = l.add(OpFit, subject, at, t, wide, rows, []string{"transform"}, encs...)
	if subject == m.Name {
		for i, in := range m.Inputs {
			l.argAt(out.fit, fmt.Sprintf("inputs[%d]", i), in.Path)
		}
		l.argAt(out.fit, "raw", m.Path+".inputs")
		for i, f := range derived {
			l.argAt(out.fit, fmt.Sprintf("derived[%d]", i), f.Path)
		}
	}
	transform := from("transform", out.fit, "transform")
	meta := from("meta", dataset, "meta")
	out.train = l.add(OpTrain, subject, tr.Path, TrainArgs{tr.Kind.Name(), tr.Args, m.Seed, m.Problem.Task}, tr.Needs,
		append(append(append([]plan.Input{transform, meta}, rows...), commandInputs(tr.Container)...), fileInputs(tr.Files)...), []string{"model", "heldout"}, tr.Kind)
	l.contain(out.train, tr.Container, tr.Path)
	l.argAt(out.train, "kind", tr.Path+".kind")
	l.argAt(out.train, "args", tr.Path)
	l.argAt(out.train, "seed", m.Path+".seed")
	names, metrics := []string{}, []kind.Versioned{}
	use := func(m ir.Metric) {
		if m.Custom == nil && !slices.Contains(names, m.Name) {
			names, metrics = append(names, m.Name), append(metrics, m.Kind)
		}
	}
	use(m.Problem.Primary)
	for _, g := range m.Problem.Gates {
		use(g.Metric)
	}
	evaluate := l.add(OpEvaluate, subject, m.Problem.Path+".metrics", EvaluateArgs{m.Problem.Task, names}, wide,
		append([]plan.Input{transform, from("model", out.train, "model"), meta}, rows...), []string{"metrics", "predictions"}, metrics...)
	l.argAt(evaluate, "metrics", m.Problem.Path+".metrics")
	out.metrics = evaluate
	// Each custom metric adds itself to those before it.
	for _, c := range m.Problem.Custom {
		needs := small
		if c.Command != nil {
			needs = c.Needs
		}
		out.metrics = l.add(OpMeasure, subject+"."+c.Name, c.Path, MeasureArgs{c.Name, c.Kind.Name(), c.Args}, needs,
			append([]plan.Input{from("metrics", out.metrics, "metrics"), from("predictions", evaluate, "predictions"), rows[0], meta}, commandInputs(c.Container)...), []string{"metrics"}, c.Kind)
		l.contain(out.metrics, c.Container, c.Path)
		l.argAt(out.metrics, "args", c.Path)
	}
	return out
}

// contain gives a step the container that the spec declares at a path, if any.
func (l *lowerer) contain(step int, in ir.Container, path string) {
	l.argAt(step, "timeout", path+".resources.timeout")
	l.argAt(step, "secrets", path+".secrets")
	if c := in.Command; c != nil {
		l.plan.Steps[step].Container = &plan.Container{Image: c.Image, Env: c.Env, Secrets: c.Secrets, Caches: c.Caches}
	}
}

// CodeInput is the name of the input with the folder of the user's code.
const CodeInput = "code"

// commandInputs are the files that a command's container is made of.
func commandInputs(in ir.Container) []plan.Input {
	var out []plan.Input
	c := in.Command
	if c != nil && c.Archive != "" {
		out = append(out, plan.Input{Name: plan.ArchiveInput, Step: -1, Files: []string{c.Archive}})
	}
	if c != nil && c.Code != "" {
		out = append(out, plan.Input{Name: CodeInput, Step: -1, Files: in.Code, Root: c.Code})
	}
	return out
}

// FilePrefix begins the name of an input that is a file of the user's; the name of
// the argument follows.
const FilePrefix = "file:"

// fileInputs are the files of a kind.Filed, in the order of their arguments.
func fileInputs(files map[string]string) []plan.Input {
	var out []plan.Input
	for _, arg := range slices.Sorted(maps.Keys(files)) {
		out = append(out, plan.Input{Name: FilePrefix + arg, Step: -1, Files: []string{files[arg]}})
	}
	return out
}

func (l *lowerer) packageArgs(s *ir.System, m *ir.Model, fs *features, first int) PackageArgs {
	p := m.Problem
	a := PackageArgs{Name: m.Name, System: s.Name, Goal: s.Goal, Owner: s.Owner, Problem: p.Name, Task: p.Task, Label: p.Label.Expr.String(), Primary: p.Primary.Name,
		Trainer: m.Trainer.Args, Split: m.Split.Args, Raw: []Field{}}
	for _, in := range m.Inputs {
		if in.AllowSensitive != "" {
			if a.Sensitive == nil {
				a.Sensitive = map[string]string{}
			}
			a.Sensitive[in.Feature.Name] = in.AllowSensitive
		}
	}
	for _, f := range fs.raw {
		c := f.Column
		field := Field{Name: f.Name, Type: f.Type, Nullable: f.Kind == ir.Snapshot || !c.Never, Sensitive: c.Sensitive}
		if f.Kind == ir.Request {
			field.Column, field.Min, field.Max, field.In = c.Name, c.Min, c.Max, c.In
		}
		a.Raw = append(a.Raw, field)
	}
	for _, f := range fs.batch {
		a.Computed = append(a.Computed, computed(f))
	}
	var text struct {
		NullValues []string `json:"null_values"`
		Delimiter  string   `json:"delimiter"`
	}
	if err := json.Unmarshal(p.Label.Source.Args, &text); err == nil {
		a.Nulls, a.Delimiter = text.NullValues, text.Delimiter
	}
	for _, f := range append(append([]*ir.Feature(nil), fs.batch...), fs.derived...) {
		a.Derived = append(a.Derived, DerivedFeature{f.Name, f.Expr.String()})
	}
	a.Code = map[string]string{}
	for _, s := range l.plan.Steps[first:] {
		a.Code[s.ID] = s.Version
	}
	a.Spec = digest(l.plan.Steps[first:])
	return a
}

// digest names all that the spec says in some steps. Those of sources are left
// to the lineage, which names what came out of them.
func digest(steps []plan.Step) plan.Digest {
	type part struct {
		ID, Version string
		Args        json.RawMessage
	}
	parts := make([]part, len(steps))
	for i, s := range steps {
		parts[i] = part{s.ID, s.Version, s.Args}
	}
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // plain data
	}
	return plan.DigestOf(b)
}
