package infer

import (
	"testing"

	"mlc.dev/mlc/compiler/onnx"
)

func TestSteady(t *testing.T) {
	model := func(build func(g *onnx.Graph, x onnx.Value) onnx.Value) []byte {
		g := onnx.New("m")
		x := g.Input("x", onnx.Float, -1, 1)
		g.Output("y", build(g, x), onnx.Float, -1, 1)
		return g.Marshal()
	}
	rows := func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Op("Shape", x) }
	whole := func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Cast(g.Op("Abs", x), onnx.Int64) }
	for name, c := range map[string]struct {
		build func(g *onnx.Graph, x onnx.Value) onnx.Value
		want  bool
	}{
		"sums":                {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Op("Add", x, g.Op("Tanh", x)) }, true},
		"as many as rows":     {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Op("Expand", g.Scalar(float32(1)), rows(g, x)) }, true},
		"as many as one says": {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Op("Expand", g.Scalar(float32(1)), whole(g, x)) }, false},
		"a constant range": {func(g *onnx.Graph, x onnx.Value) onnx.Value {
			return g.Op("Range", g.Scalar(float32(0)), g.Scalar(float32(9)), g.Scalar(float32(1)))
		}, true},
		"a range": {func(g *onnx.Graph, x onnx.Value) onnx.Value {
			return g.Op("Range", g.Scalar(float32(0)), g.Op("Sin", x), g.Scalar(float32(1)))
		}, false},
		"where it is not zero": {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Op("NonZero", x) }, false},
	} {
		if got := steady(model(c.build)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if steady([]byte("no model")) {
		t.Error("what is no model is steady")
	}
}
