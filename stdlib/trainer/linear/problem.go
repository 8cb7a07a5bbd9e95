package linear

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// problem is a penalised loss over centred and scaled columns, first those that are
// mostly there (dense), then those that are mostly zeros. Parameters are, for each
// column in that order, a weight for each of k outputs, and then k intercepts. A
// dense column is centred as it is read; a sparse one by a term that all rows share,
// which costs no digits because its mean is less than its deviation. A quantile task
// has a single quantile here.
type problem struct {
	task       kind.Task
	x          kind.Matrix
	y          []float64 // labels; of measured numbers (y - shift) / unit
	weight     []float64 // of rows, or nil
	total      float64   // what the sum of losses is divided by
	l1, l2     float64   // for the labels' unit
	unit       float64
	shift      float64
	round      float64 // of a pinball loss: as far from 0 as it is quadratic, at most
	k, dim     int
	threads    int
	column     []int // of X, by place
	dense      int   // places below it are dense
	mean       []float64
	scale      []float64 // 0: a constant column, of which the weight stays 0
	byRow      sparse    // the sparse columns, row by row
	byColumn   sparse    // and column by column
	residuals  []float64 // rows × k
	weightsRaw []float64 // of sparse columns, over raw values
}

// sparse is compressed: entries start[i] to start[i+1] are those of line i.
type sparse struct {
	start []int
	at    []int32
	value []float32
}

// rare is the share of values that are not 0 up to which a column is sparse.
const rare = 0.25

func newProblem(task kind.Task, a args, x kind.Matrix, y, weight []float64, threads int) *problem {
	p := &problem{task: task, x: x, y: y, weight: weight, l1: a.L1, l2: a.L2, unit: 1, k: task.Width(), dim: x.Cols + 1, threads: threads, total: float64(x.Rows)}
	switch task.Kind {
	case kind.Regression, kind.Quantile:
		p.shift, p.unit = moments(y)
		p.y = make([]float64, len(y))
		for i, v := range y {
			p.y[i] = (v - p.shift) / p.unit
		}
		// Dividing weights by the unit divides the penalties by it or its square,
		// and the loss likewise.
		if task.Kind == kind.Regression {
			p.l1 /= p.unit
		} else {
			p.l2 *= p.unit
		}
	case kind.Count:
		if sum := floats.Sum(y); sum > 0 {
			p.total = sum // so that the tolerance does not depend on how much is counted
		}
	default:
		if weight != nil {
			p.total = floats.Sum(weight)
		}
	}
	p.residuals = make([]float64, x.Rows*p.k)
	p.arrange()
	return p
}

// moments are the mean and the deviation, or 1 where there is none.
func moments(y []float64) (mean, deviation float64) {
	m2 := 0.0
	for i, v := range y {
		d := v - mean
		mean += d / float64(i+1)
		m2 += d * (v - mean)
	}
	if deviation = math.Sqrt(m2 / float64(len(y))); deviation < 1e-9*math.Max(1e-9, math.Abs(mean)) {
		deviation = 1
	}
	return mean, deviation
}

// arrange measures the columns, puts them in order and compresses the sparse ones.
func (p *problem) arrange() {
	x := p.x
	mean, m2, there := make([]float64, x.Cols), make([]float64, x.Cols), make([]int, x.Cols)
	for i := range x.Rows {
		share := 1 / float64(i+1)
		for j, v := range x.Row(i) {
			if v != 0 {
				there[j]++
			}
			d := float64(v) - mean[j]
			mean[j] += d * share
			m2[j] += d * (float64(v) - mean[j])
		}
	}
	var sparseColumns []int
	for j, n := range there {
		if float64(n) <= rare*float64(x.Rows) {
			sparseColumns = append(sparseColumns, j)
		} else {
			p.column = append(p.column, j)
		}
	}
	p.dense = len(p.column)
	p.column = append(p.column, sparseColumns...)
	p.mean, p.scale = make([]float64, x.Cols), make([]float64, x.Cols)
	for at, j := range p.column {
		p.mean[at] = mean[j]
		// A scale that grows with the penalty gives every weight about the same
		// curvature, so that few steps are needed.
		if std := math.Sqrt(m2[j] / float64(x.Rows)); std >= 1e-9*math.Max(1, math.Abs(mean[j])) {
			p.scale[at] = math.Sqrt(std*std + p.l2/(p.curvature()*p.total))
		}
	}
	p.compress(there)
	p.weightsRaw = make([]float64, (x.Cols-p.dense)*p.k)
}

// curvature is about the loss's second derivative by a score.
func (p *problem) curvature() float64 {
	switch p.task.Kind {
	case kind.Binary, kind.Multilabel:
		return 0.25
	case kind.Multiclass:
		return (1 - 1/float64(p.k)) / float64(p.k)
	}
	return 1
}

func (p *problem) compress(there []int) {
	columns := p.column[p.dense:]
	c, n := &p.byColumn, 0
	c.start = make([]int, 0, len(columns)+1)
	for _, j := range columns {
		c.start = append(c.start, n)
		n += there[j]
	}
	c.start = append(c.start, n)
	c.at, c.value = make([]int32, n), make([]float32, n)
	r := &p.byRow
	r.start, r.at, r.value = make([]int, 1, p.x.Rows+1), make([]int32, 0, n), make([]float32, 0, n)
	next := slices.Clone(c.start)
	for i := range p.x.Rows {
		row := p.x.Row(i)
		for at, j := range columns {
			if v := row[j]; v != 0 {
				r.at, r.value = append(r.at, int32(at)), append(r.value, v)
				c.at[next[at]], c.value[next[at]] = int32(i), v
				next[at]++
			}
		}
		r.start = append(r.start, len(r.at))
	}
}

// scaled writes the first n columns of a row, in order.
func (p *problem) scaled(i, n int, out []float64) {
	row := p.x.Row(i)
	for at, j := range p.column[:n] {
		out[at] = 0
		if p.scale[at] > 0 {
			out[at] = (float64(row[j]) - p.mean[at]) / p.scale[at]
		}
	}
}

// penalties of the weights at a place, by their value over raw columns.
func (p *problem) penalties(at int) (l1, l2 float64) {
	if at >= len(p.scale) || p.scale[at] == 0 {
		return 0, 0
	}
	return p.l1 / p.scale[at], p.l2 / (p.scale[at] * p.scale[at])
}

// blocks is a constant, so that sums do not depend on the number of threads.
const blocks = 32

// parallel runs f for every block of n things and returns what each gave, in order.
func parallel[T any](threads, n int, f func(from, to int) T) []T {
	out := make([]T, blocks)
	var wg sync.WaitGroup
	next := make(chan int, blocks)
	for b := range blocks {
		next <- b
	}
	close(next)
	for range threads {
		wg.Go(func() {
			for b := range next {
				out[b] = f(b*n/blocks, (b+1)*n/blocks)
			}
		})
	}
	wg.Wait()
	return out
}

// loss is the sum of losses over total, with its gradient, the quadratic penalty
// included.
func (p *problem) loss(w, grad []float64) float64 {
	k, dense := p.k, p.dense
	base := slices.Clone(w[len(w)-k:])
	for at := dense; at < p.x.Cols; at++ {
		raw := p.weightsRaw[(at-dense)*k : (at-dense+1)*k]
		if p.scale[at] > 0 {
			floats.ScaleTo(raw, 1/p.scale[at], w[at*k:(at+1)*k])
			floats.AddScaled(base, -p.mean[at], raw)
		}
	}
	type part struct {
		loss      float64
		grad, sum []float64 // of the dense weights, and of the intercepts
	}
	parts := parallel(p.threads, p.x.Rows, func(from, to int) part {
		out := part{grad: make([]float64, dense*k), sum: make([]float64, k)}
		row := make([]float64, dense)
		for i := from; i < to; i++ {
			score := p.residuals[i*k : (i+1)*k]
			copy(score, base)
			p.scaled(i, dense, row)
			if k == 1 {
				score[0] += floats.Dot(row, w[:dense])
			} else {
				for at, v := range row {
					floats.AddScaled(score, v, w[at*k:(at+1)*k])
				}
			}
			for e := p.byRow.start[i]; e < p.byRow.start[i+1]; e++ {
				at, v := int(p.byRow.at[e]), float64(p.byRow.value[e])
				if k == 1 {
					score[0] += v * p.weightsRaw[at]
				} else {
					floats.AddScaled(score, v, p.weightsRaw[at*k:(at+1)*k])
				}
			}
			loss := p.residual(i, score)
			if p.weight != nil {
				loss *= p.weight[i]
				floats.Scale(p.weight[i], score)
			}
			out.loss += loss
			floats.Add(out.sum, score)
			if k == 1 {
				floats.AddScaled(out.grad, score[0], row)
			} else {
				for at, v := range row {
					floats.AddScaled(out.grad[at*k:(at+1)*k], v, score)
				}
			}
		}
		return out
	})
	loss, sum := 0.0, grad[len(grad)-k:]
	clear(grad)
	for _, q := range parts {
		loss += q.loss
		floats.Add(grad[:dense*k], q.grad)
		floats.Add(sum, q.sum)
	}
	parallel(p.threads, p.x.Cols-dense, func(from, to int) struct{} {
		for c := from; c < to; c++ {
			at := dense + c
			if p.scale[at] == 0 {
				continue
			}
			g := grad[at*k : (at+1)*k]
			for e := p.byColumn.start[c]; e < p.byColumn.start[c+1]; e++ {
				i, v := int(p.byColumn.at[e]), float64(p.byColumn.value[e])
				if k == 1 {
					g[0] += v * p.residuals[i]
				} else {
					floats.AddScaled(g, v, p.residuals[i*k:(i+1)*k])
				}
			}
			floats.AddScaled(g, -p.mean[at], sum)
			floats.Scale(1/p.scale[at], g)
		}
		return struct{}{}
	})
	for at := range p.x.Cols {
		_, l2 := p.penalties(at)
		own := w[at*k : (at+1)*k]
		loss += l2 * floats.Dot(own, own) / 2
		floats.AddScaled(grad[at*k:(at+1)*k], l2, own)
	}
	floats.Scale(1/p.total, grad)
	return loss / p.total
}

// residual turns the scores of row i into the loss's derivatives by them in place,
// and returns the loss.
func (p *problem) residual(i int, score []float64) float64 {
	loss := 0.0
	switch p.task.Kind {
	case kind.Multiclass:
		of := int(p.y[i])
		own := score[of]
		loss = softmax(score) - own
		score[of]--
	case kind.Regression:
		score[0] -= p.y[i]
		loss = score[0] * score[0] / 2
	case kind.Count:
		s, y := score[0], p.y[i]
		mean := math.Exp(s)
		score[0], loss = mean-y, mean-y*s
	case kind.Quantile:
		// max over d in [q-1, q] of d·r - round·d²/2, which is the pinball loss for
		// round 0 (Nesterov 2005)
		q, r := p.task.Quantiles[0], p.y[i]-score[0]
		d := math.Min(math.Max(r/p.round, q-1), q)
		loss = d*r - p.round*d*d/2
		score[0] = -d
	default:
		for c, s := range score {
			y := p.y[i*p.k+c]
			// log(1+exp(s)) - y*s, without overflow
			loss += math.Max(s, 0) + math.Log1p(math.Exp(-math.Abs(s))) - y*s
			score[c] = 1/(1+math.Exp(-s)) - y
		}
	}
	return loss
}

// softmax turns scores into probabilities in place, and returns the logarithm of the
// sum of their exponentials.
func softmax(score []float64) float64 {
	top, sum := floats.Max(score), 0.0
	for c, s := range score {
		score[c] = math.Exp(s - top)
		sum += score[c]
	}
	floats.Scale(1/sum, score)
	return top + math.Log(sum)
}

// gram is the sum of the products of the scaled columns, and of a column of ones after
// them, over the rows that are in: an upper triangle of dim × dim.
func (p *problem) gram(in func(i int) bool) []float64 {
	const chunk = 256
	d, n := p.dim, 0
	out, rows := make([]float64, d*d), make([]float64, chunk*d)
	for i := range p.x.Rows {
		if in(i) {
			row := rows[n*d : (n+1)*d]
			p.scaled(i, d-1, row)
			row[d-1] = 1
			n++
		}
		if n < chunk && i < p.x.Rows-1 {
			continue
		}
		parallel(p.threads, d, func(from, to int) struct{} {
			for a := from; a < to; a++ {
				for r := range n {
					if u := rows[r*d+a]; u != 0 {
						floats.AddScaled(out[a*d+a:(a+1)*d], u, rows[r*d+a:(r+1)*d])
					}
				}
			}
			return struct{}{}
		})
		n = 0
	}
	return out
}

// hessian is that of a quantile's loss, which is curved only where it is rounded. The
// residuals have to be those of the weights.
func (p *problem) hessian() *mat.SymDense {
	q := p.task.Quantiles[0]
	sym := mat.NewSymDense(p.dim, p.gram(func(i int) bool { return -p.residuals[i] > q-1 && -p.residuals[i] < q }))
	sym.ScaleSym(1/(p.round*p.total), sym)
	for at := range p.dim {
		_, l2 := p.penalties(at)
		sym.SetSym(at, at, sym.At(at, at)+l2/p.total)
	}
	return sym
}

// most is the number of columns up to which the normal equations are solved.
const most = 2048

// ridge solves the normal equations by Cholesky.
func (p *problem) ridge() ([]float64, error) {
	d := p.dim
	xx, xy, row := p.gram(func(int) bool { return true }), make([]float64, d), make([]float64, d)
	row[d-1] = 1
	for i, y := range p.y {
		p.scaled(i, d-1, row)
		floats.AddScaled(xy, y, row)
	}
	sym := mat.NewSymDense(d, xx)
	for a := range d {
		_, pen := p.penalties(a)
		if a < d-1 && pen == 0 {
			pen = 1e-9 * float64(p.x.Rows) // keeps constant and collinear columns solvable
		}
		sym.SetSym(a, a, sym.At(a, a)+pen)
	}
	var chol mat.Cholesky
	if !chol.Factorize(sym) {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NotConverged, What: "the features are linearly dependent", Mend: "raise l2"}
	}
	var w mat.VecDense
	if err := chol.SolveVecTo(&w, mat.NewVecDense(d, xy)); err != nil {
		return nil, fmt.Errorf("ridge: %w", err)
	}
	return w.RawVector().Data, nil
}

// unscale returns weights over the raw columns, [cols][k], and intercepts.
func (p *problem) unscale(w []float64) (weights, bias []float64) {
	k, cols := p.k, p.x.Cols
	weights, bias = make([]float64, cols*k), make([]float64, k)
	for c := range k {
		bias[c] = w[cols*k+c]*p.unit + p.shift
	}
	for at, j := range p.column {
		if p.scale[at] > 0 {
			floats.ScaleTo(weights[j*k:(j+1)*k], p.unit/p.scale[at], w[at*k:(at+1)*k])
			floats.AddScaled(bias, -p.mean[at], weights[j*k:(j+1)*k])
		}
	}
	return weights, bias
}
