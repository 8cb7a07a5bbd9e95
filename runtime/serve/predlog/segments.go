package predlog

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/table"
)

// Format is the version of a segment's columns, which is in its metadata as
// "mlc.format", and of a message in Kafka.
//
// A segment has a row for each row that was predicted: _time (TIMESTAMP in
// microseconds UTC), _id, _row (from 0 in its request), _service, _model,
// _version, _variant, _fallback, _shadow, _error (HTTP's status and the text, of a fallback too),
// _queue_us, _compute_us, _total_us, _threshold (FLOAT: the least probability, or score,
// that was decided as true; NULL where nothing is decided), then the inputs by name, then the outputs by
// name, where probabilities and quantiles are a column each, "probability.<class>",
// "probability.<label>" and "quantile.<q>".
//
// Features are of the types that they are declared as, as a source's are: BOOLEAN,
// BIGINT, DOUBLE, VARCHAR or TIMESTAMP in microseconds UTC. A number went through a
// DOUBLE, as the model takes it, so whole ones beyond 2^53 are not exact. Other values
// are as the model has them: DOUBLE, FLOAT, BIGINT or UBIGINT. What is missing or masked
// is NULL; so is a value that is none of its feature's type, which only the Open
// Inference Protocol lets through, or has not the rows as its first dimension. Inputs
// and outputs of other than one value a row are JSON in a text. A name that is taken,
// in whatever case, gets "input." or "output." before it.
//
// A message has its values as the model has them, times as microseconds.
const Format = "mlc.prediction.v2"

var fixed = []string{"_time", "_id", "_row", "_service", "_model", "_version", "_variant", "_fallback", "_shadow", "_error", "_queue_us", "_compute_us", "_total_us", "_threshold"}

// maxOpen is how many segments are open at once, one for each set of columns.
const maxOpen = 8

// segments writes Parquet files. A segment ends at Rows rows, at Every after its
// first, or when the open ones take too much memory. It is written to a hidden file,
// synced and renamed to <service>-<time of its first row, UTC>-<replica>-<number>.parquet,
// so what has that name is whole.
type segments struct {
	log     *Log
	dir     string
	rows    int
	every   time.Duration
	prefix  string
	replica string
	number  int
	last    *Schema    // of the newest record that had one
	open    []*segment // by the time of their beginning
	bytes   int64
	timer   *time.Timer
}

// segment is the rows of one set of columns that are not written yet.
type segment struct {
	schema  *Schema
	records []*Record
	rows    int
	bytes   int64
	begun   time.Time
}

func newSegments(l *Log) *segments {
	c := l.o.Config
	s := &segments{log: l, dir: c.Dir, rows: c.Rows, every: c.Every.Std(), prefix: plain(l.o.Service), replica: plain(l.o.Replica), timer: time.NewTimer(0)}
	s.timer.Stop()
	if l.o.Replica == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // it never fails
		host, _ := os.Hostname()
		s.replica = plain(host) + "-" + hex.EncodeToString(b[:])
	}
	s.sweep()
	if err := s.writable(); err != nil {
		l.o.Logger.Warn("prediction log: its folder cannot be written, and records will be lost", "service", l.o.Service, "error", err)
	}
	return s
}

// writable tries to write to the folder.
func (s *segments) writable() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "."+s.prefix+"-*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// plain is a name as part of a file's.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name[:min(len(name), 63)])
}

// sweep removes hidden files that a killed process left. Writing one takes moments,
// so those of others at work are younger.
func (s *segments) sweep() {
	left, _ := filepath.Glob(filepath.Join(globSafe.Replace(s.dir), "."+s.prefix+"-*.tmp"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(path) // the next start tries again
		}
	}
}

var globSafe = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

func (s *segments) due() <-chan time.Time { return s.timer.C }

// shared is equal for records that share a segment.
func (s *Schema) shared() string {
	if s == nil {
		return ""
	}
	return s.key
}

func (s *segments) add(_ context.Context, r *Record) {
	if r.Schema == nil { // it was refused before anyone knew its model: a file has the columns that others have
		r.Schema = s.last
	}
	s.last = r.Schema
	i := slices.IndexFunc(s.open, func(g *segment) bool { return g.schema.shared() == r.Schema.shared() })
	if i < 0 {
		if len(s.open) == maxOpen {
			s.end(s.open[0])
		}
		i = len(s.open)
		s.open = append(s.open, &segment{schema: r.Schema, begun: time.Now()})
	}
	g := s.open[i]
	g.records = append(g.records, r)
	g.rows += r.rows()
	g.bytes += r.bytes
	if s.bytes += r.bytes; g.rows >= s.rows {
		s.end(g)
	} else if s.bytes >= maxBytes {
		s.end(slices.MaxFunc(s.open, func(a, b *segment) int { return cmp.Compare(a.bytes, b.bytes) }))
	}
	s.arm()
}

// arm sets the timer to when the oldest segment ends.
func (s *segments) arm() {
	if len(s.open) == 0 {
		s.timer.Stop()
		return
	}
	s.timer.Reset(time.Until(s.open[0].begun.Add(s.every)))
}

// work ends the segments whose time has come.
func (s *segments) work(context.Context) {
	for len(s.open) > 0 && time.Since(s.open[0].begun) >= s.every {
		s.end(s.open[0])
	}
	s.arm()
}

func (s *segments) close(ctx context.Context) {
	for len(s.open) > 0 {
		if err := ctx.Err(); err != nil {
			s.log.drop(err, len(s.open[0].records))
			s.open = s.open[1:]
			continue
		}
		s.end(s.open[0])
	}
	s.timer.Stop()
}

// end writes a segment, or drops it where that fails.
func (s *segments) end(g *segment) {
	s.open = slices.DeleteFunc(s.open, func(x *segment) bool { return x == g })
	s.bytes -= g.bytes
	if err := s.write(g); err != nil {
		s.log.fail(err, len(g.records))
		return
	}
	s.log.o.Metrics.Segments.Add(1)
	s.log.o.Metrics.Written.Add(uint64(len(g.records)))
}

func (s *segments) write(g *segment) (err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	s.number++
	name := fmt.Sprintf("%s-%s-%s-%06d.parquet", s.prefix, g.begun.UTC().Format("20060102T150405.000Z"), s.replica, s.number)
	hidden := filepath.Join(s.dir, "."+name+".tmp")
	f, err := os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(hidden, filepath.Join(s.dir, name))
		}
		if err != nil {
			_ = os.Remove(hidden) // what cannot be removed is swept at a later start
			return
		}
		err = syncDir(s.dir)
	}()
	w := table.NewWriter(f)
	w.Meta("mlc.format", Format)
	w.Meta("mlc.service", s.log.o.Service)
	if err := w.Write(g.columns(s.log.o.Service, len(s.log.mask) > 0)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// columns lays the records out.
func (g *segment) columns(service string, masks bool) []table.Column {
	cols := []table.Column{
		{Name: "_time", Data: table.Micros(each(g, func(r *Record) int64 { return r.Time.UnixMicro() }))},
		{Name: "_id", Data: each(g, func(r *Record) string { return valid(r.ID) })},
	}
	number := make([]int64, 0, g.rows)
	for _, r := range g.records {
		for i := range r.rows() {
			number = append(number, int64(i))
		}
	}
	cols = append(cols, table.Column{Name: "_row", Data: number})
	for _, c := range []struct {
		name string
		text func(*Record) string
	}{
		{"_service", func(*Record) string { return service }},
		{"_model", func(r *Record) string { return r.Model }},
		{"_version", func(r *Record) string { return r.Version }},
		{"_variant", func(r *Record) string { return r.Variant }},
	} {
		cols = append(cols, table.Column{Name: c.name, Data: each(g, func(r *Record) string { return valid(c.text(r)) })})
	}
	cols = append(cols,
		table.Column{Name: "_fallback", Data: each(g, func(r *Record) bool { return r.Fallback })},
		table.Column{Name: "_shadow", Data: each(g, func(r *Record) bool { return r.Shadow })},
		table.Column{Name: "_error", Data: each(g, func(r *Record) string {
			if r.Err == nil {
				return types.NullString
			}
			return valid(strings.TrimSpace(fmt.Sprintf("%d %s", r.Err.Kind, errText(r.Err, masks))))
		})},
		table.Column{Name: "_queue_us", Data: each(g, func(r *Record) int64 { return r.Queue.Microseconds() })},
		table.Column{Name: "_compute_us", Data: each(g, func(r *Record) int64 { return r.Compute.Microseconds() })},
		table.Column{Name: "_total_us", Data: each(g, func(r *Record) int64 { return r.Total.Microseconds() })},
		table.Column{Name: "_threshold", Data: each(g, func(r *Record) float32 {
			if r.Threshold == 0 {
				return float32(math.NaN())
			}
			return float32(r.Threshold)
		})})
	if g.schema == nil {
		return cols
	}
	for _, c := range g.schema.columns {
		f := g.schema.inputs
		if c.output {
			f = g.schema.outputs
		}
		cols = append(cols, table.Column{Name: c.name, Data: g.field(c, f[c.at])})
	}
	return cols
}

// errText is what is written of an error. With masks the text of one about the
// input is left out: it may quote a masked value.
func errText(err *api.Error, masks bool) string {
	if masks && (err.Kind == api.BadRequest || err.Kind == api.Invalid) {
		return ""
	}
	return err.Text
}

// each is a value of each record, once a row.
func each[T any](g *segment, of func(*Record) T) []T {
	out := make([]T, 0, g.rows)
	for _, r := range g.records {
		v := of(r)
		for range r.rows() {
			out = append(out, v)
		}
	}
	return out
}

// field is the data of an input's or output's column.
func (g *segment) field(c column, f field) any {
	if !f.cell && f.names == 0 {
		return gather(g, c, f, func(v ort.Value, n int) []string { return rowJSON(v, n) })
	}
	switch f.typ {
	case "double":
		return declared(gather(g, c, f, cells[float64](c, f)), f.as)
	case "float", "float16", "bfloat16":
		return gather(g, c, f, cells[float32](c, f))
	case "uint64":
		return gather(g, c, f, cells[uint64](c, f))
	case "bool":
		return gather(g, c, f, cells[bool](c, f))
	case "string":
		return gather(g, c, f, cells[string](c, f))
	}
	return gather(g, c, f, cells[int64](c, f))
}

// gather puts the values of all records into one column; of gives one record's n,
// or nil for NULL.
func gather[T any](g *segment, c column, f field, of func(v ort.Value, n int) []T) table.Optional {
	out, known := make([]T, 0, g.rows), make([]bool, 0, g.rows)
	for _, r := range g.records {
		values := r.Inputs
		if c.output {
			values = r.Outputs
		}
		n := r.rows()
		var cells []T
		if !f.masked && c.at < len(values) && values[c.at] != nil {
			cells = of(values[c.at], n)
		}
		ok := cells != nil
		if !ok {
			cells = make([]T, n)
		}
		out = append(out, cells...)
		for range n {
			known = append(known, ok)
		}
	}
	return table.Optional{Data: out, Valid: known}
}

// declared gives numbers as what a feature is declared as.
func declared(o table.Optional, as types.Type) table.Optional {
	numbers := o.Data.([]float64)
	whole := func() []int64 {
		out := make([]int64, len(numbers))
		for i, x := range numbers {
			const end = 1 << 63
			if as == types.Int && x == end {
				out[i] = math.MaxInt64 // which is rounded to it, as are those just below
			} else if o.Valid[i] = o.Valid[i] && x == math.Trunc(x) && -end <= x && x < end; o.Valid[i] {
				out[i] = int64(x)
			}
		}
		return out
	}
	switch as {
	case types.Int:
		o.Data = whole()
	case types.Timestamp:
		o.Data = table.Micros(whole())
	case types.Bool:
		for i, x := range numbers {
			o.Valid[i] = o.Valid[i] && (x == 0 || x == 1)
		}
		o.Data = table.Bools(numbers)
	}
	return o
}

// cells takes the values of a column out of a tensor.
func cells[T any](c column, f field) func(ort.Value, int) []T {
	return func(v ort.Value, n int) []T {
		t := v.(ort.Tensor) // as fits has seen
		if len(t.Shape) > 0 && t.Shape[0] != int64(n) {
			return nil
		}
		data, _ := wide(t.Data).([]T)
		if f.names == 0 {
			if len(data) != n {
				return nil
			}
			return data
		}
		if len(data) != n*f.names {
			return nil
		}
		out := make([]T, n)
		for i := range out {
			out[i] = data[i*f.names+c.class]
		}
		return out
	}
}
