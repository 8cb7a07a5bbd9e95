package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// served is a service that a script has started.
type served struct {
	cmd  *exec.Cmd
	errs *bytes.Buffer
}

// serve ARGS…: starts mlc serve ARGS on free ports, and sets $HTTP, $GRPC and
// $METRICS to its addresses. serve stop: ends it as Ctrl-C does; it has to end well,
// and its log is left in the file serve.log.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servedKey{}).(*served)
	if len(args) == 1 && args[0] == "stop" {
		ts.Check(s.cmd.Process.Signal(os.Interrupt))
		err := s.cmd.Wait()
		s.cmd = nil
		ts.Check(os.WriteFile(ts.MkAbs("serve.log"), s.errs.Bytes(), 0o644))
		if (err != nil) != neg {
			ts.Fatalf("mlc serve: %v: %s", err, s.errs)
		}
		return
	}
	exe, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "mlc"))
	ts.Check(err)
	all := append([]string{"--json", "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, args...)
	start(ts, s, exec.Command(exe, all...), func(line []byte) bool {
		var e struct{ HTTP, GRPC, Metrics string }
		if json.Unmarshal(line, &e) != nil || e.HTTP == "" {
			return false
		}
		ts.Setenv("HTTP", e.HTTP)
		ts.Setenv("GRPC", e.GRPC)
		ts.Setenv("METRICS", e.Metrics)
		return true
	}, false)
}

type servedKey struct{}

// start starts a server and reads its lines until one says that it is ready.
func start(ts *testscript.TestScript, s *served, cmd *exec.Cmd, ready func(line []byte) bool, onStderr bool) {
	if s.cmd != nil {
		ts.Fatalf("a service runs already")
	}
	s.cmd, s.errs = cmd, &bytes.Buffer{}
	if cmd.Dir == "" {
		cmd.Dir = ts.MkAbs(".")
	}
	if cmd.Env == nil { // an image has its own
		for _, name := range scriptEnv {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
	}
	var r io.ReadCloser
	var err error
	if onStderr {
		r, err = cmd.StderrPipe()
	} else {
		cmd.Stderr = s.errs
		r, err = cmd.StdoutPipe()
	}
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
	})
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if onStderr {
			fmt.Fprintln(s.errs, sc.Text())
		}
		if ready(sc.Bytes()) {
			go func() { _, _ = io.Copy(io.Discard, r) }() // its end is Wait's
			return
		}
	}
	_ = cmd.Wait()
	s.cmd = nil
	ts.Fatalf("it ended before it was ready: %s", s.errs)
}

// http STATUS METHOD URL [BODY [FILE]]: asks, demands a status, and keeps the
// answer in FILE or prints it to the log.
func httpCall(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: http STATUS METHOD URL [BODY [FILE]]")
	}
	body := ""
	if len(args) > 3 {
		body = args[3]
	}
	req, err := http.NewRequest(args[1], "http://"+args[2], strings.NewReader(body))
	ts.Check(err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: 20 * time.Second}
	res, err := client.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	ts.Check(err)
	if fmt.Sprint(res.StatusCode) != args[0] {
		ts.Fatalf("%s %s: %s: %s", args[1], args[2], res.Status, b)
	}
	if len(args) > 4 {
		ts.Check(os.WriteFile(ts.MkAbs(args[4]), b, 0o644))
		return
	}
	ts.Logf("%s", b)
}

// until TEXT URL BODY: asks until an answer has a text.
func until(ts *testscript.TestScript, neg bool, args []string) {
	end := time.Now().Add(20 * time.Second)
	last := ""
	for time.Now().Before(end) {
		res, err := http.Post("http://"+args[1], "application/json", strings.NewReader(args[2]))
		ts.Check(err)
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		ts.Check(err)
		if last = string(b); res.StatusCode != 200 {
			ts.Fatalf("%s: %s", res.Status, last)
		}
		if strings.Contains(last, args[0]) {
			return
		}
		time.Sleep(10 * time.Millisecond) // between tries, bounded above
	}
	ts.Fatalf("the last answer was %s", last)
}

// serveimage ARCHIVE ARGS…: unpacks an OCI archive and runs its entry point with
// ARGS, as its user, with its root file system as the only one. It sets $HTTP and
// prints the size of the files to the log.
func serveImage(ts *testscript.TestScript, neg bool, args []string) {
	if os.Getuid() != 0 {
		ts.Fatalf("only root can change the root")
	}
	root := ts.MkAbs("root")
	size, config, err := unpack(ts.MkAbs(args[0]), root)
	ts.Check(err)
	ts.Logf("%s: %d MB of files", args[0], size>>20)
	const most = 120 << 20
	if size > most {
		ts.Fatalf("the image has %d MB, more than 120", size>>20)
	}
	c := config.Config
	cmd := exec.Command(c.Entrypoint[0], append(append(c.Entrypoint[1:], "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"), args[1:]...)...)
	cmd.Path, cmd.Dir, cmd.Env = c.Entrypoint[0], c.WorkingDir, c.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	start(ts, ts.Value(servedKey{}).(*served), cmd, func(line []byte) bool {
		var e struct{ Msg, HTTP string }
		if json.Unmarshal(line, &e) != nil || e.Msg != "ready" {
			return false
		}
		ts.Setenv("HTTP", e.HTTP)
		return true
	}, true)
}

// imageConfig is what a test reads of an image's configuration.
type imageConfig struct {
	Config struct {
		Entrypoint, Env  []string
		WorkingDir, User string
	} `json:"config"`
}

// unpack lays out the root file system of the image in an OCI archive, and returns
// the size of its files.
func unpack(archive, root string) (size int64, config imageConfig, err error) {
	f, err := os.Open(archive)
	if err != nil {
		return 0, config, err
	}
	defer f.Close()
	blobs := map[string][]byte{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, config, err
		}
		if blobs[strings.TrimPrefix(h.Name, "./")], err = io.ReadAll(r); err != nil {
			return 0, config, err
		}
	}
	type descriptor struct{ Digest string }
	blob := func(d descriptor) []byte { return blobs["blobs/"+strings.Replace(d.Digest, ":", "/", 1)] }
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(blobs["index.json"], &index); err != nil {
		return 0, config, err
	}
	if err := json.Unmarshal(blob(index.Manifests[0]), &manifest); err != nil {
		return 0, config, err
	}
	if err := json.Unmarshal(blob(manifest.Config), &config); err != nil {
		return 0, config, err
	}
	for _, l := range manifest.Layers {
		var in io.Reader = bytes.NewReader(blob(l))
		if z, err := gzip.NewReader(bytes.NewReader(blob(l))); err == nil {
			in = z
		}
		t := tar.NewReader(in)
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return 0, config, err
			}
			if !filepath.IsLocal(h.Name) {
				return 0, config, fmt.Errorf("%s leads out of the image", h.Name)
			}
			path := filepath.Join(root, h.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return 0, config, err
			}
			if h.Typeflag == tar.TypeDir {
				if err := os.MkdirAll(path, 0o755); err != nil {
					return 0, config, err
				}
				if err := os.Chmod(path, h.FileInfo().Mode().Perm()); err != nil {
					return 0, config, err
				}
				continue
			}
			w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode().Perm())
			if err != nil {
				return 0, config, err
			}
			n, err := io.Copy(w, t)
			if err := errors.Join(err, w.Close()); err != nil {
				return 0, config, err
			}
			size += n
		}
	}
	return size, config, nil
}

// buildServer builds the real mlc-serve, once for all scripts.
var buildServer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mlc-serve-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-ldflags=-s", "-o", dir+string(filepath.Separator), "mlc.dev/mlc/cmd/mlc-serve")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// mlcserve puts the real mlc-serve on the PATH.
func mlcServe(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := buildServer()
	ts.Check(err)
	ts.Setenv("PATH", ts.Getenv("PATH")+string(os.PathListSeparator)+dir)
}

// linkmodel makes model.onnx of the packaged model that the store holds.
func linkModel(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.ReadFile("path"))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("model.onnx"), b, 0o644))
}

// damagemodel FOLDER: changes a byte of every model.onnx below it.
func damageModel(ts *testscript.TestScript, neg bool, args []string) {
	n := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.Name() != "model.onnx" {
			return err
		}
		n++
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 0xff
		return os.WriteFile(p, b, 0o644)
	}))
	if n == 0 {
		ts.Fatalf("there is no model.onnx below %s", args[0])
	}
}
