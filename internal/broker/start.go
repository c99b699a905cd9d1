package broker

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// errTinyPackets is a client that cannot even take the answer to its CONNECT.
var errTinyPackets = errors.New("maximum packet size of the client has no room for CONNACK")

// noDeadline is the time that takes a deadline away.
func noDeadline() time.Time { return time.Time{} }

// start makes the admitted connection a session: takes the client id over,
// answers the CONNECT and begins to read.
func (a *admission) start(rest []byte) (string, error) {
	b := a.broker
	s := a.session()
	answer := a.connack()
	if encoded, err := answer.Append(nil, s.version); err != nil || len(encoded) > s.maxPacket {
		a.in.release()
		a.guard.Close()
		return resultRefused, errors.Join(errTinyPackets, err)
	}
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		a.in.release()
		a.guard.Close()
		return resultRefused, ErrClosed
	}
	b.running.Add(1)
	b.mu.Unlock()
	s.realm = b.realm(a.info.Account)
	b.metrics.connections.Inc()
	s.mu.Lock()
	s.sendLocked(answer) // before anybody else can find the session
	s.mu.Unlock()
	old := s.realm.join(s, func() { b.observer.Connected(&s.info) })
	a.remindOfPersistence()
	s.flush()
	s.lastSeen.Store(b.wheel.now.Load())
	if s.idleTicks > 0 {
		b.wheel.add(s)
	}
	if b.stopped() { // Shutdown may have listed the sessions before this one
		s.end(because(ReasonServerInitiated))
	}
	go func() {
		defer b.running.Done()
		s.run(rest)
	}()
	if old != nil {
		old.end(because(ReasonDuplicateClientID))
	}
	return resultAccepted, nil
}

// session returns the new session.
func (a *admission) session() *session {
	b, p := a.broker, &a.connect
	s := &session{
		broker: b, conn: a.conn, try: newTryWriter(a.conn), info: a.info, guard: a.guard, version: p.Version,
		will: a.request.Will, window: b.limits.MaxInflight, maxPacket: maxInt32, gone: make(chan struct{}), in: a.in,
	}
	if p.Properties.Set.Has(mqtt.PropReceiveMaximum) {
		s.window = min(s.window, int(p.Properties.ReceiveMaximum))
	}
	if p.Properties.Set.Has(mqtt.PropMaximumPacketSize) {
		s.maxPacket = int(min(p.Properties.MaximumPacketSize, maxInt32))
	}
	s.askedExpiry = p.Properties.SessionExpiry
	if keepAlive := int64(a.info.KeepAlive); keepAlive > 0 {
		// One and a half times the keep-alive, and one tick for the part of a tick
		// that had passed when the client was last seen.
		s.idleTicks = (3*keepAlive+1)/2 + 1
	}
	return s
}

// maxInt32 stands for a packet size that nobody bounds.
const maxInt32 = 1<<31 - 1

// connack returns the answer to an accepted CONNECT.
func (a *admission) connack() *mqtt.Connack {
	b, p := a.broker, &a.connect
	answer := &mqtt.Connack{}
	if p.Version != mqtt.V5 {
		return answer
	}
	answer.Properties = mqtt.Properties{
		Set: mqtt.Of(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
			mqtt.PropTopicAliasMaximum, mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAllowed, mqtt.PropSharedAvailable),
		ReceiveMaximum: uint16(b.limits.MaxInflight), MaximumQoS: 1, RetainAvailable: 0,
		MaximumPacketSize: uint32(b.limits.MaxPacket), TopicAliasMaximum: uint16(b.limits.MaxAlias),
		WildcardAvailable: 1, SharedAvailable: 0,
	}
	if b.profile == topic.Standard {
		answer.Properties.SubscriptionIDAllowed = 1
	}
	if b.profile == topic.AWS || a.info.KeepAlive != p.KeepAlive {
		answer.Properties.Set |= mqtt.Of(mqtt.PropServerKeepAlive)
		answer.Properties.ServerKeepAlive = a.info.KeepAlive
	}
	if a.request.Persistent() {
		// This broker ends sessions with their connections and says so.
		answer.Properties.Set |= mqtt.Of(mqtt.PropSessionExpiry)
	}
	if a.assigned {
		answer.Properties.Set |= mqtt.Of(mqtt.PropAssignedClientID)
		answer.Properties.AssignedClientID = p.ClientID
	}
	return answer
}

// remindOfPersistence tells the log once for each client id that its session
// will not outlive the connection.
func (a *admission) remindOfPersistence() {
	if a.request.Persistent() && a.broker.persistent.first(string(a.info.Account)+"/"+a.info.ClientID) {
		a.broker.logger.Info("persistent session requested, a clean one given",
			slog.String("client_id", a.info.ClientID), slog.String("account", string(a.info.Account)))
	}
}

// reminder remembers what has been said, up to a bound.
type reminder struct {
	mu   sync.Mutex
	said map[string]struct{}
}

// maxReminders bounds the memory; beyond it everything may be said again.
const maxReminders = 10000

// first reports whether key is new.
func (r *reminder) first(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.said[key]; ok {
		return false
	}
	if r.said == nil || len(r.said) >= maxReminders {
		r.said = make(map[string]struct{})
	}
	r.said[key] = struct{}{}
	return true
}
