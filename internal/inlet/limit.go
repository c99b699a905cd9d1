package inlet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
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
	// early is the first byte when await has read it and Read has not given it
	// out yet.
	early    [1]byte
	hasEarly bool
}

// Read returns what await has read first.
func (c *conn) Read(p []byte) (int, error) {
	if c.hasEarly && len(p) > 0 {
		c.hasEarly = false
		p[0] = c.early[0]
		return 1, nil
	}
	return c.Conn.Read(p) //nolint:wrapcheck // as if it were the connection itself
}

// await waits for the first byte. The connection is of no use after an error.
func (c *conn) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	n, err := c.Conn.Read(c.early[:])
	if !stop() {
		return fmt.Errorf("wait for the first byte: %w", ctx.Err())
	}
	c.hasEarly = n > 0
	if err != nil {
		return fmt.Errorf("wait for the first byte: %w", err)
	}
	return nil
}

// Await waits until the peer of a connection that a Limit let in, or of TLS over
// one, has said something, which is still there to be read. Who says nothing
// should not be given a place of a Gate. For other connections it returns at
// once.
func Await(ctx context.Context, c net.Conn) error {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	if counted, ok := c.(*conn); ok {
		return counted.await(ctx)
	}
	return nil
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
