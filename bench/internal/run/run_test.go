package run

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMust: a program that ends on an error leaves no folder.
func TestMust(t *testing.T) {
	if os.Getenv("RUN_FAILS") != "" {
		dir, _ := TempDir("mlc-run-")
		Must(os.WriteFile(dir+"/file", nil, 0o644))
		os.Stdout.WriteString(dir)
		Must(errors.New("it fails"))
	}
	c := exec.Command(os.Args[0], "-test.run=^TestMust$")
	c.Env = append(os.Environ(), "RUN_FAILS=1", "TMPDIR="+t.TempDir())
	out, err := c.Output()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 1 || string(ended.Stderr) != "it fails\n" || !strings.Contains(string(out), "mlc-run-") {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := os.Stat(string(out)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", out, err)
	}
	dir, remove := TempDir("mlc-run-")
	remove()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", dir, err)
	}
}
