package encoder

import (
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib/encoder/text"
)

// textArgs are the arguments as the schema completes them.
func textArgs(analyzer string, length, lo, hi, count, limit int, sublinear bool) string {
	return fmt.Sprintf(`{"analyzer":%q,"min_length":%d,"ngrams":{"min":%d,"max":%d},"min_count":%d,"max":%d,"sublinear":%v}`, analyzer, length, lo, hi, count, limit, sublinear)
}

// rowsByName gives each row's columns that are not 0.
func rowsByName(got []float64, names []string) []map[string]float64 {
	var out []map[string]float64
	for i := 0; i < len(got); i += len(names) {
		row := map[string]float64{}
		for j, v := range got[i : i+len(names)] {
			if v != 0 {
				row[names[j]] = v
			}
		}
		out = append(out, row)
	}
	return out
}

func same(a, b map[string]float64) bool {
	for k := range a {
		if math.Abs(a[k]-b[k]) > 1e-6 {
			return false
		}
	}
	return len(a) == len(b)
}

// TestText compares with scikit-learn 1.9: TfidfVectorizer(ngram_range, min_df,
// sublinear_tf).fit(docs).transform(rows).
func TestText(t *testing.T) {
	docs := kind.Values{Texts: []string{"The cat sat on the mat, the mat!", "A dog sat; the DOG barked at 3 cats", "", "Über den Fluß: ÜBER den Berg x", "snake_case 42 42 42 the the"}}
	rows := kind.Values{Texts: []string{"the the dog sat on mat", "nothing known zebra", "über DEN berg", "42 the the the", null}}
	none := map[string]float64{}
	for _, c := range []struct {
		args    string
		columns int
		want    []map[string]float64
	}{
		{textArgs("word", 2, 1, 1, 1, 4096, false), 15, []map[string]float64{
			{"dog": 0.42855071, "mat": 0.42855071, "on": 0.42855071, "sat": 0.345752015, "the": 0.57401081}, none,
			{"berg": 0.577350269, "den": 0.577350269, "über": 0.577350269}, {"42": 0.445584695, "the": 0.895239789}, none}},
		{textArgs("word", 2, 1, 2, 1, 4096, false), 35, []map[string]float64{
			{"dog": 0.325386618, "dog sat": 0.325386618, "mat": 0.325386618, "on": 0.325386618, "sat": 0.262519875, "sat on": 0.325386618, "the": 0.435830421, "the dog": 0.325386618, "the the": 0.325386618}, none,
			{"berg": 0.447213595, "den": 0.447213595, "den berg": 0.447213595, "über": 0.447213595, "über den": 0.447213595},
			{"42": 0.315650286, "42 the": 0.315650286, "the": 0.634184027, "the the": 0.631300573}, none}},
		{textArgs("word", 2, 2, 3, 1, 4096, false), 39, []map[string]float64{
			{"dog sat": 0.5, "sat on": 0.5, "the dog": 0.5, "the the": 0.5}, none,
			{"den berg": 0.577350269, "über den": 0.577350269, "über den berg": 0.577350269},
			{"42 the": 0.40824829, "42 the the": 0.40824829, "the the": 0.816496581}, none}},
		{textArgs("word", 2, 1, 2, 2, 4096, true), 2, []map[string]float64{{"sat": 0.579738672, "the": 0.814802475}, none, none, {"the": 1}, none}},
		{textArgs("word", 2, 1, 2, 1, 1, false), 1, []map[string]float64{{"the": 1}, none, none, {"the": 1}, none}},
		{textArgs("char", 2, 1, 3, 1, 4096, false), 168, []map[string]float64{nil, nil,
			{" ": 0.178075708, " b": 0.12750693, " be": 0.158041553, " d": 0.12750693, " de": 0.158041553, "b": 0.25501386, "be": 0.316083106, "ber": 0.316083106, "d": 0.12750693, "de": 0.158041553, "den": 0.158041553,
				"e": 0.267113563, "en": 0.158041553, "en ": 0.158041553, "er": 0.316083106, "er ": 0.158041553, "erg": 0.158041553, "g": 0.12750693, "n": 0.10584227, "n ": 0.12750693, "n b": 0.158041553, "r": 0.25501386,
				"r ": 0.158041553, "r d": 0.158041553, "rg": 0.158041553, "ü": 0.158041553, "üb": 0.158041553, "übe": 0.158041553},
			{" ": 0.245083663, " t": 0.291339132, " th": 0.291339132, "2": 0.145007248, "2 ": 0.145007248, "2 t": 0.145007248, "4": 0.145007248, "42": 0.145007248, "42 ": 0.145007248, "e": 0.245083663, "e ": 0.194226088,
				"e t": 0.290014496, "h": 0.291339132, "he": 0.291339132, "he ": 0.194226088, "t": 0.291339132, "th": 0.291339132, "the": 0.291339132}, none}},
	} {
		got, _, names := run(t, text.Encoder{}, c.args, docs, rows)
		if len(names) != c.columns {
			t.Errorf("%s: %d columns: %q", c.args, len(names), names)
		}
		for i, row := range rowsByName(got, names) {
			if c.want[i] != nil && !same(row, c.want[i]) {
				t.Errorf("%s: %q is %v, want %v", c.args, rows.Texts[i], row, c.want[i])
			}
		}
	}
}

// TestTextOnMessages compares with scikit-learn 1.9 on the SMS Spam Collection:
// the sum of the features of the first rows, and the sum of each times the rank
// of its name among all.
func TestTextOnMessages(t *testing.T) {
	f, err := os.Open("../../../shared/data/sms_spam/sms_spam.csv.gz")
	if err != nil {
		t.Skipf("NOT TESTED: the data set is not here: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var texts, spaced []string
	for _, r := range records[1:] {
		texts = append(texts, r[1])
		spaced = append(spaced, regexp.MustCompile(`\s+`).ReplaceAllString(r[1], " ")) // as its characters are taken there
	}
	for _, c := range []struct {
		args                 string
		texts                []string
		rows, columns, cells int
		sum, ranked          float64
	}{
		{textArgs("word", 2, 1, 2, 5, 100000, true), texts, 500, 3945, 7887, 1797.1105801373833, 923.5532440908199},
		{textArgs("char", 2, 2, 3, 5, 100000, false), spaced, 100, 7030, 13503, 1022.1882867960355, 520.6885670734642},
	} {
		got, _, names := run(t, text.Encoder{}, c.args, kind.Values{Texts: c.texts}, kind.Values{Texts: c.texts[:c.rows]})
		sorted := slices.Clone(names)
		sort.Strings(sorted)
		cells, sum, ranked := 0, 0.0, 0.0
		for i, v := range got {
			if v != 0 {
				rank, _ := slices.BinarySearch(sorted, names[i%len(names)])
				cells, sum, ranked = cells+1, sum+v, ranked+v*float64(rank+1)/float64(len(names))
			}
		}
		if len(names) != c.columns || cells != c.cells || math.Abs(sum-c.sum) > 1e-3 || math.Abs(ranked-c.ranked) > 1e-3 {
			t.Errorf("%s: %d columns, %d cells, sums %v and %v", c.args, len(names), cells, sum, ranked)
		}
	}
}

// inWord tells letters and digits of Unicode 15.1, and _.
func inWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || r == '_' || 0x2EBF0 <= r && r <= 0x2EE5D
}

// tokens is what the schema says of a text: the words, or the characters.
func tokens(s, analyzer string, length int) []string {
	low := []rune{}
	for _, r := range s {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		low = append(low, r)
	}
	var out []string
	if analyzer == "char" {
		for _, r := range low {
			if string(r) != null {
				out = append(out, lowered(string(r)))
			}
		}
		return out
	}
	for _, w := range strings.FieldsFunc(string(low), func(r rune) bool { return !inWord(r) }) {
		if utf8.RuneCountInString(w) >= length {
			out = append(out, lowered(w))
		}
	}
	return out
}

// lowered is a word in lower case, where it is written like that, Like That or
// LIKE THAT; a word without A to Z already.
func lowered(w string) string {
	asciiLow := func(s string) string {
		b := []byte(s)
		for i, c := range b {
			if 'A' <= c && c <= 'Z' {
				b[i] += 'a' - 'A'
			}
		}
		return string(b)
	}
	low := strings.ToLower(w)
	first, n := utf8.DecodeRuneInString(low)
	if w == asciiLow(strings.ToUpper(low)) || w == asciiLow(strings.ToUpper(string(first))+low[n:]) {
		return low
	}
	return w
}

// TestTextIsTFIDF: the graph gives what the definition says, for any texts, and
// rows do not depend on each other.
func TestTextIsTFIDF(t *testing.T) {
	words := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "the", "The", "THE", "ÄÖ", "Äö", "äö", "äÖ", "Дом", "дом", "ДОМ", "İx", "ſS", "ǆx", "ǅx", "x_1", "٣٤", "Ⅷ", "日本", "e\u0301t", "-", ",", "\n"}), 0, 8),
		func(s []string) string { return strings.Join(s, " ") })
	texts := rapid.SliceOfN(rapid.OneOf(words, anyText), 1, 8)
	rapid.Check(t, func(t *rapid.T) {
		analyzer := rapid.SampledFrom([]string{"word", "char"}).Draw(t, "analyzer")
		length, lo, count := rapid.IntRange(1, 3).Draw(t, "min_length"), rapid.IntRange(1, 3).Draw(t, "min"), rapid.IntRange(1, 2).Draw(t, "min_count")
		hi := rapid.IntRange(lo, 3).Draw(t, "max")
		limit := rapid.SampledFrom([]int{1, 5, 4096}).Draw(t, "limit")
		sublinear := rapid.Bool().Draw(t, "sublinear")
		train, rows := texts.Draw(t, "train"), texts.Draw(t, "rows")
		rows = append(rows, train...)

		between := map[string]string{"word": " ", "char": ""}[analyzer]
		counts := func(s string) map[string]float64 {
			out := map[string]float64{}
			ts := tokens(s, analyzer, length)
			for n := lo; n <= hi; n++ {
				for i := 0; i+n <= len(ts); i++ {
					out[strings.Join(ts[i:i+n], between)]++
				}
			}
			return out
		}
		df := map[string]int{}
		for _, s := range train {
			for k := range counts(s) {
				df[k]++
			}
		}
		for k, n := range df {
			if n < count {
				delete(df, k)
			}
		}
		args := textArgs(analyzer, length, lo, hi, count, limit, sublinear)
		if len(df) == 0 {
			if _, err := (text.Encoder{}).Fit(json.RawMessage(args), kind.Values{Texts: train}); err == nil {
				t.Fatalf("nothing fails")
			}
			return
		}
		got, _, names := run(t, text.Encoder{}, args, kind.Values{Texts: train}, kind.Values{Texts: rows})
		if len(names) != min(len(df), limit) {
			t.Fatalf("%d columns of %d n-grams", len(names), len(df))
		}
		column, rarest := map[string]bool{}, math.MaxInt
		for _, n := range names {
			if df[n] == 0 || column[n] {
				t.Fatalf("column %q", n)
			}
			column[n], rarest = true, min(rarest, df[n])
		}
		for k, n := range df {
			if n > rarest && !column[k] {
				t.Fatalf("%q has no column", k)
			}
		}
		for i, row := range rowsByName(got, names) {
			want, squares := map[string]float64{}, 0.0
			for k, tf := range counts(rows[i]) {
				if !column[k] {
					continue
				}
				if sublinear {
					tf = 1 + math.Log(tf)
				}
				want[k] = tf * (math.Log(float64(1+len(train))/float64(1+df[k])) + 1)
				squares += want[k] * want[k]
			}
			for k := range want {
				want[k] /= math.Sqrt(squares)
			}
			if !same(row, want) {
				t.Fatalf("%q is %v, want %v", rows[i], row, want)
			}
		}
	})
}

// TestTextKnowsWords: of all characters, ONNX Runtime takes those for part of a
// word that Go takes for a letter, a digit or _.
func TestTextKnowsWords(t *testing.T) {
	var runes []rune
	var rows []string
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) {
			runes, rows = append(runes, r), append(rows, "a"+string(r)+"b")
		}
	}
	got, _, _ := run(t, text.Encoder{}, textArgs("word", 1, 1, 1, 1, 10, false), kind.Values{Texts: []string{"a"}}, kind.Values{Texts: rows})
	wrong := 0
	for i, r := range runes {
		if inside := inWord(r); inside != (got[i] == 0) {
			if wrong++; wrong < 10 {
				t.Errorf("%U (%q): inside a word is %v", r, r, inside)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d characters are taken for others", wrong)
	}
}

// TestTextLowersAll: each character with a case has the column of its lower case,
// or where that has another upper case, its own.
func TestTextLowersAll(t *testing.T) {
	var rows []string
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if unicode.ToLower(r) != r || unicode.ToUpper(r) != r {
			rows = append(rows, string(r))
		}
	}
	got, _, names := run(t, text.Encoder{}, textArgs("char", 1, 1, 1, 1, 100000, false), kind.Values{Texts: rows}, kind.Values{Texts: rows})
	for i, row := range rowsByName(got, names) {
		want := lowered(strings.Join(tokens(rows[i], "char", 1), ""))
		if !same(row, map[string]float64{want: 1}) {
			t.Errorf("%q is %v, want %q", rows[i], row, want)
		}
	}
}

// TestHashedText holds hashed n-grams, with their weights, against counts in Go.
func TestHashedText(t *testing.T) {
	token := map[string]*regexp.Regexp{"word": regexp.MustCompile(`[\pL\pN_]{2,}`), "char": regexp.MustCompile(`[^␀]`)}
	lower := func(s string) string {
		return strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				return unicode.ToLower(r)
			}
			return r
		}, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		analyzer := rapid.SampledFrom([]string{"word", "char"}).Draw(t, "analyzer")
		lo := rapid.IntRange(1, 3).Draw(t, "min")
		hi := rapid.IntRange(lo, 4).Draw(t, "max")
		bits := rapid.IntRange(4, 8).Draw(t, "bits")
		sublinear := rapid.Bool().Draw(t, "sublinear")
		words := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"ab", "AB", "c", "Über", "x_1", "日本", "the", "the"}), 0, 9), func(w []string) string { return strings.Join(w, " ") })
		rows := rapid.SliceOfN(rapid.OneOf(words, anyText), 1, 6).Draw(t, "rows")
		counts := make([]map[uint32]float64, len(rows))
		with := map[uint32]int{}
		for i, row := range rows {
			counts[i] = map[uint32]float64{}
			tokens := token[analyzer].FindAllString(lower(row), -1)
			for n := lo; n <= hi; n++ {
				for k := 0; k+n <= len(tokens); k++ {
					counts[i][murmur3(strings.Join(tokens[k:k+n], map[string]string{"word": " "}[analyzer]))%(1<<bits)]++
				}
			}
			for bucket := range counts[i] {
				with[bucket]++
			}
		}
		args := strings.TrimSuffix(textArgs(analyzer, 2, lo, hi, 1, 4096, sublinear), "}") + fmt.Sprintf(`,"bits":%d}`, bits)
		got, _, names := run(t, text.Encoder{}, args, kind.Values{Texts: rows}, kind.Values{Texts: rows})
		if len(names) != 1<<bits || names[3] != "3" {
			t.Fatalf("columns %q", names)
		}
		for i, row := range rowsByName(got, names) {
			want, length := map[string]float64{}, 0.0
			for bucket, n := range counts[i] {
				if sublinear {
					n = 1 + math.Log(n)
				}
				v := n * (math.Log(float64(1+len(rows))/float64(1+with[bucket])) + 1)
				want[names[bucket]] = v
				length += v * v
			}
			for k := range want {
				want[k] /= math.Sqrt(length)
			}
			if !same(row, want) {
				t.Fatalf("%q is %v, want %v", rows[i], row, want)
			}
		}
	})
}
