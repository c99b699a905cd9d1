package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// States of other domains as their events tell them.
const (
	certificateActive          = "ACTIVE"
	certificateInactive        = "INACTIVE"
	certificateRevoked         = "REVOKED"
	approvalApproved           = "APPROVED"
	approvalExpired            = "EXPIRED"
	approvalUsed               = "USED"
	listClaimed                = "CLAIMED"
	onboardingExpected         = "EXPECTED"
	onboardingManufactured     = "MANUFACTURED"
	codeRefused                = string(fault.Forbidden)
	maxWaiting                 = 32
	maxRefusals                = 16
	maxVotes                   = 32
	maxUnproven                = 64
	maxReason                  = 256
	beyondBatch                = 128
	maxAhead                   = 512
	noteOlder                  = "it was there before the ledger"
	methodAPI                  = "API"
	labelThing, labelCert      = "thing", "certificate"
	labelRequest, labelVerdict = "request", "verdict"
)

// follower is a book that follows the log.
type follower struct {
	*book

	// events are those to apply, and some of the next ones to look ahead.
	of    []event.Envelope
	began beganRecord
	// i is the event that is being applied, env what it is.
	i   int
	env *event.Envelope
}

// Apply turns events into entries: it is a durable consumer of the log. The runner
// commits them with its cursor, so that each event is entered once.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	f := &follower{book: s.open(), of: events}
	begun, err := f.begin(ctx, events)
	if err != nil {
		return store.Batch{}, err
	}
	if err := f.lookBeyond(ctx, events); err != nil {
		return store.Batch{}, err
	}
	if err := f.find(ctx, namesIn(events)); err != nil {
		return store.Batch{}, err
	}
	for i := range events {
		f.i, f.env = i, &events[i]
		if err := f.apply(ctx); err != nil {
			return store.Batch{}, fmt.Errorf("ledger: event %d:%d: %w", f.env.Partition, f.env.Seq, err)
		}
	}
	out, err := f.batch(ctx)
	if err != nil {
		return store.Batch{}, err
	}
	if begun {
		out.Expect = append(out.Expect, store.Expect{Key: beganKey()})
		if err := put(&out, beganKey(), f.began); err != nil {
			return store.Batch{}, err
		}
	}
	s.entries.Add(float64(f.told.entries))
	s.rogues.WithLabelValues(string(RogueJoined)).Add(float64(f.told.devices))
	s.rogues.WithLabelValues(string(RogueAttempt)).Add(float64(f.told.attempts))
	return out, nil
}

// begin reads whether the ledger has seen everything; at the first call it decides
// that, which begun tells.
func (f *follower) begin(ctx context.Context, events []event.Envelope) (begun bool, err error) {
	if len(events) == 0 {
		return false, nil
	}
	found, err := f.s.o.Store.Get(ctx, beganKey())
	switch {
	case err == nil:
		return false, decode(found, &f.began, &f.began.Schema)
	case !errors.Is(err, store.ErrNotFound):
		return false, store.Fault(fmt.Errorf("read where the ledger began: %w", err))
	}
	f.began = beganRecord{Schema: schemaVersion, At: f.s.o.Now().UnixMilli(), Complete: events[0].Seq == 1}
	return true, nil
}

// lookBeyond reads a few events more, so that what follows in the same commit is
// known.
func (f *follower) lookBeyond(ctx context.Context, events []event.Envelope) error {
	if !slices.ContainsFunc(events[max(0, len(events)-beyondBatch):], looksAhead) {
		return nil
	}
	last := store.Cursor{}
	for i := range events {
		last = last.Advance(store.Position{Partition: events[i].Partition, Seq: events[i].Seq})
	}
	more, _, err := f.s.o.Store.Events(ctx, last, beyondBatch)
	f.of = append(slices.Clone(events), more...)
	return store.Fault(err)
}

// looksAhead tells the events that mean something else when certain others follow.
func looksAhead(env event.Envelope) bool {
	switch env.Event.(type) {
	case event.ThingCreated, event.PrincipalAttached, event.PrincipalDetached, event.ThingDeleted, event.CertificateStatusChanged:
		return true
	default:
		return false
	}
}

// namesIn are the names that events may be about.
func namesIn(events []event.Envelope) []store.Key {
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
		thing := func(name string) { ask(thingKey(account, name)) }
		certificate := func(id string) { ask(certificateKey(account, id)) }
		switch e := events[i].Event.(type) {
		case event.ThingCreated:
			thing(e.Thing.Thing)
		case event.ThingDeleted:
			thing(e.Thing)
		case event.ThingDecommissioned:
			thing(e.Thing)
		case event.PrincipalAttached:
			thing(e.Thing)
			certificate(certificateIn(e.Principal))
		case event.PrincipalDetached:
			thing(e.Thing)
		case event.DeviceConnected:
			certificate(e.Principal)
		case event.DeviceProvisioned:
			thing(e.Thing)
			certificate(e.CertificateID)
			certificate(e.ClaimID)
		case event.ProvisioningRefused:
			certificate(e.CertificateID)
		case event.ApprovalChanged:
			thing(e.Thing)
			certificate(e.CertificateID)
		case event.AllowListEntryChanged:
			thing(e.Thing)
			certificate(e.CertificateID)
		case event.DuplicateSerial:
			certificate(e.CertificateID)
			certificate(e.OtherCertificateID)
		case event.BirthCertificateMisused:
			certificate(e.CertificateID)
		case event.ThingQuarantined:
			thing(e.Thing)
		case event.ThingReleased:
			thing(e.Thing)
		case event.CertificateCreated:
			certificate(e.CertificateID)
		case event.CertificateAutoRegistered:
			certificate(e.CertificateID)
		case event.CertificateStatusChanged:
			certificate(e.CertificateID)
		case event.CertificateDeleted:
			certificate(e.CertificateID)
		case event.CertificateTransferChanged:
			certificate(e.CertificateID)
		case event.CertificateRenewalChanged:
			thing(e.Thing)
			certificate(e.NewCertificateID)
		case event.OnboardingChanged:
			thing(e.Thing)
		default:
			// The rest is not about the life of a device.
		}
	}
	return keys
}

// certificateIn is the id of the certificate that an ARN names, empty for another
// principal.
func certificateIn(arn string) string {
	_, id, found := strings.Cut(arn, ":"+fleet.ARNCertificate+"/")
	if !found {
		return ""
	}
	return id
}

// apply enters one event.
func (f *follower) apply(ctx context.Context) error {
	switch e := f.env.Event.(type) {
	case event.ThingCreated:
		return f.thingCreated(ctx, e.Thing.Thing)
	case event.DeviceProvisioned:
		return f.provisioned(ctx, &e)
	case event.ProvisioningRefused:
		return f.refused(ctx, &e)
	case event.PrincipalAttached:
		return f.attached(ctx, &e)
	case event.PrincipalDetached:
		return f.detached(ctx, &e)
	case event.DeviceConnected:
		if f.env.Actor.Principal.Kind != fleet.PrincipalCertificate {
			return nil
		}
		return f.connected(ctx, &e)
	case event.ApprovalChanged:
		return f.approval(ctx, &e)
	case event.AllowListEntryChanged:
		return f.listed(ctx, &e)
	case event.DuplicateSerial:
		return f.duplicated(ctx, &e)
	case event.BirthCertificateMisused:
		return f.tell(ctx, e.CertificateID, e.Thing, f.draft(BirthMisused, map[string]string{
			labelCert: e.CertificateID, "client": e.ClientID, "otherSerial": e.OtherSerial, "otherThing": e.OtherThing,
		}))
	case event.ThingQuarantined:
		return f.tellThing(ctx, e.Thing, f.draft(Quarantined, map[string]string{labelThing: e.Thing, "reason": clip(e.Reason, maxReason), "by": e.By}))
	case event.ThingReleased:
		return f.tellThing(ctx, e.Thing, f.draft(Released, map[string]string{labelThing: e.Thing, "reason": clip(e.Reason, maxReason)}))
	case event.OnboardingChanged:
		return f.onboarding(ctx, &e)
	case event.OnboardingCriteriaFailed:
		return f.criterionFailed(ctx, &e)
	case event.CertificateCreated:
		return f.certificateCreated(ctx, &e)
	case event.CertificateAutoRegistered:
		return f.certificateAnnounced(ctx, &e)
	case event.CertificateStatusChanged:
		return f.certificateStatus(ctx, &e)
	case event.CertificateDeleted:
		return f.certificateDeleted(ctx, e.CertificateID)
	case event.CertificateTransferChanged:
		return f.tell(ctx, e.CertificateID, "", f.draft(Transferred, map[string]string{
			labelCert: e.CertificateID, "step": string(e.Change), "from": string(e.From), "to": string(e.To),
		}))
	case event.CertificateRenewalChanged:
		return f.renewed(ctx, &e)
	case event.CACertificateChanged:
		return f.authorityChanged(ctx, &e)
	case event.ThingDeleted:
		return f.thingDeleted(ctx, &e)
	case event.ThingDecommissioned:
		return f.end(ctx, e.Thing, map[string]string{labelThing: e.Thing, "reason": clip(e.Reason, maxReason), "revoked": strconv.Itoa(len(e.Certificates))})
	default:
		// The rest is not about the life of a device.
		return nil
	}
}

// draft begins an entry about the present event. Whoever acts from another account is
// named by kind only: what its operators are called is not for others.
func (f *follower) draft(what What, facts map[string]string) Draft {
	d := Draft{At: f.env.At.UnixMilli(), What: what, Principal: f.env.Actor.Principal, Facts: facts, Evidence: []string{f.position()}}
	if parts := strings.SplitN(d.Principal.ARN, ":", 6); len(parts) == 6 && parts[4] != string(f.env.Account) {
		d.Principal = fleet.Principal{Kind: d.Principal.Kind}
	}
	if id := f.env.Actor.RequestID; id != "" {
		d.Evidence = append(d.Evidence, "call "+id)
	}
	return d
}

// position refers to the present event.
func (f *follower) position() string { return fmt.Sprintf("event %d:%d", f.env.Partition, f.env.Seq) }

// ahead finds an event that follows in the same commit.
func (f *follower) ahead(fits func(event.Event) bool) event.Event {
	for j := f.i + 1; j < len(f.of) && j <= f.i+maxAhead; j++ {
		next := &f.of[j]
		if next.Account != f.env.Account || !next.At.Equal(f.env.At) || next.Actor != f.env.Actor {
			break
		}
		if fits(next.Event) {
			return next.Event
		}
	}
	return nil
}

// provisionedAhead is the registration in the same commit that a thing belongs to.
func (f *follower) provisionedAhead(thing string) *event.DeviceProvisioned {
	found := f.ahead(func(e event.Event) bool {
		p, ok := e.(event.DeviceProvisioned)
		return ok && p.Thing == thing
	})
	if p, ok := found.(event.DeviceProvisioned); ok {
		return &p
	}
	return nil
}

// led is the device that a name leads to, nil for none.
func (f *follower) led(ctx context.Context, k store.Key) (*device, error) {
	if k.Last() == "" {
		return nil, nil //nolint:nilnil // no device is no mistake
	}
	n, err := f.name(ctx, k)
	if err != nil || n.leads() == "" {
		return nil, err
	}
	return f.device(ctx, place{f.env.Account, n.leads()})
}

func (f *follower) ofThing(ctx context.Context, thing string) (*device, error) {
	return f.led(ctx, thingKey(f.env.Account, thing))
}

func (f *follower) ofCertificate(ctx context.Context, id string) (*device, error) {
	return f.led(ctx, certificateKey(f.env.Account, id))
}

// ofKey is the device of a key of onboarding; one without any entry is new.
func (f *follower) ofKey(ctx context.Context, key string) (*device, error) {
	if d, err := f.led(ctx, aliasKey(f.env.Account, key)); d != nil || err != nil {
		return d, err
	}
	return f.device(ctx, place{f.env.Account, key})
}

// fresh is the device of a name that leads to none yet. A key that another device
// has gets the kind in front.
func (f *follower) fresh(ctx context.Context, kind, name string) (*device, error) {
	for key := name; ; key = kind + ":" + key {
		d, err := f.device(ctx, place{f.env.Account, key})
		if err != nil || d.Seq == 0 || d.Ended != 0 || d.Thing == "" && d.Registered == 0 || kind == labelThing && d.Thing == name {
			return d, err
		}
	}
}

// ofProvisioned is the device of a registration: the one that its thing or its
// certificate leads to, or the one of the key that its plan gives it, or the one that
// was announced by its name.
func (f *follower) ofProvisioned(ctx context.Context, e *event.DeviceProvisioned) (*device, error) {
	known, err := f.ofThing(ctx, e.Thing)
	if err == nil && known == nil {
		known, err = f.ofCertificate(ctx, e.CertificateID)
	}
	if err != nil || known != nil && known.Ended == 0 {
		return known, err
	}
	// A name that is used again may be another device's now.
	key, err := f.s.o.DeviceKey(ctx, f.env.Account, *e)
	if err != nil {
		return nil, fmt.Errorf("find the key of a device: %w", err)
	}
	if key != "" {
		return f.ofKey(ctx, key)
	}
	if known != nil {
		return known, nil
	}
	for _, name := range []string{e.Thing, e.ClientID} {
		if name == "" {
			continue
		}
		d, err := f.device(ctx, place{f.env.Account, name})
		if err != nil || d.Seq > 0 && d.Registered == 0 && d.Ended == 0 && d.Thing == "" {
			return d, err
		}
	}
	if e.Thing != "" {
		return f.fresh(ctx, labelThing, e.Thing)
	}
	return f.fresh(ctx, labelCert, e.CertificateID)
}

// live begins a life unless one lasts.
func (f *follower) live(d *device) {
	if d.Life == 0 || d.Ended != 0 {
		d.deviceRecord = deviceRecord{Seq: d.Seq, Hash: d.Hash, Life: d.Life + 1, Begun: f.env.At.UnixMilli()}
		d.changed = true
	}
}

// bind lets a device be a thing.
func (f *follower) bind(ctx context.Context, d *device, thing string) error {
	if thing == "" {
		return nil
	}
	if d.Thing != thing {
		d.Thing, d.changed = thing, true
	}
	return f.lead(ctx, thingKey(f.env.Account, thing), d.at.device)
}

// thingCreated begins the life of a thing that an operator makes. One that a template
// makes is registered with it.
func (f *follower) thingCreated(ctx context.Context, thing string) error {
	p := f.provisionedAhead(thing)
	var d *device
	var err error
	if p != nil {
		d, err = f.ofProvisioned(ctx, p)
	} else if d, err = f.ofThing(ctx, thing); err == nil && d == nil {
		d, err = f.fresh(ctx, labelThing, thing)
	}
	if err != nil {
		return err
	}
	f.live(d)
	if err := f.bind(ctx, d, thing); err != nil || p != nil {
		return err
	}
	return f.register(ctx, d, map[string]string{"means": methodAPI, labelThing: thing}, func() (string, error) {
		by := f.env.Actor
		ref := f.position()
		if by.RequestID != "" {
			ref = "call " + by.RequestID
		}
		if one, ok := maker(by.Principal, ref); ok {
			d.speak(one)
			return "", nil
		}
		return "its thing was made by " + nameOfPrincipal(by.Principal), nil
	})
}

// register enters a registration and judges it.
func (f *follower) register(ctx context.Context, d *device, facts map[string]string, vouch func() (against string, err error)) error {
	if d.Registered != 0 {
		facts["again"] = "true"
	}
	against, err := vouch()
	if err != nil {
		return err
	}
	d.Registered, d.changed = f.env.At.UnixMilli(), true
	if err := f.add(ctx, d, f.draft(Registered, facts)); err != nil {
		return err
	}
	return f.judge(ctx, d, against)
}

// provisioned registers the device of a template.
func (f *follower) provisioned(ctx context.Context, e *event.DeviceProvisioned) error {
	if e.Method == event.ProvisioningRenewal {
		return nil // the renewal has events of its own
	}
	d, err := f.ofProvisioned(ctx, e)
	if err != nil {
		return err
	}
	f.live(d)
	if err := f.bind(ctx, d, e.Thing); err != nil {
		return err
	}
	if e.CertificateID != "" {
		if d, err = f.hold(ctx, d, e.CertificateID); err != nil {
			return err
		}
	}
	facts := map[string]string{
		"means": string(e.Method), "template": e.Template, labelThing: e.Thing, labelCert: e.CertificateID,
		"claim": e.ClaimID, "authority": e.CACertificateID, "task": e.Task, "client": clip(e.ClientID, maxReason),
	}
	if e.TemplateVersion != 0 {
		facts["templateVersion"] = strconv.FormatInt(e.TemplateVersion, 10)
	}
	return f.register(ctx, d, facts, func() (string, error) { return f.vouch(ctx, d, e) })
}

// found begins the ledger of a thing that no event tells of.
func (f *follower) found(ctx context.Context, thing string) (*device, error) {
	d, err := f.fresh(ctx, labelThing, thing)
	if err != nil {
		return nil, err
	}
	f.live(d)
	if err := f.bind(ctx, d, thing); err != nil {
		return nil, err
	}
	d.Registered, d.changed = f.env.At.UnixMilli(), true
	against := f.older(d, "thing "+thing, "the registry has it, and no event made it")
	if err := f.add(ctx, d, f.draft(Found, map[string]string{labelThing: thing, "note": noteOlder})); err != nil {
		return nil, err
	}
	return d, f.judge(ctx, d, against)
}

// thingDevice is the device of a thing that there is.
func (f *follower) thingDevice(ctx context.Context, thing string) (*device, error) {
	d, err := f.ofThing(ctx, thing)
	if err != nil || d != nil {
		return d, err
	}
	return f.found(ctx, thing)
}

// hold gives a device a certificate, and tells what waited for that. It returns the
// device that has it then.
func (f *follower) hold(ctx context.Context, d *device, id string) (*device, error) {
	n, err := f.certificate(ctx, f.env.Account, id)
	if err != nil {
		return nil, err
	}
	if n.certificate == nil {
		n.certificate = &certificateRecord{}
	}
	c := n.certificate
	if c.Device == d.at.device {
		return d, nil
	}
	n.changed, n.deleted = true, false
	first := c.Device == ""
	if !first {
		other, err := f.device(ctx, place{f.env.Account, c.Device})
		if err != nil {
			return nil, err
		}
		if other.Thing == "" && other.Ended == 0 {
			return other, f.join(ctx, other, d)
		}
		c.Shared, c.Used = other.Ended == 0, false
	}
	c.Device = d.at.device
	if d.Certificate == "" || d.Status != certificateActive {
		d.Certificate, d.Status, d.changed = id, c.Status, true
	}
	for _, waited := range c.Waiting {
		if err := f.add(ctx, d, waited); err != nil {
			return nil, err
		}
		d.note(&waited)
	}
	c.Waiting = nil
	if first && c.Origin != nil {
		return d, nil // its issue was told
	}
	facts := map[string]string{labelCert: id, "shared": ""}
	if c.Shared {
		facts["shared"] = "true"
	}
	return d, f.add(ctx, d, f.draft(CertificateAttached, facts))
}

// join makes one ledger of two, when a device that was known by its certificate turns
// out to be a thing: the ledger of the thing ends, and goes on in the other one.
func (f *follower) join(ctx context.Context, stays, ends *device) error {
	if stays == ends {
		return nil
	}
	facts := map[string]string{"ledger": ends.at.device, labelThing: ends.Thing, "entries": strconv.FormatUint(ends.Seq+1, 10)}
	if err := f.add(ctx, ends, f.draft(Continued, map[string]string{"ledger": stays.at.device})); err != nil {
		return err
	}
	facts["hash"] = ends.Hash
	if err := f.bind(ctx, stays, ends.Thing); err != nil {
		return err
	}
	for _, one := range ends.Evidence {
		stays.speak(one)
	}
	if stays.Registered == 0 {
		stays.Registered = ends.Registered
	}
	ends.Ended, ends.Thing = f.env.At.UnixMilli(), ""
	return f.add(ctx, stays, f.draft(Joined, facts))
}

// attached gives a thing a certificate.
func (f *follower) attached(ctx context.Context, e *event.PrincipalAttached) error {
	id := certificateIn(e.Principal)
	if id == "" {
		return nil
	}
	var d *device
	var err error
	if p := f.provisionedAhead(e.Thing); p != nil && p.Method != event.ProvisioningRenewal {
		d, err = f.ofProvisioned(ctx, p)
		if err == nil {
			f.live(d)
			err = f.bind(ctx, d, e.Thing)
		}
	} else {
		d, err = f.thingDevice(ctx, e.Thing)
	}
	if err != nil {
		return err
	}
	_, err = f.hold(ctx, d, id)
	return err
}

// detached takes a certificate from a thing, which stays.
func (f *follower) detached(ctx context.Context, e *event.PrincipalDetached) error {
	id := certificateIn(e.Principal)
	if id == "" || f.endsAhead(e.Thing) {
		return nil
	}
	d, err := f.thingDevice(ctx, e.Thing)
	if err != nil {
		return err
	}
	return f.add(ctx, d, f.draft(CertificateDetached, map[string]string{labelCert: id}))
}

// endsAhead reports whether a thing is deleted in the same commit.
func (f *follower) endsAhead(thing string) bool {
	return f.ahead(func(e event.Event) bool {
		gone, ok := e.(event.ThingDeleted)
		return ok && gone.Thing == thing
	}) != nil
}

// connected takes a connection with the certificate of a device for activation, and
// one by a device's name with another certificate, as a claim is, for its arrival.
func (f *follower) connected(ctx context.Context, e *event.DeviceConnected) error {
	n, err := f.certificate(ctx, f.env.Account, e.Principal)
	if err != nil || n.certificate != nil && n.certificate.Used {
		return err
	}
	thing := e.ThingName
	if thing == "" && e.Indexed {
		thing = e.ClientID
	}
	var d *device
	if thing != "" {
		if d, err = f.thingDevice(ctx, thing); err != nil {
			return err
		}
		if n.leads() == "" && d.Ended == 0 {
			d, err = f.hold(ctx, d, e.Principal)
		}
	} else {
		d, err = f.ofCertificate(ctx, e.Principal)
	}
	if err != nil {
		return err
	}
	if d == nil {
		return f.seen(ctx, e)
	}
	if d.Ended != 0 {
		return nil // the connection was faster than the end
	}
	if c := n.certificate; c != nil && !c.Shared {
		c.Used, n.changed = true, true
	}
	if d.Registered == 0 {
		return f.arrived(ctx, d, e)
	}
	if d.Certificate != e.Principal {
		d.Certificate, d.changed = e.Principal, true
		if n.certificate != nil {
			d.Status = n.certificate.Status
		}
	}
	if d.Activated != 0 {
		return nil
	}
	d.Activated, d.changed = f.env.At.UnixMilli(), true
	basis, said := f.s.basis(d)
	if basis == ByNothing {
		said = append(said, "none: stock template without binding")
	}
	entry := f.draft(Activated, map[string]string{
		labelCert: e.Principal, labelThing: d.Thing, "client": clip(e.ClientID, maxReason), "basis": string(basis),
	})
	entry.Evidence = append(entry.Evidence, said...)
	if err := f.add(ctx, d, entry); err != nil {
		return err
	}
	return f.judge(ctx, d, "")
}

// seen looks for a device that waits to be registered, by the name of the client.
func (f *follower) seen(ctx context.Context, e *event.DeviceConnected) error {
	if e.ClientID == "" || len(e.ClientID) > maxReason {
		return nil
	}
	d, err := f.ofKey(ctx, e.ClientID)
	if err != nil || d.Seq == 0 || d.Registered != 0 || d.Ended != 0 {
		return err
	}
	return f.arrived(ctx, d, e)
}

// arrived enters once that a device was on the network before it was registered.
func (f *follower) arrived(ctx context.Context, d *device, e *event.DeviceConnected) error {
	if d.Seen {
		return nil
	}
	d.Seen, d.changed = true, true
	return f.add(ctx, d, f.draft(Seen, map[string]string{"client": clip(e.ClientID, maxReason), labelCert: e.Principal}))
}

// tellThing enters what was done to a thing; one without a ledger has none by this.
func (f *follower) tellThing(ctx context.Context, thing string, draft Draft) error {
	d, err := f.ofThing(ctx, thing)
	if err != nil || d == nil || d.Ended != 0 {
		return err
	}
	return f.add(ctx, d, draft)
}

// tell enters something about a certificate in the ledger of its device, or of the
// thing, or keeps it until a device has the certificate.
func (f *follower) tell(ctx context.Context, id, thing string, draft Draft) error {
	n, err := f.certificate(ctx, f.env.Account, id)
	if err != nil {
		return err
	}
	d, err := f.ofCertificate(ctx, id)
	if err == nil && d == nil {
		if d, err = f.ofThing(ctx, thing); err == nil && d == nil && thing != "" {
			if d, err = f.ofKey(ctx, thing); err == nil && (d.Seq == 0 || d.Registered != 0) {
				d = nil
			}
		}
		if d != nil && (d.Ended != 0 || d.Unproven >= maxUnproven) {
			d = nil // the name will be another device's, or somebody plays with it
		}
		if d != nil {
			d.Unproven++
		}
	}
	if err != nil {
		return err
	}
	if d != nil {
		if err := f.add(ctx, d, draft); err != nil {
			return err
		}
		d.note(&draft)
		return nil
	}
	if n.certificate != nil && len(n.certificate.Waiting) < maxWaiting {
		n.certificate.Waiting, n.changed = append(n.certificate.Waiting, draft), true
	}
	return nil
}

// onboarding enters how far a device is by its plan.
func (f *follower) onboarding(ctx context.Context, e *event.OnboardingChanged) error {
	d, err := f.ofKey(ctx, e.Device)
	if err != nil {
		return err
	}
	if d.Seq == 0 && e.Thing != "" {
		// It is kept by another key.
		known, err := f.ofThing(ctx, e.Thing)
		if err != nil {
			return err
		}
		if known != nil {
			d = known
			if err := f.lead(ctx, aliasKey(f.env.Account, e.Device), d.at.device); err != nil {
				return err
			}
		}
	}
	if d.Life == 0 || d.Ended != 0 && e.PreviousState == "" {
		f.live(d)
	}
	what := Planned
	switch {
	case e.PreviousState == e.State:
	case e.State == onboardingExpected:
		what = Expected
	case e.State == onboardingManufactured:
		what = Manufactured
	}
	// What follows from the device's own act, as a plan that begins with its
	// registration, announces nothing.
	by := f.env.Actor.Principal
	if e.PreviousState == "" && (e.State == onboardingExpected || e.State == onboardingManufactured) && (operates(by) || by.Kind == fleet.PrincipalSystem) {
		d.speak(Evidence{Basis: ByExpectation, Ref: e.Device, Detail: "announced by " + nameOfPrincipal(by) + ", " + f.position()})
	}
	return f.add(ctx, d, f.draft(what, map[string]string{
		"plan": e.Plan, "planVersion": strconv.FormatInt(e.PlanVersion, 10), "state": e.State, "stage": e.Stage,
		"steps": clip(strings.Join(e.Steps, " "), maxReason), labelThing: e.Thing,
	}))
}

// criterionFailed enters an exit criterion that did not hold.
func (f *follower) criterionFailed(ctx context.Context, e *event.OnboardingCriteriaFailed) error {
	d, err := f.ofKey(ctx, e.Device)
	if err != nil || d.Seq == 0 {
		return err
	}
	return f.add(ctx, d, f.draft(CriterionFailed, map[string]string{
		"plan": e.Plan, "planVersion": strconv.FormatInt(e.PlanVersion, 10), "stage": e.Stage, "within": e.Within.String(),
	}))
}

// thingDeleted ends a life, unless the commit tells more of it.
func (f *follower) thingDeleted(ctx context.Context, e *event.ThingDeleted) error {
	more := f.ahead(func(next event.Event) bool {
		gone, ok := next.(event.ThingDecommissioned)
		return ok && gone.Thing == e.Thing
	})
	if more != nil {
		return nil
	}
	return f.end(ctx, e.Thing, map[string]string{labelThing: e.Thing, "reason": "the thing was deleted"})
}

// end ends the life of a thing. Its ledger stays.
func (f *follower) end(ctx context.Context, thing string, facts map[string]string) error {
	d, err := f.thingDevice(ctx, thing)
	if err != nil {
		return err
	}
	if d.Ended == 0 {
		d.Ended, d.changed = f.env.At.UnixMilli(), true
	}
	return f.add(ctx, d, f.draft(Decommissioned, facts))
}

// Rebuild goes on when the log was trimmed past the ledger. What was lost cannot be
// known any more, and nothing that is entered is written again: that something was
// lost is an entry of its own in every account.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	cursor, err := s.o.Store.Oldest(ctx)
	if err != nil {
		return cursor, store.Fault(fmt.Errorf("rebuild the ledger: %w", err))
	}
	began := beganRecord{}
	found, err := s.o.Store.Get(ctx, beganKey())
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return cursor, store.Fault(fmt.Errorf("rebuild the ledger: %w", err))
	default:
		if err := decode(found, &began, &began.Schema); err != nil {
			return cursor, err
		}
	}
	if began.Gap == cursor.String() {
		return cursor, nil // it was told, and the process died then
	}
	first := began.At == 0
	if first {
		began.At = s.o.Now().UnixMilli()
	}
	began.Schema, began.Complete, began.Gap = schemaVersion, false, cursor.String()
	b := s.open()
	if !first {
		accounts, err := s.Accounts(ctx)
		if err != nil {
			return cursor, err
		}
		s.o.Logger.ErrorContext(ctx, "ledger has a gap: events were trimmed before they were entered", slog.String("up_to", cursor.String()))
		for _, account := range accounts {
			d, err := b.device(ctx, place{account, ledgerItself})
			if err == nil {
				err = b.add(ctx, d, Draft{
					At: s.o.Now().UnixMilli(), What: Gap, Principal: fleet.System.Principal,
					Facts: map[string]string{"eventsTrimmedUpTo": cursor.String()},
				})
			}
			if err != nil {
				return cursor, err
			}
		}
	}
	out, err := b.batch(ctx)
	if err != nil {
		return cursor, err
	}
	out.Expect = append(out.Expect, store.Expect{Key: beganKey(), Version: found.Version})
	if err := put(&out, beganKey(), began); err != nil {
		return cursor, err
	}
	if _, err := s.o.Store.Commit(ctx, out); err != nil {
		return cursor, store.Fault(fmt.Errorf("enter a gap in the ledger: %w", err))
	}
	return cursor, nil
}
