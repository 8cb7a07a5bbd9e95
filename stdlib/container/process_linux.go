package container

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// attributes start a process in a group of its own, that ends when its parent does.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// resident is the memory in bytes that the processes of a group hold, or 0 where
// the system does not tell.
func resident(group int) int64 {
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var pages int64
	for _, e := range proc {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// proc(5): the fields after the name, which is in brackets and may hold
		// anything; the third of them is the group, the twenty-second the pages.
		i := bytes.LastIndexByte(b, ')')
		if i < 0 {
			continue
		}
		f := bytes.Fields(b[i+1:])
		if len(f) < 22 || string(f[2]) != strconv.Itoa(group) {
			continue
		}
		n, err := strconv.ParseInt(string(f[21]), 10, 64)
		if err == nil {
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}
