package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// MaxPage is the most entries that a page may hold.
	MaxPage = 250
	// catchUpPatience bounds how long an answer waits for the follower.
	catchUpPatience = 10 * time.Second
)

// catchUp lets an answer hold what happened before it was asked for.
func (s *Service) catchUp(ctx context.Context) error {
	if s.o.CatchUp == nil {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, catchUpPatience)
	defer cancel()
	if err := s.o.CatchUp(within); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the caller's own end
		}
		return fault.Wrap(fault.Unavailable, err, "The ledger is behind the event log; try again")
	}
	return nil
}

// Head is where an account's ledger ends. Kept elsewhere, it shows later that nothing
// up to there was changed or removed.
type Head struct {
	Account fleet.Account `json:"account"`
	Entries uint64        `json:"entries"`
	Hash    string        `json:"hash"`
	// At is when it was read or told, RFC 3339.
	At string `json:"at,omitempty"`
}

// ParseHead reads a head that was kept.
func ParseHead(text []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(text, &h); err != nil || len(h.Hash) != len(genesis) || !h.Account.Valid() {
		return h, fault.New(fault.InvalidRequest, "head: is not what `muster ledger head` prints")
	}
	return h, nil
}

// Head is the end of an account's ledger.
func (s *Service) Head(ctx context.Context, account fleet.Account) (Head, error) {
	if err := s.catchUp(ctx); err != nil {
		return Head{}, err
	}
	end, _, err := readEnd(ctx, s.o.Store, headKey(account))
	return Head{Account: account, Entries: end.Number, Hash: end.Hash, At: s.o.Now().UTC().Format(time.RFC3339)}, err
}

// readEnd reads the end of a chain; it does not check the seal. version is 0 for
// none.
func readEnd(ctx context.Context, r store.Reader, k store.Key) (end endRecord, version uint64, err error) {
	end.Hash = genesis
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return end, 0, nil
	}
	if err != nil {
		return end, 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	return end, found.Version, decode(found, &end, &end.Schema)
}

// Accounts are those that have a ledger.
func (s *Service) Accounts(ctx context.Context) ([]fleet.Account, error) {
	var accounts []fleet.Account
	err := s.o.Store.Scan(ctx, store.Under(kindHead), func(row store.Record) error {
		accounts = append(accounts, fleet.Account(row.Key.Last()))
		return nil
	})
	return accounts, store.Fault(err)
}

// Device is what a device's ledger comes to.
type Device struct {
	Key     string
	Life    int
	Begun   time.Time
	Entries uint64
	Hash    string
	// Thing and Certificate are those of the present life, or of the last one.
	Thing, Certificate string
	// Registered, Activated and Ended are zero for what has not happened in this life.
	Registered, Activated, Ended time.Time
	Suspended, Rogue             bool
	// Basis is the strongest thing that says that somebody has made it, Evidence all.
	Basis    Basis
	Evidence []string
}

// Device finds a device by its key, its thing or a certificate, or by one of them with
// its kind in front, as thing:pump-7.
func (s *Service) Device(ctx context.Context, account fleet.Account, name string) (Device, error) {
	if err := s.catchUp(ctx); err != nil {
		return Device{}, err
	}
	key, err := s.key(ctx, account, name)
	if err != nil {
		return Device{}, err
	}
	found, err := s.o.Store.Get(ctx, place{account, key}.record())
	if err != nil {
		return Device{}, store.Fault(fmt.Errorf("read the ledger of %s: %w", key, err))
	}
	d := device{at: place{account, key}}
	if err := decode(found, &d.deviceRecord, &d.Schema); err != nil {
		return Device{}, err
	}
	out := Device{
		Key: key, Life: d.Life, Begun: moment(d.Begun), Entries: d.Seq, Hash: d.Hash, Thing: d.Thing, Certificate: d.Certificate,
		Registered: moment(d.Registered), Activated: moment(d.Activated), Ended: moment(d.Ended), Suspended: d.Suspended, Rogue: d.Rogue,
	}
	out.Basis, out.Evidence = s.basis(&d)
	return out, nil
}

// key finds the key of a device by a name of it.
func (s *Service) key(ctx context.Context, account fleet.Account, name string) (string, error) {
	if name == "" || len(name) > 512 || strings.ContainsRune(name, 0) {
		return "", fault.New(fault.InvalidRequest, "device: must have 1 to 512 bytes and not contain the character U+0000")
	}
	keys := []store.Key{place{account, name}.record(), aliasKey(account, name), thingKey(account, name), certificateKey(account, name)}
	kind, rest, found := strings.Cut(name, ":")
	if found && kind == labelThing {
		keys = append(keys, thingKey(account, rest))
	}
	if found && kind == labelCert {
		keys = append(keys, certificateKey(account, rest))
	}
	rows, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return "", store.Fault(fmt.Errorf("find the ledger of %s: %w", name, err))
	}
	for i, row := range rows {
		if row.Version == 0 {
			continue
		}
		if i == 0 {
			return name, nil
		}
		n, err := nameOf(keys[i], row)
		if err != nil {
			return "", err
		}
		if n.leads() != "" {
			return n.leads(), nil
		}
	}
	return "", fault.New(fault.ResourceNotFound, "there is no ledger of device %s", clip(name, 128))
}

// Entries returns a page of a device's entries, by its key, the oldest first, from
// behind a sequence; next is 0 at the end.
func (s *Service) Entries(ctx context.Context, account fleet.Account, key string, after uint64, limit int) (page []Entry, next uint64, err error) {
	if limit < 1 || limit > MaxPage {
		return nil, 0, fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", limit, MaxPage)
	}
	page = []Entry{}
	within := store.Under(kindEntry, string(account), key)
	if after > 0 {
		within = within.After(place{account, key}.entry(after))
	}
	err = s.o.Store.Scan(ctx, within, func(row store.Record) error {
		if len(page) == limit {
			next = page[limit-1].Seq
			return store.Stop
		}
		var e Entry
		if err := decode(row, &e, &e.Schema); err != nil {
			return err
		}
		page = append(page, e)
		return nil
	})
	return page, next, store.Fault(err)
}
