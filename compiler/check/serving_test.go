package check_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlc.dev/mlc/compiler"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/stdlib"
)

// servingBase is a sound spec with every kind of service; each case replaces a
// part of it.
const servingBase = `package t

import "mlc.dev/schema"

system: schema.#System & {
	name: "t"
	problems: {
		late: {
			kind: "binary"
			label: {source: "orders", expr: "minutes > 30", at: "ordered_at", window: "2h"}
			baseline: kind: "prior"
			metrics: primary: "roc_auc"
		}
		wait: {
			kind: "regression"
			label: {source: "orders", expr: "minutes", at: "ordered_at", window: "2h"}
			baseline: kind: "prior"
			metrics: primary: "rmse"
		}
		parcel: {
			kind: "multiclass"
			label: {source: "orders", expr: "size", at: "ordered_at"}
			baseline: kind: "prior"
			metrics: primary: "accuracy"
		}
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
				distance:   type: "float"
				known_risk: type: "float"
				guess:      type: "string"
				pieces:     type: "int"
				minutes:    {type: "float", delay: "3h"}
				size:       {type: "string", in: ["s", "m"]}
			}
		}
		shops: {
			kind: "file"
			path: "shops.csv"
			time: {event: "at", created: "loaded"}
			columns: {shop_id: type: "string", at: type: "timestamp", loaded: type: "timestamp", load: type: "float", city: type: "string"}
		}
		open: {
			kind: "file"
			path: "open.csv"
			columns: {distance: type: "int", ordered_at: type: "timestamp", "shop.load": type: "float", "shop.city": type: "string", pieces: type: "int"}
		}
	}
	features: {
		order: {kind: "request", source: "orders", columns: ["distance", "pieces", "ordered_at"]}
		given: {kind: "request", source: "orders", columns: ["known_risk", "guess"]}
		other: {kind: "request", source: "orders", columns: ["size"]}
		shop:  {kind: "snapshot", entity: "shop", source: "shops", columns: ["load", "city"]}
		d: {kind: "derived", exprs: {hour: "hour(order.ordered_at)", busy: "shop.load * order.distance"}}
		slow: {kind: "derived", exprs: {initial: "substr(shop.city, 1, 1)", capital: "slow.initial = 'B'"}}
	}
	_m: {split: {kind: "time", test: "7d"}, trainer: kind: "gbdt"}
	models: {
		late:   _m & {problem: "late", inputs: {"order.distance": {}, "d.*": {}}}
		lean:   _m & {problem: "late", inputs: {"order.pieces": {}}}
		wait:   _m & {problem: "wait", inputs: {"order.distance": {}, "given.*": {}, "shop.load": {}}}
		deep:   _m & {problem: "late", inputs: {"slow.capital": {}}}
		parcel: _m & {problem: "parcel", inputs: {"order.pieces": {}}}
	}
	serving: {
		api: {
			kind: "realtime"
			model: "late@production"
			caller: ["shop.*"]
			sticky: "order.distance"
			threshold: 0.4
			latency: {p99: "20ms"}
			deadline: "100ms"
			load: {expected: "10/m", peak: "1000/s"}
			batching: {max_rows: 32, max_delay: "2ms", queue: 2000}
			fallback: {after: "50ms", answer: {probability: 0.25}, breaker: {over: "5s"}}
			shadow: {model: "late@staging", share: 0.5}
			log: {sample: 0.1, mask: ["order.*"]}
			limits: {body: "64Ki", per_client: "50/s", proxies: ["10.1.2.3/8", "::1"]}
			auth: {bearer: ["env:TOKEN"]}
			tls: {cert: "/etc/tls/tls.crt", key: "/etc/tls/tls.key"}
			cors: ["https://app.example.com"]
			replicas: {min: 2, max: 4}
			providers: ["cuda"]
		}
		ab: {
			kind: "realtime"
			split: [{model: "late@production", weight: 90}, {model: "lean@v3", weight: 9.5}, {model: "late@v7", weight: 0.5, name: "new"}]
			caller: ["shop.load"]
			sticky: "header:X-User"
			log: {kafka: ["k:9092"], topic: "predictions"}
		}
		chain: {
			kind: "realtime"
			steps: [
				{name: "risk", model: "lean@production"},
				{name: "sort", model: "parcel@production"},
				{name: "wait", model: "wait@production", inputs: {"given.known_risk": "risk.probability", "given.guess": "sort.class"}},
			]
			caller: ["shop.*"]
			fallback: {answer: {prediction: 30}}
		}
		parcel: {
			kind: "realtime"
			model: "parcel@production"
			fallback: answer: {class: "s", probabilities: {s: 0.75, m: 0.25}}
		}
		nightly: {
			kind: "batch"
			model: "late@production"
			source: "open"
			schedule: "0 3 * * *"
			output: path: "out/late.parquet"
		}
	}
}
`

func TestServingProofs(t *testing.T) {
	const api = `model: "late@production"
			caller: ["shop.*"]
			sticky`
	cases := []struct {
		name     string
		old, new string
		want     string // codes, sorted
		at       string // the text that the first diagnostic points at
	}{
		{"sound", "", "", "", ""},
		// The schema.
		{"schema: kind", `kind: "batch"`, `kind: "bach"`, "MLC1102", `"bach"`},
		{"schema: two defaults", `body: "64Ki"`, `body: *"64Ki" | string`, "MLC1103", "body"},
		{"schema: no kind", `kind: "batch"`, ``, "MLC1103", "nightly"},
		{"schema: unknown field", `sticky: "order.distance"`, `stick: "order.distance"`, "MLC1101", "stick"},
		{"schema: field of the other kind", `schedule: "0 3 * * *"`, `latency: p99: "5ms"`, "MLC1101", "latency"},
		{"schema: reference without an alias", `model: "parcel@production"
`, `model: "parcel"
`, "MLC1102", `"parcel"`},
		{"schema: alias that is no name", `model: "parcel@production"
`, `model: "parcel@pro-duction"
`, "MLC1102", `"parcel@pro-duction"`},
		{"schema: size", `body: "64Ki"`, `body: "64K"`, "MLC1102", `"64K"`},
		{"schema: rate", `per_client: "50/s"`, `per_client: "50"`, "MLC1102", `"50"`},
		{"schema: duration", `over: "5s"`, `over: "5 s"`, "MLC1102", `"5 s"`},
		{"schema: weight", `weight: 90`, `weight: 900`, "MLC1102", "900"},
		{"schema: threshold", `threshold: 0.4`, `threshold: 1.4`, "MLC1102", "1.4"},
		{"schema: threshold of nothing", `threshold: 0.4`, `threshold: 0`, "MLC1102", "0"},
		{"schema: probability", `probability: 0.25`, `probability: 25`, "MLC1102", "25"},
		{"schema: output that no model has", `probability: 0.25`, `probabilty: 0.25`, "MLC1101", "probabilty"},
		{"schema: provider", `"cuda"`, `"cudda"`, "MLC1102", `"cudda"`},
		{"schema: origin", `"https://app.example.com"`, `"app.example.com"`, "MLC1102", `"app.example.com"`},
		{"schema: sticky", `"header:X-User"`, `"X-User"`, "MLC1102", `"X-User"`},
		{"schema: secret in the spec", `"env:TOKEN"`, `"s3cret"`, "MLC1102", `"s3cret"`},
		{"schema: certificate without its key", `, key: "/etc/tls/tls.key"`, ``, "MLC1103", "tls"},
		{"schema: origins by a pattern", `"https://app.example.com"`, `"https://*.example.com"`, "MLC1102", `"https://*.example.com"`},
		{"schema: any origin", `"https://app.example.com"`, `"*"`, "", ""},
		{"schema: variable that no container can have", `"env:TOKEN"`, `"env:API-TOKEN"`, "MLC1102", `"env:API-TOKEN"`},
		{"schema: variable that begins with a digit", `"env:TOKEN"`, `"env:1TOKEN"`, "MLC1102", `"env:1TOKEN"`},
		{"schema: variable that begins with an underscore", `"env:TOKEN"`, `"env:_TOKEN"`, "", ""},
		{"tls: files beside the spec", `cert: "/etc/tls/tls.crt", key: "/etc/tls/tls.key"`, `cert: "open.csv", key: "shops.csv"`, "", ""},
		{"tls: no certificate", `cert: "/etc/tls/tls.crt"`, `cert: "opne.csv"`, "MLC3101", `"opne.csv"`},
		{"tls: no authorities", `key: "/etc/tls/tls.key"`, `key: "/etc/tls/tls.key", client_ca: "ca.crt"`, "MLC3101", `"ca.crt"`},
		{"schema: output of a batch", `"out/late.parquet"`, `"out/late.csv"`, "MLC1102", `"out/late.csv"`},
		{"schema: several at once", `threshold: 0.4
			latency: {p99: "20ms"}`, `threshold: "high"
			latency: {p9: "20ms"}
			replica: {}`, "MLC1101 MLC1101 MLC1102", `"high"`},
		{"schema: duration of nothing", `deadline: "100ms"`, `deadline: "0s"`, "MLC1102", `"0s"`},
		{"limits: no address", `"::1"`, `"proxy.example"`, "MLC1102", `"proxy.example"`},
		{"limits: no network", `10.1.2.3/8`, `10.1.2.3/33`, "MLC1102", `"10.1.2.3/33"`},
		{"schema: rate of nothing", `per_client: "50/s"`, `per_client: "0/s"`, "MLC1102", `"0/s"`},
		{"schema: size of nothing", `body: "64Ki"`, `body: "0"`, "MLC1102", `"0"`},
		// References.
		{"references: model", api, strings.Replace(api, "late@", "latte@", 1), "MLC2102", "latte"},
		{"references: model of a branch", `"lean@v3"`, `"leen@v3"`, "MLC2102", "leen"},
		{"references: model of the shadow", `"late@staging"`, `"latex@staging"`, "MLC2102", "latex"},
		{"references: model of a batch", "kind: \"batch\"\n\t\t\tmodel: \"late@", "kind: \"batch\"\n\t\t\tmodel: \"lte@", "MLC2102", "lte"},
		{"references: source of a batch", `source: "open"`, `source: "opne"`, "MLC2102", `"opne"`},
		{"references: feature of the caller", `["shop.load"]`, `["shop.lode"]`, "MLC2102 MLC2701", ""},
		{"references: group of the caller", `caller: ["shop.*"]
			sticky`, `caller: ["shop.*", "shops.*"]
			sticky`, "MLC2102", `"shops.*"`},
		{"references: sticky", `sticky: "order.distance"`, `sticky: "order.distanse"`, "MLC2102", `"order.distanse"`},
		{"schema: empty split", `split: [{model: "late@production", weight: 90}, {model: "lean@v3", weight: 9.5}, {model: "late@v7", weight: 0.5, name: "new"}]
			caller: ["shop.load"]`, `split: []`, "MLC2704", "ab"},
		{"references: mask", `mask: ["order.*"]`, `mask: ["order.distnce"]`, "MLC2102", `"order.distnce"`},
		{"a model in error is told once", `late:   _m & {problem: "late", inputs: {"order.distance": {}, "d.*": {}}}`, `late:   _m & {problem: "late", inputs: {"order.distance": {}, "dd.*": {}}}`, "MLC2102", `"dd.*"`},
		{"a model that the schema refuses is told once", `lean:   _m & {problem: "late", inputs: {"order.pieces": {}}}`, `lean:   _m & {problem: 3, inputs: {"order.pieces": {}}}`, "MLC1102", "3"},
		{"a model without its problem is told once", `lean:   _m & {problem: "late"`, `lean:   _m & {problem: "lte"`, "MLC2102", `"lte"`},
		// Served as trained.
		{"served: snapshot that nobody sends", api, strings.Replace(api, `caller: ["shop.*"]`, "", 1), "MLC2701", `"load"`},
		{"served: in a branch", `caller: ["shop.load"]
			sticky`, "sticky", "MLC2701", `"load"`},
		{"served: in a step", `caller: ["shop.*"]
			fallback: {answer: {prediction`, `fallback: {answer: {prediction`, "MLC2701", `"load"`},
		{"served: in the shadow only", `"parcel@production"
			fallback`, `"parcel@production"
			shadow: model: "parcel@staging"
			fallback`, "", ""},
		{"served: one of two", `"d.*": {}`, `"d.*": {}, "shop.city": {}`, "MLC2701", `"city"`},
		{"served: computed offline", `"order.pieces": {}}}
		wait`, `"order.pieces": {}, "slow.initial": {}}}
		wait`, "MLC2701 MLC2702 MLC2702", `"city"`},
		{"served: from what is computed offline", `caller: ["shop.load"]`, `caller: ["shop.*"], shadow: model: "deep@v3"`, "MLC2702", "substr(shop.city, 1, 1)"},
		{"served: offline and not served", `wait:   _m`, `deepest: _m & {problem: "late", inputs: {"slow.*": {}}}
		wait:   _m`, "", ""},
		{"served: offline in a batch", `model: "late@production"
			source: "open"`, `model: "deep@production"
			source: "open"`, "", ""},
		// The caller.
		{"caller: request feature", `["shop.load"]`, `["shop.load", "order.pieces"]`, "MLC2703", `"order.pieces"`},
		{"caller: group of request features", `["shop.load"]`, `["shop.load", "order.*"]`, "MLC2703", `"order.*"`},
		{"caller: derived", `["shop.load"]`, `["shop.load", "d.busy"]`, "MLC2703", `"d.busy"`},
		{"caller: snapshot that no model takes", `["shop.load"]`, `["shop.load", "shop.city"]`, "MLC2703", `"shop.city"`},
		{"caller: model without snapshots", `"parcel@production"
			fallback`, `"parcel@production"
			caller: ["shop.*"]
			fallback`, "MLC2703", `"shop.*"`},
		{"sticky: not in the request", `sticky: "order.distance"`, `sticky: "other.size"`, "MLC2704", `"other.size"`},
		{"sticky: derived", `sticky: "order.distance"`, `sticky: "d.hour"`, "MLC2704", `"d.hour"`},
		{"mask: not in the request", `mask: ["order.*"]`, `mask: ["other.size"]`, "MLC2109", `"other.size"`},
		{"mask: sent by the caller", `mask: ["order.*"]`, `mask: ["shop.load", "order.distance"]`, "", ""},
		// Traffic.
		{"traffic: weights", "weight: 9.5", "weight: 9", "MLC2704", "split"},
		{"traffic: version twice", `"late@v7"`, `"late@production"`, "MLC2704", `"late@production"`},
		{"traffic: name twice", `name: "new"`, `name: "v3"`, "MLC2704", `"v3"`},
		{"traffic: alias twice", `"lean@v3"`, `"lean@production"`, "MLC2704", `"lean@production"`},
		{"traffic: alias twice, renamed", `{model: "lean@v3", weight: 9.5}`, `{model: "lean@production", weight: 9.5, name: "lean"}`, "", ""},
		{"traffic: own shadow", `"late@staging"`, `"late@production"`, "MLC2704", `"late@production"`},
		{"traffic: shadow of another problem", `"late@staging"`, `"parcel@staging"`, "MLC2704", `"parcel@staging"`},
		{"traffic: branch of another problem", `"lean@v3"`, `"parcel@v3"`, "MLC2704", `"parcel@v3"`},
		{"traffic: model and split", `caller: ["shop.load"]`, `caller: ["shop.load"], model: "late@v1"`, "MLC2704", "split"},
		{"traffic: no model", `model: "parcel@production"
`, "\n", "MLC2704", "parcel"},
		{"traffic: weights that are in error already", "weight: 9.5", `weight: "9.5"`, "MLC1102", `"9.5"`},
		// Steps.
		{"steps: unknown step", `"risk.probability"`, `"risc.probability"`, "MLC2102", "risc"},
		{"steps: unknown output", `"risk.probability"`, `"risk.probabilty"`, "MLC2102", "probabilty"},
		{"steps: output of another task", `"risk.probability"`, `"risk.prediction"`, "MLC2102", "prediction"},
		{"steps: type", `"given.guess": "sort.class"`, `"given.guess": "risk.probability"`, "MLC2104", `"risk.probability"`},
		{"steps: unknown feature", `"given.guess"`, `"given.gues"`, "MLC2102", `"given.gues"`},
		{"steps: feature of another model", `"given.guess": "sort.class"`, `"given.guess": "sort.class", "other.size": "sort.class"`, "MLC2705", `"other.size"`},
		{"steps: later step", `{name: "risk", model: "lean@production"}`, `{name: "risk", model: "lean@production", inputs: "order.pieces": "wait.prediction"}`, "MLC2705", "wait"},
		{"steps: itself", `{name: "risk", model: "lean@production"}`, `{name: "risk", model: "lean@production", inputs: "order.pieces": "risk.probability"}`, "MLC2705", "risk"},
		{"steps: name twice", `{name: "sort"`, `{name: "risk"`, "MLC2102 MLC2705", ""},
		{"steps: that nobody reads", `, "given.guess": "sort.class"`, ``, "MLC2705", `"sort"`},
		{"steps: own shadow", `fallback: {answer: {prediction: 30}}`, `shadow: model: "wait@production"`, "MLC2704", `"wait@production"`},
		{"steps: shadow of an earlier one", `fallback: {answer: {prediction: 30}}`, `shadow: model: "lean@production"`, "MLC2704", `"lean@production"`},
		{"steps: shadow of the last", `fallback: {answer: {prediction: 30}}`, `shadow: model: "wait@staging"`, "", ""},
		{"steps: fed and asked of the caller", `model: "wait@production", inputs: {`, `model: "wait@production", inputs: {"shop.load": "risk.probability", `, "MLC2703", `"shop.*"`},
		// The fallback.
		{"fallback: binary", `probability: 0.25`, `prediction: 0.25`, "MLC2706", "prediction"},
		{"fallback: regression", `prediction: 30`, `probability: 0.3`, "MLC2706", "probability"},
		{"fallback: multiclass", `class: "s", probabilities`, `probability: 0.5, probabilities`, "MLC2706", "probability"},
		{"fallback: nothing", `{probability: 0.25}`, `{}`, "MLC2706", "answer"},
		{"fallback: class", `class: "s"`, `class: "l"`, "MLC2706", `"l"`},
		{"fallback: class of a probability", `m: 0.25`, `xl: 0.25`, "MLC2706", "xl"},
		{"fallback: sum", `m: 0.25`, `m: 0.5`, "MLC2706", "probabilities"},
		{"fallback: class alone", `{class: "s", probabilities: {s: 0.75, m: 0.25}}`, `class: "m"`, "", ""},
		{"fallback: class against its probabilities", `class: "s", probabilities`, `class: "m", probabilities`, "MLC2706", `"m"`},
		{"fallback: class as likely as another", `class: "s", probabilities: {s: 0.75, m: 0.25}`, `class: "m", probabilities: {s: 0.5, m: 0.5}`, "", ""},
		{"fallback: class without a probability", `probabilities: {s: 0.75, m: 0.25}`, `probabilities: {m: 1}`, "MLC2706", `"s"`},
		{"fallback: classes that only data tells", `{type: "string", in: ["s", "m"]}`, `type: "string"`, "", ""},
		{"threshold: of a regression", `fallback: {answer: {prediction: 30}}`, `threshold: 0.5`, "MLC2109", "threshold"},
		// Budgets.
		{"budgets: fallback after the deadline", `after: "50ms"`, `after: "100ms"`, "MLC2707", `"100ms"`},
		{"budgets: p99 above the deadline", `p99: "20ms"`, `p99: "101ms"`, "MLC2707", `"101ms"`},
		{"budgets: p99 at the deadline", `p99: "20ms"`, `p99: "100ms"`, "", ""},
		{"budgets: delay at p99", `max_delay: "2ms"`, `max_delay: "20ms"`, "MLC2707", `"20ms"`},
		{"budgets: delay at the deadline", `latency: {p99: "20ms"}
			deadline: "100ms"`, `deadline: "2ms"`, "MLC2707 MLC2707", `"2ms"`},
		{"budgets: peak", `peak: "1000/s"`, `peak: "1/h"`, "MLC2707", `"1/h"`},
		{"budgets: units of rates", `expected: "10/m", peak: "1000/s"`, `expected: "60/m", peak: "1/s"`, "", ""},
		{"budgets: replicas", `max: 4`, `max: 1`, "MLC2707", "1"},
		{"budgets: queue below a batch", `max_rows: 32, max_delay: "2ms", queue: 2000`, `max_rows: 4000, max_delay: "2ms", queue: 2000`, "MLC2707", "2000"},
		{"budgets: queue below a request", `queue: 2000`, `queue: 999`, "MLC2707", "999"},
		{"budgets: bodies beyond the memory", `body: "64Ki"`, `body: "64Mi"`, "MLC2707", "limits"},
		{"budgets: and enough of it", `limits: {body: "64Ki"`, `resources: memory: "16Gi", limits: {body: "64Mi"`, "", ""},
		// What else goes together.
		{"auth without a secret", `auth: {bearer: ["env:TOKEN"]}`, `auth: {}`, "MLC2109", "auth"},
		{"log to two places", `log: {kafka`, `log: {dir: "log", kafka`, "MLC2109", "dir"},
		{"log to kafka without a topic", `, topic: "predictions"`, ``, "MLC2109", "kafka"},
		{"log to a topic without kafka", `log: {kafka: ["k:9092"], `, `log: {`, "MLC2109", "topic"},
		{"kafka: secured", `topic: "predictions"`, `topic: "predictions", tls: {ca: "/etc/kafka/ca.crt", cert: "open.csv", key: "shops.csv"}, sasl: {mechanism: "scram-sha-512", username: "mlc", password: "file:/run/secrets/kafka"}`, "", ""},
		{"kafka: the system's authorities", `topic: "predictions"`, `topic: "predictions", tls: {}, sasl: {mechanism: "plain", username: "mlc", password: "env:KAFKA"}`, "", ""},
		{"kafka: password in the clear", `topic: "predictions"`, `topic: "predictions", sasl: {mechanism: "plain", username: "mlc", password: "env:KAFKA"}`, "MLC2109", `"plain"`},
		{"kafka: challenge in the clear", `topic: "predictions"`, `topic: "predictions", sasl: {mechanism: "scram-sha-256", username: "mlc", password: "env:KAFKA"}`, "", ""},
		{"kafka: password in the spec", `topic: "predictions"`, `topic: "predictions", tls: {}, sasl: {mechanism: "plain", username: "mlc", password: "s3cret"}`, "MLC1102", `"s3cret"`},
		{"kafka: mechanism", `topic: "predictions"`, `topic: "predictions", sasl: {mechanism: "gssapi", username: "mlc", password: "env:KAFKA"}`, "MLC1102", `"gssapi"`},
		{"kafka: no password", `topic: "predictions"`, `topic: "predictions", tls: {}, sasl: {mechanism: "plain", username: "mlc"}`, "MLC1103", "sasl"},
		{"kafka: certificate without its key", `topic: "predictions"`, `topic: "predictions", tls: cert: "/tls.crt"`, "MLC2109", "cert"},
		{"kafka: key without its certificate", `topic: "predictions"`, `topic: "predictions", tls: key: "/tls.key"`, "MLC2109", "key"},
		{"kafka: no file", `topic: "predictions"`, `topic: "predictions", tls: ca: "ca.crt"`, "MLC3101", `"ca.crt"`},
		{"kafka: tls of a folder", `log: {sample: 0.1`, `log: {tls: {}, sample: 0.1`, "MLC2109", "tls"},
		{"kafka: sasl of a folder", `log: {sample: 0.1`, `log: {sasl: {mechanism: "plain", username: "mlc", password: "env:KAFKA"}, tls: {}, sample: 0.1`, "MLC2109", "tls"},
		// Batches.
		{"batch: column gone", `columns: {distance: type: "int", `, `columns: {`, "MLC2708", `"open"`},
		{"batch: column by the feature's name", `columns: {distance: type: "int", `, `columns: {"order.distance": type: "float", `, "", ""},
		{"batch: type", `columns: {distance: type: "int", `, `columns: {distance: type: "string", `, "MLC2708", `"string"`},
		{"batch: snapshot by the column's name", `"shop.load": type: "float", "shop.city"`, `load: type: "float", "shop.city"`, "MLC2708", `"open"`},
		{"batch: the label's source without snapshots", `source: "open"`, `source: "orders"`, "MLC2708", `"orders"`},
		{"batch: the label's source", `model: "late@production"
			source: "open"`, `model: "lean@production"
			source: "orders"`, "", ""},
		{"batch: fields of cron", `"0 3 * * *"`, `"0 3 * *"`, "MLC2709", `"0 3 * *"`},
		{"batch: range of cron", `"0 3 * * *"`, `"0 25 * * *"`, "MLC2709", `"0 25 * * *"`},
		{"batch: words of cron", `"0 3 * * *"`, `"@daily"`, "MLC2709", `"@daily"`},
		{"batch: zones of cron", `"0 3 * * *"`, `"TZ=Asia/Tokyo 0 3 * *"`, "MLC2709", `"TZ=Asia/Tokyo 0 3 * *"`},
		{"batch: never", `"0 3 * * *"`, `"0 3 30 2 *"`, "MLC2709", `"0 3 30 2 *"`},
		{"batch: leap days", `"0 3 * * *"`, `"0 3 29 2 *"`, "", ""},
		{"batch: by hand", `schedule: "0 3 * * *"`, ``, "", ""},
		{"batch: over its source", `path: "out/late.parquet"`, `path: "in/late.parquet"`, "", ""},
		{"batch: into a pattern", `path: "open.csv"`, `path: "out/*.parquet"`, "MLC2109", ""},
		{"batch: keeps", `source: "open"`, `source: "open", keep: ["distance", "shop.load"]`, "", ""},
		{"batch: keeps what is not there", `source: "open"`, `source: "open", keep: ["distanc"]`, "MLC2102", `"distanc"`},
		{"batch: keeps a column twice", `source: "open"`, `source: "open", keep: ["distance", "distance"]`, "MLC2109", `"distance"`},
		{"batch: same output", `nightly: {`, `again: {kind: "batch", model: "lean@v1", source: "open", output: path: "./out/late.parquet"}
		nightly: {`, "MLC2109", `"out/late.parquet"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.old != "" && strings.Count(servingBase, c.old) != 1 {
				t.Fatalf("%q occurs %d times", c.old, strings.Count(servingBase, c.old))
			}
			spec := strings.Replace(servingBase, c.old, c.new, 1)
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

// tasksBase serves a model of every task that answers with something of its own.
const tasksBase = `package t

import "mlc.dev/schema"

system: schema.#System & {
	name: "t"
	sources: rows: {kind: "file", path: "orders.csv", columns: {x: type: "float", n: type: "int", odd: type: "bool"}}
	features: f: {kind: "request", source: "rows", columns: ["x"]}
	_p: {baseline: kind: "prior"}
	problems: {
		tags:  _p & {kind: "multilabel", label: {source: "rows", exprs: {cat: "n > 1", dog: "n > 2"}}, metrics: primary: "log_loss"}
		range: _p & {kind: "quantile", quantiles: [0.1, 0.5, 0.9], label: {source: "rows", expr: "n"}, metrics: primary: "pinball"}
		often: _p & {kind: "count", label: {source: "rows", expr: "n"}, metrics: primary: "rmse"}
		odd:   _p & {kind: "anomaly", label: {source: "rows", expr: "odd"}, metrics: primary: "roc_auc", decision: {kind: "threshold", value: 0.9}}
	}
	_m: {inputs: "f.x": {}, split: {kind: "random", test: 0.3}, trainer: kind: "prior"}
	models: {
		tags:  _m & {problem: "tags"}
		range: _m & {problem: "range"}
		often: _m & {problem: "often"}
		odd:   _m & {problem: "odd"}
	}
	serving: {
		tags:  {kind: "realtime", model: "tags@production", fallback: answer: probabilities: {cat: 0.9, dog: 0.8}}
		range: {kind: "realtime", model: "range@production", fallback: answer: quantiles: {"0.9": 7, "0.1": 2, "0.5": 2}}
		often: {kind: "realtime", model: "often@production", fallback: answer: prediction: 3}
		odd:   {kind: "realtime", model: "odd@production", threshold: 0.8, fallback: answer: score: 0.25}
		chain: {kind: "realtime", steps: [{name: "how", model: "odd@production"}, {name: "then", model: "often@production", inputs: "f.x": "how.score"}]}
	}
}
`

func TestServingTasks(t *testing.T) {
	for _, c := range []struct{ name, old, new, want, at string }{
		{"sound", "", "", "", ""},
		{"multilabel: label left out", `{cat: 0.9, dog: 0.8}`, `{cat: 0.9}`, "", ""},
		{"multilabel: no label", `dog: 0.8`, `dig: 0.8`, "MLC2706", "dig"},
		{"multilabel: class", `probabilities: {cat: 0.9, dog: 0.8}`, `class: "cat"`, "MLC2706", "class"},
		{"multilabel: labels in error", `"n > 1"`, `"m > 1"`, "MLC2101", "m"},
		{"quantile: no quantile", `"0.5": 2`, `"0.50": 2`, "MLC2706", `"0.50"`},
		{"quantile: left out", `, "0.5": 2`, ``, "MLC2706", "quantiles"},
		{"quantile: none", `{"0.9": 7, "0.1": 2, "0.5": 2}`, `{}`, "MLC2706", "quantiles"},
		{"quantile: falling", `"0.9": 7`, `"0.9": 1`, "MLC2706", `"0.9"`},
		{"quantile: no number", `"0.9": 7`, `"0.9": "7"`, "MLC1102", `"7"`},
		{"count: below 0", `prediction: 3`, `prediction: -3`, "MLC2706", "-3"},
		{"anomaly: probability", `answer: score`, `answer: probability`, "MLC2706", "probability"},
		{"anomaly: above 1", `score: 0.25`, `score: 1.25`, "MLC1102", "1.25"},
		{"anomaly: threshold of its own", `, threshold: 0.8`, ``, "", ""},
		{"threshold of a multilabel", `"tags@production"`, `"tags@production", threshold: 0.3`, "MLC2109", "threshold"},
		{"steps: of a count", `"odd@production"}, {name: "then", model: "often@production", inputs: "f.x": "how.score"}`, `"often@production"}, {name: "then", model: "odd@production", inputs: "f.x": "how.prediction"}`, "", ""},
		{"steps: of a quantile", `"odd@production"}, {name: "then", model: "often@production", inputs: "f.x": "how.score"}`, `"range@production"}, {name: "then", model: "often@production", inputs: "f.x": "how.quantiles"}`, "MLC2705", `"how.quantiles"`},
		{"steps: no output", `"how.score"`, `"how.probability"`, "MLC2102", "probability"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.old != "" && strings.Count(tasksBase, c.old) != 1 {
				t.Fatalf("%q occurs %d times", c.old, strings.Count(tasksBase, c.old))
			}
			spec := strings.Replace(tasksBase, c.old, c.new, 1)
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

var prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// TestServices: what a spec says of its services comes out whole, with defaults.
func TestServices(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"t.cue": servingBase, "orders.csv": "x\n", "shops.csv": "x\n", "open.csv": "x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
	if list.HasErrors() {
		t.Fatal(list.Err())
	}
	ms := func(n int) service.Duration { return service.Duration(time.Duration(n) * time.Millisecond) }
	ref := func(s string) service.Ref {
		model, alias, _ := strings.Cut(s, "@")
		return service.Ref{Model: model, Alias: alias}
	}
	limits := service.Limits{Body: 1 << 20, Rows: 1000, Concurrent: 256, Read: ms(10000)}
	plain := func(s service.Service) service.Service {
		s.Format, s.System, s.Deadline, s.Limits, s.CPU, s.Memory = service.Format, "t", ms(1000), limits, 1, 512<<20
		s.Batching, s.Replicas = service.Batching{MaxRows: 64, Queue: 4096}, service.Replicas{Min: 1, Max: 1}
		return s
	}
	want := []service.Service{
		{
			Format: service.Format, System: "t", Name: "api", Split: []service.Branch{{Name: "production", Model: ref("late@production"), Weight: 100}},
			Sticky: "order.distance", Shadow: &service.Shadow{Model: ref("late@staging"), Share: 0.5}, Caller: []string{"shop.load"}, Threshold: 0.4,
			P99: ms(20), Deadline: ms(100), Expected: 10. / 60, Peak: 1000, Batching: service.Batching{MaxRows: 32, MaxDelay: ms(2), Queue: 2000},
			Fallback: &service.Fallback{After: ms(50), Answer: map[string]any{"probability": 0.25}, Breaker: &service.Breaker{Errors: 0.5, Over: ms(5000), Least: 20}},
			Log:      &service.Log{Sample: 0.1, Dir: ".mlc/predictions/api", Mask: []string{"order.distance", "order.ordered_at"}, Rows: 100000, Every: ms(60000), Buffer: 8192},
			Limits:   service.Limits{Body: 64 << 10, Rows: 1000, Concurrent: 256, PerClient: 50, PerClientBurst: 50, Read: ms(10000), Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
			Auth:     &service.Auth{Bearer: []string{"env:TOKEN"}}, TLS: &service.TLS{Cert: "/etc/tls/tls.crt", Key: "/etc/tls/tls.key"}, CORS: []string{"https://app.example.com"},
			Replicas: service.Replicas{Min: 2, Max: 4}, CPU: 1, Memory: 512 << 20, Providers: []string{"cuda"},
		},
		plain(service.Service{
			Name:   "ab",
			Split:  []service.Branch{{Name: "production", Model: ref("late@production"), Weight: 90}, {Name: "v3", Model: ref("lean@v3"), Weight: 9.5}, {Name: "new", Model: ref("late@v7"), Weight: 0.5}},
			Sticky: "header:X-User", Caller: []string{"shop.load"},
			Log: &service.Log{Sample: 1, Kafka: []string{"k:9092"}, Topic: "predictions", Rows: 100000, Every: ms(60000), Buffer: 8192},
		}),
		plain(service.Service{
			Name: "chain", Caller: []string{"shop.load"}, Fallback: &service.Fallback{Answer: map[string]any{"prediction": 30.}},
			Steps: []service.Step{{Name: "risk", Model: ref("lean@production")}, {Name: "sort", Model: ref("parcel@production")},
				{Name: "wait", Model: ref("wait@production"), Inputs: map[string]string{"given.known_risk": "risk.probability", "given.guess": "sort.class"}}},
		}),
		plain(service.Service{
			Name: "parcel", Split: []service.Branch{{Name: "production", Model: ref("parcel@production"), Weight: 100}},
			Fallback: &service.Fallback{Answer: map[string]any{"class": "s", "probabilities": map[string]any{"s": 0.75, "m": 0.25}}},
		}),
	}
	var got []service.Service
	for _, s := range r.Services {
		if s.Path != "serving."+s.Name || !r.At(s.Path).Known() {
			t.Errorf("service %s has path %q", s.Name, s.Path)
		}
		var back service.Service
		b, err := json.Marshal(s.Service)
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.Service, back, prefixes); diff != "" {
			t.Errorf("service %s is not what its JSON says:\n%s", s.Name, diff)
		}
		got = append(got, s.Service)
	}
	if diff := cmp.Diff(want, got, prefixes); diff != "" {
		t.Error(diff)
	}
	if len(r.Batches) != 1 {
		t.Fatalf("%d batches", len(r.Batches))
	}
	b := service.Batch{Format: service.Format, System: "t", Name: "nightly", Model: ref("late@production"), Source: "open", Output: "out/late.parquet", Schedule: "0 3 * * *", Chunk: 10000}
	if diff := cmp.Diff(b, r.Batches[0].Batch); diff != "" || r.Batches[0].Path != "serving.nightly" || r.Batches[0].Rows.Name != "open" {
		t.Errorf("%s at %s of %s: %s", b.Name, r.Batches[0].Path, r.Batches[0].Rows.Name, diff)
	}
	// A batch's rows are read when it runs, not by apply.
	var steps []string
	for _, s := range r.Plan.Steps {
		steps = append(steps, s.ID)
	}
	if slices.Contains(steps, "source.snapshot open") || !slices.Contains(steps, "source.snapshot shops") {
		t.Errorf("the plan reads %v", steps)
	}
}

// TestServingIsNoPartOfModels: no line of a service changes the key of a step.
func TestServingIsNoPartOfModels(t *testing.T) {
	plan := func(spec string) string {
		dir := t.TempDir()
		for name, text := range map[string]string{"t.cue": spec, "orders.csv": "x\n", "shops.csv": "x\n", "open.csv": "x\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r, list := compiler.Compile(context.Background(), compiler.Options{Dir: dir}, stdlib.Kinds())
		if list.HasErrors() {
			t.Fatal(list.Err())
		}
		var b strings.Builder
		for _, s := range r.Plan.Steps {
			b.WriteString(s.ID + " " + s.Version + " " + string(s.Args) + "\n")
		}
		return b.String()
	}
	i := strings.Index(servingBase, "\tserving: {")
	if i < 0 {
		t.Fatal("no serving")
	}
	without := servingBase[:i] + "}\n"
	without = strings.Replace(without, `		open: {
			kind: "file"
			path: "open.csv"
			columns: {distance: type: "int", ordered_at: type: "timestamp", "shop.load": type: "float", "shop.city": type: "string", pieces: type: "int"}
		}
`, "", 1)
	if diff := cmp.Diff(plan(without), plan(servingBase)); diff != "" {
		t.Error(diff)
	}
}
