package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
)

// Version is one registered bundle of a model.
type Version struct {
	Model   string          `json:"model"`
	Version int             `json:"version"`
	Bundle  plan.Digest     `json:"bundle"`
	Run     int64           `json:"run"`
	Created time.Time       `json:"created"`
	Metrics json.RawMessage `json:"metrics"`
	Aliases []string        `json:"aliases,omitempty"`
}

// Move is one change of an alias. From and To are 0 where there was none.
type Move struct {
	Model string    `json:"model"`
	Alias string    `json:"alias"`
	From  int       `json:"from,omitempty"`
	To    int       `json:"to,omitempty"`
	At    time.Time `json:"at"`
	Why   string    `json:"why"`
}

// Registered returns the version of a bundle, or 0.
func (d *DB) Registered(model string, bundle plan.Digest) (int, error) {
	var v int
	_, err := d.row("SELECT version FROM versions WHERE model = ? AND bundle = ?", []any{model, string(bundle)}, &v)
	return v, err
}

// Aliased returns the bundle of the version that an alias names, or "".
func (d *DB) Aliased(model, alias string) (plan.Digest, error) {
	var bundle string
	_, err := d.row("SELECT bundle FROM versions JOIN aliases ON versions.model = aliases.model AND versions.version = aliases.version WHERE aliases.model = ? AND alias = ?", []any{model, alias}, &bundle)
	return plan.Digest(bundle), err
}

// Register makes a version of a bundle, unless there is one, which is the applied one
// then, and moves the alias promote, when not empty, to it.
func (d *DB) Register(ctx context.Context, model string, bundle plan.Digest, metrics json.RawMessage, run int64, promote string, now time.Time) (version int, isNew bool, err error) {
	if version, err = d.Registered(model, bundle); err != nil {
		return 0, false, err
	}
	if isNew = version == 0; !isNew && promote == "" {
		if last, err := d.applied(model); err != nil || last == version {
			return version, false, err
		}
	}
	err = d.tx(ctx, func(t tx) error {
		if isNew {
			if err := t.row("SELECT coalesce(max(version), 0) + 1 FROM versions WHERE model = ?", model).Scan(&version); err != nil {
				return err
			}
			if _, err := t.exec("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", model, version, string(bundle), run, now.UTC().Format(time.RFC3339Nano), string(metrics)); err != nil {
				return err
			}
		}
		if _, err := t.exec("INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", appliedName(model), strconv.Itoa(version)); err != nil {
			return err
		}
		if promote == "" {
			return nil
		}
		return move(t, model, promote, version, now, "gates passed")
	})
	return version, isNew, err
}

// appliedName is the name in meta of the version that a model's spec made last. It is not
// the newest where a spec went back to what it was.
func appliedName(model string) string { return "applied " + model }

// applied is the version that was applied last, or 0.
func (d *DB) applied(model string) (int, error) {
	var version int
	ok, err := d.row("SELECT CAST(value AS BIGINT) FROM meta WHERE name = ?", []any{appliedName(model)}, &version)
	if err == nil && !ok { // what made the state did not keep it
		_, err = d.row("SELECT coalesce(max(version), 0) FROM versions WHERE model = ?", []any{model}, &version)
	}
	return version, err
}

func move(t tx, model, alias string, to int, now time.Time, why string) error {
	var from *int
	err := t.row("SELECT version FROM aliases WHERE model = ? AND alias = ?", model, alias).Scan(&from)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if from != nil && *from == to {
		return nil
	}
	if _, err := t.exec("INSERT INTO aliases VALUES (?, ?, ?) ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version", model, alias, to); err != nil {
		return err
	}
	_, err = t.exec("INSERT INTO moves (model, alias, from_version, to_version, at, why) VALUES (?, ?, ?, ?, ?, ?)", model, alias, from, to, now.UTC().Format(time.RFC3339Nano), why)
	return err
}

// Promote moves an alias to a version, and returns where it was (0: nowhere).
func (d *DB) Promote(ctx context.Context, model, alias string, version int, now time.Time, why string) (from int, err error) {
	err = d.tx(ctx, func(t tx) error {
		var n int
		if err := t.row("SELECT count(*) FROM versions WHERE model = ? AND version = ?", model, version).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return noModel("model %q has no version %d", model, version)
		}
		if err := t.row("SELECT version FROM aliases WHERE model = ? AND alias = ?", model, alias).Scan(&from); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return move(t, model, alias, version, now, why)
	})
	return from, err
}

// Rollback moves an alias back to where its last move that was no rollback came
// from. It fails where there is nothing before.
func (d *DB) Rollback(ctx context.Context, model, alias string, now time.Time) (from, to int, err error) {
	err = d.tx(ctx, func(t tx) error {
		if err := t.row("SELECT version FROM aliases WHERE model = ? AND alias = ?", model, alias).Scan(&from); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				return noModel("model %q has no alias %q", model, alias)
			}
			return err
		}
		err := t.row("SELECT from_version FROM moves WHERE model = ? AND alias = ? AND to_version = ? AND from_version IS NOT NULL AND why NOT LIKE 'rollback%' ORDER BY id DESC LIMIT 1", model, alias, from).Scan(&to)
		if errors.Is(err, sql.ErrNoRows) {
			return noModel("alias %q of model %q was nowhere before version %d", alias, model, from)
		}
		if err != nil {
			return err
		}
		return move(t, model, alias, to, now, fmt.Sprintf("rollback from version %d", from))
	})
	return from, to, err
}

func noModel(what string, args ...any) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf(what, args...), Mend: "`mlc show` lists models, versions and aliases"}
}

// Versions returns the versions of a model, or of all with "", oldest first.
func (d *DB) Versions(model string) ([]Version, error) {
	var out []Version
	err := d.rows("SELECT model, version, bundle, run, created, metrics FROM versions WHERE model = ? OR ? = '' ORDER BY model, version", []any{model, model}, func() { out = nil }, func(scan func(...any) error) error {
		var v Version
		var created, metrics string
		err := scan(&v.Model, &v.Version, &v.Bundle, &v.Run, &created, &metrics)
		if err != nil {
			return err
		}
		v.Metrics = json.RawMessage(metrics)
		v.Created, err = time.Parse(time.RFC3339Nano, created)
		out = append(out, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	type alias struct {
		model, alias string
		version      int
	}
	var aliases []alias
	err = d.rows("SELECT model, alias, version FROM aliases ORDER BY alias", nil, func() { aliases = nil }, func(scan func(...any) error) error {
		var a alias
		err := scan(&a.model, &a.alias, &a.version)
		aliases = append(aliases, a)
		return err
	})
	for _, a := range aliases {
		for i := range out {
			if out[i].Model == a.model && out[i].Version == a.version {
				out[i].Aliases = append(out[i].Aliases, a.alias)
			}
		}
	}
	return out, err
}

// Moves returns the history of a model's aliases, oldest first.
func (d *DB) Moves(model string) ([]Move, error) {
	var out []Move
	err := d.rows("SELECT alias, coalesce(from_version, 0), coalesce(to_version, 0), at, why FROM moves WHERE model = ? ORDER BY id", []any{model}, func() { out = nil }, func(scan func(...any) error) error {
		m := Move{Model: model}
		var at string
		err := scan(&m.Alias, &m.From, &m.To, &at, &m.Why)
		if err != nil {
			return err
		}
		m.At, err = time.Parse(time.RFC3339Nano, at)
		out = append(out, m)
		return err
	})
	return out, err
}

// Resolve finds a version by "model", "model@alias", "model@v3" or "model@3".
// Without a version it is the one that was applied last.
func (d *DB) Resolve(ref string) (Version, error) {
	name, at, _ := strings.Cut(ref, "@")
	all, err := d.Versions("")
	if err != nil {
		return Version{}, err
	}
	last, err := d.applied(name)
	if err != nil {
		return Version{}, err
	}
	var names, aliases []string
	var found *Version
	for i, v := range all {
		if !contains(names, v.Model) {
			names = append(names, v.Model)
		}
		if v.Model != name {
			continue
		}
		aliases = append(aliases, v.Aliases...)
		n, err := strconv.Atoi(strings.TrimPrefix(at, "v"))
		if at == "" && v.Version == last || contains(v.Aliases, at) || err == nil && n == v.Version {
			found = &all[i]
		}
	}
	switch {
	case found != nil:
		return *found, nil
	case !contains(names, name):
		return Version{}, noModel("no model %q is registered%s", name, diag.Suggest(name, names))
	}
	if strings.Trim(at, "v0123456789") == "" {
		return Version{}, noModel("model %q has no version %q", name, at)
	}
	return Version{}, diag.Diagnostic{Severity: diag.Error, Code: diag.NoModel, What: fmt.Sprintf("model %q has no version under the alias %q yet%s", name, at, diag.Suggest(at, aliases)),
		Mend: fmt.Sprintf("`mlc promote %s@v%d %s` gives it the last one applied; `mlc show` lists versions and aliases", name, last, at)}
}

func contains(xs []string, x string) bool {
	for _, y := range xs {
		if x == y {
			return true
		}
	}
	return false
}
