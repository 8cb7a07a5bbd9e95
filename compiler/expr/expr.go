// Package expr is the expression language of specs: SQL scalar expressions,
// parsed with positions inside the string, typed against declared columns,
// printed as DuckDB SQL and lowered to ONNX with the same meaning.
//
// # Meaning
//
// Values are doubles, booleans, strings and timestamps, each possibly NULL.
// Integers are doubles that hold whole numbers (exact up to 2^53). There is no
// NaN: an operation whose IEEE result would be NaN, a division by zero, and a
// function outside its domain all give NULL. Logic is three-valued (Kleene).
// The difference of two timestamps is a number of seconds.
package expr

import (
	"fmt"

	"mlc.dev/mlc/compiler/types"
)

// Op tells what a Node does.
type Op string

// The operators. Binary and logical ones use their SQL spelling.
const (
	OpColumn  Op = "column" // Name
	OpNumber  Op = "number" // Num, Text
	OpString  Op = "string" // Str
	OpBool    Op = "bool"   // Bool
	OpNull    Op = "null"
	OpInstant Op = "instant" // Num: microseconds; a string literal typed as a timestamp
	OpNeg     Op = "neg"
	OpNot     Op = "NOT"
	OpAnd     Op = "AND"
	OpOr      Op = "OR"
	OpIsNull  Op = "IS NULL"
	OpNotNull Op = "IS NOT NULL"
	OpIn      Op = "IN"      // Args[0] IN (Args[1:])
	OpBetween Op = "BETWEEN" // Args[0] BETWEEN Args[1] AND Args[2]
	OpLike    Op = "LIKE"    // Args[0] LIKE Args[1]
	OpCase    Op = "CASE"    // when, then, … [else]; Else tells whether the last is one
	OpCast    Op = "CAST"    // Args[0] AS Cast
	OpCall    Op = "call"    // Name(Args)
	OpAdd     Op = "+"
	OpSub     Op = "-"
	OpMul     Op = "*"
	OpDiv     Op = "/"
	OpIntDiv  Op = "//"
	OpMod     Op = "%"
	OpConcat  Op = "||"
	OpEq      Op = "="
	OpNe      Op = "<>"
	OpLt      Op = "<"
	OpLe      Op = "<="
	OpGt      Op = ">"
	OpGe      Op = ">="
)

// Node is an expression. Start and End are byte offsets in the source string.
// Type is Invalid until Check has set it.
type Node struct {
	Op         Op
	Start, End int
	Type       types.Type
	Name       string
	Num        float64
	Text       string
	Str        string
	Bool, Else bool
	Cast       types.Type
	Args       []*Node
}

// Error is a mistake in an expression: the half-open byte span in its source
// string, what is wrong, and whether it is one of types rather than of syntax.
type Error struct {
	Start, End int
	What, Mend string
	Kind       ErrorKind
	// Name is the column that is not there, when Kind is Unknown.
	Name string
}

// ErrorKind tells the three ways in which an expression can be wrong.
type ErrorKind int

// Syntax, Typing and Unknown (a column that the scope does not have).
const (
	Syntax ErrorKind = iota
	Typing
	Unknown
)

// Error gives the text without a position.
func (e *Error) Error() string { return e.What }

func (n *Node) errorf(format string, args ...any) *Error {
	return &Error{Start: n.Start, End: n.End, Kind: Typing, What: fmt.Sprintf(format, args...)}
}

// Walk calls f on n and everything below it, parents first.
func (n *Node) Walk(f func(*Node)) {
	f(n)
	for _, a := range n.Args {
		a.Walk(f)
	}
}

// Columns returns the distinct column nodes of n in order of appearance.
func (n *Node) Columns() []*Node {
	var out []*Node
	seen := map[string]bool{}
	n.Walk(func(c *Node) {
		if c.Op == OpColumn && !seen[c.Name] {
			seen[c.Name] = true
			out = append(out, c)
		}
	})
	return out
}

// Scope tells the type of a column, or false where there is none of that name.
type Scope func(name string) (types.Type, bool)
