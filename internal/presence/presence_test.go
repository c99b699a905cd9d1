package presence

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account fleet.Account = "000000000000"

type fixture struct {
	*Service
	store store.Store
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f := &fixture{store: s, now: time.Unix(1_750_000_000, 0).UTC()}
	f.Service = New(Options{Store: s, Now: func() time.Time { return f.now }, Logger: slog.New(slog.DiscardHandler)})
	return f
}

// flush runs the service until everything told is durable.
func (f *fixture) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	if err := f.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func (f *fixture) session(client, id string) Session {
	return Session{Account: account, ClientID: client, SessionID: id, Principal: fleet.Principal{Kind: "certificate", ID: "c0"}, IPAddress: "192.0.2.1", Indexed: true, KeepAlive: 60, CleanSession: true}
}

// told lists the events as "kind session version reason".
func (f *fixture) told(t *testing.T) []string {
	t.Helper()
	events, _, err := f.store.Events(t.Context(), store.Cursor{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, env := range events {
		switch e := env.Event.(type) {
		case event.DeviceConnected:
			out = append(out, fmt.Sprintf("connected %s %d", e.SessionID, e.Version))
		case event.DeviceDisconnected:
			out = append(out, fmt.Sprintf("disconnected %s %d %s", e.SessionID, e.Version, e.Reason))
		case event.ConnectRefused:
			out = append(out, fmt.Sprintf("refused %s %s", e.SessionID, e.Reason))
		default:
			t.Errorf("unexpected event %T", e)
		}
	}
	return out
}

func TestConnectAndDisconnectShareAVersionThatGrows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, id := range []string{"a", "b"} {
		f.Connected(f.session("pump", id), f.now)
		f.flush(t)
		f.now = f.now.Add(time.Minute)
		f.Disconnected(f.session("pump", id), "CONNECTION_LOST", f.now)
		f.flush(t)
	}
	want := []string{"connected a 0", "disconnected a 0 CONNECTION_LOST", "connected b 1", "disconnected b 1 CONNECTION_LOST"}
	if diff := cmp.Diff(want, f.told(t)); diff != "" {
		t.Error(diff)
	}
	got, err := f.Get(t.Context(), account, "pump")
	if err != nil || got.Connected || got.Reason != "CONNECTION_LOST" || got.Version != 1 || !got.Timestamp.Equal(f.now) {
		t.Errorf("state %+v, %v", got, err)
	}
}

// The takeover victim's disconnect may come after the winner's connect; it
// carries the lower version and does not touch the winner's state.
func TestTakeoverLeavesTheWinnerConnected(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Connected(f.session("pump", "old"), f.now)
	f.flush(t)
	f.Connected(f.session("pump", "new"), f.now)
	f.Disconnected(f.session("pump", "old"), "DUPLICATE_CLIENTID", f.now)
	f.flush(t)
	want := []string{"connected old 0", "connected new 1", "disconnected old 0 DUPLICATE_CLIENTID"}
	if diff := cmp.Diff(want, f.told(t)); diff != "" {
		t.Error(diff)
	}
	if got, err := f.Get(t.Context(), account, "pump"); err != nil || !got.Connected || got.SessionID != "new" {
		t.Errorf("state %+v, %v", got, err)
	}
}

func TestVersionStartsOverAfterAnHourAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Connected(f.session("pump", "a"), f.now)
	f.Disconnected(f.session("pump", "a"), "CLIENT_INITIATED_DISCONNECT", f.now)
	f.Connected(f.session("pump", "b"), f.now.Add(59*time.Minute))
	f.Disconnected(f.session("pump", "b"), "CLIENT_INITIATED_DISCONNECT", f.now.Add(59*time.Minute))
	f.flush(t)
	f.Connected(f.session("pump", "c"), f.now.Add(3*time.Hour))
	f.flush(t)
	if got, err := f.Get(t.Context(), account, "pump"); err != nil || got.Version != 0 || !got.Connected {
		t.Errorf("after an hour away: %+v, %v", got, err)
	}
	if told := f.told(t); told[2] != "connected b 1" {
		t.Errorf("within the hour: %v", told)
	}
}

func TestRecoverEndsConnectionsOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range batchClients + 3 {
		f.Connected(f.session(fmt.Sprintf("c-%04d", i), fmt.Sprintf("s-%04d", i)), f.now)
	}
	f.Connected(f.session("gone", "g"), f.now)
	f.Disconnected(f.session("gone", "g"), "CONNECTION_LOST", f.now)
	f.flush(t)
	again := New(Options{Store: f.store, Now: func() time.Time { return f.now.Add(time.Minute) }, Logger: slog.New(slog.DiscardHandler)})
	if err := again.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := EachConnection(t.Context(), f.store, func(of fleet.Account, c Connection) error {
		n++
		if want := "SERVER_ERROR"; c.Connected || c.ClientID != "gone" && c.Reason != want {
			t.Errorf("%s of %s: %+v", c.ClientID, of, c)
		}
		return nil
	})
	if err != nil || n != batchClients+4 {
		t.Errorf("%d connections, %v", n, err)
	}
}

func TestFlappingClientIsMergedAndItsNewestStateCounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 500 {
		id := fmt.Sprintf("s%d", i)
		f.Connected(f.session("flap", id), f.now)
		f.Disconnected(f.session("flap", id), "CONNECTION_LOST", f.now)
		f.ConnectFailed(f.session("flap", id), "AUTHORIZATION_FAILED", f.now)
	}
	f.Connected(f.session("flap", "last"), f.now)
	if n := len(f.queue.facts[clientKey{account, "flap"}]); n > maxFacts {
		t.Errorf("%d facts wait for one client, more than %d", n, maxFacts)
	}
	f.flush(t)
	if got, err := f.Get(t.Context(), account, "flap"); err != nil || !got.Connected || got.SessionID != "last" {
		t.Errorf("state %+v, %v", got, err)
	}
	open := map[string]bool{}
	for _, line := range f.told(t) {
		var kind, id string
		if _, err := fmt.Sscan(line, &kind, &id); err != nil {
			t.Fatal(err)
		}
		switch kind {
		case "connected":
			open[id] = true
		case "disconnected":
			if !open[id] {
				t.Errorf("%s without its connect", line)
			}
			delete(open, id)
		}
	}
	if len(open) != 1 || !open["last"] {
		t.Errorf("still open by the events: %v", open)
	}
	if f.queue.refused != 0 {
		t.Errorf("%d refusals are counted as waiting", f.queue.refused)
	}
}

func TestUnknownClientIsNotFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.Get(t.Context(), account, "ghost"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("error %v", err)
	}
}
