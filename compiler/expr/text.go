package expr

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
)

// batchOnly says why a function has no ONNX form, or has one for some arguments
// only (inModel).
var batchOnly = map[string]string{
	"lower":       letters,
	"upper":       letters,
	"trim":        "ONNX has no operator that cuts a string at a position",
	"substr":      "ONNX has no operator that cuts a string at a position",
	"length":      "ONNX has no operator that counts the characters of a string",
	"replace":     "ONNX has no operator that replaces a part of a string",
	"contains":    needle,
	"starts_with": needle,
	"ends_with":   needle,
	"split_part":  "ONNX splits at a text that is part of the model: the delimiter has to be a text in quotes that is not empty, and the index a whole number from 1, written out",
}

const (
	letters = "ONNX changes the case of letters by the locales of the machine it runs on, which many containers lack, and not by Unicode as DuckDB does"
	needle  = "ONNX looks for patterns that are part of the model: the text to look for has to be written out, in quotes"
)

// takesText are the functions with an ONNX form whose NULLs are strings.
var takesText = map[string]bool{"concat": true, "contains": true, "starts_with": true, "ends_with": true, "split_part": true}

// inModel tells whether a call has an ONNX form, which for some functions depends
// on what is written out.
func inModel(n *Node) bool {
	switch n.Name {
	case "contains", "starts_with", "ends_with":
		return isText(n.Args[1])
	case "split_part":
		k, ok := literal(n.Args[2])
		return isText(n.Args[1]) && n.Args[1].Str != "" && ok && k >= 1 && k <= 1<<53
	}
	return functions[n.Name].lower != nil
}

// isText tells whether a node is a text that a model can hold.
func isText(n *Node) bool { return n.Op == OpString && utf8.ValidString(n.Str) }

func stringsTo(t types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		for _, a := range n.Args {
			if a.Type != types.String && a.Type != types.Null {
				return c.fail(a, "%s needs strings, this is %s", n.Name, diag.An(a.Type))
			}
		}
		return t
	}
}

func text(name string, t types.Type) function {
	sql := textCall(name)
	if t.Numeric() {
		sql = func(n *Node, a []string) string { return "CAST(" + textCall(name)(n, a) + " AS DOUBLE)" }
	}
	return function{1, 1, stringsTo(t), sql, nil}
}

// checkSubstr types functions that take a string, then strings or whole numbers.
func checkSubstr(c *checker, n *Node) types.Type {
	for i, a := range n.Args {
		wantInt := i > 0 && (n.Name == "substr" || i == 2)
		switch {
		case a.Type == types.Null:
		case wantInt && a.Type != types.Int:
			return c.fail(a, "%s needs a whole number here, this is %s", n.Name, diag.An(a.Type))
		case !wantInt && a.Type != types.String:
			return c.fail(a, "%s needs a string here, this is %s", n.Name, diag.An(a.Type))
		}
	}
	return types.String
}

func integerArgs(name string) func(*Node, []string) string {
	return func(n *Node, args []string) string {
		out := make([]string, len(args))
		for i, a := range args {
			out[i] = a
			if i == 2 || name == "substr" && i == 1 {
				out[i] = "TRY_CAST(" + a + " AS BIGINT)"
			}
		}
		return textCall(name)(n, out)
	}
}

// textCall gives bare NULLs a type, where DuckDB would not know which of several
// functions of a name is meant.
func textCall(name string) func(*Node, []string) string {
	return func(n *Node, args []string) string {
		out := make([]string, len(args))
		for i, a := range args {
			if out[i] = a; a == "NULL" {
				out[i] = "NULL::VARCHAR"
			}
		}
		return call(name)(n, out)
	}
}

// lowerConcat passes over NULLs, as DuckDB does; || does not.
func lowerConcat(l *lowerer, _ *Node, args []val) val {
	var out val
	for i, a := range args {
		if a.null != "" {
			a = val{v: l.g.Op("Where", a.null, l.g.Scalar(""), a.v)}
		}
		if i > 0 {
			a = val{v: l.g.Op("StringConcat", out.v, a.v)}
		}
		out = a
	}
	return out
}

// anything is any bytes in RE2, line ends and what is no UTF-8 among them.
const anything = `\C*`

func lowerMatch(before, after string) func(*lowerer, *Node, []val) val {
	return func(l *lowerer, n *Node, a []val) val {
		return l.match(before+regexp.QuoteMeta(n.Args[1].Str)+after, a[0])
	}
}

// match is whether RE2's pattern is the whole of x.
func (l *lowerer) match(pattern string, x val) val {
	m := l.g.OpA("RegexFullMatch", onnx.Attrs{"pattern": pattern}, x.v)
	return val{v: l.andNotNull(m, x.null), null: x.null}
}

// lowerSplitPart appends an empty part, which stands for all that are not there.
func lowerSplitPart(l *lowerer, n *Node, a []val) val {
	g, x := l.g, a[0]
	k, _ := literal(n.Args[2])
	parts := g.Node("", "StringSplit", onnx.Attrs{"delimiter": n.Args[1].Str}, 2, x.v)[0]
	count := g.OpA("Shape", onnx.Attrs{"start": -1}, parts)
	none := g.Op("Expand", g.Scalar(""), g.OpA("Concat", onnx.Attrs{"axis": 0}, g.Op("Shape", x.v), g.Const([]int64{1}, 1)))
	at := g.Op("Squeeze", g.Op("Min", count, g.Const([]int64{int64(k) - 1}, 1)))
	x.v = g.OpA("Gather", onnx.Attrs{"axis": -1}, g.OpA("Concat", onnx.Attrs{"axis": -1}, parts, none), at)
	return x
}

// likePattern is the RE2 form of a LIKE pattern.
func likePattern(p string) string {
	var b strings.Builder
	b.WriteString("(?s)")
	for _, r := range p {
		switch r {
		case '%':
			b.WriteString(".*")
		case '_':
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return b.String()
}
