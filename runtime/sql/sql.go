// Package sql is the set-wise engine: an embedded DuckDB, set up so that the
// same statements over the same data give the same bytes. Statements keep to
// its side of that: an ORDER BY on a key wherever order shows, exact or ordered
// sums. It is the only importer of duckdb-go.
package sql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/duckdb/duckdb-go/v2"

	"mlc.dev/mlc/compiler/expr"
)

// DB is an in-memory DuckDB that spills to a folder.
type DB struct {
	db   *sql.DB
	conn *sql.Conn
}

// Threads is how many threads a DB uses, on any machine: where rows are filtered,
// the bytes of a Parquet file depend on it.
const Threads = 2

// Open starts an engine that uses at most memory bytes (0: 2 GiB) on a number of
// threads (0: Threads), and spills into dir. Float aggregates give the same bits
// every time on one thread only.
func Open(ctx context.Context, dir string, memory int64, threads int) (*DB, error) {
	if memory <= 0 {
		memory = 2 << 30
	}
	if threads <= 0 {
		threads = Threads
	}
	settings := []string{
		fmt.Sprintf("SET threads = %d", threads),
		fmt.Sprintf("SET memory_limit = '%dMiB'", max(memory>>20, 64)),
		"SET temp_directory = " + expr.QuoteString(dir),
		"SET autoinstall_known_extensions = false",
		"SET autoload_known_extensions = false",
		"SET TimeZone = 'UTC'",
		"SET parquet_metadata_cache = true", // the footer of a wide file takes longer than a column
		"SET lock_configuration = true",
	}
	connector, err := duckdb.NewConnector("", func(c driver.ExecerContext) error {
		for _, s := range settings {
			if _, err := c.ExecContext(ctx, s, nil); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	conn, err := db.Conn(ctx) // one connection: temporary tables belong to it
	if err != nil {
		db.Close()
		return nil, err
	}
	return &DB{db, conn}, nil
}

// Close ends the engine and frees what it holds.
func (d *DB) Close() error {
	d.conn.Close()
	return d.db.Close()
}

// Exec runs a statement.
func (d *DB) Exec(ctx context.Context, query string, args ...any) error {
	_, err := d.conn.ExecContext(ctx, query, args...)
	return clean(err, query)
}

// Row runs a query and scans its one row into dest.
func (d *DB) Row(ctx context.Context, query string, dest ...any) error {
	return clean(d.conn.QueryRowContext(ctx, query).Scan(dest...), query)
}

// Rows runs a query and calls f for each row; scan reads the row into dest.
func (d *DB) Rows(ctx context.Context, query string, f func(scan func(dest ...any) error) error) error {
	rows, err := d.conn.QueryContext(ctx, query)
	if err != nil {
		return clean(err, query)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return clean(rows.Err(), query)
}

// Columns returns the names and DuckDB types of a query's columns, in order.
func (d *DB) Columns(ctx context.Context, query string) (names, duckTypes []string, err error) {
	err = d.Rows(ctx, "SELECT column_name, column_type FROM (DESCRIBE "+query+")", func(scan func(...any) error) error {
		var n, t string
		if err := scan(&n, &t); err != nil {
			return err
		}
		names, duckTypes = append(names, n), append(duckTypes, t)
		return nil
	})
	return names, duckTypes, err
}

// manyColumns are too many for dictionaries, of which every text has one that takes
// 256 KiB while it is written.
const manyColumns = 1000

// WriteParquet writes a query's rows to a Parquet file. The query must end in
// an ORDER BY over a key, or keep the order of its one input.
func (d *DB) WriteParquet(ctx context.Context, query, path string) error {
	names, _, err := d.Columns(ctx, query)
	if err != nil {
		return err
	}
	dictionaries := ""
	if len(names) > manyColumns {
		dictionaries = ", DICTIONARY_SIZE_LIMIT 0"
	}
	return d.Exec(ctx, "COPY ("+query+") TO "+expr.QuoteString(path)+" (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 122880"+dictionaries+")")
}

// clean adds the statement to an error that only our own SQL can have made.
func clean(err error, query string) error {
	if err == nil || err == sql.ErrNoRows || err == context.Canceled {
		return err
	}
	msg := err.Error()
	if strings.Contains(msg, "Parser Error") || strings.Contains(msg, "Binder Error") || strings.Contains(msg, "Catalog Error") {
		return fmt.Errorf("%w\nin %s", err, query)
	}
	return err
}
