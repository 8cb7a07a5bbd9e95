// Package report renders what is known of a trained model as one HTML page that
// stands alone: no script, nothing fetched, plots as SVG. It follows the reader's
// theme, the window's width and the printer. The same data give the same bytes.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/runtime/evaluate"
)

// Data is all that a report shows. What is empty is left out of it.
type Data struct {
	// Model and System are names; Goal, Owner, Problem, Task (its kind) and Label (an
	// expression) are as the spec has them.
	Model, System, Goal, Owner, Problem, Task, Label string
	// Trainer and Split are JSON texts.
	Trainer, Split string
	// Primary is the name of the metric that decides.
	Primary string
	// Rows are counted by part: train, validation, test.
	Rows     map[string]int
	Metrics  []Metric
	Fairness []Fairness
	Report   evaluate.Report
	Data     []SourceLine
	Inputs   []InputLine
	// Notes are paragraphs of plain text.
	Notes []string
}

// Metric is one metric of a model. A number that is nil or NaN is not known.
type Metric struct {
	Name string
	// Test is on the test rows, with Error its standard error.
	Test, Error *float64
	// Validation is on the validation rows, Baseline the baseline's on the test rows.
	Validation, Baseline *float64
	// Better is "up" where greater is better, "down" where smaller is.
	Better string
	// Least and Most are where its values lie; both 0: not known.
	Least, Most float64
	// Gate is what is asked of the metric, in words; "" where nothing is.
	Gate string
	// Passed tells whether the gate is; nil: not judged.
	Passed *bool
}

// Fairness is one demand on how decisions differ between the groups of a column.
type Fairness struct {
	// By is the column; Metric one of kind.FairnessMetrics.
	By, Metric string
	// Value is the metric's, Low and High its interval; NaN: not known.
	Value, Low, High float64
	// Asked is the demand in words.
	Asked  string
	Passed bool
	// Groups are the rates that differ, with the rows they are of.
	Groups []evaluate.Rate
}

// SourceLine is a source of the training data.
type SourceLine struct {
	Name string
	// Rows were read, of which Quarantined broke their declarations.
	Rows, Quarantined int64
	Digest            string
}

// InputLine is a feature that the model takes.
type InputLine struct {
	Name, Column, Type string
	// Sensitive: it tells of a protected attribute.
	Sensitive bool
}

//go:embed report.html
var pageHTML string

var page = template.Must(template.New("report").Funcs(template.FuncMap{"wrap": wrap}).Parse(pageHTML))

// wrap is a text that breaks after its underscores first.
func wrap(s string) template.HTML {
	return template.HTML(strings.ReplaceAll(template.HTMLEscapeString(s), "_", "_<wbr>"))
}

// HTML renders a report. It fails on no data: numbers that are not finite are told as
// unknown, or left out of plots.
func HTML(d Data) ([]byte, error) {
	var b bytes.Buffer
	if err := page.Execute(&b, newView(d)); err != nil {
		return nil, fmt.Errorf("the report of %s: %w", d.Model, err)
	}
	return b.Bytes(), nil
}

// view is what the template shows: texts, tables and pictures.
type view struct {
	Data
	Nav      []link
	Verdict  verdict
	Trainer  string
	Split    string
	Parts    []fact
	Numbers  table
	Curves   []group // of figures
	Matrix   *figure
	Numeric  []figure
	Slices   table
	Worst    table
	Fairness []fairness
	Bars     []bar
	More     string // features without a bar
	Depend   []figure
	Sources  table
	Takes    table
}

type (
	link struct{ ID, Title string }
	fact struct{ Name, Value string }
	// group is figures under one heading.
	group struct {
		Title, Note string
		Small       bool
		Figures     []figure
	}
	// figure is a picture with what is said of it.
	figure struct {
		Title, Note string
		Legend      []string
		Natural     bool // it keeps its size and scrolls
		SVG         template.HTML
	}
	// table has cells of text, some with a picture.
	table struct {
		Name string
		Head []head
		Rows [][]cell
	}
	// head is a column's; Class is number, say (a sentence) or none.
	head struct{ Text, Class string }
	cell struct {
		Text, Soft, Badge string
		Mono              bool
		Mark              string // pass or fail
		SVG               template.HTML
	}
	bar struct {
		Name, Value, Soft string
		SVG               template.HTML
	}
	fairness struct {
		Title, Note, Mark, Text string
		Groups                  table
	}
	verdict struct {
		Headline, Mark string
		Lead           string
		Demands        []demand
	}
	demand struct{ Mark, Name, Text string }
)

func newView(d Data) view {
	v := view{Data: d, Trainer: indented(d.Trainer), Split: indented(d.Split)}
	r := &d.Report
	order := []string{"train", "validation", "test"}
	for _, part := range slices.Sorted(maps.Keys(d.Rows)) {
		if !slices.Contains(order, part) {
			order = append(order, part)
		}
	}
	for _, part := range order {
		if n, ok := d.Rows[part]; ok {
			v.Parts = append(v.Parts, fact{part, count(n)})
		}
	}
	v.Verdict = judge(d)
	v.Numbers = numbers(d)
	v.Curves = curves(r)
	v.Matrix = confusion(r)
	v.Numeric = residuals(r)
	v.Slices = declared(d)
	v.Worst = worst(r)
	for _, f := range d.Fairness {
		v.Fairness = append(v.Fairness, fair(f))
	}
	v.Bars, v.More = importance(r)
	v.Depend = dependence(r)
	v.Sources = sources(d.Data)
	v.Takes = inputs(d.Inputs)
	add := func(id, title string, show bool) {
		if show {
			v.Nav = append(v.Nav, link{id, title})
		}
	}
	add("verdict", "Verdict", true)
	add("metrics", "Metrics", len(d.Metrics) > 0)
	add("curves", "Curves", len(v.Curves) > 0)
	add("confusion", "Confusion matrix", v.Matrix != nil)
	add("residuals", "Predictions and truth", len(v.Numeric) > 0)
	add("slices", "Slices", len(v.Slices.Rows) > 0)
	add("worst", "Where it is worst", len(v.Worst.Rows) > 0)
	add("fairness", "Fairness", len(v.Fairness) > 0)
	add("importance", "Importance", len(v.Bars) > 0)
	add("dependence", "Partial dependence", len(v.Depend) > 0)
	add("inputs", "Inputs", len(d.Inputs) > 0)
	add("data", "Data", len(d.Data) > 0 || len(v.Parts) > 0 || d.Split != "")
	add("trainer", "Trainer", d.Trainer != "")
	add("notes", "Notes", len(d.Notes) > 0)
	return v
}

// known is the number, NaN where there is none.
func known(v *float64) float64 {
	if v == nil || math.IsInf(*v, 0) {
		return math.NaN()
	}
	return *v
}

// interval is the 95 % interval of an estimate with a standard error: the normal
// approximation, within the metric's values.
func (m Metric) interval(v, e float64) (low, high float64, ok bool) {
	low, high = v-1.96*e, v+1.96*e
	if m.Least < m.Most {
		low, high = max(low, m.Least), min(high, m.Most)
	}
	return low, high, e >= 0 && drawn(low, high)
}

// wilson is the 95 % interval of a share of n rows (Wilson 1927).
func wilson(share float64, n int) (low, high float64, ok bool) {
	if n <= 0 || !(share >= 0 && share <= 1) {
		return 0, 0, false
	}
	const z = 1.96
	m := float64(n)
	mid, half := share+z*z/(2*m), z*math.Sqrt(share*(1-share)/m+z*z/(4*m*m))
	by := 1 + z*z/m
	return max((mid-half)/by, 0), min((mid+half)/by, 1), true
}

// told is a value with its interval in words.
func told(v, low, high float64, ok bool) string {
	if math.IsNaN(v) {
		return "unknown"
	}
	if !ok {
		return number(v)
	}
	return number(v) + " (95\u00a0% interval " + span(low, high) + ")"
}

func mark(passed *bool) string {
	switch {
	case passed == nil:
		return "open"
	case *passed:
		return "pass"
	}
	return "fail"
}

// judge says in words whether the model meets what is asked of it.
func judge(d Data) verdict {
	var v verdict
	failed, open := 0, 0
	add := func(m, name, text, asked string) {
		switch m {
		case "fail":
			failed++
		case "open":
			open++
		}
		v.Demands = append(v.Demands, demand{m, name, text + " Asked: " + strings.TrimSuffix(asked, ".") + "."})
	}
	for _, m := range d.Metrics {
		if m.Gate == "" {
			continue
		}
		x := known(m.Test)
		low, high, ok := m.interval(x, known(m.Error))
		add(mark(m.Passed), m.Name, "On the test rows it is "+told(x, low, high, ok)+".", m.Gate)
	}
	for _, f := range d.Fairness {
		add(mark(&f.Passed), f.Metric+" by "+f.By, "It is "+fairValue(f)+".", f.Asked)
	}
	n := len(v.Demands)
	switch {
	case n == 0:
		v.Mark, v.Headline = "open", "Nothing is asked of this model"
	case failed > 0:
		v.Mark, v.Headline = "fail", fmt.Sprintf("%d of %s are not met", failed, demands(n))
		if failed == 1 {
			v.Headline = "1 of " + demands(n) + " is not met"
		}
	case open > 0:
		v.Mark, v.Headline = "open", fmt.Sprintf("%d of %s are not judged", open, demands(n))
		if open == 1 {
			v.Headline = "1 of " + demands(n) + " is not judged"
		}
	case n == 1:
		v.Mark, v.Headline = "pass", "The one demand is met"
	default:
		v.Mark, v.Headline = "pass", "All "+demands(n)+" are met"
	}
	v.Lead = lead(d)
	return v
}

// demands is n demands in words.
func demands(n int) string {
	if n == 1 {
		return "1 demand"
	}
	return fmt.Sprintf("%d demands", n)
}

// lead is a sentence on the primary metric, and one on the baseline.
func lead(d Data) string {
	for _, m := range d.Metrics {
		x, base := known(m.Test), known(m.Baseline)
		if m.Name != d.Primary || math.IsNaN(x) {
			continue
		}
		low, high, ok := m.interval(x, known(m.Error))
		s := "The primary metric " + m.Name + " is " + told(x, low, high, ok)
		if d.Report.Rows > 0 {
			s += " on " + count(d.Report.Rows) + " test rows"
		}
		s += "."
		by := x - base
		if m.Better == "down" {
			by = -by
		}
		switch {
		case math.IsNaN(by) || m.Better == "":
		case by > 0:
			s += " That is better than the baseline's " + number(base) + " by " + number(by) + "."
		case by < 0:
			s += " That is worse than the baseline's " + number(base) + " by " + number(-by) + "."
		default:
			s += " So is the baseline's."
		}
		return s
	}
	return ""
}

// numbers is the table of metrics. Columns without a value are left out.
func numbers(d Data) table {
	t := table{Name: "Metrics", Head: []head{{"Metric", ""}, {"Test", "number"}}}
	some := func(has func(Metric) bool) bool { return slices.ContainsFunc(d.Metrics, has) }
	has := struct{ err, validation, baseline, gate bool }{
		some(func(m Metric) bool { return !math.IsNaN(known(m.Error)) }),
		some(func(m Metric) bool { return !math.IsNaN(known(m.Validation)) }),
		some(func(m Metric) bool { return !math.IsNaN(known(m.Baseline)) }),
		some(func(m Metric) bool { return m.Gate != "" }),
	}
	add := func(on bool, h ...head) {
		if on {
			t.Head = append(t.Head, h...)
		}
	}
	add(has.err, head{"95\u00a0% interval", "number"})
	add(has.validation, head{"Validation", "number"})
	add(has.baseline, head{"Baseline", "number"})
	add(has.gate, head{"Asked", "say"}, head{"", ""})
	for _, m := range d.Metrics {
		name := cell{Text: m.Name, Mono: true}
		switch m.Better {
		case "up":
			name.Soft = "greater is better"
		case "down":
			name.Soft = "smaller is better"
		}
		if m.Name == d.Primary {
			name.Badge = "primary"
		}
		row := []cell{name, value(known(m.Test))}
		if has.err {
			c := cell{}
			if low, high, ok := m.interval(known(m.Test), known(m.Error)); ok {
				c.Text = span(low, high)
			}
			row = append(row, c)
		}
		if has.validation {
			row = append(row, value(known(m.Validation)))
		}
		if has.baseline {
			row = append(row, value(known(m.Baseline)))
		}
		if has.gate {
			c := cell{}
			if m.Gate != "" {
				c.Mark = mark(m.Passed)
			}
			row = append(row, cell{Text: m.Gate}, c)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// value is a number's cell, empty where it is not known.
func value(v float64) cell {
	if math.IsNaN(v) {
		return cell{}
	}
	return cell{Text: number(v)}
}

// declared is the table of the slices that the spec names, with the primary metric's
// interval drawn against the value on all test rows.
func declared(d Data) table {
	names := map[string]bool{}
	for _, s := range d.Report.Slices {
		for n := range s.Metrics {
			names[n] = true
		}
	}
	primary := d.Primary
	if !names[primary] {
		primary = ""
	}
	order := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		if (a == primary) != (b == primary) {
			if a == primary {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	t := table{Name: "Slices", Head: []head{{"Slice", ""}, {"Rows", "number"}}}
	ref, metrics := math.NaN(), map[string]Metric{}
	for _, m := range d.Metrics {
		if metrics[m.Name] = m; m.Name == primary {
			ref = known(m.Test)
		}
	}
	at := func(s evaluate.Slice, name string) (v, low, high float64, ok bool) {
		v, have := s.Metrics[name]
		if !have || math.IsInf(v, 0) {
			v = math.NaN()
		}
		e, have := s.Errors[name]
		if !have {
			e = math.NaN()
		}
		low, high, ok = metrics[name].interval(v, e)
		return v, low, high, ok
	}
	values := []float64{}
	for _, s := range d.Report.Slices {
		v, low, high, ok := at(s, primary)
		if drawn(v) {
			values = append(values, v)
		}
		if ok {
			values = append(values, low, high)
		}
	}
	forest := len(values) > 0
	if drawn(ref) {
		values = append(values, ref)
	}
	x := newScale(false, 3, values...)
	for _, n := range order {
		t.Head = append(t.Head, head{n, "number"})
		if n == primary && forest {
			t.Head = append(t.Head, head{x.label(x.lo) + " – " + x.label(x.hi), ""})
		}
	}
	for _, s := range d.Report.Slices {
		row := []cell{{Text: s.Name}, {Text: count(s.Rows)}}
		for _, n := range order {
			v, low, high, ok := at(s, n)
			c := value(v)
			if ok {
				c.Soft = span(low, high)
			}
			row = append(row, c)
			if n == primary && forest {
				row = append(row, cell{SVG: whisker(s.Name+": "+n, x, v, low, high, ref, ok)})
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// worst is the table of the slices that were found.
func worst(r *evaluate.Report) table {
	t := table{Name: "Where the model is worst", Head: []head{{"Slice", ""}, {"Rows", "number"}, {"Mean loss", "number"}, {"Elsewhere", "number"}, {"", ""}, {"Effect", "number"}}}
	values := []float64{0}
	for _, s := range r.Worst {
		for _, v := range []float64{s.Loss, s.Rest} {
			if drawn(v) {
				values = append(values, v)
			}
		}
	}
	x := newScale(true, 4, values...)
	for _, s := range r.Worst {
		rows := cell{Text: count(s.Rows)}
		if r.Rows > 0 {
			rows.Soft = percent(float64(s.Rows) / float64(r.Rows))
		}
		t.Rows = append(t.Rows, []cell{
			{Text: s.Name}, rows, {Text: number(s.Loss)}, {Text: number(s.Rest)},
			{SVG: pair(s.Name, x, s.Loss, s.Rest)}, {Text: number(s.Effect)},
		})
	}
	return t
}

// rates say what the rate of a fairness metric is, by the metric's beginning.
var rates = []struct{ prefix, text string }{
	{"selection_rate", "Share of the rows that are decided true"},
	{"tpr", "Share decided true of the rows that are true"},
	{"fpr", "Share decided true of the rows that are false"},
}

func fairValue(f Fairness) string {
	if math.IsNaN(f.Value) {
		return "inconclusive"
	}
	s := number(f.Value)
	if drawn(f.Low, f.High) {
		s += " (interval " + span(f.Low, f.High) + ")"
	}
	return s
}

// fair shows a fairness demand and the rate of each group with its interval.
func fair(f Fairness) fairness {
	out := fairness{Title: f.Metric + " by " + f.By, Mark: mark(&f.Passed), Text: fairValue(f) + ". Asked: " + strings.TrimSuffix(f.Asked, ".") + "."}
	for _, r := range rates {
		if strings.HasPrefix(f.Metric, r.prefix) {
			out.Note = r.text + ", with its 95\u00a0% interval (Wilson):"
		}
	}
	values := []float64{}
	for _, g := range f.Groups {
		if drawn(g.Value) {
			values = append(values, g.Value)
		}
		if low, high, ok := wilson(g.Value, g.Rows); ok {
			values = append(values, low, high)
		}
	}
	x := newScale(false, 3, values...)
	out.Groups = table{Name: out.Title, Head: []head{{f.By, ""}, {"Rows", "number"}, {"Rate", "number"}, {x.label(x.lo) + " – " + x.label(x.hi), ""}}}
	for _, g := range f.Groups {
		low, high, ok := wilson(g.Value, g.Rows)
		c := cell{Text: number(g.Value)}
		if ok {
			c.Soft = span(low, high)
		}
		out.Groups.Rows = append(out.Groups.Rows, []cell{
			{Text: shown(g.Group)}, {Text: count(g.Rows)}, c,
			{SVG: whisker(shown(g.Group), x, g.Value, low, high, math.NaN(), ok)},
		})
	}
	return out
}

func sources(lines []SourceLine) table {
	t := table{Name: "Sources", Head: []head{{"Source", ""}, {"Rows", "number"}, {"Quarantined", "number"}, {"Digest", ""}}}
	for _, l := range lines {
		q := cell{Text: count(l.Quarantined)}
		if l.Quarantined > 0 && l.Rows > 0 {
			q.Soft = percent(float64(l.Quarantined) / float64(l.Rows))
		}
		t.Rows = append(t.Rows, []cell{{Text: l.Name}, {Text: count(l.Rows)}, q, {Text: l.Digest, Mono: true}})
	}
	return t
}

func inputs(lines []InputLine) table {
	t := table{Name: "Inputs", Head: []head{{"Feature", ""}, {"Column", ""}, {"Type", ""}}}
	for _, l := range lines {
		name := cell{Text: l.Name, Mono: true}
		if l.Sensitive {
			name.Badge = "sensitive"
		}
		t.Rows = append(t.Rows, []cell{name, {Text: l.Column, Mono: true}, {Text: l.Type}})
	}
	return t
}
