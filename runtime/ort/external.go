package ort

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
)

// mostModel is the most bytes of a protobuf message, and so of a model in one piece.
const mostModel = 1<<31 - 1

// Embed returns a model with the weights that it keeps in other files of a folder; one
// that keeps none as it is. ONNX Runtime would look for them where the process runs.
func Embed(model []byte, dir string) ([]byte, error) {
	var m onnxpb.ModelProto
	if !bytes.Contains(model, []byte("location")) { // which is said of every such file
		return model, nil
	}
	if proto.Unmarshal(model, &m) != nil {
		return model, nil // loading it tells what is wrong
	}
	var kept []*onnxpb.TensorProto
	find := func(t *onnxpb.TensorProto) {
		if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
			kept = append(kept, t)
		}
	}
	tensors(m.Graph, find)
	for _, f := range m.Functions {
		tensors(&onnxpb.GraphProto{Node: f.Node}, find)
	}
	if len(kept) == 0 {
		return model, nil
	}
	root, err := os.OpenRoot(dir) // a model names no file outside
	if err != nil {
		return nil, err
	}
	defer root.Close()
	left := int64(mostModel - len(model))
	for _, t := range kept {
		b, err := external(root, t, left)
		if err != nil {
			return nil, fmt.Errorf("the weights %q of the model: %w", t.Name, err)
		}
		left -= int64(len(b))
		t.RawData, t.ExternalData, t.DataLocation = b, nil, onnxpb.TensorProto_DEFAULT
	}
	return proto.Marshal(&m)
}

// external reads a tensor's data, at most most bytes.
func external(root *os.Root, t *onnxpb.TensorProto, most int64) ([]byte, error) {
	var at, n int64
	name, length := "", ""
	for _, e := range t.ExternalData {
		var err error
		switch e.Key {
		case "location":
			name = e.Value
		case "offset":
			at, err = strconv.ParseInt(e.Value, 10, 64)
		case "length":
			length = e.Value
			n, err = strconv.ParseInt(e.Value, 10, 64)
		}
		if err != nil || at < 0 || n < 0 {
			return nil, fmt.Errorf("%s is %q", e.Key, e.Value)
		}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if length == "" {
		n = info.Size() - at
	}
	switch {
	case at > info.Size() || n < 0 || n > info.Size()-at:
		return nil, fmt.Errorf("%s has %d bytes, and not %d from %d on", name, info.Size(), n, at)
	case n > most:
		return nil, errors.New("with them it has more than 2 GiB, which is the most of a model that is served")
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		return nil, err
	}
	return b, nil
}

// tensors calls f for every constant of a graph and of those inside of it.
func tensors(g *onnxpb.GraphProto, f func(*onnxpb.TensorProto)) {
	sparse := func(t *onnxpb.SparseTensorProto) {
		f(t.GetValues())
		f(t.GetIndices())
	}
	for _, t := range g.GetInitializer() {
		f(t)
	}
	for _, t := range g.GetSparseInitializer() {
		sparse(t)
	}
	for _, n := range g.GetNode() {
		for _, a := range n.Attribute {
			if a.T != nil {
				f(a.T)
			}
			for _, t := range a.Tensors {
				f(t)
			}
			sparse(a.SparseTensor)
			for _, t := range a.SparseTensors {
				sparse(t)
			}
			if a.G != nil {
				tensors(a.G, f)
			}
			for _, in := range a.Graphs {
				tensors(in, f)
			}
		}
	}
}
