package predlog

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/serve/api"
)

// cluster starts a broker with the topic; port 0: any. What it has is in dir, if
// there is one.
func cluster(t *testing.T, port int, dir string) (c *kfake.Cluster, at int) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(1, "predictions"), kfake.DataDir(dir))
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
func consume(t *testing.T, addr string, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("predictions"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
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
	equal(t, string(got[0].Value), `{"format":"mlc.prediction.v1","time":"2026-01-31T12:00:00.000001Z","id":"a","service":"svc","model":"m","version":"3","variant":"champion","fallback":false,"shadow":false,"error":null,"queue_us":5,"compute_us":7,"total_us":20,"rows":2,`+
		`"inputs":{"p.age":[null,2],"p.name":null,"p.initial":null,"p.twice":null},"outputs":{"probabilities":[[1,0],[0.5,0.1]],"class":["yes","n\"o"]}}`)
	equal(t, string(got[1].Value), `{"format":"mlc.prediction.v1","time":"2026-01-31T12:00:00.000001Z","id":"b","service":"svc","model":"m","version":"","variant":"","fallback":false,"shadow":true,"error":{"kind":400,"text":""},"queue_us":0,"compute_us":0,"total_us":0,"rows":1,"inputs":{},"outputs":{}}`)
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
	for l.sink.(*kafka).client.BufferedProduceRecords() > 0 || len(l.queue) > 0 {
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

// TestKafkaNever: without a broker at all a log opens, takes what it can hold, and
// closes in its time, all records counted.
func TestKafkaNever(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // a port that nobody answers at
	if err != nil {
		t.Fatal(err)
	}
	port := lis.Addr().(*net.TCPAddr).Port
	lis.Close()
	l, m := open(t, topic(port))
	for i := range 500 {
		l.Add(row(nil, strconv.Itoa(i), 1))
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
	s := l.Schema(nil, []ort.Info{{Name: "x", Type: "string", Shape: []int64{-1}}}, nil)
	l.Add(Record{ID: "a", Rows: 1, Schema: s, Inputs: []ort.Value{ort.Tensor{Shape: []int64{1}, Data: []string{strings.Repeat("x", 2<<20)}}}})
	l.Add(row(nil, "b", 1))
	shut(t, l)
	counts(t, m, 1, 1, 1, 0)
	equal(t, string(consume(t, topic(port).Kafka[0], 1)[0].Key), "b")
}
