package broker_test

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// What a machine may do. Two publishers stay connected; the clients come and
// go as the input says.
const (
	modelWindow  = 4
	modelClients = 4
	modelTopics  = 3
	// sharedFilter is the only filter for the topic s, so that no client gets a
	// message both ways.
	sharedFilter = "$share/g/s"
	// modelPatience is how much time passes in one run on living sessions: less than
	// the hour after which a message that nobody acknowledges is given up.
	modelPatience = 45 * time.Minute
	// modelStep is how exactly it is known when something came.
	modelStep = 5 * time.Second
)

// expected is a message that a client is to receive with QoS 1.
type expected struct {
	name, payload string
	retain        bool
	expires       time.Time
	// id is the packet id of its first delivery, 0 before that.
	id     uint16
	sentAt time.Time
}

func (e *expected) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// modelSession is all that a session is: subscriptions, and unacknowledged
// messages in order, of which the first were sent on the present connection.
type modelSession struct {
	id      string
	version mqtt.Version
	// expiry is 0 for a session that ends with its connection.
	expiry  time.Duration
	subs    map[string]byte
	pending []*expected
	// told is the session's id, as observers are told.
	told string

	peer   *peer
	window int
	// sent counts the messages of pending that are in flight.
	sent int
	// zero are the messages of QoS 0 that are to come at once.
	zero []string
	left time.Time
}

func (s *modelSession) connected() bool { return s.peer != nil }

// over reports whether the session has certainly ended, due whether it may have.
func (s *modelSession) over(now time.Time) bool {
	return !s.connected() && now.After(s.left.Add(s.expiry+slack))
}

func (s *modelSession) due(now time.Time) bool {
	return !s.connected() && !now.Before(s.left.Add(s.expiry))
}

// matches returns the QoS of the best subscription for a topic.
func (s *modelSession) matches(name string) (qos byte, ok bool) {
	for filter, q := range s.subs {
		if filter == name || filter == "t/+" && strings.HasPrefix(name, "t/") {
			qos, ok = max(qos, q), true
		}
	}
	return qos, ok
}

// sharing is a message to the group.
type sharing struct {
	// by is the client that received it.
	by string
	// owed says that a member will have to receive it, loose that the fate of
	// whoever had it may have cost or repeated it, over that it was acknowledged.
	owed, loose, over bool
}

// roll is an observer that keeps the connections that are open.
type roll struct {
	*recorder
	mu   sync.Mutex
	open map[string]broker.SessionInfo
	errs []string
}

func (r *roll) Connected(s *broker.SessionInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.open[s.ConnectionID]; ok {
		r.errs = append(r.errs, "told twice of connection "+s.ConnectionID)
	}
	r.open[s.ConnectionID] = *s
}

func (r *roll) Disconnected(s *broker.SessionInfo, _ broker.DisconnectReason, _ bool, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.open[s.ConnectionID]; !ok {
		r.errs = append(r.errs, "told of the end of unknown connection "+s.ConnectionID)
	}
	delete(r.open, s.ConnectionID)
}

// here returns the open connections by client, and what was wrong.
func (r *roll) here() (map[string][]broker.SessionInfo, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]broker.SessionInfo{}
	for _, s := range r.open {
		all[s.ClientID] = append(all[s.ClientID], s)
	}
	return all, r.errs
}

// machine runs operations from an input against a broker and the model.
type machine struct {
	w        *world
	input    []byte
	seen     *roll
	sessions map[string]*modelSession
	retained map[string]*expected
	// retainedQoS is that of the retained messages.
	retainedQoS map[string]byte
	shared      map[string]*sharing
	publishers  [2]*peer
	count       int
	elapsed     time.Duration
	log         []string
}

// runMachine runs an input in virtual time.
func runMachine(t *testing.T, input []byte) {
	t.Helper()
	if len(input) == 0 {
		return
	}
	profile := topic.AWS
	if input[0]%2 == 1 {
		profile = topic.Standard
	}
	seen := &roll{recorder: &recorder{}, open: map[string]broker.SessionInfo{}}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, profile, limits(func(l *broker.Limits) { l.MaxInflight = modelWindow }), func(o *broker.Options) {
			o.Keeper = newLedger()
			o.Observer, o.Logger = seen, slog.New(slog.DiscardHandler)
		})
		m := &machine{
			w: w, input: input[1:], seen: seen, sessions: map[string]*modelSession{}, retained: map[string]*expected{},
			retainedQoS: map[string]byte{}, shared: map[string]*sharing{},
		}
		defer func() {
			if t.Failed() {
				t.Logf("profile %v, operations:\n%s", profile, strings.Join(m.log, "\n"))
			}
		}()
		m.run()
	})
}

// note writes an operation to the log.
func (m *machine) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%8s ", m.elapsed.Round(time.Second))+fmt.Sprintf(format, args...))
}

// fail ends the run.
func (m *machine) fail(s *modelSession, format string, args ...any) {
	m.w.t.Helper()
	m.w.t.Fatalf("%s: %s", s.id, fmt.Sprintf(format, args...))
}

// pick takes a byte and returns a number below n.
func (m *machine) pick(n int) int {
	if len(m.input) == 0 {
		return 0
	}
	b := m.input[0]
	m.input = m.input[1:]
	return int(b) % n
}

func (m *machine) run() {
	m.callPublishers()
	for len(m.input) > 0 {
		m.step()
		m.settle()
	}
	m.finish()
}

// callPublishers connects those who publish.
func (m *machine) callPublishers() {
	m.publishers = [2]*peer{m.w.connect(mqtt.V311, "p3"), m.w.connect(mqtt.V5, "p5")}
}

// step does one operation.
func (m *machine) step() {
	switch op := m.pick(16); op {
	case 0, 1:
		m.connect()
	case 2:
		m.disconnect()
	case 3, 4:
		m.subscribe()
	case 5:
		m.unsubscribe()
	case 6, 7, 8, 9:
		m.publish(op == 9)
	case 10, 11, 12:
		m.acknowledge()
	case 13:
		m.wait([]time.Duration{2100 * time.Millisecond, 31700 * time.Millisecond, 200300 * time.Millisecond}[m.pick(3)])
	case 14:
		m.restart()
	default:
		m.drop()
	}
}

// someone returns a client id.
func (m *machine) someone() string { return string(rune('a' + m.pick(modelClients))) }

// online returns a session whose client is connected, nil for none.
func (m *machine) online() *modelSession {
	s := m.sessions[m.someone()]
	if s == nil || !s.connected() {
		return nil
	}
	return s
}

func (m *machine) connect() {
	id, how := m.someone(), m.pick(8)
	version, clean := mqtt.V5, how&3 == 3
	if (id == "a" || id == "b") != (how == 7) { // now and then in the other family
		version = mqtt.V311
	}
	expiry := []time.Duration{time.Hour, time.Hour, time.Minute, 0}[m.pick(4)]
	window := modelWindow
	c := connectPacket(version, id)
	c.CleanStart = clean
	if version == mqtt.V5 {
		window = 1 + m.pick(modelWindow+1)
		expiring(uint32(expiry / time.Second))(c)
		receiving(uint16(window))(c)
		window = min(window, modelWindow)
	} else if expiry = time.Hour; clean {
		expiry = 0
	}
	m.note("connect %s: version %d, clean %v, expiry %v, window %d", id, version, clean, expiry, window)
	old := m.sessions[id]
	p := m.w.dial(version)
	p.send(c)
	ack, ok := p.next().(*mqtt.Connack)
	if !ok || ack.Reason != mqtt.Success {
		m.w.t.Fatalf("%s is not accepted: %+v", id, ack)
	}
	if old != nil && old.connected() {
		m.takenOver(old)
	}
	resumes := old != nil && !clean && old.version == version && old.expiry > 0
	if resumes && old.due(time.Now()) {
		resumes = ack.SessionPresent // the last minute may or may not be granted
	}
	if ack.SessionPresent != resumes {
		m.w.t.Fatalf("%s: session present %v, want %v", id, ack.SessionPresent, resumes)
	}
	if !resumes {
		if old != nil {
			m.end(old)
		}
		old = &modelSession{id: id, version: version, subs: map[string]byte{}}
		m.sessions[id] = old
	}
	old.peer, old.window, old.expiry, old.sent, old.zero = p, window, expiry, 0, nil
}

// takenOver is the end of a connection whose client has a newer one.
func (m *machine) takenOver(s *modelSession) {
	if !s.peer.isClosed() {
		m.fail(s, "the older connection lives on")
	}
	for _, packet := range s.peer.all() {
		if d, ok := packet.(*mqtt.Disconnect); ok && d.Reason != mqtt.SessionTakenOver {
			m.fail(s, "farewell %#x", byte(d.Reason))
		}
	}
}

// end forgets a session.
func (m *machine) end(s *modelSession) {
	if m.sessions[s.id] == s {
		delete(m.sessions, s.id)
	}
	m.leaveGroup(s)
}

// leaveGroup takes a session out of the shared group.
func (m *machine) leaveGroup(s *modelSession) {
	m.loosen(s)
	delete(s.subs, sharedFilter)
}

// loosen says that a member of the shared group is gone, or may be: what it
// had may be lost or come again elsewhere.
func (m *machine) loosen(s *modelSession) {
	if _, ok := s.subs[sharedFilter]; !ok {
		return
	}
	for _, message := range m.shared {
		message.loose = true
	}
}

// gone is the end of a connection.
func (m *machine) gone(s *modelSession) {
	s.peer, s.sent, s.zero, s.left = nil, 0, nil, time.Now()
	if s.expiry == 0 {
		m.end(s)
	}
}

func (m *machine) drop() {
	s := m.online()
	if s == nil {
		return
	}
	m.note("drop %s", s.id)
	s.peer.drop()
	m.gone(s)
}

func (m *machine) disconnect() {
	s := m.online()
	if s == nil {
		return
	}
	d := &mqtt.Disconnect{}
	if s.version == mqtt.V5 && s.expiry > 0 {
		if change := m.pick(4); change < 3 {
			s.expiry = []time.Duration{0, time.Minute, time.Hour}[change]
			d.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: uint32(s.expiry / time.Second)}
		}
	}
	m.note("disconnect %s, expiry %v", s.id, s.expiry)
	s.peer.send(d)
	s.peer.waitClosed()
	m.gone(s)
}

// filter picks a filter.
func (m *machine) filter() string {
	switch n := m.pick(modelTopics + 2); n {
	case modelTopics:
		if m.w.profile == topic.Standard && len(m.retained) > 0 {
			return "t/0" // retained messages would come in any order
		}
		return "t/+"
	case modelTopics + 1:
		return sharedFilter
	default:
		return fmt.Sprintf("t/%d", n)
	}
}

func (m *machine) subscribe() {
	s := m.online()
	if s == nil {
		return
	}
	filter, qos := m.filter(), byte(1-m.pick(4)/3)
	if filter == sharedFilter {
		qos = 1
	}
	m.note("subscribe %s to %s, QoS %d", s.id, filter, qos)
	s.peer.grants(mqtt.Subscription{Filter: filter, QoS: qos})
	s.subs[filter] = qos
	now := time.Now()
	r, ok := m.retained[filter]
	switch {
	case !ok || r.expired(now):
	case min(qos, m.retainedQoS[filter]) == 0:
		s.zero = append(s.zero, r.name+" "+r.payload)
	default:
		s.pending = append(s.pending, &expected{name: r.name, payload: r.payload, retain: true, expires: r.expires})
	}
}

func (m *machine) unsubscribe() {
	s := m.online()
	if s == nil {
		return
	}
	filter := m.filter()
	m.note("unsubscribe %s from %s", s.id, filter)
	s.peer.gives(filter)
	if filter == sharedFilter {
		m.leaveGroup(s)
	}
	delete(s.subs, filter)
}

func (m *machine) publish(retain bool) {
	m.count++
	name, payload, qos := "s", fmt.Sprint(m.count), byte(1-m.pick(4)/3)
	if n := m.pick(modelTopics + 1); n < modelTopics {
		name = fmt.Sprintf("t/%d", n)
	}
	who, seconds := m.pick(2), uint32(0)
	if who == 1 && name != "s" {
		seconds = []uint32{0, 0, 3, 45}[m.pick(4)]
	}
	retain = retain && name != "s"
	if retain && m.pick(3) == 0 {
		payload = ""
	}
	packet := plain(qos, name, payload)
	packet.Retain = retain
	var expires time.Time
	if seconds > 0 {
		packet.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropMessageExpiry), MessageExpiry: seconds}
		expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	m.note("publish %q to %s, QoS %d, retain %v, expiry %d s", payload, name, qos, retain, seconds)
	if name == "s" {
		m.shared[payload] = &sharing{owed: qos == 1 && m.keeps()}
	}
	m.publishers[who].publish(packet)
	if retain {
		delete(m.retained, name)
		if payload != "" {
			m.retained[name] = &expected{name: name, payload: payload, expires: expires}
			m.retainedQoS[name] = qos
		}
	}
	for _, s := range m.sessions {
		granted, ok := s.matches(name)
		switch {
		case !ok:
		case min(granted, qos) == 1:
			s.pending = append(s.pending, &expected{name: name, payload: payload, expires: expires})
		case s.connected():
			s.zero = append(s.zero, name+" "+payload)
		}
	}
}

// keeps reports whether the group certainly takes a message of QoS 1.
func (m *machine) keeps() bool {
	for _, s := range m.sessions {
		if _, ok := s.subs[sharedFilter]; ok && (s.connected() || s.expiry > 0 && !s.due(time.Now())) {
			return true
		}
	}
	return false
}

// acknowledge acknowledges one message in flight, or all of them.
func (m *machine) acknowledge() {
	s := m.online()
	if s == nil || s.sent == 0 {
		return
	}
	if m.pick(2) == 0 {
		i := m.pick(s.sent)
		m.note("%s acknowledges %d, %q", s.id, s.pending[i].id, s.pending[i].payload)
		s.peer.ack(s.pending[i].id)
		m.acknowledged(s.pending[i])
		s.pending = slices.Delete(s.pending, i, i+1)
		s.sent--
		return
	}
	m.note("%s acknowledges all", s.id)
	m.acknowledgeAll(s)
}

// acknowledged is the end of a message, for the group too.
func (m *machine) acknowledged(e *expected) {
	if e.name == "s" {
		m.shared[e.payload].over = true
	}
}

func (m *machine) acknowledgeAll(s *modelSession) {
	var all []uint16
	for _, e := range s.pending[:s.sent] {
		all = append(all, e.id)
		m.acknowledged(e)
	}
	s.pending, s.sent = slices.Delete(s.pending, 0, s.sent), 0
	s.peer.ack(all...)
}

// wait lets time pass, if there is some left.
func (m *machine) wait(d time.Duration) {
	if m.elapsed += d; m.elapsed > modelPatience {
		return
	}
	m.note("time passes")
	peers := slices.Clone(m.publishers[:])
	for _, s := range m.sessions {
		if s.connected() {
			peers = append(peers, s.peer)
		}
	}
	for ; d > 0; d -= modelStep {
		idle(min(d, modelStep), peers...)
		m.settle()
	}
}

// restart ends the broker, in good order or not, and starts another on what it kept.
func (m *machine) restart() {
	crash := m.pick(2) == 1
	m.note("restart, crash %v", crash)
	m.w.restart(crash)
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		s := m.sessions[id]
		if s.connected() {
			s.peer.waitClosed()
			m.gone(s)
		}
		m.rebase(s)
	}
	m.callPublishers()
}

// rebase tells a session of a new process, which numbers packets anew, and
// that what had been given to members of the shared group waits in it again.
func (m *machine) rebase(s *modelSession) {
	s.pending = slices.DeleteFunc(s.pending, func(e *expected) bool {
		e.id = 0
		if e.name == "s" {
			m.shared[e.payload].by = ""
		}
		return e.name == "s"
	})
}

// settle compares what every client has received, and what is to be seen from
// outside, with the model.
func (m *machine) settle() {
	now := time.Now()
	for _, s := range m.sessions {
		switch {
		case s.over(now):
			m.end(s)
		case s.due(now):
			m.loosen(s)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		s := m.sessions[id]
		if s == nil || !s.connected() {
			continue
		}
		s.expire(now)
		for _, p := range s.peer.publishes() {
			m.receive(s, p, now)
		}
		if s.peer.isClosed() {
			m.fail(s, "the connection has ended")
		}
		if len(s.zero) > 0 {
			m.fail(s, "of QoS 0 %q did not come", s.zero)
		}
		if s.sent < len(s.pending) && s.sent < s.window {
			m.fail(s, "%q of %s did not come, %d of %d in flight", s.pending[s.sent].payload, s.pending[s.sent].name, s.sent, s.window)
		}
	}
	m.compare(now)
}

// expire removes what may not be sent any more.
func (s *modelSession) expire(now time.Time) {
	rest := slices.DeleteFunc(slices.Clone(s.pending[s.sent:]), func(e *expected) bool { return e.expired(now) })
	s.pending = append(s.pending[:s.sent:s.sent], rest...)
}

// receive checks one message.
func (m *machine) receive(s *modelSession, p *mqtt.Publish, now time.Time) {
	m.w.t.Helper()
	name, payload := string(p.Topic), string(p.Payload)
	if name == "s" {
		m.receiveShared(s, p)
		if p.QoS == 0 {
			return
		}
	}
	if p.QoS == 0 {
		if len(s.zero) == 0 || s.zero[0] != name+" "+payload {
			m.fail(s, "%s %q of QoS 0, expected %q", name, payload, s.zero)
		}
		s.zero = s.zero[1:]
		return
	}
	if i := slices.IndexFunc(s.pending[:s.sent], func(e *expected) bool { return e.id == p.PacketID }); i >= 0 {
		m.repeated(s, s.pending[i], p, now)
		return
	}
	if s.sent == s.window { // an expired message may have made room
		i := slices.IndexFunc(s.pending[:s.sent], func(e *expected) bool { return e.expired(now) })
		if i < 0 {
			m.fail(s, "%s %q beyond the window of %d", name, payload, s.window)
		}
		s.pending = slices.Delete(s.pending, i, i+1)
		s.sent--
	}
	if name == "s" && (s.sent == len(s.pending) || s.pending[s.sent].name != name || s.pending[s.sent].payload != payload) {
		s.pending = slices.Insert(s.pending, s.sent, &expected{name: name, payload: payload})
	}
	if s.sent == len(s.pending) {
		m.fail(s, "%s %q is not expected", name, payload)
	}
	e := s.pending[s.sent]
	before := e.id != 0
	if e.name != name || e.payload != payload || e.retain != p.Retain {
		m.fail(s, "%s %q retain %v, expected %s %q retain %v", name, payload, p.Retain, e.name, e.payload, e.retain)
	}
	if before && e.id != p.PacketID {
		m.fail(s, "%s %q has packet id %d, before %d", name, payload, p.PacketID, e.id)
	}
	if p.Dup != (before && m.w.profile == topic.Standard) {
		m.fail(s, "%s %q: DUP %v, sent before %v", name, payload, p.Dup, before)
	}
	for _, other := range s.pending {
		if other != e && other.id == p.PacketID {
			m.fail(s, "packet id %d is that of %q", p.PacketID, other.payload)
		}
	}
	e.id, e.sentAt = p.PacketID, now
	s.sent++
}

// repeated checks a repetition on the same connection.
func (m *machine) repeated(s *modelSession, e *expected, p *mqtt.Publish, now time.Time) {
	m.w.t.Helper()
	if e.name != string(p.Topic) || e.payload != string(p.Payload) {
		m.fail(s, "packet id %d is %s %q, before %s %q", p.PacketID, p.Topic, p.Payload, e.name, e.payload)
	}
	if m.w.profile == topic.Standard || p.Dup {
		m.fail(s, "%s %q is repeated on a living connection, DUP %v", p.Topic, p.Payload, p.Dup)
	}
	if now.Sub(e.sentAt) < 19*time.Second-modelStep {
		m.fail(s, "%s %q is repeated within %v", p.Topic, p.Payload, now.Sub(e.sentAt))
	}
}

// receiveShared checks a message to the group.
func (m *machine) receiveShared(s *modelSession, p *mqtt.Publish) {
	m.w.t.Helper()
	message := m.shared[string(p.Payload)]
	switch {
	case message == nil:
		m.fail(s, "shared message %q was never published", p.Payload)
	case message.over && !message.loose && p.QoS > 0:
		m.fail(s, "shared message %q was acknowledged by %s before", p.Payload, message.by)
	case message.by == "":
		message.by = s.id
	case message.by != s.id && !message.loose:
		m.fail(s, "shared message %q went to %s before", p.Payload, message.by)
	}
}

// compare looks at the broker from outside.
func (m *machine) compare(now time.Time) {
	m.w.t.Helper()
	here, errs := m.seen.here()
	for _, err := range errs {
		m.w.t.Fatal(err)
	}
	for i := range modelClients {
		id := string(rune('a' + i))
		s := m.sessions[id]
		connected := s != nil && s.connected()
		if (len(here[id]) == 1) != connected || len(here[id]) > 1 {
			m.w.t.Fatalf("%s: the observer knows %d connections, connected is %v", id, len(here[id]), connected)
		}
		info, ok := m.w.stored(id)
		if s == nil && ok || s != nil && !ok && !s.due(now) || ok && info.Connected != connected {
			m.w.t.Fatalf("%s: Connection answers %v %+v, the model has %+v", id, ok, info, s)
		}
		if connected {
			if session := here[id][0].SessionID; s.told == "" {
				s.told = session
			} else if s.told != session {
				m.fail(s, "session id %s, before %s", session, s.told)
			}
		}
		if s == nil || s.due(now) {
			continue
		}
		var want []string
		for _, filter := range slices.Sorted(maps.Keys(s.subs)) {
			want = append(want, fmt.Sprintf("%s %d", filter, s.subs[filter]))
		}
		if got := m.w.filters(id); !slices.Equal(got, want) {
			m.fail(s, "subscriptions %q, want %q", got, want)
		}
	}
	for i := range modelTopics {
		name := fmt.Sprintf("t/%d", i)
		want, ok := m.retained[name]
		if ok && want.expired(now) {
			want, ok = nil, false
		}
		got, retained := m.w.broker.Retained(account, name)
		if retained != ok || ok && string(got.Payload) != want.payload {
			m.w.t.Fatalf("%s retains %v %q, want %+v", name, retained, got.Payload, want)
		}
	}
}

// finish lets everybody who has a session come back and take what is owed.
func (m *machine) finish() {
	m.note("finish")
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		s := m.sessions[id]
		if s.due(time.Now()) {
			m.end(s) // it may have ended, and what it shared with it
			continue
		}
		if s.connected() {
			continue
		}
		c := connectPacket(s.version, id, resuming(uint32(s.expiry/time.Second)))
		p := m.w.dial(s.version)
		p.send(c)
		if ack, ok := p.next().(*mqtt.Connack); !ok || !ack.SessionPresent {
			m.fail(s, "session is not present: %+v", ack)
		}
		s.peer, s.window, s.sent = p, modelWindow, 0
		m.settle()
	}
	for range 2 { // the queue of a group may be paced
		for {
			busy := false
			for _, s := range m.sessions {
				if s.connected() && s.sent > 0 {
					busy = true
					m.acknowledgeAll(s)
				}
			}
			m.settle()
			if !busy {
				break
			}
		}
		m.elapsed = 0
		m.wait(2100 * time.Millisecond)
		m.settle()
	}
	for payload, message := range m.shared {
		if message.owed && !message.loose && message.by == "" {
			m.w.t.Errorf("shared message %q is lost", payload)
		}
	}
}

// FuzzSessions runs operations of clients, as the input chooses them, against
// the broker and a small model of what sessions are.
func FuzzSessions(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomInput(seed, 200))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		runMachine(t, input[:min(len(input), 2000)])
	})
}

// randomInput returns bytes without sense, the same for a seed.
func randomInput(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// Whatever clients do, sessions behave as the model says. MUSTER_RUNS sets
// another number of runs.
func TestSessionsBehaveLikeTheModel(t *testing.T) {
	t.Parallel()
	runs := uint64(60)
	if text := os.Getenv("MUSTER_RUNS"); text != "" {
		var err error
		if runs, err = strconv.ParseUint(text, 10, 32); err != nil {
			t.Fatalf("MUSTER_RUNS: %v", err)
		}
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runMachine(t, randomInput(100+seed, 600))
		})
	}
}
