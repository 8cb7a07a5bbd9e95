// Package time divides rows by their prediction time.
package time

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

//go:embed time.cue
var source string

// Split is the kind "time".
type Split struct{}

// Name is "time".
func (Split) Name() string { return "time" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #TimeSplit.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "time", Def: "#TimeSplit", Source: source}
}

type args struct {
	Validation string `json:"validation"`
	Test       string `json:"test"`
}

// Check wants a prediction time.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	a := kind.DecodeArgs[args](raw)
	var faults []kind.Fault
	for field, s := range map[string]string{"validation": a.Validation, "test": a.Test} {
		d, err := types.ParseDuration(s)
		if err != nil {
			faults = append(faults, kind.Fault{Field: field, Code: diag.BadValue, What: err.Error()})
		} else if field == "test" && d == 0 {
			faults = append(faults, kind.Fault{Field: field, Code: diag.BadArgs, What: "a test span of nothing", Mend: "give a span such as 30d"})
		}
	}
	faults = append(faults, Short(a.Validation, info.Late)...)
	if !info.HasTime {
		faults = append(faults, kind.Fault{Code: diag.NotTimed, What: "a time split of a problem without a prediction time",
			Why: "the rows have no order in time", Mend: "name the time column in label.at, or split by random or stratified"})
	}
	return faults
}

// Short is the fault of a validation span that no outcome of its rows outlasts.
func Short(validation string, late int64) []kind.Fault {
	d, err := types.ParseDuration(validation)
	if err != nil || d <= 0 || d.Microseconds() > late {
		return nil
	}
	l := types.FormatDuration(time.Duration(late) * time.Microsecond)
	return []kind.Fault{{Field: "validation", Code: diag.BadArgs, What: fmt.Sprintf("%s of validation, and outcomes are known %s after the prediction time", types.FormatDuration(d), l),
		Why: "rows whose outcome is known only when the test has begun are left out, which would be all of them", Mend: "give a span longer than " + l}}
}

// Validates asks for a span.
func (Split) Validates(raw json.RawMessage) bool {
	return Spans(kind.DecodeArgs[args](raw).Validation)
}

// Spans reports whether a duration is of some length; what is none is for Check to tell.
func Spans(s string) bool {
	d, err := types.ParseDuration(s)
	return err != nil || d > 0
}

// Assign counts back from the newest prediction time.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	if len(job.Time) == 0 {
		return []kind.Part{}, nil
	}
	return Cut(job, slices.Max(job.Time), Micros(a.Test), Micros(a.Validation))
}

// Micros is a duration that Check has seen, in microseconds.
func Micros(s string) int64 {
	d, err := types.ParseDuration(s)
	if err != nil {
		panic(err) // checked by Check
	}
	return d.Microseconds()
}

// Cut divides the rows up to a time, in microseconds: test is the half-open span
// (end - test, end], validation the span before it. A row is purged when its outcome is
// known only after the start of the next part, and when it comes after end. It fails
// where that leaves nothing of the rows to validate.
func Cut(job kind.SplitJob, end, test, validation int64) ([]kind.Part, error) {
	out := make([]kind.Part, len(job.Time))
	testFrom := end - test
	validFrom := testFrom - validation
	late, valid := 0, 0
	for i, t := range job.Time {
		known := job.Known[i]
		switch {
		case t > end:
			out[i] = kind.Purged
		case t > testFrom:
			out[i] = kind.Test
		case t > validFrom && known > testFrom && test > 0:
			out[i] = kind.Purged
			late++
		case t > validFrom:
			out[i] = kind.Valid
			valid++
		case known > validFrom && test+validation > 0:
			out[i] = kind.Purged
		}
	}
	if late > 0 && valid == 0 {
		return nil, kind.Faults{{Field: "validation", Code: diag.EmptySplit, What: fmt.Sprintf("no row is left to validate: the outcomes of all %d are known only when the test has begun", late),
			Why: "what is decided by them would know the test's time", Mend: "lengthen validation beyond the time until outcomes are known"}}
	}
	return out, nil
}
