package api_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/runtime/serve/api"
)

// TestWithinIsWithTimeout does the same to a context of package context and to ours,
// in any order, and sees the same.
func TestWithinIsWithTimeout(t *testing.T) {
	type key struct{}
	boom := errors.New("boom")
	rapid.Check(t, func(rt *rapid.T) {
		parentFor := rapid.IntRange(0, 20).Draw(rt, "parent")
		ownFor := rapid.IntRange(1, 20).Draw(rt, "own")
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"wait", "done", "child", "cancel", "parent", "value"}), 0, 12).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			parent, stop := context.WithCancelCause(context.WithValue(t.Context(), key{}, 7))
			defer stop(nil)
			if parentFor > 0 {
				var end context.CancelFunc
				parent, end = context.WithTimeout(parent, time.Duration(parentFor)*time.Second)
				defer end()
			}
			theirs, end1 := context.WithTimeout(parent, time.Duration(ownFor)*time.Second)
			defer end1()
			ours := api.Within(parent, time.Duration(ownFor)*time.Second)
			defer ours.End()
			kids := [2][]context.Context{}
			watched, told := false, error(nil)
			for _, step := range steps {
				switch step {
				case "wait":
					time.Sleep(3 * time.Second)
				case "done":
					watched = watched || theirs.Err() == nil
					ours.Done()
				case "child":
					watched = watched || theirs.Err() == nil
					for i, c := range []context.Context{theirs, ours} {
						kid, end := context.WithCancel(c)
						defer end()
						kids[i] = append(kids[i], kid)
					}
				case "cancel":
					end1()
					ours.End()
				case "parent":
					stop(boom)
				case "value":
					if ours.Value(key{}) != 7 {
						t.Errorf("value is %v", ours.Value(key{}))
					}
				}
				synctest.Wait()
				a, aok := theirs.Deadline()
				b, bok := ours.Deadline()
				if !a.Equal(b) || aok != bok {
					t.Errorf("deadline %v, want %v", b, a)
				}
				err := ours.Err()
				if (err == nil) != (theirs.Err() == nil) || watched && err != theirs.Err() || told != nil && err != told {
					t.Errorf("after %s: error %v, want %v; told before: %v", step, err, theirs.Err(), told)
				}
				told = err
				if watched {
					select {
					case <-ours.Done():
						if theirs.Err() == nil {
							t.Error("done too soon")
						}
					default:
						if theirs.Err() != nil {
							t.Error("not done")
						}
					}
				}
				for k := range kids[0] {
					if a, b := kids[0][k].Err(), kids[1][k].Err(); (a == nil) != (b == nil) || watched && a != b {
						t.Errorf("child %d: error %v, want %v", k, b, a)
					}
				}
			}
		})
	})
}
