package connectivity

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// reasonUnknown ends connections of which presence knows nothing.
const reasonUnknown = "UNKNOWN"

// Difference is a record that disagrees with what else is stored.
type Difference struct {
	Account fleet.Account
	// Key is that of the record where it disagrees with presence, and that of the
	// row of a timer where row and record disagree.
	Key store.Key
	// Have is what the record, or the row, says; Want is what presence, or the
	// record, says.
	Have, Want string
}

// Differences reports the things whose state and presence disagree about who is
// connected, and the timers whose rows and records do, in one frozen state. It
// returns how many connections it compared and that state's place in the event
// log: the records follow the log, and what is still found after they have
// followed to that place is wrong. It holds all of these connections in memory.
func (s *Service) Differences(ctx context.Context, report func(Difference)) (compared int, at store.Cursor, err error) {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return 0, at, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	newest, err := s.newest(ctx, snapshot, nil)
	if err != nil {
		return 0, at, err
	}
	compared = len(newest)
	rows := map[store.Key]thingKey{}
	err = snapshot.Scan(ctx, store.Under(kindTimer), func(row store.Record) error {
		t, err := timerOf(row.Key)
		rows[row.Key] = t.thingKey
		return err
	})
	if err != nil {
		return 0, at, fmt.Errorf("read timers: %w", err)
	}
	err = snapshot.Scan(ctx, store.Under(kindRecord), func(stored store.Record) error {
		r, err := decode(stored)
		if err != nil {
			return err
		}
		parts := stored.Key.Parts()
		k := thingKey{fleet.Account(parts[1]), parts[2]}
		r.missing(k, rows, func(row store.Key) {
			report(Difference{k.account, row, "absent", "present"})
		})
		p := newest[k]
		delete(newest, k)
		if r.contradicts(p) {
			report(Difference{k.account, stored.Key, r.word(), p.word()})
		}
		return nil
	})
	if err != nil {
		return 0, at, fmt.Errorf("read connectivity: %w", err)
	}
	for row, k := range rows {
		report(Difference{k.account, row, "present", "absent"})
	}
	for k, p := range newest {
		if p.counts() {
			report(Difference{k.account, recordKey(k), newRecord().word(), p.word()})
		}
	}
	return compared, snapshot.Cursor(), nil
}

// newest reads the newest connection of each client that is a thing, of those
// that are asked for, or of all for nil.
func (s *Service) newest(ctx context.Context, r store.Reader, asked map[thingKey]bool) (map[thingKey]*Past, error) {
	exists := map[thingKey]bool{}
	err := s.o.Registry.EachThing(ctx, r, func(account fleet.Account, thing string) error {
		if k := (thingKey{account, thing}); asked == nil || asked[k] {
			exists[k] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read things: %w", err)
	}
	found := map[thingKey]*Past{}
	err = s.o.Live(ctx, r, func(p Past) error {
		if k := (thingKey{p.Account, p.Session.ClientID}); exists[k] {
			found[k] = &p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read connections: %w", err)
	}
	return found, nil
}

// missing takes the timers of a record out of the rows and reports those that are
// not there.
func (r *record) missing(k thingKey, rows map[store.Key]thingKey, report func(store.Key)) {
	for _, which := range []string{timerState, timerFlap} {
		due := r.timer(which)
		if due == 0 {
			continue
		}
		row := timerKey(due, k, which)
		if _, ok := rows[row]; !ok {
			report(row)
		}
		delete(rows, row)
	}
}

// counts reports whether presence has the thing connected. None is nil, and not
// connected.
func (p *Past) counts() bool { return p != nil && p.Connected && p.Session.Indexed }

// word is what presence says of a thing.
func (p *Past) word() string {
	if !p.counts() {
		return "not connected"
	}
	return "connected by " + p.Session.ConnectionID
}

// word is what a record says of its thing's own connection.
func (r *record) word() string {
	if !r.ownLive() {
		return "not connected, " + string(r.State)
	}
	return fmt.Sprintf("connected by %s, %s", r.Session.ConnectionID, r.State)
}

// ownLive reports whether a record takes its thing for connected itself, by
// session or by state. A device that is provisioned is not in service yet.
func (r *record) ownLive() bool {
	return r.State != Provisioning && r.Session.ClientID != "" && (r.Session.Live || r.State.connected())
}

// contradicts reports whether a record is not as what presence knows makes it. A
// thing that a gateway speaks for has no connection to compare.
func (r *record) contradicts(p *Past) bool {
	switch {
	case !p.counts():
		return r.ownLive()
	case r.Session.ConnectionID != p.Session.ConnectionID || !r.Session.Live:
		return true
	default:
		return r.State.away() || r.State == NeverSeen
	}
}

// Mend makes of what presence knows the inputs that the records with these keys
// missed, and writes and removes the rows of timers with these keys, where they
// still differ. What follows from it, a change of state with its event, follows
// as ever.
func (s *Service) Mend(ctx context.Context, keys []store.Key) error {
	asked := map[thingKey]bool{}
	var timers []timer
	for _, key := range keys {
		parts := key.Parts()
		if parts[0] == kindRecord {
			asked[thingKey{fleet.Account(parts[1]), parts[2]}] = true
			continue
		}
		t, err := timerOf(key)
		if err != nil {
			return err
		}
		timers = append(timers, t)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	// Under the lock no record is behind this state but by the log, whose events
	// find done then what they tell.
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	newest, err := s.newest(ctx, snapshot, asked)
	if err != nil {
		return err
	}
	things := slices.SortedFunc(maps.Keys(asked), func(a, b thingKey) int {
		return strings.Compare(string(recordKey(a)), string(recordKey(b)))
	})
	for len(things) > 0 {
		n := min(len(things), batchThings)
		b := s.newBatch()
		if err := b.load(ctx, things[:n]...); err != nil {
			return err
		}
		for _, k := range things[:n] {
			if err := s.mend(ctx, b, b.slots[k], newest[k]); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		things = things[n:]
	}
	return s.mendTimers(ctx, timers)
}

// mend carries what presence knows into one record.
func (s *Service) mend(ctx context.Context, b *batch, one *slot, p *Past) error {
	r := one.record
	if r == nil && p.counts() {
		return s.carryOver(ctx, b, p)
	}
	if r == nil || !r.contradicts(p) {
		return nil
	}
	r = r.clone()
	one.record = r
	if p.counts() {
		// Whatever it takes for its newest connection has ended.
		r.Session = session{ClientID: r.Session.ClientID, Reason: r.Session.Reason}
		return s.carryOver(ctx, b, p)
	}
	// It is not connected: the end of what it takes for its connection was missed.
	r.Session.Live = true
	in := &input{kind: inDisconnect, at: b.now, session: r.Session}
	in.session.Reason = reasonUnknown
	if p != nil && p.Session.ConnectionID == r.Session.ConnectionID {
		in.at, in.session.Reason = p.At.UnixMilli(), p.Reason
	}
	in.base = s.clock.base(in.at, b.now)
	_, err := b.decide(ctx, one.thingKey, in)
	return err
}

// mendTimers makes the rows of timers agree with the records.
func (s *Service) mendTimers(ctx context.Context, timers []timer) error {
	for len(timers) > 0 {
		n := min(len(timers), batchThings)
		b := s.newBatch()
		for _, t := range timers[:n] {
			one, err := b.at(ctx, t.thingKey)
			if err != nil {
				return err
			}
			w := store.Write{Key: timerKey(t.due, t.thingKey, t.which), Value: []byte("{}")}
			if one.record.timer(t.which) != t.due {
				w = store.Write{Key: w.Key, Delete: true}
			}
			b.writes = append(b.writes, w)
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		timers = timers[n:]
	}
	// Timers that were not there may be due long since.
	s.next, s.floor = 0, 0
	return nil
}
