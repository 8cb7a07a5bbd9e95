package trees

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlc.dev/mlc/compiler/kind"
)

// specials are values at which comparisons go wrong.
var specials = []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e-35, -1e-35, 1.0000001e-35, 1e-36, 1e-45, -1e-45, 0.1, -0.1,
	-0.5, -1, -0.99999994, -1.0000001, 0.5, 1, 1.9999999, 2, 3.7, 31, 32, 33.5, 63, 64, 65, 1 << 24, 2147483520, 2147483648, -2147483648, 1e20, -1e20, math.MaxFloat32, -math.MaxFloat32}

var values = rapid.OneOf(rapid.SampledFrom(specials), rapid.Float32Range(-5, 5))

// models draws a model of any shape that Read could have made.
func models(t *rapid.T) *Model {
	m := &Model{Cols: rapid.IntRange(1, 3).Draw(t, "cols"), scale: rapid.SampledFrom([]float64{1, 0.7}).Draw(t, "scale"),
		link: link(rapid.IntRange(0, int(softplus)).Draw(t, "link")), strict: rapid.Bool().Draw(t, "strict")}
	m.base = rapid.SliceOfN(rapid.Float64Range(-1, 1), 1, 3).Draw(t, "base")
	for range rapid.IntRange(0, 3).Draw(t, "sets") {
		s := rapid.SliceOfN(rapid.Uint32(), 0, 3).Draw(t, "set")
		m.sets = append(m.sets, categories(s))
	}
	for range rapid.IntRange(0, 4).Draw(t, "trees") {
		tr := tree{group: rapid.IntRange(0, len(m.base)-1).Draw(t, "group"), leaves: []float64{0.3}}
		for range rapid.IntRange(0, 6).Draw(t, "splits") {
			tr.grow(m, t)
		}
		m.trees = append(m.trees, tr)
	}
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	return m
}

// grow puts a split in the place of a leaf.
func (tr *tree) grow(m *Model, t *rapid.T) {
	at := ^int32(rapid.IntRange(0, len(tr.leaves)-1).Draw(t, "leaf"))
	n := node{feature: int32(rapid.IntRange(0, m.Cols-1).Draw(t, "feature")), set: -1, missing: missingNaN, defaultLeft: rapid.Bool().Draw(t, "default")}
	if !m.strict {
		n.missing = missing(rapid.IntRange(0, int(missingNaN)).Draw(t, "missing"))
	}
	if len(m.sets) > 0 && rapid.Bool().Draw(t, "categorical") {
		n.set, n.missing = int32(rapid.IntRange(0, len(m.sets)-1).Draw(t, "set")), missingNaN
	} else {
		v := values.Filter(func(v float32) bool { return v == v && !(m.strict && math.IsInf(float64(v), 0)) }).Draw(t, "threshold")
		n.threshold = float64(v)
		if !m.strict { // LightGBM's need not be floats
			n.threshold = rapid.SampledFrom([]float64{n.threshold, math.Nextafter(n.threshold, -10), math.Nextafter(n.threshold, 10)}).Draw(t, "double")
		}
	}
	n.left, n.right = at, ^int32(len(tr.leaves))
	tr.leaves = append(tr.leaves, rapid.Float64Range(-1, 1).Draw(t, "value"))
	for i := range tr.nodes {
		p := &tr.nodes[i]
		for _, c := range []*int32{&p.left, &p.right} {
			if *c == at {
				*c = int32(len(tr.nodes))
			}
		}
	}
	tr.nodes = append(tr.nodes, n)
}

// TestONNX: whatever the trees and the values, ONNX goes where Go goes.
func TestONNX(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := models(t)
		x := kind.Matrix{Rows: 16, Cols: m.Cols}
		x.Data = rapid.SliceOfN(values, x.Rows*x.Cols, x.Rows*x.Cols).Draw(t, "x")
		near(t, "ONNX and Go", infer(t, m, x), m.Predict(x))
	})
}

// TestDeep: the deepest tree that is read runs.
func TestDeep(t *testing.T) {
	m := &Model{Cols: 1, base: []float64{0}, trees: make([]tree, 1)}
	tr := &m.trees[0]
	for i := range int32(maxDepth) {
		tr.nodes = append(tr.nodes, node{set: -1, threshold: float64(-i), left: i + 1, right: ^i})
		tr.leaves = append(tr.leaves, float64(i))
	}
	tr.nodes[maxDepth-1].left = ^int32(maxDepth)
	tr.leaves = append(tr.leaves, -1)
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	x := kind.Matrix{Rows: 3, Cols: 1, Data: []float32{1, -99.5, -1e9}}
	near(t, "ONNX and the tree", infer(t, m, x), []float32{0, 100, -1})
	tr.nodes[maxDepth-1].left = maxDepth
	tr.nodes = append(tr.nodes, node{set: -1, left: ^int32(maxDepth), right: ^int32(maxDepth + 1)})
	tr.leaves = append(tr.leaves, 0)
	if err := m.check(); err == nil {
		t.Error("a deeper one is read")
	}
}

const text2 = `tree
version=v3
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=age city
tree_sizes=1

Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
threshold=2.5 0
decision_type=2 9
left_child=-1 -2
right_child=1 -3
leaf_value=0.1 -0.2 0.3
cat_boundaries=0 2
cat_threshold=2 1
shrinkage=1

end of trees
`

const json2 = `{"name":"tree","version":"v4","num_tree_per_iteration":1,"max_feature_idx":1,"objective":"binary sigmoid:1","feature_names":["age","city"],"tree_info":[
{"tree_index":0,"num_leaves":3,"num_cat":1,"shrinkage":1,"tree_structure":{"split_feature":0,"threshold":2.5,"decision_type":"<=","default_left":true,"missing_type":"None",
"left_child":{"leaf_value":0.1},"right_child":{"split_feature":1,"threshold":"1||32","decision_type":"==","default_left":false,"missing_type":"NaN","left_child":{"leaf_value":-0.2},"right_child":{"leaf_value":0.3}}}}]}`

const xgjson = `{"version":[3,2,0],"learner":{"feature_names":["age","city"],"gradient_booster":{"name":"dart","weight_drop":[0.5],"gbtree":{"name":"gbtree","model":{"tree_info":[0],"trees":[
{"left_children":[1,-1,3,-1,-1],"right_children":[2,-1,4,-1,-1],"split_indices":[0,0,1,0,0],"split_conditions":[2.5,0.2,0,0.6,-0.4],"default_left":[1,0,0,0,0],"split_type":[0,0,1,0,0],
"categories":[1,32],"categories_nodes":[2],"categories_segments":[0],"categories_sizes":[2],"tree_param":{"size_leaf_vector":"1"}}]}}},
"learner_model_param":{"base_score":"[5E-1]","num_class":"0","num_feature":"2","num_target":"1"},"objective":{"name":"binary:logistic"}}}`

// xgbinary writes XGBoost's binary form: a stump of feature 0 below 2.5, missing left,
// or weights 2 and -1 with bias 0.5.
func xgbinary(booster string) []byte {
	var b bytes.Buffer
	put := func(vs ...any) {
		for _, v := range vs {
			if s, ok := v.(string); ok {
				binary.Write(&b, binary.LittleEndian, uint64(len(s)))
				b.WriteString(s)
				continue
			}
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	put(float32(0), uint32(2), make([]byte, learnerParam-8), "binary:logistic", booster)
	if booster == "gblinear" {
		put(make([]byte, linearParam), uint64(3), []float32{2, -1, 0.5})
		return b.Bytes()
	}
	put(int32(1), make([]byte, boosterParam-4), int32(1), int32(3), make([]byte, treeParam-8))
	put([]int32{-1, 1, 2}, uint32(1<<31), float32(2.5), []int32{0, -1, -1}, uint32(0), float32(0.2), []int32{0, -1, -1}, uint32(0), float32(-0.4), make([]byte, 3*statSize), int32(0))
	if booster == "dart" {
		put(uint64(1), float32(0.5))
	}
	return b.Bytes()
}

// TestRead reads small models of each form.
func TestRead(t *testing.T) {
	nan := float32(math.NaN())
	lg := []float64{0.1, 0.1, 0.1, -0.2, 0.3, -0.2, 0.3}
	for _, c := range []struct {
		name   string
		model  []byte
		scores []float64
		names  bool
	}{
		{"text", []byte(text2), lg, true},
		{"text of Windows", []byte(strings.ReplaceAll(text2, "\n", "\r\n")), lg, true},
		{"json", []byte(json2), lg, true},
		{"xgboost json", []byte(xgjson), []float64{0.1, 0.1, 0.1, -0.2, 0.3, -0.2, -0.2}, true},
		{"gbtree", xgbinary("gbtree"), []float64{0.2, 0.2, 0.2, -0.4, -0.4, -0.4, -0.4}, false},
		{"dart", xgbinary("dart"), []float64{0.1, 0.1, 0.1, -0.2, -0.2, -0.2, -0.2}, false},
		{"gblinear", xgbinary("gblinear"), []float64{0.5, 5.5 - 1, 2.5 - 1, 6.5 - 1, 6.5 - 2, 6.5 - 32, 6.5}, false},
		{"magic", append([]byte(magic), xgbinary("gbtree")...), []float64{0.2, 0.2, 0.2, -0.4, -0.4, -0.4, -0.4}, false},
	} {
		m, err := Read(c.model)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := make([]float32, len(c.scores))
		for i, s := range c.scores {
			want[i] = float32(sigmoid(s))
		}
		x := kind.Matrix{Rows: 7, Cols: 2, Data: []float32{nan, nan, 2.4999, 1, 1, 1, 3, 1, 3, 2, 3, 32, 3, nan}}
		near(t, c.name, m.Predict(x), want)
		near(t, c.name, infer(t, m, x), want)
		if diff := cmp.Diff(kind.Task{Kind: kind.Binary, Classes: []string{"false", "true"}}, m.Task); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if c.names != (m.Features != nil) || c.names && strings.Join(m.Features, " ") != "age city" {
			t.Errorf("%s: features %v", c.name, m.Features)
		}
	}
}

// TestMalformed: an error says where.
func TestMalformed(t *testing.T) {
	replace := func(s, old, new string) []byte {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q", old)
		}
		return []byte(strings.Replace(s, old, new, 1))
	}
	cut := xgbinary("gbtree")
	ubj, err := os.ReadFile("testdata/xgboost_logistic.ubj")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		model []byte
		want  string
	}{
		{nil, "neither a model of LightGBM"},
		{[]byte("id,x\n1,2\n"), "neither a model of LightGBM"},
		{replace(text2, "threshold=2.5 0", "threshold=2.5 x"), `LightGBM model: line 15: value 1 of threshold is "x"`},
		{replace(text2, "threshold=2.5 0", "threshold=2.5"), "line 15: threshold has 1 values, not 2"},
		{replace(text2, "threshold=2.5 0\n", ""), "line 11: the tree has no threshold"},
		{replace(text2, "threshold=2.5 0", "threshold=2.5 7"), "line 15: split 1 is of categories 7 of 1"},
		{replace(text2, "threshold=2.5 0", "threshold=nan 0"), "tree 0: split 0 has the threshold NaN"},
		{replace(text2, "num_leaves=3", "num_leaves=-3"), "line 12: num_leaves is -3"},
		{replace(text2, "num_leaves=3", "num_leaves=many"), `line 12: num_leaves is "many"`},
		{replace(text2, "left_child=-1 -2", "left_child=-1 0"), "tree 0: split 0 has two parents"},
		{replace(text2, "left_child=-1 -2", "left_child=-1 -9"), "tree 0: there is no leaf 8"},
		{replace(text2, "split_feature=0 1", "split_feature=0 2"), "tree 0: split 1 is of feature 2 of 2"},
		{replace(text2, "decision_type=2 9", "decision_type=2 13"), "line 16: decision_type 1 is 13"},
		{replace(text2, "cat_boundaries=0 2", "cat_boundaries=0 3"), "line 20: cat_boundaries 0 is from 0 to 3 of 2"},
		{replace(text2, "leaf_value=0.1", "leaf_value=inf"), "tree 0: leaf 0 is +Inf"},
		{replace(text2, "shrinkage=1", "is_linear=1"), "line 22: the tree has linear models in its leaves"},
		{replace(text2, "shrinkage=1", "threshold=1"), "line 22: threshold stands in line 15 too"},
		{replace(text2, "shrinkage=1", "shrinkage"), `line 22: "shrinkage" is no KEY=VALUE`},
		{replace(text2, "tree_sizes=1", "tree_sizes=1 2"), "it ends after 1 of its 2 trees"},
		{replace(text2, "objective=binary", "objective=own"), `objective "own", which is none of LightGBM's`},
		{replace(text2, "sigmoid:1", "sigmoid:-1"), `sigmoid is "-1"`},
		{[]byte(text2[:strings.Index(text2, "Tree=")]), "it ends before its first tree"},
		{[]byte(json2[:len(json2)-9]), "byte "},
		{replace(json2, `"1||32"`, `"1||x"`), `tree 0: split 1: its category is "x"`},
		{replace(json2, `"leaf_value":0.1`, `"leaf_value":"a"`), "leaf_value is a string"},
		{replace(json2, `{"leaf_value":0.3}`, `null`), "tree 0: a node is missing"},
		{replace(json2, `{"leaf_value":0.3}`, `{}`), "tree 0: leaf 2 has no leaf_value"},
		{replace(json2, `"=="`, `"!="`), `split 1 has the decision_type "!="`},
		{[]byte(xgjson[:len(xgjson)-9]), "XGBoost model: byte "},
		{replace(xgjson, `"right_children":[2,`, `"right_children":[1,`), "tree 0: node 1 has two parents"},
		{replace(xgjson, `"left_children":[1,`, `"left_children":[9,`), "tree 0: node 0 has the child 9 of 5"},
		{replace(xgjson, `"categories_sizes":[2]`, `"categories_sizes":[3]`), "tree 0: node 2 has 3 categories from 0 of 2"},
		{replace(xgjson, `"weight_drop":[0.5]`, `"weight_drop":[]`), "weight_drop has 0 values for 1 trees"},
		{replace(xgjson, `[5E-1]`, `[1]`), "base_score is 1, which binary:logistic never is"},
		{replace(xgjson, `"size_leaf_vector":"1"`, `"size_leaf_vector":"2"`), "its leaves are vectors of 2 values"},
		{replace(xgjson, `"binary:logistic"`, `"own"`), `objective "own", which is none of XGBoost's`},
		{replace(xgjson, `"num_class":"0"`, `"num_class":"99999999"`), "it gives 99999999 values, more than"},
		{cut[:len(cut)-1], "XGBoost model: byte 589: it ends within tree_info"},
		{cut[:len(cut)-20], "it ends within a tree's statistics"},
		{ubj[:len(ubj)-200], "XGBoost model: byte "},
	} {
		_, err := Read(c.model)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}

// harmless is what holds for any file: an error, or a model that predicts and
// converts.
func harmless(t *testing.T, b []byte) {
	m, err := Read(b)
	if err != nil {
		if m != nil || strings.ContainsAny(err.Error(), "\n") {
			t.Fatalf("%v: %v", m, err)
		}
		return
	}
	if m.Cols <= 1000 {
		if got := m.Predict(kind.Matrix{Rows: 1, Cols: m.Cols, Data: make([]float32, m.Cols)}); len(got) != m.Width() {
			t.Fatalf("%d values of %d", len(got), m.Width())
		}
	}
	if raw, err := m.ONNX(); err == nil && len(raw) == 0 {
		t.Fatal("no bytes")
	}
}

func fuzz(f *testing.F, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(harmless)
}

func FuzzText(f *testing.F) {
	fuzz(f, []byte(text2), []byte("Tree=0\nnum_leaves=1\nleaf_value=0.5\n"))
}

func FuzzJSON(f *testing.F) { fuzz(f, []byte(json2)) }

func FuzzXGBoostJSON(f *testing.F) { fuzz(f, []byte(xgjson)) }

func FuzzBinary(f *testing.F) {
	fuzz(f, xgbinary("gbtree"), xgbinary("dart"), xgbinary("gblinear"))
}

func FuzzUBJSON(f *testing.F) {
	key := func(k string) string { return fmt.Sprintf("U%c%s", len(k), k) }
	param := key("learner_model_param") + "{" + key("base_score") + "S" + key("0.5") + key("num_feature") + "S" + key("1") + "}"
	fuzz(f, []byte("{"+key("learner")+"{"+param+key("objective")+"{"+key("name")+"S"+key("reg:linear")+"}"+
		key("gradient_booster")+"{"+key("name")+"S"+key("gblinear")+key("model")+"{"+key("weights")+"[$d#U\x02\x3f\x80\x00\x00\x40\x00\x00\x00}}}}"))
}
