package expr

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/types"
)

// maxDepth bounds nesting, so that no input exhausts the stack, and maxNodes what
// an expression grows to when the subject of each CASE is written into its conditions.
const (
	maxDepth = 400
	maxNodes = 1 << 17
)

// Parse reads one SQL scalar expression. The error, when there is one, is an
// *Error with Kind Syntax.
func Parse(src string) (n *Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			n, err = nil, e
		}
	}()
	p := &parser{src: src}
	p.next()
	n = p.expr(0)
	if p.tok.kind != tEOF {
		p.fail("unexpected %s after the expression", p.tok)
	}
	p.bound(n, 1)
	return n, nil
}

// bound holds the tree, not its text, to the limits: what one text of it passes, its
// canonical text passes too, which may have a parenthesis more a level.
func (p *parser) bound(n *Node, depth int) {
	p.tok.start, p.tok.end = n.Start, n.End
	if depth > maxDepth {
		p.tooDeep()
	}
	if p.nodes++; p.nodes > maxNodes {
		p.fail("the expression has more than %d parts", maxNodes)
	}
	for i, a := range n.Args {
		if c := chain[n.Op]; i == 0 && c > 0 && chain[a.Op] == c {
			p.bound(a, depth)
		} else {
			p.bound(a, depth+1)
		}
	}
}

func (p *parser) tooDeep() { p.fail("the expression is nested more than %d levels deep", maxDepth) }

type tokenKind int

const (
	tEOF tokenKind = iota
	tWord
	tQuoted // "quoted identifier"
	tNumber
	tString
	tSymbol
)

type token struct {
	kind       tokenKind
	text       string // keywords upper-case in up
	up         string
	start, end int
}

func (t token) String() string {
	if t.kind == tEOF {
		return "end of the expression"
	}
	return strconv.Quote(t.text)
}

type parser struct {
	src     string
	pos     int
	tok     token
	prevEnd int
	depth   int
	nodes   int
}

func (p *parser) fail(format string, args ...any) {
	panic(&Error{Start: p.tok.start, End: p.tok.end, What: fmt.Sprintf(format, args...)})
}

func isWordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (p *parser) next() {
	p.prevEnd = p.tok.end
	for p.pos < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.pos]) >= 0 {
		p.pos++
	}
	start := p.pos
	p.tok = token{start: start, end: start}
	if start == len(p.src) {
		return
	}
	c := p.src[start]
	end := start + 1
	kind := tSymbol
	switch {
	case isWordStart(c):
		kind = tWord
		for end < len(p.src) && (isWordStart(p.src[end]) || isDigit(p.src[end])) {
			end++
		}
	case isDigit(c) || c == '.' && end < len(p.src) && isDigit(p.src[end]):
		kind = tNumber
		end = p.number(start)
	case c == '\'' || c == '"':
		if kind = tString; c == '"' {
			kind = tQuoted
		}
		var b strings.Builder
		for ; ; end++ {
			if end >= len(p.src) {
				p.tok.end = len(p.src)
				p.fail("this quote is never closed")
			}
			if p.src[end] == c {
				if end+1 < len(p.src) && p.src[end+1] == c {
					end++
				} else {
					break
				}
			}
			b.WriteByte(p.src[end])
		}
		end++
		p.pos = end
		p.tok = token{kind: kind, text: b.String(), start: start, end: end}
		if kind == tQuoted && p.tok.text == "" {
			p.fail("an identifier cannot be empty")
		}
		return
	default:
		if end < len(p.src) {
			switch two := p.src[start : end+1]; two {
			case "<>", "!=", "<=", ">=", "||", "//":
				end++
			}
		}
	}
	text := p.src[start:end]
	p.tok = token{kind: kind, text: text, start: start, end: end}
	switch kind {
	case tWord:
		p.tok.up = strings.ToUpper(text)
	case tSymbol:
		p.tok.up = text
		if text == "!=" {
			p.tok.up = "<>"
		}
	}
	p.pos = end
}

func (p *parser) number(i int) int {
	digits := func() {
		for i < len(p.src) && isDigit(p.src[i]) {
			i++
		}
	}
	digits()
	if i < len(p.src) && p.src[i] == '.' {
		i++
		digits()
	}
	if i < len(p.src) && (p.src[i] == 'e' || p.src[i] == 'E') {
		j := i + 1
		if j < len(p.src) && (p.src[j] == '+' || p.src[j] == '-') {
			j++
		}
		if j < len(p.src) && isDigit(p.src[j]) {
			i = j
			digits()
		}
	}
	return i
}

// reserved words cannot be columns unless quoted.
var reserved = map[string]bool{
	"AND": true, "OR": true, "NOT": true, "IS": true, "NULL": true, "IN": true, "BETWEEN": true, "LIKE": true, "CASE": true,
	"WHEN": true, "THEN": true, "ELSE": true, "END": true, "CAST": true, "AS": true, "TRUE": true, "FALSE": true,
	"SELECT": true, "FROM": true, "WHERE": true, "DISTINCT": true, "ALL": true, "ANY": true,
}

// Binding powers follow PostgreSQL's table, which DuckDB keeps: OR, AND, NOT,
// IS, comparison, BETWEEN IN LIKE, other operators, + -, * / %, unary minus.
const (
	bpOr = iota + 1
	bpAnd
	bpNot
	bpIs
	bpCompare
	bpRange
	bpOther
	bpAdd
	bpMul
	bpUnary
)

var infix = map[string]struct {
	bp int
	op Op
}{
	"OR": {bpOr, OpOr}, "AND": {bpAnd, OpAnd},
	"=": {bpCompare, OpEq}, "<>": {bpCompare, OpNe}, "<": {bpCompare, OpLt}, "<=": {bpCompare, OpLe}, ">": {bpCompare, OpGt}, ">=": {bpCompare, OpGe},
	"||": {bpOther, OpConcat}, "//": {bpMul, OpIntDiv},
	"+": {bpAdd, OpAdd}, "-": {bpAdd, OpSub}, "*": {bpMul, OpMul}, "/": {bpMul, OpDiv}, "%": {bpMul, OpMod},
}

func (p *parser) is(up string) bool { return p.tok.up == up }

func (p *parser) accept(up string) bool {
	if !p.is(up) {
		return false
	}
	p.next()
	return true
}

func (p *parser) expect(up, where string) {
	if !p.accept(up) {
		p.fail("expected %q %s, found %s", up, where, p.tok)
	}
}

func (p *parser) node(op Op, start int, args ...*Node) *Node {
	return &Node{Op: op, Start: start, End: p.prevEnd, Args: args}
}

// expr parses everything that binds at least as tightly as min.
func (p *parser) expr(min int) *Node {
	if p.depth++; p.depth > 2*maxDepth+2 {
		p.tooDeep()
	}
	defer func() { p.depth-- }()
	left := p.prefix(min)
	for {
		start := left.Start
		if in, ok := infix[p.tok.up]; ok && (p.tok.kind == tSymbol || p.tok.kind == tWord) {
			if in.bp < min {
				return left
			}
			at := p.tok.start
			if p.next(); in.op == OpEq && p.is("=") && p.tok.start == at+1 {
				panic(&Error{Start: at, End: p.tok.end, What: `"==" is no operator`, Mend: "write one =, as in SQL"})
			}
			left = p.node(in.op, start, left, p.expr(in.bp+1))
			if in.bp == bpCompare {
				if next, ok := infix[p.tok.up]; ok && next.bp == bpCompare {
					p.fail("comparisons cannot be chained; join them with AND")
				}
			}
			continue
		}
		switch {
		case p.is("IS") && min <= bpIs:
			p.next()
			op := OpIsNull
			if p.accept("NOT") {
				op = OpNotNull
			}
			p.expect("NULL", "after IS")
			left = p.node(op, start, left)
		case (p.is("NOT") || p.is("IN") || p.is("BETWEEN") || p.is("LIKE")) && min <= bpRange:
			not := p.accept("NOT")
			switch {
			case p.accept("IN"):
				p.expect("(", "after IN")
				args := []*Node{left, p.expr(0)}
				for p.accept(",") {
					args = append(args, p.expr(0))
				}
				p.expect(")", "after the list of IN")
				left = p.node(OpIn, start, args...)
			case p.accept("BETWEEN"):
				lo := p.expr(bpOther)
				p.expect("AND", "between the bounds of BETWEEN")
				left = p.node(OpBetween, start, left, lo, p.expr(bpOther))
			case p.accept("LIKE"):
				left = p.node(OpLike, start, left, p.expr(bpOther))
			default:
				p.fail("expected IN, BETWEEN or LIKE after NOT, found %s", p.tok)
			}
			if not {
				left = p.node(OpNot, start, left)
			}
			// These do not associate: a IN (…) IN (…) is not SQL.
			if p.is("IN") || p.is("BETWEEN") || p.is("LIKE") {
				p.fail("unexpected %s; use parentheses", p.tok)
			}
		default:
			return left
		}
	}
}

func (p *parser) prefix(min int) *Node {
	t := p.tok
	switch {
	case p.accept("NOT"):
		if min > bpNot {
			p.tok = t
			p.fail("NOT needs parentheses here")
		}
		return p.node(OpNot, t.start, p.expr(bpNot))
	case p.accept("-"):
		return p.node(OpNeg, t.start, p.expr(bpUnary))
	case p.accept("+"):
		return p.expr(bpUnary)
	case p.accept("("):
		n := p.expr(0)
		p.expect(")", "to close the parenthesis")
		return n
	case t.kind == tNumber:
		p.next()
		v, err := strconv.ParseFloat(t.text, 64)
		if err != nil || math.IsInf(v, 0) {
			p.tok = t
			p.fail("number %s is out of range", t)
		}
		n := p.node(OpNumber, t.start)
		n.Num, n.Text = v, t.text
		return n
	case t.kind == tString:
		p.next()
		n := p.node(OpString, t.start)
		n.Str = t.text
		return n
	case p.accept("TRUE"), p.accept("FALSE"):
		n := p.node(OpBool, t.start)
		n.Bool = t.up == "TRUE"
		return n
	case p.accept("NULL"):
		return p.node(OpNull, t.start)
	case p.is("CASE"):
		return p.caseExpr()
	case p.accept("CAST"):
		p.expect("(", "after CAST")
		arg := p.expr(0)
		p.expect("AS", "in CAST")
		to, ok := castTypes[p.tok.up]
		if !ok || p.tok.kind != tWord {
			p.fail("no type %s; CAST goes to int, float, string, bool or timestamp", p.tok)
		}
		p.next()
		p.expect(")", "to close CAST")
		n := p.node(OpCast, t.start, arg)
		n.Cast = to
		return n
	case t.kind == tQuoted || t.kind == tWord && !reserved[t.up]:
		return p.name()
	}
	p.fail("expected a value, found %s", p.tok)
	return nil
}

var castTypes = map[string]types.Type{
	"INT": types.Int, "INTEGER": types.Int, "BIGINT": types.Int, "FLOAT": types.Float, "DOUBLE": types.Float, "REAL": types.Float,
	"STRING": types.String, "VARCHAR": types.String, "TEXT": types.String, "BOOL": types.Bool, "BOOLEAN": types.Bool, "TIMESTAMP": types.Timestamp,
}

func (p *parser) caseExpr() *Node {
	start := p.tok.start
	p.next()
	var subject *Node
	if !p.is("WHEN") {
		subject = p.expr(0)
	}
	n := &Node{Op: OpCase, Start: start}
	for p.accept("WHEN") {
		cond := p.expr(0)
		if subject != nil {
			cond = &Node{Op: OpEq, Start: cond.Start, End: cond.End, Args: []*Node{subject, cond}}
		}
		p.expect("THEN", "after WHEN")
		n.Args = append(n.Args, cond, p.expr(0))
	}
	if len(n.Args) == 0 {
		p.fail("CASE needs a WHEN, found %s", p.tok)
	}
	if p.accept("ELSE") {
		n.Else = true
		n.Args = append(n.Args, p.expr(0))
	}
	p.expect("END", "to close CASE")
	n.End = p.prevEnd
	return n
}

func (p *parser) name() *Node {
	start, quoted := p.tok.start, p.tok.kind == tQuoted
	name := p.tok.text
	p.next()
	if !quoted && p.is("(") {
		p.next()
		n := &Node{Op: OpCall, Start: start, Name: strings.ToLower(name)}
		if n.Name == "extract" {
			return p.extract(n)
		}
		if !p.accept(")") {
			n.Args = append(n.Args, p.expr(0))
			for p.accept(",") {
				n.Args = append(n.Args, p.expr(0))
			}
			p.expect(")", "to close the call")
		}
		n.End = p.prevEnd
		if n.Name == "date_part" {
			p.datePart(n)
		}
		return n
	}
	for p.is(".") {
		p.next()
		if p.tok.kind != tWord && p.tok.kind != tQuoted {
			p.fail("expected a name after the dot, found %s", p.tok)
		}
		name += "." + p.tok.text
		p.next()
	}
	n := p.node(OpColumn, start)
	n.Name = name
	return n
}

// extract reads EXTRACT(part FROM t) behind its parenthesis, as a call of the
// function of that part.
func (p *parser) extract(n *Node) *Node {
	if p.tok.kind != tWord && p.tok.kind != tString {
		p.fail("expected a part of a date after EXTRACT, found %s", p.tok)
	}
	n.Name = p.partFunction()
	p.next()
	p.expect("FROM", "after the part of EXTRACT")
	n.Args = []*Node{p.expr(0)}
	p.expect(")", "to close EXTRACT")
	n.End = p.prevEnd
	return n
}

// datePart makes date_part('part', t) a call of the function of that part.
func (p *parser) datePart(n *Node) {
	at := n
	if len(n.Args) > 0 {
		at = n.Args[0]
	}
	next := p.tok
	p.tok = token{kind: tString, text: at.Str, start: at.Start, end: at.End}
	if len(n.Args) != 2 || at.Op != OpString {
		p.fail("date_part takes the name of a part in single quotes and a timestamp, like date_part('hour', t)")
	}
	n.Name, n.Args = p.partFunction(), n.Args[1:]
	p.tok = next
}

// partFunction is the function of the part of a date that the token names.
func (p *parser) partFunction() string {
	f, ok := dateParts[strings.ToLower(p.tok.text)]
	if !ok {
		p.fail("no part %s of a date; there are %s", p.tok, strings.Join(slices.Sorted(maps.Keys(dateParts)), ", "))
	}
	return f
}
