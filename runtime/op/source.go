package op

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

// sourceSnapshot copies a source's rows as they are.
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

// typed is the FROM clause of rows with the typed value of text column i as _t<i>, NULL
// where the text is none of its type, and, of numbers, the text as DOUBLE as _d<i>.
func typed(cols []kind.Column, native map[string]bool, from string) string {
	read, values := []string{"*"}, []string{"* EXCLUDE (_none"}
	for i, c := range cols {
		q, v := expr.QuoteName(c.Name), expr.QuoteName(c.Name)
		double := fmt.Sprintf("TRY_CAST(%s AS DOUBLE) AS _d%d", q, i)
		switch c.Type {
		case types.Int:
			// DuckDB rounds '1.5' to 2; a whole number reads the same as a double.
			read = append(read, double, fmt.Sprintf("TRY_CAST(%s AS BIGINT) AS _b%d", q, i))
			values[0] += fmt.Sprintf(", _b%d", i)
			v = fmt.Sprintf("CASE WHEN _d%d = CAST(_b%d AS DOUBLE) THEN _b%d END", i, i, i)
		case types.Float:
			read = append(read, double)
			v = fmt.Sprintf("nullif(_d%d, 'nan'::DOUBLE)", i)
		case types.Bool:
			v = "TRY_CAST(" + q + " AS BOOLEAN)"
		case types.Timestamp:
			if !native[c.Name] {
				v = expr.ReadTimestamp(q)
			}
		}
		values = append(values, fmt.Sprintf("%s AS _t%d", v, i))
	}
	values[0] += ")"
	return "(SELECT " + strings.Join(values, ", ") + " FROM (SELECT " + strings.Join(append(read, "NULL AS _none"), ", ") + " FROM " + from + "))"
}

// faultsSQL is the SQL of the reasons why a row is bad, joined by "; ", empty for
// a good one, over the rows of typed. They are put together for bad rows and no others.
func faultsSQL(cols []kind.Column) string {
	var parts, conds []string
	for i, c := range cols {
		t, d, r := fmt.Sprintf("_t%d", i), fmt.Sprintf("_d%d", i), expr.QuoteName(c.Name)
		add := func(cond, reason string) {
			conds = append(conds, cond)
			parts = append(parts, fmt.Sprintf("CASE WHEN %s THEN %s END", cond, expr.QuoteString(c.Name+": "+reason)))
		}
		switch c.Type {
		case types.String:
			add(t+" = "+expr.QuoteString(types.NullString), "holds the reserved text "+types.NullString)
		case types.Float:
			add(t+" IS NULL AND "+r+" IS NOT NULL AND coalesce(NOT isnan("+d+"), true)", "not a number")
			add("isinf("+t+")", "infinite")
		case types.Int:
			add(t+" IS NULL AND "+r+" IS NOT NULL", "not a whole number")
		case types.Timestamp:
			add(t+" IS NULL AND "+r+" IS NOT NULL", "not a timestamp")
			add("NOT isfinite("+t+")", "infinite") // Parquet's least and greatest
		default:
			add(t+" IS NULL AND "+r+" IS NOT NULL", "not a "+string(c.Type))
		}
		if c.Never {
			missing := r + " IS NULL"
			if c.Type == types.Float {
				missing = "(" + missing + " OR isnan(" + d + "))"
			}
			add(missing, "missing")
		}
		if c.Min != nil {
			add(fmt.Sprintf("%s < %v", t, *c.Min), fmt.Sprintf("below %v", *c.Min))
		}
		if c.Max != nil {
			add(fmt.Sprintf("%s > %v", t, *c.Max), fmt.Sprintf("above %v", *c.Max))
		}
		if len(c.In) > 0 {
			vals := make([]string, len(c.In))
			for i, v := range c.In {
				if x, ok := v.(string); ok {
					vals[i] = expr.QuoteString(x)
				} else {
					vals[i] = fmt.Sprint(v)
				}
			}
			// IN over more than a few values is a join, after which rows have no order.
			add("NOT list_contains(["+strings.Join(vals, ", ")+"], "+t+")", "not among the right values")
		}
	}
	return "CASE WHEN " + strings.Join(conds, " OR ") + " THEN concat_ws('; ', " + strings.Join(parts, ", ") + ") ELSE '' END"
}

// batch is how many columns one statement works on: DuckDB's optimizer takes time
// that grows with their square.
const batch = 200

// buffered is a FROM clause for reading rows a batch of columns at a time: a table in
// memory where there are several batches, since the footer of a Parquet file is read
// whole each time.
func buffered(ctx context.Context, db *sql.DB, rows string, columns int) (string, error) {
	if columns <= batch {
		return rows, nil
	}
	return "buffered", db.Exec(ctx, "CREATE TEMP TABLE buffered AS SELECT * FROM "+rows)
}

// sourceValidate types every value, sets bad rows aside with their reasons, and
// profiles the rest.
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
	raw := expr.ReadParquet(s.In("rows", "rows.parquet"))
	names, sqlTypes, err := db.Columns(ctx, "SELECT * FROM "+raw)
	if err != nil {
		return err
	}
	native := map[string]bool{}
	for i, n := range names {
		native[n] = sqlTypes[i] == "TIMESTAMP"
	}
	var quoted, texts []string
	for _, c := range a.Columns {
		q := expr.QuoteName(c.Name)
		quoted, texts = append(quoted, q), append(texts, q+" := "+q)
	}
	from, err := buffered(ctx, db, raw, len(a.Columns))
	if err != nil {
		return err
	}
	// Tables side by side, in the order of the rows: the typed values and the faults
	// of a batch of columns each. One batch needs none: it is computed as it is written.
	var tables, faulty []string
	form := "VIEW"
	if len(a.Columns) > batch {
		form = "TABLE"
	}
	for cols := range slices.Chunk(a.Columns, batch) {
		values := make([]string, len(cols))
		for i, c := range cols {
			values[i] = fmt.Sprintf("_t%d AS %s", i, expr.QuoteName(c.Name))
		}
		if len(tables) == 0 {
			values = append(values, "_row", "_file")
		}
		name, faults := fmt.Sprintf("batch_%d", len(tables)), fmt.Sprintf("_faults_%d", len(tables))
		err := db.Exec(ctx, fmt.Sprintf("CREATE TEMP %s %s AS SELECT %s AS %s, %s FROM %s", form, name, faultsSQL(cols), faults, strings.Join(values, ", "), typed(cols, native, from)))
		if err != nil {
			return err
		}
		tables, faulty = append(tables, name), append(faulty, "nullif("+faults+", '')")
	}
	columns := strings.Join(append([]string{"_row", "_file"}, quoted...), ", ")
	reasons := "coalesce(" + faulty[0] + ", '')"
	if len(faulty) > 1 {
		reasons = "concat_ws('; ', " + strings.Join(faulty, ", ") + ")"
	}
	err = db.Exec(ctx, fmt.Sprintf("CREATE TEMP VIEW checked AS SELECT %s, %s AS _faults FROM %s", columns, reasons, strings.Join(tables, " POSITIONAL JOIN ")))
	if err != nil {
		return err
	}
	if err := db.WriteParquet(ctx, "SELECT "+columns+" FROM checked WHERE _faults = ''", s.Out("rows", "rows.parquet")); err != nil {
		return err
	}
	rows, err := table.Rows(s.In("rows", "rows.parquet"))
	if err != nil {
		return err
	}
	good, err := table.Rows(s.Out("rows", "rows.parquet"))
	if err != nil {
		return err
	}
	bad, which := rows-good, "_faults <> ''"
	if bad == 0 {
		which = "false" // nothing is read again
	}
	if err := db.Exec(ctx, "CREATE TEMP TABLE bad AS SELECT _row, _faults FROM checked WHERE "+which); err != nil {
		return err
	}
	err = db.WriteParquet(ctx, fmt.Sprintf("SELECT _row, _file, _faults AS reasons, CAST(to_json(struct_pack(%s)) AS VARCHAR) AS row FROM %s JOIN bad USING (_row) ORDER BY _row",
		strings.Join(texts, ", "), from), s.Out("quarantine", "rows.parquet"))
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
			reasons = append(reasons, fmt.Sprintf("%d lines are no rows (line %d of %s: %s%s)", rejected, first.Line, first.File, first.Reason, map[bool]string{true: "; …"}[rejected > 1]))
		}
		s.Report["reasons"] = reasons
		if share := float64(bad+rejected) / float64(rows+rejected); share > a.MaxQuarantine {
			return fault("max_quarantine", diag.TooManyBadRows, strings.Join(reasons, "; "), "mend the data or the column's declaration, or raise max_quarantine",
				"source %q: %d of %d rows (%.2f%%) do not fit their declarations; %.2f%% are allowed", a.Source, bad+rejected, rows+rejected, 100*share, 100*a.MaxQuarantine)
		}
	}
	if good == 0 {
		return fault("", diag.NoRows, "there is nothing to learn from", "check what wrote it", "source %q has no rows", a.Source)
	}
	if err := db.Exec(ctx, "DROP VIEW checked; DROP "+form+" "+strings.Join(tables, "; DROP "+form+" ")); err != nil {
		return err
	}
	profiles, err := profile(ctx, s, a.Columns)
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
	s.Progress(rows, rows, "rows", "")
	return s.writeJSON(s.Out("profile", "profile.json"), map[string]any{"source": a.Source, "rows": good, "quarantined": bad + rejected, "columns": profiles})
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
	q := `SELECT reason, count(*) AS n, array_to_string(list(_row ORDER BY _row)[:3], ', ') FROM (SELECT _row, unnest(string_split(_faults, '; ')) AS reason FROM bad) GROUP BY reason ORDER BY n DESC, reason LIMIT 10`
	err := db.Rows(ctx, q, func(scan func(...any) error) error {
		var reason, rows string
		var n int64
		if err := scan(&reason, &n, &rows); err != nil {
			return err
		}
		out = append(out, fmt.Sprintf("%s in %d rows (%s%s)", reason, n, rows, map[bool]string{true: ", …"}[n > 3]))
		return nil
	})
	return out, err
}
