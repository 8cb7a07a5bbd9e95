package encoder

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/stdlib/encoder/date"
)

const allParts = `"parts":["hour","day_of_week","day_of_month","day_of_year","month","quarter","weekend","year","epoch_days"]`

// dateParts are what Go's calendar says of microseconds, in the order of allParts.
func dateParts(us float64) []float64 {
	d := time.UnixMicro(int64(us)).UTC()
	weekend := 0.0
	if d.Weekday() == time.Saturday || d.Weekday() == time.Sunday {
		weekend = 1
	}
	midnight := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC)
	return []float64{float64(d.Hour()), float64(d.Weekday()), float64(d.Day()), float64(d.YearDay()), float64(d.Month()),
		float64((d.Month()-1)/3 + 1), weekend, float64(d.Year()), float64(midnight.Unix() / 86400)}
}

// checkDates compares the encoder with Go's calendar.
func checkDates(t tester, rows []float64) {
	t.Helper()
	got, _, names := run(t, date.Encoder{}, `{`+allParts+`,"cyclic":false,"indicator":true}`, kind.Values{Numbers: rows}, kind.Values{Numbers: rows})
	for i, us := range rows {
		want := append(dateParts(us), 0)
		if math.IsNaN(us) || math.IsInf(us, 0) {
			want = []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
		}
		for j, w := range want {
			if g := got[i*len(names)+j]; g != w {
				t.Fatalf("%s of %v (%s) is %v, want %v", names[j], us, time.UnixMicro(int64(us)).UTC(), g, w)
			}
		}
	}
}

// TestDateEveryDay: the first and the last microsecond of every day of 800 years
// that a double can hold.
func TestDateEveryDay(t *testing.T) {
	var rows []float64
	for d := time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() <= 2400; d = d.AddDate(0, 0, 1) {
		first := float64(d.UnixMicro())
		rows = append(rows, first, math.Nextafter(first, math.Inf(-1)))
		if math.Abs(first) < 1<<53 {
			rows[len(rows)-1] = first - 1
		}
	}
	checkDates(t, rows)
}

func TestDateAnyTime(t *testing.T) {
	from, to := time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(2401, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	us := rapid.OneOf(rapid.Map(rapid.Int64Range(from, to-1), func(i int64) float64 { return float64(i) }),
		rapid.SampledFrom([]float64{nan, math.Inf(1), math.Inf(-1), 0, -1, 951782400e6, 4107542399999999}))
	rapid.Check(t, func(t *rapid.T) { checkDates(t, rapid.SliceOfN(us, 1, 20).Draw(t, "rows")) })
}

// TestDateCyclic: a part's place on its circle, and the others as they are.
func TestDateCyclic(t *testing.T) {
	at := func(y int, m time.Month, d, h int) float64 {
		return float64(time.Date(y, m, d, h, 59, 0, 0, time.UTC).UnixMicro())
	}
	rows := []float64{at(2024, 1, 1, 0), at(2024, 12, 31, 18), at(2023, 12, 31, 23), at(1969, 7, 20, 20), nan}
	got, _, names := run(t, date.Encoder{}, `{`+allParts+`,"cyclic":true,"indicator":false}`, kind.Values{Numbers: rows}, kind.Values{Numbers: rows})
	want := "[hour_sin hour_cos day_of_week_sin day_of_week_cos day_of_month_sin day_of_month_cos day_of_year_sin day_of_year_cos month_sin month_cos quarter_sin quarter_cos weekend year epoch_days]"
	if fmt.Sprint(names) != want {
		t.Fatalf("%s", names)
	}
	for i, us := range rows {
		row := got[i*len(names) : (i+1)*len(names)]
		if math.IsNaN(us) {
			for j, v := range row {
				if v != 0 {
					t.Errorf("%s of a missing time is %v", names[j], v)
				}
			}
			continue
		}
		p := dateParts(us)
		for j, c := range []struct{ first, period float64 }{{0, 24}, {0, 7}, {1, 31}, {1, 366}, {1, 12}, {1, 4}} {
			sin, cos := math.Sincos(2 * math.Pi * (p[j] - c.first) / c.period)
			if math.Abs(row[2*j]-sin) > 1e-6 || math.Abs(row[2*j+1]-cos) > 1e-6 {
				t.Errorf("%s of %v is %v, %v, want %v, %v", names[2*j], us, row[2*j], row[2*j+1], sin, cos)
			}
		}
		for j, v := range row[12:] {
			if v != p[6+j] {
				t.Errorf("%s of %v is %v, want %v", names[12+j], us, v, p[6+j])
			}
		}
	}
}

func TestDateDefaults(t *testing.T) {
	rows := kind.Values{Numbers: []float64{float64(time.Date(2024, 2, 29, 13, 0, 0, 0, time.UTC).UnixMicro())}}
	got, _, names := run(t, date.Encoder{}, `{"cyclic":false,"indicator":true}`, rows, rows)
	if fmt.Sprint(names, got) != "[year month day_of_week hour missing] [2024 2 4 13 0]" {
		t.Errorf("%s %v", names, got)
	}
}

// TestDateRefuses: a part that comes twice, and what is no time.
func TestDateRefuses(t *testing.T) {
	g := onnx.New("test")
	_, _, err := date.Encoder{}.Lower(g, kind.Numbers, g.Input("x", onnx.Double, -1, 1), []byte(`{"parts":["year","year"]}`), nil)
	if err == nil || err.Error() != "the part year comes twice" {
		t.Errorf("%v", err)
	}
	for _, in := range []kind.Flow{kind.Texts, kind.Block} {
		if _, ok := (date.Encoder{}).Accepts(in, nil); ok {
			t.Errorf("date takes %s", in)
		}
	}
}
