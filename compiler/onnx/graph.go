// Package onnx builds ONNX models: pure protobuf, deterministic bytes, equal
// sub-expressions shared. It runs nothing; runtime/ort does.
package onnx

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// DType is the element type of a tensor.
type DType int32

// The element types that mlc uses.
const (
	Float  = DType(onnxpb.TensorProto_FLOAT)
	Double = DType(onnxpb.TensorProto_DOUBLE)
	Int64  = DType(onnxpb.TensorProto_INT64)
	Bool   = DType(onnxpb.TensorProto_BOOL)
	String = DType(onnxpb.TensorProto_STRING)
)

// Versions of the standards that Marshal declares.
const (
	IRVersion = 10
	Opset     = 21
	MLOpset   = 3
	MLDomain  = "ai.onnx.ml"
	// MSDomain is of ONNX Runtime's own operators.
	MSDomain   = "com.microsoft"
	MSOpset    = 1
	producedBy = "mlc"
)

// Value names a tensor in a Graph.
type Value string

// Attrs are the attributes of a node. Values are int, int64, float32, string,
// []int64, []float32, []string, or *onnxpb.TensorProto.
type Attrs map[string]any

// Graph is a model under construction. Nodes are added in an order that is
// already topological; an equal node (same operator, inputs and attributes) is
// returned, not added again.
type Graph struct {
	graph *onnxpb.GraphProto
	seen  map[string][]Value
	next  int
	meta  map[string]string
	// varies are the values that depend on an input.
	varies map[Value]bool
}

// New returns an empty graph.
func New(name string) *Graph {
	return &Graph{graph: &onnxpb.GraphProto{Name: name}, seen: map[string][]Value{}, meta: map[string]string{}, varies: map[Value]bool{}}
}

// Meta sets an entry of the model's metadata.
func (g *Graph) Meta(key, value string) { g.meta[key] = value }

func valueInfo(name string, t DType, dims []int64) *onnxpb.ValueInfoProto {
	shape := &onnxpb.TensorShapeProto{}
	for _, d := range dims {
		dim := &onnxpb.TensorShapeProto_Dimension{}
		if d < 0 {
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: "N"}
		} else {
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: d}
		}
		shape.Dim = append(shape.Dim, dim)
	}
	return &onnxpb.ValueInfoProto{Name: name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{
		TensorType: &onnxpb.TypeProto_Tensor{ElemType: int32(t), Shape: shape}}}}
}

// Input declares a model input. A negative dimension is the batch, named N.
func (g *Graph) Input(name string, t DType, dims ...int64) Value {
	g.graph.Input = append(g.graph.Input, valueInfo(name, t, dims))
	g.varies[Value(name)] = true
	return Value(name)
}

// Varies reports whether a value depends on an input of the model: one that does not is
// the same whatever comes in, and knows nothing of how many rows there are.
func (g *Graph) Varies(v Value) bool { return g.varies[v] }

// Output declares that v leaves the model as name.
func (g *Graph) Output(name string, v Value, t DType, dims ...int64) {
	g.graph.Node = append(g.graph.Node, &onnxpb.NodeProto{OpType: "Identity", Name: "out:" + name, Input: []string{string(v)}, Output: []string{name}})
	g.graph.Output = append(g.graph.Output, valueInfo(name, t, dims))
}

// Op adds a node of the default domain with one output.
func (g *Graph) Op(op string, in ...Value) Value { return g.Node("", op, nil, 1, in...)[0] }

// OpA is Op with attributes.
func (g *Graph) OpA(op string, attrs Attrs, in ...Value) Value {
	return g.Node("", op, attrs, 1, in...)[0]
}

// ML adds a node of the ai.onnx.ml domain with one output.
func (g *Graph) ML(op string, attrs Attrs, in ...Value) Value {
	return g.Node(MLDomain, op, attrs, 1, in...)[0]
}

// Node adds a node with n outputs and returns them.
func (g *Graph) Node(domain, op string, attrs Attrs, n int, in ...Value) []Value {
	node := &onnxpb.NodeProto{Domain: domain, OpType: op}
	for _, v := range in {
		node.Input = append(node.Input, string(v))
	}
	names := make([]string, 0, len(attrs))
	for k := range attrs {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		node.Attribute = append(node.Attribute, attribute(k, attrs[k]))
	}
	return g.add(node, n)
}

func (g *Graph) add(node *onnxpb.NodeProto, n int) []Value {
	key := digest(node)
	if vs, ok := g.seen[key]; ok {
		return vs
	}
	varies := slices.ContainsFunc(node.Input, func(v string) bool { return g.varies[Value(v)] })
	vs := make([]Value, n)
	for i := range vs {
		vs[i] = g.fresh()
		node.Output = append(node.Output, string(vs[i]))
		if varies {
			g.varies[vs[i]] = true
		}
	}
	g.graph.Node = append(g.graph.Node, node)
	g.seen[key] = vs
	return vs
}

func (g *Graph) fresh() Value {
	g.next++
	return Value(fmt.Sprintf("v%d", g.next))
}

func digest(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // our own messages always marshal
	}
	h := sha256.Sum256(b)
	return string(h[:])
}

func attribute(name string, v any) *onnxpb.AttributeProto {
	a := &onnxpb.AttributeProto{Name: name}
	switch v := v.(type) {
	case DType:
		a.Type, a.I = onnxpb.AttributeProto_INT, int64(v)
	case int:
		a.Type, a.I = onnxpb.AttributeProto_INT, int64(v)
	case int64:
		a.Type, a.I = onnxpb.AttributeProto_INT, v
	case float32:
		a.Type, a.F = onnxpb.AttributeProto_FLOAT, v
	case string:
		a.Type, a.S = onnxpb.AttributeProto_STRING, []byte(v)
	case []int64:
		a.Type, a.Ints = onnxpb.AttributeProto_INTS, v
	case []float32:
		a.Type, a.Floats = onnxpb.AttributeProto_FLOATS, v
	case []string:
		a.Type = onnxpb.AttributeProto_STRINGS
		for _, s := range v {
			a.Strings = append(a.Strings, []byte(s))
		}
	case *onnxpb.TensorProto:
		a.Type, a.T = onnxpb.AttributeProto_TENSOR, v
	default:
		panic(fmt.Sprintf("onnx: attribute %s of type %T", name, v))
	}
	return a
}

// Tensor makes a constant of any of []float64, []float32, []int64, []bool and
// []string with the given dimensions (none: a scalar).
func Tensor(data any, dims ...int64) *onnxpb.TensorProto {
	t := &onnxpb.TensorProto{Dims: dims}
	switch d := data.(type) {
	case []float64:
		t.DataType = int32(Double)
		for _, x := range d {
			t.RawData = binary.LittleEndian.AppendUint64(t.RawData, math.Float64bits(x))
		}
	case []float32:
		t.DataType = int32(Float)
		for _, x := range d {
			t.RawData = binary.LittleEndian.AppendUint32(t.RawData, math.Float32bits(x))
		}
	case []int64:
		t.DataType = int32(Int64)
		for _, x := range d {
			t.RawData = binary.LittleEndian.AppendUint64(t.RawData, uint64(x))
		}
	case []bool:
		t.DataType = int32(Bool)
		for _, x := range d {
			b := byte(0)
			if x {
				b = 1
			}
			t.RawData = append(t.RawData, b)
		}
	case []string:
		t.DataType = int32(String)
		for _, x := range d {
			t.StringData = append(t.StringData, []byte(x))
		}
	default:
		panic(fmt.Sprintf("onnx: tensor of %T", data))
	}
	return t
}

// Const adds a constant tensor; see Tensor.
func (g *Graph) Const(data any, dims ...int64) Value {
	t := Tensor(data, dims...)
	key := digest(t)
	if vs, ok := g.seen[key]; ok {
		return vs[0]
	}
	v := g.fresh()
	t.Name = string(v)
	g.graph.Initializer = append(g.graph.Initializer, t)
	g.seen[key] = []Value{v}
	return v
}

// Scalar adds a scalar constant of a Go value: float64, float32, int64, bool, string.
func (g *Graph) Scalar(x any) Value {
	switch x := x.(type) {
	case float64:
		return g.Const([]float64{x})
	case float32:
		return g.Const([]float32{x})
	case int64:
		return g.Const([]int64{x})
	case bool:
		return g.Const([]bool{x})
	case string:
		return g.Const([]string{x})
	}
	panic(fmt.Sprintf("onnx: scalar of %T", x))
}

// Cast converts v to t.
func (g *Graph) Cast(v Value, t DType) Value { return g.OpA("Cast", Attrs{"to": t}, v) }

// Concat joins along the second axis; one value is returned as it is.
func (g *Graph) Concat(vs ...Value) Value {
	if len(vs) == 1 {
		return vs[0]
	}
	return g.OpA("Concat", Attrs{"axis": 1}, vs...)
}

// Merge inlines model, feeding its inputs from in by name, and returns its
// outputs by name. Its internal names are replaced, so that nothing collides.
// It fails when an input is not fed, or when a node would mean another thing
// under our opsets, or has a graph of its own.
func (g *Graph) Merge(model []byte, in map[string]Value) (map[string]Value, error) {
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(model, &m); err != nil {
		return nil, fmt.Errorf("not an ONNX model: %w", err)
	}
	if err := mergeable(&m); err != nil {
		return nil, err
	}
	names := map[string]Value{"": ""}
	constant := map[string]bool{} // old models list these among their inputs
	for _, t := range m.Graph.Initializer {
		constant[t.Name] = true
	}
	for _, i := range m.Graph.Input {
		if constant[i.Name] {
			continue
		}
		v, ok := in[i.Name]
		if !ok {
			return nil, fmt.Errorf("input %q of the model is not fed", i.Name)
		}
		names[i.Name] = v
	}
	for _, t := range m.Graph.Initializer {
		old := t.Name
		t.Name = ""
		key := digest(t)
		if vs, ok := g.seen[key]; ok {
			names[old] = vs[0]
			continue
		}
		v := g.fresh()
		t.Name = string(v)
		g.graph.Initializer = append(g.graph.Initializer, t)
		g.seen[key] = []Value{v}
		names[old] = v
	}
	for _, n := range m.Graph.Node {
		for i, s := range n.Input {
			v, ok := names[s]
			if !ok {
				return nil, fmt.Errorf("the model uses %q before it is made", s)
			}
			n.Input[i] = string(v)
		}
		outs := n.Output
		if n.OpType == "Identity" && n.Domain == "" && len(n.Input) == 1 && len(outs) == 1 {
			names[outs[0]] = Value(n.Input[0])
			continue
		}
		n.Output, n.Name = nil, ""
		for i, v := range g.add(n, len(outs)) {
			names[outs[i]] = v
		}
	}
	out := map[string]Value{}
	for _, o := range m.Graph.Output {
		out[o.Name] = names[o.Name]
	}
	return out, nil
}

// changed lists the operators that mean another thing for the same node, or are new,
// since a version after oldest and up to newest (ONNX, docs/Changelog.md). Other
// changes there only add types or options: a node without them means what it meant.
var changed = map[string]map[string][]int64{
	"": {"ReduceMean": {18}, "ReduceMax": {18}, "ReduceMin": {18}, "ReduceProd": {18}, "ReduceL1": {18}, "ReduceL2": {18}, "ReduceLogSum": {18}, "ReduceLogSumExp": {18},
		"ReduceSumSquare": {18}, "Resize": {18}, "GridSample": {20}, "DFT": {20}, "GroupNormalization": {21},
		"AveragePool": {22}, "MaxPool": {22}, "QuantizeLinear": {23}, "DequantizeLinear": {23}, "Attention": {23}, "RMSNormalization": {23}, "RotaryEmbedding": {23},
		"Swish": {24}, "TensorScatter": {24}, "BitCast": {26}, "CumProd": {26}},
	MLDomain: {"LabelEncoder": {2, 4}, "TreeEnsemble": {5}},
}

// oldest and newest are the opsets of a domain that Merge takes: the newest are those
// that ONNX Runtime runs.
var (
	oldest = map[string]int64{"": 15, MLDomain: 1, MSDomain: 1}
	newest = map[string]int64{"": 26, MLDomain: 5, MSDomain: MSOpset}
)

// domain is the name of a domain; that of ONNX's own has two.
func domain(name string) string {
	if name == "ai.onnx" {
		return ""
	}
	return name
}

// mergeable says why a model cannot be inlined into one of our opsets.
func mergeable(m *onnxpb.ModelProto) error {
	if m.Graph == nil {
		return errors.New("not an ONNX model: it has no graph")
	}
	opset := map[string]int64{}
	for _, o := range m.OpsetImport {
		d := domain(o.Domain)
		last, ok := newest[d]
		if opset[d] = o.Version; ok && (o.Version > last || o.Version < oldest[d]) {
			return fmt.Errorf("the model uses opset %d of domain %q; from %d to %d will do", o.Version, o.Domain, oldest[d], last)
		}
	}
	if len(m.Functions) > 0 {
		return errors.New("the model has functions of its own, which are not inlined here")
	}
	for _, n := range m.Graph.Node {
		d := domain(n.Domain)
		if d != "" && d != MLDomain && (d != MSDomain || n.OpType != "Tokenizer" && n.OpType != "MurmurHash3") {
			return fmt.Errorf("operator %s is of domain %q; only those of ONNX itself and of ai.onnx.ml are taken", n.OpType, n.Domain)
		}
		ours := map[string]int64{"": Opset, MLDomain: MLOpset}[d]
		for _, since := range changed[d][n.OpType] {
			if (since > ours) != (since > opset[d]) {
				return fmt.Errorf("operator %s of opset %d does not mean what it does in opset %d, for which the model has to be exported", n.OpType, opset[d], ours)
			}
		}
		for _, a := range n.Attribute {
			if a.G != nil || len(a.Graphs) > 0 {
				return fmt.Errorf("operator %s holds a graph of its own, which is not inlined here", n.OpType)
			}
		}
	}
	return nil
}

// Marshal returns the model's bytes. The same calls in the same order give the
// same bytes. Nodes and constants that no output needs are left out.
func (g *Graph) Marshal() []byte {
	live := map[string]bool{}
	for _, o := range g.graph.Output {
		live[o.Name] = true
	}
	var nodes []*onnxpb.NodeProto
	ml, ms := false, false
	for i := len(g.graph.Node) - 1; i >= 0; i-- {
		n := g.graph.Node[i]
		used := false
		for _, o := range n.Output {
			used = used || live[o]
		}
		if !used {
			continue
		}
		for _, s := range n.Input {
			live[s] = true
		}
		nodes = append(nodes, n)
		ml = ml || n.Domain == MLDomain
		ms = ms || n.Domain == MSDomain
	}
	for i, j := 0, len(nodes)-1; i < j; i, j = i+1, j-1 {
		nodes[i], nodes[j] = nodes[j], nodes[i]
	}
	out := &onnxpb.GraphProto{Name: g.graph.Name, Input: g.graph.Input, Output: g.graph.Output, Node: nodes}
	for _, t := range g.graph.Initializer {
		if live[t.Name] {
			out.Initializer = append(out.Initializer, t)
		}
	}
	m := &onnxpb.ModelProto{IrVersion: IRVersion, ProducerName: producedBy, Graph: out,
		OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: Opset}}}
	if ml {
		m.OpsetImport = append(m.OpsetImport, &onnxpb.OperatorSetIdProto{Domain: MLDomain, Version: MLOpset})
	}
	if ms {
		m.OpsetImport = append(m.OpsetImport, &onnxpb.OperatorSetIdProto{Domain: MSDomain, Version: MSOpset})
	}
	keys := make([]string, 0, len(g.meta))
	for k := range g.meta {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		m.MetadataProps = append(m.MetadataProps, &onnxpb.StringStringEntryProto{Key: k, Value: g.meta[k]})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // built from valid UTF-8 by the callers' contract
	}
	return b
}

// Text prints the nodes, a line each, for tests and for people.
func (g *Graph) Text() string {
	var b strings.Builder
	for _, n := range g.graph.Node {
		fmt.Fprintf(&b, "%s = %s(%s)\n", strings.Join(n.Output, ", "), n.OpType, strings.Join(n.Input, ", "))
	}
	return b.String()
}
