// Package split tests what every split promises.
package split

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/stdlib"
)

func assign(t interface {
	Helper()
	Fatalf(string, ...any)
}, name, args string, job kind.SplitJob) []kind.Part {
	t.Helper()
	k, ok := stdlib.Kinds().Splits.Get(name)
	if !ok {
		t.Fatalf("no split %s", name)
	}
	job.Args = json.RawMessage(args)
	out, err := k.Assign(context.Background(), job)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

func shares(parts []kind.Part) map[kind.Part]float64 {
	out := map[kind.Part]float64{}
	for _, p := range parts {
		out[p] += 1 / float64(len(parts))
	}
	return out
}

// TestRandomKeepsGroups: rows of a group stay together, keep their part when
// others come, and the shares are about as asked.
func TestRandomKeepsGroups(t *testing.T) {
	job := kind.SplitJob{Seed: 7}
	for i := range 6000 {
		job.Group = append(job.Group, fmt.Sprint("g", i/2))
	}
	a := assign(t, "random", `{"validation":0.1,"test":0.2}`, job)
	s := shares(a)
	if math.Abs(s[kind.Test]-0.2) > 0.03 || math.Abs(s[kind.Valid]-0.1) > 0.03 {
		t.Errorf("shares %v", s)
	}
	for i := 0; i < len(a); i += 2 {
		if a[i] != a[i+1] {
			t.Fatalf("group %s is split", job.Group[i])
		}
	}
	job.Group = append(append([]string{"first"}, job.Group...), "last")
	b := assign(t, "random", `{"validation":0.1,"test":0.2}`, job)
	for i := range a {
		if a[i] != b[i+1] {
			t.Fatalf("row %d changed its part", i)
		}
	}
}

// TestStratifiedKeepsShares: every class has the shares, to a row.
func TestStratifiedKeepsShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var job kind.SplitJob
		sizes := map[float64]int{}
		for c := range rapid.IntRange(1, 4).Draw(t, "classes") {
			n := rapid.IntRange(1, 60).Draw(t, "n")
			sizes[float64(c)] = n
			for range n {
				job.Label, job.Group = append(job.Label, float64(c)), append(job.Group, "same")
			}
		}
		test := map[float64]int{}
		for i, p := range assign(t, "stratified", `{"validation":0.1,"test":0.25}`, job) {
			if p == kind.Test {
				test[job.Label[i]]++
			}
		}
		for c, n := range sizes {
			if want := int(math.Round(0.25 * float64(n))); test[c] != want {
				t.Fatalf("class %v: %d of %d test, want %d", c, test[c], n, want)
			}
		}
	})
}

// TestTimeNeverLooksBack: no training row's outcome is known only after the start of
// validation, no validation row's only after that of the test, and time decides. Where no
// row is left to validate it fails.
func TestTimeNeverLooksBack(t *testing.T) {
	day := (24 * time.Hour).Microseconds()
	k, _ := stdlib.Kinds().Splits.Get("time")
	rapid.Check(t, func(t *rapid.T) {
		job := kind.SplitJob{Args: json.RawMessage(`{"validation":"10d","test":"20d"}`), Time: rapid.SliceOfN(rapid.Int64Range(0, 100*day), 1, 60).Draw(t, "times")}
		newest := int64(0)
		for _, at := range job.Time {
			newest = max(newest, at)
			job.Known = append(job.Known, at+rapid.Int64Range(0, 12*day).Draw(t, "delay"))
		}
		test, valid := newest-20*day, newest-30*day
		parts, err := k.Assign(t.Context(), job)
		if err != nil {
			late := 0
			for i, at := range job.Time {
				if at > valid && at <= test {
					if late++; job.Known[i] <= test {
						t.Fatalf("row at %d could validate: %v", at, err)
					}
				}
			}
			if late == 0 || diag.From(err, diag.Range{})[0].Code != diag.EmptySplit {
				t.Fatalf("%d rows of validation: %v", late, err)
			}
			return
		}
		for i, at := range job.Time {
			known := job.Known[i]
			switch parts[i] {
			case kind.Train:
				if known > valid {
					t.Fatalf("training row at %d, known at %d, reaches into validation", at, known)
				}
			case kind.Valid:
				if at <= valid || known > test {
					t.Fatalf("validation row at %d, known at %d", at, known)
				}
			case kind.Test:
				if at <= test {
					t.Fatalf("test row at %d", at)
				}
			case kind.Purged:
				if at > test || known <= valid {
					t.Fatalf("row at %d, known at %d, is purged for nothing", at, known)
				}
			}
		}
	})
}

// A validation span that no outcome of its rows outlasts is told before anything runs.
func TestShortValidation(t *testing.T) {
	day := (24 * time.Hour).Microseconds()
	for name, args := range map[string]string{"time": `{"validation":"10d","test":"20d"}`, "rolling": `{"validation":"10d","test":"20d","folds":2}`} {
		k, _ := stdlib.Kinds().Splits.Get(name)
		for late, want := range map[int64]int{0: 0, 9 * day: 0, 10 * day: 1, 11 * day: 1} {
			if faults := k.Check(json.RawMessage(args), kind.SplitInfo{HasTime: true, Late: late}); len(faults) != want || want > 0 && faults[0].Field != "validation" {
				t.Errorf("%s, %d late: %v", name, late, faults)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	k, _ := stdlib.Kinds().Splits.Get("files")
	job := kind.SplitJob{File: []int32{0, 0, 1}, Group: []string{"a", "b", "c"}, Files: []string{"data/train.csv", "data/test.csv"}}
	got := assign(t, "files", `{"test":"test*","validation":0}`, job)
	if got[0] != kind.Train || got[2] != kind.Test {
		t.Errorf("%v", got)
	}
	job.Args = json.RawMessage(`{"test":"*.tsv","validation":0}`)
	if _, err := k.Assign(t.Context(), job); diag.From(err, diag.Range{})[0].Code != diag.EmptySplit {
		t.Errorf("%v", err)
	}
}

// fold assigns the parts of one training of a cross-validation.
func fold(t interface {
	Helper()
	Fatalf(string, ...any)
}, name, args string, job kind.SplitJob, k int) []kind.Part {
	t.Helper()
	s, _ := stdlib.Kinds().Splits.Get(name)
	job.Args = json.RawMessage(args)
	out, err := s.(kind.Folded).AssignFold(context.Background(), job, k)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// TestKFoldTestsEachOnce: every row tests in one fold, rows of an entity in the same,
// and without entities the classes are spread to a row.
func TestKFoldTestsEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var job kind.SplitJob
		n, entities := rapid.IntRange(10, 80).Draw(t, "n"), rapid.Bool().Draw(t, "entities")
		ones := 0
		for i := range n {
			job.Label = append(job.Label, float64(rapid.IntRange(0, 1).Draw(t, "y")))
			ones += int(job.Label[i])
			if job.Group = append(job.Group, fmt.Sprint(i)); entities {
				job.Group[i] = fmt.Sprint(i / 3)
			}
		}
		const folds = 4
		of := make([]int, n)
		for k := range folds {
			hits := 0
			for i, p := range fold(t, "kfold", `{"folds":4,"validation":0.2}`, job, k) {
				if p == kind.Test {
					of[i] += 1 + 10*k
					hits += int(job.Label[i])
				}
			}
			if !entities && (hits < ones/folds-1 || hits > ones/folds+1) {
				t.Fatalf("fold %d has %d of %d ones", k, hits, ones)
			}
		}
		for i, f := range of {
			if f%10 != 1 {
				t.Fatalf("row %d tests in %d folds", i, f%10)
			}
			if entities && f != of[i-i%3] {
				t.Fatalf("entity of row %d is in two folds", i)
			}
		}
		for i, p := range assign(t, "kfold", `{"folds":4,"validation":0.2}`, job) {
			if p == kind.Test {
				t.Fatalf("row %d tests the model that is kept", i)
			}
		}
	})
}

// TestRollingLooksBack: no fold learns from rows at or after its test, each tests the
// next span, and what is too old takes no part.
func TestRollingLooksBack(t *testing.T) {
	day := int64(24 * time.Hour / time.Microsecond)
	var job kind.SplitJob
	for i := range 100 {
		job.Time, job.Known = append(job.Time, int64(i)*day), append(job.Known, int64(i+1)*day)
	}
	for k := range 3 {
		parts := fold(t, "rolling", `{"folds":3,"test":"10d","validation":"5d","train":"30d"}`, job, k)
		from, to := 69+10*k, 79+10*k // the days after, up to
		for d, p := range parts {
			want := kind.Purged
			switch {
			case d > from && d <= to:
				want = kind.Test
			case d > from-5 && d < from:
				want = kind.Valid
			case d < from-5 && d > from-6-30:
				want = kind.Train
			}
			if p != want {
				t.Errorf("fold %d: day %d is %s, not %s", k, d, kind.PartNames[p], kind.PartNames[want])
			}
		}
	}
	for d, p := range assign(t, "rolling", `{"folds":3,"test":"10d","validation":"5d"}`, job) {
		if p == kind.Test || d > 94 && p != kind.Valid || d < 94 && p != kind.Train {
			t.Errorf("day %d of the model that is kept is %s", d, kind.PartNames[p])
		}
	}
}

// TestGroupKeepsValues: rows with one value stay together, and an entity in two parts
// is refused.
func TestGroupKeepsValues(t *testing.T) {
	var job kind.SplitJob
	for i := range 4000 {
		job.Column, job.Group = append(job.Column, fmt.Sprint("h", i%800)), append(job.Group, fmt.Sprint(i))
	}
	parts := assign(t, "group", `{"column":"h","validation":0.1,"test":0.2}`, job)
	of := map[string]kind.Part{}
	for i, p := range parts {
		if q, ok := of[job.Column[i]]; ok && p != q {
			t.Fatalf("%s is in two parts", job.Column[i])
		}
		of[job.Column[i]] = p
	}
	if s := shares(parts); math.Abs(s[kind.Test]-0.2) > 0.05 || math.Abs(s[kind.Valid]-0.1) > 0.05 {
		t.Errorf("shares %v", s)
	}
	for i := range job.Group {
		job.Group[i] = "one"
	}
	s, _ := stdlib.Kinds().Splits.Get("group")
	job.Args = json.RawMessage(`{"column":"h","validation":0.1,"test":0.2}`)
	if _, err := s.Assign(context.Background(), job); err == nil {
		t.Error("an entity in two parts is accepted")
	}
}

// TestGroupMissesAPart: where few values leave a part without one, it is told how many
// there are, what was asked, and what to do; a part that nobody asked for may be empty.
func TestGroupMissesAPart(t *testing.T) {
	s, _ := stdlib.Kinds().Splits.Get("group")
	for _, c := range []struct{ args, field, what, mend string }{
		{`{"column":"h","validation":0,"test":0.001}`, "test", `column "h" makes 2 groups, and none of them is for test, whose share is 0.001`, "raise it"},
		{`{"column":"h","validation":0.001,"test":0.7}`, "validation", `column "h" makes 2 groups, and none of them is for validation, whose share is 0.001`, "set it to 0"},
		{`{"column":"h","validation":0,"test":0.9}`, "", `column "h" makes 2 groups, and none of them is for train, whose share is 0.1`, "lower the shares of the others"},
		{`{"column":"h","validation":0,"test":0.7}`, "none", "", ""},
	} {
		job := kind.SplitJob{Args: json.RawMessage(c.args), Column: []string{"a", "b", "a"}, Group: []string{"1", "2", "3"}}
		_, err := s.Assign(context.Background(), job)
		var faults kind.Faults
		if errors.As(err, &faults); c.field == "none" {
			if err != nil {
				t.Errorf("%s: %v", c.args, err)
			}
		} else if len(faults) != 1 || faults[0].Field != c.field || faults[0].Code != diag.EmptySplit || faults[0].What != c.what || !strings.Contains(faults[0].Mend, c.mend) {
			t.Errorf("%s: %+v", c.args, faults)
		}
	}
}

// TestValidates: which arguments leave validation rows.
func TestValidates(t *testing.T) {
	for _, c := range []struct {
		args string
		want bool
	}{
		{`{"kind":"random","test":0.2,"validation":0}`, false}, {`{"kind":"random","test":0.2,"validation":0.1}`, true},
		{`{"kind":"stratified","test":0.2,"validation":0}`, false}, {`{"kind":"stratified","test":0.2,"validation":0.1}`, true},
		{`{"kind":"group","column":"c","test":0.2,"validation":0}`, false}, {`{"kind":"group","column":"c","test":0.2,"validation":0.1}`, true},
		{`{"kind":"kfold","folds":5,"validation":0}`, false}, {`{"kind":"kfold","folds":5,"validation":0.1}`, true},
		{`{"kind":"files","test":"*.csv","validation":0}`, false}, {`{"kind":"files","test":"*.csv","validation":0.1}`, true},
		{`{"kind":"time","test":"7d","validation":"0s"}`, false}, {`{"kind":"time","test":"7d","validation":"7d"}`, true},
		{`{"kind":"rolling","folds":4,"test":"7d","validation":"0s"}`, false}, {`{"kind":"rolling","folds":4,"test":"7d","validation":"7d"}`, true},
		{`{"kind":"column","column":"c","test":["a"]}`, false}, {`{"kind":"column","column":"c","test":["a"],"validation":["b"]}`, true},
		{`{"kind":"container","command":["x"]}`, true},
	} {
		k, ok := stdlib.Kinds().Splits.Get(kind.DecodeArgs[struct{ Kind string }](json.RawMessage(c.args)).Kind)
		if !ok {
			t.Fatalf("%s: no such split", c.args)
		}
		if got := k.Validates(json.RawMessage(c.args)); got != c.want {
			t.Errorf("%s: %v", c.args, got)
		}
	}
}
