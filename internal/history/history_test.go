package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
	"github.com/muster-iot/muster/internal/testkit"
)

const account fleet.Account = "000000000000"

// cluster is the PostgreSQL of this binary's tests.
var cluster testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// inMemory opens the embedded engine on no disk.
func inMemory(tb testing.TB) store.Store {
	tb.Helper()
	s, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// onPostgres opens an empty database.
func onPostgres(tb testing.TB) store.Store {
	tb.Helper()
	s, err := postgres.Open(tb.Context(), postgres.Options{URL: cluster.Get(tb).Database(tb), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// fixture is a service whose events are applied by hand.
type fixture struct {
	*Service
	t    *testing.T
	now  time.Time
	live []Live
	// applied is the consumer's cursor.
	applied store.Cursor
}

func newFixture(t *testing.T, s store.Store) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.UnixMilli(1_750_000_000_000).UTC()}
	f.Service = New(Options{
		Store: s, Now: func() time.Time { return f.now }, Logger: slog.New(slog.DiscardHandler),
		RetentionAge: 24 * time.Hour, RetentionBytes: 1 << 30,
		CatchUp: func(context.Context) error { return nil },
		Live: func(_ context.Context, _ store.Reader, fn func(Live) error) error {
			for _, l := range f.live {
				if err := fn(l); err != nil {
					return err
				}
			}
			return nil
		},
	})
	return f
}

// tell appends events to the log.
func (f *fixture) tell(events ...event.Envelope) {
	f.t.Helper()
	if _, err := f.store.Commit(f.t.Context(), store.Batch{Events: events}); err != nil {
		f.t.Fatal(err)
	}
}

// follow applies what is new as the log's consumer does, at most n events at
// once.
func (f *fixture) follow(n int) {
	f.t.Helper()
	for {
		events, next, err := f.store.Events(f.t.Context(), f.applied, n)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		f.commit(events)
		f.applied = next
	}
}

// commit applies events.
func (f *fixture) commit(events []event.Envelope) {
	f.t.Helper()
	b, err := f.Apply(f.t.Context(), events)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.store.Commit(f.t.Context(), b); err != nil {
		f.t.Fatal(err)
	}
}

func envelope(at time.Time, e event.Event) event.Envelope {
	return event.Envelope{Account: account, At: at, Event: e, Actor: fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "c0"}}}
}

// session is an attached client's connection.
func session(client, id string, version int64) event.Session {
	return event.Session{
		ClientID: client, SessionID: id, ConnectionID: id + "-c", Principal: "c0", IPAddress: "192.0.2.1", RemoteAddr: "192.0.2.1:4711",
		LocalAddr: "192.0.2.9:8883", Protocol: "mqtt5", Transport: "tls", Version: version, Indexed: true, KeepAlive: 60, CleanSession: true,
	}
}

// lines describes connections with times relative to the fixture's start.
func lines(t *testing.T, page Page, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, c := range page.Connections {
		out = append(out, line(c))
	}
	return out
}

func line(c Connection) string {
	rel := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return at.Sub(time.UnixMilli(1_750_000_000_000)).String()
	}
	return fmt.Sprintf("%s %s %s %s refused=%v %s", c.ClientID, c.SessionID, rel(c.Began), rel(c.Ended), c.Refused, c.Reason)
}

func TestTakeoverRefusalAndRestartAreShownAsTheyWere(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	start := f.now
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	f.tell(
		envelope(at(1000), event.DeviceConnected{Session: session("pump", "s1", 0)}),
		envelope(at(5000), event.DeviceConnected{Session: session("pump", "s2", 1)}),
		envelope(at(5003), event.DeviceDisconnected{Session: session("pump", "s1", 0), Reason: "DUPLICATE_CLIENTID"}),
		envelope(at(6000), event.ConnectRefused{Session: event.Session{ClientID: "pump", SessionID: "s3", Principal: "c9"}, Reason: "AUTHORIZATION_FAILED"}),
		envelope(at(7000), event.DeviceDisconnected{Session: session("pump", "s2", 1), Reason: "SERVER_ERROR"}),
		envelope(at(8000), event.DeviceConnected{Session: session("pump", "s2", 2)}),
	)
	f.follow(1000)
	f.now = at(10_000)
	want := []string{
		"pump s2 8s - refused=false ",
		"pump s3 6s 6s refused=true AUTHORIZATION_FAILED",
		"pump s2 5s 7s refused=false SERVER_ERROR",
		"pump s1 1s 5.003s refused=false DUPLICATE_CLIENTID",
	}
	page, err := f.OfThing(t.Context(), account, "pump", Query{Limit: 10})
	if diff := cmp.Diff(want, lines(t, page, err)); diff != "" {
		t.Error(diff)
	}
	page, err = f.OfClient(t.Context(), account, "pump", Query{Limit: 10})
	if diff := cmp.Diff(want, lines(t, page, err)); diff != "" {
		t.Error(diff)
	}
	if d := page.Connections[0].Duration(f.now); d != 2*time.Second {
		t.Errorf("an open connection has lasted %v, want 2s", d)
	}
	if d := page.Connections[3].Duration(f.now); d != 4003*time.Millisecond {
		t.Errorf("it lasted %v", d)
	}
	if got := page.Connections[3]; got.Session != session("pump", "s1", 0) || got.PrincipalKind != fleet.PrincipalCertificate {
		t.Errorf("entry %+v lost what the event told", got)
	}
	// In the moment of the takeover both are connected.
	for ms, want := range map[int]int{999: 0, 1000: 1, 5001: 2, 5003: 1, 6999: 1, 7000: 0, 7999: 0, 8000: 1} {
		fleetPage, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: at(ms), Limit: 10})
		if err != nil || fleetPage.Count != want || len(fleetPage.Connections) != want {
			t.Errorf("at %d: %d of %d, %v; want %d", ms, len(fleetPage.Connections), fleetPage.Count, err, want)
		}
	}
}

// A long connection is found by a time in its middle, although the client was
// refused meanwhile.
func TestFromFindsConnectionsThatBeganBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	start := f.now
	hour := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	f.tell(
		envelope(hour(1), event.DeviceConnected{Session: session("pump", "s1", 0)}),
		envelope(hour(2), event.DeviceDisconnected{Session: session("pump", "s1", 0), Reason: "CONNECTION_LOST"}),
		envelope(hour(3), event.DeviceConnected{Session: session("pump", "s2", 1)}),
		envelope(hour(4), event.ConnectRefused{Session: event.Session{ClientID: "pump"}, Reason: "AUTHORIZATION_FAILED"}),
	)
	f.follow(1000)
	for name, c := range map[string]struct {
		from, to int
		want     []string
	}{
		"open":    {10, 0, []string{"pump s2 3h0m0s - refused=false "}},
		"between": {2, 3, []string{}},
		"first":   {1, 2, []string{"pump s1 1h0m0s 2h0m0s refused=false CONNECTION_LOST"}},
		"refused": {4, 5, []string{"pump  4h0m0s 4h0m0s refused=true AUTHORIZATION_FAILED", "pump s2 3h0m0s - refused=false "}},
	} {
		q := Query{From: hour(c.from), Limit: 10}
		if c.to != 0 {
			q.To = hour(c.to)
		}
		page, err := f.OfThing(t.Context(), account, "pump", q)
		if diff := cmp.Diff(c.want, lines(t, page, err)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestRulesAreNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	ctx := t.Context()
	for want, call := range map[string]func() error{
		"maxResults": func() error { _, err := f.OfThing(ctx, account, "a", Query{Limit: MaxPage + 1}); return err },
		"from": func() error {
			_, err := f.OfThing(ctx, account, "a", Query{Limit: 1, From: f.now, To: f.now})
			return err
		},
		"clientId": func() error { _, err := f.OfClient(ctx, account, "a\x00b", Query{Limit: 1}); return err },
		"thing":    func() error { _, err := f.OfThing(ctx, account, "", Query{Limit: 1}); return err },
		"at": func() error {
			_, err := f.ConnectedAt(ctx, account, FleetQuery{Limit: 1, At: f.now.Add(time.Second)})
			return err
		},
	} {
		err := call()
		if coded := fault.From(err); coded == nil || coded.Code != fault.InvalidRequest || len(coded.Message) < len(want) || coded.Message[:len(want)] != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	f.o.CatchUp = func(context.Context) error { return context.DeadlineExceeded }
	if _, err := f.ConnectedAt(ctx, account, FleetQuery{Limit: 1, At: f.now}); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("a history that is behind answers %v", err)
	}
}

// The end of a connection whose begin no event told is kept, without a begin.
func TestEndWithoutBegin(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	f.tell(envelope(f.now.Add(time.Second), event.DeviceDisconnected{Session: session("pump", "s", 0), Reason: "CONNECTION_LOST"}))
	f.follow(10)
	page, err := f.OfThing(t.Context(), account, "pump", Query{Limit: 10})
	if diff := cmp.Diff([]string{"pump s - 1s refused=false CONNECTION_LOST"}, lines(t, page, err)); diff != "" {
		t.Error(diff)
	}
}

// Events were trimmed before they were applied: what presence knows ends and
// begins what the records show, and the moments before are refused.
func TestRebuildRepairsOpenConnections(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	start := f.now
	for i, client := range []string{"stays", "went", "again", "gone"} {
		f.tell(envelope(start.Add(time.Duration(i)*time.Second), event.DeviceConnected{Session: session(client, "s", 0)}))
	}
	f.follow(10)
	live := func(client, id string, version int64, connected bool, at int, reason string) Live {
		return Live{
			Account: account, Session: session(client, id, version), PrincipalKind: fleet.PrincipalCertificate,
			Connected: connected, At: start.Add(time.Duration(at) * time.Second), Reason: reason,
		}
	}
	f.live = []Live{
		live("stays", "s", 0, true, 0, ""),
		live("went", "s", 0, false, 20, "CONNECTION_LOST"),
		live("again", "t", 1, true, 30, ""),
		live("new", "n", 0, true, 40, ""),
		live("was", "w", 0, false, 50, "CONNECTION_LOST"),
	}
	f.now = start.Add(time.Minute)
	for range 2 { // a crash in the middle runs it again
		cursor, err := f.Rebuild(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.applied = cursor
	}
	f.tell(envelope(start.Add(2*time.Minute), event.DeviceDisconnected{Session: session("new", "n", 0), Reason: "CONNECTION_LOST"}))
	f.follow(10)
	var got []string
	for _, client := range []string{"stays", "went", "again", "gone", "new", "was"} {
		page, err := f.OfClient(t.Context(), account, client, Query{Limit: 10})
		got = append(got, lines(t, page, err)...)
	}
	want := []string{
		"stays s 0s - refused=false ",
		"went s 1s 20s refused=false CONNECTION_LOST",
		"again t 30s - refused=false ",
		"again s 2s 30s refused=false UNKNOWN",
		"gone s 3s 1m0s refused=false UNKNOWN",
		"new n 40s 2m0s refused=false CONNECTION_LOST",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f.now = start.Add(time.Hour)
	if _, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: start.Add(59 * time.Second), Limit: 1}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a moment before the gap: %v", err)
	}
	page, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: start.Add(time.Minute), Limit: 10})
	if err != nil || page.Count != 3 {
		t.Errorf("after the gap: %d connected, %v; want 3", page.Count, err)
	}
}

// Under the log's own runner a second process and a restart change nothing:
// each event counts once.
func TestConsumerSurvivesRestarts(t *testing.T) {
	t.Parallel()
	s := inMemory(t)
	f := newFixture(t, s)
	start := f.now
	for i := range 30 {
		at := start.Add(time.Duration(i) * time.Second)
		id := fmt.Sprint("s", i)
		f.tell(
			envelope(at, event.DeviceConnected{Session: session("pump", id, int64(i))}),
			envelope(at.Add(500*time.Millisecond), event.DeviceDisconnected{Session: session("pump", id, int64(i)), Reason: "CONNECTION_LOST"}),
		)
		if i%10 != 0 {
			continue
		}
		runner, err := eventlog.NewRunner(eventlog.Consumer{Name: "history", Durable: f.Apply, Rebuild: f.Rebuild},
			eventlog.Options{Store: s, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- runner.Run(ctx) }()
		head, err := s.Head(ctx)
		if err = errors.Join(err, runner.WaitCovered(ctx, head)); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	f.follow(7) // from the beginning of the log: all but the last ones are known
	page, err := f.OfThing(t.Context(), account, "pump", Query{Limit: 100})
	if err != nil || len(page.Connections) != 30 {
		t.Fatalf("%d entries, %v; want 30", len(page.Connections), err)
	}
	for i, c := range page.Connections {
		if c.SessionID != fmt.Sprint("s", 29-i) || c.Ended.IsZero() || c.Duration(f.now) != 500*time.Millisecond {
			t.Errorf("entry %d is %s", i, line(c))
		}
	}
	filed, err := readTotal(t.Context(), s, kindSize, account)
	if err != nil || filed.Entries != 30 {
		t.Errorf("%d entries are counted, %v; want 30", filed.Entries, err)
	}
}

// The longest client id that MQTT allows fits no key of PostgreSQL; it must
// not stop the consumer.
func TestLongClientIDs(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) store.Store{"embedded": inMemory, "postgres": onPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, open(t))
			var want []string
			long := strings.Repeat("x", maxName)
			for i, id := range []string{long, long + "y", long + "z", strings.Repeat("w", 65535)} {
				f.tell(
					envelope(f.now, event.DeviceConnected{Session: session(id, "s", 0)}),
					envelope(f.now.Add(time.Duration(i+1)*time.Second), event.DeviceDisconnected{Session: session(id, "s", 0), Reason: "CONNECTION_LOST"}),
					envelope(f.now.Add(time.Minute), event.ConnectRefused{Session: event.Session{ClientID: id}, Reason: "AUTHORIZATION_FAILED"}),
				)
				want = append(want, id)
			}
			start := f.now
			f.follow(5)
			f.now = start.Add(time.Hour)
			for _, id := range want {
				byClient, err := f.OfClient(t.Context(), account, id, Query{Limit: 10})
				byThing, errThing := f.OfThing(t.Context(), account, id, Query{Limit: 10})
				if err = errors.Join(err, errThing); err != nil || len(byClient.Connections) != 2 || len(byThing.Connections) != 2 || byThing.Connections[1].ClientID != id {
					t.Errorf("client id of %d: %d and %d entries, %v", len(id), len(byClient.Connections), len(byThing.Connections), err)
				}
			}
			page, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: start, Limit: 10})
			if err != nil || page.Count != 4 || len(page.Connections) != 4 {
				t.Errorf("%d of %d were connected, %v; want 4", len(page.Connections), page.Count, err)
			}
			f.o.RetentionBytes = 0
			if err := f.Trim(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
