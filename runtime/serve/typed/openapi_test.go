package typed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
)

// schemas compiles a description's schemas, with the formats that bind.
func schemas(t *testing.T, doc []byte) func(name string) *jsonschema.Schema {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "int64", Validate: func(v any) error {
		n, ok := v.(json.Number)
		if !ok {
			return nil
		}
		if r, ok := new(big.Rat).SetString(string(n)); !ok || !r.IsInt() || !r.Num().IsInt64() {
			return fmt.Errorf("%s is no int64", n)
		}
		return nil
	}})
	c.RegisterFormat(&jsonschema.Format{Name: "double", Validate: func(v any) error {
		n, ok := v.(json.Number)
		if !ok {
			return nil
		}
		_, err := strconv.ParseFloat(string(n), 64)
		return err
	}})
	if err := c.AddResource("http://x/openapi.json", v); err != nil {
		t.Fatal(err)
	}
	return func(name string) *jsonschema.Schema {
		s, err := c.Compile("http://x/openapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func allows(s *jsonschema.Schema, body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// TestSchemaAllowsWhatIsTaken: a request is taken if and only if its schema allows it.
func TestSchemaAllowsWhatIsTaken(t *testing.T) {
	svc, sig := testService(), birds(kind.Binary)
	doc, err := OpenAPI(svc, sig)
	if err != nil {
		t.Fatal(err)
	}
	s, f := schemas(t, doc)("PredictRequest"), newForm(svc, sig)
	var b batch
	taken, refused := 0, 0
	check := func(t interface{ Fatalf(string, ...any) }, body string) {
		b.reset(f, pathRows, maxRows(svc))
		wrong, tooMany := b.readJSON([]byte(body))
		if wrong != nil {
			t.Fatalf("%s: %v", body, wrong)
		}
		got := tooMany == nil && !b.any()
		if err := allows(s, []byte(body)); got != (err == nil) {
			t.Fatalf("%s: taken %v (%v), the schema says %v", body, got, b.told, err)
		}
		if got {
			taken++
		} else {
			refused++
		}
	}
	for _, body := range []string{`{}`, `[]`, `{"rows":[]}`, `{"rows":[` + good + `],"features":` + good + `}`, `{"features":` + good + `,"id":""}`, `{"features":` + good + `,"id":"ü"}`, `{"features":` + good + `,"key":7}`,
		`{"features":` + good + `,"key":"` + strings.Repeat("ü", 256) + `"}`, `{"features":` + good + `,"key":"` + strings.Repeat("ü", 257) + `"}`, `{"features":` + good + `,"x":1}`,
		`{"rows":[` + strings.Repeat(good+",", 99) + good + `]}`, `{"rows":[` + strings.Repeat(good+",", 100) + good + `]}`} {
		check(t, body)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, request(f).Draw(t, "body"))
	})
	if taken < 10 || refused < 10 {
		t.Errorf("%d taken, %d refused: the property says little", taken, refused)
	}
}

func TestExamplesAreTaken(t *testing.T) {
	for name, change := range map[string]func(*bundle.Signature){
		"as it is": func(*bundle.Signature) {},
		"odd ranges": func(s *bundle.Signature) {
			s.Raw[2].Min, s.Raw[2].Max = ptr(2.5), ptr(3.4)
			s.Raw[1].Min, s.Raw[1].Max = nil, ptr(-1e300)
			s.Raw[8].Min = ptr(1e20)
			s.Raw[6].Min = ptr(2)
		},
		"none may be missing": func(s *bundle.Signature) {
			for i := range s.Raw {
				s.Raw[i].Nullable = false
			}
		},
	} {
		sig := birds(kind.Regression)
		change(sig)
		a, _ := setup(sig, nil)
		var doc struct {
			Paths map[string]struct {
				Post struct {
					RequestBody struct {
						Content map[string]struct {
							Examples map[string]struct{ Value json.RawMessage }
						}
					}
				}
			}
		}
		if err := json.Unmarshal(get(a, "/openapi.json").Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		examples := doc.Paths["/v1/predict"].Post.RequestBody.Content["application/json"].Examples
		if len(examples) != 2 {
			t.Fatalf("%d examples", len(examples))
		}
		for _, e := range examples {
			if w := post(a, string(e.Value)); w.Code != 200 {
				t.Errorf("%s: %s answers %d %s", name, e.Value, w.Code, w.Body)
			}
		}
	}
}

// TestAnswersFitTheirSchemas holds what is answered against what is described.
func TestAnswersFitTheirSchemas(t *testing.T) {
	for _, task := range tasks {
		a, _ := setup(birds(task), nil)
		doc := get(a, "/openapi.json").Body.Bytes()
		schema := schemas(t, doc)
		var told struct {
			Paths map[string]struct {
				Post struct {
					Responses map[string]struct {
						Content map[string]struct{ Example json.RawMessage }
					}
				}
			}
		}
		if err := json.Unmarshal(doc, &told); err != nil {
			t.Fatal(err)
		}
		if err := allows(schema("PredictResponse"), told.Paths["/v1/predict"].Post.Responses["200"].Content["application/json"].Example); err != nil {
			t.Errorf("%s: the example: %v", task, err)
		}
		for _, c := range []struct {
			name string
			w    *httptest.ResponseRecorder
		}{
			{"PredictResponse", post(a, `{"rows":[`+good+`,`+good+`]}`)},
			{"Faults", post(a, `{"rows":[{"bird.species":"wern"}],"x":1}`)},
			{"Faults", post(a, `{"rows":[`+strings.Repeat(`{"x":1},`, 60)+`{}]}`)},
			{"Error", post(a, `{`)},
			{"Error", get(a, "/nowhere")},
		} {
			if err := allows(schema(c.name), c.w.Body.Bytes()); err != nil {
				t.Errorf("%s %s: %v", task, c.name, err)
			}
		}
	}
}

// python is an interpreter that has module, or the test is skipped.
func python(t *testing.T, module string) string {
	t.Helper()
	py := os.Getenv("MLC_TEST_PYTHON")
	if py == "" {
		py = "python3"
	}
	if out, err := exec.Command(py, "-c", "import "+module).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %s has no %s; set MLC_TEST_PYTHON to one that has: %v\n%s", py, module, err, out)
	}
	return py
}

func TestOpenAPIIsValid(t *testing.T) {
	py := python(t, "openapi_spec_validator")
	dir := t.TempDir()
	var files []string
	for i, task := range tasks {
		svc := testService()
		if i > 0 {
			svc.Auth = &service.Auth{Bearer: []string{"env:A"}, APIKey: []string{"env:B"}}
		}
		if i > 1 {
			svc.TLS = &service.TLS{ClientCA: "ca.pem"}
		}
		doc, err := OpenAPI(svc, birds(task))
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("%s/%s.json", dir, task)
		if err := os.WriteFile(path, doc, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	script := "import json, sys\nfrom openapi_spec_validator import OpenAPIV31SpecValidator\nfor p in sys.argv[1:]:\n  OpenAPIV31SpecValidator(json.load(open(p))).validate()\n"
	if out, err := exec.Command(py, append([]string{"-c", script}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	broken := dir + "/broken.json"
	if err := os.WriteFile(broken, []byte(`{"openapi":"3.1.0","info":{"title":"x","version":"1"},"paths":{"/":{"get":{"responses":{"200":{}}}}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(py, "-c", script, broken).Run(); err == nil {
		t.Error("the validator takes anything")
	}
}

func TestSecurityIsDescribed(t *testing.T) {
	for want, svc := range map[string]*service.Service{
		`null null`: {},
		`{"bearer":{"type":"http","scheme":"bearer"}} [{"bearer":[]}]`: {Auth: &service.Auth{Bearer: []string{"env:A"}}},
		`{"bearer":{"type":"http","scheme":"bearer"},"apiKey":{"type":"apiKey","in":"header","name":"X-API-Key"}} ` +
			`[{"bearer":[]},{"apiKey":[]}]`: {Auth: &service.Auth{Bearer: []string{"env:A"}, APIKey: []string{"env:B"}}},
		`{"certificate":{"type":"mutualTLS"}} [{"certificate":[]}]`:                                                        {TLS: &service.TLS{ClientCA: "ca"}},
		`{"bearer":{"type":"http","scheme":"bearer"},"certificate":{"type":"mutualTLS"}} [{"bearer":[],"certificate":[]}]`: {Auth: &service.Auth{Bearer: []string{"env:A"}}, TLS: &service.TLS{ClientCA: "ca"}},
	} {
		doc, err := OpenAPI(svc, birds(kind.Binary))
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Security   json.RawMessage
			Components struct {
				SecuritySchemes json.RawMessage `json:"securitySchemes"`
			}
		}
		if err := json.Unmarshal(doc, &d); err != nil {
			t.Fatal(err)
		}
		none := func(r json.RawMessage) string {
			if r == nil {
				return "null"
			}
			return string(r)
		}
		if got := none(d.Components.SecuritySchemes) + " " + none(d.Security); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

// TestFeaturesKeepTheirOrder: forms and clients show them as the signature has them.
func TestFeaturesKeepTheirOrder(t *testing.T) {
	doc, err := OpenAPI(testService(), birds(kind.Binary))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, r := range birds(kind.Binary).Raw {
		i := bytes.Index(doc[at:], []byte(`"`+r.Name+`":{"type":`))
		if i < 0 {
			t.Fatalf("%s is not where it should be", r.Name)
		}
		at += i
	}
	if bytes.Count(doc, []byte(types.NullString)) != 2 {
		t.Error("texts without values do not exclude the one that stands for missing")
	}
}
