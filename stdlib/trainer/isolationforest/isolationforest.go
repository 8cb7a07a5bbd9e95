// Package isolationforest scores anomalies by the lengths of paths in random trees:
// Liu, Ting & Zhou 2008, "Isolation Forest".
package isolationforest

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed isolationforest.cue
var source string

// Trainer is the kind "isolation_forest".
type Trainer struct{}

// Name is "isolation_forest".
func (Trainer) Name() string { return "isolation_forest" }

// Version of the implementation.
func (Trainer) Version() int { return 1 }

// Schema is #IsolationForest.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "isolation_forest", Def: "#IsolationForest", Source: source}
}

type args struct {
	Trees  int `json:"trees"`
	Sample int `json:"sample"`
}

// Check refuses tasks other than anomaly.
func (Trainer) Check(_ json.RawMessage, task string) []kind.Fault {
	if task == kind.Anomaly || task == "" {
		return nil
	}
	return []kind.Fault{{Code: diag.BadArgs, What: "an isolation forest does not fit a " + task + " problem", Why: "it learns how unusual rows are, and never looks at a label",
		Mend: `give the problem kind: "anomaly", or use another trainer`}}
}

// Defaults takes numbers as they are and numbers texts by frequency: trees need no
// scaling, and a missing value has its way.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return []json.RawMessage{[]byte(`{"kind":"ordinal","min_count":1,"max":10000}`)}
	}
	return []json.RawMessage{[]byte(`{"kind":"passthrough"}`)}
}

// Features is true.
func (Trainer) Features() bool { return true }

// Train grows trees, each of a sample without replacement, until a row is alone, rows
// are alike, or the depth is log2 of the sample. It never reads a label. It fails
// where no feature tells two training rows apart.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a, x := kind.DecodeArgs[args](job.Args), job.Train.X
	n := min(a.Sample, x.Rows)
	f := forest{cols: x.Cols, trees: make([]tree, a.Trees), unit: length(n)}
	var wg sync.WaitGroup
	var next, done, splits atomic.Int64
	var telling sync.Mutex
	for range max(job.Threads, 1) {
		wg.Go(func() {
			for t := next.Add(1) - 1; t < int64(a.Trees) && ctx.Err() == nil; t = next.Add(1) - 1 {
				g := grower{x: x, draw: rand.New(rand.NewPCG(job.Seed, uint64(t))), deepest: int(math.Ceil(math.Log2(float64(n))))}
				g.features = make([]int, x.Cols)
				for j := range g.features {
					g.features[j] = j
				}
				g.grow(sample(g.draw, x.Rows, n), 0)
				f.trees[t] = g.nodes
				splits.Add(int64(len(g.nodes) / 2))
				telling.Lock()
				job.Progress(int(done.Add(1)), a.Trees, "")
				telling.Unlock()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return kind.TrainResult{}, ctx.Err()
	}
	if splits.Load() == 0 {
		return kind.TrainResult{}, diag.Diagnostic{Severity: diag.Error, Code: diag.NoSignal, What: fmt.Sprintf("no feature tells the %d training rows apart", x.Rows),
			Why: "what is everywhere the same isolates nothing", Mend: "look at the features' profiles"}
	}
	return kind.TrainResult{Model: f.export(), Predict: f.predict, Report: map[string]any{"trees": a.Trees, "sample": n, "splits": splits.Load()}}, nil
}

// sample draws n of the numbers below rows, without replacement (Floyd's algorithm).
func sample(draw *rand.Rand, rows, n int) []int {
	out, in := make([]int, 0, n), make(map[int]bool, n)
	for i := rows - n; i < rows; i++ {
		r := draw.IntN(i + 1)
		if in[r] {
			r = i
		}
		in[r] = true
		out = append(out, r)
	}
	return out
}

// euler is the Euler–Mascheroni constant.
const euler = 0.5772156649015329

// length is the mean length of an unsuccessful search in a binary search tree of n
// keys, c(n) of Liu, Ting & Zhou 2008, equation 1.
func length(n int) float64 {
	switch {
	case n < 2:
		return 0
	case n == 2:
		return 1
	}
	m := float64(n - 1)
	return 2*(math.Log(m)+euler) - 2*m/float64(n)
}

// node is a split (feature >= 0): x <= threshold goes left, all else, what is missing
// too, right. Or it is a leaf with the length of the path to a row in it.
type node struct {
	feature     int
	threshold   float32
	left, right int
	path        float32
}

type tree []node

type grower struct {
	x        kind.Matrix
	draw     *rand.Rand
	deepest  int
	features []int
	nodes    tree
}

// grow adds the tree of rows, which it reorders, and returns its place.
func (g *grower) grow(rows []int, depth int) int {
	at := len(g.nodes)
	g.nodes = append(g.nodes, node{feature: -1, path: float32(float64(depth) + length(len(rows)))})
	if len(rows) < 2 || depth == g.deepest {
		return at
	}
	// Features in random order until one tells the rows apart.
	for k := range g.features {
		r := k + g.draw.IntN(len(g.features)-k)
		g.features[k], g.features[r] = g.features[r], g.features[k]
		feature := g.features[k]
		low, high, missing := g.bounds(rows, feature)
		if low > high || low == high && !missing {
			continue
		}
		threshold := float32(float64(low) + g.draw.Float64()*(float64(high)-float64(low)))
		if threshold >= high && low < high {
			threshold = low
		}
		left := 0
		for i, row := range rows {
			if g.x.Row(row)[feature] <= threshold {
				rows[i], rows[left] = rows[left], row
				left++
			}
		}
		l := g.grow(rows[:left], depth+1)
		r = g.grow(rows[left:], depth+1)
		g.nodes[at] = node{feature: feature, threshold: threshold, left: l, right: r}
		break
	}
	return at
}

// bounds are the least and greatest of a feature's values that are there, infinite
// ones as the greatest finite ones, and whether one is missing.
func (g *grower) bounds(rows []int, feature int) (low, high float32, missing bool) {
	low, high = math.MaxFloat32, -math.MaxFloat32
	for _, row := range rows {
		v := g.x.Row(row)[feature]
		if v != v {
			missing = true
			continue
		}
		v = min(max(v, -math.MaxFloat32), math.MaxFloat32)
		low, high = min(low, v), max(high, v)
	}
	return low, high, missing
}

// forest is the model; unit is the length that scores 0.5.
type forest struct {
	cols  int
	trees []tree
	unit  float64
}

// predict scores rows by 2^(-E[h]/unit).
func (f forest) predict(m kind.Matrix) []float32 {
	out := make([]float32, m.Rows)
	for i := range out {
		row, sum := m.Row(i), 0.0
		for _, t := range f.trees {
			n := t[0]
			for n.feature >= 0 {
				if row[n.feature] <= n.threshold {
					n = t[n.left]
				} else {
					n = t[n.right]
				}
			}
			sum += float64(n.path)
		}
		out[i] = float32(math.Exp2(-sum / float64(len(f.trees)) / f.unit))
	}
	return out
}

// export writes the paths' lengths as a TreeEnsembleRegressor that averages them.
func (f forest) export() []byte {
	total := 0
	for _, t := range f.trees {
		total += len(t)
	}
	ints := func() []int64 { return make([]int64, 0, total) }
	treeIDs, nodeIDs, features, trues, falses, leafTrees, leafNodes := ints(), ints(), ints(), ints(), ints(), ints(), ints()
	values, weights, modes := make([]float32, 0, total), make([]float32, 0, total), make([]string, 0, total)
	for t, nodes := range f.trees {
		for i, n := range nodes {
			mode := "BRANCH_LEQ"
			if n.feature < 0 {
				mode, n.feature = "LEAF", 0
				leafTrees, leafNodes, weights = append(leafTrees, int64(t)), append(leafNodes, int64(i)), append(weights, n.path)
			}
			treeIDs, nodeIDs, modes = append(treeIDs, int64(t)), append(nodeIDs, int64(i)), append(modes, mode)
			features, values = append(features, int64(n.feature)), append(values, n.threshold)
			trues, falses = append(trues, int64(n.left)), append(falses, int64(n.right))
		}
	}
	g := onnx.New("isolation_forest")
	x := g.Input("X", onnx.Float, -1, int64(f.cols))
	y := g.ML("TreeEnsembleRegressor", onnx.Attrs{
		"n_targets": 1, "aggregate_function": "AVERAGE", "post_transform": "NONE",
		"nodes_treeids": treeIDs, "nodes_nodeids": nodeIDs, "nodes_featureids": features, "nodes_modes": modes, "nodes_values": values,
		"nodes_truenodeids": trues, "nodes_falsenodeids": falses, "nodes_missing_value_tracks_true": slices.Repeat([]int64{0}, total),
		"target_treeids": leafTrees, "target_nodeids": leafNodes, "target_ids": slices.Repeat([]int64{0}, len(leafTrees)), "target_weights": weights,
	}, x)
	y = g.Op("Pow", g.Scalar(2.0), g.Op("Mul", g.Cast(y, onnx.Double), g.Scalar(-1/f.unit)))
	g.Output("Y", g.Cast(y, onnx.Float), onnx.Float, -1, 1)
	return g.Marshal()
}
