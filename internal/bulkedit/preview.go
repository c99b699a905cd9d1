package bulkedit

import (
	"context"
	"encoding/json"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

const (
	// maxQuery bounds a query in bytes.
	maxQuery = 10 << 10
	// maxExamined is how many things a preview decides about, maxSample how many it
	// shows with their changes, maxRefusals how many of those that would be refused.
	maxExamined = 1000
	maxSample   = 10
	maxRefusals = 50
	// confirmationLife is how long a confirmation is good.
	confirmationLife = 15 * time.Minute
	// confirmation is what its token is for.
	confirmation = "ops.bulk-edits.confirm"
)

// Preview is what an edit would do.
type Preview struct {
	// Things is how many things match. Of the first Examined of them, in order of
	// name, Changes would be changed, Unchanged are as the edit wants them, and
	// Refused would be refused. Of an operation on drift, Things is how many differ of
	// all that match and were promised something, each of which is examined.
	Things, Examined, Changes, Unchanged, Refused int
	Sample                                        []Change
	// Refusals are the first of the refused ones.
	Refusals []Failure
	// Token confirms what this preview showed, until Expires.
	Token   string
	Expires time.Time
}

// Change is what a thing was and is, or would be.
type Change struct {
	Thing         string
	At            time.Time
	Before, After Image
	// Pending says that it is under way.
	Pending bool
}

// Failure is why a thing was not changed, or would not be.
type Failure struct {
	Thing    string
	At       time.Time
	Code     fault.Code
	Message  string
	Conflict bool
}

// confirmed is what a token says.
type confirmed struct {
	// ID is the id of the edit that the token can start, so that it starts one only.
	ID     string `json:"id"`
	Things int    `json:"things"`
	// Drift is the digest of what an operation on drift would settle.
	Drift   string `json:"drift,omitempty"`
	Expires int64  `json:"expires"`
}

// ask checks a query and an operation of a caller who may search.
func (s *Service) ask(ctx context.Context, account fleet.Account, query string, o *Operation) (filter []string, err error) {
	if query == "" || len(query) > maxQuery {
		return nil, fault.New(fault.InvalidRequest, "query: must have from 1 to %d bytes", maxQuery)
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	if err := s.o.Permit(ctx, account, actionSearch, indexKind, thingsIndex); err != nil {
		return nil, err
	}
	text, err := o.text()
	if err != nil {
		return nil, err
	}
	caller := fleet.ActorFrom(ctx).Principal
	return []string{caller.Kind, caller.ID, caller.ARN, query, text}, nil
}

// Preview decides what an edit would do to the things that match now, and changes
// nothing.
func (s *Service) Preview(ctx context.Context, account fleet.Account, query string, o Operation) (Preview, error) {
	filter, err := s.ask(ctx, account, query, &o)
	if err != nil {
		return Preview{}, err
	}
	if err := s.o.Index.Fresh(ctx); err != nil {
		return Preview{}, err //nolint:wrapcheck // coded
	}
	var p Preview
	var digest string
	if o.Drift != nil {
		digest, err = s.previewDrift(ctx, account, query, &o, &p)
	} else {
		err = s.examineFirst(ctx, account, query, &o, &p)
	}
	if err != nil {
		return Preview{}, err
	}
	now := s.o.Now()
	p.Expires = now.Add(confirmationLife).Truncate(time.Second)
	seal, err := json.Marshal(confirmed{ID: s.o.NewID(), Things: p.Things, Drift: digest, Expires: p.Expires.Unix()})
	if err != nil {
		return Preview{}, fault.Wrap(fault.Internal, err, "the confirmation cannot be written")
	}
	p.Token = s.o.Tokens.Seal(account, confirmation, filter, string(seal), now)
	return p, nil
}

// examineFirst adds what would become of the first of the things that match.
func (s *Service) examineFirst(ctx context.Context, account fleet.Account, query string, o *Operation, p *Preview) error {
	var err error
	if p.Things, err = s.o.Index.Count(account, query); err != nil {
		return err //nolint:wrapcheck // coded
	}
	names, _, err := s.o.Index.Find(account, query, "", maxExamined)
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	things, err := s.o.Registry.Things(ctx, account, names)
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	for _, t := range things {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.examine(ctx, account, o, t, p); err != nil {
			return err
		}
	}
	return nil
}

// examine adds what would become of one thing.
func (s *Service) examine(ctx context.Context, account fleet.Account, o *Operation, t registry.Thing, p *Preview) error {
	p.Examined++
	change, differs, err := s.decide(ctx, account, o, t)
	if code := fault.CodeOf(err); code == fault.Internal || code == fault.Unavailable {
		return err
	}
	switch {
	case err != nil:
		p.refuse(t.Name, err)
	case !differs:
		p.Unchanged++
	default:
		p.Changes++
		if len(p.Sample) < maxSample {
			p.Sample = append(p.Sample, change)
		}
	}
	return nil
}

// refuse counts a thing that would be refused.
func (p *Preview) refuse(thing string, err error) {
	p.Refused++
	if len(p.Refusals) < maxRefusals {
		coded := fault.From(err)
		p.Refusals = append(p.Refusals, Failure{Thing: thing, Code: coded.Code, Message: coded.Message})
	}
}

// decide is what an operation would make of a thing.
func (s *Service) decide(ctx context.Context, account fleet.Account, o *Operation, t registry.Thing) (change Change, differs bool, err error) {
	change = Change{Thing: t.Name}
	if err := s.permit(ctx, account, needsOf(o, t)); err != nil {
		return change, false, err
	}
	of := target{Name: t.Name, ID: t.ID}
	switch {
	case o.Shadow != nil:
		patch, err := parseObject(o.Shadow.Desired)
		if err != nil {
			return change, false, err
		}
		before, after, err := s.patched(ctx, account, of, o.Shadow.Name, patch)
		if err != nil {
			return change, false, err
		}
		r, err := shadowReceipt(t.ID, before, after, patch)
		change.Before, change.After = r.Before, r.After
		return change, string(r.Before.Desired) != string(r.After.Desired), err
	case o.Delete != nil && o.Delete.Decommission:
		change.Before = whole(t)
		return change, true, nil
	case o.Delete != nil:
		was, err := s.o.Registry.RemoveThing(ctx, account, registry.RemoveCommand{Thing: t.Name, ThingID: t.ID, DryRun: true})
		change.Before = whole(was)
		return change, true, err //nolint:wrapcheck // coded
	}
	c := o.editing(of)
	c.DryRun = true
	edited, err := s.o.Registry.EditThing(ctx, account, c)
	change.Before, change.After = imageOf(o, edited.Before), imageOf(o, edited.After)
	return change, edited.Changed, err //nolint:wrapcheck // coded
}
