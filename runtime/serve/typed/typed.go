// Package typed is the typed API of a service: rows of named features in,
// predictions of the model's task out, as the bundle's signature has them, over
// HTTP and gRPC.
//
// # HTTP
//
// POST /v1/predict takes I-JSON (RFC 7493) of at most Limits.Body bytes:
//
//	{"rows": [{"group.feature": value, …}, …], "id": "…", "key": "…"}
//	{"features": {"group.feature": value, …}, "id": "…", "key": "…"}
//
// A feature may also go by its column's name where no other feature has that. An int
// is a whole number of 64 bits, of which the model sees the nearest double; a
// timestamp is an RFC 3339 text, of which it sees microseconds. A feature that is
// nullable may be null or left out. The id, else the header X-Request-Id, else one
// that is made, comes back in the answer and its header. The key keeps a caller with
// one variant; without it, what the service's sticky names does: a header, or a
// feature of the first row.
//
// X-Request-Timeout is a Go duration or a number of milliseconds; the service's
// deadline is the most.
//
// The answer is
//
//	{"id": "…", "model": "churn", "version": "3", "variant": "champion", "fallback": false,
//	 "predictions": [{"probability": 0.93, "decision": true}, …],
//	 "timing": {"queue_us": 0, "compute_us": 0, "total_us": 0}}
//
// where a row's prediction is, by the model's task,
//
//	binary      {"probability": 0.93, "decision": true}
//	multiclass  {"class": "a", "probabilities": {"a": 0.7, "b": 0.3}}
//	multilabel  {"labels": ["a"], "probabilities": {"a": 0.7, "b": 0.2}}
//	regression  {"prediction": 12.5}, and so is a count
//	quantile    {"quantiles": {"0.1": 3, "0.9": 20}}
//	anomaly     {"score": 0.71, "decision": true}
//
// A decision is whether the number reaches the service's threshold, or, where that has
// none, that of the version which answered; a label's is 0.5.
//
// Otherwise the answer is {"error": "…", "id": "…"}; with "offset", counted in bytes, where the body is no
// JSON (400), and with "faults" where its values are not what the model takes (422).
//
// GET /openapi.json, /v1/model and / describe it; / is a page to try it on.
//
// # gRPC
//
// Proto tells the service and its messages.
package typed

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/jsonscan"
)

// PredictPath is where rows are posted to.
const PredictPath = "/v1/predict"

// The limits of a request where the service sets none.
const (
	DefaultBody = 8 << 20 // bytes
	DefaultRows = 10_000
)

// Options of an API.
type Options struct {
	// Log gets the causes of internal errors, which callers are not told; nil: none.
	Log *slog.Logger
}

// API is the typed API of one service. It is safe for concurrent use.
type API struct {
	svc    *service.Service
	models api.Models
	model  string
	o      Options
	cached atomic.Pointer[form]
	pool   sync.Pool // of *call
	page   page
	// stickyHeader and stickyFeature keep a caller with one variant.
	stickyHeader, stickyFeature string
}

// New makes the typed API of svc, which is answered by the model of that name.
func New(svc *service.Service, models api.Models, model string, o Options) *API {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{svc: svc, models: models, model: model, o: o, page: newPage()}
	a.pool.New = func() any { return new(call) }
	if h, ok := strings.CutPrefix(svc.Sticky, "header:"); ok {
		a.stickyHeader = h
	} else {
		a.stickyFeature = svc.Sticky
	}
	return a
}

// call is what a request needs, used again for the next.
type call struct {
	batch
	body, out []byte
}

// release gives c back, unless a large request made it large.
func (a *API) release(c *call) {
	const most = 1 << 20
	if cap(c.body) <= most && cap(c.out) <= most && c.kept() {
		a.pool.Put(c)
	}
}

func (a *API) maxBody() int64 {
	if a.svc.Limits.Body > 0 {
		return a.svc.Limits.Body
	}
	return DefaultBody
}

func maxRows(svc *service.Service) int {
	if svc.Limits.Rows > 0 {
		return svc.Limits.Rows
	}
	return DefaultRows
}

// serving is the model that serves and the form of its rows.
func (a *API) serving() (api.Model, *form, *api.Error) {
	m, err := a.models.Model(a.model, "")
	if err != nil {
		return nil, nil, api.From(err)
	}
	sig := m.Signature()
	if sig == nil {
		return nil, nil, api.Errorf(api.Unsupported, "model %q has no signature, so there is no typed API; ask /v2/models/%s/infer", a.model, a.model)
	}
	f := a.cached.Load()
	if f == nil || f.sig != sig {
		f = newForm(a.svc, sig)
		a.cached.Store(f)
	}
	if f.err != nil {
		return nil, nil, f.err
	}
	return m, f, nil
}

// Handler serves the API over HTTP.
func (a *API) Handler() http.Handler { return http.HandlerFunc(a.serve) }

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	x := api.HTTP(w, r)
	refuse := func(status int, text string) {
		a.models.Refused("typed", api.Kind(status))
		a.fail(x, idOf(x), status, text)
	}
	get := func(f func(api.Exchange)) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			x.AddHeader("Allow", "GET, HEAD")
			refuse(http.StatusMethodNotAllowed, "this is read with GET")
			return
		}
		f(x)
	}
	switch r.URL.Path {
	case PredictPath:
		if r.Method != http.MethodPost {
			x.AddHeader("Allow", "POST")
			refuse(http.StatusMethodNotAllowed, "rows are sent with POST")
			return
		}
		a.Predict(r.Context(), x)
	case "/v1/model":
		get(a.describe)
	case "/openapi.json":
		get(a.openapi)
	case "/":
		get(func(api.Exchange) { a.page.serve(w) })
	default:
		refuse(http.StatusNotFound, "there is nothing here; see /openapi.json")
	}
}

func (a *API) openapi(x api.Exchange) {
	_, f, err := a.serving()
	if err != nil {
		a.failed(x, idOf(x), err)
		return
	}
	a.write(x, http.StatusOK, f.openapi)
}

func (a *API) describe(x api.Exchange) {
	m, f, err := a.serving()
	if err != nil {
		a.failed(x, idOf(x), err)
		return
	}
	b := appendText([]byte(`{"version":`), m.Version())
	b = append(append(b, ','), f.model[1:]...)
	a.write(x, http.StatusOK, b)
}

// Predict answers a POST to PredictPath. ctx is x's, perhaps in its caller's trace.
func (a *API) Predict(ctx context.Context, x api.Exchange) {
	start := time.Now()
	c := a.pool.Get().(*call)
	defer a.release(c)
	id := idOf(x)
	refuse := func(err *api.Error) {
		a.models.Refused("typed", err.Kind)
		a.failed(x, id, err)
	}
	most, err := Patience(x)
	if err != nil {
		refuse(err)
		return
	}
	m, f, err := a.serving()
	if err != nil {
		refuse(err)
		return
	}
	if err := m.Busy("typed"); err != nil {
		a.failed(x, id, api.From(err))
		return
	}
	if e := x.Header("Content-Encoding"); e != "" && e != "identity" {
		refuse(api.Errorf(http.StatusUnsupportedMediaType, "the body is compressed; send it as it is"))
		return
	}
	if err := a.read(x, c); err != nil {
		refuse(err)
		return
	}
	c.reset(f, pathRows, maxRows(a.svc))
	wrong, err := c.readJSON(c.body)
	if c.id != "" {
		id = c.id
	}
	switch {
	case err != nil:
		refuse(err)
		return
	case wrong != nil:
		a.models.Refused("typed", api.BadRequest)
		a.malformed(x, id, wrong)
		return
	case c.any():
		a.models.Refused("typed", api.Invalid)
		b := c.appendJSON([]byte{'{'})
		b = appendText(append(b, `,"id":`...), id)
		x.AddHeader("X-Request-Id", id)
		a.write(x, http.StatusUnprocessableEntity, append(b, "}\n"...))
		return
	}
	if limit := a.within(ctx, start, most); limit != nil {
		defer limit.End()
		ctx = limit
	}
	ans, res, err := a.infer(ctx, m, c, id, "typed", x.Header)
	if err != nil {
		a.failed(x, id, err)
		return
	}
	c.out = f.appendAnswer(c.out[:0], id, &ans, res, time.Since(start))
	x.AddHeader("X-Request-Id", id)
	x.AddHeader("X-Model-Version", ans.Version)
	a.write(x, http.StatusOK, c.out)
}

// infer asks the model for the rows of c. header finds what came along, by name.
func (a *API) infer(ctx context.Context, m api.Model, c *call, id, protocol string, header func(string) string) (api.Answer, results, *api.Error) {
	key := c.key
	switch {
	case key != "":
	case a.stickyHeader != "":
		key = header(a.stickyHeader)
	case a.stickyFeature != "":
		key = c.value(a.stickyFeature)
	}
	ans, err := m.Infer(ctx, api.Call{ID: id, Key: key, Names: c.form.tensorNames, Columns: c.form.columns, Inputs: c.tensors(), Rows: c.rows, Protocol: protocol})
	if err != nil {
		return ans, results{}, api.From(err)
	}
	threshold := a.svc.Threshold
	if threshold == 0 {
		threshold = ans.Threshold
	}
	if threshold == 0 {
		threshold = c.form.sig.Task.Cut()
	}
	res, bad := c.results(&ans, c.rows, threshold)
	return ans, res, bad
}

// Patience is how long the caller waits for the answer, by the header X-Request-Timeout:
// a Go duration, or milliseconds; 0: it does not say.
func Patience(x api.Exchange) (time.Duration, *api.Error) {
	text := x.Header("X-Request-Timeout")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if ms, e := strconv.ParseFloat(text, 64); e == nil && ms < 1e12 {
		d, err = time.Duration(ms*float64(time.Millisecond)), nil
	}
	if err != nil || d <= 0 {
		return 0, api.Errorf(api.BadRequest, "X-Request-Timeout is a duration like 250ms, or milliseconds")
	}
	return d, nil
}

// within bounds ctx by the service's deadline, from now, and by the caller's patience,
// since start; nil: neither is there.
func (a *API) within(ctx context.Context, start time.Time, patience time.Duration) *api.Limit {
	d := a.svc.Deadline.Std()
	if patience > 0 {
		if left := max(patience-time.Since(start), 1); d <= 0 || left < d {
			d = left
		}
	}
	if d <= 0 {
		return nil
	}
	return api.Within(ctx, d)
}

// read takes the body into c, within the limits of size and time.
func (a *API) read(x api.Exchange, c *call) *api.Error {
	var err error
	c.body, err = x.Body(c.body[:0], a.maxBody(), a.svc.Limits.Read.Std())
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return api.Errorf(api.TooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return api.Errorf(http.StatusRequestTimeout, "the body did not come in time")
	}
	return api.Errorf(api.BadRequest, "the body ended before it was whole")
}

// malformed answers a body that is no JSON.
func (a *API) malformed(x api.Exchange, id string, e *jsonscan.Error) {
	b := appendText([]byte(`{"error":`), "malformed JSON "+e.Error())
	b = strconv.AppendInt(append(b, `,"offset":`...), int64(e.Offset), 10)
	b = appendText(append(b, `,"id":`...), id)
	x.AddHeader("X-Request-Id", id)
	a.write(x, http.StatusBadRequest, append(b, "}\n"...))
}

// failed answers with an error; what caused an internal one is logged.
func (a *API) failed(x api.Exchange, id string, err *api.Error) {
	if err.Kind == api.Internal {
		a.o.Log.Error("no answer", "id", id, "model", a.model, "error", err.Text, "cause", err.Err)
	}
	a.left(tell(x, id, err))
}

func (a *API) fail(x api.Exchange, id string, status int, text string) {
	a.left(tell(x, id, api.Errorf(api.Kind(status), "%s", text)))
}

// Refuse answers with an error as the API does, whatever was asked.
func Refuse(x api.Exchange, err *api.Error) {
	_ = tell(x, idOf(x), err) // the caller may be gone
}

func tell(x api.Exchange, id string, err *api.Error) error {
	if err.RetryAfter > 0 {
		x.AddHeader("Retry-After", strconv.FormatInt(int64((err.RetryAfter+time.Second-1)/time.Second), 10))
	}
	b := appendText([]byte(`{"error":`), err.Text)
	b = appendText(append(b, `,"id":`...), id)
	x.AddHeader("X-Request-Id", id)
	return x.Answer(int(err.Kind), api.JSON, append(b, "}\n"...))
}

func (a *API) write(x api.Exchange, status int, b []byte) {
	a.left(x.Answer(status, api.JSON, b))
}

// left tells of a caller who was not there any more.
func (a *API) left(err error) {
	if err != nil {
		a.o.Log.Debug("the caller left before the answer", "cause", err)
	}
}

// idOf is what the request's header calls it, or a name made for it.
func idOf(x api.Exchange) string {
	if id := x.Header("X-Request-Id"); isID(id) {
		return id
	}
	return newID()
}

// newID makes a name for a request: 32 hexadecimal digits. It is no secret.
func newID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}
