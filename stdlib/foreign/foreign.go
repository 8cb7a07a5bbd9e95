// Package foreign takes ONNX models that mlc did not make, for the trainers that
// bring one: it says what is wrong with a model, and makes of a right one the model
// that kind.TrainResult asks for.
package foreign

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/runtime/ort"
)

// Origin is where a model comes from, as faults tell it.
type Origin struct {
	Kind string // the trainer's; also the graph's name
	Name string // what the model is called
	// Field is the trainer's argument that faults are about, and Code their code.
	Field string
	Code  diag.Code
	Def   string // the definition that says what a model has to be
}

// Fault is a mistake in the model.
func (o Origin) Fault(what, why, mend string) error {
	return kind.Faults{{Field: o.Field, Code: o.Code, What: what, Why: why, Mend: mend}}
}

// Adapt makes of a model one with the input X, float [N, cols], and the output Y,
// float [N, task.Width()], and says what is wrong with a model that cannot be. The
// model's column i is X's column order[i]; without an order, X's own i.
//
// The model takes one float or double [N, cols]. Its predictions are the output Y,
// or else the last that is float or double [N, width] ([N] too for a width of 1, and
// [N, 2] for a binary problem), or what scikit-learn's converter gives, a sequence of
// maps from class to probability. The maps' classes are put in the task's order.
func (o Origin) Adapt(raw []byte, task kind.Task, cols int, order []int64) ([]byte, error) {
	mend := "see " + o.Def + " for what a model has to be"
	raw, classes, known, err := o.plain(raw)
	if err != nil {
		return nil, err
	}
	given, err := ort.Open(raw)
	if err != nil {
		if merr := inline(raw); merr != nil {
			return nil, o.unfusable(merr)
		}
		return nil, o.Fault(o.Name+" is no model: "+firstLine(err), "ONNX Runtime has to run it", mend)
	}
	defer given.Close()
	ins := given.Inputs()
	if len(ins) != 1 || !floats(ins[0]) || len(ins[0].Shape) != 2 || ins[0].Shape[1] > 0 && ins[0].Shape[1] != int64(cols) {
		return nil, o.Fault(fmt.Sprintf("%s takes %s, not one float [N, %d]", o.Name, signature(ins), cols), "it gets the encoded features as one matrix", mend)
	}
	w := int64(task.Width())
	y, ok := output(given.Outputs(), w, task.Kind == kind.Binary)
	if !ok {
		return nil, o.Fault(fmt.Sprintf("%s gives %s, and none of it is float [N, %d]", o.Name, signature(given.Outputs()), w), "that is what this problem's predictions are", mend)
	}
	g := onnx.New(o.Kind)
	x := g.Input("X", onnx.Float, -1, int64(cols))
	in := x
	if order != nil {
		in = g.OpA("Gather", onnx.Attrs{"axis": 1}, x, g.Const(order, int64(len(order))))
	}
	if ins[0].Type == "double" {
		in = g.Cast(in, onnx.Double)
	}
	out, err := g.Merge(raw, map[string]onnx.Value{ins[0].Name: in})
	if err != nil {
		return nil, o.unfusable(err)
	}
	v := out[y.Name]
	if y.Type == "double" {
		v = g.Cast(v, onnx.Float)
	}
	labels := classes[y.Name]
	if labels == nil && sameSet(known, task.Classes) {
		labels = known
	}
	if labels != nil && task.Kind == kind.Multiclass {
		places, err := o.places(labels, task.Classes)
		if err != nil {
			return nil, err
		}
		v = g.OpA("Gather", onnx.Attrs{"axis": 1}, v, g.Const(places, int64(len(places))))
	}
	if n := len(y.Shape); n == 2 && y.Shape[1] == 2 && w == 1 {
		names := classes[y.Name]
		if names == nil && len(known) == 2 {
			names = known
		}
		at, ok := positive(names)
		if !ok {
			return nil, o.Fault(fmt.Sprintf("%s gives probabilities of the classes %s, and which of them is true is not known", o.Name, strings.Join(names, " and ")),
				"the problem's label is true or false", "train it on 0 and 1, or on false and true")
		}
		v = g.Op("Slice", v, g.Const([]int64{at}, 1), g.Const([]int64{at + 1}, 1), g.Const([]int64{1}, 1))
	} else if n == 1 {
		v = g.Op("Reshape", v, g.Const([]int64{-1, 1}, 2))
	}
	g.Output("Y", v, onnx.Float, -1, w)
	return g.Marshal(), nil
}

// positive is the column of a binary model's probabilities that is of true: of labels
// that say it, else, without labels, the second, as libraries have it.
func positive(labels []string) (at int64, ok bool) {
	if labels == nil {
		return 1, true
	}
	if len(labels) != 2 {
		return 0, false
	}
	means := func(label string) string {
		switch l := strings.ToLower(label); l {
		case "1", "true":
			return "true"
		case "0", "-1", "false":
			return "false"
		}
		return ""
	}
	switch means(labels[0]) + " " + means(labels[1]) {
	case "false true":
		return 1, true
	case "true false":
		return 0, true
	}
	return 0, false
}

func (o Origin) unfusable(err error) error {
	return o.Fault(o.Name+" cannot be joined with the features' transform: "+err.Error(), "both become one model", "export with target opset 21 and ai.onnx.ml 3")
}

// inline says why a model cannot be inlined into one of ours, whatever it takes.
func inline(raw []byte) error {
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(raw, &m); err != nil {
		return err
	}
	g, in := onnx.New(""), map[string]onnx.Value{}
	for _, i := range m.GetGraph().GetInput() {
		in[i.Name] = onnx.Value(i.Name)
	}
	_, err := g.Merge(raw, in)
	return err
}

// plain returns the model with a matrix in place of each sequence of maps that
// ZipMap makes of one, and the classes of the matrix's columns by output; a model
// without is returned as it is. known are the classes that the model's classifier
// names, where it has one. It refuses what is no ONNX model, and one of which the
// weights are in other files.
func (o Origin) plain(raw []byte) (out []byte, classes map[string][]string, known []string, err error) {
	mend := "see " + o.Def + " for what a model has to be"
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(raw, &m); err != nil || m.Graph == nil {
		return nil, nil, nil, o.Fault(o.Name+" is no model: it does not have the form of an ONNX file", "ONNX Runtime has to run it", mend)
	}
	for _, t := range m.Graph.Initializer {
		if t.DataLocation == onnxpb.TensorProto_EXTERNAL {
			return nil, nil, nil, o.Fault(o.Name+" keeps its weights in other files", "a model is one file here", "save it whole, in Python: onnx.save(onnx.load(path), path)")
		}
	}
	classes = map[string][]string{}
	for i := range m.Graph.Node {
		n := m.Graph.Node[i]
		if n.Domain != onnx.MLDomain {
			continue
		}
		labels := classLabels(n)
		if labels != nil && n.OpType != "ZipMap" {
			known = labels
		}
		if n.OpType != "ZipMap" || len(n.Input) != 1 || len(n.Output) != 1 {
			continue
		}
		for k, out := range m.Graph.Output {
			if out.Name == n.Output[0] {
				m.Graph.Output[k] = matrix(out.Name, int64(len(labels)))
				m.Graph.Node[i] = &onnxpb.NodeProto{OpType: "Identity", Input: n.Input, Output: n.Output}
				classes[out.Name] = labels
			}
		}
	}
	if len(classes) == 0 {
		return raw, nil, known, nil
	}
	out, err = proto.MarshalOptions{Deterministic: true}.Marshal(&m)
	return out, classes, known, err
}

// classLabels are the classes that a node of a classifier or of ZipMap names.
func classLabels(n *onnxpb.NodeProto) (labels []string) {
	for _, a := range n.Attribute {
		switch a.Name {
		case "classlabels_strings", "classlabels_int64s", "classlabels_ints": // the last of LinearClassifier and SVMClassifier
			for _, s := range a.Strings {
				labels = append(labels, string(s))
			}
			for _, k := range a.Ints {
				labels = append(labels, strconv.FormatInt(k, 10))
			}
		}
	}
	return labels
}

// sameSet reports whether two lists have the same texts, in whatever order.
func sameSet(a, b []string) bool {
	return len(a) == len(b) && slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// matrix declares float [N, cols].
func matrix(name string, cols int64) *onnxpb.ValueInfoProto {
	shape := &onnxpb.TensorShapeProto{Dim: []*onnxpb.TensorShapeProto_Dimension{
		{Value: &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: "N"}}, {Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: cols}}}}
	return &onnxpb.ValueInfoProto{Name: name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{
		TensorType: &onnxpb.TypeProto_Tensor{ElemType: int32(onnxpb.TensorProto_FLOAT), Shape: shape}}}}
}

// places finds each class among a model's labels. Labels that are the classes'
// indices in order stand for the classes, unless they are the classes themselves.
func (o Origin) places(labels, classes []string) ([]int64, error) {
	out := make([]int64, len(classes))
	indices, named := len(labels) == len(classes), true
	for i := range labels {
		indices = indices && labels[i] == strconv.Itoa(i)
	}
	for _, c := range classes {
		named = named && slices.Contains(labels, c)
	}
	for i, c := range classes {
		at := slices.Index(labels, c)
		if indices && !named {
			at = i
		}
		if at < 0 {
			return nil, o.Fault(fmt.Sprintf("%s gives no probability of class %q", o.Name, c), "its classes are "+strings.Join(labels, ", "), "train it on the label as the problem declares it")
		}
		out[i] = int64(at)
	}
	return out, nil
}

func floats(i ort.Info) bool { return i.Type == "float" || i.Type == "double" }

// output finds the predictions among a model's outputs: one called Y, or else the
// last that can be them; libraries put labels before scores.
func output(outs []ort.Info, width int64, binary bool) (ort.Info, bool) {
	var found ort.Info
	for _, o := range outs {
		fits := floats(o)
		switch len(o.Shape) {
		case 1:
			fits = fits && width == 1
		case 2:
			n := o.Shape[1]
			fits = fits && (n <= 0 || n == width || binary && n == 2)
		default:
			fits = false
		}
		if fits && o.Name == "Y" {
			return o, true
		}
		if fits {
			found = o
		}
	}
	return found, found.Name != ""
}

func signature(infos []ort.Info) string {
	text := ""
	for i, x := range infos {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %s%v", x.Name, x.Type, x.Shape)
	}
	return text
}

// Predictor runs an adapted model.
type Predictor struct {
	session *ort.Session
	width   int
}

// Open loads what Adapt made for predictions of a width.
func Open(model []byte, width int) (*Predictor, error) {
	s, err := ort.Open(model)
	if err != nil {
		return nil, err
	}
	return &Predictor{s, width}, nil
}

// chunk is how many rows run at once.
const chunk = 1024

// Predict predicts a matrix. What the model refuses comes out as NaN, which
// evaluation does not let pass.
func (p *Predictor) Predict(m kind.Matrix) []float32 {
	out, _ := p.run(m)
	return out
}

// run is Predict, with the first thing that went wrong.
func (p *Predictor) run(m kind.Matrix) (out []float32, first error) {
	out = make([]float32, m.Rows*p.width)
	for i := range out {
		out[i] = float32(math.NaN())
	}
	for at := 0; at < m.Rows; at += chunk {
		n := min(chunk, m.Rows-at)
		res, err := p.session.Run([]ort.Tensor{{Shape: []int64{int64(n), int64(m.Cols)}, Data: m.Data[at*m.Cols : (at+n)*m.Cols]}})
		if err == nil {
			if y, ok := res[0].Data.([]float32); ok && len(y) == n*p.width {
				copy(out[at*p.width:], y)
				continue
			}
			err = fmt.Errorf("it gives %v for them, not [%d %d]", res[0].Shape, n, p.width)
		}
		if first == nil {
			first = err
		}
	}
	return out, first
}

// slack is how far from a probability a float may be that means one.
const slack = 1e-3

// Sound predicts rows and says what is wrong with the predictions: a model that does
// not run, or gives no numbers, or numbers that are no probabilities. part is what
// the rows are called.
func (o Origin) Sound(p *Predictor, task kind.Task, x kind.Matrix, part string) error {
	y, err := p.run(x)
	if err != nil {
		return o.Fault(fmt.Sprintf("%s does not run on the %d %s rows: %s", o.Name, x.Rows, part, firstLine(err)), "it has to predict any number of rows at once", "export it with a variable first dimension")
	}
	bad, missing := 0, 0
	for r := range x.Rows {
		if !slices.ContainsFunc(y[r*p.width:(r+1)*p.width], infinite) {
			continue
		}
		bad++
		if slices.ContainsFunc(x.Row(r), infinite) {
			missing++
		}
	}
	switch {
	case bad > 0 && bad == missing:
		return o.Fault(fmt.Sprintf("%s predicts no number for %d of the %d %s rows, which have a missing or infinite feature", o.Name, bad, x.Rows, part),
			"it cannot take that", `fill such features as it was trained to: encode: [{kind: "impute"}]`)
	case bad > 0:
		return o.Fault(fmt.Sprintf("%s predicts no number for %d of the %d %s rows", o.Name, bad, x.Rows, part), "NaN and infinity are no predictions", "mend the model, or how the features are encoded for it")
	case task.Numeric():
		return nil
	}
	for r := range x.Rows {
		sum := float32(0)
		for _, v := range y[r*p.width : (r+1)*p.width] {
			if sum += v; v < -slack || v > 1+slack {
				return o.Fault(fmt.Sprintf("%s predicts %g for a row of the %s rows, which is no probability", o.Name, v, part), "metrics and thresholds are of probabilities", "end the model with a sigmoid, or with a softmax over the classes")
			}
		}
		if task.Kind == kind.Multiclass && math.Abs(float64(sum)-1) > slack {
			return o.Fault(fmt.Sprintf("%s predicts probabilities that add up to %g for a row of the %s rows", o.Name, sum, part), "one of the classes is the right one", "end the model with a softmax over the classes")
		}
	}
	return nil
}

func infinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }

// firstLine is what of ONNX Runtime's message is fit for people: the places in its
// own source are not.
func firstLine(err error) string {
	l, _, _ := strings.Cut(err.Error(), "\n")
	l, _, _ = strings.Cut(l, " Status Message: ")
	return l[:min(len(l), 300)]
}
