package serve_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/serve/oip/pb"
)

// authority signs itself, and is server and caller at once.
type authority struct {
	cert, key []byte // PEM
	pair      tls.Certificate
	pool      *x509.CertPool
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return newAuthorityUntil(t, name, time.Now().Add(time.Hour))
}

func newAuthorityUntil(t *testing.T, name string, end time.Time) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: end.Add(-2 * time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), pool: x509.NewCertPool()}
	a.pool.AppendCertsFromPEM(a.cert)
	if a.pair, err = tls.X509KeyPair(a.cert, a.key); err != nil {
		t.Fatal(err)
	}
	return a
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The certificate and the callers' are read anew when their files change: for new
// connections, while those there are stay. A broken file changes nothing and is told.
func TestCertificatesAreReadAnew(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	changes := 0
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		changes++ // so that each has a time of its own, also where the clock is coarse
		when := time.Now().Add(time.Duration(changes) * time.Second)
		if err := os.Chtimes(at(name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	host, other, alice, bob := newAuthority(t, "host"), newAuthority(t, "other"), newAuthority(t, "alice"), newAuthority(t, "bob")
	put("tls.crt", host.cert)
	put("tls.key", host.key)
	put("ca.crt", alice.cert)
	svc := one()
	svc.TLS = &service.TLS{Cert: at("tls.crt"), Key: at("tls.key"), ClientCA: at("ca.crt")}
	var log lockedBuffer
	s, err := serve.Open(t.Context(), serve.Options{Service: svc, Source: &shelf{aliases: map[string]int{"a": 1}, bundles: map[int]*bundle.Bundle{1: model(.5)}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	opened, done := make(chan serve.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- s.Serve(ctx, serve.Endpoints{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0"}, func(e serve.Endpoints) { opened <- e })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	e := <-opened
	secure := func(server, caller *authority) *tls.Config {
		return &tls.Config{RootCAs: server.pool, Certificates: []tls.Certificate{caller.pair}, ClientSessionCache: tls.NewLRUClientSessionCache(0), NextProtos: []string{"h2", "http/1.1"}}
	}
	get := func(c *tls.Config) error {
		tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("https://" + e.HTTP + "/healthz/live")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	call := func(c *tls.Config) error {
		conn, err := grpc.NewClient(e.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(c)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = pb.NewGRPCInferenceServiceClient(conn).ServerLive(t.Context(), &pb.ServerLiveRequest{})
		return err
	}
	check := func(when string, server *authority, welcome, unknown *authority) {
		t.Helper()
		for name, try := range map[string]func(*tls.Config) error{"http": get, "grpc": call} {
			if err := try(secure(server, welcome)); err != nil {
				t.Errorf("%s, %s: %v", when, name, err)
			}
			if err := try(secure(server, unknown)); err == nil {
				t.Errorf("%s, %s: who is not known is let in", when, name)
			}
		}
	}
	check("at first", host, alice, bob)

	ofAlice := secure(host, alice)
	stays := &http.Client{Transport: &http.Transport{TLSClientConfig: ofAlice, ForceAttemptHTTP2: true}}
	reused := func() {
		t.Helper()
		res, err := stays.Get("https://" + e.HTTP + "/healthz/live")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
		res.Body.Close()
	}
	reused()
	put("ca.crt", bob.cert)
	check("with another caller", host, bob, alice)
	reused() // the connection of before
	if err := get(ofAlice); err == nil {
		t.Error("a session of before spares the check")
	}

	put("ca.crt", []byte("-----BEGIN"))
	check("with a broken file of callers", host, bob, alice)
	put("ca.crt", bob.cert)
	put("tls.crt", other.cert) // its key has not come yet
	check("with half a pair", host, bob, alice)
	if n := strings.Count(log.String(), "cannot be used"); n != 2 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	put("tls.key", other.key)
	check("with another certificate", other, bob, alice)
	past := newAuthorityUntil(t, "past", time.Now().Add(-time.Minute))
	put("tls.crt", past.cert)
	put("tls.key", past.key)
	check("with a certificate of the past", other, bob, alice)
	if got := log.String(); !strings.Contains(got, "was valid until") {
		t.Error(got)
	}
	if err := os.Remove(at("tls.crt")); err != nil {
		t.Fatal(err)
	}
	check("without a file", other, bob, alice)
	reused()
}
