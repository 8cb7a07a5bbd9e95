package op

import (
	"context"
	"fmt"
	"os"

	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/runtime/evaluate"
)

// transformStack makes of an ensemble's models one transform: its matrix is what they
// predict, Task.Width() columns each.
func transformStack(_ context.Context, s *Stage) error {
	a, err := decode[lower.StackArgs](s)
	if err != nil {
		return err
	}
	meta, err := readJSON[Meta](s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	g := onnx.New("stack")
	in := inputs(g, a.Raw)
	t := Transform{Raw: a.Raw, Columns: []string{}, Fitted: []FittedInput{}}
	var blocks []onnx.Value
	for _, name := range a.Members {
		own, err := readJSON[Transform](s.In(name+":transform", "transform.json"))
		if err != nil {
			return err
		}
		transform, err := os.ReadFile(s.In(name+":transform", "transform.onnx"))
		if err != nil {
			return err
		}
		trained, err := os.ReadFile(s.In(name+":model", "model.onnx"))
		if err != nil {
			return err
		}
		y, err := join(g, in, own, transform, trained)
		if err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
		blocks = append(blocks, y)
		t.Fitted = append(t.Fitted, own.Fitted...)
		for _, o := range evaluate.OutputNames(meta.Task) {
			if o != "" {
				o = "=" + o
			}
			t.Columns = append(t.Columns, name+o)
		}
	}
	g.Output("X", g.Concat(blocks...), onnx.Float, -1, int64(len(t.Columns)))
	if err := os.WriteFile(s.Out("transform", "transform.onnx"), g.Marshal(), 0o644); err != nil {
		return err
	}
	return s.writeJSON(s.Out("transform", "transform.json"), t)
}
