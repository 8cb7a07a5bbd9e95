package trees

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// toJSON writes Universal Binary JSON (ubjson.org, draft 12) as JSON, so that there
// is one reader of XGBoost's models. A number that JSON cannot have becomes a string,
// which is a fault wherever a number is needed.
func toJSON(b []byte) ([]byte, error) {
	u := &ubjson{in: b}
	u.value(u.next("a value"), 0)
	return u.out, u.err
}

// maxNesting is how deep values may lie in one another.
const maxNesting = 64

// ubjson is the reader's state; the first failure stays.
type ubjson struct {
	in  []byte
	at  int
	out []byte
	err error
}

func (u *ubjson) fail(format string, args ...any) {
	if u.err == nil {
		u.err = fmt.Errorf("byte %d: %s", u.at, fmt.Sprintf(format, args...))
	}
}

// next takes a marker; no-ops are none.
func (u *ubjson) next(what string) byte {
	for u.err == nil {
		if u.at >= len(u.in) {
			u.fail("it ends before %s", what)
			break
		}
		u.at++
		if c := u.in[u.at-1]; c != 'N' {
			return c
		}
	}
	return 0
}

// peek reports whether a marker comes next, and takes it then.
func (u *ubjson) peek(marker byte) bool {
	if u.err == nil && u.at < len(u.in) && u.in[u.at] == marker {
		u.at++
		return true
	}
	return false
}

func (u *ubjson) take(n int) []byte {
	if u.err == nil && n > len(u.in)-u.at {
		u.fail("it ends within a value")
	}
	if u.err != nil {
		return nil
	}
	u.at += n
	return u.in[u.at-n : u.at]
}

// integer reads a whole number of a type, and reports whether it is one.
func (u *ubjson) integer(marker byte) (int64, bool) {
	size := map[byte]int{'i': 1, 'U': 1, 'I': 2, 'l': 4, 'L': 8}[marker]
	if size == 0 {
		return 0, false
	}
	b := u.take(size)
	if b == nil {
		return 0, true
	}
	switch marker {
	case 'i':
		return int64(int8(b[0])), true
	case 'U':
		return int64(b[0]), true
	case 'I':
		return int64(int16(binary.BigEndian.Uint16(b))), true
	case 'l':
		return int64(int32(binary.BigEndian.Uint32(b))), true
	}
	return int64(binary.BigEndian.Uint64(b)), true
}

// length reads a number of things of at least one byte.
func (u *ubjson) length() int {
	marker := u.next("a length")
	n, ok := u.integer(marker)
	if u.err == nil && (!ok || n < 0 || n > int64(len(u.in)-u.at)) {
		u.fail("a length is %d of type %q, beyond the file", n, marker)
	}
	if u.err != nil {
		return 0
	}
	return int(n)
}

func (u *ubjson) text(b []byte) {
	s, err := json.Marshal(string(b))
	if err != nil {
		panic(err) // a string always marshals
	}
	u.out = append(u.out, s...)
}

func (u *ubjson) float(v float64) {
	if finite(v) {
		u.out = strconv.AppendFloat(u.out, v, 'g', -1, 64)
	} else {
		u.text([]byte(strconv.FormatFloat(v, 'g', -1, 64)))
	}
}

// value writes the value of a type.
func (u *ubjson) value(marker byte, depth int) {
	if depth > maxNesting {
		u.fail("values are nested more than %d deep", maxNesting)
	}
	if u.err != nil {
		return
	}
	switch marker {
	case 'Z':
		u.out = append(u.out, "null"...)
	case 'T':
		u.out = append(u.out, "true"...)
	case 'F':
		u.out = append(u.out, "false"...)
	case 'd':
		if b := u.take(4); b != nil {
			u.float(float64(math.Float32frombits(binary.BigEndian.Uint32(b))))
		}
	case 'D':
		if b := u.take(8); b != nil {
			u.float(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
	case 'C':
		u.text(u.take(1))
	case 'S', 'H':
		u.text(u.take(u.length()))
	case '[':
		u.container('[', ']', depth)
	case '{':
		u.container('{', '}', depth)
	default:
		n, ok := u.integer(marker)
		if !ok {
			u.at--
			u.fail("no value begins with %q", marker)
			return
		}
		u.out = strconv.AppendInt(u.out, n, 10)
	}
}

// container writes an array or an object, which may say how much of what it has.
func (u *ubjson) container(begin, end byte, depth int) {
	kind, count := byte(0), -1
	if u.peek('$') {
		kind = u.next("a type")
		switch kind {
		case 'Z', 'T', 'F', 'N':
			u.fail("values of type %q take no bytes", kind)
		}
	}
	if u.peek('#') {
		count = u.length()
	} else if kind != 0 {
		u.fail("a type comes without a count")
	}
	u.out = append(u.out, begin)
	for i := 0; u.err == nil && i != count; i++ {
		if count < 0 && u.peek(end) {
			break
		}
		if i > 0 {
			u.out = append(u.out, ',')
		}
		if begin == '{' {
			u.text(u.take(u.length()))
			u.out = append(u.out, ':')
		}
		marker := kind
		if marker == 0 {
			marker = u.next("a value")
		}
		u.value(marker, depth+1)
	}
	u.out = append(u.out, end)
}
