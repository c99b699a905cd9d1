package shadowhistory

import (
	"context"
	"fmt"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// change is one batch in the making.
type change struct {
	batch   store.Batch
	authors authors
	// filed counts by account what the batch adds and removes.
	filed map[fleet.Account]*filed
	// begun are shadows with a segment of this batch, and their newest version.
	begun map[subject]int64
}

// filed is what a batch does to a count.
type filed struct {
	entries, bytes   uint64
	entriesGone, cut uint64
}

// Apply is the log's durable consumer: it turns events into writes.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	if s.o.Versions == 0 {
		return store.Batch{}, nil
	}
	c := &change{filed: map[fleet.Account]*filed{}, begun: map[subject]int64{}}
	for i := range events {
		if err := c.apply(&events[i]); err != nil {
			return store.Batch{}, err
		}
	}
	if len(c.batch.Writes) == 0 {
		return store.Batch{}, nil
	}
	for of, newest := range c.begun {
		if err := s.cut(ctx, c, of, newest); err != nil {
			return store.Batch{}, err
		}
	}
	for account, f := range c.filed {
		t, err := readTotal(ctx, s.store, kindSize, account)
		if err != nil {
			return store.Batch{}, err
		}
		t.Entries += f.entries - f.entriesGone
		t.Bytes += f.bytes - f.cut
		if err := writeTotal(&c.batch, kindSize, account, t); err != nil {
			return store.Batch{}, err
		}
	}
	return c.batch, nil
}

// apply adds one event to the change; only those of shadows matter.
func (c *change) apply(env *event.Envelope) error {
	e := entry{At: env.At.UnixNano(), Actor: env.Actor}
	var of subject
	var begin *segment
	switch fact := env.Event.(type) {
	case event.ShadowUpdated:
		of = subject{env.Account, fact.Thing, fact.Shadow}
		e.Version, e.Second, e.Patch, e.Delta, e.Restored = fact.Version, fact.Timestamp, fact.Patch, len(fact.Delta) > 0, fact.Restored
		if fact.Document != nil || fact.Base == 0 {
			begin = &segment{Version: fact.Version, At: millis(env.At), Document: fact.Document}
		}
	case event.ShadowDeleted:
		of = subject{env.Account, fact.Thing, fact.Shadow}
		e.Version, e.Deleted = fact.Version, true
		if fact.Base == 0 {
			begin = &segment{Version: fact.Version, At: millis(env.At)}
		}
	default:
		return nil
	}
	by, err := c.authors.encode(env.Actor)
	if err != nil {
		return err
	}
	f := c.filed[env.Account]
	if f == nil {
		f = &filed{}
		c.filed[env.Account] = f
	}
	f.entries++
	f.bytes += c.put(of.entry(env.Seq), e.encode(by))
	if begin != nil {
		f.bytes += c.put(of.segment(env.Seq), begin.encode())
		f.bytes += c.put(of.time(begin.At, env.Seq), []byte("1"))
		c.begun[of] = e.Version
	}
	return nil
}

// put writes a record and returns what it takes.
func (c *change) put(key store.Key, value []byte) uint64 {
	c.batch.Writes = append(c.batch.Writes, store.Write{Key: key, Value: value})
	return uint64(len(key) + len(value))
}

// cut removes the segments of a shadow that lie behind the versions to keep. It
// sees the state before the batch: what the batch itself makes too many goes
// with the next segment.
func (s *Service) cut(ctx context.Context, c *change, of subject, newest int64) error {
	known, err := s.segmentsOf(ctx, s.store, of)
	if err != nil {
		return err
	}
	// Whatever follows a segment is counted from the newest version back. The
	// newest known segment may still have entries in this batch: it stays.
	last, count, next := -1, int64(1), newest
	for i, seg := range slices.Backward(known) {
		if count >= int64(s.o.Versions) && i < len(known)-1 {
			last = i
			break
		}
		// Where the counter began anew nobody knows how many there were.
		count += max(next-seg.Version, 1)
		next = seg.Version
	}
	if last < 0 {
		return nil
	}
	f := c.filed[of.account]
	since := uint64(0)
	for i := range last + 1 {
		next := known[i+1].seq
		removed, bytes, err := s.remove(ctx, &c.batch, of, known[i], since, next)
		since = next
		if err != nil {
			return err
		}
		f.entriesGone += removed
		f.cut += bytes
	}
	return nil
}

// segmentsOf reads a shadow's segments, oldest first.
func (s *Service) segmentsOf(ctx context.Context, r store.Reader, of subject) ([]*segment, error) {
	var found []*segment
	err := r.Scan(ctx, of.segments(), func(stored store.Record) error {
		seg, err := decodeSegment(stored)
		found = append(found, seg)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read shadow history: %w", err)
	}
	return found, nil
}

// remove adds to a batch the removal of a segment: its rows and all entries that
// are older than the begin of the next, down to what the batch removes already.
// It fails if somebody else has removed the segment.
func (s *Service) remove(ctx context.Context, b *store.Batch, of subject, seg *segment, since, next uint64) (entries, bytes uint64, err error) {
	at := of.time(seg.At, seg.seq)
	b.Expect = append(b.Expect, store.Expect{Key: seg.key, Version: seg.version})
	b.Writes = append(b.Writes, store.Write{Key: seg.key, Delete: true}, store.Write{Key: at, Delete: true})
	bytes = uint64(seg.bytes + len(at) + 1)
	within := of.entries()
	within.From = of.entry(next - 1)
	if since > 0 {
		within.To = of.entry(since) + "\x01"
	}
	err = s.store.Scan(ctx, within, func(stored store.Record) error {
		entries++
		bytes += uint64(len(stored.Key) + len(stored.Value))
		b.Writes = append(b.Writes, store.Write{Key: stored.Key, Delete: true})
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read shadow history: %w", err)
	}
	return entries, bytes, nil
}
