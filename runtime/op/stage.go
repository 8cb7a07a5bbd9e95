// Package op is what built-in steps do: a function an operation, over the stage
// folder that the executor laid out.
package op

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/sql"
)

// Stage is a step as its operation sees it.
type Stage struct {
	executor.Stage
	Dir   string
	Kinds kind.Kinds
	// Report is written to report.json.
	Report map[string]any
	emit   func(executor.Event)
	last   time.Time
}

// operations is the table of what mlc stage runs.
var operations = map[string]func(context.Context, *Stage) error{
	lower.OpSnapshot:  sourceSnapshot,
	lower.OpValidate:  sourceValidate,
	lower.OpDataset:   datasetBuild,
	lower.OpSplit:     datasetSplit,
	lower.OpFit:       transformFit,
	lower.OpStack:     transformStack,
	lower.OpTrain:     modelTrain,
	lower.OpCalibrate: modelCalibrate,
	lower.OpEvaluate:  modelEvaluate,
	lower.OpPool:      modelPool,
	lower.OpMeasure:   modelMeasure,
	lower.OpExplain:   modelExplain,
	lower.OpGate:      modelGate,
	lower.OpChallenge: modelChallenge,
	lower.OpPackage:   modelPackage,
}

// Run runs the stage in dir. Faults of the user's are also left in faults.json.
func Run(ctx context.Context, dir string, kinds kind.Kinds, emit func(executor.Event)) error {
	b, err := os.ReadFile(filepath.Join(dir, "stage.json"))
	if err != nil {
		return err
	}
	st := &Stage{Dir: dir, Kinds: kinds, Report: map[string]any{}, emit: emit}
	if err := json.Unmarshal(b, &st.Stage); err != nil {
		return fmt.Errorf("stage.json: %w", err)
	}
	if st.Format != executor.StageFormat {
		return fmt.Errorf("stage.json has format %q, this mlc reads %q", st.Format, executor.StageFormat)
	}
	f, ok := operations[st.Op]
	if !ok {
		return fmt.Errorf("no operation %q", st.Op)
	}
	if err := f(ctx, st); err != nil {
		var faults executor.Faults
		if !errors.As(err, &faults) {
			var one diag.Diagnostic
			var list diag.ListError
			var kinds kind.Faults
			switch {
			case errors.As(err, &kinds):
				for _, f := range kinds {
					arg := "args"
					if f.Field != "" {
						arg += "." + f.Field
					}
					faults = append(faults, executor.Fault{Arg: arg, Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: f.Code, What: f.What, Why: f.Why, Mend: f.Mend}})
				}
			case errors.As(err, &one):
				faults = executor.Faults{{Diagnostic: one}}
			case errors.As(err, &list):
				for _, d := range list {
					faults = append(faults, executor.Fault{Diagnostic: d})
				}
			}
		}
		if len(faults) > 0 {
			b, merr := json.Marshal(faults)
			if merr != nil {
				return merr
			}
			if werr := os.WriteFile(filepath.Join(dir, "faults.json"), b, 0o644); werr != nil {
				return werr
			}
		}
		return err
	}
	return st.writeJSON("report.json", st.Report)
}

// In is the path of a file of an input.
func (s *Stage) In(input, file string) string {
	return filepath.Join(s.Dir, executor.Folder(input), file)
}

// Out is the path of a file of an output.
func (s *Stage) Out(output, file string) string { return filepath.Join(s.Dir, "out", output, file) }

// Progress tells how far the step is, at most ten times a second.
func (s *Stage) Progress(done, total int64, unit, note string) {
	if now := time.Now(); now.Sub(s.last) > 100*time.Millisecond || done == total {
		s.last = now
		s.emit(executor.Event{Done: done, Total: total, Unit: unit, Note: note})
	}
}

// work is what a command of the user's is run with; clean removes its folder.
func (s *Stage) work() (w kind.Work, clean func(), err error) {
	w = kind.Work{Dir: filepath.Join(s.Dir, "work"), Memory: s.Limits.Memory, Log: func(line string) { s.emit(executor.Event{Log: line}) }}
	for _, in := range s.Inputs {
		if in.Name == lower.CodeInput {
			w.Code = s.In(in.Name, "")
		}
	}
	return w, func() { _ = os.RemoveAll(w.Dir) }, os.MkdirAll(w.Dir, 0o755)
}

// files are the paths of the files of a kind.Filed, by argument.
func (s *Stage) files() map[string]string {
	out := map[string]string{}
	for _, in := range s.Inputs {
		if arg, ok := strings.CutPrefix(in.Name, lower.FilePrefix); ok {
			out[arg] = s.In(in.Name, "0")
		}
	}
	return out
}

// sql opens the engine within the step's limits.
func (s *Stage) sql(ctx context.Context, threads int) (*sql.DB, error) {
	return sql.Open(ctx, filepath.Join(s.Dir, "tmp"), s.Limits.Memory*3/4, threads)
}

func (s *Stage) writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Dir, path)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func readJSON[T any](path string) (T, error) {
	var out T
	b, err := os.ReadFile(path)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func decode[T any](s *Stage) (T, error) {
	var out T
	err := json.Unmarshal(s.Args, &out)
	return out, err
}

// fault is a mistake of the user's about an argument.
func fault(arg string, code diag.Code, why, mend, what string, args ...any) error {
	return executor.Faults{{Arg: arg, Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: code, What: fmt.Sprintf(what, args...), Why: why, Mend: mend}}}
}
