package main

import (
	"context"
	"fmt"
	"os"

	"roundtrip/penguinsspeciesof"
)

func main() {
	c := &penguinsspeciesof.Client{URL: os.Args[1]}
	bill, sex := 0.75, "female"
	a, err := c.Predict(context.Background(), penguinsspeciesof.Request{ID: "two", Rows: []penguinsspeciesof.Row{{BirdBill: &bill, BirdSex: &sex}, {}}})
	if err != nil {
		panic(err)
	}
	p, q := a.Predictions[0], a.Predictions[1].Probabilities["Gentoo"]
	fmt.Println(p.Class, p.Probabilities["Adelie"], p.Probabilities["Chinstrap"], len(p.Probabilities), q != q)
}
