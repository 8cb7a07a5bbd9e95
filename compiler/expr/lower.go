package expr

import (
	"fmt"
	"math"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
)

// Online reports whether a checked expression can be lowered to ONNX; where it
// cannot, it returns the node that stands in the way, and Why says what it lacks.
func Online(n *Node) (bool, *Node) {
	var bad *Node
	n.Walk(func(c *Node) {
		if bad == nil && Why(c) != "" {
			bad = c
		}
	})
	return bad == nil, bad
}

// Why tells why one node of a checked expression has no ONNX form, its arguments
// left aside; it is empty for a node that has one.
func Why(n *Node) string {
	argType := func() types.Type {
		t := types.Null
		for _, a := range n.Args {
			if a.Type != types.Null {
				t = a.Type
			}
		}
		return t
	}
	switch n.Op {
	case OpCall:
		if !inModel(n) {
			return batchOnly[n.Name]
		}
	case OpLt, OpLe, OpGt, OpGe, OpBetween:
		if argType() == types.String {
			return "ONNX tells whether strings are equal, but does not order them"
		}
	case OpCast:
		from := n.Args[0].Type
		if from != n.Cast && from != types.Null && (from == types.String || n.Cast == types.String) {
			return "ONNX reads and writes numbers and instants as text in other ways than SQL does"
		}
	}
	return ""
}

// val is a lowered value. v holds doubles (numbers and timestamps), booleans or
// strings of shape [N,1], or a constant of shape []. A double that is NULL is NaN,
// which arithmetic carries along by itself; nan tells that there may be one. For
// booleans and strings, null, when not empty, is a boolean tensor; under it v is
// false, or an arbitrary string.
type val struct {
	v, null onnx.Value
	nan     bool
}

// isNull is the null mask of a value, or empty. Nodes that nothing reads are left
// out of a model, so it costs nothing to ask.
func (l *lowerer) isNull(x val) onnx.Value {
	if x.nan {
		return l.g.Op("IsNaN", x.v)
	}
	return x.null
}

// unless is the doubles x, NULL under a mask, which may be empty.
func (l *lowerer) unless(null onnx.Value, x val) val {
	if null == "" {
		return x
	}
	return val{v: l.g.Op("Where", null, l.num(math.NaN()), x.v), nan: true}
}

// Input is a raw feature in a graph: Value holds doubles or strings of shape
// [N,1], NULL being NaN or types.NullString.
type Input struct {
	Value onnx.Value
	Type  types.Type
}

// Lower adds a checked expression that is Online to g. column gives the tensor
// of a column. The result is a raw value like the inputs: doubles with NaN for
// NULL (booleans as 0 and 1), or strings with types.NullString for NULL, of
// shape [N,1]. The expression must use at least one column.
func Lower(g *onnx.Graph, n *Node, column func(name string) Input) onnx.Value {
	l := &lowerer{g: g, column: column}
	r := l.lower(n)
	if l.any == "" {
		panic("expr: lowering an expression without columns")
	}
	out := r.v
	switch {
	case n.Type == types.String && r.null != "":
		out = g.Op("Where", r.null, g.Scalar(types.NullString), out)
	case n.Type == types.Bool:
		out = l.unless(r.null, val{v: g.Cast(out, onnx.Double)}).v
	}
	if !g.Varies(out) {
		out = g.Op("Expand", out, g.Op("Shape", l.any))
	}
	return out
}

type lowerer struct {
	g      *onnx.Graph
	column func(string) Input
	any    onnx.Value // some [N,1] tensor
}

func (l *lowerer) num(x float64) onnx.Value { return l.g.Scalar(x) }

// or joins null masks.
func (l *lowerer) or(masks ...onnx.Value) onnx.Value {
	var out onnx.Value
	for _, m := range masks {
		switch {
		case m == "":
		case out == "":
			out = m
		case out != m:
			out = l.g.Op("Or", out, m)
		}
	}
	return out
}

func (l *lowerer) lower(n *Node) val {
	g := l.g
	args := make([]val, len(n.Args))
	for i, a := range n.Args {
		args[i] = l.lower(a)
		if a.Type == types.Null {
			args[i] = l.nullOf(n, i)
		}
	}
	switch n.Op {
	case OpColumn:
		in := l.column(n.Name)
		l.any = in.Value
		if in.Type == types.String {
			return val{v: in.Value, null: g.Op("Equal", in.Value, g.Scalar(types.NullString))}
		}
		if in.Type == types.Bool {
			null := g.Op("IsNaN", in.Value)
			return val{v: g.Op("And", g.Op("Not", g.Op("Equal", in.Value, l.num(0))), g.Op("Not", null)), null: null}
		}
		return val{v: in.Value, nan: true}
	case OpNumber, OpInstant:
		return val{v: l.num(n.Num)}
	case OpString:
		return val{v: g.Scalar(n.Str)}
	case OpBool:
		return val{v: g.Scalar(n.Bool)}
	case OpNull:
		return l.null(types.Float)
	case OpNeg:
		return l.map1("Neg", args[0])
	case OpNot:
		return val{v: l.andNotNull(g.Op("Not", args[0].v), args[0].null), null: args[0].null}
	case OpAnd, OpOr:
		return l.logic(n.Op, args[0], args[1])
	case OpIsNull, OpNotNull:
		null := l.isNull(args[0])
		if null == "" {
			return val{v: g.Scalar(n.Op == OpNotNull)}
		}
		if n.Op == OpNotNull {
			null = g.Op("Not", null)
		}
		return val{v: null}
	case OpAdd:
		return l.arith("Add", args[0], args[1])
	case OpSub:
		out := l.arith("Sub", args[0], args[1])
		if n.ofTimestamps() {
			out = l.map2k("Div", out, 1e6)
		}
		return out
	case OpMul:
		return l.arith("Mul", args[0], args[1])
	case OpDiv:
		return l.arith("Div", args[0], l.nonZero(n.Args[1], args[1]))
	case OpIntDiv:
		return l.trunc(l.arith("Div", args[0], l.nonZero(n.Args[1], args[1])))
	case OpMod:
		return l.arith("Mod", args[0], l.nonZero(n.Args[1], args[1]))
	case OpConcat:
		return val{v: g.Op("StringConcat", args[0].v, args[1].v), null: l.or(args[0].null, args[1].null)}
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
		return l.compare(n.Op, args[0], args[1])
	case OpBetween:
		return l.logic(OpAnd, l.compare(OpGe, args[0], args[1]), l.compare(OpLe, args[0], args[2]))
	case OpIn:
		out := l.compare(OpEq, args[0], args[1])
		for _, a := range args[2:] {
			out = l.logic(OpOr, out, l.compare(OpEq, args[0], a))
		}
		return out
	case OpLike:
		return l.match(likePattern(n.Args[1].Str), args[0])
	case OpCase:
		var out val
		i := len(args)
		if n.Else {
			i--
			out = args[i]
		} else {
			out = l.null(n.Type)
		}
		for i -= 2; i >= 0; i -= 2 {
			out = l.choose(n.Type, l.isTrue(args[i]), args[i+1], out)
		}
		return out
	case OpCast:
		return l.cast(n, args[0])
	case OpCall:
		return functions[n.Name].lower(l, n, args)
	}
	panic(fmt.Sprintf("expr: cannot lower %s", n.Op))
}

// nullOf is the typed form of a bare NULL that is argument i of n: it takes the
// type of its fellows.
func (l *lowerer) nullOf(n *Node, i int) val {
	switch n.Op {
	case OpNot, OpAnd, OpOr:
		return l.null(types.Bool)
	case OpConcat, OpLike:
		return l.null(types.String)
	case OpCast:
		return l.null(n.Cast)
	case OpIsNull, OpNotNull:
		return l.null(types.Float)
	}
	cond := n.Op == OpCase && i%2 == 0 && !(n.Else && i == len(n.Args)-1) || n.Op == OpCall && n.Name == "if" && i == 0
	if cond {
		return l.null(types.Bool)
	}
	if n.Op == OpCase || n.Op == OpCall && n.Type != types.Null {
		if n.Op == OpCase || n.Name == "if" || n.Name == "coalesce" || n.Name == "nullif" {
			return l.null(n.Type)
		}
		if takesText[n.Name] {
			return l.null(types.String)
		}
		return l.null(types.Float)
	}
	for _, a := range n.Args {
		if a.Type != types.Null {
			return l.null(a.Type)
		}
	}
	return l.null(types.Float)
}

// null is a NULL in the tensor form of t.
func (l *lowerer) null(t types.Type) val {
	switch t {
	case types.Bool:
		return val{v: l.g.Scalar(false), null: l.g.Scalar(true)}
	case types.String:
		return val{v: l.g.Scalar(""), null: l.g.Scalar(true)}
	}
	return val{v: l.num(math.NaN()), nan: true}
}

// map1 applies an operator of doubles that gives NaN for NaN.
func (l *lowerer) map1(op string, x val) val {
	return val{v: l.g.Op(op, x.v), nan: x.nan}
}

func (l *lowerer) map2k(op string, x val, k float64) val {
	return val{v: l.g.Op(op, x.v, l.num(k)), nan: x.nan}
}

func (l *lowerer) addK(x val, k float64) val { return l.map2k("Add", x, k) }

// arith applies a numeric operator that gives NaN for NaN, and where it is
// undefined.
func (l *lowerer) arith(op string, a, b val) val {
	var v onnx.Value
	if op == "Mod" {
		v = l.fmod(a.v, b.v)
	} else {
		v = l.g.Op(op, a.v, b.v)
	}
	return val{v: v, nan: true}
}

func (l *lowerer) fmod(a, b onnx.Value) onnx.Value {
	return l.g.OpA("Mod", onnx.Attrs{"fmod": 1}, a, b)
}

// lowerPow looks at NULLs by itself: 1 to any power is 1, and so is any to the
// power of 0.
func lowerPow(l *lowerer, _ *Node, a []val) val {
	return l.unless(l.or(l.isNull(a[0]), l.isNull(a[1])), l.arith("Pow", a[0], a[1]))
}

// nonZero is a divisor, NULL where it is 0.
func (l *lowerer) nonZero(n *Node, x val) val {
	if n.Op == OpNumber && n.Num != 0 {
		return x
	}
	return l.unless(l.g.Op("Equal", x.v, l.num(0)), x)
}

func (l *lowerer) trunc(x val) val {
	neg := l.g.Op("Less", x.v, l.num(0))
	return val{v: l.g.Op("Where", neg, l.g.Op("Ceil", x.v), l.g.Op("Floor", x.v)), nan: x.nan}
}

// lowerSign looks at NULLs by itself: what the sign of NaN is, is not said.
func lowerSign(l *lowerer, x val) val {
	return l.unless(l.isNull(x), val{v: l.g.Op("Sign", x.v)})
}

// lowerRound rounds half away from zero; ONNX Round goes to even.
func lowerRound(l *lowerer, x val) val {
	abs := l.g.Op("Abs", x.v)
	down := l.g.Op("Floor", abs)
	up := l.g.Cast(l.g.Op("GreaterOrEqual", l.g.Op("Sub", abs, down), l.num(0.5)), onnx.Double)
	big := l.g.Op("GreaterOrEqual", abs, l.num(1<<52)) // already whole; inf - inf is NaN
	r := l.g.Op("Where", big, abs, l.g.Op("Add", down, up))
	return val{v: l.g.Op("Mul", l.g.Op("Sign", x.v), r), nan: x.nan}
}

// andNotNull keeps the promise that a boolean is false under its null mask.
func (l *lowerer) andNotNull(v, null onnx.Value) onnx.Value {
	if null == "" {
		return v
	}
	return l.g.Op("And", v, l.g.Op("Not", null))
}

// isTrue is the plain boolean "known and true".
func (l *lowerer) isTrue(x val) val { return val{v: x.v} }

// logic is Kleene AND and OR.
func (l *lowerer) logic(op Op, a, b val) val {
	g := l.g
	name := "And"
	if op == OpOr {
		name = "Or"
	}
	v := g.Op(name, a.v, b.v)
	null := l.or(a.null, b.null)
	if null == "" {
		return val{v: v}
	}
	if op == OpOr { // true beats NULL
		return val{v: v, null: g.Op("And", null, g.Op("Not", v))}
	}
	isFalse := func(x val) onnx.Value {
		f := g.Op("Not", x.v)
		if x.null != "" {
			f = g.Op("And", f, g.Op("Not", x.null))
		}
		return f
	}
	known := g.Op("Or", isFalse(a), isFalse(b)) // false beats NULL
	return val{v: v, null: g.Op("And", null, g.Op("Not", known))}
}

func (l *lowerer) compare(op Op, a, b val) val {
	g := l.g
	var v onnx.Value
	switch op {
	case OpEq:
		v = g.Op("Equal", a.v, b.v)
	case OpNe:
		v = g.Op("Not", g.Op("Equal", a.v, b.v))
	case OpLt:
		v = g.Op("Less", a.v, b.v)
	case OpLe:
		v = g.Op("LessOrEqual", a.v, b.v)
	case OpGt:
		v = g.Op("Greater", a.v, b.v)
	case OpGe:
		v = g.Op("GreaterOrEqual", a.v, b.v)
	}
	null := l.or(l.isNull(a), l.isNull(b))
	out := val{v: v, null: null}
	if op == OpNe || a.null != "" || b.null != "" { // others are false for NaN
		out.v = l.andNotNull(v, null)
	}
	return out
}

// choose is cond ? a : b for a condition that is never NULL.
func (l *lowerer) choose(t types.Type, cond, a, b val) val {
	g := l.g
	out := val{v: l.where(t, cond.v, a.v, b.v), nan: a.nan || b.nan}
	if a.null != "" || b.null != "" {
		mask := func(x val) onnx.Value {
			if x.null == "" {
				return g.Scalar(false)
			}
			return x.null
		}
		out.null = l.where(types.Bool, cond.v, mask(a), mask(b))
	}
	return out
}

// where is Where; ONNX Runtime has none for booleans.
func (l *lowerer) where(t types.Type, cond, a, b onnx.Value) onnx.Value {
	if t == types.Bool {
		return l.g.Op("Or", l.g.Op("And", cond, a), l.g.Op("And", l.g.Op("Not", cond), b))
	}
	return l.g.Op("Where", cond, a, b)
}

// extreme folds Max or Min; NULLs are passed over, as DuckDB does.
func (l *lowerer) extreme(op string, args []val) val {
	g := l.g
	out := args[0]
	for _, b := range args[1:] {
		v := g.Op(op, out.v, b.v)
		if null := l.isNull(b); null != "" {
			v = g.Op("Where", null, out.v, v)
		}
		if null := l.isNull(out); null != "" {
			v = g.Op("Where", null, b.v, v)
		}
		out = val{v: v, nan: out.nan && b.nan}
	}
	return out
}

func lowerCoalesce(l *lowerer, n *Node, args []val) val {
	out := args[len(args)-1]
	for i := len(args) - 2; i >= 0; i-- {
		a := args[i]
		missing := l.isNull(a)
		if missing == "" {
			out = a
			continue
		}
		both := val{v: l.where(n.Type, missing, out.v, a.v), nan: out.nan}
		if out.null != "" {
			both.null = l.g.Op("And", missing, out.null)
		}
		out = both
	}
	return out
}

func lowerNullif(l *lowerer, n *Node, args []val) val {
	eq := l.compare(OpEq, args[0], args[1])
	out := args[0]
	if n.Type != types.Bool && n.Type != types.String {
		return l.unless(eq.v, out)
	}
	if out.null = l.or(out.null, eq.v); n.Type == types.Bool {
		out.v = l.andNotNull(out.v, out.null)
	}
	return out
}

func (l *lowerer) cast(n *Node, x val) val {
	from := n.Args[0].Type
	switch {
	case from == n.Cast || from == types.Null:
		return x
	case n.Cast == types.Bool:
		v, null := l.g.Op("Not", l.g.Op("Equal", x.v, l.num(0))), l.isNull(x)
		return val{v: l.andNotNull(v, null), null: null}
	case from == types.Bool:
		return l.unless(x.null, val{v: l.g.Cast(x.v, onnx.Double)})
	case n.Cast == types.Int:
		return l.map1("Round", x)
	}
	return x // int to float
}
