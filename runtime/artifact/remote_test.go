package artifact_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gocloud.dev/blob"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/servertest"
)

func s3(t *testing.T) *servertest.Server {
	s, err := servertest.S3()
	if errors.Is(err, servertest.ErrMissing) {
		t.Skip("SKIPPED: no S3 server:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range s.Env {
		t.Setenv(k, v)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func remote(t *testing.T, url string, told func(string)) (*artifact.Store, string) {
	cache := t.TempDir()
	store, err := artifact.OpenRemote(t.Context(), url, cache, told)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store, cache
}

func folder(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "one", "sub/b": strings.Repeat("two ", 1<<20)} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func put(t *testing.T, s *artifact.Store) plan.Digest {
	t.Helper()
	d, err := s.Put(t.Context(), folder(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, s *artifact.Store, tree plan.Digest, name string) (string, error) {
	p, err := s.Path(t.Context(), tree, name)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(p)
	return string(b), err
}

func TestMachinesShareABucket(t *testing.T) {
	s := s3(t)
	a, _ := remote(t, s.URL+"&prefix=team/", nil)
	b, cache := remote(t, s.URL+"&prefix=team/", nil)
	tree := put(t, a)
	local, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if d := put(t, local); d != tree {
		t.Errorf("a folder calls it %s, a bucket %s", d, tree)
	}
	if err := b.Verify(t.Context(), tree, artifact.DigestFile); err != nil {
		t.Error(err)
	}
	if text, err := read(t, b, tree, "a"); err != nil || text != "one" {
		t.Errorf("%q %v", text, err)
	}
	// A damaged copy is fetched again.
	p, err := b.Path(t.Context(), tree, "a")
	if err != nil || !strings.HasPrefix(p, cache) {
		t.Fatal(p, err)
	}
	if err := errors.Join(os.Chmod(p, 0o644), os.WriteFile(p, []byte("wrong"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if text, err := read(t, b, tree, "a"); err != nil || text != "one" {
		t.Errorf("%q %v", text, err)
	}
	// An altered object is found out by who reads it, and is none any more: it is made anew.
	bucket, err := blob.OpenBucket(t.Context(), s.URL+"&prefix=team/")
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	hash := strings.TrimPrefix(string(plan.DigestOf([]byte("one"))), "sha256:")
	if err := bucket.WriteAll(t.Context(), "sha256/"+hash[:2]+"/"+hash, []byte("two"), nil); err != nil {
		t.Fatal(err)
	}
	c, _ := remote(t, s.URL+"&prefix=team/", nil)
	if _, err := read(t, c, tree, "a"); !errors.Is(err, artifact.ErrMissing) {
		t.Errorf("%v", err)
	}
	if err := c.Verify(t.Context(), tree, artifact.DigestFile); !errors.Is(err, artifact.ErrMissing) {
		t.Errorf("%v", err)
	}
	if d := put(t, c); d != tree {
		t.Errorf("it is %s now", d)
	}
	if err := c.Verify(t.Context(), tree, artifact.DigestFile); err != nil {
		t.Error(err)
	}
	c, _ = remote(t, s.URL+"&prefix=team/", nil)
	if text, err := read(t, c, tree, "a"); err != nil || text != "one" {
		t.Errorf("%q %v", text, err)
	}
	none := plan.DigestOf([]byte("never made"))
	if err := b.Verify(t.Context(), none, artifact.DigestFile); !errors.Is(err, artifact.ErrMissing) {
		t.Errorf("%v", err)
	}
	if _, err := b.Blob(t.Context(), none); !errors.Is(err, artifact.ErrMissing) {
		t.Errorf("%v", err)
	}
}

func TestS3GoneForAMinute(t *testing.T) {
	s := s3(t)
	var mu sync.Mutex
	told := 0
	back := make(chan error, 1)
	store, _ := remote(t, s.URL, func(string) {
		mu.Lock()
		defer mu.Unlock()
		if told++; told == 1 {
			go func() { back <- s.Start() }()
		}
	})
	s.Stop()
	tree := put(t, store)
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	other, _ := remote(t, s.URL, nil)
	if text, err := read(t, other, tree, "a"); err != nil || text != "one" {
		t.Errorf("%q %v", text, err)
	}
}

func TestS3Refuses(t *testing.T) {
	s := s3(t)
	for what, url := range map[string]string{"no bucket": strings.Replace(s.URL, "s3://mlc?", "s3://other?", 1), "another user": s.URL} {
		if what == "another user" {
			t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		}
		store, _ := remote(t, url, func(text string) { t.Errorf("%s: retried: %s", what, text) })
		_, err := store.Put(t.Context(), folder(t))
		var d diag.Diagnostic
		if !errors.As(err, &d) || d.Code != diag.StoreFailed || d.Mend == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
