package bulkedit

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// pageSize is how many things a page holds.
	pageSize = 500
	// pagesAtOnce is how many pages one commit writes: a few hundred kilobytes.
	pagesAtOnce = 10
	// findSize is how many names the index is asked for at a time, since each time it
	// evaluates the query, and how many receipts the store is.
	findSize = 20 * pageSize
	// selectWithin bounds how long a call finds and writes down things. Whoever
	// serves it gives up after two minutes, and the caller would not learn of the
	// edit; what is left of them removes what was written.
	selectWithin = 75 * time.Second
)

// StartCommand asks for an edit that a preview has shown.
type StartCommand struct {
	Query     string
	Operation Operation
	// Token is the preview's.
	Token string
	// PerSecond is how many things to work on in a second; 0 is as many as the
	// server's setting allows to all edits together.
	PerSecond int
}

// Start begins an edit of the things that match now. They are written down before
// it answers, so that what changes later makes no difference; when there are more
// of them than the caller has confirmed, nothing begins. The caller needs the
// permission to change every single one. A token starts one edit: the same call
// again answers that one.
func (s *Service) Start(ctx context.Context, account fleet.Account, c StartCommand) (Edit, error) {
	filter, err := s.ask(ctx, account, c.Query, &c.Operation)
	if err != nil {
		return Edit{}, err
	}
	perSecond, err := s.perSecond(c.PerSecond)
	if err != nil {
		return Edit{}, err
	}
	shown, err := s.confirmed(account, filter, c.Token)
	if err != nil {
		return Edit{}, err
	}
	if r, _, err := s.find(ctx, account, shown.ID); fault.CodeOf(err) != fault.ResourceNotFound {
		if err != nil {
			return Edit{}, err
		}
		return s.edit(account, shown.ID, r), nil
	}
	if err := s.o.Index.Fresh(ctx); err != nil {
		return Edit{}, err //nolint:wrapcheck // coded
	}
	r := &editRecord{
		Schema: schemaVersion, Status: Selecting, Query: c.Query, Operation: c.Operation,
		Actor: fleet.ActorFrom(ctx), Created: millis(s.o.Now()), PerSecond: perSecond,
	}
	return s.begin(ctx, account, shown.ID, r, func(found func([]target) error) error {
		if c.Operation.Drift != nil {
			return s.matchDrift(ctx, account, r, shown, found)
		}
		return s.match(ctx, account, r, shown.Things, found)
	})
}

// perSecond is the pace in force.
func (s *Service) perSecond(asked int) (int, error) {
	if asked < 0 || asked > s.o.PerSecond {
		return 0, fault.New(fault.InvalidRequest, "thingsPerSecond: must be from 1 to %d, the server's bulk-edit.things-per-second", s.o.PerSecond)
	}
	if asked == 0 {
		asked = s.o.PerSecond
	}
	return asked, nil
}

// confirmed opens a preview's token.
func (s *Service) confirmed(account fleet.Account, filter []string, token string) (confirmed, error) {
	var c confirmed
	if token == "" {
		return c, fault.New(fault.InvalidRequest, "confirmationToken: is missing; POST /ops/v1/bulk-edits/preview gives one")
	}
	text, err := s.o.Tokens.Open(account, confirmation, filter, token, s.o.Now())
	if err == nil {
		err = json.Unmarshal([]byte(text), &c)
	}
	if err != nil {
		return c, fault.Wrap(fault.InvalidRequest, err, "confirmationToken: is not of a preview of this query and operation by this caller")
	}
	if s.o.Now().Unix() > c.Expires {
		return c, fault.New(fault.InvalidRequest, "confirmationToken: is older than %d minutes; preview again", int(confirmationLife.Minutes()))
	}
	return c, nil
}

// match finds the things of an edit, page by page. The caller must be allowed to
// change each.
func (s *Service) match(ctx context.Context, account fleet.Account, r *editRecord, most int, found func([]target) error) error {
	n, after := 0, ""
	for {
		names, next, err := s.o.Index.Find(account, r.Query, after, findSize)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		if n += len(names); n > most {
			return s.more(account, r.Query, most, n)
		}
		for page := range slices.Chunk(names, pageSize) {
			targets, err := s.targets(ctx, account, r, page)
			if err != nil {
				return err
			}
			if err := found(targets); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// targets are the present lives of names, all of which the caller may change.
func (s *Service) targets(ctx context.Context, account fleet.Account, r *editRecord, names []string) ([]target, error) {
	things, err := s.o.Registry.Things(ctx, account, names)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	targets := make([]target, len(things))
	for i, t := range things {
		if err := s.permit(ctx, account, needsOf(&r.Operation, t)); err != nil {
			return nil, err
		}
		targets[i] = target{Name: t.Name, ID: t.ID}
	}
	return targets, nil
}

// more is the fault for a match that has grown.
func (s *Service) more(account fleet.Account, query string, shown, atLeast int) error {
	now, err := s.o.Index.Count(account, query)
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	return fault.New(fault.Conflict, "the preview showed %d things and %d match now; preview again", shown, max(now, atLeast))
}

// begin writes down an edit and the things that find yields, and lets Run have it.
// When that fails nothing is left of it.
func (s *Service) begin(ctx context.Context, account fleet.Account, id string, r *editRecord, find func(found func([]target) error) error) (Edit, error) {
	at := place{account, id}
	s.selects(at, true)
	defer s.selects(at, false)
	if err := s.create(ctx, account, id, r); err != nil {
		return Edit{}, err
	}
	things, pages := 0, 0
	var b store.Batch
	flush := func() error {
		if len(b.Writes) == 0 {
			return nil
		}
		_, err := s.o.Store.Commit(ctx, b)
		b = store.Batch{}
		return store.Fault(err)
	}
	latest := s.o.Now().Add(selectWithin)
	err := find(func(targets []target) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.o.Now().After(latest) {
			return fault.New(fault.Unavailable,
				"to find and write down the things takes longer than %v, %d are; make several edits, each with a narrower query", selectWithin, things)
		}
		if len(targets) == 0 {
			return nil
		}
		if err := put(&b, pageKey(account, id, pages), pageRecord{Schema: schemaVersion, Things: targets}); err != nil {
			return err
		}
		things, pages = things+len(targets), pages+1
		if len(b.Writes) < pagesAtOnce {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err == nil && things == 0 {
		err = fault.New(fault.InvalidRequest, "there is no thing to change")
	}
	if err == nil {
		r, err = s.step(ctx, account, id, func(r *editRecord) (bool, error) {
			r.Status, r.Things, r.Pages = Running, things, pages
			return true, nil
		})
	}
	if err != nil {
		// Also when the caller has left.
		if e := s.discard(context.WithoutCancel(ctx), account, id); e != nil {
			s.o.Logger.ErrorContext(ctx, "bulk edit that did not begin is left over", slog.String("bulk_edit", id), slog.Any("err", e))
		}
		return Edit{}, err
	}
	s.rouse()
	return s.edit(account, id, r), nil
}

// selects notes that a call is about to begin an edit, or no longer is.
func (s *Service) selects(at place, begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.selecting[at] = true
	} else {
		delete(s.selecting, at)
	}
}

// create writes the record of a new edit.
func (s *Service) create(ctx context.Context, account fleet.Account, id string, r *editRecord) error {
	for range maxAttempts {
		b := store.Batch{
			Expect: []store.Expect{{Key: editKey(account, id)}},
			Writes: []store.Write{{Key: newestKey(account, id, r.Created), Value: []byte(plainRow)}},
		}
		if err := s.join(ctx, &b, account, id); err != nil {
			return err
		}
		if err := s.mark(ctx, &b, account, id, r); err != nil {
			return err
		}
		if err := put(&b, editKey(account, id), r); err != nil {
			return err
		}
		_, err := s.o.Store.Commit(ctx, b)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return store.Fault(err)
		}
		if _, _, err := s.find(ctx, account, id); err == nil {
			return fault.New(fault.Conflict, "bulk edit %s is being started by another call", id)
		}
	}
	return fault.New(fault.Throttling, "Too many bulk edits begin at once; try again")
}

// Undo begins an edit that takes a finished one back: each thing that the edit has
// changed, and that still is as it was left, becomes what it was before. The caller
// needs the permission for each.
func (s *Service) Undo(ctx context.Context, account fleet.Account, id string, perSecond int) (Edit, error) {
	perSecond, err := s.perSecond(perSecond)
	if err != nil {
		return Edit{}, err
	}
	of, _, err := s.find(ctx, account, id)
	if err != nil {
		return Edit{}, err
	}
	r := &editRecord{
		Schema: schemaVersion, Status: Selecting, UndoOf: id, Query: of.Query, Operation: of.Operation,
		Actor: fleet.ActorFrom(ctx), Created: millis(s.o.Now()), PerSecond: perSecond,
	}
	return s.begin(ctx, account, s.o.NewID(), r, func(found func([]target) error) error {
		for after := ""; ; {
			targets, next, err := s.receipts(ctx, account, id, after)
			if err != nil {
				return err
			}
			for page := range slices.Chunk(targets, pageSize) {
				if err := found(page); err != nil {
					return err
				}
			}
			if next == "" {
				return nil
			}
			after = next
		}
	})
}

// receipts are up to findSize things that an edit has changed, behind a key, all of
// which the caller may bring back. Many at a time, since each scan may read more than
// it is asked for.
func (s *Service) receipts(ctx context.Context, account fleet.Account, id, after string) (targets []target, next string, err error) {
	within := store.Under(kindChanged, string(account), id)
	if after != "" {
		within = within.After(store.Key(after))
	}
	last := ""
	err = s.o.Store.Scan(ctx, within, func(stored store.Record) error {
		if len(targets) == findSize {
			next = last
			return store.Stop
		}
		var of receipt
		if err := decode(stored, &of); err != nil {
			return err
		}
		last = string(stored.Key)
		name := stored.Key.Last()
		if err := s.permit(ctx, account, undoNeeds(name, &of.After, &of.Before)); err != nil {
			return err
		}
		targets = append(targets, target{Name: name, ID: of.Before.ThingID})
		return nil
	})
	return targets, next, store.Fault(err)
}

// mark notes at the edit that an undo takes back which one that is, and refuses
// what cannot be undone. Whoever begins two undos at once fails at one.
func (s *Service) mark(ctx context.Context, b *store.Batch, account fleet.Account, id string, r *editRecord) error {
	if r.UndoOf == "" {
		return nil
	}
	of, version, err := s.find(ctx, account, r.UndoOf)
	if err != nil {
		return err
	}
	switch {
	case of.UndoOf != "":
		return fault.New(fault.Conflict, "bulk edit %s is an undo, which cannot be undone; make an edit", r.UndoOf)
	case of.Operation.Drift != nil:
		return fault.New(fault.Conflict, "bulk edit %s has settled drift, which is not undone; its changes say what was before", r.UndoOf)
	case !of.Status.final():
		return fault.New(fault.Conflict, "bulk edit %s is %s; cancel it before it is undone", r.UndoOf, of.Status)
	}
	if of.UndoneBy != "" {
		if last, _, err := s.find(ctx, account, of.UndoneBy); err == nil && !last.Status.final() {
			return fault.New(fault.Conflict, "bulk edit %s is being undone by %s", r.UndoOf, of.UndoneBy)
		}
	}
	of.UndoneBy = id
	b.Expect = append(b.Expect, store.Expect{Key: editKey(account, r.UndoOf), Version: version})
	return put(b, editKey(account, r.UndoOf), of)
}
