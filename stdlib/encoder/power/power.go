// Package power makes numbers more normal by the Yeo-Johnson transform.
package power

import (
	_ "embed"
	"encoding/json"
	"math"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed power.cue
var source string

// Encoder is the kind "power".
type Encoder struct{}

// Name is "power".
func (Encoder) Name() string { return "power" }

// Version of the implementation.
func (Encoder) Version() int { return 1 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Schema is #Power.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "power", Def: "#Power", Source: source}
}

type params struct {
	Lambda float64 `json:"lambda"`
	Mean   float64 `json:"mean"` // of the transformed training rows
	Std    float64 `json:"std"`
}

// Accepts numbers.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return in, in == kind.Numbers
}

// Fit finds the exponent of greatest likelihood for the values that are finite
// (I.-K. Yeo and R. A. Johnson, A new family of power transformations to improve
// normality or symmetry, Biometrika 87, 2000), and mean and population deviation
// of what it makes of them. The exponent is 1, which leaves values as they are,
// for a feature that is constant, too great to be squared, or so near to 0 that
// 1 + x has lost its digits.
func (Encoder) Fit(_ json.RawMessage, v kind.Values) (json.RawMessage, error) {
	s := newSample(v.Numbers)
	p := params{Lambda: 1}
	if _, std := s.moments(1); std > 0 && s.most > 1e-6 {
		p.Lambda = minimum(s.cost, s.lo(), s.hi())
		// This near to a pole the formula loses more digits than its limit.
		const pole = 1e-6
		if math.Abs(p.Lambda) < pole {
			p.Lambda = 0
		} else if math.Abs(p.Lambda-2) < pole {
			p.Lambda = 2
		}
	}
	if p.Mean, p.Std = s.moments(p.Lambda); p.Std == 0 {
		p.Std = 1
	}
	return json.Marshal(p)
}

// sample is the finite values of the training rows.
type sample struct {
	xs, logs []float64 // x and ln(1 + |x|)
	sum      float64   // of logs with the sign of x
	most     float64   // the greatest |x|
	negative bool      // whether some x is below 0
	positive bool      // whether some is not
}

func newSample(xs []float64) *sample {
	s := &sample{}
	for _, x := range xs {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		a := math.Abs(x)
		l := math.Log1p(a)
		s.xs, s.logs, s.most = append(s.xs, x), append(s.logs, l), max(s.most, a)
		if x < 0 {
			s.sum, s.negative = s.sum-l, true
		} else {
			s.sum, s.positive = s.sum+l, true
		}
	}
	return s
}

// at is value i, transformed.
func (s *sample) at(i int, lambda float64) float64 {
	x, l := s.xs[i], s.logs[i]
	if lambda == 1 {
		return x
	}
	if x < 0 {
		return -bend(l, 2-lambda)
	}
	return bend(l, lambda)
}

// bend is ((1 + x)^lambda - 1) / lambda for l = ln(1 + x).
func bend(l, lambda float64) float64 {
	if lambda == 0 {
		return l
	}
	return math.Expm1(lambda*l) / lambda
}

// moments are mean and population deviation of the transformed values, by
// Welford's recurrence. A deviation of rounding alone counts as 0, and so do
// moments that overflow.
func (s *sample) moments(lambda float64) (mean, std float64) {
	var n, m2 float64
	for i := range s.xs {
		y := s.at(i, lambda)
		n++
		d := y - mean
		mean += d / n
		m2 += d * (y - mean)
	}
	switch std = math.Sqrt(m2 / n); {
	case math.IsNaN(mean) || math.IsInf(mean, 0):
		return 0, 0
	case std > 1e-12*math.Abs(mean) && !math.IsInf(std, 0):
		return mean, std
	}
	return mean, 0
}

// cost is the negative log-likelihood a row, without what does not change.
func (s *sample) cost(lambda float64) float64 {
	_, std := s.moments(lambda)
	if std == 0 {
		return math.Inf(1)
	}
	return math.Log(std) - (lambda-1)*s.sum/float64(len(s.xs))
}

// lo is the least exponent to try.
func (s *sample) lo() float64 {
	switch {
	case !s.negative:
		return s.least()
	case !s.positive:
		return 2 - s.greatest()
	}
	return max(s.least(), 2-s.greatest())
}

// hi is the greatest exponent to try.
func (s *sample) hi() float64 {
	switch {
	case !s.negative:
		return s.greatest()
	case !s.positive:
		return 2 - s.least()
	}
	return min(s.greatest(), 2-s.least())
}

// least is the least exponent for values that are not negative: below it the
// great ones lie so close to their limit that half of their digits are lost.
// (scipy.stats.yeojohnson_normmax goes on until they underflow.)
func (s *sample) least() float64 { return -18 / math.Log1p(s.most) }

// greatest is the greatest exponent for values that are not negative: above it
// the squares of values twenty times as great overflow, as in
// scipy.stats.yeojohnson_normmax.
func (s *sample) greatest() float64 {
	return max(1, 336/math.Log1p(20*min(s.most, math.MaxFloat64/20)))
}

// minimum returns where f is least between a and b, to eight digits: Brent's
// method without derivatives (R. P. Brent, Algorithms for Minimization without
// Derivatives, 1973, chapter 5).
func minimum(f func(float64) float64, a, b float64) float64 {
	const tolerance = 1.48e-8
	golden := (3 - math.Sqrt(5)) / 2
	x := a + golden*(b-a)
	fx := f(x)
	w, v, fw, fv := x, x, fx, fx // the second and third best
	var step, last float64       // the latest step, and the one before
	for range 500 {
		middle := (a + b) / 2
		tol := tolerance*math.Abs(x) + tolerance/3
		if math.Abs(x-middle) <= 2*tol-(b-a)/2 {
			break
		}
		r, q := (x-w)*(fx-fv), (x-v)*(fx-fw)
		p := (x-v)*q - (x-w)*r
		if q = 2 * (q - r); q > 0 {
			p = -p
		}
		q = math.Abs(q)
		// The parabola's step, if it is inside and less than half of the last but one.
		if math.Abs(last) > tol && math.Abs(p) < math.Abs(q*last/2) && p > q*(a-x) && p < q*(b-x) {
			last, step = step, p/q
			if u := x + step; u-a < 2*tol || b-u < 2*tol {
				step = math.Copysign(tol, middle-x)
			}
		} else {
			if last = b - x; x >= middle {
				last = a - x
			}
			step = golden * last
		}
		u := x + step
		if math.Abs(step) < tol {
			u = x + math.Copysign(tol, step)
		}
		fu := f(u)
		if fu <= fx {
			if u >= x {
				a = x
			} else {
				b = x
			}
			v, fv, w, fw, x, fx = w, fw, x, fx, u, fu
			continue
		}
		if u < x {
			a = u
		} else {
			b = u
		}
		if fu <= fw || w == x {
			v, fv, w, fw = w, fw, u, fu
		} else if fu <= fv || v == x || v == w {
			v, fv = u, fu
		}
	}
	return x
}

// Lower adds the transform, then (y - mean) / std.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	y := x
	if p.Lambda != 1 {
		l := g.Op("Log", g.Op("Add", g.Op("Abs", x), g.Scalar(1.0)))
		bend := func(lambda float64) onnx.Value {
			if lambda == 0 {
				return l
			}
			e := g.Op("Exp", g.Op("Mul", l, g.Scalar(lambda)))
			return g.Op("Div", g.Op("Sub", e, g.Scalar(1.0)), g.Scalar(lambda))
		}
		y = g.Op("Where", g.Op("Less", x, g.Scalar(0.0)), g.Op("Neg", bend(2-p.Lambda)), bend(p.Lambda))
	}
	return g.Op("Div", g.Op("Sub", y, g.Scalar(p.Mean)), g.Scalar(p.Std)), nil, nil
}
