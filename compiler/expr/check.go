package expr

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/types"
)

// Check sets the Type of n and of everything below it, and returns every
// mistake found. Where there is one, types above it stay Invalid and cause no
// further error. names lists the scope's columns, for suggestions; it may be nil.
func Check(n *Node, scope Scope, names func() []string) []*Error {
	c := &checker{scope: scope, names: names}
	c.check(n)
	return c.errs
}

type checker struct {
	scope Scope
	names func() []string
	errs  []*Error
}

func (c *checker) fail(n *Node, format string, args ...any) types.Type {
	c.errs = append(c.errs, n.errorf(format, args...))
	return types.Invalid
}

func (c *checker) check(n *Node) types.Type {
	args := make([]types.Type, len(n.Args))
	ok := true
	for i, a := range n.Args {
		args[i] = c.check(a)
		ok = ok && args[i] != types.Invalid
	}
	if ok {
		n.Type = c.typeOf(n, args)
	}
	return n.Type
}

func (c *checker) typeOf(n *Node, args []types.Type) types.Type {
	switch n.Op {
	case OpColumn:
		t, ok := c.scope(n.Name)
		if !ok {
			var names []string
			if c.names != nil {
				names = c.names()
			}
			c.errs = append(c.errs, &Error{Start: n.Start, End: n.End, Kind: Unknown, Name: n.Name,
				What: fmt.Sprintf("no column %q%s", n.Name, diag.Suggest(n.Name, names))})
		}
		return t
	case OpNumber:
		if strings.ContainsAny(n.Text, ".eE") {
			return types.Float
		}
		return types.Int
	case OpString:
		return types.String
	case OpBool:
		return types.Bool
	case OpNull:
		return types.Null
	case OpInstant:
		return types.Timestamp
	case OpNeg:
		return c.numeric(n, args)
	case OpNot, OpAnd, OpOr:
		for i, t := range args {
			if t != types.Bool && t != types.Null {
				return c.fail(n.Args[i], "%s needs a condition, this is %s", n.Op, diag.An(t))
			}
		}
		return types.Bool
	case OpIsNull, OpNotNull:
		return types.Bool
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpIn, OpBetween:
		t, ok := c.unify(n, n.Args)
		if !ok {
			return types.Invalid
		}
		if t == types.Bool && n.Op != OpEq && n.Op != OpNe && n.Op != OpIn {
			return c.fail(n, "conditions have no order; %s cannot compare them", n.Op)
		}
		return types.Bool
	case OpLike:
		for i, t := range args {
			if t != types.String && t != types.Null {
				return c.fail(n.Args[i], "LIKE compares strings, this is %s", diag.An(t))
			}
		}
		if n.Args[1].Op != OpString {
			return c.fail(n.Args[1], "the pattern of LIKE must be a string literal")
		}
		if strings.Contains(n.Args[1].Str, `\`) {
			return c.fail(n.Args[1], "a pattern of LIKE cannot hold a backslash")
		}
		return types.Bool
	case OpAdd, OpSub, OpMul, OpMod:
		if n.ofTimestamps() {
			return c.checkSince(n)
		}
		return c.numeric(n, args)
	case OpDiv:
		if c.numeric(n, args) == types.Invalid {
			return types.Invalid
		}
		return types.Float
	case OpIntDiv:
		if c.numeric(n, args) == types.Invalid {
			return types.Invalid
		}
		return types.Int
	case OpConcat:
		for i, t := range args {
			if t != types.String && t != types.Null {
				return c.fail(n.Args[i], "|| joins strings, this is %s; write CAST(… AS string)", diag.An(t))
			}
		}
		return types.String
	case OpCase:
		var results []*Node
		for i := 0; i+1 < len(n.Args); i += 2 {
			if t := args[i]; t != types.Bool && t != types.Null {
				return c.fail(n.Args[i], "WHEN needs a condition, this is %s", diag.An(t))
			}
			results = append(results, n.Args[i+1])
		}
		if n.Else {
			results = append(results, n.Args[len(n.Args)-1])
		}
		t, ok := c.unify(n, results)
		if !ok {
			return types.Invalid
		}
		return t
	case OpCast:
		if !castable(args[0], n.Cast) {
			return c.fail(n, "%s cannot be cast to %s", diag.An(args[0]), n.Cast)
		}
		return n.Cast
	case OpCall:
		f, ok := functions[n.Name]
		if !ok {
			all := []string{"date_part", "extract"} // the parser's
			for name := range functions {
				all = append(all, name)
			}
			sort.Strings(all)
			meant := diag.Suggest(n.Name, all)
			if n.Name == "log" { // elsewhere it is one or the other
				meant = `; did you mean "ln", "log10" or "log2"?`
			}
			t := c.fail(n, "no function %q%s", n.Name, meant)
			c.errs[len(c.errs)-1].Mend = "`mlc explain MLC2111` lists the functions; they are of one row, there are no aggregates"
			return t
		}
		if len(n.Args) < f.min || f.max >= 0 && len(n.Args) > f.max {
			return c.fail(n, "%s takes %s, not %d", n.Name, f.arity(), len(n.Args))
		}
		return f.check(c, n)
	}
	panic("expr: unknown operator " + string(n.Op))
}

func castable(from, to types.Type) bool {
	switch {
	case from == to, from == types.Null, to == types.String:
		return true
	case from == types.String:
		return true
	case from == types.Timestamp || to == types.Timestamp:
		return false
	}
	return true // between numbers and conditions
}

// numeric types arithmetic: int where every operand is, else float.
func (c *checker) numeric(n *Node, args []types.Type) types.Type {
	out := types.Int
	for i, t := range args {
		switch t {
		case types.Int, types.Null:
		case types.Float:
			out = types.Float
		default:
			hint := ""
			switch t {
			case types.Timestamp:
				hint = "; epoch(…) gives its seconds"
			case types.Bool:
				hint = "; CAST(… AS int) makes it 0 or 1"
			}
			return c.fail(n.Args[i], "%s needs numbers, this is %s%s", n.name(), diag.An(t), hint)
		}
	}
	return out
}

func (n *Node) name() string {
	switch n.Op {
	case OpCall:
		return n.Name
	case OpNeg:
		return "-"
	}
	return string(n.Op)
}

// unify finds the one type of nodes that meet: numbers widen, NULL agrees with
// all, and a string literal beside a timestamp is read as an instant.
func (c *checker) unify(n *Node, nodes []*Node) (types.Type, bool) {
	if !c.instants(nodes) {
		return types.Invalid, false
	}
	out := types.Null
	var of *Node
	for _, a := range nodes {
		switch {
		case out == types.Null:
			out, of = a.Type, a
		case a.Type == types.Null || a.Type == out:
		case a.Type.Numeric() && out.Numeric():
			out = types.Float
		default:
			c.fail(a, "this is %s, but %s is %s", diag.An(a.Type), of, diag.An(out))
			return types.Invalid, false
		}
	}
	return out, true
}

// instants reads the string literals of nodes as instants where one of nodes is a
// timestamp.
func (c *checker) instants(nodes []*Node) bool {
	if !slices.ContainsFunc(nodes, func(a *Node) bool { return a.Type == types.Timestamp }) {
		return true
	}
	for _, b := range nodes {
		if b.Op != OpString {
			continue
		}
		us, err := types.ParseTimestamp(b.Str)
		if err != nil {
			c.fail(b, "%s", err)
			return false
		}
		b.Op, b.Num, b.Type = OpInstant, float64(us), types.Timestamp
	}
	return true
}
