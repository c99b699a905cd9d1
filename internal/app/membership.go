package app

import (
	"context"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/membership"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// newMemberships is the history of memberships; its consumer is joined later.
func (a *App) newMemberships() *membership.Service {
	return membership.New(membership.Options{
		Store: a.store, Live: liveMemberships,
		RetentionAge: a.settings.Membership.RetentionAge, RetentionBytes: uint64(a.settings.Membership.RetentionBytes),
		Now: now, Logger: a.component("membership"), Registerer: a.metrics,
	})
}

// membershipConsumer feeds the history of memberships.
func (a *App) membershipConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "membership", Durable: a.memberships.Apply, Rebuild: a.memberships.Rebuild}
}

// liveMemberships tells the history what the registry knows.
func liveMemberships(ctx context.Context, r store.Reader, fn func(membership.Live) error) error {
	return registry.EachThing(ctx, r, func(account fleet.Account, t registry.Thing) error {
		for _, m := range t.Groups {
			if err := fn(membership.Live{Account: account, Group: m.Group, Thing: t.Name, Dynamic: m.Dynamic}); err != nil {
				return err
			}
		}
		return nil
	})
}

// whyMember brings together what registry, index and history know of a thing
// and a group.
func (a *App) whyMember(ctx context.Context, account fleet.Account, group, thing string) (adminapi.MembershipReason, error) {
	out := adminapi.MembershipReason{Group: group, Thing: thing}
	g, err := a.registry.DescribeThingGroup(ctx, account, group)
	if err != nil {
		return out, err
	}
	t, err := a.registry.DescribeThing(ctx, account, thing)
	if err != nil {
		return out, err
	}
	out.Dynamic = g.Query != ""
	for _, m := range t.Groups {
		out.Member = out.Member || m.Group == group
	}
	if out.Member {
		entry, ok, err := a.memberships.Lasting(ctx, account, group, thing)
		if err != nil {
			return out, err
		}
		if ok {
			out.Entry = &entry
		}
	}
	if !out.Dynamic {
		return out, nil
	}
	explained, ok, err := a.index.Explain(account, group, thing)
	if err != nil {
		return out, err
	}
	if !ok {
		return out, fault.New(fault.IndexNotReady, "the index does not know thing group %s yet; try again", group)
	}
	explained.Status = index.Status(g.Status)
	out.Explanation = &explained
	return out, a.dateValues(ctx, account, t, out.Entry, explained.Root)
}

// dateValues tells since when values are there that the index has no time of:
// the value that made the thing a member, and names of groups.
func (a *App) dateValues(ctx context.Context, account fleet.Account, t registry.Thing, entry *membership.Entry, p *index.Part) error {
	if p == nil {
		return nil
	}
	for _, kid := range p.Parts {
		if err := a.dateValues(ctx, account, t, entry, kid); err != nil {
			return err
		}
	}
	for i := range p.Values {
		v := &p.Values[i]
		if !v.Since.IsZero() {
			continue
		}
		if word, ok := strings.CutPrefix(p.Text, "thingGroupNames:"); ok {
			since, err := a.inGroupSince(ctx, account, t, word)
			if err != nil {
				return err
			}
			v.Since = since
			continue
		}
		if entry != nil && entry.Joined != nil && entry.Joined.Field == v.Field && entry.Joined.Value == strings.Join(v.Values, " ") && entry.Joined.SourceAt > 0 {
			v.Since = time.UnixMilli(entry.Joined.SourceAt).UTC()
		}
	}
	return nil
}

// inGroupSince is when a thing came into the group that a query names; zero when
// it is in none of that name.
func (a *App) inGroupSince(ctx context.Context, account fleet.Account, t registry.Thing, word string) (time.Time, error) {
	for _, m := range t.Groups {
		if !strings.EqualFold(m.Group, word) {
			continue
		}
		entry, _, err := a.memberships.Lasting(ctx, account, m.Group, t.Name)
		return entry.Began, err
	}
	return time.Time{}, nil
}
