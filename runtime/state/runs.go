package state

import (
	"context"
	"encoding/json"
	"time"

	"mlc.dev/mlc/compiler/plan"
)

// Run is one apply.
type Run struct {
	ID       int64     `json:"id"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	// Status is running, done, failed or interrupted. A run whose process died
	// stays running until the next begins.
	Status string      `json:"status"`
	Plan   plan.Digest `json:"plan"`
	Steps  []RunStep   `json:"steps"`
}

// RunStep is what happened to one step of a run.
type RunStep struct {
	ID      string      `json:"id"`
	Key     plan.Digest `json:"key,omitempty"`
	Status  string      `json:"status"` // done, cached, failed
	Seconds float64     `json:"seconds"`
	Detail  string      `json:"detail,omitempty"`
}

// BeginRun starts a run, and marks those that were cut off.
func (d *DB) BeginRun(ctx context.Context, p plan.Digest, now time.Time) (int64, error) {
	var id int64
	err := d.tx(ctx, func(t tx) error {
		if _, err := t.exec("UPDATE runs SET status = 'interrupted' WHERE status = 'running'"); err != nil {
			return err
		}
		return t.row("INSERT INTO runs (started, status, plan) VALUES (?, 'running', ?) RETURNING id", now.UTC().Format(time.RFC3339Nano), string(p)).Scan(&id)
	})
	return id, err
}

// EndRun closes a run.
func (d *DB) EndRun(ctx context.Context, id int64, status string, now time.Time) error {
	return d.tx(ctx, func(t tx) error {
		_, err := t.exec("UPDATE runs SET finished = ?, status = ? WHERE id = ?", now.UTC().Format(time.RFC3339Nano), status, id)
		return err
	})
}

// SaveRunSteps notes what happened to steps of a run.
func (d *DB) SaveRunSteps(ctx context.Context, run int64, steps ...RunStep) error {
	if len(steps) == 0 {
		return nil
	}
	return d.within(ctx, func(t tx) error {
		for _, s := range steps {
			if _, err := t.exec(`INSERT INTO run_steps VALUES (?, ?, ?, ?, ?, ?, (SELECT count(*) FROM run_steps WHERE run = ?))
				ON CONFLICT (run, id) DO UPDATE SET key = excluded.key, status = excluded.status, seconds = excluded.seconds, detail = excluded.detail`,
				run, s.ID, string(s.Key), s.Status, s.Seconds, s.Detail, run); err != nil {
				return err
			}
		}
		return nil
	})
}

// Runs returns every run without its steps, oldest first.
func (d *DB) Runs() ([]Run, error) {
	var out []Run
	err := d.rows("SELECT id, started, finished, status, plan FROM runs ORDER BY id", nil, func() { out = nil }, func(scan func(...any) error) error {
		r, err := scanRun(scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// RunSteps returns what happened to the steps of the runs from the given one on.
func (d *DB) RunSteps(from int64) ([]RunStep, error) {
	var out []RunStep
	err := d.rows("SELECT id, key, status, seconds, detail FROM run_steps WHERE run >= ? ORDER BY run, position", []any{from}, func() { out = nil }, func(scan func(...any) error) error {
		var s RunStep
		err := scan(&s.ID, &s.Key, &s.Status, &s.Seconds, &s.Detail)
		out = append(out, s)
		return err
	})
	return out, err
}

// scanRun reads a run without its steps.
func scanRun(scan func(...any) error) (Run, error) {
	var r Run
	var started string
	var finished *string
	err := scan(&r.ID, &started, &finished, &r.Status, &r.Plan)
	if err != nil {
		return r, err
	}
	if r.Started, err = time.Parse(time.RFC3339Nano, started); err != nil || finished == nil {
		return r, err
	}
	r.Finished, err = time.Parse(time.RFC3339Nano, *finished)
	return r, err
}

// LastRun returns the newest run and whether there is one.
func (d *DB) LastRun() (Run, bool, error) {
	return d.run("ORDER BY id DESC LIMIT 1")
}

// Run returns a run and whether there is one of that ID.
func (d *DB) Run(id int64) (Run, bool, error) { return d.run("WHERE id = ?", id) }

// run returns the one that a clause picks, with its steps.
func (d *DB) run(clause string, args ...any) (Run, bool, error) {
	var r Run
	ok := false
	err := d.rows("SELECT id, started, finished, status, plan FROM runs "+clause, args, func() { ok = false }, func(scan func(...any) error) (err error) {
		r, err = scanRun(scan)
		ok = true
		return err
	})
	if !ok || err != nil {
		return r, false, err
	}
	err = d.rows("SELECT id, key, status, seconds, detail FROM run_steps WHERE run = ? ORDER BY position", []any{r.ID}, func() { r.Steps = nil }, func(scan func(...any) error) error {
		var s RunStep
		err := scan(&s.ID, &s.Key, &s.Status, &s.Seconds, &s.Detail)
		r.Steps = append(r.Steps, s)
		return err
	})
	return r, true, err
}

// SavePlan keeps a plan by its digest.
func (d *DB) SavePlan(ctx context.Context, p *plan.Plan) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return d.within(ctx, func(t tx) error {
		_, err := t.exec("INSERT INTO plans VALUES (?, ?) ON CONFLICT (digest) DO NOTHING", string(p.Digest()), string(b))
		return err
	})
}

// Plan returns the plan of a digest and whether it was kept.
func (d *DB) Plan(digest plan.Digest) (*plan.Plan, bool, error) {
	var text string
	ok, err := d.row("SELECT plan FROM plans WHERE digest = ?", []any{string(digest)}, &text)
	if !ok || err != nil {
		return nil, false, err
	}
	p := &plan.Plan{}
	return p, true, json.Unmarshal([]byte(text), p)
}
