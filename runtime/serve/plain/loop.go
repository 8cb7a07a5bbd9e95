//go:build linux

package plain

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/lull"
)

// Listen accepts from l and returns what net/http has to serve: a listener of the
// connections that are not plain, or l itself where the system lacks what loops need.
// Closing it closes l. It is called once, before Shutdown.
func (s *Server) Listen(l net.Listener) net.Listener {
	for range runtime.GOMAXPROCS(0) {
		p, err := newLoop(s)
		if err != nil { // the system gives no more of what a loop is made of
			break
		}
		s.loops = append(s.loops, p)
	}
	if len(s.loops) == 0 {
		return l
	}
	s.others = &others{Listener: l, conns: make(chan net.Conn), end: make(chan struct{}), accepted: make(chan struct{})}
	for _, p := range s.loops {
		s.ended.Go(p.run)
	}
	go s.accept()
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
	for _, p := range s.loops {
		p.post(message{what: serverCloses})
	}
	ended := make(chan struct{})
	go func() {
		s.ended.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
	}
	for _, p := range s.loops {
		p.post(message{what: serverCuts})
	}
	select {
	case <-ended:
	case <-time.After(time.Second): // a handler does not heed its context
	}
	return errors.Join(err, ctx.Err())
}

// accept begins connections until there are no more. Where the system has no room for
// one it tries again, as net/http does.
func (s *Server) accept() {
	o := s.others
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
		fd, ok := taken(nc)
		if !ok {
			go o.give(nc, nc.RemoteAddr(), nil)
			continue
		}
		if s.Most > 0 {
			var all int64
			for _, p := range s.loops {
				all += p.n.Load()
			}
			if all >= int64(s.Most) {
				slices.MaxFunc(s.loops, func(a, b *loop) int { return cmp.Compare(a.n.Load(), b.n.Load()) }).post(message{what: connCrowded})
			}
		}
		p := slices.MinFunc(s.loops, func(a, b *loop) int { return cmp.Compare(a.n.Load(), b.n.Load()) })
		p.n.Add(1)
		p.post(message{what: connAccepted, conn: newConn(p, fd, nc.RemoteAddr())})
	}
}

// taken is a connection's socket, which the runtime does not watch any more; false: it
// still has it.
func taken(c net.Conn) (fd int, ok bool) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	cerr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil || err != nil {
		return 0, false
	}
	_ = c.Close() // of the runtime's own descriptor
	return fd, true
}

// loop has connections, which only its goroutine touches, but for those whose handlers
// go on apart.
type loop struct {
	s     *Server
	epoll *os.File // the runtime waits for it, as for any file
	raw   syscall.RawConn
	fd    int          // of epoll
	bell  int          // rung by post
	n     atomic.Int64 // connections, with those that are on their way here

	mu    sync.Mutex
	inbox []message
	gone  bool // it hears nothing more, and its files are closed

	group   api.Group
	conns   map[int]*conn       // by file
	events  [32]unix.EpollEvent // so few that what their requests touch stays in a core's cache
	came    int                 // of events
	again   []*conn             // that may have a request without anything more coming
	waiting []*turn             // that go on later
	sending []*conn             // whose answers are made
	free    []*turn
	idle    []*Exchange // to be used again, the warmest at the end
	// handlers are those of paths, mostPaths of them.
	handlers map[string]func(*Exchange)
	now      time.Time
	pace     pace
	lull     lull.Lull
	tick     time.Duration
	sweep    time.Time // when deadlines are next looked at; zero: there are none
	closing  bool      // it has heard so
	cutting  bool
}

// message is what a loop is told.
type message struct {
	what what
	conn *conn
}

type what int

const (
	connAccepted what = iota // conn is here
	connAnswered             // conn's handler has returned, apart
	connCrowded              // there are too many
	serverCloses             // connections end as soon as they may; no more come
	serverCuts               // connections end
)

func newLoop(s *Server) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	p := &loop{s: s, fd: fd, bell: bell, conns: map[int]*conn{}, handlers: map[string]func(*Exchange){}, group: api.Group{Kept: map[any]any{}}, now: time.Now(), lull: lull.Lull{Long: kept}}
	t := s.Timeouts
	p.tick = min(max(min(t.Header, t.Body, t.Idle, t.Write)/2, grace), time.Second)
	err = errors.Join(unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(bell)}),
		unix.SetNonblock(fd, true)) // for the runtime to wait for it
	p.epoll = os.NewFile(uintptr(fd), "epoll")
	err = errors.Join(err, p.epoll.SetReadDeadline(time.Time{}))
	if err == nil {
		p.raw, err = p.epoll.SyscallConn()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// post tells the loop something, unless it is gone.
func (p *loop) post(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return
	}
	p.inbox = append(p.inbox, m)
	if len(p.inbox) == 1 { // else it is ringing
		_, _ = unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// run answers until the server is closing and nobody is left.
func (p *loop) run() {
	defer p.close()
	for !p.closing || p.n.Load() > 0 {
		p.wait()
		before := p.now
		p.now = time.Now()
		p.pace.round(p.now.Sub(before))
		p.heed()
		again := p.again
		p.again = nil
		for _, c := range again {
			c.ahead()
		}
		p.gather()
		for len(p.waiting) > 0 {
			turns := p.waiting
			p.waiting = nil
			for _, t := range turns {
				p.step(t)
			}
		}
		// Answers go out one after the other, when all are made: who is woken by the first
		// finds more.
		for _, c := range p.sending {
			c.send()
			c.over()
		}
		p.sending = p.sending[:0]
		p.due()
		runtime.Gosched() // to whoever is no connection's
	}
}

func (p *loop) close() {
	for _, t := range p.free {
		t.stop()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	_ = p.epoll.Close()
	_ = unix.Close(p.bell)
}

// look sees what has happened, without waiting.
func (p *loop) look() bool {
	p.came, _ = epollWait(p.fd, p.events[:]) // which fails for signals alone
	return p.came > 0
}

const (
	// busy is the time from event to event below which a loop looks for more instead of
	// sleeping, for as long as patience: to sleep and to be woken takes longer then.
	busy     = 60 * time.Microsecond
	patience = 100 * time.Microsecond
	// rounds is how often it looks for more before a batch goes on, as long as more comes:
	// a run costs little more with more rows.
	rounds = 8
	// kept is how long somebody takes who keeps the core: callers on the same machine, who
	// will ask something, do not.
	kept = 2 * time.Millisecond
)

// wait waits for something to happen.
func (p *loop) wait() {
	if len(p.again)+len(p.waiting)+len(p.sending) > 0 {
		p.look()
		return
	}
	// It is over when something has happened, or a deadline.
	if begun := time.Now(); p.pace.fast() && !p.lull.Rests(begun) {
		for until := begun.Add(patience); p.lull.Take(yield).Before(until); {
			if p.look() {
				return
			}
		}
	}
	p.came = 0
	_ = p.raw.Read(func(uintptr) bool { return p.look() }) // it ends by its deadline, else by what happens
}

// gather sees what comes while requests wait for their turns.
func (p *loop) gather() {
	for i := 0; i < rounds && len(p.waiting) > 0 && len(p.waiting) < len(p.events); i++ {
		if p.pace.fast() {
			p.lull.Take(yield)
		}
		if !p.look() {
			return
		}
		p.heed()
	}
}

// pace is how fast events come: those of the last rounds, the older the less, and the
// time that these took.
type pace struct{ events, time float64 }

// round counts the time of one.
func (p *pace) round(took time.Duration) {
	const share = 1. / 32 // of the newest
	p.events -= p.events * share
	p.time += float64(took) - p.time*share
}

// fast tells whether they come fast enough to look for more.
func (p *pace) fast() bool { return p.time < p.events*float64(busy) }

// heed looks at what happened.
func (p *loop) heed() {
	p.pace.events += float64(p.came)
	for i := range p.came {
		e := &p.events[i]
		if int(e.Fd) == p.bell {
			p.hear()
		} else if c := p.conns[int(e.Fd)]; c != nil {
			c.happened(e.Events)
		}
	}
}

// hear does what the loop was told.
func (p *loop) hear() {
	var b [8]byte
	_, _ = unix.Read(p.bell, b[:])
	p.mu.Lock()
	inbox := p.inbox
	p.inbox = nil
	p.mu.Unlock()
	for _, m := range inbox {
		switch m.what {
		case connAccepted:
			p.conns[m.conn.fd] = m.conn
			m.conn.begin()
		case connAnswered:
			m.conn.over()
		case connCrowded:
			p.makeRoom()
		case serverCloses:
			p.closing = true
			p.tick = min(p.tick, grace)
			p.by()
			for _, c := range p.conns {
				if c.state == reading && len(c.buf) == 0 {
					c.by = p.now.Add(grace)
				}
			}
		case serverCuts:
			p.cutting = true
			for _, c := range p.conns {
				c.cut()
			}
		}
	}
}

// makeRoom ends the connection that waits and would end soonest, if there is one: callers in
// the middle of a request have less time than those between requests.
func (p *loop) makeRoom() {
	var first *conn
	for _, c := range p.conns {
		if c.state == reading && !c.by.IsZero() && (first == nil || c.by.Before(first.by)) {
			first = c
		}
	}
	if first != nil {
		first.drop()
	}
}

// by has deadlines looked at in a while.
func (p *loop) by() {
	p.sweep = p.now.Add(p.tick)
	_ = p.epoll.SetReadDeadline(p.sweep) // it can: newLoop has tried
}

// due ends what has taken too long.
func (p *loop) due() {
	switch {
	case p.sweep.IsZero() && len(p.conns) > 0:
		p.by()
	case p.sweep.IsZero() || p.now.Before(p.sweep):
	case len(p.conns) == 0:
		p.sweep = time.Time{}
		_ = p.epoll.SetReadDeadline(time.Time{})
	default:
		for _, c := range p.conns {
			if !c.by.IsZero() && !p.now.Before(c.by) {
				c.late()
			}
		}
		p.by()
	}
}

// turn is where a handler runs: a coroutine, which the loop lets go on.
type turn struct {
	loop  *loop
	conn  *conn
	apart bool
	next  func() (pause, bool)
	stop  func()
	yield func(pause) bool
}

// pause is why a turn ends.
type pause int

const (
	pauseReturned pause = iota
	pauseLater
	pauseApart
)

// Group is the loop, until the request is apart.
func (t *turn) Group() *api.Group {
	if t.apart {
		return nil
	}
	return &t.loop.group
}

// Later lets the loop's other requests go on; apart, whoever is ready.
func (t *turn) Later() {
	if t.apart {
		runtime.Gosched()
		return
	}
	t.yield(pauseLater)
}

// Apart lets the handler go on in a goroutine of its own.
func (t *turn) Apart() {
	if !t.apart {
		t.apart = true
		t.yield(pauseApart)
	}
}

// begin runs a connection's handler.
func (p *loop) begin(c *conn) {
	var t *turn
	if n := len(p.free); n > 0 {
		t, p.free = p.free[n-1], p.free[:n-1]
	} else {
		t = &turn{loop: p}
		t.next, t.stop = iter.Pull(func(yield func(pause) bool) {
			t.yield = yield
			for {
				t.conn.handle()
				if !yield(pauseReturned) {
					return
				}
			}
		})
	}
	t.conn, t.apart = c, false
	c.turn, c.x.here = t, &presence{turn: t}
	c.state, c.by = running, time.Time{}
	p.step(t)
}

// step lets a handler go on.
func (p *loop) step(t *turn) {
	c := t.conn
	switch is, _ := t.next(); is {
	case pauseReturned:
		p.sending = append(p.sending, c)
	case pauseLater:
		p.waiting = append(p.waiting, t)
	case pauseApart:
		if c.drain && c.left() { // who left at once is told of before the handler runs
			c.x.here.end()
		}
		go func() {
			_, _ = t.next() // it returns: there are no more turns to end
			c.send()
			p.post(message{what: connAnswered, conn: c})
		}()
	}
}

// end takes a turn back, to be used again.
func (p *loop) end(t *turn) {
	t.conn = nil
	if len(p.free) < 2*len(p.events) {
		p.free = append(p.free, t)
		return
	}
	t.stop()
}

// exchange is for a request that begins to come.
func (p *loop) exchange() *Exchange {
	n := len(p.idle)
	if n == 0 {
		return &Exchange{room: make([]byte, 0, firstRoom), closing: p.s.closing.Load}
	}
	x := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return x
}

// take has it back when it is over.
func (p *loop) take(x *Exchange) {
	if len(p.idle) == 2*len(p.events) {
		return
	}
	if cap(x.set) > firstRoom {
		x.set = nil
	}
	p.idle = append(p.idle, x)
}

// mostPaths is of those whose handlers a loop remembers: who asks may make them up.
const mostPaths = 64

// handler is that of a path; nil: it is not for here.
func (p *loop) handler(path []byte) func(*Exchange) {
	h, ok := p.handlers[string(path)]
	if !ok {
		h = p.s.Handler(string(path))
		if len(p.handlers) == mostPaths {
			clear(p.handlers)
		}
		p.handlers[string(path)] = h
	}
	return h
}
