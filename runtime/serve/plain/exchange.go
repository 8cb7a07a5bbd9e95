package plain

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Exchange is a request and its answer, until the handler returns.
type Exchange struct {
	request
	c    *conn
	head int // the length of the request's head
	// set are the answer's headers, as they are sent.
	set []byte
	// out is the answer, which is sent when the handler has returned; nil: none yet.
	out  *[]byte
	shut bool // the connection ends with the answer
	here *presence
}

func (x *Exchange) begin(c *conn, head int) {
	x.c, x.head, x.set, x.out, x.shut, x.here = c, head, x.set[:0], nil, false, nil
}

// end ends the watch for a caller who leaves.
func (x *Exchange) end() {
	if x.here != nil {
		x.c.buf = append(x.c.buf, x.here.end()...)
	}
}

// Header is the value of one of the request's headers, in any case; "" without.
func (x *Exchange) Header(name string) string { return x.value(x.c.buf, name) }

// Headers are the values of one of the request's headers: there is one at most.
func (x *Exchange) Headers(name string) []string {
	if find(&x.request, x.c.buf, name) == nil {
		return nil
	}
	return []string{x.Header(name)}
}

// RemoteAddr is who asks, as host:port.
func (x *Exchange) RemoteAddr() string { return x.c.c.RemoteAddr().String() }

// Context ends when the caller is gone, or the request is over.
func (x *Exchange) Context() context.Context {
	if x.here == nil {
		x.here = &presence{c: x.c, whole: x.head + x.length}
	}
	return x.here
}

// Body appends the request's body to b. It has as long as within to come, or
// Timeouts.Read where that is not above 0. Errors: *http.MaxBytesError where it is larger
// than most bytes, os.ErrDeadlineExceeded where it did not come in time,
// io.ErrUnexpectedEOF where it ended before it was whole.
func (x *Exchange) Body(b []byte, most int64, within time.Duration) ([]byte, error) {
	if int64(x.length) > most {
		x.shut = true
		return b, &http.MaxBytesError{Limit: most}
	}
	if within <= 0 {
		within = x.c.s.Timeouts.Read
	}
	if err := x.arrive(within); err != nil {
		x.shut = true
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	return append(b, x.c.buf[x.head:x.head+x.length]...), nil
}

// arrive waits for the whole of the request, at most as long as within.
func (x *Exchange) arrive(within time.Duration) error {
	c, whole := x.c, x.head+x.length
	if len(c.buf) >= whole {
		return nil
	}
	c.by = time.Time{} // nobody who sends byte by byte gains time
	if err := c.within(within, 0); err != nil {
		return err
	}
	for len(c.buf) < whole {
		if err := c.read(); err != nil {
			return err
		}
	}
	return nil
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

// Answer is the answer, of a media type. Only the first one is sent, once the handler
// has returned: who is slow to read it keeps no place among those who are answered.
func (x *Exchange) Answer(status int, form string, body []byte) error {
	if x.out != nil {
		return errors.New("answered before")
	}
	if x.c.s.closing.Load() {
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

// presence is a context that watches a connection once somebody asks it to, which
// costs a goroutine: nobody does for what is over at once.
type presence struct {
	c     *conn
	whole int // the length of the request

	mu   sync.Mutex
	done chan struct{}
	err  error
	// rest is what the watch read: the begin of the next request.
	rest []byte
	left chan struct{} // the watch has ended
}

// Deadline is none.
func (p *presence) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value is none.
func (p *presence) Value(any) any { return nil }

// Err is context.Canceled when the caller is gone or the request is over.
func (p *presence) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Done begins the watch, where nothing but the request has come: who has sent the next
// one already is not watched, nor who has not sent all of it.
func (p *presence) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = make(chan struct{})
		if p.err != nil {
			close(p.done)
		} else if len(p.c.buf) == p.whole {
			p.left = make(chan struct{})
			go p.watch()
		}
	}
	return p.done
}

// watch reads: only who has left gives an error before it is told to stop. What is
// read belongs to the next request, and ends the watch.
func (p *presence) watch() {
	defer close(p.left)
	p.mu.Lock()
	if p.err != nil || p.c.c.SetReadDeadline(time.Time{}) != nil {
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	b := make([]byte, 512)
	n, err := p.c.c.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = b[:n]
	if n == 0 && err != nil {
		p.cancel()
	}
}

// cancel is called with mu.
func (p *presence) cancel() {
	if p.err == nil {
		p.err = context.Canceled
		if p.done != nil {
			close(p.done)
		}
	}
}

// end ends the watch and returns what it read.
func (p *presence) end() []byte {
	p.mu.Lock()
	p.cancel()
	left := p.left
	if left != nil {
		_ = p.c.c.SetReadDeadline(time.Unix(1, 0)) // a connection that is gone has ended the watch
	}
	p.mu.Unlock()
	if left == nil {
		return nil
	}
	<-left
	p.c.by = time.Time{}
	_ = p.c.c.SetReadDeadline(time.Time{}) // the next read tells
	return p.rest
}
