// Package oci makes container images, the same bytes for the same content, writes
// them as archives, and talks to registries. It is the only importer of
// go-containerregistry.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"mlc.dev/mlc/compiler/diag"
)

// File is one file of a layer. Content is that of the file at Path, or Bytes.
type File struct {
	Name  string // slash-separated, without a leading slash
	Path  string
	Bytes []byte
	// Mode is 0755 or 0644; 0 means 0644. A folder has os.ModeDir and no content.
	Mode os.FileMode
}

// Image is what an image is made of.
type Image struct {
	Architecture string
	// Layers are from the bottom: put what changes seldom first.
	Layers     [][]File
	Entrypoint []string
	Env        []string // NAME=value
	User       string
	Workdir    string
	Labels     map[string]string
}

// Build makes the image. The same Image gives the same digest: files are in the
// order of their names, without times and owners.
func Build(i Image) (v1.Image, error) {
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		Architecture: i.Architecture, OS: "linux", RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: i.Entrypoint, Env: i.Env, User: i.User, WorkingDir: i.Workdir, Labels: i.Labels}})
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, files := range i.Layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() { w.CloseWithError(writeLayer(w, files)) }()
			return r, nil
		}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "mlc"}}); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// writeLayer writes a layer as an uncompressed tar.
func writeLayer(w io.Writer, files []File) error {
	files = append([]File(nil), files...)
	sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })
	t := tar.NewWriter(w)
	made := map[string]bool{".": true}
	folder := func(dir string, mode int64) error {
		made[dir] = true
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode, Format: tar.FormatPAX})
	}
	var parents func(dir string) error
	parents = func(dir string) error {
		if made[dir] {
			return nil
		}
		if err := parents(path.Dir(dir)); err != nil {
			return err
		}
		return folder(dir, 0o755)
	}
	for _, f := range files {
		if f.Mode.IsDir() {
			if err := parents(path.Dir(f.Name)); err != nil {
				return err
			}
			mode := int64(f.Mode.Perm())
			if f.Mode&os.ModeSticky != 0 {
				mode |= 0o1000
			}
			if err := folder(f.Name, mode); err != nil {
				return err
			}
			continue
		}
		if err := parents(path.Dir(f.Name)); err != nil {
			return err
		}
		if err := writeFile(t, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return t.Close()
}

func writeFile(t *tar.Writer, f File) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Bytes)), Format: tar.FormatPAX}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	var r io.Reader = bytes.NewReader(f.Bytes)
	if f.Path != "" {
		src, err := os.Open(f.Path)
		if err != nil {
			return err
		}
		defer src.Close()
		info, err := src.Stat()
		if err != nil {
			return err
		}
		h.Size, r = info.Size(), src
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t, r)
	return err
}

// Digest is the image's digest, as in image@sha256:….
func Digest(img v1.Image) (string, error) {
	h, err := img.Digest()
	return h.String(), err
}

// Save writes the image as an OCI archive, atomically. tag is what its index calls
// it. The error is a diag.Diagnostic where the file cannot be written.
func Save(img v1.Image, file, tag string) error {
	tmp, err := os.CreateTemp(path.Dir(file), ".mlc-image-")
	if err != nil {
		return diag.Unwritable(file, err)
	}
	defer os.Remove(tmp.Name())
	err = writeArchive(tmp, img, tag)
	if err == nil {
		err = tmp.Chmod(0o644)
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
	if err := os.Rename(tmp.Name(), file); err != nil {
		return diag.Unwritable(file, err)
	}
	return nil
}

// Named checks the name that an image is to have, and its tag. The error is a
// diag.Diagnostic.
func Named(tag string) error {
	if _, err := name.NewTag(tag); err != nil {
		return diag.Diagnostic{Severity: diag.Error, Code: diag.NoImage, What: fmt.Sprintf("%q is no name of an image", tag), Why: reason(err), Mend: "write it as registry/name:tag, in small letters"}
	}
	return nil
}

// writeArchive writes the OCI image layout as a tar.
func writeArchive(w io.Writer, img v1.Image, tag string) error {
	t := tar.NewWriter(w)
	put := func(name string, size int64, r io.Reader) error {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := io.Copy(t, r)
		return err
	}
	blob := func(h v1.Hash, size int64, r io.Reader) error {
		return put("blobs/"+h.Algorithm+"/"+h.Hex, size, r)
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	seen := map[v1.Hash]bool{}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return err
		}
		size, err := l.Size()
		if err != nil {
			return err
		}
		if seen[h] {
			continue
		}
		seen[h] = true
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		if err := errors.Join(blob(h, size, r), r.Close()); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	ch, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := blob(ch, int64(len(config)), bytes.NewReader(config)); err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	mh, err := img.Digest()
	if err != nil {
		return err
	}
	if err := blob(mh, int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	called := map[string]string{"org.opencontainers.image.ref.name": tag}
	if n, err := name.NewTag(tag); err == nil && n.Context().RegistryStr() != name.DefaultRegistry {
		called["io.containerd.image.name"] = n.Name() // what a node of Kubernetes looks for
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Digest: mh, Size: int64(len(manifest)), Annotations: called}}})
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"index.json": index} {
		if err := put(name, int64(len(b)), bytes.NewReader(b)); err != nil {
			return err
		}
	}
	layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if err := put("oci-layout", int64(len(layout)), bytes.NewReader(layout)); err != nil {
		return err
	}
	return t.Close()
}

// Push writes the image to a registry and returns its name by digest. It uses the
// logins of the docker command's own configuration. The error is a
// diag.Diagnostic.
func Push(ctx context.Context, img v1.Image, ref string) (string, error) {
	n, err := name.ParseReference(ref)
	if err != nil {
		return "", noImage(ref, err)
	}
	if err := remote.Write(n, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), backoff()); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", diag.Diagnostic{Severity: diag.Error, Code: diag.PushRefused, What: fmt.Sprintf("the registry does not take %s: %s", ref, reason(err)),
			Why: "nothing can pull the image", Mend: "mend the name, log in with `docker login`, or ask for the right to push there"}
	}
	d, err := img.Digest()
	return n.Context().Name() + "@" + d.String(), err
}

// Resolve asks a registry for the digest of a reference. The error is a
// diag.Diagnostic.
func Resolve(ctx context.Context, ref string) (string, error) {
	n, err := name.ParseReference(ref)
	if err != nil {
		return "", noImage(ref, err)
	}
	d, err := remote.Get(n, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), backoff())
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", noImage(ref, err)
	}
	return d.Digest.String(), nil
}

// backoff retries what may pass, for a few seconds.
func backoff() remote.Option {
	return remote.WithRetryBackoff(remote.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 3})
}

func noImage(ref string, err error) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoImage, What: fmt.Sprintf("image %s cannot be had: %s", ref, reason(err)),
		Why: "its digest is part of the step's key", Mend: "mend the name, push the image, log in with `docker login`, or write it as name@sha256:…"}
}

// reason is what a registry's error says, without the request that it quotes.
func reason(err error) string {
	var te *transport.Error
	if errors.As(err, &te) {
		text := http.StatusText(te.StatusCode)
		for _, d := range te.Errors {
			text += ": " + string(d.Code) + " " + d.Message
		}
		return fmt.Sprintf("it answers %d %s", te.StatusCode, strings.TrimSpace(text))
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
