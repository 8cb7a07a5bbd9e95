package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/servertest"
)

// What the tests of engines need, set by whoever runs them: the addresses of one
// or two real engines, and the dagger command.
const (
	engineEnv = "MLC_TEST_DAGGER_ENGINE"
	cliEnv    = "_EXPERIMENTAL_DAGGER_CLI_BIN"
)

type serverKey string

// servers KIND [start|stop]: starts a real server for this script and sets
// $POSTGRES, $S3 or $REGISTRY to what an environment file says of it.
func server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: server postgres|s3|registry [start|stop]")
	}
	kind := args[0]
	if len(args) > 1 {
		s, _ := ts.Value(serverKey(kind)).(*servertest.Server)
		if s == nil {
			ts.Fatalf("no server %s", kind)
		}
		if args[1] == "stop" {
			s.Stop()
		} else {
			ts.Check(s.Start())
		}
		return
	}
	s, err := servertest.Kinds[kind]()
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Setenv(strings.ToUpper(kind), s.URL)
	for k, v := range s.Env {
		ts.Setenv(k, v)
	}
}

// pythonPackages are what the trainer of the scripts uses.
var pythonPackages = []string{"scikit-learn", "skl2onnx", "onnx", "pyarrow", "pandas"}

var buildPython = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("python3", "-c", "import sys, sysconfig; print(sys.base_prefix); print(sysconfig.get_path('stdlib')); print(sys.version)").Output()
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(out), "\n")
	sum := sha256.Sum256([]byte(strings.Join(append(lines, pythonPackages...), "\n")))
	dir := filepath.Join(cache, "mlc", "test-python-"+hex.EncodeToString(sum[:6]))
	archive := filepath.Join(dir, "python.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	site := filepath.Join(dir, "site")
	if err := os.MkdirAll(site, 0o755); err != nil {
		return "", err
	}
	pip := exec.Command("python3", append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--only-binary=:all:", "--upgrade", "--target", site}, pythonPackages...)...)
	if out, err := pip.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip: %w: %s", err, out)
	}
	return archive, pythonImage(lines[0], lines[1], site, archive)
})

// pythonImage makes an OCI archive of this machine's Python and some packages,
// with the libraries that they need.
func pythonImage(prefix, stdlib, site, archive string) error {
	exe, err := filepath.EvalSymlinks(filepath.Join(prefix, "bin", "python3"))
	if err != nil {
		return err
	}
	files := []oci.File{{Name: "usr/bin/python3", Path: exe, Mode: 0o755}, {Name: "tmp", Mode: os.ModeDir | os.ModeSticky | 0o777}}
	var shared []string
	add := func(root, at string, skip ...string) error {
		return filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			if e.IsDir() {
				for _, s := range append(skip, "__pycache__", "tests") {
					if e.Name() == s {
						return filepath.SkipDir
					}
				}
				return nil
			}
			if strings.Contains(e.Name(), ".so") {
				shared = append(shared, p)
			}
			files = append(files, oci.File{Name: at + "/" + filepath.ToSlash(rel), Path: p})
			return nil
		})
	}
	if err := add(stdlib, strings.TrimPrefix(stdlib, "/"), "test", "site-packages", "idlelib", "ensurepip", "turtledemo"); err != nil {
		return err
	}
	if err := add(site, "opt/site"); err != nil {
		return err
	}
	loader, libs, err := portable.Libraries(exe)
	if err != nil {
		return err
	}
	for _, s := range shared { // those that a wheel brings need not be found from outside
		if _, more, err := portable.Libraries(exe, s); err == nil {
			for name, path := range more {
				if !strings.HasPrefix(path, site) {
					libs[name] = path
				}
			}
		}
	}
	files = append(files, oci.File{Name: strings.TrimPrefix(loader, "/"), Path: loader, Mode: 0o755})
	for name, path := range libs {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		files = append(files, oci.File{Name: "usr/lib/x86_64-linux-gnu/" + name, Path: real})
	}
	img, err := oci.Build(oci.Image{Architecture: "amd64", Layers: [][]oci.File{files},
		Env: []string{"PATH=/usr/bin", "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu", "PYTHONHOME=" + prefix, "PYTHONPATH=/opt/site", "PYTHONDONTWRITEBYTECODE=1"}})
	if err != nil {
		return err
	}
	return oci.Save(img, archive, "python")
}

// python FILE: an OCI archive with Python and scikit-learn.
func pythonArchive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: python FILE")
	}
	archive, err := buildPython()
	ts.Check(err)
	ts.Check(os.Symlink(archive, ts.MkAbs(args[0])))
}
