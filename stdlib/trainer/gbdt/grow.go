package gbdt

import (
	"math"
	"math/bits"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

// cell sums a bin's rows: the gradient in g; in hn the second derivative and, in the
// lowest bits, the number of rows. Both are fixed-point, so that sums are exact: they
// are the same in any order, on any number of threads, and a sibling's is a difference.
type cell struct{ g, hn int64 }

func (c cell) add(o cell) cell { return cell{c.g + o.g, c.hn + o.hn} }
func (c cell) sub(o cell) cell { return cell{c.g - o.g, c.hn - o.hn} }

// fixed is the form of a tree's cells.
type fixed struct {
	shift    uint    // the bits that count rows
	g, h     float64 // what derivatives are multiplied by: powers of two
	ofG, ofH float64 // their inverses
}

// newFixed returns the finest form in which sums over that many rows fit.
func newFixed(rows int, maxG, maxH float32) fixed {
	shift := bits.Len(uint(rows))
	up := func(most float32, room int) float64 {
		_, e := math.Frexp(float64(most))
		return math.Ldexp(1, room-e)
	}
	g, h := up(maxG, 62-shift), up(maxH, 62-2*shift)
	return fixed{uint(shift), g, h, 1 / g, 1 / h}
}

// row is what a row adds to a cell. Second derivatives have few bits left under many
// rows, so they are dithered by the row's number: rounding leaves no bias in sums.
func (x fixed) row(d derivatives, row int32) cell {
	dither := float64(uint32(row)*2654435769) * (1.0 / (1 << 32))
	return cell{int64(float64(d.g) * x.g), int64(float64(d.h)*x.h+dither)<<x.shift + 1}
}

func (x fixed) rows(c cell) int { return int(c.hn & (1<<x.shift - 1)) }

// sums are a cell's derivatives; the second is above 0.
func (x fixed) sums(c cell) (g, h float64) {
	return float64(c.g) * x.ofG, float64(max(c.hn>>x.shift, 1)) * x.ofH
}

// histogram is by group, feature and bin.
type histogram [][group][256]cell

// grower grows one tree after another.
type grower struct {
	*booster
	d           []derivatives // of the tree's output
	fixed       fixed
	rows        []int32 // each leaf's side by side
	left, right []int32 // scratch of a split
	inTree      []bool  // by feature: column_sample's choice
	parts       []histogram
	free        []histogram
	best        [2][]split // by child and feature
}

// leaf is a leaf that may still be split: rows[from:to].
type leaf struct {
	node, depth, from, to int
	sum                   cell
	low, high             float64 // bounds of the value
	hist                  histogram
	best                  split
}

func (l *leaf) clamp(v float64) float64 { return math.Min(math.Max(v, l.low), l.high) }

// bins is a set of bins.
type bins [4]uint64

func (s *bins) put(b int)        { s[b>>6] |= 1 << (b & 63) }
func (s *bins) has(b uint8) bool { return s[b>>6]>>(b&63)&1 != 0 }

// split sends the rows of a set of bins left.
type split struct {
	gain    float64
	feature int
	bin     int // the greatest that goes left, where set is empty
	set     bins
	missing bool // goes left
	left    cell
}

// mostStep bounds a leaf of a count before learning_rate: a Newton step of a mean far
// above what is predicted would overshoot by orders of magnitude.
const mostStep = 5

// grow makes a tree of g.rows, always splitting the leaf of the greatest gain, and
// returns it with its leaves.
func (g *grower) grow() (tree, []*leaf) {
	t := tree{nodes: []node{{feature: -1}}}
	root := &leaf{to: len(g.rows), low: math.Inf(-1), high: math.Inf(1)}
	if g.task.Kind == kind.Count {
		root.high = mostStep
	}
	leaves := []*leaf{root}
	root.hist = g.count(g.rows)
	for _, c := range root.hist[0][0][:] { // every row has a bin of the first feature
		root.sum = root.sum.add(c)
	}
	for _, p := range g.parts {
		for _, c := range p[0][0][:] {
			root.sum = root.sum.add(c)
		}
	}
	g.search(root, nil)
	for len(leaves) < g.args.MaxLeaves {
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
		if len(leaves) < g.args.MaxLeaves {
			g.learn(l, left, right)
		} else {
			g.release(l)
		}
	}
	for _, l := range leaves {
		s, h := g.fixed.sums(l.sum)
		t.nodes[l.node].value = float32(l.clamp(-s/(h+g.args.L2)) * g.args.LearningRate)
		g.release(l)
	}
	return t, leaves
}

func (g *grower) release(l *leaf) {
	if l.hist != nil {
		g.free = append(g.free, l.hist)
		l.hist = nil
	}
}

func (g *grower) newHistogram() histogram {
	if n := len(g.free); n > 0 {
		h := g.free[n-1]
		g.free = g.free[:n-1]
		return h
	}
	return make(histogram, len(g.groups))
}

// count sums rows by bin. Where groups are fewer than threads, rows are divided too:
// g.parts then holds what search has to add.
func (g *grower) count(rows []int32) histogram {
	parts := 1
	if work := len(rows) * g.cols; work >= 4*serialWork {
		parts = (g.threads + len(g.groups) - 1) / len(g.groups)
	}
	for len(g.parts) > parts-1 {
		g.free = append(g.free, g.parts[len(g.parts)-1])
		g.parts = g.parts[:len(g.parts)-1]
	}
	for len(g.parts) < parts-1 {
		g.parts = append(g.parts, g.newHistogram())
	}
	h := g.newHistogram()
	g.each(parts*len(g.groups), len(rows)*g.cols, func(i int) {
		part, at := i%parts, i/parts
		to := &h[at]
		if part > 0 {
			to = &g.parts[part-1][at]
		}
		features := min(group, g.cols-at*group)
		for f := range features {
			to[f] = [256]cell{}
		}
		g.add(to, g.groups[at], rows[part*len(rows)/parts:(part+1)*len(rows)/parts], features)
	})
	return h
}

// add is the innermost loop of training. Rows are fetched some ahead of their use,
// since they lie anywhere in memory. Four features go at once, whose bins stay in the
// first cache for all of these rows; those beyond the last count what nobody reads.
func (g *grower) add(to *[group][256]cell, from [][group]uint8, rows []int32, features int) {
	var ahead [512]struct {
		cell
		bins [group]uint8
	}
	for len(rows) > 0 {
		n := min(len(rows), len(ahead))
		for i, r := range rows[:n] {
			ahead[i].cell, ahead[i].bins = g.fixed.row(g.d[r], r), from[r]
		}
		rows = rows[n:]
		for f := 0; f < features; f += 4 {
			four := (*[4][256]cell)(to[f:])
			for i := range ahead[:n] {
				a := &ahead[i]
				grad, hn, bins := a.g, a.hn, (*[4]uint8)(a.bins[f:])
				c := &four[0][bins[0]]
				c.g += grad
				c.hn += hn
				c = &four[1][bins[1]]
				c.g += grad
				c.hn += hn
				c = &four[2][bins[2]]
				c.g += grad
				c.hn += hn
				c = &four[3][bins[3]]
				c.g += grad
				c.hn += hn
			}
		}
	}
}

// split divides l by its best split.
func (g *grower) split(t *tree, l *leaf) (left, right *leaf) {
	s := l.best
	number := s.set == (bins{})
	n := node{feature: s.feature, gain: s.gain, left: len(t.nodes), right: len(t.nodes) + 1}
	if number && g.fixed.rows(l.hist[s.feature/group][s.feature%group][missingBin]) == 0 {
		s.missing = 2*g.fixed.rows(s.left) >= g.fixed.rows(l.sum) // nothing to learn from: missing values go with the most
	}
	if number {
		n.threshold = float32(math.Inf(1)) // only the missing go right
		if e := g.edges[s.feature]; s.bin < len(e) {
			n.threshold = e[s.bin]
		}
		for b := range s.bin + 1 {
			n.bins.put(b)
		}
	} else {
		n.bins = s.set
		for b, v := range g.values[s.feature] {
			if s.set.has(uint8(b)) {
				n.values = append(n.values, v)
			}
		}
	}
	if n.missingLeft = s.missing; s.missing {
		n.bins.put(missingBin)
	}
	mid := l.from + g.part(l, s.feature, &n.bins)
	left = &leaf{node: n.left, depth: l.depth + 1, from: l.from, to: mid, sum: s.left, low: l.low, high: l.high}
	right = &leaf{node: n.right, depth: l.depth + 1, from: mid, to: l.to, sum: l.sum.sub(s.left), low: l.low, high: l.high}
	if d := g.monotone[s.feature]; d != 0 {
		n.from, n.mid, n.to, n.direction = l.from, mid, l.to, d
		between := (g.value(l, left.sum) + g.value(l, right.sum)) / 2
		lower, upper := left, right
		if d < 0 {
			lower, upper = right, left
		}
		lower.high, upper.low = between, between
	}
	t.nodes[l.node] = n
	t.nodes = append(t.nodes, node{feature: -1}, node{feature: -1})
	return left, right
}

// value of a leaf under l that sums to c.
func (g *grower) value(l *leaf, c cell) float64 {
	s, h := g.fixed.sums(c)
	return l.clamp(-s / (h + g.args.L2))
}

// part brings l's rows of the given bins to the front, all in their order, and
// returns how many they are.
func (g *grower) part(l *leaf, feature int, in *bins) int {
	var side [256]uint8
	for b := range side {
		if in.has(uint8(b)) {
			side[b] = 1
		}
	}
	rows, column := g.rows[l.from:l.to], g.columns[feature]
	counts := make([]int, len(rows)/chunk+1)
	g.chunks(len(rows), 2, func(c, from, to int) {
		left, right := g.left[from:to], g.right[from:to]
		nl, nr := 0, 0
		for _, r := range rows[from:to] {
			s := side[column[r]]
			left[nl], right[nr] = r, r
			nl += int(s)
			nr += int(1 - s)
		}
		counts[c] = nl
	})
	mid := 0
	for c, n := range counts {
		counts[c] = mid
		mid += n
	}
	g.chunks(len(rows), 1, func(c, from, to int) {
		before, next := counts[c], mid
		if c+1 < len(counts) {
			next = counts[c+1]
		}
		n := next - before
		copy(rows[before:], g.left[from:from+n])
		copy(rows[mid+from-before:], g.right[from:to-n])
	})
	return mid
}

// learn finds the best splits of l's two children. The smaller one's histogram is
// counted, the larger's is what is left of l's.
func (g *grower) learn(l, left, right *leaf) {
	if !g.open(left) && !g.open(right) {
		g.release(l)
		return
	}
	small, large := left, right
	if right.to-right.from < left.to-left.from {
		small, large = right, left
	}
	small.hist = g.count(g.rows[small.from:small.to])
	large.hist, l.hist = l.hist, nil
	g.search(small, large)
}

// open tells whether a leaf may be split at all.
func (g *grower) open(l *leaf) bool {
	return l.to-l.from >= 2*g.args.MinRows && (g.args.MaxDepth == 0 || l.depth < g.args.MaxDepth)
}

// search completes the histograms of a leaf that was just counted and of its larger
// sibling, which still holds the sum of both, and finds their best splits. Of equal
// gains the first feature and bin win, whatever the threads did.
func (g *grower) search(small, large *leaf) {
	leaves := []*leaf{small, large}
	if large == nil {
		leaves = leaves[:1]
	}
	g.each(g.cols, g.cols*256*len(leaves)*4, func(f int) {
		h := &small.hist[f/group][f%group]
		last := g.last(f)
		for _, p := range g.parts {
			from := &p[f/group][f%group]
			for b := range last + 1 {
				h[b] = h[b].add(from[b])
			}
			h[missingBin] = h[missingBin].add(from[missingBin])
		}
		if large != nil {
			to := &large.hist[f/group][f%group]
			for b := range last + 1 {
				to[b] = to[b].sub(h[b])
			}
			to[missingBin] = to[missingBin].sub(h[missingBin])
		}
		for i, l := range leaves {
			g.best[i][f] = split{}
			switch {
			case !g.inTree[f] || !g.open(l):
			case g.values[f] != nil:
				g.best[i][f] = g.bestSet(l, f)
			default:
				g.best[i][f] = g.bestBin(l, f)
			}
		}
	})
	for i, l := range leaves {
		for _, s := range g.best[i] {
			if s.gain > l.best.gain {
				l.best = s
			}
		}
	}
}

// score is what a leaf under l that sums to c takes from the loss, twice.
func (g *grower) score(l *leaf, c cell, l2 float64) float64 {
	s, h := g.fixed.sums(c)
	if !g.bounded {
		return s * s / (h + l2)
	}
	v := l.clamp(-s / (h + l2))
	return -(2*s*v + (h+l2)*v*v)
}

// leastHessian is the least sum of second derivatives in a leaf: rows that are sure
// already would give steps without end where nothing holds them back (LightGBM's
// min_sum_hessian_in_leaf and scikit-learn's min_hessian_to_split are the same).
const leastHessian = 1e-3

// gain of sending left of l's rows left; 0 where that is not allowed.
func (g *grower) gain(l *leaf, f int, left cell, before, l2 float64) float64 {
	right := l.sum.sub(left)
	if g.fixed.rows(left) < g.args.MinRows || g.fixed.rows(right) < g.args.MinRows {
		return 0
	}
	if _, h := g.fixed.sums(left); h < leastHessian {
		return 0
	}
	if _, h := g.fixed.sums(right); h < leastHessian {
		return 0
	}
	if d := g.monotone[f]; d != 0 && (g.value(l, right)-g.value(l, left))*float64(d) < 0 {
		return 0
	}
	gain := g.score(l, left, l2) + g.score(l, right, l2) - before
	if gain <= g.args.MinGain || gain <= 1e-10 {
		return 0
	}
	return gain
}

// bestBin is the best split of a number.
func (g *grower) bestBin(l *leaf, f int) (best split) {
	h := &l.hist[f/group][f%group]
	missing, last := h[missingBin], g.last(f)
	before := g.score(l, l.sum, g.args.L2)
	if !g.bounded {
		best = g.bestFree(h[:last], l.sum, missing, before)
		if best.feature = f; missing.hn != 0 {
			if gain := g.gain(l, f, l.sum.sub(missing), before, g.args.L2); gain > best.gain {
				best = split{gain: gain, feature: f, bin: last, left: l.sum.sub(missing)}
			}
		}
		if best.gain == 0 {
			return split{}
		}
		return best
	}
	try := func(bin int, left cell, missingLeft bool) {
		if gain := g.gain(l, f, left, before, g.args.L2); gain > best.gain {
			best = split{gain: gain, feature: f, bin: bin, missing: missingLeft, left: left}
		}
	}
	var run cell
	for bin := range last {
		if h[bin].hn == 0 && bin > 0 {
			continue // the same rows as before
		}
		run = run.add(h[bin])
		try(bin, run, false)
		if missing.hn != 0 {
			try(bin, run.add(missing), true)
		}
	}
	if missing.hn != 0 {
		try(last, l.sum.sub(missing), false)
	}
	return best
}

// bestFree is the best split of a number after one of the bins in h, where no leaf has
// bounds: what bestBin does of others, written out, since it takes most of the time
// that histograms do not.
func (g *grower) bestFree(h []cell, sum, missing cell, before float64) (best split) {
	x, l2, least := g.fixed, g.args.L2, int64(g.args.MinRows)
	rows, shift := int64(1)<<x.shift-1, x.shift&63
	most := max(g.args.MinGain, 1e-10) // a gain is above it
	var run cell
	for bin, c := range h {
		if c.hn == 0 && bin > 0 {
			continue // the same rows as before
		}
		run = run.add(c)
		if sum.sub(run).hn&rows < least {
			break // ever fewer are right
		}
		left := run
		for missingLeft := false; ; missingLeft = true {
			right := sum.sub(left)
			if left.hn&rows >= least && right.hn&rows >= least {
				gl, hl := float64(left.g)*x.ofG, float64(max(left.hn>>shift, 1))*x.ofH
				gr, hr := float64(right.g)*x.ofG, float64(max(right.hn>>shift, 1))*x.ofH
				if gain := gl*gl/(hl+l2) + gr*gr/(hr+l2) - before; gain > most && hl >= leastHessian && hr >= leastHessian {
					most = gain
					best = split{gain: gain, bin: bin, missing: missingLeft, left: left}
				}
			}
			if missingLeft || missing.hn == 0 {
				break
			}
			left = run.add(missing)
		}
	}
	return best
}

// mostCategories bounds what one side of a split names, as LightGBM's
// max_cat_threshold does.
const mostCategories = 32

// bestSet is the best split of a category: bins in the order of their gradient by
// second derivative, cut somewhere (Fisher 1958). As in LightGBM, cat_smooth draws
// rare ones to the middle and is the fewest rows of those that are moved at all,
// cat_l2 is added to l2 here, and the values without a bin always go right. Missing
// is a category.
func (g *grower) bestSet(l *leaf, f int) (best split) {
	h := &l.hist[f/group][f%group]
	var order []int
	var at [256]float64
	consider := func(b int) {
		if n := g.fixed.rows(h[b]); n > 0 && float64(n) >= g.args.CatSmooth {
			s, d := g.fixed.sums(h[b])
			at[b] = s / (d + g.args.CatSmooth)
			order = append(order, b)
		}
	}
	for b := range g.values[f] {
		consider(b)
	}
	consider(missingBin)
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case at[a] < at[b]:
			return -1
		case at[a] > at[b]:
			return 1
		}
		return 0
	})
	before := g.score(l, l.sum, g.args.L2)
	for range 2 {
		var run cell
		var set bins
		for _, b := range order[:min(mostCategories, (len(order)+1)/2)] {
			run = run.add(h[b])
			set.put(b)
			if gain := g.gain(l, f, run, before, g.args.L2+g.args.CatL2); gain > best.gain {
				best = split{gain: gain, feature: f, set: set, missing: set.has(missingBin), left: run}
				if b == missingBin && run == h[b] { // missing against all others
					best = split{gain: gain, feature: f, bin: missingBin - 1, left: l.sum.sub(run)}
				}
			}
		}
		slices.Reverse(order)
	}
	return best
}
