package table

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"mlc.dev/mlc/compiler/types"
)

// TestWriteIsDeterministic: many distinct values make Arrow leave its dictionary,
// and then its footer was in random order.
func TestWriteIsDeterministic(t *testing.T) {
	ids, text := make([]int64, 300_000), make([]string, 300_000)
	for i := range ids {
		ids[i], text[i] = int64(i)*7919, string(rune('a'+i%26))
	}
	var first []byte
	for range 8 {
		path := filepath.Join(t.TempDir(), "t.parquet")
		if err := Write(path, []Column{{"id", ids}, {"text", text}}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, b) {
			t.Fatal("the same columns gave other bytes")
		}
		first = b
	}
}

// TestRoundTrip: nulls come back as what stands for them.
func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	err := Write(path, []Column{{"f", []float64{1.5, math.NaN()}}, {"g", []float32{2, 3}}, {"i", []int64{-1, 1 << 60}}, {"s", []string{"", types.NullString}}})
	if err != nil {
		t.Fatal(err)
	}
	err = Read(context.Background(), path, map[string]Form{"f": Floats, "g": Floats, "i": Ints, "s": Texts}, func(b Batch) error {
		f, g, i, s := b.Floats("f"), b.Floats("g"), b.Ints("i"), b.Texts("s")
		if b.Rows != 2 || f[0] != 1.5 || !math.IsNaN(f[1]) || g[1] != 3 || i[1] != 1<<60 || s[0] != "" || s[1] != types.NullString {
			t.Errorf("%v %v %v %q", f, g, i, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
