package main

import (
	"context"
	"fmt"
	"os"

	"roundtrip/bikesdemand"
)

func main() {
	c := &bikesdemand.Client{URL: os.Args[1]}
	a, err := c.Predict(context.Background(), bikesdemand.Request{ID: "two", Rows: []bikesdemand.Row{{DayPressure: 1000, DayHoliday: true}}})
	if err != nil {
		panic(err)
	}
	fmt.Println(a.Predictions[0].Prediction)
}
