// Package artifact keeps what steps make: trees of files, named by the digest of
// their content, in a local folder, or in a bucket with a local folder as cache.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"mlc.dev/mlc/compiler/plan"
)

// Store is a folder of blobs. Trees are blobs too: manifests that list files.
type Store struct {
	dir    string
	remote *remote // nil: the folder is all there is
}

// File is one file of a tree. Path is slash-separated and local.
type File struct {
	Path   string      `json:"path"`
	Digest plan.Digest `json:"digest"`
	Size   int64       `json:"size"`
}

// ErrMissing says that content is not in the store, or not as it was.
var ErrMissing = errors.New("missing from the artifact store")

// Open makes the folder where there is none.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o755); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	return &Store{dir: abs}, err
}

// Close frees the connection to a bucket.
func (s *Store) Close() error {
	if s.remote == nil {
		return nil
	}
	return s.remote.bucket.Close()
}

// Blob returns the path of a blob's local copy, brought from the bucket where it
// has to be. The error wraps ErrMissing where there is none; in a folder without a
// bucket, that shows when the path is opened.
func (s *Store) Blob(ctx context.Context, d plan.Digest) (string, error) {
	path := s.blobPath(d)
	if s.remote == nil {
		return path, nil
	}
	if got, err := DigestFile(path); err == nil && got == d {
		return path, nil
	}
	return path, s.fetch(ctx, d)
}

// blobPath is where a blob lies, or would.
func (s *Store) blobPath(d plan.Digest) string {
	h := strings.TrimPrefix(string(d), "sha256:")
	if len(h) < 3 {
		return filepath.Join(s.dir, "sha256", "invalid")
	}
	return filepath.Join(s.dir, "sha256", h[:2], h)
}

// Put moves the files of a folder into the store and returns the tree's digest.
func (s *Store) Put(ctx context.Context, dir string) (plan.Digest, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		d, n, err := digestFile(path)
		if err != nil {
			return err
		}
		files = append(files, File{filepath.ToSlash(rel), d, n})
		return s.keep(ctx, path, d)
	})
	if err != nil {
		return "", err
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	b, err := json.Marshal(struct {
		Format string `json:"format"`
		Files  []File `json:"files"`
	}{"mlc.tree.v1", files})
	if err != nil {
		return "", err
	}
	d := plan.DigestOf(b)
	tmp, err := os.CreateTemp(s.dir, "tree-")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Close()
	}
	if err != nil {
		return "", err
	}
	return d, s.keep(ctx, tmp.Name(), d)
}

// keep adopts a file and sends it to the bucket.
func (s *Store) keep(ctx context.Context, path string, d plan.Digest) error {
	if err := s.adopt(path, d); err != nil || s.remote == nil {
		return err
	}
	return s.remote.send(ctx, d, s.blobPath(d))
}

// adopt moves a finished file to its blob's place, synced and read-only. A blob
// that is there is replaced: it may have been damaged.
func (s *Store) adopt(path string, d plan.Digest) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o444); err != nil {
		return err
	}
	dst := s.blobPath(d)
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	err = os.Rename(path, dst)
	if errors.Is(err, syscall.EXDEV) {
		return s.copy(path, dst)
	}
	return err
}

// copy brings a file from another file system into the store.
func (s *Store) copy(path, dst string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(s.dir, "blob-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = io.Copy(tmp, src); err == nil {
		err = tmp.Chmod(0o444)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), dst)
}

func digestFile(path string) (plan.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return plan.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), n, err
}

// DigestFile returns the digest of a file's content.
func DigestFile(path string) (plan.Digest, error) {
	d, _, err := digestFile(path)
	return d, err
}

// Files lists a tree. The error wraps ErrMissing where the manifest is not there
// or altered.
func (s *Store) Files(ctx context.Context, tree plan.Digest) ([]File, error) {
	path, err := s.Blob(ctx, tree)
	if err != nil && !errors.Is(err, ErrMissing) {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil || plan.DigestOf(b) != tree {
		return nil, fmt.Errorf("tree %s: %w", tree.Short(), ErrMissing)
	}
	var m struct{ Files []File }
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("tree %s: %w", tree.Short(), err)
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return nil, fmt.Errorf("tree %s: path %q leaves it", tree.Short(), f.Path)
		}
	}
	return m.Files, nil
}

// Verify checks that a tree is whole: each file is there with its content. Of a
// folder, digest tells a file's digest; it may answer from memory for files that
// have not changed. Of a bucket, a blob's name vouches for its content until it is
// fetched.
func (s *Store) Verify(ctx context.Context, tree plan.Digest, digest func(path string) (plan.Digest, error)) error {
	files, err := s.Files(ctx, tree)
	if err != nil {
		return err
	}
	for _, f := range files {
		ok := false
		if s.remote != nil {
			if ok, err = s.remote.holds(ctx, f.Digest); err != nil {
				return err
			}
		} else if d, err := digest(s.blobPath(f.Digest)); err == nil {
			ok = d == f.Digest
		}
		if !ok {
			return fmt.Errorf("%s of tree %s: %w", f.Path, tree.Short(), ErrMissing)
		}
	}
	return nil
}

// Link lays a tree out under dst as links to its blobs.
func (s *Store) Link(ctx context.Context, tree plan.Digest, dst string) error {
	files, err := s.Files(ctx, tree)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		p := filepath.Join(dst, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		blob, err := s.Blob(ctx, f.Digest)
		if err != nil {
			return err
		}
		if err := os.Symlink(blob, p); err != nil {
			return err
		}
	}
	return nil
}

// Path is the blob of one file of a tree. The error wraps ErrMissing where the
// tree has no such file.
func (s *Store) Path(ctx context.Context, tree plan.Digest, name string) (string, error) {
	files, err := s.Files(ctx, tree)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if f.Path == name {
			return s.Blob(ctx, f.Digest)
		}
	}
	return "", fmt.Errorf("%s of tree %s: %w", name, tree.Short(), ErrMissing)
}
