// Asks the service in every way that the test has an answer for, and prints what came.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"roundtrip/flightsapi"
)

func ptr[T any](x T) *T { return &x }

func main() {
	c := &flightsapi.Client{URL: os.Args[1] + "/", Bearer: "token", APIKey: "key", Retries: 2}
	rows := []flightsapi.Row{
		{FlightCarrier: "AA", FlightDistance: 2500, FlightDeparts: time.Date(2024, 1, 31, 12, 0, 0, 0, time.UTC)},
		{FlightCarrier: "O'Hare \"*/", FlightDistance: 7500, FlightStops: ptr(int64(2)), FlightNight: ptr(true),
			FlightDeparts: time.Date(2024, 7, 1, 1, 30, 0, 250e6, time.FixedZone("", 7200)), OriginDayWind: ptr(1.5), OriginDayWind2: ptr("ü")},
	}
	ask := func(id string, rows []flightsapi.Row) (*flightsapi.Response, error) {
		return c.Predict(context.Background(), flightsapi.Request{ID: id, Key: "caller", Rows: rows})
	}
	a, err := ask("two", rows)
	if err != nil {
		panic(err)
	}
	fmt.Println("two:", a.ID, a.Model, a.Version, a.Variant, a.Fallback)
	for _, p := range a.Predictions {
		fmt.Println(p.Probability, p.Decision)
	}
	a, err = ask("shed", rows)
	fmt.Println("shed:", err == nil && len(a.Predictions) == 2)
	for _, id := range []string{"down", "later", "html", "redirect"} {
		_, err := ask(id, rows)
		var e *flightsapi.Error
		fmt.Println(id+":", errors.As(err, &e) && e.Status != 200)
		if id == "later" {
			fmt.Println(e.Status, e.Text, e.ID, e.RetryAfter.Seconds())
		}
	}
	rows[0].FlightCarrier, rows[1].FlightDistance = "ZZ", -1
	_, err = ask("bad", rows)
	var e *flightsapi.Error
	if !errors.As(err, &e) {
		panic(err)
	}
	fmt.Println("bad:", e.Status, len(e.Faults))
	for _, f := range e.Faults {
		fmt.Println(f.Path)
	}
	c.Timeout = 100 * time.Millisecond
	_, err = ask("hang", rows)
	fmt.Println("hang:", errors.Is(err, context.DeadlineExceeded))
}
