package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// A plain operator makes a thing by hand and is not bothered.
func TestOperatorMakesAThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, certificate("c1", "ACTIVE"))
	r.happens(ada, thing("pump-7"))
	r.happens(ada, attach("pump-7", "c1"))
	r.happens(holder("c1"), connect("c1", "whatever"))
	r.happens(holder("c1"), connect("c1", "whatever"))
	wantEqual(t, r.whats("pump-7"), []What{Registered, CertificateIssued, Activated})
	active := r.last("pump-7", Activated)
	wantEqual(t, active.Facts, map[string]string{"certificate": "c1", "thing": "pump-7", "client": "whatever", "basis": "OPERATOR"})
	if !slices.Contains(active.Evidence, "OPERATOR call req-ada: "+ada.Principal.ARN) {
		t.Errorf("the activation does not name its evidence: %q", active.Evidence)
	}
	if got := r.raised(); len(got) > 0 {
		t.Errorf("a device that an operator made was raised: %+v", got)
	}
	r.sound()
	for _, name := range []string{"pump-7", "c1", "thing:pump-7", "certificate:c1"} {
		d, err := r.Device(t.Context(), acct, name)
		if err != nil || d.Key != "pump-7" || d.Activated.IsZero() || d.Basis != ByOperator {
			t.Errorf("by %s found %+v, %v", name, d, err)
		}
	}
	if _, err := r.Device(t.Context(), acct, "pump-8"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("a device without ledger: %v", err)
	}
}

// claimed is a registry with a claim of ada's.
func claimed(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.happens(ada, certificate("claim", "ACTIVE"))
	return r
}

func TestAnnouncedDeviceJoinsByClaim(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.keys["pump-7"] = "SN-7"
	r.happens(kim, event.OnboardingChanged{Device: "SN-7", Plan: "line", PlanVersion: 2, State: "EXPECTED", Stage: "make"})
	r.happens(kim, event.OnboardingChanged{Device: "SN-7", Plan: "line", PlanVersion: 2, State: "MANUFACTURED", PreviousState: "EXPECTED", Stage: "ship", Steps: []string{"burn-in"}})
	r.happens(holder("claim"), connect("claim", "SN-7"))
	r.happens(holder("claim"), connect("claim", "SN-7"))
	r.happens(holder("claim"), certificate("own", "PENDING_ACTIVATION"))
	r.happens(system, event.ApprovalChanged{Request: "apr_1", State: "PENDING", Template: "Pumps", CertificateID: "own", Thing: "pump-7"})
	r.happens(ada, event.ApprovalChanged{Request: "apr_1", State: "PENDING", Template: "Pumps", CertificateID: "own", Thing: "pump-7", Authority: "site", Verdict: "DEFER"})
	r.happens(ada, event.ApprovalChanged{Request: "apr_1", State: "PENDING", Template: "Pumps", CertificateID: "own", Thing: "pump-7", Authority: "site", Verdict: "APPROVED", Reason: "secret words"})
	r.happens(kim, event.ApprovalChanged{Request: "apr_1", State: "APPROVED", Template: "Pumps", CertificateID: "own", Thing: "pump-7", Authority: "security", Verdict: "APPROVED"})
	p := event.DeviceProvisioned{
		Method: event.ProvisioningClaim, Template: "Pumps", TemplateVersion: 3, Thing: "pump-7", ThingCreated: true, CertificateID: "own", ClaimID: "claim", ClientID: "SN-7",
		Attributes: map[string]string{"owner": "content of a list"},
		Evidence:   []event.ProvisioningEvidence{{Kind: event.EvidenceList, Ref: "acme-w47 revision 3", Detail: "by fingerprint"}},
	}
	used := event.ApprovalChanged{Request: "apr_1", State: "USED", Template: "Pumps", CertificateID: "own", Thing: "pump-7"}
	r.happens(holder("claim"), joins(p, true, used)...)
	r.happens(system, event.OnboardingChanged{Device: "SN-7", Plan: "line", PlanVersion: 2, Thing: "pump-7", State: "APPROVED", PreviousState: "MANUFACTURED", Stage: "activate"})
	r.happens(holder("own"), connect("own", "pump-7"))
	wantEqual(t, r.whats("SN-7"), []What{
		Expected, Manufactured, Seen, CertificateIssued, ApprovalRequested, ApprovalVoted, ApprovalVoted, ApprovalVoted, CertificateActivated,
		Registered, ApprovalUsed, Planned, Activated,
	})
	wantEqual(t, r.last("SN-7", Registered).Facts, map[string]string{
		"means": "CLAIM", "template": "Pumps", "templateVersion": "3", "thing": "pump-7", "certificate": "own", "claim": "claim", "client": "SN-7",
	})
	active := r.last("pump-7", Activated)
	wantEqual(t, active.Facts["basis"], "ALLOW_LIST")
	said := strings.Join(active.Evidence, "\n")
	for _, want := range []string{
		"ALLOW_LIST acme-w47 revision 3: by fingerprint",
		"APPROVAL apr_1: site by " + ada.Principal.ARN + ", security by " + kim.Principal.ARN,
		"EXPECTED SN-7: announced by " + kim.Principal.ARN, "CLAIM claim: made by " + ada.Principal.ARN,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the evidence lacks %q:\n%s", want, said)
		}
	}
	for _, e := range r.entries("SN-7") {
		text, err := e.encode()
		if err != nil || strings.Contains(string(text), "content of a list") || strings.Contains(string(text), "secret words") {
			t.Errorf("an entry tells what is for others: %s, %v", text, err)
		}
	}
	if got := r.raised(); len(got) > 0 {
		t.Errorf("raised %+v", got)
	}
	r.sound()
}

// A stock template: the claim of an operator is what there is, and whether that is
// enough is a setting.
func TestStockTemplate(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		r := claimed(t)
		r.strict = strict
		r.boot()
		r.happens(holder("claim"), certificate("own", "PENDING_ACTIVATION"))
		p := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "Pumps", Thing: "pump-7", ThingCreated: true, CertificateID: "own", ClaimID: "claim", ClientID: "x"}
		r.happens(holder("claim"), joins(p, true)...)
		r.happens(holder("own"), connect("own", "pump-7"))
		active := r.last("pump-7", Activated)
		if !strict {
			wantEqual(t, r.whats("pump-7"), []What{CertificateIssued, CertificateActivated, Registered, Activated})
			wantEqual(t, active.Facts["basis"], "CLAIM")
			wantEqual(t, len(r.raised()), 0)
			if !strings.Contains(strings.Join(active.Evidence, ";"), "template without binding") {
				t.Errorf("evidence: %q", active.Evidence)
			}
			continue
		}
		wantEqual(t, r.whats("pump-7"), []What{CertificateIssued, CertificateActivated, Registered, Raised, Activated})
		wantEqual(t, active.Facts["basis"], "NONE")
		if !slices.Contains(active.Evidence, "none: stock template without binding") {
			t.Errorf("evidence: %q", active.Evidence)
		}
		wantEqual(t, r.raised(), []event.RogueDevice{{
			Device: "pump-7", Thing: "pump-7", CertificateID: "own", Reason: "only a claim or an authority speaks for it, and ledger.trust-claims is off",
		}})
		r.sound()
	}
}

// Quarantine and release are part of a life, and so is who has come with the birth
// certificate of another device.
func TestQuarantineIsInTheLedger(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.happens(ada, certificate("c1", "ACTIVE"))
	r.happens(ada, thing("pump-7"))
	r.happens(ada, attach("pump-7", "c1"))
	r.happens(fleet.System, event.ThingQuarantined{Thing: "pump-7", Reason: "two came", By: "allow lists", Certificates: []string{"c1"}})
	r.happens(ada, event.ThingReleased{Thing: "pump-7", Reason: "looked at"})
	r.happens(ada, event.ThingQuarantined{Thing: "nobody", Reason: "x", By: "ada"})
	r.happens(fleet.System, event.BirthCertificateMisused{CertificateID: "c1", OtherSerial: "SN-8", Reason: "it is another device's"})
	wantEqual(t, r.last("pump-7", Quarantined).Facts, map[string]string{"thing": "pump-7", "reason": "two came", "by": "allow lists"})
	wantEqual(t, r.last("pump-7", Released).Facts, map[string]string{"thing": "pump-7", "reason": "looked at"})
	wantEqual(t, r.last("pump-7", BirthMisused).Facts["otherSerial"], "SN-8")
	r.sound()
}

// A plan that begins with the registration of a device announces nothing: the device
// would speak for itself.
func TestNobodyAnnouncesItself(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.strict = true
	r.boot()
	r.happens(holder("claim"), certificate("own", "PENDING_ACTIVATION"))
	p := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "Pumps", Thing: "pump-7", ThingCreated: true, CertificateID: "own", ClaimID: "claim", ClientID: "x"}
	r.happens(holder("claim"), joins(p, true)...)
	r.happens(holder("claim"), event.OnboardingChanged{Device: "pump-7", Plan: "line", PlanVersion: 1, Thing: "pump-7", State: "EXPECTED"})
	r.happens(holder("own"), connect("own", "pump-7"))
	wantEqual(t, r.last("pump-7", Activated).Facts["basis"], "NONE")
	wantEqual(t, len(r.raised()), 1)
	r.sound()
}

// A device that brings in another one with its own certificate is raised, once.
func TestDeviceBringsInAnother(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.happens(ada, certificate("c1", "ACTIVE"))
	r.happens(ada, thing("good"))
	r.happens(ada, attach("good", "c1"))
	r.happens(holder("claim"), certificate("own", "PENDING_ACTIVATION"))
	good := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "Pumps", Thing: "pump-7", ThingCreated: true, CertificateID: "own", ClaimID: "claim"}
	r.happens(holder("claim"), joins(good, true)...)
	r.happens(holder("own"), certificate("evil", "PENDING_ACTIVATION"))
	bad := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "Pumps", Thing: "rogue", ThingCreated: true, CertificateID: "evil", ClaimID: "own"}
	r.happens(holder("own"), joins(bad, true)...)
	r.happens(holder("evil"), connect("evil", "rogue"))
	r.happens(holder("own"), joins(bad, false)...)
	wantEqual(t, r.raised(), []event.RogueDevice{{
		Device: "rogue", Thing: "rogue", CertificateID: "evil", Reason: "it asked with the certificate of device pump-7, which is no claim",
	}})
	page, next, counts, err := r.Rogues(t.Context(), acct, RogueJoined, "", 10)
	r.need(err)
	wantEqual(t, counts, RogueCounts{Devices: 1})
	if len(page) != 1 || next != "" || page[0].Device != "rogue" || page[0].Thing != "rogue" || page[0].Kind != RogueJoined {
		t.Errorf("rogues: %+v, next %q", page, next)
	}
	if !strings.Contains(r.log.String(), "device that nobody made has joined") {
		t.Errorf("no line in the log:\n%s", &r.log)
	}
	r.sound()
}

// Authorities: one of the registry speaks for a device, an unknown one does not.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, event.CACertificateChanged{CACertificateID: "ca", Change: event.CACertificateRegistered})
	join := func(n, ca string) {
		r.happens(system, certificate("c"+n, "PENDING_ACTIVATION"), event.CertificateAutoRegistered{CertificateID: "c" + n, CACertificateID: ca})
		r.happens(system, event.CertificateAutoRegistered{CertificateID: "c" + n, CACertificateID: ca})
		p := event.DeviceProvisioned{Method: event.ProvisioningJITP, Template: "J", Thing: "t" + n, ThingCreated: true, CertificateID: "c" + n, CACertificateID: ca}
		r.happens(system, joins(p, true)...)
	}
	join("1", "ca")
	join("2", "")
	wantEqual(t, r.whats("t1"), []What{CertificateIssued, CertificateAnnounced, CertificateActivated, Registered})
	raised := r.raised()
	if len(raised) != 1 || raised[0].Device != "t2" || raised[0].Reason != "its certificate is of no registered authority" {
		t.Errorf("raised %+v", raised)
	}
	d, err := r.Device(t.Context(), acct, "t1")
	if err != nil || d.Basis != ByAuthority || !strings.Contains(d.Evidence[0], "registered by "+ada.Principal.ARN) {
		t.Errorf("%+v, %v", d, err)
	}
}

// The end of a life, and the name again.
func TestDecommissionAndTheNameAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, certificate("c1", "ACTIVE"))
	r.happens(ada, thing("pump-7"))
	r.happens(ada, attach("pump-7", "c1"))
	r.happens(holder("c1"), connect("c1", "pump-7"))
	r.happens(ada,
		status("c1", "ACTIVE", "REVOKED"), event.PrincipalDetached{Thing: "pump-7", Principal: certARN("c1")},
		event.ThingDeleted{Thing: "pump-7"}, event.ThingDecommissioned{Thing: "pump-7", Certificates: []string{"c1"}, Reason: "worn out"})
	first := []What{Registered, CertificateIssued, Activated, CertificateRevoked, Decommissioned}
	wantEqual(t, r.whats("pump-7"), first)
	wantEqual(t, r.last("pump-7", Decommissioned).Facts, map[string]string{"thing": "pump-7", "reason": "worn out", "revoked": "1"})
	r.happens(holder("c1"), connect("c1", "pump-7")) // it was on its way
	d, err := r.Device(t.Context(), acct, "pump-7")
	if err != nil || d.Ended.IsZero() || d.Life != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	r.happens(kim, thing("pump-7"))
	r.happens(kim, certificate("c2", "ACTIVE"), attach("pump-7", "c2"))
	wantEqual(t, r.whats("pump-7"), append(slices.Clone(first), Registered, CertificateIssued))
	all := r.entries("pump-7")
	if again := all[5]; again.Life != 2 || again.PrevHash != all[4].Hash {
		t.Errorf("the next life does not link to the last one: %+v", again)
	}
	// It was not activated in this life, and its evidence is its own.
	d, err = r.Device(t.Context(), acct, "pump-7")
	if err != nil || !d.Activated.IsZero() || !d.Ended.IsZero() || d.Life != 2 || len(d.Evidence) != 1 || !strings.Contains(d.Evidence[0], "kim") {
		t.Errorf("%+v, %v", d, err)
	}
	r.happens(kim, event.PrincipalDetached{Thing: "pump-7", Principal: certARN("c2")})
	r.happens(kim, event.ThingDeleted{Thing: "pump-7"})
	wantEqual(t, r.whats("pump-7")[7:], []What{CertificateDetached, Decommissioned})
	r.sound()
}

func TestCertificatesOfALife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, certificate("c1", "INACTIVE"))
	r.happens(ada, thing("pump-7"))
	r.happens(ada, attach("pump-7", "c1"))
	r.happens(ada, status("c1", "INACTIVE", "ACTIVE"))
	r.happens(holder("c1"), connect("c1", "pump-7"))
	r.happens(ada, status("c1", "ACTIVE", "INACTIVE"))
	r.happens(ada, status("c1", "INACTIVE", "ACTIVE"))
	// It renews itself.
	r.happens(holder("c1"), certificate("c2", "PENDING_ACTIVATION"))
	p := event.DeviceProvisioned{Method: event.ProvisioningRenewal, Template: "Pumps", Thing: "pump-7", CertificateID: "c2", ClaimID: "c1"}
	renewal := event.CertificateRenewalChanged{Thing: "pump-7", OldCertificateID: "c1", NewCertificateID: "c2", Step: event.RenewalBegun}
	r.happens(holder("c1"), joins(p, false, renewal)...)
	r.happens(holder("c2"), connect("c2", "pump-7"))
	renewal.Step = event.RenewalProven
	r.happens(holder("c2"), renewal)
	renewal.Step = event.RenewalCompleted
	r.happens(system, status("c1", "ACTIVE", "INACTIVE"), event.PrincipalDetached{Thing: "pump-7", Principal: certARN("c1")}, renewal)
	r.happens(ada, event.CertificateDeleted{CertificateID: "c1"})
	wantEqual(t, r.whats("pump-7"), []What{
		Registered, CertificateIssued, CertificateActivated, Activated, CertificateDeactivated, Suspended, CertificateActivated, Resumed,
		CertificateIssued, CertificateActivated, CertificateRotated, CertificateDeactivated, CertificateDetached, CertificateRetired, CertificateDeleted,
	})
	if got := r.raised(); len(got) > 0 {
		t.Errorf("raised %+v", got)
	}
	r.sound()
}

// What another account did is told without who did it there.
func TestTransferNamesNobodyElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, thing("pump-7"))
	elsewhere := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "eve", ARN: "arn:aws:iam::000000000002:user/eve"}}
	r.happens(elsewhere, certificate("c1", "PENDING_TRANSFER"),
		event.CertificateTransferChanged{CertificateID: "c1", Change: event.CertificateTransferRequested, From: "000000000002", To: acct})
	r.happens(ada, status("c1", "PENDING_TRANSFER", "ACTIVE"),
		event.CertificateTransferChanged{CertificateID: "c1", Change: event.CertificateTransferAccepted, From: "000000000002", To: acct})
	r.happens(ada, attach("pump-7", "c1"))
	wantEqual(t, r.whats("pump-7"), []What{Registered, CertificateIssued, Transferred, CertificateActivated, Transferred})
	for _, e := range r.entries("pump-7") {
		if e.Principal.ID == "eve" || strings.Contains(e.Principal.ARN, "eve") {
			t.Errorf("entry %d names an operator of another account: %+v", e.Seq, e.Principal)
		}
	}
}

// A device that was known by its certificate becomes a thing.
func TestTwoLedgersBecomeOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, event.CACertificateChanged{CACertificateID: "ca", Change: event.CACertificateRegistered})
	r.happens(system, certificate("c1", "PENDING_ACTIVATION"), event.CertificateAutoRegistered{CertificateID: "c1", CACertificateID: "ca"})
	r.happens(system, event.DeviceProvisioned{Method: event.ProvisioningJITP, CertificateID: "c1", CACertificateID: "ca"})
	r.happens(ada, thing("pump-7"))
	r.happens(ada, attach("pump-7", "c1"))
	r.happens(holder("c1"), connect("c1", "pump-7"))
	wantEqual(t, r.whats("c1"), []What{CertificateIssued, CertificateAnnounced, Registered, Joined, Activated})
	wantEqual(t, r.whats("thing:pump-7"), r.whats("c1"))
	ended, _, err := r.Entries(t.Context(), acct, "pump-7", 0, 10)
	r.need(err)
	joined := r.last("c1", Joined)
	if len(ended) != 2 || ended[1].What != Continued || joined.Facts["hash"] != ended[1].Hash || joined.Facts["entries"] != "2" {
		t.Errorf("%+v does not take over %+v", joined, ended)
	}
	r.sound()
}

// The registry has a thing of which no event tells.
func TestThingThatNoEventMade(t *testing.T) {
	t.Parallel()
	for _, complete := range []bool{true, false} {
		r := newRig(t)
		r.happens(ada, thing("other"))
		if !complete {
			head, err := r.store.Head(t.Context())
			r.need(err)
			r.tell(ada, thing("lost"))
			lost, err := r.store.Head(t.Context())
			r.need(err)
			r.need(r.store.Trim(t.Context(), lost))
			cursor, err := r.Rebuild(t.Context())
			r.need(err)
			if head.CoversAll(cursor) {
				t.Fatalf("rebuild went to %s, the gap is behind %s", cursor, head)
			}
			again, err := r.Rebuild(t.Context())
			r.need(err)
			wantEqual(t, again.String(), cursor.String())
			r.need(setCursor(r, cursor.String()))
			entries, _, err := r.Entries(t.Context(), acct, ledgerItself, 0, 10)
			r.need(err)
			if len(entries) != 1 || entries[0].What != Gap {
				t.Errorf("the gap is told by %+v", entries)
			}
		}
		r.happens(holder("c9"), event.DeviceConnected{Session: event.Session{ClientID: "ghost", Principal: "c9", Indexed: true}})
		wantEqual(t, slices.Contains(r.whats("ghost"), Raised), complete)
		wantEqual(t, r.whats("ghost")[0], Found)
		wantEqual(t, len(r.raised()) == 1, complete)
		r.sound()
	}
}

func setCursor(r *rig, text string) error {
	_, err := r.store.Store.Commit(r.tb.Context(), store.Batch{Writes: []store.Write{{Key: store.K("cursor", "ledger"), Value: []byte(text)}}})
	return err
}

// A thing's name that is used again may be another device's now; a serial that comes
// back is the same device's next life.
func TestNameOfAnotherDevice(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	life := func(serial, cert string) {
		r.keys["slot-1"] = serial
		r.happens(holder("claim"), certificate(cert, "PENDING_ACTIVATION"))
		p := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "P", Thing: "slot-1", ThingCreated: true, CertificateID: cert, ClaimID: "claim", ClientID: serial}
		r.happens(holder("claim"), joins(p, true)...)
		r.happens(ada, status(cert, "ACTIVE", "REVOKED"), event.PrincipalDetached{Thing: "slot-1", Principal: certARN(cert)},
			event.ThingDeleted{Thing: "slot-1"}, event.ThingDecommissioned{Thing: "slot-1"})
	}
	life("SN-1", "c1")
	life("SN-2", "c2")
	life("SN-1", "c3")
	one := []What{CertificateIssued, CertificateActivated, Registered, CertificateRevoked, Decommissioned}
	wantEqual(t, r.whats("SN-2"), one)
	wantEqual(t, r.whats("SN-1"), append(slices.Clone(one), one...))
	wantEqual(t, r.entries("SN-1")[5].Life, 2)
	d, err := r.Device(t.Context(), acct, "thing:slot-1")
	if err != nil || d.Key != "SN-1" || d.Life != 2 {
		t.Errorf("the thing leads to %+v, %v", d, err)
	}
	r.sound()
}

// A key of onboarding that comes to be known late finds the ledger of its thing, and
// keys that others have are told apart.
func TestKeysOfDevices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.happens(ada, thing("pump-7"))
	r.happens(system, event.OnboardingChanged{Device: "SN-7", Plan: "line", PlanVersion: 1, Thing: "pump-7", State: "REGISTERED"})
	wantEqual(t, r.whats("SN-7"), []What{Registered, Planned})
	r.happens(system, event.OnboardingCriteriaFailed{Device: "SN-7", Plan: "line", PlanVersion: 1, Thing: "pump-7", Stage: "use"})
	wantEqual(t, r.whats("pump-7"), []What{Registered, Planned, CriterionFailed})
	// Another device's serial is the name of a thing.
	r.keys["pump-8"] = "valve-1"
	p := event.DeviceProvisioned{Method: event.ProvisioningRegisterThing, Thing: "pump-8", ThingCreated: true}
	r.happens(ada, thing("pump-8"), p)
	r.happens(ada, thing("valve-1"))
	wantEqual(t, r.whats("valve-1"), []What{Registered})
	d, err := r.Device(t.Context(), acct, "thing:valve-1")
	if err != nil || d.Key != "thing:valve-1" || d.Thing != "valve-1" {
		t.Errorf("the thing leads to %+v, %v", d, err)
	}
	if got := r.raised(); len(got) > 0 {
		t.Errorf("raised %+v", got)
	}
	r.sound()
}

// What became of the entry of an allow list, and who else came with it. However often
// somebody pretends to be a device, its ledger stays of a size.
func TestListsAndPretenders(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.happens(holder("claim"), certificate("own", "PENDING_ACTIVATION"))
	p := event.DeviceProvisioned{
		Method: event.ProvisioningClaim, Template: "P", Thing: "pump-7", ThingCreated: true, CertificateID: "own", ClaimID: "claim", ClientID: "SN-7",
		Evidence: []event.ProvisioningEvidence{{Kind: event.EvidenceList, Ref: "revision 3 of allow list acme", Detail: "found by serial"}},
	}
	r.happens(holder("claim"), joins(p, true, event.AllowListEntryChanged{
		List: "acme", Revision: 3, Supplier: "acme", State: "CLAIMED", Found: "SERIAL", Thing: "pump-7", CertificateID: "own",
	})...)
	r.happens(ada, event.AllowListEntryChanged{List: "acme", Revision: 3, Supplier: "acme", State: "BLOCKED", Thing: "pump-7", CertificateID: "own", Reason: "of a list"})
	r.happens(ada, event.AllowListEntryChanged{List: "acme", Revision: 3, Supplier: "acme", State: "BLOCKED"})
	wantEqual(t, r.whats("pump-7"), []What{CertificateIssued, CertificateActivated, Registered, ListClaimed, ListChanged})
	wantEqual(t, r.last("pump-7", ListClaimed).Facts, map[string]string{"list": "acme", "revision": "3", "supplier": "acme", "state": "CLAIMED", "found": "SERIAL"})
	for n := range 2 * maxUnproven {
		id := fmt.Sprint("copy", n)
		r.happens(holder("claim"), certificate(id, "PENDING_ACTIVATION"))
		r.happens(system, event.DuplicateSerial{Thing: "pump-7", CertificateID: id, OtherThing: "pump-7", OtherCertificateID: "own", ListID: "acme", Revision: 3})
		r.happens(system, event.ApprovalChanged{Request: id, State: "PENDING", Template: "P", CertificateID: id, Thing: "pump-7"})
	}
	wantEqual(t, r.last("pump-7", Duplicated).Facts["certificate"], "own")
	if n := len(r.entries("pump-7")); n != 5+maxUnproven {
		t.Errorf("its ledger has %d entries, the most are %d", n, 5+maxUnproven)
	}
	// A copy that gets in nevertheless brings its own story along.
	again := event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "P", Thing: "pump-8", ThingCreated: true, CertificateID: "copy127", ClaimID: "claim"}
	r.happens(holder("claim"), joins(again, true)...)
	wantEqual(t, r.whats("pump-8"), []What{CertificateIssued, Duplicated, ApprovalRequested, CertificateActivated, Registered})
	r.sound()
}
