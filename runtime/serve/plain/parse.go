package plain

import "bytes"

// kind is what a connection's bytes are.
type kind int

const (
	plain kind = iota
	more       // what may be plain once there is more of it
	other      // what net/http has to judge
)

// mostHeaders is the most headers of a plain request.
const mostHeaders = 32

// field is where a header stands in a request.
type field struct{ name, colon, value, end uint16 }

// request is the head of a plain request.
type request struct {
	path   [2]int // where it is
	fields [mostHeaders]field
	n      int // of fields
	length int // of the body
}

// value is that of a header in a request's bytes, "" without.
func (r *request) value(b []byte, name string) string {
	if f := find(r, b, name); f != nil {
		return string(b[f.value:f.end])
	}
	return ""
}

// find is a header, nil without.
func find[T string | []byte](r *request, b []byte, name T) *field {
	for i := range r.n {
		if f := &r.fields[i]; int(f.colon-f.name) == len(name) && same(b[f.name:f.colon], name) {
			return f
		}
	}
	return nil
}

// same compares names without regard to case.
func same[T string | []byte](b []byte, name T) bool {
	if len(b) != len(name) {
		return false
	}
	for i := range len(b) {
		if lower(b[i]) != lower(name[i]) {
			return false
		}
	}
	return true
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// parse reads the head of a request, of n bytes. It is plain where
//
//   - its line is POST path HTTP/1.1, with a path of /, letters, digits, "-", "_" and ".",
//     no part of which is empty or dots alone,
//   - lines end in CR LF, and headers are tokens, a colon, and visible ASCII, spaces and tabs,
//   - no header is there twice; one is Host, of letters, digits and ".-:[]", and one
//     Content-Length, of at most mostBody,
//   - nothing is asked of the connection but to be kept: no Transfer-Encoding, Expect,
//     Upgrade, Trailer or TE, and no Connection but keep-alive.
func (r *request) parse(b []byte) (n int, is kind) {
	const method, version = "POST ", " HTTP/1.1\r\n"
	if k := min(len(b), len(method)); string(b[:k]) != method[:k] {
		return 0, other
	}
	end := len(method)
line:
	for letter := false; ; end++ { // letter: the part has more than dots
		if end >= min(len(b), mostHead) {
			return 0, more
		}
		c := b[end]
		switch {
		case end == len(method):
			if c != '/' {
				return 0, other
			}
			continue
		case c == '/' || c == ' ':
			if !letter {
				return 0, other
			}
			letter = false
		case c == '.':
		case inPath[c]:
			letter = true
		default:
			return 0, other
		}
		if c == ' ' {
			break line
		}
	}
	r.path = [2]int{len(method), end}
	if k := min(len(b)-end, len(version)); string(b[end:end+k]) != version[:k] {
		return 0, other
	} else if k < len(version) {
		return 0, more
	}
	at := end + len(version)
	r.n, r.length = 0, -1
	host := false
	for at <= mostHead {
		rest := b[at:min(len(b), mostHead)]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			if len(rest) > 0 && !started(rest) {
				return 0, other
			}
			return 0, more
		}
		if end == 0 || rest[end-1] != '\r' {
			return 0, other
		}
		if end == 1 {
			at += 2
			if !host || r.length < 0 {
				return 0, other
			}
			return at, plain
		}
		if r.n == mostHeaders {
			return 0, other
		}
		f, ok := header(rest[:end-1])
		if !ok {
			return 0, other
		}
		name, value := rest[:f.colon], rest[f.value:f.end]
		if find(r, b, name) != nil {
			return 0, other
		}
		switch len(name) {
		case len("host"):
			if same(name, "host") {
				if !isHost(value) {
					return 0, other
				}
				host = true
			}
		case len("content-length"):
			if same(name, "content-length") {
				if r.length = number(value); r.length < 0 {
					return 0, other
				}
			}
		case len("connection"):
			if same(name, "connection") && !same(value, "keep-alive") {
				return 0, other
			}
		case len("transfer-encoding"):
			if same(name, "transfer-encoding") {
				return 0, other
			}
		case len("trailer"): // as long as upgrade
			if same(name, "trailer") || same(name, "upgrade") {
				return 0, other
			}
		case len("expect"):
			if same(name, "expect") {
				return 0, other
			}
		case len("te"):
			if same(name, "te") {
				return 0, other
			}
		}
		r.fields[r.n] = field{f.name + uint16(at), f.colon + uint16(at), f.value + uint16(at), f.end + uint16(at)}
		r.n++
		at += end + 1
	}
	return 0, more
}

// started reports whether a line that is not whole may become a header's.
func started(b []byte) bool { return b[0] == '\r' || token[b[0]] }

// header finds the name and the value in a line.
func header(b []byte) (f field, ok bool) {
	i := 0
	for i < len(b) && token[b[i]] {
		i++
	}
	if i == 0 || i == len(b) || b[i] != ':' {
		return f, false
	}
	from, to := i+1, len(b)
	for _, c := range b[from:] {
		if c < ' ' && c != '\t' || c > '~' {
			return f, false
		}
	}
	for from < to && (b[from] == ' ' || b[from] == '\t') {
		from++
	}
	for from < to && (b[to-1] == ' ' || b[to-1] == '\t') {
		to--
	}
	return field{0, uint16(i), uint16(from), uint16(to)}, true
}

// token are the characters of names (RFC 9110, section 5.6.2).
var token = func() (t [256]bool) {
	for c := range 256 {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return t
}()

// inPath are the characters of a path's parts.
var inPath = func() (t [256]bool) {
	for c := range 256 {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
	}
	return t
}()

func isHost(b []byte) bool {
	for _, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == ':' || c == '[' || c == ']') {
			return false
		}
	}
	return len(b) > 0
}

// number is the length of a body, at most mostBody; below 0: it is not plain.
func number(b []byte) int {
	if len(b) == 0 || len(b) > 5 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	if n > mostBody {
		return -1
	}
	return n
}
