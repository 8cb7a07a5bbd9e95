package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Request is a request as its bytes. Headers are whole lines without their ends.
func Request(method, path string, body []byte, headers ...string) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n", method, path, len(body))
	for _, h := range headers {
		b = append(append(b, h...), "\r\n"...)
	}
	return append(append(b, "\r\n"...), body...)
}

// JSON is a POST of a JSON text.
func JSON(path, body string) []byte {
	return Request("POST", path, []byte(body), "Content-Type: application/json")
}

// head is what matters of an answer's head.
type head struct {
	status int
	length int // of head and body
	retry  bool
	close  bool
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

var (
	errMalformed = errors.New("malformed answer")
	errChunked   = errors.New("chunked answer")
	endOfHead    = []byte("\r\n\r\n")
)

// parse reads the head of an answer; false where it is not whole yet.
func parse(b []byte) (head, bool, error) {
	var h head
	end := bytes.Index(b, endOfHead)
	if end < 0 {
		if len(b) > 64<<10 {
			return h, false, errMalformed
		}
		return h, false, nil
	}
	line, rest, _ := bytes.Cut(b[:end], endOfHead[:2])
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return h, false, errMalformed
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return h, false, errMalformed
		}
		h.status = 10*h.status + int(c-'0')
	}
	if h.status < 200 || h.status > 599 {
		return h, false, errMalformed
	}
	body, told := 0, h.status == 204 || h.status == 304
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, endOfHead[:2])
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return h, false, errMalformed
		}
		value = bytes.TrimSpace(value)
		switch {
		case is(name, "content-length"):
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil || n > maxAnswer {
				return h, false, errMalformed
			}
			body, told = int(n), true
		case is(name, "transfer-encoding"):
			return h, false, errChunked
		case is(name, "retry-after"):
			h.retry = true
		case is(name, "connection"):
			h.close = is(value, "close")
		}
	}
	if !told {
		return h, false, errMalformed
	}
	h.length = end + len(endOfHead) + body
	return h, true, nil
}

// is compares a name in any case with one in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
