package expr

import (
	"fmt"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/types"
)

// String prints n as canonical SQL: one spacing, upper-case keywords, every
// operation in parentheses but for chains. Parsing it gives an equal tree, so it serves as the
// identity of an expression.
func (n *Node) String() string {
	args := func() []string {
		out := make([]string, len(n.Args))
		for i, a := range n.Args {
			out[i] = a.String()
		}
		return out
	}
	switch n.Op {
	case OpColumn:
		return QuoteName(n.Name) // the parser takes it for the whole name
	case OpNumber:
		return n.Text
	case OpString, OpInstant:
		return QuoteString(n.Str)
	case OpBool:
		return strings.ToUpper(strconv.FormatBool(n.Bool))
	case OpNull:
		return "NULL"
	case OpNeg:
		return "(- " + n.Args[0].String() + ")"
	case OpNot:
		return "(NOT " + n.Args[0].String() + ")"
	case OpIsNull, OpNotNull:
		return "(" + n.Args[0].String() + " " + string(n.Op) + ")"
	case OpIn:
		a := args()
		return "(" + a[0] + " IN (" + strings.Join(a[1:], ", ") + "))"
	case OpBetween:
		a := args()
		return "(" + a[0] + " BETWEEN " + a[1] + " AND " + a[2] + ")"
	case OpCase:
		return n.printCase(args())
	case OpCast:
		return "CAST(" + n.Args[0].String() + " AS " + string(n.Cast) + ")"
	case OpCall:
		return n.Name + "(" + strings.Join(args(), ", ") + ")"
	}
	// A chain of one precedence reads from the left without parentheses.
	left := n.Args[0].String()
	if c := chain[n.Op]; c > 0 && chain[n.Args[0].Op] == c {
		left = left[1 : len(left)-1]
	}
	return "(" + left + " " + string(n.Op) + " " + n.Args[1].String() + ")"
}

// chain numbers the operators that associate to the left, by precedence.
var chain = map[Op]int{OpOr: 1, OpAnd: 2, OpConcat: 3, OpAdd: 4, OpSub: 4, OpMul: 5, OpDiv: 5, OpIntDiv: 5, OpMod: 5}

func (n *Node) printCase(args []string) string {
	var b strings.Builder
	b.WriteString("CASE")
	i := 0
	for ; i+1 < len(args); i += 2 {
		b.WriteString(" WHEN " + args[i] + " THEN " + args[i+1])
	}
	if n.Else {
		b.WriteString(" ELSE " + args[i])
	}
	return b.String() + " END"
}

// QuoteName quotes an SQL identifier.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// QuoteString quotes an SQL string literal.
func QuoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// ReadParquet is the FROM clause of one Parquet file: not of a pattern, and
// without columns that its folders might spell.
func ReadParquet(path string) string {
	return "read_parquet(" + QuotePath(path) + ", hive_partitioning=false)"
}

// QuotePath quotes a path for DuckDB's readers, which take patterns.
func QuotePath(path string) string {
	return QuoteString(strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]").Replace(path))
}

// SQL prints a checked expression as DuckDB SQL with the meaning that the
// package promises. Numbers come out as DOUBLE. column gives the SQL of a
// column in its declared type's SQL form (Type.SQL), free of NaN.
func (n *Node) SQL(column func(*Node) string) string {
	args := make([]string, len(n.Args))
	for i, a := range n.Args {
		args[i] = a.SQL(column)
		if a.Type == types.Null {
			args[i] = "NULL"
		}
	}
	switch n.Op {
	case OpColumn:
		if n.Type == types.Int {
			return "CAST(" + column(n) + " AS DOUBLE)"
		}
		return column(n)
	case OpNumber:
		return "CAST(" + strconv.FormatFloat(n.Num, 'e', -1, 64) + " AS DOUBLE)"
	case OpInstant:
		return fmt.Sprintf("make_timestamp(%d)", int64(n.Num))
	case OpString, OpBool, OpNull:
		return n.String()
	case OpNeg:
		return "(- " + args[0] + ")"
	case OpNot:
		return "(NOT " + args[0] + ")"
	case OpIsNull, OpNotNull:
		return "(" + args[0] + " " + string(n.Op) + ")"
	case OpIn:
		return "(" + args[0] + " IN (" + strings.Join(args[1:], ", ") + "))"
	case OpBetween:
		return "(" + args[0] + " BETWEEN " + args[1] + " AND " + args[2] + ")"
	case OpCase:
		return n.printCase(args)
	case OpAdd, OpSub, OpMul:
		if n.ofTimestamps() {
			return sinceSQL(args)
		}
		return noNaN("(" + args[0] + " " + string(n.Op) + " " + args[1] + ")")
	case OpDiv, OpMod:
		return noNaN("(" + args[0] + " " + string(n.Op) + " " + nonZero(args[1]) + ")")
	case OpIntDiv:
		return noNaN("trunc(" + args[0] + " / " + nonZero(args[1]) + ")")
	case OpCast:
		return n.castSQL(args[0])
	case OpCall:
		return functions[n.Name].sql(n, args)
	}
	return "(" + args[0] + " " + string(n.Op) + " " + args[1] + ")"
}

// noNaN uses that DuckDB takes NaN for equal to itself.
func noNaN(s string) string { return "nullif(" + s + ", 'nan'::DOUBLE)" }

func nonZero(s string) string { return "nullif(" + s + ", 0::DOUBLE)" }

func (n *Node) castSQL(arg string) string {
	from := n.Args[0].Type
	switch {
	case from == n.Cast:
		return arg
	case from == types.Null:
		return "CAST(NULL AS " + sqlForm(n.Cast) + ")"
	case n.Cast == types.Bool && from.Numeric():
		return "(" + arg + " <> 0)"
	case n.Cast == types.Int && from == types.Float:
		return "round_even(" + arg + ", 0)"
	case n.Cast == types.String && from == types.Int:
		// A whole number prints without a point, whatever holds it.
		return "CAST(TRY_CAST(" + arg + " AS BIGINT) AS VARCHAR)"
	case n.Cast == types.Int && from == types.String:
		return "CAST(TRY_CAST(" + arg + " AS BIGINT) AS DOUBLE)"
	case from == types.String && n.Cast == types.Float:
		return noNaN("TRY_CAST(" + arg + " AS DOUBLE)")
	}
	return "TRY_CAST(" + arg + " AS " + sqlForm(n.Cast) + ")"
}

// sqlForm is the SQL type of a value inside an expression: every number is a
// DOUBLE.
func sqlForm(t types.Type) string {
	if t.Numeric() {
		return "DOUBLE"
	}
	return t.SQL()
}
