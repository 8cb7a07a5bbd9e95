package run

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Child is a server that a benchmark started. It ends with the benchmark.
type Child struct {
	Addr string // host:port of its HTTP
	cmd  *exec.Cmd
	done chan struct{}
}

// FreeAddr is an address on loopback where nobody listens now.
func FreeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(err)
	defer l.Close()
	return l.Addr().String()
}

// Start runs a command that serves HTTP at addr and returns when it answers 200 to
// req. What it writes to standard error is told where it does not come up within a
// minute.
func Start(cmd *exec.Cmd, addr string, req func() (*http.Request, error)) (*Child, error) {
	log, err := os.CreateTemp("", "mlc-bench-child-")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer os.Remove(log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	// Peers have workers, which are in its group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &Child{Addr: addr, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is told by what it wrote
		close(c.done)
	}()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		r, err := req()
		if err != nil {
			c.Kill()
			return nil, err
		}
		if res, err := client.Do(r); err == nil {
			_ = res.Body.Close() // only its status counts
			if res.StatusCode == http.StatusOK {
				return c, nil
			}
		}
		select {
		case <-c.done:
			limit = time.Time{}
		case <-time.After(time.Millisecond):
		}
	}
	c.Kill()
	told, err := os.ReadFile(log.Name())
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s does not serve\n%s", cmd.Path, told[max(0, len(told)-2000):])
}

// Get asks for a page of a server.
func Get(addr, path string) func() (*http.Request, error) {
	return func() (*http.Request, error) { return http.NewRequest("GET", "http://"+addr+path, nil) }
}

// Post sends JSON to a server.
func Post(addr, path, body string) func() (*http.Request, error) {
	return func() (*http.Request, error) {
		r, err := http.NewRequest("POST", "http://"+addr+path, strings.NewReader(body))
		if err == nil {
			r.Header.Set("Content-Type", "application/json")
		}
		return r, err
	}
}

// Stop ends the server and its workers, kindly at first.
func (c *Child) Stop() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM) // it may be gone
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
	}
	c.Kill()
}

// Kill ends the server and its workers at once.
func (c *Child) Kill() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // it may be gone
	<-c.done
}

// Resident is the resident memory of the server and its workers, in bytes.
func (c *Child) Resident() int64 { return Resident(c.cmd.Process.Pid) }
