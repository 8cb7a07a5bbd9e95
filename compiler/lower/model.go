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
	Task string `json:"task"`
	// Labels are SQL: BOOLEAN (binary, anomaly, and each of a multilabel), VARCHAR
	// (multiclass) or a number.
	Labels    []Target  `json:"labels"`
	Quantiles []float64 `json:"quantiles,omitempty"`
	Source    string    `json:"source"` // input of the label's rows
	At        string    `json:"at,omitempty"`
	Event     string    `json:"event,omitempty"` // the newest of it is "now"
	Created   string    `json:"created,omitempty"`
	// Mature is how long after At an outcome is known, ColumnDelay how long after Event
	// at the earliest, and RowDelay how long after Event and Created, in microseconds.
	Mature      int64    `json:"mature"`
	ColumnDelay int64    `json:"column_delay,omitempty"`
	RowDelay    int64    `json:"row_delay,omitempty"`
	Group       []string `json:"group,omitempty"` // key columns of the entity
	// Horizon is how long, in microseconds, before At the prediction is made.
	Horizon int64 `json:"horizon,omitempty"`
	// Features are read from the label's own row.
	Features  []Projection `json:"features"`
	Snapshots []Join       `json:"snapshots,omitempty"`
	Windows   []Windowed   `json:"windows,omitempty"`
	// Computed are batch-only derived features, in an order in which each may read
	// those before it and all of the above, by name.
	Computed []Projection `json:"computed,omitempty"`
}

// Target is one value of a label, by its name where there are several.
type Target struct {
	Name string `json:"name,omitempty"`
	SQL  string `json:"sql"`
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
	Group   string   `json:"group"` // what features call it
	Input   string   `json:"input"`
	Left    []string `json:"left"`  // key columns of the label's rows
	Right   []string `json:"right"` // of the source
	Static  bool     `json:"static,omitempty"`
	Event   string   `json:"event,omitempty"`
	Created string   `json:"created,omitempty"`
	Delay   int64    `json:"delay"`         // microseconds after greatest(event, created)
	TTL     int64    `json:"ttl,omitempty"` // microseconds
	// Earlier joins what was known before the prediction and not at its very time, as the
	// label's own row is.
	Earlier bool         `json:"earlier,omitempty"`
	Columns []Projection `json:"columns"`
}

// Windowed are statistics over the rows of one source about an entity that became known
// before the prediction.
type Windowed struct {
	Group   string      `json:"group"`
	Input   string      `json:"input"`
	Left    []string    `json:"left"`  // key columns of the label's rows
	Right   []string    `json:"right"` // of the source
	Event   string      `json:"event"`
	Created string      `json:"created,omitempty"`
	Delay   int64       `json:"delay"`             // microseconds after greatest(event, created)
	Earlier bool        `json:"earlier,omitempty"` // as of a Join; the span has its start then
	Columns []Aggregate `json:"columns"`
}

// Aggregate is one statistic: SQL is of a row of the source, with the alias r.
type Aggregate struct {
	Name   string `json:"name"`
	Fn     string `json:"fn"` // count, sum, mean, min, max, std
	SQL    string `json:"sql"`
	Window int64  `json:"window"` // microseconds
}

// SplitArgs are the arguments of dataset.split.
type SplitArgs struct {
	Kind  string          `json:"kind"`
	Args  json.RawMessage `json:"args"`
	Seed  uint64          `json:"seed"`
	Files []string        `json:"files"`
	Timed bool            `json:"timed"`
	Task  string          `json:"task"`
	// Fold is that of a kind.Folded, from 1; 0: the model that is kept.
	Fold int `json:"fold,omitempty"`
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

// StackArgs are the arguments of transform.stack.
type StackArgs struct {
	Raw     []RawFeature `json:"raw"`
	Members []string     `json:"members"`
}

// TrainArgs are the arguments of model.train.
type TrainArgs struct {
	Kind string          `json:"kind"`
	Args json.RawMessage `json:"args"`
	Seed uint64          `json:"seed"`
	Task string          `json:"task"`
}

// CalibrateArgs are the arguments of model.calibrate.
type CalibrateArgs struct {
	Kind string          `json:"kind"`
	Args json.RawMessage `json:"args"`
}

// EvaluateArgs are the arguments of model.evaluate.
type EvaluateArgs struct {
	Task     string         `json:"task"`
	Metrics  []string       `json:"metrics"`
	Decision *kind.Decision `json:"decision,omitempty"`
	// Errors asks for the metrics' standard errors.
	Errors bool `json:"errors"`
	// Baseline decides from 0.5 on where it cannot reach what Decision asks.
	Baseline bool   `json:"baseline,omitempty"`
	Seed     uint64 `json:"seed"`
}

// PoolArgs are the arguments of model.pool.
type PoolArgs struct {
	Task    string   `json:"task"`
	Metrics []string `json:"metrics"`
	Folds   int      `json:"folds"`
	// Errors asks for the metrics' standard errors.
	Errors bool   `json:"errors"`
	Seed   uint64 `json:"seed"`
}

// ExplainArgs are the arguments of model.explain.
type ExplainArgs struct {
	Task string `json:"task"`
	// Metric is what importance is of; "": the mean loss.
	Metric  string   `json:"metric,omitempty"`
	Metrics []string `json:"metrics"` // of slices
	Slices  []string `json:"slices,omitempty"`
	Seed    uint64   `json:"seed"`
}

// MeasureArgs are the arguments of model.measure.
type MeasureArgs struct {
	Metric string          `json:"metric"` // what the spec calls it
	Kind   string          `json:"kind"`
	Args   json.RawMessage `json:"args"`
}

// GateArgs are the arguments of model.gate.
type GateArgs struct {
	Task     string          `json:"task"`
	Gates    []Gate          `json:"gates"`
	Fairness []kind.Fairness `json:"fairness,omitempty"`
	Seed     uint64          `json:"seed"`
}

// Gate is one demand on a metric of the test rows.
type Gate struct {
	Metric       string         `json:"metric"`
	Better       kind.Direction `json:"better"`
	Min          *float64       `json:"min,omitempty"`
	Max          *float64       `json:"max,omitempty"`
	OverBaseline *float64       `json:"over_baseline,omitempty"`
	// Confidence that the demand is met, one-sided.
	Confidence float64 `json:"confidence"`
}

// ChallengeArgs are the arguments of model.challenge.
type ChallengeArgs struct {
	Task  string      `json:"task"`
	Alias string      `json:"alias"` // of the champion
	Gates []Challenge `json:"gates"`
	Seed  uint64      `json:"seed"`
}

// Challenge is a demand on how much better a metric is than the champion's.
type Challenge struct {
	Metric     string         `json:"metric"`
	Better     kind.Direction `json:"better"`
	Over       float64        `json:"over"`
	Confidence float64        `json:"confidence"`
}

// PackageArgs are the arguments of model.package: what the bundle says of itself.
type PackageArgs struct {
	Name    string          `json:"name"`
	System  string          `json:"system"`
	Goal    string          `json:"goal,omitempty"`
	Owner   string          `json:"owner,omitempty"`
	Problem string          `json:"problem"`
	Task    string          `json:"task"`
	Label   string          `json:"label"`
	Primary string          `json:"primary"`
	Trainer json.RawMessage `json:"trainer"`
	Split   json.RawMessage `json:"split"`
	// Challenged says that model.challenge judges the model too.
	Challenged bool              `json:"challenged,omitempty"`
	Sensitive  map[string]string `json:"sensitive,omitempty"` // feature to reason
	// Raw and Computed let predict take rows as the label's source has them.
	Raw      []Field      `json:"raw"`
	Computed []Projection `json:"computed,omitempty"`
	Nulls    []string     `json:"nulls,omitempty"` // texts that stand for a missing value
	// Delimiter is that of the label's source, when the spec names one.
	Delimiter string `json:"delimiter,omitempty"`
	// Encoding is that of its text, when the spec names one.
	Encoding string `json:"encoding,omitempty"`
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
	Name     string     `json:"name"`
	Column   string     `json:"column,omitempty"`
	Type     types.Type `json:"type"`
	Nullable bool       `json:"nullable"`
	Min      *float64   `json:"min,omitempty"`
	Max      *float64   `json:"max,omitempty"`
	In       []any      `json:"in,omitempty"`
	// Nulls are texts that training has read as missing, of a string.
	Nulls     []string `json:"nulls,omitempty"`
	Sensitive bool     `json:"sensitive,omitempty"`
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

// ByPrefix begins the name of a dataset's column by which slices and fairness rules
// group rows; the column's own name follows.
const ByPrefix = "_by."

// Production is the alias of the version that a gate's over_production compares with.
const Production = "production"

// SplitColumn is the dataset's column by which a kind.ByColumn divides.
const SplitColumn = "_split"

func (l *lowerer) model(s *ir.System, m *ir.Model) {
	first := len(l.plan.Steps)
	p := m.Problem
	fs := &features{seen: map[*ir.Feature]bool{}}
	all := m.AllInputs()
	for _, in := range all {
		fs.add(in.Feature)
	}
	dataset := l.dataset(m, fs)
	t := transformArgs(m, fs)
	own := learner{m.Name, m.Path, true, t, fs.derived, m.Trainer, encoders(all)}
	baseline := learner{m.Name + ".baseline", p.Baseline.Path, false, t, nil, p.Baseline, own.encoders}
	// A baseline that looks at one thing or at none does not depend on the
	// model's features and encoders.
	only := func(f RawFeature) {
		in := EncodedInput{f.Name, p.Baseline.Kind.Defaults(f.Type)}
		baseline.transform, baseline.encoders = TransformArgs{Raw: []RawFeature{f}, Inputs: []EncodedInput{in}}, l.encoders(in)
	}
	if p.Rule != nil {
		only(RawFeature{ruleFeature, p.Rule.Type})
	} else if !p.Baseline.Kind.Features() {
		only(t.Raw[0])
	}

	// model is what is kept, judged and base are what its metrics are of, shown is what
	// the report looks into: one and the same, but under cross-validation.
	var model, judged, base, shown trained
	if f, ok := m.Split.Kind.(kind.Folded); ok {
		var models, bases []trained
		for k := range f.Folds(m.Split.Args) {
			split := l.split(m, dataset, k+1)
			name := fmt.Sprintf(".fold%d", k+1)
			models = append(models, l.evaluate(m, own, name, l.train(m, own, name, dataset, split, k+1), dataset, false))
			bases = append(bases, l.evaluate(m, baseline, name, l.train(m, baseline, name, dataset, split, k+1), dataset, false))
		}
		shown = models[len(models)-1]
		judged, base = l.pool(m, own, models, dataset), l.pool(m, baseline, bases, dataset)
		model = l.train(m, own, "", dataset, l.split(m, dataset, 0), 0)
		l.models[m] = append([]trained{model}, models...)
	} else {
		split := l.split(m, dataset, 0)
		judged = l.evaluate(m, own, "", l.train(m, own, "", dataset, split, 0), dataset, true)
		base = l.evaluate(m, baseline, "", l.train(m, baseline, "", dataset, split, 0), dataset, false)
		model, shown = judged, judged
		l.models[m] = []trained{model}
	}
	judged, base = l.measure(m, own, judged, dataset), l.measure(m, baseline, base, dataset)

	gate := l.gate(m, judged, base, dataset)
	explain := l.explain(m, judged, shown, dataset)
	inputs := []plan.Input{
		from("transform", model.fit, "transform"), from("model", model.train, "model"), from("heldout", model.train, "heldout"),
		from("metrics", judged.metrics, "metrics"), from("baseline", base.metrics, "metrics"), from("gate", gate, "result"), from("explain", explain, "report"),
		from("dataset", dataset, "rows"), from("split", model.split, "parts"), from("meta", dataset, "meta"), from("origin", dataset, "origin"),
	}
	for _, src := range sourcesOf(m, fs) {
		inputs = append(inputs, l.profiles[src])
	}
	pkg := l.add(OpPackage, m.Name, m.Path, l.packageArgs(s, m, fs, first), small, inputs, []string{"bundle"})
	l.argAt(pkg, "goal", "goal")
	l.argAt(pkg, "owner", "owner")
	inputs = []plan.Input{from("bundle", pkg, "bundle"), from("gate", gate, "result")}
	if c, ok := l.challenge(m, judged, dataset); ok {
		inputs = append(inputs, from("challenge", c, "result"))
	}
	reg := l.add(OpRegister, m.Name, m.Path, RegisterArgs{m.Name, m.Promote}, small, inputs, []string{"version"})
	l.argAt(reg, "promote", m.Path+".promote")
	l.gatesAt(reg, p)
}

// split adds the step that gives every row its part: in a fold of a cross-validation,
// from 1, or for the model that is kept.
func (l *lowerer) split(m *ir.Model, dataset, fold int) int {
	p := m.Problem
	needs, inputs := small, []plan.Input{from("dataset", dataset, "rows")}
	if m.Split.Command != nil || p.Task == kind.Multilabel {
		inputs = append(inputs, from("meta", dataset, "meta"))
	}
	if m.Split.Command != nil {
		needs, inputs = m.Split.Needs, append(inputs, commandInputs(m.Split.Container)...)
	}
	subject := m.Name
	if fold > 0 {
		subject += fmt.Sprintf(".fold%d", fold)
	}
	step := l.add(OpSplit, subject, m.Split.Path, SplitArgs{m.Split.Kind.Name(), m.Split.Args, m.Seed, p.Label.Source.Files, p.Label.At != nil, p.Task, fold}, needs, inputs, []string{"parts"}, m.Split.Kind)
	l.contain(step, m.Split.Container, m.Split.Path)
	l.argAt(step, "args", m.Split.Path)
	l.argAt(step, "kind", m.Split.Path+".kind")
	l.argAt(step, "seed", m.Path+".seed")
	return step
}

// gate adds the step that compares a model with what its problem asks.
func (l *lowerer) gate(m *ir.Model, model, base trained, dataset int) int {
	p := m.Problem
	a := GateArgs{Task: p.Task, Gates: []Gate{}, Seed: m.Seed}
	var metrics []kind.Versioned
	for _, g := range p.Gates {
		if !demands(g) {
			continue
		}
		a.Gates = append(a.Gates, Gate{g.Metric.Name, g.Metric.Better(), g.Min, g.Max, g.OverBaseline, g.Confidence})
		if g.Metric.Custom == nil {
			metrics = append(metrics, g.Metric.Kind)
		}
	}
	for _, f := range p.Fairness {
		a.Fairness = append(a.Fairness, f.Fairness)
	}
	step := l.add(OpGate, m.Name, p.Path+".metrics", a, wide, []plan.Input{
		from("metrics", model.metrics, "metrics"), from("baseline", base.metrics, "metrics"),
		from("predictions", model.evaluate, "predictions"), from("baseline_predictions", base.evaluate, "predictions"),
		from("dataset", dataset, "rows"), from("meta", dataset, "meta"),
	}, []string{"result"}, metrics...)
	l.gatesAt(step, p)
	return step
}

// gatesAt tells where the spec has what a step's gates and fairness rules ask.
func (l *lowerer) gatesAt(step int, p *ir.Problem) {
	n := 0
	for _, g := range p.Gates {
		if demands(g) {
			l.argAt(step, fmt.Sprintf("gates[%d]", n), g.Path)
			n++
		}
	}
	for i, f := range p.Fairness {
		l.argAt(step, fmt.Sprintf("fairness[%d]", i), f.Path)
	}
}

// demands reports whether a gate asks something of the model by itself, and not only of
// how it compares with the version in production.
func demands(g ir.Gate) bool { return g.Min != nil || g.Max != nil || g.OverBaseline != nil }

// explain adds the step that makes a model's report of how it was judged, and of what
// one training of it looks at.
func (l *lowerer) explain(m *ir.Model, judged, shown trained, dataset int) int {
	p := m.Problem
	names, metrics := metricsOf(p)
	a := ExplainArgs{Task: p.Task, Metrics: names, Seed: m.Seed}
	if p.Primary.Custom == nil {
		a.Metric = p.Primary.Name
	}
	for _, c := range p.Slices {
		a.Slices = append(a.Slices, c.Name)
	}
	step := l.add(OpExplain, m.Name, m.Path, a, wide, []plan.Input{
		from("transform", shown.fit, "transform"), from("model", shown.train, "model"), from("metrics", judged.evaluate, "metrics"),
		from("predictions", judged.evaluate, "predictions"), from("dataset", dataset, "rows"), from("split", shown.split, "parts"), from("meta", dataset, "meta"),
	}, []string{"report"}, metrics...)
	l.argAt(step, "slices", p.Path+".metrics.slices")
	return step
}

// challenge adds the step that compares a model with the version in production, where
// a gate asks for it.
func (l *lowerer) challenge(m *ir.Model, model trained, dataset int) (int, bool) {
	p := m.Problem
	a := ChallengeArgs{Task: p.Task, Alias: Production, Seed: m.Seed}
	var paths []string
	var metrics []kind.Versioned
	for _, g := range p.Gates {
		if g.OverProduction != nil && g.Metric.Kind != nil {
			a.Gates = append(a.Gates, Challenge{g.Metric.Name, g.Metric.Better(), *g.OverProduction, g.Confidence})
			paths, metrics = append(paths, g.Path+".over_production"), append(metrics, g.Metric.Kind)
		}
	}
	if len(a.Gates) == 0 {
		return 0, false
	}
	step := l.add(OpChallenge, m.Name, p.Path+".metrics", a, wide, []plan.Input{
		from("metrics", model.evaluate, "metrics"), from("predictions", model.evaluate, "predictions"),
		from("dataset", dataset, "rows"), from("meta", dataset, "meta"),
		{Name: "champion", Step: -1, Registered: &plan.Registered{Model: m.Name, Alias: Production}},
	}, []string{"result"}, metrics...)
	for i, path := range paths {
		l.argAt(step, fmt.Sprintf("gates[%d]", i), path)
	}
	return step, true
}

// metricsOf are the metrics of a problem that are no custom ones, each once.
func metricsOf(p *ir.Problem) (names []string, kinds []kind.Versioned) {
	names = []string{}
	use := func(m ir.Metric) {
		if m.Custom == nil && !slices.Contains(names, m.Name) {
			names, kinds = append(names, m.Name), append(kinds, m.Kind)
		}
	}
	use(p.Primary)
	for _, g := range p.Gates {
		use(g.Metric)
	}
	return names, kinds
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
	a := DatasetArgs{Task: p.Task, Quantiles: p.Quantiles, Source: l.rows[src].Name, Features: []Projection{}}
	for _, e := range p.Label.Exprs {
		sql := e.Expr.SQL(column("l"))
		if p.Task == kind.Multiclass {
			if e.Expr.Type == types.Int {
				sql = "CAST(" + sql + " AS BIGINT)"
			}
			sql = "CAST(" + sql + " AS VARCHAR)"
		}
		a.Labels = append(a.Labels, Target{e.Name, sql})
	}
	if p.Label.At != nil {
		a.Horizon = p.Label.Horizon.Microseconds()
		a.At = p.Label.At.Name
		a.Event = a.At
		afterAt, afterRow := p.Label.Known()
		a.Mature, a.RowDelay = afterAt.Microseconds(), afterRow.Microseconds()
		if src.Time.Event != nil {
			a.Event, a.ColumnDelay = src.Time.Event.Name, p.Label.ColumnDelay().Microseconds()
			if src.Time.Created != nil {
				a.Created = src.Time.Created.Name
			}
		}
	}
	if p.Entity != nil {
		for _, k := range p.Entity.Key {
			a.Group = append(a.Group, k.Name)
		}
	}
	inputs := []plan.Input{l.rows[src]}
	if p.Rule != nil && len(p.RuleUses) == 0 {
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
	by := append([]*ir.Column(nil), p.Slices...)
	for _, f := range p.Fairness {
		by = append(by, f.Column)
	}
	for i, c := range by {
		if slices.Index(by, c) < i {
			continue
		}
		ref, t := "l."+expr.QuoteName(c.Name), c.Type
		if t == types.Bool {
			ref, t = "CAST("+ref+" AS VARCHAR)", types.String
		}
		a.Features = append(a.Features, Projection{ByPrefix + c.Name, t, rawSQL(ref, t)})
	}
	joins := map[string]int{}
	var groups []string // paths of the joins' declarations
	// A rule may read more than the model does.
	rows := &features{raw: slices.Clone(fs.raw), seen: maps.Clone(fs.seen)}
	for _, f := range p.RuleUses {
		rows.add(f)
	}
	for _, f := range rows.raw {
		g := f.Group
		if f.Kind == ir.Request {
			a.Features = append(a.Features, Projection{f.Name, f.Type, rawSQL("l."+expr.QuoteName(f.Column.Name), f.Type)})
			continue
		}
		delay := g.Source.Time.Delay
		// A column of its own delay makes a join of its own: what was known of the
		// row then is not what was known of its other columns.
		delay += f.Column.Delay
		earlier := g.Source == src && delay+f.Lag+p.Label.Horizon == 0
		if f.Fn != "" {
			a.Windows = l.windowed(a.Windows, f, delay.Microseconds(), earlier)
			if !slices.ContainsFunc(inputs, func(in plan.Input) bool { return in.Name == l.rows[g.Source].Name }) {
				inputs = append(inputs, l.rows[g.Source])
			}
			continue
		}
		delay += f.Lag
		id := g.Name + " " + strconv.FormatInt(int64(delay), 10)
		i, ok := joins[id]
		if !ok {
			i = len(a.Snapshots)
			joins[id] = i
			j := l.join(g, delay.Microseconds())
			j.Earlier = earlier
			if j.TTL > 0 {
				j.TTL += f.Lag.Microseconds()
			}
			a.Snapshots = append(a.Snapshots, j)
			groups = append(groups, g.Path)
			if !slices.ContainsFunc(inputs, func(in plan.Input) bool { return in.Name == l.rows[g.Source].Name }) {
				inputs = append(inputs, l.rows[g.Source])
			}
		}
		a.Snapshots[i].Columns = append(a.Snapshots[i].Columns, Projection{f.Name, f.Type, rawSQL("r."+expr.QuoteName(f.Column.Name), f.Type)})
	}
	for _, f := range inSQL(append(slices.Clone(fs.batch), p.RuleUses...)) {
		a.Computed = append(a.Computed, computed(f.Name, f.Expr, f.Uses))
	}
	if len(p.RuleUses) > 0 {
		a.Computed = append(a.Computed, computed(ruleFeature, p.Rule, p.RuleUses))
	}
	step := l.add(OpDataset, m.Name, p.Path+".label", a, wide, inputs, []string{"rows", "meta", "origin"})
	for i, e := range p.Label.Exprs {
		l.argAt(step, fmt.Sprintf("labels[%d]", i), e.Path)
	}
	if l.argAt(step, "labels", p.Path+".label"); len(p.Label.Exprs) == 1 {
		l.argAt(step, "labels", p.Label.Exprs[0].Path)
	}
	l.argAt(step, "at", p.Path+".label.at")
	l.argAt(step, "mature", p.Path+".label.window")
	l.argAt(step, "features", m.Path+".inputs")
	l.argAt(step, "snapshots", m.Path+".inputs")
	for i, path := range groups {
		l.argAt(step, fmt.Sprintf("snapshots[%d]", i), path)
	}
	for i, w := range a.Windows {
		for k, c := range w.Columns {
			for _, f := range rows.raw {
				if f.Name == c.Name {
					l.argAt(step, fmt.Sprintf("windows[%d].columns[%d]", i, k), f.Path)
				}
			}
		}
	}
	l.argAt(step, "computed", m.Path+".inputs")
	return step
}

// windowed adds a statistic to those of its group, source and delay.
func (l *lowerer) windowed(all []Windowed, f *ir.Feature, delay int64, earlier bool) []Windowed {
	j := l.join(f.Group, delay)
	w := Windowed{Group: j.Group, Input: j.Input, Left: j.Left, Right: j.Right, Event: j.Event, Created: j.Created, Delay: delay, Earlier: earlier}
	i := slices.IndexFunc(all, func(o Windowed) bool { return o.Group == w.Group && o.Delay == delay })
	if i < 0 {
		i = len(all)
		all = append(all, w)
	}
	all[i].Columns = append(all[i].Columns, Aggregate{f.Name, f.Fn, rawSQL("r."+expr.QuoteName(f.Column.Name), f.Column.Type), f.Window.Microseconds()})
	return all
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

// inSQL are some features' derived ones and those that they are computed from, each
// after what it reads.
func inSQL(of []*ir.Feature) []*ir.Feature {
	var out []*ir.Feature
	for _, f := range of {
		if f.Kind == ir.Derived && !slices.Contains(out, f) {
			for _, u := range append(inSQL(f.Uses), f) {
				if !slices.Contains(out, u) {
					out = append(out, u)
				}
			}
		}
	}
	return out
}

// computed is an expression over the dataset's own columns.
func computed(name string, e *expr.Node, uses []*ir.Feature) Projection {
	of := map[string]types.Type{}
	for _, u := range uses {
		of[u.Name] = u.Type
	}
	sql := e.SQL(func(n *expr.Node) string {
		ref := expr.QuoteName(n.Name)
		switch of[n.Name] {
		case types.Bool:
			return "(" + ref + " <> 0)"
		case types.Timestamp:
			return "make_timestamp(CAST(" + ref + " AS BIGINT))"
		}
		return ref
	})
	return Projection{name, e.Type, rawSQL("("+sql+")", e.Type)}
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
	for _, in := range m.AllInputs() {
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

// learner is what is trained: a model, or the baseline that it has to beat.
type learner struct {
	subject   string
	at        string // path of its declaration
	own       bool   // the model itself
	transform TransformArgs
	derived   []*ir.Feature
	trainer   *ir.Trainer
	encoders  []kind.Versioned
}

// trained are the steps of one training: train is the last that makes the model,
// metrics the last that measures it.
type trained struct{ split, fit, train, evaluate, metrics int }

// stack adds the step that makes a transform of an ensemble's models: raw features in,
// their predictions out. turn is the training that they come from, as in models.
func (l *lowerer) stack(m *ir.Model, who learner, fold string, dataset, turn int) int {
	a := StackArgs{Raw: who.transform.Raw}
	inputs := []plan.Input{from("meta", dataset, "meta")}
	for _, o := range m.Members {
		t := l.models[o][turn]
		a.Members = append(a.Members, o.Name)
		inputs = append(inputs, from(o.Name+":transform", t.fit, "transform"), from(o.Name+":model", t.train, "model"))
	}
	return l.add(OpStack, who.subject+fold, who.trainer.Path, a, small, inputs, []string{"transform"})
}

// train adds the steps that make a model; fold is what a cross-validation adds to
// their names, turn its number from 1, or 0.
func (l *lowerer) train(m *ir.Model, who learner, fold string, dataset, split, turn int) trained {
	out := trained{split: split}
	subject := who.subject + fold
	rows := []plan.Input{from("dataset", dataset, "rows"), from("split", split, "parts")}
	fit := rows
	for _, e := range who.encoders {
		if _, ok := e.(kind.Supervised); ok && len(fit) == len(rows) {
			fit = append(fit[:len(fit):len(fit)], from("meta", dataset, "meta"))
		}
	}
	if who.own && len(m.Members) > 0 {
		out.fit = l.stack(m, who, fold, dataset, turn)
	} else {
		out.fit = l.add(OpFit, subject, who.at, who.transform, wide, fit, []string{"transform"}, who.encoders...)
	}
	if who.own {
		for i, in := range m.Inputs {
			l.argAt(out.fit, fmt.Sprintf("inputs[%d]", i), in.Path)
			for k, e := range in.Encoders {
				l.argAt(out.fit, fmt.Sprintf("inputs[%d].encoders[%d]", i, k), e.Path)
			}
		}
		l.argAt(out.fit, "raw", m.Path+".inputs")
		for i, f := range who.derived {
			l.argAt(out.fit, fmt.Sprintf("derived[%d]", i), f.Path)
		}
	}
	transform, meta := from("transform", out.fit, "transform"), from("meta", dataset, "meta")
	tr := who.trainer
	out.train = l.add(OpTrain, subject, tr.Path, TrainArgs{tr.Kind.Name(), tr.Args, m.Seed, m.Problem.Task}, tr.Needs,
		append(append(append([]plan.Input{transform, meta}, rows...), commandInputs(tr.Container)...), fileInputs(tr.Files)...), []string{"model", "heldout"}, tr.Kind)
	l.contain(out.train, tr.Container, tr.Path)
	l.argAt(out.train, "kind", tr.Path+".kind")
	l.argAt(out.train, "args", tr.Path)
	l.argAt(out.train, "seed", m.Path+".seed")
	if c := m.Calibrate; c != nil && who.own {
		inputs := append([]plan.Input{transform, from("model", out.train, "model"), from("heldout", out.train, "heldout"), meta}, rows...)
		out.train = l.add(OpCalibrate, subject, c.Path, CalibrateArgs{c.Kind.Name(), c.Args}, wide, inputs, []string{"model", "heldout"}, c.Kind)
		l.argAt(out.train, "kind", c.Path+".kind")
		l.argAt(out.train, "args", c.Path)
	}
	return out
}

// evaluate adds the step that judges a training, with or without how sure it is.
func (l *lowerer) evaluate(m *ir.Model, who learner, fold string, t trained, dataset int, sure bool) trained {
	p := m.Problem
	names, metrics := metricsOf(p)
	t.evaluate = l.add(OpEvaluate, who.subject+fold, p.Path+".metrics", EvaluateArgs{p.Task, names, p.Decision, sure, !who.own, m.Seed}, wide, []plan.Input{
		from("transform", t.fit, "transform"), from("model", t.train, "model"), from("meta", dataset, "meta"),
		from("dataset", dataset, "rows"), from("split", t.split, "parts"),
	}, []string{"metrics", "predictions"}, metrics...)
	l.argAt(t.evaluate, "metrics", p.Path+".metrics")
	l.argAt(t.evaluate, "decision", p.Path+".decision")
	t.metrics = t.evaluate
	return t
}

// FoldPrefix begins the names of the inputs of model.pool: the metrics and the
// predictions of each fold, from 1.
const FoldPrefix = "fold"

// pool adds the step that puts the folds of a cross-validation together.
func (l *lowerer) pool(m *ir.Model, who learner, folds []trained, dataset int) trained {
	p := m.Problem
	names, metrics := metricsOf(p)
	inputs := []plan.Input{from("dataset", dataset, "rows"), from("meta", dataset, "meta")}
	for i, t := range folds {
		inputs = append(inputs, from(fmt.Sprintf("%s%d:metrics", FoldPrefix, i+1), t.evaluate, "metrics"), from(fmt.Sprintf("%s%d:predictions", FoldPrefix, i+1), t.evaluate, "predictions"))
	}
	step := l.add(OpPool, who.subject, p.Path+".metrics", PoolArgs{p.Task, names, len(folds), who.own, m.Seed}, wide, inputs, []string{"metrics", "predictions"}, metrics...)
	l.argAt(step, "metrics", p.Path+".metrics")
	return trained{evaluate: step, metrics: step}
}

// measure adds the steps of custom metrics, each of which adds itself to those before
// it.
func (l *lowerer) measure(m *ir.Model, who learner, t trained, dataset int) trained {
	for _, c := range m.Problem.Custom {
		needs := small
		if c.Command != nil {
			needs = c.Needs
		}
		inputs := []plan.Input{from("metrics", t.metrics, "metrics"), from("predictions", t.evaluate, "predictions"), from("dataset", dataset, "rows"), from("meta", dataset, "meta")}
		t.metrics = l.add(OpMeasure, who.subject+"."+c.Name, c.Path, MeasureArgs{c.Name, c.Kind.Name(), c.Args}, needs, append(inputs, commandInputs(c.Container)...), []string{"metrics"}, c.Kind)
		l.contain(t.metrics, c.Container, c.Path)
		l.argAt(t.metrics, "args", c.Path)
	}
	return t
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
	a := PackageArgs{Name: m.Name, System: s.Name, Goal: s.Goal, Owner: s.Owner, Problem: p.Name, Task: p.Task, Label: p.Label.Text(), Primary: p.Primary.Name,
		Trainer: m.Trainer.Args, Split: m.Split.Args, Raw: []Field{}}
	for _, g := range p.Gates {
		a.Challenged = a.Challenged || g.OverProduction != nil
	}
	for _, in := range m.AllInputs() {
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
			field.Column = c.Name
		}
		if f.Fn == "" { // it is a value of the column, which has its bounds
			field.Min, field.Max, field.In = c.Min, c.Max, c.In
		}
		if src := f.Group.Source; f.Type == types.String {
			if k, ok := src.Kind.(kind.NullTexts); ok {
				field.Nulls = k.NullTexts(src.Args, src.Files)
			}
		}
		a.Raw = append(a.Raw, field)
	}
	for _, f := range inSQL(fs.batch) {
		a.Computed = append(a.Computed, computed(f.Name, f.Expr, f.Uses))
	}
	var text struct {
		NullValues []string `json:"null_values"`
		Delimiter  string   `json:"delimiter"`
		Encoding   string   `json:"encoding"`
	}
	if err := json.Unmarshal(p.Label.Source.Args, &text); err == nil {
		a.Nulls, a.Delimiter, a.Encoding = text.NullValues, text.Delimiter, text.Encoding
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
