package evaluate

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// replicates of a bootstrap: a standard error is then known to about 5 %.
	replicates = 200
	// resampled is the most rows of a replicate. Fewer than there are (m out of n,
	// Bickel, Götze & van Zwet 1997) give an error that is too large by √(n/m), which
	// is taken out again.
	resampled = 10_000
	// leastGroups are needed to resample groups and not rows.
	leastGroups = 30
)

// Bootstrap resamples rows with replacement: whole groups where rows share them,
// because the rows of one are not independent, and there are enough to tell (Davison
// & Hinkley 1997, §3.8).
type Bootstrap struct {
	n      int
	seed   uint64
	groups [][]int32
}

// NewBootstrap resamples n rows, of which group tells the identity; nil: each is its
// own.
func NewBootstrap(n int, group []string, seed uint64) *Bootstrap {
	b := &Bootstrap{n: n, seed: seed}
	index := map[string]int{}
	for i, g := range group {
		k, ok := index[g]
		if !ok {
			k = len(b.groups)
			index[g], b.groups = k, append(b.groups, nil)
		}
		b.groups[k] = append(b.groups[k], int32(i))
	}
	if len(b.groups) == n || len(b.groups) < leastGroups {
		b.groups = nil
	}
	return b
}

// Grouped reports whether groups are resampled.
func (b *Bootstrap) Grouped() bool { return b.groups != nil }

// units is the number of what is resampled: rows, or groups.
func (b *Bootstrap) units() int {
	if b.Grouped() {
		return len(b.groups)
	}
	return b.n
}

// Errors are the standard errors of k statistics. f computes them for some rows, NaN
// where one is not defined; it is called concurrently. A statistic that more than a
// tenth of the replicates cannot compute has the error NaN. Of n units the error is
// larger by √(n/(n-3)) than the replicates', which is the standard deviation of a mean
// under Student's t with n-1 degrees of freedom; of 3 or fewer it is NaN.
func (b *Bootstrap) Errors(ctx context.Context, k int, f func(rows []int32, out []float64)) ([]float64, error) {
	values := make([]float64, replicates*k)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var rows []int32
			for r := int(next.Add(1)) - 1; r < replicates && ctx.Err() == nil; r = int(next.Add(1)) - 1 {
				rows = b.draw(rows[:0], rand.New(rand.NewPCG(b.seed, uint64(r))))
				f(rows, values[r*k:(r+1)*k])
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	units := float64(b.units())
	scale := math.Sqrt(float64(min(b.n, resampled)) / float64(max(b.n, 1)) * units / (units - 3))
	out := make([]float64, k)
	for s := range out {
		var n, mean, m2 float64
		for r := range replicates {
			v := values[r*k+s]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			n++
			d := v - mean
			mean += d / n
			m2 += d * (v - mean)
		}
		if out[s] = math.Sqrt(m2/(n-1)) * scale; n < replicates*9/10 || units <= 3 {
			out[s] = math.NaN()
		}
	}
	return out, nil
}

// draw appends one replicate's rows.
func (b *Bootstrap) draw(rows []int32, r *rand.Rand) []int32 {
	m := min(b.n, resampled)
	if b.groups == nil {
		for range m {
			rows = append(rows, int32(r.IntN(b.n)))
		}
		return rows
	}
	for k := 0; k < len(b.groups) && len(rows) < m; k++ {
		rows = append(rows, b.groups[r.IntN(len(b.groups))]...)
	}
	return rows
}

// Z is the standard normal's quantile of a one-sided confidence, such as 1.645 for
// 0.95.
func Z(confidence float64) float64 { return math.Sqrt2 * math.Erfinv(2*confidence-1) }
