// Package view is the only writer to the terminal: it prints what commands
// decide, for people, as JSON or as Markdown.
package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"

	"mlc.dev/mlc/compiler/diag"
)

// View writes to an output and an error stream. JSON makes every line of the
// output an object; Colour is for terminals only.
type View struct {
	Out, Err io.Writer
	JSON     bool
	Colour   bool
	Terminal bool // Err is one: progress is redrawn in place
	// Source returns the text of a user's file, for positions and snippets.
	Source func(file string) []byte
	// Prefix is put before file names: the way from here to the spec's folder.
	Prefix string

	mu   sync.Mutex
	live string // the progress line on the terminal
}

// output is standard output, and the first error of writing to it.
type output struct {
	mu  sync.Mutex
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := os.Stdout.Write(b)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// Lost is why some of the output is not where it was to go; nil: all is there.
func (v *View) Lost() error {
	o, ok := v.Out.(*output)
	if !ok {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// New returns a view of the process's streams.
func New(jsonOut bool) *View {
	tty := term.IsTerminal(int(os.Stderr.Fd()))
	return &View{Out: &output{}, Err: os.Stderr, JSON: jsonOut, Terminal: tty && !jsonOut, Colour: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Format is the version of the JSON stream. Readers ignore what they do not
// know, and refuse another major version.
const Format = "mlc.stream.v1"

// Emit writes one JSON object with its type.
func (v *View) Emit(kind string, fields any) {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err) // plain data
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var buf bytes.Buffer
	fmt.Fprintf(&buf, `{"format":%q,"type":%q`, Format, kind)
	if s := string(b); len(s) > 2 {
		buf.WriteString("," + s[1:])
	} else {
		buf.WriteString("}")
	}
	buf.WriteByte('\n')
	v.Out.Write(buf.Bytes())
}

// Printf writes to the output.
func (v *View) Printf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintf(v.Out, format, args...)
}

// Row prints a row or line of a user's data, which is JSON. For people, its long texts
// are cut.
func (v *View) Row(line string) {
	if !v.JSON {
		line = texts.ReplaceAllStringFunc(line, cut)
	}
	v.Printf("%s\n", line)
}

// texts are the texts in JSON.
var texts = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// longest is how many characters of a text people get to see.
const longest = 200

// cut is a text in JSON, of a long one its beginning and its length.
func cut(text string) string {
	if utf8.RuneCountInString(text) <= longest {
		return text
	}
	var s string
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return text // no JSON
	}
	r := []rune(s)
	if len(r) <= longest {
		return text
	}
	b, err := json.Marshal(fmt.Sprintf("%s… (%d characters)", string(r[:longest]), len(r)))
	if err != nil {
		panic(err) // a text
	}
	return string(b)
}

// Notef writes to the error stream, which carries what is not the answer.
func (v *View) Notef(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	fmt.Fprintf(v.Err, format, args...)
	v.draw()
}

func (v *View) clear() {
	if v.live != "" {
		fmt.Fprint(v.Err, "\r\x1b[K")
	}
}

func (v *View) draw() {
	if v.live != "" {
		fmt.Fprint(v.Err, v.live)
	}
}

// Live redraws the progress line; "" takes it away.
func (v *View) Live(line string) {
	if !v.Terminal {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && len(line) >= w && w > 1 {
		line = line[:w-1]
	}
	v.live = line
	v.draw()
}

func (v *View) paint(code, s string) string {
	if !v.Colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Bold prints text in bold where colours are wanted.
func (v *View) Bold(s string) string { return v.paint("1", s) }

// Red prints text in red where colours are wanted.
func (v *View) Red(s string) string { return v.paint("31", s) }

// Yellow prints text in yellow where colours are wanted.
func (v *View) Yellow(s string) string { return v.paint("33", s) }

// Green prints text in green where colours are wanted.
func (v *View) Green(s string) string { return v.paint("32", s) }

// Dim prints text faintly where colours are wanted.
func (v *View) Dim(s string) string { return v.paint("2", s) }

// Place prints a range as file:line:col, or "" where it is unknown.
func (v *View) Place(r diag.Range) string {
	if !r.Known() {
		return ""
	}
	var src []byte
	if v.Source != nil {
		src = v.Source(r.File)
	}
	line, col := r.Position(src)
	return fmt.Sprintf("%s%s:%d:%d", v.Prefix, r.File, line, col)
}

// Diagnostics prints every diagnostic: its place, code and what, the line of the
// file that it is about, then why and how to mend it.
func (v *View) Diagnostics(list diag.List) {
	for _, d := range list {
		if v.JSON {
			v.Emit("diagnostic", struct {
				diag.Diagnostic
				Place string `json:"place,omitempty"`
			}{d, v.Place(d.At)})
			continue
		}
		var b strings.Builder
		if p := v.Place(d.At); p != "" {
			b.WriteString(v.Bold(p) + ": ")
		}
		if d.Severity == diag.Warning {
			b.WriteString(v.Yellow("warning ") + string(d.Code) + ": " + d.What + "\n")
		} else {
			b.WriteString(v.Red(string(d.Code)) + ": " + d.What + "\n")
		}
		v.snippet(&b, d.At)
		if d.Why != "" {
			b.WriteString("    why: " + d.Why + "\n")
		}
		if d.Mend != "" {
			b.WriteString("    mend: " + d.Mend + "\n")
		}
		for _, n := range d.Also {
			if p := v.Place(n.At); p != "" {
				b.WriteString("    " + p + ": " + n.Text + "\n")
			}
		}
		v.Notef("%s", b.String())
		v.annotate(d)
	}
}

// annotate tells GitHub of a diagnostic, so that it shows at the line of the
// change: its workflow commands, where a job of its Actions runs.
func (v *View) annotate(d diag.Diagnostic) {
	if os.Getenv("GITHUB_ACTIONS") != "true" {
		return
	}
	kind := "error"
	if d.Severity == diag.Warning {
		kind = "warning"
	}
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	at := ""
	if place := v.Place(d.At); place != "" {
		f := strings.Split(place, ":")
		if n := len(f); n >= 3 {
			at = fmt.Sprintf("file=%s,line=%s,col=%s,", property.Replace(strings.Join(f[:n-2], ":")), f[n-2], f[n-1])
		}
	}
	text := d.What
	if d.Mend != "" {
		text += "\n" + d.Mend
	}
	v.Notef("::%s %stitle=%s::%s\n", kind, at, property.Replace(string(d.Code)), data.Replace(text))
}

// credentials are the parts of URLs that a line of an environment's file may hold and
// nobody is shown: who asks, and options that are named like secrets.
var credentials = regexp.MustCompile(`://.*@|(?i)[?&;][\w.-]*(?:secret|password|passwd|token|key)[\w.-]*=[^&\s"]+`)

// snippet prints the line of a range with its part underlined.
func (v *View) snippet(b *strings.Builder, r diag.Range) {
	if !r.Known() || v.Source == nil {
		return
	}
	src := v.Source(r.File)
	line, col := r.Position(src)
	lines := bytes.Split(src, []byte{'\n'})
	if line > len(lines) || r.End <= r.Start {
		return
	}
	text := strings.TrimRight(string(lines[line-1]), "\r")
	if len(text) > 160 {
		return
	}
	text = credentials.ReplaceAllStringFunc(text, func(s string) string {
		at := strings.IndexAny(s, "/=")
		return s[:at] + strings.Repeat("*", len(s)-at) // the rest of the line keeps its place
	})
	width := max(1, min(r.End-r.Start, len(text)-col+1))
	pad := strings.Map(func(c rune) rune {
		if c == '\t' {
			return '\t'
		}
		return ' '
	}, text[:min(col-1, len(text))])
	fmt.Fprintf(b, "    %s\n    %s%s\n", v.Dim(text), pad, v.Red(strings.Repeat("^", width)))
}
