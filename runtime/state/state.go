// Package state keeps what happened: runs, the results of steps by key, the
// digests of files, and the registry of models. It is an SQLite file, or a schema
// of a PostgreSQL database that several machines share.
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
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/retry"
)

// DB is an open state.
type DB struct {
	ctx context.Context // of reads, which are asked for without one
	db  *sql.DB
	// postgres: the queries below are written for SQLite and hold for both, but for
	// the marks of parameters.
	postgres bool
	name     string // for people
	// files remembers digests of this machine's files; it is db, or a file beside.
	files *sql.DB
	path  string // of the SQLite file; "" for PostgreSQL
	told  func(string)
	met   atomic.Bool // the database has answered
	lease string      // the token of the lease that this process holds
}

// Options say where a state is.
type Options struct {
	// Location is the path of an SQLite file, or a postgres:// URL. The parameter
	// "schema" of the URL names the schema of the database, "mlc" by default.
	Location string
	// Files is the path of an SQLite file that remembers digests of files, for a
	// state that is not on this machine.
	Files string
	// Told hears of retries; nil: nobody.
	Told func(string)
}

// format is raised when the tables change.
const format = "3"

// tables of both databases: {id} is a key that counts up, {int} and {real} are
// numbers of 64 bits.
const tables = `
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, id TEXT NOT NULL, outputs TEXT NOT NULL, report TEXT NOT NULL, seconds {real} NOT NULL, run {int} NOT NULL);
CREATE TABLE IF NOT EXISTS last (id TEXT PRIMARY KEY, key TEXT NOT NULL, version TEXT NOT NULL, args TEXT NOT NULL, inputs TEXT NOT NULL, seconds {real} NOT NULL);
CREATE TABLE IF NOT EXISTS runs (id {id}, started TEXT NOT NULL, finished TEXT, status TEXT NOT NULL, plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run_steps (run {int} NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, seconds {real} NOT NULL, detail TEXT NOT NULL, position {int} NOT NULL, PRIMARY KEY (run, id));
CREATE TABLE IF NOT EXISTS versions (model TEXT NOT NULL, version {int} NOT NULL, bundle TEXT NOT NULL, run {int} NOT NULL, created TEXT NOT NULL, metrics TEXT NOT NULL, PRIMARY KEY (model, version), UNIQUE (model, bundle));
CREATE TABLE IF NOT EXISTS aliases (model TEXT NOT NULL, alias TEXT NOT NULL, version {int} NOT NULL, PRIMARY KEY (model, alias));
CREATE TABLE IF NOT EXISTS moves (id {id}, model TEXT NOT NULL, alias TEXT NOT NULL, from_version {int}, to_version {int}, at TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (ref TEXT PRIMARY KEY, digest TEXT NOT NULL);
` + since2

// before is the format that had the tables but those of since2: the plans of runs,
// and what results are of. It is brought up to date where it is opened.
const (
	before = "2"
	since2 = `
CREATE TABLE IF NOT EXISTS plans (digest TEXT PRIMARY KEY, plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS origins (key TEXT PRIMARY KEY, engines TEXT NOT NULL, inputs TEXT NOT NULL);
`
)

// filesTable is only ever in SQLite. What it holds can be read again, so the table that
// did not have ctime is dropped and not brought up to date.
const filesTable = `
DROP TABLE IF EXISTS files;
CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, inode INTEGER NOT NULL, digest TEXT NOT NULL);
`

// Open opens or makes a state. ctx bounds all reads of it.
func Open(ctx context.Context, o Options) (*DB, error) {
	d, _, err := open(ctx, o, true)
	return d, err
}

// OpenExisting opens a state to read it; ok is false where there is none yet.
func OpenExisting(ctx context.Context, o Options) (db *DB, ok bool, err error) {
	return open(ctx, o, false)
}

func open(ctx context.Context, o Options, create bool) (*DB, bool, error) {
	if strings.HasPrefix(o.Location, "postgres://") || strings.HasPrefix(o.Location, "postgresql://") {
		return openPostgres(ctx, o, create)
	}
	if _, err := os.Stat(o.Location); errors.Is(err, os.ErrNotExist) && !create {
		return nil, false, nil
	}
	db, err := openFile(o.Location, writing)
	if err != nil {
		return nil, false, err
	}
	d := &DB{ctx: ctx, db: db, files: db, path: o.Location, name: o.Location, told: o.Told}
	have, err := d.format()
	if err != nil && unwritable(o.Location) != nil {
		if log, e := os.Stat(o.Location + "-wal"); create || e == nil && log.Size() > 0 {
			db.Close()
			return nil, false, d.explain(err)
		}
		// Without a log beside it, the file alone is the state, and can be read.
		db.Close()
		if d.db, err = openRead(o.Location); err != nil {
			return nil, false, err
		}
		d.files = d.db
		if have, err = d.format(); err != nil {
			d.db.Close()
			return nil, false, fmt.Errorf("state %s: %w", o.Location, err)
		}
	}
	if err != nil {
		err = d.create(tables+filesTable, map[string]string{"{id}": "INTEGER PRIMARY KEY", "{int}": "INTEGER", "{real}": "REAL"})
		if err != nil {
			db.Close()
			return nil, false, fmt.Errorf("state %s: %w", o.Location, err)
		}
		return d, true, nil
	}
	_, _ = d.files.Exec(filesTable) // without it, files are read every time
	return d, true, d.fits(have)
}

// How a file is opened: to write, or to read it alone, without the files beside it.
const (
	writing = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	reading = "mode=ro&immutable=1"
)

// format is that of the tables that there are.
func (d *DB) format() (have string, err error) {
	err = d.db.QueryRow("SELECT value FROM meta WHERE name = 'format'").Scan(&have)
	return have, err
}

// unwritable is why nothing can be written beside a file; nil where something can.
func unwritable(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mlc-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// explain says what the system says where the state's file cannot be written; SQLite
// has but numbers for it.
func (d *DB) explain(err error) error {
	var told diag.Diagnostic
	if err == nil || errors.As(err, &told) || d.ctx.Err() != nil {
		return err
	}
	cause := unwritable(d.path)
	if cause == nil {
		return err
	}
	if e := (*os.PathError)(nil); errors.As(cause, &e) {
		cause = e.Err
	}
	return diag.Diagnostic{Severity: diag.Error, Code: diag.StateFailed, What: fmt.Sprintf("state %s cannot be written: %v", d.name, cause), Why: "what is finished is recorded there; what is finished stays finished",
		Mend: fmt.Sprintf("see that the folder %s has room and that this user may write to it; apply again goes on", filepath.Dir(d.path))}
}

func openFile(path, how string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return nil, err
	}
	uri := url.URL{Scheme: "file", Path: abs, RawQuery: how}
	db, err := sql.Open("sqlite", uri.String())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// openRead opens a file that is not written from here. Each question opens it anew, as
// others may write it, which SQLite does not look for then.
func openRead(path string) (*sql.DB, error) {
	db, err := openFile(path, reading)
	if err == nil {
		db.SetMaxIdleConns(-1)
	}
	return db, err
}

// create makes the tables and names the state.
func (d *DB) create(text string, types map[string]string) error {
	for mark, t := range types {
		text = strings.ReplaceAll(text, mark, t)
	}
	if _, err := d.db.ExecContext(d.ctx, text); err != nil {
		return err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	_, err := d.db.ExecContext(d.ctx, d.bind("INSERT INTO meta VALUES ('lineage', ?), ('serial', '0'), ('format', '"+format+"') ON CONFLICT (name) DO NOTHING"), hex.EncodeToString(id))
	return err
}

// Claim makes the state that of a system, which it stays: systems that share one would move
// each other's aliases. renamed says that the system it is of has this name now.
func (d *DB) Claim(ctx context.Context, system string, renamed bool) error {
	var owner string
	ok, err := d.row("SELECT value FROM meta WHERE name = 'system'", nil, &owner)
	switch {
	case err != nil || owner == system:
		return err
	case ok && !renamed:
		return diag.Diagnostic{Severity: diag.Error, Code: diag.StateFailed, What: fmt.Sprintf("state %s is that of system %q, not of %q", d.name, owner, system),
			Why: "the models and aliases of two systems would be taken for each other's", Mend: "give each a state of its own, in PostgreSQL by &schema=NAME; where it is the same system under a new name, `mlc apply --renamed`"}
	}
	return d.within(ctx, func(t tx) error {
		_, err := t.exec("INSERT INTO meta VALUES ('system', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", system)
		return err
	})
}

// fits brings a state of the format before up to date, and refuses any other.
func (d *DB) fits(have string) error {
	if have == format {
		return nil
	}
	if have == before {
		err := d.within(d.ctx, func(t tx) error {
			if _, err := t.exec(since2); err != nil {
				return err
			}
			_, err := t.exec("UPDATE meta SET value = ? WHERE name = 'format'", format)
			return err
		})
		if err != nil {
			d.Close()
			return fmt.Errorf("state %s: %w", d.name, err)
		}
		return nil
	}
	d.Close()
	return diag.Diagnostic{Severity: diag.Error, Code: diag.StateFailed, What: fmt.Sprintf("state %s is of format %s, this mlc reads %s", d.name, have, format),
		Why: "another version of mlc made it", Mend: "use that version, or begin a new state: what steps made is found again only by running them"}
}

// bind writes a query's marks as the database wants them.
func (d *DB) bind(query string) string { return bind(query, d.postgres) }

func bind(query string, postgres bool) string {
	if !postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for _, c := range query {
		if c == '?' {
			n++
			b.WriteString("$" + strconv.Itoa(n))
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

// do runs an operation, again while the database is out of reach.
func (d *DB) do(ctx context.Context, f func(context.Context) error) error {
	if !d.postgres {
		return d.explain(f(ctx))
	}
	err := retry.Do(ctx, retry.Policy{Passing: passing, Met: &d.met, Answer: answer, Told: func(err error, wait time.Duration) {
		if d.told != nil {
			d.told(fmt.Sprintf("state %s: %s; again in %s", d.name, plain(err), wait))
		}
	}}, f)
	if err != nil && passing(err) && ctx.Err() == nil {
		d.met.Store(false) // what comes next waits less for it
		return diag.Diagnostic{Severity: diag.Error, Code: diag.StateFailed, What: fmt.Sprintf("state %s is out of reach: %s", d.name, plain(err)),
			Why: "what is finished is recorded there; what is finished stays finished", Mend: "see that the database answers and lets this user in; apply again goes on"}
	}
	if forbidden(err) {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.StateFailed, What: fmt.Sprintf("state %s: %s", d.name, plain(err)), Why: "this user has not the rights that mlc needs there", Mend: "grant it SELECT, INSERT, UPDATE and DELETE on the schema's tables and, where there is none yet, CREATE on the database"}
	}
	return err
}

// row reads one row; ok is false where there is none.
func (d *DB) row(query string, args []any, dest ...any) (ok bool, err error) {
	err = d.do(d.ctx, func(ctx context.Context) error {
		err := d.db.QueryRowContext(ctx, d.bind(query), args...).Scan(dest...)
		ok = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return ok, err
}

// rows calls begin, and then f for each row.
func (d *DB) rows(query string, args []any, begin func(), f func(scan func(...any) error) error) error {
	return d.do(d.ctx, func(ctx context.Context) error {
		begin()
		rows, err := d.db.QueryContext(ctx, d.bind(query), args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := f(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// Close closes the state.
func (d *DB) Close() error {
	err := d.db.Close()
	if d.files != d.db {
		err = errors.Join(err, d.files.Close())
	}
	return err
}

// Lineage names this state and no other; Serial counts its changes.
func (d *DB) Lineage() (lineage string, serial int64, err error) {
	if _, err = d.row("SELECT value FROM meta WHERE name = 'lineage'", nil, &lineage); err != nil {
		return "", 0, err
	}
	_, err = d.row("SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'serial'", nil, &serial)
	return lineage, serial, err
}

// tx is a transaction whose queries are written for both databases.
type tx struct {
	t        *sql.Tx
	postgres bool
}

func (t tx) exec(query string, args ...any) (sql.Result, error) {
	return t.t.Exec(bind(query, t.postgres), args...)
}

func (t tx) row(query string, args ...any) *sql.Row {
	return t.t.QueryRow(bind(query, t.postgres), args...)
}

// tx runs f in a transaction that raises the serial, and that fails where the
// lease of this process is no longer its own. It may run f more than once.
func (d *DB) tx(ctx context.Context, f func(tx) error) error {
	return d.within(ctx, func(t tx) error {
		if err := f(t); err != nil {
			return err
		}
		_, err := t.exec("UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'serial'")
		return err
	})
}

// within runs f in a transaction.
func (d *DB) within(ctx context.Context, f func(tx) error) error {
	o := &sql.TxOptions{}
	if d.postgres {
		o.Isolation = sql.LevelSerializable
	}
	return d.do(ctx, func(ctx context.Context) error {
		t, err := d.db.BeginTx(ctx, o)
		if err != nil {
			return err
		}
		defer t.Rollback()
		x := tx{t, d.postgres}
		if err := d.holds(x); err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		return t.Commit()
	})
}

// StepResult is what a step made.
type StepResult struct {
	Key     plan.Digest
	ID      string
	Outputs map[string]plan.Digest
	Report  json.RawMessage
	Seconds float64
	// Run made it; 0: it was made apart from any run, to be looked at.
	Run int64
	// Engines computed it. Steps and Step leave it out; see Origin.
	Engines string
}

// Step returns the result for a key and whether there is one.
func (d *DB) Step(key plan.Digest) (StepResult, bool, error) {
	r := StepResult{Key: key}
	var outputs, report string
	ok, err := d.row("SELECT id, outputs, report, seconds, run FROM steps WHERE key = ?", []any{string(key)}, &r.ID, &outputs, &report, &r.Seconds, &r.Run)
	if !ok || err != nil {
		return r, false, err
	}
	r.Report = json.RawMessage(report)
	return r, true, json.Unmarshal([]byte(outputs), &r.Outputs)
}

// Steps returns every result by key, for a whole plan at once.
func (d *DB) Steps() (map[plan.Digest]StepResult, error) {
	var out map[plan.Digest]StepResult
	err := d.rows("SELECT key, id, outputs, report, seconds, run FROM steps", nil, func() { out = map[plan.Digest]StepResult{} }, func(scan func(...any) error) error {
		var r StepResult
		var outputs, report string
		if err := scan(&r.Key, &r.ID, &outputs, &report, &r.Seconds, &r.Run); err != nil {
			return err
		}
		r.Report = json.RawMessage(report)
		err := json.Unmarshal([]byte(outputs), &r.Outputs)
		out[r.Key] = r
		return err
	})
	return out, err
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
	var out map[string]Last
	err := d.rows("SELECT id, key, version, args, inputs, seconds FROM last", nil, func() { out = map[string]Last{} }, func(scan func(...any) error) error {
		var id, args, inputs string
		var l Last
		if err := scan(&id, &l.Key, &l.Version, &args, &inputs, &l.Seconds); err != nil {
			return err
		}
		l.Args = json.RawMessage(args)
		err := json.Unmarshal([]byte(inputs), &l.Inputs)
		out[id] = l
		return err
	})
	return out, err
}

const saveLast = "INSERT INTO last VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET key = excluded.key, version = excluded.version, args = excluded.args, inputs = excluded.inputs, seconds = excluded.seconds"

// SaveStep records a finished step, durably, with how it was made. A result of no
// run is not the last of its ID.
func (d *DB) SaveStep(ctx context.Context, s plan.Step, inputs map[string]plan.Digest, r StepResult) error {
	outputs, err := json.Marshal(r.Outputs)
	if err != nil {
		return err
	}
	ins, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	return d.tx(ctx, func(t tx) error {
		if _, err := t.exec("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET id = excluded.id, outputs = excluded.outputs, report = excluded.report, seconds = excluded.seconds, run = excluded.run",
			string(r.Key), s.ID, string(outputs), string(r.Report), r.Seconds, r.Run); err != nil {
			return err
		}
		if _, err := t.exec("INSERT INTO origins VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET engines = excluded.engines, inputs = excluded.inputs", string(r.Key), r.Engines, string(ins)); err != nil || r.Run == 0 {
			return err
		}
		_, err := t.exec(saveLast, s.ID, string(r.Key), s.Version, string(s.Args), string(ins), r.Seconds)
		return err
	})
}

// Origin is what a result was made by and of: the engines that computed it, and the
// digests of its inputs by name. ok is false where that was not recorded.
func (d *DB) Origin(key plan.Digest) (engines string, inputs map[string]plan.Digest, ok bool, err error) {
	var ins string
	if ok, err = d.row("SELECT engines, inputs FROM origins WHERE key = ?", []any{string(key)}, &engines, &ins); !ok || err != nil {
		return "", nil, false, err
	}
	return engines, inputs, true, json.Unmarshal([]byte(ins), &inputs)
}

// DropSteps forgets results of steps, all or none: the next plan that needs one
// runs its step.
func (d *DB) DropSteps(ctx context.Context, keys []plan.Digest) error {
	return d.tx(ctx, func(t tx) error {
		for _, key := range keys {
			for _, table := range []string{"steps", "origins"} {
				if _, err := t.exec("DELETE FROM "+table+" WHERE key = ?", string(key)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Touch records that a step was found cached, made as it is now.
func (d *DB) Touch(ctx context.Context, s plan.Step, key plan.Digest, inputs map[string]plan.Digest, seconds float64) error {
	ins, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	return d.within(ctx, func(t tx) error {
		_, err := t.exec(saveLast, s.ID, string(key), s.Version, string(s.Args), string(ins), seconds)
		return err
	})
}

// Image returns the digest that a reference was resolved to, and whether it was.
func (d *DB) Image(ref string) (digest string, ok bool, err error) {
	ok, err = d.row("SELECT digest FROM images WHERE ref = ?", []any{ref}, &digest)
	return digest, ok, err
}

// SaveImage records what a reference was resolved to.
func (d *DB) SaveImage(ctx context.Context, ref, digest string) error {
	return d.within(ctx, func(t tx) error {
		_, err := t.exec("INSERT INTO images VALUES (?, ?) ON CONFLICT (ref) DO UPDATE SET digest = excluded.digest", ref, digest)
		return err
	})
}

// FileDigest returns the digest of a file, from memory where size, times and inode are
// those of the last time. Of the times, anybody can set mtime back, but nobody ctime.
func (d *DB) FileDigest(path string) (plan.Digest, error) {
	now := time.Now()
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	size, mtime := info.Size(), info.ModTime()
	ctime, inode := changeOf(info)
	var digest string
	err = d.files.QueryRow("SELECT digest FROM digests WHERE path = ? AND size = ? AND mtime = ? AND ctime = ? AND inode = ?", path, size, mtime.UnixNano(), ctime.UnixNano(), inode).Scan(&digest)
	if err == nil {
		return plan.Digest(digest), nil
	}
	got, err := artifact.DigestFile(path)
	if err != nil {
		return "", err
	}
	// What changed within the grain of the clock before it was looked at can change
	// again, unseen, even while it is read; it is not remembered.
	if now.Sub(ctime) > grain(ctime) && now.Sub(mtime) > grain(mtime) {
		// What cannot be remembered is read again the next time.
		_, _ = d.files.Exec("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", path, size, mtime.UnixNano(), ctime.UnixNano(), inode, string(got))
	}
	return got, nil
}

// grain is the grain of the clock by which a file system sets a time: that of the
// kernel, or of file systems that have whole seconds two of them.
func grain(t time.Time) time.Duration {
	if t.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 10 * time.Millisecond
}
