//go:build unix

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mlc.dev/mlc/compiler/diag"
)

// lock takes the one lock of a state. The system frees it when this process
// ends, however it ends.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner := make([]byte, 200)
		n, _ := f.Read(owner)
		f.Close()
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.Locked, What: fmt.Sprintf("another apply is at work here (%s)", strings.TrimSpace(string(owner[:n]))),
			Why: "two at once would do the same work twice", Mend: "wait for it, or stop it"}
	}
	if err := f.Truncate(0); err == nil {
		host, _ := os.Hostname()
		fmt.Fprintf(f, "process %d on %s", os.Getpid(), host)
	}
	return func() { f.Close() }, nil
}
