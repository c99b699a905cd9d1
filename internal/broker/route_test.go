package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

func TestQoSIsTheLowerOfBoth(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			sub := w.connect(v, "sub")
			sub.subscribe(mqtt.Subscription{Filter: "q0/+"}, mqtt.Subscription{Filter: "q1/+", QoS: 1})
			pub := w.connect(mqtt.V311, "pub")
			pub.send(message(0, "q0/a", "1"), message(1, "q0/b", "2"), message(0, "q1/c", "3"), message(1, "q1/d", "4"))
			var got []byte
			for _, p := range sub.all() {
				if m, ok := p.(*mqtt.Publish); ok {
					got = append(got, m.Payload[0], '0'+m.QoS)
				}
			}
			if string(got) != "10203041" {
				t.Errorf("version %d: payload and QoS %s", v, got)
			}
			acks := 0
			for _, p := range pub.all() {
				if a, ok := p.(*mqtt.Ack); ok && a.Kind == mqtt.TypePuback && a.Reason == mqtt.Success {
					acks++
				}
			}
			if acks != 2 {
				t.Errorf("%d acknowledgements", acks)
			}
		}
	})
}

// A client that holds several matching subscriptions gets one copy, with the
// highest QoS and, in the standard profile, all identifiers.
func TestOverlappingSubscriptions(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.Standard, func(w *world) {
		t := w.t
		sub := w.connect(mqtt.V5, "sub")
		for i, s := range []mqtt.Subscription{{Filter: "a/b"}, {Filter: "a/+", QoS: 1}, {Filter: "#"}} {
			sub.send(&mqtt.Subscribe{PacketID: 1, Properties: mqtt.Properties{SubscriptionIDs: []uint32{uint32(i + 1)}}, Subscriptions: []mqtt.Subscription{s}})
		}
		others := make([]*peer, 5) // make one filter the largest
		for i := range others {
			others[i] = w.connect(mqtt.V311, fmt.Sprintf("other%d", i))
			others[i].subscribe(mqtt.Subscription{Filter: "a/b"})
		}
		sub.all()
		w.connect(mqtt.V311, "pub").send(message(1, "a/b", "x"))
		got := sub.all()
		if len(got) != 1 {
			t.Fatalf("%d copies", len(got))
		}
		m, ok := got[0].(*mqtt.Publish)
		if !ok || m.QoS != 1 {
			t.Errorf("copy %+v", got[0])
		}
		if diff := cmp.Diff([]uint32{1, 2, 3}, m.Properties.SubscriptionIDs, cmpopts.SortSlices(func(a, b uint32) bool { return a < b })); diff != "" {
			t.Errorf("identifiers (-want +got):\n%s", diff)
		}
		for _, o := range others {
			if diff := cmp.Diff([]string{"a/b x"}, o.messages()); diff != "" {
				t.Errorf("other (-want +got):\n%s", diff)
			}
		}
	})
}

func TestResubscribeReplaces(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		sub, pub := w.connect(mqtt.V311, "sub"), w.connect(mqtt.V5, "pub")
		sub.subscribe(mqtt.Subscription{Filter: "a", QoS: 1})
		sub.subscribe(mqtt.Subscription{Filter: "a", QoS: 0})
		pub.send(message(1, "a", "x"))
		got := sub.all()
		if m, ok := got[0].(*mqtt.Publish); !ok || m.QoS != 0 || len(got) != 1 {
			t.Errorf("received %+v", got)
		}
		sub.send(&mqtt.Unsubscribe{PacketID: 3, Filters: []string{"a", "never"}})
		if _, ok := sub.next().(*mqtt.Unsuback); !ok {
			t.Error("no UNSUBACK")
		}
		pub.send(message(0, "a", "y"))
		if got := sub.messages(); got != nil {
			t.Errorf("received %q after UNSUBSCRIBE", got)
		}
	})
}

func TestNoLocal(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V5, "c")
		p.subscribe(mqtt.Subscription{Filter: "a", NoLocal: true})
		p.send(message(0, "a", "own"))
		w.connect(mqtt.V5, "other").send(message(0, "a", "foreign"))
		if diff := cmp.Diff([]string{"a foreign"}, p.messages()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	})
}

func TestAccountsAreSeparate(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.accountOf = func(id string) fleet.Account { return fleet.Account(id) }
		one, two := w.connect(mqtt.V311, "1"), w.connect(mqtt.V311, "2")
		one.subscribe(mqtt.Subscription{Filter: "#"})
		two.send(message(0, "a", "x"))
		if err := w.broker.Publish(t.Context(), "2", broker.Message{Topic: "a"}); err != nil {
			t.Error(err)
		}
		if got := one.messages(); got != nil {
			t.Errorf("heard from the other account: %q", got)
		}
		if got := len(w.broker.Sessions("1")); got != 1 {
			t.Errorf("%d sessions", got)
		}
		if w.broker.Disconnect("1", "2", broker.ReasonAPIInitiated) || w.broker.Sessions("3") != nil {
			t.Error("accounts mix")
		}
	})
}

// Properties of MQTT 5 reach receivers of 5 and are dropped for 3.1.1; what
// belongs to the connection of the publisher stays behind.
func TestPropertiesTravel(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		five, old := w.connect(mqtt.V5, "five"), w.connect(mqtt.V311, "old")
		five.subscribe(mqtt.Subscription{Filter: "a"})
		old.subscribe(mqtt.Subscription{Filter: "a"})
		sent := mqtt.Properties{
			Set: mqtt.Of(mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
				mqtt.PropCorrelationData, mqtt.PropTopicAlias),
			PayloadFormat: 1, MessageExpiry: 700000, ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte{1},
			TopicAlias: 1, UserProperties: []mqtt.UserProperty{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}},
		}
		w.connect(mqtt.V5, "pub").send(&mqtt.Publish{Topic: []byte("a"), Properties: sent, Payload: []byte("x")})
		want := sent
		want.Set &^= mqtt.Of(mqtt.PropTopicAlias)
		want.TopicAlias, want.MessageExpiry = 0, 604800
		got, ok := five.next().(*mqtt.Publish)
		if !ok {
			t.Fatal("no message")
		}
		if diff := cmp.Diff(want, got.Properties); diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a x"}, old.messages()); diff != "" {
			t.Errorf("3.1.1 (-want +got):\n%s", diff)
		}
	})
}

// Aliases are resolved before policy is asked.
func TestTopicAlias(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("publish secret")
		sub := w.connect(mqtt.V5, "sub")
		sub.subscribe(mqtt.Subscription{Filter: "#"})
		alias := func(name string, n uint16) *mqtt.Publish {
			return &mqtt.Publish{Topic: []byte(name), Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropTopicAlias), TopicAlias: n}}
		}
		p := w.connect(mqtt.V5, "c")
		p.send(alias("a", 8), alias("", 8), alias("b", 8), alias("", 8))
		if diff := cmp.Diff([]string{"a ", "a ", "b ", "b "}, sub.messages()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		for name, bad := range map[string]*mqtt.Publish{"out of range": alias("a", 9), "unknown": alias("", 1)} {
			q := w.connect(mqtt.V5, "bad")
			q.send(bad)
			if d, ok := q.next().(*mqtt.Disconnect); !ok || d.Reason != mqtt.TopicAliasInvalid {
				t.Errorf("%s: %+v", name, d)
			}
		}
		p.send(alias("secret", 1))
		if d, ok := p.next().(*mqtt.Disconnect); !ok || d.Reason != mqtt.NotAuthorized {
			t.Errorf("secret through an alias: %+v", d)
		}
		if diff := cmp.Diff([]string{"iot:Publish secret"}, w.seen.denials()); diff != "" {
			t.Errorf("denials (-want +got):\n%s", diff)
		}
	})
}

func TestServerPublishes(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V5, "c")
		p.subscribe(mqtt.Subscription{Filter: "$aws/things/#", QoS: 1})
		w.gate.refuse("publish $aws/things/x", "receive $aws/things/secret")
		for _, m := range []broker.Message{
			{Topic: "$aws/things/x", Payload: []byte("1"), QoS: 1},
			{Topic: "$aws/things/secret", Payload: []byte("2")},
			{Topic: "$aws/things/y", Payload: []byte("3"), Properties: mqtt.Properties{UserProperties: []mqtt.UserProperty{{Key: "k"}}}},
		} {
			if err := w.broker.Publish(t.Context(), account, m); err != nil {
				t.Error(err)
			}
		}
		got := p.all()
		if len(got) != 2 {
			t.Fatalf("received %+v", got)
		}
		first, second := got[0].(*mqtt.Publish), got[1].(*mqtt.Publish)
		if first.QoS != 1 || second.QoS != 0 || len(second.Properties.UserProperties) != 1 {
			t.Errorf("received %+v and %+v", first, second)
		}
		for name, m := range map[string]broker.Message{"wildcard": {Topic: "#"}, "empty": {}, "QoS 2": {Topic: "a", QoS: 2}} {
			if w.broker.Publish(t.Context(), account, m) == nil {
				t.Errorf("%s is accepted", name)
			}
		}
	})
}

func TestRefusedDeliveries(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("receive a", "receive b")
		sub, pub := w.connect(mqtt.V311, "sub"), w.connect(mqtt.V311, "pub")
		sub.subscribe(mqtt.Subscription{Filter: "#"})
		for range 100 { // a flood is told once a second for each topic
			pub.send(message(0, "a", ""), message(0, "b", ""), message(0, "c", ""))
		}
		if got := len(sub.messages()); got != 100 {
			t.Errorf("%d messages", got)
		}
		time.Sleep(2 * time.Second)
		pub.send(message(0, "a", ""))
		synctest.Wait()
		if diff := cmp.Diff([]string{"iot:Receive a", "iot:Receive b", "iot:Receive a"}, w.seen.denials()); diff != "" {
			t.Errorf("denials (-want +got):\n%s", diff)
		}
	})
}

func TestRefusedPublish(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("publish no", "retain yes")
		p := w.connect(mqtt.V5, "c")
		p.send(message(1, "no", ""))
		if got, ok := p.next().(*mqtt.Ack); !ok || got.Reason != mqtt.NotAuthorized || p.isClosed() {
			t.Errorf("PUBACK %+v", got)
		}
		p.send(&mqtt.Publish{QoS: 1, PacketID: 1, Retain: true, Topic: []byte("yes")})
		if got, ok := p.next().(*mqtt.Ack); !ok || got.Reason != mqtt.NotAuthorized {
			t.Errorf("PUBACK %+v", got)
		}
		if diff := cmp.Diff([]string{"iot:Publish no", "iot:RetainPublish yes"}, w.seen.denials()); diff != "" {
			t.Errorf("denials (-want +got):\n%s", diff)
		}
	})
}

func TestSubscribeAnswers(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("subscribe no")
		filters := []mqtt.Subscription{
			{Filter: "yes", QoS: 1}, {Filter: "no"}, {Filter: "$share/g/a"}, {Filter: "1/2/3/4/5/6/7/8/9"}, {Filter: "$aws/things/+"},
		}
		nine := make([]mqtt.Subscription, 9)
		for i := range nine {
			nine[i].Filter = fmt.Sprint("nine", i)
		}
		for v, want := range map[mqtt.Version][2][]mqtt.ReasonCode{
			mqtt.V5:   {{1, mqtt.NotAuthorized, 0, mqtt.TopicFilterInvalid, 0}, fill(9, mqtt.QuotaExceeded)},
			mqtt.V311: {{1, 0x80, 0, 0x80, 0}, fill(9, 0x80)},
		} {
			p := w.connect(v, "c")
			if diff := cmp.Diff(want[0], p.subscribe(filters...)); diff != "" {
				t.Errorf("version %d (-want +got):\n%s", v, diff)
			}
			if diff := cmp.Diff(want[1], p.subscribe(nine...)); diff != "" {
				t.Errorf("version %d, nine filters (-want +got):\n%s", v, diff)
			}
			for i := range 6 { // three are held; 47 more fill the connection
				eight := make([]mqtt.Subscription, 8)
				for j := range eight {
					eight[j].Filter = fmt.Sprint(i, "/", j)
				}
				p.subscribe(eight...)
			}
			got := p.subscribe(mqtt.Subscription{Filter: "one more"}, mqtt.Subscription{Filter: "yes"})
			if !got[0].Failed() || got[1].Failed() || p.isClosed() {
				t.Errorf("version %d: 51st subscription %v", v, got)
			}
		}
		if got := w.seen.denials(); len(got) != 2 {
			t.Errorf("denials %q", got)
		}
	})
}

// fill returns n equal codes.
func fill(n int, code mqtt.ReasonCode) []mqtt.ReasonCode {
	codes := make([]mqtt.ReasonCode, n)
	for i := range codes {
		codes[i] = code
	}
	return codes
}

// A payload of 128 KiB passes, split into many reads; one byte more ends the
// connection.
func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		sub := w.connect(mqtt.V311, "sub")
		sub.subscribe(mqtt.Subscription{Filter: "a"})
		p := w.connect(mqtt.V5, "c")
		large := make([]byte, 128<<10)
		for i := range large {
			large[i] = byte(i)
		}
		encoded, err := message(0, "a", string(large)).Append(nil, mqtt.V5)
		if err != nil {
			t.Fatal(err)
		}
		for len(encoded) > 0 {
			n := min(1000, len(encoded))
			p.raw(encoded[:n])
			encoded = encoded[n:]
		}
		if got, ok := sub.next().(*mqtt.Publish); !ok || string(got.Payload) != string(large) {
			t.Error("large payload did not arrive whole")
		}
		p.send(message(0, "a", string(append(large, 0))))
		if d, ok := p.next().(*mqtt.Disconnect); !ok || d.Reason != mqtt.PacketTooLarge {
			t.Errorf("one byte more: %+v", d)
		}
	})
}

func TestMaximumPacketSizeOfClient(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V5, "c", func(c *mqtt.Connect) {
			c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropMaximumPacketSize), MaximumPacketSize: 50}
		})
		p.subscribe(mqtt.Subscription{Filter: "a", QoS: 1})
		pub := w.connect(mqtt.V311, "pub")
		pub.send(message(1, "a", string(make([]byte, 60))), message(1, "a", "fits"))
		if diff := cmp.Diff([]string{"a fits"}, p.messages()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		tiny := w.dial(mqtt.V5)
		tiny.send(connectPacket(mqtt.V5, "tiny", func(c *mqtt.Connect) {
			c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropMaximumPacketSize), MaximumPacketSize: 5}
		}))
		if !tiny.isClosed() || len(tiny.all()) != 0 {
			t.Error("a client that cannot take CONNACK is kept")
		}
	})
}
