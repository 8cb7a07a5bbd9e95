package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/evaluate"
	"mlc.dev/mlc/runtime/op"
	"mlc.dev/mlc/stdlib"
)

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %v, not %v", what, got, want)
	}
}

// Of few components, effects are Shapley's values: the sum over the sets S without i of
// |S|! (n − |S| − 1)! / n! · (v(S + i) − v(S)).
func TestEffectsAreShapleyValues(t *testing.T) {
	factorial := func(n int) float64 { return math.Gamma(float64(n) + 1) }
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, exact).Draw(t, "n")
		values := map[mask]float64{}
		for _, m := range masks(n) {
			values[m] = rapid.Float64Range(-1, 1).Draw(t, "value")
		}
		if len(values) != 1<<n {
			t.Fatalf("%d sets of %d components", len(values), n)
		}
		ws, used := weights(n, func(m mask) bool { _, ok := values[m]; return ok })
		if used != len(orders(n)) {
			t.Fatalf("%d orders", used)
		}
		for i := range n {
			got, want := 0.0, 0.0
			for m, f := range ws[i] {
				got += f * values[m]
			}
			for m := range values {
				if size := bits.OnesCount64(uint64(m)); m&(1<<i) == 0 {
					want += factorial(size) * factorial(n-size-1) / factorial(n) * (values[m|1<<i] - values[m])
				}
			}
			if math.Abs(got-want) > 1e-9 {
				t.Errorf("component %d: %v, not %v", i, got, want)
			}
			low, high := spread(n, i, values)
			if got < low-1e-9 || got > high+1e-9 {
				t.Errorf("component %d: %v is not within %v and %v", i, got, low, high)
			}
		}
	})
}

// Whatever can be run, effects sum to the whole difference, where there are any.
func TestEffectsSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		values := map[mask]float64{}
		full := mask(1)<<n - 1
		for _, m := range masks(n) {
			if m == 0 || m == full || rapid.IntRange(0, 4).Draw(t, "fails") > 0 {
				values[m] = rapid.Float64Range(-1, 1).Draw(t, "value")
			}
		}
		ws, used := weights(n, func(m mask) bool { _, ok := values[m]; return ok })
		sum := 0.0
		for _, w := range ws {
			for m, f := range w {
				v, ok := values[m]
				if !ok {
					t.Fatal("it takes the value of a set that could not be run")
				}
				sum += f * v
			}
		}
		if used > 0 && math.Abs(sum-(values[full]-values[0])) > 1e-9 {
			t.Errorf("%v, not %v", sum, values[full]-values[0])
		}
	})
	if got := len(masks(8)); got != 16 {
		t.Errorf("%d sets of 8 components", got)
	}
}

func TestVerdict(t *testing.T) {
	e := func(v float64) *Estimate { return &Estimate{v, new(float64)} }
	with := func(v, err float64) *Estimate { return &Estimate{v, &err} }
	for _, c := range []struct {
		a, b   *Estimate
		better kind.Direction
		want   Verdict
	}{
		{with(0.8, 0.01), with(0.9, 0.01), kind.Up, Better},
		{with(0.8, 0.01), with(0.9, 0.01), kind.Down, Worse},
		{with(0.8, 0.01), with(0.9, 0.01), 0, Moved},
		{with(0.8, 0.05), with(0.9, 0.05), kind.Up, Unsure},
		{e(0.8), e(0.8), kind.Up, Same},
		{&Estimate{Value: 1}, &Estimate{Value: 2}, kind.Up, Unknown},
		{nil, with(1, 1), kind.Up, Unknown},
	} {
		if got := metricDiff("m", c.better, c.a, c.b, nil).Verdict; got != c.want {
			t.Errorf("%v, not %v", got, c.want)
		}
	}
	// On the same rows, the difference has an error of its own.
	m := metricDiff("m", kind.Up, with(0.8, 0.05), with(0.9, 0.05), map[string]float64{"m": 0.01})
	if m.Verdict != Better || *m.Diff.Error != 0.01 {
		t.Errorf("%+v", m)
	}
	near(t, "unpaired error", *metricDiff("m", kind.Up, with(0.8, 0.03), with(0.9, 0.04), nil).Diff.Error, 0.05, 1e-12)
}

// judged are n rows whose score is right by chance.
func judged(n int, shift float32) *op.Judged {
	j := &op.Judged{Rows: evaluate.Predictions{Task: kind.Task{Kind: kind.Binary}}}
	for i := range n {
		j.IDs = append(j.IDs, int64(i))
		j.Rows.Y = append(j.Rows.Y, float64(i%2))
		j.Rows.P = append(j.Rows.P, float32(i*7%10)/10+shift*float32(i%2))
	}
	return j
}

// A pair of the same predictions has no error, and rows that are not the same no pair.
func TestPaired(t *testing.T) {
	model := func(shift float32) *Model {
		return &Model{Scores: &op.Scores{Metrics: map[string]map[string]float64{"test": {"roc_auc": 0.5}}}, Judged: judged(400, shift), Rows: "r"}
	}
	same, err := pair(t.Context(), model(0), model(0), stdlib.Kinds())
	if err != nil || same["roc_auc"] != 0 {
		t.Error(same, err)
	}
	other, err := pair(t.Context(), model(0), model(0.1), stdlib.Kinds())
	if err != nil || !(other["roc_auc"] > 0) {
		t.Error(other, err)
	}
	b := model(0)
	b.Judged = judged(300, 0)
	if none, err := pair(t.Context(), model(0), b, stdlib.Kinds()); none != nil || err != nil {
		t.Error(none, err)
	}
}

// Values of numpy and scipy.
func TestShift(t *testing.T) {
	for k, want := range map[int]float64{1: 10.8276, 3: 16.2662, 7: 24.3219, 19: 43.8202} {
		near(t, fmt.Sprintf("χ² with %d degrees of freedom", k), chance(k), want, 0.04*want)
	}
	near(t, "PSI", stability([2][]float64{{.5, .3, .2}, {.4, .3, .3}}, 1000, 1000), 0.06286086594223739, 1e-12)
	column := func(min, max float64, q ...float64) *op.ColumnProfile {
		return &op.ColumnProfile{Name: "x", Type: types.Float, Rows: 1000, Min: &min, Max: &max, Quantiles: q}
	}
	f, g := column(0, 100, 1, 5, 25, 50, 75, 95, 99), column(20, 120, 21, 25, 45, 70, 95, 115, 119)
	c := Column{Name: "x", A: f, B: g}
	c.compare()
	near(t, "KS", *c.KS, 0.2, 1e-12)
	near(t, "PSI of quantiles", *c.PSI, 1.018398150381049, 1e-9)
	if d := cmp.Diff([]string{"KS 0.20", "PSI 1.02"}, c.Moved); d != "" {
		t.Error(d)
	}
	c = Column{Name: "x", A: f, B: f}
	if c.compare(); *c.KS != 0 || *c.PSI != 0 || c.Moved != nil {
		t.Errorf("%+v", c)
	}
	// Few rows move by chance.
	few, more := *f, *column(5, 105, 6, 10, 30, 55, 80, 100, 104)
	few.Rows, more.Rows = 30, 30
	c = Column{Name: "x", A: &few, B: &more}
	if c.compare(); c.Moved != nil {
		t.Errorf("%v", c.Moved)
	}
}

func TestShiftOfValues(t *testing.T) {
	text := func(rows, nulls int64, top ...op.ValueCount) *op.ColumnProfile {
		return &op.ColumnProfile{Name: "c", Type: types.String, Rows: rows, Nulls: nulls, Top: top}
	}
	for _, x := range []struct {
		a, b *op.ColumnProfile
		want []string
	}{
		{text(1000, 0, op.ValueCount{Value: "a", Count: 600}, op.ValueCount{Value: "b", Count: 400}), text(1000, 0, op.ValueCount{Value: "a", Count: 590}, op.ValueCount{Value: "b", Count: 410}), nil},
		{text(1000, 0, op.ValueCount{Value: "a", Count: 600}, op.ValueCount{Value: "b", Count: 400}), text(1000, 0, op.ValueCount{Value: "a", Count: 200}, op.ValueCount{Value: "c", Count: 800}), []string{"PSI 8.34", "new: c", "gone: b"}},
		{text(1000, 0, op.ValueCount{Value: "a", Count: 1000}), text(1000, 200, op.ValueCount{Value: "a", Count: 800}), []string{"20.0 % missing, was 0.0 %"}},
		{text(10, 0, op.ValueCount{Value: "a", Count: 10}), text(10, 2, op.ValueCount{Value: "a", Count: 8}), nil}, // may be chance
	} {
		c := Column{Name: "c", A: x.a, B: x.b}
		c.compare()
		if x.want != nil && strings.HasPrefix(x.want[0], "PSI") && len(c.Moved) > 0 {
			x.want[0] = c.Moved[0] // its value is TestShift's
			if *c.PSI < leastPSI {
				t.Errorf("PSI %v", *c.PSI)
			}
		}
		if d := cmp.Diff(x.want, c.Moved); d != "" {
			t.Error(d)
		}
	}
	got := Columns(&Profile{Columns: []op.ColumnProfile{{Name: "gone"}, {Name: "was", Type: types.Int}}}, &Profile{Columns: []op.ColumnProfile{{Name: "was", Type: types.String}, {Name: "new"}}})
	var told []string
	for _, c := range got {
		told = append(told, c.Name+": "+strings.Join(c.Moved, ", "))
	}
	if d := cmp.Diff([]string{"was: string, was int", "new: added", "gone: removed"}, told); d != "" {
		t.Error(d)
	}
}

// args is JSON of the arguments of package lower.
func args(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		panic(err)
	}
	return canonical(fields)
}

// options of a plan of one model.
type options struct {
	rounds    int
	bins      int
	feature   string // a second one, of a column of its own
	seed      uint64
	calibrate bool
	folds     int    // of a cross-validation
	custom    string // a metric of the user's
	version   string
}

// planOf is the plan of a model y over the source rows, in short.
func planOf(o options) *plan.Plan {
	p := &plan.Plan{System: "t"}
	add := func(op, name, version string, a any, outputs []string, inputs ...plan.Input) int {
		p.Steps = append(p.Steps, plan.Step{ID: op + " " + name, Op: op, Version: version, Args: args(a), Inputs: inputs, Outputs: outputs, At: "models.y", ArgAt: map[string]string{"args": "models.y.trainer"}})
		return len(p.Steps) - 1
	}
	from := func(name string, step int, output string) plan.Input {
		return plan.Input{Name: name, Step: step, Output: output}
	}
	columns := []kind.Column{{Name: "x", Type: types.Float}}
	d := lower.DatasetArgs{Task: kind.Binary, Source: "source:rows", Features: []lower.Projection{{Name: "f.x", Type: types.Float, SQL: "l.x"}}}
	t := lower.TransformArgs{Raw: []lower.RawFeature{{Name: "f.x", Type: types.Float}}, Inputs: []lower.EncodedInput{{Feature: "f.x", Encoders: []json.RawMessage{json.RawMessage(fmt.Sprintf(`{"bins":%d}`, o.bins))}}}}
	if o.feature != "" {
		columns = append(columns, kind.Column{Name: o.feature, Type: types.Float})
		d.Features = append(d.Features, lower.Projection{Name: "f." + o.feature, Type: types.Float, SQL: "l." + o.feature})
		t.Raw = append(t.Raw, lower.RawFeature{Name: "f." + o.feature, Type: types.Float})
		t.Inputs = append(t.Inputs, lower.EncodedInput{Feature: "f." + o.feature})
	}
	snap := add(lower.OpSnapshot, "rows", "1 file.1", lower.SnapshotArgs{Kind: "file", Args: json.RawMessage("{}"), Columns: columns}, []string{"rows", "rejects"}, plan.Input{Name: "files", Step: -1, Files: []string{"rows.csv"}})
	val := add(lower.OpValidate, "rows", "1", lower.ValidateArgs{Source: "rows", Columns: columns}, []string{"rows", "quarantine", "profile"}, from("rows", snap, "rows"))
	dataset := add(lower.OpDataset, "y", "2", d, []string{"rows", "meta", "origin"}, from("source:rows", val, "rows"))
	// judged adds the steps of a training, and returns the last.
	judged := func(name, kindOf string, fold int) int {
		split := add(lower.OpSplit, name, "1 "+kindOf+".1", lower.SplitArgs{Kind: kindOf, Args: args(map[string]int{"folds": o.folds}), Seed: o.seed, Task: kind.Binary, Fold: fold}, []string{"parts"}, from("dataset", dataset, "rows"))
		rows := []plan.Input{from("dataset", dataset, "rows"), from("split", split, "parts")}
		fit := add(lower.OpFit, name, "2", t, []string{"transform"}, rows...)
		train := add(lower.OpTrain, name, "2 gbdt."+o.version, lower.TrainArgs{Kind: "gbdt", Args: json.RawMessage(fmt.Sprintf(`{"rounds":%d}`, o.rounds)), Seed: o.seed, Task: kind.Binary}, []string{"model", "heldout"}, append(rows, from("transform", fit, "transform"))...)
		model := train
		if o.calibrate {
			model = add(lower.OpCalibrate, name, "1", lower.CalibrateArgs{Kind: "platt", Args: json.RawMessage("{}")}, []string{"model", "heldout"}, append(rows, from("model", train, "model"))...)
		}
		if o.folds > 0 && fold == 0 {
			return model // it is kept, and not judged
		}
		return add(lower.OpEvaluate, name, "3 roc_auc.1", lower.EvaluateArgs{Task: kind.Binary, Metrics: []string{"roc_auc"}, Errors: fold == 0, Seed: o.seed}, []string{"metrics", "predictions"}, append(rows, from("model", model, "model"))...)
	}
	last := 0
	if o.folds > 0 {
		pooled := []plan.Input{from("dataset", dataset, "rows")}
		for k := range o.folds {
			last = judged(fmt.Sprintf("y.fold%d", k+1), "kfold", k+1)
			pooled = append(pooled, from(fmt.Sprintf("%s%d:metrics", lower.FoldPrefix, k+1), last, "metrics"), from(fmt.Sprintf("%s%d:predictions", lower.FoldPrefix, k+1), last, "predictions"))
		}
		last = add(lower.OpPool, "y", "1 roc_auc.1", lower.PoolArgs{Task: kind.Binary, Metrics: []string{"roc_auc"}, Folds: o.folds, Errors: true, Seed: o.seed}, []string{"metrics", "predictions"}, pooled...)
		judged("y", "kfold", 0)
	} else {
		last = judged("y", "random", 0)
	}
	if o.custom != "" {
		add(lower.OpMeasure, "y."+o.custom, "1 container.1", lower.MeasureArgs{Metric: o.custom, Kind: "container", Args: json.RawMessage("{}")}, []string{"metrics"}, from("metrics", last, "metrics"), from("predictions", last, "predictions"), from("dataset", dataset, "rows"))
	}
	return p
}

// sideOf is a side of a plan, whose source has some rows.
func sideOf(name string, p *plan.Plan, rows plan.Digest) *Side {
	s := &Side{Ref: Ref{Name: name}, Plan: p, Made: map[string]Made{}, Sources: map[string]*Source{"rows": {Rows: rows}},
		Models: map[string]*Model{"y": {Scores: &op.Scores{Metrics: map[string]map[string]float64{"test": {"roc_auc": 0.5}}}}}}
	for _, st := range p.Steps {
		s.Made[st.ID] = Made{Status: "done", Known: true, Engines: "e", Inputs: map[string]plan.Digest{"files": rows}}
	}
	return s
}

func blamer(run func(*plan.Plan) ([]map[string]plan.Digest, error)) *Blamer {
	return &Blamer{Loader: &Loader{Kinds: stdlib.Kinds()}, Metric: "roc_auc",
		Run:    func(_ context.Context, p *plan.Plan) ([]map[string]plan.Digest, error) { return run(p) },
		Digest: func(plan.Input) (plan.Digest, error) { return "now", nil },
		Verify: func(context.Context, plan.Digest) error { return nil }}
}

func TestComponents(t *testing.T) {
	base := options{rounds: 5, bins: 4, seed: 1, version: "9"}
	for name, c := range map[string]struct {
		change func(*options)
		rows   plan.Digest
		want   []string
		rest   int
	}{
		"nothing":     {func(*options) {}, "a", nil, 0},
		"trainer":     {func(o *options) { o.rounds = 7 }, "a", []string{"trainer"}, 0},
		"data":        {func(*options) {}, "b", []string{"data rows"}, 0},
		"encoders":    {func(o *options) { o.bins = 8 }, "a", []string{"encoders"}, 0},
		"seed":        {func(o *options) { o.seed = 2 }, "a", []string{"split", "trainer"}, 0},
		"all":         {func(o *options) { *o = options{rounds: 7, bins: 8, seed: 2, calibrate: true, version: "9"} }, "b", []string{"data rows", "split", "encoders", "trainer", "calibration"}, 0},
		"calibration": {func(o *options) { o.calibrate = true }, "a", []string{"calibration"}, 0},
		// A feature of a new column is nowhere without the column, nor its encoders.
		"feature": {func(o *options) { o.feature = "z" }, "b", []string{"data rows + features + encoders"}, 0},
		"code":    {func(o *options) { o.version = "10" }, "a", nil, 1},
		// Rows that were held back once are tested in folds.
		"folds": {func(o *options) { o.folds, o.rounds = 3, 7 }, "b", []string{"data rows", "split", "trainer"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := base
			c.change(&o)
			w := &blame{Blamer: blamer(nil), a: sideOf("A", planOf(base), "a"), b: sideOf("B", planOf(o), c.rows)}
			if err := w.prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, x := range w.components {
				got = append(got, x.Name)
				if len(x.Changes) == 0 {
					t.Errorf("%s tells of no change", x.Name)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if len(w.rest) != c.rest {
				t.Errorf("%+v", w.rest)
			}
		})
	}
}

// A mixture has of each side what it should, each step is in the plan once, and what
// is the same in all has the name that it always has.
func TestMixtures(t *testing.T) {
	a, b := sideOf("A", planOf(options{rounds: 5, bins: 4, seed: 1, version: "9"}), "a"), sideOf("B", planOf(options{rounds: 7, bins: 4, seed: 1, calibrate: true, version: "9"}), "b")
	var ran *plan.Plan
	_, err := blamer(func(p *plan.Plan) ([]map[string]plan.Digest, error) {
		ran = p
		return make([]map[string]plan.Digest, len(p.Steps)), nil
	}).Blame(t.Context(), a, b)
	if err == nil || !strings.Contains(err.Error(), "A") {
		t.Errorf("a blame of which nothing could be run: %v", err)
	}
	count := map[string]int{}
	for _, s := range ran.Steps {
		count[s.Op]++
		var train lower.TrainArgs
		if s.Op == lower.OpTrain {
			if err := json.Unmarshal(s.Args, &train); err != nil {
				t.Fatal(err)
			}
			want := `{"rounds":5}`
			if strings.Contains(s.ID, "trainer of B") || strings.HasSuffix(s.ID, "(B)") {
				want = `{"rounds":7}`
			}
			if string(train.Args) != want {
				t.Errorf("%s has %s", s.ID, train.Args)
			}
		}
		if s.Op == lower.OpDataset {
			want := plan.Digest("a")
			if strings.Contains(s.ID, "data rows of B") {
				want = "b"
			}
			if s.Inputs[0].Tree != want {
				t.Errorf("%s reads %s", s.ID, s.Inputs[0].Tree)
			}
		}
		if s.Op == lower.OpEvaluate {
			i := slices.IndexFunc(s.Inputs, func(in plan.Input) bool { return in.Name == "model" })
			calibrated := ran.Steps[s.Inputs[i].Step].Op == lower.OpCalibrate
			if want := strings.Contains(s.ID, "calibration") || strings.HasSuffix(s.ID, "(B)"); want != calibrated {
				t.Errorf("%s reads the model of %s", s.ID, ran.Steps[s.Inputs[i].Step].ID)
			}
		}
		for _, in := range s.Inputs {
			if in.Step >= len(ran.Steps) {
				t.Errorf("%s reads step %d", s.ID, in.Step)
			}
		}
	}
	// Of data, trainer and calibration, a step has as many variants as what it depends on.
	want := map[string]int{lower.OpDataset: 2, lower.OpSplit: 2, lower.OpFit: 2, lower.OpTrain: 4, lower.OpCalibrate: 4, lower.OpEvaluate: 8}
	if d := cmp.Diff(want, count); d != "" {
		t.Error(d)
	}
	for _, s := range ran.Steps {
		now, ok := lower.Current(s.Op, s.Version, stdlib.Kinds())
		if !ok || now != s.Version {
			t.Errorf("%s is of version %q, which this mlc does not run", s.ID, s.Version)
		}
	}
}

// Under cross-validation a mixture has as many folds as its split: each is mixed by
// itself of the same sides, and the metric is measured on what they are together.
func TestMixturesOfFolds(t *testing.T) {
	for name, c := range map[string]struct {
		folds [2]int
		want  map[string]int
	}{
		// The trainer differs, and else nothing.
		"same": {[2]int{3, 3}, map[string]int{lower.OpDataset: 1, lower.OpSplit: 3, lower.OpFit: 3, lower.OpTrain: 6, lower.OpEvaluate: 6, lower.OpPool: 2, lower.OpMeasure: 2}},
		// The split, too: with either trainer, the folds of both.
		"more": {[2]int{2, 3}, map[string]int{lower.OpDataset: 1, lower.OpSplit: 5, lower.OpFit: 5, lower.OpTrain: 10, lower.OpEvaluate: 10, lower.OpPool: 4, lower.OpMeasure: 4}},
		"less": {[2]int{3, 2}, map[string]int{lower.OpDataset: 1, lower.OpSplit: 5, lower.OpFit: 5, lower.OpTrain: 10, lower.OpEvaluate: 10, lower.OpPool: 4, lower.OpMeasure: 4}},
		"from": {[2]int{0, 3}, map[string]int{lower.OpDataset: 1, lower.OpSplit: 4, lower.OpFit: 4, lower.OpTrain: 8, lower.OpEvaluate: 8, lower.OpPool: 2, lower.OpMeasure: 4}},
		"to":   {[2]int{3, 0}, map[string]int{lower.OpDataset: 1, lower.OpSplit: 4, lower.OpFit: 4, lower.OpTrain: 8, lower.OpEvaluate: 8, lower.OpPool: 2, lower.OpMeasure: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			side := func(name string, folds, rounds int) *Side {
				s := sideOf(name, planOf(options{rounds: rounds, seed: 1, folds: folds, custom: "mine", version: "9"}), "a")
				s.Models["y"].Scores.Metrics["test"]["mine"] = 1
				return s
			}
			var ran *plan.Plan
			bl := blamer(func(p *plan.Plan) ([]map[string]plan.Digest, error) {
				ran = p
				return make([]map[string]plan.Digest, len(p.Steps)), nil
			})
			bl.Metric = "mine"
			if _, err := bl.Blame(t.Context(), side("A", c.folds[0], 5), side("B", c.folds[1], 7)); err == nil {
				t.Error("a blame of which nothing could be run")
			}
			count := map[string]int{}
			for _, s := range ran.Steps {
				count[s.Op]++
				subject := strings.Fields(s.ID)[1]
				reads := map[string]int{}
				for _, in := range s.Inputs {
					if in.Step < 0 {
						continue
					}
					from := ran.Steps[in.Step]
					reads[from.Op]++
					of := strings.Fields(from.ID)[1]
					switch {
					case s.Op == lower.OpPool && from.Op == lower.OpEvaluate:
						if k := strings.TrimPrefix(of, "y."); !strings.HasPrefix(in.Name, k+":") {
							t.Errorf("%s reads %s as %s", s.ID, from.ID, in.Name)
						}
					case slices.Contains(training, s.Op) && slices.Contains(training, from.Op) && of != subject:
						t.Errorf("%s reads %s of another training", s.ID, from.ID)
					}
					// Of one mixture: the side of each component that both depend on.
					if s.Op == lower.OpPool && from.Op == lower.OpEvaluate && strings.TrimPrefix(s.ID, "model.pool y") != strings.TrimPrefix(from.ID, "model.evaluate "+of) {
						t.Errorf("%s reads %s of another mixture", s.ID, from.ID)
					}
				}
				var a struct{ Fold, Folds int }
				if err := json.Unmarshal(s.Args, &a); err != nil {
					t.Fatal(err)
				}
				switch s.Op {
				case lower.OpSplit:
					if want := strings.TrimPrefix(subject, "y"); a.Fold > 0 && want != fmt.Sprintf(".fold%d", a.Fold) || a.Fold == 0 && want != "" {
						t.Errorf("%s is of fold %d", s.ID, a.Fold)
					}
				case lower.OpPool:
					if reads[lower.OpEvaluate] != 2*a.Folds {
						t.Errorf("%s of %d folds reads %v", s.ID, a.Folds, reads)
					}
				case lower.OpMeasure:
					if reads[lower.OpPool] != 2 && (reads[lower.OpEvaluate] != 2 || reads[lower.OpPool] > 0) {
						t.Errorf("%s reads %v", s.ID, reads)
					}
				}
			}
			if d := cmp.Diff(c.want, count); d != "" {
				t.Error(d)
			}
		})
	}
}

// What cannot be switched, here the trainer's version, is what is left of the
// difference, and the whole is the sum. The metric is a custom one, of which nothing is
// known but its value.
func TestRest(t *testing.T) {
	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	side := func(name string, o options, v float64) *Side {
		s := sideOf(name, planOf(o), "a")
		s.Models["y"].Scores.Metrics["test"]["mine"] = v
		return s
	}
	w := blamer(func(p *plan.Plan) ([]map[string]plan.Digest, error) {
		out := make([]map[string]plan.Digest, len(p.Steps))
		for i, s := range p.Steps {
			if s.Op != lower.OpEvaluate {
				continue
			}
			v := 0.52
			if strings.HasSuffix(s.ID, "(B)") {
				v = 0.6
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "metrics.json"), fmt.Appendf(nil, `{"metrics":{"test":{"mine":%v}}}`, v), 0o644); err != nil {
				return nil, err
			}
			tree, err := store.Put(t.Context(), dir)
			if err != nil {
				return nil, err
			}
			out[i] = map[string]plan.Digest{"metrics": tree}
		}
		return out, nil
	})
	w.Metric, w.Loader.Store = "mine", store
	got, err := w.Blame(t.Context(), side("A", options{rounds: 5, version: "1"}, 0.5), side("B", options{rounds: 7, version: "2"}, 0.9))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Effects) != 1 || got.Rest == nil || len(got.Rest.Changes) != 1 {
		t.Fatalf("%+v", got)
	}
	near(t, "the trainer's effect", got.Effects[0].Value, 0.08, 1e-12)
	near(t, "the rest", got.Rest.Value, 0.32, 1e-12)
	near(t, "the sum", got.Effects[0].Value+got.Rest.Value, got.Total.Value, 1e-12)
	if text := got.Rest.Changes[0].Text; text != "2 gbdt.1 -> 2 gbdt.2" {
		t.Error(text)
	}
	if got.Effects[0].Error != nil || got.Total.Error != nil {
		t.Error("an error of a metric that is only a number")
	}
}

func TestRowsAreGone(t *testing.T) {
	w := blamer(nil)
	w.Verify = func(context.Context, plan.Digest) error { return errors.New("missing") }
	_, err := w.Blame(t.Context(), sideOf("A", planOf(options{version: "1"}), "a"), sideOf("B", planOf(options{version: "1"}), "b"))
	if err == nil || !strings.Contains(err.Error(), "validated rows of source rows in A are gone") {
		t.Error(err)
	}
}

func TestSpecTellsEachChangeOnce(t *testing.T) {
	a, b := planOf(options{rounds: 5, bins: 4, seed: 1, version: "1"}), planOf(options{rounds: 7, bins: 4, seed: 2, feature: "z", calibrate: true, version: "1"})
	var got []string
	for _, c := range spec(a, b) {
		got = append(got, fmt.Sprintf("%s %s %d", c.Path, c.Text, len(c.Steps)))
	}
	want := []string{
		"models.y columns[1]: added z 1",
		"models.y features[1]: added f.z 1",
		"models.y seed: 1 -> 2 3",
		"models.y inputs[1]: added f.z 1",
		"models.y.trainer.rounds args.rounds: 5 -> 7 1",
		"models.y added 1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := spec(a, a); len(got) != 0 {
		t.Error(got)
	}
}
