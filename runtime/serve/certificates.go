package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"mlc.dev/mlc/compiler/service"
)

// certificates are a service's certificate and those by which it knows its callers.
// When one of their files changes, they are read anew for the connections that come:
// those there are stay. What cannot be read leaves the ones before it in use.
type certificates struct {
	files service.TLS
	log   *slog.Logger

	mu     sync.Mutex
	seen   string // of the files, as they were last read
	cert   tls.Certificate
	client *x509.CertPool // nil: anyone may call
}

func newCertificates(files *service.TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: *files, log: log, seen: stamp(files)}
	return c, c.read()
}

// stamp changes when one of the files does.
func stamp(files *service.TLS) (s string) {
	for _, path := range []string{files.Cert, files.Key, files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			s += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size())
		}
		s += "\n"
	}
	return s
}

// read reads all files, or changes nothing.
func (c *certificates) read() error {
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("tls: %s with %s: %w", c.files.Cert, c.files.Key, err)
	}
	var client *x509.CertPool
	if path := c.files.ClientCA; path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		if client = x509.NewCertPool(); !client.AppendCertsFromPEM(b) {
			return fmt.Errorf("tls: %s holds no certificates", path)
		}
	}
	if end := cert.Leaf.NotAfter; time.Now().After(end) {
		if c.cert.Leaf != nil && time.Now().Before(c.cert.Leaf.NotAfter) {
			return fmt.Errorf("tls: %s was valid until %s", c.files.Cert, end.UTC().Format(time.RFC3339))
		}
		c.log.Warn("the certificate is not valid any more, and callers will refuse it", "file", c.files.Cert, "until", end.UTC().Format(time.RFC3339))
	}
	c.cert, c.client = cert, client
	return nil
}

// current are the certificate and the callers' of now. A failure is told once for
// each change of the files.
func (c *certificates) current() (tls.Certificate, *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The stamp is of before: what changes while it is read is read once more.
	if now := stamp(&c.files); now != c.seen {
		c.seen = now
		if err := c.read(); err != nil {
			c.log.Error("the changed files of TLS cannot be used; the ones before go on", "error", err)
		} else {
			c.log.Info("the files of TLS have changed")
		}
	}
	return c.cert, c.client
}

// config is for a listener that speaks some protocols. Callers who have to show a
// certificate resume no sessions: one of before would spare them the check.
func (c *certificates) config(protos ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protos, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cert, client := c.current()
		now := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protos, Certificates: []tls.Certificate{cert}}
		if client != nil {
			now.ClientCAs, now.ClientAuth, now.SessionTicketsDisabled = client, tls.RequireAndVerifyClientCert, true
		}
		return now, nil
	}}
}
