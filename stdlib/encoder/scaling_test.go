package encoder

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/encoder/clip"
	"mlc.dev/mlc/stdlib/encoder/minmax"
	"mlc.dev/mlc/stdlib/encoder/power"
	"mlc.dev/mlc/stdlib/encoder/quantile"
	"mlc.dev/mlc/stdlib/encoder/robust"
)

// scale fits an encoder of numbers on train and runs it over rows, through ONNX
// Runtime.
func scale(t interface {
	Helper()
	Fatalf(string, ...any)
}, e kind.Encoder, args string, train, rows []float64) []float64 {
	t.Helper()
	if out, ok := e.Accepts(kind.Numbers, json.RawMessage(args)); out != kind.Numbers || !ok {
		t.Fatalf("%s makes %s of numbers", e.Name(), out)
	}
	if _, ok := e.Accepts(kind.Texts, json.RawMessage(args)); ok {
		t.Fatalf("%s takes texts", e.Name())
	}
	params, err := e.Fit(json.RawMessage(args), kind.Values{Numbers: train})
	if err != nil {
		t.Fatalf("%s: %v", e.Name(), err)
	}
	g := onnx.New("test")
	y, names, err := e.Lower(g, kind.Numbers, g.Input("x", onnx.Double, -1, 1), json.RawMessage(args), params)
	if err != nil || names != nil {
		t.Fatalf("%s: %q, %v", e.Name(), names, err)
	}
	g.Output("y", y, onnx.Double, -1, 1)
	s, err := ort.Open(g.Marshal())
	if err != nil {
		t.Fatalf("%s: %v", e.Name(), err)
	}
	defer s.Close()
	res, err := s.Run([]ort.Tensor{ort.Column(rows)})
	if err != nil {
		t.Fatalf("%s: %v", e.Name(), err)
	}
	return res[0].Data.([]float64)
}

// TestScaling compares with scikit-learn 1.9 (MinMaxScaler, RobustScaler) and
// numpy 2.4 (quantile, clip).
func TestScaling(t *testing.T) {
	tail := []float64{3, 1, nan, 4, 1, 5, 9, 2, 6, 50}
	few := []float64{7, 1, 4, 2, nan}
	five := []float64{5, 5, 5}
	rows := []float64{0, 1, 3.5, 50, 60, nan}
	huge := []float64{-math.MaxFloat64, math.MaxFloat64}
	for _, c := range []struct {
		e                 kind.Encoder
		args              string
		train, rows, want []float64
	}{
		{minmax.Encoder{}, `{"clip":true}`, tail, rows, []float64{0, 0, 0.05102040816326531, 1, 1, nan}},
		{minmax.Encoder{}, `{"clip":false}`, tail, rows, []float64{-0.02040816326530612, 0, 0.05102040816326531, 1, 1.204081632653061, nan}},
		{minmax.Encoder{}, `{"clip":true}`, five, rows, []float64{0, 0, 0, 0, 0, nan}},
		{minmax.Encoder{}, `{"clip":false}`, five, rows, []float64{0, 0, 0, 0, 0, nan}},
		{minmax.Encoder{}, `{"clip":true}`, []float64{nan}, []float64{3, nan}, []float64{0, nan}},
		{minmax.Encoder{}, `{"clip":false}`, huge, append(huge, 0), []float64{0, 1, 0.5}},
		{robust.Encoder{}, `{}`, tail, rows, []float64{-1, -0.75, -0.125, 11.5, 14, nan}},
		{robust.Encoder{}, `{}`, few, rows, []float64{-1, -0.6666666666666666, 0.16666666666666666, 15.666666666666666, 19, nan}},
		{robust.Encoder{}, `{}`, five, rows, []float64{-5, -4, -1.5, 45, 55, nan}},
		{robust.Encoder{}, `{}`, []float64{nan}, []float64{3, nan}, []float64{3, nan}},
		{robust.Encoder{}, `{}`, append(huge, huge...), []float64{3}, []float64{3}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99}`, tail, rows, []float64{1, 1, 3.5, 46.72, 46.72, nan}},
		{clip.Encoder{}, `{"lower":0.1,"upper":0.9}`, tail, rows, []float64{1, 1, 3.5, 17.2, 17.2, nan}},
		{clip.Encoder{}, `{"lower":0,"upper":1}`, tail, rows, []float64{1, 1, 3.5, 50, 50, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"min":2}`, tail, rows, []float64{2, 2, 3.5, 46.72, 46.72, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"max":10}`, tail, rows, []float64{1, 1, 3.5, 10, 10, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"min":2,"max":3}`, tail, rows, []float64{2, 2, 3, 3, 3, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"min":55}`, tail, rows, []float64{55, 55, 55, 55, 55, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"max":0.5}`, tail, rows, []float64{0.5, 0.5, 0.5, 0.5, 0.5, nan}},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99}`, []float64{nan}, rows, rows},
		{clip.Encoder{}, `{"lower":0.01,"upper":0.99,"min":2}`, []float64{nan}, rows, []float64{2, 2, 3.5, 50, 60, nan}},
		{clip.Encoder{}, `{"lower":0,"upper":1}`, huge, []float64{math.Inf(-1), math.Inf(1)}, huge},
	} {
		if diff := cmp.Diff(c.want, scale(t, c.e, c.args, c.train, c.rows), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Errorf("%s %s of %v: %s", c.e.Name(), c.args, c.train, diff)
		}
	}
}

// TestPower compares with scikit-learn's PowerTransformer, whose exponent is
// known to about eight digits.
func TestPower(t *testing.T) {
	for _, c := range []struct {
		lambda      float64
		train, want []float64
	}{
		{-0.5258109644952632, []float64{3, 1, 4, 1, 5, 9, 2, 6, 50},
			[]float64{-0.19539355536096148, -1.4133657478593313, 0.11124281696328686, -1.4133657478593313, 0.33640694244839037, 0.8635516366018686, -0.647709885883871, 0.5106443270358966, 1.8479892139140481}},
		{1.4301183100490458, []float64{-30, -4, -1, 0, 0.5, 2, 3, 7},
			[]float64{-1.8381895414542704, -0.5512549567794762, -0.26497399421873047, -0.1287302855303719, -0.04065946072753565, 0.29853170609557866, 0.5730335520287375, 1.9522429805860682}},
		{2.760729994897294, []float64{-1, -2, -2.5, -4, -90},
			[]float64{1.3184497805159652, 0.4687892466990595, 0.2085799683383545, -0.2884116176745519, -1.7074073778788268}},
		{0.9058743920746192, []float64{-1.5, -.5, 0, .4, 1.6},
			[]float64{-1.51140802700419, -0.4660492349902616, 0.03417591280271022, 0.41977805926567924, 1.5235032899260623}},
		{-223.14262547109732, []float64{.001, .002, .002, .003, .02},
			[]float64{-1.0321500295809825, -0.4410578400498804, -0.4410578400498804, 0.03155312400480264, 1.88271258567594}},
		{13.047284793610006, []float64{.9, .95, .97, .99, .5},
			[]float64{-0.28094728635025173, 0.3618694572639089, 0.6803251134220093, 1.0402085337567322, -1.8014558180923987}},
		{-0.03241062380728173, []float64{0, 1, 10, 100, 1000, 10000, 100000, 1e6},
			[]float64{-1.3619540119322622, -1.1848909337188962, -0.7659693114447598, -0.25461936702775895, 0.23707161184777853, 0.6950800464693161, 1.120308779962404, 1.5149731858441786}},
		{1, []float64{5, 5, 5}, []float64{0, 0, 0}},
	} {
		train, want := append([]float64{nan}, c.train...), append([]float64{nan}, c.want...)
		if diff := cmp.Diff(want, scale(t, power.Encoder{}, `{}`, train, train), cmpopts.EquateNaNs(), cmpopts.EquateApprox(1e-6, 1e-9)); diff != "" {
			t.Errorf("%v: %s", c.train, diff)
		}
		raw, err := power.Encoder{}.Fit(nil, kind.Values{Numbers: c.train})
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Lambda float64 }
		if err := json.Unmarshal(raw, &p); err != nil || math.Abs(p.Lambda-c.lambda) > 1e-6*max(1, math.Abs(c.lambda)) {
			t.Errorf("%v: lambda %v, want %v (%v)", c.train, p.Lambda, c.lambda, err)
		}
	}
}

// TestPowerIsAsLikely: no exponent on a grid beats the one that was found.
func TestPowerIsAsLikely(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := []float64{}
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(-200, 200), 3, 30, rapid.ID[int]).Draw(t, "quarters") {
			xs = append(xs, float64(i)/4)
		}
		raw, err := power.Encoder{}.Fit(nil, kind.Values{Numbers: xs})
		if err != nil {
			t.Fatalf("%v", err)
		}
		var p struct{ Lambda float64 }
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Fatalf("%v", err)
		}
		found := likelihood(xs, p.Lambda)
		for tenths := -20; tenths <= 40; tenths++ {
			lambda := float64(tenths) / 10
			if l := likelihood(xs, lambda); l > found+1e-6*(1+math.Abs(found)) {
				t.Fatalf("%v has %v, %v has %v", p.Lambda, found, lambda, l)
			}
		}
	})
}

// likelihood is the log-likelihood of the Yeo-Johnson transform as its paper has it.
func likelihood(xs []float64, lambda float64) float64 {
	n := float64(len(xs))
	ys, jacobian, mean, variance := make([]float64, len(xs)), 0.0, 0.0, 0.0
	for i, x := range xs {
		switch {
		case x >= 0 && lambda != 0:
			ys[i] = (math.Pow(1+x, lambda) - 1) / lambda
		case x >= 0:
			ys[i] = math.Log1p(x)
		case lambda != 2:
			ys[i] = -(math.Pow(1-x, 2-lambda) - 1) / (2 - lambda)
		default:
			ys[i] = -math.Log1p(-x)
		}
		jacobian += math.Copysign(math.Log1p(math.Abs(x)), x)
		mean += ys[i] / n
	}
	for _, y := range ys {
		variance += (y - mean) * (y - mean) / n
	}
	return -n/2*math.Log(variance) + (lambda-1)*jacobian
}

// TestScalingHolds: whatever the training rows are, each encoder learns, missing
// stays missing, order is kept, and nothing else becomes missing.
func TestScalingHolds(t *testing.T) {
	const exact = 1e-12
	value := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.IntRange(-1e6, 1e6), func(i int) float64 { return float64(i) / 1e3 }), rapid.SampledFrom([]float64{nan, 0, 1, 2023, 2024}))
	for _, c := range []struct {
		e    kind.Encoder
		args string
	}{
		{minmax.Encoder{}, `{"clip":true}`}, {minmax.Encoder{}, `{"clip":false}`}, {robust.Encoder{}, `{}`},
		{clip.Encoder{}, `{"lower":0.1,"upper":0.8}`}, {clip.Encoder{}, `{"lower":0.1,"upper":0.8,"min":7}`}, {power.Encoder{}, `{}`},
	} {
		t.Run(fmt.Sprint(c.e.Name(), c.args), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				train := rapid.SliceOfN(value, 1, 20).Draw(t, "train")
				rows := append([]float64(nil), train...)
				sort.Float64s(rows) // NaN first
				got := scale(t, c.e, c.args, train, rows)
				for i, y := range got {
					if math.IsNaN(y) != math.IsNaN(rows[i]) {
						t.Fatalf("%v gives %v", rows[i], y)
					}
					if i > 0 && y < got[i-1] && got[i-1]-y > exact*math.Abs(y) {
						t.Fatalf("%v gives %v, and %v gives %v", rows[i-1], got[i-1], rows[i], y)
					}
					if c.e.Name() == "min_max" && (y < -exact || y > 1+exact) {
						t.Fatalf("%v gives %v", rows[i], y)
					}
				}
			})
		})
	}
}

// TestQuantile: quantiles are values of the rows at their ranks, rise with q and
// stay inside. The figures are numpy's.
func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		xs      []float64
		q, want float64
	}{
		{[]float64{3, 1, 4, 1, 5, 9, 2, 6, 50}, 0.77, 6.48}, {[]float64{3, 1, 4, 1, 5, 9, 2, 6, 50}, 0.99, 46.72},
		{[]float64{7, 1, 4, 2}, 0.01, 1.03}, {[]float64{7, 1, 4, 2}, 0.77, 4.93}, {[]float64{7, 1, 4, 2}, 0.99, 6.909999999999999},
		{[]float64{2, nan, math.Inf(1)}, 0.3, 2},
	} {
		if got := quantile.Of(quantile.Finite(c.xs), c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.xs, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		xs := quantile.Finite(rapid.SliceOfN(rapid.Float64(), 1, 20).Draw(t, "xs"))
		p, q := rapid.Float64Range(0, 1).Draw(t, "p"), rapid.Float64Range(0, 1).Draw(t, "q")
		a, b := quantile.Of(xs, min(p, q)), quantile.Of(xs, max(p, q))
		if a > b && a-b > 1e-15*math.Abs(a) || a < xs[0] || b > xs[len(xs)-1] {
			t.Fatalf("quantiles %v and %v of %v are %v and %v", p, q, xs, a, b)
		}
		if i := rapid.IntRange(0, len(xs)-1).Draw(t, "i"); len(xs) == 5 && quantile.Of(xs, float64(i)/4) != xs[i] {
			t.Fatalf("rank %d of %v", i, xs)
		}
	})
}
