package onnx

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// Since opset 21 the operators of widened got more types, or options that a node need
// not have; those of other mean another thing, or are new. By onnx 1.23.2's
// onnx.defs.get_schema, which compares inputs, outputs, attributes with their defaults,
// types and texts of version 21 and of each version from 22 to 26.
var (
	widened = strings.Fields(`Acos Acosh Asin Asinh Atan Atanh Bernoulli Cast CastLike Constant ConstantOfShape Conv ConvTranspose Cos Cosh DeformConv Det Dropout Elu
		EyeLike Flatten GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish Identity InstanceNormalization LSTM LpNormalization LpPool MaxRoiPool
		MaxUnpool Mish Multinomial NegativeLogLikelihoodLoss Pad RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reshape RoiAlign Round Selu Shape Sin Sinh
		Size Softplus Softsign SplitToSequence Squeeze Tan ThresholdedRelu TopK Transpose Unsqueeze`)
	other = map[string]int64{"AveragePool": 22, "MaxPool": 22, "QuantizeLinear": 23, "DequantizeLinear": 23, "Attention": 23, "RMSNormalization": 23, "RotaryEmbedding": 23,
		"Swish": 24, "TensorScatter": 24, "BitCast": 26, "CumProd": 26}
)

// foreign is a model of one node under an opset.
func foreign(domain, op string, opset int64) []byte {
	b, err := proto.Marshal(&onnxpb.ModelProto{IrVersion: 10, OpsetImport: []*onnxpb.OperatorSetIdProto{{Domain: domain, Version: opset}},
		Graph: &onnxpb.GraphProto{Input: []*onnxpb.ValueInfoProto{{Name: "x"}}, Node: []*onnxpb.NodeProto{{Domain: domain, OpType: op, Input: []string{"x"}, Output: []string{"y"}}},
			Output: []*onnxpb.ValueInfoProto{{Name: "y"}}}})
	if err != nil {
		panic(err)
	}
	return b
}

// A model of another opset is merged where its operators mean the same in ours.
func TestMergeOtherOpsets(t *testing.T) {
	merge := func(domain, op string, opset int64) string {
		g := New("g")
		if _, err := g.Merge(foreign(domain, op, opset), map[string]Value{"x": g.Input("x", Float, -1, 1)}); err != nil {
			return err.Error()
		}
		return ""
	}
	for _, op := range append(widened, "Relu", "Gemm") {
		for opset := int64(15); opset <= 26; opset++ {
			if opset < 20 && op == "GridSample" {
				continue // it changed at 20
			}
			if err := merge("", op, opset); err != "" {
				t.Errorf("%s of opset %d: %s", op, opset, err)
			}
		}
	}
	for op, since := range other {
		for _, domain := range []string{"", "ai.onnx"} {
			if err := merge(domain, op, since); !strings.Contains(err, "operator "+op+" of opset") {
				t.Errorf("%s of opset %d is merged: %s", op, since, err)
			}
		}
		if err := merge("", op, since-1); err != "" && since > 22 {
			t.Errorf("%s of opset %d: %s", op, since-1, err)
		}
	}
	for _, c := range []struct {
		domain, op string
		opset      int64
		want       string
	}{
		{"", "Relu", 14, "uses opset 14"}, {"", "Relu", 27, "uses opset 27"}, {"", "ReduceMax", 17, "operator ReduceMax of opset 17"}, {"", "ReduceMax", 26, ""}, {"ai.onnx", "ReduceMax", 17, "operator ReduceMax"},
		{MLDomain, "Scaler", 5, ""}, {MLDomain, "Scaler", 6, "uses opset 6"}, {MLDomain, "TreeEnsembleRegressor", 1, ""}, {MLDomain, "TreeEnsemble", 5, "operator TreeEnsemble"},
		{MLDomain, "LabelEncoder", 1, "operator LabelEncoder"}, {MLDomain, "LabelEncoder", 3, ""}, {MLDomain, "LabelEncoder", 4, "operator LabelEncoder"},
	} {
		if err := merge(c.domain, c.op, c.opset); !strings.Contains(err, c.want) || (err == "") != (c.want == "") {
			t.Errorf("%s of opset %d: %q, not %q", c.op, c.opset, err, c.want)
		}
	}
}
