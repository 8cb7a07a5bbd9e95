// Package calibrator holds the calibrators, a folder each; here are their common tests.
package calibrator

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/calibrator/isotonic"
	"mlc.dev/mlc/stdlib/calibrator/platt"
)

var (
	p = []float32{.05, .1, .1, .2, .3, .35, .4, .55, .6, .8, .9, .95}
	y = []float64{0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1}
)

// TestIsotonic compares with scikit-learn 1.9's IsotonicRegression, clipped as ours.
func TestIsotonic(t *testing.T) {
	c, err := isotonic.Calibrator{}.Fit(nil, y, p)
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{0.0416666679084301, 0.0416666679084301, 0.25, 0.34999993443489075, 0.6111111044883728, 0.6666666865348816, 0.9583333134651184, 0.9583333134651184}
	for i, q := range []float32{0, .05, .15, .32, .5, .7, .93, 1} {
		if got := c.Apply(q); math.Abs(float64(got)-want[i]) > 1e-6 {
			t.Errorf("%v is corrected to %v, not %v", q, got, want[i])
		}
	}
}

// TestPlatt compares with scikit-learn 1.9's sigmoid calibration of the log odds.
func TestPlatt(t *testing.T) {
	c, err := platt.Calibrator{}.Fit(nil, y, p)
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Report["slope"].(float64), c.Report["intercept"].(float64)
	if math.Abs(a-0.42304045) > 1e-4 || math.Abs(b-0.13158279) > 1e-4 {
		t.Errorf("slope %v, intercept %v", a, b)
	}
}

// TestIsotonicSlope: on rows as near to each other as floats can be, the curve never
// falls and is nowhere steeper than 10: what two orders of a float32 sum differ by stays
// below what packaging refuses.
func TestIsotonicSlope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 80).Draw(t, "n")
		p, y := make([]float32, n), make([]float64, n)
		at := rapid.Float32Range(0, 1).Draw(t, "at")
		for i := range p {
			p[i] = at
			if !rapid.Bool().Draw(t, "tied") {
				at = min(at+rapid.SampledFrom([]float32{1e-7, 1e-6, 1e-4, 1e-2}).Draw(t, "gap"), 1)
			}
			y[i] = float64(rapid.IntRange(0, 1).Draw(t, "y"))
		}
		y[0], y[n-1] = 0, 1
		c, err := isotonic.Calibrator{}.Fit(nil, y, p)
		if err != nil {
			t.Fatal(err)
		}
		// The curve bends only near rows, so it is looked at around them, and far off.
		in := []float32{0, 1}
		for _, v := range p {
			for _, d := range []float32{0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2} {
				in = append(in, min(v+d, 1), max(v-d, 0))
			}
		}
		slices.Sort(in)
		for i := 1; i < len(in); i++ {
			rise, run := float64(c.Apply(in[i]))-float64(c.Apply(in[i-1])), float64(in[i])-float64(in[i-1])
			if rise < 0 || rise > 20*run+1e-6 {
				t.Fatalf("from %v to %v the curve goes from %v to %v", in[i-1], in[i], c.Apply(in[i-1]), c.Apply(in[i]))
			}
		}
	})
	// Two blocks that touch keep their levels but for the line between them.
	var p []float32
	var y []float64
	for i := range 1000 {
		p, y = append(p, .2+float32(i)*1e-4, .3+float32(i+1)*1e-4), append(y, float64(i%10/9), float64(i%2))
	}
	c, err := isotonic.Calibrator{}.Fit(nil, y, p)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[float32]float64{.22: .1, .28: .1, .32: .5, .36: .5, .3: .3} {
		if got := c.Apply(at); math.Abs(float64(got)-want) > .03 {
			t.Errorf("%v is corrected to %v, not about %v", at, got, want)
		}
	}
}

// TestIsotonicOfTimidModels: where a model's probabilities are closer together than the
// truth, the curve is steep all along, and still finds it.
func TestIsotonicOfTimidModels(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, slope := range []float64{1, 5, 9, 15} {
		draw := func(n int) (y []float64, p []float32, truth []float64) {
			for range n {
				u := rng.Float64()
				q := .05 + .9*u
				truth = append(truth, q)
				p = append(p, float32(.3+.9/slope*(u-.5)*.6))
				y = append(y, 0)
				if rng.Float64() < q {
					y[len(y)-1] = 1
				}
			}
			return y, p, truth
		}
		y, p, _ := draw(5000)
		c, err := isotonic.Calibrator{}.Fit(nil, y, p)
		if err != nil {
			t.Fatal(err)
		}
		_, p, truth := draw(5000)
		loss, least := 0.0, 0.0
		for i, q := range truth {
			got := float64(c.Apply(p[i]))
			loss -= q*math.Log(got) + (1-q)*math.Log(1-got)
			least -= q*math.Log(q) + (1-q)*math.Log(1-q)
		}
		if loss > 1.02*least {
			t.Errorf("slope %v: a log loss of %v, where the truth has %v", slope/.6, loss/5000, least/5000)
		}
	}
}

func TestOneClass(t *testing.T) {
	for _, k := range []kind.Calibrator{isotonic.Calibrator{}, platt.Calibrator{}} {
		if _, err := k.Fit(nil, []float64{1, 1}, []float32{.2, .3}); err == nil {
			t.Errorf("%s learned from one class", k.Name())
		}
	}
}

// TestGraphIsGo holds each graph against its function in Go, and both to be
// probabilities that never fall.
func TestGraphIsGo(t *testing.T) {
	for _, k := range []kind.Calibrator{isotonic.Calibrator{}, platt.Calibrator{}} {
		rapid.Check(t, func(t *rapid.T) {
			probability := rapid.Custom(func(t *rapid.T) float32 {
				return float32(rapid.IntRange(0, 1000).Draw(t, "p")) / 1000
			})
			p := rapid.SliceOfN(probability, 2, 60).Draw(t, "p")
			y := make([]float64, len(p))
			for i := range y {
				y[i] = float64(rapid.IntRange(0, 1).Draw(t, "y"))
			}
			y[0], y[1] = 0, 1
			c, err := k.Fit(nil, y, p)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ort.Open(c.Model)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			in := make([]float32, 101)
			for i := range in {
				in[i] = float32(i) / 100
			}
			res, err := s.Run([]ort.Tensor{{Data: in, Shape: []int64{101, 1}}})
			if err != nil {
				t.Fatal(err)
			}
			rising := k.Name() == "isotonic" || c.Report["slope"].(float64) >= 0
			for i, got := range res[0].Data.([]float32) {
				want := c.Apply(in[i])
				if math.Abs(float64(got-want)) > 1e-6 || got < 0 || got > 1 {
					t.Fatalf("%s: the graph makes %v of %v, Go %v", k.Name(), got, in[i], want)
				}
				if i > 0 && rising && want < c.Apply(in[i-1])-1e-7 {
					t.Fatalf("%s falls at %v", k.Name(), in[i])
				}
			}
		})
	}
}
