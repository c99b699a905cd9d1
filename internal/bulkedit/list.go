package bulkedit

import (
	"context"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// maxListed bounds a page of a list.
const maxListed = 1000

// Describe returns one edit.
func (s *Service) Describe(ctx context.Context, account fleet.Account, id string) (Edit, error) {
	r, _, err := s.find(ctx, account, id)
	if err != nil {
		return Edit{}, err
	}
	return s.edit(account, id, r), nil
}

// List returns one page of an account's edits, newest first.
func (s *Service) List(ctx context.Context, account fleet.Account, after string, limit int) (edits []Edit, next string, err error) {
	rows, next, err := s.page(ctx, store.Under(kindNewest, string(account)), after, limit)
	if err != nil {
		return nil, "", err
	}
	edits = make([]Edit, 0, len(rows))
	for _, row := range rows {
		e, err := s.Describe(ctx, account, row.Key.Last())
		switch {
		case fault.CodeOf(err) == fault.ResourceNotFound: // it is being removed
		case err != nil:
			return nil, "", err
		default:
			edits = append(edits, e)
		}
	}
	return edits, next, nil
}

// Changes returns one page of what an edit has changed, in order of name: all that
// an undo goes by.
func (s *Service) Changes(ctx context.Context, account fleet.Account, id, after string, limit int) (changes []Change, next string, err error) {
	if _, _, err := s.find(ctx, account, id); err != nil {
		return nil, "", err
	}
	rows, next, err := s.page(ctx, store.Under(kindChanged, string(account), id), after, limit)
	if err != nil {
		return nil, "", err
	}
	changes = make([]Change, len(rows))
	for i, row := range rows {
		var r receipt
		if err := decode(row, &r); err != nil {
			return nil, "", err
		}
		changes[i] = Change{Thing: row.Key.Last(), At: moment(r.At), Before: r.Before, After: r.After, Pending: r.Pending}
	}
	return changes, next, nil
}

// Failures returns one page of the things that an edit has not changed and why, in
// order of name.
func (s *Service) Failures(ctx context.Context, account fleet.Account, id, after string, limit int) (failures []Failure, next string, err error) {
	if _, _, err := s.find(ctx, account, id); err != nil {
		return nil, "", err
	}
	rows, next, err := s.page(ctx, store.Under(kindFailed, string(account), id), after, limit)
	if err != nil {
		return nil, "", err
	}
	failures = make([]Failure, len(rows))
	for i, row := range rows {
		var f failure
		if err := decode(row, &f); err != nil {
			return nil, "", err
		}
		failures[i] = Failure{Thing: row.Key.Last(), At: moment(f.At), Code: f.Code, Message: f.Message, Conflict: f.Conflict}
	}
	return failures, next, nil
}

// page reads up to limit records behind a key.
func (s *Service) page(ctx context.Context, within store.Range, after string, limit int) (rows []store.Record, next string, err error) {
	if limit < 1 || limit > maxListed {
		return nil, "", fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxListed)
	}
	if after != "" {
		within = within.After(store.Key(after))
	}
	err = s.o.Store.Scan(ctx, within, func(r store.Record) error {
		if len(rows) == limit {
			next = string(rows[limit-1].Key)
			return store.Stop
		}
		rows = append(rows, r)
		return nil
	})
	return rows, next, store.Fault(err)
}
