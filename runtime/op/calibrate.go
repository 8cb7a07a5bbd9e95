package op

import (
	"context"
	"fmt"
	"os"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
)

// modelCalibrate fits a calibrator on the validation rows' probabilities, and puts it
// behind the model, which is proved before: a steep correction would make much of the
// last bits in which it differs from the trainer. What it predicts of the test rows is
// corrected too, to prove the package by.
func modelCalibrate(ctx context.Context, s *Stage) error {
	a, err := decode[lower.CalibrateArgs](s)
	if err != nil {
		return err
	}
	k, ok := s.Kinds.Calibrators.Get(a.Kind)
	if !ok {
		return fmt.Errorf("no calibrator %q", a.Kind)
	}
	meta, p, t, m, err := s.loaded(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	known, err := labels(ctx, s, meta.Task, p, kind.Valid)
	if err != nil {
		return err
	}
	if len(known.ids) == 0 {
		return fault("args", diag.BadArgs, "a calibration learns from them: the training rows' probabilities are too good, and the test rows judge", "give the split a validation part, or leave calibrate out", "the split has no validation rows")
	}
	pred, err := m.predict(ctx, s, t.Raw, p, kind.Valid, 1)
	if err != nil {
		return err
	}
	if err := finite(pred, len(known.ids), kind.PartNames[kind.Valid]); err != nil {
		return err
	}
	c, err := k.Fit(a.Args, known.y, pred)
	if err != nil {
		return fault("args", diag.BadLabel, fmt.Sprintf("fitted on the %d validation rows", len(known.ids)), "change the split, or leave calibrate out", "calibration %s: %v", a.Kind, err)
	}
	trained, err := os.ReadFile(s.In("model", "model.onnx"))
	if err != nil {
		return err
	}
	// The graph's only input is the matrix: t.Columns is its width.
	g := onnx.New("calibrated")
	out, err := g.Merge(trained, map[string]onnx.Value{"X": g.Input("X", onnx.Float, -1, int64(len(t.Columns)))})
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if out, err = g.Merge(c.Model, map[string]onnx.Value{"P": out["Y"]}); err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	g.Output("Y", out["Y"], onnx.Float, -1, 1)
	if err := os.WriteFile(s.Out("model", "model.onnx"), g.Marshal(), 0o644); err != nil {
		return err
	}
	report, err := readJSON[map[string]any](s.In("model", "report.json"))
	if err != nil {
		return err
	}
	report["calibration"] = c.Report
	s.Report["calibration"], s.Report["rows"] = c.Report, len(known.ids)
	if err := s.writeJSON(s.Out("model", "report.json"), report); err != nil {
		return err
	}
	ids, _, err := readPredictions(ctx, s.In("heldout", "predictions.parquet"), meta.Task, false)
	if err != nil {
		return err
	}
	if _, _, err := prove(ctx, s, meta, t, m); err != nil {
		return err
	}
	heldout, err := m.predict(ctx, s, t.Raw, p, p.proof(), 1)
	if err != nil {
		return err
	}
	for i, v := range heldout {
		heldout[i] = c.Apply(v)
	}
	return writePredictions(s.Out("heldout", "predictions.parquet"), ids, nil, heldout, meta.Task)
}
