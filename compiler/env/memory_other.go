//go:build !linux

package env

// machineMemory is a modest guess where the system has no simple answer; a
// runner block says better.
func machineMemory() int64 { return 8 << 30 }
