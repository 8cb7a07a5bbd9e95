package evaluate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

const (
	shuffles     = 3
	gridPoints   = 20
	gridTexts    = 15
	dependencies = 8       // features with partial dependence
	depRows      = 300     // rows of a partial dependence
	together     = 4 << 20 // values that one call of the model takes for an importance
)

// Model predicts rows of columns, Task.Width() values a row.
type Model func(columns []Column) ([]float32, error)

// ImportanceRows returns how many rows an importance of k features should take, so that it
// needs no more than a fixed number of predictions.
func ImportanceRows(k, n int) int {
	const predictions = 2_000_000
	return min(n, min(max(predictions/max(k*shuffles, 1), 200), 2000))
}

// Sampled are some rows of columns.
type Sampled struct {
	Rows    []int32
	Columns []Column
}

// Sample takes n rows, spread evenly.
func Sample(columns []Column, n int) Sampled {
	var out Sampled
	all := columns[0].Rows()
	at := make([]int, n)
	for i := range at {
		at[i] = i * all / n
		out.Rows = append(out.Rows, int32(at[i]))
	}
	for _, c := range columns {
		out.Columns = append(out.Columns, c.pick(at))
	}
	return out
}

// PermutationImportance is how much worse score gets when one column's values are
// shuffled among the rows (Breiman 2001; Fisher, Rudin & Dominici 2019). score is
// greater where predictions are better. The greatest drop comes first.
func PermutationImportance(columns []Column, predict Model, score func(p []float32) float64, seed uint64) ([]Importance, error) {
	p, err := predict(columns)
	if err != nil {
		return nil, err
	}
	whole, rows := score(p), columns[0].Rows()
	used, err := usedColumns(columns, predict, p, seed)
	if err != nil {
		return nil, err
	}
	drops := make([]float64, 0, len(used)*shuffles)
	// Several shuffles go through the model one below the other: a call costs far more
	// than its rows where there are many columns.
	below := min(max(together/(rows*len(columns)), 1), max(cap(drops), 1))
	stacked := make([]Column, len(columns))
	for k, c := range columns {
		stacked[k] = c.repeat(below)
	}
	for len(drops) < cap(drops) {
		mixed := slices.Clone(stacked)
		for j := range below {
			if s := len(drops) + j; s < cap(drops) {
				k := used[s/shuffles]
				if j == 0 || s%shuffles == 0 { // the first of this column's here
					mixed[k] = columns[k].repeat(below)
				}
				r := rand.New(rand.NewPCG(seed, uint64(k*shuffles+s%shuffles)))
				mixed[k].put(j*rows, columns[k].pick(r.Perm(rows)))
			}
		}
		if p, err = predict(mixed); err != nil {
			return nil, err
		}
		for width := len(p) / below; len(p) > 0 && len(drops) < cap(drops); p = p[width:] {
			drops = append(drops, whole-score(p[:width]))
		}
	}
	out := make([]Importance, len(columns))
	for k, c := range columns {
		out[k].Feature = c.Name
	}
	for i, k := range used {
		drops := drops[i*shuffles : (i+1)*shuffles]
		mean, dev := 0.0, 0.0
		for _, d := range drops {
			mean += d / shuffles
		}
		for _, d := range drops {
			dev += (d - mean) * (d - mean) / (shuffles - 1)
		}
		if math.IsNaN(mean) {
			mean, dev = 0, 0
		}
		out[k].Drop, out[k].Error = mean, math.Sqrt(dev)
	}
	slices.SortStableFunc(out, func(a, b Importance) int { return cmp.Compare(b.Drop, a.Drop) })
	return out, nil
}

// usedColumns are those that p, the predictions, may depend on; all, where there are
// few. Of many, some are shuffled together: where no prediction changes by a bit, none
// of them matters, else each half is tried. Where that takes long, most matter.
func usedColumns(columns []Column, predict Model, p []float32, seed uint64) ([]int, error) {
	const few = 100
	tries := len(columns) / 8
	var used []int
	var look func(from, to int) error
	look = func(from, to int) error {
		if tries--; len(columns) > few && tries >= 0 {
			mixed := slices.Clone(columns)
			for k := from; k < to; k++ {
				r := rand.New(rand.NewPCG(seed, uint64(k)))
				mixed[k] = columns[k].pick(r.Perm(columns[k].Rows()))
			}
			q, err := predict(mixed)
			if err != nil || slices.Equal(p, q) {
				return err
			}
			if half := (from + to) / 2; from < half {
				return cmp.Or(look(from, half), look(half, to))
			}
		}
		for k := from; k < to; k++ {
			used = append(used, k)
		}
		return nil
	}
	err := look(0, len(columns))
	return used, err
}

// Rows is their number.
func (c Column) Rows() int { return max(len(c.Numbers), len(c.Texts)) }

// pick returns the rows at some places.
func (c Column) pick(at []int) Column {
	out := Column{Name: c.Name}
	for _, i := range at {
		if c.Texts != nil {
			out.Texts = append(out.Texts, c.Texts[i])
		} else {
			out.Numbers = append(out.Numbers, c.Numbers[i])
		}
	}
	return out
}

// repeat is the column n times, one below the other.
func (c Column) repeat(n int) Column {
	if c.Texts != nil {
		return Column{Name: c.Name, Texts: slices.Repeat(c.Texts, n)}
	}
	return Column{Name: c.Name, Numbers: slices.Repeat(c.Numbers, n)}
}

// put overwrites the rows from a place on.
func (c Column) put(at int, with Column) {
	copy(c.Numbers[min(at, len(c.Numbers)):], with.Numbers)
	copy(c.Texts[min(at, len(c.Texts)):], with.Texts)
}

// PartialDependence is the mean prediction as one column takes each of its values in
// all rows (Friedman 2001), for the columns named first in importance. outputs names
// the predictions; of several, the widest apart is shown.
func PartialDependence(columns []Column, predict Model, importance []Importance, outputs []string) ([]Dependence, error) {
	out := []Dependence{}
	for _, imp := range importance[:min(len(importance), dependencies)] {
		k := slices.IndexFunc(columns, func(c Column) bool { return c.Name == imp.Feature })
		n := min(columns[k].Rows(), depRows)
		rows := Sample(columns, n).Columns
		d := Dependence{Feature: imp.Feature}
		d.Values, d.Labels = columns[k].grid()
		means := make([][]float64, len(outputs))
		for v := range max(len(d.Values), len(d.Labels)) {
			fixed := Column{Name: imp.Feature}
			if d.Labels != nil {
				fixed.Texts = slices.Repeat(d.Labels[v:v+1], n)
			} else {
				fixed.Numbers = slices.Repeat(d.Values[v:v+1], n)
			}
			rows[k] = fixed
			p, err := predict(rows)
			if err != nil {
				return nil, err
			}
			for o := range outputs {
				sum := 0.0
				for i := range n {
					sum += float64(p[i*len(outputs)+o])
				}
				means[o] = append(means[o], sum/float64(n))
			}
		}
		best := 0
		for o, m := range means {
			if len(m) > 0 && slices.Max(m)-slices.Min(m) > slices.Max(means[best])-slices.Min(means[best]) {
				best = o
			}
		}
		if d.Output, d.Means = outputs[best], means[best]; len(d.Means) > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// grid are the values of a partial dependence: quantiles of a number from 2 % to
// 98 %, the commonest of a text. Missing values are left out.
func (c Column) grid() (values []float64, labels []string) {
	if c.Texts != nil {
		count := map[string]int{}
		for _, t := range c.Texts {
			count[t]++
		}
		for t := range count {
			labels = append(labels, t)
		}
		slices.SortFunc(labels, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
		return nil, labels[:min(len(labels), gridTexts)]
	}
	var v []float64
	for _, x := range c.Numbers {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	slices.Sort(v)
	for i := range gridPoints {
		if len(v) > 0 {
			q := 0.02 + 0.96*float64(i)/(gridPoints-1)
			values = append(values, v[int(q*float64(len(v)-1))])
		}
	}
	return slices.Compact(values), nil
}
