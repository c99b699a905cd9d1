package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// AttachedCertificate is what others want to know of a certificate that acts as
// a thing.
type AttachedCertificate struct {
	Status   string
	NotAfter time.Time
}

// attachedBatch is how many attachments are looked at together.
const attachedBatch = 512

// EachAttachedCertificate calls fn for every certificate of every thing of an
// account, or of all for the empty one.
func EachAttachedCertificate(
	ctx context.Context, r store.Reader, of fleet.Account, fn func(account fleet.Account, thing string, c AttachedCertificate) error,
) error {
	rows := make([]store.Key, 0, attachedBatch)
	flush := func() error {
		err := eachAttached(ctx, r, rows, func(row store.Key, c AttachedCertificate) error {
			return fn(fleet.Account(row.Parts()[1]), row.Last(), c)
		})
		rows = rows[:0]
		return err
	}
	within := store.Under(kindPrincipalThing)
	if of != "" {
		within = store.Under(kindPrincipalThing, string(of))
	}
	err := r.Scan(ctx, within, func(record store.Record) error {
		if rows = append(rows, record.Key); len(rows) < attachedBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err //nolint:wrapcheck // the store's own
	}
	return flush()
}

// eachAttached reads the certificates of rows of attachments by principal.
func eachAttached(ctx context.Context, r store.Reader, rows []store.Key, fn func(store.Key, AttachedCertificate) error) error {
	if len(rows) == 0 {
		return nil
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		parts := row.Parts()
		keys[i] = key(kindCertificate, fleet.Account(parts[1]), parseRef(parts[2]).name)
	}
	records, err := r.GetMany(ctx, keys)
	if err != nil {
		return fmt.Errorf("read attached certificates: %w", err)
	}
	for i, record := range records {
		if record.Version == 0 {
			continue
		}
		c, err := decode[certificateRecord](record)
		if err != nil {
			return err
		}
		if err := fn(rows[i], AttachedCertificate{Status: c.Status, NotAfter: moment(c.NotAfter)}); err != nil {
			return err
		}
	}
	return nil
}

// AttachedCertificates returns the certificates of a thing; an unknown thing has
// none.
func (s *Service) AttachedCertificates(ctx context.Context, account fleet.Account, thing string) ([]AttachedCertificate, error) {
	var rows []store.Key
	err := s.store.Scan(ctx, under(kindThingPrincipal, account, thing), func(record store.Record) error {
		if of := parseRef(record.Key.Last()); of.kind == fleet.ARNCertificate {
			rows = append(rows, key(kindPrincipalThing, account, of.ref(), thing))
		}
		return nil
	})
	if err != nil {
		return nil, store.Fault(fmt.Errorf("list the principals of a thing: %w", err))
	}
	var found []AttachedCertificate
	err = eachAttached(ctx, s.store, rows, func(_ store.Key, c AttachedCertificate) error {
		found = append(found, c)
		return nil
	})
	return found, store.Fault(err)
}

// CertificateThings returns all things that a certificate acts as.
func (s *Service) CertificateThings(ctx context.Context, account fleet.Account, id string) ([]string, error) {
	var things []string
	within := under(kindPrincipalThing, account, reference{kind: fleet.ARNCertificate, name: id}.ref())
	err := s.store.Scan(ctx, within, func(record store.Record) error {
		things = append(things, record.Key.Last())
		return nil
	})
	if err != nil {
		return nil, store.Fault(fmt.Errorf("list the things of a certificate: %w", err))
	}
	return things, nil
}
