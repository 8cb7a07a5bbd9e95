package lull

import (
	"testing"
	"time"
)

// Who keeps the core is left in peace, for longer each time, and asked again after.
func TestLull(t *testing.T) {
	l := Lull{Long: time.Hour}
	yielded := 0
	if at := l.Take(func() { yielded++ }); l.Rests(at) || yielded != 1 {
		t.Fatalf("it rests after a lull that nobody made long: yielded %d times", yielded)
	}
	l.Long = 0 // from here on each is long
	var rests []time.Duration
	for range 10 {
		l.rests = time.Time{}
		at := l.Take(func() { yielded++ })
		if !l.Rests(at) {
			t.Fatal("it does not rest after a long lull")
		}
		before := yielded
		if l.Take(func() { yielded++ }); yielded != before {
			t.Fatal("there was a lull while it rests")
		}
		rests = append(rests, l.rests.Sub(at))
	}
	if rests[0] != 10*time.Millisecond || rests[1] != 20*time.Millisecond || rests[9] != time.Second {
		t.Fatalf("it rests for %v", rests)
	}
	l.Long, l.rests = time.Hour, time.Time{}
	for range 100 {
		l.Take(func() {})
	}
	if l.without > time.Millisecond {
		t.Fatalf("after 100 short lulls it would rest for %v", 2*l.without)
	}
}
