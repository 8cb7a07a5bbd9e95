package gbdt

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"mlc.dev/mlc/compiler/kind"
)

// booster holds one training.
type booster struct {
	binned
	args        args
	task        kind.Task
	cols, k     int
	threads     int
	seed        uint64
	weights     []float64 // by class; nil: 1
	categorical []bool    // by feature
	monotone    []int     // by feature
	bounded     bool      // any of them is
	base        []float64
	trees       []tree
}

const (
	// chunk is the number of rows that a thread takes at once. Sums by chunk do not
	// depend on the number of threads.
	chunk = 8192
	// serialWork is the number of steps, each of about a nanosecond, below which
	// goroutines cost more than they save.
	serialWork = 1 << 14
)

// each runs f for 0 to n-1, on all threads when the work is worth it. What f does for
// one must not depend on the others.
func (b *booster) each(n, work int, f func(i int)) {
	if b.threads == 1 || n < 2 || work < serialWork {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	run := func() {
		for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
			f(i - 1)
		}
	}
	var wg sync.WaitGroup
	for range min(b.threads, n) - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}

// chunks runs f for every chunk of rows, each of which takes about cost steps.
func (b *booster) chunks(rows, cost int, f func(at, from, to int)) {
	b.each((rows+chunk-1)/chunk, rows*cost, func(i int) { f(i, i*chunk, min(rows, (i+1)*chunk)) })
}

// boost grows the trees and returns the number of rounds to keep and the
// validation loss after each.
func (b *booster) boost(ctx context.Context, job kind.TrainJob) (int, []float64, error) {
	n := job.Train.X.Rows
	start := func(rows int) []float64 {
		out := make([]float64, 0, rows*b.k)
		for range rows {
			out = append(out, b.base...)
		}
		return out
	}
	score, valid := start(n), start(job.Valid.X.Rows)
	d := make([][]derivatives, b.k)
	for c := range d {
		d[c] = make([]derivatives, n)
	}
	g := &grower{booster: b, left: make([]int32, n), right: make([]int32, n), inTree: make([]bool, b.cols), best: [2][]split{make([]split, b.cols), make([]split, b.cols)}}
	drawn, rest := make([]int32, 0, n), []int32{}
	for i := range n {
		drawn = append(drawn, int32(i))
	}
	g.rows = make([]int32, n)
	var losses []float64
	best := 0
	for round := range b.args.Rounds {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		if b.args.RowSample < 1 {
			drawn, rest = b.drawRows(n, round, drawn[:0], rest[:0])
		}
		tops := b.derive(score, job.Train.Y, d)
		for c := range b.k {
			g.rows = append(g.rows[:0], drawn...)
			g.d, g.fixed = d[c], newFixed(n, tops[c].g, tops[c].h)
			b.drawColumns(round*b.k+c, g.inTree)
			t, leaves := g.grow()
			if b.task.Kind == kind.Quantile {
				g.renew(&t, leaves, score, job.Train.Y, c)
			}
			b.each(len(leaves), n, func(i int) {
				v := float64(t.nodes[leaves[i].node].value)
				for _, r := range g.rows[leaves[i].from:leaves[i].to] {
					score[int(r)*b.k+c] += v
				}
			})
			b.chunks(len(rest), 32, func(_, from, to int) {
				for _, r := range rest[from:to] {
					score[int(r)*b.k+c] += float64(b.leafOf(&t, r))
				}
			})
			b.chunks(job.Valid.X.Rows, 32, func(_, from, to int) {
				for i := from; i < to; i++ {
					valid[i*b.k+c] += float64(t.leaf(job.Valid.X.Row(i)))
				}
			})
			b.trees = append(b.trees, t)
		}
		if len(valid) == 0 {
			best = round + 1
			job.Progress(round+1, b.args.Rounds, "")
			continue
		}
		loss := b.loss(valid, job.Valid.Y)
		losses = append(losses, loss)
		if best == 0 || loss < losses[best-1] {
			best = round + 1
		}
		job.Progress(round+1, b.args.Rounds, fmt.Sprintf("validation loss %.5f", loss))
		if b.args.EarlyStopping > 0 && round+1-best >= b.args.EarlyStopping {
			break
		}
	}
	if b.args.EarlyStopping == 0 {
		best = len(b.trees) / b.k
	}
	return best, losses, nil
}

// Streams of the seed: what is drawn for one purpose does not change another's.
const (
	rowStream    = 1
	columnStream = 2
)

// drawRows divides the rows of a round into those that its trees learn from and the
// others.
func (b *booster) drawRows(n, round int, drawn, rest []int32) (in, out []int32) {
	r := rand.New(rand.NewPCG(b.seed, uint64(round)<<8|rowStream))
	for i := range n {
		if r.Float64() < b.args.RowSample {
			drawn = append(drawn, int32(i))
		} else {
			rest = append(rest, int32(i))
		}
	}
	return drawn, rest
}

// drawColumns marks the features that a tree may look at, one at least.
func (b *booster) drawColumns(tree int, in []bool) {
	most := max(1, int(math.Round(b.args.ColumnSample*float64(b.cols))))
	if most == b.cols {
		for f := range in {
			in[f] = true
		}
		return
	}
	clear(in)
	for _, f := range rand.New(rand.NewPCG(b.seed, uint64(tree)<<8|columnStream)).Perm(b.cols)[:most] {
		in[f] = true
	}
}

// leafOf is the value of the leaf that a training row falls into.
func (b *booster) leafOf(t *tree, row int32) float32 {
	n := &t.nodes[0]
	for n.feature >= 0 {
		if n.bins.has(b.columns[n.feature][row]) {
			n = &t.nodes[n.left]
		} else {
			n = &t.nodes[n.right]
		}
	}
	return n.value
}

// renew gives each leaf the quantile of what its rows lack, since a gradient of the
// pinball loss tells the direction only. Bounds of monotone splits are then those of
// the new values.
func (g *grower) renew(t *tree, leaves []*leaf, score, y []float64, c int) {
	q := g.task.Quantiles[c]
	lacking := func(from, to int) float64 {
		values := make([]float64, 0, to-from)
		for _, r := range g.rows[from:to] {
			values = append(values, y[r]-score[int(r)*g.k+c])
		}
		if len(values) == 0 {
			return 0
		}
		return quantile(values, q)
	}
	for _, l := range leaves {
		l.low, l.high = math.Inf(-1), math.Inf(1)
	}
	if g.bounded {
		byNode := map[int]*leaf{}
		for _, l := range leaves {
			byNode[l.node] = l
		}
		var bound func(node int, low, high float64)
		bound = func(node int, low, high float64) {
			n := &t.nodes[node]
			if n.feature < 0 {
				byNode[node].low, byNode[node].high = low, high
				return
			}
			left, right := [2]float64{low, high}, [2]float64{low, high}
			if n.direction != 0 {
				in := func(v float64) float64 { return math.Min(math.Max(v, low), high) }
				between := (in(lacking(n.from, n.mid)) + in(lacking(n.mid, n.to))) / 2
				if n.direction > 0 {
					left[1], right[0] = between, between
				} else {
					left[0], right[1] = between, between
				}
			}
			bound(n.left, left[0], left[1])
			bound(n.right, right[0], right[1])
		}
		bound(0, math.Inf(-1), math.Inf(1))
	}
	g.each(len(leaves), 16*len(g.rows), func(i int) {
		l := leaves[i]
		t.nodes[l.node].value = float32(l.clamp(lacking(l.from, l.to)) * g.args.LearningRate)
	})
}
