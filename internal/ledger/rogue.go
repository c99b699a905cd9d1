package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// RogueKind tells rogues apart.
type RogueKind string

// Kinds of rogues.
const (
	// RogueJoined is a device that is registered, RogueAttempt one that was refused.
	RogueJoined  RogueKind = "DEVICE"
	RogueAttempt RogueKind = "ATTEMPT"
)

const (
	// maxAttempts is about how many refused devices are remembered in an account, the
	// newest; evicted is how many make room at a time.
	maxAttempts = 1000
	evicted     = 100
	// maxRoguePage bounds a page.
	maxRoguePage = 250
)

// Rogue is a device that nobody made.
type Rogue struct {
	Kind RogueKind
	// Device is its key; for an attempt what it called itself.
	Device                                            string
	Thing, CertificateID, ClaimID, Template, ClientID string
	Reason                                            string
	First, Last                                       time.Time
	// Count is how often it was refused; Known says of an attempt that a device of
	// that name has a ledger, so that somebody may pretend to be it.
	Count int64
	Known bool
}

// rogueRecord is the stored form.
type rogueRecord struct {
	Schema      int    `json:"v"`
	Device      string `json:"device"`
	Thing       string `json:"thing,omitempty"`
	Certificate string `json:"certificateId,omitempty"`
	Claim       string `json:"claimId,omitempty"`
	Template    string `json:"template,omitempty"`
	Client      string `json:"clientId,omitempty"`
	Reason      string `json:"reason"`
	First       int64  `json:"first"`
	Last        int64  `json:"last"`
	Count       int64  `json:"count,omitempty"`
	Known       bool   `json:"known,omitempty"`
}

func (r *rogueRecord) public(kind RogueKind) Rogue {
	return Rogue{
		Kind: kind, Device: r.Device, Thing: r.Thing, CertificateID: r.Certificate, ClaimID: r.Claim, Template: r.Template, ClientID: r.Client,
		Reason: r.Reason, First: moment(r.First), Last: moment(r.Last), Count: r.Count, Known: r.Known,
	}
}

// countRecord counts an account's rogues.
type countRecord struct {
	Schema int `json:"v"`
	// Devices have joined. Attempts were raised, Refusals are all of theirs, Kept is
	// how many attempts are remembered.
	Devices  int64 `json:"devices"`
	Attempts int64 `json:"attempts"`
	Refusals int64 `json:"refusals"`
	Kept     int64 `json:"kept"`
}

// rogues are those of an account in a book.
type rogues struct {
	s        *Service
	account  fleet.Account
	count    countRecord
	version  uint64
	joined   []rogueRecord
	attempts map[string]*attempted
	changed  bool
}

// attempted is an attempt in a book.
type attempted struct {
	rogueRecord

	version uint64
}

// roguesOf opens an account's rogues.
func (b *book) roguesOf(ctx context.Context, account fleet.Account) (*rogues, error) {
	if r := b.rogues[account]; r != nil {
		return r, nil
	}
	r := &rogues{s: b.s, account: account, attempts: map[string]*attempted{}}
	found, err := b.s.o.Store.Get(ctx, roguesKey(account))
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, store.Fault(fmt.Errorf("read rogues: %w", err))
	default:
		r.version = found.Version
		if err := decode(found, &r.count, &r.count.Schema); err != nil {
			return nil, err
		}
	}
	b.rogues[account] = r
	return r, nil
}

// raise tells of a device that has joined and that nobody made.
func (f *follower) raise(ctx context.Context, d *device, reason string) error {
	r, err := f.roguesOf(ctx, d.at.account)
	if err != nil {
		return err
	}
	r.changed = true
	r.count.Devices++
	at := f.env.At.UnixMilli()
	r.joined = append(r.joined, rogueRecord{
		Schema: schemaVersion, Device: d.at.device, Thing: d.Thing, Certificate: d.Certificate, Reason: reason, First: at, Last: at,
	})
	f.told.devices++
	f.s.o.Logger.WarnContext(ctx, "device that nobody made has joined", slog.String("account", string(d.at.account)),
		slog.String("device", d.at.device), slog.String("thing", d.Thing), slog.String("certificate", d.Certificate), slog.String("reason", reason))
	f.emit(event.RogueDevice{Device: d.at.device, Thing: d.Thing, CertificateID: d.Certificate, Reason: reason})
	return nil
}

// attempt tells of one that a gate has refused: the first time, while it is
// remembered.
func (f *follower) attempt(ctx context.Context, e *event.ProvisioningRefused, known bool) error {
	account := f.env.Account
	r, err := f.roguesOf(ctx, account)
	if err != nil {
		return err
	}
	subject := clip("client "+e.ClientID, 256)
	name := e.ClientID
	if name == "" {
		subject, name = "certificate "+e.CertificateID, e.CertificateID
	}
	one := r.attempts[subject]
	if one == nil {
		one = &attempted{}
		found, err := f.s.o.Store.Get(ctx, store.K(kindAttempt, string(account), subject))
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return store.Fault(fmt.Errorf("read a refused device: %w", err))
		default:
			one.version = found.Version
			if err := decode(found, &one.rogueRecord, &one.Schema); err != nil {
				return err
			}
		}
		r.attempts[subject] = one
	}
	at, reason := f.env.At.UnixMilli(), e.Code
	if e.Template != "" {
		reason += " by template " + e.Template
	}
	r.changed = true
	r.count.Refusals++
	one.Schema, one.Device, one.Certificate, one.Claim, one.Template, one.Client = schemaVersion, clip(name, 256), e.CertificateID, e.ClaimID, e.Template, clip(e.ClientID, 256)
	one.Reason, one.Last, one.Known = reason, at, known
	one.Count++
	if one.Count > 1 {
		return nil
	}
	one.First = at
	r.count.Attempts++
	r.count.Kept++
	f.told.attempts++
	f.s.o.Logger.WarnContext(ctx, "device that nobody made was refused", slog.String("account", string(account)),
		slog.String("client_id", one.Client), slog.String("certificate", e.CertificateID), slog.String("claim", e.ClaimID), slog.String("reason", reason))
	f.emit(event.RogueDevice{Device: one.Device, CertificateID: e.CertificateID, ClaimID: e.ClaimID, Template: e.Template, Attempt: true, Reason: reason})
	return nil
}

// emit tells an event that follows from the present one.
func (f *follower) emit(e event.Event) {
	f.events = append(f.events, event.Envelope{Account: f.env.Account, At: f.s.o.Now(), Actor: fleet.System, Event: e})
}

// clip bounds what a device calls itself.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && text[most]&0xc0 == 0x80 {
		most--
	}
	return text[:most]
}

// write adds an account's rogues to a batch, and makes room.
func (r *rogues) write(ctx context.Context, out *store.Batch) error {
	if !r.changed {
		return nil
	}
	if r.count.Kept > maxAttempts {
		if err := r.evict(ctx, out); err != nil {
			return err
		}
	}
	r.count.Schema = schemaVersion
	out.Expect = append(out.Expect, store.Expect{Key: roguesKey(r.account), Version: r.version})
	if err := put(out, roguesKey(r.account), r.count); err != nil {
		return err
	}
	for i := range r.joined {
		one := &r.joined[i]
		if err := put(out, store.K(kindRogue, string(r.account), falling(one.First), one.Device), one); err != nil {
			return err
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(r.attempts)) {
		if err := put(out, store.K(kindAttempt, string(r.account), subject), &r.attempts[subject].rogueRecord); err != nil {
			return err
		}
	}
	return nil
}

// evict forgets the attempts that are longest over.
func (r *rogues) evict(ctx context.Context, out *store.Batch) error {
	stored, err := r.s.storedAttempts(ctx, r.account)
	if err != nil {
		return err
	}
	for _, one := range slices.Backward(stored) {
		if r.count.Kept <= maxAttempts-evicted {
			break
		}
		if r.attempts[one.subject] == nil {
			out.Writes = append(out.Writes, store.Write{Key: store.K(kindAttempt, string(r.account), one.subject), Delete: true})
			r.count.Kept--
		}
	}
	return nil
}

// storedAttempt is an attempt with its place.
type storedAttempt struct {
	rogueRecord

	subject string
}

// token is where a list goes on behind it.
func (a *storedAttempt) token() string { return string(store.K(falling(a.Last), a.subject)) }

// storedAttempts are those of an account, the newest first.
func (s *Service) storedAttempts(ctx context.Context, account fleet.Account) ([]storedAttempt, error) {
	var all []storedAttempt
	err := s.o.Store.Scan(ctx, store.Under(kindAttempt, string(account)), func(row store.Record) error {
		one := storedAttempt{subject: row.Key.Last()}
		if err := decode(row, &one.rogueRecord, &one.Schema); err != nil {
			return err
		}
		all = append(all, one)
		return nil
	})
	slices.SortFunc(all, func(a, b storedAttempt) int { return cmp.Compare(a.token(), b.token()) })
	return all, store.Fault(err)
}

// RogueCounts counts the devices of an account that nobody made.
type RogueCounts struct {
	// Devices have joined. Attempts were refused, Refusals is how often.
	Devices, Attempts, Refusals int64
}

// Rogues returns a page of an account's rogues of a kind, the newest first, what the
// next page begins after, and how many there were in all.
func (s *Service) Rogues(ctx context.Context, account fleet.Account, kind RogueKind, after string, limit int) (page []Rogue, next string, counts RogueCounts, err error) {
	if limit < 1 || limit > maxRoguePage {
		return nil, "", counts, fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", limit, maxRoguePage)
	}
	if err := s.catchUp(ctx); err != nil {
		return nil, "", counts, err
	}
	r, err := s.open().roguesOf(ctx, account)
	if err != nil {
		return nil, "", counts, err
	}
	counts = RogueCounts{Devices: r.count.Devices, Attempts: r.count.Attempts, Refusals: r.count.Refusals}
	page = []Rogue{}
	switch kind {
	case RogueJoined:
		within := store.Under(kindRogue, string(account))
		if after != "" {
			within = within.After(store.K(kindRogue, string(account), after))
		}
		last := store.Key("")
		err = s.o.Store.Scan(ctx, within, func(row store.Record) error {
			if len(page) == limit {
				parts := last.Parts()
				next = string(store.K(parts[2:]...))
				return store.Stop
			}
			var one rogueRecord
			if err := decode(row, &one, &one.Schema); err != nil {
				return err
			}
			last = row.Key
			page = append(page, one.public(RogueJoined))
			return nil
		})
		return page, next, counts, store.Fault(err)
	case RogueAttempt:
		all, err := s.storedAttempts(ctx, account)
		for i := range all {
			if all[i].token() <= after {
				continue
			}
			if len(page) == limit {
				next = all[i-1].token()
				break
			}
			page = append(page, all[i].public(RogueAttempt))
		}
		return page, next, counts, err
	}
	return nil, "", counts, fault.New(fault.InvalidRequest, "kind: must be %s or %s", RogueJoined, RogueAttempt)
}
