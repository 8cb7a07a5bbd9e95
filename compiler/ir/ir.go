// Package ir is the resolved, typed system: every name is a pointer, every
// expression is typed. Every node carries the path of its declaration in the
// spec, from which its range is found.
package ir

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
)

// System is a whole spec.
type System struct {
	Name, Goal, Owner string
	Dir               string // absolute; paths in the spec start there
	Sources           []*Source
	Problems          []*Problem
	Models            []*Model
	Features          []*Feature // in order of groups and names
	TrainBudget       float64    // US dollars; 0: none
	Services          []*Service
	Batches           []*Batch
}

// Source is a table.
type Source struct {
	Name, Path    string
	Kind          kind.Source
	Args          json.RawMessage
	Columns       []*Column
	Time          Time
	MaxQuarantine float64
	Files         []string // as users call them, in row order
	// Reads are the sources that it is made of.
	Reads     []*Source
	Container // of its first step
}

// Column returns a column by name, or nil.
func (s *Source) Column(name string) *Column {
	for _, c := range s.Columns {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ColumnNames lists the columns.
func (s *Source) ColumnNames() []string {
	out := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		out[i] = c.Name
	}
	return out
}

// Column is a declared column.
type Column struct {
	kind.Column
	Path      string
	Sensitive bool
	Delay     time.Duration // after the row's event time
	Ahead     bool          // known long before it
}

// Time says when rows happened and were known.
type Time struct {
	Declared       bool
	Static         bool
	Event, Created *Column
	Delay          time.Duration
}

// Entity is a kind of thing that features describe.
type Entity struct {
	Name, Path string
	Key        []KeyColumn
}

// KeyColumn is a part of an entity's key.
type KeyColumn struct {
	Name string
	Type types.Type
}

// Problem is something to predict.
type Problem struct {
	Name, Path string
	Task       string
	Entity     *Entity // nil: each row is its own
	Label      Label
	Baseline   *Trainer
	Rule       *expr.Node // the baseline's expression, when it is a rule
	// RuleUses are the features that the rule reads; else it reads columns of the
	// label's source.
	RuleUses  []*Feature
	Primary   Metric
	Gates     []Gate
	Custom    []*CustomMetric // in the order of their names
	Quantiles []float64
	Decision  *kind.Decision // nil: 0.5
	Slices    []*Column      // of the label's source
	Fairness  []Fairness
}

// Fairness is a demand on the groups of a column of the label's source.
type Fairness struct {
	kind.Fairness
	Path   string
	Column *Column
}

// Metric is what a name means as a metric: Kind, or Custom of the problem's own.
type Metric struct {
	Name   string
	Kind   kind.Metric
	Custom *CustomMetric
}

// Better tells the good direction.
func (m Metric) Better() kind.Direction {
	if m.Custom != nil {
		return m.Custom.Kind.Better(m.Custom.Args)
	}
	return m.Kind.Better()
}

// CustomMetric is a metric that a problem declares.
type CustomMetric struct {
	Name, Path string
	Kind       kind.CustomMetric
	Args       json.RawMessage // without what leaves the result as it is
	Container
}

// Container is what the command of a kind.Commanded runs in; its paths are relative
// to the spec's folder.
type Container struct {
	Needs   plan.Needs    // zero: the usual
	Command *kind.Command // nil: no command
	Code    []string      // the files of its code
}

// Label is how the truth is computed.
type Label struct {
	Source *Source
	// Exprs are the expressions by the names of a multilabel problem's labels, which
	// are in order; others have one, without a name.
	Exprs         []LabelExpr
	At            *Column // nil: the problem has no time
	Window, Delay time.Duration
	// Horizon is how long before At the prediction is made.
	Horizon time.Duration
}

// LabelExpr is one target of a label.
type LabelExpr struct {
	Name, Path string
	Expr       *expr.Node
}

// Known is how long after At the outcome is known, and how long after the row's event or
// creation, whichever is later, as its source and its columns declare it; of a source
// without times the latter is 0.
func (l Label) Known() (afterAt, afterRow time.Duration) {
	afterAt = l.Window + l.Delay
	if l.Source == nil || l.Source.Time.Event == nil {
		return afterAt, 0
	}
	return afterAt, l.Source.Time.Delay + l.ColumnDelay()
}

// ColumnDelay is the longest delay of the columns from which the label is computed.
func (l Label) ColumnDelay() time.Duration {
	var longest time.Duration
	for _, e := range l.Exprs {
		for _, n := range e.Expr.Columns() {
			if c := l.Source.Column(n.Name); c != nil {
				longest = max(longest, c.Delay)
			}
		}
	}
	return longest
}

// Late is how long after the prediction time the outcome is known at the earliest.
func (l Label) Late() time.Duration {
	afterAt, afterRow := l.Known()
	if l.Source != nil && l.At != nil && l.Source.Time.Event == l.At {
		afterAt = max(afterAt, afterRow)
	}
	return l.Horizon + afterAt
}

// Text is the label as people read it.
func (l Label) Text() string {
	out := make([]string, len(l.Exprs))
	for i, e := range l.Exprs {
		if out[i] = e.Expr.String(); e.Name != "" {
			out[i] = e.Name + ": " + out[i]
		}
	}
	return strings.Join(out, "; ")
}

// Gate is what a metric must reach.
type Gate struct {
	Metric                                 Metric
	Path                                   string
	Min, Max, OverBaseline, OverProduction *float64
	Confidence                             float64
}

// FeatureKind tells how a feature is made.
type FeatureKind string

// The kinds of features.
const (
	Request  FeatureKind = "request"
	Snapshot FeatureKind = "snapshot"
	Derived  FeatureKind = "derived"
)

// Feature is one feature: "group.name".
type Feature struct {
	Name, Path string
	Group      *Group
	Kind       FeatureKind
	Type       types.Type
	Column     *Column // request and snapshot
	// Lag is how long before the prediction time a snapshot is looked at.
	Lag time.Duration
	// Fn is the statistic of a window of rows that became known by then; "": the
	// latest of them. Of a count, Column is the source's event time.
	Fn     string
	Window time.Duration
	Expr   *expr.Node
	Uses   []*Feature // derived: what its expression reads
	Online bool       // derived: whether it can be lowered to ONNX
}

// Raw lists the features that f is computed from and that are not computed
// themselves in the model: itself, or what a derived one reads, transitively.
func (f *Feature) Raw() []*Feature {
	if f.Kind != Derived || !f.Online {
		return []*Feature{f}
	}
	var out []*Feature
	for _, u := range f.Uses {
		out = append(out, u.Raw()...)
	}
	return out
}

// Origins lists the source columns that f's value comes from.
func (f *Feature) Origins() []*Feature {
	if f.Kind != Derived {
		return []*Feature{f}
	}
	var out []*Feature
	for _, u := range f.Uses {
		out = append(out, u.Origins()...)
	}
	return out
}

// Group is a declared group of features.
type Group struct {
	Name, Path string
	Kind       FeatureKind
	Source     *Source // request and snapshot
	Entity     *Entity // snapshot
	Key        []*Column
	TTL        time.Duration // 0: none
}

// Model is a solution of a problem.
type Model struct {
	Name, Path string
	Problem    *Problem
	Inputs     []*Input
	Split      Split
	Trainer    *Trainer
	Calibrate  *Calibrator // nil: none
	// Members are the models of an ensemble, which has no inputs of its own.
	Members []*Model
	Seed    uint64
	Promote string
}

// AllInputs are a model's inputs, or those of an ensemble's models.
func (m *Model) AllInputs() []*Input {
	out := m.Inputs
	for _, o := range m.Members {
		out = append(out[:len(out):len(out)], o.Inputs...)
	}
	return out
}

// Calibrator is what corrects a model's probabilities.
type Calibrator struct {
	Kind kind.Calibrator
	Args json.RawMessage
	Path string
}

// Input is a feature that enters a model.
type Input struct {
	Feature        *Feature
	Path           string
	Encoders       []Encoder
	AllowSensitive string
}

// Encoder is one step of an input's encoding.
type Encoder struct {
	Kind kind.Encoder
	Args json.RawMessage
	Path string
}

// Split divides a model's rows.
type Split struct {
	Kind kind.Split
	Args json.RawMessage // without what leaves the result as it is
	Path string
	// Column is that of a kind.ByColumn.
	Column *Column
	Container
}

// Trainer is what learns.
type Trainer struct {
	Kind kind.Trainer
	Args json.RawMessage // without resources
	Path string
	Container
	// Files are those of a kind.Filed by the argument that names each, and is not
	// in Args; relative to the spec's folder, or absolute.
	Files map[string]string
}

// Service is a realtime service.
type Service struct {
	service.Service
	Path string
}

// Batch is a prediction of a table.
type Batch struct {
	service.Batch
	Path string
	Rows *Source
}

// Text prints a system, a line a node, for golden tests and for people.
func (s *System) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "system %s\n", s.Name)
	for _, src := range s.Sources {
		fmt.Fprintf(&b, "source %s kind=%s columns=%d files=%d\n", src.Name, src.Kind.Name(), len(src.Columns), len(src.Files))
	}
	for _, f := range s.Features {
		fmt.Fprintf(&b, "feature %s %s %s", f.Name, f.Kind, f.Type)
		if f.Expr != nil {
			fmt.Fprintf(&b, " = %s", f.Expr)
		}
		b.WriteByte('\n')
	}
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "problem %s %s label=%s\n", p.Name, p.Task, p.Label.Text())
	}
	for _, m := range s.Models {
		fmt.Fprintf(&b, "model %s problem=%s trainer=%s split=%s\n", m.Name, m.Problem.Name, m.Trainer.Kind.Name(), m.Split.Kind.Name())
		for _, in := range m.Inputs {
			names := make([]string, len(in.Encoders))
			for i, e := range in.Encoders {
				names[i] = e.Kind.Name()
			}
			fmt.Fprintf(&b, "  input %s %s\n", in.Feature.Name, strings.Join(names, ","))
		}
	}
	for _, v := range s.Services {
		fmt.Fprintf(&b, "service %s", v.Name)
		for _, m := range v.Models() {
			fmt.Fprintf(&b, " %s", m)
		}
		b.WriteByte('\n')
	}
	for _, v := range s.Batches {
		fmt.Fprintf(&b, "batch %s %s source=%s output=%s\n", v.Name, v.Model, v.Source, v.Output)
	}
	return b.String()
}

// BatchOnly are the sources of batches that no label, no feature and no other
// source is made of.
func (s *System) BatchOnly() map[*Source]bool {
	out := map[*Source]bool{}
	for _, b := range s.Batches {
		out[b.Rows] = true
	}
	for _, p := range s.Problems {
		delete(out, p.Label.Source)
	}
	for _, f := range s.Features {
		delete(out, f.Group.Source)
	}
	for _, src := range s.Sources {
		for _, r := range src.Reads {
			delete(out, r)
		}
	}
	return out
}
