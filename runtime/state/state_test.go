package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/servertest"
	"mlc.dev/mlc/runtime/state"
)

func postgres(t *testing.T) *servertest.Server {
	s, err := servertest.Postgres()
	if errors.Is(err, servertest.ErrMissing) {
		t.Skip("SKIPPED: no PostgreSQL:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, location string, told func(string)) *state.DB {
	db, err := state.Open(t.Context(), state.Options{Location: location, Files: filepath.Join(t.TempDir(), "files.db"), Told: told})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestFileDigestUnseen: a file that changed in place, with size and modification time as
// they were, has another digest.
func TestFileDigestUnseen(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), nil)
	path := filepath.Join(t.TempDir(), "rows.csv")
	at := time.Date(2024, 1, 31, 12, 0, 0, 5, time.UTC)
	for _, text := range []string{"a\n1\n", "a\n2\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		for range 2 { // what is read, and then what is remembered
			got, err := db.FileDigest(path)
			if err != nil || got != digest(text) {
				t.Fatalf("%q: %s, %v", text, got, err)
			}
			for !db.Remembers(path) {
				if _, err := db.FileDigest(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func digest(s string) plan.Digest { return plan.DigestOf([]byte(s)) }

// history does what an apply and its user do, and returns all that can be read
// again. The two databases must tell the same.
func history(t *testing.T, db *state.DB) any {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 123456789, time.UTC)
	run, err := db.BeginRun(ctx, digest("plan"), now)
	must(err)
	step := plan.Step{ID: "model.train x", Version: "1", Args: json.RawMessage(`{"a":"it's ? $1"}`)}
	res := state.StepResult{Key: digest("key"), ID: step.ID, Outputs: map[string]plan.Digest{"model": digest("m")}, Report: json.RawMessage(`{"rows":3}`), Seconds: 0.25, Run: run, Engines: "e"}
	must(db.SavePlan(ctx, &plan.Plan{System: "s", Steps: []plan.Step{step}}))
	must(db.SavePlan(ctx, &plan.Plan{System: "s", Steps: []plan.Step{step}}))
	must(db.SaveStep(ctx, step, map[string]plan.Digest{"in": digest("in")}, res))
	must(db.SaveStep(ctx, step, map[string]plan.Digest{"in": digest("in")}, res)) // again, as after a lost answer
	apart := res
	apart.Key, apart.Run = digest("apart"), 0
	must(db.SaveStep(ctx, step, nil, apart)) // not the last
	must(db.Touch(ctx, step, digest("key2"), map[string]plan.Digest{"in": digest("in2")}, 0.5))
	must(db.SaveRunSteps(ctx, run, state.RunStep{ID: "b", Key: digest("key"), Status: "done", Seconds: 1}, state.RunStep{ID: "a", Status: "failed", Detail: "why"}))
	must(db.SaveRunSteps(ctx, run, state.RunStep{ID: "b", Key: digest("key"), Status: "cached"}))
	var versions []int
	for _, b := range []string{"b1", "b2", "b1"} {
		v, _, err := db.Register(ctx, "x", digest(b), json.RawMessage(`{}`), run, "staging", now)
		must(err)
		versions = append(versions, v)
	}
	_, err = db.Promote(ctx, "x", "production", 1, now, "by hand")
	must(err)
	_, err = db.Promote(ctx, "x", "production", 2, now, "by hand")
	must(err)
	_, _, err = db.Rollback(ctx, "x", "production", now)
	must(err)
	must(db.SaveImage(ctx, "a:1", "sha256:1"))
	must(db.SaveImage(ctx, "a:1", "sha256:2"))
	must(db.EndRun(ctx, run, "done", now.Add(time.Second)))
	second, err := db.BeginRun(ctx, digest("plan2"), now)
	must(err)
	_, serial, err := db.Lineage()
	must(err)
	steps, err := db.Steps()
	must(err)
	lasts, err := db.Lasts()
	must(err)
	last, _, err := db.LastRun()
	must(err)
	all, err := db.Versions("")
	must(err)
	moves, err := db.Moves("x")
	must(err)
	image, ok, err := db.Image("a:1")
	must(err)
	_, none, err := db.Image("b:1")
	must(err)
	one, found, err := db.Step(digest("key"))
	must(err)
	ref, err := db.Resolve("x@production")
	must(err)
	runs, err := db.Runs()
	must(err)
	this, _, err := db.Run(run)
	must(err)
	_, gone, err := db.Run(99)
	must(err)
	p, kept, err := db.Plan((&plan.Plan{System: "s", Steps: []plan.Step{step}}).Digest())
	must(err)
	_, other, err := db.Plan(digest("other"))
	must(err)
	engines, inputs, known, err := db.Origin(digest("key"))
	must(err)
	did, err := db.RunSteps(run)
	must(err)
	since, err := db.RunSteps(second)
	must(err)
	must(db.DropSteps(ctx, []plan.Digest{digest("never made"), digest("key"), digest("apart")}))
	left, err := db.Steps()
	must(err)
	_, _, lost, err := db.Origin(digest("key"))
	must(err)
	_, dropped, err := db.Lineage()
	must(err)
	return []any{run, second, serial, steps, lasts, last, all, moves, image, ok, none, one, found, ref, versions, runs, did, since, left, dropped,
		this, gone, p, kept, other, engines, inputs, known, lost}
}

func TestBothDatabasesTellTheSame(t *testing.T) {
	s := postgres(t)
	want := history(t, open(t, filepath.Join(t.TempDir(), "state.db"), nil))
	got := history(t, open(t, s.URL, nil))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("SQLite -, PostgreSQL +:\n%s", d)
	}
	told := got.([]any)[15:]
	if runs, did, since, left := told[0].([]state.Run), told[1].([]state.RunStep), told[2].([]state.RunStep), told[3].(map[plan.Digest]state.StepResult); len(runs) != 2 || len(did) != 2 || len(since) != 0 || len(left) != 0 {
		t.Errorf("%+v", told)
	}
}

// A state of the format before is brought up to date; what was not recorded then is
// told as unknown.
func TestFormatBefore(t *testing.T) {
	where := map[string]string{"sqlite": filepath.Join(t.TempDir(), "state.db")}
	if s, err := servertest.Postgres(); err == nil {
		t.Cleanup(func() { s.Close() })
		where["postgres"] = s.URL
	} else {
		t.Log("SKIPPED in part: no PostgreSQL:", err)
	}
	for name, location := range where {
		t.Run(name, func(t *testing.T) {
			old := open(t, location, nil)
			p := &plan.Plan{System: "s"}
			run, err := old.BeginRun(t.Context(), p.Digest(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := old.Age(t.Context()); err != nil {
				t.Fatal(err)
			}
			old.Close()
			db, ok, err := state.OpenExisting(t.Context(), state.Options{Location: location, Files: filepath.Join(t.TempDir(), "files.db")})
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			defer db.Close()
			r, ok, err := db.Run(run)
			if err != nil || !ok {
				t.Fatal(r, ok, err)
			}
			if _, ok, err := db.Plan(r.Plan); ok || err != nil {
				t.Error(ok, err)
			}
			if _, _, ok, err := db.Origin(digest("key")); ok || err != nil {
				t.Error(ok, err)
			}
			if err := db.SavePlan(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, ok, err := db.Plan(r.Plan); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
}

func TestNothingThereYet(t *testing.T) {
	s := postgres(t)
	o := state.Options{Location: s.URL + "&schema=other", Files: filepath.Join(t.TempDir(), "files.db")}
	if _, ok, err := state.OpenExisting(t.Context(), o); ok || err != nil {
		t.Fatal(ok, err)
	}
	db, err := state.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	again, ok, err := state.OpenExisting(t.Context(), o)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	again.Close()
}

// Who may only read sees what others write meanwhile, as a service has to.
func TestReaderSeesWhatOthersWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	register := func(bundle plan.Digest) {
		t.Helper()
		db, err := state.Open(t.Context(), state.Options{Location: path})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, _, err := db.Register(t.Context(), "m", bundle, json.RawMessage(`{}`), 0, "production", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	register("sha256:1")
	r, err := state.OpenRead(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for want := 1; want <= 3; want++ {
		if v, err := r.Resolve("m@production"); err != nil || v.Version != want {
			t.Fatalf("version %d, %v, not %d", v.Version, err, want)
		}
		register(plan.Digest(fmt.Sprint("sha256:", want+1)))
	}
}

func locked(err error) bool {
	var d diag.Diagnostic
	return errors.As(err, &d) && d.Code == diag.Locked
}

// TestBusyOnlyLooks: who asks whether an apply is at work leaves no trace.
func TestBusyOnlyLooks(t *testing.T) {
	at := filepath.Join(t.TempDir(), "state.db")
	a, b := open(t, at, nil), open(t, at, nil)
	if busy, err := b.Busy(); busy || err != nil {
		t.Error(busy, err)
	}
	if _, err := os.Stat(at + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	_, release, err := a.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := b.Busy(); !busy || err != nil {
		t.Error(busy, err)
	}
	if owner, err := os.ReadFile(at + ".lock"); !strings.HasPrefix(string(owner), "process ") {
		t.Errorf("%q, %v", owner, err)
	}
	release()
	if busy, err := b.Busy(); busy || err != nil {
		t.Error(busy, err)
	}
}

func TestLeaseHasOneOwner(t *testing.T) {
	s := postgres(t)
	a, b := open(t, s.URL, nil), open(t, s.URL, nil)
	_, release, err := a.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Acquire(t.Context()); !locked(err) || !strings.Contains(err.Error(), "process") {
		t.Errorf("%v", err)
	}
	if busy, err := b.Busy(); !busy || err != nil {
		t.Error(busy, err)
	}
	release()
	if busy, err := b.Busy(); busy || err != nil {
		t.Error(busy, err)
	}
	_, release, err = b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// The lease of a dead process ends by the server's clock; whoever had it can
// write nothing past the next owner.
func TestLeaseOfTheDeadEnds(t *testing.T) {
	s := postgres(t)
	dead, next, hand := open(t, s.URL, nil), open(t, s.URL, nil), open(t, s.URL, nil)
	_, release, err := dead.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := hand.ExpireLease(t.Context()); err != nil { // as if its time had passed
		t.Fatal(err)
	}
	_, release2, err := next.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	if _, err := dead.BeginRun(t.Context(), digest("p"), time.Now()); !locked(err) {
		t.Errorf("it wrote past another's lease: %v", err)
	}
	if _, err := next.BeginRun(t.Context(), digest("p"), time.Now()); err != nil {
		t.Error(err)
	}
}

// A clock that jumps takes no lease from its owner: only the server's counts.
func TestClockThatJumps(t *testing.T) {
	s := postgres(t)
	a, b := open(t, s.URL, nil), open(t, s.URL, nil)
	_, release, err := a.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		run, err := a.BeginRun(t.Context(), digest("p"), time.Now().Add(jump))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.EndRun(t.Context(), run, "done", time.Now().Add(-jump)); err != nil {
			t.Fatal(err)
		}
		if last, _, err := a.LastRun(); err != nil || last.ID != run {
			t.Errorf("run %d is not the last: %v %v", run, last.ID, err)
		}
		if _, _, err := b.Acquire(t.Context()); !locked(err) {
			t.Errorf("%v", err)
		}
	}
}

func TestPostgresGoneForAMinute(t *testing.T) {
	s := postgres(t)
	var mu sync.Mutex
	told := 0
	back := make(chan error, 1)
	db := open(t, s.URL, func(string) {
		mu.Lock()
		defer mu.Unlock()
		if told++; told == 2 {
			go func() { back <- s.Start() }()
		}
	})
	s.Stop()
	run, err := db.BeginRun(t.Context(), digest("p"), time.Now())
	if err != nil || run != 1 {
		t.Fatal(run, err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if told < 2 {
		t.Errorf("%d retries were told", told)
	}
}

func TestPostgresGoneAndInterrupted(t *testing.T) {
	s := postgres(t)
	ctx, cancel := context.WithCancel(t.Context())
	db := open(t, s.URL, func(string) { cancel() })
	s.Stop()
	if _, err := db.BeginRun(ctx, digest("p"), time.Now()); err == nil {
		t.Error("no error")
	}
}

func TestPostgresRefuses(t *testing.T) {
	s := postgres(t)
	_, err := state.Open(t.Context(), state.Options{Location: strings.Replace(s.URL, "/postgres?", "/nowhere?", 1), Files: filepath.Join(t.TempDir(), "f.db")})
	var d diag.Diagnostic
	if !errors.As(err, &d) || d.Code != diag.StateFailed || !strings.Contains(d.What, `database "nowhere" does not exist`) {
		t.Errorf("%v", err)
	}
}
