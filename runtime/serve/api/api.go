// Package api is what the protocols of a service see of its models: the typed API
// and the Open Inference Protocol, over HTTP and gRPC, are written against it and
// know nothing of batching, traffic or reloading.
package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
)

// Models are the models of a server. It is safe for concurrent use.
type Models interface {
	// Index lists every version that is known, ready or not, in order of names and
	// versions.
	Index() []Entry
	// Model finds a model by name; version "" is the one that serves. The error is
	// an *Error of kind NotFound or Unavailable.
	Model(name, version string) (Model, error)
	// Load makes a model ready, or reads it anew; Unload takes it out of service
	// once what it is at work on is answered. Errors are *Error.
	Load(ctx context.Context, name string) error
	Unload(ctx context.Context, name string) error
	// Ready reports whether every model that should serve does, and the server is
	// not draining.
	Ready() bool
	// Refused is told of a request that failed before a model was asked, with the kind of
	// what it was answered; protocol is as in Call.
	Refused(protocol string, kind Kind)
}

// Entry is a line of the index.
type Entry struct {
	Name    string
	Version string
	Ready   bool
	// Reason says why it is not ready.
	Reason string
}

// Model is one version of a model, or what stands for it: with a split or steps
// behind it, one call may be answered by another version.
type Model interface {
	Name() string
	Version() string
	Inputs() []ort.Info
	Outputs() []ort.Info
	// Signature is that of a bundle of mlc's, or nil for any other ONNX model.
	Signature() *bundle.Signature
	Limits() Limits
	Stats() Stats
	// Busy is the *Error, of kind Unavailable, that a call would get now, or nil: what
	// it brings need not be read then.
	Busy(protocol string) error
	// Infer answers a call. Values are in the order of Inputs and Outputs. After
	// ctx is done the run is ended and the error is an *Error of kind Timeout or
	// Cancelled. Every error is an *Error.
	Infer(ctx context.Context, c Call) (Answer, error)
}

// Limits are how a model batches.
type Limits struct {
	// MaxRows is the most rows of a batch; 0: it does not batch.
	MaxRows  int
	MaxDelay time.Duration
	// PerCall is the most rows of a call, which may take several batches; 0: it says
	// nothing of that.
	PerCall int
}

// Call asks for one inference.
type Call struct {
	// ID is the caller's name of the request, or one made for it.
	ID string
	// Key keeps a caller with one variant of a split; "" is drawn anew each time.
	Key string
	// Names are those of Inputs: a version that was loaded since may have them in
	// another order. Empty: they are in the order of the one that answers.
	Names []string
	// Columns are those by which the caller reads the model's main output, as Columns
	// has them; empty: as they come.
	Columns []string
	// Inputs must not change after Infer has returned either: shadows and logs keep them.
	Inputs []ort.Value
	// Rows is the number of rows, where all inputs have them as their first
	// dimension; 0 where the model does not batch.
	Rows int
	// Protocol is typed, http or grpc.
	Protocol string
}

// Answer is what came out.
type Answer struct {
	Outputs []ort.Value
	// Columns are those of the main output where the version that answered has others than
	// the caller reads it by; else nil.
	Columns []string
	// Model and Version answered; Variant is the branch of a split, or "".
	Model, Version, Variant string
	// Fallback says that the outputs are the declared fallback's, Cause why.
	Fallback bool
	Cause    *Error
	// Threshold is the least probability, or score, that the version which answered
	// decides as true; 0: it is not told.
	Threshold float64
	Queue     time.Duration
	Compute   time.Duration
}

// Columns are the names of the columns of a task's main output: its classes, its labels,
// or its quantiles as decimals; none where it has one column and no class.
func Columns(t kind.Task) []string {
	if t.Kind != kind.Quantile {
		return t.Classes
	}
	out := make([]string, len(t.Quantiles))
	for i, q := range t.Quantiles {
		out[i] = strconv.FormatFloat(q, 'f', -1, 64)
	}
	return out
}

// Stats are counted since the model was loaded.
type Stats struct {
	// Inferences counts rows, Executions runs of the model, Success and Failure calls.
	// Compute is of calls that succeeded: the time of a run is that of each call in it, as
	// Triton's clients take it.
	Inferences, Executions uint64
	Success, Failure       Stat
	// Of Failure, Rejected found no room, and Cancelled had no time left or nobody to answer.
	Rejected, Cancelled uint64
	Queue, Compute      Stat
	LastInference       time.Time
	// Batches are by rows in a run.
	Batches map[int]Stat
}

// Stat is a count and the time it took altogether.
type Stat struct {
	Count uint64
	Total time.Duration
}

// Kind says what went wrong, from which each protocol makes its own status.
type Kind int

// The kinds of errors, with HTTP's status for them.
const (
	BadRequest   Kind = 400
	Unauthorized Kind = 401
	NotFound     Kind = 404
	TooLarge     Kind = 413
	Invalid      Kind = 422 // well-formed, and not what the model takes
	Overloaded   Kind = 429 // this caller, by its rate
	Cancelled    Kind = 499 // the caller is gone
	Internal     Kind = 500
	Unsupported  Kind = 501
	Unavailable  Kind = 503 // shed, draining, or not loaded
	Timeout      Kind = 504
)

// Error is why there is no answer. Text is for the caller: it names no path and
// no stack.
type Error struct {
	Kind Kind
	Text string
	// RetryAfter is when to try again, where that is of use.
	RetryAfter time.Duration
	// Err is the cause, for logs only.
	Err error
}

// Error is the text for the caller.
func (e *Error) Error() string { return e.Text }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// KeyOf is the text by which a value keeps a caller with one variant: that of the
// first element; "" where it is missing.
func KeyOf(v ort.Value) string {
	t, ok := v.(ort.Tensor)
	if !ok || ort.Len(t.Data) == 0 {
		return ""
	}
	switch d := t.Data.(type) {
	case []string:
		if d[0] != types.NullString {
			return d[0]
		}
	case []float64:
		if d[0] == d[0] {
			return strconv.FormatFloat(d[0], 'f', -1, 64)
		}
	case []float32:
		if d[0] == d[0] {
			return strconv.FormatFloat(float64(d[0]), 'f', -1, 32)
		}
	case []int64:
		return strconv.FormatInt(d[0], 10)
	case []bool:
		return strconv.FormatBool(d[0])
	}
	return ""
}

// Errorf makes an Error.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// From is err as an Error: its own, the context's, or an internal one whose text
// tells nothing.
func From(err error) *Error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: Timeout, Text: "no answer within the deadline", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Kind: Cancelled, Text: "the caller is gone", Err: err}
	}
	return &Error{Kind: Internal, Text: "internal error", Err: err}
}
