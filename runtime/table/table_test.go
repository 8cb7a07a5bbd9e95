package table

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"pgregory.net/rapid"

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
	err := Write(path, []Column{{"f", []float64{1.5, math.NaN()}}, {"g", []float32{2, 3}}, {"i", []int64{-1, 1 << 60}}, {"s", []string{"", types.NullString}}, {"b", Bools{1, math.NaN()}}})
	if err != nil {
		t.Fatal(err)
	}
	err = Read(context.Background(), path, map[string]Form{"f": Floats, "g": Floats, "i": Ints, "s": Texts, "b": Floats}, func(b Batch) error {
		f, g, i, s, o := b.Floats("f"), b.Floats("g"), b.Ints("i"), b.Texts("s"), b.Floats("b")
		if o[0] != 1 || !math.IsNaN(o[1]) {
			t.Errorf("%v", o)
		}
		if b.Rows != 2 || f[0] != 1.5 || !math.IsNaN(f[1]) || g[1] != 3 || i[1] != 1<<60 || s[0] != "" || s[1] != types.NullString {
			t.Errorf("%v %v %v %q", f, g, i, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWriterAppends: what is written in several row groups, with nulls of every
// type, comes back in order with its metadata, and the first error of the file
// stays.
func TestWriterAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(f)
	w.Meta("a", "1")
	valid := []bool{true, false}
	for k := range int64(3) {
		err := w.Write([]Column{{"b", Optional{[]bool{true, true}, valid}}, {"t", Micros{k, k + 1}}, {"u", []uint64{uint64(k), 7}},
			{"n", Optional{[]int64{k, k}, valid}}, {"f", Optional{[]float32{1.5, 2}, valid}}, {"s", Optional{[]string{"x", "y"}, valid}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Meta("b", "2")
	if err := w.Write([]Column{{"b", []bool{true}}, {"t", Micros{1, 2}}}); err == nil {
		t.Error("columns of unequal length were written")
	}
	if err := w.Write([]Column{{"b", []int64{1}}}); err == nil {
		t.Error("other columns than at first were written")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	meta, err := Meta(path)
	if err != nil || meta["a"] != "1" || meta["b"] != "2" {
		t.Errorf("metadata %v, %v", meta, err)
	}
	rows := 0
	forms := map[string]Form{"b": Floats, "t": Ints, "u": Ints, "n": Floats, "f": Floats, "s": Texts}
	err = Read(context.Background(), path, forms, func(b Batch) error {
		rows += b.Rows
		for i := 0; i < b.Rows; i += 2 {
			if b.Floats("b")[i] != 1 || b.Floats("f")[i] != 1.5 || b.Texts("s")[i] != "x" || b.Ints("t")[i+1] != b.Ints("t")[i]+1 || b.Ints("u")[i] != b.Ints("t")[i] || b.Floats("n")[i] != float64(b.Ints("t")[i]) {
				t.Errorf("row %d of %v", i, b.Columns)
			}
			for _, n := range []string{"b", "n", "f"} {
				if !math.IsNaN(b.Floats(n)[i+1]) {
					t.Errorf("%s is %v, not null", n, b.Floats(n)[i+1])
				}
			}
			if b.Texts("s")[i+1] != types.NullString {
				t.Errorf("s is %q, not null", b.Texts("s")[i+1])
			}
		}
		return nil
	})
	if err != nil || rows != 6 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// full takes a number of bytes and no more.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestWriterFull: wherever the disk is full, it is an error and no panic.
func TestWriterFull(t *testing.T) {
	write := func(out io.Writer) error {
		w := NewWriter(out)
		if err := w.Write([]Column{{"f", []float64{1, 2, 3}}, {"s", []string{"a", "b", "c"}}}); err != nil {
			return err
		}
		return w.Close()
	}
	var whole bytes.Buffer
	if err := write(&whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		f := full(n)
		if err := write(&f); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("with room for %d of %d bytes: %v", n, whole.Len(), err)
		}
	}
}

// TestReadRows: what comes are the rows of Read that were asked for, over several
// batches and row groups, with their nulls.
func TestReadRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3*BatchRows).Draw(t, "rows")
		modulus := rapid.IntRange(1, 2*BatchRows).Draw(t, "modulus")
		ids, numbers, texts := make([]int64, n), make([]float64, n), make([]string, n)
		for i := range ids {
			ids[i], numbers[i], texts[i] = int64(i), float64(i)/2, strconv.Itoa(i)
			switch i % 5 {
			case 0:
				numbers[i] = math.NaN()
			case 1:
				texts[i] = types.NullString
			case 2:
				texts[i] = ""
			}
		}
		dir, err := os.MkdirTemp("", "table")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "t.parquet")
		if err := Write(path, []Column{{"id", ids}, {"f", numbers}, {"s", texts}}); err != nil {
			t.Fatal(err)
		}
		pick := func(start int64, n int) (out []int) {
			for i := range n {
				if (int(start)+i)%modulus == 0 {
					out = append(out, i)
				}
			}
			return out
		}
		next := 0
		err = ReadRows(context.Background(), path, map[string]Form{"id": Ints, "f": Floats, "s": Texts}, pick, func(b Batch) error {
			for i, id := range b.Ints("id") {
				if int(id) != next || b.Texts("s")[i] != texts[next] || (b.Floats("f")[i] != numbers[next] && !math.IsNaN(numbers[next])) || math.IsNaN(numbers[next]) != math.IsNaN(b.Floats("f")[i]) {
					t.Fatalf("row %d of %d: id %d, %v, %q", next, n, id, b.Floats("f")[i], b.Texts("s")[i])
				}
				next += modulus
			}
			return nil
		})
		if err != nil || next < n {
			t.Fatalf("ended at %d of %d: %v", next, n, err)
		}
	})
}

// TestAsIs: values that are read as they are, in whatever pieces, are the same when they
// are written again, their type and nulls included; also where there are none.
func TestAsIs(t *testing.T) {
	ctx := context.Background()
	n := BatchRows + 100
	ids, valid, texts := make([]int64, n), make([]bool, n), make([]string, n)
	for i := range ids {
		ids[i], valid[i], texts[i] = int64(i)<<40, i%3 > 0, strconv.Itoa(i)
	}
	path, again := filepath.Join(t.TempDir(), "t.parquet"), filepath.Join(t.TempDir(), "again.parquet")
	if err := Write(path, []Column{{"id", Optional{ids, valid}}, {"at", Micros(ids)}, {"s", texts}}); err != nil {
		t.Fatal(err)
	}
	names := []string{"id", "at", "s"}
	for _, odd := range []bool{false, true} {
		cols := make([]Column, len(names))
		for i, name := range names {
			none, err := None(path, name)
			if err != nil || none.Len() != 0 {
				t.Fatal(none, err)
			}
			cols[i] = Column{name, none}
		}
		if err := Write(again, cols); err != nil {
			t.Fatal(err)
		}
		var pick func(int64, int) []int
		if odd {
			pick = func(start int64, n int) (out []int) {
				for k := range n {
					if (int(start)+k)%2 == 1 {
						out = append(out, k)
					}
				}
				return out
			}
		}
		err := ReadRows(ctx, path, map[string]Form{"id": AsIs, "at": AsIs, "s": AsIs}, pick, func(b Batch) error {
			for i, name := range names {
				v := b.Columns[name].(Values)
				for from := 0; from < b.Rows; from += 1000 {
					cols[i] = cols[i].Append(Column{name, v.Slice(from, min(from+1000, b.Rows))})
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(again, cols); err != nil {
			t.Fatal(err)
		}
		k := 0
		err = Read(ctx, again, map[string]Form{"id": Floats, "at": Ints, "s": Texts}, func(b Batch) error {
			for i := range b.Rows {
				if odd && k%2 == 0 {
					k++
				}
				if id := b.Floats("id")[i]; math.IsNaN(id) == valid[k] || valid[k] && id != float64(ids[k]) || b.Ints("at")[i] != ids[k] || b.Texts("s")[i] != texts[k] {
					t.Fatalf("row %d: %v, %d, %q", k, id, b.Ints("at")[i], b.Texts("s")[i])
				}
				k++
			}
			return nil
		})
		if err != nil || k != n {
			t.Fatalf("ended at %d of %d: %v", k, n, err)
		}
	}
}
