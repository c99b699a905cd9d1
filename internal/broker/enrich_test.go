package broker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// site is what messages gain in these tests.
func site(value string) mqtt.UserProperty { return mqtt.UserProperty{Key: "site", Value: value} }

// checkUserProperties compares those of the only message that a peer got.
func checkUserProperties(t *testing.T, p *peer, want ...mqtt.UserProperty) {
	t.Helper()
	got := p.publishes()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	if diff := cmp.Diff(want, got[0].Properties.UserProperties); diff != "" {
		t.Errorf("user properties (-want +got):\n%s", diff)
	}
}

// What a message gains comes behind what its publisher has put there, and is
// that of the moment at which it is published; receivers before MQTT 5 see
// the message as it was.
func TestMessagesGainUserProperties(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		for _, qos := range []byte{0, 1} {
			inWorld(t, topic.AWS, func(w *world) {
				five, before := w.connect(mqtt.V5, "five"), w.connect(mqtt.V311, "before")
				five.subscribe(mqtt.Subscription{Filter: "a", QoS: qos})
				before.subscribe(mqtt.Subscription{Filter: "a", QoS: qos})
				pub := w.connect(v, "pub")
				m := plain(qos, "a", "x")
				var own []mqtt.UserProperty
				if v == mqtt.V5 {
					own = []mqtt.UserProperty{{Key: "own", Value: "1"}, {Key: "site", Value: "mine"}}
					m.Properties.UserProperties = own
				}
				pub.publish(m)
				checkUserProperties(w.t, five, own...)
				w.gate.gains(site("leeds"), mqtt.UserProperty{Key: "cid", Value: "pub"})
				pub.publish(m)
				checkUserProperties(w.t, five, append(own, site("leeds"), mqtt.UserProperty{Key: "cid", Value: "pub"})...)
				w.gate.gains(site("osaka"))
				pub.publish(m)
				checkUserProperties(w.t, five, append(own, site("osaka"))...)
				if got := before.publishes(); len(got) != 3 || string(got[2].Payload) != "x" {
					w.t.Errorf("3.1.1 got %+v", got)
				}
			})
		}
	})
}

// What the server publishes for itself, and what comes over HTTP, gains
// nothing: there is no connection.
func TestServerMessagesGainNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		w.gate.gains(site("leeds"))
		p := w.connect(mqtt.V5, "c")
		p.subscribe(mqtt.Subscription{Filter: "a"})
		if err := w.broker.Publish(w.t.Context(), account, broker.Message{Topic: "a"}); err != nil {
			w.t.Fatal(err)
		}
		checkUserProperties(w.t, p)
	})
}

// Reserved topics' services, retained messages and stored sessions get what
// the message had gained, also after the process has ended.
func TestGainedUserPropertiesAreKept(t *testing.T) {
	t.Parallel()
	bothRestarts(t, func(w *world, _ mqtt.Version, restart func()) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		p.drop()
		w.gate.gains(site("leeds"))
		pub := w.connect(mqtt.V5, "pub")
		pub.publish(plain(1, "a", "x"))
		pub.publish(retained(1, "kept", "x"))
		pub.publish(plain(1, "$aws/things/x/y", "x"))
		if got := w.service.taken(); len(got) != 1 || len(got[0].Properties.UserProperties) != 1 {
			w.t.Errorf("the service got %+v", got)
		}
		synctest.Wait()
		w.gate.gains(site("osaka"))
		restart()
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		checkUserProperties(w.t, p, site("leeds"))
		late := w.connect(mqtt.V5, "late")
		late.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "kept", QoS: 0}}})
		synctest.Wait()
		var found []mqtt.UserProperty
		for _, packet := range late.all() {
			if m, ok := packet.(*mqtt.Publish); ok {
				found = append(found, m.Properties.UserProperties...)
			}
		}
		if diff := cmp.Diff([]mqtt.UserProperty{site("leeds")}, found); diff != "" {
			w.t.Errorf("retained (-want +got):\n%s", diff)
		}
	})
}

// A will gains what messages of its connection gain when the connection ends;
// one that is left behind by a crash has what it gained at the CONNECT.
func TestWillsGainUserProperties(t *testing.T) {
	t.Parallel()
	mine := func(c *mqtt.Connect) {
		c.Will.Properties.UserProperties = []mqtt.UserProperty{{Key: "own", Value: "1"}}
	}
	own := mqtt.UserProperty{Key: "own", Value: "1"}
	for name, delay := range map[string]uint32{"at once": 0, "delayed": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				w.gate.gains(site("leeds"))
				watch := w.connect(mqtt.V5, "watch")
				watch.subscribe(mqtt.Subscription{Filter: "will"})
				p, _ := w.attach(mqtt.V5, "c", false, resuming(3600), withWill("will"), delayed(delay), mine)
				w.gate.gains(site("osaka"))
				p.drop()
				time.Sleep(time.Duration(delay) * time.Second)
				checkUserProperties(w.t, watch, own, site("osaka"))
			})
		})
	}
	t.Run("after a crash", func(t *testing.T) {
		t.Parallel()
		inWorld(t, topic.AWS, func(w *world) {
			w.gate.gains(site("leeds"))
			w.attach(mqtt.V5, "c", false, resuming(3600), withWill("will"), delayed(10), mine)
			w.gate.gains(site("osaka"))
			w.restart(true)
			watch := w.connect(mqtt.V5, "watch")
			watch.subscribe(mqtt.Subscription{Filter: "will"})
			time.Sleep(11 * time.Second)
			checkUserProperties(w.t, watch, own, site("leeds"))
		}, keeping(newLedger()))
	})
}
