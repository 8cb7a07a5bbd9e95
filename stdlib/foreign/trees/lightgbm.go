package trees

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"mlc.dev/mlc/compiler/kind"
)

// header is what LightGBM says of a model before its trees.
type header struct {
	version   string
	objective string
	average   bool
	width     int // trees of an iteration
	names     []string
	cols      int
}

// line is the value of a key of the text, and the line that it stands in.
type line struct {
	text string
	at   int
}

func (l line) fault(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", l.at, fmt.Sprintf(format, args...))
}

// readText reads LightGBM's text. One that begins with a tree has no header, and
// gives the sum of its trees.
func readText(b []byte) (*Model, error) {
	h := header{width: 1}
	m := &Model{}
	headed, sizes, treeLine := false, -1, 0
	keys := map[string]line{}
	flush := func() error {
		if treeLine == 0 {
			return h.read(keys, &sizes)
		}
		t, err := m.readTree(keys, treeLine)
		if err == nil {
			m.trees = append(m.trees, t)
		}
		return err
	}
	at, end := 0, false
	for rest := b; len(rest) > 0 && !end; {
		var raw []byte
		raw, rest, _ = bytes.Cut(rest, []byte("\n"))
		at++
		text := string(bytes.TrimSpace(raw))
		key, value, ok := strings.Cut(text, "=")
		switch {
		case text == "":
		case key == "Tree" && ok:
			if err := flush(); err != nil {
				return nil, err
			}
			treeLine = at
			clear(keys)
		case text == "end of trees", strings.HasPrefix(text, "feature importances"), strings.HasPrefix(text, "feature_importances"):
			end = true
		case text == "tree" && treeLine == 0:
			headed = true
		case !ok && treeLine == 0: // average_output
			keys[text] = line{"", at}
		case !ok:
			return nil, line{at: at}.fault("%.40q is no KEY=VALUE", text)
		default:
			if old, dup := keys[key]; dup {
				return nil, line{at: at}.fault("%.40s stands in line %d too", key, old.at)
			}
			keys[key] = line{value, at}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if len(m.trees) == 0 {
		return nil, line{at: at}.fault("it ends before its first tree")
	}
	if sizes >= 0 && sizes != len(m.trees) {
		return nil, line{at: at}.fault("it ends after %d of its %d trees", len(m.trees), sizes)
	}
	if !headed {
		for _, t := range m.trees {
			for _, n := range t.nodes {
				h.cols = max(h.cols, int(n.feature)+1)
			}
		}
		h.cols = max(h.cols, 1)
	}
	return m, m.finish(h)
}

// read reads the header. sizes is how many trees it announces.
func (h *header) read(keys map[string]line, sizes *int) error {
	if len(keys) == 0 {
		return nil
	}
	h.version, h.objective = keys["version"].text, keys["objective"].text
	_, h.average = keys["average_output"]
	if l, ok := keys["tree_sizes"]; ok {
		*sizes = len(strings.Fields(l.text))
	}
	last, err := integer(keys, "max_feature_idx")
	if err != nil {
		return err
	}
	h.cols = last + 1
	h.names = strings.Fields(keys["feature_names"].text)
	if _, ok := keys["num_tree_per_iteration"]; ok {
		h.width, err = integer(keys, "num_tree_per_iteration")
	} else if _, ok := keys["num_class"]; ok {
		h.width, err = integer(keys, "num_class")
	}
	return err
}

func integer(keys map[string]line, key string) (int, error) {
	l, ok := keys[key]
	if !ok {
		return 0, fmt.Errorf("%s is missing", key)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(l.text), 10, 32)
	if err != nil {
		return 0, l.fault("%s is %.40q, which is no whole number", key, l.text)
	}
	return int(n), nil
}

// list reads the n numbers of a key.
func list[T any](keys map[string]line, tree int, key string, n int, parse func(string) (T, error)) ([]T, error) {
	l, ok := keys[key]
	if !ok && n > 0 {
		return nil, fmt.Errorf("line %d: the tree has no %s", tree, key)
	}
	fields := strings.Fields(l.text)
	if len(fields) != n && n >= 0 {
		return nil, l.fault("%s has %d values, not %d", key, len(fields), n)
	}
	out := make([]T, len(fields))
	for i, f := range fields {
		var err error
		if out[i], err = parse(f); err != nil {
			return nil, l.fault("value %d of %s is %.40q", i, key, f)
		}
	}
	return out, nil
}

func parseInt(s string) (int32, error) { n, err := strconv.ParseInt(s, 10, 32); return int32(n), err }
func parseWord(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
func parseFloat(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

// The bits of LightGBM's decision_type; the two above them are the missing type.
const (
	categorical = 1
	defaultLeft = 2
)

// readTree reads a tree that begins at a line.
func (m *Model) readTree(keys map[string]line, at int) (tree, error) {
	var t tree
	leaves, err := integer(keys, "num_leaves")
	if err != nil {
		return t, fmt.Errorf("line %d: tree: %w", at, err)
	}
	if leaves < 1 {
		return t, keys["num_leaves"].fault("num_leaves is %d", leaves)
	}
	if l := keys["is_linear"]; l.text != "" && l.text != "0" {
		return t, l.fault("the tree has linear models in its leaves (linear_tree), which cannot be converted")
	}
	if t.leaves, err = list(keys, at, "leaf_value", leaves, parseFloat); err != nil || leaves == 1 {
		return t, err
	}
	n := leaves - 1
	features, err := list(keys, at, "split_feature", n, parseInt)
	if err != nil {
		return t, err
	}
	thresholds, err := list(keys, at, "threshold", n, parseFloat)
	if err != nil {
		return t, err
	}
	decisions, err := list(keys, at, "decision_type", n, parseInt)
	if err != nil {
		return t, err
	}
	lefts, err := list(keys, at, "left_child", n, parseInt)
	if err != nil {
		return t, err
	}
	rights, err := list(keys, at, "right_child", n, parseInt)
	if err != nil {
		return t, err
	}
	bounds, err := list(keys, at, "cat_boundaries", -1, parseInt)
	if err != nil {
		return t, err
	}
	words, err := list(keys, at, "cat_threshold", -1, parseWord)
	if err != nil {
		return t, err
	}
	first := int32(len(m.sets))
	for i := range max(len(bounds)-1, 0) {
		from, to := bounds[i], bounds[i+1]
		if from < 0 || to < from || int(to) > len(words) || int(to-from) > maxCategory/32 || i > 0 && from < bounds[i-1] {
			return t, keys["cat_boundaries"].fault("cat_boundaries %d is from %d to %d of %d", i, from, to, len(words))
		}
		m.sets = append(m.sets, categories(words[from:to]))
	}
	t.nodes = make([]node, n)
	for i := range t.nodes {
		d := decisions[i]
		t.nodes[i] = node{feature: features[i], left: lefts[i], right: rights[i], set: -1, threshold: thresholds[i], defaultLeft: d&defaultLeft != 0, missing: missing(d >> 2 & 3)}
		if d < 0 || d > 15 || t.nodes[i].missing > missingNaN {
			return t, keys["decision_type"].fault("decision_type %d is %d", i, d)
		}
		if d&categorical == 0 {
			continue
		}
		set := int32(0)
		if v := thresholds[i]; v >= 0 && v < float64(len(bounds)-1) {
			set = int32(v)
		} else {
			return t, keys["threshold"].fault("split %d is of categories %v of %d", i, v, max(len(bounds)-1, 0))
		}
		t.nodes[i].byCategory(first + set)
	}
	return t, nil
}

// byCategory makes a split one of LightGBM's by category: NaN is none, and goes right.
func (n *node) byCategory(set int32) {
	n.set, n.threshold, n.defaultLeft, n.missing = set, 0, false, missingNaN
}

// categories are the bits that are set, rising.
func categories(words []uint32) []int32 {
	var out []int32
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			out = append(out, int32(32*i+bits.TrailingZeros32(w)))
		}
	}
	return out
}

// finish sets what the header says, with the trees read.
func (m *Model) finish(h header) error {
	m.Cols, m.Features = h.cols, own(h.names, h.cols, "Column_")
	if h.width < 1 || h.width > maxWidth || len(m.trees)%h.width != 0 {
		return fmt.Errorf("it has %d trees of %d an iteration", len(m.trees), h.width)
	}
	m.base = make([]float64, h.width)
	iterations := float64(len(m.trees) / h.width)
	proper := true
	for i := range m.trees {
		m.trees[i].group = i % h.width
		for k, v := range m.trees[i].leaves {
			proper = proper && v >= 0 && v <= 1
			if h.average {
				m.trees[i].leaves[k] = v / iterations
			}
		}
	}
	if err := m.objective(h.objective); err != nil {
		return err
	}
	// Random forests of format v2 average predictions, later ones scores. LightGBM
	// 2.2.3 wrote the later ones as v2 too: there, a value that is no probability tells.
	if old := h.version == "" || h.version == "v1" || h.version == "v2"; h.average && old && (proper || m.link == exponential || m.link == square) {
		m.link = identity
	}
	return nil
}

// objective sets what LightGBM's objective says, such as "binary sigmoid:1".
func (m *Model) objective(text string) error {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return nil
	}
	name, params := fields[0], map[string]string{}
	for _, f := range fields[1:] {
		k, v, _ := strings.Cut(f, ":")
		params[k] = v
	}
	m.scale = 1
	if s, ok := params["sigmoid"]; ok {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !finite(v) || v <= 0 {
			return fmt.Errorf("objective %.80q: sigmoid is %q", text, s)
		}
		m.scale = v
	}
	switch name {
	case "binary", "cross_entropy", "xentropy":
		m.means(logistic, kind.Binary)
	case "cross_entropy_lambda", "xentlambda":
		m.means(softplus, kind.Regression)
	case "multiclass", "softmax":
		m.means(softmax, kind.Multiclass)
	case "multiclassova", "multiclass_ova", "ova", "ovr":
		m.means(logistic, kind.Multiclass)
	case "poisson":
		m.means(exponential, kind.Count)
	case "gamma", "tweedie":
		m.means(exponential, kind.Regression)
	case "regression", "regression_l2", "l2", "mse", "regression_l1", "l1", "mae", "huber", "fair", "quantile", "mape":
		m.means(identity, kind.Regression)
		if _, ok := params["sqrt"]; ok {
			m.link = square
		}
	case "lambdarank", "rank_xendcg", "custom", "none", "null":
	default:
		return fmt.Errorf("it has the objective %.80q, which is none of LightGBM's", name)
	}
	return nil
}

// dump is LightGBM's JSON.
type dump struct {
	Version   string   `json:"version"`
	Objective string   `json:"objective"`
	Average   bool     `json:"average_output"`
	Width     *int     `json:"num_tree_per_iteration"`
	Last      *int     `json:"max_feature_idx"`
	Names     []string `json:"feature_names"`
	Trees     []struct {
		Root *dumped `json:"tree_structure"`
	} `json:"tree_info"`
}

// dumped is a split, or a leaf where it has no children.
type dumped struct {
	Feature   int32           `json:"split_feature"`
	Threshold json.RawMessage `json:"threshold"` // a number, or categories: "1||3"
	Decision  string          `json:"decision_type"`
	Default   bool            `json:"default_left"`
	Missing   string          `json:"missing_type"`
	Left      *dumped         `json:"left_child"`
	Right     *dumped         `json:"right_child"`
	Value     *float64        `json:"leaf_value"`
	Linear    json.RawMessage `json:"leaf_const"`
}

// readLightGBM reads LightGBM's JSON.
func readLightGBM(b []byte) (*Model, error) {
	var d dump
	if err := decode(b, &d); err != nil {
		return nil, err
	}
	if d.Last == nil {
		return nil, errors.New("max_feature_idx is missing")
	}
	h := header{version: d.Version, objective: d.Objective, average: d.Average, width: 1, names: d.Names, cols: *d.Last + 1}
	if d.Width != nil {
		h.width = *d.Width
	}
	m := &Model{}
	for i, x := range d.Trees {
		var t tree
		if _, err := m.flatten(&t, x.Root, 0); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
		m.trees = append(m.trees, t)
	}
	if len(m.trees) == 0 {
		return nil, errors.New("it has no trees")
	}
	return m, m.finish(h)
}

// decode reads JSON, and says where it is wrong.
func decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("byte %d: %w", syntax.Offset, err)
	case errors.As(err, &typed):
		return fmt.Errorf("byte %d: %s is a %s", typed.Offset, typed.Field, typed.Value)
	}
	return err
}

// dumpedInf is what LightGBM's JSON has for infinity.
const dumpedInf = 1e300

// flatten adds a dumped node with all below it, and returns its place.
func (m *Model) flatten(t *tree, d *dumped, depth int) (int32, error) {
	switch {
	case d == nil:
		return 0, errors.New("a node is missing")
	case depth > maxDepth:
		return 0, fmt.Errorf("it is deeper than %d", maxDepth)
	case d.Linear != nil:
		return 0, errors.New("it has linear models in its leaves (linear_tree), which cannot be converted")
	case d.Left == nil && d.Right == nil:
		if d.Value == nil {
			return 0, fmt.Errorf("leaf %d has no leaf_value", len(t.leaves))
		}
		t.leaves = append(t.leaves, *d.Value)
		return ^int32(len(t.leaves) - 1), nil
	}
	at := int32(len(t.nodes))
	n := node{feature: d.Feature, set: -1, defaultLeft: d.Default}
	switch d.Missing {
	case "", "None":
	case "Zero":
		n.missing = missingZero
	case "NaN":
		n.missing = missingNaN
	default:
		return 0, fmt.Errorf("split %d has the missing_type %.40q", at, d.Missing)
	}
	switch d.Decision {
	case "<=", "no_greater":
		if err := json.Unmarshal(d.Threshold, &n.threshold); err != nil {
			return 0, fmt.Errorf("split %d has the threshold %.40s", at, d.Threshold)
		}
		if math.Abs(n.threshold) >= dumpedInf {
			n.threshold = math.Inf(int(math.Copysign(1, n.threshold)))
		}
	case "==", "is":
		set, err := dumpedSet(d.Threshold)
		if err != nil {
			return 0, fmt.Errorf("split %d: %w", at, err)
		}
		m.sets = append(m.sets, set)
		n.byCategory(int32(len(m.sets) - 1))
	default:
		return 0, fmt.Errorf("split %d has the decision_type %.40q", at, d.Decision)
	}
	t.nodes = append(t.nodes, n)
	left, err := m.flatten(t, d.Left, depth+1)
	if err != nil {
		return 0, err
	}
	right, err := m.flatten(t, d.Right, depth+1)
	t.nodes[at].left, t.nodes[at].right = left, right
	return at, err
}

// dumpedSet reads categories: "1||3", or one number.
func dumpedSet(raw json.RawMessage) ([]int32, error) {
	text := strings.Trim(string(raw), `"`)
	var out []int32
	for _, f := range strings.Split(text, "||") {
		c, err := strconv.ParseInt(f, 10, 32)
		if err != nil || c < 0 || c >= maxCategory {
			return nil, fmt.Errorf("its category is %.40q", f)
		}
		out = append(out, int32(c))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
