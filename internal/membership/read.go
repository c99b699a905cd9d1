package membership

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Bounds of a page.
const (
	// MaxPage is the most entries that a page may hold.
	MaxPage = 250
	// chunk is how many rows are read at once.
	chunk = 256
	// maxLook is after how many entries a page ends that finds nothing.
	maxLook = 5000
)

// Query asks for a part of a group's or thing's entries.
type Query struct {
	// From and To bound the time: entries that began before To and had not ended
	// by From. Zero is no bound.
	From, To time.Time
	// After is Page.Next of the page before, empty for the first.
	After string
	// Limit is how many entries to return, 1 to MaxPage.
	Limit int
}

// At is the query for what lasted at a moment.
func At(moment time.Time) Query {
	return Query{From: moment, To: moment.Add(time.Millisecond)}
}

// Page is a part of a list.
type Page struct {
	Entries []Entry
	// Next is where the list goes on; empty at its end. A page may be short or
	// empty and still have a next one.
	Next string
}

// check names the field and the rule that is broken.
func (q Query) check() error {
	if q.Limit < 1 || q.Limit > MaxPage {
		return fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", q.Limit, MaxPage)
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return fault.New(fault.InvalidRequest, "from: must be before to")
	}
	return nil
}

// OfGroup returns the memberships of a group, those that began last first.
func (s *Service) OfGroup(ctx context.Context, account fleet.Account, group string, q Query) (Page, error) {
	return s.page(ctx, account, q, kindOfGroup, "group", group)
}

// OfThing returns the memberships of a thing, those that began last first.
func (s *Service) OfThing(ctx context.Context, account fleet.Account, thing string, q Query) (Page, error) {
	return s.page(ctx, account, q, kindOfThing, "thing", thing)
}

// Lasting returns the membership of a thing in a group that lasts; false when
// there is none.
func (s *Service) Lasting(ctx context.Context, account fleet.Account, group, thing string) (Entry, bool, error) {
	open, err := loadOpen(ctx, s.store, []store.Key{openKey(account, thing, group)})
	if err != nil {
		return Entry{}, false, err
	}
	for _, r := range open {
		return r.entry(), true, nil
	}
	return Entry{}, false, nil
}

// page walks the rows of one name from new to old.
func (s *Service) page(ctx context.Context, account fleet.Account, q Query, kind, field, name string) (Page, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return Page{}, fault.New(fault.InvalidRequest, "%s: must not be empty or contain the character U+0000", field)
	}
	if err := q.check(); err != nil {
		return Page{}, err
	}
	rows := store.Under(kind, string(account), name)
	if !q.To.IsZero() {
		rows.From = max(rows.From, store.K(kind, string(account), name, down(uint64(max(q.To.UnixMilli()-1, 0)))))
	}
	if q.After != "" {
		rows = rows.After(store.Key(q.After))
	}
	var page Page
	var last store.Key
	for looked := 0; looked < maxLook; {
		keys, records, err := s.load(ctx, rows)
		if err != nil {
			return Page{}, err
		}
		for i, r := range records {
			if r == nil || !q.reaches(r) {
				continue
			}
			if len(page.Entries) == q.Limit {
				page.Next = string(last)
				return page, nil
			}
			page.Entries, last = append(page.Entries, r.entry()), keys[i]
		}
		if len(keys) < chunk {
			return page, nil
		}
		looked += len(keys)
		last = keys[len(keys)-1]
		rows = rows.After(last)
	}
	page.Next = string(last)
	return page, nil
}

// reaches reports whether an entry that began before To lasts into the asked
// time.
func (q Query) reaches(r *record) bool {
	return q.From.IsZero() || r.Ended == 0 || r.Ended > q.From.UnixMilli()
}

// load reads up to chunk rows with their records; a record that retention took
// meanwhile is nil.
func (s *Service) load(ctx context.Context, rows store.Range) ([]store.Key, []*record, error) {
	found, err := scan(ctx, s.store, rows, chunk)
	if err != nil {
		return nil, nil, err
	}
	keys := make([]store.Key, len(found))
	for i, row := range found {
		keys[i] = row.Key
	}
	records, err := behind(ctx, s.store, found)
	return keys, records, err
}

// scan reads up to n records of a range.
func scan(ctx context.Context, r store.Reader, in store.Range, n int) ([]store.Record, error) {
	var found []store.Record
	err := r.Scan(ctx, in, func(stored store.Record) error {
		if found = append(found, stored); len(found) == n {
			return store.Stop
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.Stop) {
		return nil, fmt.Errorf("read membership history: %w", err)
	}
	return found, nil
}

// behind decodes the records that rows point to, in their order, nil for one
// that is gone.
func behind(ctx context.Context, r store.Reader, rows []store.Record) ([]*record, error) {
	records := make([]*record, len(rows))
	if len(rows) == 0 {
		return records, nil
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		var err error
		if keys[i], err = keyBehind(row.Key); err != nil {
			return nil, err
		}
	}
	stored := rows
	if keys[0] != rows[0].Key {
		var err error
		if stored, err = r.GetMany(ctx, keys); err != nil {
			return nil, fmt.Errorf("read membership history: %w", err)
		}
	}
	for i := range stored {
		if stored[i].Version == 0 {
			continue
		}
		var err error
		if records[i], err = decode(stored[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}
