package main

import (
	"encoding/json"
	"net/http"
	"os"
	"sync"
	"time"

	"mlc.dev/mlc/runtime/ort"
)

// bareRequest is what the flights service takes, for encoding/json.
type bareRequest struct {
	Features struct {
		DepartedAt       time.Time `json:"flight.departed_at"`
		Distance         float64   `json:"flight.distance"`
		Departures       float64   `json:"origin_day.departures"`
		OriginShare      float64   `json:"origin_day.late_share"`
		DestinationShare float64   `json:"destination_day.late_share"`
	} `json:"features"`
}

type bareAnswer struct {
	Probability float32 `json:"probability"`
	Decision    bool    `json:"decision"`
}

// bare serves the flights model with net/http and encoding/json alone, in tensors
// that are used again: the floor of what a service in Go costs.
func bare(model, addr string) error {
	b, err := os.ReadFile(model)
	if err != nil {
		return err
	}
	session, err := ort.Open(b)
	if err != nil {
		return err
	}
	inputs := session.Inputs()
	pool := sync.Pool{New: func() any {
		in := make([]ort.Tensor, len(inputs))
		for i := range in {
			in[i] = ort.Column(make([]float64, 1))
		}
		return &in
	}}
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q bareRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		in := pool.Get().(*[]ort.Tensor)
		defer pool.Put(in)
		f := &q.Features
		for i, info := range inputs {
			x := (*in)[i].Data.([]float64)
			switch info.Name {
			case "flight.departed_at":
				x[0] = float64(f.DepartedAt.UnixMicro())
			case "flight.distance":
				x[0] = f.Distance
			case "origin_day.departures":
				x[0] = f.Departures
			case "origin_day.late_share":
				x[0] = f.OriginShare
			case "destination_day.late_share":
				x[0] = f.DestinationShare
			}
		}
		out, err := session.Run(*in)
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		p := out[0].Data.([]float32)[0]
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(bareAnswer{p, p >= 0.3}) // the caller may be gone
	}))
}
