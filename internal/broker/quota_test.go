package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// quotas sets one world's quotas.
func quotas(q broker.Quotas) func(*broker.Options) {
	return func(o *broker.Options) { o.Quotas = q }
}

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

// publishAll sends messages with increasing packet ids and returns the codes of
// their acknowledgements.
func publishAll(p *peer, qos byte, name string, n int) []mqtt.ReasonCode {
	p.t.Helper()
	var codes []mqtt.ReasonCode
	for i := range n {
		m := message(qos, name, fmt.Sprint(i))
		if qos > 0 {
			m.PacketID = uint16(i + 1)
		}
		p.send(m)
	}
	for _, packet := range p.all() {
		if ack, ok := packet.(*mqtt.Ack); ok {
			codes = append(codes, ack.Reason)
		}
	}
	return codes
}

// count returns how many times each code occurs.
func count(codes []mqtt.ReasonCode) map[mqtt.ReasonCode]int {
	n := map[mqtt.ReasonCode]int{}
	for _, code := range codes {
		n[code]++
	}
	return n
}

// TestPublishesOfOneConnection publishes more than the quota: MQTT 5 is told,
// 3.1.1 gets no answer, nothing refused is delivered, and a second later there
// is room again.
func TestPublishesOfOneConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		sink := w.connect(mqtt.V5, "sink")
		for _, c := range []struct {
			version mqtt.Version
			want    map[mqtt.ReasonCode]int
		}{
			{mqtt.V5, map[mqtt.ReasonCode]int{mqtt.Success: 10, mqtt.QuotaExceeded: 5}},
			{mqtt.V311, map[mqtt.ReasonCode]int{mqtt.Success: 10}},
		} {
			name := fmt.Sprintf("from/%d", c.version)
			sink.subscribe(mqtt.Subscription{Filter: name})
			p := w.connect(c.version, name)
			if diff := cmp.Diff(c.want, count(publishAll(p, 1, name, 15))); diff != "" {
				w.t.Errorf("version %d (-want +got):\n%s", c.version, diff)
			}
			if got := len(sink.messages()); got != 10 {
				w.t.Errorf("version %d: %d messages delivered", c.version, got)
			}
			pass(time.Second)
			publishAll(p, 0, name, 15)
			if got := len(sink.messages()); got != 10 {
				w.t.Errorf("version %d: %d of quality of service 0 delivered", c.version, got)
			}
			if p.isClosed() {
				w.t.Errorf("version %d: connection has ended", c.version)
			}
			pass(time.Second)
		}
	}, quotas(broker.Quotas{ConnectionPublishes: 10}))
}

// TestSustainedAbuseEnds publishes at ten times the quota until the server has
// had enough; a client at one and a half times stays.
func TestSustainedAbuseEnds(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		abuser, busy := w.connect(mqtt.V5, "abuser"), w.connect(mqtt.V311, "busy")
		for second := range 60 {
			publishAll(busy, 0, "a", 15)
			if !abuser.isClosed() {
				publishAll(abuser, 0, "a", 100)
			} else if second < 1 {
				w.t.Errorf("ended after %d seconds", second)
			}
			pass(time.Second)
		}
		if busy.isClosed() || !abuser.isClosed() {
			w.t.Errorf("one and a half times the quota closed: %v, ten times: %v", busy.isClosed(), abuser.isClosed())
		}
		if diff := cmp.Diff([]ending{{"abuser", broker.ReasonThrottled, false}}, w.seen.ends()); diff != "" {
			w.t.Errorf("ends (-want +got):\n%s", diff)
		}
	}, quotas(broker.Quotas{ConnectionPublishes: 10}))
}

// TestDeliveriesOfOneConnection floods a subscriber: quality of service 0 is
// dropped, 1 comes later and whole and in order.
func TestDeliveriesOfOneConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		sink := w.connect(mqtt.V311, "sink")
		sink.subscribe(mqtt.Subscription{Filter: "zero"}, mqtt.Subscription{Filter: "one", QoS: 1})
		send := func(qos byte, name string, n int) {
			for i := range n {
				if err := w.broker.Publish(w.t.Context(), account, broker.Message{Topic: name, Payload: fmt.Append(nil, i), QoS: qos}); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		send(0, "zero", 30)
		if got := len(sink.messages()); got != 10 {
			w.t.Errorf("%d messages of quality of service 0", got)
		}
		pass(time.Second)
		send(1, "one", 35)
		var got []string
		arrived := []int{}
		for range 5 {
			batch := sink.messages()
			arrived = append(arrived, len(batch))
			got = append(got, batch...)
			for range batch {
				// Acknowledged as they come, so that only the quota holds them back.
				sink.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: uint16(len(got) - len(batch) + 1)})
				batch = batch[1:]
			}
			pass(time.Second)
		}
		want := make([]string, 35)
		for i := range want {
			want[i] = fmt.Sprintf("one %d", i)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Errorf("messages (-want +got):\n%s", diff)
		}
		for i, n := range arrived {
			if n > 11 {
				w.t.Errorf("%d messages in second %d: %v", n, i, arrived)
			}
		}
	}, quotas(broker.Quotas{ConnectionPublishes: 10}))
}

// TestBytesOfOneConnectionAreDelayed sends more bytes than the quota: nothing
// is lost, it takes its time, and the keep-alive does not strike.
func TestBytesOfOneConnectionAreDelayed(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		sink := w.connect(mqtt.V311, "sink")
		sink.subscribe(mqtt.Subscription{Filter: "a"})
		p := w.connect(mqtt.V311, "sender", func(c *mqtt.Connect) { c.KeepAlive = 30 })
		payload := string(make([]byte, 10_000))
		begun := time.Now()
		for range 60 {
			p.send(message(0, "a", payload))
		}
		took := time.Since(begun)
		if took < 55*time.Second || took > 65*time.Second {
			w.t.Errorf("600 kB at 10 kB/s were read in %v", took)
		}
		pass(15 * time.Second)
		if got := len(sink.messages()); got != 60 || p.isClosed() {
			w.t.Errorf("%d messages delivered, closed %v", got, p.isClosed())
		}
	}, quotas(broker.Quotas{ConnectionBytes: 10_000}))
}

// TestQuotasOfAnAccount shares quotas between the clients of one account and
// leaves another alone.
func TestQuotasOfAnAccount(t *testing.T) {
	t.Parallel()
	const other fleet.Account = "111111111111"
	inWorld(t, topic.AWS, func(w *world) {
		w.gate.accountOf = func(clientID string) fleet.Account {
			if clientID == "other" {
				return other
			}
			return account
		}
		a, b, o := w.connect(mqtt.V5, "a"), w.connect(mqtt.V5, "b"), w.connect(mqtt.V5, "other")
		publishAll(a, 1, "x", 6)
		want := map[mqtt.ReasonCode]int{mqtt.Success: 4, mqtt.QuotaExceeded: 2}
		if diff := cmp.Diff(want, count(publishAll(b, 1, "x", 6))); diff != "" {
			w.t.Errorf("second client (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[mqtt.ReasonCode]int{mqtt.Success: 6}, count(publishAll(o, 1, "x", 6))); diff != "" {
			w.t.Errorf("another account (-want +got):\n%s", diff)
		}
		pass(time.Second)
		retained := func(n int) (codes []mqtt.ReasonCode) {
			for i := range n {
				m := message(1, fmt.Sprintf("kept/%d", i), "x")
				m.Retain, m.PacketID = true, uint16(i+1)
				a.send(m)
			}
			for _, packet := range a.all() {
				if ack, ok := packet.(*mqtt.Ack); ok {
					codes = append(codes, ack.Reason)
				}
			}
			return codes
		}
		if diff := cmp.Diff(map[mqtt.ReasonCode]int{mqtt.Success: 3, mqtt.QuotaExceeded: 2}, count(retained(5))); diff != "" {
			w.t.Errorf("retained (-want +got):\n%s", diff)
		}
		pass(time.Second)
		sink := w.connect(mqtt.V311, "sink")
		sink.subscribe(mqtt.Subscription{Filter: "out"})
		for range 20 {
			if err := w.broker.Publish(w.t.Context(), account, broker.Message{Topic: "out"}); err != nil {
				w.t.Fatal(err)
			}
		}
		if got := len(sink.messages()); got != 5 {
			w.t.Errorf("%d messages out", got)
		}
	}, quotas(broker.Quotas{AccountPublishesIn: 10, AccountPublishesOut: 5, AccountRetains: 3}))
}

// TestSubscriptionsOfAnAccount bounds new subscriptions per second and those
// that are held; what is given up or replaced makes room.
func TestSubscriptionsOfAnAccount(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, old := w.connect(mqtt.V5, "p"), w.connect(mqtt.V311, "old")
		subs := func(names ...string) (all []mqtt.Subscription) {
			for _, name := range names {
				all = append(all, mqtt.Subscription{Filter: name, QoS: 1})
			}
			return all
		}
		want := []mqtt.ReasonCode{1, 1, 1, 1, mqtt.QuotaExceeded}
		if diff := cmp.Diff(want, p.subscribe(subs("a", "b", "c", "d", "e")...)); diff != "" {
			w.t.Errorf("per second (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]mqtt.ReasonCode{mqtt.SubackFailure}, old.subscribe(subs("a")...)); diff != "" {
			w.t.Errorf("3.1.1 (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]mqtt.ReasonCode{1}, p.subscribe(subs("a")...)); diff != "" {
			w.t.Errorf("one that is held already (-want +got):\n%s", diff)
		}
		pass(time.Second)
		if diff := cmp.Diff([]mqtt.ReasonCode{1, 1, mqtt.SubackFailure}, old.subscribe(subs("a", "b", "c")...)); diff != "" {
			w.t.Errorf("held (-want +got):\n%s", diff)
		}
		p.send(&mqtt.Unsubscribe{PacketID: 2, Filters: []string{"a"}})
		p.all()
		pass(time.Second)
		if diff := cmp.Diff([]mqtt.ReasonCode{1, mqtt.SubackFailure}, old.subscribe(subs("c", "d")...)); diff != "" {
			w.t.Errorf("after one was given up (-want +got):\n%s", diff)
		}
		p.send(&mqtt.Disconnect{})
		p.all()
		pass(time.Second)
		if diff := cmp.Diff([]mqtt.ReasonCode{1, 1, 1}, old.subscribe(subs("d", "e", "f")...)); diff != "" {
			w.t.Errorf("after a client left (-want +got):\n%s", diff)
		}
	}, quotas(broker.Quotas{AccountSubscribes: 4, AccountSubscriptions: 6}))
}

// TestConnectsOfClientAndAccount bounds how often one client id connects, how
// often all of them, and how many are connected.
func TestConnectsOfClientAndAccount(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		attempt := func(v mqtt.Version, id string) (mqtt.ReasonCode, *peer) {
			p := w.dial(v)
			p.send(connectPacket(v, id))
			got, ok := p.next().(*mqtt.Connack)
			if !ok {
				w.t.Fatalf("%s got no CONNACK", id)
			}
			return got.Reason, p
		}
		steps := []struct {
			version mqtt.Version
			id      string
			want    mqtt.ReasonCode
		}{
			{mqtt.V5, "a", mqtt.Success},
			{mqtt.V5, "a", mqtt.QuotaExceeded},
			{mqtt.V311, "a", mqtt.ReasonCode(mqtt.ReturnServerUnavailable)},
			{mqtt.V5, "b", mqtt.Success},
			{mqtt.V5, "c", mqtt.Success},
			{mqtt.V5, "d", mqtt.QuotaExceeded}, // no more room
		}
		for i, s := range steps {
			if got, _ := attempt(s.version, s.id); got != s.want {
				w.t.Errorf("step %d, %s: 0x%02X, want 0x%02X", i, s.id, byte(got), byte(s.want))
			}
		}
		pass(time.Second)
		// One that is connected takes its own place.
		got, a := attempt(mqtt.V5, "a")
		if got != mqtt.Success {
			w.t.Errorf("takeover: 0x%02X", byte(got))
		}
		a.send(&mqtt.Disconnect{})
		a.all()
		if got, _ := attempt(mqtt.V5, "d"); got != mqtt.Success {
			w.t.Errorf("after one left: 0x%02X", byte(got))
		}
		if w.gate.guards() != 3 {
			w.t.Errorf("%d guards are open", w.gate.guards())
		}
	}, quotas(broker.Quotas{ClientConnects: 1, AccountConnections: 3}))
	inWorld(t, topic.AWS, func(w *world) {
		refused := 0
		for i := range 20 {
			p := w.dial(mqtt.V5)
			p.send(connectPacket(mqtt.V5, fmt.Sprint(i)))
			if got, ok := p.next().(*mqtt.Connack); !ok || got.Reason == mqtt.QuotaExceeded {
				refused++
			}
		}
		if refused != 15 || len(w.seen.failed) != 15 {
			w.t.Errorf("%d refused, %d told", refused, len(w.seen.failed))
		}
	}, quotas(broker.Quotas{AccountConnects: 5}))
}
