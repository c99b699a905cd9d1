package onboarding

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// States of certificates as events tell them.
const (
	certificateActive  = "ACTIVE"
	certificatePending = "PENDING_ACTIVATION"
	// codePending is a device that waits for somebody's approval; it is not refused.
	codePending = "ApprovalPending"
	// approvalUsed is an approval that has let its device in.
	approvalUsed = "USED"
)

// Apply takes what the platform saw of devices from the event log: it is a durable
// consumer.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	f := &follower{attempt: s.attempt()}
	if err := f.find(ctx, s.o.Store, events); err != nil {
		return store.Batch{}, err
	}
	for i := range events {
		f.evidence = fmt.Sprintf("event %d:%d", events[i].Partition, events[i].Seq)
		if err := f.apply(ctx, &events[i]); err != nil {
			return store.Batch{}, err
		}
	}
	return f.batch()
}

// follower is an attempt that follows the log. known leads from certificates,
// things and keys of devices to devices: as they are stored, and as the events
// before change them.
type follower struct {
	*attempt

	known map[store.Key]string
	// active are certificates with which devices need not be seen any more.
	active map[store.Key]bool
}

// find reads which devices events may be about.
func (f *follower) find(ctx context.Context, r store.Reader, events []event.Envelope) error {
	f.known, f.active = map[store.Key]string{}, map[store.Key]bool{}
	var keys []store.Key
	met := map[store.Key]bool{}
	ask := func(k store.Key) {
		if k.Last() != "" && !met[k] {
			met[k] = true
			keys = append(keys, k)
		}
	}
	for i := range events {
		account := events[i].Account
		switch e := events[i].Event.(type) {
		case event.DeviceConnected:
			ask(certificateKey(account, e.Principal))
			ask(place{account: account, key: e.ClientID}.record())
		case event.DeviceProvisioned:
			ask(certificateKey(account, e.CertificateID))
			ask(thingKey(account, e.Thing))
		case event.ProvisioningRefused:
			ask(certificateKey(account, e.CertificateID))
			ask(place{account: account, key: e.ClientID}.record())
		case event.ApprovalChanged:
			ask(certificateKey(account, e.CertificateID))
			ask(thingKey(account, e.Thing))
		case event.CertificateAutoRegistered:
			ask(certificateKey(account, e.CertificateID))
		case event.CertificateStatusChanged:
			ask(certificateKey(account, e.CertificateID))
		case event.CertificateDeleted:
			ask(certificateKey(account, e.CertificateID))
		case event.CertificateRenewalChanged:
			ask(thingKey(account, e.Thing))
		case event.BootstrapAnswered:
			ask(certificateKey(account, e.CertificateID))
			ask(place{account: account, key: e.Serial}.record())
		case event.BootstrapRefused:
			ask(certificateKey(account, e.CertificateID))
			ask(place{account: account, key: e.Serial}.record())
		case event.ThingUpdated:
			ask(thingKey(account, e.Thing.Thing))
		case event.ThingDeleted:
			ask(thingKey(account, e.Thing))
		case event.ThingDecommissioned:
			ask(thingKey(account, e.Thing))
		default:
			// The rest is not about how a device came into service.
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := r.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(fmt.Errorf("find devices of events: %w", err))
	}
	for i, row := range found {
		switch {
		case row.Version == 0:
		case keys[i].Parts()[0] == kindDevice:
			f.known[keys[i]] = keys[i].Last()
		default:
			var name nameRow
			if err := decode(row, &name, &name.Schema); err != nil {
				return err
			}
			f.known[keys[i]], f.active[keys[i]] = name.Name, name.Active
		}
	}
	return nil
}

// device1 is the device of the first of keys that leads to one, nil for none.
func (f *follower) device1(ctx context.Context, account fleet.Account, keys ...store.Key) (*slot, error) {
	for _, k := range keys {
		if name := f.known[k]; name != "" && k.Last() != "" {
			one, err := f.load(ctx, place{account: account, key: name})
			if err != nil || one.now != nil {
				return one, err
			}
		}
	}
	return nil, nil //nolint:nilnil // no device is no mistake
}

// apply lets one event happen to the device that it is about.
func (f *follower) apply(ctx context.Context, env *event.Envelope) error {
	account := env.Account
	// on does something to the device that keys lead to.
	on := func(do func(*life), keys ...store.Key) error {
		one, err := f.device1(ctx, account, keys...)
		if err != nil || one == nil {
			return err
		}
		return f.act(ctx, one, env.Actor, env.At, func(l *life) error {
			do(l)
			return nil
		})
	}
	switch e := env.Event.(type) {
	case event.DeviceConnected:
		if env.Actor.Principal.Kind != fleet.PrincipalCertificate {
			return nil
		}
		return f.connected(ctx, env.Actor, Seen{Account: account, CertificateID: e.Principal, ClientID: e.ClientID, At: env.At})
	case event.DeviceProvisioned:
		return f.provisioned(ctx, env, &e)
	case event.CertificateAutoRegistered:
		return f.autoRegistered(ctx, env, &e)
	case event.ProvisioningRefused:
		return on(func(l *life) {
			if e.Code != codePending {
				l.refuse(e.Code + ": " + e.Reason)
			}
		}, certificateKey(account, e.CertificateID), place{account: account, key: e.ClientID}.record())
	case event.ApprovalChanged:
		if e.State != approvalUsed {
			return nil
		}
		return on(func(l *life) {
			if !l.Decommissioned {
				l.reach(StateApproved, "request "+e.Request+" for template "+e.Template)
			}
		}, certificateKey(account, e.CertificateID), thingKey(account, e.Thing))
	case event.CertificateStatusChanged:
		return on(func(l *life) {
			switch {
			case l.Certificate != e.CertificateID:
			case e.Status == certificateActive:
				l.resume("certificate " + e.CertificateID + " is ACTIVE")
			case e.Status != certificatePending:
				l.suspend("certificate " + e.CertificateID + " is " + e.Status)
			}
		}, certificateKey(account, e.CertificateID))
	case event.CertificateDeleted:
		return on(func(l *life) {
			if l.Certificate == e.CertificateID {
				l.suspend("certificate " + e.CertificateID + " was deleted")
			}
		}, certificateKey(account, e.CertificateID))
	case event.CertificateRenewalChanged:
		if e.Step != event.RenewalProven {
			return nil
		}
		return on(func(l *life) {
			f.hold(account, l, l.Thing, e.NewCertificateID)
			l.note(entry{Result: ResultNoted, Note: "certificate " + e.NewCertificateID + " has taken the place of " + e.OldCertificateID})
		}, thingKey(account, e.Thing))
	case event.BootstrapAnswered:
		return on(func(l *life) {
			if !l.Decommissioned && l.Reached[StateRegistered] == 0 {
				l.reach(StateShipped, "asked the bootstrap address with certificate "+e.CertificateID+" and was sent to account "+string(e.Target))
			}
		}, certificateKey(account, e.CertificateID), place{account: account, key: e.Serial}.record())
	case event.BootstrapRefused:
		// A device that came before its assignment, or that cannot go there now, is not
		// rejected.
		if e.Assignment == "" || e.Code != string(fault.Forbidden) {
			return nil
		}
		return on(func(l *life) { l.refuse("bootstrap: " + e.Code + ": " + e.Reason) },
			certificateKey(account, e.CertificateID), place{account: account, key: e.Serial}.record())
	case event.ThingUpdated:
		return on(func(l *life) {
			if l.Thing == e.Thing.Thing && !l.Decommissioned {
				l.reviewed(e.Attributes, e.TypeName)
			}
		}, thingKey(account, e.Thing.Thing))
	case event.ThingDeleted:
		return on(func(l *life) { l.end("thing " + e.Thing + " was deleted") }, thingKey(account, e.Thing))
	case event.ThingDecommissioned:
		return on(func(l *life) {
			l.end(strings.TrimSuffix("thing "+e.Thing+" was decommissioned: "+e.Reason, ": "))
		}, thingKey(account, e.Thing))
	default:
		// The rest is not about how a device came into service.
		return nil
	}
}

// hold lets a device act as a thing with a certificate, which lead to it from now
// on.
func (f *follower) hold(account fleet.Account, l *life, thing, certificate string) {
	if thing != "" {
		l.Thing = thing
		f.known[thingKey(account, thing)] = l.key
	}
	if certificate != "" {
		l.Certificate = certificate
		f.known[certificateKey(account, certificate)] = l.key
		delete(f.active, certificateKey(account, certificate))
	}
	l.changed = true
}

// connected takes a connection with the operational certificate for activation, and
// one by the device's own name with another certificate, as a claim is, for its
// arrival.
func (f *follower) connected(ctx context.Context, by fleet.Actor, c Seen) error {
	if f.active[certificateKey(c.Account, c.CertificateID)] {
		return nil
	}
	one, err := f.device1(ctx, c.Account, certificateKey(c.Account, c.CertificateID), place{account: c.Account, key: c.ClientID}.record())
	if err != nil || one == nil {
		return err
	}
	return f.act(ctx, one, by, c.At, func(l *life) error {
		switch registered := l.Reached[StateRegistered] != 0; {
		case l.Decommissioned:
		case registered && l.Certificate == c.CertificateID:
			l.reach(StateActive, "connected as "+c.ClientID+" with certificate "+c.CertificateID)
		case !registered:
			l.reach(StateShipped, "seen on the network with certificate "+c.CertificateID)
		}
		return nil
	})
}

// methods by which a device itself asks, so that it has left the factory.
func byItself(m event.ProvisioningMethod) bool {
	switch m {
	case event.ProvisioningClaim, event.ProvisioningTrustedUser, event.ProvisioningJITP, event.ProvisioningJITR:
		return true
	case event.ProvisioningRegisterThing, event.ProvisioningBulk, event.ProvisioningRenewal:
	}
	return false
}

// provisioned registers the device of a template that was carried out: the one that
// its thing or certificate leads to, or the one of its key, which may be new.
func (f *follower) provisioned(ctx context.Context, env *event.Envelope, e *event.DeviceProvisioned) error {
	if e.Method == event.ProvisioningRenewal {
		return nil // the renewal has events of its own
	}
	one, err := f.device1(ctx, env.Account, thingKey(env.Account, e.Thing), certificateKey(env.Account, e.CertificateID))
	if err != nil {
		return err
	}
	if one == nil || one.now.Decommissioned {
		// A name that is used again may be another device's now.
		other, err := f.newcomer(ctx, env, e)
		if err != nil {
			return err
		}
		if other != nil {
			one = other
		}
	}
	if one == nil {
		return nil
	}
	return f.act(ctx, one, env.Actor, env.At, func(l *life) error {
		if l.Decommissioned || l.Life == 0 {
			l.begin()
			if l.Life > 1 {
				l.note(entry{Result: ResultNoted, Note: "joined again after it was decommissioned"})
			}
		}
		again := l.Reached[StateRegistered] != 0
		f.hold(env.Account, l, e.Thing, e.CertificateID)
		if byItself(e.Method) {
			l.reach(StateShipped, "asked to be provisioned")
		}
		how := provenance(e)
		if again {
			l.note(entry{Result: ResultNoted, Note: "provisioned again: " + how})
		}
		l.reach(StateRegistered, how)
		l.Suspended = false
		l.reviewed(e.Attributes, e.TypeName)
		return nil
	})
}

// provenance tells how a device was provisioned.
func provenance(e *event.DeviceProvisioned) string {
	parts := []string{"method " + string(e.Method)}
	for _, each := range []struct{ name, value string }{
		{"template", e.Template}, {"thing", e.Thing}, {"certificate", e.CertificateID}, {"claim", e.ClaimID}, {"authority", e.CACertificateID}, {"task", e.Task},
	} {
		if each.value != "" {
			parts = append(parts, each.name+" "+each.value)
		}
	}
	return strings.Join(parts, ", ")
}

// newcomer finds the device of a provisioned thing that nothing leads to yet: one
// that was announced, or a new one that follows a plan, or nil.
func (f *follower) newcomer(ctx context.Context, env *event.Envelope, e *event.DeviceProvisioned) (*slot, error) {
	id, number, err := f.binding(ctx, env.Account, planNames(e))
	if err != nil {
		return nil, err
	}
	if id == "" {
		return f.announced(ctx, env.Account, e.Thing, e.ClientID)
	}
	plan, err := f.plan(ctx, env.Account, id, number)
	if err != nil {
		return nil, err
	}
	key, note := keyOf(plan, e), ""
	if !keyPattern.MatchString(key) {
		// It is kept by what it certainly has.
		note = fmt.Sprintf("the plan finds devices by %s, and this one has %q: it is kept by its certificate", plan.DeviceKey, key)
		if key = e.CertificateID; key == "" {
			f.s.o.Logger.WarnContext(ctx, "device without key and certificate is not followed",
				slog.String("plan", id), slog.String("thing", e.Thing))
			return nil, nil //nolint:nilnil // there is nothing to find it by
		}
	}
	one, err := f.load(ctx, place{account: env.Account, key: key})
	switch {
	case err != nil:
		return nil, err
	case one.now == nil:
		one.now = &record{Plan: id, Version: number}
	case one.now.Decommissioned:
		one.now.Plan, one.now.Version = id, number
		return one, nil
	default:
		return one, nil
	}
	return one, f.act(ctx, one, env.Actor, env.At, func(l *life) error {
		l.begin()
		if note != "" {
			l.note(entry{Result: ResultNoted, Note: note})
		}
		return nil
	})
}

// planNames are what leads to the plan of a provisioned device, the first one first.
func planNames(e *event.DeviceProvisioned) [][2]string {
	return [][2]string{{bindTemplate, e.Template}, {bindAuthority, e.CACertificateID}, {bindType, e.TypeName}}
}

// DeviceKey is the key by which the plan in force keeps the device of a registration,
// empty when no plan applies to it.
func (s *Service) DeviceKey(ctx context.Context, account fleet.Account, e event.DeviceProvisioned) (string, error) {
	f := &follower{attempt: s.attempt()}
	id, number, err := f.binding(ctx, account, planNames(&e))
	if err != nil || id == "" {
		return "", err
	}
	plan, err := f.plan(ctx, account, id, number)
	if err != nil {
		return "", err
	}
	if key := keyOf(plan, &e); keyPattern.MatchString(key) {
		return key, nil
	}
	return e.CertificateID, nil
}

// announced finds the device of a thing that no plan applies to, but that was
// announced for one by the name of the thing or of the client.
func (f *follower) announced(ctx context.Context, account fleet.Account, names ...string) (*slot, error) {
	for _, name := range names {
		if !keyPattern.MatchString(name) {
			continue
		}
		one, err := f.load(ctx, place{account: account, key: name})
		if err != nil || one.now != nil {
			return one, err
		}
	}
	return nil, nil //nolint:nilnil // no device is no mistake
}

// keyOf is the key of a provisioned device.
func keyOf(plan *Plan, e *event.DeviceProvisioned) string {
	switch plan.DeviceKey {
	case KeyUniqueID:
		return e.Attributes[plan.Metadata.UniqueID.Attribute]
	case KeyCertificate:
		return e.CertificateID
	case KeyThingName:
	}
	return e.Thing
}

// autoRegistered registers a device that is known by its certificate alone.
func (f *follower) autoRegistered(ctx context.Context, env *event.Envelope, e *event.CertificateAutoRegistered) error {
	one, err := f.device1(ctx, env.Account, certificateKey(env.Account, e.CertificateID))
	if err != nil || one != nil {
		return err // it is announced again at later connects
	}
	id, number, err := f.binding(ctx, env.Account, [][2]string{{bindAuthority, e.CACertificateID}})
	if err != nil || id == "" {
		return err
	}
	plan, err := f.plan(ctx, env.Account, id, number)
	if err != nil || plan.DeviceKey != KeyCertificate {
		return err // its key comes with its thing
	}
	if one, err = f.load(ctx, place{account: env.Account, key: e.CertificateID}); err != nil {
		return err
	}
	if one.now == nil {
		one.now = &record{Plan: id, Version: number}
	}
	return f.act(ctx, one, env.Actor, env.At, func(l *life) error {
		if l.Decommissioned || l.Life == 0 {
			l.begin()
		}
		f.hold(env.Account, l, "", e.CertificateID)
		l.reach(StateShipped, "seen on the network with its own certificate")
		l.reach(StateRegistered, "certificate "+e.CertificateID+" was registered, authority "+e.CACertificateID)
		return nil
	})
}

// binding is the plan in force that the first of kinds and names leads to.
func (f *follower) binding(ctx context.Context, account fleet.Account, from [][2]string) (id string, number int64, err error) {
	var keys []store.Key
	for _, each := range from {
		if each[1] != "" {
			keys = append(keys, bindingKey(account, each[0], each[1]))
		}
	}
	if len(keys) == 0 {
		return "", 0, nil
	}
	found, err := f.s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return "", 0, store.Fault(fmt.Errorf("read bindings of plans: %w", err))
	}
	for _, row := range found {
		if row.Version == 0 {
			continue
		}
		var name nameRow
		if err := decode(row, &name, &name.Schema); err != nil {
			return "", 0, err
		}
		k, err := f.s.plan(ctx, f.s.o.Store, account, name.Name)
		if err != nil {
			return "", 0, err
		}
		if k.Published != 0 {
			return name.Name, k.Published, nil
		}
	}
	return "", 0, nil
}

// rebuildBatch is how many connections are looked at together.
const rebuildBatch = 512

// Rebuild makes up for events that the log has no more. What was reported is in the
// records and stays; of what was missed only connections can be told, which
// activate what was registered before.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	state, err := s.o.Store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, store.Fault(fmt.Errorf("rebuild onboarding: %w", err))
	}
	defer state.Close() //nolint:errcheck // it was only read
	var all []Seen
	err = s.o.Connections(ctx, state, func(c Seen) error {
		all = append(all, c)
		return nil
	})
	if err != nil {
		return store.Cursor{}, err
	}
	for some := range slices.Chunk(all, rebuildBatch) {
		if err := s.seeAll(ctx, some); err != nil {
			return store.Cursor{}, err
		}
	}
	s.o.Logger.WarnContext(ctx, "onboarding has a gap: events were trimmed before they were applied")
	return state.Cursor(), nil
}

// seeAll takes connections for what they prove.
func (s *Service) seeAll(ctx context.Context, some []Seen) error {
	err := s.change(ctx, func(a *attempt) error {
		f := &follower{attempt: a}
		events := make([]event.Envelope, len(some))
		for i, c := range some {
			events[i] = event.Envelope{Account: c.Account, Event: event.DeviceConnected{Session: event.Session{ClientID: c.ClientID, Principal: c.CertificateID}}}
		}
		if err := f.find(ctx, s.o.Store, events); err != nil {
			return err
		}
		for _, c := range some {
			if err := f.connected(ctx, fleet.System, c); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return err
	}
	if err != nil && fault.CodeOf(err) == fault.Internal {
		return fmt.Errorf("rebuild onboarding: %w", err)
	}
	return err
}
