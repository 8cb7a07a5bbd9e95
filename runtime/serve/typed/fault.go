package typed

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"mlc.dev/mlc/compiler/diag"
)

// Fault is what is wrong with one value of a request.
type Fault struct {
	// Path is a JSON path as RFC 9535 has it: $.rows[3]["bird.species"]. Over gRPC it
	// is a field's: rows[3].bird_species.
	Path string `json:"path"`
	Code string `json:"code"`
	What string `json:"what"`
	// Mend says how to mend it, where that can be told.
	Mend string `json:"mend,omitempty"`
}

// The codes of faults.
const (
	Unknown     = "unknown_field"
	Duplicate   = "duplicate"     // a name that comes twice
	Missing     = "missing"       // not there, or null, and has to be
	WrongType   = "wrong_type"    // or an array or object where a value should be
	NotWhole    = "not_whole"     // a fraction where a whole number should be, or one beyond 64 bits
	NotFinite   = "not_finite"    // NaN, infinite, or beyond a double
	OutOfRange  = "out_of_range"  // below min or above max
	NotAmong    = "unknown_value" // not among the values that are declared
	BadTime     = "bad_timestamp"
	Reserved    = "reserved_text" // the text that stands for a missing value, or one with a NUL
	BadText     = "bad_text"      // an id or key that does not do
	Empty       = "empty"         // no rows
	Conflicting = "conflict"      // rows and features at once
)

// MaxFaults is how many faults of a request are told; the rest are counted.
const MaxFaults = 64

// faults collects what is wrong with a request, in bounded memory and time.
type faults struct {
	told []Fault
	more int
	// effort is what looking for similar names may still take, in comparisons.
	effort int
}

func (f *faults) reset() { *f = faults{effort: 1 << 20} }

func (f *faults) any() bool { return len(f.told) > 0 }

// room reports whether another fault is told.
func (f *faults) room() bool { return len(f.told) < MaxFaults }

// full reports whether another fault is only counted; it counts it then.
func (f *faults) full() bool {
	if f.room() {
		return false
	}
	f.more++
	return true
}

func (f *faults) add(path, code, mend, what string, args ...any) {
	f.told = append(f.told, Fault{Path: path, Code: code, What: fmt.Sprintf(what, args...), Mend: mend})
}

// suggest is the candidate that name may have meant, as advice, or "".
func (f *faults) suggest(name string, candidates []string) string {
	if len(name) > 100 {
		return ""
	}
	for _, c := range candidates {
		f.effort -= (len(name) + 1) * (len(c) + 1)
	}
	if f.effort < 0 {
		return ""
	}
	return strings.TrimPrefix(diag.Suggest(name, candidates), "; ")
}

// text says in one line what is wrong.
func (f *faults) text() string {
	s := f.told[0].Path + ": " + f.told[0].What
	if n := len(f.told) - 1 + f.more; n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s
}

// appendJSON writes the members error, faults, and more where some are not told.
func (f *faults) appendJSON(b []byte) []byte {
	b = appendText(append(b, `"error":`...), f.text())
	b = append(b, `,"faults":[`...)
	for i, x := range f.told {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"path":`...), x.Path)
		b = appendText(append(b, `,"code":`...), x.Code)
		b = appendText(append(b, `,"what":`...), x.What)
		if x.Mend != "" {
			b = appendText(append(b, `,"mend":`...), x.Mend)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if f.more > 0 {
		b = strconv.AppendInt(append(b, `,"more":`...), int64(f.more), 10)
	}
	return b
}

// short is s cut to what fits a message.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	n := most
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
