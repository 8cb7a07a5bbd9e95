package infer

import (
	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// byValues are the operators that take as long as values say: by the values of the
// inputs at the places given, such as the shape that Expand is to make, or, of none,
// by whatever they get.
var byValues = map[string][]int{
	"If": nil, "Loop": nil, "Scan": nil, "NonZero": nil, "Unique": nil, "Compress": nil, "NonMaxSuppression": nil,
	"Range": {0, 1, 2}, "Expand": {1}, "ConstantOfShape": {0}, "Tile": {1}, "Resize": {1, 2, 3}, "Upsample": {1}, "OneHot": {1}, "Pad": {1},
}

// steady reports whether rows of a model take about as long as each other, whatever is
// in them, but for the length of texts: no operator's work goes by values that callers
// send. Shapes they are told of are no values: batches have rows.
func steady(model []byte) bool {
	m := &onnxpb.ModelProto{}
	if proto.Unmarshal(model, m) != nil || m.Graph == nil || len(m.Functions) > 0 {
		return false
	}
	sent := map[string]bool{} // values that come from callers
	for _, in := range m.Graph.Input {
		sent[in.GetName()] = true
	}
	for _, t := range m.Graph.Initializer {
		delete(sent, t.GetName())
	}
	for _, n := range m.Graph.Node { // in an order in which each comes after what it reads
		places, known := byValues[n.GetOpType()]
		if known && places == nil {
			return false
		}
		for _, i := range places {
			if i < len(n.Input) && sent[n.Input[i]] {
				return false
			}
		}
		if n.GetOpType() == "Shape" || n.GetOpType() == "Size" {
			continue
		}
		for _, in := range n.Input {
			if !sent[in] {
				continue
			}
			for _, out := range n.Output {
				sent[out] = true
			}
			break
		}
	}
	return true
}
