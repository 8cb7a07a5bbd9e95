package typed

import (
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
)

// OpenAPI describes the API of svc over HTTP as OpenAPI 3.1, in JSON. What its
// schemas of requests allow is what Handler takes, but that a feature's column is no
// name there, and that formats bind: int64, double, and date-time without the
// second 60. The error is an *api.Error where the signature cannot be served.
func OpenAPI(svc *service.Service, sig *bundle.Signature) ([]byte, error) {
	f := newForm(svc, sig)
	if f.err != nil {
		return nil, f.err
	}
	return f.openapi, nil
}

func ref(name string) object { return object{{"$ref", "#/components/schemas/" + name}} }

// record is the schema of an object with just these members.
func record(properties object, required ...string) object {
	o := object{{"type", "object"}}
	if len(required) > 0 {
		o = append(o, member{"required", required})
	}
	return append(o, member{"properties", properties}, member{"additionalProperties", false})
}

// schema is that of a feature's value.
func (x *field) schema() object {
	var t any = jsonTypes[x.Type]
	if x.Nullable {
		t = []any{t, "null"}
	}
	o := object{{"type", t}}
	switch x.Type {
	case types.Int:
		o = append(o, member{"format", "int64"})
	case types.Float:
		o = append(o, member{"format", "double"})
	case types.Timestamp:
		o = append(o, member{"format", "date-time"})
	}
	if x.Min != nil {
		o = append(o, member{"minimum", *x.Min})
	}
	if x.Max != nil {
		o = append(o, member{"maximum", *x.Max})
	}
	switch {
	case len(x.In) > 0:
		in := x.In[:len(x.In):len(x.In)]
		if x.Nullable {
			in = append(in, nil)
		}
		o = append(o, member{"enum", in})
	case x.text:
		// The text that stands for a missing value, and NUL, which a tensor cannot hold.
		o = append(o, member{"pattern", "^[^\x00]*$"}, member{"not", object{{"const", types.NullString}}})
	}
	return append(o, member{"description", x.describe()}, member{"examples", []any{x.example()}})
}

var jsonTypes = map[types.Type]string{types.Int: "integer", types.Float: "number", types.Bool: "boolean", types.String: "string", types.Timestamp: "string"}

// describe says in a sentence what x is.
func (x *field) describe() string {
	s := "Feature " + x.Name
	if x.Column != "" {
		s += ", column " + x.Column + " of the label's source"
	} else {
		s += ", looked up by the caller"
	}
	if d := x.domain(); d != "" {
		s += "; " + d
	}
	if x.Nullable {
		s += "; null or left out where it is missing"
	}
	if x.Sensitive {
		s += "; sensitive"
	}
	return s + "."
}

// example is a value that x takes.
func (x *field) example() any {
	switch {
	case x.Type == types.Bool:
		return true
	case x.Type == types.Timestamp:
		return "2024-01-31T12:00:00Z"
	case len(x.values) > 0:
		return x.values[0]
	case x.text:
		return "text"
	}
	for _, v := range x.numbers {
		if v >= x.min && v <= x.max {
			return v
		}
	}
	v := 1.0
	switch {
	case x.Min != nil && x.Max != nil:
		v = x.min + (x.max-x.min)/2
	case x.Min != nil:
		v = x.min
	case x.Max != nil:
		v = x.max
	}
	if x.Type == types.Int {
		if c := math.Ceil(v); c <= x.max {
			return c
		}
		return math.Floor(v)
	}
	return v
}

// prediction is the schema of a row's answer, and an example of it.
func (f *form) prediction(svc *service.Service) (object, object) {
	number := func(text string) object {
		return object{{"type", []string{"number", "null"}}, {"format", "float"}, {"description", text}}
	}
	decision := func(text string) object {
		return object{{"type", []string{"boolean", "null"}}, {"description", text}}
	}
	chance := func(text string) object {
		return append(number(text), member{"minimum", 0}, member{"maximum", 1})
	}
	// A branch of a split may have other classes or quantiles than the one that is described.
	open := len(svc.Split) > 1
	columns := func(each object, other object) object {
		if open {
			return object{{"type", "object"}, {"additionalProperties", other}}
		}
		return record(each, f.columns...)
	}
	class := object{{"type", "string"}}
	if !open {
		class = append(class, member{"enum", f.sig.Task.Classes})
	}
	switch f.sig.Task.Kind {
	case kind.Binary:
		return record(object{
			{"probability", chance("How likely it is true; null where the model gives no finite number.")},
			{"decision", decision("Whether the probability is at least " + whose(svc) + ".")},
		}, "probability", "decision"), object{{"probability", 0.93}, {"decision", true}}
	case kind.Anomaly:
		return record(object{
			{"score", chance("How unusual it is, from 0 (usual) to 1; null where the model gives no finite number.")},
			{"decision", decision("Whether the score is at least " + whose(svc) + ".")},
		}, "score", "decision"), object{{"score", 0.71}, {"decision", true}}
	case kind.Quantile:
		var each, example object
		for i, q := range f.columns {
			each = append(each, member{q, number("What the value stays below with the probability " + q + ".")})
			example = append(example, member{q, i + 1})
		}
		return record(object{{"quantiles", columns(each, number("What the value stays below with that probability."))}}, "quantiles"), object{{"quantiles", example}}
	case kind.Multiclass, kind.Multilabel:
		var each, example object
		for i, c := range f.sig.Task.Classes {
			each = append(each, member{c, chance("How likely it is " + c + ".")})
			p := 0.0
			if i == 0 {
				p = 1
			}
			example = append(example, member{c, p})
		}
		if f.sig.Task.Kind == kind.Multilabel {
			return record(object{
				{"labels", object{{"type", "array"}, {"uniqueItems", true}, {"items", class}, {"description", "Those whose probability is at least 0.5, in the order of the probabilities."}}},
				{"probabilities", columns(each, chance("How likely that label is."))},
			}, "labels", "probabilities"), object{{"labels", f.sig.Task.Classes[:1]}, {"probabilities", example}}
		}
		return record(object{
			{"class", append(class, member{"description", "The likeliest class."})},
			{"probabilities", columns(each, chance("How likely that class is."))},
		}, "class", "probabilities"), object{{"class", f.sig.Task.Classes[0]}, {"probabilities", example}}
	}
	return record(object{{"prediction", number("What the model predicts; null where that is no finite number.")}}, "prediction"), object{{"prediction", 12.5}}
}

// whose says in words which threshold decides.
func whose(svc *service.Service) string {
	if svc.Threshold == 0 {
		return "the threshold of the model's version that answers"
	}
	return "the service's threshold"
}

// openAPI builds the description.
func openAPI(svc *service.Service, f *form) ([]byte, error) {
	var row, example object
	var required []string
	for i := range f.fields {
		x := &f.fields[i]
		row = append(row, member{x.Name, x.schema()})
		example = append(example, member{x.Name, x.example()})
		if !x.Nullable {
			required = append(required, x.Name)
		}
	}
	text := func(description string) object { return object{{"type", "string"}, {"description", description}} }
	whole := func(description string) object {
		return object{{"type", "integer"}, {"format", "int64"}, {"minimum", 0}, {"description", description}}
	}
	own := object{
		{"id", object{{"type", "string"}, {"pattern", "^[!-~]{1,128}$"}, {"description", "The caller's name for the request; it comes back."}}},
		{"key", object{{"type", "string"}, {"maxLength", 256}, {"description", "Keeps a caller with one variant of the model."}}},
	}
	prediction, predicted := f.prediction(svc)
	answer := object{
		{"id", "4d2f"}, {"model", f.sig.Model}, {"version", "1"}, {"variant", ""}, {"fallback", false}, {"predictions", []any{predicted}},
		{"timing", object{{"queue_us", 12}, {"compute_us", 85}, {"total_us", 140}}},
	}
	fault := record(object{
		{"path", text("JSON path of the value.")},
		{"code", object{{"type", "string"}, {"enum", []string{Unknown, Duplicate, Missing, WrongType, NotWhole, NotFinite, OutOfRange, NotAmong, BadTime, Reserved, BadText, Empty, Conflicting}}}},
		{"what", text("What is wrong.")},
		{"mend", text("How to mend it.")},
	}, "path", "code", "what")
	schemas := object{
		{"Row", record(row, required...)},
		{"PredictRows", record(append(object{{"rows", object{{"type", "array"}, {"minItems", 1}, {"maxItems", maxRows(svc)}, {"items", ref("Row")}}}}, own...), "rows")},
		{"PredictOne", record(append(object{{"features", ref("Row")}}, own...), "features")},
		{"PredictRequest", object{{"oneOf", []any{ref("PredictRows"), ref("PredictOne")}}}},
		{"Prediction", prediction},
		{"Timing", record(object{
			{"queue_us", whole("Microseconds that the rows waited.")},
			{"compute_us", whole("Microseconds that the model ran.")},
			{"total_us", whole("Microseconds from the request to its answer.")},
		}, "queue_us", "compute_us", "total_us")},
		{"PredictResponse", record(object{
			{"id", text("The request's id.")}, {"model", text("The model that answered.")}, {"version", text("Its version.")},
			{"variant", text("The branch of the split that answered; without a split, the alias or version; of several steps, nothing.")},
			{"fallback", object{{"type", "boolean"}, {"description", "The answer is the declared fallback's."}}},
			{"predictions", object{{"type", "array"}, {"items", ref("Prediction")}, {"description", "One for each row, in order."}}},
			{"timing", ref("Timing")},
		}, "id", "model", "version", "variant", "fallback", "predictions", "timing")},
		{"Error", record(object{
			{"error", text("What went wrong.")}, {"id", text("The request's id.")},
			{"offset", whole("The byte at which the body stops being JSON.")},
		}, "error", "id")},
		{"Fault", fault},
		{"Faults", record(object{
			{"error", text("The first fault.")}, {"id", text("The request's id.")},
			{"faults", object{{"type", "array"}, {"minItems", 1}, {"maxItems", MaxFaults}, {"items", ref("Fault")}}},
			{"more", object{{"type", "integer"}, {"minimum", 1}, {"description", "How many faults are not told."}}},
		}, "error", "id", "faults")},
	}
	header := func(description, kind string) object {
		return object{{"description", description}, {"schema", object{{"type", kind}}}}
	}
	id := member{"X-Request-Id", header("The request's id.", "string")}
	body := func(schema string, example any) object {
		media := object{{"schema", ref(schema)}}
		if example != nil {
			media = append(media, member{"example", example})
		}
		return object{{"application/json", media}}
	}
	// failed are the errors of those statuses; of all, where none is named.
	failed := func(only ...int) (out object) {
		for _, e := range failures {
			if e.status == http.StatusUnauthorized && svc.Auth == nil || len(only) > 0 && !slices.Contains(only, e.status) {
				continue
			}
			headers := object{id}
			if e.retry {
				headers = append(headers, member{"Retry-After", header("Seconds until it is worth another try.", "integer")})
			}
			schema := "Error"
			if e.status == http.StatusUnprocessableEntity {
				schema = "Faults"
			}
			out = append(out, member{strconv.Itoa(e.status), object{{"description", e.text}, {"headers", headers}, {"content", body(schema, nil)}}})
		}
		return out
	}
	responses := append(object{{"200", object{{"description", "The predictions."}, {"headers", object{id, {"X-Model-Version", header("The version that answered.", "string")}}}, {"content", body("PredictResponse", answer)}}}}, failed()...)
	parameter := func(name, description string) object {
		return object{{"name", name}, {"in", "header"}, {"description", description}, {"schema", object{{"type", "string"}}}}
	}
	predict := object{
		{"operationId", "predict"},
		{"summary", "Predict one row or several"},
		{"parameters", []any{
			parameter("X-Request-Id", "The caller's name for the request, unless the body has one."),
			parameter("X-Request-Timeout", "The time to answer in: a duration like 250ms, or milliseconds."),
		}},
		{"requestBody", object{{"required", true}, {"content", object{{"application/json", object{
			{"schema", ref("PredictRequest")},
			{"examples", object{
				{"rows", object{{"summary", "Rows"}, {"value", object{{"rows", []any{example}}}}}},
				{"features", object{{"summary", "One row"}, {"value", object{{"features", example}}}}},
			}},
		}}}}}},
		{"responses", responses},
	}
	components := object{{"schemas", schemas}}
	doc := object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", svc.System + " " + svc.Name}, {"version", "1"}, {"description", "Predictions of model " + f.sig.Model + ", a " + f.sig.Task.Kind + " task."}}},
		{"servers", []any{object{{"url", "/"}}}},
		{"paths", object{{"/v1/predict", object{{"post", predict}}}, {"/v1/model", object{{"get", object{
			{"operationId", "model"},
			{"summary", "What serves"},
			{"responses", append(object{{"200", object{{"description", "The model that serves, and what it takes and gives."}, {"content", object{{"application/json", object{{"schema", object{{"type", "object"}}}}}}}}}},
				failed(http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable)...)},
		}}}}}},
	}
	if schemes, security := security(svc); len(schemes) > 0 {
		components = append(components, member{"securitySchemes", schemes})
		doc = append(doc, member{"security", security})
	}
	return json.Marshal(append(doc, member{"components", components}))
}

// failures are the statuses of errors, in order.
var failures = []struct {
	status int
	text   string
	retry  bool
}{
	{http.StatusBadRequest, "The body is no JSON, or a header is wrong.", false},
	{http.StatusUnauthorized, "The caller did not say who it is.", false},
	{http.StatusRequestTimeout, "The body did not come in time.", false},
	{http.StatusRequestEntityTooLarge, "The body is too large, or has too many rows.", false},
	{http.StatusUnsupportedMediaType, "The body is compressed.", false},
	{http.StatusUnprocessableEntity, "Values are not what the model takes; every fault is told.", false},
	{http.StatusTooManyRequests, "The caller asks too often.", true},
	{http.StatusInternalServerError, "The model failed.", false},
	{http.StatusServiceUnavailable, "The service is full, draining, or has no model loaded.", true},
	{http.StatusGatewayTimeout, "There was no answer within the deadline.", false},
}

// security is the schemes by which callers say who they are. A certificate comes on
// top of a token or key, of which one is enough.
func security(svc *service.Service) (object, []object) {
	var schemes object
	var ways []object
	none := []string{}
	if svc.Auth != nil && len(svc.Auth.Bearer) > 0 {
		schemes = append(schemes, member{"bearer", object{{"type", "http"}, {"scheme", "bearer"}}})
		ways = append(ways, object{{"bearer", none}})
	}
	if svc.Auth != nil && len(svc.Auth.APIKey) > 0 {
		schemes = append(schemes, member{"apiKey", object{{"type", "apiKey"}, {"in", "header"}, {"name", "X-API-Key"}}})
		ways = append(ways, object{{"apiKey", none}})
	}
	if svc.TLS != nil && svc.TLS.ClientCA != "" {
		schemes = append(schemes, member{"certificate", object{{"type", "mutualTLS"}}})
		if len(ways) == 0 {
			ways = append(ways, object{})
		}
		for i := range ways {
			ways[i] = append(ways[i], member{"certificate", none})
		}
	}
	return schemes, ways
}

// describe is the answer of /v1/model, but for the version.
func describe(svc *service.Service, f *form) ([]byte, error) {
	var in []object
	for i := range f.fields {
		x := &f.fields[i]
		o := object{{"name", x.Name}}
		if x.Column != "" {
			o = append(o, member{"column", x.Column})
		}
		o = append(o, member{"type", x.Type}, member{"nullable", x.Nullable})
		if x.Min != nil {
			o = append(o, member{"min", *x.Min})
		}
		if x.Max != nil {
			o = append(o, member{"max", *x.Max})
		}
		if len(x.In) > 0 {
			o = append(o, member{"in", x.In})
		}
		if x.Sensitive {
			o = append(o, member{"sensitive", true})
		}
		in = append(in, o)
	}
	o := object{{"name", f.sig.Model}, {"system", svc.System}, {"service", svc.Name}, {"task", f.sig.Task}}
	if k := f.sig.Task.Kind; k == kind.Binary || k == kind.Anomaly {
		threshold := svc.Threshold
		if threshold == 0 {
			threshold = f.sig.Task.Cut()
		}
		o = append(o, member{"threshold", threshold})
	}
	return json.Marshal(append(o, member{"inputs", in}, member{"outputs", f.sig.Outputs}))
}
