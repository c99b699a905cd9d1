package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Problem is what kind of thing is wrong.
type Problem string

// Problems.
const (
	// Changed is an entry whose content does not have its hash, or another one than
	// was witnessed.
	Changed Problem = "changed"
	// Missing is an entry that is not there.
	Missing Problem = "missing"
	// Moved is an entry that stands where another one should.
	Moved Problem = "moved"
	// Unlinked is an entry that does not name the one before: one of the two was
	// replaced.
	Unlinked Problem = "unlinked"
	// Truncated is an end that is not where it was sealed or witnessed to be.
	Truncated Problem = "truncated"
	// BadEnd is a record of an end that is missing or not ours.
	BadEnd Problem = "end"
	// Inserted is something that the account's chain does not have.
	Inserted Problem = "inserted"
)

// Finding is one thing that is wrong.
type Finding struct {
	// Device and Seq are empty for what is about the account's chain only, Number for
	// what is about a device's.
	Device  string  `json:"device,omitempty"`
	Seq     uint64  `json:"seq,omitempty"`
	Number  uint64  `json:"number,omitempty"`
	Problem Problem `json:"problem"`
	Detail  string  `json:"detail"`
}

// Verdict is what a verification looked at and found.
type Verdict struct {
	Account fleet.Account `json:"account"`
	// Device is empty for the whole ledger.
	Device  string `json:"device,omitempty"`
	Devices int    `json:"devices"`
	Entries int    `json:"entries"`
	// Hash is that of the last entry.
	Hash string `json:"hash"`
	// Witnessed is how many ends the audit trail and kept heads bore witness to.
	Witnessed int `json:"witnessed,omitempty"`
	// Findings counts all of them, also those that were not told.
	Findings int `json:"findings"`
}

const (
	// maxFindings bounds how many findings are told; all are counted.
	maxFindings = 1000
	// verifyBatch is how many entries are read together, progressEvery after how many
	// progress is told.
	verifyBatch   = 1000
	progressEvery = 10_000
)

// Witness is told what a verification finds, and how many entries it has read. An
// error ends the verification.
type Witness struct {
	Found    func(Finding) error
	Progress func(entries int) error
}

// inspector looks at one account in a frozen state.
type inspector struct {
	s       *Service
	r       store.Reader
	account fleet.Account
	witness Witness
	verdict Verdict
	read    int
}

func (i *inspector) found(f Finding, format string, args ...any) error {
	if i.verdict.Findings++; i.verdict.Findings > maxFindings {
		return nil
	}
	f.Detail = fmt.Sprintf(format, args...)
	return i.witness.Found(f)
}

func (i *inspector) progress(n int) error {
	before := i.read
	i.read += n
	if before/progressEvery != i.read/progressEvery {
		return i.witness.Progress(i.read)
	}
	return nil
}

// Verify checks an account's whole ledger: every entry, both chains, their sealed
// ends, what the audit trail was told of them, and what heads that were kept elsewhere
// say. The verdict is for one moment; the ledger goes on meanwhile. It reads
// everything twice and holds little of it.
func (s *Service) Verify(ctx context.Context, account fleet.Account, kept []Head, w Witness) (Verdict, error) {
	if err := s.catchUp(ctx); err != nil {
		return Verdict{}, err
	}
	// What the trail tells later than the moment that is looked at would be missed there.
	var told []Head
	if s.o.Witnessed != nil {
		var err error
		if told, err = s.o.Witnessed(ctx, account); err != nil {
			return Verdict{}, fmt.Errorf("ask the audit trail: %w", err)
		}
	}
	snapshot, err := s.o.Store.Snapshot(ctx)
	if err != nil {
		return Verdict{}, store.Fault(fmt.Errorf("verify the ledger: %w", err))
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	i := &inspector{s: s, r: snapshot, account: account, witness: w, verdict: Verdict{Account: account, Hash: genesis}}
	claims, err := i.claims(ctx, kept, told)
	if err != nil {
		return i.verdict, err
	}
	if err := i.chain(ctx, claims); err != nil {
		return i.verdict, err
	}
	return i.verdict, i.lives(ctx)
}

// claim is what somebody says of an entry of the account's chain.
type claim struct{ hash, who string }

// claims are what there is to bear witness, by number.
func (i *inspector) claims(ctx context.Context, kept, told []Head) (map[uint64][]claim, error) {
	claims := map[uint64][]claim{}
	say := func(n uint64, hash, who string) {
		if n > 0 {
			claims[n] = append(claims[n], claim{hash, who})
			i.verdict.Witnessed++
		}
	}
	for _, h := range kept {
		if h.Account != i.account {
			return nil, fault.New(fault.InvalidRequest, "head: the head that was kept is of account %s, not %s", h.Account, i.account)
		}
		say(h.Entries, h.Hash, "the head that was kept")
	}
	anchor, version, err := i.end(ctx, anchorKey(i.account), sealAnchor, "the end that the audit trail was told of")
	if err != nil {
		return nil, err
	}
	if version != 0 {
		say(anchor.Number, anchor.Hash, "what the audit trail was told")
	}
	for _, h := range told {
		say(h.Entries, h.Hash, "the audit trail")
	}
	return claims, nil
}

// end reads a sealed end of the account's chain, and notes when it is not ours.
func (i *inspector) end(ctx context.Context, k store.Key, kind, name string) (endRecord, uint64, error) {
	found, err := i.r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return endRecord{Hash: genesis}, 0, nil
	}
	if err != nil {
		return endRecord{}, 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	var end endRecord
	if err := json.Unmarshal(found.Value, &end); err != nil || !sealsEqual(end.Seal, i.s.seal(kind, i.account, "", end.Number, end.Hash)) {
		return end, 0, i.found(Finding{Problem: BadEnd}, "%s is not sealed by this server", name)
	}
	return end, found.Version, nil
}

// chain checks the account's chain: each number has one entry, which names the one
// before.
func (i *inspector) chain(ctx context.Context, claims map[uint64][]claim) error {
	last, hash := uint64(0), genesis
	var rows []store.Record
	check := func() error {
		entries, err := i.entriesOf(ctx, rows)
		if err != nil {
			return err
		}
		for n := range rows {
			if last, hash, err = i.link(&rows[n], &entries[n], last, hash); err != nil {
				return err
			}
			if err := i.testify(claims, last, hash); err != nil {
				return err
			}
		}
		rows = rows[:0]
		return nil
	}
	err := i.r.Scan(ctx, store.Under(kindChain, string(i.account)), func(row store.Record) error {
		if rows = append(rows, row); len(rows) == verifyBatch {
			return check()
		}
		return nil
	})
	if err == nil {
		err = check()
	}
	if err != nil {
		return store.Fault(err)
	}
	i.verdict.Hash = hash
	return i.last(ctx, claims, last, hash)
}

// entriesOf reads the entries that rows of the account's chain lead to.
func (i *inspector) entriesOf(ctx context.Context, rows []store.Record) ([]store.Record, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	keys := make([]store.Key, len(rows))
	for n, row := range rows {
		var to chainRow
		_ = json.Unmarshal(row.Value, &to) // one that cannot be read leads to no entry
		keys[n] = place{i.account, to.Device}.entry(to.Seq)
	}
	found, err := i.r.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	return found, i.progress(len(rows))
}

// link checks one number of the account's chain. The hash that the next one must name
// is empty when that is not known.
func (i *inspector) link(row, stored *store.Record, last uint64, hash string) (uint64, string, error) {
	n, ok := parseNumber(row.Key.Last())
	if !ok || len(row.Key.Parts()) != 3 {
		return last, hash, i.found(Finding{Problem: Inserted}, "the key %s is none of the chain", row.Key)
	}
	if n > last+1 {
		f := Finding{Number: last + 1, Problem: Missing}
		if err := i.found(f, "entries %d to %d of the account are missing from its chain", last+1, n-1); err != nil {
			return n, "", err
		}
		hash = ""
	}
	var to chainRow
	if err := json.Unmarshal(row.Value, &to); err != nil || to.Schema != schemaVersion {
		return n, "", i.found(Finding{Number: n, Problem: Changed}, "row %d of the account's chain cannot be read", n)
	}
	if again, err := json.Marshal(to); err != nil || !bytes.Equal(again, row.Value) {
		return n, "", i.found(Finding{Number: n, Problem: Changed}, "row %d of the account's chain is not as it was written", n)
	}
	f := Finding{Device: to.Device, Seq: to.Seq, Number: n}
	if stored.Version == 0 {
		f.Problem = Missing
		return n, "", i.found(f, "entry %d of device %s, the account's %d, is missing", to.Seq, to.Device, n)
	}
	e, err := parseEntry(stored.Value)
	switch {
	case err != nil:
		f.Problem = Changed
		claimed := ""
		if e != nil {
			claimed = e.Hash
		}
		return n, claimed, i.found(f, "entry %d of device %s, the account's %d: %v", to.Seq, to.Device, n, err)
	case e.Account != i.account || e.Number != n || e.Device != to.Device || e.Seq != to.Seq:
		f.Problem = Moved
		return n, "", i.found(f, "entry %d of device %s of account %s, its %d, stands where the account's %d should", e.Seq, e.Device, e.Account, e.Number, n)
	case hash != "" && e.ChainHash != hash:
		f.Problem = Unlinked
		return n, e.Hash, i.found(f, "entry %d of device %s does not follow the account's %d as it is now: one of them was replaced", e.Seq, e.Device, n-1)
	}
	i.verdict.Entries++
	return n, e.Hash, nil
}

// testify compares an entry with what is said of it.
func (i *inspector) testify(claims map[uint64][]claim, n uint64, hash string) error {
	for _, c := range claims[n] {
		if hash != "" && c.hash != hash {
			f := Finding{Number: n, Problem: Changed}
			if err := i.found(f, "entry %d of the account has another hash than %s says: it or one before it was replaced", n, c.who); err != nil {
				return err
			}
		}
	}
	delete(claims, n)
	return nil
}

// last compares where the account's chain ends with what is said of it.
func (i *inspector) last(ctx context.Context, claims map[uint64][]claim, last uint64, hash string) error {
	for n, all := range claims {
		if n <= last {
			continue // it is missing, which was told
		}
		for _, c := range all {
			if err := i.found(Finding{Number: n, Problem: Truncated}, "%s knows entry %d of the account, but its chain ends with %d", c.who, n, last); err != nil {
				return err
			}
		}
	}
	end, version, err := i.end(ctx, headKey(i.account), sealHead, "the head of the account's chain")
	if err != nil {
		return err
	}
	f := Finding{Number: end.Number}
	switch {
	case version == 0 && last == 0 || version == 0 && end.Seal != "":
		return nil // there is nothing, or it was told
	case version == 0:
		f.Problem = BadEnd
		return i.found(f, "the head of the account's chain is missing")
	case end.Number > last:
		f.Problem = Truncated
		return i.found(f, "the head says that the account's chain ends with %d, but it ends with %d", end.Number, last)
	case end.Number < last:
		f.Problem = BadEnd
		return i.found(f, "the head says that the account's chain ends with %d, but it goes on to %d", end.Number, last)
	case hash != "" && end.Hash != hash:
		f.Problem = Changed
		return i.found(f, "entry %d of the account, the last one, is not the one that the head was sealed for", last)
	}
	return nil
}

// lives checks the chain of every device.
func (i *inspector) lives(ctx context.Context) error {
	var rows []store.Record
	life := &lifeCheck{inspector: i}
	check := func() error {
		err := life.check(ctx, rows)
		rows = rows[:0]
		return err
	}
	err := i.r.Scan(ctx, store.Under(kindEntry, string(i.account)), func(row store.Record) error {
		if rows = append(rows, row); len(rows) == verifyBatch {
			return check()
		}
		return nil
	})
	if err == nil {
		err = check()
	}
	if err == nil {
		err = life.close(ctx)
	}
	if err == nil {
		err = i.ends(ctx, life.devices)
	}
	return store.Fault(err)
}

// lifeCheck goes through the entries of devices, one device after the other.
type lifeCheck struct {
	*inspector

	device string
	// seq and hash are of the entry before, hash empty when it is not known.
	seq     uint64
	hash    string
	life    int
	devices int
	// over are devices whose ends have to be compared.
	over []deviceEnd
}

// deviceEnd is where the entries of a device end.
type deviceEnd struct {
	device string
	seq    uint64
	hash   string
}

// check goes on with some entries.
func (l *lifeCheck) check(ctx context.Context, rows []store.Record) error {
	if len(rows) == 0 {
		return nil
	}
	entries := make([]*Entry, len(rows))
	var keys []store.Key
	var of []int
	for n, row := range rows {
		e, err := parseEntry(row.Value)
		if err := l.entry(&row, e, err); err != nil {
			return err
		}
		if err == nil {
			entries[n], keys, of = e, append(keys, chainKey(l.account, e.Number)), append(of, n)
		}
	}
	found, err := l.r.GetMany(ctx, keys)
	if err != nil {
		return fmt.Errorf("read the account's chain: %w", err)
	}
	for n, row := range found {
		e := entries[of[n]]
		var to chainRow
		if row.Version != 0 && json.Unmarshal(row.Value, &to) == nil && to.Device == e.Device && to.Seq == e.Seq {
			continue
		}
		f := Finding{Device: e.Device, Seq: e.Seq, Number: e.Number, Problem: Inserted}
		if err := l.found(f, "entry %d of device %s is not in the account's chain, where it says to be number %d", e.Seq, e.Device, e.Number); err != nil {
			return err
		}
	}
	if len(l.over) >= verifyBatch {
		if err := l.compare(ctx); err != nil {
			return err
		}
	}
	return l.progress(len(rows))
}

// entry checks one entry against the one before; broken is why it does not have its
// hash.
func (l *lifeCheck) entry(row *store.Record, e *Entry, broken error) error {
	parts := row.Key.Parts()
	seq, ok := uint64(0), false
	if len(parts) == 4 {
		seq, ok = parseNumber(parts[3])
	}
	if !ok {
		return l.found(Finding{Problem: Inserted}, "the key %s is that of no entry", row.Key)
	}
	if device := parts[2]; l.devices == 0 || device != l.device {
		l.finish()
		l.device, l.seq, l.hash, l.life = device, 0, genesis, 0
		l.devices++
	}
	f := Finding{Device: l.device, Seq: seq}
	if seq != l.seq+1 {
		f.Problem, f.Seq = Missing, l.seq+1
		if err := l.found(f, "entries %d to %d of device %s are missing", l.seq+1, seq-1, l.device); err != nil {
			return err
		}
		l.hash = ""
	}
	f.Seq = seq
	before, life := l.hash, l.life
	l.seq, l.hash = seq, ""
	switch {
	case broken != nil:
		f.Problem = Changed
		if e != nil {
			l.hash = e.Hash
		}
		return l.found(f, "entry %d of device %s: %v", seq, l.device, broken)
	case e.Account != l.account || e.Device != l.device || e.Seq != seq:
		f.Problem = Moved
		return l.found(f, "entry %d of device %s stands where entry %d of device %s should", e.Seq, e.Device, seq, l.device)
	case before != "" && e.PrevHash != before:
		f.Problem, l.hash, l.life = Unlinked, e.Hash, e.Life
		return l.found(f, "entry %d of device %s does not follow entry %d as it is now: one of them was replaced", seq, l.device, seq-1)
	case e.Life < life:
		f.Problem = Moved
		return l.found(f, "entry %d of device %s is of life %d, the one before of life %d", seq, l.device, e.Life, life)
	}
	l.hash, l.life = e.Hash, e.Life
	return nil
}

// finish remembers where the present device's entries end.
func (l *lifeCheck) finish() {
	if l.devices > 0 {
		l.over = append(l.over, deviceEnd{l.device, l.seq, l.hash})
	}
}

func (l *lifeCheck) close(ctx context.Context) error {
	l.finish()
	return l.compare(ctx)
}

// compare compares where devices' entries end with the sealed records.
func (l *lifeCheck) compare(ctx context.Context) error {
	if len(l.over) == 0 {
		return nil
	}
	keys := make([]store.Key, len(l.over))
	for n, one := range l.over {
		keys[n] = place{l.account, one.device}.record()
	}
	found, err := l.r.GetMany(ctx, keys)
	if err != nil {
		return fmt.Errorf("read the ends of ledgers: %w", err)
	}
	for n, one := range l.over {
		if err := l.atEnd(one, found[n]); err != nil {
			return err
		}
	}
	l.verdict.Devices += len(l.over)
	l.over = l.over[:0]
	return nil
}

// atEnd compares one.
func (i *inspector) atEnd(one deviceEnd, found store.Record) error {
	f := Finding{Device: one.device, Seq: one.seq}
	if found.Version == 0 {
		f.Problem = BadEnd
		return i.found(f, "the record of the end of device %s is missing", one.device)
	}
	at := place{i.account, one.device}
	var r deviceRecord
	if err := json.Unmarshal(found.Value, &r); err != nil || !i.s.whole(at, r) {
		f.Problem = BadEnd
		return i.found(f, "the record of the end of device %s is not sealed by this server", one.device)
	}
	switch {
	case r.Seq > one.seq:
		f.Problem = Truncated
		return i.found(f, "the ledger of device %s was sealed with entry %d, but ends with %d", one.device, r.Seq, one.seq)
	case r.Seq < one.seq:
		f.Problem = BadEnd
		return i.found(f, "the ledger of device %s was sealed with entry %d, but goes on to %d", one.device, r.Seq, one.seq)
	case one.hash != "" && r.Hash != one.hash:
		f.Problem = Changed
		return i.found(f, "entry %d of device %s, the last one, is not the one that was sealed", one.seq, one.device)
	}
	return nil
}

// ends looks for devices that have an end and no entry, when there are more ends than
// devices with entries. (Ends that are missing were told.)
func (i *inspector) ends(ctx context.Context, devices int) error {
	n := 0
	err := i.r.Scan(ctx, store.Under(kindDevice, string(i.account)), func(store.Record) error { n++; return nil })
	if err != nil || n == 0 {
		return err //nolint:wrapcheck // the caller's
	}
	var keys []store.Key
	var names []string
	check := func() error {
		if len(keys) == 0 {
			return nil
		}
		found, err := i.r.GetMany(ctx, keys)
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		for k, row := range found {
			if row.Version == 0 {
				if err := i.without(ctx, names[k]); err != nil {
					return err
				}
			}
		}
		keys, names = keys[:0], names[:0]
		return nil
	}
	if n == devices && i.verdict.Findings == 0 {
		return nil
	}
	err = i.r.Scan(ctx, store.Under(kindDevice, string(i.account)), func(row store.Record) error {
		keys, names = append(keys, place{i.account, row.Key.Last()}.entry(1)), append(names, row.Key.Last())
		if len(keys) == verifyBatch {
			return check()
		}
		return nil
	})
	if err == nil {
		err = check()
	}
	return err //nolint:wrapcheck // the caller's
}

// without tells of a device that has lost all its entries. One that has lost the first
// only was told.
func (i *inspector) without(ctx context.Context, device string) error {
	some := false
	err := i.r.Scan(ctx, store.Under(kindEntry, string(i.account), device), func(store.Record) error {
		some = true
		return store.Stop
	})
	if err != nil || some {
		return err //nolint:wrapcheck // the caller's
	}
	return i.found(Finding{Device: device, Problem: Truncated}, "the ledger of device %s has no entry, but a sealed end", device)
}

// VerifyDevice checks the ledger of one device: its entries, its chain, its sealed end,
// and that the account's chain has each of its entries. An end that was set back with
// a sealed record of before is found by Verify only.
func (s *Service) VerifyDevice(ctx context.Context, account fleet.Account, name string, w Witness) (Verdict, error) {
	if err := s.catchUp(ctx); err != nil {
		return Verdict{}, err
	}
	key, err := s.key(ctx, account, name)
	if err != nil {
		return Verdict{}, err
	}
	snapshot, err := s.o.Store.Snapshot(ctx)
	if err != nil {
		return Verdict{}, store.Fault(fmt.Errorf("verify the ledger: %w", err))
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	i := &inspector{s: s, r: snapshot, account: account, witness: w, verdict: Verdict{Account: account, Device: key, Hash: genesis}}
	l := &lifeCheck{inspector: i}
	var rows []store.Record
	err = i.r.Scan(ctx, store.Under(kindEntry, string(account), key), func(row store.Record) error {
		if rows = append(rows, row); len(rows) == verifyBatch {
			err := l.check(ctx, rows)
			rows = rows[:0]
			return err
		}
		return nil
	})
	if err == nil {
		err = l.check(ctx, rows)
	}
	if err != nil {
		return i.verdict, store.Fault(err)
	}
	i.verdict.Entries = i.read
	if l.devices == 0 {
		i.verdict.Devices = 1
		return i.verdict, store.Fault(i.without(ctx, key))
	}
	i.verdict.Hash = l.hash
	return i.verdict, store.Fault(l.close(ctx))
}

// Check checks entries of one device outside of any store, as `muster ledger show`
// prints them: their hashes and how they follow each other from the first one. That
// none is missing at the end only Verify can tell, or the head that it was printed
// with.
func Check(entries []Entry) []Finding {
	var all []Finding
	hash := genesis
	for n := range entries {
		e := &entries[n]
		f := Finding{Device: e.Device, Seq: e.Seq, Number: e.Number}
		switch {
		case e.Device != entries[0].Device || e.Account != entries[0].Account || e.Seq != uint64(n+1):
			f.Problem, f.Detail = Moved, fmt.Sprintf("entry %d of device %s stands where entry %d of device %s should", e.Seq, e.Device, n+1, entries[0].Device)
		case e.Schema != schemaVersion || e.digest() != e.Hash:
			f.Problem, f.Detail = Changed, fmt.Sprintf("entry %d of device %s: %v", e.Seq, e.Device, errChanged)
		case e.PrevHash != hash:
			f.Problem, f.Detail = Unlinked, fmt.Sprintf("entry %d of device %s does not follow the one before", e.Seq, e.Device)
		}
		if f.Problem != "" {
			all = append(all, f)
		}
		hash = e.Hash
	}
	return all
}
