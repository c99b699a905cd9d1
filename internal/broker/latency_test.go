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

// The first message of a second is measured until its PUBACK; those that were
// sent again are not, and what was measured outlives the connection.
func TestRoundTripsAreMeasured(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.connect(mqtt.V5, "c")
		p.subscribe(mqtt.Subscription{Filter: "a/#", QoS: 1})
		roundTrip := func(wait time.Duration) {
			t.Helper()
			if err := w.broker.Publish(t.Context(), account, broker.Message{Topic: "a/b", QoS: 1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			for _, packet := range p.all() {
				if m, ok := packet.(*mqtt.Publish); ok {
					p.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: m.PacketID})
				}
			}
			synctest.Wait()
		}
		roundTrip(30 * time.Millisecond)
		roundTrip(70 * time.Millisecond) // in the same second
		time.Sleep(time.Second)
		roundTrip(50 * time.Millisecond)
		want := []broker.RoundTrips{{
			Account: account, ClientID: "c", Last: 50 * time.Millisecond, Mean: 40 * time.Millisecond, Max: 50 * time.Millisecond, Samples: 2,
		}}
		if diff := cmp.Diff(want, w.broker.TakeRoundTrips()); diff != "" {
			t.Errorf("measured (-want +got):\n%s", diff)
		}
		if got := w.broker.TakeRoundTrips(); len(got) != 0 {
			t.Errorf("told twice: %+v", got)
		}
		time.Sleep(time.Second)
		roundTrip(25 * time.Second) // repeated meanwhile
		if got := w.broker.TakeRoundTrips(); len(got) != 0 {
			t.Errorf("a repeated message was measured: %+v", got)
		}
		roundTrip(10 * time.Millisecond)
		_ = p.conn.Close()
		synctest.Wait()
		if got := w.broker.TakeRoundTrips(); len(got) != 1 || got[0].Last != 10*time.Millisecond {
			t.Errorf("after the end: %+v", got)
		}
	})
}

// Activity knows the second of the last packet and of the last PUBLISH.
func TestActivity(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		if _, ok := w.broker.Activity(account, "c"); ok {
			t.Error("a client that never came is active")
		}
		p := w.connect(mqtt.V5, "c")
		begun := time.Now()
		first, ok := w.broker.Activity(account, "c")
		if !ok || !first.LastPublish.IsZero() || first.ConnectionID != w.seen.connected[0].ConnectionID {
			t.Errorf("at first: %+v, %v", first, ok)
		}
		time.Sleep(10 * time.Second)
		p.send(message(1, "a", ""))
		time.Sleep(10 * time.Second)
		p.send(&mqtt.Pingreq{})
		synctest.Wait()
		got, ok := w.broker.Activity(account, "c")
		near := func(what string, at time.Time, want time.Duration) {
			t.Helper()
			if d := at.Sub(begun) - want; d < -time.Second || d > time.Second {
				t.Errorf("%s after %v, want %v", what, at.Sub(begun), want)
			}
		}
		if !ok {
			t.Fatal("not active")
		}
		near("published", got.LastPublish, 10*time.Second)
		near("heard of", got.LastPacket, 20*time.Second)
		_ = p.conn.Close()
		synctest.Wait()
		if _, ok := w.broker.Activity(account, "c"); ok {
			t.Error("a client that has gone is active")
		}
	})
}
