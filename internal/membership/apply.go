package membership

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// change is one batch in the making.
type change struct {
	batch store.Batch
	// open are the memberships that events of the batch begin or end, by their
	// open row; nil for one that does not last.
	open map[store.Key]*record
	// filed counts ended entries by account.
	filed map[fleet.Account]total
}

// Apply is the log's durable consumer: it turns events into writes. Events that
// are in the records already are left out.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	rows := openRows(events)
	if len(rows) == 0 {
		return store.Batch{}, nil
	}
	done, err := readApplied(ctx, s.store)
	if err != nil {
		return store.Batch{}, err
	}
	c := &change{filed: map[fleet.Account]total{}}
	if c.open, err = loadOpen(ctx, s.store, rows); err != nil {
		return store.Batch{}, err
	}
	cursor := done.cursor
	for _, env := range events {
		at := store.Position{Partition: env.Partition, Seq: env.Seq}
		if cursor.Covers(at) {
			continue
		}
		cursor = cursor.Advance(at)
		if err := s.apply(ctx, c, env); err != nil {
			return store.Batch{}, err
		}
	}
	if len(c.batch.Writes) == 0 {
		return store.Batch{}, nil
	}
	if err := s.count(ctx, c); err != nil {
		return store.Batch{}, err
	}
	done.Schema, done.Cursor = schema, cursor.String()
	return c.batch, write(&c.batch, store.K(kindApplied), done.version, done)
}

// openRows are the open rows that events look at.
func openRows(events []event.Envelope) []store.Key {
	var rows []store.Key
	for _, env := range events {
		switch e := env.Event.(type) { //nolint:gochecksumtype // nothing else is a membership
		case event.MembershipChanged:
			rows = append(rows, openKey(env.Account, e.Thing, e.Group))
		case event.ThingDeleted:
			for _, group := range e.Groups {
				rows = append(rows, openKey(env.Account, e.Thing, group))
			}
		}
	}
	return rows
}

// loadOpen reads the records behind open rows, of which some may not exist.
func loadOpen(ctx context.Context, r store.Reader, rows []store.Key) (map[store.Key]*record, error) {
	open := map[store.Key]*record{}
	if len(rows) == 0 {
		return open, nil
	}
	found, err := r.GetMany(ctx, rows)
	if err != nil {
		return nil, fmt.Errorf("read open memberships: %w", err)
	}
	var of, keys []store.Key
	for i, at := range rows {
		row := found[i]
		if row.Version == 0 {
			continue
		}
		row.Key = at
		key, err := keyBehindOpen(row)
		if err != nil {
			return nil, err
		}
		of, keys = append(of, at), append(keys, key)
	}
	if len(keys) == 0 {
		return open, nil
	}
	records, err := r.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read open memberships: %w", err)
	}
	for i, stored := range records {
		if stored.Version == 0 {
			return nil, fmt.Errorf("open membership %s has no record", of[i])
		}
		if open[of[i]], err = decode(stored); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// apply adds one event to the change.
func (s *Service) apply(ctx context.Context, c *change, env event.Envelope) error {
	at := millis(env.At)
	switch e := env.Event.(type) { //nolint:gochecksumtype // nothing else is a membership
	case event.MembershipChanged:
		why := causeOf(env, e)
		if e.Added {
			return c.begin(env.Account, &record{
				Seq: env.Seq, Began: at, Group: e.Group, Thing: e.Thing, Dynamic: e.Dynamic, Joined: why,
			})
		}
		r := c.open[openKey(env.Account, e.Thing, e.Group)]
		if r == nil {
			s.o.Logger.WarnContext(ctx, "membership ended whose begin was not told", slog.String("group", e.Group), slog.String("thing", e.Thing))
			r = &record{Seq: env.Seq, Group: e.Group, Thing: e.Thing, Dynamic: e.Dynamic}
		}
		return c.end(env.Account, r, at, why)
	case event.ThingDeleted:
		for _, group := range e.Groups {
			r := c.open[openKey(env.Account, e.Thing, group)]
			if r == nil {
				continue
			}
			if err := c.end(env.Account, r, at, &Cause{Kind: CauseThing, Actor: &env.Actor}); err != nil {
				return err
			}
		}
	}
	return nil
}

// causeOf is why an event's membership changed.
func causeOf(env event.Envelope, e event.MembershipChanged) *Cause {
	switch why := e.Cause; {
	case why != nil:
		c := &Cause{Kind: why.Kind, Field: why.Field, Predicate: why.Predicate, Value: why.Value, Seq: why.Seq}
		if !why.At.IsZero() {
			c.SourceAt = millis(why.At)
		}
		return c
	case !e.Dynamic:
		return &Cause{Kind: CauseRequest, Actor: &env.Actor}
	case !e.Added:
		return &Cause{Kind: CauseGroup, Actor: &env.Actor}
	}
	return &Cause{Kind: CauseUnknown}
}

// begin files a membership as lasting. One that lasts already has missed its
// end.
func (c *change) begin(account fleet.Account, r *record) error {
	row := openKey(account, r.Thing, r.Group)
	if before := c.open[row]; before != nil {
		if err := c.end(account, before, max(r.Began, before.Began), &Cause{Kind: CauseUnknown}); err != nil {
			return err
		}
	}
	c.open[row] = r
	p := r.place()
	c.batch.Writes = append(c.batch.Writes, store.Write{Key: row, Value: []byte(store.K(p[0], p[1]))})
	_, err := r.put(account, &c.batch)
	return err
}

// end files a membership as ended and counts it.
func (c *change) end(account fleet.Account, r *record, at int64, why *Cause) error {
	if r.Began != 0 {
		row := openKey(account, r.Thing, r.Group)
		c.open[row] = nil
		c.batch.Writes = append(c.batch.Writes, store.Write{Key: row, Delete: true})
	}
	r.Ended, r.Left = max(at, r.Began), why
	bytes, err := r.put(account, &c.batch)
	if err != nil {
		return err
	}
	t := c.filed[account]
	t.Entries++
	t.Bytes += bytes
	c.filed[account] = t
	return nil
}

// count adds what the change files to the counts of its accounts.
func (s *Service) count(ctx context.Context, c *change) error {
	for account, filed := range c.filed {
		t, err := readTotal(ctx, s.store, kindSize, account)
		if err != nil {
			return err
		}
		t.Schema = schema
		t.Entries += filed.Entries
		t.Bytes += filed.Bytes
		if err := write(&c.batch, store.K(kindSize, string(account)), t.version, t); err != nil {
			return err
		}
	}
	return nil
}
