package view

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"mlc.dev/mlc/runtime"
)

// Progress shows an apply as it goes: on a terminal the steps in flight with
// rows, rate and time left, elsewhere a line as each step ends.
type Progress struct {
	v       *View
	mu      sync.Mutex
	started map[string]time.Time
	at      map[string]runtime.Event
	done    int
	total   int
}

// NewProgress returns a Progress; its Event is what runtime.Apply calls.
func NewProgress(v *View) *Progress {
	return &Progress{v: v, started: map[string]time.Time{}, at: map[string]runtime.Event{}}
}

// Event takes what the runtime tells.
func (p *Progress) Event(e runtime.Event) {
	if p.v.JSON {
		p.v.Emit("step_"+e.Kind, e)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Total > 0 {
		p.done, p.total = e.Done, e.Total
	}
	switch e.Kind {
	case "started":
		p.started[e.Step] = time.Now()
	case "progress":
		if e.Progress.Log != "" {
			p.v.Notef("%s %s\n", p.v.Dim(e.Step+" |"), e.Progress.Log)
			break
		}
		p.at[e.Step] = e
	case "retry":
		p.line(e)
	case "cached":
	default:
		delete(p.started, e.Step)
		delete(p.at, e.Step)
		p.line(e)
	}
	p.v.Live(p.live())
}

func (p *Progress) line(e runtime.Event) {
	count := fmt.Sprintf("[%d/%d]", e.Done, e.Total)
	switch e.Kind {
	case "done":
		p.v.Notef("%s %s %s  %s\n", p.v.Dim(count), p.v.Green("done"), e.Step, p.v.Dim(strings.TrimSpace(Seconds(e.Seconds)+"  "+Brief(e.Report))))
	case "failed":
		p.v.Notef("%s %s %s  %s\n", p.v.Dim(count), p.v.Red("failed"), e.Step, p.v.Dim(Seconds(e.Seconds)))
	case "retry":
		p.v.Notef("%s %s on runner %s: %s; again in %s\n", p.v.Yellow("retry"), e.Step, e.Runner, e.Error, Seconds(e.Seconds))
	case "moved":
		p.v.Notef("%s %s: runner %s is given up: %s\n", p.v.Yellow("moved"), e.Step, e.Runner, e.Error)
	case "skipped":
		p.v.Notef("%s %s %s\n", p.v.Dim(count), p.v.Yellow("skipped"), e.Step)
	}
}

// live is one line for all steps in flight.
func (p *Progress) live() string {
	if len(p.started) == 0 {
		return ""
	}
	var parts []string
	for _, id := range sortedKeys(p.started) {
		parts = append(parts, id+p.rate(id))
	}
	return fmt.Sprintf("[%d/%d] %s", p.done, p.total, strings.Join(parts, " | "))
}

// rate tells how far a step is, how fast, and how long it still takes.
func (p *Progress) rate(id string) string {
	e, ok := p.at[id]
	since := time.Since(p.started[id]).Seconds()
	if !ok || e.Progress.Done == 0 || since < 0.2 {
		return fmt.Sprintf(" %.0fs", since)
	}
	q := e.Progress
	rate := float64(q.Done) / since
	s := fmt.Sprintf(" %d", q.Done)
	if q.Total > 0 {
		s += fmt.Sprintf("/%d", q.Total)
	}
	s += fmt.Sprintf(" %s %.0f/s", q.Unit, rate)
	if q.Total > q.Done && rate > 0 {
		s += ", " + Seconds(float64(q.Total-q.Done)/rate) + " left"
	}
	if q.Note != "" {
		s += ", " + q.Note
	}
	return s
}

// Brief is what of a step's report is worth a line.
func Brief(report json.RawMessage) string {
	var r map[string]any
	if json.Unmarshal(report, &r) != nil {
		return ""
	}
	var out []string
	if n, ok := r["rows"].(float64); ok {
		out = append(out, fmt.Sprintf("%.0f rows", n))
	}
	for _, k := range []string{"quarantined", "rejected"} {
		if n, ok := r[k].(float64); ok && n > 0 {
			out = append(out, fmt.Sprintf("%.0f %s", n, k))
		}
	}
	if n, ok := r["columns"].(float64); ok {
		out = append(out, fmt.Sprintf("%.0f columns", n))
	}
	if parts, ok := r["parts"].(map[string]any); ok {
		for _, k := range sortedKeys(parts) {
			if n, _ := parts[k].(float64); n > 0 {
				out = append(out, fmt.Sprintf("%s %.0f", k, n))
			}
		}
	}
	if m, ok := r["metrics"].(map[string]any); ok {
		if t, ok := m["test"].(map[string]any); ok {
			for _, k := range sortedKeys(t) {
				out = append(out, fmt.Sprintf("%s %.4f", k, t[k]))
			}
		}
	}
	if passed, ok := r["passed"].(bool); ok {
		out = append(out, map[bool]string{true: "passed", false: "missed: the model will not be registered"}[passed])
	}
	if n, ok := r["proved_rows"].(float64); ok {
		out = append(out, fmt.Sprintf("proved on %.0f rows", n))
	}
	return strings.Join(out, ", ")
}

func sortedKeys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Outcome prints what an apply did.
func (v *View) Outcome(o runtime.Outcome, seconds float64) {
	v.Live("")
	if v.JSON {
		v.Emit("apply_summary", o)
		return
	}
	for _, r := range o.Versions {
		if r.New {
			v.Printf("registered %s version %d (bundle %s)\n", v.Bold(r.Model), r.Version, r.Bundle.Short())
		} else {
			v.Printf("%s is version %d (bundle %s)\n", r.Model, r.Version, r.Bundle.Short())
		}
	}
	v.Printf("%d steps ran, %d cached", o.Ran, o.Cached)
	if o.Failed+o.Skipped > 0 {
		v.Printf(", %d failed, %d skipped", o.Failed, o.Skipped)
	}
	v.Printf("; %s\n", Seconds(seconds))
}
