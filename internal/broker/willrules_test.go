package broker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// delayed delays the will of a CONNECT.
func delayed(seconds uint32) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		c.Will.Properties.Set |= mqtt.Of(mqtt.PropWillDelay)
		c.Will.Properties.WillDelay = seconds
	}
}

// A will comes with every end that the client did not begin, and with the one
// for which it asks for it.
func TestWhichEndsPublishTheWill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(w *world, p *peer)
		will bool
		// five only: no such thing before.
		five bool
	}{
		"DISCONNECT":              {end: func(_ *world, p *peer) { p.leave() }},
		"DISCONNECT with will":    {end: func(_ *world, p *peer) { p.send(&mqtt.Disconnect{Reason: mqtt.DisconnectWithWill}) }, will: true, five: true},
		"DISCONNECT with a fault": {end: func(_ *world, p *peer) { p.send(&mqtt.Disconnect{Reason: mqtt.UnspecifiedError}) }, will: true, five: true},
		"lost":                    {end: func(_ *world, p *peer) { p.drop() }, will: true},
		"keep-alive":              {end: func(*world, *peer) { time.Sleep(31 * time.Minute) }, will: true},
		"taken over": {end: func(w *world, p *peer) {
			w.attach(p.version, "c", false, func(c *mqtt.Connect) { c.CleanStart = true })
		}, will: true},
		"violation":    {end: func(_ *world, p *peer) { p.raw([]byte{0, 0}) }, will: true},
		"removed":      {end: func(w *world, _ *peer) { w.broker.Remove(account, "c", broker.RemoveOptions{}) }, will: true},
		"removed, not": {end: func(w *world, _ *peer) { w.broker.Remove(account, "c", broker.RemoveOptions{WithholdWill: true}) }},
		"throttled":    {end: func(w *world, _ *peer) { w.broker.Disconnect(account, "c", broker.ReasonThrottled) }, will: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, v mqtt.Version) {
				t.Helper()
				if c.five && v != mqtt.V5 {
					return
				}
				inWorld(t, topic.AWS, func(w *world) {
					away, _ := w.attach(mqtt.V311, "away", false, resuming(3600))
					away.grants(mqtt.Subscription{Filter: "will", QoS: 1})
					away.drop()
					p := w.connect(v, "c", withWill("will"), func(c *mqtt.Connect) { c.Will.QoS = 1 })
					c.end(w, p)
					synctest.Wait()
					away, _ = w.attach(mqtt.V311, "away", true, resuming(3600))
					if c.will {
						away.hears("will gone")
					} else {
						away.hears()
					}
				})
			})
		})
	}
}

// Shutting down publishes wills too: the sessions that are away hear of it.
func TestWillsAtShutdown(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			watch, _ := w.attach(v, "watch", false, resuming(3600))
			watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
			watch.drop()
			w.connect(v, "c", withWill("will"), func(c *mqtt.Connect) { c.Will.QoS, c.Will.Retain = 1, true })
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
			defer cancel()
			if err := w.broker.Shutdown(ctx); err != nil {
				w.t.Fatal(err)
			}
			w.retains("will", "gone")
		})
	})
}

// A delayed will comes when its delay or the session is over, whichever is
// first, and not at all when the client is back before.
func TestWillDelay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delay, expiry uint32
		after         time.Duration
	}{
		"delay first":      {30, 300, 30 * time.Second},
		"session first":    {300, 30, 30 * time.Second},
		"session is clean": {300, 0, 0},
		"no delay":         {0, 300, 0},
		"cut":              {1 << 30, 1 << 30, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				watch := w.connect(mqtt.V311, "watch")
				watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
				p, _ := w.attach(mqtt.V5, "c", false, expiring(c.expiry), withWill("will"), delayed(c.delay))
				p.drop()
				if c.after == 0 {
					watch.hears("will gone")
					return
				}
				idle(c.after-time.Second, watch)
				watch.hears()
				patience := 3 * time.Second
				if c.delay >= c.expiry {
					patience = slack + time.Second // the end of a session may be late
				}
				idle(patience, watch)
				watch.hears("will gone")
				idle(2*time.Hour, watch)
				watch.hears()
			})
		})
	}
	for name, c := range map[string]struct {
		back   func(*mqtt.Connect)
		cancel bool
	}{
		"resumed":       {resuming(300), true},
		"started clean": {func(c *mqtt.Connect) { c.CleanStart = true }, false},
	} {
		t.Run("back in time, "+name, func(t *testing.T) {
			t.Parallel()
			for _, takeover := range []bool{false, true} {
				inWorld(t, topic.AWS, func(w *world) {
					watch := w.connect(mqtt.V311, "watch")
					watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
					p, _ := w.attach(mqtt.V5, "c", false, expiring(300), withWill("will"), delayed(30))
					if !takeover {
						p.drop()
						idle(20*time.Second, watch)
					}
					q, _ := w.attach(mqtt.V5, "c", c.cancel, c.back)
					if c.cancel {
						watch.hears()
					} else {
						watch.hears("will gone") // the session it belonged to is over
					}
					idle(time.Hour, watch, q)
					watch.hears()
				})
			}
		})
	}
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			o    broker.RemoveOptions
			want []string
		}{
			"the session ends":                {broker.RemoveOptions{EndSession: true}, []string{"will gone"}},
			"the session ends, will withheld": {broker.RemoveOptions{EndSession: true, WithholdWill: true}, nil},
		} {
			inWorld(t, topic.AWS, func(w *world) {
				watch := w.connect(mqtt.V311, "watch")
				watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
				p, _ := w.attach(mqtt.V5, "c", false, expiring(300), withWill("will"), delayed(30))
				p.drop()
				w.broker.Remove(account, "c", c.o)
				synctest.Wait()
				idle(time.Hour, watch)
				if diff := cmp.Diff(c.want, watch.messages()); diff != "" {
					w.t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			})
		}
	})
}

// A will keeps its properties; its expiry begins with the end of the
// connection, and its delay is not told to anybody.
func TestWillIsWhole(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		watch := w.connect(mqtt.V5, "watch")
		watch.grants(mqtt.Subscription{Filter: "will", QoS: 1})
		p, _ := w.attach(mqtt.V5, "c", false, expiring(300), withWill("will"), func(c *mqtt.Connect) {
			c.Will.Properties = everyProperty()
			c.Will.QoS = 1
		}, delayed(10))
		idle(30*time.Minute, watch, p)
		p.drop()
		idle(13*time.Second, watch)
		got := watch.publishes()
		if len(got) != 1 {
			w.t.Fatalf("%d messages", len(got))
		}
		want := everyProperty()
		if left := got[0].Properties.MessageExpiry; left > want.MessageExpiry || left < want.MessageExpiry-13 {
			w.t.Errorf("%d s are left of %d", left, want.MessageExpiry)
		}
		want.MessageExpiry = got[0].Properties.MessageExpiry
		if diff := cmp.Diff(want, got[0].Properties); diff != "" {
			w.t.Errorf("properties (-want +got):\n%s", diff)
		}
	})
}

// Only the last connection's will counts.
func TestWillOfTheLatestConnection(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			watch := w.connect(v, "watch")
			watch.grants(mqtt.Subscription{Filter: "#", QoS: 1})
			p, _ := w.attach(v, "c", false, resuming(300), withWill("first"))
			p.leave()
			p, _ = w.attach(v, "c", true, resuming(300), withWill("second"))
			p.drop()
			watch.hears("second gone")
			p, _ = w.attach(v, "c", true, resuming(300))
			p.drop()
			watch.hears()
		})
	})
}
