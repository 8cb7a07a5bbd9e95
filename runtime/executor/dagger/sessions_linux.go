package dagger

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// sessions are this process's children that are session commands. The SDK starts
// one for each session and does not tell which.
func sessions() map[int]bool {
	out := map[int]bool{}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return out
	}
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			pid, err := strconv.Atoi(string(f))
			if err != nil {
				continue
			}
			args, err := os.ReadFile("/proc/" + string(f) + "/cmdline")
			if words := bytes.Split(args, []byte{0}); err == nil && len(words) > 1 && string(words[1]) == "session" {
				out[pid] = true
			}
		}
	}
	return out
}

// newSessions are those that were not there before.
func newSessions(before map[int]bool) map[int]bool {
	out := sessions()
	for pid := range before {
		delete(out, pid)
	}
	return out
}

// endSessions ends those that were not there before.
func endSessions(before map[int]bool) {
	for pid := range newSessions(before) {
		kill(pid)
	}
}

func kill(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }
