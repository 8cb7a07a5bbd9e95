package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dagger.io/dagger"
	"github.com/rogpeppe/go-internal/testscript"

	"mlc.dev/mlc/runtime/oci"
	"mlc.dev/mlc/runtime/ort"
	"mlc.dev/mlc/runtime/portable"
	"mlc.dev/mlc/runtime/servertest"
)

// What the tests of engines need, set by whoever runs them: the addresses of one
// or two real engines, and the dagger command.
const (
	engineEnv = "MLC_TEST_DAGGER_ENGINE"
	cliEnv    = "_EXPERIMENTAL_DAGGER_CLI_BIN"
)

// scriptEnv are the variables of a script that programs which the commands below
// start have to see.
var scriptEnv = []string{"PATH", "HOME", "TMPDIR", "WORK", "CUE_CACHE_DIR", ort.EnvLibrary, cliEnv, engineEnv, engineEnv + "_2"}

type serverKey string

// proxies are the sockets that scripts may use; their values are made in Setup.
var proxies = []string{"a.sock"}

// box holds a server that a script starts.
type box struct{ *servertest.Server }

// servers KIND [start|stop]: starts a real server for this script and sets
// $POSTGRES, $S3 or $REGISTRY to what an environment file says of it.
func server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: server postgres|s3|registry [start|stop]")
	}
	kind := args[0]
	if len(args) > 1 {
		s := ts.Value(serverKey(kind)).(*box)
		if s.Server == nil {
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
	ts.Value(serverKey(kind)).(*box).Server = s
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Setenv(strings.ToUpper(kind), s.URL)
	ts.Setenv(strings.ToUpper(kind)+"_ADDR", s.Addr)
	for k, v := range s.Env {
		ts.Setenv(k, v)
	}
}

// pythonPackages are what the trainer of the scripts uses.
var pythonPackages = []string{"scikit-learn", "skl2onnx", "onnx", "pyarrow", "pandas"}

// buildPython makes the archive of pythonPackages, and of nothing but wheels to install
// those of the file requirements from where one is named; once a machine.
func buildPython(requirements string) (string, error) {
	built.Lock()
	defer built.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("python3", "-c", "import sys, sysconfig; print(sys.base_prefix); print(sysconfig.get_path('stdlib')); print(sys.version)").Output()
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(out), "\n")
	pip, into := append([]string{"install", "--upgrade", "--target"}, "site"), pythonPackages
	if requirements != "" {
		b, err := os.ReadFile(requirements)
		if err != nil {
			return "", err
		}
		pip, into = append([]string{"download", "--no-deps", "--dest"}, "wheels"), strings.Fields(string(b))
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat(lines, pip, into), "\n")))
	dir := filepath.Join(cache, "mlc", "test-python-"+hex.EncodeToString(sum[:6]))
	archive := filepath.Join(dir, "python.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	packages := filepath.Join(dir, pip[len(pip)-1])
	if err := os.MkdirAll(packages, 0o755); err != nil {
		return "", err
	}
	pip[len(pip)-1] = packages
	cmd := exec.Command("python3", slices.Concat([]string{"-m", "pip"}, pip, []string{"--quiet", "--disable-pip-version-check", "--only-binary=:all:"}, into)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip: %w: %s", err, out)
	}
	return archive, pythonImage(lines[0], lines[1], packages, archive)
}

// built is held while an archive is made.
var built sync.Mutex

// pythonImage makes an OCI archive of this machine's Python, where it is on this machine,
// and of a folder of packages, with the libraries that they need.
func pythonImage(prefix, stdlib, packages, archive string) error {
	exe, err := filepath.EvalSymlinks(filepath.Join(prefix, "bin", "python3"))
	if err != nil {
		return err
	}
	files := []oci.File{{Name: strings.TrimPrefix(prefix, "/") + "/bin/python3", Path: exe, Mode: 0o755}, {Name: "tmp", Mode: os.ModeDir | os.ModeSticky | 0o777}}
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
	if err := add(stdlib, strings.TrimPrefix(stdlib, "/"), "test", "site-packages", "idlelib", "turtledemo"); err != nil {
		return err
	}
	at := "opt/" + filepath.Base(packages)
	if err := add(packages, at); err != nil {
		return err
	}
	loader, libs, err := portable.Libraries(exe)
	if err != nil {
		return err
	}
	for _, s := range shared { // those that a wheel brings need not be found from outside
		if _, more, err := portable.Libraries(exe, s); err == nil {
			for name, path := range more {
				if !strings.HasPrefix(path, packages) {
					libs[name] = path
				}
			}
		}
	}
	// What wheels leave to the system (manylinux), and LightGBM's besides.
	for _, name := range []string{"libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libgomp.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libutil.so.1"} {
		for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				libs[name] = filepath.Join(dir, name)
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
		Env: []string{"PATH=" + prefix + "/bin", "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu", "PYTHONPATH=/" + at, "PYTHONDONTWRITEBYTECODE=1", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/" + at}})
	if err != nil {
		return err
	}
	return oci.Save(img, archive, "python")
}

// python FILE [REQUIREMENTS]: an OCI archive with Python and scikit-learn, or with Python
// and what pip installs the requirements from.
func pythonArchive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: python FILE [REQUIREMENTS]")
	}
	requirements := ""
	if len(args) > 1 {
		requirements = ts.MkAbs(args[1])
	}
	archive, err := buildPython(requirements)
	ts.Check(err)
	ts.Check(os.Symlink(archive, ts.MkAbs(args[0])))
}

// proxy stands between mlc and an engine, so that a test can cut them apart.
type proxy struct {
	to string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
}

func (p *proxy) start(at string) error {
	l, err := net.Listen("unix", at)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("unix", strings.TrimPrefix(p.to, "unix://"))
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, d)
			p.mu.Unlock()
			for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
				}()
			}
		}
	}()
	return nil
}

// cut ends the proxy and all that goes through it, as the death of an engine does.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.l != nil {
		p.l.Close()
	}
	for _, c := range p.conns {
		c.Close()
	}
	p.l, p.conns = nil, nil
}

// proxy SOCKET ENGINE: an address for an engine that cut can make unreachable.
func proxyEngine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: proxy SOCKET ENGINE")
	}
	p, _ := ts.Value(serverKey(args[0])).(*proxy)
	if p == nil {
		ts.Fatalf("no proxy %s was made in Setup", args[0])
	}
	p.to = args[1]
	ts.Check(p.start(ts.MkAbs(args[0])))
	ts.Defer(p.cut)
}

// cut SOCKET STEP ARGS…: runs mlc with ARGS and cuts the proxy when STEP starts.
// With ! mlc has to fail. Its output is left in the files cut.out and cut.err.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	p, _ := ts.Value(serverKey(args[0])).(*proxy)
	cmd := exec.Command("mlc", append([]string{"--json"}, args[2:]...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range scriptEnv {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	errs, err := os.Create(ts.MkAbs("cut.err"))
	ts.Check(err)
	defer errs.Close()
	outs, err := os.Create(ts.MkAbs("cut.out"))
	ts.Check(err)
	defer outs.Close()
	cmd.Stderr = errs
	r, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	done := false
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fmt.Fprintln(outs, sc.Text())
		if !done && strings.Contains(sc.Text(), `"step_started"`) && strings.Contains(sc.Text(), `"`+args[1]+`"`) {
			done = true
			p.cut()
		}
	}
	err = cmd.Wait()
	if !done {
		ts.Fatalf("%s never started", args[1])
	}
	if (err != nil) != neg {
		ts.Fatalf("mlc: %v", err)
	}
}

// runimage ARCHIVE FOLDER ARGS…: runs the image of an OCI archive with ARGS on a
// real engine, with FOLDER as /data, and brings that back.
func runImage(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client, err := dagger.Connect(ctx, dagger.WithRunnerHost(ts.Getenv(engineEnv)))
	ts.Check(err)
	defer client.Close()
	data := ts.MkAbs(args[1])
	c := client.Container().Import(client.Host().File(ts.MkAbs(args[0]))).
		WithMountedDirectory("/data", client.Host().Directory(data), dagger.ContainerWithMountedDirectoryOpts{Owner: "65532:65532"}).
		WithExec(args[2:], dagger.ContainerWithExecOpts{UseEntrypoint: true})
	_, err = c.Directory("/data").Export(ctx, data)
	if (err != nil) != neg {
		ts.Fatalf("%v", err)
	}
}
