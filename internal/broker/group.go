package broker

import (
	"math/rand/v2"
	"sync"
	"time"
)

// group is one shared subscription: each message goes to one of its members.
// QoS 1 messages that no member can take now wait here, as long as there is a
// member that will come back for them.
type group struct {
	broker *Broker
	realm  *realm
	name   string // with the prefix, as clients subscribe
	prefix string // `$share/…/`, before the filter
	entry  *entry

	mu sync.Mutex
	// members never changes in place: readers may hold it.
	members []subscriber
	queue   queue
}

// all returns the members, not to be changed.
func (g *group) all() []subscriber {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members
}

// join adds a member, or changes the options of one. It reports false when the
// group has no room.
func (g *group) join(sub subscriber, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := make([]subscriber, 0, len(g.members)+1)
	for _, m := range g.members {
		if m.session != sub.session {
			members = append(members, m)
		}
	}
	if len(members) >= most {
		return false
	}
	g.members = append(members, sub)
	return true
}

// leave removes a member and reports whether none is left; then what waits is
// dropped.
func (g *group) leave(s *session) (empty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := make([]subscriber, 0, len(g.members))
	for _, m := range g.members {
		if m.session != s {
			members = append(members, m)
		}
	}
	g.members = members
	if len(members) > 0 {
		return false
	}
	for i := range g.queue.items {
		g.unkeepLocked(&g.queue.items[i])
	}
	g.broker.queued.Add(-int64(g.queue.bytes))
	g.queue = queue{}
	return true
}

// persistentLocked reports whether a member comes back after an absence.
func (g *group) persistentLocked() bool {
	for i := range g.members {
		if g.members[i].persistent {
			return true
		}
	}
	return false
}

// numberLocked gives a message its place in the group, and makes it durable when
// a member is persistent.
func (g *group) numberLocked(p *parcel, done func() func(error)) {
	p.box, p.seq = g, g.broker.numbers.Add(1)
	if g.persistentLocked() {
		p.stored = true
		g.broker.keeper.Save(Change{Kind: PutMessage, Account: g.realm.account, Box: g.name, Seq: p.seq, Message: p.message}, done())
	}
}

// unkeepLocked lets the keeper forget a message that waited.
func (g *group) unkeepLocked(p *parcel) {
	if p.stored {
		g.broker.keeper.Save(Change{Kind: DropMessage, Account: g.realm.account, Box: g.name, Seq: p.seq}, nil)
	}
}

// hold queues a message that no member could take. online tells whether some
// member is connected.
func (g *group) hold(k *Kept, qos byte, online bool, done func() func(error)) {
	b := g.broker
	g.mu.Lock()
	defer g.mu.Unlock()
	size := int64(k.size())
	switch {
	case len(g.members) == 0, !online && !g.persistentLocked():
		b.metrics.dropped[dropNobody].Inc()
		return
	case !g.queue.fits(k, b.limits.MaxGroupQueue, b.limits.MaxQueueBytes), b.queued.Load()+size > b.limits.MaxQueuedTotal:
		b.metrics.dropped[dropQueue].Inc()
		return
	}
	p := parcel{message: b.retention(k), qos: qos}
	g.numberLocked(&p, done)
	b.queued.Add(size)
	g.queue.push(p)
}

// retention returns a message that waits for no longer than a session may.
func (b *Broker) retention(k *Kept) *Kept {
	if b.limits.MaxSessionExpiry == NeverExpires {
		return k
	}
	end := b.now().Add(time.Duration(b.limits.MaxSessionExpiry) * time.Second)
	if !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(end) {
		return k
	}
	bounded := *k
	bounded.ExpiresAt = end
	return &bounded
}

// maxRefusals is how many members are asked for one message, and how many
// messages that a member may not receive it looks behind.
const maxRefusals = 100

// pop takes the oldest message that waits and that the member may receive as far
// as is known.
func (g *group) pop(s *session) (parcel, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range min(len(g.queue.items), maxRefusals) {
		if _, refused := g.queue.items[i].refused[s]; !refused {
			p := g.queue.take(i)
			g.broker.queued.Add(-int64(p.bytes()))
			return p, true
		}
	}
	return parcel{}, false
}

// refuse queues a message again that a member may not receive, for the others.
// It reports false when there is nobody left to ask.
func (g *group) refuse(p parcel, by *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.refused == nil {
		p.refused = make(map[*session]struct{}, 1)
	}
	p.refused[by] = struct{}{}
	others := false
	for i := range g.members {
		_, refused := p.refused[g.members[i].session]
		others = others || !refused
	}
	if !others || len(p.refused) >= maxRefusals {
		return false
	}
	g.requeueLocked(p)
	return true
}

// requeueLocked puts a message that a member had back at its place.
func (g *group) requeueLocked(p parcel) {
	fresh := parcel{message: p.message, qos: p.message.QoS, box: g, seq: p.seq, stored: p.stored, refused: p.refused}
	g.broker.queued.Add(int64(fresh.bytes()))
	g.queue.insert(fresh)
}

// takeBack queues a message again whose member has left without acknowledging
// it, at its place. Call wake when all have been taken back.
func (g *group) takeBack(p parcel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.members) == 0 {
		g.unkeepLocked(&p)
		return
	}
	g.requeueLocked(p)
}

// wake lets connected members take what waits.
func (g *group) wake(b *batch) {
	for _, m := range g.all() {
		if m.session.link.Load() != nil {
			m.session.refill(b)
		}
	}
}

// deliverShared gives the batch's message to one member of a group: one that is
// connected and has room, else it waits for whoever has first.
func (b *batch) deliverShared(g *group) {
	members := g.all()
	if len(members) == 0 {
		return
	}
	asked := g.prefix + b.message.topic
	online := false
	first := rand.IntN(len(members)) //nolint:gosec // the choice of a member is no secret
	for i := range members {
		sub := &members[(first+i)%len(members)]
		switch b.offer(sub, g, asked) {
		case offerTaken:
			return
		case offerBusy:
			online = true
		case offerImpossible:
		}
	}
	if b.message.qos == 0 {
		b.broker.metrics.dropped[dropNobody].Inc()
		return
	}
	g.hold(b.keep(), b.message.qos, online, b.receiptFor)
	g.wake(b) // somebody may have come, or have got room, meanwhile
}

// offered is what became of an offer to a member.
type offered int

// Outcomes of an offer.
const (
	offerImpossible offered = iota // the member is away, or may not receive it
	offerBusy                      // connected, without room
	offerTaken
)

// offer gives the message to a member if that can be sent it now. asked is the
// topic as the guard is asked for it, with the group's prefix.
func (b *batch) offer(sub *subscriber, g *group, asked string) offered {
	s := sub.session
	c := s.link.Load()
	if c == nil {
		return offerImpossible
	}
	if !c.guard.CanReceive(asked) {
		c.deny(asked)
		return offerImpossible
	}
	qos := min(sub.qos, b.message.qos)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.liveLocked() != c || s.over {
		return offerImpossible
	}
	var ids []uint32
	if sub.id != 0 {
		ids = []uint32{sub.id}
	}
	if qos == 0 {
		if b.message.qos > 0 && len(s.queue.items) > 0 {
			return offerBusy
		}
		b.deliverNow(c, parcel{ids: ids})
		return offerTaken
	}
	if len(s.queue.items) > 0 || s.refilling || !s.hasRoomLocked(c) {
		return offerBusy
	}
	p := parcel{ids: ids, qos: qos, message: b.keep()}
	g.mu.Lock()
	g.numberLocked(&p, b.receiptFor)
	g.mu.Unlock()
	b.deliverNow(c, p)
	return offerTaken
}

// waits reports whether a message waits for a member.
func (g *group) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue.items) > 0
}
