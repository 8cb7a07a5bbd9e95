package main

import (
	"context"
	"fmt"
	"os"

	"roundtrip/tripsminutes"
)

func main() {
	c := &tripsminutes.Client{URL: os.Args[1]}
	x := 2.5
	a, err := c.Predict(context.Background(), tripsminutes.Request{ID: "two", Rows: []tripsminutes.Row{{FX: &x}, {}}})
	if err != nil {
		panic(err)
	}
	p, q := a.Predictions[0], a.Predictions[1].Quantiles["0.5"]
	fmt.Println(p.Quantiles["0.1"], p.Quantiles["0.9"], len(p.Quantiles), q != q)
}
