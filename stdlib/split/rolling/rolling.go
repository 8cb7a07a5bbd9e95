// Package rolling is cross-validation by a rolling origin (Tashman 2000,
// "Out-of-sample tests of forecasting accuracy").
package rolling

import (
	"context"
	_ "embed"
	"encoding/json"
	"maps"
	"math"
	"slices"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/split/time"
)

//go:embed rolling.cue
var source string

// Split is the kind "rolling".
type Split struct{}

var _ kind.Folded = Split{}

// Name is "rolling".
func (Split) Name() string { return "rolling" }

// Version of the implementation.
func (Split) Version() int { return 1 }

// Schema is #Rolling.
func (Split) Schema() schema.Kind {
	return schema.Kind{Family: "split", Name: "rolling", Def: "#Rolling", Source: source}
}

type args struct {
	Folds      int    `json:"folds"`
	Test       string `json:"test"`
	Validation string `json:"validation"`
	Train      string `json:"train"`
}

// Folds is the number of folds.
func (Split) Folds(raw json.RawMessage) int { return kind.DecodeArgs[args](raw).Folds }

// Check wants a prediction time, and spans of some length.
func (Split) Check(raw json.RawMessage, info kind.SplitInfo) []kind.Fault {
	a := kind.DecodeArgs[args](raw)
	var faults []kind.Fault
	spans := map[string]string{"test": a.Test, "validation": a.Validation}
	if a.Train != "" {
		spans["train"] = a.Train
	}
	for _, field := range slices.Sorted(maps.Keys(spans)) {
		d, err := types.ParseDuration(spans[field])
		if err != nil {
			faults = append(faults, kind.Fault{Field: field, Code: diag.BadValue, What: err.Error()})
		} else if d == 0 && field != "validation" {
			faults = append(faults, kind.Fault{Field: field, Code: diag.BadArgs, What: "a " + field + " span of nothing", Mend: "give a span such as 30d"})
		}
	}
	faults = append(faults, time.Short(a.Validation, info.Late)...)
	if !info.HasTime {
		faults = append(faults, kind.Fault{Code: diag.NotTimed, What: "a rolling split of a problem without a prediction time",
			Why: "the rows have no order in time", Mend: "name the time column in label.at, or split by kfold"})
	}
	return faults
}

// Validates asks for a span.
func (Split) Validates(raw json.RawMessage) bool {
	return time.Spans(kind.DecodeArgs[args](raw).Validation)
}

// Assign keeps the newest span for validation.
func (Split) Assign(_ context.Context, job kind.SplitJob) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	if len(job.Time) == 0 {
		return []kind.Part{}, nil
	}
	parts, err := time.Cut(job, slices.Max(job.Time), 0, time.Micros(a.Validation))
	return a.recent(job, parts), err
}

// AssignFold tests the fold's span. What comes after it takes no part.
func (Split) AssignFold(_ context.Context, job kind.SplitJob, fold int) ([]kind.Part, error) {
	a := kind.DecodeArgs[args](job.Args)
	if len(job.Time) == 0 {
		return []kind.Part{}, nil
	}
	test := time.Micros(a.Test)
	end := slices.Max(job.Time) - int64(a.Folds-1-fold)*test
	parts, err := time.Cut(job, end, test, time.Micros(a.Validation))
	return a.recent(job, parts), err
}

// recent purges training rows that are older than training goes back.
func (a args) recent(job kind.SplitJob, parts []kind.Part) []kind.Part {
	if a.Train == "" {
		return parts
	}
	newest := int64(math.MinInt64)
	for i, p := range parts {
		if p == kind.Train {
			newest = max(newest, job.Time[i])
		}
	}
	for i, p := range parts {
		if p == kind.Train && job.Time[i] <= newest-time.Micros(a.Train) {
			parts[i] = kind.Purged
		}
	}
	return parts
}
