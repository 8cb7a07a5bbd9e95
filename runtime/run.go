package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/env"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/executor"
	"mlc.dev/mlc/runtime/state"
)

// Event tells how an apply goes on.
type Event struct {
	// Kind is started, progress, done, cached, failed, skipped; retry, when what
	// runs the step failed and it is tried again after Seconds; or moved, when its
	// runner is given up.
	Kind     string          `json:"kind"`
	Step     string          `json:"step"`
	Runner   string          `json:"runner,omitempty"`
	Progress executor.Event  `json:"progress,omitzero"`
	Seconds  float64         `json:"seconds,omitempty"`
	Report   json.RawMessage `json:"report,omitempty"`
	Error    string          `json:"error,omitempty"`
	// Done of Total steps are settled.
	Done  int `json:"done"`
	Total int `json:"total"`
}

// Options are what an apply needs beside the plan.
type Options struct {
	Plan *plan.Plan
	// Executor returns what runs steps on a runner. It is asked once for each runner
	// that gets a step.
	Executor func(env.Runner) (executor.Executor, error)
	// At finds a path of the spec, for diagnostics.
	At      func(path string) diag.Range
	OnEvent func(Event)
	Now     func() time.Time
	// Backoff is how long to wait before the n-th retry of a step whose engine
	// failed; nil: 1 s, and twice as long each time.
	Backoff func(n int) time.Duration
	// Apart runs the plan apart from the runs: its results are kept by their keys,
	// and nothing else of it is, so that it is neither the last run nor what later
	// plans compare with. It must register nothing.
	Apart bool
	// Renamed says that the system had another name when it was applied last.
	Renamed bool
}

// Outcome is what an apply did.
type Outcome struct {
	Run      int64               `json:"run"`
	Ran      int                 `json:"ran"`
	Cached   int                 `json:"cached"`
	Failed   int                 `json:"failed"`
	Skipped  int                 `json:"skipped"`
	Versions []RegisteredVersion `json:"versions,omitempty"`
}

// RegisteredVersion is a model's version that an apply made or met.
type RegisteredVersion struct {
	Model   string      `json:"model"`
	Version int         `json:"version"`
	Bundle  plan.Digest `json:"bundle"`
	New     bool        `json:"new"`
}

// Apply runs what has to run, as many steps at once as the runners have room
// for. A step that fails keeps those that read it from running; the others go
// on. The list tells every fault at its declaration. When ctx ends, steps in
// flight are stopped and what is finished stays finished.
func (s *System) Apply(ctx context.Context, o Options) (Outcome, diag.List) {
	var list diag.List
	ctx, release, err := s.State.Acquire(ctx)
	if err != nil {
		list.Append(err, diag.Range{})
		return Outcome{}, list
	}
	defer release()
	a := &apply{System: s, Options: o, list: &list}
	if !o.Apart {
		err = s.State.Claim(ctx, o.Plan.System, o.Renamed)
	}
	if err == nil {
		err = a.run(ctx)
	}
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), context.Canceled) {
		err = diag.Diagnostic{Severity: diag.Error, Code: diag.Interrupted, What: "interrupted", Why: "what could not be recorded in time is done again", Mend: "apply again to go on"}
	}
	if err != nil {
		list.Append(err, diag.Range{})
	}
	return a.out, list
}

type apply struct {
	*System
	Options
	list *diag.List
	out  Outcome
	work string
	done []Decision // by step; Action "" until it is settled, Failed ones never
	room map[string]*room

	mu        sync.Mutex
	executors map[string]executor.Executor
	// told are the runners whose failure is in the list.
	told map[string]bool
	gone map[string]executor.Unavailable
}

// room is what is free of a runner.
type room struct {
	cpu    int
	memory int64
	gpus   int
	steps  int // the most that may still start; -1: no limit
}

type finished struct {
	step    int
	runner  *env.Runner
	needs   plan.Needs
	result  executor.Result
	err     error
	seconds float64
}

// recording is how long an interrupted run may take to end its steps, which are given some
// seconds, and to record what it has done.
const recording = 30 * time.Second

func (a *apply) run(ctx context.Context) error {
	m, err := a.recall()
	if err != nil {
		return err
	}
	// What a killed run left behind is no use to anyone.
	a.work = a.Env.Beside("work")
	if err := os.RemoveAll(a.work); err != nil {
		return err
	}
	n := len(a.Plan.Steps)
	a.done = make([]Decision, n)
	a.room, a.executors, a.told = map[string]*room{}, map[string]executor.Executor{}, map[string]bool{}
	a.down, a.gone = map[string]bool{}, map[string]executor.Unavailable{}
	for _, r := range a.Env.Runners {
		a.room[r.Name] = &room{r.CPUs, r.Memory, r.GPUs, r.Concurrency}
		if r.Concurrency == 0 {
			a.room[r.Name].steps = -1
		}
	}
	defer a.close()
	// Bookkeeping goes on for a while after the user's interrupt, so that it is recorded.
	record, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(recording, done) })()
	if err := a.begin(record); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan finished)
	const (
		waiting = iota
		running
		settled
		lost // failed, or behind one that did
	)
	status := make([]int, n)
	inflight, left := 0, n
	count := func() int { return n - left }
	// abort ends the run on an error of our own: nothing must outlive the lock.
	abort := func(err error) error {
		cancel()
		for ; inflight > 0; inflight-- {
			<-results
		}
		return a.finish(record, err)
	}
	// lose settles a step that cannot be, and lets the others go on.
	lose := func(i int, d Decision, seconds float64, err error) error {
		step := a.Plan.Steps[i]
		status[i] = lost
		left--
		a.out.Failed++
		a.fail(step, err)
		a.OnEvent(Event{Kind: "failed", Step: step.ID, Seconds: seconds, Error: err.Error(), Done: count(), Total: n})
		return a.note(record, state.RunStep{ID: step.ID, Key: d.Key, Status: "failed", Seconds: seconds, Detail: err.Error()})
	}
	var cached []state.RunStep
	for left > 0 {
		progress := false
		for i := range n {
			if status[i] != waiting {
				continue
			}
			ready, dead := true, false
			for _, in := range a.Plan.Steps[i].Inputs {
				if in.Step >= 0 {
					ready = ready && status[in.Step] == settled
					dead = dead || status[in.Step] == lost
				}
			}
			if dead {
				status[i] = lost
				left--
				progress = true
				a.out.Skipped++
				a.OnEvent(Event{Kind: "skipped", Step: a.Plan.Steps[i].ID, Done: count(), Total: n})
				continue
			}
			if !ready || ctx.Err() != nil {
				continue
			}
			d, err := a.decide(ctx, a.Plan, i, a.done, m)
			step := &a.Plan.Steps[i]
			registered := step.Op == lower.OpRegister && d.Action != Cached
			if err == nil && step.Op == lower.OpRegister {
				err = a.register(record, i, &d)
			}
			if err != nil {
				progress = true
				if err := lose(i, d, 0, err); err != nil {
					return abort(err)
				}
				continue
			}
			if d.Action == Cached {
				a.done[i] = d
				status[i] = settled
				left--
				progress = true
				if step.Op != lower.OpRegister {
					a.out.Cached++
				}
				did := "cached"
				if registered {
					did = "done"
				}
				cached = append(cached, state.RunStep{ID: step.ID, Key: d.Key, Status: did})
				if l := m.lasts[step.ID]; l.Key != d.Key && !a.Apart {
					named, err := a.named(i)
					if err == nil {
						err = a.State.Touch(record, *step, d.Key, named, l.Seconds)
					}
					if err != nil {
						return abort(err)
					}
				}
				a.OnEvent(Event{Kind: did, Step: step.ID, Done: count(), Total: n})
				continue
			}
			runner := d.runner
			needs, ok := a.take(runner, step.Needs)
			if !ok {
				continue
			}
			status[i] = running
			inflight++
			progress = true
			a.done[i] = d
			a.OnEvent(Event{Kind: "started", Step: step.ID, Runner: runner.Name, Done: count(), Total: n})
			go func() {
				start := time.Now()
				res, err := a.attempt(ctx, i, runner, needs)
				results <- finished{i, runner, needs, res, err, time.Since(start).Seconds()}
			}()
		}
		if left == 0 || inflight == 0 && (!progress || ctx.Err() != nil) {
			break
		}
		if inflight == 0 {
			continue
		}
		f := <-results
		inflight--
		step := a.Plan.Steps[f.step]
		a.give(f.runner, f.needs)
		if f.err != nil {
			if ctx.Err() != nil {
				status[f.step] = lost
				left--
				continue
			}
			var u executor.Unavailable
			if errors.As(f.err, &u) {
				// Deciding again finds another runner, or fails for want of one.
				a.down[f.runner.Name], a.gone[f.runner.Name] = true, u
				status[f.step] = waiting
				a.OnEvent(Event{Kind: "moved", Step: step.ID, Runner: f.runner.Name, Error: u.Error(), Done: count(), Total: n})
				continue
			}
			if err := lose(f.step, a.done[f.step], f.seconds, f.err); err != nil {
				return abort(err)
			}
			continue
		}
		d := &a.done[f.step]
		d.outputs, d.Action = f.result.Outputs, Cached
		named, err := a.named(f.step)
		if err == nil {
			err = a.State.SaveStep(record, step, named, state.StepResult{Key: d.Key, ID: step.ID, Outputs: f.result.Outputs, Report: f.result.Report, Seconds: f.seconds, Run: a.out.Run, Engines: d.engines})
		}
		if err == nil {
			err = a.note(record, state.RunStep{ID: step.ID, Key: d.Key, Status: "done", Seconds: f.seconds})
		}
		if err != nil {
			return abort(err)
		}
		status[f.step] = settled
		left--
		a.out.Ran++
		a.OnEvent(Event{Kind: "done", Step: step.ID, Seconds: f.seconds, Report: f.result.Report, Done: count(), Total: n})
	}
	if err := a.note(record, cached...); err != nil {
		return a.finish(record, err)
	}
	if why := context.Cause(ctx); why != nil && !errors.Is(why, context.Canceled) {
		return a.finish(record, why) // the lease is gone
	}
	if ctx.Err() != nil {
		return a.finish(record, diag.Diagnostic{Severity: diag.Error, Code: diag.Interrupted, What: "interrupted", Why: "what is finished stays finished", Mend: "apply again to go on"})
	}
	return a.finish(record, nil)
}

// begin records that the run begins, with its plan, and note what its steps came to.
func (a *apply) begin(ctx context.Context) (err error) {
	if a.Apart {
		return nil
	}
	if err := a.State.SavePlan(ctx, a.Plan); err != nil {
		return err
	}
	a.out.Run, err = a.State.BeginRun(ctx, a.Plan.Digest(), a.Now())
	return err
}

func (a *apply) note(ctx context.Context, steps ...state.RunStep) error {
	if a.Apart {
		return nil
	}
	return a.State.SaveRunSteps(ctx, a.out.Run, steps...)
}

// finish closes the run and its folder.
func (a *apply) finish(ctx context.Context, err error) error {
	if a.Apart {
		return errors.Join(err, os.RemoveAll(a.work))
	}
	status := "done"
	var d diag.Diagnostic
	switch {
	case errors.As(err, &d) && d.Code == diag.Interrupted:
		status = "interrupted"
	case err != nil || a.list.HasErrors():
		status = "failed"
	}
	return errors.Join(err, a.State.EndRun(ctx, a.out.Run, status, a.Now()), os.RemoveAll(a.work))
}

// named are a step's input digests by name.
func (a *apply) named(i int) (map[string]plan.Digest, error) {
	digests, err := a.inputs(a.Plan, i, a.done)
	if err != nil {
		return nil, err
	}
	out := map[string]plan.Digest{}
	for k, in := range a.Plan.Steps[i].Inputs {
		out[in.Name] = digests[k]
	}
	return out, nil
}

// take takes what a step needs from its runner, when it is free. A step that
// needs more than there is gets all of it, alone.
func (a *apply) take(r *env.Runner, asked plan.Needs) (plan.Needs, bool) {
	n := asked
	n.CPU, n.Memory = min(asked.CPU, r.CPUs), min(asked.Memory, r.Memory)
	free := a.room[r.Name]
	if free.cpu < n.CPU || free.memory < n.Memory || free.gpus < n.GPUs || free.steps == 0 {
		return n, false
	}
	free.cpu, free.memory, free.gpus = free.cpu-n.CPU, free.memory-n.Memory, free.gpus-n.GPUs
	if free.steps > 0 {
		free.steps--
	}
	return n, true
}

// give gives back what take took.
func (a *apply) give(r *env.Runner, n plan.Needs) {
	free := a.room[r.Name]
	free.cpu, free.memory, free.gpus = free.cpu+n.CPU, free.memory+n.Memory, free.gpus+n.GPUs
	if free.steps >= 0 {
		free.steps++
	}
}

// executor is that of a runner.
func (a *apply) executor(r *env.Runner) (executor.Executor, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ex, ok := a.executors[r.Name]; ok {
		return ex, nil
	}
	ex, err := a.Executor(*r)
	if err == nil {
		a.executors[r.Name] = ex
	}
	return ex, err
}

// close closes the executors. Nothing depends on how that goes: all that they
// made is in the store.
func (a *apply) close() {
	for _, ex := range a.executors {
		_ = ex.Close()
	}
}

// Tries are how often a step is tried on an engine that fails: fewer where there
// is another to go to.
const (
	tries          = 5
	triesOfSeveral = 2
)

// attempt executes a step, again with back-off while its engine fails.
func (a *apply) attempt(ctx context.Context, i int, runner *env.Runner, needs plan.Needs) (executor.Result, error) {
	most := tries
	if other, _ := a.Env.Place(needs, map[string]bool{runner.Name: true}); other != nil {
		most = triesOfSeveral
	}
	for n := 1; ; n++ {
		res, err := a.execute(ctx, i, runner, needs)
		var u executor.Unavailable
		if !errors.As(err, &u) || u.Lasting || n == most {
			return res, err
		}
		wait := time.Second << (n - 1)
		if a.Backoff != nil {
			wait = a.Backoff(n)
		}
		a.OnEvent(Event{Kind: "retry", Step: a.Plan.Steps[i].ID, Runner: runner.Name, Seconds: wait.Seconds(), Error: u.Error()})
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return res, ctx.Err()
		}
	}
}

// errTimeout is the cause of a context whose step took too long.
var errTimeout = errors.New("timeout")

// execute runs one step in a folder of its own, within its time.
func (a *apply) execute(ctx context.Context, i int, runner *env.Runner, needs plan.Needs) (executor.Result, error) {
	step := a.Plan.Steps[i]
	step.Needs = needs
	dir := filepath.Join(a.work, fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return executor.Result{}, err
	}
	defer os.RemoveAll(dir)
	if t := needs.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, errTimeout)
		defer cancel()
	}
	job := executor.Job{Step: &step, Dir: dir, Image: a.done[i].image, OnEvent: func(e executor.Event) {
		a.OnEvent(Event{Kind: "progress", Step: step.ID, Progress: e})
	}}
	for _, in := range step.Inputs {
		b := executor.Bound{}
		switch {
		case in.Step >= 0:
			b.Tree = a.done[in.Step].outputs[in.Output]
		case in.Tree != "":
			b.Tree = in.Tree
		case in.Registered != nil:
			var err error
			if b.Tree, err = a.registered(*in.Registered); err != nil {
				return executor.Result{}, err
			}
		default:
			for _, f := range in.Files {
				b.Files = append(b.Files, a.Path(f))
			}
		}
		job.Inputs = append(job.Inputs, b)
	}
	ex, err := a.executor(runner)
	if err != nil {
		return executor.Result{}, err
	}
	res, err := ex.Run(ctx, job)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return res, executor.Faults{{Arg: "timeout", Diagnostic: diag.Diagnostic{Severity: diag.Error, Code: diag.TimedOut, What: fmt.Sprintf("%s did not end within its %s", step.ID, needs.Timeout),
			Why: "it was stopped; what is finished stays finished", Mend: "give it more time, or less to do"}}}
	}
	if err != nil {
		return res, err
	}
	// The key names the files' content as it was when the step began.
	digests, err := a.inputs(a.Plan, i, a.done)
	if err != nil {
		return res, err
	}
	d := a.done[i]
	engines, err := a.engines(ctx, &d, step)
	if err != nil {
		return res, err
	}
	if a.Plan.Steps[i].Key(engines, digests) != d.Key {
		return res, errors.New("its files changed while it read them; apply again")
	}
	return res, nil
}

// register makes the version of a bundle. It runs here and not on a runner: it
// changes the state, and nothing else.
func (a *apply) register(ctx context.Context, i int, d *Decision) error {
	step := a.Plan.Steps[i]
	args, err := registerArgs(step)
	if err != nil {
		return err
	}
	if err := a.gated(ctx, step, a.done); err != nil {
		return err
	}
	bundle := a.done[step.Inputs[0].Step].outputs[step.Inputs[0].Output]
	metrics := json.RawMessage("{}")
	if path, err := a.Store.Path(ctx, bundle, "metrics.json"); err == nil {
		if metrics, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	version, isNew := 0, false
	if d.Action == Cached {
		a.out.Cached++
		version, err = a.State.Registered(args.Model, bundle)
	} else {
		a.out.Ran++
		version, isNew, err = a.State.Register(ctx, args.Model, bundle, metrics, a.out.Run, args.Promote, a.Now())
	}
	if err != nil {
		return err
	}
	d.Action = Cached
	d.outputs = map[string]plan.Digest{}
	a.out.Versions = append(a.out.Versions, RegisteredVersion{args.Model, version, bundle, isNew})
	return nil
}

// unreachable tells of the runners that failed, each once, and whether there are any.
func (a *apply) unreachable() bool {
	for i := range a.Env.Runners {
		r := &a.Env.Runners[i]
		if u, ok := a.gone[r.Name]; ok && !a.told[r.Name] {
			a.told[r.Name] = true
			code := u.Code
			if code == "" {
				code = diag.EngineFailed
			}
			a.list.Add(r.At, code, "runner %q: %s", r.Name, u.What).Because("steps were left that could run nowhere else; what is finished stays finished", u.Mend)
		}
	}
	return len(a.gone) > 0
}

// fail tells a step's error at its place.
func (a *apply) fail(step plan.Step, err error) {
	var own diag.Diagnostic
	if errors.As(err, &own) && own.Code == diag.NoRunner && a.unreachable() {
		return // the engines' failure is what there is to tell
	}
	*a.list = append(*a.list, StepError{step, err}.List(a.At)...)
}
