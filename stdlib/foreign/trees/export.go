package trees

import (
	"fmt"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/onnx"
)

// maxTable is the most entries that the categories of all splits together may have.
const maxTable = 1 << 26

// ONNX is the model as a trainer returns one: input X, float [N, m.Cols], output Y,
// float [N, m.Width()]. Splits compare and sums add up in doubles, so that no
// threshold moves. A split by category looks its side up in a table and is then one
// by threshold: an operator set that can do more would fit fewer runtimes.
func (m *Model) ONNX() ([]byte, error) {
	g := onnx.New("trees")
	x := g.Input("X", onnx.Float, -1, int64(m.Cols))
	w := int64(m.Width())
	var y onnx.Value
	if m.weights != nil {
		y = g.Op("Where", g.Op("IsNaN", x), g.Scalar(float32(0)), x)
		y = g.Op("MatMul", g.Cast(y, onnx.Double), g.Const(m.weights, int64(m.Cols), w))
		y = g.Cast(g.Op("Add", y, g.Const(m.base, w)), onnx.Float)
	} else {
		var err error
		if y, err = m.ensemble(g, x); err != nil {
			return nil, err
		}
	}
	switch m.link {
	case logistic:
		if m.scale != 1 {
			y = g.Op("Mul", y, g.Scalar(float32(m.scale)))
		}
		y = g.Op("Sigmoid", y)
	case softmax:
		y = g.OpA("Softmax", onnx.Attrs{"axis": 1}, y)
	case exponential:
		y = g.Op("Exp", y)
	case square:
		y = g.Op("Mul", y, g.Op("Abs", y))
	case softplus:
		y = g.Op("Softplus", y)
	case step:
		y = g.Cast(g.Op("Greater", y, g.Scalar(float32(0))), onnx.Float)
	}
	g.Output("Y", y, onnx.Float, -1, w)
	return g.Marshal(), nil
}

// columns are the columns that splits look at beside the model's own.
type columns struct {
	at       map[[2]int32]int64 // by feature and set; set -1: the feature without what is nearly 0
	zeros    []int64            // features
	features []int64            // of the sets
	sets     []int32
}

// columns finds what has to be made of the features.
func (m *Model) columns() (columns, error) {
	c := columns{at: map[[2]int32]int64{}}
	table := 0
	for _, t := range m.trees {
		for _, n := range t.nodes {
			key := [2]int32{n.feature, n.set}
			if _, ok := c.at[key]; ok {
				continue
			}
			switch {
			case n.set >= 0:
				c.at[key] = int64(len(c.sets))
				c.features, c.sets = append(c.features, int64(n.feature)), append(c.sets, n.set)
				if table += m.entries(n.set); table > maxTable {
					return c, fmt.Errorf("its splits by category take a table of more than %d entries", maxTable)
				}
			case n.missing == missingZero:
				c.at[key] = int64(len(c.zeros))
				c.zeros = append(c.zeros, int64(n.feature))
			}
		}
	}
	for key := range c.at {
		c.at[key] += int64(m.Cols)
		if key[1] >= 0 {
			c.at[key] += int64(len(c.zeros))
		}
	}
	return c, nil
}

// entries is the length of a set's table: an entry for each category up to the last,
// and one for all the others.
func (m *Model) entries(set int32) int {
	s := m.sets[set]
	if len(s) == 0 {
		return 1
	}
	return int(s[len(s)-1]) + 2
}

// ensemble adds the trees; their sum is float.
func (m *Model) ensemble(g *onnx.Graph, x onnx.Value) (onnx.Value, error) {
	c, err := m.columns()
	if err != nil {
		return "", err
	}
	in := []onnx.Value{x}
	nan := g.Scalar(float32(math.NaN()))
	if len(c.zeros) > 0 {
		z := g.OpA("Gather", onnx.Attrs{"axis": 1}, x, g.Const(c.zeros, int64(len(c.zeros))))
		in = append(in, g.Op("Where", g.Op("LessOrEqual", g.Op("Abs", z), g.Scalar(zero)), nan, z))
	}
	if n := int64(len(c.sets)); n > 0 {
		var table []bool
		offsets, others := make([]int64, n), make([]float32, n)
		for i, s := range c.sets {
			entries := m.entries(s)
			offsets[i], others[i] = int64(len(table)), float32(entries-1)
			table = append(table, make([]bool, entries)...)
			for _, v := range m.sets[s] {
				table[offsets[i]+int64(v)] = true
			}
		}
		v := g.OpA("Gather", onnx.Attrs{"axis": 1}, x, g.Const(c.features, n))
		other := g.Const(others, 1, n)
		known := g.Op("And", g.Op("GreaterOrEqual", v, g.Scalar(m.least())), g.Op("Less", v, other))
		at := g.Op("Add", g.Cast(g.Op("Where", known, v, other), onnx.Int64), g.Const(offsets, 1, n))
		is := g.Cast(g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const(table, int64(len(table))), at), onnx.Float)
		in = append(in, g.Op("Where", g.Op("IsNaN", v), nan, is))
	}
	var e nodes
	base, grown := slices.Clone(m.base), make([]bool, len(m.base))
	for _, t := range m.trees {
		if len(t.nodes) == 0 {
			base[t.group] += t.leaves[0]
			continue
		}
		for i, n := range t.nodes {
			e.split(m, c, t, i, n)
		}
		for i, v := range t.leaves {
			e.leaf(len(t.nodes)+i, t.group, v)
		}
		e.trees++
		grown[t.group] = true
	}
	for k := range base {
		if grown[k] {
			continue
		}
		// ONNX Runtime forgets the base value where no tree adds to it.
		t := tree{nodes: []node{{set: -1, left: -1, right: -2}}}
		e.split(m, c, t, 0, t.nodes[0])
		e.leaf(1, k, 0)
		e.leaf(2, k, 0)
		e.trees++
	}
	return g.ML("TreeEnsembleRegressor", onnx.Attrs{
		"n_targets": m.Width(), "aggregate_function": "SUM", "post_transform": "NONE", "base_values_as_tensor": onnx.Tensor(base, int64(len(base))),
		"nodes_treeids": e.treeIDs, "nodes_nodeids": e.ids, "nodes_featureids": e.features, "nodes_modes": e.modes, "nodes_values_as_tensor": onnx.Tensor(e.values, int64(len(e.values))),
		"nodes_truenodeids": e.trues, "nodes_falsenodeids": e.falses, "nodes_missing_value_tracks_true": e.missing,
		"target_treeids": e.leafTrees, "target_nodeids": e.leafIDs, "target_ids": e.targets, "target_weights_as_tensor": onnx.Tensor(e.weights, int64(len(e.weights))),
	}, g.Cast(g.Concat(in...), onnx.Double)), nil
}

// nodes are the attributes of a TreeEnsembleRegressor.
type nodes struct {
	trees                                          int64
	treeIDs, ids, features, trues, falses, missing []int64
	modes                                          []string
	values, weights                                []float64
	leafTrees, leafIDs, targets                    []int64
}

func (e *nodes) add(id, feature int64, mode string, value float64, yes, no int64, missing bool) {
	e.treeIDs, e.ids, e.features, e.modes, e.values = append(e.treeIDs, e.trees), append(e.ids, id), append(e.features, feature), append(e.modes, mode), append(e.values, value)
	tracks := int64(0)
	if missing {
		tracks = 1
	}
	e.trues, e.falses, e.missing = append(e.trues, yes), append(e.falses, no), append(e.missing, tracks)
}

func (e *nodes) leaf(id, target int, v float64) {
	e.add(int64(id), 0, "LEAF", 0, 0, 0, false)
	e.leafTrees, e.leafIDs, e.targets, e.weights = append(e.leafTrees, e.trees), append(e.leafIDs, int64(id)), append(e.targets, int64(target)), append(e.weights, v)
}

// split adds node i of a tree. All of them are BRANCH_LEQ: ONNX Runtime is fastest
// where they are alike.
func (e *nodes) split(m *Model, c columns, t tree, i int, n node) {
	child := func(at int32) int64 {
		if at < 0 {
			return int64(len(t.nodes)) + int64(^at)
		}
		return int64(at)
	}
	left, right := child(n.left), child(n.right)
	feature := int64(n.feature)
	if n.set >= 0 || n.missing == missingZero {
		feature = c.at[[2]int32{n.feature, n.set}]
	}
	if n.set >= 0 { // the table has 1 for what goes left
		e.add(int64(i), feature, "BRANCH_LEQ", 0.5, right, left, !n.defaultLeft)
		return
	}
	// Values are floats, so those below a float are those up to the one before it.
	threshold := n.threshold
	if m.strict {
		threshold = float64(math.Nextafter32(float32(threshold), float32(math.Inf(-1))))
	}
	nan := n.defaultLeft
	if n.missing == missingNone {
		nan = 0 <= threshold
	}
	e.add(int64(i), feature, "BRANCH_LEQ", threshold, left, right, nan)
}
