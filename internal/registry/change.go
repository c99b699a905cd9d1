package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxAttempts bounds how often a command decides again after a race.
	maxAttempts = 48
	// eagerAttempts are made without a pause in between.
	eagerAttempts = 4
	// maxPause bounds the pause between later attempts.
	maxPause = 20 * time.Millisecond
)

// attempt is one try of a command: what it reads becomes expectations, what it
// decides becomes writes and events of one batch.
type attempt struct {
	reader  store.Reader
	account fleet.Account
	scope   fleet.Scope
	now     time.Time
	actor   fleet.Actor
	seen    map[store.Key]uint64
	batch   store.Batch
	// devices is set when the change alters what a device may do.
	devices bool
}

// change runs a command until its batch commits, its decision is an error, or
// too many others were faster. A command that decides to write nothing
// commits nothing.
func (s *Service) change(ctx context.Context, account fleet.Account, command func(context.Context, *attempt) error) error {
	position, devices, err := s.commit(ctx, account, s.store, command)
	if err == nil && devices {
		s.awaitDevices(ctx, position)
	}
	return err
}

// commit is change without the wait for devices: it answers whether there is
// something to wait for, and where. The first try reads from first, which may
// be behind the store: then it conflicts, and the later ones read anew.
func (s *Service) commit(
	ctx context.Context, account fleet.Account, first store.Reader, command func(context.Context, *attempt) error,
) (position store.Position, devices bool, err error) {
	for n := range maxAttempts {
		if n == eagerAttempts {
			leave, err := s.takeTurn(ctx)
			if err != nil {
				return store.Position{}, false, err
			}
			defer leave()
		}
		if n >= eagerAttempts {
			if err := pause(ctx, n-eagerAttempts); err != nil {
				return store.Position{}, false, err
			}
		}
		a := s.attempt(ctx, account)
		if n == 0 {
			a.reader = first
		}
		err = command(ctx, a)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return store.Position{}, false, store.Fault(err)
		}
		if a.empty() {
			return store.Position{}, false, nil
		}
		position, err := s.store.Commit(ctx, a.batch)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		return position, a.devices, store.Fault(err)
	}
	return store.Position{}, false, fault.New(fault.Throttling, "Too many concurrent changes of the same resource; try again")
}

// takeTurn lets those who have lost several races try one after the other: then
// each has only newcomers and other processes against it.
func (s *Service) takeTurn(ctx context.Context) (leave func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// empty reports that the command has decided to change nothing.
func (a *attempt) empty() bool { return len(a.batch.Writes) == 0 && len(a.batch.Events) == 0 }

// attempt starts a try at the present time.
func (s *Service) attempt(ctx context.Context, account fleet.Account) *attempt {
	return &attempt{
		reader:  s.store,
		account: account,
		scope:   s.scope(account),
		now:     s.now(),
		actor:   fleet.ActorFrom(ctx),
		seen:    map[store.Key]uint64{},
	}
}

// pause waits a random, growing time or until ctx ends.
func pause(ctx context.Context, n int) error {
	most := min(maxPause, time.Millisecond<<min(n, 10))
	timer := time.NewTimer(rand.N(most) + time.Microsecond) //nolint:gosec // spreads retries, guards no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitDevices waits until this node's devices are held to the change. The
// change is durable already, so a slow projection is reported and no error.
func (s *Service) awaitDevices(ctx context.Context, position store.Position) {
	if s.barrier == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, barrierPatience)
	defer cancel()
	if err := s.barrier.WaitApplied(ctx, position); err != nil {
		s.log.WarnContext(ctx, "answered before connected devices saw the change",
			slog.Uint64("seq", position.Seq), slog.Any("err", err))
	}
}

// expect adds the version seen at a key to the batch, once.
func (a *attempt) expect(k store.Key, version uint64) {
	if _, ok := a.seen[k]; ok {
		return
	}
	a.seen[k] = version
	a.batch.Expect = append(a.batch.Expect, store.Expect{Key: k, Version: version})
}

// load reads a record into a T and expects it unchanged; nil when there is
// none, which is expected to stay so. What the attempt itself has written is
// what it reads, so that one command can go on where another ended.
func load[T any, P stored[T]](ctx context.Context, a *attempt, k store.Key) (*T, error) {
	for _, w := range slices.Backward(a.batch.Writes) {
		if w.Key != k {
			continue
		}
		if w.Delete {
			return nil, nil //nolint:nilnil // none is no error here, as below
		}
		return decode[T, P](store.Record{Key: k, Value: w.Value})
	}
	value, version, err := get[T, P](ctx, a.reader, k)
	if err != nil {
		return nil, err
	}
	a.expect(k, version)
	if a.seen[k] != version {
		return nil, errMoved
	}
	return value, nil
}

// errMoved ends an attempt that has read a record twice and not found the same: it
// could not commit, and what it decides would be about no moment at all. A caller
// sees it only of an attempt that is made once, without a commit.
var errMoved = fault.New(fault.Throttling, "The resource was changed at the same moment; try again")

// loadMany is load for several keys, with nil for a missing one.
func loadMany[T any, P stored[T]](ctx context.Context, a *attempt, keys []store.Key) ([]*T, error) {
	values, versions, err := getMany[T, P](ctx, a.reader, keys)
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		a.expect(k, versions[i])
		if a.seen[k] != versions[i] {
			return nil, errMoved
		}
	}
	return values, nil
}

// save writes a record in the present schema, in place of what the attempt wrote
// there before.
func save[T any, P stored[T]](a *attempt, k store.Key, value P) error {
	value.stamp()
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	for i := range a.batch.Writes {
		if w := &a.batch.Writes[i]; w.Key == k && !w.Delete {
			w.Value = data
			return nil
		}
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: data})
	return nil
}

// row writes a row that carries nothing but its key.
func (a *attempt) row(k store.Key) {
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: []byte(plainRow)})
}

// flagged writes a row that carries one claim.
func (a *attempt) flagged(k store.Key, claim bool) {
	text := plainRow
	if claim {
		text = claimRow
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: []byte(text)})
}

// remove deletes a record or row.
func (a *attempt) remove(k store.Key) {
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Delete: true})
}

// emit appends an event to the batch.
func (a *attempt) emit(e event.Event) { a.emitIn(a.account, e) }

// emitIn is emit for an event of another account.
func (a *attempt) emitIn(account fleet.Account, e event.Event) {
	a.batch.Events = append(a.batch.Events, event.Envelope{
		Account: account, At: a.now, Actor: a.actor, Event: e,
	})
}
