package plain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mlc.dev/mlc/runtime/serve/api"
)

// Exchange is a request and its answer, until the handler returns.
type Exchange struct {
	request
	handler func(*Exchange)
	room    []byte // where the request is read to, if it is no longer
	in      []byte // the request: its head, and what has come of its body
	head    int    // the length of the request's head
	cut     error  // why the body is not whole; nil: it is
	from    net.Addr
	closing func() bool
	// set are the answer's headers, as they are sent.
	set []byte
	// out is the answer, which is sent when the handler has returned; nil: none yet.
	out  *[]byte
	shut bool // the connection ends with the answer
	here *presence
}

// Header is the value of one of the request's headers, in any case; "" without.
func (x *Exchange) Header(name string) string { return x.value(x.in, name) }

// Headers are the values of one of the request's headers: there is one at most.
func (x *Exchange) Headers(name string) []string {
	if find(&x.request, x.in, name) == nil {
		return nil
	}
	return []string{x.Header(name)}
}

// RemoteAddr is who asks, as host:port.
func (x *Exchange) RemoteAddr() string { return x.from.String() }

// Context has the request's turn, and ends when the caller is gone, or the request is
// over.
func (x *Exchange) Context() context.Context { return x.here }

// Body appends the request's body to b. It has had Timeouts.Body to come. Errors:
// *http.MaxBytesError where it is larger than most bytes, os.ErrDeadlineExceeded where
// it did not come in time, io.ErrUnexpectedEOF where it ended before it was whole.
func (x *Exchange) Body(b []byte, most int64, _ time.Duration) ([]byte, error) {
	switch {
	case int64(x.length) > most:
		x.shut = true
		return b, &http.MaxBytesError{Limit: most}
	case x.cut != nil:
		return b, x.cut
	}
	return append(b, x.in[x.head:]...), nil
}

// AddHeader adds a header to the answer. A line's end in a value becomes a space.
func (x *Exchange) AddHeader(name, value string) {
	x.set = append(append(x.set, name...), ": "...)
	for i := range len(value) {
		b := value[i]
		if b < ' ' && b != '\t' || b == 0x7f {
			b = ' '
		}
		x.set = append(x.set, b)
	}
	x.set = append(x.set, "\r\n"...)
}

// always are headers of every answer: it is not to be kept nor taken for something else.
const always = "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: "

// outs are where answers are made: one is warm, where each connection's own is not.
var outs = sync.Pool{New: func() any { return new([]byte) }}

// Answer is the answer, of a media type. Only the first one is sent, once the handler
// has returned: who is slow to read it keeps no place among those who are answered.
func (x *Exchange) Answer(status int, form string, body []byte) error {
	if x.out != nil {
		return errors.New("answered before")
	}
	if x.closing() {
		x.shut = true
	}
	x.out = outs.Get().(*[]byte)
	b := append((*x.out)[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
	b = append(append(b, "Date: "...), date()...)
	b = append(append(append(b, "\r\n"...), x.set...), "Content-Type: "...)
	b = append(append(b, form...), always...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	if x.shut {
		b = append(b, "Connection: close\r\n"...)
	}
	*x.out = append(append(b, "\r\n"...), body...)
	return nil
}

// dated is the date in the form of HTTP, and its second.
type dated struct {
	unix int64
	text string
}

var today atomic.Pointer[dated]

// date is the time of an answer.
func date() string {
	now := time.Now()
	d := today.Load()
	if d == nil || d.unix != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		today.Store(d)
	}
	return d.text
}

// presence is the context of an exchange.
type presence struct {
	turn api.Turn

	mu   sync.Mutex
	done chan struct{} // nil: nobody waits for it
	err  error
}

// Deadline is none.
func (p *presence) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value is the request's turn.
func (p *presence) Value(key any) any {
	if key == api.TurnKey {
		return p.turn
	}
	return nil
}

// Err is context.Canceled when the caller is gone or the request is over.
func (p *presence) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Done is closed when the caller is gone or the request is over. Who has sent the next
// request already is not watched, nor who has not sent all of this.
func (p *presence) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = make(chan struct{})
		if p.err != nil {
			close(p.done)
		}
	}
	return p.done
}

func (p *presence) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = context.Canceled
		if p.done != nil {
			close(p.done)
		}
	}
}
