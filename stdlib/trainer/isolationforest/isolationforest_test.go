package isolationforest

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/stdlib/metric"
)

func fit(t interface{ Fatal(...any) }, x kind.Matrix, y []float64, args string, seed uint64, threads int) kind.TrainResult {
	res, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: kind.Task{Kind: kind.Anomaly}, Args: json.RawMessage(args), Seed: seed, Threads: threads,
		Train: kind.Examples{X: x, Y: y}, Progress: func(int, int, string) {}})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestLength: c(n), as sklearn.ensemble._iforest._average_path_length gives it.
func TestLength(t *testing.T) {
	for n, want := range map[int]float64{0: 0, 1: 0, 2: 1, 3: 1.207392357589623, 10: 3.748880484475505, 256: 10.244770920119917} {
		if got := length(n); math.Abs(got-want) > 1e-12 {
			t.Errorf("c(%d) is %v, not %v", n, got, want)
		}
	}
}

// TestContract: any matrix, with missing and infinite values too, gives scores from 0
// to 1 that ONNX gives as well, the same on any number of threads and whatever the
// labels.
func TestContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(2, 40).Draw(t, "rows"), rapid.IntRange(1, 4).Draw(t, "cols")
		value := rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{0, 1, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}))
		x := kind.Matrix{Rows: rows, Cols: cols, Data: rapid.SliceOfN(value, rows*cols, rows*cols).Draw(t, "x")}
		x.Row(0)[0], x.Row(1)[0] = 0, 1
		args := `{"trees":9,"sample":16}`
		seed := rapid.Uint64().Draw(t, "seed")
		y := make([]float64, rows)
		res := fit(t, x, y, args, seed, 1)
		for i := range y {
			y[i] = math.NaN()
		}
		if !cmp.Equal(res.Model, fit(t, x, y, args, seed, 3).Model) {
			t.Fatal("threads or labels change the model")
		}
		s, err := ort.Open(res.Model)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		out, err := s.Run([]ort.Tensor{{Shape: []int64{int64(rows), int64(cols)}, Data: x.Data}})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range res.Predict(x) {
			if o := out[0].Data.([]float32)[i]; !(v > 0 && v < 1) || math.Abs(float64(v-o)) > 1e-6 {
				t.Fatalf("row %d scores %v, by ONNX %v", i, v, o)
			}
		}
	})
}

// TestSample: draws are distinct and every row has the same chance.
func TestSample(t *testing.T) {
	draw, hits := rand.New(rand.NewPCG(1, 2)), make([]int, 10)
	for range 10000 {
		s := sample(draw, 10, 4)
		slices.Sort(s)
		if len(slices.Compact(s)) != 4 {
			t.Fatalf("%v", s)
		}
		for _, r := range s {
			hits[r]++
		}
	}
	for r, n := range hits {
		if n < 3800 || n > 4200 {
			t.Errorf("row %d drawn %d times of 4000", r, n)
		}
	}
}

// TestNothingToIsolate: rows that are all alike are no training set.
func TestNothingToIsolate(t *testing.T) {
	_, err := Trainer{}.Train(context.Background(), kind.TrainJob{Args: json.RawMessage(`{"trees":3,"sample":8}`), Progress: func(int, int, string) {},
		Train: kind.Examples{X: kind.Matrix{Rows: 3, Cols: 1, Data: []float32{2, 2, 2}}}})
	if err == nil {
		t.Error("three equal rows make a forest")
	}
}

// TestCheck: anomaly is the one task.
func TestCheck(t *testing.T) {
	for task, want := range map[string]int{"": 0, kind.Anomaly: 0, kind.Binary: 1, kind.Multiclass: 1, kind.Multilabel: 1, kind.Regression: 1, kind.Quantile: 1, kind.Count: 1} {
		if faults := (Trainer{}).Check(nil, task); len(faults) != want {
			t.Errorf("%s: %v", task, faults)
		}
	}
}

// TestCreditCard: over ten seeds the ROC-AUC is that of scikit-learn 1.9's
// IsolationForest(n_estimators=100, max_samples=256).
func TestCreditCard(t *testing.T) {
	f, err := os.Open("../../../../shared/data/creditcard_fraud_sample/creditcard_sample.csv.gz")
	if err != nil {
		t.Skip("SKIPPED: no ../shared/data/creditcard_fraud_sample, so there is nothing to compare with scikit-learn on")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	x := kind.Matrix{Rows: len(lines) - 1, Cols: len(lines[0]) - 1}
	var y []float64
	for _, line := range lines[1:] {
		for j, s := range line {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			if j == x.Cols {
				y = append(y, v)
			} else {
				x.Data = append(x.Data, float32(v))
			}
		}
	}
	mean := 0.0
	for seed := range uint64(10) {
		auc, err := metric.ROCAUC{}.Compute(kind.Task{Kind: kind.Binary}, y, fit(t, x, y, `{"trees":100,"sample":256}`, seed, 2).Predict(x))
		if err != nil {
			t.Fatal(err)
		}
		mean += auc / 10
	}
	const theirs = 0.9371
	t.Logf("ROC-AUC %.4f, scikit-learn's %.4f", mean, theirs)
	if math.Abs(mean-theirs) > 0.01 {
		t.Errorf("ROC-AUC %v, scikit-learn's %v", mean, theirs)
	}
}
