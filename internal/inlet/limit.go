package inlet

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// Limit bounds the open connections of all listeners that share it. Beyond it
// a connection is accepted and closed at once: left in the backlog, it would
// keep those waiting that come after it.
type Limit struct {
	most    int64
	open    atomic.Int64
	refused func()
}

// NewLimit returns a bound. refused is called for each connection that had no
// room; it must not block.
func NewLimit(most int, refused func()) *Limit { return &Limit{most: int64(most), refused: refused} }

// Open is the number of connections that count now.
func (l *Limit) Open() int { return int(l.open.Load()) }

// Listener returns inner behind the bound.
func (l *Limit) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, limit: l}
}

// listener counts what it accepts.
type listener struct {
	net.Listener
	limit *Limit
}

// Accept returns the next connection that has room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // callers look for net.ErrClosed and kinds of errors
		}
		if l.limit.open.Add(1) <= l.limit.most {
			return &conn{Conn: inner, limit: l.limit}, nil
		}
		l.limit.open.Add(-1)
		_ = inner.Close() // there is nobody to tell
		l.limit.refused()
	}
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	limit *Limit
	once  sync.Once
}

// Close closes the connection.
func (c *conn) Close() error {
	c.once.Do(func() { c.limit.open.Add(-1) })
	return c.Conn.Close() //nolint:wrapcheck // as if it were the connection itself
}

// CloseWrite closes one half, which servers do before they close all.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite() //nolint:wrapcheck // as above
}
