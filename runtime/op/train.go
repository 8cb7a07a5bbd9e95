package op

import (
	"context"
	"fmt"
	"os"
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
	examples := func(of kind.Part) (kind.Examples, error) {
		var x kind.Matrix
		var err error
		if t.Folded && of == kind.Train {
			x, err = folded(ctx, s, t, p, meta.Task)
		} else {
			x, err = m.matrix(ctx, s, t, p, of)
		}
		if err != nil {
			return kind.Examples{}, err
		}
		known, err := labels(ctx, s, meta.Task, p, of)
		return kind.Examples{X: x, Y: known.y}, err
	}
	job := kind.TrainJob{Task: meta.Task, Args: a.Args, Seed: a.Seed, Threads: s.Limits.CPU, Names: t.Columns, Files: s.files(),
		Progress: func(done, total int, note string) { s.Progress(int64(done), int64(total), "rounds", note) }}
	work, clean, err := s.work()
	if err != nil {
		return err
	}
	defer clean()
	job.Work = work
	learns := kind.Train
	if _, ok := k.(kind.Ensemble); ok {
		learns = kind.Valid
	} else if job.Valid, err = examples(kind.Valid); err != nil {
		return err
	}
	if job.Train, err = examples(learns); err != nil {
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
	known, err := labels(ctx, s, meta.Task, p, p.proof())
	if err != nil {
		return err
	}
	return writePredictions(s.Out("heldout", "predictions.parquet"), known.ids, nil, res.Predict(test), meta.Task)
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
