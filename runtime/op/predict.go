package op

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
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
	Format    string   // of the input, as a source says it; "": as its name tells
	Delimiter string   // of a CSV input; "": as the label's source has it
	Encoding  string   // of an input of text; "": as the label's source has it
	Source    kind.Source
	// Args are those of the source that the input belongs to; nil: a file with the
	// label's source's delimiter, encoding and null values.
	Args json.RawMessage
	// Columns are those of the source, in order, where its files have no header.
	Columns  []string
	Stdout   *os.File
	Progress func(done, total int64)

	path string // of the rows: Input, or a copy of what can be read but once
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
	p, err := Prepare(ctx, o)
	if err != nil {
		return rep, err
	}
	defer p.Close()
	rep.Rows, rep.Rejected = p.Rows, p.Rejected
	if rep.Rejected > 0 {
		rep.Rejects = o.rejects()
		err = WriteAtomic(rep.Rejects, func(f *os.File) error { return p.Rejects(f, "") })
	} else if err = os.Remove(o.rejects()); errors.Is(err, os.ErrNotExist) {
		err = nil // none is left of an earlier prediction
	}
	if err != nil {
		return rep, err
	}
	cols := p.Columns()
	done := int64(0)
	err = p.Chunks(ctx, table.BatchRows, nil, func(_ int, more []table.Column) error {
		for i := range cols {
			cols[i] = cols[i].Append(more[i])
		}
		if done += int64(more[0].Rows()); o.Progress != nil {
			o.Progress(done, p.Rows)
		}
		return nil
	})
	if err != nil {
		return rep, err
	}
	return rep, o.write(cols)
}

// Prepared is a file's rows, read and checked: the good ones in the form that the
// model takes, the others with their reasons. Both are in files of its own, not in
// memory.
type Prepared struct {
	// Rows and Rejected count the good rows and the others.
	Rows, Rejected int64

	o       PredictOptions
	dir     string // of its own files
	good    string
	rejects string
	number  func(int64) int64
	model   *model
	kept    []any // of each column that is kept, what table.Column has of it without rows
}

// Prepare reads and checks the rows of the input. The caller closes it.
func Prepare(ctx context.Context, o PredictOptions) (*Prepared, error) {
	if err := o.sound(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mlc-predict-")
	if err != nil {
		return nil, err
	}
	p := &Prepared{o: o, dir: dir, good: filepath.Join(dir, "good.parquet"), rejects: filepath.Join(dir, "rejects.jsonl")}
	if p.o.path = o.Input; o.streamed() {
		p.o.path, err = copyStream(o.Input, dir)
	}
	if err == nil {
		err = p.read(ctx)
	}
	if err == nil {
		p.model, err = openModel(o.Model)
	}
	var faults kind.Faults
	if errors.As(err, &faults) { // of the file; there is no spec whose line they are about
		var list diag.List
		for _, f := range faults {
			list.Add(diag.Range{}, f.Code, "%s", strings.ReplaceAll(f.What, p.o.path, o.Input)).Because(f.Why, f.Mend)
		}
		err = list.Err()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Stdin is the name of the standard input.
const Stdin = "/dev/stdin"

// streamed reports whether the input can be read but once.
func (o PredictOptions) streamed() bool {
	info, err := os.Stat(o.Input)
	return o.Input == Stdin || err == nil && !info.Mode().IsRegular()
}

// copyStream copies what can be read but once to a file in dir.
func copyStream(path, dir string) (string, error) {
	in := os.Stdin
	if path != Stdin {
		var err error
		if in, err = os.Open(path); err != nil {
			return "", err
		}
		defer in.Close()
	}
	out, err := os.Create(filepath.Join(dir, "of "+filepath.Base(path))) // whose end may tell the format
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return out.Name(), errors.Join(err, out.Close())
}

// Close frees the model and removes the files.
func (p *Prepared) Close() {
	if p.model != nil {
		_ = p.model.Close() // it fails only where the model is gone already
	}
	_ = os.RemoveAll(p.dir) // temporary
}

// read makes the files of good and bad rows.
func (p *Prepared) read(ctx context.Context) error {
	o := p.o
	db, err := sql.Open(ctx, filepath.Join(p.dir, "spill"), 0, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	args, err := o.args()
	if err != nil {
		return err
	}
	names, err := o.Source.Names(ctx, args, o.path, db)
	if err != nil {
		return err
	}
	ordered := o.Source.Ordered(args)
	if ordered {
		names = o.Columns
	}
	cols, err := match(o, names)
	if err != nil {
		return o.misread(ctx, db, err)
	}
	var all []kind.Column
	for _, c := range cols {
		switch i := slices.IndexFunc(all, func(have kind.Column) bool { return have.Name == c.Name }); {
		case i < 0:
			all = append(all, c)
		case all[i].Type != c.Type: // each is read from the text
			all[i].Type = types.String
		}
	}
	taken := map[string]string{}
	for _, c := range all {
		taken[strings.ToLower(c.Name)] = c.Name
	}
	for _, k := range o.Keep {
		if have, ok := taken[strings.ToLower(k)]; ok && have != k {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.BadInput, What: fmt.Sprintf("columns %q and %q differ only in case, which SQL passes over", have, k), Mend: "rename one of them in the input"}
		}
		taken[strings.ToLower(k)] = k
	}
	if ordered { // each at its place, also those that nobody asks for
		asked := all
		all = make([]kind.Column, len(names))
		for i, n := range names {
			all[i] = kind.Column{Name: n, Type: types.String}
			if k := slices.IndexFunc(asked, func(c kind.Column) bool { return c.Name == n }); k >= 0 {
				all[i] = asked[k]
			}
		}
	}
	// The value of raw feature i becomes _t<i>, what is kept stays _keep<i>.
	var inputs []reading
	for i, c := range cols {
		inputs = append(inputs, reading{c.Name, c.Name, fmt.Sprintf("_t%d", i), c.Type})
	}
	for i, k := range o.Keep {
		name := fmt.Sprintf("_keep%d", i)
		inputs = append(inputs, reading{k, name, name, ""})
	}
	raw := filepath.Join(p.dir, "raw.parquet")
	unread := filepath.Join(p.dir, unreadFile)
	work := filepath.Join(p.dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	job := kind.SnapshotJob{Args: args, Columns: all, Files: []string{o.path}, Labels: []string{o.Input}, Engine: db, Out: raw, Rejects: p.rejects, Keep: o.Keep, Work: kind.Work{Dir: work}}
	job.Write = func(ctx context.Context, query string) error {
		return writeTyped(ctx, db, query, inputs, raw, unread, filepath.Join(p.dir, "scratch.parquet"))
	}
	snap, err := o.Source.Snapshot(ctx, job)
	if err != nil {
		return err
	}
	if p.number, err = numbering(p.rejects); err != nil {
		return err
	}
	bad, err := p.check(ctx, db, raw, unread, cols)
	if err != nil {
		return err
	}
	p.Rejected = bad + snap.Rejected
	if p.Rows, err = table.Rows(p.good); err != nil {
		return err
	}
	return errors.Join(os.Remove(raw), os.Remove(unread))
}

// misread tells with which other delimiter the file has all columns that are asked for;
// without one, err.
func (o PredictOptions) misread(ctx context.Context, db *sql.DB, err error) error {
	if o.Args != nil {
		return err
	}
	for _, d := range []string{",", ";", "\t", "|"} {
		o.Delimiter = d
		args, aerr := o.args()
		names, nerr := o.Source.Names(ctx, args, o.path, db)
		if _, merr := match(o, names); aerr == nil && nerr == nil && merr == nil {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.Unreadable, What: fmt.Sprintf("%s does not have the model's columns as it is read, but does where %q separates them", o.Input, d), Mend: fmt.Sprintf("set delimiter: %q", d)}
		}
	}
	return err
}

// args are the source's arguments for the input.
func (o PredictOptions) args() (json.RawMessage, error) {
	args := map[string]any{"kind": "file", "format": cmp.Or(o.Format, "auto"), "delimiter": o.delimiter(), "encoding": cmp.Or(o.Encoding, o.Signature.Encoding), "header": true, "null_values": nullValues(o.Signature)}
	if o.Args != nil {
		args = nil
		if err := json.Unmarshal(o.Args, &args); err != nil {
			return nil, err
		}
	}
	args["path"] = o.path
	return json.Marshal(args)
}

// Rejects copies the bad rows as JSON lines: those that are no rows as the source
// tells them, which name their file, then each BadRow, with the name of its file unless
// that is "".
func (p *Prepared) Rejects(to io.Writer, file string) error {
	f, err := os.Open(p.rejects)
	if err != nil {
		return err
	}
	defer f.Close()
	if file == "" {
		_, err = io.Copy(to, f)
		return err
	}
	name, err := json.Marshal(file)
	if err != nil {
		return err
	}
	bad := []byte(`{"row":`) // how a BadRow begins
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadBytes('\n')
		if rest, ok := bytes.CutPrefix(line, bad); ok {
			line = slices.Concat([]byte(`{"file":`), name, []byte(`,"row":`), rest)
		}
		if _, werr := to.Write(line); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// numbering returns the number of a row in the file, from 1 after the header and
// without blank lines, by its place among those that could be read.
func numbering(rejects string) (func(int64) int64, error) {
	f, err := os.Open(rejects)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var gone []int64
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var r struct{ Row int64 }
		if err := d.Decode(&r); err != nil {
			return nil, err
		}
		gone = append(gone, r.Row)
	}
	slices.Sort(gone)
	for i := range gone { // the k at which the row moves those after it by i+1
		gone[i] -= int64(i)
	}
	return func(k int64) int64 {
		return k + int64(sort.Search(len(gone), func(i int) bool { return gone[i] > k }))
	}, nil
}

// rejects is where bad rows go.
func (o PredictOptions) rejects() string {
	if o.Output == "" || o.Output == "-" {
		if o.streamed() { // its folder may be none
			return filepath.Base(o.Input) + ".rejects.jsonl"
		}
		return o.Input + ".rejects.jsonl"
	}
	return o.Output + ".rejects.jsonl"
}

// delimiter is that of the label's source, for files that are CSV as it is.
func (o PredictOptions) delimiter() string {
	if o.Delimiter != "" {
		return o.Delimiter
	}
	ext := filepath.Ext(strings.TrimSuffix(strings.ToLower(o.Input), ".gz"))
	if o.Format == "csv" || (o.Format == "" || o.Format == "auto") && ext == ".csv" {
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
		switch out, err := os.Stat(o.Output); {
		case err == nil && os.SameFile(in, out):
			return bad("%s is the input", "write the predictions to another file", o.Output)
		case err == nil && out.IsDir():
			return bad("%s is a folder", "give a file of predictions", o.Output)
		}
		switch filepath.Ext(o.Output) {
		case ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet":
		default:
			return bad("the name of %s does not tell its format", "end it in .csv, .tsv, .jsonl or .parquet", o.Output)
		}
		if _, err := os.Stat(filepath.Dir(o.Output) + "/"); err != nil { // told before the work, not after it
			return diag.Unwritable(o.Output, err)
		}
	}
	taken := map[string]bool{"row": true}
	for _, t := range o.Signature.Outputs {
		for _, c := range slices.Concat(o.Signature.Columns(t), o.Signature.Decisions(t), []string{t.Name}) {
			taken[c] = true
		}
	}
	for _, k := range o.Keep {
		if taken[k] {
			return bad("column %q to keep is in the output already", "leave it out, or rename it in the input", k)
		}
		if strings.HasPrefix(k, "_") {
			return bad("column %q to keep begins with an underscore, as mlc's own names do", "rename it in the input", k)
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
	if len(names) == 0 {
		list.Add(diag.Range{}, diag.Unreadable, "no columns can be read in %s", o.Input).Because("JSON lines are an object a line", `set format: "csv", or what else it is`)
		return nil, list.Err()
	}
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
				Because("the model takes it; the file has "+diag.Some(names), "add the column; it may be empty where the value is missing")
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

// BadRow is a row that was set aside: its number from 1, within its file where there are
// several, why, and its values as texts: those that stand there where one of them cannot
// be read, else as they were read.
type BadRow struct {
	Row     int64           `json:"row"`
	File    string          `json:"file,omitempty"`
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
	return table.Read(ctx, path, map[string]table.Form{"place": table.Ints, "file": table.Texts, "reasons": table.Texts, "row": table.Texts}, func(b table.Batch) error {
		for i, n := range b.Ints("place") {
			f(BadRow{n, b.Texts("file")[i], b.Texts("reasons")[i], json.RawMessage(b.Texts("row")[i])})
		}
		return nil
	})
}

// check writes the good rows in the form of raw features, adds the others to the
// rejects, and counts them.
func (p *Prepared) check(ctx context.Context, db *sql.DB, raw, unread string, cols []kind.Column) (bad int64, err error) {
	o := p.o
	values, cells, texts := []string{"_row"}, make([]string, len(cols)), []string{}
	seen := map[string]bool{}
	for i, c := range cols {
		cells[i] = fmt.Sprintf("_t%d", i)
		v := cells[i]
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
			texts = append(texts, q+" := CAST("+cells[i]+" AS VARCHAR)")
		}
	}
	names, duckTypes, err := db.Columns(ctx, "SELECT * FROM "+expr.ReadParquet(raw))
	if err != nil {
		return 0, err
	}
	for i, k := range o.Keep {
		keep := fmt.Sprintf("_keep%d", i)
		has := duckTypes[slices.Index(names, keep)]
		v, own := o.kept(keep, has)
		values = append(values, v+" AS "+keep)
		if p.kept = append(p.kept, []string{}); own {
			p.kept[i] = table.Values{}
		}
		if q := expr.QuoteName(k); !seen[q] {
			texts = append(texts, q+" := "+asText(keep, has))
		}
	}
	reasons := []string{"u._reasons"}
	for _, r := range rules(cols, cells, nil) {
		reasons = append(reasons, r.reasons...)
	}
	from := expr.ReadParquet(raw)
	for i, f := range o.Signature.Raw { // texts that training has read as missing
		for _, text := range f.Nulls {
			from = fmt.Sprintf("(SELECT * REPLACE (nullif(%[1]s, %[2]s) AS %[1]s) FROM %[3]s)", cells[i], expr.QuoteString(text), from)
		}
	}
	q := fmt.Sprintf("CREATE TEMP TABLE checked AS SELECT r.*, replace(concat_ws(chr(31), %s), chr(31), '; ') AS _faults, u._texts FROM %s AS r LEFT JOIN %s AS u USING (_row)",
		strings.Join(reasons, ", "), from, readUnread(unread))
	if err := db.Exec(ctx, q); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(p.rejects, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	err = db.Rows(ctx, "SELECT _row, _faults, coalesce(_texts, CAST(to_json(struct_pack("+strings.Join(texts, ", ")+")) AS VARCHAR)) FROM checked WHERE _faults <> '' ORDER BY _row", func(scan func(...any) error) error {
		var b BadRow
		var text string
		if err := scan(&b.Row, &b.Reasons, &text); err != nil {
			return err
		}
		b.Row, b.Values = p.number(b.Row), json.RawMessage(text)
		bad++
		line, err := json.Marshal(b)
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return 0, err
	}
	rows := "SELECT " + strings.Join(values, ", ") + " FROM checked WHERE _faults = ''"
	for _, c := range o.Signature.Computed {
		rows = "SELECT *, " + c.SQL + " AS " + expr.QuoteName(c.Name) + " FROM (" + rows + ")"
	}
	if err := db.WriteParquet(ctx, rows+" ORDER BY _row", p.good); err != nil {
		return 0, err
	}
	for i, k := range p.kept {
		if _, own := k.(table.Values); own {
			if p.kept[i], err = table.None(p.good, fmt.Sprintf("_keep%d", i)); err != nil {
				return 0, err
			}
		}
	}
	return bad, nil
}

// kept is the SQL of what is written of a column that is kept: in Parquet the values as
// they are (own) where they have a type that mlc writes, in JSON lines their JSON, else
// their text.
func (o PredictOptions) kept(q, sqlType string) (value string, own bool) {
	bare, _, _ := strings.Cut(sqlType, "(")
	switch ext := filepath.Ext(o.Output); {
	case ext == ".parquet" && (sqlNumbers[bare] || sqlOthers[bare]):
		return q, true
	case isJSON(ext) && (sqlType == "JSON" || sqlNumbers[bare]):
		return "CAST(" + q + " AS VARCHAR)", false
	case isJSON(ext):
		return "CAST(to_json(" + q + ") AS VARCHAR)", false
	}
	return asText(q, sqlType), false
}

// sqlNumbers and sqlOthers are the SQL types, without their sizes, that Parquet has.
var (
	sqlNumbers = map[string]bool{"TINYINT": true, "SMALLINT": true, "INTEGER": true, "BIGINT": true, "UTINYINT": true, "USMALLINT": true, "UINTEGER": true, "UBIGINT": true, "FLOAT": true, "DOUBLE": true, "DECIMAL": true}
	sqlOthers  = map[string]bool{"BOOLEAN": true, "DATE": true, "TIMESTAMP": true, "TIMESTAMP_NS": true, "TIMESTAMP WITH TIME ZONE": true}
)

func isJSON(ext string) bool { return ext == ".jsonl" || ext == ".ndjson" || ext == ".json" }

// WriteFile is WriteAtomic of bytes.
func WriteFile(path string, b []byte) error {
	return WriteAtomic(path, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// WriteAtomic makes a file that is whole or not there: another by that name stays
// until then. The error is a diag.Diagnostic where the file cannot be written.
func WriteAtomic(path string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mlc-")
	if err != nil {
		return diag.Unwritable(path, err)
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
	if err := os.Rename(f.Name(), path); err != nil {
		return diag.Unwritable(path, err)
	}
	return nil
}

// Columns are those of the predictions, without rows: row, what is kept, the
// outputs, what is decided by them. Probabilities of classes come a column a class.
func (p *Prepared) Columns() []table.Column {
	out := make([]any, len(p.model.Outputs()))
	for i, info := range p.model.Outputs() {
		if info.Type == "string" {
			out[i] = []string{}
		} else {
			out[i] = []float32{}
		}
	}
	return p.columns(nil, p.kept, out)
}

func (p *Prepared) columns(rows []int64, keep, out []any) []table.Column {
	cols := []table.Column{{Name: "row", Data: rows}}
	for i, k := range p.o.Keep {
		cols = append(cols, table.Column{Name: k, Data: keep[i]})
	}
	for i, info := range p.model.Outputs() {
		switch d := out[i].(type) {
		case []string:
			cols = append(cols, table.Column{Name: info.Name, Data: d})
		case []float32:
			names, decisions := p.o.Signature.Columns(p.o.Signature.Outputs[i]), p.o.Signature.Decisions(p.o.Signature.Outputs[i])
			w := len(names)
			for c, name := range names {
				v := make([]float32, len(rows))
				for r := range v {
					v[r] = d[r*w+c]
				}
				cols = append(cols, table.Column{Name: name, Data: v})
			}
			cut := float32(p.o.Signature.Task.Cut())
			for c, name := range decisions {
				v := make(table.Bools, len(rows))
				for r := range v {
					v[r] = decide(d[r*w+c], cut)
				}
				cols = append(cols, table.Column{Name: name, Data: v})
			}
		}
	}
	return cols
}

// decide tells whether a probability or score reaches a threshold: 1 or 0, and NaN where
// it is no finite number, as a service does.
func decide(p, cut float32) float64 {
	switch {
	case p-p != 0:
		return math.NaN()
	case p >= cut:
		return 1
	}
	return 0
}

// Chunks predicts the good rows, so many at a time, and calls f with each chunk's
// predictions, laid out as Columns, in order. A chunk for which skip is true is
// passed over. No more than one is in memory.
func (p *Prepared) Chunks(ctx context.Context, size int, skip func(chunk int) bool, f func(chunk int, cols []table.Column) error) error {
	want := map[string]table.Form{"_row": table.Ints}
	var raw []lower.RawFeature
	for _, in := range p.o.Signature.Inputs {
		raw = append(raw, lower.RawFeature{Name: in.Name, Type: in.Type})
	}
	maps.Copy(want, forms(raw))
	for i, k := range p.kept {
		form := table.Texts
		if _, own := k.(table.Values); own {
			form = table.AsIs
		}
		want[fmt.Sprintf("_keep%d", i)] = form
	}
	held, number, n := columns{}, 0, 0 // n rows of the chunk of a number
	flush := func() error {
		defer func() { held, number, n = columns{}, number+1, 0 }()
		if skip != nil && skip(number) {
			return nil
		}
		out, err := p.model.parallel(ctx, held, n)
		if err != nil {
			return err
		}
		rows, keep := held["_row"].([]int64), make([]any, len(p.kept))
		for i, k := range rows {
			rows[i] = p.number(k)
		}
		for i := range keep {
			keep[i] = held[fmt.Sprintf("_keep%d", i)]
		}
		return f(number, p.columns(rows, keep, out))
	}
	err := table.Read(ctx, p.good, want, func(b table.Batch) error {
		for from := 0; from < b.Rows; {
			to := min(b.Rows, from+size-n)
			for name, c := range b.Columns {
				switch d := c.(type) {
				case []float64:
					held[name] = extend(held[name], d[from:to])
				case []int64:
					held[name] = extend(held[name], d[from:to])
				case []string:
					held[name] = extend(held[name], d[from:to])
				case table.Values:
					have, _ := held[name].(table.Values)
					held[name] = have.Append(d.Slice(from, to))
				}
			}
			n, from = n+to-from, to
			if n == size {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil && n > 0 {
		err = flush()
	}
	return err
}

// extend appends to a slice that may not be there yet.
func extend[T any](to any, more []T) []T {
	have, _ := to.([]T)
	return append(have, more...)
}

// write makes the output in the format of its name.
func (o PredictOptions) write(cols []table.Column) error {
	if o.Output == "" || o.Output == "-" {
		return writeText(o.Stdout, cols, ".csv", 0)
	}
	ext := filepath.Ext(o.Output)
	if ext == ".parquet" {
		return WriteAtomic(o.Output, func(f *os.File) error {
			w := table.NewWriter(f)
			return errors.Join(w.Write(cols), w.Close())
		})
	}
	return WriteAtomic(o.Output, func(f *os.File) error { return writeText(f, cols, ext, len(o.Keep)) })
}

// writeText writes CSV, TSV or JSON lines. Floats keep all their digits. In JSON lines,
// the columns after the first, as many as were kept, are JSON, and what JSON does not
// have, such as infinity, is null.
func writeText(f *os.File, cols []table.Column, ext string, kept int) error {
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
		case table.Bools:
			return strconv.FormatBool(d[r] == 1), math.IsNaN(d[r]), false
		}
		return "", true, false
	}
	if isJSON(ext) {
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
				if quoted && i > kept && !null {
					if v, err = json.Marshal(text); err != nil {
						return err
					}
				} else if null || !json.Valid(v) {
					v = []byte("null")
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
