// Package executor is the contract between the scheduler and what runs a step,
// and the stage contract: the folder that a step runs in.
//
// A stage is a folder with stage.json, in/<name>/ and out/<name>/. The command
// reads and writes nothing else of the system. It tells progress as events, a
// JSON object a line, on standard output; leaves report.json (counts, metrics,
// warnings) and, when it fails by a fault of the user's, faults.json.
package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
)

// Job asks for one step to be run.
type Job struct {
	Step *plan.Step
	// Inputs are parallel to Step.Inputs: a tree, or files by absolute path.
	Inputs []Bound
	// Image is the image of Step.Container by digest, where it names one.
	Image string
	// Dir is an empty folder for the executor's own use.
	Dir string
	// OnEvent is told of progress; it may be called from another goroutine.
	OnEvent func(Event)
}

// Bound is the content of an input.
type Bound struct {
	Tree  plan.Digest
	Files []string
}

// Event is what a running stage tells.
type Event struct {
	// Total is 0 where it is unknown.
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit,omitempty"` // rows, rounds
	Note  string `json:"note,omitempty"`
	// Log is a line that a command of the user's wrote.
	Log string `json:"log,omitempty"`
}

// Result is what a step made: a tree for each output, and its report.
type Result struct {
	Outputs map[string]plan.Digest
	Report  json.RawMessage
}

// Executor runs steps. Run may be called concurrently. A fault of the user's is
// returned as Faults, one of the machinery around the step as Unavailable; other
// errors are the step's own. After ctx is done, Run stops what it started and
// returns the context's error.
type Executor interface {
	Run(ctx context.Context, job Job) (Result, error)
	// Close frees what the executor holds; no Run is at work then.
	Close() error
}

// Unavailable says that not the step failed but what was to run it: the step can
// be tried again, or elsewhere.
type Unavailable struct {
	// Code is the diagnostic's; the zero value is diag.EngineFailed.
	Code diag.Code
	What string
	Mend string
	// Lasting: to try the same again is of no use.
	Lasting bool
}

// Error is the text without the mending.
func (u Unavailable) Error() string { return u.What }

// Stage is stage.json.
type Stage struct {
	Format  string          `json:"format"`
	ID      string          `json:"id"`
	Op      string          `json:"op"`
	Args    json.RawMessage `json:"args"`
	Inputs  []StageInput    `json:"inputs"`
	Outputs []string        `json:"outputs"`
	Limits  plan.Needs      `json:"limits"`
}

// StageInput is one input: in/<Name>/ holds the files of its tree; or, where Files
// is not empty, in/<Name>/0, 1, … the files in order; or, where Root is set too,
// the files by their names below that folder.
type StageInput struct {
	Name   string      `json:"name"`
	Digest plan.Digest `json:"digest,omitempty"` // of the tree
	Files  []string    `json:"files,omitempty"`  // what users call them
	Root   string      `json:"root,omitempty"`   // what users call it
}

// StageFormat is the version of the stage contract.
const StageFormat = "mlc.stage.v1"

// NewStage is the stage.json of a job.
func NewStage(job Job) Stage {
	s := Stage{Format: StageFormat, ID: job.Step.ID, Op: job.Step.Op, Args: job.Step.Args, Outputs: job.Step.Outputs, Limits: job.Step.Needs, Inputs: []StageInput{}}
	for i, in := range job.Step.Inputs {
		if in.Name != plan.ArchiveInput {
			s.Inputs = append(s.Inputs, StageInput{Name: in.Name, Digest: job.Inputs[i].Tree, Files: in.Files, Root: in.Root})
		}
	}
	return s
}

// Folder is the path of an input's folder within the stage's: names such as
// "source:calls" keep to letters.
func Folder(input string) string { return filepath.Join("in", strings.ReplaceAll(input, ":", "_")) }

// Names are the paths of a job's i-th input's files below the input's folder.
func Names(in plan.Input) ([]string, error) {
	out := make([]string, len(in.Files))
	for k, f := range in.Files {
		out[k] = strconv.Itoa(k)
		if in.Root != "" {
			rel, err := filepath.Rel(in.Root, f)
			if err != nil || !filepath.IsLocal(rel) {
				return nil, fmt.Errorf("%s is not below %s", f, in.Root)
			}
			out[k] = rel
		}
	}
	return out, nil
}

// Failure is the error of a stage that ended badly: its faults, the content of
// faults.json, where it left them, else why with the last lines that it wrote.
func Failure(why string, log string, faults []byte) error {
	var f Faults
	if json.Unmarshal(faults, &f) == nil && len(f) > 0 {
		return f
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if n := len(lines); n > 8 {
		lines = lines[n-8:]
	}
	if text := strings.Join(lines, "\n"); text != "" {
		why += ": " + text
	}
	return errors.New(why)
}

// Killed is why a stage ended that a signal killed.
func Killed(signal string, kill bool) string {
	why := "killed by signal " + signal
	if kill {
		why += " (out of memory, or by hand)"
	}
	return why
}

// Fault is a mistake of the user's, found while running. Arg names the field of
// the step's arguments that it is about, as in "columns[3]", or is empty.
type Fault struct {
	diag.Diagnostic
	Arg string `json:"arg,omitempty"`
}

// Faults is a list of them as an error.
type Faults []Fault

// Error joins the texts.
func (f Faults) Error() string {
	var l diag.ListError
	for _, x := range f {
		l = append(l, x.Diagnostic)
	}
	return l.Error()
}

// Secrets are the values that a step's command is given, by variable. An error is Faults.
func Secrets(step *plan.Step, value func(ref string) (string, error)) (map[string]string, error) {
	out := map[string]string{}
	if step.Container == nil {
		return out, nil
	}
	var faults Faults
	for _, name := range slices.Sorted(maps.Keys(step.Container.Secrets)) {
		v, err := value(step.Container.Secrets[name])
		if err != nil {
			faults = append(faults, Fault{Arg: "secrets." + name, Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.NoSecret, What: fmt.Sprintf("secret %s: %v", name, err),
				Why: "the command would run without it", Mend: "set it where mlc apply runs"}})
		}
		out[name] = v
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return out, nil
}
