package typed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// models is a server of one model, which is a function in Go.
type models struct {
	mu    sync.Mutex
	sig   *bundle.Signature
	infer func(context.Context, api.Call) (api.Answer, error)
	last  api.Call
	err   error // of Model
}

func (m *models) Index() []api.Entry                   { return nil }
func (m *models) Load(context.Context, string) error   { return nil }
func (m *models) Unload(context.Context, string) error { return nil }
func (m *models) Refused(string, api.Kind)             {}
func (m *models) Ready() bool                          { return true }
func (m *models) Model(name, version string) (api.Model, error) {
	if m.err != nil {
		return nil, m.err
	}
	return &model{m, m.sig}, nil
}

type model struct {
	*models
	sig *bundle.Signature
}

func (m *model) Name() string                 { return "churn" }
func (m *model) Version() string              { return "3" }
func (m *model) Inputs() []ort.Info           { return nil }
func (m *model) Outputs() []ort.Info          { return nil }
func (m *model) Signature() *bundle.Signature { return m.sig }
func (m *model) Limits() api.Limits           { return api.Limits{} }
func (m *model) Stats() api.Stats             { return api.Stats{} }
func (m *model) Busy(string) error            { return nil }

func (m *model) Infer(ctx context.Context, c api.Call) (api.Answer, error) {
	m.mu.Lock()
	m.last = c
	m.mu.Unlock()
	if m.infer != nil {
		return m.infer(ctx, c)
	}
	return answer(m.sig, c.Rows), nil
}

// answer makes outputs that differ by row.
func answer(sig *bundle.Signature, rows int) api.Answer {
	a := api.Answer{Model: "churn", Version: "3", Variant: "champion", Queue: 5 * time.Microsecond, Compute: 7 * time.Microsecond}
	for _, o := range sig.Outputs {
		if o.DType == "string" {
			d := make([]string, rows)
			for i := range d {
				d[i] = sig.Task.Classes[i%len(sig.Task.Classes)]
			}
			a.Outputs = append(a.Outputs, ort.Column(d))
			continue
		}
		d := make([]float32, rows*o.Width)
		for i := range d {
			d[i] = float32(i%10) / 10
		}
		a.Outputs = append(a.Outputs, ort.Tensor{Shape: []int64{int64(rows), int64(o.Width)}, Data: d})
	}
	return a
}

func ptr(v float64) *float64 { return &v }

// tasks are all that there are.
var tasks = []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Regression, kind.Quantile, kind.Count, kind.Anomaly}

// birds is a signature with every type.
func birds(task string) *bundle.Signature {
	sig := &bundle.Signature{Format: bundle.SignatureFormat, Model: "churn", Task: kind.Task{Kind: task}, NullString: types.NullString, Raw: []lower.Field{
		{Name: "bird.species", Column: "species", Type: types.String, In: []any{"robin", "wren", "owl"}},
		{Name: "bird.weight", Column: "weight", Type: types.Float, Min: ptr(0), Max: ptr(1000)},
		{Name: "bird.eggs", Column: "eggs", Type: types.Int, Nullable: true, Min: ptr(0)},
		{Name: "bird.ringed", Column: "ringed", Type: types.Bool, Nullable: true},
		{Name: "bird.note", Column: "note", Type: types.String, Nullable: true},
		{Name: "nest.seen", Type: types.Timestamp, Nullable: true},
		{Name: "nest.level", Type: types.Int, Nullable: true, In: []any{1.0, 2.0, 3.0}},
		{Name: "nest.note", Column: "note", Type: types.String, Nullable: true, Sensitive: true},
		{Name: "nest.height", Column: "height", Type: types.Float, Nullable: true},
		{Name: "nest.count", Column: "count", Type: types.Int, Nullable: true},
	}}
	switch task {
	case kind.Binary:
		sig.Task.Classes = []string{"false", "true"}
		sig.Outputs = []bundle.Tensor{{Name: "probability", DType: "float", Width: 1}}
	case kind.Multiclass:
		sig.Task.Classes = []string{"a", `b"`, "ç"}
		sig.Outputs = []bundle.Tensor{{Name: "probabilities", DType: "float", Width: 3}, {Name: "class", DType: "string", Width: 1}}
	case kind.Multilabel:
		sig.Task.Classes = []string{"a", `b"`, "ç"}
		sig.Outputs = []bundle.Tensor{{Name: "probabilities", DType: "float", Width: 3}}
	case kind.Quantile:
		sig.Task.Quantiles = []float64{0.05, 0.5}
		sig.Outputs = []bundle.Tensor{{Name: "quantiles", DType: "float", Width: 2}}
	case kind.Anomaly:
		sig.Outputs = []bundle.Tensor{{Name: "score", DType: "float", Width: 1}}
	default:
		sig.Outputs = []bundle.Tensor{{Name: "prediction", DType: "float", Width: 1}}
	}
	inputs(sig)
	return sig
}

// inputs makes the model's inputs of the raw features, in order of names.
func inputs(sig *bundle.Signature) {
	sig.Inputs = nil
	for _, r := range sig.Raw {
		dt := "double"
		if r.Type == types.String {
			dt = "string"
		}
		sig.Inputs = append(sig.Inputs, bundle.Tensor{Name: r.Name, DType: dt, Width: 1, Type: r.Type})
	}
	slices.SortFunc(sig.Inputs, func(a, b bundle.Tensor) int { return strings.Compare(a.Name, b.Name) })
}

func testService() *service.Service {
	return &service.Service{Format: service.Format, System: "Garden", Name: "birds", Threshold: 0.5, Limits: service.Limits{Body: 1 << 20, Rows: 100}}
}

// setup makes an API of a service that f may change.
func setup(sig *bundle.Signature, f func(*service.Service)) (*API, *models) {
	svc := testService()
	if f != nil {
		f(svc)
	}
	m := &models{sig: sig}
	return New(svc, m, "churn", Options{}), m
}

func post(a *API, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/predict", strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	return w
}

// A text that training has read as missing is missing here, too.
func TestTextsThatAreMissing(t *testing.T) {
	sig := birds(kind.Binary)
	sig.Raw[0].In, sig.Raw[0].Nulls, sig.Raw[4].Nulls = nil, []string{"", "n/a"}, []string{"", "n/a"}
	a, m := setup(sig, nil)
	if w := post(a, `{"rows":[{"bird.species":"owl","bird.weight":1,"bird.note":"n/a"},{"bird.species":"owl","bird.weight":1,"bird.note":"","nest.note":""}]}`); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	for k, name := range m.last.Names {
		want := map[string][]string{"bird.note": {types.NullString, types.NullString}, "nest.note": {types.NullString, ""}}[name]
		if got := m.last.Inputs[k].(ort.Tensor).Data; want != nil && !slices.Equal(got.([]string), want) {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	w := post(a, `{"features":{"bird.species":"n/a","bird.weight":1}}`)
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), `\"n/a\", which stands for a missing value, where a string is needed`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func get(a *API, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// reply is any answer of the API.
type reply struct {
	ID          string           `json:"id"`
	Model       string           `json:"model"`
	Version     string           `json:"version"`
	Variant     string           `json:"variant"`
	Fallback    *bool            `json:"fallback"`
	Predictions []map[string]any `json:"predictions"`
	Timing      map[string]int64 `json:"timing"`
	Error       string           `json:"error"`
	Offset      *int             `json:"offset"`
	Faults      []Fault          `json:"faults"`
	More        int              `json:"more"`
}

func decode(t testing.TB, w *httptest.ResponseRecorder) reply {
	t.Helper()
	var r reply
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("answer: %v", err)
	}
	if r.ID == "" || r.ID != w.Header().Get("X-Request-Id") {
		t.Errorf("id %q, header %q", r.ID, w.Header().Get("X-Request-Id"))
	}
	return r
}

// places is the faults as path and code, a line each.
func places(fs []Fault) string {
	var out []string
	for _, f := range fs {
		out = append(out, f.Path+" "+f.Code)
	}
	return strings.Join(out, "\n")
}

const good = `{"bird.species":"wren","bird.weight":9.5}`

func TestAnswersByTask(t *testing.T) {
	for task, want := range map[string]string{
		kind.Binary:     `{"probability":0,"decision":false},{"probability":0.1,"decision":false},{"probability":0.2,"decision":true}`,
		kind.Multiclass: `{"class":"a","probabilities":{"a":0,"b\"":0.1,"ç":0.2}},{"class":"b\"","probabilities":{"a":0.3,"b\"":0.4,"ç":0.5}},{"class":"ç","probabilities":{"a":0.6,"b\"":0.7,"ç":0.8}}`,
		kind.Multilabel: `{"labels":[],"probabilities":{"a":0,"b\"":0.1,"ç":0.2}},{"labels":["ç"],"probabilities":{"a":0.3,"b\"":0.4,"ç":0.5}},{"labels":["a","b\"","ç"],"probabilities":{"a":0.6,"b\"":0.7,"ç":0.8}}`,
		kind.Regression: `{"prediction":0},{"prediction":0.1},{"prediction":0.2}`,
		kind.Quantile:   `{"quantiles":{"0.05":0,"0.5":0.1}},{"quantiles":{"0.05":0.2,"0.5":0.3}},{"quantiles":{"0.05":0.4,"0.5":0.5}}`,
		kind.Count:      `{"prediction":0},{"prediction":0.1},{"prediction":0.2}`,
		kind.Anomaly:    `{"score":0,"decision":false},{"score":0.1,"decision":false},{"score":0.2,"decision":true}`,
	} {
		a, _ := setup(birds(task), func(s *service.Service) { s.Threshold = 0.2 })
		w := post(a, `{"id":"x1","rows":[`+good+`,`+good+`,`+good+`]}`)
		body := w.Body.String()
		prefix := `{"id":"x1","model":"churn","version":"3","variant":"champion","fallback":false,"predictions":[` + want + `],"timing":{"queue_us":5,"compute_us":7,"total_us":`
		if w.Code != 200 || !strings.HasPrefix(body, prefix) {
			t.Errorf("%s: %d %s", task, w.Code, body)
		}
		if got := w.Header().Get("X-Model-Version"); got != "3" {
			t.Errorf("X-Model-Version %q", got)
		}
		decode(t, w)
	}
}

// TestThresholds: the service's own goes first, then that of the version which answered,
// then that of the signature by which the rows were read, then 0.5.
func TestThresholds(t *testing.T) {
	for _, task := range []string{kind.Binary, kind.Anomaly} {
		for _, c := range []struct{ service, version, signature, want float64 }{
			{0.3, 0.8, 0.7, 0.3}, {0, 0.8, 0.7, 0.8}, {0, 0, 0.7, 0.7}, {0, 0, 0, 0.5},
		} {
			sig := birds(task)
			sig.Task.Threshold = c.signature
			a, m := setup(sig, func(s *service.Service) { s.Threshold = c.service })
			m.infer = func(context.Context, api.Call) (api.Answer, error) {
				ans := answer(sig, 10) // 0, 0.1 … 0.9
				ans.Threshold = c.version
				return ans, nil
			}
			for i, p := range decode(t, post(a, `{"rows":[`+strings.Repeat(good+",", 9)+good+`]}`)).Predictions {
				if want := i >= int(10*c.want); p["decision"] != want {
					t.Errorf("%s %+v: row %d is decided %v", task, c, i, p["decision"])
				}
			}
			var told struct{ Threshold float64 }
			if err := json.Unmarshal(get(a, "/v1/model").Body.Bytes(), &told); err != nil {
				t.Fatal(err)
			}
			if told.Threshold != c.want && c.version == 0 {
				t.Errorf("%s %+v: /v1/model tells %v", task, c, told.Threshold)
			}
			doc := string(a.cached.Load().openapi)
			if got := strings.Contains(doc, "the service's threshold"); got != (c.service > 0) {
				t.Errorf("%s %+v: openapi.json %v the service's threshold", task, c, got)
			}
		}
	}
}

// TestCallsNameTheirColumns, so that a version with others does not answer them.
func TestCallsNameTheirColumns(t *testing.T) {
	for task, want := range map[string]string{kind.Multilabel: `[a b" ç]`, kind.Quantile: "[0.05 0.5]", kind.Count: "[]"} {
		a, m := setup(birds(task), nil)
		decode(t, post(a, `{"features":`+good+`}`))
		if got := fmt.Sprint(m.last.Columns); got != want {
			t.Errorf("%s: %s", task, got)
		}
	}
}

func TestNumbersThatAreNotFiniteAreNull(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	m.infer = func(_ context.Context, c api.Call) (api.Answer, error) {
		return api.Answer{Outputs: []ort.Value{ort.Column([]float32{float32(math.NaN())})}, Fallback: true}, nil
	}
	w := post(a, `{"features":`+good+`}`)
	if !strings.Contains(w.Body.String(), `"fallback":true,"predictions":[{"probability":null,"decision":null}]`) {
		t.Error(w.Body)
	}
	a, m = setup(birds(kind.Multilabel), nil)
	m.infer = func(_ context.Context, c api.Call) (api.Answer, error) {
		return api.Answer{Outputs: []ort.Value{ort.Tensor{Shape: []int64{1, 3}, Data: []float32{float32(math.NaN()), 1, 0}}}}, nil
	}
	if w = post(a, `{"features":`+good+`}`); !strings.Contains(w.Body.String(), `[{"labels":["b\""],"probabilities":{"a":null,"b\"":1,"ç":0}}]`) {
		t.Error(w.Body)
	}
}

// TestOutputsOfAnotherShapeAreAnInternalError: callers learn that, and no more.
func TestOutputsOfAnotherShapeAreAnInternalError(t *testing.T) {
	for _, out := range [][]ort.Value{nil, {ort.Column([]float32{1, 2})}, {ort.Column([]string{"x"})}, {ort.Sequence{}}, {ort.Column([]float32{1}), ort.Column([]float32{1})}} {
		a, m := setup(birds(kind.Binary), nil)
		m.infer = func(context.Context, api.Call) (api.Answer, error) { return api.Answer{Outputs: out}, nil }
		if w := post(a, `{"features":`+good+`}`); w.Code != 500 || decode(t, w).Error == "" {
			t.Errorf("%v: %d", out, w.Code)
		}
	}
}

// columns is the call's inputs by feature.
func columns(a *API, c api.Call) map[string]any {
	out := map[string]any{}
	for i, v := range c.Inputs {
		t := v.(ort.Tensor)
		if !slices.Equal(t.Shape, []int64{int64(c.Rows), 1}) {
			panic("shape")
		}
		out[a.cached.Load().sig.Inputs[i].Name] = t.Data
	}
	return out
}

func TestTensorsOfEveryType(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	w := post(a, `{"rows":[
		{"nest.seen":"2024-01-31T12:00:00.000001+01:00","bird.species":"owl","weight":1e-2,"bird.eggs":3.0,"bird.ringed":true,"bird.note":"a\"\u00e9\n","nest.level":2,"nest.note":"","height":-0.5,"nest.count":-7},
		{"species":"wren","weight":0,"eggs":null,"ringed":false,"bird.note":null}]}`)
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	nan := math.NaN()
	want := map[string]any{
		"bird.species": []string{"owl", "wren"}, "bird.weight": []float64{0.01, 0}, "bird.eggs": []float64{3, nan}, "bird.ringed": []float64{1, 0},
		"bird.note": []string{"a\"é\n", "␀"}, "nest.seen": []float64{float64(time.Date(2024, 1, 31, 11, 0, 0, 1000, time.UTC).UnixMicro()), nan}, "nest.level": []float64{2, nan},
		"nest.note": []string{"", "␀"}, "nest.height": []float64{-0.5, nan}, "nest.count": []float64{-7, nan},
	}
	got := columns(a, m.last)
	if len(got) != len(want) {
		t.Errorf("%d inputs", len(got))
	}
	for name, w := range want {
		if !same(got[name], w) {
			t.Errorf("%s: %v, not %v", name, got[name], w)
		}
	}
	if m.last.Rows != 2 || m.last.Protocol != "typed" {
		t.Errorf("%+v", m.last)
	}
}

// same compares columns; NaN is NaN.
func same(a, b any) bool {
	x, ok := a.([]float64)
	if !ok {
		return slices.Equal(a.([]string), b.([]string))
	}
	return slices.EqualFunc(x, b.([]float64), func(p, q float64) bool { return p == q || p != p && q != q })
}

func TestEveryFaultIsToldAtOnce(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	w := post(a, `{"rows":[
		{"bird.species":"wern","bird.weight":-1},
		{"bird.species":null,"bird.weigth":2},
		{"bird.species":"owl","bird.weight":"2","bird.eggs":1.5,"bird.ringed":1,"bird.note":["x"],"nest.seen":"2024-02-30T00:00:00Z","nest.level":7,"note":"x","nest.height":1e999,"nest.note":"␀"},
		7,
		{"bird.species":"owl","species":"owl","bird.weight":1,"bird.weight":2,"nest.count":9223372036854775808,"nest.note":"\u0000"}
	],"ids":1,"id":"","key":2}`)
	r := decode(t, w)
	want := `$.rows[0]["bird.species"] unknown_value
$.rows[0]["bird.weight"] out_of_range
$.rows[1]["bird.species"] missing
$.rows[1]["bird.weigth"] unknown_field
$.rows[1]["bird.weight"] missing
$.rows[2]["bird.weight"] wrong_type
$.rows[2]["bird.eggs"] not_whole
$.rows[2]["bird.ringed"] wrong_type
$.rows[2]["bird.note"] wrong_type
$.rows[2]["nest.seen"] bad_timestamp
$.rows[2]["nest.level"] unknown_value
$.rows[2]["note"] unknown_field
$.rows[2]["nest.height"] not_finite
$.rows[2]["nest.note"] reserved_text
$.rows[3] wrong_type
$.rows[4]["species"] duplicate
$.rows[4]["bird.weight"] duplicate
$.rows[4]["nest.count"] not_whole
$.rows[4]["nest.note"] reserved_text
$["ids"] unknown_field
$.id bad_text
$.key wrong_type`
	if got := places(r.Faults); w.Code != 422 || got != want || r.More != 0 {
		t.Errorf("%d, more %d:\n%s", w.Code, r.More, got)
	}
	for i, mend := range map[int]string{0: `did you mean "wren"?`, 3: `did you mean "bird.weight"?`, 5: "write it without quotes", 11: `write "bird.note" or "nest.note"`, 19: `did you mean "id"?`} {
		if r.Faults[i].Mend != mend {
			t.Errorf("fault %d: mend %q, not %q", i, r.Faults[i].Mend, mend)
		}
	}
	if want := `$.rows[0]["bird.species"]: "wern" is not among the values that it takes; and 21 more`; r.Error != want {
		t.Error(r.Error)
	}
}

func TestFaultsOfTheRequest(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	for body, want := range map[string]string{
		`{}`:                                     "$.rows missing",
		`[]`:                                     "$ wrong_type",
		`"x"`:                                    "$ wrong_type",
		`{"rows":[]}`:                            "$.rows empty",
		`{"rows":{}}`:                            "$.rows wrong_type",
		`{"rows":null}`:                          "$.rows wrong_type",
		`{"features":[]}`:                        "$.features wrong_type",
		`{"rows":[` + good + `],"features":{}}`:  "$ conflict",
		`{"features":` + good + `,"rows":[{}]}`:  "$ conflict",
		`{"rows":[` + good + `],"rows":[]}`:      "$.rows duplicate",
		`{"features":{"bird.species":"owl"}}`:    `$.features["bird.weight"] missing`,
		`{"features":` + good + `,"id":"a b"}`:   "$.id bad_text",
		`{"features":` + good + `,"id":null}`:    "$.id wrong_type",
		`{"features":` + good + `,"ID":"x"}`:     `$["ID"] unknown_field`,
		`{"features":` + good + `,"":[[1],{}]}`:  `$[""] unknown_field`,
		`{"features":{"bird.species":{"a":[]}}}`: "$.features[\"bird.species\"] wrong_type\n$.features[\"bird.weight\"] missing",
	} {
		w := post(a, body)
		if got := places(decode(t, w).Faults); w.Code != 422 || got != want {
			t.Errorf("%s: %d %s", body, w.Code, got)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	a, _ := setup(birds(kind.Binary), func(s *service.Service) { s.Limits.Rows = 1 << 20 })
	long := strings.Repeat("x", 2000)
	w := post(a, `{"rows":[`+strings.Repeat(`{"`+long+`":1},`, 300)+good+`]}`)
	size := w.Body.Len()
	r := decode(t, w)
	if len(r.Faults) != MaxFaults || r.More != 900-MaxFaults || size > 64*300 {
		t.Errorf("%d faults, %d more, %d bytes", len(r.Faults), r.More, size)
	}
}

func TestReloadedModelHasItsOwnForm(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	if w := post(a, `{"features":`+good+`}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	before := get(a, "/openapi.json").Body.String()
	m.sig = birds(kind.Regression)
	m.sig.Raw = m.sig.Raw[:1]
	inputs(m.sig)
	if w := post(a, `{"features":{"bird.species":"owl"}}`); w.Code != 200 || !strings.Contains(w.Body.String(), `"prediction"`) {
		t.Fatal(w.Body)
	}
	if w := post(a, `{"features":`+good+`}`); w.Code != 422 {
		t.Fatal(w.Body)
	}
	if after := get(a, "/openapi.json").Body.String(); after == before || strings.Contains(after, "bird.weight") {
		t.Error("the description is the old one")
	}
}

func TestWhatCannotBeServedIs501(t *testing.T) {
	for name, change := range map[string]func(*bundle.Signature){
		"computed":           func(s *bundle.Signature) { s.Inputs[0].Name = "bird.bmi" },
		"in SQL only":        func(s *bundle.Signature) { s.Inputs = s.Inputs[1:] },
		"no columns":         func(s *bundle.Signature) { s.Task = kind.Task{Kind: kind.Quantile}; s.Outputs[0].Name = "quantiles" },
		"other outputs":      func(s *bundle.Signature) { s.Outputs[0].Name = "y" },
		"other tensors":      func(s *bundle.Signature) { s.Inputs[0].DType = "float" },
		"twice the name":     func(s *bundle.Signature) { s.Raw[1].Name = s.Raw[0].Name },
		"values of no type":  func(s *bundle.Signature) { s.Raw[0].In = []any{true} },
		"values of another":  func(s *bundle.Signature) { s.Raw[0].In = []any{1.0} },
		"numbers that texts": func(s *bundle.Signature) { s.Raw[1].In = []any{"x"} },
	} {
		sig := birds(kind.Binary)
		change(sig)
		a, _ := setup(sig, nil)
		for _, w := range []*httptest.ResponseRecorder{post(a, `{}`), get(a, "/openapi.json"), get(a, "/v1/model")} {
			if w.Code != 501 || decode(t, w).Error == "" {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		if _, err := OpenAPI(testService(), sig); err == nil {
			t.Errorf("%s: OpenAPI has no error", name)
		}
		if _, err := Proto(testService(), sig); err == nil {
			t.Errorf("%s: Proto has no error", name)
		}
	}
}

func TestModelWithoutSignatureHintsAtV2(t *testing.T) {
	a, _ := setup(nil, nil)
	w := post(a, `{}`)
	if r := decode(t, w); w.Code != 501 || !strings.Contains(r.Error, "/v2/models/churn/infer") {
		t.Errorf("%d %s", w.Code, r.Error)
	}
	if w := get(a, "/"); w.Code != 200 {
		t.Errorf("/ answers %d", w.Code)
	}
}

func TestErrorsAsStatuses(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	for want, err := range map[int]error{
		429: &api.Error{Kind: api.Overloaded, Text: "slower", RetryAfter: 1500 * time.Millisecond},
		503: &api.Error{Kind: api.Unavailable, Text: "full", RetryAfter: time.Millisecond},
		504: context.DeadlineExceeded,
		499: context.Canceled,
		500: io.ErrClosedPipe,
	} {
		m.infer = func(context.Context, api.Call) (api.Answer, error) { return api.Answer{}, err }
		w := post(a, `{"features":`+good+`}`, "X-Request-Id", "abc")
		if r := decode(t, w); w.Code != want || r.ID != "abc" || r.Error == "" || strings.Contains(r.Error, "pipe") {
			t.Errorf("%v: %d %+v", err, w.Code, r)
		}
		if after := w.Header().Get("Retry-After"); after != map[int]string{429: "2", 503: "1"}[want] {
			t.Errorf("%v: Retry-After %q", err, after)
		}
	}
	m.err = api.Errorf(api.NotFound, "no model")
	if w := post(a, `{}`); w.Code != 404 {
		t.Error(w.Code)
	}
}

func TestRequestIDs(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	for _, c := range []struct{ body, header, want string }{
		{`{"features":` + good + `}`, "from-header", "from-header"},
		{`{"features":` + good + `,"id":"from-body"}`, "from-header", "from-body"},
		{`{"features":` + good + `}`, "not\x01this", ""},
		{`{"features":` + good + `}`, strings.Repeat("x", 129), ""},
		{`{"features":` + good + `}`, "", ""},
		{`{"features":{},"id":"bad-rows"}`, "", "bad-rows"},
		{`{`, "malformed", "malformed"},
	} {
		w := post(a, c.body, "X-Request-Id", c.header)
		r := decode(t, w)
		if c.want == "" {
			if len(r.ID) != 32 {
				t.Errorf("%+v: id %q is not a made one", c, r.ID)
			}
			c.want = r.ID
		}
		if r.ID != c.want || w.Code == 200 && m.last.ID != c.want {
			t.Errorf("%+v: id %q, the model's %q", c, r.ID, m.last.ID)
		}
	}
}

func TestDeadlines(t *testing.T) {
	for _, c := range []struct {
		header   string
		deadline time.Duration
		want     time.Duration // 0: none
		status   int
	}{
		{"", 0, 0, 200}, {"", time.Hour, time.Hour, 200}, {"30m", time.Hour, 30 * time.Minute, 200}, {"2h", time.Hour, time.Hour, 200}, {"2h", 0, 2 * time.Hour, 200},
		{"1800000", time.Hour, 30 * time.Minute, 200}, {"0", time.Hour, 0, 400}, {"-5ms", time.Hour, 0, 400}, {"soon", time.Hour, 0, 400}, {"NaN", time.Hour, 0, 400}, {"1e300", time.Hour, 0, 400},
	} {
		a, m := setup(birds(kind.Binary), func(s *service.Service) { s.Deadline = service.Duration(c.deadline) })
		m.infer = func(ctx context.Context, call api.Call) (api.Answer, error) {
			at, ok := ctx.Deadline()
			if ok != (c.want > 0) || ok && (time.Until(at) > c.want || time.Until(at) < c.want-10*time.Minute) {
				t.Errorf("%+v: deadline in %v", c, time.Until(at))
			}
			return answer(m.sig, call.Rows), nil
		}
		if w := post(a, `{"features":`+good+`}`, "X-Request-Timeout", c.header); w.Code != c.status {
			t.Errorf("%+v: %d %s", c, w.Code, w.Body)
		}
	}
}

func TestKeysKeepCallersWithAVariant(t *testing.T) {
	for _, c := range []struct{ sticky, body, header, want string }{
		{"", `{"features":` + good + `}`, "h", ""},
		{"", `{"features":` + good + `,"key":"k"}`, "h", "k"},
		{"header:X-User", `{"features":` + good + `}`, "h", "h"},
		{"header:X-User", `{"features":` + good + `,"key":"k"}`, "h", "k"},
		{"bird.species", `{"features":` + good + `}`, "h", "wren"},
		{"bird.weight", `{"rows":[` + good + `,{"bird.species":"owl","bird.weight":1}]}`, "h", "9.5"},
		{"bird.eggs", `{"features":` + good + `}`, "h", ""},
		{"bird.note", `{"features":` + good + `}`, "h", ""},
		{"other.thing", `{"features":` + good + `}`, "h", ""},
	} {
		a, m := setup(birds(kind.Binary), func(s *service.Service) { s.Sticky = c.sticky })
		if w := post(a, c.body, "X-User", c.header); w.Code != 200 || m.last.Key != c.want {
			t.Errorf("%+v: %d, key %q", c, w.Code, m.last.Key)
		}
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 200, ""}, {"HEAD", "/", 200, ""}, {"POST", "/", 405, "GET, HEAD"}, {"GET", "/v1/predict", 405, "POST"}, {"DELETE", "/openapi.json", 405, "GET, HEAD"},
		{"GET", "/v1/model", 200, ""}, {"GET", "/etc/passwd", 404, ""}, {"GET", "/v1/predict/", 404, ""},
	} {
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || w.Header().Get("Allow") != c.allow || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %d %v", c.method, c.path, w.Code, w.Header())
		}
	}
}

func TestModelTellsWhatServes(t *testing.T) {
	a, _ := setup(birds(kind.Binary), nil)
	var got struct {
		Version, Name, Service, System string
		Threshold                      float64
		Inputs                         []lower.Field
		Outputs                        []bundle.Tensor
	}
	if err := json.Unmarshal(get(a, "/v1/model").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != "3" || got.Name != "churn" || got.Service != "birds" || got.Threshold != 0.5 || len(got.Inputs) != 10 || got.Inputs[1].Name != "bird.weight" || *got.Inputs[1].Max != 1000 || got.Outputs[0].Name != "probability" {
		t.Errorf("%+v", got)
	}
}

func column(v ...float32) ort.Value { return ort.Column(v) }

// slowly is a body that comes after a while.
type slowly struct {
	io.Reader
	after time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.after)
	s.after = 0
	return s.Reader.Read(p)
}

// The deadline is the answer's, and the body has a time of its own; what the caller
// asks for begins with the request.
func TestDeadlineBeginsWithTheBody(t *testing.T) {
	for timeout, want := range map[string]time.Duration{"": time.Second, "10s": time.Second, "2500ms": 500 * time.Millisecond, "1s": 1} {
		synctest.Test(t, func(t *testing.T) {
			svc := &service.Service{System: "nests", Name: "churn", Deadline: service.Duration(time.Second), Limits: service.Limits{Body: 1 << 20, Rows: 10, Read: service.Duration(5 * time.Second)}}
			left := time.Duration(0)
			ms := &models{sig: birds(kind.Regression)}
			ms.infer = func(ctx context.Context, c api.Call) (api.Answer, error) {
				by, _ := ctx.Deadline()
				left = time.Until(by)
				return answer(ms.sig, c.Rows), nil
			}
			a := New(svc, ms, "churn", Options{})
			r := httptest.NewRequest("POST", PredictPath, &slowly{strings.NewReader(`{"features":{"bird.species":"owl","bird.weight":1}}`), 2 * time.Second})
			r.Header.Set("X-Request-Timeout", timeout)
			w := httptest.NewRecorder()
			a.Handler().ServeHTTP(w, r)
			if w.Code != 200 || left != want {
				t.Errorf("timeout %q: %d, %v left, not %v: %s", timeout, w.Code, left, want, w.Body)
			}
		})
	}
}
