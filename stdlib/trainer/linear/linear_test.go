package linear

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
)

// dice are the numbers from -0.5 to 0.5 of the generator by which the data of these
// tests was made for scikit-learn too.
type dice uint64

func (d *dice) roll() float64 {
	*d = (*d*1103515245 + 12345) % (1 << 31)
	return float64(*d)/(1<<31) - 0.5
}

// rows are 200 rows of six columns: two that go together, one far from 0 and large
// unless it is tame, one that is 0 in most rows, a constant one and noise. y is a
// signal of them, by task.
func rows(task kind.Task, tame bool) kind.Examples {
	d := dice(7)
	const n = 200
	e := kind.Examples{X: kind.Matrix{Rows: n, Cols: 6, Data: make([]float32, 0, 6*n)}}
	for range n {
		a, b, c, r, z := d.roll(), d.roll(), d.roll(), d.roll(), d.roll()
		x := []float32{float32(a), float32(a + b/8), float32(1000*c + 5000), 0, 3, float32(z)}
		if d.roll() > 0.35 {
			x[3] = float32(r * 4)
		}
		noise := d.roll()
		s := 2*float64(x[0]) + float64(x[1]) - 0.004*(float64(x[2])-5000) + 0.5*float64(x[3]) + 0.7*noise
		if tame {
			x[2] = float32((float64(x[2]) - 5000) / 1000)
		}
		e.X.Data = append(e.X.Data, x...)
		is := func(b bool) float64 {
			if b {
				return 1
			}
			return 0
		}
		switch task.Kind {
		case kind.Binary:
			e.Y = append(e.Y, is(s > 0.2))
		case kind.Multiclass:
			e.Y = append(e.Y, is(s >= -0.8)+is(s >= 0.9))
		case kind.Multilabel:
			e.Y = append(e.Y, is(s > 0.2), is(float64(x[5])+noise > 0.1))
		case kind.Count:
			e.Y = append(e.Y, math.Floor(math.Pow(math.Max(s+2, 0), 2)/2))
		default:
			e.Y = append(e.Y, 100+10*s)
		}
	}
	return e
}

var (
	binary     = kind.Task{Kind: kind.Binary}
	multiclass = kind.Task{Kind: kind.Multiclass, Classes: []string{"low", "mid", "high"}}
	multilabel = kind.Task{Kind: kind.Multilabel, Classes: []string{"up", "loud"}}
	regression = kind.Task{Kind: kind.Regression}
	count      = kind.Task{Kind: kind.Count}
	quantile   = kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.5, 0.9}}
)

func job(task kind.Task, e kind.Examples, a string, threads int) kind.TrainJob {
	return kind.TrainJob{Task: task, Args: json.RawMessage(a), Threads: threads, Names: []string{"a", "b", "c", "d", "e", "f"}, Train: e, Progress: func(int, int, string) {}}
}

func fit(t interface{ Fatal(...any) }, j kind.TrainJob) solution {
	s, err := solve(context.Background(), kind.DecodeArgs[args](j.Args), j)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScikitLearn: the coefficients are those of scikit-learn 1.9 at a tolerance of
// 1e-12: LogisticRegression with C = 1/(l1+l2) and l1_ratio = l1/(l1+l2) (saga, or
// newton-cholesky without l1), ElasticNet with alpha = (l1+l2)/rows, Ridge with alpha
// = l2, and PoissonRegressor with alpha = l2/rows.
func TestScikitLearn(t *testing.T) {
	for _, c := range []struct {
		name          string
		task          kind.Task
		tame          bool
		args          string
		weights, bias []float64
	}{
		{"ridge", regression, false, `"l2":3`,
			[]float64{13.477058, 13.397434, -0.038789, 4.528275, 0, 0.479862}, []float64{294.077607}},
		{"elastic net", regression, true, `"l1":20,"l2":5`,
			[]float64{11.427286, 11.635915, -29.184393, 4.080305, 0, 0}, []float64{100.269107}},
		{"lasso", regression, true, `"l1":5,"l2":0`,
			[]float64{17.072895, 11.987678, -38.822188, 4.733859, 0, 0.342139}, []float64{100.106998}},
		{"strong lasso", regression, true, `"l1":100,"l2":0`,
			[]float64{6.605495, 15.558139, -32.719403, 2.743898, 0, 0}, []float64{100.195088}},
		{"logistic", binary, false, `"l2":1`,
			[]float64{3.271407, 3.325284, -0.010941, 1.394397, 0, 0.840632}, []float64{54.392644}},
		{"logistic, balanced", binary, false, `"l2":0.5,"class_weight":"balanced"`,
			[]float64{4.356664, 4.409457, -0.013349, 1.822457, 0, 1.048827}, []float64{66.36119}},
		{"logistic, weighted", binary, false, `"l2":0.5,"class_weight":{"true":5}`,
			[]float64{5.789513, 5.84558, -0.016914, 2.352758, 0, 1.072549}, []float64{85.235036}},
		{"logistic, elastic net", binary, true, `"l1":2,"l2":1`,
			[]float64{1.457753, 1.592328, -4.315454, 0.604739, 0, 0.192845}, []float64{-0.119707}},
		{"logistic, l1", binary, true, `"l1":3,"l2":0`,
			[]float64{0, 4.330226, -6.585456, 0.669375, 0, 0}, []float64{-0.197184}},
		{"softmax", multiclass, false, `"l2":1`,
			[]float64{-2.959466, -0.236047, 3.195513, -2.998672, -0.077414, 3.076086, 0.009617, -0.000112, -0.009505, -1.237768, 0.204846, 1.032922, 0, 0, 0, 0.196055, -0.174205, -0.02185},
			[]float64{-48.896356, 2.077859, 46.818497}},
		{"softmax, balanced", multiclass, false, `"l2":1,"class_weight":"balanced"`,
			[]float64{-2.916359, -0.180379, 3.096739, -2.94685, -0.040495, 2.987345, 0.009481, -0.000203, -0.009278, -1.21025, 0.219562, 0.990688, 0, 0, 0, 0.136192, -0.156975, 0.020783},
			[]float64{-48.048122, 2.244184, 45.803939}},
		{"softmax, elastic net", multiclass, true, `"l1":1.5,"l2":1`,
			[]float64{-1.261616, 0, 1.724644, -1.389032, 0, 1.609161, 3.575093, 0, -3.581735, -0.724315, 0, 0.299641, 0, 0, 0, 0, 0, 0},
			[]float64{-0.380414, 0.707661, -0.327247}},
		{"softmax, l1, balanced", multiclass, true, `"l1":2,"l2":0,"class_weight":"balanced"`,
			[]float64{0, 0, 5.584481, -4.467685, 0, 0, 6.611684, 0, -6.417515, -0.999919, 0, 0.431844, 0, 0, 0, 0, 0, 0},
			[]float64{-0.397583, 0.862673, -0.46509}},
		{"multilabel", multilabel, true, `"l2":1`,
			[]float64{2.011005, -0.493785, 2.08928, -0.483619, -5.317661, 0.772814, 0.945343, -0.083746, 0, 0, 0.744411, 3.959147}, []float64{-0.149935, -0.330973}},
		{"poisson", count, true, `"l2":1`,
			[]float64{1.036345, 1.495203, -3.286164, 0.506557, 0, 0.15174}, []float64{0.324353}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fit(t, job(c.task, rows(c.task, c.tame), `{"tolerance":1e-8,"max_steps":5000,`+c.args+`}`, 2))
			if diff := cmp.Diff(c.weights, s.weights, cmpopts.EquateApprox(1e-5, 2e-5)); diff != "" {
				t.Errorf("weights: %s", diff)
			}
			if c.task.Kind == kind.Multiclass {
				center(s.bias) // the same of all changes no probability
			}
			if diff := cmp.Diff(c.bias, s.bias, cmpopts.EquateApprox(1e-5, 2e-5)); diff != "" {
				t.Errorf("intercepts: %s", diff)
			}
			if strings.Contains(c.args, "l1") {
				if want := (solution{weights: c.weights}).zeros(); s.zeros() != want {
					t.Errorf("%v weights are exactly 0, not %d", s.zeros(), want)
				}
			}
		})
	}
}

func center(bias []float64) {
	mean := 0.0
	for _, b := range bias {
		mean += b / float64(len(bias))
	}
	for i := range bias {
		bias[i] -= mean
	}
}

// TestQuantiles: the mean pinball loss is within a thousandth of the labels' deviation
// of the least there is, and predictions are near those of the least, by
// scikit-learn's QuantileRegressor with alpha = l1/rows, an exact linear program.
func TestQuantiles(t *testing.T) {
	e := rows(quantile, true)
	s := fit(t, job(quantile, e, `{"l1":2,"l2":0,"tolerance":1e-6,"max_steps":5000}`, 2))
	least := []float64{1.0388900488367407, 1.5539246074163078, 1.0417574657089532}
	want := [][]float64{
		{106.20943, 113.64492, 85.76064, 84.4406, 108.82489, 119.09545},
		{109.17814, 116.94557, 88.98407, 86.97491, 111.59518, 122.02176},
		{111.70647, 119.33479, 90.44265, 89.26154, 114.51615, 125.15576},
	}
	got := predict(quantile, e.X, s.weights, s.bias)
	_, deviation := moments(e.Y)
	for k, q := range quantile.Quantiles {
		loss, below := 0.0, 0
		for i, y := range e.Y {
			r := y - float64(got[3*i+k])
			loss += math.Max(q*r, (q-1)*r) / float64(len(e.Y))
			if r < 0 {
				below++
			}
			if i < len(want[k]) && math.Abs(float64(got[3*i+k])-want[k][i]) > 0.02*deviation {
				t.Errorf("quantile %v of row %d is %v, not %v", q, i, got[3*i+k], want[k][i])
			}
		}
		for j := range e.X.Cols {
			loss += 2 * math.Abs(s.weights[3*j+k]) / float64(len(e.Y))
		}
		if loss > least[k]+1e-3*deviation || loss < least[k]-1e-5 {
			t.Errorf("quantile %v: loss %v, the least is %v", q, loss, least[k])
		}
		if share := float64(below) / float64(len(e.Y)); math.Abs(share-q) > 0.02 {
			t.Errorf("%v of the rows are below quantile %v", share, q)
		}
	}
}

// TestContract: on every task and with every penalty ONNX predicts what Go predicts,
// threads change nothing, quantiles never fall, and counts are above 0.
func TestContract(t *testing.T) {
	for _, task := range []kind.Task{binary, multiclass, multilabel, regression, count, quantile} {
		for _, a := range []string{`{"l2":1,"tolerance":1e-5,"max_steps":5000}`, `{"l1":1,"l2":0.1,"tolerance":1e-5,"max_steps":5000}`} {
			e := rows(task, true)
			train := func(threads int) kind.TrainResult {
				res, err := Trainer{}.Train(context.Background(), job(task, e, a, threads))
				if err != nil {
					t.Fatalf("%s %s: %v", task.Kind, a, err)
				}
				return res
			}
			res := train(1)
			if !cmp.Equal(res.Model, train(3).Model) {
				t.Errorf("%s %s: threads change the model", task.Kind, a)
			}
			x := kind.Matrix{Rows: e.X.Rows, Cols: e.X.Cols, Data: slices.Clone(e.X.Data)}
			for i := range x.Data {
				x.Data[i] *= 5 // far out, quantiles cross
			}
			s, err := ort.Open(res.Model)
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.Run([]ort.Tensor{{Shape: []int64{int64(x.Rows), int64(x.Cols)}, Data: x.Data}})
			s.Close()
			if err != nil {
				t.Fatal(err)
			}
			w := task.Width()
			got := res.Predict(x)
			for i, v := range out[0].Data.([]float32) {
				if d := math.Abs(float64(v - got[i])); !(d <= 1e-6*math.Max(1, math.Abs(float64(v)))) {
					t.Fatalf("%s: prediction %d: ONNX %v, Go %v", task.Kind, i, v, got[i])
				}
				if task.Kind == kind.Quantile && i%w > 0 && !(got[i] >= got[i-1]) {
					t.Fatalf("quantiles fall from %v to %v", got[i-1], got[i])
				}
				if task.Kind == kind.Count && !(v >= 0) {
					t.Fatalf("a count of %v", v)
				}
			}
		}
	}
}

// TestSparseIsDense: the columns that are mostly zeros are held apart, and the loss
// and its gradient are those of the definition.
func TestSparseIsDense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		task := rapid.SampledFrom([]kind.Task{binary, multiclass, multilabel, regression, count, {Kind: kind.Quantile, Quantiles: []float64{0.3}}}).Draw(t, "task")
		n, cols := rapid.IntRange(2, 60).Draw(t, "rows"), rapid.IntRange(1, 6).Draw(t, "cols")
		value := rapid.OneOf(rapid.Just(float32(0)), rapid.Just(float32(0)), rapid.Just(float32(0)), rapid.Just(float32(0)), rapid.Float32Range(-3, 3))
		e := kind.Examples{X: kind.Matrix{Rows: n, Cols: cols, Data: rapid.SliceOfN(value, n*cols, n*cols).Draw(t, "x")}}
		top := map[string]int{kind.Binary: 1, kind.Multilabel: 1, kind.Multiclass: 2, kind.Regression: 9, kind.Count: 9, kind.Quantile: 9}[task.Kind]
		for range n * task.Targets() {
			e.Y = append(e.Y, float64(rapid.IntRange(0, top).Draw(t, "y")))
		}
		p := newProblem(task, args{L2: 0.5}, e.X, e.Y, nil, 2)
		p.round = 0.1
		k := p.k
		w := rapid.SliceOfN(rapid.Float64Range(-1, 1), p.dim*k, p.dim*k).Draw(t, "w")
		for at := range cols {
			if p.scale[at] == 0 {
				clear(w[at*k : (at+1)*k])
			}
		}
		grad := make([]float64, len(w))
		got := p.loss(w, grad)
		want, row, score := 0.0, make([]float64, cols), make([]float64, k)
		wantGrad := make([]float64, len(w))
		for i := range n {
			p.scaled(i, cols, row)
			copy(score, w[cols*k:])
			for at, v := range row {
				for c := range k {
					score[c] += v * w[at*k+c]
				}
			}
			want += p.residual(i, score) / p.total
			for c := range k {
				for at, v := range row {
					wantGrad[at*k+c] += v * score[c] / p.total
				}
				wantGrad[cols*k+c] += score[c] / p.total
			}
		}
		for at := range cols {
			_, l2 := p.penalties(at)
			for c := range k {
				v := w[at*k+c]
				want += l2 * v * v / 2 / p.total
				wantGrad[at*k+c] += l2 * v / p.total
			}
		}
		if diff := cmp.Diff(append(wantGrad, want), append(grad, got), cmpopts.EquateApprox(1e-9, 1e-9)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestCheck: tasks and arguments that have no meaning are refused.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		args, task, field string
		faults            int
	}{
		{`{}`, kind.Binary, "", 0},
		{`{"class_weight":"balanced"}`, kind.Multiclass, "", 0},
		{`{"class_weight":{"true":2}}`, "", "", 0},
		{`{"class_weight":{"true":2}}`, kind.Regression, "class_weight", 1},
		{`{"class_weight":"balanced"}`, kind.Multilabel, "class_weight", 1},
		{`{}`, kind.Anomaly, "", 1},
	} {
		faults := Trainer{}.Check(json.RawMessage(c.args), c.task)
		if len(faults) != c.faults || c.faults > 0 && faults[0].Field != c.field {
			t.Errorf("%s %s: %v", c.args, c.task, faults)
		}
	}
}

// TestFaults: what only the rows show to be wrong is told at its place.
func TestFaults(t *testing.T) {
	e := rows(binary, true)
	_, err := Trainer{}.Train(context.Background(), job(binary, e, `{"l2":1,"tolerance":1e-6,"max_steps":100,"class_weight":{"ture":2}}`, 1))
	var faults kind.Faults
	if !errors.As(err, &faults) || faults[0].Field != "class_weight" {
		t.Errorf("a weight of no class: %v", err)
	}
	if _, err := (Trainer{}).Train(context.Background(), job(binary, e, `{"l2":1,"tolerance":1e-9,"max_steps":2}`, 1)); err == nil {
		t.Error("two steps are enough")
	}
	e.X.Data[3] = float32(math.NaN())
	if _, err := (Trainer{}).Train(context.Background(), job(binary, e, `{"l2":1,"tolerance":1e-6,"max_steps":100}`, 1)); err == nil {
		t.Error("a missing feature passes")
	}
}

// TestNoCounts: counts that are all 0 are predicted as about 0.
func TestNoCounts(t *testing.T) {
	e := rows(count, true)
	clear(e.Y)
	s := fit(t, job(count, e, `{"l2":1,"tolerance":1e-6,"max_steps":1000}`, 1))
	for i, v := range predict(count, e.X, s.weights, s.bias) {
		if v > 1e-5 {
			t.Fatalf("row %d: %v", i, v)
		}
	}
}
