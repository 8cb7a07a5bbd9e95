package typed

import (
	"math"
	"strconv"
	"time"
)

// parseInt reads a JSON number as a whole one of 64 bits: 7, 7.0 and 70e-1 are
// whole. The double is the one nearest to it.
func parseInt(lit []byte) (float64, bool) {
	d, neg := lit, false
	if d[0] == '-' {
		d, neg = d[1:], true
	}
	if len(d) <= 15 { // exact as a double, and by far the most
		v, plain := int64(0), true
		for _, c := range d {
			if c-'0' > 9 {
				plain = false
				break
			}
			v = v*10 + int64(c-'0')
		}
		if plain {
			if neg {
				return -float64(v), true
			}
			return float64(v), true
		}
	}
	// The number is digits × 10^exp, digits without zeros at either end.
	var digits [20]byte
	n, exp, zeros, point := 0, 0, 0, false
	for i, c := range d {
		if c == '.' {
			point = true
			continue
		}
		if c|0x20 == 'e' {
			e, err := strconv.Atoi(string(d[i+1:]))
			if err != nil || e < -1<<40 || e > 1<<40 { // far beyond either way, but for zero
				if n == 0 {
					return 0, true
				}
				return 0, false
			}
			exp += e
			break
		}
		if point {
			exp--
		}
		switch {
		case c == '0' && n == 0:
		case c == '0':
			zeros++
		default:
			if n+zeros+1 > 19 {
				return 0, false // more digits than 64 bits have, whole or not
			}
			for ; zeros > 0; zeros-- {
				digits[n] = '0'
				n++
			}
			digits[n] = c
			n++
		}
	}
	exp += zeros
	if n == 0 {
		if neg {
			return math.Copysign(0, -1), true
		}
		return 0, true
	}
	if exp < 0 || n+exp > 19 {
		return 0, false
	}
	u := uint64(0)
	for _, c := range digits[:n] {
		u = u*10 + uint64(c-'0')
	}
	for range exp {
		u *= 10
	}
	switch {
	case neg && u <= 1<<63:
		return -float64(u), true
	case !neg && u < 1<<63:
		return float64(u), true
	}
	return 0, false
}

// parseTime reads an RFC 3339 date-time as microseconds since 1970 UTC; digits
// beyond those are cut off. There is no second 60.
func parseTime(s []byte) (float64, bool) {
	const form = "0000-00-00T00:00:00"
	if len(s) <= len(form) {
		return 0, false
	}
	for i := range len(form) {
		switch c := s[i]; form[i] {
		case '0':
			if c-'0' > 9 {
				return 0, false
			}
		case 'T':
			if c|0x20 != 't' {
				return 0, false
			}
		default:
			if c != form[i] {
				return 0, false
			}
		}
	}
	num := func(i, n int) int {
		v := 0
		for _, c := range s[i : i+n] {
			v = v*10 + int(c-'0')
		}
		return v
	}
	year, month, day := num(0, 4), num(5, 2), num(8, 2)
	hour, minute, second := num(11, 2), num(14, 2), num(17, 2)
	if hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day || int(t.Month()) != month {
		return 0, false
	}
	micros, rest := 0, s[len(form):]
	if rest[0] == '.' {
		n := 1
		for ; n < len(rest) && rest[n]-'0' <= 9; n++ {
			if n <= 6 {
				micros = micros*10 + int(rest[n]-'0')
			}
		}
		if n == 1 {
			return 0, false
		}
		for k := n; k <= 6; k++ {
			micros *= 10
		}
		rest = rest[n:]
	}
	offset := 0
	switch {
	case len(rest) == 1 && rest[0]|0x20 == 'z':
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		for _, i := range []int{1, 2, 4, 5} {
			if rest[i]-'0' > 9 {
				return 0, false
			}
		}
		s = rest
		h, m := num(1, 2), num(4, 2)
		if h > 23 || m > 59 {
			return 0, false
		}
		if offset = h*60 + m; rest[0] == '-' {
			offset = -offset
		}
	default:
		return 0, false
	}
	return float64((t.Unix()-int64(offset)*60)*1e6 + int64(micros)), true
}
