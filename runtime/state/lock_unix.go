//go:build unix

package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mlc.dev/mlc/compiler/diag"
)

// Acquire makes this process the only one that applies to the state. The context
// that it returns ends, with the cause, when that is no longer so. Of a file, the
// system frees the lock when this process ends, however it ends; of a database,
// the lease ends by itself.
func (d *DB) Acquire(ctx context.Context) (held context.Context, release func(), err error) {
	host, _ := os.Hostname()
	owner := fmt.Sprintf("process %d on %s", os.Getpid(), host)
	if d.postgres {
		return d.acquireLease(ctx, owner)
	}
	release, err = lockFile(d.path+".lock", owner)
	return ctx, release, err
}

// Busy reports whether an apply is at work over this state.
func (d *DB) Busy() (bool, error) {
	if d.postgres {
		return d.leased()
	}
	f, err := os.Open(d.path + ".lock")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// lockFile takes the one lock of a file.
func lockFile(path, owner string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		other := make([]byte, 200)
		n, _ := f.Read(other)
		f.Close()
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.Locked, What: fmt.Sprintf("another apply is at work here (%s)", strings.TrimSpace(string(other[:n]))),
			Why: "two at once would do the same work twice", Mend: "wait for it, or stop it"}
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprint(f, owner)
	}
	return func() { f.Close() }, nil
}
