// Package table reads and writes Parquet where rows cross into Go. It is the
// only importer of Arrow.
package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"mlc.dev/mlc/compiler/types"
)

// BatchRows is how many rows Read hands over at once.
const BatchRows = 8192

// Batch is some consecutive rows, by column. A column is one of []float64 (NaN
// for null; booleans as 0 and 1, timestamps in microseconds), []int64 (a null is
// an error), []string (types.NullString for null) and Values.
type Batch struct {
	Start   int64
	Rows    int
	Columns map[string]any
}

// Floats returns a float column; it panics where the column is of another form.
func (b Batch) Floats(name string) []float64 { return b.Columns[name].([]float64) }

// Ints returns an integer column.
func (b Batch) Ints(name string) []int64 { return b.Columns[name].([]int64) }

// Texts returns a string column.
func (b Batch) Texts(name string) []string { return b.Columns[name].([]string) }

// Form says how a column is wanted.
type Form int

// The forms of Batch.
const (
	Floats Form = iota
	Ints
	Texts
	AsIs
)

// Values are a column as a file has it, of whatever type that is.
type Values struct {
	typ    arrow.DataType
	chunks []arrow.Array
}

// Len is the number of values.
func (v Values) Len() (n int) {
	for _, c := range v.chunks {
		n += c.Len()
	}
	return n
}

// Slice returns the values from one on up to before another.
func (v Values) Slice(from, to int) Values {
	out := Values{typ: v.typ}
	for _, c := range v.chunks {
		if lo, hi := max(from, 0), min(to, c.Len()); lo < hi {
			out.chunks = append(out.chunks, array.NewSlice(c, int64(lo), int64(hi)))
		}
		from, to = from-c.Len(), to-c.Len()
	}
	return out
}

// Append returns v with more after its own; it may write into v's memory, as append does.
func (v Values) Append(more Values) Values {
	return Values{more.typ, append(v.chunks, more.chunks...)}
}

// None returns no values of a column of a Parquet file.
func None(path, name string) (Values, error) {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return Values{}, fmt.Errorf("%s: %w", path, err)
	}
	defer r.Close()
	schema, err := pqarrow.FromParquet(r.MetaData().Schema, nil, nil)
	if err != nil {
		return Values{}, fmt.Errorf("%s: %w", path, err)
	}
	fields, ok := schema.FieldsByName(name)
	if !ok {
		return Values{}, fmt.Errorf("%s: no column %q", path, name)
	}
	return Values{typ: fields[0].Type}, nil
}

// Natural returns the form of some columns of a Parquet file: Texts for strings, else
// Floats.
func Natural(path string, names []string) (map[string]Form, error) {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer r.Close()
	out := map[string]Form{}
	for _, name := range names {
		i := r.MetaData().Schema.ColumnIndexByName(name)
		if i < 0 {
			return nil, fmt.Errorf("%s: no column %q", path, name)
		}
		if out[name] = Floats; r.MetaData().Schema.Column(i).PhysicalType() == parquet.Types.ByteArray {
			out[name] = Texts
		}
	}
	return out, nil
}

// Rows returns the number of rows of a Parquet file.
func Rows(path string) (int64, error) {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return r.NumRows(), nil
}

// Meta returns the key-value metadata of a Parquet file. Of a key that comes twice,
// the last value counts.
func Meta(path string) (map[string]string, error) {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := map[string]string{}
	kv := r.MetaData().KeyValueMetadata()
	for i, k := range kv.Keys() {
		out[k] = kv.Values()[i]
	}
	return out, nil
}

// Read streams columns of a Parquet file in row order. f may keep the slices.
func Read(ctx context.Context, path string, want map[string]Form, f func(Batch) error) error {
	return ReadRows(ctx, path, want, nil, f)
}

// ReadRows is Read of some rows: pick tells which of n rows from start on, counted from
// 0 and rising. A batch's Start is that of the rows that it was picked from; batches of
// which none is wanted do not come. Without pick all rows do.
func ReadRows(ctx context.Context, path string, want map[string]Form, pick func(start int64, n int) []int, f func(Batch) error) error {
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer r.Close()
	fr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: BatchRows}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.NumRows() == 0 {
		return nil
	}
	var cols []int
	for name := range want {
		i := r.MetaData().Schema.ColumnIndexByName(name)
		if i < 0 {
			return fmt.Errorf("%s: no column %q", path, name)
		}
		cols = append(cols, i)
	}
	rr, err := fr.GetRecordReader(ctx, cols, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer rr.Release()
	start := int64(0)
	for {
		more, err := next(rr)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !more {
			break
		}
		rec := rr.Record()
		n := int(rec.NumRows())
		b := Batch{Start: start, Rows: n, Columns: map[string]any{}}
		start += int64(n)
		var at []int
		if pick != nil {
			if at = pick(b.Start, n); len(at) == 0 {
				continue
			}
			if b.Rows = len(at); b.Rows == n {
				at = nil
			}
		}
		for i, field := range rec.Schema().Fields() {
			v, err := convert(rec.Column(i), want[field.Name], at)
			if err != nil {
				return fmt.Errorf("%s: column %q: %w", path, field.Name, err)
			}
			b.Columns[field.Name] = v
		}
		if err := f(b); err != nil {
			return err
		}
	}
	if err := rr.Err(); err != nil && !errors.Is(err, io.EOF) { // v15 reports the end as EOF
		return fmt.Errorf("%s: %w", path, err)
	}
	if start != r.NumRows() {
		return fmt.Errorf("%s: %d of %d rows read", path, start, r.NumRows())
	}
	return nil
}

// next is rr.Next, of which a damaged file makes the library panic.
func next(rr pqarrow.RecordReader) (more bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	return rr.Next(), nil
}

// convert reads the rows at, all where it is nil.
func convert(a arrow.Array, form Form, at []int) (any, error) {
	switch form {
	case AsIs:
		a.Retain() // the reader lets go of it
		all := Values{a.DataType(), []arrow.Array{a}}
		if at == nil {
			return all, nil
		}
		some := Values{typ: all.typ}
		for _, k := range at {
			some = some.Append(all.Slice(k, k+1))
		}
		return some, nil
	case Texts:
		s, ok := a.(interface{ Value(int) string })
		if !ok {
			return nil, fmt.Errorf("%s is no text", a.DataType())
		}
		return texts(a, s.Value, at), nil
	case Ints:
		if a.NullN() > 0 {
			for i := range a.Len() {
				if a.IsNull(i) {
					return nil, fmt.Errorf("a null at row %d", i)
				}
			}
		}
		switch a := a.(type) {
		case *array.Int64:
			return values(a, a.Value, at, func(x int64) int64 { return x }, 0), nil
		case *array.Int32:
			return values(a, a.Value, at, func(x int32) int64 { return int64(x) }, 0), nil
		case *array.Uint64:
			for i := range a.Len() {
				if a.Value(i) > math.MaxInt64 {
					return nil, fmt.Errorf("%d at row %d is too great", a.Value(i), i)
				}
			}
			return values(a, a.Value, at, func(x uint64) int64 { return int64(x) }, 0), nil
		case *array.Timestamp:
			return values(a, a.Value, at, func(x arrow.Timestamp) int64 { return int64(x) }, 0), nil
		}
		return nil, fmt.Errorf("%s is no integer", a.DataType())
	}
	nan := math.NaN()
	switch a := a.(type) {
	case *array.Float64:
		return values(a, a.Value, at, func(x float64) float64 { return x }, nan), nil
	case *array.Float32:
		return values(a, a.Value, at, func(x float32) float64 { return float64(x) }, nan), nil
	case *array.Int64:
		return values(a, a.Value, at, func(x int64) float64 { return float64(x) }, nan), nil
	case *array.Int32:
		return values(a, a.Value, at, func(x int32) float64 { return float64(x) }, nan), nil
	case *array.Uint64:
		return values(a, a.Value, at, func(x uint64) float64 { return float64(x) }, nan), nil
	case *array.Timestamp:
		return values(a, a.Value, at, func(x arrow.Timestamp) float64 { return float64(x) }, nan), nil
	case *array.Boolean:
		return values(a, a.Value, at, func(x bool) float64 {
			if x {
				return 1
			}
			return 0
		}, nan), nil
	}
	return nil, fmt.Errorf("%s is no number", a.DataType())
}

// rows is how many rows of a are at, and where the i-th is.
func rows(a arrow.Array, at []int) (int, func(int) int) {
	if at == nil {
		return a.Len(), func(i int) int { return i }
	}
	return len(at), func(i int) int { return at[i] }
}

func values[T, V any](a arrow.Array, value func(int) T, at []int, as func(T) V, null V) []V {
	n, row := rows(a, at)
	out := make([]V, n)
	for i := range out {
		if k := row(i); a.IsNull(k) {
			out[i] = null
		} else {
			out[i] = as(value(k))
		}
	}
	return out
}

// texts copies the rows' texts, since the batch's memory is used again, in one piece.
func texts(a arrow.Array, value func(int) string, at []int) []string {
	n, row := rows(a, at)
	size := 0
	for i := range n {
		if k := row(i); !a.IsNull(k) {
			size += len(value(k))
		}
	}
	var all strings.Builder
	all.Grow(size)
	for i := range n {
		if k := row(i); !a.IsNull(k) {
			all.WriteString(value(k))
		}
	}
	rest, out := all.String(), make([]string, n)
	for i := range out {
		if k := row(i); a.IsNull(k) {
			out[i] = types.NullString
		} else {
			size := len(value(k))
			out[i], rest = rest[:size], rest[size:]
		}
	}
	return out
}
