package broker_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/topic"
)

// An expired session leaves no subscription behind: who comes back under its
// name, or anybody else, gets nothing through it.
func TestExpiredSessionLeavesNothing(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			old, _ := w.attach(v, "c", false, resuming(600))
			old.grants(mqtt.Subscription{Filter: "a/+", QoS: 1}, mqtt.Subscription{Filter: "b", QoS: 1}, mqtt.Subscription{Filter: "$share/g/s", QoS: 1})
			old.drop()
			time.Sleep(2 * time.Hour)
			if info, ok := w.stored("c"); ok {
				w.t.Errorf("still stored: %+v", info)
			}
			if got := w.filters("c"); got != nil {
				w.t.Errorf("subscriptions %q", got)
			}
			fresh, _ := w.attach(v, "c", false, resuming(600))
			pub := w.connect(v, "pub")
			for _, name := range []string{"a/b", "b", "s"} {
				pub.publish(plain(1, name, "x"))
			}
			fresh.hears()
			if got := w.filters("c"); len(got) != 0 {
				w.t.Errorf("subscriptions of the new session: %q", got)
			}
		})
	})
}

// What comes while a client is away is delivered when it returns: everything,
// once, in order.
func TestMessagesWhileAway(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			sub, _ := w.attach(v, "sub", false, resuming(3600))
			sub.grants(mqtt.Subscription{Filter: "a/#", QoS: 1})
			sub.drop()
			pub := w.connect(v, "pub")
			pub.publishNumbers("a/b", 0, 300)
			sub, _ = w.attach(v, "sub", true, resuming(3600))
			if diff := cmp.Diff(numbers(0, 300), payloads(sub.drain(100))); diff != "" {
				w.t.Errorf("delivered (-want +got):\n%s", diff)
			}
			pub.publishNumbers("a/b", 300, 310)
			if diff := cmp.Diff(numbers(300, 310), payloads(sub.drain(100))); diff != "" {
				w.t.Errorf("afterwards (-want +got):\n%s", diff)
			}
			// Acknowledged is over: nothing of it comes again.
			sub.drop()
			sub, _ = w.attach(v, "sub", true, resuming(3600))
			sub.hears()
		})
	})
}

// backlogCost delivers a backlog within a receive maximum of 20 and returns
// the processor time of the delivery.
func backlogCost(t *testing.T, v mqtt.Version, n int) (spent time.Duration) {
	t.Helper()
	inWorld(t, topic.AWS, func(w *world) {
		window := 20
		if v != mqtt.V5 {
			window = 100
		}
		sub, _ := w.attach(v, "sub", false, resuming(3600), receiving(20))
		sub.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		sub.drop()
		w.connect(v, "pub").publishNumbers("a", 0, n)
		begun := processorTime(t)
		sub, _ = w.attach(v, "sub", true, resuming(3600), receiving(20))
		got := payloads(sub.drain(window))
		spent = processorTime(t) - begun
		if !slices.Equal(got, numbers(0, n)) {
			w.t.Errorf("%d delivered of %d, or out of order", len(got), n)
		}
	})
	return spent
}

// processorTime is what this process has used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A large backlog is delivered within the client's receive maximum, everything
// once and in order, and eight times as much costs about eight times as much.
// It is not parallel: it measures the processor time of the process.
func TestBacklogWithinReceiveMaximum(t *testing.T) { //nolint:paralleltest // it measures this process
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			var ratio float64
			for range 3 { // a disturbance makes a single run say anything
				small := backlogCost(t, v, 1000)
				backlogCost(t, v, 4000)
				large := backlogCost(t, v, 8000)
				ratio = float64(large) / float64(max(small, time.Millisecond)) / 8
				t.Logf("1,000 in %v, 8,000 in %v: %.2f times the cost of a message", small, large, ratio)
				if ratio < 3 || t.Failed() {
					return
				}
			}
			t.Errorf("a message of a backlog of 8,000 costs %.1f times one of 1,000", ratio)
		})
	}
}

// Policy is asked about the topic that an alias stands for, and so are those
// who receive what waited for them.
func TestAliasAndPolicy(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		subs := []*peer{w.connect(mqtt.V5, "sub5"), w.connect(mqtt.V311, "sub3")}
		away, _ := w.attach(mqtt.V5, "away", false, resuming(3600))
		for _, p := range append(subs, away) {
			p.grants(mqtt.Subscription{Filter: "#", QoS: 1})
		}
		away.drop()
		w.gate.refuse("publish secret", "publish ", "receive hidden", "receive ")
		pub := w.connect(mqtt.V5, "pub")
		aliased := func(name string, alias uint16, payload string) *mqtt.Publish {
			m := plain(1, name, payload)
			m.PacketID = 1
			m.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropTopicAlias), TopicAlias: alias}
			return m
		}
		for _, c := range []struct {
			m    *mqtt.Publish
			want mqtt.ReasonCode
		}{
			{aliased("open", 1, "1"), mqtt.Success},
			{aliased("", 1, "2"), mqtt.Success},
			{aliased("secret", 2, "no"), mqtt.NotAuthorized},
			{aliased("hidden", 3, "unheard"), mqtt.Success},
			{aliased("", 3, "unheard"), mqtt.Success},
			{aliased("other", 1, "3"), mqtt.Success},
			{aliased("", 1, "4"), mqtt.Success},
		} {
			pub.send(c.m)
			if a, ok := pub.next().(*mqtt.Ack); !ok || a.Reason != c.want {
				w.t.Fatalf("%s %s: %+v, want %#x", c.m.Topic, c.m.Payload, a, byte(c.want))
			}
		}
		want := []string{"open 1", "open 2", "other 3", "other 4"}
		for _, p := range subs {
			p.hears(want...)
		}
		away, _ = w.attach(mqtt.V5, "away", true, resuming(3600))
		away.hears(want...)
	})
}

// course is what a persistent subscriber received on each of its connections.
type course struct {
	mu   sync.Mutex
	runs [][]int
}

// listener returns a client's function for messages on a new connection.
func (c *course) listener() func(*mqtt.Publish) {
	c.mu.Lock()
	defer c.mu.Unlock()
	run := len(c.runs)
	c.runs = append(c.runs, nil)
	return func(m *mqtt.Publish) {
		n, err := strconv.Atoi(string(m.Payload))
		if err != nil {
			n = -1
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.runs[run] = append(c.runs[run], n)
	}
}

// last is the highest number that was received.
func (c *course) last() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	highest := -1
	for _, run := range c.runs {
		if len(run) > 0 {
			highest = max(highest, run[len(run)-1])
		}
	}
	return highest
}

// check demands that each connection carried a gapless run, that none began
// behind a gap, and that a repetition reaches back no further than a window.
func (c *course) check(t *testing.T, total, window int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	next, repeated := 0, 0
	for i, run := range c.runs {
		for j, n := range run {
			if j > 0 && n != run[j-1]+1 {
				t.Fatalf("connection %d: %d after %d", i, n, run[j-1])
			}
		}
		if len(run) == 0 {
			continue
		}
		if run[0] > next || run[0] < next-window {
			t.Fatalf("connection %d begins with %d, %d was due", i, run[0], next)
		}
		repeated += next - run[0]
		next = max(next, run[len(run)-1]+1)
	}
	if next != total {
		t.Errorf("%d of %d received", next, total)
	}
	t.Logf("%d messages on %d connections, %d repetitions", total, len(c.runs), repeated)
}

// join connects a real client in memory.
func (w *world) join(ctx context.Context, o client.Options) (*client.Client, error) {
	ours, theirs := net.Pipe()
	go func() { _ = w.broker.Handle(ctx, theirs, broker.ListenerOptions{Name: "pipe"}) }()
	return client.Connect(ctx, ours, o)
}

// persistentOptions are those of a client that keeps its session.
func persistentOptions(v mqtt.Version, id string, onMessage func(*mqtt.Publish)) client.Options {
	o := client.Options{Version: v, ClientID: id, Persistent: true, KeepAlive: 600, OnMessage: onMessage}
	if v == mqtt.V5 {
		o.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 3600}
	}
	return o
}

// A persistent subscriber that is taken over a hundred times while messages
// flow loses none of those that were acknowledged, and sees no disorder.
func TestTakeoversLoseNothing(t *testing.T) {
	t.Parallel()
	const takeovers, window = 100, 100
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		w := newWorld(t, topic.AWS)
		ctx := t.Context()
		var got course
		sub, err := w.join(ctx, persistentOptions(v, "sub", got.listener()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sub.Subscribe(ctx, mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		pub, err := w.join(ctx, client.Options{Version: v, ClientID: "pub"})
		if err != nil {
			t.Fatal(err)
		}
		stop, total := make(chan struct{}), 0
		var publishing sync.WaitGroup
		publishing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := pub.Publish(ctx, "a", 1, []byte(strconv.Itoa(total))); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				total++
			}
		})
		for i := range takeovers {
			before := got.last()
			next, err := w.join(ctx, persistentOptions(v, "sub", got.listener()))
			if err != nil {
				t.Fatalf("takeover %d: %v", i, err)
			}
			<-sub.Done()
			sub = next
			eventually(t, fmt.Sprintf("takeover %d receives", i), func() bool { return got.last() > before+i%7 })
		}
		close(stop)
		publishing.Wait()
		eventually(t, "everything is received", func() bool { return got.last() == total-1 })
		_, _ = sub.Close(), pub.Close()
		got.check(t, total, window)
	})
}

// eventually waits for a condition in real time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// A subscriber that does not read costs its publisher nothing and loses
// nothing: all that was acknowledged comes when it reads, or when it returns.
func TestSubscriberThatDoesNotReadLosesNothing(t *testing.T) {
	t.Parallel()
	const total = 20_000
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		stall := func(w *world) *peer {
			slow := w.dialSilent(v)
			slow.sendLater(connectPacket(v, "slow", resuming(3600)), &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
			buf := make([]byte, 1)
			if _, err := slow.conn.Read(buf); err != nil { // the first byte of CONNACK
				w.t.Fatal(err)
			}
			slow.sent(buf)
			synctest.Wait()
			w.connect(v, "pub").publishNumbers("a", 0, total)
			return slow
		}
		t.Run("reads at last", func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				slow := stall(w)
				time.Sleep(5 * time.Second)
				go slow.read()
				for _, want := range []mqtt.Type{mqtt.TypeConnack, mqtt.TypeSuback} {
					if p := slow.next(); p == nil || p.Type() != want {
						w.t.Fatalf("%+v instead of %s", p, want)
					}
				}
				if got := payloads(slow.drain(100)); !slices.Equal(got, numbers(0, total)) {
					w.t.Errorf("%d delivered of %d, or out of order", len(got), total)
				}
			})
		})
		t.Run("returns", func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				slow := stall(w)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if diff := cmp.Diff([]ending{{"slow", broker.ReasonConnectionLost, false}}, w.seen.ends()); diff != "" {
					w.t.Errorf("ends (-want +got):\n%s", diff)
				}
				_ = slow.conn.Close()
				slow, _ = w.attach(v, "slow", true, resuming(3600))
				if got := payloads(slow.drain(100)); !slices.Equal(got, numbers(0, total)) {
					w.t.Errorf("%d delivered of %d, or out of order", len(got), total)
				}
			})
		})
	})
}

// sent hands bytes that a test has read itself to the reader that is to come.
func (p *peer) sent(b []byte) { p.early = append(p.early, b...) }
