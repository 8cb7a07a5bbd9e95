package ensemble

import (
	"context"
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
)

// loss is what a stack's weights minimise.
func loss(task kind.Task, y []float64, p []float32) float64 {
	w, sum := task.Width(), 0.0
	for i, v := range y {
		switch task.Kind {
		case kind.Regression:
			sum += (v - float64(p[i])) * (v - float64(p[i]))
		case kind.Binary:
			q := float64(p[i])
			if v == 0 {
				q = 1 - q
			}
			sum -= math.Log(math.Max(q, 1e-15))
		default:
			sum -= math.Log(math.Max(float64(p[i*w+int(v)]), 1e-15))
		}
	}
	return sum
}

// TestStackIsBest: no other weights on a grid predict the validation rows better, and
// the exported graph says what Go does.
func TestStackIsBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := rapid.SampledFrom([]kind.Task{{Kind: kind.Binary}, {Kind: kind.Regression}, {Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}}).Draw(t, "task")
		w, n := task.Width(), rapid.IntRange(3, 30).Draw(t, "n")
		x := kind.Matrix{Rows: n, Cols: 3 * w}
		var y []float64
		for range n {
			y = append(y, float64(rapid.IntRange(0, max(w, 2)-1).Draw(t, "y")))
			for range 3 {
				row := make([]float64, w)
				sum := 0.0
				for c := range row {
					row[c] = float64(rapid.IntRange(1, 20).Draw(t, "p"))
					sum += row[c]
				}
				for _, v := range row {
					if w == 1 {
						sum = 21
					}
					x.Data = append(x.Data, float32(v/sum))
				}
			}
		}
		train := func(args string) kind.TrainResult {
			res, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Args: json.RawMessage(args), Train: kind.Examples{X: x, Y: y}})
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		best := train(`{"of":["a","b","c"],"combine":"stack"}`)
		got := loss(task, y, best.Predict(x))
		for i := 0; i <= 10; i++ {
			for j := 0; j <= 10-i; j++ {
				args, _ := json.Marshal(map[string]any{"of": []string{"a", "b", "c"}, "combine": "mean", "weights": []int{i, j, 10 - i - j}})
				if other := loss(task, y, train(string(args)).Predict(x)); other < got-1e-6*(1+math.Abs(got)) {
					t.Fatalf("%v has loss %v, weights %d %d %d have %v", best.Report, got, i, j, 10-i-j, other)
				}
			}
		}
		s, err := ort.Open(best.Model)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		out, err := s.Run([]ort.Tensor{{Data: x.Data, Shape: []int64{int64(n), int64(x.Cols)}}})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range best.Predict(x) {
			if math.Abs(float64(v-out[0].Data.([]float32)[i])) > 1e-6 {
				t.Fatalf("value %d is %v in Go and %v in ONNX", i, v, out[0].Data.([]float32)[i])
			}
		}
	})
}

func TestCheck(t *testing.T) {
	for args, field := range map[string]string{
		`{"of":["a","b"],"combine":"stack","weights":[1,1]}`: "weights",
		`{"of":["a","b"],"combine":"mean","weights":[1]}`:    "weights",
		`{"of":["a","b"],"combine":"mean","weights":[0,0]}`:  "weights",
	} {
		if f := (Trainer{}).Check(json.RawMessage(args), kind.Binary); len(f) != 1 || f[0].Field != field {
			t.Errorf("%s: %+v", args, f)
		}
	}
	if f := (Trainer{}).Check(json.RawMessage(`{"of":["a","b"],"combine":"stack"}`), kind.Quantile); len(f) != 1 {
		t.Errorf("a stack of quantiles: %+v", f)
	}
	if _, err := (Trainer{}).Train(context.Background(), kind.TrainJob{Task: kind.Task{Kind: kind.Binary}, Args: json.RawMessage(`{"of":["a","b"],"combine":"stack"}`)}); err == nil {
		t.Error("a stack without rows to learn from")
	}
}
