package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// drain begins a drain and returns where its end is told.
func (w *world) drain(ctx context.Context, over time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.broker.Drain(ctx, over) }()
	return done
}

// TestDrainSpreadsOverTime drains 1,000 clients in 20 seconds: at every moment
// as many are left as should be, each is told why, newcomers are refused with a
// hint, and they are let in again at the end.
func TestDrainSpreadsOverTime(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		const n, over = 1000, 20 * time.Second
		peers := make([]*peer, n)
		for i := range peers {
			peers[i] = w.connect(mqtt.V5, fmt.Sprint(i))
		}
		done := w.drain(w.t.Context(), over)
		for i := range 10 {
			pass(over / 20)
			want := n - n*(2*i+1)/20
			if got := w.broker.DrainStatus(); got.Remaining < want-5 || got.Remaining > want+5 || !got.Draining || got.Connected != n {
				w.t.Errorf("after %v: %+v, want %d remaining", time.Duration(2*i+1)*over/20, got, want)
			}
			if i == 3 {
				w.checkRefusedWhileDraining()
				if err := w.broker.Drain(w.t.Context(), over); !errors.Is(err, broker.ErrDraining) {
					w.t.Errorf("a second drain: %v", err)
				}
			}
			pass(over / 20)
		}
		pass(time.Second)
		if err := <-done; err != nil {
			w.t.Fatal(err)
		}
		for i, p := range peers {
			packets := p.all()
			if len(packets) != 1 || !p.isClosed() {
				w.t.Fatalf("client %d got %v, closed %v", i, packets, p.isClosed())
			}
			if d, ok := packets[0].(*mqtt.Disconnect); !ok || d.Reason != mqtt.ServerShuttingDown {
				w.t.Fatalf("client %d got %+v", i, packets[0])
			}
		}
		for _, e := range w.seen.ends() {
			if e.Reason != broker.ReasonServerInitiated || e.ByClient {
				w.t.Fatalf("end %+v", e)
			}
		}
		w.checkRefusedWhileDraining()
		if !w.broker.EndDrain() || w.broker.EndDrain() {
			w.t.Error("the drain does not end once")
		}
		w.connect(mqtt.V5, "back")
	})
}

// checkRefusedWhileDraining connects with both versions.
func (w *world) checkRefusedWhileDraining() {
	w.t.Helper()
	p := w.dial(mqtt.V5)
	p.send(connectPacket(mqtt.V5, "late"))
	got, ok := p.next().(*mqtt.Connack)
	if !ok || got.Reason != mqtt.ServerBusy || !p.isClosed() {
		w.t.Fatalf("while draining: %+v", got)
	}
	if after := hint(w.t, got); after < 1 || after > 60 {
		w.t.Errorf("told to come back after %d seconds", after)
	}
	old := w.dial(mqtt.V311)
	old.send(connectPacket(mqtt.V311, "late"))
	if got, ok := old.next().(*mqtt.Connack); !ok || byte(got.Reason) != mqtt.ReturnServerUnavailable || !old.isClosed() {
		w.t.Errorf("3.1.1 while draining: %+v", got)
	}
}

// hint is the time to come back at of a CONNACK.
func hint(t *testing.T, p *mqtt.Connack) int {
	t.Helper()
	for _, property := range p.Properties.UserProperties {
		if property.Key == "retry-after" {
			seconds, err := strconv.Atoi(property.Value)
			if err != nil {
				t.Fatal(err)
			}
			return seconds
		}
	}
	t.Fatalf("no hint in %+v", p.Properties)
	return 0
}

// TestSmallFleetDrainsAtOnce publishes the will of who is told to leave.
func TestSmallFleetDrainsAtOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		w.connect(mqtt.V311, "quiet")
		w.connect(mqtt.V311, "willing", withWill("will"))
		begun := time.Now()
		if err := w.broker.Drain(w.t.Context(), time.Hour); err != nil {
			w.t.Fatal(err)
		}
		if took := time.Since(begun); took > time.Second {
			w.t.Errorf("two clients were drained in %v", took)
		}
		if w.broker.DrainStatus().Remaining != 0 || len(w.seen.ends()) != 2 {
			w.t.Errorf("%+v, %v", w.broker.DrainStatus(), w.seen.ends())
		}
	})
	inWorld(t, topic.AWS, func(w *world) {
		w.connect(mqtt.V5, "willing", withWill("will"), func(c *mqtt.Connect) { c.Will.Retain = true })
		if err := w.broker.Drain(w.t.Context(), 0); err != nil {
			w.t.Fatal(err)
		}
		if m, ok := w.broker.Retained(account, "will"); !ok || string(m.Payload) != "gone" {
			w.t.Errorf("the will: %+v, %v", m, ok)
		}
	})
}

// TestDrainIsCalledOff ends a drain half way, by its caller and by EndDrain.
func TestDrainIsCalledOff(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		const n = 200
		for i := range n {
			w.connect(mqtt.V311, fmt.Sprint(i))
		}
		done := w.drain(w.t.Context(), 10*time.Minute)
		pass(5 * time.Minute)
		w.broker.EndDrain()
		if err := <-done; !errors.Is(err, broker.ErrDrainEnded) {
			w.t.Errorf("drain returned %v", err)
		}
		pass(10 * time.Minute)
		if got := len(w.broker.Sessions(account)); got != n/2 {
			w.t.Errorf("%d of %d are left", got, n)
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		for i := range 100 {
			w.connect(mqtt.V311, fmt.Sprint("more", i))
		}
		done = w.drain(ctx, time.Hour)
		pass(time.Minute)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Errorf("drain returned %v", err)
		}
		if !w.broker.DrainStatus().Draining {
			w.t.Error("clients are let in again without being asked")
		}
	})
}
