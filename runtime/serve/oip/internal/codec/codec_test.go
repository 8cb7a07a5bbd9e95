package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// model takes one of everything.
var model = &Model{
	Inputs: []ort.Info{{Name: "f", Type: "float", Shape: []int64{-1, 3}}, {Name: "d", Type: "double", Shape: []int64{-1}},
		{Name: "i", Type: "int64", Shape: []int64{2, 2, 2}}, {Name: "t", Type: "string", Shape: []int64{-1}},
		{Name: "s", Type: "seq"}, {Name: "m", Type: "map"}, {Name: "o", Type: "optional"}},
	Outputs:     []ort.Info{{Name: "y", Type: "float", Shape: []int64{-1}}, {Name: "h", Type: "float16", Shape: []int64{-1}}},
	MaxElements: 1 << 20,
}

// small takes one tensor of a type.
func small(onnx string, shape ...int64) *Model {
	return &Model{Inputs: []ort.Info{{Name: "x", Type: onnx, Shape: shape}}, Outputs: []ort.Info{{Name: "y", Type: onnx, Shape: shape}}, MaxElements: 1 << 20}
}

func flatBytes(t *testing.T, v ort.Value) string {
	t.Helper()
	ts, err := Flatten(nil, "v", v)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, x := range ts {
		fmt.Fprintf(&b, "%s %v %v %d %x\n", x.Name, TypeOf(x.Data), x.Shape, x.Sequence, AppendRaw(nil, x.Data))
	}
	return b.String()
}

// same compares values bit by bit, so that NaN equals itself.
func same(t *testing.T, got, want []ort.Value) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for i := range got {
		if g, w := flatBytes(t, got[i]), flatBytes(t, want[i]); g != w {
			t.Fatalf("value %d is\n%swant\n%s", i, g, w)
		}
	}
}

func slice[T any](r *rapid.T, n int, g *rapid.Generator[T]) []T {
	return rapid.SliceOfN(g, n, n).Draw(r, "data")
}

// tensor draws one of a type; plain: one that JSON carries.
func tensor(r *rapid.T, t Type, shape []int64, plain bool) ort.Tensor {
	n := 1
	for _, d := range shape {
		n *= int(d)
	}
	x := ort.Tensor{Shape: shape}
	switch t {
	case Bool:
		x.Data = slice(r, n, rapid.Bool())
	case Uint8:
		x.Data = slice(r, n, rapid.Uint8())
	case Uint16:
		x.Data = slice(r, n, rapid.Uint16())
	case Uint32:
		x.Data = slice(r, n, rapid.Uint32())
	case Uint64:
		x.Data = slice(r, n, rapid.Uint64())
	case Int8:
		x.Data = slice(r, n, rapid.Int8())
	case Int16:
		x.Data = slice(r, n, rapid.Int16())
	case Int32:
		x.Data = slice(r, n, rapid.Int32())
	case Int64:
		x.Data = slice(r, n, rapid.Int64())
	case FP16:
		x.Data = slice(r, n, rapid.Map(rapid.Uint16(), func(x uint16) ort.Float16 { return ort.Float16(x) }))
	case BF16:
		x.Data = slice(r, n, rapid.Map(rapid.Uint16(), func(x uint16) ort.BFloat16 { return ort.BFloat16(x) }))
	case FP32:
		x.Data = slice(r, n, rapid.Map(rapid.Uint32(), math.Float32frombits).Filter(func(x float32) bool { return !plain || x-x == 0 }))
	case FP64:
		x.Data = slice(r, n, rapid.Map(rapid.Uint64(), math.Float64frombits).Filter(func(x float64) bool { return !plain || x-x == 0 }))
	case Bytes:
		if plain {
			x.Data = slice(r, n, rapid.String())
		} else {
			x.Data = slice(r, n, rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		}
	}
	return x
}

// drawn draws a value and how a model would tell its type.
func drawn(r *rapid.T, plain bool) (ort.Info, ort.Value) {
	kinds := rapid.SampledFrom([]Type{Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, FP32, FP64, Bytes, FP16, BF16})
	if plain {
		kinds = kinds.Filter(Type.InJSON)
	}
	t := kinds.Draw(r, "type")
	shape := func() []int64 { return rapid.SliceOfN(rapid.Int64Range(0, 3), 0, 4).Draw(r, "shape") }
	key := rapid.SampledFrom([]Type{Int64, Bytes}).Draw(r, "key")
	mapping := func() ort.Map {
		n := []int64{rapid.Int64Range(0, 3).Draw(r, "n")}
		return ort.Map{Keys: tensor(r, key, n, plain), Values: tensor(r, t, n, plain)}
	}
	sequence := func(item func() ort.Value) ort.Sequence {
		out := ort.Sequence{}
		for range rapid.IntRange(0, 12).Draw(r, "length") {
			out = append(out, item())
		}
		return out
	}
	one := func() ort.Value { return tensor(r, t, shape(), plain) }
	switch rapid.IntRange(0, 6).Draw(r, "kind") {
	case 0:
		return ort.Info{Type: "map"}, mapping()
	case 1:
		return ort.Info{Type: "seq"}, sequence(one)
	case 2:
		return ort.Info{Type: "seq"}, sequence(func() ort.Value { return mapping() })
	case 3:
		return ort.Info{Type: "optional"}, rapid.SampledFrom([]func() ort.Value{func() ort.Value { return nil }, one, func() ort.Value { return mapping() },
			func() ort.Value { return sequence(one) }}).Draw(r, "held")()
	}
	x := one().(ort.Tensor)
	want := slices.Clone(x.Shape)
	for i := range want {
		if rapid.Bool().Draw(r, "variable") {
			want[i] = -1
		}
	}
	return ort.Info{Type: types[t].onnx, Shape: want}, x
}

// signature draws a model and values that it takes and gives.
func signature(r *rapid.T, plain bool) (*Model, []ort.Value) {
	m := &Model{MaxElements: 1 << 20}
	var vs []ort.Value
	for i := range rapid.IntRange(0, 20).Draw(r, "inputs") {
		info, v := drawn(r, plain)
		info.Name = fmt.Sprintf("n%d é\"[%d]", i, i)
		m.Inputs, vs = append(m.Inputs, info), append(vs, v)
	}
	m.Outputs = m.Inputs
	return m, vs
}

func outs(m *Model, vs []ort.Value, binary func(int) bool) []Out {
	var out []Out
	for i, v := range vs {
		out = append(out, Out{m.Inputs[i].Name, v, binary(i)})
	}
	return out
}

func TestHTTPRoundTrip(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				m, vs := signature(r, plain)
				binary := func(int) bool { return !plain || rapid.Bool().Draw(r, "binary") }
				id := rapid.StringN(0, 20, 100).Draw(r, "id")
				b, text, _, err := AppendRequest(nil, id, outs(m, vs, binary), outs(m, vs, func(int) bool { return true }))
				if err != nil {
					r.Fatal(err)
				}
				if plain && !json.Valid(b[:text]) {
					r.Fatalf("not JSON: %s", b[:text])
				}
				got, err := ParseRequest(b[:text], b[text:], m)
				if err != nil {
					r.Fatalf("%v: %s", err, b[:text])
				}
				if got.ID != id {
					r.Fatalf("id %q", got.ID)
				}
				same(t, got.Inputs, vs)
				h := Head{Model: "m\n", Version: "1", ID: id, Variant: rapid.SampledFrom([]string{"", "a"}).Draw(r, "variant"), Fallback: rapid.Bool().Draw(r, "fallback")}
				b, text, _, err = AppendResponse(nil, h, outs(m, vs, binary))
				if err != nil {
					r.Fatal(err)
				}
				resp, err := ParseResponse(b[:text], b[text:], m)
				if err != nil {
					r.Fatalf("%v: %s", err, b[:text])
				}
				if resp.Head != h {
					r.Fatalf("head %+v", resp.Head)
				}
				same(t, resp.Outputs, vs)
			})
		})
	}
}

// Answers in JSON carry NaN and the infinities, and read back as the same numbers.
func TestNonFiniteAnswers(t *testing.T) {
	m := small("double", -1)
	want := ort.Tensor{Shape: []int64{4}, Data: []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)}}
	b, text, binary, err := AppendResponse(nil, Head{}, []Out{{"y", want, false}})
	if err != nil || binary || !bytes.Contains(b, []byte(`[NaN,Infinity,-Infinity,-0]`)) {
		t.Fatalf("%v %v: %s", err, binary, b)
	}
	got, err := ParseResponse(b[:text], nil, m)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got.Outputs, []ort.Value{want})
	if _, err := ParseRequest([]byte(`{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[NaN]}]}`), nil, m); err == nil {
		t.Fatal("a request with NaN is taken")
	}
}

func TestWireRoundTrip(t *testing.T) {
	for _, raw := range []bool{true, false} {
		t.Run(fmt.Sprintf("raw=%v", raw), func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				m, vs := signature(r, false)
				if !raw { // what has no contents is for raw alone
					for i, v := range vs {
						if s := flatBytes(t, v); strings.Contains(s, "FP16 [") || strings.Contains(s, "BF16 [") {
							m.Inputs[i], vs[i] = ort.Info{Name: m.Inputs[i].Name, Type: "optional"}, nil
						}
					}
				}
				req, err := NewRequest("m", "2", "id", outs(m, vs, func(int) bool { return raw }), nil, raw)
				if err != nil {
					r.Fatal(err)
				}
				wire, err := proto.Marshal(req)
				if err != nil {
					r.Fatal(err)
				}
				if name, version, err := Target(wire); err != nil || name != "m" || version != "2" {
					r.Fatal(name, version, err)
				}
				got, err := ParseWire(wire, m)
				if err != nil {
					r.Fatal(err)
				}
				if got.ID != "id" || got.Raw != (len(req.RawInputContents) > 0) {
					r.Fatalf("%+v", got)
				}
				same(t, got.Inputs, vs)
				resp, err := NewResponse(Head{Model: "m", ID: "id", Variant: "b", Fallback: true}, outs(m, vs, func(int) bool { return raw }), raw)
				if err != nil {
					r.Fatal(err)
				}
				back, err := ReadResponse(resp, m)
				if err != nil {
					r.Fatal(err)
				}
				if back.Head != (Head{Model: "m", ID: "id", Variant: "b", Fallback: true}) {
					r.Fatalf("%+v", back.Head)
				}
				same(t, back.Outputs, vs)
			})
		})
	}
}

// Numbers are what strconv makes of them, to the bit.
func TestNumbers(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, text string) {
		want, errWant := strconv.ParseFloat(text, 64)
		got, err := (&scanner{b: []byte(text)}).float64()
		if (err == nil) != (errWant == nil) || err == nil && math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%s is %v (%v), want %v (%v)", text, got, err, want, errWant)
		}
		want, errWant = strconv.ParseFloat(text, 32)
		single, err := (&scanner{b: []byte(text)}).float32()
		if (err == nil) != (errWant == nil) || err == nil && math.Float32bits(single) != math.Float32bits(float32(want)) {
			t.Fatalf("%s is %v (%v), want %v (%v) in FP32", text, single, err, want, errWant)
		}
	}
	for _, text := range []string{"0", "-0", "0.0", "1e22", "1e23", "1e-22", "9007199254740992", "9007199254740993", "16777217", "16777217.0000000001", "1.00000017881393421514957253748434595763683319091796875",
		"0.1", "1e-45", "1e-400", "3.4028235e38", "3.4028236e38", "1e39", "1e400", "0e999999999", "123456789012345678901234567890", "0.00000000000000000000000000000000000000000000012345"} {
		check(t, text)
	}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?`).Draw(r, "text")
		check(r, text)
	})
	// The middles of neighbouring FP32 and what lies next to them.
	rapid.Check(t, func(r *rapid.T) {
		x := math.Float32frombits(rapid.Uint32Range(0x3f000000, 0x48000000).Draw(r, "bits"))
		mid := (float64(x) + float64(math.Nextafter32(x, math.MaxFloat32))) / 2
		text := strconv.FormatFloat(mid, 'f', -1, 64)
		check(r, text)
		check(r, text+"1")
		check(r, strconv.FormatFloat(math.Nextafter(mid, 0), 'f', -1, 64))
	})
}

// What is taken is JSON; what is JSON is taken, but for what a limit or a rule of
// ours forbids.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,true,null,"x\u00e9\ud83d\ude00\n"]}`, `[01]`, `"\ud800"`, `{"a":1,"a":2}`, "\"\x80\"", `[1,]`, `-`, `1.`, `[[[[]]]]`, "\x00", `{"a":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &scanner{b: b}
		err := s.skip(0)
		if err == nil {
			err = s.end()
		}
		if err == nil && !json.Valid(b) {
			t.Fatalf("taken, and not JSON: %q", b)
		}
		if err != nil && json.Valid(b) {
			for _, rule := range []string{"twice", "deeper", "keys", "range", "UTF-8", `\u is not`} {
				if strings.Contains(err.Error(), rule) {
					return
				}
			}
			t.Fatalf("refused, and JSON: %q: %v", b, err)
		}
	})
}

// allocated bounds what f allocates by the length of what it reads.
func allocated(t *testing.T, length int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(256<<10+64*length); got > most {
		t.Fatalf("%d bytes are allocated for %d", got, length)
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"id":"a","parameters":{"timeout":5,"binary_data_output":true},"inputs":[{"name":"f","datatype":"FP32","shape":[1,3],"data":[[1,2.5,-3e-2]]},{"name":"d","shape":[2],"datatype":"FP64","data":[0.1,2]},{"name":"i","datatype":"INT64","shape":[2,2,2],"data":[[[1,2],[3,4]],[[5,6],[7,8]]]},{"name":"t","datatype":"BYTES","shape":[2],"data":["a","\u00e9"]},{"name":"s","datatype":"INT8","shape":[0],"data":[],"parameters":{"sequence_length":0}},{"name":"m.keys","datatype":"INT64","shape":[1],"data":[1]},{"name":"m.values","datatype":"FP32","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}`,
		`{"inputs":[{"name":"f","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}`,
		`{"inputs":[{"data":[1,2,3],"name":"f","datatype":"FP32","shape":[1,3]},{"name":"s[0]","datatype":"BYTES","shape":[1],"data":["a"],"parameters":{"sequence_length":2}},{"name":"s[1]","datatype":"BYTES","shape":[1],"data":["b"]}]}`,
		`{"inputs":[{"name":"d","datatype":"FP64","shape":[1048576],"data":[1]}]}`,
		`{"inputs":[{"name":"o","datatype":"BF16","shape":[2],"parameters":{"binary_data_size":4}}],"outputs":[{"name":"h"}]}`,
	} {
		f.Add([]byte(s), []byte("abcdefghijkl"))
		f.Add([]byte(s), []byte{})
	}
	f.Fuzz(func(t *testing.T, text, binary []byte) {
		var r *Request
		var err error
		allocated(t, len(text)+len(binary), func() { r, err = ParseRequest(text, binary, model) })
		if err != nil {
			if k := api.From(err).Kind; k == api.Internal {
				t.Fatalf("an internal error: %v", err)
			}
			return
		}
		b, n, _, err := AppendRequest(nil, r.ID, outs(model, r.Inputs, func(int) bool { return true }), nil)
		if err != nil {
			t.Fatal(err)
		}
		yes := bytes.Replace(b[:n], []byte(`{`), []byte(`{"parameters":{"binary_data_output":true},`), 1)
		again, err := ParseRequest(yes, b[n:], model)
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		same(t, again.Inputs, r.Inputs)
	})
}

func FuzzRaw(f *testing.F) {
	f.Add([]byte("abcdefghijkl"), uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, k uint8) {
		m := small(types[int(k)%len(types)].onnx, -1, 3)
		r, err := ParseRaw(body, m)
		if err != nil {
			return
		}
		x := r.Inputs[0].(ort.Tensor)
		if s, ok := x.Data.([]string); ok && s[0] == string(body) {
			return
		}
		if got := AppendRaw(nil, x.Data); !bytes.Equal(got, body) {
			t.Fatalf("%x became %x", body, got)
		}
	})
}

func wireOf(t testing.TB, r *pb.ModelInferRequest) []byte {
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzWire(f *testing.F) {
	vs := []ort.Value{ort.Tensor{Shape: []int64{1, 3}, Data: []float32{1, 2, 3}}, ort.Tensor{Shape: []int64{1}, Data: []float64{1}},
		ort.Tensor{Shape: []int64{2, 2, 2}, Data: []int64{1, 2, 3, 4, 5, 6, 7, -8}}, ort.Tensor{Shape: []int64{1}, Data: []string{"a"}},
		ort.Sequence{ort.Tensor{Shape: []int64{1}, Data: []int8{-1}}}, ort.Map{Keys: ort.Tensor{Shape: []int64{1}, Data: []int64{1}}, Values: ort.Tensor{Shape: []int64{1}, Data: []bool{true}}},
		ort.Tensor{Shape: []int64{1}, Data: []uint16{9}}}
	for _, raw := range []bool{true, false} {
		r, err := NewRequest("m", "1", "id", outs(model, vs, func(int) bool { return raw }), []string{"y"}, raw)
		if err != nil {
			f.Fatal(err)
		}
		r.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 7}}, "x": {ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: 1}}}
		f.Add(wireOf(f, r))
	}
	f.Add(bytes.Repeat([]byte{5<<3 | 2, 0}, 1000))
	f.Add(bytes.Repeat([]byte{7<<3 | 2, 0}, 1000))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var r *Request
		var err error
		allocated(t, len(wire), func() { r, err = ParseWire(wire, model) })
		name, version, errTarget := Target(wire)
		if err != nil {
			if k := api.From(err).Kind; k == api.Internal {
				t.Fatalf("an internal error: %v", err)
			}
			return
		}
		// What is taken means the same to the generated code.
		var want pb.ModelInferRequest
		if err := proto.Unmarshal(wire, &want); err != nil {
			t.Fatalf("taken, and not a message: %v", err)
		}
		if errTarget != nil || want.ModelName != name || want.ModelVersion != version || want.Id != r.ID || (len(want.RawInputContents) > 0) != r.Raw {
			t.Fatalf("%v became %+v", &want, r)
		}
		again, err := ParseWire(wireOf(t, &want), model)
		if err != nil {
			t.Fatal(err)
		}
		same(t, again.Inputs, r.Inputs)
	})
}

const good = `{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[3,4]]}`

// Each is one thing wrong, and what is said about it.
func TestBadJSON(t *testing.T) {
	in := func(s string) string { return `{"inputs":[` + s + `]}` }
	of := func(typ, shape, data string) string {
		return in(`{"name":"x","datatype":"` + typ + `","shape":` + shape + `,"data":` + data + `}`)
	}
	for name, c := range map[string]struct {
		onnx, text string
		kind       api.Kind
		says       string
	}{
		"malformed JSON":                 {"float", `{"inputs":[`, api.BadRequest, "not right at byte 11"},
		"empty body":                     {"float", ``, api.BadRequest, "an object is wanted"},
		"trailing garbage":               {"float", in(good) + "x", api.BadRequest, "text after its end"},
		"two texts":                      {"float", in(good) + in(good), api.BadRequest, "text after its end"},
		"deep nesting":                   {"float", `{"x":` + strings.Repeat("[", 100000), api.BadRequest, "nested deeper"},
		"deep nesting of data":           {"float", of("FP32", "[2,2]", strings.Repeat("[", 100000)), api.BadRequest, "a number is wanted"},
		"deep nesting before the shape":  {"float", in(`{"data":` + strings.Repeat("[", 100000) + `}`), api.BadRequest, "nested deeper"},
		"duplicate keys":                 {"float", `{"inputs":[],"inputs":[]}`, api.BadRequest, "a key comes twice"},
		"duplicate keys of a tensor":     {"float", in(`{"name":"x","name":"x"}`), api.BadRequest, "a key comes twice"},
		"duplicate keys by an escape":    {"float", in(`{"name":"x","n\u0061me":"x"}`), api.BadRequest, "a key comes twice"},
		"duplicate keys that are passed": {"float", `{"z":{"a":1,"a":2}}`, api.BadRequest, "a key comes twice"},
		"too many keys": {"float", func() string {
			var b strings.Builder
			for i := range 100 {
				fmt.Fprintf(&b, `"k%d":0,`, i)
			}
			return `{` + b.String() + `"inputs":[]}`
		}(), api.BadRequest, "more than 64 keys"},
		"NaN":                      {"float", of("FP32", "[2,2]", "[1,2,3,NaN]"), api.BadRequest, "a number is wanted"},
		"Infinity":                 {"double", of("FP64", "[2,2]", "[1,2,3,Infinity]"), api.BadRequest, "a number is wanted"},
		"-Infinity":                {"float", of("FP32", "[2,2]", "[1,2,3,-Infinity]"), api.BadRequest, "a number is wanted"},
		"a number out of range":    {"float", of("FP32", "[2,2]", "[1,2,3,1e39]"), api.BadRequest, "out of the range of FP32"},
		"null":                     {"float", of("FP32", "[2,2]", "[1,2,3,null]"), api.BadRequest, "a number is wanted"},
		"an integer with a point":  {"int64", of("INT64", "[2,2]", "[1,2,3,4.0]"), api.BadRequest, "no integer"},
		"an integer out of range":  {"int8", of("INT8", "[2,2]", "[1,2,3,128]"), api.BadRequest, "out of range"},
		"the least but one":        {"int64", of("INT64", "[2,2]", "[1,2,3,-9223372036854775809]"), api.BadRequest, "out of range"},
		"a negative natural":       {"uint8", of("UINT8", "[2,2]", "[1,2,3,-1]"), api.BadRequest, "out of range"},
		"too large for UINT64":     {"uint64", of("UINT64", "[2,2]", "[1,2,3,18446744073709551616]"), api.BadRequest, "out of range"},
		"a text for a number":      {"float", of("FP32", "[2,2]", `[1,2,3,"4"]`), api.BadRequest, "a number is wanted"},
		"a number for a text":      {"string", of("BYTES", "[2,2]", `["1","2","3",4]`), api.BadRequest, "a string is wanted"},
		"1 for true":               {"bool", of("BOOL", "[2,2]", `[true,true,false,1]`), api.BadRequest, "true or false"},
		"a text that is not UTF-8": {"string", of("BYTES", "[2,2]", "[\"1\",\"2\",\"3\",\"\xff\"]"), api.BadRequest, "not UTF-8"},
		"half a surrogate":         {"string", of("BYTES", "[2,2]", `["1","2","3","\ud83d"]`), api.BadRequest, "not followed by"},
		"data that are no array":   {"float", of("FP32", "[2,2]", "1"), api.BadRequest, "an array is wanted"},
		"too few elements":         {"float", of("FP32", "[2,2]", "[1,2,3]"), api.BadRequest, "4 elements"},
		"too many elements":        {"float", of("FP32", "[2,2]", "[1,2,3,4,5]"), api.BadRequest, "4 elements"},
		"nested as another shape":  {"float", of("FP32", "[2,2]", "[[1,2,3,4]]"), api.BadRequest, "elements is wanted"},
		"nested too deep":          {"float", of("FP32", "[2,2]", "[[[1],[2]],[[3],[4]]]"), api.BadRequest, "a number is wanted"},
		"wrong shape":              {"float", of("FP32", "[4]", "[1,2,3,4]"), api.Invalid, `shape [-1 2], not [4]`},
		"wrong dimension":          {"float", of("FP32", "[1,4]", "[1,2,3,4]"), api.Invalid, `shape [-1 2], not [1 4]`},
		"negative dimension":       {"float", of("FP32", "[-1,2]", "[1,2,3,4]"), api.Invalid, "dimension -1 is negative"},
		"huge dimension":           {"float", of("FP32", "[9223372036854775807,2]", "[1]"), api.TooLarge, "more than 1048576 elements"},
		"overflowing dimension":    {"float", of("FP32", "[9223372036854775808,2]", "[1]"), api.BadRequest, "out of range"},
		"overflowing product":      {"float", of("FP32", "[4294967296,4294967296]", "[1]"), api.TooLarge, "more than 1048576 elements"},
		"huge beside zero":         {"float", of("FP32", "[0,9223372036854775807]", "[]"), api.TooLarge, "more than 1048576 elements"},
		"too many dimensions":      {"float", of("FP32", "["+strings.Repeat("1,", 40)+"1]", "[1]"), api.Invalid, "more than 32 dimensions"},
		"a dimension with a point": {"float", of("FP32", "[2.0,2]", "[1,2,3,4]"), api.BadRequest, "no integer"},
		"another datatype":         {"float", of("FP64", "[2,2]", "[1,2,3,4]"), api.Invalid, `"x" is FP32, not FP64`},
		"an unknown datatype":      {"float", of("FLOAT", "[2,2]", "[1,2,3,4]"), api.Invalid, `no datatype "FLOAT"`},
		"FP16 in JSON":             {"float16", of("FP16", "[2,2]", "[1,2,3,4]"), api.Invalid, "has to be sent in binary"},
		"an unknown input":         {"float", in(good + `,{"name":"z","datatype":"FP32","shape":[1],"data":[1]}`), api.Invalid, `no input "z"`},
		"a missing input":          {"float", in(""), api.Invalid, `input "x" is missing`},
		"no inputs":                {"float", "{}", api.Invalid, `input "x" is missing`},
		"a duplicate input":        {"float", in(good + "," + good), api.Invalid, `input "x" comes twice`},
		"an unknown output":        {"float", `{"inputs":[` + good + `],"outputs":[{"name":"q"}]}`, api.Invalid, `no output "q"`},
		"a duplicate output":       {"float", `{"inputs":[` + good + `],"outputs":[{"name":"y"},{"name":"y"}]}`, api.Invalid, "asked for twice"},
		"an output without name":   {"float", `{"inputs":[` + good + `],"outputs":[{}]}`, api.BadRequest, "no name"},
		"a tensor without shape":   {"float", in(`{"name":"x","datatype":"FP32","data":[1]}`), api.BadRequest, "needs a name, a shape"},
		"a tensor without data":    {"float", in(`{"name":"x","datatype":"FP32","shape":[2,2]}`), api.Invalid, "has no data"},
		"binary that is not there": {"float", in(`{"name":"x","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}`), api.Invalid, "0 are left of the body"},
		"data twice":               {"float", in(`{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4],"parameters":{"binary_data_size":16}}`), api.Invalid, "in JSON and in binary"},
		"a negative size":          {"float", in(`{"name":"x","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":-16}}`), api.BadRequest, "an integer from 0"},
		"shared memory":            {"float", in(`{"name":"x","datatype":"FP32","shape":[2,2],"parameters":{"shared_memory_region":"r"}}`), api.Unsupported, "shared memory"},
		"classification":           {"float", `{"inputs":[` + good + `],"outputs":[{"name":"y","parameters":{"classification":2}}]}`, api.Unsupported, "classification"},
		"a negative timeout":       {"float", `{"parameters":{"timeout":-1},"inputs":[` + good + `]}`, api.BadRequest, `"timeout" is an integer`},
		"a parameter of objects":   {"float", `{"parameters":{"a":{}},"inputs":[` + good + `]}`, api.BadRequest, "a parameter is"},
		"an id that is no text":    {"float", `{"id":1,"inputs":[` + good + `]}`, api.BadRequest, "a string is wanted"},
		"a long id":                {"float", `{"id":"` + strings.Repeat("a", 1025) + `","inputs":[` + good + `]}`, api.BadRequest, "longer than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRequest([]byte(c.text), nil, small(c.onnx, -1, 2))
			refused(t, err, c.kind, c.says)
		})
	}
}

func refused(t *testing.T, err error, kind api.Kind, says string) {
	t.Helper()
	if err == nil {
		t.Fatal("it is taken")
	}
	if e := api.From(err); e.Kind != kind || !strings.Contains(e.Text, says) {
		t.Fatalf("%d %q, want %d %q", e.Kind, e.Text, kind, says)
	}
}

func TestBadBinary(t *testing.T) {
	of := func(typ, shape string, size int) string {
		return `{"inputs":[{"name":"x","datatype":"` + typ + `","shape":` + shape + `,"parameters":{"binary_data_size":` + strconv.Itoa(size) + `}}]}`
	}
	le := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	for name, c := range map[string]struct {
		onnx, text, binary, says string
	}{
		"truncated binary tensor":      {"float", of("FP32", "[2,2]", 16), "123456789", "9 are left of the body"},
		"binary of another length":     {"float", of("FP32", "[2,2]", 12), "123456789012", "12 bytes are not 4 elements"},
		"bytes after the last tensor":  {"float", of("FP32", "[1,2]", 8), "123456789", "1 bytes are left"},
		"a BOOL of 2":                  {"bool", of("BOOL", "[1,2]", 2), "\x01\x02", "not 0 or 1"},
		"a BYTES length past the end":  {"string", of("BYTES", "[1,2]", 12), le(1) + "a" + le(9) + "bcd", "is 9 bytes long, and 3 are left"},
		"a BYTES length of 4 GiB":      {"string", of("BYTES", "[1,2]", 8), le(0) + le(math.MaxUint32), "is 4294967295 bytes long"},
		"BYTES without a length":       {"string", of("BYTES", "[1,2]", 9), le(3) + "abc" + "de", "has no length"},
		"more BYTES than there can be": {"string", of("BYTES", "[1000,2]", 8), le(0) + le(0), "too few for 2000"},
		"BYTES left over":              {"string", of("BYTES", "[1,2]", 9), le(0) + le(0) + "z", "1 bytes are left"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRequest([]byte(c.text), []byte(c.binary), small(c.onnx, -1, 2))
			refused(t, err, api.Invalid, c.says)
		})
	}
}

func TestBadRaw(t *testing.T) {
	_, err := ParseRaw([]byte("1234"), model)
	refused(t, err, api.Invalid, "7 inputs")
	_, err = ParseRaw([]byte("123456789"), small("float", -1, 2))
	refused(t, err, api.Invalid, "9 bytes are not 2 elements")
	_, err = ParseRaw(nil, small("float", -1, -1, -1))
	refused(t, err, api.Invalid, "more than one variable dimension")
	_, err = ParseRaw([]byte("a"), small("string", -1, 2))
	refused(t, err, api.Invalid, "2 elements")
	r, err := ParseRaw([]byte("12345678"), small("float", -1, -1))
	if err != nil || fmt.Sprint(r.Inputs[0].(ort.Tensor).Shape) != "[1 2]" {
		t.Fatal(r, err)
	}
}

func TestBadWire(t *testing.T) {
	in := func(typ string, shape []int64, c *pb.InferTensorContents) *pb.ModelInferRequest {
		return &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: typ, Shape: shape, Contents: c}}}
	}
	floats := &pb.InferTensorContents{Fp32Contents: []float32{1, 2}}
	raw := func(r *pb.ModelInferRequest, bs ...string) *pb.ModelInferRequest {
		for _, b := range bs {
			r.RawInputContents = append(r.RawInputContents, []byte(b))
		}
		return r
	}
	for name, c := range map[string]struct {
		onnx string
		r    *pb.ModelInferRequest
		kind api.Kind
		says string
	}{
		"raw and contents":         {"float", raw(in("FP32", []int64{1, 2}, floats), "12345678"), api.Invalid, "has contents, and the request has raw"},
		"raw for some":             {"float", raw(in("FP32", []int64{1, 2}, nil), "12345678", "1"), api.Invalid, "2 raw contents come for 1"},
		"truncated raw":            {"float", raw(in("FP32", []int64{1, 2}, nil), "1234567"), api.Invalid, "7 bytes are not 2 elements"},
		"no contents":              {"float", in("FP32", []int64{1, 2}, nil), api.Invalid, "not 2 elements"},
		"too many contents":        {"float", in("FP32", []int64{1, 1}, floats), api.Invalid, "shape [-1 2], not [1 1]"},
		"too few contents":         {"float", in("FP32", []int64{2, 2}, floats), api.Invalid, "not 4 elements"},
		"contents of another type": {"double", in("FP64", []int64{1, 2}, floats), api.Invalid, "not FP64's"},
		"another datatype":         {"double", in("FP32", []int64{1, 2}, floats), api.Invalid, `"x" is FP64, not FP32`},
		"FP16 in contents":         {"float16", in("FP16", []int64{1, 2}, floats), api.Invalid, "has to come as raw"},
		"INT8 out of range":        {"int8", in("INT8", []int64{1, 2}, &pb.InferTensorContents{IntContents: []int32{1, 128}}), api.Invalid, "out of the range of INT8"},
		"negative dimension":       {"float", in("FP32", []int64{-1, 2}, floats), api.Invalid, "negative"},
		"huge dimension":           {"float", in("FP32", []int64{math.MaxInt64, 2}, floats), api.TooLarge, "more than"},
		"too many dimensions":      {"float", in("FP32", make([]int64, 1000), floats), api.Invalid, "dimensions"},
		"no datatype":              {"float", in("", []int64{1, 2}, floats), api.Invalid, "no datatype"},
		"a missing input":          {"float", &pb.ModelInferRequest{}, api.Invalid, "is missing"},
		"an unknown output":        {"float", &pb.ModelInferRequest{Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "q"}}}, api.Invalid, `no output "q"`},
		"a negative timeout":       {"float", &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: -1}}}}, api.BadRequest, "timeout"},
		"a long id":                {"float", &pb.ModelInferRequest{Id: strings.Repeat("a", 2000)}, api.BadRequest, "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseWire(wireOf(t, c.r), small(c.onnx, -1, 2))
			refused(t, err, c.kind, c.says)
		})
	}
	_, err := ParseWire([]byte{5<<3 | 2, 200}, small("float", -1, 2))
	refused(t, err, api.BadRequest, "not right")
	// Two bytes on the wire are no more than a look in memory.
	many := bytes.Repeat([]byte{5<<3 | 2, 0}, 1<<20)
	allocated(t, 0, func() { _, err = ParseWire(many, small("float", -1, 2)) })
	refused(t, err, api.Invalid, "no datatype")
}

func TestBadSequences(t *testing.T) {
	of := func(name, typ, data, parameters string) string {
		return fmt.Sprintf(`{"name":"%s","datatype":"%s","shape":[%d],"data":[%s],"parameters":{%s}}`, name, typ, strings.Count(data, ",")+min(1, len(data)), data, parameters)
	}
	k := func(n int) string { return fmt.Sprintf(`"sequence_length":%d`, n) }
	for name, c := range map[string]struct {
		onnx string
		in   []string
		kind api.Kind
		says string
	}{
		"a hole":              {"seq", []string{of("x[0]", "FP32", "1", k(2)), of("x[2]", "FP32", "1", "")}, api.Invalid, "element 1 of the sequence is missing"},
		"one twice":           {"seq", []string{of("x[0]", "FP32", "1", k(2)), of("x[0]", "FP32", "1", "")}, api.Invalid, "comes twice"},
		"another length":      {"seq", []string{of("x[0]", "FP32", "1", k(3)), of("x[1]", "FP32", "1", "")}, api.Invalid, "sequence_length is not that"},
		"no length":           {"seq", []string{of("x[0]", "FP32", "1", "")}, api.Invalid, "sequence_length is not that"},
		"types that differ":   {"seq", []string{of("x[0]", "FP32", "1", k(2)), of("x[1]", "FP64", "1", "")}, api.Invalid, "not of one type"},
		"a tensor":            {"seq", []string{of("x", "FP32", "1", "")}, api.Invalid, "a seq is wanted"},
		"empty with elements": {"seq", []string{of("x", "FP32", "1", k(0))}, api.Invalid, "has elements"},
		"nested":              {"seq", []string{of("x[0][0]", "FP32", "1", k(1))}, api.Unsupported, "sequence of sequences"},
		"a huge index":        {"seq", []string{of("x[99999999999999999999]", "FP32", "1", k(1))}, api.Invalid, "no input"},
		"a huge length":       {"seq", []string{of("x[0]", "FP32", "1", k(99999999999))}, api.BadRequest, "an integer from 0"},
		"a map for it":        {"seq", []string{of("x.keys", "INT64", "1", ""), of("x.values", "FP32", "1", "")}, api.Invalid, "not a map"},
		"keys alone":          {"map", []string{of("x.keys", "INT64", "1", "")}, api.Invalid, "its keys and its values"},
		"keys of floats":      {"map", []string{of("x.keys", "FP32", "1", ""), of("x.values", "FP32", "1", "")}, api.Invalid, "INT64 or BYTES"},
		"fewer values":        {"map", []string{of("x.keys", "INT64", "1,2", ""), of("x.values", "FP32", "1", "")}, api.Invalid, "2 keys and 1 values"},
		"a sequence for it":   {"map", []string{of("x[0]", "FP32", "1", k(1))}, api.Invalid, "not a sequence"},
		"both":                {"optional", []string{of("x", "FP32", "1", ""), of("x[0]", "FP32", "1", k(1))}, api.Invalid, "comes twice, or as two things"},
		"nothing":             {"seq", nil, api.Invalid, "is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRequest([]byte(`{"inputs":[`+strings.Join(c.in, ",")+`]}`), nil, small(c.onnx))
			refused(t, err, c.kind, c.says)
		})
	}
	r, err := ParseRequest([]byte(`{"inputs":[]}`), nil, small("optional"))
	if err != nil || r.Inputs[0] != nil {
		t.Fatalf("a missing optional: %v %v", r, err)
	}
}

func TestRows(t *testing.T) {
	m := &Model{Inputs: []ort.Info{{Name: "a", Type: "float", Shape: []int64{-1, 1}}, {Name: "b", Type: "float", Shape: []int64{-1}}}, Batches: true, MaxElements: 99}
	parse := func(a, b int) (*Request, error) {
		text := fmt.Sprintf(`{"inputs":[{"name":"b","datatype":"FP32","shape":[%d],"data":[%s]},{"name":"a","datatype":"FP32","shape":[%d,1],"data":[%s]}]}`,
			b, strings.TrimSuffix(strings.Repeat("1,", b), ","), a, strings.TrimSuffix(strings.Repeat("1,", a), ","))
		return ParseRequest([]byte(text), nil, m)
	}
	if r, err := parse(3, 3); err != nil || r.Rows != 3 {
		t.Fatal(r, err)
	}
	_, err := parse(3, 2)
	refused(t, err, api.Invalid, `"a" has 3 rows, and "b" has 2`)
	_, err = parse(0, 0)
	refused(t, err, api.Invalid, "no rows")
	m.Batches = false
	if r, err := parse(3, 2); err != nil || r.Rows != 0 {
		t.Fatal(r, err)
	}
}

func TestRequestParameters(t *testing.T) {
	m := small("float", -1, 2)
	m.Outputs = append(m.Outputs, ort.Info{Name: "h", Type: "float16"})
	r, err := ParseRequest([]byte(`{"outputs":[{"name":"h"},{"parameters":{"binary_data":false,"classification":0},"name":"y"}],"inputs":[`+good+`],"parameters":{"timeout":1500,"binary_data_output":true,"priority":1,"mine":"x"},"id":"7","other":[1]}`), nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if r.Timeout != 1500*time.Microsecond || r.ID != "7" || !reflect.DeepEqual(r.Outputs, []Wanted{{1, true}, {0, false}}) {
		t.Fatalf("%+v", r)
	}
	_, err = ParseRequest([]byte(`{"inputs":[`+good+`]}`), nil, m)
	refused(t, err, api.Invalid, `output "h" is FP16`)
}

// numbers is a request of n floats as Python writes them.
func numbers(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[`, n)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %g", float32(math.Sin(float64(i)))*10)
	}
	b.WriteString(`]}]}`)
	return b.Bytes()
}

func BenchmarkParseRequest(b *testing.B) {
	for _, n := range []int{30, 100000} {
		text, m := numbers(n), small("float", -1, -1)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := ParseRequest(text, nil, m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("encoding-json-"+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				var v struct {
					Inputs []struct {
						Name, Datatype string
						Shape          []int64
						Data           []float32
					}
				}
				if err := json.Unmarshal(text, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	out := []Out{{"y", ort.Tensor{Shape: []int64{1, 2}, Data: []float32{0.25, 0.123456}}, false}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, _, _, err = AppendResponse(buf[:0], Head{Model: "m", Version: "1", ID: "7"}, out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseWire(b *testing.B) {
	m := small("float", -1, -1)
	r, err := NewRequest("m", "", "7", []Out{{"x", ort.Tensor{Shape: []int64{1, 30}, Data: make([]float32, 30)}, true}}, nil, true)
	if err != nil {
		b.Fatal(err)
	}
	wire := wireOf(b, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseWire(wire, m); err != nil {
			b.Fatal(err)
		}
	}
}
