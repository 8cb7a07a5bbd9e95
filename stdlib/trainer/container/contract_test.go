package container

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestArray: the file is what numpy.save writes, to the byte; these are NumPy 2.4's
// of numpy.array([[1, nan, 3], [4, 5, 6]], "f4") and numpy.array([0.5, 1], "f8").
func TestArray(t *testing.T) {
	dir := t.TempDir()
	head := func(header string) string {
		return "\x93NUMPY\x01\x00\x76\x00" + header + strings.Repeat(" ", 0x76-1-len(header)) + "\n"
	}
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	if err := array(x, "<f4", []float32{1, float32(math.NaN()), 3, 4, 5, 6}, 2, 3); err != nil {
		t.Fatal(err)
	}
	if err := array(y, "<f8", []float64{0.5, 1}, 2); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		x: head("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }") + "\x00\x00\x80?\x00\x00\xc0\x7f\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0@",
		y: head("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }") + "\x00\x00\x00\x00\x00\x00\xe0?\x00\x00\x00\x00\x00\x00\xf0?",
	} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%q, not %q; %v", b, want, err)
		}
	}
}

// TestReadArray: what array writes is read back, and what is no row-major array of
// floats of the width is refused.
func TestReadArray(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	rapid.Check(t, func(r *rapid.T) {
		width := rapid.IntRange(1, 4).Draw(r, "width")
		rows := rapid.IntRange(0, 50).Draw(r, "rows")
		want := rapid.SliceOfN(rapid.Float64(), rows*width, rows*width).Draw(r, "values")
		if err := array(path, "<f8", want, rows, width); err != nil {
			r.Fatal(err)
		}
		if got, err := readArray(t.Context(), path, width); err != nil || !slices.Equal(got, want) {
			r.Fatalf("%v, not %v; %v", got, want, err)
		}
	})
	if err := array(path, "<f4", []float32{1, 2, 3}, 3); err != nil {
		t.Fatal(err)
	}
	if got, err := readArray(t.Context(), path, 1); err != nil || !slices.Equal(got, []float64{1, 2, 3}) {
		t.Errorf("%v %v", got, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"nothing": "", "text": "no array", "cut": string(good[:40]), "a byte more": string(good) + "x",
		"integers": strings.Replace(string(good), "<f4", "<i4", 1), "columns": strings.Replace(string(good), "False", "True ", 1),
	} {
		if err := os.WriteFile(path, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := readArray(t.Context(), path, 1); err == nil {
			t.Errorf("%s is read as %v", name, got)
		}
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readArray(t.Context(), path, 2); err == nil {
		t.Error("3 values are rows of 2")
	}
}
