package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/evaluate"
)

const (
	series  = 4  // curves that one figure can hold; more get a figure each
	barsOf  = 30 // features with a bar
	rowUnit = 20 // the height of a named row of a chart
)

// shown is a value of a column, in words where it is missing or empty.
func shown(s string) string {
	switch s {
	case types.NullString:
		return "missing"
	case "":
		return "(empty)"
	}
	return s
}

// plot is one sort of curve.
type plot struct {
	title, note    string
	xLabel, yLabel string
	points         func(evaluate.Curves) []evaluate.Point
	// under is drawn below a curve: what a model without skill has.
	under func(c *chart, of evaluate.Curves)
	over  func(c *chart, of evaluate.Curves, class string)
}

// curves are ROC, precision and recall, gain and reliability: of few classes in one
// figure each, of more in small ones side by side.
func curves(r *evaluate.Report) []group {
	diagonal := func(c *chart, _ evaluate.Curves) { c.segment("ref", 0, 0, 1, 1) }
	plots := []plot{
		{"ROC", "The dashed line is chance.", "false positive rate", "true positive rate",
			func(c evaluate.Curves) []evaluate.Point { return c.ROC }, diagonal, nil},
		{"Precision and recall", "The dashed line is the share of rows that are true.", "recall", "precision",
			func(c evaluate.Curves) []evaluate.Point { return c.PR },
			func(c *chart, of evaluate.Curves) {
				rows, hits := 0.0, 0.0
				for _, b := range of.Reliability {
					rows += float64(b.Rows)
					hits += float64(b.Rows) * b.Rate
				}
				if rows > 0 {
					c.segment("ref", 0, hits/rows, 1, hits/rows)
				}
			}, nil},
		{"Gain", "How many of the true rows lie among those with the highest scores.", "share of rows, by score", "share of the true found",
			func(c evaluate.Curves) []evaluate.Point { return c.Gain }, diagonal, nil},
		{"Reliability", "On the dashed line, scores are what comes true. Bars are 95\u00a0% intervals (Wilson).", "mean score", "share that came true",
			func(c evaluate.Curves) []evaluate.Point {
				var out []evaluate.Point
				for _, b := range c.Reliability {
					out = append(out, evaluate.Point{X: b.Mean, Y: b.Rate})
				}
				return out
			}, diagonal,
			func(c *chart, of evaluate.Curves, class string) {
				for _, b := range of.Reliability {
					if low, high, ok := wilson(b.Rate, b.Rows); ok && drawn(b.Mean) {
						c.segment(class+" thin", b.Mean, low, b.Mean, high)
					}
					c.mark(class, b.Mean, b.Rate, 2.6)
				}
			}},
	}
	var all group
	var out []group
	for i, p := range plots {
		var of []evaluate.Curves
		for _, c := range r.Curves {
			if len(p.points(c)) > 0 {
				of = append(of, c)
			}
		}
		switch {
		case len(of) == 0:
		case len(of) <= series:
			f := p.figure(of, r)
			if i < 2 && len(r.Curves) == 1 && r.Threshold > 0 && len(r.Confusion) == 2 {
				f.Note += " The ring is where the threshold " + short(r.Threshold) + " decides."
			}
			all.Figures = append(all.Figures, f)
		default:
			g := group{Title: p.title, Note: "Across: " + p.xLabel + ". Up: " + p.yLabel + ". " + p.note, Small: true}
			if len(r.Classes) > len(of) {
				g.Note += fmt.Sprintf(" These are %d of %d classes.", len(of), len(r.Classes))
			}
			for _, c := range of {
				g.Figures = append(g.Figures, p.small(c))
			}
			out = append(out, g)
		}
	}
	if len(all.Figures) > 0 {
		if len(r.Curves) > 1 && len(r.Classes) > len(r.Curves) {
			all.Note = fmt.Sprintf("These are %d of %d classes.", len(r.Curves), len(r.Classes))
		}
		out = append([]group{all}, out...)
	}
	return out
}

// figure draws the curves of few classes together.
func (p plot) figure(of []evaluate.Curves, r *evaluate.Report) figure {
	unitScale := newScale(true, 5, 0, 1)
	c := newChart(axes{w: whole, h: 300, title: p.title, desc: p.desc(of), xLabel: p.xLabel, yLabel: p.yLabel, x: unitScale, y: unitScale})
	f := figure{Title: p.title, Note: p.note}
	if len(of) == 1 || p.title != "Precision and recall" {
		p.under(c, of[0])
	} else {
		f.Note = ""
	}
	for i, o := range of {
		class := fmt.Sprintf("s%d", i)
		c.curve(class, p.points(o))
		if p.over != nil {
			p.over(c, o, class)
		}
		if len(of) > 1 {
			f.Legend = append(f.Legend, shown(o.Class))
		}
	}
	if len(r.Curves) == 1 && r.Threshold > 0 && len(r.Confusion) == 2 {
		p.ring(c, r.Confusion)
	}
	f.SVG = c.done()
	return f
}

// ring marks where the threshold decides, by the confusion matrix of two classes.
func (p plot) ring(c *chart, m [][]int) {
	tn, fp, fn, tp := float64(m[0][0]), float64(m[0][1]), float64(m[1][0]), float64(m[1][1])
	switch p.title {
	case "ROC":
		c.mark("ring", fp/(fp+tn), tp/(tp+fn), 5)
	case "Precision and recall":
		c.mark("ring", tp/(tp+fn), tp/(tp+fp), 5)
	}
}

// small draws one class's curve.
func (p plot) small(of evaluate.Curves) figure {
	unitScale := newScale(true, 2, 0, 1)
	c := newChart(axes{w: half, h: 150, title: p.title + ": " + of.Class, desc: p.desc([]evaluate.Curves{of}), x: unitScale, y: unitScale})
	p.under(c, of)
	c.curve("s0", p.points(of))
	if p.over != nil {
		p.over(c, of, "s0")
	}
	return figure{Title: shown(of.Class), SVG: c.done()}
}

// desc tells a curve where it is a quarter, half and three quarters along.
func (p plot) desc(of []evaluate.Curves) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Lines of %s by %s, both from 0 to 1.", p.yLabel, p.xLabel)
	for _, c := range of {
		points := p.points(c)
		if c.Class != "" {
			b.WriteString(" " + c.Class + ":")
		}
		for _, x := range []float64{0.25, 0.5, 0.75} {
			i := slices.IndexFunc(points, func(q evaluate.Point) bool { return q.X >= x })
			if i >= 0 && drawn(points[i].X, points[i].Y) {
				fmt.Fprintf(&b, " %s at %s;", short(points[i].Y), short(points[i].X))
			}
		}
	}
	return strings.TrimSuffix(b.String(), ";")
}

// heat is the level of a share, from 0 to 10, by which the page colours it.
func heat(share float64) int { return int(math.Round(10 * min(max(share, 0), 1))) }

// confusion is the matrix of what is by what is decided, coloured by the share of the
// row. It is nil where there is none.
func confusion(r *evaluate.Report) *figure {
	n := len(r.Confusion)
	if n == 0 || len(r.Classes) != n {
		return nil
	}
	total, right, widest := 0, 0, 0.0
	for i, row := range r.Confusion {
		if len(row) != n {
			return nil
		}
		for j, v := range row {
			total += v
			if i == j {
				right += v
			}
			widest = max(widest, width(count(v)))
		}
	}
	names := make([]string, n)
	longest := 0.0
	for i, c := range r.Classes {
		names[i] = shown(c)
		longest = max(longest, width(names[i]))
	}
	const most = 120
	left := min(longest, most) + 10
	w, h := max(46, widest+10), 40.0
	if n <= 3 {
		w, h = max(w, (whole-left-2)/float64(n)), 64
	}
	// Names that are wider than a column stand aslant over it.
	slant := longest > w-4
	top, over := 40.0, 2.0
	if slant {
		top, over = 24+(min(longest, most)+8)*math.Sqrt2/2, min(longest, most)*math.Sqrt2/2
	}
	f := &figure{Title: "Confusion matrix"}
	W, H := left+float64(n)*w+over, top+float64(n)*h+2
	f.Natural = W > whole+1
	share := "none of the rows"
	if total > 0 {
		share = percent(float64(right)/float64(total)) + " of the rows"
	}
	f.Note = "Rows are what is true, columns what is decided. A cell has its count and its share of the row. On the diagonal: " + share + "."
	if n == 2 && r.Threshold > 0 {
		f.Note += " A row is decided true from a score of " + short(r.Threshold) + " on."
	}
	class := ""
	if f.Natural {
		class = "natural"
	}
	d := draw(W, H, class, "Confusion matrix", fmt.Sprintf("%d true classes by %d decided classes; on the diagonal %s.", n, n, share))
	d.text("soft", "start", left, em, W-left, "decided")
	d.text("soft", "end", left-8, top-8, left-8, "true")
	for j, c := range names {
		x := left + (float64(j)+0.5)*w
		if slant {
			d.text("", "start", x, top-8, most, c, "transform", "rotate(-45 "+unit(x)+" "+unit(top-8)+")")
		} else {
			d.text("", "middle", x, top-8, w, c)
		}
	}
	for i, row := range r.Confusion {
		y, sum := top+float64(i)*h, 0
		for _, v := range row {
			sum += v
		}
		d.text("", "end", left-8, y+h/2+4, most, names[i])
		for j, v := range row {
			x, s := left+float64(j)*w, 0.0
			if sum > 0 {
				s = float64(v) / float64(sum)
			}
			level := heat(s)
			d.rect(fmt.Sprintf("cell h%d", level), x+1, y+1, w-2, h-2)
			class := fmt.Sprintf("t%d", level)
			if v == 0 {
				d.text(class+" soft", "middle", x+w/2, y+h/2+4, w, "0")
				continue
			}
			d.text(class+" strong", "middle", x+w/2, y+h/2-3, w, count(v))
			d.text(class, "middle", x+w/2, y+h/2+13, w, percent(s))
		}
	}
	f.SVG = d.done()
	return f
}

// residuals are the figures of a predicted number.
func residuals(r *evaluate.Report) []figure {
	if r.Residuals == nil {
		return nil
	}
	var out []figure
	var both []float64
	var sample []evaluate.Point
	for _, p := range r.Residuals.Sample {
		if drawn(p.X, p.Y) {
			both = append(both, p.X, p.Y)
			sample = append(sample, p)
		}
	}
	if len(sample) > 0 {
		s := newScale(false, 5, both...)
		c := newChart(axes{w: whole, h: 300, title: "Predicted and actual", xLabel: "predicted", yLabel: "actual", x: s, y: s,
			desc: fmt.Sprintf("%s rows, both axes from %s to %s.", count(len(sample)), short(slices.Min(both)), short(slices.Max(both)))})
		c.segment("ref", s.lo, s.lo, s.hi, s.hi)
		for _, p := range sample {
			c.mark("spot", p.X, p.Y, 2.4)
		}
		out = append(out, figure{Title: "Predicted and actual", Note: "A sample of the test rows. On the dashed line a prediction is right.", SVG: c.done()})
	}
	if f, ok := histogram(r.Residuals.Histogram); ok {
		out = append(out, f)
	}
	if f, ok := coverage(r); ok {
		out = append(out, f)
	}
	return out
}

func histogram(all []evaluate.Bin) (figure, bool) {
	var ends []float64
	var bins []evaluate.Bin
	most, total := 0, 0
	for _, b := range all {
		if drawn(b.From, b.To) {
			ends, bins = append(ends, b.From, b.To), append(bins, b)
			most, total = max(most, b.Rows), total+b.Rows
		}
	}
	if total == 0 {
		return figure{}, false
	}
	c := newChart(axes{w: whole, h: 300, title: "Residuals", xLabel: "actual − predicted", yLabel: "rows",
		desc: fmt.Sprintf("%s rows between %s and %s.", count(total), short(slices.Min(ends)), short(slices.Max(ends))),
		x:    newScale(true, 6, ends...), y: newScale(false, 5, 0, float64(most))})
	for _, b := range bins {
		x, y := c.x.at(b.From), c.y.at(float64(b.Rows))
		if b.Rows > 0 {
			c.rect("fill", x+0.4, y, c.x.at(b.To)-x-0.8, c.y.from-y)
		}
	}
	if c.x.lo < 0 && c.x.hi > 0 {
		c.line("ref", c.x.at(0), c.y.from, c.x.at(0), c.y.to)
	}
	return figure{Title: "Residuals", Note: "The bars at both ends hold the tails too.", SVG: c.done()}, true
}

func coverage(r *evaluate.Report) (figure, bool) {
	if len(r.Residuals.Coverage) == 0 {
		return figure{}, false
	}
	s := newScale(true, 5, 0, 1)
	var desc strings.Builder
	desc.WriteString("Share of rows at or below each quantile:")
	for _, p := range r.Residuals.Coverage {
		fmt.Fprintf(&desc, " %s for %s;", short(p.Y), short(p.X))
	}
	c := newChart(axes{w: whole, h: 300, title: "Coverage of the quantiles", xLabel: "quantile", yLabel: "share of rows at or below",
		desc: strings.TrimSuffix(desc.String(), ";"), x: s, y: s})
	c.segment("ref", 0, 0, 1, 1)
	c.curve("s0", r.Residuals.Coverage)
	for _, p := range r.Residuals.Coverage {
		if low, high, ok := wilson(p.Y, r.Rows); ok && drawn(p.X) {
			c.segment("s0 thin", p.X, low, p.X, high)
		}
		c.mark("s0", p.X, p.Y, 3)
	}
	return figure{Title: "Coverage of the quantiles", Note: "On the dashed line, a quantile holds what it says. Bars are 95\u00a0% intervals (Wilson).", SVG: c.done()}, true
}

// The size of a picture within a table.
const cellW, cellH = 150.0, 20.0

// whisker draws a value with its interval, and ref dashed.
func whisker(name string, x scale, v, low, high, ref float64, ok bool) template.HTML {
	x.from, x.to = 5, cellW-5
	d := draw(cellW, cellH, "natural", name, told(v, low, high, ok))
	d.line("grid", 0, cellH/2, cellW, cellH/2)
	if drawn(ref) {
		d.line("ref", x.at(ref), 0, x.at(ref), cellH)
	}
	if ok {
		d.line("s0", x.at(low), cellH/2, x.at(high), cellH/2)
	}
	if drawn(v) {
		d.dot("s0", x.at(v), cellH/2, 4)
	}
	return d.done()
}

// pair draws a bar, and the other value as a line across it.
func pair(name string, x scale, v, other float64) template.HTML {
	x.from, x.to = 1, cellW-5
	d := draw(cellW, cellH, "natural", name, number(v)+", elsewhere "+number(other))
	if drawn(v) {
		a, b := x.at(min(v, 0)), x.at(max(v, 0))
		d.rect("fill", a, 5, b-a, cellH-10)
	}
	if drawn(other) {
		d.line("edge", x.at(other), 1, x.at(other), cellH-1)
	}
	return d.done()
}

// importance has a bar for each of the first features, and a sentence on the others.
func importance(r *evaluate.Report) ([]bar, string) {
	first := r.Importance[:min(len(r.Importance), barsOf)]
	values := []float64{0}
	for _, f := range first {
		for _, v := range []float64{f.Drop, f.Drop - f.Error, f.Drop + f.Error} {
			if drawn(v) {
				values = append(values, v)
			}
		}
	}
	const w, h = 300.0, 18.0
	x := newScale(true, 4, values...)
	x.from, x.to = 2, w-2
	var out []bar
	for _, f := range first {
		b := bar{Name: f.Feature, Value: number(f.Drop)}
		d := draw(w, h, "bar", f.Feature, number(f.Drop))
		d.line("edge", x.at(0), 0, x.at(0), h)
		if drawn(f.Drop) {
			a, z := x.at(min(f.Drop, 0)), x.at(max(f.Drop, 0))
			d.rect("fill", a, 3, z-a, h-6)
		}
		if low, high := f.Drop-f.Error, f.Drop+f.Error; f.Error > 0 && drawn(low, high) {
			b.Soft = "± " + number(f.Error)
			d.line("edge", x.at(low), h/2, x.at(high), h/2)
			for _, e := range []float64{low, high} {
				d.line("edge", x.at(e), h/2-3, x.at(e), h/2+3)
			}
		}
		b.SVG = d.done()
		out = append(out, b)
	}
	rest := r.Importance[len(first):]
	if len(rest) == 0 {
		return out, ""
	}
	return out, fmt.Sprintf("And %s more, of at most %s each.", count(len(rest)), number(rest[0].Drop))
}

// dependence has a figure a feature, all with the same scale of predictions.
func dependence(r *evaluate.Report) []figure {
	var means []float64
	for _, d := range r.Dependence {
		for _, m := range d.Means {
			if drawn(m) {
				means = append(means, m)
			}
		}
	}
	if len(means) == 0 {
		return nil
	}
	mean := newScale(false, 4, means...)
	var out []figure
	for _, d := range r.Dependence {
		f := figure{Title: d.Feature}
		label := "mean prediction"
		if d.Output != "" {
			label += ": " + d.Output
		}
		var x []float64
		var points []evaluate.Point
		for i, m := range d.Means {
			switch {
			case !drawn(m):
			case i < len(d.Labels):
				points = append(points, evaluate.Point{X: m, Y: float64(i)})
			case i < len(d.Values) && drawn(d.Values[i]):
				x = append(x, d.Values[i])
				points = append(points, evaluate.Point{X: d.Values[i], Y: m})
			}
		}
		if len(points) == 0 {
			continue
		}
		low, high := points[0], points[0]
		of := func(p evaluate.Point) float64 {
			if len(d.Labels) > 0 {
				return p.X
			}
			return p.Y
		}
		for _, p := range points {
			if of(p) < of(low) {
				low = p
			}
			if of(p) > of(high) {
				high = p
			}
		}
		a := axes{w: whole, h: 220, title: "Partial dependence on " + d.Feature, yLabel: label, y: mean,
			desc: "The mean prediction goes from " + short(of(low)) + " to " + short(of(high)) + "."}
		if len(d.Labels) > 0 {
			for _, l := range d.Labels {
				a.rows = append(a.rows, shown(l))
			}
			a.h, a.x, a.y = float64(len(a.rows)*rowUnit+62), mean, scale{lo: 0, hi: 1, step: 1}
			c := newChart(a)
			for _, p := range points {
				y := c.row(int(p.Y), len(a.rows))
				c.dot("s0", c.x.at(p.X), y, 4)
			}
			f.SVG = c.done()
		} else {
			a.x = newScale(true, 6, x...)
			c := newChart(a)
			for _, v := range x {
				c.line("edge", c.x.at(v), c.y.from-5, c.x.at(v), c.y.from)
			}
			c.curve("s0", points)
			for _, p := range points {
				c.mark("s0", p.X, p.Y, 2.2)
			}
			f.SVG = c.done()
		}
		out = append(out, f)
	}
	return out
}
