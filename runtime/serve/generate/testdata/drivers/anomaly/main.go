package main

import (
	"context"
	"fmt"
	"os"

	"roundtrip/pumpswatch"
)

func main() {
	c := &pumpswatch.Client{URL: os.Args[1]}
	x := 7500.0
	a, err := c.Predict(context.Background(), pumpswatch.Request{ID: "two", Rows: []pumpswatch.Row{{FX: &x}, {}}})
	if err != nil {
		panic(err)
	}
	p, q := a.Predictions[0], a.Predictions[1].Score
	fmt.Println(p.Score, p.Decision, a.Predictions[1].Decision, q != q)
}
