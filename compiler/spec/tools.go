package spec

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/parser"
	cuejson "cuelang.org/go/encoding/json"
	"cuelang.org/go/mod/modcache"
	"cuelang.org/go/mod/modregistry"
	"cuelang.org/go/mod/module"

	"mlc.dev/mlc/compiler/diag"
	"mlc.dev/mlc/schema"
)

// Format returns a CUE file's text in the standard form.
func Format(name string, src []byte) ([]byte, diag.List) {
	f, err := parser.ParseFile(name, src, parser.ParseComments)
	var list diag.List
	if err != nil {
		s := &Spec{Files: map[string][]byte{name: src}, places: map[string]place{}, broken: map[string]bool{}, faulty: map[string]bool{}, told: map[mistake]bool{}, kindless: map[string]bool{}}
		s.convert(err, &list, diag.Syntax)
		return nil, list
	}
	out, err := format.Node(f)
	if err != nil {
		list.Add(diag.Range{File: name}, diag.Syntax, "%v", err)
	}
	return out, list
}

// RenderCUE prints data as CUE: package clause, import and system.
func RenderCUE(pkg string, system any) ([]byte, error) {
	b, err := json.MarshalIndent(system, "", "\t") // a line each, which the formatter keeps
	if err != nil {
		return nil, err
	}
	e, err := cuejson.Extract("system.json", b)
	if err != nil {
		return nil, err
	}
	body, err := format.Node(e)
	if err != nil {
		return nil, err
	}
	body = append([]byte("system: schema.#System & "), body...)
	head := fmt.Sprintf("package %s\n\nimport %q\n\n", pkg, schema.Package)
	return format.Source(append([]byte(head), body...), format.Simplify())
}

// Package returns the CUE package name of a folder's spec, or "system".
func (s *Spec) Package() string {
	for name, src := range s.Files {
		if f, err := parser.ParseFile(name, src, parser.PackageClauseOnly); err == nil && f.PackageName() != "" {
			return f.PackageName()
		}
	}
	return "system"
}

// SeedCache puts the schema's module into CUE's own cache, where the user's cue
// command and editor find it without any registry. It does nothing when it is
// there. The cache is $CUE_CACHE_DIR, or cue in the user's cache folder.
func SeedCache(ctx context.Context, files schema.Files) error {
	dir := os.Getenv("CUE_CACHE_DIR")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		dir = filepath.Join(base, "cue")
	}
	mv, err := module.NewVersion(schema.Module, files.Version())
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "mod", "extract", "mlc.dev@"+mv.Version(), "schema")); err == nil {
		return nil
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, n := range files.Names() {
		w, err := z.Create(n)
		if err != nil {
			return err
		}
		if _, err := w.Write(files[n]); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	c := modregistry.NewClient(ocimem.New())
	if err := c.PutModule(ctx, mv, bytes.NewReader(buf.Bytes()), int64(buf.Len())); err != nil {
		return err
	}
	m, err := modcache.New(c, dir)
	if err != nil {
		return err
	}
	if _, err := m.ModFile(ctx, mv); err != nil {
		return err
	}
	_, err = m.Fetch(ctx, mv)
	return err
}
