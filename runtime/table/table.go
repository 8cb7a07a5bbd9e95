// Package table reads and writes Parquet where rows cross into Go. It is the
// only importer of Arrow.
package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

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
// an error) and []string (types.NullString for null).
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
)

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
	for rr.Next() {
		rec := rr.Record()
		b := Batch{Start: start, Rows: int(rec.NumRows()), Columns: map[string]any{}}
		for i, field := range rec.Schema().Fields() {
			v, err := convert(rec.Column(i), want[field.Name])
			if err != nil {
				return fmt.Errorf("%s: column %q: %w", path, field.Name, err)
			}
			b.Columns[field.Name] = v
		}
		if err := f(b); err != nil {
			return err
		}
		start += int64(b.Rows)
	}
	if err := rr.Err(); err != nil && !errors.Is(err, io.EOF) { // v15 reports the end as EOF
		return fmt.Errorf("%s: %w", path, err)
	}
	if start != r.NumRows() {
		return fmt.Errorf("%s: %d of %d rows read", path, start, r.NumRows())
	}
	return nil
}

func convert(a arrow.Array, form Form) (any, error) {
	n := a.Len()
	switch form {
	case Texts:
		out := make([]string, n)
		s, ok := a.(interface{ Value(int) string })
		if !ok {
			return nil, fmt.Errorf("%s is no text", a.DataType())
		}
		for i := range out {
			if a.IsNull(i) {
				out[i] = types.NullString
			} else {
				out[i] = string(append([]byte(nil), s.Value(i)...)) // the batch's memory is reused
			}
		}
		return out, nil
	case Ints:
		out := make([]int64, n)
		for i := range out {
			if a.IsNull(i) {
				return nil, fmt.Errorf("a null at row %d", i)
			}
			switch a := a.(type) {
			case *array.Int64:
				out[i] = a.Value(i)
			case *array.Int32:
				out[i] = int64(a.Value(i))
			case *array.Uint64:
				if a.Value(i) > math.MaxInt64 {
					return nil, fmt.Errorf("%d at row %d is too great", a.Value(i), i)
				}
				out[i] = int64(a.Value(i))
			case *array.Timestamp:
				out[i] = int64(a.Value(i))
			default:
				return nil, fmt.Errorf("%s is no integer", a.DataType())
			}
		}
		return out, nil
	}
	out := make([]float64, n)
	for i := range out {
		if a.IsNull(i) {
			out[i] = math.NaN()
			continue
		}
		switch a := a.(type) {
		case *array.Float64:
			out[i] = a.Value(i)
		case *array.Float32:
			out[i] = float64(a.Value(i))
		case *array.Int64:
			out[i] = float64(a.Value(i))
		case *array.Int32:
			out[i] = float64(a.Value(i))
		case *array.Uint64:
			out[i] = float64(a.Value(i))
		case *array.Timestamp:
			out[i] = float64(a.Value(i))
		case *array.Boolean:
			if a.Value(i) {
				out[i] = 1
			}
		default:
			return nil, fmt.Errorf("%s is no number", a.DataType())
		}
	}
	return out, nil
}
