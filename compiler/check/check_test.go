package check_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/stdlib"
)

// base is a sound spec with every kind of thing that the proofs look at. Each
// case replaces a part of it and names the codes that must come of it: none
// where the proof must not fire.
const base = `package t

import "mlc.dev/schema"

system: schema.#System & {
	name: "t"
	problems: late: {
		kind:   "binary"
		entity: "shop"
		label: {source: "orders", expr: "minutes > 30", at: "ordered_at", window: "2h", delay: "1h"}
		baseline: {kind: "rule", expr: "distance > 5"}
		metrics: {primary: "roc_auc", offline: roc_auc: min: 0.5}
	}
	entities: shop: key: shop_id: "string"
	sources: {
		orders: {
			kind: "file"
			path: "orders.csv"
			time: {event: "ordered_at", delay: "0s"}
			columns: {
				shop_id:    type: "string"
				ordered_at: type: "timestamp"
				placed_at:  type: "timestamp"
				distance:   {type: "float", min: 0}
				area:       {type: "string", sensitive: true}
				minutes:    {type: "float", delay: "3h"}
				rating:     {type: "int", delay: "2d"}
				size:       {type: "string", in: ["s", "m"]}
				rush:       type: "bool"
			}
		}
		shops: {
			kind: "file"
			path: "shops.csv"
			time: {event: "at", created: "loaded"}
			columns: {shop_id: type: "string", at: type: "timestamp", loaded: type: "timestamp", load: type: "float"}
		}
		orders2: {
			kind: "file"
			path: "./orders.csv"
			time: {event: "ordered_at", delay: "0s"}
			columns: {shop_id: type: "string", ordered_at: type: "timestamp", minutes: type: "float"}
		}
	}
	features: {
		order:   {kind: "request", source: "orders", columns: ["distance", "size", "rush", "ordered_at"]}
		shop:    {kind: "snapshot", entity: "shop", source: "shops", ttl: "30d", columns: ["load"]}
		history: {kind: "snapshot", entity: "shop", source: "orders", columns: ["minutes"]}
		d:       {kind: "derived", exprs: {hour: "hour(order.ordered_at)", busy: "shop.load * order.distance"}}
	}
	models: late: {
		problem: "late"
		inputs: {"order.distance": {}, "order.size": {}, "shop.*": {}, "history.*": {}, "d.*": {}}
		split: {kind: "time", test: "7d"}
		trainer: kind: "gbdt"
	}
}
`

func vet(t *testing.T, spec string) diag.List {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"t.cue": spec, "orders.csv": "x\n", "shops.csv": "x\n", "open.csv": "x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
	if (r.Plan != nil) == list.HasErrors() {
		t.Errorf("a plan goes with no errors, and only then")
	}
	for _, d := range list {
		if !d.At.Known() {
			t.Errorf("%s has no place: %s", d.Code, d.What)
		}
		if _, ok := diag.Explain(d.Code); !ok {
			t.Errorf("%s has no page", d.Code)
		}
	}
	return list
}

func TestProofs(t *testing.T) {
	cases := []struct {
		name     string
		old, new string
		want     string // codes, sorted
		at       string // the text that the first diagnostic points at
	}{
		{"sound", "", "", "", ""},
		{"references: column in expression", "minutes > 30", "minuets > 30", "MLC2101", "minuets"},
		{"references: column in feature", `columns: ["load"]`, `columns: ["laod"]`, "MLC2101", `"laod"`},
		{"references: source", `source: "shops", ttl`, `source: "shop", ttl`, "MLC2102", `"shop"`},
		{"references: entity", `kind: "snapshot", entity: "shop", source: "shops"`, `kind: "snapshot", entity: "shpo", source: "shops"`, "MLC2102", `"shpo"`},
		{"references: problem", `problem: "late"`, `problem: "lat"`, "MLC2102", `"lat"`},
		{"references: feature", `"order.size": {}`, `"order.sise": {}`, "MLC2102", `"order.sise"`},
		{"references: group", `"shop.*": {}`, `"shops.*": {}`, "MLC2102", `"shops.*"`},
		{"references: metric", `primary: "roc_auc"`, `primary: "auc_roc"`, "MLC2102", `"auc_roc"`},
		{"references: feature in derived", "shop.load *", "shop.lode *", "MLC2102", "shop.lode"},
		{"syntax inside the string", "minutes > 30", "minutes >> 30", "MLC2103", ">"},
		{"types: label of binary", "minutes > 30", "minutes + 30", "MLC2104", `"minutes + 30"`},
		{"types: comparison", "minutes > 30", "minutes > 'long'", "MLC2104", "'long'"},
		{"types: event column", `event: "at"`, `event: "load"`, "MLC2104", `"load"`},
		{"types: bound of a string", `size:       {type: "string", in: ["s", "m"]}`, `size:       {type: "string", min: 1}`, "MLC2104", "1"},
		{"types: key", `shop_id: "string"
	sources`, `shop_id: "int"
	sources`, "MLC2107 MLC2107 MLC2107 MLC2107 MLC2107 MLC2107", ""},
		{"cycle", `busy: "shop.load * order.distance"`, `busy: "d.more + 1", more: "d.busy + 1"`, "MLC2105", "d.busy"},
		{"key of the snapshot", `columns: {shop_id: type: "string", at`, `columns: {shop: type: "string", at`, "MLC2107", `"shops"`},
		{"key renamed", `source: "shops", ttl`, `source: "shops", key: shop_id: "shop_id", ttl`, "", ""},
		{"column of a trainer's argument", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", monotone: "order.distanse": 1}`, "MLC2101", ""},
		{"columns of a trainer's pattern", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", categorical: ["ordre.*"]}`, "MLC2101", `"ordre.*"`},
		{"columns that a feature may make", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", monotone: "order.distance": 1, categorical: ["order.s*", "*.load", "shop.load=a"]}`, "", ""},
		{"ttl below the delay", `load: type: "float"}`, `load: {type: "float", delay: "40d"}}`, "MLC2109", `"30d"`},
		{"gate that lets the bad pass", `offline: roc_auc: min: 0.5`, `offline: roc_auc: max: 0.9`, "MLC2109", "0.9"},
		{"gate of both sides", `offline: roc_auc: min: 0.5`, `offline: roc_auc: {min: 0.5, max: 0.99}`, "", ""},
		{"metric fits problem", `offline: roc_auc: min: 0.5`, `offline: rmse: max: 3`, "MLC2301", "rmse"},
		{"metric of regression", `kind:   "binary"`, `kind:   "regression"`, "MLC2104 MLC2104 MLC2301 MLC2301", ""},
		{"baseline missing", `baseline: {kind: "rule", expr: "distance > 5"}`, "", "MLC2302", "late"},
		{"baseline reads the label", `expr: "distance > 5"`, `expr: "minutes > 5"`, "MLC2201", "minutes"},
		{"baseline reads what is late", `expr: "distance > 5"`, `expr: "rating > 5"`, "MLC2202", "rating"},
		{"leak: label column in the request", `columns: ["distance", "size", "rush", "ordered_at"]}`, `columns: ["distance", "size", "rush", "ordered_at", "minutes"]}`, "", ""},
		{"leak: and used", `"order.size": {}`, `"order.*": {}`, "", ""},
		{"leak: label column used", `inputs: {"order.distance": {}`, `inputs: {"leak.minutes": {}, "order.distance": {}`, "MLC2201", `"minutes"`},
		{"leak: an expression over it", `inputs: {"order.distance": {}`, `inputs: {"leaky.m": {}, "order.distance": {}`, "MLC2201", `"minutes"`},
		{"leak: earlier outcomes before they are known", `{type: "float", delay: "3h"}`, `{type: "float", delay: "1h"}`, "MLC2201", `"minutes"`},
		{"known only after the prediction", `inputs: {"order.distance": {}`, `inputs: {"late.rating": {}, "order.distance": {}`, "MLC2202", `"rating"`},
		{"event after the prediction", `at: "ordered_at", window`, `at: "placed_at", window`, "MLC2201 MLC2203 MLC2203 MLC2203 MLC2203", "distance"},
		{"statistics from the future", `split: {kind: "time", test: "7d"}`, `split: {kind: "random", test: 0.2}`, "MLC2204", "split"},
		{"time split without a time", `at: "ordered_at", window`, `window`, "MLC2108 MLC2108 MLC2108", ""},
		{"snapshot of an untimed source", `time: {event: "at", created: "loaded"}`, "", "MLC2108", `"shops"`},
		{"snapshot of a source that does not say when it was known", `time: {event: "at", created: "loaded"}`, `time: event: "at"`, "MLC2108", "time"},
		{"snapshot with an explicit delay", `time: {event: "at", created: "loaded"}`, `time: {event: "at", delay: "1h"}`, "", ""},
		{"leak: the label's file by another name", `path: "shops.csv"
			time: {event: "at", created: "loaded"}
			columns: {shop_id`, `path: "orders.csv"
			time: {event: "at", created: "loaded"}
			columns: {minutes: type: "float", shop_id`, "", ""},
		{"leak: and its answers", `"shop.*": {}, "history.*"`, `"copy.minutes": {}, "history.*"`, "MLC2201", `"minutes"`},
		{"stratified rows of one entity", `split: {kind: "time", test: "7d"}`, `split: {kind: "stratified", test: 0.2}`, "MLC2204 MLC2204", "split"},
		{"columns that differ in case", "distance:   {type", `Distance: type: "float"
				distance:   {type`, "MLC2109", "distance"},
		{"feature that differs in case", `exprs: north: "place.area = 'north'"`, `exprs: {north: "place.area = 'north'", North: "place.area = 'x'"}`, "MLC2109", ""},
		{"impossible bounds", "distance:   {type: \"float\", min: 0}", "distance:   {type: \"float\", min: 2, max: 1}", "MLC2109", "2"},
		{"seed beyond its type", `problem: "late"
`, `problem: "late", seed: 99999999999999999999999
`, "MLC1102", "99999999999999999999999"},
		{"sensitive input", `inputs: {"order.distance": {}`, `inputs: {"place.area": {}, "order.distance": {}`, "MLC2401", `"place.area"`},
		{"sensitive through an expression", `inputs: {"order.distance": {}`, `inputs: {"hidden.north": {}, "order.distance": {}`, "MLC2401", `"hidden.north"`},
		{"sensitive with a reason", `inputs: {"order.distance": {}`, `inputs: {"place.area": allow_sensitive: "it is the law", "order.distance": {}`, "", ""},
		{"memory above the runner's", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", resources: memory: "900Ti"}`, "MLC2501", `"900Ti"`},
		{"cpus above the runner's", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", resources: cpu: 9999}`, "MLC2502", ""},
		{"encoder of the wrong type", `"order.size": {}`, `"order.size": encode: [{kind: "log1p"}]`, "MLC2110", `{kind: "log1p"}`},
		{"string left over", `"order.size": {}`, `"order.size": encode: [{kind: "impute", with: "most_frequent"}]`, "MLC2110", ""},
		{"request expression that cannot run online", `"hour(order.ordered_at)"`, `"length(order.size)"`, "MLC2111", "length(order.size)"},
		{"gate that asks for nothing", `roc_auc: min: 0.5`, `roc_auc: {}`, "MLC2109", "roc_auc"},
		{"gate in per cent", `roc_auc: min: 0.5`, `roc_auc: min: 50`, "MLC2109", "50"},
		{"gate that nothing can pass", `roc_auc: min: 0.5`, `roc_auc: {min: 0.5, over_baseline: 1.5}`, "MLC2109", "1.5"},
		{"gate at the end of the range", `roc_auc: min: 0.5`, `roc_auc: {min: 1, max: 1, over_baseline: -1}`, "", ""},
		{"calibration without validation rows", `trainer: kind: "gbdt"`, `trainer: kind: "gbdt", calibrate: kind: "isotonic"`, "MLC2109", "calibrate"},
		{"calibration with validation rows", `test: "7d"}
		trainer: kind: "gbdt"`, `test: "7d", validation: "7d"}
		trainer: kind: "gbdt", calibrate: kind: "isotonic"`, "", ""},
		{"decision without validation rows", `metrics: {primary`, `decision: {kind: "cost", false_positive: 1, false_negative: 5}, metrics: {primary`, "MLC2109", "decision"},
		{"decision that needs none", `metrics: {primary`, `decision: {kind: "threshold", value: 0.3}, metrics: {primary`, "", ""},
		{"stack without validation rows", `		trainer: kind: "gbdt"
	}
`, ensemble("stack"), "MLC2109", `"stack"`},
		{"mean without validation rows", `		trainer: kind: "gbdt"
	}
`, ensemble("mean"), "", ""},
		{"weights of classes that a condition has not", `trainer: kind: "gbdt"`, `trainer: {kind: "gbdt", class_weight: {Yes: 5, false: 1}}`, "MLC2109", "{Yes: 5, false: 1}"},
		{"split by the outcome", `split: {kind: "time", test: "7d"}`, `split: {kind: "column", column: "minutes", test: ["31"]}`, "MLC2109", `"minutes"`},
		{"split by another column", `split: {kind: "time", test: "7d"}`, `split: {kind: "column", column: "size", test: ["s"]}`, "", ""},
		{"no system", "system: schema.#System &", "sistem: schema.#System &", "MLC1002", ""},
		{"not checked", "system: schema.#System &", "_x: schema.#System\nsystem: {} &", "MLC1002", "system"},
	}
	// Groups that some cases use; nothing else does, so they change nothing.
	extra := `	features: {
		leak:   {kind: "request", source: "orders", columns: ["minutes"]}
		leaky:  {kind: "derived", exprs: m: "coalesce(leak.minutes, 0) * 2"}
		late:   {kind: "request", source: "orders", columns: ["rating"]}
		copy:   {kind: "snapshot", entity: "shop", source: "orders2", columns: ["minutes"]}
		place:  {kind: "request", source: "orders", columns: ["area"]}
		hidden: {kind: "derived", exprs: north: "place.area = 'north'"}
	}
}
`
	whole := strings.TrimSuffix(base, "}\n") + extra
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.old != "" && strings.Count(whole, c.old) != 1 {
				t.Fatalf("%q occurs %d times", c.old, strings.Count(whole, c.old))
			}
			spec := strings.Replace(whole, c.old, c.new, 1)
			list := vet(t, spec)
			var codes []string
			for _, d := range list {
				codes = append(codes, string(d.Code))
			}
			sort.Strings(codes)
			if got := strings.Join(codes, " "); got != c.want {
				t.Fatalf("got %q, want %q:\n%s", got, c.want, text(list, spec))
			}
			if c.at == "" || len(list) == 0 {
				return
			}
			if got := spec[list[0].At.Start:list[0].At.End]; got != c.at {
				t.Errorf("points at %q, not at %q", got, c.at)
			}
		})
	}
}

// ensemble ends the base's model and adds two: another like it, and one of both.
func ensemble(combine string) string {
	return `		trainer: kind: "gbdt"
	}
	models: more: {problem: "late", inputs: "shop.*": {}, split: {kind: "time", test: "7d"}, trainer: kind: "gbdt"}
	models: both: {problem: "late", split: {kind: "time", test: "7d"}, trainer: {kind: "ensemble", of: ["late", "more"], combine: "` + combine + `"}}
`
}

func text(list diag.List, spec string) string {
	var b strings.Builder
	for _, d := range list {
		line, col := d.At.Position([]byte(spec))
		fmt.Fprintf(&b, "%d:%d %s\n", line, col, d.Error())
	}
	return b.String()
}

// FuzzSpec: no text of a spec makes the compiler panic, and every position lies
// in its file.
func FuzzSpec(f *testing.F) {
	f.Add(base)
	f.Add(servingBase)
	f.Add(strings.Replace(servingBase, `"risk.probability"`, "3", 1))
	f.Add(strings.Replace(base, "roc_auc", "\x00", 1))
	f.Add("package t\nsystem: {")
	f.Add("\"\"\xf3\"")
	f.Add("package t\nimport \"mlc.dev/schema\"\nsystem: schema.#System & {sources: a: kind: 3, models: x: inputs: \"a.b[0].*\": 1}")
	f.Fuzz(func(t *testing.T, spec string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "t.cue"), []byte(spec), 0o644); err != nil {
			t.Skip()
		}
		_, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
		for _, d := range list {
			if d.At.File == "t.cue" && (d.At.Start < 0 || d.At.End < d.At.Start || d.At.End > len(spec)) {
				t.Errorf("range %v outside of %d bytes", d.At, len(spec))
			}
		}
	})
}
