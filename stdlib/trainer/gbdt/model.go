package gbdt

import (
	"slices"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
)

// node is a split (feature >= 0) or a leaf.
type node struct {
	feature     int
	threshold   float32   // x <= threshold goes left, where values is empty
	values      []float32 // any of these goes left
	missingLeft bool
	left, right int
	value       float32
	gain        float64
	bins        bins // what goes left
	// A monotone split's rows, grower.rows[from:mid] on its left, and direction.
	from, mid, to, direction int
}

type tree struct{ nodes []node }

func (t *tree) leaf(row []float32) float32 {
	n := &t.nodes[0]
	for n.feature >= 0 {
		x := row[n.feature]
		left := n.missingLeft
		switch {
		case x != x:
		case n.values == nil:
			left = x <= n.threshold
		default:
			left = slices.Contains(n.values, x)
		}
		if left {
			n = &t.nodes[n.left]
		} else {
			n = &t.nodes[n.right]
		}
	}
	return n.value
}

// predict is the model in Go. Trees are summed in order in doubles.
func (b *booster) predict(m kind.Matrix) []float32 {
	out := make([]float32, 0, m.Rows*b.k)
	score := make([]float64, b.k)
	for i := range m.Rows {
		copy(score, b.base)
		row := m.Row(i)
		for t := range b.trees {
			score[t%b.k] += float64(b.trees[t].leaf(row))
		}
		link(b.task, score)
		for _, s := range score {
			out = append(out, float32(s))
		}
	}
	return out
}

// export writes a TreeEnsembleRegressor with a target for each output. A split of
// categories is a chain of nodes, one for each value that goes left, as LightGBM's
// converters write it. ONNX Runtime (1.30) joins such chains of one feature where they
// lead to subtrees that it takes for equal, and forgets the way of what is missing in
// the second: a node that decides nothing keeps them apart.
func (b *booster) export() []byte {
	var treeIDs, nodeIDs, features, trues, falses, missing, leafTrees, leafNodes, leafTargets []int64
	var values, weights []float32
	var modes []string
	for t, tr := range b.trees {
		ids := make([]int64, len(tr.nodes))
		next := int64(0)
		follows := func(n node) bool { // another split of the same feature by category, on the right
			return n.values != nil && tr.nodes[n.right].values != nil && tr.nodes[n.right].feature == n.feature
		}
		for i, n := range tr.nodes {
			ids[i] = next
			next += int64(max(1, len(n.values)))
			if follows(n) {
				next++
			}
		}
		add := func(id int64, mode string, n node, value float32, left, right int64, missingLeft bool) {
			track := int64(0)
			if missingLeft {
				track = 1
			}
			treeIDs, nodeIDs = append(treeIDs, int64(t)), append(nodeIDs, id)
			modes, features, values = append(modes, mode), append(features, int64(max(n.feature, 0))), append(values, value)
			trues, falses, missing = append(trues, left), append(falses, right), append(missing, track)
		}
		for i, n := range tr.nodes {
			id := ids[i]
			switch {
			case n.feature < 0:
				add(id, "LEAF", n, 0, 0, 0, false)
				leafTrees, leafNodes, leafTargets = append(leafTrees, int64(t)), append(leafNodes, id), append(leafTargets, int64(t%b.k))
				weights = append(weights, n.value)
			case n.values == nil:
				add(id, "BRANCH_LEQ", n, n.threshold, ids[n.left], ids[n.right], n.missingLeft)
			default:
				end := id + int64(len(n.values))
				for j, v := range n.values {
					other := id + int64(j) + 1
					if other == end && !follows(n) {
						other = ids[n.right]
					}
					add(id+int64(j), "BRANCH_EQ", n, v, ids[n.left], other, n.missingLeft)
				}
				if follows(n) {
					add(end, "BRANCH_LEQ", n, 0, ids[n.right], ids[n.right], false)
				}
			}
		}
	}
	base := make([]float32, b.k)
	for i, v := range b.base {
		base[i] = float32(v)
	}
	g := onnx.New("gbdt")
	x := g.Input("X", onnx.Float, -1, int64(b.cols))
	y := g.ML("TreeEnsembleRegressor", onnx.Attrs{
		"n_targets": b.k, "base_values": base, "aggregate_function": "SUM", "post_transform": "NONE",
		"nodes_treeids": treeIDs, "nodes_nodeids": nodeIDs, "nodes_featureids": features, "nodes_modes": modes, "nodes_values": values,
		"nodes_truenodeids": trues, "nodes_falsenodeids": falses, "nodes_missing_value_tracks_true": missing,
		"target_treeids": leafTrees, "target_nodeids": leafNodes, "target_ids": leafTargets, "target_weights": weights,
	}, x)
	switch b.task.Kind {
	case kind.Binary, kind.Multilabel:
		y = g.Op("Sigmoid", y)
	case kind.Multiclass:
		y = g.OpA("Softmax", onnx.Attrs{"axis": 1}, y)
	case kind.Count:
		y = g.Op("Exp", y)
	case kind.Quantile:
		rising := make([]onnx.Value, b.k)
		for c := range rising {
			if rising[c] = g.OpA("Gather", onnx.Attrs{"axis": 1}, y, g.Const([]int64{int64(c)}, 1)); c > 0 {
				rising[c] = g.Op("Max", rising[c-1], rising[c])
			}
		}
		y = g.Concat(rising...)
	}
	g.Output("Y", y, onnx.Float, -1, int64(b.k))
	return g.Marshal()
}
