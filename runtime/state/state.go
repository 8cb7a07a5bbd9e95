// Package state keeps what happened: runs, the results of steps by key, the
// digests of files, and the registry of models. It is an SQLite file.
package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver

	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
)

// DB is an open state.
type DB struct{ db *sql.DB }

const tables = `
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, id TEXT NOT NULL, outputs TEXT NOT NULL, report TEXT NOT NULL, seconds REAL NOT NULL, run INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS last (id TEXT PRIMARY KEY, key TEXT NOT NULL, version TEXT NOT NULL, args TEXT NOT NULL, inputs TEXT NOT NULL, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, status TEXT NOT NULL, plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run_steps (run INTEGER NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, seconds REAL NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (run, id));
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, inode INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (model TEXT NOT NULL, version INTEGER NOT NULL, bundle TEXT NOT NULL, run INTEGER NOT NULL, created TEXT NOT NULL, metrics TEXT NOT NULL, PRIMARY KEY (model, version), UNIQUE (model, bundle));
CREATE TABLE IF NOT EXISTS aliases (model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (model, alias));
CREATE TABLE IF NOT EXISTS moves (id INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, from_version INTEGER, to_version INTEGER, at TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (ref TEXT PRIMARY KEY, digest TEXT NOT NULL);
`

// Open opens or makes a state.
func Open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return open(path)
}

// OpenExisting opens a state to read it; ok is false where there is none yet.
func OpenExisting(path string) (db *DB, ok bool, err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	db, err = open(path)
	return db, err == nil, err
}

func open(path string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	uri := url.URL{Scheme: "file", Path: abs, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	var have string
	if err := db.QueryRow("SELECT value FROM meta WHERE name = 'lineage'").Scan(&have); err == nil {
		return &DB{db}, nil
	}
	if _, err := db.Exec(tables); err != nil {
		db.Close()
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		db.Close()
		return nil, err
	}
	if _, err := db.Exec("INSERT OR IGNORE INTO meta VALUES ('lineage', ?), ('serial', '0'), ('format', '1')", hex.EncodeToString(id)); err != nil {
		db.Close()
		return nil, err
	}
	return &DB{db}, nil
}

// Close closes the state.
func (d *DB) Close() error { return d.db.Close() }

// Lineage names this state and no other; Serial counts its changes.
func (d *DB) Lineage() (lineage string, serial int64, err error) {
	if err = d.db.QueryRow("SELECT value FROM meta WHERE name = 'lineage'").Scan(&lineage); err != nil {
		return "", 0, err
	}
	err = d.db.QueryRow("SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'serial'").Scan(&serial)
	return lineage, serial, err
}

// tx runs f in a transaction that raises the serial.
func (d *DB) tx(ctx context.Context, f func(*sql.Tx) error) error {
	t, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	if err := f(t); err != nil {
		return err
	}
	if _, err := t.Exec("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'serial'"); err != nil {
		return err
	}
	return t.Commit()
}

// StepResult is what a step made.
type StepResult struct {
	Key     plan.Digest
	ID      string
	Outputs map[string]plan.Digest
	Report  json.RawMessage
	Seconds float64
	Run     int64
}

// Step returns the result for a key and whether there is one.
func (d *DB) Step(key plan.Digest) (StepResult, bool, error) {
	r := StepResult{Key: key}
	var outputs, report string
	err := d.db.QueryRow("SELECT id, outputs, report, seconds, run FROM steps WHERE key = ?", string(key)).Scan(&r.ID, &outputs, &report, &r.Seconds, &r.Run)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	r.Report = json.RawMessage(report)
	return r, true, json.Unmarshal([]byte(outputs), &r.Outputs)
}

// Steps returns every result by key, for a whole plan at once.
func (d *DB) Steps() (map[plan.Digest]StepResult, error) {
	rows, err := d.db.Query("SELECT key, id, outputs, report, seconds, run FROM steps")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[plan.Digest]StepResult{}
	for rows.Next() {
		var r StepResult
		var outputs, report string
		if err := rows.Scan(&r.Key, &r.ID, &outputs, &report, &r.Seconds, &r.Run); err != nil {
			return nil, err
		}
		r.Report = json.RawMessage(report)
		if err := json.Unmarshal([]byte(outputs), &r.Outputs); err != nil {
			return nil, err
		}
		out[r.Key] = r
	}
	return out, rows.Err()
}

// Last is how a step of an ID was made the last time that it was.
type Last struct {
	Key     plan.Digest
	Version string
	Args    json.RawMessage
	Inputs  map[string]plan.Digest
	Seconds float64
}

// Lasts returns the Last of every ID.
func (d *DB) Lasts() (map[string]Last, error) {
	rows, err := d.db.Query("SELECT id, key, version, args, inputs, seconds FROM last")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]Last{}
	for rows.Next() {
		var id, args, inputs string
		var l Last
		if err := rows.Scan(&id, &l.Key, &l.Version, &args, &inputs, &l.Seconds); err != nil {
			return nil, err
		}
		l.Args = json.RawMessage(args)
		if err := json.Unmarshal([]byte(inputs), &l.Inputs); err != nil {
			return nil, err
		}
		out[id] = l
	}
	return out, rows.Err()
}

// SaveStep records a finished step, durably, with how it was made.
func (d *DB) SaveStep(ctx context.Context, s plan.Step, inputs map[string]plan.Digest, r StepResult) error {
	outputs, err := json.Marshal(r.Outputs)
	if err != nil {
		return err
	}
	ins, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	return d.tx(ctx, func(t *sql.Tx) error {
		if _, err := t.Exec("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)", string(r.Key), s.ID, string(outputs), string(r.Report), r.Seconds, r.Run); err != nil {
			return err
		}
		_, err := t.Exec("INSERT OR REPLACE INTO last VALUES (?, ?, ?, ?, ?, ?)", s.ID, string(r.Key), s.Version, string(s.Args), string(ins), r.Seconds)
		return err
	})
}

// Touch records that a step was found cached, made as it is now.
func (d *DB) Touch(ctx context.Context, s plan.Step, key plan.Digest, inputs map[string]plan.Digest, seconds float64) error {
	ins, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	_, err = d.db.ExecContext(ctx, "INSERT OR REPLACE INTO last VALUES (?, ?, ?, ?, ?, ?)", s.ID, string(key), s.Version, string(s.Args), string(ins), seconds)
	return err
}

// Image returns the digest that a reference was resolved to, and whether it was.
func (d *DB) Image(ref string) (digest string, ok bool, err error) {
	err = d.db.QueryRow("SELECT digest FROM images WHERE ref = ?", ref).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return digest, err == nil, err
}

// SaveImage records what a reference was resolved to.
func (d *DB) SaveImage(ctx context.Context, ref, digest string) error {
	_, err := d.db.ExecContext(ctx, "INSERT INTO images VALUES (?, ?) ON CONFLICT (ref) DO UPDATE SET digest = excluded.digest", ref, digest)
	return err
}

// FileDigest returns the digest of a file, from memory where size, times and
// inode are those of the last time.
func (d *DB) FileDigest(path string) (plan.Digest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	size, mtime, inode := info.Size(), info.ModTime().UnixNano(), inodeOf(info)
	var digest string
	err = d.db.QueryRow("SELECT digest FROM files WHERE path = ? AND size = ? AND mtime = ? AND inode = ?", path, size, mtime, inode).Scan(&digest)
	if err == nil {
		return plan.Digest(digest), nil
	}
	got, err := artifact.DigestFile(path)
	if err != nil {
		return "", err
	}
	// A file that was written just now could change again within the clock's
	// grain; it is not remembered.
	if time.Since(info.ModTime()) > 10*time.Millisecond {
		if _, err := d.db.Exec("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", path, size, mtime, inode, string(got)); err != nil {
			return "", err
		}
	}
	return got, nil
}
