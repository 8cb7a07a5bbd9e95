package ort

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"mlc.dev/mlc/compiler/diag"
)

// Version is the release of ONNX Runtime that mlc is tested with and installs.
const Version = "1.30.0"

// EnvLibrary names the environment variable that points at a library.
const EnvLibrary = "MLC_ONNXRUNTIME"

// Library is an ONNX Runtime shared library on this machine.
type Library struct {
	Path string `json:"path"`
	From string `json:"from"` // what led to it
}

// download is one pinned package that holds the library.
type download struct {
	name   string   // of the source, for people
	tool   []string // the client and its arguments; the last words name the folder
	member string   // path inside the archive
	sha256 string   // of the library
}

func pip(member, sha256 string, platform string) download {
	tool := []string{"python3", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet",
		"--implementation", "cp", "--python-version", "3.11", "--platform", platform, "onnxruntime==" + Version, "--dest", "."}
	return download{"PyPI package onnxruntime " + Version, tool, "onnxruntime/capi/" + member, sha256}
}

func npm(member, sha256 string) download {
	return download{"npm package onnxruntime-node " + Version, []string{"npm", "pack", "--silent", "onnxruntime-node@" + Version, "--pack-destination", "."},
		"package/bin/napi-v6/" + member, sha256}
}

// downloads lists, by GOOS/GOARCH, where the library comes from, best first.
var downloads = map[string][]download{
	"linux/amd64": {
		pip("libonnxruntime.so.1.30.0", "c902c70b3003c0e99fada202f37478c515ae9bba7944c2b2abd0017bae0c82ed", "manylinux_2_28_x86_64"),
		npm("linux/x64/libonnxruntime.so.1", "ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23"),
	},
	"linux/arm64": {
		pip("libonnxruntime.so.1.30.0", "8a218e1e446880131115c368ec7005969a5022af9a15a26173de648fef0b7789", "manylinux_2_28_aarch64"),
		npm("linux/arm64/libonnxruntime.so.1", "1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76"),
	},
	"darwin/arm64": {
		pip("libonnxruntime.1.30.0.dylib", "8f54aa3989f2d4b2f9fbe8af298b1c147978ec899a8c28e20d0d35edc0005027", "macosx_14_0_arm64"),
		npm("darwin/arm64/libonnxruntime.1.30.0.dylib", "685d2be5dba1309c89d3a5324b7fd06a5c42f1a61bfea32d14c4cc28d072121d"),
	},
}

// installed is where Install puts the library.
func installed() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	name := "libonnxruntime.so"
	if runtime.GOOS == "darwin" {
		name = "libonnxruntime.dylib"
	}
	return filepath.Join(cache, "mlc", "onnxruntime", Version, name), nil
}

// Find returns the library that would be loaded: the one that EnvLibrary names,
// else mlc's own installed one, else the system's. The error is a
// diag.Diagnostic that says how to get one.
func Find() (Library, error) {
	if p := os.Getenv(EnvLibrary); p != "" {
		if _, err := os.Stat(p); err != nil {
			return Library{}, missing(fmt.Sprintf("%s is set, but there is no %s", EnvLibrary, p))
		}
		return Library{p, "environment variable " + EnvLibrary}, nil
	}
	if p, err := installed(); err == nil {
		if _, err := os.Stat(p); err == nil {
			return Library{p, "installed by mlc doctor --fix"}, nil
		}
	}
	for _, dir := range []string{"/usr/local/lib", "/usr/lib/" + runtime.GOARCH + "-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/opt/homebrew/lib"} {
		for _, name := range []string{"libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime.dylib"} {
			if p := filepath.Join(dir, name); fileExists(p) {
				return Library{p, "the system"}, nil
			}
		}
	}
	return Library{}, missing("no ONNX Runtime library on this machine")
}

// Pinned is the SHA-256 of the library that Install tries to get first; "" where there is
// none for this machine.
func Pinned() string {
	if sources := downloads[runtime.GOOS+"/"+runtime.GOARCH]; len(sources) > 0 {
		return sources[0].sha256
	}
	return ""
}

func missing(what string) error {
	return diag.Diagnostic{Severity: diag.Error, Code: diag.NoRuntimeLib, What: what,
		Why:  "models are transformed, proved and run by ONNX Runtime",
		Mend: "run `mlc doctor --fix`, which gets version " + Version + " with pip or npm, or set " + EnvLibrary + " to its path"}
}

func fileExists(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular()
}

// Install gets the pinned library through pip or npm, whichever answers first in
// that order, checks its digest and puts it where Find looks. log is told what
// is tried. It does nothing when the library is there and whole.
func Install(ctx context.Context, log func(string)) (Library, error) {
	dst, err := installed()
	if err != nil {
		return Library{}, err
	}
	sources := downloads[runtime.GOOS+"/"+runtime.GOARCH]
	if have, err := digestFile(dst); err == nil {
		for _, s := range sources {
			if s.sha256 == have {
				return Library{dst, "installed by mlc doctor --fix"}, nil
			}
		}
	}
	if len(sources) == 0 {
		return Library{}, fmt.Errorf("no pinned ONNX Runtime for %s/%s; set %s to a library of version %s", runtime.GOOS, runtime.GOARCH, EnvLibrary, Version)
	}
	var errs []error
	for _, s := range sources {
		log("getting ONNX Runtime from the " + s.name)
		if err := s.install(ctx, dst); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			log(errs[len(errs)-1].Error())
			continue
		}
		return Library{dst, "installed by mlc doctor --fix"}, nil
	}
	return Library{}, errors.Join(errs...)
}

func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (d download) install(ctx context.Context, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dst), "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, d.tool[0], d.tool[1:]...)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	found, err := filepath.Glob(filepath.Join(tmp, "onnxruntime*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("expected one package file, found %d", len(found))
	}
	lib := filepath.Join(tmp, "library")
	if err := extract(found[0], d.member, lib); err != nil {
		return err
	}
	have, err := digestFile(lib)
	if err != nil {
		return err
	}
	if have != d.sha256 {
		return fmt.Errorf("%s has SHA-256 %s, not the pinned %s", d.member, have, d.sha256)
	}
	return os.Rename(lib, dst)
}

// extract copies one named member out of a zip or tar.gz archive.
func extract(archive, member, dst string) error {
	if strings.HasSuffix(archive, ".whl") {
		z, err := zip.OpenReader(archive)
		if err != nil {
			return err
		}
		defer z.Close()
		r, err := z.Open(member)
		if err != nil {
			return err
		}
		defer r.Close()
		return writeSynced(dst, r)
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for t := tar.NewReader(gz); ; {
		h, err := t.Next()
		if err == io.EOF {
			return fmt.Errorf("no %s in the package", member)
		}
		if err != nil {
			return err
		}
		if h.Name == member {
			return writeSynced(dst, t)
		}
	}
}

func writeSynced(dst string, r io.Reader) error {
	w, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	if err := w.Sync(); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
