package broker

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/muster-iot/muster/internal/mqtt"
)

// subscription is one filter that a session holds.
type subscription struct {
	filter string
	bucket *bucket
	qos    byte
}

// session is one connected client. Fields of the first group never change; the
// second is the reader's or has its own rule; the third is guarded by mu, under
// which no other lock than the router's is taken.
type session struct {
	broker      *Broker
	realm       *realm
	conn        net.Conn
	try         *tryWriter // nil when conn cannot be written without blocking
	info        SessionInfo
	guard       Guard
	version     mqtt.Version
	will        *Message
	window      int    // unacknowledged QoS 1 messages that the client bears
	maxPacket   int    // bytes of a packet that the client accepts
	askedExpiry uint32 // session expiry of the CONNECT
	idleTicks   int64
	gone        chan struct{} // closed when the session begins to end

	in         input
	aliases    []string
	lastTopic  string
	lastSeen   atomic.Int64
	deniedAt   int64 // tick of the denials remembered in denied
	deniedLock sync.Mutex
	denied     map[string]struct{}
	seat       seat // the wheel's

	mu       sync.Mutex
	subs     []subscription
	acks     []*ackSlot    // acknowledgements that wait for their turn
	room     chan struct{} // tells a reader that waits for acks to shrink
	inflight []uint16      // packet ids that the client has not acknowledged
	nextID   uint16
	queue    queue   // QoS 1 messages behind the window
	pending  *buffer // encoded bytes that nobody is writing yet
	dirty    bool    // somebody has promised to flush
	writing  bool    // somebody owns the socket's write side
	closing  bool    // the socket is closed once pending is written
	closed   bool    // the socket is closed, or about to be by who set this
	dead     bool    // nothing is appended any more
	ended    *cause
}

// run reads and handles packets until the connection ends. first holds bytes
// that arrived behind the CONNECT.
func (s *session) run(first []byte) {
	data := first
	var err error
	if len(data) == 0 {
		s.in.release() // the CONNECT's buffer
	}
	for {
		if len(data) > 0 {
			if c := s.process(data); c != nil {
				s.end(c)
				break
			}
		}
		if data, err = s.in.next(); err != nil {
			break
		}
		s.lastSeen.Store(s.broker.wheel.now.Load())
	}
	s.finish(err)
}

// process handles all whole packets of data, then sends what they caused.
func (s *session) process(data []byte) *cause {
	b := s.broker.batch()
	defer s.broker.release(b)
	rest := data
	for {
		packet, after, err := mqtt.Frame(rest, s.broker.limits.MaxPacket)
		if err != nil {
			return causeOf(err)
		}
		if packet == nil {
			break
		}
		rest = after
		b.receivedBytes += len(packet)
		if c := s.handle(b, packet); c != nil {
			return c
		}
	}
	size, err := mqtt.PacketSize(rest, s.broker.limits.MaxPacket)
	if err != nil {
		return causeOf(err)
	}
	s.in.keep(rest, size)
	return s.checkBacklog()
}

// checkBacklog gives up on a client that sends and takes no answers: those are
// never dropped, so that they need a bound of their own.
func (s *session) checkBacklog() *cause {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil && len(s.pending.b) > 2*s.broker.limits.MaxPending {
		return because(ReasonThrottled)
	}
	return nil
}

// end makes the session end for a cause; the first one counts. It does not
// wait, and may be called from any goroutine.
func (s *session) end(c *cause) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended = c
	if s.version == mqtt.V5 && c.code != mqtt.Success && !s.dead {
		farewell := mqtt.Disconnect{Reason: c.code}
		out := s.pendingLocked()
		out.b, _ = farewell.Append(out.b, s.version) // a code alone always fits
	}
	s.dead, s.closing = true, true
	s.queue = queue{}
	close(s.gone)
	if s.writing {
		// A peer that takes nothing gets a little time for the last bytes.
		_ = s.armWriteLocked()
	}
	s.mu.Unlock()
	s.flush()
}

// finish is the reader's last act: it takes the session out of everything,
// publishes the will and tells why it ended.
func (s *session) finish(readErr error) {
	s.mu.Lock()
	final := finalCause(s.ended, readErr)
	if s.ended == nil {
		s.ended = &final
		close(s.gone)
	}
	s.dead, s.closing = true, true
	subs := s.subs
	s.subs, s.acks, s.inflight, s.queue = nil, nil, nil, queue{}
	s.mu.Unlock()

	b := s.broker
	b.wheel.remove(s)
	s.realm.leave(s)
	for i := range subs {
		s.realm.router.unsubscribe(subs[i].bucket, s)
	}
	b.metrics.subscriptions.Sub(float64(len(subs)))
	s.in.release()
	s.flush()
	if s.will != nil && !final.noWill {
		b.publishWill(s)
	}
	s.guard.Close()
	b.metrics.connections.Dec()
	b.metrics.disconnects.WithLabelValues(string(final.reason)).Inc()
	b.observer.Disconnected(&s.info, final.reason, final.reason == ReasonClientInitiated, b.now())
	b.logEnd(s, final)
}
