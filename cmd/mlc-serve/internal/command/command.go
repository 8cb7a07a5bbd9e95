// Package command is the command line of mlc-serve.
package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/cmd/internal/interrupt"
	"mlc.dev/mlc/cmd/internal/serving"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/serve/registry"
	"mlc.dev/mlc/runtime/state"
)

// Main runs the command line and returns the exit status.
func Main(args []string) int {
	ctx, stop := interrupt.Context()
	defer stop()
	c := root()
	c.SetArgs(args)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "mlc-serve: %v\n", err)
		return 1
	}
	return 0
}

func root() *cobra.Command {
	var f serving.Flags
	var states, artifacts, cache string
	c := &cobra.Command{
		Use:   "mlc-serve FOLDER|MODEL_FILE",
		Short: "Serve the models of a folder that mlc build made, or a model's file",
		Long: "Serves a folder that `mlc build` made: a service and its models. With --state and\n" +
			"--artifacts its models come from the registry there, and follow their aliases.\n" +
			"Or serves any ONNX model, or one of LightGBM or XGBoost, by the Open Inference\nProtocol.",
		Args:          cobra.ExactArgs(1),
		Version:       about.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, args []string) error {
			log := f.Logger(os.Stderr)
			svc, src, err := serving.Open(args[0])
			if err != nil {
				return err
			}
			o := serve.Options{Service: svc, Source: src, Log: log, Version: about.Version()}
			if (states == "") != (artifacts == "") {
				return fmt.Errorf("--state and --artifacts go together")
			}
			if states != "" {
				told := func(what string) { log.Warn("retry", "what", what) }
				db, ok, err := state.OpenExisting(c.Context(), state.Options{Location: states, Files: filepath.Join(cache, "files.db"), Told: told})
				if err != nil {
					return err
				}
				if !ok {
					return fmt.Errorf("there is no state at %s", states)
				}
				defer db.Close()
				var store *artifact.Store
				if strings.Contains(artifacts, "://") {
					store, err = artifact.OpenRemote(c.Context(), artifacts, filepath.Join(cache, "artifacts"), told)
				} else {
					store, err = artifact.Open(artifacts)
				}
				if err != nil {
					return err
				}
				defer store.Close()
				o.Source, o.Follow = &registry.Source{State: db, Store: store}, time.Second
			}
			return f.Run(c.Context(), o, func(e serve.Endpoints) {
				log.Info("ready", "http", e.HTTP, "grpc", e.GRPC, "metrics", e.Metrics)
			})
		},
	}
	f.Register(c.Flags(), "")
	c.Flags().StringVar(&states, "state", "", "follow the registry of a state: the `path` of an SQLite file, or a URL of postgres://")
	c.Flags().StringVar(&artifacts, "artifacts", "", "the artifacts that go with it: a `folder`, or a URL of s3://")
	c.Flags().StringVar(&cache, "cache", os.TempDir(), "keep what comes from there in a `folder`")
	return c
}
