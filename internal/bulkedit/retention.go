package bulkedit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// trimBatch bounds one commit that removes.
const trimBatch = 500

// Trim removes the edits that were finished too long ago, with all that is kept
// about their things. An edit that is being undone stays.
func (s *Service) Trim(ctx context.Context) error {
	oldest := millis(s.o.Now().Add(-s.o.RetentionAge))
	var old []place
	err := s.o.Store.Scan(ctx, store.Under(kindEdit), func(stored store.Record) error {
		var r editRecord
		if err := decode(stored, &r); err != nil {
			return err
		}
		if r.Status.final() && r.Finished < oldest {
			parts := stored.Key.Parts()
			old = append(old, place{fleet.Account(parts[1]), parts[2]})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("trim bulk edits: %w", err)
	}
	for _, at := range old {
		r, _, err := s.find(ctx, at.account, at.id)
		if err != nil {
			return err
		}
		if r.UndoneBy != "" {
			if undo, _, err := s.find(ctx, at.account, r.UndoneBy); err == nil && !undo.Status.final() {
				continue
			}
		}
		if err := s.remove(ctx, at.account, at.id, r); err != nil {
			return err
		}
		s.o.Logger.InfoContext(ctx, "old bulk edit removed", slog.String("account", string(at.account)), slog.String("bulk_edit", at.id))
	}
	return nil
}

// remove deletes what belongs to an edit, and its record last: whoever is
// interrupted finds it again.
func (s *Service) remove(ctx context.Context, account fleet.Account, id string, r *editRecord) error {
	for _, kind := range []string{kindThings, kindChanged, kindFailed} {
		// From where the last commit ended: what lies before is gone, but an engine
		// has to step over it.
		for after := ""; ; {
			rows, next, err := s.page(ctx, store.Under(kind, string(account), id), after, trimBatch)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			var b store.Batch
			for _, row := range rows {
				b.Writes = append(b.Writes, store.Write{Key: row.Key, Delete: true})
			}
			if _, err := s.o.Store.Commit(ctx, b); err != nil {
				return store.Fault(err)
			}
			if next == "" {
				break
			}
			after = next
		}
	}
	_, err := s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{
		{Key: newestKey(account, id, r.Created), Delete: true},
		{Key: editKey(account, id), Delete: true},
	}})
	return store.Fault(err)
}

// discard removes an edit that did not begin, and gives up its place.
func (s *Service) discard(ctx context.Context, account fleet.Account, id string) error {
	r, _, err := s.find(ctx, account, id)
	if err != nil {
		return err
	}
	if err := s.unmark(ctx, account, r.UndoOf, id); err != nil {
		return err
	}
	for range maxAttempts {
		var b store.Batch
		if err := s.leave(ctx, &b, account, id); err != nil {
			return err
		}
		// The record stays until the rest is gone, but without a place nobody
		// looks at it again: it is final.
		r.Status, r.Finished = Canceled, r.Created
		if err := put(&b, editKey(account, id), r); err != nil {
			return err
		}
		_, err := s.o.Store.Commit(ctx, b)
		if err == nil {
			return s.remove(ctx, account, id, r)
		}
		if !errors.Is(err, store.ErrConflict) {
			return store.Fault(err)
		}
	}
	return errors.New("discard a bulk edit: too many others change theirs")
}

// unmark takes back what mark has noted.
func (s *Service) unmark(ctx context.Context, account fleet.Account, of, id string) error {
	if of == "" {
		return nil
	}
	_, err := s.step(ctx, account, of, func(r *editRecord) (bool, error) {
		if r.UndoneBy != id {
			return false, nil
		}
		r.UndoneBy = ""
		return true, nil
	})
	return err
}
