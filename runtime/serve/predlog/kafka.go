package predlog

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafka sends a message a record, keyed by the request's id. Waiting for a broker
// that is away fills the buffers; then records are dropped until it is back.
// A message of more than 1 000 000 bytes is not sent.
type kafka struct {
	log    *Log
	client *kgo.Client
	out    sync.WaitGroup // messages whose fate is not known yet
	// stale says that the topic was made anew, which the client does not take up by
	// itself.
	stale atomic.Bool
}

func newKafka(l *Log) (*kafka, error) {
	c := l.o.Config
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka...), kgo.DefaultProduceTopic(c.Topic), kgo.ClientID("mlc-"+plain(l.o.Service)),
		kgo.MaxBufferedRecords(c.Buffer), kgo.MaxBufferedBytes(maxBytes), kgo.MetadataMinAge(time.Second))
	if err != nil {
		return nil, err
	}
	return &kafka{log: l, client: client}, nil
}

func (k *kafka) due() <-chan time.Time { return nil }
func (k *kafka) work(context.Context)  {}

// add waits while the client's buffer is full; meanwhile the log's fills.
func (k *kafka) add(ctx context.Context, r *Record) {
	if k.stale.Swap(false) {
		k.client.PurgeTopicsFromProducing(k.log.o.Config.Topic)
	}
	k.out.Add(1)
	k.client.Produce(ctx, &kgo.Record{Key: []byte(r.ID), Value: message(nil, r, k.log.o.Service, len(k.log.mask) > 0), Timestamp: r.Time}, func(_ *kgo.Record, err error) {
		defer k.out.Done()
		if err != nil {
			if errors.Is(err, kerr.UnknownTopicID) {
				k.stale.Store(true)
			}
			k.log.fail(err, 1)
			return
		}
		k.log.o.Metrics.Written.Add(1)
	})
}

func (k *kafka) close(ctx context.Context) {
	_ = k.client.Flush(ctx) // what is not sent is told by its own error
	k.client.Close()
	k.out.Wait()
}

// message appends a record as JSON, in Format:
//
//	{"format": "mlc.prediction.v1", "time": "2026-01-31T12:00:00.000001Z",
//	 "id": "…", "service": "…", "model": "…", "version": "…", "variant": "…",
//	 "fallback": false, "shadow": false,
//	 "error": null or {"kind": 504, "text": "…"},
//	 "queue_us": 12, "compute_us": 34, "total_us": 56, "rows": 2,
//	 "inputs": {"g.a": [1.5, null], "g.masked": null},
//	 "outputs": {"probabilities": [[0.2, 0.8], [0.9, 0.1]], "class": ["b", "a"]}}
//
// kind is HTTP's status. A value has an element a row; one that is masked, or that
// there is none of, is null. Inside of values, null is missing, and the texts
// "Infinity" and "-Infinity" are numbers. Times are microseconds.
func message(b []byte, r *Record, service string, masks bool) []byte {
	text := func(key, value string) {
		b = appendText(append(append(b, key...), ':'), value)
	}
	number := func(key string, d time.Duration) {
		b = strconv.AppendInt(append(append(b, key...), ':'), d.Microseconds(), 10)
	}
	text(`{"format"`, Format)
	text(`,"time"`, r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"))
	text(`,"id"`, r.ID)
	text(`,"service"`, service)
	text(`,"model"`, r.Model)
	text(`,"version"`, r.Version)
	text(`,"variant"`, r.Variant)
	b = strconv.AppendBool(append(b, `,"fallback":`...), r.Fallback)
	b = strconv.AppendBool(append(b, `,"shadow":`...), r.Shadow)
	if r.Err == nil {
		b = append(b, `,"error":null`...)
	} else {
		b = strconv.AppendInt(append(b, `,"error":{"kind":`...), int64(r.Err.Kind), 10)
		text(`,"text"`, errText(r.Err, masks))
		b = append(b, '}')
	}
	number(`,"queue_us"`, r.Queue)
	number(`,"compute_us"`, r.Compute)
	number(`,"total_us"`, r.Total)
	b = strconv.AppendInt(append(b, `,"rows":`...), int64(r.rows()), 10)
	b = append(b, `,"inputs":`...)
	b = r.values(b, false)
	b = append(b, `,"outputs":`...)
	b = r.values(b, true)
	return append(b, '}')
}

// values appends the inputs or outputs by name.
func (r *Record) values(b []byte, output bool) []byte {
	b = append(b, '{')
	if r.Schema != nil {
		fields, values := r.Schema.inputs, r.Inputs
		if output {
			fields, values = r.Schema.outputs, r.Outputs
		}
		for i, f := range fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, f.name), ':')
			switch {
			case f.masked || i >= len(values) || values[i] == nil:
				b = append(b, "null"...)
			case f.cell:
				b = appendRows(b, values[i])
			default:
				b = appendValue(b, values[i])
			}
		}
	}
	return append(b, '}')
}
