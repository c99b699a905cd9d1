package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
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
	if err := l.fill(ctx, snapshot, builder, ""); err != nil {
		builder.Abandon()
		return store.Cursor{}, err
	}
	if err := builder.Finish(ctx, snapshot.Cursor()); err != nil {
		return store.Cursor{}, fmt.Errorf("finish the index: %w", err)
	}
	return snapshot.Cursor(), nil
}

// LoadAccount implements index.Reloader.
func (l *loader) LoadAccount(ctx context.Context, account fleet.Account, b *index.Builder) (store.Cursor, error) {
	snapshot, err := l.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	return snapshot.Cursor(), l.fill(ctx, snapshot, b, account)
}

// Events implements index.Reloader.
func (l *loader) Events(ctx context.Context, after store.Cursor, limit int) ([]event.Envelope, store.Cursor, error) {
	return l.store.Events(ctx, after, limit)
}

// fill puts everything of an account, or of all for the empty one.
func (l *loader) fill(ctx context.Context, r store.Reader, b *index.Builder, of fleet.Account) error {
	return errors.Join(
		registry.EachIndexing(ctx, r, func(account fleet.Account, config fleet.Indexing) error {
			if of == "" || of == account {
				b.PutIndexing(account, config)
			}
			return nil
		}),
		registry.EachGroupOf(ctx, r, of, func(account fleet.Account, g registry.Group) error {
			b.PutGroup(account, index.Group{
				Name: g.Name, ID: g.ID, Description: g.Description, Attributes: g.Attributes,
				Ancestors: g.Ancestors, Query: g.Query, Complete: g.Complete, CreatedAt: g.Created, Version: g.Version,
			})
			return nil
		}),
		registry.EachThingOf(ctx, r, of, func(account fleet.Account, t registry.Thing) error {
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
		l.loadMemberships(ctx, r, b, of),
		shadow.EachShadow(ctx, r, of, func(d shadow.Document) error {
			return b.PutShadow(d.Account, d.Thing, indexShadow(d))
		}),
		registry.EachAttachedCertificate(ctx, r, of, func(account fleet.Account, thing string, c registry.AttachedCertificate) error {
			b.PutCertificate(account, thing, index.Certificate(c))
			return nil
		}),
		presence.EachConnectionOf(ctx, r, of, func(account fleet.Account, c presence.Connection) error {
			if v := indexConnectivity(c); v != nil {
				b.PutConnectivity(account, c.ClientID, *v)
			}
			return nil
		}),
		loadConnectivity(ctx, r, b, of),
	)
}

// loadMemberships tells a build of everything what is stored; that of one account
// is compared with the index before it.
func (l *loader) loadMemberships(ctx context.Context, r store.Reader, b *index.Builder, of fleet.Account) error {
	if of != "" {
		return nil
	}
	return registry.EachDynamicMembership(ctx, r, func(account fleet.Account, group, thing string) error {
		b.LoadMembership(account, group, thing)
		return nil
	})
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
	return &index.Connectivity{
		Connected: c.Connected, TimestampMS: c.Timestamp.UnixMilli(), Version: c.Version, Reason: c.Reason,
		KeepAlive: int64(c.KeepAlive), CleanSession: c.CleanSession(), SessionExpiry: c.SessionExpiry,
	}
}

// memberCommitter lets the index record its decisions in the registry.
type memberCommitter struct{ registry *registry.Service }

// CommitMembership implements index.Committer.
func (m *memberCommitter) CommitMembership(ctx context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	recorded := make([]registry.MembershipChange, len(changes))
	for i, c := range changes {
		recorded[i] = registry.MembershipChange(c)
	}
	return m.registry.CommitMembership(ctx, recorded)
}

// CommitComplete implements index.Committer.
func (m *memberCommitter) CommitComplete(ctx context.Context, groups []index.CompleteGroup) error {
	complete := make([]registry.CompleteGroup, len(groups))
	for i, g := range groups {
		complete[i] = registry.CompleteGroup(g)
	}
	return m.registry.CommitComplete(ctx, complete)
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

// thingCertificates tells the index which certificates act as which things.
type thingCertificates struct{ registry *registry.Service }

// ThingCertificates implements index.Certificates.
func (c thingCertificates) ThingCertificates(ctx context.Context, account fleet.Account, thing string) ([]index.Certificate, error) {
	found, err := c.registry.AttachedCertificates(ctx, account, thing)
	if err != nil {
		return nil, err
	}
	list := make([]index.Certificate, len(found))
	for i, of := range found {
		list[i] = index.Certificate(of)
	}
	return list, nil
}

// CertificateThings implements index.Certificates.
func (c thingCertificates) CertificateThings(ctx context.Context, account fleet.Account, id string) ([]string, error) {
	return c.registry.CertificateThings(ctx, account, id)
}
