package batch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mlc.dev/mlc/compiler/service"
)

// The bubble of synctest begins at midnight, January 1, 2000, a Saturday.

func at(day, hour, minute int) time.Time {
	return time.Date(2000, 1, day, hour, minute, 0, 0, time.UTC)
}

// during runs a scheduler for a time.
func during(t *testing.T, o ScheduleOptions, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := Schedule(ctx, o); err != nil {
		t.Fatal(err)
	}
}

func runs(out *[]time.Time) func(Event) {
	return func(e Event) {
		if e.Ended.IsZero() {
			*out = append(*out, e.Begun)
		}
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

// TestScheduleRuns: each batch at its times, none without a schedule.
func TestScheduleRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := map[string][]time.Time{}
		o := ScheduleOptions{State: filepath.Join(t.TempDir(), "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 */6 * * *"}, {Name: "b", Schedule: "30 4 * * 1"}, {Name: "hand"}},
			Run: func(context.Context, service.Batch) error { time.Sleep(time.Hour); return nil }}
		o.Told = func(e Event) {
			if e.Ended.IsZero() {
				got[e.Batch] = append(got[e.Batch], e.Begun)
			} else if e.Ended.Sub(e.Begun) != time.Hour || e.Err != nil {
				t.Errorf("%+v", e)
			}
		}
		during(t, o, 71*time.Hour)
		want := map[string][]time.Time{"b": {at(3, 4, 30)}}
		for h := 6; h < 72; h += 6 {
			want["a"] = append(want["a"], at(1, h, 0))
		}
		equal(t, got, want)
	})
}

// TestScheduleMakesUpOne: of the runs that were missed while no scheduler ran, one
// is made up, and a batch that is new has missed none.
func TestScheduleMakesUpOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Time
		o := ScheduleOptions{State: filepath.Join(t.TempDir(), "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 * * * *"}},
			Run: func(context.Context, service.Batch) error { return nil }, Told: runs(&got)}
		time.Sleep(10 * time.Minute)
		during(t, o, time.Hour) // 1:00
		time.Sleep(5 * time.Hour)
		next, err := Next(o.Batches, o.State)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, next[0].Next, at(1, 2, 0)) // missed
		during(t, o, time.Hour)             // 6:10, 7:00
		equal(t, got, []time.Time{at(1, 1, 0), at(1, 6, 10), at(1, 7, 0)})
		if next, err = Next(o.Batches, o.State); err != nil {
			t.Fatal(err)
		}
		equal(t, next[0].Next, at(1, 8, 0))
		equal(t, next[0].Last.Due, at(1, 7, 0))
	})
}

// TestScheduleNeverTwice: a run that takes longer than its interval is followed by
// one that makes up all it was in the way of; others go on meanwhile.
func TestScheduleNeverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Time
		var now, others atomic.Int32
		o := ScheduleOptions{State: filepath.Join(t.TempDir(), "s.json"), Batches: []service.Batch{{Name: "slow", Schedule: "*/10 * * * *"}, {Name: "other", Schedule: "*/10 * * * *"}}}
		o.Told = func(e Event) {
			if e.Batch == "slow" {
				runs(&got)(e)
			}
		}
		o.Run = func(_ context.Context, b service.Batch) error {
			if b.Name == "other" {
				others.Add(1)
				return nil
			}
			if now.Add(1) != 1 {
				t.Error("a batch runs twice at once")
			}
			time.Sleep(35 * time.Minute)
			now.Add(-1)
			return nil
		}
		during(t, o, 95*time.Minute)
		equal(t, got, []time.Time{at(1, 0, 10), at(1, 0, 45), at(1, 1, 20)})
		if n := others.Load(); n != 9 {
			t.Errorf("the other ran %d times", n)
		}
	})
}

// TestScheduleAfterAClockThatWasAhead: what was due after a time that has not come yet
// is run all the same.
func TestScheduleAfterAClockThatWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Time
		o := ScheduleOptions{State: filepath.Join(t.TempDir(), "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 0 * * *"}}, Told: runs(&got), Run: func(context.Context, service.Batch) error { return nil }}
		state := fmt.Sprintf(`{"format": %q, "batches": {"a": {"since": "2007-01-01T00:00:00Z"}}}`, StateFormat)
		if err := os.WriteFile(o.State, []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		next, err := Next(o.Batches, o.State)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, next[0].Next, at(2, 0, 0))
		during(t, o, 49*time.Hour)
		equal(t, got, []time.Time{at(2, 0, 0), at(3, 0, 0)})
	})
}

// TestScheduleInterrupted: a run that the end of the scheduler cut off is made again
// at the next start, one that failed is not.
func TestScheduleInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		fail := errors.New("no such table")
		o := ScheduleOptions{State: filepath.Join(t.TempDir(), "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 0 * * *"}}, Told: func(e Event) { events = append(events, e) }}
		o.Run = func(ctx context.Context, _ service.Batch) error { <-ctx.Done(); return ctx.Err() }
		during(t, o, 25*time.Hour)
		next, err := Next(o.Batches, o.State)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, next[0].Next, at(2, 0, 0))
		o.Run = func(context.Context, service.Batch) error { return fail }
		during(t, o, time.Hour)
		if next, err = Next(o.Batches, o.State); err != nil {
			t.Fatal(err)
		}
		equal(t, next[0].Next, at(3, 0, 0))
		equal(t, next[0].Last.Error, fail.Error())
		equal(t, events, []Event{{Batch: "a", Due: at(2, 0, 0), Begun: at(2, 0, 0)}, {Batch: "a", Due: at(2, 0, 0), Begun: at(2, 1, 0)}, {Batch: "a", Due: at(2, 0, 0), Begun: at(2, 1, 0), Ended: at(2, 1, 0), Err: fail}})
	})
}

// TestScheduleStateGone: when the state cannot be kept, it is told, and the runs go on.
func TestScheduleStateGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		n, told := 0, 0
		o := ScheduleOptions{State: filepath.Join(dir, "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 * * * *"}}}
		o.Run = func(context.Context, service.Batch) error { n++; return os.RemoveAll(dir) }
		o.Told = func(e Event) {
			if e.State != nil {
				told++
			}
			if e.Err != nil {
				t.Error(e.Err)
			}
		}
		during(t, o, 150*time.Minute)
		if n != 2 || told != 3 { // the end of the first, both of the second
			t.Errorf("%d runs, %d events with errors", n, told)
		}
	})
}

// TestScheduleRefuses: what cannot work is told before anything runs.
func TestScheduleRefuses(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"format": "mlc.sche`), 0o644); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "s.json")
	for want, o := range map[string]ScheduleOptions{
		"five fields":       {State: good, Batches: []service.Batch{{Name: "a", Schedule: "@daily"}}},
		"two batches":       {State: good, Batches: []service.Batch{{Name: "a", Schedule: "0 0 * * *"}, {Name: "a"}}},
		"no state":          {State: broken, Batches: []service.Batch{{Name: "a", Schedule: "0 0 * * *"}}},
		"no such file or d": {State: filepath.Join(dir, "none", "s.json"), Batches: []service.Batch{{Name: "a", Schedule: "0 0 * * *"}}},
	} {
		if err := Schedule(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	o := ScheduleOptions{State: good, Batches: []service.Batch{{Name: "a", Schedule: "* * * * *"}}}
	unlock, err := lockState(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := Schedule(ctx, o); err == nil || !strings.Contains(err.Error(), "another scheduler") {
		t.Errorf("a second scheduler: %v", err)
	}
	unlock()
	go func() { first <- Schedule(ctx, o) }()
	cancel()
	if err := <-first; err != nil {
		t.Error(err)
	}
}
