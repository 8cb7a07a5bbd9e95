// Package local runs a step as a child process of this machine: `mlc stage DIR`.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	if err := e.layout(ctx, job); err != nil {
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
	log := &executor.Tail{Limit: 16 << 10}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return res, fmt.Errorf("starting %s: %w", e.Command[0], err)
	}
	executor.Receive(stdout, job.OnEvent)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		faults, rerr := os.ReadFile(filepath.Join(job.Dir, "faults.json"))
		if rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			return res, rerr
		}
		return res, executor.Failure(ended(err), log.String(), faults)
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

// ended says how the command ended.
func ended(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return executor.Killed(s.Signal().String(), s.Signal() == syscall.SIGKILL)
		}
	}
	return err.Error()
}

// layout writes stage.json and lays out the inputs as links.
func (e *Executor) layout(ctx context.Context, job executor.Job) error {
	for i, in := range job.Step.Inputs {
		dir := filepath.Join(job.Dir, executor.Folder(in.Name))
		b := job.Inputs[i]
		if b.Tree != "" {
			if err := e.Store.Link(ctx, b.Tree, dir); err != nil {
				return err
			}
			continue
		}
		names, err := executor.Names(in)
		if err != nil {
			return err
		}
		for k, f := range b.Files {
			link := filepath.Join(dir, names[k])
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				return err
			}
			if err := os.Symlink(f, link); err != nil {
				return err
			}
		}
	}
	for _, name := range job.Step.Outputs {
		if err := os.MkdirAll(filepath.Join(job.Dir, "out", name), 0o755); err != nil {
			return err
		}
	}
	b, err := json.Marshal(executor.NewStage(job))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(job.Dir, "stage.json"), b, 0o644)
}

// Close has nothing to free.
func (e *Executor) Close() error { return nil }
