package oip

import (
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip/internal/codec"
)

// headerLength is the header that tells the length of the JSON text where binary
// tensors follow it. 0 in a request: the body is the one input of the model.
const headerLength = "Inference-Header-Content-Length"

// Handler answers everything under /v2 over HTTP.
//
// Bodies may be compressed with gzip or deflate, which is zlib's format; an answer
// is where Accept-Encoding asks for it and it is of 1 KiB or more. A failure is
// {"error": text} with 400 for what a caller got wrong, 404 for an unknown model or
// path, 405, 413 for what is too large, 429 and 503 with Retry-After, 499 where the
// caller is gone, 500, 501 for what is not supported, and 504 after a deadline.
func Handler(models api.Models, o Options) http.Handler {
	s := &httpServer{server{models, o.filled()}}
	mux := http.NewServeMux()
	route := func(method, path string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
				w.Header().Set("Allow", method)
				fail(w, http.StatusMethodNotAllowed, method+" is wanted here")
				return
			}
			if err := h(w, r); err != nil {
				failed(w, err)
			}
		})
	}
	route("GET", "/v2", s.serverMetadata)
	route("GET", "/v2/{$}", s.serverMetadata)
	route("GET", "/v2/health/live", s.live)
	route("GET", "/v2/health/ready", s.ready)
	route("GET", "/v2/models/stats", s.stats)
	for _, m := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		route("GET", m, s.modelMetadata)
		route("GET", m+"/ready", s.modelReady)
		route("GET", m+"/config", s.config)
		route("GET", m+"/stats", s.stats)
		route("POST", m+"/infer", s.inferHTTP)
	}
	route("POST", "/v2/repository/index", s.repositoryIndex)
	route("POST", "/v2/repository/models/{model}/load", s.load)
	route("POST", "/v2/repository/models/{model}/unload", s.unload)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "there is nothing at this path")
	})
	return mux
}

type httpServer struct{ server }

// httpStatus is the HTTP status of a kind of error by this protocol, which knows no 422.
func httpStatus(k api.Kind) int {
	if k == api.Invalid {
		return http.StatusBadRequest
	}
	return int(k)
}

func failed(w http.ResponseWriter, err error) {
	e := api.From(err)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	fail(w, httpStatus(e.Kind), e.Text)
}

func fail(w http.ResponseWriter, status int, text string) {
	answer(w, status, struct {
		Error string `json:"error"`
	}{text})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // our own forms always marshal
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a caller that is gone is told nothing
}

func ok(w http.ResponseWriter, v any) error {
	answer(w, http.StatusOK, v)
	return nil
}

func (s *httpServer) model(r *http.Request) (api.Model, error) {
	return s.models.Model(r.PathValue("model"), r.PathValue("version"))
}

func (s *httpServer) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{s.o.Name, s.o.Version, extensions})
}

func (s *httpServer) live(w http.ResponseWriter, _ *http.Request) error {
	return ok(w, map[string]bool{"live": true})
}

// readiness has an error beside it where it is not true, as all but 200 do.
type readiness struct {
	Name  string `json:"name,omitempty"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

func (s *httpServer) ready(w http.ResponseWriter, _ *http.Request) error {
	if !s.models.Ready() {
		answer(w, http.StatusServiceUnavailable, readiness{Error: "the server is not ready"})
		return nil
	}
	return ok(w, readiness{Ready: true})
}

func (s *httpServer) modelReady(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.model(r); err != nil {
		e := api.From(err)
		answer(w, httpStatus(e.Kind), readiness{Name: r.PathValue("model"), Error: e.Text})
		return nil
	}
	return ok(w, readiness{Name: r.PathValue("model"), Ready: true})
}

func (s *httpServer) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.model(r)
	if err != nil {
		return err
	}
	return ok(w, s.metadata(m))
}

func (s *httpServer) config(w http.ResponseWriter, r *http.Request) error {
	m, err := s.model(r)
	if err != nil {
		return err
	}
	return ok(w, config(m))
}

func (s *httpServer) stats(w http.ResponseWriter, r *http.Request) error {
	ms, err := s.found(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	all := make([]modelStats, len(ms))
	for i, m := range ms {
		all[i] = stats(m)
	}
	return ok(w, struct {
		ModelStats []modelStats `json:"model_stats"`
	}{all})
}

func (s *httpServer) repositoryIndex(w http.ResponseWriter, r *http.Request) error {
	var ready bool
	err := s.control(w, r, func(body []byte) (err error) {
		ready, err = codec.ParseIndexRequest(body)
		return err
	})
	if err != nil {
		return err
	}
	return ok(w, s.index(ready))
}

func (s *httpServer) load(w http.ResponseWriter, r *http.Request) error {
	if err := s.control(w, r, codec.ParseLoadRequest); err != nil {
		return err
	}
	if err := s.models.Load(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	return ok(w, struct{}{})
}

func (s *httpServer) unload(w http.ResponseWriter, r *http.Request) error {
	if err := s.control(w, r, codec.ParseUnloadRequest); err != nil {
		return err
	}
	if err := s.models.Unload(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	return ok(w, struct{}{})
}

// control reads the small body of a request to the repository; none is as good as {}.
func (s *httpServer) control(w http.ResponseWriter, r *http.Request, parse func([]byte) error) error {
	buf := takeBuffer()
	defer buf.giveBack()
	if err := s.read(w, r, buf); err != nil {
		return err
	}
	if len(buf.b) == 0 {
		return nil
	}
	return parse(buf.b)
}

func (s *httpServer) inferHTTP(w http.ResponseWriter, r *http.Request) error {
	m, err := s.model(r)
	if err != nil {
		return err
	}
	if err := m.Busy("http"); err != nil {
		return err
	}
	shape := s.shape(m)
	req, err := s.request(w, r, shape)
	if err != nil {
		return err
	}
	key := ""
	if s.o.Key != nil {
		key = s.o.Key(r)
	}
	id := r.Header.Get("X-Request-Id")
	if len(id) > 128 {
		id = ""
	}
	head, outs, err := s.infer(r.Context(), m, shape, req, "http", key, id)
	if err != nil {
		return err
	}
	buf := takeBuffer()
	defer buf.giveBack()
	b, text, binary, err := codec.AppendResponse(buf.b, head, outs)
	if err != nil {
		return err
	}
	buf.b = b
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if binary {
		h.Set("Content-Type", "application/octet-stream")
		h.Set(headerLength, strconv.Itoa(text))
	}
	h.Add("Vary", "Accept-Encoding")
	if len(b) >= leastCompressed {
		if c := compressors[accepted(r.Header.Get("Accept-Encoding"))]; c != nil {
			return c.answer(w, b)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // a caller that is gone is told nothing
	return nil
}

// request reads the body of an inference.
func (s *httpServer) request(w http.ResponseWriter, r *http.Request, m *codec.Model) (*codec.Request, error) {
	buf := takeBuffer()
	defer buf.giveBack()
	if err := s.read(w, r, buf); err != nil {
		return nil, err
	}
	said := r.Header.Values(headerLength)
	if len(said) == 0 {
		return codec.ParseRequest(buf.b, nil, m)
	}
	text, err := strconv.ParseUint(said[0], 10, 63)
	switch {
	case err != nil || len(said) > 1:
		return nil, api.Errorf(api.BadRequest, "%s is one length in bytes", headerLength)
	case text > uint64(len(buf.b)):
		return nil, api.Errorf(api.BadRequest, "%s is %d, and the body has %d bytes", headerLength, text, len(buf.b))
	case text == 0:
		return codec.ParseRaw(buf.b, m)
	}
	return codec.ParseRequest(buf.b[:text], buf.b[text:], m)
}

// read fills buf with the body, decompressed.
func (s *httpServer) read(w http.ResponseWriter, r *http.Request, buf *buffer) error {
	if r.ContentLength > s.o.MaxBody {
		return s.tooLarge()
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, s.o.MaxBody)
	var err error
	switch e := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); e {
	case "", "identity":
		buf.expect(r.ContentLength)
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	default:
		return api.Errorf(api.BadRequest, "bodies are compressed with gzip or deflate, or not at all")
	}
	if err == nil {
		err = buf.fill(body, s.o.MaxBody)
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &large), errors.Is(err, errLarge):
		return s.tooLarge()
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrChecksum), errors.Is(err, zlib.ErrDictionary):
		return &api.Error{Kind: api.BadRequest, Text: "the body is not compressed as its Content-Encoding says", Err: err}
	}
	return &api.Error{Kind: api.BadRequest, Text: "the body did not come whole, or not as it was announced", Err: err}
}

func (s *httpServer) tooLarge() error {
	return api.Errorf(api.TooLarge, "a body is of at most %d bytes", s.o.MaxBody)
}

// buffer holds a body or an answer.
type buffer struct{ b []byte }

const (
	keptBuffer  = 1 << 20 // larger ones are left to the collector
	firstBuffer = 4 << 10
)

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, firstBuffer)} }}

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) giveBack() {
	if cap(b.b) <= keptBuffer {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// expect makes room for a body of n bytes, as far as that costs little should the
// caller lie.
func (b *buffer) expect(n int64) {
	if n = min(n+1, keptBuffer); n > int64(cap(b.b)) {
		b.b = make([]byte, 0, n)
	}
}

var errLarge = errors.New("too large")

func (b *buffer) fill(r io.Reader, most int64) error {
	for {
		if len(b.b) == cap(b.b) {
			b.b = append(b.b, 0)[:len(b.b)]
		}
		n, err := r.Read(b.b[len(b.b):cap(b.b)])
		b.b = b.b[:len(b.b)+n]
		if int64(len(b.b)) > most {
			return errLarge
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// leastCompressed is the length below which compressing an answer does not pay.
const leastCompressed = 1 << 10

// compressor keeps writers, which are large.
type compressor struct {
	name string
	pool sync.Pool
}

type resetWriter interface {
	io.WriteCloser
	Reset(io.Writer)
}

var compressors = map[string]*compressor{
	"gzip": {"gzip", sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is right
		return resetWriter(w)
	}}},
	"deflate": {"deflate", sync.Pool{New: func() any {
		w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed) // the level is right
		return resetWriter(w)
	}}},
}

// answer sends b compressed, of a length that is not known before.
func (c *compressor) answer(w http.ResponseWriter, b []byte) error {
	w.Header().Set("Content-Encoding", c.name)
	z := c.pool.Get().(resetWriter)
	defer c.pool.Put(z)
	z.Reset(w)
	if _, err := z.Write(b); err != nil {
		return nil // a caller that is gone is told nothing
	}
	_ = z.Close() // the same
	return nil
}

// accepted is the encoding that Accept-Encoding asks for, of those that there are:
// gzip or deflate, by their weights; "": neither.
func accepted(header string) string {
	best, weight := "", 0.0
	for one := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(one, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64) // what is no number is no wish
		}
		if compressors[name] != nil && q > weight {
			best, weight = name, q
		}
	}
	return best
}
