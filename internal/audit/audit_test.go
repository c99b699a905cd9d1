package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

const (
	account fleet.Account = "000000000000"
	other   fleet.Account = "111111111111"
)

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

// engines runs a test on both engines.
func engines(t *testing.T, test func(t *testing.T, s store.Store)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, inMemory(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		s, err := postgres.Open(t.Context(), postgres.Options{URL: cluster.Get(t).Database(t), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		test(t, s)
	})
}

// fixture is a trail whose events are applied by hand.
type fixture struct {
	*Service
	t     *testing.T
	now   time.Time
	clock int
	// applied is the consumer's cursor.
	applied store.Cursor
}

func newFixture(t *testing.T, s store.Store) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.UnixMilli(1_750_000_000_000).UTC()}
	f.Service = newService(t, s, func() time.Time { return f.now })
	return f
}

func newService(tb testing.TB, s store.Store, now func() time.Time) *Service {
	tb.Helper()
	service, err := New(Options{
		Store: s, Region: "eu-local-1", DefaultAccount: account, Seed: bytes.Repeat([]byte{7}, SeedSize),
		Now: now, Logger: slog.New(slog.DiscardHandler), RetentionAge: 24 * time.Hour,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return service
}

// need ends the test on an error.
func (f *fixture) need(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// called is the event of a call by a user.
func (f *fixture) called(user, name string, resources ...string) event.Envelope {
	f.clock++
	p := fleet.Principal{Kind: fleet.PrincipalUser, ID: user, ARN: iamARN(account, "user/"+user)}
	return event.Envelope{
		Account: account, At: f.now.Add(time.Duration(f.clock) * time.Second),
		Actor: fleet.Actor{Principal: p, SourceAddress: "192.0.2.7", AccessKeyID: "AKIA" + strings.ToUpper(user), RequestID: fmt.Sprint("request-", f.clock)},
		Event: event.APICalled{
			ID: newID(), Source: "iot.amazonaws.com", Name: name, ReadOnly: strings.HasPrefix(name, "List"),
			Parameters: Parameters(map[string]any{"thingName": "pump-1", "<&>": "ä"}), Resources: resources,
		},
	}
}

// tell appends events to the log.
func (f *fixture) tell(events ...event.Envelope) {
	f.t.Helper()
	_, err := f.store.Commit(f.t.Context(), store.Batch{Events: events})
	f.need(err)
}

// follow applies what is new, some at a time.
func (f *fixture) apply(limit int) {
	f.t.Helper()
	for {
		events, next, err := f.store.Events(f.t.Context(), f.applied, limit)
		f.need(err)
		if len(events) == 0 {
			return
		}
		b, err := f.Apply(f.t.Context(), events)
		f.need(err)
		_, err = f.store.Commit(f.t.Context(), b)
		f.need(err)
		f.applied = next
	}
}

// verify returns what is found.
func (f *fixture) verify(kept ...Head) (Verdict, []Finding) {
	f.t.Helper()
	var found []Finding
	verdict, err := f.Verify(f.t.Context(), account, kept, Witness{
		Found:    func(x Finding) error { found = append(found, x); return nil },
		Progress: func(int) error { return nil },
	})
	f.need(err)
	return verdict, found
}

// export returns the file.
func (f *fixture) export(from, to time.Time) []byte {
	f.t.Helper()
	var out bytes.Buffer
	f.need(f.Export(f.t.Context(), account, from, to, func(line []byte) error {
		out.Write(line)
		out.WriteByte('\n')
		return nil
	}))
	return out.Bytes()
}

// verifyFile returns what is found in an export.
func verifyFile(t *testing.T, file []byte, kept ...Head) (Verdict, []Finding) {
	t.Helper()
	var found []Finding
	verdict, err := VerifyExport(bytes.NewReader(file), kept, Witness{
		Found:    func(x Finding) error { found = append(found, x); return nil },
		Progress: func(int) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return verdict, found
}

// put writes over the back of the trail.
func (f *fixture) put(writes ...store.Write) {
	f.t.Helper()
	_, err := f.store.Commit(f.t.Context(), store.Batch{Writes: writes})
	f.need(err)
}

// line reads a stored record.
func (f *fixture) line(seq uint64) []byte {
	f.t.Helper()
	stored, err := f.store.Get(f.t.Context(), recordKey(account, seq))
	f.need(err)
	return slices.Clone(stored.Value)
}

// names are of the records of a query, newest first.
func (f *fixture) names(q Query) []string {
	f.t.Helper()
	var names []string
	if q.Limit == 0 {
		q.Limit = MaxPage
	}
	for {
		page, err := f.List(f.t.Context(), account, q)
		f.need(err)
		for _, line := range page.Records {
			r, _, err := parseLine(line)
			f.need(err)
			names = append(names, r.EventName)
		}
		if q.After = page.Next; q.After == "" {
			return names
		}
	}
}

// trail is ten records of two users in one account, and one in another.
func trail(t *testing.T, s store.Store) *fixture {
	t.Helper()
	f := newFixture(t, s)
	thing := "arn:aws:iot:eu-local-1:000000000000:thing/pump-1"
	for n := range 5 {
		elsewhere := f.called("mallory", "ListThings")
		elsewhere.Account = other
		f.tell(f.called("ada", fmt.Sprint("UpdateThing", n), thing, iamARN(account, "role/fixer")), f.called("bob", fmt.Sprint("ListThings", n)), elsewhere)
	}
	f.apply(4)
	return f
}

func TestTrailIsWholeAndFound(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, s store.Store) {
		t.Helper()
		f := trail(t, s)
		verdict, found := f.verify()
		if len(found) != 0 || verdict.Records != 10 || verdict.Last != 10 {
			t.Errorf("a whole trail: %+v, findings %+v", verdict, found)
		}
		all := []string{"ListThings4", "UpdateThing4", "ListThings3", "UpdateThing3", "ListThings2", "UpdateThing2", "ListThings1", "UpdateThing1", "ListThings0", "UpdateThing0"}
		ada := []string{"UpdateThing4", "UpdateThing3", "UpdateThing2", "UpdateThing1", "UpdateThing0"}
		for _, c := range []struct {
			q    Query
			want []string
		}{
			{Query{}, all},
			{Query{Limit: 3}, all},
			{Query{Actor: "ada"}, ada},
			{Query{Actor: "AKIAADA", Limit: 1}, ada},
			{Query{Actor: iamARN(account, "user/ada")}, ada},
			{Query{Actor: "nobody"}, nil},
			{Query{Resource: "thing/pump-1"}, ada},
			{Query{Resource: "role/fixer"}, ada},
			{Query{Resource: "user/fixer"}, nil},
			{Query{Resource: "arn:aws:iot:eu-local-1:000000000000:thing/pump-1", Actor: "bob"}, nil},
			{Query{Name: "ListThings2"}, []string{"ListThings2"}},
			{Query{Error: AnyError}, nil},
			{Query{Error: NoError}, all},
			// Three calls a round, one second each, the third in another account.
			{Query{From: f.now.Add(4 * time.Second), To: f.now.Add(9 * time.Second)}, []string{"UpdateThing2", "ListThings1", "UpdateThing1"}},
			{Query{From: f.now.Add(4 * time.Second), To: f.now.Add(8 * time.Second), Actor: "bob"}, []string{"ListThings1"}},
		} {
			if diff := cmp.Diff(c.want, f.names(c.q)); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", c.q, diff)
			}
		}
		file := f.export(time.Time{}, time.Time{})
		if verdict, found := verifyFile(t, file); len(found) != 0 || verdict.Records != 10 {
			t.Errorf("a whole export: %+v, findings %+v", verdict, found)
		}
		part := f.export(f.now.Add(4*time.Second), f.now.Add(9*time.Second))
		if verdict, found := verifyFile(t, part); len(found) != 0 || verdict.First != 3 || verdict.Last != 5 {
			t.Errorf("a part: %+v, findings %+v", verdict, found)
		}
		if verdict, found := verifyFile(t, f.export(f.now.Add(time.Hour), time.Time{})); len(found) != 0 || verdict.Records != 0 {
			t.Errorf("an export of nothing: %+v, findings %+v", verdict, found)
		}
	})
}

func TestBadQueriesNameTheField(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	for want, q := range map[string]Query{
		"maxResults": {},
		"from":       {Limit: 1, From: f.now, To: f.now},
		"actor":      {Limit: 1, Actor: "a\x00b"},
		"resource":   {Limit: 1, Resource: strings.Repeat("x", 3000)},
	} {
		_, err := f.List(t.Context(), account, q)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.HasPrefix(fault.From(err).Message, want+":") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// tampering is something done to a stored trail of ten records and what must be
// said about it.
type tampering struct {
	name string
	do   func(f *fixture)
	want []Finding
}

func problems(found []Finding) []Finding {
	out := slices.Clone(found)
	for i := range out {
		out[i].Detail = ""
	}
	return out
}

// forge replaces a record by one whose own hash is right.
func (f *fixture) forge(seq uint64, change func(*Record)) (hash string) {
	r, _, err := parseLine(f.line(seq))
	f.need(err)
	change(r)
	line, hash, err := r.line()
	f.need(err)
	f.put(store.Write{Key: recordKey(account, seq), Value: line})
	return hash
}

func TestTamperingIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	rowOf := func(f *fixture, seq uint64) store.Key {
		r, _, err := parseLine(f.line(seq))
		f.need(err)
		return r.rows()[1]
	}
	for _, c := range []tampering{
		{"changed", func(f *fixture) {
			f.put(store.Write{Key: recordKey(account, 4), Value: bytes.Replace(f.line(4), []byte("192.0.2.7"), []byte("192.0.2.8"), 1)})
		}, []Finding{{Seq: 4, Problem: Changed}}},
		{"replaced with its own hash", func(f *fixture) { f.forge(4, func(r *Record) { r.SourceIPAddress = "192.0.2.8" }) }, []Finding{{Seq: 5, Problem: Unlinked}}},
		{"the last replaced with its own hash", func(f *fixture) { f.forge(10, func(r *Record) { r.SourceIPAddress = "192.0.2.8" }) }, []Finding{{Seq: 10, Problem: Changed}}},
		{"removed", func(f *fixture) { f.remove(4) }, []Finding{{Seq: 4, Problem: Missing}}},
		{"several removed", func(f *fixture) { f.remove(4); f.remove(5) }, []Finding{{Seq: 4, Problem: Missing}}},
		{"the first removed", func(f *fixture) { f.remove(1) }, []Finding{{Seq: 1, Problem: Missing}}},
		{"the last removed", func(f *fixture) { f.remove(10) }, []Finding{{Seq: 10, Problem: Truncated}}},
		{"reordered", func(f *fixture) {
			f.put(store.Write{Key: recordKey(account, 4), Value: f.line(6)}, store.Write{Key: recordKey(account, 6), Value: f.line(4)})
		}, []Finding{{Seq: 4, Problem: Moved}, {Seq: 6, Problem: Moved}}},
		{"added", func(f *fixture) { f.put(store.Write{Key: recordKey(account, 11), Value: f.line(10)}) }, []Finding{{Seq: 11, Problem: Moved}, {Seq: 10, Problem: BadHead}}},
		{"of another account", func(f *fixture) {
			stored, err := f.store.Get(f.t.Context(), recordKey(other, 4))
			f.need(err)
			f.put(store.Write{Key: recordKey(account, 4), Value: stored.Value})
		}, []Finding{{Seq: 4, Problem: Foreign}}},
		{"head removed", func(f *fixture) { f.put(store.Write{Key: headKey(account), Delete: true}) }, []Finding{{Problem: BadHead}}},
		{"head cut", func(f *fixture) { f.put(store.Write{Key: headKey(account), Value: []byte(`{"seq":`)}) }, []Finding{{Problem: BadHead}, {Problem: BadHead}}},
		{"end cut with its head", func(f *fixture) {
			f.remove(10)
			r, hash, err := parseLine(f.line(9))
			f.need(err)
			value, err := Head{Schema: schema, What: headOf, Account: account, Seq: r.Seq, Hash: hash, PublicKey: f.PublicKey()}.encode()
			f.need(err)
			f.put(store.Write{Key: headKey(account), Value: value})
		}, []Finding{{Seq: 9, Problem: BadHead}}},
		{"begin cut with a forged anchor", func(f *fixture) {
			hash := claimed(f.line(1))
			f.remove(1)
			value, err := Head{Schema: schema, What: anchorOf, Account: account, Seq: 1, Hash: hash, PublicKey: f.PublicKey()}.encode()
			f.need(err)
			f.put(store.Write{Key: anchorKey(account), Value: value})
		}, []Finding{{Seq: 1, Problem: BadHead}}},
		{"removed without its rows", func(f *fixture) { f.put(store.Write{Key: recordKey(account, 4), Delete: true}) }, []Finding{{Seq: 4, Problem: Missing}}},
		{"row removed", func(f *fixture) { f.put(store.Write{Key: rowOf(f, 4), Delete: true}) }, []Finding{{Seq: 4, Problem: BadRow}}},
		{"row added", func(f *fixture) {
			f.put(store.Write{Key: store.K(kindActor, string(account), "mallory", downTime(0), downSeq(4)), Value: []byte(plainRow)})
		}, []Finding{{Seq: 4, Problem: BadRow}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := trail(t, inMemory(t))
			c.do(f)
			_, found := f.verify()
			if diff := cmp.Diff(c.want, problems(found)); diff != "" {
				t.Errorf("findings (-want +got):\n%s%+v", diff, found)
			}
		})
	}
}

// remove takes a record away with its rows.
func (f *fixture) remove(seq uint64) {
	f.t.Helper()
	r, _, err := parseLine(f.line(seq))
	f.need(err)
	var writes []store.Write
	for _, key := range append(r.rows(), recordKey(account, seq)) {
		writes = append(writes, store.Write{Key: key, Delete: true})
	}
	f.put(writes...)
}

func TestTamperingOfExportsIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	file := f.export(time.Time{}, time.Time{})
	lines := bytes.SplitAfter(bytes.TrimSuffix(file, []byte("\n")), []byte("\n"))
	if len(lines) != 11 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, c := range []struct {
		name string
		do   func(l [][]byte) [][]byte
		want []Finding
	}{
		{"changed", func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte("ListThings1"), []byte("ListThings7"), 1)
			return l
		}, []Finding{{Seq: 4, Problem: Changed}}},
		{"the first two changed", func(l [][]byte) [][]byte {
			l[0], l[1] = bytes.Replace(l[0], []byte(`"seq":1`), []byte(`"seq":9`), 1), l[1][:80]
			return append([][]byte{l[0], append(l[1], '\n')}, l[2:]...)
		}, []Finding{{Seq: 1, Problem: Changed}, {Seq: 2, Problem: Changed}}},
		{"removed", func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }, []Finding{{Seq: 4, Problem: Missing}}},
		{"the first removed", func(l [][]byte) [][]byte { return l[1:] }, []Finding{{Seq: 1, Problem: Missing}}},
		{"the last removed", func(l [][]byte) [][]byte { return slices.Delete(l, 9, 10) }, []Finding{{Seq: 10, Problem: Truncated}}},
		{"all removed", func(l [][]byte) [][]byte { return l[10:] }, []Finding{{Seq: 1, Problem: Truncated}}},
		{"cut", func(l [][]byte) [][]byte { return l[:5] }, []Finding{{Seq: 6, Problem: Truncated}}},
		{"cut within a line", func(l [][]byte) [][]byte { return append(l[:5:5], l[5][:40]) }, []Finding{{Seq: 6, Problem: Changed}, {Seq: 7, Problem: Truncated}}},
		{"swapped", func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, []Finding{{Seq: 4, Problem: Missing}, {Seq: 4, Problem: Moved}}},
		{"doubled", func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[3]) }, []Finding{{Seq: 4, Problem: Moved}}},
		{"something behind the end", func(l [][]byte) [][]byte { return append(l, []byte("\nx\n")) }, []Finding{{Problem: Foreign}}},
		{"nothing at all", func([][]byte) [][]byte { return nil }, []Finding{{Seq: 1, Problem: Truncated}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var copied [][]byte
			for _, l := range lines {
				copied = append(copied, slices.Clone(l))
			}
			_, found := verifyFile(t, bytes.Join(c.do(copied), nil))
			if diff := cmp.Diff(c.want, problems(found)); diff != "" {
				t.Errorf("findings (-want +got):\n%s%+v", diff, found)
			}
		})
	}
}

// A flipped bit is found wherever it is, in a file and in the store.
func TestAnyFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	random := rand.New(rand.NewPCG(1, 2))
	file := f.export(time.Time{}, time.Time{})
	for range 4_000 {
		at, bit := random.IntN(len(file)), byte(1)<<random.IntN(8)
		flipped := slices.Clone(file)
		flipped[at] ^= bit
		if _, found := verifyFile(t, flipped); len(found) == 0 {
			t.Fatalf("bit %d of byte %d (%q) is flipped and nothing found", bit, at, file[max(0, at-20):min(at+20, len(file))])
		}
	}
	var all []store.Record
	for _, kind := range []string{kindRecord, kindHead, kindTime, kindActor, kindResource} {
		f.need(f.store.Scan(t.Context(), store.Under(kind, string(account)), func(r store.Record) error {
			all = append(all, store.Record{Key: r.Key, Value: slices.Clone(r.Value)})
			return nil
		}))
	}
	head, err := f.store.Get(t.Context(), headKey(account))
	f.need(err)
	all = append(all, head)
	for range 300 {
		r := all[random.IntN(len(all))]
		flipped := slices.Clone(r.Value)
		flipped[random.IntN(len(flipped))] ^= byte(1) << random.IntN(8)
		f.put(store.Write{Key: r.Key, Value: flipped})
		if _, found := f.verify(); len(found) == 0 {
			t.Fatalf("%s is flipped to %q and nothing found", r.Key, flipped)
		}
		f.put(store.Write{Key: r.Key, Value: r.Value})
	}
	if _, found := f.verify(); len(found) != 0 {
		t.Errorf("all is as it was, and found: %+v", found)
	}
}

// Who can write everything but has no key can make a chain that is whole; a head
// that was kept elsewhere tells, and so does the signature.
func TestRewrittenTrailIsFoundByKeptHead(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	kept, err := f.Head(t.Context(), account)
	f.need(err)
	text, err := kept.encode()
	f.need(err)
	parsed, err := ParseHead(text)
	f.need(err)
	if _, err := ParseHead(bytes.Replace(text, []byte(`"seq":10`), []byte(`"seq":11`), 1)); err == nil {
		t.Error("a head that was changed is taken")
	}
	f.tell(f.called("ada", "DeleteThing"))
	f.apply(100)
	if _, found := f.verify(parsed); len(found) != 0 {
		t.Errorf("a longer trail than the head's: %+v", found)
	}
	file := f.export(time.Time{}, time.Time{})
	if _, found := verifyFile(t, file, parsed); len(found) != 0 {
		t.Errorf("a longer export than the head's: %+v", found)
	}
	hash := ""
	for seq := uint64(4); seq <= 11; seq++ {
		hash = f.forge(seq, func(r *Record) {
			if r.SourceIPAddress = "192.0.2.8"; hash != "" {
				r.PrevHash = hash
			}
		})
	}
	head, err := sign(f.key, Head{What: headOf, Account: account, Seq: 11, Hash: hash}, f.now)
	f.need(err)
	value, err := head.encode()
	f.need(err)
	f.put(store.Write{Key: headKey(account), Value: value})
	if _, found := f.verify(); len(found) != 0 {
		t.Errorf("who has the key as well can do anything: %+v", found)
	}
	if _, found := f.verify(parsed); !cmp.Equal([]Finding{{Seq: 10, Problem: Changed}}, problems(found)) {
		t.Errorf("with the kept head: %+v", found)
	}
	if _, found := verifyFile(t, f.export(time.Time{}, time.Time{}), parsed); !cmp.Equal([]Finding{{Seq: 10, Problem: Changed}}, problems(found)) {
		t.Errorf("the export with the kept head: %+v", found)
	}
	// The same file, signed by somebody else.
	stranger, err := New(Options{Store: f.store, Seed: bytes.Repeat([]byte{8}, SeedSize), Now: f.o.Now, Logger: f.o.Logger})
	f.need(err)
	f.Service = stranger
	if _, found := verifyFile(t, f.export(time.Time{}, time.Time{}), parsed); len(found) != 2 || found[1].Problem != BadHead {
		t.Errorf("an export of another key: %+v", found)
	}
}

// The chain goes on behind what is stored when its head was set back, nothing is
// written over, and the trail says so.
func TestHeadThatWasSetBackIsMended(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	f.put(store.Write{Key: headKey(account), Delete: true})
	f.now = f.now.Add(time.Hour)
	f.tell(f.called("ada", "DeleteThing"))
	f.apply(100)
	if diff := cmp.Diff([]string{"DeleteThing", "AuditChainMended", "ListThings4"}, f.names(Query{})[:3]); diff != "" {
		t.Error(diff)
	}
	if _, found := f.verify(); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// A last record with a hash of its own and a head to match, without the key.
	hash := f.forge(12, func(r *Record) { r.SourceIPAddress = "192.0.2.8" })
	head, _, err := readHead(t.Context(), f.store, headKey(account), headOf, account)
	f.need(err)
	head.Hash = hash
	value, err := head.encode()
	f.need(err)
	f.put(store.Write{Key: headKey(account), Value: value})
	f.now = f.now.Add(time.Hour)
	f.tell(f.called("ada", "DeleteThing"))
	f.apply(100)
	if diff := cmp.Diff([]string{"DeleteThing", "AuditChainMended"}, f.names(Query{})[:2]); diff != "" {
		t.Errorf("a forged head was vouched for:\n%s", diff)
	}
}

func TestRetentionKeepsTheRestVerifiable(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, s store.Store) {
		t.Helper()
		f := trail(t, s)
		before, err := f.Head(t.Context(), account)
		f.need(err)
		file := f.export(time.Time{}, time.Time{})
		begin := f.now
		f.now = begin.Add(24*time.Hour + 6*time.Second)
		f.need(f.Trim(t.Context()))
		verdict, found := f.verify(before)
		if len(found) != 0 || verdict.First != 4 || verdict.Last != 10 {
			t.Errorf("after the trim: %+v, findings %+v", verdict, found)
		}
		if n := len(f.names(Query{})); n != 7 {
			t.Errorf("%d records are listed, want 7", n)
		}
		if _, found := verifyFile(t, f.export(time.Time{}, time.Time{}), before); len(found) != 0 {
			t.Errorf("export after the trim: %+v", found)
		}
		if _, found := verifyFile(t, file, before); len(found) != 0 {
			t.Errorf("export from before: %+v", found)
		}
		f.now = begin.Add(48 * time.Hour)
		f.need(f.Trim(t.Context()))
		if verdict, found := f.verify(before); len(found) != 0 || verdict.Records != 0 {
			t.Errorf("after all is trimmed: %+v, findings %+v", verdict, found)
		}
		f.tell(f.called("ada", "DeleteThing"))
		f.apply(100)
		if verdict, found := f.verify(before); len(found) != 0 || verdict.First != 11 {
			t.Errorf("the first after that: %+v, findings %+v", verdict, found)
		}
		n := 0
		for _, kind := range []string{kindTime, kindActor, kindResource} {
			f.need(s.Scan(t.Context(), store.Under(kind, string(account)), func(store.Record) error { n++; return nil }))
		}
		if n != 3 {
			t.Errorf("%d rows stay, want 3", n)
		}
	})
}

func TestRetentionRemovesNoEvidence(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	f.put(store.Write{Key: recordKey(account, 4), Value: bytes.Replace(f.line(4), []byte("192.0.2.7"), []byte("192.0.2.8"), 1)})
	f.now = f.now.Add(48 * time.Hour)
	if err := f.Trim(t.Context()); !errors.Is(err, errGap) {
		t.Errorf("trim: %v", err)
	}
	if _, found := f.verify(); len(found) != 1 || found[0].Seq != 4 {
		t.Errorf("found %+v", found)
	}
}

// The consumer is stopped at any event and goes on without a gap or a double.
func TestConsumerGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, s store.Store) {
		t.Helper()
		f := newFixture(t, s)
		for n := range 40 {
			f.tell(f.called("ada", fmt.Sprint("Update", n)))
			if n%10 != 9 {
				continue
			}
			runner, err := eventlog.NewRunner(eventlog.Consumer{Name: "audit", Durable: f.Apply, Rebuild: f.Rebuild}, eventlog.Options{Store: s, Now: time.Now, Logger: f.o.Logger})
			f.need(err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- runner.Run(ctx) }()
			head, err := s.Head(t.Context())
			f.need(err)
			if n != 19 {
				f.need(runner.WaitCovered(t.Context(), head))
			}
			cancel()
			f.need(<-ended)
		}
		if verdict, found := f.verify(); len(found) != 0 || verdict.Records != 40 {
			t.Errorf("%+v, findings %+v", verdict, found)
		}
	})
}

func TestGapOfTheLogIsARecord(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	f.now = f.now.Add(time.Hour)
	f.tell(f.called("ada", "Lost"))
	head, err := f.store.Head(t.Context())
	f.need(err)
	f.need(f.store.Trim(t.Context(), head))
	f.applied, err = f.Rebuild(t.Context())
	f.need(err)
	f.tell(f.called("ada", "Next"))
	f.apply(10)
	if diff := cmp.Diff([]string{"Next", "AuditTrailGap", "ListThings4"}, f.names(Query{})[:3]); diff != "" {
		t.Error(diff)
	}
}

func TestFollowTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	f := trail(t, inMemory(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- f.Follow(ctx, account, Query{Actor: "ada"}, 7, func(line []byte) error {
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			got <- r.EventName
			return nil
		})
	}()
	if name := <-got; name != "UpdateThing4" {
		t.Errorf("first %s", name)
	}
	f.tell(f.called("bob", "Other"), f.called("ada", "New"))
	f.apply(10)
	if name := <-got; name != "New" {
		t.Errorf("then %s", name)
	}
	f.need(f.Close(t.Context()))
	f.need(<-ended)
}

func TestSettingsAreToldWhenTheyDiffer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	for _, settings := range []map[string]string{{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "1", "c": "3"}} {
		f.need(RecordSettings(t.Context(), f.store, account, settings, "v1", f.now))
	}
	f.apply(10)
	page, err := f.List(t.Context(), account, Query{Limit: 10})
	f.need(err)
	var details []string
	for _, line := range page.Records {
		r, _, err := parseLine(line)
		f.need(err)
		if r.EventName != "ConfigurationChanged" || r.UserIdentity.Type != identityService {
			t.Errorf("record %s", line)
		}
		details = append(details, string(r.ServiceEventDetails))
	}
	if diff := cmp.Diff([]string{`{"b":"(no longer a setting)","c":"3"}`, `{"a":"1","b":"2"}`}, details); diff != "" {
		t.Error(diff)
	}
}

// A change of credentials that no call asked for has a record; other facts, and
// those of a call, have none of their own.
func TestUnaskedChangesOfCredentials(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	id := strings.Repeat("a", 64)
	device := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: id}, ClientID: "pump-1"}
	asked := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada"}, RequestID: "r"}
	f.tell(
		event.Envelope{Account: account, At: f.now, Actor: device, Event: event.CertificateCreated{CertificateID: id, Status: "PENDING_ACTIVATION"}},
		event.Envelope{Account: account, At: f.now, Actor: asked, Event: event.CertificateCreated{CertificateID: id}},
		event.Envelope{Account: account, At: f.now, Actor: fleet.System, Event: event.OperatorChanged{Kind: event.OperatorAccessKey, Name: "AKIA1", Change: "RESET"}},
		event.Envelope{Account: account, At: f.now, Actor: fleet.System, Event: event.MembershipChanged{Group: "g", Thing: "t", Added: true}},
	)
	f.apply(10)
	if diff := cmp.Diff([]string{"OperatorChanged", "CertificateCreated"}, f.names(Query{})); diff != "" {
		t.Error(diff)
	}
	r, _, err := parseLine(f.line(1))
	f.need(err)
	want := UserIdentity{Type: identityCertificate, PrincipalID: id, AccountID: string(account), InvokedBy: invokedBy}
	if diff := cmp.Diff(want, r.UserIdentity); diff != "" {
		t.Error(diff)
	}
	if !cmp.Equal(r.Resources, []Resource{{"arn:aws:iot:eu-local-1:000000000000:cert/" + id, "AWS::IoT::Certificate"}}) {
		t.Errorf("resources %+v", r.Resources)
	}
}

// What one account does to another has a record in the trail of each, and the
// other one learns no more than the account.
func TestActsOfOtherAccounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	id := strings.Repeat("a", 64)
	eve := fleet.Actor{
		Principal:     fleet.Principal{Kind: fleet.PrincipalUser, ID: "mallory", ARN: iamARN(other, "user/mallory")},
		SourceAddress: "192.0.2.66", AccessKeyID: "AKIAMALLORY", RequestID: "r1", ClientID: "c1",
	}
	step := event.CertificateTransferChanged{CertificateID: id, Change: event.CertificateTransferAccepted, From: account, To: other}
	f.tell(
		event.Envelope{Account: account, At: f.now, Actor: eve, Event: event.CertificateDeleted{CertificateID: id}},
		event.Envelope{Account: account, At: f.now, Actor: eve, Event: step},
		event.Envelope{Account: other, At: f.now, Actor: eve, Event: step},
		event.Envelope{Account: account, At: f.now, Actor: eve, Event: event.AccountChanged{Status: "CLOSED"}},
	)
	f.apply(10)
	if diff := cmp.Diff([]string{"AccountChanged", "CertificateTransferChanged"}, f.names(Query{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"AccountChanged", "CertificateTransferChanged"}, f.names(Query{Actor: string(other)})); diff != "" {
		t.Errorf("by actor: %s", diff)
	}
	r, _, err := parseLine(f.line(1))
	f.need(err)
	if diff := cmp.Diff(UserIdentity{Type: identityAccount, AccountID: string(other), InvokedBy: invokedBy}, r.UserIdentity); diff != "" {
		t.Error(diff)
	}
	if line := string(f.line(1)); strings.Contains(strings.ToLower(line), "mallory") || strings.Contains(line, "192.0.2.66") || strings.Contains(line, "r1") || strings.Contains(line, "c1\"") {
		t.Errorf("the record tells about the other account's operator: %s", line)
	}
	if r.ServiceEventDetails == nil || !strings.Contains(string(r.ServiceEventDetails), "ACCEPTED") {
		t.Errorf("details %s", r.ServiceEventDetails)
	}
	accounts, err := f.Accounts(t.Context())
	f.need(err)
	if diff := cmp.Diff([]fleet.Account{account}, accounts); diff != "" {
		t.Errorf("the actor's own account has a second record: %s", diff)
	}
}

// Two nodes that share a store apply at once: what the other one has just
// committed is no head that was set back.
func TestOtherNodeIsNoTampering(t *testing.T) {
	t.Parallel()
	inner := inMemory(t)
	f := trail(t, inner)
	var logged bytes.Buffer
	node := newService(t, inner, func() time.Time { return f.now })
	node.o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	f.tell(f.called("ada", "DeleteThing"))
	events, _, err := inner.Events(t.Context(), f.applied, 10)
	f.need(err)
	node.store = &overtaken{Store: inner, meddle: func() { f.apply(10) }}
	b, err := node.Apply(t.Context(), events)
	if logged.Len() != 0 {
		t.Errorf("it says: %s", logged.String())
	}
	if err == nil {
		_, err = inner.Commit(t.Context(), b)
	}
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("the slower node has %v, want a conflict", err)
	}
	if _, found := f.verify(); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
}

// Two nodes that trim at once are no gap.
func TestOtherNodeTrimsToo(t *testing.T) {
	t.Parallel()
	for _, meddle := range []string{"before it looks", "before it commits"} {
		inner := inMemory(t)
		f := trail(t, inner)
		f.now = f.now.Add(24*time.Hour + 7*time.Second)
		node := newService(t, inner, func() time.Time { return f.now })
		other := &overtaken{Store: inner}
		trim := func() { f.need(f.Trim(t.Context())) }
		if meddle == "before it looks" {
			other.scan = trim
		} else {
			other.commit = trim
		}
		node.store = other
		if _, err := node.trim(t.Context(), account); err != nil {
			t.Errorf("%s: %v", meddle, err)
		}
		if anchor, _, err := readHead(t.Context(), inner, anchorKey(account), anchorOf, account); err != nil || anchor.Seq == 0 {
			t.Errorf("%s: nothing was trimmed: %+v, %v", meddle, anchor, err)
		}
		if _, found := f.verify(); len(found) != 0 {
			t.Errorf("%s: found %+v", meddle, found)
		}
	}
}

// overtaken lets another node commit between two reads.
type overtaken struct {
	store.Store
	meddle, scan, commit func()
}

func (o *overtaken) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	if scan := o.scan; scan != nil {
		o.scan = nil
		scan()
	}
	return o.Store.Scan(ctx, r, fn)
}

func (o *overtaken) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if commit := o.commit; commit != nil {
		o.commit = nil
		commit()
	}
	return o.Store.Commit(ctx, b)
}

func (o *overtaken) GetMany(ctx context.Context, keys []store.Key) ([]store.Record, error) {
	if meddle := o.meddle; meddle != nil {
		o.meddle = nil
		meddle()
	}
	return o.Store.GetMany(ctx, keys)
}

// The chain as it is on disk must be readable for ever.
func TestStoredFormStays(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "trail.ndjson")
	if os.Getenv("UPDATE") != "" {
		f := trail(t, inMemory(t))
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, f.export(time.Time{}, time.Time{}), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if verdict, found := verifyFile(t, file); len(found) != 0 || verdict.Records != 10 {
		t.Errorf("%+v, findings %+v", verdict, found)
	}
}
