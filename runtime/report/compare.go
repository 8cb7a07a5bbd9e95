package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"

	"mlc.dev/mlc/runtime/evaluate"
)

// Section is a table of texts with sentences below it. Each row has as many cells as
// Head, or fewer.
type Section struct {
	Title string
	Head  []string
	Rows  [][]string
	Notes []string
}

// Plots are what two evaluations of a model show together. A and B name them.
type Plots struct {
	Model, A, B      string
	ReportA, ReportB *evaluate.Report
}

//go:embed compare.html
var compareHTML string

// comparePage shares the tables, the figures and the style of a report.
var comparePage = func() *template.Template {
	_, rest, _ := strings.Cut(pageHTML, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	return template.Must(template.Must(page.Clone()).New("compare").Parse(strings.Replace(compareHTML, "STYLE", style, 1)))
}()

// Compare renders sections and the plots of both sides as one HTML page that stands
// alone, as HTML does.
func Compare(title string, sections []Section, plots []Plots) ([]byte, error) {
	v := struct {
		Title  string
		Tables []compared
		Groups []group
	}{Title: title}
	for _, s := range sections {
		v.Tables = append(v.Tables, s.table())
	}
	for _, p := range plots {
		v.Groups = append(v.Groups, p.groups()...)
	}
	var b bytes.Buffer
	if err := comparePage.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("the page of %s: %w", title, err)
	}
	return b.Bytes(), nil
}

// compared is a section as the page shows it.
type compared struct {
	Title string
	Table table
	Notes []string
}

func (s Section) table() compared {
	out := compared{Title: s.Title, Table: table{Name: s.Title}, Notes: s.Notes}
	for _, h := range s.Head {
		out.Table.Head = append(out.Table.Head, head{Text: h})
	}
	for _, r := range s.Rows {
		cells := make([]cell, len(s.Head))
		for i := range min(len(cells), len(r)) {
			cells[i].Text = r[i]
		}
		out.Table.Rows = append(out.Table.Rows, cells)
	}
	return out
}

// groups are the curves of both in one figure each, class by class, and residuals side
// by side.
func (p Plots) groups() []group {
	var out []group
	if p.ReportA == nil || p.ReportB == nil {
		return nil
	}
	for _, a := range p.ReportA.Curves {
		for _, b := range p.ReportB.Curves {
			if a.Class != b.Class {
				continue
			}
			of := a.Class
			a.Class, b.Class = p.A, p.B
			for _, g := range curves(&evaluate.Report{Curves: []evaluate.Curves{a, b}}) {
				if g.Title = p.Model; of != "" {
					g.Title += ": " + shown(of)
				}
				out = append(out, g)
			}
			break
		}
	}
	figures := group{Title: p.Model}
	for _, s := range []struct {
		name string
		r    *evaluate.Report
	}{{p.A, p.ReportA}, {p.B, p.ReportB}} {
		for _, f := range residuals(s.r) {
			f.Title = s.name + ": " + f.Title
			figures.Figures = append(figures.Figures, f)
		}
	}
	if len(figures.Figures) > 0 {
		out = append(out, figures)
	}
	return out
}
