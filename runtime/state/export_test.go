package state

import "context"

// ExpireLease ends whatever lease there is.
func (d *DB) ExpireLease(ctx context.Context) error {
	_, err := d.db.ExecContext(ctx, "UPDATE leases SET expires = clock_timestamp() - interval '1 second'")
	return err
}
