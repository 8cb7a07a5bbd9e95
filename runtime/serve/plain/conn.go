//go:build linux

package plain

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// conn is a connection while its requests are plain.
type conn struct {
	loop *loop
	fd   int
	from net.Addr

	state state
	by    time.Time // when it ends unless something happens; zero: never
	// x is the request and its answer; nil while nothing has come.
	x *Exchange
	// buf is what was read and is not answered yet: the request, and what follows it.
	buf    []byte
	unread bool // there may be more to read without an event that tells so
	drain  bool // there may be, also where a read has brought less than there was room for
	eof    bool // nothing more comes
	ends   int  // ends of lines before the request
	begun  bool // some of a request's head has come
	asked  bool // there was a request before
	// head is the length of the request's head once its body is waited for, else 0.
	head int
	turn *turn // of the handler; nil: it does not run
	sent int   // of x.out
	err  error // of sending
	// lost is how much was read of what nobody asked for.
	lost int
}

// state is what a connection does.
type state int

const (
	reading   state = iota // it waits for a request, or for the rest of it
	running                // its handler runs
	writing                // its caller is slow to take the answer
	lingering              // it ends once the other side has
	gone                   // its file is closed, or another's
)

func newConn(p *loop, fd int, from net.Addr) *conn {
	return &conn{loop: p, fd: fd, from: from}
}

// begin waits for a request.
func (c *conn) begin() {
	c.by = c.loop.now.Add(c.loop.s.Timeouts.Header)
	if c.loop.s.closing.Load() {
		c.by = c.loop.now.Add(grace)
	}
	// Edges tell of all changes, so that nothing has to be set again for each request.
	if unix.EpollCtl(c.loop.fd, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd)}) != nil {
		c.drop()
	}
}

// read reads once, after what is there. False: the connection fails.
func (c *conn) read() bool {
	if c.x == nil {
		c.x = c.loop.exchange()
		c.x.from, c.buf = c.from, c.x.room
	}
	if len(c.buf) == cap(c.buf) {
		c.buf = append(c.buf, make([]byte, max(cap(c.buf), firstRoom))...)[:len(c.buf)]
	}
	room := c.buf[len(c.buf):cap(c.buf)]
	n, err := receive(c.fd, room, 0)
	switch {
	case err == unix.EINTR:
		c.unread = true
	case err == unix.EAGAIN:
	case err != 0:
		return false
	case n == 0:
		c.eof = true
	default:
		c.buf = c.buf[:len(c.buf)+n]
		c.unread = n == len(room) || c.drain // else there is no more, or its coming is told
	}
	return true
}

// happened looks at what happened to the connection.
func (c *conn) happened(events uint32) {
	ended := events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	comes := ended || events&unix.EPOLLIN != 0
	// An end is yet to be read, and a read stops at an urgent byte.
	c.drain = c.drain || ended || events&unix.EPOLLPRI != 0
	switch c.state {
	case reading:
		if comes {
			c.more()
		}
	case running:
		c.unread = c.unread || comes
		if ended && c.left() {
			c.x.here.end()
		}
	case writing:
		c.unread = c.unread || comes
		c.send()
		c.over()
	case lingering:
		c.linger()
	}
}

// left reports whether the caller is gone, and has not asked for more before.
func (c *conn) left() bool {
	if len(c.buf) > len(c.x.in) {
		return false
	}
	n, err := receive(c.fd, make([]byte, 1), unix.MSG_PEEK)
	return n == 0 && err == 0 || err != 0 && err != unix.EAGAIN && err != unix.EINTR
}

// more reads, and begins a request that is whole.
func (c *conn) more() {
	c.unread = false
	switch {
	case c.read():
		c.ahead()
	case c.head > 0:
		c.request(io.ErrUnexpectedEOF)
	default:
		c.drop()
	}
}

// ahead begins the request that has come, if one has.
func (c *conn) ahead() {
	if c.state != reading {
		return
	}
	if c.head == 0 {
		for c.asked && c.ends < mostEnds && len(c.buf) > 0 && (c.buf[0] == '\r' || c.buf[0] == '\n') {
			c.buf = c.buf[:copy(c.buf, c.buf[1:])]
			c.ends++
		}
		began := len(c.buf) > 0
		n, is := 0, more
		if began {
			n, is = c.x.parse(c.buf)
		}
		switch {
		case is == plain && c.route():
			c.head = n
			if len(c.buf) < n+c.x.length {
				c.by = c.loop.now.Add(c.loop.s.Timeouts.Body)
			}
		case is != more, len(c.buf) >= mostHead, c.eof && (began || c.ends > 0):
			c.give() // net/http has words for a head that is cut off
			return
		case c.eof:
			c.idle()
			c.drop()
			return
		case began && !c.begun:
			c.begun = true
			c.by = c.loop.now.Add(c.loop.s.Timeouts.Header)
		}
	}
	switch {
	case c.head == 0 && !c.unread:
		c.idle()
	case c.head > 0 && len(c.buf) >= c.head+c.x.length:
		c.request(nil)
	case c.unread:
		c.more()
	case c.eof:
		c.request(io.ErrUnexpectedEOF)
	}
}

// route finds the handler of the request; false: it is not for here.
func (c *conn) route() bool {
	c.x.handler = c.loop.handler(c.buf[c.x.path[0]:c.x.path[1]])
	return c.x.handler != nil
}

// request begins the request; cut tells why its body is not whole.
func (c *conn) request(cut error) {
	x := c.x
	x.in, x.head, x.cut = c.buf[:min(len(c.buf), c.head+x.length)], c.head, cut
	x.set, x.out, x.shut = x.set[:0], nil, cut != nil
	c.sent, c.err, c.asked = 0, nil, true
	c.loop.begin(c)
}

// handle runs the handler.
func (c *conn) handle() {
	defer func() {
		if p := recover(); p != nil {
			c.x.out = nil // it has no answer
			c.loop.s.panicked(p)
		}
	}()
	c.x.handler(c.x)
}

// send sends as much of the answer as the other side takes.
func (c *conn) send() {
	if c.x.out == nil {
		c.err = errors.New("no answer")
		return
	}
	for c.err == nil && c.sent < len(*c.x.out) {
		n, err := write(c.fd, (*c.x.out)[c.sent:])
		switch err {
		case 0:
			c.sent += n
		case unix.EINTR:
		case unix.EAGAIN:
			return
		default:
			c.err = err
		}
	}
}

// over ends a request and goes on to the next one, once the answer is sent.
func (c *conn) over() {
	if t := c.turn; t != nil {
		c.turn = nil
		c.x.here.end()
		c.loop.end(t)
	}
	now, closing := c.loop.now, c.loop.s.closing.Load()
	switch {
	case c.err != nil || c.loop.cutting:
		c.drop()
		return
	case c.sent < len(*c.x.out):
		if c.state != writing {
			c.state, c.by = writing, now.Add(c.loop.s.Timeouts.Write)
			if c.send(); c.sent == len(*c.x.out) || c.err != nil { // its edge may have been before
				c.over()
			}
		}
		return
	}
	if cap(*c.x.out) <= mostOut {
		outs.Put(c.x.out)
	}
	c.x.out = nil
	if c.x.shut {
		if c.eof || unix.Shutdown(c.fd, unix.SHUT_WR) != nil {
			c.drop()
			return
		}
		// The other side may have something to read yet, which closing with bytes unread
		// would take away.
		c.state, c.by = lingering, now.Add(lingers)
		c.linger()
		return
	}
	c.buf = c.buf[:copy(c.buf, c.buf[len(c.x.in):])]
	c.x.in = nil
	if cap(c.buf) > mostHead {
		c.buf = bytes.Clone(c.buf)
	}
	c.idle()
	c.state, c.head, c.ends, c.begun = reading, 0, 0, false
	c.by = now.Add(c.loop.s.Timeouts.Idle)
	if closing {
		c.by = now.Add(grace)
	}
	if len(c.buf) > 0 || c.unread || c.eof {
		c.loop.again = append(c.loop.again, c)
	}
}

// idle leaves the exchange to others while nothing has come.
func (c *conn) idle() {
	if c.x != nil && len(c.buf) == 0 {
		c.loop.take(c.x)
		c.x, c.buf = nil, nil
	}
}

const (
	// lingers is how long a connection waits for the other side to end it, and lingersFor
	// how many bytes it takes of it meanwhile.
	lingers    = 500 * time.Millisecond
	lingersFor = 256 << 10
	// grace is for what was sent before a server's end was told.
	grace = 10 * time.Millisecond
)

// linger reads what nobody asked for.
func (c *conn) linger() {
	for c.lost < lingersFor {
		n, err := receive(c.fd, c.buf[:cap(c.buf)], 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return
		case err != 0, n == 0:
			c.drop()
			return
		default:
			c.lost += n
		}
	}
	c.drop()
}

// late ends a wait that has taken too long, unless what it waited for has come meanwhile
// and was not looked at yet.
func (c *conn) late() {
	if c.state != reading {
		c.drop()
		return
	}
	begun, body := c.begun, c.head > 0
	c.more()
	switch {
	case c.state != reading:
	case body:
		c.request(os.ErrDeadlineExceeded)
	case c.head == 0 && (begun || len(c.buf) == 0): // nobody who sends byte by byte gains time
		c.drop()
	}
}

// cut ends the connection, whatever it does.
func (c *conn) cut() {
	if c.state == running { // its file has to stay until it is over
		c.x.here.end()
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
		return
	}
	c.drop()
}

// drop closes the connection.
func (c *conn) drop() {
	c.leave()
	_ = unix.Close(c.fd)
}

// leave takes the connection out of the loop.
func (c *conn) leave() {
	c.state = gone
	delete(c.loop.conns, c.fd)
	c.loop.n.Add(-1)
}

// give hands the connection to net/http.
func (c *conn) give() {
	c.leave()
	o := c.loop.s.others
	if unix.EpollCtl(c.loop.fd, unix.EPOLL_CTL_DEL, c.fd, nil) != nil {
		_ = unix.Close(c.fd)
		return
	}
	go func() { // which waits until it is accepted
		f := os.NewFile(uintptr(c.fd), "connection")
		nc, err := net.FileConn(f)
		_ = f.Close()
		if err == nil {
			o.give(nc, c.from, c.buf)
		}
	}()
}

// receive is recv(2), of a socket that never waits.
func receive(fd int, b []byte, flags int) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags), 0, 0)
	return int(n), err
}

// write is send(2), of a socket that never waits. Who is gone is an error and no signal.
func write(fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), err
}

// epollWait is epoll_wait(2) without waiting.
func epollWait(fd int, events []unix.EpollEvent) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// yield is sched_yield(2).
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
