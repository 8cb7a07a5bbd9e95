package container

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/table"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/foreign"
)

// Contract is what is between mlc and a program that trains: tables go in, an ONNX
// model comes out.
type Contract struct {
	// Kind is the trainer's, Field the argument that faults are about, and Def the
	// definition that tells the user of the contract.
	Kind, Field, Def string
	Params           json.RawMessage
	// Arrays hands the rows over as NumPy's arrays in place of Parquet tables.
	Arrays bool
	// Sound proves at once that the model predicts numbers, and probabilities where
	// the task asks for them; else evaluation does.
	Sound bool
}

// labelColumn cannot be a feature's name, which has a dot.
const labelColumn = "_label"

// tables is schema.json: what the program finds in MLC_IN.
type tables struct {
	Format    string          `json:"format"`
	Task      string          `json:"task"`
	Classes   []string        `json:"classes,omitempty"`
	Quantiles []float64       `json:"quantiles,omitempty"`
	Features  []string        `json:"features"`
	Label     string          `json:"label,omitempty"`
	Labels    []string        `json:"labels,omitempty"` // in place of Label, where a row has several
	Rows      map[string]int  `json:"rows"`
	Seed      uint64          `json:"seed"`
	Params    json.RawMessage `json:"params,omitempty"`
}

// Train writes the rows, runs the program, and checks what it left: the model's
// signature, and its predictions where the program made some itself. Report has
// model_bytes and, where there was a proof, proved_rows.
func (c Contract) Train(ctx context.Context, job kind.TrainJob, p container.Program) (kind.TrainResult, error) {
	var none kind.TrainResult
	s := tables{Format: "mlc.tables.v1", Task: job.Task.Kind, Classes: job.Task.Classes, Quantiles: job.Task.Quantiles, Features: job.Names, Label: labelColumn, Seed: job.Seed, Params: c.Params,
		Rows: map[string]int{"train": job.Train.X.Rows, "validation": job.Valid.X.Rows}}
	if job.Task.Targets() > 1 {
		s.Label, s.Labels = "", labelColumns(job.Task)
	}
	files := map[string]string{}
	for part, e := range map[string]kind.Examples{"train": job.Train, "validation": job.Valid} {
		if err := c.write(files, filepath.Join(job.Work.Dir, part), job, e); err != nil {
			return none, err
		}
	}
	out, err := p.Call(ctx, job.Work, s, files)
	if err != nil {
		return none, err
	}
	made := foreign.Origin{Kind: c.Kind, Name: "model.onnx", Field: c.Field, Code: diag.BadOutput, Def: c.Def}
	raw, err := os.ReadFile(filepath.Join(out, "model.onnx"))
	if errors.Is(err, fs.ErrNotExist) {
		return none, made.Fault(fmt.Sprintf("the %s left no model.onnx", c.Field), "it is what a trainer makes", "write it to the folder that MLC_OUT names")
	}
	if err != nil {
		return none, err
	}
	model, err := made.Adapt(raw, job.Task, len(job.Names), nil)
	if err != nil {
		return none, err
	}
	predictor, err := foreign.Open(model, job.Task.Width())
	if err != nil {
		return none, err
	}
	if c.Sound {
		rows, part := job.Valid.X, kind.PartNames[kind.Valid]
		if rows.Rows == 0 {
			rows, part = job.Train.X, kind.PartNames[kind.Train]
		}
		if err := made.Sound(predictor, job.Task, rows, part); err != nil {
			return none, err
		}
	}
	report := map[string]any{"model_bytes": len(raw)}
	proved, err := c.prove(ctx, out, job, predictor.Predict, made)
	if err != nil {
		return none, err
	}
	if proved > 0 {
		report["proved_rows"] = proved
	}
	return kind.TrainResult{Model: model, Predict: predictor.Predict, Report: report}, nil
}

// labelColumns are the columns of a row's labels: _label, or for a multilabel
// _label.0, _label.1, … in the order of the labels.
func labelColumns(t kind.Task) []string {
	if t.Targets() == 1 {
		return []string{labelColumn}
	}
	out := make([]string, t.Targets())
	for i := range out {
		out[i] = fmt.Sprintf("%s.%d", labelColumn, i)
	}
	return out
}

// write makes one part's files, of which path is the beginning, and adds them.
func (c Contract) write(files map[string]string, path string, job kind.TrainJob, e kind.Examples) error {
	part, targets := filepath.Base(path), job.Task.Targets()
	if c.Arrays {
		files[part+".x.npy"], files[part+".y.npy"] = path+".x.npy", path+".y.npy"
		if err := array(path+".x.npy", "<f4", e.X.Data, e.X.Rows, e.X.Cols); err != nil {
			return err
		}
		shape := []int{e.X.Rows}
		if targets > 1 {
			shape = append(shape, targets)
		}
		return array(path+".y.npy", "<f8", e.Y, shape...)
	}
	cols := make([]table.Column, 0, len(job.Names)+targets)
	for k, n := range job.Names {
		col := make([]float32, e.X.Rows)
		for r := range col {
			col[r] = e.X.Data[r*e.X.Cols+k]
		}
		cols = append(cols, table.Column{Name: n, Data: col})
	}
	for k, n := range labelColumns(job.Task) {
		col := e.Y
		if targets > 1 {
			col = make([]float64, e.X.Rows)
			for r := range col {
				col[r] = e.Y[r*targets+k]
			}
		}
		cols = append(cols, table.Column{Name: n, Data: col})
	}
	files[part+".parquet"] = path + ".parquet"
	return table.Write(path+".parquet", cols)
}

// array writes a file of NumPy's format 1.0 (numpy.lib.format): row-major data of a
// type, such as "<f4".
func array[T float32 | float64](path, dtype string, data []T, shape ...int) error {
	dims := strings.Trim(strings.ReplaceAll(fmt.Sprint(shape), " ", ", "), "[]")
	if len(shape) == 1 {
		dims += "," // a tuple, as Python writes it
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtype, dims)
	const before, align = 10, 64 // the bytes before the header, and what all of it is a multiple of
	header += strings.Repeat(" ", (align-(before+len(header)+1)%align)%align) + "\n"
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	size := len(header)
	if _, err = f.WriteString("\x93NUMPY\x01\x00" + string([]byte{byte(size), byte(size >> 8)}) + header); err == nil {
		err = writeAll(f, data)
	}
	return errors.Join(err, f.Close())
}

// writeAll writes numbers, little-endian, some at a time.
func writeAll[T float32 | float64](f *os.File, data []T) error {
	const some = 1 << 16
	for ; len(data) > 0; data = data[min(some, len(data)):] {
		if err := binary.Write(f, binary.LittleEndian, data[:min(some, len(data))]); err != nil {
			return err
		}
	}
	return nil
}

// tolerance is how far the program's own predictions may be from its model's:
// libraries compute in doubles, the model in floats.
const tolerance = 1e-3

// prove holds the program's own predictions of the validation rows, where it left
// them, against those of its model, and returns how many rows there were.
func (c Contract) prove(ctx context.Context, out string, job kind.TrainJob, predict func(kind.Matrix) []float32, made foreign.Origin) (int, error) {
	name, rows, form, read := "predictions.parquet", "validation.parquet", "write the float columns p0, p1, …, or leave the file out", columns
	if c.Arrays {
		name, rows, form, read = "predictions.npy", "validation.x.npy", "save an array of floats [N, width], or leave the file out", readArray
	}
	path, w := filepath.Join(out, name), job.Task.Width()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	got, err := read(ctx, path, w)
	if err != nil {
		return 0, made.Fault(fmt.Sprintf("%s: %v", name, err), "the model is proved by it", form)
	}
	y := predict(job.Valid.X)
	if len(got) != len(y) {
		return 0, made.Fault(fmt.Sprintf("%s has %d rows, %s has %d", name, len(got)/w, rows, job.Valid.X.Rows), "the model is proved by it", "write one row for each of "+rows+", in its order")
	}
	for i, v := range got {
		if d := math.Abs(v - float64(y[i])); !(d <= tolerance*max(1, math.Abs(v))) {
			return 0, kind.Faults{{Field: c.Field, Code: diag.ProofFailed, What: fmt.Sprintf("row %d of %s: the %s predicts %g, its model.onnx %g", i/w, rows, c.Field, v, y[i]),
				Why: "what is served would not be what was trained", Mend: "mend the export to ONNX"}}
		}
	}
	return job.Valid.X.Rows, nil
}

// columns reads the columns p0, p1, … of a Parquet file, row by row.
func columns(ctx context.Context, path string, width int) ([]float64, error) {
	want := map[string]table.Form{}
	for k := range width {
		want[fmt.Sprintf("p%d", k)] = table.Floats
	}
	var got []float64
	err := table.Read(ctx, path, want, func(b table.Batch) error {
		for r := range b.Rows {
			for k := range width {
				got = append(got, b.Floats(fmt.Sprintf("p%d", k))[r])
			}
		}
		return nil
	})
	return got, err
}

// readArray reads what numpy.save writes of floats [N, width], or [N] for a width of
// 1, in row-major order.
func readArray(_ context.Context, path string, width int) ([]float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// numpy.lib.format: the magic, the version 1.0, the header's size, the header.
	if len(b) < 10 || string(b[:8]) != "\x93NUMPY\x01\x00" || len(b) < 10+int(binary.LittleEndian.Uint16(b[8:])) {
		return nil, errors.New("it does not have the form of an array of NumPy's")
	}
	at := 10 + int(binary.LittleEndian.Uint16(b[8:]))
	header, data := string(b[10:at]), b[at:]
	size := 8
	switch {
	case !strings.Contains(header, "'fortran_order': False"):
		return nil, errors.New("it is column by column, not row by row")
	case strings.Contains(header, "'descr': '<f4'"):
		size = 4
	case !strings.Contains(header, "'descr': '<f8'"):
		return nil, errors.New("it holds no floats")
	}
	if len(data)%(size*width) != 0 {
		return nil, fmt.Errorf("it does not hold %d floats a row", width)
	}
	got := make([]float64, len(data)/size)
	for i := range got {
		if size == 4 {
			got[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
			continue
		}
		got[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return got, nil
}
