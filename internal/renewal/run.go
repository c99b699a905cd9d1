package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// sweepEvery is how exactly renewals keep their times.
	sweepEvery = time.Second
	// sweepBatch is how many that are due are read at a time.
	sweepBatch = 256
)

// Run takes the steps whose time has come until ctx ends, which is no error.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "certificate renewals are retried", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep takes all steps whose time has come. One that fails does not hold up the
// others; it is tried again at the next sweep.
func (s *Service) Sweep(ctx context.Context) error {
	failed := map[place]error{}
	caughtUp := false
	for {
		due, err := s.due(ctx, failed)
		if err != nil || len(due) == 0 {
			return errors.Join(append(slices.Collect(maps.Values(failed)), err)...)
		}
		if !caughtUp {
			if err := s.o.CatchUp(ctx); err != nil {
				return fmt.Errorf("see what was proven meanwhile: %w", err)
			}
			caughtUp = true
			continue
		}
		for _, at := range due {
			if err := s.step(ctx, at); err != nil {
				if ctx.Err() != nil || len(failed) >= sweepBatch {
					return err
				}
				failed[at] = fmt.Errorf("renewal of thing %s: %w", at.thing, err)
			}
		}
	}
}

// due returns some of the renewals whose time has come, except those that failed.
func (s *Service) due(ctx context.Context, failed map[place]error) ([]place, error) {
	var found []place
	until := rising(s.o.Now().UnixMilli())
	within := store.Under(kindDue)
	for {
		over := true
		err := s.o.Store.Scan(ctx, within, func(row store.Record) error {
			parts := row.Key.Parts()
			if parts[2] > until {
				// The rest of the account has time yet.
				within.From, over = store.Under(kindDue, parts[1]).To, false
				return store.Stop
			}
			if at := placeOf(row.Key); failed[at] == nil {
				found = append(found, at)
			}
			if len(found) == sweepBatch {
				return store.Stop
			}
			return nil
		})
		if err != nil || over {
			return found, store.Fault(err)
		}
	}
}

// step takes the step of one renewal, if it is still due.
func (s *Service) step(ctx context.Context, at place) error {
	a := s.attempt(ctx)
	one, err := a.load(ctx, at)
	if err != nil || !one.due(a.now) {
		return err
	}
	switch one.now.Step {
	case event.RenewalBegun:
		return s.lapse(ctx, at)
	case event.RenewalProven:
		return s.complete(ctx, at)
	case event.RenewalCompleted, event.RenewalAbandoned:
		return s.change(ctx, func(a *attempt) error {
			one, err := a.load(ctx, at)
			if err == nil && one.due(a.now) && !one.now.open() {
				a.forget(one)
			}
			return err
		})
	case event.RenewalUnproven, event.RenewalSuperseded:
	}
	return fmt.Errorf("a renewal that is %s is due", one.now.Step)
}

// due reports whether a renewal's time has come.
func (one *slot) due(now time.Time) bool {
	return one.now != nil && one.now.Due != 0 && one.now.Due <= now.UnixMilli()
}

// lapse ends the patience with a renewal that nobody has proven.
func (s *Service) lapse(ctx context.Context, at place) error {
	unproven := "nobody has connected with the new certificate in " + s.o.Patience.String()
	step, reason, err := fate(s.o.Registry.CanReplace(ctx, at.account, at.thing, at.renewed), unproven)
	if err != nil {
		return err
	}
	return s.change(ctx, func(a *attempt) error {
		one, err := a.load(ctx, at)
		if err == nil && one.due(a.now) && one.now.Step == event.RenewalBegun {
			a.take(one, step, reason)
		}
		return err
	})
}

// fate is the step of a renewal that does not retire its old certificate, and why:
// refusal is what the registry says of the new one, unproven the reason when it
// says nothing.
func fate(refusal error, unproven string) (step event.CertificateRenewal, reason string, err error) {
	not, refused := errors.AsType[*registry.NotReplacedError](refusal)
	switch {
	case refused && not.Final:
		return event.RenewalAbandoned, not.Reason, nil
	case refused:
		return event.RenewalUnproven, not.Reason, nil
	}
	return event.RenewalUnproven, unproven, refusal
}

// errMeanwhile is a renewal that others changed while it was decided; the next
// sweep decides anew.
var errMeanwhile = errors.New("the thing's renewals have changed meanwhile")

// complete retires the old certificate of a proven renewal, and those that it
// stands for.
func (s *Service) complete(ctx context.Context, at place) error {
	planned, err := s.plan(ctx, at)
	if err != nil || planned == nil {
		return err
	}
	var committed *attempt
	err = s.o.Registry.ReplaceCertificates(ctx, at.account, registry.ReplaceCommand{
		Thing: at.thing, By: at.renewed, Old: planned.retired,
		Joined: func(ended []registry.Replaced) (store.Batch, error) {
			again, err := s.plan(ctx, at)
			if err != nil {
				return store.Batch{}, err
			}
			if again == nil || !slices.Equal(again.retired, planned.retired) {
				return store.Batch{}, errMeanwhile
			}
			committed = again.attempt
			return again.carryOut(ended)
		},
	})
	if err == nil {
		committed.count()
		return nil
	}
	step, reason, err := fate(err, "")
	if err != nil {
		return err
	}
	return s.change(ctx, func(a *attempt) error {
		one, err := a.load(ctx, at)
		if err == nil && one.due(a.now) && one.now.Step == event.RenewalProven {
			a.take(one, step, reason)
		}
		return err
	})
}

// plan is what completes a renewal.
type plan struct {
	attempt *attempt
	proven  *slot
	// before are renewals that led to certificates which this one retires;
	// superseded are those that this one has superseded.
	before, superseded []*slot
	// retired are the ids of the certificates that go; the first is the old one.
	retired []string
}

// plan decides what goes with a renewal: its old certificate, those that this one
// was to replace in its turn, and those that superseded renewals from any of them
// led to. It is nil for a renewal that is not to be completed now.
func (s *Service) plan(ctx context.Context, at place) (*plan, error) {
	a := s.attempt(ctx)
	all, err := a.loadAll(ctx, at.account, at.thing)
	if err != nil {
		return nil, err
	}
	one, err := a.load(ctx, at)
	if err != nil || !one.due(a.now) || one.now.Step != event.RenewalProven {
		return nil, err
	}
	p := &plan{attempt: a, proven: one}
	for waiting := []string{one.now.Old}; len(waiting) > 0; {
		id := waiting[0]
		waiting, p.retired = waiting[1:], append(p.retired, id)
		for _, other := range all {
			if other == one || !other.now.open() || other.now.Begun > one.now.Begun || other.now.Old == at.renewed {
				continue
			}
			if more := p.include(other, id); more != "" && !slices.Contains(p.retired, more) && !slices.Contains(waiting, more) {
				waiting = append(waiting, more)
			}
		}
	}
	return p, nil
}

// include takes another renewal in that led to a certificate which goes, or that
// was superseded on its way from it, and returns the certificate at its other
// end; empty for one that stays out.
func (p *plan) include(other *slot, id string) (more string) {
	switch {
	case slices.Contains(p.before, other) || slices.Contains(p.superseded, other):
	case other.at.renewed == id:
		p.before = append(p.before, other)
		return other.now.Old
	case other.now.Old == id && other.now.Step == event.RenewalSuperseded:
		p.superseded = append(p.superseded, other)
		return other.at.renewed
	}
	return ""
}

// carryOut is the part of the commit that is ours; ended are the certificates in
// the order of retired.
func (p *plan) carryOut(ended []registry.Replaced) (store.Batch, error) {
	by := p.proven.at.renewed
	p.attempt.take(p.proven, event.RenewalCompleted, retirement(ended[0]))
	for _, one := range p.before {
		i := slices.Index(p.retired, one.now.Old)
		p.attempt.take(one, event.RenewalCompleted, retirement(ended[i])+"; certificate "+by+" has replaced both")
	}
	for _, one := range p.superseded {
		p.attempt.take(one, event.RenewalAbandoned, "it was superseded and never proven; certificate "+by+" is in use")
	}
	return p.attempt.batch()
}

// retirement says what became of an old certificate.
func retirement(c registry.Replaced) string {
	switch {
	case c.Status == "":
		return "the old certificate does not exist any more"
	case c.Shared && c.Detached:
		return "the old certificate is detached; it is " + c.Status + " for the other things that it acts as"
	case c.Shared:
		return "the old certificate was detached before; it is " + c.Status + " for the other things that it acts as"
	case c.Detached:
		return "the old certificate is detached and " + c.Status
	}
	return "the old certificate was detached before and is " + c.Status
}
