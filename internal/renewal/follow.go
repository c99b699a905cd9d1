package renewal

import (
	"context"
	"fmt"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Apply sees proofs in the event log, and what ends a renewal: it is a durable
// consumer.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	things, err := s.thingsOf(ctx, s.o.Store, certificatesOf(events))
	if err != nil {
		return store.Batch{}, err
	}
	a := s.attempt(ctx)
	for i := range events {
		env := &events[i]
		a.actor = env.Actor
		switch e := env.Event.(type) {
		case event.DeviceConnected:
			if env.Actor.Principal.Kind == fleet.PrincipalCertificate {
				err = a.see(ctx, things, seenIn(env, &e))
			}
		case event.CertificateDeleted:
			err = a.lose(ctx, things, env.Account, e.CertificateID, "the new certificate was deleted")
		case event.CertificateStatusChanged:
			if e.Status == registry.StatusRevoked {
				err = a.lose(ctx, things, env.Account, e.CertificateID, "the new certificate was revoked")
			}
		case event.ThingDeleted:
			err = a.loseThing(ctx, env, e.Thing)
		default:
			// The rest is not about renewals.
		}
		if err != nil {
			return store.Batch{}, err
		}
	}
	a.count()
	return a.batch()
}

// certificatesOf are the certificates that events are about, each once.
func certificatesOf(events []event.Envelope) []store.Key {
	var keys []store.Key
	met := map[store.Key]bool{}
	for i := range events {
		id := ""
		switch e := events[i].Event.(type) {
		case event.DeviceConnected:
			if events[i].Actor.Principal.Kind == fleet.PrincipalCertificate {
				id = e.Principal
			}
		case event.CertificateDeleted:
			id = e.CertificateID
		case event.CertificateStatusChanged:
			id = e.CertificateID
		default:
			// The rest names no certificate that could be a new one.
		}
		if k := newKey(events[i].Account, id); id != "" && !met[k] {
			met[k] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// seenIn is the connection of an event.
func seenIn(env *event.Envelope, e *event.DeviceConnected) Seen {
	return Seen{
		Account: env.Account, CertificateID: e.Principal, At: env.At, ClientID: e.ClientID, ConnectionID: e.ConnectionID, Address: e.IPAddress,
	}
}

// see takes a connection for the proof of the renewal to its certificate, which
// is of one thing only: by whatever client id, who connects has the key, and the
// certificate's policies let it in.
func (a *attempt) see(ctx context.Context, things map[store.Key]string, c Seen) error {
	thing := things[newKey(c.Account, c.CertificateID)]
	if thing == "" {
		return nil
	}
	one, err := a.load(ctx, place{account: c.Account, thing: thing, renewed: c.CertificateID})
	if err != nil || one.now == nil || !one.now.waits() {
		return err
	}
	one.now.Proof = &proof{
		At: max(c.At.UnixMilli(), one.now.Begun), ClientID: c.ClientID, ConnectionID: c.ConnectionID, Address: c.Address,
	}
	a.take(one, event.RenewalProven, "")
	return nil
}

// lose ends the renewal to a certificate that is gone for good.
func (a *attempt) lose(ctx context.Context, things map[store.Key]string, account fleet.Account, id, reason string) error {
	thing := things[newKey(account, id)]
	if thing == "" {
		return nil
	}
	one, err := a.load(ctx, place{account: account, thing: thing, renewed: id})
	if err != nil || one.now == nil || !one.now.open() {
		return err
	}
	a.take(one, event.RenewalAbandoned, reason)
	return nil
}

// loseThing ends the renewals of a thing that is gone; those of a later thing of
// the same name are not meant.
func (a *attempt) loseThing(ctx context.Context, env *event.Envelope, thing string) error {
	all, err := a.loadAll(ctx, env.Account, thing)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.now.open() && one.now.Begun <= env.At.UnixMilli() {
			a.take(one, event.RenewalAbandoned, "the thing was deleted")
		}
	}
	return nil
}

// rebuildBatch is how many connections are looked at together.
const rebuildBatch = 512

// Rebuild makes up for events that the log has no more: a client that is, or was
// last, connected with a new certificate has proved it. Certificates and things
// that are gone show when a renewal's time is over.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	state, err := s.o.Store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, store.Fault(fmt.Errorf("rebuild renewals: %w", err))
	}
	defer state.Close() //nolint:errcheck // it was only read
	var proofs, batch []Seen
	keep := func() error {
		things, err := s.thingsOf(ctx, state, keysOf(batch))
		for _, c := range batch {
			if things[newKey(c.Account, c.CertificateID)] != "" {
				proofs = append(proofs, c)
			}
		}
		batch = batch[:0]
		return err
	}
	err = s.o.Connections(ctx, state, func(c Seen) error {
		if batch = append(batch, c); len(batch) < rebuildBatch {
			return nil
		}
		return keep()
	})
	if err == nil {
		err = keep()
	}
	if err != nil {
		return store.Cursor{}, err
	}
	for some := range slices.Chunk(proofs, rebuildBatch) {
		if err := s.seeAll(ctx, some); err != nil {
			return store.Cursor{}, err
		}
	}
	return state.Cursor(), nil
}

// keysOf are the rows of the certificates of connections.
func keysOf(seen []Seen) []store.Key {
	keys := make([]store.Key, len(seen))
	for i := range seen {
		keys[i] = newKey(seen[i].Account, seen[i].CertificateID)
	}
	return keys
}

// seeAll takes connections for proofs.
func (s *Service) seeAll(ctx context.Context, seen []Seen) error {
	return s.change(ctx, func(a *attempt) error {
		things, err := s.thingsOf(ctx, s.o.Store, keysOf(seen))
		for _, c := range seen {
			if err == nil {
				err = a.see(ctx, things, c)
			}
		}
		return err
	})
}
