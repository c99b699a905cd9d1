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

// DeleteCommand asks for the deletion of one shadow.
type DeleteCommand struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow string
	// Committed is as in UpdateCommand.
	Committed func(*Deleted)
}

// Delete removes a shadow. Its version is remembered for 48 hours, so that a
// shadow made again in that time continues the counter.
func (s *Service) Delete(ctx context.Context, cmd DeleteCommand) (*Deleted, error) {
	d, err := s.delete(ctx, cmd)
	s.metrics.count("delete", err)
	return d, err
}

// delete is Delete without counting.
func (s *Service) delete(ctx context.Context, cmd DeleteCommand) (*Deleted, error) {
	id, err := newIdentity(cmd.Account, cmd.Thing, cmd.Shadow)
	if err != nil {
		return nil, err
	}
	leave, err := s.admit(id, s.now())
	if err != nil {
		return nil, err
	}
	defer leave()
	release, err := s.locks.acquire(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("wait for shadow: %w", err)
	}
	defer release()
	now := s.now()
	result := &Deleted{Account: id.account, Thing: id.thing, Shadow: id.shadow, Timestamp: now.Unix()}
	err = s.change(ctx, id, now, func(d *document) (*document, event.Event, error) {
		if d.gone {
			return nil, nil, id.missing()
		}
		result.Version = d.version
		return d.remove(now), event.ShadowDeleted{Thing: id.thing, Shadow: id.shadow, Version: d.version, Base: d.based}, nil
	})
	if err != nil {
		return nil, err
	}
	if cmd.Committed != nil {
		cmd.Committed(result)
	}
	return result, nil
}

// DeleteAll removes the shadows that a thing has at the moment of the call, its
// classic one and all named ones, and returns how many there were. Each is a
// change of its own; repeating an interrupted call removes the rest.
func (s *Service) DeleteAll(ctx context.Context, account fleet.Account, thing string) (int, error) {
	present, err := s.Documents(ctx, account, thing)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range present {
		_, err := s.Delete(ctx, DeleteCommand{Account: account, Thing: thing, Shadow: present[i].Shadow})
		switch {
		case fault.CodeOf(err) == fault.ResourceNotFound: // somebody else was faster
		case err != nil:
			return n, err
		default:
			n++
		}
	}
	return n, nil
}

// Forget removes what is left of shadows deleted more than 48 hours ago and
// returns how many there were.
func (s *Service) Forget(ctx context.Context) (int, error) {
	var due []store.Key
	err := s.store.Scan(ctx, dueBefore(s.now()), func(record store.Record) error {
		due = append(due, record.Key)
		if len(due) == forgetBatch {
			return store.Stop
		}
		return nil
	})
	if err != nil {
		return 0, storeFault(err, "read deleted shadows")
	}
	for i, key := range due {
		if err := s.forget(ctx, key); err != nil {
			return i, err
		}
	}
	return len(due), nil
}

// forgetBatch bounds the work of one Forget.
const forgetBatch = 1000

// forget removes one reminder and, if the shadow was not made again, its
// record.
func (s *Service) forget(ctx context.Context, reminder store.Key) error {
	parts := reminder.Parts()
	if len(parts) != 5 {
		return fmt.Errorf("key %s: %w", reminder, errRecord)
	}
	id := identity{account: fleet.Account(parts[2]), thing: parts[3], shadow: parts[4]}
	release, err := s.locks.acquire(ctx, id)
	if err != nil {
		return fmt.Errorf("wait for shadow: %w", err)
	}
	defer release()
	s.cache.drop(id)
	batch := store.Batch{Writes: []store.Write{{Key: reminder, Delete: true}}}
	record, err := s.store.Get(ctx, id.key())
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return storeFault(err, "read deleted shadow")
	case isGone(record.Value):
		d, err := decodeRecord(record.Value)
		if err != nil {
			return fmt.Errorf("shadow %s: %w", record.Key, err)
		}
		if id.goneKey(d.at) == reminder {
			batch.Expect = []store.Expect{{Key: id.key(), Version: record.Version}}
			batch.Writes = append(batch.Writes, store.Write{Key: id.key(), Delete: true})
		}
	}
	if _, err := s.store.Commit(ctx, batch); err != nil && !errors.Is(err, store.ErrConflict) {
		return storeFault(err, "forget deleted shadow")
	}
	return nil
}

// Run forgets deleted shadows once an hour until ctx ends; failures go to
// report and are tried again an hour later.
func (s *Service) Run(ctx context.Context, report func(error)) error {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if _, err := s.Forget(ctx); err != nil && ctx.Err() == nil {
				report(err)
			}
		}
	}
}
