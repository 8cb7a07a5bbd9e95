package env_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler/env"
)

// TestDocs reads the environment that docs/environments.md shows.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/environments.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```hcl\n")
	src, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no block of HCL")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docs.mlc.hcl"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	e, list := env.Load(dir, "docs", nil)
	if list.HasErrors() {
		t.Fatal(list.Err())
	}
	r := e.Runners[1]
	if r.Kind != env.DaggerKind || r.GPUs != 1 || r.Concurrency != 8 || r.Labels["zone"] != "a" || !strings.HasPrefix(e.State, "postgres://") || !strings.HasPrefix(e.Artifacts, "s3://") {
		t.Errorf("%+v", e)
	}
}
