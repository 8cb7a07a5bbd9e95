package compare

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
)

// Column compares the profiles of a column. A column that one side lacks has nil
// there.
type Column struct {
	Name string            `json:"name"`
	A    *op.ColumnProfile `json:"a"`
	B    *op.ColumnProfile `json:"b"`
	// PSI is the population stability index over the quantiles of A, or over the
	// commonest values; KS the greatest distance between the distribution functions,
	// as far as their quantiles tell. nil: the profiles do not allow it.
	PSI *float64 `json:"psi,omitempty"`
	KS  *float64 `json:"ks,omitempty"`
	// Moved tells in words what moved notably.
	Moved []string `json:"moved,omitempty"`
}

const (
	// leastPSI is where a shift begins to matter (Siddiqi 2006, "Credit Risk
	// Scorecards").
	leastPSI = 0.1
	// leastKS and leastNulls are the smallest differences that are told.
	leastKS    = 0.1
	leastNulls = 0.01
	// surely is the confidence that a difference is not of chance.
	surely = 0.999
	// complete is a Top that may not hold all values.
	complete = 20
	// shown is the most values that are named.
	shown = 3
)

// Columns compares the columns of two profiles, those of b first.
func Columns(a, b *Profile) []Column {
	was := map[string]*op.ColumnProfile{}
	for i := range a.Columns {
		was[a.Columns[i].Name] = &a.Columns[i]
	}
	var out []Column
	for i := range b.Columns {
		y := &b.Columns[i]
		c := Column{Name: y.Name, A: was[y.Name], B: y}
		if delete(was, y.Name); c.A == nil {
			c.Moved = []string{"added"}
		} else {
			c.compare()
		}
		out = append(out, c)
	}
	for _, n := range slices.Sorted(maps.Keys(was)) {
		out = append(out, Column{Name: n, A: was[n], Moved: []string{"removed"}})
	}
	return out
}

// compare fills in how a column of both moved.
func (c *Column) compare() {
	a, b := c.A, c.B
	if a.Type != b.Type {
		c.Moved = append(c.Moved, fmt.Sprintf("%s, was %s", b.Type, a.Type))
		return
	}
	if p, q := share(a.Nulls, a.Rows), share(b.Nulls, b.Rows); math.Abs(q-p) >= leastNulls {
		both := share(a.Nulls+b.Nulls, a.Rows+b.Rows)
		if math.Abs(q-p) > evaluate.Z(surely)*math.Sqrt(both*(1-both)*(1/float64(a.Rows)+1/float64(b.Rows))) {
			c.Moved = append(c.Moved, fmt.Sprintf("%.1f %% missing, was %.1f %%", 100*q, 100*p))
		}
	}
	n, m := float64(a.Rows-a.Nulls), float64(b.Rows-b.Nulls)
	if n < 1 || m < 1 {
		return
	}
	if len(a.Quantiles) > 0 { // they are of a sample
		n, m = min(n, op.Sampled), min(m, op.Sampled)
	}
	var shares [2][]float64
	if f, g := distribution(a), distribution(b); f != nil && g != nil {
		ks := distance(f, g)
		c.KS = &ks
		shares = quantileShares(f, g)
		// Time goes on; that it did is no news.
		if a.Type == types.Timestamp {
			return
		}
		// The two-sided bound of Smirnov (1948): √(−ln(α/2)/2 · (1/n + 1/m)).
		if ks >= leastKS && ks > math.Sqrt(-math.Log((1-surely)/2)/2*(1/n+1/m)) {
			c.Moved = append(c.Moved, fmt.Sprintf("KS %.2f", ks))
		}
	} else if shares = valueShares(a, b); shares[0] == nil {
		return
	}
	psi := stability(shares, n, m)
	c.PSI = &psi
	if psi >= leastPSI && psi > chance(len(shares[0])-1)*(1/n+1/m) {
		c.Moved = append(c.Moved, fmt.Sprintf("PSI %.2f", psi))
	}
	c.values("new", b, a)
	c.values("gone", a, b)
}

func share(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// step is a place of a distribution function: at X and below lies the share P.
type step struct{ X, P float64 }

// distribution is the distribution function of a number's profile, a line from each
// of its places to the next; nil without quantiles.
func distribution(c *op.ColumnProfile) []step {
	if len(c.Quantiles) != len(op.Probabilities) || c.Min == nil || c.Max == nil {
		return nil
	}
	out := []step{{*c.Min, 0}}
	for i, q := range c.Quantiles {
		out = append(out, step{math.Min(math.Max(q, out[len(out)-1].X), *c.Max), op.Probabilities[i]})
	}
	return append(out, step{*c.Max, 1})
}

// below is the share at x and below it.
func below(f []step, x float64) float64 {
	p := 0.0
	for i, s := range f {
		if s.X <= x {
			p = s.P
			continue
		}
		if i > 0 {
			p += (s.P - f[i-1].P) * (x - f[i-1].X) / (s.X - f[i-1].X)
		}
		break
	}
	return p
}

// distance is the Kolmogorov–Smirnov statistic of two distribution functions.
func distance(f, g []step) float64 {
	d := 0.0
	for _, s := range append(slices.Clone(f), g...) {
		d = math.Max(d, math.Abs(below(f, s.X)-below(g, s.X)))
	}
	return d
}

// quantileShares are the shares of both between the quantiles of f.
func quantileShares(f, g []step) [2][]float64 {
	var out [2][]float64
	var edges []float64
	for _, s := range f[1 : len(f)-1] {
		if len(edges) == 0 || s.X > edges[len(edges)-1] {
			edges = append(edges, s.X)
		}
	}
	for k, h := range [][]step{f, g} {
		last := 0.0
		for _, x := range edges {
			p := below(h, x)
			out[k] = append(out[k], p-last)
			last = p
		}
		out[k] = append(out[k], 1-last)
	}
	return out
}

// valueShares are the shares of both by value, with the rest as one. A value that may
// only have been too rare to be told on one side is part of the rest. nil without
// values.
func valueShares(a, b *op.ColumnProfile) [2][]float64 {
	var out [2][]float64
	x, y := counts(a), counts(b)
	if len(x) == 0 || len(y) == 0 {
		return out
	}
	sum := [2]float64{}
	for _, v := range union(x, y) {
		_, inA := x[v]
		_, inB := y[v]
		if !inA && len(x) >= complete || !inB && len(y) >= complete {
			continue
		}
		for k, n := range []float64{float64(x[v]) / float64(a.Rows-a.Nulls), float64(y[v]) / float64(b.Rows-b.Nulls)} {
			out[k] = append(out[k], n)
			sum[k] += n
		}
	}
	for k := range out {
		out[k] = append(out[k], math.Max(1-sum[k], 0))
	}
	if out[0][len(out[0])-1] < 1e-9 && out[1][len(out[1])-1] < 1e-9 {
		for k := range out {
			out[k] = out[k][:len(out[k])-1]
		}
	}
	return out
}

func counts(c *op.ColumnProfile) map[string]int64 {
	out := map[string]int64{}
	for _, t := range c.Top {
		out[t.Value] = t.Count
	}
	return out
}

// stability is the population stability index, Σ (q − p) ln(q/p) over shares p of n
// rows and q of m (Siddiqi 2006). Half a row stands for none.
func stability(shares [2][]float64, n, m float64) float64 {
	psi := 0.0
	for i := range shares[0] {
		p, q := math.Max(shares[0][i], 0.5/n), math.Max(shares[1][i], 0.5/m)
		psi += (q - p) * math.Log(q/p)
	}
	return psi
}

// chance is the quantile of χ² with k degrees of freedom that PSI/(1/n + 1/m) stays
// below where nothing moved (Yurdakul & Naranjo 2020), by Wilson & Hilferty (1931).
func chance(k int) float64 {
	if k < 1 {
		return 0
	}
	f := 2 / (9 * float64(k))
	return float64(k) * math.Pow(1-f+evaluate.Z(surely)*math.Sqrt(f), 3)
}

// values tells of values of one profile that the other surely lacks.
func (c *Column) values(what string, in, not *op.ColumnProfile) {
	other := counts(not)
	if len(in.Top) == 0 || len(not.Top) == 0 || len(not.Top) >= complete {
		return
	}
	var names []string
	for _, t := range in.Top {
		if _, ok := other[t.Value]; !ok {
			names = append(names, t.Value)
		}
	}
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("%d more", more))
	}
	if len(names) > 0 {
		c.Moved = append(c.Moved, what+": "+strings.Join(names, ", "))
	}
}
