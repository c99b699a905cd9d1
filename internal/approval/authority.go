package approval

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Kind is what an authority is.
type Kind string

// Kinds of authorities.
const (
	// UserGroup is people: any member of a user group votes for it.
	UserGroup Kind = "USER_GROUP"
	// Webhook is a function of function.target that is asked while the device waits.
	Webhook Kind = "WEBHOOK"
	// AllowList is the accepted lists of a supplier, or of all: it says yes to a device
	// that is on one and has not joined yet, and the device's entry is used up by joining.
	AllowList Kind = "ALLOW_LIST"
	// SupplierLists is AllowList for one supplier, which must be named.
	SupplierLists Kind = "SUPPLIER"
)

// isList reports whether lists are looked up.
func (k Kind) isList() bool { return k == AllowList || k == SupplierLists }

// Authority can say yes to a device.
type Authority struct {
	ID   string
	Kind Kind
	// Group is of a UserGroup, Function of a Webhook.
	Group, Function string
	// Supplier is the only one whose lists count. SerialParameter and ModelParameter are
	// which of a device's parameters are its serial number and model; of an empty one
	// the usual names are tried, or no model counts. All are of lists.
	Supplier, SerialParameter, ModelParameter string
	Created, Modified                         time.Time
}

// namePattern is the rule for names of authorities.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// PutAuthority makes an authority, or changes what it is.
func (s *Service) PutAuthority(ctx context.Context, account fleet.Account, want Authority) (Authority, error) {
	if !namePattern.MatchString(want.ID) {
		return Authority{}, fault.New(fault.InvalidRequest, "authority must have 1 to 64 letters, digits, _ and -")
	}
	if !want.Kind.isList() && (want.Supplier != "" || want.SerialParameter != "" || want.ModelParameter != "") {
		return Authority{}, fault.New(fault.InvalidRequest, "supplier, serialParameter and modelParameter are for the kinds %s and %s", AllowList, SupplierLists)
	}
	switch want.Kind {
	case AllowList, SupplierLists:
		if err := s.checkList(ctx, account, &want); err != nil {
			return Authority{}, err
		}
	case UserGroup:
		if want.Function != "" {
			return Authority{}, fault.New(fault.InvalidRequest, "function is for authorities of kind %s", Webhook)
		}
		has, err := s.o.People.HasGroup(ctx, account, want.Group)
		if err != nil {
			return Authority{}, err //nolint:wrapcheck // coded
		}
		if !has {
			return Authority{}, fault.New(fault.InvalidRequest, "group: there is no user group %q", want.Group)
		}
	case Webhook:
		if want.Group != "" {
			return Authority{}, fault.New(fault.InvalidRequest, "group is for authorities of kind %s", UserGroup)
		}
		if !s.o.Functions.Has(want.Function) {
			return Authority{}, fault.New(fault.InvalidRequest, "function: function.target has no function %q", want.Function)
		}
	default:
		return Authority{}, fault.New(fault.InvalidRequest, "kind must be %s, %s, %s or %s", UserGroup, Webhook, AllowList, SupplierLists)
	}
	var out Authority
	err := s.change(ctx, account, func(b *batch) error {
		var r authorityRecord
		found, err := b.load(ctx, authorityKey(account, want.ID), &r)
		if err != nil {
			return err
		}
		now := s.o.Now().UnixMilli()
		change := event.ApprovalUpdated
		if !found {
			r.Created, change = now, event.ApprovalCreated
		}
		r.Schema, r.Kind, r.Group, r.Function, r.Modified = schemaVersion, want.Kind, want.Group, want.Function, now
		r.Supplier, r.Serial, r.Model = want.Supplier, want.SerialParameter, want.ModelParameter
		b.emit(event.ApprovalAuthorityChanged{Authority: want.ID, Change: change})
		out = authorityOf(want.ID, &r)
		return b.put(authorityKey(account, want.ID), r)
	})
	return out, err
}

func authorityOf(id string, r *authorityRecord) Authority {
	return Authority{
		ID: id, Kind: r.Kind, Group: r.Group, Function: r.Function, Supplier: r.Supplier, SerialParameter: r.Serial, ModelParameter: r.Model,
		Created: moment(r.Created), Modified: moment(r.Modified),
	}
}

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// Authority returns one.
func (s *Service) Authority(ctx context.Context, account fleet.Account, id string) (Authority, error) {
	var r authorityRecord
	version, err := read(ctx, s.o.Store, authorityKey(account, id), &r)
	if err == nil && version == 0 {
		err = fault.New(fault.ResourceNotFound, "authority %.64q does not exist", id)
	}
	return authorityOf(id, &r), err
}

// maxPage is the most that one page of a list holds.
const maxPage = 250

// Authorities returns a page in the order of ids, and what the next one begins after.
func (s *Service) Authorities(ctx context.Context, account fleet.Account, after string, limit int) (page []Authority, next string, err error) {
	page = []Authority{}
	next, err = s.list(ctx, store.Under(kindAuthority, string(account)), after, limit, func(found store.Record) (bool, error) {
		var r authorityRecord
		if err := decode(found, &r); err != nil {
			return false, err
		}
		page = append(page, authorityOf(found.Key.Last(), &r))
		return true, nil
	})
	return page, next, err
}

// DeleteAuthority removes one that no binding asks.
func (s *Service) DeleteAuthority(ctx context.Context, account fleet.Account, id string) error {
	return s.change(ctx, account, func(b *batch) error {
		var r authorityRecord
		found, err := b.load(ctx, authorityKey(account, id), &r)
		if err != nil {
			return err
		}
		if !found {
			return fault.New(fault.ResourceNotFound, "authority %.64q does not exist", id)
		}
		var users []string
		err = s.o.Store.Scan(ctx, store.Under(kindBinding, string(account)), func(record store.Record) error {
			var binding bindingRecord
			if err := decode(record, &binding); err != nil {
				return err
			}
			if slices.Contains(binding.Asked, id) {
				users = append(users, record.Key.Last())
			}
			return nil
		})
		if err != nil {
			return store.Fault(err)
		}
		if len(users) > 0 {
			return fault.New(fault.DeleteConflict, "authority %s is asked by the bindings of %s", id, strings.Join(users, ", "))
		}
		b.emit(event.ApprovalAuthorityChanged{Authority: id, Change: event.ApprovalDeleted})
		b.remove(authorityKey(account, id))
		return nil
	})
}

// list walks a range behind a key until so many were taken, and returns the key that
// the next page begins after, empty on the last one.
func (s *Service) list(ctx context.Context, within store.Range, after string, limit int, take func(store.Record) (bool, error)) (next string, err error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	if after != "" {
		within = within.After(store.Key(after))
	}
	taken, last := 0, ""
	err = s.o.Store.Scan(ctx, within, func(found store.Record) error {
		if taken == limit {
			next = last
			return store.Stop
		}
		counts, err := take(found)
		if counts {
			taken++
			last = string(found.Key)
		}
		return err
	})
	return next, store.Fault(err)
}
