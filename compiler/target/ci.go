// Package target writes files for the systems that run mlc: an entry of the one
// table for each, and a template beside it.
package target

import (
	"bytes"
	"embed"
	"encoding/json"
	"slices"
	"sort"
	"strings"
	"text/template"

	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/plan"
)

//go:embed *.tmpl
var templates embed.FS

// CI are the continuous-integration systems, by name, with the file that each reads.
var CI = map[string]string{
	"github": ".github/workflows/mlc.yml",
	"gitlab": ".gitlab-ci.yml",
}

// CINames are the names in order.
func CINames() []string {
	var out []string
	for n := range CI {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Pipeline says what a pipeline is to do.
type Pipeline struct {
	System  string
	Dir     string // of the spec, from the repository's root, slash-separated
	Env     *env.Environment
	Plan    *plan.Plan
	Version string // of mlc to install
}

// WriteCI returns the pipeline's file for a system of CI: vet and plan on proposed
// changes, with the plan as a comment, and apply of a saved plan on the main branch.
func WriteCI(system string, p Pipeline) ([]byte, error) {
	return write(system+".yml.tmpl", map[string]any{
		"System": p.System, "Version": p.Version, "Mlc": p.command(), "Variables": p.variables(),
		"Local": p.local(), "Docker": p.docker(),
	})
}

// write fills in a template.
func write(name string, with map[string]any) ([]byte, error) {
	t, err := template.New("").Delims("[[", "]]").Funcs(template.FuncMap{"quote": quote, "dns": dns, "crontab": crontab, "folder": outputFolder}).ParseFS(templates, "*.tmpl")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.ExecuteTemplate(&b, name, with)
	return b.Bytes(), err
}

// quote writes a string as YAML, of which JSON is a part.
func quote(s string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// command is mlc with the flags that lead to the spec.
func (p Pipeline) command() string {
	c := "mlc"
	if p.Dir != "." && p.Dir != "" {
		c += " -C '" + strings.ReplaceAll(p.Dir, "'", `'\''`) + "'"
	}
	if p.Env.Name != "local" {
		c += " --env " + p.Env.Name
	}
	return c
}

// variables are those that the environment and the containers' secrets read, and
// what the clients of databases and stores look for.
func (p Pipeline) variables() []string {
	names := append([]string(nil), p.Env.Uses...)
	for _, s := range p.Plan.Steps {
		if s.Container == nil {
			continue
		}
		for _, ref := range s.Container.Secrets {
			if name, ok := strings.CutPrefix(ref, "env:"); ok {
				names = append(names, name)
			}
		}
	}
	if strings.HasPrefix(p.Env.State, "postgres") {
		names = append(names, "PGPASSWORD")
	}
	if strings.HasPrefix(p.Env.Artifacts, "s3://") {
		names = append(names, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// local tells that a run leaves its state or artifacts on its own disk.
func (p Pipeline) local() bool {
	return !strings.Contains(p.Env.State, "://") || !strings.Contains(p.Env.Artifacts, "://")
}

// docker tells that a runner is an engine that has to be provided.
func (p Pipeline) docker() bool {
	return slices.ContainsFunc(p.Env.Runners, func(r env.Runner) bool { return r.Kind == env.DaggerKind && r.Engine == "" })
}
