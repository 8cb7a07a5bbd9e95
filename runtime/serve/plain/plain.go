// Package plain answers plain requests: those of HTTP/1.1 that post a small body with
// nothing about them that needs more than a few headers to be told, as nearly all
// requests for predictions are. It does without what net/http makes for each request,
// which costs more than a small model.
//
// A loop for each core reads what has come of all its connections, gives each request
// its turn (api.Turn), and sends the answers: no goroutine waits for a request, and
// requests that come together go on together. Elsewhere than on Linux net/http has all
// connections.
//
// It is no server of HTTP. A connection begins here, and goes to net/http, with every
// byte that came, at the first request that is not plain, however slightly: what is
// allowed here is less than what net/http allows and means the same there
// (FuzzPlainIsHTTP), so that there is one judge of all that is doubtful.
package plain

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Timeouts are as those of http.Server, all above 0. They may be longer by a second.
type Timeouts struct {
	Header time.Duration // of a request's head, from its first byte; of a new connection, from its begin
	Body   time.Duration // of a request, from the end of its head
	Idle   time.Duration // between requests
	Write  time.Duration // of an answer
}

// Server answers plain requests and gives other connections on.
type Server struct {
	// Handler is what answers a post to a path, with one call of Answer; nil: net/http
	// does. It must not keep the exchange, and ends its turn where it waits for something.
	// It is what a path has for good: it may not be asked again for the next request.
	Handler  func(path string) func(*Exchange)
	Timeouts Timeouts
	// Most is the most connections: one more ends one that waits for a request, or for the
	// rest of it, where there is one; 0: any number.
	Most int
	// Panicked is told of a mistake of ours, which ends its connection and no more; nil:
	// nobody is.
	Panicked func(value any)

	closing atomic.Bool
	others  *others
	loops   []*loop
	ended   sync.WaitGroup // of loops
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

// give hands a connection and what was read of it to net/http.
func (o *others) give(c net.Conn, from net.Addr, read []byte) {
	select {
	case o.conns <- &begun{Conn: c, from: from, read: read}:
	case <-o.end:
		_ = c.Close()
	}
}

// begun is a connection of which something was read.
type begun struct {
	net.Conn
	from net.Addr
	read []byte
}

// RemoteAddr is who called, also where the system does not know it any more.
func (b *begun) RemoteAddr() net.Addr { return b.from }

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
func (b *begun) CloseWrite() error {
	if w, ok := b.Conn.(interface{ CloseWrite() error }); ok {
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

func (s *Server) panicked(value any) {
	if s.Panicked != nil {
		s.Panicked(value)
	}
}
