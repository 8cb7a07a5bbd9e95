// Package service is what a spec says of a service, resolved, as pure data: what
// mlc serve and mlc-serve run, and what targets are generated from. It is a leaf.
package service

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

// Format is the version of a service's JSON form.
const Format = "mlc.service.v1"

// Service is a realtime service.
type Service struct {
	Format string `json:"format"`
	System string `json:"system"`
	Name   string `json:"name"`
	// Split are the branches that answer, one or several whose weights add up to 100.
	// Steps is empty then.
	Split []Branch `json:"split,omitempty"`
	// Steps feed each other; the last one answers.
	Steps []Step `json:"steps,omitempty"`
	// Sticky is the feature, as "group.feature", or the header, as "header:NAME", that keeps a caller
	// with one branch.
	Sticky string  `json:"sticky,omitempty"`
	Shadow *Shadow `json:"shadow,omitempty"`
	// Caller are the snapshot features that the caller looks up and sends.
	Caller []string `json:"caller,omitempty"`
	// Threshold is the least probability (anomaly: score) that is decided as true; 0: each
	// version's own.
	Threshold float64   `json:"threshold"`
	P99       Duration  `json:"p99,omitempty"`      // latency budget; 0: none
	Deadline  Duration  `json:"deadline"`           // the most that a request may take
	Expected  float64   `json:"expected,omitempty"` // requests a second
	Peak      float64   `json:"peak,omitempty"`
	Batching  Batching  `json:"batching"`
	Fallback  *Fallback `json:"fallback,omitempty"`
	Log       *Log      `json:"log,omitempty"`
	Limits    Limits    `json:"limits"`
	Auth      *Auth     `json:"auth,omitempty"`
	TLS       *TLS      `json:"tls,omitempty"`
	// CORS are the origins that browsers may call from; none by default.
	CORS      []string `json:"cors,omitempty"`
	Replicas  Replicas `json:"replicas"`
	CPU       int      `json:"cpu"`                 // of a replica
	Memory    int64    `json:"memory"`              // bytes, of a replica
	Providers []string `json:"providers,omitempty"` // cuda, tensorrt; then the CPU
}

// Branch is a share of the traffic.
type Branch struct {
	// Name is what metrics and logs call it: the alias, unless the spec says otherwise.
	Name   string  `json:"name"`
	Model  Ref     `json:"model"`
	Weight float64 `json:"weight"` // percent
}

// Ref names a version of a registered model by its alias, or by its number as "v3".
type Ref struct {
	Model string `json:"model"`
	Alias string `json:"alias"`
}

// String is the reference as users write it.
func (r Ref) String() string { return r.Model + "@" + r.Alias }

// Step is one model of several.
type Step struct {
	Name  string `json:"name"`
	Model Ref    `json:"model"`
	// Inputs give features of the model that do not come with the request: outputs
	// of earlier steps, as "step.output", by feature.
	Inputs map[string]string `json:"inputs,omitempty"`
}

// Shadow mirrors a share of the requests to another version.
type Shadow struct {
	Model Ref     `json:"model"`
	Share float64 `json:"share"` // 0 to 1
	// Tolerance is the greatest difference of numbers that counts as equal.
	Tolerance float64 `json:"tolerance"`
}

// Batching says how requests are put together.
type Batching struct {
	MaxRows  int      `json:"max_rows"` // 1: never
	MaxDelay Duration `json:"max_delay"`
	// Queue is the most rows that wait; more are shed.
	Queue int `json:"queue"`
}

// Fallback is what is answered when the model does not.
type Fallback struct {
	After Duration `json:"after,omitempty"` // 0: at the deadline
	// Answer are the outputs by name: a number, a text, or numbers by class.
	Answer  map[string]any `json:"answer"`
	Breaker *Breaker       `json:"breaker,omitempty"`
}

// Breaker stops asking a model that fails.
type Breaker struct {
	Errors float64  `json:"errors"` // share of failures that opens it
	Over   Duration `json:"over"`   // the time in which they are counted, and until it is tried again
	Least  int      `json:"least"`  // calls below which it stays closed
}

// Log keeps what was asked and answered.
type Log struct {
	Sample float64 `json:"sample"` // share of requests
	// Dir is the folder of Parquet segments, or Kafka the brokers and Topic the topic.
	Dir   string   `json:"dir,omitempty"`
	Kafka []string `json:"kafka,omitempty"`
	Topic string   `json:"topic,omitempty"`
	// TLS is how the brokers are called; nil: by plain connections. SASL says who calls; nil: nobody.
	TLS  *ClientTLS `json:"tls,omitempty"`
	SASL *SASL      `json:"sasl,omitempty"`
	// Mask are the features whose values are not written.
	Mask []string `json:"mask,omitempty"`
	// Rows and Every end a segment; Buffer is the most records that wait, more are dropped and counted.
	Rows   int      `json:"rows"`
	Every  Duration `json:"every"`
	Buffer int      `json:"buffer"`
}

// ClientTLS names files by which a server is called: CA has the authorities of its
// certificate, "" the system's, and Cert and Key are what the service shows, or "".
type ClientTLS struct {
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// The mechanisms of SASL.
const (
	SASLPlain    = "plain"
	SASLScram256 = "scram-sha-256"
	SASLScram512 = "scram-sha-512"
)

// SASL says who calls Kafka's brokers. Password is a reference: "env:NAME" or "file:PATH".
type SASL struct {
	Mechanism string `json:"mechanism"`
	Username  string `json:"username"`
	Password  string `json:"password"`
}

// Limits bound what one caller can ask.
type Limits struct {
	Body       int64   `json:"body"` // bytes
	Rows       int     `json:"rows"` // of a request
	Concurrent int     `json:"concurrent"`
	PerClient  float64 `json:"per_client,omitempty"` // requests a second; 0: no limit
	// PerClientBurst are the requests of PerClient that may come at once: the 10 of "10/m"; 0: those of a second.
	PerClientBurst int      `json:"per_client_burst,omitempty"`
	Read           Duration `json:"read"` // the time that a request's body may take
	// Proxies are where X-Forwarded-For is believed from.
	Proxies []netip.Prefix `json:"proxies,omitempty"`
}

// Auth says who may call. Secrets are references: "env:NAME" or "file:PATH".
type Auth struct {
	Bearer []string `json:"bearer,omitempty"`  // Authorization: Bearer …
	APIKey []string `json:"api_key,omitempty"` // X-API-Key: …
}

// TLS names files; with ClientCA callers have to show a certificate.
type TLS struct {
	Cert     string `json:"cert"`
	Key      string `json:"key"`
	ClientCA string `json:"client_ca,omitempty"`
}

// Replicas are how many run.
type Replicas struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Models are the references of all models that a service takes, without repetition.
func (s *Service) Models() []Ref {
	var out []Ref
	seen := map[Ref]bool{}
	add := func(r Ref) {
		if !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	for _, b := range s.Split {
		add(b.Model)
	}
	for _, st := range s.Steps {
		add(st.Model)
	}
	if s.Shadow != nil {
		add(s.Shadow.Model)
	}
	return out
}

// In is the service with the paths of its files from a folder, where they are relative.
// References of secrets stay as they are.
func (s *Service) In(dir string) *Service {
	from := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	out := *s
	if t := s.TLS; t != nil {
		out.TLS = &TLS{Cert: from(t.Cert), Key: from(t.Key), ClientCA: from(t.ClientCA)}
	}
	if s.Log != nil {
		l := *s.Log
		l.Dir = from(l.Dir)
		if t := l.TLS; t != nil {
			l.TLS = &ClientTLS{CA: from(t.CA), Cert: from(t.Cert), Key: from(t.Key)}
		}
		out.Log = &l
	}
	return &out
}

// Duration is a time.Duration in JSON as Go writes it: "20ms".
type Duration time.Duration

// Std is d as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalText writes it as "20ms".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Batch is a scheduled prediction of a table.
type Batch struct {
	Format   string `json:"format"`
	System   string `json:"system"`
	Name     string `json:"name"`
	Model    Ref    `json:"model"`
	Source   string `json:"source"`   // of the rows
	Output   string `json:"output"`   // path of the Parquet file
	Schedule string `json:"schedule"` // cron, five fields, UTC; "": by hand
	Chunk    int    `json:"chunk"`    // rows at once
	// Keep are columns of the source to copy: as texts where its files have them in several types.
	Keep []string `json:"keep,omitempty"`
}

// Parse reads a service's JSON form.
func Parse(b []byte) (*Service, error) {
	var s Service
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.Format != Format {
		return nil, fmt.Errorf("its format is %q, not %q", s.Format, Format)
	}
	return &s, nil
}

// ForModel is a service for an ONNX model that mlc did not make: whether its rows
// are independent is not known, so calls are not put together.
func ForModel(name string) *Service {
	return &Service{Format: Format, System: name, Name: name, Split: []Branch{{Name: "file", Model: Ref{Model: name, Alias: "file"}, Weight: 100}},
		Deadline: Duration(30 * time.Second), Batching: Batching{MaxRows: 1, Queue: 1024},
		Limits: Limits{Body: 64 << 20, Rows: 10_000, Concurrent: 1024, Read: Duration(30 * time.Second)}, Replicas: Replicas{Min: 1, Max: 1}, CPU: 1}
}
