package codec

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"mlc.dev/mlc/runtime/serve/api"
)

// Limits of JSON texts, which keep a hostile one from costing more than its length.
const (
	maxDepth = 64   // of values that are passed over
	maxKeys  = 64   // of an object
	maxRank  = 32   // dimensions of a tensor
	maxID    = 1024 // bytes of an id
)

// scanner reads a JSON text in place.
type scanner struct {
	b []byte
	i int
	// literals has it take NaN, Infinity and -Infinity for floats.
	literals bool
}

func (s *scanner) bad(what string) error {
	return api.Errorf(api.BadRequest, "the JSON text is not right at byte %d: %s", s.i, what)
}

// peek passes over white space and returns the byte that follows; 0 is the end.
func (s *scanner) peek() byte {
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

// next takes c, white space before it passed over.
func (s *scanner) next(c byte) bool {
	if s.peek() != c || s.i == len(s.b) {
		return false
	}
	s.i++
	return true
}

// end makes sure that nothing but white space follows.
func (s *scanner) end() error {
	if s.peek(); s.i < len(s.b) {
		return s.bad("text after its end")
	}
	return nil
}

// object calls field with each key, which reads the value. A key that comes twice
// is an error.
func (s *scanner) object(field func(key []byte) error) error {
	if !s.next('{') {
		return s.bad("an object is wanted")
	}
	if s.next('}') {
		return nil
	}
	seen := make([][]byte, 0, 8)
	for {
		at := s.i
		key, err := s.text()
		if err != nil {
			return err
		}
		for _, k := range seen {
			if bytes.Equal(k, key) {
				s.i = at
				return s.bad("a key comes twice")
			}
		}
		if len(seen) == maxKeys {
			return s.bad("an object of more than " + strconv.Itoa(maxKeys) + " keys")
		}
		seen = append(seen, key)
		if !s.next(':') {
			return s.bad("a colon is wanted")
		}
		if err := field(key); err != nil {
			return err
		}
		if s.next(',') {
			continue
		}
		if s.next('}') {
			return nil
		}
		return s.bad("a comma or the end of the object is wanted")
	}
}

// array calls item for each element, which it reads.
func (s *scanner) array(item func() error) error {
	if !s.next('[') {
		return s.bad("an array is wanted")
	}
	if s.next(']') {
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.next(',') {
			continue
		}
		if s.next(']') {
			return nil
		}
		return s.bad("a comma or the end of the array is wanted")
	}
}

// skip passes over a value that has to be right all the same.
func (s *scanner) skip(depth int) error {
	if depth == maxDepth {
		return s.bad("nested deeper than " + strconv.Itoa(maxDepth))
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case c == '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case c == '"':
		_, err := s.text()
		return err
	case c == 't' || c == 'f':
		_, err := s.bool()
		return err
	case c == 'n':
		if !s.word("null") {
			return s.bad("a value is wanted")
		}
		return nil
	}
	_, err := s.float64()
	return err
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) bool() (bool, error) {
	s.peek()
	if s.word("true") {
		return true, nil
	}
	if s.word("false") {
		return false, nil
	}
	return false, s.bad("true or false is wanted")
}

// text reads a string of UTF-8. The result may be a part of the text itself.
func (s *scanner) text() ([]byte, error) {
	if !s.next('"') {
		return nil, s.bad("a string is wanted")
	}
	start, ascii := s.i, true
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			t := s.b[start:s.i]
			if !ascii && !utf8.Valid(t) {
				return nil, s.bad("a string that is not UTF-8")
			}
			s.i++
			return t, nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.bad("a control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, s.bad("a string without end")
}

// escaped goes on with a string at its first backslash.
func (s *scanner) escaped(start int) ([]byte, error) {
	t := append([]byte(nil), s.b[start:s.i]...)
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			if !utf8.Valid(t) {
				return nil, s.bad("a string that is not UTF-8")
			}
			return t, nil
		case c < ' ':
			return nil, s.bad("a control character in a string")
		case c != '\\':
			t = append(t, c)
			continue
		}
		if s.i == len(s.b) {
			break
		}
		c = s.b[s.i]
		s.i++
		switch c {
		case '"', '\\', '/':
			t = append(t, c)
		case 'b':
			t = append(t, '\b')
		case 'f':
			t = append(t, '\f')
		case 'n':
			t = append(t, '\n')
		case 'r':
			t = append(t, '\r')
		case 't':
			t = append(t, '\t')
		case 'u':
			r, ok := s.hex4()
			if ok && utf16.IsSurrogate(r) {
				low := rune(-1)
				if ok = s.word(`\u`); ok {
					low, ok = s.hex4()
				}
				r = utf16.DecodeRune(r, low)
				ok = ok && r != utf8.RuneError
			}
			if !ok {
				return nil, s.bad(`\u is not followed by a character`)
			}
			t = utf8.AppendRune(t, r)
		default:
			return nil, s.bad("an unknown escape in a string")
		}
	}
	return nil, s.bad("a string without end")
}

func (s *scanner) hex4() (rune, bool) {
	if len(s.b)-s.i < 4 {
		return 0, false
	}
	var r rune
	for range 4 {
		c := s.b[s.i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
		s.i++
	}
	return r, true
}

// decimal is a number as it is written: ±digits·10^exp.
type decimal struct {
	digits uint64
	exp    int
	// exact says that all digits are in digits.
	exact    bool
	negative bool
	integer  bool // no point and no exponent
	token    []byte
}

// number reads a number by JSON's grammar.
func (s *scanner) number() (decimal, error) {
	s.peek()
	d := decimal{exact: true, integer: true}
	b, start, i := s.b, s.i, s.i
	if i < len(b) && b[i] == '-' {
		d.negative = true
		i++
	}
	if i == len(b) || b[i]-'0' > 9 {
		return d, s.bad("a number is wanted")
	}
	first, n := i, 0 // n: significant digits
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if n++; n <= 19 {
			d.digits = d.digits*10 + uint64(b[i]-'0')
		}
		if d.digits == 0 {
			n = 0
		}
	}
	if b[first] == '0' && i > first+1 {
		return d, s.bad("a number that begins with 0")
	}
	if i < len(b) && b[i] == '.' {
		d.integer = false
		point := i
		for i++; i < len(b) && b[i]-'0' <= 9; i++ {
			if n++; n <= 19 {
				d.digits = d.digits*10 + uint64(b[i]-'0')
				d.exp--
			}
			if d.digits == 0 {
				n = 0
			}
		}
		if i == point+1 {
			s.i = i
			return d, s.bad("a digit is wanted")
		}
	}
	d.exact = n <= 19
	if i < len(b) && b[i]|0x20 == 'e' {
		d.integer = false
		i++
		down := false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			down = b[i] == '-'
			i++
		}
		e, digit := 0, i
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			if e < 1e6 {
				e = e*10 + int(b[i]-'0')
			}
		}
		if i == digit {
			s.i = i
			return d, s.bad("a digit is wanted")
		}
		if down {
			e = -e
		}
		d.exp += e
	}
	d.token = b[start:i]
	s.i = i
	return d, nil
}

// powers are the powers of ten that a float64 holds exactly.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// quick is the float64 nearest to d where one rounding finds it: both the digits
// and the power of ten are exact.
func (d *decimal) quick() (float64, bool) {
	if !d.exact || d.digits >= 1<<53 || d.exp < -22 || d.exp > 22 {
		return 0, false
	}
	f := float64(d.digits)
	if d.exp < 0 {
		f /= powers[-d.exp]
	} else {
		f *= powers[d.exp]
	}
	if d.negative {
		f = -f
	}
	return f, true
}

// literal reads NaN, Infinity or -Infinity.
func (s *scanner) literal() (float64, bool) {
	s.peek()
	switch {
	case s.word("NaN"):
		return math.NaN(), true
	case s.word("Infinity"):
		return math.Inf(1), true
	case s.word("-Infinity"):
		return math.Inf(-1), true
	}
	return 0, false
}

func (s *scanner) float64() (float64, error) {
	if s.literals {
		if f, ok := s.literal(); ok {
			return f, nil
		}
	}
	d, err := s.number()
	if err != nil {
		return 0, err
	}
	if f, ok := d.quick(); ok {
		return f, nil
	}
	f, err := strconv.ParseFloat(string(d.token), 64)
	if err != nil {
		return 0, s.bad("a number out of the range of FP64")
	}
	return f, nil
}

func (s *scanner) float32() (float32, error) {
	if s.literals {
		if f, ok := s.literal(); ok {
			return float32(f), nil
		}
	}
	d, err := s.number()
	if err != nil {
		return 0, err
	}
	// The float64 is on the same side of the middle of two float32 as the number
	// itself, so rounding again is right unless it is that middle. A quick one is
	// neither subnormal nor infinite as a float32.
	if f, ok := d.quick(); ok && math.Float64bits(f)&(1<<29-1) != 1<<28 {
		return float32(f), nil
	}
	f, err := strconv.ParseFloat(string(d.token), 32)
	if err != nil {
		return 0, s.bad("a number out of the range of FP32")
	}
	return float32(f), nil
}

type signed interface{ int8 | int16 | int32 | int64 }

func integer[T signed](s *scanner) (T, error) {
	d, err := s.number()
	if err != nil {
		return 0, err
	}
	x := int64(d.digits)
	if d.negative {
		x = -x
	}
	// With the least int64 the digits are one more than the greatest.
	if !d.integer || !d.exact || d.digits > 1<<63 || d.digits == 1<<63 && !d.negative || int64(T(x)) != x {
		return 0, s.bad("an integer out of range, or no integer")
	}
	return T(x), nil
}

type unsigned interface {
	uint8 | uint16 | uint32 | uint64
}

func natural[T unsigned](s *scanner) (T, error) {
	d, err := s.number()
	if err != nil {
		return 0, err
	}
	x := d.digits
	if !d.exact { // the greatest uint64 has 20 digits
		if x, err = strconv.ParseUint(string(d.token), 10, 64); err != nil {
			return 0, s.bad("an integer out of range, or no integer")
		}
	}
	if !d.integer || d.negative && x != 0 || uint64(T(x)) != x {
		return 0, s.bad("an integer out of range, or no integer")
	}
	return T(x), nil
}

func (s *scanner) string() (string, error) {
	t, err := s.text()
	return string(t), err
}

// data reads the n elements of a tensor, in one array or nested as its shape.
func (s *scanner) data(t Type, shape []int64, n int) (any, error) {
	switch t {
	case Bool:
		return elements(s, shape, n, 5, (*scanner).bool)
	case Uint8:
		return elements(s, shape, n, 2, natural[uint8])
	case Uint16:
		return elements(s, shape, n, 2, natural[uint16])
	case Uint32:
		return elements(s, shape, n, 2, natural[uint32])
	case Uint64:
		return elements(s, shape, n, 2, natural[uint64])
	case Int8:
		return elements(s, shape, n, 2, integer[int8])
	case Int16:
		return elements(s, shape, n, 2, integer[int16])
	case Int32:
		return elements(s, shape, n, 2, integer[int32])
	case Int64:
		return elements(s, shape, n, 2, integer[int64])
	case FP32:
		return elements(s, shape, n, 2, (*scanner).float32)
	case FP64:
		return elements(s, shape, n, 2, (*scanner).float64)
	case Bytes:
		return elements(s, shape, n, 3, (*scanner).string)
	}
	return nil, api.Errorf(api.Invalid, "%s has no form in JSON and has to be sent in binary", t)
}

// elements reads with read; an element and its comma are at least least bytes, so
// that a shape that lies makes room for no more than the text could hold.
func elements[T any](s *scanner, shape []int64, n, least int, read func(*scanner) (T, error)) (any, error) {
	out := make([]T, 0, min(n, (len(s.b)-s.i)/least+1))
	if len(shape) < 2 {
		return row(s, out, n, read)
	}
	at := s.i
	if !s.next('[') {
		return nil, s.bad("an array is wanted")
	}
	nested := s.peek() == '['
	s.i = at
	if !nested {
		return row(s, out, n, read)
	}
	return rows(s, out, shape, read)
}

func rows[T any](s *scanner, out []T, shape []int64, read func(*scanner) (T, error)) ([]T, error) {
	if len(shape) == 1 {
		return row(s, out, int(shape[0]), read)
	}
	if !s.next('[') {
		return nil, s.bad("the data are not nested as their shape")
	}
	for k := int64(0); k < shape[0]; k++ {
		if k > 0 && !s.next(',') {
			return nil, s.bad("the data are not nested as their shape")
		}
		var err error
		if out, err = rows(s, out, shape[1:], read); err != nil {
			return nil, err
		}
	}
	if !s.next(']') {
		return nil, s.bad("the data are not nested as their shape")
	}
	return out, nil
}

func row[T any](s *scanner, out []T, n int, read func(*scanner) (T, error)) ([]T, error) {
	if !s.next('[') {
		return nil, s.bad("an array is wanted")
	}
	for k := range n {
		if k > 0 && !s.next(',') {
			return nil, s.bad("an array of " + strconv.Itoa(n) + " elements is wanted by the shape")
		}
		x, err := read(s)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	if !s.next(']') {
		return nil, s.bad("an array of " + strconv.Itoa(n) + " elements is wanted by the shape")
	}
	return out, nil
}
