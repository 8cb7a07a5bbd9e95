// Package check proves a spec sound: it resolves names and types to the ir, and
// then runs each proof, a file each. Every mistake is reported, at its own
// place; what follows from one that is already reported is not.
package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/ir"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/compiler/types"
)

// System resolves a spec and proves it. The system is complete only where the
// list has no errors. With trained nothing is trained, and what that would read need not be here.
func System(s *spec.Spec, kinds kind.Kinds, e *env.Environment, trained bool) (*ir.System, diag.List) {
	r := &resolver{trained: trained, spec: s, kinds: kinds, sys: &ir.System{Dir: s.Dir}, sources: map[string]*ir.Source{}, entities: map[string]*ir.Entity{},
		groups: map[string]*ir.Group{}, features: map[string]*ir.Feature{}, problems: map[string]*ir.Problem{}, folded: map[string]string{}, files: map[*ir.Source]pathFaults{}}
	r.resolve()
	r.missing()
	r.validated()
	r.named()
	r.tooOld()
	r.leakage()
	r.sensitive()
	if e != nil {
		r.feasible(e)
	}
	r.list.Sort()
	return r.sys, r.list
}

type resolver struct {
	trained  bool
	spec     *spec.Spec
	kinds    kind.Kinds
	sys      *ir.System
	list     diag.List
	sources  map[string]*ir.Source
	entities map[string]*ir.Entity
	groups   map[string]*ir.Group
	features map[string]*ir.Feature
	problems map[string]*ir.Problem
	folded   map[string]string // features by their name in lower case
	files    map[*ir.Source]pathFaults
}

// pathFaults are faults below a path of the spec.
type pathFaults struct {
	path   string
	faults []kind.Fault
}

// missing tells of sources' files. Those that only a batch reads may come later.
func (r *resolver) missing() {
	later := r.sys.BatchOnly()
	for s, f := range r.files {
		var told []kind.Fault
		for _, x := range f.faults {
			if x.Code != diag.FileMissing || !later[s] && !r.trained {
				told = append(told, x)
			}
		}
		r.faults(f.path, told)
	}
}

// add reports a mistake at a path's value.
func (r *resolver) add(path string, code diag.Code, what string, args ...any) *diag.Diagnostic {
	if r.trained && code == diag.FileMissing && !strings.HasPrefix(path, "serving.") {
		return &diag.Diagnostic{}
	}
	return r.list.Add(r.spec.At(path), code, what, args...)
}

// addLabel reports a mistake at a path's name.
func (r *resolver) addLabel(path string, code diag.Code, what string, args ...any) *diag.Diagnostic {
	return r.list.Add(r.spec.Label(path), code, what, args...)
}

// faults reports what a kind found in its arguments, which stand at path.
func (r *resolver) faults(path string, faults []kind.Fault) {
	for _, f := range faults {
		at := r.spec.Label(path)
		if f.Field != "" {
			at = r.spec.At(path + "." + f.Field)
			if f.End > 0 {
				at = r.spec.Inside(path+"."+f.Field, f.Start, f.End)
			}
		}
		r.list.Add(at, f.Code, "%s", f.What).Because(f.Why, f.Mend)
	}
}

// get decodes the value at a path into out, as far as it is there.
func get[T any](v *spec.Value) T {
	var out T
	if v != nil {
		b, err := v.MarshalJSON()
		if err == nil {
			// What the schema has refused stays zero; it has been reported.
			_ = json.Unmarshal(b, &out)
		}
	}
	return out
}

func text(v *spec.Value) string {
	if v == nil {
		return ""
	}
	s, _ := v.Scalar.(string)
	return s
}

// section calls f for every element of a section of the spec, in order.
func (r *resolver) section(name string, f func(name string, v *spec.Value)) {
	if sec := r.spec.Root.Get(name); sec != nil {
		for _, e := range sec.Fields {
			f(e.Name, e.Value)
		}
	}
}

func keys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// ref looks a name up; an unknown one is reported unless CUE has refused the
// declaration it may mean.
func ref[T any](r *resolver, what, section string, m map[string]T, v *spec.Value) (T, bool) {
	var zero T
	name := text(v)
	if name == "" {
		return zero, false
	}
	if x, ok := m[name]; ok {
		return x, true
	}
	if !r.spec.Broken(section + "." + name) {
		r.add(v.Path, diag.NoName, "no %s %q%s", what, name, diag.Choices(name, keys(m))).Because("", fmt.Sprintf("declare it under %s, or mend the name", section))
	}
	return zero, false
}

func (r *resolver) resolve() {
	root := r.spec.Root
	r.sys.Name, r.sys.Goal, r.sys.Owner = text(root.Get("name")), text(root.Get("goal")), text(root.Get("owner"))
	if b := root.Get("budget"); b != nil {
		r.sys.TrainBudget = get[float64](b.Get("train"))
	}
	r.section("entities", r.entity)
	r.section("sources", r.source)
	r.section("sources", r.reads)
	r.section("features", r.group)
	r.derived()
	r.section("problems", r.problem)
	r.section("models", r.model)
	r.members()
	r.section("serving", r.service)
}

func (r *resolver) entity(name string, v *spec.Value) {
	e := &ir.Entity{Name: name, Path: v.Path}
	if key := v.Get("key"); key != nil {
		for _, k := range key.Fields {
			e.Key = append(e.Key, ir.KeyColumn{Name: k.Name, Type: types.Type(text(k.Value))})
		}
	}
	if len(e.Key) == 0 && !r.spec.Broken(v.Path) {
		r.addLabel(v.Path, diag.BadArgs, "entity %q has no key column", name).Because("rows are joined by it", `write key: customer_id: "string"`)
	}
	r.entities[name] = e
}

func (r *resolver) source(name string, v *spec.Value) {
	k, ok := r.kinds.Sources.Get(text(v.Get("kind")))
	if !ok {
		return
	}
	s := &ir.Source{Name: name, Path: v.Path, Kind: k, MaxQuarantine: get[float64](v.Get("max_quarantine"))}
	if cols := v.Get("columns"); cols != nil {
		folded := map[string]string{}
		for _, c := range cols.Fields {
			if other, dup := folded[strings.ToLower(c.Name)]; dup {
				r.addLabel(c.Value.Path, diag.BadArgs, "columns %q and %q differ only in case", other, c.Name).Because("SQL takes them for one", "rename one of them in the data")
			}
			folded[strings.ToLower(c.Name)] = c.Name
			s.Columns = append(s.Columns, r.column(c))
		}
	}
	if len(s.Columns) == 0 && !r.spec.Broken(v.Path) {
		r.addLabel(v.Path, diag.BadArgs, "source %q declares no columns", name).Because("only declared columns are read", "")
	}
	own := map[string]json.RawMessage{}
	whole := true
	for _, f := range v.Fields {
		if f.Name != "columns" && f.Name != "time" && f.Name != "max_quarantine" {
			own[f.Name], _ = f.Value.MarshalJSON()
			whole = whole && !r.spec.Broken(f.Value.Path)
		}
	}
	s.Args, s.Container = r.contained(v, k, own)
	r.time(s, v.Get("time"))
	if whole && v.Get("path") != nil {
		files, faults := k.Files(s.Args, r.spec.Dir)
		s.Files = files
		r.files[s] = pathFaults{v.Path, faults}
	}
	r.sources[name] = s
	r.sys.Sources = append(r.sys.Sources, s)
}

// reads resolves the sources that a source is made of.
func (r *resolver) reads(name string, v *spec.Value) {
	s, ok := r.sources[name]
	list := v.Get("reads")
	if !ok || list == nil {
		return
	}
	for _, item := range list.List {
		other, ok := ref(r, "source", "sources", r.sources, item)
		if !ok {
			continue
		}
		if path := chain(other, s); path != nil {
			r.add(item.Path, diag.Cycle, "source %q is made of itself: %s", name, strings.Join(append([]string{name}, path...), " -> ")).Because("", "break the circle")
			continue
		}
		s.Reads = append(s.Reads, other)
	}
}

// chain is the way from a source to one that it is made of, or nil.
func chain(from, to *ir.Source) []string {
	if from == to {
		return []string{to.Name}
	}
	for _, s := range from.Reads {
		if way := chain(s, to); way != nil {
			return append([]string{from.Name}, way...)
		}
	}
	return nil
}

func (r *resolver) column(f *spec.Field) *ir.Column {
	v := f.Value
	c := &ir.Column{Path: v.Path, Sensitive: get[bool](v.Get("sensitive")), Ahead: get[bool](v.Get("ahead"))}
	c.Name, c.Type = f.Name, types.Type(text(v.Get("type")))
	c.Never = text(v.Get("nulls")) == "never"
	c.NullFraction, c.Min, c.Max = get[*float64](v.Get("null_fraction")), get[*float64](v.Get("min")), get[*float64](v.Get("max"))
	c.In = get[[]any](v.Get("in"))
	c.Delay = r.duration(v.Get("delay"))
	if strings.HasPrefix(c.Name, "_") {
		r.addLabel(v.Path, diag.BadArgs, "column %q begins with an underscore", c.Name).Because("such names are mlc's own", "rename the column")
	}
	if c.Type != types.Invalid {
		for field, set := range map[string]bool{"min": c.Min != nil, "max": c.Max != nil} {
			if set && !c.Type.Numeric() {
				r.add(v.Path+"."+field, diag.ExprType, "column %q is %s, which has no %s", c.Name, diag.An(c.Type), field).Because("bounds are for numbers", `use in: […] for a list of right values`)
			}
		}
		if c.Min != nil && c.Max != nil && *c.Min > *c.Max {
			r.add(v.Path+".min", diag.BadArgs, "no value of column %q can be right: min %v is above max %v", c.Name, *c.Min, *c.Max)
		}
		if len(c.In) > 0 && c.Type != types.String && !c.Type.Numeric() {
			r.addLabel(v.Path+".in", diag.ExprType, "column %q is %s; in is for strings and numbers", c.Name, diag.An(c.Type))
			c.In = nil
		}
		for i, x := range c.In {
			_, isText := x.(string)
			if isText != (c.Type == types.String) {
				r.add(fmt.Sprintf("%s.in[%d]", v.Path, i), diag.ExprType, "this is no %s, as column %q is", c.Type, c.Name)
			}
		}
	}
	return c
}

func (r *resolver) duration(v *spec.Value) time.Duration {
	s := text(v)
	if s == "" {
		return 0
	}
	d, err := types.ParseDuration(s)
	if err != nil {
		r.add(v.Path, diag.BadValue, "%v", err)
	}
	return d
}

// columnRef finds a column of a source by the name at v.
func (r *resolver) columnRef(s *ir.Source, v *spec.Value) *ir.Column {
	name := text(v)
	if name == "" {
		return nil
	}
	c := s.Column(name)
	if c == nil && !r.unsure(s, name) {
		r.noColumn(r.spec.At(v.Path), s, name)
	}
	return c
}

// unsure tells whether a column may be missing only because of a mistake in its
// declaration, which is reported there.
func (r *resolver) unsure(s *ir.Source, name string) bool {
	return len(s.Columns) == 0 || r.spec.Broken(s.Path+".columns."+name)
}

func (r *resolver) noColumn(at diag.Range, s *ir.Source, name string) {
	r.list.Add(at, diag.NoColumn, "no column %q in source %q%s", name, s.Name, diag.Choices(name, s.ColumnNames())).
		Because("", fmt.Sprintf("declare it in sources.%s.columns, or mend the name", s.Name))
}

func (r *resolver) timeColumn(s *ir.Source, v *spec.Value) *ir.Column {
	c := r.columnRef(s, v)
	if c != nil && c.Type != types.Timestamp && c.Type != types.Invalid {
		r.add(v.Path, diag.ExprType, "column %q is %s, not a timestamp", c.Name, diag.An(c.Type)).Because("it has to say when", `declare it with type: "timestamp"`)
	}
	return c
}

func (r *resolver) time(s *ir.Source, v *spec.Value) {
	if v == nil {
		return
	}
	s.Time = ir.Time{Declared: true, Static: get[bool](v.Get("static")), Event: r.timeColumn(s, v.Get("event")), Created: r.timeColumn(s, v.Get("created")), Delay: r.duration(v.Get("delay"))}
	if r.spec.Broken(v.Path) {
		return
	}
	switch {
	case s.Time.Static && (v.Get("event") != nil || v.Get("created") != nil || v.Get("delay") != nil):
		r.addLabel(v.Path, diag.NotTimed, "source %q is static and has times", s.Name).Because("static rows hold at any time", "leave out static, or the columns")
	case !s.Time.Static && v.Get("event") == nil:
		r.addLabel(v.Path, diag.NotTimed, "source %q has a time without an event column", s.Name).Because("", `name the column in time.event, or write time: static: true`)
	}
}

func (r *resolver) group(name string, v *spec.Value) {
	g := &ir.Group{Name: name, Path: v.Path, Kind: ir.FeatureKind(text(v.Get("kind")))}
	r.groups[name] = g
	switch g.Kind {
	case ir.Derived:
		if exprs := v.Get("exprs"); exprs != nil {
			for _, f := range exprs.Fields {
				r.feature(&ir.Feature{Name: name + "." + f.Name, Path: f.Value.Path, Group: g, Kind: ir.Derived})
			}
		}
		return
	case ir.Request, ir.Snapshot:
	case "lag", "window":
		g.Kind = ir.Snapshot
	default:
		return
	}
	src, ok := ref(r, "source", "sources", r.sources, v.Get("source"))
	if ok {
		g.Source = src
	} else {
		r.spec.MarkBroken(g.Path)
	}
	if g.Kind == ir.Snapshot {
		r.snapshot(g, v)
	}
	if ok {
		r.history(g, v)
	}
	if cols := v.Get("columns"); cols != nil && ok {
		for _, c := range cols.List {
			if col := r.columnRef(src, c); col != nil {
				r.feature(&ir.Feature{Name: name + "." + col.Name, Path: c.Path, Group: g, Kind: g.Kind, Type: col.Type, Column: col})
			} else {
				r.spec.MarkBroken(g.Path)
			}
		}
	}
}

// history resolves the features of a group that look back: lags and windows.
func (r *resolver) history(g *ir.Group, v *spec.Value) {
	add := func(f *spec.Field, of *spec.Value) *ir.Feature {
		ft := &ir.Feature{Name: g.Name + "." + f.Name, Path: f.Value.Path, Group: g, Kind: ir.Snapshot}
		if of == nil {
			ft.Column = g.Source.Time.Event
		} else if ft.Column = r.columnRef(g.Source, of); ft.Column != nil {
			ft.Type = ft.Column.Type
		}
		if ft.Column == nil {
			r.spec.MarkBroken(g.Path)
			return nil
		}
		r.feature(ft)
		return ft
	}
	still := func(what string) {
		if g.Source.Time.Static {
			r.add(v.Path+".source", diag.NotTimed, "%s of source %q, whose rows hold at any time", what, g.Source.Name).Because("they have no before", `use kind: "snapshot", or declare when its rows happened`)
		}
	}
	if lags := v.Get("lags"); lags != nil {
		still("lags")
		for _, f := range lags.Fields {
			if of := f.Value.Get("of"); of != nil {
				if ft := add(f, of); ft != nil {
					ft.Lag = r.duration(f.Value.Get("by"))
				}
			}
		}
	}
	aggregates := v.Get("aggregates")
	if aggregates == nil {
		return
	}
	still("windows")
	for _, f := range aggregates.Fields {
		fn, of := text(f.Value.Get("fn")), f.Value.Get("of")
		if r.spec.Broken(f.Value.Path) || fn == "" {
			continue
		}
		if of == nil && fn != "count" {
			r.addLabel(f.Value.Path, diag.MissingField, "the %s of nothing", fn).Because("", "name the column: of: …")
			continue
		}
		ft := add(f, of)
		if ft == nil {
			continue
		}
		ft.Fn, ft.Window = fn, r.duration(f.Value.Get("window"))
		if of != nil && fn != "count" && !ft.Column.Type.Numeric() && ft.Column.Type != types.Invalid {
			r.add(of.Path, diag.ExprType, "the %s of column %q, which is %s", fn, ft.Column.Name, diag.An(ft.Column.Type)).Because("it takes numbers", "count it, or name another column")
		}
		if ft.Window == 0 && f.Value.Get("window") != nil {
			r.add(f.Value.Get("window").Path, diag.BadArgs, "a window of nothing").Because("no row lies in it", "give a span such as 7d")
		}
		switch fn {
		case "count":
			ft.Type = types.Int
		case "sum", "mean", "std":
			ft.Type = types.Float
		}
	}
}

func (r *resolver) feature(f *ir.Feature) {
	fold := strings.ToLower(f.Name)
	if other, dup := r.folded[fold]; dup {
		r.add(f.Path, diag.BadArgs, "feature %q is declared twice, here and as %q", f.Name, other).Because("names that differ only in case are one", "")
		return
	}
	r.folded[fold] = f.Name
	r.features[f.Name] = f
	r.sys.Features = append(r.sys.Features, f)
}

// snapshot resolves what joins a snapshot group: its entity's key, by name or
// by the renaming in key.
func (r *resolver) snapshot(g *ir.Group, v *spec.Value) {
	g.TTL = r.duration(v.Get("ttl"))
	e, ok := ref(r, "entity", "entities", r.entities, v.Get("entity"))
	if !ok || g.Source == nil {
		return
	}
	g.Entity = e
	names := get[map[string]string](v.Get("key"))
	for _, k := range e.Key {
		name, renamed := names[k.Name]
		delete(names, k.Name)
		if !renamed {
			name = k.Name
		}
		c := g.Source.Column(name)
		switch {
		case c == nil && renamed && !r.unsure(g.Source, name):
			r.noColumn(r.spec.At(v.Path+".key."+k.Name), g.Source, name)
		case c == nil && !r.unsure(g.Source, name):
			r.add(v.Path+".source", diag.KeyMismatch, "source %q has no column %q, the key of entity %q", g.Source.Name, k.Name, e.Name).
				Because("rows are joined by the entity's key", fmt.Sprintf("name the column that holds it: key: %s: \"…\"", k.Name))
		case c != nil && c.Type != k.Type && c.Type != types.Invalid && k.Type != types.Invalid:
			r.add(v.Path+".source", diag.KeyMismatch, "column %q of source %q is %s, but key %q of entity %q is %s", c.Name, g.Source.Name, diag.An(c.Type), k.Name, e.Name, diag.An(k.Type))
		}
		g.Key = append(g.Key, c)
	}
	for _, name := range keys(names) {
		have := make([]string, len(e.Key))
		for i, k := range e.Key {
			have[i] = k.Name
		}
		r.addLabel(v.Path+".key."+name, diag.KeyMismatch, "entity %q has no key column %q%s", e.Name, name, diag.Choices(name, have))
	}
	t := g.Source.Time
	switch {
	case r.spec.Broken(g.Source.Path):
	case !t.Declared:
		r.add(v.Path+".source", diag.NotTimed, "snapshot of source %q, which has no time", g.Source.Name).
			Because("a row from after the prediction time could be joined", fmt.Sprintf("declare sources.%s.time: event and created (or delay), or static: true if its rows hold at any time", g.Source.Name))
	case !t.Static && t.Event != nil && t.Created == nil && r.spec.Root.Get("sources").Get(g.Source.Name).Get("time").Get("delay") == nil:
		r.addLabel(g.Source.Path+".time", diag.NotTimed, "source %q says when rows happened, not when they were known", g.Source.Name).
			Because("a row can be used only once it is recorded", `add time.created, or time.delay ("0s" if rows are known at once)`)
	case t.Static && g.TTL > 0:
		r.add(v.Path+".ttl", diag.NotTimed, "a ttl on source %q, whose rows hold at any time", g.Source.Name)
	}
}

// tooOld proves that a joined row is young enough once it is known.
func (r *resolver) tooOld() {
	told := map[*ir.Group]bool{}
	for _, f := range r.sys.Features {
		g := f.Group
		if g == nil || g.Source == nil || f.Column == nil || f.Fn != "" || g.TTL == 0 || told[g] || r.spec.Broken(g.Source.Path) {
			continue
		}
		if delay := g.Source.Time.Delay + f.Column.Delay; delay > g.TTL {
			told[g] = true
			r.add(g.Path+".ttl", diag.BadArgs, "feature %q never has a value: a row of source %q is known %v after it happened, and is too old after %v", f.Name, g.Source.Name, delay, g.TTL).
				Because("the delay is longer than the ttl", "raise the ttl above the delay")
		}
	}
}

// expression parses and checks the expression at v, a string. Its columns are
// found by scope; unknown ones are reported by miss, which may stay silent.
func (r *resolver) expression(v *spec.Value, scope expr.Scope, names func() []string, miss func(at diag.Range, name string)) *expr.Node {
	src := text(v)
	if v == nil || r.spec.Broken(v.Path) {
		return nil
	}
	n, err := expr.Parse(src)
	if err != nil {
		e := err.(*expr.Error)
		r.list.Add(r.spec.Inside(v.Path, e.Start, e.End), diag.ExprSyntax, "%s", e.What).Because("", e.Mend)
		return nil
	}
	errs := expr.Check(n, scope, names)
	for _, e := range errs {
		at := r.spec.Inside(v.Path, e.Start, e.End)
		if e.Kind == expr.Unknown {
			if group, _, dotted := strings.Cut(e.Name, "."); dotted && r.spec.Broken("features."+group) {
				continue
			}
			before := len(r.list)
			if miss(at, e.Name); len(r.list) == before {
				continue
			}
			switch d := &r.list[len(r.list)-1]; {
			case src[e.Start] == '"':
				d.Mend = "a text stands in single quotes: '" + e.Name + "'; double quotes name a column"
			case !strings.Contains(d.What, "did you mean") && !strings.Contains(e.Name, "."):
				d.Mend += "; if it is text, it stands in single quotes: '" + e.Name + "'"
			}
		} else {
			r.list.Add(at, diag.ExprType, "%s", e.What).Because("", e.Mend)
		}
	}
	if len(errs) > 0 {
		return nil
	}
	return n
}

// derived types the derived features, each after those that it reads.
func (r *resolver) derived() {
	const visiting, done = 1, 2
	state := map[*ir.Feature]int{}
	var stack []string
	var visit func(f *ir.Feature)
	visit = func(f *ir.Feature) {
		if f.Kind != ir.Derived || state[f] == done {
			return
		}
		if state[f] == visiting {
			return
		}
		state[f] = visiting
		stack = append(stack, f.Name)
		v := r.spec.Root.Get("features").Get(f.Group.Name).Get("exprs").Get(strings.TrimPrefix(f.Name, f.Group.Name+"."))
		// What it reads has to be typed first, so the names are looked up before.
		cyclic := false
		if n, err := expr.Parse(text(v)); err == nil {
			for _, c := range n.Columns() {
				g, ok := r.features[c.Name]
				if !ok {
					continue
				}
				if state[g] == visiting {
					r.list.Add(r.spec.Inside(v.Path, c.Start, c.End), diag.Cycle, "feature %q is computed from itself: %s -> %s", f.Name, strings.Join(stack, " -> "), g.Name).
						Because("", "break the circle")
					cyclic = true
					continue
				}
				visit(g)
			}
		}
		stack = stack[:len(stack)-1]
		state[f] = done
		if cyclic {
			return
		}
		n := r.expression(v, func(name string) (types.Type, bool) {
			g, ok := r.features[name]
			if ok && g.Type == types.Invalid {
				return types.Invalid, true // reported where it is declared
			}
			if !ok {
				return types.Invalid, false
			}
			return g.Type, true
		}, func() []string { return keys(r.features) }, func(at diag.Range, name string) { r.noFeature(at, name) })
		if n == nil || n.Type == types.Invalid {
			return
		}
		if len(n.Columns()) == 0 {
			r.add(v.Path, diag.BadArgs, "feature %q reads no feature", f.Name).Because("it would be the same for every row", "")
			return
		}
		if n.Type == types.Null {
			r.add(v.Path, diag.ExprType, "feature %q is always NULL", f.Name)
			return
		}
		f.Expr, f.Type = n, n.Type
		for _, c := range n.Columns() {
			f.Uses = append(f.Uses, r.features[c.Name])
		}
		f.Online, _ = expr.Online(n)
		for _, u := range f.Uses {
			f.Online = f.Online && (u.Kind != ir.Derived || u.Online)
		}
		r.online(f, v)
	}
	for _, f := range r.sys.Features {
		visit(f)
	}
}

// noFeature reports a name that is no feature, unless its group is in error.
func (r *resolver) noFeature(at diag.Range, name string) {
	group, _, _ := strings.Cut(name, ".")
	if r.spec.Broken("features." + group) {
		return
	}
	names := keys(r.features)
	meant := diag.Choices(name, names)
	for _, n := range names {
		if strings.HasSuffix(n, "."+name) {
			meant = fmt.Sprintf("; did you mean %q?", n)
			break
		}
	}
	r.list.Add(at, diag.NoName, "no feature %q%s", name, meant).Because("", `features are named "group.feature"`)
}

func (r *resolver) problem(name string, v *spec.Value) {
	p := &ir.Problem{Name: name, Path: v.Path, Task: text(v.Get("kind"))}
	if v.Get("entity") != nil {
		if e, ok := ref(r, "entity", "entities", r.entities, v.Get("entity")); ok {
			p.Entity = e
		}
	}
	r.quantiles(p, v)
	r.label(p, v.Get("label"))
	if s := p.Label.Source; s != nil && p.Entity != nil && !r.spec.Broken(s.Path) {
		r.hasKey(p, p.Entity, v.Path+".entity")
	}
	r.metrics(p, v.Get("metrics"))
	r.decision(p, v.Get("decision"))
	r.fairness(p, v.Get("fairness"))
	r.baseline(p, v)
	r.problems[name] = p
	r.sys.Problems = append(r.sys.Problems, p)
}

// timed reports whether a problem means to have a prediction time: where the
// column is wrong, that is reported, and nothing else has to be.
func (r *resolver) timed(p *ir.Problem) bool {
	return r.spec.Root.Get("problems").Get(p.Name).Get("label").Get("at") != nil
}

// hasKey wants an entity's key in the label's source, from where it is joined.
func (r *resolver) hasKey(p *ir.Problem, e *ir.Entity, path string) bool {
	s := p.Label.Source
	for _, k := range e.Key {
		c := s.Column(k.Name)
		if c == nil {
			r.add(path, diag.KeyMismatch, "the label's source %q has no column %q, the key of entity %q", s.Name, k.Name, e.Name).
				Because("features about the entity are joined to its rows", "declare the column there, or use another entity")
			return false
		}
		if c.Type != k.Type && c.Type != types.Invalid && k.Type != types.Invalid {
			r.add(path, diag.KeyMismatch, "column %q of the label's source %q is %s, but key %q of entity %q is %s", c.Name, s.Name, diag.An(c.Type), k.Name, e.Name, diag.An(k.Type))
			return false
		}
	}
	return true
}

func (r *resolver) sourceScope(s *ir.Source) (expr.Scope, func() []string, func(diag.Range, string)) {
	return func(name string) (types.Type, bool) {
			if c := s.Column(name); c != nil {
				return c.Type, true
			}
			return types.Invalid, r.unsure(s, name)
		}, s.ColumnNames, func(at diag.Range, name string) {
			r.noColumn(at, s, name)
		}
}

func (r *resolver) label(p *ir.Problem, v *spec.Value) {
	if v == nil {
		return
	}
	s, ok := ref(r, "source", "sources", r.sources, v.Get("source"))
	if !ok {
		return
	}
	p.Label = ir.Label{Source: s, Window: r.duration(v.Get("window")), Delay: r.duration(v.Get("delay")), Horizon: r.duration(v.Get("horizon"))}
	if p.Label.Horizon > 0 && v.Get("at") == nil {
		r.add(v.Path+".horizon", diag.NotTimed, "a horizon without a time").Because("it is how long before label.at the prediction is made", "name the time column: at: …")
	}
	if at := v.Get("at"); at != nil {
		p.Label.At = r.timeColumn(s, at)
	}
	field, other := "expr", "exprs"
	if p.Task == kind.Multilabel {
		field, other = other, field
	}
	if x := v.Get(other); x != nil && p.Task != "" {
		r.addLabel(x.Path, diag.BadArgs, "the label of %s problem is in %s", diag.An(p.Task), field).Because("", "rename "+other+" to "+field)
		return
	}
	e := v.Get(field)
	switch {
	case p.Task == "" || r.spec.Broken(v.Path):
	case e == nil:
		r.addLabel(v.Path, diag.MissingField, "the label has no %s", field).Because("it says what the truth is", "")
	case p.Task != kind.Multilabel:
		r.labelExpr(p, "", e)
	case len(e.Fields) < 2:
		r.addLabel(e.Path, diag.BadArgs, "a multilabel problem with fewer than two labels").Because("", `use kind: "binary"`)
	default:
		for _, f := range byName(e) {
			r.labelExpr(p, f.Name, f.Value)
		}
	}
}

// labelExpr resolves one target of a label.
func (r *resolver) labelExpr(p *ir.Problem, name string, v *spec.Value) {
	scope, names, miss := r.sourceScope(p.Label.Source)
	n := r.expression(v, scope, names, miss)
	if n == nil || n.Type == types.Invalid {
		return
	}
	if len(n.Columns()) == 0 {
		r.add(v.Path, diag.BadArgs, "the label reads no column").Because("it would be the same for every row", "")
		return
	}
	want, ok := "a condition", n.Type == types.Bool
	switch {
	case p.Task == kind.Multiclass:
		want, ok = "a string, a whole number or a condition", n.Type == types.String || n.Type == types.Int || n.Type == types.Bool
	case kind.IsNumeric(p.Task):
		want, ok = "a number", n.Type.Numeric()
	}
	if !ok {
		mend := ""
		if want == "a condition" {
			mend = "compare it: churned = 'Yes'"
		}
		r.add(v.Path, diag.ExprType, "the label of %s problem is %s, this is %s", diag.An(p.Task), want, diag.An(n.Type)).Because("", mend)
		return
	}
	p.Label.Exprs = append(p.Label.Exprs, ir.LabelExpr{Name: name, Path: v.Path, Expr: n})
}

// quantiles proves that a quantile problem names rising probabilities, and no other
// problem any.
func (r *resolver) quantiles(p *ir.Problem, v *spec.Value) {
	q := v.Get("quantiles")
	switch {
	case p.Task == "":
	case p.Task != kind.Quantile && q != nil:
		r.addLabel(q.Path, diag.BadArgs, "quantiles of %s problem", diag.An(p.Task)).Because("it has none", `leave them out, or use kind: "quantile"`)
	case p.Task == kind.Quantile && q == nil:
		r.addLabel(v.Path, diag.MissingField, "problem %q has no quantiles", p.Name).Because("they are what is predicted", "name them: quantiles: [0.1, 0.5, 0.9]")
	case q != nil:
		p.Quantiles = get[[]float64](q)
		for i := 1; i < len(p.Quantiles); i++ {
			if p.Quantiles[i] <= p.Quantiles[i-1] {
				r.add(fmt.Sprintf("%s[%d]", q.Path, i), diag.BadArgs, "quantile %v comes after %v", p.Quantiles[i], p.Quantiles[i-1]).Because("", "list them from the least to the greatest")
			}
		}
	}
}

// ruleType tells whether a rule's expression can predict a task.
func ruleType(task string, t types.Type) (want string, ok bool) {
	switch task {
	case kind.Binary, kind.Anomaly:
		return "a condition", t == types.Bool
	case kind.Multiclass:
		return "a class or a condition", t == types.String || t == types.Int || t == types.Bool
	}
	return "a number", t.Numeric()
}

// needs reads resources, which may be nil.
func (r *resolver) needs(v *spec.Value) plan.Needs {
	n := plan.Needs{CPU: 1, Memory: 1 << 30, Strict: true}
	if v == nil {
		return n
	}
	n.CPU = max(get[int](v.Get("cpu")), 1)
	if m := v.Get("memory"); text(m) != "" {
		size, err := types.ParseSize(text(m))
		if err != nil {
			r.add(m.Path, diag.BadValue, "%v", err)
		}
		n.Memory = size
	}
	if g := v.Get("gpu"); g != nil {
		n.GPUs, n.GPUKind = max(get[int](g.Get("count")), 1), text(g.Get("kind"))
	}
	n.Labels = get[map[string]string](v.Get("labels"))
	if n.Timeout = r.duration(v.Get("timeout")); n.Timeout == 0 && v.Get("timeout") != nil {
		r.add(v.Get("timeout").Path, diag.BadValue, "a timeout of nothing").Because("the step could never end in time", "leave it out for no limit")
	}
	return n
}

// abs is the absolute form of a path of the spec.
func (r *resolver) abs(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.spec.Dir, p)
}

// file wants a regular file at a path that the spec names at an argument, and says
// why.
func (r *resolver) file(arg, path, why string) {
	info, err := os.Stat(r.abs(path))
	if err == nil && info.Mode().IsRegular() {
		return
	}
	what := fmt.Sprintf("%q is no file", path)
	if err != nil {
		what = fmt.Sprintf("no file %q", path)
		if near, err := os.ReadDir(filepath.Dir(r.abs(path))); err == nil {
			names := make([]string, len(near))
			for i, e := range near {
				names[i] = filepath.Join(filepath.Dir(path), e.Name())
			}
			what += diag.Suggest(path, names)
		}
	}
	r.add(arg, diag.FileMissing, "%s", what).Because(why, "put the file there, or mend the path; it starts at the spec's folder")
}

// fields are a value's own, as JSON.
func fields(v *spec.Value) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, f := range v.Fields {
		out[f.Name], _ = f.Value.MarshalJSON()
	}
	return out
}

// contained returns the arguments of a kind and the container of one that is
// kind.Commanded. It takes what leaves the result as it is out of own.
func (r *resolver) contained(v *spec.Value, k any, own map[string]json.RawMessage) (args json.RawMessage, in ir.Container) {
	if c, ok := k.(kind.Commanded); ok {
		args, _ = json.Marshal(own)
		in.Command, in.Code = r.command(v, c.Command(args))
		in.Needs = r.needs(v.Get("resources"))
		in.Needs.Container = !in.Command.InPlace || in.Command.Image != "" || in.Command.Archive != ""
		for _, f := range []string{"secrets", "caches", "resources"} {
			delete(own, f)
		}
	}
	args, _ = json.Marshal(own)
	return args, in
}

// command checks what a container is made of, and lists the files of its code.
func (r *resolver) command(v *spec.Value, c kind.Command) (*kind.Command, []string) {
	if c.Image != "" && c.Archive != "" {
		r.add(v.Path+".archive", diag.BadArgs, "a container from an image and from an archive").Because("it starts from one root file system", "leave one of them out")
	}
	if c.Archive != "" {
		if info, err := os.Stat(r.abs(c.Archive)); err != nil || !info.Mode().IsRegular() {
			r.add(v.Path+".archive", diag.FileMissing, "no archive %s", c.Archive).Because("the container starts from it", "write an OCI archive there, as `docker save` or `skopeo copy docker://… oci-archive:…` do")
		}
	}
	if c.Code == "" {
		return &c, nil
	}
	var files []string
	err := filepath.WalkDir(r.abs(c.Code), func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || e.Name() == "__pycache__" || e.Name() == ".mlc"):
			return filepath.SkipDir
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is no regular file", p)
		}
		rel, err := filepath.Rel(r.abs(c.Code), p)
		files = append(files, filepath.Join(c.Code, rel))
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.add(v.Path+".code", diag.FileMissing, "no folder %s", c.Code).Because("it is mounted for the command", "")
	case err != nil:
		r.add(v.Path+".code", diag.FileMissing, "folder %s: %v", c.Code, err).Because("it is mounted for the command", "")
	case len(files) == 0:
		r.add(v.Path+".code", diag.FileMissing, "folder %s holds no files", c.Code).Because("it is mounted for the command", "")
	}
	return &c, files
}

// trainer resolves a trainer or baseline.
func (r *resolver) trainer(v *spec.Value, task string) *ir.Trainer {
	if v == nil {
		return nil
	}
	k, ok := r.kinds.Trainers.Get(text(v.Get("kind")))
	if !ok {
		return nil
	}
	own := fields(v)
	t := &ir.Trainer{Kind: k, Path: v.Path}
	t.Args, t.Container = r.contained(v, k, own)
	if t.Command == nil {
		t.Needs = r.needs(v.Get("resources"))
		delete(own, "resources")
	}
	if f, ok := k.(kind.Filed); ok && !r.spec.Broken(v.Path) {
		args, _ := json.Marshal(own)
		t.Files = f.Files(args)
		for _, arg := range keys(t.Files) {
			r.file(v.Path+"."+arg, t.Files[arg], "the model is made of it")
			delete(own, arg) // what is in it counts, not where it lies
		}
	}
	t.Args, _ = json.Marshal(own)
	if !r.spec.Broken(v.Path) {
		r.faults(v.Path, k.Check(t.Args, task))
	}
	return t
}

func (r *resolver) model(name string, v *spec.Value) {
	p, ok := ref(r, "problem", "problems", r.problems, v.Get("problem"))
	m := &ir.Model{Name: name, Path: v.Path, Problem: p, Seed: get[uint64](v.Get("seed")), Promote: text(v.Get("promote").Get("stage"))}
	task := ""
	if ok {
		task = p.Task
	}
	m.Trainer = r.trainer(v.Get("trainer"), task)
	if m.Trainer != nil && m.Trainer.Kind.Name() == "rule" {
		r.add(v.Path+".trainer", diag.BadArgs, "a rule is a baseline, not a model").Because("it is computed from the label's source, which is not there when predicting", "use it as the problem's baseline")
	}
	if sp := v.Get("split"); sp != nil {
		if k, found := r.kinds.Splits.Get(text(sp.Get("kind"))); found {
			m.Split = ir.Split{Kind: k, Path: sp.Path}
			m.Split.Args, m.Split.Container = r.contained(sp, k, fields(sp))
			if c, by := k.(kind.ByColumn); by && ok && p.Label.Source != nil && sp.Get("column") != nil {
				name := c.Column(m.Split.Args)
				if m.Split.Column = p.Label.Source.Column(name); m.Split.Column == nil && !r.unsure(p.Label.Source, name) {
					r.noColumn(r.spec.At(sp.Path+".column"), p.Label.Source, name)
				}
				r.byOutcome(p, name, sp.Path+".column")
			}
			if ok && !r.spec.Broken(sp.Path) {
				r.faults(sp.Path, k.Check(m.Split.Args, kind.SplitInfo{HasTime: r.timed(p), HasEntity: p.Entity != nil, Late: p.Label.Late().Microseconds()}))
			}
		}
	}
	r.calibrate(m, v.Get("calibrate"))
	if _, folded := m.Split.Kind.(kind.Folded); folded && ok {
		for _, g := range p.Gates {
			if g.OverProduction != nil {
				r.add(g.Path+".over_production", diag.BadArgs, "a comparison with production under the %s split of model %q", m.Split.Kind.Name(), name).
					Because("every row tests, so the version in production learned from rows that would judge it", "leave it out, or hold rows back by another split")
			}
		}
	}
	ins, ensemble := v.Get("inputs"), false
	if m.Trainer != nil {
		_, ensemble = m.Trainer.Kind.(kind.Ensemble)
	}
	switch {
	case ensemble && ins != nil:
		r.addLabel(ins.Path, diag.BadArgs, "inputs of ensemble %q", name).Because("it combines what its models predict, and they have inputs of their own", "leave them out")
	case ins != nil && m.Trainer != nil:
		r.inputs(m, ins)
	case ins == nil && !ensemble && m.Trainer != nil && !r.spec.Broken(v.Path+".inputs"):
		r.addLabel(v.Path, diag.MissingField, "model %q has no inputs", name).Because("they are what it learns from", `name features: inputs: "group.*": {}`)
	}
	if ok && m.Trainer != nil && m.Split.Kind != nil {
		r.sys.Models = append(r.sys.Models, m)
	}
}

// members resolves the models of ensembles, and proves that they solve the same problem
// and hold back the same rows.
func (r *resolver) members() {
	byName := map[string]*ir.Model{}
	for _, m := range r.sys.Models {
		byName[m.Name] = m
	}
	for _, e := range r.sys.Models {
		k, ok := e.Trainer.Kind.(kind.Ensemble)
		if !ok || r.spec.Broken(e.Trainer.Path) {
			continue
		}
		seen := map[string]bool{}
		for i, name := range k.Members(e.Trainer.Args) {
			at := fmt.Sprintf("%s.of[%d]", e.Trainer.Path, i)
			m, ok := byName[name]
			switch {
			case !ok:
				if !r.spec.Broken("models." + name) {
					r.add(at, diag.NoName, "no model %q%s", name, diag.Choices(name, keys(byName)))
				}
			case m == e:
				r.add(at, diag.Cycle, "ensemble %q is made of itself", name)
			case len(m.Inputs) == 0 && r.spec.Broken(m.Path): // that of its inputs is told
			case len(m.Inputs) == 0:
				r.add(at, diag.BadArgs, "model %q is an ensemble itself", name).Because("one level is enough to weigh models", "name its models here")
			case m.Problem != e.Problem:
				r.add(at, diag.BadArgs, "model %q solves problem %q, ensemble %q solves %q", name, m.Problem.Name, e.Name, e.Problem.Name).Because("their predictions mean different things", "name models of one problem")
			case m.Split.Kind.Name() != e.Split.Kind.Name() || string(m.Split.Args) != string(e.Split.Args) || m.Seed != e.Seed:
				r.add(at, diag.FittedLeak, "model %q and ensemble %q divide the rows otherwise", name, e.Name).
					Because("the model would have learned from rows that judge the ensemble", "give both the same split and seed")
			case seen[name]:
				r.add(at, diag.BadArgs, "model %q is named twice", name).Because("", "give it a weight")
			default:
				e.Members = append(e.Members, m)
			}
			seen[name] = true
		}
	}
}

// calibrate resolves what corrects a model's probabilities.
func (r *resolver) calibrate(m *ir.Model, v *spec.Value) {
	if v == nil {
		return
	}
	k, ok := r.kinds.Calibrators.Get(text(v.Get("kind")))
	if !ok {
		return
	}
	if m.Problem != nil && m.Problem.Task != "" && m.Problem.Task != kind.Binary {
		r.addLabel(v.Path, diag.BadArgs, "a calibration for problem %q, which is %s", m.Problem.Name, m.Problem.Task).Because("it corrects the probability of true", "leave it out")
		return
	}
	args, _ := json.Marshal(fields(v))
	m.Calibrate = &ir.Calibrator{Kind: k, Args: args, Path: v.Path}
}

// inputs expands "group.*". A feature named by itself goes before its group's
// star, which then passes it over.
func (r *resolver) inputs(m *ir.Model, ins *spec.Value) {
	named := map[string]bool{}
	for _, f := range ins.Fields {
		named[f.Name] = true
	}
	for _, f := range ins.Fields {
		group, isStar := strings.CutSuffix(f.Name, ".*")
		if !isStar {
			ft, ok := r.features[f.Name]
			if !ok {
				r.noFeature(r.spec.Label(f.Value.Path), f.Name)
				r.spec.MarkBroken(ins.Path)
				continue
			}
			r.input(m, ft, f.Value)
			continue
		}
		if _, ok := r.groups[group]; !ok {
			if !r.spec.Broken("features." + group) {
				r.addLabel(f.Value.Path, diag.NoName, "no feature group %q%s", group, diag.Choices(group, keys(r.groups))).Because("", "declare it under features, or mend the name")
			}
			r.spec.MarkBroken(ins.Path)
			continue
		}
		any := false
		for _, ft := range r.sys.Features {
			if ft.Group.Name == group {
				if any = true; !named[ft.Name] {
					r.input(m, ft, f.Value)
				}
			}
		}
		if !any {
			if !r.spec.Broken("features." + group) {
				r.addLabel(f.Value.Path, diag.NoName, "feature group %q has no features", group)
			}
			r.spec.MarkBroken(ins.Path)
		}
	}
	// Columns of the matrix come in the order of names, whatever that of the lines.
	sort.SliceStable(m.Inputs, func(i, j int) bool { return m.Inputs[i].Feature.Name < m.Inputs[j].Feature.Name })
	if len(m.Inputs) == 0 && !r.spec.Broken(ins.Path) && (len(ins.Fields) == 0 || !r.list.HasErrors()) {
		r.addLabel(ins.Path, diag.BadArgs, "model %q has no inputs", m.Name).Because("", `name features: inputs: "group.*": {}`)
	}
}

func (r *resolver) input(m *ir.Model, f *ir.Feature, v *spec.Value) {
	in := &ir.Input{Feature: f, Path: v.Path, AllowSensitive: text(v.Get("allow_sensitive"))}
	m.Inputs = append(m.Inputs, in)
	if f.Type == types.Invalid {
		return
	}
	flow := kind.Numbers
	if f.Type == types.String {
		flow = kind.Texts
	}
	add := func(args json.RawMessage, path string) bool {
		var name struct{ Kind string }
		if err := json.Unmarshal(args, &name); err != nil {
			return false
		}
		k, ok := r.kinds.Encoders.Get(name.Kind)
		if !ok {
			return false
		}
		out, ok := k.Accepts(flow, args)
		if !ok {
			r.add(path, diag.EncoderType, "encoder %s cannot take feature %q here, which is a %s", k.Name(), f.Name, describe(flow)).
				Because("", "choose another encoder or order, or leave encode out for the default")
			return false
		}
		if t, typed := k.(kind.Typed); typed && (len(in.Encoders) > 0 || !slices.Contains(t.Types(), f.Type)) {
			r.add(path, diag.EncoderType, "encoder %s cannot take feature %q here, which is %s", k.Name(), f.Name, diag.An(f.Type)).
				Because(fmt.Sprintf("it takes %s as it is", diag.An(t.Types()[0])), "choose another encoder, or make it the first")
			return false
		}
		if s, supervised := k.(kind.Supervised); supervised && m.Problem != nil && m.Problem.Task != "" && !slices.Contains(s.Supervised(), m.Problem.Task) {
			r.add(path, diag.EncoderType, "encoder %s does not fit %s problem", k.Name(), diag.An(m.Problem.Task)).
				Because("it learns from the labels", "choose another encoder")
			return false
		}
		in.Encoders = append(in.Encoders, ir.Encoder{Kind: k, Args: args, Path: path})
		flow = out
		return true
	}
	enc := v.Get("encode")
	if enc == nil {
		for _, args := range m.Trainer.Kind.Defaults(f.Type) {
			add(args, v.Path)
		}
		if flow == kind.Texts && len(in.Encoders) == 0 {
			r.add(v.Path, diag.EncoderType, "feature %q is a string, and trainer %s has no encoder for strings of its own", f.Name, m.Trainer.Kind.Name()).
				Because("how texts become numbers is for its model to say", `name it: "`+f.Name+`": encode: [{kind: "ordinal", order: […]}], or one_hot`)
		}
		return
	}
	if r.spec.Broken(enc.Path) {
		return
	}
	for _, e := range enc.List {
		args, _ := e.MarshalJSON()
		if !add(args, e.Path) {
			return
		}
	}
	if flow == kind.Texts {
		r.add(enc.Path, diag.EncoderType, "feature %q is still a string after its encoders", f.Name).Because("a model takes numbers", "end with one_hot, ordinal or frequency")
	}
}

func describe(f kind.Flow) string {
	switch f {
	case kind.Numbers:
		return "number"
	case kind.Texts:
		return "string"
	}
	return "finished block of columns"
}
