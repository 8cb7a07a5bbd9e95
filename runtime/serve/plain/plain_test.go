//go:build linux

package plain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	pathpkg "path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"mlc.dev/mlc/runtime/serve/api"
)

// FuzzPlainIsHTTP: what is plain is the same request to net/http, and whatever begins
// a plain request may become one.
func FuzzPlainIsHTTP(f *testing.F) {
	for _, s := range conversations {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		n, is := r.parse(b)
		if is != plain {
			return
		}
		q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: net/http: %v", b, err)
		}
		if q.Method != "POST" || q.URL.Path != string(b[r.path[0]:r.path[1]]) || q.URL.Path != pathpkg.Clean(q.URL.Path) || q.URL.RawQuery != "" || q.ProtoMinor != 1 || q.ContentLength != int64(r.length) || q.TransferEncoding != nil || q.Close {
			t.Errorf("%q: %+v", b, q)
		}
		for _, h := range r.fields[:r.n] {
			name, value := string(b[h.name:h.colon]), string(b[h.value:h.end])
			if r.value(b, name) != value {
				t.Errorf("%q: %s is there twice", b, name)
			}
			if strings.EqualFold(name, "host") {
				if q.Host != value {
					t.Errorf("%q: host %q", b, q.Host)
				}
			} else if got := q.Header[http.CanonicalHeaderKey(name)]; len(got) != 1 || got[0] != value {
				t.Errorf("%q: %s is %q, %q here", b, name, got, value)
			}
		}
		for i := range n {
			if _, is := new(request).parse(b[:i]); is != more {
				t.Errorf("%q: %v", b[:i], is)
			}
		}
	})
}

const path = "/v1/predict"

func post(body string, headers ...string) string {
	b := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: %d\r\n", path, len(body))
	for _, h := range headers {
		b += h + "\r\n"
	}
	return b + "\r\n" + body
}

// conversations are what a client sends on one connection.
var conversations = []string{
	post("{}"),
	post("{}", "x-request-ID: a", "Accept: */*", "Connection: Keep-Alive", "X-Empty:", "X-Spaces:  a \tb "),
	post("{}", "x-request-ID: a", "X-Request-Id: b"),
	post(""),
	post(strings.Repeat("a", mostBody)),
	post(strings.Repeat("a", mostBody+1)),
	post("{}", "X-Refuse: 1") + post("{}"),
	post("{}", "Connection: close"),
	post("{}", "Expect: 100-continue"),
	post("{}", "Upgrade: h2c", "Connection: Upgrade"),
	post("{}", "Content-Length: 2"),
	post("{}", "Content-Length: 3"),
	post("{}", "Host: x"),
	post("{}", "X-Latin: caf\xe9"),
	post("{}", "X-Control: a\x01"),
	post("{}", "X-Folded: a\r\n b"),
	post("{}", "X Spaced: a"),
	post("{}", "X-Spaced : a"),
	post("{}", ": a"),
	post("{}", "X-Long: "+strings.Repeat("a", mostHead)),
	post("{}", strings.Split(strings.Repeat("X-Many: a\n", mostHeaders), "\n")[:mostHeaders]...),
	strings.Replace(post("{}"), "\r\n", "\n", 1),
	strings.Replace(post("{}"), "Length: 2\r\n", "Length: 2\n", 1),
	strings.Replace(post("{}"), "Length: 2", "Length: +2", 1),
	strings.Replace(post("{}"), "Length: 2", "Length: 0x2", 1),
	strings.Replace(post("{}"), "Length: 2", "Length: 99999999999999999999", 1),
	strings.Replace(post("{}"), "Length: 2", "Length: ", 1),
	strings.Replace(post("{}"), "Content-Length: 2", "Transfer-Encoding: chunked", 1)[:len(post("{}"))-2] + "2\r\n{}\r\n0\r\n\r\n",
	post("{}", "Transfer-Encoding: chunked"),
	strings.Replace(post("{}"), "Host: 127.0.0.1:80\r\n", "", 1),
	strings.Replace(post("{}"), "127.0.0.1:80", "a b", 1),
	strings.Replace(post("{}"), path, path+"?a=b", 1),
	strings.Replace(post("{}"), path, "http://x"+path, 1),
	strings.Replace(post("{}"), path, "/v1/../v1/predict", 1),
	strings.Replace(post("{}"), path, path+"/", 1),
	strings.Replace(post("{}"), path, "/v2/models/a-b_c.d/infer", 1),
	post("{}") + strings.Replace(post("{}"), path, "/v2/models/a/infer", 1) + post("{}"),
	strings.Replace(post("{}"), path, "/v2/models//infer", 1),
	strings.Replace(post("{}"), path, "/v2/models/.../infer", 1),
	strings.Replace(post("{}"), path, "/v2/models/%61/infer", 1),
	strings.Replace(post("{}"), path, "", 1),
	strings.Replace(post("{}"), path, "v1", 1),
	strings.Replace(post("{}"), path, "*", 1),
	strings.Replace(post("{}"), "HTTP/1.1", "HTTP/1.0", 1),
	strings.Replace(post("{}"), "HTTP/1.1", "HTTP/1.2", 1),
	strings.Replace(post("{}"), "POST", "PUT", 1),
	strings.Replace(post("{}"), "POST ", "POST  ", 1),
	"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post("{}"),
	post("{}") + "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post("{}"),
	post("{}") + post("[]") + post(strings.Repeat("b", 5000)) + post("{}", "X-Refuse: 1") + post("{}"),
	"\r\n" + post("{}"),
	post("{}") + "\r\n" + post("{}"),
	post("{}") + "\r\n\r\n\r\n" + post("{}"),
	post(strings.Repeat("a", mostBody)) + strings.Replace(post("{}"), path, "/"+strings.Repeat("a", mostHead-len("POST / HTTP/1.1")), 1),
	"\x16\x03\x01\x00\x05hello",
	post("{}")[:30],
	post("{}") + post("{}")[:30],
	post("{}") + "\r",
	"",
}

// echo answers with what it was asked.
func echo(x api.Exchange) {
	if x.Header("X-Refuse") != "" {
		_ = x.Answer(503, api.JSON, []byte(`{}`))
		return
	}
	b, err := x.Body(nil, 1<<20, 0)
	if err != nil {
		_ = x.Answer(400, api.JSON, []byte(`{}`))
		return
	}
	x.AddHeader("X-Echo", x.Header("x-request-id")+"|"+x.Header("X-Spaces")+"|"+x.Header("X-Empty")+"|"+x.Header("X-Latin"))
	_ = x.Answer(200, "text/plain", b)
}

var quick = Timeouts{Header: 5 * time.Second, Body: 10 * time.Second, Idle: time.Minute, Write: 10 * time.Second}

// server serves f at a path, plain requests without net/http where s is not nil.
func server(t testing.TB, s *Server, f func(api.Exchange)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(api.HTTP(w, r)) }), Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	if s != nil {
		if s.Handler == nil {
			s.Handler = func(string) func(*Exchange) { return func(x *Exchange) { f(x) } }
		}
		l = s.Listen(l)
	}
	go h.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() {
		h.Close() //nolint:errcheck // it ends with the test
		if s != nil {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.Shutdown(ctx)
		}
	})
	return addr
}

// only is one handler for every path.
func only(h func(*Exchange)) func(string) func(*Exchange) {
	return func(string) func(*Exchange) { return h }
}

// said is what a server answers to bytes that come in parts, without dates.
func said(t failer, addr, bytes string, parts []int) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer c.Close()
	go func() {
		at := 0
		for _, n := range parts {
			n = min(n, len(bytes)-at)
			if _, err := io.WriteString(c, bytes[at:at+n]); err != nil {
				return // it has been judged already
			}
			at += n
		}
		_, _ = io.WriteString(c, bytes[at:])
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	r := bufio.NewReader(c)
	var out strings.Builder
	for {
		a, err := http.ReadResponse(r, &http.Request{Method: "POST"})
		if err != nil {
			return out.String()
		}
		body, err := io.ReadAll(a.Body)
		// Where net/http refuses a request it ends the connection, perhaps with a reset.
		if a.StatusCode == 200 && (err != nil || a.Header.Get("Date") == "") {
			t.Fatalf("%v, %v", err, a.Header)
		}
		a.Header.Del("Date")
		fmt.Fprintf(&out, "%s %v close=%v %.60q %d\n", a.Status, a.Header, a.Close, body, len(body))
	}
}

type failer interface{ Fatalf(string, ...any) }

// TestSameAsHTTP: whether a server is asked here or by net/http alone makes no
// difference to its callers, however their bytes come.
func TestSameAsHTTP(t *testing.T) {
	ours, theirs := server(t, &Server{Timeouts: quick}, echo), server(t, nil, echo)
	for _, s := range conversations {
		if a, b := said(t, ours, s, nil), said(t, theirs, s, nil); a != b {
			t.Errorf("%.300q:\n%s\nnet/http alone:\n%s", s, a, b)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var s string
		for range rapid.IntRange(1, 3).Draw(t, "requests") {
			s += rapid.SampledFrom(conversations).Draw(t, "request")
		}
		parts := rapid.SliceOfN(rapid.IntRange(1, 300), 0, 6).Draw(t, "parts")
		if a, b := said(t, ours, s, parts), said(t, theirs, s, nil); a != b {
			t.Fatalf("%.300q:\n%s\nnet/http alone:\n%s", s, a, b)
		}
	})
}

// TestHTTP2 goes to net/http, without a byte lost.
func TestHTTP2(t *testing.T) {
	addr := server(t, &Server{Timeouts: quick}, echo)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	r, err := (&http.Client{Transport: tr}).Post("http://"+addr+path, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || r.ProtoMajor != 2 || string(b) != "{}" {
		t.Errorf("%s %q %v", r.Proto, b, err)
	}
}

// TestReset: net/http is told who called, also where the system does not know it any more.
func TestReset(t *testing.T) {
	s := &Server{Timeouts: quick, Handler: func(string) func(*Exchange) { return nil }}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	others := s.Listen(l)
	defer s.Shutdown(t.Context()) //nolint:errcheck // nobody is left
	defer others.Close()          //nolint:errcheck // it is
	for range 20 {
		c, _ := dial(t, l.Addr().String())
		fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		given, err := others.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if _, err := io.ReadAll(given); err == nil {
			t.Error("it was no reset")
		}
		if a := given.RemoteAddr(); a == nil || a.String() != c.LocalAddr().String() {
			t.Error(a)
		}
		given.Close()
	}
}

func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// answer reads one.
func answer(t *testing.T, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	a, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(b)
}

// TestCallersThatLeave: who watches a request's context learns that its caller is
// gone, and what came of the next request meanwhile is not lost.
func TestCallersThatLeave(t *testing.T) {
	asked, next := make(chan context.Context, 1), make(chan bool)
	s := &Server{Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		if x.Header("X-Wait") != "" {
			ctx := x.Context()
			api.TurnOf(ctx).Apart()
			asked <- ctx
			select {
			case <-ctx.Done():
			case <-next:
			}
		}
		echo(x)
	})
	addr := server(t, s, nil)
	c, r := dial(t, addr)
	fmt.Fprint(c, post("1", "X-Wait: 1"))
	ctx := <-asked
	fmt.Fprint(c, post("2")[:20])
	next <- true
	if _, b := answer(t, r); b != "1" {
		t.Error(b)
	}
	<-ctx.Done() // the request is over
	fmt.Fprint(c, post("2")[20:])
	if _, b := answer(t, r); b != "2" {
		t.Error(b)
	}
	fmt.Fprint(c, post("3", "X-Wait: 1"))
	ctx = <-asked
	c.Close()
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(ctx.Err())
	}
	for range 50 { // also who leaves before anyone has looked
		c, _ := dial(t, addr)
		fmt.Fprint(c, post("4", "X-Wait: 1"))
		c.Close()
		<-(<-asked).Done()
	}
}

// TestUrgentBytes are no part of what is asked, and hold up nothing of it.
func TestUrgentBytes(t *testing.T) {
	c, r := dial(t, server(t, &Server{Timeouts: quick}, echo))
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		b := post(fmt.Sprint(i))
		err := raw.Control(func(fd uintptr) {
			_, err = unix.Write(int(fd), []byte(b[:30]))
			_, err1 := unix.SendmsgN(int(fd), []byte("!"), nil, nil, unix.MSG_OOB)
			_, err2 := unix.Write(int(fd), []byte(b[30:]))
			err = errors.Join(err, err1, err2)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, b := answer(t, r); b != fmt.Sprint(i) {
			t.Error(b)
		}
	}
}

// TestCallersThatAreSlow are cut off: without a request, in a head, and, with an
// answer, in a body.
func TestCallersThatAreSlow(t *testing.T) {
	const short = 20 * time.Millisecond
	s := &Server{Timeouts: Timeouts{Header: short, Body: short, Idle: time.Minute, Write: time.Minute}}
	late := make(chan error, 1)
	s.Handler = only(func(x *Exchange) {
		_, err := x.Body(nil, 1<<20, short)
		late <- err
		_ = x.Answer(408, api.JSON, []byte(`{}`))
	})
	addr := server(t, s, nil)
	c, r := dial(t, addr)
	fmt.Fprint(c, post("{}")[:30])
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("%q %v", b, err)
	}
	c, r = dial(t, addr)
	fmt.Fprint(c, post("{}")[:len(post("{}"))-1])
	if a, _ := answer(t, r); a.StatusCode != 408 || !a.Close {
		t.Errorf("%d %v", a.StatusCode, a.Close)
	}
	if err := <-late; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Error(err)
	}
}

// TestBodyLimits: a body over the limit is not read, and ends the connection.
func TestBodyLimits(t *testing.T) {
	s := &Server{Timeouts: quick, Handler: only(func(x *Exchange) {
		_, err := x.Body(nil, 1, 0)
		var large *http.MaxBytesError
		if errors.As(err, &large) && large.Limit == 1 {
			_ = x.Answer(413, api.JSON, []byte(`{}`))
			return
		}
		_ = x.Answer(200, api.JSON, []byte(`{}`))
	})}
	c, r := dial(t, server(t, s, nil))
	fmt.Fprint(c, post("1"))
	if a, _ := answer(t, r); a.StatusCode != 200 || a.Close {
		t.Errorf("%d %v", a.StatusCode, a.Close)
	}
	fmt.Fprint(c, post("12"))
	if a, _ := answer(t, r); a.StatusCode != 413 || !a.Close {
		t.Errorf("%d %v", a.StatusCode, a.Close)
	}
}

// TestHeadersOfAnswers: no value begins a line, and an answer is sent once.
func TestHeadersOfAnswers(t *testing.T) {
	s := &Server{Timeouts: quick, Handler: only(func(x *Exchange) {
		x.AddHeader("X-Text", "a\r\nX-Other: b\x00\tc")
		if x.Answer(200, api.JSON, []byte("1")) != nil || x.Answer(200, api.JSON, []byte("2")) == nil {
			t.Error("an answer is sent once")
		}
	})}
	c, r := dial(t, server(t, s, nil))
	fmt.Fprint(c, post(""))
	if a, b := answer(t, r); a.Header.Get("X-Text") != "a  X-Other: b \tc" || a.Header.Get("X-Other") != "" || b != "1" {
		t.Errorf("%v %q", a.Header, b)
	}
	fmt.Fprint(c, post(""))
	if _, b := answer(t, r); b != "1" {
		t.Errorf("%q", b)
	}
}

// TestPanics: a mistake ends its connection and no other.
func TestPanics(t *testing.T) {
	told := make(chan any, 1)
	s := &Server{Timeouts: quick, Panicked: func(p any) { told <- p }}
	s.Handler = only(func(x *Exchange) {
		if x.Header("X-Panic") != "" {
			panic("boom")
		}
		echo(x)
	})
	addr := server(t, s, nil)
	good, r := dial(t, addr)
	c, bad := dial(t, addr)
	fmt.Fprint(c, post("{}", "X-Panic: 1"))
	if _, err := bad.ReadByte(); err == nil || <-told != "boom" {
		t.Error(err)
	}
	fmt.Fprint(good, post("{}"))
	if _, b := answer(t, r); b != "{}" {
		t.Error(b)
	}
}

// TestLongPaths: wherever a head ends, it is judged.
func TestLongPaths(t *testing.T) {
	for n := mostHead - 40; n < mostHead+40; n++ {
		b := []byte(strings.Replace(post("{}"), path, "/"+strings.Repeat("a", n), 1))
		if _, is := new(request).parse(b); (is == plain) != (len(b)-len("{}") <= mostHead) {
			t.Error(n, is)
		}
	}
}

// TestBuffersAreBounded: who sends requests faster than they are answered is read no
// faster, also where he is watched.
func TestBuffersAreBounded(t *testing.T) {
	var most atomic.Int64
	s := &Server{Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		x.Context().Done()
		most.Store(max(most.Load(), int64(cap(x.in))))
		_ = x.Answer(200, api.JSON, []byte("{}"))
	})
	c, r := dial(t, server(t, s, nil))
	const n = 3000
	go fmt.Fprint(c, strings.Repeat(post(""), n))
	for range n {
		answer(t, r)
	}
	if most.Load() > 2*mostHead {
		t.Error(most.Load())
	}
}

// TestIdleHoldNothing: connections that wait share what their loop has for requests, and
// a loop remembers no more paths than it has to, whatever callers make up.
func TestIdleHoldNothing(t *testing.T) {
	s := &Server{Timeouts: quick}
	addr := server(t, s, echo)
	conns, readers := make([]net.Conn, 100), make([]*bufio.Reader, 100)
	for i := range conns {
		conns[i], readers[i] = dial(t, addr)
		for k := range 2 * len(s.loops) {
			body := fmt.Sprint(i)
			fmt.Fprint(conns[i], strings.Replace(post(body), path, fmt.Sprintf("%s/%d/%d", path, i, k), 1))
			if _, b := answer(t, readers[i]); b != body {
				t.Fatalf("%q for %q", b, body)
			}
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.loops {
		if len(p.idle) > 1 || len(p.handlers) > mostPaths {
			t.Errorf("%d exchanges for requests one by one, %d paths", len(p.idle), len(p.handlers))
		}
	}
}

// TestTurns: requests that come together have their turns one after the other, and who
// waits for something apart holds up nobody.
func TestTurns(t *testing.T) {
	const n = 8
	var at, most atomic.Int64
	held, asked := make(chan bool), make(chan bool)
	s := &Server{Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		turn := api.TurnOf(x.Context())
		if x.Header("X-Wait") != "" {
			if turn.Group() == nil {
				t.Error("it has a group")
			}
			turn.Apart()
			turn.Apart()
			turn.Later()
			if turn.Group() != nil {
				t.Error("it is apart")
			}
			asked <- true
			<-held
		}
		most.Store(max(most.Load(), at.Add(1)))
		for range 3 {
			turn.Later()
		}
		at.Add(-1)
		echo(x)
	})
	addr := server(t, s, nil)
	c, slow := dial(t, addr)
	fmt.Fprint(c, post("slow", "X-Wait: 1"))
	<-asked
	var conns []net.Conn
	var readers []*bufio.Reader
	for range n {
		c, r := dial(t, addr)
		conns, readers = append(conns, c), append(readers, r)
	}
	for i := range 200 {
		for k, c := range conns {
			fmt.Fprint(c, post(fmt.Sprint(i, k)))
		}
		for k, r := range readers {
			if _, b := answer(t, r); b != fmt.Sprint(i, k) {
				t.Fatal(b)
			}
		}
	}
	if most.Load() < 2 {
		t.Error("no two requests were under way at once")
	}
	held <- true
	if _, b := answer(t, slow); b != "slow" {
		t.Error(b)
	}
}

// TestSlowReaders hold up nobody else, and get all of their answer; who reads nothing is
// cut off.
func TestSlowReaders(t *testing.T) {
	large := bytes.Repeat([]byte("a"), 32<<20)
	for _, apart := range []bool{false, true} {
		s := &Server{Timeouts: quick}
		s.Handler = only(func(x *Exchange) {
			if apart {
				api.TurnOf(x.Context()).Apart()
			}
			if x.Header("X-Large") != "" {
				_ = x.Answer(200, "text/plain", large)
				return
			}
			echo(x)
		})
		addr := server(t, s, nil)
		c, slow := dial(t, addr)
		fmt.Fprint(c, post("", "X-Large: 1")+post("next"))
		c2, r := dial(t, addr)
		for range 100 {
			fmt.Fprint(c2, post("{}"))
			answer(t, r)
		}
		if _, b := answer(t, slow); len(b) != len(large) {
			t.Error(len(b))
		}
		if _, b := answer(t, slow); b != "next" {
			t.Error(b)
		}
	}
	s := &Server{Timeouts: Timeouts{Header: time.Minute, Body: time.Minute, Idle: time.Minute, Write: 20 * time.Millisecond}}
	s.Handler = only(func(x *Exchange) { _ = x.Answer(200, "text/plain", large) })
	c, r := dial(t, server(t, s, nil))
	fmt.Fprint(c, post(""))
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	for {
		n := int64(0)
		for _, p := range s.loops {
			n += p.n.Load()
		}
		if n == 0 {
			break // it was cut, and what is left is not sent
		}
		runtime.Gosched()
	}
	if n, _ := io.Copy(io.Discard, r); n >= int64(len(large)) {
		t.Error(n)
	}
}

// TestMost: one connection more than there may be ends one that waits in the middle of a
// request, and those with one under way stay.
func TestMost(t *testing.T) {
	const most = 4
	arrived, release := make(chan struct{}), make(chan struct{})
	s := &Server{Most: most, Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		if x.Header("X-Hold") != "" {
			api.TurnOf(x.Context()).Apart()
			arrived <- struct{}{}
			<-release
		}
		echo(x)
	})
	addr := server(t, s, nil)
	send := func(s string) (net.Conn, *bufio.Reader) {
		c, r := dial(t, addr)
		if _, err := io.WriteString(c, s); err != nil {
			t.Fatal(err)
		}
		return c, r
	}
	_, held := send(post("{}", "X-Hold: 1"))
	<-arrived
	for range 3 * most {
		send("POST ")
	}
	for range 3 * most { // callers who ask at once find room
		_, r := send(post("{}"))
		answer(t, r)
	}
	var all int64
	for _, p := range s.loops {
		all += p.n.Load()
	}
	if all > 2*most { // of 25
		t.Errorf("%d connections", all)
	}
	close(release)
	answer(t, held)
}

// TestManyConnections: connections that come and go in any way leave nothing behind.
func TestManyConnections(t *testing.T) {
	s := &Server{Timeouts: quick}
	addr := server(t, s, echo)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for k := range 40 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprint(i, k)
				switch k % 4 {
				case 0:
					_ = c.(*net.TCPConn).SetLinger(0)
				case 1:
					fmt.Fprint(c, post(want)[:40])
				case 2:
					fmt.Fprint(c, post(want)) // and is gone
				default:
					fmt.Fprint(c, post(want))
					a, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						t.Error(err)
						break
					}
					if b, err := io.ReadAll(a.Body); err != nil || string(b) != want {
						t.Errorf("%q %v", b, err)
					}
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range s.loops {
		if n := p.n.Load(); n != 0 || len(p.conns) != 0 {
			t.Error(n, len(p.conns))
		}
	}
}

// TestShutdown: what is asked is answered, also what was sent and not read yet;
// connections without a request end.
func TestShutdown(t *testing.T) {
	asked, go_ := make(chan bool), make(chan bool)
	s := &Server{Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		if x.Header("X-Wait") != "" {
			api.TurnOf(x.Context()).Apart()
			asked <- true
			<-go_
		}
		echo(x)
	})
	addr := server(t, s, nil)
	_, idle := dial(t, addr)
	c, busy := dial(t, addr)
	fmt.Fprint(c, post("{}"))
	answer(t, busy)
	fmt.Fprint(c, post("1", "X-Wait: 1")+post("2"))
	<-asked
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	if _, err := idle.ReadByte(); err != io.EOF {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatal("it ended before its requests:", err)
	default:
	}
	go_ <- true
	if a, b := answer(t, busy); b != "1" || !a.Close {
		t.Errorf("%q %v", b, a.Close)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownOfMany: what many have asked by then is answered, more than a loop looks at
// at once, and a loop that is gone is told nothing.
func TestShutdownOfMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := &Server{Timeouts: quick}
	addr := server(t, s, echo)
	const n = 700
	conns, readers := make([]net.Conn, n), make([]*bufio.Reader, n)
	for i := range conns {
		conns[i], readers[i] = dial(t, addr)
		fmt.Fprint(conns[i], post("0"))
		answer(t, readers[i])
	}
	for i, c := range conns {
		fmt.Fprint(c, post(fmt.Sprint(i)))
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for i, r := range readers {
		if _, b := answer(t, r); b != fmt.Sprint(i) {
			t.Error(i, b)
		}
	}
	for _, p := range s.loops {
		if p.post(message{what: serverCuts}); len(p.inbox) != 0 {
			t.Error(p.inbox)
		}
	}
}

// TestShutdownHasAnEnd: who keeps a request open is cut.
func TestShutdownHasAnEnd(t *testing.T) {
	asked := make(chan bool)
	s := &Server{Timeouts: quick}
	s.Handler = only(func(x *Exchange) {
		ctx := x.Context()
		api.TurnOf(ctx).Apart()
		asked <- true
		<-ctx.Done()
	})
	c, r := dial(t, server(t, s, nil))
	fmt.Fprint(c, post("{}"))
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("it was answered")
	}
}
