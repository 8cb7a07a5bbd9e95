// Package plain answers plain requests: those of HTTP/1.1 that post a small body with
// nothing about them that needs more than a few headers to be told, as nearly all
// requests for predictions are. It does without what net/http makes for each request,
// which costs more than a small model.
//
// It is no server of HTTP. A connection begins here, and goes to net/http, with every
// byte that came, at the first request that is not plain, however slightly: what is
// allowed here is less than what net/http allows and means the same there
// (FuzzPlainIsHTTP), so that there is one judge of all that is doubtful.
package plain

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Timeouts are as those of http.Server; Header of a new connection, and Idle, may be
// longer by slack.
type Timeouts struct {
	Header time.Duration // of a request's head, from its first byte; of a new connection, from its begin
	Read   time.Duration // of a request
	Idle   time.Duration // between requests
	Write  time.Duration // of an answer
}

// Server answers plain requests and gives other connections on.
type Server struct {
	// Handler is what answers a post to a path, with one call of Answer; nil: net/http
	// does. It must not keep the exchange. It is what a path has for good: a connection may
	// not ask again for the next request.
	Handler  func(path string) func(*Exchange)
	Timeouts Timeouts
	// Panicked is told of a mistake of ours, which ends its connection and no more; nil:
	// nobody is.
	Panicked func(value any)

	closing atomic.Bool
	mu      sync.Mutex
	conns   map[*conn]struct{}
	gone    sync.Cond // a connection is gone, under mu
	others  *others
}

// Listen accepts from l and returns what net/http has to serve: a listener of the
// connections that are not plain. Closing it closes l. It is called once, before
// Shutdown.
func (s *Server) Listen(l net.Listener) net.Listener {
	s.conns = map[*conn]struct{}{}
	s.gone.L = &s.mu
	s.others = &others{Listener: l, conns: make(chan net.Conn), end: make(chan struct{}), accepted: make(chan struct{})}
	go s.others.accept(s)
	return s.others
}

// Shutdown accepts no more, and ends connections once what they asked is answered; plain
// requests that have come by then are answered. After ctx is done it cuts those that
// are left.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.others == nil {
		return nil
	}
	s.closing.Store(true)
	err := s.others.Close()
	<-s.others.accepted // those that come now are among those that it waits for
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.wake()
	}
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone.Broadcast()
	})
	defer stop()
	for len(s.conns) > 0 && ctx.Err() == nil {
		s.gone.Wait()
	}
	if len(s.conns) == 0 {
		return err
	}
	for c := range s.conns {
		_ = c.c.Close() // its loop ends
	}
	return errors.Join(err, ctx.Err())
}

func (s *Server) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.gone.Broadcast()
}

// others are the connections for net/http.
type others struct {
	net.Listener
	conns chan net.Conn
	end   chan struct{}
	once  sync.Once
	err   error // why there are no more, once end is closed
	// accepted is closed when no connection begins any more.
	accepted chan struct{}
}

// Accept waits for a connection that is not plain.
func (o *others) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.end:
		return nil, o.err
	}
}

// Close stops accepting. Connections that are plain go on.
func (o *others) Close() error {
	o.stop(net.ErrClosed)
	if err := o.Listener.Close(); !errors.Is(err, net.ErrClosed) { // else somebody has
		return err
	}
	return nil
}

func (o *others) stop(err error) {
	o.once.Do(func() {
		o.err = err
		close(o.end)
	})
}

// accept begins connections until there are no more. Where the system has no room for
// one it tries again, as net/http does.
func (o *others) accept(s *Server) {
	defer close(o.accepted)
	const longest = time.Second
	wait := 5 * time.Millisecond
	for {
		nc, err := o.Listener.Accept()
		if err != nil {
			var passing interface{ Temporary() bool }
			if !errors.As(err, &passing) || !passing.Temporary() {
				o.stop(err)
				return
			}
			select {
			case <-time.After(wait):
				wait = min(2*wait, longest)
				continue
			case <-o.end:
				return
			}
		}
		wait = 5 * time.Millisecond
		c := &conn{s: s, c: nc}
		s.add(c)
		go c.serve(o)
	}
}

// give hands a connection and what was read of it to net/http.
func (o *others) give(c net.Conn, read []byte) {
	if err := c.SetDeadline(time.Time{}); err != nil {
		_ = c.Close() // it is gone
		return
	}
	select {
	case o.conns <- &begun{Conn: c, read: read}:
	case <-o.end:
		_ = c.Close()
	}
}

// begun is a connection of which something was read.
type begun struct {
	net.Conn
	read []byte
}

// Read gives what was read first.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		if b.read = b.read[n:]; len(b.read) == 0 {
			b.read = nil
		}
		return n, nil
	}
	return b.Conn.Read(p)
}

// CloseWrite ends what is sent, for net/http to let the other side read it.
func (b *begun) CloseWrite() error { return closeWrite(b.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// The sizes of a connection's memory, in bytes. A request that does not fit is not plain.
const (
	firstRoom = 2 << 10
	mostHead  = 8 << 10
	mostBody  = 16 << 10
	// mostEnds is how many ends of lines may be left of a post before the next request,
	// as net/http has it (RFC 9112, section 2.2).
	mostEnds = 4
	// mostOut is the largest answer whose memory is kept for the next one.
	mostOut = 64 << 10
)

// conn is a connection while its requests are plain.
type conn struct {
	s *Server
	c net.Conn
	// buf is what was read and is not answered yet: the request, and what follows it.
	buf []byte
	x   Exchange
	// path and handler are those of the last request; none before the first.
	path    string
	handler func(*Exchange)
	// by and until are the deadlines that are set, for reading and writing; zero: none.
	by, until time.Time

	mu   sync.Mutex
	idle bool // it waits for the first byte of a request
}

// wake ends the wait for a next request.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle {
		_ = c.c.SetReadDeadline(time.Unix(1, 0)) // a connection without deadlines is gone
	}
}

func (c *conn) setIdle(idle bool) {
	c.mu.Lock()
	c.idle = idle
	c.mu.Unlock()
}

// slack is how much later than it should a deadline may come that is not set anew for
// each request, since that costs as much as parsing one.
const slack = 5 * time.Second

// within lets the next reads take d, and up to late more.
func (c *conn) within(d, late time.Duration) error {
	by := time.Now().Add(d)
	if !c.by.Before(by) && c.by.Sub(by) <= late {
		return nil
	}
	c.by = by.Add(late)
	return c.c.SetReadDeadline(c.by)
}

// read reads once, after what is there.
func (c *conn) read() error {
	if len(c.buf) == cap(c.buf) {
		c.buf = append(c.buf, make([]byte, max(cap(c.buf), firstRoom))...)[:len(c.buf)]
	}
	n, err := c.c.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// first waits for the first byte of a request; false: none comes.
func (c *conn) first(within time.Duration) bool {
	if len(c.buf) > 0 {
		return true
	}
	c.setIdle(true)
	defer c.setIdle(false)
	if c.within(within, slack) != nil {
		return false
	}
	err := error(os.ErrDeadlineExceeded)
	if !c.s.closing.Load() {
		err = c.read()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.s.closing.Load() {
		// What was sent before the end was told is answered.
		c.by = time.Time{}
		if c.within(10*time.Millisecond, 0) == nil {
			err = c.read()
		}
	}
	return err == nil
}

// serve answers requests as long as they are plain.
func (c *conn) serve(o *others) {
	defer c.s.remove(c)
	defer func() {
		if p := recover(); p != nil {
			_ = c.c.Close() // it has no answer
			if c.s.Panicked != nil {
				c.s.Panicked(p)
			}
		}
	}()
	wait := c.s.Timeouts.Header
	for {
		if !c.first(wait) {
			_ = c.c.Close() // nobody is there
			return
		}
		n, is := c.head()
		switch is {
		case ended:
			_ = c.c.Close()
			return
		case other:
			o.give(c.c, c.buf)
			return
		}
		if !c.answer(n) {
			c.linger()
			return
		}
		wait = c.s.Timeouts.Idle
	}
}

// head reads a request's head. n is its length.
func (c *conn) head() (n int, is kind) {
	ends := 0
	for begun := false; ; begun = true {
		for c.handler != nil && ends < mostEnds && len(c.buf) > 0 && (c.buf[0] == '\r' || c.buf[0] == '\n') {
			c.buf = c.buf[:copy(c.buf, c.buf[1:])]
			ends++
		}
		switch n, is = c.x.parse(c.buf); {
		case is == plain && !c.route():
			return 0, other
		case is != more:
			return n, is
		case len(c.buf) >= mostHead:
			return 0, other
		case !begun && c.within(c.s.Timeouts.Header, 0) != nil:
			return 0, ended
		}
		switch err := c.read(); {
		case errors.Is(err, io.EOF):
			return 0, other // it has words for a head that is cut off
		case err != nil:
			return 0, ended
		}
	}
}

// route finds the handler of the request; false: it is not for here.
func (c *conn) route() bool {
	path := c.buf[c.x.path[0]:c.x.path[1]]
	if string(path) != c.path || c.handler == nil {
		h := c.s.Handler(string(path))
		if h == nil {
			return false
		}
		c.path, c.handler = string(path), h
	}
	return true
}

// answer answers the request whose head is n bytes long; false: the connection ends.
func (c *conn) answer(n int) bool {
	x := &c.x
	x.begin(c, n)
	c.handler(x)
	x.end()
	if x.out == nil || c.write(*x.out) != nil {
		return false
	}
	if cap(*x.out) <= mostOut {
		outs.Put(x.out)
	}
	// What was refused unread comes all the same, before the next request.
	if x.shut || x.arrive(c.s.Timeouts.Read) != nil {
		return false
	}
	c.buf = c.buf[:copy(c.buf, c.buf[n+x.length:])]
	if len(c.buf) == 0 && cap(c.buf) > mostHead {
		c.buf = nil
	}
	return true
}

// linger closes a connection whose other side may have something to read yet: closing
// with bytes unread would take it away.
func (c *conn) linger() {
	defer c.c.Close() //nolint:errcheck // it is gone either way
	const wait, most = 500 * time.Millisecond, 256 << 10
	if closeWrite(c.c) != nil || c.c.SetReadDeadline(time.Now().Add(wait)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.c, most)
}

// outs are where answers are made: one is warm, where each connection's own is not.
var outs = sync.Pool{New: func() any { return new([]byte) }}

// write sends an answer.
func (c *conn) write(b []byte) error {
	if now := time.Now(); c.until.Sub(now) < c.s.Timeouts.Write {
		c.until = now.Add(c.s.Timeouts.Write + slack)
		if err := c.c.SetWriteDeadline(c.until); err != nil {
			return err
		}
	}
	_, err := c.c.Write(b)
	return err
}
