package executor

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
)

// Line is a stage's connection to its executor: events go out, and when the
// executor is gone the stage has to end.
type Line struct {
	// Gone is closed when the executor is gone.
	Gone <-chan struct{}

	mu  sync.Mutex
	w   *bufio.Writer
	enc *json.Encoder
}

// OpenLine opens the line: to the unix socket at path or, where path is empty,
// standard output, with standard input for the executor's life.
func OpenLine(path string) (*Line, error) {
	var r io.Reader = os.Stdin
	var w io.Writer = os.Stdout
	if path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			return nil, err
		}
		r, w = c, c
	}
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, r)
		close(gone)
	}()
	l := &Line{Gone: gone, w: bufio.NewWriter(w)}
	l.enc = json.NewEncoder(l.w)
	return l, nil
}

// Send tells an event. A reader that is gone shows in Gone.
func (l *Line) Send(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.enc.Encode(e)
	_ = l.w.Flush()
}

// Receive calls on for each event that comes in r, until it ends. What is no
// event is passed over.
func Receive(r io.Reader, on func(Event)) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		var e Event
		if json.Unmarshal(sc.Bytes(), &e) == nil && on != nil {
			on(e)
		}
	}
	_, _ = io.Copy(io.Discard, r) // an overlong line must not block the stage
}

// Tail keeps the last Limit bytes written to it.
type Tail struct {
	Limit int

	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - t.Limit; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// String is what is kept.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
