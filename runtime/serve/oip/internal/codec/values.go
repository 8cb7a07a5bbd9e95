package codec

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// Tensor is a tensor under its name in a message.
type Tensor struct {
	Name string
	ort.Tensor
	// Sequence is the parameter sequence_length of the tensor; -1: it has none.
	Sequence int
}

// Names of the parameter and of the parts that carry what is no tensor.
const (
	sequenceLength = "sequence_length"
	keysPart       = ".keys"
	valuesPart     = ".values"
)

// Flatten appends the tensors that carry v under a name.
func Flatten(dst []Tensor, name string, v ort.Value) ([]Tensor, error) {
	return flatten(dst, name, v, -1)
}

func flatten(dst []Tensor, name string, v ort.Value, sequence int) ([]Tensor, error) {
	switch v := v.(type) {
	case nil:
		return dst, nil
	case ort.Tensor:
		return append(dst, Tensor{name, v, sequence}), nil
	case ort.Map:
		return append(dst, Tensor{name + keysPart, v.Keys, sequence}, Tensor{name + valuesPart, v.Values, -1}), nil
	case ort.Sequence:
		if len(v) == 0 {
			return append(dst, Tensor{name, ort.Tensor{Shape: []int64{0}, Data: []float32{}}, 0}), nil
		}
		for i, x := range v {
			if _, ok := x.(ort.Sequence); ok || x == nil {
				return nil, api.Errorf(api.Unsupported, "%q is a sequence of sequences, which the protocol has no form for here", name)
			}
			k := -1
			if i == 0 {
				k = len(v)
			}
			var err error
			if dst, err = flatten(dst, name+"["+strconv.Itoa(i)+"]", x, k); err != nil {
				return nil, err
			}
		}
		return dst, nil
	}
	return nil, api.Errorf(api.Unsupported, "%q is of a type that the protocol has no form for", name)
}

// part says which part of a value a tensor is: of element elem of a sequence, or
// of the value itself where elem is -1.
type part struct {
	input, elem int
	side        side
	sequence    int
	tensor      ort.Tensor
}

type side uint8

const (
	whole side = iota
	keys
	values
)

// cutSide takes ".keys" or ".values" off a name.
func cutSide(name string) (string, side) {
	if b, ok := strings.CutSuffix(name, keysPart); ok {
		return b, keys
	}
	if b, ok := strings.CutSuffix(name, valuesPart); ok {
		return b, values
	}
	return name, whole
}

// cutElement takes "[3]" off a name.
func cutElement(name string) (string, int, bool) {
	at := strings.LastIndexByte(name, '[')
	if at < 0 || !strings.HasSuffix(name, "]") {
		return name, -1, false
	}
	digits := name[at+1 : len(name)-1]
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		return name, -1, false
	}
	return name[:at], int(n), true
}

// assembler puts the tensors of a message together as values in the order of infos.
type assembler struct {
	infos  []ort.Info
	what   string // input or output
	max    int    // elements of a tensor
	values []ort.Value
	parts  []part
	index  map[string]int // of infos, once it pays
	next   int            // most messages keep the order of infos
}

func newAssembler(infos []ort.Info, what string, max int) *assembler {
	return &assembler{infos: infos, what: what, max: max, values: make([]ort.Value, len(infos))}
}

func (a *assembler) find(name []byte) (int, bool) {
	if a.next < len(a.infos) && a.infos[a.next].Name == string(name) {
		a.next++
		return a.next - 1, true
	}
	if len(a.infos) > 16 {
		if a.index == nil {
			a.index = make(map[string]int, len(a.infos))
			for i := range a.infos {
				a.index[a.infos[i].Name] = i
			}
		}
		i, ok := a.index[string(name)]
		a.next = i + 1
		return i, ok
	}
	for i := range a.infos {
		if a.infos[i].Name == string(name) {
			a.next = i + 1
			return i, true
		}
	}
	return 0, false
}

// slot finds where a tensor goes, before its data are read, and checks what is
// said about it against the model. It returns the number of its elements.
func (a *assembler) slot(name []byte, t Type, shape []int64) (part, int, error) {
	p := part{elem: -1, sequence: -1}
	n, err := elementsOf(shape, a.max)
	if err != nil {
		return p, 0, api.Errorf(api.From(err).Kind, "%s %q: %v", a.what, clip(name), err)
	}
	i, ok := a.find(name)
	if ok {
		if want := FromONNX(a.infos[i].Type); want != None {
			p.input = i
			if a.values[i] != nil {
				return p, 0, api.Errorf(api.Invalid, "%s %q comes twice", a.what, name)
			}
			if t != want {
				return p, 0, api.Errorf(api.Invalid, "%s %q is %s, not %s", a.what, name, want, t)
			}
			return p, n, a.fits(i, shape)
		}
	} else if i, err = a.compound(string(name), &p); err != nil {
		return p, 0, err
	}
	p.input = i
	if p.side == keys && t != Int64 && t != Bytes {
		return p, 0, api.Errorf(api.Invalid, "the keys of a map are INT64 or BYTES, not %s", t)
	}
	if p.side != whole && len(shape) != 1 {
		return p, 0, api.Errorf(api.Invalid, "the keys and values of a map have one dimension")
	}
	return p, n, nil
}

// compound finds the value that a tensor under a name of another is a part of.
func (a *assembler) compound(name string, p *part) (int, error) {
	known := func(base string) (int, bool) {
		i, ok := a.find([]byte(base))
		return i, ok && FromONNX(a.infos[i].Type) == None
	}
	base, sd := cutSide(name)
	p.side = sd
	if i, ok := known(base); ok && sd != whole {
		return i, nil
	}
	base, elem, ok := cutElement(base)
	if ok {
		p.elem = elem
		if i, ok := known(base); ok {
			return i, nil
		}
		if outer, _, ok := cutElement(base); ok {
			if _, ok := known(outer); ok {
				return 0, api.Errorf(api.Unsupported, "%s %q is a sequence of sequences, which the protocol has no form for here", a.what, clip([]byte(name)))
			}
		}
	}
	return 0, api.Errorf(api.Invalid, "the model has no %s %q", a.what, clip([]byte(name)))
}

// fits checks a shape against the model's. A model that tells no dimensions takes
// any: the runtime does not tell a scalar from a shape that is not known.
func (a *assembler) fits(i int, shape []int64) error {
	want := a.infos[i].Shape
	ok := len(want) == 0 || len(want) == len(shape)
	for k := 0; ok && k < len(want); k++ {
		ok = want[k] < 0 || want[k] == shape[k]
	}
	if !ok {
		return api.Errorf(api.Invalid, "%s %q has shape %v, not %v", a.what, a.infos[i].Name, want, shape)
	}
	return nil
}

// put places a tensor that slot has found the place of.
func (a *assembler) put(p part, t ort.Tensor) {
	if FromONNX(a.infos[p.input].Type) != None {
		a.values[p.input] = t
		return
	}
	p.tensor = t
	a.parts = append(a.parts, p)
}

// done returns the values; one that did not come is nil, which is an error but for
// an optional or where all are.
func (a *assembler) done(partial bool) ([]ort.Value, error) {
	slices.SortStableFunc(a.parts, func(x, y part) int {
		return cmp.Or(cmp.Compare(x.input, y.input), cmp.Compare(x.elem, y.elem), cmp.Compare(x.side, y.side))
	})
	for at := 0; at < len(a.parts); {
		end := at + 1
		for end < len(a.parts) && a.parts[end].input == a.parts[at].input {
			end++
		}
		i := a.parts[at].input
		v, err := join(a.parts[at:end], a.infos[i].Type)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%s %q: %v", a.what, a.infos[i].Name, err)
		}
		a.values[i] = v
		at = end
	}
	for i, v := range a.values {
		if v == nil && !partial && a.infos[i].Type != "optional" {
			return nil, api.Errorf(api.Invalid, "%s %q is missing", a.what, a.infos[i].Name)
		}
	}
	return a.values, nil
}

// join makes one value of its parts, which are in order. want is seq, map or
// optional, which takes all.
func join(ps []part, want string) (ort.Value, error) {
	first := ps[0]
	if first.elem < 0 {
		if first.side == whole && first.sequence == 0 && len(ps) == 1 && want != "map" {
			if ort.Len(first.tensor.Data) != 0 {
				return nil, api.Errorf(api.Invalid, "an empty sequence has elements")
			}
			return ort.Sequence{}, nil
		}
		v, rest, err := element(ps)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			return nil, api.Errorf(api.Invalid, "it comes twice, or as two things")
		}
		switch v.(type) {
		case ort.Map:
			if want == "seq" {
				return nil, api.Errorf(api.Invalid, "a sequence is wanted, not a map")
			}
		default:
			if want != "optional" {
				return nil, api.Errorf(api.Invalid, "a %s is wanted, not a tensor", want)
			}
		}
		return v, nil
	}
	if want == "map" {
		return nil, api.Errorf(api.Invalid, "a map is wanted, not a sequence")
	}
	var seq ort.Sequence
	for rest := ps; len(rest) > 0; {
		if rest[0].elem != len(seq) {
			return nil, api.Errorf(api.Invalid, "element %d of the sequence is missing, or another comes twice", len(seq))
		}
		v, r, err := element(rest)
		if err != nil {
			return nil, err
		}
		if len(seq) > 0 && !alike(seq[0], v) {
			return nil, api.Errorf(api.Invalid, "the elements of a sequence are not of one type")
		}
		seq, rest = append(seq, v), r
	}
	if first.sequence != len(seq) {
		return nil, api.Errorf(api.Invalid, "%d elements of a sequence come, and the first one's %s is not that", len(seq), sequenceLength)
	}
	return seq, nil
}

// element makes a tensor or a map of the first parts and returns the rest.
func element(ps []part) (ort.Value, []part, error) {
	if ps[0].side == whole {
		return ps[0].tensor, ps[1:], nil
	}
	if len(ps) < 2 || ps[0].side != keys || ps[1].side != values || ps[0].elem != ps[1].elem {
		return nil, nil, api.Errorf(api.Invalid, "a map is its keys and its values, each once")
	}
	m := ort.Map{Keys: ps[0].tensor, Values: ps[1].tensor}
	if m.Keys.Shape[0] != m.Values.Shape[0] {
		return nil, nil, api.Errorf(api.Invalid, "%d keys and %d values are no map", m.Keys.Shape[0], m.Values.Shape[0])
	}
	return m, ps[2:], nil
}

func alike(a, b ort.Value) bool {
	switch a := a.(type) {
	case ort.Tensor:
		b, ok := b.(ort.Tensor)
		return ok && TypeOf(a.Data) == TypeOf(b.Data)
	case ort.Map:
		b, ok := b.(ort.Map)
		return ok && TypeOf(a.Keys.Data) == TypeOf(b.Keys.Data) && TypeOf(a.Values.Data) == TypeOf(b.Values.Data)
	}
	return false
}

// elementsOf is the product of a shape that a caller sent.
func elementsOf(shape []int64, most int) (int, error) {
	if len(shape) > maxRank {
		return 0, api.Errorf(api.Invalid, "more than %d dimensions", maxRank)
	}
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, api.Errorf(api.Invalid, "dimension %d is negative", d)
		}
		if d > int64(most) || d > 0 && n > int64(most)/d {
			return 0, api.Errorf(api.TooLarge, "more than %d elements", most)
		}
		n *= d
	}
	return int(n), nil
}

// clip keeps a name that a caller sent short enough for an error.
func clip(name []byte) string {
	if len(name) > 64 {
		return strings.ToValidUTF8(string(name[:64]), "") + "…"
	}
	return string(name)
}
