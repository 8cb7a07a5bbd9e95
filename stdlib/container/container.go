// Package container runs programs of the user's for the kinds that have one, in the
// container that the executor has made or in place: with limits, their lines passed
// on, and whatever they started ended with them.
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
	"runtime"
	"slices"
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

// drain is how long a pipe is read on that something keeps open after its program
// and the program's group have ended.
const drain = time.Second

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

// Program is what runs.
type Program struct {
	Args []string
	Dir  string
	Env  []string // all of it
	// Name is what faults call it, and Field the argument that they are about.
	Name, Field string
}

// Command is a command of the user's as a program: in the folder of its code, with
// the container's environment.
func Command(w kind.Work, args []string) Program {
	p := Program{Args: args, Dir: w.Code, Env: environment(os.Environ()), Name: args[0], Field: "command"}
	if p.Dir == "" {
		p.Dir = w.Dir
	}
	return p
}

// Call calls a command of the user's.
func Call(ctx context.Context, w kind.Work, command []string, schema any, files map[string]string) (out string, err error) {
	return Command(w, command).Call(ctx, w, schema, files)
}

// Call runs a program that in MLC_IN finds schema.json and files, by name the paths
// that they are at; what it leaves is in the folder out. The error is that of Run.
func (p Program) Call(ctx context.Context, w kind.Work, schema any, files map[string]string) (out string, err error) {
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
	p.Env = append(slices.Clone(p.Env), "MLC_IN="+in, "MLC_OUT="+out)
	return out, p.Run(ctx, w)
}

// Run runs the program to its end, within w.Memory, and hands its lines to w.Log. A
// failure of the program is a kind.Faults about Field or resources.memory. When ctx
// is done, or mlc dies, so does the program with its whole process group.
func (p Program) Run(ctx context.Context, w kind.Work) error {
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Dir, cmd.Env = p.Dir, p.Env
	cmd.SysProcAttr = attributes()
	// The system takes the end of the thread that started it for that of mlc.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
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
		return p.notStarted(err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var over atomic.Int64
	var last []string
	done := make(chan struct{})
	var watching, reading sync.WaitGroup
	watching.Add(1)
	go func() {
		defer watching.Done()
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
	reading.Add(1)
	go func() {
		defer reading.Done()
		last = pass(r, w.Log)
	}()
	err = cmd.Wait()
	close(done)
	watching.Wait()
	kill() // what it left behind
	// What left its group can hold the pipe open for ever.
	if err := r.SetReadDeadline(time.Now().Add(drain)); err != nil {
		return err
	}
	reading.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if used := over.Load(); used > 0 {
		return kind.Faults{{Field: "resources.memory", Code: diag.OutOfMemory, What: fmt.Sprintf("the %s took %s of memory, its limit is %s", p.Field, types.FormatSize(used), types.FormatSize(w.Memory)),
			Why: "it was stopped, so that its runner lives on", Mend: "raise resources.memory, or make it take less"}}
	}
	return p.ended(err, last)
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

func (p Program) notStarted(err error) error {
	what := fmt.Sprintf("the %s cannot be started: %v", p.Field, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		what = fmt.Sprintf("there is no program %q in the container", p.Name)
	}
	return kind.Faults{{Field: p.Field, Code: diag.CommandFailed, What: what, Why: "nothing could run", Mend: "name a program that the image has, by its path or on its PATH; code is mounted where the command starts"}}
}

// ended is the fault of a program that failed, or nil.
func (p Program) ended(err error, lines []string) error {
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	f := kind.Fault{Field: p.Field, Code: diag.CommandFailed, What: fmt.Sprintf("%s ended with %v", p.Name, err), Mend: "mend the " + p.Field + "; what is finished stays finished"}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		f.What = fmt.Sprintf("%s was killed by signal %s", p.Name, s.Signal())
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
