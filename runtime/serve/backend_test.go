package serve_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/ort/orttest"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/serve/oip/oiptest"
)

// TestBackend serves the models of the official ONNX cases, one after the other, and
// asks each over HTTP as JSON and binary, and over gRPC.
func TestBackend(t *testing.T) {
	cases, err := orttest.Cases()
	if errors.Is(err, orttest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	asked := 0
	for _, c := range cases {
		if err := os.WriteFile(path, c.Model, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := serve.Open(t.Context(), serve.Options{Service: service.ForModel("model"), Source: serve.File{Path: path}, Log: slog.New(slog.DiscardHandler), Cores: 1})
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		ctx, stop := context.WithCancel(t.Context())
		opened, done := make(chan serve.Endpoints, 1), make(chan error, 1)
		go func() {
			done <- s.Serve(ctx, serve.Endpoints{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0"}, func(e serve.Endpoints) { opened <- e })
		}()
		at := <-opened
		conn, err := grpc.NewClient(at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Model("model", "")
		if err != nil {
			t.Fatal(err)
		}
		shape := oiptest.Model{Name: "model", Inputs: m.Inputs(), Outputs: m.Outputs()}
		for name, ask := range map[string]oiptest.Client{"JSON": oiptest.JSON("http://" + at.HTTP), "binary": oiptest.Binary("http://" + at.HTTP), "gRPC": oiptest.GRPC(conn)} {
			out, err := ask(ctx, shape, c.Inputs)
			if err != nil {
				t.Errorf("%s: %s: %v", c.Name, name, err)
				continue
			}
			for i := range out {
				if d := orttest.Differs(out[i], c.Outputs[i]); d != "" {
					t.Errorf("%s: %s: output %d: %s", c.Name, name, i, d)
				}
			}
			asked++
		}
		conn.Close()
		stop()
		if err := errors.Join(<-done, s.Close(context.Background())); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	t.Logf("%d cases, %d answers", len(cases), asked)
}
