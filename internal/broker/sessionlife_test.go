package broker_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// slack is how much longer than asked for a session may live.
const slack = time.Minute

// A session expiry beyond the server's is cut and told, a smaller one is told,
// none is not mentioned.
func TestSessionExpiryIsTold(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		for _, c := range []struct {
			asked  func(*mqtt.Connect)
			told   bool
			answer uint32
		}{
			{func(*mqtt.Connect) {}, false, 0},
			{expiring(0), false, 0},
			{expiring(1), true, 1},
			{expiring(3600), true, 3600},
			{expiring(3601), true, 3600},
			{expiring(0xFFFFFFFF), true, 3600},
		} {
			p, ack := w.attach(mqtt.V5, "c", false, c.asked)
			if told := ack.Properties.Set.Has(mqtt.PropSessionExpiry); told != c.told || ack.Properties.SessionExpiry != c.answer {
				w.t.Errorf("told %v, %d s; want %v, %d s", told, ack.Properties.SessionExpiry, c.told, c.answer)
			}
			if info, ok := w.stored("c"); !ok || info.SessionExpiry != c.answer || !info.Connected {
				w.t.Errorf("connection: %+v", info)
			}
			p.send(&mqtt.Disconnect{Properties: mqtt.Properties{}})
			p.waitClosed()
		}
	})
}

// A session lives from the end of the connection for as long as was agreed,
// hardly longer, however long the connection was.
func TestSessionLifetime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		v     mqtt.Version
		asked uint32
		lives time.Duration
	}{
		"5, 100 s":     {mqtt.V5, 100, 100 * time.Second},
		"5, 3600 s":    {mqtt.V5, 3600, time.Hour},
		"5, cut":       {mqtt.V5, 1 << 30, time.Hour},
		"3.1.1, 1 h":   {mqtt.V311, 0, time.Hour},
		"5, one short": {mqtt.V5, 1, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(c.v, "c", false, resuming(c.asked))
				idle(2*time.Hour, p)
				p.drop()
				time.Sleep(c.lives - time.Millisecond)
				p, _ = w.attach(c.v, "c", true, resuming(c.asked))
				idle(10*time.Minute, p)
				p.leave()
				time.Sleep(c.lives + slack + time.Second)
				synctest.Wait()
				if info, ok := w.stored("c"); ok {
					w.t.Errorf("still stored: %+v", info)
				}
				w.attach(c.v, "c", false, resuming(c.asked))
			})
		})
	}
}

// A connection that is found dead late starts the time of its session late.
func TestExpiryCountsFromDetection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		w.attach(mqtt.V5, "c", false, resuming(100), func(c *mqtt.Connect) { c.KeepAlive = 60 })
		time.Sleep(89 * time.Second) // found dead at 90 s
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]ending{{"c", broker.ReasonKeepAliveTimeout, false}}, w.seen.ends()); diff != "" {
			w.t.Fatalf("ends (-want +got):\n%s", diff)
		}
		time.Sleep(95 * time.Second)
		w.attach(mqtt.V5, "c", true, resuming(100))
	})
}

// A session without expiry ends with its connection, a clean start ends any.
func TestSessionsThatEnd(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		clean := func(c *mqtt.Connect) { c.CleanStart = true; expiring(0)(c) }
		for name, end := range map[string]func(w *world, p *peer){
			"clean start while away":      func(w *world, p *peer) { p.drop(); w.attach(v, "c", false, clean) },
			"clean start while connected": func(w *world, _ *peer) { w.attach(v, "c", false, clean) },
			"removed while away": func(w *world, p *peer) {
				p.drop()
				if !w.broker.Remove(account, "c", broker.RemoveOptions{EndSession: true}) {
					w.t.Error("not there to remove")
				}
			},
			"removed while connected": func(w *world, p *peer) {
				if !w.broker.Remove(account, "c", broker.RemoveOptions{EndSession: true}) {
					w.t.Error("not there to remove")
				}
				p.waitClosed()
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				inWorld(t, topic.AWS, func(w *world) {
					p, _ := w.attach(v, "c", false, resuming(3600))
					p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
					pub := w.connect(v, "pub")
					pub.publish(plain(1, "a", "1"))
					end(w, p)
					pub.publish(plain(1, "a", "2"))
					p, _ = w.attach(v, "c", false, resuming(3600))
					p.hears()
					pub.publish(plain(1, "a", "3"))
					p.hears()
					if w.broker.Remove(account, "nobody", broker.RemoveOptions{EndSession: true}) {
						w.t.Error("nobody was removed")
					}
				})
			})
		}
		t.Run("removed, the session stays", func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(v, "c", false, resuming(3600))
				p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
				w.broker.Remove(account, "c", broker.RemoveOptions{})
				w.connect(v, "pub").publish(plain(1, "a", "1"))
				p, _ = w.attach(v, "c", true, resuming(3600))
				p.hears("a 1")
			})
		})
		t.Run("resumed without expiry", func(t *testing.T) {
			t.Parallel()
			if v != mqtt.V5 {
				t.Skip("3.1.1 has no such thing")
			}
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(v, "c", false, resuming(3600))
				p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
				p.drop()
				p, _ = w.attach(v, "c", true, resuming(0))
				w.connect(v, "pub").publish(plain(1, "a", "1"))
				p.hears("a 1")
				p.drop()
				w.attach(v, "c", false, resuming(3600))
			})
		})
		t.Run("clean start that persists", func(t *testing.T) {
			t.Parallel()
			if v != mqtt.V5 {
				t.Skip("3.1.1 has no such thing")
			}
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(v, "c", false, expiring(3600))
				p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
				p.drop()
				w.connect(v, "pub").publish(plain(1, "a", "1"))
				p, _ = w.attach(v, "c", true, resuming(3600))
				p.hears("a 1")
			})
		})
	})
}

// A DISCONNECT may change the expiry: not from nothing, otherwise as wanted
// within the server's limit.
func TestDisconnectChangesExpiry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		connect, disconnect uint32
		lives               time.Duration
		violation           bool
	}{
		"from nothing":      {0, 10, 0, true},
		"nothing stays":     {0, 0, 0, false},
		"to nothing":        {3600, 0, 0, false},
		"shorter":           {3600, 10, 10 * time.Second, false},
		"longer":            {10, 1800, 30 * time.Minute, false},
		"beyond the limit":  {10, 1 << 31, time.Hour, false},
		"for ever is a cut": {10, 0xFFFFFFFF, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(mqtt.V5, "c", false, expiring(c.connect))
				p.send(&mqtt.Disconnect{Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: c.disconnect}})
				want := ending{"c", broker.ReasonClientInitiated, true}
				if c.violation {
					checkFarewell(w.t, p, mqtt.ProtocolError)
					want = ending{"c", broker.ReasonClientError, false}
				}
				p.waitClosed()
				if diff := cmp.Diff([]ending{want}, w.seen.ends()); diff != "" {
					w.t.Errorf("ends (-want +got):\n%s", diff)
				}
				if c.lives > 0 {
					time.Sleep(c.lives - time.Millisecond)
					if _, ok := w.stored("c"); !ok {
						w.t.Error("ended before its time")
					}
					time.Sleep(slack + time.Second)
				}
				synctest.Wait()
				if info, ok := w.stored("c"); ok {
					w.t.Errorf("still stored: %+v", info)
				}
			})
		})
	}
}

// What is stored are messages of QoS 1 for subscriptions of QoS 1.
func TestOnlyQoS1IsStored(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "one", QoS: 1}, mqtt.Subscription{Filter: "zero"})
			p.drop()
			pub := w.connect(v, "pub")
			for _, name := range []string{"one", "zero"} {
				pub.publish(plain(0, name, "0"))
				pub.publish(plain(1, name, "1"))
			}
			p, _ = w.attach(v, "c", true, resuming(3600))
			p.hears("one 1")
		})
	})
}

// A full queue loses the newest and keeps what it has, by number and by bytes.
func TestFullQueueDropsTheNewest(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			p.drop()
			w.connect(v, "pub").publishNumbers("a", 0, 200)
			p, _ = w.attach(v, "c", true, resuming(3600))
			if diff := cmp.Diff(numbers(0, 120), payloads(p.drain(100))); diff != "" {
				w.t.Errorf("by number (-want +got):\n%s", diff)
			}
		}, limits(func(l *broker.Limits) { l.MaxQueue = 120 }))
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			p.drop()
			pub := w.connect(v, "pub")
			for range 10 {
				pub.publish(plain(1, "a", strings.Repeat("x", 10_000)))
			}
			p, _ = w.attach(v, "c", true, resuming(3600))
			if got := len(p.drain(100)); got < 3 || got > 5 {
				w.t.Errorf("%d messages of 10,000 bytes from a queue of 50,000", got)
			}
		}, limits(func(l *broker.Limits) { l.MaxQueueBytes = 50_000 }))
	})
}

// The agreed size of a queue, as operators are told.
func TestDefaultQueue(t *testing.T) {
	t.Parallel()
	for _, profile := range []topic.Profile{topic.AWS, topic.Standard} {
		l := broker.DefaultLimits(profile)
		if l.MaxQueue != 100_000 || l.MaxQueueBytes != 64<<20 || l.MaxInflight != 100 {
			t.Errorf("%v: queue %d messages, %d bytes, window %d", profile, l.MaxQueue, l.MaxQueueBytes, l.MaxInflight)
		}
	}
}

// Another protocol family ends the session instead of resuming it.
func TestOtherProtocolFamily(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		other := mqtt.V311
		if v == other {
			other = mqtt.V5
		}
		for name, away := range map[string]bool{"away": true, "taken over": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				inWorld(t, topic.AWS, func(w *world) {
					p, _ := w.attach(v, "c", false, resuming(3600))
					p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
					pub := w.connect(v, "pub")
					if away {
						p.drop()
						pub.publish(plain(1, "a", "1"))
					}
					q, _ := w.attach(other, "c", false, resuming(3600))
					pub.publish(plain(1, "a", "2"))
					q.hears()
					q.drop()
					// And back again: that was an end, not an absence.
					w.attach(v, "c", false, resuming(3600))
				})
			})
		}
	})
}

// Messages without acknowledgement come again on the next connection, with
// their packet ids, in order, before what is new. DUP is a matter of profile.
func TestRedeliveryOnReconnect(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]topic.Profile{"aws": topic.AWS, "standard": topic.Standard} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, v mqtt.Version) {
				t.Helper()
				inWorld(t, profile, func(w *world) {
					p, _ := w.attach(v, "c", false, resuming(3600))
					p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
					pub := w.connect(v, "pub")
					pub.publishNumbers("a", 0, 20)
					first := p.publishes()
					p.ack(first[3].PacketID, first[0].PacketID, first[7].PacketID)
					synctest.Wait()
					for range 2 { // the second time is like the first
						p.drop()
						pub.publishNumbers("a", 20, 21)
						p, _ = w.attach(v, "c", true, resuming(3600))
						var want []*mqtt.Publish
						for i, m := range first {
							if !slices.Contains([]int{0, 3, 7}, i) {
								m.Dup = profile == topic.Standard
								want = append(want, m)
							}
						}
						again := p.publishes()
						if len(again) < len(want) {
							w.t.Fatalf("%d redelivered, want %d", len(again), len(want))
						}
						if diff := cmp.Diff(want, again[:len(want)]); diff != "" {
							w.t.Errorf("redelivered (-want +got):\n%s", diff)
						}
						fresh := again[len(want):]
						if got := payloads(fresh); len(got) == 0 || got[0] != "20" {
							w.t.Errorf("then %q", got)
						}
						for _, m := range fresh {
							if slices.Contains(packetIDs(want), m.PacketID) {
								w.t.Errorf("packet id %d is in use twice", m.PacketID)
							}
							if m.PacketID == 0 {
								w.t.Error("packet id 0")
							}
						}
						p.ack(packetIDs(fresh)...)
						synctest.Wait()
						if m := fresh[0]; m.Dup {
							w.t.Error("a first delivery says it is a repetition")
						}
					}
				})
			})
		})
	}
}

// A new connection with a smaller receive maximum holds for what is to be
// redelivered as well.
func TestWindowShrinksOnReconnect(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		w.connect(mqtt.V5, "pub").publishNumbers("a", 0, 250)
		if got := len(p.publishes()); got != 100 {
			w.t.Fatalf("%d in flight", got)
		}
		for _, window := range []uint16{10, 1, 65535, 3} {
			p.drop()
			p, _ = w.attach(mqtt.V5, "c", true, resuming(3600), receiving(window))
			got := p.publishes()
			if want := min(int(window), 100); len(got) != want || string(got[0].Payload) != "0" {
				w.t.Fatalf("window %d: %q", window, payloads(got))
			}
		}
		p.drop()
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600), receiving(7))
		if diff := cmp.Diff(numbers(0, 250), payloads(p.drain(7))); diff != "" {
			w.t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

// A stored message that is larger than the client takes now is left out, and
// does not hold up the others.
func TestPacketSizeShrinksOnReconnect(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]bool{"queued": false, "unacknowledged": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
				p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
				if !wait {
					p.drop()
				}
				pub := w.connect(mqtt.V5, "pub")
				for _, size := range []int{10, 5000, 20} {
					pub.publish(plain(1, "a", strings.Repeat("x", size)))
				}
				if wait {
					p.drop()
				}
				p, _ = w.attach(mqtt.V5, "c", true, resuming(3600), func(c *mqtt.Connect) {
					c.Properties.Set |= mqtt.Of(mqtt.PropMaximumPacketSize)
					c.Properties.MaximumPacketSize = 1000
				})
				var sizes []int
				for _, m := range p.drain(100) {
					sizes = append(sizes, len(m.Payload))
				}
				if diff := cmp.Diff([]int{10, 20}, sizes); diff != "" {
					w.t.Errorf("delivered (-want +got):\n%s", diff)
				}
				p.drop()
				p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
				p.hears()
			})
		})
	}
}

// Restored subscriptions are ordinary ones: they are replaced, given up and
// counted like those of this connection.
func TestRestoredSubscriptions(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1}, mqtt.Subscription{Filter: "b"}, mqtt.Subscription{Filter: "c/#", QoS: 1}, mqtt.Subscription{Filter: "$share/g/d", QoS: 1})
			p.leave()
			want := []string{"$share/g/d 1", "a 1", "b 0", "c/# 1"}
			if diff := cmp.Diff(want, w.filters("c")); diff != "" {
				w.t.Errorf("while away (-want +got):\n%s", diff)
			}
			p, _ = w.attach(v, "c", true, resuming(3600))
			if diff := cmp.Diff(want, w.filters("c")); diff != "" {
				w.t.Errorf("restored (-want +got):\n%s", diff)
			}
			pub := w.connect(v, "pub")
			for _, name := range []string{"a", "b", "c/d", "d"} {
				pub.publish(plain(1, name, "1"))
			}
			p.hears("a 1", "b 1", "c/d 1", "d 1")
			p.grants(mqtt.Subscription{Filter: "a"})
			p.gives("c/#", "$share/g/d")
			p.leave()
			for _, name := range []string{"a", "b", "c/d", "d"} {
				pub.publish(plain(1, name, "2"))
			}
			p, _ = w.attach(v, "c", true, resuming(3600))
			pub.publish(plain(1, "a", "3"))
			got := p.publishes()
			if len(got) == 0 || string(got[len(got)-1].Payload) != "3" || got[len(got)-1].QoS != 0 {
				w.t.Errorf("after the subscription was replaced: %q", payloads(got))
			}
			if diff := cmp.Diff([]string{"a 0", "b 0"}, w.filters("c")); diff != "" {
				w.t.Errorf("at last (-want +got):\n%s", diff)
			}
		})
		inWorld(t, topic.AWS, func(w *world) { // 5 in all
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "1"}, mqtt.Subscription{Filter: "2"}, mqtt.Subscription{Filter: "3"})
			p.leave()
			p, _ = w.attach(v, "c", true, resuming(3600))
			codes := p.subscribe(mqtt.Subscription{Filter: "3"}, mqtt.Subscription{Filter: "4"}, mqtt.Subscription{Filter: "5"}, mqtt.Subscription{Filter: "6"})
			if len(codes) != 4 || codes[0].Failed() || codes[1].Failed() || codes[2].Failed() || !codes[3].Failed() {
				w.t.Errorf("codes %#x", codes)
			}
		}, limits(func(l *broker.Limits) { l.MaxSubscriptions = 5 }))
	})
}

// Whether a client may receive a message is decided when it is delivered.
func TestStoredMessagesAndPolicy(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "#", QoS: 1})
			p.drop()
			pub := w.connect(v, "pub")
			for _, name := range []string{"a", "b", "a", "c"} {
				pub.publish(plain(1, name, "1"))
			}
			w.gate.refuse("receive a")
			p, _ = w.attach(v, "c", true, resuming(3600))
			p.hears("b 1", "c 1")
			if got := w.seen.denials(); !slices.Contains(got, "iot:Receive a") {
				w.t.Errorf("denials %q", got)
			}
		})
	})
}

// On a connection that lives an unacknowledged message comes again after 20
// seconds, then after twice as long, and is given up after an hour. That is
// the AWS profile; the standard forbids it.
func TestRedeliveryOnTheSameConnection(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p := w.connect(v, "c")
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			pub := w.connect(v, "pub")
			pub.publishNumbers("a", 0, 3)
			first := p.publishes()
			p.ack(first[1].PacketID)
			want := []*mqtt.Publish{first[0], first[2]}
			begun := time.Now()
			for i, after := range []time.Duration{20 * time.Second, 60 * time.Second, 140 * time.Second} {
				idle(after-2*time.Second-time.Since(begun), p, pub)
				if early := p.publishes(); len(early) != 0 {
					w.t.Fatalf("repetition %d: %v too early: %q", i, time.Since(begun), payloads(early))
				}
				idle(5*time.Second, p, pub)
				if diff := cmp.Diff(want, p.publishes()); diff != "" {
					w.t.Fatalf("repetition %d after %v (-want +got):\n%s", i, time.Since(begun), diff)
				}
			}
			p.ack(packetIDs(want)...)
			idle(2*time.Hour, p, pub)
			if late := p.publishes(); len(late) != 0 {
				w.t.Errorf("acknowledged and sent again: %q", payloads(late))
			}
		})
		inWorld(t, topic.AWS, func(w *world) { // a window of 1
			p := w.connect(v, "c")
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			pub := w.connect(v, "pub")
			pub.publishNumbers("a", 0, 2)
			idle(59*time.Minute, p, pub)
			for _, m := range p.publishes() {
				if string(m.Payload) != "0" {
					w.t.Fatalf("%s within the hour", m.Payload)
				}
			}
			idle(3*time.Minute, p, pub)
			got := payloads(p.publishes())
			if len(got) == 0 || got[len(got)-1] != "1" {
				w.t.Errorf("after an hour: %q", got)
			}
		}, limits(func(l *broker.Limits) { l.MaxInflight = 1 }))
		inWorld(t, topic.Standard, func(w *world) {
			p := w.connect(v, "c")
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			pub := w.connect(v, "pub")
			pub.publishNumbers("a", 0, 3)
			p.hears("a 0", "a 1", "a 2")
			idle(3*time.Hour, p, pub)
			p.hears()
		})
	})
}

// Acknowledgements for nothing, or given twice, change nothing.
func TestStrayAcknowledgements(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			pub := w.connect(v, "pub")
			for n := range 10 {
				pub.publishNumbers("a", n, n+1)
			}
			first := p.publishes()
			if len(first) != 2 {
				w.t.Fatalf("%d in a window of 2", len(first))
			}
			p.ack(first[0].PacketID, first[0].PacketID, 9999, first[0].PacketID)
			got := p.publishes()
			if len(got) > 1 {
				w.t.Fatalf("one acknowledgement made room for %d", len(got))
			}
			p.ack(first[1].PacketID, 4242)
			got = append(got, p.publishes()...)
			p.ack(packetIDs(got)...)
			got = append(got, p.drain(2)...)
			if diff := cmp.Diff(numbers(2, 10), payloads(got)); diff != "" {
				w.t.Errorf("the rest (-want +got):\n%s", diff)
			}
		}, limits(func(l *broker.Limits) { l.MaxInflight = 2 }))
	})
}

// Packet ids go round, and skip those that are still in use.
func TestPacketIDsGoRound(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V311, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		pub := w.connect(mqtt.V311, "pub")
		pub.publishNumbers("a", 0, 1)
		stuck := p.publishes()
		const total = 70_000
		for n := 1; n < total; n += burst {
			pub.publishNumbers("a", n, min(n+burst, total))
			got := p.publishes()
			if len(got) != min(burst, total-n) || string(got[0].Payload) != strconv.Itoa(n) {
				w.t.Fatalf("%d: %d received", n, len(got))
			}
			for _, m := range got {
				if m.PacketID == 0 || m.PacketID == stuck[0].PacketID {
					w.t.Fatalf("%s has packet id %d", m.Payload, m.PacketID)
				}
			}
			p.ack(packetIDs(got)...)
		}
		p.drop()
		p, _ = w.attach(mqtt.V311, "c", true, resuming(3600))
		p.hears("a 0")
	})
}

// What was queued leaves with what is left of its expiry, or not at all; the
// publisher's version decides, not the receiver's.
func TestStoredMessagesExpire(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			p.drop()
			pub := w.connect(mqtt.V5, "pub")
			for i, seconds := range []uint32{100, 5, 0, 700_000} {
				pub.publish(expiringMessage(1, "a", strconv.Itoa(i), seconds))
			}
			pub.publish(plain(1, "a", "4"))
			time.Sleep(10*time.Second + time.Millisecond)
			p, _ = w.attach(v, "c", true, resuming(3600))
			got := p.publishes()
			if diff := cmp.Diff([]string{"0", "3", "4"}, payloads(got)); diff != "" {
				w.t.Fatalf("delivered (-want +got):\n%s", diff)
			}
			if v == mqtt.V5 {
				for i, want := range []uint32{90, 604_790, 0} {
					if left := got[i].Properties.MessageExpiry; left != want && left != want-1 {
						w.t.Errorf("message %s: %d s are left, want %d", got[i].Payload, left, want)
					}
				}
			}
			// Unacknowledged, it expires all the same.
			p.drop()
			time.Sleep(100 * time.Second)
			p, _ = w.attach(v, "c", true, resuming(3600))
			p.hears("a 3", "a 4")
		})
	})
}

// The life of one session on several connections, as the observer and the
// operator see it.
func TestSessionIsToldOf(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		begun := time.Now()
		time.Sleep(3 * time.Second)
		p.drop()
		info, ok := w.stored("c")
		if !ok || info.Connected || info.Reason != broker.ReasonConnectionLost || info.DisconnectedAt.Sub(begun) != 3*time.Second || info.SessionExpiry != 600 {
			w.t.Errorf("while away: %v %+v", ok, info)
		}
		p, _ = w.attach(mqtt.V5, "c", true, resuming(600))
		if info, ok = w.stored("c"); !ok || !info.Connected || info.Reason != "" || !info.DisconnectedAt.IsZero() {
			w.t.Errorf("connected: %v %+v", ok, info)
		}
		q, _ := w.attach(mqtt.V5, "c", true, resuming(600))
		checkFarewell(w.t, p, mqtt.SessionTakenOver)
		q.leave()
		w.attach(mqtt.V5, "c", false, func(c *mqtt.Connect) { c.CleanStart = true })
		w.seen.mu.Lock()
		told := slices.Clone(w.seen.connected)
		w.seen.mu.Unlock()
		if len(told) != 4 {
			w.t.Fatalf("%d connections were told", len(told))
		}
		if told[0].SessionID != told[1].SessionID || told[1].SessionID != told[2].SessionID || told[2].SessionID == told[3].SessionID {
			w.t.Errorf("session ids %s %s %s %s", told[0].SessionID, told[1].SessionID, told[2].SessionID, told[3].SessionID)
		}
		if told[0].ConnectionID == told[1].ConnectionID || told[1].ConnectionID == told[2].ConnectionID {
			w.t.Error("connections share an id")
		}
		want := []ending{
			{"c", broker.ReasonConnectionLost, false},
			{"c", broker.ReasonDuplicateClientID, false},
			{"c", broker.ReasonClientInitiated, true},
		}
		if diff := cmp.Diff(want, w.seen.ends()); diff != "" {
			w.t.Errorf("ends (-want +got):\n%s", diff)
		}
		if got := w.gate.guards(); got != 1 {
			w.t.Errorf("%d guards are open", got)
		}
	})
}

// A resumed session keeps to the account: the same client id elsewhere is
// another client.
func TestSessionsOfAccountsAreSeparate(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V311, "c", false, resuming(0))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		p.drop()
		w.gate.mu.Lock()
		w.gate.accountOf = elsewhere
		w.gate.mu.Unlock()
		other, _ := w.attach(mqtt.V311, "c", false, resuming(0))
		w.connect(mqtt.V311, "pub").publish(plain(1, "a", "1"))
		other.hears()
		w.gate.mu.Lock()
		w.gate.accountOf = nil
		w.gate.mu.Unlock()
		p, _ = w.attach(mqtt.V311, "c", true, resuming(0))
		p.hears()
	})
}
