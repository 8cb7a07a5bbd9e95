// Package batch predicts the rows of files by the clock or by hand: once for the
// same model and rows, and on from where a killed run was.
package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// Options ask for one run of a batch.
type Options struct {
	// Batch has the output, the chunk, and what is kept. The output is a Parquet file with
	// the columns file, row (from 1 in its file), what is kept, and the model's outputs.
	service.Batch
	Bundle *bundle.Bundle
	// Version and Digest name the bundle.
	Version string
	Digest  plan.Digest
	// Files are the rows' files in order; Source reads them, by Args where the spec
	// has some, as op.PredictOptions says.
	Files  []string
	Source kind.Source
	Args   json.RawMessage
	// Columns are those of a source without a header, in order, as op.PredictOptions says.
	Columns []string
	// MaxQuarantine is the share of rows that may not fit; with more nothing is written.
	MaxQuarantine float64
	// MLC is the version of mlc. Together with that of ONNX Runtime it is in the key.
	MLC string
	// Progress tells how many of a file's good rows are done; nil: nobody asks.
	Progress func(file string, done, total int64)
}

// Report tells what a run did.
type Report struct {
	// Unchanged says that the output was there already, and nothing was done.
	Unchanged bool `json:"unchanged"`
	// Chunks were predicted, Resumed taken over from a run that did not end.
	Chunks  int `json:"chunks"`
	Resumed int `json:"resumed"`
	// Rejects is the file of the rows that do not fit, where there are some.
	Rejects string  `json:"rejects,omitempty"`
	Lineage Lineage `json:"lineage"`
}

// Format is the version of Lineage.
const Format = "mlc.batch.v1"

// Lineage tells what an output was made of. It is in the output's metadata as
// "mlc.lineage", there without Output, and beside it as <output>.lineage.json.
type Lineage struct {
	Format string `json:"format"`
	// Key digests all that the rows of the output follow from.
	Key     plan.Digest `json:"key"`
	System  string      `json:"system"`
	Batch   string      `json:"batch"`
	Model   service.Ref `json:"model"`
	Version string      `json:"version"`
	Bundle  plan.Digest `json:"bundle"`
	// Inputs are the files in order.
	Inputs   []Input `json:"inputs"`
	Rows     int64   `json:"rows"`
	Rejected int64   `json:"rejected"`
	Chunk    int     `json:"chunk"`
	// MLC and ONNXRuntime are the versions of what predicted.
	MLC         string    `json:"mlc"`
	ONNXRuntime string    `json:"onnxruntime"`
	Created     time.Time `json:"created"`
	// Output is the digest of the output file.
	Output plan.Digest `json:"output,omitempty"`
}

// quarantined is the share of the rows that did not fit.
func (l *Lineage) quarantined() float64 {
	return float64(l.Rejected) / float64(max(l.Rows+l.Rejected, 1))
}

// Input is one file and its rows.
type Input struct {
	Path     string      `json:"path"`
	Digest   plan.Digest `json:"digest"`
	Rows     int64       `json:"rows"`
	Rejected int64       `json:"rejected"`
}

// groupRows is the least number of rows of the output's row groups but the last:
// small chunks would make many small ones.
const groupRows = 1 << 16

// Run predicts the rows of the files in chunks. Rows that do not fit are counted
// and kept in <output>.rejects.jsonl.
//
// Finished chunks are kept in the folder <output>.parts until the output is whole,
// in files named by the key, so a run after one that was killed goes on. The same
// files, bundle and chunk give the same rows: where the output has them already,
// nothing is done. No more than a chunk or 65536 rows is in memory.
func Run(ctx context.Context, o Options) (Report, error) {
	r := run{Options: o, parts: o.Output + ".parts", mixed: map[int]bool{}}
	if err := r.sound(); err != nil {
		return Report{}, err
	}
	if err := r.identify(); err != nil {
		return Report{}, err
	}
	if rep, ok := r.same(); ok {
		return rep, nil
	}
	unlock, err := lockDir(r.parts)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	if rep, ok := r.same(); ok { // by a run that ended just now
		return rep, os.RemoveAll(r.parts)
	}
	if err := r.sweep(); err != nil {
		return Report{}, err
	}
	if err := r.predict(ctx); err != nil {
		return Report{}, err
	}
	if err := r.publish(ctx); err != nil {
		return Report{}, err
	}
	return r.report, os.RemoveAll(r.parts)
}

// run is a run at work.
type run struct {
	Options
	parts  string // the folder
	stats  []fs.FileInfo
	report Report
	// columns are those of the output, without rows; done the parts in order.
	columns []table.Column
	done    []string
	// mixed are the places of the columns that files have in several types: the parts
	// have those of their files, the output their texts.
	mixed map[int]bool
}

func bad(format string, args ...any) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.BadInput, What: fmt.Sprintf(format, args...)}
}

func (r *run) sound() error {
	switch {
	case r.Chunk < 1:
		return bad("a chunk of %d rows", r.Chunk)
	case len(r.Files) == 0:
		return bad("batch %q has no files to read", r.Name)
	case filepath.Ext(r.Output) != ".parquet":
		return bad("the output %s of batch %q is no .parquet file", r.Output, r.Name)
	case slices.Contains(r.Keep, "file"):
		return bad("column %q to keep is in the output already", "file")
	}
	return nil
}

// identify digests all that the result follows from.
func (r *run) identify() error {
	version, err := ort.LibraryVersion()
	if err != nil {
		return err
	}
	lin := Lineage{Format: Format, System: r.System, Batch: r.Name, Model: r.Model, Version: r.Version, Bundle: r.Digest, Chunk: r.Chunk, MLC: r.MLC, ONNXRuntime: version}
	for _, f := range r.Files {
		info, err := os.Stat(f)
		if err != nil {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.FileMissing, What: fmt.Sprintf("no file %q", f)}
		}
		if info.IsDir() {
			return bad("%s is a folder", f)
		}
		d, err := artifact.DigestFile(f)
		if err != nil {
			return err
		}
		r.stats = append(r.stats, info)
		lin.Inputs = append(lin.Inputs, Input{Path: f, Digest: d})
	}
	b, err := json.Marshal(struct {
		Lineage
		Signature bundle.Signature
		ONNX      plan.Digest
		Args      json.RawMessage
		Keep      []string
		Columns   []string `json:",omitempty"`
	}{lin, r.Bundle.Signature, plan.DigestOf(r.Bundle.Model), r.Args, r.Keep, r.Columns})
	if err != nil {
		return err
	}
	lin.Key = plan.DigestOf(b)
	r.report.Lineage = lin
	return nil
}

// same reports whether the output is there, made by this key and as it was made.
func (r *run) same() (Report, bool) {
	b, err := os.ReadFile(r.Output + ".lineage.json")
	if err != nil {
		return Report{}, false
	}
	rep := Report{Unchanged: true}
	if json.Unmarshal(b, &rep.Lineage) != nil || rep.Lineage.Key != r.report.Lineage.Key || rep.Lineage.quarantined() > r.MaxQuarantine {
		return Report{}, false
	}
	if d, err := artifact.DigestFile(r.Output); err != nil || d != rep.Lineage.Output {
		return Report{}, false
	}
	if rep.Lineage.Rejected > 0 {
		rep.Rejects = r.rejects()
		if _, err := os.Stat(rep.Rejects); err != nil {
			return Report{}, false
		}
	}
	return rep, true
}

func (r *run) rejects() string { return r.Output + ".rejects.jsonl" }

// part is the name of a finished chunk.
func (r *run) part(file, chunk int) string {
	return filepath.Join(r.parts, fmt.Sprintf("%s-%04d-%08d.parquet", r.report.Lineage.Key.Short(), file, chunk))
}

// sweep removes what a run by another key left, and what is not finished.
func (r *run) sweep() error {
	left, err := os.ReadDir(r.parts)
	if err != nil {
		return err
	}
	for _, e := range left {
		if !strings.HasPrefix(e.Name(), r.report.Lineage.Key.Short()+"-") || filepath.Ext(e.Name()) != ".parquet" {
			if err := os.RemoveAll(filepath.Join(r.parts, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// predict makes the parts of all files, and the file of rejects.
func (r *run) predict(ctx context.Context) error {
	path := filepath.Join(r.parts, "rejects.jsonl")
	err := op.WriteAtomic(path, func(rejects *os.File) error {
		for i := range r.Files {
			if err := r.file(ctx, i, rejects); err != nil {
				return err
			}
		}
		return nil
	})
	if share := r.report.Lineage.quarantined(); err == nil && share > r.MaxQuarantine {
		l := r.report.Lineage
		return diag.Diagnostic{Severity: diag.Error, Code: diag.TooManyBadRows, What: fmt.Sprintf("batch %q: %d of %d rows (%.2f%%) do not fit the model's signature; source %q allows %.2f%%", r.Name, l.Rejected, l.Rows+l.Rejected, 100*share, r.Batch.Source, 100*r.MaxQuarantine),
			Why: "the output is left as it was", Mend: "see " + path + " for the reasons; mend the rows, or raise the source's max_quarantine"}
	}
	return err
}

func (r *run) file(ctx context.Context, i int, rejects *os.File) error {
	name := r.Files[i]
	p, err := op.Prepare(ctx, op.PredictOptions{Bundle: r.Bundle, Input: name, Output: r.Output, Keep: r.Keep, Source: r.Source, Args: r.Args, Columns: r.Columns})
	if err != nil {
		return err
	}
	defer p.Close()
	if now, err := os.Stat(name); err != nil || now.Size() != r.stats[i].Size() || !now.ModTime().Equal(r.stats[i].ModTime()) || !os.SameFile(now, r.stats[i]) {
		return bad("%s changed while it was read", name)
	}
	if err := p.Rejects(rejects, name); err != nil {
		return err
	}
	lin := &r.report.Lineage
	lin.Inputs[i].Rows, lin.Inputs[i].Rejected = p.Rows, p.Rejected
	lin.Rows, lin.Rejected = lin.Rows+p.Rows, lin.Rejected+p.Rejected
	columns := append([]table.Column{{Name: "file", Data: []string(nil)}}, p.Columns()...)
	if r.columns == nil {
		r.columns = columns
	}
	for k, c := range columns {
		if !c.SameType(r.columns[k]) {
			r.columns[k].Data, r.mixed[k] = []string(nil), true
		}
	}
	rows := func(chunk int) int64 { return min(int64(r.Chunk), p.Rows-int64(chunk)*int64(r.Chunk)) }
	var done int64
	finished := func(chunk int) {
		r.done = append(r.done, r.part(i, chunk))
		if done += rows(chunk); r.Progress != nil {
			r.Progress(name, done, p.Rows)
		}
	}
	skip := func(chunk int) bool {
		if n, err := table.Rows(r.part(i, chunk)); err != nil || n != rows(chunk) {
			return false
		}
		r.report.Resumed++
		finished(chunk)
		return true
	}
	return p.Chunks(ctx, r.Chunk, skip, func(chunk int, cols []table.Column) error {
		files := make([]string, cols[0].Rows())
		for k := range files {
			files[k] = name
		}
		cols = append([]table.Column{{Name: "file", Data: files}}, cols...)
		err := op.WriteAtomic(r.part(i, chunk), func(f *os.File) error {
			w := table.NewWriter(f)
			if err := w.Write(cols); err != nil {
				return err
			}
			return w.Close()
		})
		if err != nil {
			return err
		}
		r.report.Chunks++
		finished(chunk)
		return ctx.Err()
	})
}

// publish puts the parts together. The lineage comes last: without it the next run
// takes the parts again.
func (r *run) publish(ctx context.Context) error {
	lin := &r.report.Lineage
	lin.Created = time.Now().UTC().Truncate(time.Second)
	made, err := json.Marshal(lin)
	if err != nil {
		return err
	}
	err = op.WriteAtomic(r.Output, func(f *os.File) error {
		w := table.NewWriter(f)
		w.Meta("mlc.lineage", string(made))
		if err := r.join(ctx, w); err != nil {
			return err
		}
		return w.Close()
	})
	if err != nil {
		return err
	}
	if lin.Output, err = artifact.DigestFile(r.Output); err != nil {
		return err
	}
	if lin.Rejected > 0 {
		r.report.Rejects = r.rejects()
		err = os.Rename(filepath.Join(r.parts, "rejects.jsonl"), r.report.Rejects)
	} else if err = os.Remove(r.rejects()); errors.Is(err, os.ErrNotExist) {
		err = nil // none is left of an earlier run
	}
	if err != nil {
		return err
	}
	made, err = json.MarshalIndent(lin, "", "  ")
	if err != nil {
		return err
	}
	return op.WriteAtomic(r.Output+".lineage.json", func(f *os.File) error {
		_, err := f.Write(append(made, '\n'))
		return err
	})
}

// join writes the rows of all parts in order.
func (r *run) join(ctx context.Context, w *table.Writer) error {
	db, err := sql.Open(ctx, filepath.Join(r.parts, "spill"), 0, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	want := map[string]table.Form{}
	for i, c := range r.columns {
		if r.mixed[i] {
			continue
		}
		switch c.Data.(type) {
		case []int64:
			want[c.Name] = table.Ints
		case []string:
			want[c.Name] = table.Texts
		case table.Values:
			want[c.Name] = table.AsIs
		default:
			want[c.Name] = table.Floats
		}
	}
	group := slices.Clone(r.columns)
	flush := func() error {
		err := w.Write(group)
		group = slices.Clone(r.columns)
		return err
	}
	for _, part := range r.done {
		if err := r.add(ctx, db, part, want, group); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return errors.Join(diag.Diagnostic{Severity: diag.Error, Code: diag.BadInput, What: "a finished chunk cannot be read: " + err.Error(), Why: "the output is put together from them",
				Mend: "run it again: that chunk is gone, and is predicted anew"}, os.Remove(part))
		}
		if group[0].Rows() >= groupRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if group[0].Rows() > 0 || r.report.Lineage.Rows == 0 {
		return flush()
	}
	return nil
}

// add reads the rows of a part and appends them to a group's columns.
func (r *run) add(ctx context.Context, db *sql.DB, part string, want map[string]table.Form, group []table.Column) error {
	for i := range r.mixed {
		texts, err := texts(ctx, db, part, i)
		if err != nil {
			return err
		}
		group[i] = group[i].Append(table.Column{Data: texts})
	}
	return table.Read(ctx, part, want, func(b table.Batch) error {
		for i, c := range group {
			if r.mixed[i] {
				continue
			}
			data := b.Columns[c.Name]
			switch c.Data.(type) {
			case []float32:
				data = floats(b.Floats(c.Name))
			case table.Bools:
				data = table.Bools(b.Floats(c.Name))
			}
			group[i] = c.Append(table.Column{Data: data})
		}
		return nil
	})
}

// texts are those of a column of a part, by its place: DuckDB passes over the case of names.
func texts(ctx context.Context, db *sql.DB, part string, place int) (out []string, err error) {
	all := "SELECT * FROM " + expr.ReadParquet(part)
	names, _, err := db.Columns(ctx, all)
	if err != nil {
		return nil, err
	}
	err = db.Rows(ctx, "SELECT CAST("+expr.QuoteName(names[place])+" AS VARCHAR) FROM ("+all+")", func(scan func(...any) error) error {
		var s *string
		if err := scan(&s); err != nil {
			return err
		}
		if s == nil {
			out = append(out, types.NullString)
		} else {
			out = append(out, *s)
		}
		return nil
	})
	return out, err
}

// floats are numbers that were float32 before, so nothing is lost.
func floats(in []float64) []float32 {
	out := make([]float32, len(in))
	for i, x := range in {
		out[i] = float32(x)
	}
	return out
}

// lockDir makes the folder and keeps other runs out of it. The system frees the
// lock when this process ends, however it ends.
func lockDir(dir string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, diag.Unwritable(strings.TrimSuffix(dir, ".parts"), err)
		}
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.Locked, What: fmt.Sprintf("another run is at work on %s", strings.TrimSuffix(dir, ".parts")),
				Why: "two at once would do the same work twice", Mend: "wait for it, or stop it"}
		}
		mine, err := f.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = os.Stat(dir); err == nil && os.SameFile(mine, there) {
				return func() { f.Close() }, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		// The run that had it removed it when it ended.
	}
}
