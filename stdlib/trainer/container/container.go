// Package container is a trainer of the user's own: a command in a container that
// gets tables and leaves an ONNX model.
package container

import (
	"context"
	_ "embed"
	"encoding/json"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	"mlc.dev/mlc/stdlib/trainer/linear"
)

//go:embed container.cue
var source string

// Trainer is the kind "container".
type Trainer struct{ container.Kind }

var _ kind.Commanded = Trainer{}

// Version of the contract with the command.
func (Trainer) Version() int { return 1 }

// Schema is #ContainerTrainer.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "container", Def: "#ContainerTrainer", Source: source}
}

// Check has nothing to add to what the compiler checks of every command.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults are those of linear: most libraries take no missing values and no texts.
func (Trainer) Defaults(t types.Type) []json.RawMessage { return linear.Trainer{}.Defaults(t) }

// Features is true.
func (Trainer) Features() bool { return true }

// Train runs the command under the Contract.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	a := kind.DecodeArgs[container.Args](job.Args)
	c := Contract{Kind: "container", Field: "command", Def: "#ContainerTrainer", Params: a.Params}
	res, err := c.Train(ctx, job, container.Command(job.Work, a.Command))
	if err == nil {
		res.Report["command"] = a.Command
	}
	return res, err
}
