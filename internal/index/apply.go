package index

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Apply follows the event log by one batch. Events that the index has already
// seen are passed over, so a batch may be given again: after an error it must
// be. A batch is seen by searches as a whole, account by account.
func (x *Index) Apply(ctx context.Context, batch []event.Envelope) error {
	x.following.Lock()
	defer x.following.Unlock()
	cursor := x.Applied()
	if _, err := x.shard(""); err != nil {
		return err
	}
	if err := x.awaitRoom(ctx); err != nil {
		return err
	}
	fresh := make([]event.Envelope, 0, len(batch))
	last := map[uint32]uint64{}
	for _, e := range batch {
		if seen := max(cursor.Seq(e.Partition), last[e.Partition]); e.Seq > seen {
			last[e.Partition] = e.Seq
			fresh = append(fresh, e)
		}
	}
	from, err := x.loadSources(ctx, fresh)
	if err != nil {
		return err
	}
	for account, events := range byAccount(fresh) {
		x.applyAccount(account, events, from)
	}
	for partition, seq := range last {
		cursor = cursor.Advance(store.Position{Partition: partition, Seq: seq})
	}
	if len(last) > 0 {
		x.advance(func() { x.applied = cursor })
		x.outbox.update(func() { x.outbox.decided = cursor })
		x.replay.reached(cursor)
	}
	return x.settle(ctx)
}

// byAccount sorts events by account; most batches are of one.
func byAccount(events []event.Envelope) map[fleet.Account][]event.Envelope {
	if len(events) == 0 {
		return nil
	}
	first := events[0].Account
	if !slices.ContainsFunc(events, func(e event.Envelope) bool { return e.Account != first }) {
		return map[fleet.Account][]event.Envelope{first: events}
	}
	sorted := map[fleet.Account][]event.Envelope{}
	for _, e := range events {
		sorted[e.Account] = append(sorted[e.Account], e)
	}
	return sorted
}

// thingKey names a thing across accounts.
type thingKey struct {
	account fleet.Account
	thing   string
}

// stateLoaders is how many things' states are asked for at a time: where the
// store is another server, each is two round trips.
const stateLoaders = 4

// loadStates asks for the shadows and connections of things that a batch
// registers, before any of it is applied.
func (x *Index) loadStates(ctx context.Context, batch []event.Envelope) (map[thingKey]State, error) {
	positions := map[thingKey]int{}
	for _, e := range batch {
		created, ok := e.Event.(event.ThingCreated)
		if !ok {
			continue
		}
		key := thingKey{account: e.Account, thing: created.Thing.Thing}
		if _, have := positions[key]; !have {
			positions[key] = len(positions)
		}
	}
	loaded := make([]State, len(positions))
	loading, ctx := errgroup.WithContext(ctx)
	loading.SetLimit(stateLoaders)
	for key, i := range positions {
		loading.Go(func() error {
			state, err := x.options.Source.ThingState(ctx, key.account, key.thing)
			if err != nil {
				return fmt.Errorf("load state of thing %q: %w", key.thing, err)
			}
			loaded[i] = state
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // it names the thing
	}
	states := make(map[thingKey]State, len(positions))
	for key, i := range positions {
		states[key] = loaded[i]
	}
	return states, nil
}

// applyAccount applies the events of one account under its lock.
func (x *Index) applyAccount(account fleet.Account, events []event.Envelope, from sources) {
	s, err := x.shard(account)
	if err != nil {
		return
	}
	if s == nil {
		s = x.newShard(account)
		s.finish()
		x.mu.Lock()
		x.shards[account] = s
		x.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.applyEvents(s, account, events, from)
	x.settleShard(account, s, events)
	if s.wanted != nil {
		x.askRebuild()
	}
}

// applyEvents applies events of one account to a shard that nobody else sees or
// whose lock is held.
func (x *Index) applyEvents(s *shard, account fleet.Account, events []event.Envelope, from sources) {
	for _, e := range events {
		if err := x.applyOne(s, e, from); err != nil {
			// A document that cannot be read stays as it was: the rest of
			// the fleet must not wait for it.
			x.options.Logger.Error("event left out of the index",
				slog.String("account", string(account)), slog.Uint64("seq", e.Seq), slog.Any("err", err))
		}
	}
}

// applyOne applies one event.
func (x *Index) applyOne(s *shard, e event.Envelope, from sources) error {
	switch v := e.Event.(type) {
	case event.ThingCreated:
		s.putThing(thingOf(v.Thing))
		return s.putState(v.Thing.Thing, from.states[thingKey{account: e.Account, thing: v.Thing.Thing}])
	case event.ThingUpdated:
		if _, ok := s.things.doc(v.Thing.Thing); ok {
			s.putThing(thingOf(v.Thing))
		}
	case event.ThingDeleted:
		s.removeThing(v.Thing)
	case event.ThingGroupCreated:
		x.applyGroup(s, e.Account, v.ThingGroup)
	case event.ThingGroupUpdated:
		x.applyGroup(s, e.Account, v.ThingGroup)
	case event.ThingGroupDeleted:
		s.removeGroup(v.Group)
	case event.MembershipChanged:
		if !v.Dynamic {
			s.setGroup(v.Thing, v.Group, v.Added)
		}
	case event.BillingGroupMembershipChanged:
		s.changeBilling(v.Thing, v.BillingGroup, v.Added)
	case event.ShadowUpdated:
		return s.patchShadow(shadowPatch{
			thing: v.Thing, shadow: v.Shadow, version: v.Version, state: v.Patch, delta: v.Delta, timestamp: v.Timestamp,
		})
	case event.ShadowDeleted:
		s.deleteShadow(v.Thing, v.Shadow, v.Version)
	case event.DeviceConnected:
		s.setSession(v.Session, Connectivity{Connected: true, TimestampMS: e.At.UnixMilli()})
	case event.DeviceDisconnected:
		s.setSession(v.Session, Connectivity{TimestampMS: e.At.UnixMilli(), Reason: v.Reason})
	case event.IndexingConfigurationChanged:
		s.configure(v.Indexing)
	case event.PrincipalAttached:
		s.refreshCertificates(e.Account, v.Thing, from.attached)
	case event.PrincipalDetached:
		s.refreshCertificates(e.Account, v.Thing, from.attached)
	case event.CertificateStatusChanged:
		for _, thing := range from.things[thingKey{e.Account, v.CertificateID}] {
			s.refreshCertificates(e.Account, thing, from.attached)
		}
	case event.ConnectivityStateChanged:
		s.applyConnectivity(&v)
	case event.LatencyMeasured:
		s.applyLatency(&v)
	case event.ThingTypeCreated, event.ThingTypeUpdated, event.ThingTypeDeleted,
		event.PolicyChanged, event.PolicyAttached, event.PolicyDetached,
		event.CertificateCreated, event.CertificateDeleted, event.AuthorizerChanged,
		event.ConnectRefused, event.SubscriptionsChanged,
		event.BillingGroupCreated, event.BillingGroupUpdated, event.BillingGroupDeleted,
		event.ThingDecommissioned, event.AttributeRulesChanged, event.TagsChanged,
		event.EventConfigurationsChanged, event.CACertificateChanged, event.RegistrationCodeChanged,
		event.RevocationListImported, event.CertificateTransferChanged, event.OperatorChanged, event.AccountChanged,
		event.APICalled, event.ConfigurationChanged, event.ConnectivitySettingsChanged, event.BulkEditChanged,
		event.ProvisioningTemplateChanged, event.DeviceProvisioned, event.ProvisioningRefused, event.CertificateAutoRegistered,
		event.ProvisioningClaimCreated, event.RegistrationTaskChanged, event.CertificateProviderChanged, event.CertificateRenewalChanged,
		event.ApprovalChanged, event.ApprovalAuthorityChanged, event.ApprovalBindingChanged,
		event.ProvisioningPlanChanged, event.OnboardingChanged, event.OnboardingCriteriaFailed,
		event.ClaimMisused, event.ClaimMisuseSettled,
		event.SupplierChanged, event.AllowListChanged, event.AllowListRead, event.AllowListEntryChanged, event.DuplicateSerial,
		event.RogueDevice, event.LedgerAnchored,
		event.PromiseSettled,
		event.CertificatePurposeChanged, event.BirthCertificateChanged, event.BirthCertificateMisused, event.ThingQuarantined, event.ThingReleased,
		event.BootstrapAssignmentChanged, event.BootstrapAnswered, event.BootstrapRefused:
		// Nothing of these is searchable.
	}
	return nil
}

// applyGroup applies a created or changed group.
func (x *Index) applyGroup(s *shard, account fleet.Account, v event.ThingGroup) {
	g := Group{
		Name: v.Group, ID: v.GroupID, Description: v.Description, Attributes: v.Attributes,
		Ancestors: v.Ancestors, Query: v.Query, CreatedAt: v.CreatedAt, Version: v.Version,
	}
	s.putGroup(g, x.root(account, s.config, g))
}

// thingOf returns the index's form of a thing.
func thingOf(v event.Thing) Thing {
	return Thing{
		Name: v.Thing, ID: v.ThingID, TypeName: v.TypeName, Attributes: v.Attributes,
		BillingGroup: v.BillingGroup, Version: v.Version,
	}
}

// setSession sets the connectivity of the thing that a session counts for, if
// there is one.
func (s *shard) setSession(session event.Session, v Connectivity) {
	if !session.Indexed {
		return
	}
	v.Version, v.KeepAlive, v.CleanSession, v.SessionExpiry = session.Version, int64(session.KeepAlive), session.CleanSession, session.SessionExpiry
	s.setConnectivity(session.ClientID, v)
}
