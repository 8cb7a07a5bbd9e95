// Package trees reads models of LightGBM (text and JSON) and XGBoost (binary, JSON
// and UBJSON) and makes ONNX of them.
//
// What a model means is taken from the libraries' own code: LightGBM's
// include/LightGBM/tree.h and src/boosting/gbdt_prediction.cpp, XGBoost's
// src/predictor and src/objective.
package trees

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"mlc.dev/mlc/compiler/kind"
)

// Model is a model of LightGBM or XGBoost.
type Model struct {
	// Library is "LightGBM" or "XGBoost".
	Library string
	// Cols is the number of features.
	Cols int
	// Features are their names in the model's order; nil where the file has none, or
	// only those that the libraries make up: Column_0, f0.
	Features []string
	// Task is what the objective tells: a multiclass problem's classes, and a
	// multilabel's labels, are called 0, 1, … . Its kind is empty where the file names
	// no objective.
	Task kind.Task

	trees []tree
	// sets are the categories of the splits by category, rising.
	sets [][]int32
	base []float64
	// weights are those of a linear model, [Cols, width]; it has no trees.
	weights []float64
	link    link
	// scale is what a logistic link multiplies the score by.
	scale float64
	// strict splits go left below the threshold, not at it.
	strict bool
}

// tree is one tree; without nodes it is its one leaf.
type tree struct {
	nodes  []node
	leaves []float64
	group  int // the output that it adds to
}

// node is a split. A child from 0 is a node, and one below 0 the complement of a leaf.
type node struct {
	feature     int32
	left, right int32
	set         int32 // of categories, which go left; -1: a threshold splits
	missing     missing
	defaultLeft bool
	threshold   float64
}

// missing says which values go to a node's default side.
type missing uint8

const (
	missingNone missing = iota // none: NaN counts as 0
	missingZero                // NaN and what is nearly 0
	missingNaN
)

// zero is the greatest magnitude that LightGBM takes for 0 (kZeroThreshold).
const zero = float32(1e-35)

// link makes predictions of scores.
type link uint8

const (
	identity link = iota
	logistic      // 1/(1+exp(-scale x))
	softmax
	exponential
	square   // with the sign
	softplus // log(1+exp(x))
	step     // 1 above 0
)

// Limits of what is read. maxDepth keeps ONNX Runtime, which recurses over a tree,
// within its stack; maxCategory is XGBoost's own.
const (
	maxDepth    = 4096
	maxWidth    = 1 << 16
	maxCols     = 1 << 24
	maxCategory = 1 << 24
)

// format is a form that models come in.
type format uint8

const (
	unknown format = iota
	lightgbmText
	lightgbmJSON
	xgboostJSON
	xgboostUBJSON
	xgboostBinary
)

// Is reports whether a file claims one of the formats. A file that does not may be
// anything else.
func Is(b []byte) bool { return sniff(b) != unknown }

func sniff(b []byte) format {
	trimmed := bytes.TrimLeft(b[:min(len(b), 4096)], " \t\r\n")
	for _, s := range []string{"tree\n", "tree\r\n", "Tree="} {
		if bytes.HasPrefix(trimmed, []byte(s)) {
			return lightgbmText
		}
	}
	if len(trimmed) > 0 && trimmed[0] == '{' {
		rest := bytes.TrimLeft(trimmed[1:], " \t\r\n")
		switch {
		case len(rest) == 0:
		case rest[0] != '"':
			if bytes.Contains(b, []byte("learner")) {
				return xgboostUBJSON
			}
		case bytes.Contains(b, []byte(`"tree_info"`)) && !bytes.Contains(b, []byte(`"learner"`)):
			return lightgbmJSON
		case bytes.Contains(b, []byte(`"learner"`)):
			return xgboostJSON
		}
	}
	if isBinary(b) {
		return xgboostBinary
	}
	return unknown
}

// Read reads a model; the format is told by what is in the file. An error says where
// the file is wrong: the line of a text, the byte of the others, or the tree.
func Read(b []byte) (*Model, error) {
	var m *Model
	var err error
	library := "XGBoost"
	switch sniff(b) {
	case lightgbmText:
		library = "LightGBM"
		m, err = readText(b)
	case lightgbmJSON:
		library = "LightGBM"
		m, err = readLightGBM(b)
	case xgboostJSON:
		m, err = readXGBoost(b)
	case xgboostUBJSON:
		var text []byte
		if text, err = toJSON(b); err == nil {
			m, err = readXGBoost(text)
		}
	case xgboostBinary:
		m, err = readBinary(b)
	default:
		return nil, errors.New("it is neither a model of LightGBM (text or JSON) nor one of XGBoost (binary, JSON or UBJSON)")
	}
	if err == nil {
		m.Library = library
		err = m.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s model: %w", library, err)
	}
	return m, nil
}

// check proves what Predict and ONNX rely on.
func (m *Model) check() error {
	if m.Cols < 1 || m.Cols > maxCols {
		return fmt.Errorf("it has %d features, not 1 to %d", m.Cols, maxCols)
	}
	if len(m.base) < 1 || len(m.base) > maxWidth {
		return fmt.Errorf("it gives %d values, not 1 to %d", len(m.base), maxWidth)
	}
	for _, v := range m.base {
		if !finite(v) {
			return fmt.Errorf("its base score is %v", v)
		}
	}
	for _, v := range m.weights {
		if !finite(v) {
			return fmt.Errorf("it has a weight of %v", v)
		}
	}
	for i := range m.trees {
		if err := m.trees[i].check(m); err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return nil
}

// check proves that a tree is one: each node and leaf is reached once.
func (tr *tree) check(m *Model) error {
	if tr.group < 0 || tr.group >= len(m.base) {
		return fmt.Errorf("it adds to output %d of %d", tr.group, len(m.base))
	}
	if len(tr.leaves) != len(tr.nodes)+1 {
		return fmt.Errorf("it has %d splits and %d leaves", len(tr.nodes), len(tr.leaves))
	}
	for i, v := range tr.leaves {
		if !finite(v) {
			return fmt.Errorf("leaf %d is %v", i, v)
		}
	}
	if len(tr.nodes) == 0 {
		return nil
	}
	type place struct{ at, depth int32 }
	nodes, leaves := make([]bool, len(tr.nodes)), make([]bool, len(tr.leaves))
	todo := []place{{0, 1}}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		seen, at, what := nodes, int(p.at), "split"
		if p.at < 0 {
			seen, at, what = leaves, int(^p.at), "leaf"
		}
		if at >= len(seen) {
			return fmt.Errorf("there is no %s %d", what, at)
		}
		if seen[at] {
			return fmt.Errorf("%s %d has two parents", what, at)
		}
		seen[at] = true
		if p.at < 0 {
			continue
		}
		if p.depth > maxDepth {
			return fmt.Errorf("it is deeper than %d", maxDepth)
		}
		n := tr.nodes[at]
		switch {
		case n.feature < 0 || int(n.feature) >= m.Cols:
			return fmt.Errorf("split %d is of feature %d of %d", at, n.feature, m.Cols)
		case n.set < 0 && (math.IsNaN(n.threshold) || m.strict && math.IsInf(n.threshold, 0)):
			return fmt.Errorf("split %d has the threshold %v", at, n.threshold)
		}
		todo = append(todo, place{n.left, p.depth + 1}, place{n.right, p.depth + 1})
	}
	// As many edges as nodes and leaves below the root, none reached twice: all reached.
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Width is the number of values in a prediction.
func (m *Model) Width() int { return len(m.base) }

// Predict predicts a matrix of m.Cols columns as the library does, in doubles:
// m.Width() a row. Where the library gives a class (multi:softmax) or a score
// (binary:logitraw), it gives the probabilities behind it.
func (m *Model) Predict(x kind.Matrix) []float32 {
	w := m.Width()
	out := make([]float32, x.Rows*w)
	score := make([]float64, w)
	for r := range x.Rows {
		m.scores(score, x.Row(r))
		m.apply(score)
		for k, v := range score {
			out[r*w+k] = float32(v)
		}
	}
	return out
}

// scores sums what the trees, or the weights, say of a row.
func (m *Model) scores(out []float64, x []float32) {
	copy(out, m.base)
	for i := range m.trees {
		t := &m.trees[i]
		out[t.group] += t.leaves[m.leaf(t, x)]
	}
	for i, w := range m.weights {
		if v := x[i/len(out)]; v == v { // a linear model leaves out what is missing
			out[i%len(out)] += float64(v) * w
		}
	}
}

// leaf is the leaf that a row comes to.
func (m *Model) leaf(t *tree, x []float32) int {
	if len(t.nodes) == 0 {
		return 0
	}
	at := int32(0)
	for at >= 0 {
		n := &t.nodes[at]
		if m.left(n, x[n.feature]) {
			at = n.left
		} else {
			at = n.right
		}
	}
	return int(^at)
}

func (m *Model) left(n *node, v float32) bool {
	nan := v != v
	switch {
	case n.set >= 0:
		if nan {
			return n.defaultLeft
		}
		return m.in(n.set, v)
	case nan && n.missing == missingNone:
		v = 0
	case nan, n.missing == missingZero && v >= -zero && v <= zero:
		return n.defaultLeft
	}
	if m.strict {
		return float64(v) < n.threshold
	}
	return float64(v) <= n.threshold
}

// in reports whether a value is one of the categories of a set: LightGBM cuts off its
// fraction first, and so does XGBoost where it is not below 0.
func (m *Model) in(set int32, v float32) bool {
	if v < m.least() || v >= math.MaxInt32 {
		return false
	}
	_, ok := slices.BinarySearch(m.sets[set], int32(v))
	return ok
}

// least is the least value that is a category.
func (m *Model) least() float32 {
	if m.strict { // XGBoost
		return 0
	}
	return math.Nextafter32(-1, 0)
}

// apply makes predictions of scores, in place.
func (m *Model) apply(s []float64) {
	if m.link == softmax {
		top, sum := slices.Max(s), 0.0
		for i, v := range s {
			s[i] = math.Exp(v - top)
			sum += s[i]
		}
		for i := range s {
			s[i] /= sum
		}
		return
	}
	for i, v := range s {
		switch m.link {
		case logistic:
			s[i] = 1 / (1 + math.Exp(-m.scale*v))
		case exponential:
			s[i] = math.Exp(v)
		case square:
			s[i] = v * math.Abs(v)
		case softplus:
			s[i] = math.Max(v, 0) + math.Log1p(math.Exp(-math.Abs(v)))
		case step:
			s[i] = 0
			if v > 0 {
				s[i] = 1
			}
		}
	}
}

// means sets what an objective says, for as many outputs as there are.
func (m *Model) means(l link, task string) {
	m.link, m.Task.Kind = l, task
	w := m.Width()
	if task == kind.Binary && w > 1 {
		m.Task.Kind = kind.Multilabel
	}
	switch m.Task.Kind {
	case kind.Binary:
		m.Task.Classes = []string{"false", "true"}
	case kind.Multiclass, kind.Multilabel:
		for i := range w {
			m.Task.Classes = append(m.Task.Classes, strconv.Itoa(i))
		}
	}
}

// own returns names that someone chose: as many as the features, and not the prefix
// with each one's index.
func own(names []string, cols int, prefix string) []string {
	if len(names) != cols {
		return nil
	}
	for i, n := range names {
		if n != prefix+strconv.Itoa(i) {
			return names
		}
	}
	return nil
}
