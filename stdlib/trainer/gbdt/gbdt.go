// Package gbdt trains gradient-boosted decision trees: histograms, leaf-wise
// growth, learned directions for missing values, splits of categories (Chen &
// Guestrin 2016, Ke et al. 2017).
package gbdt

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/trainer/classweight"
)

//go:embed gbdt.cue
var source string

// Trainer is the kind "gbdt".
type Trainer struct{}

// Name is "gbdt".
func (Trainer) Name() string { return "gbdt" }

// Version of the implementation.
func (Trainer) Version() int { return 4 }

// Schema is #GBDT.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "gbdt", Def: "#GBDT", Source: source}
}

type args struct {
	Rounds        int                `json:"rounds"`
	LearningRate  float64            `json:"learning_rate"`
	MaxLeaves     int                `json:"max_leaves"`
	MaxDepth      int                `json:"max_depth"`
	MinRows       int                `json:"min_rows"`
	L2            float64            `json:"l2"`
	MinGain       float64            `json:"min_gain"`
	Bins          int                `json:"bins"`
	EarlyStopping int                `json:"early_stopping"`
	Categorical   []string           `json:"categorical"`
	CatSmooth     float64            `json:"cat_smooth"`
	CatL2         float64            `json:"cat_l2"`
	Monotone      map[string]int     `json:"monotone"`
	RowSample     float64            `json:"row_sample"`
	ColumnSample  float64            `json:"column_sample"`
	ClassWeight   classweight.Weight `json:"class_weight"`
}

// Check refuses a task without labels to learn from, class weights and directions
// where they have no meaning, and patterns that are none.
func (Trainer) Check(raw json.RawMessage, task string) []kind.Fault {
	if task == kind.Anomaly {
		return []kind.Fault{{Code: diag.BadArgs, What: "a gbdt model does not fit an anomaly problem", Why: "it learns from labels, which only judge there", Mend: `use {kind: "isolation_forest"}, or make the problem binary`}}
	}
	a := kind.DecodeArgs[args](raw)
	out := a.ClassWeight.Check(task)
	if len(a.Monotone) > 0 && task == kind.Multiclass {
		out = append(out, kind.Fault{Field: "monotone", Code: diag.BadArgs, What: "monotone has no meaning in a multiclass problem", Why: "what makes one class likelier makes others less so", Mend: "leave it out"})
	}
	for i, p := range a.Categorical {
		if _, err := path.Match(p, ""); err != nil {
			out = append(out, kind.Fault{Field: fmt.Sprintf("categorical[%d]", i), Code: diag.BadArgs, What: fmt.Sprintf("%q is no pattern", p), Why: err.Error(), Mend: `name a column, or write * for any part of a name, as in "customer.*"`})
		}
	}
	return out
}

// Named are the categorical columns and those with a direction.
func (Trainer) Named(raw json.RawMessage) map[string]string {
	a, out := kind.DecodeArgs[args](raw), map[string]string{}
	for i, p := range a.Categorical {
		out[fmt.Sprintf("categorical[%d]", i)] = p
	}
	for name := range a.Monotone {
		out["monotone."+name] = name
	}
	return out
}

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

// Train boosts trees until rounds are done or the validation rows stop gaining. It
// fails where an argument names a column or a class that there is not, and where no
// split is worth making.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[args](job.Args)
	b := &booster{args: a, task: job.Task, cols: job.Train.X.Cols, k: job.Task.Width(), threads: max(job.Threads, 1), seed: job.Seed}
	var faults kind.Faults
	b.categorical, b.monotone, faults = a.columns(job.Names)
	b.bounded = len(a.Monotone) > 0
	weights, wrong := a.ClassWeight.Classes(job.Task, job.Train.Y)
	if faults = append(faults, wrong...); len(faults) > 0 {
		return kind.TrainResult{}, faults
	}
	b.weights = weights
	b.base = b.baseScore(job.Train.Y)
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

// columns finds the features that categorical and monotone name.
func (a args) columns(names []string) (categorical []bool, monotone []int, faults kind.Faults) {
	categorical, monotone = make([]bool, len(names)), make([]int, len(names))
	unknown := func(field, name string) {
		faults = append(faults, kind.Fault{Field: field, Code: diag.NoColumn, What: fmt.Sprintf("the features make no column %q%s", name, diag.Suggest(name, names)),
			Why: "they make " + list(names), Mend: "mend the name"})
	}
	for i, p := range a.Categorical {
		found := false
		for f, name := range names {
			if ok, _ := path.Match(p, name); ok || p == name {
				categorical[f], found = true, true
			}
		}
		if !found {
			unknown(fmt.Sprintf("categorical[%d]", i), p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Monotone)) {
		f := slices.Index(names, name)
		switch {
		case f < 0:
			unknown("monotone."+name, name)
		case categorical[f]:
			faults = append(faults, kind.Fault{Field: "monotone." + name, Code: diag.BadArgs, What: fmt.Sprintf("column %q is both categorical and monotone", name), Why: "categories have no order", Mend: "drop one of the two"})
		default:
			monotone[f] = a.Monotone[name]
		}
	}
	return categorical, monotone, faults
}

// list names the first of many columns.
func list(names []string) string {
	const most = 20
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
