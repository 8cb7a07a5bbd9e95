package op

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// PredictOptions ask for predictions of a file's rows.
type PredictOptions struct {
	*bundle.Bundle
	Input     string
	Output    string   // "" or "-": CSV on Stdout
	Keep      []string // columns of the input to copy
	Delimiter string   // of a CSV input; "": as the label's source has it
	Source    kind.Source
	Stdout    *os.File
	Progress  func(done, total int64)
}

// PredictReport counts what Predict did.
type PredictReport struct {
	Rows     int64  `json:"rows"`
	Rejected int64  `json:"rejected"`
	Rejects  string `json:"rejects,omitempty"` // the file that holds them
}

// Predict reads rows, checks them as training data was checked, and writes a
// prediction for each good one, with its row number from 1. Bad rows go to
// <output>.rejects.jsonl.
func Predict(ctx context.Context, o PredictOptions) (PredictReport, error) {
	var rep PredictReport
	if err := o.sound(); err != nil {
		return rep, err
	}
	tmp, err := os.MkdirTemp("", "mlc-predict-")
	if err != nil {
		return rep, err
	}
	defer os.RemoveAll(tmp)
	db, err := sql.Open(ctx, filepath.Join(tmp, "spill"), 0, 0)
	if err != nil {
		return rep, err
	}
	defer db.Close()
	args, err := json.Marshal(map[string]any{"kind": "file", "path": o.Input, "format": "auto", "delimiter": o.delimiter(), "header": true, "null_values": nullValues(o.Signature)})
	if err != nil {
		return rep, err
	}
	names, err := o.Source.Names(ctx, args, o.Input, db)
	if err != nil {
		return rep, err
	}
	cols, err := match(o, names)
	if err != nil {
		return rep, err
	}
	var all []kind.Column
	have := map[string]bool{}
	for _, c := range cols {
		if !have[c.Name] {
			have[c.Name] = true
			all = append(all, c)
		}
	}
	for _, k := range o.Keep {
		if !have[k] {
			have[k] = true
			all = append(all, kind.Column{Name: k, Type: types.String})
		}
	}
	raw, rejects := filepath.Join(tmp, "raw.parquet"), filepath.Join(tmp, "rejects.jsonl")
	snap, err := o.Source.Snapshot(ctx, kind.SnapshotJob{Args: args, Columns: all, Files: []string{o.Input}, Labels: []string{o.Input}, Engine: db, Out: raw, Rejects: rejects})
	if err != nil {
		return rep, err
	}
	good := filepath.Join(tmp, "good.parquet")
	bad, err := o.check(ctx, db, raw, good, cols)
	if err != nil {
		return rep, err
	}
	number, err := numbering(rejects, names, o.Input)
	if err != nil {
		return rep, err
	}
	for i := range bad {
		bad[i].Row = number(bad[i].Row)
	}
	if rep.Rejected = int64(len(bad)) + snap.Rejected; rep.Rejected > 0 {
		rep.Rejects, err = o.writeRejects(rejects, bad)
	} else if err = os.Remove(o.rejects()); errors.Is(err, os.ErrNotExist) {
		err = nil // none is left of an earlier prediction
	}
	if err != nil {
		return rep, err
	}
	rep.Rows, err = o.predict(ctx, good, number)
	return rep, err
}

// numbering returns the number of a row in the file, from 1 after the header, by
// its place among the lines that could be read.
func numbering(rejects string, names []string, input string) (func(int64) int64, error) {
	b, err := os.ReadFile(rejects)
	if err != nil {
		return nil, err
	}
	header := int64(1)
	if ext := filepath.Ext(strings.TrimSuffix(strings.ToLower(input), ".gz")); ext != ".csv" && ext != ".tsv" && ext != ".tab" {
		header = 0
	}
	var gone []int64
	for _, line := range bytes.Split(b, []byte{'\n'}) {
		var r struct{ Line int64 }
		if len(line) > 0 && json.Unmarshal(line, &r) == nil {
			gone = append(gone, r.Line-header)
		}
	}
	slices.Sort(gone)
	return func(k int64) int64 {
		for _, g := range gone {
			if g > k {
				break
			}
			k++
		}
		return k
	}, nil
}

// rejects is where bad rows go.
func (o PredictOptions) rejects() string {
	if o.Output == "" || o.Output == "-" {
		return o.Input + ".rejects.jsonl"
	}
	return o.Output + ".rejects.jsonl"
}

// delimiter is that of the label's source, for files that are CSV as it is.
func (o PredictOptions) delimiter() string {
	if o.Delimiter != "" {
		return o.Delimiter
	}
	if ext := filepath.Ext(strings.TrimSuffix(strings.ToLower(o.Input), ".gz")); ext == ".csv" {
		return o.Signature.Delimiter
	}
	return ""
}

// sound refuses outputs that would write over the input or cannot be told apart.
func (o PredictOptions) sound() error {
	bad := func(what, mend string, args ...any) error {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.BadInput, What: fmt.Sprintf(what, args...), Mend: mend}
	}
	in, err := os.Stat(o.Input)
	if err != nil {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.FileMissing, What: fmt.Sprintf("no file %q", o.Input)}
	}
	if in.IsDir() {
		return bad("%s is a folder", "give a file of rows", o.Input)
	}
	if o.Output != "" && o.Output != "-" {
		if out, err := os.Stat(o.Output); err == nil && os.SameFile(in, out) {
			return bad("%s is the input", "write the predictions to another file", o.Output)
		}
		switch filepath.Ext(o.Output) {
		case ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet":
		default:
			return bad("the name of %s does not tell its format", "end it in .csv, .tsv, .jsonl or .parquet", o.Output)
		}
	}
	taken := map[string]bool{"row": true}
	for _, t := range o.Signature.Outputs {
		if taken[t.Name] = true; t.Width > 1 {
			for _, c := range o.Signature.Task.Classes {
				taken["probability."+c] = true
			}
		}
	}
	for _, k := range o.Keep {
		if taken[k] {
			return bad("column %q to keep is in the output already", "leave it out, or rename it in the input", k)
		}
		taken[k] = true
	}
	return nil
}

func nullValues(s bundle.Signature) []string {
	if len(s.NullValues) == 0 {
		return []string{""}
	}
	return s.NullValues
}

// match finds the column of each raw feature: by the feature's full name, else
// by that of the column it was trained on. All that are missing are told.
func match(o PredictOptions, names []string) ([]kind.Column, error) {
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	var list diag.List
	out := make([]kind.Column, len(o.Signature.Raw))
	for i, f := range o.Signature.Raw {
		name := f.Name
		called := strconv.Quote(name)
		if !have[name] && f.Column != "" {
			name = f.Column
			called += " or " + strconv.Quote(name)
		}
		if !have[name] {
			list.Add(diag.Range{}, diag.BadInput, "%s has no column %s%s", o.Input, called, diag.Suggest(name, names)).
				Because("the model takes it", "add the column; it may be empty where the value is missing")
		}
		out[i] = kind.Column{Name: name, Type: f.Type, Never: !f.Nullable, Min: f.Min, Max: f.Max, In: f.In}
	}
	for _, k := range o.Keep {
		if !have[k] {
			list.Add(diag.Range{}, diag.BadInput, "%s has no column %q to keep%s", o.Input, k, diag.Suggest(k, names))
		}
	}
	return out, list.Err()
}

// BadRow is a row that was set aside: its number from 1, why, and its texts.
type BadRow struct {
	Row     int64           `json:"row"`
	Reasons string          `json:"reasons"`
	Values  json.RawMessage `json:"values"`
}

// String is the row as JSON.
func (r BadRow) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Quarantined calls f for every row of a quarantine's Parquet file, in order.
func Quarantined(ctx context.Context, path string, f func(BadRow)) error {
	return table.Read(ctx, path, map[string]table.Form{"_row": table.Ints, "reasons": table.Texts, "row": table.Texts}, func(b table.Batch) error {
		for i, n := range b.Ints("_row") {
			f(BadRow{n, b.Texts("reasons")[i], json.RawMessage(b.Texts("row")[i])})
		}
		return nil
	})
}

// check writes the good rows in the form of raw features and returns the others.
func (o PredictOptions) check(ctx context.Context, db *sql.DB, raw, good string, cols []kind.Column) ([]BadRow, error) {
	from := expr.ReadParquet(raw)
	names, sqlTypes, err := db.Columns(ctx, "SELECT * FROM "+from)
	if err != nil {
		return nil, err
	}
	native := map[string]bool{}
	for i, n := range names {
		native[n] = sqlTypes[i] == "TIMESTAMP"
	}
	casts, values, texts := []string{}, []string{"_row"}, []string{}
	seen := map[string]bool{}
	for i, c := range cols {
		casts = append(casts, fmt.Sprintf("%s AS _t%d", typed(c, native[c.Name]), i))
		v := fmt.Sprintf("_t%d", i)
		switch c.Type {
		case types.String:
		case types.Timestamp:
			v = "CAST(epoch_us(" + v + ") AS DOUBLE)"
		default:
			v = "CAST(" + v + " AS DOUBLE)"
		}
		values = append(values, v+" AS "+expr.QuoteName(o.Signature.Raw[i].Name))
		if q := expr.QuoteName(c.Name); !seen[q] {
			seen[q] = true
			texts = append(texts, q+" := "+q)
		}
	}
	for i, k := range o.Keep {
		values = append(values, fmt.Sprintf("CAST(%s AS VARCHAR) AS _keep%d", expr.QuoteName(k), i))
	}
	q := fmt.Sprintf("CREATE TEMP TABLE checked AS SELECT *, %s AS _faults FROM (SELECT *, %s FROM %s)", faultsSQL(cols), strings.Join(casts, ", "), from)
	if err := db.Exec(ctx, q); err != nil {
		return nil, err
	}
	var bad []BadRow
	err = db.Rows(ctx, "SELECT _row, _faults, CAST(to_json(struct_pack("+strings.Join(texts, ", ")+")) AS VARCHAR) FROM checked WHERE _faults <> '' ORDER BY _row", func(scan func(...any) error) error {
		var b BadRow
		var text string
		if err := scan(&b.Row, &b.Reasons, &text); err != nil {
			return err
		}
		b.Values = json.RawMessage(text)
		bad = append(bad, b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows := "SELECT " + strings.Join(values, ", ") + " FROM checked WHERE _faults = ''"
	for _, c := range o.Signature.Computed {
		rows = "SELECT *, " + c.SQL + " AS " + expr.QuoteName(c.Name) + " FROM (" + rows + ")"
	}
	return bad, db.WriteParquet(ctx, rows+" ORDER BY _row", good)
}

func (o PredictOptions) writeRejects(lines string, bad []BadRow) (string, error) {
	path := o.rejects()
	b, err := os.ReadFile(lines)
	if err != nil {
		return "", err
	}
	for _, r := range bad {
		j, err := json.Marshal(r)
		if err != nil {
			return "", err
		}
		b = append(append(b, j...), '\n')
	}
	return path, writeAtomic(path, func(f *os.File) error { _, err := f.Write(b); return err })
}

func writeAtomic(path string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mlc-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// predict runs the good rows through the model in order and writes the result in
// the format of the output's name.
func (o PredictOptions) predict(ctx context.Context, good string, number func(int64) int64) (int64, error) {
	m, err := openModel(o.Model)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	total, err := table.Rows(good)
	if err != nil {
		return 0, err
	}
	want := map[string]table.Form{"_row": table.Ints}
	var rawInputs []lower.RawFeature
	for _, in := range o.Signature.Inputs {
		rawInputs = append(rawInputs, lower.RawFeature{Name: in.Name, Type: in.Type})
	}
	for n, f := range forms(rawInputs) {
		want[n] = f
	}
	for i := range o.Keep {
		want[fmt.Sprintf("_keep%d", i)] = table.Texts
	}
	res := predictions{rows: make([]int64, 0, total), keep: make([][]string, len(o.Keep)), out: make([]any, len(m.Outputs()))}
	for i, info := range m.Outputs() {
		if info.Type == "string" {
			res.out[i] = []string{}
		} else {
			res.out[i] = []float32{}
		}
	}
	err = table.Read(ctx, good, want, func(b table.Batch) error {
		for from := 0; from < b.Rows; from += chunk {
			to := min(from+chunk, b.Rows)
			c := columns{}
			for _, r := range rawInputs {
				switch d := b.Columns[r.Name].(type) {
				case []float64:
					c[r.Name] = d[from:to]
				case []string:
					c[r.Name] = d[from:to]
				}
			}
			out, err := m.run(c)
			if err != nil {
				return err
			}
			for i, d := range out {
				switch d := d.(type) {
				case []string:
					res.out[i] = append(res.out[i].([]string), d...)
				case []float32:
					res.out[i] = append(res.out[i].([]float32), d...)
				}
			}
			for _, k := range b.Ints("_row")[from:to] {
				res.rows = append(res.rows, number(k))
			}
			for i := range o.Keep {
				res.keep[i] = append(res.keep[i], b.Texts(fmt.Sprintf("_keep%d", i))[from:to]...)
			}
			if o.Progress != nil {
				o.Progress(int64(len(res.rows)), total)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return total, o.write(m, res)
}

type predictions struct {
	rows []int64
	keep [][]string
	out  []any // by output: []float32 of rows × width, or []string
}

// write lays the predictions out as columns: row, what was kept, the outputs.
// Probabilities of classes come a column a class.
func (o PredictOptions) write(m *model, res predictions) error {
	cols := []table.Column{{Name: "row", Data: res.rows}}
	for i, k := range o.Keep {
		cols = append(cols, table.Column{Name: k, Data: res.keep[i]})
	}
	for i, info := range m.Outputs() {
		switch d := res.out[i].(type) {
		case []string:
			cols = append(cols, table.Column{Name: info.Name, Data: d})
		case []float32:
			w := o.Signature.Outputs[i].Width
			for c := range w {
				name := info.Name
				if w > 1 {
					name = "probability." + o.Signature.Task.Classes[c]
				}
				v := make([]float32, len(res.rows))
				for r := range v {
					v[r] = d[r*w+c]
				}
				cols = append(cols, table.Column{Name: name, Data: v})
			}
		}
	}
	if o.Output == "" || o.Output == "-" {
		return writeText(o.Stdout, cols, ".csv")
	}
	ext := filepath.Ext(o.Output)
	if ext == ".parquet" {
		tmp := o.Output + ".tmp"
		if err := table.Write(tmp, cols); err != nil {
			return err
		}
		return os.Rename(tmp, o.Output)
	}
	return writeAtomic(o.Output, func(f *os.File) error { return writeText(f, cols, ext) })
}

// writeText writes CSV, TSV or JSON lines. Floats keep all their digits.
func writeText(f *os.File, cols []table.Column, ext string) error {
	w := bufio.NewWriter(f)
	rows := len(cols[0].Data.([]int64))
	cell := func(c table.Column, r int) (text string, null, quoted bool) {
		switch d := c.Data.(type) {
		case []int64:
			return strconv.FormatInt(d[r], 10), false, false
		case []float32:
			return strconv.FormatFloat(float64(d[r]), 'g', -1, 32), math.IsNaN(float64(d[r])), false
		case []string:
			return d[r], d[r] == types.NullString, true
		}
		return "", true, false
	}
	if ext == ".jsonl" || ext == ".ndjson" || ext == ".json" {
		for r := range rows {
			w.WriteByte('{')
			for i, c := range cols {
				if i > 0 {
					w.WriteByte(',')
				}
				name, err := json.Marshal(c.Name)
				if err != nil {
					return err
				}
				text, null, quoted := cell(c, r)
				v := []byte(text)
				if null {
					v = []byte("null")
				} else if quoted {
					if v, err = json.Marshal(text); err != nil {
						return err
					}
				}
				w.Write(name)
				w.WriteByte(':')
				w.Write(v)
			}
			w.WriteString("}\n")
		}
		return w.Flush()
	}
	out := csv.NewWriter(w)
	if ext == ".tsv" {
		out.Comma = '\t'
	}
	record := make([]string, len(cols))
	for i, c := range cols {
		record[i] = c.Name
	}
	if err := out.Write(record); err != nil {
		return err
	}
	for r := range rows {
		for i, c := range cols {
			text, null, _ := cell(c, r)
			if null {
				text = ""
			}
			record[i] = text
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return err
	}
	return w.Flush()
}
