package op

import (
	"context"
	"fmt"
	"path/filepath"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
)

// modelMeasure adds one custom metric of the test rows to the metrics so far.
func modelMeasure(ctx context.Context, s *Stage) error {
	a, err := decode[lower.MeasureArgs](s)
	if err != nil {
		return err
	}
	k, ok := s.Kinds.CustomMetrics.Get(a.Kind)
	if !ok {
		return fmt.Errorf("no metric kind %q", a.Kind)
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	scores, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return err
	}
	work, clean, err := s.work()
	if err != nil {
		return err
	}
	defer clean()
	rows := filepath.Join(work.Dir, "rows.parquet")
	if err := s.judged(ctx, rows); err != nil {
		return err
	}
	v, err := k.Measure(ctx, kind.MeasureJob{Task: meta.Task, Args: a.Args, Rows: rows, Work: work})
	if err != nil {
		return err
	}
	test := kind.PartNames[kind.Test]
	scores.Metrics[test][a.Metric] = v
	s.Report["metrics"] = map[string]map[string]float64{test: {a.Metric: v}}
	return s.writeJSON(s.Out("metrics", "metrics.json"), scores)
}

// judged writes what a custom metric sees: the test rows as they are in the
// dataset, with their predictions.
func (s *Stage) judged(ctx context.Context, out string) error {
	db, err := s.sql(ctx, 0)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.WriteParquet(ctx, fmt.Sprintf("SELECT COLUMNS(c -> c IN ('%s', '%s') OR starts_with(c, '%s') OR NOT starts_with(c, '_') AND NOT regexp_matches(c, '^(label(\\.[0-9]+)?|fold)$')) FROM %s AS d JOIN %s AS p USING (%s) ORDER BY %s",
		colRow, colAt, colLabel, s.rows("dataset"), expr.ReadParquet(s.In("predictions", "predictions.parquet")), colRow, colRow), out)
}
