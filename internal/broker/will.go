package broker

import (
	"slices"
	"time"
)

// delayedWill is a will that waits for its delay while the client is away.
type delayedWill struct {
	message *Message
	due     time.Time
	timer   *time.Timer
}

// publishWill publishes the will of a connection that has ended. Its expiry
// counts from now; when retained, it is kept as any other message.
func (b *Broker) publishWill(r *realm, m *Message) {
	w := b.batch()
	defer b.release(w)
	w.begin(m)
	if m.Retain {
		// Nobody is left to be told of a refusal, which has been counted.
		_ = w.retain(r, nil)
	}
	w.route(r.router)
}

// delayWillLocked publishes a will at its time, or when the session ends if
// that is sooner, unless the client is back before.
func (s *session) delayWillLocked(m *Message, due time.Time) {
	w := &delayedWill{message: m, due: due}
	w.timer = time.AfterFunc(due.Sub(s.broker.now()), func() { s.willDue(w) })
	s.away.will = w
}

// willDue publishes a delayed will unless somebody else has dealt with it.
func (s *session) willDue(w *delayedWill) {
	b := s.broker
	if !b.enter() {
		return
	}
	defer b.running.Done()
	s.mu.Lock()
	if s.away == nil || s.away.will != w {
		s.mu.Unlock()
		return
	}
	s.away.will = nil
	s.recordLocked(nil)
	s.mu.Unlock()
	b.publishWill(s.realm, w.message)
}

// enter counts a goroutine of the broker's unless the broker is shut down.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.running.Add(1)
	return true
}

// enriched returns a will with the user properties that messages of its
// connection gain now: the will itself where they gain none.
func enriched(will *Message, g Guard) *Message {
	if will == nil {
		return nil
	}
	own := slices.Clip(will.Properties.UserProperties)
	gained := g.Enrich(own)
	if len(gained) == len(own) {
		return will
	}
	m := *will
	m.Properties.UserProperties = gained
	return &m
}
