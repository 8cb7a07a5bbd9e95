// Package predlog is the prediction log of a service: what was asked and
// answered, in Parquet files or in a Kafka topic. It never delays or fails a
// request: what cannot be kept is dropped and counted.
//
// Its memory is bounded: at most Buffer records and 64 MiB of them wait, and as
// much again is in the open segments or on its way to Kafka, with a megabyte and one
// record more where a topic takes no large batches. While a segment is
// written its values are there up to five times more, as columns and as pages: 320 MiB
// where one segment has all 64. A process that is killed loses what waits and the rows
// of its open segments, and no other.
package predlog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// maxBytes bounds the records that wait, and again those in open segments or on
// their way to Kafka, by what they keep alive.
const maxBytes = 64 << 20

// between is the least time from one telling of failures to the next.
const between = time.Minute

// Options say what a log keeps, and where.
type Options struct {
	Config  service.Log
	Service string
	// Replica tells apart who writes to one folder; "": the host's name and a
	// random number.
	Replica string
	// Secret gives the value of a secret's reference, anew for each connection.
	Secret  func(ref string) (string, error)
	Metrics *Metrics     // nil: nobody counts
	Logger  *slog.Logger // hears of failures, at most once a minute; nil: the default
}

// Metrics are counted since the log was opened. After a Close without an error
// Written and Dropped add up to the records that were offered and sampled.
type Metrics struct {
	// Written and Dropped count records, whatever the reason for dropping them.
	Written, Dropped atomic.Uint64
	// Failed counts segments or messages that could not be written, Segments those
	// segments that were.
	Failed, Segments atomic.Uint64
}

// Record is one request and its answer. The log keeps the inputs until they are
// written: they must not change after Add.
type Record struct {
	Time time.Time
	// ID is the request's. By it a record is sampled, and keyed in Kafka.
	ID string
	// Model, Version and Variant answered, or should have.
	Model, Version, Variant string
	Fallback, Shadow        bool
	// Err is why there is no answer, or not the model's but the fallback's.
	Err                   *api.Error
	Queue, Compute, Total time.Duration
	// Threshold is the least probability, or score, that was decided as true; 0: the task
	// has no such decision.
	Threshold float64
	// Rows is as in api.Call: 0 where the model does not batch.
	Rows int
	// Schema is that of the model, by Log.Schema; without one neither inputs nor
	// outputs are written.
	Schema *Schema
	// Inputs and Outputs are in the schema's order. Those at the end may be absent,
	// and any nil; they are written as NULL.
	Inputs, Outputs []ort.Value

	bytes int64 // size, counted once
}

// rows is how many rows the record makes: one where there is nothing to tell
// rows apart by.
func (r *Record) rows() int {
	if r.Rows < 1 || r.Schema == nil || len(r.Inputs)+len(r.Outputs) == 0 {
		return 1
	}
	return r.Rows
}

// shed lets go of what is not written: values without a schema, those that are
// masked, and the cause of an error.
func (r *Record) shed() {
	if r.Err != nil {
		r.Err = &api.Error{Kind: r.Err.Kind, Text: r.Err.Text}
	}
	if r.Schema == nil {
		r.Inputs, r.Outputs = nil, nil
		return
	}
	r.Inputs = slices.Clone(r.Inputs)
	for i := range r.Inputs {
		if i < len(r.Schema.inputs) && r.Schema.inputs[i].masked {
			r.Inputs[i] = nil
		}
	}
}

// own is the record with values that keep no more alive than size counts: an output
// may be a few rows of a large batch, and a text a part of a large one. The numbers of
// inputs stay as they are, for a call has those to itself.
func (r Record) own() *Record {
	for i, v := range r.Inputs {
		t, tensor := v.(ort.Tensor)
		if _, texts := t.Data.([]string); texts || !tensor {
			r.Inputs[i] = owned(v)
		}
	}
	r.Outputs = slices.Clone(r.Outputs)
	for i, v := range r.Outputs {
		r.Outputs[i] = owned(v)
	}
	return &r
}

// size is the most that the record keeps alive once it is its own.
func (r *Record) size() int64 {
	n := int64(r.rows())*256 + int64(len(r.ID)+len(r.Model)+len(r.Version)+len(r.Variant)) + 256
	if r.Err != nil {
		n += int64(len(r.Err.Text))
	}
	for _, v := range r.Inputs {
		n += sizeOf(v)
	}
	for _, v := range r.Outputs {
		n += sizeOf(v)
	}
	return n
}

// Log takes records from any number of goroutines.
type Log struct {
	o    Options
	sink sink
	mask map[string]bool

	mu     sync.RWMutex // Add reads, Close writes
	closed bool
	queue  chan *Record
	bytes  atomic.Int64 // of the records in the queue

	stop   context.CancelFunc // gives up what is not written yet
	done   chan struct{}
	faults chan struct{} // there are losses to tell
	lost   losses
	told   chan struct{}
}

// sink is where records go. It is used by one goroutine, and tells the log what
// became of each record.
type sink interface {
	add(ctx context.Context, r *Record)
	// due fires when there is something to do without a new record; nil: never.
	due() <-chan time.Time
	work(ctx context.Context)
	// close writes all that is left, or drops it once ctx is done.
	close(ctx context.Context)
}

// errFull is why a record is dropped at once.
var errFull = errors.New("the buffer is full: records come faster than they can be written")

// Open starts a log. Only a configuration that cannot work is an error: a folder
// or a broker that is away, or refuses the service, is told, and tried again.
func Open(o Options) (*Log, error) {
	c := o.Config
	switch {
	case c.Sample < 0 || c.Sample > 1 || c.Sample != c.Sample:
		return nil, fmt.Errorf("prediction log: a sample of %v is not between 0 and 1", c.Sample)
	case c.Buffer < 1 || c.Buffer > 1<<24:
		return nil, fmt.Errorf("prediction log: a buffer of %d records is not between 1 and %d", c.Buffer, 1<<24)
	case (c.Dir == "") == (len(c.Kafka) == 0):
		return nil, errors.New("prediction log: either a folder or Kafka has to be named")
	case c.Dir != "" && (c.Rows < 1 || c.Every <= 0):
		return nil, errors.New("prediction log: a segment needs a number of rows and a time at which it ends")
	case c.Dir == "" && c.Topic == "":
		return nil, errors.New("prediction log: Kafka needs a topic")
	}
	if o.Metrics == nil {
		o.Metrics = &Metrics{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	l := &Log{o: o, mask: map[string]bool{}, queue: make(chan *Record, c.Buffer), done: make(chan struct{}), faults: make(chan struct{}, 1), told: make(chan struct{})}
	for _, m := range c.Mask {
		l.mask[m] = true
	}
	var err error
	if c.Dir != "" {
		l.sink = newSegments(l)
	} else if l.sink, err = newKafka(l); err != nil {
		return nil, fmt.Errorf("prediction log: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.run(ctx)
	go l.tell()
	return l, nil
}

// Sampled reports whether a request is in a share of all, from 0 to 1. It depends
// on nothing but the id: the first eight bytes of its SHA-256 as a fraction. So
// replicas agree, and a greater share holds all of a smaller one.
func Sampled(id string, share float64) bool {
	if share >= 1 {
		return true
	}
	h := sha256.Sum256([]byte(id))
	return float64(binary.BigEndian.Uint64(h[:])>>11)/(1<<53) < share
}

// Wants reports whether Add would keep a request's record, to spare the making of
// those that it would not.
func (l *Log) Wants(id string) bool { return Sampled(id, l.o.Config.Sample) }

// Add takes a record. It never blocks: it is false when the record is dropped,
// because too many wait or the log is closed. A record that is not sampled is
// passed over, which is true.
func (l *Log) Add(r Record) bool {
	if !l.Wants(r.ID) {
		return true
	}
	if l.enqueue(r) {
		return true
	}
	l.drop(errFull, 1)
	return false
}

func (l *Log) enqueue(r Record) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return false
	}
	r.shed()
	r.bytes = r.size()
	if l.bytes.Add(r.bytes) <= maxBytes && len(l.queue) < cap(l.queue) {
		select {
		case l.queue <- r.own(): // only now is there need of memory
			return true
		default:
		}
	}
	l.bytes.Add(-r.bytes)
	return false
}

// Close writes what waits and ends the log. When ctx is done first, the rest is
// dropped and the error is the context's.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	defer l.stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-l.told
	return nil
}

// run hands records to the sink, one after the other.
func (l *Log) run(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case r, ok := <-l.queue:
			if !ok {
				l.sink.close(ctx)
				return
			}
			l.bytes.Add(-r.bytes)
			err := r.fits()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				l.drop(err, 1)
				continue
			}
			l.sink.add(ctx, r)
		case <-l.sink.due():
			l.sink.work(ctx)
		}
	}
}

// drop counts records that are lost.
func (l *Log) drop(err error, records int) {
	l.o.Metrics.Dropped.Add(uint64(records))
	l.lost.add(err, records)
	select {
	case l.faults <- struct{}{}:
	default: // one waits to be told already
	}
}

// losses are the records dropped since the last telling, by why.
type losses struct {
	mu  sync.Mutex
	why []loss
}

type loss struct {
	err     error
	records int
}

// mostReasons bounds the reasons that are told apart; the rest counts as errOthers.
const mostReasons = 8

var errOthers = errors.New("other reasons")

func (l *losses) add(err error, records int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.why {
		if w := &l.why[i]; w.err == err || w.err.Error() == err.Error() || i == mostReasons {
			w.records += records
			return
		}
	}
	if len(l.why) == mostReasons {
		err = errOthers
	}
	l.why = append(l.why, loss{err, records})
}

func (l *losses) take() []loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	why := l.why
	l.why = nil
	return why
}

// fail is drop where a segment or a message could not be written.
func (l *Log) fail(err error, records int) {
	l.o.Metrics.Failed.Add(1)
	l.drop(err, records)
}

// tell says what was lost and why, at most once a minute. It is a goroutine of its
// own, so a logger that hangs holds nothing up.
func (l *Log) tell() {
	defer close(l.told)
	say := func() (said bool) {
		for _, w := range l.lost.take() {
			l.o.Logger.Warn("prediction log: records are lost", "service", l.o.Service, "dropped", w.records, "error", w.err)
			said = true
		}
		return said
	}
	for {
		select {
		case <-l.faults:
			if !say() {
				continue // it was told with those before it
			}
			pause := time.NewTimer(between)
			select {
			case <-pause.C:
			case <-l.done:
				pause.Stop()
			}
		case <-l.done:
			select {
			case <-l.faults:
				say()
			default:
			}
			return
		}
	}
}
