package serve

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd bounds the connections of a listener, and so the memory of callers who have asked
// nothing yet, whom no credentials and no rate can hold back. One more than most ends the
// one that has been without a request for longest; where all have one it is refused.
type crowd struct {
	net.Listener
	most int

	mu    sync.Mutex
	conns map[*member]struct{}
}

// member is a connection of a crowd.
type member struct {
	net.Conn
	crowd *crowd
	asked int       // requests that are being answered
	since time.Time // when there was none any more
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
	return &crowd{Listener: l, most: most, conns: map[*member]struct{}{}}
}

// Accept waits for a connection that there is room for.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		m := &member{Conn: conn, crowd: c, since: time.Now()}
		gone, ok := c.enter(m)
		if gone != nil {
			_ = gone.Conn.Close()
		}
		if ok {
			return m, nil
		}
		_ = conn.Close()
	}
}

// enter takes a connection in, and returns the one that has to go for that.
func (c *crowd) enter(m *member) (gone *member, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.conns) >= c.most {
		for o := range c.conns {
			if o.asked == 0 && (gone == nil || o.since.Before(gone.since)) {
				gone = o
			}
		}
		if gone == nil {
			return nil, false
		}
		delete(c.conns, gone)
	}
	c.conns[m] = struct{}{}
	return gone, true
}

// Close ends the connection.
func (m *member) Close() error {
	m.crowd.mu.Lock()
	delete(m.crowd.conns, m)
	m.crowd.mu.Unlock()
	return m.Conn.Close()
}

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
	if m.asked += n; m.asked == 0 {
		m.since = time.Now()
	}
}

type memberKey struct{}

// inCrowd is an http.Server's ConnContext.
func inCrowd(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if m, ok := c.(*member); ok {
		return context.WithValue(ctx, memberKey{}, m)
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
