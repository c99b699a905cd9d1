package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

func fixed() time.Time { return time.Unix(1795412345, 123).UTC() }

func update(t *testing.T, s *Service, thing, shadow, body string) *Updated {
	t.Helper()
	u, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: thing, Shadow: shadow, Body: []byte(body)})
	if err != nil {
		t.Fatalf("update %s: %v", body, err)
	}
	return u
}

func get(t *testing.T, s *Service, thing, shadow string) Document {
	t.Helper()
	d, err := s.Get(t.Context(), scriptAccount, thing, shadow)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEventsCommitWithTheirState(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	actor := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "c"}, ClientID: "pump-7"}
	ctx := fleet.WithActor(t.Context(), actor)
	for _, body := range []string{
		`{"state":{"desired":{ "a":1, "b":null }},"clientToken":"x"}`,
		`{"state":{"desired":null,"reported":{"c":[ 1 ]}}}`,
	} {
		if _, err := s.Update(ctx, UpdateCommand{Account: scriptAccount, Thing: "pump-7", Shadow: "cfg", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Delete(ctx, DeleteCommand{Account: scriptAccount, Thing: "pump-7", Shadow: "cfg"}); err != nil {
		t.Fatal(err)
	}
	envelope := func(e event.Event) event.Envelope {
		return event.Envelope{Account: scriptAccount, At: fixed(), Actor: actor, Event: e}
	}
	want := []event.Envelope{
		envelope(event.ShadowUpdated{Thing: "pump-7", Shadow: "cfg", Version: 1, Patch: []byte(`{"desired":{"a":1,"b":null}}`), Delta: []byte(`{"a":1}`), Timestamp: 1795412345}),
		envelope(event.ShadowUpdated{Thing: "pump-7", Shadow: "cfg", Version: 2, Patch: []byte(`{"desired":null,"reported":{"c":[1]}}`), Timestamp: 1795412345}),
		envelope(event.ShadowDeleted{Thing: "pump-7", Shadow: "cfg", Version: 2}),
	}
	if diff := cmp.Diff(want, m.told(t)); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

func TestAnotherServiceReadsWhatIsStored(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	first := New(Options{Store: m, Now: fixed})
	update(t, first, "pump-7", "", `{"state":{"desired":{"a":1},"reported":{"b":[1,2]}}}`)
	update(t, first, "pump-7", "cfg", `{"state":{"reported":{"x":1}}}`)
	second := New(Options{Store: m, Now: fixed})
	for _, name := range []string{"", "cfg"} {
		if diff := cmp.Diff(string(get(t, first, "pump-7", name).GetDocument("", 1)), string(get(t, second, "pump-7", name).GetDocument("", 1))); diff != "" {
			t.Errorf("shadow %q differs (-first +second):\n%s", name, diff)
		}
	}
	all, err := second.Documents(t.Context(), scriptAccount, "pump-7")
	if err != nil || len(all) != 2 || all[0].Shadow != "" || all[1].Shadow != "cfg" {
		t.Fatalf("documents = %v, %v; want the classic shadow, then cfg", all, err)
	}
}

// The limit is 8192 bytes of stored state without metadata (4.9).
func TestStateSizeLimit(t *testing.T) {
	t.Parallel()
	s := New(Options{Store: newMemory(t), Now: fixed})
	overhead := len(`{"reported":{"a":""}}`)
	body := func(n int) string { return `{"state":{"reported":{"a":"` + strings.Repeat("x", n) + `"}}}` }
	update(t, s, "full", "", body(8192-overhead))
	_, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "over", Body: []byte(body(8193 - overhead))})
	if fault.CodeOf(err) != fault.RequestEntityTooLarge {
		t.Errorf("state of 8193 bytes: %v", err)
	}
	_, err = s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "full", Body: []byte(`{"state":{"desired":{"b":1}}}`)})
	if fault.CodeOf(err) != fault.RequestEntityTooLarge {
		t.Errorf("growing a full document: %v", err)
	}
	if v := get(t, s, "full", "").Version; v != 1 {
		t.Errorf("a refused update left version %d", v)
	}
	update(t, s, "full", "", `{"state":{"reported":{"a":null}}}`)
}

func TestUpdatesOfOneShadowLoseNothing(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"one process": false, "shared store": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory(t)
			services := []*Service{New(Options{Store: m, Now: fixed, Shared: shared})}
			if shared {
				services = append(services, New(Options{Store: m, Now: fixed, Shared: true}))
			}
			const writers, each = 8, 25
			var mu sync.Mutex
			seen := map[int64]bool{}
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						s := services[w%len(services)]
						u, err := s.Update(t.Context(), UpdateCommand{
							Account: scriptAccount, Thing: "pump-7",
							Body: fmt.Appendf(nil, `{"state":{"reported":{"w%d-%d":1}}}`, w, i),
						})
						if fault.CodeOf(err) == fault.Throttling {
							continue
						}
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						if seen[u.Version] {
							t.Errorf("version %d was given twice", u.Version)
						}
						seen[u.Version] = true
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			d := get(t, services[0], "pump-7", "")
			if int(d.Version) != len(seen) || len(d.d.reported) != len(seen) || len(m.told(t)) != len(seen) {
				t.Errorf("version %d, %d members, %d events for %d accepted updates", d.Version, len(d.d.reported), len(m.told(t)), len(seen))
			}
		})
	}
}

func TestCommittedIsCalledInOrderOfVersions(t *testing.T) {
	t.Parallel()
	s := New(Options{Store: newMemory(t), Now: fixed})
	var versions []int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := s.Update(t.Context(), UpdateCommand{
				Account: scriptAccount, Thing: "pump-7", Body: []byte(`{"state":{}}`),
				Committed: func(u *Updated) { versions = append(versions, u.Version) },
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, v := range versions {
		if v != int64(i+1) {
			t.Fatalf("announced versions %v", versions)
		}
	}
}

func TestConflictWithAnotherProcessIsRetried(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed, Shared: true})
	other := New(Options{Store: m, Now: fixed, Shared: true})
	update(t, s, "pump-7", "", `{"state":{"reported":{"a":1}}}`)
	m.before = func(store.Batch) error {
		m.before = nil
		update(t, other, "pump-7", "", `{"state":{"reported":{"b":2}}}`)
		return nil
	}
	if u := update(t, s, "pump-7", "", `{"state":{"reported":{"c":3}}}`); u.Version != 3 {
		t.Errorf("version = %d, want 3", u.Version)
	}
	if got, want := string(get(t, other, "pump-7", "").Reported()), `{"a":1,"b":2,"c":3}`; got != want {
		t.Errorf("reported = %s, want %s", got, want)
	}
}

// What a process remembers of a shared store may be old: it neither refuses nor
// changes anything on its account, and costs no read when it is right.
func TestRememberedDocumentOfASharedStore(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed, Shared: true})
	other := New(Options{Store: m, Now: fixed, Shared: true})
	update(t, s, "pump-7", "", `{"state":{"reported":{"a":1}}}`)
	update(t, other, "pump-7", "", `{"state":{"reported":{"b":2}}}`)
	if u := update(t, s, "pump-7", "", `{"version":2,"state":{"reported":{"c":3}}}`); u.Version != 3 {
		t.Errorf("version = %d, want 3", u.Version)
	}
	_, err := other.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "pump-7", Body: []byte(`{"version":2,"state":{}}`)})
	if fault.CodeOf(err) != fault.Conflict {
		t.Errorf("update of version 2: %v", err)
	}
	if _, err := other.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7"}); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("second deletion: %v", err)
	}
	update(t, s, "pump-8", "", `{"state":{"reported":{"a":1}}}`)
	reads := m.reads.Load()
	for range 5 {
		update(t, s, "pump-8", "", `{"state":{"reported":{"a":2}}}`)
	}
	if n := m.reads.Load() - reads; n != 0 {
		t.Errorf("%d reads for updates of a remembered document", n)
	}
}

func TestFailedCommitChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	update(t, s, "pump-7", "", `{"state":{"reported":{"a":1}}}`)
	for err, code := range map[error]fault.Code{
		store.ErrDiskFull:      fault.Unavailable,
		store.ErrClosed:        fault.Unavailable,
		errors.New("io error"): fault.Internal,
	} {
		m.before = func(store.Batch) error { return err }
		called := false
		_, got := s.Update(t.Context(), UpdateCommand{
			Account: scriptAccount, Thing: "pump-7", Body: []byte(`{"state":{"reported":{"a":2}}}`),
			Committed: func(*Updated) { called = true },
		})
		if fault.CodeOf(got) != code || called || !errors.Is(got, err) {
			t.Errorf("%v: code %s, announced %v", err, fault.CodeOf(got), called)
		}
		m.before = nil
		if got := string(get(t, s, "pump-7", "").Reported()); got != `{"a":1}` {
			t.Errorf("%v: reported = %s", err, got)
		}
	}
}

func TestInFlightLimitIsPerThing(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	entered, leave := make(chan struct{}, 8), make(chan struct{})
	m.before = func(b store.Batch) error {
		if strings.Contains(string(b.Writes[0].Key), "slow") {
			entered <- struct{}{}
			<-leave
		}
		return nil
	}
	s := New(Options{Store: m, Now: fixed, Limits: Limits{InFlight: 1}})
	done := make(chan error, 1)
	go func() {
		_, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "slow", Body: []byte(`{"state":{}}`)})
		done <- err
	}()
	<-entered
	_, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "slow", Shadow: "other", Body: []byte(`{"state":{}}`)})
	if fault.CodeOf(err) != fault.Throttling {
		t.Errorf("second request of the thing: %v", err)
	}
	update(t, s, "other", "", `{"state":{}}`)
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	update(t, s, "slow", "", `{"state":{}}`)
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	l := newLocks()
	id := identity{account: scriptAccount, thing: "pump-7"}
	release, err := l.acquire(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.acquire(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("acquire with an ended context: %v", err)
	}
	release()
	for i := range l.shards {
		if n := len(l.shards[i].held); n != 0 {
			t.Errorf("part %d keeps %d locks that nobody uses", i, n)
		}
	}
}

func TestCacheStaysWithinItsBytes(t *testing.T) {
	t.Parallel()
	const limit = 256 << 10
	s := New(Options{Store: newMemory(t), Now: fixed, CacheBytes: limit})
	for i := range 500 {
		update(t, s, fmt.Sprintf("t%d", i), "", `{"state":{"reported":{"a":"`+strings.Repeat("x", 500)+`"}}}`)
	}
	var bytes int64
	for i := range s.cache.shards {
		bytes += s.cache.shards[i].bytes
	}
	if bytes > limit || bytes == 0 {
		t.Errorf("cache holds %d bytes, limit %d", bytes, limit)
	}
	for i := range 500 {
		if v := get(t, s, fmt.Sprintf("t%d", i), "").Version; v != 1 {
			t.Fatalf("t%d has version %d", i, v)
		}
	}
}

func TestTreesLetGoOfOldRequests(t *testing.T) {
	t.Parallel()
	s := New(Options{Store: newMemory(t), Now: fixed})
	for i := range 300 {
		// White space makes each request far larger than what stays of it.
		update(t, s, "pump-7", "", fmt.Sprintf(`{"state":{"reported":{"k%d":%d}}}%s`, i%20, i, strings.Repeat(" ", 4000)))
	}
	if pinned := get(t, s, "pump-7", "").d.pinned; pinned > 20_000 {
		t.Errorf("a document of 20 numbers keeps %d bytes alive", pinned)
	}
}

func TestRequireThing(t *testing.T) {
	t.Parallel()
	s := New(Options{Store: newMemory(t), Now: fixed, RequireThing: registered{"pump-7": true}})
	update(t, s, "pump-7", "", `{"state":{}}`)
	_, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "ghost", Body: []byte(`{"state":{}}`)})
	if fault.CodeOf(err) != fault.ResourceNotFound || fault.From(err).Message != "Thing not found" {
		t.Errorf("update of an unknown thing: %v", err)
	}
	if _, err := s.Get(t.Context(), scriptAccount, "ghost", ""); fault.From(err).Message != "Thing not found" {
		t.Errorf("get of an unknown thing: %v", err)
	}
}

type registered map[string]bool

func (r registered) ThingExists(_ context.Context, _ fleet.Account, thing string) (bool, error) {
	return r[thing], nil
}

func TestListNamedPages(t *testing.T) {
	t.Parallel()
	s := New(Options{Store: newMemory(t), Now: fixed})
	for _, name := range []string{"", "b", "a", "d", "c", "e"} {
		update(t, s, "pump-7", name, `{"state":{}}`)
	}
	update(t, s, "pump-70", "z", `{"state":{}}`)
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7", Shadow: "c"}); err != nil {
		t.Fatal(err)
	}
	var pages []string
	for after := ""; ; {
		names, next, err := s.ListNamed(t.Context(), scriptAccount, "pump-7", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, strings.Join(names, ","))
		if next == "" {
			break
		}
		after = next
	}
	if diff := cmp.Diff([]string{"a,b", "d,e"}, pages); diff != "" {
		t.Errorf("pages differ (-want +got):\n%s", diff)
	}
	names, _, err := s.ListNamed(t.Context(), scriptAccount, "nobody", "", 2)
	if err != nil || len(names) != 0 {
		t.Errorf("unknown thing: %v, %v", names, err)
	}
}

func TestForgetRemovesOldDeletions(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	now := fixed()
	s := New(Options{Store: m, Now: func() time.Time { return now }})
	for _, name := range []string{"old", "again", "young"} {
		update(t, s, "pump-7", name, `{"state":{}}`)
	}
	remove := func(name string) {
		if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7", Shadow: name}); err != nil {
			t.Fatal(err)
		}
	}
	remove("old")
	remove("again")
	update(t, s, "pump-7", "again", `{"state":{}}`)
	now = now.Add(47 * time.Hour)
	remove("young")
	now = now.Add(time.Hour + time.Second)
	n, err := s.Forget(t.Context())
	if err != nil || n != 1 {
		t.Fatalf("forgot %d, %v; want the one old deletion", n, err)
	}
	want := []string{
		"shadow/000000000001/pump-7/again",
		"shadow/000000000001/pump-7/young",
		"shadow-gone/1795581545000000123/000000000001/pump-7/young",
	}
	if diff := cmp.Diff(want, m.keys(t), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("left records differ (-want +got):\n%s", diff)
	}
	if u := update(t, s, "pump-7", "young", `{"state":{}}`); u.Version != 2 {
		t.Errorf("young deletion continued at %d", u.Version)
	}
	if u := update(t, s, "pump-7", "old", `{"state":{}}`); u.Version != 1 {
		t.Errorf("forgotten deletion continued at %d", u.Version)
	}
}

func TestEachShadow(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	for _, account := range []fleet.Account{"000000000001", "000000000002"} {
		for _, thing := range []string{"a", "b"} {
			if _, err := s.Update(t.Context(), UpdateCommand{Account: account, Thing: thing, Body: []byte(`{"state":{"desired":{"x":1}}}`)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: "000000000001", Thing: "b"}); err != nil {
		t.Fatal(err)
	}
	for account, want := range map[fleet.Account]string{"": "1a 2a 2b", "000000000001": "1a"} {
		var got []string
		err := EachShadow(t.Context(), m, account, func(d Document) error {
			got = append(got, string(d.Account[11:])+d.Thing)
			if string(d.State()) != `{"desired":{"x":1}}` || string(d.Delta()) != `{"x":1}` || !d.At.Equal(fixed()) {
				t.Errorf("document = %s, delta %s, at %v", d.State(), d.Delta(), d.At)
			}
			return nil
		})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("account %q: %v, %v; want %s", account, got, err, want)
		}
	}
}

// DeleteAll takes the shadows of one thing, and each says so.
func TestDeleteAll(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	for _, thing := range []string{"pump-7", "pump-77"} {
		for _, name := range []string{"", "a", "b"} {
			update(t, s, thing, name, `{"state":{"desired":{"x":1}}}`)
		}
	}
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7", Shadow: "b"}); err != nil {
		t.Fatal(err)
	}
	before := len(m.told(t))
	for _, want := range []int{2, 0} {
		if n, err := s.DeleteAll(t.Context(), scriptAccount, "pump-7"); err != nil || n != want {
			t.Fatalf("deleted %d, %v, want %d", n, err, want)
		}
	}
	var got []event.Event
	for _, e := range m.told(t)[before:] {
		got = append(got, e.Event)
	}
	want := []event.Event{event.ShadowDeleted{Thing: "pump-7", Version: 1}, event.ShadowDeleted{Thing: "pump-7", Shadow: "a", Version: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if left, err := s.Documents(t.Context(), scriptAccount, "pump-77"); err != nil || len(left) != 3 {
		t.Errorf("another thing has %d shadows, %v", len(left), err)
	}
	if _, err := s.DeleteAll(t.Context(), scriptAccount, "a b"); err == nil {
		t.Error("a name that is none was accepted")
	}
}
