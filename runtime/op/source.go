package op

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/sql"
	"mlc.dev/mlc/runtime/table"
)

// sourceSnapshot copies a source's rows, each value in its declared type.
func sourceSnapshot(ctx context.Context, s *Stage) error {
	a, err := decode[lower.SnapshotArgs](s)
	if err != nil {
		return err
	}
	k, ok := s.Kinds.Sources.Get(a.Kind)
	if !ok {
		return fmt.Errorf("no source kind %q", a.Kind)
	}
	db, err := s.sql(ctx, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	job := kind.SnapshotJob{Args: a.Args, Columns: a.Columns, Labels: a.Files, Engine: db, Out: s.Out("rows", "rows.parquet"), Rejects: s.Out("rejects", "rejects.jsonl")}
	job.Write = func(ctx context.Context, query string) error {
		return writeTyped(ctx, db, query, readings(a.Columns), job.Out, s.Out("rows", unreadFile), filepath.Join(s.Dir, "scratch.parquet"))
	}
	for i := range a.Files {
		p, err := filepath.EvalSymlinks(s.In("files", fmt.Sprint(i)))
		if err != nil {
			return diag.Diagnostic{Severity: diag.Error, Code: diag.FileMissing, What: fmt.Sprintf("no file %q", a.Files[i]), Mend: "put the file there, or mend the path"}
		}
		job.Files = append(job.Files, p)
	}
	for _, in := range s.Inputs {
		if name, ok := strings.CutPrefix(in.Name, lower.SourcePrefix); ok {
			if job.Reads == nil {
				job.Reads = map[string]string{}
			}
			job.Reads[name] = s.In(in.Name, "rows.parquet")
		}
	}
	work, clean, err := s.work()
	if err != nil {
		return err
	}
	defer clean()
	job.Work = work
	rep, err := k.Snapshot(ctx, job)
	if err != nil {
		return err
	}
	s.Report["rows"], s.Report["rejected"] = rep.Rows, rep.Rejected
	s.Progress(rep.Rows, rep.Rows, "rows", "")
	return nil
}

// rule is what makes rows bad by a column of the right type.
type rule struct {
	column  string
	cond    string   // SQL, true of bad rows
	reasons []string // SQL of each reason, NULL where it is none; with the row of unreadFile, if there is one, as u
}

// rules are those of columns in SQL, without what facts rule out (nil: nothing).
func rules(cols []kind.Column, values []string, facts []columnFacts) []rule {
	var out []rule
	told := map[string]bool{} // a column can be there twice
	for i, c := range cols {
		t := values[i]
		var conds, reasons []string
		add := func(cond, reason string, and ...string) {
			conds = append(conds, cond)
			if reason = c.Name + ": " + reason; told[reason] {
				return
			}
			told[reason] = true
			reasons = append(reasons, fmt.Sprintf("CASE WHEN %s THEN %s END", strings.Join(append([]string{cond}, and...), " AND "), expr.QuoteString(reason)))
		}
		var f columnFacts
		if facts != nil {
			f = facts[i]
		}
		switch c.Type {
		case types.String:
			add(t+" = "+expr.QuoteString(types.NullString), "holds the reserved text "+types.NullString)
		case types.Float:
			if !f.within(-math.MaxFloat64, math.MaxFloat64) {
				add("isinf("+t+")", "infinite")
			}
		case types.Timestamp:
			if !f.within(-math.MaxFloat64, math.MaxFloat64) {
				add("NOT isfinite("+t+")", "infinite") // Parquet's least and greatest
			}
		}
		if c.Never && f.missing() {
			text := "json_extract_string(u._texts, " + expr.QuoteString("/"+pointer.Replace(c.Name)) + ")"
			unread := text + " IS NOT NULL" // there is a text, but it could not be read
			if c.Type.Numeric() {
				unread += " AND NOT coalesce(isnan(" + expr.ReadNumber(text) + "), false)"
			}
			add(t+" IS NULL", "missing", "NOT ("+unread+")")
		}
		if c.Min != nil && !f.within(*c.Min, math.Inf(1)) {
			add(fmt.Sprintf("%s < %v", t, *c.Min), fmt.Sprintf("below %v", *c.Min))
		}
		if c.Max != nil && !f.within(math.Inf(-1), *c.Max) {
			add(fmt.Sprintf("%s > %v", t, *c.Max), fmt.Sprintf("above %v", *c.Max))
		}
		if len(c.In) > 0 {
			vals := make([]string, len(c.In))
			for k, v := range c.In {
				if x, ok := v.(string); ok {
					vals[k] = expr.QuoteString(x)
				} else {
					vals[k] = fmt.Sprint(v)
				}
			}
			// IN over more than a few values is a join, which takes longer.
			add("NOT list_contains(["+strings.Join(vals, ", ")+"], "+t+")", "not among the right values")
		}
		if len(conds) > 0 {
			out = append(out, rule{c.Name, strings.Join(conds, " OR "), reasons})
		}
	}
	return out
}

// broken are the rules that a row breaks. Each is looked at alone: a condition over one
// column is decided by the Parquet reader, of texts once for each entry of a dictionary.
func broken(ctx context.Context, db *sql.DB, rows string, rules []rule) ([]rule, error) {
	var out []rule
	for _, r := range rules {
		var found bool
		if err := db.Row(ctx, "SELECT EXISTS (SELECT 1 FROM "+rows+" WHERE "+r.cond+")", &found); err != nil {
			return nil, err
		}
		if found {
			out = append(out, r)
		}
	}
	return out, nil
}

// pointer escapes a name for a JSON pointer.
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// batch is how many columns one statement works on: DuckDB's optimizer takes time
// that grows with their square.
const batch = 200

// sourceValidate sets bad rows aside with their reasons, and profiles the rest.
func sourceValidate(ctx context.Context, s *Stage) error {
	a, err := decode[lower.ValidateArgs](s)
	if err != nil {
		return err
	}
	db, err := s.sql(ctx, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	in, out := s.In("rows", "rows.parquet"), s.Out("rows", "rows.parquet")
	total, err := table.Rows(in)
	if err != nil {
		return err
	}
	bad, err := setAside(ctx, db, s, a.Columns, a.Files)
	if err != nil {
		return err
	}
	good := total - bad
	if bad == 0 {
		err = copyFile(in, out)
	} else {
		err = db.WriteParquet(ctx, fmt.Sprintf("SELECT * FROM %s WHERE get_bit(getvariable('bad'), CAST(_row - 1 AS INTEGER)) = 0 ORDER BY _row", expr.ReadParquet(in)), out)
	}
	if err != nil {
		return err
	}
	rejected, first, err := countRejects(s.In("rejects", "rejects.jsonl"))
	if err != nil {
		return err
	}
	s.Report["rows"], s.Report["quarantined"] = good, bad+rejected
	if bad+rejected > 0 {
		reasons, err := topReasons(ctx, db)
		if err != nil {
			return err
		}
		if rejected > 0 {
			reasons = append(reasons, fmt.Sprintf("%d %s (line %d of %s: %s%s)", rejected, map[bool]string{true: "lines are no rows", false: "line is no row"}[rejected > 1], first.Line, first.File, first.Reason, map[bool]string{true: "; …"}[rejected > 1]))
		}
		s.Report["reasons"] = reasons
		if share := float64(bad+rejected) / float64(total+rejected); share > a.MaxQuarantine {
			mend := fmt.Sprintf("mend the data or the column's declaration, or raise max_quarantine; `mlc show --quarantine %s` then has the rows with their values", a.Source)
			if strings.Contains(first.Reason, "UTF-8") {
				mend = `say what the file is instead, for example encoding: "latin1", or convert it with iconv; or ` + mend
			}
			return fault("max_quarantine", diag.TooManyBadRows, strings.Join(reasons, "; "), mend,
				"source %q: %d of %d rows (%.2f%%) do not fit their declarations; %.2f%% are allowed", a.Source, bad+rejected, total+rejected, 100*share, 100*a.MaxQuarantine)
		}
	}
	if good == 0 {
		return fault("", diag.NoRows, "there is nothing to learn from", "check what wrote it", "source %q has no rows", a.Source)
	}
	profiles, err := profile(ctx, db, out, a.Columns)
	if err != nil {
		return err
	}
	var faults executor.Faults
	for i, c := range a.Columns {
		if c.NullFraction != nil {
			if p := profiles[i]; float64(p.Nulls) > *c.NullFraction*float64(p.Rows) {
				faults = append(faults, executor.Fault{Arg: fmt.Sprintf("columns[%d]", i), Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.TooManyBadRows,
					What: fmt.Sprintf("column %q of source %q is missing in %.2f%% of rows; %.2f%% are allowed", c.Name, a.Source, 100*float64(p.Nulls)/float64(p.Rows), 100**c.NullFraction), Mend: "mend the data, or raise null_fraction"}})
			}
		}
	}
	if len(faults) > 0 {
		return faults
	}
	s.Progress(total, total, "rows", "")
	return s.writeJSON(s.Out("profile", "profile.json"), map[string]any{"source": a.Source, "rows": good, "quarantined": bad + rejected, "columns": profiles})
}

// manyRows are so many that a look at each column costs less than one at all together.
const manyRows = 1 << 16

// setAside writes the quarantine and counts its rows. The table bad then has of each _row,
// _faults, and its number _place within its file _in, or within all and "" where there
// are not several; and the variable bad a bit a row of the snapshot, set for those.
func setAside(ctx context.Context, db *sql.DB, s *Stage, cols []kind.Column, files []string) (int64, error) {
	in := s.In("rows", "rows.parquet")
	raw, unread := expr.ReadParquet(in), readUnread(s.In("rows", unreadFile))
	facts, total, err := columnsFacts(ctx, db, in, cols)
	if err != nil {
		return 0, err
	}
	if err := db.Exec(ctx, "CREATE TEMP TABLE found AS SELECT _row, _reasons AS _faults, -1 AS _at FROM "+unread); err != nil {
		return 0, err
	}
	doubts := rules(cols, columnNames(cols), facts)
	if total == 0 {
		doubts = nil
	} else if total > manyRows {
		if doubts, err = broken(ctx, db, raw, doubts); err != nil {
			return 0, err
		}
	}
	at := 0
	for some := range slices.Chunk(doubts, batch) {
		names, conds, reasons := []string{"_row"}, []string{}, []string{}
		for _, r := range some {
			names, conds, reasons = append(names, expr.QuoteName(r.column)), append(conds, r.cond), append(reasons, r.reasons...)
		}
		err := db.Exec(ctx, fmt.Sprintf("INSERT INTO found SELECT _row, nullif(concat_ws(chr(31), %s), ''), %d FROM (SELECT %s FROM %s WHERE %s) LEFT JOIN %s AS u USING (_row)",
			strings.Join(reasons, ", "), at, strings.Join(names, ", "), raw, strings.Join(conds, " OR "), unread))
		if err != nil {
			return 0, err
		}
		at++
	}
	if err := db.Exec(ctx, "CREATE TEMP TABLE bad AS "+placed("(SELECT _row, string_agg(_faults, chr(31) ORDER BY _at) AS _faults FROM found GROUP BY _row)", raw, s.In("rejects", "rejects.jsonl"), files)); err != nil {
		return 0, err
	}
	var bad int64
	if err := db.Row(ctx, "SELECT count(*) FROM bad", &bad); err != nil {
		return 0, err
	}
	if bad > 0 {
		if err := db.Exec(ctx, fmt.Sprintf("SET VARIABLE bad = (SELECT bitstring_agg(_row, 1, %d) FROM bad)", max(total, 2))); err != nil {
			return 0, err
		}
		raw += " WHERE get_bit(getvariable('bad'), CAST(_row - 1 AS INTEGER)) = 1"
	} else {
		raw += " WHERE false"
	}
	return bad, db.WriteParquet(ctx, fmt.Sprintf("SELECT r._row, _place AS place, _in AS file, replace(_faults, chr(31), '; ') AS reasons, coalesce(u._texts, %s) AS row FROM (SELECT * FROM %s) AS r JOIN bad USING (_row) LEFT JOIN %s AS u USING (_row) ORDER BY r._row",
		rowAsTexts(readings(cols), nil), raw, unread), s.Out("quarantine", "rows.parquet"))
}

// placed is the query of the table bad: of rows, with their places in their files. Those
// that were rejected count too.
func placed(bad, raw, rejects string, files []string) string {
	within := "(SELECT *, _row AS _k, '' AS _in FROM " + bad + ")"
	file := "''"
	if len(files) > 1 {
		labels := make([]string, len(files))
		for i, f := range files {
			labels[i] = expr.QuoteString(f)
		}
		within = fmt.Sprintf("(SELECT *, _row - _first + 1 AS _k, ([%s])[_file + 1] AS _in FROM %s ASOF JOIN (SELECT _file, min(_row) AS _first FROM %s GROUP BY _file) ON _row >= _first)", strings.Join(labels, ", "), bad, raw)
		file = "file"
	}
	// Of the good rows of a file, those from the one numbered _g on come after _n others.
	gone := fmt.Sprintf("(SELECT _in, _g, max(_n) AS _n FROM (SELECT _in, _n, row - _n + 1 AS _g FROM (SELECT %s AS _in, row, row_number() OVER (PARTITION BY _in ORDER BY row) AS _n FROM read_json(%s, format='newline_delimited', columns={file: 'VARCHAR', row: 'BIGINT'}) WHERE row IS NOT NULL)) GROUP BY _in, _g)",
		file, expr.QuotePath(rejects))
	return "SELECT _row, _faults, _k + coalesce(_n, 0) AS _place, within._in FROM " + within + " AS within ASOF LEFT JOIN " + gone + " AS gone ON within._in = gone._in AND _k >= _g ORDER BY _row"
}

// columnNames are the columns' names as SQL.
func columnNames(cols []kind.Column) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = expr.QuoteName(c.Name)
	}
	return out
}

// copyFile copies a file that nobody writes to.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// rejectedLine is a line that is no row.
type rejectedLine struct {
	File   string `json:"file"`
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// countRejects counts the lines that are no rows, and returns the first.
func countRejects(path string) (n int64, first rejectedLine, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, first, err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	for {
		var line rejectedLine
		if err := d.Decode(&line); err == io.EOF {
			return n, first, nil
		} else if err != nil {
			return 0, first, err
		}
		if n++; n == 1 {
			first = line
		}
	}
}

// topReasons counts the commonest faults, with the first rows that have each.
func topReasons(ctx context.Context, db *sql.DB) ([]string, error) {
	var out []string
	q := `SELECT reason, count(*) AS n, array_to_string(list(_at ORDER BY _row)[:3], ', ') FROM (SELECT _row, _place || CASE WHEN _in <> '' THEN ' of ' || _in ELSE '' END AS _at, unnest(string_split(_faults, chr(31))) AS reason FROM bad) GROUP BY reason ORDER BY n DESC, reason LIMIT 10`
	err := db.Rows(ctx, q, func(scan func(...any) error) error {
		var reason, rows string
		var n int64
		if err := scan(&reason, &n, &rows); err != nil {
			return err
		}
		out = append(out, fmt.Sprintf("%s in %d row%s (%s%s)", reason, n, map[bool]string{true: "s"}[n > 1], rows, map[bool]string{true: ", …"}[n > 3]))
		return nil
	})
	return out, err
}
