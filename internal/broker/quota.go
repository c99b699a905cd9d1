package broker

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// Quotas bound what clients may do per second, and what an account may hold.
// Each is off at 0. Rates allow the amount of one second at once.
type Quotas struct {
	// ConnectionPublishes counts the messages of one connection in both
	// directions. Beyond it a client's publish is refused, a delivery with quality
	// of service 0 is dropped, and one that has to be acknowledged waits in the
	// session's queue.
	ConnectionPublishes int
	// ConnectionBytes counts what one client sends; beyond it the client is read
	// more slowly.
	ConnectionBytes int
	// AccountPublishesIn and AccountPublishesOut count the messages of all clients
	// of an account, with the same consequences as ConnectionPublishes.
	AccountPublishesIn  int
	AccountPublishesOut int
	// AccountSubscribes counts new subscriptions, AccountSubscriptions those that
	// are held.
	AccountSubscribes    int
	AccountSubscriptions int
	// AccountConnects and ClientConnects count admitted CONNECTs of an account and
	// of one client id, AccountConnections those that are connected.
	AccountConnects    int
	ClientConnects     int
	AccountConnections int
	// AccountRetains counts messages that are to be retained. How many an account
	// retains is one of Limits.
	AccountRetains int
}

// Names of the quotas, for the metric of what they cost.
const (
	quotaPublishes     = "connection_publishes"
	quotaBytes         = "connection_bytes"
	quotaPublishesIn   = "account_publishes_in"
	quotaPublishesOut  = "account_publishes_out"
	quotaSubscribes    = "account_subscribes"
	quotaSubscriptions = "account_subscriptions"
	quotaConnects      = "account_connects"
	quotaClient        = "client_connects"
	quotaConnections   = "account_connections"
	quotaRetains       = "account_retains"
)

// patienceSeconds is how long a client may keep publishing twice what its
// quota leaves before it is disconnected.
const patienceSeconds = 10

// quotas are the settings, ready to be asked. A rate that is off is nil.
type quotas struct {
	publishes, refused, bytes                     *inlet.Rate
	publishesIn, publishesOut                     *inlet.Rate
	subscribes, connects, clientConnects, retains *inlet.Rate
	subscriptions, connections                    int64
	// clock is the time since the broker began.
	clock   func() time.Duration
	exceed  func(quota string)
	clients clientMeters
}

// newQuotas returns nil when every quota is off.
func newQuotas(q Quotas, clock func() time.Duration, exceed func(string)) *quotas {
	if q == (Quotas{}) {
		return nil
	}
	all := &quotas{
		publishes: perSecond(q.ConnectionPublishes), bytes: perSecond(q.ConnectionBytes),
		publishesIn: perSecond(q.AccountPublishesIn), publishesOut: perSecond(q.AccountPublishesOut),
		subscribes: perSecond(q.AccountSubscribes), connects: perSecond(q.AccountConnects),
		clientConnects: perSecond(q.ClientConnects), retains: perSecond(q.AccountRetains),
		subscriptions: int64(q.AccountSubscriptions), connections: int64(q.AccountConnections),
		clock: clock, exceed: exceed,
	}
	if n := q.ConnectionPublishes; n > 0 {
		rate := inlet.NewRate(float64(n), float64(patienceSeconds*n))
		all.refused = &rate
	}
	all.clients.meters, all.clients.seed = make(map[uint64]*inlet.Meter), maphash.MakeSeed()
	return all
}

// perSecond returns a rate with the amount of a second at once, nil for 0.
func perSecond(n int) *inlet.Rate {
	if n <= 0 {
		return nil
	}
	rate := inlet.NewRate(float64(n), float64(n))
	return &rate
}

// usage is what an account has taken of its quotas. The counts are kept whether
// there are quotas or not.
type usage struct {
	publishesIn, publishesOut, subscribes, connects, retains inlet.Meter
	subscriptions, connections                               atomic.Int64
}

// allowance is what one connection has taken of the quotas. A connection has
// none when none can concern it.
type allowance struct {
	*quotas
	account *usage

	publishes, refused, bytes inlet.Meter
	// waiting says that a timer will look at the queue again; guarded by the
	// session's mu.
	waiting bool
}

// allowance returns what a connection of an account begins with.
func (q *quotas) allowance(account *usage) *allowance {
	if q == nil {
		return nil
	}
	return &allowance{quotas: q, account: account}
}

// take takes one unit of a rate that may be off.
func (q *quotas) take(quota string, m *inlet.Meter, r *inlet.Rate) bool {
	if r == nil || m.Take(*r, 1, q.clock()) {
		return true
	}
	q.exceed(quota)
	return false
}

// takeIn counts a message that the client publishes and reports whether it may.
// abuse says that the client has been over its quota for too long.
func (a *allowance) takeIn(retain bool) (ok, abuse bool) {
	switch {
	case !a.take(quotaPublishes, &a.publishes, a.quotas.publishes):
		return false, !a.refused.Take(*a.quotas.refused, 1, a.clock())
	case !a.take(quotaPublishesIn, &a.account.publishesIn, a.publishesIn):
		return false, false
	default:
		return !retain || a.take(quotaRetains, &a.account.retains, a.retains), false
	}
}

// takeOut counts a delivery that nobody will acknowledge and reports whether it
// may be sent.
func (a *allowance) takeOut() bool {
	return a.take(quotaPublishes, &a.publishes, a.quotas.publishes) && a.take(quotaPublishesOut, &a.account.publishesOut, a.publishesOut)
}

// untilOut returns how long the next delivery that has to be acknowledged must
// wait.
func (a *allowance) untilOut() time.Duration {
	at, wait := a.clock(), time.Duration(0)
	if a.quotas.publishes != nil {
		wait = a.publishes.Until(*a.quotas.publishes, 1, at)
	}
	if a.publishesOut != nil {
		wait = max(wait, a.account.publishesOut.Until(*a.publishesOut, 1, at))
	}
	return wait
}

// sentOut counts a delivery that untilOut let pass.
func (a *allowance) sentOut() {
	at := a.clock()
	if a.quotas.publishes != nil {
		a.publishes.Delay(*a.quotas.publishes, 1, at)
	}
	if a.publishesOut != nil {
		a.account.publishesOut.Delay(*a.publishesOut, 1, at)
	}
}

// read counts bytes from the client and returns how long to read nothing.
func (a *allowance) read(n int) time.Duration {
	if a.quotas.bytes == nil {
		return 0
	}
	wait := a.bytes.Delay(*a.quotas.bytes, n, a.clock())
	if wait > 0 {
		a.exceed(quotaBytes)
	}
	return wait
}

// takeSubscription counts a new subscription and reports whether it may be
// held.
func (a *allowance) takeSubscription() bool {
	if a.subscriptions > 0 && a.account.subscriptions.Load() >= a.subscriptions {
		a.exceed(quotaSubscriptions)
		return false
	}
	return a.take(quotaSubscribes, &a.account.subscribes, a.subscribes)
}

// connect counts a CONNECT whose client has proven who it is. present says that
// the client id is connected already, so that it needs no more room. An error
// refuses.
func (q *quotas) connect(account *usage, of fleet.Account, clientID string, present bool) error {
	if q == nil {
		return nil
	}
	switch {
	case q.connections > 0 && !present && account.connections.Load() >= q.connections:
		q.exceed(quotaConnections)
		return fault.New(fault.Throttling, "The account has %d connections, which is the most", q.connections)
	case q.clientConnects != nil && !q.clients.take(string(of)+"/"+clientID, *q.clientConnects, q.clock()):
		q.exceed(quotaClient)
		return fault.New(fault.Throttling, "Client %s connects too often", clientID)
	case !q.take(quotaConnects, &account.connects, q.connects):
		return fault.New(fault.Throttling, "The clients of the account connect too often")
	default:
		return nil
	}
}

// clientMeters are the meters of client ids that connected lately.
type clientMeters struct {
	seed   maphash.Seed
	mu     sync.Mutex
	meters map[uint64]*inlet.Meter
	// sweepAt is the size at which idle ones are let go.
	sweepAt int
}

// leastMeters is a size that is not worth a sweep.
const leastMeters = 1024

// take takes one CONNECT of a client id.
func (c *clientMeters) take(clientID string, r inlet.Rate, at time.Duration) bool {
	key := maphash.String(c.seed, clientID)
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.meters[key]
	if m == nil {
		if len(c.meters) >= max(c.sweepAt, leastMeters) {
			for old, m := range c.meters {
				if m.Idle(at) {
					delete(c.meters, old)
				}
			}
			c.sweepAt = 2 * len(c.meters)
		}
		m = &inlet.Meter{}
		c.meters[key] = m
	}
	return m.Take(r, 1, at)
}

// overQuota answers a PUBLISH that a quota leaves no room for, and reports
// whether it did: MQTT 5 can be told where it is acknowledged, and everything
// else is dropped.
func (c *connection) overQuota(b *batch, p *mqtt.Publish) (over bool, why *cause) {
	ok, abuse := c.allowance.takeIn(p.Retain)
	switch {
	case ok:
		return false, nil
	case abuse:
		return true, because(ReasonThrottled)
	case p.QoS > 0 && c.version == mqtt.V5:
		c.refuse(b, p, mqtt.QuotaExceeded)
	}
	return true, nil
}

// pause waits as long as the bytes that were read are ahead of the quota. The
// client counts as seen: that it is not read is not its fault.
func (c *connection) pause(n int) {
	wait := c.allowance.read(n)
	if wait == 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		c.lastSeen.Store(c.broker.wheel.now.Load())
	case <-c.gone:
	}
}

// mayTakeLocked reports whether the quotas leave a connection one more delivery
// that has to be acknowledged. If they do not, what waits is looked at again
// when they will.
func (c *connection) mayTakeLocked() bool {
	wait := c.allowance.untilOut()
	if wait == 0 {
		return true
	}
	if !c.allowance.waiting {
		c.allowance.waiting = true
		time.AfterFunc(wait, c.goOn)
	}
	return false
}

// goOn sends what had to wait for a quota.
func (c *connection) goOn() {
	c.session.mu.Lock()
	c.allowance.waiting = false
	c.session.mu.Unlock()
	if c.session.link.Load() == c {
		c.session.refill(nil)
	}
}

// takeConnect counts the admitted CONNECT, or refuses it.
func (a *admission) takeConnect() error {
	b := a.broker
	if b.quotas == nil {
		return nil
	}
	r := b.realm(a.info.Account)
	s := r.find(a.info.ClientID)
	present := s != nil && s.link.Load() != nil
	if err := b.quotas.connect(&r.usage, a.info.Account, a.info.ClientID, present); err != nil {
		a.guard.Close()
		return a.denied(err)
	}
	return nil
}

// overQuota counts what a quota dropped, delayed or refused.
func (m *metrics) overQuota(quota string) { m.exceeded.WithLabelValues(quota).Inc() }

// sinceNow returns a clock of the time since this call.
func sinceNow(now func() time.Time) func() time.Duration {
	begun := now()
	return func() time.Duration { return now().Sub(begun) }
}
