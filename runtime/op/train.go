package op

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/table"
)

// modelTrain makes the matrix by the transform's graph and hands it to the
// trainer: training rows to learn from, validation rows to stop by. The
// trainer's own predictions of the test rows are kept, to prove the package by.
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
		x, err := m.matrix(ctx, s, t, p, of)
		if err != nil {
			return kind.Examples{}, err
		}
		_, y, err := labels(ctx, s, p, of)
		return kind.Examples{X: x, Y: y}, err
	}
	job := kind.TrainJob{Task: meta.Task, Args: a.Args, Seed: a.Seed, Threads: s.Limits.CPU, Names: t.Columns, Files: s.files(),
		Progress: func(done, total int, note string) { s.Progress(int64(done), int64(total), "rounds", note) }}
	work, clean, err := s.work()
	if err != nil {
		return err
	}
	defer clean()
	job.Work = work
	if job.Train, err = examples(kind.Train); err != nil {
		return err
	}
	if job.Valid, err = examples(kind.Valid); err != nil {
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
	test, err := m.matrix(ctx, s, t, p, kind.Test)
	if err != nil {
		return err
	}
	ids, _, err := labels(ctx, s, p, kind.Test)
	if err != nil {
		return err
	}
	return writePredictions(s.Out("heldout", "predictions.parquet"), ids, nil, res.Predict(test), meta.Task.Width())
}

// writePredictions writes row ids, labels (unless nil) and predictions p0, p1, …
func writePredictions(path string, ids []int64, y []float64, p []float32, width int) error {
	cols := []table.Column{{Name: colRow, Data: ids}}
	if y != nil {
		cols = append(cols, table.Column{Name: "label", Data: y})
	}
	for c := range width {
		col := make([]float32, len(ids))
		for i := range col {
			col[i] = p[i*width+c]
		}
		cols = append(cols, table.Column{Name: fmt.Sprintf("p%d", c), Data: col})
	}
	return table.Write(path, cols)
}

// Scores are the metrics of one model, by part of the rows.
type Scores struct {
	Rows    map[string]int                `json:"rows"`
	Metrics map[string]map[string]float64 `json:"metrics"` // part, metric
}

// modelEvaluate predicts the validation and test rows from raw features and
// computes the metrics.
func modelEvaluate(ctx context.Context, s *Stage) error {
	a, err := decode[lower.EvaluateArgs](s)
	if err != nil {
		return err
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	p, err := readParts(ctx, s.In("split", "parts.parquet"))
	if err != nil {
		return err
	}
	t, m, err := fusedInputs(s, meta, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	scores := Scores{map[string]int{}, map[string]map[string]float64{}}
	w := meta.Task.Width()
	for _, of := range []kind.Part{kind.Valid, kind.Test} {
		ids, y, err := labels(ctx, s, p, of)
		if err != nil {
			return err
		}
		name := kind.PartNames[of]
		if scores.Rows[name] = len(ids); len(ids) == 0 {
			continue
		}
		pred := make([]float32, len(ids)*w)
		if err := m.stream(ctx, s, t.Raw, p, of, func(at int, out []any) { copy(pred[at*w:], out[0].([]float32)) }); err != nil {
			return err
		}
		wrong := 0
		for _, v := range pred {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				wrong++
			}
		}
		if wrong > 0 {
			return fault("", diag.BadArgs, "a feature reaches the model missing or infinite, and it cannot take that", `begin the features' encode with {kind: "impute"}, or leave encode out for the default`,
				"%d predictions of the %d %s rows are no numbers", wrong, len(ids), name)
		}
		scores.Metrics[name] = map[string]float64{}
		for i, mn := range a.Metrics {
			metric, ok := s.Kinds.Metrics.Get(mn)
			if !ok {
				return fmt.Errorf("no metric %q", mn)
			}
			v, err := metric.Compute(meta.Task, y, pred)
			if err != nil {
				if of == kind.Valid {
					continue // only the test rows decide
				}
				return fault(fmt.Sprintf("metrics[%d]", i), diag.BadLabel, "", "judge by another metric, or test on other rows", "metric %s of the %d %s rows: %v", mn, len(y), name, err)
			}
			scores.Metrics[name][mn] = v
		}
		if of == kind.Test {
			if err := writePredictions(s.Out("predictions", "predictions.parquet"), ids, y, pred, w); err != nil {
				return err
			}
		}
	}
	s.Report["metrics"], s.Report["rows"] = scores.Metrics, scores.Rows
	return s.writeJSON(s.Out("metrics", "metrics.json"), scores)
}

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
	return db.WriteParquet(ctx, fmt.Sprintf("SELECT COLUMNS(c -> c IN ('%s', '%s', '%s') OR NOT starts_with(c, '_') AND c <> 'label') FROM %s AS d JOIN %s AS p USING (%s) ORDER BY %s",
		colRow, colLabel, colAt, s.rows("dataset"), expr.ReadParquet(s.In("predictions", "predictions.parquet")), colRow, colRow), out)
}

// fusedInputs reads a stage's transform and model and loads them as one.
func fusedInputs(s *Stage, meta Meta, info map[string]string) (Transform, *fusedModel, error) {
	t, err := readJSON[Transform](s.In("transform", "transform.json"))
	if err != nil {
		return t, nil, err
	}
	transform, err := os.ReadFile(s.In("transform", "transform.onnx"))
	if err != nil {
		return t, nil, err
	}
	trained, err := os.ReadFile(s.In("model", "model.onnx"))
	if err != nil {
		return t, nil, err
	}
	b, err := fuse(meta.Task, t, transform, trained, info)
	if err != nil {
		return t, nil, err
	}
	m, err := openModel(b)
	if err != nil {
		return t, nil, err
	}
	return t, &fusedModel{m, b}, nil
}

// fusedModel is a loaded model with its bytes.
type fusedModel struct {
	*model
	bytes []byte
}

// GateResult is what each gate found.
type GateResult struct {
	Passed bool          `json:"passed"`
	Gates  []GateOutcome `json:"gates"`
}

// GateOutcome is one gate with the values that it compared.
type GateOutcome struct {
	lower.Gate
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	// Over is how much better than the baseline the value is, in the metric's
	// own direction.
	Over   float64 `json:"over"`
	Passed bool    `json:"passed"`
}

// modelGate compares the test metrics with the spec's demands. A gate that is
// missed fails the step, so that nothing is packaged.
func modelGate(_ context.Context, s *Stage) error {
	a, err := decode[lower.GateArgs](s)
	if err != nil {
		return err
	}
	ours, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return err
	}
	base, err := readJSON[Scores](s.In("baseline", "metrics.json"))
	if err != nil {
		return err
	}
	test := kind.PartNames[kind.Test]
	res := GateResult{Passed: true, Gates: []GateOutcome{}}
	var faults executor.Faults
	for i, g := range a.Gates {
		o := GateOutcome{Gate: g, Value: ours.Metrics[test][g.Metric], Baseline: base.Metrics[test][g.Metric], Passed: true}
		o.Over = (o.Value - o.Baseline) * float64(g.Better)
		miss := func(what string, args ...any) {
			o.Passed, res.Passed = false, false
			faults = append(faults, executor.Fault{Arg: fmt.Sprintf("gates[%d]", i), Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.GateFailed,
				What: fmt.Sprintf("gate %s of %s: ", g.Metric, strings.TrimPrefix(s.ID, lower.OpGate+" ")) + fmt.Sprintf(what, args...), Why: fmt.Sprintf("measured on the %d test rows; the model is not registered", ours.Rows[test]), Mend: "improve the model, or lower what is asked"}})
		}
		if g.Min != nil && !(o.Value >= *g.Min) {
			miss("%.4f is below min %v", o.Value, *g.Min)
		}
		if g.Max != nil && !(o.Value <= *g.Max) {
			miss("%.4f is above max %v", o.Value, *g.Max)
		}
		if g.OverBaseline != nil && !(o.Over >= *g.OverBaseline) {
			miss("%.4f is %.4f better than the baseline's %.4f, not %v", o.Value, o.Over, o.Baseline, *g.OverBaseline)
		}
		res.Gates = append(res.Gates, o)
	}
	s.Report["gates"] = res.Gates
	if len(faults) > 0 {
		return faults
	}
	return s.writeJSON(s.Out("result", "gate.json"), res)
}
