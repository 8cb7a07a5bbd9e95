package expr

// instants are the texts that are instants: a date, which ISO 8601 writes with the
// year first, and perhaps a time and an offset. What else DuckDB takes is left out: the
// name of a zone would hold for the rows after it too, and years of two digits and
// infinity are no instants of anybody's data.
// Those of toMinutes have an offset and no seconds, without which DuckDB takes none.
const (
	date      = `\d{4}[-/]\d{1,2}[-/]\d{1,2}`
	offset    = ` ?(Z|UTC|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)`
	instants  = date + `([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?(` + offset + `)?)?)?`
	toMinutes = date + `[T ]\d{1,2}:\d{2}` + offset
)

// ReadTimestamp is SQL that reads a text as a TIMESTAMP in UTC: "2024-01-31",
// "2024-01-31 12:00", both with seconds and their fractions, with T in place of the
// space, and with Z, UTC or an offset such as +02:00 behind. Without one it is UTC.
// Whatever else, such as 30 February, is NULL.
func ReadTimestamp(text string) string {
	// TIMESTAMPTZ heeds an offset; a bare TIMESTAMP would pass over it.
	match := func(form string) string { return "regexp_full_match(trim(" + text + "), " + QuoteString(form) + ")" }
	bare := "replace(trim(" + text + "), ' +', '+')"
	instant := "CASE WHEN " + match(instants) + " THEN " + bare + " WHEN " + match(toMinutes) + " THEN regexp_replace(" + bare + ", ':\\d{2}', '\\0:00') END"
	return "CAST(TRY_CAST(replace(" + instant + ", ' -', '-') AS TIMESTAMPTZ) AS TIMESTAMP)"
}
