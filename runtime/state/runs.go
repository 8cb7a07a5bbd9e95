package state

import (
	"context"
	"database/sql"
	"errors"
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
	err := d.tx(ctx, func(t *sql.Tx) error {
		if _, err := t.Exec("UPDATE runs SET status = 'interrupted' WHERE status = 'running'"); err != nil {
			return err
		}
		res, err := t.Exec("INSERT INTO runs (started, status, plan) VALUES (?, 'running', ?)", now.UTC().Format(time.RFC3339Nano), string(p))
		if err != nil {
			return err
		}
		id, err = res.LastInsertId()
		return err
	})
	return id, err
}

// EndRun closes a run.
func (d *DB) EndRun(ctx context.Context, id int64, status string, now time.Time) error {
	return d.tx(ctx, func(t *sql.Tx) error {
		_, err := t.Exec("UPDATE runs SET finished = ?, status = ? WHERE id = ?", now.UTC().Format(time.RFC3339Nano), status, id)
		return err
	})
}

// SaveRunSteps notes what happened to steps of a run.
func (d *DB) SaveRunSteps(ctx context.Context, run int64, steps ...RunStep) error {
	t, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	for _, s := range steps {
		if _, err := t.Exec("INSERT OR REPLACE INTO run_steps VALUES (?, ?, ?, ?, ?, ?)", run, s.ID, string(s.Key), s.Status, s.Seconds, s.Detail); err != nil {
			return err
		}
	}
	return t.Commit()
}

// LastRun returns the newest run and whether there is one.
func (d *DB) LastRun() (Run, bool, error) {
	var r Run
	var started string
	var finished *string
	err := d.db.QueryRow("SELECT id, started, finished, status, plan FROM runs ORDER BY id DESC LIMIT 1").Scan(&r.ID, &started, &finished, &r.Status, &r.Plan)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
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
	rows, err := d.db.Query("SELECT id, key, status, seconds, detail FROM run_steps WHERE run = ? ORDER BY rowid", r.ID)
	if err != nil {
		return r, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var s RunStep
		if err := rows.Scan(&s.ID, &s.Key, &s.Status, &s.Seconds, &s.Detail); err != nil {
			return r, false, err
		}
		r.Steps = append(r.Steps, s)
	}
	return r, true, rows.Err()
}
