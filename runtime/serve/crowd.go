package serve

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc/peer"
)

// crowd bounds the connections of a listener, and so the memory of callers who have asked
// nothing yet, whom no credentials and no rate can hold back. One more than most ends the
// one that has been without a request for longest; where all have one it is refused.
type crowd struct {
	net.Listener
	most int

	mu   sync.Mutex
	all  int
	idle list.List // of the members that have no request, for longest first
}

// member is a connection of a crowd.
type member struct {
	net.Conn
	crowd *crowd
	// With the crowd's mu:
	asked int           // requests that are being answered
	place *list.Element // in idle, or nil
	gone  bool
}

// A connection of net/http, or of gRPC, takes so many bytes while the head of a request
// comes, and a plain one while a request comes. Each of the three kinds may have one
// connectionsShare-th of a replica's memory.
const (
	perConnection      = 2 * maxHeader
	perPlainConnection = 32 << 10
	connectionsShare   = 8
	defaultMemory      = 512 << 20
)

// most is how many connections of some bytes there may be.
func (s *Server) most(bytes int64) int {
	memory := s.svc.Memory
	if memory <= 0 {
		memory = defaultMemory
	}
	return int(max(memory/connectionsShare/bytes, 64))
}

func newCrowd(l net.Listener, most int) *crowd {
	return &crowd{Listener: l, most: most}
}

// Accept waits for a connection that there is room for.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		m := &member{Conn: conn, crowd: c}
		first, ok := c.enter(m)
		if first != nil {
			_ = first.Conn.Close()
		}
		if ok {
			return m, nil
		}
		_ = conn.Close()
	}
}

// enter takes a connection in, and returns the one that has to go for that.
func (c *crowd) enter(m *member) (first *member, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most {
		e := c.idle.Front()
		if e == nil {
			return nil, false
		}
		first = e.Value.(*member)
		first.leave()
	}
	c.all++
	m.place = c.idle.PushBack(m)
	return first, true
}

// leave makes room, once; with the crowd's mu.
func (m *member) leave() {
	if m.gone {
		return
	}
	m.gone = true
	m.crowd.all--
	m.rest(false)
}

// rest says whether the member is among those that have no request; with the crowd's mu.
func (m *member) rest(idle bool) {
	switch {
	case !idle && m.place != nil:
		m.crowd.idle.Remove(m.place)
		m.place = nil
	case idle && m.place == nil && !m.gone:
		m.place = m.crowd.idle.PushBack(m)
	}
}

// Close ends the connection.
func (m *member) Close() error {
	m.crowd.mu.Lock()
	m.leave()
	m.crowd.mu.Unlock()
	return m.Conn.Close()
}

// memberAddr is where a member comes from, and the member: servers hand the address on
// where they do not the connection.
type memberAddr struct {
	net.Addr
	member *member
}

// RemoteAddr is a memberAddr.
func (m *member) RemoteAddr() net.Addr { return memberAddr{m.Conn.RemoteAddr(), m} }

// CloseWrite ends what is sent, for net/http to let the other side read it.
func (m *member) CloseWrite() error {
	if w, ok := m.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// ask counts a request that comes, or is over.
func (m *member) ask(n int) {
	m.crowd.mu.Lock()
	defer m.crowd.mu.Unlock()
	m.asked += n
	m.rest(m.asked == 0)
}

type memberKey struct{}

// inCrowd is an http.Server's ConnContext.
func inCrowd(ctx context.Context, c net.Conn) context.Context {
	if a, ok := c.RemoteAddr().(memberAddr); ok {
		return context.WithValue(ctx, memberKey{}, a.member)
	}
	return ctx
}

// asking tells a connection's crowd of its requests.
func asking(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := r.Context().Value(memberKey{}).(*member); ok {
			m.ask(1)
			defer m.ask(-1)
		}
		next.ServeHTTP(w, r)
	})
}

// askingRPC tells a connection's crowd of a call, which is over with its context.
func askingRPC(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(memberAddr); ok {
			a.member.ask(1)
			context.AfterFunc(ctx, func() { a.member.ask(-1) })
		}
	}
}
