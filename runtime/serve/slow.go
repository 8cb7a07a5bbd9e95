package serve

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// unhurried is how long a body may come before its request gives way to another, where
// there is no room for both: callers who send one slowly would else keep all others out.
const unhurried = 500 * time.Millisecond

// bodies are those that are coming.
type bodies struct {
	mu  sync.Mutex
	all map[*body]struct{}
}

// body is one, from the end of its head to its own.
type body struct {
	io.ReadCloser
	of    *bodies
	since time.Time
	conn  *http.ResponseController
}

// comes begins to read a request's body, if it has one; over tells that nobody reads it
// any more.
func (b *bodies) comes(w http.ResponseWriter, r *http.Request) (over func()) {
	if r.ContentLength == 0 || r.Body == nil {
		return func() {}
	}
	x := &body{ReadCloser: r.Body, of: b, since: time.Now(), conn: http.NewResponseController(w)}
	r.Body = x
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[*body]struct{}{}
	}
	b.all[x] = struct{}{}
	return x.over
}

// Read ends with its first error.
func (x *body) Read(p []byte) (int, error) {
	n, err := x.ReadCloser.Read(p)
	if err != nil {
		x.over()
	}
	return n, err
}

func (x *body) over() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	delete(x.of.all, x)
}

// giveWay ends the wait for the body that has been coming for longest, if that is long.
func (b *bodies) giveWay(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var slow *body
	for x := range b.all {
		if now.Sub(x.since) >= unhurried && (slow == nil || x.since.Before(slow.since)) {
			slow = x
		}
	}
	if slow == nil {
		return false
	}
	delete(b.all, slow)
	return slow.conn.SetReadDeadline(time.Unix(1, 0)) == nil
}
