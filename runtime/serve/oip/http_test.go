package oip_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
	"mlc.dev/mlc/runtime/serve/oip"
	"mlc.dev/mlc/runtime/serve/oip/oiptest"
)

func serve(t *testing.T, o oip.Options) (*httptest.Server, *fakeModels) {
	t.Helper()
	ms := repository(t)
	s := httptest.NewServer(oip.NewHTTP(ms, o).Handler())
	t.Cleanup(s.Close)
	return s, ms
}

// send sends a body with headers by pairs and returns the status, the answer and its headers.
func send(t *testing.T, method, url string, body io.Reader, headers ...string) (int, []byte, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b, resp.Header
}

func get(t *testing.T, url string) (int, map[string]any) {
	t.Helper()
	code, b, h := send(t, "GET", url, nil)
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s: %s", code, h.Get("Content-Type"), b)
	}
	if _, ok := v["error"]; ok != (code != 200) {
		t.Fatalf("%d and %v", code, v)
	}
	return code, v
}

func TestMetadata(t *testing.T) {
	s, ms := serve(t, oip.Options{Name: "test", Version: "7"})
	for path, want := range map[string]string{
		"":                               `{"name":"test","version":"7","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`,
		"/":                              `{"name":"test","version":"7","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`,
		"/health/live":                   `{"live":true}`,
		"/health/ready":                  `{"ready":true}`,
		"/models/root/ready":             `{"name":"root","ready":true}`,
		"/models/root/versions/2/ready":  `{"name":"root","ready":true}`,
		"/models/root/versions/2":        `{"name":"root","versions":["1","2"],"platform":"onnx_onnxv1","inputs":[{"name":"x","datatype":"FP64","shape":[-1,2]}],"outputs":[{"name":"y","datatype":"FP64","shape":[-1,2]}]}`,
		"/models/echo":                   `{"name":"echo","versions":["1"],"platform":"onnx_onnxv1","inputs":[` + echoTensors + `],"outputs":[` + echoTensors + `]}`,
		"/models/root/versions/1/config": `{"name":"root","platform":"onnxruntime_onnx","backend":"onnxruntime","max_batch_size":0,"input":[{"name":"x","data_type":"TYPE_FP64","dims":[-1,2]}],"output":[{"name":"y","data_type":"TYPE_FP64","dims":[-1,2]}],"default_model_filename":"model.onnx","model_transaction_policy":{"decoupled":false}}`,
		"/models/root/stats":             `{"model_stats":[` + noStats + `]}`,
		"/models/root/versions/1/stats":  `{"model_stats":[` + noStats + `]}`,
	} {
		code, b, _ := send(t, "GET", s.URL+"/v2"+path, nil)
		if code != 200 || string(b) != want {
			t.Errorf("%s: %d %s\nwant %s", path, code, b, want)
		}
	}
	_, v := get(t, s.URL+"/v2/models/everything/config")
	if v["max_batch_size"] != 8.0 || fmt.Sprint(v["dynamic_batching"]) != "map[max_queue_delay_microseconds:1000 preferred_batch_size:[8]]" ||
		fmt.Sprint(v["input"].([]any)[0].(map[string]any)["dims"]) != "[3]" || v["input"].([]any)[4].(map[string]any)["data_type"] != "TYPE_STRING" {
		t.Error(v)
	}
	if _, v := get(t, s.URL+"/v2/models/stats"); len(v["model_stats"].([]any)) != len(ms.models) {
		t.Error(v)
	}
	ms.down = true
	if code, v := get(t, s.URL+"/v2/health/ready"); code != 503 || v["ready"] != false {
		t.Error(code, v)
	}
}

const (
	noStats     = `{"name":"root","version":"1","last_inference":0,"inference_count":0,"execution_count":0,"inference_stats":{"success":{"count":0,"ns":0},"fail":{"count":0,"ns":0},"queue":{"count":0,"ns":0},"compute_input":{"count":0,"ns":0},"compute_infer":{"count":0,"ns":0},"compute_output":{"count":0,"ns":0},"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"batch_stats":[]}`
	echoTensors = `{"name":"h","datatype":"FP16","shape":[-1]},{"name":"g","datatype":"BF16","shape":[-1]},{"name":"s","datatype":"SEQUENCE","shape":[-1]},{"name":"m","datatype":"MAP","shape":[-1]},{"name":"o","datatype":"OPTIONAL","shape":[-1]},{"name":"u","datatype":"UINT8","shape":[]}`
)

func TestRepository(t *testing.T) {
	s, _ := serve(t, oip.Options{})
	post := func(path, body string) (int, string) {
		code, b, _ := send(t, "POST", s.URL+"/v2/repository/"+path, strings.NewReader(body))
		return code, string(b)
	}
	if code, b := post("models/root/unload", `{"parameters":{"unload_dependents":false}}`); code != 200 {
		t.Fatal(code, b)
	}
	if code, v := get(t, s.URL+"/v2/models/root/ready"); code != 503 || v["ready"] != false {
		t.Fatal(code, v)
	}
	if code, _ := get(t, s.URL+"/v2/models/root"); code != 503 {
		t.Fatal(code)
	}
	if _, b := post("index", ""); !strings.Contains(b, `{"name":"root","version":"2","state":"UNAVAILABLE","reason":"unloaded"}`) || !strings.Contains(b, `{"name":"echo","version":"1","state":"READY","reason":""}`) {
		t.Fatal(b)
	}
	if _, b := post("index", `{"ready":true}`); strings.Contains(b, `root`) {
		t.Fatal(b)
	}
	if code, b := post("models/root/load", `{}`); code != 200 {
		t.Fatal(code, b)
	}
	if code, _ := get(t, s.URL+"/v2/models/root"); code != 200 {
		t.Fatal(code)
	}
	for body, want := range map[string]int{`{"parameters":{"config":"{}"}}`: 501, `{`: 400, `{"parameters":{}}`: 200} {
		if code, b := post("models/root/load", body); code != want {
			t.Errorf("%s: %d %s", body, code, b)
		}
	}
	for _, path := range []string{"models/nothing/load", "models/nothing/unload"} {
		if code, b := post(path, ""); code != 404 {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	if code, b := post("index", `{"ready":1}`); code != 400 {
		t.Error(code, b)
	}
}

// inputs are two rows for the model everything, and what it gives for them.
func inputs() (in, out []ort.Value) {
	return []ort.Value{
			ort.Tensor{Shape: []int64{2, 3}, Data: []float32{1, 2.5, -3, 1e-7, 0, 3e20}}, ort.Column([]float64{0.1, -7}), ort.Column([]int64{-3, 1 << 31}),
			ort.Column([]bool{true, false}), ort.Column([]string{"a\"é\n", ""}),
		}, []ort.Value{
			ort.Tensor{Shape: []int64{2, 3}, Data: []float32{2, 5, -6, 2e-7, 0, 6e20}}, ort.Column([]float64{1.1, -6}), ort.Column([]int64{9, 1 << 62}),
			ort.Column([]bool{false, true}), ort.Column([]string{"a\"é\na\"é\n", ""}),
		}
}

// odd are values of the model echo.
func odd() []ort.Value {
	ints := func(xs ...int64) ort.Tensor {
		return ort.Tensor{Shape: []int64{int64(len(xs))}, Data: append([]int64{}, xs...)}
	}
	return []ort.Value{
		ort.Tensor{Shape: []int64{2}, Data: []ort.Float16{0x3c00, 0x7e00}}, ort.Tensor{Shape: []int64{1}, Data: []ort.BFloat16{0x3f80}},
		ort.Sequence{ints(1), ints(), ints(2, 3)}, ort.Map{Keys: ort.Tensor{Shape: []int64{2}, Data: []string{"a", "b"}}, Values: ort.Tensor{Shape: []int64{2}, Data: []float32{1, 2}}},
		nil, ort.Tensor{Shape: []int64{}, Data: []uint8{200}},
	}
}

func about(m *fakeModel) oiptest.Model {
	return oiptest.Model{Name: m.name, Version: m.version, Inputs: m.inputs, Outputs: m.outputs}
}

// Every client gives what the runtime gives, for every kind of value.
func everyClient(t *testing.T, ms *fakeModels, clients map[string]oiptest.Client) {
	in, out := inputs()
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			got, err := c(t.Context(), about(ms.get("everything")), in)
			if err != nil || !reflect.DeepEqual(got, out) {
				t.Fatalf("%v\n%v\nwant\n%v", err, got, out)
			}
			if c := ms.get("everything").last; c.Rows != 2 || c.ID != "oiptest" {
				t.Fatalf("%+v", c)
			}
			vs := odd()
			for _, held := range []ort.Value{nil, vs[2], vs[3], vs[5], ort.Sequence{vs[3], vs[3]}, ort.Sequence{}} {
				vs[4] = held
				if strings.HasSuffix(name, "contents") {
					vs[4] = held
					m := about(ms.get("echo"))
					m.Inputs = m.Inputs[2:]
					if _, err := c(t.Context(), m, vs[2:]); err == nil || !strings.Contains(err.Error(), `"h" is missing`) {
						t.Fatal(err)
					}
					continue
				}
				got, err := c(t.Context(), about(ms.get("echo")), vs)
				if err != nil || !reflect.DeepEqual(got, vs) {
					t.Fatalf("%v\n%v\nwant\n%v", err, got, vs)
				}
			}
			nan := []ort.Value{ort.Tensor{Shape: []int64{1, 2}, Data: []float64{-1, math.Inf(1)}}}
			got, err = c(t.Context(), about(ms.get("root")), nan)
			if err != nil {
				t.Fatal(err)
			}
			if d := got[0].(ort.Tensor).Data.([]float64); !math.IsNaN(d[0]) || !math.IsInf(d[1], 1) {
				t.Fatal(d)
			}
		})
	}
}

func TestHTTPClients(t *testing.T) {
	s, ms := serve(t, oip.Options{})
	everyClient(t, ms, map[string]oiptest.Client{"json": oiptest.JSON(s.URL), "binary": oiptest.Binary(s.URL)})
}

func le(xs ...float64) []byte {
	var b []byte
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

const four = `{"inputs":[{"name":"x","datatype":"FP64","shape":[1,2],"data":[4,9]}]}`

func TestInferOverHTTP(t *testing.T) {
	s, ms := serve(t, oip.Options{Key: "X-User"})
	at := s.URL + "/v2/models/root/infer"
	answer := `{"model_name":"root","model_version":"1","outputs":[{"name":"y","datatype":"FP64","shape":[1,2],"data":[2,3]}]}`
	if code, b, h := send(t, "POST", at, strings.NewReader(four), "X-User", "u", "X-Request-Id", "r-1"); code != 200 || string(b) != answer || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", code, h, b)
	}
	if c := ms.get("root").last; c.Key != "u" || c.ID != "r-1" || c.Protocol != "http" || c.Rows != 0 {
		t.Fatalf("%+v", c)
	}
	send(t, "POST", at, strings.NewReader(four))
	if c := ms.get("root").last; len(c.ID) != 16 {
		t.Fatalf("%+v", c)
	}
	if _, b, _ := send(t, "POST", s.URL+"/v2/models/root/versions/2/infer", strings.NewReader(four)); !bytes.Contains(b, []byte(`"model_version":"2"`)) {
		t.Fatalf("%s", b)
	}
	// Mixed: the request binary, the answer JSON; and the other way round.
	head := `{"id":"a","inputs":[{"name":"x","datatype":"FP64","shape":[1,2],"parameters":{"binary_data_size":16}}]}`
	code, b, h := send(t, "POST", at, io.MultiReader(strings.NewReader(head), bytes.NewReader(le(4, 9))), "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	if code != 200 || string(b) != strings.Replace(answer, `"outputs"`, `"id":"a","outputs"`, 1) {
		t.Fatalf("%d %v %s", code, h, b)
	}
	text := strings.TrimSuffix(four, "}") + `,"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`
	code, b, h = send(t, "POST", at, strings.NewReader(text))
	n, err := strconv.Atoi(h.Get("Inference-Header-Content-Length"))
	if code != 200 || err != nil || h.Get("Content-Type") != "application/octet-stream" || !bytes.Equal(b[n:], le(2, 3)) || !json.Valid(b[:n]) {
		t.Fatalf("%d %v %s", code, h, b)
	}
	// Raw: the body is the input.
	code, b, h = send(t, "POST", at, bytes.NewReader(le(16, 25)), "Inference-Header-Content-Length", "0")
	n, err = strconv.Atoi(h.Get("Inference-Header-Content-Length"))
	if code != 200 || err != nil || !bytes.Equal(b[n:], le(4, 5)) {
		t.Fatalf("%d %v %s", code, h, b)
	}
	code, b, h = send(t, "POST", s.URL+"/v2/models/shout/infer", strings.NewReader("hey"), "Inference-Header-Content-Length", "0")
	n, err = strconv.Atoi(h.Get("Inference-Header-Content-Length"))
	if code != 200 || err != nil || string(b[n:]) != "\x04\x00\x00\x00hey!" {
		t.Fatalf("%d %v %q", code, h, b)
	}
	// What answered is told.
	code, b, _ = send(t, "POST", s.URL+"/v2/models/echo/infer", strings.NewReader(`{"outputs":[{"name":"u"}],"inputs":[{"name":"h","datatype":"FP16","shape":[0],"parameters":{"binary_data_size":0}},{"name":"g","datatype":"BF16","shape":[0],"parameters":{"binary_data_size":0}},{"name":"s","datatype":"FP32","shape":[0],"data":[],"parameters":{"sequence_length":0}},{"name":"m.keys","datatype":"INT64","shape":[0],"data":[]},{"name":"m.values","datatype":"FP32","shape":[0],"data":[]},{"name":"u","datatype":"UINT8","shape":[],"data":[7]}]}`))
	if want := `{"model_name":"other","model_version":"9","parameters":{"variant":"blue","fallback":true},"outputs":[{"name":"u","datatype":"UINT8","shape":[],"data":[7]}]}`; code != 200 || string(b) != want {
		t.Fatalf("%d %s", code, b)
	}
	code, b, _ = send(t, "POST", at, strings.NewReader(strings.Replace(four, "[4,9]", "[-4,9]", 1)))
	if code != 200 || !bytes.Contains(b, []byte("[NaN,3]")) {
		t.Fatalf("%d %s", code, b)
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zlibbed(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func TestCompression(t *testing.T) {
	s, _ := serve(t, oip.Options{MaxBody: 1 << 20})
	at := s.URL + "/v2/models/root/infer"
	for name, b := range map[string][]byte{"gzip": gzipped([]byte(four)), "deflate": zlibbed([]byte(four)), "identity": []byte(four)} {
		if code, got, _ := send(t, "POST", at, bytes.NewReader(b), "Content-Encoding", name); code != 200 || !bytes.Contains(got, []byte("[2,3]")) {
			t.Errorf("%s: %d %s", name, code, got)
		}
	}
	zeros := make([]byte, 100<<20)
	for name, c := range map[string]struct {
		encoding string
		body     []byte
		code     int
	}{
		"a gzip bomb":        {"gzip", gzipped(zeros), 413},
		"a deflate bomb":     {"deflate", zlibbed(zeros), 413},
		"no gzip":            {"gzip", []byte(four), 400},
		"no deflate":         {"deflate", []byte(four), 400},
		"truncated gzip":     {"gzip", gzipped([]byte(four))[:20], 400},
		"another encoding":   {"br", []byte(four), 400},
		"two encodings":      {"gzip, gzip", []byte(four), 400},
		"plain deflate":      {"deflate", zlibbed([]byte(four))[2:], 400},
		"gzip, wrong digest": {"gzip", append(gzipped([]byte(four))[:len(gzipped([]byte(four)))-8], 1, 2, 3, 4, 5, 6, 7, 8), 400},
	} {
		if code, b, _ := send(t, "POST", at, bytes.NewReader(c.body), "Content-Encoding", c.encoding); code != c.code {
			t.Errorf("%s: %d %s", name, code, b)
		}
	}
	// Answers are compressed where that is asked for and pays.
	many := fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP64","shape":[1000,2],"data":[4%s]}]}`, strings.Repeat(",4", 1999))
	_, plain, _ := send(t, "POST", at, strings.NewReader(many))
	for accept, want := range map[string]string{"gzip": "gzip", "deflate": "deflate", "br, deflate;q=0.5, gzip;q=0.7": "gzip", "gzip;q=0": "", "br": ""} {
		_, b, h := send(t, "POST", at, strings.NewReader(many), "Accept-Encoding", accept)
		if h.Get("Content-Encoding") != want {
			t.Fatalf("%s: %v", accept, h)
		}
		var r io.Reader = bytes.NewReader(b)
		var err error
		switch want {
		case "gzip":
			r, err = gzip.NewReader(r)
		case "deflate":
			r, err = zlib.NewReader(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%s: %v", accept, err)
		}
	}
	if _, _, h := send(t, "POST", at, strings.NewReader(four), "Accept-Encoding", "gzip"); h.Get("Content-Encoding") != "" {
		t.Fatal(h)
	}
}

// Each is one thing wrong. What the codec finds has tests there; here are one of
// each and what HTTP adds.
func TestBadHTTP(t *testing.T) {
	s, _ := serve(t, oip.Options{})
	header := "Inference-Header-Content-Length"
	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		headers      []string
		code         int
		says         string
	}{
		"malformed JSON":            {"POST", "/models/root/infer", strings.NewReader("{"), nil, 400, "not right"},
		"empty body":                {"POST", "/models/root/infer", nil, nil, 400, "not right"},
		"wrong shape":               {"POST", "/models/root/infer", strings.NewReader(strings.Replace(four, "[1,2]", "[2,1]", 1)), nil, 400, "has shape"},
		"body of 100 MB":            {"POST", "/models/root/infer", bytes.NewReader(make([]byte, 100<<20)), []string{"Expect", "100-continue"}, 413, "at most 67108864 bytes"},
		"body too large in chunks":  {"POST", "/models/root/infer", io.LimitReader(zero{}, 64<<20+1), nil, 413, "at most 67108864 bytes"},
		"header length past end":    {"POST", "/models/root/infer", strings.NewReader(four), []string{header, "1000"}, 400, "is 1000, and the body has 70"},
		"header length before end":  {"POST", "/models/root/infer", strings.NewReader(four), []string{header, "60"}, 400, "not right"},
		"header length negative":    {"POST", "/models/root/infer", strings.NewReader(four), []string{header, "-1"}, 400, "one length"},
		"header length of nonsense": {"POST", "/models/root/infer", strings.NewReader(four), []string{header, "x"}, 400, "one length"},
		"header length overflowing": {"POST", "/models/root/infer", strings.NewReader(four), []string{header, "99999999999999999999"}, 400, "one length"},
		"raw of many inputs":        {"POST", "/models/everything/infer", strings.NewReader("x"), []string{header, "0"}, 400, "5 inputs"},
		"unknown model":             {"POST", "/models/nothing/infer", strings.NewReader(four), nil, 404, "no model"},
		"unknown version":           {"POST", "/models/root/versions/3/infer", strings.NewReader(four), nil, 404, "no model"},
		"unknown model's metadata":  {"GET", "/models/nothing", nil, nil, 404, "no model"},
		"unknown model's config":    {"GET", "/models/nothing/config", nil, nil, 404, "no model"},
		"unknown model's stats":     {"GET", "/models/nothing/stats", nil, nil, 404, "no model"},
		"unknown model's readiness": {"GET", "/models/nothing/ready", nil, nil, 404, "no model"},
		"unknown path":              {"GET", "/nothing", nil, nil, 404, "nothing at this path"},
		"another method":            {"GET", "/models/root/infer", nil, nil, 405, "POST is wanted"},
		"another method to read":    {"DELETE", "/models/root", nil, nil, 405, "GET is wanted"},
		"FP16 in JSON":              {"POST", "/models/echo/infer", strings.NewReader(`{"inputs":[],"outputs":[{"name":"h"}]}`), nil, 400, "no form in JSON"},
		"overload":                  {"POST", "/models/shed/infer", strings.NewReader(one), nil, 503, "too much"},
		"too often":                 {"POST", "/models/limited/infer", strings.NewReader(one), nil, 429, "too often"},
		"a caller that is gone":     {"POST", "/models/broken/infer", strings.NewReader(one), nil, 499, "gone"},
		"a failure inside":          {"POST", "/models/secret/infer", strings.NewReader(one), nil, 500, "internal error"},
		"a deadline":                {"POST", "/models/hanging/infer", strings.NewReader(strings.Replace(one, "{", `{"parameters":{"timeout":1000},`, 1)), nil, 504, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			code, b, h := send(t, c.method, s.URL+"/v2"+c.path, c.body, c.headers...)
			var e struct{ Error string }
			if err := json.Unmarshal(b, &e); err != nil || code != c.code || !strings.Contains(e.Error, c.says) || strings.Contains(e.Error, "secret:") {
				t.Fatalf("%d %s, want %d %q", code, b, c.code, c.says)
			}
			if want := map[int]string{503: "2", 429: "1"}[code]; h.Get("Retry-After") != want {
				t.Fatalf("Retry-After %q", h.Get("Retry-After"))
			}
		})
	}
}

const one = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A Content-Length that promises more than comes is an answer, not a wait and not
// room for all of it.
func TestLyingContentLength(t *testing.T) {
	s, _ := serve(t, oip.Options{})
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v2/models/root/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n%s", four)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 400")) || !bytes.Contains(b, []byte("did not come whole")) {
		t.Fatalf("%v %s", err, b)
	}
}

// A caller that goes away ends the run.
func TestCallerGone(t *testing.T) {
	ms := repository(t)
	started, ended := make(chan struct{}), make(chan error, 1)
	ms.get("hanging").run = func(ctx context.Context, _ api.Call) (api.Answer, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return api.Answer{}, ctx.Err()
	}
	s := httptest.NewServer(oip.NewHTTP(ms, oip.Options{}).Handler())
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/v2/models/hanging/infer", strings.NewReader(one))
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-started; cancel() }()
	if _, err := http.DefaultClient.Do(req); err == nil {
		t.Fatal("there is an answer")
	}
	if err := <-ended; err != context.Canceled {
		t.Fatal(err)
	}
}

func TestStatistics(t *testing.T) {
	s, _ := serve(t, oip.Options{})
	in, _ := inputs()
	ms := repository(t)
	if _, err := oiptest.JSON(s.URL)(t.Context(), about(ms.get("everything")), in); err != nil {
		t.Fatal(err)
	}
	_, v := get(t, s.URL+"/v2/models/everything/stats")
	m := v["model_stats"].([]any)[0].(map[string]any)
	if m["inference_count"] != 2.0 || m["execution_count"] != 1.0 || m["last_inference"].(float64) == 0 || m["batch_stats"].([]any)[0].(map[string]any)["batch_size"] != 2.0 ||
		m["inference_stats"].(map[string]any)["success"].(map[string]any)["ns"].(float64) == 0 {
		t.Fatal(m)
	}
}

func BenchmarkInferHTTP(b *testing.B) {
	infos := []ort.Info{{Name: "x", Type: "float", Shape: []int64{-1, 30}}}
	m := &fakeModel{name: "m", version: "1", inputs: infos, outputs: []ort.Info{{Name: "y", Type: "float", Shape: []int64{-1, 1}}}}
	out := []ort.Value{ort.Tensor{Shape: []int64{1, 1}, Data: []float32{0.25}}}
	m.run = func(context.Context, api.Call) (api.Answer, error) { return api.Answer{Outputs: out}, nil }
	h := oip.NewHTTP(&fakeModels{models: []*fakeModel{m}}, oip.Options{}).Handler()
	body := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,30],"data":[0.5` + strings.Repeat(",0.5", 29) + `]}]}`
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/models/m/infer", strings.NewReader(body)))
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

func TestInferPath(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/models/m/infer":                          "m| true",
		"/v2/models/m/versions/3/infer":               "m|3 true",
		"/v2/models/versions/infer":                   "versions| true",
		"/v2/models/versions/versions/versions/infer": "versions|versions true",
		"/v2/models/m/versions//infer":                "m| false",
		"/v2/models/m/n/infer":                        "m/n| false",
		"/v2/models/m/versions/3/4/infer":             "m|3/4 false",
		"/v2/models//infer":                           "| false",
		"/v2/models/infer":                            "| false",
		"/v2/models/m":                                "| false",
		"/v1/predict":                                 "| false",
	} {
		model, version, ok := oip.InferPath(path)
		if got := fmt.Sprintf("%s|%s %v", model, version, ok); got != want {
			t.Errorf("%s: %s, not %s", path, got, want)
		}
	}
}
