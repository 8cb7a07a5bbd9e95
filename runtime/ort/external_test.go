package ort_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/onnx/onnxpb"
	"mlc.dev/mlc/runtime/ort"
)

// TestEmbed: weights in other files are those beside the model, wherever the process
// runs, and none outside of its folder.
func TestEmbed(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(t.TempDir()) // where a file of the same name is another's
	weights := func(path string, x float64) {
		b := append([]byte("head"), binary.LittleEndian.AppendUint64(nil, math.Float64bits(x))...)
		if err := os.WriteFile(path, append(b, "tail"...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	weights("w.data", 1000)
	weights(filepath.Join(dir, "w.data"), 3)
	g := onnx.New("scaled")
	g.Output("y", g.Op("Mul", g.Input("x", onnx.Double, -1, 1), g.Const([]float64{0}, 1, 1)), onnx.Double, -1, 1)
	whole := g.Marshal()
	elsewhere := func(entries ...string) []byte {
		return edited(t, whole, func(m *onnxpb.GraphProto) {
			w := m.Initializer[0]
			w.RawData, w.DoubleData, w.DataLocation = nil, nil, onnxpb.TensorProto_EXTERNAL
			for i := 0; i < len(entries); i += 2 {
				w.ExternalData = append(w.ExternalData, &onnxpb.StringStringEntryProto{Key: entries[i], Value: entries[i+1]})
			}
		})
	}
	if b, err := ort.Embed(whole, dir); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("a whole model changed: %v", err)
	}
	b, err := ort.Embed(elsewhere("location", "w.data", "offset", "4", "length", "8"), dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out, err := s.Run([]ort.Tensor{ort.Column([]float64{7})}); err != nil || out[0].Data.([]float64)[0] != 21 {
		t.Errorf("%v, %v", out, err)
	}
	for want, entries := range map[string][]string{
		"path escapes":         {"location", "../" + filepath.Base(dir) + "/w.data"},
		"no such file":         {"location", "v.data"},
		`offset is "-1"`:       {"location", "w.data", "offset", "-1"},
		"has 16 bytes":         {"location", "w.data", "offset", "9", "length", "8"},
		"not 9223372036854775": {"location", "w.data", "offset", "4", "length", "9223372036854775807"},
	} {
		if _, err := ort.Embed(elsewhere(entries...), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q", entries, err, want)
		}
	}
}
