package main

import (
	"context"
	"fmt"
	"os"

	"roundtrip/poststopics"
)

func main() {
	c := &poststopics.Client{URL: os.Args[1]}
	x := 0.75
	a, err := c.Predict(context.Background(), poststopics.Request{ID: "two", Rows: []poststopics.Row{{FX: &x}, {}}})
	if err != nil {
		panic(err)
	}
	p, q := a.Predictions[0], a.Predictions[1].Probabilities["sport"]
	fmt.Println(len(p.Labels), p.Labels[0], p.Probabilities["news"], len(p.Probabilities), len(a.Predictions[1].Labels), q != q)
}
