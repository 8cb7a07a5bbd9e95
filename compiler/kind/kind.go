// Package kind holds the contracts that a source, trainer, encoder, split or
// metric fulfils, and the Set that the one table of them is made of. The
// compiler and the runtime know kinds only through it.
package kind

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/onnx"
	"mlc.dev/mlc/compiler/types"
	"mlc.dev/mlc/schema"
)

// Kinds is everything that users choose by `kind` or by name.
type Kinds struct {
	Sources  Set[Source]
	Encoders Set[Encoder]
	Splits   Set[Split]
	Trainers Set[Trainer]
	Metrics  Set[Metric]
	// CustomMetrics are declared under metrics.custom, with arguments.
	CustomMetrics Set[CustomMetric]
	Calibrators   Set[Calibrator]
}

// Schemas returns the CUE of every kind that has one.
func (k Kinds) Schemas() []schema.Kind {
	var out []schema.Kind
	out = append(out, schemas(k.Sources)...)
	out = append(out, schemas(k.Encoders)...)
	out = append(out, schemas(k.Splits)...)
	out = append(out, schemas(k.Trainers)...)
	out = append(out, schemas(k.Calibrators)...)
	return append(out, schemas(k.CustomMetrics)...)
}

func schemas[T Kind](s Set[T]) []schema.Kind {
	var out []schema.Kind
	for _, n := range s.Names() {
		k, _ := s.Get(n)
		out = append(out, k.Schema())
	}
	return out
}

// Named is what a Set holds.
type Named interface {
	// Name is what users write.
	Name() string
}

// Set is a family of kinds by name.
type Set[T Named] struct{ byName map[string]T }

// Of makes a Set. A name that comes twice panics: it is our mistake, and any
// test meets it.
func Of[T Named](ks ...T) Set[T] {
	s := Set[T]{map[string]T{}}
	for _, k := range ks {
		if _, dup := s.byName[k.Name()]; dup {
			panic(fmt.Sprintf("kind %q is registered twice", k.Name()))
		}
		s.byName[k.Name()] = k
	}
	return s
}

// Get returns the kind of a name and whether there is one.
func (s Set[T]) Get(name string) (T, bool) { k, ok := s.byName[name]; return k, ok }

// Names returns the names in order.
func (s Set[T]) Names() []string {
	out := make([]string, 0, len(s.byName))
	for n := range s.byName {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Kind is a choice with a definition in the schema.
type Kind interface {
	Versioned
	// Schema is the kind's CUE definition.
	Schema() schema.Kind
}

// Fault is a mistake in a kind's own arguments: Field is the path of the field
// under the kind's struct ("" for the whole), Span, when not zero, a byte range
// inside that field's string.
type Fault struct {
	Field      string
	Start, End int
	Code       diag.Code
	What       string
	Why, Mend  string
}

// Faults are mistakes of the user's that a kind finds while it runs.
type Faults []Fault

// Error joins the texts.
func (f Faults) Error() string {
	out := make([]string, len(f))
	for i, x := range f {
		out[i] = x.What
	}
	return strings.Join(out, "; ")
}

// Engine is the set-wise SQL engine as kinds use it: DuckDB's dialect.
type Engine interface {
	Exec(ctx context.Context, query string, args ...any) error
	Row(ctx context.Context, query string, dest ...any) error
	Rows(ctx context.Context, query string, f func(scan func(dest ...any) error) error) error
	Columns(ctx context.Context, query string) (names, sqlTypes []string, err error)
	WriteParquet(ctx context.Context, query, path string) error
}

// Column is a declared column of a source.
type Column struct {
	Name         string     `json:"name"`
	Type         types.Type `json:"type"`
	Never        bool       `json:"never,omitempty"` // nulls: "never"
	NullFraction *float64   `json:"null_fraction,omitempty"`
	Min          *float64   `json:"min,omitempty"`
	Max          *float64   `json:"max,omitempty"`
	In           []any      `json:"in,omitempty"`
}

// Source reads a table.
type Source interface {
	Kind
	// Files returns the files that the source reads, in the order of their rows,
	// relative to dir or absolute. A Fault names the field that is wrong.
	Files(args json.RawMessage, dir string) ([]string, []Fault)
	// Names returns the columns that one file has, as its own header tells.
	Names(ctx context.Context, args json.RawMessage, path string, engine Engine) ([]string, error)
	// Ordered reports whether the order of the declared columns matters.
	Ordered(args json.RawMessage) bool
	// Snapshot copies the rows as they are.
	Snapshot(ctx context.Context, job SnapshotJob) (SnapshotReport, error)
}

// NullTexts is a source that reads some texts as missing values.
type NullTexts interface {
	// NullTexts are those that none of its rows can have, in all of its files.
	NullTexts(args json.RawMessage, files []string) []string
}

// SnapshotJob asks for one copy. Lines that cannot be split into columns go to Rejects
// as JSON lines {"file","line","row","reason","text"}; the rows of a file are numbered
// from 1, with those that are rejected.
type SnapshotJob struct {
	Args    json.RawMessage
	Columns []Column
	Files   []string // absolute paths
	Labels  []string // what users call them
	Engine  Engine
	// Write writes the rows of a query, in their order, to the Parquet file Out. The
	// query has the columns _file (INTEGER: index in Files) and the declared ones, each
	// as text or in its declared type's SQL type. It may number the rows itself, as _row
	// (BIGINT: from 1 over all files), where that is cheaper than Write's own way.
	Write        func(ctx context.Context, query string) error
	Out, Rejects string
	// Keep are columns that the query is to have as _keep0, _keep1, … besides: texts of
	// formats of text, JSON of JSON lines, of Parquet what it has.
	Keep []string
	// Reads are the validated rows of the sources that this one reads, Parquet
	// files by the source's name.
	Reads map[string]string
	Work
}

// Derived is a source that is made of others.
type Derived interface {
	// Reads names the sources that it is made of.
	Reads(args json.RawMessage) []string
}

// SnapshotReport counts what a Snapshot read.
type SnapshotReport struct {
	Rows     int64
	Rejected int64
}

// Task is what a model learns.
type Task struct {
	Kind string `json:"kind"`
	// Classes are the classes (binary: false and true), or a multilabel's labels.
	Classes []string `json:"classes,omitempty"`
	// Quantiles are those that a quantile task predicts, rising, between 0 and 1.
	Quantiles []float64 `json:"quantiles,omitempty"`
	// Threshold is the least probability (anomaly: score) that is decided as true; 0
	// stands for 0.5.
	Threshold float64 `json:"threshold,omitempty"`
}

// The task kinds: whether; which one of the classes; which of the labels, each on
// its own; how much; the quantiles of how much; how many (a mean of whole numbers
// from 0); and how unusual, where labels judge and never teach.
const (
	Binary     = "binary"
	Multiclass = "multiclass"
	Multilabel = "multilabel"
	Regression = "regression"
	Quantile   = "quantile"
	Count      = "count"
	Anomaly    = "anomaly"
)

// Width is the number of values in a prediction.
func (t Task) Width() int {
	switch t.Kind {
	case Multiclass, Multilabel:
		return len(t.Classes)
	case Quantile:
		return len(t.Quantiles)
	}
	return 1
}

// Targets is the number of values in a row's label: one for each label of a
// multilabel task, else 1.
func (t Task) Targets() int {
	if t.Kind == Multilabel {
		return len(t.Classes)
	}
	return 1
}

// Numeric reports whether a label is a number that is measured or counted.
func (t Task) Numeric() bool { return IsNumeric(t.Kind) }

// IsNumeric is Task.Numeric by the task's kind.
func IsNumeric(task string) bool { return task == Regression || task == Quantile || task == Count }

// Cut is the least probability, or score, that is decided as true, of each label where
// there are several: Threshold, or 0.5 without one; 0 where the task decides no such thing.
func (t Task) Cut() float64 {
	switch {
	case t.Kind == Multiclass || t.Numeric():
		return 0
	case t.Threshold == 0:
		return 0.5
	}
	return t.Threshold
}

// Matrix is dense, row-major float32. NaN is a missing value.
type Matrix struct {
	Rows, Cols int
	Data       []float32
}

// Row returns row i; it shares memory with m.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Cols : (i+1)*m.Cols] }

// Examples are feature rows with their labels, Task.Targets() each: 0 or 1 (binary,
// anomaly, and each label of a multilabel), a class index (multiclass), or the value
// (regression, quantile, count).
type Examples struct {
	X Matrix
	Y []float64
}

// Trainer makes a model of examples.
type Trainer interface {
	Kind
	// Check finds mistakes in the arguments for a task kind.
	Check(args json.RawMessage, task string) []Fault
	// Defaults returns the encoders, as arguments with their kind, for a feature
	// of a type when the spec names none; nothing for a string: it has to name some.
	Defaults(t types.Type) []json.RawMessage
	// Features reports whether it looks at the features at all.
	Features() bool
	// Train learns from job.Train, may stop early by job.Valid, and sees nothing else.
	Train(ctx context.Context, job TrainJob) (TrainResult, error)
}

// TrainJob asks for one training.
type TrainJob struct {
	Task         Task
	Args         json.RawMessage
	Seed         uint64
	Threads      int
	Names        []string // of the columns of X
	Train, Valid Examples
	// Files are the paths of the files of a Filed trainer, by argument.
	Files map[string]string
	// Progress tells how far the training is; total 0 means unknown.
	Progress func(done, total int, note string)
	Work
}

// Work is what a kind that is Commanded runs its command with.
type Work struct {
	Dir string // an empty folder
	// Code is the folder of the user's code, or "".
	Code   string
	Memory int64 // bytes that the command may take
	Log    func(line string)
}

// Commanded is a kind whose work is done by a command of the user's, in a
// container of its own or, where its Command says so, in place.
type Commanded interface {
	// Command returns what the arguments say of the container.
	Command(args json.RawMessage) Command
}

// Command is what a container is made of. At most one of Image and Archive is set;
// without them it is the runner's own base.
type Command struct {
	Image   string            `json:"image"`
	Archive string            `json:"archive"` // path of an OCI archive
	Code    string            `json:"code"`    // path of a folder
	Env     map[string]string `json:"env"`
	Secrets map[string]string `json:"secrets"` // references, by variable
	Caches  map[string]string `json:"caches"`  // paths in the container, by name
	// InPlace: without Image and Archive it needs no container, and runs on a runner
	// that has none with nothing of the above but Code.
	InPlace bool `json:"-"`
}

// Filed is a trainer that works on files of the user's.
type Filed interface {
	// Files returns the files' paths, from the spec's folder or absolute, by the
	// argument that names each. The step's key has what is in a file in place of
	// that argument, so that moving a file changes nothing.
	Files(args json.RawMessage) map[string]string
}

// Ensemble is a trainer whose features are what other models predict: the columns of X
// are each one's Task.Width() predictions, in the order of Members. It learns from the
// validation rows, which they did not learn from.
type Ensemble interface {
	// Members names the models.
	Members(args json.RawMessage) []string
}

// Validated is a trainer whose arguments can ask for validation rows.
type Validated interface {
	// Unvalidated is what is wrong with the arguments where there are none.
	Unvalidated(args json.RawMessage) []Fault
}

// Naming is a trainer whose arguments name columns of its matrix. These are called as
// their features are, with more behind that where a feature makes several.
type Naming interface {
	// Named are the columns' names and patterns (path.Match), by the field that names each.
	Named(args json.RawMessage) map[string]string
}

// TrainResult is a trained model.
type TrainResult struct {
	// Model is ONNX: input X, float [N, cols]; output Y, float [N, Task.Width()]:
	// the probability of true, of each class or of each label, the value, the value of
	// each quantile (never falling), the mean count, or the score from 0 (usual) to 1.
	Model []byte
	// Predict is the trainer's own prediction, in Go, of shape rows × Task.Width().
	// Packaging proves that Model gives the same.
	Predict func(Matrix) []float32
	// Report tells how the training went; it ends up in the model card.
	Report map[string]any
}

// Flow is what moves between encoders.
type Flow string

// Numbers are doubles [N,1] with NaN for a missing value, Texts strings [N,1]
// with types.NullString, and a Block is the final float [N,k], never missing.
const (
	Numbers Flow = "number"
	Texts   Flow = "text"
	Block   Flow = "block"
)

// Values are the training rows of one feature, in one of the two forms. A Supervised
// encoder gets their labels too, as in Examples.
type Values struct {
	Numbers []float64
	Texts   []string
	Labels  []float64
	Task    Task
	// Whole is what was learned of all training rows, where these are those out of a fold.
	Whole json.RawMessage
}

// Encoder turns a feature into numbers, in one way for training and serving:
// by ONNX.
type Encoder interface {
	Kind
	// Accepts returns what comes out for what goes in, or false.
	Accepts(in Flow, args json.RawMessage) (out Flow, ok bool)
	// Learns tells whether Fit needs values at all.
	Learns() bool
	// Fit learns parameters from the training rows' values, and from no others. It fails
	// where they give nothing to learn; a Faults brings its own Mend.
	Fit(args json.RawMessage, v Values) (params json.RawMessage, err error)
	// Lower adds the encoder to a graph. names labels the columns of a Block, and
	// is empty for Numbers and Texts.
	Lower(g *onnx.Graph, in Flow, x onnx.Value, args, params json.RawMessage) (y onnx.Value, names []string, err error)
}

// Supervised is an encoder that learns from the labels. A row that trains is encoded
// by what was learned of other rows (out of fold), so that no row sees its own label.
type Supervised interface {
	// Supervised tells the tasks that it fits.
	Supervised() []string
}

// Typed is an encoder that takes features of some types only, as they are.
type Typed interface {
	Types() []types.Type
}

// Part says what a row is for.
type Part uint8

// A row trains, validates, tests, or is left out (purged) because its outcome
// is known only in a later part.
const (
	Train Part = iota
	Valid
	Test
	Purged
)

// PartNames are the parts' names, by Part.
var PartNames = []string{"train", "validation", "test", "purged"}

// SplitInfo is what the compiler knows of a problem when it checks a split.
type SplitInfo struct {
	HasTime   bool
	HasEntity bool
	// Late is how long after the prediction time every outcome is known at the earliest,
	// microseconds.
	Late int64
}

// SplitJob asks for the part of every row. Slices are parallel; Time and Known are
// empty without a prediction time.
type SplitJob struct {
	Args  json.RawMessage
	Seed  uint64
	Group []string // identity: rows with the same one stay together under random splits
	Time  []int64  // prediction time, microseconds
	Known []int64  // from when on the outcome is known, microseconds
	Label []float64
	File  []int32
	Files []string
	// Column is that of a ByColumn, as texts; types.NullString is a missing value.
	Column []string
	Task   Task
	// Rows is the dataset, a Parquet file: the columns _row_id (from 0, the index
	// into the slices), _label, _at, _known, _group and the features.
	Rows   string
	Engine Engine
	Work
}

// Split divides the rows.
type Split interface {
	Kind
	Check(args json.RawMessage, info SplitInfo) []Fault
	// Validates reports whether the arguments leave validation rows; true where only
	// the rows can tell.
	Validates(args json.RawMessage) bool
	// Assign returns the part of every row, in their order.
	Assign(ctx context.Context, job SplitJob) ([]Part, error)
}

// ByColumn is a split that looks at a column of the label's source, which need not
// be a feature. Its argument column names it.
type ByColumn interface {
	// Column is the column's name.
	Column(args json.RawMessage) string
}

// Folded is a split that judges a model by training it several times
// (cross-validation). Its Assign is for the model that is kept, which trains on all
// rows but those that stop it early, and leaves none to test.
type Folded interface {
	// Folds is how many trainings there are beside.
	Folds(args json.RawMessage) int
	// AssignFold returns the part of every row in one of them, from 0.
	AssignFold(ctx context.Context, job SplitJob, fold int) ([]Part, error)
}

// Direction tells which values of a metric are better.
type Direction int

// Up: greater is better.
const (
	Up   Direction = 1
	Down Direction = -1
)

// Versioned is what takes part in a step's key.
type Versioned interface {
	Named
	// Version changes whenever the same arguments and inputs can give another
	// result.
	Version() int
}

// Metric judges predictions.
type Metric interface {
	Versioned
	// Tasks are the task kinds that it fits.
	Tasks() []string
	// Better tells the good direction.
	Better() Direction
	// Range is where its values lie, whatever is predicted; a bound may be infinite.
	Range() (lo, hi float64)
	// Compute judges predictions p, of Task.Width() a row, against y, of
	// Task.Targets() a row, as in Examples and TrainResult. It fails where the metric is not defined, e.g. on one class only.
	Compute(task Task, y []float64, p []float32) (float64, error)
}

// CustomMetric is a metric with arguments of its own, which a problem declares
// under a name. It judges the test rows.
type CustomMetric interface {
	Kind
	// Better tells the good direction.
	Better(args json.RawMessage) Direction
	// Measure judges predictions. A value that is no number is a fault.
	Measure(ctx context.Context, job MeasureJob) (float64, error)
}

// MeasureJob asks for one value. Rows is a Parquet file of the test rows: the
// columns _row_id, _label (of a multilabel _label.1, … too) and _at, the predictions p0, p1, … (Task.Width() of
// them), and the features as they came from outside.
type MeasureJob struct {
	Task Task
	Args json.RawMessage
	Rows string
	Work
}

// DecodeArgs reads a kind's arguments; the schema has checked them, so a failure
// is a mistake of ours and panics.
func DecodeArgs[T any](args json.RawMessage) T {
	var out T
	if err := json.Unmarshal(args, &out); err != nil {
		panic(fmt.Sprintf("kind: arguments %s: %v", args, err))
	}
	return out
}
