package registry

import (
	"context"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// shownThings bounds the things that are named beside an expiring certificate.
const shownThings = 10

// Expiring is a certificate or an authority whose validity ends.
type Expiring struct {
	ID  string
	ARN string
	// Authority is true for a CA certificate.
	Authority bool
	Status    string
	NotAfter  time.Time
	Owner     fleet.Account
	// Things are the first that the certificate is attached to, ThingCount is
	// all of them.
	Things     []string
	ThingCount int
}

// ListExpiring returns one page of what is or will be out of validity at a
// moment: authorities first, since devices hang on them, then certificates,
// each in order of their end. Those that have ended already are among them.
func (s *Service) ListExpiring(ctx context.Context, account fleet.Account, until time.Time, p Page) (Listed[Expiring], error) {
	var listed Listed[Expiring]
	if !strings.HasPrefix(p.After, kindCertificateExpiry+"\x00") {
		var err error
		if listed, err = s.expiringAuthorities(ctx, account, until, p); err != nil || listed.Next != "" {
			return listed, store.Fault(err)
		}
		p.After = ""
		if len(listed.Items) == p.size() {
			// The page is full; the next begins with the certificates.
			listed.Next = string(key(kindCertificateExpiry, account))
			return listed, nil
		}
	}
	p.Limit = p.size() - len(listed.Items)
	rest, err := s.expiringCertificates(ctx, account, until, p)
	if err != nil {
		return listed, store.Fault(err)
	}
	return Listed[Expiring]{Items: append(listed.Items, rest.Items...), Next: rest.Next}, nil
}

// upTo is the part of the rows of a kind that ends at a moment, which belongs
// to it.
func upTo(kind string, account fleet.Account, until time.Time) store.Range {
	within := under(kind, account)
	within.To = key(kind, account, rising(until)) + "\x01"
	return within
}

// expiringAuthorities is ListExpiring for authorities only.
func (s *Service) expiringAuthorities(ctx context.Context, account fleet.Account, until time.Time, p Page) (Listed[Expiring], error) {
	recordOf := func(k store.Key) store.Key { return key(kindCACertificate, account, k.Last()) }
	return listRecords[caRecord](ctx, s.store, upTo(kindCACertificateExpiry, account, until), p, recordOf,
		func(k store.Key, r *caRecord) (Expiring, bool) {
			return Expiring{
				ID: k.Last(), ARN: s.scope(account).ARN(fleet.ARNCACert, k.Last()), Authority: true,
				Status: r.Status, NotAfter: moment(r.NotAfter), Owner: account,
			}, true
		})
}

// expiringCertificates is ListExpiring for certificates only.
func (s *Service) expiringCertificates(ctx context.Context, account fleet.Account, until time.Time, p Page) (Listed[Expiring], error) {
	recordOf := func(k store.Key) store.Key { return key(kindCertificate, account, k.Last()) }
	listed, err := listRecords[certificateRecord](ctx, s.store, upTo(kindCertificateExpiry, account, until), p, recordOf,
		func(k store.Key, r *certificateRecord) (Expiring, bool) {
			return Expiring{
				ID: k.Last(), ARN: s.scope(account).ARN(fleet.ARNCertificate, k.Last()),
				Status: r.Status, NotAfter: moment(r.NotAfter), Owner: owner(account, r), ThingCount: r.Things,
			}, true
		})
	if err != nil {
		return listed, err
	}
	for i := range listed.Items {
		e := &listed.Items[i]
		if e.ThingCount == 0 {
			continue
		}
		of := reference{kind: fleet.ARNCertificate, name: e.ID}
		rows, _, err := keysOf(ctx, s.store, under(kindPrincipalThing, account, of.ref()), "", shownThings)
		if err != nil {
			return listed, err
		}
		for _, row := range rows {
			e.Things = append(e.Things, row.Last())
		}
	}
	return listed, nil
}
