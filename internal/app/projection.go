package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// loader brings the state of the store into a fleet index.
type loader struct {
	store store.Store
}

// load builds the whole index from one snapshot and returns its cursor.
func (l *loader) load(ctx context.Context, x *index.Index) (store.Cursor, error) {
	snapshot, err := l.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	builder := x.Build()
	if err := l.fill(ctx, snapshot, builder); err != nil {
		builder.Abandon()
		return store.Cursor{}, err
	}
	if err := builder.Finish(ctx, snapshot.Cursor()); err != nil {
		return store.Cursor{}, fmt.Errorf("finish the index: %w", err)
	}
	return snapshot.Cursor(), nil
}

func (l *loader) fill(ctx context.Context, r store.Reader, b *index.Builder) error {
	return errors.Join(
		registry.EachGroup(ctx, r, func(account fleet.Account, g registry.Group) error {
			b.PutGroup(account, index.Group{
				Name: g.Name, ID: g.ID, Description: g.Description, Attributes: g.Attributes,
				Ancestors: g.Ancestors, Query: g.Query, CreatedAt: g.Created, Version: g.Version,
			})
			return nil
		}),
		registry.EachThing(ctx, r, func(account fleet.Account, t registry.Thing) error {
			var groups []string
			for _, m := range t.Groups {
				if !m.Dynamic {
					groups = append(groups, m.Group)
				}
			}
			return b.PutThing(account, index.Thing{
				Name: t.Name, ID: t.ID, TypeName: t.TypeName, Attributes: t.Attributes,
				BillingGroup: t.BillingGroup, Version: t.Version,
			}, groups, index.State{})
		}),
		registry.EachDynamicMembership(ctx, r, func(account fleet.Account, group, thing string) error {
			b.LoadMembership(account, group, thing)
			return nil
		}),
		shadow.EachShadow(ctx, r, "", func(d shadow.Document) error {
			return b.PutShadow(d.Account, d.Thing, indexShadow(d))
		}),
		presence.EachConnection(ctx, r, func(account fleet.Account, c presence.Connection) error {
			if v := indexConnectivity(c); v != nil {
				b.PutConnectivity(account, c.ClientID, *v)
			}
			return nil
		}),
		loadConnectivity(ctx, r, b),
	)
}

func indexShadow(d shadow.Document) index.Shadow {
	s := index.Shadow{Name: d.Shadow, Version: d.Version, Desired: d.Desired(), Reported: d.Reported(), Metadata: d.Metadata()}
	if d.HasDelta() {
		s.Delta = d.Delta()
	}
	return s
}

// indexConnectivity returns nil for a connection that does not count for the
// thing of its name.
func indexConnectivity(c presence.Connection) *index.Connectivity {
	if !c.Indexed {
		return nil
	}
	return &index.Connectivity{Connected: c.Connected, TimestampMS: c.Timestamp.UnixMilli(), Version: c.Version, Reason: c.Reason}
}

// membership lets the index record its decisions in the registry.
type membership struct{ registry *registry.Service }

// CommitMembership implements index.Committer.
func (m *membership) CommitMembership(ctx context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	recorded := make([]registry.MembershipChange, len(changes))
	for i, c := range changes {
		recorded[i] = registry.MembershipChange(c)
	}
	return m.registry.CommitMembership(ctx, recorded)
}

// thingState tells the index what is known of a thing that was registered
// after its shadows.
type thingState struct {
	shadows  *shadow.Service
	presence *presence.Service
}

// ThingState implements index.Source.
func (s *thingState) ThingState(ctx context.Context, account fleet.Account, thing string) (index.State, error) {
	documents, err := s.shadows.Documents(ctx, account, thing)
	if err != nil {
		return index.State{}, err
	}
	var state index.State
	for _, d := range documents {
		state.Shadows = append(state.Shadows, indexShadow(d))
	}
	connection, err := s.presence.Get(ctx, account, thing)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound:
	case err != nil:
		return index.State{}, err
	default:
		state.Connectivity = indexConnectivity(connection)
	}
	return state, nil
}
