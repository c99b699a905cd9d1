package provisioning

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// birth is a claim that was marked.
func (r *flowRig) birth(edit func(*registry.SetPurposeCommand)) Requester {
	r.t.Helper()
	of := r.claim()
	c := registry.SetPurposeCommand{ID: of.Principal.ID, Purpose: registry.PurposeBirth}
	edit(&c)
	_, err := r.registry.SetCertificatePurpose(r.t.Context(), flowAccount, c)
	r.need(err)
	return of
}

func (r *flowRig) purpose(of Requester) registry.Purpose {
	r.t.Helper()
	p, err := r.registry.CertificatePurpose(r.t.Context(), flowAccount, of.Principal.ID)
	r.need(err)
	return p
}

// told are events of one kind behind a cursor.
func told[E event.Event](r *flowRig, after store.Cursor) []E {
	r.t.Helper()
	envelopes, _, err := r.disk.Events(r.t.Context(), after, 1000)
	r.need(err)
	var out []E
	for i := range envelopes {
		if e, ok := envelopes[i].Event.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

// refusedWith fails the test unless a device was refused in words.
func refusedWith(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(reasonOf(err), says) {
		t.Errorf("got %v, want %q", err, says)
	}
}

// A birth certificate is exchanged once, in the commit of the registration.
func TestBirthCertificateIsUsedUp(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	birth := r.birth(func(c *registry.SetPurposeCommand) { c.Serial = "1" })
	first, second := r.issued(birth), r.issued(birth)
	mark := r.head()
	_, err := r.join(birth, first.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", first.CertificateID)
	if status := r.status(birth.Principal.ID); status != registry.StatusInactive {
		t.Errorf("the birth certificate is %s", status)
	}
	if p := r.purpose(birth); p.Uses != 1 || p.Thing != "pump-1" || p.ReplacedBy != first.CertificateID || !p.Used() || !p.UsedAt.Equal(r.now()) {
		t.Errorf("on record is %+v", p)
	}
	used := told[event.BirthCertificateChanged](r, mark)
	if len(used) != 1 || used[0].Change != event.BirthUsed || used[0].ReplacedBy != first.CertificateID || used[0].Uses != 1 {
		t.Errorf("told %+v", used)
	}
	if changed := told[event.CertificateStatusChanged](r, mark); len(changed) != 2 || !changed[1].Used {
		t.Errorf("told %+v", changed)
	}
	_, err = r.join(birth, second.Token, "1")
	refusedWith(t, err, "is INACTIVE")
	_, err = r.CreateKeys(t.Context(), birth)
	refusedWith(t, err, "is INACTIVE")
	err = r.registry.UpdateCertificate(t.Context(), flowAccount, birth.Principal.ID, registry.StatusActive)
	refusedWith(t, err, "muster things reprovision")
	_, err = r.registry.SetCertificatePurpose(t.Context(), flowAccount, registry.SetPurposeCommand{ID: birth.Principal.ID, Purpose: registry.PurposeOperational})
	refusedWith(t, err, "cannot become operational")
}

// Of several requests at once with one birth certificate, one wins.
func TestBirthCertificateAtTheSameMoment(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	birth := r.birth(func(*registry.SetPurposeCommand) {})
	const devices = 6
	tokens := make([]string, devices)
	for i := range tokens {
		tokens[i] = r.issued(birth).Token
	}
	var all sync.WaitGroup
	var won sync.Map
	for _, token := range tokens {
		all.Go(func() {
			if _, err := r.join(birth, token, "1"); err == nil {
				won.Store(token, true)
			}
		})
	}
	all.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 || r.purpose(birth).Uses != 1 {
		t.Errorf("%d devices joined with one birth certificate", n)
	}
}

// A certificate is for one device: another serial is refused and raised.
func TestBirthCertificateOfAnotherDevice(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	bound := r.birth(func(c *registry.SetPurposeCommand) { c.Serial = "1" })
	mark := r.head()
	_, err := r.join(bound, r.issued(bound).Token, "2")
	wantCode(t, err, fault.Forbidden)
	want := event.BirthCertificateMisused{CertificateID: bound.Principal.ID, ClientID: "fac-1", Serial: "1", OtherSerial: "2"}
	for _, e := range told[event.BirthCertificateMisused](r, mark) {
		if !strings.Contains(e.Reason, "another device's") {
			t.Errorf("the reason is %q", e.Reason)
		}
		want.Reason = e.Reason
		if e != want {
			t.Errorf("told %+v", e)
		}
	}
	// What was provisioned once is that thing's from then on.
	several := r.birth(func(c *registry.SetPurposeCommand) { c.Limits.MaxUses = 3 })
	_, err = r.join(several, r.issued(several).Token, "3")
	r.need(err)
	mark = r.head()
	_, err = r.join(several, r.issued(several).Token, "4")
	wantCode(t, err, fault.Forbidden)
	raised := told[event.BirthCertificateMisused](r, mark)
	if len(raised) != 1 || raised[0].Thing != "pump-3" || raised[0].OtherThing != "pump-4" {
		t.Errorf("told %+v", raised)
	}
	_, err = r.join(several, r.issued(several).Token, "3")
	r.need(err)
}

// A device whose credentials are gone comes back with what it was made with: once,
// and in time.
func TestReprovisioning(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", strings.Replace(flowBody, `"site":{"Ref":"Site"}}}}`, `"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"MERGE"}}`, 1))
	birth := r.birth(func(*registry.SetPurposeCommand) {})
	made := r.issued(birth)
	_, err := r.join(birth, made.Token, "1")
	r.need(err)
	reopen := func() (registry.Reopened, error) {
		return r.registry.Reopen(t.Context(), flowAccount, registry.ReopenCommand{Thing: "pump-1", For: 15 * time.Minute, Reason: "flash is lost"})
	}
	_, err = reopen()
	refusedWith(t, err, "has the ACTIVE certificate "+made.CertificateID)
	r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, made.CertificateID, registry.StatusRevoked))

	open, err := reopen()
	r.need(err)
	if open.CertificateID != birth.Principal.ID || !open.Until.Equal(r.now().Add(15*time.Minute)) || r.status(birth.Principal.ID) != registry.StatusActive {
		t.Errorf("opened %+v", open)
	}
	_, err = reopen()
	refusedWith(t, err, "open until")
	_, err = r.join(birth, r.issued(birth).Token, "2")
	wantCode(t, err, fault.Forbidden) // it is opened for its own thing

	r.boot() // the window outlives the process
	again, more := r.issued(birth), r.issued(birth)
	_, err = r.join(birth, again.Token, "1")
	r.need(err)
	if p := r.purpose(birth); p.Uses != 2 || p.ReplacedBy != again.CertificateID || !p.Used() || r.status(birth.Principal.ID) != registry.StatusInactive {
		t.Errorf("on record is %+v", p)
	}
	_, err = r.join(birth, more.Token, "1")
	refusedWith(t, err, "is INACTIVE")

	// Unused, it closes by itself, and counts as closed before anybody has done it.
	r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, again.CertificateID, registry.StatusRevoked))
	_, err = reopen()
	r.need(err)
	late := r.issued(birth)
	r.pass(15 * time.Minute)
	_, err = r.join(birth, late.Token, "1")
	refusedWith(t, err, "is INACTIVE")
	mark := r.head()
	r.boot()
	for want := range 2 {
		closed, err := r.registry.CloseReopened(t.Context())
		if err != nil || closed != 1-want {
			t.Errorf("closed %d windows, %v", closed, err)
		}
	}
	closed := told[event.BirthCertificateChanged](r, mark)
	if len(closed) != 1 || closed[0].Change != event.BirthClosed || r.status(birth.Principal.ID) != registry.StatusInactive {
		t.Errorf("told %+v", closed)
	}
}

func TestReopenRefuses(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	_, err := r.join(claim, r.issued(claim).Token, "1")
	r.need(err)
	for name, c := range map[string]struct {
		command registry.ReopenCommand
		says    string
	}{
		"unknown":  {registry.ReopenCommand{Thing: "pump-9", For: time.Minute}, "does not exist"},
		"no birth": {registry.ReopenCommand{Thing: "pump-1", For: time.Minute}, "no birth certificate"},
		"too long": {registry.ReopenCommand{Thing: "pump-1", For: 25 * time.Hour}, "forSeconds"},
		"too soon": {registry.ReopenCommand{Thing: "pump-1"}, "forSeconds"},
		"reason":   {registry.ReopenCommand{Thing: "pump-1", For: time.Minute, Reason: strings.Repeat("x", 1025)}, "reason"},
	} {
		_, err := r.registry.Reopen(t.Context(), flowAccount, c.command)
		if err == nil || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Shared claims are counted only where that has a limit; their template and pace
// are their own.
func TestLimitsOfAClaim(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{ClaimRate: 100})
	r.template("pumps", flowBody)
	free := r.birth(func(c *registry.SetPurposeCommand) { c.Purpose = registry.PurposeClaim })
	for _, serial := range []string{"1", "2", "3"} {
		_, err := r.join(free, r.issued(free).Token, serial)
		r.need(err)
	}
	if p := r.purpose(free); p.Uses != 0 || r.status(free.Principal.ID) != registry.StatusActive {
		t.Errorf("on record is %+v", p)
	}
	limited := r.birth(func(c *registry.SetPurposeCommand) {
		c.Purpose, c.Limits = registry.PurposeClaim, registry.BirthLimits{MaxUses: 2, Requests: 3, Template: "pumps"}
	})
	tokens := []string{r.issued(limited).Token, r.issued(limited).Token, r.issued(limited).Token}
	_, err := r.CreateKeys(t.Context(), limited)
	wantCode(t, err, fault.Throttling)
	_, err = r.Provision(t.Context(), limited, ProvisionCommand{Template: "valves", Token: tokens[0]})
	wantCode(t, err, fault.ResourceNotFound)
	r.template("valves", flowBody)
	_, err = r.Provision(t.Context(), limited, ProvisionCommand{Template: "valves", Token: tokens[0], Parameters: map[string]string{"SerialNumber": "9"}})
	refusedWith(t, err, "for another template")
	for i, serial := range []string{"4", "5"} {
		_, err := r.join(limited, tokens[i], serial)
		r.need(err)
	}
	_, err = r.join(limited, tokens[2], "6")
	refusedWith(t, err, "is INACTIVE")
	if p := r.purpose(limited); p.Uses != 2 || p.Thing != "pump-5" {
		t.Errorf("on record is %+v", p)
	}
}

// The birth certificate of a thing is not the thing: it goes through the gate, and
// what it brings is no renewal.
func TestAttachedBirthCertificateRenewsNothing(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", strings.Replace(flowBody, `"site":{"Ref":"Site"}}}}`, `"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"MERGE"}}`, 1))
	birth := r.birth(func(*registry.SetPurposeCommand) {})
	_, err := r.registry.CreateThing(t.Context(), flowAccount, registry.CreateThingCommand{Name: "pump-1"})
	r.need(err)
	r.need(r.registry.AttachThingPrincipal(t.Context(), flowAccount, "pump-1", "arn:aws:iot:us-east-1:000000000000:cert/"+birth.Principal.ID, ""))
	if acts, err := r.registry.ActsAs(t.Context(), flowAccount, birth.Principal.ID, "pump-1"); err != nil || acts {
		t.Errorf("acts as the thing: %v, %v", acts, err)
	}
	mark := r.head()
	_, err = r.join(birth, r.issued(birth).Token, "1")
	r.need(err)
	if joined := r.eventsOf(mark); len(joined) != 1 || joined[0].Method != event.ProvisioningClaim {
		t.Errorf("told %+v", joined)
	}
}

// A device in quarantine that is provisioned again stays there, with its new
// certificate, also by a template that replaces groups.
func TestProvisionedInQuarantine(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	body := strings.Replace(flowBody, `"site":{"Ref":"Site"}}}}`, `"site":{"Ref":"Site"}},"ThingGroups":["line"]},"OverrideSettings":{"AttributePayload":"MERGE","ThingGroups":"REPLACE"}}`, 1)
	r.template("pumps", body)
	for _, group := range []string{"line", "spare"} {
		_, err := r.registry.CreateThingGroup(t.Context(), flowAccount, registry.CreateThingGroupCommand{Name: group})
		r.need(err)
	}
	claim := r.claim()
	_, err := r.join(claim, r.issued(claim).Token, "1")
	r.need(err)
	_, err = r.registry.Quarantine(t.Context(), flowAccount, "pump-1", "x", "test")
	r.need(err)
	r.need(r.registry.UpdateThingGroupsForThing(t.Context(), flowAccount, registry.UpdateGroupsCommand{Thing: "pump-1", Add: []string{"spare"}}))
	made := r.issued(claim)
	_, err = r.join(claim, made.Token, "1")
	r.need(err)
	groups, err := r.registry.ListThingGroupsForThing(t.Context(), flowAccount, "pump-1", registry.Page{Limit: 10})
	r.need(err)
	if strings.Join(groups.Items, " ") != "line quarantine" {
		t.Errorf("the thing is in %v", groups.Items)
	}
	if p, err := r.registry.CertificatePurpose(t.Context(), flowAccount, made.CertificateID); err != nil || !p.Quarantined || !p.Bound() {
		t.Errorf("its new certificate is %+v, %v", p, err)
	}
}

// revokingGate revokes a claim while somebody decides about its device.
type revokingGate func()

func (g revokingGate) Decide(context.Context, Candidate) (Pass, error) {
	g()
	return Pass{}, nil
}

// A claim that is revoked while authorities think provisions nobody.
func TestClaimIsRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	made := r.issued(claim)
	r.o.Gate = revokingGate(func() {
		r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, claim.Principal.ID, registry.StatusRevoked))
	})
	_, err := r.join(claim, made.Token, "1")
	wantCode(t, err, fault.Forbidden)
	r.untouched(made.CertificateID, "pump-1")
}

// A certificate that is bound to a serial is not good for another one by a parameter that
// the template does not have.
func TestSerialInAParameterThatTheTemplateIgnores(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", strings.NewReplacer(`"SerialNumber"`, `"Serial"`, "${SerialNumber}", "${Serial}").Replace(flowBody))
	bound := r.birth(func(c *registry.SetPurposeCommand) { c.Serial = "1" })
	for _, parameters := range []map[string]string{
		{"Serial": "2", "SerialNumber": "1"}, {"Serial": "2", "x": "1"},
	} {
		_, err := r.Provision(t.Context(), bound, ProvisionCommand{Template: "pumps", Token: r.issued(bound).Token, Parameters: parameters})
		wantCode(t, err, fault.Forbidden)
	}
	_, err := r.Provision(t.Context(), bound, ProvisionCommand{Template: "pumps", Token: r.issued(bound).Token, Parameters: map[string]string{"Serial": "1"}})
	r.need(err)
}

// A device in quarantine is not provisioned as another thing, which would not be in
// quarantine.
func TestQuarantineIsNotLeftByAnotherName(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", strings.Replace(flowBody, `"site":{"Ref":"Site"}}}}`, `"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"MERGE"}}`, 1))
	claim := r.claim()
	own := r.issued(claim)
	_, err := r.join(claim, own.Token, "1")
	r.need(err)
	_, err = r.registry.Quarantine(t.Context(), flowAccount, "pump-1", "x", "test")
	r.need(err)
	device := Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: own.CertificateID}, ClientID: "pump-1"}
	made := r.issued(device)
	_, err = r.join(device, made.Token, "2")
	wantCode(t, err, fault.Forbidden)
	_, err = r.join(device, made.Token, "1")
	r.need(err)
}

// strictGate lets nobody in, and counts who asks.
type strictGate struct{ asked []Candidate }

func (g *strictGate) Decide(_ context.Context, c Candidate) (Pass, error) {
	g.asked = append(g.asked, c)
	return Pass{}, fault.New(fault.Forbidden, "the gate is shut")
}

// A device renews its certificate by the template that has made it without the gate; by
// another template, which may give it more, it goes through the gate.
func TestRenewalByAnotherTemplate(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	body := strings.Replace(flowBody, `"site":{"Ref":"Site"}}}}`, `"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"MERGE"}}`, 1)
	r.template("pumps", body)
	r.template("supervisors", body)
	claim := r.claim()
	own := r.issued(claim)
	_, err := r.join(claim, own.Token, "1")
	r.need(err)
	gate := &strictGate{}
	r.o.Gate = gate
	device := Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: own.CertificateID}, ClientID: "pump-1"}
	made := r.issued(device)
	_, err = r.Provision(t.Context(), device, ProvisionCommand{Template: "supervisors", Token: made.Token, Parameters: map[string]string{"SerialNumber": "1"}})
	wantCode(t, err, fault.Forbidden)
	if len(gate.asked) != 1 {
		t.Errorf("the gate was asked about %+v", gate.asked)
	}
	_, err = r.join(device, made.Token, "1")
	r.need(err)
	if len(gate.asked) != 1 {
		t.Errorf("the gate was asked about %+v", gate.asked)
	}
}
