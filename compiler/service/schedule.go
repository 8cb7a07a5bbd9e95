package service

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule tells when a batch runs.
type Schedule struct{ spec cron.Schedule }

// ParseSchedule reads cron's five fields: minute, hour, day of the month, month,
// day of the week. What not every scheduler knows, or reads as others do, is refused:
// time zones, "?", words such as @daily, 7 for Sunday, and days by both fields where one
// has a star with more beside it, which are those of both to cron and of either to
// Kubernetes. So is a time that never comes, such as February 30.
func ParseSchedule(s string) (Schedule, error) {
	const known = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz*,/- "
	fields := strings.Fields(s)
	if len(fields) != 5 || strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(known, r) }) {
		return Schedule{}, errors.New("it has five fields: minute, hour, day of the month, month, day of the week")
	}
	for i, most := range [5]int{59, 23, 31, 12, 7} {
		for item := range strings.SplitSeq(fields[i], ",") {
			_, step, stepped := strings.Cut(item, "/")
			if n, err := strconv.Atoi(step); item == "" || stepped && (err != nil || n > most) {
				return Schedule{}, fmt.Errorf("%q has an item that is empty, or a step beyond its field", fields[i])
			}
		}
	}
	mixed := func(days string) bool { return days != "*" && strings.Contains(days, "*") }
	if day, weekday := fields[2], fields[4]; mixed(day) && weekday != "*" || mixed(weekday) && day != "*" {
		return Schedule{}, errors.New("it names days of the month and of the week, one with a star: cron takes those of both, Kubernetes those of either; name the days one by one")
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
