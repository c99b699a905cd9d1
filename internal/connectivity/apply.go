package connectivity

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// saveEvery bounds how long the stored cursor rests while events pass by that
	// do not matter.
	saveEvery = 10 * time.Second
	// batchThings bounds one commit of Run, Rebuild and of what follows from a
	// gateway.
	batchThings = 500
	// mostThings is how many things may follow from events before the batch is
	// committed.
	mostThings = 2000
)

// Apply follows the event log by one batch of events: one commit for all of
// them, unless gateways with many things behind them are among them. Events that are in the records already are passed over.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return errNotReady
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	if err := s.lookAtClock(ctx); err != nil {
		return err
	}
	// What devices declared before comes first: a goodbye must be known when the
	// end of its connection is.
	if err := s.takeDeclarations(ctx); err != nil {
		return err
	}
	cursor := s.applied
	var things []thingKey
	fresh := events[:0:0]
	for _, env := range events {
		if !cursor.Covers(positionOf(&env)) {
			cursor = cursor.Advance(positionOf(&env))
			fresh = append(fresh, env)
			if thing, ok := s.concerns(env); ok && thing != "" {
				things = append(things, thingKey{env.Account, thing})
			}
		}
	}
	b := s.newBatch()
	if err := b.load(ctx, things...); err != nil {
		return err
	}
	cursor = s.applied
	matter := false
	for i := range fresh {
		cursor = cursor.Advance(positionOf(&fresh[i]))
		if _, ok := s.concerns(fresh[i]); !ok {
			continue
		}
		matter = true
		if err := s.apply(ctx, b, &fresh[i]); err != nil {
			return err
		}
		if len(b.order) < len(things)+mostThings {
			continue
		}
		// Gateways have many things behind them.
		until := cursor
		b.cursor = &until
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		b = s.newBatch()
	}
	b.cursor = &cursor
	if !matter {
		return s.pass(ctx, b)
	}
	b.save = s.o.Elapsed()-s.saved >= saveEvery
	return s.commit(ctx, b)
}

// positionOf is an event's place in the log.
func positionOf(env *event.Envelope) store.Position {
	return store.Position{Partition: env.Partition, Seq: env.Seq}
}

// pass moves the cursor over events that do not matter; it is stored now and
// then.
func (s *Service) pass(ctx context.Context, b *batch) error {
	if s.o.Elapsed()-s.saved < saveEvery {
		s.applied = *b.cursor
		return nil
	}
	b.save = true
	return s.commit(ctx, b)
}

// concerns is the function of that name, but for memberships: they matter where
// settings come from groups.
func (s *Service) concerns(env event.Envelope) (thing string, ok bool) {
	if e, is := env.Event.(event.MembershipChanged); is && !s.configures(env.Account, &e) {
		return "", false
	}
	return concerns(env)
}

// configures reports whether a membership may bring settings with it: those of
// the group, or of one above it. A dynamic group lies under none.
func (s *Service) configures(account fleet.Account, e *event.MembershipChanged) bool {
	of := s.settings[account]
	if _, ok := of[e.Group]; ok || e.Dynamic {
		return ok
	}
	_, own := of[""]
	return len(of) > 1 || len(of) == 1 && !own
}

// concerns reports whether an event matters, and the thing whose record it will
// be about when that is known.
func concerns(env event.Envelope) (thing string, ok bool) {
	switch e := env.Event.(type) {
	case event.DeviceConnected:
		return e.ClientID, e.Indexed || e.Provisioning
	case event.DeviceDisconnected:
		return e.ClientID, e.Indexed || e.Provisioning
	case event.ThingCreated:
		return "", true
	case event.ThingDeleted:
		return e.Thing, true
	case event.PrincipalAttached:
		return e.Thing, true
	case event.PrincipalDetached:
		return e.Thing, true
	case event.MembershipChanged:
		return e.Thing, true
	case event.CertificateStatusChanged, event.ThingGroupDeleted:
		return "", true
	case event.ConnectivityStateChanged:
		return e.Thing, e.From != e.To
	case event.ThingUpdated,
		event.ThingTypeCreated, event.ThingTypeUpdated, event.ThingTypeDeleted,
		event.ThingGroupCreated, event.ThingGroupUpdated,
		event.PolicyChanged, event.PolicyAttached, event.PolicyDetached,
		event.CertificateCreated, event.CertificateDeleted, event.AuthorizerChanged,
		event.ShadowUpdated, event.ShadowDeleted, event.ConnectRefused, event.SubscriptionsChanged,
		event.BillingGroupCreated, event.BillingGroupUpdated, event.BillingGroupDeleted, event.BillingGroupMembershipChanged,
		event.ThingDecommissioned, event.AttributeRulesChanged, event.TagsChanged, event.EventConfigurationsChanged,
		event.CACertificateChanged, event.RegistrationCodeChanged, event.RevocationListImported, event.CertificateTransferChanged,
		event.OperatorChanged, event.AccountChanged, event.APICalled, event.ConfigurationChanged, event.IndexingConfigurationChanged,
		event.ConnectivitySettingsChanged, event.LatencyMeasured, event.BulkEditChanged,
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
		// Attachments end with events of their own before a certificate or a thing
		// does; settings are taken over where they are changed.
		return "", false
	}
	return "", false
}

// apply adds one event to the batch.
func (s *Service) apply(ctx context.Context, b *batch, env *event.Envelope) error {
	k := thingKey{account: env.Account}
	at := env.At.UnixMilli()
	switch e := env.Event.(type) {
	case event.DeviceConnected:
		k.thing = e.ClientID
		if err := s.connected(ctx, b, k, &e, at); err != nil {
			return err
		}
	case event.DeviceDisconnected:
		k.thing = e.ClientID
		in := &input{kind: inDisconnect, at: at, base: s.clock.base(at, b.now), session: sessionOf(&e.Session), provisioning: e.Provisioning}
		in.session.Reason, in.session.Process = e.Reason, s.clock.processOf(at)
		_, err := b.decide(ctx, k, in)
		return err
	case event.ThingCreated:
		b.things[env.Account]++
		k.thing = e.Thing.Thing
		return s.createdLate(ctx, b, k)
	case event.ThingDeleted:
		k.thing = e.Thing
		return s.deleted(ctx, b, k, at)
	case event.PrincipalAttached:
		k.thing = e.Thing
		if err := s.speaksForItself(ctx, b, k, at); err != nil {
			return err
		}
		return s.certified(ctx, b, k, at)
	case event.PrincipalDetached:
		k.thing = e.Thing
		return s.certified(ctx, b, k, at)
	case event.CertificateStatusChanged:
		err := s.o.Registry.ThingsOf(ctx, env.Account, e.CertificateID, func(thing string) error {
			return s.certified(ctx, b, thingKey{env.Account, thing}, at)
		})
		if err != nil {
			return fmt.Errorf("find things of certificate %s: %w", e.CertificateID, err)
		}
	case event.MembershipChanged:
		k.thing = e.Thing
		one, err := b.at(ctx, k)
		if err != nil {
			return err
		}
		return b.rearm(ctx, one)
	case event.ThingGroupDeleted:
		b.dropSettings(env.Account, e.Group)
	case event.ConnectivityStateChanged:
		k.thing = e.Thing
		if s.gateways[k] > 0 {
			return s.gatewayChanged(ctx, b, k, State(e.To), at)
		}
	default:
	}
	return nil
}

// sessionOf is an event's connection.
func sessionOf(of *event.Session) session {
	return session{
		ClientID: of.ClientID, SessionID: of.SessionID, ConnectionID: of.ConnectionID, Version: of.Version, KeepAlive: of.KeepAlive,
	}
}

// connected takes in a connect, and what its device declared before this was
// known.
func (s *Service) connected(ctx context.Context, b *batch, k thingKey, e *event.DeviceConnected, at int64) error {
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	if one.record == nil {
		// The connection of a thing that was just deleted may be told of late.
		if exists, _, err := s.o.Registry.ThingExists(ctx, k.account, k.thing); err != nil || !exists {
			b.ignored[ignoredNoThing]++
			return err //nolint:wrapcheck // it names the thing
		}
	}
	in := &input{kind: inConnect, at: at, base: s.clock.base(at, b.now), session: sessionOf(&e.Session), provisioning: e.Provisioning}
	in.session.Process = s.clock.processOf(at)
	if _, err := b.decide(ctx, k, in); err != nil {
		return err
	}
	early := connectionKey{k.account, e.ClientID, e.ConnectionID}
	held := s.early[early]
	if len(held) == 0 {
		return nil
	}
	b.done = append(b.done, func() {
		delete(s.early, early)
		s.waiting -= len(held)
	})
	for _, d := range held {
		if err := s.declare(ctx, b, d); err != nil {
			return err
		}
	}
	return nil
}

// deleted forgets a thing. What lies behind it lies behind nothing then.
func (s *Service) deleted(ctx context.Context, b *batch, k thingKey, at int64) error {
	b.things[k.account]--
	if s.gateways[k] > 0 {
		err := s.eachChild(ctx, k, func(child thingKey) error {
			if err := s.childGone(ctx, b, child, ReasonGatewayOffline, planned{}, at); err != nil {
				return err
			}
			return s.assign(ctx, b, child, "", false, at)
		})
		if err != nil {
			return err
		}
	}
	return b.forget(ctx, k)
}

// certified looks whether a certificate of the thing is in force.
func (s *Service) certified(ctx context.Context, b *batch, k thingKey, at int64) error {
	blocked, err := s.o.Registry.Blocked(ctx, k.account, k.thing)
	if err != nil {
		return fmt.Errorf("look at certificates of thing %q: %w", k.thing, err)
	}
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	is := one.record != nil && one.record.State == Blocked
	if is == blocked {
		return nil
	}
	in := &input{kind: inUnblock, at: at}
	if blocked {
		in.kind = inBlock
	}
	_, err = b.decide(ctx, k, in)
	return err
}

// Rebuild brings the records up to what the store holds and returns how far they
// are. At a start it reads the cursor and little else; where events are missing,
// at the first start or after they were trimmed, it compares all records with
// presence and carries over what differs as if it had been told.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cursor, known, err := readApplied(ctx, s.store)
	if err != nil {
		return store.Cursor{}, err
	}
	oldest, err := s.store.Oldest(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("find the oldest event: %w", err)
	}
	if err := s.load(ctx, s.store); err != nil {
		return store.Cursor{}, err
	}
	s.clock.start(s.o.Now(), s.o.Elapsed())
	if !known || !cursor.CoversAll(oldest) {
		if cursor, err = s.resync(ctx); err != nil {
			return store.Cursor{}, err
		}
	}
	s.applied, s.stale = cursor, false
	if !s.ready {
		s.ready = true
		close(s.opened)
	}
	return cursor, nil
}

// resync carries the state of presence and registry into the records.
func (s *Service) resync(ctx context.Context) (store.Cursor, error) {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	exists := map[thingKey]bool{}
	things := map[fleet.Account]int{}
	err = s.o.Registry.EachThing(ctx, snapshot, func(account fleet.Account, thing string) error {
		exists[thingKey{account, thing}] = true
		things[account]++
		return nil
	})
	if err != nil {
		return store.Cursor{}, fmt.Errorf("count things: %w", err)
	}
	if err := s.recount(ctx, snapshot, exists, things); err != nil {
		return store.Cursor{}, err
	}
	var pasts []Past
	err = s.o.Live(ctx, snapshot, func(p Past) error {
		if p.Session.Indexed && exists[thingKey{p.Account, p.Session.ClientID}] {
			pasts = append(pasts, p)
		}
		return nil
	})
	if err != nil {
		return store.Cursor{}, fmt.Errorf("read connections: %w", err)
	}
	for len(pasts) > 0 {
		n := min(len(pasts), batchThings)
		b := s.newBatch()
		for i := range pasts[:n] {
			if err := s.carryOver(ctx, b, &pasts[i]); err != nil {
				return store.Cursor{}, err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return store.Cursor{}, err
		}
		pasts = pasts[n:]
	}
	if err := s.recertify(ctx, snapshot); err != nil {
		return store.Cursor{}, err
	}
	cursor := snapshot.Cursor()
	b := s.newBatch()
	b.cursor = &cursor
	b.save = true
	if err := s.commit(ctx, b); err != nil {
		return store.Cursor{}, err
	}
	s.o.Logger.InfoContext(ctx, "connectivity is brought in line with presence", slog.Int("things", len(exists)))
	return cursor, nil
}

// recount counts records anew and removes those of things that do not exist.
func (s *Service) recount(ctx context.Context, r store.Reader, exists map[thingKey]bool, things map[fleet.Account]int) error {
	counted := map[fleet.Account]*counts{}
	of := func(account fleet.Account) *counts {
		if counted[account] == nil {
			counted[account] = newCounts()
		}
		return counted[account]
	}
	for account, n := range things {
		of(account).Things = n
	}
	var gone []thingKey
	err := r.Scan(ctx, store.Under(kindRecord), func(stored store.Record) error {
		parts := stored.Key.Parts()
		k := thingKey{fleet.Account(parts[1]), parts[2]}
		found, err := decode(stored)
		if err != nil {
			return err
		}
		of(k.account).add(found, 1)
		if !exists[k] {
			gone = append(gone, k)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count connectivity records: %w", err)
	}
	s.counts = counted
	for {
		n := min(len(gone), batchThings)
		b := s.newBatch()
		for account := range counted {
			b.things[account] += 0 // writes the counts of all
		}
		for _, k := range gone[:n] {
			if err := b.forget(ctx, k); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		if gone = gone[n:]; len(gone) == 0 {
			return nil
		}
	}
}

// recertify blocks and unblocks things by what certificates are now.
func (s *Service) recertify(ctx context.Context, r store.Reader) error {
	var doubtful []thingKey
	err := r.Scan(ctx, store.Under(kindRecord), func(stored store.Record) error {
		found, err := decode(stored)
		if err == nil && found.State == Blocked {
			parts := stored.Key.Parts()
			doubtful = append(doubtful, thingKey{fleet.Account(parts[1]), parts[2]})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look for blocked things: %w", err)
	}
	err = s.o.Registry.EachInactive(ctx, r, func(account fleet.Account, certificateID string) error {
		return s.o.Registry.ThingsOf(ctx, account, certificateID, func(thing string) error {
			doubtful = append(doubtful, thingKey{account, thing})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("look for inactive certificates: %w", err)
	}
	for len(doubtful) > 0 {
		n := min(len(doubtful), batchThings)
		b := s.newBatch()
		for _, k := range doubtful[:n] {
			if err := s.certified(ctx, b, k, b.now); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		doubtful = doubtful[n:]
	}
	return nil
}

// createdLate has a thing that is created while its client is connected begin with
// that connection, whose own event found no thing.
func (s *Service) createdLate(ctx context.Context, b *batch, k thingKey) error {
	if activity, live := s.o.Sessions.Activity(k.account, k.thing); !live && !activity.Provisioning {
		return nil // if one is on its way, so is its event
	}
	p, err := s.o.Newest(ctx, k.account, k.thing)
	if err != nil {
		return fmt.Errorf("find the connection of %q: %w", k.thing, err)
	}
	if !p.counts() && (p == nil || !p.Connected || !p.Session.Provisioning) {
		return nil
	}
	return s.carryOver(ctx, b, p)
}

// carryOver makes of a difference between presence and a record the input that
// was missed.
func (s *Service) carryOver(ctx context.Context, b *batch, p *Past) error {
	k := thingKey{p.Account, p.Session.ClientID}
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	at := p.At.UnixMilli()
	known := one.record != nil && one.record.Session.ConnectionID == p.Session.ConnectionID && one.record.Session.SessionID == p.Session.SessionID
	if !known {
		begun := at
		if !p.ConnectedAt.IsZero() {
			begun = p.ConnectedAt.UnixMilli()
		}
		in := &input{kind: inConnect, at: begun, session: sessionOf(&p.Session), provisioning: p.Session.Provisioning}
		if one.record != nil {
			// Its version may have started over meanwhile.
			one.record = one.record.clone()
			one.record.Session.Live, one.record.Session.Version = false, -1
		}
		if _, err := b.decide(ctx, k, in); err != nil {
			return err
		}
	}
	if r := b.slots[k].record; p.Connected || r == nil || !r.Session.Live {
		return nil
	}
	in := &input{kind: inDisconnect, at: at, session: sessionOf(&p.Session)}
	in.session.Reason = p.Reason
	_, err = b.decide(ctx, k, in)
	return err
}
