package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// TestCrowd: more callers than there is room for end those who ask nothing, the oldest
// first; whoever has a request under way stays, and where all have one the next is refused.
func TestCrowd(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const most = 4
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	s := &http.Server{ConnContext: inCrowd, Handler: asking(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			arrived <- struct{}{}
			<-release
		}
	}))}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(newCrowd(inner, most)); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer s.Close()
	dial := func(send string) net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ended := func(c net.Conn) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection was answered")
		}
	}
	ask := func(path string) string { return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path) }
	answered := func(c net.Conn) {
		t.Helper()
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Error(res, err)
		}
	}

	held := dial(ask("/held"))
	<-arrived
	var slow []net.Conn
	for range 3 * most {
		slow = append(slow, dial("GET / HTTP/1.1\r\nX-A: a"))
	}
	for _, c := range slow[:len(slow)-(most-1)] {
		ended(c)
	}
	answered(dial(ask("/")))
	var busy []net.Conn
	for range most - 1 {
		busy = append(busy, dial(ask("/held")))
		<-arrived
	}
	ended(dial(ask("/")))
	close(release)
	for _, c := range append(busy, held) {
		answered(c)
	}
	answered(dial(ask("/")))
}
