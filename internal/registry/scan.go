package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// EachThing calls fn for every thing of every account, without ARNs, from what
// is usually a snapshot, for building a projection anew.
func EachThing(ctx context.Context, r store.Reader, fn func(fleet.Account, Thing) error) error {
	return each[thingRecord](ctx, r, kindThing, func(account fleet.Account, name string, record *thingRecord) error {
		return fn(account, thingOf(name, record))
	})
}

// EachGroup calls fn for every group of every account, static and dynamic,
// without ARNs and status.
func EachGroup(ctx context.Context, r store.Reader, fn func(fleet.Account, Group) error) error {
	return each[groupRecord](ctx, r, kindGroup, func(account fleet.Account, name string, record *groupRecord) error {
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
	return r.Scan(ctx, store.Under(kind), func(record store.Record) error {
		value, err := decode[T, P](record)
		if err != nil {
			return err
		}
		return fn(fleet.Account(record.Key.Parts()[1]), record.Key.Last(), value)
	})
}
