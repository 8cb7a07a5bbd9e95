//go:build !linux

package container

import "syscall"

// attributes start a process in a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func resident(int) int64 { return 0 }
