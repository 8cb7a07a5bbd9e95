// Package file reads tables from files: CSV, TSV, JSON lines and Parquet.
package file

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf16"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed file.cue
var source string

// Source is the kind "file".
type Source struct{}

// Name is "file".
func (Source) Name() string { return "file" }

// Version of the implementation.
func (Source) Version() int { return 5 }

// Schema is #File.
func (Source) Schema() schema.Kind {
	return schema.Kind{Family: "source", Name: "file", Def: "#File", Source: source}
}

type args struct {
	Path       string   `json:"path"`
	Format     string   `json:"format"`
	Delimiter  string   `json:"delimiter"`
	Header     bool     `json:"header"`
	NullValues []string `json:"null_values"`
	Encoding   string   `json:"encoding"` // of text; "": UTF-8
}

// Files expands the path. No match is a Fault.
func (Source) Files(raw json.RawMessage, dir string) ([]string, []kind.Fault) {
	a := kind.DecodeArgs[args](raw)
	pattern := a.Path
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	if _, err := os.Stat(pattern); err == nil {
		return []string{a.Path}, nil
	}
	if !filepath.IsAbs(a.Path) { // only what the user wrote is a pattern
		pattern = filepath.Join(literal.Replace(dir), a.Path)
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, []kind.Fault{{Field: "path", Code: diag.BadArgs, What: fmt.Sprintf("%q is no file pattern: %v", a.Path, err)}}
	}
	if len(found) == 0 {
		what := fmt.Sprintf("no file %q", a.Path)
		if near, err := os.ReadDir(filepath.Dir(pattern)); err == nil {
			var names []string
			for _, e := range near {
				names = append(names, filepath.Join(filepath.Dir(a.Path), e.Name()))
			}
			what += diag.Suggest(a.Path, names)
		}
		return nil, []kind.Fault{{Field: "path", Code: diag.FileMissing, What: what, Why: "the source has no rows without it", Mend: "put the file there, or mend the path; it starts at the spec's folder"}}
	}
	sort.Strings(found)
	out := make([]string, len(found))
	for i, f := range found {
		if rel, err := filepath.Rel(dir, f); err == nil && !filepath.IsAbs(a.Path) {
			f = rel
		}
		out[i] = f
	}
	return out, nil
}

// literal escapes what filepath.Glob would take for a pattern.
var literal = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// Names returns a file's columns; of JSON lines, those of the first of them.
func (Source) Names(ctx context.Context, raw json.RawMessage, path string, engine kind.Engine) ([]string, error) {
	a := kind.DecodeArgs[args](raw)
	format, err := a.format(path)
	if err != nil {
		return nil, err
	}
	if format == "parquet" {
		names, _, err := engine.Columns(ctx, "SELECT * FROM "+expr.ReadParquet(path))
		if err != nil {
			return nil, unreadable(path, err)
		}
		return names, nil
	}
	t, err := openText(path, path, format, a)
	if err != nil {
		return nil, err
	}
	if t.lines == 0 {
		return nil, fault("path", diag.FileEmpty, fmt.Sprintf("%s is empty", path), "it holds no header and no rows", "check what wrote it")
	}
	return t.header, nil
}

// Ordered is true without a header: then the columns' places are their names.
func (Source) Ordered(raw json.RawMessage) bool { return !kind.DecodeArgs[args](raw).Header }

// NullTexts are the null_values of CSV and TSV; other formats have a null of their own.
func (Source) NullTexts(raw json.RawMessage, files []string) []string {
	a := kind.DecodeArgs[args](raw)
	for _, f := range files {
		if format, err := a.format(f); err != nil || format != "csv" && format != "tsv" {
			return nil
		}
	}
	return a.NullValues
}

// Snapshot copies the rows. Lines that cannot be split go to the rejects; a file
// of which lines are unaccounted for, or that is no table at all, fails whole.
func (Source) Snapshot(ctx context.Context, job kind.SnapshotJob) (kind.SnapshotReport, error) {
	a := kind.DecodeArgs[args](job.Args)
	var rep kind.SnapshotReport
	rejects, err := os.Create(job.Rejects)
	if err != nil {
		return rep, err
	}
	defer rejects.Close()
	s := &snapshot{ctx: ctx, job: job, args: a, rejects: json.NewEncoder(rejects)}
	defer s.clean()
	if s.numbered, err = s.number(); err != nil {
		return rep, err
	}
	var selects []string
	for i, f := range job.Files {
		q, err := s.read(i, f)
		if err != nil {
			return rep, err
		}
		selects = append(selects, q)
	}
	if err := job.Write(ctx, strings.Join(selects, " UNION ALL ")); err != nil {
		if s := err.Error(); slices.ContainsFunc(machine, func(m string) bool { return strings.Contains(s, m) }) {
			return rep, err
		}
		label := job.Labels[0]
		for i, f := range job.Files {
			if strings.Contains(err.Error(), f) {
				label = job.Labels[i]
			}
		}
		return rep, unreadable(label, err)
	}
	counts := make([]int64, len(job.Files))
	err = job.Engine.Rows(ctx, "SELECT _file, count(*) FROM "+expr.ReadParquet(job.Out)+" GROUP BY 1", func(scan func(...any) error) error {
		var file int
		var n int64
		if err := scan(&file, &n); err != nil {
			return err
		}
		counts[file] = n
		return nil
	})
	if err != nil {
		return rep, err
	}
	for i := range job.Files {
		n, err := s.account(i, counts[i])
		if err != nil {
			return rep, err
		}
		rep.Rows += counts[i]
		rep.Rejected += n
	}
	return rep, rejects.Sync()
}

// machine are what the engine's messages say where the machine is at fault and not the file.
var machine = []string{"Out of Memory Error", "Could not write", "No space left on device", "Binder Error", "INTERNAL Error", "INTERRUPT"}

// unreadable tells of an error with a file; one that is told already stays.
func unreadable(label string, err error) error {
	var told kind.Faults
	if errors.As(err, &told) {
		return told
	}
	return fault("path", diag.Unreadable, fmt.Sprintf("%s cannot be read: %s", label, firstLine(err.Error())), "", "check the file's format, delimiter and encoding (UTF-8, unless encoding says otherwise)")
}

// fault is a mistake in a file, told at a field of the source.
func fault(field string, code diag.Code, what, why, mend string) error {
	return kind.Faults{{Field: field, Code: code, What: what, Why: why, Mend: mend}}
}

// firstLine is what of an engine's message is fit for people.
func firstLine(s string) string {
	l, _, _ := strings.Cut(s, "\n")
	switch {
	case strings.Contains(l, "invalid state"):
		return "its lines end in \\n here and in \\r\\n there"
	case strings.Contains(l, "Invalid unicode"):
		return "not UTF-8"
	}
	return l[:min(len(l), 300)]
}

// format tells how a file is written.
func (a args) format(path string) (string, error) {
	if a.Format != "auto" {
		return a.Format, nil
	}
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".csv":
		return "csv", nil
	case ".tsv", ".tab":
		return "tsv", nil
	case ".jsonl", ".ndjson", ".json":
		return "jsonl", nil
	case ".parquet":
		return "parquet", nil
	}
	return "", fault("path", diag.Unreadable, fmt.Sprintf("the name of %s does not tell its format", path), "", `set format: "csv", "tsv", "jsonl" or "parquet"`)
}

type snapshot struct {
	ctx      context.Context
	job      kind.SnapshotJob
	args     args
	rejects  *json.Encoder
	texts    []*text // by file; nil for Parquet
	copies   []string
	numbered []int64 // by file, the rows before it; nil where a file does not number its rows
}

// clean removes the copies of files in other encodings.
func (s *snapshot) clean() {
	for _, c := range s.copies {
		_ = os.Remove(c) // its folder goes, too
	}
}

// number counts the rows before each file where all are Parquet, which numbers its rows.
func (s *snapshot) number() ([]int64, error) {
	before, n := make([]int64, len(s.job.Files)), int64(0)
	for i, f := range s.job.Files {
		if format, err := s.args.format(s.job.Labels[i]); err != nil || format != "parquet" {
			return nil, err
		}
		names, _, err := s.job.Engine.Columns(s.ctx, "SELECT * FROM "+expr.ReadParquet(f))
		if err != nil {
			return nil, unreadable(s.job.Labels[i], err)
		}
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, "file_row_number") }) {
			return nil, nil // DuckDB's own name for it
		}
		before[i] = n
		var rows int64
		if err := s.job.Engine.Row(s.ctx, "SELECT CAST(sum(num_rows) AS BIGINT) FROM parquet_file_metadata("+expr.QuotePath(f)+")", &rows); err != nil {
			return nil, unreadable(s.job.Labels[i], err)
		}
		n += rows
	}
	return before, nil
}

// reject is a line that is not a row, with the number that it would have as one; of a
// long one Text is the beginning.
type reject struct {
	File   string `json:"file"`
	Line   int64  `json:"line"`
	Row    int64  `json:"row"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

// lineLimit is how long a line may be, 16 MiB; a longer one is rejected. A buffer holds
// two: by default it would hold sixteen.
const lineLimit = "max_line_size=16777216, buffer_size=33554432"

// maxText bounds the bytes of a rejected line that are kept.
const maxText = 10_000

// read returns the SELECT of file i: _file and the declared columns.
func (s *snapshot) read(i int, path string) (string, error) {
	label := s.job.Labels[i]
	format, err := s.args.format(label)
	if err != nil {
		return "", err
	}
	if format == "parquet" {
		s.texts = append(s.texts, nil)
		return s.parquet(i, path)
	}
	a := s.args
	if a.Encoding != "" && a.Encoding != "utf-8" {
		if path, err = Transcode(s.job.Dir, path, label, a.Encoding); err != nil {
			return "", err
		}
		s.copies, a.Encoding = append(s.copies, path), ""
	}
	t, err := openText(path, label, format, a)
	if err != nil {
		return "", err
	}
	s.texts = append(s.texts, t)
	if t.lines == 0 {
		return "", fault("path", diag.FileEmpty, fmt.Sprintf("%s is empty", label), "it holds no header and no rows", "check what wrote it")
	}
	if format == "jsonl" {
		return s.jsonLines(i, path, t)
	}
	return s.csv(i, path, t)
}

func (s *snapshot) parquet(i int, path string) (string, error) {
	from := expr.ReadParquet(path)
	names, sqlTypes, err := s.job.Engine.Columns(s.ctx, "SELECT * FROM "+from)
	if err != nil {
		return "", unreadable(s.job.Labels[i], err)
	}
	if err := s.missing(i, names); err != nil {
		return "", err
	}
	have := map[string]string{}
	for k, n := range names {
		have[n] = sqlTypes[k]
	}
	cols := []string{fmt.Sprintf("%d::INTEGER AS _file", i)}
	if s.numbered != nil {
		cols = append(cols, fmt.Sprintf("file_row_number + %d AS _row", s.numbered[i]+1))
		from = "read_parquet(" + expr.QuotePath(path) + ", hive_partitioning=false, file_row_number=true)"
	}
	for _, c := range s.job.Columns {
		q, has := expr.QuoteName(c.Name), have[c.Name]
		v := "CAST(" + q + " AS VARCHAR)"
		switch {
		case has == c.Type.SQL():
			v = q
		case c.Type == types.Timestamp && (strings.HasPrefix(has, "TIMESTAMP") || has == "DATE"):
			// Instants keep their zone here and lose it in UTC.
			v = "CAST(CAST(" + q + " AS TIMESTAMPTZ) AS TIMESTAMP)"
		case c.Type.Numeric() && slices.Contains(whole, has):
			v = "CAST(" + q + " AS " + c.Type.SQL() + ")"
		}
		cols = append(cols, v+" AS "+q)
	}
	for k, n := range s.job.Keep {
		cols = append(cols, fmt.Sprintf("%s AS _keep%d", expr.QuoteName(n), k))
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + from, nil
}

// whole are the SQL types of which every value is a BIGINT. A FLOAT is read by its text:
// 0.1 stays 0.1.
var whole = []string{"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}

// missing reports every declared column that a file does not have.
func (s *snapshot) missing(i int, names []string) error {
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	var faults kind.Faults
	for _, c := range s.job.Columns {
		if !have[c.Name] {
			faults = append(faults, kind.Fault{Field: "columns." + c.Name, Code: diag.ColumnGone, What: fmt.Sprintf("%s has no column %q%s", s.job.Labels[i], c.Name, diag.Suggest(c.Name, names)),
				Why: "it has " + diag.Some(names), Mend: "mend the name, or drop the column from the spec"})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// misread reports that the columns are separated by something else than the file is
// read with, as its first line tells.
func (s *snapshot) misread(i int, t *text) error {
	fit := func(fields []string) int {
		if !s.args.Header {
			return map[bool]int{true: 1}[len(fields) == len(s.job.Columns)]
		}
		n := 0
		for _, c := range s.job.Columns {
			if slices.Contains(fields, c.Name) {
				n++
			}
		}
		return n
	}
	d := t.separated(fit)
	if d == t.delimiter {
		return nil
	}
	field := "path"
	if s.args.Delimiter != "" {
		field = "delimiter"
	}
	columns := "columns"
	if len(t.first) == 1 {
		columns = "column"
	}
	return fault(field, diag.Unreadable, fmt.Sprintf("%s has %d %s where %q separates them; its first line is written with %q", s.job.Labels[i], len(t.first), columns, t.delimiter, d),
		"its first line is "+strings.TrimRight(string(t.top[:min(len(t.top), 200)]), "\r"), fmt.Sprintf("set delimiter: %q", d))
}

func (s *snapshot) csv(i int, path string, t *text) (string, error) {
	names := t.header
	if !s.args.Header {
		if len(t.first) != len(s.job.Columns) {
			if err := s.misread(i, t); err != nil {
				return "", err
			}
			return "", fault("columns", diag.ColumnGone, fmt.Sprintf("%s has %d columns in its first line, the spec declares %d", s.job.Labels[i], len(t.first), len(s.job.Columns)),
				"without a header every column of the file has to be declared, in order", "")
		}
		names = nil
		for _, c := range s.job.Columns {
			names = append(names, c.Name)
		}
	} else if err := s.missing(i, names); err != nil {
		if other := s.misread(i, t); other != nil {
			err = other
		}
		return "", err
	}
	// Columns are positional for DuckDB, so each gets a name that cannot clash.
	positions, declared := map[string]int{}, make([]string, len(names))
	for k, n := range names {
		if _, dup := positions[n]; dup {
			return "", fault("path", diag.Unreadable, fmt.Sprintf("%s names the column %q twice", s.job.Labels[i], n), "", "give each column its own name")
		}
		positions[n] = k
		declared[k] = fmt.Sprintf("'c%d': 'VARCHAR'", k)
	}
	nulls := make([]string, len(s.args.NullValues))
	for k, n := range s.args.NullValues {
		nulls[k] = expr.QuoteString(n)
	}
	opts := []string{
		"auto_detect=false", "delim=" + expr.QuoteString(t.delimiter), `quote='"'`, `escape='"'`, fmt.Sprintf("header=%v", s.args.Header),
		"columns={" + strings.Join(declared, ", ") + "}", "store_rejects=true", fmt.Sprintf("rejects_table='rejects_%d'", i), fmt.Sprintf("rejects_scan='scans_%d'", i),
		"compression=" + expr.QuoteString(t.compression), "allow_quoted_nulls=false", lineLimit,
	}
	if t.skip > 0 {
		opts = append(opts, fmt.Sprintf("skip=%d", t.skip)) // DuckDB takes the first line for the header, blank or not
	}
	if len(nulls) > 0 {
		opts = append(opts, "nullstr=["+strings.Join(nulls, ", ")+"]")
	}
	cols := []string{fmt.Sprintf("%d::INTEGER AS _file", i)}
	for _, c := range s.job.Columns {
		cols = append(cols, fmt.Sprintf("c%d AS %s", positions[c.Name], expr.QuoteName(c.Name)))
	}
	for k, n := range s.job.Keep {
		cols = append(cols, fmt.Sprintf("c%d AS _keep%d", positions[n], k))
	}
	t.from = "read_csv(" + expr.QuotePath(path) + ", hive_partitioning=false, " + strings.Join(opts, ", ") + ")"
	t.columns = len(names)
	query := "SELECT " + strings.Join(cols, ", ") + " FROM " + t.from
	if !t.utf8 {
		// DuckDB 1.5.6 rejects a line that is no UTF-8 only where it reads all columns; of
		// fewer it fails altogether. A hash is never NULL, which the optimizer does not know.
		all := make([]string, len(names))
		for k := range names {
			all[k] = fmt.Sprintf("c%d", k)
		}
		query += " WHERE hash(" + strings.Join(all, ", ") + ") IS NOT NULL"
	}
	return query, nil
}

func (s *snapshot) jsonLines(i int, path string, t *text) (string, error) {
	// One raw line a row keeps malformed lines visible; \x01 cannot occur in JSON.
	t.from = "read_csv(" + expr.QuotePath(path) + ", hive_partitioning=false, auto_detect=false, delim=E'\\x01', quote='', escape='', header=false, columns={'l': 'VARCHAR'}, store_rejects=true, " +
		fmt.Sprintf("rejects_table='rejects_%d', rejects_scan='scans_%d', ", i, i) + lineLimit + ", compression=" + expr.QuoteString(t.compression) + ")"
	// All columns are taken at once, since each call reads the line again, by JSON
	// pointers: in a JSONPath a star is a wildcard also between quotes.
	inner := []string{"l"}
	members := func(fn string, names []string, as string) {
		paths := make([]string, len(names))
		for k, n := range names {
			paths[k] = expr.QuoteString("/" + pointer.Replace(n))
		}
		inner = append(inner, fmt.Sprintf("%s(l, CAST([%s] AS VARCHAR[])) AS %s", fn, strings.Join(paths, ", "), as))
	}
	cols := []string{fmt.Sprintf("%d::INTEGER AS _file", i)}
	names := make([]string, len(s.job.Columns))
	for k, c := range s.job.Columns {
		v := fmt.Sprintf("_texts[%d]", k+1)
		if names[k] = c.Name; c.Type == types.Int {
			v = asWritten(v, c.Name)
		}
		cols = append(cols, v+" AS "+expr.QuoteName(c.Name))
	}
	members("json_extract_string", names, "_texts")
	if len(s.job.Keep) > 0 {
		members("json_extract", s.job.Keep, "_kept")
	}
	for k := range s.job.Keep {
		cols = append(cols, fmt.Sprintf("_kept[%d] AS _keep%d", k+1, k))
	}
	wrong, noRow := fmt.Sprintf("wrong_%d", i), noRow(t.orders)
	err := s.job.Engine.Exec(s.ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT n, k, left(l, %d) AS l, %s AS why FROM (SELECT row_number() OVER () AS n, count(l) OVER (ROWS UNBOUNDED PRECEDING) AS k, l FROM %s) WHERE l IS NOT NULL AND why IS NOT NULL", wrong, maxText, noRow, t.from))
	if err != nil {
		return "", unreadable(s.job.Labels[i], err)
	}
	// Of the lines that DuckDB reads, those from the one numbered g on come after c others.
	gone := fmt.Sprintf("(SELECT g, max(c) AS c FROM (SELECT line - row_number() OVER (ORDER BY line) + 1 AS g, row_number() OVER (ORDER BY line) AS c FROM (SELECT DISTINCT line FROM rejects_%d)) GROUP BY g)", i)
	err = s.job.Engine.Rows(s.ctx, "SELECT n + coalesce(c, 0), k + coalesce(c, 0), l, why FROM "+wrong+" ASOF LEFT JOIN "+gone+" ON n >= g ORDER BY n", func(scan func(...any) error) error {
		var r reject
		if err := scan(&r.Line, &r.Row, &r.Text, &r.Reason); err != nil {
			return err
		}
		r.File = s.job.Labels[i]
		t.rejected++
		r.Text = r.Text[:min(len(r.Text), maxText)]
		return s.rejects.Encode(r)
	})
	if err != nil {
		return "", unreadable(s.job.Labels[i], err)
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM (SELECT " + strings.Join(inner, ", ") + " FROM " + t.from + " WHERE l IS NOT NULL AND " + noRow + " IS NULL)", nil
}

// noRow is SQL of why a line of JSON lines is no row, else NULL. To look for a key that
// comes twice takes longer than all else, so lines with keys in known orders are spared it.
func noRow(orders [][]string) string {
	known := ""
	for _, keys := range orders {
		quoted := make([]string, len(keys))
		for i, k := range keys {
			quoted[i] = expr.QuoteString(k)
		}
		known += " WHEN json_keys(l) = [" + strings.Join(quoted, ", ") + "] THEN NULL"
	}
	return "CASE WHEN NOT json_valid(l) THEN 'not a JSON object'" + known + " WHEN json_type(l) <> 'OBJECT' THEN 'not a JSON object' WHEN list_unique(json_keys(l)) < len(json_keys(l)) THEN 'a key comes twice' END"
}

// pointer escapes a name in a JSON pointer.
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// asWritten is the text of a line's whole number. Where it has a point or an exponent,
// DuckDB knows it only as a double, which may be whole where the text is not: if it has
// as many digits as a double or is nearly zero, it is the text of a member of that name
// that is this double. Objects within the line may have one, too: of several the first
// that is whole.
func asWritten(v, name string) string {
	pattern := expr.QuoteString(`"` + written(name) + `"\s*:\s*([-.\deE+]+)`)
	members := fmt.Sprintf("[n FOR n IN regexp_extract_all(l, %s, 1) IF TRY_CAST(n AS DOUBLE) = TRY_CAST(%s AS DOUBLE)]", pattern, v)
	text := fmt.Sprintf("[coalesce([n FOR n IN m IF %s IS NOT NULL][1], m[1]) FOR m IN [%s]][1]", expr.ReadWhole("n"), members)
	return fmt.Sprintf("CASE WHEN (contains(%[1]s, '.') OR contains(%[1]s, 'e')) AND regexp_matches(l, '[\\d.]{16}|[eE]-\\d{3}') THEN coalesce(%[2]s, %[1]s) ELSE %[1]s END", v, text)
}

// written is a pattern of all that JSON can write for a name.
func written(name string) string {
	var b strings.Builder
	for _, r := range name {
		var escaped string
		for _, u := range utf16.Encode([]rune{r}) {
			escaped += fmt.Sprintf(`\\u%04x`, u)
		}
		fmt.Fprintf(&b, "(?:(?i:%s)", escaped)
		if i := strings.IndexRune("\"\\/\b\f\n\r\t", r); i >= 0 {
			fmt.Fprintf(&b, `|\\%s`, regexp.QuoteMeta(`"\/bfnrt`[i:i+1]))
		}
		if r >= ' ' && r != '"' && r != '\\' {
			b.WriteString("|" + regexp.QuoteMeta(string(r)))
		}
		b.WriteByte(')')
	}
	return b.String()
}
