// Package container runs a command of the user's for the kinds that have one, in
// the container that the executor has made: with limits, its lines passed on, and
// whatever it started ended with it.
package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
)

// watch is how often the memory is looked at.
const watch = 200 * time.Millisecond

// lastLines is how much of what the command wrote a failure repeats.
const lastLines = 12

// Kind is what the kinds of the name "container" have in common.
type Kind struct{}

// Name is "container".
func (Kind) Name() string { return "container" }

// Command is what the arguments say of the container.
func (Kind) Command(args json.RawMessage) kind.Command { return kind.DecodeArgs[kind.Command](args) }

// Args are the arguments of such a kind that are not about the container.
type Args struct {
	Command []string        `json:"command"`
	Params  json.RawMessage `json:"params"`
}

// Call runs a command of the user's: in MLC_IN it finds schema.json and files, by
// name the paths that they are at, and what it leaves is in the folder out. A
// failure of the command is a kind.Faults about the field command or
// resources.memory.
func Call(ctx context.Context, w kind.Work, command []string, schema any, files map[string]string) (out string, err error) {
	in, out := filepath.Join(w.Dir, "in"), filepath.Join(w.Dir, "out")
	for _, dir := range []string{in, out} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return "", err
		}
	}
	b, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(in, "schema.json"), b, 0o644); err != nil {
		return "", err
	}
	for name, path := range files {
		if err := os.Symlink(path, filepath.Join(in, name)); err != nil {
			return "", err
		}
	}
	return out, run(ctx, w, command, in, out)
}

// run runs a command to its end, with MLC_IN and MLC_OUT, in the folder of its code.
func run(ctx context.Context, w kind.Work, args []string, in, out string) error {
	cmd := exec.Command(args[0], args[1:]...)
	if cmd.Dir = w.Code; w.Code == "" {
		cmd.Dir = w.Dir
	}
	cmd.Env = append(environment(os.Environ()), "MLC_IN="+in, "MLC_OUT="+out)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Both streams in one, in the order of writing.
	r, lines, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = lines, lines
	err = cmd.Start()
	lines.Close()
	if err != nil {
		return notStarted(args[0], err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var over atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		tick := time.NewTicker(watch)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				kill()
				return
			case <-tick.C:
				if used := resident(cmd.Process.Pid); w.Memory > 0 && used > w.Memory {
					over.Store(used)
					kill()
					return
				}
			}
		}
	}()
	last := pass(r, w.Log)
	err = cmd.Wait()
	close(done)
	wg.Wait()
	kill() // what it left behind
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if used := over.Load(); used > 0 {
		return kind.Faults{{Field: "resources.memory", Code: diag.OutOfMemory, What: fmt.Sprintf("the command took %s of memory, its limit is %s", types.FormatSize(used), types.FormatSize(w.Memory)),
			Why: "it was stopped, so that its runner lives on", Mend: "raise resources.memory, or make it take less"}}
	}
	return ended(args, err, last)
}

// environment leaves out what is between mlc and the executor.
func environment(all []string) []string {
	var out []string
	for _, v := range all {
		if !strings.HasPrefix(v, "MLC_") {
			out = append(out, v)
		}
	}
	return out
}

func notStarted(name string, err error) error {
	what := fmt.Sprintf("the command cannot be started: %v", err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		what = fmt.Sprintf("there is no program %q in the container", name)
	}
	return kind.Faults{{Field: "command", Code: diag.CommandFailed, What: what, Why: "nothing could run", Mend: "name a program that the image has, by its path or on its PATH; code is mounted where the command starts"}}
}

// ended is the fault of a command that failed, or nil.
func ended(args []string, err error, lines []string) error {
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	f := kind.Fault{Field: "command", Code: diag.CommandFailed, What: fmt.Sprintf("%s ended with %v", args[0], err), Mend: "mend the command; what is finished stays finished"}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		f.What = fmt.Sprintf("%s was killed by signal %s", args[0], s.Signal())
		if s.Signal() == syscall.SIGKILL {
			f.Field, f.Code = "resources.memory", diag.OutOfMemory
			f.What += ": the system ran out of memory, or someone killed it"
			f.Mend = "ask for more memory, or place it on a greater runner"
		}
	}
	if len(lines) > 0 {
		f.Why = "its last lines: " + strings.Join(lines, " ⏎ ")
	}
	return kind.Faults{f}
}

// pass hands over the lines of r and returns the last of them.
func pass(r io.Reader, log func(string)) []string {
	var last []string
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, prefix, err := br.ReadLine()
		if err != nil {
			return last
		}
		for prefix && err == nil { // the rest of an overlong line
			_, prefix, err = br.ReadLine()
		}
		text := strings.ToValidUTF8(strings.TrimRight(string(line), "\r"), "�")
		if log != nil {
			log(text)
		}
		if last = append(last, text); len(last) > lastLines {
			last = last[1:]
		}
	}
}
