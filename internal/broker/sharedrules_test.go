package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// share subscribes to a shared filter.
func (p *peer) share(group, filter string, qos byte) {
	p.t.Helper()
	p.grants(mqtt.Subscription{Filter: "$share/" + group + "/" + filter, QoS: qos})
}

// Each message goes to one member of a group, to every group, and to ordinary
// subscribers besides; all members get their share.
func TestSharedDelivery(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			members := map[string][]*peer{}
			for _, group := range []string{"g", "h"} {
				for i := range 3 {
					p := w.connect(v, fmt.Sprintf("%s%d", group, i))
					p.share(group, "a/+", 1)
					members[group] = append(members[group], p)
				}
			}
			all := w.connect(v, "all")
			all.grants(mqtt.Subscription{Filter: "#", QoS: 1})
			pub := w.connect(v, "pub")
			got := map[string][]string{}
			const total = 300
			for n := 0; n < total; n += burst {
				pub.publishNumbers("a/b", n, n+burst)
				got["all"] = append(got["all"], payloads(all.drain(100))...)
				for group, peers := range members {
					for i, p := range peers {
						mine := payloads(p.drain(100))
						got[group] = append(got[group], mine...)
						name := fmt.Sprint(group, i)
						got[name] = append(got[name], mine...)
					}
				}
			}
			if diff := cmp.Diff(numbers(0, total), got["all"]); diff != "" {
				w.t.Errorf("ordinary subscriber (-want +got):\n%s", diff)
			}
			for group, peers := range members {
				shared := slices.Clone(got[group])
				slices.Sort(shared)
				want := numbers(0, total)
				slices.Sort(want)
				if diff := cmp.Diff(want, shared); diff != "" {
					w.t.Errorf("group %s (-want +got):\n%s", group, diff)
				}
				for i := range peers {
					if n := len(got[fmt.Sprint(group, i)]); n == 0 {
						w.t.Errorf("member %d of %s got nothing of %d", i, group, total)
					}
				}
			}
		})
	})
}

// A client that is in a group and subscribes itself gets both copies.
func TestSharedBesidesOwn(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p := w.connect(mqtt.V5, "c")
		p.share("g", "a", 1)
		p.share("h", "a", 1)
		p.share("g", "+", 1)
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		w.connect(mqtt.V5, "pub").publish(plain(1, "a", "x"))
		p.hears("a x", "a x", "a x", "a x")
	})
}

// A member whose window is full is passed over while another has room.
func TestSharedPrefersRoom(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			full, free := w.connect(v, "full"), w.connect(v, "free")
			full.share("g", "a", 1)
			free.share("g", "a", 1)
			pub := w.connect(v, "pub")
			var held, got []*mqtt.Publish
			for n := range 100 {
				pub.publishNumbers("a", n, n+1)
				held = append(held, full.publishes()...)
				got = append(got, free.drain(3)...)
			}
			if len(held) == 0 || len(held) > 3 || len(got) != 100-len(held) {
				w.t.Errorf("%d at the member that does not acknowledge, %d at the other", len(held), len(got))
			}
		}, limits(func(l *broker.Limits) { l.MaxInflight = 3 }))
	})
}

// While no member is connected QoS 1 is kept for a group that has a member
// with a session, in order, for whoever of the group comes first; QoS 0 is not.
func TestSharedWhileAway(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		for name, back := range map[string]func(w *world) *peer{
			"the member returns": func(w *world) *peer { p, _ := w.attach(v, "c", true, resuming(3600)); return p },
			"another member returns": func(w *world) *peer {
				p, _ := w.attach(v, "d", true, resuming(3600))
				return p
			},
			"a new member comes": func(w *world) *peer {
				p := w.connect(v, "new")
				p.share("g", "a", 1)
				return p
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				inWorld(t, topic.AWS, func(w *world) {
					for _, id := range []string{"c", "d"} {
						p, _ := w.attach(v, id, false, resuming(3600))
						p.share("g", "a", 1)
						p.leave()
					}
					pub := w.connect(v, "pub")
					pub.publish(plain(0, "a", "lost"))
					pub.publishNumbers("a", 0, 250)
					p := back(w)
					got := payloads(p.drain(100))
					idle(time.Minute, p, pub) // the group's queue may be paced
					got = append(got, payloads(p.drain(100))...)
					if diff := cmp.Diff(numbers(0, 250), got); diff != "" {
						w.t.Errorf("delivered (-want +got):\n%s", diff)
					}
				})
			})
		}
	})
}

// A group without a member that has a session keeps nothing, and one whose
// last such member leaves or expires drops what it kept.
func TestSharedWithoutMembers(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		for name, c := range map[string]struct {
			connect func(*mqtt.Connect)
			gone    func(w *world, p *peer)
		}{
			"clean":        {func(c *mqtt.Connect) { c.CleanStart = true }, func(_ *world, p *peer) { p.drop() }},
			"unsubscribed": {resuming(3600), func(_ *world, p *peer) { p.gives("$share/g/a"); p.leave() }},
			"expired":      {resuming(3600), func(_ *world, p *peer) { p.leave(); time.Sleep(2 * time.Hour) }},
			"removed": {resuming(3600), func(w *world, p *peer) {
				p.leave()
				w.broker.Remove(account, "c", broker.RemoveOptions{EndSession: true})
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				inWorld(t, topic.AWS, func(w *world) {
					p, _ := w.attach(v, "c", false, c.connect)
					p.share("g", "a", 1)
					c.gone(w, p)
					synctest.Wait()
					w.connect(v, "pub").publishNumbers("a", 0, 3)
					q := w.connect(v, "new")
					q.share("g", "a", 1)
					idle(time.Minute, q)
					q.hears()
				})
			})
		}
		t.Run("kept, then the last leaves", func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(v, "c", false, resuming(3600))
				p.share("g", "a", 1)
				p.leave()
				w.connect(v, "pub").publishNumbers("a", 0, 3)
				time.Sleep(time.Hour + slack + time.Second)
				synctest.Wait()
				q := w.connect(v, "new")
				q.share("g", "a", 1)
				idle(time.Minute, q)
				q.hears()
			})
		})
	})
}

// What a group keeps expires like any message, and is bounded: the newest goes.
func TestSharedQueueIsBounded(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.share("g", "a", 1)
		p.leave()
		pub := w.connect(mqtt.V5, "pub")
		pub.publish(expiringMessage(1, "a", "short", 5))
		pub.publishNumbers("a", 1, 100)
		time.Sleep(10 * time.Second)
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		if diff := cmp.Diff(numbers(1, 20), payloads(p.drain(100))); diff != "" {
			w.t.Errorf("delivered (-want +got):\n%s", diff)
		}
	}, limits(func(l *broker.Limits) { l.MaxGroupQueue = 20 }))
}

// Guards are asked for shared subscriptions and their messages with the
// group's prefix. A member that may not receive is no member for that message.
func TestSharedAndPolicy(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			w.gate.refuse("subscribe $share/no/a", "receive $share/yes/hidden")
			p := w.connect(v, "c")
			if codes := p.subscribe(mqtt.Subscription{Filter: "$share/no/a", QoS: 1}); len(codes) != 1 || !codes[0].Failed() {
				w.t.Errorf("codes %#x", codes)
			}
			p.share("yes", "+", 1)
			pub := w.connect(v, "pub")
			pub.publish(plain(1, "hidden", "x"))
			pub.publish(plain(1, "a", "x"))
			p.hears("a x")
		})
	})
}

// A shared filter is checked like any other, and its group must have a name.
func TestSharedFilters(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			for filter, ok := range map[string]bool{
				"$share/g/a": true, "$share/g/#": true, "$share/g//": true, "$share/g+/a": false, "$share/#/a": false,
				"$share//a": false, "$share/g": false, "$share/g/": false, "$share/g/a/#/b": false, "$share/g/a+": false,
			} {
				p := w.connect(v, "c")
				codes := p.subscribe(mqtt.Subscription{Filter: filter, QoS: 1})
				if got := len(codes) == 1 && !codes[0].Failed(); got != ok {
					w.t.Errorf("%s: codes %#x, want accepted %v", filter, codes, ok)
				}
				_ = p.conn.Close()
			}
		})
	})
}
