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
	"strings"
	"unicode/utf8"

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
func (Encoder) Version() int { return 1 }

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
	Sublinear bool `json:"sublinear"`
}

type params struct {
	// Grams are the columns' n-grams, the short ones first.
	Grams [][]string `json:"grams"`
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
		p.IDF[i] = float32(math.Log(float64(1+len(v.Texts))/float64(1+counts[k])) + 1)
	}
	return json.Marshal(p)
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

	var v vocabulary
	for _, gram := range p.Grams {
		v.add(gram)
	}
	ids := g.ML("LabelEncoder", onnx.Attrs{"keys_strings": v.keys, "values_int64s": v.ids, "default_int64": int64(-1)}, tokens)

	n := int64(len(p.Grams))
	columns, names := make([]int64, n), make([]string, n)
	between := map[string]string{"word": " ", "char": ""}[a.Analyzer]
	for i, gram := range p.Grams {
		columns[i], names[i] = int64(i), strings.Join(gram, between)
	}
	tf := g.OpA("TfIdfVectorizer", onnx.Attrs{"mode": "TF", "min_gram_length": a.Ngrams.Min, "max_gram_length": a.Ngrams.Max, "max_skip_count": 0,
		"ngram_counts": v.starts(a.Ngrams.Max), "ngram_indexes": columns, "pool_int64s": v.pool}, ids)
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
