package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/s3blob" // s3://
	"gocloud.dev/gcerrors"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/runtime/retry"
)

// remote is a bucket that several machines share. Blobs lie under the same names
// as in a folder; they never change, so that a copy is as good as the original.
type remote struct {
	bucket *blob.Bucket
	name   string
	cache  string // the folder of this machine's copies
	told   func(string)
	met    atomic.Bool // the store has answered

	mu   sync.Mutex
	have map[plan.Digest]bool // nil: not listed yet
}

// OpenRemote opens a store in a bucket, by a URL such as s3://bucket?region=…, of
// gocloud.dev/blob. What is used is kept in the folder cache. told hears of
// retries.
func OpenRemote(ctx context.Context, location, cache string, told func(string)) (*Store, error) {
	s, err := Open(cache)
	if err != nil {
		return nil, err
	}
	b, err := blob.OpenBucket(ctx, location)
	if err != nil {
		return nil, diag.Diagnostic{Severity: diag.Error, Code: diag.StoreFailed, What: "artifact store " + redacted(location) + ": " + strings.ReplaceAll(err.Error(), location, redacted(location)), Why: "what steps make is kept there", Mend: "mend artifacts.url of the environment"}
	}
	s.remote = &remote{bucket: b, name: redacted(location), cache: cache, told: told}
	return s, nil
}

// redacted is a URL without what might be secret.
func redacted(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return "(no URL)"
	}
	u.RawQuery = ""
	return u.Redacted()
}

func (r *remote) key(d plan.Digest) string {
	h := strings.TrimPrefix(string(d), "sha256:")
	return "sha256/" + h[:2] + "/" + h
}

// do runs an operation, again while the store is out of reach.
func (r *remote) do(ctx context.Context, what string, f func(context.Context) error) error {
	err := retry.Do(ctx, retry.Policy{Passing: passing, Met: &r.met, Answer: answer, Told: func(err error, wait time.Duration) {
		if r.told != nil {
			r.told(fmt.Sprintf("artifact store %s: %s: %v; again in %s", r.name, what, plain(err), wait))
		}
	}}, f)
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrMissing) {
		return err
	}
	return diag.Diagnostic{Severity: diag.Error, Code: diag.StoreFailed, What: fmt.Sprintf("artifact store %s: %s: %s", r.name, what, plain(err)),
		Why: "what steps make is kept there; what is finished stays finished", Mend: "see that the store answers and lets this user in; apply again goes on"}
}

// Reach looks into the bucket, to see whether it answers; a folder always does.
func (s *Store) Reach(ctx context.Context) error {
	if s.remote == nil {
		return nil
	}
	return s.remote.do(ctx, "look", func(ctx context.Context) error {
		_, _, err := s.remote.bucket.ListPage(ctx, blob.FirstPageToken, 1, nil)
		return err
	})
}

// status is that of a store's answer.
type status interface{ HTTPStatusCode() int }

// answer tells errors that a store has sent.
func answer(err error) bool {
	var s status
	return errors.As(err, &s) && s.HTTPStatusCode() > 0
}

// passing tells errors that may be gone in a moment.
func passing(err error) bool {
	var s status
	if errors.As(err, &s) {
		c := s.HTTPStatusCode()
		return c >= 500 || c == 408 || c == 429 || c == 0
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.InvalidArgument, gcerrors.PermissionDenied, gcerrors.FailedPrecondition, gcerrors.Unimplemented:
		return false
	}
	return !errors.Is(err, ErrMissing) && !errors.Is(err, fs.ErrNotExist)
}

// plain is a store's error without the request that it quotes.
func plain(err error) string {
	var api interface {
		ErrorCode() string
		ErrorMessage() string
	}
	if errors.As(err, &api) {
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// holds reports whether the bucket has a blob. The bucket is listed once; what
// others add later is found by asking.
func (r *remote) holds(ctx context.Context, d plan.Digest) (bool, error) {
	if r.marked(d) {
		return false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		have := map[plan.Digest]bool{}
		err := r.do(ctx, "listing it", func(ctx context.Context) error {
			it := r.bucket.List(&blob.ListOptions{Prefix: "sha256/"})
			for {
				o, err := it.Next(ctx)
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				have[plan.Digest("sha256:"+filepath.Base(o.Key))] = true
			}
		})
		if err != nil {
			return false, err
		}
		r.have = have
	}
	if r.have[d] {
		return true, nil
	}
	ok, err := r.asks(ctx, d)
	if ok {
		r.have[d] = true
	}
	return ok, err
}

// asks is holds without the memory.
func (r *remote) asks(ctx context.Context, d plan.Digest) (ok bool, err error) {
	err = r.do(ctx, "looking for "+d.Short(), func(ctx context.Context) (err error) {
		ok, err = r.bucket.Exists(ctx, r.key(d))
		return err
	})
	return ok, err
}

// send uploads a blob that the bucket does not have. It asks anew: since the bucket
// was listed, `mlc gc` may have deleted it.
func (r *remote) send(ctx context.Context, d plan.Digest, path string) error {
	marked := r.marked(d)
	if ok, err := r.asks(ctx, d); err != nil || ok && !marked {
		return err
	}
	err := r.do(ctx, "sending "+d.Short(), func(ctx context.Context) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		// A writer whose context ends before it is closed leaves nothing behind.
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w, err := r.bucket.NewWriter(wctx, r.key(d), &blob.WriterOptions{ContentType: "application/octet-stream"})
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, f); err != nil {
			cancel()
			return errors.Join(err, w.Close())
		}
		return w.Close()
	})
	if err == nil && marked {
		_ = os.Remove(r.mark(d)) // else it is written over once more
	}
	return err
}

// fetch brings a blob into the cache, verified.
func (s *Store) fetch(ctx context.Context, d plan.Digest) error {
	tmp, err := os.CreateTemp(s.dir, "blob-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	err = s.remote.do(ctx, "fetching "+d.Short(), func(ctx context.Context) error {
		if _, err := tmp.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := tmp.Truncate(0); err != nil {
			return err
		}
		r, err := s.remote.bucket.NewReader(ctx, s.remote.key(d), nil)
		if gcerrors.Code(err) == gcerrors.NotFound {
			return fmt.Errorf("%s: %w", d.Short(), ErrMissing)
		}
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err = io.Copy(tmp, r); err != nil && strings.Contains(err.Error(), "checksum did not match") { // S3's own, of what it keeps
			return s.remote.altered(d)
		}
		return err
	})
	if err != nil {
		return err
	}
	got, err := DigestFile(tmp.Name())
	if err != nil {
		return err
	}
	if got != d {
		return s.remote.altered(d)
	}
	return s.adopt(tmp.Name(), d)
}

// altered is the error of an object that is not what its name says. This machine holds it
// for missing from then on, until it has made it anew and written over it: what reads
// changes nothing that others share.
func (r *remote) altered(d plan.Digest) error {
	err := fmt.Errorf("%s was altered in %s: %w", d.Short(), r.name, ErrMissing)
	if e := os.MkdirAll(filepath.Dir(r.mark(d)), 0o755); e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, os.WriteFile(r.mark(d), nil, 0o644))
}

// mark is the file that says so.
func (r *remote) mark(d plan.Digest) string {
	return filepath.Join(r.cache, "altered", strings.TrimPrefix(string(d), "sha256:"))
}

func (r *remote) marked(d plan.Digest) bool {
	_, err := os.Stat(r.mark(d))
	return err == nil
}
