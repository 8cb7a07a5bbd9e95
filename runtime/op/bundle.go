package op

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
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
	sig := bundle.Signature{Format: bundle.SignatureFormat, Model: a.Name, Task: meta.Task, Raw: a.Raw, Computed: a.Computed, NullValues: a.Nulls, Delimiter: a.Delimiter, NullString: types.NullString}
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
	for name, path := range map[string]string{"model": s.In("metrics", "metrics.json"), "baseline": s.In("baseline", "metrics.json"), "gate": s.In("gate", "gate.json"), "training": s.In("model", "report.json")} {
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
	for name, v := range map[string]any{bundle.SignatureFile: sig, "lineage.json": lin, "metrics.json": metrics, "profile.json": profiles, "transform.json": t, "dataset.json": meta} {
		if err := s.writeJSON(s.Out("bundle", name), v); err != nil {
			return err
		}
	}
	card, err := s.card(a, meta, t, sig)
	if err != nil {
		return err
	}
	return os.WriteFile(s.Out("bundle", "card.md"), []byte(card), 0o644)
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

// prove predicts every test row with the fused model, from raw features, and
// compares with what the trainer predicted from its matrix.
func prove(ctx context.Context, s *Stage, meta Meta, t Transform, m *fusedModel) (rows int, worst float64, err error) {
	p, err := readParts(ctx, s.In("split", "parts.parquet"))
	if err != nil {
		return 0, 0, err
	}
	w := meta.Task.Width()
	rows = p.count(kind.Test)
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
	err = m.stream(ctx, s, t.Raw, p, kind.Test, func(at int, out []any) {
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

// card is the model card, in Markdown.
func (s *Stage) card(a lower.PackageArgs, meta Meta, t Transform, sig bundle.Signature) (string, error) {
	ours, err := readJSON[Scores](s.In("metrics", "metrics.json"))
	if err != nil {
		return "", err
	}
	base, err := readJSON[Scores](s.In("baseline", "metrics.json"))
	if err != nil {
		return "", err
	}
	gate, err := readJSON[GateResult](s.In("gate", "gate.json"))
	if err != nil {
		return "", err
	}
	training, err := readJSON[struct {
		Trainer string         `json:"trainer"`
		Rows    int            `json:"rows"`
		Report  map[string]any `json:"report"`
	}](s.In("model", "report.json"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("# Model card: %s\n", a.Name)
	w("- System: %s", a.System)
	if a.Goal != "" {
		w("- Goal: %s", a.Goal)
	}
	if a.Owner != "" {
		w("- Owner: %s", a.Owner)
	}
	w("- Problem: %s, %s; the label is `%s`", a.Problem, a.Task, a.Label)
	if len(meta.Task.Classes) > 0 {
		w("- Classes: %s", strings.Join(meta.Task.Classes, ", "))
	}
	w("- Trainer: `%s`", a.Trainer)
	w("- Split: `%s`", a.Split)
	w("\n## Results\n")
	w("On %d test rows; %d rows trained it. Gates: %s.\n", ours.Rows["test"], training.Rows, map[bool]string{true: "passed", false: "missed"}[gate.Passed])
	w("| metric | test | validation | baseline (test) | gate |")
	w("|---|---|---|---|---|")
	var names []string
	for n := range ours.Metrics["test"] {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		valid := "–"
		if v, ok := ours.Metrics["validation"][n]; ok {
			valid = fmt.Sprintf("%.4f", v)
		}
		var asks []string
		for _, g := range gate.Gates {
			if g.Metric != n {
				continue
			}
			if g.Min != nil {
				asks = append(asks, fmt.Sprintf("≥ %v", *g.Min))
			}
			if g.Max != nil {
				asks = append(asks, fmt.Sprintf("≤ %v", *g.Max))
			}
			if g.OverBaseline != nil {
				asks = append(asks, fmt.Sprintf("baseline + %v", *g.OverBaseline))
			}
		}
		if n == a.Primary {
			n += " (primary)"
		}
		w("| %s | %.4f | %s | %.4f | %s |", n, ours.Metrics["test"][strings.TrimSuffix(n, " (primary)")], valid, base.Metrics["test"][strings.TrimSuffix(n, " (primary)")], strings.Join(asks, ", "))
	}
	w("\n## Inputs\n")
	w("| feature | column | type | sensitive |")
	w("|---|---|---|---|")
	for _, f := range sig.Raw {
		sensitive := ""
		if f.Sensitive {
			sensitive = "yes"
		}
		w("| %s | %s | %s | %s |", f.Name, f.Column, f.Type, sensitive)
	}
	if len(a.Sensitive) > 0 {
		w("\nSensitive features are used because:\n")
		var fs []string
		for f := range a.Sensitive {
			fs = append(fs, f)
		}
		sort.Strings(fs)
		for _, f := range fs {
			w("- %s: %s", f, a.Sensitive[f])
		}
	}
	if len(a.Derived) > 0 {
		w("\nComputed from these:\n")
		for _, d := range a.Derived {
			w("- %s = `%s`", d.Name, d.Expr)
		}
	}
	w("\nThe matrix has %d columns.", len(t.Columns))
	if imp, ok := training.Report["importance"].(map[string]any); ok {
		type item struct {
			name string
			gain float64
		}
		var items []item
		for n, v := range imp {
			if f, ok := v.(float64); ok && f > 0 {
				items = append(items, item{n, f})
			}
		}
		sort.Slice(items, func(i, j int) bool {
			return items[i].gain > items[j].gain || items[i].gain == items[j].gain && items[i].name < items[j].name
		})
		w("\n## What it looks at\n")
		w("| column | share of gain |")
		w("|---|---|")
		for _, i := range items[:min(15, len(items))] {
			w("| %s | %.1f%% |", i.name, 100*i.gain)
		}
	}
	w("\n## Data\n")
	w("%d labelled rows.", meta.Rows)
	var reasons []string
	for r := range meta.Dropped {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	for _, r := range reasons {
		w("%d rows were left out: %s.", meta.Dropped[r], r)
	}
	for _, j := range meta.Joins {
		w("- %s joined %s: %d present, %d not found, %d expired", j.Group, j.Input, j.Present, j.NotFound, j.Expired)
	}
	var srcs []string
	for n := range meta.Sources {
		srcs = append(srcs, n)
	}
	sort.Strings(srcs)
	for _, n := range srcs {
		p, err := readJSON[struct{ Rows, Quarantined int64 }](s.In("profile:"+n, "profile.json"))
		if err != nil {
			return "", err
		}
		w("- source %s: %d rows, %d set aside, `%s`", n, p.Rows, p.Quarantined, meta.Sources[n])
	}
	w("\nThe fused model was proved to predict what its trainer does, on every test row (worst difference %.2g).", s.Report["worst_difference"])
	return b.String(), nil
}
