package view

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"mlc.dev/mlc/runtime/compare"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/runtime/report"
)

// The most rows of a table for people: features, slices, and changes of a component.
// JSON has all, and what stayed the same, of which people get the count.
const (
	mostFeatures = 15
	mostSlices   = 20
	mostChanges  = 6
)

// Diff prints how two sides differ.
func (v *View) Diff(d *compare.Diff, markdown bool) {
	switch {
	case v.JSON:
		v.Emit("diff", d)
	case markdown:
		v.Printf("%s", markdownOf(diffTitle(d), diffTables(d)))
	default:
		v.Printf("%s", v.textOf(diffTitle(d), diffTables(d)))
	}
}

func diffTitle(d *compare.Diff) string {
	when := func(r compare.Ref) string { return r.Started.Local().Format("2006-01-02 15:04") }
	return fmt.Sprintf("%s (%s) -> %s (%s)", d.A.Name, when(d.A), d.B.Name, when(d.B))
}

// diffTables are what there is to tell of a diff, in order.
func diffTables(d *compare.Diff) []report.Section {
	var out []report.Section
	add := func(s report.Section) {
		if len(s.Rows)+len(s.Notes) > 0 {
			out = append(out, s)
		}
	}
	if d.Equal() {
		add(report.Section{Notes: []string{"Nothing differs, as far as it is known."}})
	}
	add(report.Section{Title: "Spec", Head: []string{"where", "change", "step"}, Rows: changeRows(d.Spec)})
	add(report.Section{Title: "Code", Head: []string{"where", "change", "step"}, Rows: changeRows(d.Code)})
	sources := report.Section{Title: "Data", Head: []string{"source", d.A.Name, d.B.Name, "rows"}}
	columns := report.Section{Title: "Columns that moved", Head: []string{"column", "what", "range", "mean", "distinct"}}
	still, fixed := 0, 0
	for _, s := range d.Data {
		if s.Same {
			still++
			continue
		}
		sources.Rows = append(sources.Rows, []string{s.Name, extentOf(s.A), extentOf(s.B), "changed"})
		for _, c := range s.Cols {
			if len(c.Moved) == 0 {
				fixed++
				continue
			}
			columns.Rows = append(columns.Rows, []string{s.Name + "." + c.Name, strings.Join(c.Moved, ", "), rangeOf(c), meanOf(c), distinctOf(c)})
		}
	}
	sources.Notes, columns.Notes = same(still, "source"), same(fixed, "column")
	add(sources)
	add(columns)
	for _, m := range d.Models {
		if m.In != "both" {
			name := map[string]string{"a": d.A.Name, "b": d.B.Name}[m.In]
			add(report.Section{Title: "Model " + m.Name, Notes: []string{"Only in " + name + "."}})
		}
		metrics := report.Section{Title: "Metrics of " + m.Name, Head: []string{"metric", d.A.Name, d.B.Name, "difference", "verdict"}}
		still = 0
		for _, x := range m.Metrics {
			if x.Verdict == compare.Same {
				still++
				continue
			}
			metrics.Rows = append(metrics.Rows, metricRow(x.Name, x))
		}
		if len(metrics.Rows) > 0 {
			how := "The test rows are not the same: differences are taken as of independent rows."
			if m.Paired {
				how = "Both were judged on the same rows: differences are paired."
			}
			metrics.Notes = []string{fmt.Sprintf("On %d and %d test rows, ± for 95 %%. %s", m.RowsA, m.RowsB, how)}
		}
		metrics.Notes = append(metrics.Notes, same(still, "metric")...)
		add(metrics)
		gates := report.Section{Title: "Gates of " + m.Name, Head: []string{"gate", d.A.Name, d.B.Name}}
		still = 0
		for _, g := range m.Gates {
			if g.A == g.B {
				still++
				continue
			}
			gates.Rows = append(gates.Rows, []string{g.Name, dash(g.A), dash(g.B)})
		}
		gates.Notes = same(still, "gate")
		add(gates)
		add(sliceTable(m, d))
		add(importanceTable(m, d))
	}
	add(report.Section{Title: "Not known", Notes: d.Unknown})
	return out
}

// same tells how many things of a kind are not listed, as they are the same.
func same(n int, what string) []string {
	switch n {
	case 0:
		return nil
	case 1:
		return []string{"1 " + what + " is the same."}
	}
	return []string{fmt.Sprintf("%d %ss are the same.", n, what)}
}

func changeRows(changes []compare.Change) [][]string {
	var out [][]string
	for _, c := range changes {
		out = append(out, []string{dash(c.Path), c.Text, stepsOf(c.Steps)})
	}
	return out
}

// stepsOf names the first of some steps.
func stepsOf(ids []string) string {
	switch n := len(ids); n {
	case 0:
		return ""
	case 1:
		return ids[0]
	default:
		return fmt.Sprintf("%s and %d more", ids[0], n-1)
	}
}

func extentOf(e *compare.Extent) string {
	switch {
	case e == nil:
		return "–"
	case e.Rows+e.Quarantined == 0:
		return e.Digest.Short()
	case e.Quarantined > 0:
		return fmt.Sprintf("%d rows, %d set aside", e.Rows, e.Quarantined)
	}
	return fmt.Sprintf("%d rows", e.Rows)
}

// both prints something of two profiles, or of the one that there is.
func both(c compare.Column, f func(*op.ColumnProfile) string) string {
	var parts []string
	for _, p := range []*op.ColumnProfile{c.A, c.B} {
		if p != nil && f(p) != "" {
			parts = append(parts, f(p))
		}
	}
	return strings.Join(slices.Compact(parts), " -> ")
}

func rangeOf(c compare.Column) string {
	return both(c, func(p *op.ColumnProfile) string {
		if p.Min == nil || p.Max == nil {
			return ""
		}
		return fmt.Sprintf("%.4g to %.4g", *p.Min, *p.Max)
	})
}

func meanOf(c compare.Column) string {
	return both(c, func(p *op.ColumnProfile) string {
		if p.Mean == nil {
			return ""
		}
		return fmt.Sprintf("%.4g", *p.Mean)
	})
}

func distinctOf(c compare.Column) string {
	return both(c, func(p *op.ColumnProfile) string { return fmt.Sprint(p.Distinct) })
}

// metricRow is a metric's row of a table.
func metricRow(name string, m compare.MetricDiff) []string {
	verdict := string(m.Verdict)
	if m.Diff == nil {
		verdict = "–"
	}
	return []string{name, estimateOf(m.A, false), estimateOf(m.B, false), estimateOf(m.Diff, true), verdict}
}

// estimateOf prints a value with half its 95 % interval.
func estimateOf(e *compare.Estimate, signed bool) string {
	if e == nil {
		return "–"
	}
	s := numberOf(e.Value)
	if signed && e.Value >= 0 {
		s = "+" + s
	}
	if e.Error != nil {
		s += " ± " + numberOf(evaluate.Z(0.975)**e.Error)
	}
	return s
}

// numberOf prints four digits after the point, and six significant ones of what is
// great.
func numberOf(x float64) string {
	if math.Abs(x) >= 1000 || x != 0 && math.Abs(x) < 0.0001 {
		return fmt.Sprintf("%.6g", x)
	}
	return fmt.Sprintf("%.4f", x)
}

// sliceTable has the slices whose difference is sure, or else those that moved most.
func sliceTable(m compare.ModelDiff, d *compare.Diff) report.Section {
	s := report.Section{Title: "Slices of " + m.Name, Head: []string{"slice", "metric", d.A.Name, d.B.Name, "difference", "verdict"}}
	sure := func(x compare.SliceDiff) bool {
		return x.Verdict == compare.Better || x.Verdict == compare.Worse || x.Verdict == compare.Moved
	}
	list := slices.DeleteFunc(slices.Clone(m.Slices), func(x compare.SliceDiff) bool { return x.Verdict == compare.Same })
	slices.SortStableFunc(list, func(a, b compare.SliceDiff) int {
		switch {
		case sure(a) == sure(b):
			return 0
		case sure(a):
			return -1
		}
		return 1
	})
	for _, x := range list[:min(len(list), mostSlices)] {
		row := metricRow(x.Slice, x.MetricDiff)
		s.Rows = append(s.Rows, append([]string{row[0], x.Name}, row[1:]...))
	}
	if m.Paired && len(list) > 0 {
		s.Notes = append(s.Notes, "Differences of slices are taken as of independent rows, and so are less sure than they could be.")
	}
	if more := len(list) - len(s.Rows); more > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("And %d more, in --json.", more))
	}
	s.Notes = append(s.Notes, same(len(m.Slices)-len(list), "slice")...)
	return s
}

func importanceTable(m compare.ModelDiff, d *compare.Diff) report.Section {
	s := report.Section{Title: "What " + m.Name + " looks at", Head: []string{"feature", d.A.Name, d.B.Name}}
	list := slices.DeleteFunc(slices.Clone(m.Importance), func(i compare.ImportanceDiff) bool { return estimateShort(i.A) == estimateShort(i.B) })
	for _, i := range list[:min(len(list), mostFeatures)] {
		s.Rows = append(s.Rows, []string{i.Feature, estimateShort(i.A), estimateShort(i.B)})
	}
	if more := len(list) - len(s.Rows); more > 0 {
		s.Notes = []string{fmt.Sprintf("And %d more, in --json.", more)}
	}
	s.Notes = append(s.Notes, same(len(m.Importance)-len(list), "feature")...)
	return s
}

func estimateShort(e *compare.Estimate) string {
	if e == nil {
		return "–"
	}
	return numberOf(e.Value)
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// textOf prints tables for a terminal.
func (v *View) textOf(title string, tables []report.Section) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", v.Bold(title))
	for _, t := range tables {
		if b.WriteByte('\n'); t.Title != "" {
			fmt.Fprintf(&b, "%s\n", v.Bold(t.Title))
		}
		if len(t.Rows) > 0 {
			var table strings.Builder
			w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
			for _, r := range append([][]string{t.Head}, t.Rows...) {
				fmt.Fprintf(w, "  %s%s\n", strings.Join(r, "\t"), strings.Repeat("\t", len(t.Head)-len(r)))
			}
			_ = w.Flush() // to memory
			for line := range strings.Lines(table.String()) {
				fmt.Fprintln(&b, strings.TrimRight(line, " \n"))
			}
		}
		for _, n := range t.Notes {
			fmt.Fprintf(&b, "  %s\n", v.Dim(n))
		}
	}
	return b.String()
}

// markdownOf prints tables for a pull request.
func markdownOf(title string, tables []report.Section) string {
	var b strings.Builder
	cells := strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "<", "&lt;")
	row := func(r []string) {
		for _, c := range r {
			b.WriteString("| " + cells.Replace(c) + " ")
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "### mlc diff: %s\n", title)
	for _, t := range tables {
		if b.WriteByte('\n'); t.Title != "" {
			fmt.Fprintf(&b, "**%s**\n\n", t.Title)
		}
		if len(t.Rows) > 0 {
			row(t.Head)
			b.WriteString(strings.Repeat("|---", len(t.Head)) + "|\n")
			for _, r := range t.Rows {
				row(r)
			}
			if len(t.Notes) > 0 {
				b.WriteByte('\n')
			}
		}
		for _, n := range t.Notes {
			fmt.Fprintf(&b, "%s\n", n)
		}
	}
	return b.String()
}

// Blame prints which changes moved a metric.
func (v *View) Blame(a *compare.Attribution) {
	if v.JSON {
		v.Emit("blame", a)
		return
	}
	title := fmt.Sprintf("%s of %s: %s in %s -> %s in %s, %s", a.Metric, a.Model, estimateOf(&a.From, false), a.A.Name, estimateOf(&a.To, false), a.B.Name, estimateOf(&a.Total, true))
	s := report.Section{Head: []string{"change", "where", "effect", "alone", "over the orders"}}
	row := func(e compare.Effect) {
		alone, spread := "–", "–"
		if e.Alone != nil {
			alone = estimateOf(&compare.Estimate{Value: *e.Alone}, true)
		}
		if a.Orders > 1 {
			spread = estimateOf(&compare.Estimate{Value: e.Low}, true) + " to " + estimateOf(&compare.Estimate{Value: e.High}, true)
		}
		first := "–"
		if len(e.Changes) > 0 {
			first = whereOf(e.Changes[0])
		}
		s.Rows = append(s.Rows, []string{e.Name, first, estimateOf(&e.Estimate, true), alone, spread})
		n := min(len(e.Changes), mostChanges)
		for _, c := range e.Changes[min(1, n):n] {
			s.Rows = append(s.Rows, []string{"", whereOf(c)})
		}
		if more := len(e.Changes) - n; more > 0 {
			s.Rows = append(s.Rows, []string{"", fmt.Sprintf("and %d more, in --json", more)})
		}
	}
	for _, e := range a.Effects {
		row(e)
	}
	if a.Rest != nil {
		rest := *a.Rest
		rest.Alone = nil
		row(rest)
		s.Notes = append(s.Notes, "What cannot be switched is code of mlc, engines and files that are not what they were: it is what running the steps again with those of now changes.")
	}
	switch {
	case len(a.Effects) == 0:
		s.Notes = append(s.Notes, "Nothing that can be switched differs.")
	case a.Exact && a.Orders > 1:
		s.Notes = append(s.Notes, fmt.Sprintf("Effects are Shapley values, the mean over all %d orders of the changes; they sum to the difference.", a.Orders))
	case a.Orders > 1:
		s.Notes = append(s.Notes, fmt.Sprintf("Effects are means over %d orders of the changes, not all; they sum to the difference.", a.Orders))
	}
	if a.Together != nil {
		s.Notes = append(s.Notes, fmt.Sprintf("Interaction: %s of it is of the changes only together.", estimateOf(&compare.Estimate{Value: *a.Together}, true)))
	}
	for _, f := range a.Failed {
		s.Notes = append(s.Notes, "Could not be run: "+f+".")
	}
	v.Printf("%s", v.textOf(title, []report.Section{s}))
}

// whereOf is a change with its place.
func whereOf(c compare.Change) string {
	if c.Path == "" {
		return c.Text
	}
	return c.Path + " (" + c.Text + ")"
}

// DiffHTML is a diff as a page, with the plots of both sides.
func DiffHTML(d *compare.Diff, a, b *compare.Side) ([]byte, error) {
	var plots []report.Plots
	for _, m := range d.Models {
		if x, y := a.Models[m.Name], b.Models[m.Name]; x != nil && y != nil {
			plots = append(plots, report.Plots{Model: m.Name, A: d.A.Name, B: d.B.Name, ReportA: x.Report, ReportB: y.Report})
		}
	}
	return report.Compare(diffTitle(d), diffTables(d), plots)
}
