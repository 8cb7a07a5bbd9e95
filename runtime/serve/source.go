package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"mlc.dev/mlc/compiler/plan"
	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/ort"
)

// Version is what a reference means.
type Version struct {
	Number int         `json:"version"`
	Bundle plan.Digest `json:"bundle"`
}

// Source is where a server's models come from.
type Source interface {
	// Resolve returns what a reference means now. It is asked again and again, so
	// it has to be cheap.
	Resolve(ctx context.Context, ref service.Ref) (Version, error)
	// Open reads a version. It fails where the files are not those of the digest.
	Open(ctx context.Context, ref service.Ref, v Version) (*bundle.Bundle, error)
}

// Folder is a Source for what is packed with the program: a folder with index.json
// and a folder for each version. What a reference means there never changes.
type Folder struct {
	dir     string
	entries map[string]FolderEntry
}

// FolderEntry is one reference of a Folder's index.json, which holds them by their
// text, as "churn@production".
type FolderEntry struct {
	Version
	// Dir is the version's folder, below that of the index.
	Dir string `json:"dir"`
	// Files are the digests of the files that predicting takes, by name.
	Files map[string]plan.Digest `json:"files"`
}

// IndexFile is the name of a Folder's index.
const IndexFile = "index.json"

// OpenFolder reads the index of a folder.
func OpenFolder(dir string) (*Folder, error) {
	b, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if err != nil {
		return nil, err
	}
	f := &Folder{dir: dir}
	if err := json.Unmarshal(b, &f.entries); err != nil {
		return nil, fmt.Errorf("%s: %w", IndexFile, err)
	}
	for ref, e := range f.entries {
		if !filepath.IsLocal(e.Dir) {
			return nil, fmt.Errorf("%s: the folder of %s leads out of it", IndexFile, ref)
		}
	}
	return f, nil
}

// Resolve finds a reference in the index.
func (f *Folder) Resolve(_ context.Context, ref service.Ref) (Version, error) {
	e, ok := f.entries[ref.String()]
	if !ok {
		return Version{}, fmt.Errorf("there is no %s in this folder of models", ref)
	}
	return e.Version, nil
}

// Open reads a version and holds its files against their digests.
func (f *Folder) Open(_ context.Context, ref service.Ref, _ Version) (*bundle.Bundle, error) {
	e, ok := f.entries[ref.String()]
	if !ok {
		return nil, fmt.Errorf("there is no %s in this folder of models", ref)
	}
	for _, name := range []string{bundle.ModelFile, bundle.SignatureFile} {
		b, err := os.ReadFile(filepath.Join(f.dir, e.Dir, name))
		if err != nil {
			return nil, err
		}
		if got := plan.DigestOf(b); got != e.Files[name] {
			return nil, fmt.Errorf("%s of %s is %s, not %s as the index has it: it was damaged or changed", name, ref, got.Short(), e.Files[name].Short())
		}
	}
	return bundle.Open(bundle.Dir(filepath.Join(f.dir, e.Dir)))
}

// File is a Source of one ONNX model that mlc did not make. It has no signature.
type File struct {
	Path string
	// Convert makes ONNX of what the file holds; nil: it is ONNX.
	Convert func([]byte) ([]byte, error)
}

// Resolve is version 1 of whatever is asked.
func (f File) Resolve(context.Context, service.Ref) (Version, error) {
	return Version{Number: 1, Bundle: plan.Digest(f.Path)}, nil
}

// Open reads the file.
func (f File) Open(context.Context, service.Ref, Version) (*bundle.Bundle, error) {
	b, err := os.ReadFile(f.Path)
	switch {
	case err != nil:
	case f.Convert != nil:
		b, err = f.Convert(b)
	default:
		b, err = ort.Embed(b, filepath.Dir(f.Path))
	}
	return &bundle.Bundle{Model: b}, err
}
