package ort_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/runtime/ort"
)

// TestFloat16 takes every half through a float and back, and floats between two
// halves to the nearer one.
func TestFloat16(t *testing.T) {
	for i := range 1 << 16 {
		h := ort.Float16(i)
		f := h.Float()
		if math.IsNaN(float64(f)) {
			if back := ort.ToFloat16(f); !math.IsNaN(float64(back.Float())) {
				t.Fatalf("%#x: %v is %#x", i, f, back)
			}
			continue
		}
		if back := ort.ToFloat16(f); back != h {
			t.Fatalf("%#x: %v is %#x", i, f, back)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float32Range(-65504, 65504).Draw(t, "x")
		h := ort.ToFloat16(x)
		d := math.Abs(float64(h.Float()) - float64(x))
		for _, near := range []ort.Float16{h - 1, h + 1} {
			if n := float64(near.Float()); !math.IsNaN(n) && !math.IsInf(n, 0) && math.Abs(n-float64(x)) < d {
				t.Fatalf("%v became %v, %v is nearer", x, h.Float(), near.Float())
			}
		}
	})
}

// TestRunEndsWithItsContext ends a run of many seconds.
func TestRunEndsWithItsContext(t *testing.T) {
	g := onnx.New("long")
	x := g.Input("x", onnx.Float, -1, 768)
	y := x
	for range 2000 {
		y = g.Op("Tanh", g.Op("MatMul", y, g.Op("Transpose", y)))
		y = g.Op("MatMul", y, x)
	}
	g.Output("y", y, onnx.Float, -1, 768)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.RunValues(ctx, []ort.Value{ort.Tensor{Shape: []int64{768, 768}, Data: make([]float32, 768*768)}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// doubling is a model that doubles its first column and gives back its second, of texts.
func doubling(t *testing.T) *ort.Session {
	t.Helper()
	g := onnx.New("rows")
	a, b := g.Input("a", onnx.Double, -1, 1), g.Input("b", onnx.String, -1, 1)
	g.Output("double", g.Op("Add", a, a), onnx.Double, -1, 1)
	g.Output("text", g.Op("Identity", b), onnx.String, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSlots runs single rows of several types at once, and others between them.
func TestSlots(t *testing.T) {
	s := doubling(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				n := 1 + i%3/2
				x, texts := make([]float64, n), make([]string, n)
				for k := range n {
					x[k], texts[k] = float64(w*1000+i), string(rune('a'+w))
				}
				out, err := s.Run([]ort.Tensor{ort.Column(x), ort.Column(texts)})
				if err != nil {
					t.Error(err)
					return
				}
				for k := range n {
					if out[0].Data.([]float64)[k] != 2*x[k] || out[1].Data.([]string)[k] != texts[k] {
						t.Errorf("%v of %v, %v", out, x, texts)
					}
				}
			}
		})
	}
	wg.Wait()
	if _, err := s.Run([]ort.Tensor{ort.Column([]float32{1}), ort.Column([]string{"a"})}); err == nil {
		t.Error("a float was taken for a double")
	}
	if _, err := s.Run([]ort.Tensor{{Shape: []int64{2, 1}, Data: []float64{1}}, ort.Column([]string{"a", "b"})}); err == nil {
		t.Error("a tensor without its data was taken")
	}
}

// TestUnclosed: sessions that nobody closes are closed when nobody has them any more, and
// not while they run.
func TestUnclosed(t *testing.T) {
	for i := range 30 {
		g := onnx.New("twice")
		g.Output("y", g.Op("Add", g.Input("x", onnx.Double, -1, 1), "x"), onnx.Double, -1, 1)
		s, err := ort.Open(g.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n < 4; n++ {
			out, err := s.Run([]ort.Tensor{ort.Column(slices.Repeat([]float64{float64(i)}, n))})
			if err != nil || !slices.Equal(out[0].Data.([]float64), slices.Repeat([]float64{float64(2 * i)}, n)) {
				t.Fatal(out, err)
			}
		}
		runtime.GC() // a pin that is lost ends the process
	}
}

// edited is a model whose graph f has changed.
func edited(t *testing.T, model []byte, f func(*onnxpb.GraphProto)) []byte {
	t.Helper()
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(model, &m); err != nil {
		t.Fatal(err)
	}
	f(m.Graph)
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNoOutputs(t *testing.T) {
	g := onnx.New("none")
	g.Output("y", g.Input("x", onnx.Double, -1, 1), onnx.Double, -1, 1)
	raw := edited(t, g.Marshal(), func(m *onnxpb.GraphProto) { m.Output = nil })
	if _, err := ort.Open(raw); err == nil || !strings.Contains(err.Error(), "no outputs") {
		t.Error(err)
	}
}

// TestInputError: a value that ONNX Runtime has no form of is told apart from a run that
// fails.
func TestInputError(t *testing.T) {
	g := onnx.New("long")
	g.Output("n", g.Op("SequenceLength", g.Input("x", onnx.Double, -1, 1)), onnx.Int64)
	raw := edited(t, g.Marshal(), func(m *onnxpb.GraphProto) {
		x := m.Input[0]
		x.Type = &onnxpb.TypeProto{Value: &onnxpb.TypeProto_SequenceType{SequenceType: &onnxpb.TypeProto_Sequence{ElemType: x.Type}}}
	})
	s, err := ort.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out, err := s.RunValues(t.Context(), []ort.Value{ort.Sequence{ort.Column([]float64{1}), ort.Column([]float64{2})}}); err != nil || out[0].(ort.Tensor).Data.([]int64)[0] != 2 {
		t.Errorf("%v, %v", out, err)
	}
	_, err = s.RunValues(t.Context(), []ort.Value{ort.Sequence{}})
	var wrong *ort.InputError
	if !errors.As(err, &wrong) || wrong.Input != "x" {
		t.Error(err)
	}
}

// Outputs whose shapes depend on values, and runs that fail, do not disturb those after.
func TestSlotsOfOutputs(t *testing.T) {
	g := onnx.New("some")
	x := g.Input("x", onnx.Double, -1, 1)
	g.Output("double", g.Op("Add", x, x), onnx.Double, -1, 1)
	g.Output("where", g.Op("NonZero", g.Cast(x, onnx.Float)), onnx.Int64, 2, -1)
	g.Output("one", g.Op("Gather", g.Const([]int64{7, 8, 9}, 3), g.Op("ReduceMax", g.Cast(x, onnx.Int64))), onnx.Int64, 1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.SampledFrom([]float64{0, 1, 2, 3}), 1, 3).Draw(t, "x") // 3: there is none to gather
		out, err := s.Run([]ort.Tensor{ort.Column(x)})
		if slices.Max(x) == 3 {
			if err == nil {
				t.Fatalf("%v of %v", out, x)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := []int64{}
		for i, v := range x {
			if out[0].Data.([]float64)[i] != 2*v {
				t.Fatalf("%v of %v", out[0], x)
			}
			if v != 0 {
				at = append(at, int64(i))
			}
		}
		at = append(at, make([]int64, len(at))...)
		if got := out[1].Data.([]int64); !slices.Equal(got, at) || out[1].Shape[1] != int64(len(at)/2) {
			t.Fatalf("%v of %v", out[1], x)
		}
		if got := out[2].Data.([]int64)[0]; got != 7+int64(slices.Max(x)) {
			t.Fatalf("%v of %v", out[2], x)
		}
		clear(out[0].Data.([]float64)) // it is the caller's
	})
}

// What is no tensor of rows comes out again and again as it is.
func TestSlotsOfScalars(t *testing.T) {
	g := onnx.New("sum")
	x := g.Input("x", onnx.Double, -1, 1)
	g.Output("scalar", g.OpA("ReduceSum", onnx.Attrs{"keepdims": 0}, x), onnx.Double)
	g.Output("rows", g.Op("Add", x, x), onnx.Double, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 5 {
		x := []float64{float64(i), 1}
		out, err := s.Run([]ort.Tensor{ort.Column(x)})
		if err != nil {
			t.Fatal(err)
		}
		if sum := out[0].Data.([]float64); len(sum) != 1 || sum[0] != x[0]+1 || len(out[0].Shape) != 0 {
			t.Errorf("the sum of %v is %v", x, out[0])
		}
		if rows := out[1].Data.([]float64); !slices.Equal(rows, []float64{2 * x[0], 2}) {
			t.Errorf("%v of %v", rows, x)
		}
	}
}

// Calls that run together get what each gets alone, whatever their sizes and types.
func TestRunTogether(t *testing.T) {
	s := doubling(t)
	rapid.Check(t, func(t *rapid.T) {
		var calls [][]ort.Value
		var want []float64
		var texts []string
		for range rapid.IntRange(1, 5).Draw(t, "calls") {
			x := rapid.SliceOfN(rapid.Float64Range(-9, 9), 1, 30).Draw(t, "x")
			b := make([]string, len(x))
			for i := range b {
				b[i] = rapid.StringMatching(`[a-zé]{0,5}`).Draw(t, "b")
				want = append(want, 2*x[i])
			}
			texts = append(texts, b...)
			calls = append(calls, []ort.Value{ort.Column(x), ort.Column(b)})
		}
		out, err := s.RunTogether(t.Context(), calls)
		if err != nil {
			t.Fatal(err)
		}
		if got := out[0].(ort.Tensor); !slices.Equal(got.Data.([]float64), want) || got.Shape[0] != int64(len(want)) {
			t.Fatalf("%v, not %v", got, want)
		}
		if got := out[1].(ort.Tensor); !slices.Equal(got.Data.([]string), texts) {
			t.Fatalf("%q, not %q", got.Data, texts)
		}
		calls = append(calls, []ort.Value{ort.Column([]float32{1}), ort.Column([]string{"a"})})
		if out, err := s.RunTogether(t.Context(), calls); err == nil {
			t.Fatalf("floats among doubles gave %v", out)
		}
	})
}

// Rows are cut into runs, in order and whole, of no more rows and bytes of padded texts
// than there may be, but for a text that alone is longer.
func TestPortions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 50, 3000, 300000, 2 << 20}), 0, 60).Draw(t, "lengths")
		n, most := len(lengths), rapid.IntRange(1, 40).Draw(t, "most")
		texts := make([]string, n)
		for i, k := range lengths {
			texts[i] = strings.Repeat("a", k)
		}
		from := 0
		for _, to := range ort.Portions([]ort.Value{ort.Column(make([]float64, n)), ort.Column(texts)}, n, most) {
			if rows := to - from; rows < 1 || rows > most || rows > 1 && rows*slices.Max(lengths[from:to]) > ort.TextRoom {
				t.Fatalf("rows [%d, %d) of %v", from, to, lengths)
			}
			from = to
		}
		if from != n {
			t.Fatalf("%d of %d rows", from, n)
		}
	})
	if ends := ort.Portions([]ort.Value{ort.Column(make([]float64, 5000))}, 5000, 1024); len(ends) != 5 {
		t.Errorf("numbers are cut at %v", ends)
	}
}

// A text that would be cut off is refused.
func TestNUL(t *testing.T) {
	g := onnx.New("text")
	g.Output("y", g.Op("Identity", g.Input("x", onnx.String, -1, 1)), onnx.String, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, texts := range [][]string{{"a\x00b"}, {"a", "\x00"}} {
		if _, err := s.Run([]ort.Tensor{ort.Column(texts)}); !errors.Is(err, ort.ErrNUL) {
			t.Errorf("%q: %v", texts, err)
		}
	}
}
