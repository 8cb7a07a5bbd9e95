package target

import (
	"errors"
	"fmt"
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
	// Image has mlc, and the spec in its working folder; Kubernetes runs it.
	Image   string
	Batches []service.Batch
}

// Cron returns the schedules of batches for another scheduler than mlc's own, in UTC.
// Those without a schedule are left out.
func Cron(form string, b Batches) ([]byte, error) {
	name, ok := cron[form]
	if !ok {
		return nil, fmt.Errorf("there is no form %q: write %s", form, strings.Join(CronNames(), ", "))
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
	if len(due) == 0 {
		return nil, errors.New("no batch of the spec has a schedule")
	}
	return write(name, map[string]any{"System": b.System, "Version": b.Version, "Mlc": b.command(), "Variables": b.variables(), "Image": b.Image, "Env": b.Env.Name, "Batches": due})
}

var notDNS = regexp.MustCompile(`[^a-z0-9]+`)

// dns makes a name of Kubernetes of one of ours.
func dns(parts ...string) string {
	s := strings.Trim(notDNS.ReplaceAllString(strings.ToLower(strings.Join(parts, "-")), "-"), "-")
	return s[:min(len(s), 52)] // a CronJob's jobs have longer names
}
