// Package orttest reads the official ONNX backend test cases, for tests of what
// runs models.
package orttest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/runtime/ort"
)

// Case is one test: a model, what goes in and what has to come out.
type Case struct {
	Name    string
	Model   []byte
	Inputs  []ort.Value
	Outputs []ort.Value
}

// ErrMissing says that the cases are not on this machine.
var ErrMissing = errors.New("SKIPPED: no ../shared/data/onnx_backend_tests")

// Cases reads all cases, or returns ErrMissing.
func Cases() ([]Case, error) {
	_, self, _, _ := runtime.Caller(0)
	f, err := os.Open(filepath.Join(filepath.Dir(self), "../../../../shared/data/onnx_backend_tests/cases.tar.gz"))
	if err != nil {
		return nil, ErrMissing
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
	var out []Case
	for name, model := range files {
		if !strings.HasSuffix(name, "/model.onnx") {
			continue
		}
		dir := path.Dir(name)
		for set := 0; files[fmt.Sprintf("%s/test_data_set_%d/output_0.pb", dir, set)] != nil; set++ {
			c := Case{Name: fmt.Sprintf("%s/%d", dir, set), Model: model}
			read := func(kind string) ([]ort.Value, error) {
				var vs []ort.Value
				for k := 0; ; k++ {
					b, ok := files[fmt.Sprintf("%s/test_data_set_%d/%s_%d.pb", dir, set, kind, k)]
					if !ok {
						return vs, nil
					}
					t, err := tensor(b)
					if err != nil {
						return nil, fmt.Errorf("%s: %s %d: %w", c.Name, kind, k, err)
					}
					vs = append(vs, t)
				}
			}
			if c.Inputs, err = read("input"); err != nil {
				return nil, err
			}
			if c.Outputs, err = read("output"); err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func tensor(b []byte) (ort.Tensor, error) {
	var p onnxpb.TensorProto
	if err := proto.Unmarshal(b, &p); err != nil {
		return ort.Tensor{}, err
	}
	t := ort.Tensor{Shape: append([]int64{}, p.Dims...)}
	n := 1
	for _, d := range p.Dims {
		n *= int(d)
	}
	var err error
	switch onnxpb.TensorProto_DataType(p.DataType) {
	case onnxpb.TensorProto_FLOAT:
		t.Data, err = numbers(p.RawData, p.FloatData, n, func(x float32) float32 { return x })
	case onnxpb.TensorProto_DOUBLE:
		t.Data, err = numbers(p.RawData, p.DoubleData, n, func(x float64) float64 { return x })
	case onnxpb.TensorProto_INT64:
		t.Data, err = numbers(p.RawData, p.Int64Data, n, func(x int64) int64 { return x })
	case onnxpb.TensorProto_INT32:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) int32 { return x })
	case onnxpb.TensorProto_INT16:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) int16 { return int16(x) })
	case onnxpb.TensorProto_INT8:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) int8 { return int8(x) })
	case onnxpb.TensorProto_UINT64:
		t.Data, err = numbers(p.RawData, p.Uint64Data, n, func(x uint64) uint64 { return x })
	case onnxpb.TensorProto_UINT32:
		t.Data, err = numbers(p.RawData, p.Uint64Data, n, func(x uint64) uint32 { return uint32(x) })
	case onnxpb.TensorProto_UINT16:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) uint16 { return uint16(x) })
	case onnxpb.TensorProto_UINT8:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) uint8 { return uint8(x) })
	case onnxpb.TensorProto_FLOAT16:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) ort.Float16 { return ort.Float16(x) })
	case onnxpb.TensorProto_BFLOAT16:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) ort.BFloat16 { return ort.BFloat16(x) })
	case onnxpb.TensorProto_BOOL:
		t.Data, err = numbers(p.RawData, p.Int32Data, n, func(x int32) bool { return x != 0 })
	case onnxpb.TensorProto_STRING:
		s := make([]string, len(p.StringData))
		for i, b := range p.StringData {
			s[i] = string(b)
		}
		t.Data = s
	default:
		err = fmt.Errorf("type %d", p.DataType)
	}
	return t, err
}

// numbers takes the raw bytes, little-endian, where there are any, else the listed ones.
func numbers[T, L any](raw []byte, listed []L, n int, of func(L) T) ([]T, error) {
	out := make([]T, n)
	if len(raw) > 0 {
		return out, binary.Read(bytes.NewReader(raw), binary.LittleEndian, out)
	}
	if len(listed) != n {
		return nil, fmt.Errorf("%d elements, not %d", len(listed), n)
	}
	for i, x := range listed {
		out[i] = of(x)
	}
	return out, nil
}

// Differs tells how got differs from want, within the tolerance of the ONNX
// project (relative 1e-3, absolute 1e-5; halves 1e-2 and 1e-3), or returns "".
func Differs(got, want ort.Value) string {
	g, ok := got.(ort.Tensor)
	w := want.(ort.Tensor)
	if !ok {
		return fmt.Sprintf("%T, not a tensor", got)
	}
	if fmt.Sprint(g.Shape) != fmt.Sprint(w.Shape) {
		return fmt.Sprintf("shape %v, not %v", g.Shape, w.Shape)
	}
	if a, b := fmt.Sprintf("%T", g.Data), fmt.Sprintf("%T", w.Data); a != b {
		return a + ", not " + b
	}
	a, rel, abs := floats(g.Data)
	if a == nil {
		if x, y := fmt.Sprint(g.Data), fmt.Sprint(w.Data); x != y {
			return fmt.Sprintf("%.200s, not %.200s", x, y)
		}
		return ""
	}
	b, _, _ := floats(w.Data)
	for i := range a {
		x, y := a[i], b[i]
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if !(math.Abs(x-y) <= abs+rel*math.Abs(y)) {
			return fmt.Sprintf("element %d: %v, not %v", i, x, y)
		}
	}
	return ""
}

func floats(data any) (values []float64, rel, abs float64) {
	rel, abs = 1e-3, 1e-5
	switch d := data.(type) {
	case []float64:
		return d, rel, abs
	case []float32:
		return convert(d, func(x float32) float64 { return float64(x) }), rel, abs
	case []ort.Float16:
		return convert(d, func(x ort.Float16) float64 { return float64(x.Float()) }), 1e-2, 1e-3
	case []ort.BFloat16:
		return convert(d, func(x ort.BFloat16) float64 { return float64(x.Float()) }), 1e-2, 1e-3
	}
	return nil, 0, 0
}

func convert[T any](in []T, f func(T) float64) []float64 {
	out := make([]float64, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return out
}
