package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
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

// HTTP speaks the protocol over HTTP. It is safe for concurrent use.
type HTTP struct{ server }

// NewHTTP makes the HTTP side of models.
func NewHTTP(models api.Models, o Options) *HTTP { return &HTTP{server{models, o.filled()}} }

// Handler answers everything under /v2.
//
// Bodies may be compressed with gzip or deflate, which is zlib's format; an answer
// is where Accept-Encoding asks for it and it is of 1 KiB or more. A failure is
// {"error": text} with 400 for what a caller got wrong, 404 for an unknown model or
// path, 405, 413 for what is too large, 429 and 503 with Retry-After, 499 where the
// caller is gone, 500, 501 for what is not supported, and 504 after a deadline.
func (s *HTTP) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(method, path string, h func(api.Exchange, *http.Request) error) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			x := api.HTTP(w, r)
			if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
				w.Header().Set("Allow", method)
				failed(x, s.refused(api.Errorf(http.StatusMethodNotAllowed, "%s is wanted here", method)))
				return
			}
			if err := h(x, r); err != nil {
				failed(x, s.refused(err))
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
		route("POST", m+"/infer", func(x api.Exchange, r *http.Request) error {
			s.Infer(r.Context(), x, r.PathValue("model"), r.PathValue("version"))
			return nil
		})
	}
	route("POST", "/v2/repository/index", s.repositoryIndex)
	route("POST", "/v2/repository/models/{model}/load", s.load)
	route("POST", "/v2/repository/models/{model}/unload", s.unload)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		failed(api.HTTP(w, r), s.refused(api.Errorf(http.StatusNotFound, "there is nothing at this path")))
	})
	return mux
}

// httpStatus is the HTTP status of a kind of error by this protocol, which knows no 422.
func httpStatus(k api.Kind) int {
	if k == api.Invalid {
		return http.StatusBadRequest
	}
	return int(k)
}

func failed(x api.Exchange, err error) {
	e := api.From(err)
	if e.RetryAfter > 0 {
		x.AddHeader("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	fail(x, httpStatus(e.Kind), e.Text)
}

func fail(x api.Exchange, status int, text string) {
	answer(x, status, struct {
		Error string `json:"error"`
	}{text})
}

func answer(x api.Exchange, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // our own forms always marshal
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	_ = x.Answer(status, api.JSON, b) // a caller that is gone is told nothing
}

func ok(x api.Exchange, v any) error {
	answer(x, http.StatusOK, v)
	return nil
}

func (s *HTTP) model(r *http.Request) (api.Model, error) {
	return s.models.Model(r.PathValue("model"), r.PathValue("version"))
}

func (s *HTTP) serverMetadata(x api.Exchange, _ *http.Request) error {
	return ok(x, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{s.o.Name, s.o.Version, extensions})
}

func (s *HTTP) live(x api.Exchange, _ *http.Request) error {
	return ok(x, map[string]bool{"live": true})
}

// readiness has an error beside it where it is not true, as all but 200 do.
type readiness struct {
	Name  string `json:"name,omitempty"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

func (s *HTTP) ready(x api.Exchange, _ *http.Request) error {
	if !s.models.Ready() {
		answer(x, http.StatusServiceUnavailable, readiness{Error: "the server is not ready"})
		return nil
	}
	return ok(x, readiness{Ready: true})
}

func (s *HTTP) modelReady(x api.Exchange, r *http.Request) error {
	if _, err := s.model(r); err != nil {
		e := api.From(err)
		answer(x, httpStatus(e.Kind), readiness{Name: r.PathValue("model"), Error: e.Text})
		return nil
	}
	return ok(x, readiness{Name: r.PathValue("model"), Ready: true})
}

func (s *HTTP) modelMetadata(x api.Exchange, r *http.Request) error {
	m, err := s.model(r)
	if err != nil {
		return err
	}
	return ok(x, s.metadata(m))
}

func (s *HTTP) config(x api.Exchange, r *http.Request) error {
	m, err := s.model(r)
	if err != nil {
		return err
	}
	return ok(x, config(m))
}

func (s *HTTP) stats(x api.Exchange, r *http.Request) error {
	ms, err := s.found(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	all := make([]modelStats, len(ms))
	for i, m := range ms {
		all[i] = stats(m)
	}
	return ok(x, struct {
		ModelStats []modelStats `json:"model_stats"`
	}{all})
}

func (s *HTTP) repositoryIndex(x api.Exchange, r *http.Request) error {
	var ready bool
	err := s.control(x, func(body []byte) (err error) {
		ready, err = codec.ParseIndexRequest(body)
		return err
	})
	if err != nil {
		return err
	}
	return ok(x, s.index(ready))
}

func (s *HTTP) load(x api.Exchange, r *http.Request) error {
	if err := s.control(x, codec.ParseLoadRequest); err != nil {
		return err
	}
	if err := s.models.Load(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	return ok(x, struct{}{})
}

func (s *HTTP) unload(x api.Exchange, r *http.Request) error {
	if err := s.control(x, codec.ParseUnloadRequest); err != nil {
		return err
	}
	if err := s.models.Unload(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	return ok(x, struct{}{})
}

// control reads the small body of a request to the repository; none is as good as {}.
func (s *HTTP) control(x api.Exchange, parse func([]byte) error) error {
	buf := takeBuffer()
	defer buf.giveBack()
	if err := s.read(x, buf); err != nil {
		return err
	}
	if len(buf.b) == 0 {
		return nil
	}
	return parse(buf.b)
}

// InferPath takes the path of a POST for an inference apart; version is "" for the one
// that serves.
func InferPath(path string) (model, version string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v2/models/")
	if !ok {
		return "", "", false
	}
	if rest, ok = strings.CutSuffix(rest, "/infer"); !ok {
		return "", "", false
	}
	model, version, versioned := strings.Cut(rest, "/versions/")
	return model, version, model != "" && !strings.Contains(model, "/") && !strings.Contains(version, "/") && (version != "") == versioned
}

// Infer answers a POST for an inference by a model; version "" is the one that serves.
// ctx is x's, perhaps in its caller's trace.
func (s *HTTP) Infer(ctx context.Context, x api.Exchange, model, version string) {
	if err := s.inferred(ctx, x, model, version); err != nil {
		failed(x, err)
	}
}

func (s *HTTP) inferred(ctx context.Context, x api.Exchange, model, version string) error {
	m, err := s.models.Model(model, version)
	if err != nil {
		return s.refused(err)
	}
	if err := m.Busy("http"); err != nil {
		return err
	}
	shape := s.shape(m)
	req, err := s.request(x, shape)
	if err != nil {
		return s.refused(err)
	}
	key := ""
	if s.o.Key != "" {
		key = x.Header(s.o.Key)
	}
	id := x.Header("X-Request-Id")
	if len(id) > 128 {
		id = ""
	}
	head, outs, err := s.infer(ctx, m, shape, req, "http", key, id)
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
	form := api.JSON
	if binary {
		form = "application/octet-stream"
		x.AddHeader(headerLength, strconv.Itoa(text))
	}
	x.AddHeader("Vary", "Accept-Encoding")
	if len(b) >= leastCompressed {
		if c := compressors[accepted(strings.Join(x.Headers("Accept-Encoding"), ","))]; c != nil {
			small := takeBuffer()
			defer small.giveBack()
			b = c.compress(small, b)
			x.AddHeader("Content-Encoding", c.name)
		}
	}
	_ = x.Answer(http.StatusOK, form, b) // a caller that is gone is told nothing
	return nil
}

// refused tells of a request that failed before a model was asked, and is err.
func (s *HTTP) refused(err error) error {
	s.models.Refused("http", api.Kind(httpStatus(api.From(err).Kind)))
	return err
}

// request reads the body of an inference.
func (s *HTTP) request(x api.Exchange, m *codec.Model) (*codec.Request, error) {
	buf := takeBuffer()
	defer buf.giveBack()
	if err := s.read(x, buf); err != nil {
		return nil, err
	}
	said := x.Headers(headerLength)
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
func (s *HTTP) read(x api.Exchange, buf *buffer) error {
	var err error
	buf.b, err = x.Body(buf.b, s.o.MaxBody, 0)
	if err == nil {
		var from func(io.Reader) (io.Reader, error)
		switch strings.ToLower(strings.TrimSpace(x.Header("Content-Encoding"))) {
		case "", "identity":
			return nil
		case "gzip":
			from = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
		case "deflate":
			from = func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
		default:
			return api.Errorf(api.BadRequest, "bodies are compressed with gzip or deflate, or not at all")
		}
		small := takeBuffer()
		defer small.giveBack()
		small.b, buf.b = buf.b, small.b
		var body io.Reader
		if body, err = from(bytes.NewReader(small.b)); err == nil {
			err = buf.fill(body, s.o.MaxBody)
		}
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

func (s *HTTP) tooLarge() error {
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

// compress is b compressed, in to.
func (c *compressor) compress(to *buffer, b []byte) []byte {
	z := c.pool.Get().(resetWriter)
	defer c.pool.Put(z)
	w := bytes.NewBuffer(to.b)
	z.Reset(w)
	_, _ = z.Write(b) // memory takes all
	_ = z.Close()     // the same
	to.b = w.Bytes()
	return to.b
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
