package account

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/mail"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// States of an account. The keys and devices of a closed one are refused; what
// it owns is kept.
const (
	StatusActive = "ACTIVE"
	StatusClosed = "CLOSED"
)

const (
	// maxAccountName and maxAccountEmail are in characters, as AWS has them.
	maxAccountName  = 50
	maxAccountEmail = 64
	// changeAttempts is how often a change is tried against concurrent ones.
	changeAttempts = 32
	// lowestID is the first number that is drawn: those below are for people.
	lowestID, highestID = 100_000_000_000, 999_999_999_999
	// applyPatience bounds how long a durable change waits for the directory.
	applyPatience = 5 * time.Second
	// maxAccountsPage bounds a page of accounts.
	maxAccountsPage = 250
)

// Account is one customer, plant or stage with everything it owns.
type Account struct {
	ID          fleet.Account
	Name, Email string
	Status      string
	// Default marks the account of connections that name no other one, which
	// alone may manage accounts.
	Default   bool
	Endpoints Endpoints
	Created   time.Time
	// Modified is zero for an account that was never changed.
	Modified time.Time
}

// NewAccount is what CreateAccount makes.
type NewAccount struct {
	// ID is drawn when it is empty.
	ID fleet.Account
	// Email is optional.
	Name, Email string
}

// status is the state; records from before there were others have none.
func (r *accountRecord) status() string {
	if r.Status == "" {
		return StatusActive
	}
	return r.Status
}

// public is the form of a record that callers see.
func (s *Service) public(id fleet.Account, r *accountRecord) Account {
	a := Account{
		ID: id, Name: r.Name, Email: r.Email, Status: r.status(), Default: id == s.options.Default,
		Created: r.CreatedAt, Modified: r.ModifiedAt,
	}
	if s.options.Endpoints != nil {
		a.Endpoints = s.options.Endpoints(id)
	}
	return a
}

// MayManageInstallation refuses what concerns the whole installation to callers
// of any account but the default one. What they may do in their own account is
// for Authorize.
func (s *Service) MayManageInstallation(by fleet.Account, action string) error {
	if by == s.options.Default {
		return nil
	}
	return fault.New(fault.Forbidden, "%s concerns the whole installation: only the default account may ask for it, not account %s", action, by)
}

// check refuses what cannot describe an account.
func (n *NewAccount) check() error {
	if n.ID != "" && !n.ID.Valid() {
		return fault.New(fault.InvalidRequest, "id must be twelve digits")
	}
	if strings.TrimSpace(n.Name) != n.Name || n.Name == "" || !utf8.ValidString(n.Name) || utf8.RuneCountInString(n.Name) > maxAccountName ||
		strings.ContainsFunc(n.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault.New(fault.InvalidRequest, "name must have 1 to %d printable characters and no space around them", maxAccountName)
	}
	if n.Email == "" {
		return nil
	}
	if parsed, err := mail.ParseAddress(n.Email); err != nil || parsed.Address != n.Email || utf8.RuneCountInString(n.Email) > maxAccountEmail {
		return fault.New(fault.InvalidRequest, "email must be an address such as ops@plant.example of at most %d characters", maxAccountEmail)
	}
	return nil
}

// CreateAccount makes an account with its root access key, whose secret cannot
// be asked for again. by is the caller's account. When it returns, this node
// serves the account's endpoint names, unless it is stopping.
func (s *Service) CreateAccount(ctx context.Context, by fleet.Account, in NewAccount) (Account, AccessKey, error) {
	if err := s.MayManageInstallation(by, "creating an account"); err != nil {
		return Account{}, AccessKey{}, err
	}
	if err := in.check(); err != nil {
		return Account{}, AccessKey{}, err
	}
	for range changeAttempts {
		id := in.ID
		if id == "" {
			drawn, err := drawID()
			if err != nil {
				return Account{}, AccessKey{}, err
			}
			id = drawn
		}
		record := &accountRecord{Name: in.Name, Email: in.Email, Status: StatusActive}
		batch, key, err := s.newRoot(ctx, id, record)
		if err != nil {
			return Account{}, AccessKey{}, err
		}
		position, err := s.options.Store.Commit(ctx, batch)
		switch {
		case err == nil:
			// The secret is told now or never: what is durable is answered.
			_ = s.awaitApplied(ctx, position)
			return s.public(id, record), key, nil
		case !errors.Is(err, store.ErrConflict):
			return Account{}, AccessKey{}, store.Fault(fmt.Errorf("create account %s: %w", id, err))
		case in.ID != "":
			taken := fault.New(fault.ResourceAlreadyExists, "account %s exists already", id)
			taken.ResourceID = string(id)
			return Account{}, AccessKey{}, taken
		}
	}
	return Account{}, AccessKey{}, fault.New(fault.Throttling, "Too many accounts are created at once; try again")
}

// drawID draws twelve digits of which the first is not 0.
func drawID() (fleet.Account, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(highestID-lowestID+1))
	if err != nil {
		return "", fmt.Errorf("draw account number: %w", err)
	}
	return fleet.Account(strconv.FormatInt(lowestID+n.Int64(), 10)), nil
}

// awaitApplied waits until this node's directory has a change. The change is
// durable already: only the caller's own end is an error.
func (s *Service) awaitApplied(ctx context.Context, position store.Position) error {
	if s.options.Applied == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyPatience)
	defer cancel()
	if err := s.options.Applied(ctx, position); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The account is changed, but this server has not taken it over yet")
	}
	return nil
}

// load reads the record of an account.
func (s *Service) load(ctx context.Context, id fleet.Account) (*accountRecord, uint64, error) {
	unknown := fault.New(fault.ResourceNotFound, "there is no such account")
	if !id.Valid() {
		return nil, 0, fault.New(fault.InvalidRequest, "an account is twelve digits")
	}
	found, err := s.options.Store.Get(ctx, store.K(keyAccount, string(id)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, unknown
	}
	if err != nil {
		return nil, 0, store.Fault(fmt.Errorf("read account %s: %w", id, err))
	}
	var stored accountRecord
	if err := decode(found.Value, &stored, &stored.Schema); err != nil {
		return nil, 0, fmt.Errorf("read account %s: %w", id, err)
	}
	return &stored, found.Version, nil
}

// DescribeAccount shows an account. Callers of another than the default account
// see their own alone: any other one does not exist for them.
func (s *Service) DescribeAccount(ctx context.Context, by, id fleet.Account) (Account, error) {
	if by != s.options.Default && by != id && id.Valid() {
		return Account{}, fault.New(fault.ResourceNotFound, "there is no such account")
	}
	stored, _, err := s.load(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return s.public(id, stored), nil
}

// AccountExists reports whether there is an open account of a number, for what
// one account hands to another.
func (s *Service) AccountExists(ctx context.Context, id fleet.Account) (bool, error) {
	if !id.Valid() {
		return false, nil
	}
	stored, _, err := s.load(ctx, id)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return stored.status() == StatusActive, nil
}

// AccountPage is one page of accounts by number. Next goes into the after of
// the next call; it is empty on the last page.
type AccountPage struct {
	Accounts []Account
	Next     string
}

// ListAccounts shows all accounts to callers of the default one, and to others
// their own.
func (s *Service) ListAccounts(ctx context.Context, by fleet.Account, after string, limit int) (AccountPage, error) {
	if limit < 1 || limit > maxAccountsPage {
		return AccountPage{}, fault.New(fault.InvalidRequest, "maxResults must be between 1 and %d", maxAccountsPage)
	}
	if by != s.options.Default {
		own, err := s.DescribeAccount(ctx, by, by)
		return AccountPage{Accounts: []Account{own}}, err
	}
	within := store.Under(keyAccount)
	if after != "" {
		within = within.After(store.K(keyAccount, after))
	}
	page := AccountPage{Accounts: []Account{}}
	err := s.options.Store.Scan(ctx, within, func(record store.Record) error {
		if len(page.Accounts) == limit {
			page.Next = string(page.Accounts[limit-1].ID)
			return store.Stop
		}
		var stored accountRecord
		if err := decode(record.Value, &stored, &stored.Schema); err != nil {
			return fmt.Errorf("%s: %w", record.Key, err)
		}
		page.Accounts = append(page.Accounts, s.public(fleet.Account(record.Key.Last()), &stored))
		return nil
	})
	if err != nil {
		return AccountPage{}, store.Fault(fmt.Errorf("list accounts: %w", err))
	}
	return page, nil
}

// AllAccounts are the numbers of all accounts, closed or not.
func (s *Service) AllAccounts(ctx context.Context) ([]fleet.Account, error) {
	var all []fleet.Account
	err := eachAccount(ctx, s.options.Store, func(of fleet.Account, _ *accountRecord) error {
		all = append(all, of)
		return nil
	})
	return all, err
}

// CloseAccount has the account's keys and devices refused from now on: whoever
// lets callers in asks the Directory. What the account owns is kept.
// Closing a closed account changes nothing.
func (s *Service) CloseAccount(ctx context.Context, by, id fleet.Account) (Account, error) {
	if err := s.MayManageInstallation(by, "closing an account"); err != nil {
		return Account{}, err
	}
	if id == s.options.Default {
		return Account{}, fault.New(fault.InvalidRequest, "the default account cannot be closed: it manages the others")
	}
	return s.setStatus(ctx, id, StatusClosed)
}

// ReopenAccount lets keys and devices of a closed account in again.
func (s *Service) ReopenAccount(ctx context.Context, by, id fleet.Account) (Account, error) {
	if err := s.MayManageInstallation(by, "reopening an account"); err != nil {
		return Account{}, err
	}
	return s.setStatus(ctx, id, StatusActive)
}

// setStatus changes the state of an account.
func (s *Service) setStatus(ctx context.Context, id fleet.Account, status string) (Account, error) {
	for range changeAttempts {
		stored, version, err := s.load(ctx, id)
		if err != nil {
			return Account{}, err
		}
		if stored.status() == status {
			return s.public(id, stored), nil
		}
		now := s.options.Now().UTC()
		stored.Status, stored.ModifiedAt = status, now
		value, err := stored.encode()
		if err != nil {
			return Account{}, err
		}
		key := store.K(keyAccount, string(id))
		position, err := s.options.Store.Commit(ctx, store.Batch{
			Expect: []store.Expect{{Key: key, Version: version}},
			Writes: []store.Write{{Key: key, Value: value}},
			Events: []event.Envelope{{
				Account: id, At: now, Actor: fleet.ActorFrom(ctx), Event: event.AccountChanged{Name: stored.Name, Status: status},
			}},
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return Account{}, store.Fault(fmt.Errorf("change account %s: %w", id, err))
		}
		return s.public(id, stored), s.awaitApplied(ctx, position)
	}
	return Account{}, fault.New(fault.Throttling, "Too many concurrent changes of the account; try again")
}
