// Package text turns texts into TF-IDF columns of their words or characters.
package text

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/murmur3"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed text.cue
var source string

// Encoder is the kind "text".
type Encoder struct{}

// Name is "text".
func (Encoder) Name() string { return "text" }

// Version of the implementation.
func (Encoder) Version() int { return 2 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Text.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "text", Def: "#Text", Source: source}
}

type args struct {
	Analyzer  string `json:"analyzer"`
	MinLength int    `json:"min_length"`
	Ngrams    struct {
		Min int `json:"min"`
		Max int `json:"max"`
	} `json:"ngrams"`
	MinCount  int  `json:"min_count"`
	Max       int  `json:"max"`
	Bits      int  `json:"bits"` // 0: a vocabulary
	Sublinear bool `json:"sublinear"`
}

// between is what stands between the tokens of an n-gram where it is one text.
func (a args) between() string {
	if a.Analyzer == "char" {
		return ""
	}
	return " "
}

type params struct {
	// Grams are the columns' n-grams, the short ones first; none where they are hashed.
	Grams [][]string `json:"grams,omitempty"`
	IDF   []float32  `json:"idf"`
}

// pattern is the regular expression of a token, for RE2 and for Go alike. Of a
// missing value it matches nothing. \w would be ASCII alone. ONNX Runtime's RE2 has
// the letters of Unicode 15.1, Go those of 15.0; what came between, the ideographs
// of extension I, is named. The tests prove that they agree on every character.
func (a args) pattern() string {
	if a.Analyzer == "char" {
		return "[^" + types.NullString + "]"
	}
	return fmt.Sprintf(`[\pL\pN_\x{2EBF0}-\x{2EE5D}]{%d,}`, a.MinLength)
}

// Accepts texts, and gives a block.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Block, in == kind.Texts
}

// Fit learns the n-grams of the most rows, equals by name, and how rare they are:
// ln((1 + rows) / (1 + rows with it)) + 1, as scikit-learn's TfidfVectorizer has
// it. Missing values count among the rows. It fails where no n-gram is left.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	if a.Bits > 0 {
		return json.Marshal(params{IDF: a.bucketIDF(v)})
	}
	token := regexp.MustCompile(a.pattern())
	counts := map[string]int{} // rows by n-gram
	for _, s := range v.Texts {
		seen := map[string]bool{}
		tokens := token.FindAllString(ascii(s), -1)
		for i := range tokens {
			tokens[i] = fold(tokens[i])
		}
		for n := a.Ngrams.Min; n <= a.Ngrams.Max; n++ {
			for i := 0; i+n <= len(tokens); i++ {
				if k := key(tokens[i : i+n]); !seen[k] {
					seen[k] = true
					counts[k]++
				}
			}
		}
	}
	keys := []string{}
	for k, n := range counts {
		if n >= a.MinCount {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no n-gram is in min_count training rows")
	}
	sort.Slice(keys, func(i, j int) bool {
		if x, y := counts[keys[i]], counts[keys[j]]; x != y {
			return x > y
		}
		return keys[i] < keys[j]
	})
	keys = keys[:min(a.Max, len(keys))]
	sort.Slice(keys, func(i, j int) bool {
		if x, y := strings.Count(keys[i], sep), strings.Count(keys[j], sep); x != y {
			return x < y
		}
		return keys[i] < keys[j]
	})
	p := params{Grams: make([][]string, len(keys)), IDF: make([]float32, len(keys))}
	for i, k := range keys {
		p.Grams[i] = strings.Split(k, sep)
		p.IDF[i] = idf(len(v.Texts), counts[k])
	}
	return json.Marshal(p)
}

// idf is the weight of what is in some of the rows.
func idf(rows, with int) float32 {
	return float32(math.Log(float64(1+rows)/float64(1+with)) + 1)
}

// bucketIDF are the weights of the columns of hashed n-grams.
func (a args) bucketIDF(v kind.Values) []float32 {
	token := regexp.MustCompile(a.pattern())
	counts := make([]int, 1<<a.Bits)
	for _, s := range v.Texts {
		tokens, seen := token.FindAllString(ascii(s), -1), map[uint32]bool{}
		for n := a.Ngrams.Min; n <= a.Ngrams.Max; n++ {
			for i := 0; i+n <= len(tokens); i++ {
				bucket := murmur3.StringSum32(strings.Join(tokens[i:i+n], a.between())) % (1 << a.Bits)
				if !seen[bucket] {
					seen[bucket] = true
					counts[bucket]++
				}
			}
		}
	}
	out := make([]float32, len(counts))
	for i, n := range counts {
		out[i] = idf(len(v.Texts), n)
	}
	return out
}

// sep stands between the tokens of a key; no token has it.
const sep = types.NullString

func key(tokens []string) string { return strings.Join(tokens, sep) }

// ascii lower-cases A to Z, which is what ONNX Runtime's StringNormalizer does in
// the one locale that is everywhere.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// fold is the token in lower case, if it is one of the variants of that, else as
// it is: a graph has no operator that lower-cases letters beyond ASCII anywhere.
func fold(token string) string {
	low := strings.ToLower(token)
	for _, v := range variants(low) {
		if v == token {
			return low
		}
	}
	return token
}

// variants are the ways to write a word, as ascii leaves them: in lower case, with
// a capital first, and in capitals. Those that would be in lower case another
// word's are left out, so that no two words have one in common.
func variants(low string) []string {
	_, n := utf8.DecodeRuneInString(low)
	out := []string{low}
	for _, v := range []string{ascii(strings.ToUpper(low[:n]) + low[n:]), ascii(strings.ToUpper(low))} {
		if v != out[len(out)-1] && v != low && strings.ToLower(v) == low {
			out = append(out, v)
		}
	}
	return out
}

// Lower splits the texts, numbers the tokens, counts the n-grams of numbers and
// weighs them. A row of its own, cut off again, keeps the tensors from being
// empty, which these operators do not take.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, rawArgs, raw json.RawMessage) (onnx.Value, []string, error) {
	a, p := kind.DecodeArgs[args](rawArgs), kind.DecodeArgs[params](raw)
	last := g.Const([]string{strings.Repeat("a", a.MinLength)}, 1)
	texts := g.OpA("Concat", onnx.Attrs{"axis": 0}, g.Op("Squeeze", x, g.Const([]int64{1}, 1)), last)
	texts = g.OpA("StringNormalizer", onnx.Attrs{"case_change_action": "LOWER", "is_case_sensitive": 1, "locale": "C"}, texts)
	tokens := g.Node("com.microsoft", "Tokenizer", onnx.Attrs{"tokenexp": a.pattern(), "mark": 0, "mincharnum": 1, "pad_value": ""}, 1, texts)[0]

	n := int64(len(p.IDF))
	columns, names := make([]int64, n), make([]string, n)
	for i := range columns {
		columns[i] = int64(i)
	}
	count := onnx.Attrs{"mode": "TF", "max_skip_count": 0, "ngram_indexes": columns}
	var ids onnx.Value
	if a.Bits > 0 {
		for i := range names {
			names[i] = strconv.Itoa(i)
		}
		ids = a.buckets(g, tokens)
		count["min_gram_length"], count["max_gram_length"], count["ngram_counts"], count["pool_int64s"] = 1, 1, []int64{0}, columns
	} else {
		var v vocabulary
		for i, gram := range p.Grams {
			v.add(gram)
			names[i] = strings.Join(gram, a.between())
		}
		ids = g.ML("LabelEncoder", onnx.Attrs{"keys_strings": v.keys, "values_int64s": v.ids, "default_int64": int64(-1)}, tokens)
		count["min_gram_length"], count["max_gram_length"], count["ngram_counts"], count["pool_int64s"] = a.Ngrams.Min, a.Ngrams.Max, v.starts(a.Ngrams.Max), v.pool
	}
	tf := g.OpA("TfIdfVectorizer", count, ids)
	tf = g.Op("Slice", tf, g.Const([]int64{0}, 1), g.Const([]int64{-1}, 1), g.Const([]int64{0}, 1))
	one := g.Scalar(float32(1))
	if a.Sublinear {
		tf = g.Op("Add", g.Op("Log", g.Op("Max", tf, one)), g.Op("Min", tf, one))
	}
	y := g.Op("Mul", tf, g.Const(p.IDF, 1, n))
	// Weights are 1 at least, so that only a row of nothing is shorter than 1.
	length := g.Op("Max", g.Op("ReduceL2", y, g.Const([]int64{1}, 1)), one)
	return g.Op("Div", y, length), names, nil
}

// buckets are the columns of each row's n-grams, -1 of none, [rows, n-grams]. Tokens, of
// which a row has at least one, are filled up with empty texts.
func (a args) buckets(g *onnx.Graph, tokens onnx.Value) onnx.Value {
	axis := g.Const([]int64{1}, 1)
	// As many windows begin at every place; those that reach over the end are none.
	if over := int64(a.Ngrams.Max - 1); over > 0 {
		shape := g.OpA("Concat", onnx.Attrs{"axis": 0}, g.OpA("Shape", onnx.Attrs{"end": 1}, tokens), g.Const([]int64{over}, 1))
		tokens = g.OpA("Concat", onnx.Attrs{"axis": 1}, tokens, g.Op("Expand", g.Scalar(""), shape))
	}
	at := func(i int) onnx.Value {
		end := int64(i - a.Ngrams.Max + 1)
		if end == 0 {
			end = math.MaxInt64
		}
		return g.Op("Slice", tokens, g.Const([]int64{int64(i)}, 1), g.Const([]int64{end}, 1), axis)
	}
	var all []onnx.Value
	gram := onnx.Value("")
	for n := 1; n <= a.Ngrams.Max; n++ {
		last := at(n - 1)
		if n == 1 {
			gram = last
		} else {
			gram = g.Op("StringConcat", g.Op("StringConcat", gram, g.Scalar(a.between())), last)
		}
		if n < a.Ngrams.Min {
			continue
		}
		h := g.Node("com.microsoft", "MurmurHash3", onnx.Attrs{"positive": 1, "seed": 0}, 1, gram)[0]
		bucket := g.Op("Mod", g.Cast(h, onnx.Int64), g.Scalar(int64(1)<<a.Bits))
		all = append(all, g.Op("Where", g.Op("Equal", last, g.Scalar("")), g.Scalar(int64(-1)), bucket))
	}
	return g.OpA("Concat", onnx.Attrs{"axis": 1}, all...)
}

// vocabulary numbers the tokens of n-grams.
type vocabulary struct {
	keys   []string // every variant of a token
	ids    []int64  // of keys
	byName map[string]int64
	pool   []int64 // the n-grams, one after the other
	ends   []int   // of the n-grams of length 1, 2, … in pool
}

func (v *vocabulary) add(gram []string) {
	if v.byName == nil {
		v.byName = map[string]int64{}
	}
	for _, token := range gram {
		id, ok := v.byName[token]
		if !ok {
			id = int64(len(v.byName))
			v.byName[token] = id
			for _, w := range variants(token) {
				v.keys, v.ids = append(v.keys, w), append(v.ids, id)
			}
		}
		v.pool = append(v.pool, id)
	}
	for len(v.ends) < len(gram) {
		v.ends = append(v.ends, len(v.pool)-len(gram))
	}
	v.ends[len(gram)-1] = len(v.pool)
}

// starts are where in pool the n-grams of length 1 to longest begin.
func (v *vocabulary) starts(longest int) []int64 {
	out := make([]int64, longest)
	for i := 1; i < longest; i++ {
		out[i] = int64(v.ends[min(i, len(v.ends))-1])
	}
	return out
}
