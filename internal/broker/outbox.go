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
func (s *session) pendingLocked() *buffer {
	if s.pending == nil {
		s.pending, _ = s.broker.buffers.Get().(*buffer)
	}
	return s.pending
}

// takeLocked hands the pending output to the writer. It returns nil when there
// is none; the write side is then free again, or the caller has to close it.
func (s *session) takeLocked() *buffer {
	out := s.detachLocked()
	if out == nil {
		s.writing = false
		s.closed = s.closing
	}
	return out
}

// maxRounds bounds how long a goroutine that delivers keeps writing for a
// session that others deliver to as well.
const maxRounds = 8

// flush sends the pending output. It never blocks: what the socket does not
// take at once is left to a writer goroutine. When another goroutine is
// writing already, that one takes over what is pending.
func (s *session) flush() {
	s.mu.Lock()
	s.dirty = false
	if s.writing || s.closed || s.pending == nil && !s.closing {
		s.mu.Unlock()
		return
	}
	s.writing = true
	if s.try == nil {
		out := s.detachLocked()
		s.mu.Unlock()
		s.startWriter(out)
		return
	}
	for range maxRounds {
		out := s.takeLocked()
		closing := s.closing
		s.mu.Unlock()
		if out == nil {
			if closing {
				_ = s.conn.Close()
			}
			return
		}
		n, err := s.try.write(out.b)
		switch {
		case err != nil:
			s.broken(err)
			return
		case n < len(out.b):
			out.b = out.b[:copy(out.b, out.b[n:])]
			s.startWriter(out)
			return
		}
		s.broker.recycle(out)
		s.mu.Lock()
	}
	out := s.detachLocked()
	s.mu.Unlock()
	s.startWriter(out)
}

// detachLocked takes the pending output, if any, and keeps the write side.
func (s *session) detachLocked() *buffer {
	out := s.pending
	s.pending = nil
	if out != nil {
		s.broker.metrics.sentBytes.Add(float64(len(out.b)))
	}
	return out
}

// startWriter leaves the write side to a goroutine. out may be nil.
func (s *session) startWriter(out *buffer) {
	s.broker.running.Go(func() { s.drain(out) })
}

// drain writes, blocking, until nothing is pending.
func (s *session) drain(out *buffer) {
	for {
		if out != nil {
			if err := s.writeAll(out.b); err != nil {
				s.broken(err)
				return
			}
			s.broker.recycle(out)
		}
		s.mu.Lock()
		s.refillLocked()
		out = s.takeLocked()
		closing := s.closing
		s.mu.Unlock()
		if out == nil {
			if closing {
				_ = s.conn.Close()
			}
			return
		}
	}
}

// writeAll writes with a deadline that moves on only when the peer takes
// bytes.
func (s *session) writeAll(b []byte) error {
	const piece = 64 << 10
	for len(b) > 0 {
		if err := s.armWrite(); err != nil {
			return err
		}
		n, err := s.conn.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if s.try != nil {
		// An old deadline would fail the writes that do not wait.
		return s.conn.SetWriteDeadline(noDeadline())
	}
	return nil
}

// armWrite sets the deadline of the next write.
func (s *session) armWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.armWriteLocked()
}

// armWriteLocked sets the deadline of a write, a short one for a peer that is
// dismissed.
func (s *session) armWriteLocked() error {
	timeout := s.broker.limits.WriteTimeout
	if s.closing {
		timeout = s.broker.limits.CloseTimeout
	}
	return s.conn.SetWriteDeadline(s.broker.now().Add(timeout))
}

// broken gives up on a connection that cannot be written to.
func (s *session) broken(err error) {
	s.mu.Lock()
	s.dead = true
	if s.ended == nil {
		s.ended = &cause{reason: ReasonConnectionLost, err: err}
		close(s.gone)
	}
	s.pending, s.queue, s.closed = nil, queue{}, true
	// The write side stays taken: nothing may be written behind a gap.
	s.mu.Unlock()
	_ = s.conn.Close()
}

// ackLocked appends an acknowledgement.
func (s *session) ackLocked(kind mqtt.Type, id uint16, code mqtt.ReasonCode) {
	if s.dead {
		return
	}
	out := s.pendingLocked()
	out.b = mqtt.AppendAck(out.b, kind, id, code, s.version)
}

// sendLocked appends a packet that always has room.
func (s *session) sendLocked(p mqtt.Packet) {
	if s.dead {
		return
	}
	out := s.pendingLocked()
	var err error
	if out.b, err = p.Append(out.b, s.version); err != nil {
		s.broker.logger.Error("packet of our own cannot be encoded", slog.String("packet", p.Type().String()), slog.Any("err", err))
	}
}
