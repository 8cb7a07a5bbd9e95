package oip_test

import (
	"errors"
	"testing"

	"mlc.dev/mlc/runtime/ort/orttest"
	"mlc.dev/mlc/runtime/serve/oip"
	"mlc.dev/mlc/runtime/serve/oip/oiptest"
)

// TestBackend sends the official ONNX cases through the protocol: what comes back is
// what ONNX Runtime has to give, over every transport.
func TestBackend(t *testing.T) {
	cases, err := orttest.Cases()
	if errors.Is(err, orttest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, ms := serve(t, oip.Options{})
	conn, rpc := dial(t, oip.Options{})
	clients := map[string]oiptest.Client{"json": oiptest.JSON(s.URL), "binary": oiptest.Binary(s.URL), "grpc": oiptest.GRPC(conn)}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			m := real(t, c.Name, "1", c.Model, 0)
			ms.models, rpc.models = []*fakeModel{m}, []*fakeModel{m}
			for name, client := range clients {
				got, err := client(t.Context(), about(m), c.Inputs)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if len(got) != len(c.Outputs) {
					t.Errorf("%s: %d outputs, want %d", name, len(got), len(c.Outputs))
				}
				for i := range got {
					if d := orttest.Differs(got[i], c.Outputs[i]); d != "" {
						t.Errorf("%s: output %d: %s", name, i, d)
					}
				}
			}
		})
	}
}
