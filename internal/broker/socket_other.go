//go:build !unix

package broker

import (
	"net"
	"sync"
)

// waiter does not exist here: every connection is read one byte first.
type waiter struct{}

// newWaiter returns nil.
func newWaiter(net.Conn, *sync.Pool) *waiter { return nil }

// read is never called.
func (*waiter) read() (buf *[]byte, n int, err error) { return nil, 0, net.ErrClosed }

// tryWriter does not exist here: every connection is written by a goroutine.
type tryWriter struct{}

// newTryWriter returns nil.
func newTryWriter(net.Conn) *tryWriter { return nil }

// write is never called.
func (*tryWriter) write([]byte) (int, error) { return 0, net.ErrClosed }
