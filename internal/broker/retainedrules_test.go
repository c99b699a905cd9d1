package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// retains demands what a topic retains, "" for nothing.
func (w *world) retains(name, want string) {
	w.t.Helper()
	m, ok := w.broker.Retained(account, name)
	if ok != (want != "") || string(m.Payload) != want {
		w.t.Errorf("%s retains %v %q, want %q", name, ok, m.Payload, want)
	}
}

// The latest retained message of a topic is what a later subscriber gets, with
// the flag; those who are there already get it as any other, without.
func TestRetained(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]topic.Profile{"aws": topic.AWS, "standard": topic.Standard} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, v mqtt.Version) {
				t.Helper()
				inWorld(t, profile, func(w *world) {
					early := w.connect(v, "early")
					early.grants(mqtt.Subscription{Filter: "a/b", QoS: 1})
					pub := w.connect(v, "pub")
					pub.publish(retained(1, "a/b", "1"))
					pub.publish(retained(1, "a/b", "2"))
					pub.publish(plain(1, "a/b", "3"))
					for i, m := range early.publishes() {
						if m.Retain || string(m.Payload) != fmt.Sprint(i+1) {
							w.t.Errorf("live: retain %v, %s", m.Retain, m.Payload)
						}
					}
					w.retains("a/b", "2")
					late := w.connect(v, "late")
					late.grants(mqtt.Subscription{Filter: "a/b", QoS: 1})
					got := late.publishes()
					if len(got) != 1 || !got[0].Retain || string(got[0].Payload) != "2" || got[0].QoS != 1 || got[0].Dup {
						w.t.Fatalf("at subscribe: %+v", got)
					}
					late.ack(got[0].PacketID)
					// Subscribing again brings it again.
					late.grants(mqtt.Subscription{Filter: "a/b"})
					if got = late.publishes(); len(got) != 1 || got[0].QoS != 0 {
						w.t.Errorf("subscribed again: %+v", got)
					}
					pub.publish(retained(0, "a/b", "4"))
					late.hears("a/b 4")
					late.grants(mqtt.Subscription{Filter: "a/b", QoS: 1})
					if got = late.publishes(); len(got) != 1 || got[0].QoS != 0 || !got[0].Retain || string(got[0].Payload) != "4" {
						w.t.Errorf("retained at QoS 0: %+v", got)
					}
					// An empty one deletes, and is delivered like any other.
					pub.publish(retained(1, "a/b", ""))
					if got = late.publishes(); len(got) != 1 || got[0].Retain || len(got[0].Payload) != 0 {
						w.t.Errorf("the deletion: %+v", got)
					}
					w.retains("a/b", "")
					later := w.connect(v, "later")
					later.grants(mqtt.Subscription{Filter: "a/b", QoS: 1})
					later.hears()
				})
			})
		})
	}
}

// In the AWS profile only the exact filter brings a retained message, in the
// standard one every filter that matches; a shared subscription never does.
func TestRetainedAndFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		profile topic.Profile
		filter  string
		want    []string
	}{
		{topic.AWS, "a/b", []string{"a/b 1"}},
		{topic.AWS, "a/+", nil},
		{topic.AWS, "a/#", nil},
		{topic.AWS, "#", nil},
		{topic.AWS, "$share/g/a/b", nil},
		{topic.Standard, "a/b", []string{"a/b 1"}},
		{topic.Standard, "a/+", []string{"a/b 1"}},
		{topic.Standard, "a/#", []string{"a 2", "a/b 1"}},
		{topic.Standard, "+", []string{"a 2"}},
		{topic.Standard, "$share/g/a/b", nil},
	} {
		eachVersion(t, func(t *testing.T, v mqtt.Version) {
			t.Helper()
			inWorld(t, c.profile, func(w *world) {
				pub := w.connect(v, "pub")
				pub.publish(retained(1, "a/b", "1"))
				pub.publish(retained(1, "a", "2"))
				p := w.connect(v, "c")
				p.grants(mqtt.Subscription{Filter: c.filter, QoS: 1})
				if diff := cmp.Diff(c.want, p.messages(), cmpopts.SortSlices(strings.Compare)); diff != "" {
					w.t.Errorf("%v %s (-want +got):\n%s", c.profile, c.filter, diff)
				}
			})
		})
	}
}

// The options of an MQTT 5 subscription about retained messages.
func TestRetainedOptions(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.Standard, func(w *world) {
		pub := w.connect(mqtt.V5, "pub")
		pub.publish(retained(1, "a", "1"))
		p := w.connect(mqtt.V5, "c")
		p.grants(mqtt.Subscription{Filter: "a", RetainHandling: 2})
		p.hears()
		p.grants(mqtt.Subscription{Filter: "a", RetainHandling: 1}) // not new
		p.hears()
		p.gives("a")
		p.grants(mqtt.Subscription{Filter: "a", RetainHandling: 1})
		p.hears("a 1")
		p.grants(mqtt.Subscription{Filter: "a", RetainAsPublished: true, RetainHandling: 2})
		pub.publish(retained(1, "a", "2"))
		pub.publish(plain(1, "a", "3"))
		got := p.publishes()
		if len(got) != 2 || !got[0].Retain || got[1].Retain {
			w.t.Errorf("as published: %+v", got)
		}
	})
}

// Who may publish may not yet retain, and nobody retains a reserved topic.
func TestRetainedAndPolicy(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		w.gate.refuse("retain a", "receive c")
		five, old := w.connect(mqtt.V5, "five"), w.connect(mqtt.V311, "old")
		m := retained(1, "a", "1")
		m.PacketID = 1
		five.send(m)
		if a, ok := five.next().(*mqtt.Ack); !ok || a.Reason != mqtt.NotAuthorized {
			w.t.Errorf("refused: %+v", a)
		}
		old.send(m)
		old.waitClosed()
		w.retains("a", "")
		five.publish(retained(1, "c", "1"))
		five.grants(mqtt.Subscription{Filter: "c", QoS: 1})
		five.hears()
		five.send(&mqtt.Publish{Retain: true, Topic: []byte("$aws/things/x/shadow/update")})
		five.waitClosed()
		if got := w.service.taken(); len(got) != 0 {
			w.t.Errorf("the service got %+v", got)
		}
	})
}

// A retained message expires, and says how much of its time is left.
func TestRetainedExpires(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			pub := w.connect(mqtt.V5, "pub")
			m := expiringMessage(1, "a", "1", 100)
			m.Retain = true
			pub.publish(m)
			time.Sleep(30*time.Second + time.Millisecond)
			p := w.connect(v, "c")
			p.grants(mqtt.Subscription{Filter: "a"})
			got := p.publishes()
			if len(got) != 1 || v == mqtt.V5 && got[0].Properties.MessageExpiry != 70 && got[0].Properties.MessageExpiry != 69 {
				w.t.Fatalf("after 30 s: %+v", got)
			}
			time.Sleep(70 * time.Second)
			p.grants(mqtt.Subscription{Filter: "a"})
			p.hears()
			w.retains("a", "")
			if page, _ := w.broker.RetainedTopics(account, "", 10); len(page) != 0 {
				w.t.Errorf("listed: %+v", page)
			}
		})
	})
}

// Retained messages keep their properties, in order, and can be listed.
func TestRetainedIsWhole(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		pub := w.connect(mqtt.V5, "pub")
		m := retained(1, "a/3", "x")
		m.Properties = everyProperty()
		pub.publish(m)
		for _, name := range []string{"b", "a/1", "a", "a/2"} {
			pub.publish(retained(0, name, name))
		}
		if err := w.broker.Publish(t.Context(), "111111111111", broker.Message{Topic: "elsewhere", Payload: []byte("x"), Retain: true}); err != nil {
			t.Fatal(err)
		}
		p := w.connect(mqtt.V5, "c")
		p.grants(mqtt.Subscription{Filter: "a/3", QoS: 1})
		got := p.publishes()
		if len(got) != 1 {
			t.Fatalf("%d at subscribe", len(got))
		}
		if diff := cmp.Diff(everyProperty(), got[0].Properties); diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
		seen := map[string]bool{}
		pages := 0
		for after := ""; ; pages++ {
			page, next := w.broker.RetainedTopics(account, after, 2)
			for _, r := range page {
				if seen[r.Topic] || r.StoredAt.IsZero() {
					t.Errorf("%s: again, or without time %v", r.Topic, r.StoredAt)
				}
				seen[r.Topic] = true
			}
			if next == "" || pages > 9 {
				break
			}
			after = next
		}
		if diff := cmp.Diff(map[string]bool{"a": true, "a/1": true, "a/2": true, "a/3": true, "b": true}, seen); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
		old := w.connect(mqtt.V311, "old")
		old.grants(mqtt.Subscription{Filter: "a/3", QoS: 1})
		old.hears("a/3 x")
	})
}

// A will can be retained, and a retained message that waited for a client is
// still one of its session.
func TestRetainedWillAndSession(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			away, _ := w.attach(v, "away", false, resuming(3600))
			away.grants(mqtt.Subscription{Filter: "will", QoS: 1})
			away.drop()
			p := w.connect(v, "c", withWill("will"), func(c *mqtt.Connect) { c.Will.QoS, c.Will.Retain = 1, true })
			p.drop()
			w.retains("will", "gone")
			away, _ = w.attach(v, "away", true, resuming(3600))
			if got := away.publishes(); len(got) != 1 || got[0].Retain {
				w.t.Errorf("from the queue: %+v", got)
			}
			q := w.connect(v, "q")
			q.grants(mqtt.Subscription{Filter: "will"})
			q.hears("will gone")
		})
	})
}

// Subscribing to many retained messages keeps to the window.
func TestRetainedWithinWindow(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.Standard, func(w *world) {
		pub := w.connect(mqtt.V5, "pub")
		for i := range 500 {
			pub.publish(retained(1, fmt.Sprintf("a/%03d", i), "x"))
		}
		p := w.connect(mqtt.V5, "c", receiving(20))
		p.grants(mqtt.Subscription{Filter: "a/#", QoS: 1})
		seen := map[string]bool{}
		for _, m := range p.drain(20) {
			if seen[string(m.Topic)] {
				w.t.Errorf("%s twice", m.Topic)
			}
			seen[string(m.Topic)] = true
		}
		if len(seen) != 500 {
			w.t.Errorf("%d of 500", len(seen))
		}
	})
}
