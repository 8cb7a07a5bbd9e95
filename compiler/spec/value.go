package spec

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
)

// Value is a piece of a spec as data. Exactly one of the forms is set.
type Value struct {
	Path   string
	Fields []*Field // a struct, in the order of the spec
	List   []*Value
	Scalar any // string, bool, json.Number
	isMap  bool
	isList bool
}

// Field is a named piece of a struct.
type Field struct {
	Name  string
	Value *Value
}

// read takes a CUE value apart. What is in error is left out; the errors have
// been reported.
func (s *Spec) read(v cue.Value, path string) *Value {
	out := &Value{Path: path}
	switch v.IncompleteKind() {
	case cue.StructKind:
		out.isMap = true
		it, err := v.Fields()
		if err != nil {
			return out
		}
		for it.Next() {
			name := it.Selector().Unquoted()
			if f := s.read(it.Value(), join(path, name)); f != nil {
				out.Fields = append(out.Fields, &Field{name, f})
			}
		}
	case cue.ListKind:
		out.isList = true
		it, err := v.List()
		if err != nil {
			return out
		}
		for i := 0; it.Next(); i++ {
			if e := s.read(it.Value(), path+"["+strconv.Itoa(i)+"]"); e != nil {
				out.List = append(out.List, e)
			}
		}
	case cue.StringKind:
		x, err := v.String()
		if err != nil {
			if d, ok := v.Default(); ok {
				x, err = d.String()
			}
			if err != nil {
				return nil
			}
		}
		out.Scalar = x
	case cue.BoolKind:
		x, err := v.Bool()
		if err != nil {
			return nil
		}
		out.Scalar = x
	case cue.IntKind, cue.FloatKind, cue.NumberKind:
		b, err := v.MarshalJSON()
		if err != nil {
			return nil
		}
		out.Scalar = json.Number(b)
	default:
		return nil
	}
	return out
}

// Get returns the field of a struct, or nil; it may be called on nil.
func (v *Value) Get(name string) *Value {
	if v == nil {
		return nil
	}
	for _, f := range v.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

// MarshalJSON gives the value as JSON, struct fields in the spec's order.
func (v *Value) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	v.write(&b)
	return b.Bytes(), nil
}

func (v *Value) write(b *bytes.Buffer) {
	switch {
	case v.isMap:
		b.WriteByte('{')
		for i, f := range v.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			writeString(b, f.Name)
			b.WriteByte(':')
			f.Value.write(b)
		}
		b.WriteByte('}')
	case v.isList:
		b.WriteByte('[')
		for i, e := range v.List {
			if i > 0 {
				b.WriteByte(',')
			}
			e.write(b)
		}
		b.WriteByte(']')
	default:
		switch x := v.Scalar.(type) {
		case string:
			writeString(b, x)
		case bool:
			b.WriteString(strconv.FormatBool(x))
		case json.Number:
			b.WriteString(string(x))
		default:
			b.WriteString("null")
		}
	}
}

func writeString(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // strings always encode
	}
	b.Truncate(b.Len() - 1) // the newline
}

// splitPath cuts "a.b[0].c" into a, b, [0], c.
func splitPath(path string) []string {
	var out []string
	for _, p := range strings.Split(path, ".") {
		for {
			i := strings.IndexByte(p, '[')
			if i <= 0 {
				break
			}
			out = append(out, p[:i])
			p = p[i:]
			if j := strings.IndexByte(p, ']'); j >= 0 && j+1 < len(p) {
				out = append(out, p[:j+1])
				p = p[j+1:]
			}
			if strings.HasPrefix(p, "[") {
				break
			}
		}
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

// MarkBroken notes that a mistake at path has been reported, as Broken tells.
func (s *Spec) MarkBroken(path string) { s.breakAt(path) }

// Set replaces or adds a field of a struct.
func (v *Value) Set(name string, x *Value) {
	for _, f := range v.Fields {
		if f.Name == name {
			f.Value = x
			return
		}
	}
	v.Fields = append(v.Fields, &Field{name, x})
}

// ValueOf turns plain data into a Value, map keys in order.
func ValueOf(x any) (*Value, error) {
	b, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	return valueOf(tree), nil
}

func valueOf(x any) *Value {
	switch x := x.(type) {
	case map[string]any:
		v := &Value{isMap: true}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			v.Fields = append(v.Fields, &Field{k, valueOf(x[k])})
		}
		return v
	case []any:
		v := &Value{isList: true}
		for _, e := range x {
			v.List = append(v.List, valueOf(e))
		}
		return v
	}
	return &Value{Scalar: x}
}

// without is a copy that leaves out the given paths.
func (v *Value) without(paths map[string]bool) *Value {
	out := *v
	out.Fields, out.List = nil, nil
	for _, f := range v.Fields {
		if !paths[f.Value.Path] {
			out.Fields = append(out.Fields, &Field{f.Name, f.Value.without(paths)})
		}
	}
	for _, e := range v.List {
		if !paths[e.Path] {
			out.List = append(out.List, e.without(paths))
		}
	}
	return &out
}
