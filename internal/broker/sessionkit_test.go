package broker_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// versions are both protocol families.
var versions = map[string]mqtt.Version{"3.1.1": mqtt.V311, "5": mqtt.V5}

// eachVersion runs a test for both protocol families.
func eachVersion(t *testing.T, test func(t *testing.T, v mqtt.Version)) {
	t.Helper()
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

// resuming asks for the stored session and for one that outlives the
// connection: for seconds in MQTT 5, for the server's time before.
func resuming(seconds uint32) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		c.CleanStart = false
		expiring(seconds)(c)
	}
}

// expiring sets the session expiry of MQTT 5 and nothing else.
func expiring(seconds uint32) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		if c.Version == mqtt.V5 {
			c.Properties.Set |= mqtt.Of(mqtt.PropSessionExpiry)
			c.Properties.SessionExpiry = seconds
		}
	}
}

// receiving sets the receive maximum of MQTT 5.
func receiving(n uint16) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		if c.Version == mqtt.V5 {
			c.Properties.Set |= mqtt.Of(mqtt.PropReceiveMaximum)
			c.Properties.ReceiveMaximum = n
		}
	}
}

// attach connects and demands acceptance and the given answer to whether
// there was a session.
func (w *world) attach(v mqtt.Version, id string, present bool, change ...func(*mqtt.Connect)) (*peer, *mqtt.Connack) {
	w.t.Helper()
	p := w.dial(v)
	p.send(connectPacket(v, id, change...))
	got, ok := p.next().(*mqtt.Connack)
	if !ok || got.Reason != mqtt.Success {
		w.t.Fatalf("%s is not accepted: %+v", id, got)
	}
	if got.SessionPresent != present {
		w.t.Fatalf("%s: session present %v, want %v", id, got.SessionPresent, present)
	}
	return p, got
}

// leave disconnects in order.
func (p *peer) leave() {
	p.t.Helper()
	p.send(&mqtt.Disconnect{})
	p.waitClosed()
}

// drop ends the connection without a word.
func (p *peer) drop() {
	p.t.Helper()
	_ = p.conn.Close()
	p.waitClosed()
}

// waitClosed demands that the broker lets go.
func (p *peer) waitClosed() {
	p.t.Helper()
	if !p.isClosed() {
		p.t.Fatal("the connection lives on")
	}
}

// ack acknowledges packet ids in one write.
func (p *peer) ack(ids ...uint16) {
	p.t.Helper()
	packets := make([]mqtt.Packet, len(ids))
	for i, id := range ids {
		packets[i] = &mqtt.Ack{Kind: mqtt.TypePuback, PacketID: id}
	}
	if len(packets) > 0 {
		p.send(packets...)
	}
}

// publishes takes what was received and fails for anything but messages.
func (p *peer) publishes() []*mqtt.Publish {
	p.t.Helper()
	var got []*mqtt.Publish
	for _, packet := range p.all() {
		m, ok := packet.(*mqtt.Publish)
		if !ok {
			p.t.Errorf("%s %+v among the messages", packet.Type(), packet)
			continue
		}
		got = append(got, m)
	}
	return got
}

// drain receives and acknowledges until nothing comes any more, and demands
// that no more than window messages are unacknowledged at any time.
func (p *peer) drain(window int) []*mqtt.Publish {
	p.t.Helper()
	var got []*mqtt.Publish
	for {
		fresh := p.publishes()
		if len(fresh) == 0 {
			return got
		}
		got = append(got, fresh...)
		var ids []uint16
		for _, m := range fresh {
			if m.QoS == 0 {
				continue
			}
			if slices.Contains(ids, m.PacketID) {
				p.t.Fatalf("packet id %d is used twice at once", m.PacketID)
			}
			ids = append(ids, m.PacketID)
		}
		if len(ids) > window {
			p.t.Fatalf("%d messages unacknowledged, the window is %d", len(ids), window)
		}
		p.ack(ids...)
	}
}

// payloads returns the payloads.
func payloads(ms []*mqtt.Publish) []string {
	var texts []string
	for _, m := range ms {
		texts = append(texts, string(m.Payload))
	}
	return texts
}

// packetIDs returns the packet ids.
func packetIDs(ms []*mqtt.Publish) []uint16 {
	var all []uint16
	for _, m := range ms {
		all = append(all, m.PacketID)
	}
	return all
}

// numbers returns the decimal texts from first up to, and without, end.
func numbers(first, end int) []string {
	var all []string
	for i := first; i < end; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

// burst is how many publishes of QoS 1 a test leaves unacknowledged.
const burst = 50

// publishNumbers publishes numbers with QoS 1 and demands an acknowledgement
// for each before it returns.
func (p *peer) publishNumbers(name string, first, end int) {
	p.t.Helper()
	for first < end {
		n := min(burst, end-first)
		packets := make([]mqtt.Packet, n)
		for i := range packets {
			packets[i] = &mqtt.Publish{QoS: 1, PacketID: uint16(i + 1), Topic: []byte(name), Payload: []byte(strconv.Itoa(first + i))}
		}
		p.send(packets...)
		p.acknowledged(n)
		first += n
	}
}

// acknowledged demands n good acknowledgements for the packet ids from 1, in
// order, and nothing else.
func (p *peer) acknowledged(n int) {
	p.t.Helper()
	got := p.all()
	for i, packet := range got {
		if a, ok := packet.(*mqtt.Ack); !ok || a.Kind != mqtt.TypePuback || a.Reason.Failed() || int(a.PacketID) != i+1 {
			p.t.Fatalf("acknowledgement %d: %s %+v", i+1, packet.Type(), packet)
		}
	}
	if len(got) != n {
		p.t.Fatalf("%d acknowledgements, want %d", len(got), n)
	}
}

// publish publishes one message and demands its acknowledgement if it has one.
func (p *peer) publish(m *mqtt.Publish) {
	p.t.Helper()
	if m.QoS == 0 {
		p.send(m)
		p.acknowledged(0)
		return
	}
	m.PacketID = 1
	p.send(m)
	p.acknowledged(1)
}

// plain returns a message to publish.
func plain(qos byte, name, payload string) *mqtt.Publish {
	return &mqtt.Publish{QoS: qos, Topic: []byte(name), Payload: []byte(payload)}
}

// retained returns a message to be retained.
func retained(qos byte, name, payload string) *mqtt.Publish {
	m := plain(qos, name, payload)
	m.Retain = true
	return m
}

// expiringMessage returns a message with an expiry.
func expiringMessage(qos byte, name, payload string, seconds uint32) *mqtt.Publish {
	m := plain(qos, name, payload)
	m.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropMessageExpiry), MessageExpiry: seconds}
	return m
}

// idle lets virtual time pass with every peer saying something often enough
// to stay. Answers to the pings are not kept.
func idle(d time.Duration, peers ...*peer) {
	const step = 5 * time.Minute
	for d > 0 {
		n := min(d, step)
		time.Sleep(n)
		d -= n
		for _, p := range peers {
			p.send(&mqtt.Pingreq{})
			p.forgetPong()
		}
	}
}

// forgetPong waits and takes the answers to pings out of what was received.
func (p *peer) forgetPong() {
	kept := slices.DeleteFunc(p.all(), func(packet mqtt.Packet) bool { return packet.Type() == mqtt.TypePingresp })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(kept, p.got...)
}

// grants demands that a subscription is granted as it was asked for.
func (p *peer) grants(subs ...mqtt.Subscription) {
	p.t.Helper()
	p.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: subs})
	s, ok := p.next().(*mqtt.Suback)
	if !ok || len(s.Reasons) != len(subs) {
		p.t.Fatalf("SUBACK %+v", s)
	}
	for i, code := range s.Reasons {
		if code != mqtt.ReasonCode(subs[i].QoS) {
			p.t.Fatalf("%s: code %#x, want QoS %d", subs[i].Filter, byte(code), subs[i].QoS)
		}
	}
}

// gives unsubscribes and demands the answer.
func (p *peer) gives(filters ...string) {
	p.t.Helper()
	p.send(&mqtt.Unsubscribe{PacketID: 1, Filters: filters})
	if u, ok := p.next().(*mqtt.Unsuback); !ok {
		p.t.Fatalf("UNSUBACK %+v", u)
	}
}

// hears demands that exactly these messages wait, as "topic payload".
func (p *peer) hears(want ...string) {
	p.t.Helper()
	got := p.messages()
	if !slices.Equal(got, want) {
		p.t.Fatalf("received %q, want %q", got, want)
	}
}

// stored returns the connection or stored session of a client.
func (w *world) stored(id string) (broker.ConnectionInfo, bool) {
	return w.broker.Connection(account, id)
}

// filters lists a client's subscriptions as "filter qos".
func (w *world) filters(id string) []string {
	w.t.Helper()
	var all []string
	for after := ""; ; {
		page, next, ok := w.broker.Subscriptions(account, id, after, 2)
		if !ok {
			return nil
		}
		for _, s := range page {
			all = append(all, fmt.Sprintf("%s %d", s.Filter, s.QoS))
		}
		if next == "" {
			return all
		}
		after = next
	}
}

// elsewhere puts everybody into another account.
func elsewhere(string) fleet.Account { return "111111111111" }
