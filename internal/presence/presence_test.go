package presence

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
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
	return Session{
		Account: account, ClientID: client, SessionID: id, ConnectionID: id, Principal: fleet.Principal{Kind: "certificate", ID: "c0"},
		RemoteAddr: "192.0.2.1:40000", IPAddress: "192.0.2.1", LocalAddr: "192.0.2.9:8883", Protocol: "mqtt5", Transport: "tls",
		Indexed: true, KeepAlive: 60,
	}
}

// told lists the events as "kind connection version reason".
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
			out = append(out, fmt.Sprintf("connected %s %d", e.ConnectionID, e.Version))
		case event.DeviceDisconnected:
			out = append(out, fmt.Sprintf("disconnected %s %d %s", e.ConnectionID, e.Version, e.Reason))
		case event.SubscriptionsChanged:
			out = append(out, fmt.Sprintf("subscribed=%v %s %d %v", e.Subscribed, e.ConnectionID, e.Version, e.Filters))
		case event.ConnectRefused:
			out = append(out, fmt.Sprintf("refused %s %s", e.ConnectionID, e.Reason))
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

// A session that outlives its connections keeps its identifier; versions and
// records are those of the connections.
func TestConnectionsOfOneSessionHaveTheirOwnVersions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	of := func(connection string) Session {
		s := f.session("pump", connection)
		s.SessionID, s.SessionExpiry = "kept", 7200
		return s
	}
	f.Connected(of("a"), f.now)
	f.flush(t)
	// The victim of a takeover within the session is told late.
	f.Connected(of("b"), f.now.Add(time.Second))
	f.Disconnected(of("a"), "DUPLICATE_CLIENTID", f.now.Add(time.Second))
	f.flush(t)
	want := Connection{
		Session: of("b"), Connected: true, Version: 1, ConnectedAt: f.now.Add(time.Second), Timestamp: f.now.Add(time.Second),
	}
	got, err := f.Get(t.Context(), account, "pump")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
	if got.CleanSession() {
		t.Error("a session that lasts two hours counts as clean")
	}
	gone := f.now.Add(time.Minute)
	f.Disconnected(of("b"), "CONNECTION_LOST", gone)
	f.flush(t)
	want.Connected, want.Timestamp, want.Reason = false, gone, "CONNECTION_LOST"
	if got, err = f.Get(t.Context(), account, "pump"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"connected a 0", "connected b 1", "disconnected a 0 DUPLICATE_CLIENTID", "disconnected b 1 CONNECTION_LOST"}, f.told(t)); diff != "" {
		t.Error(diff)
	}
	events, _, err := f.store.Events(t.Context(), store.Cursor{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	described := event.DeviceConnected{Session: event.Session{
		ClientID: "pump", SessionID: "kept", ConnectionID: "a", Principal: "c0", IPAddress: "192.0.2.1", RemoteAddr: "192.0.2.1:40000",
		LocalAddr: "192.0.2.9:8883", Protocol: "mqtt5", Transport: "tls", Indexed: true, KeepAlive: 60, SessionExpiry: 7200,
	}}
	if diff := cmp.Diff(event.Event(described), events[0].Event); diff != "" {
		t.Errorf("event differs (-want +got):\n%s", diff)
	}
}

// Device plane, 3.1: versions of persistent sessions start over when the
// session has expired, and never within the hour.
func TestVersionLastsAsLongAsTheSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		expiry  int64
		away    time.Duration
		version int64
	}{
		"clean, within the hour":         {0, 59 * time.Minute, 1},
		"clean, after the hour":          {0, time.Hour, 0},
		"short session, within the hour": {60, 59 * time.Minute, 1},
		"short session, after the hour":  {60, time.Hour, 0},
		"long session, not expired":      {7200, 119 * time.Minute, 1},
		"long session, expired":          {7200, 2 * time.Hour, 0},
		"session without end":            {1<<32 - 1, 10000 * time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			before := f.session("pump", "a")
			before.SessionExpiry = c.expiry
			f.Connected(before, f.now)
			f.Disconnected(before, "CONNECTION_LOST", f.now)
			f.Connected(f.session("pump", "b"), f.now.Add(c.away))
			f.flush(t)
			if got, err := f.Get(t.Context(), account, "pump"); err != nil || got.Version != c.version {
				t.Errorf("version %d, %v, want %d", got.Version, err, c.version)
			}
		})
	}
}

// A record of the program before this one is still understood.
func TestOldRecordsAreReadable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := `{"v":1,"connected":true,"sessionId":"s","principal":{"kind":"certificate","id":"c0"},"ipAddress":"192.0.2.1","indexed":true,"keepAlive":60,"cleanSession":true,"version":4,"at":1750000000000}`
	if _, err := f.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: keyOf(account, "pump"), Value: []byte(old)}}}); err != nil {
		t.Fatal(err)
	}
	got, err := f.Get(t.Context(), account, "pump")
	if err != nil || !got.Connected || got.SessionID != "s" || got.Version != 4 || !got.CleanSession() || !got.ConnectedAt.Equal(f.now) {
		t.Errorf("state %+v, %v", got, err)
	}
	if err := f.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Connected(f.session("pump", "next"), f.now.Add(time.Second))
	f.flush(t)
	if diff := cmp.Diff([]string{"disconnected  4 SERVER_ERROR", "connected next 5"}, f.told(t)); diff != "" {
		t.Error(diff)
	}
}

// Device plane, 3.1: the thirteen reasons pass unchanged into record and event.
func TestEveryReasonPasses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var want []string
	for i, reason := range []string{
		"AUTH_ERROR", "CLIENT_INITIATED_DISCONNECT", "CLIENT_ERROR", "CONNECTION_LOST", "DUPLICATE_CLIENTID", "FORBIDDEN_ACCESS",
		"MQTT_KEEP_ALIVE_TIMEOUT", "SERVER_ERROR", "SERVER_INITIATED_DISCONNECT", "API_INITIATED_DISCONNECT", "THROTTLED",
		"WEBSOCKET_TTL_EXPIRATION", "CUSTOMAUTH_TTL_EXPIRATION",
	} {
		id := fmt.Sprint(i)
		f.Connected(f.session("c"+id, id), f.now)
		f.Disconnected(f.session("c"+id, id), reason, f.now)
		f.flush(t)
		want = append(want, "connected "+id+" 0", "disconnected "+id+" 0 "+reason)
		if got, err := f.Get(t.Context(), account, "c"+id); err != nil || got.Reason != reason {
			t.Errorf("%s: recorded %q, %v", reason, got.Reason, err)
		}
	}
	if diff := cmp.Diff(want, f.told(t)); diff != "" {
		t.Error(diff)
	}
}

// Device plane, 3.2: one event for each packet, after the connect of the same
// connection and with its version; no record changes.
func TestSubscriptionsFollowTheirConnect(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.session("pump", "a")
	f.Connected(s, f.now)
	f.Subscribed(s, []string{"cmd/pump", "all/#"}, f.now)
	f.flush(t)
	before, err := f.store.Get(t.Context(), keyOf(account, "pump"))
	if err != nil {
		t.Fatal(err)
	}
	f.Unsubscribed(s, []string{"all/#"}, f.now)
	f.Subscribed(s, []string{"x"}, f.now)
	f.flush(t)
	after, err := f.store.Get(t.Context(), keyOf(account, "pump"))
	if err != nil || after.Version != before.Version {
		t.Errorf("the record was written again: %v", err)
	}
	f.Disconnected(s, "CONNECTION_LOST", f.now)
	f.flush(t)
	// The connection is over; nothing is told of it any more.
	f.Subscribed(s, []string{"late"}, f.now)
	f.flush(t)
	want := []string{
		"connected a 0", "subscribed=true a 0 [cmd/pump all/#]", "subscribed=false a 0 [all/#]", "subscribed=true a 0 [x]",
		"disconnected a 0 CONNECTION_LOST",
	}
	if diff := cmp.Diff(want, f.told(t)); diff != "" {
		t.Error(diff)
	}
}

// More changes than may wait for one client are joined where they follow each
// other, and the oldest given up where they alternate; the state stays.
func TestManySubscriptionsAreJoined(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	joined, mixed := f.session("joined", "a"), f.session("mixed", "b")
	f.Connected(joined, f.now)
	f.Connected(mixed, f.now)
	want := []string{}
	for i := range 100 {
		filter := fmt.Sprintf("f/%d", i)
		want = append(want, filter)
		f.Subscribed(joined, []string{filter}, f.now)
		f.Subscribed(mixed, []string{filter}, f.now)
		f.Unsubscribed(mixed, []string{filter}, f.now)
	}
	for _, client := range []string{"joined", "mixed"} {
		if n := len(f.queue.facts[clientKey{account, client}]); n > maxFacts {
			t.Errorf("%d facts wait for %s, more than %d", n, client, maxFacts)
		}
	}
	f.Disconnected(mixed, "CONNECTION_LOST", f.now)
	f.flush(t)
	var filters []string
	last := ""
	events, _, err := f.store.Events(t.Context(), store.Cursor{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, env := range events {
		switch e := env.Event.(type) {
		case event.SubscriptionsChanged:
			if e.ClientID == "joined" {
				filters = append(filters, e.Filters...)
			} else {
				last = fmt.Sprint(e.Subscribed, e.Filters)
			}
		case event.DeviceConnected, event.DeviceDisconnected:
		default:
			t.Errorf("unexpected event %T", e)
		}
	}
	if diff := cmp.Diff(want, filters); diff != "" {
		t.Errorf("joined filters differ (-want +got):\n%s", diff)
	}
	if last != "false [f/99]" {
		t.Errorf("last change of the other: %s", last)
	}
	if got, err := f.Get(t.Context(), account, "mixed"); err != nil || got.Connected {
		t.Errorf("state %+v, %v", got, err)
	}
	if f.queue.filters != 0 {
		t.Errorf("%d bytes of filters are counted as waiting", f.queue.filters)
	}
}

// Filters that wait are bounded for each client and for all of them.
func TestWaitingFiltersAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	long := strings.Repeat("x", 64<<10)
	for i := range maxFilterBytes / maxClientFilterBytes {
		s := f.session(fmt.Sprint("c", i), fmt.Sprint(i))
		f.Connected(s, f.now)
		for range 5 {
			f.Subscribed(s, []string{long}, f.now)
		}
		if n := len(f.queue.facts[clientKey{account, s.ClientID}]); n != 5 {
			t.Fatalf("%d facts wait, want the connect and the 4 changes that fit", n)
		}
	}
	s := f.session("late", "late")
	f.Connected(s, f.now)
	f.Subscribed(s, []string{"f"}, f.now)
	if n := len(f.queue.facts[clientKey{account, "late"}]); n != 1 || f.queue.filters != maxFilterBytes {
		t.Errorf("%d facts wait with %d bytes of filters in all", n, f.queue.filters)
	}
	f.flush(t)
	if f.queue.filters != 0 {
		t.Errorf("%d bytes of filters are counted as waiting", f.queue.filters)
	}
}
