package serving

import (
	"strings"
	"testing"
	"time"

	"mlc.dev/mlc/runtime/serve"
)

// TestFlagsThatCannotBeMeant are told all at once, before anything is opened.
func TestFlagsThatCannotBeMeant(t *testing.T) {
	for _, c := range []struct {
		f    Flags
		want []string
	}{
		{Flags{Endpoints: serve.Endpoints{HTTP: "127.0.0.1:8000", GRPC: "127.0.0.1:8001", DrainDelay: time.Second}}, nil},
		{Flags{Endpoints: serve.Endpoints{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Metrics: "127.0.0.1:0"}}, nil},
		{Flags{Endpoints: serve.Endpoints{GRPC: ":8001"}}, nil},
		{Flags{Endpoints: serve.Endpoints{Metrics: ":8002", Debug: ":8002", DrainDelay: -time.Second}}, []string{"--drain-delay is -1s", "neither --http nor --grpc", "--metrics and --debug are both :8002"}},
	} {
		err := c.f.check()
		if err == nil && c.want == nil {
			continue
		}
		if err == nil || c.want == nil {
			t.Errorf("%+v: %v", c.f, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v lacks %q", err, w)
			}
		}
	}
}
