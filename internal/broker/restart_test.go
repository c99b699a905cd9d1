package broker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// ledger is a keeper in memory. What is saved is durable after delay, in the
// order of the calls; what was not by the time of a crash is lost.
type ledger struct {
	mu    sync.Mutex
	delay time.Duration
	// err is what saving answers, nil when it works.
	err     error
	waiting []entry
	busy    bool
	// cut is set by a crash: what comes later is from a dead process.
	cut bool
	// before is the ledger of the process before.
	before   *ledger
	sessions map[box]broker.Change
	retained map[box]broker.Change
	messages map[box]map[uint64]broker.Change
	wrong    []string
}

// entry is a change that is not durable yet.
type entry struct {
	change broker.Change
	done   func(error)
}

// box is where a change belongs.
type box struct {
	account fleet.Account
	name    string
}

func newLedger() *ledger {
	return &ledger{sessions: map[box]broker.Change{}, retained: map[box]broker.Change{}, messages: map[box]map[uint64]broker.Change{}}
}

// Save takes a change and makes it durable later.
func (l *ledger) Save(c broker.Change, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		if done != nil {
			go done(errors.New("the process is dead"))
		}
		return
	}
	l.waiting = append(l.waiting, entry{c, done})
	if !l.busy {
		l.busy = true
		go l.work()
	}
}

// work makes what waits durable, one group after the other.
func (l *ledger) work() {
	for {
		l.mu.Lock()
		group, delay, err := l.waiting, l.delay, l.err
		l.waiting = nil
		l.busy = len(group) > 0
		l.mu.Unlock()
		if len(group) == 0 {
			return
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		for _, e := range group {
			result := err
			l.mu.Lock()
			if l.cut {
				result = errors.New("the process is dead")
			} else if err == nil {
				l.apply(e.change)
			}
			l.mu.Unlock()
			if e.done != nil {
				e.done(result)
			}
		}
	}
}

// apply changes what is durable.
func (l *ledger) apply(c broker.Change) {
	at := box{c.Account, c.Box}
	switch c.Kind {
	case broker.PutSession:
		l.sessions[at] = c
	case broker.DropSession:
		delete(l.sessions, at)
	case broker.PutMessage:
		if l.messages[at] == nil {
			l.messages[at] = map[uint64]broker.Change{}
		}
		if _, ok := l.messages[at][c.Seq]; ok {
			l.wrong = append(l.wrong, fmt.Sprintf("message %d of %s is saved twice", c.Seq, c.Box))
		}
		l.messages[at][c.Seq] = c
	case broker.DropMessage:
		delete(l.messages[at], c.Seq)
		if len(l.messages[at]) == 0 {
			delete(l.messages, at)
		}
	case broker.PutRetained:
		l.retained[at] = c
	case broker.DropRetained:
		delete(l.retained, at)
	}
}

// Load tells of sessions, then of messages in order, then of what is retained.
func (l *ledger) Load(_ context.Context, fn func(broker.Change) error) error {
	l.mu.Lock()
	var all []broker.Change
	for _, c := range l.sessions {
		all = append(all, c)
	}
	for _, numbered := range l.messages {
		for _, seq := range slices.Sorted(maps.Keys(numbered)) {
			all = append(all, numbered[seq])
		}
	}
	for _, c := range l.retained {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// crash returns a ledger with what is durable now, as the next process finds
// it; this one takes nothing any more.
func (l *ledger) crash() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	next := newLedger()
	next.delay, next.wrong, next.before = l.delay, l.wrong, l
	next.sessions, next.retained = maps.Clone(l.sessions), maps.Clone(l.retained)
	for at, numbered := range l.messages {
		next.messages[at] = maps.Clone(numbered)
	}
	return next
}

// rest waits until nothing is under way any more.
func (l *ledger) rest() {
	for ; l != nil; l = l.before {
		for busy := true; busy; {
			time.Sleep(time.Second)
			l.mu.Lock()
			busy = l.busy
			l.mu.Unlock()
		}
	}
}

// counts returns how many sessions, waiting messages and retained messages are
// durable.
func (l *ledger) counts() [3]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := 0
	for _, numbered := range l.messages {
		waiting += len(numbered)
	}
	return [3]int{len(l.sessions), waiting, len(l.retained)}
}

// keeping gives a world's broker a ledger.
func keeping(l *ledger) func(*broker.Options) {
	return func(o *broker.Options) { o.Keeper = l }
}

// restart ends the broker, in good order or by a crash, and starts another on
// what is durable. Connections are gone afterwards.
func (w *world) restart(crash bool) {
	w.t.Helper()
	l, ok := w.options.Keeper.(*ledger)
	if !ok {
		w.t.Fatal("the world keeps nothing")
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if crash {
		w.options.Keeper = l.crash()
	}
	if err := w.broker.Shutdown(ctx); err != nil {
		w.t.Fatalf("shutdown: %v", err)
	}
	synctest.Wait()
	w.broker = broker.New(w.options)
	if err := w.broker.Recover(ctx); err != nil {
		w.t.Fatalf("recover: %v", err)
	}
	synctest.Wait()
	for _, wrong := range l.wrong {
		w.t.Error(wrong)
	}
}

// bothRestarts runs a test for both ends of a process and both protocols.
func bothRestarts(t *testing.T, test func(w *world, v mqtt.Version, restart func())) {
	t.Helper()
	for name, crash := range map[string]bool{"in order": false, "by a crash": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, v mqtt.Version) {
				t.Helper()
				inWorld(t, topic.AWS, func(w *world) {
					test(w, v, func() { w.restart(crash) })
				}, keeping(newLedger()))
			})
		})
	}
}

// A session with all it holds survives the process: subscriptions, what was
// sent and not acknowledged, what waits behind it, in order.
func TestSessionSurvivesRestart(t *testing.T) {
	t.Parallel()
	bothRestarts(t, func(w *world, v mqtt.Version, restart func()) {
		t := w.t
		p, _ := w.attach(v, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a/+", QoS: 1}, mqtt.Subscription{Filter: "zero"})
		clean := w.connect(v, "clean")
		clean.grants(mqtt.Subscription{Filter: "a/+", QoS: 1})
		pub := w.connect(v, "pub")
		pub.publishNumbers("a/b", 0, 250)
		first := p.publishes()
		p.ack(first[0].PacketID, first[2].PacketID)
		synctest.Wait()
		restart()
		if _, ok := w.stored("clean"); ok {
			t.Error("a clean session is back")
		}
		if info, ok := w.stored("c"); !ok || info.Connected || info.DisconnectedAt.IsZero() {
			t.Errorf("after the restart: %v %+v", ok, info)
		}
		pub = w.connect(v, "pub")
		pub.publishNumbers("a/b", 250, 260)
		restart()
		p, _ = w.attach(v, "c", true, resuming(3600))
		if diff := cmp.Diff([]string{"a/+ 1", "zero 0"}, w.filters("c")); diff != "" {
			t.Errorf("subscriptions (-want +got):\n%s", diff)
		}
		want := append([]string{"1"}, numbers(3, 260)...)
		if diff := cmp.Diff(want, payloads(p.drain(100))); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		synctest.Wait()
		restart()
		p, _ = w.attach(v, "c", true, resuming(3600))
		p.hears()
		w.connect(v, "pub").publishNumbers("a/b", 260, 261)
		p.hears("a/b 260")
	})
}

// A session that took the place of another is the one that is kept, with
// nothing of the one before.
func TestReplacedSessionAcrossRestart(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"while away": true, "by takeover": false} {
		for _, subscribes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, subscribes %v", name, subscribes), func(t *testing.T) {
				t.Parallel()
				inWorld(t, topic.AWS, func(w *world) {
					p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
					p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
					pub := w.connect(mqtt.V5, "pub")
					pub.publishNumbers("a", 0, 3)
					if away {
						p.drop()
					}
					p, _ = w.attach(mqtt.V5, "c", false, expiring(3600)) // a clean start
					var want []string
					if subscribes {
						p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
						want = []string{"a 9"}
					}
					pub.publishNumbers("a", 9, 10)
					synctest.Wait()
					w.restart(true)
					p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
					p.hears(want...)
				}, keeping(newLedger()))
			})
		}
	}
}

// Time goes on while no process runs: sessions end, messages expire, wills
// come.
func TestTimePassesBetweenProcesses(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		for id, seconds := range map[string]uint32{"short": 60, "long": 3600, "connected": 60} {
			p, _ := w.attach(mqtt.V5, id, false, resuming(seconds), withWill("will/"+id), delayed(1800), func(c *mqtt.Connect) { c.Will.QoS = 1 })
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			if id != "connected" {
				p.drop()
			}
		}
		watch, _ := w.attach(mqtt.V5, "watch", false, resuming(3600))
		watch.grants(mqtt.Subscription{Filter: "will/+", QoS: 1})
		watch.drop()
		pub := w.connect(mqtt.V5, "pub")
		pub.publish(expiringMessage(1, "a", "short", 30))
		pub.publish(expiringMessage(1, "a", "long", 3600))
		synctest.Wait()
		next, ok := w.options.Keeper.(*ledger)
		if !ok {
			w.t.Fatal("no ledger")
		}
		w.options.Keeper = next.crash()
		if err := w.broker.Shutdown(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(45 * time.Second)
		w.broker = broker.New(w.options)
		if err := w.broker.Recover(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(slack)
		synctest.Wait()
		if _, ok := w.stored("short"); ok {
			w.t.Error("a session outlived its time")
		}
		long, _ := w.attach(mqtt.V5, "long", true, resuming(3600))
		if got := payloads(long.publishes()); !slices.Equal(got, []string{"long"}) {
			w.t.Errorf("long: %q", got)
		}
		// Nobody saw when this one left: its time began with the new process.
		time.Sleep(2*time.Minute - slack)
		synctest.Wait()
		if _, ok := w.stored("connected"); ok {
			w.t.Error("the session of a lost connection outlived its time")
		}
		watch, _ = w.attach(mqtt.V5, "watch", true, resuming(3600))
		got := payloads(watch.drain(100))
		if len(got) != 2 {
			w.t.Errorf("%d wills, those of the two short sessions are due: %q", len(got), got)
		}
	}, keeping(newLedger()))
}

// Retained messages, and what shared groups keep, survive as well.
func TestRetainedAndSharedSurviveRestart(t *testing.T) {
	t.Parallel()
	bothRestarts(t, func(w *world, v mqtt.Version, restart func()) {
		p, _ := w.attach(v, "c", false, resuming(3600))
		p.share("g", "s", 1)
		p.drop()
		pub := w.connect(v, "pub")
		pub.publish(retained(1, "a", "1"))
		pub.publish(retained(0, "b", "1"))
		pub.publish(retained(1, "c", "1"))
		pub.publish(retained(1, "a", "2"))
		pub.publish(retained(1, "c", ""))
		pub.publishNumbers("s", 0, 20)
		synctest.Wait()
		restart()
		w.retains("a", "2")
		w.retains("b", "1")
		w.retains("c", "")
		q := w.connect(v, "new")
		q.share("g", "s", 1)
		if diff := cmp.Diff(numbers(0, 20), payloads(q.drain(100))); diff != "" {
			w.t.Errorf("delivered (-want +got):\n%s", diff)
		}
		synctest.Wait()
		restart()
		p, _ = w.attach(v, "c", true, resuming(3600))
		p.hears()
	})
}

// What has come to its end leaves nothing in the store.
func TestNothingIsLeftInTheStore(t *testing.T) {
	t.Parallel()
	l := newLedger()
	inWorld(t, topic.AWS, func(w *world) {
		for i, end := range []func(p *peer, id string){
			func(p *peer, _ string) { p.leave(); time.Sleep(2 * time.Hour) },
			func(p *peer, id string) {
				w.attach(p.version, id, false)
			},
			func(p *peer, id string) {
				p.drop()
				w.broker.Remove(account, id, broker.RemoveOptions{EndSession: true})
			},
			func(p *peer, id string) {
				p.leave()
				p, _ = w.attach(p.version, id, true, resuming(3600))
				p.drain(100)
				p.gives("a", "$share/g/s")
				w.broker.Remove(account, id, broker.RemoveOptions{EndSession: true})
			},
			func(p *peer, _ string) {
				p.send(&mqtt.Disconnect{Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry)}})
				p.waitClosed()
			},
		} {
			id := fmt.Sprint("c", i)
			p, _ := w.attach(mqtt.V5, id, false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1}, mqtt.Subscription{Filter: "$share/g/s", QoS: 1})
			p.drop()
			pub := w.connect(mqtt.V5, "pub")
			pub.publishNumbers("a", 0, 150)
			pub.publishNumbers("s", 0, 5)
			if got := l.counts(); got[0] != 1 || got[1] != 155 {
				w.t.Errorf("%s: %v sessions, messages and retained are stored", id, got)
			}
			p, _ = w.attach(mqtt.V5, id, true, resuming(3600))
			end(p, id)
			synctest.Wait()
			if got := l.counts(); got != [3]int{} {
				w.t.Errorf("%s: %v sessions, messages and retained are left", id, got)
			}
			pub.leave()
		}
	}, keeping(l))
}

// Acknowledged means stored: a publisher's answer waits for the disk when the
// message waits for a session or is retained. What needs no disk does not
// wait, also behind it on another connection.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		l := newLedger()
		inWorld(t, topic.AWS, func(w *world) {
			away, _ := w.attach(v, "away", false, resuming(3600))
			away.grants(mqtt.Subscription{Filter: "stored", QoS: 1})
			away.drop()
			live := w.connect(v, "live")
			live.grants(mqtt.Subscription{Filter: "#", QoS: 1})
			durable, quick := w.connect(v, "durable"), w.connect(v, "quick")
			time.Sleep(time.Minute)
			l.mu.Lock()
			l.delay = 10 * time.Second
			l.mu.Unlock()
			durable.send(&mqtt.Publish{QoS: 1, PacketID: 1, Topic: []byte("stored"), Payload: []byte("1")},
				&mqtt.Publish{QoS: 1, PacketID: 2, Topic: []byte("other"), Payload: []byte("2")})
			retaining := w.connect(v, "retaining")
			retaining.send(&mqtt.Publish{QoS: 1, PacketID: 3, Retain: true, Topic: []byte("kept"), Payload: []byte("3")})
			synctest.Wait()
			// Others are served at once, and so are live subscribers.
			live.hears("stored 1", "other 2", "kept 3")
			quick.publish(plain(1, "q", "4"))
			quick.publish(plain(0, "q", "5"))
			live.hears("q 4", "q 5")
			durable.acknowledged(0)
			if got := retaining.all(); len(got) != 0 {
				w.t.Errorf("retained and acknowledged before it was stored: %+v", got)
			}
			time.Sleep(9 * time.Second)
			durable.acknowledged(0)
			time.Sleep(12 * time.Second)
			durable.acknowledged(2) // in order
			if got := retaining.all(); len(got) != 1 {
				w.t.Errorf("answers to the retained one: %+v", got)
			}
			// A crash now loses nothing that was acknowledged.
			durable.send(&mqtt.Publish{QoS: 1, PacketID: 9, Topic: []byte("stored"), Payload: []byte("unacknowledged")})
			synctest.Wait()
			w.restart(true)
			away, _ = w.attach(v, "away", true, resuming(3600))
			away.hears("stored 1")
			w.retains("kept", "3")
		}, keeping(l))
	})
}

// A disk that takes nothing is told to the publisher, who keeps the message;
// what needs no disk goes on.
func TestBrokenDisk(t *testing.T) {
	t.Parallel()
	l := newLedger()
	inWorld(t, topic.AWS, func(w *world) {
		away, _ := w.attach(mqtt.V5, "away", false, resuming(3600))
		away.grants(mqtt.Subscription{Filter: "stored", QoS: 1})
		away.drop()
		synctest.Wait()
		l.mu.Lock()
		l.err = errors.New("disk is full")
		l.mu.Unlock()
		pub := w.connect(mqtt.V5, "pub")
		for name, m := range map[string]*mqtt.Publish{"stored": plain(1, "stored", "1"), "retained": retained(1, "kept", "1")} {
			m.PacketID = 1
			pub.send(m)
			if a, ok := pub.next().(*mqtt.Ack); !ok || !a.Reason.Failed() {
				w.t.Errorf("%s: %+v", name, a)
			}
		}
		pub.publish(plain(1, "other", "2"))
		l.mu.Lock()
		l.err = nil
		l.mu.Unlock()
		pub.publish(plain(1, "stored", "3"))
	}, keeping(l))
}

// The broker comes back with nothing when there is nothing.
func TestRecoverNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		if err := w.broker.Recover(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.attach(mqtt.V311, "c", false, resuming(0))
	}, keeping(newLedger()))
}
