package typed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
)

func TestMalformedJSON(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	for body, offset := range map[string]int{
		``: 0, `{`: 1, `{"features":` + good: 12 + len(good), `{"features":` + good + `}x`: 13 + len(good), `{"features":{"bird.weight":01}}`: 28,
		`{'features':{}}`: 1, "{\"features\":{\"bird.note\":\"a\tb\"}}": 27, `{"features":{"bird.weight":1,}}`: 29, "\xef\xbb\xbf{}": 0,
	} {
		w := post(a, body)
		if r := decode(t, w); w.Code != 400 || r.Offset == nil || *r.Offset != offset || !strings.HasPrefix(r.Error, "malformed JSON at byte") {
			t.Errorf("%q: %d %+v", body, w.Code, r)
		}
	}
	if m.last.Inputs != nil {
		t.Error("the model was asked")
	}
}

func TestNaNAndInfinity(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	for _, lit := range []string{"NaN", "Infinity", "-Infinity", "nan", "inf"} {
		w := post(a, `{"features":{"bird.weight":`+lit+`}}`)
		if w.Code != 400 || decode(t, w).Offset == nil {
			t.Errorf("%s: %d", lit, w.Code)
		}
	}
	for lit, want := range map[string]string{`"NaN"`: WrongType, `"Infinity"`: WrongType, `1e309`: NotFinite, `-1e309`: NotFinite} {
		w := post(a, `{"features":{"bird.species":"owl","bird.weight":1,"height":`+lit+`}}`)
		if got := places(decode(t, w).Faults); w.Code != 422 || got != `$.features["height"] `+want {
			t.Errorf("%s: %d %s", lit, w.Code, got)
		}
	}
}

func TestDeepNesting(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	for _, open := range []string{"[", `{"a":`} {
		deep := strings.Repeat(open, 100_000)
		for _, body := range []string{deep, `{"features":{"bird.note":` + deep, `{"x":` + deep} {
			w := post(a, body)
			if r := decode(t, w); w.Code != 400 || !strings.Contains(r.Error, "nested deeper than 64 levels") {
				t.Errorf("%.40s: %d %s", body, w.Code, r.Error)
			}
		}
	}
}

func TestDuplicateKeys(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	for body, want := range map[string]string{
		`{"rows":[` + good + `],"rows":[` + good + `]}`:                            "$.rows duplicate",
		`{"id":"a","id":"b","features":` + good + `}`:                              "$.id duplicate",
		`{"features":{"bird.species":"owl","bird.weight":1,"bird.weight":1}}`:      `$.features["bird.weight"] duplicate`,
		`{"features":{"bird.species":"owl","bird.weight":1,"bird.w\u0065ight":1}}`: `$.features["bird.weight"] duplicate`,
		`{"features":{"bird.species":"owl","bird.weight":1,"weight":1}}`:           `$.features["weight"] duplicate`,
	} {
		w := post(a, body)
		if got := places(decode(t, w).Faults); w.Code != 422 || got != want {
			t.Errorf("%s: %d %s", body, w.Code, got)
		}
	}
	if m.last.Inputs != nil {
		t.Error("the model was asked")
	}
}

func TestTooManyRows(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	rows := func(n int) string { return `{"rows":[` + strings.TrimSuffix(strings.Repeat(good+",", n), ",") + `]}` }
	if w := post(a, rows(100)); w.Code != 200 || m.last.Rows != 100 {
		t.Errorf("100 rows: %d", w.Code)
	}
	if w := post(a, rows(101)); w.Code != 413 || decode(t, w).Error == "" {
		t.Errorf("101 rows: %d", w.Code)
	}
}

func TestCompressedBodiesAreRefused(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	if w := post(a, `{}`, "Content-Encoding", "gzip"); w.Code != 415 || decode(t, w).Error == "" {
		t.Error(w.Code)
	}
}

// zeros gives n bytes that are a JSON text not yet at its end, and counts what is read.
type zeros struct{ n, read int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	k := min(int64(len(p)), z.n)
	for i := range p[:k] {
		p[i] = '0'
	}
	z.n -= k
	z.read += k
	return int(k), nil
}

func TestBodiesOf100MB(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	for name, length := range map[string]int64{"told": 100 << 20, "chunked": -1} {
		z := &zeros{n: 100 << 20}
		r := httptest.NewRequest(http.MethodPost, "/v1/predict", io.MultiReader(strings.NewReader(`{"rows":[`), z))
		r.ContentLength = length
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if w.Code != 413 || decode(t, w).Error == "" {
			t.Errorf("%s: %d", name, w.Code)
		}
		// What comes in chunks is passed over for some way, for the caller to read the answer.
		if limit := int64(1 << 20); z.read > map[string]int64{"told": 0, "chunked": 18 * limit}[name] || after.TotalAlloc-before.TotalAlloc > uint64(8*limit) {
			t.Errorf("%s: %d bytes read, %d allocated", name, z.read, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

// dial is a connection to a server of a.
func dial(t *testing.T, a *API) net.Conn {
	s := httptest.NewServer(a.Handler())
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLyingContentLength(t *testing.T) {
	body := `{"features":` + good + `}`
	for _, c := range []struct {
		name           string
		length, status int
	}{
		{"less than there is", len(body) - 2, 400},
		{"more than there is", len(body) + 1000, 400},
		{"far more than allowed", 1 << 40, 413},
	} {
		a, m := setup(birds(kind.Binary), nil)
		conn := dial(t, a)
		fmt.Fprintf(conn, "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", c.length, body)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if res.StatusCode != c.status || m.last.Inputs != nil {
			t.Errorf("%s: %d", c.name, res.StatusCode)
		}
	}
}

// TestLyingContentLengthTakesNoMemory: what is claimed and does not come is not
// set aside.
func TestLyingContentLengthTakesNoMemory(t *testing.T) {
	a, _ := setup(birds(kind.Binary), func(s *service.Service) { s.Limits.Body = 1 << 40 })
	r := httptest.NewRequest(http.MethodPost, "/v1/predict", strings.NewReader(`{"features":`+good+`}`))
	r.ContentLength = 1 << 39
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	if w.Code != 200 || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%d, %d bytes", w.Code, after.TotalAlloc-before.TotalAlloc)
	}
}

// TestCallersThatHang: a body that does not come is answered within Limits.Read.
func TestCallersThatHang(t *testing.T) {
	a, m := setup(birds(kind.Binary), func(s *service.Service) { s.Limits.Read = service.Duration(20 * time.Millisecond) })
	conn := dial(t, a)
	fmt.Fprintf(conn, "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"fea")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	var body reply
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil || res.StatusCode != http.StatusRequestTimeout || body.Error == "" || m.last.Inputs != nil {
		t.Errorf("%d %+v, %v", res.StatusCode, body, err)
	}
}

// TestOneConnectionServesManyRequests: the limit of reading ends with the body, and
// buffers that are used again carry nothing over.
func TestOneConnectionServesManyRequests(t *testing.T) {
	a, _ := setup(birds(kind.Binary), func(s *service.Service) { s.Limits.Read = service.Duration(time.Minute) })
	s := httptest.NewServer(a.Handler())
	defer s.Close()
	for i := range 50 {
		n := 1 + i*7%50
		body := `{"rows":[` + strings.TrimSuffix(strings.Repeat(good+",", n), ",") + `]}`
		status := 200
		if i%5 == 4 {
			body, status = `{"rows":[{"bird.note":7}]`, 400
		}
		res, err := http.Post(s.URL+"/v1/predict", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var r reply
		if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status || status == 200 && len(r.Predictions) != n {
			t.Errorf("request %d: %d, %d predictions", i, res.StatusCode, len(r.Predictions))
		}
	}
}
