package expr

import (
	"fmt"
	"math"
	"strings"

	"mlc.dev/mlc/compiler/types"
)

// function is a scalar function of the language: how many arguments it takes
// (max < 0: any number), its typing, its SQL, and its ONNX lowering. A nil
// lower means that it runs in batch only.
type function struct {
	min, max int
	check    func(*checker, *Node) types.Type
	sql      func(n *Node, args []string) string
	lower    func(l *lowerer, n *Node, args []val) val
}

func (f function) arity() string {
	switch {
	case f.max < 0:
		return fmt.Sprintf("at least %d arguments", f.min)
	case f.min == f.max && f.min == 1:
		return "1 argument"
	case f.min == f.max:
		return fmt.Sprintf("%d arguments", f.min)
	}
	return fmt.Sprintf("%d to %d arguments", f.min, f.max)
}

// functions is the one table of functions. Names are DuckDB's.
var functions = map[string]function{
	"abs":        unary("abs", keep, func(l *lowerer, x val) val { return l.map1("Abs", x) }),
	"floor":      unary("floor", whole, func(l *lowerer, x val) val { return l.map1("Floor", x) }),
	"ceil":       unary("ceil", whole, func(l *lowerer, x val) val { return l.map1("Ceil", x) }),
	"sign":       unary("sign", whole, lowerSign),
	"exp":        unary("exp", real, func(l *lowerer, x val) val { return l.map1("Exp", x) }),
	"round":      {1, 1, numericTo(whole), call("round"), lower1(lowerRound)},
	"sqrt":       domain("sqrt", "Sqrt", "GreaterOrEqual", ">="),
	"ln":         domain("ln", "Log", "Greater", ">"),
	"pow":        {2, 2, numericTo(real), noNaNCall("pow"), lowerPow},
	"greatest":   {1, -1, orderedNumbers, call("greatest"), func(l *lowerer, n *Node, a []val) val { return l.extreme("Max", a) }},
	"least":      {1, -1, orderedNumbers, call("least"), func(l *lowerer, n *Node, a []val) val { return l.extreme("Min", a) }},
	"coalesce":   {1, -1, sameType, call("coalesce"), lowerCoalesce},
	"nullif":     {2, 2, sameType, call("nullif"), lowerNullif},
	"if":         {3, 3, checkIf, caseIf, func(l *lowerer, n *Node, a []val) val { return l.choose(n.Type, l.isTrue(a[0]), a[1], a[2]) }},
	"hour":       calendar("hour", func(l *lowerer, us val) val { return l.floorDiv(l.floorMod(us, 86400e6), 3600e6) }),
	"minute":     calendar("minute", func(l *lowerer, us val) val { return l.floorDiv(l.floorMod(us, 3600e6), 60e6) }),
	"dayofweek":  calendar("dayofweek", func(l *lowerer, us val) val { return l.floorMod(l.addK(l.days(us), 4), 7) }),
	"year":       calendar("year", func(l *lowerer, us val) val { y, _, _ := l.civil(us); return y }),
	"month":      calendar("month", func(l *lowerer, us val) val { _, m, _ := l.civil(us); return m }),
	"day":        calendar("day", func(l *lowerer, us val) val { _, _, d := l.civil(us); return d }),
	"epoch":      {1, 1, timestampTo(types.Float), epochSQL, func(l *lowerer, n *Node, a []val) val { return l.map2k("Div", a[0], 1e6) }},
	"lower":      text("lower", types.String),
	"upper":      text("upper", types.String),
	"trim":       text("trim", types.String),
	"length":     text("length", types.Int),
	"contains":   {2, 2, stringsTo(types.Bool), call("contains"), nil},
	"replace":    {3, 3, stringsTo(types.String), call("replace"), nil},
	"split_part": {3, 3, checkSubstr, integerArgs("split_part"), nil},
	"substr":     {2, 3, checkSubstr, integerArgs("substr"), nil},
}

// FunctionNames returns the functions and whether each runs online.
func FunctionNames() map[string]bool {
	out := map[string]bool{}
	for name, f := range functions {
		out[name] = f.lower != nil
	}
	return out
}

func keep(t types.Type) types.Type { return t }
func whole(types.Type) types.Type  { return types.Int }
func real(types.Type) types.Type   { return types.Float }
func call(name string) func(*Node, []string) string {
	return func(_ *Node, args []string) string { return name + "(" + strings.Join(args, ", ") + ")" }
}

func noNaNCall(name string) func(*Node, []string) string {
	return func(n *Node, args []string) string { return noNaN(call(name)(n, args)) }
}

func lower1(f func(l *lowerer, x val) val) func(*lowerer, *Node, []val) val {
	return func(l *lowerer, _ *Node, a []val) val { return f(l, a[0]) }
}

func numericTo(result func(types.Type) types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		args := make([]types.Type, len(n.Args))
		for i, a := range n.Args {
			args[i] = a.Type
		}
		t := c.numeric(n, args)
		if t == types.Invalid {
			return t
		}
		return result(t)
	}
}

func unary(name string, result func(types.Type) types.Type, lower func(*lowerer, val) val) function {
	return function{1, 1, numericTo(result), noNaNCall(name), lower1(lower)}
}

// domain is a function that is NULL where its argument does not satisfy cmp 0.
func domain(name, op, cmp, sqlCmp string) function {
	return function{1, 1, numericTo(real),
		func(_ *Node, a []string) string {
			return fmt.Sprintf("CASE WHEN %s %s 0 THEN %s(%s) END", a[0], sqlCmp, name, a[0])
		},
		lower1(func(l *lowerer, x val) val {
			ok := l.g.Op(cmp, x.v, l.num(0))
			return val{v: l.g.Op(op, l.g.Op("Where", ok, x.v, l.num(math.NaN()))), nan: true, konst: x.konst}
		})}
}

func orderedNumbers(c *checker, n *Node) types.Type {
	t, ok := c.unify(n, n.Args)
	if !ok {
		return types.Invalid
	}
	if !t.Numeric() && t != types.Timestamp && t != types.Null {
		return c.fail(n, "%s compares numbers or timestamps, this is a %s", n.Name, t)
	}
	return t
}

func sameType(c *checker, n *Node) types.Type {
	t, ok := c.unify(n, n.Args)
	if !ok {
		return types.Invalid
	}
	return t
}

func checkIf(c *checker, n *Node) types.Type {
	if t := n.Args[0].Type; t != types.Bool && t != types.Null {
		return c.fail(n.Args[0], "if needs a condition, this is a %s", t)
	}
	t, ok := c.unify(n, n.Args[1:])
	if !ok {
		return types.Invalid
	}
	return t
}

func caseIf(_ *Node, a []string) string {
	return "CASE WHEN " + a[0] + " THEN " + a[1] + " ELSE " + a[2] + " END"
}

func timestampTo(t types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		if at := n.Args[0].Type; at != types.Timestamp && at != types.Null {
			return c.fail(n.Args[0], "%s needs a timestamp, this is a %s", n.Name, at)
		}
		return t
	}
}

func calendar(name string, lower func(*lowerer, val) val) function {
	return function{1, 1, timestampTo(types.Int), func(_ *Node, a []string) string {
		return "CAST(" + name + "(CAST(" + a[0] + " AS TIMESTAMP)) AS DOUBLE)"
	}, lower1(lower)}
}

func epochSQL(_ *Node, a []string) string {
	return "(CAST(epoch_us(CAST(" + a[0] + " AS TIMESTAMP)) AS DOUBLE) / 1e6)"
}

func stringsTo(t types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		for _, a := range n.Args {
			if a.Type != types.String && a.Type != types.Null {
				return c.fail(a, "%s needs strings, this is a %s", n.Name, a.Type)
			}
		}
		return t
	}
}

func text(name string, t types.Type) function {
	sql := call(name)
	if t.Numeric() {
		sql = func(n *Node, a []string) string { return "CAST(" + call(name)(n, a) + " AS DOUBLE)" }
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
			return c.fail(a, "%s needs a whole number here, this is a %s", n.Name, a.Type)
		case !wantInt && a.Type != types.String:
			return c.fail(a, "%s needs a string here, this is a %s", n.Name, a.Type)
		}
	}
	return types.String
}

func integerArgs(name string) func(*Node, []string) string {
	return func(n *Node, args []string) string {
		out := make([]string, len(args))
		for i, a := range args {
			out[i] = a
			if n.Args[i].Type == types.Int {
				out[i] = "TRY_CAST(" + a + " AS BIGINT)"
			}
		}
		return call(name)(n, out)
	}
}
