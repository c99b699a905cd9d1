package allowlist

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

// SupplierStatus is whether a supplier's lists count.
type SupplierStatus string

// Statuses of a supplier.
const (
	Active SupplierStatus = "ACTIVE"
	// Suspended lets no device of the supplier join, and takes no list of it.
	Suspended SupplierStatus = "SUSPENDED"
)

// Supplier makes devices and says which.
type Supplier struct {
	ID, Name string
	Status   SupplierStatus
	// Templates are the only provisioning templates by which its devices may join;
	// empty for any.
	Templates []string
	// AcceptUnsigned allows people to accept lists that nobody has signed.
	AcceptUnsigned bool
	// AcceptSigned accepts a list with a good signature at once, without a person.
	AcceptSigned bool
	// Keys are never nil.
	Keys              []SigningKey
	Created, Modified time.Time
}

// SigningKey is a public key with which a supplier signs lists, for lists uploaded
// from From to Until; Until is zero for no end.
type SigningKey struct {
	ID        string
	Algorithm Algorithm
	// PublicKey is a PEM block PUBLIC KEY.
	PublicKey   string
	From, Until time.Time
}

const (
	// maxKeys and maxTemplates bound a supplier's record, maxName its name in characters.
	maxKeys      = 16
	maxTemplates = 100
	maxName      = 256
)

var templatePattern = regexp.MustCompile(`^[0-9A-Za-z_-]{1,36}$`)

// PutSupplier makes a supplier, or changes what it is; its keys stay as they are.
func (s *Service) PutSupplier(ctx context.Context, account fleet.Account, want Supplier) (Supplier, error) {
	if want.Status == "" {
		want.Status = Active
	}
	switch {
	case !namePattern.MatchString(want.ID):
		return Supplier{}, fault.New(fault.InvalidRequest, "supplier must have 1 to 64 letters, digits, _, . and -")
	case len(want.Name) > maxName:
		return Supplier{}, fault.New(fault.InvalidRequest, "name must have at most %d characters", maxName)
	case want.Status != Active && want.Status != Suspended:
		return Supplier{}, fault.New(fault.InvalidRequest, "status must be %s or %s", Active, Suspended)
	case len(want.Templates) > maxTemplates:
		return Supplier{}, fault.New(fault.InvalidRequest, "templates must have at most %d entries", maxTemplates)
	}
	for i, name := range want.Templates {
		if !templatePattern.MatchString(name) || slices.Contains(want.Templates[:i], name) {
			return Supplier{}, fault.New(fault.InvalidRequest, "templates: %.64q is no name of a template, or comes twice", name)
		}
	}
	var out Supplier
	err := s.change(ctx, account, func(b *batch) error {
		var r supplierRecord
		found, err := b.load(ctx, supplierKey(account, want.ID), &r)
		if err != nil {
			return err
		}
		now, change := s.o.Now().UnixMilli(), event.SupplierUpdated
		if !found {
			r.Created, change = now, event.SupplierCreated
		}
		r.Schema, r.Name, r.Status, r.Templates, r.Modified = schemaVersion, want.Name, want.Status, want.Templates, now
		r.AcceptUnsigned, r.AcceptSigned = want.AcceptUnsigned, want.AcceptSigned
		b.emit(ctx, event.SupplierChanged{Supplier: want.ID, Change: change, Status: string(r.Status)})
		out = supplierOf(want.ID, &r)
		return b.put(supplierKey(account, want.ID), r)
	})
	return out, err
}

func supplierOf(id string, r *supplierRecord) Supplier {
	out := Supplier{
		ID: id, Name: r.Name, Status: r.Status, Templates: r.Templates, AcceptUnsigned: r.AcceptUnsigned, AcceptSigned: r.AcceptSigned,
		Keys: make([]SigningKey, len(r.Keys)), Created: moment(r.Created), Modified: moment(r.Modified),
	}
	for i, k := range r.Keys {
		out.Keys[i] = SigningKey{ID: k.ID, Algorithm: k.Algorithm, PublicKey: k.PublicKey, From: moment(k.From), Until: moment(k.Until)}
	}
	return out
}

// Supplier returns one.
func (s *Service) Supplier(ctx context.Context, account fleet.Account, id string) (Supplier, error) {
	var r supplierRecord
	version, err := read(ctx, s.o.Store, supplierKey(account, id), &r)
	if err == nil && version == 0 {
		err = noSupplier(id)
	}
	return supplierOf(id, &r), err
}

// Suppliers returns a page in the order of ids, and what the next one begins after.
func (s *Service) Suppliers(ctx context.Context, account fleet.Account, after string, limit int) (page []Supplier, next string, err error) {
	page = []Supplier{}
	next, err = s.page(ctx, []string{kindSupplier, string(account)}, after, limit, func(found store.Record) error {
		var r supplierRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		page = append(page, supplierOf(found.Key.Last(), &r))
		return nil
	})
	return page, next, err
}

// DeleteSupplier removes one that has no lists.
func (s *Service) DeleteSupplier(ctx context.Context, account fleet.Account, id string) error {
	return s.change(ctx, account, func(b *batch) error {
		if _, err := b.supplier(ctx, id); err != nil {
			return err
		}
		var lists []string
		err := s.o.Store.Scan(ctx, store.Under(kindList, string(account)), func(found store.Record) error {
			var r listRecord
			if err := decode(found, &r); err != nil {
				return err
			}
			if r.Supplier == id {
				lists = append(lists, found.Key.Last())
			}
			return nil
		})
		if err != nil {
			return store.Fault(err)
		}
		if len(lists) > 0 {
			return fault.New(fault.DeleteConflict, "supplier %s has allow lists, also deleted ones count: %.200s", id, strings.Join(lists, ", "))
		}
		b.emit(ctx, event.SupplierChanged{Supplier: id, Change: event.SupplierDeleted})
		b.remove(supplierKey(account, id))
		return nil
	})
}

// PutSigningKey gives a supplier a key. A key of the same id may only get another end:
// what it has signed must stay provable.
func (s *Service) PutSigningKey(ctx context.Context, account fleet.Account, supplier string, want SigningKey) (Supplier, error) {
	if !namePattern.MatchString(want.ID) {
		return Supplier{}, fault.New(fault.InvalidRequest, "kid must have 1 to 64 letters, digits, _, . and -")
	}
	_, algorithm, err := parseKey(want.PublicKey)
	if err != nil {
		return Supplier{}, err
	}
	if want.Algorithm != "" && want.Algorithm != algorithm {
		return Supplier{}, fault.New(fault.InvalidRequest, "alg: the key signs %s", algorithm)
	}
	if want.From.IsZero() {
		want.From = s.o.Now()
	}
	var out Supplier
	err = s.change(ctx, account, func(b *batch) error {
		r, err := b.supplier(ctx, supplier)
		if err != nil {
			return err
		}
		wanted := keyOfRecord{ID: want.ID, Algorithm: algorithm, PublicKey: want.PublicKey, From: want.From.UnixMilli(), Until: milliseconds(want.Until)}
		i := slices.IndexFunc(r.Keys, func(k keyOfRecord) bool { return k.ID == want.ID })
		if i >= 0 {
			wanted.From = r.Keys[i].From
		}
		switch {
		case wanted.Until != 0 && wanted.Until <= wanted.From:
			return fault.New(fault.InvalidRequest, "validTo must be after validFrom")
		case i < 0 && len(r.Keys) >= maxKeys:
			return fault.New(fault.LimitExceeded, "a supplier has at most %d keys", maxKeys)
		case i < 0:
			r.Keys = append(r.Keys, wanted)
		case strings.TrimSpace(r.Keys[i].PublicKey) != strings.TrimSpace(want.PublicKey):
			return fault.New(fault.Conflict, "supplier %s has another key with kid %s; a new key gets a new kid", supplier, want.ID)
		default:
			r.Keys[i].Until = wanted.Until
		}
		r.Modified = s.o.Now().UnixMilli()
		b.emit(ctx, event.SupplierChanged{Supplier: supplier, Change: event.SupplierKeyChanged, KeyID: want.ID, Status: string(r.Status)})
		out = supplierOf(supplier, &r)
		return b.put(supplierKey(account, supplier), r)
	})
	return out, err
}

// signer finds the key that has made a signature, and refuses one that is none of the
// supplier's valid keys.
func (r *supplierRecord) signer(w *signed, now time.Time) (kid string, err error) {
	for i := range r.Keys {
		k := &r.Keys[i]
		if w.kid != "" && w.kid != k.ID {
			continue
		}
		public, algorithm, err := parseKey(k.PublicKey)
		if err != nil {
			return "", err
		}
		if w.alg != "" && w.alg != algorithm || !verify(public, w.message, w.signature) {
			continue
		}
		if ms := now.UnixMilli(); ms < k.From || k.Until != 0 && ms >= k.Until {
			return "", fault.New(fault.InvalidRequest, "signature: key %s of the supplier is not valid at this time", k.ID)
		}
		return k.ID, nil
	}
	return "", fault.New(fault.InvalidRequest, "signature: is not that of the list by a key of the supplier; the list was changed, or somebody else has signed it")
}
