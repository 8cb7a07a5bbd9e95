// Package gbdt trains gradient-boosted decision trees: histograms, leaf-wise
// growth, learned directions for missing values (Chen & Guestrin 2016, Ke et
// al. 2017).
package gbdt

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed gbdt.cue
var source string

// Trainer is the kind "gbdt".
type Trainer struct{}

// Name is "gbdt".
func (Trainer) Name() string { return "gbdt" }

// Version of the implementation.
func (Trainer) Version() int { return 1 }

// Schema is #GBDT.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "gbdt", Def: "#GBDT", Source: source}
}

type args struct {
	Rounds        int     `json:"rounds"`
	LearningRate  float64 `json:"learning_rate"`
	MaxLeaves     int     `json:"max_leaves"`
	MaxDepth      int     `json:"max_depth"`
	MinRows       int     `json:"min_rows"`
	L2            float64 `json:"l2"`
	MinGain       float64 `json:"min_gain"`
	Bins          int     `json:"bins"`
	EarlyStopping int     `json:"early_stopping"`
}

// Check has nothing that the schema does not.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults takes numbers as they are and numbers texts by frequency: trees need
// no scaling, and missing values are theirs to learn.
func (Trainer) Defaults(t types.Type) []json.RawMessage {
	if t == types.String {
		return []json.RawMessage{[]byte(`{"kind":"ordinal","min_count":1,"max":10000}`)}
	}
	return []json.RawMessage{[]byte(`{"kind":"passthrough"}`)}
}

// Features is true.
func (Trainer) Features() bool { return true }

// Train boosts trees until rounds are done or the validation rows stop gaining.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[args](job.Args)
	b := &booster{args: a, task: job.Task, cols: job.Train.X.Cols, k: job.Task.Width(), threads: max(job.Threads, 1)}
	b.base = baseScore(job.Task, job.Train.Y)
	b.bin(job.Train.X)
	best, losses, err := b.boost(ctx, job)
	if err != nil {
		return kind.TrainResult{}, err
	}
	b.trees = b.trees[:best*b.k]
	splits := 0
	gain := make([]float64, b.cols)
	for _, t := range b.trees {
		for _, n := range t.nodes {
			if n.feature >= 0 {
				splits++
				gain[n.feature] += n.gain
			}
		}
	}
	if splits == 0 {
		return kind.TrainResult{}, diag.Diagnostic{Severity: diag.Error, Code: diag.NoSignal, What: fmt.Sprintf("no feature splits the %d training rows", job.Train.X.Rows),
			Why: "every split would leave fewer than min_rows rows on a side, or gains nothing", Mend: "lower min_rows, or look at the features' profiles"}
	}
	total := 0.0
	for _, g := range gain {
		total += g
	}
	importance := map[string]float64{}
	for i, name := range job.Names {
		importance[name] = math.Round(gain[i]/total*1e6) / 1e6
	}
	report := map[string]any{"rounds": best, "splits": splits, "importance": importance}
	if len(losses) > 0 {
		report["validation_loss"] = losses[best-1]
	}
	return kind.TrainResult{Model: b.export(), Predict: b.predict, Report: report}, nil
}

// baseScore is the score before any tree: log odds, log shares, or the mean.
func baseScore(task kind.Task, y []float64) []float64 {
	out := make([]float64, task.Width())
	n := float64(len(y))
	switch task.Kind {
	case kind.Multiclass:
		for _, c := range y {
			out[int(c)]++
		}
		for c := range out {
			out[c] = math.Log(math.Max(out[c], 0.5) / n)
		}
	default:
		mean := 0.0
		for i, v := range y {
			mean += (v - mean) / float64(i+1)
		}
		out[0] = mean
		if task.Kind == kind.Binary {
			mean = math.Min(math.Max(mean, 0.5/n), 1-0.5/n)
			out[0] = math.Log(mean / (1 - mean))
		}
	}
	for i := range out {
		out[i] = float64(float32(out[i])) // what the exported model holds
	}
	return out
}

// node is a split (feature >= 0) or a leaf.
type node struct {
	feature     int
	threshold   float32 // x <= threshold goes left
	bin         uint8   // the same in bins
	missingLeft bool
	left, right int
	value       float32
	gain        float64
}

type tree struct{ nodes []node }

func (t *tree) leaf(row []float32) float32 {
	n := &t.nodes[0]
	for n.feature >= 0 {
		x := row[n.feature]
		if x <= n.threshold || x != x && n.missingLeft {
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

// link turns scores into predictions in place.
func link(task kind.Task, score []float64) {
	switch task.Kind {
	case kind.Binary:
		score[0] = 1 / (1 + math.Exp(-score[0]))
	case kind.Multiclass:
		top, sum := score[0], 0.0
		for _, s := range score {
			top = math.Max(top, s)
		}
		for c, s := range score {
			score[c] = math.Exp(s - top)
			sum += score[c]
		}
		for c := range score {
			score[c] /= sum
		}
	}
}

// export writes a TreeEnsembleRegressor with a target for each output.
func (b *booster) export() []byte {
	var treeIDs, nodeIDs, features, trues, falses, missing, leafTrees, leafNodes, leafTargets []int64
	var values, weights []float32
	var modes []string
	for t, tr := range b.trees {
		for i, n := range tr.nodes {
			treeIDs, nodeIDs = append(treeIDs, int64(t)), append(nodeIDs, int64(i))
			if n.feature < 0 {
				modes, features, values = append(modes, "LEAF"), append(features, 0), append(values, 0)
				trues, falses, missing = append(trues, 0), append(falses, 0), append(missing, 0)
				leafTrees, leafNodes, leafTargets = append(leafTrees, int64(t)), append(leafNodes, int64(i)), append(leafTargets, int64(t%b.k))
				weights = append(weights, n.value)
				continue
			}
			track := int64(0)
			if n.missingLeft {
				track = 1
			}
			modes, features, values = append(modes, "BRANCH_LEQ"), append(features, int64(n.feature)), append(values, n.threshold)
			trues, falses, missing = append(trues, int64(n.left)), append(falses, int64(n.right)), append(missing, track)
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
	case kind.Binary:
		y = g.Op("Sigmoid", y)
	case kind.Multiclass:
		y = g.OpA("Softmax", onnx.Attrs{"axis": 1}, y)
	}
	g.Output("Y", y, onnx.Float, -1, int64(b.k))
	return g.Marshal()
}
