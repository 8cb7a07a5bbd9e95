package op

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/sql"
)

// reading makes a column of texts, or of values where their kind has types: those of from
// in the SQL type of typ, or as they are where it is "".
type reading struct {
	name     string // what users call it
	from, as string
	typ      types.Type
}

// readings reads each column as it is declared.
func readings(cols []kind.Column) []reading {
	out := make([]reading, len(cols))
	for i, c := range cols {
		out[i] = reading{c.Name, c.Name, c.Name, c.Type}
	}
	return out
}

// typed is the FROM clause of a query's rows with the value of column i as _t<i>, NULL
// where it is missing or none of its type. Of the rows with a value that is none of its
// type, or with a text that no model can be given, _reasons tells which, joined by "; ",
// and _texts the row as a JSON object of texts. whole reports that there can be none.
func typed(query string, cols []reading, sqlTypes map[string]string) (from string, whole bool) {
	read, values := []string{"*"}, []string{"*"}
	var conds, reasons []string
	said := map[string]bool{}
	for i, c := range cols {
		q := expr.QuoteName(c.from)
		native := c.typ == "" || sqlTypes[c.from] == c.typ.SQL()
		if !native && sqlTypes[c.from] != "VARCHAR" {
			q = "CAST(" + q + " AS VARCHAR)"
		}
		d, v := fmt.Sprintf("_d%d", i), q
		lost, reason := fmt.Sprintf("_t%d IS NULL AND %s IS NOT NULL", i, q), "not a "+string(c.typ)
		switch {
		case c.typ == types.String:
			lost, reason = "contains("+q+", chr(0))", "holds a NUL character"
		case c.typ == types.Float && native:
			v, lost = "nullif("+q+", 'nan'::DOUBLE)", ""
		case native:
			lost = ""
		case c.typ == types.Int:
			v, reason = expr.ReadWhole(q), "not a whole number"
			lost = "CASE WHEN " + lost + " THEN NOT coalesce(isnan(" + expr.ReadNumber(q) + "), false) ELSE false END"
		case c.typ == types.Float:
			read = append(read, expr.ReadNumber(q)+" AS "+d)
			v, lost, reason = "CASE WHEN isfinite("+d+") THEN "+d+" END", "NOT coalesce(isfinite("+d+") OR isnan("+d+"), "+q+" IS NULL)", "not a number"
		case c.typ == types.Bool:
			v = "TRY_CAST(" + q + " AS BOOLEAN)"
		case c.typ == types.Timestamp:
			v = expr.ReadTimestamp(q)
		}
		values = append(values, fmt.Sprintf("%s AS _t%d", v, i))
		if lost != "" {
			conds = append(conds, lost)
			if said[c.from+": "+reason] { // a column can be read twice
				continue
			}
			said[c.from+": "+reason] = true
			told := expr.QuoteString(c.name + ": " + reason)
			if c.typ == types.Float {
				told = "CASE WHEN isinf(" + d + ") THEN " + expr.QuoteString(c.name+": infinite") + " ELSE " + told + " END"
			}
			reasons = append(reasons, fmt.Sprintf("CASE WHEN %s THEN %s END", lost, told))
		}
	}
	from = "(SELECT " + strings.Join(values, ", ") + " FROM (SELECT " + strings.Join(read, ", ") + " FROM (" + query + ")))"
	if len(conds) == 0 {
		return "(SELECT *, CAST(NULL AS VARCHAR) AS _reasons, CAST(NULL AS VARCHAR) AS _texts FROM " + from + ")", true
	}
	lossy := strings.Join(conds, " OR ")
	return fmt.Sprintf("(SELECT *, CASE WHEN %s THEN concat_ws(chr(31), %s) END AS _reasons, CASE WHEN %s THEN %s END AS _texts FROM %s)",
		lossy, strings.Join(reasons, ", "), lossy, rowAsTexts(cols, sqlTypes), from), false
}

// rowAsTexts is the SQL of a JSON object of the columns that are read, as texts.
func rowAsTexts(cols []reading, sqlTypes map[string]string) string {
	var items []string
	seen := map[string]bool{} // a column can be read twice
	for _, c := range cols {
		if !seen[c.name] {
			seen[c.name] = true
			items = append(items, expr.QuoteName(c.name)+" := "+asText(expr.QuoteName(c.from), sqlTypes[c.from]))
		}
	}
	return "CAST(to_json(struct_pack(" + strings.Join(items, ", ") + ")) AS VARCHAR)"
}

// asText is the SQL of a value's text, which of a string in JSON has no quotes.
func asText(q, sqlType string) string {
	if sqlType == "JSON" {
		return "json_extract_string(" + q + ", '$')"
	}
	return "CAST(" + q + " AS VARCHAR)"
}

// unreadFile holds the rows of rows.parquet of which a value is none of its type:
// _row, _reasons, joined by chr(31), the unit separator, and _texts, a JSON object of texts.
const unreadFile = "unread.parquet"

// readUnread is the FROM clause of such a file, without the columns that DuckDB has of
// any: a source may have one of that name.
func readUnread(path string) string {
	return "(SELECT _row, _reasons, _texts FROM " + expr.ReadParquet(path) + ")"
}

// writeTyped writes a query's rows to out, each value in its type and NULL where it is
// none: _row, _file and the readings; and to unread the rows that have such a value. The
// query has _file and the columns read, and may have _row. Where it has not, the rows
// are numbered when they are written down, in the file scratch: a window would let one
// core do all the work. The order, in which they are already, makes row groups of one
// size, so that the same rows are the same bytes whatever file they come from.
func writeTyped(ctx context.Context, db *sql.DB, query string, cols []reading, out, unread, scratch string) error {
	names, duckTypes, err := db.Columns(ctx, query)
	if err != nil {
		return err
	}
	sqlTypes := map[string]string{}
	for i, n := range names {
		sqlTypes[n] = duckTypes[i]
	}
	if len(cols) > batch {
		return writeWide(ctx, db, query, cols, sqlTypes, out, unread)
	}
	from, whole := typed(query, cols, sqlTypes)
	row := "_row"
	if sqlTypes[row] == "" {
		defer os.Remove(scratch)
		if err := db.WriteParquet(ctx, "SELECT _file, "+strings.Join(valueColumns(cols, false), ", ")+", _reasons, _texts FROM "+from, scratch); err != nil {
			return err
		}
		row, from = "file_row_number + 1 AS _row", "read_parquet("+expr.QuotePath(scratch)+", hive_partitioning=false, file_row_number=true)"
	}
	if err := db.WriteParquet(ctx, "SELECT "+row+", _file, "+strings.Join(valueColumns(cols, true), ", ")+" FROM "+from+" ORDER BY _row", out); err != nil {
		return err
	}
	where := "_reasons IS NOT NULL"
	if whole {
		where = "false" // nothing is read again
	}
	return db.WriteParquet(ctx, "SELECT "+row+", _file, _reasons, _texts FROM "+from+" WHERE "+where+" ORDER BY _row", unread)
}

// valueColumns are the columns of typed, by their own names or as the readings call them.
func valueColumns(cols []reading, named bool) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		if out[i] = fmt.Sprintf("_t%d", i); named {
			out[i] += " AS " + expr.QuoteName(c.as)
		}
	}
	return out
}

// writeWide is writeTyped of many columns: a statement for each batch of them over a
// table of what there is, since the memory of one for all would grow with rows and columns.
func writeWide(ctx context.Context, db *sql.DB, query string, cols []reading, sqlTypes map[string]string, out, unread string) error {
	if sqlTypes["_row"] == "" {
		query = "SELECT row_number() OVER () AS _row, * FROM (" + query + ")"
	}
	if err := db.Exec(ctx, "CREATE TEMP TABLE texts AS "+query); err != nil {
		return err
	}
	tables, found := []string{"texts"}, []string{}
	var names []string
	for some := range slices.Chunk(cols, batch) {
		from, _ := typed("SELECT * FROM texts", some, sqlTypes)
		name, reasons := fmt.Sprintf("batch_%d", len(tables)), fmt.Sprintf("_reasons_%d", len(tables))
		items := append(valueColumns(some, true), "_reasons AS "+reasons)
		if len(found) == 0 {
			items = append(items, "_row", "_file")
		}
		if err := db.Exec(ctx, "CREATE TEMP TABLE "+name+" AS SELECT "+strings.Join(items, ", ")+" FROM "+from); err != nil {
			return err
		}
		tables, found = append(tables, name), append(found, reasons)
		for _, c := range some {
			names = append(names, expr.QuoteName(c.as))
		}
	}
	beside := strings.Join(tables[1:], " POSITIONAL JOIN ") // in the order of the rows
	if err := db.WriteParquet(ctx, "SELECT _row, _file, "+strings.Join(names, ", ")+" FROM "+beside, out); err != nil {
		return err
	}
	err := db.WriteParquet(ctx, fmt.Sprintf("SELECT _row, _file, _told AS _reasons, %s AS _texts FROM texts JOIN (SELECT _row, concat_ws(chr(31), %s) AS _told FROM %s WHERE _told <> '') USING (_row) ORDER BY _row",
		rowAsTexts(cols, sqlTypes), strings.Join(found, ", "), beside), unread)
	if err != nil {
		return err
	}
	return db.Exec(ctx, "DROP TABLE "+strings.Join(tables, "; DROP TABLE "))
}
