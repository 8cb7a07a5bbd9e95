package typed

import (
	"fmt"
	"math"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve/api"
)

// field is a feature that a row brings.
type field struct {
	lower.Field
	text     bool
	slot     int // its column among the numbers or the texts
	min, max float64
	numbers  []float64
	texts    map[string]bool
	values   []string        // the texts in order, to suggest one
	nulls    map[string]bool // texts that stand for a missing value
	proto    string          // its name in the .proto
	number   int             // and its number
}

// form is what is made of a signature: how its rows are read and its answers told.
type form struct {
	sig    *bundle.Signature
	fields []field
	// byName finds a field by its feature's name, or by its column's where one
	// feature alone has that; ambiguous stands for a column of several.
	byName         map[string]int
	names          []string
	numbers, texts int
	inputs         []int // fields in the order of the signature's inputs
	byNumber       []int // fields in the order of their numbers in the .proto
	tensorNames    []string
	// main is the output of numbers, class that of the classes' names, -1 if none.
	main, class int
	columns     []string // of the main output
	keys        []string // theirs in JSON, with the colon
	openapi     []byte
	model       []byte // answer of /v1/model, but for the version
	// err says why the signature cannot be served, protoErr why not over gRPC.
	err, protoErr *api.Error
}

const ambiguous = -1

// newForm makes the form of sig, which always comes back; err in it tells what
// is the matter.
func newForm(svc *service.Service, sig *bundle.Signature) *form {
	f := &form{sig: sig, byName: map[string]int{}, main: -1, class: -1}
	for _, in := range sig.Inputs {
		f.tensorNames = append(f.tensorNames, in.Name)
	}
	fail := func(format string, args ...any) *form {
		f.err = api.Errorf(api.Unsupported, format, args...)
		return f
	}
	for i, r := range sig.Raw {
		x := field{Field: r, text: r.Type == types.String, min: math.Inf(-1), max: math.Inf(1)}
		if r.Min != nil {
			x.min = *r.Min
		}
		if r.Max != nil {
			x.max = *r.Max
		}
		if x.text {
			x.slot = f.texts
			f.texts++
		} else {
			x.slot = f.numbers
			f.numbers++
		}
		for _, v := range r.Nulls {
			if x.nulls == nil {
				x.nulls = map[string]bool{}
			}
			x.nulls[v] = true
		}
		for _, v := range r.In {
			switch v := v.(type) {
			case string:
				if x.texts == nil {
					x.texts = map[string]bool{}
				}
				x.texts[v] = true
				x.values = append(x.values, v)
			case float64:
				x.numbers = append(x.numbers, v)
			case int64:
				x.numbers = append(x.numbers, float64(v))
			case int:
				x.numbers = append(x.numbers, float64(v))
			default:
				return fail("feature %q has a right value of a type that is not served", r.Name)
			}
		}
		if x.text && x.numbers != nil || !x.text && x.values != nil {
			return fail("the right values of feature %q are not of its type", r.Name)
		}
		if _, twice := f.byName[r.Name]; twice {
			return fail("two features are called %q", r.Name)
		}
		f.byName[r.Name] = i
		f.names = append(f.names, r.Name)
		f.fields = append(f.fields, x)
	}
	f.nameProto()
	columns := map[string]int{}
	for i, r := range sig.Raw {
		if _, taken := columns[r.Column]; taken {
			columns[r.Column] = ambiguous
		} else if r.Column != "" {
			columns[r.Column] = i
		}
	}
	for c, i := range columns {
		if _, taken := f.byName[c]; !taken {
			f.byName[c] = i
		}
	}
	served := map[string]bool{}
	for _, in := range sig.Inputs {
		i, ok := f.byName[in.Name]
		if !ok || f.fields[i].Name != in.Name || served[in.Name] {
			return fail("the model takes %q, which is computed by SQL and has no place in a row", in.Name)
		}
		if in.DType != f.fields[i].dtype() || in.Width > 1 {
			return fail("the model takes %q as %s, which no row can bring", in.Name, in.DType)
		}
		served[in.Name] = true
		f.inputs = append(f.inputs, i)
	}
	for _, r := range sig.Raw {
		if !served[r.Name] {
			return fail("feature %q enters the model through SQL only, and that is not run when serving", r.Name)
		}
	}
	for i, o := range sig.Outputs {
		switch {
		case o.Name == bundle.MainOutput(sig.Task.Kind):
			f.main = i
		case o.Name == "class" && sig.Task.Kind == kind.Multiclass:
			f.class = i
		}
	}
	if f.main < 0 || sig.Task.Width() == 0 || (f.class < 0) == (sig.Task.Kind == kind.Multiclass) {
		return fail("the model's outputs are not those of a %s task", sig.Task.Kind)
	}
	f.columns = api.Columns(sig.Task)
	f.keys = keysOf(f.columns)
	var err error
	if f.openapi, err = openAPI(svc, f); err == nil {
		f.model, err = describe(svc, f)
	}
	if err != nil {
		f.err = api.From(err)
	}
	return f
}

// dtype is the type of the tensor that holds x.
func (x *field) dtype() string {
	if x.text {
		return "string"
	}
	return "double"
}

// right reports whether v is among the values of x, where they are listed.
func (x *field) right(v float64) bool {
	if len(x.numbers) == 0 {
		return true
	}
	for _, n := range x.numbers {
		if n == v {
			return true
		}
	}
	return false
}

// domain says in words what numbers x takes.
func (x *field) domain() string {
	switch {
	case x.Min != nil && x.Max != nil:
		return fmt.Sprintf("from %s to %s", number(*x.Min), number(*x.Max))
	case x.Min != nil:
		return "at least " + number(*x.Min)
	case x.Max != nil:
		return "at most " + number(*x.Max)
	}
	return ""
}

func number(v float64) string { return string(appendFloat(nil, v, 64)) }

// list is the right values of x for a message, cut short.
func (x *field) list() string {
	const most = 10
	out := ""
	n := max(len(x.values), len(x.numbers))
	for i := range min(n, most) {
		if i > 0 {
			out += ", "
		}
		if x.text {
			out += strconv.Quote(short(x.values[i]))
		} else {
			out += number(x.numbers[i])
		}
	}
	if n > most {
		out += fmt.Sprintf(" and %d more", n-most)
	}
	return out
}
