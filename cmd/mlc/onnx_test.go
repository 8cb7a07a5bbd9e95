package main

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// foreignModel writes a model as others make them, of the columns x and z: the
// probability that x is above 2.5. foreignModel FILE FORM.
func foreignModel(ts *testscript.TestScript, neg bool, args []string) {
	cols, weights := int64(2), []float32{3, 0}
	switch args[1] {
	case "swapped":
		weights = []float32{0, 3}
	case "wide":
		cols, weights = 3, []float32{3, 0, 0}
	}
	g := onnx.New("elsewhere")
	score := g.Op("Sub", g.Op("MatMul", g.Input("input", onnx.Float, -1, cols), g.Const(weights, cols, 1)), g.Scalar(float32(7.5)))
	p := g.Op("Sigmoid", score)
	switch args[1] {
	case "scores":
		g.Output("output", score, onnx.Float, -1, 1)
	case "nan":
		g.Output("output", g.Op("Log", g.Op("Sub", p, g.Scalar(float32(2)))), onnx.Float, -1, 1)
	case "labels":
		g.Output("output", g.Cast(g.Op("Greater", score, g.Scalar(float32(0))), onnx.Int64), onnx.Int64, -1, 1)
	case "classes":
		g.Output("label", g.Cast(g.Op("Greater", score, g.Scalar(float32(0))), onnx.Int64), onnx.Int64, -1, 1)
		g.Output("probabilities", g.Concat(g.Op("Sub", g.Scalar(float32(1)), p), p), onnx.Float, -1, 2)
	default:
		g.Output("output", p, onnx.Float, -1, 1)
	}
	raw := g.Marshal()
	if args[1] == "old" {
		var m onnxpb.ModelProto
		ts.Check(proto.Unmarshal(raw, &m))
		m.OpsetImport[0].Version = 9
		var err error
		raw, err = proto.Marshal(&m)
		ts.Check(err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o644))
}
