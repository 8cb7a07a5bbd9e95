package report

import (
	"encoding/xml"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"mlc.dev/mlc/runtime/evaluate"
)

// Sizes in the units of a drawing. A whole figure is no narrower than its units on a
// screen of 400 pixels, so that its text is never below 12 of them; half figures stand
// there in twos.
const (
	whole = 340.0
	half  = 172.0
	em    = 12.0 // the size of text
)

// greatest is the greatest number that is drawn: a difference of two is still finite.
const greatest = 1e300

// drawn tells whether a number can be drawn.
func drawn(v ...float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return math.IsNaN(x) || math.Abs(x) > greatest })
}

// drawing is an SVG picture that grows. Colours and sizes of text come from classes
// of the page, so that it follows the theme.
type drawing struct{ b strings.Builder }

// draw begins a picture of w by h units. title and desc are read aloud in its place.
// A natural picture keeps its size; a bar is stretched to its place, so that only
// straight lines look well in it; one without a class keeps its shape.
func draw(w, h float64, class, title, desc string) *drawing {
	d := &drawing{}
	d.tag("svg", "xmlns", "http://www.w3.org/2000/svg", "role", "img", "viewBox", "0 0 "+unit(w)+" "+unit(h))
	switch class {
	case "natural":
		d.attr("class", class, "width", unit(w), "height", unit(h))
	case "bar":
		d.attr("class", class, "preserveAspectRatio", "none")
	}
	d.b.WriteString("><title>")
	d.escape(title)
	d.b.WriteString("</title><desc>")
	d.escape(desc)
	d.b.WriteString("</desc>")
	return d
}

// done is the picture. All texts in it went through escape.
func (d *drawing) done() template.HTML { return template.HTML(d.b.String() + "</svg>") }

// tag begins an element with attributes in pairs.
func (d *drawing) tag(name string, attrs ...string) {
	d.b.WriteByte('<')
	d.b.WriteString(name)
	d.attr(attrs...)
}

func (d *drawing) attr(attrs ...string) {
	for i := 0; i < len(attrs); i += 2 {
		d.b.WriteByte(' ')
		d.b.WriteString(attrs[i])
		d.b.WriteString(`="`)
		d.escape(attrs[i+1])
		d.b.WriteByte('"')
	}
}

// escape writes text; what XML has no place for becomes U+FFFD.
func (d *drawing) escape(s string) {
	xml.EscapeText(&d.b, []byte(s)) //nolint:errcheck // a builder does not fail
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.tag("path", "class", class, "d", "M"+unit(x1)+" "+unit(y1)+"L"+unit(x2)+" "+unit(y2))
	d.b.WriteString("/>")
}

func (d *drawing) rect(class string, x, y, w, h float64) {
	d.tag("rect", "class", class, "x", unit(x), "y", unit(y), "width", unit(max(w, 0)), "height", unit(max(h, 0)))
	d.b.WriteString("/>")
}

func (d *drawing) dot(class string, x, y, r float64) {
	d.tag("circle", "class", class, "cx", unit(x), "cy", unit(y), "r", unit(r))
	d.b.WriteString("/>")
}

// text stands on y; anchor is start, middle or end. What takes more than width units
// is cut, and told whole where one points at it.
func (d *drawing) text(class, anchor string, x, y, width float64, s string, more ...string) {
	d.tag("text", append([]string{"x", unit(x), "y", unit(y)}, more...)...)
	if class != "" {
		d.attr("class", class)
	}
	if anchor != "start" {
		d.attr("text-anchor", anchor)
	}
	d.b.WriteByte('>')
	cut := fit(s, width)
	if cut != s {
		d.b.WriteString("<title>")
		d.escape(s)
		d.b.WriteString("</title>")
	}
	d.escape(cut)
	d.b.WriteString("</text>")
}

// path joins places.
func (d *drawing) path(class string, xy []evaluate.Point) {
	var p strings.Builder
	last := ""
	for i, q := range xy {
		s := unit(q.X) + " " + unit(q.Y)
		if s == last {
			continue
		}
		last = s
		p.WriteByte("ML"[min(i, 1)])
		p.WriteString(s)
	}
	if len(xy) > 0 {
		d.tag("path", "class", class, "d", p.String())
		d.b.WriteString("/>")
	}
}

// unit is a length to a tenth.
func unit(v float64) string {
	s := strconv.FormatFloat(v, 'f', 1, 64)
	if s = strings.TrimSuffix(s, ".0"); s == "-0" {
		return "0"
	}
	return s
}

// width is about how long a text is, rather more than less.
func width(s string) float64 {
	w := 0.0
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Mn, r):
		case strings.ContainsRune("iljtfrI.,:;'|()[]!− ", r):
			w += 0.42
		case strings.ContainsRune("mwMW@%—", r) || unicode.IsUpper(r):
			w += 0.84
		case r > 0x1100:
			w++
		default:
			w += 0.62
		}
	}
	return w * em
}

// fit cuts a text to a width.
func fit(s string, to float64) string {
	if width(s) <= to {
		return s
	}
	r := []rune(s)
	for len(r) > 0 && width(string(r))+em > to {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

// scale maps lo..hi to units from..to.
type scale struct{ lo, hi, from, to, step float64 }

// newScale holds all of the values, which are drawn, in about n steps at most, of 1, 2
// or 5 and a power of ten (after Heckbert 1990, "Nice Numbers for Graph Labels"). An exact one ends at the least and
// the greatest value, others at a step.
func newScale(exact bool, n int, values ...float64) scale {
	s := scale{lo: 0, hi: 1}
	if len(values) > 0 {
		s.lo, s.hi = slices.Min(values), slices.Max(values)
	}
	if size := max(math.Abs(s.lo), math.Abs(s.hi)); s.hi-s.lo <= 1e-9*max(size, 1e-290) {
		around := 0.5
		if size > 1e-290 {
			around = size / 2
		}
		s.lo, s.hi = s.lo-around, s.hi+around
	}
	raw := (s.hi - s.lo) / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	switch f := raw / power; {
	case f < 1.1:
		s.step = power
	case f < 2.2:
		s.step = 2 * power
	case f < 5.5:
		s.step = 5 * power
		if exact && len(s.ticks()) == 0 { // between two steps
			s.step = 2 * power
		}
	default:
		s.step = 10 * power
	}
	if !exact {
		s.lo, s.hi = math.Floor(s.lo/s.step+1e-6)*s.step, math.Ceil(s.hi/s.step-1e-6)*s.step
	}
	return s
}

// at is where a value lies, at an end where it is beyond.
func (s scale) at(v float64) float64 {
	f := (v - s.lo) / (s.hi - s.lo)
	return s.from + (s.to-s.from)*min(max(f, 0), 1)
}

// ticks are the steps within the scale.
func (s scale) ticks() []float64 {
	var out []float64
	for k := math.Ceil(s.lo/s.step - 1e-6); k <= math.Floor(s.hi/s.step+1e-6); k++ {
		out = append(out, k*s.step)
	}
	return out
}

// label is a tick's: with as many decimals as the step has, by powers of ten from a
// million on.
func (s scale) label(v float64) string {
	power := func(x float64) int { return int(math.Floor(math.Log10(x) + 1e-9)) }
	size, step := max(math.Abs(s.lo), math.Abs(s.hi)), power(s.step)
	switch {
	case math.Abs(v) < s.step/2:
		return "0"
	case size < 1e6 && step >= -5:
		return sign(v) + thousands(strconv.FormatFloat(math.Abs(v), 'f', max(-step, 0), 64))
	}
	exp := power(math.Abs(v))
	mantissa, _, _ := strings.Cut(strconv.FormatFloat(math.Abs(v), 'e', max(exp-step, 0), 64), "e")
	return sign(v) + mantissa + "×10" + superscript(exp)
}

// chart is a drawing with axes.
type chart struct {
	*drawing
	x, y scale
}

// axes say how a chart looks: its size, what the axes are called ("" leaves it out),
// and their scales.
type axes struct {
	w, h           float64
	title, desc    string
	xLabel, yLabel string
	x, y           scale
	rows           []string // names of the steps of y, from above, in place of numbers
}

// newChart draws grid, ticks and names of the axes. The name of y stands above it.
func newChart(a axes) *chart {
	c := &chart{draw(a.w, a.h, "", a.title, a.desc), a.x, a.y}
	left, top, bottom := 0.0, 10.0, a.h-24
	for _, t := range c.y.ticks() {
		left = max(left, width(c.y.label(t)))
	}
	if a.rows != nil {
		left = 0
		for _, r := range a.rows {
			left = max(left, min(width(r), a.w*0.42))
		}
		left += 6
	}
	if left += 8; a.yLabel != "" {
		top = 28
	}
	if a.xLabel != "" {
		bottom -= 18
	}
	right := a.w - 12
	c.x.from, c.x.to, c.y.from, c.y.to = left, right, bottom, top
	if a.yLabel != "" {
		c.text("soft", "start", 0, em, a.w, a.yLabel)
	}
	if a.rows == nil {
		for _, t := range c.y.ticks() {
			c.line("grid", left, c.y.at(t), right, c.y.at(t))
			c.text("soft", "end", left-6, c.y.at(t)+4, a.w, c.y.label(t))
		}
	}
	for i, r := range a.rows {
		y := c.row(i, len(a.rows))
		c.line("grid", left, y, right, y)
		c.text("", "end", left-12, y+4, left-12, r)
	}
	// Labels of x that would touch the one before are left out.
	end := math.Inf(-1)
	for _, t := range c.x.ticks() {
		x, s := c.x.at(t), c.x.label(t)
		c.line("grid", x, bottom, x, bottom+4)
		w := width(s)
		mid := min(max(x, w/2), a.w-w/2)
		if mid-w/2 > end+4 {
			c.text("soft", "middle", mid, bottom+17, a.w, s)
			end = mid + w/2
		}
	}
	c.line("axis", left, bottom, right, bottom)
	if a.xLabel != "" {
		c.text("soft", "end", right, bottom+35, right, a.xLabel)
	}
	return c
}

// row is where the i-th of n rows lies.
func (c *chart) row(i, n int) float64 {
	return c.y.to + (c.y.from-c.y.to)*(float64(i)+0.5)/float64(n)
}

// curve draws a line through what can be drawn of the points.
func (c *chart) curve(class string, points []evaluate.Point) {
	var xy []evaluate.Point
	for _, p := range points {
		if drawn(p.X, p.Y) {
			xy = append(xy, evaluate.Point{X: c.x.at(p.X), Y: c.y.at(p.Y)})
		}
	}
	c.path(class, xy)
}

// segment draws a line between two points.
func (c *chart) segment(class string, x1, y1, x2, y2 float64) {
	c.curve(class, []evaluate.Point{{X: x1, Y: y1}, {X: x2, Y: y2}})
}

// mark draws a point.
func (c *chart) mark(class string, x, y, r float64) {
	if drawn(x, y) {
		c.dot(class, c.x.at(x), c.y.at(y), r)
	}
}
