package broker

import (
	"syscall"
	"unsafe"
)

// readNow and writeNow read and write a socket that does not block. The runtime
// is not told, as it is of calls that may take long: that costs more than these
// calls do, and makes its monitor take the processor away and hand it back.

// readNow reads what is there; b must not be empty.
func readNow(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))) //nolint:gosec // the buffer outlives the call
	return result(n, errno)
}

// writeNow writes as far as the socket takes it.
func writeNow(fd uintptr, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))) //nolint:gosec // the buffer outlives the call
	return result(n, errno)
}

// result is what the calls of package syscall would return.
func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
