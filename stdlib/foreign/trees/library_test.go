package trees

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/kind"
)

// TestLibraries holds models that LightGBM 4.7.0 and XGBoost 3.2.0 made, in each of
// their forms, against what the libraries predict: for each NAME.want, a row's
// features, |, and its prediction. The rows have NaN, infinities (LightGBM), zeros
// and nearly zeros, and categories that are negative, large, unknown and no integers.
func TestLibraries(t *testing.T) {
	wants, err := filepath.Glob("testdata/*.want")
	if err != nil || len(wants) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, w := range wants {
		models, err := filepath.Glob(strings.TrimSuffix(w, "want") + "*")
		if err != nil || len(models) < 2 {
			t.Fatalf("%s has no models: %v", w, err)
		}
		x, want := table(t, w)
		for _, name := range models {
			if name == w {
				continue
			}
			t.Run(filepath.Base(name), func(t *testing.T) {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				m, err := Read(b)
				if err != nil {
					t.Fatal(err)
				}
				near(t, "Go and the library", m.Predict(x), want)
				near(t, "ONNX and the library", infer(t, m, x), want)
			})
		}
	}
}

func table(t *testing.T, name string) (x kind.Matrix, y []float32) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		left, right, _ := strings.Cut(l, "|")
		row := numbers(t, left)
		x.Rows, x.Cols, x.Data = x.Rows+1, len(row), append(x.Data, row...)
		y = append(y, numbers(t, right)...)
	}
	return x, y
}

func numbers(t *testing.T, s string) []float32 {
	t.Helper()
	var out []float32
	for _, f := range strings.Fields(s) {
		v, err := strconv.ParseFloat(f, 32)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, float32(v))
	}
	return out
}
