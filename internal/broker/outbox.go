package broker

import (
	"log/slog"
	"sync"

	"github.com/muster-iot/muster/internal/mqtt"
)

// buffer is a pooled piece of output.
type buffer struct{ b []byte }

// Sizes of pooled output: what a fresh buffer holds, and the most that is kept
// for reuse.
const (
	freshBuffer  = 1 << 10
	pooledBuffer = 64 << 10
)

// newBufferPool returns a pool of output buffers.
func newBufferPool() sync.Pool {
	return sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, freshBuffer)} }}
}

// recycle gives a written buffer back.
func (b *Broker) recycle(out *buffer) {
	if cap(out.b) <= pooledBuffer {
		out.b = out.b[:0]
		b.buffers.Put(out)
	}
}

// pendingLocked returns the buffer that output is appended to.
func (c *connection) pendingLocked() *buffer {
	if c.pending == nil {
		c.pending, _ = c.broker.buffers.Get().(*buffer)
	}
	return c.pending
}

// takeLocked hands the pending output to the writer. It returns nil when there
// is none; the write side is then free again, or the caller has to close it.
func (c *connection) takeLocked() *buffer {
	out := c.detachLocked()
	if out == nil {
		c.writing = false
		c.closed = c.closing
	}
	return out
}

// maxRounds bounds how long a goroutine that delivers keeps writing for a
// session that others deliver to as well.
const maxRounds = 8

// flush sends the pending output. It never blocks: what the socket does not
// take at once is left to a writer goroutine. When another goroutine is
// writing already, that one takes over what is pending.
func (c *connection) flush() {
	c.session.mu.Lock()
	c.dirty = false
	if c.writing || c.closed || c.pending == nil && !c.closing {
		c.session.mu.Unlock()
		return
	}
	c.writing = true
	if c.try == nil {
		out := c.detachLocked()
		c.session.mu.Unlock()
		c.startWriter(out)
		return
	}
	for range maxRounds {
		out := c.takeLocked()
		closing := c.closing
		c.session.mu.Unlock()
		if out == nil {
			if closing {
				_ = c.conn.Close()
			}
			return
		}
		n, err := c.try.write(out.b)
		switch {
		case err != nil:
			c.broken(err)
			return
		case n < len(out.b):
			out.b = out.b[:copy(out.b, out.b[n:])]
			c.startWriter(out)
			return
		}
		full := len(out.b) >= c.broker.limits.MaxPending
		c.broker.recycle(out)
		if full {
			c.session.refill(nil) // others had to wait behind it
		}
		c.session.mu.Lock()
	}
	out := c.detachLocked()
	c.session.mu.Unlock()
	c.startWriter(out)
}

// detachLocked takes the pending output, if any, and keeps the write side.
func (c *connection) detachLocked() *buffer {
	out := c.pending
	c.pending = nil
	if out != nil {
		c.broker.metrics.sentBytes.Add(float64(len(out.b)))
	}
	return out
}

// startWriter leaves the write side to a goroutine. out may be nil.
func (c *connection) startWriter(out *buffer) {
	c.broker.running.Go(func() { c.drain(out) })
}

// drain writes, blocking, until nothing is pending.
func (c *connection) drain(out *buffer) {
	for {
		if out != nil {
			if err := c.writeAll(out.b); err != nil {
				c.broken(err)
				return
			}
			c.broker.recycle(out)
		}
		c.session.refill(nil)
		c.session.mu.Lock()
		out = c.takeLocked()
		closing := c.closing
		c.session.mu.Unlock()
		if out == nil {
			if closing {
				_ = c.conn.Close()
			}
			return
		}
	}
}

// writeAll writes with a deadline that moves on only when the peer takes
// bytes.
func (c *connection) writeAll(b []byte) error {
	const piece = 64 << 10
	for len(b) > 0 {
		if err := c.armWrite(); err != nil {
			return err
		}
		n, err := c.conn.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if c.try != nil {
		// An old deadline would fail the writes that do not wait.
		return c.conn.SetWriteDeadline(noDeadline())
	}
	return nil
}

// armWrite sets the deadline of the next write.
func (c *connection) armWrite() error {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.armWriteLocked()
}

// armWriteLocked sets the deadline of a write, a short one for a peer that is
// dismissed.
func (c *connection) armWriteLocked() error {
	timeout := c.broker.limits.WriteTimeout
	if c.closing {
		timeout = c.broker.limits.CloseTimeout
	}
	return c.conn.SetWriteDeadline(c.broker.now().Add(timeout))
}

// broken gives up on a connection that cannot be written to.
func (c *connection) broken(err error) {
	c.session.mu.Lock()
	c.dead = true
	if c.ended == nil {
		c.ended = &cause{reason: ReasonConnectionLost, err: err}
		close(c.gone)
	}
	c.pending, c.closed = nil, true
	// The write side stays taken: nothing may be written behind a gap.
	c.session.mu.Unlock()
	_ = c.conn.Close()
}

// ackLocked appends an acknowledgement.
func (c *connection) ackLocked(kind mqtt.Type, id uint16, code mqtt.ReasonCode) {
	if c.dead {
		return
	}
	out := c.pendingLocked()
	out.b = mqtt.AppendAck(out.b, kind, id, code, c.version)
}

// sendLocked appends a packet that always has room.
func (c *connection) sendLocked(p mqtt.Packet) {
	if c.dead {
		return
	}
	out := c.pendingLocked()
	var err error
	if out.b, err = p.Append(out.b, c.version); err != nil {
		c.broker.logger.Error("packet of our own cannot be encoded", slog.String("packet", p.Type().String()), slog.Any("err", err))
	}
}
