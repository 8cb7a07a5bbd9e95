package op

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/expr"
	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/table"
)

// Transform describes transform.onnx: which raw features enter and which columns
// of the matrix come out, with what the encoders learned.
type Transform struct {
	Raw     []lower.RawFeature `json:"raw"`
	Columns []string           `json:"columns"`
	Fitted  []FittedInput      `json:"fitted"`
	// Folded: an encoder learned from labels, so the rows that train go through the
	// transforms of their folds.
	Folded bool `json:"folded,omitempty"`
}

// FittedInput is a feature's encoders with their parameters, in order.
type FittedInput struct {
	Feature string            `json:"feature"`
	Params  []json.RawMessage `json:"params"`
}

// fitMemory bounds the bytes of feature values held at once while fitting.
const fitMemory = 512 << 20

// transformFit fits the encoders on the training rows and writes the graph that
// makes the training matrix, and later serves. An encoder learns from what the
// graph before it computes: there is no second implementation.
func transformFit(ctx context.Context, s *Stage) error {
	a, err := decode[lower.TransformArgs](s)
	if err != nil {
		return err
	}
	parts, err := readParts(ctx, s.In("split", "parts.parquet"))
	if err != nil {
		return err
	}
	train := parts.count(kind.Train)
	f := &fitter{s: s, a: a, params: make([][]json.RawMessage, len(a.Inputs)), folded: map[place][]json.RawMessage{}}
	if err := f.labels(ctx, parts); err != nil {
		return err
	}
	depth := 0
	for _, in := range a.Inputs {
		depth = max(depth, len(in.Encoders))
	}
	for level := range depth {
		var group []int
		for i, in := range a.Inputs {
			if level >= len(in.Encoders) {
				continue
			}
			e, args, err := f.encoder(in.Encoders[level])
			if err != nil {
				return err
			}
			if !e.Learns() {
				p, err := e.Fit(args, kind.Values{})
				if err != nil {
					return f.unfit(i, level, e, err)
				}
				f.params[i] = append(f.params[i], p)
				continue
			}
			if group = append(group, i); int64(len(group))*int64(train)*16 >= fitMemory {
				if err := f.fit(ctx, group, level, parts); err != nil {
					return err
				}
				group = nil
			}
		}
		if len(group) > 0 {
			if err := f.fit(ctx, group, level, parts); err != nil {
				return err
			}
		}
		s.Progress(int64(level+1), int64(depth), "levels", "fitting encoders")
	}
	g, cols, err := f.graph(whole)
	if err != nil {
		return err
	}
	if len(f.folded) > 0 {
		for k := range folds {
			g, _, err := f.graph(k)
			if err != nil {
				return err
			}
			if err := os.WriteFile(s.Out("transform", foldFile(k)), g.Marshal(), 0o644); err != nil {
				return err
			}
		}
	}
	t := Transform{Folded: len(f.folded) > 0, Raw: a.Raw, Columns: cols, Fitted: []FittedInput{}}
	for i, in := range a.Inputs {
		t.Fitted = append(t.Fitted, FittedInput{in.Feature, f.params[i]})
	}
	s.Report["columns"], s.Report["rows"] = len(cols), train
	if err := os.WriteFile(s.Out("transform", "transform.onnx"), g.Marshal(), 0o644); err != nil {
		return err
	}
	return s.writeJSON(s.Out("transform", "transform.json"), t)
}

type fitter struct {
	s      *Stage
	a      lower.TransformArgs
	params [][]json.RawMessage // by input and level, as far as fitted
	// folded are, of encoders that learn from labels, the parameters learned without
	// each fold's rows.
	folded map[place][]json.RawMessage
	// task, y and fold are of the training rows; none where no encoder asks for them.
	task kind.Task
	y    []float64
	fold []int
}

// place is that of an encoder: its input and level.
type place struct{ input, level int }

// folds are how many times an encoder that learns from labels is fitted beside the
// whole: a row that trains is encoded by what was learned of the other folds
// (Micci-Barreca 2001; as scikit-learn's TargetEncoder). Rows of one entity are in one.
const folds = 5

// whole stands for all training rows in place of a fold.
const whole = -1

// foldFile is the transform for a fold's training rows.
func foldFile(k int) string { return fmt.Sprintf("fold%d.onnx", k) }

// foldOf is the fold of an identity.
func foldOf(group string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(group)) // never fails
	return int(h.Sum64() % folds)
}

// labels reads what encoders that learn from labels take.
func (f *fitter) labels(ctx context.Context, p parts) error {
	asked := false
	for _, in := range f.a.Inputs {
		for _, raw := range in.Encoders {
			e, _, err := f.encoder(raw)
			if err != nil {
				return err
			}
			_, supervised := e.(kind.Supervised)
			asked = asked || supervised
		}
	}
	if !asked {
		return nil
	}
	meta, err := readJSON[Meta](f.s.In("meta", "meta.json"))
	if err != nil {
		return err
	}
	known, err := labels(ctx, f.s, meta.Task, p, kind.Train)
	if err != nil {
		return err
	}
	f.task, f.y = meta.Task, known.y
	for _, g := range known.groups {
		f.fold = append(f.fold, foldOf(g))
	}
	return nil
}

// learn fits one encoder on the training rows, and without each fold where it learns
// from labels.
func (f *fitter) learn(i, level int, e kind.Encoder, args json.RawMessage, v kind.Values) error {
	_, supervised := e.(kind.Supervised)
	if supervised {
		v.Labels, v.Task = f.y, f.task
	}
	p, err := e.Fit(args, v)
	if err != nil {
		return f.unfit(i, level, e, err)
	}
	f.params[i] = append(f.params[i], p)
	for k := 0; supervised && k < folds; k++ {
		others := kind.Values{Task: f.task, Whole: p}
		for r, fold := range f.fold {
			if fold == k {
				continue
			}
			if v.Texts != nil {
				others.Texts = append(others.Texts, v.Texts[r])
			} else {
				others.Numbers = append(others.Numbers, v.Numbers[r])
			}
			others.Labels = append(others.Labels, f.y[r*f.task.Targets():(r+1)*f.task.Targets()]...)
		}
		p, err := e.Fit(args, others)
		if err != nil {
			return f.unfit(i, level, e, err)
		}
		at := place{i, level}
		f.folded[at] = append(f.folded[at], p)
	}
	return nil
}

// unfit says that an encoder cannot learn from the data.
func (f *fitter) unfit(i, level int, e kind.Encoder, err error) error {
	mend := "encode the feature otherwise, or leave it out"
	if own := (kind.Faults)(nil); errors.As(err, &own) {
		mend = own[0].Mend
	}
	return fault(fmt.Sprintf("inputs[%d].encoders[%d]", i, level), diag.BadArgs, "its training rows give nothing to learn from", mend, "encoder %s of %s: %v", e.Name(), f.a.Inputs[i].Feature, err)
}

func (f *fitter) encoder(raw json.RawMessage) (kind.Encoder, json.RawMessage, error) {
	var name struct{ Kind string }
	if err := json.Unmarshal(raw, &name); err != nil {
		return nil, nil, err
	}
	e, ok := f.s.Kinds.Encoders.Get(name.Kind)
	if !ok {
		return nil, nil, fmt.Errorf("no encoder %q", name.Kind)
	}
	return e, raw, nil
}

// start declares the raw inputs and lowers the derived features. It returns the
// value of each feature by name.
func (f *fitter) start(g *onnx.Graph) (map[string]expr.Input, error) {
	values := map[string]expr.Input{}
	for _, r := range f.a.Raw {
		t := onnx.Double
		if r.Type == types.String {
			t = onnx.String
		}
		values[r.Name] = expr.Input{Value: g.Input(r.Name, t, -1, 1), Type: r.Type}
	}
	for _, d := range f.a.Derived {
		n, err := expr.Parse(d.Expr)
		if err != nil {
			return nil, fmt.Errorf("feature %s: %w", d.Name, err)
		}
		errs := expr.Check(n, func(name string) (types.Type, bool) { v, ok := values[name]; return v.Type, ok }, nil)
		if len(errs) > 0 {
			return nil, fmt.Errorf("feature %s: %w", d.Name, errs[0])
		}
		v := expr.Lower(g, n, func(name string) expr.Input { return values[name] })
		values[d.Name] = expr.Input{Value: v, Type: n.Type}
	}
	return values, nil
}

// encode adds the first levels encoders of input i, as a fold's training rows see them.
func (f *fitter) encode(g *onnx.Graph, v expr.Input, i, levels, fold int) (onnx.Value, kind.Flow, []string, error) {
	in := f.a.Inputs[i]
	x, flow := v.Value, kind.Numbers
	if v.Type == types.String {
		flow = kind.Texts
	}
	var names []string
	for l := range levels {
		e, args, err := f.encoder(in.Encoders[l])
		if err != nil {
			return "", "", nil, err
		}
		out, ok := e.Accepts(flow, args)
		if !ok {
			return "", "", nil, fmt.Errorf("encoder %s does not take %s", e.Name(), in.Feature)
		}
		params := f.params[i][l]
		if p := f.folded[place{i, l}]; fold != whole && p != nil {
			params = p[fold]
		}
		y, ns, err := e.Lower(g, flow, x, args, params)
		if err != nil {
			return "", "", nil, fmt.Errorf("%s of %s: %w", e.Name(), in.Feature, err)
		}
		x, flow, names = y, out, ns
	}
	return x, flow, names, nil
}

// fit runs the training rows up to a level and fits that level's encoders of
// some inputs.
func (f *fitter) fit(ctx context.Context, inputs []int, level int, parts parts) error {
	g := onnx.New("fit")
	values, err := f.start(g)
	if err != nil {
		return err
	}
	flows := make([]kind.Flow, len(inputs))
	for k, i := range inputs {
		x, flow, _, err := f.encode(g, values[f.a.Inputs[i].Feature], i, level, whole)
		if err != nil {
			return err
		}
		t := onnx.Double
		if flow == kind.Texts {
			t = onnx.String
		}
		flows[k] = flow
		g.Output(fmt.Sprintf("out%d", k), x, t, -1, 1)
	}
	m, err := openModel(g.Marshal())
	if err != nil {
		return err
	}
	defer m.Close()
	out := make([]kind.Values, len(inputs))
	interned := map[string]string{}
	for k := range out {
		if flows[k] == kind.Texts {
			out[k].Texts = make([]string, parts.count(kind.Train))
		} else {
			out[k].Numbers = make([]float64, parts.count(kind.Train))
		}
	}
	err = m.stream(ctx, f.s, f.a.Raw, parts, kind.Train, func(at int, res []any) {
		for k, r := range res {
			switch r := r.(type) {
			case []float64:
				copy(out[k].Numbers[at:], r)
			case []string:
				for j, t := range r {
					if have, ok := interned[t]; ok {
						t = have
					} else {
						interned[t] = t
					}
					out[k].Texts[at+j] = t
				}
			}
		}
	})
	if err != nil {
		return err
	}
	for k, i := range inputs {
		e, args, err := f.encoder(f.a.Inputs[i].Encoders[level])
		if err != nil {
			return err
		}
		if err := f.learn(i, level, e, args, out[k]); err != nil {
			return err
		}
		out[k] = kind.Values{}
	}
	return nil
}

// graph is the transform for serving, or for a fold's training rows: X, float
// [N, columns].
func (f *fitter) graph(fold int) (*onnx.Graph, []string, error) {
	g := onnx.New("transform")
	values, err := f.start(g)
	if err != nil {
		return nil, nil, err
	}
	var blocks, numbers []onnx.Value
	var cols []string
	narrow := func() { // numbers side by side become floats together
		if len(numbers) > 0 {
			blocks = append(blocks, g.Cast(g.Concat(numbers...), onnx.Float))
			numbers = nil
		}
	}
	for i, in := range f.a.Inputs {
		x, flow, names, err := f.encode(g, values[in.Feature], i, len(in.Encoders), fold)
		if err != nil {
			return nil, nil, err
		}
		if flow == kind.Block {
			narrow()
			blocks = append(blocks, x)
			for _, n := range names {
				cols = append(cols, in.Feature+"="+n)
			}
			continue
		}
		numbers = append(numbers, x)
		cols = append(cols, in.Feature)
	}
	narrow()
	g.Output("X", g.Concat(blocks...), onnx.Float, -1, int64(len(cols)))
	return g, cols, nil
}

// parts is the part of each row, by row id.
type parts []kind.Part

func (p parts) count(of kind.Part) int {
	n := 0
	for _, q := range p {
		if q == of {
			n++
		}
	}
	return n
}

func readParts(ctx context.Context, path string) (parts, error) {
	var out parts
	err := table.Read(ctx, path, map[string]table.Form{"part": table.Ints}, func(b table.Batch) error {
		for _, p := range b.Ints("part") {
			out = append(out, kind.Part(p))
		}
		return nil
	})
	return out, err
}
