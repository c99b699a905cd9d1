package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
)

// Pending is one caller's batch on its way through an engine's committer.
type Pending struct {
	Batch
	// Data is the stored form of the batch's events, made in the caller's
	// goroutine: an event that cannot be stored fails its own batch only.
	Data [][]byte
	// Position covers the batch's events once the group is durable.
	Position Position
	// version is that of the records that the batch writes.
	version uint64
	// caller is where the caller looks for the places of its events; Batch
	// holds copies, since a caller that gave up may use its memory again.
	caller []event.Envelope
	// ctx ends when the caller has gone.
	ctx  context.Context //nolint:containedctx // it is the caller's, and the pending batch lives no longer than the call
	done chan error
}

// NewPending wraps a batch for a committer's queue and encodes its events.
func NewPending(ctx context.Context, b Batch) (*Pending, error) {
	p := &Pending{Batch: b, caller: b.Events, ctx: ctx, done: make(chan error, 1)}
	p.Events = slices.Clone(b.Events)
	for i, env := range b.Events {
		if env.Event == nil {
			return nil, fmt.Errorf("envelope %d of the batch holds no event", i)
		}
		data, err := event.Encode(env)
		if err != nil {
			return nil, err
		}
		p.Data = append(p.Data, data)
	}
	return p, nil
}

// Abandoned reports whether the caller has stopped waiting.
func (p *Pending) Abandoned() bool { return p.ctx.Err() != nil }

// Answer ends the call with the outcome.
func (p *Pending) Answer(err error) { p.done <- err }

// Wait returns the outcome, or the context's error when that ends first. It
// sets the versions of the writes and the events' places in the caller's slices:
// the committer must not, since the caller may have gone and use its memory
// otherwise.
func (p *Pending) Wait() error {
	select {
	case err := <-p.done:
		return p.settle(err)
	case <-p.ctx.Done():
		select {
		case err := <-p.done:
			return p.settle(err)
		default:
			return p.ctx.Err()
		}
	}
}

func (p *Pending) settle(err error) error {
	if err != nil {
		return err
	}
	for i := range p.Writes {
		p.Writes[i].Version = p.version
	}
	for i := range p.caller {
		p.caller[i].Partition = p.Position.Partition
		p.caller[i].Seq = p.Position.Seq - uint64(len(p.caller)-1-i)
	}
	return nil
}

// Bytes is about what the batch costs in memory and on disk, for bounding a
// group.
func (p *Pending) Bytes() int {
	n := 64
	for _, data := range p.Data {
		n += len(data) + 32
	}
	for _, w := range p.Writes {
		n += len(w.Key) + len(w.Value) + 32
	}
	return n
}

// Group decides which of several batches may be applied together: each sees
// the writes of those before it, and one that fails its expectations leaves
// the others alone. It is pure: engines bring versions and carry out the
// result.
type Group struct {
	// Accepted are the batches to apply, in order.
	Accepted []*Pending
	// Final holds the last write of each key.
	Final map[Key]Final
	// Events are those of the accepted batches with their place in the log.
	Events []*event.Envelope
	// Data is the stored form of Events.
	Data [][]byte

	version uint64
	seq     uint64
}

// Final is what a key is after the whole group.
type Final struct {
	Write   Write
	Version uint64
}

// NewGroup begins after the given last version and last event sequence.
func NewGroup(version, seq uint64) *Group {
	return &Group{Final: map[Key]Final{}, version: version, seq: seq}
}

// Version is the last version that was given out.
func (g *Group) Version() uint64 { return g.version }

// Seq is the last event sequence that was given out.
func (g *Group) Seq() uint64 { return g.seq }

// Add checks one batch. It returns a *ConflictError for a failed expectation,
// or the error of stored, which returns a key's version before the group; the
// batch is then not part of the group.
func (g *Group) Add(p *Pending, stored func(Key) (uint64, error)) error {
	for _, e := range p.Expect {
		version, err := g.current(e.Key, stored)
		if err != nil {
			return err
		}
		if version != e.Version {
			return &ConflictError{Key: e.Key}
		}
	}
	g.version++
	for _, w := range p.Writes {
		g.Final[w.Key] = Final{Write: w, Version: g.version}
	}
	for i := range p.Events {
		g.seq++
		env := &p.Events[i]
		env.Partition, env.Seq = 0, g.seq
		// As a reader of the stored form gets it.
		env.At = time.Unix(0, env.At.UnixNano()).UTC()
		g.Events = append(g.Events, env)
	}
	g.Data = append(g.Data, p.Data...)
	p.Position, p.version = Position{Seq: g.seq}, g.version
	g.Accepted = append(g.Accepted, p)
	return nil
}

func (g *Group) current(key Key, stored func(Key) (uint64, error)) (uint64, error) {
	if f, ok := g.Final[key]; ok {
		if f.Write.Delete {
			return 0, nil
		}
		return f.Version, nil
	}
	return stored(key)
}
