package broker

import (
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// RoundTrips sums up how long a client took to acknowledge messages that were
// delivered with quality of service 1, from the encoding to the PUBACK. At most
// one message a second is measured for each connection.
type RoundTrips struct {
	Account  fleet.Account
	ClientID string
	// Indexed is as in SessionInfo.
	Indexed         bool
	Last, Mean, Max time.Duration
	Samples         int
}

// probe measures one message at a time. It is guarded by the session's mu; a nil
// probe measures nothing.
type probe struct {
	// order is that of the message on its way, 0 for none; sent and tick are when
	// it left.
	order uint64
	sent  time.Time
	tick  int64

	last, sum, most time.Duration
	samples         int
}

// probePatience is the number of ticks after which a message that is not
// acknowledged is measured no more.
const probePatience = 120

// probeLocked measures a message that goes out now, unless one is on its way or
// one left within this second. It costs two comparisons then.
func (c *connection) probeLocked(p *parcel) {
	if p.qos != 1 || p.repeat {
		return
	}
	tick := c.broker.wheel.now.Load()
	if c.probe == nil {
		c.probe = &probe{tick: -1}
	}
	b := c.probe
	if b.tick == tick || b.order != 0 && tick-b.tick < probePatience {
		return
	}
	b.order, b.sent, b.tick = p.order, c.broker.now(), tick
}

// acknowledged ends the measurement if it is about this message.
func (p *probe) acknowledged(order uint64, now func() time.Time) {
	if p == nil || p.order != order {
		return
	}
	took := max(0, now().Sub(p.sent))
	p.order, p.last = 0, took
	p.sum += took
	p.most = max(p.most, took)
	p.samples++
}

// forget gives a measurement up if it is about this message.
func (p *probe) forget(order uint64) {
	if p != nil && p.order == order {
		p.order = 0
	}
}

// takeRoundTripsLocked returns what was measured since it was last asked for.
func (c *connection) takeRoundTripsLocked() (RoundTrips, bool) {
	p := c.probe
	if p == nil || p.samples == 0 {
		return RoundTrips{}, false
	}
	taken := RoundTrips{
		Account: c.info.Account, ClientID: c.info.ClientID, Indexed: c.info.Indexed,
		Last: p.last, Mean: p.sum / time.Duration(p.samples), Max: p.most, Samples: p.samples,
	}
	p.sum, p.most, p.samples = 0, 0, 0
	return taken, true
}

// maxDeparted bounds the round trips that are kept of connections that ended.
const maxDeparted = 100_000

// departedTrips are round trips of connections that ended, until somebody asks.
type departedTrips struct {
	mu    sync.Mutex
	trips []RoundTrips
}

// add keeps one; beyond the bound it is lost.
func (d *departedTrips) add(r RoundTrips) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.trips) < maxDeparted {
		d.trips = append(d.trips, r)
	}
}

// take returns all and keeps none.
func (d *departedTrips) take() []RoundTrips {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.trips
	d.trips = nil
	return all
}

// TakeRoundTrips returns what was measured since the call before: first of
// connections that have ended since, then of those that there are. It looks at
// every connection; once a minute is often enough.
func (b *Broker) TakeRoundTrips() []RoundTrips {
	all := b.departed.take()
	b.mu.Lock()
	realms := make([]*realm, 0, len(b.realms))
	for _, r := range b.realms {
		realms = append(realms, r)
	}
	b.mu.Unlock()
	for _, r := range realms {
		for _, c := range r.connections() {
			c.session.mu.Lock()
			if trips, ok := c.takeRoundTripsLocked(); ok {
				all = append(all, trips)
			}
			c.session.mu.Unlock()
		}
	}
	return all
}
