// Package gc finds what of a state and its artifact store nothing needs any more,
// and deletes it: results of steps, and the files that no result refers to.
//
// What registered versions are made of is always kept, and so are the results that
// recent runs made or found cached. Predictions, their log and all else that mlc
// wrote where users said are theirs, and are never looked at.
package gc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/state"
)

// Collector collects what one environment has no need of.
type Collector struct {
	State *state.DB
	Store *artifact.Store
	// Others are the other states that are known to use the store: whatever they
	// refer to stays.
	Others []*state.DB
	// Alone says that no state beside these uses the store. Without it nothing that
	// another could need is deleted: of a bucket, only the copies in its cache; of a
	// folder, only half-written files; and no result.
	Alone bool
	// Work is the folder in which an apply runs its steps.
	Work string
	// Environments are on this machine, for all states; nil: none.
	Environments Environments

	// KeepRuns is how many of the newest runs that ended well are kept, with all
	// runs since the first of them.
	KeepRuns int
	// Keep is how long a run is kept after its end, and a file after it was written.
	Keep time.Duration
	Now  func() time.Time
	// Told hears how many of the files have been deleted; nil: nobody.
	Told func(done, total int)
}

// unfinished is how long a half-written file has not been written to when nobody
// writes it any more: services fill a cache without a lock.
const unfinished = time.Hour

// idle is how long an environment was not used when it goes: which steps will need it is
// not known, and it can be made again.
const idle = 30 * 24 * time.Hour

// Environments are what steps made to run in. Any state may use them.
type Environments interface {
	// Unused returns the folders of those that no step has used since a time.
	Unused(since time.Time) ([]string, error)
	// Remove removes one, unless a step has used it since or is at it.
	Remove(dir string, since time.Time) error
}

// Plan is what may be deleted, as pure data.
type Plan struct {
	Items []Item
	// Versions, Results and Bytes are what is kept of what was looked at.
	Versions int
	Results  int
	Bytes    int64
	// Absent are the versions whose bundle is not in the store.
	Absent []string
	// Spared says that results stay, and files that another state could need: the
	// store may not be this environment's alone.
	Spared bool

	results       []plan.Digest // keys of rows of the state
	files, cached []plan.Digest // in the order in which they go
	unfinished    []string
	work          bool
	environments  []string
	unused        time.Time // since when these are
}

// Item is one line: Count of What go for the reason Why, and free Bytes.
type Item struct {
	What  string `json:"what"`
	Why   string `json:"why"`
	Count int    `json:"count"`
	Bytes int64  `json:"bytes"`
}

// Freed is the sum of all items in bytes.
func (p *Plan) Freed() int64 {
	var n int64
	for _, it := range p.Items {
		n += it.Bytes
	}
	return n
}

// Look tells what Delete would delete. It takes no lock: while an apply is at work,
// what that makes is not known yet, and busy is set.
func (c *Collector) Look(ctx context.Context) (p *Plan, busy bool, err error) {
	for _, db := range append([]*state.DB{c.State}, c.Others...) {
		b, err := db.Busy()
		if err != nil {
			return nil, false, err
		}
		busy = busy || b
	}
	p, err = c.look(ctx, !busy)
	return p, busy, err
}

// Delete keeps every apply out, looks, and deletes what it finds: first results
// from the state, then the lists of their files, then files. Wherever it is cut
// off, what is kept is whole, and what is left over is found the next time. The
// error is diag.Locked where an apply is at work. The plan is nil where nothing was
// deleted.
func (c *Collector) Delete(ctx context.Context) (*Plan, error) {
	for _, db := range append([]*state.DB{c.State}, c.Others...) {
		held, release, err := db.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		ctx = held
	}
	p, err := c.look(ctx, true)
	if err != nil {
		return nil, err
	}
	if len(p.results) > 0 {
		if err := c.State.DropSteps(ctx, p.results); err != nil {
			return nil, err
		}
	}
	return p, c.delete(ctx, p)
}

// delete deletes the files of a plan.
func (c *Collector) delete(ctx context.Context, p *Plan) error {
	done, total := 0, len(p.unfinished)+len(p.files)+len(p.cached)+len(p.environments)
	for _, list := range []struct {
		n int
		f func(i int) error
	}{
		{len(p.unfinished), func(i int) error {
			if err := os.Remove(p.unfinished[i]); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}},
		{len(p.files), func(i int) error {
			if c.Store.InBucket() {
				return c.Store.RemoveFromBucket(ctx, p.files[i])
			}
			return c.Store.Remove(p.files[i])
		}},
		{len(p.cached), func(i int) error { return c.Store.Remove(p.cached[i]) }},
		{len(p.environments), func(i int) error { return c.Environments.Remove(p.environments[i], p.unused) }},
	} {
		for i := range list.n {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := list.f(i); err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			} else if err != nil {
				return stopped(err, done, total)
			}
			if done++; c.Told != nil {
				c.Told(done, total)
			}
		}
	}
	if p.work {
		if err := os.RemoveAll(c.Work); err != nil {
			return stopped(err, done, total)
		}
	}
	return nil
}

// stopped is the error of a deletion that went no further.
func stopped(err error, done, total int) error {
	var own diag.Diagnostic
	if errors.As(err, &own) {
		return err
	}
	return diag.Diagnostic{Severity: diag.Error, Code: diag.StoreFailed, What: fmt.Sprintf("after %d of %d files: %v", done, total, err),
		Why: "the rest was not deleted; what is needed is whole", Mend: "see that this user may write there; `mlc gc --apply` again goes on"}
}

// look makes the plan; still says that no apply is at work.
func (c *Collector) look(ctx context.Context, still bool) (*Plan, error) {
	p := &Plan{Spared: !c.Alone}
	now := c.Now()
	if c.Alone || c.Store.InBucket() {
		if err := c.lookStore(ctx, p, now); err != nil {
			return nil, err
		}
	}
	half, err := c.Store.Unfinished(now.Add(-unfinished))
	if err != nil {
		return nil, err
	}
	p.unfinished = slices.Sorted(maps.Keys(half))
	var bytes int64
	for _, n := range half {
		bytes += n
	}
	p.add("half-written files", "nothing has written to them for an hour", len(half), bytes)
	if still {
		if bytes, err = folder(c.Work); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if p.work = err == nil; p.work {
			p.add("work folder", "an apply that was killed left it", 1, bytes)
		}
	}
	return p, c.lookEnvironments(p, now)
}

// lookEnvironments plans which environments go.
func (c *Collector) lookEnvironments(p *Plan, now time.Time) (err error) {
	if c.Environments == nil {
		return nil
	}
	p.unused = now.Add(-idle)
	if p.environments, err = c.Environments.Unused(p.unused); err != nil {
		return err
	}
	for _, dir := range p.environments {
		bytes, err := folder(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.add("environment "+filepath.Base(dir), "no step has used it for "+types.FormatDuration(idle), 1, bytes)
	}
	return nil
}

func (p *Plan) add(what, why string, count int, bytes int64) {
	if count > 0 {
		p.Items = append(p.Items, Item{what, why, count, bytes})
	}
}

// folder is the size of what is below a folder.
func folder(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// lookStore plans what goes of results and blobs.
func (c *Collector) lookStore(ctx context.Context, p *Plan, now time.Time) error {
	steps, err := c.State.Steps()
	if err != nil {
		return err
	}
	versions, err := c.State.Versions("")
	if err != nil {
		return err
	}
	kept, err := c.kept(steps, now)
	if err != nil {
		return err
	}
	// Trees that are needed, each with the version that is made of it or "".
	trees := map[plan.Digest]string{}
	for key := range kept {
		for _, tree := range steps[key].Outputs {
			trees[tree] = ""
		}
	}
	for _, db := range c.Others {
		theirs, err := db.Steps()
		if err != nil {
			return err
		}
		for _, r := range theirs {
			for _, tree := range r.Outputs {
				trees[tree] = ""
			}
		}
		more, err := db.Versions("")
		if err != nil {
			return err
		}
		versions = append(versions, more...)
	}
	for _, v := range versions {
		trees[v.Bundle] = fmt.Sprintf("%s@v%d", v.Model, v.Version)
	}
	p.Versions = len(versions)
	if !c.Alone {
		return c.lookCache(ctx, p, trees, now)
	}
	held, err := c.held(ctx)
	if err != nil {
		return err
	}
	need, err := c.needed(ctx, trees, held)
	if err != nil {
		return err
	}
	for _, tree := range slices.Sorted(maps.Keys(trees)) {
		if _, ok := held[tree]; !ok && trees[tree] != "" {
			p.Absent = append(p.Absent, trees[tree])
		}
	}
	gone := map[plan.Digest]artifact.Held{}
	for d, h := range held {
		if !need[d] && c.old(h, now) {
			gone[d] = h
		} else {
			p.Bytes += h.Size
		}
	}
	if err := c.results(ctx, p, steps, kept, trees, gone); err != nil {
		return err
	}
	var bytes int64
	for _, h := range gone {
		bytes += h.Size
	}
	p.add("unreferenced files", "no result refers to them", len(gone), bytes)
	p.files = append(p.files, slices.Sorted(maps.Keys(gone))...)
	if c.Store.InBucket() {
		return c.lookCache(ctx, p, trees, now)
	}
	return nil
}

// old reports whether a blob was written so long ago that it may go.
func (c *Collector) old(h artifact.Held, now time.Time) bool {
	return c.Keep == 0 || h.Written.Before(now.Add(-c.Keep))
}

// held are the blobs of the store, of a bucket where there is one.
func (c *Collector) held(ctx context.Context) (map[plan.Digest]artifact.Held, error) {
	var list []artifact.Held
	var err error
	if c.Store.InBucket() {
		list, err = c.Store.HeldInBucket(ctx)
	} else {
		list, err = c.Store.Held()
	}
	return byDigest(list), err
}

func byDigest(list []artifact.Held) map[plan.Digest]artifact.Held {
	out := make(map[plan.Digest]artifact.Held, len(list))
	for _, h := range list {
		out[h.Digest] = h
	}
	return out
}

// results plans which results go and what each frees of the blobs that go, which it
// takes out of gone. A result whose trees are all needed frees nothing, and stays.
func (c *Collector) results(ctx context.Context, p *Plan, steps map[plan.Digest]state.StepResult, kept map[plan.Digest]bool, trees map[plan.Digest]string, gone map[plan.Digest]artifact.Held) error {
	var drop []state.StepResult
	for key, r := range steps {
		// One of no run, such as of a blame, is as old as its files.
		frees, old := false, r.Run != 0
		for _, tree := range r.Outputs {
			_, needed := trees[tree]
			_, goes := gone[tree]
			frees, old = frees || !needed, old || goes
		}
		if !kept[key] && frees && old {
			drop = append(drop, r)
		}
	}
	p.Results = len(steps) - len(drop)
	slices.SortFunc(drop, func(a, b state.StepResult) int {
		if n := strings.Compare(a.ID, b.ID); n != 0 {
			return n
		}
		return strings.Compare(string(a.Key), string(b.Key))
	})
	var lists, files []plan.Digest
	take := func(d plan.Digest, into *[]plan.Digest) int64 {
		h, ok := gone[d]
		if !ok {
			return 0
		}
		delete(gone, d)
		*into = append(*into, d)
		return h.Size
	}
	why := "no registered version uses it"
	if c.KeepRuns > 0 {
		why += fmt.Sprintf(", nor any run since the %d newest that ended well", c.KeepRuns)
	}
	if c.Keep > 0 {
		why += ", nor any of the last " + types.FormatDuration(c.Keep)
	}
	for i, r := range drop {
		p.results = append(p.results, r.Key)
		var bytes int64
		for _, name := range slices.Sorted(maps.Keys(r.Outputs)) {
			tree := r.Outputs[name]
			if _, ok := gone[tree]; !ok {
				continue // needed after all, young, told already, or not there
			}
			list, err := c.Store.Files(ctx, tree)
			if err != nil && !errors.Is(err, artifact.ErrMissing) {
				return err
			}
			bytes += take(tree, &lists)
			for _, f := range list {
				bytes += take(f.Digest, &files)
			}
		}
		if i > 0 && drop[i-1].ID == r.ID {
			last := &p.Items[len(p.Items)-1]
			last.Count, last.Bytes = last.Count+1, last.Bytes+bytes
			continue
		}
		p.add(r.ID, why, 1, bytes)
	}
	p.files = append(lists, files...)
	return nil
}

// kept are the keys of the results of runs that are kept: those that they made, and
// those that they found cached.
func (c *Collector) kept(steps map[plan.Digest]state.StepResult, now time.Time) (map[plan.Digest]bool, error) {
	runs, err := c.State.Runs()
	if err != nil {
		return nil, err
	}
	from := first(runs, c.KeepRuns, c.Keep, now)
	used, err := c.State.RunSteps(from)
	if err != nil {
		return nil, err
	}
	lasts, err := c.State.Lasts()
	if err != nil {
		return nil, err
	}
	out := map[plan.Digest]bool{}
	for _, s := range used {
		// A run that was killed did not tell what it found cached.
		for _, key := range []plan.Digest{s.Key, lasts[s.ID].Key} {
			if _, ok := steps[key]; ok {
				out[key] = true
			}
		}
	}
	for key, r := range steps {
		if r.Run >= from {
			out[key] = true
		}
	}
	return out, nil
}

// first is the ID of the first run that is kept: with all after it, it has the
// newest n that ended well, and those that ended within the time keep before now. A
// run whose end was not recorded ended before the next began.
func first(runs []state.Run, n int, keep time.Duration, now time.Time) int64 {
	from := int64(1)
	if len(runs) > 0 {
		from = runs[len(runs)-1].ID + 1
	}
	end, done := now, 0
	for _, r := range slices.Backward(runs) {
		if !r.Finished.IsZero() {
			end = r.Finished
		}
		if done < n || keep > 0 && !end.Before(now.Add(-keep)) {
			from = r.ID
		}
		if r.Status == "done" {
			done++
		}
		end = r.Started
	}
	return from
}

// needed are the blobs of trees, and the trees themselves. Of a tree that is not
// held nothing is known. A damaged one is made anew by whatever wants it, but a
// version's is the only word on what the version needs.
func (c *Collector) needed(ctx context.Context, trees map[plan.Digest]string, held map[plan.Digest]artifact.Held) (map[plan.Digest]bool, error) {
	out := map[plan.Digest]bool{}
	for tree, version := range trees {
		if _, ok := held[tree]; !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out[tree] = true
		files, err := c.Store.Files(ctx, tree)
		if errors.Is(err, artifact.ErrMissing) && version == "" {
			continue
		}
		if err != nil && version != "" {
			return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf("the bundle of %s cannot be read: %v", version, err),
				Why: "so what the version needs is not known, and nothing was deleted", Mend: "apply again to rebuild it, or put its file back"}
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			out[f.Digest] = true
		}
	}
	return out, nil
}

// lookCache plans which copies of a bucket's blobs go. A tree of which there is no
// copy is not asked for.
func (c *Collector) lookCache(ctx context.Context, p *Plan, trees map[plan.Digest]string, now time.Time) error {
	list, err := c.Store.Held()
	if err != nil {
		return err
	}
	held := byDigest(list)
	need, err := c.needed(ctx, trees, held)
	if err != nil {
		return err
	}
	var bytes int64
	for _, d := range slices.Sorted(maps.Keys(held)) {
		if need[d] || !c.old(held[d], now) {
			if !c.Alone {
				p.Bytes += held[d].Size
			}
			continue
		}
		p.cached = append(p.cached, d)
		bytes += held[d].Size
	}
	p.add("copies in the cache", "nothing that is kept needs them, and the bucket has them", len(p.cached), bytes)
	return nil
}
