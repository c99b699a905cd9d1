package connectivity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// slot is one thing in a batch.
type slot struct {
	thingKey
	// record is as the batch leaves it, nil for a thing of which nothing is
	// stored; before and value are what the store has, version its version.
	record, before *record
	value          []byte
	version        uint64
	// set is what is in force, nil until somebody asked.
	set *InForce
}

// batch is one commit in the making. What it means for the memory of the service
// happens after the commit.
type batch struct {
	s     *Service
	now   int64
	slots map[thingKey]*slot
	order []*slot

	events  []event.Envelope
	writes  []store.Write
	ignored map[string]int
	moves   map[[2]State]int
	// things and gateways are changes of counts.
	things   map[fleet.Account]int
	gateways map[thingKey]int
	// done is called after the commit.
	done []func()
	// cursor is written with the batch when it is set; save says that it is worth
	// a commit of its own.
	cursor *store.Cursor
	save   bool
}

func (s *Service) newBatch() *batch {
	return &batch{
		s: s, now: s.now(), slots: map[thingKey]*slot{}, ignored: map[string]int{}, moves: map[[2]State]int{},
		things: map[fleet.Account]int{}, gateways: map[thingKey]int{},
	}
}

// load reads records that decisions will be about.
func (b *batch) load(ctx context.Context, things ...thingKey) error {
	var missing []thingKey
	var keys []store.Key
	asked := map[thingKey]bool{}
	for _, k := range things {
		if b.slots[k] == nil && !asked[k] {
			asked[k] = true
			missing, keys = append(missing, k), append(keys, recordKey(k))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := b.s.store.GetMany(ctx, keys)
	if err != nil {
		return fmt.Errorf("read connectivity: %w", err)
	}
	for i, stored := range found {
		one := &slot{thingKey: missing[i]}
		if stored.Version != 0 {
			stored.Key = keys[i]
			if one.before, err = decode(stored); err != nil {
				return err
			}
			one.record, one.value, one.version = one.before, stored.Value, stored.Version
		}
		b.slots[one.thingKey] = one
		b.order = append(b.order, one)
	}
	return nil
}

// at returns a thing's slot.
func (b *batch) at(ctx context.Context, k thingKey) (*slot, error) {
	if err := b.load(ctx, k); err != nil {
		return nil, err
	}
	return b.slots[k], nil
}

// jitterOf spreads what would happen at once: it is between 0 and 1, and the same
// for the same change of the same thing.
func jitterOf(k thingKey, version int64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.thing + "\x00" + string(k.account) + "\x00" + strconv.FormatInt(version, 10))) // a hash takes everything
	return float64(h.Sum64()>>11) / float64(1<<53)
}

// decide carries an input into a thing's record and returns why it changed
// nothing, empty when it did.
func (b *batch) decide(ctx context.Context, k thingKey, in *input) (ignored string, err error) {
	one, err := b.at(ctx, k)
	if err != nil {
		return "", err
	}
	if one.set == nil {
		set, err := b.s.inForce(ctx, k)
		if err != nil {
			return "", err
		}
		one.set = &set
	}
	current := one.record
	if current == nil {
		current = newRecord()
	}
	next := current.clone()
	if in.base == 0 {
		in.base = in.at
	}
	d := &decision{r: next, in: in, set: one.set, now: b.now, jitter: jitterOf(k, next.StateVersion)}
	d.decide()
	if d.ignored != "" {
		b.ignored[d.ignored]++
	}
	if d.ignored != "" && one.record == nil {
		// What has nothing to do with a thing that is known leaves no trace.
		return d.ignored, nil
	}
	if in.kind == inHeard && len(d.changes) == 0 && next.Interval == current.Interval {
		// A sign of life that changes nothing is not worth a write.
		return d.ignored, nil
	}
	one.record = next
	for i := range d.changes {
		b.tell(one, &d.changes[i])
	}
	return d.ignored, nil
}

// tell adds the event of a change.
func (b *batch) tell(one *slot, c *change) {
	r := one.record
	b.moves[[2]State{c.From, c.To}]++
	b.events = append(b.events, event.Envelope{
		Account: one.account, At: time.UnixMilli(c.At).UTC(), Actor: fleet.System,
		Event: event.ConnectivityStateChanged{
			Thing: one.thing, ClientID: r.Session.ClientID, StateVersion: c.Version, From: string(c.From), To: string(c.To),
			Since: time.UnixMilli(c.Since).UTC(), DisconnectReason: c.Reason, Clean: c.Reason != "" && cleanEnd(c.Reason),
			Wait: time.Duration(c.Wait) * time.Millisecond, SessionID: r.Session.SessionID, ConnectionVersion: r.Session.Version,
			FlapScore: math.Round(r.flapScore(c.At)*1000) / 1000, Flapping: r.Flapping, LastSeen: moment(r.Told.LastSeen), Gateway: r.Gateway,
			Blips: r.Told.Blips, Outage: time.Duration(c.Outage) * time.Millisecond, NoHello: r.NoHello, Alert: c.Alert,
		},
	})
}

// moment is a stored time, zero for never.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// forget removes what is known of a thing.
func (b *batch) forget(ctx context.Context, k thingKey) error {
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	if one.record != nil {
		b.bind(one, "")
	}
	one.record = nil
	b.writes = append(b.writes, store.Write{Key: latencyKey(k), Delete: true})
	return nil
}

// bind moves the row that says behind which gateway a thing lies.
func (b *batch) bind(one *slot, gateway string) {
	before := ""
	if one.record != nil {
		before = one.record.Gateway
	}
	if before == gateway {
		return
	}
	if before != "" {
		b.writes = append(b.writes, store.Write{Key: childKey(one.account, before, one.thing), Delete: true})
		b.gateways[thingKey{one.account, before}]--
	}
	if gateway != "" {
		b.writes = append(b.writes, store.Write{Key: childKey(one.account, gateway, one.thing), Value: []byte("{}")})
		b.gateways[thingKey{one.account, gateway}]++
	}
}

// finish returns the batch for the store, and the counts as they are after it.
func (b *batch) finish() (store.Batch, map[fleet.Account]*counts, error) {
	out := store.Batch{Writes: b.writes, Events: b.events}
	counted := map[fleet.Account]*counts{}
	of := func(account fleet.Account) *counts {
		if counted[account] == nil {
			counted[account] = newCounts()
			if known := b.s.counts[account]; known != nil {
				counted[account] = known.clone()
			}
		}
		return counted[account]
	}
	for account, n := range b.things {
		of(account).Things = max(0, of(account).Things+n)
	}
	for _, one := range b.order {
		if one.record == one.before {
			continue
		}
		written, err := one.write(&out)
		if err != nil {
			return out, nil, err
		}
		if written {
			of(one.account).add(one.before, -1)
			of(one.account).add(one.record, 1)
		}
	}
	for account, c := range counted {
		value, err := json.Marshal(c)
		if err != nil {
			return out, nil, fmt.Errorf("encode connectivity counts: %w", err)
		}
		out.Writes = append(out.Writes, store.Write{Key: store.K(kindCount, string(account)), Value: value})
	}
	if b.cursor != nil && (b.save || len(out.Writes) > 0 || len(out.Events) > 0) {
		value, err := json.Marshal(applied{Schema: schema, Cursor: b.cursor.String()})
		if err != nil {
			return out, nil, fmt.Errorf("encode cursor: %w", err)
		}
		out.Writes = append(out.Writes, store.Write{Key: store.K(kindApplied), Value: value})
	}
	return out, counted, nil
}

// write adds the record and its timers; it reports false when nothing changed.
func (one *slot) write(out *store.Batch) (bool, error) {
	record := store.Write{Key: recordKey(one.thingKey), Delete: one.record == nil}
	if one.record != nil {
		value, err := json.Marshal(one.record)
		if err != nil {
			return false, fmt.Errorf("encode connectivity of %q: %w", one.thing, err)
		}
		if record.Value = value; bytes.Equal(value, one.value) {
			return false, nil
		}
	}
	out.Expect = append(out.Expect, store.Expect{Key: record.Key, Version: one.version})
	out.Writes = append(out.Writes, record)
	for _, which := range []string{timerState, timerFlap} {
		before, now := one.before.timer(which), one.record.timer(which)
		if before == now {
			continue
		}
		if before != 0 {
			out.Writes = append(out.Writes, store.Write{Key: timerKey(before, one.thingKey, which), Delete: true})
		}
		if now != 0 {
			out.Writes = append(out.Writes, store.Write{Key: timerKey(now, one.thingKey, which), Value: []byte("{}")})
		}
	}
	return true, nil
}

// timer is when one of the timers is due, 0 for none.
func (r *record) timer(which string) int64 {
	switch {
	case r == nil:
		return 0
	case which == timerFlap:
		return r.FlapDue
	default:
		return r.Due
	}
}

// commit makes the batch durable and takes it over into memory.
func (s *Service) commit(ctx context.Context, b *batch) error {
	out, counted, err := b.finish()
	if err != nil {
		return err
	}
	if len(out.Writes) > 0 || len(out.Events) > 0 {
		if _, err := s.store.Commit(ctx, out); err != nil {
			// What surely failed has changed nothing; of the rest memory knows nothing.
			s.stale = s.stale || ctx.Err() != nil || errors.Is(err, store.ErrOutcomeUnknown) || errors.Is(err, store.ErrConflict)
			return fmt.Errorf("commit connectivity: %w", err)
		}
		if b.cursor != nil {
			s.saved = s.o.Elapsed()
		}
	}
	if b.cursor != nil {
		s.applied = *b.cursor
	}
	for account, c := range counted {
		s.counts[account] = c
		s.metrics.show(account, c)
	}
	for gateway, n := range b.gateways {
		bump(s.gateways, gateway, n)
	}
	for _, one := range b.order {
		s.remember(one)
	}
	for why, n := range b.ignored {
		s.metrics.ignored.WithLabelValues(why).Add(float64(n))
	}
	for move, n := range b.moves {
		s.metrics.transitions.WithLabelValues(string(move[0]), string(move[1])).Add(float64(n))
	}
	for _, done := range b.done {
		done()
	}
	return nil
}

// remember takes over what memory holds of a thing.
func (s *Service) remember(one *slot) {
	r := one.record
	for _, which := range []string{timerState, timerFlap} {
		if due := r.timer(which); due != 0 {
			s.next, s.floor = min(s.next, due), min(s.floor, due)
		}
	}
	if r != nil && r.Session.Live && r.Session.ClientID != "" && (r.State == FirstConnected || r.State == Stale) {
		w := watched{clientID: r.Session.ClientID, connectionID: r.Session.ConnectionID, since: r.Since, state: r.State}
		if known, ok := s.watch[one.thingKey]; ok && known.connectionID == w.connectionID && known.state == w.state {
			w.since = known.since // it goes with the clock
		}
		s.watch[one.thingKey] = w
	} else {
		delete(s.watch, one.thingKey)
	}
	if r == nil || !r.Session.Live {
		delete(s.heard, one.thingKey)
	}
}

// errNotReady is a call before the records were brought up to date.
var errNotReady = errors.New("connectivity is being loaded")
