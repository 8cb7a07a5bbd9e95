package gc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/gc"
	"mlc.dev/mlc/runtime/servertest"
	"mlc.dev/mlc/runtime/state"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// world is a state and its store, whose files are all written long before now.
type world struct {
	t interface {
		Helper()
		Fatal(...any)
	}
	ctx   context.Context
	dir   string
	db    *state.DB
	store *artifact.Store
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newWorld(t *testing.T, location string) *world {
	w := &world{t: t, ctx: t.Context(), dir: t.TempDir()}
	if location == "" {
		location = filepath.Join(w.dir, "state.db")
	}
	var err error
	w.db, err = state.Open(w.ctx, state.Options{Location: location, Files: filepath.Join(w.dir, "files.db")})
	w.must(err)
	t.Cleanup(func() { w.db.Close() })
	w.store, err = artifact.Open(filepath.Join(w.dir, "artifacts"))
	w.must(err)
	return w
}

// tree puts a tree with a file for each content.
func (w *world) tree(contents ...string) plan.Digest {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "tree")
	w.must(err)
	for i, c := range contents {
		w.must(os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(c), 0o644))
	}
	d, err := w.store.Put(w.ctx, dir)
	w.must(err)
	return d
}

// age makes every blob as old as it says.
func (w *world) age(by time.Duration) {
	held, err := w.store.Held()
	w.must(err)
	for _, h := range held {
		path, err := w.store.Blob(w.ctx, h.Digest)
		w.must(err)
		w.must(os.Chtimes(path, time.Time{}, now.Add(-by)))
	}
}

func key(s string) plan.Digest { return plan.DigestOf([]byte(s)) }

// run is an apply that makes or finds results and ends some time before now.
func (w *world) run(status string, ago time.Duration, results ...state.StepResult) int64 {
	w.t.Helper()
	id, err := w.db.BeginRun(w.ctx, "p", now.Add(-ago-time.Hour))
	w.must(err)
	for _, r := range results {
		did := "cached"
		if r.Outputs != nil {
			r.Run, r.Report, did = id, json.RawMessage("{}"), "done"
			w.must(w.db.SaveStep(w.ctx, plan.Step{ID: r.ID, Args: json.RawMessage("{}")}, nil, r))
		} else {
			w.must(w.db.Touch(w.ctx, plan.Step{ID: r.ID, Args: json.RawMessage("{}")}, r.Key, nil, 1))
		}
		if status != "running" || did == "done" {
			w.must(w.db.SaveRunSteps(w.ctx, id, state.RunStep{ID: r.ID, Key: r.Key, Status: did}))
		}
	}
	if status != "running" {
		w.must(w.db.EndRun(w.ctx, id, status, now.Add(-ago)))
	}
	return id
}

func made(id, k string, trees ...plan.Digest) state.StepResult {
	r := state.StepResult{ID: id, Key: key(k), Outputs: map[string]plan.Digest{}}
	for i, t := range trees {
		r.Outputs[fmt.Sprint(i)] = t
	}
	return r
}

func cached(id, k string) state.StepResult { return state.StepResult{ID: id, Key: key(k)} }

func (w *world) collector() *gc.Collector {
	return &gc.Collector{State: w.db, Store: w.store, Alone: true, Work: filepath.Join(w.dir, "work"), Now: func() time.Time { return now }}
}

// left are the keys in the state, of those that are named.
func (w *world) left(names ...string) string {
	steps, err := w.db.Steps()
	w.must(err)
	var out []string
	for _, n := range names {
		if _, ok := steps[key(n)]; ok {
			out = append(out, n)
		}
	}
	return strings.Join(out, " ")
}

func (w *world) whole(t plan.Digest) error { return w.store.Verify(w.ctx, t, artifact.DigestFile) }

// lines are the items of a plan, without their reasons.
func lines(p *gc.Plan) []string {
	var out []string
	for _, it := range p.Items {
		out = append(out, fmt.Sprintf("%s %d %d", it.What, it.Count, it.Bytes))
	}
	return out
}

// A history of four runs: which of their results stay follows from --keep-runs and
// --keep; the first run's bundle is registered.
func TestWhatIsKept(t *testing.T) {
	for _, c := range []struct {
		runs int
		keep time.Duration
		want string
	}{
		{0, 0, "bundle1"},
		{1, 0, "bundle1 data2 train4"},
		{2, 0, "bundle1 data2 train3 train4"},
		{3, 0, "data1 train1 bundle1 data2 train3 train4"},
		{0, 3 * day, "bundle1 data2 train3 train4"},
		{0, 30 * day, "data1 train1 bundle1 data2 train3 train4"},
		{1, 3 * day, "bundle1 data2 train3 train4"},
	} {
		w := newWorld(t, "")
		b := w.tree("model", "card")
		id := w.run("done", 20*day, made("data", "data1", w.tree("rows")), made("train", "train1", w.tree("trees", "report")), made("bundle", "bundle1", b))
		_, _, err := w.db.Register(w.ctx, "y", b, json.RawMessage("{}"), id, "", now)
		w.must(err)
		w.run("failed", 10*day, made("data", "data2", w.tree("rows", "more")))
		w.run("done", 2*day, cached("data", "data2"), made("train", "train3", w.tree("trees3")))
		w.run("done", day, cached("data", "data2"), made("train", "train4", w.tree("trees4", "report")))
		w.age(40 * day)
		g := w.collector()
		g.KeepRuns, g.Keep = c.runs, c.keep
		p, err := g.Delete(w.ctx)
		w.must(err)
		if got := w.left("data1", "train1", "bundle1", "data2", "train3", "train4"); got != c.want {
			t.Errorf("%d runs, %s: %s, not %s", c.runs, c.keep, got, c.want)
		}
		if p.Results != len(strings.Fields(c.want)) || p.Versions != 1 {
			t.Errorf("%d runs, %s: %d results and %d versions are kept", c.runs, c.keep, p.Results, p.Versions)
		}
		if err := w.whole(b); err != nil {
			t.Error(err)
		}
	}
}

// A result of no run stays while its files are young.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		want string
	}{{day, "apart"}, {40 * day, ""}} {
		w := newWorld(t, "")
		w.must(w.db.SaveStep(w.ctx, plan.Step{ID: "mixture", Args: json.RawMessage("{}")}, nil, made("mixture", "apart", w.tree("trees"))))
		w.age(c.age)
		g := w.collector()
		g.KeepRuns, g.Keep = 3, 7*day
		_, err := g.Delete(w.ctx)
		w.must(err)
		if got := w.left("apart"); got != c.want {
			t.Errorf("after %s there is %q", c.age, got)
		}
	}
}

// A killed run tells only what it finished; what it found cached is known by the
// last of each step.
func TestKilledRun(t *testing.T) {
	w := newWorld(t, "")
	w.run("done", 30*day, made("data", "data1", w.tree("rows")), made("old", "old1", w.tree("old")))
	w.run("done", 20*day, made("data", "data2", w.tree("rows2")))
	w.run("running", day, cached("data", "data1"), made("train", "train3", w.tree("trees")))
	w.age(40 * day)
	g := w.collector()
	g.KeepRuns = 1
	if _, err := g.Delete(w.ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.left("data1", "old1", "data2", "train3"); got != "data1 data2 train3" {
		t.Error(got)
	}
}

// What is freed is told by step, with every byte once.
func TestWhatIsFreed(t *testing.T) {
	w := newWorld(t, "")
	w.run("done", 20*day, made("train", "a", w.tree("shared", "12345")), made("train", "b", w.tree("shared", "123")), made("fit", "c", w.tree("123", "kept")))
	w.run("done", day, made("data", "d", w.tree("kept")))
	w.tree("nobody's")
	w.age(10 * day)
	young := w.tree("just now")
	files, err := w.store.Files(w.ctx, young)
	w.must(err)
	for _, d := range []plan.Digest{young, files[0].Digest} {
		path, err := w.store.Blob(w.ctx, d)
		w.must(err)
		w.must(os.Chtimes(path, time.Time{}, now.Add(-day)))
	}
	for name, age := range map[string]time.Duration{"blob-dead": 2 * time.Hour, "tree-live": time.Minute, "mine": 2 * time.Hour} {
		p := filepath.Join(w.dir, "artifacts", name)
		w.must(os.WriteFile(p, []byte("half"), 0o644))
		w.must(os.Chtimes(p, time.Time{}, now.Add(-age)))
	}
	mine := filepath.Join(w.dir, "artifacts", "sha256", "00", "mine")
	w.must(os.MkdirAll(filepath.Dir(mine), 0o755))
	w.must(os.WriteFile(mine, nil, 0o644))
	w.must(os.MkdirAll(filepath.Join(w.dir, "work", "3"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.dir, "work", "3", "spill"), []byte("12"), 0o644))
	g := w.collector()
	g.KeepRuns, g.Keep = 1, 7*day
	g.Told = func(done, total int) {
		if total != 9 {
			t.Errorf("%d of %d", done, total)
		}
	}
	p, busy, err := g.Look(w.ctx)
	if err != nil || busy {
		t.Fatal(busy, err)
	}
	// A list of files is as long as its sizes have digits: all are of one.
	list := func(files int) int64 {
		return int64(len(`{"format":"mlc.tree.v1","files":[]}`) + files*(len(`{"path":"0","digest":"","size":0},`)+len(young)) - 1)
	}
	two, one := list(2), list(1)
	want := []string{fmt.Sprintf("fit 1 %d", two+3), fmt.Sprintf("train 2 %d", 2*two+6+5), fmt.Sprintf("unreferenced files 2 %d", one+8), "half-written files 1 4", "work folder 1 2"}
	if d := cmp.Diff(want, lines(p)); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	if got := p.Freed(); got != 3*two+one+3+11+8+4+2 {
		t.Errorf("%d bytes", got)
	}
	done, err := g.Delete(w.ctx)
	w.must(err)
	if d := cmp.Diff(lines(p), lines(done)); d != "" {
		t.Errorf("shown -, done +:\n%s", d)
	}
	for _, f := range []string{mine, filepath.Join(w.dir, "artifacts", "mine"), filepath.Join(w.dir, "artifacts", "tree-live")} {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "work")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the work folder: %v", err)
	}
	if err := w.whole(young); err != nil {
		t.Error(err)
	}
	if p, _, err := g.Look(w.ctx); err != nil || len(p.Items) > 0 {
		t.Error(lines(p), err)
	}
}

// A store that may not be this state's alone gives nothing but what was never
// finished; one that is known to be another's too keeps what that needs.
func TestShared(t *testing.T) {
	w := newWorld(t, "")
	other := newWorld(t, "")
	other.store = w.store
	mine, theirs := w.tree("mine"), w.tree("theirs")
	bundle := w.tree("their bundle")
	w.run("done", 20*day, made("a", "a", mine), made("b", "b", theirs))
	w.run("done", day)
	other.run("done", 20*day, made("b", "b", theirs))
	_, _, err := other.db.Register(w.ctx, "y", bundle, json.RawMessage("{}"), 1, "", now)
	w.must(err)
	w.age(30 * day)
	g := w.collector()
	g.KeepRuns, g.Alone = 1, false
	if p, err := g.Delete(w.ctx); err != nil || len(p.Items) > 0 || !p.Spared {
		t.Fatal(lines(p), err)
	}
	g.Alone, g.Others = true, []*state.DB{other.db}
	p, err := g.Delete(w.ctx)
	w.must(err)
	if len(p.Items) != 1 || p.Items[0].What != "a" {
		t.Error(lines(p))
	}
	if err := errors.Join(w.whole(theirs), w.whole(bundle)); err != nil {
		t.Error(err)
	}
	_, release, err := other.db.Acquire(w.ctx)
	w.must(err)
	defer release()
	var d diag.Diagnostic
	if _, err := g.Delete(w.ctx); !errors.As(err, &d) || d.Code != diag.Locked {
		t.Errorf("beside an apply of the other: %v", err)
	}
	if _, busy, err := g.Look(w.ctx); !busy || err != nil {
		t.Error(busy, err)
	}
}

// A version whose list of files is damaged stops everything: what it needs is not
// known. One that is in another store does not.
func TestDamaged(t *testing.T) {
	w := newWorld(t, "")
	b := w.tree("model")
	_, _, err := w.db.Register(w.ctx, "y", b, json.RawMessage("{}"), 1, "", now)
	w.must(err)
	_, _, err = w.db.Register(w.ctx, "y", key("elsewhere"), json.RawMessage("{}"), 1, "", now)
	w.must(err)
	g := w.collector()
	if p, err := g.Delete(w.ctx); err != nil || !slices.Equal(p.Absent, []string{"y@v2"}) {
		t.Errorf("%+v %v", p, err)
	}
	path, err := w.store.Blob(w.ctx, b)
	w.must(err)
	w.must(os.Chmod(path, 0o644))
	w.must(os.WriteFile(path, []byte("{}"), 0o644))
	var d diag.Diagnostic
	if _, err := g.Delete(w.ctx); !errors.As(err, &d) || d.Code != diag.NoModel || !strings.Contains(d.What, "y@v1") {
		t.Errorf("%v", err)
	}
	held, err := w.store.Held()
	if err != nil || len(held) != 2 {
		t.Error(held, err)
	}
}

// What a version or a kept result needs is never deleted, wherever the deletion is
// cut off; and after one that was not, nothing is left to free.
func TestNothingNeededGoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "w")
		if err != nil {
			rt.Fatal(err)
		}
		w := &world{t: rt, ctx: t.Context(), dir: dir}
		w.db, err = state.Open(w.ctx, state.Options{Location: filepath.Join(dir, "state.db")})
		w.must(err)
		defer w.db.Close()
		w.store, err = artifact.Open(filepath.Join(dir, "artifacts"))
		w.must(err)
		content := rapid.SampledFrom([]string{"a", "bb", "ccc", "dddd", "eeeee"})
		tree := func() plan.Digest {
			return w.tree(rapid.SliceOfN(content, 1, 3).Draw(rt, "tree")...)
		}
		type result struct {
			key   string
			trees []plan.Digest
			runs  []int // that made it or found it cached
		}
		var results []*result
		var ends []time.Duration
		var status []string
		ago := 20 * day
		n := rapid.IntRange(1, 5).Draw(rt, "runs")
		var bundles []plan.Digest
		for i := range n {
			ago -= time.Duration(rapid.IntRange(1, 3).Draw(rt, "days")) * day
			ends, status = append(ends, ago), append(status, rapid.SampledFrom([]string{"done", "done", "failed"}).Draw(rt, "status"))
			var did []state.StepResult
			for _, id := range []string{"x", "y"} {
				switch rapid.IntRange(0, 2).Draw(rt, id) {
				case 0:
					r := &result{fmt.Sprint(id, i), []plan.Digest{tree(), tree()}, []int{i}}
					results = append(results, r)
					did = append(did, made(id, r.key, r.trees...))
				case 1:
					if of := slices.DeleteFunc(slices.Clone(results), func(r *result) bool { return r.key[:1] != id }); len(of) > 0 {
						r := rapid.SampledFrom(of).Draw(rt, "cached")
						r.runs = append(r.runs, i)
						did = append(did, cached(id, r.key))
					}
				}
			}
			run := w.run(status[i], ago, did...)
			if rapid.Bool().Draw(rt, "register") {
				b := tree()
				if len(results) > 0 && rapid.Bool().Draw(rt, "of a step") {
					b = results[len(results)-1].trees[0]
				}
				bundles = append(bundles, b)
				_, _, err := w.db.Register(w.ctx, "m", b, json.RawMessage("{}"), run, "", now)
				w.must(err)
			}
		}
		for range rapid.IntRange(0, 2).Draw(rt, "orphans") {
			tree()
		}
		w.age(30 * day)
		g := w.collector()
		g.KeepRuns = rapid.IntRange(0, 3).Draw(rt, "keep runs")
		g.Keep = time.Duration(rapid.IntRange(0, 10).Draw(rt, "keep")) * day
		// By the definition: a run is kept when it, or one before it, is among the newest
		// that ended well, or ended lately, or too few have ended well since.
		keeps := func(i int) bool {
			for j := range i + 1 {
				after := 0
				for _, s := range status[j+1:] {
					if s == "done" {
						after++
					}
				}
				if after < g.KeepRuns || g.Keep > 0 && ends[j] <= g.Keep {
					return true
				}
			}
			return false
		}
		whole := func(when string) {
			steps, err := w.db.Steps()
			w.must(err)
			for _, b := range bundles {
				if err := w.whole(b); err != nil {
					rt.Fatalf("%s: a version's %v", when, err)
				}
			}
			for _, r := range results {
				if !slices.ContainsFunc(r.runs, keeps) {
					continue
				}
				if _, ok := steps[key(r.key)]; !ok {
					rt.Fatalf("%s: result %s is gone", when, r.key)
				}
				for _, tr := range r.trees {
					if err := w.whole(tr); err != nil {
						rt.Fatalf("%s: result %s: %v", when, r.key, err)
					}
				}
			}
		}
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		cut := rapid.IntRange(1, 6).Draw(rt, "cut")
		g.Told = func(done, _ int) {
			if done == cut {
				cancel()
			}
		}
		if _, err := g.Delete(ctx); err != nil && !errors.Is(err, context.Canceled) {
			rt.Fatal(err)
		}
		whole("cut off")
		g.Told = nil
		_, err = g.Delete(w.ctx)
		w.must(err)
		whole("at the end")
		p, _, err := g.Look(w.ctx)
		w.must(err)
		if len(p.Items) > 0 {
			rt.Fatalf("a second time there is %v", lines(p))
		}
		// What is left is what is referred to.
		steps, err := w.db.Steps()
		w.must(err)
		need := map[plan.Digest]bool{}
		trees := slices.Clone(bundles)
		for _, r := range steps {
			for _, tr := range r.Outputs {
				trees = append(trees, tr)
			}
		}
		for _, tr := range trees {
			files, err := w.store.Files(w.ctx, tr)
			w.must(err)
			need[tr] = true
			for _, f := range files {
				need[f.Digest] = true
			}
		}
		held, err := w.store.Held()
		w.must(err)
		if len(held) != len(need) {
			rt.Fatalf("%d files are left, %d are needed", len(held), len(need))
		}
	})
}

// A bucket that may be others' too keeps everything, and its cache what is needed;
// with Alone both are cleared, and PostgreSQL is a state like any other.
func TestBucket(t *testing.T) {
	s3, err := servertest.S3()
	if errors.Is(err, servertest.ErrMissing) {
		t.Skip("SKIPPED: no S3 server:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s3.Close() })
	for k, v := range s3.Env {
		t.Setenv(k, v)
	}
	location := ""
	pg, err := servertest.Postgres()
	switch {
	case err == nil:
		t.Cleanup(func() { pg.Close() })
		location = pg.URL
	case errors.Is(err, servertest.ErrMissing):
		t.Log("SKIPPED in part: no PostgreSQL:", err)
	default:
		t.Fatal(err)
	}
	w := newWorld(t, location)
	w.store, err = artifact.OpenRemote(w.ctx, s3.URL, filepath.Join(w.dir, "cache"), nil)
	w.must(err)
	t.Cleanup(func() { w.store.Close() })
	stale, err := artifact.OpenRemote(w.ctx, s3.URL, t.TempDir(), nil)
	w.must(err)
	t.Cleanup(func() { stale.Close() })
	a, b := w.tree("old"), w.tree("new")
	w.must(stale.Verify(w.ctx, a, nil)) // it has listed the bucket
	w.run("done", 20*day, made("a", "a", a))
	w.run("done", day, made("b", "b", b))
	g := w.collector()
	g.KeepRuns, g.Alone = 1, false
	p, err := g.Delete(w.ctx)
	w.must(err)
	if len(p.Items) != 1 || p.Items[0].What != "copies in the cache" || p.Items[0].Count != 2 || w.left("a", "b") != "a b" {
		t.Error(lines(p), w.left("a", "b"))
	}
	w.must(errors.Join(w.whole(a), w.whole(b)))
	g.Alone = true
	p, err = g.Delete(w.ctx)
	w.must(err)
	if len(p.Items) != 2 || p.Items[0].What != "a" || w.left("a", "b") != "b" {
		t.Error(lines(p), w.left("a", "b"))
	}
	w.must(w.whole(b))
	if p, _, err := g.Look(w.ctx); err != nil || len(p.Items) > 0 {
		t.Error(lines(p), err)
	}
	// Who knew the bucket before sends again what is gone from it.
	dir := t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, "0"), []byte("old"), 0o644))
	if _, err := stale.Put(w.ctx, dir); err != nil {
		t.Fatal(err)
	}
	w.must(w.whole(a))
}
