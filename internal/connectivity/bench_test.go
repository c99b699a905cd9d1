package connectivity

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// calm is a fleet without live connections and groups.
type calm struct{}

func (calm) Activity(fleet.Account, string) (Activity, bool) { return Activity{}, false }
func (calm) Draining() bool                                  { return false }
func (calm) RoundTrips() []RoundTrips                        { return nil }

func (calm) ThingExists(context.Context, fleet.Account, string) (exists, attached bool, err error) {
	return true, true, nil
}
func (calm) Blocked(context.Context, fleet.Account, string) (bool, error) { return false, nil }
func (calm) ThingsOf(context.Context, fleet.Account, string, func(string) error) error {
	return nil
}
func (calm) Groups(context.Context, fleet.Account, string) ([]Group, error)   { return nil, nil }
func (calm) GroupExists(context.Context, fleet.Account, string) (bool, error) { return true, nil }
func (calm) EachThing(context.Context, store.Reader, func(fleet.Account, string) error) error {
	return nil
}

func (calm) EachInactive(context.Context, store.Reader, func(fleet.Account, string) error) error {
	return nil
}

// BenchmarkMass is what it costs when 10,000 devices come at once, go at once, and
// are declared offline at once, on a disk: events per second of each.
func BenchmarkMass(b *testing.B) {
	engine, err := embedded.Open(embedded.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	now := time.Unix(1_795_000_000, 0)
	begun := now
	s := New(Options{
		Store: engine, Sessions: calm{}, Registry: calm{}, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Elapsed: func() time.Duration { return now.Sub(begun) }, Live: func(context.Context, store.Reader, func(Past) error) error { return nil },
	})
	if _, err := s.Rebuild(b.Context()); err != nil {
		b.Fatal(err)
	}
	const devices, atOnce = 10_000, 1000
	seq := uint64(0)
	apply := func(made func(session event.Session) event.Event) time.Duration {
		started := time.Now()
		for from := 0; from < devices; from += atOnce {
			var events []event.Envelope
			for i := range atOnce {
				seq++
				name := fmt.Sprintf("d%05d", from+i)
				id := fmt.Sprintf("%s-%d", name, (seq-1)/devices/2)
				v := int64((seq - 1) / devices / 2)
				events = append(events, event.Envelope{Seq: seq, Account: account, At: now, Event: made(event.Session{
					ClientID: name, SessionID: id, ConnectionID: id, Version: v, Indexed: true, KeepAlive: 60,
				})})
			}
			if err := s.Apply(b.Context(), events); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(started)
	}
	var come, leave, confirm time.Duration
	for b.Loop() {
		come += apply(func(of event.Session) event.Event { return event.DeviceConnected{Session: of} })
		now = now.Add(time.Second)
		leave += apply(func(of event.Session) event.Event {
			return event.DeviceDisconnected{Session: of, Reason: "CONNECTION_LOST"}
		})
		now = now.Add(2 * time.Minute)
		started := time.Now()
		for s.next <= now.UnixMilli() {
			if err := s.step(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		confirm += time.Since(started)
		now = now.Add(2 * time.Hour)
	}
	if got := s.counts[account].States[OfflineDirty]; got != devices {
		b.Errorf("%d devices are offline", got)
	}
	each := float64(devices) * float64(b.N)
	b.ReportMetric(each/come.Seconds(), "connects/s")
	b.ReportMetric(each/leave.Seconds(), "disconnects/s")
	b.ReportMetric(each/confirm.Seconds(), "confirmed/s")
}
