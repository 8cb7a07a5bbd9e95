package gbdt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/ort"
)

// arguments are the schema's defaults for what is not given.
func arguments(t testing.TB, given string) json.RawMessage {
	all := map[string]any{}
	for _, s := range []string{`{"rounds":20,"learning_rate":0.3,"max_leaves":8,"max_depth":0,"min_rows":7,"l2":1,"min_gain":0,"bins":255,"early_stopping":0,"cat_smooth":10,"cat_l2":10,"row_sample":1,"column_sample":1}`, given} {
		if err := json.Unmarshal([]byte(s), &all); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("f.x%d", i)
	}
	return out
}

// fatal is what testing.T and rapid.T share.
type fatal interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

func fit(t fatal, task kind.Task, args json.RawMessage, train, valid kind.Examples, threads int) kind.TrainResult {
	res, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Args: args, Seed: 7, Threads: threads, Names: names(train.X.Cols), Train: train, Valid: valid, Progress: func(int, int, string) {}})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// grid is a table that scikit-learn and LightGBM can make too.
func grid() (x kind.Matrix, y []float64) {
	x = kind.Matrix{Rows: 400, Cols: 3}
	for i := range x.Rows {
		a, b, c := i*37%101, i*53%97, i*71%13
		x.Data = append(x.Data, float32(a), float32(b), float32(c))
		y = append(y, math.Floor(float64(a*b)/1500+float64(i*29%7)/2+float64(c)/4))
	}
	return x, y
}

// spread is a label of grid that no other row has.
func spread(y []float64) []float64 {
	out := make([]float64, len(y))
	for i, v := range y {
		out[i] = v*10 + float64(i*17%101)/10 + float64(i)/1000
	}
	return out
}

// TestReference: models are those of scikit-learn 1.9 (HistGradientBoosting, the same
// arguments) and, with categories or monotone columns, of LightGBM 4.7
// (min_data_per_group and max_cat_to_onehot 1, min_data_in_bin 1).
func TestReference(t *testing.T) {
	x, y := grid()
	high, mixed := make([]float64, len(y)), make([]float64, len(y))
	for i, v := range y {
		if v > 3 {
			high[i] = 1
		}
		mixed[i] = v / 3
		if int(x.Row(i)[2])*5%13 > 6 {
			mixed[i] += 4
		}
	}
	for _, c := range []struct {
		name string
		task kind.Task
		args string
		y    []float64
		want []float64 // of rows 0, 1, 2, 50, 200 and 399
	}{
		{"count", kind.Task{Kind: kind.Count}, `{"rounds":5}`, y, []float64{1.9568410813997128, 3.770163944850434, 3.858106585169586, 2.484251716147993, 2.913038474759127, 1.9568410813997128}},
		{"quantile 0.1", kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1}}, `{"rounds":5}`, spread(y), []float64{7.838199316680001, 28.33989824352, 29.1955941050256, 12.149242462919998, 25.53695041152, 9.61072926528}},
		{"quantile 0.5", kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.5}}, `{"rounds":5}`, spread(y), []float64{25.252402192499996, 35.70393462, 48.09507162, 25.252402192499996, 35.15703462, 28.022423969999995}},
		{"quantile 0.9", kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.9}}, `{"rounds":5}`, spread(y), []float64{58.9111298166988, 58.298609026828004, 60.313790338658805, 58.9111298166988, 58.9111298166988, 58.9111298166988}},
		{"balanced", kind.Task{Kind: kind.Binary}, `{"rounds":5,"class_weight":"balanced"}`, high, []float64{0.1454602935253508, 0.4076802936795248, 0.588724697649756, 0.17805066142780382, 0.24164926705586057, 0.1454602935253508}},
		{"weighted", kind.Task{Kind: kind.Binary}, `{"rounds":5,"class_weight":{"true":3}}`, high, []float64{0.2882820731601853, 0.828384413535176, 0.8577241981838586, 0.25901615133807515, 0.41203858206641614, 0.2882820731601853}},
		{"monotone", kind.Task{Kind: kind.Regression}, `{"rounds":5,"monotone":{"f.x0":1,"f.x1":-1}}`, spread(y), []float64{25.787260825057597, 42.38062732392955, 59.58519227617064, 29.161657538670323, 38.53803090599052, 27.31320773342008}},
		{"categorical", kind.Task{Kind: kind.Regression}, `{"rounds":1,"categorical":["f.x2"]}`, mixed, []float64{2.55808080702117, 2.55808080702117, 3.788095230885914, 2.55808080702117, 3.7949370103242783, 3.7949370103242783}},
		{"categorical, not smoothed", kind.Task{Kind: kind.Regression}, `{"rounds":1,"categorical":["*2"],"cat_smooth":1,"cat_l2":0}`, mixed, []float64{2.490912353663609, 2.679008439326588, 3.788095230885914, 2.490912353663609, 3.7175000023841855, 3.7175000023841855}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fit(t, c.task, arguments(t, c.args), kind.Examples{X: x, Y: c.y}, kind.Examples{}, 2).Predict(x)
			for i, row := range []int{0, 1, 2, 50, 200, 399} {
				if d := math.Abs(float64(p[row]) - c.want[i]); !(d <= 1e-5*c.want[i]) {
					t.Errorf("row %d: %v, want %v", row, p[row], c.want[i])
				}
			}
		})
	}
}

// drawn is a random table with missing values, categories (column 1) and unseen ones.
func drawn(task kind.Task, rows int, seed uint64) kind.Examples {
	r := rand.New(rand.NewPCG(seed, 3))
	e := kind.Examples{X: kind.Matrix{Rows: rows, Cols: 4}}
	for range rows {
		cat := float64(r.IntN(40))
		row := []float64{r.NormFloat64(), cat, math.Round(3 * r.Float64()), r.ExpFloat64()}
		s := row[0] + math.Sin(cat*cat) + 0.5*row[3]*row[2] - 1
		for j := range row {
			if r.IntN(9) == 0 {
				row[j] = math.NaN()
			}
			e.X.Data = append(e.X.Data, float32(row[j]))
		}
		for c := range task.Targets() {
			switch task.Kind {
			case kind.Binary, kind.Multilabel:
				e.Y = append(e.Y, math.Floor(1/(1+math.Exp(-2*s*float64(1-2*c)))+r.Float64()))
			case kind.Multiclass:
				e.Y = append(e.Y, math.Min(math.Max(math.Floor(s+r.NormFloat64()), 0), float64(len(task.Classes)-1)))
			case kind.Count:
				e.Y = append(e.Y, math.Floor(math.Exp(s/2)*2*r.Float64()))
			default:
				e.Y = append(e.Y, 10*s+r.NormFloat64())
			}
		}
	}
	return e
}

// TestExportChains: two splits of one feature by category, one behind the other, keep
// their own ways for what is missing, though both lead left to equal leaves.
func TestExportChains(t *testing.T) {
	leaf := func(v float32) node { return node{feature: -1, value: v} }
	b := booster{task: kind.Task{Kind: kind.Regression}, cols: 1, k: 1, base: []float64{0}, trees: []tree{{nodes: []node{
		{values: []float32{7, 5}, left: 1, right: 2}, leaf(1), {values: []float32{16}, missingLeft: true, left: 3, right: 4}, leaf(1), {values: []float32{3}, left: 5, right: 6}, leaf(1), leaf(2),
	}}}}
	x := kind.Matrix{Cols: 1, Data: []float32{7, 5, 16, 3, 4, float32(math.NaN())}, Rows: 6}
	s, err := ort.Open(b.export())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Run([]ort.Tensor{{Shape: []int64{6, 1}, Data: x.Data}})
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{1, 1, 1, 1, 2, 1}
	if got := b.predict(x); !cmp.Equal(got, want) || !cmp.Equal(out[0].Data, any(want)) {
		t.Errorf("Go %v, ONNX %v, want %v", got, out[0].Data, want)
	}
}

var tasks = []kind.Task{{Kind: kind.Binary}, {Kind: kind.Multiclass, Classes: []string{"a", "b", "c"}}, {Kind: kind.Multilabel, Classes: []string{"a", "b"}},
	{Kind: kind.Regression}, {Kind: kind.Quantile, Quantiles: []float64{0.05, 0.5, 0.55, 0.95}}, {Kind: kind.Count}}

// TestExport: with any arguments the ONNX model predicts what Go does, also of
// categories that training did not see, and the bytes are the same on any number of
// threads. Quantiles never fall.
func TestExport(t *testing.T) {
	for _, task := range tasks {
		t.Run(task.Kind, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				seed := rapid.Uint64().Draw(r, "seed")
				given := map[string]any{"rounds": 4, "max_leaves": 12, "min_rows": rapid.IntRange(1, 20).Draw(r, "min_rows"), "bins": rapid.SampledFrom([]int{2, 10, 255}).Draw(r, "bins"),
					"categorical": rapid.SampledFrom([][]string{{}, {"f.x1"}, {"f.x1", "f.x2"}, {"*"}}).Draw(r, "categorical"), "cat_smooth": rapid.SampledFrom([]float64{0, 10}).Draw(r, "smooth"),
					"row_sample": rapid.SampledFrom([]float64{0.3, 1}).Draw(r, "row_sample"), "column_sample": rapid.SampledFrom([]float64{0.1, 0.6, 1}).Draw(r, "column_sample"), "l2": rapid.SampledFrom([]float64{0, 1}).Draw(r, "l2")}
				if task.Kind == kind.Binary || task.Kind == kind.Multiclass {
					given["class_weight"] = "balanced"
				}
				b, err := json.Marshal(given)
				if err != nil {
					r.Fatal(err)
				}
				args := arguments(t, string(b))
				train := drawn(task, rapid.IntRange(200, 800).Draw(r, "rows"), seed)
				var valid kind.Examples
				if rapid.Bool().Draw(r, "valid") {
					valid = drawn(task, 100, seed+1)
				}
				job := func(threads int) (kind.TrainResult, error) {
					return Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Args: args, Seed: seed, Threads: threads, Names: names(4), Train: train, Valid: valid, Progress: func(int, int, string) {}})
				}
				res, err := job(1)
				var none diag.Diagnostic
				if errors.As(err, &none) && none.Code == diag.NoSignal {
					r.Skip()
				}
				if err != nil {
					r.Fatal(err)
				}
				if again, err := job(3); err != nil || !cmp.Equal(res.Model, again.Model) {
					r.Errorf("three threads give another model than one: %v", err)
				}
				test := drawn(task, 300, seed+2).X
				for i := 1; i < len(test.Data); i += 7 {
					test.Data[i] = float32(i%97) - 2
				}
				want := res.Predict(test)
				s, err := ort.Open(res.Model)
				if err != nil {
					r.Fatal(err)
				}
				defer s.Close()
				out, err := s.Run([]ort.Tensor{{Shape: []int64{int64(test.Rows), 4}, Data: test.Data}})
				if err != nil {
					r.Fatal(err)
				}
				for i, v := range out[0].Data.([]float32) {
					if d := math.Abs(float64(v - want[i])); !(d <= 1e-5*math.Max(1, math.Abs(float64(want[i])))) {
						r.Fatalf("prediction %d: ONNX %v, Go %v", i, v, want[i])
					}
					if c := i % task.Width(); task.Kind == kind.Quantile && c > 0 && (v < out[0].Data.([]float32)[i-1] || want[i] < want[i-1]) {
						r.Fatalf("quantiles of row %d fall: %v", i/task.Width(), want[i-c:i-c+task.Width()])
					}
				}
			})
		})
	}
}

// TestWide: many rows and columns, which threads divide among them in every way, give
// the same bytes on any number of them.
func TestWide(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, cols := range []int{3, 70} {
		e := kind.Examples{X: kind.Matrix{Rows: 30_000, Cols: cols}}
		for range e.X.Rows {
			s := 0.0
			for j := range cols {
				v := r.NormFloat64()
				s += v * v / float64(j+1)
				e.X.Data = append(e.X.Data, float32(v))
			}
			e.Y = append(e.Y, math.Floor(s))
		}
		args := arguments(t, `{"rounds":3,"max_leaves":40}`)
		one := fit(t, kind.Task{Kind: kind.Count}, args, e, kind.Examples{}, 1)
		for _, threads := range []int{2, 7} {
			if !cmp.Equal(one.Model, fit(t, kind.Task{Kind: kind.Count}, args, e, kind.Examples{}, threads).Model) {
				t.Errorf("%d columns: %d threads give another model than one", cols, threads)
			}
		}
	}
}

// TestMonotone: predictions never fall along a column of 1 nor rise along one of -1,
// whatever the other columns hold.
func TestMonotone(t *testing.T) {
	for _, task := range tasks {
		if (Trainer{}).Check(json.RawMessage(`{"monotone":{"f.x0":1}}`), task.Kind) != nil {
			continue
		}
		t.Run(task.Kind, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				seed := rapid.Uint64().Draw(r, "seed")
				args := arguments(t, `{"rounds":6,"max_leaves":20,"min_rows":3,"categorical":["f.x1"],"row_sample":0.8,"monotone":{"f.x0":1,"f.x3":-1}}`)
				res := fit(r, task, args, drawn(task, 600, seed), kind.Examples{}, 2)
				x := drawn(task, 30, seed+1).X
				for _, col := range []int{0, 3} {
					var before []float32
					for v := -3.0; v < 4; v += 0.25 {
						for i := range x.Rows {
							x.Row(i)[col] = float32(v)
						}
						p := res.Predict(x)
						for i := range before {
							if col == 0 && p[i] < before[i] || col == 3 && p[i] > before[i] {
								r.Fatalf("column %d at %v: %v after %v", col, v, p[i], before[i])
							}
						}
						before = p
					}
				}
			})
		})
	}
}

// TestMultilabel: each label is a binary problem of its own.
func TestMultilabel(t *testing.T) {
	task := kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b", "c"}}
	e := drawn(task, 900, 4)
	all := fit(t, task, arguments(t, `{}`), e, kind.Examples{}, 2).Predict(e.X)
	for c := range 3 {
		one := kind.Examples{X: e.X}
		for i := c; i < len(e.Y); i += 3 {
			one.Y = append(one.Y, e.Y[i])
		}
		for i, p := range fit(t, kind.Task{Kind: kind.Binary}, arguments(t, `{}`), one, kind.Examples{}, 1).Predict(e.X) {
			if all[i*3+c] != p {
				t.Fatalf("label %d of row %d: %v, alone %v", c, i, all[i*3+c], p)
			}
		}
	}
}

// TestCategoriesHelp: where numbers of categories have no order, splits of categories
// need fewer leaves. Missing is one of them.
func TestCategoriesHelp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	e := kind.Examples{X: kind.Matrix{Rows: 4000, Cols: 1}}
	for range e.X.Rows {
		c := r.IntN(50)
		v, y := float32(c), float64(c*29%50)
		if c == 13 {
			v = float32(math.NaN())
		}
		e.X.Data, e.Y = append(e.X.Data, v), append(e.Y, y)
	}
	loss := func(args string) float64 {
		sum := 0.0
		for i, p := range fit(t, kind.Task{Kind: kind.Regression}, arguments(t, args), e, kind.Examples{}, 2).Predict(e.X) {
			sum += math.Pow(float64(p)-e.Y[i], 2)
		}
		return sum / float64(len(e.Y))
	}
	plain, set := loss(`{"rounds":10}`), loss(`{"rounds":10,"categorical":["f.*"]}`)
	if !(set < plain/10) {
		t.Errorf("squared error %v with categories, %v without", set, plain)
	}
}

// TestLosses holds the validation losses, in which class weights do not count, against
// numpy's.
func TestLosses(t *testing.T) {
	for _, c := range []struct {
		task     kind.Task
		p, y     []float64
		weights  []float64
		want     float64
		unlinked func(float64) float64
	}{
		{kind.Task{Kind: kind.Count}, []float64{0.5, 2, 3}, []float64{0, 1, 5}, nil, 0.9073206255133387, math.Log},
		{kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.9}}, []float64{1, 2, 0, 5}, []float64{3, 4}, nil, 0.4, nil},
		{kind.Task{Kind: kind.Multilabel, Classes: []string{"a", "b"}}, []float64{0.2, 0.9, 0.5, 0.3}, []float64{0, 1, 1, 0}, nil, 0.3445815478676784, logit},
		{kind.Task{Kind: kind.Binary}, []float64{0.2, 0.9}, []float64{0, 1}, []float64{1, 3}, 0.164252033486018, logit},
	} {
		score := slices.Clone(c.p)
		for i, v := range score {
			if c.unlinked != nil {
				score[i] = c.unlinked(v)
			}
		}
		b := &booster{task: c.task, k: c.task.Width(), threads: 1, weights: c.weights}
		if got := b.loss(score, c.y); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v, want %v", c.task.Kind, got, c.want)
		}
	}
}

func logit(p float64) float64 { return math.Log(p / (1 - p)) }

// TestCountsOfAllSizes: a mean that is a hundred thousand times another's is found, not
// overshot.
func TestCountsOfAllSizes(t *testing.T) {
	e := kind.Examples{X: kind.Matrix{Rows: 5000, Cols: 1}}
	for i := range e.X.Rows {
		x, y := 0.0, float64(i%2)
		if i%50 == 0 {
			x, y = 1, 50_000
		}
		e.X.Data, e.Y = append(e.X.Data, float32(x)), append(e.Y, y)
	}
	e.Y[0] = 0
	p := fit(t, kind.Task{Kind: kind.Count}, arguments(t, `{"rounds":100}`), e, kind.Examples{}, 1).Predict(kind.Matrix{Rows: 2, Cols: 1, Data: []float32{0, 1}})
	if want := 2500.0 / 4900; math.Abs(float64(p[0])-want) > 0.02 || math.Abs(float64(p[1])-49_500) > 50 {
		t.Errorf("means %v, want %v and 49500", p, want)
	}
}

// TestSamples: a share changes the model, a seed does too, and the same seed does not.
func TestSamples(t *testing.T) {
	task := kind.Task{Kind: kind.Regression}
	e := drawn(task, 1000, 9)
	for _, arg := range []string{`{"row_sample":0.5}`, `{"column_sample":0.5}`} {
		train := func(seed uint64, args string) []byte {
			res, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: task, Args: arguments(t, args), Seed: seed, Threads: 2, Names: names(4), Train: e, Progress: func(int, int, string) {}})
			if err != nil {
				t.Fatal(err)
			}
			return res.Model
		}
		one := train(1, arg)
		if !cmp.Equal(one, train(1, arg)) || cmp.Equal(one, train(2, arg)) || cmp.Equal(one, train(1, `{}`)) {
			t.Errorf("%s does not draw by the seed", arg)
		}
	}
}

// TestFaults: mistakes are told with their field and a suggestion.
func TestFaults(t *testing.T) {
	e := drawn(kind.Task{Kind: kind.Binary}, 100, 1)
	for _, c := range []struct{ args, field, what string }{
		{`{"categorical":["f.x1","g.*"]}`, "categorical[1]", `the features make no column "g.*"`},
		{`{"categorical":["f.xx1"]}`, "categorical[0]", `the features make no column "f.xx1"; did you mean "f.x1"?`},
		{`{"monotone":{"f.x_0":1}}`, "monotone.f.x_0", `the features make no column "f.x_0"; did you mean "f.x0"?`},
		{`{"monotone":{"f.x0":1},"categorical":["f.x0"]}`, "monotone.f.x0", `column "f.x0" is both categorical and monotone`},
		{`{"class_weight":{"True":2}}`, "class_weight", `class_weight names "True", which is no class; did you mean "true"?`},
	} {
		_, err := Trainer{}.Train(context.Background(), kind.TrainJob{Task: kind.Task{Kind: kind.Binary}, Args: arguments(t, c.args), Threads: 1, Names: names(4), Train: e})
		var faults kind.Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != c.field || faults[0].What != c.what || faults[0].Mend == "" {
			t.Errorf("%s: %#v", c.args, err)
		}
	}
	for _, c := range []struct{ args, task, what string }{
		{`{}`, kind.Anomaly, "does not fit an anomaly problem"},
		{`{"class_weight":"balanced"}`, kind.Count, "class_weight has no meaning in a count problem"},
		{`{"monotone":{"a":1}}`, kind.Multiclass, "monotone has no meaning in a multiclass problem"},
		{`{"categorical":["a["]}`, kind.Binary, `"a[" is no pattern`},
	} {
		if f := (Trainer{}).Check(json.RawMessage(c.args), c.task); len(f) != 1 || !strings.Contains(f[0].What, c.what) {
			t.Errorf("%s of %s: %v", c.args, c.task, f)
		}
	}
}

// TestQuantileOfValues: selection gives what sorting would.
func TestQuantileOfValues(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-5, 5), 1, 60).Draw(r, "values")
		for i := range values {
			values[i] = math.Round(values[i])
		}
		q := rapid.Float64Range(0, 1).Draw(r, "q")
		sorted := slices.Sorted(slices.Values(values))
		at := q * float64(len(values)-1)
		low, high := sorted[int(at)], sorted[min(int(at)+1, len(sorted)-1)]
		if got, want := quantile(values, q), low+(high-low)*(at-math.Floor(at)); got != want {
			r.Errorf("%v, want %v", got, want)
		}
	})
}

// TestSortFloats: sorting by bits is sorting by value.
func TestSortFloats(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		values := rapid.SliceOf(rapid.Float32()).Draw(r, "values")
		want := slices.Sorted(slices.Values(values))
		if sortFloats(values); !slices.Equal(values, want) {
			r.Errorf("%v, want %v", values, want)
		}
	})
}

// TestFixedSums: sums of derivatives are right within the rounding of what they are
// made of, for any number of rows and any sizes.
func TestFixedSums(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 5000).Draw(r, "rows")
		rows := max(n, rapid.SampledFrom([]int{n, 1 << 20, 1 << 24}).Draw(r, "of"))
		size := math.Pow(10, rapid.Float64Range(-20, 20).Draw(r, "size"))
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		x := newFixed(rows, float32(size), float32(size))
		var sum cell
		wantG, wantH := 0.0, 0.0
		for i := range n {
			d := derivatives{float32(size * (2*random.Float64() - 1)), float32(size * random.Float64())}
			sum = sum.add(x.row(d, int32(i)))
			wantG, wantH = wantG+float64(d.g), wantH+float64(d.h)
		}
		g, h := x.sums(sum)
		if x.rows(sum) != n || math.Abs(g-wantG) > 1e-6*size*float64(n) || math.Abs(h-wantH) > (2*math.Sqrt(float64(n))+4)/x.h+1e-6*wantH {
			r.Errorf("%d rows: %v %v, want %v %v", x.rows(sum), g, h, wantG, wantH)
		}
	})
}

// TestBestBin: the best split of a number is the first of the greatest gain among all
// that there are.
func TestBestBin(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		bins := rapid.IntRange(1, 40).Draw(r, "bins")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		g := &grower{booster: &booster{args: args{MinRows: rapid.IntRange(1, 20).Draw(r, "min_rows"), L2: rapid.SampledFrom([]float64{0, 1}).Draw(r, "l2"), MinGain: rapid.SampledFrom([]float64{0, .5}).Draw(r, "min_gain")}, monotone: []int{0}}, fixed: newFixed(1<<20, 1, 1)}
		g.binned = binned{edges: [][]float32{make([]float32, bins-1)}, values: [][]float32{nil}}
		l := &leaf{low: math.Inf(-1), high: math.Inf(1), hist: make(histogram, 1)}
		h := &l.hist[0][0]
		missing := rapid.Bool().Draw(r, "missing")
		rows := rapid.IntRange(1, 400).Draw(r, "rows")
		for i := range rows {
			bin := random.IntN(bins)
			if missing && random.IntN(4) == 0 {
				bin = missingBin
			}
			c := g.fixed.row(derivatives{2*random.Float32() - 1, random.Float32()}, int32(i))
			h[bin], l.sum = h[bin].add(c), l.sum.add(c)
		}
		var want split
		try := func(bin int, left cell, missingLeft bool) {
			if gain := g.gain(l, 0, left, g.score(l, l.sum, g.args.L2), g.args.L2); gain > want.gain {
				want = split{gain: gain, bin: bin, missing: missingLeft, left: left}
			}
		}
		var run cell
		for bin := range bins - 1 {
			run = run.add(h[bin])
			if h[bin].hn != 0 || bin == 0 {
				try(bin, run, false)
				if missing && h[missingBin].hn != 0 {
					try(bin, run.add(h[missingBin]), true)
				}
			}
		}
		if h[missingBin].hn != 0 {
			try(bins-1, l.sum.sub(h[missingBin]), false)
		}
		if got := g.bestBin(l, 0); got != want {
			r.Errorf("%+v, not %+v", got, want)
		}
	})
}

// BenchmarkTrain trains on rows like those of higgs: 28 numbers, two classes.
func BenchmarkTrain(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	e := kind.Examples{X: kind.Matrix{Rows: 300_000, Cols: 28, Data: make([]float32, 300_000*28)}, Y: make([]float64, 300_000)}
	for i := range e.Y {
		row := e.X.Row(i)
		for j := range row {
			row[j] = float32(r.NormFloat64())
		}
		if float64(row[0]*row[1]-row[2]*row[2]+row[3])+math.Sin(3*float64(row[4]))+2*r.NormFloat64() > -1 {
			e.Y[i] = 1
		}
	}
	args := arguments(b, `{"rounds":100,"learning_rate":0.1,"max_leaves":63,"min_rows":20}`)
	for b.Loop() {
		fit(b, kind.Task{Kind: kind.Binary}, args, e, kind.Examples{}, 2)
	}
}
