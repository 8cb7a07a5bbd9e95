// Package codec turns the messages of the Open Inference Protocol, version 2, into
// the values of a model and back: JSON with its binary extension, and the wire form
// of the gRPC messages. It does no I/O. What it allocates is in proportion to what
// it reads.
package codec

import (
	"math"
	"time"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// Model is what a request is held against.
type Model struct {
	Inputs, Outputs []ort.Info
	// Batches says that the first dimension of all inputs is the rows.
	Batches bool
	// MaxElements is the most elements of a tensor.
	MaxElements int
}

// Request is a call that is right as far as the model's signature tells.
type Request struct {
	ID string
	// Timeout is the parameter timeout, microseconds on the wire; 0: none.
	Timeout time.Duration
	// Inputs are in the order of Model.Inputs.
	Inputs []ort.Value
	// Rows is the first dimension of all inputs; 0 where the model does not batch.
	Rows int
	// Outputs are those that are asked for, in that order.
	Outputs []Wanted
	// Raw says that the inputs of a gRPC request came raw.
	Raw bool
}

// Wanted is an output that is asked for.
type Wanted struct {
	Index  int // in Model.Outputs
	Binary bool
}

// ParseRequest reads the JSON text of a request and the binary tensors after it,
// which it has to use up. The result shares no memory with either.
func ParseRequest(text, binary []byte, m *Model) (*Request, error) {
	s := &scanner{b: text}
	r := &Request{}
	in := newAssembler(m.Inputs, "input", m.MaxElements)
	allBinary := false
	var outputs []asked
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case "id":
			r.ID, err = s.id()
		case "parameters":
			err = s.parameters(func(p *parameter) error {
				switch string(p.name) {
				case "timeout":
					r.Timeout, err = p.microseconds()
				case "binary_data_output":
					allBinary, err = p.bool()
				}
				return err
			})
		case "inputs":
			err = s.array(func() error { return s.tensor(in, &binary) })
		case "outputs":
			outputs, err = s.outputs(m)
		default:
			err = s.skip(1)
		}
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && len(binary) > 0 {
		err = api.Errorf(api.Invalid, "%d bytes are left after the last binary tensor", len(binary))
	}
	if err != nil {
		return nil, err
	}
	if len(outputs) > 0 {
		r.Outputs = make([]Wanted, len(outputs))
		for i, o := range outputs {
			r.Outputs[i] = Wanted{o.index, o.binary == yes || o.binary == unsaid && allBinary}
		}
	} else {
		r.Outputs = all(m, allBinary)
	}
	for _, o := range r.Outputs {
		if t := FromONNX(m.Outputs[o.Index].Type); t != None && !o.Binary && !t.InJSON() {
			return nil, api.Errorf(api.Invalid, "output %q is %s, which has no form in JSON: ask for binary_data", m.Outputs[o.Index].Name, t)
		}
	}
	return r, r.finish(in, m)
}

// ParseRaw reads a body that is the one input of a model and nothing else: a batch
// of one, with at most one other variable dimension, which the length tells. Where
// the input is BYTES, the body is its one element, without a length before it. All
// outputs are asked for in binary.
func ParseRaw(body []byte, m *Model) (*Request, error) {
	if len(m.Inputs) != 1 {
		return nil, api.Errorf(api.Invalid, "the model has %d inputs, and a body without JSON is one", len(m.Inputs))
	}
	info := m.Inputs[0]
	t := FromONNX(info.Type)
	if t == None {
		return nil, api.Errorf(api.Invalid, "input %q is no tensor", info.Name)
	}
	shape := append([]int64{}, info.Shape...)
	known, open := int64(1), -1
	for i, d := range shape {
		switch {
		case d < 0 && (i == 0 || t == Bytes):
			shape[i] = 1
		case d < 0 && open >= 0:
			return nil, api.Errorf(api.Invalid, "input %q has more than one variable dimension, and a body without JSON does not tell them", info.Name)
		case d < 0:
			open = i
		case d > 0 && known > math.MaxInt32/d:
			return nil, api.Errorf(api.TooLarge, "input %q is larger than a body can be", info.Name)
		default:
			known *= d
		}
	}
	in := newAssembler(m.Inputs, "input", m.MaxElements)
	if open >= 0 {
		shape[open] = 0
		if size := known * int64(types[t].size); size > 0 {
			shape[open] = int64(len(body)) / size
		}
	}
	p, n, err := in.slot([]byte(info.Name), t, shape)
	if err != nil {
		return nil, err
	}
	var data any
	if t == Bytes {
		if n != 1 {
			return nil, api.Errorf(api.Invalid, "input %q has %d elements, and a body without JSON is one", info.Name, n)
		}
		data = []string{string(body)}
	} else if data, err = FromRaw(t, n, body); err != nil {
		return nil, api.Errorf(api.Invalid, "input %q: %v", info.Name, err)
	}
	in.put(p, ort.Tensor{Shape: shape, Data: data})
	r := &Request{Outputs: all(m, true)}
	return r, r.finish(in, m)
}

func all(m *Model, binary bool) []Wanted {
	out := make([]Wanted, len(m.Outputs))
	for i := range out {
		out[i] = Wanted{i, binary}
	}
	return out
}

// finish takes the inputs over and counts their rows.
func (r *Request) finish(in *assembler, m *Model) (err error) {
	if r.Inputs, err = in.done(false); err != nil || !m.Batches {
		return err
	}
	rows := int64(-1)
	for i, v := range r.Inputs {
		t, ok := v.(ort.Tensor)
		if !ok || len(t.Shape) == 0 {
			return api.Errorf(api.Invalid, "input %q has no rows", m.Inputs[i].Name)
		}
		if rows >= 0 && t.Shape[0] != rows {
			return api.Errorf(api.Invalid, "input %q has %d rows, and %q has %d", m.Inputs[0].Name, rows, m.Inputs[i].Name, t.Shape[0])
		}
		rows = t.Shape[0]
	}
	if rows == 0 {
		return api.Errorf(api.Invalid, "there are no rows")
	}
	r.Rows = max(0, int(rows))
	return nil
}

func (s *scanner) id() (string, error) {
	t, err := s.text()
	if err == nil && len(t) > maxID {
		err = api.Errorf(api.BadRequest, "an id is longer than %d bytes", maxID)
	}
	return string(t), err
}

// parameter is a name with a text, a bool or a number.
type parameter struct {
	name   []byte
	kind   byte // s, b, n
	flag   bool
	number decimal
}

func (p *parameter) bool() (bool, error) {
	if p.kind != 'b' {
		return false, api.Errorf(api.BadRequest, "parameter %q is true or false", p.name)
	}
	return p.flag, nil
}

// natural is a number of at most most.
func (p *parameter) natural(most uint64) (uint64, error) {
	d := p.number
	if p.kind != 'n' || !d.integer || !d.exact || d.negative && d.digits > 0 || d.digits > most {
		return 0, api.Errorf(api.BadRequest, "parameter %q is an integer from 0 to %d", p.name, most)
	}
	return d.digits, nil
}

func (p *parameter) microseconds() (time.Duration, error) {
	n, err := p.natural(math.MaxInt64 / 1000)
	return time.Duration(n) * time.Microsecond, err
}

// elsewhere refuses the parameters that would have to change what is done.
func (p *parameter) elsewhere() error {
	switch string(p.name) {
	case "shared_memory_region":
		return api.Errorf(api.Unsupported, "shared memory is not supported")
	case "classification":
		if p.kind != 'n' || p.number.digits != 0 {
			return api.Errorf(api.Unsupported, "the classification extension is not supported")
		}
	}
	return nil
}

// parameters reads an object of parameters. One that nobody asks for is ignored.
func (s *scanner) parameters(each func(*parameter) error) error {
	return s.object(func(key []byte) (err error) {
		p := parameter{name: key}
		switch s.peek() {
		case '"':
			p.kind = 's'
			_, err = s.text()
		case 't', 'f':
			p.kind = 'b'
			p.flag, err = s.bool()
		default:
			p.kind = 'n'
			if p.number, err = s.number(); err != nil {
				err = s.bad("a parameter is a string, a number or a boolean")
			}
		}
		if err == nil {
			err = each(&p)
		}
		return err
	})
}

// answer is true, false or neither.
type answer uint8

const (
	unsaid answer = iota
	no
	yes
)

type asked struct {
	index  int
	binary answer
}

// outputs reads the outputs that a request asks for.
func (s *scanner) outputs(m *Model) ([]asked, error) {
	var out []asked
	err := s.array(func() error {
		o := asked{index: -1}
		err := s.object(func(key []byte) (err error) {
			switch string(key) {
			case "name":
				var name []byte
				if name, err = s.text(); err == nil {
					o.index, err = m.output(name)
				}
			case "parameters":
				err = s.parameters(func(p *parameter) error {
					if string(p.name) != "binary_data" {
						return p.elsewhere()
					}
					b, err := p.bool()
					o.binary = no
					if b {
						o.binary = yes
					}
					return err
				})
			default:
				err = s.skip(3)
			}
			return err
		})
		if err == nil && o.index < 0 {
			err = api.Errorf(api.BadRequest, "an output that is asked for has no name")
		}
		for _, before := range out {
			if err == nil && before.index == o.index {
				err = api.Errorf(api.Invalid, "output %q is asked for twice", m.Outputs[o.index].Name)
			}
		}
		out = append(out, o)
		return err
	})
	return out, err
}

func (m *Model) output(name []byte) (int, error) {
	for i := range m.Outputs {
		if m.Outputs[i].Name == string(name) {
			return i, nil
		}
	}
	return -1, api.Errorf(api.Invalid, "the model has no output %q", clip(name))
}

// tensor reads a tensor of a request or an answer into a. Its data are in the JSON
// text, or next in binary.
func (s *scanner) tensor(a *assembler, binary *[]byte) error {
	var (
		name      []byte
		named     bool
		t         Type
		shape     []int64
		place     part
		n         int
		data      any
		later     = -1 // where data begin that come before what describes them
		size      = -1
		sequence  = -1
		described bool
	)
	// describe finds the place of the tensor as soon as it can.
	describe := func() (err error) {
		if described || !named || t == None || shape == nil {
			return nil
		}
		described = true
		place, n, err = a.slot(name, t, shape)
		return err
	}
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case "name":
			name, err = s.text()
			named = true
		case "datatype":
			var text []byte
			if text, err = s.text(); err != nil {
				return err
			}
			if t = ParseType(text); t == None {
				return noDatatype(text)
			}
		case "shape":
			shape = make([]int64, 0, 4)
			err = s.array(func() error {
				d, err := integer[int64](s)
				if err == nil && len(shape) == maxRank {
					err = api.Errorf(api.Invalid, "a tensor has more than %d dimensions", maxRank)
				}
				shape = append(shape, d)
				return err
			})
		case "parameters":
			err = s.parameters(func(p *parameter) error {
				var x uint64
				var err error
				switch string(p.name) {
				case "binary_data_size":
					x, err = p.natural(math.MaxInt32)
					size = int(x)
				case sequenceLength:
					x, err = p.natural(math.MaxInt32)
					sequence = int(x)
				default:
					err = p.elsewhere()
				}
				return err
			})
		case "data":
			if err = describe(); err != nil {
				return err
			}
			s.peek()
			if later = s.i; !described {
				return s.skip(1)
			}
			data, err = s.data(t, shape, n)
		default:
			err = s.skip(3)
		}
		return err
	})
	if err == nil {
		err = describe()
	}
	switch {
	case err != nil:
	case !described:
		err = api.Errorf(api.BadRequest, "a tensor needs a name, a shape and a datatype")
	case size >= 0 && later >= 0:
		err = api.Errorf(api.Invalid, "%s %q has its data in JSON and in binary", a.what, clip(name))
	case size >= 0:
		if size > len(*binary) {
			return api.Errorf(api.Invalid, "%s %q is %d bytes in binary, and %d are left of the body", a.what, clip(name), size, len(*binary))
		}
		if data, err = FromRaw(t, n, (*binary)[:size]); err != nil {
			err = api.Errorf(api.Invalid, "%s %q: %v", a.what, clip(name), err)
		}
		*binary = (*binary)[size:]
	case later < 0:
		err = api.Errorf(api.Invalid, "%s %q has no data", a.what, clip(name))
	case data == nil:
		again := &scanner{b: s.b, i: later, literals: s.literals}
		data, err = again.data(t, shape, n)
	}
	if err != nil {
		return err
	}
	place.sequence = sequence
	a.put(place, ort.Tensor{Shape: shape, Data: data})
	return nil
}
