package broker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
)

// subscription is one filter that a session holds. Either bucket or group is
// set: group for a shared one.
type subscription struct {
	filter            string
	bucket            *bucket
	group             *group
	id                uint32
	qos               byte
	noLocal           bool
	retainAsPublished bool
}

// session is what the broker keeps for one client id: subscriptions and the
// messages on their way. A persistent one outlives its connections; each
// connection of it is a connection attached to it. Fields of the first group
// never change; the others are guarded by mu, under which only locks of the
// router, a group, the wheel and the keeper are taken.
type session struct {
	broker   *Broker
	realm    *realm
	clientID string
	id       string // the session identifier
	version  mqtt.Version
	// after is the number before its first message: what the keeper holds up to it
	// was for a session before.
	after uint64

	// link is the current connection, nil while the client is away. It changes
	// under mu and may be looked at without.
	link atomic.Pointer[connection]

	mu sync.Mutex
	// expiry is how many seconds the session outlives its connection.
	expiry   uint32
	subs     []subscription
	inflight []parcel // sent or about to be, not acknowledged
	queue    queue    // behind the window
	nextID   uint16
	order    uint64
	// refilling says that somebody moves messages from the queue to the window:
	// nothing may overtake them.
	refilling bool
	// received are the QoS 2 messages of the client that are not released.
	received map[uint16]struct{}
	// waiters are told of the acknowledgement of a message, by its order.
	waiters map[uint64]chan<- struct{}
	// over says that the session has ended and takes nothing any more.
	over bool
	// recorded says that the keeper has a record of the session.
	recorded bool
	// away describes the client while it is not connected.
	away   *absence
	expire alarm
}

// absence is a persistent session without a connection.
type absence struct {
	info   SessionInfo
	at     time.Time
	reason DisconnectReason
	// will waits for its delay; nil when there is none.
	will *delayedWill
}

// newSession returns the session of an admitted connection.
func (b *Broker) newSession(r *realm, c *connection, expiry uint32) *session {
	s := &session{broker: b, realm: r, clientID: c.info.ClientID, id: c.info.SessionID, version: c.version, expiry: expiry, after: b.numbers.Load()}
	s.expire.ring = s.lookAtExpiry
	return s
}

// persistentLocked reports whether the session outlives its connection.
func (s *session) persistentLocked() bool { return s.expiry > 0 }

// liveLocked returns the connection that takes output, or nil.
func (s *session) liveLocked() *connection {
	c := s.link.Load()
	if c == nil || c.dead {
		return nil
	}
	return c
}

// attachLocked makes c the session's connection and prepares to send again what
// the client has not acknowledged. It returns the connection before.
func (s *session) attachLocked(c *connection) (before *connection) {
	before = s.link.Load()
	for i := range s.inflight {
		p := &s.inflight[i]
		p.repeat, p.onWire = p.repeat || p.onWire, false
		p.since, p.tries = 0, 0 // patience begins anew
		s.broker.queued.Add(int64(p.bytes()))
	}
	s.queue.restore(s.inflight)
	s.inflight = nil
	s.link.Store(c)
	if s.away != nil {
		if s.away.will != nil {
			s.away.will.timer.Stop()
		}
		s.away = nil
		s.broker.wheel.remove(&s.expire)
	}
	return before
}

// detach takes a connection that has ended away from its session and decides
// what becomes of the session. It reports false when another connection has
// taken over.
func (s *session) detach(c *connection, final *cause, at time.Time) (current bool) {
	s.mu.Lock()
	if s.link.Load() != c {
		s.mu.Unlock()
		return false
	}
	s.link.Store(nil)
	if s.over {
		s.mu.Unlock()
		return true
	}
	if !s.persistentLocked() || final.endSession {
		s.endLocked()
		s.mu.Unlock()
		s.discard()
		return true
	}
	s.away = &absence{info: c.info, at: at, reason: final.reason}
	if c.will != nil && !final.noWill && c.willDelay > 0 {
		s.delayWillLocked(c.will, at.Add(time.Duration(min(c.willDelay, s.expiry))*time.Second))
	}
	s.recordLocked(nil)
	s.watchExpiryLocked()
	s.mu.Unlock()
	return true
}

// watchExpiryLocked begins to wait for the end of an absence.
func (s *session) watchExpiryLocked() {
	if s.expiry != NeverExpires {
		s.broker.wheel.add(&s.expire, s.broker.wheel.now.Load()+int64(s.expiry)+1)
	}
}

// lookAtExpiry ends the session when the client has been away for too long,
// and lets go of messages that nobody wants any more.
func (s *session) lookAtExpiry(now int64) (again int64) {
	s.mu.Lock()
	if s.over || s.away == nil {
		s.mu.Unlock()
		return 0
	}
	wall := s.broker.now()
	left := s.away.at.Add(time.Duration(s.expiry) * time.Second).Sub(wall)
	if left > 0 {
		expired := s.queue.dropExpired(wall)
		for i := range expired {
			s.broker.queued.Add(-int64(expired[i].bytes()))
			s.forgetLocked(&expired[i], dropExpired)
		}
		s.mu.Unlock()
		return now + int64(left/tickLength) + 1
	}
	s.endLocked()
	s.mu.Unlock()
	s.realm.leave(s)
	s.discard()
	return 0
}

// endLocked makes the session take nothing any more; discard is to follow. Its
// record goes at once, before a successor writes its own under the same key.
func (s *session) endLocked() {
	s.over = true
	s.unrecordLocked(nil)
}

// discard lets go of everything that a session held; it is over, so that
// nobody adds to it. What members of a shared group had not acknowledged goes
// back to the group.
func (s *session) discard() {
	s.mu.Lock()
	subs, parcels := s.subs, append(s.inflight, s.queue.items...)
	s.broker.queued.Add(-int64(s.queue.bytes))
	s.subs, s.inflight, s.queue, s.received = nil, nil, queue{}, nil
	var will *delayedWill
	if s.away != nil {
		will, s.away = s.away.will, nil
	}
	s.broker.wheel.remove(&s.expire)
	var returned []parcel
	for i := range parcels {
		p := &parcels[i]
		if p.box != nil && !p.released {
			returned = append(returned, *p)
			continue
		}
		s.unkeepLocked(p)
	}
	s.mu.Unlock()
	if will != nil {
		will.timer.Stop()
		s.broker.publishWill(s.realm, will.message) // with its session's end it is due
	}
	for i := range subs {
		s.realm.router.leave(&subs[i], s)
	}
	s.broker.metrics.subscriptions.Sub(float64(len(subs)))
	s.realm.usage.subscriptions.Add(-int64(len(subs)))
	var woken []*group
	for i := range returned {
		returned[i].box.takeBack(returned[i])
		if !slices.Contains(woken, returned[i].box) {
			woken = append(woken, returned[i].box)
		}
	}
	for _, g := range woken {
		g.wake(nil)
	}
}

// recordLocked makes the session as it is now durable. done may be nil.
func (s *session) recordLocked(done func(error)) {
	if !s.persistentLocked() && s.recorded {
		// It ends with its connection now; what is kept of its messages goes with
		// them.
		s.unrecordLocked(done)
		return
	}
	if !s.persistentLocked() || s.over {
		if done != nil {
			go done(nil)
		}
		return
	}
	record := &SessionRecord{SessionID: s.id, Version: byte(s.version), Expiry: s.expiry, After: s.after}
	info := &SessionInfo{}
	if c := s.link.Load(); c != nil {
		info = &c.info
		if c.will != nil {
			record.Will = &WillRecord{Message: *c.willAsAdmitted, Delay: c.willDelay}
		}
	} else if s.away != nil {
		info = &s.away.info
		record.DisconnectedAt, record.Reason = s.away.at, s.away.reason
		if w := s.away.will; w != nil {
			record.Will = &WillRecord{Message: *w.message, Due: w.due}
		}
	}
	record.Principal, record.ThingName, record.Indexed = info.Principal, info.ThingName, info.Indexed
	record.KeepAlive, record.ConnectedAt = info.KeepAlive, info.ConnectedAt
	record.Subscriptions = make([]SubscriptionRecord, len(s.subs))
	for i := range s.subs {
		sub := &s.subs[i]
		record.Subscriptions[i] = SubscriptionRecord{
			Filter: sub.filter, QoS: sub.qos, Identifier: sub.id, NoLocal: sub.noLocal, RetainAsPublished: sub.retainAsPublished,
		}
	}
	if !s.recorded {
		s.recorded = true
		s.broker.metrics.stored.Inc()
	}
	s.broker.keeper.Save(Change{Kind: PutSession, Account: s.realm.account, Box: s.clientID, Session: record}, done)
}

// unrecordLocked lets the keeper forget the session's record, if there is one.
func (s *session) unrecordLocked(done func(error)) {
	if !s.recorded {
		return
	}
	s.recorded = false
	s.broker.metrics.stored.Dec()
	s.broker.keeper.Save(Change{Kind: DropSession, Account: s.realm.account, Box: s.clientID}, done)
}

// keepLocked makes a message of the session's own durable when the session is.
func (s *session) keepLocked(p *parcel, done func() func(error)) {
	if !s.persistentLocked() {
		return
	}
	p.seq, p.stored = s.broker.numbers.Add(1), true
	s.broker.keeper.Save(Change{Kind: PutMessage, Account: s.realm.account, Box: s.clientID, Seq: p.seq, Message: p.message, Retain: p.retain}, done())
}

// unkeepLocked lets the keeper forget a message.
func (s *session) unkeepLocked(p *parcel) {
	if !p.stored {
		return
	}
	box := s.clientID
	if p.box != nil {
		box = p.box.name
	}
	s.broker.keeper.Save(Change{Kind: DropMessage, Account: s.realm.account, Box: box, Seq: p.seq}, nil)
}

// forgetLocked drops a message for a reason that is counted.
func (s *session) forgetLocked(p *parcel, reason string) {
	s.broker.metrics.dropped[reason].Inc()
	s.unkeepLocked(p)
}

// enqueueLocked puts a message behind the window unless the queue is full.
func (s *session) enqueueLocked(p parcel) bool {
	b := s.broker
	size := int64(p.bytes())
	if !s.queue.fits(p.message, b.limits.MaxQueue, b.limits.MaxQueueBytes) || b.queued.Load()+size > b.limits.MaxQueuedTotal {
		b.metrics.dropped[dropQueue].Inc()
		return false
	}
	b.queued.Add(size)
	s.queue.push(p)
	return true
}

// hasRoomLocked reports whether a connection may be sent one more message that
// has to be acknowledged.
func (s *session) hasRoomLocked(c *connection) bool {
	return len(s.inflight) < c.window && (c.pending == nil || len(c.pending.b) < s.broker.limits.MaxPending) &&
		(c.allowance == nil || c.mayTakeLocked())
}

// find returns the index of the message in flight with a packet id, -1 for
// none. Clients acknowledge in order, most of the time.
func (s *session) findLocked(id uint16) int {
	for i := range s.inflight {
		if s.inflight[i].id == id {
			return i
		}
	}
	return -1
}

// removeLocked takes a message out of the window.
func (s *session) removeLocked(i int) {
	if i == 0 && len(s.inflight) > 1 {
		s.inflight[0] = parcel{}
		s.inflight = s.inflight[1:]
		return
	}
	copy(s.inflight[i:], s.inflight[i+1:])
	s.inflight[len(s.inflight)-1] = parcel{}
	s.inflight = s.inflight[:len(s.inflight)-1]
}

// nextIDLocked returns a packet id that is not in flight, nor waits for its
// turn to be in flight again.
func (s *session) nextIDLocked() uint16 {
	for {
		s.nextID++
		if s.nextID != 0 && s.findLocked(s.nextID) < 0 && !s.queue.reserves(s.nextID) {
			return s.nextID
		}
	}
}

// reserves reports whether a message that was sent before waits with an id.
func (q *queue) reserves(id uint16) bool {
	for i := range q.items {
		if q.items[i].id == 0 {
			return false // those that were sent are in front
		}
		if q.items[i].id == id {
			return true
		}
	}
	return false
}

// sharesLocked calls fn for the shared groups of the session until it returns
// true.
func (s *session) sharesLocked(fn func(*subscription) bool) {
	for i := range s.subs {
		if s.subs[i].group != nil && fn(&s.subs[i]) {
			return
		}
	}
}

// isShared reports whether a filter is that of a shared subscription.
func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }
