package container

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
)

// shell is a program of a line of sh.
func shell(t *testing.T, line string) Program {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("SKIPPED: no sh on this machine")
	}
	return Program{Args: []string{sh, "-c", line}, Dir: t.TempDir(), Env: []string{"A=1", "PATH=/usr/bin:/bin"}, Name: "the script", Field: "script"}
}

// TestRun: the program gets its variables and no others, and its lines of both
// streams come in their order.
func TestRun(t *testing.T) {
	var got []string
	w := kind.Work{Log: func(l string) { got = append(got, l) }}
	if err := shell(t, `echo "A is $A, HOME is $HOME"; echo two >&2; printf three`).Run(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if want := []string{"A is 1, HOME is ", "two", "three"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestRunFails: a failure is a fault about the field, with the last lines.
func TestRunFails(t *testing.T) {
	for _, c := range []struct {
		line  string
		field string
		code  diag.Code
		what  string
		why   string
	}{
		{"echo so; exit 3", "script", diag.CommandFailed, "the script ended with exit status 3", "its last lines: so"},
		{"kill -KILL $$", "resources.memory", diag.OutOfMemory, "the script was killed by signal killed", ""},
		{"kill -SEGV $$", "script", diag.CommandFailed, "the script was killed by signal segmentation fault", ""},
	} {
		var faults kind.Faults
		err := shell(t, c.line).Run(t.Context(), kind.Work{})
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != c.field || faults[0].Code != c.code || !strings.HasPrefix(faults[0].What, c.what) || faults[0].Why != c.why {
			t.Errorf("%s: %+v", c.line, err)
		}
	}
	var faults kind.Faults
	if err := (Program{Args: []string{"/nowhere/at/all"}, Name: "it", Field: "python"}).Run(t.Context(), kind.Work{}); !errors.As(err, &faults) || faults[0].Field != "python" {
		t.Errorf("%v", err)
	}
}

// TestRunEnds: what a program started does not keep Run from its end, in its group
// or out of it, and a context that is done ends them all.
func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := shell(t, "sleep 600 & echo on; wait").Run(ctx, kind.Work{Log: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := shell(t, "sleep 600 & exit 0").Run(t.Context(), kind.Work{}); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("SKIPPED in part: no setsid on this machine")
	}
	var pid int
	p := shell(t, "setsid sh -c 'echo $$; echo > on; exec sleep 600' & until [ -e on ]; do :; done")
	if err := p.Run(t.Context(), kind.Work{Log: func(l string) { pid, _ = strconv.Atoi(l) }}); err != nil || pid == 0 {
		t.Errorf("%v, process %d", err, pid)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
