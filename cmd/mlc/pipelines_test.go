package main

import (
	"os"
	"os/exec"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"gopkg.in/yaml.v3"
)

// pipeline FILE JOB: runs what a job of a pipeline says, as its system would, but
// for what installs mlc and what talks to the system itself. What the commands
// write is left in the files pipeline.out and pipeline.err.
func pipeline(ts *testscript.TestScript, neg bool, args []string) {
	type job struct {
		Steps []struct {
			Run string
			If  string
		}
		Script []string
	}
	var doc struct{ Jobs map[string]job }
	text := []byte(ts.ReadFile(args[0]))
	ts.Check(yaml.Unmarshal(text, &doc))
	j, ok := doc.Jobs[args[1]]
	if !ok { // GitLab's jobs stand at the top
		var top map[string]yaml.Node
		ts.Check(yaml.Unmarshal(text, &top))
		node, found := top[args[1]]
		if !found {
			ts.Fatalf("%s has no job %s", args[0], args[1])
		}
		ts.Check(node.Decode(&j))
	}
	lines := j.Script
	for _, s := range j.Steps {
		lines = append(lines, s.Run)
	}
	var script []string
	for _, l := range lines {
		if !strings.Contains(l, "go install") && !strings.Contains(l, "gh pr comment") {
			script = append(script, l)
		}
	}
	cmd := exec.Command("sh", "-e", "-c", strings.Join(script, "\n"))
	cmd.Dir = ts.MkAbs(".")
	for _, name := range append(scriptEnv, "RUNNER_TEMP", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS") {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := os.Create(ts.MkAbs("pipeline.out"))
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(ts.MkAbs("pipeline.err"))
	ts.Check(err)
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); (err != nil) != neg {
		ts.Fatalf("%s: %v: %s", strings.Join(script, "; "), err, ts.ReadFile("pipeline.err"))
	}
}
