package lull

import "golang.org/x/sys/unix"

// Yield lets other threads have the core, those of other programs too. Meanwhile the
// runtime may take what else the thread had to run.
func Yield() { _, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
