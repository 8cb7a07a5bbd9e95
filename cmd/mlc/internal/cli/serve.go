package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlc.dev/mlc/cmd/internal/about"
	"mlc.dev/mlc/cmd/internal/serving"
	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/secret"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/serve/registry"
)

// follow is how often mlc serve looks its aliases up.
const follow = time.Second

func (a *app) serveCmd() *cobra.Command {
	var f serving.Flags
	c := &cobra.Command{
		Use:   "serve [SERVICE|MODEL_FILE]",
		Short: "Answer requests with the models of a service",
		Long:  "Runs a service of the spec here: the typed API and its page, the Open Inference\nProtocol, and metrics. Its models follow their aliases: promote and rollback take\neffect within two seconds, and no request fails. Or serves a model's file: any ONNX model, or one of LightGBM or XGBoost.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o := serve.Options{Version: about.Version(), Log: f.Logger(os.Stderr)}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if name != "" && serving.IsModel(name) {
				var err error
				if o.Service, o.Source, err = serving.Open(name); err != nil {
					return err
				}
			} else {
				r, s, err := a.openTrained(c.Context())
				if err != nil {
					return err
				}
				defer s.Close()
				svc, err := realtime(r, name)
				if err != nil {
					return err
				}
				o.Service, o.Secret = svc.In(a.dir), secret.In(a.dir)
				if s.State == nil {
					return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: "nothing has been applied here yet", Mend: "run `mlc apply`"}
				}
				o.Source, o.Follow = &registry.Source{State: s.State, Store: s.Store}, follow
			}
			return f.Run(c.Context(), o, func(e serve.Endpoints) {
				if a.json {
					a.view.Emit("serving", map[string]any{"service": o.Service.Name, "http": e.HTTP, "grpc": e.GRPC, "metrics": e.Metrics})
					return
				}
				var also []string
				for _, at := range [][2]string{{"gRPC", e.GRPC}, {"metrics", e.Metrics}} {
					if at[1] != "" {
						also = append(also, at[0]+" at "+at[1])
					}
				}
				beside := ""
				if len(also) > 0 {
					beside = " (" + strings.Join(also, ", ") + ")"
				}
				scheme := "http"
				if o.Service.TLS != nil {
					scheme = "https"
				}
				a.view.Printf("%s answers at %s://%s%s; Ctrl-C ends it\n", o.Service.Name, scheme, e.HTTP, beside)
			})
		},
	}
	f.Register(c.Flags(), "127.0.0.1")
	return c
}

// realtime is a service of the spec by its name, which may be left out where there
// is one only.
func realtime(r *compiler.Result, name string) (*service.Service, error) {
	var names []string
	for _, s := range r.Services {
		if s.Name == name || name == "" && len(r.Services) == 1 {
			return &s.Service, nil
		}
		names = append(names, s.Name)
	}
	for _, b := range r.Batches {
		if b.Name == name {
			return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("%q is a batch: it answers no requests", name), Mend: fmt.Sprintf("`mlc run %s` predicts its rows now, `mlc schedule` when they are due", name)}
		}
	}
	switch {
	case name == "" && len(names) > 0:
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.BadArgs, What: "the spec has several services", Mend: "name one of " + strings.Join(names, ", ")}
	case name == "":
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: "the spec has no service", Mend: `declare one under serving, with kind: "realtime"`}
	}
	return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoName, What: fmt.Sprintf("no service %q in the spec%s", name, diag.Suggest(name, names)), Mend: "declare it under serving"}
}
