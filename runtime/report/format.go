package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// digits is how many digits of a number are shown.
const digits = 4

// number is a value with 4 significant digits: whole from 1,000 on, by powers of ten
// where it is very great or small. Zeros after the fourth decimal are left out, and all
// decimals of a whole number. NaN is "unknown".
func number(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v):
		return "unknown"
	case math.IsInf(v, 0):
		return sign(v) + "∞"
	case v == math.Trunc(v) && abs < 1e15:
		return sign(v) + thousands(strconv.FormatFloat(abs, 'f', 0, 64))
	}
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(abs, 'e', digits-1, 64), "e")
	exp, _ := strconv.Atoi(power)
	switch {
	case exp >= 15 || exp < -4:
		return sign(v) + mantissa + "×10" + superscript(exp)
	default:
		s := strconv.FormatFloat(abs, 'f', max(digits-1-exp, 0), 64)
		for dot := strings.IndexByte(s, '.'); dot >= 0 && len(s)-dot-1 > digits && s[len(s)-1] == '0'; {
			s = s[:len(s)-1]
		}
		return sign(v) + thousands(s)
	}
}

// short is number without the zeros at its end.
func short(v float64) string {
	s := number(v)
	if strings.Contains(s, ".") && !strings.Contains(s, "×") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// count is a whole number with its thousands separated.
func count[T int | int64](n T) string { return number(float64(n)) }

// percent is a share of one with at most one decimal.
func percent(share float64) string {
	p := 100 * share
	switch {
	case !drawn(p):
		return "unknown"
	case p > 0 && p < 0.05:
		return "<0.1\u00a0%"
	case p > 0 && p < 9.95:
		return strings.TrimSuffix(strconv.FormatFloat(p, 'f', 1, 64), ".0") + "\u00a0%"
	}
	return strconv.FormatFloat(p, 'f', 0, 64) + "\u00a0%"
}

// span is an interval.
func span(low, high float64) string { return number(low) + " to " + number(high) }

func sign(v float64) string {
	if v < 0 {
		return "−"
	}
	return ""
}

// thousands separates the thousands of a decimal number without a sign.
func thousands(s string) string {
	whole, rest, dot := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dot {
		return whole + "." + rest
	}
	return whole
}

var superscripts = strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹")

func superscript(n int) string { return superscripts.Replace(strconv.Itoa(n)) }

// indented is a JSON text with a line a value; what is no JSON stays as it is.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}
