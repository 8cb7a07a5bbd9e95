// Package linear trains logistic, softmax and ridge regression.
package linear

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"sync"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed linear.cue
var source string

// Trainer is the kind "linear".
type Trainer struct{}

// Name is "linear".
func (Trainer) Name() string { return "linear" }

// Version of the implementation.
func (Trainer) Version() int { return 1 }

// Schema is #Linear.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "linear", Def: "#Linear", Source: source}
}

type args struct {
	L2        float64 `json:"l2"`
	Tolerance float64 `json:"tolerance"`
	MaxSteps  int     `json:"max_steps"`
}

// Check has nothing that the schema does not.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults fills and scales numbers, and one-hot encodes texts.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return []json.RawMessage{[]byte(`{"kind":"one_hot","max":64}`)}
	}
	return []json.RawMessage{[]byte(`{"kind":"impute","with":"median"}`), []byte(`{"kind":"standardize"}`)}
}

// Features is true.
func (Trainer) Features() bool { return true }

// Train minimises the penalised loss: L-BFGS for classes, the normal equations
// for numbers. It fails where a feature is missing or infinite, and where
// max_steps do not reach the tolerance.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[args](job.Args)
	x := job.Train.X
	for i, v := range x.Data {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			what := "missing"
			if math.IsInf(f, 0) {
				what = "infinite"
			}
			return kind.TrainResult{}, diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: fmt.Sprintf("feature %q is %s in a training row", job.Names[i%x.Cols], what),
				Why: "a linear model multiplies every feature", Mend: `begin its encode with {kind: "impute"}, or leave encode out for the default`}
		}
	}
	p := newProblem(job.Task, x, job.Train.Y, a.L2, max(job.Threads, 1))
	var w []float64
	report := map[string]any{"features": x.Cols}
	if job.Task.Kind == kind.Regression {
		var err error
		if w, err = p.ridge(); err != nil {
			return kind.TrainResult{}, err
		}
	} else {
		steps, gradient := 0, 0.0
		var err error
		if w, steps, gradient, err = p.minimise(ctx, a, job.Progress); err != nil {
			return kind.TrainResult{}, err
		}
		report["steps"], report["gradient"] = steps, gradient
	}
	weights, bias := p.unscale(w)
	return kind.TrainResult{Model: export(job.Task, x.Cols, weights, bias), Report: report,
		Predict: func(m kind.Matrix) []float32 { return predict(job.Task, m, weights, bias) }}, nil
}

// problem is the loss over standardised columns. Parameters are, for each
// output k, one weight a column and then the bias.
type problem struct {
	task      kind.Task
	x         kind.Matrix
	y         []float64
	l2        float64
	k, dim    int
	mean, std []float64
	threads   int
}

func newProblem(task kind.Task, x kind.Matrix, y []float64, l2 float64, threads int) *problem {
	p := &problem{task: task, x: x, y: y, l2: l2, k: task.Width(), dim: x.Cols + 1, threads: threads,
		mean: make([]float64, x.Cols), std: make([]float64, x.Cols)}
	m2 := make([]float64, x.Cols)
	for i := range x.Rows {
		for j, v := range x.Row(i) {
			d := float64(v) - p.mean[j]
			p.mean[j] += d / float64(i+1)
			m2[j] += d * (float64(v) - p.mean[j])
		}
	}
	for j := range p.std {
		if p.std[j] = math.Sqrt(m2[j] / float64(x.Rows)); p.std[j] < 1e-9*math.Max(1, math.Abs(p.mean[j])) {
			p.std[j] = 0 // a constant column: its weight stays 0
		}
	}
	return p
}

func (p *problem) scaled(row []float32, out []float64) {
	for j, v := range row {
		if p.std[j] > 0 {
			out[j] = (float64(v) - p.mean[j]) / p.std[j]
		} else {
			out[j] = 0
		}
	}
	out[len(row)] = 1
}

// penalty of the weight of column j, which is a weight of the raw column times
// its deviation.
func (p *problem) penalty(j int) float64 {
	if j >= len(p.std) || p.std[j] == 0 {
		return 0
	}
	return p.l2 / (p.std[j] * p.std[j])
}

// blocks is a constant, so that sums do not depend on the number of threads.
const blocks = 32

// parallel runs f for every block of rows and returns what each gave, in order.
func parallel[T any](p *problem, f func(from, to int) T) []T {
	out := make([]T, blocks)
	var wg sync.WaitGroup
	next := make(chan int, blocks)
	for b := range blocks {
		next <- b
	}
	close(next)
	for range p.threads {
		wg.Go(func() {
			for b := range next {
				out[b] = f(b*p.x.Rows/blocks, (b+1)*p.x.Rows/blocks)
			}
		})
	}
	wg.Wait()
	return out
}

// loss is the mean loss with its gradient, penalty included.
func (p *problem) loss(w, grad []float64) float64 {
	type part struct {
		loss float64
		grad []float64
	}
	parts := parallel(p, func(from, to int) part {
		out := part{grad: make([]float64, len(w))}
		row, score := make([]float64, p.dim), make([]float64, p.k)
		for i := from; i < to; i++ {
			p.scaled(p.x.Row(i), row)
			for k := range score {
				s := 0.0
				for j, v := range row {
					s += w[k*p.dim+j] * v
				}
				score[k] = s
			}
			out.loss += residual(p.k, score, p.y[i])
			for k, r := range score {
				for j, v := range row {
					out.grad[k*p.dim+j] += r * v
				}
			}
		}
		return out
	})
	n := float64(p.x.Rows)
	loss := 0.0
	for j := range grad {
		grad[j] = 0
	}
	for _, q := range parts {
		loss += q.loss
		for j, v := range q.grad {
			grad[j] += v
		}
	}
	for i := range grad {
		pen := p.penalty(i % p.dim)
		loss += pen * w[i] * w[i] / 2
		grad[i] = (grad[i] + pen*w[i]) / n
	}
	return loss / n
}

// residual turns scores into predicted minus true in place, and returns the
// negative log-likelihood.
func residual(k int, score []float64, y float64) float64 {
	if k == 1 {
		s := score[0]
		score[0] = 1/(1+math.Exp(-s)) - y
		// log(1+exp(s)) - y*s, without overflow
		return math.Max(s, 0) + math.Log1p(math.Exp(-math.Abs(s))) - y*s
	}
	top := score[0]
	for _, s := range score {
		top = math.Max(top, s)
	}
	sum, of := 0.0, score[int(y)]
	for c, s := range score {
		score[c] = math.Exp(s - top)
		sum += score[c]
	}
	for c := range score {
		score[c] /= sum
	}
	score[int(y)]--
	return top + math.Log(sum) - of
}

func (p *problem) minimise(ctx context.Context, a args, progress func(int, int, string)) ([]float64, int, float64, error) {
	n := p.k * p.dim
	lastW, lastG, lastLoss := make([]float64, n), make([]float64, n), 0.0
	have := false
	eval := func(w []float64) {
		if have && equal(w, lastW) {
			return
		}
		copy(lastW, w)
		lastLoss, have = p.loss(w, lastG), true
	}
	rec := &recorder{ctx: ctx, progress: progress}
	res, err := optimize.Minimize(optimize.Problem{
		Func: func(w []float64) float64 { eval(w); return lastLoss },
		Grad: func(g, w []float64) { eval(w); copy(g, lastG) },
	}, make([]float64, n), &optimize.Settings{GradientThreshold: a.Tolerance, MajorIterations: a.MaxSteps, Recorder: rec,
		Converger: optimize.NeverTerminate{}}, &optimize.LBFGS{Store: 20})
	if ctx.Err() != nil {
		return nil, 0, 0, ctx.Err()
	}
	if res == nil {
		return nil, 0, 0, err
	}
	norm := 0.0
	p.loss(res.X, lastG)
	for _, g := range lastG {
		norm = math.Max(norm, math.Abs(g))
	}
	// A line search that finds no further descent has reached the precision of
	// doubles; a hundredfold of the tolerance is then still converged.
	if norm > a.Tolerance && (err == nil || norm > 100*a.Tolerance) {
		return nil, 0, 0, diag.Diagnostic{Severity: diag.Error, Code: diag.NotConverged, What: fmt.Sprintf("linear training has not converged after %d steps: the gradient is %.2g, not %.2g", res.MajorIterations, norm, a.Tolerance),
			Why: "weights that still move are not the model that the spec describes", Mend: "raise max_steps or l2, or leave encode out so that features are standardized"}
	}
	return res.X, res.MajorIterations, norm, nil
}

func equal(a, b []float64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

type recorder struct {
	ctx      context.Context
	progress func(int, int, string)
}

func (*recorder) Init() error { return nil }

func (r *recorder) Record(l *optimize.Location, op optimize.Operation, s *optimize.Stats) error {
	if op == optimize.MajorIteration {
		r.progress(s.MajorIterations, 0, fmt.Sprintf("loss %.5f", l.F))
	}
	return r.ctx.Err()
}

// ridge solves the normal equations of the scaled columns by Cholesky.
func (p *problem) ridge() ([]float64, error) {
	d := p.dim
	type part struct{ xx, xy []float64 }
	parts := parallel(p, func(from, to int) part {
		out := part{make([]float64, d*d), make([]float64, d)}
		row := make([]float64, d)
		for i := from; i < to; i++ {
			p.scaled(p.x.Row(i), row)
			for a, u := range row {
				if u == 0 {
					continue
				}
				for b := a; b < d; b++ {
					out.xx[a*d+b] += u * row[b]
				}
				out.xy[a] += u * p.y[i]
			}
		}
		return out
	})
	xx, xy := make([]float64, d*d), make([]float64, d)
	for _, q := range parts {
		for i, v := range q.xx {
			xx[i] += v
		}
		for i, v := range q.xy {
			xy[i] += v
		}
	}
	sym := mat.NewSymDense(d, nil)
	for a := range d {
		for b := a; b < d; b++ {
			sym.SetSym(a, b, xx[a*d+b])
		}
		pen := p.penalty(a)
		if a < d-1 && (p.std[a] == 0 || pen == 0) {
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

// unscale returns weights over the raw columns, [cols][k], and biases.
func (p *problem) unscale(w []float64) (weights, bias []float64) {
	cols := p.x.Cols
	weights, bias = make([]float64, cols*p.k), make([]float64, p.k)
	for k := range p.k {
		bias[k] = w[k*p.dim+cols]
		for j := range cols {
			if p.std[j] > 0 {
				v := w[k*p.dim+j] / p.std[j]
				weights[j*p.k+k] = v
				bias[k] -= v * p.mean[j]
			}
		}
	}
	return weights, bias
}

func predict(task kind.Task, m kind.Matrix, weights, bias []float64) []float32 {
	k := len(bias)
	out := make([]float32, 0, m.Rows*k)
	score := make([]float64, k)
	for i := range m.Rows {
		copy(score, bias)
		for j, v := range m.Row(i) {
			for c := range score {
				score[c] += weights[j*k+c] * float64(v)
			}
		}
		switch task.Kind {
		case kind.Binary:
			score[0] = 1 / (1 + math.Exp(-score[0]))
		case kind.Multiclass:
			residual(k, score, 0)
			score[0]++
		}
		for _, s := range score {
			out = append(out, float32(s))
		}
	}
	return out
}

// export computes in doubles: sums of many products lose too much in floats.
func export(task kind.Task, cols int, weights, bias []float64) []byte {
	k := int64(len(bias))
	g := onnx.New("linear")
	x := g.Cast(g.Input("X", onnx.Float, -1, int64(cols)), onnx.Double)
	y := g.Op("Add", g.Op("MatMul", x, g.Const(weights, int64(cols), k)), g.Const(bias, 1, k))
	switch task.Kind {
	case kind.Binary:
		y = g.Op("Sigmoid", y)
	case kind.Multiclass:
		y = g.OpA("Softmax", onnx.Attrs{"axis": 1}, y)
	}
	g.Output("Y", g.Cast(y, onnx.Float), onnx.Float, -1, k)
	return g.Marshal()
}
