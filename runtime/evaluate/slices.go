package evaluate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"mlc.dev/mlc/compiler/types"
)

const (
	sliceValues = 20 // the most values of a text that make slices
	worstOf     = 10 // slices that are told
	pairsOf     = 15 // slices whose pairs are looked at
	leastRows   = 30 // of a slice that is found
	leastEffect = 0.2
	level       = 0.05 // of all tests together
)

// Column is a feature of the rows, in one of the two forms.
type Column struct {
	Name    string
	Numbers []float64 // NaN: missing
	Texts   []string  // types.NullString: missing
}

// Same reports whether another column has the same values.
func (c Column) Same(of Column) bool {
	return slices.Equal(c.Texts, of.Texts) && slices.EqualFunc(c.Numbers, of.Numbers, func(a, b float64) bool { return a == b || a != a && b != b })
}

// Cut divides a column's rows into slices: the commonest values of a text, the
// quarters of a number with more than a few values, and those where it is missing.
func (c Column) Cut() (names []string, rows [][]int32) {
	byName := map[string][]int32{}
	var order []string
	add := func(name string, i int) {
		if _, ok := byName[name]; !ok {
			order = append(order, name)
		}
		byName[name] = append(byName[name], int32(i))
	}
	if c.Texts != nil {
		for i, v := range c.Texts {
			if v == types.NullString {
				add(c.Name+" is missing", i)
			} else {
				add(c.Name+" = "+v, i)
			}
		}
		slices.SortFunc(order, func(a, b string) int {
			return cmp.Or(cmp.Compare(len(byName[b]), len(byName[a])), cmp.Compare(a, b))
		})
		order = order[:min(len(order), sliceValues)]
	} else {
		at := c.edges()
		for i, v := range c.Numbers {
			switch k, exact := slices.BinarySearch(at, v); {
			case math.IsNaN(v):
				add(c.Name+" is missing", i)
			case len(at) <= maxExact && exact:
				add(c.Name+" = "+number(v), i)
			default:
				if !exact {
					k--
				}
				k = min(k, len(at)-2)
				sign := "<"
				if k == len(at)-2 {
					sign = "<="
				}
				add(fmt.Sprintf("%s <= %s %s %s", number(at[k]), c.Name, sign, number(at[k+1])), i)
			}
		}
		slices.Sort(order)
	}
	for _, n := range order {
		names, rows = append(names, n), append(rows, byName[n])
	}
	return names, rows
}

// maxExact is the most values that a number's slices are of one each.
const maxExact = 4

// edges are a number's values where they are few, else its quartiles.
func (c Column) edges() []float64 {
	var v []float64
	for _, x := range c.Numbers {
		if !math.IsNaN(x) {
			v = append(v, x)
		}
	}
	slices.Sort(v)
	if d := slices.Compact(slices.Clone(v)); len(d) <= maxExact {
		return d
	}
	n := len(v) - 1
	return slices.Compact([]float64{v[0], v[n/4], v[n/2], v[3*n/4], v[n]})
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// part is a candidate for a worst slice.
type part struct {
	name   string
	column int
	rows   []int32
	slice  Slice
	z      float64
}

// Worst finds where the model is surely worse than elsewhere: slices by one feature,
// and by two of the worst, of at least 1 % of the rows, whose mean loss is greater by
// an effect of 0.2 standard deviations (Chung et al. 2019, "Slice Finder") and not by
// chance (Welch's test, Bonferroni over all that were looked at).
func Worst(columns []Column, loss []float64) []Slice {
	var sum, sum2 float64
	for _, v := range loss {
		sum += v
		sum2 += v * v
	}
	n := float64(len(loss))
	least := max(leastRows, len(loss)/100)
	tests := 0
	judge := func(p *part) bool {
		m := float64(len(p.rows))
		if len(p.rows) < least || len(loss)-len(p.rows) < least {
			return false
		}
		tests++
		var s, s2 float64
		for _, r := range p.rows {
			s += loss[r]
			s2 += loss[r] * loss[r]
		}
		in, out := s/m, (sum-s)/(n-m)
		vin, vout := math.Max(s2/m-in*in, 0), math.Max((sum2-s2)/(n-m)-out*out, 0)
		p.z = (in - out) / math.Sqrt(vin/m+vout/(n-m)+1e-300)
		p.slice = Slice{Name: p.name, Rows: len(p.rows), Loss: in, Rest: out, Effect: math.Sqrt2 * (in - out) / math.Sqrt(vin+vout+1e-300)}
		return in > out
	}
	var found []part
	for k, c := range columns {
		names, rows := c.Cut()
		for i := range names {
			if p := (part{name: names[i], column: k, rows: rows[i]}); judge(&p) {
				found = append(found, p)
			}
		}
	}
	worst := func(a, b part) int { return cmp.Or(cmp.Compare(b.z, a.z), cmp.Compare(a.name, b.name)) }
	slices.SortFunc(found, worst)
	singles := found[:min(len(found), pairsOf)]
	for i, a := range singles {
		in := map[int32]bool{}
		for _, r := range a.rows {
			in[r] = true
		}
		for _, b := range singles[i+1:] {
			if a.column == b.column {
				continue
			}
			p := part{name: a.name + " and " + b.name}
			for _, r := range b.rows {
				if in[r] {
					p.rows = append(p.rows, r)
				}
			}
			// A pair tells more than its sides only where it is worse than both.
			if judge(&p) && p.slice.Loss > a.slice.Loss && p.slice.Loss > b.slice.Loss {
				found = append(found, p)
			}
		}
	}
	slices.SortFunc(found, worst)
	surely := Z(1 - level/float64(max(tests, 1)))
	out := []Slice{}
	for _, p := range found {
		if p.z > surely && p.slice.Effect >= leastEffect && len(out) < worstOf {
			out = append(out, p.slice)
		}
	}
	return out
}
