package run

import (
	"os"
	"syscall"
)

// Peak is the most resident memory that an ended process had, in bytes. Linux never
// tells less than its parent had when it started.
func Peak(s *os.ProcessState) int64 { return s.SysUsage().(*syscall.Rusage).Maxrss << 10 }
