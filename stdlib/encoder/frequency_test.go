package encoder

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/encoder/frequency"
	"mlc.dev/mlc/stdlib/encoder/impute"
)

// shares fits frequency on train and runs it over rows, through ONNX Runtime.
func shares(t interface {
	Helper()
	Fatalf(string, ...any)
}, args string, train, rows []string) []float64 {
	t.Helper()
	var e frequency.Encoder
	if out, ok := e.Accepts(kind.Texts, nil); out != kind.Numbers || !ok {
		t.Fatalf("frequency makes %s of texts", out)
	}
	params, err := e.Fit(json.RawMessage(args), kind.Values{Texts: train})
	if err != nil {
		t.Fatalf("%v", err)
	}
	g := onnx.New("test")
	y, _, err := e.Lower(g, kind.Texts, g.Input("x", onnx.String, -1, 1), json.RawMessage(args), params)
	if err != nil {
		t.Fatalf("%v", err)
	}
	g.Output("y", y, onnx.Double, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer s.Close()
	res, err := s.Run([]ort.Tensor{ort.Column(rows)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return res[0].Data.([]float64)
}

func TestFrequency(t *testing.T) {
	train := []string{"b", "a", "b", null, "c", "b", "a", ""}
	for _, c := range []struct {
		args        string
		train, rows []string
		want        []float64
	}{
		{`{"max":10}`, train, []string{"b", "a", "c", "", "new", null}, []float64{3. / 8, 2. / 8, 1. / 8, 1. / 8, 0, nan}},
		{`{"max":3}`, train, []string{"b", "a", "c", ""}, []float64{3. / 8, 2. / 8, 0, 1. / 8}}, // equals by name
		{`{"max":10}`, []string{null}, []string{"x", null}, []float64{0, nan}},
	} {
		if diff := cmp.Diff(c.want, shares(t, c.args, c.train, c.rows), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s of %q: %s", c.args, c.train, diff)
		}
	}
	if _, ok := (frequency.Encoder{}).Accepts(kind.Numbers, nil); ok {
		t.Error("frequency takes numbers")
	}
}

// TestSharesSumToOne: the shares of the distinct texts and of missing values make 1.
func TestSharesSumToOne(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c", "d", "", null})
	rapid.Check(t, func(t *rapid.T) {
		train := rapid.SliceOfN(word, 1, 30).Draw(t, "train")
		missing, seen := 0, map[string]bool{}
		rows := []string{"never"}
		for _, s := range train {
			if s == null {
				missing++
			} else if !seen[s] {
				seen[s], rows = true, append(rows, s)
			}
		}
		sum := float64(missing) / float64(len(train))
		for _, y := range shares(t, `{"max":10}`, train, rows) {
			sum += y
		}
		if sum < 1-1e-6 || sum > 1+1e-6 {
			t.Fatalf("%q sums to %v", train, sum)
		}
	})
}

// TestImputeIndicator: the value is that of impute alone, and 1 stands beside
// what was missing.
func TestImputeIndicator(t *testing.T) {
	train := kind.Values{Numbers: []float64{1, 2, nan, 3, 10, 2}}
	for _, c := range []struct {
		args string
		want []float64
	}{
		{`{"with":"median","indicator":true}`, []float64{2, 1, 7, 0}},
		{`{"with":"mean","indicator":true}`, []float64{float64(float32(3.6)), 1, 7, 0}},
		{`{"with":"most_frequent","indicator":true}`, []float64{2, 1, 7, 0}},
		{`{"with":"constant","value":-1,"indicator":true}`, []float64{-1, 1, 7, 0}},
	} {
		got, _, names := apply(t, "impute", c.args, train, kind.Values{Numbers: []float64{nan, 7}})
		if !cmp.Equal(c.want, got) || !cmp.Equal([]string{"value", "missing"}, names) {
			t.Errorf("%s: %v %q", c.args, got, names)
		}
	}
	for args, flow := range map[string]kind.Flow{
		`{"with":"most_frequent","indicator":true}`:        kind.Texts,
		`{"with":"constant","value":"x","indicator":true}`: kind.Texts,
		`{"with":"constant","indicator":true}`:             kind.Numbers,
		`{"with":"constant","indicator":true,"value":"x"}`: kind.Numbers,
		`{"with":"median","indicator":true}`:               kind.Block,
	} {
		if _, ok := (impute.Encoder{}).Accepts(flow, json.RawMessage(args)); ok {
			t.Errorf("%s takes %s", args, flow)
		}
	}
	if out, ok := (impute.Encoder{}).Accepts(kind.Numbers, json.RawMessage(`{"with":"median","indicator":false}`)); out != kind.Numbers || !ok {
		t.Error("impute without an indicator makes no numbers")
	}
}
