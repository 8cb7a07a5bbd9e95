package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"mlc.dev/mlc/compiler/diag"
)

// fault is a complaint of CUE about a value. A sentence is one of the schema's own,
// which says what is right.
type fault struct {
	path, msg string
	sentence  bool
}

// listLengths is CUE's complaint of a list that is too short or too long, or that has
// a wrong element.
const listLengths = "incompatible list lengths (%d and %d)"

// length is the number of elements of a list that the user wrote out.
func (s *Spec) length(path string) (int, bool) {
	l, ok := s.places[path].expr.(*ast.ListLit)
	if !ok {
		return 0, false
	}
	return len(l.Elts), true
}

// wrongLength puts into words that a list has n elements, and not as many as CUE says.
func (s *Spec) wrongLength(n int, args []any) (what, mend string) {
	most := 0
	for _, a := range args {
		if x, ok := a.(int); ok && x != n {
			most = x
		}
	}
	switch {
	case n == 0:
		return "the list is empty", fmt.Sprintf("name %d at least", most)
	case n < most:
		return fmt.Sprintf("the list has %d, too few", n), fmt.Sprintf("name %d at least", most)
	}
	return fmt.Sprintf("the list has %d, too many", n), fmt.Sprintf("name %d at most", most)
}

// kinds are CUE's kinds of values, in words.
var kinds = map[string]string{"struct": "a struct", "list": "a list", "string": "a string", "bytes": "bytes", "int": "a whole number", "float": "a number", "number": "a number", "bool": "true or false", "null": "null"}

// inWords names kinds of values.
func inWords(k cue.Kind) string {
	var out []string
	for _, one := range []cue.Kind{cue.StructKind, cue.ListKind, cue.StringKind, cue.BytesKind, cue.NumberKind, cue.BoolKind, cue.NullKind} {
		if both := k & one; both != 0 {
			out = append(out, kinds[both.String()])
		}
	}
	return strings.Join(out, " or ")
}

// kindOf is the kind of a value that is written as it is, else bottom.
func kindOf(e ast.Expr) cue.Kind {
	switch e := e.(type) {
	case *ast.StructLit:
		return cue.StructKind
	case *ast.ListLit:
		return cue.ListKind
	case *ast.Interpolation:
		return cue.StringKind
	case *ast.ParenExpr:
		return kindOf(e.X)
	case *ast.UnaryExpr:
		if e.Op == token.ADD || e.Op == token.SUB {
			return kindOf(e.X)
		}
	case *ast.BasicLit:
		switch e.Kind {
		case token.STRING:
			if strings.HasPrefix(strings.TrimLeft(e.Value, "#"), "'") {
				return cue.BytesKind
			}
			return cue.StringKind
		case token.INT:
			return cue.IntKind
		case token.FLOAT:
			return cue.FloatKind
		case token.TRUE, token.FALSE:
			return cue.BoolKind
		case token.NULL:
			return cue.NullKind
		}
	}
	return cue.BottomKind
}

// otherKinds puts into words which values are of another kind than their field: CUE
// writes out all that the schema says there, or tells only the bounds. It needs the
// spec without these values.
func (s *Spec) otherKinds(list diag.List, without cue.Value) {
	for i := range list {
		d := &list[i]
		f, ok := s.values[d.What]
		if d.Code != diag.BadValue || !ok {
			continue
		}
		p := s.places[f.path]
		want := schemaOf(without, f.path)
		have, may := kindOf(p.expr), kindIn(want)
		if !want.Exists() || may == cue.BottomKind {
			continue
		}
		sentence := ""
		if f.sentence {
			sentence = f.msg
		}
		if word, ok := p.expr.(*ast.Ident); ok && may == cue.StringKind {
			d.Mend = fmt.Sprintf("if it is text, put it in double quotes: %q", word.Name)
			continue
		}
		if have == cue.BottomKind || have&may != 0 || have == cue.IntKind && may&cue.NumberKind != 0 {
			continue
		}
		is := inWords(have)
		switch {
		case may&cue.IntKind != 0 && have == cue.FloatKind:
			is = "a fraction"
		case have == cue.IntKind:
			is = "a number"
		}
		name, src := "", string(s.Files[p.value.File][p.value.Start:p.value.End])
		if p.label != p.value { // not an element of a list
			name = string(s.Files[p.label.File][p.label.Start:p.label.End]) + ": "
		}
		d.What, d.Why, d.Mend = fmt.Sprintf("%s: %s belongs here, not %s", f.path, inWords(may), is), sentence, ""
		text := ""
		if plainString(p.expr) {
			text = strings.Trim(src, `"`)
		}
		l, isList := p.expr.(*ast.ListLit)
		switch fields := fieldsOf(want); {
		case strings.HasPrefix(sentence, "write "):
			d.Why, d.Mend = "", sentence
		case may == cue.StructKind && len(fields) == 0 && isList && len(l.Elts) > 0 && plainString(l.Elts[0]): // of names, it seems
			d.Mend = "write " + name + named(want, l.Elts[0].(*ast.BasicLit).Value)
		case may == cue.StructKind || may == cue.ListKind:
			if d.Mend = "write " + name + example(want, text); d.Why == "" && !slices.Contains(fields, "kind") { // it decides what other fields there are
				d.Why = known("", fields)
			}
		case have == cue.StringKind && kindOf(literal(text))&may != 0:
			d.Mend = "write " + name + text
		case have == cue.StringKind:
			d.Mend = "write " + inWords(may) + ", without quotes"
		case may == cue.StringKind:
			d.Mend = "text stands in double quotes"
		}
	}
}

// kindIn is the kind of a value of the schema's. A struct that lacks its kind is none
// to CUE.
func kindIn(v cue.Value) cue.Kind {
	if k := v.IncompleteKind(); k != cue.BottomKind || len(fieldsOf(v)) == 0 {
		return k
	}
	return cue.StructKind
}

// schemaOf is what the schema says of a field or an element that a spec lacks.
func schemaOf(spec cue.Value, path string) cue.Value {
	if i := strings.LastIndexByte(path, '['); strings.HasSuffix(path, "]") {
		return element(schemaOf(spec, path[:i]))
	}
	for up, ok := parent(path); ok; up, ok = parent(up) {
		if v := lookup(spec, up); v.Exists() {
			return v.LookupPath(cue.MakePath(cue.Str(strings.TrimPrefix(strings.TrimPrefix(path, up), ".")).Optional()))
		}
	}
	return cue.Value{}
}

// element is what a list holds.
func element(list cue.Value) cue.Value {
	if v := list.LookupPath(cue.MakePath(cue.AnyIndex)); v.Exists() {
		return v
	}
	return list.LookupPath(cue.MakePath(cue.Index(0)))
}

// example is a value of the schema's as one would write it, with the user's own text
// where there is any.
func example(v cue.Value, text string) string {
	switch kindIn(v) {
	case cue.StructKind:
		fields := fieldsOf(v)
		if len(fields) == 0 {
			return "{NAME: …}"
		}
		return "{" + fields[0] + ": " + example(v.LookupPath(cue.MakePath(cue.Str(fields[0]).Optional())), text) + "}"
	case cue.ListKind:
		var out []string
		for part := range strings.SplitSeq(text, ",") {
			out = append(out, example(element(v), strings.TrimSpace(part)))
		}
		return "[" + strings.Join(out, ", ") + "]"
	case cue.StringKind:
		if text != "" {
			return strconv.Quote(text)
		}
	}
	return "…"
}

// named is a struct as one would write it that holds something by a name of the user's.
func named(v cue.Value, quoted string) string {
	switch held := v.LookupPath(cue.MakePath(cue.Str(strings.Trim(quoted, `"`)).Optional())); {
	case !held.Exists():
		return "{NAME: …}"
	case kindIn(held) != cue.StructKind:
		return "{" + quoted + ": …}"
	case validate(held) != nil: // it cannot be empty
		return "{" + quoted + ": {…}}"
	}
	return "{" + quoted + ": {}}"
}

// literal is a text read as CUE, nil where it is none.
func literal(text string) ast.Expr {
	e, err := parser.ParseExpr("", text)
	if err != nil {
		return nil
	}
	return e
}

// fieldsOf are the names of the fields that a struct may have.
func fieldsOf(v cue.Value) []string {
	var out []string
	it, err := v.Fields(cue.Optional(true))
	if err != nil {
		return nil
	}
	for it.Next() {
		name := it.Selector().String()
		out = append(out, strings.Trim(strings.TrimRight(name, "?!"), `"`))
	}
	return out
}
