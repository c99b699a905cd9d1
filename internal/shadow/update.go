package shadow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// UpdateCommand asks for an update.
type UpdateCommand struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow string
	// Body is the request document.
	Body []byte
	// Committed, if set, is called after the commit and before Update
	// returns, while nobody else may change the shadow: announcements made
	// in it have the order of versions. It must not block or call back.
	Committed func(*Updated)
	// Joined, if set, adds to the commit what another domain keeps about the
	// update; it is asked in each attempt. An error of it refuses the update.
	Joined func(*Updated) (store.Batch, error)
}

// maxAttempts bounds how often a commit is repeated on conflicts with other
// processes.
const maxAttempts = 16

// Update merges a request into a shadow, which is created if need be. When it
// returns, the new version is durable.
func (s *Service) Update(ctx context.Context, cmd UpdateCommand) (*Updated, error) {
	u, err := s.update(ctx, cmd)
	s.metrics.count("update", err)
	return u, err
}

// update is Update without counting.
func (s *Service) update(ctx context.Context, cmd UpdateCommand) (*Updated, error) {
	id, err := newIdentity(cmd.Account, cmd.Thing, cmd.Shadow)
	if err != nil {
		return nil, err
	}
	now := s.now()
	r, err := parseRequest(cmd.Body, now.Unix(), s.limits)
	if err != nil {
		return nil, err
	}
	if err := s.checkThing(ctx, id); err != nil {
		return nil, err
	}
	leave, err := s.admit(id, now)
	if err != nil {
		return nil, err
	}
	defer leave()
	release, err := s.locks.acquire(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("wait for shadow: %w", err)
	}
	defer release()
	u := &Updated{Account: id.account, Thing: id.thing, Shadow: id.shadow, Timestamp: now.Unix(), Token: r.token, patch: r}
	if err := s.changeWith(ctx, id, now, u.apply(now, s), u.joining(cmd.Joined)); err != nil {
		return nil, err
	}
	if cmd.Committed != nil {
		cmd.Committed(u)
	}
	return u, nil
}

// apply returns the change that carries the update out.
func (u *Updated) apply(now time.Time, s *Service) change {
	return func(d *document) (*document, event.Event, error) {
		next, err := d.update(&u.patch, now, s.limits)
		if err != nil {
			return nil, nil, err
		}
		if s.whole && d.wantsBase(now) {
			next.based, next.basedAt = next.version, next.seconds()
		}
		u.before, u.after, u.Version = d, next, next.version
		fact := event.ShadowUpdated{
			Thing:     u.Thing,
			Shadow:    u.Shadow,
			Version:   next.version,
			Patch:     u.appendPatch(nil),
			Timestamp: u.Timestamp,
			Restored:  u.Restored,
			Base:      next.based,
		}
		if next.based == next.version {
			fact.Document = encodeRecord(next)
		}
		if len(next.delta) > 0 {
			fact.Delta = appendMembers(nil, next.delta)
		}
		return next, fact, nil
	}
}

// change decides on the next document and the event that reports it.
type change func(d *document) (*document, event.Event, error)

// change carries a decision out on the present document and commits it with
// its event. The caller holds the shadow's lock.
func (s *Service) change(ctx context.Context, id identity, now time.Time, decide change) error {
	return s.changeWith(ctx, id, now, decide, nil)
}

// changeWith is change with what join, unless it is nil, adds to the batch.
func (s *Service) changeWith(ctx context.Context, id identity, now time.Time, decide change, join func(*store.Batch) error) error {
	for range maxAttempts {
		stored, version, sure, err := s.guess(ctx, id)
		if err != nil {
			return err
		}
		next, fact, err := decide(stored.asOf(now))
		if err != nil && !sure {
			// What is stored may be another document, which would be changed.
			if stored, version, err = s.load(ctx, id); err != nil {
				return err
			}
			next, fact, err = decide(stored.asOf(now))
		}
		if err != nil {
			return err
		}
		value := encodeRecord(next)
		batch := store.Batch{
			Expect: []store.Expect{{Key: id.key(), Version: version}},
			Writes: writes(id, stored, next, value),
			Events: []event.Envelope{{Account: id.account, At: now, Actor: fleet.ActorFrom(ctx), Event: fact}},
		}
		if join != nil {
			if err := join(&batch); err != nil && sure {
				return err
			} else if err != nil {
				// As above: it was asked about another document.
				s.cache.drop(id)
				continue
			}
		}
		// A caller that gives up must not leave the outcome open: memory would
		// no longer know what is stored.
		_, err = s.store.Commit(context.WithoutCancel(ctx), batch)
		if err == nil {
			s.cache.put(id, next.compact(value), batch.Writes[0].Version)
			return nil
		}
		s.cache.drop(id)
		if !errors.Is(err, store.ErrConflict) {
			return storeFault(err, "commit shadow")
		}
		s.metrics.conflicts.Inc()
	}
	return &fault.Error{Code: fault.Throttling, Message: "The shadow is being changed too often"}
}

// writes returns the new record and the reminders that come or go with it.
func writes(id identity, stored, next *document, value []byte) []store.Write {
	out := append(make([]store.Write, 0, 4), store.Write{Key: id.key(), Value: value})
	if stored.gone && stored.version > 0 {
		out = append(out, store.Write{Key: id.goneKey(stored.at), Delete: true})
	}
	if next.gone {
		out = append(out, store.Write{Key: id.goneKey(next.at), Value: []byte("{}")})
	}
	return append(out, id.moveDrift(stored.since, next.since)...)
}
