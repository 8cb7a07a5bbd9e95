package service_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/service"
)

func TestSchedule(t *testing.T) {
	at := func(s string) time.Time {
		out, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct{ spec, from, next string }{
		{"0 3 * * *", "2026-01-31 02:59:59", "2026-01-31 03:00:00"},
		{"0 3 * * *", "2026-01-31 03:00:00", "2026-02-01 03:00:00"},
		{"*/15 8-18 * * MON-FRI", "2026-11-27 18:45:00", "2026-11-30 08:00:00"},
		{"0 0 29 2 *", "2096-02-29 00:00:00", "2104-02-29 00:00:00"}, // 2100 is no leap year
		{"0 0 */2 * *", "2026-01-01 00:00:00", "2026-01-03 00:00:00"},
		{"0 0 13 * FRI", "2026-01-13 00:00:00", "2026-01-16 00:00:00"}, // either
		{"30 6 1 JAN,JUL *", "2026-01-01 06:30:00", "2026-07-01 06:30:00"},
	} {
		s, err := service.ParseSchedule(c.spec)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		// The zone of what is asked with does not matter.
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("there", 7*3600)} {
			if got := s.Next(at(c.from).In(zone)); !got.Equal(at(c.next)) || got.Location() != time.UTC {
				t.Errorf("%s after %s is %s, not %s", c.spec, c.from, got, c.next)
			}
		}
	}
	for _, bad := range []string{"", "* * * *", "* * * * * *", "@daily", "TZ=UTC 0 3 * *", "CRON_TZ=UTC 0 3 * * *", "60 * * * *", "0 3 31 2 *", "0 3 * * FRO", "*/0 * * * *", "a b c d e", "30 6 1 JAN ?", "0 3 *\n* *", "0 3 *\t* *",
		"1,2,,3 * * * *", ",1 * * * *", "*/61 * * * *", "0 0-23/25 * * *", "0 3 */2 * 1", "0 3 1 * */2", "0 3 * * 7"} {
		if _, err := service.ParseSchedule(bad); err == nil {
			t.Errorf("%q is a schedule", bad)
		}
	}
}

// FuzzSchedule: no text makes the parser panic, and what it accepts has a next
// time that is later, in UTC and a whole minute.
func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"0 3 * * *", "*/15 8-18 * * MON-FRI", "0 0 29 2 *", "TZ= 0 3 * *", "@every 1h a b c", "1-59/9223372036854775807 * * * *", "* * ? * ?", "0-0,5 *\t* * 7"} {
		f.Add(s, int64(1764000000))
	}
	f.Fuzz(func(t *testing.T, spec string, unix int64) {
		s, err := service.ParseSchedule(spec)
		if err != nil || unix < 0 || unix > 1<<33 {
			return
		}
		from := time.Unix(unix, 0)
		next := s.Next(from)
		if !next.After(from) || next.Location() != time.UTC || next.Second() != 0 || next.Nanosecond() != 0 {
			t.Errorf("%q after %s is %s", spec, from.UTC(), next)
		}
	})
}

func TestModels(t *testing.T) {
	a, b, c := service.Ref{Model: "m", Alias: "a"}, service.Ref{Model: "m", Alias: "b"}, service.Ref{Model: "n", Alias: "a"}
	s := service.Service{Split: []service.Branch{{Model: a}, {Model: b}}, Shadow: &service.Shadow{Model: c}}
	if diff := cmp.Diff([]service.Ref{a, b, c}, s.Models()); diff != "" {
		t.Error(diff)
	}
	s = service.Service{Steps: []service.Step{{Model: a}, {Model: c}, {Model: a}}, Shadow: &service.Shadow{Model: c}}
	if diff := cmp.Diff([]service.Ref{a, c}, s.Models()); diff != "" {
		t.Error(diff)
	}
	if a.String() != "m@a" {
		t.Errorf("a reference prints as %s", a)
	}
}

// TestIn: relative paths are from the folder, in a service of its own.
func TestIn(t *testing.T) {
	s := service.Service{TLS: &service.TLS{Cert: "a.pem", Key: "/keys/a", ClientCA: ""}, Log: &service.Log{Dir: "log", TLS: &service.ClientTLS{CA: "ca.pem"}, Kafka: []string{"b:1"}}}
	got := s.In("spec")
	if want := (service.TLS{Cert: "spec/a.pem", Key: "/keys/a"}); *got.TLS != want {
		t.Errorf("%+v", *got.TLS)
	}
	if got.Log.Dir != "spec/log" || *got.Log.TLS != (service.ClientTLS{CA: "spec/ca.pem"}) || got.Log.Kafka[0] != "b:1" {
		t.Errorf("%+v", *got.Log)
	}
	if s.TLS.Cert != "a.pem" || s.Log.Dir != "log" || s.Log.TLS.CA != "ca.pem" {
		t.Errorf("the service itself changed: %+v %+v", *s.TLS, *s.Log)
	}
	if bare := (&service.Service{}).In("spec"); bare.TLS != nil || bare.Log != nil {
		t.Errorf("%+v", bare)
	}
}
