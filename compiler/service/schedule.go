package service

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule tells when a batch runs.
type Schedule struct{ spec cron.Schedule }

// ParseSchedule reads cron's five fields: minute, hour, day of the month, month,
// day of the week. Time zones, "?" and words such as @daily are refused, for not every
// scheduler knows them; so is a time that never comes, such as February 30.
func ParseSchedule(s string) (Schedule, error) {
	const known = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz*,/- "
	if len(strings.Fields(s)) != 5 || strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(known, r) }) {
		return Schedule{}, errors.New("it has five fields: minute, hour, day of the month, month, day of the week")
	}
	spec, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(s)
	if err != nil {
		return Schedule{}, fmt.Errorf("cannot read it: %w", err)
	}
	out := Schedule{spec}
	if out.Next(time.Unix(0, 0)).IsZero() {
		return Schedule{}, errors.New("no date ever fits it")
	}
	return out, nil
}

// Next is the first time after t, in UTC.
func (s Schedule) Next(t time.Time) time.Time {
	next := s.spec.Next(t.UTC())
	if next.IsZero() { // it looks five years ahead, and leap days can be eight apart
		next = s.spec.Next(t.UTC().AddDate(5, 0, 0))
	}
	return next
}
