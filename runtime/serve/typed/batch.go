package typed

import (
	"bytes"
	"cmp"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/jsonscan"
)

// span is a text in a batch's arena; one that starts at -1 is missing.
type span struct{ start, end int }

// batch holds the rows of a request and what is wrong with them. It is used again:
// what leaves it is copied.
type batch struct {
	*form
	faults
	scan jsonscan.Scanner
	// id and key are what the request calls itself and who asks, "" if it does not say.
	id, key string
	// paths says how places are written.
	paths paths

	most    int       // rows that a request may have
	rows    int       // read so far
	numbers []float64 // row by row
	spans   []span    // row by row
	arena   []byte
	// stamp is the row, from 1, that last brought a field.
	stamp []int
	// said is what the value at hand is called where that is not its feature's name.
	said string
}

// paths is the way of writing places: in rows of JSON, in the one row of JSON, or
// in a message of gRPC.
type paths int

const (
	pathRows paths = iota
	pathFeatures
	pathProto
)

// reset empties b for a request of form f with at most that many rows.
func (b *batch) reset(f *form, p paths, most int) {
	b.form, b.paths, b.most = f, p, most
	b.faults.reset()
	b.id, b.key, b.rows = "", "", 0
	b.numbers, b.spans, b.arena = b.numbers[:0], b.spans[:0], b.arena[:0]
	if cap(b.stamp) < len(f.fields) {
		b.stamp = make([]int, len(f.fields))
	}
	b.stamp = b.stamp[:len(f.fields)]
	clear(b.stamp)
}

// kept reports whether b is small enough to be kept for another request.
func (b *batch) kept() bool {
	const most = 1 << 17 // a megabyte of numbers
	return cap(b.numbers) <= most && cap(b.spans) <= most/2 && cap(b.arena) <= most*8
}

// place is the path of a member of the row at hand, or of the row itself.
func (b *batch) place(name string) string {
	var p []byte
	switch b.paths {
	case pathRows:
		p = append(strconv.AppendInt(append(p, "$.rows["...), int64(b.rows-1), 10), ']')
	case pathFeatures:
		p = append(p, "$.features"...)
	case pathProto:
		p = append(strconv.AppendInt(append(p, "rows["...), int64(b.rows-1), 10), ']')
		if name != "" {
			p = append(append(p, '.'), name...)
		}
		return string(p)
	}
	if name != "" {
		p = append(appendText(append(p, '['), short(name)), ']')
	}
	return string(p)
}

// fault adds a fault of field i of the row at hand.
func (b *batch) fault(i int, code, mend, what string, args ...any) {
	if b.full() {
		return
	}
	x := &b.fields[i]
	name := cmp.Or(b.said, x.Name)
	if b.paths == pathProto {
		name = x.proto
	}
	b.add(b.place(name), code, mend, what, args...)
}

// begin starts a row, all of it missing.
func (b *batch) begin() *api.Error {
	if b.rows == b.most {
		return api.Errorf(api.TooLarge, "more than %d rows in a request; ask in several", b.most)
	}
	b.rows++
	for range b.form.numbers {
		b.numbers = append(b.numbers, math.NaN())
	}
	for range b.form.texts {
		b.spans = append(b.spans, span{-1, -1})
	}
	return nil
}

// bring notes that the row at hand brings field i; false says that it did already.
func (b *batch) bring(i int) bool {
	if b.stamp[i] == b.rows {
		b.fault(i, Duplicate, "", "it comes twice")
		return false
	}
	b.stamp[i] = b.rows
	return true
}

// end looks for what the row at hand did not bring.
func (b *batch) end() {
	for i := range b.fields {
		if b.stamp[i] != b.rows && !b.fields[i].Nullable {
			b.fault(i, Missing, "", "%s is missing", article(b.fields[i].Type))
		}
	}
}

// null brings a missing value.
func (b *batch) null(i int) {
	if !b.fields[i].Nullable {
		b.fault(i, Missing, "", "null where %s is needed", article(b.fields[i].Type))
	}
}

// num brings a number that is of the field's type.
func (b *batch) num(i int, v float64) {
	x := &b.fields[i]
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		b.fault(i, NotFinite, "", "%s is no finite number", number(v))
	case v < x.min || v > x.max:
		b.fault(i, OutOfRange, "it takes numbers "+x.domain(), "%s is out of range", number(v))
	case !x.right(v):
		b.fault(i, NotAmong, "one of "+x.list(), "%s is not among the values that it takes", number(v))
	default:
		b.numbers[(b.rows-1)*b.form.numbers+x.slot] = v
	}
}

// str brings a text; well-formed UTF-8 is the caller's to see to. One that training has
// read as missing is missing.
func (b *batch) str(i int, s []byte) {
	x := &b.fields[i]
	switch {
	case x.nulls[string(s)]:
		if !x.Nullable {
			b.fault(i, Missing, "", "%q, which stands for a missing value, where %s is needed", short(string(s)), article(x.Type))
		}
	case string(s) == b.sig.NullString:
		b.fault(i, Reserved, "write null", "%q stands for a missing value", b.sig.NullString)
	case bytes.IndexByte(s, 0) >= 0:
		b.fault(i, Reserved, "", "a text cannot have a NUL character")
	case x.texts != nil && !x.texts[string(s)]:
		mend := ""
		if b.room() {
			if mend = b.suggest(string(s), x.values); mend == "" {
				mend = "one of " + x.list()
			}
		}
		b.fault(i, NotAmong, mend, "%q is not among the values that it takes", short(string(s)))
	default:
		at := len(b.arena)
		b.arena = append(b.arena, s...)
		b.spans[(b.rows-1)*b.form.texts+x.slot] = span{at, len(b.arena)}
	}
}

// tensors are the rows as the model takes them. They share nothing with b.
func (b *batch) tensors() []ort.Value {
	shape := []int64{int64(b.rows), 1}
	numbers := make([]float64, len(b.numbers))
	texts := make([]string, len(b.spans))
	arena := string(b.arena)
	out := make([]ort.Value, len(b.inputs))
	for k, i := range b.inputs {
		x := &b.fields[i]
		if x.text {
			col := texts[x.slot*b.rows:][:b.rows:b.rows]
			for r := range col {
				if s := b.spans[r*b.form.texts+x.slot]; s.start < 0 {
					col[r] = b.sig.NullString
				} else {
					col[r] = arena[s.start:s.end]
				}
			}
			out[k] = ort.Tensor{Shape: shape, Data: col}
			continue
		}
		col := numbers[x.slot*b.rows:][:b.rows:b.rows]
		for r := range col {
			col[r] = b.numbers[r*b.form.numbers+x.slot]
		}
		out[k] = ort.Tensor{Shape: shape, Data: col}
	}
	return out
}

// value is what the first row brings for a feature, as a text; "" if it is missing.
func (b *batch) value(name string) string {
	i, ok := b.byName[name]
	if !ok || i < 0 {
		return ""
	}
	x := &b.fields[i]
	if x.text {
		if s := b.spans[x.slot]; s.start >= 0 {
			return string(b.arena[s.start:s.end])
		}
		return ""
	}
	if v := b.numbers[x.slot]; !math.IsNaN(v) {
		return number(v)
	}
	return ""
}

// The members of a request, as bits.
const (
	memberRows = 1 << iota
	memberFeatures
	memberID
	memberKey
)

var members = []string{"rows", "features", "id", "key"}

// readJSON reads a request. An error says that it is no JSON or has too many rows;
// whatever else is wrong is among the faults.
func (b *batch) readJSON(body []byte) (*jsonscan.Error, *api.Error) {
	s := &b.scan
	s.Reset(body)
	if k := s.Peek(); k != jsonscan.Object {
		s.Skip()
		if s.End() {
			b.add("$", WrongType, `write {"rows": [{…}]} or {"features": {…}}`, "%s where an object is expected", k)
		}
		return s.Err(), nil
	}
	seen := 0
	for s.Open(); s.Next(); {
		name := s.Key()
		var bit int
		switch string(name) {
		case "rows":
			bit = memberRows
		case "features":
			bit = memberFeatures
		case "id":
			bit = memberID
		case "key":
			bit = memberKey
		default:
			if !b.full() {
				b.add("$["+string(appendText(nil, short(string(name))))+"]", Unknown, b.suggest(string(name), members), "a request has no such field")
			}
			s.Skip()
			continue
		}
		if seen&bit != 0 {
			if !b.full() {
				b.add("$."+string(name), Duplicate, "", "it comes twice")
			}
			s.Skip()
			continue
		}
		seen |= bit
		var err *api.Error
		switch bit {
		case memberRows:
			err = b.readRows(seen)
		case memberFeatures:
			err = b.readFeatures(seen)
		case memberID:
			b.id = b.readLabel("$.id", idText, isID)
		case memberKey:
			b.key = b.readLabel("$.key", keyText, isKey)
		}
		if err != nil {
			return nil, err
		}
	}
	if s.End() && seen&(memberRows|memberFeatures) == 0 && !b.full() {
		b.add("$.rows", Missing, `write {"rows": [{…}]} or {"features": {…}}`, "it has neither rows nor features")
	}
	return s.Err(), nil
}

// conflict tells that rows and features come both, and skips the later.
func (b *batch) conflict(seen int) bool {
	if seen&memberRows == 0 || seen&memberFeatures == 0 {
		return false
	}
	if !b.full() {
		b.add("$", Conflicting, "features is one row, rows are several", "it has both rows and features")
	}
	b.scan.Skip()
	return true
}

func (b *batch) readRows(seen int) *api.Error {
	s := &b.scan
	if b.conflict(seen) {
		return nil
	}
	b.paths = pathRows
	if k := s.Peek(); k != jsonscan.Array {
		if !b.full() {
			b.add("$.rows", WrongType, "", "%s where an array of rows is expected", k)
		}
		s.Skip()
		return nil
	}
	for s.Open(); s.Next(); {
		if err := b.readRow(); err != nil {
			return err
		}
	}
	if b.rows == 0 && s.Err() == nil && !b.full() {
		b.add("$.rows", Empty, "", "there are no rows")
	}
	return nil
}

func (b *batch) readFeatures(seen int) *api.Error {
	if b.conflict(seen) {
		return nil
	}
	b.paths = pathFeatures
	return b.readRow()
}

// readLabel reads a text that good accepts.
func (b *batch) readLabel(path, mend string, good func(string) bool) string {
	s := &b.scan
	if k := s.Peek(); k != jsonscan.String {
		s.Skip()
		if !b.full() {
			b.add(path, WrongType, "", "%s where a string is expected", k)
		}
		return ""
	}
	t := string(s.Text())
	if s.Err() == nil && !good(t) {
		if !b.full() {
			b.add(path, BadText, mend, "%q does not do", short(t))
		}
		return ""
	}
	return t
}

func (b *batch) readRow() *api.Error {
	s := &b.scan
	if err := b.begin(); err != nil {
		return err
	}
	if k := s.Peek(); k != jsonscan.Object {
		s.Skip()
		if !b.full() {
			b.add(b.place(""), WrongType, "", "%s where an object of features is expected", k)
		}
		return nil
	}
	next := 0
	for s.Open(); s.Next(); next++ {
		name := s.Key()
		b.said = ""
		// Rows mostly bring their features in the order of the signature, or in one
		// order of their own.
		if next >= len(b.fields) || string(name) != b.fields[next].Name {
			i, ok := b.byName[string(name)]
			if !ok || i == ambiguous {
				b.unknown(string(name))
				s.Skip()
				continue
			}
			if next = i; string(name) != b.fields[i].Name {
				b.said = b.fields[i].Column
			}
		}
		if !b.bring(next) {
			s.Skip()
			continue
		}
		b.readValue(next)
	}
	b.said = ""
	if s.Err() == nil {
		b.end()
	}
	return nil
}

// unknown tells that the row at hand brings something that no feature is called.
func (b *batch) unknown(name string) {
	if b.full() {
		return
	}
	if b.byName[name] == ambiguous {
		var of []string
		for i := range b.fields {
			if b.fields[i].Column == name {
				of = append(of, strconv.Quote(b.fields[i].Name))
			}
		}
		b.add(b.place(name), Unknown, "write "+strings.Join(of, " or "), "a column of more than one feature")
		return
	}
	b.add(b.place(name), Unknown, b.suggest(name, b.names), "the model has no such feature")
}

func (b *batch) readValue(i int) {
	s, x := &b.scan, &b.fields[i]
	switch k := s.Peek(); {
	case k == jsonscan.Null:
		s.Null()
		b.null(i)
	case k == jsonscan.Number && x.Type == types.Float:
		lit := s.Literal()
		if len(lit) == 0 {
			return
		}
		v, err := strconv.ParseFloat(string(lit), 64)
		if err != nil {
			b.fault(i, NotFinite, "", "%s is more than a double holds", short(string(lit)))
			return
		}
		b.num(i, v)
	case k == jsonscan.Number && x.Type == types.Int:
		lit := s.Literal()
		if len(lit) == 0 {
			return
		}
		v, ok := parseInt(lit)
		if !ok {
			b.fault(i, NotWhole, "", "%s is no whole number of 64 bits", short(string(lit)))
			return
		}
		b.num(i, v)
	case (k == jsonscan.True || k == jsonscan.False) && x.Type == types.Bool:
		v := 0.0
		if s.Bool() {
			v = 1
		}
		b.num(i, v)
	case k == jsonscan.String && x.Type == types.String:
		if t := s.Text(); s.Err() == nil {
			b.str(i, t)
		}
	case k == jsonscan.String && x.Type == types.Timestamp:
		t := s.Text()
		v, ok := parseTime(t)
		if !ok {
			b.fault(i, BadTime, "write it like 2024-01-31T12:00:00Z", "%q is no RFC 3339 timestamp", short(string(t)))
			return
		}
		b.num(i, v)
	case k == jsonscan.String:
		t := s.Text()
		mend := ""
		if _, err := strconv.ParseFloat(string(t), 64); err == nil && x.Type.Numeric() || x.Type == types.Bool && (string(t) == "true" || string(t) == "false") {
			mend = "write it without quotes"
		}
		if x.Type.Numeric() && (string(t) == "NaN" || string(t) == "") {
			mend = "a missing value is null"
		}
		b.fault(i, WrongType, mend, "a string where %s is expected", article(x.Type))
	default:
		s.Skip()
		if s.Err() == nil {
			b.fault(i, WrongType, "", "%s where %s is expected", k, article(x.Type))
		}
	}
}

// article names a type in words.
func article(t types.Type) string {
	switch t {
	case types.Int:
		return "a whole number"
	case types.Float:
		return "a number"
	case types.Bool:
		return "a boolean"
	case types.Timestamp:
		return "an RFC 3339 timestamp"
	}
	return "a string"
}

// What ids and keys take, in words.
const (
	idText  = "it takes letters, digits and signs of ASCII, from 1 to 128"
	keyText = "it takes at most 256 characters"
)

// isID reports whether s does as the name of a request: 1 to 128 characters of
// ASCII that show, so that a header holds it.
func isID(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 128
}

// isKey reports whether s does as what keeps a caller with one variant.
func isKey(s string) bool {
	return len(s) <= 256*utf8.UTFMax && utf8.RuneCountInString(s) <= 256
}
