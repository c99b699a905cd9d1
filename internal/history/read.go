package history

import (
	"context"
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
	// overlap is how long after the begin of its successor a connection may
	// still end; the broker ends a connection that is taken over at once.
	overlap = time.Minute
)

// Query asks for a part of a client's or thing's entries.
type Query struct {
	// From and To bound the time: entries that began before To and had not
	// ended by From. Zero is no bound.
	From, To time.Time
	// After is Page.Next of the page before, empty for the first.
	After string
	// Limit is how many entries to return, 1 to MaxPage.
	Limit int
}

// Page is a part of a list.
type Page struct {
	Connections []Connection
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

// checkName keeps a name from reaching into other keys.
func checkName(field, name string) error {
	if name == "" || strings.ContainsRune(name, 0) {
		return fault.New(fault.InvalidRequest, "%s: must not be empty or contain the character U+0000", field)
	}
	return nil
}

// OfClient returns a client id's entries, newest first.
func (s *Service) OfClient(ctx context.Context, account fleet.Account, clientID string, q Query) (Page, error) {
	if err := checkName("clientId", clientID); err != nil {
		return Page{}, err
	}
	return s.page(ctx, account, q, kindEntry, clientID)
}

// OfThing returns a thing's entries, newest first: see Connection.Thing.
func (s *Service) OfThing(ctx context.Context, account fleet.Account, thing string, q Query) (Page, error) {
	if err := checkName("thing", thing); err != nil {
		return Page{}, err
	}
	return s.page(ctx, account, q, kindThing, thing)
}

// page walks rows of one name from new to old.
func (s *Service) page(ctx context.Context, account fleet.Account, q Query, kind, name string) (Page, error) {
	if err := q.check(); err != nil {
		return Page{}, err
	}
	name = named(name)
	rows := store.Under(kind, string(account), name)
	if !q.To.IsZero() {
		rows.From = max(rows.From, store.K(kind, string(account), name, downTime(millis(q.To)-1)))
	}
	if q.After != "" {
		rows = rows.After(store.Key(q.After))
	}
	var page Page
	var last store.Key
	for looked := 0; looked < maxLook; {
		keys, records, err := s.load(ctx, account, rows)
		if err != nil {
			return Page{}, err
		}
		for i, r := range records {
			if r == nil {
				continue
			}
			if !q.overlaps(r) {
				if kind == kindEntry && q.passed(r) {
					return page, nil
				}
				continue
			}
			if len(page.Connections) == q.Limit {
				page.Next = string(last)
				return page, nil
			}
			page.Connections, last = append(page.Connections, r.connection()), keys[i]
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

// overlaps reports whether an entry that began before To reaches into the
// asked time.
func (q Query) overlaps(r *record) bool {
	if q.From.IsZero() || r.Ended == 0 {
		return true
	}
	from := millis(q.From)
	return r.Ended > from || r.Ended == from && (r.Refused || r.Began == r.Ended)
}

// passed reports whether no older entry of the client can reach into the asked
// time: it has one connection at a time, but for a moment at takeovers. A thing
// may have several, by client ids of its exclusive principal.
func (q Query) passed(r *record) bool {
	return !r.Refused && r.Began != 0 && r.Ended <= millis(q.From.Add(-overlap))
}

// load reads up to chunk rows with their records; a record that retention
// took meanwhile is nil.
func (s *Service) load(ctx context.Context, account fleet.Account, rows store.Range) ([]store.Key, []*record, error) {
	found, err := scan(ctx, s.store, rows, chunk)
	if err != nil {
		return nil, nil, err
	}
	keys := make([]store.Key, len(found))
	for i, row := range found {
		keys[i] = row.Key
	}
	if len(found) > 0 && found[0].Key.Parts()[0] != kindEntry {
		if found, err = behind(ctx, s.store, account, found); err != nil {
			return nil, nil, err
		}
	}
	records := make([]*record, len(found))
	for i, stored := range found {
		if stored.Version == 0 {
			continue
		}
		if records[i], err = decode(stored); err != nil {
			return nil, nil, err
		}
	}
	return keys, records, nil
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
	if err != nil {
		return nil, fmt.Errorf("read connection history: %w", err)
	}
	return found, nil
}

// behind reads the records that rows point to, in their order.
func behind(ctx context.Context, r store.Reader, account fleet.Account, rows []store.Record) ([]store.Record, error) {
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		ref, err := referenceOf(row)
		if err != nil {
			return nil, err
		}
		keys[i] = ref.key(account)
	}
	records, err := r.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read connection history: %w", err)
	}
	for i := range records {
		records[i].Key = keys[i]
	}
	return records, nil
}
