package broker

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
)

// connection is one connection of a client. Fields of the first group never
// change once it runs; the second is the reader's or has its own rule; the
// third is guarded by the session's mu.
type connection struct {
	broker    *Broker
	session   *session
	conn      net.Conn
	try       *tryWriter // nil when conn cannot be written without blocking
	info      SessionInfo
	guard     Guard
	version   mqtt.Version
	will      *Message
	willDelay uint32 // seconds
	// willAsAdmitted is the will with what it gained at the CONNECT: what is left
	// of it when the process ends before the connection.
	willAsAdmitted *Message
	window         int    // unacknowledged messages that the client bears
	maxPacket      int    // bytes of a packet that the client accepts
	maxOutAlias    uint16 // topic aliases that the client takes
	idleTicks      int64
	key            uint64        // what the door remembers the client by
	allowance      *allowance    // nil when no quota can concern it
	gone           chan struct{} // closed when the connection begins to end

	in        input
	aliases   []string
	lastTopic string
	lastSeen  atomic.Int64
	// lastPublish is the tick after that of the newest PUBLISH, 0 for none.
	lastPublish atomic.Int64
	deniedAt    int64 // tick of the denials remembered in denied
	deniedLock  sync.Mutex
	denied      map[string]struct{}
	idle        alarm // keep-alive
	lifetime    *time.Timer

	acks       []*ackSlot    // acknowledgements that wait for their turn
	room       chan struct{} // tells a reader that waits for acks to shrink
	outAliases map[string]uint16
	retry      alarm
	retrying   bool
	pending    *buffer // encoded bytes that nobody is writing yet
	dirty      bool    // somebody has promised to flush
	writing    bool    // somebody owns the socket's write side
	closing    bool    // the socket is closed once pending is written
	closed     bool    // the socket is closed, or about to be by who set this
	dead       bool    // nothing is appended any more
	ended      *cause
	probe      *probe // measures round trips; nil before the first one
}

// run reads and handles packets until the connection ends. first holds bytes
// that arrived behind the CONNECT.
func (c *connection) run(first []byte) {
	data := first
	var err error
	if len(data) == 0 {
		c.in.release() // the CONNECT's buffer
	}
	for {
		if len(data) > 0 {
			if why := c.process(data); why != nil {
				c.end(why)
				break
			}
		}
		held := c.in.held
		if data, err = c.in.next(); err != nil {
			break
		}
		if c.allowance != nil {
			c.pause(len(data) - held)
		}
		c.lastSeen.Store(c.broker.wheel.now.Load())
	}
	c.finish(err)
}

// process handles all whole packets of data, then sends what they caused.
func (c *connection) process(data []byte) *cause {
	b := c.broker.batch()
	defer c.broker.release(b)
	rest := data
	for {
		packet, after, err := mqtt.Frame(rest, c.broker.limits.MaxPacket)
		if err != nil {
			return causeOf(err)
		}
		if packet == nil {
			break
		}
		rest = after
		b.receivedBytes += len(packet)
		if why := c.handle(b, packet); why != nil {
			return why
		}
	}
	size, err := mqtt.PacketSize(rest, c.broker.limits.MaxPacket)
	if err != nil {
		return causeOf(err)
	}
	c.in.keep(rest, size)
	return c.checkBacklog()
}

// checkBacklog gives up on a client that sends and takes no answers: those are
// never dropped, so that they need a bound of their own.
func (c *connection) checkBacklog() *cause {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	if c.pending != nil && len(c.pending.b) > 2*c.broker.limits.MaxPending {
		return because(ReasonThrottled)
	}
	return nil
}

// end makes the connection end for a cause; the first one counts. It does not
// wait, and may be called from any goroutine.
func (c *connection) end(why *cause) {
	s := c.session
	s.mu.Lock()
	if c.ended != nil {
		s.mu.Unlock()
		return
	}
	c.ended = why
	if c.version == mqtt.V5 && why.code != mqtt.Success && !c.dead {
		farewell := mqtt.Disconnect{Reason: why.code}
		out := c.pendingLocked()
		out.b, _ = farewell.Append(out.b, c.version) // a code alone always fits
	}
	c.dead, c.closing = true, true
	close(c.gone)
	if c.writing {
		// A peer that takes nothing gets a little time for the last bytes.
		_ = c.armWriteLocked()
	}
	s.mu.Unlock()
	c.flush()
}

// finish is the reader's last act: it takes the connection away from its
// session, publishes the will and tells why it ended.
func (c *connection) finish(readErr error) {
	s, b := c.session, c.broker
	will := enriched(c.will, c.guard)
	s.mu.Lock()
	c.will = will
	final := finalCause(c.ended, readErr)
	if c.ended == nil {
		c.ended = &final
		close(c.gone)
	}
	c.dead, c.closing = true, true
	c.acks = nil
	if round, ok := c.takeRoundTripsLocked(); ok {
		b.departed.add(round)
	}
	s.mu.Unlock()

	b.wheel.remove(&c.idle)
	b.wheel.remove(&c.retry)
	if c.lifetime != nil {
		c.lifetime.Stop()
	}
	at := b.now()
	current := s.detach(c, &final, at)
	if current && s.isOver() {
		s.realm.leave(s)
	}
	c.in.release()
	c.flush()
	if c.will != nil && !final.noWill && s.willIsDue(c, current) {
		b.publishWill(s.realm, c.will)
	}
	c.guard.Close()
	b.door.remember(c.key)
	s.realm.usage.connections.Add(-1)
	b.metrics.connections.Dec()
	b.metrics.disconnects.WithLabelValues(string(final.reason)).Inc()
	b.observer.Disconnected(&c.info, final.reason, final.reason == ReasonClientInitiated, at)
	b.logEnd(c, final)
}

// isOver reports whether the session has ended.
func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// willIsDue reports whether the will of a connection that has ended is
// published now. One with a delay waits with its session, and never comes when
// the client is back before.
func (s *session) willIsDue(c *connection, current bool) bool {
	if c.willDelay == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over || !current && s.link.Load() == c
}
