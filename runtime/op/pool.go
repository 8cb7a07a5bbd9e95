package op

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/evaluate"
)

// modelPool puts the folds of a cross-validation together: all their test rows with the
// predictions of the training that did not see them. A metric is the mean over the
// folds; the threshold is their median, so that no row chose the one that decides it.
func modelPool(ctx context.Context, s *Stage) error {
	a, err := decode[lower.PoolArgs](s)
	if err != nil {
		return err
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	metrics, err := s.metrics(a.Metrics)
	if err != nil {
		return err
	}
	out := Scores{Rows: map[string]int{}, Metrics: map[string]map[string]float64{}, Errors: map[string]float64{}}
	all := evaluate.Predictions{Task: meta.Task}
	var ids []int64
	var thresholds []float64
	for f := range a.Folds {
		scores, err := readJSON[Scores](s.In(fmt.Sprintf("%s%d:metrics", lower.FoldPrefix, f+1), "metrics.json"))
		if err != nil {
			return err
		}
		own, p, err := readPredictions(ctx, s.In(fmt.Sprintf("%s%d:predictions", lower.FoldPrefix, f+1), "predictions.parquet"), meta.Task, true)
		if err != nil {
			return err
		}
		ids = append(ids, own...)
		all.Y, all.P = append(all.Y, p.Y...), append(all.P, p.P...)
		for range own {
			all.Fold = append(all.Fold, int32(f+1))
		}
		for part, n := range scores.Rows {
			out.Rows[part] += n
		}
		if scores.Threshold != 0 {
			thresholds = append(thresholds, scores.Threshold)
		}
	}
	if slices.Sort(thresholds); len(thresholds) > 0 {
		out.Threshold = thresholds[len(thresholds)/2]
	}
	all.Task.Threshold = out.Threshold
	order := make([]int32, len(ids))
	for i := range order {
		order[i] = int32(i)
	}
	sort.SliceStable(order, func(x, y int) bool { return ids[order[x]] < ids[order[y]] })
	all = all.At(order)
	sorted := make([]int64, len(ids))
	p := make(parts, meta.Rows)
	for i := range p {
		p[i] = kind.Purged
	}
	for i, o := range order {
		sorted[i] = ids[o]
		p[ids[o]] = kind.Test
	}
	test := kind.PartNames[kind.Test]
	out.Metrics[test] = map[string]float64{}
	for f := range a.Folds {
		var rows []int32
		for i, of := range all.Fold {
			if int(of) == f+1 {
				rows = append(rows, int32(i))
			}
		}
		one := all.At(rows)
		one.Fold = nil
		fold := map[string]float64{}
		for i, m := range metrics {
			v, err := m.Compute(one.Task, one.Y, one.P)
			if err != nil {
				return undefined(i, m, len(rows), fmt.Sprintf("test rows of fold %d", f+1), err)
			}
			fold[m.Name()] = v
			out.Metrics[test][m.Name()] += v / float64(a.Folds)
		}
		out.Folds = append(out.Folds, fold)
	}
	if a.Errors {
		known, err := labels(ctx, s, meta.Task, p, kind.Test)
		if err != nil {
			return err
		}
		boot := evaluate.NewBootstrap(len(sorted), known.groups, a.Seed)
		out.Grouped = boot.Grouped()
		errs, err := boot.MetricErrors(ctx, metrics, all)
		if err != nil {
			return err
		}
		for i, m := range metrics {
			if !math.IsNaN(errs[i]) {
				out.Errors[m.Name()] = errs[i]
			}
		}
		s.Report["errors"] = out.Errors
	}
	s.Report["metrics"], s.Report["rows"], s.Report["folds"] = out.Metrics, out.Rows, out.Folds
	if err := writeJudged(s.Out("predictions", "predictions.parquet"), sorted, all); err != nil {
		return err
	}
	return s.writeJSON(s.Out("metrics", "metrics.json"), out)
}
