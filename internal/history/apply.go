package history

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// change is one batch in the making.
type change struct {
	batch store.Batch
	// open are the connections that events of the batch end or begin, by their
	// open row; nil for one that has ended.
	open map[store.Key]*record
	// filed counts ended entries by account.
	filed map[fleet.Account]total
}

// Apply is the log's durable consumer: it turns events into writes. Events
// that are in the records already are left out.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	events = relevant(events)
	if len(events) == 0 {
		return store.Batch{}, nil
	}
	done, err := readApplied(ctx, s.store)
	if err != nil {
		return store.Batch{}, err
	}
	c := &change{filed: map[fleet.Account]total{}}
	if c.open, err = s.findOpen(ctx, events); err != nil {
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
	return c.batch, write(&c.batch, appliedKey(), done.version, done)
}

// relevant keeps the events about connections.
func relevant(events []event.Envelope) []event.Envelope {
	var kept []event.Envelope
	for _, env := range events {
		switch env.Event.(type) {
		case event.DeviceConnected, event.DeviceDisconnected, event.ConnectRefused:
			kept = append(kept, env)
		default:
		}
	}
	return kept
}

// findOpen reads the connections that the events end.
func (s *Service) findOpen(ctx context.Context, events []event.Envelope) (map[store.Key]*record, error) {
	var rows []store.Key
	for _, env := range events {
		if e, ok := env.Event.(event.DeviceDisconnected); ok {
			rows = append(rows, openKey(env.Account, e.ClientID, e.Version, e.SessionID))
		}
	}
	return loadOpen(ctx, s.store, rows)
}

// loadOpen reads the records behind open rows, of which some may not exist.
func loadOpen(ctx context.Context, r store.Reader, rows []store.Key) (map[store.Key]*record, error) {
	open := map[store.Key]*record{}
	if len(rows) == 0 {
		return open, nil
	}
	found, err := r.GetMany(ctx, rows)
	if err != nil {
		return nil, fmt.Errorf("read open connections: %w", err)
	}
	var of, keys []store.Key
	for i, row := range found {
		if row.Version == 0 {
			continue
		}
		row.Key = rows[i]
		ref, err := referenceOf(row)
		if err != nil {
			return nil, err
		}
		of, keys = append(of, rows[i]), append(keys, ref.key(fleet.Account(rows[i].Parts()[1])))
	}
	if len(keys) == 0 {
		return open, nil
	}
	records, err := r.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read open connections: %w", err)
	}
	for i, stored := range records {
		if stored.Version == 0 {
			return nil, fmt.Errorf("open connection %s has no record", of[i])
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
	switch e := env.Event.(type) {
	case event.DeviceConnected:
		return c.begin(env.Account, &record{Seq: env.Seq, Began: at, Kind: env.Actor.Principal.Kind, Session: e.Session})
	case event.DeviceDisconnected:
		row := openKey(env.Account, e.ClientID, e.Version, e.SessionID)
		r := c.open[row]
		if r == nil {
			s.o.Logger.WarnContext(ctx, "connection ended whose begin was not told", slog.String("client_id", e.ClientID))
			r = &record{Seq: env.Seq, Kind: env.Actor.Principal.Kind, Session: e.Session}
		}
		return c.end(env.Account, r, at, e.Reason)
	case event.ConnectRefused:
		return c.file(env.Account, &record{
			Seq: env.Seq, Began: at, Ended: at, Refused: true, Reason: e.Reason, Kind: env.Actor.Principal.Kind, Session: e.Session,
		})
	default:
		return nil
	}
}

// begin files a connection as open.
func (c *change) begin(account fleet.Account, r *record) error {
	row := openKey(account, r.Session.ClientID, r.Session.Version, r.Session.SessionID)
	c.open[row] = r
	c.batch.Writes = append(c.batch.Writes, store.Write{Key: row, Value: []byte(placeText(r.reference().place))})
	_, err := r.put(account, &c.batch)
	return err
}

// end files an open connection as ended.
func (c *change) end(account fleet.Account, r *record, at int64, reason string) error {
	row := openKey(account, r.Session.ClientID, r.Session.Version, r.Session.SessionID)
	if r.Began != 0 {
		c.open[row] = nil
		c.batch.Writes = append(c.batch.Writes, store.Write{Key: row, Delete: true})
	}
	r.Ended, r.Reason = at, reason
	return c.file(account, r)
}

// file writes an ended entry and counts it.
func (c *change) file(account fleet.Account, r *record) error {
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
		if err := write(&c.batch, totalKey(kindSize, account), t.version, t); err != nil {
			return err
		}
	}
	return nil
}

// reasonUnknown ends connections whose end was told in events that are lost.
const reasonUnknown = "UNKNOWN"

// rebuildBatch bounds one commit of Rebuild.
const rebuildBatch = 500

// Rebuild goes on after events were trimmed that were not applied: it ends
// what presence no longer knows as connected, begins what it does, and
// remembers that the time before has a gap. It holds all open connections in
// memory.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("rebuild connection history: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	now := s.o.Now()
	repairs, err := s.compare(ctx, snapshot, millis(now))
	if err != nil {
		return store.Cursor{}, err
	}
	for len(repairs) > 0 {
		n := min(len(repairs), rebuildBatch)
		if err := s.repair(ctx, repairs[:n], store.Batch{}); err != nil {
			return store.Cursor{}, err
		}
		repairs = repairs[n:]
	}
	done, err := readApplied(ctx, s.store)
	if err != nil {
		return store.Cursor{}, err
	}
	var b store.Batch
	done.Schema, done.Cursor, done.CompleteSince = schema, snapshot.Cursor().String(), millis(now)
	if err := write(&b, appliedKey(), done.version, done); err != nil {
		return store.Cursor{}, err
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return store.Cursor{}, fmt.Errorf("rebuild connection history: %w", err)
	}
	s.o.Logger.WarnContext(ctx, "connection history has a gap: events were trimmed before they were applied", slog.Time("complete_since", now))
	return snapshot.Cursor(), nil
}

// repair is an open row that must end, or a connection that must begin.
type repair struct {
	account fleet.Account
	row     store.Key
	at      int64
	reason  string
	begin   *record
	// seq is that of the event that the row's connection began with.
	seq uint64
}

// compare finds what differs between the open rows and presence.
func (s *Service) compare(ctx context.Context, snapshot store.Snapshot, now int64) ([]repair, error) {
	type client struct{ account, id string }
	type begun struct {
		row store.Key
		seq uint64
	}
	open := map[client][]begun{}
	err := snapshot.Scan(ctx, store.Under(kindOpen), func(row store.Record) error {
		ref, err := referenceOf(row)
		if err != nil {
			return err
		}
		parts := row.Key.Parts()
		c := client{parts[1], parts[2]}
		open[c] = append(open[c], begun{row.Key, ref.place.seq})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare connection history: %w", err)
	}
	var repairs []repair
	err = s.o.Live(ctx, snapshot, func(l Live) error {
		c := client{string(l.Account), named(l.Session.ClientID)}
		same := openKey(l.Account, l.Session.ClientID, l.Session.Version, l.Session.SessionID)
		known := false
		for _, o := range open[c] {
			switch {
			case o.row != same:
				// It ended before the newest connection began or ended.
				repairs = append(repairs, repair{account: l.Account, row: o.row, seq: o.seq, at: millis(l.At), reason: reasonUnknown})
			case l.Connected:
				known = true
			default:
				repairs = append(repairs, repair{account: l.Account, row: o.row, seq: o.seq, at: millis(l.At), reason: l.Reason})
			}
		}
		delete(open, c)
		if l.Connected && !known {
			repairs = append(repairs, repair{account: l.Account, begin: &record{
				Seq: snapshot.Cursor().Seq(0), Began: millis(l.At), Kind: l.PrincipalKind, Session: l.Session,
			}})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare connection history: %w", err)
	}
	for c, rows := range open {
		for _, o := range rows {
			repairs = append(repairs, repair{account: fleet.Account(c.account), row: o.row, seq: o.seq, at: now, reason: reasonUnknown})
		}
	}
	return repairs, nil
}

// repair commits some repairs together with a guard. Run twice, it finds the rows
// gone.
func (s *Service) repair(ctx context.Context, repairs []repair, guard store.Batch) error {
	var rows []store.Key
	for _, r := range repairs {
		if r.begin == nil {
			rows = append(rows, r.row)
		}
	}
	c := &change{batch: guard, filed: map[fleet.Account]total{}}
	var err error
	if c.open, err = loadOpen(ctx, s.store, rows); err != nil {
		return err
	}
	for _, r := range repairs {
		switch ending := c.open[r.row]; {
		case r.begin != nil:
			err = c.begin(r.account, r.begin)
		case ending != nil:
			err = c.end(r.account, ending, max(r.at, ending.Began), r.reason)
		}
		if err != nil {
			return err
		}
	}
	if err := s.count(ctx, c); err != nil {
		return err
	}
	if _, err := s.store.Commit(ctx, c.batch); err != nil {
		return fmt.Errorf("repair connection history: %w", err)
	}
	return nil
}

// completeSince is the time from which on the history knows who was connected.
func completeSince(ctx context.Context, r store.Reader, account fleet.Account) (time.Time, error) {
	done, err := readApplied(ctx, r)
	if err != nil {
		return time.Time{}, err
	}
	trimmed, err := readTotal(ctx, r, kindTrimmed, account)
	return timeOf(max(done.CompleteSince, trimmed.CompleteSince)), err
}
