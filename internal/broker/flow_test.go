package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Acknowledgements of a service that takes its time leave in the order of the
// publishes, and nothing else waits for them.
func TestDeferredAcknowledgements(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V311, "c")
		p.subscribe(mqtt.Subscription{Filter: "$aws/things/#"})
		publish := func(id uint16, name string) *mqtt.Publish {
			return &mqtt.Publish{QoS: 1, PacketID: id, Topic: []byte(name)}
		}
		p.send(publish(1, "a"), publish(2, "$aws/things/x/later"), publish(3, "b"), publish(4, "$aws/things/y/later"),
			publish(5, "$aws/things/z/now"), &mqtt.Pingreq{})
		if diff := cmp.Diff([]string{"PUBACK 1", "PUBLISH", "PUBLISH", "PUBLISH", "PINGRESP"}, outline(p)); diff != "" {
			t.Errorf("at first (-want +got):\n%s", diff)
		}
		w.service.finish(1, nil)
		if got := outline(p); got != nil {
			t.Errorf("out of order: %q", got)
		}
		w.service.finish(0, nil)
		if diff := cmp.Diff([]string{"PUBACK 2", "PUBACK 3", "PUBACK 4", "PUBACK 5"}, outline(p)); diff != "" {
			t.Errorf("at last (-want +got):\n%s", diff)
		}
		got := w.service.taken()[0]
		got.ReplyTo = nil
		want := &broker.Publish{
			Account: account, Principal: got.Principal, ClientID: "c", SessionID: w.seen.connected[0].SessionID,
			ConnectionID: w.seen.connected[0].ConnectionID, Indexed: w.seen.connected[0].Indexed, RemoteAddr: "pipe",
			Topic: "$aws/things/x/later", QoS: 1,
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
	})
}

// The acknowledgement of a request and its answers to the same client leave in
// one write, in this order.
func TestAnswersLeaveWithTheAcknowledgement(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V311, "c")
		p.subscribe(mqtt.Subscription{Filter: "answers/+", QoS: 1})
		p.send(&mqtt.Publish{QoS: 1, PacketID: 7, Topic: []byte("$aws/things/x/later")})
		if got := outline(p); got != nil {
			t.Fatalf("before the end: %q", got)
		}
		before := p.writes.Load()
		w.service.finish(0, nil, broker.Message{Topic: "answers/1", QoS: 1}, broker.Message{Topic: "bad/+"}, broker.Message{Topic: "answers/2", QoS: 1})
		if diff := cmp.Diff([]string{"PUBACK 7", "PUBLISH", "PUBLISH"}, outline(p)); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
		if writes := p.writes.Load() - before; writes != 1 {
			t.Errorf("in %d writes", writes)
		}
	})
}

// outline names the packets that were received.
func outline(p *peer) []string {
	var lines []string
	for _, packet := range p.all() {
		line := packet.Type().String()
		if a, ok := packet.(*mqtt.Ack); ok {
			line = fmt.Sprintf("%s %d", line, a.PacketID)
		}
		lines = append(lines, line)
	}
	return lines
}

// The end of a connection does not wait for a service, and a late answer finds
// nobody.
func TestServiceAnswersTooLate(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V311, "c")
		p.send(message(1, "$aws/things/x/later", ""))
		synctest.Wait()
		_ = p.conn.Close()
		synctest.Wait()
		w.service.finish(0, nil)
		w.service.taken()[0].Reply("$aws/things/x/accepted", nil)
		if diff := cmp.Diff([]ending{{"c", broker.ReasonConnectionLost, false}}, w.seen.ends()); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	})
}

// Answers of jobs and provisioning go to the requesting connection alone,
// subscribed or not, once.
func TestReply(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		asker, subscribed, other := w.connect(mqtt.V311, "asker"), w.connect(mqtt.V5, "subscribed"), w.connect(mqtt.V311, "other")
		subscribed.subscribe(mqtt.Subscription{Filter: "$aws/things/#", QoS: 1})
		other.subscribe(mqtt.Subscription{Filter: "$aws/things/x/answer"})
		asker.send(message(0, "$aws/things/x/get", ""))
		subscribed.send(message(0, "$aws/things/x/get", ""))
		subscribed.all() // its own request comes back through the subscription
		for _, p := range w.service.taken() {
			p.Reply("$aws/things/x/answer", []byte("y"))
		}
		if diff := cmp.Diff([]string{"$aws/things/x/answer y"}, asker.messages()); diff != "" {
			t.Errorf("asker (-want +got):\n%s", diff)
		}
		got := subscribed.all()
		if len(got) != 1 || got[0].(*mqtt.Publish).QoS != 1 {
			t.Errorf("subscribed: %+v", got)
		}
		if got := other.messages(); got != nil {
			t.Errorf("other: %q", got)
		}
		w.gate.refuse("receive $aws/things/x/answer")
		w.service.taken()[0].Reply("$aws/things/x/answer", nil)
		if got := asker.messages(); got != nil {
			t.Errorf("without permission: %q", got)
		}
	})
}

// A will to a reserved topic reaches subscribers and not the service.
func TestWillIsNoRequest(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		sub := w.connect(mqtt.V311, "sub")
		sub.subscribe(mqtt.Subscription{Filter: "$aws/things/#"})
		p := w.connect(mqtt.V311, "c", withWill("$aws/things/x/shadow/update"))
		_ = p.conn.Close()
		if diff := cmp.Diff([]string{"$aws/things/x/shadow/update gone"}, sub.messages()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if got := w.service.taken(); len(got) != 0 {
			t.Errorf("service got %+v", got)
		}
	})
}

// More than 100 unacknowledged publishes: MQTT 5 is told, 3.1.1 is made to
// wait.
func TestReceiveMaximum(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		flood := make([]mqtt.Packet, 150)
		for i := range flood {
			flood[i] = &mqtt.Publish{QoS: 1, PacketID: uint16(i + 1), Topic: []byte("$aws/things/x/later")}
		}
		five := w.connect(mqtt.V5, "five")
		five.send(flood...)
		if d, ok := five.next().(*mqtt.Disconnect); !ok || d.Reason != mqtt.ReceiveMaximumExceeded {
			t.Errorf("DISCONNECT %+v", d)
		}
		began := len(w.service.taken())
		old := w.connect(mqtt.V311, "old")
		old.send(flood...)
		synctest.Wait()
		if got := len(w.service.taken()) - began; got != 100 {
			t.Errorf("%d taken in", got)
		}
		for i := range 150 {
			w.service.finish(began+i, nil)
			synctest.Wait()
		}
		acks := outline(old)
		if len(acks) != 150 || acks[149] != "PUBACK 150" {
			t.Errorf("%d acknowledgements", len(acks))
		}
		// A reader that waits for the service can be dismissed.
		stuck := w.connect(mqtt.V311, "stuck")
		stuck.send(flood...)
		w.broker.Disconnect(account, "stuck", broker.ReasonAPIInitiated)
		if !stuck.isClosed() {
			t.Error("waiting reader does not end")
		}
	})
}

// The window to a client is never exceeded; what comes then waits in order, in
// a bounded queue.
func TestWindowAndQueue(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		sub := w.connect(mqtt.V5, "sub", func(c *mqtt.Connect) {
			c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropReceiveMaximum), ReceiveMaximum: 2}
		})
		sub.subscribe(mqtt.Subscription{Filter: "#", QoS: 1})
		pub := w.connect(mqtt.V311, "pub")
		for i := range 10 {
			pub.send(message(1, "a", fmt.Sprint(i)))
		}
		pub.send(message(0, "a", "QoS 0 passes"))
		want := []string{"0", "1", "QoS 0 passes"} // then 2 to 5; the newest found the queue full
		var ids []uint16
		for _, text := range want {
			m, ok := sub.next().(*mqtt.Publish)
			if !ok || string(m.Payload) != text {
				t.Fatalf("received %+v, want %s", m, text)
			}
			ids = append(ids, m.PacketID)
		}
		if p := sub.next(); p != nil {
			t.Fatalf("beyond the window: %+v", p)
		}
		// Acknowledged out of order.
		sub.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: ids[1]})
		sub.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: ids[0]})
		for _, text := range []string{"2", "3", "4", "5"} {
			m, ok := sub.next().(*mqtt.Publish)
			if !ok || string(m.Payload) != text {
				t.Fatalf("received %+v, want %s", m, text)
			}
			sub.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: m.PacketID})
		}
		if p := sub.next(); p != nil {
			t.Errorf("more than the queue held: %+v", p)
		}
	}, limits(func(l *broker.Limits) { l.MaxQueue = 4 }))
}

// A queued message leaves with what is left of its expiry, or not at all.
func TestQueuedMessageExpires(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		sub := w.connect(mqtt.V5, "sub")
		sub.subscribe(mqtt.Subscription{Filter: "a", QoS: 1})
		pub := w.connect(mqtt.V5, "pub")
		for _, expiry := range []uint32{100, 5, 100} {
			pub.send(&mqtt.Publish{QoS: 1, PacketID: 1, Topic: []byte("a"), Properties: mqtt.Properties{
				Set: mqtt.Of(mqtt.PropMessageExpiry), MessageExpiry: expiry,
			}})
		}
		first, _ := sub.next().(*mqtt.Publish)
		time.Sleep(10 * time.Second)
		sub.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: first.PacketID})
		m, ok := sub.next().(*mqtt.Publish)
		if !ok || m.Properties.MessageExpiry != 90 {
			t.Errorf("received %+v", m)
		}
		if p := sub.next(); p != nil {
			t.Errorf("expired message was sent: %+v", p)
		}
	}, limits(func(l *broker.Limits) { l.MaxInflight = 1 }))
}

// A subscriber that does not read costs a bounded amount, loses QoS 0 first,
// and is given up; the publisher notices nothing.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		slow := w.dialSilent(mqtt.V311)
		slow.sendLater(connectPacket(mqtt.V311, "slow"), &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
		for got := 0; got < 4+5; { // CONNACK and SUBACK
			n, err := slow.conn.Read(make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		pub := w.connect(mqtt.V311, "pub")
		payload := string(make([]byte, 1000))
		for i := range 300 {
			pub.send(message(byte(i%2), "a", payload))
		}
		if got := len(pub.all()); got != 150 {
			t.Errorf("%d acknowledgements", got)
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]ending{{"slow", broker.ReasonConnectionLost, false}}, w.seen.ends()); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	}, limits(func(l *broker.Limits) { l.MaxPending, l.MaxQueue = 64<<10, 20 }))
}

// A client that sends and never reads its answers is bounded as well.
func TestAnswersHaveABound(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.dialSilent(mqtt.V311)
		p.sendLater(connectPacket(mqtt.V311, "c"))
		if _, err := p.conn.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		pings := make([]byte, 0, 4096)
		for range 2048 {
			pings = append(pings, 0xC0, 0)
		}
		for range 10 {
			p.raw(pings)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]ending{{"c", broker.ReasonThrottled, false}}, w.seen.ends()); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	}, limits(func(l *broker.Limits) { l.MaxPending = 4096 }))
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		var peers []*peer
		for range 5 {
			p := w.connect(mqtt.V5, "c")
			p.subscribe(mqtt.Subscription{Filter: "a"})
			peers = append(peers, p)
		}
		for _, p := range peers[:4] {
			checkFarewell(t, p, mqtt.SessionTakenOver)
		}
		w.connect(mqtt.V311, "pub").send(message(0, "a", "x"))
		if diff := cmp.Diff([]string{"a x"}, peers[4].messages()); diff != "" {
			t.Errorf("newest (-want +got):\n%s", diff)
		}
		if got := len(w.broker.Sessions(account)); got != 2 {
			t.Errorf("%d sessions", got)
		}
		if got := w.gate.guards(); got != 2 {
			t.Errorf("%d guards are open", got)
		}
		seen := map[string]bool{}
		for _, s := range w.seen.connected {
			seen[s.SessionID] = true
		}
		if len(seen) != 6 {
			t.Errorf("%d session ids", len(seen))
		}
	})
}
