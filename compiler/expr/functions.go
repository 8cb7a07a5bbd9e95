package expr

import (
	"fmt"
	"math"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/types"
)

// function is a scalar function of the language: how many arguments it takes
// (max < 0: any number), its typing, its SQL, and its ONNX lowering. A nil
// lower means that it runs in batch only; batchOnly says why.
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
	"round":      {1, 2, checkRound, roundSQL, lowerRoundTo},
	"mod":        {2, 2, numericTo(keep), modSQL, lowerMod},
	"sqrt":       domain("sqrt", "Sqrt", "GreaterOrEqual", ">="),
	"ln":         domain("ln", "Log", "Greater", ">"),
	"log2":       logarithm("log2", 2),
	"log10":      logarithm("log10", 10),
	"pow":        {2, 2, numericTo(real), noNaNCall("pow"), lowerPow},
	"greatest":   {1, -1, orderedNumbers, call("greatest"), func(l *lowerer, n *Node, a []val) val { return l.extreme("Max", a) }},
	"least":      {1, -1, orderedNumbers, call("least"), func(l *lowerer, n *Node, a []val) val { return l.extreme("Min", a) }},
	"coalesce":   {1, -1, sameType, call("coalesce"), lowerCoalesce},
	"nullif":     {2, 2, sameType, call("nullif"), lowerNullif},
	"if":         {3, 3, checkIf, caseIf, func(l *lowerer, n *Node, a []val) val { return l.choose(n.Type, l.isTrue(a[0]), a[1], a[2]) }},
	"second":     calendar("second", func(l *lowerer, us val) val { return l.floorMod(l.ordinal("second", us), 60) }),
	"minute":     calendar("minute", func(l *lowerer, us val) val { return l.floorMod(l.ordinal("minute", us), 60) }),
	"hour":       calendar("hour", func(l *lowerer, us val) val { return l.floorMod(l.ordinal("hour", us), 24) }),
	"day":        calendar("day", func(l *lowerer, us val) val { _, _, d := l.civil(us); return d }),
	"dayofweek":  calendar("dayofweek", func(l *lowerer, us val) val { return l.floorMod(l.addK(l.days(us), 4), 7) }),
	"isodow":     calendar("isodow", func(l *lowerer, us val) val { return l.isodow(l.days(us)) }),
	"dayofyear":  calendar("dayofyear", lowerDayOfYear),
	"week":       calendar("week", func(l *lowerer, us val) val { _, w := l.isoWeek(us); return w }),
	"isoyear":    calendar("isoyear", func(l *lowerer, us val) val { y, _ := l.isoWeek(us); return y }),
	"month":      calendar("month", func(l *lowerer, us val) val { _, m, _ := l.civil(us); return m }),
	"quarter":    calendar("quarter", func(l *lowerer, us val) val { _, m, _ := l.civil(us); return l.quarter(m) }),
	"year":       calendar("year", func(l *lowerer, us val) val { y, _, _ := l.civil(us); return y }),
	"epoch":      {1, 1, timestampTo(types.Float), epochSQL, func(l *lowerer, n *Node, a []val) val { return l.map2k("Div", a[0], 1e6) }},
	"date_diff":  {3, 3, timestampsOf(types.Int), dateDiffSQL, lowerDateDiff},
	"date_trunc": {2, 2, timestampsOf(types.Timestamp), dateTruncSQL, lowerDateTrunc},

	"lower":       text("lower", types.String),
	"upper":       text("upper", types.String),
	"trim":        text("trim", types.String),
	"length":      text("length", types.Int),
	"concat":      {1, -1, stringsTo(types.String), textCall("concat"), lowerConcat},
	"contains":    {2, 2, stringsTo(types.Bool), textCall("contains"), lowerMatch(anything, anything)},
	"starts_with": {2, 2, stringsTo(types.Bool), textCall("starts_with"), lowerMatch("", anything)},
	"ends_with":   {2, 2, stringsTo(types.Bool), textCall("ends_with"), lowerMatch(anything, "")},
	"split_part":  {3, 3, checkSubstr, integerArgs("split_part"), lowerSplitPart},
	"replace":     {3, 3, stringsTo(types.String), textCall("replace"), nil},
	"substr":      {2, 3, checkSubstr, integerArgs("substr"), nil},
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
			return val{v: l.g.Op(op, l.g.Op("Where", ok, x.v, l.num(math.NaN()))), nan: true}
		})}
}

// logarithm divides natural logarithms, which would miss the whole ones by a bit:
// where the power of the nearest whole number is the argument, that is the result.
func logarithm(name string, base float64) function {
	f := domain(name, "Log", "Greater", ">")
	ln := f.lower
	f.lower = func(l *lowerer, n *Node, a []val) val {
		out := l.map2k("Div", ln(l, n, a), math.Log(base))
		near := l.g.Op("Round", out.v)
		exact := l.g.Op("Equal", l.g.Op("Pow", l.num(base), near), a[0].v)
		out.v = l.g.Op("Where", exact, near, out.v)
		return out
	}
	return f
}

func modSQL(_ *Node, a []string) string { return noNaN("(" + a[0] + " % " + nonZero(a[1]) + ")") }

func lowerMod(l *lowerer, n *Node, a []val) val {
	return l.arith("Mod", a[0], l.nonZero(n.Args[1], a[1]))
}

// literal is the number that a node spells, sign included.
func literal(n *Node) (float64, bool) {
	if n.Op == OpNeg {
		x, ok := literal(n.Args[0])
		return -x, ok
	}
	return n.Num, n.Op == OpNumber
}

// maxDigits bounds the digits of round: doubles have no more.
const maxDigits = 15

func checkRound(c *checker, n *Node) types.Type {
	if c.numeric(n, []types.Type{n.Args[0].Type}) == types.Invalid {
		return types.Invalid
	}
	if len(n.Args) == 1 {
		return types.Int
	}
	d, ok := literal(n.Args[1])
	if !ok || n.Args[1].Type != types.Int || math.Abs(d) > maxDigits {
		return c.fail(n.Args[1], "the digits of round must be a whole number from -%d to %d, written out", maxDigits, maxDigits)
	}
	if d > 0 {
		return types.Float
	}
	return types.Int
}

// digits are those that round keeps after the point (before it: negative), and
// their power of ten, which is exact.
func digits(n *Node) (d, power float64) {
	if len(n.Args) == 2 {
		d, _ = literal(n.Args[1])
	}
	return d, math.Pow10(int(math.Abs(d)))
}

// roundSQL is DuckDB's round, but for negative digits, where DuckDB's makes 0 of
// what is infinite.
func roundSQL(n *Node, a []string) string {
	switch d, power := digits(n); {
	case d > 0:
		return fmt.Sprintf("round(%s, %d)", a[0], int(d))
	case d < 0:
		return fmt.Sprintf("(round(%s / %.0f::DOUBLE) * %.0f::DOUBLE)", a[0], power, power)
	}
	return "round(" + a[0] + ")"
}

// lowerRoundTo keeps a number whose product with the power overflows: it has no
// digits after the point. DuckDB does the same.
func lowerRoundTo(l *lowerer, n *Node, a []val) val {
	x := a[0]
	switch d, power := digits(n); {
	case d > 0:
		r := l.map2k("Div", lowerRound(l, l.map2k("Mul", x, power)), power)
		r.v = l.g.Op("Where", l.g.Op("IsInf", r.v), x.v, r.v)
		return r
	case d < 0:
		return l.map2k("Mul", lowerRound(l, l.map2k("Div", x, power)), power)
	}
	return lowerRound(l, x)
}

func orderedNumbers(c *checker, n *Node) types.Type {
	t, ok := c.unify(n, n.Args)
	if !ok {
		return types.Invalid
	}
	if !t.Numeric() && t != types.Timestamp && t != types.Null {
		return c.fail(n, "%s compares numbers or timestamps, this is %s", n.Name, diag.An(t))
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
		return c.fail(n.Args[0], "if needs a condition, this is %s", diag.An(t))
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
