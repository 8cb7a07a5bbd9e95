package expr

// ReadNumber is SQL that reads a text as a DOUBLE: "12", "1.5", "1e3", also nan and
// infinity, in either case and with blanks around. Whatever else is NULL.
func ReadNumber(text string) string {
	// DuckDB also takes 1_000, +-1 and nan(1).
	return "TRY_CAST(CASE WHEN NOT (contains(" + text + ", '_') OR contains(" + text + ", '+-') OR contains(" + text + ", '(')) THEN " + text + " END AS DOUBLE)"
}

// The texts that are whole numbers: with a point, and with an exponent, in parts.
const (
	pointed = `\s*[-+]?\d+(\.0*)?\s*`
	parts   = `^\s*([-+]?)(\d*)\.?(\d*)(?:[eE]([-+]?\d+))?\s*$`
)

// ReadWhole is SQL that reads a text as a BIGINT: "12", "12.0", "1.2e1". Its digits tell
// whether it is whole, before anything is rounded. Whatever else is NULL.
func ReadWhole(text string) string {
	// Most texts are as they would be written again, and are quickly told. Of those with
	// an exponent, sig are the digits between zeros, and at zeros come after them.
	whole := "TRY_CAST(" + text + " AS BIGINT)"
	return "CASE WHEN CAST(" + whole + " AS VARCHAR) = " + text + " OR regexp_full_match(" + text + ", " + QuoteString(pointed) + ") THEN " + whole +
		" ELSE [CASE WHEN p.i || p.f = '' THEN NULL WHEN p.sig = '' THEN 0 WHEN p.at BETWEEN 0 AND 18 THEN TRY_CAST(p.s || p.sig || repeat('0', p.at) AS BIGINT) END FOR p IN" +
		" [struct_insert(p, sig := trim(p.i || p.f, '0'), at := length(p.i) - length(rtrim(p.i || p.f, '0')) + CASE WHEN p.e = '' THEN 0 ELSE TRY_CAST(p.e AS INTEGER) END) FOR p IN" +
		" [regexp_extract(" + text + ", " + QuoteString(parts) + ", ['s', 'i', 'f', 'e'])]]][1] END"
}
