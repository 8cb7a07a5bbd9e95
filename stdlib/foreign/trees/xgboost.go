package trees

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/kind"
)

// text is a JSON string, or another scalar as it is written: versions differ.
type text string

// UnmarshalJSON reads either.
func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*t = text(s)
		return err
	}
	*t = text(b)
	return nil
}

// flags is an array of booleans, or of 0 and 1 as versions since 1.4 write it.
type flags []bool

// UnmarshalJSON reads either.
func (f *flags) UnmarshalJSON(b []byte) error {
	for _, s := range strings.FieldsFunc(string(b), func(r rune) bool { return strings.ContainsRune("[], \t\r\n", r) }) {
		switch s {
		case "true", "1":
			*f = append(*f, true)
		case "false", "0":
			*f = append(*f, false)
		default:
			return fmt.Errorf("default_left has %.40q", s)
		}
	}
	return nil
}

// xgModel is XGBoost's JSON, as far as it matters.
type xgModel struct {
	Version []int `json:"version"`
	Learner struct {
		Names   []string `json:"feature_names"`
		Booster struct {
			Name    string    `json:"name"`
			Model   xgBooster `json:"model"`
			Dropped struct {
				Model xgBooster `json:"model"`
			} `json:"gbtree"`
			Weights []float32 `json:"weight_drop"`
		} `json:"gradient_booster"`
		Param struct {
			Base    text `json:"base_score"`
			Classes text `json:"num_class"`
			Targets text `json:"num_target"`
			Cols    text `json:"num_feature"`
		} `json:"learner_model_param"`
		Objective struct {
			Name string `json:"name"`
		} `json:"objective"`
	} `json:"learner"`
}

type xgBooster struct {
	Trees   []xgTree  `json:"trees"`
	Groups  []int     `json:"tree_info"`
	Weights []float32 `json:"weights"`
}

type xgTree struct {
	Left       []int32   `json:"left_children"`
	Right      []int32   `json:"right_children"`
	Feature    []int32   `json:"split_indices"`
	Value      []float32 `json:"split_conditions"`
	Default    flags     `json:"default_left"`
	Type       []int     `json:"split_type"`
	Categories []int32   `json:"categories"`
	Nodes      []int     `json:"categories_nodes"`
	Segments   []int     `json:"categories_segments"`
	Sizes      []int     `json:"categories_sizes"`
	Param      struct {
		Vector text `json:"size_leaf_vector"`
	} `json:"tree_param"`
}

// readXGBoost reads XGBoost's JSON.
func readXGBoost(b []byte) (*Model, error) {
	var x xgModel
	if err := decode(b, &x); err != nil {
		return nil, err
	}
	l := &x.Learner
	cols, err := number(l.Param.Cols, "num_feature", 1)
	if err != nil {
		return nil, err
	}
	classes, err := number(l.Param.Classes, "num_class", 0)
	if err != nil {
		return nil, err
	}
	targets, err := number(l.Param.Targets, "num_target", 1)
	if err != nil {
		return nil, err
	}
	bases, err := scores(string(l.Param.Base))
	if err != nil {
		return nil, err
	}
	m := &Model{Cols: cols, Features: own(l.Names, cols, "f"), strict: true}
	booster := l.Booster.Model
	switch l.Booster.Name {
	case "gbtree", "gblinear":
	case "dart":
		booster = l.Booster.Dropped.Model
	default:
		return nil, fmt.Errorf("its booster is %.40q, not gbtree, dart or gblinear", l.Booster.Name)
	}
	objective := l.Objective.Name
	// Since 2.0 the base score of a logitraw is a score.
	scored := objective == logitraw && len(x.Version) > 0 && x.Version[0] >= 2
	if err := m.start(objective, max(classes, targets), bases, scored); err != nil {
		return nil, err
	}
	if l.Booster.Name == "gblinear" {
		for k := range m.base { // XGBoost's linear models look at the first only
			m.base[k] = m.base[0]
		}
		return m, m.linear(booster.Weights)
	}
	if len(booster.Groups) != len(booster.Trees) {
		return nil, fmt.Errorf("tree_info has %d values for %d trees", len(booster.Groups), len(booster.Trees))
	}
	for i := range booster.Trees {
		if err := m.addTree(&booster.Trees[i], booster.Groups[i]); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	if l.Booster.Name == "dart" {
		return m, m.drop(l.Booster.Weights)
	}
	return m, nil
}

func number(t text, name string, without int) (int, error) {
	if t == "" {
		return without, nil
	}
	n, err := strconv.ParseInt(string(t), 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s is %.40q", name, t)
	}
	return int(n), nil
}

// scores reads a base score: a number, or since 3.1 a list of them.
func scores(s string) ([]float64, error) {
	var out []float64
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("[], ", r) }) {
		v, err := strconv.ParseFloat(f, 32)
		if err != nil {
			return nil, fmt.Errorf("base_score is %.40q", s)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("base_score is %.40q", s)
	}
	return out, nil
}

// logitraw is the one objective of which the base score changed its meaning.
const logitraw = "binary:logitraw"

// start sets what an objective says. bases are predictions, or scores already, as
// versions before 1.0 have it.
func (m *Model) start(objective string, width int, bases []float64, scored bool) error {
	width = max(width, 1)
	if width > maxWidth {
		return fmt.Errorf("it gives %d values, more than %d", width, maxWidth)
	}
	if len(bases) != 1 && len(bases) != width {
		return fmt.Errorf("base_score has %d values, not %d", len(bases), width)
	}
	m.base, m.scale = make([]float64, width), 1
	for i := range m.base {
		m.base[i] = bases[min(i, len(bases)-1)]
	}
	switch objective {
	case "binary:logistic", logitraw:
		m.means(logistic, kind.Binary)
	case "reg:logistic":
		m.means(logistic, kind.Regression)
	case "binary:hinge":
		m.means(step, kind.Binary)
	case "multi:softmax", "multi:softprob":
		m.means(softmax, kind.Multiclass)
	case "count:poisson":
		m.means(exponential, kind.Count)
	case "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft":
		m.means(exponential, kind.Regression)
	case "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "reg:expectileerror":
		m.means(identity, kind.Regression)
	case "rank:pairwise", "rank:ndcg", "rank:map":
	default:
		return fmt.Errorf("it has the objective %.80q, which is none of XGBoost's", objective)
	}
	if scored {
		return nil
	}
	for i, p := range m.base {
		switch {
		case m.link == logistic && p > 0 && p < 1:
			m.base[i] = -math.Log(1/p - 1)
		case m.link == exponential && p > 0:
			m.base[i] = math.Log(p)
		case m.link == logistic, m.link == exponential:
			return fmt.Errorf("base_score is %v, which %s never is", p, objective)
		}
	}
	return nil
}

// linear sets the weights: [Cols + 1, width], the last row the biases.
func (m *Model) linear(weights []float32) error {
	w := m.Width()
	if len(weights) != (m.Cols+1)*w {
		return fmt.Errorf("it has %d weights, not those of %d features and a bias for %d values", len(weights), m.Cols, w)
	}
	m.weights = make([]float64, m.Cols*w)
	for i := range m.weights {
		m.weights[i] = float64(weights[i])
	}
	for k := range w {
		m.base[k] += float64(weights[m.Cols*w+k])
	}
	return nil
}

// drop weighs the trees as DART does.
func (m *Model) drop(weights []float32) error {
	if len(weights) != len(m.trees) {
		return fmt.Errorf("weight_drop has %d values for %d trees", len(weights), len(m.trees))
	}
	for i, w := range weights {
		for k := range m.trees[i].leaves {
			m.trees[i].leaves[k] *= float64(w)
		}
	}
	return nil
}

// addTree adds a tree, without the nodes that pruning has cut off.
func (m *Model) addTree(x *xgTree, group int) error {
	n := len(x.Left)
	if n == 0 || len(x.Right) != n || len(x.Feature) != n || len(x.Value) != n || len(x.Default) != n || x.Type != nil && len(x.Type) != n {
		return errors.New("its arrays differ in length, or are empty")
	}
	if v := x.Param.Vector; v != "" && v != "0" && v != "1" {
		return fmt.Errorf("its leaves are vectors of %.40s values (multi_output_tree), which cannot be converted", v)
	}
	sets, err := x.sets()
	if err != nil {
		return err
	}
	t := tree{group: group}
	ids := make([]int32, n) // the place of each node, plus 1
	todo := []int32{0}
	for k := 0; k < len(todo); k++ { // breadth first: parents before children
		at := todo[k]
		if ids[at] != 0 {
			return fmt.Errorf("node %d has two parents", at)
		}
		if x.Left[at] < 0 {
			ids[at] = -int32(len(t.leaves)) - 1
			t.leaves = append(t.leaves, float64(x.Value[at]))
			continue
		}
		ids[at] = int32(len(t.nodes)) + 1
		nd := node{feature: x.Feature[at], set: -1, threshold: float64(x.Value[at]), defaultLeft: x.Default[at], missing: missingNaN}
		for _, c := range []int32{x.Left[at], x.Right[at]} {
			if c <= 0 || int(c) >= n {
				return fmt.Errorf("node %d has the child %d of %d", at, c, n)
			}
			todo = append(todo, c)
		}
		nd.left, nd.right = x.Left[at], x.Right[at]
		if x.Type != nil && x.Type[at] == 1 {
			set, ok := sets[int(at)]
			if !ok {
				return fmt.Errorf("node %d splits by no categories", at)
			}
			// XGBoost sends the categories to the right, and all others to the left.
			nd.left, nd.right, nd.defaultLeft = nd.right, nd.left, !nd.defaultLeft
			nd.set, nd.threshold = int32(len(m.sets)), 0
			m.sets = append(m.sets, set)
		}
		t.nodes = append(t.nodes, nd)
	}
	place := func(id int32) int32 {
		if p := ids[id]; p > 0 {
			return p - 1
		}
		return ids[id] // -(leaf+1) is the leaf's complement
	}
	for i := range t.nodes {
		t.nodes[i].left, t.nodes[i].right = place(t.nodes[i].left), place(t.nodes[i].right)
	}
	m.trees = append(m.trees, t)
	return nil
}

// sets are the categories of each node that splits by them.
func (x *xgTree) sets() (map[int][]int32, error) {
	if len(x.Segments) != len(x.Nodes) || len(x.Sizes) != len(x.Nodes) {
		return nil, errors.New("the arrays of its categories differ in length")
	}
	out, total := map[int][]int32{}, 0
	for i, n := range x.Nodes {
		from, size := x.Segments[i], x.Sizes[i]
		if total += size; from < 0 || size < 0 || from > len(x.Categories)-size || total > len(x.Categories) {
			return nil, fmt.Errorf("node %d has %d categories from %d of %d", n, size, from, len(x.Categories))
		}
		set := slices.Clone(x.Categories[from : from+size])
		slices.Sort(set)
		if size > 0 && (set[0] < 0 || set[size-1] >= maxCategory) {
			return nil, fmt.Errorf("node %d has a category below 0 or above %d", n, maxCategory-1)
		}
		out[n] = slices.Compact(set)
	}
	return out, nil
}

// Lengths of the structs in XGBoost's binary form, which it wrote until 2.x as they
// were in memory.
const (
	learnerParam = 136
	boosterParam = 160 // of trees
	linearParam  = 136
	treeParam    = 148
	nodeSize     = 20
	statSize     = 16
)

// cursor reads little-endian values; the first failure stays.
type cursor struct {
	b   []byte
	at  int
	err error
}

// take returns the next n bytes, or nil.
func (c *cursor) take(n uint64, what string) []byte {
	if c.err == nil && n > uint64(len(c.b)-c.at) {
		c.err = fmt.Errorf("byte %d: it ends within %s", c.at, what)
	}
	if c.err != nil {
		return nil
	}
	out := c.b[c.at : c.at+int(n)]
	c.at += int(n)
	return out
}

func (c *cursor) long(what string) uint64 {
	if b := c.take(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) text(what string) string { return string(c.take(c.long(what), what)) }

// floats reads n of them.
func (c *cursor) floats(n uint64, what string) []float32 {
	if n > uint64(len(c.b)) {
		n = uint64(len(c.b)) // four times too many: take says so
	}
	b := c.take(4*n, what)
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(word(b, i))
	}
	return out
}

// word is the 32-bit word i of b.
func word(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }

// magic begins the binary form in some versions.
const magic = "binf"

// isBinary reports whether b begins as the binary form does: an objective and a
// booster by name, where they have to be.
func isBinary(b []byte) bool {
	c := open(b)
	c.take(learnerParam, "")
	n := c.long("")
	if n > 64 {
		return false
	}
	c.take(n, "")
	switch c.text("") {
	case "gbtree", "dart", "gblinear":
		return true
	}
	return false
}

func open(b []byte) *cursor {
	c := &cursor{b: b}
	if strings.HasPrefix(string(b[:min(len(b), len(magic))]), magic) {
		c.at = len(magic)
	}
	return c
}

// readBinary reads XGBoost's binary form.
func readBinary(b []byte) (*Model, error) {
	c := open(b)
	head := c.take(learnerParam, "the learner's parameters")
	objective, booster := c.text("the objective's name"), c.text("the booster's name")
	if c.err != nil {
		return nil, c.err
	}
	m := &Model{Cols: int(word(head, 1)), strict: true}
	base, classes, major := float64(math.Float32frombits(word(head, 0))), int(int32(word(head, 2))), word(head, 5)
	// Versions before 1.0 have scores here, not predictions, and no version.
	if err := m.start(objective, classes, []float64{base}, major < 1 || major >= 2 && objective == logitraw); err != nil {
		return nil, err
	}
	if booster == "gblinear" {
		c.take(linearParam, "the linear model's parameters")
		weights := c.floats(c.long("the weights"), "the weights")
		if c.err != nil {
			return nil, c.err
		}
		return m, m.linear(weights)
	}
	param := c.take(boosterParam, "the booster's parameters")
	if c.err != nil {
		return nil, c.err
	}
	n := int(int32(word(param, 0)))
	if n < 0 || n > len(b)/treeParam {
		return nil, fmt.Errorf("byte %d: it has %d trees, more than fit", c.at-boosterParam, n)
	}
	trees := make([]xgTree, n)
	for i := range trees {
		if err := c.tree(&trees[i]); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	groups := c.take(4*uint64(n), "tree_info")
	if c.err != nil {
		return nil, c.err
	}
	for i := range trees {
		if err := m.addTree(&trees[i], int(int32(word(groups, i)))); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	if booster != "dart" {
		return m, nil
	}
	weights := c.floats(c.long("the trees' weights"), "the trees' weights")
	if c.err != nil {
		return nil, c.err
	}
	return m, m.drop(weights)
}

// tree reads one tree: its parameters, its nodes, and what training knew of them.
func (c *cursor) tree(t *xgTree) error {
	begin := c.at
	param := c.take(treeParam, "a tree's parameters")
	if c.err != nil {
		return c.err
	}
	if roots := word(param, 0); roots != 1 {
		return fmt.Errorf("byte %d: it has %d roots, not 1", begin, roots)
	}
	n, vector := int(int32(word(param, 1))), int32(word(param, 5))
	if n < 1 || vector < 0 || vector > 1 {
		return fmt.Errorf("byte %d: it has %d nodes, and leaves of %d values", begin, n, vector)
	}
	nodes := c.take(uint64(n)*nodeSize, "a tree's nodes")
	c.take(uint64(n)*statSize, "a tree's statistics")
	if c.err != nil {
		return c.err
	}
	for i := range n {
		// parent, left, right, feature with the default side in its first bit, value
		feature := word(nodes, 5*i+3)
		t.Left = append(t.Left, int32(word(nodes, 5*i+1)))
		t.Right = append(t.Right, int32(word(nodes, 5*i+2)))
		t.Feature = append(t.Feature, int32(feature&^(1<<31)))
		t.Default = append(t.Default, feature>>31 == 1)
		t.Value = append(t.Value, math.Float32frombits(word(nodes, 5*i+4)))
	}
	return nil
}
