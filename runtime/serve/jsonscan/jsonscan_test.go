package jsonscan

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// read makes of the next value what encoding/json would, numbers as json.Number.
func read(s *Scanner) any {
	switch s.Peek() {
	case Object:
		out := map[string]any{}
		for s.Open(); s.Next(); {
			k := string(s.Key())
			out[k] = read(s)
		}
		return out
	case Array:
		out := []any{}
		for s.Open(); s.Next(); {
			out = append(out, read(s))
		}
		return out
	case String:
		return string(s.Text())
	case Number:
		return json.Number(s.Literal())
	case True, False:
		return s.Bool()
	case Null:
		s.Null()
	}
	return nil
}

var escapes = regexp.MustCompile(`\\(u[0-9a-fA-F]{4}|.)`)

// lone reports whether b, valid JSON, has an escape that is half of a surrogate
// pair: encoding/json makes U+FFFD of it.
func lone(b []byte) bool {
	high := -1 // where the low half has to follow
	for _, at := range escapes.FindAllIndex(b, -1) {
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

func depth(b []byte) int {
	max, n, in := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case in && c == '\\':
			i++
		case c == '"':
			in = !in
		case !in && (c == '{' || c == '['):
			n++
			if n > max {
				max = n
			}
		case !in && (c == '}' || c == ']'):
			n--
		}
	}
	return max
}

// hold compares the scanner with encoding/json on b.
func hold(t interface {
	Fatalf(string, ...any)
}, b []byte) {
	var s Scanner
	s.Reset(b)
	got := read(&s)
	ok := s.End()
	var again Scanner
	again.Reset(b)
	again.Skip()
	if skipped := again.End(); skipped != ok || !ok && *again.Err() != *s.Err() {
		t.Fatalf("%q: read %v, skipped %v", b, s.Err(), again.Err())
	}
	if !ok {
		if e := s.Err(); e.Offset < 0 || e.Offset > len(b) || e.Text == "" {
			t.Fatalf("%q: error %+v", b, e)
		}
		if json.Valid(b) && utf8.Valid(b) && depth(b) <= MaxDepth && !lone(b) {
			t.Fatalf("%q is refused: %v", b, s.Err())
		}
		return
	}
	if !json.Valid(b) || !utf8.Valid(b) || depth(b) > MaxDepth {
		t.Fatalf("%q is accepted", b)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var want any
	if err := d.Decode(&want); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	x, err := json.Marshal(got)
	if err != nil {
		t.Fatalf("%v", err)
	}
	y, err := json.Marshal(want)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("%q: got %s, want %s", b, x, y)
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `[]`, `{"a":[1,-0,0.5,1e9,1E-9,true,false,null,"x"]}`, `[1,]`, `{"a":1,}`, `[1 2]`, `{"a" 1}`, `{a:1}`, `{"a":1`, `"\u00e9\n\/\\"`,
		`"\ud83d\ude00"`, `"\ud83d"`, `"\ud83d\u0041"`, `"\ude00"`, "\"\xff\"", "\"a\\n\xff\"", "\"\x01\"", `"\x"`, `"\u12"`, `NaN`, `-Infinity`, `[Infinity]`, `01`, `-`, `1.`, `1e`, `1e+`, `.5`, `+1`,
		`nul`, `truex`, `1 2`, "\ufeff{}", strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 65) + strings.Repeat("]", 65), `[}`, `{]`, "\x00", "[\x00]", `{"":{"":[]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { hold(t, b) })
}

func TestHalvesOfSurrogatePairsAreRefused(t *testing.T) {
	for _, b := range []string{`"\ud83d"`, `"\ude00"`, `"\ud83d\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`} {
		var s Scanner
		s.Reset([]byte(b))
		s.Text()
		if s.End() {
			t.Errorf("%s is accepted", b)
		}
		if !lone([]byte(b)) {
			t.Errorf("%s: the oracle sees no half", b)
		}
	}
}

func TestEveryErrorHasItsByte(t *testing.T) {
	for b, want := range map[string]string{
		``:                      "at byte 0: it ends where a value should stand",
		`{"a":1`:                "at byte 6: it ends where a comma or } should stand",
		`{"a":NaN}`:             "at byte 5: NaN and Infinity are no JSON; a missing value is null",
		`[-Infinity]`:           "at byte 2: NaN and Infinity are no JSON; a missing value is null",
		`[1,]`:                  "at byte 3: ']' where a value should stand",
		`{"a":1,}`:              "at byte 7: '}' where a name in quotes should stand",
		`[1] x`:                 "at byte 4: something follows the value",
		`[01]`:                  "at byte 2: a number with a leading zero",
		`"abc`:                  "at byte 4: it ends within a string",
		"\"a\nb\"":              "at byte 2: control character 0x0a in a string; escape it",
		"\"a\xffb\"":            "at byte 2: a string that is not UTF-8",
		`"a\qb"`:                "at byte 2: an escape that JSON does not have",
		"\xef\xbb\xbf{}":        "at byte 0: byte 0xef where a value should stand",
		strings.Repeat("[", 99): "at byte 64: nested deeper than 64 levels",
	} {
		var s Scanner
		s.Reset([]byte(b))
		s.Skip()
		s.End()
		if s.Err() == nil || s.Err().Error() != want {
			t.Errorf("%q: %v, not %s", b, s.Err(), want)
		}
	}
}

func TestWhatEncodingJSONWritesIsRead(t *testing.T) {
	scalar := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.String(), func(s string) any { return s }))
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		return rapid.OneOf(scalar, rapid.Map(rapid.SliceOfN(value(depth-1), 0, 4), func(v []any) any { return v }),
			rapid.Map(rapid.MapOfN(rapid.String(), value(depth-1), 0, 4), func(v map[string]any) any { return v }))
	}
	rapid.Check(t, func(t *rapid.T) {
		v := value(3).Draw(t, "value")
		b, err := json.Marshal(v)
		if err != nil {
			t.Skip()
		}
		if rapid.Bool().Draw(t, "indented") {
			var out bytes.Buffer
			if err := json.Indent(&out, b, "", "\t"); err != nil {
				t.Fatal(err)
			}
			b = out.Bytes()
		}
		hold(t, b)
		if len(b) > 0 {
			cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
			hold(t, b[:cut])
		}
	})
}

func TestScanningDoesNotAllocate(t *testing.T) {
	b := []byte(`{"rows":[{"a":1.5,"b":"text","c":null,"d":true,"e":[[1],{"x":2}]}]}`)
	var s Scanner
	if n := testing.AllocsPerRun(100, func() { s.Reset(b); s.Skip(); s.End() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSkip(b *testing.B) {
	var body []byte
	body = append(body, '[')
	for i := range 1000 {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"a":1.5,"b":"text","c":null,"d":true,"e":`...)
		body = strconv.AppendInt(body, int64(i), 10)
		body = append(body, '}')
	}
	body = append(body, ']')
	var s Scanner
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(body)
		s.Skip()
		if !s.End() {
			b.Fatal(s.Err())
		}
	}
}
