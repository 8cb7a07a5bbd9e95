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
	// Header is the first value of one of the request's headers; "" without.
	Header(name string) string
	// RemoteAddr is who asks, as host:port.
	RemoteAddr() string
	// Body appends the request's body to b. It has as long as within to come, where that
	// is above 0. Errors: *http.MaxBytesError where it is larger than most bytes,
	// os.ErrDeadlineExceeded where it did not come in time, and others where it ended
	// before it was whole.
	Body(b []byte, most int64, within time.Duration) ([]byte, error)
	// SetHeader sets one of the answer's headers, once each and before Answer.
	SetHeader(name, value string)
	// Answer sends the answer, a JSON text, once. The error says that the caller is gone.
	Answer(status int, body []byte) error
}

// HTTP is an exchange by net/http.
func HTTP(w http.ResponseWriter, r *http.Request) Exchange { return overHTTP{w, r} }

type overHTTP struct {
	w http.ResponseWriter
	r *http.Request
}

// Header is a request's.
func (x overHTTP) Header(name string) string { return x.r.Header.Get(name) }

// RemoteAddr is as net/http tells it.
func (x overHTTP) RemoteAddr() string { return x.r.RemoteAddr }

// Body takes memory for what comes, and not for what Content-Length claims.
func (x overHTTP) Body(b []byte, most int64, within time.Duration) ([]byte, error) {
	if x.r.ContentLength > most {
		x.w.Header().Set("Connection", "close")
		return b, &http.MaxBytesError{Limit: most}
	}
	if within > 0 {
		// A writer that has no deadlines, as in tests, does without. It is lifted
		// after, for net/http to watch for callers that leave.
		rc := http.NewResponseController(x.w)
		if rc.SetReadDeadline(time.Now().Add(within)) == nil {
			defer rc.SetReadDeadline(time.Time{}) //nolint:errcheck // the connection is gone then
		}
	}
	body := http.MaxBytesReader(x.w, x.r.Body, most)
	const least = 4096
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
			return b, err
		}
	}
}

// SetHeader sets a header.
func (x overHTTP) SetHeader(name, value string) { x.w.Header().Set(name, value) }

// Values of headers that every answer has, which nobody may change.
var typeJSON, noSniff, noStore = []string{"application/json"}, []string{"nosniff"}, []string{"no-store"}

// Answer sends the answer, which is not to be kept nor taken for something else than JSON.
func (x overHTTP) Answer(status int, body []byte) error {
	h := x.w.Header()
	h["Content-Type"], h["X-Content-Type-Options"], h["Cache-Control"] = typeJSON, noSniff, noStore
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, err := x.w.Write(body)
	return err
}
