package file

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/diag"
)

// text is what a look at a text file tells before DuckDB reads it.
type text struct {
	path        string
	compression string     // gzip or none, by the file's first bytes
	delimiter   string     // CSV and TSV
	header      []string   // CSV with a header; JSON lines: the fields seen first
	orders      [][]string // JSON lines: the orders of keys that were seen first
	first       []string   // the first record's fields
	skip        int64      // CSV and TSV with a header: the blank lines before it
	top         []byte     // CSV and TSV: the first line
	lines       int64      // lines that are not blank
	blank       int64
	utf8        bool // all of it is

	from     string // the FROM clause that reads it
	columns  int    // how many columns the file has
	rejected int64  // lines rejected while planning the read
}

// openText looks through a file once. DuckDB passes over some damage without a
// word (a gzip file by another name, UTF-16, an unclosed quote); counting lines
// here lets account find it.
func openText(path, label, format string, a args) (*text, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unopened(label, err)
	}
	defer f.Close()
	t := &text{path: path, delimiter: ","}
	if format == "tsv" {
		t.delimiter = "\t"
	}
	if a.Delimiter != "" {
		t.delimiter = a.Delimiter
	}
	var r io.Reader
	if r, t.compression, err = unzipped(f); err != nil {
		return nil, unreadable(label, err)
	}
	br := bufio.NewReaderSize(decoded(r, label, a.Encoding), 1<<20)
	if bom, _ := br.Peek(2); bytes.Equal(bom, []byte{0xff, 0xfe}) || bytes.Equal(bom, []byte{0xfe, 0xff}) {
		return nil, fault("path", diag.Unreadable, label+" cannot be read: it is UTF-16", "text is UTF-8 unless the source says otherwise", `set encoding: "utf-16"`)
	}
	if bom, _ := br.Peek(3); bytes.Equal(bom, []byte{0xef, 0xbb, 0xbf}) {
		if _, err := br.Discard(3); err != nil {
			return nil, unreadable(label, err)
		}
	}
	head, err := br.Peek(br.Size())
	if err != nil && err != io.EOF {
		return nil, unreadable(label, err)
	}
	if format != "jsonl" {
		for {
			line, rest, more := bytes.Cut(head, []byte{'\n'})
			if !more || len(bytes.TrimRight(line, "\r")) > 0 {
				break
			}
			if head = rest; a.Header {
				t.skip++
			}
		}
		t.top, _, _ = bytes.Cut(head, []byte{'\n'})
		if i := notText(t.top); i >= 0 {
			other := "latin1"
			if t.top[i] == 0 {
				other = "utf-16le"
			}
			return nil, fault("path", diag.Unreadable, fmt.Sprintf("%s cannot be read: byte %d of its first line, %#02x, is not UTF-8", label, i+1, t.top[i]), "text is UTF-8 unless the source says otherwise", fmt.Sprintf("say what it is, for example encoding: %q, or convert it, for example with iconv -f %s -t UTF-8", other, strings.ToUpper(other)))
		}
		if t.first, err = fields(head, t.delimiter); err != nil {
			return nil, unreadable(label, err)
		}
		if a.Header {
			t.header = t.first
		}
	}
	if format == "jsonl" {
		t.header, t.orders = keys(head)
	}
	if err := t.count(br); err != nil {
		return nil, unreadable(label, err)
	}
	return t, nil
}

// unopened is the fault of a file that cannot be opened.
func unopened(label string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault("path", diag.FileMissing, fmt.Sprintf("no file %q", label), "", "put the file there, or mend the path")
	}
	return unreadable(label, err)
}

// fields are those of the first record, none of an empty file.
func fields(text []byte, delimiter string) ([]string, error) {
	c := csv.NewReader(bytes.NewReader(text))
	c.Comma = []rune(delimiter)[0]
	c.FieldsPerRecord = -1
	f, err := c.Read()
	if err == io.EOF {
		return nil, nil
	}
	return f, err
}

// notText is the place of the first byte that no text in UTF-8 has there, or -1.
func notText(line []byte) int {
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// delimiters are what columns are separated by.
var delimiters = []string{",", ";", "\t", "|"}

// separated is the delimiter with which the first line fits best, by how well its
// fields do; the file's own where no other fits better.
func (t *text) separated(fit func(fields []string) int) string {
	best, most := t.delimiter, 0
	if own, err := fields(t.top, t.delimiter); err == nil {
		most = fit(own)
	}
	for _, d := range delimiters {
		if f, err := fields(t.top, d); err == nil && fit(f) > most {
			best, most = d, fit(f)
		}
	}
	return best
}

// maxOrders bounds the orders of keys that are looked at.
const maxOrders = 8

// keys are the fields of the JSON objects at the beginning of a file, in the order
// of their first appearance, and the orders in which objects without one twice have them.
func keys(head []byte) (names []string, orders [][]string) {
	seen := map[string]bool{}
	for _, line := range bytes.Split(head, []byte{'\n'}) {
		var row map[string]json.RawMessage
		if json.Unmarshal(line, &row) != nil {
			continue // rejected later, with its number
		}
		for _, n := range slices.Sorted(maps.Keys(row)) {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
		if len(orders) == maxOrders {
			continue
		}
		if order := keyOrder(line); len(order) > 0 && len(order) == len(row) && !slices.ContainsFunc(orders, func(o []string) bool { return slices.Equal(o, order) }) {
			orders = append(orders, order)
		}
	}
	return names, orders
}

// keyOrder are the keys of a JSON object in order, those that come twice too.
func keyOrder(object []byte) (order []string) {
	d := json.NewDecoder(bytes.NewReader(object))
	for depth, key := 0, false; ; {
		t, err := d.Token()
		if err != nil {
			return order
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		default:
			if key {
				order = append(order, t.(string))
				key = false
				continue
			}
		}
		key = depth == 1
	}
}

// count counts the lines, blank and not. A line ends in \n or \r\n.
func (t *text) count(r *bufio.Reader) error {
	empty := true // so far in this line
	t.utf8 = true
	buf, cut := make([]byte, 1<<20), []byte{} // of a character
	for {
		n, err := r.Read(buf)
		if t.utf8 {
			whole := append(cut, buf[:n]...)
			at := len(whole)
			for k := 1; k < utf8.UTFMax && k <= len(whole) && err == nil; k++ {
				if c := whole[len(whole)-k]; utf8.RuneStart(c) {
					if !utf8.FullRune(whole[len(whole)-k:]) {
						at -= k
					}
					break
				}
			}
			t.utf8 = utf8.Valid(whole[:at])
			cut = append(cut[:0:0], whole[at:]...)
		}
		for b := buf[:n]; len(b) > 0; {
			i := bytes.IndexByte(b, '\n')
			line := b
			if i >= 0 {
				line = b[:i]
			}
			empty = empty && len(bytes.TrimRight(line, "\r")) == 0
			if i < 0 {
				break
			}
			if empty {
				t.blank++
			} else {
				t.lines++
			}
			empty = true
			b = b[i+1:]
		}
		if err == io.EOF {
			if !empty {
				t.lines++
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// account writes file i's rejects and checks that its lines are all accounted
// for: accepted, rejected, header, blank, or inside a quoted value.
func (s *snapshot) account(i int, accepted int64) (rejected int64, err error) {
	t := s.texts[i]
	if t == nil {
		return 0, nil
	}
	label := s.job.Labels[i]
	lines := t.lines
	if t.columns == 1 {
		lines += t.blank - t.skip // a blank line is a row of one missing value
	}
	if t.columns > 0 && t.header != nil {
		lines--
	}
	at, err := s.rejected(i, t, lines-accepted)
	if err != nil {
		return 0, err
	}
	rejected = t.rejected
	within := int64(0) // the line ends in rejected records
	q := fmt.Sprintf("SELECT line, min(error_message), any_value(csv_line) FROM rejects_%d GROUP BY line ORDER BY line", i)
	err = s.job.Engine.Rows(s.ctx, q, func(scan func(...any) error) error {
		var r reject
		var text *string
		if err := scan(&r.Line, &r.Reason, &text); err != nil {
			return err
		}
		r.File, r.Line, r.Row = label, at[0].line, at[0].row
		at = at[1:]
		if r.Reason = firstLine(r.Reason); text != nil {
			// Blank lines come with the line after them.
			r.Text = strings.TrimLeft(*text, "\r\n")
			if !strings.Contains(strings.ToLower(r.Reason), "unterminated") { // that would be lines swallowed
				within += int64(strings.Count(strings.TrimRight(r.Text, "\r\n"), "\n"))
			}
		}
		rejected++
		return s.rejects.Encode(r)
	})
	if err != nil {
		return 0, err
	}
	if lines == accepted+rejected+within {
		return rejected, nil
	}
	if t.columns > 0 {
		inside := make([]string, t.columns)
		for k := range inside {
			inside[k] = fmt.Sprintf("coalesce(sum(length(c%d) - length(replace(c%d, E'\\n', ''))), 0)", k, k)
		}
		var quoted float64
		if err := s.job.Engine.Row(s.ctx, "SELECT CAST("+strings.Join(inside, " + ")+" AS DOUBLE) FROM "+t.from, &quoted); err != nil {
			return 0, err
		}
		// Blank lines inside a quoted value count there, not as lines.
		if all := accepted + rejected + within + int64(quoted); lines <= all && all <= lines+t.blank {
			return rejected, nil
		}
	}
	return 0, fault("path", diag.Unreadable, fmt.Sprintf("%s has %d lines of data, but only %d rows and %d rejected lines come out of it", label, lines, accepted, rejected),
		"a quote that is never closed swallows the lines after it", "close the quote, or write quotes inside a value twice")
}

// record is where a record stands: its first line, and its number without the header.
type record struct{ line, row int64 }

// rejected finds the records of file i that DuckDB rejects, in order. Those that are
// not accepted are as many lines, unless values hold line ends.
func (s *snapshot) rejected(i int, t *text, unaccepted int64) ([]record, error) {
	var at []record // line: DuckDB's number, of records and blank lines
	err := s.job.Engine.Rows(s.ctx, fmt.Sprintf("SELECT DISTINCT line FROM rejects_%d ORDER BY line", i), func(scan func(...any) error) error {
		var r record
		err := scan(&r.line)
		at = append(at, r)
		return err
	})
	if err != nil || len(at) == 0 {
		return nil, err
	}
	header := int64(0)
	if t.columns > 0 && t.header != nil {
		header = 1
	}
	if t.blank == 0 && unaccepted == int64(len(at)) {
		for k := range at {
			at[k].row = at[k].line - header
		}
		return at, nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, unopened(t.path, err)
	}
	defer f.Close()
	r, _, err := unzipped(f)
	if err != nil {
		return nil, err
	}
	return at, t.locate(bufio.NewReaderSize(r, 1<<20), at, header)
}

// locate gives records, which have DuckDB's numbers, their lines and rows.
func (t *text) locate(r *bufio.Reader, at []record, header int64) error {
	delimiter := []rune(t.delimiter)[0]
	number, row, line := int64(1), 1-header, int64(1)
	first := line // of the record
	begins, blank, quoted := true, true, false
	for len(at) > 0 {
		c, _, err := r.ReadRune()
		end := err == io.EOF || c == '\n' && !quoted
		switch {
		case err != nil && err != io.EOF:
			return err
		case end:
			if number == at[0].line {
				at[0], at = record{first, row}, at[1:]
			}
			if err == io.EOF {
				return nil
			}
			if !blank || t.columns == 1 && number > t.skip {
				row++
			}
			number++
			begins, blank = true, true
		case quoted && c == '"': // of two in a row, the second opens it again
			quoted, begins = false, true
		case !quoted && c == '"' && begins && t.columns > 0:
			quoted, blank = true, false
		case quoted || c == '\r' || c == '\ufeff' && number == 1 && blank:
		default:
			begins, blank = c == delimiter, false
		}
		if c == '\n' && err == nil {
			line++
		}
		if end {
			first = line
		}
	}
	return nil
}
