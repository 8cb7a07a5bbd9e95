// Package lower turns the ir into a plan, a file per section of the spec.
package lower

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
)

// Versions of the operations. One rises whenever the same arguments and inputs
// can give other bytes.
var versions = map[string]int{
	OpSnapshot: 4, OpValidate: 5, OpDataset: 4, OpSplit: 2, OpFit: 4, OpStack: 1, OpTrain: 2, OpCalibrate: 2, OpEvaluate: 5, OpPool: 3, OpMeasure: 1, OpExplain: 3, OpGate: 6, OpChallenge: 3, OpPackage: 6, OpRegister: 1,
}

// The operations.
const (
	OpSnapshot  = "source.snapshot"
	OpValidate  = "source.validate"
	OpDataset   = "dataset.build"
	OpSplit     = "dataset.split"
	OpFit       = "transform.fit"
	OpStack     = "transform.stack"
	OpTrain     = "model.train"
	OpCalibrate = "model.calibrate"
	OpEvaluate  = "model.evaluate"
	OpPool      = "model.pool"
	OpMeasure   = "model.measure"
	OpExplain   = "model.explain"
	OpGate      = "model.gate"
	OpChallenge = "model.challenge"
	OpPackage   = "model.package"
	OpRegister  = "model.register"
)

// GateFile is what model.gate writes, by which model.register knows whether it may.
const GateFile = "gate.json"

// System makes the plan: the sources, and for each model the way from rows to a
// registered version. What only batches read is read when they run: their rows may
// not be there yet, and no model depends on them.
func System(s *ir.System, kinds kind.Kinds) *plan.Plan {
	l := &lowerer{kinds: kinds, plan: &plan.Plan{System: s.Name}, rows: map[*ir.Source]plan.Input{}, profiles: map[*ir.Source]plan.Input{}, models: map[*ir.Model][]trained{}}
	later := s.BatchOnly()
	for _, src := range s.Sources {
		if !later[src] {
			l.source(src)
		}
	}
	for _, m := range s.Models {
		if len(m.Members) == 0 {
			l.model(s, m)
		}
	}
	for _, m := range s.Models {
		if len(m.Members) > 0 {
			l.model(s, m)
		}
	}
	return l.plan
}

type lowerer struct {
	kinds          kind.Kinds
	plan           *plan.Plan
	rows, profiles map[*ir.Source]plan.Input
	// models are each one's trainings: the one that is kept, then those of folds.
	models map[*ir.Model][]trained
}

// add appends a step and returns its index. kinds take part in its version.
func (l *lowerer) add(op, subject, at string, args any, needs plan.Needs, inputs []plan.Input, outputs []string, kinds ...kind.Versioned) int {
	b := canonical(args)
	version := fmt.Sprint(versions[op])
	for _, k := range kinds {
		version += fmt.Sprintf(" %s.%d", k.Name(), k.Version())
	}
	l.plan.Steps = append(l.plan.Steps, plan.Step{ID: op + " " + subject, Op: op, Version: version, Args: b, Inputs: inputs, Outputs: outputs, Needs: needs, At: at, ArgAt: map[string]string{}})
	return len(l.plan.Steps) - 1
}

// canonical is JSON with sorted keys: the order of a spec's lines must not show.
func canonical(args any) json.RawMessage {
	b, err := json.Marshal(args)
	if err != nil {
		panic(fmt.Sprintf("lower: %v", err)) // plain data
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		panic(fmt.Sprintf("lower: %v", err))
	}
	if b, err = json.Marshal(tree); err != nil {
		panic(fmt.Sprintf("lower: %v", err))
	}
	return b
}

func (l *lowerer) argAt(step int, arg, path string) { l.plan.Steps[step].ArgAt[arg] = path }

func from(name string, step int, output string) plan.Input {
	return plan.Input{Name: name, Step: step, Output: output}
}

// small is what steps need that are not about training.
var small = plan.Needs{CPU: 1, Memory: 512 << 20}

// wide is what steps need that scan whole tables.
var wide = plan.Needs{CPU: 2, Memory: 2 << 30}

// SourcePrefix begins the name of an input that is a source's validated rows.
const SourcePrefix = "source:"

// SnapshotArgs are the arguments of source.snapshot.
type SnapshotArgs struct {
	Kind    string          `json:"kind"`
	Args    json.RawMessage `json:"args"`
	Columns []kind.Column   `json:"columns"` // names and types
	Files   []string        `json:"files"`
}

// ValidateArgs are the arguments of source.validate.
type ValidateArgs struct {
	Source        string        `json:"source"`
	Columns       []kind.Column `json:"columns"`
	MaxQuarantine float64       `json:"max_quarantine"`
	// Files are what users call the files of the rows, where there are several.
	Files []string `json:"files,omitempty"`
}

func (l *lowerer) source(s *ir.Source) {
	if _, done := l.rows[s]; done {
		return
	}
	for _, r := range s.Reads {
		l.source(r)
	}
	ordered := append([]*ir.Column(nil), s.Columns...)
	if !s.Kind.Ordered(s.Args) {
		sort.Slice(ordered, func(i, j int) bool { return ordered[i].Name < ordered[j].Name })
	}
	names, cols := make([]kind.Column, len(ordered)), make([]kind.Column, len(ordered))
	for i, c := range ordered {
		names[i], cols[i] = kind.Column{Name: c.Name, Type: c.Type}, c.Column
		if c == s.Time.Event || c == s.Time.Created {
			cols[i].Never = true // a row that does not say when it was known could leak
		}
	}
	needs, inputs := wide, []plan.Input{{Name: "files", Step: -1, Files: s.Files}}
	if s.Command != nil {
		needs, inputs = s.Needs, commandInputs(s.Container)
	}
	for _, r := range s.Reads {
		inputs = append(inputs, l.rows[r])
	}
	snap := l.add(OpSnapshot, s.Name, s.Path, SnapshotArgs{s.Kind.Name(), s.Args, names, s.Files}, needs, inputs, []string{"rows", "rejects"}, s.Kind)
	l.contain(snap, s.Container, s.Path)
	l.argAt(snap, "args", s.Path)
	l.argAt(snap, "columns", s.Path+".columns")
	l.argAt(snap, "files", s.Path+".path")
	var several []string
	if len(s.Files) > 1 {
		several = s.Files
	}
	val := l.add(OpValidate, s.Name, s.Path, ValidateArgs{s.Name, cols, s.MaxQuarantine, several}, wide,
		[]plan.Input{from("rows", snap, "rows"), from("rejects", snap, "rejects")}, []string{"rows", "quarantine", "profile"})
	for i, c := range ordered {
		l.argAt(val, fmt.Sprintf("columns[%d]", i), c.Path)
	}
	l.argAt(val, "max_quarantine", s.Path+".max_quarantine")
	l.rows[s], l.profiles[s] = from(SourcePrefix+s.Name, val, "rows"), from("profile:"+s.Name, val, "profile")
}

// column is the SQL of a column node of a source.
func column(alias string) func(*expr.Node) string {
	return func(n *expr.Node) string { return alias + "." + expr.QuoteName(n.Name) }
}

// rawSQL is the SQL that gives a column in the form of a raw feature: DOUBLE
// (timestamps in microseconds, booleans 0 and 1) or VARCHAR.
func rawSQL(ref string, t types.Type) string {
	switch t {
	case types.String:
		return ref
	case types.Timestamp:
		return "CAST(epoch_us(" + ref + ") AS DOUBLE)"
	}
	return "CAST(" + ref + " AS DOUBLE)"
}
