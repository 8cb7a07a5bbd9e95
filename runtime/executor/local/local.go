// Package local runs a step as a child process of this machine: `mlc stage DIR`.
package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/executor"
)

// Executor runs steps with Command, to which the stage's folder is appended.
type Executor struct {
	Command []string
	Store   *artifact.Store
}

var _ executor.Executor = (*Executor)(nil)

// grace is how long a stage may take to end after it is told to.
const grace = 5 * time.Second

// Run lays out the stage, runs the command, and moves its outputs into the
// store. The child ends when this process does, however that ends: it watches
// its standard input.
func (e *Executor) Run(ctx context.Context, job executor.Job) (executor.Result, error) {
	var res executor.Result
	if err := e.layout(job); err != nil {
		return res, err
	}
	args := append(append([]string(nil), e.Command[1:]...), job.Dir)
	cmd := exec.CommandContext(ctx, e.Command[0], args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", max(job.Step.Needs.CPU, 1)))
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return res, err
	}
	defer lifeline.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return res, err
	}
	log := &tail{limit: 16 << 10}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return res, fmt.Errorf("starting %s: %w", e.Command[0], err)
	}
	read(stdout, job.OnEvent)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		return res, failure(job, err, log.String())
	}
	res.Outputs = map[string]plan.Digest{}
	for _, name := range job.Step.Outputs {
		d, err := e.Store.Put(ctx, filepath.Join(job.Dir, "out", name))
		if err != nil {
			return res, fmt.Errorf("output %s: %w", name, err)
		}
		res.Outputs[name] = d
	}
	res.Report, err = os.ReadFile(filepath.Join(job.Dir, "report.json"))
	return res, err
}

// failure is the error of a stage that ended badly: its faults where it left
// them, else its status with the last lines that it wrote.
func failure(job executor.Job, err error, log string) error {
	if b, rerr := os.ReadFile(filepath.Join(job.Dir, "faults.json")); rerr == nil {
		var faults executor.Faults
		if json.Unmarshal(b, &faults) == nil && len(faults) > 0 {
			return faults
		}
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if n := len(lines); n > 8 {
		lines = lines[n-8:]
	}
	why := err.Error()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			why = "killed by signal " + s.Signal().String()
			if s.Signal() == syscall.SIGKILL {
				why += " (out of memory, or by hand)"
			}
		}
	}
	if text := strings.Join(lines, "\n"); text != "" {
		why += ": " + text
	}
	return errors.New(why)
}

// layout writes stage.json and lays out the inputs as links.
func (e *Executor) layout(job executor.Job) error {
	s := executor.Stage{Format: executor.StageFormat, ID: job.Step.ID, Op: job.Step.Op, Args: job.Step.Args, Outputs: job.Step.Outputs, Limits: job.Step.Needs, Inputs: []executor.StageInput{}}
	for i, in := range job.Step.Inputs {
		dir := filepath.Join(job.Dir, "in", folder(in.Name))
		b := job.Inputs[i]
		si := executor.StageInput{Name: in.Name, Digest: b.Tree, Files: in.Files}
		if b.Tree != "" {
			if err := e.Store.Link(b.Tree, dir); err != nil {
				return err
			}
		} else {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for k, f := range b.Files {
				if err := os.Symlink(f, filepath.Join(dir, strconv.Itoa(k))); err != nil {
					return err
				}
			}
		}
		s.Inputs = append(s.Inputs, si)
	}
	for _, name := range job.Step.Outputs {
		if err := os.MkdirAll(filepath.Join(job.Dir, "out", name), 0o755); err != nil {
			return err
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(job.Dir, "stage.json"), b, 0o644)
}

// folder is the folder of an input: names such as "source:calls" keep to letters.
func folder(name string) string { return strings.ReplaceAll(name, ":", "_") }

func read(r io.Reader, on func(executor.Event)) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		var e executor.Event
		if json.Unmarshal(sc.Bytes(), &e) == nil && on != nil {
			on(e)
		}
	}
	_, _ = io.Copy(io.Discard, r) // an overlong line must not block the child
}

// tail keeps the last bytes written to it.
type tail struct {
	mu    sync.Mutex
	b     bytes.Buffer
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p)
	if n := t.b.Len() - t.limit; n > 0 {
		t.b.Next(n)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
