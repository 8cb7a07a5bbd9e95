// Package targetmean replaces texts by the mean of their labels.
package targetmean

import (
	_ "embed"
	"encoding/json"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/schema"
)

//go:embed targetmean.cue
var source string

// Encoder is the kind "target_mean".
type Encoder struct{}

var _ kind.Supervised = Encoder{}

// Name is "target_mean".
func (Encoder) Name() string { return "target_mean" }

// Version of the implementation.
func (Encoder) Version() int { return 2 }

// Learns is true.
func (Encoder) Learns() bool { return true }

// Supervised is every task but anomaly, whose labels never teach.
func (Encoder) Supervised() []string {
	return []string{kind.Binary, kind.Multiclass, kind.Multilabel, kind.Regression, kind.Quantile, kind.Count}
}

// Schema is #TargetMean.
func (Encoder) Schema() schema.Kind {
	return schema.Kind{Family: "encoder", Name: "target_mean", Def: "#TargetMean", Source: source}
}

type args struct {
	Smoothing any `json:"smoothing"` // "auto" or a number
	MinCount  int `json:"min_count"`
}

type params struct {
	Texts []string `json:"texts"`
	// Means has a row for each text, and a last one for all others.
	Means [][]float32 `json:"means"`
	Names []string    `json:"names"`
}

// Accepts texts, and gives a block: how many columns there are depends on the task.
func (Encoder) Accepts(in kind.Flow, _ json.RawMessage) (kind.Flow, bool) {
	return kind.Block, in == kind.Texts
}

// Fit finds the smoothed means of every column as scikit-learn's TargetEncoder
// does (D. Micci-Barreca, A preprocessing scheme for high-cardinality categorical
// attributes, SIGKDD Explorations 3, 2001). Labels are Task.Targets() a row; of
// no rows at all the mean is 0.
//
// Out of a fold the means are moved by what the fold's absence moves the mean of all:
// that of the whole stays. Otherwise it would tell the folds apart, each the higher the
// lower its own labels are, and a column of one value would seem to tell of the label.
func (Encoder) Fit(raw json.RawMessage, v kind.Values) (json.RawMessage, error) {
	a := kind.DecodeArgs[args](raw)
	rows := map[string][]int{}
	for i, s := range v.Texts {
		rows[s] = append(rows[s], i)
	}
	p := params{Texts: []string{}, Names: []string{"mean"}}
	for s, is := range rows {
		if len(is) >= a.MinCount {
			p.Texts = append(p.Texts, s)
		}
	}
	sort.Strings(p.Texts)
	targets := v.Task.Targets()
	label := func(row, col int) float64 { return v.Labels[row*targets+col] }
	switch v.Task.Kind {
	case kind.Multiclass:
		p.Names = v.Task.Classes
		label = func(row, col int) float64 {
			if v.Labels[row] == float64(col) {
				return 1
			}
			return 0
		}
	case kind.Multilabel:
		p.Names = v.Task.Classes
	}
	p.Means = make([][]float32, len(p.Texts)+1)
	for i := range p.Means {
		p.Means[i] = make([]float32, len(p.Names))
	}
	all := make([]int, len(v.Texts))
	for i := range all {
		all[i] = i
	}
	var whole params
	if v.Whole != nil {
		whole = kind.DecodeArgs[params](v.Whole)
	}
	for col := range p.Names {
		mean, variance := moments(all, col, label)
		centre := mean
		if v.Whole != nil {
			centre = float64(whole.Means[len(whole.Texts)][col])
		}
		for i, s := range p.Texts {
			own, within := moments(rows[s], col, label)
			w := weight(a.Smoothing, float64(len(rows[s])), within, variance)
			p.Means[i][col] = float32(centre + w*(own-mean))
		}
		p.Means[len(p.Texts)][col] = float32(centre)
	}
	return json.Marshal(p)
}

// moments are mean and population variance of a column over some rows, by
// Welford's recurrence.
func moments(rows []int, col int, label func(row, col int) float64) (mean, variance float64) {
	for i, r := range rows {
		y := label(r, col)
		d := y - mean
		mean += d / float64(i+1)
		variance += d * (y - mean)
	}
	return mean, variance / max(1, float64(len(rows)))
}

// weight is the share of a category's own mean: of its n rows among n and those
// that smoothing adds, or for auto by the variances within it and over all rows.
// Without any variance all means are the same.
func weight(smoothing any, n, within, variance float64) float64 {
	if m, ok := smoothing.(float64); ok {
		return n / (n + m)
	}
	if variance == 0 {
		return 0
	}
	return variance * n / (variance*n + within)
}

// Lower is a LabelEncoder from text to a row of the table of means.
func (Encoder) Lower(g *onnx.Graph, _ kind.Flow, x onnx.Value, _, raw json.RawMessage) (onnx.Value, []string, error) {
	p := kind.DecodeArgs[params](raw)
	n, width := int64(len(p.Texts)), int64(len(p.Names))
	table := make([]float32, 0, (n+1)*width)
	for _, row := range p.Means {
		table = append(table, row...)
	}
	rows := make([]int64, n)
	for i := range rows {
		rows[i] = int64(i)
	}
	means := g.Const(table, n+1, width)
	row := g.Op("Squeeze", x, g.Const([]int64{1}, 1))
	row = g.ML("LabelEncoder", onnx.Attrs{"keys_strings": p.Texts, "values_int64s": rows, "default_int64": n}, row)
	return g.OpA("Gather", onnx.Attrs{"axis": 0}, means, row), p.Names, nil
}
