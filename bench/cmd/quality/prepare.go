package main

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"mlc.dev/mlc/bench/internal/run"
)

// table is a CSV file in memory.
type table struct {
	header []string
	rows   [][]string
}

// read reads a .csv.gz file with a header.
func read(path string, delimiter rune) table {
	f, err := os.Open(path)
	run.Must(err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	run.Must(err)
	r := csv.NewReader(z)
	r.Comma = delimiter
	rows, err := r.ReadAll()
	run.Must(err)
	return table{rows[0], rows[1:]}
}

// write makes a CSV file.
func (t table) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	if err := w.Write(t.header); err != nil {
		return err
	}
	if err := w.WriteAll(t.rows); err != nil {
		return err
	}
	return f.Close()
}

// column is the values of a column by its name.
func (t table) column(name string) []string {
	k := slices.Index(t.header, name)
	out := make([]string, len(t.rows))
	for i, r := range t.rows {
		out[i] = r[k]
	}
	return out
}

// with adds a column.
func (t table) with(name string, values []string) table {
	out := table{append(slices.Clone(t.header), name), make([][]string, len(t.rows))}
	for i, r := range t.rows {
		out.rows[i] = append(slices.Clone(r), values[i])
	}
	return out
}

// drawn adds the column part to a file: the references' own split.
func drawn(file string) func(string) table {
	return func(data string) table {
		t := read(filepath.Join(data, file), ',')
		return t.with("part", draw(make([]string, len(t.rows))))
	}
}

// bank adds the column part; the split is stratified by the label.
func bank(data string) table {
	t := read(filepath.Join(data, "bank-additional-full.csv.gz"), ';')
	return t.with("part", draw(t.column("y")))
}

// bike puts date and hour together.
func bike(data string) table {
	t := read(filepath.Join(data, "hour.csv.gz"), ',')
	at := t.column("dteday")
	for i, h := range t.column("hr") {
		at[i] += fmt.Sprintf(" %02s:00:00", h)
	}
	return t.with("at", at)
}

// beijing puts the time together, and adds the key of the one station and target:
// pm2.5, but only where the hour before was measured, since the references leave out
// other rows.
func beijing(data string) table {
	t := read(filepath.Join(data, "pollution.csv.gz"), ',')
	at, pm, target, station := t.column("year"), t.column("pm2.5"), make([]string, len(t.rows)), make([]string, len(t.rows))
	month, day, hour := t.column("month"), t.column("day"), t.column("hour")
	for i := range t.rows {
		at[i] += fmt.Sprintf("-%02s-%02s %02s:00:00", month[i], day[i], hour[i])
		if station[i] = "1"; pm[i] == "NA" {
			pm[i] = ""
		}
		if i > 0 && pm[i-1] != "" {
			target[i] = pm[i]
		}
	}
	return t.with("at", at).with("station", station).with("pm25", pm).with("target", target)
}
