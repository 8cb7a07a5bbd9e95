package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Exchange is a request over HTTP and its answer, by net/http or without it.
type Exchange interface {
	// Header is the value of one of the request's headers; "" without. Several of a name
	// are one with commas, as HTTP has it.
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
	// Answer sends the answer, of a media type, once. It is not to be kept by anyone on
	// its way, nor taken for something else. The error says that the caller is gone.
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
func (x overHTTP) Header(name string) string {
	switch v := x.r.Header.Values(name); len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	default:
		return strings.Join(v, ", ")
	}
}

// RemoteAddr is as net/http tells it.
func (x overHTTP) RemoteAddr() string { return x.r.RemoteAddr }

// Body takes memory for what comes, and little of it for what Content-Length claims.
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
	const least, believed = 4 << 10, 512 << 10
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
			return b, err
		}
	}
}

// SetHeader sets a header.
func (x overHTTP) SetHeader(name, value string) { x.w.Header().Set(name, value) }

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
