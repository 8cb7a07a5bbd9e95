package op

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/table"
)

// modelTrain makes the matrix by the transform's graph and hands it to the
// trainer: training rows to learn from, validation rows to stop by. The
// trainer's own predictions of rows that neither are kept, to prove the package by.
func modelTrain(ctx context.Context, s *Stage) error {
	a, err := decode[lower.TrainArgs](s)
	if err != nil {
		return err
	}
	k, ok := s.Kinds.Trainers.Get(a.Kind)
	if !ok {
		return fmt.Errorf("no trainer %q", a.Kind)
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	t, err := readJSON[Transform](s.In("transform", "transform.json"))
	if err != nil {
		return err
	}
	graph, err := os.ReadFile(s.In("transform", "transform.onnx"))
	if err != nil {
		return err
	}
	p, err := readParts(ctx, s.In("split", "parts.parquet"))
	if err != nil {
		return err
	}
	m, err := openModel(graph)
	if err != nil {
		return err
	}
	defer m.Close()
	job := kind.TrainJob{Task: meta.Task, Args: a.Args, Seed: a.Seed, Threads: s.Limits.CPU, Names: t.Columns, Files: s.files(),
		Progress: func(done, total int, note string) { s.Progress(int64(done), int64(total), "rounds", note) }}
	work, clean, err := s.work()
	if err != nil {
		return err
	}
	defer clean()
	job.Work = work
	if _, ok := k.(kind.Ensemble); ok {
		err = examples(ctx, s, m, t, p, meta.Task, []kind.Part{kind.Valid}, &job.Train)
	} else {
		err = examples(ctx, s, m, t, p, meta.Task, []kind.Part{kind.Train, kind.Valid}, &job.Train, &job.Valid)
	}
	if err != nil {
		return err
	}
	res, err := k.Train(ctx, job)
	if err != nil {
		return err
	}
	s.Report["training"] = res.Report
	s.Report["rows"] = job.Train.X.Rows
	job.Train, job.Valid = kind.Examples{}, kind.Examples{}
	if err := os.WriteFile(s.Out("model", "model.onnx"), res.Model, 0o644); err != nil {
		return err
	}
	if err := s.writeJSON(s.Out("model", "report.json"), map[string]any{"trainer": a.Kind, "rows": s.Report["rows"], "report": res.Report}); err != nil {
		return err
	}
	test, err := m.matrix(ctx, s, t, p, p.proof())
	if err != nil {
		return err
	}
	return writePredictions(s.Out("heldout", "predictions.parquet"), p.ids(p.proof()), nil, res.Predict(test), meta.Task)
}

// examples fills in matrices and labels of parts of the dataset.
func examples(ctx context.Context, s *Stage, m *model, t Transform, p parts, task kind.Task, of []kind.Part, into ...*kind.Examples) error {
	known, err := truths(ctx, s, task, p, false, of...)
	if err != nil {
		return err
	}
	plain := of
	if t.Folded { // the training rows go through transforms of their own
		plain = slices.DeleteFunc(slices.Clone(of), func(q kind.Part) bool { return q == kind.Train })
	}
	x, err := m.matrices(ctx, s, t, p, plain...)
	if err != nil {
		return err
	}
	for i, q := range of {
		into[i].Y = known[i].y
		if k := slices.Index(plain, q); k >= 0 {
			into[i].X = x[k]
		} else if into[i].X, err = folded(ctx, s, t, p, task); err != nil {
			return err
		}
	}
	return nil
}

// writePredictions writes row ids, labels (unless nil) label, label.1, … and
// predictions p0, p1, …
func writePredictions(path string, ids []int64, y []float64, p []float32, task kind.Task) error {
	return writeJudged(path, ids, evaluate.Predictions{Task: task, Y: y, P: p})
}

// colFold is the column of predictions that says which training of a cross-validation
// made them.
const colFold = "fold"

// writeJudged is writePredictions, with the fold of each row where there is one.
func writeJudged(path string, ids []int64, j evaluate.Predictions) error {
	y, p, task := j.Y, j.P, j.Task
	cols := []table.Column{{Name: colRow, Data: ids}}
	if t := task.Targets(); y != nil {
		for k := range t {
			col := make([]float64, len(ids))
			for i := range col {
				col[i] = y[i*t+k]
			}
			cols = append(cols, table.Column{Name: strings.TrimPrefix(labelColumn(k), "_"), Data: col})
		}
	}
	for c, w := 0, task.Width(); c < w; c++ {
		col := make([]float32, len(ids))
		for i := range col {
			col[i] = p[i*w+c]
		}
		cols = append(cols, table.Column{Name: fmt.Sprintf("p%d", c), Data: col})
	}
	if j.Fold != nil {
		folds := make([]int64, len(ids))
		for i, f := range j.Fold {
			folds[i] = int64(f)
		}
		cols = append(cols, table.Column{Name: colFold, Data: folds})
	}
	return table.Write(path, cols)
}

// readPredictions reads what writePredictions wrote, as far as the file has labels.
func readPredictions(ctx context.Context, path string, task kind.Task, labelled bool) (ids []int64, out evaluate.Predictions, err error) {
	want := map[string]table.Form{colRow: table.Ints}
	t, w := task.Targets(), task.Width()
	if !labelled {
		t = 0
	}
	name := func(k int) string { return strings.TrimPrefix(labelColumn(k), "_") }
	for k := range t {
		want[name(k)] = table.Floats
	}
	for c := range w {
		want[fmt.Sprintf("p%d", c)] = table.Floats
	}
	_, none := table.Natural(path, []string{colFold})
	if none == nil {
		want[colFold] = table.Ints
	}
	out.Task = task
	err = table.Read(ctx, path, want, func(b table.Batch) error {
		ids = append(ids, b.Ints(colRow)...)
		for i := range b.Rows {
			if none == nil {
				out.Fold = append(out.Fold, int32(b.Ints(colFold)[i]))
			}
			for k := range t {
				out.Y = append(out.Y, b.Floats(name(k))[i])
			}
			for c := range w {
				out.P = append(out.P, float32(b.Floats(fmt.Sprintf("p%d", c))[i]))
			}
		}
		return nil
	})
	return ids, out, err
}
