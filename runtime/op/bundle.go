package op

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/table"
)

// Lineage tells what a bundle was made of. Everything in it follows from what the
// step's key digests, so equal lineages mean equal bundles.
type Lineage struct {
	Format string            `json:"format"`
	System string            `json:"system"`
	Model  string            `json:"model"`
	Spec   plan.Digest       `json:"spec"` // of the model's steps
	Data   map[string]string `json:"data"` // validated rows by source
	Code   map[string]string `json:"code"` // versions of the operations and kinds, by step
	// Environment is the version of what computed: its digest is in every step's key.
	Environment map[string]string `json:"environment"`
	ONNX        plan.Digest       `json:"model_onnx"`
	Inputs      map[string]string `json:"inputs"` // of the packaging step
}

// modelPackage makes the bundle: the fused model with proof that it predicts
// what the trainer did, and all that must be known to use it.
func modelPackage(ctx context.Context, s *Stage) error {
	a, err := decode[lower.PackageArgs](s)
	if err != nil {
		return err
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	if meta.Origin, err = readJSON[Origin](s.In("origin", "origin.json")); err != nil {
		return err
	}
	t, m, err := fusedInputs(s, meta, map[string]string{"mlc.model": a.Name, "mlc.problem": a.Problem, "mlc.task": a.Task})
	if err != nil {
		return err
	}
	defer m.Close()
	rows, worst, err := prove(ctx, s, meta, t, m)
	if err != nil {
		return err
	}
	s.Report["proved_rows"], s.Report["worst_difference"] = rows, worst
	if err := os.WriteFile(s.Out("bundle", bundle.ModelFile), m.bytes, 0o644); err != nil {
		return err
	}
	v, err := s.verdict()
	if err != nil {
		return err
	}
	task := meta.Task
	task.Threshold = v.ours.Threshold
	sig := bundle.Signature{Format: bundle.SignatureFormat, Model: a.Name, Task: task, Raw: a.Raw, Computed: a.Computed, NullValues: a.Nulls, Delimiter: a.Delimiter, Encoding: a.Encoding, NullString: types.NullString}
	declared := map[string]types.Type{}
	for _, r := range t.Raw {
		declared[r.Name] = r.Type
	}
	sig.Inputs, sig.Outputs = tensors(m.Inputs(), declared), tensors(m.Outputs(), nil)
	version, err := ort.LibraryVersion()
	if err != nil {
		return err
	}
	lin := Lineage{Format: "mlc.lineage.v1", System: a.System, Model: a.Name, Spec: a.Spec, Data: meta.Sources, ONNX: plan.DigestOf(m.bytes), Inputs: map[string]string{},
		Code: a.Code, Environment: map[string]string{"onnxruntime": version}}
	for _, in := range s.Inputs {
		lin.Inputs[in.Name] = string(in.Digest)
	}
	metrics := map[string]json.RawMessage{}
	for name, path := range map[string]string{"model": s.In("metrics", "metrics.json"), "baseline": s.In("baseline", "metrics.json"), "gate": s.In("gate", lower.GateFile), "training": s.In("model", "report.json")} {
		if metrics[name], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	profiles := map[string]json.RawMessage{}
	for _, in := range s.Inputs {
		if src, ok := strings.CutPrefix(in.Name, "profile:"); ok {
			if profiles[src], err = os.ReadFile(s.In(in.Name, "profile.json")); err != nil {
				return err
			}
		}
	}
	for name, v := range map[string]any{bundle.SignatureFile: sig, "evaluation.json": v.explained, "lineage.json": lin, "metrics.json": metrics, "profile.json": profiles, "transform.json": t, "dataset.json": meta} {
		if err := s.writeJSON(s.Out("bundle", name), v); err != nil {
			return err
		}
	}
	card, err := s.card(a, meta, t, sig, v)
	if err != nil {
		return err
	}
	page, err := s.report(a, meta, sig, v)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(s.Out("bundle", "card.md"), []byte(card), 0o644), os.WriteFile(s.Out("bundle", "report.html"), page, 0o644))
}

func tensors(infos []ort.Info, declared map[string]types.Type) []bundle.Tensor {
	out := make([]bundle.Tensor, len(infos))
	for i, in := range infos {
		w := 1
		if len(in.Shape) == 2 && in.Shape[1] > 0 {
			w = int(in.Shape[1])
		}
		out[i] = bundle.Tensor{Name: in.Name, DType: in.Type, Width: w, Type: declared[in.Name]}
	}
	return out
}

// tolerance is how far the fused model may be from the trainer's own
// predictions, relative to the greatest of 1, the prediction, and the predictions'
// root mean square: the same sum of floats in another order or precision.
const tolerance = 1e-5

// prove predicts every test row (parts.proof) with the fused model, from raw features, and
// compares with what the trainer predicted from its matrix.
func prove(ctx context.Context, s *Stage, meta Meta, t Transform, m *fusedModel) (rows int, worst float64, err error) {
	p, err := readParts(ctx, s.In("split", "parts.parquet"))
	if err != nil {
		return 0, 0, err
	}
	w := meta.Task.Width()
	rows = p.count(p.proof())
	want := make([]float64, rows*w)
	forms := map[string]table.Form{}
	for c := range w {
		forms[fmt.Sprintf("p%d", c)] = table.Floats
	}
	err = table.Read(ctx, s.In("heldout", "predictions.parquet"), forms, func(b table.Batch) error {
		for c := range w {
			for i, v := range b.Floats(fmt.Sprintf("p%d", c)) {
				want[(int(b.Start)+i)*w+c] = v
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	scale := 0.0
	for _, v := range want {
		scale += v * v / float64(len(want))
	}
	scale = math.Max(1, math.Sqrt(scale))
	bad := 0
	err = m.stream(ctx, s, t.Raw, p, p.proof(), func(at int, out []any) {
		for i, v := range out[0].([]float32) {
			d := math.Abs(float64(v) - want[at*w+i])
			if !(d <= tolerance*math.Max(scale, math.Abs(want[at*w+i]))) {
				bad++
			}
			worst = math.Max(worst, d)
		}
	})
	if err == nil && bad > 0 {
		err = diag.Diagnostic{Severity: diag.Error, Code: diag.ProofFailed, What: fmt.Sprintf("the packaged model predicts %d of %d values otherwise than the trainer, by up to %g", bad, rows*w, worst),
			Why: "what is served would not be what was evaluated", Mend: "this is a fault of a kind or of mlc; please report it with the spec"}
	}
	return rows, worst, err
}
