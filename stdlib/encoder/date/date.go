// Package date takes times apart.
package date

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed date.cue
var source string

// Encoder is the kind "date".
type Encoder struct{}

// Name is "date".
func (Encoder) Name() string { return "date" }

// Version of the implementation.
func (Encoder) Version() int { return 2 }

// Learns is false.
func (Encoder) Learns() bool { return false }

// Schema is #Date.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "date", Def: "#Date", Source: source}
}

type args struct {
	Parts     []string `json:"parts"`
	Cyclic    bool     `json:"cyclic"`
	Indicator bool     `json:"indicator"`
}

// part is how to compute one: an expression of the timestamp t and of us, the
// same as a number. One that comes round again has a period, and a first value.
type part struct {
	expr          string
	first, period float64
}

// parts are the expressions of mlc's own language, so that a part means the same
// here and in a derived feature. The day of the year is by Jean Meeus,
// Astronomical Algorithms, chapter 7.
var parts = map[string]part{
	"hour":         {"hour(t)", 0, 24},
	"day_of_week":  {"dayofweek(t)", 0, 7},
	"day_of_month": {"day(t)", 1, 31},
	"day_of_year": {"275 * month(t) // 9 - if(year(t) % 4 = 0 and (year(t) % 100 <> 0 or year(t) % 400 = 0), 1, 2)" +
		" * ((month(t) + 9) // 12) + day(t) - 30", 1, 366},
	"month":      {"month(t)", 1, 12},
	"quarter":    {"(month(t) + 2) // 3", 1, 4},
	"weekend":    {expr: "dayofweek(t) in (0, 6)"},
	"year":       {expr: "year(t)"},
	"epoch_days": {expr: "floor(us / 86400000000)"},
}

// Accepts numbers, which are microseconds since 1970 in UTC, and gives a block.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Block, in == kind.Numbers
}

// Types are timestamps: a number of another kind has no date.
func (Encoder) Types() []types.Type { return []types.Type{types.Timestamp} }

// Fit has nothing to learn.
func (Encoder) Fit(json.RawMessage, kind.Values) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// Lower adds the parts' columns, named after them, PART_sin and PART_cos where
// they are cyclic, and then missing. It fails where a part comes twice.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, raw, _ json.RawMessage) (onnx.Value, []string, error) {
	a := kind.DecodeArgs[args](raw)
	if a.Parts == nil {
		a.Parts = []string{"year", "month", "day_of_week", "hour"}
	}
	missing := g.Op("Or", g.Op("IsNaN", x), g.Op("IsInf", x))
	var cols []onnx.Value
	var names []string
	add := func(name string, v onnx.Value) {
		cols, names = append(cols, g.Op("Where", missing, g.Scalar(0.0), v)), append(names, name)
	}
	seen := map[string]bool{}
	for _, name := range a.Parts {
		if seen[name] {
			return "", nil, fmt.Errorf("the part %s comes twice", name)
		}
		seen[name] = true
		p := parts[name]
		v := lower(g, p.expr, x)
		if !a.Cyclic || p.period == 0 {
			add(name, v)
			continue
		}
		angle := g.Op("Mul", g.Op("Sub", v, g.Scalar(p.first)), g.Scalar(2*math.Pi/p.period))
		add(name+"_sin", g.Op("Sin", angle))
		add(name+"_cos", g.Op("Cos", angle))
	}
	if a.Indicator {
		cols, names = append(cols, g.Cast(missing, onnx.Double)), append(names, "missing")
	}
	return g.Cast(g.Concat(cols...), onnx.Float), names, nil
}

// lower adds one of the expressions above; a mistake in it is ours.
func lower(g *onnx.Graph, src string, x onnx.Value) onnx.Value {
	columns := map[string]types.Type{"t": types.Timestamp, "us": types.Float}
	n, err := expr.Parse(src)
	if err != nil {
		panic(err)
	}
	scope := func(name string) (types.Type, bool) { t, ok := columns[name]; return t, ok }
	if errs := expr.Check(n, scope, nil); len(errs) > 0 {
		panic(errs[0])
	}
	return expr.Lower(g, n, func(name string) expr.Input { return expr.Input{Value: x, Type: columns[name]} })
}
