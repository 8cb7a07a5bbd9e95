// Package types holds the small types of the spec language: column types,
// durations, sizes and instants. It is a leaf.
package types

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is the type of a column or an expression.
type Type string

// The column types. Int is a 64-bit integer; as a feature, every number is an
// IEEE double, exact for integers up to 2^53. Timestamp counts microseconds UTC.
const (
	Invalid   Type = ""
	Bool      Type = "bool"
	Int       Type = "int"
	Float     Type = "float"
	String    Type = "string"
	Timestamp Type = "timestamp"
	// Null is the type of a bare NULL; it agrees with every other.
	Null Type = "null"
)

// Numeric reports whether t is Int or Float.
func (t Type) Numeric() bool { return t == Int || t == Float }

// SQL returns the DuckDB type that holds a column of type t.
func (t Type) SQL() string {
	switch t {
	case Bool:
		return "BOOLEAN"
	case Int:
		return "BIGINT"
	case Float:
		return "DOUBLE"
	case Timestamp:
		return "TIMESTAMP"
	default:
		return "VARCHAR"
	}
}

// NullString stands for NULL in string tensors, which have no null of their
// own: U+2400, SYMBOL FOR NULL. Validation quarantines rows whose data holds it.
const NullString = "␀"

// ParseDuration reads a Go duration extended by days and weeks: "90m", "30d",
// "2w", "1d12h". The result is not negative.
func ParseDuration(s string) (time.Duration, error) {
	rest, total := s, time.Duration(0)
	for rest != "" {
		i := 0
		for i < len(rest) && (rest[i] >= '0' && rest[i] <= '9' || rest[i] == '.') {
			i++
		}
		j := i
		for j < len(rest) && rest[j] >= 'a' && rest[j] <= 'z' {
			j++
		}
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration; write it like 12h, 30d or 2w", s)
		}
		unit, ok := units[rest[i:j]]
		if !ok {
			return 0, fmt.Errorf("%q is no duration: unknown unit %q; write it like 12h, 30d or 2w", s, rest[i:j])
		}
		d := n * float64(unit)
		if d > math.MaxInt64-float64(total) {
			return 0, fmt.Errorf("duration %q is too long", s)
		}
		total += time.Duration(d)
		rest = rest[j:]
	}
	if s == "" {
		return 0, fmt.Errorf("empty duration; write it like 12h, 30d or 2w")
	}
	return total, nil
}

var units = map[string]time.Duration{
	"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute,
	"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// FormatDuration prints a duration as specs write it: 2w, 3d, 1d12h, 90m.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []string{"w", "d", "h", "m", "s", "ms", "us"} {
		if n := d / units[u]; n > 0 && (u != "w" || d%units[u] == 0) {
			fmt.Fprintf(&b, "%d%s", n, u)
			d %= units[u]
		}
	}
	return b.String()
}

// ParseSize reads a number of bytes: "512", "64Mi", "4Gi", "1.5Gi".
func ParseSize(s string) (int64, error) {
	num, mult := s, int64(1)
	for i, u := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if strings.HasSuffix(s, u) {
			num, mult = strings.TrimSuffix(s, u), int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseFloat(num, 64)
	if err != nil || n < 0 || n*float64(mult) > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is no size; write it like 512Mi or 4Gi", s)
	}
	return int64(n * float64(mult)), nil
}

// FormatSize prints bytes with a binary unit: 4Gi, 1.5Gi, 512Mi.
func FormatSize(n int64) string {
	f, unit := float64(n), ""
	for _, u := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) + unit
}

// ParseTimestamp reads an instant as microseconds since 1970 UTC. It accepts
// "2006-01-02", "2006-01-02 15:04[:05[.999999]]" and RFC 3339.
func ParseTimestamp(s string) (int64, error) {
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMicro(), nil
		}
	}
	return 0, fmt.Errorf("%q is no timestamp; write it like 2024-01-31 or 2024-01-31 12:00:00", s)
}
