package predlog

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/secret"
	"mlc.dev/mlc/runtime/serve/api"
)

// cluster starts a broker with the topic; port 0: any. What it has is in dir, if
// there is one.
func cluster(t *testing.T, port int, dir string, opts ...kfake.Opt) (c *kfake.Cluster, at int) {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(1, "predictions"), kfake.DataDir(dir))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	_, p, err := net.SplitHostPort(c.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if at, err = strconv.Atoi(p); err != nil {
		t.Fatal(err)
	}
	return c, at
}

// consume reads n messages of the topic, from its beginning.
func consume(t *testing.T, addr string, n int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.ConsumeTopics("predictions"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func topic(port int) service.Log {
	return service.Log{Sample: 1, Kafka: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Topic: "predictions", Buffer: 100, Mask: []string{"p.name"}}
}

// TestKafka: a message a request, in the documented form.
func TestKafka(t *testing.T) {
	_, port := cluster(t, 0, "")
	c := topic(port)
	l, m := open(t, c)
	s := l.Schema(signature, nil, nil)
	two := row(s, "a", 0)
	two.Rows = 2
	two.Inputs = []ort.Value{ort.Column([]float64{math.NaN(), 2}), ort.Column([]string{"Ann", "Bob"})}
	two.Outputs = []ort.Value{ort.Tensor{Shape: []int64{2, 2}, Data: []float32{1, 0, 0.5, 0.1}}, ort.Column([]string{"yes", "n\"o"})}
	bad := Record{Time: two.Time, ID: "b", Model: "m", Shadow: true, Err: api.Errorf(api.BadRequest, "Ann")}
	l.Add(two)
	l.Add(bad)
	shut(t, l)
	counts(t, m, 2, 0, 0, 0)
	got := consume(t, c.Kafka[0], 2)
	equal(t, string(got[0].Key), "a")
	equal(t, string(got[0].Value), `{"format":"mlc.prediction.v2","time":"2026-01-31T12:00:00.000001Z","id":"a","service":"svc","model":"m","version":"3","variant":"champion","fallback":false,"shadow":false,"error":null,"queue_us":5,"compute_us":7,"total_us":20,"threshold":0.25,"rows":2,`+
		`"inputs":{"p.age":[null,2],"p.name":null,"p.initial":null,"p.twice":null},"outputs":{"probabilities":[[1,0],[0.5,0.1]],"class":["yes","n\"o"]}}`)
	equal(t, string(got[1].Value), `{"format":"mlc.prediction.v2","time":"2026-01-31T12:00:00.000001Z","id":"b","service":"svc","model":"m","version":"","variant":"","fallback":false,"shadow":true,"error":{"kind":400,"text":""},"queue_us":0,"compute_us":0,"total_us":0,"threshold":null,"rows":1,"inputs":{},"outputs":{}}`)
	for _, r := range got {
		if !json.Valid(r.Value) || strings.Contains(string(r.Value), "Ann") {
			t.Errorf("%s", r.Value)
		}
	}
}

// flood adds records until ten were refused.
func flood(t *testing.T, l *Log) (offered int) {
	t.Helper()
	for refused := 0; refused < 10; offered++ {
		if offered > 1000 {
			t.Fatalf("%d records were taken by buffers of 201", offered)
		}
		if !l.Add(row(nil, strconv.Itoa(offered), 1)) {
			refused++
		}
	}
	return offered
}

// TestKafkaGone: while there is no broker, what does not fit the buffers is dropped
// and counted, and no Add waits; when it is back, all that waited arrives.
func TestKafkaGone(t *testing.T) {
	dir := t.TempDir()
	c, port := cluster(t, 0, dir)
	l, m := open(t, topic(port))
	l.Add(row(nil, "before", 1))
	consume(t, topic(port).Kafka[0], 1)
	c.Close()
	waiting := flood(t, l) - 10
	if got := m.Dropped.Load(); got != 10 {
		t.Errorf("%d dropped, 10 refused", got)
	}
	cluster(t, port, dir)
	consume(t, topic(port).Kafka[0], 1+waiting)
	if !l.Add(row(nil, "after", 1)) {
		t.Error("a record was refused when all before it were sent")
	}
	shut(t, l)
	counts(t, m, uint64(waiting)+2, 10, 0, 0)
	got := consume(t, topic(port).Kafka[0], waiting+2)
	if len(got) != waiting+2 || string(got[0].Key) != "before" || string(got[len(got)-1].Key) != "after" {
		t.Errorf("%d messages, from %q to %q", len(got), got[0].Key, got[len(got)-1].Key)
	}
}

// TestKafkaMadeAnew: a topic that was deleted and made again costs what waited for
// it, and no more.
func TestKafkaMadeAnew(t *testing.T) {
	c, port := cluster(t, 0, "")
	l, m := open(t, topic(port))
	l.Add(row(nil, "before", 1))
	consume(t, topic(port).Kafka[0], 1)
	c.Close()
	offered := 2 + flood(t, l)
	cluster(t, port, "")
	for l.sink.(*kafka).clients[0].BufferedProduceRecords() > 0 || len(l.queue) > 0 {
		runtime.Gosched() // until all that waited is given up
	}
	if !l.Add(row(nil, "after", 1)) {
		t.Error("a record was refused")
	}
	shut(t, l)
	if w, d := m.Written.Load(), m.Dropped.Load(); w < 2 || w+d != uint64(offered) {
		t.Errorf("%d written, %d dropped of %d", w, d, offered)
	}
	got := consume(t, topic(port).Kafka[0], int(m.Written.Load())-1)
	equal(t, string(got[len(got)-1].Key), "after")
}

// lines are what a logger wrote.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestKafkaNever: without a broker at all a log opens, takes what it can hold, and
// closes in its time, all records counted.
func TestKafkaNever(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // a port that nobody answers at
	if err != nil {
		t.Fatal(err)
	}
	port := lis.Addr().(*net.TCPAddr).Port
	lis.Close()
	told, m := make(lines, 1000), &Metrics{}
	l, err := Open(Options{Config: topic(port), Service: "svc", Secret: secret.Value, Metrics: m, Logger: slog.New(slog.NewTextHandler(told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		l.Add(row(nil, strconv.Itoa(i), 1))
	}
	for line := range told {
		if strings.Contains(line, "a broker does not answer") && strings.Contains(line, "connection refused") {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("Close kept quiet about what was not written")
	}
	<-l.told
	if w, d := m.Written.Load(), m.Dropped.Load(); w != 0 || d != 500 {
		t.Errorf("%d written, %d dropped of 500", w, d)
	}
}

// TestKafkaTooLarge: a message that no broker takes is dropped, and the next is sent.
func TestKafkaTooLarge(t *testing.T) {
	_, port := cluster(t, 0, "")
	l, m := open(t, topic(port))
	var noise strings.Builder // which no compression makes small
	for noise.Len() < 2<<20 {
		noise.WriteString(rand.Text())
	}
	s := l.Schema(nil, []ort.Info{{Name: "x", Type: "string", Shape: []int64{-1}}}, nil)
	l.Add(Record{ID: "a", Rows: 1, Schema: s, Inputs: []ort.Value{ort.Tensor{Shape: []int64{1}, Data: []string{noise.String()}}}})
	l.Add(row(nil, "b", 1))
	shut(t, l)
	counts(t, m, 1, 1, 1, 0)
	equal(t, string(consume(t, topic(port).Kafka[0], 1)[0].Key), "b")
}

// TestKafkaOfSmallMessages: a topic that takes no batch of all that waits gets smaller
// ones, and in the end message by message; none is lost or there twice.
func TestKafkaOfSmallMessages(t *testing.T) {
	for _, most := range []int{12_000, 1_000} {
		_, port := cluster(t, 0, "", kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(most)}))
		c := topic(port)
		c.Buffer = 1000
		l, m := open(t, c)
		for i := range 800 {
			r := row(nil, rand.Text()+rand.Text(), float64(i))
			if !l.Add(r) {
				t.Fatal("the record was not taken")
			}
		}
		shut(t, l)
		counts(t, m, 800, 0, 0, 0)
		ids := map[string]bool{}
		for _, r := range consume(t, c.Kafka[0], 800) {
			ids[string(r.Key)] = true
		}
		equal(t, len(ids), 800)
		if way := int(l.sink.(*kafka).level.Load()); way == 0 {
			t.Error("no batch was too large")
		}
	}
}

// certify makes an authority and a certificate of its for 127.0.0.1, as PEM files of a
// new folder: ca.crt, tls.crt, tls.key.
func certify(t *testing.T) *service.ClientTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &service.ClientTLS{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	for path, block := range map[string]*pem.Block{f.CA: {Type: "CERTIFICATE", Bytes: der}, f.Cert: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// secured starts a broker that takes TLS and, as user "mlc" by the mechanism, the
// password "right".
func secured(t *testing.T, port int, files *service.ClientTLS, mutual bool, mechanism string) (c *kfake.Cluster, at int) {
	t.Helper()
	server, err := clientTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	if server.ClientCAs = server.RootCAs; mutual {
		server.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cluster(t, port, "", kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), "mlc", "right"))
}

// refuse has a broker answer whoever shows a password as Kafka does where it is wrong;
// kfake hangs up.
func refuse(c *kfake.Cluster) *kfake.FaultHandle {
	return c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, TopLevel: true, Err: kerr.SaslAuthenticationFailed, Count: -1})
}

// TestKafkaSecured: by TLS, mutual or not, and every mechanism, records arrive.
func TestKafkaSecured(t *testing.T) {
	files := certify(t)
	trust, err := clientTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	for mechanism, m := range map[string]sasl.Mechanism{
		service.SASLPlain:    saslplain.Auth{User: "mlc", Pass: "right"}.AsMechanism(),
		service.SASLScram256: scram.Auth{User: "mlc", Pass: "right"}.AsSha256Mechanism(),
		service.SASLScram512: scram.Auth{User: "mlc", Pass: "right"}.AsSha512Mechanism(),
	} {
		mutual := mechanism == service.SASLScram512
		_, port := secured(t, 0, files, mutual, mechanism)
		c := topic(port)
		if c.TLS = files; !mutual {
			c.TLS = &service.ClientTLS{CA: files.CA}
		}
		c.SASL = &service.SASL{Mechanism: mechanism, Username: "mlc", Password: "env:KAFKA_PASSWORD"}
		t.Setenv("KAFKA_PASSWORD", "right")
		l, m2 := open(t, c)
		l.Add(row(nil, "a", 1))
		shut(t, l)
		counts(t, m2, 1, 0, 0, 0)
		equal(t, string(consume(t, c.Kafka[0], 1, kgo.DialTLSConfig(trust), kgo.SASL(m))[0].Key), "a")
	}
}

// TestKafkaRefused: records for brokers that refuse the service, or that it does not
// trust, are dropped and told once with the reason and without the password. When the
// reason is gone, the next record arrives.
func TestKafkaRefused(t *testing.T) {
	files, strange := certify(t), certify(t)
	copied := func(t *testing.T, from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, want string
		mutual     bool
		password   string
		ca, cert   *service.ClientTLS // whose files the service has at first
	}{
		{"password", "SASL_AUTHENTICATION_FAILED", false, "right", files, nil},
		{"password of a broker that hangs up", "hung up during SASL", false, "wrong-password", files, nil},
		{"authority", "certificate signed by unknown authority", false, "right", strange, nil},
		{"certificate", "tls: ", true, "right", files, strange},
		{"no certificate", "tls: certificate required", true, "right", files, nil},
		{"no TLS", "TLS", false, "right", nil, nil},
		{"no SASL", "hung up at the first request: it may want SASL", false, "right", files, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			broker, port := secured(t, 0, files, c.mutual, service.SASLScram256)
			let := func() {}
			if c.name == "password" {
				let = refuse(broker).Remove
			}
			cfg, own := topic(port), t.TempDir()
			cfg.SASL = &service.SASL{Mechanism: service.SASLScram256, Username: "mlc", Password: "env:ANY"}
			if c.name == "no SASL" {
				cfg.SASL = nil
			}
			if c.ca != nil {
				cfg.TLS = &service.ClientTLS{CA: filepath.Join(own, "ca.crt")}
				copied(t, c.ca.CA, cfg.TLS.CA)
			}
			if c.cert != nil {
				cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(own, "tls.crt"), filepath.Join(own, "tls.key")
				copied(t, c.cert.Cert, cfg.TLS.Cert)
				copied(t, c.cert.Key, cfg.TLS.Key)
			}
			var password atomic.Value
			password.Store(c.password)
			var told bytes.Buffer
			m := &Metrics{}
			l, err := Open(Options{Config: cfg, Service: "svc", Metrics: m, Logger: slog.New(slog.NewTextHandler(&told, nil)),
				Secret: func(string) (string, error) { return password.Load().(string), nil }})
			if err != nil {
				t.Fatal(err)
			}
			if !l.Add(row(nil, "refused", 1)) {
				t.Error("the record was not taken")
			}
			for m.Dropped.Load() == 0 {
				runtime.Gosched()
			}
			mends := c.ca != nil && cfg.SASL != nil && (c.cert != nil || !c.mutual)
			if mends {
				let()
				password.Store("right")
				copied(t, files.CA, cfg.TLS.CA)
				if c.cert != nil {
					copied(t, files.Cert, cfg.TLS.Cert)
					copied(t, files.Key, cfg.TLS.Key)
				}
				// A try that began before may still be refused.
				for m.Written.Load() == 0 {
					refused := m.Dropped.Load()
					l.Add(row(nil, "accepted", 1))
					for m.Written.Load() == 0 && m.Dropped.Load() == refused {
						runtime.Gosched()
					}
				}
			}
			shut(t, l)
			written, refused := uint64(0), uint64(1)
			if mends {
				written, refused = 1, m.Dropped.Load()
			}
			counts(t, m, written, refused, refused, 0)
			if s := told.String(); uint64(strings.Count(s, "\n")) != refused || uint64(strings.Count(s, c.want)) < refused || strings.Contains(s, "wrong-password") || strings.Contains(s, "aborted") {
				t.Errorf("%q", s)
			}
		})
	}
}

// TestKafkaRefusedLater: what waits for a broker that comes back and refuses the
// service is dropped for that reason, and so is what comes then.
func TestKafkaRefusedLater(t *testing.T) {
	files := certify(t)
	broker, port := secured(t, 0, files, false, service.SASLPlain)
	cfg := topic(port)
	cfg.TLS, cfg.SASL = &service.ClientTLS{CA: files.CA}, &service.SASL{Mechanism: service.SASLPlain, Username: "mlc", Password: "env:ANY"}
	var told bytes.Buffer
	m := &Metrics{}
	l, err := Open(Options{Config: cfg, Service: "svc", Metrics: m, Logger: slog.New(slog.NewTextHandler(&told, nil)), Secret: func(string) (string, error) { return "right", nil }})
	if err != nil {
		t.Fatal(err)
	}
	l.Add(row(nil, "before", 1))
	for m.Written.Load() == 0 {
		runtime.Gosched()
	}
	broker.Close()
	broker, _ = secured(t, port, files, false, service.SASLPlain)
	refuse(broker)
	for i := range 3 {
		l.Add(row(nil, strconv.Itoa(i), 1))
	}
	for m.Dropped.Load() < 3 {
		runtime.Gosched()
	}
	shut(t, l)
	counts(t, m, 1, 3, 3, 0)
	if s := told.String(); !strings.Contains(s, "SASL_AUTHENTICATION_FAILED") {
		t.Errorf("%q", s)
	}
}

// TestKafkaCannotWork: files and secrets that are not there are told when the log is
// opened.
func TestKafkaCannotWork(t *testing.T) {
	files := certify(t)
	for want, c := range map[string]service.Log{
		"no-ca.crt":           {TLS: &service.ClientTLS{CA: "no-ca.crt"}},
		"no certificates":     {TLS: &service.ClientTLS{CA: files.Key}},
		"no-tls.key":          {TLS: &service.ClientTLS{Cert: files.Cert, Key: "no-tls.key"}},
		"env:GONE":            {SASL: &service.SASL{Mechanism: service.SASLPlain, Username: "mlc", Password: "env:GONE"}},
		"env:EMPTY":           {SASL: &service.SASL{Mechanism: service.SASLPlain, Username: "mlc", Password: "env:EMPTY"}},
		`no mechanism "ntlm"`: {SASL: &service.SASL{Mechanism: "ntlm", Username: "mlc", Password: "env:ANY"}},
	} {
		cfg := topic(1)
		cfg.TLS, cfg.SASL = c.TLS, c.SASL
		_, err := Open(Options{Config: cfg, Service: "svc", Secret: func(ref string) (string, error) {
			switch ref {
			case "env:GONE":
				return "", errors.New("it is not set")
			case "env:EMPTY":
				return "", nil
			}
			return "right", nil
		}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}
