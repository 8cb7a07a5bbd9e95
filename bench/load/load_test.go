//go:build linux

package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func serve(t *testing.T, f http.HandlerFunc) string {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func run(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClosedLoopCountsEveryStatus(t *testing.T) {
	var n atomic.Int64
	large := strings.Repeat("x", 100_000)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != large {
			t.Errorf("%d bytes came: %v", len(b), err)
		}
		switch n.Add(1) % 4 {
		case 0:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		case 1:
			w.WriteHeader(429)
		default:
			w.Header().Set("Content-Length", fmt.Sprint(len(large)))
			_, _ = w.Write([]byte(large))
		}
	})
	r := run(t, Options{Addr: addr, Requests: [][]byte{JSON("/x", large)}, Connections: 7, Count: 400})
	if r.Sent != 400 || r.Status[200] != 200 || r.Status[503] != 100 || r.Status[429] != 100 || r.NoRetry != 100 || r.Failures() != 0 || r.OK.Count() != 200 || r.Other.Count() != 200 {
		t.Errorf("%d sent; 200: %d, 503: %d, 429: %d; %d without Retry-After; %v", r.Sent, r.Status[200], r.Status[503], r.Status[429], r.NoRetry, r.Failed)
	}
	if got := n.Load(); got != 400 {
		t.Errorf("the server saw %d", got)
	}
}

// TestOpenLoopCountsFromTheIntendedStart: of 1000 requests that are due within a
// millisecond and go over one connection, the last has waited for all others.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) {})
	r := run(t, Options{Addr: addr, Requests: [][]byte{JSON("/", "{}")}, Connections: 1, Rate: 1e6, Count: 1000})
	if r.Status[200] != 1000 || r.OK.Max() < r.Took-time.Millisecond {
		t.Errorf("%d answers; the longest took %s of %s", r.Status[200], r.OK.Max(), r.Took)
	}
}

// TestImpatientRequestsAreUnsent: where nothing is answered, only what finds a free
// connection is sent, and ends with the timeout.
func TestImpatientRequestsAreUnsent(t *testing.T) {
	hold := make(chan struct{})
	addr := serve(t, func(http.ResponseWriter, *http.Request) { <-hold })
	t.Cleanup(func() { close(hold) })
	r := run(t, Options{Addr: addr, Requests: [][]byte{JSON("/", "")}, Connections: 2, Rate: 1e6, Count: 500, Patience: time.Nanosecond, Timeout: time.Second})
	if r.Sent != 2 || r.Unsent != 498 || r.Failed["timeout"] != 2 || r.Failures() != 2 {
		t.Errorf("%d sent, %d not, %v", r.Sent, r.Unsent, r.Failed)
	}
}

func TestConnectionsThatEnd(t *testing.T) {
	var n atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 3 {
		case 0:
			w.Header().Set("Connection", "close")
		case 1:
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
		}
	})
	r := run(t, Options{Addr: addr, Requests: [][]byte{JSON("/", "")}, Connections: 3, Count: 300})
	if r.Status[200] != 200 || r.Failed["connection ended"] != 100 {
		t.Errorf("%d answers, %v", r.Status[200], r.Failed)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:80", "example.com:80", "[::1]:80", "127.0.0.1"} {
		if _, err := Run(context.Background(), Options{Addr: addr, Requests: [][]byte{{}}, Connections: 1, Count: 1}); err == nil {
			t.Errorf("%s is taken", addr)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := Run(context.Background(), Options{Addr: addr, Requests: [][]byte{{}}, Connections: 1, Count: 1}); err == nil {
		t.Error("nobody listens")
	}
}

// TestQuantiles compares with sorted times.
func TestQuantiles(t *testing.T) {
	h := newHistogram()
	rapid.Check(t, func(t *rapid.T) {
		ds := rapid.SliceOfN(rapid.Int64Range(0, int64(3*time.Second)), 1, 50).Draw(t, "times")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		clear(h.fine)
		clear(h.coarse)
		h.n, h.max = 0, 0
		for _, d := range ds {
			h.add(time.Duration(d))
		}
		slices.Sort(ds)
		k := 0
		for float64(k+1)+1e-6 < q*float64(len(ds)) {
			k++
		}
		want := time.Duration(ds[k])
		if got := h.Quantile(q); got > want || want-got > time.Millisecond || want < time.Second && want-got > time.Microsecond || h.Max() != time.Duration(ds[len(ds)-1]) {
			t.Fatalf("quantile %v of %v is %v, not %v", q, ds, got, want)
		}
	})
}

// FuzzParse holds the reader of heads against net/http's.
func FuzzParse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 204\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok, err := parse(b)
		if err != nil || !ok {
			return
		}
		if h.length < 16 || h.length > len(b)+maxAnswer {
			t.Fatalf("length %d of %d bytes", h.length, len(b))
		}
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: "POST"})
		if err != nil {
			return // it is stricter
		}
		defer r.Body.Close()
		if r.StatusCode != h.status || r.ContentLength >= 0 && int64(h.length) != int64(bytes.Index(b, endOfHead)+4)+r.ContentLength {
			t.Fatalf("%q: %+v; net/http has status %d and length %d", b, h, r.StatusCode, r.ContentLength)
		}
	})
}
