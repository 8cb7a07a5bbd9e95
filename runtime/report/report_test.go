package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/runtime/evaluate"
)

func ptr[T any](v T) *T { return &v }

const longName = "customer_account.average_monthly_payment_over_last_12_months"

// common is what the examples share.
func common(task string) Data {
	return Data{
		Model: "churn_gbdt", System: "telco", Goal: "Tell which customers leave within the month, so that they can be called.",
		Owner: "retention team", Problem: "churn", Task: task, Label: `churned = 'Yes'`,
		Trainer: `{"kind":"gbdt","learning_rate":0.05,"rounds":400,"max_leaves":31}`,
		Split:   `{"kind":"time","validation":0.2,"test":0.2}`,
		Rows:    map[string]int{"train": 42250, "validation": 14083, "test": 14085},
		Data: []SourceLine{
			{"customers", 70431, 13, "sha256:4b1f0cf2a1c7d2c0a2b74bba7f0fa7f3aa8b4a2b0e1a7a2b5f6dbf0c87b8a5de"},
			{"payments", 1204992, 0, "sha256:9a2d3bd4ae0fd9b1d5a0a1d6f3a8e0d1b4f6c7e8a9b0c1d2e3f405162738495a"},
		},
		Inputs: []InputLine{
			{"customer.tenure", "tenure", "int", false}, {"customer.gender", "gender", "string", true},
			{longName, "average_monthly_payment_over_last_12_months", "float", false},
		},
		Notes: []string{"Sensitive feature customer.gender is used: needed to audit the groups."},
	}
}

func important(metric string, names ...string) (out []evaluate.Importance) {
	for i, n := range names {
		d := 0.08 / float64(i*i+1)
		if i == len(names)-1 {
			d = -0.0004
		}
		out = append(out, evaluate.Importance{Feature: n, Drop: d, Error: 0.001 + d/10})
	}
	return out
}

func binary() Data {
	d := common("binary")
	r := rand.New(rand.NewPCG(1, 1))
	p := evaluate.Predictions{Task: kind.Task{Kind: kind.Binary}}
	for range 4000 {
		z := r.NormFloat64()*1.6 - 1
		q := 1 / (1 + math.Exp(-z))
		y := 0.0
		if r.Float64() < 0.05+0.85*q {
			y = 1
		}
		p.Y, p.P = append(p.Y, y), append(p.P, float32(q))
	}
	p.Curve(&d.Report)
	d.Report.Metric, d.Primary = "roc_auc", "roc_auc"
	d.Report.Importance = important("roc_auc", "customer.contract", "customer.tenure", longName, "customer.monthly_charges", "payments.late_last_90d", "customer.gender")
	d.Report.Dependence = []evaluate.Dependence{
		{Feature: "customer.contract", Labels: []string{"Month-to-month", "Two year", "One year", "␀"}, Means: []float64{0.43, 0.07, 0.12, 0.3}},
		{Feature: "customer.tenure", Values: []float64{1, 2, 4, 7, 12, 18, 25, 33, 42, 55, 71}, Means: []float64{0.52, 0.47, 0.41, 0.36, 0.33, 0.28, 0.26, 0.25, 0.22, 0.19, 0.18}},
		{Feature: longName, Values: []float64{18.25, 20, 35.5, 60, 74, 80, 90, 99.5, 110.75}, Means: []float64{0.21, 0.2, 0.22, 0.24, 0.29, 0.31, 0.36, 0.35, 0.37}},
		{Feature: "payments.channel", Labels: []string{longName, "Credit card", "Bank transfer"}, Means: []float64{0.3, 0.28, 0.26}},
	}
	d.Metrics = []Metric{
		{Name: "roc_auc", Test: ptr(0.8412), Error: ptr(0.0064), Validation: ptr(0.8503), Baseline: ptr(0.5), Better: "up", Gate: "at least 0.8, with a confidence of 95 %", Passed: ptr(true)},
		{Name: "log_loss", Test: ptr(0.4123), Error: ptr(0.009), Validation: ptr(0.4051), Baseline: ptr(0.5789), Better: "down", Gate: "better than the baseline by 0.05, with a confidence of 95 %", Passed: ptr(true)},
		{Name: "recall", Test: ptr(0.61), Error: ptr(0.014), Better: "up", Gate: "at least 0.6, with a confidence of 95 %", Passed: ptr(false)},
		{Name: "expected_calibration_error", Test: ptr(0.0213), Validation: ptr(0.0188), Better: "down"},
	}
	d.Fairness = []Fairness{
		{By: "gender", Metric: "tpr_difference", Value: 0.031, Low: 0.002, High: 0.064, Asked: "at most 0.1, with a confidence of 95 %", Passed: true,
			Groups: []evaluate.Rate{{Group: "Female", Rows: 612, Value: 0.628}, {Group: "Male", Rows: 590, Value: 0.597}}},
		{By: "region", Metric: "selection_rate_ratio", Value: 0.71, Low: 0.58, High: 0.86, Asked: "at least 0.8, with a confidence of 95 %", Passed: false,
			Groups: []evaluate.Rate{{Group: "North-East and the islands", Rows: 1312, Value: 0.28}, {Group: "South", Rows: 490, Value: 0.22}, {Group: "West", Rows: 61, Value: 0.31}}},
	}
	for _, s := range []struct {
		name string
		rows int
		auc  float64
	}{{"contract = Month-to-month", 2200, 0.742}, {"contract = One year", 980, 0.79}, {"contract = Two year", 820, 0.86}, {"0 <= tenure < 9", 1010, 0.71}, {longName + " is missing", 38, 0.66}} {
		d.Report.Slices = append(d.Report.Slices, evaluate.Slice{Name: s.name, By: "contract", Rows: s.rows,
			Metrics: map[string]float64{"roc_auc": s.auc, "log_loss": 0.5 - s.auc/10, "recall": 0.6},
			Errors:  map[string]float64{"roc_auc": 0.6 / math.Sqrt(float64(s.rows)), "log_loss": 0.01, "recall": 0.02}})
	}
	d.Report.Worst = []evaluate.Slice{
		{Name: "contract = Month-to-month and tenure < 6", Rows: 512, Loss: 0.803, Rest: 0.355, Effect: 0.61},
		{Name: "0.5 <= " + longName + " < 18.25", Rows: 240, Loss: 0.64, Rest: 0.398, Effect: 0.33},
	}
	return d
}

// multi has classes whose names are as long as one makes them.
func multi(names []string, rows int) Data {
	d := common("multiclass")
	r := rand.New(rand.NewPCG(2, uint64(len(names))))
	p := evaluate.Predictions{Task: kind.Task{Kind: kind.Multiclass, Classes: names}}
	for range rows {
		y := min(int(math.Abs(r.NormFloat64())*float64(len(names))/2), len(names)-1)
		row, sum := make([]float64, len(names)), 0.0
		for c := range row {
			row[c] = math.Exp(r.NormFloat64())
			if c == y {
				row[c] *= 1 + 12*r.Float64()
			}
			sum += row[c]
		}
		for _, v := range row {
			p.P = append(p.P, float32(v/sum))
		}
		p.Y = append(p.Y, float64(y))
	}
	p.Curve(&d.Report)
	d.Model, d.Primary, d.Report.Metric = "intent", "accuracy", "accuracy"
	d.Metrics = []Metric{{Name: "accuracy", Test: ptr(0.7321), Error: ptr(0.006), Validation: ptr(0.741), Baseline: ptr(0.21), Better: "up", Gate: "at least 0.7", Passed: ptr(true)}}
	d.Report.Importance = important("accuracy", longName, "text.length", "channel.kind")
	d.Report.Dependence = []evaluate.Dependence{
		{Feature: longName, Values: []float64{0, 1e6, 2e6, 5.5e6}, Output: names[0], Means: []float64{0.2, 0.25, 0.4, 0.38}},
		{Feature: "channel.kind", Labels: []string{"web", "phone", "letter", "in person", ""}, Output: names[1], Means: []float64{0.2, 0.25, 0.1, 0.12, 0.3}},
	}
	return d
}

func multiclass() Data {
	return multi([]string{"billing", "cancellation", "complaint", "delivery status", "feedback on the product", "invoice copy",
		"opening hours", "password reset of a business account", "refund", "returns", "technical support", "warranty"}, 6000)
}

func quantile() Data {
	d := common("quantile")
	d.Model, d.Primary, d.Report.Metric = "delivery_minutes", "pinball", "pinball"
	r := rand.New(rand.NewPCG(3, 3))
	p := evaluate.Predictions{Task: kind.Task{Kind: kind.Quantile, Quantiles: []float64{0.1, 0.25, 0.5, 0.75, 0.9}}}
	for range 3000 {
		mu := 2000 + 900*math.Exp(r.NormFloat64()/2)
		p.Y = append(p.Y, mu*math.Exp(0.2*r.NormFloat64()))
		for _, z := range []float64{-1.28, -0.67, 0, 0.67, 1.1} {
			p.P = append(p.P, float32(mu*math.Exp(0.2*z)))
		}
	}
	p.Curve(&d.Report)
	d.Metrics = []Metric{{Name: "pinball", Test: ptr(212.345), Error: ptr(3.2), Validation: ptr(208.1), Baseline: ptr(388.9), Better: "down", Gate: "at most 250", Passed: ptr(true)}}
	d.Report.Importance = important("pinball", "route.distance_km", "restaurant.load", longName, "weather.rain_mm")
	d.Report.Dependence = []evaluate.Dependence{
		{Feature: "route.distance_km", Values: []float64{0.4, 0.9, 1.5, 2.2, 3.1, 4.4, 6, 9.5}, Output: "0.5", Means: []float64{1620, 1810, 2150, 2490, 2810, 3300, 3900, 5120}},
		{Feature: "restaurant.load", Values: []float64{0, 0.00002, 0.00005}, Output: "0.9", Means: []float64{2310, 2380, 2900}},
	}
	d.Report.Slices = []evaluate.Slice{{Name: "city = Oslo", Rows: 900, Metrics: map[string]float64{"pinball": 190}, Errors: map[string]float64{"pinball": 7}},
		{Name: "city = Bergen", Rows: 400, Metrics: map[string]float64{"pinball": 260}, Errors: map[string]float64{"pinball": 17}}}
	return d
}

// tiny is the golden report: every section, few points.
func tiny() Data {
	d := binary()
	d.Report.Curves = []evaluate.Curves{{
		ROC:  []evaluate.Point{{X: 0, Y: 0}, {X: 0.1, Y: 0.5}, {X: 0.4, Y: 0.8}, {X: 1, Y: 1}},
		PR:   []evaluate.Point{{X: 0.5, Y: 0.8}, {X: 0.8, Y: 0.6}, {X: 1, Y: 0.4}},
		Gain: []evaluate.Point{{X: 0, Y: 0}, {X: 0.3, Y: 0.6}, {X: 1, Y: 1}},
		Reliability: []evaluate.Bin{{From: 0, To: 0.1, Rows: 400, Mean: 0.06, Rate: 0.05}, {From: 0.5, To: 0.6, Rows: 90, Mean: 0.55, Rate: 0.5},
			{From: 0.9, To: 1, Rows: 10, Mean: 0.94, Rate: 1}},
	}}
	d.Report.Confusion, d.Report.Rows = [][]int{{1310, 88}, {212, 390}}, 2000
	d.Report.Residuals = &evaluate.Residuals{
		Sample:    []evaluate.Point{{X: 1, Y: 1.5}, {X: 2, Y: 1.75}, {X: 4, Y: 4}},
		Histogram: []evaluate.Bin{{From: -1, To: 0, Rows: 2}, {From: 0, To: 1, Rows: 5}},
		Coverage:  []evaluate.Point{{X: 0.1, Y: 0.13}, {X: 0.9, Y: 0.88}},
	}
	return d
}

func render(t rapid.TB, d Data) string {
	t.Helper()
	b, err := HTML(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestGolden compares with testdata/report.html, or writes it with MLC_UPDATE=1.
func TestGolden(t *testing.T) {
	got := render(t, tiny())
	golden := filepath.Join("testdata", "report.html")
	if os.Getenv("MLC_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what it was (MLC_UPDATE=1 writes it):\n%s", golden, diff)
	}
	if got != render(t, tiny()) {
		t.Error("two renderings differ")
	}
}

var (
	pictures = regexp.MustCompile(`(?s)<svg.*?</svg>`)
	noNumber = regexp.MustCompile(`(?i)(nan|inf)`)
	geometry = map[string]bool{"d": true, "x": true, "y": true, "cx": true, "cy": true, "r": true, "width": true, "height": true, "viewBox": true, "transform": true}
)

// sound holds a page against what every report has to be.
func sound(t rapid.TB, html string) {
	t.Helper()
	for _, never := range []string{"<script", "javascript:", " style=", "onload='", "<img", "<iframe", "@import", "url(", "ZgotmplZ"} {
		if strings.Contains(html, never) {
			t.Fatalf("the page has %q", never)
		}
	}
	// The namespace is a name, and nothing else of the page leads away.
	if s := strings.ReplaceAll(html, "http://www.w3.org/2000/svg", ""); regexp.MustCompile(`(href|src)="[^#d]`).MatchString(s) {
		t.Fatal("the page refers to something outside")
	}
	for _, p := range pictures.FindAllString(html, -1) {
		d := xml.NewDecoder(strings.NewReader(p))
		title, hidden := "", false
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, p)
			}
			e, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			if e.Name.Local == "title" {
				title = "yes"
			}
			for _, a := range e.Attr {
				hidden = hidden || a.Name.Local == "aria-hidden"
				if geometry[a.Name.Local] && noNumber.MatchString(a.Value) {
					t.Fatalf("%s=%q", a.Name.Local, a.Value)
				}
				if a.Name.Local == "width" || a.Name.Local == "height" {
					if v, err := strconv.ParseFloat(a.Value, 64); err != nil || v < 0 || v > 1e5 {
						t.Fatalf("%s=%q", a.Name.Local, a.Value)
					}
				}
			}
		}
		if title == "" && !hidden {
			t.Fatalf("a picture without a title: %s", p)
		}
	}
}

func TestExamplesAreSound(t *testing.T) {
	few := multi([]string{"a", "b", "c"}, 500)
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("class %d", i)
	}
	for name, d := range map[string]Data{"empty": {}, "tiny": tiny(), "binary": binary(), "multiclass": multiclass(), "three": few, "thirty": multi(many, 900), "quantile": quantile()} {
		t.Run(name, func(t *testing.T) {
			html := render(t, d)
			sound(t, html)
			for _, l := range regexp.MustCompile(`href="#(\w+)"`).FindAllStringSubmatch(html, -1) {
				if strings.Count(html, `<section id="`+l[1]+`">`) != 1 {
					t.Errorf("#%s leads nowhere", l[1])
				}
			}
			if n, m := strings.Count(html, `href="#`), strings.Count(html, "<section "); n != m {
				t.Errorf("%d links to %d sections", n, m)
			}
		})
	}
}

// TestSectionsWithoutDataAreLeftOut: a report of nothing has a verdict and no more.
func TestSectionsWithoutDataAreLeftOut(t *testing.T) {
	html := render(t, Data{Model: "m"})
	if got := regexp.MustCompile(`<section id="(\w+)"`).FindAllStringSubmatch(html, -1); len(got) != 1 || got[0][1] != "verdict" {
		t.Errorf("sections %v", got)
	}
	if !strings.Contains(html, "Nothing is asked of this model") {
		t.Error("the verdict does not say that nothing is asked")
	}
}

// hostile are texts that break pages which do not escape them.
var hostile = []string{`</script>"&lt;`, `</svg><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "a\x00b\x07\uffff", "\xff\xfe", `{{.}}`,
	`' onload='x`, "line\nbreak\ttab", "-->", "]]>", strings.Repeat("名", 80), longName, "", "␀", "e\u0301\u202e"}

// TestDegenerate renders whatever numbers and texts there can be.
func TestDegenerate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		odd := []float64{0, 0, 1, -1, 0.5, 1, 1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, 1e300, -1e300, math.SmallestNonzeroFloat64,
			1e-310, 1e15, 1e15 + 1, 123456789, 1e-9, math.Copysign(0, -1)}
		num := rapid.OneOf(rapid.SampledFrom(odd), rapid.Float64())
		text := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String())
		rows := rapid.OneOf(rapid.SampledFrom([]int{0, 1, math.MaxInt, -1}), rapid.IntRange(0, 5000))
		point := rapid.Custom(func(t *rapid.T) evaluate.Point { return evaluate.Point{X: num.Draw(t, "x"), Y: num.Draw(t, "y")} })
		bin := rapid.Custom(func(t *rapid.T) evaluate.Bin {
			return evaluate.Bin{From: num.Draw(t, "from"), To: num.Draw(t, "to"), Rows: rows.Draw(t, "rows"), Mean: num.Draw(t, "mean"), Rate: num.Draw(t, "rate")}
		})
		points, bins := rapid.SliceOfN(point, 0, 4), rapid.SliceOfN(bin, 0, 4)
		nums, texts := rapid.SliceOfN(num, 0, 4), rapid.SliceOfN(text, 0, 4)
		curve := rapid.Custom(func(t *rapid.T) evaluate.Curves {
			return evaluate.Curves{Class: text.Draw(t, "class"), ROC: points.Draw(t, "roc"), PR: points.Draw(t, "pr"), Gain: points.Draw(t, "gain"), Reliability: bins.Draw(t, "bins")}
		})
		slice := rapid.Custom(func(t *rapid.T) evaluate.Slice {
			return evaluate.Slice{Name: text.Draw(t, "slice"), Rows: rows.Draw(t, "rows"), Loss: num.Draw(t, "loss"), Rest: num.Draw(t, "rest"), Effect: num.Draw(t, "effect"),
				Metrics: rapid.MapOfN(text, num, 0, 2).Draw(t, "metrics"), Errors: map[string]float64{"m": num.Draw(t, "error")}}
		})
		some := rapid.Ptr(num, true)
		d := Data{Model: text.Draw(t, "model"), System: text.Draw(t, "system"), Label: text.Draw(t, "label"), Trainer: text.Draw(t, "trainer"), Split: `{"a":[1]}`, Primary: "m",
			Rows: map[string]int{text.Draw(t, "part"): rows.Draw(t, "rows")}, Notes: texts.Draw(t, "notes"),
			Metrics: []Metric{{Name: "m", Test: some.Draw(t, "test"), Error: some.Draw(t, "error"), Validation: some.Draw(t, "v"), Baseline: some.Draw(t, "b"),
				Better: rapid.SampledFrom([]string{"up", "down", ""}).Draw(t, "better"), Gate: text.Draw(t, "gate"), Passed: rapid.Ptr(rapid.Bool(), true).Draw(t, "passed")}},
			Fairness: []Fairness{{By: text.Draw(t, "by"), Metric: "tpr_ratio", Value: num.Draw(t, "value"), Low: num.Draw(t, "low"), High: num.Draw(t, "high"),
				Groups: []evaluate.Rate{{Group: text.Draw(t, "group"), Rows: rows.Draw(t, "rows"), Value: num.Draw(t, "rate")}}}},
			Data:   []SourceLine{{text.Draw(t, "source"), 1, 2, text.Draw(t, "digest")}},
			Inputs: []InputLine{{text.Draw(t, "input"), text.Draw(t, "column"), "int", true}},
		}
		n := rapid.IntRange(0, 4).Draw(t, "classes")
		d.Report = evaluate.Report{Rows: rows.Draw(t, "n"), Threshold: num.Draw(t, "threshold"), Metric: text.Draw(t, "metric"),
			Classes: rapid.SliceOfN(text, n, n).Draw(t, "names"), Curves: rapid.SliceOfN(curve, 0, 6).Draw(t, "curves"),
			Confusion: rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 2000000), n, n), n, n).Draw(t, "confusion"),
			Residuals: &evaluate.Residuals{Sample: points.Draw(t, "sample"), Histogram: bins.Draw(t, "histogram"), Coverage: points.Draw(t, "coverage")},
			Slices:    rapid.SliceOfN(slice, 0, 3).Draw(t, "slices"), Worst: rapid.SliceOfN(slice, 0, 3).Draw(t, "worst"),
		}
		for range rapid.IntRange(0, 35).Draw(t, "features") {
			d.Report.Importance = append(d.Report.Importance, evaluate.Importance{Feature: text.Draw(t, "f"), Drop: num.Draw(t, "drop"), Error: num.Draw(t, "e")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "dependences") {
			dep := evaluate.Dependence{Feature: text.Draw(t, "f"), Output: text.Draw(t, "o"), Means: nums.Draw(t, "means")}
			if rapid.Bool().Draw(t, "labels") {
				dep.Labels = texts.Draw(t, "l")
			} else {
				dep.Values = nums.Draw(t, "v")
			}
			d.Report.Dependence = append(d.Report.Dependence, dep)
		}
		html := render(t, d)
		sound(t, html)
		if !bytes.Equal([]byte(html), []byte(render(t, d))) {
			t.Fatal("two renderings differ")
		}
	})
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		v           float64
		full, short string
	}{
		{0, "0", "0"}, {math.Copysign(0, -1), "0", "0"}, {5, "5", "5"}, {-12345, "−12,345", "−12,345"}, {0.5, "0.5000", "0.5"},
		{0.84123, "0.8412", "0.8412"}, {9.99996, "10.00", "10"}, {999.96, "1,000", "1,000"}, {1234.5, "1,234", "1,234"}, {1234567.8, "1,234,568", "1,234,568"},
		{0.00012345, "0.0001234", "0.0001234"}, {0.031, "0.0310", "0.031"}, {0.002, "0.0020", "0.002"}, {-0.0004, "−0.0004", "−0.0004"}, {0.000012345, "1.234×10⁻⁵", "1.234×10⁻⁵"}, {1.5e15, "1.500×10¹⁵", "1.500×10¹⁵"},
		{math.NaN(), "unknown", "unknown"}, {math.Inf(-1), "−∞", "−∞"}, {212.345, "212.3", "212.3"},
	} {
		if got := number(c.v); got != c.full {
			t.Errorf("number(%v) = %s, want %s", c.v, got, c.full)
		}
		if got := short(c.v); got != c.short {
			t.Errorf("short(%v) = %s, want %s", c.v, got, c.short)
		}
	}
	for share, want := range map[float64]string{0: "0 %", 0.00018: "<0.1 %", 0.004: "0.4 %", 0.05: "5 %", 0.0999: "10 %", 0.816: "82 %", 1: "100 %"} {
		if got := strings.ReplaceAll(percent(share), "\u00a0", " "); got != want {
			t.Errorf("percent(%v) = %s, want %s", share, got, want)
		}
	}
}

// TestTicks: steps are few, rise, lie within, and their labels tell them apart.
func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		num := rapid.Float64Range(-greatest, greatest)
		size := rapid.SampledFrom([]float64{1, 1e-6, 1e3, 1e9, 1e200}).Draw(t, "size")
		if rapid.Bool().Draw(t, "near") {
			num = rapid.Float64Range(-size, size)
		}
		n := rapid.IntRange(2, 6).Draw(t, "n")
		a, b := num.Draw(t, "a"), num.Draw(t, "b")
		s := newScale(rapid.Bool().Draw(t, "exact"), n, a, b)
		s.from, s.to = 10, 110
		ticks := s.ticks()
		if len(ticks) < 1 || len(ticks) > 2*n+3 {
			t.Fatalf("%d ticks of %+v", len(ticks), s)
		}
		seen := map[string]bool{}
		for i, v := range ticks {
			if x := s.at(v); !(x >= 10 && x <= 110) || i > 0 && v <= ticks[i-1] {
				t.Fatalf("tick %v of %v at %v", v, ticks, x)
			}
			if l := s.label(v); seen[l] {
				t.Fatalf("two ticks %s of %v", l, ticks)
			} else {
				seen[l] = true
			}
		}
		for _, v := range []float64{a, b} {
			if x := s.at(v); !(x >= 10 && x <= 110) {
				t.Fatalf("%v at %v", v, x)
			}
		}
	})
	for _, c := range []struct {
		values []float64
		want   string
	}{{[]float64{0, 1}, `["0","0.2","0.4","0.6","0.8","1.0"]`}, {[]float64{-250, 1200}, `["−500","0","500","1,000","1,500"]`},
		{[]float64{0, 2.6e6}, `["0","5×10⁵","1.0×10⁶","1.5×10⁶","2.0×10⁶","2.5×10⁶","3.0×10⁶"]`}, {[]float64{7, 7}, `["2","4","6","8","10","12"]`}} {
		s := newScale(false, 5, c.values...)
		var labels []string
		for _, v := range s.ticks() {
			labels = append(labels, s.label(v))
		}
		if got, _ := json.Marshal(labels); string(got) != c.want {
			t.Errorf("ticks of %v: %s, want %s", c.values, got, c.want)
		}
	}
	if got := newScale(true, 2, 0.015625, 0.46875).ticks(); !slices.Equal(got, []float64{0.2, 0.4}) { // between 0 and 0.5
		t.Errorf("ticks of an exact scale: %v", got)
	}
}

// TestWilson holds intervals against scipy 1.17.1: stats.binomtest(hits, n)
// .proportion_ci(0.95, method="wilson").
func TestWilson(t *testing.T) {
	for _, c := range []struct {
		hits, n   int
		low, high float64
	}{{0, 10, 0, 0.277533}, {5, 10, 0.236593, 0.763407}, {90, 100, 0.825634, 0.944771}, {1, 1, 0.206549, 1}} {
		low, high, ok := wilson(float64(c.hits)/float64(c.n), c.n)
		if !ok || math.Abs(low-c.low) > 2e-5 || math.Abs(high-c.high) > 2e-5 {
			t.Errorf("wilson %d of %d: %v to %v, want %v to %v", c.hits, c.n, low, high, c.low, c.high)
		}
	}
	if _, _, ok := wilson(math.NaN(), 3); ok {
		t.Error("an interval of no number")
	}
}

// TestInterval: an interval ends where the metric's values do.
func TestInterval(t *testing.T) {
	if low, high, ok := (Metric{Most: 1}).interval(0.99, 0.01); low != 0.99-1.96*0.01 || high != 1 || !ok {
		t.Errorf("from %v to %v, %v", low, high, ok)
	}
	if low, high, ok := (Metric{Most: math.Inf(1)}).interval(1, 1); low != 0 || high != 2.96 || !ok {
		t.Errorf("from %v to %v, %v", low, high, ok)
	}
	if low, high, _ := (Metric{}).interval(1, 1); low >= 0 || high != 2.96 {
		t.Errorf("of no range it is from %v to %v", low, high)
	}
}

// TestVerdict: what is said follows from the gates.
func TestVerdict(t *testing.T) {
	gate := func(passed *bool) Metric {
		return Metric{Name: "auc", Test: ptr(0.8), Error: ptr(0.01), Better: "up", Gate: "at least 0.7.", Passed: passed}
	}
	for _, c := range []struct {
		metrics []Metric
		want    string
	}{
		{nil, "Nothing is asked of this model"},
		{[]Metric{gate(ptr(true))}, "The one demand is met"},
		{[]Metric{gate(ptr(true)), gate(ptr(true))}, "All 2 demands are met"},
		{[]Metric{gate(ptr(true)), gate(ptr(false))}, "1 of 2 demands is not met"},
		{[]Metric{gate(ptr(false)), gate(ptr(false))}, "2 of 2 demands are not met"},
		{[]Metric{gate(nil), gate(ptr(true))}, "1 of 2 demands is not judged"},
	} {
		v := judge(Data{Metrics: c.metrics})
		if v.Headline != c.want {
			t.Errorf("%q, want %q", v.Headline, c.want)
		}
		if len(v.Demands) > 0 && v.Demands[0].Text != "On the test rows it is 0.8000 (95\u00a0% interval 0.7804 to 0.8196). Asked: at least 0.7." {
			t.Errorf("%q", v.Demands[0].Text)
		}
	}
	d := Data{Primary: "loss", Metrics: []Metric{{Name: "loss", Test: ptr(2.5), Baseline: ptr(4.0), Better: "down"}}}
	if got, want := lead(d), "The primary metric loss is 2.500. That is better than the baseline's 4 by 1.500."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestContrast: text, marks and every level of the heat map can be read in both themes
// (WCAG 2.1: 4.5 to 1).
func TestContrast(t *testing.T) {
	_, css, _ := strings.Cut(pageHTML, "<style>")
	css, _, _ = strings.Cut(css, "@media print")
	inDark := regexp.MustCompile(`(?s)@media screen and \(prefers-color-scheme: dark\) \{\n.*?\n\}`)
	light := inDark.ReplaceAllString(css, "")
	dark := light + strings.Join(inDark.FindAllString(css, -1), "")
	// The last that a theme says of a name counts.
	last := func(css, pattern string) []float64 {
		m := regexp.MustCompile(pattern+`(#\w{6});`).FindAllStringSubmatch(css, -1)
		if m == nil {
			return nil
		}
		return rgb(m[len(m)-1][1])
	}
	for theme, css := range map[string]string{"light": light, "dark": dark} {
		paper, heat, ink := last(css, "--paper: "), last(css, "--heat: "), last(css, "--ink: ")
		for _, name := range []string{"ink", "soft", "link", "good", "bad"} {
			if c := contrast(paper, last(css, "--"+name+": ")); c < 4.5 {
				t.Errorf("%s %s: %.2f", theme, name, c)
			}
		}
		for _, name := range []string{"s0", "s1", "s2", "s3", "ref"} {
			if c := contrast(paper, last(css, "--"+name+": ")); c < 3 {
				t.Errorf("%s line %s: %.2f", theme, name, c)
			}
		}
		for level := range 11 {
			back, text := make([]float64, 3), ink
			for i := range back {
				back[i] = paper[i] + (heat[i]-paper[i])*float64(level)/10
			}
			if own := last(css, fmt.Sprintf(`svg text\.t%d\b[^{}]*\{ fill: `, level)); own != nil {
				text = own
			}
			if c := contrast(back, text); c < 4.5 {
				t.Errorf("%s level %d: %.2f", theme, level, c)
			}
		}
	}
}

func rgb(hex string) []float64 {
	out := make([]float64, 3)
	for i := range out {
		v, _ := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		out[i] = float64(v) / 255
	}
	return out
}

// contrast is WCAG's ratio of two colours.
func contrast(a, b []float64) float64 {
	lum := func(c []float64) float64 {
		sum := 0.05
		for i, w := range []float64{0.2126, 0.7152, 0.0722} {
			if c[i] <= 0.04045 {
				sum += w * c[i] / 12.92
			} else {
				sum += w * math.Pow((c[i]+0.055)/1.055, 2.4)
			}
		}
		return sum
	}
	return max(lum(a), lum(b)) / min(lum(a), lum(b))
}
