// Package encoder tests what encoders learn and what their graphs compute.
package encoder

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib"
	"mlc.dev/mlc/stdlib/encoder/date"
	"mlc.dev/mlc/stdlib/encoder/hash"
	"mlc.dev/mlc/stdlib/encoder/impute"
	"mlc.dev/mlc/stdlib/encoder/standardize"
	"mlc.dev/mlc/stdlib/encoder/targetmean"
	"mlc.dev/mlc/stdlib/encoder/text"
)

var (
	nan  = math.NaN()
	null = types.NullString
)

type tester interface {
	Helper()
	Fatalf(string, ...any)
}

// apply is run of an encoder by its name.
func apply(t tester, name, args string, train, rows kind.Values) ([]float64, []string, []string) {
	t.Helper()
	e, ok := stdlib.Kinds().Encoders.Get(name)
	if !ok {
		t.Fatalf("no encoder %s", name)
	}
	return run(t, e, args, train, rows)
}

// run fits an encoder on train and runs it over rows, through ONNX Runtime. It
// returns the numbers or the texts, and the columns' names.
func run(t tester, e kind.Encoder, args string, train, rows kind.Values) ([]float64, []string, []string) {
	t.Helper()
	flow, dt := kind.Numbers, onnx.Double
	if train.Texts != nil {
		flow, dt = kind.Texts, onnx.String
	}
	out, ok := e.Accepts(flow, json.RawMessage(args))
	if !ok {
		t.Fatalf("%s does not accept %s", e.Name(), flow)
	}
	params, err := e.Fit(json.RawMessage(args), train)
	if err != nil {
		t.Fatalf("%v", err)
	}
	g := onnx.New("test")
	y, names, err := e.Lower(g, flow, g.Input("x", dt, -1, 1), json.RawMessage(args), params)
	if err != nil {
		t.Fatalf("%v", err)
	}
	switch out {
	case kind.Block:
		g.Output("y", y, onnx.Float, -1, int64(len(names)))
	case kind.Texts:
		g.Output("y", y, onnx.String, -1, 1)
	default:
		g.Output("y", y, onnx.Double, -1, 1)
	}
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer s.Close()
	in := ort.Column(rows.Numbers)
	if rows.Texts != nil {
		in = ort.Column(rows.Texts)
	}
	res, err := s.Run([]ort.Tensor{in})
	if err != nil {
		t.Fatalf("%v", err)
	}
	switch d := res[0].Data.(type) {
	case []string:
		return nil, d, names
	case []float32:
		f := make([]float64, len(d))
		for i, v := range d {
			f[i] = float64(v)
		}
		return f, nil, names
	default:
		return d.([]float64), nil, names
	}
}

func TestEncoders(t *testing.T) {
	numbers := kind.Values{Numbers: []float64{1, 2, nan, 3, 10, 2}}
	texts := kind.Values{Texts: []string{"b", "a", "b", null, "c"}}
	for _, c := range []struct {
		name, args  string
		train, rows kind.Values
		want        []float64
		texts       []string
		names       []string
	}{
		{"impute", `{"with":"median"}`, numbers, kind.Values{Numbers: []float64{nan, 7}}, []float64{2, 7}, nil, nil},
		{"impute", `{"with":"mean"}`, numbers, kind.Values{Numbers: []float64{nan}}, []float64{3.6}, nil, nil},
		{"impute", `{"with":"most_frequent"}`, numbers, kind.Values{Numbers: []float64{nan}}, []float64{2}, nil, nil},
		{"impute", `{"with":"constant","value":-1}`, numbers, kind.Values{Numbers: []float64{nan, math.Inf(1)}}, []float64{-1, math.Inf(1)}, nil, nil},
		{"impute", `{"with":"most_frequent"}`, texts, kind.Values{Texts: []string{null, "new"}}, nil, []string{"b", "new"}, nil},
		{"impute", `{"with":"mean"}`, kind.Values{Numbers: []float64{math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64}}, kind.Values{Numbers: []float64{nan}}, []float64{0}, nil, nil},
		{"impute", `{"with":"constant","value":7}`, kind.Values{Numbers: []float64{nan}}, kind.Values{Numbers: []float64{nan}}, []float64{7}, nil, nil},
		{"standardize", `{}`, kind.Values{Numbers: []float64{1, 3, nan}}, kind.Values{Numbers: []float64{2, 4, nan}}, []float64{0, 2, nan}, nil, nil},
		{"standardize", `{}`, kind.Values{Numbers: []float64{math.MaxFloat64, -math.MaxFloat64}}, kind.Values{Numbers: []float64{math.MaxFloat64, 0}}, []float64{1, 0}, nil, nil},
		{"standardize", `{}`, kind.Values{Numbers: []float64{math.MaxFloat64, math.MaxFloat64 / 2}}, kind.Values{Numbers: []float64{math.MaxFloat64, math.MaxFloat64 / 2, -math.MaxFloat64}}, []float64{1, -1, -7}, nil, nil},
		{"standardize", `{}`, kind.Values{Numbers: []float64{1e-200, 3e-200}}, kind.Values{Numbers: []float64{2e-200, 4e-200}}, []float64{0, 2}, nil, nil},
		{"standardize", `{}`, kind.Values{Numbers: []float64{5, 5}}, kind.Values{Numbers: []float64{6}}, []float64{1}, nil, nil},
		{"one_hot", `{"max":64}`, texts, kind.Values{Texts: []string{"a", null, "zebra"}}, []float64{1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, nil, []string{"a", "b", "c", "other"}},
		{"one_hot", `{"max":1}`, texts, kind.Values{Texts: []string{"a", "b"}}, []float64{0, 1, 1, 0}, nil, []string{"b", "other"}},
		{"one_hot", `{"max":2}`, numbers, kind.Values{Numbers: []float64{2, nan}}, []float64{0, 1, 0, 0, 0, 1}, nil, []string{"1", "2", "other"}},
		{"one_hot", `{"max":2}`, kind.Values{Texts: []string{null}}, kind.Values{Texts: []string{"x", null}}, []float64{1, 1}, nil, []string{"other"}},
		{"one_hot", `{"max":64,"min_count":2}`, texts, kind.Values{Texts: []string{"a", "b", "zebra", null}}, []float64{0, 1, 1, 0, 0, 1, 0, 1}, nil, []string{"b", "other"}},
		{"one_hot", `{"max":64,"min_count":2}`, numbers, kind.Values{Numbers: []float64{2, 1, nan, math.Inf(1)}}, []float64{1, 0, 0, 1, 0, 1, 0, 1}, nil, []string{"2", "other"}},
		{"one_hot", `{"max":64,"min_count":3}`, texts, kind.Values{Texts: []string{"b", null}}, []float64{1, 1}, nil, []string{"other"}},
		{"ordinal", `{"min_count":1,"max":10}`, texts, kind.Values{Texts: []string{"b", "a", "c", "new", null}}, []float64{0, 1, 2, 3, nan}, nil, nil},
		{"ordinal", `{"min_count":2,"max":10}`, texts, kind.Values{Texts: []string{"b", "a", "new", null}}, []float64{0, 1, 1, nan}, nil, nil},
		{"ordinal", `{"min_count":3,"max":10}`, texts, kind.Values{Texts: []string{"b", "new", null}}, []float64{0, 0, nan}, nil, nil},
		{"ordinal", `{"min_count":1,"max":2}`, texts, kind.Values{Texts: []string{"b", "a", "c", "new", null}}, []float64{0, 1, 2, 2, nan}, nil, nil},
		{"ordinal", `{"min_count":1,"max":10,"order":["low","high"]}`, texts, kind.Values{Texts: []string{"high", "b", "low", null}}, []float64{1, 2, 0, nan}, nil, nil},
		{"log1p", `{}`, numbers, kind.Values{Numbers: []float64{0, math.E - 1, -1, -2, nan}}, []float64{0, 1, nan, nan, nan}, nil, nil},
		{"quantile_bins", `{"bins":2}`, kind.Values{Numbers: []float64{1, 2, 3, 4}}, kind.Values{Numbers: []float64{-9, 2.9, 3, 9, nan}}, []float64{0, 0, 1, 1, nan}, nil, nil},
		{"quantile_bins", `{"bins":4}`, kind.Values{Numbers: []float64{7, 7, 7}}, kind.Values{Numbers: []float64{1, 7, nan}}, []float64{0, 0, nan}, nil, nil},
		{"passthrough", `{}`, numbers, kind.Values{Numbers: []float64{4, nan}}, []float64{4, nan}, nil, nil},
	} {
		got, texts, names := apply(t, c.name, c.args, c.train, c.rows)
		if diff := cmp.Diff(c.want, got, cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Errorf("%s %s: %s", c.name, c.args, diff)
		}
		if !cmp.Equal(c.texts, texts) || !cmp.Equal(c.names, names) {
			t.Errorf("%s %s: %q %q", c.name, c.args, texts, names)
		}
	}
}

// TestImputeOfNothing: where every training value is missing, only a constant fills.
func TestImputeOfNothing(t *testing.T) {
	for _, c := range []struct {
		with  string
		train kind.Values
	}{
		{"mean", kind.Values{Numbers: []float64{nan, nan}}},
		{"median", kind.Values{Numbers: []float64{nan}}},
		{"most_frequent", kind.Values{Numbers: []float64{}}},
		{"most_frequent", kind.Values{Texts: []string{null}}},
	} {
		_, err := impute.Encoder{}.Fit([]byte(`{"with":"`+c.with+`"}`), c.train)
		var faults kind.Faults
		if !errors.As(err, &faults) || faults[0].What != "every training value is missing" || !strings.Contains(faults[0].Mend, `with: "constant"`) {
			t.Errorf("%s of %v: %v", c.with, c.train, err)
		}
	}
}

// TestStandardizeInAnyUnit: in a unit of a power of two the numbers are the same to the
// bit, up to the greatest and down to the least.
func TestStandardizeInAnyUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Map(rapid.IntRange(-4096, 4096), func(i int) float64 { return float64(i) / 4096 }), 1, 20).Draw(t, "xs")
		exponent := rapid.OneOf(rapid.SampledFrom([]int{-1000, -600, 500, 600, 950}), rapid.IntRange(-1000, 950)).Draw(t, "exponent")
		fit := func(xs []float64) (p struct{ Mean, Std float64 }) {
			raw, err := standardize.Encoder{}.Fit(nil, kind.Values{Numbers: xs})
			if err == nil {
				err = json.Unmarshal(raw, &p)
			}
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		want := fit(xs)
		if slices.Min(xs) < slices.Max(xs) {
			want.Std = math.Ldexp(want.Std, exponent)
		}
		scaled := make([]float64, len(xs))
		for i, x := range xs {
			scaled[i] = math.Ldexp(x, exponent)
		}
		if got := fit(scaled); got.Mean != math.Ldexp(want.Mean, exponent) || got.Std != want.Std {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// TestNoBlockIsMissing: whatever was learned, a block has one 1 a row, for seen,
// unseen and missing values.
func TestNoBlockIsMissing(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c", "d", "", null})
	rapid.Check(t, func(t *rapid.T) {
		train := rapid.SliceOfN(word, 1, 20).Draw(t, "train")
		rows := rapid.SliceOfN(word, 1, 5).Draw(t, "rows")
		got, _, names := apply(t, "one_hot", `{"max":3}`, kind.Values{Texts: train}, kind.Values{Texts: rows})
		for i := range rows {
			sum := 0.0
			for _, v := range got[i*len(names) : (i+1)*len(names)] {
				sum += v
			}
			if sum != 1 {
				t.Fatalf("row %q of %q sums to %v", rows[i], names, sum)
			}
		}
	})
}

// TestNoRows: a graph takes no rows, and rows that are all missing.
func TestNoRows(t *testing.T) {
	for _, c := range []struct {
		e              kind.Encoder
		args           string
		train, missing kind.Values
	}{
		{text.Encoder{}, textArgs("word", 2, 1, 2, 1, 10, false), kind.Values{Texts: []string{"some words"}}, kind.Values{Texts: []string{null, ""}}},
		{text.Encoder{}, textArgs("char", 2, 2, 3, 1, 10, true), kind.Values{Texts: []string{"some words"}}, kind.Values{Texts: []string{null, ""}}},
		{hash.Encoder{}, `{"bits":3}`, kind.Values{Texts: []string{"x"}}, kind.Values{Texts: []string{null, null}}},
		{targetmean.Encoder{}, `{"smoothing":0,"min_count":1}`, kind.Values{Texts: []string{"x"}, Labels: []float64{0}}, kind.Values{Texts: []string{null, ""}}},
		{date.Encoder{}, `{"cyclic":true,"indicator":false}`, kind.Values{Numbers: []float64{0}}, kind.Values{Numbers: []float64{nan, nan}}},
	} {
		none := kind.Values{Texts: c.missing.Texts[:0], Numbers: c.missing.Numbers[:0]}
		if got, _, _ := run(t, c.e, c.args, c.train, none); len(got) != 0 {
			t.Errorf("%s %s: no rows give %v", c.e.Name(), c.args, got)
		}
		got, _, names := run(t, c.e, c.args, c.train, c.missing)
		if !cmp.Equal(got, make([]float64, 2*len(names))) {
			t.Errorf("%s %s: missing rows give %v", c.e.Name(), c.args, got)
		}
	}
}
