//go:build unix && !linux

package broker

import "syscall"

// readNow reads what is there.
func readNow(fd uintptr, b []byte) (int, error) { return syscall.Read(int(fd), b) }

// writeNow writes as far as the socket takes it.
func writeNow(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
