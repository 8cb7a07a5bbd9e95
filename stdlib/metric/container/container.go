// Package container is a metric that a command of the user's computes.
package container

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
)

//go:embed container.cue
var source string

// Metric is the kind "container".
type Metric struct{ container.Kind }

var _ kind.Commanded = Metric{}

// Version of the contract with the command.
func (Metric) Version() int { return 1 }

// Schema is #ContainerMetric.
func (Metric) Schema() schema.Kind {
	return schema.Kind{Family: "metric", Name: "container", Def: "#ContainerMetric", Source: source}
}

// Better is what the argument says.
func (Metric) Better(args json.RawMessage) kind.Direction {
	if kind.DecodeArgs[struct{ Better string }](args).Better == "down" {
		return kind.Down
	}
	return kind.Up
}

// predictions is schema.json: what the command finds in MLC_IN.
type predictions struct {
	Format  string          `json:"format"`
	Task    string          `json:"task"`
	Classes []string        `json:"classes,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// Measure runs the command and reads the value that it left.
func (Metric) Measure(ctx context.Context, job kind.MeasureJob) (float64, error) {
	a := kind.DecodeArgs[container.Args](job.Args)
	s := predictions{Format: "mlc.predictions.v1", Task: job.Task.Kind, Classes: job.Task.Classes, Params: a.Params}
	out, err := container.Call(ctx, job.Work, a.Command, s, map[string]string{"rows.parquet": job.Rows})
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(out, "metric.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, bad("the command left no metric.json")
	}
	if err != nil {
		return 0, err
	}
	var m struct {
		Value *float64 `json:"value"`
	}
	// JSON has no NaN and no infinity, so what it reads is a number.
	if err := json.Unmarshal(b, &m); err != nil {
		return 0, bad(fmt.Sprintf("metric.json: %v", err))
	}
	if m.Value == nil {
		return 0, bad(`metric.json has no number "value"`)
	}
	return *m.Value, nil
}

func bad(what string) error {
	return kind.Faults{{Field: "command", Code: diag.BadOutput, What: what, Why: "a metric is one number", Mend: `write {"value": 0.87} to metric.json in the folder that MLC_OUT names`}}
}
