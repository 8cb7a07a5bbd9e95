package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

// Exchange is a request over HTTP and its answer, by net/http or without it.
type Exchange interface {
	// Header is the first value of one of the request's headers; "" without. Headers are
	// all of them.
	Header(name string) string
	Headers(name string) []string
	// RemoteAddr is who asks, as host:port.
	RemoteAddr() string
	// Body appends the request's body to b. It has as long as within to come, where that
	// is above 0. Errors: *http.MaxBytesError where it is larger than most bytes,
	// os.ErrDeadlineExceeded where it did not come in time, and others where it ended
	// before it was whole.
	Body(b []byte, most int64, within time.Duration) ([]byte, error)
	// AddHeader adds a header to the answer, before Answer.
	AddHeader(name, value string)
	// Answer is the answer, of a media type, once. It is not to be kept by anyone on its
	// way, nor taken for something else. An error may say that the caller is gone.
	Answer(status int, form string, body []byte) error
}

// JSON is the media type of most answers.
const JSON = "application/json"

// HTTP is an exchange by net/http.
func HTTP(w http.ResponseWriter, r *http.Request) Exchange { return overHTTP{w, r} }

type overHTTP struct {
	w http.ResponseWriter
	r *http.Request
}

// Header is that of the request.
func (x overHTTP) Header(name string) string { return x.r.Header.Get(name) }

// Headers are those of the request.
func (x overHTTP) Headers(name string) []string { return x.r.Header.Values(name) }

// RemoteAddr is as net/http tells it.
func (x overHTTP) RemoteAddr() string { return x.r.RemoteAddr }

// Body takes memory for what comes, and little of it for what Content-Length claims.
func (x overHTTP) Body(b []byte, most int64, within time.Duration) ([]byte, error) {
	if within > 0 {
		// A writer that has no deadlines, as in tests, does without. It is lifted
		// after, for net/http to watch for callers that leave.
		rc := http.NewResponseController(x.w)
		if rc.SetReadDeadline(time.Now().Add(within)) == nil {
			defer rc.SetReadDeadline(time.Time{}) //nolint:errcheck // the connection is gone then
		}
	}
	if x.r.ContentLength > most {
		x.w.Header().Set("Connection", "close")
		x.pass(x.r.ContentLength)
		return b, &http.MaxBytesError{Limit: most}
	}
	body := http.MaxBytesReader(x.w, x.r.Body, most)
	const least, believed = 4 << 10, 32 << 10
	b = slices.Grow(b, int(min(max(x.r.ContentLength, 0)+least/8, believed)))
	for {
		if cap(b)-len(b) < least/8 {
			b = slices.Grow(b, max(least, cap(b)))
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			x.w.Header().Set("Connection", "close")
			return b, err
		default:
			if errors.As(err, new(*http.MaxBytesError)) {
				x.pass(passed)
			}
			return b, err
		}
	}
}

// passed is the most of a body that is read for nothing.
const passed = 16 << 20

// pass reads n bytes of a body that is too large, so that the caller, who writes on, is
// not cut off before the answer; longer ones are, as are those who wait to be asked for it.
func (x overHTTP) pass(n int64) {
	if n <= passed && x.r.ProtoMajor == 1 && x.r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, x.r.Body, n) // the answer is the same
	}
}

// AddHeader adds a header.
func (x overHTTP) AddHeader(name, value string) { x.w.Header().Add(name, value) }

// Values of headers that every answer has, which nobody may change.
var typeJSON, noSniff, noStore = []string{JSON}, []string{"nosniff"}, []string{"no-store"}

// Answer sends the answer.
func (x overHTTP) Answer(status int, form string, body []byte) error {
	h := x.w.Header()
	h["Content-Type"], h["X-Content-Type-Options"], h["Cache-Control"] = typeJSON, noSniff, noStore
	if form != JSON {
		h.Set("Content-Type", form)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, err := x.w.Write(body)
	return err
}
