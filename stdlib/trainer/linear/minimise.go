package linear

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// minimise finds the parameters of the least penalised loss, and tells the steps that
// it took and the greatest part of the gradient that is left.
func (p *problem) minimise(ctx context.Context, a args, progress func(int, int, string)) (w []float64, steps int, gradient float64, err error) {
	o := owlqn{ctx: ctx, progress: progress, loss: p.loss, l1: make([]float64, p.dim*p.k), tolerance: a.Tolerance, most: a.MaxSteps}
	for i := range o.l1 {
		l1, _ := p.penalties(i / p.k)
		o.l1[i] = l1 / p.total
	}
	w = make([]float64, p.dim*p.k)
	bias := w[len(w)-p.k:]
	switch p.task.Kind {
	case kind.Count:
		// Without a count at all the mean is 0, of which the logarithm is infinite.
		bias[0] = math.Log(math.Max(floats.Sum(p.y)/float64(len(p.y)), 1e-9))
	case kind.Quantile:
		// From a loss that is round everywhere to one that hardly is (Madsen & Nielsen
		// 1993, "A finite smoothing algorithm for linear l1 estimation").
		p.intercept(w)
		if p.dim <= fewest {
			o.hessian = p.hessian
		}
		o.tolerance = math.Max(a.Tolerance, 1e-3)
		for p.round = 1; p.round > 2*least; p.round /= 10 {
			if w, err = o.run(w); err != nil {
				return nil, 0, 0, err
			}
			steps += o.steps
		}
		p.round, o.tolerance = least, a.Tolerance
	}
	if w, err = o.run(w); err != nil {
		return nil, 0, 0, err
	}
	// A line search that finds no further descent has reached the precision of
	// doubles; a hundredfold of the tolerance is then still converged.
	if o.gradient > a.Tolerance && (o.steps == a.MaxSteps || o.gradient > 100*a.Tolerance) {
		return nil, 0, 0, diag.Diagnostic{Severity: diag.Error, Code: diag.NotConverged, What: fmt.Sprintf("linear training has not converged after %d steps: the gradient is %.2g, not %.2g", o.steps, o.gradient, a.Tolerance),
			Why: "weights that still move are not the model that the spec describes", Mend: "raise max_steps or l2, or leave encode out so that features are standardized"}
	}
	if p.task.Kind == kind.Quantile {
		p.intercept(w)
	}
	return w, steps + o.steps, o.gradient, nil
}

// least is the round of a pinball loss in the end, in deviations of the labels.
const least = 1e-2

// fewest is the number of parameters up to which a quantile's curvature is computed.
const fewest = 512

// intercept sets that of a quantile task to what is best for the weights: the quantile
// of what the other terms leave.
func (p *problem) intercept(w []float64) {
	bias := w[len(w)-1:]
	clear(bias)
	weights, base := p.unscale(w)
	left := make([]float64, p.x.Rows)
	for i := range left {
		s := base[0] - p.shift
		for j, v := range p.x.Row(i) {
			s += float64(v) * weights[j]
		}
		left[i] = p.y[i] - s/p.unit
	}
	slices.Sort(left)
	bias[0] = left[max(int(math.Ceil(p.task.Quantiles[0]*float64(len(left))))-1, 0)]
}

// owlqn minimises a smooth convex function plus weighted absolute values: Andrew &
// Gao 2007, "Scalable training of L1-regularized log-linear models". Where all of l1
// are 0 it is L-BFGS.
type owlqn struct {
	ctx      context.Context
	progress func(int, int, string)
	// loss returns the smooth part and writes its gradient.
	loss      func(w, grad []float64) float64
	l1        []float64
	tolerance float64
	most      int
	// hessian, where it is set, is the curvature where loss was last, and takes the
	// place of what the past tells of it.
	hessian func() *mat.SymDense

	// steps taken by the last run, and the greatest part of the pseudo-gradient
	// after them.
	steps    int
	gradient float64
}

// memory is the number of past steps that shape the next.
const memory = 20

// pair is a past step, what it changed of the gradient, and 1 / their product.
type pair struct {
	s, y []float64
	rho  float64
}

// run descends from w, which it changes, until the tolerance, most steps, or no
// descent.
func (o *owlqn) run(w []float64) ([]float64, error) {
	n := len(w)
	grad, slope, dir := make([]float64, n), make([]float64, n), make([]float64, n)
	next, nextGrad := make([]float64, n), make([]float64, n)
	f := o.loss(w, grad) + o.absolute(w)
	var past []pair
	steepest := false
	for o.steps = 0; ; {
		o.pseudo(w, grad, slope)
		o.gradient = math.Max(floats.Max(slope), -floats.Min(slope))
		if o.gradient <= o.tolerance || o.steps == o.most {
			return w, nil
		}
		t, model := 1.0, 0.0
		switch {
		case steepest:
		case o.hessian != nil:
			o.proximal(w, grad, slope, dir)
			floats.AddTo(next, w, dir)
			model = floats.Dot(grad, dir) + o.absolute(next) - o.absolute(w)
			steepest = model >= 0
		default:
			o.direction(past, w, slope, dir)
			steepest = floats.Dot(dir, slope) >= 0
		}
		if steepest {
			past = past[:0]
			floats.ScaleTo(dir, -1, slope)
			t = math.Min(1, 1/floats.Norm(slope, 2))
		}
		var nf float64
		descends := false
		for range 50 {
			if err := o.ctx.Err(); err != nil {
				return nil, err
			}
			gain, orthant := 0.0, steepest || o.hessian == nil
			for i, v := range w {
				x := v + t*dir[i]
				if orthant && o.l1[i] > 0 && (v > 0 && x < 0 || v < 0 && x > 0 || v == 0 && x*slope[i] >= 0) {
					x = 0 // a step ends where the sign would change
				}
				next[i] = x
				gain += slope[i] * (x - v)
			}
			if !orthant {
				gain = t * model
			}
			nf = o.loss(next, nextGrad) + o.absolute(next)
			if descends = nf <= f+1e-4*gain && nf < f; descends {
				break
			}
			t /= 2
		}
		if !descends {
			if steepest {
				return w, nil
			}
			steepest = true
			continue
		}
		steepest = false
		if o.hessian == nil {
			past = remember(past, next, w, nextGrad, grad)
		}
		w, next, grad, nextGrad, f = next, w, nextGrad, grad, nf
		o.steps++
		o.progress(o.steps, 0, fmt.Sprintf("loss %.5f", f))
	}
}

func (o *owlqn) absolute(w []float64) float64 {
	sum := 0.0
	for i, l := range o.l1 {
		sum += l * math.Abs(w[i])
	}
	return sum
}

// pseudo is the gradient, absolute values included, of the side to which the whole
// descends; 0 where neither does.
func (o *owlqn) pseudo(w, grad, out []float64) {
	for i, g := range grad {
		l := o.l1[i]
		switch {
		case w[i] > 0:
			out[i] = g + l
		case w[i] < 0:
			out[i] = g - l
		case g < -l:
			out[i] = g + l
		case g > l:
			out[i] = g - l
		default:
			out[i] = 0
		}
	}
}

// direction is a step from w by what the past tells of the curvature. A weight that
// rests at 0 stays there, and the curvature is that among the others alone: the
// inverse of a part is not the part of an inverse.
func (o *owlqn) direction(past []pair, w, slope, out []float64) {
	free := make([]int, 0, len(w))
	for i, v := range w {
		if o.l1[i] == 0 || v != 0 || slope[i] != 0 {
			free = append(free, i)
		}
	}
	part := func(v []float64) []float64 {
		own := make([]float64, len(free))
		for at, i := range free {
			own[at] = v[i]
		}
		return own
	}
	switch {
	case len(past) == 0:
		floats.ScaleTo(out, -1/math.Max(1, floats.Norm(slope, 2)), slope)
	case len(free) == len(w):
		newton(past, slope, out)
	default:
		own := make([]pair, 0, len(past))
		for _, q := range past {
			own = appendPair(own, pair{s: part(q.s), y: part(q.y)})
		}
		d := make([]float64, len(free))
		newton(own, part(slope), d)
		clear(out)
		for at, i := range free {
			out[i] = d[at]
		}
	}
	for i, v := range w {
		if o.l1[i] > 0 && v == 0 && out[i]*slope[i] >= 0 {
			out[i] = 0 // the other side ascends
		}
	}
}

// proximal is the step to the least of the quadratic model plus the absolute values,
// by coordinate descent where there are any (Lee, Sun & Saunders 2014). The curvature
// is raised by the slope's norm, so that the model has one least, and near that of the
// loss is the plain one (Li, Fukushima, Qi & Yamashita 2004).
func (o *owlqn) proximal(w, grad, slope, out []float64) {
	h, n := o.hessian(), len(w)
	raise := floats.Norm(slope, 2)
	for i := range n {
		h.SetSym(i, i, h.At(i, i)+raise)
	}
	clear(out)
	if floats.Max(o.l1) == 0 {
		var d mat.VecDense
		var chol mat.Cholesky
		if chol.Factorize(h) && chol.SolveVecTo(&d, mat.NewVecDense(n, grad)) == nil {
			floats.ScaleTo(out, -1, d.RawVector().Data)
		}
		return
	}
	full := mat.DenseCopyOf(h)
	model := slices.Clone(grad) // the model's gradient at out
	for range sweeps {
		moved := 0.0
		for i, l := range o.l1 {
			row := full.RawRowView(i)
			at := w[i] + out[i]
			to := at - model[i]/row[i]
			to = math.Copysign(math.Max(math.Abs(to)-l/row[i], 0), to)
			if d := to - at; d != 0 {
				out[i] = to - w[i]
				floats.AddScaled(model, d, row)
				moved = math.Max(moved, math.Abs(d)*row[i])
			}
		}
		if moved <= 0.1*o.gradient {
			return
		}
	}
}

// sweeps is how often coordinate descent passes at most; what it has by then is a step
// that descends.
const sweeps = 1000

// newton is minus the slope times the inverse curvature that the past tells of
// (Nocedal & Wright 2006, algorithm 7.4).
func newton(past []pair, slope, out []float64) {
	floats.ScaleTo(out, -1, slope)
	if len(past) == 0 {
		return
	}
	alpha := make([]float64, len(past))
	for i := len(past) - 1; i >= 0; i-- {
		alpha[i] = past[i].rho * floats.Dot(past[i].s, out)
		floats.AddScaled(out, -alpha[i], past[i].y)
	}
	last := past[len(past)-1]
	floats.Scale(1/(last.rho*floats.Dot(last.y, last.y)), out)
	for i, q := range past {
		floats.AddScaled(out, alpha[i]-q.rho*floats.Dot(q.y, out), q.s)
	}
}

// remember appends a step, and forgets the oldest beyond memory.
func remember(past []pair, to, from, toGrad, fromGrad []float64) []pair {
	var q pair
	if len(past) == memory {
		q = past[0]
		past = append(past[:0], past[1:]...)
	} else {
		q = pair{s: make([]float64, len(to)), y: make([]float64, len(to))}
	}
	floats.SubTo(q.s, to, from)
	floats.SubTo(q.y, toGrad, fromGrad)
	return appendPair(past, q)
}

// appendPair appends a step, unless it met no curvature and so teaches nothing.
func appendPair(past []pair, q pair) []pair {
	sy := floats.Dot(q.s, q.y)
	if sy <= 1e-14*floats.Norm(q.s, 2)*floats.Norm(q.y, 2) {
		return past
	}
	q.rho = 1 / sy
	return append(past, q)
}
