// Package spec reads CUE: it unifies a folder's .cue files with the schema,
// reports every mistake at its place in the user's files, and gives the spec as
// plain Go values. It is the only importer of cuelang.org.
package spec

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing/fstest"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/load"
	"cuelang.org/go/cue/token"
	"cuelang.org/go/mod/modconfig"
	"cuelang.org/go/mod/modfile"
	"cuelang.org/go/mod/module"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/schema"
)

// Spec is a loaded spec. Paths are relative to system, as in
// "features.profile.columns[0]".
type Spec struct {
	// Dir is the folder, absolute.
	Dir string
	// Files are the user's files by the name that positions carry (relative to Dir).
	Files map[string][]byte
	// Root is the spec as data, with defaults; nil where there is none. Elements
	// in error are partly missing.
	Root *Value

	places map[string]place
	broken map[string]bool  // paths at or below which something is wrong
	faulty map[string]bool  // paths whose own value is wrong
	told   map[mistake]bool // what convert has reported
	values map[string]fault // the faults of values, by the diagnostic's What
	// kindless structs have no right kind, so what else they may hold is unknown.
	kindless map[string]bool
	value    cue.Value
}

// place is where a field stands: its label and its value.
type place struct {
	label, value diag.Range
	expr         ast.Expr // the value
}

// Load reads the package in dir against the assembled schema. The spec is nil
// where there are no files, and its Root where there is no system; the list holds every mistake that CUE
// sees. Checks of what CUE passed can go on over the rest of a broken spec.
func Load(ctx context.Context, dir string, files schema.Files) (*Spec, diag.List) {
	var list diag.List
	dir, err := filepath.Abs(dir)
	if err != nil {
		list.Add(diag.Range{}, diag.NoSpec, "%v", err)
		return nil, list
	}
	s := &Spec{Dir: dir, Files: map[string][]byte{}, places: map[string]place{}, broken: map[string]bool{}, faulty: map[string]bool{}, told: map[mistake]bool{}, values: map[string]fault{}, kindless: map[string]bool{}}
	var names []string
	if entries, err := os.ReadDir(dir); err == nil {
		for _, e := range entries {
			if !e.IsDir() && filepath.Ext(e.Name()) == ".cue" {
				names = append(names, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(names) == 0 {
		list.Add(diag.Range{}, diag.NoSpec, "no .cue file in %s", dir).Because("a spec is a folder of .cue files", "run `mlc init` to begin one, or go to the spec's folder")
		return nil, list
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			list.Add(diag.Range{}, diag.NoSpec, "%v", err)
			return nil, list
		}
		s.Files[filepath.Base(n)] = b
	}
	inst := s.instance(files)
	if inst.Err != nil {
		s.convert(inst.Err, &list, diag.Syntax)
		list.Sort()
		return s, list
	}
	s.index(inst.Files)
	v := cuecontext.New().BuildInstance(inst)
	s.value = v.LookupPath(cue.ParsePath("system"))
	if !s.value.Exists() {
		if err := v.Err(); err != nil {
			s.convert(err, &list, diag.BadValue)
		} else {
			at := diag.Range{File: filepath.Base(names[0])}
			list.Add(at, diag.NoSystem, "the spec has no field system").Because("it is the one entry point", "write system: schema.#System & {…}")
		}
		return s, list
	}
	if v.Err() == nil && s.value.Allows(cue.Str("no field of the schema")) {
		list.Add(s.Label(""), diag.NoSystem, "system is not a schema.#System").Because("without it nothing checks its fields", "write system: schema.#System & {…}")
		return s, list
	}
	if err := validate(v); err != nil {
		s.convert(err, &list, diag.BadValue)
		s.waves(inst, files, &list)
		if !list.HasErrors() { // never take a refused spec for a sound one
			list.Add(s.Label(""), diag.BadValue, "%v", err)
		}
	} else {
		s.Root = s.read(s.value, "")
	}
	list.Sort()
	return s, list
}

func validate(v cue.Value) error {
	return v.Validate(cue.Concrete(true), cue.Final(), cue.All())
}

// waves finds what CUE's first error hides: it stops at a struct in conflict,
// and says nothing of the rest of it. The user's own data, read without the
// schema and without the values already reported, is held against the schema
// again until nothing new comes. What is then left, with defaults, is Root.
func (s *Spec) waves(inst *build.Instance, files schema.Files, list *diag.List) {
	ctx := cuecontext.New()
	var system cue.Value
	for _, imp := range inst.Imports {
		if strings.HasPrefix(imp.ImportPath, schema.Package) {
			system = ctx.BuildInstance(imp).LookupPath(cue.ParsePath("#System"))
		}
	}
	if !system.Exists() {
		return // the spec does not import the schema, and that is reported
	}
	v := ctx.BuildInstance(s.instance(files.Permissive())).LookupPath(cue.ParsePath("system"))
	raw := s.read(v, "")
	if raw == nil {
		return
	}
	without := func(paths map[string]bool) cue.Value {
		var b bytes.Buffer
		raw.without(paths).write(&b)
		return system.Unify(ctx.CompileBytes(b.Bytes()))
	}
	for range 10 { // each wave needs the one before; real specs have two or three
		s.value = without(s.faulty)
		n := len(s.faulty)
		if err := validate(s.value); err != nil {
			s.convert(err, list, diag.BadValue)
		}
		if len(s.faulty) == n {
			break
		}
	}
	s.Root = s.read(s.value, "")
	s.otherKinds(*list, s.value)
	whole := maps.Clone(s.faulty) // what a list holds is seen where there is no list
	for p := range s.faulty {
		if up, ok := parent(p); ok && strings.HasSuffix(p, "]") {
			whole[up] = true
		}
	}
	s.otherKinds(*list, without(whole))
}

// instance loads the package with the schema as a module that is there without
// any registry: it is read from the binary.
func (s *Spec) instance(files schema.Files) *build.Instance {
	root := filepath.Join(os.TempDir(), "mlc-schema", files.Version()) // need not exist
	overlay := map[string]load.Source{}
	mapped := fstest.MapFS{}
	for n, b := range files {
		overlay[filepath.Join(root, filepath.FromSlash(n))] = load.FromBytes(b)
		mapped[n] = &fstest.MapFile{Data: b}
	}
	if !hasModule(s.Dir) {
		overlay[filepath.Join(s.Dir, "cue.mod", "module.cue")] = load.FromBytes(ModuleFile("mlc.local/system@v0", files))
	}
	cfg := &load.Config{Dir: s.Dir, Overlay: overlay, Registry: embedded{
		Registry: &lazyRegistry{}, root: rooted{mapped, root}, version: files.Version()}}
	return load.Instances([]string{"."}, cfg)[0]
}

func hasModule(dir string) bool {
	for {
		if _, err := os.Stat(filepath.Join(dir, "cue.mod", "module.cue")); err == nil {
			return true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return false
		}
		dir = up
	}
}

// ModuleFile is a cue.mod/module.cue that depends on the schema.
func ModuleFile(path string, files schema.Files) []byte {
	return fmt.Appendf(nil, "module: %q\nlanguage: version: \"v0.17.0\"\ndeps: %q: v: %q\n", path, schema.Module, files.Version())
}

// rooted is a file system that claims a place on disk, as CUE wants of a module.
type rooted struct {
	fs.FS
	root string
}

// OSRoot implements module.OSRootFS.
func (r rooted) OSRoot() string { return r.root }

// embedded answers for the schema's module from the binary, whatever version a
// spec names: mlc enforces the schema that it was built with.
type embedded struct {
	modconfig.Registry
	root    rooted
	version string
}

func (e embedded) ModFile(ctx context.Context, mv module.Version) (*modfile.File, error) {
	if mv.Path() != schema.Module {
		return e.Registry.ModFile(ctx, mv)
	}
	b, err := fs.ReadFile(e.root, "cue.mod/module.cue")
	if err != nil {
		return nil, err
	}
	return modfile.Parse(b, "mlc.dev/cue.mod/module.cue")
}

func (e embedded) Fetch(ctx context.Context, mv module.Version) (module.SourceLoc, error) {
	if mv.Path() != schema.Module {
		return e.Registry.Fetch(ctx, mv)
	}
	return module.SourceLoc{FS: e.root, Dir: "."}, nil
}

func (e embedded) ModuleVersions(ctx context.Context, path string) ([]string, error) {
	if path != schema.Module && path != strings.TrimSuffix(schema.Module, "@v0") {
		return e.Registry.ModuleVersions(ctx, path)
	}
	return []string{e.version}, nil
}

// lazyRegistry is the user's own CUE registry, set up when a spec first needs it.
type lazyRegistry struct{ r modconfig.Registry }

func (l *lazyRegistry) get() (modconfig.Registry, error) {
	if l.r == nil {
		r, err := modconfig.NewRegistry(nil)
		if err != nil {
			return nil, err
		}
		l.r = r
	}
	return l.r, nil
}

func (l *lazyRegistry) ModFile(ctx context.Context, mv module.Version) (*modfile.File, error) {
	r, err := l.get()
	if err != nil {
		return nil, err
	}
	return r.ModFile(ctx, mv)
}

func (l *lazyRegistry) Fetch(ctx context.Context, mv module.Version) (module.SourceLoc, error) {
	r, err := l.get()
	if err != nil {
		return module.SourceLoc{}, err
	}
	return r.Fetch(ctx, mv)
}

func (l *lazyRegistry) ModuleVersions(ctx context.Context, path string) ([]string, error) {
	r, err := l.get()
	if err != nil {
		return nil, err
	}
	return r.ModuleVersions(ctx, path)
}

// rangeOf turns CUE positions into a range of one of the user's files.
func (s *Spec) rangeOf(from, to token.Pos) (diag.Range, bool) {
	if !from.IsValid() {
		return diag.Range{}, false
	}
	name := from.Filename()
	if filepath.IsAbs(name) {
		rel, err := filepath.Rel(s.Dir, name)
		if err != nil {
			return diag.Range{}, false
		}
		name = rel
	}
	name = filepath.ToSlash(strings.TrimPrefix(name, "./"))
	src, mine := s.Files[name]
	if !mine {
		return diag.Range{}, false
	}
	at := func(p token.Pos) int { return min(p.Offset(), len(src)) } // CUE counts broken UTF-8 too long
	r := diag.Range{File: name, Start: at(from), End: at(from)}
	if to.IsValid() && to.Filename() == from.Filename() {
		r.End = max(r.End, at(to))
	}
	return r, true
}

// index notes where every field of system stands, from the syntax alone: it is
// cheap, and gives ranges. What comprehensions make is found by At instead.
func (s *Spec) index(files []*ast.File) {
	for _, f := range files {
		for _, d := range f.Decls {
			if field, ok := d.(*ast.Field); ok && labelOf(field.Label) == "system" {
				s.indexField("", field)
			}
		}
	}
}

func labelOf(l ast.Label) string {
	name, _, err := ast.LabelName(l)
	if err != nil {
		return ""
	}
	return name
}

func (s *Spec) indexField(path string, f *ast.Field) {
	label, ok := s.rangeOf(f.Label.Pos(), f.Label.End())
	if !ok {
		return
	}
	value, _ := s.rangeOf(f.Value.Pos(), f.Value.End())
	if _, dup := s.places[path]; !dup {
		s.places[path] = place{label, value, f.Value}
	}
	s.indexValue(path, f.Value)
}

// plainString tells whether a value is a string literal without escapes.
func plainString(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.STRING && strings.HasPrefix(l.Value, `"`) && !strings.HasPrefix(l.Value, `""`) && !strings.Contains(l.Value, `\`)
}

func (s *Spec) indexValue(path string, e ast.Expr) {
	switch e := e.(type) {
	case *ast.StructLit:
		for _, d := range e.Elts {
			switch d := d.(type) {
			case *ast.Field:
				if name := labelOf(d.Label); name != "" {
					s.indexField(join(path, name), d)
				}
			case *ast.EmbedDecl:
				s.indexValue(path, d.Expr)
			}
		}
	case *ast.BinaryExpr:
		s.indexValue(path, e.X)
		s.indexValue(path, e.Y)
	case *ast.ParenExpr:
		s.indexValue(path, e.X)
	case *ast.ListLit:
		for i, x := range e.Elts {
			p := fmt.Sprintf("%s[%d]", path, i)
			r, _ := s.rangeOf(x.Pos(), x.End())
			s.places[p] = place{r, r, x}
			s.indexValue(p, x)
		}
	}
}

// join appends a field name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// parent cuts the last element off a path; "" has none.
func parent(path string) (string, bool) {
	if path == "" {
		return "", false
	}
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i], true
	}
	return "", true
}

// cut divides a path into its parent and its last name.
func cut(path string) (up, name string) {
	up, _ = parent(path)
	return up, strings.TrimPrefix(strings.TrimPrefix(path, up), ".")
}

// At returns where a path's value stands, or the nearest enclosing one's label.
func (s *Spec) At(path string) diag.Range {
	if p, ok := s.places[path]; ok {
		return p.value
	}
	if r, ok := s.generated(path); ok {
		return r
	}
	return s.Label(path)
}

// Label returns where a path's own name stands, or that of the nearest
// enclosing field.
func (s *Spec) Label(path string) diag.Range {
	for ok := true; ok; path, ok = parent(path) {
		if p, found := s.places[path]; found {
			return p.label
		}
		if r, found := s.generated(path); found {
			return r
		}
	}
	return diag.Range{}
}

// Inside returns the range of bytes [start, end) of a string value: exact where
// the literal has no escapes, else the whole literal.
func (s *Spec) Inside(path string, start, end int) diag.Range {
	if p, ok := s.places[path]; ok && plainString(p.expr) {
		return p.value.Within(1+start, 1+end)
	}
	return s.At(path)
}

// generated finds a field that a comprehension or a template made.
func (s *Spec) generated(path string) (diag.Range, bool) {
	if path == "" {
		return diag.Range{}, false
	}
	v := lookup(s.value, path)
	if !v.Exists() {
		return diag.Range{}, false
	}
	if r, ok := s.rangeOf(v.Pos(), token.NoPos); ok {
		return r, true
	}
	op, args := v.Expr()
	if op == cue.AndOp || op == cue.NoOp {
		for _, a := range args {
			if r, ok := s.rangeOf(a.Pos(), token.NoPos); ok {
				return r, true
			}
		}
	}
	return diag.Range{}, false
}

// lookup is the value at one of our paths, whose names may have dots in them.
func lookup(v cue.Value, path string) cue.Value {
	for parts := splitPath(path); len(parts) > 0; {
		n, next := 0, cue.Value{}
		for n < len(parts) && !next.Exists() {
			n++
			next = v.LookupPath(cue.MakePath(selector(strings.Join(parts[:n], "."))))
		}
		v, parts = next, parts[n:]
	}
	return v
}

// selector is the CUE form of a path's part.
func selector(part string) cue.Selector {
	if n, err := strconv.Atoi(strings.Trim(part, "[]")); err == nil && part[0] == '[' {
		return cue.Index(n)
	}
	return cue.Str(part)
}

// Broken reports whether CUE found a mistake at path or below it, so that what
// is missing there should not be reported again.
func (s *Spec) Broken(path string) bool { return s.broken[path] }

func (s *Spec) breakAt(path string) {
	for ok := true; ok; path, ok = parent(path) {
		s.broken[path] = true
	}
}

// known lists the fields that a struct may have beside a wrong one.
func known(name string, allowed []string) string {
	var out []string
	for _, a := range allowed {
		if a != name && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 || len(out) > 40 {
		return ""
	}
	return "the fields here are " + strings.Join(out, ", ")
}

// ident is #Ident of the schema, whose own sentence CUE does not give for a name.
var ident = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// mistake tells reports apart.
type mistake struct{ path, msg string }

// convert turns CUE errors into diagnostics, one for each mistake.
func (s *Spec) convert(err error, list *diag.List, code diag.Code) {
	all := errors.Errors(err)
	found := map[string]bool{}   // joined to faulty at the end: one value can be wrong twice
	refused := map[string]bool{} // fields that are not allowed
	for _, e := range all {
		format, args := e.Msg()
		if strings.Contains(format, "field not allowed") {
			refused[s.path(e.Path())] = true
		}
		if up, isKind := strings.CutSuffix(s.path(e.Path()), ".kind"); isKind {
			s.kindless[up] = true
		} else if strings.Contains(fmt.Sprintf(format, args...), "required field missing: kind") {
			s.kindless[s.path(e.Path())] = true
		}
	}
	for _, e := range all {
		path := s.path(e.Path())
		format, args := e.Msg()
		msg := fmt.Sprintf(format, args...)
		if strings.Contains(msg, "errors in empty disjunction") {
			continue // the arms' own errors follow
		}
		if s.told[mistake{path, msg}] || s.faulty[path] || below(path, s.faulty) {
			continue
		}
		if n, ok := s.length(path); ok && format == listLengths && !slices.Contains(args, any(n)) {
			continue // an element is wrong, which is told
		}
		if s.kindless[path] && (strings.HasPrefix(msg, "index out of range") || strings.HasPrefix(msg, "invalid index")) {
			continue // of the kinds, by a kind that is no string
		}
		s.told[mistake{path, msg}] = true
		s.breakAt(path)
		at := s.errorPlace(e, path)
		missing := strings.Contains(msg, "required but not present") || strings.Contains(msg, "incomplete value")
		if _, name, ok := strings.Cut(msg, "required field missing: "); ok {
			if missing = true; s.faulty[join(path, name)] || found[join(path, name)] || s.told[mistake{join(path, name), "missing"}] {
				continue
			}
			path = join(path, name)
		}
		if strings.Contains(msg, "field not allowed") && below(path, s.kindless) {
			continue // whether it is allowed depends on the kind
		}
		if missing {
			if s.told[mistake{path, "missing"}] {
				continue
			}
			s.told[mistake{path, "missing"}] = true
		}
		if !missing && path != "" {
			found[path] = true
		}
		switch {
		case strings.Contains(msg, "field not allowed"):
			up, name := cut(path)
			allowed := slices.DeleteFunc(s.allowed(up), func(f string) bool { return refused[join(up, f)] })
			if _, has := s.places[join(up, "kind")]; !has && slices.Contains(allowed, "kind") {
				s.kindless[up] = true // the kind decides what else is allowed
				if m := (mistake{join(up, "kind"), "missing"}); !s.told[m] {
					s.told[m] = true
					s.breakAt(join(up, "kind"))
					list.Add(s.Label(up), diag.MissingField, "%s has no field %q", orSystem(up), "kind").Because("it is required", "add kind: …")
				}
				continue
			}
			if !ident.MatchString(name) {
				list.Add(s.labelOr(path, at), diag.UnknownField, "%q is no name", name).Because("a name is a letter, then letters, digits or underscores", "")
				continue
			}
			meant := diag.Suggest(name, allowed)
			if meant != "" { // what is meant is not missing
				field := join(up, strings.Split(meant, `"`)[1])
				s.broken[field], s.told[mistake{field, "missing"}] = true, true
			}
			list.Add(s.labelOr(path, at), diag.UnknownField, "unknown field %q%s", name, meant).Because(known(name, allowed), "see `mlc explain MLC1101`")
		case missing:
			up, name := cut(path)
			if slices.ContainsFunc(all, func(o errors.Error) bool {
				p := s.path(o.Path())
				f, a := o.Msg()
				m := fmt.Sprintf(f, a...)
				other, wrong := cut(p)
				return strings.Contains(m, "field not allowed") && other == up && diag.Suggest(wrong, []string{name}) != ""
			}) {
				continue // the misspelt field is the one that is missing
			}
			if _, written := s.places[path]; written {
				list.Add(s.Label(path), diag.MissingField, "%s has no value of its own", path).Because("it is a type, or has a default (*…) where mlc has one: of two neither holds", "write one value; a tag may stand behind it: 40 @tag(name,type=int)")
				continue
			}
			list.Add(s.Label(up), diag.MissingField, "%s has no field %q", orSystem(up), name).Because("it is required", "add "+name+": …")
		case strings.Contains(msg, "reference ") && strings.Contains(msg, "not found") || strings.Contains(msg, "undefined field"):
			d := list.Add(at, diag.UndefinedName, "%s", msg)
			if format == "reference %q not found" && len(args) == 1 {
				if d.Mend = fmt.Sprintf("if it is text, put it in double quotes: %q", args[0]); args[0] == "schema" {
					d.Mend = `import it: write import "mlc.dev/schema" below the package`
				}
				if r, ok := s.rangeOf(e.Position(), token.NoPos); ok {
					d.At = r
					d.At.End += len(fmt.Sprint(args[0]))
				}
			}
		case msg == "import failed":
			why, _, _ := strings.Cut(e.Error(), "\n") // it wraps what failed, with the place
			if i := strings.LastIndex(why, ": cannot find"); i >= 0 {
				why = "import failed" + why[i:]
			}
			list.Add(at, diag.Syntax, "%s", why).Because("", fmt.Sprintf("the schema is imported as %q", schema.Package))
		case code == diag.Syntax:
			list.Add(at, diag.Syntax, "%s", msg)
		default:
			what, mend := msg, ""
			switch n, ok := s.length(path); {
			case format == listLengths && ok:
				if what, mend = s.wrongLength(n, args); n == 0 {
					mend += ", or leave the field out where it may be missing"
				}
			case strings.HasPrefix(format, "conflicting values") && len(args) == 4 && kinds[fmt.Sprint(args[2])] != kinds[fmt.Sprint(args[3])]:
				what = fmt.Sprintf("%s and %s cannot both stand here", kinds[fmt.Sprint(args[2])], kinds[fmt.Sprint(args[3])])
			}
			if path != "" {
				what = path + ": " + what
				s.values[what] = fault{path, msg, format == "%s"}
			}
			list.Add(at, diag.BadValue, "%s", what).Because("", mend)
		}
	}
	for p := range found {
		s.faulty[p] = true
	}
	s.onePerPath(list)
}

// below tells whether a path lies below one of a set.
func below(path string, of map[string]bool) bool {
	for up, ok := parent(path); ok; up, ok = parent(up) {
		if of[up] {
			return true
		}
	}
	return false
}

// onePerPath keeps, of several complaints about one value, the schema's own
// sentence, which says what is right.
func (s *Spec) onePerPath(list *diag.List) {
	at := map[diag.Range][]int{}
	for i, d := range *list {
		if d.Code == diag.BadValue {
			at[d.At] = append(at[d.At], i)
		}
	}
	drop := map[int]bool{}
	for _, is := range at {
		if len(is) < 2 {
			continue
		}
		keep := is[0]
		for _, i := range is {
			if s.values[(*list)[i].What].sentence {
				keep = i
				break
			}
		}
		for _, i := range is {
			drop[i] = i != keep
		}
	}
	out := diag.List{}
	for i, d := range *list {
		if !drop[i] {
			out = append(out, d)
		}
	}
	*list = out
}

func orSystem(path string) string {
	if path == "" {
		return "system"
	}
	return path
}

// path makes ours of a CUE error's path, which begins with system, or with
// #System in later waves.
func (s *Spec) path(sels []string) string {
	if len(sels) > 0 && (sels[0] == "system" || sels[0] == "#System") {
		sels = sels[1:]
	}
	out := ""
	for _, p := range sels {
		if strings.HasPrefix(p, `"`) {
			p = strings.Trim(p, `"`)
		}
		if _, isList := s.places[out+"["+p+"]"]; isList {
			out += "[" + p + "]"
			continue
		}
		out = join(out, p)
	}
	return out
}

// errorPlace is the best range of the user's own for an error.
func (s *Spec) errorPlace(e errors.Error, path string) diag.Range {
	if p, ok := s.places[path]; ok && path != "" {
		return p.value
	}
	for _, pos := range errors.Positions(e) {
		if r, ok := s.rangeOf(pos, token.NoPos); ok {
			return r
		}
	}
	return s.Label(path)
}

func (s *Spec) labelOr(path string, or diag.Range) diag.Range {
	if p, ok := s.places[path]; ok {
		return p.label
	}
	return or
}

// allowed lists the fields that the struct at path may have.
func (s *Spec) allowed(path string) []string { return fieldsOf(lookup(s.value, path)) }
