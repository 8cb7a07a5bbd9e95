package predlog

import (
	"fmt"
	"strings"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
)

// Schema names the columns of a model's records, and says which are masked. It
// holds for one version of a model; those of equal columns share segments.
type Schema struct {
	inputs, outputs []field
	columns         []column
	key             string // equal for equal columns
}

// field is an input or output of the model.
type field struct {
	name   string
	typ    string     // as ort.Info has it
	as     types.Type // of a number that a feature is declared as; "": it is as typ has it
	masked bool
	// cell says that a row has one value, names that it has one for each; without
	// either, the values of a row are JSON.
	cell  bool
	names int
}

// column is a column of a segment: one field, or a class, label or quantile of one.
type column struct {
	name   string
	output bool
	at     int // index of the field
	class  int // -1: the whole field
}

// Schema makes the schema of a model's records. Of a bundle, sig is its signature
// and the infos are not looked at; of any other model sig is nil. Features that
// the log masks are masked in it, and so is what a bundle computes from them.
func (l *Log) Schema(sig *bundle.Signature, inputs, outputs []ort.Info) *Schema {
	masked := map[string]bool{}
	for m := range l.mask {
		masked[m] = true
	}
	if sig != nil {
		inputs, outputs = infos(sig.Inputs), infos(sig.Outputs)
		for _, c := range sig.Computed { // each may read those before it
			for m := range masked {
				if strings.Contains(c.SQL, expr.QuoteName(m)) {
					masked[c.Name] = true
				}
			}
		}
	}
	s := &Schema{}
	for i, in := range inputs {
		f := fieldOf(in, 1, masked)
		if sig != nil && f.cell && f.typ == "double" && sig.Inputs[i].Type != types.Float {
			f.as = sig.Inputs[i].Type
		}
		s.inputs = append(s.inputs, f)
	}
	names := make([][]string, len(outputs))
	for i, out := range outputs {
		if names[i] = []string{out.Name}; sig != nil {
			names[i] = sig.Columns(sig.Outputs[i])
		}
		s.outputs = append(s.outputs, fieldOf(out, len(names[i]), nil))
	}
	taken := map[string]bool{}
	for _, n := range fixed {
		taken[n] = true
	}
	add := func(name string, output bool, at, class int) {
		name = strings.ToValidUTF8(name, "\uFFFD")
		for taken[strings.ToLower(name)] {
			name = map[bool]string{false: "input.", true: "output."}[output] + name
		}
		taken[strings.ToLower(name)] = true
		s.columns = append(s.columns, column{name, output, at, class})
	}
	for i, f := range s.inputs {
		add(f.name, false, i, -1)
	}
	for i, f := range s.outputs {
		for c := range f.names {
			add(names[i][c], true, i, c)
		}
		switch {
		case f.names > 0:
		case f.cell && len(names[i]) == 1:
			add(names[i][0], true, i, -1)
		default:
			add(f.name, true, i, -1)
		}
	}
	s.key = fmt.Sprintf("%#v", []any{s.inputs, s.outputs, s.columns})
	return s
}

func infos(tensors []bundle.Tensor) []ort.Info {
	out := make([]ort.Info, len(tensors))
	for i, t := range tensors {
		out[i] = ort.Info{Name: t.Name, Type: t.DType, Shape: []int64{-1, int64(t.Width)}}
	}
	return out
}

func fieldOf(info ort.Info, names int, masked map[string]bool) field {
	f := field{name: info.Name, typ: info.Type, masked: masked[info.Name]}
	width := int64(1)
	for _, d := range info.Shape[min(1, len(info.Shape)):] {
		if d < 0 || d > 1<<32 {
			d = 1 << 32
		}
		if width *= d; width > 1<<30 {
			width = 1 << 30
		}
	}
	variable := len(info.Shape) > 0 && info.Shape[0] < 0
	switch {
	case !tensor(info.Type):
	case width == 1 && (variable || len(info.Shape) == 0):
		f.cell = true
	case info.Type == "float" && variable && width > 1 && width == int64(names):
		f.names = names
	}
	return f
}

func tensor(typ string) bool {
	switch typ {
	case "double", "float", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string":
		return true
	}
	return false
}

// fits reports values that the record's schema does not have. That is a mistake of
// who made the record.
func (r *Record) fits() error {
	if r.Schema == nil {
		return nil
	}
	for _, side := range []struct {
		what   string
		fields []field
		values []ort.Value
	}{{"input", r.Schema.inputs, r.Inputs}, {"output", r.Schema.outputs, r.Outputs}} {
		if len(side.values) > len(side.fields) {
			return fmt.Errorf("a record has %d %ss, its schema %d", len(side.values), side.what, len(side.fields))
		}
		for i, v := range side.values {
			if err := side.fields[i].fits(v); err != nil {
				return fmt.Errorf("%s %q: %w", side.what, side.fields[i].name, err)
			}
		}
	}
	return nil
}

func (f field) fits(v ort.Value) error {
	if v == nil {
		return nil
	}
	if tensor(f.typ) {
		t, ok := v.(ort.Tensor)
		if !ok {
			return fmt.Errorf("a %T where the model has a tensor of %s", v, f.typ)
		}
		if typ := typeOf(t.Data); typ != f.typ {
			return fmt.Errorf("a tensor of %s where the model has one of %s", typ, f.typ)
		}
	}
	return sound(v)
}

// sound reports tensors with another number of values than their shapes have.
func sound(v ort.Value) error {
	switch v := v.(type) {
	case ort.Tensor:
		n, have := int64(1), int64(ort.Len(v.Data))
		for _, d := range v.Shape {
			if d < 0 || d > 0 && n > have/d {
				return fmt.Errorf("%d values in a tensor of shape %v", have, v.Shape)
			}
			n *= d
		}
		if n != have {
			return fmt.Errorf("%d values in a tensor of shape %v", have, v.Shape)
		}
	case ort.Sequence:
		for _, x := range v {
			if err := sound(x); err != nil {
				return err
			}
		}
	case ort.Map:
		if err := sound(v.Keys); err != nil {
			return err
		}
		if k, n := ort.Len(v.Keys.Data), ort.Len(v.Values.Data); k != n {
			return fmt.Errorf("a map of %d keys and %d values", k, n)
		}
		return sound(v.Values)
	}
	return nil
}

// typeOf is the type of a tensor's data as ort.Info has it.
func typeOf(data any) string {
	switch data.(type) {
	case []float64:
		return "double"
	case []float32:
		return "float"
	case []ort.Float16:
		return "float16"
	case []ort.BFloat16:
		return "bfloat16"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", data), "[]")
}
