// Package jsonscan reads JSON from a slice of bytes, a token at a time, without
// reflection and without allocating.
//
// It takes what RFC 8259 and I-JSON (RFC 7493) allow: text is UTF-8 and an escape
// is no lone half of a surrogate pair. Duplicate keys are the caller's to find.
package jsonscan

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects may stand in each other.
const MaxDepth = 64

// Kind is what a value is, told by its first byte.
type Kind byte

// The kinds of values. Invalid is anything else, and the end.
const (
	Invalid Kind = 0
	Object  Kind = '{'
	Array   Kind = '['
	String  Kind = '"'
	Number  Kind = '0'
	True    Kind = 't'
	False   Kind = 'f'
	Null    Kind = 'n'
)

// String names a kind with its article.
func (k Kind) String() string {
	switch k {
	case Object:
		return "an object"
	case Array:
		return "an array"
	case String:
		return "a string"
	case Number:
		return "a number"
	case True, False:
		return "a boolean"
	case Null:
		return "null"
	}
	return "no value"
}

var kinds = func() (t [256]Kind) {
	for _, k := range []Kind{Object, Array, String, True, False, Null} {
		t[k] = k
	}
	for _, c := range "-0123456789" {
		t[c] = Number
	}
	return t
}()

// Error is why the bytes are no JSON.
type Error struct {
	// Offset counts bytes from 0.
	Offset int
	Text   string
}

// Error is the text with the offset.
func (e *Error) Error() string { return fmt.Sprintf("at byte %d: %s", e.Offset, e.Text) }

// Scanner reads one JSON value. After an error, Peek is Invalid, Next is false and
// what is read is empty, so that callers look at Err once, at the end.
type Scanner struct {
	data  []byte
	pos   int
	depth int
	// open holds a bit for each level, 1 for an object.
	open uint64
	// fresh says that nothing stands in the innermost level yet.
	fresh   bool
	scratch []byte
	err     *Error
}

// Reset starts on data, which has to stay as it is while it is read.
func (s *Scanner) Reset(data []byte) {
	*s = Scanner{data: data, scratch: s.scratch[:0]}
}

// Err is the first error, or nil.
func (s *Scanner) Err() *Error { return s.err }

func (s *Scanner) fail(at int, text string) {
	if s.err == nil {
		s.err = &Error{Offset: at, Text: text}
	}
	s.pos = len(s.data)
}

// space skips white space and returns the byte after it, 0 at the end.
func (s *Scanner) space() byte {
	for i := s.pos; i < len(s.data); i++ {
		switch c := s.data[i]; c {
		case ' ', '\n', '\r', '\t':
		default:
			s.pos = i
			return c
		}
	}
	s.pos = len(s.data)
	return 0
}

// Peek tells the kind of the next value and leaves it there.
func (s *Scanner) Peek() Kind {
	c := s.space()
	k := kinds[c]
	if k == Invalid {
		s.unexpected("a value")
	}
	return k
}

// unexpected says that want is not what stands at the next byte.
func (s *Scanner) unexpected(want string) {
	if s.err != nil {
		return
	}
	if s.pos >= len(s.data) {
		s.fail(s.pos, "it ends where "+want+" should stand")
		return
	}
	switch c := s.data[s.pos]; {
	case c == 'N' || c == 'I':
		s.fail(s.pos, "NaN and Infinity are no JSON; a missing value is null")
	case c < ' ' || c > '~':
		s.fail(s.pos, fmt.Sprintf("byte 0x%02x where %s should stand", c, want))
	default:
		s.fail(s.pos, fmt.Sprintf("%q where %s should stand", c, want))
	}
}

// Open enters an object or array, whichever Peek told.
func (s *Scanner) Open() {
	c := s.space()
	if c != '{' && c != '[' {
		s.unexpected("an object or array")
		return
	}
	if s.depth == MaxDepth {
		s.fail(s.pos, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
		return
	}
	s.pos++
	s.depth++
	s.open <<= 1
	if c == '{' {
		s.open |= 1
	}
	s.fresh = true
}

// Next reports whether another element follows in the innermost object or array,
// and goes to it; else it leaves that.
func (s *Scanner) Next() bool {
	if s.depth == 0 {
		return false
	}
	c := s.space()
	end, want := byte(']'), "a comma or ]"
	if s.open&1 == 1 {
		end, want = '}', "a comma or }"
	}
	switch {
	case s.err != nil:
		return false
	case c == end:
		s.pos++
		s.depth--
		s.open >>= 1
		s.fresh = false
		return false
	case s.fresh:
		s.fresh = false
		return true
	case c != ',':
		s.unexpected(want)
		return false
	}
	s.pos++
	return true
}

// Key reads a member's name and the colon. It is valid until the next text is read.
func (s *Scanner) Key() []byte {
	if s.space() != '"' {
		s.unexpected("a name in quotes")
		return nil
	}
	k := s.Text()
	if s.err == nil && s.space() != ':' {
		s.unexpected("a colon")
		return nil
	}
	s.pos++
	return k
}

// Text reads a string, unescaped. It is valid until the next text is read.
func (s *Scanner) Text() []byte {
	if s.space() != '"' {
		s.unexpected("a string")
		return nil
	}
	start := s.pos + 1
	var high byte
	for i := start; i < len(s.data); i++ {
		c := s.data[i]
		switch {
		case c == '"':
			s.pos = i + 1
			if t := s.data[start:i]; high < utf8.RuneSelf || s.utf8(t, start) {
				return t
			}
			return nil
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			s.fail(i, fmt.Sprintf("control character 0x%02x in a string; escape it", c))
			return nil
		}
		high |= c
	}
	s.fail(len(s.data), "it ends within a string")
	return nil
}

// utf8 reports whether t, which stands at start, is well-formed.
func (s *Scanner) utf8(t []byte, start int) bool {
	for i := 0; i < len(t); {
		r, n := utf8.DecodeRune(t[i:])
		if r == utf8.RuneError && n == 1 {
			s.fail(start+i, "a string that is not UTF-8")
			return false
		}
		i += n
	}
	return true
}

// escaped reads a string that starts at start and has its first escape at i.
func (s *Scanner) escaped(start, i int) []byte {
	out := s.scratch[:0]
	for i < len(s.data) {
		switch c := s.data[i]; {
		case c == '"':
			if !s.utf8(s.data[start:i], start) {
				return nil
			}
			out = append(out, s.data[start:i]...)
			s.pos, s.scratch = i+1, out
			return out
		case c == '\\':
			if !s.utf8(s.data[start:i], start) {
				return nil
			}
			out = append(out, s.data[start:i]...)
			r, n := s.escape(i)
			if n == 0 {
				return nil
			}
			out = utf8.AppendRune(out, r)
			i += n
			start = i
		case c < ' ':
			s.fail(i, fmt.Sprintf("control character 0x%02x in a string; escape it", c))
			return nil
		default:
			i++
		}
	}
	s.fail(len(s.data), "it ends within a string")
	return nil
}

// escape reads the escape at i and tells how long it is, 0 after an error.
func (s *Scanner) escape(i int) (rune, int) {
	if i+1 >= len(s.data) {
		s.fail(len(s.data), "it ends within a string")
		return 0, 0
	}
	switch c := s.data[i+1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(s.data[i+2:])
		if !ok {
			s.fail(i, `\u takes four hexadecimal digits`)
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if rest := s.data[i+6:]; len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
			if low, ok := hex4(rest[2:]); ok {
				if r := utf16.DecodeRune(r, low); r != utf8.RuneError {
					return r, 12
				}
			}
		}
		s.fail(i, "half of a surrogate pair")
		return 0, 0
	}
	s.fail(i, "an escape that JSON does not have")
	return 0, 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Literal reads a number and returns it as it stands, within the data.
func (s *Scanner) Literal() []byte {
	s.space()
	d, i := s.data, s.pos
	digits := func() bool {
		from := i
		for i < len(d) && d[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(d) && d[i] == '-' {
		i++
	}
	if i < len(d) && d[i] == '0' {
		i++
		if i < len(d) && d[i]-'0' <= 9 {
			s.fail(i, "a number with a leading zero")
			return nil
		}
	} else if !digits() {
		s.pos = i
		s.unexpected("a digit")
		return nil
	}
	if i < len(d) && d[i] == '.' {
		if i++; !digits() {
			s.pos = i
			s.unexpected("a digit")
			return nil
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		if !digits() {
			s.pos = i
			s.unexpected("a digit")
			return nil
		}
	}
	n := d[s.pos:i]
	s.pos = i
	return n
}

// Bool reads true or false.
func (s *Scanner) Bool() bool {
	if s.space() == 't' {
		return s.word("true")
	}
	s.word("false")
	return false
}

// Null reads null.
func (s *Scanner) Null() {
	s.space()
	s.word("null")
}

func (s *Scanner) word(w string) bool {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		if s.err == nil {
			s.fail(s.pos, "a word other than true, false and null")
		}
		return false
	}
	s.pos += len(w)
	return true
}

// Skip reads a value of any kind and forgets it.
func (s *Scanner) Skip() {
	floor := s.depth
	s.scalar()
	for s.depth > floor && s.err == nil {
		if !s.Next() {
			continue
		}
		if s.open&1 == 1 {
			s.Key()
		}
		s.scalar()
	}
}

// scalar skips a value, and of an object or array only the opening.
func (s *Scanner) scalar() {
	switch s.Peek() {
	case Object, Array:
		s.Open()
	case String:
		s.Text()
	case Number:
		s.Literal()
	case True, False:
		s.Bool()
	case Null:
		s.Null()
	}
}

// End reports whether nothing but white space follows.
func (s *Scanner) End() bool {
	s.space()
	if s.err == nil && s.pos < len(s.data) {
		s.fail(s.pos, "something follows the value")
	}
	return s.err == nil
}
