package allowlist

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Reason is why a device is on no list, or on one and may not join.
type Reason string

// Reasons; an empty one lets a device in.
const (
	// Unknown is a device that is on no accepted list.
	Unknown Reason = "UNKNOWN"
	// OtherKey is a serial number whose key, by the list, is not the device's.
	OtherKey Reason = "OTHER_KEY"
	// KeyNeeded is a serial number for which the list has a key, when none was shown.
	KeyNeeded Reason = "KEY_NEEDED"
	// OtherSerial is a key whose serial number, by the list, is not the device's.
	OtherSerial Reason = "OTHER_SERIAL"
	// Ambiguous is a serial number that several lists have, for devices of different
	// models or suppliers.
	Ambiguous Reason = "AMBIGUOUS"
	NotVetted Reason = "NOT_VETTED"
	TooLate   Reason = "EXPIRED"
	// Used is an entry with which another device has joined.
	Used    Reason = "USED"
	Blocked Reason = "BLOCKED"
	// SupplierSuspended is a supplier that is not ACTIVE.
	SupplierSuspended Reason = "SUPPLIER_SUSPENDED"
	// TemplateNotAllowed is a template by which the supplier's devices do not join.
	TemplateNotAllowed Reason = "TEMPLATE_NOT_ALLOWED"
)

// words are the reasons for people.
var words = map[Reason]string{
	Unknown:            "the device is on no accepted allow list",
	OtherKey:           "the allow list has another key for this serial number",
	KeyNeeded:          "the allow list has a key for this serial number, and none was shown",
	OtherSerial:        "the allow list has another serial number for this key",
	Ambiguous:          "several allow lists have this serial number, for different devices",
	NotVetted:          "the supplier has not vetted the device",
	TooLate:            "the entry of the device is out of date",
	Used:               "another device has joined with this entry",
	Blocked:            "the entry of the device is blocked",
	SupplierSuspended:  "the supplier is suspended",
	TemplateNotAllowed: "the supplier's devices do not join by this template",
}

// Found is by what a device was found.
type Found string

// Ways of finding a device.
const (
	ByFingerprint Found = "FINGERPRINT"
	BySerial      Found = "SERIAL"
)

// Query is a device that wants to join.
type Query struct {
	Serial, Model string
	// Fingerprints are the SHA-256 of the SubjectPublicKeyInfo of keys that it has
	// shown to own, in lower-case hexadecimal digits.
	Fingerprints []string
	// Template is the one that it joins by; empty where that does not matter.
	Template string
	// Supplier is the only one whose lists count; empty for any.
	Supplier string
	// Thing and CertificateID are who it would be.
	Thing, CertificateID string
}

// Match is what the lists say of a device.
type Match struct {
	// Reason is empty for a device that may join.
	Reason Reason
	// List, Revision, Supplier and Found are empty for a device that was not found.
	List, Supplier string
	Revision       int64
	Found          Found
	// UploadedBy is who has uploaded the revision.
	UploadedBy string
	// OtherThing and OtherCertificateID are who has joined with the entry.
	OtherThing, OtherCertificateID string

	account fleet.Account
	query   Query
	hash    string
	// blocked is under what a block of the device is kept.
	blocked string
	use     useRecord
	// expects are what the match has relied upon.
	expects []store.Expect
	s       *Service
}

// Words tell why a device may not join, or where it was found; they hold nothing of
// the list's content.
func (m *Match) Words() string {
	if m.Reason != "" {
		return words[m.Reason]
	}
	return fmt.Sprintf("revision %d of allow list %s has it, by %s", m.Revision, m.List, strings.ToLower(string(m.Found)))
}

// useRecord is what became of a supplier's device.
type useRecord struct {
	Schema int `json:"v"`
	// State is CLAIMED or BLOCKED; an unused one has no record, or an empty state.
	State         EntryState `json:"state,omitempty"`
	Thing         string     `json:"thing,omitempty"`
	CertificateID string     `json:"certificateId,omitempty"`
	List          string     `json:"list"`
	Revision      int64      `json:"revision"`
	At            int64      `json:"at"`
	Note          string     `json:"note,omitempty"`
	// Doubles are certificates with which others have tried.
	Doubles []string `json:"doubles,omitempty"`
}

// EntryState is how an entry stands.
type EntryState string

// States of an entry.
const (
	Unused     EntryState = "UNUSED"
	Claimed    EntryState = "CLAIMED"
	BlockedOne EntryState = "BLOCKED"
)

// place is an entry in a current revision.
type place struct {
	list   string
	number int64
	i      int
	found  Found
	entry  *Entry
	record listRecord
	// upload is who has uploaded it.
	uploadedBy string
}

// Match looks for a device: by its keys first, then by its serial number.
func (s *Service) Match(ctx context.Context, account fleet.Account, q Query) (*Match, error) {
	m, err := s.match(ctx, account, q)
	if err == nil {
		outcome := "allowed"
		if m.Reason != "" {
			outcome = strings.ToLower(string(m.Reason))
		}
		s.matches.WithLabelValues(outcome).Inc()
	}
	return m, err
}

func (s *Service) match(ctx context.Context, account fleet.Account, q Query) (*Match, error) {
	v, err := s.vault(ctx, account)
	if err != nil {
		return nil, err
	}
	m := &Match{account: account, query: q, s: s}
	at, err := v.find(ctx, m)
	if err != nil || at == nil {
		return m, err
	}
	m.List, m.Revision, m.Supplier, m.Found, m.UploadedBy = at.list, at.number, at.record.Supplier, at.found, at.uploadedBy
	m.hash = v.hash("device", m.Supplier, at.entry.Serial, at.entry.Model)
	var supplier supplierRecord
	version, err := read(ctx, s.o.Store, supplierKey(account, m.Supplier), &supplier)
	if err != nil {
		return nil, err
	}
	m.expects = append(m.expects, store.Expect{Key: supplierKey(account, m.Supplier), Version: version})
	if version, err = read(ctx, s.o.Store, useKey(account, m.hash), &m.use); err != nil {
		return nil, err
	}
	m.expects = append(m.expects, store.Expect{Key: useKey(account, m.hash), Version: version})
	// What is blocked stays so when a revision writes it otherwise: by its key, or by
	// its serial number where the list has no key.
	if m.blocked = v.hash("blocked serial", m.Supplier, at.entry.Serial); at.entry.Fingerprint != "" {
		m.blocked = v.hash("blocked key", m.Supplier, at.entry.Fingerprint)
	}
	var row struct{}
	blocked, err := read(ctx, s.o.Store, blockedKey(account, m.blocked), &row)
	if err != nil {
		return nil, err
	}
	m.expects = append(m.expects, store.Expect{Key: blockedKey(account, m.blocked), Version: blocked})
	ends, err := at.entry.expires()
	if err != nil {
		return nil, fmt.Errorf("entry of list %s: %w", at.list, err)
	}
	switch {
	case m.Reason != "" && m.Reason != KeyNeeded:
	case supplier.Status != Active:
		m.Reason = SupplierSuspended
	case q.Template != "" && len(supplier.Templates) > 0 && !slices.Contains(supplier.Templates, q.Template):
		m.Reason = TemplateNotAllowed
	case m.use.State == BlockedOne, blocked != 0:
		m.Reason = Blocked
	case !at.entry.Vetted:
		m.Reason = NotVetted
	case !ends.IsZero() && !s.o.Now().Before(ends):
		m.Reason = TooLate
	case m.Reason != "":
		// Without its key nobody can make it a second use.
	case m.use.State == Claimed && !m.same():
		m.Reason = Used
		m.OtherThing, m.OtherCertificateID = m.use.Thing, m.use.CertificateID
	}
	return m, nil
}

// same reports whether who asks is who has joined with the entry: its certificate, or
// its thing with the key that the list has for it.
func (m *Match) same() bool {
	return m.query.CertificateID != "" && m.query.CertificateID == m.use.CertificateID ||
		m.Found == ByFingerprint && m.query.Thing != "" && m.query.Thing == m.use.Thing
}

// find looks a device up and says in m what speaks against it; nil is one that is on
// no list.
func (v *vault) find(ctx context.Context, m *Match) (*place, error) {
	q := &m.query
	for _, key := range q.Fingerprints {
		places, err := v.places(ctx, m, kindPrint, v.hash("print", key), ByFingerprint)
		if err != nil {
			return nil, err
		}
		for _, at := range places {
			if at.entry.Fingerprint != key {
				continue // a hash that meets another by chance, or a row that was put there
			}
			if q.Serial != "" && at.entry.Serial != q.Serial || q.Model != "" && at.entry.Model != "" && at.entry.Model != q.Model {
				m.Reason = OtherSerial
			}
			return at, nil
		}
	}
	if q.Serial == "" {
		m.Reason = Unknown
		return nil, nil //nolint:nilnil // no entry is no mistake
	}
	places, err := v.places(ctx, m, kindSerial, v.hash("serial", q.Serial), BySerial)
	if err != nil {
		return nil, err
	}
	places = slices.DeleteFunc(places, func(at *place) bool {
		return at.entry.Serial != q.Serial || q.Model != "" && at.entry.Model != "" && at.entry.Model != q.Model
	})
	if len(places) == 0 {
		m.Reason = Unknown
		return nil, nil //nolint:nilnil // no entry is no mistake
	}
	at := places[0]
	for _, other := range places[1:] {
		if other.entry.Model != at.entry.Model || other.record.Supplier != at.record.Supplier {
			m.Reason = Ambiguous
			return at, nil
		}
	}
	switch {
	case at.entry.Fingerprint == "":
	case len(q.Fingerprints) == 0:
		m.Reason = KeyNeeded
	default:
		// None of its keys is that one, or it had been found.
		m.Reason = OtherKey
	}
	return at, nil
}

// places are the entries under a hash in current revisions.
func (v *vault) places(ctx context.Context, m *Match, kind, hash string, found Found) ([]*place, error) {
	var all []*place
	s := v.s
	err := s.o.Store.Scan(ctx, store.Under(kind, string(v.account), hash), func(row store.Record) error {
		parts := row.Key.Parts()
		at := &place{list: parts[3], found: found}
		if _, err := fmt.Sscanf(parts[4]+" "+parts[5], "%d %d", &at.number, &at.i); err != nil {
			return fmt.Errorf("row %s: %w", row.Key, err)
		}
		all = append(all, at)
		return nil
	})
	if err != nil {
		return nil, store.Fault(err)
	}
	lists := map[string]listRecord{}
	out := all[:0]
	for _, at := range all {
		record, known := lists[at.list]
		if !known {
			version, err := read(ctx, s.o.Store, listKey(v.account, at.list), &record)
			if err != nil {
				return nil, err
			}
			m.expects = append(m.expects, store.Expect{Key: listKey(v.account, at.list), Version: version})
			lists[at.list] = record
		}
		if record.Current != at.number || m.query.Supplier != "" && record.Supplier != m.query.Supplier {
			continue
		}
		at.record = record
		if err := v.read(ctx, at); err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

// read opens the entry of a place.
func (v *vault) read(ctx context.Context, at *place) error {
	r, err := v.s.revision(ctx, v.account, at.list, at.number)
	if err != nil {
		return err
	}
	at.uploadedBy = r.UploadedBy
	key, err := v.dataKey(at.list, r)
	if err != nil {
		return err
	}
	sealer, err := newSealer(key)
	if err != nil {
		return err
	}
	k := entryKey(v.account, at.list, at.number, at.i)
	found, err := v.s.o.Store.Get(ctx, k)
	if err != nil {
		return store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	at.entry, err = sealer.open(k, found.Value)
	return err
}

// Claim is what has to be committed with the registration of a device that may join:
// the entry is its, and everything that the match has relied upon is as it was. When
// the commit meets a conflict the match has to be made again.
func (m *Match) Claim(ctx context.Context) (store.Batch, error) {
	if m.Reason != "" {
		return store.Batch{}, fault.New(fault.Forbidden, "%s", m.Words())
	}
	b := &batch{s: m.s, account: m.account}
	b.Expect = slices.Clone(m.expects)
	use := m.use
	use.Schema, use.State, use.Thing, use.CertificateID, use.At = schemaVersion, Claimed, m.query.Thing, m.query.CertificateID, m.s.o.Now().UnixMilli()
	use.List, use.Revision = m.List, m.Revision
	b.emit(ctx, event.AllowListEntryChanged{
		List: m.List, Revision: m.Revision, Supplier: m.Supplier, State: string(Claimed), Found: string(m.Found), Thing: use.Thing, CertificateID: use.CertificateID,
	})
	return b.Batch, b.put(useKey(m.account, m.hash), use)
}

// maxDoubles bounds the certificates of a record that were too many.
const maxDoubles = 16

// RecordDuplicate raises that a device wants to join with an entry that another one has
// used, once for each certificate.
func (m *Match) RecordDuplicate(ctx context.Context) error {
	if m.Reason != Used || slices.Contains(m.use.Doubles, m.query.CertificateID) {
		return nil
	}
	return m.s.change(ctx, m.account, func(b *batch) error {
		var use useRecord
		if _, err := b.load(ctx, useKey(m.account, m.hash), &use); err != nil {
			return err
		}
		if use.State != Claimed || slices.Contains(use.Doubles, m.query.CertificateID) {
			return nil
		}
		// A certificate raises one duplicate: who goes through serial numbers with it has
		// one device, not as many as there are.
		var known struct{}
		if again, err := b.load(ctx, doubleKey(m.account, m.query.CertificateID), &known); err != nil || again {
			return err
		}
		b.row(doubleKey(m.account, m.query.CertificateID))
		if use.Doubles = append(use.Doubles, m.query.CertificateID); len(use.Doubles) > maxDoubles {
			use.Doubles = use.Doubles[1:]
		}
		b.emit(ctx, event.DuplicateSerial{
			Thing: m.query.Thing, CertificateID: m.query.CertificateID, OtherThing: use.Thing, OtherCertificateID: use.CertificateID,
			ListID: m.List, Revision: m.Revision, Supplier: m.Supplier,
		})
		return b.put(useKey(m.account, m.hash), use)
	})
}

// Checked is what the lists say of a device to who asks for it.
type Checked struct {
	Match

	State EntryState
	// Thing and CertificateID are who has joined with the entry.
	Thing, CertificateID string
	Note                 string
}

// Check tells an operator what the lists have of a device. It is on record.
func (s *Service) Check(ctx context.Context, account fleet.Account, q Query) (Checked, error) {
	if q.Serial == "" && len(q.Fingerprints) == 0 {
		return Checked{}, fault.New(fault.InvalidRequest, "serial or fingerprint must be given")
	}
	for _, key := range q.Fingerprints {
		if !fingerprintPattern.MatchString(key) {
			return Checked{}, fault.New(fault.InvalidRequest, "fingerprint: must have 64 lower-case hexadecimal digits")
		}
	}
	m, err := s.match(ctx, account, q)
	if err != nil {
		return Checked{}, err
	}
	out := Checked{Match: *m}
	if m.hash != "" {
		out.State, out.Thing, out.CertificateID, out.Note = m.use.State, m.use.Thing, m.use.CertificateID, m.use.Note
		if out.State == "" {
			out.State = Unused
		}
	}
	return out, s.change(ctx, account, func(b *batch) error {
		b.emit(ctx, event.AllowListRead{List: m.List, Revision: m.Revision, What: event.AllowListReadEntry})
		return nil
	})
}

// SetEntry blocks an entry, or makes it good for one device again: UNUSED for a device
// that was erased and joins anew, BLOCKED for one that must not. A query that could mean
// another device changes nothing.
func (s *Service) SetEntry(ctx context.Context, account fleet.Account, q Query, to EntryState, note string) (Checked, error) {
	switch {
	case to != Unused && to != BlockedOne:
		return Checked{}, fault.New(fault.InvalidRequest, "state must be %s or %s", Unused, BlockedOne)
	case strings.TrimSpace(note) == "":
		return Checked{}, fault.New(fault.InvalidRequest, "note must say why")
	}
	if err := checkNote(note); err != nil {
		return Checked{}, err
	}
	out, err := s.Check(ctx, account, q)
	if err != nil {
		return Checked{}, err
	}
	if out.hash == "" {
		return Checked{}, fault.New(fault.ResourceNotFound, "%s", words[Unknown])
	}
	switch out.Reason { //nolint:exhaustive // the others are about one entry
	case Ambiguous, OtherKey, OtherSerial:
		return Checked{}, fault.New(fault.InvalidRequest, "%s: supplierId, model, serial and fingerprint must be those of one entry", out.Words())
	}
	err = s.change(ctx, account, func(b *batch) error {
		var use useRecord
		if _, err := b.load(ctx, useKey(account, out.hash), &use); err != nil {
			return err
		}
		was := use
		use.Schema, use.State, use.Note, use.At, use.List, use.Revision = schemaVersion, to, note, s.o.Now().UnixMilli(), out.List, out.Revision
		if to == BlockedOne {
			b.row(blockedKey(account, out.blocked))
		} else {
			b.remove(blockedKey(account, out.blocked))
			use.State, use.Thing, use.CertificateID, use.Doubles = "", "", "", nil
		}
		out.State, out.Thing, out.CertificateID, out.Note = to, use.Thing, use.CertificateID, note
		b.emit(ctx, event.AllowListEntryChanged{
			List: out.List, Revision: out.Revision, Supplier: out.Supplier, State: string(to), Thing: was.Thing, CertificateID: was.CertificateID, Reason: note,
		})
		return b.put(useKey(account, out.hash), use)
	})
	return out, err
}
