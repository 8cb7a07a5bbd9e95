//go:build !linux

package lull

import "runtime"

// Yield lets other goroutines have the core: of threads it knows nothing.
func Yield() { runtime.Gosched() }
