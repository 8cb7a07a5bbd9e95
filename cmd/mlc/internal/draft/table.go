package draft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/stdlib/source/file"
)

// table is the rows of a source, in a file of texts. Column i of cols is c<i> in SQL.
type table struct {
	db   *sql.DB
	file string
	path string // as the user wrote it
	args args
	rows int64
	// rejected lines are no rows; rows set aside have a value that is none of its column's type.
	rejected, aside int64
	cols            []*column
	left            []unusable
}

// args are those of the source that the draft writes.
type args struct {
	Path       string   `json:"path"`
	Format     string   `json:"format"`
	Delimiter  string   `json:"delimiter,omitempty"`
	Header     bool     `json:"header"`
	NullValues []string `json:"null_values"`
	// Encoding is told only: what is read here is UTF-8.
	Encoding string `json:"-"`
}

func (a args) json() json.RawMessage {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // texts and booleans
	}
	return b
}

// unusable is a column that a spec cannot declare.
type unusable struct{ name, why string }

// read reads the rows of a file or pattern into dir, as texts.
// The caller closes the table's engine.
func read(ctx context.Context, dir, path string) (*table, error) {
	t := &table{path: path, args: args{Path: path, Format: "auto", Header: true, NullValues: []string{""}}}
	delimited := false
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".csv", ".tsv", ".tab":
		delimited = true
	case ".jsonl", ".ndjson", ".json", ".parquet":
	default: // .txt, .data: nearly always delimited
		t.args.Format, delimited = "csv", true
	}
	files, faults := file.Source{}.Files(t.args.json(), ".")
	if len(faults) > 0 {
		for i := range faults {
			faults[i].Mend = "mend --from; it starts at the current folder"
		}
		return nil, kind.Faults(faults)
	}
	abs := make([]string, len(files))
	for i, f := range files {
		var err error
		if abs[i], err = filepath.Abs(f); err != nil {
			return nil, err
		}
	}
	first, err := t.transcode(dir, abs, files)
	if err != nil {
		return nil, err
	}
	if err := t.open(ctx, dir); err != nil {
		return nil, err
	}
	names, err := t.names(ctx, first, delimited)
	if err == nil {
		t.declare(names)
		err = t.load(ctx, dir, abs, files)
	}
	if err != nil {
		t.db.Close()
		return nil, err
	}
	words, err := t.words(ctx, delimited)
	if err == nil && len(words) > 0 {
		t.args.NullValues = append(t.args.NullValues, words...)
		t.db.Close() // with what it holds of the first reading
		if err = t.open(ctx, dir); err != nil {
			return nil, err
		}
		err = t.load(ctx, dir, abs, files)
	}
	if err != nil {
		t.db.Close()
		return nil, err
	}
	return t, nil
}

// transcode finds the encoding of the first file that is not UTF-8, and puts copies in
// UTF-8 in the place of the files where there is one. It returns the path of the first.
func (t *table) transcode(dir string, paths, labels []string) (first string, err error) {
	for i, p := range paths {
		if filepath.Ext(strings.ToLower(p)) == ".parquet" {
			continue
		}
		if t.args.Encoding, err = file.Encoding(p, labels[i]); err != nil {
			return "", err
		}
		if t.args.Encoding == "" {
			continue
		}
		for k := range paths {
			if paths[k], err = file.Transcode(dir, paths[k], labels[k], t.args.Encoding); err != nil {
				return "", err
			}
		}
		return paths[0], nil
	}
	return labels[0], nil
}

// open starts the engine, on one thread: a draft of the same file is the same.
func (t *table) open(ctx context.Context, dir string) (err error) {
	t.db, err = sql.Open(ctx, dir, 0, 1)
	return err
}

// names returns the file's columns. Of delimited text it finds out the delimiter,
// and whether the first line is a header: where it is none, it names them.
func (t *table) names(ctx context.Context, path string, delimited bool) ([]string, error) {
	names, err := file.Source{}.Names(ctx, t.args.json(), path, t.db)
	var header bool
	var delimiter string
	// What the sniffer cannot make out stays as it is; reading tells what is wrong.
	if delimited && t.db.Row(ctx, "SELECT HasHeader, Delimiter FROM sniff_csv("+expr.QuotePath(path)+")", &header, &delimiter) == nil {
		// A line with quotes is none at all under a wrong delimiter.
		if utf8.RuneCountInString(delimiter) == 1 && (err != nil || len(names) == 1 && strings.Contains(names[0], delimiter)) {
			t.args.Delimiter = delimiter
			names, err = file.Source{}.Names(ctx, t.args.json(), path, t.db)
		}
		if !header && slices.ContainsFunc(names, number) {
			t.args.Header = false
			for i := range names {
				names[i] = fmt.Sprintf("c%d", i+1)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if !utf8.ValidString(n) || strings.ContainsFunc(n, func(r rune) bool { return r < ' ' }) {
			names = nil
		}
	}
	if len(names) == 0 {
		return nil, fault(diag.Unreadable, fmt.Sprintf("no columns can be read in %s", t.path), "it is no table of a format that mlc reads", "write CSV, TSV, JSON with an object a line, or Parquet")
	}
	return names, nil
}

// number reports whether a text reads as a number, which no column is called.
func number(s string) bool {
	var f float64
	return json.Unmarshal([]byte(strings.TrimSpace(s)), &f) == nil
}

// declare makes the columns of the names that a spec can declare.
func (t *table) declare(names []string) {
	folded := map[string]string{}
	for _, n := range names {
		other, dup := folded[strings.ToLower(n)]
		switch {
		case n == "":
			t.left = append(t.left, unusable{n, "has no name"})
		case strings.HasPrefix(n, "_"):
			t.left = append(t.left, unusable{n, "begins with an underscore, as mlc's own names do"})
		case dup && n != other: // one that comes twice is a fault of the file, told when reading
			t.left = append(t.left, unusable{n, fmt.Sprintf("differs from %q only in case, which SQL passes over", other)})
		case !dup:
			folded[strings.ToLower(n)] = n
			t.cols = append(t.cols, &column{name: n, sql: fmt.Sprintf("c%d", len(t.cols)), typ: types.String})
		}
	}
}

// load copies the rows as they are.
func (t *table) load(ctx context.Context, dir string, paths, labels []string) error {
	if len(t.cols) == 0 {
		return fault(diag.Unreadable, fmt.Sprintf("%s has no column with a name that a spec can declare", t.path), "", "rename the columns in the data")
	}
	job := kind.SnapshotJob{Args: t.args.json(), Files: paths, Labels: labels, Engine: t.db, Out: filepath.Join(dir, "rows.parquet"), Rejects: filepath.Join(dir, "rejects.jsonl")}
	job.Write = func(ctx context.Context, query string) error { return t.db.WriteParquet(ctx, query, job.Out) }
	for _, c := range t.cols {
		job.Columns = append(job.Columns, kind.Column{Name: c.name, Type: types.String})
	}
	rep, err := file.Source{}.Snapshot(ctx, job)
	var faults kind.Faults
	if errors.As(err, &faults) {
		for i, f := range faults {
			if f.Code == diag.ColumnGone {
				faults[i].Mend = "name files of the same columns"
			}
		}
	}
	if err != nil {
		return err
	}
	if all := rep.Rows + rep.Rejected; float64(rep.Rejected) > maxBad*float64(all) {
		return fault(diag.Unreadable, fmt.Sprintf("%d of the %d lines of %s are no rows of the columns that its beginning has", rep.Rejected, all, t.path), "", "check the file's format and delimiter; of JSON, mlc reads an object a line")
	}
	if t.rows, t.rejected = rep.Rows, rep.Rejected; t.rows == 0 {
		return fault(diag.NoRows, fmt.Sprintf("%s has no rows", t.path), "what the columns hold is read from them", "check what wrote it")
	}
	t.file = job.Out
	return nil
}

// texts is the FROM clause of columns as they were read. It has no other: what a
// statement takes grows with the columns that it could read.
func (t *table) texts(cols ...*column) string {
	return t.from(cols, func(c *column) string { return expr.QuoteName(c.name) }, expr.ReadParquet(t.file))
}

// values is the FROM clause of columns in their types.
func (t *table) values(cols ...*column) string {
	return t.from(cols, func(c *column) string { return c.typed }, t.texts(cols...))
}

// ask asks the same of columns, of many at once where the rows are few: a statement
// takes a while to be planned. Each has SQL items and the places of what they give.
func (t *table) ask(ctx context.Context, cols []*column, from func(...*column) string, items func(*column) ([]string, []any)) error {
	for some := range slices.Chunk(cols, int(min(max(1<<20/max(t.rows, 1), 1), 50))) {
		var all []string
		var dest []any
		for _, c := range some {
			sql, to := items(c)
			all, dest = append(all, sql...), append(dest, to...)
		}
		if err := t.db.Row(ctx, "SELECT "+strings.Join(all, ", ")+" FROM "+from(some...), dest...); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) from(cols []*column, value func(*column) string, rows string) string {
	var items []string
	for i, c := range cols {
		if !slices.Contains(cols[:i], c) {
			items = append(items, value(c)+" AS "+c.sql)
		}
	}
	return "(SELECT " + strings.Join(items, ", ") + " FROM " + rows + ")"
}

// missing are texts that stand for a missing value where others are numbers or times.
const missing = "('', '?', '-', '.', 'na', 'n/a', '#n/a', 'nan', 'null', 'nil', 'none', 'missing', 'unknown')"

// words returns the texts without which a column would hold numbers or times only,
// but for mistakes, as they stand in the data.
func (t *table) words(ctx context.Context, delimited bool) ([]string, error) {
	if !delimited {
		return nil, nil // only delimited text has no way of its own to leave a value out
	}
	word := func(c *column) string { return "lower(trim(" + c.sql + ")) IN " + missing }
	type counts struct{ others, numbers, times int64 }
	found := map[*column]*counts{}
	err := t.ask(ctx, t.cols, t.texts, func(c *column) ([]string, []any) {
		n := &counts{}
		found[c] = n
		count := func(and string) string {
			return fmt.Sprintf("count(%s) FILTER (NOT %s%s)", c.sql, word(c), and)
		}
		return []string{count(""), count(" AND " + isNumber(c.sql)), count(" AND " + isTime(c.sql))}, []any{&n.others, &n.numbers, &n.times}
	})
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range t.cols {
		if n := found[c]; !mostly(n.numbers, n.others) && !mostly(n.times, n.others) {
			continue
		}
		err := t.db.Rows(ctx, fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE %s AND NOT coalesce(isnan(TRY_CAST(%s AS DOUBLE)), false)", c.sql, t.texts(c), word(c), c.sql), func(scan func(...any) error) error {
			var w string
			if err := scan(&w); err != nil {
				return err
			}
			if w != "" {
				seen[w] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]string, 0, len(seen))
	for w := range seen {
		out = append(out, w)
	}
	slices.Sort(out)
	return out, nil
}
