package foreign

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

var (
	binary     = kind.Task{Kind: kind.Binary}
	multiclass = kind.Task{Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}
	regression = kind.Task{Kind: kind.Regression}
	origin     = Origin{Kind: "test", Name: "the model", Field: "path", Code: diag.BadModel, Def: "#Def"}
)

// model is one that calculates from x, of a type and a width, what body says.
func model(t onnx.DType, cols int64, body func(g *onnx.Graph, x onnx.Value)) []byte {
	g := onnx.New("elsewhere")
	body(g, g.Input("x", t, -1, cols))
	return g.Marshal()
}

// edit changes a model's protobuf.
func edit(raw []byte, f func(*onnxpb.ModelProto)) []byte {
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(raw, &m); err != nil {
		panic(err)
	}
	f(&m)
	out, err := proto.Marshal(&m)
	if err != nil {
		panic(err)
	}
	return out
}

// softmax is a model of probabilities: softmax of the columns themselves.
func softmax(cols int64) []byte {
	return model(onnx.Float, cols, func(g *onnx.Graph, x onnx.Value) {
		g.Output("label", g.OpA("ArgMax", onnx.Attrs{"axis": 1, "keepdims": 0}, x), onnx.Int64, -1)
		g.Output("probabilities", g.OpA("Softmax", onnx.Attrs{"axis": 1}, x), onnx.Float, -1, cols)
	})
}

// zipped is softmax as scikit-learn's converter writes it: the probabilities are a
// sequence of maps.
func zipped(attrs onnx.Attrs, cols int64) []byte {
	raw := model(onnx.Float, cols, func(g *onnx.Graph, x onnx.Value) {
		p := g.OpA("Softmax", onnx.Attrs{"axis": 1}, x)
		g.Output("label", g.OpA("ArgMax", onnx.Attrs{"axis": 1, "keepdims": 0}, x), onnx.Int64, -1)
		g.Output("probabilities", g.ML("ZipMap", attrs, p), onnx.Float, -1)
	})
	return edit(raw, func(m *onnxpb.ModelProto) {
		// ZipMap itself gives the output, as converters have it.
		last := m.Graph.Node[len(m.Graph.Node)-1]
		for _, n := range m.Graph.Node {
			if n.OpType == "ZipMap" {
				n.Output[0] = "probabilities"
			}
		}
		if last.Name != "out:probabilities" {
			panic("the last node is not the output's")
		}
		m.Graph.Node = m.Graph.Node[:len(m.Graph.Node)-1]
		key := int32(onnxpb.TensorProto_INT64)
		if attrs["classlabels_strings"] != nil {
			key = int32(onnxpb.TensorProto_STRING)
		}
		value := &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: int32(onnxpb.TensorProto_FLOAT), Shape: &onnxpb.TensorShapeProto{}}}}
		m.Graph.Output[1].Type = &onnxpb.TypeProto{Value: &onnxpb.TypeProto_SequenceType{SequenceType: &onnxpb.TypeProto_Sequence{
			ElemType: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_MapType{MapType: &onnxpb.TypeProto_Map{KeyType: key, ValueType: value}}}}}}
	})
}

// classifier is one of scikit-learn's without ZipMap: certain of the third of its classes
// where the third column is the greatest.
func classifier(labels []string) []byte {
	return model(onnx.Float, 3, func(g *onnx.Graph, x onnx.Value) {
		p := g.Node(onnx.MLDomain, "LinearClassifier", onnx.Attrs{"classlabels_strings": labels, "coefficients": []float32{90, 0, 0, 0, 90, 0, 0, 0, 90}, "intercepts": []float32{0, 0, 0}, "multi_class": 1, "post_transform": "SOFTMAX"}, 2, x)
		g.Output("label", p[0], onnx.String, -1)
		g.Output("probabilities", p[1], onnx.Float, -1, 3)
	})
}

func predict(t testing.TB, raw []byte, task kind.Task, x kind.Matrix, order []int64) []float32 {
	t.Helper()
	m, err := origin.Adapt(raw, task, x.Cols, order)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(m, task.Width())
	if err != nil {
		t.Fatal(err)
	}
	defer p.session.Close()
	return p.Predict(x)
}

func near(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Abs(float64(x-y)) < 1e-6 })
}

func probabilities(row ...float64) []float32 {
	sum := 0.0
	for _, v := range row {
		sum += math.Exp(v)
	}
	out := make([]float32, len(row))
	for i, v := range row {
		out[i] = float32(math.Exp(v) / sum)
	}
	return out
}

// TestAdapt: whatever form a right model has, its predictions come out as the task's.
func TestAdapt(t *testing.T) {
	two, three := kind.Matrix{Rows: 2, Cols: 2, Data: []float32{1, 3, -2, 0.5}}, kind.Matrix{Rows: 1, Cols: 3, Data: []float32{1, 2, 4}}
	p := probabilities(1, 2, 4)
	column := func(t onnx.DType, name string, flat bool) []byte {
		return model(t, 2, func(g *onnx.Graph, x onnx.Value) {
			y := g.OpA("ReduceSum", onnx.Attrs{"keepdims": 1}, x, g.Const([]int64{1}, 1))
			if flat {
				g.Output(name, g.Op("Reshape", y, g.Const([]int64{-1}, 1)), t, -1)
				return
			}
			g.Output(name, y, t, -1, 1)
		})
	}
	ordered := model(onnx.Float, 2, func(g *onnx.Graph, x onnx.Value) {
		g.Output("y", g.Op("MatMul", x, g.Const([]float32{10, 1}, 2, 1)), onnx.Float, -1, 1)
	})
	both := model(onnx.Float, 2, func(g *onnx.Graph, x onnx.Value) {
		g.Output("Y", g.Op("MatMul", x, g.Const([]float32{1, 1}, 2, 1)), onnx.Float, -1, 1)
		g.Output("other", g.Op("MatMul", x, g.Const([]float32{5, 5}, 2, 1)), onnx.Float, -1, 1)
	})
	for _, c := range []struct {
		name  string
		raw   []byte
		task  kind.Task
		x     kind.Matrix
		order []int64
		want  []float32
	}{
		{"float", column(onnx.Float, "y", false), regression, two, nil, []float32{4, -1.5}},
		{"double", column(onnx.Double, "y", false), regression, two, nil, []float32{4, -1.5}},
		{"flat", column(onnx.Float, "y", true), regression, two, nil, []float32{4, -1.5}},
		{"the output Y before another", both, regression, two, nil, []float32{4, -1.5}},
		{"the columns' own order", ordered, regression, two, nil, []float32{13, -19.5}},
		{"another order of columns", ordered, regression, two, []int64{1, 0}, []float32{31, 3}},
		{"binary of two classes", softmax(2), binary, two, nil, []float32{probabilities(1, 3)[1], probabilities(-2, 0.5)[1]}},
		{"binary with ZipMap", zipped(onnx.Attrs{"classlabels_int64s": []int64{0, 1}}, 2), binary, two, nil, []float32{probabilities(1, 3)[1], probabilities(-2, 0.5)[1]}},
		{"classes", softmax(3), multiclass, three, nil, p},
		{"classes of a newer opset", edit(softmax(3), func(m *onnxpb.ModelProto) { m.OpsetImport[0].Version = 26 }), multiclass, three, nil, p},
		{"flat of a newer opset", edit(column(onnx.Float, "y", true), func(m *onnxpb.ModelProto) { m.OpsetImport[0].Version = 26 }), regression, two, nil, []float32{4, -1.5}},
		{"classes by name", zipped(onnx.Attrs{"classlabels_strings": []string{"c", "a", "b"}}, 3), multiclass, three, nil, []float32{p[1], p[2], p[0]}},
		{"classes by index", zipped(onnx.Attrs{"classlabels_int64s": []int64{0, 1, 2}}, 3), multiclass, three, nil, p},
		{"classes by index, some of which are names", zipped(onnx.Attrs{"classlabels_int64s": []int64{0, 1, 2}}, 3), kind.Task{Kind: kind.Multiclass, Classes: []string{"1", "2", "3"}}, three, nil, p},
		{"classes that the classifier names", classifier([]string{"c", "a", "b"}), multiclass, three, nil, []float32{0, 1, 0}},
		{"classes that the classifier calls otherwise", classifier([]string{"0", "1", "2"}), multiclass, three, nil, []float32{0, 0, 1}},
		{"true before false", zipped(onnx.Attrs{"classlabels_strings": []string{"True", "False"}}, 2), binary, two, nil, []float32{probabilities(1, 3)[0], probabilities(-2, 0.5)[0]}},
		{"classes that are numbers", zipped(onnx.Attrs{"classlabels_int64s": []int64{2, 10, 33}}, 3), kind.Task{Kind: kind.Multiclass, Classes: []string{"10", "2", "33"}}, three, nil, []float32{p[1], p[0], p[2]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := predict(t, c.raw, c.task, c.x, c.order); !near(got, c.want) {
				t.Errorf("%v, not %v", got, c.want)
			}
			again, err := origin.Adapt(c.raw, c.task, c.x.Cols, c.order)
			first, _ := origin.Adapt(c.raw, c.task, c.x.Cols, c.order)
			if err != nil || !bytes.Equal(again, first) {
				t.Errorf("the same model gives other bytes: %v", err)
			}
		})
	}
}

// TestWrongModels: each is refused, and told by what is wrong with it.
func TestWrongModels(t *testing.T) {
	good := softmax(3)
	opset := func(v int64) []byte {
		return edit(good, func(m *onnxpb.ModelProto) { m.OpsetImport[0].Version = v })
	}
	for _, c := range []struct {
		name string
		raw  []byte
		task kind.Task
		want string
	}{
		{"text", []byte("no model"), multiclass, "is no model: it does not have the form"},
		{"nothing", nil, multiclass, "is no model: it does not have the form"},
		{"cut short", good[:len(good)-9], multiclass, "is no model"},
		{"an unknown operator", edit(good, func(m *onnxpb.ModelProto) { m.Graph.Node[0].OpType = "Nonesuch" }), multiclass, "is no model: "},
		{"another width", softmax(4), multiclass, "takes x float[-1 4], not one float [N, 3]"},
		{"strings", model(onnx.String, 3, func(g *onnx.Graph, x onnx.Value) { g.Output("y", x, onnx.String, -1, 3) }), multiclass, "takes x string[-1 3]"},
		{"two inputs", model(onnx.Float, 3, func(g *onnx.Graph, x onnx.Value) {
			g.Output("y", g.Op("Add", x, g.Input("z", onnx.Float, -1, 3)), onnx.Float, -1, 3)
		}), multiclass, "takes x float[-1 3], z float[-1 3]"},
		{"other outputs", good, regression, "gives label int64[-1], probabilities float[-1 3], and none of it is float [N, 1]"},
		{"labels only", model(onnx.Float, 3, func(g *onnx.Graph, x onnx.Value) {
			g.Output("label", g.OpA("ArgMax", onnx.Attrs{"axis": 1, "keepdims": 0}, x), onnx.Int64, -1)
		}), binary, "gives label int64[-1]"},
		{"an old opset", opset(9), multiclass, "cannot be joined with the features' transform: the model uses opset 9"},
		{"a new operator", edit(opset(24), func(m *onnxpb.ModelProto) {
			m.Graph.Node = append(m.Graph.Node, &onnxpb.NodeProto{OpType: "Swish", Input: []string{"x"}, Output: []string{"unused"}})
		}), multiclass, "cannot be joined with the features' transform: operator Swish of opset 24"},
		{"an opset to come", opset(999), multiclass, "cannot be joined with the features' transform: the model uses opset 999"},
		{"other classes", zipped(onnx.Attrs{"classlabels_strings": []string{"a", "b", "d"}}, 3), multiclass, `gives no probability of class "c"`},
		{"weights elsewhere", edit(model(onnx.Float, 3, func(g *onnx.Graph, x onnx.Value) {
			g.Output("y", g.Op("Mul", x, g.Const([]float32{1, 2, 3}, 3)), onnx.Float, -1, 3)
		}), func(m *onnxpb.ModelProto) {
			w := m.Graph.Initializer[0]
			w.RawData, w.DataLocation = nil, onnxpb.TensorProto_EXTERNAL
			w.ExternalData = []*onnxpb.StringStringEntryProto{{Key: "location", Value: "/etc/passwd"}}
		}), multiclass, "keeps its weights in other files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := origin.Adapt(c.raw, c.task, 3, nil)
			var faults kind.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != "path" || faults[0].Code != diag.BadModel || faults[0].Mend == "" || !strings.Contains(faults[0].What, c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}

// TestNeitherTrueNorFalse: a binary model's classes have to say which of them is true.
func TestNeitherTrueNorFalse(t *testing.T) {
	bare := func(labels []string) []byte { // without ZipMap
		return model(onnx.Float, 2, func(g *onnx.Graph, x onnx.Value) {
			p := g.Node(onnx.MLDomain, "LinearClassifier", onnx.Attrs{"classlabels_strings": labels, "coefficients": []float32{9, 0, 0, 9}, "intercepts": []float32{0, 0}, "multi_class": 1, "post_transform": "SOFTMAX"}, 2, x)
			g.Output("label", p[0], onnx.String, -1)
			g.Output("probabilities", p[1], onnx.Float, -1, 2)
		})
	}
	for _, labels := range [][]string{{"churned", "stayed"}, {"1", "2"}, {"true", "1"}} {
		for _, raw := range [][]byte{zipped(onnx.Attrs{"classlabels_strings": labels}, 2), bare(labels)} {
			_, err := origin.Adapt(raw, binary, 2, nil)
			if err == nil || !strings.Contains(err.Error(), "the classes "+labels[0]+" and "+labels[1]+", and which of them is true is not known") {
				t.Errorf("%v: %v", labels, err)
			}
		}
	}
}

// TestSound: predictions that are no numbers or no probabilities are refused, and a
// model that cannot take missing values is told apart from one that never works.
func TestSound(t *testing.T) {
	nan := float32(math.NaN())
	scaled := func(by, bias float32) []byte {
		return model(onnx.Float, 1, func(g *onnx.Graph, x onnx.Value) {
			g.Output("y", g.Op("Add", g.Op("Mul", x, g.Scalar(by)), g.Scalar(bias)), onnx.Float, -1, 1)
		})
	}
	raw := model(onnx.Float, 3, func(g *onnx.Graph, x onnx.Value) { g.Output("y", x, onnx.Float, -1, 3) })
	fixed := model(onnx.Float, 1, func(g *onnx.Graph, x onnx.Value) {
		g.Output("y", g.Op("Reshape", x, g.Const([]int64{1, 1}, 2)), onnx.Float, 1, 1)
	})
	for _, c := range []struct {
		name string
		raw  []byte
		task kind.Task
		x    []float32
		want string // "": sound
	}{
		{"values", scaled(7, 1), regression, []float32{1, 2, 3}, ""},
		{"probabilities", scaled(1, 0), binary, []float32{0, 0.5, 1}, ""},
		{"classes", raw, multiclass, []float32{0.25, 0.25, 0.5}, ""},
		{"a missing feature", scaled(1, 0), regression, []float32{1, nan, 3}, "predicts no number for 1 of the 3 test rows, which have a missing"},
		{"never a number", scaled(1, nan), regression, []float32{1, nan, 3}, "predicts no number for 3 of the 3 test rows"},
		{"scores", scaled(2, 0), binary, []float32{0, 0.5, 1}, "predicts 2 for a row of the test rows, which is no probability"},
		{"classes' scores", raw, multiclass, []float32{0.5, 0.5, 0.5}, "add up to 1.5"},
		{"one row at a time", fixed, regression, []float32{1, 2, 3}, "does not run on the 3 test rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cols := 1
			if c.task.Kind == kind.Multiclass {
				cols = 3
			}
			m, err := origin.Adapt(c.raw, c.task, cols, nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Open(m, c.task.Width())
			if err != nil {
				t.Fatal(err)
			}
			defer p.session.Close()
			err = origin.Sound(p, c.task, kind.Matrix{Rows: len(c.x) / cols, Cols: cols, Data: c.x}, "test")
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, not %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "/"):
				t.Errorf("%v tells of ONNX Runtime's own files", err)
			}
		})
	}
}

// TestOrder: an order of columns is undone by giving the model its columns so.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cols := rapid.IntRange(1, 6).Draw(t, "columns")
		places := make([]int64, cols)
		for i := range places {
			places[i] = int64(i)
		}
		order := rapid.Permutation(places).Draw(t, "order")
		weights := rapid.SliceOfN(rapid.Float32Range(-9, 9), cols, cols).Draw(t, "weights")
		row := rapid.SliceOfN(rapid.Float32Range(-9, 9), cols, cols).Draw(t, "row")
		raw := model(onnx.Float, int64(cols), func(g *onnx.Graph, x onnx.Value) {
			g.Output("y", g.OpA("ReduceSum", onnx.Attrs{"keepdims": 1}, g.Op("Mul", x, g.Const(weights, int64(cols))), g.Const([]int64{1}, 1)), onnx.Float, -1, 1)
		})
		want := 0.0
		for i, at := range order {
			want += float64(weights[i]) * float64(row[at])
		}
		m, err := origin.Adapt(raw, regression, cols, order)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(m, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.session.Close()
		if got := p.Predict(kind.Matrix{Rows: 1, Cols: cols, Data: row}); math.Abs(float64(got[0])-want) > 1e-3 {
			t.Fatalf("%v, not %v", got, want)
		}
	})
}

// FuzzPlain: no bytes make a panic in what is done before ONNX Runtime sees them, or
// when it refuses them.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("no model"))
	f.Add([]byte{})
	f.Add(softmax(3))
	f.Add(zipped(onnx.Attrs{"classlabels_strings": []string{"c", "a", "b"}}, 3))
	f.Add(edit(softmax(3), func(m *onnxpb.ModelProto) { m.Graph.Node[0].OpType, m.Graph.Node[0].Output = "Identity", nil }))
	f.Add(edit(softmax(3), func(m *onnxpb.ModelProto) { m.Graph.Output = append(m.Graph.Output, m.Graph.Output...) }))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _, _, err := origin.plain(raw)
		var faults kind.Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatal(err)
		}
		if err == nil {
			_ = inline(got) // refuses most
		}
	})
}
