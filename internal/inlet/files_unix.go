//go:build unix

package inlet

import "syscall"

// fileLimit is how many files this process may have open, 0 if unknown.
func fileLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // the type differs between systems
}
