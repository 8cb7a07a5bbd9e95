//go:build unix

package state

import (
	"os"
	"syscall"
)

func inodeOf(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Ino)
	}
	return 0
}
