package op

import (
	"context"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/table"
)

// modelExplain looks into a model by its test rows: curves, slices, what it looks at.
// Under cross-validation, the latter is what one of the trainings does, on its own test
// rows.
func modelExplain(ctx context.Context, s *Stage) error {
	a, err := decode[lower.ExplainArgs](s)
	if err != nil {
		return err
	}
	meta, p, t, m, err := s.loaded(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	scores, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return err
	}
	_, rows, tested, err := s.tested(ctx, meta, scores.Threshold, a.Seed)
	if err != nil {
		return err
	}
	var r evaluate.Report
	rows.Curve(&r)
	metrics, err := s.metrics(a.Metrics)
	if err != nil {
		return err
	}
	raw := make([]string, len(t.Raw))
	for i, f := range t.Raw {
		raw[i] = f.Name
	}
	features, err := s.columns(ctx, tested, raw)
	if err != nil {
		return err
	}
	looked := features
	for _, name := range a.Slices {
		c, err := s.by(ctx, tested, name)
		if err != nil {
			return err
		}
		if err := s.slice(ctx, &r, c, metrics, rows, a.Seed); err != nil {
			return err
		}
		if !slices.ContainsFunc(features, c.Same) { // else its feature makes these slices
			looked = append(looked[:len(looked):len(looked)], c)
		}
	}
	s.Progress(1, 3, "parts", "slices")
	r.Worst = evaluate.Worst(looked, rows.Loss())

	known, err := labels(ctx, s, rows.Task, p, kind.Test)
	if err != nil {
		return err
	}
	if features, err = s.columns(ctx, p, raw); err != nil {
		return err
	}
	few := evaluate.Sample(features, evaluate.ImportanceRows(len(features), len(known.ids)))
	predict := func(cols []evaluate.Column) ([]float32, error) {
		in := columns{}
		for _, c := range cols {
			if in[c.Name] = c.Numbers; c.Texts != nil {
				in[c.Name] = c.Texts
			}
		}
		out, err := m.parallel(ctx, in, cols[0].Rows())
		if err != nil {
			return nil, err
		}
		return out[0].([]float32), nil
	}
	own := evaluate.Predictions{Task: rows.Task, Y: known.y, P: make([]float32, len(known.ids)*rows.Task.Width())}
	y := own.At(few.Rows).Y
	score := func(p []float32) float64 {
		q := evaluate.Predictions{Task: rows.Task, Y: y, P: p}
		sum := 0.0
		for _, l := range q.Loss() {
			sum -= l / float64(q.Rows())
		}
		return sum
	}
	r.Metric = "loss"
	if k, ok := s.Kinds.Metrics.Get(a.Metric); ok {
		of := func(p []float32) float64 {
			return evaluate.Predictions{Task: rows.Task, Y: y, P: p}.Metric(k) * float64(k.Better())
		}
		p, err := predict(few.Columns)
		if err != nil {
			return err
		}
		if !math.IsNaN(of(p)) { // the sample may hold one class only
			r.Metric, score = a.Metric, of
		}
	}
	if r.Importance, err = evaluate.PermutationImportance(few.Columns, predict, score, a.Seed); err != nil {
		return err
	}
	s.Progress(2, 3, "parts", "importance")
	if r.Dependence, err = evaluate.PartialDependence(few.Columns, predict, r.Importance, evaluate.OutputNames(meta.Task)); err != nil {
		return err
	}
	s.Progress(3, 3, "parts", "")
	s.Report["worst"] = len(r.Worst)
	return s.writeJSON(s.Out("report", "evaluation.json"), r)
}

// slice adds the metrics of each slice by a column to a report.
func (s *Stage) slice(ctx context.Context, r *evaluate.Report, c evaluate.Column, metrics []kind.Metric, rows evaluate.Predictions, seed uint64) error {
	names, parts := c.Cut()
	for i, name := range names {
		in := rows.At(parts[i])
		out := evaluate.Slice{Name: name, By: c.Name, Rows: in.Rows(), Metrics: map[string]float64{}, Errors: map[string]float64{}}
		errs, err := evaluate.NewBootstrap(in.Rows(), nil, seed).MetricErrors(ctx, metrics, in)
		if err != nil {
			return err
		}
		for k, m := range metrics {
			if v := in.Metric(m); !math.IsNaN(v) {
				if out.Metrics[m.Name()] = v; !math.IsNaN(errs[k]) {
					out.Errors[m.Name()] = errs[k]
				}
			}
		}
		r.Slices = append(r.Slices, out)
	}
	return nil
}

// columns reads columns of the dataset, of the test rows.
func (s *Stage) columns(ctx context.Context, p parts, names []string) ([]evaluate.Column, error) {
	path := s.In("dataset", "rows.parquet")
	want, err := table.Natural(path, names)
	if err != nil {
		return nil, err
	}
	want[colRow] = table.Ints
	out := make([]evaluate.Column, len(names))
	for i, n := range names {
		if out[i].Name = n; want[n] == table.Texts {
			out[i].Texts = []string{}
		}
	}
	err = table.Read(ctx, path, want, func(b table.Batch) error {
		for r, id := range b.Ints(colRow) {
			if p[id] != kind.Test {
				continue
			}
			for i := range out {
				if c := &out[i]; c.Texts != nil {
					c.Texts = append(c.Texts, b.Texts(c.Name)[r])
				} else {
					c.Numbers = append(c.Numbers, b.Floats(c.Name)[r])
				}
			}
		}
		return nil
	})
	return out, err
}
