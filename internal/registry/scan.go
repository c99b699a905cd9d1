package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// EachThing calls fn for every thing of every account, without ARNs, from what
// is usually a snapshot, for building a projection anew. Records are read and
// decoded ahead of fn, on another core.
func EachThing(ctx context.Context, r store.Reader, fn func(fleet.Account, Thing) error) error {
	return EachThingOf(ctx, r, "", fn)
}

// EachThingOf is EachThing for one account, or all for the empty one.
func EachThingOf(ctx context.Context, r store.Reader, of fleet.Account, fn func(fleet.Account, Thing) error) error {
	type found struct {
		account fleet.Account
		thing   Thing
	}
	reading, cancel := context.WithCancel(ctx)
	ahead := make(chan []found, aheadBatches)
	ended := make(chan error, 1)
	go func() {
		defer close(ahead)
		batch := make([]found, 0, aheadBatch)
		send := func() error {
			select {
			case ahead <- batch:
				batch = make([]found, 0, aheadBatch)
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		}
		err := eachOf[thingRecord](reading, r, kindThing, of, func(account fleet.Account, name string, record *thingRecord) error {
			batch = append(batch, found{account, thingOf(name, record)})
			if len(batch) < aheadBatch {
				return nil
			}
			return send()
		})
		if err == nil {
			err = send()
		}
		ended <- err
	}()
	var failed error
	for batch := range ahead {
		for i := 0; i < len(batch) && failed == nil; i++ {
			if failed = fn(batch[i].account, batch[i].thing); failed != nil {
				cancel()
			}
		}
	}
	cancel()
	if err := <-ended; failed == nil {
		failed = err
	}
	return failed
}

// aheadBatch things are handed over at a time, aheadBatches times at most before
// they are taken.
const (
	aheadBatch   = 256
	aheadBatches = 4
)

// EachGroup calls fn for every group of every account, static and dynamic,
// without ARNs and status.
func EachGroup(ctx context.Context, r store.Reader, fn func(fleet.Account, Group) error) error {
	return EachGroupOf(ctx, r, "", fn)
}

// EachGroupOf is EachGroup for one account, or all for the empty one.
func EachGroupOf(ctx context.Context, r store.Reader, of fleet.Account, fn func(fleet.Account, Group) error) error {
	return eachOf[groupRecord](ctx, r, kindGroup, of, func(account fleet.Account, name string, record *groupRecord) error {
		return fn(account, groupOf(name, record))
	})
}

// EachDynamicGroup is EachGroup for the dynamic ones that are not being
// deleted.
func EachDynamicGroup(ctx context.Context, r store.Reader, fn func(fleet.Account, Group) error) error {
	return each[groupRecord](ctx, r, kindGroup, func(account fleet.Account, name string, record *groupRecord) error {
		if record.Query == "" || record.Deleting {
			return nil
		}
		return fn(account, groupOf(name, record))
	})
}

// EachDynamicMembership calls fn for every recorded membership in a dynamic
// group, group by group.
func EachDynamicMembership(ctx context.Context, r store.Reader, fn func(account fleet.Account, group, thing string) error) error {
	return r.Scan(ctx, store.Under(kindGroupThing), func(record store.Record) error {
		row, err := decode[rowRecord](record)
		if err != nil {
			return err
		}
		if !row.Claim {
			return nil
		}
		parts := record.Key.Parts()
		return fn(fleet.Account(parts[1]), parts[2], parts[3])
	})
}

// each decodes every record of a kind whose key ends in its name.
func each[T any, P stored[T]](ctx context.Context, r store.Reader, kind string, fn func(fleet.Account, string, *T) error) error {
	return eachOf[T, P](ctx, r, kind, "", fn)
}

// eachOf is each for one account, or all for the empty one.
func eachOf[T any, P stored[T]](
	ctx context.Context, r store.Reader, kind string, of fleet.Account, fn func(fleet.Account, string, *T) error,
) error {
	within := store.Under(kind)
	if of != "" {
		within = store.Under(kind, string(of))
	}
	return r.Scan(ctx, within, func(record store.Record) error {
		value, err := decode[T, P](record)
		if err != nil {
			return err
		}
		return fn(fleet.Account(record.Key.Parts()[1]), record.Key.Last(), value)
	})
}
