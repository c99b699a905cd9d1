//go:build unix

package broker

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// rawOf returns the socket of a plain connection. Wrapped connections are not
// looked into: their wrapper may hold bytes of its own.
func rawOf(conn net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	return raw
}

// waiter reads the first bytes of a burst, taking a buffer only when the
// socket is readable.
type waiter struct {
	raw  syscall.RawConn
	pool *sync.Pool
	try  func(fd uintptr) bool
	buf  *[]byte
	n    int
	err  error
}

// newWaiter returns a waiter for a plain socket, nil for other connections.
func newWaiter(conn net.Conn, pool *sync.Pool) *waiter {
	raw := rawOf(conn)
	if raw == nil {
		return nil
	}
	w := &waiter{raw: raw, pool: pool}
	w.try = w.attempt
	return w
}

// attempt reads without blocking; false asks to be called again when the
// socket is readable.
func (w *waiter) attempt(fd uintptr) bool {
	buf, _ := w.pool.Get().(*[]byte)
	for {
		w.n, w.err = readNow(fd, *buf)
		if !errors.Is(w.err, syscall.EINTR) {
			break
		}
	}
	if w.n > 0 {
		w.buf = buf
		return true
	}
	w.pool.Put(buf)
	return !errors.Is(w.err, syscall.EAGAIN)
}

// read waits for bytes. The buffer belongs to the caller when n is positive.
func (w *waiter) read() (buf *[]byte, n int, err error) {
	w.n, w.err = 0, nil
	if err := w.raw.Read(w.try); err != nil {
		return nil, 0, err
	}
	buf, w.buf = w.buf, nil
	return buf, w.n, w.err
}

// tryWriter writes to a socket as far as that goes without waiting.
type tryWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool
	b   []byte
	n   int
	err error
}

// newTryWriter returns a writer for a plain socket, nil for other connections.
func newTryWriter(conn net.Conn) *tryWriter {
	raw := rawOf(conn)
	if raw == nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	w.try = w.attempt
	return w
}

// attempt writes once; it never asks to wait.
func (w *tryWriter) attempt(fd uintptr) bool {
	for {
		w.n, w.err = writeNow(fd, w.b)
		if !errors.Is(w.err, syscall.EINTR) {
			return true
		}
	}
}

// write returns how many bytes the socket took, which may be none.
func (w *tryWriter) write(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.raw.Write(w.try)
	w.b = nil
	if err != nil {
		return 0, err
	}
	if errors.Is(w.err, syscall.EAGAIN) {
		return 0, nil
	}
	return max(0, w.n), w.err
}
