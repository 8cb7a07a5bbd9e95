// Package servertest starts the real servers that tests talk to, on loopback:
// PostgreSQL and docker-registry from Debian's packages, and the S3 server
// versitygw, a Go program (github.com/versity/versitygw). None of them is part of
// mlc.
package servertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// ErrMissing says that a server's program is not on this machine.
var ErrMissing = errors.New("not on this machine")

// Server is a running server. Its data outlives Stop, until Close.
type Server struct {
	// URL is what an environment file says: postgres://…, s3://…; or a registry's
	// host and port.
	URL string
	// Env are the variables that clients need.
	Env map[string]string

	// Addr is its host and port.
	Addr string

	dir  string
	args []string
	user *syscall.Credential
	cmd  *exec.Cmd
	// crash is the signal that ends it at once, its children too; ended is closed
	// when it is gone.
	crash syscall.Signal
	ended chan struct{}
}

// program finds a program on the path or in other places.
func program(name string, others ...string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, pattern := range others {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			sort.Strings(found)
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrMissing)
}

// Kinds are the servers by name.
var Kinds = map[string]func() (*Server, error){"postgres": Postgres, "s3": S3, "registry": Registry}

// Have reports whether a server's program is on this machine.
func Have(kind string) bool {
	var err error
	switch kind {
	case "postgres":
		_, err = program("initdb", "/usr/lib/postgresql/*/bin/initdb")
	case "s3":
		_, err = program("versitygw", goBin("versitygw"))
	case "registry":
		_, err = program("docker-registry")
	}
	return err == nil
}

// goBin is where go install puts a program.
func goBin(name string) string {
	home, _ := os.UserHomeDir()
	return filepath.Join(home, "go", "bin", name)
}

// folder is one that a server's own user can reach.
func folder() (string, error) {
	dir, err := os.MkdirTemp("", "mlc-server-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Postgres starts a PostgreSQL with an empty database.
func Postgres() (*Server, error) {
	initdb, err := program("initdb", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	if initdb, err = filepath.EvalSymlinks(initdb); err != nil {
		return nil, err
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	// An immediate shutdown: killed, the server would leave its sessions to answer on.
	s := &Server{dir: dir, crash: syscall.SIGQUIT, Addr: fmt.Sprintf("127.0.0.1:%d", port), URL: fmt.Sprintf("postgres://mlc@127.0.0.1:%d/postgres?sslmode=disable", port)}
	if os.Getuid() == 0 { // which PostgreSQL refuses to be
		s.user = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.Command(initdb, "-D", data, "-U", "mlc", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	s.args = []string{filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-F", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-k", dir}
	return s, s.Start()
}

// S3 starts an S3 server with the empty bucket "mlc".
func S3() (*Server, error) {
	gw, err := program("versitygw", goBin("versitygw"))
	if err != nil {
		return nil, err
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"data/mlc", "meta"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	s := &Server{dir: dir, Addr: addr, URL: "s3://mlc?region=us-east-1&use_path_style=true&endpoint=http://" + addr,
		Env:  map[string]string{"AWS_ACCESS_KEY_ID": "mlc", "AWS_SECRET_ACCESS_KEY": "mlc-secret", "AWS_EC2_METADATA_DISABLED": "true"},
		args: []string{gw, "--port", addr, "--access", "mlc", "--secret", "mlc-secret", "--quiet", "posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data")}}
	return s, s.Start()
}

// Registry starts an empty image registry.
func Registry() (*Server, error) {
	reg, err := program("docker-registry")
	if err != nil {
		return nil, err
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %s}\n", dir, addr)), 0o644); err != nil {
		return nil, err
	}
	s := &Server{dir: dir, Addr: addr, URL: addr, args: []string{reg, "serve", conf}}
	return s, s.Start()
}

// Start starts a stopped server and returns when it answers.
func (s *Server) Start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(s.cmd)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		select {
		case <-ended:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("%s ended: %s: %s", s.args[0], s.cmd.ProcessState, strings.TrimSpace(string(text)))
		case <-limit.C:
			return fmt.Errorf("%s does not answer at %s", s.args[0], s.Addr)
		case <-tick.C:
			c, err := net.DialTimeout("tcp", s.Addr, time.Second)
			if err != nil {
				continue
			}
			return c.Close()
		}
	}
}

// Stop ends the server at once, as a crash would.
func (s *Server) Stop() {
	if s.crash != 0 {
		_ = s.cmd.Process.Signal(s.crash)
	} else {
		_ = s.cmd.Process.Kill()
	}
	<-s.ended
}

// Close ends the server and removes its data.
func (s *Server) Close() error {
	s.Stop()
	return os.RemoveAll(s.dir)
}
