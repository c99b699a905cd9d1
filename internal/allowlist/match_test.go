package allowlist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// claim lets a device join, as a registration would; told to try again it does.
func (r *rig) claim(q Query) (Reason, error) {
	for {
		m, err := r.Match(r.t.Context(), account, q)
		if err != nil {
			return "", err
		}
		if m.Reason == Used {
			err := m.RecordDuplicate(r.t.Context())
			if fault.CodeOf(err) == fault.Throttling {
				continue
			}
			return Used, err
		}
		if m.Reason != "" {
			return m.Reason, nil
		}
		b, err := m.Claim(r.t.Context())
		if err != nil {
			return "", err
		}
		if _, err := r.engine.Commit(r.t.Context(), b); !errors.Is(err, store.ErrConflict) {
			return "", err
		}
	}
}

// TestReasons: each reason why a device may not join, in the order in which they count.
func TestReasons(t *testing.T) { onEngines(t, testReasons) }

func testReasons(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, func(s *Supplier) { s.Templates = []string{"Pumps"} })
	unvetted, late, blocked, bare := pump("B7-unvetted"), pump("B7-late"), pump("B7-blocked"), pump("B7-bare")
	unvetted.Vetted, late.ExpiresAt, bare.Fingerprint = false, "2026-11-26", ""
	r.accepted("w", f.seal(written(t, "w", r.now, pump("B7-1"), pump("B7-2"), unvetted, late, blocked, bare)))
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "bolt", AcceptUnsigned: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "bolt", List: "b", Body: []byte("serial,vetted,model\nB7-bare,true,valve\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Accept(r.as("vic"), account, "b", 1, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SetEntry(r.as("vic"), account, Query{Serial: "B7-blocked", Fingerprints: []string{fingerprint("B7-blocked")}}, BlockedOne, "stolen from the truck"); err != nil {
		t.Fatal(err)
	}
	with := func(serial string, keys ...string) Query {
		q := Query{Serial: serial, Template: "Pumps", Thing: "thing-" + serial, CertificateID: fingerprint("certificate of " + serial)}
		for _, k := range keys {
			q.Fingerprints = append(q.Fingerprints, fingerprint(k))
		}
		return q
	}
	other := with("B7-1", "B7-1")
	other.Template = "Valves"
	model := with("B7-bare")
	model.Model = "pump-g2"
	supplier := with("B7-bare")
	supplier.Supplier = "bolt"
	for name, q := range map[string]Query{"two suppliers": with("B7-bare"), "copied serial": with("B7-1", "mine"), "another's serial": with("B7-2", "B7-1")} {
		if _, err := r.SetEntry(r.as("vic"), account, q, BlockedOne, "x"); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: an entry of somebody was blocked: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		q    Query
		want Reason
	}{
		"nobody":             {with("B9-1", "B9-1"), Unknown},
		"no serial":          {with("", "B9-1"), Unknown},
		"by key alone":       {with("", "B7-1"), ""},
		"by key of several":  {with("B7-1", "x", "y", "B7-1"), ""},
		"another's serial":   {with("B7-2", "B7-1"), OtherSerial},
		"copied serial":      {with("B7-1", "mine"), OtherKey},
		"no key":             {with("B7-1"), KeyNeeded},
		"other template":     {other, TemplateNotAllowed},
		"not vetted":         {with("B7-unvetted", "B7-unvetted"), NotVetted},
		"the day it expires": {with("B7-late", "B7-late"), ""},
		"blocked":            {with("B7-blocked", "B7-blocked"), Blocked},
		"blocked, no key":    {with("B7-blocked"), Blocked},
		"two suppliers":      {with("B7-bare"), Ambiguous},
		"with its model":     {model, ""},
		"of one supplier":    {supplier, ""},
	} {
		m, err := r.Match(t.Context(), account, c.q)
		if err != nil || m.Reason != c.want {
			t.Errorf("%s: %+v, %v", name, m, err)
		} else if words := m.Words(); words == "" || strings.Contains(words, "B7-") {
			t.Errorf("%s: words %q", name, words)
		}
	}
	r.now = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	if m, err := r.Match(t.Context(), account, with("B7-late", "B7-late")); err != nil || m.Reason != TooLate {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := r.Match(t.Context(), "000000000007", with("B7-1", "B7-1")); err != nil || m.Reason != Unknown {
		t.Errorf("another account: %+v, %v", m, err)
	}
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "acme", Status: Suspended}); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Match(t.Context(), account, with("B7-1", "B7-1")); err != nil || m.Reason != SupplierSuspended {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestOneEntryOneDevice: of many that race for an entry one joins; the others are raised
// once each. The one that has joined may come again, others may when the entry is set
// free, and what became of an entry outlives revisions.
func TestOneEntryOneDevice(t *testing.T) { onEngines(t, oneEntryOneDevice) }

func oneEntryOneDevice(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, func(s *Supplier) { s.AcceptSigned = true })
	bare := Entry{Serial: "B7-1", Vetted: true}
	upload := func(after time.Duration, entries ...Entry) {
		t.Helper()
		if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: f.seal(written(t, "w", r.now.Add(after), entries...))}); err != nil {
			t.Fatal(err)
		}
	}
	upload(0, bare, pump("B7-2"))
	who := func(i int) Query {
		return Query{Serial: "B7-1", Thing: fmt.Sprintf("thing-%d", i), CertificateID: fingerprint(fmt.Sprint(i))}
	}
	const racers = 20
	var joined atomic.Int32
	winner := -1
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() {
			for range 2 {
				reason, err := r.claim(who(i))
				switch {
				case err != nil:
					t.Error(err)
				case reason == "":
					joined.Add(1)
					mu.Lock()
					winner = i
					mu.Unlock()
				case reason != Used:
					t.Errorf("racer %d: %s", i, reason)
				}
			}
		})
	}
	all.Wait()
	if joined.Load() != 2 { // the winner comes twice
		t.Fatalf("%d joined", joined.Load())
	}
	doubles := map[string]int{}
	for _, e := range r.events() {
		if d, ok := e.(event.DuplicateSerial); ok {
			doubles[d.CertificateID]++
			if d.OtherCertificateID != who(winner).CertificateID || d.OtherThing != who(winner).Thing || d.ListID != "w" {
				t.Errorf("%+v", d)
			}
		}
	}
	// The record remembers the last sixteen.
	if len(doubles) != racers-1 {
		t.Errorf("%d duplicates raised", len(doubles))
	}

	upload(time.Minute, bare, pump("B7-3"))
	if reason, err := r.claim(who(racers)); err != nil || reason != Used {
		t.Errorf("in another revision: %q, %v", reason, err)
	}
	c, err := r.Check(r.as("rita"), account, Query{Serial: "B7-1"})
	if err != nil || c.State != Claimed || c.Thing != who(winner).Thing || c.Revision != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := r.SetEntry(r.as("vic"), account, Query{Serial: "B7-1"}, Unused, "erased in the workshop"); err != nil {
		t.Fatal(err)
	}
	if reason, err := r.claim(who(racers)); err != nil || reason != "" {
		t.Errorf("after it was set free: %q, %v", reason, err)
	}

	// The key proves that it is the same device, with a new certificate.
	known := Query{Serial: "B7-3", Fingerprints: []string{fingerprint("B7-3")}, Thing: "p3", CertificateID: fingerprint("first")}
	again := known
	again.CertificateID = fingerprint("second")
	impostor := again
	impostor.Thing, impostor.CertificateID = "p4", fingerprint("third")
	for i, c := range []struct {
		q    Query
		want Reason
	}{{known, ""}, {again, ""}, {impostor, Used}} {
		if reason, err := r.claim(c.q); err != nil || reason != c.want {
			t.Errorf("%d: %q, %v", i, reason, err)
		}
	}
	_, err = r.SetEntry(r.as("vic"), account, Query{Serial: "B8"}, Unused, "x")
	says(t, err, fault.ResourceNotFound, "on no accepted allow list")
	_, err = r.Check(r.as("vic"), account, Query{})
	says(t, err, fault.InvalidRequest, "serial or fingerprint")
}

// TestChangesBetweenMatchAndClaim: a match does not outlive what it has relied upon.
func TestChangesBetweenMatchAndClaim(t *testing.T) { onEngines(t, changesBetweenMatchAndClaim) }

func changesBetweenMatchAndClaim(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	for name, change := range map[string]func(r *rig, f *factory) error{
		"supplier suspended": func(r *rig, _ *factory) error {
			_, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "acme", Status: Suspended})
			return err
		},
		"new revision": func(r *rig, f *factory) error {
			r.accepted("w", f.seal(written(r.t, "w", r.now.Add(time.Hour), pump("B7-2"))))
			return nil
		},
		"deleted": func(r *rig, _ *factory) error {
			_, first := r.Delete(r.as("uma"), account, "w")
			_, second := r.Delete(r.as("vic"), account, "w")
			return errors.Join(first, second)
		},
		"blocked": func(r *rig, _ *factory) error {
			_, err := r.SetEntry(r.as("vic"), account, Query{Serial: "B7-1", Fingerprints: []string{fingerprint("B7-1")}}, BlockedOne, "x")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := newFactory(t, Ed25519, "line-1")
			r.acme(f, nil)
			r.accepted("w", f.seal(written(t, "w", r.now, pump("B7-1"))))
			m, err := r.Match(t.Context(), account, Query{Serial: "B7-1", Fingerprints: []string{fingerprint("B7-1")}, Thing: "x", CertificateID: fingerprint("c")})
			if err != nil || m.Reason != "" {
				t.Fatalf("%+v, %v", m, err)
			}
			b, err := m.Claim(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := change(r, f); err != nil {
				t.Fatal(err)
			}
			if _, err := r.engine.Commit(t.Context(), b); !errors.Is(err, store.ErrConflict) {
				t.Errorf("committed: %v", err)
			}
		})
	}
}

// cut is a store that ends after so many commits.
type cut struct {
	store.Store

	left atomic.Int64
}

func (c *cut) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if c.left.Add(-1) < 0 {
		return store.Position{}, store.ErrClosed
	}
	return c.Store.Commit(ctx, b) //nolint:wrapcheck // as it is
}

// TestCutAnywhere: whichever commit of an upload, its acceptance or a deletion is the
// last one before the process ends, the next process makes it whole: devices are
// matched against all of a revision or against none of it.
func TestCutAnywhere(t *testing.T) { onEngines(t, cutAnywhere) }

func cutAnywhere(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	identity := newIdentity(t)
	for commits := range int64(14) {
		r := newRig(t)
		f := newFactory(t, Ed25519, "line-1")
		r.Service = r.over(r.engine, identity)
		r.acme(f, func(s *Supplier) { s.AcceptSigned = true })
		entries := make([]Entry, 2*commitEntries+1)
		for i := range entries {
			entries[i] = pump(fmt.Sprintf("B7-%04d", i))
		}
		body := f.seal(written(t, "w", r.now, entries...))
		ending := &cut{Store: r.engine}
		ending.left.Store(commits)
		before := r.over(ending, identity)
		_, uploaded := before.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: body})
		_, asked := before.Delete(r.as("uma"), account, "w")
		if asked == nil {
			_, asked = before.Delete(r.as("vic"), account, "w")
		}
		// The next process; the one before is surely over.
		r.now = r.now.Add(2 * uploadLife)
		after := r.over(r.engine, identity)
		if err := after.Resume(t.Context()); err != nil {
			t.Fatalf("%d commits: %v", commits, err)
		}
		l, err := after.List(t.Context(), account, "w")
		there := err == nil
		if there && l.Current != 1 && l.Deleted.IsZero() {
			t.Errorf("%d commits: %+v", commits, l)
		}
		if uploaded == nil && !there {
			t.Errorf("%d commits: an answered upload is gone", commits)
		}
		if asked == nil && l.Deleted.IsZero() {
			t.Errorf("%d commits: an answered deletion did not happen", commits)
		}
		matched := 0
		for i := range entries {
			m, err := after.Match(t.Context(), account, Query{Serial: entries[i].Serial, Fingerprints: []string{entries[i].Fingerprint}})
			if err != nil {
				t.Fatal(err)
			}
			if m.Reason == "" {
				matched++
			}
		}
		want := 0
		if there && l.Deleted.IsZero() {
			want = len(entries)
		}
		if matched != want {
			t.Errorf("%d commits: %d of %d devices may join, want %d", commits, matched, len(entries), want)
		}
		for _, kind := range []string{kindUpload, kindWork} {
			if left := r.keys(kind); len(left) > 0 {
				t.Errorf("%d commits: left over %v", commits, left)
			}
		}
		if !there || !l.Deleted.IsZero() {
			for _, kind := range []string{kindOriginal, kindEntry, kindSerial, kindPrint} {
				if left := r.keys(kind); len(left) > 0 {
					t.Errorf("%d commits: %d keys left under %s", commits, len(left), kind)
				}
			}
		}
	}
}

// meddled is a store in which something happens ahead of a commit.
type meddled struct {
	store.Store

	left  atomic.Int64
	event func()
}

func (m *meddled) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if m.left.Add(-1) == -1 {
		m.event()
	}
	return m.Store.Commit(ctx, b) //nolint:wrapcheck // as it is
}

// TestDeletedWhileItIsAccepted: whenever two people delete a list whose revision is
// being accepted, nothing of it is left, and the next process has nothing to do.
func TestDeletedWhileItIsAccepted(t *testing.T) {
	for commits := range int64(5) {
		r := newRig(t)
		f := newFactory(t, Ed25519, "line-1")
		r.acme(f, nil)
		entries := make([]Entry, 2*commitEntries+1)
		for i := range entries {
			entries[i] = pump(fmt.Sprintf("B7-%04d", i))
		}
		if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: f.seal(written(t, "w", r.now, entries...))}); err != nil {
			t.Fatal(err)
		}
		engine := &meddled{Store: r.engine, event: func() {
			for _, who := range []string{"uma", "vic"} {
				if _, err := r.Delete(r.as(who), account, "w"); err != nil {
					t.Error(err)
				}
			}
		}}
		engine.left.Store(commits)
		meddling := r.over(engine, r.o.Identity)
		if _, err := meddling.Accept(r.as("vic"), account, "w", 1, ""); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("%d commits: %v", commits, err)
		}
		if err := r.Resume(t.Context()); err != nil {
			t.Errorf("%d commits: %v", commits, err)
		}
		for _, kind := range []string{kindUpload, kindWork, kindOriginal, kindEntry, kindSerial, kindPrint} {
			if left := r.keys(kind); len(left) > 0 {
				t.Errorf("%d commits: %d keys left under %s", commits, len(left), kind)
			}
		}
	}
}

// keys are those of a kind.
func (r *rig) keys(kind string) []store.Key {
	r.t.Helper()
	var all []store.Key
	err := r.engine.Scan(r.t.Context(), store.Under(kind), func(found store.Record) error {
		all = append(all, found.Key)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestNothingOfAListIsReadable: neither the store, nor the log of events, nor log lines
// hold anything of a list, and another identity opens nothing.
func TestNothingOfAListIsReadable(t *testing.T) { onEngines(t, nothingOfAListIsReadable) }

func nothingOfAListIsReadable(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	const serial = "XYZZY-4711"
	e := pump(serial)
	body := f.seal(written(t, "w", r.now, e))
	r.accepted("w", body)
	csv := []byte("serial,vetted\n" + serial + ",maybe\n")
	for _, u := range []Upload{
		{Body: csv, Signature: f.plain(csv)},
		{Body: body},
		{Body: []byte(serial + ",true\n"), Signature: f.plain([]byte(serial + ",true\n"))},
		{Body: []byte(`{"` + serial + `":1}`), Signature: f.plain([]byte(`{"` + serial + `":1}`))},
		{Body: []byte(`{"serial":"` + serial + `","` + serial + `":1}`), Signature: f.plain([]byte(`{"serial":"` + serial + `","` + serial + `":1}`))},
	} {
		u.Supplier, u.List = "acme", "w2"
		if _, err := r.Upload(r.as("uma"), account, u); err == nil || strings.Contains(err.Error(), serial) {
			t.Errorf("%v", err)
		}
	}
	for i := range 3 {
		if _, err := r.claim(Query{Serial: serial, Fingerprints: []string{e.Fingerprint}, Thing: "p", CertificateID: fingerprint(fmt.Sprint(i)), Template: "T"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Diff(r.as("rita"), account, "w", 1, 2); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Error(err)
	}
	secrets := []string{serial, e.Fingerprint, e.Batch, e.VetReport, "pump-g2", "2026-11-18", string(body[40:80])}
	look := func(what string, text []byte) {
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds %q", what, secret)
			}
		}
	}
	records := 0
	err := r.engine.Scan(t.Context(), store.Range{}, func(found store.Record) error {
		records++
		look(found.Key.String(), append([]byte(found.Key), found.Value...))
		return nil
	})
	if err != nil || records < 8 {
		t.Errorf("%d records, %v", records, err)
	}
	for _, e := range r.events() {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		look(fmt.Sprintf("%T", e), text)
	}
	look("the log", r.log.Bytes())

	stranger := r.over(r.engine, newIdentity(t))
	_, err = stranger.Match(t.Context(), account, Query{Serial: serial})
	says(t, err, fault.Unavailable, "does not open")
	_, err = stranger.Original(r.as("rita"), account, "w", 1)
	says(t, err, fault.Unavailable, "does not open")
	none := r.over(r.engine, nil)
	_, err = none.Match(t.Context(), account, Query{Serial: serial})
	says(t, err, fault.InvalidRequest, "allow-list.identity-file")
}

// TestEntriesCannotBeMoved: a row or an entry that somebody with access to the store has
// put in another place lets no other device in.
func TestEntriesCannotBeMoved(t *testing.T) { onEngines(t, entriesCannotBeMoved) }

func entriesCannotBeMoved(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	r.accepted("w", f.seal(written(t, "w", r.now, pump("B7-1"), pump("B7-2"))))
	v, err := r.vault(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	// The row of a device that nobody made leads to a good entry.
	row := foundKey(kindPrint, account, v.hash("print", fingerprint("rogue")), "w", 1, 0)
	if _, err := r.engine.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: row, Value: []byte(plainRow)}}}); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Match(t.Context(), account, Query{Fingerprints: []string{fingerprint("rogue")}}); err != nil || m.Reason != Unknown {
		t.Errorf("%+v, %v", m, err)
	}
	first, err := r.engine.Get(t.Context(), entryKey(account, "w", 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: entryKey(account, "w", 1, 1), Value: first.Value}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Match(t.Context(), account, Query{Fingerprints: []string{fingerprint("B7-2")}}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("%v", err)
	}
}

// TestRandomLists: what is on a list is found in every way and nothing else is.
func TestRandomLists(t *testing.T) {
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, func(s *Supplier) { s.AcceptSigned = true })
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		current := map[string]Entry{}
		var entries []Entry
		for i := range 1 + random.IntN(40) {
			e := Entry{Serial: fmt.Sprintf("S%d", random.IntN(60)), Model: "m", Vetted: random.IntN(4) > 0}
			if random.IntN(2) == 0 {
				e.Fingerprint = fingerprint(fmt.Sprint(round, i))
			}
			if _, twice := current[e.Serial]; !twice {
				current[e.Serial] = e
				entries = append(entries, e)
			}
		}
		if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: f.seal(written(t, "w", r.now.Add(time.Duration(round)*time.Minute), entries...))}); err != nil {
			t.Fatal(err)
		}
		got, want := map[string]Reason{}, map[string]Reason{}
		for i := range 60 {
			serial := fmt.Sprintf("S%d", i)
			e, listed := current[serial]
			m, err := r.Match(t.Context(), account, Query{Serial: serial, Fingerprints: []string{e.Fingerprint}})
			if err != nil {
				t.Fatal(err)
			}
			got[serial] = m.Reason
			switch {
			case !listed:
				want[serial] = Unknown
			case !e.Vetted:
				want[serial] = NotVetted
			default:
				want[serial] = ""
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: %s", round, diff)
		}
	}
}

// TestOneCertificateRaisesOnce: who goes through serial numbers with one certificate
// raises one duplicate, and is refused for each.
func TestOneCertificateRaisesOnce(t *testing.T) {
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	entries := make([]Entry, 20)
	for i := range entries {
		entries[i] = Entry{Serial: fmt.Sprintf("B7-%d", i), Vetted: true}
	}
	r.accepted("w", f.seal(written(t, "w", r.now, entries...)))
	for i := range entries {
		if reason, err := r.claim(Query{Serial: entries[i].Serial, Thing: entries[i].Serial, CertificateID: fingerprint(entries[i].Serial)}); err != nil || reason != "" {
			t.Fatalf("%q, %v", reason, err)
		}
	}
	for range 2 {
		for i := range entries {
			if reason, err := r.claim(Query{Serial: entries[i].Serial, Thing: "x", CertificateID: fingerprint("thief")}); err != nil || reason != Used {
				t.Fatalf("%q, %v", reason, err)
			}
		}
	}
	raised := 0
	for _, e := range r.events() {
		if _, ok := e.(event.DuplicateSerial); ok {
			raised++
		}
	}
	if raised != 1 {
		t.Errorf("raised %d times", raised)
	}
}

// TestBlockedStaysBlocked: a device that is blocked stays so in a revision that has
// another model for it, by its key or, without one, by its serial number, until it is
// set free.
func TestBlockedStaysBlocked(t *testing.T) {
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	keyed, bare := pump("B7-1"), Entry{Serial: "B7-2", Vetted: true}
	r.accepted("w", f.seal(written(t, "w", r.now, keyed, bare)))
	queries := []Query{{Serial: "B7-1", Fingerprints: []string{keyed.Fingerprint}}, {Serial: "B7-2"}}
	for _, q := range queries {
		if _, err := r.SetEntry(r.as("vic"), account, q, BlockedOne, "stolen"); err != nil {
			t.Fatal(err)
		}
	}
	keyed.Model, bare.Model = "pump-g3", "pump-g3"
	r.accepted("w", f.seal(written(t, "w", r.now.Add(time.Minute), keyed, bare)))
	for _, want := range []Reason{Blocked, ""} {
		for _, q := range queries {
			if m, err := r.Match(t.Context(), account, q); err != nil || m.Reason != want || m.Revision != 2 {
				t.Errorf("%s: %+v, %v, want %q", q.Serial, m, err, want)
			}
			if want == Blocked {
				if _, err := r.SetEntry(r.as("vic"), account, q, Unused, "found again"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
