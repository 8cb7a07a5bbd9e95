// Command quality trains on real data with reference scores and prints ours
// beside them, as a table in Markdown. It fails where ours is worse by more than
// chance explains, or misses a goal. It skips, loudly, data that is not there.
// Arguments name the data sets to run; without any, all do.
package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlc.dev/mlc/bench/internal/run"
)

//go:embed specs/*.cue
var specs embed.FS

// suite is one data set, a folder of the shared data and a spec of the same name.
type suite struct {
	name string
	// prepare, if the spec reads prepared.csv, makes it of the data.
	prepare func(data string) table
	// leak is a spec that, with the suite's own, has to be refused with this code.
	leak, code string
	groups     []group
}

// group is models that are compared by one protocol of BASELINES.tsv; split is
// what we do to follow it.
type group struct {
	split, protocol string
	scores          []score
}

// score is a metric of a model, with the reference that it is compared with and
// the bar, or 0, that it has to reach as well.
type score struct {
	model, trainer, metric, reference, theirs string
	goal                                      float64
}

const (
	original = "original test file"
	same     = "random 80/20, scikit-learn's own draw (seed 0)"
	folds    = "5 folds, stratified, our draw"
	inTime   = "last 20 % in time"
)

// both compares the two trainers' models with the scikit-learn ones of the same kind.
func both(linear string, metrics ...[2]string) []score {
	var out []score
	for _, t := range [][2]string{{"gbdt", "hist_gbdt"}, {"linear", linear}} {
		for _, m := range metrics {
			out = append(out, score{model: t[0], trainer: t[0], metric: m[0], reference: t[1], theirs: m[1]})
		}
	}
	return out
}

// one compares one model.
func one(model, trainer, reference string, metrics ...[2]string) []score {
	var out []score
	for _, m := range metrics {
		out = append(out, score{model: model, trainer: trainer, metric: m[0], reference: reference, theirs: m[1]})
	}
	return out
}

// goals sets the bars of the first metric of gbdt and of linear.
func goals(scores []score, gbdt, linear float64) []score {
	scores[0].goal, scores[len(scores)/2].goal = gbdt, linear
	return scores
}

// The metrics by our names and by those of BASELINES.tsv.
var (
	rocAUC   = [2]string{"roc_auc", "auc"}
	prAUC    = [2]string{"pr_auc", "avg_precision"}
	logLoss  = [2]string{"log_loss", "logloss"}
	accuracy = [2]string{"accuracy", "accuracy"}
	f1       = [2]string{"f1", "f1_spam"}
	rmse     = [2]string{"rmse", "rmse"}
	r2       = [2]string{"r2", "r2"}
	mae      = [2]string{"mae", "mae"}
)

var suites = []suite{
	{name: "adult", groups: []group{
		{original, "canonical train/test split, all 14 inputs", goals(both("logistic", rocAUC, logLoss, accuracy), 0.926, 0.904)},
	}},
	{name: "bank_marketing", prepare: bank, leak: "bank_marketing_duration", code: "MLC2202", groups: []group{
		{same + ", stratified", "random 80/20 stratified seed 0, without duration", both("logistic", rocAUC, logLoss, accuracy)},
	}},
	{name: "california_housing", prepare: drawn("housing.csv.gz"), groups: []group{
		{same, "random 80/20 seed 0", both("ridge", rmse, r2)},
	}},
	{name: "optdigits", groups: []group{
		{original, "original train/test", both("logistic", accuracy)},
	}},
	{name: "higgs_sample", groups: []group{
		{original, "original train/test", both("logistic", rocAUC, logLoss, accuracy)},
	}},
	{name: "telco_churn", groups: []group{
		{folds, "5-fold stratified, shuffle seed 0", both("logistic", rocAUC, prAUC)},
	}},
	{name: "german_credit", groups: []group{
		{folds, "5-fold stratified, shuffle seed 0", both("logistic", rocAUC, prAUC)},
	}},
	{name: "diamonds", prepare: drawn("diamonds.csv.gz"), groups: []group{
		{same, "random 80/20 seed 0", both("ridge", rmse, r2)},
	}},
	{name: "sms_spam", groups: []group{
		{folds, "5-fold stratified seed 0", one("linear", "linear", "tfidf(1,2)+logistic C=10", rocAUC, accuracy, f1)},
	}},
	{name: "banking77", groups: []group{
		{original, "original train/test", one("linear", "linear", "tfidf(1,2)+logistic C=10", accuracy)},
	}},
	{name: "bike_sharing", prepare: bike, groups: []group{
		{inTime, "hour: first 80 % / last 20 % in time", both("ridge", rmse, r2)},
	}},
	{name: "beijing_pm25", prepare: beijing, groups: []group{
		{inTime, "next hour, first 80 % / last 20 % in time, lags 1 and 24 and same-hour weather", both("ridge", rmse, r2)},
	}},
	{name: "creditcard_fraud_sample", groups: []group{
		{folds, "5-fold stratified, shuffle seed 0", both("logistic", rocAUC, prAUC)},
	}},
	{name: "wine_iris_winequality", groups: []group{
		{folds, "wine.csv: 5-fold stratified seed 0", one("wine", "linear", "logistic", accuracy)},
		{folds, "iris.csv: 5-fold stratified seed 0", one("iris", "linear", "logistic", accuracy)},
		{folds, "winequality-white.csv: 5-fold seed 0 regression", one("white", "gbdt", "hist_gbdt", mae)},
		{folds, "winequality-red.csv: 5-fold seed 0 regression", one("red", "gbdt", "hist_gbdt", mae)},
	}},
}

func main() {
	data, ok := run.Shared()
	if !ok {
		fmt.Println("SKIPPED: no ../shared/data, so there is nothing to compare with")
		return
	}
	rows := [][]string{{"data set", "split", "trainer", "metric", "ours", "reference", "goal", ""}}
	var proofs []string
	failed := false
	for _, s := range suites {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], s.name) {
			continue
		}
		if _, err := os.Stat(filepath.Join(data, s.name)); err != nil {
			fmt.Printf("SKIPPED %s: %v\n", s.name, err)
			continue
		}
		start := time.Now()
		r, proof, bad := s.run(filepath.Join(data, s.name))
		rows, failed = append(rows, r...), failed || bad
		if proof != "" {
			proofs = append(proofs, proof)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", s.name, time.Since(start).Seconds())
	}
	fmt.Printf("quality at %s; ours with its 95 %% interval\n\n", run.Commit())
	run.Table(rows)
	for _, p := range proofs {
		fmt.Printf("\n%s\n", p)
	}
	if failed {
		os.Exit(1)
	}
}

// run applies the suite's spec and returns a row for each score, what became of the
// leak, and whether anything is worse than it has to be.
func (s suite) run(data string) (rows [][]string, proof string, failed bool) {
	dir, remove := run.TempDir("mlc-quality-")
	defer remove()
	run.Must(os.Symlink(data, filepath.Join(dir, "data")))
	if s.prepare != nil {
		run.Must(s.prepare(data).write(filepath.Join(dir, "prepared.csv")))
	}
	s.spec(dir, s.name)
	_, err := run.Output(dir, run.MLC(), "apply")
	run.Must(err)
	references := baselines(filepath.Join(data, "BASELINES.tsv"))
	for _, g := range s.groups {
		for _, c := range g.scores {
			reference, ok := references[[3]string{g.protocol, c.reference, c.theirs}]
			if !ok {
				run.Must(fmt.Errorf("%s: no reference for %s of %s by %q", s.name, c.theirs, c.reference, g.protocol))
			}
			value, e := measured(dir, c)
			verdict := judge(c, value, e, reference)
			failed = failed || verdict == worse || verdict == missed
			name, goal := s.name, ""
			if c.model != c.trainer {
				name += " (" + c.model + ")"
			}
			if c.goal != 0 {
				goal = fmt.Sprint(c.goal)
			}
			rows = append(rows, []string{name, g.split, c.trainer, c.metric, fmt.Sprintf("%.*f ± %.*f", digits(value), value, digits(value), 1.96*e), fmt.Sprintf("%.*f (%s)", digits(reference), reference, c.reference), goal, verdict})
		}
	}
	if s.leak == "" {
		return rows, "", failed
	}
	s.spec(dir, s.leak)
	if _, err := run.Output(dir, run.MLC(), "vet"); err == nil || !strings.Contains(err.Error(), s.code) {
		return rows, fmt.Sprintf("%s with %s.cue: vet did NOT refuse it with %s", s.name, s.leak, s.code), true
	}
	return rows, fmt.Sprintf("%s with %s.cue: refused with %s, as it has to be", s.name, s.leak, s.code), failed
}

// spec puts a spec into the folder.
func (s suite) spec(dir, name string) {
	b, err := specs.ReadFile("specs/" + name + ".cue")
	run.Must(err)
	run.Must(os.WriteFile(filepath.Join(dir, name+".cue"), b, 0o644))
}

// measured is a metric of the test rows with its standard error.
func measured(dir string, c score) (value, e float64) {
	out, err := run.Output(dir, run.MLC(), "show", "--file", "metrics.json", c.model)
	run.Must(err)
	var got struct {
		Model struct {
			Metrics map[string]map[string]float64
			Errors  map[string]float64
		}
	}
	run.Must(json.Unmarshal([]byte(out), &got))
	value, ok := got.Model.Metrics["test"][c.metric]
	e, sure := got.Model.Errors[c.metric]
	if !ok || !sure {
		run.Must(fmt.Errorf("model %s has no %s with an error", c.model, c.metric))
	}
	return value, e
}

// What judge finds.
const (
	better  = "better"
	within  = "within noise"
	worse   = "WORSE"
	missed  = "MISSED"
	reached = ", goal reached"
)

// judge compares a value with its reference: it is better or worse where the
// reference lies outside the value's 95 % interval.
func judge(c score, value, e, reference float64) string {
	over := value - reference
	if slices.Contains([]string{"log_loss", "rmse", "mae"}, c.metric) {
		over = -over
	}
	verdict := within
	switch {
	case over > 1.96*e:
		verdict = better
	case over < -1.96*e:
		return worse
	}
	switch {
	case c.goal == 0:
		return verdict
	case value < c.goal:
		return missed
	}
	return verdict + reached
}

// digits are those after the point of a value: none where it is in the hundreds.
func digits(value float64) int {
	if value >= 100 {
		return 0
	}
	return 4
}

// baselines reads a table of protocol, model, metric and value.
func baselines(path string) map[[3]string]float64 {
	b, err := os.ReadFile(path)
	run.Must(err)
	out := map[[3]string]float64{}
	for _, line := range strings.Split(string(b), "\n")[1:] {
		if f := strings.Split(line, "\t"); len(f) == 4 {
			var v float64
			if _, err := fmt.Sscan(f[3], &v); err == nil { // some rows count things, as in 12/34
				out[[3]string{f[0], f[1], f[2]}] = v
			}
		}
	}
	return out
}
