package ort_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/onnx"
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

// TestSlots runs single rows of several types at once, and others between them.
func TestSlots(t *testing.T) {
	g := onnx.New("rows")
	a, b := g.Input("a", onnx.Double, -1, 1), g.Input("b", onnx.String, -1, 1)
	g.Output("double", g.Op("Add", a, a), onnx.Double, -1, 1)
	g.Output("text", g.Op("Identity", b), onnx.String, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
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
