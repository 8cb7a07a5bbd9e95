package target

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/service"
)

// cron are the forms of schedules, by name, with the template of each.
var cron = map[string]string{
	"crontab":    "crontab.tmpl",
	"github":     "cron_github.yml.tmpl",
	"kubernetes": "cron_kubernetes.yml.tmpl",
}

// CronNames are the forms' names in order.
func CronNames() []string {
	var out []string
	for n := range cron {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Batches are the scheduled predictions of a system.
type Batches struct {
	Pipeline
	// Root is the absolute folder of the spec here, in which crontab runs mlc.
	Root string
	// Image has mlc, and the spec in the folder Folder; Kubernetes runs it.
	Image, Folder string
	Batches       []service.Batch
}

// Cron returns the schedules of batches for another scheduler than mlc's own, in UTC.
// Those without a schedule are left out.
func Cron(form string, b Batches) ([]byte, error) {
	name, ok := cron[form]
	if !ok {
		return nil, fmt.Errorf("there is no form %q: write %s", form, strings.Join(CronNames(), ", "))
	}
	if form != "crontab" && b.local() {
		return nil, fmt.Errorf("a job of %s begins on a disk of its own, and this environment keeps its state or artifacts on one: give it a state of postgres:// and artifacts of s3://", form)
	}
	if form == "kubernetes" && b.Image == "" {
		return nil, errors.New("kubernetes runs images: name one with --image that has mlc, and the spec in its working folder")
	}
	var due []service.Batch
	for _, x := range b.Batches {
		if x.Schedule != "" {
			due = append(due, x)
		}
	}
	for _, x := range due {
		if at := outputFolder(b.Folder, x.Output); form == "kubernetes" && within(b.Folder, at) {
			return nil, fmt.Errorf("batch %q writes %s into a folder that the spec is in, and a volume there would hide the spec: give it a folder of its own", x.Name, x.Output)
		}
	}
	if len(due) == 0 {
		return nil, errors.New("no batch of the spec has a schedule")
	}
	return write(name, map[string]any{"System": b.System, "Version": b.Version, "Mlc": b.command(), "Variables": b.variables(), "Root": b.Root, "Dir": inDir(b.Dir), "Image": b.Image, "Folder": b.Folder, "Env": b.Env.Name, "Batches": due})
}

// outputFolder is where a batch writes, in an image that has the spec in a folder.
func outputFolder(spec, output string) string {
	if !path.IsAbs(output) {
		output = path.Join("/", spec, output)
	}
	return path.Dir(path.Clean(output))
}

// within reports whether a folder is another one or below it.
func within(dir, other string) bool {
	return strings.HasPrefix(path.Join("/", dir)+"/", strings.TrimSuffix(other, "/")+"/")
}

var notDNS = regexp.MustCompile(`[^a-z0-9]+`)

// dns makes a name of Kubernetes of some of ours. One that says less than they do
// gets a piece of their digest, so that no two are the same.
func dns(parts ...string) string {
	whole := strings.Join(parts, "-")
	s := strings.Trim(notDNS.ReplaceAllString(strings.ToLower(whole), "-"), "-")
	const most = 52 // a CronJob's jobs have longer names
	if s == whole && len(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.TrimRight(s[:min(len(s), most-7)], "-") + "-" + hex.EncodeToString(sum[:3])
}

// inDir is a folder as a prefix of paths below it.
func inDir(dir string) string {
	if dir == "" || dir == "." {
		return ""
	}
	return dir + "/"
}

// crontab quotes a word for the shell that cron runs, in which % is a line's end.
func crontab(s string) string {
	return strings.ReplaceAll("'"+strings.ReplaceAll(s, "'", `'\''`)+"'", "%", `\%`)
}
