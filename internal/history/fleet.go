package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// catchUpPatience bounds the wait for events that were told already.
const catchUpPatience = 2 * time.Second

// FleetQuery asks who was connected at a moment.
type FleetQuery struct {
	// At is the moment, in whole milliseconds.
	At time.Time
	// After is Page.Next of the page before, empty for the first.
	After string
	// Limit is how many connections to return, 1 to MaxPage.
	Limit int
}

// FleetPage is a part of those who were connected.
type FleetPage struct {
	Page
	// Count is how many there were in all; set on the first page only, since
	// it takes a walk over all of them.
	Count int
}

// ConnectedAt returns the connections that lasted at a moment, in no
// particular order. A connection that ends while somebody turns pages may be
// listed twice, but none is left out.
func (s *Service) ConnectedAt(ctx context.Context, account fleet.Account, q FleetQuery) (FleetPage, error) {
	if err := (Query{Limit: q.Limit}).check(); err != nil {
		return FleetPage{}, err
	}
	if q.At.IsZero() {
		return FleetPage{}, fault.New(fault.InvalidRequest, "at: is needed")
	}
	if q.At.After(s.o.Now()) {
		return FleetPage{}, fault.New(fault.InvalidRequest, "at: must not be in the future")
	}
	if err := s.catchUp(ctx); err != nil {
		return FleetPage{}, err
	}
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return FleetPage{}, fmt.Errorf("read connection history: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	since, err := completeSince(ctx, snapshot, account)
	if err != nil {
		return FleetPage{}, err
	}
	if q.At.Before(since) {
		return FleetPage{}, fault.New(fault.InvalidRequest, "at: the history knows who was connected from %s on", since.Format(rfc3339Millis))
	}
	return fleetAt(ctx, snapshot, account, q)
}

// rfc3339Millis is how messages tell times.
const rfc3339Millis = "2006-01-02T15:04:05.000Z07:00"

// catchUp waits a moment for the consumer.
func (s *Service) catchUp(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, catchUpPatience)
	defer cancel()
	err := s.o.CatchUp(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fault.Wrap(fault.Unavailable, err, "The connection history is behind the event log; try again")
	}
	return err
}

// fleetAt walks the ranges that hold the connections of a moment: the open
// ones first, so that one which ends between two pages is met again, not missed.
func fleetAt(ctx context.Context, r store.Reader, account fleet.Account, q FleetQuery) (FleetPage, error) {
	var page FleetPage
	var rows []store.Record
	at, first, begun := millis(q.At), q.After == "", q.After == ""
	for _, in := range rangesAt(account, at) {
		if !begun {
			if key := store.Key(q.After); key < in.From || key >= in.To {
				continue
			}
			begun = true
			in = in.After(store.Key(q.After))
		}
		err := r.Scan(ctx, in, func(row store.Record) error {
			lasted, err := begunBy(row, at)
			switch {
			case err != nil:
				return err
			case !lasted:
				return nil
			case len(rows) < q.Limit:
				rows = append(rows, row)
			case page.Next == "":
				page.Next = string(rows[len(rows)-1].Key)
			}
			if page.Count++; !first && page.Next != "" {
				return store.Stop
			}
			return nil
		})
		if err != nil {
			return FleetPage{}, fmt.Errorf("read connection history: %w", err)
		}
		if !first && page.Next != "" {
			break
		}
	}
	if !first {
		page.Count = 0
	}
	records, err := behind(ctx, r, account, rows)
	if err != nil {
		return FleetPage{}, err
	}
	for i, stored := range records {
		if stored.Version == 0 {
			return FleetPage{}, fmt.Errorf("row %s has no record", rows[i].Key)
		}
		found, err := decode(stored)
		if err != nil {
			return FleetPage{}, err
		}
		page.Connections = append(page.Connections, found.connection())
	}
	return page, nil
}

// begunBy reports whether the connection of a row had begun. Rows of ended
// connections are in the range because they had.
func begunBy(row store.Record, at int64) (bool, error) {
	ref, err := referenceOf(row)
	return ref.place.at <= at, err
}

// rangesAt are where connections are filed that lasted at a moment.
func rangesAt(account fleet.Account, at int64) []store.Range {
	of := string(account)
	ranges := []store.Range{store.Under(kindOpen, of)}
	for _, node := range path(at) {
		name := upTime(node)
		if node <= at {
			// All here began by the node; those count that ended after the moment.
			ranges = append(ranges, store.Range{From: store.K(kindUntil, of, name, upTime(at+1)), To: store.Under(kindUntil, of, name).To})
		} else {
			// All here lasted to the node; those count that began by the moment.
			ranges = append(ranges, store.Range{From: store.Under(kindFrom, of, name).From, To: store.K(kindFrom, of, name, upTime(at+1))})
		}
	}
	return ranges
}
