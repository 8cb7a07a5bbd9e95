package draft

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/spec"
	"mlc.dev/mlc/schema"
	"mlc.dev/mlc/stdlib"
)

const shared = "../../../../../shared/data"

// vetted drafts a spec into dir and wants it sound and in the standard form.
func vetted(dir, path, label string) (string, error) {
	text, err := Draft(context.Background(), Ask{Name: "drafted", Dir: dir, Path: path, Label: label})
	if err != nil {
		return "", err
	}
	return string(text), sound(dir, text)
}

func sound(dir string, text []byte) error {
	again, list := spec.Format("drafted.cue", text)
	if list.HasErrors() || !bytes.Equal(again, text) {
		return fmt.Errorf("not in the standard form: %v\n%s", list.Err(), text)
	}
	module := spec.ModuleFile("mlc.local/drafted@v0", schema.Assemble(stdlib.Kinds().Schemas()))
	if err := os.MkdirAll(filepath.Join(dir, "cue.mod"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cue.mod", "module.cue"), module, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "drafted.cue"), text, 0o644); err != nil {
		return err
	}
	if _, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds()); list.HasErrors() {
		return fmt.Errorf("%w\n%s", list.Err(), text)
	}
	return nil
}

// has wants every one of the parts in a text; "!" begins one that must not be there.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		rest, not := strings.CutPrefix(p, "!")
		if strings.Contains(text, rest) == not {
			t.Errorf("%q: want there %v\n%s", rest, !not, text)
		}
	}
}

// TestShared drafts from real tables.
func TestShared(t *testing.T) {
	if _, err := os.Stat(shared); err != nil {
		t.Skip("SKIPPED: no ../shared/data")
	}
	for _, c := range []struct {
		path, label string
		want        []string
	}{
		{"adult/adult_train.csv.gz", "", []string{`kind: "binary"`, `expr: "income = '>50K'"`, `age: {type: "int", nulls: "never", min: 17, max: 90}`, `"hours-per-week": {`, `kind:   "stratified"`}},
		{"telco_churn/telco_customer_churn.csv.gz", "Churn", []string{`expr: "Churn = 'Yes'"`, `null_values: ["", " "]`, "An id?", `TotalCharges: {type: "float", min: 18.8, max: 8685}`, `!"customer_id",`}},
		{"california_housing/housing.csv.gz", "median_house_value", []string{`kind: "regression"`, `total_bedrooms: {type: "float", min: 1, max: 6445}`, `kind:   "random"`}},
		{"bank_marketing/bank-additional-full.csv.gz", "", []string{`delimiter: ";"`, `"emp.var.rate": {type: "float", nulls: "never", min: -3.4, max: 1.4}`}},
		{"bike_sharing/hour.csv.gz", "", []string{`at: "dteday"`, `split: {kind: "time", validation: "72d", test: "146d"}`, `A leak? "cnt" is the sum of "casual" and "registered" in every row`}},
		{"beijing_pm25/pollution.csv.gz", "pm2.5", []string{`null_values: ["", "NA"]`, `expr: "\"pm2.5\""`, `problems: pm2_5: {`}},
		{"creditcard_fraud_sample/creditcard_sample.csv.gz", "", []string{`expr: "Class = 1"`, `primary: "pr_auc"`, `pr_auc: over_baseline: 0.09`}},
		{"nyc_taxi/green_tripdata_2020-04_with_index.csv.gz", "total_amount", []string{"A leak? It alone tells \"total_amount\" (correlation 0.985)", "It has no value in any row", "more than one column is a time"}},
		{"wine_iris_winequality/iris.csv", "", []string{`kind: "multiclass"`, "header: false", `primary: "accuracy"`, `trainer: {kind: "gbdt", min_rows: 3}`}},
		{"wine_iris_winequality/abalone.csv", "", []string{`kind: "regression"`, `c1: {type: "string", nulls: "never", in: ["F", "I", "M"]}`}},
		{"optdigits/optdigits-test.csv.gz", "", []string{`kind: "multiclass"`, `expr: "Number"`, "!header: false", `"0": {type: "int"`}},
		{"higgs_sample/binary.test.gz", "c1", []string{`"csv"`, `delimiter: "\t"`, "header: false"}},
		{"open_bandit_men/bts_men.csv.gz", "click", []string{`Column "" is not read`, `at: "timestamp"`}},
		{"sms_spam/sms_spam.csv.gz", "label", []string{`expr: "label = 'spam'"`, "the rarer", "// Free text, 14 words on average", `"row.text": encode: [{kind: "text"}]`, `trainer: kind: "linear"`}},
		{"banking77/train.csv.gz", "category", []string{`kind: "multiclass"`, "// Free text, 11 words on average", `"row.text": encode: [{kind: "text"}]`, "!An id?"}},
		{"feast_driver_stats/driver_stats.parquet", "conv_rate", []string{`type: "timestamp"`, `kind: "regression"`}},
	} {
		t.Run(c.path, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join(shared, c.path))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Skipf("SKIPPED: no ../shared/data/%s", c.path)
			}
			text, err := vetted(t.TempDir(), path, c.label)
			if err != nil {
				t.Fatal(err)
			}
			has(t, text, c.want...)
		})
	}
}

// written writes n rows of columns, each a function of the row's number, as CSV.
func written(t interface{ Fatal(...any) }, path string, header []string, n int, row func(i int) []string) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(header)
	for i := range n {
		_ = w.Write(row(i))
	}
	w.Flush()
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestColumns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	header := []string{"order no", "shop_id", "desk_id", "empty", "same", "zip", "point", "flag", "day", "gone", "twin", "gauge", "Gauge", "_own", "note", "for", "y"}
	written(t, path, header, 400, func(i int) []string {
		y := float64(i*i%997) / 10
		gone := ""
		if y > 50 {
			gone = fmt.Sprint("d", i%90)
		}
		return []string{fmt.Sprint(1000 + i), fmt.Sprint(i % 99), fmt.Sprint(i % 3), "", "x", fmt.Sprintf("%05d", i%70), fmt.Sprintf("%d.0", i%7), fmt.Sprint(i%2 == 0),
			fmt.Sprintf("2024-%02d-%02d", 1+i%12, 1+i%28), gone, fmt.Sprint(2*y + float64(i%2)/100), map[bool]string{true: "n/a", false: fmt.Sprint(-i % 55)}[i%9 == 0], "1", "2", []string{"a\"b", `c\(d)`}[i%2], fmt.Sprint(i % 5), fmt.Sprint(y)}
	})
	text, err := vetted(dir, path, "y")
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"// An id? No two rows have the same, so it is no feature.\n\t\t\t\"order no\": {type: \"int\", nulls: \"never\", min: 1000, max: 1399}",
		"// An id by its name, so it is no feature.\n\t\t\tshop_id:", `"desk_id"`,
		"// It has no value in any row, so it is no feature.\n\t\t\tempty: type: \"string\"",
		"// It is the same in every row, so it is no feature.\n\t\t\tsame:",
		`zip: {type: "string", nulls: "never"}`,
		`point: {type: "float", nulls: "never", min: 0, max: 6}`,
		`flag: {type: "bool", nulls: "never"}`,
		"// The prediction time. It is no feature as it is.\n\t\t\tday: {type: \"timestamp\", nulls: \"never\"}",
		"// A leak? It alone tells \"y\" (correlation 1.000). It is no feature; make it one if it is known when a prediction is made.\n\t\t\ttwin:",
		`gauge: {type: "int", min: -54, max: 0}`, `null_values: ["", "n/a"]`,
		`Column "Gauge" is not read: it differs from "gauge" only in case`, `Column "_own" is not read: it begins with an underscore`,
		`in: ["a\"b", "c\\(d)"]`, `"for": {type: "int"`, `split: {kind: "time", `, `at: "day"`, `!No split by time`,
	)
	// A condition of the same rows: what is missing where it is false tells it.
	written(t, path, []string{"x", "gone", "y"}, 300, func(i int) []string {
		return []string{fmt.Sprint(i % 40), map[bool]string{true: fmt.Sprint("d", i%150)}[i%3 == 0], map[bool]string{true: "t", false: "f"}[i%3 == 0]}
	})
	if text, err = vetted(dir, path, ""); err != nil {
		t.Fatal(err)
	}
	has(t, text, `expr: "y = 't'"`, "The last column", "A leak? Whether it is missing tells \"y\" in 100% of rows", `columns: ["x"]`)
	// The only column is kept, leak or not.
	written(t, path, []string{"x", "y"}, 300, func(i int) []string { return []string{fmt.Sprint(i % 2), fmt.Sprint(i % 2)} })
	if text, err = vetted(dir, path, ""); err != nil {
		t.Fatal(err)
	}
	has(t, text, "A leak? Its value alone tells \"y\" in 100% of rows. Keep it only if it is known when a prediction is made.", `columns: ["x"]`)
}

func TestLabels(t *testing.T) {
	for _, c := range []struct {
		name, kind, expr string // kind "": refused
		label            func(i int) string
	}{
		{"bool", "binary", "y", func(i int) string { return fmt.Sprint(i%4 == 0) }},
		{"yes", "binary", "y = 'Yes'", func(i int) string { return []string{"Yes", "Yes", "Yes", "No"}[i%4] }},
		{"rarer", "binary", "y = 'b''s'", func(i int) string { return []string{"a", "a", "b's"}[i%3] }},
		{"numbers", "binary", "y = 2.5", func(i int) string { return []string{"-1", "2.5", "2.5"}[i%3] }},
		{"texts", "multiclass", "y", func(i int) string { return []string{"a", "b", "c"}[i%3] }},
		{"points", "multiclass", "y", func(i int) string { return []string{"1.0", "2.0", "3.0"}[i%3] }},
		{"numbers", "regression", "y", func(i int) string { return fmt.Sprint(i % 77) }},
		{"floats", "regression", "y", func(i int) string { return fmt.Sprint(float64(i%6) / 4) }},
		{"one", "", "", func(int) string { return "a" }},
		{"none", "", "", func(int) string { return "" }},
		{"names", "", "", func(i int) string { return fmt.Sprint("n", i) }},
		{"time", "", "", func(i int) string { return fmt.Sprintf("2024-01-%02d", 1+i%28) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "rows.csv")
			written(t, path, []string{"x", "y"}, 240, func(i int) []string { return []string{fmt.Sprint(i * 7 % 101), c.label(i)} })
			text, err := vetted(dir, path, "y")
			if c.kind == "" {
				if list := diag.From(err, diag.Range{}); len(list) != 1 || list[0].Code != diag.BadLabel {
					t.Fatalf("want %s, not %v", diag.BadLabel, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			has(t, text, "kind: "+strconv.Quote(c.kind), "expr: "+strconv.Quote(c.expr))
		})
	}
}

// TestSplitByTime wants a split only where its parts can train and judge.
func TestSplitByTime(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	for _, c := range []struct {
		want string
		at   func(i int) string
	}{
		{`split: {kind: "time", validation: "10h", test: "20h"}`, func(i int) string { return fmt.Sprintf("2024-03-%02d %02d:00:00", 1+i%100/24, i%100%24) }},
		{`"at" is missing in rows`, func(i int) string { return map[bool]string{true: fmt.Sprintf("2024-03-%02d", 1+i%28)}[i%5 > 0] }},
		{`"at" does not divide the rows in time`, func(i int) string { return fmt.Sprintf("2024-03-%02d", 1+min(i, 1)) }},
	} {
		written(t, path, []string{"at", "x", "y"}, 400, func(i int) []string { return []string{c.at(i), fmt.Sprint(i % 61), fmt.Sprint(i % 83)} })
		text, err := vetted(dir, path, "")
		if err != nil {
			t.Fatal(err)
		}
		has(t, text, c.want)
	}
}

// TestFreeText wants the words of sentences as columns, whether two are the same or
// not, and nothing of the kind for ids, codes, names and what often repeats.
func TestFreeText(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	words := []string{"late", "parcel", "never", "arrived", "please", "refund", "order", "broken", "again", "thanks"}
	say := func(n, i int) string {
		said := make([]string, n)
		for k := range said {
			said[k] = words[(i*7+k*k*(i%89)+k)%10]
		}
		return strings.Join(said, " ")
	}
	written(t, path, []string{"said to us", "id", "uuid", "codes", "name", "stock", "half", "x", "y"}, 600, func(i int) []string {
		return []string{say(8, i) + fmt.Sprint(" no ", i), say(6, i), fmt.Sprintf("%08x-%04x-%04x", i*7919, i, i*31), fmt.Sprintf("A %d B %d C %d", i, i*i, i+1), say(3, i) + fmt.Sprint(i), say(6, i%30),
			map[bool]string{true: say(7, i)}[i%2 == 0], fmt.Sprint(i * 31 % 83), fmt.Sprint(i * 7 % 61)}
	})
	text, err := vetted(dir, path, "y")
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"// Free text, 9 words on average and seldom the same: its words become columns.\n\t\t\t\"row.said to us\": encode: [{kind: \"text\", max: 1365}]",
		"// Free text, 6 words on average", `"row.id": encode:`, "// Free text, 7 words on average", `"row.half": encode:`,
		`!"row.uuid"`, `!"row.codes"`, `!"row.name"`, `!"row.stock"`, `trainer: kind: "linear"`, "An id? No two rows have the same, so it is no feature.\n\t\t\tuuid:",
	)
}

// TestBadValues wants a column to have the type of all but few of its values, and the
// rows with these left out of what the draft says, as they will be of what is learned.
func TestBadValues(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	but := func(i int, v, bad string, rows ...int) string {
		if slices.Contains(rows, i) {
			return bad
		}
		return v
	}
	row := func(i int) map[string]string {
		return map[string]string{
			"count":  but(i, fmt.Sprint(i%50), "12;5\n"+strings.Repeat("x", 40), 7),
			"size":   but(i, fmt.Sprint(float64(i%70)/4), []string{"inf", "n.d.", "wide", "w"}[i%4], 10, 11, 12, 13, 14),
			"at":     but(i, fmt.Sprintf("2024-01-%02d %02d:00:00", 1+i/24%28, i%24), "2024-02-30", 7, 8),
			"flag":   but(i, []string{"true", "false"}[i%2], "maybe", 9),
			"truth":  but(i, []string{"true", "false"}[i%2], "t", 99),
			"asked":  but(i, but(i, fmt.Sprint(i%60), "?", 1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24), "eh", 8),
			"many":   but(i, fmt.Sprint(i%55), "none of it", 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43),
			"over":   but(i, fmt.Sprint(i%55), "too many", 31, 32, 33, 34, 35, 36, 37),
			"error":  but(i, "0", "failed", 50),
			"order":  but(i, fmt.Sprint(i), "C7", 7),
			"seldom": map[bool]string{true: but(i, fmt.Sprint(i/30%30), "x", 90)}[i%30 == 0],
			"zip":    but(i, fmt.Sprintf("%05d", i%70), "abroad", 7),
			"y":      but(i, fmt.Sprint(i*7%61), "lost", 60),
			"class":  but(i, fmt.Sprint(i*7%3), "other", 61),
		}
	}
	header := []string{"count", "size", "at", "flag", "truth", "asked", "many", "over", "error", "order", "seldom", "zip", "class", "y"}
	write := func(n int) {
		written(t, path, header, n, func(i int) []string {
			out := make([]string, len(header))
			for k, h := range header {
				out[k] = row(i)[h]
			}
			return out
		})
	}
	write(1200) // 12 may be bad
	text, err := vetted(dir, path, "y")
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"Drafted from the 1200 rows", `null_values: ["", "?"]`,
		"// 1 value is not a whole number (\"12;5\\nxxxxxxxxxxxxxxxxxxxxxxxxx…\"); its row will be quarantined.\n\t\t\tcount: {type: \"int\", nulls: \"never\", min: 0, max: 49}",
		"// 5 values are not a number (\"wide\", \"inf\", \"n.d.\", …); their rows will be quarantined.\n\t\t\tsize: {type: \"float\", nulls: \"never\", min: 0, max: 17.25}",
		"// 2 values are not a time (\"2024-02-30\"); their rows will be quarantined.\n\t\t\t// The prediction time.", `at: {type: "timestamp", nulls: "never"}`,
		"// 1 value is not a condition (\"maybe\"); its row will be quarantined.\n\t\t\tflag: {type: \"bool\", nulls: \"never\"}",
		`truth: {type: "string", nulls: "never", in: ["false", "t", "true"]}`,                                                       // "t" reads as true
		`asked: {type: "int", min: 0, max: 59}`, `many: {type: "string", nulls: "never"}`, `over: {type: "string", nulls: "never"}`, // 12 with it
		`error: {type: "string", nulls: "never", in: ["0", "failed"]}`, `order: {type: "string", nulls: "never"}`, `seldom: type: "string"`, `zip: {type: "string", nulls: "never"}`,
		"(\"lost\")", `kind: "regression"`, "(\"other\"); its row will be quarantined.\n\t\t\tclass: {type: \"int\"",
	)
	if text, err = vetted(dir, path, "class"); err != nil {
		t.Fatal(err)
	}
	has(t, text, `kind: "multiclass"`, `class: {type: "string", nulls: "never", in: ["0", "1", "2", "other"]}`)
	write(90) // none of 90 may be bad
	if text, err = vetted(dir, path, "class"); err != nil {
		t.Fatal(err)
	}
	has(t, text, "!quarantined", `flag: {type: "string", nulls: "never", in: ["false", "maybe", "true"]}`)
}

// TestAnyTable drafts from tables of any names and values: a draft is sound, or the
// mistake is the user's and told.
func TestAnyTable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rows.csv")
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-zA-Z_][a-zA-Z0-9_ .\-]{0,8}`), rapid.SampledFrom([]string{"for", "null", "select", "case", "a.b", "a[0]", "x \"y\"", "größe", `\(q)`, "#d", "__x", "id", "CASE"}))
		header := rapid.SliceOfN(name, 2, 5).Draw(t, "header")
		kinds := rapid.SliceOfN(rapid.IntRange(0, 8), len(header), len(header)).Draw(t, "kinds")
		mixed := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 7, 7).Draw(t, "mixed")
		written(t, path, header, rapid.IntRange(1, 250).Draw(t, "rows"), func(i int) []string {
			out := make([]string, len(header))
			for k := range out {
				v := (i*mixed[k] + k) % 1009
				switch kinds[k] {
				case 0:
					out[k] = fmt.Sprint(v - 500)
				case 1:
					out[k] = fmt.Sprint(math.Exp(float64(v)/20 - 25))
				case 2:
					out[k] = []string{"a", "b\n", "", "?", `"`, "␀"}[v%6]
				case 3:
					out[k] = []string{"", "7", "NA", "-1.5e300"}[v%4]
				case 4:
					out[k] = fmt.Sprintf("%d-01-02T03:04:05Z", 1900+v%300)
				case 5:
					out[k] = []string{"true", "false"}[v%2]
				case 6:
					out[k] = []string{"x", ""}[v%2]
				case 7:
					out[k] = fmt.Sprintf(`the "%dth" of some (short) words`, v)
				case 8:
					if out[k] = fmt.Sprint(v); v%150 == 149 {
						out[k] = "\\(no)\n// number"
					}
				}
			}
			return out
		})
		text, err := Draft(context.Background(), Ask{Name: "drafted", Dir: dir, Path: path})
		if err != nil {
			for _, d := range diag.From(err, diag.Range{}) {
				if d.Code == diag.Internal || d.Code == diag.Syntax {
					t.Fatal(err)
				}
			}
			return
		}
		if err := sound(dir, text); err != nil {
			t.Fatal(err)
		}
	})
}

func TestIDName(t *testing.T) {
	for name, want := range map[string]bool{"id": true, "ID": true, "customer_id": true, "customer ID": true, "customerID": true, "PULocationID": true, "CustomerId": true, "row.uuid": true, "paid": false, "PAID": false, "Bid": false, "id_type": false, "valid": false} {
		if idName.MatchString(name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}

// TestBound wants bounds that hold and are near: four digits, away from the value.
func TestBound(t *testing.T) {
	for _, c := range []struct {
		x        float64
		low, top string
	}{
		{0, "0", "0"}, {17, "17", "17"}, {1399, "1399", "1399"}, {1484705, "1484000", "1485000"}, {-124.35, "-124.4", "-124.3"}, {0.1, "0.1", "0.1"}, {99999, "99990", "100000"},
	} {
		if low, top := bound(c.x, false), bound(c.x, true); low != c.low || top != c.top {
			t.Errorf("bounds of %v are %s and %s, want %s and %s", c.x, low, top, c.low, c.top)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(-1e300, 1e300).Draw(t, "x")
		low, err1 := strconv.ParseFloat(bound(x, false), 64)
		top, err2 := strconv.ParseFloat(bound(x, true), 64)
		if err1 != nil || err2 != nil || low > x || top < x || top-low > 0.0021*math.Abs(x)+1e-300 {
			t.Fatalf("%v is not well between %v and %v", x, low, top)
		}
	})
}
