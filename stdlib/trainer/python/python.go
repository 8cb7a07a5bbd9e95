// Package python is a trainer of the user's own: a script in Python, in an
// environment made of its pinned packages, that gets rows and leaves an ONNX model.
package python

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib/container"
	contract "mlc.dev/mlc/stdlib/trainer/container"
	"mlc.dev/mlc/stdlib/trainer/linear"
)

//go:embed python.cue
var source string

// Trainer is the kind "python".
type Trainer struct{}

var (
	_ kind.Commanded = Trainer{}
	_ kind.Filed     = Trainer{}
)

// Name is "python".
func (Trainer) Name() string { return "python" }

// Version of the contract with the script.
func (Trainer) Version() int { return 1 }

// Schema is #PythonTrainer.
func (Trainer) Schema() schema.Kind {
	return schema.Kind{Family: "trainer", Name: "python", Def: "#PythonTrainer", Source: source}
}

type args struct {
	Script       string          `json:"script"`
	Requirements string          `json:"requirements"`
	Python       string          `json:"python"`
	Rows         string          `json:"rows"`
	Params       json.RawMessage `json:"params"`
	Image        string          `json:"image"`
	Archive      string          `json:"archive"`
}

// The arguments that name files, which are also those that faults are about.
const (
	scriptField       = "script"
	requirementsField = "requirements"
	pythonField       = "python"
)

// containerCache is the folder of user caches in a container, and volume the name of
// what outlives it of that.
const containerCache, volume = "/var/cache/mlc", "python-environments"

// Command is the container of an image or an archive; without them the script runs
// in place.
func (Trainer) Command(raw json.RawMessage) kind.Command {
	a := kind.DecodeArgs[args](raw)
	return kind.Command{Image: a.Image, Archive: a.Archive, InPlace: true,
		Env: map[string]string{"XDG_CACHE_HOME": containerCache}, Caches: map[string]string{volume: environments(containerCache)}}
}

// Files are the script and its requirements.
func (Trainer) Files(raw json.RawMessage) map[string]string {
	a := kind.DecodeArgs[args](raw)
	out := map[string]string{scriptField: a.Script}
	if a.Requirements != "" {
		out[requirementsField] = a.Requirements
	}
	return out
}

// Check has nothing to add to what the compiler checks of files and commands.
func (Trainer) Check(json.RawMessage, string) []kind.Fault { return nil }

// Defaults are those of linear: most libraries take no missing values and no texts.
func (Trainer) Defaults(t types.Type) []json.RawMessage { return linear.Trainer{}.Defaults(t) }

// Features is true.
func (Trainer) Features() bool { return true }

// Train makes the environment or takes the one that there is, runs the script in it
// under the contract of the trainer "container", and proves that the model predicts
// numbers.
func (Trainer) Train(ctx context.Context, job kind.TrainJob) (kind.TrainResult, error) {
	var none kind.TrainResult
	a := kind.DecodeArgs[args](job.Args)
	cache, err := os.UserCacheDir()
	if err != nil {
		return none, err
	}
	env, err := environment(ctx, job.Work, environments(cache), a.Python, job.Files[requirementsField])
	if err != nil {
		return none, err
	}
	dir := filepath.Join(job.Work.Dir, "script")
	at, err := place(dir, job.Files[scriptField])
	if err != nil {
		return none, err
	}
	c := contract.Contract{Kind: "python", Field: scriptField, Def: "#PythonTrainer", Params: a.Params, Arrays: a.Rows == "npy", Sound: true}
	res, err := c.Train(ctx, job, container.Program{
		// -s and not -I, which would not see PYTHONHASHSEED: the variables are ours,
		// and the script's folder holds the script alone.
		Args: []string{env.program, "-s", at}, Dir: dir, Name: "the script", Field: scriptField,
		Env: variables(env.dir, filepath.Join(dir, "tmp"), max(job.Threads, 1))})
	if err != nil {
		return none, shortened(err, dir)
	}
	res.Report["python"], res.Report["packages"] = env.version, env.packages
	return res, nil
}

// place copies the script into a folder of its own, with a place for temporary files:
// Python imports from a script's folder, and what lies beside the user's is not in
// the step's key.
func place(dir, script string) (string, error) {
	b, err := os.ReadFile(script)
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "script.py")
	return at, errors.Join(os.MkdirAll(filepath.Join(dir, "tmp"), 0o755), os.WriteFile(at, b, 0o644))
}

// variables are all that the script gets besides MLC_IN and MLC_OUT.
func variables(venv, tmp string, threads int) []string {
	out := []string{
		"VIRTUAL_ENV=" + venv, "PATH=" + filepath.Join(venv, "bin") + string(os.PathListSeparator) + os.Getenv("PATH"), "TMPDIR=" + tmp,
		"PYTHONNOUSERSITE=1", "PYTHONHASHSEED=0", "PYTHONUNBUFFERED=1", "PYTHONUTF8=1",
	}
	for _, name := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"} {
		out = append(out, fmt.Sprintf("%s=%d", name, threads))
	}
	return append(out, inherited("HOME", "LANG")...)
}

// inherited are the variables of ours that are set.
func inherited(names ...string) []string {
	var out []string
	for _, n := range names {
		if v, ok := os.LookupEnv(n); ok {
			out = append(out, n+"="+v)
		}
	}
	return out
}

// shortened leaves the folder out of what faults repeat of a traceback.
func shortened(err error, dir string) error {
	var faults kind.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for i := range faults {
		faults[i].Why = strings.ReplaceAll(faults[i].Why, dir+string(filepath.Separator), "")
	}
	return faults
}
