package typed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
)

// member is one of an object, in order and with repetition.
type pair struct {
	name  string
	value json.RawMessage
}

// pairs reads an object with encoding/json.
func pairs(raw json.RawMessage) ([]pair, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	var out []pair
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, false
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, false
		}
		out = append(out, pair{t.(string), v})
	}
	return out, true
}

// oracle reads a request with encoding/json and says what the model should get, by
// feature. It is written for clarity, and shares nothing with the decoder but the
// signature.
func oracle(f *form, body []byte) (map[string]any, bool) {
	top, ok := pairs(body)
	if !ok {
		return nil, false
	}
	var rows []json.RawMessage
	seen := map[string]bool{}
	for _, p := range top {
		if seen[p.name] {
			return nil, false
		}
		seen[p.name] = true
		var s *string
		switch p.name {
		case "rows":
			if json.Unmarshal(p.value, &rows) != nil || len(rows) == 0 {
				return nil, false
			}
		case "features":
			rows = []json.RawMessage{p.value}
		case "id":
			if json.Unmarshal(p.value, &s) != nil || s == nil || !regexp.MustCompile(`^[!-~]{1,128}$`).MatchString(*s) {
				return nil, false
			}
		case "key":
			if json.Unmarshal(p.value, &s) != nil || s == nil || len([]rune(*s)) > 256 {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	if seen["rows"] == seen["features"] {
		return nil, false
	}
	out := map[string]any{}
	for _, x := range f.sig.Raw {
		if x.Type == types.String {
			out[x.Name] = []string{}
		} else {
			out[x.Name] = []float64{}
		}
	}
	for _, raw := range rows {
		row, ok := pairs(raw)
		if !ok {
			return nil, false
		}
		brought := map[string]json.RawMessage{}
		for _, p := range row {
			name := ""
			for _, x := range f.sig.Raw {
				if p.name == x.Name {
					name = x.Name
				}
			}
			if name == "" {
				n := 0
				for _, x := range f.sig.Raw {
					if p.name == x.Column && x.Column != "" {
						name = x.Name
						n++
					}
				}
				if n != 1 {
					return nil, false
				}
			}
			if brought[name] != nil {
				return nil, false
			}
			brought[name] = p.value
		}
		for _, x := range f.sig.Raw {
			v := brought[x.Name]
			if v == nil || string(v) == "null" {
				if !x.Nullable {
					return nil, false
				}
				if x.Type == types.String {
					out[x.Name] = append(out[x.Name].([]string), types.NullString)
				} else {
					out[x.Name] = append(out[x.Name].([]float64), math.NaN())
				}
				continue
			}
			var d float64
			switch x.Type {
			case types.String:
				var s string
				if json.Unmarshal(v, &s) != nil || s == types.NullString || strings.Contains(s, "\x00") {
					return nil, false
				}
				right := len(x.In) == 0
				for _, in := range x.In {
					right = right || in == s
				}
				if !right {
					return nil, false
				}
				out[x.Name] = append(out[x.Name].([]string), s)
				continue
			case types.Bool:
				var b bool
				if json.Unmarshal(v, &b) != nil {
					return nil, false
				}
				if b {
					d = 1
				}
			case types.Timestamp:
				var s string
				if json.Unmarshal(v, &s) != nil {
					return nil, false
				}
				at, err := time.Parse(time.RFC3339, strings.ToUpper(s))
				if err != nil || !strict.MatchString(strings.ToUpper(s)) {
					return nil, false
				}
				d = float64(at.UnixMicro())
			case types.Int:
				if len(v) > 64 || v[0] == '"' {
					return nil, false
				}
				r, ok := whole(string(v))
				if !ok {
					return nil, false
				}
				d = r
			default:
				if json.Unmarshal(v, &d) != nil {
					return nil, false
				}
			}
			if x.Min != nil && d < *x.Min || x.Max != nil && d > *x.Max {
				return nil, false
			}
			right := len(x.In) == 0
			for _, in := range x.In {
				right = right || in == d
			}
			if !right {
				return nil, false
			}
			out[x.Name] = append(out[x.Name].([]float64), d)
		}
	}
	return out, true
}

// whole reads a number as a whole one of 64 bits by way of fractions.
func whole(lit string) (float64, bool) {
	if i := strings.IndexAny(lit, "eE"); i >= 0 {
		if e, err := strconv.Atoi(lit[i+1:]); err != nil || e < -400 || e > 400 {
			lit = lit[:i] + map[bool]string{true: "e-400", false: "e400"}[strings.Contains(lit[i:], "-")]
		}
	}
	r, ok := new(big.Rat).SetString(lit)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	d, _ := new(big.Float).SetInt(r.Num()).Float64()
	return d, true
}

var escaped = regexp.MustCompile(`\\(u[0-9a-fA-F]{4}|.)`)

// lone reports whether valid JSON has an escape that is half of a surrogate pair.
func lone(b []byte) bool {
	high := -1
	for _, at := range escaped.FindAllIndex(b, -1) {
		var r uint64
		if e := b[at[0]:at[1]]; len(e) == 6 {
			r, _ = strconv.ParseUint(string(e[2:]), 16, 32)
		}
		low := r >= 0xdc00 && r < 0xe000
		if high >= 0 && (high != at[0] || !low) || high < 0 && low {
			return true
		}
		if high = -1; r >= 0xd800 && r < 0xdc00 {
			high = at[1]
		}
	}
	return high >= 0
}

// tensorsByName are what b gives the model, by feature.
func tensorsByName(b *batch) map[string]any {
	out := map[string]any{}
	for i, v := range b.tensors() {
		out[b.sig.Inputs[i].Name] = v.(ort.Tensor).Data
	}
	return out
}

// hold compares the decoder with the oracle on body.
func hold(f *form, b *batch, body []byte) error {
	b.reset(f, pathRows, 1000)
	wrong, tooMany := b.readJSON(body)
	if tooMany != nil {
		return nil
	}
	text := json.Valid(body) && utf8.Valid(body) && !lone(body)
	if wrong != nil {
		if text && !strings.Contains(wrong.Text, "nested deeper") {
			return fmt.Errorf("refused as no JSON: %v", wrong)
		}
		return nil
	}
	if !text {
		return errors.New("taken as JSON")
	}
	want, ok := oracle(f, body)
	if ok == b.any() {
		return fmt.Errorf("the oracle says %v, the decoder %v", ok, b.told)
	}
	if !ok {
		for _, x := range b.told {
			if x.Path == "" || x.Code == "" || x.What == "" || !utf8.ValidString(x.Path+x.What+x.Mend) {
				return fmt.Errorf("fault %+v", x)
			}
		}
		if !json.Valid(append(b.appendJSON([]byte("{")), '}')) {
			return errors.New("the faults are no JSON")
		}
		return nil
	}
	for name, got := range tensorsByName(b) {
		if !same(got, want[name]) {
			return fmt.Errorf("%s: %v, not %v", name, got, want[name])
		}
	}
	return nil
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"features":` + good + `}`, `{"rows":[` + good + `,` + good + `],"id":"x","key":"é"}`, `{"rows":[]}`, `{}`, `[]`, ``, `{"rows":[{}]}`,
		`{"features":{"species":"owl","weight":1e3,"bird.eggs":70e-1,"ringed":false,"bird.note":"\ud83d\ude00","nest.seen":"2024-02-29T23:59:59.123456789-00:30","nest.level":2.0,"height":-0.0,"count":9007199254740993}}`,
		`{"features":{"bird.species":"owl","bird.weight":1,"count":-9223372036854775808}}`, `{"features":{"bird.species":"owl","bird.weight":1,"count":9223372036854775807.0}}`,
		`{"features":{"bird.species":"owl","bird.weight":1,"count":0e999999999999999999}}`, `{"features":{"bird.species":"owl","bird.weight":1,"count":100000000000000000000e-2}}`,
		`{"features":{"bird.species":"owl","bird.weight":1,"note":"x"}}`, `{"features":{"bird.species":"owl","species":"owl","bird.weight":1}}`,
		`{"features":{"bird.species":"owl","bird.weight":1e999}}`, `{"features":{"bird.species":"owl","bird.weight":NaN}}`, `{"features":{"bird.species":"␀","bird.weight":1}}`,
		`{"features":{"bird.species":"owl","bird.weight":1,"bird.note":"\u0000"}}`, `{"features":{"bird.species":"owl","bird.weight":1,"nest.seen":"2023-02-29T00:00:00Z"}}`,
		`{"rows":[` + good + `],"rows":[` + good + `]}`, `{"rows":[[[[{}]]]]}`, `{"id":"\ud800","features":{}}`, `{"features":{"bird.species":"owl","bird.weight":1,"nest.seen":"2024-01-31t12:00:00z"}}`,
		`{"features":{"bird.species":"owl","bird.weight":1,"bird.note":"` + "\xff" + `"}}`,
	} {
		f.Add([]byte(s))
	}
	fm := newForm(testService(), birds(kind.Binary))
	f.Fuzz(func(t *testing.T, body []byte) {
		var b batch
		if err := hold(fm, &b, body); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
	})
}

// literal draws a JSON value, mostly such as feature x takes.
func literal(x *field) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 49).Draw(t, "odd") == 49 {
			return rapid.SampledFrom([]string{"null", "true", `"x"`, "[1]", "{}", "-1", "1.5", "1e400", `"␀"`, `"\u0000"`, "3", `"NaN"`, `"2024-02-30T00:00:00Z"`}).Draw(t, "value")
		}
		if x.Nullable && rapid.IntRange(0, 5).Draw(t, "missing") == 0 {
			return "null"
		}
		var v any
		switch {
		case len(x.In) > 0:
			v = rapid.SampledFrom(x.In).Draw(t, "in")
		case x.Type == types.Bool:
			v = rapid.Bool().Draw(t, "bool")
		case x.Type == types.Int:
			i := rapid.Int64Range(int64(max(x.min, math.MinInt64)), math.MaxInt64).Draw(t, "int")
			return rapid.SampledFrom([]string{fmt.Sprint(i), fmt.Sprintf("%d.0", i), fmt.Sprintf("%de0", i), fmt.Sprintf("%d.000e1", i/100), fmt.Sprintf("%d.00e+0", i), fmt.Sprintf("%de-2", i/100*100)}).Draw(t, "form")
		case x.Type == types.Float:
			d := rapid.Float64Range(max(x.min, -math.MaxFloat64), min(x.max, math.MaxFloat64)).Draw(t, "float")
			return rapid.SampledFrom([]string{strconv.FormatFloat(d, 'e', -1, 64), strconv.FormatFloat(d, 'f', -1, 64), number(d)}).Draw(t, "form")
		case x.Type == types.Timestamp:
			at := time.UnixMicro(rapid.Int64Range(-62135596800e6, 253402300799e6).Draw(t, "micros"))
			v = at.In(time.FixedZone("", 60*rapid.IntRange(-1439, 1439).Draw(t, "zone"))).Format(time.RFC3339Nano)
		default:
			v = rapid.String().Draw(t, "string")
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	})
}

// row draws a row, mostly such as the model takes: its members by full names.
func row(f *form) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var members []string
		for _, i := range rapid.Permutation(indices(len(f.fields))).Draw(t, "order") {
			x := &f.fields[i]
			if x.Nullable && rapid.Bool().Draw(t, "left out") || rapid.IntRange(0, 99).Draw(t, "forgotten") == 99 {
				continue
			}
			members = append(members, fmt.Sprintf("%q : %s", x.Name, literal(x).Draw(t, x.Name)))
		}
		if rapid.IntRange(0, 29).Draw(t, "unknown") == 29 {
			members = append(members, `"nest.heigth":1`)
		}
		return "{" + strings.Join(members, ", ") + "}"
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// request draws a whole request.
func request(f *form) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "one") {
			return `{"features":` + row(f).Draw(t, "row") + `}`
		}
		rows := rapid.SliceOfN(row(f), 0, 4).Draw(t, "rows")
		if len(rows) == 0 && rapid.Bool().Draw(t, "some") {
			rows = []string{`{}`}
		}
		return `{"id":"x","rows":[` + strings.Join(rows, ",\n") + `]}`
	})
}

func TestDecoderAgreesWithEncodingJSON(t *testing.T) {
	f := newForm(testService(), birds(kind.Binary))
	var b batch
	taken, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		body := request(f).Draw(t, "body")
		if err := hold(f, &b, []byte(body)); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if b.any() {
			refused++
		} else {
			taken++
		}
	})
	if taken < 10 || refused < 10 {
		t.Errorf("%d taken, %d refused: the property says little", taken, refused)
	}
}

// strict is RFC 3339, of which time.Parse takes more.
var strict = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func FuzzTime(f *testing.F) {
	for _, s := range []string{"2024-01-31T12:00:00Z", "2024-01-31T12:00:00.1+01:00", "1969-12-31T23:59:59.9999999Z", "0000-01-01T00:00:00-23:59", "2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00,5Z", "2024-01-01 00:00:00Z", "2024-1-01T00:00:00Z", "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+1:00", "2024-01-01T00:00:00.Z", "9999-12-31T23:59:59z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseTime([]byte(s))
		s = strings.ToUpper(s)
		want, err := types.ParseTimestamp(s)
		if fine := err == nil && strict.MatchString(s); fine != ok || ok && got != float64(want) {
			t.Errorf("%q: %v %v, not %v %v", s, got, ok, want, fine)
		}
	})
}

func FuzzInt(f *testing.F) {
	for _, s := range []string{"0", "-0", "7", "-7", "1e3", "1.5", "15e-1", "10e-1", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9223372036854775807.0", "0.0000000000000000000000001e25", "1000000000000000000000000e-24", "0e99999999999999999999", "1e-99999999999999999999", "9007199254740993", "12345678901234567890123456789e-20", "1.000000000000000000000000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) || len(s) > 60 || s[0] != '-' && (s[0] < '0' || s[0] > '9') || strings.TrimSpace(s) != s {
			t.Skip()
		}
		got, ok := parseInt([]byte(s))
		want, fine := whole(s)
		if ok != fine || got != want {
			t.Errorf("%s: %v %v, not %v %v", s, got, ok, want, fine)
		}
	})
}

func TestTextsAndNumbersReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		var back string
		if err := json.Unmarshal(appendText(nil, s), &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q: %q, %v", s, back, err)
		}
		v := rapid.Float64().Draw(t, "number")
		var d float64
		if err := json.Unmarshal(appendFloat(nil, v, 64), &d); err != nil || d != v {
			t.Fatalf("%v: %v, %v", v, d, err)
		}
		f := rapid.Float32().Draw(t, "float")
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var x, y float32
		if json.Unmarshal(appendNumber(nil, f), &x) != nil || json.Unmarshal(want, &y) != nil || x != y {
			t.Fatalf("%v: %s", f, appendNumber(nil, f))
		}
	})
}

// TestAnswersReadAsGiven writes answers and reads them with encoding/json.
func TestAnswersReadAsGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sig := birds(kind.Multiclass)
		sig.Task.Classes = rapid.SliceOfNDistinct(rapid.String(), 3, 3, func(s string) string { return s }).Draw(t, "classes")
		f := newForm(testService(), sig)
		rows := rapid.IntRange(1, 5).Draw(t, "rows")
		p := rapid.SliceOfN(rapid.Float32(), 3*rows, 3*rows).Draw(t, "probabilities")
		classes := rapid.SliceOfN(rapid.SampledFrom(sig.Task.Classes), rows, rows).Draw(t, "class")
		a := answer(sig, rows)
		a.Outputs = []ort.Value{ort.Tensor{Shape: []int64{int64(rows), 3}, Data: p}, ort.Column(classes)}
		a.Variant = rapid.String().Draw(t, "variant")
		r, bad := f.results(&a, rows, 0.5)
		if bad != nil {
			t.Fatal(bad)
		}
		d := json.NewDecoder(bytes.NewReader(f.appendAnswer(nil, "x", &a, r, time.Second)))
		var got struct {
			Variant     string
			Predictions []struct {
				Class         string
				Probabilities map[string]float32
			}
			Timing struct {
				Total int64 `json:"total_us"`
			}
		}
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Fatal("something follows")
		}
		if got.Variant != a.Variant || len(got.Predictions) != rows || got.Timing.Total != 1e6 {
			t.Fatalf("%+v", got)
		}
		for i, x := range got.Predictions {
			if x.Class != classes[i] {
				t.Fatalf("row %d: class %q", i, x.Class)
			}
			for c, name := range sig.Task.Classes {
				if v, ok := x.Probabilities[name]; !ok || v != p[3*i+c] {
					t.Fatalf("row %d: %v", i, x)
				}
			}
		}
	})
}
