package registry

import (
	"context"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ListThingGroupsFilter selects groups; conditions that are set must all hold.
type ListThingGroupsFilter struct {
	// Parent selects what is below a group; empty selects from all groups.
	Parent string
	// NamePrefix is empty to match every name.
	NamePrefix string
	// Recursive is nil when not given: all groups without a parent, direct
	// children with one.
	Recursive *bool
}

// ListThingGroups returns one page of names in order, static and dynamic.
func (s *Service) ListThingGroups(ctx context.Context, account fleet.Account, f ListThingGroupsFilter, p Page) (Listed[string], error) {
	if f.NamePrefix != "" {
		if err := checkName("namePrefixFilter", f.NamePrefix); err != nil {
			return Listed[string]{}, err
		}
	}
	if f.Parent == "" {
		within := withPrefix(kindGroup, account, f.NamePrefix)
		if f.Recursive != nil && !*f.Recursive {
			within = withPrefix(kindGroupChild, account, f.NamePrefix, "")
		}
		listed, err := listKeys(ctx, s.store, within, p, store.Key.Last)
		return listed, store.Fault(err)
	}
	if err := checkName("parentGroup", f.Parent); err != nil {
		return Listed[string]{}, err
	}
	if _, err := s.findGroup(ctx, account, f.Parent); err != nil {
		return Listed[string]{}, err
	}
	if f.Recursive == nil || !*f.Recursive {
		listed, err := listKeys(ctx, s.store, withPrefix(kindGroupChild, account, f.NamePrefix, f.Parent), p, store.Key.Last)
		return listed, store.Fault(err)
	}
	names, err := descendants(ctx, s.store, account, f.Parent)
	if err != nil {
		return Listed[string]{}, store.Fault(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, f.NamePrefix) })
	return listNames(names, p), nil
}

// descendants returns the names of all groups below one, in order. A group's
// depth is bounded, and so is the walk.
func descendants(ctx context.Context, r store.Reader, account fleet.Account, group string) ([]string, error) {
	var all []string
	for level := []string{group}; len(level) > 0; {
		var next []string
		for _, parent := range level {
			err := r.Scan(ctx, under(kindGroupChild, account, parent), func(record store.Record) error {
				next = append(next, record.Key.Last())
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		all = append(all, next...)
		level = next
	}
	slices.Sort(all)
	return all, nil
}
