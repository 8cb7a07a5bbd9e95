//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options say what is asked, and how.
type Options struct {
	Addr string // host:port on loopback, IPv4
	// Requests are sent in turn, as their bytes: see Request.
	Requests    [][]byte
	Connections int
	// Rate is how many requests start in a second, whatever comes back: a time is
	// counted from when its request should have started, so a server that stalls
	// cannot hide it. 0: each connection asks again as soon as it is answered.
	Rate float64
	// Patience is how long a request of a fixed rate waits for a free connection
	// before it counts as unsent; 0: as long as it takes.
	Patience time.Duration
	// Count and Time bound the requests; one of them has to be set.
	Count int
	Time  time.Duration
	// Timeout is how long an answer may take from when its request was sent; 0: 10 s.
	Timeout time.Duration
}

// Result is what came back.
type Result struct {
	// Sent and Unsent are requests; each that was sent is answered or failed.
	Sent, Unsent int
	// Status counts answers.
	Status [600]int
	// Failed counts requests without an answer by what went wrong.
	Failed map[string]int
	// NoRetry counts answers of 429 and 503 that do not say when to try again.
	NoRetry int
	// OK are the times of answers of 200, Other those of all else.
	OK, Other Histogram
	// Took is the time from the first request to the last answer.
	Took time.Duration
}

// Failures are the requests without an answer.
func (r *Result) Failures() int {
	n := 0
	for _, k := range r.Failed {
		n += k
	}
	return n
}

// PerSecond is how many answers of 200 came in a second.
func (r *Result) PerSecond() float64 { return float64(r.Status[200]) / r.Took.Seconds() }

// conn is a connection: idle, or with one request that is not answered.
type conn struct {
	fd     int
	busy   bool
	start  time.Duration // when the request should have started
	sent   time.Duration
	out    []byte // what is left to write
	in     []byte // what was read
	broken bool
}

type generator struct {
	o     Options
	to    unix.SockaddrInet4
	ep    int
	conns []conn
	// idle are the free ones of conns, the one that was used last at the end: all take
	// turns, so that no server ends one for being idle.
	idle  chan int
	busy  int
	r     *Result
	begin time.Time
	next  int // requests that were due
}

// Run asks until the bounds are reached or ctx is done, and waits for the answers
// that are under way. It fails where the server cannot be reached at first.
func Run(ctx context.Context, o Options) (*Result, error) {
	at, err := netip.ParseAddrPort(o.Addr)
	if err != nil {
		return nil, err
	}
	switch {
	case !at.Addr().Is4() || !at.Addr().IsLoopback():
		return nil, fmt.Errorf("%s is not on loopback: this is no tool against others", o.Addr)
	case o.Connections < 1 || len(o.Requests) == 0 || o.Count <= 0 && o.Time <= 0:
		return nil, errors.New("connections, requests, and a bound are needed")
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without slack the thread wakes when a request is due, not 50 µs later.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	g := &generator{o: o, to: unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, conns: make([]conn, o.Connections), idle: make(chan int, o.Connections),
		r: &Result{Failed: map[string]int{}, OK: newHistogram(), Other: newHistogram()}}
	if g.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(g.ep) //nolint:errcheck // nothing is lost
	defer func() {
		for i := range g.conns {
			g.close(i)
		}
	}()
	for i := range g.conns {
		g.conns[i].fd = -1
	}
	for i := range g.conns {
		g.conns[i].in = make([]byte, 0, 16<<10)
		if err := g.dial(i); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Addr, err)
		}
		g.idle <- i
	}
	return g.r, g.run(ctx)
}

func (g *generator) dial(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})) // bounds connect
	if err == nil {
		err = connect(fd, &g.to)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		err = unix.EpollCtl(g.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(i)})
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	g.conns[i].fd, g.conns[i].broken = fd, false
	return nil
}

// connect is connect(2), which goes on when a signal interrupts it.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY) {
		if err = unix.Connect(fd, to); errors.Is(err, unix.EISCONN) {
			return nil
		}
	}
	return err
}

func (g *generator) close(i int) {
	if c := &g.conns[i]; c.fd >= 0 {
		_ = unix.Close(c.fd) // the request is counted already
		c.fd, c.broken = -1, true
	}
}

func (g *generator) now() time.Duration { return time.Since(g.begin) }

// due is when the next request should start.
func (g *generator) due() time.Duration {
	return time.Duration(float64(g.next) / g.o.Rate * float64(time.Second))
}

// more reports whether requests are still to be sent.
func (g *generator) more(ctx context.Context) bool {
	if ctx.Err() != nil || g.o.Count > 0 && g.next >= g.o.Count {
		return false
	}
	if g.o.Time <= 0 {
		return true
	}
	if g.o.Rate > 0 {
		return g.due() < g.o.Time
	}
	return g.now() < g.o.Time
}

func (g *generator) run(ctx context.Context) error {
	events := make([]unix.EpollEvent, 256)
	const tick = 100 * time.Millisecond // for ctx and timeouts
	g.begin = time.Now()
	checked := time.Duration(0)
	for {
		wait := tick
		more := g.more(ctx)
		for more {
			now, start := g.now(), time.Duration(0)
			if g.o.Rate > 0 {
				if start = g.due(); start > now {
					wait = min(wait, start-now)
					break
				}
			}
			if len(g.idle) == 0 {
				if g.o.Rate <= 0 || g.o.Patience <= 0 {
					break
				}
				if left := start + g.o.Patience - now; left > 0 {
					wait = min(wait, left)
					break
				}
				g.r.Unsent++
				g.next++
			} else {
				if g.o.Rate <= 0 {
					start = now
				}
				g.send(start, now)
			}
			more = g.more(ctx)
		}
		if !more && g.busy == 0 {
			g.r.Took = max(g.r.Took, 1)
			return nil
		}
		n, err := epollWait(g.ep, events, wait)
		if err != nil {
			return err
		}
		for _, e := range events[:n] {
			g.ready(int(e.Fd), e.Events)
		}
		if now := g.now(); now-checked > tick {
			checked = now
			for i := range g.conns {
				if c := &g.conns[i]; c.busy && now-c.sent > g.o.Timeout {
					g.fail(i, "timeout")
				}
			}
		}
	}
}

// send starts a request on a free connection.
func (g *generator) send(start, now time.Duration) {
	i := <-g.idle
	c := &g.conns[i]
	c.busy, c.start, c.sent = true, start, now
	g.busy++
	g.r.Sent++
	c.out = g.o.Requests[g.next%len(g.o.Requests)]
	g.next++
	if c.broken {
		if err := g.dial(i); err != nil {
			g.fail(i, "not connected")
			return
		}
	}
	g.write(i)
}

func (g *generator) write(i int) {
	c := &g.conns[i]
	for len(c.out) > 0 {
		n, err := send(c.fd, c.out)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return
		case err != 0:
			// An early answer may be there to read; if not, reading tells that it ended.
			c.out = nil
			g.read(i)
			return
		default:
			c.out = c.out[n:]
		}
	}
}

func (g *generator) ready(i int, events uint32) {
	c := &g.conns[i]
	if c.fd < 0 {
		return
	}
	if events&unix.EPOLLOUT != 0 && len(c.out) > 0 {
		g.write(i)
	}
	if c.fd >= 0 && events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		g.read(i)
	}
}

// read takes what has come; the connection is edge-triggered, so it reads all.
func (g *generator) read(i int) {
	c := &g.conns[i]
	for {
		if len(c.in) == cap(c.in) {
			c.in = append(c.in, make([]byte, cap(c.in))...)[:len(c.in)]
		}
		room := c.in[len(c.in):cap(c.in)]
		n, err := receive(c.fd, room)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return
		case err != 0 || n == 0:
			if c.busy {
				g.fail(i, "connection ended")
			} else {
				g.close(i) // the server is free to end what is idle
			}
			return
		}
		c.in = c.in[:len(c.in)+n]
		h, ok, perr := parse(c.in)
		switch {
		case perr != nil:
			g.fail(i, perr.Error())
			return
		case ok && len(c.in) > h.length || !c.busy:
			g.fail(i, "more than one answer")
			return
		case ok && len(c.in) == h.length:
			g.answered(i, h)
			return // nothing can follow: what ends the connection is another edge
		}
	}
}

func (g *generator) answered(i int, h head) {
	c := &g.conns[i]
	now := g.now()
	g.r.Took = now
	g.r.Status[h.status]++
	if h.status == 200 {
		g.r.OK.add(now - c.start)
	} else {
		g.r.Other.add(now - c.start)
		if (h.status == 429 || h.status == 503) && !h.retry {
			g.r.NoRetry++
		}
	}
	if h.close || len(c.out) > 0 {
		g.close(i)
	}
	g.free(i)
}

func (g *generator) fail(i int, why string) {
	g.close(i)
	if g.conns[i].busy {
		g.r.Failed[why]++
		g.free(i)
	}
	g.r.Took = g.now()
}

func (g *generator) free(i int) {
	c := &g.conns[i]
	c.busy, c.in, c.out = false, c.in[:0], nil
	g.busy--
	g.idle <- i
}

// send is send(2) and receive is recv(2), of sockets that never wait: the scheduler
// need not be told, which would cost the server time.
func send(fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), err
}

func receive(fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), err
}

// epollWait is epoll_pwait2, whose timeout is not in milliseconds.
func epollWait(ep int, events []unix.EpollEvent, d time.Duration) (int, error) {
	t := unix.NsecToTimespec(int64(max(d, 0)))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&t)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}
