package predlog

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"mlc.dev/mlc/compiler/service"
)

// kafka sends a message a record, keyed by the request's id. Waiting for a broker
// that is away fills the buffers; then records are dropped until it is back. Where
// brokers refuse the service, or it does not trust them, they are dropped at once.
//
// Messages go in batches. Those of a batch that is larger than the topic's
// max.message.bytes, which it refuses whole, go anew in smaller ones, in the end one by one.
type kafka struct {
	log  *Log
	opts []kgo.Opt
	out  sync.WaitGroup // messages whose fate is not known yet
	// level is the way of sending that batches were not too large for.
	level   atomic.Int32
	mu      sync.Mutex
	clients [len(ways)]*kgo.Client // nil: nothing has gone that way
	closed  bool                   // no more are made
	// stale says that the topic was made anew, which the client does not take up by
	// itself.
	stale atomic.Bool
	// reached says that a broker has let the service in, refused why the last did not.
	reached atomic.Bool
	refused atomic.Pointer[error]
	away    atomic.Int64 // when it was last told that a broker is, in nanoseconds since 1970
}

// ways are those of sending, each with smaller batches than the one before. The most
// bytes of a batch are its only message's where it has one.
var ways = [...]struct {
	bytes int32
	alone bool
}{{1 << 20, false}, {64 << 10, false}, {maxBytes, true}}

func newKafka(l *Log) (*kafka, error) {
	c, k := l.o.Config, &kafka{log: l}
	// Records on their way may be given up: none is sent a second time, so none is there twice.
	k.opts = []kgo.Opt{kgo.SeedBrokers(c.Kafka...), kgo.DefaultProduceTopic(c.Topic), kgo.ClientID("mlc-" + plain(l.o.Service)), kgo.WithHooks(k),
		kgo.MetadataMinAge(time.Second), kgo.AllowIdempotentProduceCancellation()}
	if c.TLS != nil {
		if _, err := clientTLS(c.TLS); err != nil {
			return nil, err
		}
		k.opts = append(k.opts, kgo.Dialer(k.dial))
	}
	if c.SASL != nil {
		if _, err := k.password(); err != nil {
			return nil, err
		}
		m, err := k.mechanism()
		if err != nil {
			return nil, err
		}
		k.opts = append(k.opts, kgo.SASL(m))
	}
	_, err := k.client(0)
	return k, err
}

// client is that of a way, made for its first message.
func (k *kafka) client(way int) (*kgo.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.clients[way] != nil || k.closed {
		return k.clients[way], nil
	}
	most, room := k.log.o.Config.Buffer, maxBytes
	switch {
	case ways[way].alone:
		most = 1
	case way > 0:
		room = 1 << 20
	}
	c, err := kgo.NewClient(append(slices.Clone(k.opts), kgo.ProducerBatchMaxBytes(ways[way].bytes), kgo.MaxBufferedRecords(most), kgo.MaxBufferedBytes(room))...)
	if err != nil {
		return nil, err
	}
	k.clients[way] = c
	return c, nil
}

// each calls f with the clients that there are, in the order of their ways: with one that
// f makes too.
func (k *kafka) each(f func(*kgo.Client)) {
	for way := range ways {
		k.mu.Lock()
		c := k.clients[way]
		k.mu.Unlock()
		if c != nil {
			f(c)
		}
	}
}

// clientTLS reads the files by which brokers are called.
func clientTLS(files *service.ClientTLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		b, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("tls: %s holds no certificates", files.CA)
		}
	}
	if files.Cert != "" {
		cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// dial reads the files anew for each connection, so that certificates can change.
func (k *kafka) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := clientTLS(k.log.o.Config.TLS)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c}).DialContext(ctx, network, addr)
}

// mechanism asks for the password anew for each connection, so that it can change.
func (k *kafka) mechanism() (sasl.Mechanism, error) {
	user := k.log.o.Config.SASL.Username
	scrams := func(context.Context) (scram.Auth, error) {
		pass, err := k.password()
		return scram.Auth{User: user, Pass: pass}, err
	}
	switch m := k.log.o.Config.SASL.Mechanism; m {
	case service.SASLPlain:
		return saslplain.Plain(func(context.Context) (saslplain.Auth, error) {
			pass, err := k.password()
			return saslplain.Auth{User: user, Pass: pass}, err
		}), nil
	case service.SASLScram256:
		return scram.Sha256(scrams), nil
	case service.SASLScram512:
		return scram.Sha512(scrams), nil
	default:
		return nil, fmt.Errorf("sasl: no mechanism %q", m)
	}
}

func (k *kafka) password() (string, error) {
	ref := k.log.o.Config.SASL.Password
	v, err := k.log.o.Secret(ref)
	if err == nil && v == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", ref, err)
	}
	return v, nil
}

// OnBrokerConnect hears how each connection went. Until a first one tells of the topic,
// the client keeps records however often it is refused, so they are given up here; the
// next record tries again. After that the client itself gives them up.
func (k *kafka) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, conn net.Conn, err error) {
	if err == nil {
		return // it may yet hang up
	}
	var dial *net.OpError
	var first *kgo.ErrFirstReadEOF
	away := kgo.IsRetryableBrokerErr(err) || errors.As(err, &dial) && dial.Op == "dial"
	if conn != nil && k.log.o.Config.SASL != nil && errors.Is(err, io.EOF) && !errors.As(err, &first) {
		away, err = false, fmt.Errorf("the broker hung up during SASL: it may know no such user, password or mechanism: %w", err)
	}
	if away && !errors.Is(err, context.Canceled) { // which is the end of the log
		last, now := k.away.Load(), time.Now().UnixNano()
		if now-last >= int64(between) && k.away.CompareAndSwap(last, now) {
			go k.log.o.Logger.Warn("prediction log: a broker does not answer; records wait, and are lost where too many do", "service", k.log.o.Service, "error", err) // a logger may hang
		}
	}
	if !away {
		k.refuse(err)
	}
}

// OnBrokerRead hears of each answer. A broker that wants to be told who calls hangs up at
// the first request beyond those by which that begins.
func (k *kafka) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch kmsg.Key(key) {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return
	}
	if err == nil {
		k.reached.Store(true)
	} else if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		k.refuse(fmt.Errorf("the broker hung up at the first request: it may want SASL or TLS: %w", err))
	}
}

// refuse gives up the records that wait, as long as no broker has let the service in.
func (k *kafka) refuse(err error) {
	if !k.reached.Load() {
		k.refused.Store(&err)
		go k.each(func(c *kgo.Client) { _ = c.AbortBufferedRecords(context.Background()) }) // ends with the clients at the latest
	}
}

func (k *kafka) due() <-chan time.Time { return nil }
func (k *kafka) work(context.Context)  {}

// add waits while the client's buffer is full; meanwhile the log's fills.
func (k *kafka) add(ctx context.Context, r *Record) {
	if k.stale.Swap(false) {
		k.each(func(c *kgo.Client) { c.PurgeTopicsFromProducing(k.log.o.Config.Topic) })
	}
	k.out.Add(1)
	k.send(ctx, int(k.level.Load()), &kgo.Record{Key: []byte(r.ID), Value: message(nil, r, k.log.o.Service, len(k.log.mask) > 0), Timestamp: r.Time})
}

// send sends a message by a way, or by a later one where it is too large for that.
func (k *kafka) send(ctx context.Context, way int, r *kgo.Record) {
	const around = 1 << 10 // of a batch and a message, which has no headers
	for !ways[way].alone && len(r.Key)+len(r.Value)+around > int(ways[way].bytes) {
		way++
	}
	c, err := k.client(way)
	if c == nil {
		k.sent(cmp.Or(err, kgo.ErrClientClosed))
		return
	}
	// Where it has to wait for its way, so do those that came before it: the buffers fill.
	c.Produce(ctx, r, func(r *kgo.Record, err error) {
		if !errors.Is(err, kerr.MessageTooLarge) || ways[way].alone {
			k.sent(err)
			return
		}
		if k.level.CompareAndSwap(int32(way), int32(way+1)) {
			go k.log.o.Logger.Warn("prediction log: the topic takes no batches as large as these; messages go in smaller ones", "service", k.log.o.Service, "topic", k.log.o.Config.Topic, "error", err) // a logger may hang
		}
		k.send(ctx, way+1, r)
	})
}

// sent counts what became of a message.
func (k *kafka) sent(err error) {
	defer k.out.Done()
	if err == nil {
		k.log.o.Metrics.Written.Add(1)
		return
	}
	if errors.Is(err, kerr.UnknownTopicID) {
		k.stale.Store(true)
	}
	if errors.Is(err, kerr.MessageTooLarge) {
		err = kerr.MessageTooLarge // without its size, which is another for each
	}
	if why := k.refused.Load(); why != nil && errors.Is(err, kgo.ErrAborting) {
		err = *why
	}
	k.log.fail(fmt.Errorf("topic %s: %w", k.log.o.Config.Topic, err), 1)
}

func (k *kafka) close(ctx context.Context) {
	k.each(func(c *kgo.Client) { _ = c.Flush(ctx) }) // what is not sent is told by its own error
	k.mu.Lock()
	k.closed = true
	clients := k.clients
	k.mu.Unlock()
	for _, c := range slices.Backward(clients[:]) { // one may wait for a later one
		if c != nil {
			c.Close()
		}
	}
	k.out.Wait()
}

// message appends a record as JSON, in Format:
//
//	{"format": "mlc.prediction.v2", "time": "2026-01-31T12:00:00.000001Z",
//	 "id": "…", "service": "…", "model": "…", "version": "…", "variant": "…",
//	 "fallback": false, "shadow": false,
//	 "error": null or {"kind": 504, "text": "…"},
//	 "queue_us": 12, "compute_us": 34, "total_us": 56, "threshold": 0.5 or null, "rows": 2,
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
	if b = append(b, `,"threshold":`...); r.Threshold == 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendFloat(b, r.Threshold, 'g', -1, 32)
	}
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
