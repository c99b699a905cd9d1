package broker_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// vanish makes a client that subscribes and is then gone without a word: it
// reads nothing, sends nothing, and its connection never reports an end, as
// when a cable is cut.
func (w *world) vanish(v mqtt.Version, id string, c *mqtt.Connect, subs ...mqtt.Subscription) *peer {
	w.t.Helper()
	p := w.dialSilent(v)
	c.Version, c.ClientID = v, id
	p.sendLater(c, &mqtt.Subscribe{PacketID: 1, Subscriptions: subs})
	if c, ok := p.readOne().(*mqtt.Connack); !ok || c.Reason != mqtt.Success {
		w.t.Fatalf("%s: %+v", id, c)
	}
	if s, ok := p.readOne().(*mqtt.Suback); !ok {
		w.t.Fatalf("%s: %+v", id, s)
	}
	synctest.Wait()
	return p
}

// readOne reads exactly one packet from the connection.
func (p *peer) readOne() mqtt.Packet {
	p.t.Helper()
	var b []byte
	for {
		var one [1]byte
		if _, err := p.conn.Read(one[:]); err != nil {
			p.t.Fatal(err)
		}
		b = append(b, one[0])
		packet, _, err := mqtt.Frame(b, 1<<20)
		if err != nil {
			p.t.Fatal(err)
		}
		if packet == nil {
			continue
		}
		decoded, err := mqtt.Decode(packet, p.version)
		if err != nil {
			p.t.Fatal(err)
		}
		return decoded
	}
}

// A peer that vanished is found by its keep-alive, or earlier by what it does
// not take; its will comes, its session waits, and nothing is lost to it.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		// qos of the messages that are published to it; -1 for none.
		qos    int
		reason broker.DisconnectReason
		within time.Duration
	}{
		"nothing to send":  {-1, broker.ReasonKeepAliveTimeout, 92 * time.Second},
		"QoS 0 to send":    {0, broker.ReasonConnectionLost, 22 * time.Second},
		"QoS 1 to send":    {1, broker.ReasonConnectionLost, 22 * time.Second},
		"large, to send":   {2, broker.ReasonConnectionLost, 22 * time.Second},
		"at the very last": {3, broker.ReasonKeepAliveTimeout, 92 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, v mqtt.Version) {
				t.Helper()
				inWorld(t, topic.AWS, func(w *world) {
					watch := w.connect(v, "watch")
					watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
					gone := w.vanish(v, "gone", connectPacket(v, "gone", func(c *mqtt.Connect) { c.KeepAlive = 60 }, resuming(3600), withWill("will")),
						mqtt.Subscription{Filter: "a", QoS: 1})
					pub := w.connect(v, "pub")
					payload := "x"
					if c.qos == 2 {
						payload = strings.Repeat("x", 100_000)
					}
					if c.qos == 3 {
						time.Sleep(85 * time.Second)
					}
					begun := time.Now()
					for range 10 {
						if c.qos >= 0 {
							pub.publish(plain(byte(min(c.qos, 1)), "a", payload))
						}
					}
					limit := c.within
					if c.qos == 3 {
						limit -= 85 * time.Second
					}
					for len(w.seen.ends()) == 0 && time.Since(begun) < 2*limit {
						time.Sleep(100 * time.Millisecond)
						synctest.Wait()
					}
					if diff := cmp.Diff([]ending{{"gone", c.reason, false}}, w.seen.ends()); diff != "" {
						w.t.Fatalf("ends (-want +got):\n%s", diff)
					}
					if took := time.Since(begun); took > limit {
						w.t.Errorf("found after %v, want within %v", took, limit)
					}
					watch.hears("will gone")
					_ = gone.conn.Close()
					back, _ := w.attach(v, "gone", true, resuming(3600))
					want := 0
					if c.qos > 0 {
						want = 10
					}
					if got := back.drain(100); len(got) != want {
						w.t.Errorf("%d messages of %d", len(got), want)
					}
				})
			})
		})
	}
}

// Many subscribers that do not read hold up nobody and cost a bounded amount:
// what they are sent at QoS 0 is dropped and counted.
func TestSubscribersThatDoNotRead(t *testing.T) {
	t.Parallel()
	const stalled, messages, bound = 20, 500, 32 << 10
	registry := prometheus.NewRegistry()
	inWorld(t, topic.AWS, func(w *world) {
		for i := range stalled {
			id := fmt.Sprint("stalled", i)
			w.vanish(mqtt.V311, id, connectPacket(mqtt.V311, id), mqtt.Subscription{Filter: "a"})
		}
		good := w.connect(mqtt.V5, "good")
		good.grants(mqtt.Subscription{Filter: "a"})
		pub := w.connect(mqtt.V5, "pub")
		payload := strings.Repeat("x", 1000)
		for i := range messages {
			pub.publish(plain(0, "a", strconv.Itoa(i)+payload))
			if got := good.publishes(); len(got) != 1 || !strings.HasPrefix(string(got[0].Payload), strconv.Itoa(i)+"x") {
				w.t.Fatalf("message %d: %d received at once", i, len(got))
			}
		}
		dropped := counted(w.t, registry, "muster_broker_messages_dropped_total")
		if least := float64(stalled * (messages - bound/1000 - 70)); dropped < least { // 64 KiB may be in the hands of a writer
			w.t.Errorf("%v messages were dropped, at least %v cannot have had room", dropped, least)
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if got := len(w.seen.ends()); got != stalled {
			w.t.Errorf("%d of %d were given up", got, stalled)
		}
	}, limits(func(l *broker.Limits) { l.MaxPending = bound }), func(o *broker.Options) { o.Registerer = registry })
}

// counted sums a counter over its labels.
func counted(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// A publisher that floods with QoS 0 fills the queues of nobody else: a
// subscriber of other topics gets its messages at once, and one of the flood
// gets what it can take, in order.
func TestFloodingPublisher(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			away, _ := w.attach(v, "away", false, resuming(3600))
			away.grants(mqtt.Subscription{Filter: "flood", QoS: 1})
			away.drop()
			drowning, calm := w.connect(v, "drowning"), w.connect(v, "calm")
			drowning.grants(mqtt.Subscription{Filter: "flood", QoS: 1})
			calm.grants(mqtt.Subscription{Filter: "calm", QoS: 1})
			flooder, quiet := w.connect(v, "flooder"), w.connect(v, "quiet")
			n, last := 0, -1
			for round := range 20 {
				var b []mqtt.Packet
				for range 1000 {
					b = append(b, plain(0, "flood", strconv.Itoa(n)))
					n++
				}
				flooder.send(b...)
				quiet.publish(plain(1, "calm", strconv.Itoa(round)))
				calm.drain(100)
				for _, m := range drowning.publishes() {
					got, err := strconv.Atoi(string(m.Payload))
					if err != nil || got <= last {
						w.t.Fatalf("%s after %d", m.Payload, last)
					}
					last = got
				}
			}
			if last < 0 {
				w.t.Error("nothing of the flood arrived")
			}
			if n := len(w.seen.ends()); n != 1 {
				w.t.Errorf("%d connections ended", n)
			}
			// Nothing of it was stored for those who are away.
			away, _ = w.attach(v, "away", true, resuming(3600))
			away.hears()
		})
	})
}

// A flood of QoS 1 for a session that is away fills its queue and no more; the
// publisher is served, and the session gets the beginning.
func TestFloodForASessionThatIsAway(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	inWorld(t, topic.AWS, func(w *world) {
		away, _ := w.attach(mqtt.V5, "away", false, resuming(3600))
		away.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		away.drop()
		w.connect(mqtt.V5, "pub").publishNumbers("a", 0, 5000)
		if dropped := counted(w.t, registry, "muster_broker_messages_dropped_total"); dropped != 4000 {
			w.t.Errorf("%v were counted as dropped, 4000 were", dropped)
		}
		away, _ = w.attach(mqtt.V5, "away", true, resuming(3600))
		if got := payloads(away.drain(100)); !slices.Equal(got, numbers(0, 1000)) {
			w.t.Errorf("%d delivered, or not the oldest", len(got))
		}
	}, limits(func(l *broker.Limits) { l.MaxQueue = 1000 }), func(o *broker.Options) {
		o.Registerer, o.Logger = registry, slog.New(slog.DiscardHandler)
	})
}

// A client that connects and never speaks again has its connection until its
// keep-alive is over, whatever is asked of it; the session is as it was.
func TestClientThatNeverSpeaks(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "mute", false, resuming(3600), func(c *mqtt.Connect) { c.KeepAlive = 0 }, withWill("will"))
			watch := w.connect(v, "watch")
			watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
			idle(1799*time.Second, watch) // keep-alive 0 stands for 1200
			if p.isClosed() {
				w.t.Fatal("ended before its time")
			}
			idle(4*time.Second, watch)
			p.waitClosed()
			watch.hears("will gone")
			w.attach(v, "mute", true, resuming(3600))
		})
	})
}
