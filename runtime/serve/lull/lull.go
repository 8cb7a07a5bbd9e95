// Package lull lets whoever else is ready on a core have it, and tells whether somebody
// keeps it.
package lull

import "time"

// Lull is kept by one goroutine. Where others keep the core there are no lulls for a
// while, which gets longer the more often that is so: from 10 ms to a second.
type Lull struct {
	// Long is the time that who keeps the core takes at least.
	Long time.Duration

	rests   time.Time     // there are none before
	without time.Duration // how long there were none
}

// Rests reports whether there are none at a time.
func (l *Lull) Rests(at time.Time) bool { return at.Before(l.rests) }

// Take lets others have the core by yield, unless it rests, and returns what time it is
// then.
func (l *Lull) Take(yield func()) time.Time {
	const least, most = 10 * time.Millisecond, time.Second
	before := time.Now()
	if l.Rests(before) {
		return before
	}
	yield()
	after := time.Now()
	if after.Sub(before) < l.Long {
		l.without -= l.without / 8
		return after
	}
	l.without = min(max(2*l.without, least), most)
	l.rests = after.Add(l.without)
	return after
}
