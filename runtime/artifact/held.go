package artifact

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"mlc.dev/mlc/compiler/plan"
)

// Held is a blob as it lies in a store: its size in bytes, and when it was written.
type Held struct {
	Digest  plan.Digest
	Size    int64
	Written time.Time
}

// named returns the digest that a slash-separated path below the store's root
// stands for, and whether it is the place of a blob. What else lies there is not
// the store's.
func named(p string) (plan.Digest, bool) {
	h := path.Base(p)
	if len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" || p != "sha256/"+h[:2]+"/"+h {
		return "", false
	}
	return plan.Digest("sha256:" + h), true
}

// InBucket reports whether the folder is the cache of a bucket.
func (s *Store) InBucket() bool { return s.remote != nil }

// Held lists the blobs of the folder, which is the cache where there is a bucket.
func (s *Store) Held() ([]Held, error) {
	var out []Held
	err := filepath.WalkDir(filepath.Join(s.dir, "sha256"), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(s.dir, p)
		if err != nil {
			return err
		}
		d, ok := named(filepath.ToSlash(rel))
		if !ok {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			out = append(out, Held{d, info.Size(), info.ModTime()})
		}
		return err
	})
	return out, err
}

// Remove removes a blob from the folder, and from the cache alone where there is a
// bucket. One that is not there is no error.
func (s *Store) Remove(d plan.Digest) error {
	if err := os.Remove(s.blobPath(d)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// HeldInBucket lists the blobs of the bucket.
func (s *Store) HeldInBucket(ctx context.Context) ([]Held, error) {
	var out []Held
	err := s.remote.do(ctx, "listing it", func(ctx context.Context) error {
		out = nil
		it := s.remote.bucket.List(&blob.ListOptions{Prefix: "sha256/"})
		for {
			o, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if d, ok := named(o.Key); ok {
				out = append(out, Held{d, o.Size, o.ModTime})
			}
		}
	})
	return out, err
}

// RemoveFromBucket removes a blob from the bucket. One that is not there is no
// error.
func (s *Store) RemoveFromBucket(ctx context.Context, d plan.Digest) error {
	return s.remote.do(ctx, "deleting "+d.Short(), func(ctx context.Context) error {
		if err := s.remote.bucket.Delete(ctx, s.remote.key(d)); gcerrors.Code(err) != gcerrors.NotFound {
			return err
		}
		return nil
	})
}

// Unfinished lists the half-written files of the folder that were not written to
// after before, with their sizes by path.
func (s *Store) Unfinished(before time.Time) (map[string]int64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), "blob-") && !strings.HasPrefix(e.Name(), "tree-") {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.ModTime().Before(before) {
			out[filepath.Join(s.dir, e.Name())] = info.Size()
		}
	}
	return out, nil
}
