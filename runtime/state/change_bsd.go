//go:build darwin || freebsd || netbsd

package state

import (
	"os"
	"syscall"
	"time"
)

// changeOf is when a file's content or properties changed last, and its inode.
func changeOf(info os.FileInfo) (ctime time.Time, inode int64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctimespec.Unix()), int64(st.Ino)
	}
	return info.ModTime(), 0
}
