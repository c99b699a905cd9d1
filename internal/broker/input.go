package broker

import (
	"io"
	"net"
	"sync"
)

// readSize is the size of a pooled input buffer.
const readSize = 16 << 10

// newReadPool returns a pool of input buffers.
func newReadPool() sync.Pool {
	return sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}
}

// input reads a connection without holding a buffer while nothing arrives.
type input struct {
	conn net.Conn
	pool *sync.Pool
	// wait reads the first bytes of a burst where the connection can tell that
	// it is readable; nil elsewhere.
	wait   *waiter
	pooled *[]byte // the buffer in use when it came from the pool
	buf    []byte  // the buffer in use
	held   int     // bytes of an unfinished packet at its start
	first  [1]byte
}

// newInput returns an input over any connection.
func newInput(conn net.Conn, pool *sync.Pool) input {
	return input{conn: conn, pool: pool, wait: newWaiter(conn, pool)}
}

// next returns the bytes that were held and those that arrived behind them.
// They are valid until keep or release.
func (in *input) next() ([]byte, error) {
	if in.held > 0 {
		return in.fill(in.held)
	}
	if in.wait != nil {
		return in.nextReady()
	}
	// One byte wakes us; its packet has at least one more, so that the second
	// read does not hold the buffer for long.
	n, err := in.conn.Read(in.first[:])
	if n == 0 {
		return nil, noProgress(err)
	}
	in.borrow()
	in.buf[0] = in.first[0]
	return in.fill(1)
}

// nextReady waits until the connection is readable.
func (in *input) nextReady() ([]byte, error) {
	buf, n, err := in.wait.read()
	if n <= 0 {
		return nil, noProgress(err)
	}
	in.pooled, in.buf = buf, *buf
	return in.buf[:n], nil
}

// borrow takes a buffer from the pool.
func (in *input) borrow() {
	in.pooled, _ = in.pool.Get().(*[]byte)
	in.buf = *in.pooled
}

// fill reads once behind the first n bytes of the buffer.
func (in *input) fill(n int) ([]byte, error) {
	more, err := in.conn.Read(in.buf[n:])
	if more == 0 {
		return nil, noProgress(err)
	}
	in.held = 0
	return in.buf[:n+more], nil
}

// noProgress turns an empty read without error into one.
func noProgress(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// keep holds the unfinished packet rest, a part of what next returned, until
// more arrives. size is the packet's size, 0 when it is not known yet; the
// buffer grows towards it as bytes come, never far ahead of them.
func (in *input) keep(rest []byte, size int) {
	if len(rest) == 0 {
		in.release()
		return
	}
	switch {
	case len(rest) == len(in.buf): // full
		grown := make([]byte, max(len(rest)+1, min(size, 2*len(rest))))
		copy(grown, rest)
		in.release()
		in.buf = grown
	default:
		copy(in.buf, rest)
	}
	in.held = len(rest)
}

// release gives the buffer back.
func (in *input) release() {
	if in.pooled != nil {
		in.pool.Put(in.pooled)
	}
	in.pooled, in.buf, in.held = nil, nil, 0
}
