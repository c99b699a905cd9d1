package broker

import (
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Activity is when a connected client was heard of, to the second.
type Activity struct {
	ConnectionID string
	// Indexed says that the connection counts as that of the thing named like
	// the client id.
	Indexed bool
	// Transient is as in Admission.
	Transient   bool
	ConnectedAt time.Time
	// LastPacket counts packets of any kind.
	LastPacket time.Time
	// LastPublish is zero for a connection that has published nothing.
	LastPublish time.Time
}

// Activity tells when a client was heard of. It reports false for one that is
// not connected.
func (b *Broker) Activity(account fleet.Account, clientID string) (Activity, bool) {
	s := b.sessionOf(account, clientID)
	if s == nil {
		return Activity{}, false
	}
	s.mu.Lock()
	c := s.link.Load()
	alive := c != nil && !c.dead
	s.mu.Unlock()
	if !alive {
		return Activity{}, false
	}
	a := Activity{
		ConnectionID: c.info.ConnectionID, Indexed: c.info.Indexed, Transient: c.info.Transient, ConnectedAt: c.info.ConnectedAt,
		LastPacket: b.timeOfTick(c.lastSeen.Load()),
	}
	if tick := c.lastPublish.Load(); tick > 0 {
		a.LastPublish = b.timeOfTick(tick - 1)
	}
	return a, true
}

// timeOfTick turns a tick of the coarse clock into a time.
func (b *Broker) timeOfTick(tick int64) time.Time {
	return b.now().Add(-time.Duration(b.wheel.now.Load()-tick) * tickLength)
}
