package ort_test

import (
	"errors"
	"testing"

	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/ort/orttest"
)

// TestBackend runs the official ONNX cases: every type and form that a model can
// have passes through the binding and back.
func TestBackend(t *testing.T) {
	cases, err := orttest.Cases()
	if errors.Is(err, orttest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		s, err := ort.Open(c.Model)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		out, err := s.RunValues(t.Context(), c.Inputs)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for i := range out {
			if d := orttest.Differs(out[i], c.Outputs[i]); d != "" {
				t.Errorf("%s: output %d: %s", c.Name, i, d)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	t.Logf("%d cases", len(cases))
}
