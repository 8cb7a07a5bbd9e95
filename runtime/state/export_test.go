package state

import "context"

// ExpireLease ends whatever lease there is.
func (d *DB) ExpireLease(ctx context.Context) error {
	_, err := d.db.ExecContext(ctx, "UPDATE leases SET expires = clock_timestamp() - interval '1 second'")
	return err
}

// Age makes the state one of the format before.
func (d *DB) Age(ctx context.Context) error {
	for _, q := range []string{"DROP TABLE plans", "DROP TABLE origins", "UPDATE meta SET value = '" + before + "' WHERE name = 'format'"} {
		if _, err := d.db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// Remembers reports whether a file's digest was remembered.
func (d *DB) Remembers(path string) (n bool) {
	return d.files.QueryRow("SELECT true FROM digests WHERE path = ?", path).Scan(&n) == nil
}

// OpenRead opens a state as where nothing may be written.
func OpenRead(ctx context.Context, path string) (*DB, error) {
	db, err := openRead(path)
	return &DB{ctx: ctx, db: db, files: db, path: path, name: path}, err
}
