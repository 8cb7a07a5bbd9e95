package op

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"mlc.dev/mlc/compiler/kind"
	"mlc.dev/mlc/compiler/lower"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/table"
)

// chunk is how many rows go through a model at once; larger is no faster.
const chunk = 1024

// model is a loaded ONNX model of which every input is a raw feature.
type model struct{ *ort.Session }

func openModel(b []byte) (*model, error) {
	s, err := ort.Open(b)
	if err != nil {
		return nil, err
	}
	return &model{s}, nil
}

// columns holds raw features by name, []float64 or []string.
type columns map[string]any

// forms are how raw features are read from a table.
func forms(raw []lower.RawFeature) map[string]table.Form {
	out := map[string]table.Form{}
	for _, r := range raw {
		out[r.Name] = table.Floats
		if r.Type == types.String {
			out[r.Name] = table.Texts
		}
	}
	return out
}

// run feeds rows of columns to the model and returns its outputs' data.
func (m *model) run(c columns) ([]any, error) {
	in, n := make([]ort.Value, len(m.Inputs())), 0
	for i, info := range m.Inputs() {
		switch d := c[info.Name].(type) {
		case []float64:
			in[i], n = ort.Column(d), len(d)
		case []string:
			in[i], n = ort.Column(d), len(d)
		default:
			return nil, fmt.Errorf("no values for input %q", info.Name)
		}
	}
	var out []any
	from := 0
	for _, to := range ort.Portions(in, n, chunk) {
		part := make([]ort.Tensor, len(in))
		for i, v := range in {
			part[i] = ort.Rows(v.(ort.Tensor), from, to)
		}
		res, err := m.Run(part)
		if err != nil {
			return nil, err
		}
		if from = to; out == nil {
			out = make([]any, len(res))
		}
		for i, t := range res {
			if out[i], err = more(out[i], t.Data); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// more is an output's data with that of the next rows; nil: there is none yet. The
// outputs of models of ours are floats and texts.
func more(have, next any) (any, error) {
	if have == nil {
		return next, nil
	}
	switch next := next.(type) {
	case []float32:
		return extend(have, next), nil
	case []string:
		return extend(have, next), nil
	}
	return nil, fmt.Errorf("an output of %T", next)
}

// parallel runs n rows on all cores, in pieces that do not depend on their number,
// and returns the outputs' data, []float32 or []string, in order.
func (m *model) parallel(ctx context.Context, c columns, n int) ([]any, error) {
	pieces := make([][]any, (n+chunk-1)/chunk)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(pieces)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(pieces) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				rows, from, to := columns{}, i*chunk, min(n, (i+1)*chunk)
				for name, v := range c {
					switch d := v.(type) {
					case []float64:
						rows[name] = d[from:to]
					case []string:
						rows[name] = d[from:to]
					}
				}
				var err error
				if pieces[i], err = m.run(rows); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	out := make([]any, len(m.Outputs()))
	for _, p := range pieces {
		for i, d := range p {
			var err error
			if out[i], err = more(out[i], d); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// stream runs the rows of one part of the dataset through the model, on all
// cores. f gets each chunk's outputs with the place of its first row among the
// part's rows; calls do not overlap, but come in any order.
func (m *model) stream(ctx context.Context, s *Stage, raw []lower.RawFeature, p parts, of kind.Part, f func(at int, out []any)) error {
	places := p.places()
	return m.streamParts(ctx, s, raw, p, []kind.Part{of}, func(ids []int64, out []any) { f(int(places[ids[0]]), out) })
}

// streamParts is stream of several parts in one reading: f gets the ids of a chunk's rows.
func (m *model) streamParts(ctx context.Context, s *Stage, raw []lower.RawFeature, p parts, of []kind.Part, f func(ids []int64, out []any)) error {
	total := int64(0)
	for _, part := range of {
		total += int64(p.count(part))
	}
	if total == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		ids  []int64
		rows columns
	}
	jobs := make(chan job, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := int64(0)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				out, err := m.run(j.rows)
				if err != nil {
					cancel(err)
					continue
				}
				mu.Lock()
				f(j.ids, out)
				done += int64(len(j.ids))
				s.Progress(done, total, "rows", "")
				mu.Unlock()
			}
		})
	}
	var ids []int64                          // of the batch
	pick := func(start int64, n int) []int { // a row's id is its place
		keep := make([]int, 0, n)
		ids = make([]int64, 0, n)
		for i, q := range p[start : start+int64(n)] {
			if slices.Contains(of, q) {
				keep, ids = append(keep, i), append(ids, start+int64(i))
			}
		}
		return keep
	}
	err := table.ReadRows(ctx, s.In("dataset", "rows.parquet"), forms(raw), pick, func(b table.Batch) error {
		for from := 0; from < b.Rows; from += chunk {
			to := min(b.Rows, from+chunk)
			j := job{ids[from:to], columns{}}
			for _, r := range raw {
				switch d := b.Columns[r.Name].(type) {
				case []float64:
					j.rows[r.Name] = d[from:to]
				case []string:
					j.rows[r.Name] = d[from:to]
				}
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	close(jobs)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// matrix is the training matrix of one part: the transform's output X.
func (m *model) matrix(ctx context.Context, s *Stage, t Transform, p parts, of kind.Part) (kind.Matrix, error) {
	x, err := m.matrices(ctx, s, t, p, of)
	return x[0], err
}

// matrices are those of several parts, by one reading of the dataset.
func (m *model) matrices(ctx context.Context, s *Stage, t Transform, p parts, of ...kind.Part) ([]kind.Matrix, error) {
	out := make([]kind.Matrix, len(of))
	for i, part := range of {
		out[i] = kind.Matrix{Rows: p.count(part), Cols: len(t.Columns)}
		out[i].Data = make([]float32, out[i].Rows*out[i].Cols)
	}
	places := p.places()
	return out, m.streamParts(ctx, s, t.Raw, p, of, func(ids []int64, res []any) {
		x, w := res[0].([]float32), len(t.Columns)
		for k, id := range ids {
			copy(out[slices.Index(of, p[id])].Row(int(places[id])), x[k*w:(k+1)*w])
		}
	})
}

// folded is the training rows' matrix where an encoder learned from labels: each row
// by the transform that was fitted without its fold.
func folded(ctx context.Context, s *Stage, t Transform, p parts, task kind.Task) (kind.Matrix, error) {
	x := kind.Matrix{Rows: p.count(kind.Train), Cols: len(t.Columns)}
	x.Data = make([]float32, x.Rows*x.Cols)
	known, err := labels(ctx, s, task, p, kind.Train)
	if err != nil {
		return x, err
	}
	for k := range folds {
		own := make(parts, len(p))
		for i := range own {
			own[i] = kind.Purged
		}
		var rows []int
		for r, id := range known.ids {
			if foldOf(known.groups[r]) == k {
				own[id] = kind.Train
				rows = append(rows, r)
			}
		}
		graph, err := os.ReadFile(s.In("transform", foldFile(k)))
		if err != nil {
			return x, err
		}
		m, err := openModel(graph)
		if err != nil {
			return x, err
		}
		part, err := m.matrix(ctx, s, t, own, kind.Train)
		if err := errors.Join(err, m.Close()); err != nil {
			return x, err
		}
		for i, r := range rows {
			copy(x.Row(r), part.Row(i))
		}
	}
	return x, nil
}

// proof is the part of the rows by which the package is proved: the test rows, or
// where a cross-validation left none the validation or the training rows.
func (p parts) proof() kind.Part {
	for _, of := range []kind.Part{kind.Test, kind.Valid} {
		if p.count(of) > 0 {
			return of
		}
	}
	return kind.Train
}

// places are those of each row among the rows of its part.
func (p parts) places() []int32 {
	out := make([]int32, len(p))
	next := map[kind.Part]int32{}
	for i, of := range p {
		out[i] = next[of]
		next[of]++
	}
	return out
}

// ids are those of one part's rows.
func (p parts) ids(of kind.Part) []int64 {
	out := make([]int64, 0, p.count(of))
	for i, q := range p {
		if q == of {
			out = append(out, int64(i))
		}
	}
	return out
}

// truth is what is known of one part's rows, in order.
type truth struct {
	ids    []int64
	groups []string  // identities
	y      []float64 // Task.Targets() a row
}

// labels reads it.
func labels(ctx context.Context, s *Stage, task kind.Task, p parts, of kind.Part) (truth, error) {
	out, err := truths(ctx, s, task, p, true, of)
	return out[0], err
}

// truths reads that of several parts at once, with the identities or without.
func truths(ctx context.Context, s *Stage, task kind.Task, p parts, grouped bool, of ...kind.Part) ([]truth, error) {
	out := make([]truth, len(of))
	want := map[string]table.Form{colRow: table.Ints}
	if grouped {
		want[colGroup] = table.Texts
	}
	for t := range task.Targets() {
		want[labelColumn(t)] = table.Floats
	}
	err := table.Read(ctx, s.In("dataset", "rows.parquet"), want, func(b table.Batch) error {
		var groups []string
		if grouped {
			groups = b.Texts(colGroup)
		}
		for i, id := range b.Ints(colRow) {
			at := slices.Index(of, p[id])
			if at < 0 {
				continue
			}
			to := &out[at]
			if to.ids = append(to.ids, id); grouped {
				to.groups = append(to.groups, groups[i])
			}
			for t := range task.Targets() {
				to.y = append(to.y, b.Floats(labelColumn(t))[i])
			}
		}
		return nil
	})
	return out, err
}

// inputs declares raw features as a graph's inputs.
func inputs(g *onnx.Graph, raw []lower.RawFeature) map[string]onnx.Value {
	in := map[string]onnx.Value{}
	for _, r := range raw {
		dt := onnx.Double
		if r.Type == types.String {
			dt = onnx.String
		}
		in[r.Name] = g.Input(r.Name, dt, -1, 1)
	}
	return in
}

// join adds a transform and a trainer's model to a graph with the raw features in, and
// returns the model's predictions.
func join(g *onnx.Graph, in map[string]onnx.Value, t Transform, transform, trained []byte) (onnx.Value, error) {
	own := map[string]onnx.Value{}
	for _, r := range t.Raw {
		own[r.Name] = in[r.Name]
	}
	mid, err := g.Merge(transform, own)
	if err != nil {
		return "", fmt.Errorf("transform: %w", err)
	}
	out, err := g.Merge(trained, map[string]onnx.Value{"X": mid["X"]})
	if err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	return out["Y"], nil
}

// fuse joins a transform and a trainer's model to one graph that takes raw
// features, and names its outputs by task: probability (binary), probabilities
// and class (multiclass), probabilities (multilabel), quantiles, score (anomaly), else
// prediction.
func fuse(task kind.Task, t Transform, transform, trained []byte, meta map[string]string) ([]byte, error) {
	g := onnx.New("model")
	for k, v := range meta {
		g.Meta(k, v)
	}
	y, err := join(g, inputs(g, t.Raw), t, transform, trained)
	if err != nil {
		return nil, err
	}
	w := int64(task.Width())
	switch task.Kind {
	case kind.Multiclass:
		g.Output(bundle.MainOutput(task.Kind), y, onnx.Float, -1, w)
		best := g.OpA("ArgMax", onnx.Attrs{"axis": 1, "keepdims": 1}, y)
		g.Output("class", g.OpA("Gather", onnx.Attrs{"axis": 0}, g.Const(task.Classes, int64(len(task.Classes))), best), onnx.String, -1, 1)
	default:
		g.Output(bundle.MainOutput(task.Kind), y, onnx.Float, -1, w)
	}
	return g.Marshal(), nil
}

// loaded is what judging a model takes: its task, the parts of the rows, and the model,
// which the caller closes.
func (s *Stage) loaded(ctx context.Context) (meta Meta, p parts, t Transform, m *fusedModel, err error) {
	if meta, err = readJSON[Meta](s.In("meta", "meta.json")); err != nil {
		return
	}
	if p, err = readParts(ctx, s.In("split", "parts.parquet")); err != nil {
		return
	}
	t, m, err = fusedInputs(s, meta, nil)
	return
}

// fusedInputs reads a stage's transform and model and loads them as one.
func fusedInputs(s *Stage, meta Meta, info map[string]string) (Transform, *fusedModel, error) {
	t, err := readJSON[Transform](s.In("transform", "transform.json"))
	if err != nil {
		return t, nil, err
	}
	transform, err := os.ReadFile(s.In("transform", "transform.onnx"))
	if err != nil {
		return t, nil, err
	}
	trained, err := os.ReadFile(s.In("model", "model.onnx"))
	if err != nil {
		return t, nil, err
	}
	b, err := fuse(meta.Task, t, transform, trained, info)
	if err != nil {
		return t, nil, err
	}
	m, err := openModel(b)
	if err != nil {
		return t, nil, err
	}
	return t, &fusedModel{m, b}, nil
}

// fusedModel is a loaded model with its bytes.
type fusedModel struct {
	*model
	bytes []byte
}
