package difftest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/runtime/sql"
)

// read returns what expr.ReadTimestamp makes of texts, in microseconds; nil where a
// text is no instant.
func read(ctx context.Context, t interface{ Fatal(...any) }, db *sql.DB, texts []string) []*int64 {
	rows := make([]string, len(texts))
	for i, s := range texts {
		rows[i] = fmt.Sprintf("(%d, %s)", i, expr.QuoteString(s))
	}
	var out []*int64
	err := db.Rows(ctx, "SELECT epoch_us("+expr.ReadTimestamp("s")+") FROM (VALUES "+strings.Join(rows, ", ")+") AS v(i, s) ORDER BY i", func(scan func(...any) error) error {
		var at *int64
		if err := scan(&at); err != nil {
			return err
		}
		out = append(out, at)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReadTimestamp: an instant is the same in every way of writing it, whatever
// stands in the rows around it.
func TestReadTimestamp(t *testing.T) {
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := t.Context()
	noise := []string{"2024-03-01 12:00:00 America/New_York", "2024-03-01 Europe/Berlin", "noon", "infinity"}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-60_000_000_000, 200_000_000_000).Draw(t, "seconds"), 1000*rapid.Int64Range(0, 999_999).Draw(t, "micros")).UTC()
		east := rapid.IntRange(-24*60+1, 24*60-1).Draw(t, "offset")
		there := at.In(time.FixedZone("", east*60))
		texts := []string{
			there.Format("2006-01-02T15:04:05.000000-07:00"), noise[0], there.Format("2006/01/02 15:04:05.000000 -0700"),
			noise[1], at.Format("2006-1-2 15:04:05.000000"), noise[2], at.Format(" 2006-01-02T15:04:05.000000Z "), noise[3], at.Format("2006-01-02 15:04:05.000000 UTC"),
			at.Format("2006-01-02"),
		}
		for i, got := range read(ctx, t, db, texts) {
			want := at.UnixMicro()
			if i == len(texts)-1 {
				want = at.Truncate(24 * time.Hour).UnixMicro()
			}
			if odd := i%2 == 1 && i < 8; odd && got != nil || !odd && (got == nil || *got != want) {
				t.Fatalf("%q, which is %d, is read as %v", texts[i], want, got)
			}
		}
		minute := at.Truncate(time.Minute)
		there = minute.In(there.Location())
		texts = []string{there.Format("2006-01-02T15:04-07:00"), there.Format("2006/1/2 15:04 -0700"), minute.Format("2006-01-02T15:04Z"), minute.Format("2006-01-02 15:04 UTC"), minute.Format("2006-01-02 15:04")}
		for i, got := range read(ctx, t, db, texts) {
			if got == nil || *got != minute.UnixMicro() {
				t.Fatalf("%q, which is %d, is read as %v", texts[i], minute.UnixMicro(), got)
			}
		}
	})
}

// TestReadTimestampLeapDays: every 29 February of four centuries is a day exactly
// where Go's calendar, which is Gregorian too, has it.
func TestReadTimestampLeapDays(t *testing.T) {
	db, err := sql.Open(t.Context(), t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := t.Context()
	var texts []string
	for y := 1800; y <= 2200; y++ {
		texts = append(texts, fmt.Sprintf("%d-02-29", y))
	}
	for i, got := range read(ctx, t, db, texts) {
		if _, err := time.Parse("2006-01-02", texts[i]); (err == nil) != (got != nil) {
			t.Errorf("%s is read as %v", texts[i], got)
		}
	}
	for i, got := range read(ctx, t, db, []string{"2024-13-01", "2024-04-31", "24-01-31", "20240131", "1706659200", "31.01.2024", "2024-01-31 25:00", "2024-01-31T12:00:00+99:00", "2024-01-31T12:00:00+24:00", "epoch", ""}) {
		if got != nil {
			t.Errorf("%d is read as %d", i, *got)
		}
	}
}
