package dagger

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"dagger.io/dagger"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/runtime/executor"
)

// The engine and the SDK tell errors as text, which is all there is to go by.
const noSpace = "no space left on device"

// failed turns an error of the engine, met while running a step, into what it
// means: a fault of the user's, or of the engine.
func (e *Executor) failed(s *session, job executor.Job, hide *strings.Replacer, err error) error {
	// A command that a signal ended is an error to the engine, whatever was expected.
	var exit *dagger.ExecError
	if errors.As(err, &exit) && exit.ExitCode < 0 { // the container could not begin
		return errors.New(first(hide.Replace(err.Error() + " " + exit.Stderr)))
	}
	if errors.As(err, &exit) {
		return e.status(exit.ExitCode, hide.Replace(exit.Stderr), nil)
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "GPU support"):
		return executor.Unavailable{Lasting: true, Code: diag.NoGPU, What: "its engine has no GPU support: " + first(text),
			Mend: "start the engine with _EXPERIMENTAL_DAGGER_GPU_SUPPORT=1 on a host with the NVIDIA container toolkit, or leave the gpu block out of this runner"}
	case strings.Contains(text, noSpace):
		return e.full()
	}
	if ref := e.image(job); ref != "" && imageError(text) {
		return executor.Faults{{Arg: "args.image", Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.NoImage, What: "image " + ref + " cannot be had: " + first(text),
			Why: "the step runs in it", Mend: "mend the name, push the image, or let the engine into its registry"}}}
	}
	return e.broke(err)
}

// status is the error of a command that ended with a status of its own, and what
// it left as faults.json.
func (e *Executor) status(code int, log string, faults []byte) error {
	if strings.Contains(log, noSpace) {
		return e.full()
	}
	why := "exit status " + strconv.Itoa(code)
	if code > 128 && code <= 128+64 { // signals; 255 is what runc says of its own failures
		why = executor.Killed(strconv.Itoa(code-128), code == 137)
	}
	return executor.Failure(why, log, faults)
}

// image is the reference that a step's container starts from, or "".
func (e *Executor) image(job executor.Job) string {
	if job.Image != "" {
		return job.Image
	}
	return e.Runner.Base.Image
}

func imageError(text string) bool {
	for _, s := range []string{"failed to resolve", "pull access denied", "manifest unknown", "failed to pull", "failed to do request", "invalid reference", "not found"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// full is an engine's full disk.
func (e *Executor) full() error {
	return executor.Unavailable{Lasting: true, What: "the disk of its engine is full (" + noSpace + ")", Mend: "free space there, for example with `dagger core engine local-cache prune`, and apply again"}
}

// broke is any other failure of an engine: it may be gone, or come back.
func (e *Executor) broke(err error) error {
	return executor.Unavailable{What: "the engine failed: " + first(err.Error()), Mend: "see the engine's own log; apply again goes on from what is finished"}
}

// unreachable is the error of a session that could not begin, of whose log text
// is the end.
func (e *Executor) unreachable(text string) error {
	where := e.Runner.Engine
	if where == "" {
		where = "(none named, so the SDK provides one)"
	}
	for _, s := range []string{"incompatible", "version mismatch", "not supported by", "minimum"} {
		if strings.Contains(text, s) {
			return executor.Unavailable{Lasting: true, Code: diag.EngineVersion, What: "the engine at " + where + " is of a version that does not fit: " + last(text),
				Mend: "run an engine and a dagger command of the version that `mlc doctor` names"}
		}
	}
	if strings.HasSuffix(strings.TrimSpace(text), "Downloading CLI...") {
		return executor.Unavailable{Lasting: true, Code: diag.NoEngine, What: "the dagger command of version " + SDKVersion() + " cannot be downloaded, by which the engine at " + where + " is asked",
			Mend: "let this machine reach dagger's downloads, or set _EXPERIMENTAL_DAGGER_CLI_BIN to a command of that version"}
	}
	return executor.Unavailable{Code: diag.NoEngine, What: "no engine answers at " + where + ": " + last(text),
		Mend: "start one there, or mend the address in the environment file"}
}

// message finds what a server's error says within the JSON that it comes in.
func message(text string) string {
	_, rest, ok := strings.Cut(text, `{"data":null,"errors":`)
	var errs []struct{ Message string }
	if ok && json.NewDecoder(strings.NewReader(rest)).Decode(&errs) == nil && len(errs) > 0 {
		return errs[0].Message
	}
	return text
}

// first is the first line of an engine's error, and last the last of a log, each
// without what nobody reads.
func first(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(message(text)), "\n")
	return short(text)
}

func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return short(lines[len(lines)-1])
}

func short(s string) string {
	s, _, _ = strings.Cut(s, " [traceparent:")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return strings.TrimSpace(s)
}
