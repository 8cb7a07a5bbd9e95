package typed

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// results are an answer's outputs, looked at once.
type results struct {
	rows, width int
	main        []float32
	class       []string
	columns     []string // of main
	keys        []string // columns as keys of JSON
	threshold   float32
}

// labelCut is the least probability of a label that is told.
const labelCut = 0.5

// results finds the outputs of an answer and holds them against the signature.
func (f *form) results(a *api.Answer, rows int, threshold float64) (results, *api.Error) {
	r := results{rows: rows, width: f.sig.Task.Width(), columns: f.columns, keys: f.keys, threshold: float32(threshold)}
	if len(a.Columns) > 0 {
		r.width, r.columns, r.keys = len(a.Columns), a.Columns, keysOf(a.Columns)
	}
	bad := func() (results, *api.Error) {
		return r, &api.Error{Kind: api.Internal, Text: "the model's answer is not what its signature says"}
	}
	if len(a.Outputs) != len(f.sig.Outputs) {
		return bad()
	}
	t, ok := a.Outputs[f.main].(ort.Tensor)
	if !ok {
		return bad()
	}
	switch d := t.Data.(type) {
	case []float32:
		r.main = d
	case []float64:
		r.main = make([]float32, len(d))
		for i, v := range d {
			r.main[i] = float32(v)
		}
	}
	if len(r.main) != rows*r.width {
		return bad()
	}
	if f.class >= 0 {
		if t, ok = a.Outputs[f.class].(ort.Tensor); ok {
			r.class, _ = t.Data.([]string)
		}
		if len(r.class) != rows {
			return bad()
		}
	}
	return r, nil
}

// micros is d in whole microseconds.
func micros(d time.Duration) int64 { return int64(d / time.Microsecond) }

// appendAnswer writes the answer as JSON. A number that is not finite is null.
func (f *form) appendAnswer(b []byte, id string, a *api.Answer, r results, total time.Duration) []byte {
	b = appendText(append(b, `{"id":`...), id)
	b = appendText(append(b, `,"model":`...), a.Model)
	b = appendText(append(b, `,"version":`...), a.Version)
	b = appendText(append(b, `,"variant":`...), a.Variant)
	b = strconv.AppendBool(append(b, `,"fallback":`...), a.Fallback)
	b = append(b, `,"predictions":[`...)
	for i := range r.rows {
		if i > 0 {
			b = append(b, ',')
		}
		switch f.sig.Task.Kind {
		case kind.Binary:
			b = r.appendDecided(append(b, `{"probability":`...), i)
		case kind.Anomaly:
			b = r.appendDecided(append(b, `{"score":`...), i)
		case kind.Multiclass:
			b = appendText(append(b, `{"class":`...), r.class[i])
			b = r.appendColumns(append(b, `,"probabilities":`...), i)
		case kind.Multilabel:
			b = append(b, `{"labels":[`...)
			told := false
			for c, p := range r.row(i) {
				if p >= labelCut {
					if told {
						b = append(b, ',')
					}
					key := r.keys[c]
					b, told = append(b, key[:len(key)-1]...), true
				}
			}
			b = r.appendColumns(append(b, `],"probabilities":`...), i)
		case kind.Quantile:
			b = r.appendColumns(append(b, `{"quantiles":`...), i)
		default:
			b = appendNumber(append(b, `{"prediction":`...), r.main[i])
		}
		b = append(b, '}')
	}
	b = strconv.AppendInt(append(b, `],"timing":{"queue_us":`...), micros(a.Queue), 10)
	b = strconv.AppendInt(append(b, `,"compute_us":`...), micros(a.Compute), 10)
	b = strconv.AppendInt(append(b, `,"total_us":`...), micros(total), 10)
	return append(b, "}}\n"...)
}

// row is a row's columns.
func (r results) row(i int) []float32 { return r.main[i*r.width:][:r.width] }

// appendDecided writes a row's number and what is decided by it.
func (r results) appendDecided(b []byte, i int) []byte {
	p := r.main[i]
	b = append(appendNumber(b, p), `,"decision":`...)
	if !finite(p) {
		return append(b, "null"...)
	}
	return strconv.AppendBool(b, p >= r.threshold)
}

// appendColumns writes a row's columns by name.
func (r results) appendColumns(b []byte, i int) []byte {
	b = append(b, '{')
	for c, v := range r.row(i) {
		if c > 0 {
			b = append(b, ',')
		}
		b = appendNumber(append(b, r.keys[c]...), v)
	}
	return append(b, '}')
}

// keysOf are names as keys of JSON.
func keysOf(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(append(appendText(nil, n), ':'))
	}
	return out
}

func finite(v float32) bool { return v-v == 0 }

func appendNumber(b []byte, v float32) []byte {
	if !finite(v) {
		return append(b, "null"...)
	}
	return appendFloat(b, float64(v), 32)
}

// appendFloat writes the shortest decimal that reads as v of that many bits.
func appendFloat(b []byte, v float64, bits int) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, v, format, -1, bits)
}

// appendText writes a JSON string. What is not UTF-8 becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		case c == '"' || c == '\\':
			b = append(append(b, s[from:i]...), '\\', c)
			from = i + 1
		case c < ' ' || c == 0x7f:
			b = append(append(b, s[from:i]...), '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			from = i + 1
		}
		i++
	}
	return append(append(b, s[from:]...), '"')
}
