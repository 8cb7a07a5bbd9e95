// Package trainer tests what every trainer promises.
package trainer

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/metric"
	"mlc.dev/mlc/stdlib/trainer/gbdt"
	"mlc.dev/mlc/stdlib/trainer/linear"
	"mlc.dev/mlc/stdlib/trainer/prior"
	"mlc.dev/mlc/stdlib/trainer/rule"
)

var args = map[string]string{
	"gbdt":   `{"rounds":40,"learning_rate":0.2,"max_leaves":15,"max_depth":0,"min_rows":5,"l2":1,"min_gain":0,"bins":255,"early_stopping":10,"row_sample":1,"column_sample":1}`,
	"linear": `{"l2":1,"tolerance":1e-6,"max_steps":2000}`,
	"prior":  `{}`,
	"rule":   `{}`,
}

// examples makes rows with a signal in two columns; missing puts NaN in one.
func examples(task kind.Task, rows, cols int, seed uint64, missing bool) kind.Examples {
	r := rand.New(rand.NewPCG(seed, 1))
	e := kind.Examples{X: kind.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}, Y: make([]float64, rows)}
	for i := range rows {
		row := e.X.Row(i)
		for j := range row {
			row[j] = float32(r.NormFloat64())
		}
		s := 2*float64(row[0]) + math.Sin(3*float64(row[cols-1])) + 0.3*r.NormFloat64()
		if missing && i%7 == 0 {
			row[0] = float32(math.NaN())
		}
		switch task.Kind {
		case kind.Binary:
			if s > 0 {
				e.Y[i] = 1
			}
		case kind.Multiclass:
			e.Y[i] = math.Min(math.Max(math.Floor(s)+1, 0), float64(len(task.Classes)-1))
		default:
			e.Y[i] = 100 + 10*s
		}
	}
	return e
}

// TestContract: on every task a trainer's ONNX model predicts what it predicts
// itself, in the right shape; any number of threads gives the same bytes; and a
// trainer that looks at features beats the prior.
func TestContract(t *testing.T) {
	tasks := []kind.Task{{Kind: kind.Binary}, {Kind: kind.Multiclass, Classes: []string{"low", "mid", "high"}}, {Kind: kind.Regression}}
	for _, tr := range []kind.Trainer{prior.Trainer{}, rule.Trainer{}, linear.Trainer{}, gbdt.Trainer{}} {
		for _, task := range tasks {
			t.Run(tr.Name()+" "+task.Kind, func(t *testing.T) {
				cols := 5
				if tr.Name() == "rule" {
					cols = 1
				}
				missing := tr.Name() != "linear"
				train, valid, test := examples(task, 3000, cols, 1, missing), examples(task, 500, cols, 2, missing), examples(task, 500, cols, 3, missing)
				if tr.Name() == "rule" && task.Kind != kind.Regression {
					for _, e := range []kind.Examples{train, valid, test} {
						for i, v := range e.X.Data { // a rule gives few answers
							e.X.Data[i] = float32(math.Floor(float64(v)))
						}
					}
				}
				fit := func(threads int) kind.TrainResult {
					names := make([]string, cols)
					for i := range names {
						names[i] = fmt.Sprint("x", i)
					}
					res, err := tr.Train(context.Background(), kind.TrainJob{Task: task, Args: json.RawMessage(args[tr.Name()]), Seed: 1, Threads: threads, Names: names,
						Train: train, Valid: valid, Progress: func(int, int, string) {}})
					if err != nil {
						t.Fatal(err)
					}
					return res
				}
				res := fit(1)
				if again := fit(3); !cmp.Equal(res.Model, again.Model) {
					t.Error("three threads give another model than one")
				}
				want := res.Predict(test.X)
				if len(want) != test.X.Rows*task.Width() {
					t.Fatalf("%d predictions", len(want))
				}
				s, err := ort.Open(res.Model)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				out, err := s.Run([]ort.Tensor{{Shape: []int64{int64(test.X.Rows), int64(cols)}, Data: test.X.Data}})
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range out[0].Data.([]float32) {
					if d := math.Abs(float64(v - want[i])); !(d <= 1e-5*math.Max(1, math.Abs(float64(want[i])))) {
						t.Fatalf("prediction %d: ONNX %v, Go %v", i, v, want[i])
					}
				}
				if !tr.Features() || cols == 1 {
					return
				}
				var m kind.Metric = metric.LogLoss{}
				if task.Kind == kind.Regression {
					m = metric.RMSE{}
				}
				ours, err := m.Compute(task, test.Y, want)
				if err != nil {
					t.Fatal(err)
				}
				mean := prior.Average(task, train.Y)
				var base []float32
				for range test.Y {
					base = append(base, mean...)
				}
				theirs, err := m.Compute(task, test.Y, base)
				if err != nil || !(ours < 0.7*theirs) {
					t.Errorf("%s %v against the prior's %v: %v", m.Name(), ours, theirs, err)
				}
			})
		}
	}
}

// TestLinearIsConverged: at the solution the gradient of the penalised loss is
// zero, which a fixed number of steps would not give.
func TestLinearIsConverged(t *testing.T) {
	task := kind.Task{Kind: kind.Binary}
	e := examples(task, 2000, 4, 5, false)
	for i := range e.X.Rows { // badly scaled on purpose
		e.X.Row(i)[1] *= 1e4
	}
	res, err := linear.Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Args: json.RawMessage(args["linear"]), Threads: 2, Names: []string{"a", "b", "c", "d"}, Train: e, Progress: func(int, int, string) {}})
	if err != nil {
		t.Fatal(err)
	}
	// Without penalty on it, the bias's gradient is the mean residual.
	sum := 0.0
	for i, p := range res.Predict(e.X) {
		sum += float64(p) - e.Y[i]
	}
	if mean := sum / float64(len(e.Y)); math.Abs(mean) > 1e-5 {
		t.Errorf("mean residual %v", mean)
	}
	if res.Report["gradient"].(float64) > 1e-4 {
		t.Errorf("gradient %v", res.Report["gradient"])
	}
}

// TestGBDTStopsEarly: a validation loss that stops falling ends training, and
// the best round is kept.
func TestGBDTStopsEarly(t *testing.T) {
	task := kind.Task{Kind: kind.Regression}
	train, valid := examples(task, 300, 3, 1, false), examples(task, 300, 3, 2, false)
	res, err := gbdt.Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Threads: 1, Names: []string{"a", "b", "c"}, Train: train, Valid: valid, Progress: func(int, int, string) {},
		Args: json.RawMessage(`{"rounds":5000,"learning_rate":0.3,"max_leaves":31,"min_rows":2,"l2":0,"bins":255,"early_stopping":5,"row_sample":1,"column_sample":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Report["rounds"].(int); n >= 200 {
		t.Errorf("%d rounds", n)
	}
}
