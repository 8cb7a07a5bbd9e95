// Package diag is the one vocabulary for what is wrong: a Diagnostic with a
// code, a place in the user's file, what, why and how to mend it. It is a leaf:
// it imports nothing of ours.
package diag

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Range is a half-open span of bytes in a file. Start == End marks a point;
// an empty File means that no place is known.
type Range struct {
	File  string `json:"file,omitempty"`
	Start int    `json:"start,omitempty"`
	End   int    `json:"end,omitempty"`
}

// Known reports whether r names a place.
func (r Range) Known() bool { return r.File != "" }

// Within returns the span [start, end) counted from r's start, clipped to r.
// It is how an error inside a string literal finds its own column.
func (r Range) Within(start, end int) Range {
	s := min(r.Start+start, r.End)
	return Range{r.File, s, min(max(r.Start+end, s), r.End)}
}

// Position returns the 1-based line and byte column of r's start in src.
func (r Range) Position(src []byte) (line, col int) {
	n := min(max(r.Start, 0), len(src))
	line = 1 + bytes.Count(src[:n], []byte{'\n'})
	return line, n - bytes.LastIndexByte(src[:n], '\n')
}

// Severity grades a Diagnostic.
type Severity string

// Error stops what was asked for; Warning does not.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Note is a second place that a Diagnostic speaks of.
type Note struct {
	At   Range  `json:"at"`
	Text string `json:"text"`
}

// Diagnostic is one mistake. What says what is wrong in one line; Why and Mend
// say why it matters and how to mend it, and may be empty where What tells all.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	What     string   `json:"what"`
	Why      string   `json:"why,omitempty"`
	Mend     string   `json:"mend,omitempty"`
	At       Range    `json:"at"`
	Also     []Note   `json:"also,omitempty"`
}

// Error makes a Diagnostic an error, so that it can travel through code that
// returns one. The text has no position: views print that.
func (d Diagnostic) Error() string {
	s := fmt.Sprintf("%s: %s", d.Code, d.What)
	if d.Why != "" {
		s += ": " + d.Why
	}
	if d.Mend != "" {
		s += "; " + d.Mend
	}
	return s
}

// List collects diagnostics. The zero value is empty and ready.
type List []Diagnostic

// Add appends an error with no explanation beyond what.
func (l *List) Add(at Range, code Code, what string, args ...any) *Diagnostic {
	*l = append(*l, Diagnostic{Severity: Error, Code: code, What: fmt.Sprintf(what, args...), At: at})
	return &(*l)[len(*l)-1]
}

// Because sets d's Why and Mend.
func (d *Diagnostic) Because(why, mend string) *Diagnostic {
	d.Why, d.Mend = why, mend
	return d
}

// Unwritable is the mistake of a path that the user gave, where nothing can be
// written because of err.
func Unwritable(path string, err error) Diagnostic {
	d := Diagnostic{Severity: Error, Code: NotWritten, Mend: "name a place that you may write to"}
	if _, none := os.Stat(filepath.Dir(path)); none != nil && errors.Is(err, fs.ErrNotExist) {
		d.Mend = "make the folder, or name another"
		err = fmt.Errorf("there is no folder %s", filepath.Dir(path))
	}
	var op *fs.PathError // its path may be that of a temporary file, as both of a link
	var link *os.LinkError
	switch {
	case errors.As(err, &op):
		err = op.Err
	case errors.As(err, &link):
		err = link.Err
	}
	d.What = fmt.Sprintf("%s cannot be written: %v", path, err)
	return d
}

// Append adds whatever diagnostics err carries; an ordinary error becomes one
// internal diagnostic at at.
func (l *List) Append(err error, at Range) {
	*l = append(*l, From(err, at)...)
}

// From returns the diagnostics that err carries, those without a place put at
// at. An error that carries none becomes one with code Internal.
func From(err error, at Range) List {
	if err == nil {
		return nil
	}
	var out List
	var list ListError
	var one Diagnostic
	joined, several := err.(interface{ Unwrap() []error }) // what wraps them has a text of its own
	switch {
	case several:
		for _, e := range joined.Unwrap() {
			out.Append(e, at)
		}
	case errors.As(err, &list):
		out = append(out, list...)
	case errors.As(err, &one):
		out = append(out, one)
	default:
		out = append(out, Diagnostic{Severity: Error, Code: Internal, What: err.Error()})
	}
	for i := range out {
		if !out[i].At.Known() {
			out[i].At = at
		}
	}
	return out
}

// HasErrors reports whether any diagnostic is an error.
func (l List) HasErrors() bool {
	for _, d := range l {
		if d.Severity == Error {
			return true
		}
	}
	return false
}

// Sort orders by file, place, code and text, and drops exact repetitions.
func (l *List) Sort() {
	s := *l
	sort.SliceStable(s, func(i, j int) bool {
		a, b := s[i], s[j]
		if a.At.File != b.At.File {
			return a.At.File < b.At.File
		}
		if a.At.Start != b.At.Start {
			return a.At.Start < b.At.Start
		}
		if a.Code != b.Code {
			return a.Code < b.Code
		}
		return a.What < b.What
	})
	out := s[:0]
	for i, d := range s {
		if i > 0 && d.At == s[i-1].At && d.Code == s[i-1].Code && d.What == s[i-1].What {
			continue
		}
		out = append(out, d)
	}
	*l = out
}

// Err returns the list as an error, or nil when it holds no error.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return ListError(l)
}

// ListError is a List that travels as an error.
type ListError List

// Error joins the diagnostics, a line each.
func (l ListError) Error() string {
	lines := make([]string, len(l))
	for i, d := range l {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n")
}

// Some joins names for a message, of many the first 20.
func Some(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// Suggest returns "; did you mean …?" with the candidate nearest to name, or ""
// when none is near (edit distance at most a third of the longer name). Case does
// not count.
func Suggest(name string, candidates []string) string {
	best, bestDist := "", 1<<30
	for _, c := range candidates {
		if c == name {
			continue
		}
		if d := editDistance(strings.ToLower(name), strings.ToLower(c)); d < bestDist || d == bestDist && c < best {
			best, bestDist = c, d
		}
	}
	longer := max(len(name), len(best))
	if best == "" || bestDist > max(1, longer/3) || bestDist == longer {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// Choices is Suggest, and where no candidate is near it names what there is.
func Choices(name string, candidates []string) string {
	if near := Suggest(name, candidates); near != "" || len(candidates) == 0 {
		return near
	}
	return "; there is " + Some(candidates)
}

// An is a word with its article.
func An[T ~string](word T) string {
	if word != "" && strings.ContainsRune("aeiou", rune(word[0])) {
		return "an " + string(word)
	}
	return "a " + string(word)
}

// editDistance is the Levenshtein distance with a swap of neighbours counted
// as one edit (optimal string alignment).
func editDistance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
