// Package run is what the benchmarks share: the binary under test, timing, and
// tables.
package run

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Root is the project's folder; benchmarks run from there.
func Root() string {
	dir, err := os.Getwd()
	Must(err)
	return dir
}

// Must ends the program on an error, and removes its folders.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		folders.Lock()
		defer folders.Unlock()
		for _, dir := range folders.dirs {
			_ = os.RemoveAll(dir) // the error is told, and the system's own cleaning is left
		}
		os.Exit(1)
	}
}

// folders are those of TempDir.
var folders struct {
	sync.Mutex
	dirs []string
}

// TempDir makes a folder for as long as remove is not called and the program does not
// end by Must.
func TempDir(prefix string) (dir string, remove func()) {
	dir, err := os.MkdirTemp("", prefix)
	Must(err)
	folders.Lock()
	defer folders.Unlock()
	folders.dirs = append(folders.dirs, dir)
	return dir, func() { Must(os.RemoveAll(dir)) }
}

// MLC is the built binary.
func MLC() string { return filepath.Join(Root(), "bin", "mlc") }

// Output runs a command and returns its standard output.
func Output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Median times f n times and returns the median.
func Median(n int, f func()) time.Duration {
	ts := make([]time.Duration, n)
	for i := range ts {
		start := time.Now()
		f()
		ts[i] = time.Since(start)
	}
	sort.Slice(ts, func(i, j int) bool { return ts[i] < ts[j] })
	return ts[n/2]
}

// Interleaved times two functions in turns, so that noise falls on both, and
// returns the medians.
func Interleaved(n int, f, g func()) (time.Duration, time.Duration) {
	var a, b []time.Duration
	for range n {
		a = append(a, Median(1, f))
		b = append(b, Median(1, g))
	}
	sort.Slice(a, func(i, j int) bool { return a[i] < a[j] })
	sort.Slice(b, func(i, j int) bool { return b[i] < b[j] })
	return a[n/2], b[n/2]
}

// Resident sums the resident memory of a process and its children, in bytes.
func Resident(pid int) int64 {
	sum := int64(0)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sum = n * int64(os.Getpagesize())
		}
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, c := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(c); err == nil {
				sum += Resident(n)
			}
		}
	}
	return sum
}

// Table prints rows in Markdown.
func Table(rows [][]string) {
	for i, r := range rows {
		fmt.Println("| " + strings.Join(r, " | ") + " |")
		if i == 0 {
			fmt.Println(strings.Repeat("|---", len(r)) + "|")
		}
	}
}

// Commit names what was measured.
func Commit() string {
	out, err := Output(Root(), "git", "describe", "--always", "--dirty")
	if err != nil {
		return "no commit"
	}
	return strings.TrimSpace(out)
}

// Shared is the folder of reference data, and whether it is there.
func Shared() (string, bool) {
	dir := filepath.Join(Root(), "..", "shared", "data")
	_, err := os.Stat(dir)
	return dir, err == nil
}
