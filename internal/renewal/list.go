package renewal

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// maxListed bounds a page of a list.
const maxListed = 1000

// Renewal is a thing's way from one certificate to the next.
type Renewal struct {
	Thing            string
	OldCertificateID string
	NewCertificateID string
	Step             event.CertificateRenewal
	Begun            time.Time
	// Changed is when it took its step.
	Changed time.Time
	// Due is when the next step is taken without anybody's doing: a BEGUN one is
	// UNPROVEN, a PROVEN one is COMPLETED; zero for none. Ended ones have none.
	Due time.Time
	// Proof is the connection with the new certificate, zero before PROVEN.
	Proof Seen
	// Reason says what became of the old certificate, or why the step was taken.
	Reason string
}

// Query narrows a list; empty members do not.
type Query struct {
	Step  event.CertificateRenewal
	Thing string
	After string
	Limit int
}

// steps are all that a query can ask for.
func steps() []event.CertificateRenewal {
	return []event.CertificateRenewal{
		event.RenewalBegun, event.RenewalProven, event.RenewalCompleted, event.RenewalUnproven, event.RenewalSuperseded, event.RenewalAbandoned,
	}
}

// List returns one page of an account's renewals: those of one step with the
// newest step first, others in order of the thing's name.
func (s *Service) List(ctx context.Context, account fleet.Account, q Query) (found []Renewal, next string, err error) {
	if q.Limit < 1 || q.Limit > maxListed {
		return nil, "", fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxListed)
	}
	if q.Step != "" && !slices.Contains(steps(), q.Step) {
		return nil, "", fault.New(fault.InvalidRequest, "step: must be one of %v", steps())
	}
	if q.Thing != "" && !fleet.ValidName(q.Thing) {
		return nil, "", fault.New(fault.InvalidRequest, "thing: is no name of a thing")
	}
	within := store.Under(kindRenewal, string(account))
	byStep := q.Step != "" && q.Thing == ""
	switch {
	case byStep:
		within = store.Under(kindStep, string(account), string(q.Step))
	case q.Thing != "":
		within = store.Under(kindRenewal, string(account), q.Thing)
	}
	rows, next, err := s.page(ctx, within, q)
	if err != nil {
		return nil, "", err
	}
	if byStep {
		if rows, err = s.behind(ctx, rows); err != nil {
			return nil, "", err
		}
	}
	found = make([]Renewal, 0, len(rows))
	for _, row := range rows {
		if row.Version == 0 {
			continue // it is gone meanwhile
		}
		var r record
		if err := decode(row, &r, &r.Schema); err != nil {
			return nil, "", err
		}
		if q.Step == "" || r.Step == q.Step {
			found = append(found, renewal(placeOf(row.Key), &r))
		}
	}
	return found, next, nil
}

// page reads the records of a page.
func (s *Service) page(ctx context.Context, within store.Range, q Query) (rows []store.Record, next string, err error) {
	if q.After != "" {
		within = within.After(store.Key(q.After))
	}
	err = s.o.Store.Scan(ctx, within, func(r store.Record) error {
		if len(rows) == q.Limit {
			next = string(rows[q.Limit-1].Key)
			return store.Stop
		}
		rows = append(rows, r)
		return nil
	})
	if err != nil {
		return nil, "", store.Fault(fmt.Errorf("list renewals: %w", err))
	}
	return rows, next, nil
}

// behind reads the records that rows find.
func (s *Service) behind(ctx context.Context, rows []store.Record) ([]store.Record, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		keys[i] = placeOf(row.Key).key()
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return nil, store.Fault(fmt.Errorf("list renewals: %w", err))
	}
	return found, nil
}

// renewal is the public form of a record.
func renewal(at place, r *record) Renewal {
	out := Renewal{
		Thing: at.thing, OldCertificateID: r.Old, NewCertificateID: at.renewed, Step: r.Step,
		Begun: moment(r.Begun), Changed: moment(r.Changed), Reason: r.Reason,
	}
	if r.open() {
		out.Due = moment(r.Due)
	}
	if p := r.Proof; p != nil {
		out.Proof = Seen{
			Account: at.account, CertificateID: at.renewed, At: moment(p.At), ClientID: p.ClientID, ConnectionID: p.ConnectionID, Address: p.Address,
		}
	}
	return out
}
