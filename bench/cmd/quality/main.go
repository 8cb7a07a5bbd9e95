// Command quality trains on real data with reference scores and prints ours
// beside them. It skips, loudly, data that is not there.
package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlc.dev/mlc/bench/internal/run"
)

//go:embed *.cue
var specs embed.FS

// suite is one data set: its spec has a model per trainer, named by it.
type suite struct {
	name, split string
	models      []model
}

// model is one trainer with the reference that it is compared with and the bar
// that it has to reach.
type model struct{ trainer, metric, reference, goal string }

var suites = []suite{
	{"adult", "canonical test file", []model{
		{"gbdt", "roc_auc", "hist_gbdt", "0.926"},
		{"gbdt", "log_loss", "hist_gbdt", ""},
		{"gbdt", "accuracy", "hist_gbdt", ""},
		{"linear", "roc_auc", "logistic", "0.904"},
		{"linear", "log_loss", "logistic", ""},
		{"linear", "accuracy", "logistic", ""},
	}},
}

// names of metrics in BASELINES.tsv.
var theirs = map[string]string{"roc_auc": "auc", "log_loss": "logloss", "accuracy": "accuracy"}

func main() {
	data, ok := run.Shared()
	if !ok {
		fmt.Println("SKIPPED: no ../shared/data, so there is nothing to compare with")
		return
	}
	rows := [][]string{{"data set", "split", "trainer", "metric", "ours", "reference", "goal", ""}}
	failed := false
	for _, s := range suites {
		dir, err := os.MkdirTemp("", "mlc-quality-")
		run.Must(err)
		defer os.RemoveAll(dir)
		b, err := specs.ReadFile(s.name + ".cue")
		run.Must(err)
		run.Must(os.Symlink(filepath.Join(data, s.name), filepath.Join(dir, "data")))
		run.Must(os.WriteFile(filepath.Join(dir, s.name+".cue"), b, 0o644))
		_, err = run.Output(dir, run.MLC(), "apply")
		run.Must(err)
		refs := baselines(filepath.Join(data, s.name, "BASELINES.tsv"))
		for _, m := range s.models {
			out, err := run.Output(dir, run.MLC(), "show", "--file", "metrics.json", m.trainer)
			run.Must(err)
			var got struct {
				Model struct {
					Metrics map[string]map[string]float64
				}
			}
			run.Must(json.Unmarshal([]byte(out), &got))
			v := got.Model.Metrics["test"][m.metric]
			verdict := ""
			if m.goal != "" {
				var goal float64
				_, err := fmt.Sscan(m.goal, &goal)
				run.Must(err)
				if verdict = "reached"; v < goal {
					verdict, failed = "MISSED", true
				}
			}
			rows = append(rows, []string{s.name, s.split, m.trainer, m.metric, fmt.Sprintf("%.4f", v), refs[m.reference+" "+theirs[m.metric]] + " (" + m.reference + ")", m.goal, verdict})
		}
	}
	fmt.Printf("quality at %s\n\n", run.Commit())
	run.Table(rows)
	if failed {
		os.Exit(1)
	}
}

// baselines reads a table of protocol, model, metric and value, by model and metric.
func baselines(path string) map[string]string {
	b, err := os.ReadFile(path)
	run.Must(err)
	out := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Split(line, "\t"); len(f) == 4 {
			if key := f[1] + " " + f[2]; out[key] == "" {
				out[key] = f[3]
			}
		}
	}
	return out
}
