package gbdt

import (
	"cmp"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
)

const (
	// missingBin holds missing values, whatever the number of other bins.
	missingBin = 255
	// sampleRows bounds the values from which edges are taken.
	sampleRows = 200_000
	// group is the number of features whose bins lie side by side. A row's fill half
	// a cache line, and their histograms stay in a core's second cache.
	group = 32
)

// binned is the training matrix in bins. A number's bin counts the edges below it;
// a category's is its place among the values that have one, the frequent first, and
// those that have none share the bin after.
type binned struct {
	columns [][]uint8        // by feature: rows are parted by these
	groups  [][][group]uint8 // by group and row: histograms are counted from these
	edges   [][]float32      // by feature: bin i holds values up to edges[i]
	values  [][]float32      // by feature: a category's value by bin; nil of a number
}

// last is a feature's greatest bin but missingBin.
func (b *binned) last(f int) int {
	if v := b.values[f]; v != nil {
		return min(len(v), missingBin-1)
	}
	return len(b.edges[f])
}

// bin takes edges and categories from x and bins it.
func (b *booster) bin(x kind.Matrix) {
	b.columns, b.edges, b.values = make([][]uint8, b.cols), make([][]float32, b.cols), make([][]float32, b.cols)
	b.groups = make([][][group]uint8, (b.cols+group-1)/group)
	for i := range b.groups {
		b.groups[i] = make([][group]uint8, x.Rows)
	}
	places := make([]map[float32]uint8, b.cols)
	step := max(1, x.Rows/sampleRows)
	b.each(b.cols, x.Rows*b.cols, func(f int) {
		b.columns[f] = make([]uint8, x.Rows)
		if b.categorical[f] {
			b.values[f] = categories(x, f, b.args.Bins)
			places[f] = map[float32]uint8{}
			for i, v := range b.values[f] {
				places[f][v] = uint8(i)
			}
			return
		}
		sample := make([]float32, 0, x.Rows/step+1)
		for i := f; i < len(x.Data); i += step * x.Cols {
			if v := x.Data[i]; v == v {
				sample = append(sample, v)
			}
		}
		b.edges[f] = edges(sample, b.args.Bins-1)
	})
	b.chunks(x.Rows, b.cols, func(_, from, to int) {
		for f, column := range b.columns {
			g, at := b.groups[f/group], f%group
			for i := from; i < to; i++ {
				v := x.Data[i*x.Cols+f]
				bin := uint8(missingBin)
				if places[f] == nil {
					bin = binOf(b.edges[f], v)
				} else if v == v {
					var ok bool
					if bin, ok = places[f][v]; !ok {
						bin = uint8(len(b.values[f]))
					}
				}
				column[i], g[i][at] = bin, bin
			}
		}
	})
}

// binOf is the number of edges below v: a binary search without branches.
func binOf(edges []float32, v float32) uint8 {
	if v != v {
		return missingBin
	}
	if len(edges) == 0 {
		return 0
	}
	at := 0
	for n := len(edges); n > 1; {
		half := n / 2
		next := at + half
		if edges[next-1] < v {
			at = next
		}
		n -= half
	}
	if edges[at] < v {
		at++
	}
	return uint8(at)
}

// edges returns at most limit ascending thresholds that cut values into bins of
// about equal counts; every distinct value gets its own where they suffice. They lie
// halfway between neighbouring values, so that unseen ones go to the nearer side.
func edges(values []float32, limit int) []float32 {
	sortFloats(values)
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

// sortFloats sorts values, none of them NaN, by their bits: three passes of a radix
// sort, several times as fast as comparing.
func sortFloats(values []float32) {
	const sign = 1 << 31
	from, to := make([]uint32, len(values)), make([]uint32, len(values))
	var counts [3][2048]int
	for i, v := range values {
		k := math.Float32bits(v)
		if k&sign != 0 {
			k = ^k
		} else {
			k |= sign
		}
		from[i] = k
		counts[0][k&2047]++
		counts[1][k>>11&2047]++
		counts[2][k>>22]++
	}
	for pass := range counts {
		at, shift := 0, 11*pass
		for d, n := range counts[pass] {
			counts[pass][d] = at
			at += n
		}
		for _, k := range from {
			d := k >> shift & 2047
			to[counts[pass][d]] = k
			counts[pass][d]++
		}
		from, to = to, from
	}
	for i, k := range from {
		if k&sign != 0 {
			k &^= sign
		} else {
			k = ^k
		}
		values[i] = math.Float32frombits(k)
	}
}

// categories returns the values of feature f that get a bin of their own, the most
// frequent first: all where limit bins suffice, else limit-1 of them.
func categories(x kind.Matrix, f, limit int) []float32 {
	counts := map[float32]int{}
	for i := f; i < len(x.Data); i += x.Cols {
		if v := x.Data[i]; v == v {
			counts[v]++
		}
	}
	out := make([]float32, 0, len(counts))
	for v := range counts {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b float32) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	if len(out) > limit {
		out = out[:limit-1]
	}
	return out
}
