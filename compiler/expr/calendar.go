package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
)

// dateParts are the functions that EXTRACT(part FROM t) and date_part('part', t)
// stand for.
var dateParts = map[string]string{
	"second": "second", "minute": "minute", "hour": "hour", "day": "day", "dow": "dayofweek", "dayofweek": "dayofweek", "isodow": "isodow",
	"doy": "dayofyear", "dayofyear": "dayofyear", "week": "week", "isoyear": "isoyear", "month": "month", "quarter": "quarter", "year": "year", "epoch": "epoch",
}

// unitNames are the units of date_diff and date_trunc, and unitMicros those that
// are of one length, in microseconds.
var (
	unitNames  = []string{"second", "minute", "hour", "day", "week", "month", "quarter", "year"}
	unitMicros = map[string]float64{"second": 1e6, "minute": 60e6, "hour": 3600e6, "day": 86400e6}
)

func timestampTo(t types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		if !c.timestamps(n, n.Args) {
			return types.Invalid
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

// timestamps checks that nodes, arguments of n, are timestamps.
func (c *checker) timestamps(n *Node, nodes []*Node) bool {
	if !c.instants(nodes) {
		return false
	}
	for _, a := range nodes {
		if a.Type != types.Timestamp && a.Type != types.Null {
			hint := ""
			if a.ofTimestamps() {
				hint = "; the difference of two timestamps is in seconds already"
			}
			c.fail(a, "%s needs a timestamp, this is %s%s", n.Name, diag.An(a.Type), hint)
			return false
		}
	}
	return true
}

// ofTimestamps tells whether n is the difference of two timestamps.
func (n *Node) ofTimestamps() bool {
	return n.Op == OpSub && (n.Args[0].Type == types.Timestamp || n.Args[1].Type == types.Timestamp)
}

// checkSince types the difference of timestamps, which is in seconds.
func (c *checker) checkSince(n *Node) types.Type {
	if !c.instants(n.Args) {
		return types.Invalid
	}
	for _, a := range n.Args {
		if a.Type != types.Timestamp && a.Type != types.Null {
			return c.fail(a, "- takes a timestamp from a timestamp and gives seconds, this is %s", diag.An(a.Type))
		}
	}
	return types.Float
}

// timestampsOf types functions of a unit, spelled out, and timestamps.
func timestampsOf(t types.Type) func(*checker, *Node) types.Type {
	return func(c *checker, n *Node) types.Type {
		switch u := n.Args[0]; {
		case u.Op != OpString:
			return c.fail(u, "%s needs a unit in single quotes here, one of %s", n.Name, strings.Join(unitNames, ", "))
		case !slices.Contains(unitNames, n.unit()):
			return c.fail(u, "no unit %q; there are %s", u.Str, strings.Join(unitNames, ", "))
		case !c.timestamps(n, n.Args[1:]):
			return types.Invalid
		}
		return t
	}
}

// unit is the first argument of date_diff and date_trunc. As in DuckDB, case is free.
func (n *Node) unit() string { return strings.ToLower(n.Args[0].Str) }

// dateDiffSQL counts the starts of units between two instants. DuckDB's own counts
// of weeks across 1970 and of quarters before the year 1 lose one, as its divisions
// drop what is after the point.
func dateDiffSQL(n *Node, a []string) string {
	count := func(unit, format string) string {
		at := func(x string) string { return fmt.Sprintf(format, "CAST("+x+" AS TIMESTAMP)") }
		return fmt.Sprintf("CAST(date_diff('%s', %s, %s) AS DOUBLE)", unit, at(a[1]), at(a[2]))
	}
	switch unit := n.unit(); unit {
	case "week":
		return "(" + count("day", "date_trunc('week', %s)") + " / 7)"
	case "quarter":
		return "(" + count("month", "date_trunc('quarter', %s)") + " / 3)"
	default:
		return count(unit, "%s")
	}
}

func dateTruncSQL(n *Node, a []string) string {
	return fmt.Sprintf("CAST(date_trunc('%s', CAST(%s AS TIMESTAMP)) AS TIMESTAMP)", n.unit(), a[1])
}

func sinceSQL(a []string) string {
	return "((CAST(epoch_us(CAST(" + a[0] + " AS TIMESTAMP)) AS DOUBLE) - CAST(epoch_us(CAST(" + a[1] + " AS TIMESTAMP)) AS DOUBLE)) / 1e6)"
}

func lowerDateDiff(l *lowerer, n *Node, a []val) val {
	return l.arith("Sub", l.ordinal(n.unit(), a[2]), l.ordinal(n.unit(), a[1]))
}

// ordinal numbers the units since some start of a unit.
func (l *lowerer) ordinal(unit string, us val) val {
	switch unit {
	case "week":
		return l.floorDiv(l.addK(l.days(us), 3), 7) // 1970 began on a Thursday
	case "month", "quarter", "year":
		y, m, _ := l.civil(us)
		switch unit {
		case "month":
			return l.arith("Add", l.map2k("Mul", y, 12), m)
		case "quarter":
			return l.arith("Add", l.map2k("Mul", y, 4), l.quarter(m))
		}
		return y
	}
	return l.floorDiv(us, unitMicros[unit])
}

func lowerDateTrunc(l *lowerer, n *Node, a []val) val {
	us := a[1]
	day := func(days val) val { return l.map2k("Mul", days, 86400e6) }
	switch unit := n.unit(); unit {
	case "week":
		return day(l.addK(l.map2k("Mul", l.ordinal(unit, us), 7), -3))
	case "month":
		_, _, d := l.civil(us)
		return day(l.addK(l.arith("Sub", l.days(us), d), 1))
	case "quarter":
		y, m, _ := l.civil(us)
		return day(l.firstOf(y, l.addK(l.map2k("Mul", l.quarter(m), 3), -2)))
	case "year":
		y, _, _ := l.civil(us)
		return day(l.newYear(y))
	default:
		return l.map2k("Mul", l.floorDiv(us, unitMicros[unit]), unitMicros[unit])
	}
}

func lowerDayOfYear(l *lowerer, us val) val {
	y, _, _ := l.civil(us)
	return l.addK(l.arith("Sub", l.days(us), l.newYear(y)), 1)
}

// isodow is 1 on Monday and 7 on Sunday.
func (l *lowerer) isodow(days val) val { return l.addK(l.floorMod(l.addK(days, 3), 7), 1) }

func (l *lowerer) quarter(month val) val { return l.floorDiv(l.addK(month, 2), 3) }

// isoWeek gives year and week by ISO 8601: a week is of the year that has its Thursday.
func (l *lowerer) isoWeek(us val) (y, w val) {
	days := l.days(us)
	thursday := l.addK(l.arith("Sub", days, l.isodow(days)), 4)
	y, _, _ = l.civilOf(thursday)
	return y, l.addK(l.floorDiv(l.arith("Sub", thursday, l.newYear(y)), 7), 1)
}

// newYear counts the days from 1970 to the first of January.
func (l *lowerer) newYear(y val) val {
	return l.firstOf(y, val{v: l.num(1)})
}

// firstOf counts the days from 1970 to the first of a month, by Howard Hinnant's
// days_from_civil (chrono-Compatible Low-Level Date Algorithms): its years begin in March.
func (l *lowerer) firstOf(y, m val) val {
	early := l.g.Cast(l.g.Op("LessOrEqual", m.v, l.num(2)), onnx.Double)
	y = l.arith("Sub", y, val{v: early})
	leaps := l.arith("Add", l.arith("Sub", l.floorDiv(y, 4), l.floorDiv(y, 100)), l.floorDiv(y, 400))
	before := l.floorDiv(l.addK(l.map2k("Mul", l.floorMod(l.addK(m, 9), 12), 153), 2), 5)
	return l.addK(l.arith("Add", l.arith("Add", l.map2k("Mul", y, 365), leaps), before), -719468)
}

// floorMod is x mod k in [0, k), exact for whole k up to a million and whole x up to
// 2^46, more than any time has of seconds: what is added makes x positive, and the
// sum is whole.
func (l *lowerer) floorMod(x val, k float64) val {
	positive := k * math.Ceil((1<<46)/k)
	return val{v: l.fmod(l.addK(x, positive).v, l.num(k)), nan: true} // of infinity it is NaN
}

// floorDiv is floor(x / k), exact for whole k whose multiples around x are doubles:
// below one, x is at least half a unit in the last place of the quotient away.
func (l *lowerer) floorDiv(x val, k float64) val {
	return l.map1("Floor", l.map2k("Div", x, k))
}

func (l *lowerer) days(us val) val { return l.floorDiv(us, 86400e6) }

// civil gives year, month and day of microseconds since 1970, by Howard
// Hinnant's days_from_civil inverse (chrono-Compatible Low-Level Date Algorithms).
func (l *lowerer) civil(us val) (y, m, d val) { return l.civilOf(l.days(us)) }

// civilOf is civil of days since 1970.
func (l *lowerer) civilOf(days val) (y, m, d val) {
	sub := func(a, b val) val { return val{v: l.g.Op("Sub", a.v, b.v), nan: a.nan} }
	add := func(a, b val) val { return val{v: l.g.Op("Add", a.v, b.v), nan: a.nan} }
	z := l.addK(days, 719468)
	era := l.floorDiv(z, 146097)
	doe := l.floorMod(z, 146097)
	yoe := l.floorDiv(sub(add(sub(doe, l.floorDiv(doe, 1460)), l.floorDiv(doe, 36524)), l.floorDiv(doe, 146096)), 365)
	doy := sub(doe, sub(add(l.map2k("Mul", yoe, 365), l.floorDiv(yoe, 4)), l.floorDiv(yoe, 100)))
	mp := l.floorDiv(l.addK(l.map2k("Mul", doy, 5), 2), 153)
	d = l.addK(sub(doy, l.floorDiv(l.addK(l.map2k("Mul", mp, 153), 2), 5)), 1)
	early := l.g.Op("Less", mp.v, l.num(10))
	m = val{v: l.g.Op("Where", early, l.addK(mp, 3).v, l.addK(mp, -9).v), nan: mp.nan}
	leap := l.g.Cast(l.g.Op("LessOrEqual", m.v, l.num(2)), onnx.Double)
	y = add(add(yoe, l.map2k("Mul", era, 400)), val{v: leap})
	return y, m, d
}
