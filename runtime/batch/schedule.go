package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/op"
)

// ScheduleOptions say what runs by the clock.
type ScheduleOptions struct {
	// Batches are run at the times of their schedules; those without one are passed over.
	Batches []service.Batch
	// Run makes one run, until it ends or ctx does.
	Run func(ctx context.Context, b service.Batch) error
	// State is the file that keeps the last runs. One scheduler at a time uses it.
	State string
	// Told hears when runs begin and end, one event at a time; nil: nobody.
	Told func(Event)
}

// Event is the beginning or the end of a run.
type Event struct {
	Batch string    `json:"batch"`
	Due   time.Time `json:"due"`
	// Begun and Ended are when; Ended is zero at the beginning.
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended,omitzero"`
	// Err is why the run failed, and State why what became of it could not be kept.
	Err   error `json:"-"`
	State error `json:"-"`
}

// StateFormat is the version of the state's file, which is JSON:
//
//	{"format": "mlc.schedule.v1", "batches": {"<name>": <Last>, …}}
const StateFormat = "mlc.schedule.v1"

// Last is what is known of a batch's runs.
type Last struct {
	// Since is when the batch was seen first or its last run began: what was due
	// before is done with. A clock that was ahead may have put it in the future.
	Since time.Time `json:"since"`
	// Due, Begun and Ended are those of the last run; without Ended it did not end,
	// and is made again.
	Due   time.Time `json:"due,omitzero"`
	Begun time.Time `json:"begun,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	// Error is why it failed; "" otherwise. It is not tried again before it is due.
	Error string `json:"error,omitempty"`
}

// Due is when a batch runs next.
type Due struct {
	Batch    string `json:"batch"`
	Schedule string `json:"schedule,omitempty"`
	// Next is zero for a batch without a schedule, and past for a run that was missed.
	Next time.Time `json:"next,omitzero"`
	// Last is nil before a scheduler has seen the batch.
	Last *Last `json:"last,omitempty"`
}

// longestWait bounds one wait, so that a clock that is set, or stood still while
// the machine slept, is noticed.
const longestWait = time.Minute

// Schedule runs batches when they are due, in UTC, until ctx is done, and then
// waits for the runs to end; that is no error. Different batches run side by side,
// one batch never twice at once. Of the runs that were missed while no scheduler
// ran, or while the one before took too long, one is made up.
func Schedule(ctx context.Context, o ScheduleOptions) error {
	specs, err := parse(o.Batches)
	if err != nil {
		return err
	}
	unlock, err := lockState(o.State)
	if err != nil {
		return err
	}
	defer unlock()
	s := &scheduler{o: o}
	if s.last, err = readState(o.State); err != nil {
		return err
	}
	for name := range s.last {
		if _, ok := specs[name]; !ok {
			delete(s.last, name) // one that comes back later has missed nothing
		}
	}
	now := clock()
	for name := range specs {
		if _, ok := s.last[name]; !ok {
			s.last[name] = Last{Since: now}
		}
	}
	if err := s.write(); err != nil { // later failures are told; this one is a wrong path
		return err
	}
	var wg sync.WaitGroup
	for _, b := range o.Batches {
		if spec, ok := specs[b.Name]; ok {
			wg.Go(func() { s.loop(ctx, b, spec) })
		}
	}
	wg.Wait()
	return nil
}

// Next tells when the batches run next, in their order. It takes no lock: a
// scheduler may be at work.
func Next(batches []service.Batch, state string) ([]Due, error) {
	specs, err := parse(batches)
	if err != nil {
		return nil, err
	}
	last, err := readState(state)
	if err != nil {
		return nil, err
	}
	out := make([]Due, len(batches))
	for i, b := range batches {
		out[i] = Due{Batch: b.Name, Schedule: b.Schedule}
		since := clock()
		if l, ok := last[b.Name]; ok {
			out[i].Last = &l
			since = l.Since
		}
		if spec, ok := specs[b.Name]; ok {
			if out[i].Next = spec.Next(past(since)); out[i].Last.interrupted() {
				out[i].Next = past(out[i].Last.Due)
			}
		}
	}
	return out, nil
}

// interrupted reports a run that did not end.
func (l *Last) interrupted() bool { return l != nil && !l.Begun.IsZero() && l.Ended.IsZero() }

// parse reads the schedules by the batches' names.
func parse(batches []service.Batch) (map[string]service.Schedule, error) {
	out := map[string]service.Schedule{}
	seen := map[string]bool{}
	for _, b := range batches {
		if seen[b.Name] {
			return nil, bad("two batches have the name %q", b.Name)
		}
		seen[b.Name] = true
		if b.Schedule == "" {
			continue
		}
		spec, err := service.ParseSchedule(b.Schedule)
		if err != nil {
			return nil, bad("the schedule %q of batch %q: %v", b.Schedule, b.Name, err)
		}
		out[b.Name] = spec
	}
	return out, nil
}

type scheduler struct {
	o    ScheduleOptions
	mu   sync.Mutex // of what follows, of the state's file, and of Told
	last map[string]Last
}

// loop runs one batch until ctx is done.
func (s *scheduler) loop(ctx context.Context, b service.Batch, spec service.Schedule) {
	for {
		s.mu.Lock()
		last := s.last[b.Name]
		s.mu.Unlock()
		due := spec.Next(past(last.Since))
		if last.interrupted() {
			due = past(last.Due)
		}
		if !until(ctx, due) {
			return
		}
		now := clock()
		last = Last{Since: now, Due: due, Begun: now}
		s.set(b.Name, last, nil)
		err := s.o.Run(ctx, b)
		if ctx.Err() != nil && err != nil {
			return // it is made again by the next scheduler
		}
		last.Ended = clock()
		if err != nil {
			last.Error = err.Error()
		}
		s.set(b.Name, last, err)
	}
}

// set keeps what became of a run, and tells it. Where it cannot be kept, the
// scheduler goes on with what it knows.
func (s *scheduler) set(name string, l Last, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[name] = l
	werr := s.write()
	if werr != nil {
		werr = fmt.Errorf("the state of the schedule cannot be kept: %w", werr)
	}
	if s.o.Told != nil {
		s.o.Told(Event{Batch: name, Due: l.Due, Begun: l.Begun, Ended: l.Ended, Err: err, State: werr})
	}
}

// clock is the time on the wall alone: what is due goes by it, also after it is set.
func clock() time.Time { return time.Now().UTC().Round(0) }

// ahead is how far a time that has not come yet may be for the clock to have been set back
// a little; beyond that it was wrong before.
const ahead = time.Hour

// past is t, or now where t is well ahead of it.
func past(t time.Time) time.Time {
	if now := clock(); t.Sub(now) > ahead {
		return now
	}
	return t
}

// until waits for a time; false when ctx is done first.
func until(ctx context.Context, t time.Time) bool {
	for {
		if ctx.Err() != nil {
			return false
		}
		wait := time.Until(t)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(min(wait, longestWait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// stateFile is the form of the state.
type stateFile struct {
	Format  string          `json:"format"`
	Batches map[string]Last `json:"batches"`
}

func (s *scheduler) write() error {
	b, err := json.MarshalIndent(stateFile{StateFormat, s.last}, "", "  ")
	if err != nil {
		return err
	}
	return op.WriteAtomic(s.o.State, func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

func readState(path string) (map[string]Last, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return map[string]Last{}, nil
	}
	if err != nil {
		return nil, err
	}
	var f stateFile
	if err := json.Unmarshal(b, &f); err != nil || f.Format != StateFormat {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.BadInput, What: fmt.Sprintf("%s is no state of a schedule that this mlc reads", path),
			Mend: "remove it: the batches then run when they are due next"}
	}
	if f.Batches == nil {
		f.Batches = map[string]Last{}
	}
	return f.Batches, nil
}

// lockState keeps a second scheduler off the state. The system frees the lock when
// this process ends.
func lockState(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.Locked, What: "another scheduler is at work here",
			Why: "two would run every batch twice", Mend: "stop it, or give this one another state"}
	}
	return func() { f.Close() }, nil
}
