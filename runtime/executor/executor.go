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

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
)

// Job asks for one step to be run.
type Job struct {
	Step *plan.Step
	// Inputs are parallel to Step.Inputs: a tree, or files by absolute path.
	Inputs []Bound
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
}

// Result is what a step made: a tree for each output, and its report.
type Result struct {
	Outputs map[string]plan.Digest
	Report  json.RawMessage
}

// Executor runs steps. Run may be called concurrently. A fault of the user's is
// returned as Faults; other errors are the machine's. After ctx is done, Run
// stops what it started and returns the context's error.
type Executor interface {
	Run(ctx context.Context, job Job) (Result, error)
}

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

// StageInput is one input: in/<Name>/ holds the files of its tree, or, where
// Files is not empty, in/<Name>/0, 1, … the files in order.
type StageInput struct {
	Name   string      `json:"name"`
	Digest plan.Digest `json:"digest,omitempty"` // of the tree
	Files  []string    `json:"files,omitempty"`  // what users call them
}

// StageFormat is the version of the stage contract.
const StageFormat = "mlc.stage.v1"

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
