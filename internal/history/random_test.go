package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// model is the history as a list that is searched from end to end.
type model struct {
	r       *rand.Rand
	now     time.Time
	entries []*Connection
	seq     map[*Connection]uint64
	open    map[string]*Connection
	version map[string]int64
	next    uint64
	// since is the newest end that retention took.
	since time.Time
}

func newModel(r *rand.Rand, start time.Time) *model {
	return &model{r: r, now: start, seq: map[*Connection]uint64{}, open: map[string]*Connection{}, version: map[string]int64{}}
}

// step is a random fact, or a few that belong together.
func (m *model) step() []event.Envelope {
	// Most steps are short, some share their millisecond, a few are long.
	m.now = m.now.Add(time.Duration([]int64{0, 0, 1, 7, 950, 61_000, 3_600_000}[m.r.IntN(7)]) * time.Millisecond)
	client := fmt.Sprint("c", m.r.IntN(6))
	current := m.open[client]
	switch n := m.r.IntN(10); {
	case n == 0:
		return []event.Envelope{m.refuse(client)}
	case n == 1 && m.r.IntN(6) == 0: // restart: all end at once
		var out []event.Envelope
		for _, name := range slices.Sorted(mapKeys(m.open)) {
			out = append(out, m.end(m.open[name], "SERVER_ERROR"))
			delete(m.open, name)
		}
		return out
	case current == nil:
		return []event.Envelope{m.begin(client)}
	case n < 4: // takeover
		out := []event.Envelope{m.begin(client)}
		m.now = m.now.Add(time.Duration(m.r.IntN(3)) * time.Millisecond)
		return append(out, m.end(current, "DUPLICATE_CLIENTID"))
	default:
		delete(m.open, client)
		return []event.Envelope{m.end(current, []string{"CONNECTION_LOST", "CLIENT_INITIATED_DISCONNECT", "MQTT_KEEP_ALIVE_TIMEOUT"}[m.r.IntN(3)])}
	}
}

func mapKeys[V any](in map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range in {
			if !yield(k) {
				return
			}
		}
	}
}

func (m *model) add(c *Connection) {
	m.next++
	m.seq[c] = m.next
	m.entries = append(m.entries, c)
}

func (m *model) begin(client string) event.Envelope {
	s := session(client, fmt.Sprint("s", m.r.IntN(2)), m.version[client])
	m.version[client]++
	switch client {
	case "c1":
		s.Indexed = false
	case "c2":
		s.Indexed, s.ThingName = false, "c3" // exclusive, under another's name
	}
	c := &Connection{Session: s, PrincipalKind: "certificate", Began: m.now}
	m.add(c)
	m.open[client] = c
	return envelope(m.now, event.DeviceConnected{Session: s})
}

func (m *model) end(c *Connection, reason string) event.Envelope {
	m.next++
	c.Ended, c.Reason = m.now, reason
	return envelope(m.now, event.DeviceDisconnected{Session: c.Session, Reason: reason})
}

func (m *model) refuse(client string) event.Envelope {
	c := &Connection{Session: event.Session{ClientID: client, SessionID: "r"}, PrincipalKind: "certificate", Refused: true, Began: m.now, Ended: m.now, Reason: "AUTHORIZATION_FAILED"}
	m.add(c)
	return envelope(m.now, event.ConnectRefused{Session: c.Session, Reason: c.Reason})
}

// list is what a query should answer, newest first.
func (m *model) list(q Query, belongs func(*Connection) bool) []string {
	found := []*Connection{}
	for _, c := range m.entries {
		late := !q.To.IsZero() && !c.Began.Before(q.To)
		early := !q.From.IsZero() && !c.Ended.IsZero() && !c.Ended.After(q.From) && (!c.Ended.Equal(q.From) || !c.Began.Equal(c.Ended))
		if belongs(c) && !late && !early {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *Connection) int {
		if n := b.Began.Compare(a.Began); n != 0 {
			return n
		}
		return int(int64(m.seq[b]) - int64(m.seq[a]))
	})
	out := []string{}
	for _, c := range found {
		out = append(out, line(*c))
	}
	return out
}

// connectedAt is who was connected, sorted.
func (m *model) connectedAt(at time.Time) []string {
	out := []string{}
	for _, c := range m.entries {
		if !c.Refused && !c.Began.After(at) && (c.Ended.IsZero() || c.Ended.After(at)) {
			out = append(out, line(*c))
		}
	}
	slices.Sort(out)
	return out
}

// keep drops what retention removes for age.
func (m *model) keep(oldest time.Time) {
	m.entries = slices.DeleteFunc(m.entries, func(c *Connection) bool {
		gone := !c.Ended.IsZero() && c.Ended.Before(oldest)
		if gone && c.Ended.After(m.since) {
			m.since = c.Ended
		}
		return gone
	})
}

// TestRandomHistories compares lists, moments and retention with a search
// through everything, for random lives of a few clients, on both engines.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) store.Store{"embedded": inMemory, "postgres": onPostgres} {
		seeds := uint64(12)
		if name == "postgres" {
			seeds = 1
		}
		for seed := range seeds {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				t.Parallel()
				randomHistory(t, open(t), rand.New(rand.NewPCG(seed, 3)))
			})
		}
	}
}

func randomHistory(t *testing.T, s store.Store, r *rand.Rand) {
	t.Helper()
	f := newFixture(t, s)
	m := newModel(r, f.now)
	start := f.now
	for round := range 12 {
		for range 10 + r.IntN(60) {
			f.tell(m.step()...)
		}
		f.now = m.now
		before := f.applied
		f.follow(1 + r.IntN(20))
		if round%3 == 0 { // delivered again
			events, _, err := s.Events(t.Context(), before, 50)
			if err != nil {
				t.Fatal(err)
			}
			f.commit(events)
		}
		if round%4 == 3 {
			f.o.RetentionAge = m.now.Sub(start)/2 + time.Millisecond
			if err := f.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.keep(f.now.Add(-f.o.RetentionAge))
		}
		m.check(t, f, start)
	}
	m.checkKeys(t, f)
}

// between is a random moment of the run, often one at which something happened.
func (m *model) between(start time.Time) time.Time {
	if m.r.IntN(2) == 0 && len(m.entries) > 0 {
		c := m.entries[m.r.IntN(len(m.entries))]
		if m.r.IntN(2) == 0 && !c.Ended.IsZero() {
			return c.Ended
		}
		return c.Began
	}
	return start.Add(time.Duration(m.r.Int64N(m.now.Sub(start).Milliseconds()+1)) * time.Millisecond)
}

func (m *model) check(t *testing.T, f *fixture, start time.Time) {
	t.Helper()
	for range 10 {
		name := fmt.Sprint("c", m.r.IntN(6))
		q := Query{}
		if m.r.IntN(2) == 0 {
			q.From = m.between(start)
		}
		if m.r.IntN(2) == 0 {
			q.To = m.between(start).Add(time.Millisecond)
		}
		if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
			q.From = time.Time{}
		}
		byClient := func(c *Connection) bool { return c.ClientID == name }
		byThing := func(c *Connection) bool { return c.Thing() == name }
		if diff := cmp.Diff(m.list(q, byClient), pages(t, q, m.r, func(q Query) (Page, error) { return f.OfClient(t.Context(), account, name, q) })); diff != "" {
			t.Fatalf("client %s %+v: %s", name, q, diff)
		}
		if diff := cmp.Diff(m.list(q, byThing), pages(t, q, m.r, func(q Query) (Page, error) { return f.OfThing(t.Context(), account, name, q) })); diff != "" {
			t.Fatalf("thing %s %+v: %s", name, q, diff)
		}
		at := m.between(start)
		if at.Before(m.since) {
			at = m.since
		}
		got := pages(t, Query{}, m.r, func(q Query) (Page, error) {
			page, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: at, After: q.After, Limit: q.Limit})
			if want := len(m.connectedAt(at)); q.After == "" && page.Count != want {
				t.Fatalf("at %v %d are counted, want %d", at.Sub(start), page.Count, want)
			}
			return page.Page, err
		})
		slices.Sort(got)
		if diff := cmp.Diff(m.connectedAt(at), got); diff != "" {
			t.Fatalf("at %v: %s", at.Sub(start), diff)
		}
	}
}

// pages collects a list page by page, of random sizes.
func pages(t *testing.T, q Query, r *rand.Rand, next func(Query) (Page, error)) []string {
	t.Helper()
	out := []string{}
	for {
		q.Limit = 1 + r.IntN(7)
		page, err := next(q)
		out = append(out, lines(t, page, err)...)
		if len(page.Connections) > q.Limit {
			t.Fatalf("a page of %d has %d entries", q.Limit, len(page.Connections))
		}
		if q.After = page.Next; q.After == "" {
			return out
		}
	}
}

// checkKeys trims all and looks for keys that are left behind, and for counts
// that do not agree.
func (m *model) checkKeys(t *testing.T, f *fixture) {
	t.Helper()
	f.o.RetentionBytes = 0
	if err := f.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	filed, err := readTotal(t.Context(), f.store, kindSize, account)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := readTotal(t.Context(), f.store, kindTrimmed, account)
	if err != nil || filed.Bytes != gone.Bytes || filed.Entries != gone.Entries {
		t.Errorf("filed %+v, trimmed %+v, %v; want the same counts", filed, gone, err)
	}
	want := map[string]int{kindEntry: len(m.open), kindOpen: len(m.open)}
	got := map[string]int{}
	for _, kind := range []string{kindEntry, kindOpen, kindEnded, kindFrom, kindUntil} {
		if err := f.store.Scan(t.Context(), store.Under(kind), func(store.Record) error { got[kind]++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.open) == 0 {
		want = map[string]int{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys left of %d open connections: %s", len(m.open), diff)
	}
}
