package state

import (
	"context"
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

// LastRun returns the newest run and whether there is one.
func (d *DB) LastRun() (Run, bool, error) {
	var r Run
	var started string
	var finished *string
	ok, err := d.row("SELECT id, started, finished, status, plan FROM runs ORDER BY id DESC LIMIT 1", nil, &r.ID, &started, &finished, &r.Status, &r.Plan)
	if !ok || err != nil {
		return r, false, err
	}
	if r.Started, err = time.Parse(time.RFC3339Nano, started); err != nil {
		return r, false, err
	}
	if finished != nil {
		if r.Finished, err = time.Parse(time.RFC3339Nano, *finished); err != nil {
			return r, false, err
		}
	}
	err = d.rows("SELECT id, key, status, seconds, detail FROM run_steps WHERE run = ? ORDER BY position", []any{r.ID}, func() { r.Steps = nil }, func(scan func(...any) error) error {
		var s RunStep
		err := scan(&s.ID, &s.Key, &s.Status, &s.Seconds, &s.Detail)
		r.Steps = append(r.Steps, s)
		return err
	})
	return r, true, err
}
