package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Problem is what kind of thing is wrong.
type Problem string

// Problems.
const (
	// Changed is a record whose content does not have its hash.
	Changed Problem = "changed"
	// Missing are records that are not there.
	Missing Problem = "missing"
	// Moved is a record that stands where another one should.
	Moved Problem = "moved"
	// Unlinked is a record that does not name the hash of the one before: one of
	// the two was replaced.
	Unlinked Problem = "unlinked"
	// Truncated is an end of the chain that is not where the signed head says.
	Truncated Problem = "truncated"
	// BadHead is a signed head, anchor or end that is missing or not ours.
	BadHead Problem = "head"
	// BadRow is a row that points to no record, or a record without its row.
	BadRow Problem = "row"
	// Foreign is something that is no record.
	Foreign Problem = "foreign"
)

// Finding is one thing that is wrong.
type Finding struct {
	// Seq is the record that it is about, 0 for none.
	Seq     uint64  `json:"seq,omitempty"`
	Problem Problem `json:"problem"`
	Detail  string  `json:"detail"`
}

// Verdict is what a verification looked at and found.
type Verdict struct {
	Account fleet.Account `json:"account,omitempty"`
	// Records were checked from First to Last.
	Records int    `json:"records"`
	First   uint64 `json:"first,omitempty"`
	Last    uint64 `json:"last,omitempty"`
	// Hash is that of the last record.
	Hash string `json:"hash"`
	// PublicKey is what signatures were checked with.
	PublicKey string `json:"publicKey,omitempty"`
	// Findings counts all of them, also those that were not told.
	Findings int `json:"findings"`
}

// maxFindings bounds how many findings are told; all are counted.
const maxFindings = 1000

// Witness is told what a verification finds, and how many records it has seen.
// An error ends the verification.
type Witness struct {
	Found    func(Finding) error
	Progress func(records int) error
}

// progressEvery is after how many records progress is told.
const progressEvery = 10_000

// inspector looks at records in the order in which they stand.
type inspector struct {
	witness Witness
	verdict Verdict
	// last is the highest sequence so far, hash the one that the next record must
	// name, "" when that is not known.
	last uint64
	hash string
	// claims are what kept heads say of records, by sequence.
	claims map[uint64]Head
	// bad are the records that findings are about, from one to another.
	bad [][2]uint64
}

// found tells a finding.
func (i *inspector) found(seq uint64, problem Problem, format string, args ...any) error {
	return i.foundAll(seq, seq, problem, format, args...)
}

// foundAll tells a finding about several records, under the number of the first.
func (i *inspector) foundAll(seq, last uint64, problem Problem, format string, args ...any) error {
	if len(i.bad) < maxFindings {
		i.bad = append(i.bad, [2]uint64{seq, last})
	}
	if i.verdict.Findings++; i.verdict.Findings > maxFindings {
		return nil
	}
	return i.witness.Found(Finding{seq, problem, fmt.Sprintf(format, args...)})
}

// record looks at the next record. at is the sequence that its place says, 0
// where places say nothing.
func (i *inspector) record(at uint64, line []byte) (*Record, error) {
	r, hash, err := parseLine(line)
	if i.verdict.Records++; i.verdict.Records%progressEvery == 0 {
		if err := i.witness.Progress(i.verdict.Records); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, i.broken(at, hash, err)
	}
	if i.verdict.Account == "" {
		i.verdict.Account = fleet.Account(r.RecipientAccountID)
	}
	switch {
	case at != 0 && r.Seq != at:
		if err := i.gap(at); err != nil {
			return nil, err
		}
		i.step(at, "")
		return nil, i.found(at, Moved, "record %d stands where record %d should", r.Seq, at)
	case r.RecipientAccountID != string(i.verdict.Account):
		i.step(max(r.Seq, i.last), "")
		return nil, i.found(r.Seq, Foreign, "the record is of account %s", r.RecipientAccountID)
	case r.Seq <= i.last:
		i.hash = ""
		return nil, i.found(r.Seq, Moved, "record %d stands behind record %d", r.Seq, i.last)
	}
	if err := i.gap(r.Seq); err != nil {
		return nil, err
	}
	if i.hash != "" && r.PrevHash != i.hash {
		if err := i.found(r.Seq, Unlinked, "record %d does not follow record %d as it is now: one of them was replaced", r.Seq, i.last); err != nil {
			return nil, err
		}
	}
	i.step(r.Seq, hash)
	return r, i.claim(r.Seq, hash)
}

// broken notes a record whose content was changed.
func (i *inspector) broken(at uint64, hash string, cause error) error {
	seq := at
	if seq == 0 {
		seq = i.last + 1
	}
	if err := i.gap(seq); err != nil {
		return err
	}
	i.step(seq, hash)
	return i.found(seq, Changed, "record %d: %v", seq, cause)
}

// gap notes that records are missing before seq.
func (i *inspector) gap(seq uint64) error {
	if seq == i.last+1 {
		return nil
	}
	i.hash = ""
	if seq == i.last+2 {
		return i.found(i.last+1, Missing, "record %d is missing", i.last+1)
	}
	return i.foundAll(i.last+1, seq-1, Missing, "records %d to %d are missing", i.last+1, seq-1)
}

// step goes on behind a record.
func (i *inspector) step(seq uint64, hash string) {
	if i.verdict.First == 0 {
		i.verdict.First = seq
	}
	i.last, i.hash = seq, hash
	i.verdict.Last, i.verdict.Hash = seq, hash
}

// claim compares a record with what a kept head says of it.
func (i *inspector) claim(seq uint64, hash string) error {
	head, ok := i.claims[seq]
	if !ok {
		return nil
	}
	delete(i.claims, seq)
	if head.Hash == hash {
		return nil
	}
	return i.found(seq, Changed, "record %d has another hash than in the head that was kept of %s: it or one before it was replaced", seq, head.Time)
}

// keep takes a head that was kept elsewhere; its signature has been checked.
func (i *inspector) keep(heads []Head, account fleet.Account, publicKey string) error {
	i.claims = map[uint64]Head{}
	for _, h := range heads {
		if h.Account != account {
			return i.found(0, BadHead, "the head that was kept is of account %s, not %s", h.Account, account)
		}
		if publicKey != "" && h.PublicKey != publicKey {
			if err := i.found(h.Seq, BadHead, "the head that was kept of %s was signed with another key", h.Time); err != nil {
				return err
			}
		}
		if h.Seq > 0 {
			i.claims[h.Seq] = h
		}
	}
	return nil
}

// unclaimed notes kept heads whose record was not met. first is the oldest
// record that there should be, and before the hash of the one that it follows.
func (i *inspector) unclaimed(first uint64, before string) error {
	for seq, head := range i.claims {
		var err error
		switch {
		case seq > i.last:
			err = i.found(seq, Truncated, "the head that was kept of %s is of record %d, but this ends with record %d", head.Time, seq, i.last)
		case seq == first-1 && head.Hash != before:
			err = i.found(seq, Changed, "record %d, after which this begins, had another hash in the head that was kept of %s", seq, head.Time)
		case seq < first-1:
			err = i.found(seq, BadHead, "the head that was kept of %s cannot be checked: it is of record %d, and this begins with record %d", head.Time, seq, first)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Verify checks an account's stored trail: every record, the chain, its signed
// ends, the rows, and what heads that were kept elsewhere say. The verdict is
// for one moment; calls go on meanwhile.
func (s *Service) Verify(ctx context.Context, account fleet.Account, kept []Head, w Witness) (Verdict, error) {
	if err := s.catchUp(ctx); err != nil {
		return Verdict{}, err
	}
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return Verdict{}, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	i := &inspector{witness: w, verdict: Verdict{Account: account, PublicKey: s.PublicKey()}}
	if err := i.keep(kept, account, s.PublicKey()); err != nil {
		return i.verdict, err
	}
	anchor, err := s.trusted(ctx, i, snapshot, anchorKey(account), anchorOf, account)
	if err != nil {
		return i.verdict, err
	}
	i.last, i.hash, i.verdict.Hash = anchor.Seq, anchor.Hash, anchor.Hash
	pointing := &rowCheck{service: s, account: account, reader: snapshot}
	if err := s.verifyRecords(ctx, i, snapshot, account, pointing); err != nil {
		return i.verdict, err
	}
	head, err := s.trusted(ctx, i, snapshot, headKey(account), headOf, account)
	if err == nil {
		err = i.end(head)
	}
	if err == nil {
		err = i.unclaimed(anchor.Seq+1, anchor.Hash)
	}
	if err == nil {
		err = pointing.strays(ctx, i)
	}
	return i.verdict, err
}

// verifyRecords looks at every stored record of the account.
func (s *Service) verifyRecords(ctx context.Context, i *inspector, r store.Reader, account fleet.Account, pointing *rowCheck) error {
	err := r.Scan(ctx, store.Under(kindRecord, string(account)), func(stored store.Record) error {
		seq, ok := seqOfRecord(stored.Key)
		if !ok || len(stored.Key.Parts()) != 3 {
			return i.found(0, Foreign, "the key %s is not that of a record", stored.Key)
		}
		if seq <= i.last {
			return i.found(seq, Foreign, "record %d is there, but retention removed all up to %d", seq, i.last)
		}
		record, err := i.record(seq, stored.Value)
		if err != nil || record == nil {
			return err
		}
		return pointing.expect(ctx, i, record)
	})
	if err != nil {
		return fmt.Errorf("verify audit records: %w", err)
	}
	return pointing.check(ctx, i)
}

// trusted reads a signed end and notes when it is not ours.
func (s *Service) trusted(ctx context.Context, i *inspector, r store.Reader, key store.Key, what string, account fleet.Account) (Head, error) {
	h, version, err := readHead(ctx, r, key, what, account)
	if errors.Is(err, errHead) {
		return h, i.found(0, BadHead, "the %s cannot be read", what)
	}
	if err != nil || version == 0 {
		return h, err
	}
	if err := s.ours(h, what, account); err != nil {
		return h, i.found(h.Seq, BadHead, "the %s is not ours: %v", what, err)
	}
	return h, nil
}

// end compares the last record with the signed head.
func (i *inspector) end(head Head) error {
	switch {
	case head.Seq > i.last && head.Seq == i.last+1:
		return i.found(head.Seq, Truncated, "record %d, the last one, is missing", head.Seq)
	case head.Seq > i.last:
		return i.foundAll(i.last+1, head.Seq, Truncated, "records %d to %d, the last ones, are missing", i.last+1, head.Seq)
	case head.Seq < i.last:
		return i.found(head.Seq, BadHead, "the head says that the trail ends with record %d, but it ends with record %d", head.Seq, i.last)
	case i.hash != "" && head.Hash != i.hash:
		return i.found(head.Seq, Changed, "record %d, the last one, is not the one that the head was signed for", head.Seq)
	}
	return nil
}

// rowCheck compares rows with records.
type rowCheck struct {
	service *Service
	account fleet.Account
	reader  store.Reader
	keys    []store.Key
	of      []uint64
	// expected counts the rows that there should be.
	expected int
}

// rowBatch is how many rows are read at once.
const rowBatch = 2000

// expect notes the rows that a record must have.
func (c *rowCheck) expect(ctx context.Context, i *inspector, r *Record) error {
	for _, row := range r.rows() {
		c.keys, c.of = append(c.keys, row), append(c.of, r.Seq)
	}
	if len(c.keys) < rowBatch {
		return nil
	}
	return c.check(ctx, i)
}

// check reads the rows that were noted.
func (c *rowCheck) check(ctx context.Context, i *inspector) error {
	if len(c.keys) == 0 {
		return nil
	}
	found, err := c.reader.GetMany(ctx, c.keys)
	if err != nil {
		return fmt.Errorf("verify audit rows: %w", err)
	}
	for n, stored := range found {
		if stored.Version != 0 && string(stored.Value) == plainRow {
			c.expected++
			continue
		}
		if stored.Version != 0 {
			c.expected++
		}
		if err := i.found(c.of[n], BadRow, "record %d is not found by its row %s", c.of[n], c.keys[n]); err != nil {
			return err
		}
	}
	c.keys, c.of = c.keys[:0], c.of[:0]
	return nil
}

// strays looks for rows that no record has. It names them only when there are
// more rows than there should be.
func (c *rowCheck) strays(ctx context.Context, i *inspector) error {
	for _, named := range []bool{false, true} {
		n := 0
		for _, kind := range []string{kindTime, kindActor, kindResource} {
			err := c.reader.Scan(ctx, store.Under(kind, string(c.account)), func(stored store.Record) error {
				n++
				if !named {
					return nil
				}
				return c.stray(ctx, i, stored.Key)
			})
			if err != nil {
				return fmt.Errorf("verify audit rows: %w", err)
			}
		}
		if !named && n == c.expected {
			return nil
		}
	}
	return nil
}

// stray notes a row unless its record has it.
func (c *rowCheck) stray(ctx context.Context, i *inspector, row store.Key) error {
	seq, _ := seqOfRow(row)
	for _, span := range i.bad {
		if span[0] <= seq && seq <= span[1] && span[0] > 0 {
			// The record has a finding of its own.
			return nil
		}
	}
	stored, err := c.reader.Get(ctx, recordKey(c.account, seq))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("verify audit rows: %w", err)
	}
	if err == nil {
		record, _, broken := parseLine(stored.Value)
		if broken != nil {
			return nil
		}
		if slices.Contains(record.rows(), row) {
			return nil
		}
	}
	return i.found(seq, BadRow, "the row %s has no record", row)
}

// maxLine bounds a line of an export.
const maxLine = 1 << 20

// VerifyExport checks an exported file without any server: every record, the
// chain, the signed end of the file, and what heads that were kept say. Without a
// kept head it can tell only that the file is whole and of one key, which the
// verdict names.
func VerifyExport(r io.Reader, kept []Head, w Witness) (Verdict, error) {
	i := &inspector{witness: w}
	x := &exported{inspector: i, kept: kept}
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return i.verdict, fmt.Errorf("a line is longer than %d bytes: this is no export of an audit trail", maxLine)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return i.verdict, fmt.Errorf("read the export: %w", err)
		}
		if len(line) > 0 {
			if err := x.line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
				return i.verdict, err
			}
		}
		if err != nil {
			return i.verdict, x.conclude()
		}
	}
}

// exported is a file on its way through an inspector.
type exported struct {
	*inspector
	kept []Head
	// begun says that a whole record was met, early how many broken ones came
	// before it.
	begun bool
	early int
	end   *Head
}

// line looks at one line.
func (x *exported) line(line []byte) error {
	if x.end != nil {
		return x.found(0, Foreign, "there is something behind the signed end")
	}
	if x.end = parseEnd(line); x.end != nil {
		return nil
	}
	if !x.begun {
		r, _, err := parseLine(line)
		if err != nil || r.Seq == 0 {
			// What number it had shows when a whole one follows.
			x.early++
			return nil
		}
		prev := r.PrevHash
		if x.early > 0 {
			prev = ""
		}
		if err := x.start(r.Seq, fleet.Account(r.RecipientAccountID), prev); err != nil {
			return err
		}
	}
	_, err := x.record(0, line)
	return err
}

// start begins before the record seq, with the broken ones that came before it.
func (x *exported) start(seq uint64, account fleet.Account, prev string) error {
	x.begun = true
	x.verdict.Account = account
	if err := x.keep(x.kept, account, ""); err != nil {
		return err
	}
	x.last = seq - 1
	if x.early > 0 && uint64(x.early) < seq {
		x.last = seq - 1 - uint64(x.early)
	}
	for range x.early {
		x.verdict.Records++
		if err := x.broken(0, "", errChanged); err != nil {
			return err
		}
	}
	x.hash = prev
	return nil
}

// parseEnd reads the last line of an export, nil for anything else. It takes
// only what this program would write.
func parseEnd(line []byte) *Head {
	var h Head
	if json.Unmarshal(line, &h) != nil || h.What != endOf {
		return nil
	}
	if again, err := h.encode(); err != nil || !bytes.Equal(again, line) {
		return nil
	}
	return &h
}

// conclude compares the records of a file with its signed end.
func (x *exported) conclude() error {
	end := x.end
	if end == nil {
		if !x.begun {
			x.last = 0
			if err := x.start(uint64(x.early)+1, "", ""); err != nil {
				return err
			}
		}
		return x.found(x.last+1, Truncated, "the file has no signed end: what follows record %d is missing", x.last)
	}
	x.verdict.PublicKey = end.PublicKey
	if !x.begun {
		if err := x.start(max(end.First, 1)+uint64(x.early), end.Account, ""); err != nil {
			return err
		}
	}
	if err := end.verify(endOf); err != nil {
		return x.found(end.Seq, BadHead, "the signed end cannot be trusted: %v", err)
	}
	if x.verdict.Records == 0 {
		x.hash, x.verdict.Hash = end.PrevHash, end.PrevHash
	}
	err := x.begin(end)
	if err == nil {
		err = x.inspector.end(*end)
	}
	if err != nil {
		return err
	}
	for _, head := range x.kept {
		if head.PublicKey != end.PublicKey {
			if err := x.found(head.Seq, BadHead, "the head that was kept of %s was signed with another key than this file", head.Time); err != nil {
				return err
			}
		}
	}
	return x.unclaimed(max(end.First, 1), end.PrevHash)
}

// begin compares where the file begins with its signed end.
func (x *exported) begin(end *Head) error {
	first := x.verdict.First
	if end.Account != x.verdict.Account {
		return x.found(end.Seq, BadHead, "the signed end is of account %s", end.Account)
	}
	switch {
	case first == 0 || first == end.First:
		return nil
	case first > end.First:
		return x.found(end.First, Missing, "records %d to %d, the first ones, are missing", end.First, first-1)
	default:
		return x.found(first, Foreign, "the file begins with record %d, but its signed end says %d", first, end.First)
	}
}
