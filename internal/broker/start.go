package broker

import (
	"errors"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// errTinyPackets is a client that cannot even take the answer to its CONNECT.
var errTinyPackets = errors.New("maximum packet size of the client has no room for CONNACK")

// noDeadline is the time that takes a deadline away.
func noDeadline() time.Time { return time.Time{} }

// start makes the admitted connection one of a session: takes the client id
// over, answers the CONNECT and begins to read.
func (a *admission) start(rest []byte) (string, error) {
	b := a.broker
	c := a.connection()
	if encoded, err := a.connack(false).Append(nil, c.version); err != nil || len(encoded) > c.maxPacket {
		a.in.release()
		a.guard.Close()
		return resultRefused, errors.Join(errTinyPackets, err)
	}
	if !b.enter() {
		a.in.release()
		a.guard.Close()
		return resultRefused, ErrClosed
	}
	b.metrics.connections.Inc()
	r := b.realm(a.info.Account)
	c.allowance = b.quotas.allowance(&r.usage)
	r.usage.connections.Add(1)
	c.lastSeen.Store(b.wheel.now.Load())
	j := r.join(c, a.info.SessionExpiry,
		func() { b.observer.Connected(&c.info) },
		func(j *joined) { c.sendLocked(a.connack(j.resumed)) })
	c.arm(a.admitted.Until, a.admitted.UntilReason)
	c.flush()
	if j.resumed {
		c.session.refill(nil)
	}
	if b.stopped() || b.draining.Load() != nil { // Shutdown may have listed the connections before this one
		c.end(because(ReasonServerInitiated))
	}
	go func() {
		defer b.running.Done()
		c.run(rest)
	}()
	if j.replaced != nil {
		j.replaced.discard()
	}
	if j.before != nil {
		j.before.end(because(ReasonDuplicateClientID))
	}
	return resultAccepted, nil
}

// arm begins to watch the keep-alive and the end that the gatekeeper set.
func (c *connection) arm(until time.Time, reason DisconnectReason) {
	b := c.broker
	if c.idleTicks > 0 {
		b.wheel.add(&c.idle, b.wheel.now.Load()+c.idleTicks)
	}
	if !until.IsZero() {
		c.lifetime = time.AfterFunc(until.Sub(b.now()), func() { c.end(&cause{reason: reason, code: mqtt.MaximumConnectTime}) })
	}
}

// lookAtIdle ends a connection that was silent for too long.
func (c *connection) lookAtIdle(now int64) (again int64) {
	if due := c.lastSeen.Load() + c.idleTicks; due > now {
		return due
	}
	c.end(because(ReasonKeepAliveTimeout))
	return 0
}

// connection returns the new connection.
func (a *admission) connection() *connection {
	b, p := a.broker, &a.connect
	c := &connection{
		broker: b, conn: a.conn, try: newTryWriter(a.conn), info: a.info, guard: a.guard, version: p.Version,
		will: a.request.Will, window: b.limits.MaxInflight, maxPacket: maxInt32, gone: make(chan struct{}), in: a.in, key: a.key,
	}
	c.willAsAdmitted = enriched(c.will, c.guard)
	c.idle.ring, c.retry.ring = c.lookAtIdle, c.lookAtRetries
	if p.Will != nil {
		c.willDelay = p.Will.Properties.WillDelay
	}
	if p.Properties.Set.Has(mqtt.PropReceiveMaximum) {
		c.window = min(c.window, int(p.Properties.ReceiveMaximum))
	}
	if p.Properties.Set.Has(mqtt.PropMaximumPacketSize) {
		c.maxPacket = int(min(p.Properties.MaximumPacketSize, maxInt32))
	}
	c.maxOutAlias = min(p.Properties.TopicAliasMaximum, maxOutAliases)
	if keepAlive := int64(a.info.KeepAlive); keepAlive > 0 {
		// One and a half times the keep-alive, and one tick for the part of a tick
		// that had passed when the client was last seen.
		c.idleTicks = (3*keepAlive+1)/2 + 1
	}
	return c
}

// maxOutAliases bounds the aliases towards one client, whatever it offers.
const maxOutAliases = 32

// maxInt32 stands for a packet size that nobody bounds.
const maxInt32 = 1<<31 - 1

// connack returns the answer to an accepted CONNECT.
func (a *admission) connack(resumed bool) *mqtt.Connack {
	b, p := a.broker, &a.connect
	answer := &mqtt.Connack{SessionPresent: resumed}
	if p.Version == mqtt.V31 {
		answer.SessionPresent = false // the flag came with 3.1.1
	}
	if p.Version != mqtt.V5 {
		return answer
	}
	answer.Properties = mqtt.Properties{
		Set: mqtt.Of(mqtt.PropReceiveMaximum, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
			mqtt.PropTopicAliasMaximum, mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAllowed, mqtt.PropSharedAvailable),
		ReceiveMaximum: uint16(b.limits.MaxInflight), RetainAvailable: 1,
		MaximumPacketSize: uint32(b.limits.MaxPacket), TopicAliasMaximum: uint16(b.limits.MaxAlias),
		WildcardAvailable: 1, SharedAvailable: 1,
	}
	if b.limits.MaxQoS < 2 {
		answer.Properties.Set |= mqtt.Of(mqtt.PropMaximumQoS)
		answer.Properties.MaximumQoS = b.limits.MaxQoS
	}
	if b.profile == topic.Standard {
		answer.Properties.SubscriptionIDAllowed = 1
	}
	if b.profile == topic.AWS || a.info.KeepAlive != p.KeepAlive {
		answer.Properties.Set |= mqtt.Of(mqtt.PropServerKeepAlive)
		answer.Properties.ServerKeepAlive = a.info.KeepAlive
	}
	if a.request.Persistent() {
		answer.Properties.Set |= mqtt.Of(mqtt.PropSessionExpiry)
		answer.Properties.SessionExpiry = a.info.SessionExpiry
	}
	if a.assigned {
		answer.Properties.Set |= mqtt.Of(mqtt.PropAssignedClientID)
		answer.Properties.AssignedClientID = p.ClientID
	}
	return answer
}
