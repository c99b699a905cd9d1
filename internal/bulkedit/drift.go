package bulkedit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Drift brings things together with what their templates promised.
type Drift interface {
	// CheckAll leaves out things that nothing was promised of.
	CheckAll(ctx context.Context, account fleet.Account, things []string) ([]drift.Report, error)
	// Settle answers drift.ErrMoved for a thing that is not as the revision says.
	Settle(ctx context.Context, account fleet.Account, c drift.SettleCommand) (drift.Plan, error)
}

// drifting is one look at all things that a query matches and that an operation
// would settle something of.
type drifting struct {
	s       *Service
	account fleet.Account
	query   string
	choice  *drift.Choice
	// seen names all that was found, thing by thing: two looks that found the same
	// have the same.
	seen hash.Hash
	// latest is when it gives up.
	latest time.Time
}

func (s *Service) drifting(account fleet.Account, query string, o *Operation) *drifting {
	return &drifting{s: s, account: account, query: query, choice: o.Drift, seen: sha256.New(), latest: s.o.Now().Add(selectWithin)}
}

// digest is what was found so far, in short.
func (d *drifting) digest() string { return hex.EncodeToString(d.seen.Sum(nil)[:16]) }

// each compares the things page by page and calls fn for each that was promised
// something, with what would be done.
func (d *drifting) each(ctx context.Context, fn func(r *drift.Report, p drift.Plan) error, paged func() error) error {
	looked := 0
	for after := ""; ; {
		names, next, err := d.s.o.Index.Find(d.account, d.query, after, findSize)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		for page := range slices.Chunk(names, pageSize) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if d.s.o.Now().After(d.latest) {
				return fault.New(fault.Unavailable, "to compare the things takes longer than %v, %d are; make several edits, each with a narrower query", selectWithin, looked)
			}
			reports, err := d.s.o.Drift.CheckAll(ctx, d.account, page)
			if err != nil {
				return err //nolint:wrapcheck // coded
			}
			for i := range reports {
				r := &reports[i]
				p := d.choice.PlanFor(r)
				if len(p.Settles) > 0 {
					_, _ = fmt.Fprintf(d.seen, "%s %s %s\n", r.Thing, r.ThingID, r.Revision)
				}
				if err := fn(r, p); err != nil {
					return err
				}
			}
			if err := paged(); err != nil {
				return err
			}
			looked += len(page)
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// previewDrift fills in what an operation would settle. Unlike other previews it
// looks at all things that match, so that what it confirms is just what it found;
// of the first of those that differ it also finds out what the registry would say.
func (s *Service) previewDrift(ctx context.Context, account fleet.Account, query string, o *Operation, p *Preview) (digest string, err error) {
	d := s.drifting(account, query, o)
	err = d.each(ctx, func(r *drift.Report, plan drift.Plan) error {
		p.Examined++
		switch {
		case len(plan.Settles) > 0:
			p.Things++
			err := s.permitDrift(ctx, account, o, r)
			if err == nil && p.Things <= maxExamined {
				_, err = s.o.Drift.Settle(ctx, account, drift.SettleCommand{Thing: r.Thing, Choice: *o.Drift, Revision: r.Revision, DryRun: true})
			}
			if code := fault.CodeOf(err); code == fault.Internal || code == fault.Unavailable {
				return err //nolint:wrapcheck // coded
			}
			if err != nil {
				p.refuse(r.Thing, err)
				return nil
			}
			p.Changes++
			if len(p.Sample) < maxSample {
				p.Sample = append(p.Sample, Change{Thing: r.Thing, Before: Image{ThingID: r.ThingID, Drift: plan.Settles}, After: Image{ThingID: r.ThingID, Drift: plan.Leaves}})
			}
		case len(plan.Leaves) > 0:
			p.refuse(r.Thing, fault.New(fault.InvalidRequest, "%s", plan.Leaves[0].Irreparable()))
		default:
			p.Unchanged++
		}
		return nil
	}, func() error { return nil })
	return d.digest(), err
}

// permitDrift asks for all that an operation needs to settle what a report says.
func (s *Service) permitDrift(ctx context.Context, account fleet.Account, o *Operation, r *drift.Report) error {
	for _, n := range o.Drift.Needs(r) {
		if err := s.o.Permit(ctx, account, n.Action, n.Kind, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// matchDrift is match for an operation on drift: it finds just what the preview has
// found, or fails.
func (s *Service) matchDrift(ctx context.Context, account fleet.Account, r *editRecord, shown confirmed, found func([]target) error) error {
	d := s.drifting(account, r.Query, &r.Operation)
	n := 0
	var targets []target
	err := d.each(ctx, func(report *drift.Report, plan drift.Plan) error {
		if len(plan.Settles) == 0 {
			return nil
		}
		n++
		if err := s.permitDrift(ctx, account, &r.Operation, report); err != nil {
			return err
		}
		targets = append(targets, target{Name: report.Thing, ID: report.ThingID, Revision: report.Revision})
		return nil
	}, func() error {
		if len(targets) < pageSize {
			return nil
		}
		err := found(targets[:pageSize:pageSize])
		targets = slices.Clone(targets[pageSize:])
		return err
	})
	if err != nil {
		return err
	}
	if d.digest() != shown.Drift {
		return fault.New(fault.Conflict, "what differs has changed since the preview, which showed %d things; %d differ now: preview again", shown.Things, n)
	}
	return found(targets)
}

// settle brings one thing together with what was promised of it, if it differs as
// it did when the edit began.
func (j *job) settle(ctx context.Context, t target) (outcome, error) {
	plan, err := j.s.o.Drift.Settle(ctx, j.account, drift.SettleCommand{
		Thing: t.Name, Choice: *j.record.Operation.Drift, Revision: t.Revision,
		Joined: func(p drift.Plan) (store.Batch, error) {
			return j.receipt(t.Name, receipt{Before: Image{ThingID: t.ID, Drift: p.Settles}, After: Image{ThingID: t.ID, Drift: p.Leaves}})
		},
	})
	switch {
	case err != nil:
		return "", err //nolint:wrapcheck // coded, and a failure's text
	case len(plan.Settles) == 0:
		return unchanged, nil
	}
	return changed, nil
}
