package table

import (
	"fmt"
	"io"
	"math"
	"os"
	"reflect"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"mlc.dev/mlc/compiler/types"
)

// Column is one named column to write: Data is []float64 (NaN is written as
// null), []float32, []int64, []uint64, []bool, []string (types.NullString as
// null), Micros, Bools, Optional of one of them, or Values.
type Column struct {
	Name string
	Data any
}

// Rows is the number of the column's values.
func (c Column) Rows() int {
	switch d := c.Data.(type) {
	case []float64:
		return len(d)
	case []float32:
		return len(d)
	case []int64:
		return len(d)
	case []uint64:
		return len(d)
	case []bool:
		return len(d)
	case []string:
		return len(d)
	case Micros:
		return len(d)
	case Bools:
		return len(d)
	case Values:
		return d.Len()
	case Optional:
		return Column{Data: d.Data}.Rows()
	}
	return 0
}

// SameType reports whether a column has data of the same type.
func (c Column) SameType(other Column) bool {
	a, is := c.Data.(Values)
	if b, too := other.Data.(Values); is && too {
		return arrow.TypeEqual(a.typ, b.typ)
	}
	return reflect.TypeOf(c.Data) == reflect.TypeOf(other.Data)
}

// Append returns c with the values of another column of the same type after its
// own; it panics where the types differ. It may write into c's memory, as append does.
func (c Column) Append(more Column) Column {
	switch d := c.Data.(type) {
	case []float64:
		c.Data = append(d, more.Data.([]float64)...)
	case []float32:
		c.Data = append(d, more.Data.([]float32)...)
	case []int64:
		c.Data = append(d, more.Data.([]int64)...)
	case []uint64:
		c.Data = append(d, more.Data.([]uint64)...)
	case []bool:
		c.Data = append(d, more.Data.([]bool)...)
	case []string:
		c.Data = append(d, more.Data.([]string)...)
	case Micros:
		c.Data = append(d, more.Data.(Micros)...)
	case Bools:
		c.Data = append(d, more.Data.(Bools)...)
	case Values:
		c.Data = d.Append(more.Data.(Values))
	default:
		panic(fmt.Sprintf("table: data of %T cannot be appended to", c.Data))
	}
	return c
}

// Micros are instants in microseconds since 1970 UTC.
type Micros []int64

// Bools are booleans as Read gives them: 0, 1 and NaN, which is written as null.
type Bools []float64

// Optional is data of which the values where Valid is false are null; without Valid
// none is.
type Optional struct {
	Data  any
	Valid []bool
}

// Write makes a Parquet file of columns of equal length. The same columns give
// the same bytes.
func Write(path string, cols []Column) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	w := NewWriter(out)
	if err = w.Write(cols); err == nil {
		err = w.Close()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// maxGroups is how many row groups a file can have: they are numbered in 16 bits.
const maxGroups = math.MaxInt16

// Writer writes a Parquet file, a row group for every Write. It holds no more
// than one row group in memory.
type Writer struct {
	sink   sink
	schema *arrow.Schema
	file   *pqarrow.FileWriter
	meta   []string // keys and values in turn
	groups int
}

// sink keeps the first error and from then on takes everything: Arrow panics or
// goes on where a write fails.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.Writer.Write(p)
	}
	return len(p), nil
}

// NewWriter writes to out, which Close leaves open. The first Write gives the
// columns and their types.
func NewWriter(out io.Writer) *Writer { return &Writer{sink: sink{Writer: out}} }

// Meta adds to the file's key-value metadata, at any time before Close.
func (w *Writer) Meta(key, value string) { w.meta = append(w.meta, key, value) }

// Write adds a row group of columns of equal length, which may be 0.
func (w *Writer) Write(cols []Column) error {
	fields, arrays := make([]arrow.Field, len(cols)), make([]arrow.Array, len(cols))
	for i, c := range cols {
		a, err := build(c.Data)
		if err != nil {
			return fmt.Errorf("table: column %q: %w", c.Name, err)
		}
		if arrays[i] = a; a.Len() != arrays[0].Len() {
			return fmt.Errorf("table: column %q has %d rows, not %d", c.Name, a.Len(), arrays[0].Len())
		}
		fields[i] = arrow.Field{Name: c.Name, Type: a.DataType(), Nullable: true}
	}
	if w.file == nil {
		w.schema = arrow.NewSchema(fields, nil)
		props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCreatedBy("mlc"),
			parquet.WithDictionaryDefault(false)) // with two encodings in a column, Arrow writes their counts in random order
		var err error
		if w.file, err = pqarrow.NewFileWriter(w.schema, &w.sink, props, pqarrow.NewArrowWriterProperties()); err != nil {
			return err
		}
	}
	if w.groups++; w.groups > maxGroups {
		return fmt.Errorf("table: more than %d row groups in a file", maxGroups)
	}
	rows := int64(0)
	if len(arrays) > 0 {
		rows = int64(arrays[0].Len())
	}
	rec := array.NewRecord(arrow.NewSchema(fields, nil), arrays, rows)
	defer rec.Release()
	if err := w.file.Write(rec); err != nil {
		return err
	}
	return w.sink.err
}

// Close writes the end of the file. A file without a Write is an error: it has no
// columns.
func (w *Writer) Close() error {
	if w.file == nil {
		return fmt.Errorf("table: a file without columns")
	}
	for i := 0; i < len(w.meta); i += 2 {
		if err := w.file.AppendKeyValueMetadata(w.meta[i], w.meta[i+1]); err != nil {
			return err
		}
	}
	if err := w.file.Close(); err != nil {
		return err
	}
	return w.sink.err
}

// build makes data an array.
func build(data any) (arrow.Array, error) {
	var valid []bool
	if o, ok := data.(Optional); ok {
		data, valid = o.Data, o.Valid
	}
	switch d := data.(type) {
	case Values:
		if len(d.chunks) == 0 {
			return array.NewBuilder(memory.DefaultAllocator, d.typ).NewArray(), nil
		}
		return array.Concatenate(d.chunks, memory.DefaultAllocator)
	case []float64:
		return fill(array.NewFloat64Builder(memory.DefaultAllocator), d, also(valid, d, func(x float64) bool { return !math.IsNaN(x) }))
	case []float32:
		return fill(array.NewFloat32Builder(memory.DefaultAllocator), d, valid)
	case []int64:
		return fill(array.NewInt64Builder(memory.DefaultAllocator), d, valid)
	case []uint64:
		return fill(array.NewUint64Builder(memory.DefaultAllocator), d, valid)
	case []bool:
		return fill(array.NewBooleanBuilder(memory.DefaultAllocator), d, valid)
	case []string:
		return fill(array.NewStringBuilder(memory.DefaultAllocator), d, also(valid, d, func(x string) bool { return x != types.NullString }))
	case Bools:
		b := make([]bool, len(d))
		for i, x := range d {
			b[i] = x == 1
		}
		return fill(array.NewBooleanBuilder(memory.DefaultAllocator), b, also(valid, d, func(x float64) bool { return !math.IsNaN(x) }))
	case Micros:
		ts := make([]arrow.Timestamp, len(d))
		for i, x := range d {
			ts[i] = arrow.Timestamp(x)
		}
		return fill(array.NewTimestampBuilder(memory.DefaultAllocator, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}), ts, valid)
	}
	return nil, fmt.Errorf("data of %T", data)
}

// fill builds the array of values; valid nil: all are.
func fill[T any, B interface {
	AppendValues([]T, []bool)
	NewArray() arrow.Array
}](b B, values []T, valid []bool) (arrow.Array, error) {
	if valid != nil && len(valid) != len(values) {
		return nil, fmt.Errorf("%d values with %d marks of validity", len(values), len(valid))
	}
	b.AppendValues(values, valid)
	return b.NewArray(), nil
}

// also narrows valid to the values that are present.
func also[T any](valid []bool, values []T, present func(T) bool) []bool {
	if valid != nil && len(valid) != len(values) {
		return valid // told by fill
	}
	out := make([]bool, len(values))
	for i, x := range values {
		out[i] = (valid == nil || valid[i]) && present(x)
	}
	return out
}
