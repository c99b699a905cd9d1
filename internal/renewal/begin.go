package renewal

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Begin returns what has to be committed with the registration of a certificate
// that a thing has asked for with another one. The same commit has to change the
// thing's record, so that of two at the same moment one sees the other.
//
// It supersedes what the thing has begun with the same old certificate and not
// proven: that new certificate is retired with the old one, unless it proves
// itself before.
func (s *Service) Begin(ctx context.Context, account fleet.Account, thing, oldID, newID string) (store.Batch, error) {
	at := place{account: account, thing: thing, renewed: newID}
	known, err := s.thingsOf(ctx, s.o.Store, []store.Key{newKey(account, newID)})
	if err != nil {
		return store.Batch{}, err
	}
	if of := known[newKey(account, newID)]; of != "" && of != thing {
		return store.Batch{}, fault.New(fault.Conflict, "certificate %s is the new one of thing %s already", newID, of)
	}
	a := s.attempt(ctx)
	all, err := a.loadAll(ctx, account, thing)
	if err != nil {
		return store.Batch{}, err
	}
	unproven := 0
	for _, one := range all {
		if one.at == at || !one.now.waits() {
			continue
		}
		unproven++
		if one.now.Old == oldID && one.now.Step != event.RenewalSuperseded {
			a.take(one, event.RenewalSuperseded, "certificate "+newID+" was asked for after it")
		}
	}
	if unproven >= maxUnproven {
		return store.Batch{}, fault.New(fault.LimitExceeded,
			"thing %s has asked for %d certificates that it never connected with; delete them before it can have another one", thing, unproven)
	}
	one, err := a.load(ctx, at)
	if err != nil {
		return store.Batch{}, err
	}
	one.now = &record{Old: oldID, Begun: a.now.UnixMilli()}
	a.take(one, event.RenewalBegun, "")
	return a.batch()
}
