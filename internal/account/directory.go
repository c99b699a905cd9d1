package account

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// DirectoryOptions of NewDirectory.
type DirectoryOptions struct {
	// Default is the account of connections that name no other one.
	Default            fleet.Account
	Region, BaseDomain string
	// Common are the names by which this server is reached beside those that are
	// derived from an account. They mean the default account to whoever proves no
	// account by itself.
	Common []string
}

// Directory knows which accounts there are, which of them are closed, and which
// host name means which account. It is a projection in memory: Load brings it to
// a moment of the store, Apply follows the log from there. It is safe for
// concurrent use.
type Directory struct {
	options DirectoryOptions
	common  map[string]struct{}

	mu sync.RWMutex
	// owners are the derived names, in lower case.
	owners map[string]fleet.Account
	closed map[fleet.Account]struct{}
}

// NewDirectory returns a directory that knows the default account only.
func NewDirectory(o DirectoryOptions) *Directory {
	d := &Directory{options: o, common: make(map[string]struct{}, len(o.Common))}
	for _, name := range o.Common {
		d.common[canonical(name)] = struct{}{}
	}
	d.reset()
	return d
}

// canonical is a host name as it is compared.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// reset forgets everything but the default account.
func (d *Directory) reset() {
	d.owners, d.closed = map[string]fleet.Account{}, map[fleet.Account]struct{}{}
	d.set(d.options.Default, StatusActive)
}

// set notes the state of an account; the caller holds the lock.
func (d *Directory) set(of fleet.Account, status string) {
	e := EndpointsOf(of, d.options.Region, d.options.BaseDomain)
	for _, name := range []string{e.Data, e.Jobs, e.Credentials} {
		d.owners[canonical(name)] = of
	}
	if status == StatusClosed {
		d.closed[of] = struct{}{}
	} else {
		delete(d.closed, of)
	}
}

// Load takes all accounts from the store.
func (d *Directory) Load(ctx context.Context, r store.Reader) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reset()
	return eachAccount(ctx, r, func(of fleet.Account, stored *accountRecord) error {
		d.set(of, stored.status())
		return nil
	})
}

// Apply takes committed events in order and returns the accounts that they have
// closed.
func (d *Directory) Apply(events []event.Envelope) (closed []fleet.Account) {
	for i := range events {
		changed, ok := events[i].Event.(event.AccountChanged)
		if !ok {
			continue
		}
		d.mu.Lock()
		d.set(events[i].Account, changed.Status)
		d.mu.Unlock()
		if changed.Status == StatusClosed {
			closed = append(closed, events[i].Account)
		}
	}
	return closed
}

// Of returns the account that a host name means: its own one for a name that is
// derived from an account, the default one for any other. named is false for a
// name that is none of this server's.
func (d *Directory) Of(name string) (of fleet.Account, named bool) {
	name = canonical(name)
	if of, ok := d.Owner(name); ok {
		return of, true
	}
	_, named = d.common[name]
	return d.options.Default, named
}

// Owner returns the account whose own name this is; false for names that say
// nothing about the account.
func (d *Directory) Owner(name string) (of fleet.Account, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	of, ok = d.owners[canonical(name)]
	return of, ok
}

// Closed reports whether an account was closed.
func (d *Directory) Closed(of fleet.Account) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, closed := d.closed[of]
	return closed
}

// AllOpen returns the accounts that are not closed now, in the order of their numbers.
func (d *Directory) AllOpen() []fleet.Account {
	d.mu.RLock()
	defer d.mu.RUnlock()
	open := make(map[fleet.Account]struct{}, len(d.owners))
	for _, of := range d.owners { // each has several names
		if _, closed := d.closed[of]; !closed {
			open[of] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(open))
}

// AllClosed returns the accounts that are closed now.
func (d *Directory) AllClosed() []fleet.Account {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]fleet.Account, 0, len(d.closed))
	for of := range d.closed {
		all = append(all, of)
	}
	return all
}

// eachAccount reads the records of all accounts in the order of their numbers.
func eachAccount(ctx context.Context, r store.Reader, fn func(of fleet.Account, stored *accountRecord) error) error {
	err := r.Scan(ctx, store.Under(keyAccount), func(record store.Record) error {
		var stored accountRecord
		if err := decode(record.Value, &stored, &stored.Schema); err != nil {
			return fmt.Errorf("%s: %w", record.Key, err)
		}
		return fn(fleet.Account(record.Key.Last()), &stored)
	})
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	return nil
}

// encode writes a record in the present schema.
func (r *accountRecord) encode() ([]byte, error) {
	r.Schema = schema
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode account: %w", err)
	}
	return value, nil
}
