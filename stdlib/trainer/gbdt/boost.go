package gbdt

import (
	"context"
	"fmt"
	"math"
	"sort"
	"sync"

	"mlc.dev/mlc/compiler/kind"
)

// booster holds one training. Rows are binned by column: bins[f][row] counts
// the thresholds below the value; missing is a bin of its own, the last.
type booster struct {
	args    args
	task    kind.Task
	cols, k int
	threads int
	base    []float64
	bins    [][]uint8
	edges   [][]float32 // by feature: bin i holds values up to edges[i]
	trees   []tree
}

const (
	missingBin = 255
	// sampleRows bounds the values from which edges are taken.
	sampleRows = 200_000
	// serialWork is the number of bin updates below which goroutines cost more
	// than they save.
	serialWork = 1 << 15
)

// each runs f for every feature, on all threads when the work is worth it.
// Whatever f computes for a feature must not depend on other features.
func (b *booster) each(work int, f func(feature int)) {
	if b.threads == 1 || work < serialWork {
		for i := range b.cols {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for t := range b.threads {
		wg.Go(func() {
			for i := t; i < b.cols; i += b.threads {
				f(i)
			}
		})
	}
	wg.Wait()
}

// bin finds the edges and bins the training matrix. Edges lie halfway between
// neighbouring values, so that unseen values go to the nearer side.
func (b *booster) bin(x kind.Matrix) {
	b.bins, b.edges = make([][]uint8, b.cols), make([][]float32, b.cols)
	step := max(1, x.Rows/sampleRows)
	b.each(x.Rows*b.cols, func(f int) {
		values := make([]float32, 0, x.Rows/step+1)
		for i := 0; i < x.Rows; i += step {
			if v := x.Data[i*x.Cols+f]; v == v {
				values = append(values, v)
			}
		}
		b.edges[f] = edges(values, b.args.Bins-1)
		out := make([]uint8, x.Rows)
		for i := range out {
			out[i] = binOf(b.edges[f], x.Data[i*x.Cols+f])
		}
		b.bins[f] = out
	})
}

func binOf(edges []float32, v float32) uint8 {
	if v != v {
		return missingBin
	}
	return uint8(sort.Search(len(edges), func(i int) bool { return v <= edges[i] }))
}

// edges returns at most limit ascending thresholds that cut values into bins of
// about equal counts; every distinct value gets its own where they suffice.
func edges(values []float32, limit int) []float32 {
	sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
	var distinct []float32
	var counts []int
	for i, v := range values {
		if i == 0 || v != values[i-1] {
			distinct, counts = append(distinct, v), append(counts, 0)
		}
		counts[len(counts)-1]++
	}
	var out []float32
	remaining, room, run := len(values), limit+1, 0
	for i := 0; i+1 < len(distinct) && len(out) < limit; i++ {
		run += counts[i]
		if len(distinct) <= limit+1 || float64(run) >= float64(remaining)/float64(room) {
			mid := distinct[i]/2 + distinct[i+1]/2
			if !(mid >= distinct[i] && mid < distinct[i+1]) { // rounding, or infinities
				mid = distinct[i]
			}
			out = append(out, mid)
			remaining -= run
			run = 0
			room--
		}
	}
	return out
}

// stat sums gradients and second derivatives over rows.
type stat struct {
	g, h float64
	n    int32
}

func (s *stat) add(o stat)     { s.g, s.h, s.n = s.g+o.g, s.h+o.h, s.n+o.n }
func (s stat) sub(o stat) stat { return stat{s.g - o.g, s.h - o.h, s.n - o.n} }

type histogram [][256]stat // by feature

// boost grows the trees and returns the number of rounds to keep and the
// validation loss after each.
func (b *booster) boost(ctx context.Context, job kind.TrainJob) (int, []float64, error) {
	n := job.Train.X.Rows
	score := make([]float64, n*b.k)
	valid := make([]float64, job.Valid.X.Rows*b.k)
	for i := range score {
		score[i] = b.base[i%b.k]
	}
	for i := range valid {
		valid[i] = b.base[i%b.k]
	}
	grad, hess := make([]float32, n*b.k), make([]float32, n*b.k)
	g := &grower{b: b, rows: make([]int32, n), scratch: make([]int32, n), og: make([]float32, n), oh: make([]float32, n)}
	var losses []float64
	best := 0
	for round := range b.args.Rounds {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		b.gradients(score, job.Train.Y, grad, hess)
		for c := range b.k {
			g.grad, g.hess = grad[c*n:(c+1)*n], hess[c*n:(c+1)*n]
			t := g.grow(func(rows []int32, value float32) {
				for _, r := range rows {
					score[int(r)*b.k+c] += float64(value)
				}
			})
			b.trees = append(b.trees, t)
			for i := range job.Valid.X.Rows {
				valid[i*b.k+c] += float64(t.leaf(job.Valid.X.Row(i)))
			}
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

// gradients of the loss by score, laid out by output and then row.
func (b *booster) gradients(score, y []float64, grad, hess []float32) {
	n := len(y)
	var wg sync.WaitGroup
	for t := range b.threads {
		wg.Go(func() {
			p := make([]float64, b.k)
			for i := t * n / b.threads; i < (t+1)*n/b.threads; i++ {
				copy(p, score[i*b.k:(i+1)*b.k])
				link(b.task, p)
				for c, q := range p {
					at := c*n + i
					switch b.task.Kind {
					case kind.Regression:
						grad[at], hess[at] = float32(q-y[i]), 1
					case kind.Binary:
						grad[at], hess[at] = float32(q-y[i]), float32(math.Max(q*(1-q), 1e-16))
					default:
						if int(y[i]) == c {
							grad[at] = float32(q - 1)
						} else {
							grad[at] = float32(q)
						}
						// The diagonal's bound by Friedman: K/(K-1) makes the step right.
						hess[at] = float32(math.Max(q*(1-q), 1e-16) * float64(b.k) / float64(b.k-1))
					}
				}
			}
		})
	}
	wg.Wait()
}

// loss is the mean negative log-likelihood, or mean squared error.
func (b *booster) loss(score, y []float64) float64 {
	sum := 0.0
	p := make([]float64, b.k)
	for i, t := range y {
		copy(p, score[i*b.k:(i+1)*b.k])
		link(b.task, p)
		switch b.task.Kind {
		case kind.Regression:
			sum += (p[0] - t) * (p[0] - t)
		case kind.Binary:
			q := p[0]
			if t == 0 {
				q = 1 - q
			}
			sum -= math.Log(math.Max(q, 1e-15))
		default:
			sum -= math.Log(math.Max(p[int(t)], 1e-15))
		}
	}
	return sum / float64(len(y))
}

// grower grows one tree after another over the same rows.
type grower struct {
	b             *booster
	grad, hess    []float32
	rows, scratch []int32
	og, oh        []float32 // gradients in the order of a leaf's rows
	free          []histogram
}

// leaf is a leaf that may still be split: rows[from:to].
type leaf struct {
	node, depth, from, to int
	sum                   stat
	hist                  histogram
	best                  split
}

type split struct {
	gain        float64
	feature     int
	bin         uint8
	missingLeft bool
	left        stat
}

// grow makes a tree, always splitting the leaf of the greatest gain. done is
// told the rows and value of each final leaf.
func (g *grower) grow(done func(rows []int32, value float32)) tree {
	b := g.b
	for i := range g.rows {
		g.rows[i] = int32(i)
	}
	t := tree{nodes: []node{{feature: -1}}}
	root := &leaf{to: len(g.rows)}
	for i := range g.rows {
		root.sum.add(stat{float64(g.grad[i]), float64(g.hess[i]), 1})
	}
	root.hist = g.histogram(root)
	g.search(root)
	leaves := []*leaf{root}
	for len(leaves) < b.args.MaxLeaves {
		pick := -1
		for i, l := range leaves {
			if l.best.gain > 0 && (pick < 0 || l.best.gain > leaves[pick].best.gain) {
				pick = i
			}
		}
		if pick < 0 {
			break
		}
		l := leaves[pick]
		left, right := g.split(&t, l)
		leaves[pick] = left
		leaves = append(leaves, right)
	}
	for _, l := range leaves {
		v := float32(-l.sum.g / (l.sum.h + b.args.L2) * b.args.LearningRate)
		t.nodes[l.node].value = v
		done(g.rows[l.from:l.to], v)
		if l.hist != nil {
			g.free = append(g.free, l.hist)
		}
	}
	return t
}

func (g *grower) newHistogram() histogram {
	if n := len(g.free); n > 0 {
		h := g.free[n-1]
		g.free = g.free[:n-1]
		return h
	}
	return make(histogram, g.b.cols)
}

// histogram sums each feature's bins over a leaf's rows.
func (g *grower) histogram(l *leaf) histogram {
	h := g.newHistogram()
	rows := g.rows[l.from:l.to]
	og, oh := g.og[:len(rows)], g.oh[:len(rows)]
	for i, r := range rows {
		og[i], oh[i] = g.grad[r], g.hess[r]
	}
	g.b.each(len(rows)*g.b.cols, func(f int) {
		hf := &h[f]
		*hf = [256]stat{}
		bins := g.b.bins[f]
		for i, r := range rows {
			s := &hf[bins[r]]
			s.g += float64(og[i])
			s.h += float64(oh[i])
			s.n++
		}
	})
	return h
}

// split divides l by its best split. The smaller side's histogram is counted,
// the larger's is the difference.
func (g *grower) split(t *tree, l *leaf) (left, right *leaf) {
	s := l.best
	if l.hist[s.feature][missingBin].n == 0 { // nothing to learn from: missing values go with the most
		s.missingLeft = 2*s.left.n >= l.sum.n
	}
	bins := g.b.bins[s.feature]
	mid, rest := l.from, 0
	for _, r := range g.rows[l.from:l.to] {
		bin := bins[r]
		if bin <= s.bin && bin != missingBin || bin == missingBin && s.missingLeft {
			g.rows[mid] = r
			mid++
		} else {
			g.scratch[rest] = r
			rest++
		}
	}
	copy(g.rows[mid:l.to], g.scratch[:rest])
	left = &leaf{node: len(t.nodes), depth: l.depth + 1, from: l.from, to: mid, sum: s.left}
	right = &leaf{node: len(t.nodes) + 1, depth: l.depth + 1, from: mid, to: l.to, sum: l.sum.sub(s.left)}
	n := &t.nodes[l.node]
	n.feature, n.bin, n.missingLeft, n.left, n.right, n.gain = s.feature, s.bin, s.missingLeft, left.node, right.node, s.gain
	n.threshold = float32(math.Inf(1)) // only the missing go right
	if e := g.b.edges[s.feature]; int(s.bin) < len(e) {
		n.threshold = e[s.bin]
	}
	t.nodes = append(t.nodes, node{feature: -1}, node{feature: -1})
	if max := g.b.args.MaxDepth; max > 0 && left.depth >= max {
		g.free = append(g.free, l.hist)
		return left, right
	}
	small, large := left, right
	if right.to-right.from < left.to-left.from {
		small, large = right, left
	}
	small.hist = g.histogram(small)
	large.hist = l.hist
	for f := range large.hist {
		lf, sf := &large.hist[f], &small.hist[f]
		for i := range lf {
			if lf[i].n != 0 {
				lf[i] = lf[i].sub(sf[i])
			}
		}
	}
	g.search(left)
	g.search(right)
	return left, right
}

// search finds a leaf's best split. Of equal gains the first feature and bin
// win, whatever the threads did.
func (g *grower) search(l *leaf) {
	a := g.b.args
	if int(l.sum.n) < 2*a.MinRows {
		return
	}
	best := make([]split, g.b.cols)
	parent := l.sum.g * l.sum.g / (l.sum.h + a.L2)
	g.b.each(g.b.cols*256, func(f int) {
		h := &l.hist[f]
		missing := h[missingBin]
		last := len(g.b.edges[f])
		var run stat
		try := func(bin int, left stat, missingLeft bool) {
			right := l.sum.sub(left)
			if int(left.n) < a.MinRows || int(right.n) < a.MinRows {
				return
			}
			gain := left.g*left.g/(left.h+a.L2) + right.g*right.g/(right.h+a.L2) - parent
			if gain > best[f].gain && gain > a.MinGain && gain > 1e-10 {
				best[f] = split{gain, f, uint8(bin), missingLeft, left}
			}
		}
		for bin := 0; bin <= last; bin++ {
			run.add(h[bin])
			if bin < last {
				try(bin, run, false)
			}
			if missing.n > 0 {
				if bin < last {
					with := run
					with.add(missing)
					try(bin, with, true)
				} else {
					try(bin, run, false)
				}
			}
		}
	})
	for _, s := range best {
		if s.gain > l.best.gain {
			l.best = s
		}
	}
}
