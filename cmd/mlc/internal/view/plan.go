package view

import (
	"fmt"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime"
)

// PlanSummary counts a plan's decisions.
type PlanSummary struct {
	Run     int     `json:"run"`
	Cached  int     `json:"cached"`
	Maybe   int     `json:"maybe"`
	Seconds float64 `json:"seconds"`
	USD     float64 `json:"usd"`
	// Unknown steps have no history to tell their time from.
	Unknown int `json:"unknown"`
}

// Changes reports whether anything would or may run.
func (s PlanSummary) Changes() bool { return s.Run+s.Maybe > 0 }

// Summarise counts decisions; time and money are of all that would or may run.
func Summarise(ds []runtime.Decision) PlanSummary {
	var s PlanSummary
	for _, d := range ds {
		switch d.Action {
		case runtime.WillRun:
			s.Run++
		case runtime.Maybe:
			s.Maybe++
		default:
			s.Cached++
			continue
		}
		s.Seconds += d.Seconds
		s.USD += d.USD
		if d.Seconds == 0 {
			s.Unknown++
		}
	}
	return s
}

// Plan prints decisions with the chain of reasons of each that is not cached.
func (v *View) Plan(p *plan.Plan, ds []runtime.Decision, at func(path string) diag.Range) {
	sum := Summarise(ds)
	if v.JSON {
		for _, d := range ds {
			v.Emit("planned_step", d)
		}
		v.Emit("plan_summary", sum)
		return
	}
	width, containers := 0, false
	for _, d := range ds {
		containers = containers || d.Base != ""
		width = max(width, len(d.ID))
	}
	for _, d := range ds {
		mark := map[runtime.Action]string{runtime.WillRun: v.Green("run   "), runtime.Cached: v.Dim("cached"), runtime.Maybe: v.Yellow("maybe ")}[d.Action]
		line := fmt.Sprintf("%s  %-*s", mark, width, d.ID)
		if d.Action != runtime.Cached {
			line += "  " + v.why(d, at)
			if d.Seconds > 0 {
				line += v.Dim(fmt.Sprintf("  ~%s", Seconds(d.Seconds)))
			}
			if containers && d.Runner != "" {
				line += v.Dim("  on " + d.Place())
			}
		}
		v.Printf("%s\n", strings.TrimRight(line, " "))
		for i, r := range d.Reasons {
			if i > 0 && d.Action == runtime.WillRun && r.Step == "" {
				v.Printf("%*s%s\n", width+10, "", v.reason(r, at))
			}
		}
	}
	v.Printf("\n%s\n", sum)
}

func (v *View) why(d runtime.Decision, at func(string) diag.Range) string {
	if len(d.Reasons) == 0 {
		return ""
	}
	return v.reason(d.Reasons[0], at)
}

func (v *View) reason(r runtime.Reason, at func(string) diag.Range) string {
	if r.Path == "" || at == nil {
		return r.Text
	}
	if p := v.Place(at(r.Path)); p != "" {
		return r.Text + " (" + p + ")"
	}
	return r.Text
}

// String is the summary in a sentence.
func (s PlanSummary) String() string {
	if !s.Changes() {
		return fmt.Sprintf("Nothing to do: %d steps are cached.", s.Cached)
	}
	t := fmt.Sprintf("%d to run, %d that may run, %d cached", s.Run, s.Maybe, s.Cached)
	if s.Seconds > 0 {
		t += fmt.Sprintf("; about %s", Seconds(s.Seconds))
		if s.USD > 0 {
			t += fmt.Sprintf(", $%.4f", s.USD)
		}
		if s.Unknown > 0 {
			t += fmt.Sprintf(", and %d steps without history", s.Unknown)
		}
	}
	return t + "."
}

// Seconds prints a time span shortly.
func Seconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%d ms", int(s*1000+0.5))
	case s < 90:
		return fmt.Sprintf("%.1f s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

// PlanMarkdown prints a plan for a pull request.
func (v *View) PlanMarkdown(p *plan.Plan, ds []runtime.Decision, at func(path string) diag.Range) {
	sum := Summarise(ds)
	v.Printf("### mlc plan: %s\n\n%s\n", p.System, sum)
	if !sum.Changes() {
		return
	}
	v.Printf("\n| step | | why | time | runner |\n|---|---|---|---|---|\n")
	for _, d := range ds {
		if d.Action == runtime.Cached {
			continue
		}
		took := "–"
		if d.Seconds > 0 {
			took = Seconds(d.Seconds)
		}
		v.Printf("| `%s` | %s | %s | %s | %s |\n", d.ID, d.Action, strings.ReplaceAll(v.why(d, at), "|", "\\|"), took, d.Place())
	}
}

// Graph prints the steps as text or as a Mermaid flowchart.
func (v *View) Graph(p *plan.Plan, mermaid bool) {
	if v.JSON {
		v.Emit("plan", p)
		return
	}
	if !mermaid {
		v.Printf("%s", p.Text())
		return
	}
	v.Printf("flowchart LR\n")
	for i, s := range p.Steps {
		v.Printf("  s%d[\"%s\"]\n", i, s.ID)
	}
	for i, s := range p.Steps {
		from := map[int]bool{}
		for _, in := range s.Inputs {
			if in.Step >= 0 && !from[in.Step] {
				from[in.Step] = true
				v.Printf("  s%d --> s%d\n", in.Step, i)
			}
		}
	}
}
