package typed

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// compile makes the messages of the .proto of svc and sig.
func compile(t testing.TB, svc *service.Service, sig *bundle.Signature) protoreflect.FileDescriptor {
	t.Helper()
	text, err := Proto(svc, sig)
	if err != nil {
		t.Fatal(err)
	}
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{"predictor.proto": text})})}
	files, err := c.Compile(context.Background(), "predictor.proto")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return files[0]
}

// client calls a over gRPC as a client that is generated from its .proto does.
type client struct {
	file protoreflect.FileDescriptor
	conn *grpc.ClientConn
}

func dialProto(t testing.TB, a *API, sig *bundle.Signature, opts ...grpc.ServerOption) client {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(opts...)
	a.Register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return client{compile(t, a.svc, sig), conn}
}

// predict sends a request, which is written as protobuf's JSON.
func (c client) predict(t testing.TB, request string, opts ...grpc.CallOption) (protoreflect.Message, error) {
	t.Helper()
	in := dynamicpb.NewMessage(c.file.Messages().ByName("PredictRequest"))
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	out := dynamicpb.NewMessage(c.file.Messages().ByName("PredictResponse"))
	method := c.file.Services().Get(0).Methods().Get(0)
	if err := c.conn.Invoke(context.Background(), fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), in, out, opts...); err != nil {
		return nil, err
	}
	if len(out.GetUnknown()) > 0 {
		t.Error("the answer has fields that the .proto has not")
	}
	return out, nil
}

const goodProto = `{"bird_species":"wren","bird_weight":9.5}`

func TestProtoAnswersByTask(t *testing.T) {
	for task, want := range map[string]string{
		kind.Binary:     `[{"decision":false,"probability":0},{"decision":false,"probability":0.1},{"decision":true,"probability":0.2}]`,
		kind.Multiclass: `[{"class":"a","probabilities":{"a":0,"b\"":0.1,"ç":0.2}},{"class":"b\"","probabilities":{"a":0.3,"b\"":0.4,"ç":0.5}},{"class":"ç","probabilities":{"a":0.6,"b\"":0.7,"ç":0.8}}]`,
		kind.Multilabel: `[{"probabilities":{"a":0,"b\"":0.1,"ç":0.2}},{"labels":["ç"],"probabilities":{"a":0.3,"b\"":0.4,"ç":0.5}},{"labels":["a","b\"","ç"],"probabilities":{"a":0.6,"b\"":0.7,"ç":0.8}}]`,
		kind.Regression: `[{"prediction":0},{"prediction":0.1},{"prediction":0.2}]`,
		kind.Quantile:   `[{"quantiles":{"0.05":0,"0.5":0.1}},{"quantiles":{"0.05":0.2,"0.5":0.3}},{"quantiles":{"0.05":0.4,"0.5":0.5}}]`,
		kind.Count:      `[{"prediction":0},{"prediction":0.1},{"prediction":0.2}]`,
		kind.Anomaly:    `[{"decision":false,"score":0},{"decision":false,"score":0.1},{"decision":true,"score":0.2}]`,
	} {
		a, m := setup(birds(task), func(s *service.Service) { s.Threshold = 0.2 })
		c := dialProto(t, a, m.sig)
		var header metadata.MD
		out, err := c.predict(t, `{"id":"x1","key":"k","rows":[`+goodProto+`,`+goodProto+`,`+goodProto+`]}`, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(out.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ID, Model, Version, Variant string
			Predictions                 any
			Timing                      map[string]string
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		p, err := json.Marshal(got.Predictions)
		if err != nil {
			t.Fatal(err)
		}
		if string(p) != want || got.ID != "x1" || got.Model != "churn" || got.Version != "3" || got.Variant != "champion" || got.Timing["queue_us"] != "5" || got.Timing["compute_us"] != "7" {
			t.Errorf("%s: %s", task, text)
		}
		if header.Get("x-request-id")[0] != "x1" || header.Get("x-model-version")[0] != "3" {
			t.Errorf("header %v", header)
		}
		if m.last.Protocol != "grpc" || m.last.ID != "x1" || m.last.Key != "k" || m.last.Rows != 3 {
			t.Errorf("%+v", m.last)
		}
	}
}

func TestProtoNumbersThatAreNotFiniteAreNotSet(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	m.infer = func(_ context.Context, c api.Call) (api.Answer, error) {
		ans := answer(m.sig, c.Rows)
		ans.Outputs[0] = column(float32(math.Inf(1)))
		ans.Fallback = true
		return ans, nil
	}
	out, err := dialProto(t, a, m.sig).predict(t, `{"rows":[`+goodProto+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(out.Interface())
	if !strings.Contains(text, "predictions:{}") || !strings.Contains(text, "fallback:true") {
		t.Error(text)
	}
}

// violations is a status's faults as field and reason, a line each.
func violations(t *testing.T, err error) string {
	t.Helper()
	s, _ := status.FromError(err)
	if s.Code() != codes.InvalidArgument || len(s.Details()) != 1 {
		t.Fatalf("%v, details %v", err, s.Details())
	}
	var out []string
	for _, v := range s.Details()[0].(*errdetails.BadRequest).FieldViolations {
		if v.Description == "" {
			t.Errorf("%v", v)
		}
		out = append(out, v.Field+" "+v.Reason)
	}
	return strings.Join(out, "\n")
}

func TestProtoFaults(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	c := dialProto(t, a, m.sig)
	_, err := c.predict(t, `{"id":"a b","rows":[{},{"bird_species":"wern","bird_weight":"NaN"},{"bird_species":"owl","bird_weight":-1,"bird_note":"␀","nest_level":7,"nest_note":"\u0000"}]}`)
	want := `id BAD_TEXT
rows[0].bird_species MISSING
rows[0].bird_weight MISSING
rows[1].bird_species UNKNOWN_VALUE
rows[1].bird_weight NOT_FINITE
rows[2].bird_weight OUT_OF_RANGE
rows[2].bird_note RESERVED_TEXT
rows[2].nest_level UNKNOWN_VALUE
rows[2].nest_note RESERVED_TEXT`
	got := violations(t, err)
	if strings.Join(sorted(got), "\n") != strings.Join(sorted(want), "\n") {
		t.Errorf("%s", got)
	}
	if _, err = c.predict(t, `{}`); violations(t, err) != "rows EMPTY" {
		t.Error(err)
	}
	if m.last.Inputs != nil {
		t.Error("the model was asked")
	}
}

func sorted(s string) []string {
	l := strings.Split(s, "\n")
	for i := range l {
		for k := i; k > 0 && l[k] < l[k-1]; k-- {
			l[k], l[k-1] = l[k-1], l[k]
		}
	}
	return l
}

// TestProtoFaultsFitAHeader: clients take 8 KiB of headers at least.
func TestProtoFaultsFitAHeader(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	_, err := dialProto(t, a, m.sig).predict(t, `{"rows":[`+strings.Repeat(`{},`, 99)+`{}]}`)
	s, _ := status.FromError(err)
	told := strings.Count(violations(t, err), "\n") + 1
	if size := proto.Size(s.Proto()); size > 5<<10 || told < 20 || !strings.Contains(s.Message(), fmt.Sprintf("(%d of them are not told)", 200-told)) {
		t.Errorf("%d bytes, %d told: %s", size, told, s.Message())
	}
}

func TestProtoErrorsAsCodes(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	c := dialProto(t, a, m.sig)
	for want, err := range map[codes.Code]error{
		codes.ResourceExhausted: &api.Error{Kind: api.Overloaded, Text: "slower", RetryAfter: time.Second},
		codes.Unavailable:       api.Errorf(api.Unavailable, "full"),
		codes.DeadlineExceeded:  context.DeadlineExceeded,
		codes.Canceled:          context.Canceled,
		codes.Internal:          os.ErrNotExist,
	} {
		m.infer = func(context.Context, api.Call) (api.Answer, error) { return api.Answer{}, err }
		_, got := c.predict(t, `{"rows":[`+goodProto+`]}`)
		s, _ := status.FromError(got)
		if s.Code() != want || strings.Contains(s.Message(), "file") {
			t.Errorf("%v: %v", err, got)
		}
		if want == codes.ResourceExhausted && s.Details()[0].(*errdetails.RetryInfo).RetryDelay.AsDuration() != time.Second {
			t.Errorf("%v", s.Details())
		}
	}
	m.sig = nil
	if _, err := c.predict(t, `{"rows":[`+goodProto+`]}`); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestProtoTooMuch(t *testing.T) {
	a, m := setup(birds(kind.Binary), func(s *service.Service) { s.Limits.Body = 10_000 })
	c := dialProto(t, a, m.sig)
	for _, request := range []string{`{"rows":[` + strings.Repeat(goodProto+`,`, 100) + goodProto + `]}`, `{"key":"` + strings.Repeat("x", 10_000) + `"}`} {
		if _, err := c.predict(t, request); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%.50s: %v", request, err)
		}
	}
}

func TestProtoInterceptorsSeeTheCall(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	var seen string
	c := dialProto(t, a, m.sig, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		seen = info.FullMethod
		return h(ctx, req)
	}))
	if _, err := c.predict(t, `{"rows":[`+goodProto+`]}`); err != nil || seen != "/mlc.garden.birds.v1.Predictor/Predict" {
		t.Errorf("%q, %v", seen, err)
	}
}

// TestProtoAndJSONGiveTheSameTensors sends rows both ways.
func TestProtoAndJSONGiveTheSameTensors(t *testing.T) {
	svc, sig := testService(), birds(kind.Binary)
	f := newForm(svc, sig)
	desc := compile(t, svc, sig).Messages().ByName("PredictRequest")
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		body := request(f).Draw(t, "body")
		var j, p batch
		j.reset(f, pathRows, 100)
		if wrong, err := j.readJSON([]byte(body)); wrong != nil || err != nil {
			t.Fatal(wrong, err)
		}
		if j.any() {
			return
		}
		// Protobuf's JSON takes integers only as such, and is stricter with times.
		var in struct {
			Rows     []map[string]any
			Features map[string]any
		}
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		if in.Features != nil {
			in.Rows = []map[string]any{in.Features}
		}
		m := dynamicpb.NewMessage(desc)
		for r, row := range in.Rows {
			x := m.Mutable(desc.Fields().ByName("rows")).List().AppendMutable().Message()
			for i := range f.fields {
				fd := x.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(f.fields[i].number))
				switch v := row[f.fields[i].Name].(type) {
				case nil:
				case bool:
					x.Set(fd, protoreflect.ValueOfBool(v))
				case float64:
					d := j.numbers[r*f.numbers+f.fields[i].slot]
					if f.fields[i].Type == types.Int {
						if d >= 1<<63 {
							return // one that has no double of its own
						}
						x.Set(fd, protoreflect.ValueOfInt64(int64(d)))
					} else {
						x.Set(fd, protoreflect.ValueOfFloat64(d))
					}
				case string:
					if f.fields[i].Type == types.Timestamp {
						at, err := time.Parse(time.RFC3339, v)
						if err != nil {
							t.Fatal(err)
						}
						if at.Unix() < -62135596800 || at.Unix() > 253402300799 {
							return // beyond what protobuf's timestamps hold
						}
						ts := x.Mutable(fd).Message()
						ts.Set(ts.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(at.Unix()))
						ts.Set(ts.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(int32(at.Nanosecond())))
						continue
					}
					x.Set(fd, protoreflect.ValueOfString(v))
				}
			}
		}
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		p.reset(f, pathProto, 100)
		if err := p.readProto(raw); err != nil || p.any() {
			t.Fatalf("%v %v", err, p.told)
		}
		want := tensorsByName(&j)
		for name, got := range tensorsByName(&p) {
			if !same(got, want[name]) {
				t.Fatalf("%s: %v, not %v", name, got, want[name])
			}
		}
		taken++
	})
	if taken < 10 {
		t.Errorf("%d taken: the property says little", taken)
	}
}

// FuzzReadProto holds the reader against Go's protobuf: what that refuses is refused,
// and what is taken has the values that it reads.
func FuzzReadProto(f *testing.F) {
	svc, sig := testService(), birds(kind.Binary)
	fm := newForm(svc, sig)
	file := compile(f, svc, sig)
	desc := file.Messages().ByName("PredictRequest")
	for _, s := range []string{`{"rows":[` + goodProto + `],"id":"x","key":"ü"}`, `{}`, `{"rows":[{}]}`,
		`{"rows":[{"bird_species":"owl","bird_weight":1,"bird_eggs":"7","bird_ringed":true,"bird_note":"é","nest_seen":"2024-01-31T12:00:00.5Z","nest_level":"2","nest_height":-0.5,"nest_count":"-1"}]}`} {
		m := dynamicpb.NewMessage(desc)
		if err := protojson.Unmarshal([]byte(s), m); err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
		f.Add(protowire.AppendVarint(protowire.AppendTag(b, 9, protowire.VarintType), 1))
	}
	f.Add([]byte{0x0a, 0x02, 0x08, 0x01})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b batch
		b.reset(fm, pathProto, 1000)
		err := b.readProto(raw)
		m := dynamicpb.NewMessage(desc)
		if e := proto.Unmarshal(raw, m); e != nil {
			if err == nil && !b.any() {
				t.Fatalf("%x is taken: %v", raw, e)
			}
			return
		}
		if err != nil || b.any() {
			return
		}
		rows := m.Get(desc.Fields().ByName("rows")).List()
		if rows.Len() != b.rows || m.Get(desc.Fields().ByName("id")).String() != b.id || m.Get(desc.Fields().ByName("key")).String() != b.key {
			t.Fatalf("%x: %d rows, id %q, key %q", raw, b.rows, b.id, b.key)
		}
		cols := tensorsByName(&b)
		for r := range rows.Len() {
			x := rows.Get(r).Message()
			for i := range fm.fields {
				fd := x.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(fm.fields[i].number))
				if fm.fields[i].text {
					want := types.NullString
					if x.Has(fd) {
						want = x.Get(fd).String()
					}
					if got := cols[fm.fields[i].Name].([]string)[r]; got != want {
						t.Fatalf("%x: %s is %q, not %q", raw, fm.fields[i].Name, got, want)
					}
					continue
				}
				want := math.NaN()
				if x.Has(fd) {
					switch v := x.Get(fd); fm.fields[i].Type {
					case types.Int:
						want = float64(v.Int())
					case types.Float:
						want = v.Float()
					case types.Bool:
						want = 0
						if v.Bool() {
							want = 1
						}
					default:
						ts := v.Message()
						fs := ts.Descriptor().Fields()
						want = float64(time.Unix(ts.Get(fs.ByName("seconds")).Int(), ts.Get(fs.ByName("nanos")).Int()).UnixMicro())
					}
				}
				if got := cols[fm.fields[i].Name].([]float64)[r]; got != want && (got == got || want == want) {
					t.Fatalf("%x: %s is %v, not %v", raw, fm.fields[i].Name, got, want)
				}
			}
		}
	})
}

// odd is a service and signature whose names protobuf does not take as they are.
func odd() (*service.Service, *bundle.Signature) {
	svc := testService()
	svc.System, svc.Name = "Größe 1", "2nd-service"
	sig := birds(kind.Regression)
	sig.Raw = []lower.Field{{Name: "a.b_c", Type: types.Int}, {Name: "a_b.c", Type: types.Int}, {Name: "a.bC", Type: types.Int}, {Name: "9.é", Column: "x\ny", Type: types.String, In: []any{"*/ \"\n", "y"}}, {Name: "a.b_c_2", Type: types.Bool}}
	inputs(sig)
	return svc, sig
}

func TestOddNames(t *testing.T) {
	svc, sig := odd()
	row := compile(t, svc, sig).Messages().ByName("Row").Fields()
	var got []string
	for i := range row.Len() {
		got = append(got, fmt.Sprintf("%s=%d", row.Get(i).Name(), row.Get(i).Number()))
	}
	if s := strings.Join(got, " "); s != "a_b_c_337255274=337255274 a_b_c_47792263=47792263 a_bC_356284342=356284342 x_9___=535871818 a_b_c_2=210893775" {
		t.Error(s)
	}
}

// Numbers are those of names and types: with these, clients that are out there send them.
func TestFieldNumbers(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  types.Type
		want int
	}{{"f.income", types.Float, 215805232}, {"f.income", types.Int, 530584021}, {"f.debt", types.Float, 158856183}} {
		if n := numberOf(c.name, c.typ); n != c.want {
			t.Errorf("%s %s has number %d", c.typ, c.name, n)
		}
	}
	sig := &bundle.Signature{Raw: make([]lower.Field, 2000)}
	for i := range sig.Raw {
		sig.Raw[i].Name = fmt.Sprintf("f.%d", i)
	}
	f := newForm(testService(), sig)
	for _, start := range []int{0, 1000, 2000, 3000} { // wherever the last field was
		for i := range f.fields {
			next, n := start, protowire.Number(f.fields[i].number)
			if n < 1 || n > protowire.MaxValidNumber || n >= 19000 && n <= 19999 || f.fieldOf(n, &next) != i {
				t.Fatalf("field %d has number %d", i, n)
			}
		}
	}
	next := 0
	if f.fieldOf(19500, &next) != -1 || f.fieldOf(1, &next) != -1 {
		t.Error("numbers of no field")
	}

	// Two of one number are told, and never taken for each other.
	seen := map[int]string{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("g.%d", i)
		n := numberOf(name, types.Float)
		other, twice := seen[n]
		seen[n] = name
		if !twice {
			continue
		}
		sig := birds(kind.Binary)
		sig.Raw = append(sig.Raw, lower.Field{Name: name, Type: types.Float, Nullable: true}, lower.Field{Name: other, Type: types.Float, Nullable: true})
		inputs(sig)
		if _, err := Proto(testService(), sig); err == nil || !strings.Contains(err.Error(), "have the same number in protobuf") {
			t.Errorf("%s and %s: %v", name, other, err)
		}
		a, m := setup(sig, nil)
		m.sig = birds(kind.Binary)
		c := dialProto(t, a, m.sig)
		m.sig = sig
		if _, err := c.predict(t, `{"rows":[`+goodProto+`]}`); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		if w := post(a, `{"features":`+good+`}`); w.Code != 200 {
			t.Error(w.Body)
		}
		break
	}
}

// A client stays right when a version comes that has other features, or these in another
// order; what is of another type is told.
func TestProtoOfAnotherVersion(t *testing.T) {
	a, m := setup(birds(kind.Binary), nil)
	c := dialProto(t, a, m.sig)
	row := `{"rows":[{"bird_species":"wren","bird_weight":9.5,"bird_eggs":3,"bird_ringed":true,"nest_height":2}]}`
	value := func(name string) any {
		for i, in := range m.sig.Inputs {
			if in.Name == name {
				return m.last.Inputs[i].(ort.Tensor).Data
			}
		}
		return nil
	}
	ask := func() {
		t.Helper()
		if _, err := c.predict(t, row); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{"bird.species": []string{"wren"}, "bird.weight": []float64{9.5}, "bird.eggs": []float64{3}, "bird.ringed": []float64{1}, "nest.height": []float64{2}} {
			if got := value(name); !reflect.DeepEqual(got, want) {
				t.Errorf("%s is %v, not %v", name, got, want)
			}
		}
	}
	ask()
	m.sig = birds(kind.Binary)
	slices.Reverse(m.sig.Raw)
	m.sig.Raw = slices.Insert(m.sig.Raw, 3, lower.Field{Name: "bird.age", Type: types.Int, Nullable: true}, lower.Field{Name: "aa.gap", Type: types.Float, Nullable: true})
	inputs(m.sig)
	ask()
	m.sig = birds(kind.Binary)
	m.sig.Raw[2].Type = types.Bool // eggs
	inputs(m.sig)
	if _, err := c.predict(t, row); !strings.Contains(violations(t, err), "UNKNOWN") {
		t.Error(err)
	}
}

// TestProtocTakesTheProto runs the compiler that users have.
func TestProtocTakesTheProto(t *testing.T) {
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Skip("SKIPPED: no protoc; apt-get install protobuf-compiler")
	}
	dir := t.TempDir()
	write := func(name string, svc *service.Service, sig *bundle.Signature) {
		text, err := Proto(svc, sig)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(protoc, "-I", dir, "--fatal_warnings", "--python_out="+dir, "--descriptor_set_out="+filepath.Join(dir, "set"), filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s\n%s", err, out, text)
		}
	}
	for _, task := range tasks {
		write(task+".proto", testService(), birds(task))
	}
	svc, sig := odd()
	write("odd.proto", svc, sig)
}

// TestGeneratedPythonClient generates a client from the .proto, as users do, and
// calls a server with it.
func TestGeneratedPythonClient(t *testing.T) {
	py := python(t, "grpc_tools, grpc")
	a, m := setup(birds(kind.Binary), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	a.Register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	text, err := Proto(a.svc, m.sig)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "predictor.proto"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `
import sys, datetime, grpc
from grpc_tools import protoc
import grpc_tools, os
d, addr = sys.argv[1:]
std = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
assert protoc.main(["protoc", "-I", d, "-I", std, "--python_out=" + d, "--grpc_python_out=" + d, "predictor.proto"]) == 0
sys.path.insert(0, d)
import predictor_pb2 as pb, predictor_pb2_grpc as rpc
stub = rpc.PredictorStub(grpc.insecure_channel(addr))
row = pb.Row(bird_species="wren", bird_weight=0, bird_ringed=False)
row.nest_seen.FromDatetime(datetime.datetime(2024, 1, 31, 12))
res, call = stub.Predict.with_call(pb.PredictRequest(rows=[row, row], id="py"))
print(res.id, res.version, [(round(p.probability, 3), p.decision) for p in res.predictions], dict(call.initial_metadata())["x-request-id"])
try:
    stub.Predict(pb.PredictRequest(rows=[pb.Row(bird_species="wern", bird_weight=1)]))
except grpc.RpcError as e:
    print(e.code().name, e.details())
`
	out, err := exec.Command(py, "-c", script, dir, l.Addr().String()).CombinedOutput()
	want := "py 3 [(0.0, False), (0.1, False)] py\n" + `INVALID_ARGUMENT rows[0].bird_species: "wern" is not among the values that it takes` + "\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	cols := columns(a, m.last)
	if !same(cols["bird.weight"], []float64{0, 0}) || !same(cols["bird.ringed"], []float64{0, 0}) || !same(cols["bird.note"], []string{types.NullString, types.NullString}) ||
		!same(cols["nest.seen"], []float64{1706702400e6, 1706702400e6}) || !same(cols["bird.eggs"], []float64{math.NaN(), math.NaN()}) {
		t.Errorf("the model got %v", cols)
	}
}
